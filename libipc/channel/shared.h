/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_SHARED_H
#define LIBIPC_CHANNEL_SHARED_H

/*
 * The structure of the kind `shared`: one value of fixed size under a robust lock.
 *
 * Transactional: there are two buffers, and one word says which of them is the value.  Edits happen
 * in the other one, and one store makes it the value.  Whoever is killed, at whichever instruction,
 * leaves exactly the last committed value; there is nothing to repair.
 *
 * In place: there is one buffer, for values too large to copy.  A holder's death may leave it
 * half-made, so the next holder is told and has to say that it made the value whole
 * (shared_mark_consistent) before it lets go; else the channel is given up for everybody.
 *
 * field    written by           rule
 * header   see core/header.h    holder_id and holder_since by the holder of the lock
 * lock     see platform/lock.h  guards everything below but the event
 * event    see eventcount.h     where both sides sleep for the value; woken by a commit, a
 *                               shutdown, a break, and by whoever finds a death
 * current  holder of the lock   version << 1 | buffer (in place the buffer is always 0): the store
 *                               that changes it is the commit
 * fate     holder of the lock   SHARED_UNTOLD, SHARED_UNMARKED
 * values   holder of the lock   one or two buffers of value_size bytes, each beginning on 64; the
 *                               one that `current` names changes only in place
 *
 * `fate`, and what a death between any two stores does to it:
 * The lock tells a death to the next holder, who writes `fate` before anything else.  If that one
 * dies before or after the store, the lock tells that death: none is ever forgotten.  UNTOLD stays
 * while the lock is taken only to look at a predicate, and goes with the first holder whose user is
 * told.  UNMARKED (in place) goes by shared_mark_consistent() alone: a holder that was told and
 * dies before it marked is a new death, and the next one is told and has to mark.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/version.h>

#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/waiter.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/lock.h"

/* shape[0] is the value's size, shape[1] one of these. */
enum shared_shape { SHARED_TRANSACTIONAL = 1, SHARED_IN_PLACE = 2 };

#define SHARED_UNTOLD   UINT32_C(1) /* a holder died, and no user has been told since */
#define SHARED_UNMARKED UINT32_C(2) /* in place: the value may be half-made */

struct shared_segment {
	struct channel_header header;
	struct lock lock;
	struct eventcount event;
	_Alignas(64) _Atomic uint64_t current;
	_Atomic uint32_t fate;
	uint32_t reserved[13];
	unsigned char values[];
};
ASSERT_OFFSET(struct shared_segment, lock, 256);
ASSERT_OFFSET(struct shared_segment, event, 320);
ASSERT_OFFSET(struct shared_segment, current, 384);
ASSERT_OFFSET(struct shared_segment, fate, 392);
ASSERT_OFFSET(struct shared_segment, values, 448);
ASSERT_SIZE(struct shared_segment, 448);

/*
 * One handle's view of a segment, private to the process.  What is below `holder` belongs to the
 * thread that holds the lock through this view, which is the one whose number `holder` is.
 */
struct shared {
	struct shared_segment *segment;
	uint64_t value_size;
	uint64_t handle_id;
	bool is_in_place;
	_Atomic uint64_t holder; /* the holding thread, by a number of its own; 0: none */
	bool is_edited;
	bool owes_wake;       /* the holder before died: it may have committed and not woken */
	uint64_t edited_from; /* `current` as it was at the first edit */
	uint32_t cpu;         /* what this view last wrote into the event's hint */
	uint32_t n_commits;

	/* Given by the owner after attach; may be NULL.  Where those sleep who do not wait for the
	 * value: an end is told there as well, a commit never. */
	struct eventcount *lines;

	/* Who is armed on the lines and has to be rung.  NULL: nobody is ever. */
	void (*ring)(void *userdata);
	void *ring_userdata;
};

/* Bytes of a segment, not rounded to pages.  0: there is no such value_size or shape. */
uint64_t shared_segment_size(uint64_t value_size, uint64_t shape);

/*
 * Writes a new segment over zero bytes or over what a creator left that died in here: the value's
 * bytes are not touched, since nobody could have written them.  0; IPC_EINVAL: the size does not
 * fit the shape.
 */
IPC_CHECKED int shared_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* The check at attach. 0; IPC_EBADMSG; IPC_EPROTONOSUPPORT. */
IPC_CHECKED int shared_attach(struct shared *ret_shared, void *segment, uint64_t size,
			      const uint64_t shape[4], uint64_t handle_id);

/*
 * Takes the lock.  0: held; 1: held, and a holder died of whom no user was told until now;
 * IPC_EDEADLK: this thread holds it; IPC_EBADMSG, IPC_ENOTRECOVERABLE: broken.  try: IPC_EBUSY.
 * wait: what ends a waiter.
 */
IPC_CHECKED int shared_lock_try(struct shared *shared);
IPC_CHECKED int shared_lock_wait(struct shared *shared, struct waiter *waiter);

/*
 * Takes the lock when `holds` says true of the value; the waiter's event has to be shared_event().
 * Results as above, and the end: IPC_EPIPE after a shutdown, else what `end` says (0: no end).  The
 * predicate is called with the lock held, and once more after an end was seen.  In place a death is
 * told at once, without asking the predicate.
 */
struct shared_condition {
	bool (*holds)(const void *value, uint64_t size, void *userdata);
	int (*end)(void *userdata);
	void *userdata;
};
IPC_CHECKED int shared_lock_when_wait(struct shared *shared, struct waiter *waiter,
				      const struct shared_condition *condition);

static inline struct eventcount *shared_event(const struct shared *shared)
{
	return &shared->segment->event;
}

/* Whether the calling thread holds the lock through this view. */
bool shared_is_mine(const struct shared *shared);

/* Whether some thread of this process holds it through this view (or ended holding). */
static inline bool shared_is_taken(const struct shared *shared)
{
	return atomic_load_explicit(&shared->holder, memory_order_relaxed) != 0;
}

/* The value, for the holder: valid until it lets go. */
const void *shared_value(const struct shared *shared);

/*
 * The holder's operations.  IPC_EINVAL: this thread does not hold the lock.
 *
 * commit, unlock: the lock is not held afterwards, whatever they say (but for IPC_EINVAL).  A
 * commit that is refused (IPC_EBADMSG, IPC_ENOTRECOVERABLE) changed nothing.  In place without the
 * mark that was due both give the channel up; unlock says 0 even so, since it unlocked.
 */
IPC_CHECKED int shared_edit(struct shared *shared, void **ret_value);
IPC_CHECKED int shared_commit(struct shared *shared);
IPC_CHECKED int shared_unlock(struct shared *shared);
IPC_CHECKED int shared_mark_consistent(struct shared *shared);

/* Lets go of the lock if this thread holds it, at a close: an unlock that has nobody to tell. */
void shared_drop(struct shared *shared);

/* Lets go as if the lock had never been taken: a death that was told (result 1) is told to the next
 * one instead. */
void shared_put_back(struct shared *shared, bool was_told);

/* Shut down or broken. */
bool shared_is_ended(const struct shared *shared);

/* Ends waits for predicates, for ever and for everybody.  0, or the fault of a broken channel. */
IPC_CHECKED int shared_shutdown(struct shared *shared);

#endif
