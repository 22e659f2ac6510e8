/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_QUEUE_H
#define LIBIPC_CHANNEL_QUEUE_H

/*
 * The structure of the kind `queue`.  Storage and order are separate: items stand in blocks, each
 * of which has one word that says whose it is; the order of a class (of a priority) is a ring of
 * the numbers of blocks (core/index_ring.h), and the exchange of one entry of it is the commit.
 * There is no lock: a producer that is stopped or dead holds one block, and nothing else.
 *
 * The word of a block is {use 29, attempt 20, row 12, phase 3}; use grows each time the block
 * becomes FREE, so a value never comes again; row (core/rows.h) names a handle.
 *
 * phase     whose it is                              goes to
 * FREE      nobody's; attempt is 1 if its last use   CLAIMED, READY: whoever needs a block
 *           was an item, 0 if it came to nothing
 * CLAIMED   an open claim of the program of `row`    READY: commit; FREE: abort, close
 * READY     being pushed by `row`; or, once the      LEASED: whoever takes it; FREE: `row`, whose
 *           ring names this use, a waiting item      push came to nothing
 * LEASED    a taker's, `row`                         FREE: ack; RETURNED: requeue; ENDED: reject
 *                                                    without dead letters; MOVING: with them
 * RETURNED  a waiting item again, before all others  LEASED
 * MOVING    its copy is being committed in the dead  ENDED
 *           letters, by `row`
 * ENDED     dead-lettered or dropped; row is         FREE: by whoever counts it, or comes across
 *           {kind, reason}
 *
 * A dead row (its handle is not open in the liveness table) is swept by the next one who calls and
 * sees that the broker has told something:
 * - LEASED becomes RETURNED with attempt + 1.  Whoever meets a RETURNED block with more attempts
 *   than there may be sends it to the dead letters.
 * - CLAIMED, and READY that is not in the ring, become FREE when the process is gone, and not only
 *   held dead: it may be writing there.
 * - MOVING: if its copy is not in the dead letters, RETURNED, as LEASED; if it is, ENDED; if that
 *   cannot be told (its block there has been used again since, or the mover is held dead but runs),
 *   RETURNED: it may come to the dead letters twice, the second time with attempt 2.
 * Each is one exchange of the word, so it does not matter who does it, or how often.
 *
 * A death between any two instructions of
 * push      before the entry's exchange: a block that is swept.  After it: the item is committed;
 *           the broker wakes those who may have missed the wake.  A rate token may be spent for
 *           nothing.
 * take      before the word's exchange: nothing.  After it: a lease of the dead.  The entry is
 *           freed by the next one who looks at the head.
 * ack       before the word's exchange: a lease of the dead.  After it: it has happened; the bytes
 *           may not have been given back (below), and the broker wakes those who wait for room.
 * ending    (reject, too many attempts) LEASED -> ENDED is what happens.  Then the count, then
 *           FREE, by anybody.  The counter's word is {value 44, block + 1 20}: who counts first
 *           frees the block that the word names, then exchanges it for {value + 1, own block},
 *           then frees its own.  So of an ENDED block it can be told whether it was counted: the
 *           word names it, or not.
 * moving    the copy is claimed in the dead letters, and named in `target`; LEASED -> MOVING; the
 *           copy is committed there; MOVING -> ENDED.
 * refusing  (a push into a full class, with dead letters) the copy is committed there; then it is
 *           counted.  In between, one more is in the dead letters than was counted.
 *
 * Room.  Each class has items_max blocks.  The k-th largest has room for bytes_max / k bytes (and
 * no more than item_size_max), so whatever n items of one size the two bounds allow find n blocks,
 * and so does any number of items that come without others going.  The smallest fitting blocks are
 * used first.  Sizes are rounded up to four steps an octave, so that blocks of a size stand in
 * groups.  Where items_max items of any size are within bytes_max nothing is counted.  Else bytes
 * are counted by two numbers that only grow: claimed (by producers, after a block was taken) and
 * freed_bytes (after a block was freed).  A death between the two steps leaves bytes claimed
 * that nobody has; who finds the class full after a death compares with the blocks and corrects it.
 *
 * field          written by          rule
 * fairness       any consumer        {run_max 32, slice in units of 256 ns 32}, stored whole
 * run            consumers           {of 16, turn 16, count 32}: items taken in a row while a lower
 *                                    class waited; which class had its turn last; which was taken
 *                                    last.  A hint of fairness: by exchange, after the take
 * run_since      consumers           CLOCK_MONOTONIC ns of the first of them, if there is a slice
 * bucket         who spends a token  when the bucket will be full again, CLOCK_MONOTONIC in units
 *                                    of 1/64 ns; by exchange
 * claimed        producers           by exchange: bytes, with the bound checked
 * claimed_max    producers           most bytes in use ever; a hint
 * suspect        sweepers            1: bytes may have been lost by a death
 * returned       who returns         + 1 after each return.  Takers look for RETURNED blocks if it
 *                                    is not returned_seen
 * returned_seen  takers              the value before a search that found none; by exchange
 * ends[][]       as above            [0] dead-lettered, [1] dropped; by reason
 * full[]         producers           the same for items that were refused: + 1
 * freed[]        who frees, sweeps   by group: + 1 after a block became free, or may have: what was
 *                                    found full before is looked at again
 * freed_bytes    who frees           + bytes after a block became free, where bytes are counted
 * cursor[]       producers           by group: where to look for a free block; a hint
 * word[]         as above            by exchange alone
 * block          whoever it belongs  while CLAIMED, or READY and not committed; `since`, `reason`
 *                to                  and `target` while LEASED
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/queue.h>

#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/index_ring.h"
#include "libipc/core/liveness.h"
#include "libipc/core/rows.h"
#include "libipc/platform/compiler.h"

/* Of the lines. */
enum { QUEUE_SIDE_PRODUCERS = 0, QUEUE_SIDE_CONSUMERS = 1 };

