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

/*
 * Adds at the end.  *position is written before each attempt, so that a block can be found in the
 * ring whatever happens to who adds it.  DONE; CLOSED: it is not in the ring; BROKEN.
 */
enum index_ring_result index_ring_add(struct index_ring *ring, uint32_t block, uint32_t use,
				      _Atomic uint64_t *position, index_ring_is_live_fn is_live,
				      void *subject);

/* The first position that is FULL, whatever it names.  DONE, EMPTY, CLOSED or BROKEN. */
enum index_ring_result index_ring_peek(struct index_ring *ring, struct index_ring_item *ret);

/* Whether the position still holds what was seen there: what was looked at since is about that. */
static inline bool index_ring_is_still(const struct index_ring *ring,
				       const struct index_ring_item *item)
{
	return atomic_load_explicit(&ring->entry[item->position & ring->mask],
				    memory_order_acquire) == item->entry;
}

/* The block that a position names, or would: a hint of what comes. */
static inline uint32_t index_ring_block_at(const struct index_ring *ring, uint64_t position)
{
	return (uint32_t)(atomic_load_explicit(&ring->entry[position & ring->mask],
					       memory_order_relaxed) >>
			  2) &
	       (INDEX_RING_BLOCKS_MAX - 1);
}

/* What it names was taken, or has moved on: the next one is the first. */
void index_ring_pop(struct index_ring *ring, const struct index_ring_item *item);

/* Whether that position holds {block, use}. */
bool index_ring_holds(const struct index_ring *ring, uint64_t position, uint32_t block,
		      uint32_t use);

/* Nothing is added any more after it returns.  May be done any number of times.  DONE or BROKEN. */
enum index_ring_result index_ring_close(struct index_ring *ring, index_ring_is_live_fn is_live,
					void *subject);

/* How many were ever added. */
uint64_t index_ring_n_added(struct index_ring *ring);

#endif
