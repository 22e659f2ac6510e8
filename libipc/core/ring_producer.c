/* SPDX-License-Identifier: MIT */
#include "libipc/core/ring.h"

#include <stdlib.h>
#include <string.h>

#include "libipc/core/ring_ban.h"
#include "libipc/platform/process.h"

/*
 * Claims and commits.  Deaths: see ring.h; what is private here dies with the process.
 */

/* Whether position `a` is at or behind `b`; both are within a lap or so. */
static bool is_behind(uint64_t a, uint64_t b)
{
	return ring_distance(b, a) < UINT64_C(1) << (RING_POSITION_BITS - 1);
}

static uint64_t advance(uint64_t position, uint64_t units)
{
	return (position + units) & RING_POSITION_MASK;
}

/* ---- room ---- */

/* What there is to copy. */
struct ring_copies {
	uint64_t units, smallest, longest;
};

static void copies_add(struct ring_copies *copies, uint64_t units)
{
	/* With the next record's head. */
	++units;
	copies->units += units;
	if (units < copies->smallest)
		copies->smallest = units;
	if (units > copies->longest)
		copies->longest = units;
}

/*
 * Units that are kept behind `at` for the copies of what is claimed: a record that is published
 * lays a hole over what was claimed before it; and a copy stands behind all that is claimed. `own`:
 * of one that is about to be claimed, 0: of none; `except`: a claim that is not counted, or NULL.
 *
 * As long as there are no strays, one of them all will be published without a copy: the smallest,
 * at worst.  Memory in the way costs its length, and what does not fit before it.  So a copy takes
 * no more than what was kept for it.
 */
static uint64_t units_of_copies(const struct ring_producer *producer, uint64_t at, uint64_t own,
				const struct ring_claim *except)
{
	const struct ring_view *view = &producer->view;
	struct ring_copies copies = {.smallest = UINT64_MAX};
	uint64_t before = 0, units;

	if (own)
		copies_add(&copies, own);
	for (unsigned i = 0; i < producer->n_claims; ++i) {
		if (&producer->claim[i] != except)
			copies_add(&copies, producer->claim[i].units);
	}

	units = copies.units;
	if (producer->n_strays == 0 && own)
		units -= copies.smallest;

	for (copies.units = units; units != before && before <= view->mask;) {
		before = units;
		units = copies.units + ring_banned_within(view, at, before + 1, copies.longest);
		for (unsigned i = 0; i < producer->n_claims; ++i) {
			const struct ring_claim *claim = &producer->claim[i];

			if (claim->is_stray && ((claim->at - at) & view->mask) <= before)
				units += claim->units + copies.longest;
		}
	}
	return units;
}

/* Nobody's memory but the own, from `at` on: past bans and strays. */
static bool ring_place(const struct ring_producer *producer, uint64_t at, uint64_t units,
		       uint64_t *ret)
{
	const struct ring_view *view = &producer->view;
	unsigned n = producer->n_strays ? producer->n_claims : 0;

	*ret = at;
	if (LIKELY(n == 0 && atomic_load_explicit(&view->ring->n_bans, memory_order_relaxed) == 0))
		return true;

	for (unsigned i = 0; i <= 2 * (n + RING_BANS_MAX); ++i) {
		uint64_t past = ring_past_bans(view, producer->table, at, units + 1);

		for (unsigned k = 0; k < n; ++k) {
			const struct ring_claim *claim = &producer->claim[k];

			if (claim->is_stray)
				past = ring_past(view, past, units + 1, claim->at, claim->units);
		}
		if (past == at) {
			*ret = at;
			return true;
		}
		at = past;
	}

	return false;
}

enum ring_use { RING_TO_CLAIM, RING_TO_SEND, RING_TO_COPY };

/* What stays free behind a record at `at`.  claim: that it is the copy of. */
static uint64_t units_to_keep(const struct ring_producer *producer, uint64_t at, uint64_t units,
			      enum ring_use use, const struct ring_claim *claim)
{
	uint64_t after = advance(at, units), kept = after;
	uint64_t keep = use == RING_TO_COPY ? 0 : producer->keep;

	/* Where a record of so many will stand, when nothing else is kept. */
	if (keep > 0) {
		if (UNLIKELY(!ring_place(producer, after, keep, &kept)))
			return producer->view.mask + 1;
		kept = advance(kept, keep);
	}

	if (LIKELY(producer->n_claims == 0))
		return ring_distance(after, kept);
	return ring_distance(after, kept) +
	       units_of_copies(producer, kept, use == RING_TO_CLAIM ? units : 0, claim);
}

