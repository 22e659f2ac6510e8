/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_RING_H
#define LIBIPC_CORE_RING_H

/*
 * A ring of records for one producer and one consumer, in place at both ends, that outlives both.
 *
 * Positions count units of 16 bytes and wrap at 2^40.  A record is a head of one unit, its bytes,
 * and is contiguous: the memory has as many bytes behind its end as the longest record, into which
 * the last record of a lap runs over; the next one then begins as far after the start.
 *
 *     tail                    received             head          end
 *      | held: received, not   | committed          | claims      |  room
 *      | released              |                    | open        |
 *
 * field       written by         rule
 * head        producer           {tag, state, position}: one exchange of it publishes
 * tail        consumer           {tag, state, position}: one exchange of it releases
 * received[]  consumer           how far it got, in the slot of its tag's lowest bit; a hint.  The
 *                                next one sets RING_RECEIVED_CLOSED there
 * limit[]     producer           {tag, position}: as far as it may write; before it does.  In the
 *                                slot of its tag's lowest bit
 * teller      who takes it       {tag, ring_owner_handle()} of the last one who told a limit; no
 *                                handle once it has left
 * strays      producer           memory behind the tail or before the head that is claimed yet
 * producer    who takes the end  ring_owner(): its handle and process; 0: nobody's
 * consumer    the same
 * ban[]       who takes the      memory that a producer which was taken over may still write
 *             producer's end
 *
 * A record's head is written before it is published, and with it the head of the record that will
 * come after it, of which only the number stands then.  So at each position between records from
 * tail to head the number is that of the next record, and tail and head say alone what was released
 * and what was sent.  One unit stays free for that.
 *
 * Deaths: the producer between any two of its stores before the exchange of `head` has published
 * nothing, and what it wrote is written again; after it all is done but the wake.  The same for the
 * consumer and `tail`.
 *
 * Ends are taken over also from the living (a session's resume; a process that is held dead).  The
 * tag in head and tail grows with that, so an exchange by the one before fails, however late.  But
 * he may be filling a claim right now, and go on with it.  So the taker bans all that he had
 * claimed (between head and limit) until he is gone: the stream jumps over it once (`from` to
 * `to`), and on later laps the producer puts holes there.  [R1] the claimer stores limit, then
 * looks at the tag; [R2] the taker changes the tag, has every processor pass a fence, then reads
 * limit: one of the two sees the other.  Who dies while taking over leaves its ban without a range,
 * which the next one completes before it writes anything.  Whoever claims has told a limit, and has
 * completed the bans of those before it first; so of bans without a range only that of the last
 * teller gets one, and the others are given back.
 *
 * An owner that leaves may be banned after that, by a taker that saw it before.  So it takes its
 * name off `teller` first, and then [R10] looks at who has banned it: [R2] the taker's ban is seen
 * there, or that it has left is seen by the taker.
 *
 * Claims are private to the producing process, and vanish with it.  Records stand in the order of
 * commits: one that is committed before an earlier claim leaves a hole over that; what was claimed
 * there is copied when it is committed, into room that was kept for it.  Such strays are told as
 * one stretch, and banned with the rest; where that leaves no place for the longest record, the end
 * is refused to everybody until he is gone.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "include/ipc/client.h"
#include "include/ipc/error.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/process.h"

#define RING_UNIT         16
#define RING_BANS_MAX     4
#define RING_CAPACITY_MAX (UINT64_C(1) << 30)
#define RING_RECORD_MAX   (UINT64_C(1) << 28)

/* ---- words ---- */

#define RING_POSITION_BITS 40
#define RING_POSITION_MASK ((UINT64_C(1) << RING_POSITION_BITS) - 1)
#define RING_STATE_SHIFT   40
#define RING_STATE_MASK    UINT64_C(0xf)
#define RING_TAG_SHIFT     44
#define RING_TAG_MASK      UINT64_C(0xfffff)

