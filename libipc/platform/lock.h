/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_LOCK_H
#define LIBIPC_PLATFORM_LOCK_H

/*
 * A robust lock between processes of one uid: glibc's robust, error-checking, process-shared mutex
 * behind five functions.
 *
 * Rules that make it survive every death:
 * - A death is always made consistent at once; the mutex never becomes ENOTRECOVERABLE.  What the
 * death means for the data is told by LOCK_HELD_AFTER_DEATH and decided by the structure that owns
 * the lock.
 * - Nobody sleeps in glibc: lock_sleep() waits on the kernel's own lock word (robust_futex ABI: TID
 * | FUTEX_WAITERS) together with the caller's words, so that cancel and deadlines end a lock wait
 * at once, in slices, since a killed waiter can swallow a robust mutex's wake.
 * - The mutex's type word is compared before each use: another process may have written anything
 * (LOCK_BROKEN).  What was overwritten while held is left without following it, and its memory may
 * be unmapped afterwards.
 * - A holder that is gone and was not released by the kernel (its list was broken) is released by
 * whoever has slept for a slice.  So all lockers are of one pid namespace.
 *
 * field    written by               rule
 * mutex    glibc, kernel, locker    a lock word stays a lock word for the life of the segment
 */

#include <stdint.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/futex.h"

struct lock {
	_Alignas(64) unsigned char mutex[64];
};
ASSERT_SIZE(struct lock, 64);

enum lock_result {
	LOCK_HELD,
	LOCK_HELD_AFTER_DEATH, /* held and consistent; the last holder died holding it */
	LOCK_BUSY,             /* another thread holds it */
	LOCK_DEADLOCK,         /* this thread holds it */
	LOCK_BROKEN,           /* the memory is not a lock of this libc */
};

void lock_init(struct lock *lock);

/* A number that differs where glibc's mutex layout differs: part of the layout stamp (M-62). */
uint32_t lock_layout_stamp(void);

/* Never sleeps. */
enum lock_result lock_try(struct lock *lock);

/*
 * Sleeps until the lock may be free, one of `others` may have changed, deadline_ns or a slice
 * passed.  The one correct loop, with n_slept = 0 before it:
 *
 *	1. Load the expected values of others.
 *	2. r = lock_try(lock).  Not LOCK_BUSY: done; if it is held and n_slept > 0,
 *	   lock_inherit(lock).
 *	3. Look at cancel and deadline; on leaving after a sleep lock_pass_on(lock).
 *	4. lock_sleep(lock, others, n_others, deadline_ns); ++n_slept.
 */
enum futex_result lock_sleep(struct lock *lock, const struct futex_word *others, unsigned n_others,
			     uint64_t deadline_ns);

/* After a sleep, once held: others may sleep too, so the unlock has to wake one (sets
 * FUTEX_WAITERS). */
void lock_inherit(struct lock *lock);

/* After a sleep, giving up: the wake that this thread may have swallowed goes to another. */
void lock_pass_on(struct lock *lock);

/* By the holding thread only; 0, or -1 if this thread does not hold it (nothing happened). */
int lock_unlock(struct lock *lock);

/* Whether this thread holds it.  Reads one word. */
int lock_is_mine(const struct lock *lock);

#endif
