/* SPDX-License-Identifier: MIT */
#include "libipc/core/index_ring.h"

#include "libipc/platform/crash.h"

/* Things move by what others do; words that move so often within one call are no ring's.  More than
 * the largest ring has entries: a hint may be a lap behind. */
#define TRIES_MAX (1u << 22)

#define LAP_BITS    26
#define LAP_MASK    ((UINT64_C(1) << LAP_BITS) - 1)
#define BLOCK_SHIFT 2
#define USE_SHIFT   22
#define LAP_SHIFT   38

enum kind { KIND_FREE = 0, KIND_FULL = 1, KIND_CLOSED = 2 };

static enum kind entry_kind(uint64_t entry)
{
	return (enum kind)(entry & 3);
}

static uint64_t entry_lap(uint64_t entry)
{
	return entry >> LAP_SHIFT;
}

static uint32_t entry_block(uint64_t entry)
{
	return (uint32_t)(entry >> BLOCK_SHIFT) & (INDEX_RING_BLOCKS_MAX - 1);
}

static uint32_t entry_use(uint64_t entry)
{
	return (uint32_t)(entry >> USE_SHIFT) & INDEX_RING_USE_MASK;
}

static uint64_t entry_make(enum kind kind, uint64_t lap, uint32_t block, uint32_t use)
{
	return (lap & LAP_MASK) << LAP_SHIFT | (uint64_t)(use & INDEX_RING_USE_MASK) << USE_SHIFT |
	       (uint64_t)(block & (INDEX_RING_BLOCKS_MAX - 1)) << BLOCK_SHIFT | kind;
}

/* How many laps an entry is ahead of a position: laps run in a circle, and what counts is which of
 * the two ways round is the shorter one. */
static int64_t entry_ahead(const struct index_ring *ring, uint64_t entry, uint64_t position)
{
	uint64_t ahead = entry_lap(entry) - (position >> ring->bits);

	return (int64_t)(ahead << (64 - LAP_BITS)) >> (64 - LAP_BITS);
}

static uint64_t ring_load(const struct index_ring *ring, uint64_t position)
{
	/* [N1] What was written before it was committed is seen.  Pairs with [N2]. */
	return atomic_load_explicit(&ring->entry[position & ring->mask], memory_order_acquire);
}

static bool ring_swap(const struct index_ring *ring, uint64_t position, uint64_t from, uint64_t to)
{
	/* [N2] Sequentially consistent: also the fence between the commit and the look at who
	 * sleeps. */
	return atomic_compare_exchange_strong_explicit(&ring->entry[position & ring->mask], &from,
						       to, memory_order_seq_cst,
						       memory_order_relaxed);
}

/* head or tail: past this position, which is filled or freed. */
static void ring_advance(_Atomic uint64_t *word, uint64_t position)
{
	/* [N3] Whoever goes on from there sees what was there.  Pairs with [N4]. */
	atomic_store_explicit(word, position + 1, memory_order_release);
}

/* The word stands at `position`, whose entry is laps ahead: somebody who was stopped for long has
 * put it back.  Less than one lap before that entry's own position it cannot be. */
static void ring_catch_up(const struct index_ring *ring, _Atomic uint64_t *word, uint64_t position,
			  int64_t ahead)
{
	ring_advance(word, position + ((uint64_t)(ahead - 1) << ring->bits));
}

static uint64_t ring_place(const _Atomic uint64_t *word)
{
	/* [N4] Pairs with [N3]. */
	return atomic_load_explicit(word, memory_order_acquire);
}

uint64_t index_ring_size(uint32_t n_blocks)
{
	uint64_t size = 64;

	while (size <= n_blocks)
		size *= 2;

	return size;
}

void index_ring_make(struct index_ring_words *words, _Atomic uint64_t *entry, uint64_t size)
{
	atomic_store_explicit(&words->head, 0, memory_order_relaxed);
	atomic_store_explicit(&words->tail, 0, memory_order_relaxed);
	for (uint64_t i = 0; i < size; ++i)
		atomic_store_explicit(&entry[i], entry_make(KIND_FREE, 0, 0, 0),
				      memory_order_relaxed);
}

void index_ring_attach(struct index_ring *ret, struct index_ring_words *words,
		       _Atomic uint64_t *entry, uint64_t size)
{
	*ret = (struct index_ring){
		.words = words,
		.entry = entry,
		.mask = size - 1,
		.bits = (unsigned)__builtin_ctzll(size),
	};
}

/* ---- the end ---- */

/* What stands at the tail.  EMPTY: *ret_position is FREE, as *ret_entry says, and the next to be
 * filled. */
