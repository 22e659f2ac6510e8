/* SPDX-License-Identifier: MIT */

/*
 * Consumers: which item is next, leases and what becomes of them.
 */

#include <ipc/error.h>
#include <string.h>

#include "libipc/channel/queue_block.h"
#include "libipc/platform/clock.h"

#define PREFETCH_ITEMS 3

/* ---- the first of a class ---- */

/* What would be taken next of a class, as it was seen. */
struct first {
	struct queue_seen seen;
	bool is_returned; /* else it stands in the ring: */
	struct index_ring_item item;
	uint32_t group; /* once it is leased */
};

/* It came back once too often with its last consumer's death. */
static void put_away(struct queue *queue, struct queue_seen *seen)
{
	if (queue_change(seen, queue_word_with(seen->word, queue->row, QUEUE_LEASED)))
		(void)queue_dispose(queue, seen, IPC_DEAD_ATTEMPTS);
}

/* The RETURNED block with the smallest old position.  Those that came back too often leave on the
 * way. */
static bool find_returned(struct queue *queue, struct queue_class_view *class, struct first *ret)
{
	uint64_t best = UINT64_MAX;

	for (uint32_t i = 0; i < queue->layout.items_max; ++i) {
		struct queue_seen seen = {class, i, queue_load(class, i)};
		uint64_t position;

		if (queue_word_phase(seen.word) == QUEUE_ENDED)
			queue_finish(queue, &seen);
		if (queue_word_phase(seen.word) != QUEUE_RETURNED)
			continue;
		if (queue_has_too_many(queue, queue_word_attempt(seen.word))) {
			put_away(queue, &seen);
			continue;
		}

		position = atomic_load_explicit(&queue_block_of(queue, &seen)->position,
						memory_order_relaxed);
		if (position <= best) {
			best = position;
			ret->seen = seen;
			ret->is_returned = true;
		}
	}

	return ret->is_returned;
}

static bool first_returned(struct queue *queue, struct queue_class_view *class, struct first *ret)
{
	struct queue_class *shared = class->shared;
	uint64_t returned = atomic_load_explicit(&shared->returned, memory_order_acquire);
	uint64_t seen = atomic_load_explicit(&shared->returned_seen, memory_order_relaxed);

	ret->is_returned = false;
	if (LIKELY(returned == seen))
		return false;
	if (find_returned(queue, class, ret))
		return true;

	/* None that was returned before the search. */
	(void)atomic_compare_exchange_strong_explicit(&shared->returned_seen, &seen, returned,
						      memory_order_acq_rel, memory_order_relaxed);
	return false;
}

/* 0, IPC_EAGAIN, IPC_EPIPE: and nothing will come; IPC_EBADMSG. */
static int first_in_ring(struct queue *queue, struct queue_class_view *class, struct first *ret)
{
	for (unsigned tries = 0; tries < QUEUE_TRIES_MAX; ++tries) {
		struct queue_seen *seen = &ret->seen;

		switch (index_ring_peek(&class->ring, &ret->item)) {
		case INDEX_RING_DONE:
			break;
		case INDEX_RING_EMPTY:
			return IPC_EAGAIN;
		case INDEX_RING_CLOSED:
			return IPC_EPIPE;
		case INDEX_RING_BROKEN:
			return queue_break(queue);
		}

		*seen = (struct queue_seen){class, ret->item.block, QUEUE_FREE};
		if (LIKELY(seen->block < queue->layout.items_max))
			seen->word = queue_load(class, seen->block);
		if (UNLIKELY(!queue_word_waits(seen->word, ret->item.use))) {
			/* Taken; whoever did so has not freed the entry. */
			index_ring_pop(&class->ring, &ret->item);
			continue;
		}

		if (LIKELY(index_ring_is_still(&class->ring, &ret->item)))
			return 0;
	}

	return queue_break(queue);
}

static int first_of(struct queue *queue, struct queue_class_view *class, struct first *ret)
{
	if (first_returned(queue, class, ret))
		return 0;

	return first_in_ring(queue, class, ret);
}

/* The lines of an item that was just pushed lie in the producer's cache: on their way before they
 * are needed. */
static void prefetch_next(const struct queue *queue, const struct first *first)
{
	struct queue_seen next = {.class = first->seen.class};
	const struct queue_block *block;

	next.block = index_ring_block_at(&next.class->ring, first->item.position + PREFETCH_ITEMS);
	if (next.block >= queue->layout.items_max)
		return;

	block = queue_block_of(queue, &next);
	__builtin_prefetch(block);
	__builtin_prefetch(block + 1);
}

