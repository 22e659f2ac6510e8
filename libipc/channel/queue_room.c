/* SPDX-License-Identifier: MIT */

/*
 * Room: finding free blocks, and counting bytes.
 *
 * A block is taken first and its bytes are counted after that: who dies in between leaves a block
 * that is swept, and no bytes.  How many were counted stands with the block, marked with its use; a
 * mark of another use means none.
 */

#include <ipc/limits.h>

#include "libipc/channel/queue_block.h"

#define PREFETCH_BLOCKS 3

#define CHARGE_BITS 40
#define CHARGE_MASK ((UINT64_C(1) << CHARGE_BITS) - 1)

/* ---- bytes ---- */

static uint64_t charge_make(uint64_t word, uint64_t bytes)
{
	return (uint64_t)queue_word_use(word) << CHARGE_BITS | bytes;
}

/* What was counted for this use of the block; never more than an item may have. */
static uint64_t charge_of(const struct queue *queue, const struct queue_block *block, uint64_t word)
{
	uint64_t charge = atomic_load_explicit(&block->charge, memory_order_relaxed);
	uint64_t bytes = charge & CHARGE_MASK;

	if (charge >> CHARGE_BITS != (queue_word_use(word) & (UINT32_MAX >> 8)) ||
	    bytes > queue->layout.item_size_max)
		return 0;

	return bytes;
}

static uint64_t freed_now(struct queue_class_view *class)
{
	uint64_t freed = atomic_load_explicit(&class->shared->freed_bytes, memory_order_acquire);

	atomic_store_explicit(&class->freed, freed, memory_order_relaxed);
	return freed;
}

/* What was freed may be looked at later than what was claimed: fewer than none are none. */
static uint64_t used_of(uint64_t claimed, uint64_t freed)
{
	uint64_t used = claimed - freed;

	return (int64_t)used < 0 ? 0 : used;
}

uint64_t queue_room_used(struct queue_class_view *class)
{
	uint64_t claimed = atomic_load_explicit(&class->shared->claimed, memory_order_acquire);

	return used_of(claimed, freed_now(class));
}

static uint64_t used_by_blocks(const struct queue *queue, struct queue_class_view *class)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < queue->layout.items_max; ++i) {
		struct queue_seen seen = {class, i, queue_load(class, i)};

		if (queue_word_phase(seen.word) != QUEUE_FREE)
			sum += charge_of(queue, queue_block_of(queue, &seen), seen.word);
	}

	return sum;
}

/*
 * Bytes that were counted for nobody's block are given back.  Somebody who is stopped between two
 * steps just now looks like one who died there: then too many are given back, and fewer seem to be
 * used than are.  So what was corrected is compared again the next time, and so is what cannot be.
 */
static void bytes_correct(struct queue *queue, struct queue_class_view *class)
{
	struct queue_class *shared = class->shared;
	uint64_t claimed, freed, blocks;

	(void)atomic_exchange_explicit(&shared->suspect, 0, memory_order_seq_cst);
	claimed = atomic_load_explicit(&shared->claimed, memory_order_acquire);
	freed = freed_now(class);
	blocks = used_by_blocks(queue, class);
	if (claimed - freed == blocks)
		return;

	/* If somebody was at work meanwhile: another time. */
	if (claimed == atomic_load_explicit(&shared->claimed, memory_order_acquire))
		(void)atomic_compare_exchange_strong_explicit(
			&shared->freed_bytes, &freed, claimed - blocks, memory_order_acq_rel,
			memory_order_relaxed);
	atomic_store_explicit(&shared->suspect, 1, memory_order_relaxed);
}

/* Whether so many bytes fit; looks at what was freed only if it must. */
static bool bytes_fit(struct queue *queue, struct queue_class_view *class, uint64_t claimed,
		      uint64_t size)
{
	uint64_t room = queue->layout.bytes_max - size;

	return used_of(claimed, atomic_load_explicit(&class->freed, memory_order_relaxed)) <=
		       room ||
	       used_of(claimed, freed_now(class)) <= room;
}

