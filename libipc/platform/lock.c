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
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libipc/platform/fdpass.h"
#include "libipc/platform/peer.h"

static_assert(sizeof(pthread_mutex_t) <= sizeof(struct lock), "the mutex fits");
static_assert(__PTHREAD_MUTEX_HAVE_PREV, "a doubly linked robust list: 64-bit glibc");
ASSERT_OFFSET(pthread_mutex_t, __data.__lock, 0);

/* What glibc writes into __owner when a mutex was given up.  Never done here; found in strangers'
 * memory only. */
#define LOCK_OWNER_GIVEN_UP (INT_MAX - 1)

/* Counts changes of what this file does with the mutex, as opposed to what glibc does. */
#define LOCK_PROTOCOL 1

/* Locks of one thread that are remembered.  More of them work as well, but glibc is taken at its
 * word. */
#define LOCK_HELD_MAX 16

/* The kernel walks no longer list than this: a bound for ours. */
#define LOCK_LIST_MAX 2048

/* An entry of the robust list, as the kernel sees it; glibc's back pointer stands before it, in its
 * own head too. */
struct lock_node {
	struct lock_node *next;
};

/*
 * What this thread knows about its locks, out of reach of others.  A forked child inherits the
 * memory, but glibc empties the child's list: an empty list outweighs what is remembered.
 */
struct lock_thread {
	struct lock_node *head; /* of the robust list: glibc's, private to the thread */
	uint32_t tid;           /* as of the lock that was taken last */
	uint32_t n_held;
	uint32_t n_unknown; /* held, but not in held[] */
	struct {
		struct lock *lock;
		struct lock_node *next; /* the neighbour that it was put in front of */
	} held[LOCK_HELD_MAX];
};

/* initial-exec: two loads instead of a call for each lock and unlock.  Small enough for a library
 * that is opened late. */
static _Thread_local struct lock_thread lock_thread __attribute__((__tls_model__("initial-exec")));

/* The type word of every lock of this libc; 0: not looked up yet, -1: there are no such mutexes
 * here. */
static _Atomic int lock_kind_cache;

static pthread_mutex_t *lock_mutex(struct lock *lock)
{
	return (pthread_mutex_t *)(void *)lock->mutex;
}

static _Atomic uint32_t *lock_word(const struct lock *lock)
{
	return (_Atomic uint32_t *)(uintptr_t)lock->mutex;
}

static struct lock_node *lock_node(struct lock *lock)
{
	return (struct lock_node *)(void *)(lock->mutex +
					    offsetof(pthread_mutex_t, __data.__list.__next));
}

/* glibc marks neighbours of another protocol (priority inheritance) in the lowest bit. */
static struct lock_node *lock_unmarked(struct lock_node *node)
{
	return (struct lock_node *)((uintptr_t)node & ~(uintptr_t)1);
}

static struct lock_node **lock_previous(struct lock_node *node)
{
	return (struct lock_node **)node - 1;
}

static uint32_t lock_load(const struct lock *lock)
{
	return atomic_load_explicit(lock_word(lock), memory_order_relaxed);
}

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

static struct lock_node *lock_thread_head(void)
{
	struct lock_node *head = lock_thread.head;
	size_t size;

	/* Where it is refused nothing is remembered. */
	if (UNLIKELY(!head) && syscall(SYS_get_robust_list, 0, &head, &size) == 0)
		lock_thread.head = head;

	return head;
}

static bool lock_list_is_empty(const struct lock_thread *thread)
{
	return thread->head && thread->head->next == thread->head;
}

/* Index in held[], or LOCK_HELD_MAX. */
static unsigned lock_recall(const struct lock_thread *thread, const struct lock *lock)
{
	unsigned n = thread->n_held;

	if (lock_list_is_empty(thread))
		return LOCK_HELD_MAX;

	while (n-- > 0)
		if (thread->held[n].lock == lock)
			return n;

	return LOCK_HELD_MAX;
}

/* This thread has just got it.  `next`: the front of its list before that. */
static void lock_remember(struct lock_thread *thread, struct lock *lock, struct lock_node *next)
{
	thread->tid = lock_load(lock) & FUTEX_TID_MASK;

	/* An empty list: whatever is remembered was the parent's, before a fork. */
	if (thread->head && next == thread->head)
		thread->n_held = thread->n_unknown = 0;

	if (!next || thread->n_held == LOCK_HELD_MAX) {
		++thread->n_unknown;
		return;
	}

	thread->held[thread->n_held].lock = lock;
	thread->held[thread->n_held].next = next;
	++thread->n_held;
}