/* Whose end it is not any more has neither room nor none. */
static int ring_refused(const struct ring_producer *producer, int r)
{
	return ring_producer_is(producer) ? r : IPC_ESTALE;
}

/* Where a record of so many units goes, if there is room for it and for what has to be kept. */
static int ring_find_room(struct ring_producer *producer, uint64_t units, enum ring_use use,
			  const struct ring_claim *claim, uint64_t *ret_at)
{
	struct ring_view *view = &producer->view;
	uint64_t at, needed, in_use;

	if (UNLIKELY(!ring_place(producer, producer->end, units, &at)))
		return ring_refused(producer, IPC_EAGAIN);

	needed = units + 1 + units_to_keep(producer, at, units, use, claim);
	if (LIKELY(ring_distance(producer->tail, at) + needed <= view->capacity)) {
		*ret_at = at;
		return 0;
	}

	/* [R7] What is freed is not read any more.  Pairs with [R6]. */
	producer->tail =
		ring_position(atomic_load_explicit(&view->ring->tail, memory_order_acquire));
	in_use = ring_distance(producer->tail, at);
	if (UNLIKELY(ring_distance(producer->tail, ring_position(producer->head)) > view->mask + 1))
		return ring_refused(producer, IPC_EBADMSG);

	*ret_at = at;
	return in_use + needed <= view->capacity ? 0 : ring_refused(producer, IPC_EAGAIN);
}

int ring_probe_room(struct ring_producer *producer, uint64_t size)
{
	uint64_t at;

	return ring_find_room(producer, 1 + ring_units(size), RING_TO_CLAIM, NULL, &at);
}

/* Before a byte is written: whoever takes the end over learns how far it may go. */
static int ring_tell_limit(struct ring_producer *producer, uint64_t position)
{
	if (is_behind(position, producer->limit))
		ring_set_limit(producer, position);

	/* [R1] Pairs with [R2]. */
	process_fence_shared();
	return LIKELY(ring_producer_is(producer)) ? 0 : IPC_ESTALE;
}

/* `end` moves with it. */
static int ring_reserve(struct ring_producer *producer, uint64_t size, enum ring_use use,
			struct ring_claim *ret)
{
	uint64_t at, units = 1 + ring_units(size);
	int r;

	r = ring_find_room(producer, units, use, NULL, &at);
	if (r == 0)
		r = ring_tell_limit(producer, advance(at, units + 1));
	if (r < 0)
		return r;

	*ret = (struct ring_claim){.at = at, .units = units, .size = size};
	producer->end = advance(at, units);
	return 0;
}

/* ---- claims ---- */

static int ring_make_place(struct ring_producer *producer)
{
	struct ring_claim *claim;
	unsigned n = producer->n_claims_max ? 2 * producer->n_claims_max : 1;

	if (producer->n_claims < producer->n_claims_max)
		return 0;

	if (n == 1) {
		producer->claim = &producer->claim_alone;
		producer->n_claims_max = 1;
		return 0;
	}

	claim = calloc(n, sizeof(*claim));
	if (!claim)
		return IPC_ENOMEM;

	memcpy(claim, producer->claim, producer->n_claims * sizeof(*claim));
	if (producer->claim != &producer->claim_alone)
		free(producer->claim);
	producer->claim = claim;
	producer->n_claims_max = n;
	return 0;
}

int ring_claim_slow(struct ring_producer *producer, uint64_t size, void **ret_data)
{
	struct ring_claim claim;
	int r;

	r = ring_make_place(producer);
	if (r == 0)
		r = ring_reserve(producer, size, RING_TO_CLAIM, &claim);
	if (r < 0)
		return r;

	producer->claim[producer->n_claims++] = claim;
	*ret_data = ring_at(&producer->view, claim.at)->bytes;
	return 0;
}

struct ring_claim *ring_find_claim(struct ring_producer *producer, const void *data)
{
	for (unsigned i = 0; i < producer->n_claims; ++i) {
		if (ring_at(&producer->view, producer->claim[i].at)->bytes == data)
			return &producer->claim[i];
	}

	return NULL;
}

/* Whoever is banned from now on for having told the last limit, it is not this one. */
static void ring_tell_nothing(const struct ring_producer *producer)
{
	uint64_t tag = ring_tag(producer->head), teller = ring_teller(tag, producer->owner);

	(void)atomic_compare_exchange_strong_explicit(&producer->view.ring->teller, &teller,
						      ring_teller(tag, 0), memory_order_seq_cst,
						      memory_order_relaxed);

	/* [R10] Before the look at bans.  Pairs with [R2], [R11]. */
	atomic_thread_fence(memory_order_seq_cst);
}