static inline uint64_t ring_word(uint64_t tag, uint64_t state, uint64_t position)
{
	return (tag & RING_TAG_MASK) << RING_TAG_SHIFT |
	       (state & RING_STATE_MASK) << RING_STATE_SHIFT | (position & RING_POSITION_MASK);
}

/* Lowest bits of the tag, first unit of a lap, how many. */
#define RING_STRAYS_BITS 26
#define RING_STRAYS_MASK ((UINT64_C(1) << RING_STRAYS_BITS) - 1)

static inline uint64_t ring_strays(uint64_t tag, uint64_t from, uint64_t units)
{
	return tag << 2 * RING_STRAYS_BITS | (from & RING_STRAYS_MASK) << RING_STRAYS_BITS |
	       (units & RING_STRAYS_MASK);
}

/* Whether they are what the one of this tag has told. */
static inline bool ring_strays_are_of(uint64_t strays, uint64_t tag)
{
	return (strays ^ ring_strays(tag, 0, 0)) >> 2 * RING_STRAYS_BITS == 0;
}

static inline uint64_t ring_position(uint64_t word)
{
	return word & RING_POSITION_MASK;
}

static inline unsigned ring_state(uint64_t word)
{
	return (unsigned)(word >> RING_STATE_SHIFT & RING_STATE_MASK);
}

static inline uint64_t ring_tag(uint64_t word)
{
	return word >> RING_TAG_SHIFT;
}

/* How far `to` is after `from`, in units. */
static inline uint64_t ring_distance(uint64_t from, uint64_t to)
{
	return (to - from) & RING_POSITION_MASK;
}

static inline uint64_t ring_units(uint64_t bytes)
{
	return (bytes + RING_UNIT - 1) / RING_UNIT;
}

/*
 * Who has an end, in one word: slot and lowest bits of the handle's number, which grow, and the
 * process (0: of another pid namespace, or not known).
 */
static inline uint64_t ring_owner(uint64_t handle_id, uint32_t process)
{
	return (handle_id >> 16 & 0x3ffffff) << 38 | (handle_id & 0xffff) << 22 |
	       (process & 0x3fffff);
}

static inline uint32_t ring_owner_slot(uint64_t owner)
{
	return owner >> 22 & 0xffff;
}

static inline uint32_t ring_owner_process(uint64_t owner)
{
	return owner & 0x3fffff;
}

/* The same without the process. */
static inline uint64_t ring_owner_handle(uint64_t owner)
{
	return owner >> 22;
}

/* Who tells a limit. */
static inline uint64_t ring_teller(uint64_t tag, uint64_t owner)
{
	return (tag & RING_TAG_MASK) << RING_TAG_SHIFT | ring_owner_handle(owner);
}

static inline bool ring_teller_is(uint64_t teller, uint64_t owner)
{
	return teller << (64 - RING_TAG_SHIFT) == ring_owner_handle(owner) << (64 - RING_TAG_SHIFT);
}

/* ---- in the segment ---- */

/* What a record is.  Types from 2 on are the user's. */
#define RING_NOTHING 0u
#define RING_HOLE    1u

/* In the state of `received`: the bit is the ring's, the others are the user's. */
#define RING_RECEIVED_CLOSED 2u

struct ring_record {
	/* bits 0..7 type, 8..15 flags, 16..47 size in bytes (of a hole: units), 48..63 extra */
	_Atomic uint64_t what;
	_Atomic uint64_t number;
	unsigned char bytes[];
};
ASSERT_SIZE(struct ring_record, RING_UNIT);

struct ring_ban {
	_Atomic uint64_t who;  /* ring_owner(); 0: free */
	_Atomic uint64_t from; /* position, and bits of `who` above it */
	_Atomic uint64_t to;   /* the same; other bits: it is not known yet */
	_Atomic uint64_t left; /* equal to `who`: he has left, the memory is free */
};

