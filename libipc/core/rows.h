/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_ROWS_H
#define LIBIPC_CORE_ROWS_H

/*
 * Short numbers for handles: who holds something in a structure is named there by the number of a
 * row, which fits into a word beside other things, while a handle's id does not.
 *
 * field     written by             rule
 * top       takers of rows         no row from here on was ever taken; only grows
 * owner[]   whoever takes the row  the owner's handle id; 0: nobody's.  An id that is not open any
 *                                  more holds nothing; the row is free once the process is gone
 * process[] the row's owner        its process, after `owner`; 0: not known, of another pid
 *                                  namespace, or none
 *
 * A process that the broker holds dead may live (it closed its descriptors), and one of its threads
 * may be anywhere in the library: what is written by right of a row alone must not change hands
 * before the process is gone.  So rows do not.  Of a process of another pid namespace nobody here
 * can tell that: being held dead is all there is.
 *
 * Deaths: between `owner` and `process` the row has the id of a process that is gone, or that is
 * held dead as soon as that is told: so it is free.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/core/liveness.h"
#include "libipc/platform/compiler.h"

#define ROWS_MAX 4096

struct rows {
	_Alignas(64) _Atomic uint32_t top;
	uint32_t reserved[15];
	_Atomic uint64_t owner[ROWS_MAX];
	_Atomic uint32_t process[ROWS_MAX];
};
ASSERT_SIZE(struct rows, 64 + ROWS_MAX * 12);

void rows_init(struct rows *rows);

/*
 * A row for this handle; process 0: others cannot tell when it is gone.  False: all are taken by
 * the living, or this handle is held dead.  Inherited: what the dead owner wrote elsewhere now
 * seems to be this handle's, and has to be put right before the row is used.
 */
bool rows_take(struct rows *rows, const struct liveness_table *table, uint64_t handle_id,
	       uint32_t process, uint32_t *ret_row, bool *ret_is_inherited);

/* Of no effect if the row is not this handle's any more. */
void rows_give(struct rows *rows, uint32_t row, uint64_t handle_id);

/* The owner's id; 0: nobody's. */
static inline uint64_t rows_owner(const struct rows *rows, uint32_t row)
{
	return atomic_load_explicit(&rows->owner[row & (ROWS_MAX - 1)], memory_order_acquire);
}

/* The owner's process; 0: not known. */
static inline uint32_t rows_process(const struct rows *rows, uint32_t row)
{
	return atomic_load_explicit(&rows->process[row & (ROWS_MAX - 1)], memory_order_relaxed);
}

/* The row's handle is open. */
bool rows_is_alive(const struct rows *rows, const struct liveness_table *table, uint32_t row);

/* Nobody's, or of somebody who is gone, and not only held dead.  Some system calls if its handle is
 * not open any more. */
bool rows_is_free(const struct rows *rows, const struct liveness_table *table, uint32_t row);

/* At most ROWS_MAX, whatever stands there. */
uint32_t rows_top(const struct rows *rows);

#endif