/* Before a block is taken, so that who finds no room changes nothing. */
static bool bytes_may_fit(struct queue *queue, struct queue_class_view *class, uint64_t size)
{
	struct queue_class *shared = class->shared;

	if (bytes_fit(queue, class, atomic_load_explicit(&shared->claimed, memory_order_acquire),
		      size))
		return true;

	if (atomic_load_explicit(&shared->suspect, memory_order_relaxed) == 0 &&
	    queue_room_used(class) <= queue->layout.bytes_max)
		return false;

	bytes_correct(queue, class);
	return bytes_fit(queue, class, atomic_load_explicit(&shared->claimed, memory_order_acquire),
			 size);
}

static bool bytes_take(struct queue *queue, const struct queue_seen *seen, uint64_t size)
{
	struct queue_class *shared = seen->class->shared;
	uint64_t claimed = atomic_load_explicit(&shared->claimed, memory_order_relaxed);
	uint64_t used;

	do {
		if (!bytes_fit(queue, seen->class, claimed, size))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&shared->claimed, &claimed, claimed + size,
							memory_order_acq_rel,
							memory_order_relaxed));

	CRASH_POINT();
	atomic_store_explicit(&queue_block_of(queue, seen)->charge, charge_make(seen->word, size),
			      memory_order_relaxed);

	/* Not less than what is used: freed is what was seen of it. */
	used = used_of(claimed + size,
		       atomic_load_explicit(&seen->class->freed, memory_order_relaxed));
	if (used > atomic_load_explicit(&shared->claimed_max, memory_order_relaxed) &&
	    used <= queue->layout.bytes_max)
		atomic_store_explicit(&shared->claimed_max, used, memory_order_relaxed);

	return true;
}

/* ---- blocks ---- */

static bool take_free(const struct queue *queue, struct queue_class_view *class, uint32_t block,
		      enum queue_phase phase, uint32_t attempt, struct queue_seen *ret)
{
	*ret = (struct queue_seen){class, block, queue_load(class, block)};
	if (queue_word_phase(ret->word) != QUEUE_FREE)
		return false;

	return queue_change(ret,
			    queue_word_make(queue_word_use(ret->word), attempt, queue->row, phase));
}

static bool group_search(struct queue *queue, struct queue_class_view *class, uint32_t number,
			 enum queue_phase phase, uint32_t attempt, struct queue_seen *ret)
{
	const struct queue_group *group = &queue->layout.group[number];

	for (uint32_t i = 0; i < group->n; ++i) {
		if (take_free(queue, class, group->first + i, phase, attempt, ret)) {
			atomic_store_explicit(&class->shared->cursor[number], i + 1,
					      memory_order_relaxed);
			return true;
		}

		if (queue_word_phase(ret->word) == QUEUE_ENDED)
			queue_finish(queue, ret);
	}

	return false;
}

/* The lines of a block that was used lie in the consumer's cache: on their way before they are
 * needed. */
static void prefetch_ahead(const struct queue *queue, const struct queue_class_view *class,
			   uint32_t number, uint32_t at)
{
	const struct queue_group *group = &queue->layout.group[number];
	const unsigned char *block;

	if (at + PREFETCH_BLOCKS >= group->n)
		return;

	block = class->blocks + group->distance + (at + PREFETCH_BLOCKS) * group->stride;
	__builtin_prefetch(block, 1);
	__builtin_prefetch(block + sizeof(struct queue_block), 1);
}

/* What is free stands, if items come and go in order, just behind what was taken last. */
static bool group_take(struct queue *queue, struct queue_class_view *class, uint32_t number,
		       enum queue_phase phase, uint32_t attempt, struct queue_seen *ret)
{
	const struct queue_group *group = &queue->layout.group[number];
	_Atomic uint32_t *cursor = &class->shared->cursor[number];
	uint32_t at = atomic_load_explicit(cursor, memory_order_relaxed);
	uint64_t freed;

	if (at >= group->n)
		at = 0;

	if (take_free(queue, class, group->first + at, phase, attempt, ret)) {
		atomic_store_explicit(cursor, at + 1, memory_order_relaxed);
		prefetch_ahead(queue, class, number, at);
		return true;
	}

	/* None was free, and none has become free since. */
	freed = atomic_load_explicit(&class->shared->freed[number], memory_order_acquire);
	if (atomic_load_explicit(&class->full_seen[number], memory_order_relaxed) == ~freed)
		return false;

