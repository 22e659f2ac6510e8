/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_QUEUE_BLOCK_H
#define LIBIPC_CHANNEL_QUEUE_BLOCK_H

/*
 * Of the queue's own files: blocks, their words and their room.  See queue.h.
 */

#include <ipc/error.h>

#include "libipc/channel/queue.h"
#include "libipc/platform/crash.h"

/* How often a word is looked at again because it moved on. */
#define QUEUE_TRIES_MAX (1u << 20)

/* A block as it was seen. */
struct queue_seen {
	struct queue_class_view *class;
	uint32_t block;
	uint64_t word;
};

/* A lease as the program has it: the word's use, the low bits of the attempt, and the block; all of
 * it mixed with the handle, so that another handle finds no lease of its own in it. */
#define LEASE_ATTEMPT_SHIFT 23
#define LEASE_ATTEMPT_MASK  UINT64_C(0xfff)
#define LEASE_FLAT_MASK     ((UINT64_C(1) << LEASE_ATTEMPT_SHIFT) - 1)

static inline uint64_t queue_lease_mix(const struct queue *queue, uint64_t lease)
{
	return lease ^ queue->handle_id * UINT64_C(0x9e3779b97f4a7c15);
}

/* ---- words ---- */

static inline uint64_t queue_word_make(uint32_t use, uint32_t attempt, uint32_t row,
				       enum queue_phase phase)
{
	return (uint64_t)use << QUEUE_USE_SHIFT | (uint64_t)attempt << QUEUE_ATTEMPT_SHIFT |
	       (uint64_t)row << QUEUE_ROW_SHIFT | phase;
}

/* Another holder and phase; use and attempt stay. */
static inline uint64_t queue_word_with(uint64_t word, uint32_t row, enum queue_phase phase)
{
	return queue_word_make(queue_word_use(word), queue_word_attempt(word), row, phase);
}

/* A block that becomes FREE keeps in its attempt whether this use of it was an item: 1, or came to
 * nothing: 0. */
static inline uint32_t queue_word_was_item(uint64_t word)
{
	return queue_word_phase(word) == QUEUE_LEASED || queue_word_phase(word) == QUEUE_ENDED;
}

static inline uint64_t queue_load(const struct queue_class_view *class, uint32_t block)
{
	/* [B1] What whoever stored this word wrote before is seen.  Pairs with [B2]. */
	return atomic_load_explicit(&class->word[block], memory_order_acquire);
}

static inline bool queue_swap(const struct queue_seen *seen, uint64_t to)
{
	uint64_t from = seen->word;

	/* [B2] Sequentially consistent: also the fence before the look at who sleeps, and at
	 * whether the handle is being closed. */
	return atomic_compare_exchange_strong_explicit(&seen->class->word[seen->block], &from, to,
						       memory_order_seq_cst, memory_order_relaxed);
}

/* The same, and what is seen is what was made of it. */
static inline bool queue_change(struct queue_seen *seen, uint64_t to)
{
	if (!queue_swap(seen, to))
		return false;

	seen->word = to;
	return true;
}

/* ---- blocks ---- */

