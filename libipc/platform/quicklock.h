/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_QUICKLOCK_H
#define LIBIPC_PLATFORM_QUICKLOCK_H

/*
 * A robust lock for a few dozen nanoseconds: one word in shared memory, no pointers, no libc
 * layout, a third of a robust mutex's price.
 *
 * The kernel releases a dead thread's locks by the thread's robust list, and besides the list it
 * looks at one more entry: the lock that the thread is just taking or giving back
 * (list_op_pending).  This lock is never in the list.  It stays "just being taken" for as long as
 * it is held: whenever the thread dies, the kernel sets FUTEX_OWNER_DIED if the word holds its id.
 *
 * So a thread holds one of them at a time, and between try and unlock it does nothing that the C
 * library may use that entry for: no robust mutex (struct lock), no call of the user's.  Only one
 * thread at a time may sleep on the word, and it does not want the lock but to see it free: to that
 * one the word looks like an event count, whose SLEEPERS is the bit FUTEX_WAITERS.
 *
 * field  written by                  rule
 * word   lockers, kernel, a sleeper  thread id of the holder, 0: free; FUTEX_WAITERS: somebody
 *                                    sleeps; FUTEX_OWNER_DIED: a holder died, and nobody took it
 *                                    since
 *
 * What a death means for the data is the owner's matter: a try does not tell of it.
 */

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"

struct quicklock {
	_Atomic uint32_t word;
};
ASSERT_SIZE(struct quicklock, 4);

enum quicklock_result {
	QUICKLOCK_HELD,
	QUICKLOCK_BUSY,
	QUICKLOCK_REFUSED, /* this thread has no robust list: it cannot take any */
};

/*
 * What a thread knows of itself; tid 0: nothing yet, or a forked copy.  Two variables rather than a
 * struct: their addresses are never taken, only their values.
 */
extern _Thread_local struct robust_list_head *quicklock_head
	__attribute__((__visibility__("hidden"), __tls_model__("initial-exec")));
extern _Thread_local uint32_t quicklock_tid
	__attribute__((__visibility__("hidden"), __tls_model__("initial-exec")));

/* The slow ways of the functions below. */
bool quicklock_thread_init(void);
enum quicklock_result quicklock_try_slow(struct quicklock *lock);
void quicklock_unlock_slow(struct quicklock *lock);

/* What the kernel looks at when this thread dies. */
static inline void quicklock_pend(struct quicklock *lock)
{
	struct robust_list_head *head = quicklock_head;
	void *entry = lock ? (char *)lock - head->futex_offset : NULL;

	/* Only the kernel looks, in this very thread: the compiler alone has to keep the order. */
	atomic_signal_fence(memory_order_seq_cst);
	*(void *volatile *)&head->list_op_pending = entry;
	atomic_signal_fence(memory_order_seq_cst);
}

/* Never sleeps.  A full fence if it is held. */
static inline enum quicklock_result quicklock_try(struct quicklock *lock)
{
	uint32_t word = 0;

	if (UNLIKELY(quicklock_tid == 0) && !quicklock_thread_init())
		return QUICKLOCK_REFUSED;

	/* Before the word: a death right after the exchange is a death of the holder. */
	quicklock_pend(lock);

	/* [Q1] What was done under the lock is seen.  Pairs with [Q2].  Sequentially consistent for
	 * whoever uses the lock as one half of a store-then-load protocol. */
	if (LIKELY(atomic_compare_exchange_strong_explicit(
		    &lock->word, &word, quicklock_tid, memory_order_seq_cst, memory_order_relaxed)))
		return QUICKLOCK_HELD;

	return quicklock_try_slow(lock);
}

/* By the holder.  A full fence, so that who notifies after it needs none of their own. */
static inline void quicklock_unlock(struct quicklock *lock)
{
	uint32_t word = quicklock_tid;

	/* [Q2] What was done under the lock is visible before it is free.  Pairs with [Q1]. */
	if (UNLIKELY(!atomic_compare_exchange_strong_explicit(
		    &lock->word, &word, 0, memory_order_seq_cst, memory_order_relaxed)))
		quicklock_unlock_slow(lock);

#if !defined(__x86_64__) && !defined(__i386__)
	/* Elsewhere the exchange lets later loads pass. */
	atomic_thread_fence(memory_order_seq_cst);
#endif

	/* After the word: until then a death wakes who sleeps. */
	quicklock_pend(NULL);
}

/* The same for a lock that nobody ever sleeps on, at half the price: no fence. */
static inline void quicklock_unlock_alone(struct quicklock *lock)
{
	/* [Q3] As [Q2].  Only the kernel stores here besides the holder, and then after its end. */
	atomic_store_explicit(&lock->word, 0, memory_order_release);
	quicklock_pend(NULL);
}

/* Whether nobody holds it now.  Sequentially consistent. */
static inline bool quicklock_is_free(const struct quicklock *lock)
{
	return (atomic_load_explicit(&lock->word, memory_order_seq_cst) & FUTEX_TID_MASK) == 0;
}

/*
 * Where the kernel did not get to a dead holder (the thread's own robust list was broken): if the
 * holder is gone, the lock is free afterwards, and true is returned.  Some system calls.
 */
bool quicklock_release_dead(struct quicklock *lock);

#endif
