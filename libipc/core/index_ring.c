/* SPDX-License-Identifier: MIT */
#include "libipc/core/index_ring.h"

#include "libipc/platform/crash.h"

/* Things move by what others do; words that move so often within one call are no ring's.  More than
 * the largest ring has entries: a hint may be a lap behind. */
#define TRIES_MAX (1u << 22)

/* The word stands at `position`, whose entry is laps ahead: somebody who was stopped for long has
 * put it back.  Less than one lap before that entry's own position it cannot be. */
static void ring_catch_up(const struct index_ring *ring, _Atomic uint64_t *word, uint64_t position,
			  int64_t ahead)
{
	index_ring_advance(word, position + ((uint64_t)(ahead - 1) << ring->bits));
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
		atomic_store_explicit(&entry[i], 0, memory_order_relaxed);
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
		uint64_t tail = index_ring_place(&ring->words->tail);
		uint64_t entry = index_ring_load(ring, tail);
		int64_t ahead = index_ring_entry_ahead(ring, entry, tail);

		if (index_ring_entry_kind(entry) == INDEX_RING_SHUT)
			return INDEX_RING_CLOSED;

		if (ahead == 0 && index_ring_entry_kind(entry) == INDEX_RING_FREE) {
			*ret_position = tail;
			*ret_entry = entry;
			return INDEX_RING_EMPTY;
		}

		if (ahead == 0) {
			/* Filled; whoever did so has not moved the tail. */
			index_ring_advance(&ring->words->tail, tail);
			continue;
		}

		if (ahead > 0) {
			ring_catch_up(ring, &ring->words->tail, tail, ahead);
			continue;
		}

		/* Left over from the last lap. */
		if (ahead != -1 || index_ring_entry_kind(entry) != INDEX_RING_FULL ||
		    is_live(subject, index_ring_entry_block(entry), index_ring_entry_use(entry)))
			return INDEX_RING_BROKEN;

		(void)index_ring_swap(ring, tail, entry, index_ring_entry_free(ring, tail));
	}

	return INDEX_RING_BROKEN;
}

enum index_ring_result index_ring_add_on(struct index_ring *ring, uint32_t block, uint32_t use,
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
		if (!index_ring_swap(ring, tail, entry,
				     index_ring_entry_full(ring, tail, block, use)))
			continue;

		CRASH_POINT();
		index_ring_advance(&ring->words->tail, tail);
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

		if (index_ring_swap(ring, tail, entry,
				    index_ring_entry_free(ring, tail) | INDEX_RING_SHUT))
			return INDEX_RING_DONE;
	}

	return INDEX_RING_BROKEN;
}

uint64_t index_ring_n_added(struct index_ring *ring)
{
	for (unsigned tries = 0; tries < TRIES_MAX; ++tries) {
		uint64_t tail = index_ring_place(&ring->words->tail);
		uint64_t entry = index_ring_load(ring, tail);
		int64_t ahead = index_ring_entry_ahead(ring, entry, tail);

		if (ahead < 0 || (ahead == 0 && index_ring_entry_kind(entry) != INDEX_RING_FULL))
			return tail;

		if (ahead == 0)
			index_ring_advance(&ring->words->tail, tail);
		else
			ring_catch_up(ring, &ring->words->tail, tail, ahead);
	}

	return index_ring_place(&ring->words->tail);
}

/* ---- the begin ---- */

enum index_ring_result index_ring_peek_on(struct index_ring *ring, struct index_ring_item *ret)
{
	for (unsigned tries = 0; tries < TRIES_MAX; ++tries) {
		uint64_t head = index_ring_place(&ring->words->head);
		uint64_t entry = index_ring_load(ring, head);
		int64_t ahead = index_ring_entry_ahead(ring, entry, head);

		if (ahead > 0) {
			/* Freed already; whoever did so has not moved the head.  CLOSED, too,
			 * stands for its own lap alone: what waits may stand between. */
			ring_catch_up(ring, &ring->words->head, head, ahead);
			continue;
		}

		if (ahead < 0)
			return INDEX_RING_BROKEN;

		if (index_ring_entry_kind(entry) == INDEX_RING_FREE)
			return INDEX_RING_EMPTY;

		if (index_ring_entry_kind(entry) == INDEX_RING_SHUT)
			return INDEX_RING_CLOSED;

		if (index_ring_entry_kind(entry) != INDEX_RING_FULL)
			return INDEX_RING_BROKEN;

		*ret = (struct index_ring_item){
			.position = head,
			.entry = entry,
			.block = index_ring_entry_block(entry),
			.use = index_ring_entry_use(entry),
		};
		return INDEX_RING_DONE;
	}

	return INDEX_RING_BROKEN;
}