void ring_leave_producer(struct ring_producer *producer)
{
	uint64_t owner = producer->owner;

	if (producer->claim != &producer->claim_alone)
		free(producer->claim);
	producer->claim = NULL;
	producer->n_claims = producer->n_claims_max = producer->n_strays = 0;
	if (owner == 0)
		return;

	ring_tell_nothing(producer);
	ring_lift_bans(&producer->view, owner);
	(void)atomic_compare_exchange_strong_explicit(&producer->view.ring->producer, &owner, 0,
						      memory_order_release, memory_order_relaxed);
}

/* ---- commits ---- */

static void ring_write_hole(struct ring_producer *producer, uint64_t position, uint64_t units,
			    uint64_t number)
{
	ring_write(producer, position, ring_what(RING_HOLE, 0, 0, units), number);
}

/* Whether a hole will lie over it once this one is published; NULL: whether one does. */
static bool is_passed(const struct ring_producer *producer, const struct ring_claim *claim,
		      const struct ring_claim *published)
{
	uint64_t head = ring_position(producer->head);

	if (!published)
		return claim->is_stray;

	return claim != published &&
	       (claim->is_stray ||
		ring_distance(head, claim->at) < ring_distance(head, published->at));
}

/* The shortest stretch of the lap with both. */
static void join(uint64_t mask, uint64_t *from, uint64_t *units, uint64_t at, uint64_t more)
{
	uint64_t behind = (at - *from) & mask, before = (*from - at) & mask;
	uint64_t as_end = behind + more > *units ? behind + more : *units;
	uint64_t as_start = before + *units > more ? before + *units : more;

	*from = as_start < as_end ? at & mask : *from;
	*units = as_start < as_end ? as_start : as_end;
	if (*units > mask)
		*units = mask;
}

/*
 * What lies in front of a record that is published now is written to for as long as it is claimed,
 * and the limit says nothing of it.  Told before it is published; by exchange, so that who is late
 * undoes nothing. `published` NULL: there are no strays any more.
 */
static int ring_tell_strays(struct ring_producer *producer, const struct ring_claim *published)
{
	uint64_t seen = producer->strays, word, from = 0, units = 0;

	for (unsigned i = 0; i < producer->n_claims; ++i) {
		const struct ring_claim *claim = &producer->claim[i];

		if (!is_passed(producer, claim, published))
			continue;
		if (units == 0)
			from = claim->at & producer->view.mask;
		join(producer->view.mask, &from, &units, claim->at, claim->units);
	}

	word = ring_strays(ring_tag(producer->head), from, units);
	if (word == seen)
		return 0;
	if (!atomic_compare_exchange_strong_explicit(&producer->view.ring->strays, &seen, word,
						     memory_order_release, memory_order_relaxed))
		return IPC_ESTALE;

	producer->strays = word;
	return 0;
}

/* What lies in front of a record that was published. */
static void ring_stray(struct ring_producer *producer, const struct ring_claim *published,
		       uint64_t head)
{
	for (unsigned i = 0; i < producer->n_claims; ++i) {
		struct ring_claim *claim = &producer->claim[i];

		if (claim != published && !claim->is_stray &&
		    ring_distance(head, claim->at) < ring_distance(head, published->at)) {
			claim->is_stray = true;
			++producer->n_strays;
		}
	}
}

static void ring_forget(struct ring_producer *producer, struct ring_claim *claim)
{
	producer->n_strays -= claim->is_stray;
	*claim = producer->claim[--producer->n_claims];

	/* If it fails, that is found out by what is done next. */
	if (UNLIKELY(producer->n_strays == 0 && producer->strays & RING_STRAYS_MASK))
		(void)ring_tell_strays(producer, NULL);
}

void ring_abort(struct ring_producer *producer, struct ring_claim *claim)
{
	ring_forget(producer, claim);

	/* Behind the last one that is left: what was given back before it counts as well. */
	producer->end = ring_position(producer->head);
	for (unsigned i = 0; i < producer->n_claims; ++i) {
		const struct ring_claim *other = &producer->claim[i];
		uint64_t after = advance(other->at, other->units);

		if (!other->is_stray && is_behind(after, producer->end))
			producer->end = after;
	}
}