/* `next` takes its place as the neighbour of others. */
static void lock_forget(struct lock_thread *thread, unsigned i, struct lock_node *next)
{
	struct lock_node *node = lock_node(thread->held[i].lock);

	--thread->n_held;
	for (; i < thread->n_held; ++i)
		thread->held[i] = thread->held[i + 1];

	for (i = 0; i < thread->n_held; ++i)
		if (lock_unmarked(thread->held[i].next) == node)
			thread->held[i].next = next;
}

/*
 * Whether 4 bytes that may be anywhere hold a value.  The kernel looks for us, since a pointer out
 * of shared memory may lead nowhere: a requeue of no sleepers that compares first.
 */
static bool lock_memory_is_u32(const void *address, uint32_t value)
{
	uint32_t target = 0;

	return syscall(SYS_futex, address, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, NULL, &target,
		       value) >= 0;
}

static bool lock_memory_is(const void *address, const struct lock_node *value)
{
	uint32_t halves[2];

	static_assert(sizeof(halves) == sizeof(value), "64-bit pointers");
	memcpy(halves, &value, sizeof(halves));

	return lock_memory_is_u32(address, halves[0]) &&
	       lock_memory_is_u32((const void *)((uintptr_t)address + sizeof(halves[0])),
				  halves[1]);
}

/* What stands behind it in the list: what the lock says if that is true, else what this thread
 * remembers. */
static struct lock_node *lock_next(const struct lock_thread *thread, unsigned i)
{
	struct lock_node *node = lock_node(thread->held[i].lock);
	struct lock_node *next = __atomic_load_n(&node->next, __ATOMIC_RELAXED);

	/* Other than remembered: an application's own mutex may have left the list since, and then
	 * the new neighbour points back. */
	if (LIKELY(next == thread->held[i].next) ||
	    lock_memory_is(lock_previous(lock_unmarked(next)), node))
		return next;

	return thread->held[i].next;
}

/* What follows after a node that is in the list for certain. */
static struct lock_node *lock_step(const struct lock_thread *thread, struct lock_node *node)
{
	for (unsigned i = 0; i < thread->n_held; ++i)
		if (lock_node(thread->held[i].lock) == node)
			return lock_unmarked(lock_next(thread, i));

	return lock_unmarked(node->next);
}

/* Who stands before it in the list; NULL: it is not in there. */
static struct lock_node *lock_find_previous(const struct lock_thread *thread,
					    const struct lock_node *node)
{
	struct lock_node *previous = thread->head;

	for (unsigned i = 0; i < LOCK_LIST_MAX; ++i) {
		struct lock_node *next = lock_step(thread, previous);

		if (next == node)
			return previous;
		if (next == thread->head)
			return NULL;
		previous = next;
	}

	return NULL;
}

/* Whether all that glibc will look at is what this thread's lock must say. */
static bool lock_is_intact(const struct lock_thread *thread, unsigned i)
{
	struct lock *lock = thread->held[i].lock;
	struct lock_node *node = lock_node(lock);
	struct lock_node *previous = __atomic_load_n(lock_previous(node), __ATOMIC_RELAXED);

	if (!lock_is_ours(lock) || (lock_load(lock) & ~FUTEX_WAITERS) != thread->tid ||
	    (uint32_t)__atomic_load_n(&lock_mutex(lock)->__data.__owner, __ATOMIC_RELAXED) !=
		    thread->tid)
		return false;

	/* Nearly always the lock that was taken last is given back first. */
	if (LIKELY(previous == thread->head)) {
		if (thread->head->next != node)
			return false;
	} else if (!lock_memory_is(previous, node)) {
		return false;
	}

	return lock_next(thread, i) == __atomic_load_n(&node->next, __ATOMIC_RELAXED);
}

/*
 * Gives up a lock that somebody wrote over, without following anything in it: it leaves the list by
 * what this thread remembers, so that the memory may be unmapped.  Who waits for it is woken to
 * find it broken.
 */
static void lock_drop(struct lock_thread *thread, unsigned i)
{
	struct lock *lock = thread->held[i].lock;
	struct lock_node *previous = lock_find_previous(thread, lock_node(lock));
	struct lock_node *next = lock_next(thread, i);
	uint32_t word = lock_load(lock);

	if (previous) {
		previous->next = next;
		*lock_previous(lock_unmarked(next)) = previous;
	}
	lock_forget(thread, i, next);

	if ((word & FUTEX_TID_MASK) == thread->tid)
		/* [L1] What was done under the lock is visible to the next holder, if it can still
		 * have one.  Pairs with glibc's trylock. */
		(void)atomic_compare_exchange_strong_explicit(
			lock_word(lock), &word, 0, memory_order_release, memory_order_relaxed);
	futex_wake_all(lock_word(lock));
}

