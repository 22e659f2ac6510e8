/* SPDX-License-Identifier: MIT */
#include "libipc/platform/quicklock.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libipc/platform/futex.h"
#include "libipc/platform/peer.h"

/* How often the slow way tries again because the word moved on: others got on meanwhile. */
#define TRIES_MAX 16

_Thread_local struct robust_list_head *quicklock_head;
_Thread_local uint32_t quicklock_tid;

/* In a forked child the thread has another id. */
static void quicklock_forked(void)
{
	quicklock_tid = 0;
}

static pthread_once_t quicklock_once = PTHREAD_ONCE_INIT;
static bool quicklock_sees_forks;

static void quicklock_watch_forks(void)
{
	quicklock_sees_forks = pthread_atfork(NULL, NULL, quicklock_forked) == 0;
}

bool quicklock_thread_init(void)
{
	struct robust_list_head *head = NULL;
	int saved_errno = errno;
	size_t size = 0;

	(void)pthread_once(&quicklock_once, quicklock_watch_forks);

	/* The C library's own, which it registers for each thread; replacing it would take the
	 * protection from everybody else's mutexes. */
	if (quicklock_sees_forks && syscall(SYS_get_robust_list, 0, &head, &size) == 0 && head &&
	    size == sizeof(*head)) {
		quicklock_head = head;
		quicklock_tid = (uint32_t)syscall(SYS_gettid);
	}

	errno = saved_errno;
	return quicklock_tid != 0;
}

/* The word was not 0. */
enum quicklock_result quicklock_try_slow(struct quicklock *lock)
{
	uint32_t tid = quicklock_tid;
	uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

	for (unsigned i = 0; i < TRIES_MAX; ++i) {
		uint32_t holder = word & FUTEX_TID_MASK;

		/* This thread's own id, although it holds nothing: a dead one had it before, and
		 * the kernel did not get to it. */
		if (holder != 0 && holder != tid)
			break;

		/* [Q1] as in quicklock_try(). */
		if (atomic_compare_exchange_weak_explicit(
			    &lock->word, &word, tid | (word & FUTEX_WAITERS), memory_order_seq_cst,
			    memory_order_relaxed))
			return QUICKLOCK_HELD;
	}

	quicklock_pend(NULL);
	return QUICKLOCK_BUSY;
}

/* Somebody sleeps; or a stranger wrote over the word, which is then left as it is. */
void quicklock_unlock_slow(struct quicklock *lock)
{
	uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

	while ((word & FUTEX_TID_MASK) == quicklock_tid) {
		/* [Q2] as in quicklock_unlock(). */
		if (!atomic_compare_exchange_weak_explicit(
			    &lock->word, &word, 0, memory_order_seq_cst, memory_order_relaxed))
			continue;

		/* A death from here on: the kernel finds a pending lock without holder, and wakes.
		 */
		futex_wake_all(&lock->word);
		break;
	}
}

bool quicklock_release_dead(struct quicklock *lock)
{
	uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

	if ((word & FUTEX_TID_MASK) == 0 || !peer_is_gone((pid_t)(word & FUTEX_TID_MASK)))
		return false;

	/* Only that very word: nobody but a living holder could have changed it. */
	if (atomic_compare_exchange_strong_explicit(&lock->word, &word, FUTEX_OWNER_DIED,
						    memory_order_relaxed, memory_order_relaxed) &&
	    (word & FUTEX_WAITERS))
		futex_wake_all(&lock->word);

	return true;
}