struct ring {
	_Alignas(64) _Atomic uint64_t head;
	_Alignas(64) _Atomic uint64_t tail;
	_Atomic uint64_t received[2];
	_Alignas(64) _Atomic uint64_t limit[2];
	_Atomic uint64_t depth_max; /* units */
	_Atomic uint64_t teller;
	_Atomic uint64_t strays; /* ring_strays() */
	_Alignas(64) _Atomic uint64_t producer;
	_Atomic uint64_t consumer;
	_Atomic uint32_t n_bans; /* slots of ban[] that were ever used */
	uint32_t reserved;
	_Alignas(64) struct ring_ban ban[RING_BANS_MAX];
};
ASSERT_SIZE(struct ring, 64 * 6);

/* Bytes of the memory for a ring of `capacity` bytes whose records have up to record_max bytes.
 * 0: not legal. */
uint64_t ring_data_size(uint64_t capacity, uint64_t record_max);

/* Empty; the first record's number. */
void ring_init(struct ring *ring, void *data, uint64_t number);

/* ---- private ---- */

/* As mapped; sizes are the caller's own copies, checked. */
struct ring_view {
	struct ring *ring;
	unsigned char *data;
	uint64_t mask;      /* units of the memory's lap, less one */
	uint64_t capacity;  /* units that may be in use */
	uint64_t units_max; /* of the longest record */
	bool is_stranger;   /* of a producer of another pid namespace than the owners' numbers */
};

/* IPC_EINVAL: sizes that ring_data_size() refuses; IPC_EBADMSG. */
IPC_CHECKED int ring_attach(struct ring_view *view, struct ring *ring, void *data,
			    uint64_t capacity, uint64_t record_max);

static inline struct ring_record *ring_at(const struct ring_view *view, uint64_t position)
{
	return (struct ring_record *)(view->data + (position & view->mask) * RING_UNIT);
}

static inline unsigned ring_type_of(uint64_t what)
{
	return (unsigned)(what & 0xff);
}

static inline unsigned ring_flags_of(uint64_t what)
{
	return (unsigned)(what >> 8 & 0xff);
}

static inline uint64_t ring_size_of(uint64_t what)
{
	return what >> 16 & UINT32_MAX;
}

static inline unsigned ring_extra_of(uint64_t what)
{
	return (unsigned)(what >> 48);
}

/* The number at `position`, which is one between tail and head; whoever looks while others move on
 * checks afterwards that it still is. */
static inline uint64_t ring_number_at(const struct ring_view *view, uint64_t position)
{
	return atomic_load_explicit(&ring_at(view, position)->number, memory_order_relaxed);
}

/* Which position, word of tail or head, and its number, taken together by somebody who is neither
 * producer nor consumer.  IPC_EAGAIN: it moved each time. */
IPC_CHECKED int ring_look(const struct ring_view *view, const _Atomic uint64_t *word,
			  uint64_t *ret_word, uint64_t *ret_number);

/* Bytes in use. */
uint64_t ring_depth(const struct ring_view *view);

/* ---- producer ---- */

struct ring_claim {
	uint64_t at;    /* position of its record */
	uint64_t units; /* of the record, with its head */
	uint64_t size;  /* bytes that were asked for */
	bool is_stray;  /* a hole lies over it: it will be copied */
};

struct ring_producer {
	struct ring_view view;
	const struct liveness_table *table;
	uint64_t owner;
	uint64_t head;   /* the word */
	uint64_t number; /* of the next record */
	uint64_t end;    /* position behind the last claim */
	uint64_t tail;   /* position, as last seen */
	uint64_t limit;  /* position: how far it may write, as told */
	uint64_t strays; /* the word, as told */
	uint64_t depth_max;
	uint64_t keep; /* units of a record that has room after a claim: the user's */

	/* Open claims, in no order. */
	struct ring_claim *claim;
	unsigned n_claims, n_claims_max, n_strays;
	struct ring_claim claim_alone;
};

/*
 * Takes the producer's end, if this handle is newer than its owner.  `view` is filled in.  0;
 * IPC_ESTALE: a newer one has it, or took it meanwhile; IPC_EBUSY: too many that were taken over
 * live on, or one claims too much; IPC_ENOSYS: its owner lives, and no fence reaches it;
 * IPC_EBADMSG.
 *
 * In two steps for who keeps words beside the stream: with the head nobody else publishes any more,
 * and it stands where the last one left it; with the memory it may jump, and records are claimed.
 */
