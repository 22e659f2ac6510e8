/* SPDX-License-Identifier: MIT */

/*
 * Where things stand in a queue's segment, and how large its blocks are.
 */

#include <ipc/admin.h>
#include <ipc/error.h>
#include <ipc/limits.h>
#include <string.h>

#include "libipc/channel/queue.h"

#define RATE_MAX UINT32_MAX

static_assert(QUEUE_ATTEMPTS_MAX == (UINT32_C(1) << (QUEUE_USE_SHIFT - QUEUE_ATTEMPT_SHIFT)) - 1,
	      "attempts fill their bits");
static_assert(ROWS_MAX == 1 << (QUEUE_ATTEMPT_SHIFT - QUEUE_ROW_SHIFT), "rows fill their bits");

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

/* ---- groups ---- */

/* Four steps an octave, multiples of 64. */
static uint64_t step_of(uint64_t room)
{
	uint64_t step = 64;

	if (room > 256)
		step = UINT64_C(1) << (61 - __builtin_clzll(room - 1));

	return step < 64 ? 64 : step;
}

static uint64_t room_rounded(uint64_t room)
{
	return room <= 64 ? 64 : round_up(room, step_of(room));
}

/* What the n-th largest block has to have room for, n from 1. */
static uint64_t room_needed(const struct queue_layout *layout, uint64_t n)
{
	uint64_t room = layout->bytes_max / n;

	return room < layout->item_size_max ? room : layout->item_size_max;
}

/* The last block, n from 1, that gets the same room as the n-th. */
static uint64_t group_last(const struct queue_layout *layout, uint64_t n, uint64_t room)
{
	uint64_t last = n;
	uint64_t end = (uint64_t)layout->items_max + 1;

	while (end - last > 1) {
		uint64_t middle = last + (end - last) / 2;

		if (room_rounded(room_needed(layout, middle)) == room)
			last = middle;
		else
			end = middle;
	}

	return last;
}

static bool layout_groups(struct queue_layout *layout)
{
	uint64_t distance = 0;

	layout->n_groups = 0;
	for (uint64_t n = 1; n <= layout->items_max;) {
		uint64_t room = room_rounded(room_needed(layout, n));
		uint64_t last = group_last(layout, n, room);
		struct queue_group *group = &layout->group[layout->n_groups];

		if (layout->n_groups == QUEUE_GROUPS_MAX)
			return false;

		*group = (struct queue_group){
			.first = (uint32_t)(n - 1),
			.n = (uint32_t)(last - n + 1),
			.stride = sizeof(struct queue_block) + room + QUEUE_NAME_SIZE,
			.room = room,
			.distance = distance,
		};
		++layout->n_groups;
		n = last + 1;

		/* Neither product nor sum is more than 2^20 blocks of 2^31 bytes. */
		distance += group->stride * group->n;
	}

	layout->class_size = distance;
	return true;
}

/* ---- the whole ---- */

static bool layout_read(struct queue_layout *layout, const uint64_t shape[4])
{
	layout->items_max = (uint32_t)shape[0];
	layout->n_classes = (uint32_t)(shape[0] >> 32);
	layout->bytes_max = shape[1];
	layout->item_size_max = (uint32_t)shape[2];
	layout->attempts_max = (uint32_t)(shape[2] >> 32);
	layout->rate = (uint32_t)shape[3];
	layout->burst = (uint32_t)(shape[3] >> 32);

	return layout->n_classes >= 1 && layout->n_classes <= IPC_PRIORITIES_MAX &&
	       layout->items_max >= 1 && layout->items_max <= QUEUE_ITEMS_MAX &&
	       layout->bytes_max >= 1 && layout->bytes_max <= QUEUE_BYTES_MAX &&
	       layout->item_size_max >= 1 && layout->item_size_max <= IPC_ITEM_SIZE_MAX &&
	       layout->item_size_max <= layout->bytes_max && layout->attempts_max >= 1 &&
	       (layout->rate == 0) == (layout->burst == 0);
}

bool queue_layout(struct queue_layout *ret, const uint64_t shape[4])
{
	uint64_t blocks_size;

	if (!layout_read(ret, shape) || !layout_groups(ret))
		return false;

	blocks_size = ret->class_size;
	ret->ring_size = index_ring_size(ret->items_max);
	ret->words = 0;
	ret->entries = round_up(ret->items_max * sizeof(uint64_t), 64);
	ret->blocks = ret->entries + ret->ring_size * sizeof(uint64_t);
	ret->class_size = round_up(ret->blocks + blocks_size, 64);
	ret->first_class = round_up(sizeof(struct queue_segment), 64);
	ret->size = ret->first_class + ret->class_size * ret->n_classes;
	return true;
}

uint64_t queue_segment_size(const uint64_t shape[4])
{
	struct queue_layout layout;

	return queue_layout(&layout, shape) ? layout.size : 0;
}

/* ---- views ---- */

static void view_classes(struct queue *queue)
{
	const struct queue_layout *layout = &queue->layout;

	for (uint32_t i = 0; i < layout->n_classes; ++i) {
		struct queue_class_view *class = &queue->class[i];
		unsigned char *part = (unsigned char *)queue->segment + layout->first_class +
				      i * layout->class_size;

		class->shared = &queue->segment->class[i];
		class->word = (_Atomic uint64_t *)(void *)(part + layout->words);
		class->blocks = part + layout->blocks;
		index_ring_attach(&class->ring, &class->shared->ring,
				  (_Atomic uint64_t *)(void *)(part + layout->entries),
				  layout->ring_size);
	}
}

static void class_make(struct queue *queue, struct queue_class_view *class)
{
	memset(class->shared, 0, sizeof(*class->shared));
	index_ring_make(&class->shared->ring, class->ring.entry, queue->layout.ring_size);
	for (uint32_t i = 0; i < queue->layout.items_max; ++i)
		atomic_store_explicit(&class->word[i], 0, memory_order_relaxed);
}

int queue_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	struct queue queue = {.segment = segment};
	struct queue_segment *made = segment;

	(void)flags;
	if (!queue_layout(&queue.layout, shape) || queue.layout.size > size)
		return IPC_EINVAL;

	header_init(&made->header, IPC_KIND_QUEUE, size, shape);
	atomic_store_explicit(&made->fairness, 0, memory_order_relaxed);
	atomic_store_explicit(&made->run, 0, memory_order_relaxed);
	atomic_store_explicit(&made->run_since, 0, memory_order_relaxed);
	atomic_store_explicit(&made->bucket, 0, memory_order_relaxed);
	rows_init(&made->rows);

	view_classes(&queue);
	for (uint32_t i = 0; i < queue.layout.n_classes; ++i)
		class_make(&queue, &queue.class[i]);

	return 0;
}

int queue_attach(struct queue *ret, void *segment, uint64_t size, const uint64_t shape[4],
		 uint64_t handle_id)
{
	struct queue_segment *attached = segment;
	int r;

	if (size < sizeof(*attached))
		return IPC_EBADMSG;

	r = header_check(&attached->header, IPC_KIND_QUEUE, size, shape);
	if (r < 0)
		return r;

	memset(ret, 0, sizeof(*ret));
	if (!queue_layout(&ret->layout, shape) || ret->layout.size > size)
		return IPC_EBADMSG;

	ret->segment = attached;
	ret->handle_id = handle_id;
	ret->bytes_bind = queue_counts_bytes(&ret->layout);
	view_classes(ret);
	return 0;
}