void ring_note_depth(struct ring_producer *producer)
{
	struct ring *ring = producer->view.ring;
	uint64_t depth;

	/* The tail has moved on since it was looked at. */
	producer->tail = ring_position(atomic_load_explicit(&ring->tail, memory_order_acquire));
	depth = ring_distance(producer->tail, ring_position(producer->head));
	if (depth > producer->depth_max && depth <= producer->view.mask + 1) {
		producer->depth_max = depth;
		atomic_store_explicit(&ring->depth_max, depth, memory_order_relaxed);
	}
}

/* The bytes are there.  *claim may be one of those of the producer. */
static int ring_publish(struct ring_producer *producer, const struct ring_claim *claim,
			const struct ring_commit *commit)
{
	uint64_t head = ring_position(producer->head);
	uint64_t units = 1 + ring_units(commit->size);
	uint64_t after = advance(claim->at, claim->units);
	bool is_last = after == producer->end;
	int r;

	if (is_last)
		after = advance(claim->at, units);
	else if (units < claim->units)
		ring_write_hole(producer, advance(claim->at, units), claim->units - units,
				commit->number_next);

	ring_write(producer, claim->at,
		   ring_what(commit->type, commit->flags, commit->extra, commit->size),
		   producer->number);
	ring_write(producer, after, commit->note, commit->number_next);
	if (UNLIKELY(head != claim->at)) {
		if (ring_tell_strays(producer, claim) < 0)
			return IPC_ESTALE;
		ring_write_hole(producer, head, ring_distance(head, claim->at), producer->number);
	}

	r = ring_move_head(producer, commit->state, after);
	if (UNLIKELY(r < 0))
		return r;

	if (UNLIKELY(head != claim->at))
		ring_stray(producer, claim, head);
	producer->number = commit->number_next;
	if (is_last)
		producer->end = after;
	if (ring_depth_is_new(producer))
		ring_note_depth(producer);
	return 0;
}

/* A hole lies over it: to the end of what is claimed. */
static int ring_publish_copy(struct ring_producer *producer, struct ring_claim *claim,
			     const struct ring_commit *commit)
{
	struct ring_claim copy = {.units = 1 + ring_units(commit->size)};
	uint64_t end = producer->end;
	int r;

	r = ring_find_room(producer, copy.units, RING_TO_COPY, claim, &copy.at);
	if (r == 0)
		r = ring_tell_limit(producer, advance(copy.at, copy.units + 1));
	if (r < 0)
		return r;

	producer->end = advance(copy.at, copy.units);
	memcpy(ring_at(&producer->view, copy.at)->bytes, ring_at(&producer->view, claim->at)->bytes,
	       commit->size);
	r = ring_publish(producer, &copy, commit);
	if (r < 0)
		producer->end = end;
	return r;
}

int ring_commit_slow(struct ring_producer *producer, struct ring_claim *claim,
		     const struct ring_commit *commit)
{
	int r;

	r = UNLIKELY(claim->is_stray) ? ring_publish_copy(producer, claim, commit)
				      : ring_publish(producer, claim, commit);
	if (r < 0)
		return r;

	ring_forget(producer, claim);
	return 0;
}

int ring_send_slow(struct ring_producer *producer, const void *data,
		   const struct ring_commit *commit)
{
	uint64_t end = producer->end;
	struct ring_claim claim;
	int r;

	r = ring_reserve(producer, commit->size, RING_TO_SEND, &claim);
	if (r < 0)
		return r;

	if (commit->size > 0)
		memcpy(ring_at(&producer->view, claim.at)->bytes, data, commit->size);
	r = ring_publish(producer, &claim, commit);
	if (r < 0)
		producer->end = end;
	return r;
}

int ring_rewind(struct ring_producer *producer, uint64_t position, unsigned state)
{
	uint64_t number;
	int r;

	/* Where the stream jumps, its next record stands behind the jump. */
	position = ring_jump(&producer->view, position);
	number = ring_number_at(&producer->view, position);

	/* What is claimed will lie behind the new end. */
	for (unsigned i = 0; i < producer->n_claims; ++i)
		producer->claim[i].is_stray = true;
	producer->n_strays = producer->n_claims;
	r = ring_tell_strays(producer, NULL);
	if (r < 0)
		return r;

	/*
	 * Who takes the end over bans no more than what may still be written: from the exchange on
	 * that is what is claimed, and before it nothing else behind the head.
	 *
	 * [R8] Who sees this limit sees those strays.  Pairs with [R9].
	 */
	atomic_thread_fence(memory_order_release);
	ring_set_limit(producer, advance(position, 1));

	r = ring_move_head(producer, state, position);
	if (r < 0)
		return r;

	producer->number = number;
	producer->end = position;
	return 0;
}