/* False: somebody was faster. */
static bool first_lease(struct queue *queue, struct first *first)
{
	if (!queue_change(&first->seen,
			  queue_word_with(first->seen.word, queue->row, QUEUE_LEASED)))
		return false;

	CRASH_POINT();
	if (!first->is_returned) {
		index_ring_pop(&first->seen.class->ring, &first->item);
		prefetch_next(queue, first);
	}
	first->group = queue_group_of(queue, first->seen.block);
	atomic_store_explicit(
		&queue_block_in(queue, first->seen.class, first->group, first->seen.block)->since,
		clock_coarse_now_ns(), memory_order_relaxed);
	return true;
}

int queue_lease_first(struct queue *queue, struct queue_class_view *class, struct queue_seen *ret)
{
	for (unsigned tries = 0; tries < QUEUE_TRIES_MAX; ++tries) {
		struct first first;
		int r;

		r = first_of(queue, class, &first);
		if (r < 0)
			return r;
		if (first_lease(queue, &first)) {
			*ret = first.seen;
			return 0;
		}
	}

	return IPC_EAGAIN;
}

/* ---- fairness ---- */

#define SLICE_UNIT_NS   256
#define RUN_MAX_DEFAULT 8

static uint64_t run_make(uint32_t count, unsigned turn, unsigned of)
{
	return (uint64_t)of << 48 | (uint64_t)turn << 32 | count;
}

static unsigned run_turn(uint64_t run)
{
	return (unsigned)(run >> 32) & 0xffff;
}

static unsigned run_of(uint64_t run)
{
	return (unsigned)(run >> 48);
}

void queue_set_fairness(struct queue *queue, const struct ipc_queue_fairness *fairness)
{
	uint64_t units = 0;

	if (fairness->slice_ns > 0)
		units = (fairness->slice_ns - 1) / SLICE_UNIT_NS + 1;
	if (units > UINT32_MAX)
		units = UINT32_MAX;

	atomic_store_explicit(&queue->segment->fairness, (uint64_t)fairness->run_max << 32 | units,
			      memory_order_release);
	CRASH_POINT();
	atomic_store_explicit(&queue->segment->run, 0, memory_order_release);
}

/* The run is over: a lower class has its turn. */
static bool run_is_over(const struct queue *queue, uint64_t run)
{
	uint64_t fairness = atomic_load_explicit(&queue->segment->fairness, memory_order_relaxed);
	uint32_t run_max = (uint32_t)(fairness >> 32);
	uint64_t slice_ns = (fairness & UINT32_MAX) * SLICE_UNIT_NS;
	uint32_t count = (uint32_t)run;

	if (run_max == 0)
		run_max = RUN_MAX_DEFAULT;
	if (run_max != IPC_FAIRNESS_STRICT && count >= run_max)
		return true;
	if (slice_ns == 0 || count == 0)
		return false;

	return clock_now_ns() -
		       atomic_load_explicit(&queue->segment->run_since, memory_order_relaxed) >=
	       slice_ns;
}

/*
 * Of the lower classes that wait the next one after the one that had its turn last.  Lower than
 * what was taken in the run: where nothing of that waits any more the highest that waits is one of
 * them, or it would be passed over each time.
 */
static unsigned turn_next(const struct queue *queue, unsigned top, uint32_t waiting, uint64_t run)
{
	unsigned n = queue->layout.n_classes;
	unsigned turn = run_turn(run) % n;
	unsigned above = run_of(run) < top ? run_of(run) : top;

	for (unsigned i = 1; i <= n; ++i) {
		unsigned class = (turn + i) % n;

		if (class > above && (waiting >> class & 1))
			return class;
	}

	return top;
}

/* After the take; what somebody else counted meanwhile stands. */
static void run_count(struct queue *queue, uint64_t run, unsigned taken, bool is_turn,
		      bool lower_waits)
{
	_Atomic uint64_t *word = &queue->segment->run;
	uint32_t count = (uint32_t)run;
	uint64_t next;

	if (is_turn) {
		next = run_make(0, taken, taken);
	} else if (lower_waits) {
		if (count == 0 &&
		    (atomic_load_explicit(&queue->segment->fairness, memory_order_relaxed) &
		     UINT32_MAX))
			atomic_store_explicit(&queue->segment->run_since, clock_now_ns(),
					      memory_order_relaxed);
		next = run_make(count < UINT32_MAX ? count + 1 : count, run_turn(run), taken);
	} else if (taken > 0) {
		/* It was a lower class's, with no class above waiting: the row is broken. */
		next = run_make(0, run_turn(run), taken);
	} else {
		return;
	}

	if (next != run)
		(void)atomic_compare_exchange_strong_explicit(
			word, &run, next, memory_order_relaxed, memory_order_relaxed);
}

/* ---- take ---- */

struct look {
	struct first first[IPC_PRIORITIES_MAX];
	uint32_t waiting; /* bit: the class has an item */
	uint32_t closed;  /* bit: nothing will come any more */
};

