/* SPDX-License-Identifier: MIT */
#include "libipc/core/ring.h"

#include <string.h>

#include "libipc/core/ring_ban.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/process.h"

/*
 * Taking an end: first the owner's word, by which the newest handle wins; then the tag in head or
 * tail, by which the one before is out.  Of two takers the older one finds the owner's word changed
 * before it can change the tag again, or its exchange of the tag fails, or comes before the newer
 * one's.
 */

/* Of a word that others keep changing, which only broken ones do. */
#define TRIES_MAX 1000

/* ---- owners ---- */

/* bans: of a producer's end; NULL: nothing that he does late can harm. */
static int owner_take(_Atomic uint64_t *owner, uint64_t me, const struct liveness_table *table,
		      const struct ring_view *bans)
{
	uint64_t seen = atomic_load_explicit(owner, memory_order_acquire);

	for (int i = 0; i < TRIES_MAX; ++i) {
		/* Taken over before he has begun. */
		if (!ring_owner_is_open(table, me) ||
		    (seen != 0 && seen != me && !ring_owner_is_newer(me, seen) &&
		     ring_owner_is_open(table, seen)))
			return IPC_ESTALE;

		if (bans && seen != 0 && seen != me && !ring_owner_is_gone(bans, table, seen)) {
			int r = ring_ban(bans, table, seen);

			if (r < 0)
				return r;
		}

		CRASH_POINT();
		if (!atomic_compare_exchange_strong_explicit(owner, &seen, me, memory_order_seq_cst,
							     memory_order_acquire))
			continue;

		/* The next one may have come and gone, and left the word as it was. */
		return ring_owner_is_open(table, me) ? 0 : IPC_ESTALE;
	}

	return IPC_EBADMSG;
}

/* Nobody who had the end before can change this word any more.  *ret is what stands there. */
static int tag_take(_Atomic uint64_t *word, const _Atomic uint64_t *owner, uint64_t me,
		    uint64_t *ret)
{
	for (int i = 0; i < TRIES_MAX; ++i) {
		uint64_t seen = atomic_load_explicit(word, memory_order_seq_cst);

		*ret = ring_word(ring_tag(seen) + 1, ring_state(seen), seen);
		if (atomic_load_explicit(owner, memory_order_seq_cst) != me)
			return IPC_ESTALE;
		if (atomic_compare_exchange_strong_explicit(word, &seen, *ret, memory_order_seq_cst,
							    memory_order_relaxed))
			return 0;
	}

	return IPC_EBADMSG;
}

/* ---- producer ---- */

/* As far as the last teller told; all that is free if that was written over, late, by somebody long
 * before. */
