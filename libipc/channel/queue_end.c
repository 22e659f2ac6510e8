/* SPDX-License-Identifier: MIT */

/*
 * How items leave a queue other than by ack: back to the front, to the dead letters, dropped.
 */

#include <ipc/limits.h>
#include <string.h>

#include "libipc/channel/queue_block.h"
#include "libipc/platform/clock.h"

/* ---- counted ends ---- */

enum { ENDS_DEAD = 0, ENDS_DROPPED = 1 };

#define NAME_MASK ((UINT64_C(1) << QUEUE_ENDS_NAME_BITS) - 1)

static_assert(QUEUE_ITEMS_MAX <= NAME_MASK, "every block has a name");

/* The row of an ENDED word. */
static uint32_t end_make(unsigned kind, enum ipc_dead_reason reason)
{
	return kind << 3 | (uint32_t)reason;
}

static _Atomic uint64_t *end_counter(const struct queue_seen *seen)
{
	uint32_t end = queue_word_row(seen->word);

	return &seen->class->shared->ends[end >> 3 & 1][end & 7];
}

/*
 * The counter names a use of this block that is long over; it must not seem to be the one that is
 * about to end.  The counter before the word: while that is as it was seen, nothing of this use was
 * counted yet.  Somebody held dead finds another, whose name must stay.
 */
static void counter_forget(_Atomic uint64_t *counter, const struct queue_seen *seen)
{
	uint64_t count = atomic_load_explicit(counter, memory_order_acquire);

	/* Whoever changes it meanwhile puts another name there: of a block that is ENDED. */
	if ((count & NAME_MASK) == (uint64_t)seen->block + 1 &&
	    queue_load(seen->class, seen->block) == seen->word)
		(void)atomic_compare_exchange_strong_explicit(counter, &count, count & ~NAME_MASK,
							      memory_order_seq_cst,
							      memory_order_relaxed);
}

/* LEASED or MOVING, as seen, becomes ENDED. */
static bool end_begin(struct queue_seen *seen, unsigned kind, enum ipc_dead_reason reason)
{
	counter_forget(&seen->class->shared->ends[kind][reason], seen);
	CRASH_POINT();
	return queue_change(seen, queue_word_with(seen->word, end_make(kind, reason), QUEUE_ENDED));
}

/* The block that was counted last is freed before its name goes. */
static void end_free_named(struct queue *queue, const struct queue_seen *seen,
			   const _Atomic uint64_t *counter, uint64_t count)
{
	struct queue_seen named = {seen->class, (uint32_t)((count & NAME_MASK) - 1), 0};

	if (named.block >= queue->layout.items_max)
		return;

	named.word = queue_load(named.class, named.block);
	if (queue_word_phase(named.word) != QUEUE_ENDED || end_counter(&named) != counter)
		return;

	/* The word before the counter: if that still names it, then it is the use that was counted.
	 * Else it may be one that has ended since, and was not. */
	if (atomic_load_explicit(counter, memory_order_acquire) == count)
		(void)queue_room_give(queue, &named);
}

/* Whether it still was as seen when it was counted, by whomever. */
static bool end_count(struct queue *queue, const struct queue_seen *seen)
{
	_Atomic uint64_t *counter = end_counter(seen);

	for (unsigned tries = 0; tries < QUEUE_TRIES_MAX; ++tries) {
		uint64_t count = atomic_load_explicit(counter, memory_order_acquire);
		uint64_t name = count & NAME_MASK;

		/* The counter first: what it names was counted then, or freed by who named another.
		 */
		if (queue_load(seen->class, seen->block) != seen->word)
			return false;
		if (name == seen->block + 1)
			return true;
		if (name != 0)
			end_free_named(queue, seen, counter, count);

		CRASH_POINT();
		if (atomic_compare_exchange_strong_explicit(
			    counter, &count,
			    ((count | NAME_MASK) + 1) | ((uint64_t)seen->block + 1),
			    memory_order_seq_cst, memory_order_relaxed))
			return true;
	}

	return false;
}

