/* SPDX-License-Identifier: MIT */
#include "libipc/platform/lock_list.h"

/*
 * Everything here but the asking is for the rare cases: locks given back in another order than
 * taken, an application's own robust mutexes between ours, and locks that somebody wrote over.
 */

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel walks no longer list than this: a bound for ours. */
#define LOCK_LIST_WALK_MAX 2048

_Thread_local struct lock_list lock_list;

struct lock_node *lock_list_ask(struct lock_list *list)
{
	struct lock_node *head = NULL;
	size_t size;

	/* Where it is refused nothing is remembered. */
	if (syscall(SYS_get_robust_list, 0, &head, &size) < 0 || !head)
		return NULL;

	list->head = head;
	return head->next;
}

/* glibc marks neighbours of another protocol (priority inheritance) in the lowest bit. */
static struct lock_node *lock_node_unmarked(struct lock_node *node)
{
	return (struct lock_node *)((uintptr_t)node & ~(uintptr_t)1);
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

/* What stands behind it: what the lock says if that is true, else what this thread remembers. */
static struct lock_node *lock_list_next(const struct lock_list *list, unsigned i)
{
	struct lock_node *node = lock_node(list->held[i].lock);
	struct lock_node *next = __atomic_load_n(&node->next, __ATOMIC_RELAXED);

	/* Other than remembered: an application's own mutex may have left the list since, and then
	 * the new neighbour points back. */
	if (next == list->held[i].next ||
	    lock_memory_is(lock_node_previous(lock_node_unmarked(next)), node))
		return next;

	return list->held[i].next;
}

/* What follows after a node that is in the list for certain. */
static struct lock_node *lock_list_step(const struct lock_list *list, struct lock_node *node)
{
	for (unsigned i = 0; i < list->n_held; ++i)
		if (lock_node(list->held[i].lock) == node)
			return lock_node_unmarked(lock_list_next(list, i));

	return lock_node_unmarked(node->next);
}

/* Who stands before it; NULL: it is not in the list. */
static struct lock_node *lock_list_find_previous(const struct lock_list *list,
						 const struct lock_node *node)
{
	struct lock_node *previous = list->head;

	for (unsigned i = 0; i < LOCK_LIST_WALK_MAX; ++i) {
		struct lock_node *next = lock_list_step(list, previous);

		if (next == node)
			return previous;
		if (next == list->head)
			return NULL;
		previous = next;
	}

	return NULL;
}

unsigned lock_list_find(const struct lock_list *list, const struct lock *lock)
{
	unsigned n = list->n_held;

	while (n-- > 0)
		if (list->held[n].lock == lock)
			return lock_list_find_previous(list, lock_node(list->held[n].lock))
				       ? n
				       : LOCK_LIST_MAX;

	return LOCK_LIST_MAX;
}

bool lock_list_is_intact(const struct lock_list *list, unsigned i)
{
	struct lock_node *node = lock_node(list->held[i].lock);
	struct lock_node *previous = __atomic_load_n(lock_node_previous(node), __ATOMIC_RELAXED);

	return lock_memory_is(previous, node) &&
	       lock_list_next(list, i) == __atomic_load_n(&node->next, __ATOMIC_RELAXED);
}

void lock_list_forget(struct lock_list *list, unsigned i)
{
	struct lock_node *node = lock_node(list->held[i].lock);
	struct lock_node *next = lock_list_next(list, i);

	--list->n_held;
	for (; i < list->n_held; ++i)
		list->held[i] = list->held[i + 1];

	for (i = 0; i < list->n_held; ++i)
		if (lock_node_unmarked(list->held[i].next) == node)
			list->held[i].next = next;
}

void lock_list_cut_out(struct lock_list *list, unsigned i)
{
	struct lock_node *previous = lock_list_find_previous(list, lock_node(list->held[i].lock));
	struct lock_node *next = lock_list_next(list, i);

	if (previous) {
		previous->next = next;
		*lock_node_previous(lock_node_unmarked(next)) = previous;
	}
	lock_list_forget(list, i);
}

bool lock_list_has_alias(const struct lock_list *list, struct lock *lock)
{
	struct lock_node *node = lock_node(lock);

	if (list->head && list->head->next == list->head)
		return false;

	for (unsigned i = 0; i < list->n_held; ++i) {
		struct lock_node *held = lock_node(list->held[i].lock);

		if (held->next == node->next &&
		    *lock_node_previous(held) == *lock_node_previous(node))
			return true;
	}

	return list->n_unknown > 0;
}
