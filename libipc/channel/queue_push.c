/* SPDX-License-Identifier: MIT */

/*
 * Producers: claiming, filling, committing, and the bucket of tokens.
 */

#include <ipc/error.h>
#include <string.h>

#include "libipc/channel/queue_block.h"
#include "libipc/platform/clock.h"

/* ---- tokens ---- */

/* Parts of a nanosecond in which the bucket counts. */
#define TICKS_PER_NS UINT64_C(64)

/* Nobody waits longer; keeps sums far from overflow. */
#define TICKS_MAX (UINT64_C(1) << 62)

/* Of one token; and of the whole bucket, from empty to full. */
static uint64_t token_ticks(const struct queue_layout *layout)
{
	return NS_PER_S * TICKS_PER_NS / layout->rate;
}

static uint64_t bucket_ticks(const struct queue_layout *layout)
{
	uint64_t ticks;

	if (__builtin_mul_overflow(token_ticks(layout), (uint64_t)layout->burst, &ticks) ||
	    ticks > TICKS_MAX)
		return TICKS_MAX;

	return ticks;
}

/* When the bucket would be full again if a token were taken now; whether there is one. */
static bool token_look(const struct queue_layout *layout, uint64_t full_at, uint64_t now_ticks,
		       uint64_t *ret_full_at, uint64_t *ret_due_ns)
{
	uint64_t from = full_at > now_ticks ? full_at : now_ticks;
	uint64_t limit = now_ticks + bucket_ticks(layout);

	/* A stranger's: never so far ahead. */
	if (from > limit)
		from = limit;

	*ret_full_at = from + token_ticks(layout);
	if (*ret_full_at <= limit)
		return true;

	*ret_due_ns = (*ret_full_at - bucket_ticks(layout) + TICKS_PER_NS - 1) / TICKS_PER_NS;
	return false;
}

static bool token_is_there(const struct queue *queue, uint64_t *ret_due_ns)
{
	uint64_t full_at;

	if (queue->layout.rate == 0)
		return true;

	return token_look(&queue->layout,
			  atomic_load_explicit(&queue->segment->bucket, memory_order_relaxed),
			  clock_now_ns() * TICKS_PER_NS, &full_at, ret_due_ns);
}

static bool token_take(const struct queue *queue, uint64_t *ret_due_ns)
{
	_Atomic uint64_t *bucket = &queue->segment->bucket;
	uint64_t seen, full_at;

	if (queue->layout.rate == 0)
		return true;

	seen = atomic_load_explicit(bucket, memory_order_relaxed);
	do {
		if (!token_look(&queue->layout, seen, clock_now_ns() * TICKS_PER_NS, &full_at,
				ret_due_ns))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		bucket, &seen, full_at, memory_order_relaxed, memory_order_relaxed));

	return true;
}

/* What was taken last and was of no use. */
static void token_give(const struct queue *queue)
{
	if (queue->layout.rate != 0)
		atomic_fetch_sub_explicit(&queue->segment->bucket, token_ticks(&queue->layout),
					  memory_order_relaxed);
}

/* ---- items ---- */

int queue_check(const struct queue *queue, unsigned priority, uint64_t size)
{
	if (priority >= queue->layout.n_classes)
		return IPC_EINVAL;

	return size > queue->layout.item_size_max ? IPC_EMSGSIZE : 0;
}

static int queue_end_of_pushing(const struct queue *queue)
{
	int r = header_fault(&queue->segment->header);

	if (r < 0)
		return r;

	return atomic_load_explicit(&queue->segment->header.is_shut_down, memory_order_acquire)
		       ? IPC_EPIPE
		       : 0;
}

static void fill_source(struct queue *queue, struct queue_block *block, uint32_t group,
			const char *source)
{
	unsigned char *room = queue_block_data(block) + queue->layout.group[group].room;
	size_t size = source ? strlen(source) + 1 : 0;

	if (size > QUEUE_NAME_SIZE)
		size = 0;
	if (size > 0)
		memcpy(room, source, size);
	atomic_store_explicit(&block->source_size, (uint32_t)size, memory_order_relaxed);
}

