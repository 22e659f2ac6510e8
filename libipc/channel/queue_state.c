/* SPDX-License-Identifier: MIT */

/*
 * What stands in a queue.
 */

#include "libipc/channel/queue_block.h"

/* What of the class is waiting or leased, each with its bytes. */
struct census {
	uint64_t items, bytes, leased;
};

static void census_add(struct queue *queue, struct queue_seen *seen, struct census *census)
{
	uint64_t size;

	switch (queue_word_phase(seen->word)) {
	case QUEUE_READY:
		if (!queue_is_committed(queue, seen))
			return;
		break;
	case QUEUE_RETURNED:
		break;
	case QUEUE_LEASED:
	case QUEUE_MOVING:
		++census->leased;
		return;
	case QUEUE_ENDED:
		queue_finish(queue, seen);
		return;
	case QUEUE_FREE:
	case QUEUE_CLAIMED:
		return;
	}

	size = atomic_load_explicit(&queue_block_of(queue, seen)->size, memory_order_relaxed);
	++census->items;
	census->bytes += size <= queue->layout.item_size_max ? size : 0;
}

/* Counters of ends, without the name that stands in their low bits. */
static uint64_t ended(struct queue_class *shared, unsigned kind, unsigned reason)
{
	if (reason == IPC_DEAD_FULL)
		return atomic_load_explicit(&shared->full[kind], memory_order_relaxed);

	return atomic_load_explicit(&shared->ends[kind][reason], memory_order_acquire) >>
	       QUEUE_ENDS_NAME_BITS;
}

static void class_state(struct queue *queue, unsigned number, struct ipc_queue_state *ret)
{
	struct queue_class_view *class = &queue->class[number];
	struct census census = {0};
	uint64_t elsewhere;

	for (uint32_t i = 0; i < queue->layout.items_max; ++i) {
		struct queue_seen seen = {class, i, queue_load(class, i)};

		census_add(queue, &seen, &census);
	}

	elsewhere = census.items + census.leased;
	for (unsigned reason = 0; reason < IPC_DEAD_REASONS_MAX; ++reason) {
		ret->dead_lettered[number][reason] = ended(class->shared, 0, reason);
		ret->dropped[number][reason] = ended(class->shared, 1, reason);
		if (reason != IPC_DEAD_FULL)
			elsewhere +=
				ret->dead_lettered[number][reason] + ret->dropped[number][reason];
	}

	ret->items[number] = census.items;
	ret->bytes[number] = census.bytes;
	ret->leased[number] = census.leased;
	ret->queued[number] = index_ring_n_added(&class->ring);

	/* Every item that was queued is somewhere.  Others may be at work: never less than none. */
	if (ret->queued[number] > elsewhere)
		ret->acknowledged[number] = ret->queued[number] - elsewhere;
}

int queue_get_state(struct queue *queue, struct ipc_queue_state *ret)
{
	int r;

	r = header_fault(&queue->segment->header);
	if (r < 0)
		return r;

	queue_sweep(queue);
	*ret = (struct ipc_queue_state){
		.size = ret->size,
		.priorities = queue->layout.n_classes,
	};
	for (unsigned i = 0; i < queue->layout.n_classes; ++i) {
		class_state(queue, i, ret);
		ret->n_leased += (uint32_t)ret->leased[i];
	}

	return 0;
}