IPC_CHECKED int ring_take_head(struct ring_producer *producer, const struct liveness_table *table,
			       uint64_t handle_id, uint32_t process);
IPC_CHECKED int ring_take_memory(struct ring_producer *producer);

IPC_CHECKED static inline int ring_take_producer(struct ring_producer *producer,
						 const struct liveness_table *table,
						 uint64_t handle_id, uint32_t process)
{
	int r = ring_take_head(producer, table, handle_id, process);

	return r < 0 ? r : ring_take_memory(producer);
}

/* Claims vanish.  No thread is inside, nor will be. */
void ring_leave_producer(struct ring_producer *producer);

/* Whether a record of `size` bytes has room: 0; IPC_EAGAIN; IPC_EBADMSG. */
IPC_CHECKED int ring_probe_room(struct ring_producer *producer, uint64_t size);

/* How a record is published. */
struct ring_commit {
	unsigned type, flags, extra;
	uint64_t size;        /* bytes of it, at most those of the claim */
	uint64_t number_next; /* of the record after it */
	unsigned state;       /* of `head` from now on */
	uint64_t note; /* `what` of the next record's head until that is written; type NOTHING */
};

/* Whether the end is still this one's. */
static inline bool ring_producer_is(const struct ring_producer *producer)
{
	return ring_tag(atomic_load_explicit(&producer->view.ring->head, memory_order_relaxed)) ==
	       ring_tag(producer->head);
}

/* Each of the three below is inline where there is one claim at most, and nothing else to look at;
 * else by these. */
IPC_CHECKED int ring_claim_slow(struct ring_producer *producer, uint64_t size, void **ret_data);
IPC_CHECKED int ring_commit_slow(struct ring_producer *producer, struct ring_claim *claim,
				 const struct ring_commit *commit);
IPC_CHECKED int ring_send_slow(struct ring_producer *producer, const void *data,
			       const struct ring_commit *commit);
void ring_note_depth(struct ring_producer *producer);

static inline uint64_t ring_what(unsigned type, unsigned flags, unsigned extra, uint64_t size)
{
	return type | (uint64_t)flags << 8 | size << 16 | (uint64_t)extra << 48;
}

static inline void ring_write(struct ring_producer *producer, uint64_t position, uint64_t what,
			      uint64_t number)
{
	struct ring_record *record = ring_at(&producer->view, position);

	atomic_store_explicit(&record->number, number, memory_order_relaxed);
	atomic_store_explicit(&record->what, what, memory_order_relaxed);
}

/* A plain store: one that is late goes where nobody looks for that tag any more, or is seen to be
 * of another. */
static inline void ring_set_limit(struct ring_producer *producer, uint64_t position)
{
	uint64_t tag = ring_tag(producer->head);

	producer->limit = position;
	atomic_store_explicit(&producer->view.ring->limit[tag & 1], ring_word(tag, 0, position),
			      memory_order_relaxed);
}

/* By the tail as it was last seen. */
static inline bool ring_depth_is_new(const struct ring_producer *producer)
{
	return UNLIKELY(ring_distance(producer->tail, ring_position(producer->head)) >
			producer->depth_max);
}

/* Nothing is claimed or banned, there is room by what was last seen, and the end is this one's: the
 * limit is told. */
static inline bool ring_is_easy(struct ring_producer *producer, uint64_t units)
{
	const struct ring_view *view = &producer->view;
	uint64_t needed = units + 1;

	if (UNLIKELY(producer->n_claims > 0 ||
		     atomic_load_explicit(&view->ring->n_bans, memory_order_relaxed) != 0 ||
		     ring_distance(producer->tail, producer->end) + needed + producer->keep >
			     view->capacity))
		return false;

	/* After a record was taken back the limit is further on already. */
	if (LIKELY(ring_distance(producer->end, producer->limit) <= needed))
		ring_set_limit(producer, (producer->end + needed) & RING_POSITION_MASK);

	/* [R1] Pairs with [R2]. */
	process_fence_shared();
	return LIKELY(ring_producer_is(producer));
}

