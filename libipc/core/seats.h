/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_SEATS_H
#define LIBIPC_CORE_SEATS_H

/*
 * Who holds what: instead of counting the holders of an object, each holder says in a seat of its
 * own which object it holds.  A process that is killed gives up all its seats at once, since a seat
 * counts only while the handle that its row belongs to is open in the liveness table; no counter is
 * left too high.
 *
 * Seats stand in rows (core/rows.h).  A row belongs to one handle at a time, which hands out the
 * seats of its rows to its own threads without asking anybody.
 *
 * field     written by             rule
 * object    the row's owner        number of the object + 1; 0: holds nothing.  The owner stores it
 *                                  before it looks whether the object is still to be had
 *                                  (seats_hold); who wants to end the object looks at its state
 *                                  first and at the seats after (seats_fence)
 * thread    the row's owner        kernel's id of the thread that leads by this seat
 * writer    a thread of the owner  held while it writes into the object, and at no other time: the
 *                                  kernel frees it when the thread dies.  An owner that the broker
 *                                  holds dead although it lives (it closed its descriptors) may be
 *                                  in the middle of such a write: as long as the lock is held,
 *                                  nobody else may write there
 *
 * What is written by right of a seat alone does not change hands before the process is gone, since
 * rows do not; an object may change hands as soon as its holder is held dead if that is done by an
 * exchange of a word that the holder would have to exchange, too.
 *
 * Deaths: between the store of `owner` and the clearing of the seats the new owner's row may name
 * objects that the dead one held; they look held until the next one clears them.  That is the only
 * trace, and seats_row_take() of anybody removes it.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/core/liveness.h"
#include "libipc/core/rows.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/quicklock.h"

#define SEATS_PER_ROW 8
#define SEATS_ROWS    ROWS_MAX
#define SEATS_MAX     (SEATS_PER_ROW * SEATS_ROWS)

#define SEAT_NONE UINT32_MAX

struct seat {
	_Atomic uint32_t object;
	_Atomic uint32_t thread;
	struct quicklock writer;
	uint32_t reserved;
};
ASSERT_SIZE(struct seat, 16);

struct seats {
	struct rows rows;
	_Alignas(64) struct seat seat[SEATS_MAX];
};

void seats_init(struct seats *seats);

/*
 * A row for this handle, its seats empty.  False: all are taken by the living.  Inherited: what the
 * dead owner had written elsewhere about its seats now seems to be this handle's, and has to be put
 * right before a seat is used.
 */
bool seats_row_take(struct seats *seats, const struct liveness_table *table, uint64_t handle_id,
		    uint32_t *ret_row, bool *ret_is_inherited);

/* By its owner, all seats empty.  Of no effect if the row is not this handle's any more. */
void seats_row_give(struct seats *seats, uint32_t row, uint64_t handle_id);

/* The id of the handle that the seat belongs to; 0: of nobody. */
uint64_t seats_owner(const struct seats *seats, uint32_t seat);

/* Whether somebody alive holds this object by this seat.  Any seat number is safe. */
bool seats_is_held(const struct seats *seats, const struct liveness_table *table, uint32_t seat,
		   uint32_t object);

/* Whether the process that has the seat is gone, and not only held dead.  Some system calls, if its
 * handle is not open any more. */
bool seats_is_gone(const struct seats *seats, const struct liveness_table *table, uint32_t seat);

/* Whether anybody alive holds the object by a seat other than `except`. */
bool seats_any(const struct seats *seats, const struct liveness_table *table, uint32_t object,
	       uint32_t except);

/* Sets bit `object` of `held` for each object below n_objects that somebody alive holds. */
void seats_mark(const struct seats *seats, const struct liveness_table *table, uint64_t *held,
		uint32_t n_objects);

/* By the owner.  Afterwards the object's state has to be looked at again: either that look sees
 * that the object is being ended, or who ends it sees the seat. */
static inline void seats_hold(struct seats *seats, uint32_t seat, uint32_t object)
{
	atomic_store_explicit(&seats->seat[seat].object, object + 1, memory_order_release);

	/* [K1] The seat before the state.  Pairs with [K2]. */
	atomic_thread_fence(memory_order_seq_cst);
}

/* The same where a locked exchange of the object's state follows, which is the fence. */
static inline void seats_hold_unfenced(struct seats *seats, uint32_t seat, uint32_t object)
{
	atomic_store_explicit(&seats->seat[seat].object, object + 1, memory_order_release);
}

static inline void seats_drop(struct seats *seats, uint32_t seat)
{
	/* What was read of the object was read before. */
	atomic_store_explicit(&seats->seat[seat].object, 0, memory_order_release);
}

/* Between the look at an object's state and the look at the seats. */
static inline void seats_fence(void)
{
	/* [K2] The state before the seats.  Pairs with [K1]. */
	atomic_thread_fence(memory_order_seq_cst);
}

#endif
