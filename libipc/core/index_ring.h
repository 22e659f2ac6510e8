/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_INDEX_RING_H
#define LIBIPC_CORE_INDEX_RING_H

/*
 * The order of things, apart from the things: a ring of words, each of which names a block and
 * which use of it.  Any number of processes add and take.  There is no lock, and no place in the
 * ring is ever held: whoever is stopped or killed at whichever instruction stops nobody.
 *
 * An entry is {lap 26, use 16, block 20, kind 2}.  Position p is entry p modulo the ring's size, in
 * lap p / size.
 *
 * kind     what it is
 * FREE     to be filled in this lap
 * FULL     names a block: the one exchange FREE -> FULL is the commit
 * CLOSED   nothing will be added any more, in this or any lap
 *
 * word     written by  rule
 * entry[]  everybody   by exchange alone: FREE(lap) -> FULL(lap) by who adds; FULL(lap) ->
 *                      FREE(lap + 1) by anybody, once the block is not in that use, or taken in
 *                      it; FREE -> CLOSED
 * tail     everybody   plainly, to one more than a position that was seen filled in its lap.  A
 *                      hint: no position below it is FREE in its lap, but it may be behind, by as
 *                      much as whoever stored it was stopped before; who reads it goes on there
 * head     everybody   the same, of positions that were freed: no position below it is FULL in its
 *                      lap
 *
 * There are more entries than blocks, and an entry whose block has moved on is freed by
 * whoever comes across it, so the ring is never full.  Laps come round after 2^26: a process that
 * is stopped between reading an entry and exchanging it for as long as 2^26 laps, to the entry,
 * would put its block at another place in the order.
 *
 * What is named is not followed here: whether {block, use} is still to be had says the caller.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/crash.h"

#define INDEX_RING_BLOCK_BITS 20
#define INDEX_RING_BLOCKS_MAX (UINT32_C(1) << INDEX_RING_BLOCK_BITS)
#define INDEX_RING_USE_MASK   UINT32_C(0xffff)

enum index_ring_result {
	INDEX_RING_DONE,
	INDEX_RING_EMPTY,
	INDEX_RING_CLOSED, /* and empty */
	INDEX_RING_BROKEN
};

struct index_ring_words {
	_Alignas(64) _Atomic uint64_t tail;
	uint64_t reserved0[7];
	_Alignas(64) _Atomic uint64_t head;
	uint64_t reserved1[7];
};
ASSERT_SIZE(struct index_ring_words, 128);

/* One process's view. */
struct index_ring {
	struct index_ring_words *words;
	_Atomic uint64_t *entry;
	uint64_t mask;
	unsigned bits; /* size is 1 << bits */
};

/* What a position holds. */
struct index_ring_item {
	uint64_t position;
	uint64_t entry;
	uint32_t block;
	uint32_t use; /* low bits of it */
};

/* Whether {block, use} is still in the ring to be taken: an entry that names another is freed. */
typedef bool (*index_ring_is_live_fn)(void *subject, uint32_t block, uint32_t use);

/* How many entries a ring for so many blocks has: a power of two, more than blocks, at least 64. */
uint64_t index_ring_size(uint32_t n_blocks);

/* By the creator of the channel; for views of rings that have been made: index_ring_attach(). */
void index_ring_make(struct index_ring_words *words, _Atomic uint64_t *entry, uint64_t size);
void index_ring_attach(struct index_ring *ret, struct index_ring_words *words,
		       _Atomic uint64_t *entry, uint64_t size);

/* Nothing is added any more after it returns.  May be done any number of times.  DONE or BROKEN. */
enum index_ring_result index_ring_close(struct index_ring *ring, index_ring_is_live_fn is_live,
					void *subject);

/* How many were ever added. */
uint64_t index_ring_n_added(struct index_ring *ring);

/* ---- entries ---- */

#define INDEX_RING_BLOCK_SHIFT 2
#define INDEX_RING_USE_SHIFT   22
#define INDEX_RING_LAP_SHIFT   38

enum index_ring_kind { INDEX_RING_FREE = 0, INDEX_RING_FULL = 1, INDEX_RING_SHUT = 2 };

static inline enum index_ring_kind index_ring_entry_kind(uint64_t entry)
{
	return (enum index_ring_kind)(entry & 3);
}

static inline uint32_t index_ring_entry_block(uint64_t entry)
{
	return (uint32_t)(entry >> INDEX_RING_BLOCK_SHIFT) & (INDEX_RING_BLOCKS_MAX - 1);
}

static inline uint32_t index_ring_entry_use(uint64_t entry)
{
	return (uint32_t)(entry >> INDEX_RING_USE_SHIFT) & INDEX_RING_USE_MASK;
}

/* FREE in the lap of that position: all other bits are 0, and a lap's upper bits fall out. */
static inline uint64_t index_ring_entry_free(const struct index_ring *ring, uint64_t position)
{
	return position >> ring->bits << INDEX_RING_LAP_SHIFT;
}

static inline uint64_t index_ring_entry_full(const struct index_ring *ring, uint64_t position,
					     uint32_t block, uint32_t use)
{
	return index_ring_entry_free(ring, position) |
	       (uint64_t)(use & INDEX_RING_USE_MASK) << INDEX_RING_USE_SHIFT |
	       (uint64_t)block << INDEX_RING_BLOCK_SHIFT | INDEX_RING_FULL;
}