#define QUEUE_ITEMS_MAX    (INDEX_RING_BLOCKS_MAX - 1) /* of a class */
#define QUEUE_BYTES_MAX    (UINT64_C(1) << 40)         /* of a class */
#define QUEUE_ATTEMPTS_MAX ((UINT32_C(1) << 20) - 1)   /* attempts_max from here on: no bound */
#define QUEUE_GROUPS_MAX   100
#define QUEUE_NAME_SIZE    256

/*
 * shape[0] items_max | priorities << 32; [1] bytes_max; [2] item_size_max | attempts_max << 32;
 * [3] rate | burst << 32, both 0: unlimited.
 */

enum queue_phase {
	QUEUE_FREE = 0,
	QUEUE_CLAIMED,
	QUEUE_READY,
	QUEUE_LEASED,
	QUEUE_RETURNED,
	QUEUE_MOVING,
	QUEUE_ENDED
};

#define QUEUE_ROW_SHIFT     3
#define QUEUE_ATTEMPT_SHIFT 15
#define QUEUE_USE_SHIFT     35

static inline enum queue_phase queue_word_phase(uint64_t word)
{
	return (enum queue_phase)(word & 7);
}

static inline uint32_t queue_word_row(uint64_t word)
{
	return (uint32_t)(word >> QUEUE_ROW_SHIFT) & (ROWS_MAX - 1);
}

static inline uint32_t queue_word_attempt(uint64_t word)
{
	return (uint32_t)(word >> QUEUE_ATTEMPT_SHIFT) & QUEUE_ATTEMPTS_MAX;
}

static inline uint32_t queue_word_use(uint64_t word)
{
	return (uint32_t)(word >> QUEUE_USE_SHIFT);
}

/* In front of an item's bytes.  Behind them is room for a name. */
struct queue_block {
	_Alignas(64) _Atomic uint64_t
		position;        /* in the ring, of this use's last attempt to commit */
	_Atomic uint64_t charge; /* bytes claimed for it; 0: none, or not yet */
	_Atomic uint64_t size;
	_Atomic uint64_t origin;
	_Atomic uint64_t enqueued_ns;
	_Atomic uint64_t since; /* claimed or taken, CLOCK_MONOTONIC ns: for people */
	_Atomic uint64_t
		target; /* MOVING: use 29 | block 23 << 29 | generation 12 << 52 of the copy */
	_Atomic uint32_t reason; /* enum ipc_dead_reason */
	_Atomic uint32_t
		source_size; /* of the name of the queue it came from, with its 0; 0: none */
};
ASSERT_SIZE(struct queue_block, 64);

/* Low bits of a counter of ends: block + 1 of what was counted last. */
#define QUEUE_ENDS_NAME_BITS 20

struct queue_class {
	struct index_ring_words ring;
	_Alignas(64) _Atomic uint64_t claimed;
	_Atomic uint64_t claimed_max;
	_Atomic uint32_t suspect;
	uint32_t reserved0[11];
	_Alignas(64) _Atomic uint64_t returned;
	_Atomic uint64_t returned_seen;
	_Atomic uint64_t freed_bytes;
	uint64_t reserved1[5];
	_Alignas(64) _Atomic uint64_t ends[2][IPC_DEAD_REASONS_MAX];
	_Atomic uint64_t full[2];
	uint64_t reserved2[6];
	_Alignas(64) _Atomic uint64_t freed[QUEUE_GROUPS_MAX];
	_Alignas(64) _Atomic uint32_t cursor[QUEUE_GROUPS_MAX];
};