/*
 * The exchange by which all is decided: the head goes to `position`, if the end is still this
 * one's. 0; IPC_ESTALE.
 *
 * [R4] What was written before is visible to who sees it.  Pairs with [R3], [R5].  Sequentially
 * consistent: the look at who sleeps comes after it.
 */
IPC_CHECKED static inline int ring_move_head(struct ring_producer *producer, unsigned state,
					     uint64_t position)
{
	uint64_t seen = producer->head, word = ring_word(ring_tag(seen), state, position);

	if (UNLIKELY(!atomic_compare_exchange_strong_explicit(&producer->view.ring->head, &seen,
							      word, memory_order_seq_cst,
							      memory_order_relaxed)))
		return IPC_ESTALE;

	producer->head = word;
	return 0;
}

/* Of the only record behind the head. */
static inline int ring_publish_easy(struct ring_producer *producer, uint64_t units,
				    const struct ring_commit *commit)
{
	uint64_t at = ring_position(producer->head), after = (at + units) & RING_POSITION_MASK;
	int r;

	ring_write(producer, at,
		   ring_what(commit->type, commit->flags, commit->extra, commit->size),
		   producer->number);
	ring_write(producer, after, commit->note, commit->number_next);

	r = ring_move_head(producer, commit->state, after);
	if (UNLIKELY(r < 0))
		return r;

	producer->number = commit->number_next;
	producer->end = after;
	if (ring_depth_is_new(producer))
		ring_note_depth(producer);
	return 0;
}

/*
 * Room for a record of up to `size` bytes.  0; IPC_EAGAIN; IPC_ESTALE: taken over; IPC_ENOMEM (of
 * several claims); IPC_EBADMSG.  *ret_data is aligned to 16.
 */
IPC_CHECKED static inline int ring_claim(struct ring_producer *producer, uint64_t size,
					 void **ret_data)
{
	uint64_t units = 1 + ring_units(size), at = producer->end;

	if (UNLIKELY(producer->n_claims_max == 0 || !ring_is_easy(producer, units)))
		return ring_claim_slow(producer, size, ret_data);

	producer->claim[0] = (struct ring_claim){.at = at, .units = units, .size = size};
	producer->n_claims = 1;
	producer->end = (at + units) & RING_POSITION_MASK;
	*ret_data = ring_at(&producer->view, at)->bytes;
	return 0;
}

/* The claim whose bytes these are; NULL. */
struct ring_claim *ring_find_claim(struct ring_producer *producer, const void *data);

/*
 * Publishes: one exchange.  0; IPC_ESTALE: taken over, nothing was published; IPC_EAGAIN: a claim
 * that has to be copied finds no room (its user gave up the backlog); IPC_EBADMSG.  Refused, the
 * claim stays.  A full fence if it is 0.
 */
IPC_CHECKED static inline int ring_commit(struct ring_producer *producer, struct ring_claim *claim,
					  const struct ring_commit *commit)
{
	int r;

	if (UNLIKELY(producer->n_claims != 1 || claim->is_stray ||
		     claim->at != ring_position(producer->head)))
		return ring_commit_slow(producer, claim, commit);

	r = ring_publish_easy(producer, 1 + ring_units(commit->size), commit);
	if (LIKELY(r == 0))
		producer->n_claims = 0;
	return r;
}

/* Whether that commit leaves room which the claim took. */
static inline bool ring_commit_leaves_room(const struct ring_claim *claim, uint64_t size)
{
	return UNLIKELY(claim->is_stray || ring_units(size) < ring_units(claim->size));
}

void ring_abort(struct ring_producer *producer, struct ring_claim *claim);