/* How many laps an entry is ahead of a position: laps run in a circle, and what counts is which of
 * the two ways round is the shorter one. */
static inline int64_t index_ring_entry_ahead(const struct index_ring *ring, uint64_t entry,
					     uint64_t position)
{
	uint64_t ahead = (entry >> INDEX_RING_LAP_SHIFT) - (position >> ring->bits);

	return (int64_t)(ahead << INDEX_RING_LAP_SHIFT) >> INDEX_RING_LAP_SHIFT;
}

static inline uint64_t index_ring_load(const struct index_ring *ring, uint64_t position)
{
	/* [N1] What was written before it was committed is seen.  Pairs with [N2]. */
	return atomic_load_explicit(&ring->entry[position & ring->mask], memory_order_acquire);
}

static inline bool index_ring_swap(const struct index_ring *ring, uint64_t position, uint64_t from,
				   uint64_t to)
{
	/* [N2] Sequentially consistent: also the fence between the commit and the look at who
	 * sleeps. */
	return atomic_compare_exchange_strong_explicit(&ring->entry[position & ring->mask], &from,
						       to, memory_order_seq_cst,
						       memory_order_relaxed);
}

/* head or tail: past this position, which is filled or freed. */
static inline void index_ring_advance(_Atomic uint64_t *word, uint64_t position)
{
	/* [N3] Whoever goes on from there sees what was there.  Pairs with [N4]. */
	atomic_store_explicit(word, position + 1, memory_order_release);
}

static inline uint64_t index_ring_place(const _Atomic uint64_t *word)
{
	/* [N4] Pairs with [N3]. */
	return atomic_load_explicit(word, memory_order_acquire);
}

/* ---- the end ---- */

/* Where the first look at the tail was not enough. */
enum index_ring_result index_ring_add_on(struct index_ring *ring, uint32_t block, uint32_t use,
					 _Atomic uint64_t *position, index_ring_is_live_fn is_live,
					 void *subject);

/*
 * Adds at the end.  *position is written before each attempt, so that a block can be found in the
 * ring whatever happens to who adds it.  DONE; CLOSED: it is not in the ring; BROKEN.
 */
static inline enum index_ring_result index_ring_add(struct index_ring *ring, uint32_t block,
						    uint32_t use, _Atomic uint64_t *position,
						    index_ring_is_live_fn is_live, void *subject)
{
	uint64_t tail = index_ring_place(&ring->words->tail);
	uint64_t entry = index_ring_load(ring, tail);

	if (UNLIKELY(entry != index_ring_entry_free(ring, tail)))
		return index_ring_add_on(ring, block, use, position, is_live, subject);

	atomic_store_explicit(position, tail, memory_order_relaxed);
	CRASH_POINT();
	if (UNLIKELY(!index_ring_swap(ring, tail, entry,
				      index_ring_entry_full(ring, tail, block, use))))
		return index_ring_add_on(ring, block, use, position, is_live, subject);

	CRASH_POINT();
	index_ring_advance(&ring->words->tail, tail);
	return INDEX_RING_DONE;
}

/* ---- the begin ---- */

enum index_ring_result index_ring_peek_on(struct index_ring *ring, struct index_ring_item *ret);

/* The first position that is FULL, whatever it names.  DONE, EMPTY, CLOSED or BROKEN. */
static inline enum index_ring_result index_ring_peek(struct index_ring *ring,
						     struct index_ring_item *ret)
{
	uint64_t head = index_ring_place(&ring->words->head);
	uint64_t entry = index_ring_load(ring, head);
	uint64_t free = index_ring_entry_free(ring, head);

	if (entry == free)
		return INDEX_RING_EMPTY;
	if (UNLIKELY((entry ^ free) >> INDEX_RING_LAP_SHIFT ||
		     index_ring_entry_kind(entry) != INDEX_RING_FULL))
		return index_ring_peek_on(ring, ret);

	*ret = (struct index_ring_item){
		.position = head,
		.entry = entry,
		.block = index_ring_entry_block(entry),
		.use = index_ring_entry_use(entry),
	};
	return INDEX_RING_DONE;
}

/* Whether the position still holds what was seen there: what was looked at since is about that. */
static inline bool index_ring_is_still(const struct index_ring *ring,
				       const struct index_ring_item *item)
{
	return index_ring_load(ring, item->position) == item->entry;
}

/* The block that a position names, or would: a hint of what comes. */
static inline uint32_t index_ring_block_at(const struct index_ring *ring, uint64_t position)
{
	return index_ring_entry_block(
		atomic_load_explicit(&ring->entry[position & ring->mask], memory_order_relaxed));
}

/* What it names was taken, or has moved on: the next one is the first. */
static inline void index_ring_pop(struct index_ring *ring, const struct index_ring_item *item)
{
	(void)index_ring_swap(ring, item->position, item->entry,
			      index_ring_entry_free(ring, item->position + ring->mask + 1));
	CRASH_POINT();
	index_ring_advance(&ring->words->head, item->position);
}

/* Whether that position holds {block, use}. */
static inline bool index_ring_holds(const struct index_ring *ring, uint64_t position,
				    uint32_t block, uint32_t use)
{
	return index_ring_load(ring, position) == index_ring_entry_full(ring, position, block, use);
}

#endif