struct queue_segment {
	struct channel_header header;
	_Alignas(64) _Atomic uint64_t fairness;
	_Atomic uint64_t run;
	_Atomic uint64_t run_since;
	uint64_t reserved0[5];
	_Alignas(64) _Atomic uint64_t bucket;
	uint64_t reserved1[7];
	struct rows rows;
	struct queue_class class[IPC_PRIORITIES_MAX];
	/* Then, by class: words, entries of the ring, blocks; struct queue_layout says where. */
};

/* Blocks of one size. */
struct queue_group {
	uint32_t first; /* block; number 0 is the largest */
	uint32_t n;
	uint64_t stride;   /* bytes from block to block */
	uint64_t room;     /* bytes of an item that fit */
	uint64_t distance; /* bytes of the first block from the class's blocks */
};

/* What follows from the shape; private memory of everybody who looks at a queue. */
struct queue_layout {
	uint32_t n_classes;
	uint32_t items_max;
	uint64_t bytes_max;
	uint64_t item_size_max;
	uint32_t attempts_max;
	uint32_t rate, burst;
	uint32_t n_groups;
	struct queue_group group[QUEUE_GROUPS_MAX]; /* falling sizes */
	uint64_t ring_size;
	uint64_t words, entries, blocks; /* bytes from the start of a class's part */
	uint64_t first_class;            /* bytes from the start of the segment */
	uint64_t class_size;             /* bytes of a class's part */
	uint64_t size;                   /* of the segment, not rounded to pages */
};

/* What one process knows of a class. */
struct queue_class_view {
	struct queue_class *shared;
	struct index_ring ring;
	_Atomic uint64_t *word;
	unsigned char *blocks;
	_Atomic uint64_t freed; /* freed_bytes when it was last looked at */
	_Atomic uint64_t
		full_seen[QUEUE_GROUPS_MAX]; /* ~freed[] when the group was found full; 0: not */
};

/* One handle's view, private to the process. */
struct queue {
	struct queue_segment *segment;
	struct queue_layout layout;
	struct queue_class_view class[IPC_PRIORITIES_MAX];
	bool bytes_bind; /* items_max of the largest items are more than bytes_max */
	uint64_t handle_id;
	uint32_t row;
	_Atomic uint32_t swept; /* the attention word when dead rows were last looked for */

	/* Of dead rows whose process was not gone then: since when, and when to look again.  0:
	 * there were none. */
	_Atomic uint64_t lingers_since, lingers_until;

	/* Given by the owner after attach, before queue_begin(). */
	const struct liveness_table *table;
	const _Atomic uint32_t *attention; /* of this client, in that table */
	uint32_t channel_slot;
	uint64_t generation;
	uint32_t process;             /* getpid(); 0: of another pid namespace than the broker's */
	struct eventcount *lines;     /* [QUEUE_SIDE_...] */
	struct queue *dead;           /* the dead letters; NULL: none */
	const char *name;             /* as the dead letters tell it */
	void (*ring)(void *userdata); /* as struct flight's; NULL: nobody is ever armed */
	void *ring_userdata;
};

/* ---- queue_layout.c ---- */

/* Whether bytes have to be counted: items_max of the largest items are more than bytes_max. */
static inline bool queue_counts_bytes(const struct queue_layout *layout)
{
	return layout->items_max * layout->item_size_max > layout->bytes_max;
}

/* False: no such shape. */
bool queue_layout(struct queue_layout *ret, const uint64_t shape[4]);

/* Bytes of a segment, not rounded to pages.  0: no such shape. */
uint64_t queue_segment_size(const uint64_t shape[4]);

/* As the other kinds': over zero bytes or what a creator left that died in here. */
IPC_CHECKED int queue_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* 0; IPC_EBADMSG; IPC_EPROTONOSUPPORT. */
IPC_CHECKED int queue_attach(struct queue *ret, void *segment, uint64_t size,
			     const uint64_t shape[4], uint64_t handle_id);

/* ---- queue.c: both roles ---- */

/* Takes a row.  0; IPC_ENOSPC: none is left; IPC_ESTALE: this handle is held dead. */
IPC_CHECKED int queue_begin(struct queue *queue);

/*
 * Of a handle that is being closed: its leases go back, its claims vanish.  Threads that are inside
 * of it still may hold more: they look at `closing` after what they did, and do this again.  The
 * row is given back by queue_end(), when nobody is inside any more.
 */
void queue_give_back(struct queue *queue);
void queue_end(struct queue *queue);