/* The group that a block belongs to. */
static inline uint32_t queue_group_of(const struct queue *queue, uint32_t block)
{
	uint32_t low = 0;
	uint32_t high = queue->layout.n_groups;

	while (high - low > 1) {
		uint32_t middle = (low + high) / 2;

		if (queue->layout.group[middle].first <= block)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static inline struct queue_block *queue_block_in(const struct queue *queue,
						 const struct queue_class_view *class,
						 uint32_t group, uint32_t block)
{
	const struct queue_group *of = &queue->layout.group[group];

	return (struct queue_block *)(void *)(class->blocks + of->distance +
					      (uint64_t)(block - of->first) * of->stride);
}

static inline struct queue_block *queue_block_of(const struct queue *queue,
						 const struct queue_seen *seen)
{
	return queue_block_in(queue, seen->class, queue_group_of(queue, seen->block), seen->block);
}

static inline unsigned char *queue_block_data(struct queue_block *block)
{
	return (unsigned char *)block + sizeof(*block);
}

/* The ring names this use of the block.  Only of one that is READY does it mean that it waits. */
static inline bool queue_is_committed(const struct queue *queue, const struct queue_seen *seen)
{
	const struct queue_block *block = queue_block_of(queue, seen);

	return index_ring_holds(&seen->class->ring,
				atomic_load_explicit(&block->position, memory_order_relaxed),
				seen->block, queue_word_use(seen->word));
}

/* Nobody writes by right of the row any more.  Of a process of another pid namespace than this one
 * nothing can be told by its number. */
static inline bool queue_row_is_free(const struct queue *queue, uint32_t row)
{
	const struct rows *rows = &queue->segment->rows;

	if (queue->process == 0 && rows_owner(rows, row) != 0 && rows_process(rows, row) != 0)
		return false;

	return rows_is_free(rows, queue->table, row);
}

/* Of the block that an entry of the ring names, whether this use of it waits. */
static inline bool queue_word_waits(uint64_t word, uint32_t use)
{
	return queue_word_phase(word) == QUEUE_READY &&
	       (queue_word_use(word) & INDEX_RING_USE_MASK) == use;
}

/* As index_ring.h asks: READY in this use.  The subject is a struct queue_live. */
struct queue_live {
	struct queue *queue;
	const struct queue_class_view *class;
};
bool queue_is_live(void *subject, uint32_t block, uint32_t use);

/* ---- telling others ---- */

/* After an exchange that is a full fence. */
static inline void queue_notify(const struct queue *queue, unsigned side)
{
	if (eventcount_notify_exchanged(&queue->lines[side]) && queue->ring)
		queue->ring(queue->ring_userdata);
}

/* Returns the result for good. */
int queue_break(const struct queue *queue);

/* ---- queue_room.c ---- */

/* A free block for so many bytes, which becomes `phase` (CLAIMED or READY) of this handle with that
 * attempt.  0; IPC_EAGAIN. */
IPC_CHECKED int queue_room_take(struct queue *queue, struct queue_class_view *class, uint64_t size,
				enum queue_phase phase, uint32_t attempt, struct queue_seen *ret);

/* The block becomes FREE, if it still is as seen; tells the producers. */
bool queue_room_give(struct queue *queue, const struct queue_seen *seen);

/* The same for many: what was freed is told when the next one is of another group, and at the end.
 */
struct queue_freed {
	struct queue_class *class; /* NULL: nothing to tell */
	uint32_t group;
	uint32_t n;
	uint64_t bytes;
};
bool queue_room_free(struct queue *queue, const struct queue_seen *seen, struct queue_freed *freed);
void queue_room_tell(struct queue *queue, struct queue_freed *freed);

/* Of a block that is this handle's: fewer bytes are needed than were claimed. */
void queue_room_shrink(struct queue *queue, const struct queue_seen *seen, uint64_t size);

/* Whether queue_room_take() of the smallest item would find a block. */
bool queue_room_is_there(struct queue *queue, struct queue_class_view *class);

/* Bytes of items and claims, as the counters say. */
uint64_t queue_room_used(struct queue_class_view *class);

/* ---- queue_end.c ---- */

/* A lease of this handle goes to the dead letters, or is dropped.  False: it is not this handle's
 * any more. */
bool queue_dispose(struct queue *queue, struct queue_seen *seen, enum ipc_dead_reason reason);

/* A lease goes back, attempt + 1, or is disposed of if there were too many; of a dead one's it just
 * goes back.  False: it was not as seen any more. */
bool queue_return(struct queue *queue, struct queue_seen *seen);
bool queue_return_own(struct queue *queue, struct queue_seen *seen);

/* ENDED: counted and freed. */
void queue_finish(struct queue *queue, const struct queue_seen *seen);

/* MOVING, of somebody who is dead. */
void queue_resolve(struct queue *queue, struct queue_seen *seen);

static inline bool queue_has_too_many(const struct queue *queue, uint32_t attempt)
{
	return queue->layout.attempts_max < QUEUE_ATTEMPTS_MAX &&
	       attempt > queue->layout.attempts_max;
}

/* ---- queue_push.c ---- */

/* What an item tells beside its bytes. */
struct queue_label {
	uint64_t origin;
	uint64_t enqueued_ns;
	enum ipc_dead_reason reason;
	const char *source; /* NULL: none */
};

void queue_fill(struct queue *queue, const struct queue_seen *seen, const void *data, uint64_t size,
		const struct queue_label *label);

/* A READY block of this handle.  0; IPC_EPIPE, IPC_EBADMSG: it is not in the ring, and still READY.
 */
IPC_CHECKED int queue_add(struct queue *queue, const struct queue_seen *seen);

/* ---- queue_take.c ---- */

/* The first item of a class becomes this handle's lease.  0; IPC_EAGAIN; IPC_EBADMSG. */
IPC_CHECKED int queue_lease_first(struct queue *queue, struct queue_class_view *class,
				  struct queue_seen *ret);

#endif