static void fill_label(struct queue *queue, const struct queue_seen *seen, uint64_t size,
		       const struct queue_label *label)
{
	uint32_t group = queue_group_of(queue, seen->block);
	struct queue_block *block = queue_block_in(queue, seen->class, group, seen->block);

	atomic_store_explicit(&block->size, size, memory_order_relaxed);
	atomic_store_explicit(&block->origin, label->origin, memory_order_relaxed);
	atomic_store_explicit(&block->enqueued_ns, label->enqueued_ns, memory_order_relaxed);
	atomic_store_explicit(&block->target, 0, memory_order_relaxed);
	atomic_store_explicit(&block->reason, label->reason, memory_order_relaxed);
	fill_source(queue, block, group, label->source);
}

void queue_fill(struct queue *queue, const struct queue_seen *seen, const void *data, uint64_t size,
		const struct queue_label *label)
{
	fill_label(queue, seen, size, label);
	if (size > 0)
		memcpy(queue_block_data(queue_block_of(queue, seen)), data, size);
}

int queue_add(struct queue *queue, const struct queue_seen *seen)
{
	struct queue_live live = {queue, seen->class};
	struct queue_block *block = queue_block_of(queue, seen);

	switch (index_ring_add(&seen->class->ring, seen->block,
			       queue_word_use(seen->word) & INDEX_RING_USE_MASK, &block->position,
			       queue_is_live, &live)) {
	case INDEX_RING_DONE:
		CRASH_POINT();
		queue_notify(queue, QUEUE_SIDE_CONSUMERS);
		return 0;
	case INDEX_RING_CLOSED:
		return IPC_EPIPE;
	case INDEX_RING_EMPTY:
	case INDEX_RING_BROKEN:
		break;
	}

	return queue_break(queue);
}

/* ---- push ---- */

static int push_into(struct queue *queue, const struct queue_seen *seen, const void *data,
		     uint64_t size, uint64_t *ret_due_ns)
{
	struct queue_label label = {.origin = queue->handle_id, .enqueued_ns = clock_now_ns()};
	int r;

	queue_fill(queue, seen, data, size, &label);
	if (!token_take(queue, ret_due_ns))
		return IPC_EAGAIN;

	CRASH_POINT();
	r = queue_add(queue, seen);
	if (r < 0)
		token_give(queue);

	return r;
}

int queue_push(struct queue *queue, unsigned priority, const void *data, uint64_t size,
	       uint64_t *ret_due_ns)
{
	struct queue_seen seen;
	int r;

	*ret_due_ns = CLOCK_FOREVER;
	r = queue_end_of_pushing(queue);
	if (r < 0)
		return r;
	/* Gives room that a dead one had. */
	queue_sweep(queue);
	if (!token_is_there(queue, ret_due_ns))
		return IPC_EAGAIN;

	r = queue_room_take(queue, &queue->class[priority], size, QUEUE_READY, 1, &seen);
	if (r < 0)
		return r;

	CRASH_POINT();
	r = push_into(queue, &seen, data, size, ret_due_ns);
	if (r < 0)
		(void)queue_room_give(queue, &seen);

	return r;
}

/* ---- claim, commit, abort ---- */

int queue_claim(struct queue *queue, unsigned priority, uint64_t size, void **ret_data)
{
	struct queue_seen seen;
	struct queue_block *block;
	int r;

	r = queue_end_of_pushing(queue);
	if (r < 0)
		return r;

	queue_sweep(queue);
	r = queue_room_take(queue, &queue->class[priority], size, QUEUE_CLAIMED, 1, &seen);
	if (r < 0)
		return r;

	block = queue_block_of(queue, &seen);
	atomic_store_explicit(&block->size, size, memory_order_relaxed);
	atomic_store_explicit(&block->since, clock_coarse_now_ns(), memory_order_relaxed);
	*ret_data = queue_block_data(block);
	return 0;
}