static enum index_ring_result ring_end(struct index_ring *ring, uint64_t *ret_position,
				       uint64_t *ret_entry, index_ring_is_live_fn is_live,
				       void *subject)
{
	for (unsigned tries = 0; tries < TRIES_MAX; ++tries) {
		uint64_t tail = ring_place(&ring->words->tail);
		uint64_t entry = ring_load(ring, tail);
		int64_t ahead = entry_ahead(ring, entry, tail);

		if (entry_kind(entry) == KIND_CLOSED)
			return INDEX_RING_CLOSED;

		if (ahead == 0 && entry_kind(entry) == KIND_FREE) {
			*ret_position = tail;
			*ret_entry = entry;
			return INDEX_RING_EMPTY;
		}

		if (ahead == 0) {
			/* Filled; whoever did so has not moved the tail. */
			ring_advance(&ring->words->tail, tail);
			continue;
		}

		if (ahead > 0) {
			ring_catch_up(ring, &ring->words->tail, tail, ahead);
			continue;
		}

		/* Left over from the last lap. */
		if (ahead != -1 || entry_kind(entry) != KIND_FULL ||
		    is_live(subject, entry_block(entry), entry_use(entry)))
			return INDEX_RING_BROKEN;

		(void)ring_swap(ring, tail, entry, entry_make(KIND_FREE, tail >> ring->bits, 0, 0));
	}

	return INDEX_RING_BROKEN;
}

enum index_ring_result index_ring_add(struct index_ring *ring, uint32_t block, uint32_t use,
				      _Atomic uint64_t *position, index_ring_is_live_fn is_live,
				      void *subject)
{
	for (unsigned tries = 0; tries < TRIES_MAX; ++tries) {
		enum index_ring_result result;
		uint64_t tail, entry;

		result = ring_end(ring, &tail, &entry, is_live, subject);
		if (result != INDEX_RING_EMPTY)
			return result;

		atomic_store_explicit(position, tail, memory_order_relaxed);
		CRASH_POINT();
		if (!ring_swap(ring, tail, entry,
			       entry_make(KIND_FULL, tail >> ring->bits, block, use)))
			continue;

		CRASH_POINT();
		ring_advance(&ring->words->tail, tail);
		return INDEX_RING_DONE;
	}

	return INDEX_RING_BROKEN;
}

enum index_ring_result index_ring_close(struct index_ring *ring, index_ring_is_live_fn is_live,
					void *subject)
{
	for (unsigned tries = 0; tries < TRIES_MAX; ++tries) {
		enum index_ring_result result;
		uint64_t tail, entry;

		result = ring_end(ring, &tail, &entry, is_live, subject);
		if (result == INDEX_RING_CLOSED)
			return INDEX_RING_DONE;
		if (result != INDEX_RING_EMPTY)
			return result;

		if (ring_swap(ring, tail, entry, entry_make(KIND_CLOSED, tail >> ring->bits, 0, 0)))
			return INDEX_RING_DONE;
	}

	return INDEX_RING_BROKEN;
}

uint64_t index_ring_n_added(struct index_ring *ring)
{
	for (unsigned tries = 0; tries < TRIES_MAX; ++tries) {
		uint64_t tail = ring_place(&ring->words->tail);
		uint64_t entry = ring_load(ring, tail);
		int64_t ahead = entry_ahead(ring, entry, tail);

		if (ahead < 0 || (ahead == 0 && entry_kind(entry) != KIND_FULL))
			return tail;

		if (ahead == 0)
			ring_advance(&ring->words->tail, tail);
		else
			ring_catch_up(ring, &ring->words->tail, tail, ahead);
	}

	return ring_place(&ring->words->tail);
}

/* ---- the begin ---- */

enum index_ring_result index_ring_peek(struct index_ring *ring, struct index_ring_item *ret)
{
	for (unsigned tries = 0; tries < TRIES_MAX; ++tries) {
		uint64_t head = ring_place(&ring->words->head);
		uint64_t entry = ring_load(ring, head);
		int64_t ahead = entry_ahead(ring, entry, head);

		if (ahead > 0) {
			/* Freed already; whoever did so has not moved the head.  CLOSED, too,
			 * stands for its own lap alone: what waits may stand between. */
			ring_catch_up(ring, &ring->words->head, head, ahead);
			continue;
		}

		if (ahead < 0)
			return INDEX_RING_BROKEN;

		if (entry_kind(entry) == KIND_FREE)
			return INDEX_RING_EMPTY;

		if (entry_kind(entry) == KIND_CLOSED)
			return INDEX_RING_CLOSED;

		if (entry_kind(entry) != KIND_FULL)
			return INDEX_RING_BROKEN;

		*ret = (struct index_ring_item){
			.position = head,
			.entry = entry,
			.block = entry_block(entry),
			.use = entry_use(entry),
		};
		return INDEX_RING_DONE;
	}

	return INDEX_RING_BROKEN;
}

void index_ring_pop(struct index_ring *ring, const struct index_ring_item *item)
{
	uint64_t lap = item->position >> ring->bits;

	(void)ring_swap(ring, item->position, item->entry, entry_make(KIND_FREE, lap + 1, 0, 0));
	CRASH_POINT();
	ring_advance(&ring->words->head, item->position);
}

bool index_ring_holds(const struct index_ring *ring, uint64_t position, uint32_t block,
		      uint32_t use)
{
	return ring_load(ring, position) ==
	       entry_make(KIND_FULL, position >> ring->bits, block, use);
}
