/* SPDX-License-Identifier: MIT */
#include "libipc/platform/lock.h"

/*
 * glibc's robust mutex does the taking and giving back, because it owns the one list per thread
 * that the kernel walks at a death.  The sleeping is ours, and so is the distrust: what the mutex
 * says about itself is compared with what this thread knows before glibc follows it.
 *
 * What the kernel cannot do for us, it leaves in two places.  A list that is broken (memory of an
 * application's own mutex unmapped, say) stops its walk: locks stay with a thread that no longer
 * exists, and the next one who waits for a slice releases them.  And a mutex that was overwritten
 * while this thread held it must leave the list without being asked for its neighbours.
 */

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "libipc/platform/lock_list.h"
#include "libipc/platform/peer.h"

/* What glibc writes into __owner when a mutex was given up.  Never done here; found in strangers'
 * memory only. */
#define LOCK_OWNER_GIVEN_UP (INT_MAX - 1)

/* Counts changes of what this file does with the mutex, as opposed to what glibc does. */
#define LOCK_PROTOCOL 1

/* The type word of every lock of this libc; 0: not looked up yet, -1: there are no such mutexes
 * here. */
static _Atomic int lock_kind_cache;

static int lock_make(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attributes;
	int error;

	error = pthread_mutexattr_init(&attributes);
	if (error)
		return error;

	(void)pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	(void)pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	(void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);

	error = pthread_mutex_init(mutex, &attributes);
	(void)pthread_mutexattr_destroy(&attributes);
	return error;
}

static int lock_find_kind(void)
{
	pthread_mutex_t reference;
	int kind;

	kind = lock_make(&reference) == 0 ? reference.__data.__kind : -1;
	atomic_store_explicit(&lock_kind_cache, kind, memory_order_relaxed);
	return kind;
}

static bool lock_is_ours(const struct lock *lock)
{
	const pthread_mutex_t *mutex = (const pthread_mutex_t *)(const void *)lock->mutex;
	int kind = atomic_load_explicit(&lock_kind_cache, memory_order_relaxed);

	if (UNLIKELY(kind == 0))
		kind = lock_find_kind();

	return __atomic_load_n(&mutex->__data.__kind, __ATOMIC_RELAXED) == kind && kind > 0;
}

void lock_init(struct lock *lock)
{
	memset(lock, 0, sizeof(*lock));

	/* Refused only where the kernel keeps no robust lists; the zeros that stay are LOCK_BROKEN
	 * to everybody. */
	if (lock_make(lock_mutex(lock)) != 0)
		memset(lock, 0, sizeof(*lock));
}

uint32_t lock_layout_stamp(void)
{
	const uint32_t parts[] = {
		LOCK_PROTOCOL,
		sizeof(void *),
		sizeof(pthread_mutex_t),
		offsetof(pthread_mutex_t, __data.__lock),
		offsetof(pthread_mutex_t, __data.__owner),
		offsetof(pthread_mutex_t, __data.__nusers),
		offsetof(pthread_mutex_t, __data.__kind),
		offsetof(pthread_mutex_t, __data.__list.__next),
		(uint32_t)lock_find_kind(),
	};
	uint32_t stamp = UINT32_C(2166136261);

	for (size_t i = 0; i < N_ELEMENTS(parts); ++i)
		stamp = (stamp ^ parts[i]) * UINT32_C(16777619);

	return stamp;
}

int lock_is_mine(const struct lock *lock)
{
	const struct lock_list *list = &lock_list;

	if (list->n_held > 0 && lock_list_find(list, lock) < LOCK_LIST_MAX)
		return 1;

	/* glibc's child has an empty list, where its parent's locks would still be counted. */
	return list->n_unknown > 0 && !(list->head && list->head->next == list->head) &&
	       (lock_load(lock) & FUTEX_TID_MASK) == list->tid;
}

/*
 * What the kernel should have done at the death of the one whose id is in `word`.  Only that very
 * word is replaced, and nobody but a living holder could have changed it.
 */
static void lock_release_for(struct lock *lock, uint32_t word)
{
	if (atomic_compare_exchange_strong_explicit(lock_word(lock), &word,
						    FUTEX_OWNER_DIED | (word & FUTEX_WAITERS),
						    memory_order_relaxed, memory_order_relaxed))
		futex_wake_n(lock_word(lock), 1);
}

/* What trylock says when it does not give the lock away as it should be. */
static enum lock_result lock_try_otherwise(struct lock *lock, int error)
{
	switch (error) {
	case EOWNERDEAD:
		if (pthread_mutex_consistent(lock_mutex(lock)) == 0)
			return LOCK_HELD_AFTER_DEATH;
		(void)lock_unlock(lock);
		return LOCK_BROKEN;
	case EDEADLK:
		return LOCK_DEADLOCK;
	case EBUSY:
		/* Sleepers and nobody to wake them: no step of any locker leaves that behind, and
		 * trylock would say so for ever. */
		return lock_load(lock) == FUTEX_WAITERS ? LOCK_BROKEN : LOCK_BUSY;
	default:
		return LOCK_BROKEN;
	}
}