void queue_finish(struct queue *queue, const struct queue_seen *seen)
{
	if (!end_count(queue, seen))
		return;

	CRASH_POINT();
	(void)queue_room_give(queue, seen);
}

/* ---- back to the front ---- */

bool queue_return(struct queue *queue, struct queue_seen *seen)
{
	uint32_t attempt = queue_word_attempt(seen->word);

	if (attempt < QUEUE_ATTEMPTS_MAX)
		++attempt;

	if (!queue_change(seen,
			  queue_word_make(queue_word_use(seen->word), attempt, 0, QUEUE_RETURNED)))
		return false;

	CRASH_POINT();
	atomic_fetch_add_explicit(&seen->class->shared->returned, 1, memory_order_seq_cst);
	CRASH_POINT();
	queue_notify(queue, QUEUE_SIDE_CONSUMERS);
	return true;
}

bool queue_return_own(struct queue *queue, struct queue_seen *seen)
{
	if (queue_has_too_many(queue, queue_word_attempt(seen->word) + 1))
		return queue_dispose(queue, seen, IPC_DEAD_ATTEMPTS);

	return queue_return(queue, seen);
}

/* ---- dead letters ---- */

#define TARGET_BLOCK_SHIFT      29
#define TARGET_GENERATION_SHIFT 52
#define TARGET_GENERATION_MASK  ((UINT64_C(1) << 11) - 1)

/* The copy may or may not have come to the dead letters. */
#define TARGET_IS_DOUBTFUL (UINT64_C(1) << 63)

static uint64_t target_make(const struct queue *dead, const struct queue_seen *copy)
{
	uint64_t priority = (uint64_t)(copy->class - dead->class);

	return queue_word_use(copy->word) |
	       (priority << INDEX_RING_BLOCK_BITS | copy->block) << TARGET_BLOCK_SHIFT |
	       (dead->generation & TARGET_GENERATION_MASK) << TARGET_GENERATION_SHIFT;
}

/* The dead letters take nothing any more. */
static bool dead_is_over(const struct queue *dead)
{
	uint64_t side = liveness_side(dead->table, dead->channel_slot, QUEUE_SIDE_CONSUMERS);

	return (side & SIDE_FINAL) ||
	       atomic_load_explicit(&dead->segment->header.is_shut_down, memory_order_acquire) ||
	       header_fault(&dead->segment->header) < 0;
}

/* A copy that is not committed yet. */
static bool dead_prepare(struct queue *dead, unsigned priority, const void *data, uint64_t size,
			 uint32_t attempt, const struct queue_label *label, struct queue_seen *ret)
{
	unsigned lowest = dead->layout.n_classes - 1;
	struct queue_class_view *class = &dead->class[priority < lowest ? priority : lowest];

	if (size > dead->layout.item_size_max || dead_is_over(dead))
		return false;

	queue_sweep(dead);
	if (queue_room_take(dead, class, size, QUEUE_READY, attempt, ret) < 0)
		return false;

	CRASH_POINT();
	queue_fill(dead, ret, data, size, label);
	CRASH_POINT();
	return true;
}

static bool drop(struct queue *queue, struct queue_seen *seen, enum ipc_dead_reason reason)
{
	if (!end_begin(seen, ENDS_DROPPED, reason))
		return false;

	CRASH_POINT();
	queue_finish(queue, seen);
	return true;
}

static bool dead_prepare_copy(struct queue *queue, const struct queue_seen *seen,
			      enum ipc_dead_reason reason, struct queue_seen *ret)
{
	struct queue_block *block = queue_block_of(queue, seen);
	uint64_t size = atomic_load_explicit(&block->size, memory_order_relaxed);
	uint64_t target = atomic_load_explicit(&block->target, memory_order_relaxed);
	struct queue_label label = {
		.origin = atomic_load_explicit(&block->origin, memory_order_relaxed),
		.enqueued_ns = atomic_load_explicit(&block->enqueued_ns, memory_order_relaxed),
		.reason = reason,
		.source = queue->name,
	};