static uint64_t last_limit(const struct ring_producer *producer, uint64_t teller)
{
	const struct ring_view *view = &producer->view;
	const struct ring *ring = view->ring;
	/* [R9] Before the look at strays.  Pairs with [R8]. */
	uint64_t limit =
		atomic_load_explicit(&ring->limit[ring_tag(teller) & 1], memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	return ring_tag(limit) == ring_tag(teller)
		       ? ring_position(limit)
		       : ring_position(ring_position(tail) + view->capacity);
}

/* How far behind the head the one before may write: the range that is banned.  from == to: nowhere
 * but where the next record's head stands already. */
static int range_of_bans(const struct ring_producer *producer, uint64_t teller, uint64_t *ret_to)
{
	uint64_t head = ring_position(producer->head), limit = last_limit(producer, teller);
	uint64_t ahead = ring_distance(head, limit);

	*ret_to = head;
	if (ahead <= 1 || ahead > UINT64_C(1) << (RING_POSITION_BITS - 1))
		return 0;
	if (ahead > producer->view.mask + 1)
		return IPC_EBADMSG;

	*ret_to = limit;
	return 0;
}

/*
 * What the one before claims yet and has passed by: before its other ban is complete, so that it is
 * not forgotten.  It is told as one stretch, though there may be much between; where that leaves no
 * place for the longest record, the end is refused until he is gone.
 */
static int ban_strays(const struct ring_producer *producer, const struct ring_taker *taker)
{
	const struct ring_view *view = &producer->view;
	uint64_t strays = atomic_load_explicit(&view->ring->strays, memory_order_acquire);
	uint64_t units = strays & RING_STRAYS_MASK;
	uint64_t from = strays >> RING_STRAYS_BITS & view->mask;

	if (units == 0 || !ring_strays_are_of(strays, ring_tag(taker->teller)))
		return 0;
	if (units + view->units_max + 1 > view->capacity)
		return IPC_EBUSY;

	/* Where the stream will not come for long: nobody jumps. */
	from += (ring_position(producer->head) & ~view->mask) - 2 * (view->mask + 1);
	return ring_ban_strays(taker, producer->table, from & RING_POSITION_MASK,
			       (from + units) & RING_POSITION_MASK);
}

/* Of the last teller. */
static int complete_ban(struct ring_producer *producer, const struct ring_taker *taker)
{
	struct ring_view *view = &producer->view;
	uint64_t head = ring_position(producer->head), to, tail, past;
	int r;

	r = range_of_bans(producer, taker->teller, &to);
	tail = ring_position(atomic_load_explicit(&view->ring->tail, memory_order_acquire));
	if (r == 0)
		r = ban_strays(producer, taker);
	if (r < 0)
		return r;

	/* The next record's head does not stand in what others may write: there is at most a lap.
	 */
	while (to != head && ring_distance(tail, to) <= view->mask &&
	       (past = ring_past_bans(view, producer->table, to, 1)) != to)
		to = past;
	if (ring_distance(tail, to) > view->mask)
		return IPC_EBUSY;

	r = ring_complete_bans(taker, head, to);
	CRASH_POINT();
	return r;
}

static int complete_bans(struct ring_producer *producer)
{
	struct ring_taker taker = {.view = &producer->view, .tag = ring_tag(producer->head)};
	int r;

	/* [R2] He sees the new tag, or what he told is seen here.  Pairs with [R1], [R10]. */
	r = process_fence_everywhere();
	if (r < 0)
		return r;

	taker.teller = atomic_load_explicit(&taker.view->ring->teller, memory_order_acquire);
	taker.who = ring_give_back_bans(taker.view, producer->table, producer->owner, taker.teller);
	CRASH_POINT();
	return taker.who == 0 ? 0 : complete_ban(producer, &taker);
}

/* The same for what was passed by.  Last of all. */
static int take_strays(struct ring_producer *producer)
{
	_Atomic uint64_t *strays = &producer->view.ring->strays;
	uint64_t seen = atomic_load_explicit(strays, memory_order_relaxed);

	producer->strays = ring_strays(ring_tag(producer->head), 0, 0);
	for (int i = 0; i < TRIES_MAX; ++i) {
		if (!ring_producer_is(producer))
			return IPC_ESTALE;
		if (atomic_compare_exchange_strong_explicit(strays, &seen, producer->strays,
							    memory_order_seq_cst,
							    memory_order_relaxed))
			return ring_producer_is(producer) ? 0 : IPC_ESTALE;
	}

	return IPC_EBADMSG;
}

/*
 * Nothing is claimed behind the head at `position`: this one tells limits from now on.  By
 * exchange: who had the end before, and is late, must not undo it.
 */
static int take_limit(struct ring_producer *producer, uint64_t position)
{
	_Atomic uint64_t *teller = &producer->view.ring->teller;
	uint64_t seen = atomic_load_explicit(teller, memory_order_relaxed);
	uint64_t me = ring_teller(ring_tag(producer->head), producer->owner);

	for (int i = 0; i < TRIES_MAX; ++i) {
		/* [R1] Below, too: before anything is written there. */
		if (!ring_producer_is(producer))
			return IPC_ESTALE;

		ring_set_limit(producer, (position + 1) & RING_POSITION_MASK);
		CRASH_POINT();
		if (!atomic_compare_exchange_strong_explicit(
			    teller, &seen, me, memory_order_seq_cst, memory_order_relaxed))
			continue;

		process_fence_shared();
		return take_strays(producer);
	}

	return IPC_EBADMSG;
}

/* Over what is banned where the next record would stand. */
static int jump_over(struct ring_producer *producer)
{
	struct ring_view *view = &producer->view;
	uint64_t head = ring_position(producer->head), to = ring_jump(view, head);
	struct ring_record *next = ring_at(view, to);
	uint64_t what;
	int r;

	if (to == head)
		return take_limit(producer, head);

	r = take_limit(producer, to);
	if (r < 0)
		return r;

	/* A note is a note as long as he has not begun to write over it. */
	what = atomic_load_explicit(&ring_at(view, head)->what, memory_order_relaxed);
	atomic_store_explicit(&next->what, ring_type_of(what) == RING_NOTHING ? what : 0,
			      memory_order_relaxed);
	atomic_store_explicit(&next->number, ring_number_at(view, head), memory_order_relaxed);
	CRASH_POINT();

	return ring_move_head(producer, ring_state(producer->head), to);
}

/* What is impossible is so because another one has moved on. */
static int taken(const struct ring_producer *producer, int r)
{
	return r < 0 && !ring_producer_is(producer) ? IPC_ESTALE : r;
}

int ring_take_head(struct ring_producer *producer, const struct liveness_table *table,
		   uint64_t handle_id, uint32_t process)
{
	struct ring_view view = producer->view;
	struct ring *ring = view.ring;
	uint64_t keep = producer->keep;
	int r;

	view.is_stranger = process == 0;
	*producer = (struct ring_producer){
		.view = view,
		.table = table,
		.owner = ring_owner(handle_id, process),
		.keep = keep,
	};

	r = owner_take(&ring->producer, producer->owner, table, &view);
	CRASH_POINT();
	if (r == 0)
		r = tag_take(&ring->head, &ring->producer, producer->owner, &producer->head);

	CRASH_POINT();
	return r;
}

int ring_take_memory(struct ring_producer *producer)
{
	const struct ring_view *view = &producer->view;
	int r = 0;

	if (ring_has_pending_bans(view, producer->table, producer->owner))
		r = complete_bans(producer);

	/* Whose word it is not any more may have passed bans by that he had to complete
	 * (ban_is_before()); it does not come back. */
	if (r == 0 &&
	    atomic_load_explicit(&view->ring->producer, memory_order_acquire) != producer->owner)
		r = IPC_ESTALE;
	if (r == 0)
		r = jump_over(producer);
	if (r < 0)
		return taken(producer, r);

	producer->tail =
		ring_position(atomic_load_explicit(&view->ring->tail, memory_order_acquire));
	producer->end = ring_position(producer->head);
	producer->number = ring_number_at(view, producer->end);
	producer->depth_max = atomic_load_explicit(&view->ring->depth_max, memory_order_relaxed);
	if (ring_distance(producer->tail, producer->end) > view->mask + 1)
		return taken(producer, IPC_EBADMSG);

	return 0;
}

/* ---- consumer ---- */

/* A mark of this tag is of somebody who has taken the end since. */
static bool is_later(uint64_t mark, uint64_t tag)
{
	uint64_t ahead = (ring_tag(mark) - tag) & RING_TAG_MASK;

	return ahead >= 1 && ahead <= RING_TAG_MASK / 2;
}

/* mine NULL: closes the mark, else writes this over it, which may be any word.  *ret is what stood
 * there. */
static int mark_take(struct ring_consumer *consumer, unsigned slot, const uint64_t *mine,
		     uint64_t *ret)
{
	_Atomic uint64_t *mark = &consumer->view.ring->received[slot];
	uint64_t seen = atomic_load_explicit(mark, memory_order_relaxed);

	for (int i = 0; i < TRIES_MAX; ++i) {
		if (is_later(seen, ring_tag(consumer->tail)))
			return IPC_ESTALE;

		*ret = seen;
		if (atomic_compare_exchange_strong_explicit(
			    mark, &seen,
			    mine ? *mine
				 : seen | (uint64_t)RING_RECEIVED_CLOSED << RING_STATE_SHIFT,
			    memory_order_seq_cst, memory_order_relaxed))
			return 0;
	}

	return IPC_EBADMSG;
}

/* How far anybody had received: the further of the two marks, as far as it is possible; of equal
 * ones that of the last consumer.  It is told on. */
static int find_received(struct ring_consumer *consumer)
{
	uint64_t tag = ring_tag(consumer->tail), tail = ring_position(consumer->tail);
	uint64_t head = ring_position(
		atomic_load_explicit(&consumer->view.ring->head, memory_order_acquire));
	uint64_t furthest = 0, seen, distance, mine;
	int r;

	for (unsigned i = 0; i < 2; ++i) {
		/* A late mark of the one before, by exchange, fails from now on. */
		r = mark_take(consumer, (tag + i) & 1, NULL, &seen);
		if (r < 0)
			return r;

		distance = ring_distance(tail, ring_position(seen));
		if (distance > ring_distance(tail, head) || distance < furthest)
			continue;
		furthest = distance;
		consumer->received_state = ring_state(seen);
	}

	CRASH_POINT();
	consumer->received_before = (tail + furthest) & RING_POSITION_MASK;
	mine = ring_word(tag, 0, consumer->received_before);
	return mark_take(consumer, tag & 1, &mine, &seen);
}

int ring_take_consumer(struct ring_consumer *consumer, const struct liveness_table *table,
		       uint64_t handle_id, uint32_t process)
{
	struct ring_view view = consumer->view;
	struct ring *ring = view.ring;
	int r;

	*consumer = (struct ring_consumer){
		.view = view,
		.owner = ring_owner(handle_id, process),
	};

	r = owner_take(&ring->consumer, consumer->owner, table, NULL);
	CRASH_POINT();
	if (r == 0)
		r = tag_take(&ring->tail, &ring->consumer, consumer->owner, &consumer->tail);
	if (r < 0)
		return r;

	CRASH_POINT();
	consumer->at = consumer->head = ring_position(consumer->tail);
	return find_received(consumer);
}

void ring_leave_consumer(struct ring_consumer *consumer)
{
	uint64_t owner = consumer->owner;

	(void)atomic_compare_exchange_strong_explicit(&consumer->view.ring->consumer, &owner, 0,
						      memory_order_release, memory_order_relaxed);
}
