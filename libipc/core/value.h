/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_VALUE_H
#define LIBIPC_CORE_VALUE_H

/*
 * The latest value: written by one at a time, read by any number who take no lock and whom no
 * writer ever sees.  Lives in shared memory; a writer may die between any two stores, and a reader
 * may map all of it read-only.
 *
 * One word, `latest`, says which of several slots holds the value.  A writer fills a slot that
 * `latest` does not name and then moves `latest` in one step; so a value is there as a whole or not
 * at all, and a death before that step leaves nothing to repair.
 *
 * field          written by     rule
 * latest         lock's holder  {version, CLOSED, slot}; the version grows by one, 0: none yet
 * slot.sequence  lock's holder  2 * version of what the slot holds; odd while it is being filled
 * slot.size      lock's holder  of the data; meaningful between two equal, even sequences
 * slot.data      lock's holder  the same
 *
 * CLOSED is set by anybody who may write, without the lock, and never goes away: with it nothing
 * can be committed any more.  A death leaves the sequence of a slot odd: no matter, `latest` does
 * not name that slot, and the next writer fills it anew.
 *
 * A reader takes `latest`, copies the slot, and finds by the sequence whether the slot was filled
 * again meanwhile.  That needs n_slots - 1 further values during one copy, since writers take the
 * slots in turn; the reader then goes on with a version newer by as much.
 *
 * Why a reader never takes a fast writer for a broken one: each store to a slot's sequence is a
 * release that follows the store to `latest` which named another slot.  Whoever sees the sequence
 * changed therefore sees `latest` moved on to a larger version.  Sequence changed and version not
 * larger: no order of correct stores gives that, and only that is VALUE_BROKEN.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"

#define VALUE_SLOTS_MIN   3
#define VALUE_SLOTS_MAX   16
#define VALUE_VERSION_MAX ((UINT64_C(1) << 56) - 1)

struct value_control {
	_Alignas(64) _Atomic uint64_t latest; /* version << 8 | CLOSED | slot */
	uint64_t reserved[7];
};
ASSERT_SIZE(struct value_control, 64);

struct value_slot {
	_Alignas(64) _Atomic uint64_t sequence;
	_Atomic uint64_t size;
	uint64_t reserved[6];
	unsigned char data[];
};
ASSERT_OFFSET(struct value_slot, data, 64);

/* A view: where the parts are mapped here.  The numbers are private copies; those in shared memory
 * are never used. */
struct value {
	struct value_control *control;
	unsigned char *slots;
	uint64_t stride;
	uint64_t size_max;
	uint32_t n_slots;
};

/* A slot that is being filled, as its writer remembers it. */
struct value_edit {
	uint64_t latest; /* as found */
	uint64_t version;
	uint32_t slot;
};

enum value_result {
	VALUE_DONE,
	VALUE_NONE,      /* nothing newer */
	VALUE_TOO_LARGE, /* for the reader's buffer */
	VALUE_COLLIDED,  /* writers outran the copy too often in a row; nothing is wrong */
	VALUE_CLOSED,
	VALUE_BROKEN,
};

/* Bytes that the slots take, from an address aligned to 64; 0: too large to count.  size_max is at
 * most 2^62. */
uint64_t value_slots_size(uint64_t size_max, uint32_t n_slots);

void value_view(struct value *ret, struct value_control *control, void *slots, uint64_t size_max,
		uint32_t n_slots);

/* No value, not closed.  By the creator alone. */
void value_init(const struct value *value);

/* ---- readers ---- */

/*
 * Copies the value if its version is above newer_than.  DONE; NONE; TOO_LARGE: *ret_size is what is
 * needed, the version is not written; COLLIDED; BROKEN.  A value never comes out torn.
 */
enum value_result value_read(const struct value *value, uint64_t newer_than, void *buffer,
			     uint64_t size, uint64_t *ret_size, uint64_t *ret_version);

uint64_t value_version(const struct value *value);
bool value_is_closed(const struct value *value);

/* ---- writers, under a lock of the caller's; a writer that dies needs no repair ---- */

/* Takes the next slot: DONE, CLOSED, BROKEN.  Giving it up is doing nothing. */
enum value_result value_begin(const struct value *value, struct value_edit *ret);

/* size_max bytes, aligned to 64. */
void *value_data(const struct value *value, const struct value_edit *edit);

/* Fills the slot with the latest value (zero bytes if there is none): DONE, BROKEN. */
enum value_result value_copy_latest(const struct value *value, const struct value_edit *edit,
				    uint64_t *ret_size);

/* Makes the slot's first `size` bytes the latest value: DONE, CLOSED, BROKEN; nothing changed in
 * the last two cases. */
enum value_result value_commit(const struct value *value, const struct value_edit *edit,
			       uint64_t size);

/* ---- anybody who may write ---- */
void value_close(const struct value *value);

#endif