	if (group_search(queue, class, number, phase, attempt, ret))
		return true;

	atomic_store_explicit(&class->full_seen[number], ~freed, memory_order_relaxed);
	return false;
}

/* The last group whose blocks have room for so many bytes; groups stand in falling sizes. */
static uint32_t group_fitting(const struct queue *queue, uint64_t size)
{
	uint32_t low = 0;
	uint32_t high = queue->layout.n_groups;

	while (high - low > 1) {
		uint32_t middle = (low + high) / 2;

		if (queue->layout.group[middle].room >= size)
			low = middle;
		else
			high = middle;
	}
	return low;
}

int queue_room_take(struct queue *queue, struct queue_class_view *class, uint64_t size,
		    enum queue_phase phase, uint32_t attempt, struct queue_seen *ret)
{
	uint32_t number = group_fitting(queue, size) + 1;

	if (queue->bytes_bind && !bytes_may_fit(queue, class, size))
		return IPC_EAGAIN;

	while (number-- > 0) {
		if (!group_take(queue, class, number, phase, attempt, ret))
			continue;

		CRASH_POINT();
		if (!queue->bytes_bind || bytes_take(queue, ret, size))
			return 0;

		/* Somebody was faster. */
		(void)queue_room_give(queue, ret);
		return IPC_EAGAIN;
	}

	return IPC_EAGAIN;
}

void queue_room_tell(struct queue *queue, struct queue_freed *freed)
{
	if (!freed->class)
		return;

	CRASH_POINT();
	if (freed->bytes > 0)
		atomic_fetch_add_explicit(&freed->class->freed_bytes, freed->bytes,
					  memory_order_acq_rel);
	CRASH_POINT();
	atomic_fetch_add_explicit(&freed->class->freed[freed->group], freed->n,
				  memory_order_seq_cst);
	CRASH_POINT();
	freed->class = NULL;
	queue_notify(queue, QUEUE_SIDE_PRODUCERS);
}

bool queue_room_free(struct queue *queue, const struct queue_seen *seen, struct queue_freed *freed)
{
	uint32_t group = queue_group_of(queue, seen->block);
	struct queue_block *block = queue_block_in(queue, seen->class, group, seen->block);
	uint64_t bytes = charge_of(queue, block, seen->word);

	if (!queue_swap(seen, queue_word_make(queue_word_use(seen->word) + 1,
					      queue_word_was_item(seen->word), 0, QUEUE_FREE)))
		return false;

	if (freed->class != seen->class->shared || freed->group != group) {
		queue_room_tell(queue, freed);
		*freed = (struct queue_freed){.class = seen->class->shared, .group = group};
	}
	++freed->n;
	freed->bytes += bytes;
	return true;
}

bool queue_room_give(struct queue *queue, const struct queue_seen *seen)
{
	struct queue_freed freed = {0};

	if (!queue_room_free(queue, seen, &freed))
		return false;

	queue_room_tell(queue, &freed);
	return true;
}

void queue_room_shrink(struct queue *queue, const struct queue_seen *seen, uint64_t size)
{
	uint32_t number = queue_group_of(queue, seen->block);
	struct queue_block *block = queue_block_in(queue, seen->class, number, seen->block);
	uint64_t bytes = charge_of(queue, block, seen->word);

	if (size >= bytes)
		return;

	atomic_store_explicit(&block->charge, charge_make(seen->word, size), memory_order_relaxed);
	CRASH_POINT();
	atomic_fetch_add_explicit(&seen->class->shared->freed_bytes, bytes - size,
				  memory_order_seq_cst);
	queue_notify(queue, QUEUE_SIDE_PRODUCERS);
}

bool queue_room_is_there(struct queue *queue, struct queue_class_view *class)
{
	for (uint32_t number = queue->layout.n_groups; number-- > 0;) {
		const struct queue_group *group = &queue->layout.group[number];

		for (uint32_t i = 0; i < group->n; ++i) {
			if (queue_word_phase(queue_load(class, group->first + i)) == QUEUE_FREE)
				return !queue->bytes_bind || bytes_may_fit(queue, class, 1);
		}
	}

	return false;
}