	/* A stranger's: nobody else writes a size that the block has no room for. */
	if (size > queue->layout.group[queue_group_of(queue, seen->block)].room)
		return false;

	return dead_prepare(queue->dead, (unsigned)(seen->class - queue->class),
			    queue_block_data(block), size, target & TARGET_IS_DOUBTFUL ? 2 : 1,
			    &label, ret);
}

/* Committed: the source's block ends.  Whoever finds it MOVING may be faster. */
static void move_end(struct queue *queue, struct queue_seen *seen, unsigned kind,
		     enum ipc_dead_reason reason)
{
	if (end_begin(seen, kind, reason)) {
		CRASH_POINT();
		queue_finish(queue, seen);
	}
}

/*
 * Names the copy, and keeps the doubt of earlier ones.  By exchange, and only while the lease is as
 * seen: somebody who is held dead since must not put his target into the place of the next mover's.
 */
static bool move_aim(const struct queue *queue, const struct queue_seen *seen,
		     enum ipc_dead_reason reason, uint64_t target)
{
	struct queue_block *block = queue_block_of(queue, seen);

	for (unsigned tries = 0; tries < QUEUE_TRIES_MAX; ++tries) {
		uint64_t old = atomic_load_explicit(&block->target, memory_order_acquire);

		/* Then it is the lease's: who moves later names another one. */
		if (queue_load(seen->class, seen->block) != seen->word)
			return false;

		CRASH_POINT();
		if (atomic_compare_exchange_strong_explicit(
			    &block->target, &old, target | (old & TARGET_IS_DOUBTFUL),
			    memory_order_acq_rel, memory_order_relaxed)) {
			atomic_store_explicit(&block->reason, reason, memory_order_relaxed);
			return true;
		}
	}

	return false;
}

static bool move(struct queue *queue, struct queue_seen *seen, enum ipc_dead_reason reason)
{
	struct queue *dead = queue->dead;
	struct queue_seen copy;

	if (!dead_prepare_copy(queue, seen, reason, &copy))
		return drop(queue, seen, reason);

	if (!move_aim(queue, seen, reason, target_make(dead, &copy)) ||
	    !queue_change(seen, queue_word_with(seen->word, queue->row, QUEUE_MOVING))) {
		(void)queue_room_give(dead, &copy);
		return false;
	}

	CRASH_POINT();
	if (queue_add(dead, &copy) == 0) {
		CRASH_POINT();
		move_end(queue, seen, ENDS_DEAD, reason);
	} else {
		(void)queue_room_give(dead, &copy);
		move_end(queue, seen, ENDS_DROPPED, reason);
	}

	return true;
}

bool queue_dispose(struct queue *queue, struct queue_seen *seen, enum ipc_dead_reason reason)
{
	return queue->dead ? move(queue, seen, reason) : drop(queue, seen, reason);
}

int queue_push_refused(struct queue *queue, unsigned priority, const void *data, uint64_t size,
		       enum ipc_full_policy policy)
{
	struct queue_class *shared = queue->class[priority].shared;
	struct queue_label label = {
		.origin = queue->handle_id,
		.enqueued_ns = clock_now_ns(),
		.reason = IPC_DEAD_FULL,
		.source = queue->name,
	};
	struct queue_seen copy;

	if (policy == IPC_FULL_DEAD_LETTER && queue->dead &&
	    dead_prepare(queue->dead, priority, data, size, 1, &label, &copy)) {
		if (queue_add(queue->dead, &copy) == 0) {
			CRASH_POINT();
			atomic_fetch_add_explicit(&shared->full[ENDS_DEAD], 1,
						  memory_order_relaxed);
			return IPC_DEAD_LETTERED;
		}
		(void)queue_room_give(queue->dead, &copy);
	}

	atomic_fetch_add_explicit(&shared->full[ENDS_DROPPED], 1, memory_order_relaxed);
	return IPC_DROPPED;
}