static int look_at_all(struct queue *queue, struct look *ret)
{
	ret->waiting = ret->closed = 0;
	for (unsigned i = 0; i < queue->layout.n_classes; ++i) {
		int r = first_of(queue, &queue->class[i], &ret -> first[i]);

		if (r == 0)
			ret->waiting |= UINT32_C(1) << i;
		else if (r == IPC_EPIPE)
			ret->closed |= UINT32_C(1) << i;
		else if (r != IPC_EAGAIN)
			return r;
	}

	return 0;
}

/* Shut down, also if whoever did so died on the way. */
static int close_all(struct queue *queue)
{
	for (unsigned i = 0; i < queue->layout.n_classes; ++i) {
		struct queue_live live = {queue, &queue->class[i]};

		if (index_ring_close(&queue->class[i].ring, queue_is_live, &live) !=
		    INDEX_RING_DONE)
			return queue_break(queue);
		CRASH_POINT();
	}

	return 0;
}

/* Nothing waits.  0: look again, once. */
static int nothing(struct queue *queue, const struct look *look, bool *has_closed)
{
	if (!atomic_load_explicit(&queue->segment->header.is_shut_down, memory_order_acquire))
		return IPC_EAGAIN;

	/* What was committed before the end of each class was seen. */
	if (look->closed == (UINT32_C(1) << queue->layout.n_classes) - 1)
		return IPC_EPIPE;

	/* What was closed by us a moment ago has an end, or it is none of our rings. */
	if (*has_closed)
		return queue_break(queue);

	*has_closed = true;
	return close_all(queue);
}

static int item_give(struct queue *queue, const struct first *first, struct ipc_queue_item *ret)
{
	const struct queue_seen *seen = &first->seen;
	uint64_t room = queue->layout.group[first->group].room;
	struct queue_block *block = queue_block_in(queue, seen->class, first->group, seen->block);
	unsigned char *data = queue_block_data(block);
	uint64_t size = atomic_load_explicit(&block->size, memory_order_relaxed);
	uint32_t reason = atomic_load_explicit(&block->reason, memory_order_relaxed);
	uint32_t source_size = atomic_load_explicit(&block->source_size, memory_order_relaxed);
	uint64_t flat =
		(uint64_t)(seen->class - queue->class) << INDEX_RING_BLOCK_BITS | seen->block;
	bool is_dead = UNLIKELY(source_size > 0) && source_size <= QUEUE_NAME_SIZE &&
		       data[room + source_size - 1] == '\0';

	if (UNLIKELY(size > room))
		return queue_break(queue);

	*ret = (struct ipc_queue_item){
		.data = size > 0 ? data : NULL,
		.size = size,
		.origin = atomic_load_explicit(&block->origin, memory_order_relaxed),
		.enqueued_ns = atomic_load_explicit(&block->enqueued_ns, memory_order_relaxed),
		.priority = (uint32_t)(seen->class - queue->class),
		.attempt = queue_word_attempt(seen->word),
		.reason = is_dead ? (enum ipc_dead_reason)(reason % IPC_DEAD_REASONS_MAX)
				  : IPC_DEAD_NONE,
		.source = is_dead ? (const char *)data + room : NULL,
		.lease = queue_lease_mix(
			queue, seen->word >> QUEUE_USE_SHIFT << QUEUE_USE_SHIFT |
				       (queue_word_attempt(seen->word) & LEASE_ATTEMPT_MASK)
					       << LEASE_ATTEMPT_SHIFT |
				       flat),
	};
	return 0;
}

/* 0: taken; 1: again, somebody was faster; or as queue_take(). */
static int take_once(struct queue *queue, struct ipc_queue_item *ret, bool *has_closed)
{
	uint64_t run = atomic_load_explicit(&queue->segment->run, memory_order_acquire);
	struct look look;
	unsigned class;
	bool lower_waits, is_turn;
	int r;

	r = look_at_all(queue, &look);
	if (r < 0)
		return r;
	if (look.waiting == 0) {
		r = nothing(queue, &look, has_closed);
		return r < 0 ? r : 1;
	}

	class = (unsigned)__builtin_ctz(look.waiting);
	lower_waits = (look.waiting & (look.waiting - 1)) != 0;
	is_turn = lower_waits && run_is_over(queue, run);
	if (is_turn)
		class = turn_next(queue, class, look.waiting, run);
	if (!first_lease(queue, &look.first[class]))
		return 1;

	run_count(queue, run, class, is_turn, lower_waits);

	/* It came back once too often with its last consumer's death. */
	if (queue_has_too_many(queue, queue_word_attempt(look.first[class].seen.word))) {
		(void)queue_dispose(queue, &look.first[class].seen, IPC_DEAD_ATTEMPTS);
		return 1;
	}

	return item_give(queue, &look.first[class], ret);
}

