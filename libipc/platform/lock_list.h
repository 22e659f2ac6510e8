/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_LOCK_LIST_H
#define LIBIPC_PLATFORM_LOCK_LIST_H

/*
 * The robust list of this thread: which locks it holds, and who stands beside each of them.  glibc
 * keeps the list inside the mutexes, in memory that others can write; what is needed to leave it
 * is remembered here as well, out of their reach.
 *
 * A forked child inherits the memory, but glibc empties the child's list: what is not in the list
 * is not held.
 */

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/lock.h"

static_assert(sizeof(pthread_mutex_t) <= sizeof(struct lock), "the mutex fits");
static_assert(__PTHREAD_MUTEX_HAVE_PREV, "a doubly linked robust list: 64-bit glibc");
ASSERT_OFFSET(pthread_mutex_t, __data.__lock, 0);

/* Locks of one thread that are remembered.  More of them work as well, but glibc is taken at its
 * word. */
#define LOCK_LIST_MAX 16

/* An entry of the list, as the kernel sees it; glibc's back pointer stands before it, in its own
 * head too. */
struct lock_node {
	struct lock_node *next;
};

struct lock_list {
	struct lock_node
		*head; /* glibc's, private to the thread; NULL: not asked for yet, or refused */
	uint32_t tid;  /* as of the lock that was taken last */
	uint32_t n_held;
	uint32_t n_unknown; /* held, but not in held[] */
	struct {
		struct lock *lock;
		struct lock_node *next; /* the neighbour that it was put in front of */
	} held[LOCK_LIST_MAX];
};

/* initial-exec: two loads instead of a call for each lock and unlock.  Small enough for a library
 * that is opened late. */
extern _Thread_local struct lock_list lock_list
	__attribute__((__tls_model__("initial-exec"), __visibility__("hidden")));

static inline pthread_mutex_t *lock_mutex(struct lock *lock)
{
	return (pthread_mutex_t *)(void *)lock->mutex;
}

static inline _Atomic uint32_t *lock_word(const struct lock *lock)
{
	return (_Atomic uint32_t *)(uintptr_t)lock->mutex;
}

static inline uint32_t lock_load(const struct lock *lock)
{
	return atomic_load_explicit(lock_word(lock), memory_order_relaxed);
}

static inline struct lock_node *lock_node(struct lock *lock)
{
	return (struct lock_node *)(void *)(lock->mutex +
					    offsetof(pthread_mutex_t, __data.__list.__next));
}

static inline struct lock_node **lock_node_previous(struct lock_node *node)
{
	/* As a number: a node that somebody wrote may be any. */
	return (struct lock_node **)((uintptr_t)node - sizeof(node));
}

/* Whether the lock says that this thread took it, in every word but those of the list. */
static inline bool lock_list_is_owner(const struct lock_list *list, struct lock *lock)
{
	return (lock_load(lock) & ~FUTEX_WAITERS) == list->tid &&
	       (uint32_t)__atomic_load_n(&lock_mutex(lock)->__data.__owner, __ATOMIC_RELAXED) ==
		       list->tid;
}

/* Whether it is the lock that this thread took last, and its neighbours are as they were then: what
 * nearly every unlock finds. */
static inline bool lock_list_is_on_top(const struct lock_list *list, struct lock *lock)
{
	struct lock_node *node = lock_node(lock);

	return list->n_held > 0 && list->held[list->n_held - 1].lock == lock &&
	       list->head->next == node &&
	       __atomic_load_n(&node->next, __ATOMIC_RELAXED) ==
		       list->held[list->n_held - 1].next &&
	       __atomic_load_n(lock_node_previous(node), __ATOMIC_RELAXED) == list->head;
}

/* The front of the list before a lock is taken; NULL: it cannot be told. */
struct lock_node *lock_list_ask(struct lock_list *list);

static inline struct lock_node *lock_list_front(struct lock_list *list)
{
	return LIKELY(list->head) ? list->head->next : lock_list_ask(list);
}

/* This thread has just got it.  `next`: the front of the list before. */
static inline void lock_list_remember(struct lock_list *list, struct lock *lock,
				      struct lock_node *next)
{
	list->tid = lock_load(lock) & FUTEX_TID_MASK;

	/* An empty list: whatever is remembered was the parent's, before a fork. */
	if (list->head && next == list->head)
		list->n_held = list->n_unknown = 0;

	if (UNLIKELY(!next || list->n_held == LOCK_LIST_MAX)) {
		++list->n_unknown;
		return;
	}

	list->held[list->n_held].lock = lock;
	list->held[list->n_held].next = next;
	++list->n_held;
}

/* Index in held[] of a lock that is in the list, or LOCK_LIST_MAX. */
unsigned lock_list_find(const struct lock_list *list, const struct lock *lock);

/* Whether all that glibc will follow when it takes held[i] out is true. */
bool lock_list_is_intact(const struct lock_list *list, unsigned i);

/* Forgets held[i], which glibc takes out. */
void lock_list_forget(struct lock_list *list, unsigned i);

/* Takes held[i] out without following anything in it, and forgets it. */
void lock_list_cut_out(struct lock_list *list, unsigned i);

/*
 * Whether the thread holds this memory by another address: two handles of one channel in one
 * process.  The neighbours that a held mutex names are its own alone.
 */
bool lock_list_has_alias(const struct lock_list *list, struct lock *lock);

#endif