/* ---- what a dead mover left ---- */

enum copy_state { COPY_COMMITTED, COPY_IS_NOT, COPY_UNKNOWN };

static uint32_t use_after(uint32_t use)
{
	return (use + 1) & (UINT32_MAX >> (32 - TARGET_BLOCK_SHIFT));
}

/* A copy that is not in the ring is taken away: it never will be. */
static enum copy_state copy_settle(struct queue *dead, struct queue_seen *copy, uint32_t use)
{
	for (unsigned tries = 0; tries < QUEUE_TRIES_MAX; ++tries) {
		bool is_gone;

		copy->word = queue_load(copy->class, copy->block);
		if (queue_word_phase(copy->word) == QUEUE_FREE &&
		    queue_word_use(copy->word) == use_after(use))
			return queue_word_attempt(copy->word) ? COPY_COMMITTED : COPY_IS_NOT;
		if (queue_word_use(copy->word) != use)
			return COPY_UNKNOWN;

		switch (queue_word_phase(copy->word)) {
		case QUEUE_LEASED:
		case QUEUE_RETURNED:
		case QUEUE_MOVING:
		case QUEUE_ENDED:
			return COPY_COMMITTED;
		case QUEUE_READY:
			/* The process first: it may commit as its last deed. */
			is_gone = queue_row_is_free(dead, queue_word_row(copy->word));
			CRASH_POINT();
			if (queue_is_committed(dead, copy))
				return COPY_COMMITTED;

			/* Held dead, but alive: it may commit it yet. */
			if (!is_gone)
				return COPY_UNKNOWN;
			CRASH_POINT();
			if (queue_room_give(dead, copy))
				return COPY_IS_NOT;
			break;
		case QUEUE_FREE:
		case QUEUE_CLAIMED:
			return COPY_UNKNOWN;
		}
	}

	return COPY_UNKNOWN;
}

static enum copy_state copy_find(struct queue *queue, uint64_t target)
{
	struct queue *dead = queue->dead;
	uint64_t flat =
		target >> TARGET_BLOCK_SHIFT & ((UINT64_C(1) << (INDEX_RING_BLOCK_BITS + 3)) - 1);
	uint32_t priority = (uint32_t)(flat >> INDEX_RING_BLOCK_BITS);
	struct queue_seen copy = {.block = (uint32_t)flat & (INDEX_RING_BLOCKS_MAX - 1)};

	if (!dead || priority >= dead->layout.n_classes || copy.block >= dead->layout.items_max)
		return COPY_UNKNOWN;

	if ((target >> TARGET_GENERATION_SHIFT & TARGET_GENERATION_MASK) !=
	    (dead->generation & TARGET_GENERATION_MASK))
		return COPY_UNKNOWN;

	copy.class = &dead->class[priority];
	return copy_settle(dead, &copy,
			   (uint32_t)target & ((UINT32_C(1) << TARGET_BLOCK_SHIFT) - 1));
}

void queue_resolve(struct queue *queue, struct queue_seen *seen)
{
	struct queue_block *block = queue_block_of(queue, seen);
	uint64_t target = atomic_load_explicit(&block->target, memory_order_relaxed);
	uint32_t reason = atomic_load_explicit(&block->reason, memory_order_relaxed);

	switch (copy_find(queue, target)) {
	case COPY_COMMITTED:
		move_end(queue, seen, ENDS_DEAD,
			 reason < IPC_DEAD_REASONS_MAX ? (enum ipc_dead_reason)reason
						       : IPC_DEAD_NONE);
		break;
	case COPY_UNKNOWN:
		(void)atomic_compare_exchange_strong_explicit(
			&block->target, &target, target | TARGET_IS_DOUBTFUL, memory_order_relaxed,
			memory_order_relaxed);
		(void)queue_return(queue, seen);
		break;
	case COPY_IS_NOT:
		(void)queue_return(queue, seen);
		break;
	}
}