int queue_take(struct queue *queue, struct ipc_queue_item *ret)
{
	bool has_closed = false;
	int r;

	r = header_fault(&queue->segment->header);
	if (r < 0)
		return r;

	queue_sweep(queue);
	for (unsigned tries = 0; tries < QUEUE_TRIES_MAX; ++tries) {
		r = take_once(queue, ret, &has_closed);
		if (r <= 0)
			return r;
	}

	return IPC_EAGAIN;
}

int queue_probe_item(struct queue *queue)
{
	bool has_closed = false;
	struct look look;
	int r;

	r = header_fault(&queue->segment->header);
	if (r < 0)
		return r;

	queue_sweep(queue);
	for (unsigned tries = 0; tries < QUEUE_TRIES_MAX; ++tries) {
		r = look_at_all(queue, &look);
		if (r < 0)
			return r;
		if (look.waiting != 0)
			return 0;

		r = nothing(queue, &look, &has_closed);
		if (r < 0)
			return r;
	}

	return IPC_EAGAIN;
}

/* ---- leases ---- */

static int lease_find(struct queue *queue, uint64_t given, struct queue_seen *ret)
{
	uint64_t lease = queue_lease_mix(queue, given);
	uint64_t flat = lease & LEASE_FLAT_MASK;
	uint32_t priority = (uint32_t)(flat >> INDEX_RING_BLOCK_BITS);

	ret->block = (uint32_t)flat & (INDEX_RING_BLOCKS_MAX - 1);
	if (priority >= queue->layout.n_classes || ret->block >= queue->layout.items_max)
		return IPC_ESTALE;

	ret->class = &queue->class[priority];
	ret->word = queue_load(ret->class, ret->block);
	if (queue_word_phase(ret->word) != QUEUE_LEASED ||
	    queue_word_row(ret->word) != queue->row ||
	    queue_word_use(ret->word) != (uint32_t)(lease >> QUEUE_USE_SHIFT) ||
	    (queue_word_attempt(ret->word) & LEASE_ATTEMPT_MASK) !=
		    (lease >> LEASE_ATTEMPT_SHIFT & LEASE_ATTEMPT_MASK))
		return IPC_ESTALE;

	return 0;
}

int queue_ack(struct queue *queue, uint64_t lease)
{
	struct queue_seen seen;
	int r;

	r = lease_find(queue, lease, &seen);
	if (r < 0)
		return r;

	return queue_room_give(queue, &seen) ? 0 : IPC_ESTALE;
}

int queue_ack_many(struct queue *queue, const struct ipc_queue_item *items, unsigned n)
{
	struct queue_freed freed = {0};
	int r = 0;
	unsigned i;

	for (i = 0; i < n && r == 0; ++i) {
		struct queue_seen seen;

		r = lease_find(queue, items[i].lease, &seen);
		if (r == 0 && !queue_room_free(queue, &seen, &freed))
			r = IPC_ESTALE;
	}

	queue_room_tell(queue, &freed);
	if (r < 0)
		--i;

	return i > 0 ? (int)i : r;
}

int queue_requeue(struct queue *queue, uint64_t lease)
{
	struct queue_seen seen;
	int r;

	r = lease_find(queue, lease, &seen);
	if (r < 0)
		return r;

	return queue_return_own(queue, &seen) ? 0 : IPC_ESTALE;
}

int queue_reject(struct queue *queue, uint64_t lease)
{
	struct queue_seen seen;
	int r;

	r = lease_find(queue, lease, &seen);
	if (r < 0)
		return r;

	return queue_dispose(queue, &seen, IPC_DEAD_REJECTED) ? 0 : IPC_ESTALE;
}

/* ---- the end ---- */

int queue_shutdown(struct queue *queue)
{
	int r;

	r = header_fault(&queue->segment->header);
	if (r < 0)
		return r;

	atomic_store_explicit(&queue->segment->header.is_shut_down, 1, memory_order_seq_cst);
	CRASH_POINT();
	r = close_all(queue);
	queue_notify(queue, QUEUE_SIDE_CONSUMERS);
	queue_notify(queue, QUEUE_SIDE_PRODUCERS);
	return r;
}

void queue_abandon(struct queue *queue)
{
	if (header_fault(&queue->segment->header) < 0)
		return;

	queue_sweep_anyway(queue);
	for (uint32_t i = 0; i < queue->layout.n_classes; ++i) {
		struct queue_seen seen;

		while (queue_lease_first(queue, &queue->class[i], &seen) == 0)
			(void)queue_dispose(queue, &seen, IPC_DEAD_CONSUMER_GONE);
	}
}