/* What the dead held, if the broker has told something since the last time. */
void queue_sweep_now(struct queue *queue);

static inline void queue_sweep(struct queue *queue)
{
	if (UNLIKELY(atomic_load_explicit(queue->attention, memory_order_relaxed) !=
			     atomic_load_explicit(&queue->swept, memory_order_relaxed) ||
		     atomic_load_explicit(&queue->lingers_until, memory_order_relaxed) != 0))
		queue_sweep_now(queue);
}

/* Of who has seen an end in the table: the attention word tells it a moment later. */
void queue_sweep_anyway(struct queue *queue);

/*
 * The broker hears of a process's end some microseconds before the process is gone, and only then
 * its claims are room.  Who waits for room looks again then: nobody tells it.  CLOCK_FOREVER: there
 * is no such process.
 */
static inline uint64_t queue_linger_due_ns(const struct queue *queue)
{
	uint64_t until_ns = atomic_load_explicit(&queue->lingers_until, memory_order_relaxed);

	return until_ns ? until_ns : UINT64_MAX;
}

/* ---- queue_push.c: producers ---- */

/* 0; IPC_EINVAL: no such priority; IPC_EMSGSIZE. */
IPC_CHECKED int queue_check(const struct queue *queue, unsigned priority, uint64_t size);

/* Never sleeps.  0; IPC_EAGAIN: no room, or *ret_due_ns is not CLOCK_FOREVER: no token before then;
 * IPC_EPIPE: shut down; IPC_EBADMSG. */
IPC_CHECKED int queue_push(struct queue *queue, unsigned priority, const void *data, uint64_t size,
			   uint64_t *ret_due_ns);

/* One that was refused for want of room.  IPC_DEAD_LETTERED or IPC_DROPPED, counted. */
int queue_push_refused(struct queue *queue, unsigned priority, const void *data, uint64_t size,
		       enum ipc_full_policy policy);

/* 0; IPC_EAGAIN: no room; IPC_EPIPE: shut down; IPC_EBADMSG.  size 0: *ret_data is not NULL. */
IPC_CHECKED int queue_claim(struct queue *queue, unsigned priority, uint64_t size, void **ret_data);

/* 0; IPC_EAGAIN: no token before *ret_due_ns; IPC_EINVAL: no open claim of this handle;
 * IPC_EMSGSIZE; IPC_EPIPE.  Unless it is 0 the claim stays open. */
IPC_CHECKED int queue_commit(struct queue *queue, void *data, uint64_t size, uint64_t *ret_due_ns);

/* 0; IPC_EINVAL. */
IPC_CHECKED int queue_abort(struct queue *queue, void *data);

/* Whether the smallest item could be pushed, of any priority: 0; IPC_EAGAIN, with *ret_due_ns;
 * IPC_EPIPE; IPC_EBADMSG.  Changes nothing. */
IPC_CHECKED int queue_probe_room(struct queue *queue, uint64_t *ret_due_ns);

/* The unkept queue has lost its last consumer: all that waits goes to the dead letters. */
void queue_abandon(struct queue *queue);

/* ---- queue_take.c: consumers ---- */

/* 0; IPC_EAGAIN: nothing waits; IPC_EPIPE: and nothing will, it is shut down; IPC_EBADMSG. */
IPC_CHECKED int queue_take(struct queue *queue, struct ipc_queue_item *ret);

/* 0; IPC_ESTALE: no lease of this handle, or not any more. */
IPC_CHECKED int queue_ack(struct queue *queue, uint64_t lease);
/* How many were acknowledged before the first that was not, or its error if none; n is at least 1.
 */
IPC_CHECKED int queue_ack_many(struct queue *queue, const struct ipc_queue_item *items, unsigned n);
IPC_CHECKED int queue_requeue(struct queue *queue, uint64_t lease);
IPC_CHECKED int queue_reject(struct queue *queue, uint64_t lease);

/* Whether queue_take() would give an item: 0, IPC_EAGAIN, IPC_EPIPE, IPC_EBADMSG. */
IPC_CHECKED int queue_probe_item(struct queue *queue);

/* Nothing is committed any more after it returns. */
IPC_CHECKED int queue_shutdown(struct queue *queue);
void queue_set_fairness(struct queue *queue, const struct ipc_queue_fairness *fairness);

/* ---- queue_state.c ---- */

/* ret->size is not written.  0; IPC_EBADMSG. */
IPC_CHECKED int queue_get_state(struct queue *queue, struct ipc_queue_state *ret);

static inline struct eventcount *queue_line(const struct queue *queue, unsigned side)
{
	return &queue->lines[side];
}

#endif