static enum lock_result lock_try_once(struct lock *lock)
{
	struct lock_list *list = &lock_list;
	pthread_mutex_t *mutex = lock_mutex(lock);
	struct lock_node *front = lock_list_front(list);
	int error;

	/* glibc forgets to give back what it took from a mutex that was given up, so it may not see
	 * one. */
	if (UNLIKELY(!lock_is_ours(lock) ||
		     __atomic_load_n(&mutex->__data.__owner, __ATOMIC_RELAXED) ==
			     LOCK_OWNER_GIVEN_UP))
		return LOCK_BROKEN;

	error = pthread_mutex_trylock(mutex);
	if (error == 0 || error == EOWNERDEAD)
		lock_list_remember(list, lock, front);

	return LIKELY(error == 0) ? LOCK_HELD : lock_try_otherwise(lock, error);
}

enum lock_result lock_try(struct lock *lock)
{
	enum lock_result r = lock_try_once(lock);

	if (UNLIKELY(r == LOCK_DEADLOCK) && !lock_is_mine(lock) &&
	    !lock_list_has_alias(&lock_list, lock)) {
		/* The word names this thread, but this thread knows better: a dead one had its id
		 * and was not released. */
		lock_release_for(lock, lock_load(lock));
		r = lock_try_once(lock);
	}

	return r;
}

enum futex_result lock_sleep(struct lock *lock, const struct futex_word *others, unsigned n_others,
			     uint64_t deadline_ns)
{
	struct futex_word words[FUTEX_WORDS_MAX];
	uint32_t word = lock_load(lock);
	enum futex_result r;

	assert(n_others < FUTEX_WORDS_MAX);

	if (!lock_is_ours(lock) || (word & FUTEX_TID_MASK) == 0 || (word & FUTEX_OWNER_DIED))
		return FUTEX_WOKEN;

	/* Only beside an owner: alone the bit would keep everybody out. */
	if (!(word & FUTEX_WAITERS)) {
		if (!atomic_compare_exchange_strong_explicit(
			    lock_word(lock), &word, word | FUTEX_WAITERS, memory_order_relaxed,
			    memory_order_relaxed))
			return FUTEX_WOKEN;
		word |= FUTEX_WAITERS;
	}

	words[0] = (struct futex_word){.word = lock_word(lock), .expected = word};
	for (unsigned i = 0; i < n_others; ++i)
		words[i + 1] = others[i];

	r = futex_sleep(words, n_others + 1, deadline_ns);

	if (r == FUTEX_SLICE_OVER && lock_load(lock) == word &&
	    peer_is_gone((pid_t)(word & FUTEX_TID_MASK)))
		lock_release_for(lock, word);

	return r;
}

void lock_inherit(struct lock *lock)
{
	(void)atomic_fetch_or_explicit(lock_word(lock), FUTEX_WAITERS, memory_order_relaxed);
}

void lock_pass_on(struct lock *lock)
{
	futex_wake_n(lock_word(lock), 1);
}

/*
 * Gives up a lock that somebody wrote over, without following anything in it, so that the memory
 * may be unmapped.  Who waits for it is woken to find it broken.
 */
static void lock_drop(struct lock_list *list, unsigned i)
{
	struct lock *lock = list->held[i].lock;
	uint32_t word = lock_load(lock);

	lock_list_cut_out(list, i);

	/* [L1] What was done under the lock is visible to the next holder, if there can be one.
	 * Pairs with glibc's trylock. */
	while ((word & FUTEX_TID_MASK) == list->tid &&
	       !atomic_compare_exchange_weak_explicit(lock_word(lock), &word, 0,
						      memory_order_release, memory_order_relaxed))
		;

	futex_wake_all(lock_word(lock));
}

/* Not the lock that was taken last, or not as it was. */
static int lock_unlock_otherwise(struct lock_list *list, struct lock *lock)
{
	unsigned i = lock_list_find(list, lock);

	if (i == LOCK_LIST_MAX) {
		if (!lock_is_mine(lock) || !lock_is_ours(lock) ||
		    pthread_mutex_unlock(lock_mutex(lock)) != 0)
			return -1;
		--list->n_unknown;
		return 0;
	}

	if (!lock_is_ours(lock) || !lock_list_is_owner(list, lock) ||
	    !lock_list_is_intact(list, i)) {
		lock_drop(list, i);
		return 0;
	}

	lock_list_forget(list, i);
	return pthread_mutex_unlock(lock_mutex(lock)) == 0 ? 0 : -1;
}

int lock_unlock(struct lock *lock)
{
	struct lock_list *list = &lock_list;

	if (UNLIKELY(!lock_list_is_on_top(list, lock) || !lock_is_ours(lock) ||
		     !lock_list_is_owner(list, lock)))
		return lock_unlock_otherwise(list, lock);

	--list->n_held;
	return pthread_mutex_unlock(lock_mutex(lock)) == 0 ? 0 : -1;
}