int lock_is_mine(const struct lock *lock)
{
	const struct lock_thread *thread = &lock_thread;

	if (LIKELY(lock_recall(thread, lock) < LOCK_HELD_MAX))
		return 1;

	return thread->n_unknown > 0 && !lock_list_is_empty(thread) &&
	       (lock_load(lock) & FUTEX_TID_MASK) == thread->tid;
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

static enum lock_result lock_try_once(struct lock *lock)
{
	struct lock_thread *thread = &lock_thread;
	struct lock_node *head = lock_thread_head();
	struct lock_node *next = head ? head->next : NULL;
	pthread_mutex_t *mutex = lock_mutex(lock);
	uint32_t word;

	/* glibc forgets to give back what it took from a mutex that was given up, so it may not see
	 * one. */
	if (!lock_is_ours(lock) ||
	    __atomic_load_n(&mutex->__data.__owner, __ATOMIC_RELAXED) == LOCK_OWNER_GIVEN_UP)
		return LOCK_BROKEN;

	switch (pthread_mutex_trylock(mutex)) {
	case 0:
		lock_remember(thread, lock, next);
		return LOCK_HELD;
	case EOWNERDEAD:
		lock_remember(thread, lock, next);
		if (pthread_mutex_consistent(mutex) == 0)
			return LOCK_HELD_AFTER_DEATH;
		(void)lock_unlock(lock);
		return LOCK_BROKEN;
	case EDEADLK:
		return LOCK_DEADLOCK;
	case EBUSY:
		/* Sleepers and nobody to wake them: no step of any locker leaves that behind, and
		 * trylock would wait for ever. */
		word = lock_load(lock);
		return (word & FUTEX_TID_MASK) == 0 && word == FUTEX_WAITERS ? LOCK_BROKEN
									     : LOCK_BUSY;
	default:
		return LOCK_BROKEN;
	}
}

/*
 * Whether this is a lock that this thread holds through another mapping of the same memory: two
 * handles of one channel in one process.  The neighbours in the thread's list that a held mutex
 * names are its own alone.
 */
static bool lock_is_mine_elsewhere(const struct lock_thread *thread, const struct lock *lock)
{
	if (lock_list_is_empty(thread))
		return false;

	for (unsigned i = 0; i < thread->n_held; ++i)
		if (memcmp(thread->held[i].lock->mutex, lock->mutex, sizeof(pthread_mutex_t)) == 0)
			return true;

	return thread->n_unknown > 0;
}

enum lock_result lock_try(struct lock *lock)
{
	enum lock_result r = lock_try_once(lock);

	if (UNLIKELY(r == LOCK_DEADLOCK) && !lock_is_mine(lock) &&
	    !lock_is_mine_elsewhere(&lock_thread, lock)) {
		/* The word names this thread, but this thread knows better: a dead one had its id
		 * and was not released. */
		lock_release_for(lock, lock_load(lock));
		r = lock_try_once(lock);
	}

	return r;
}

/* No thread and no process of this id, or a dead process that nobody has reaped yet.  Needs no
 * right. */
static bool lock_holder_is_gone(pid_t tid)
{
	int saved_errno = errno;
	bool is_gone;
	int pidfd;

	if (sched_getscheduler(tid) < 0) {
		is_gone = errno == ESRCH;
	} else {
		/* Refused for all threads but a process's first. */
		pidfd = (int)syscall(SYS_pidfd_open, tid, 0);
		is_gone = pidfd >= 0 && peer_has_ended(pidfd);
		(void)fd_close(pidfd);
	}

	errno = saved_errno;
	return is_gone;
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
	    lock_holder_is_gone((pid_t)(word & FUTEX_TID_MASK)))
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

int lock_unlock(struct lock *lock)
{
	struct lock_thread *thread = &lock_thread;
	unsigned i = lock_recall(thread, lock);

	if (UNLIKELY(i == LOCK_HELD_MAX)) {
		if (!lock_is_mine(lock) || !lock_is_ours(lock) ||
		    pthread_mutex_unlock(lock_mutex(lock)) != 0)
			return -1;
		--thread->n_unknown;
		return 0;
	}

	if (UNLIKELY(!lock_is_intact(thread, i))) {
		lock_drop(thread, i);
		return 0;
	}

	lock_forget(thread, i, lock_node(lock)->next);
	return pthread_mutex_unlock(lock_mutex(lock)) == 0 ? 0 : -1;
}