/* The group in which a block's bytes may stand at this distance from the class's blocks. */
static bool group_at(const struct queue *queue, uint64_t distance, uint32_t *ret)
{
	for (uint32_t i = 0; i < queue->layout.n_groups; ++i) {
		const struct queue_group *group = &queue->layout.group[i];

		if (distance >= group->distance &&
		    distance - group->distance < group->stride * group->n) {
			*ret = i;
			return true;
		}
	}

	return false;
}

static bool block_at(const struct queue *queue, const struct queue_class_view *class,
		     uintptr_t address, uint32_t *ret)
{
	uintptr_t start = (uintptr_t) class->blocks + sizeof(struct queue_block);
	const struct queue_group *group;
	uint32_t number;

	if (address < start || !group_at(queue, address - start, &number))
		return false;

	group = &queue->layout.group[number];
	if ((address - start - group->distance) % group->stride != 0)
		return false;

	*ret = group->first + (uint32_t)((address - start - group->distance) / group->stride);
	return true;
}

/* An open claim of this handle. */
static int find_claim(struct queue *queue, const void *data, struct queue_seen *ret)
{
	for (uint32_t i = 0; i < queue->layout.n_classes; ++i) {
		ret->class = &queue->class[i];
		if (!block_at(queue, ret->class, (uintptr_t)data, &ret->block))
			continue;

		ret->word = queue_load(ret->class, ret->block);
		if (queue_word_phase(ret->word) == QUEUE_CLAIMED &&
		    queue_word_row(ret->word) == queue->row)
			return 0;
		return IPC_EINVAL;
	}

	return IPC_EINVAL;
}

static int commit_claim(struct queue *queue, struct queue_seen *seen, uint64_t size)
{
	struct queue_label label = {.origin = queue->handle_id, .enqueued_ns = clock_now_ns()};
	uint64_t claimed = seen->word;
	int r;

	/* Two commits of one claim: one of them has it. */
	if (!queue_change(seen, queue_word_with(seen->word, queue->row, QUEUE_READY)))
		return IPC_EINVAL;

	CRASH_POINT();
	fill_label(queue, seen, size, &label);
	queue_room_shrink(queue, seen, size);
	CRASH_POINT();
	r = queue_add(queue, seen);
	if (r < 0)
		(void)queue_change(seen, claimed);

	return r;
}

int queue_commit(struct queue *queue, void *data, uint64_t size, uint64_t *ret_due_ns)
{
	struct queue_seen seen;
	int r;

	*ret_due_ns = CLOCK_FOREVER;
	r = find_claim(queue, data, &seen);
	if (r < 0)
		return r;

	if (size > atomic_load_explicit(&queue_block_of(queue, &seen)->size, memory_order_relaxed))
		return IPC_EMSGSIZE;

	r = queue_end_of_pushing(queue);
	if (r < 0)
		return r;

	/* Before a wait for a token, too: who lingers is looked at again. */
	queue_sweep(queue);
	if (!token_take(queue, ret_due_ns))
		return IPC_EAGAIN;

	CRASH_POINT();
	r = commit_claim(queue, &seen, size);
	if (r < 0)
		token_give(queue);

	return r;
}

int queue_abort(struct queue *queue, void *data)
{
	struct queue_seen seen;
	int r;

	r = find_claim(queue, data, &seen);
	if (r < 0)
		return r;

	return queue_room_give(queue, &seen) ? 0 : IPC_EINVAL;
}

int queue_probe_room(struct queue *queue, uint64_t *ret_due_ns)
{
	int r;

	*ret_due_ns = CLOCK_FOREVER;
	r = queue_end_of_pushing(queue);
	if (r < 0)
		return r;
	queue_sweep(queue);
	if (!token_is_there(queue, ret_due_ns))
		return IPC_EAGAIN;

	for (uint32_t i = 0; i < queue->layout.n_classes; ++i) {
		if (queue_room_is_there(queue, &queue->class[i]))
			return 0;
	}

	return IPC_EAGAIN;
}