/* Claim, copy and commit. */
IPC_CHECKED static inline int ring_send(struct ring_producer *producer, const void *data,
					const struct ring_commit *commit)
{
	uint64_t units = 1 + ring_units(commit->size);

	if (UNLIKELY(!ring_is_easy(producer, units)))
		return ring_send_slow(producer, data, commit);

	if (commit->size > 0)
		memcpy(ring_at(&producer->view, producer->end)->bytes, data, commit->size);
	return ring_publish_easy(producer, units, commit);
}

/* Takes back what was published from `position` on, which nobody has received or will receive: the
 * number there is the next one's.  0; IPC_ESTALE. */
IPC_CHECKED int ring_rewind(struct ring_producer *producer, uint64_t position, unsigned state);

/* ---- consumer ---- */

struct ring_consumer {
	struct ring_view view;
	uint64_t owner;
	uint64_t tail; /* the word */
	uint64_t at;   /* position of the next record to be received */
	uint64_t head; /* position, as last seen: `at` or after it */
	uint64_t head_word;
	uint64_t received_before; /* position up to which an earlier consumer had received */
	unsigned received_state;  /* of what it marked */
};

/* As ring_take_producer(); afterwards `at` is at the tail. */
IPC_CHECKED int ring_take_consumer(struct ring_consumer *consumer,
				   const struct liveness_table *table, uint64_t handle_id,
				   uint32_t process);
void ring_leave_consumer(struct ring_consumer *consumer);

struct ring_received {
	unsigned type, flags, extra;
	uint64_t size;
	uint64_t number;
	uint64_t at, after; /* positions: of the record, behind it */
	void *bytes;
};

/* The same where there is more to look at. */
IPC_CHECKED int ring_peek_slow(struct ring_consumer *consumer, struct ring_received *ret);

/* The record at consumer->at, past holes.  0; IPC_EAGAIN: there is none; IPC_ESTALE: taken over,
 * which is not always found out; IPC_EBADMSG.  It stays there: consumer->at = ret->after goes on.
 */
IPC_CHECKED static inline int ring_peek(struct ring_consumer *consumer, struct ring_received *ret)
{
	const struct ring_view *view = &consumer->view;
	uint64_t left = ring_distance(consumer->at, consumer->head), what, units;
	struct ring_record *record = ring_at(view, consumer->at);

	if (UNLIKELY(left == 0 ||
		     atomic_load_explicit(&view->ring->n_bans, memory_order_relaxed) != 0))
		return ring_peek_slow(consumer, ret);

	what = atomic_load_explicit(&record->what, memory_order_relaxed);
	units = 1 + ring_units(ring_size_of(what));
	if (UNLIKELY(ring_type_of(what) <= RING_HOLE || units > left || units > view->units_max))
		return ring_peek_slow(consumer, ret);

	ret->type = ring_type_of(what);
	ret->flags = ring_flags_of(what);
	ret->extra = ring_extra_of(what);
	ret->size = ring_size_of(what);
	ret->number = atomic_load_explicit(&record->number, memory_order_relaxed);
	ret->at = consumer->at;
	ret->after = (consumer->at + units) & RING_POSITION_MASK;
	ret->bytes = record->bytes;
	return 0;
}

/* The same on a copy, or where nothing may be released: nothing that is shared is changed. */
IPC_CHECKED int ring_peek_ahead(struct ring_consumer *consumer, struct ring_received *ret);

/* 0; IPC_EAGAIN; IPC_ESTALE; IPC_EBADMSG; no side effect but on what was last seen. */
IPC_CHECKED int ring_probe(struct ring_consumer *consumer);

/* Up to `position`, which is after the tail, at most at `at`.  0; IPC_ESTALE: taken over.  A full
 * fence if it is 0. */
IPC_CHECKED int ring_release(struct ring_consumer *consumer, uint64_t position, unsigned state);

/* Whether the end is still this one's. */
static inline bool ring_consumer_is(const struct ring_consumer *consumer)
{
	return ring_tag(atomic_load_explicit(&consumer->view.ring->tail, memory_order_relaxed)) ==
	       ring_tag(consumer->tail);
}

#endif
