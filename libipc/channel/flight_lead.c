/* SPDX-License-Identifier: MIT */

/*
 * Who leads: promotion after a leader's end, keys that wait for a handler, and the handler's take.
 */

#include <time.h>

#include "libipc/channel/flight_cell.h"
#include "libipc/platform/clock.h"

/* ---- fences ---- */

/*
 * No fence is above this: the counters start from the clock and cannot be driven twice as fast.  A
 * higher one was written by a member that wants others to run out of numbers.
 */
static uint64_t fence_limit(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)(now.tv_sec - FENCE_EPOCH_S) * (NS_PER_S / FENCE_UNIT_NS) * 2;
}

/* Ours moves on past theirs; the next number. */
static uint64_t fence_pass(struct flight *flight, uint64_t number, uint64_t highest)
{
	while (number <= highest &&
	       !atomic_compare_exchange_weak_explicit(flight->fence, &number, highest,
						      memory_order_relaxed, memory_order_relaxed))
		;
	return atomic_fetch_add_explicit(flight->fence, 1, memory_order_relaxed) + 1;
}

/*
 * Numbers of this uid's desk; where other uids may lead as well, each also passes by the segment,
 * so that they grow from leader to leader whoever these are.
 */
static uint64_t fence_next(struct flight *flight)
{
	_Atomic uint64_t *shared = &flight->segment->fence;
	uint64_t number, highest;

	number = atomic_fetch_add_explicit(flight->fence, 1, memory_order_relaxed) + 1;
	if (!flight->is_foreign)
		return number;

	highest = atomic_load_explicit(shared, memory_order_relaxed);
	do {
		if (number <= highest && highest <= fence_limit())
			number = fence_pass(flight, number, highest);
	} while (!atomic_compare_exchange_weak_explicit(
		shared, &highest, number, memory_order_relaxed, memory_order_relaxed));

	return number;
}

/* ---- taking the lead ---- */

void flight_led(struct flight *flight, struct flight_part *part)
{
	struct flight_cell *cell = &flight->cell[part->cell];

	/* After the exchange: a leader that took its fence before could be given a smaller one than
	 * the leader before it. */
	atomic_store_explicit(&part->fence,
			      fence_next(flight) << FENCE_LANE_BITS | flight->fence_lane,
			      memory_order_release);
	atomic_store_explicit(&part->has_led, 1, memory_order_release);

	/* For people. */
	atomic_store_explicit(&cell->led_since, clock_coarse_now_ns(), memory_order_relaxed);
	atomic_store_explicit(&cell->leader_id, flight->handle_id, memory_order_relaxed);
}

bool flight_end(struct flight *flight, uint32_t cell, uint64_t state, uint64_t flags)
{
	if (!flight_swap(flight, cell, state, flight_state_with(state | flags, FLIGHT_ENDED)))
		return false;

	/* Killed here: the broker wakes everybody. */
	CRASH_POINT();
	if (state & FLIGHT_FOLLOWED)
		flight_notify(flight, &flight->cell[cell].event);
	return true;
}

/* A dead leader's flight is nobody's from now on. */
static bool lead_take_away(struct flight *flight, uint32_t cell, uint64_t state)
{
	/* Queued now; a handler's keys are judged by when they were asked for. */
	if ((state & FLIGHT_ASKED) && !(state & FLIGHT_ASKED_NEW))
		atomic_store_explicit(&flight->cell[cell].queued_ends,
				      side_ends(flight_handlers_side(flight)),
				      memory_order_relaxed);

	return flight_swap(flight, cell, state, flight_state_with(state, FLIGHT_UNLED));
}

/*
 * By way of UNLED, with the old leader's seat: it either sees that state before it writes, or is
 * seen here; and if this process dies in between, the next one looks at the same lock.
 */
bool flight_lead(struct flight *flight, struct flight_part *part, uint64_t state)
{
	if (flight_state_phase(state) == FLIGHT_LED) {
		if (!lead_take_away(flight, part->cell, state))
			return false;
		state = flight_state_with(state, FLIGHT_UNLED);
		CRASH_POINT();
	}

	/* Nobody else may write there; nor claim the cell, before that one has ended. */
	if (flight_is_written(flight, part->cell, state)) {
		(void)flight_end(flight, part->cell, state, 0);
		return false;
	}

	atomic_store_explicit(&flight->segment->seats.seat[part->seat].thread, flight_thread(),
			      memory_order_relaxed);
	CRASH_POINT();
	if (!flight_swap(flight, part->cell, state,
			 flight_state_make(flight_state_turn(state) + 1, part->seat,
					   state & FLIGHT_FLAGS & ~FLIGHT_CHECKED, FLIGHT_LED)))
		return false;
	CRASH_POINT();

	flight_led(flight, part);
	return true;
}

/*
 * The look at the seats takes its time, and others look, too.  So the flag goes with the seat of
 * who looks: whoever joins clears it, and nobody else can make that very word again.
 */
bool flight_end_if_left(struct flight *flight, uint32_t cell, uint64_t state, uint32_t seat)
{
	uint64_t checked;

	if (flight_state_phase(state) == FLIGHT_LED) {
		if (!lead_take_away(flight, cell, state))
			return false;
		state = flight_state_with(state, FLIGHT_UNLED);
		CRASH_POINT();
	}

	/* The old leader's seat stays in the word as long as it may write. */
	if (flight_is_written(flight, cell, state))
		return false;

	checked = flight_state_make(flight_state_turn(state), seat,
				    (state & FLIGHT_FLAGS) | FLIGHT_CHECKED, FLIGHT_UNLED);
	if (!flight_swap(flight, cell, state, checked))
		return false;
	CRASH_POINT();

	/* Whoever joined before is seen by the seat. */
	seats_fence();
	if (seats_any(&flight->segment->seats, flight->table, cell, seat))
		return false;
	CRASH_POINT();

	return flight_swap(
		flight, cell, checked,
		flight_state_with(checked & ~(FLIGHT_FOLLOWED | FLIGHT_CHECKED), FLIGHT_ENDED));
}

/* ---- keys that wait for a handler ---- */

enum flight_queue flight_queue(const struct flight *flight, uint32_t cell, uint64_t state)
{
	uint64_t side = flight_handlers_side(flight);
	bool is_there = side_count(side) > 0;
	bool is_same = atomic_load_explicit(&flight->cell[cell].queued_ends,
					    memory_order_relaxed) == side_ends(side);

	if (!is_there && (side & SIDE_FINAL))
		return state & FLIGHT_ASKED_NEW ? FLIGHT_QUEUE_OVER : FLIGHT_QUEUE_NONE;
	if (state & FLIGHT_STAYS)
		return FLIGHT_QUEUE_WAITS;

	/* Whether the handlers were away while a caller led does not matter; from the queueing on
	 * it does. */
	if (flight_state_phase(state) == FLIGHT_LED && !(state & FLIGHT_ASKED_NEW))
		is_same = true;
	if (is_there && is_same)
		return FLIGHT_QUEUE_WAITS;

	return state & FLIGHT_ASKED_NEW ? FLIGHT_QUEUE_OVER : FLIGHT_QUEUE_NONE;
}

static uint64_t queue_end_flags(const struct flight *flight)
{
	return flight_handlers_side(flight) & SIDE_DIED ? 0 : FLIGHT_CLOSED;
}

static int part_end(struct flight_part *part, int result)
{
	atomic_store_explicit(&part->end, result, memory_order_relaxed);
	return result;
}

/* The handlers' end is that of an asker, too. */
static int look_unasked(const struct flight *flight, struct flight_part *part)
{
	return part_end(part,
			flight_handlers_side(flight) & SIDE_DIED ? IPC_EOWNERDEAD : IPC_EPIPE);
}

/* An asker of a key that others, who stay, keep queued.  Without those the key's own count of ends
 * tells: handlers that were away before it was queued do not matter. */
static int look_queued(const struct flight *flight, struct flight_part *part, uint64_t state)
{
	if (part->form != FLIGHT_ASK || part->stays || !(state & FLIGHT_STAYS) ||
	    side_ends(flight_handlers_side(flight)) == part->began_ends)
		return IPC_EAGAIN;

	return look_unasked(flight, part);
}

/* 1, AGAIN. */
static int look_promote(struct flight *flight, struct flight_part *part, uint64_t state)
{
	bool leads;

	/* Two threads that look for the same part would both be led by it. */
	(void)pthread_mutex_lock(&flight->promotion);
	leads = flight_lead(flight, part, state);
	(void)pthread_mutex_unlock(&flight->promotion);
	return leads ? 1 : FLIGHT_AGAIN;
}

static int look_leaderless(struct flight *flight, struct flight_part *part, uint64_t state)
{
	if (flight_is_exhausted(flight, part->cell, state)) {
		(void)flight_end(flight, part->cell, state, 0);
		return FLIGHT_AGAIN;
	}

	if (state & FLIGHT_ASKED) {
		switch (flight_queue(flight, part->cell, state)) {
		case FLIGHT_QUEUE_WAITS:
			return look_queued(flight, part, state);
		case FLIGHT_QUEUE_OVER:
			(void)flight_end(flight, part->cell, state, queue_end_flags(flight));
			return FLIGHT_AGAIN;
		case FLIGHT_QUEUE_NONE:
			break;
		}
	}

	return part->form == FLIGHT_JOIN ? look_promote(flight, part, state)
					 : look_unasked(flight, part);
}

static int look_once(struct flight *flight, struct flight_part *part)
{
	uint64_t state = flight_load(flight, part->cell);

	switch (flight_state_phase(state)) {
	case FLIGHT_LANDED:
	case FLIGHT_FAILED:
		return 0;
	case FLIGHT_ENDED:
		return part_end(part, state & FLIGHT_CLOSED ? IPC_EPIPE : IPC_EOWNERDEAD);
	case FLIGHT_LED:
		if (flight_state_seat(state) == part->seat)
			return 1;
		if (flight_seat_is_held(flight, part->cell, state))
			return IPC_EAGAIN;
		return look_leaderless(flight, part, state);
	case FLIGHT_UNLED:
		return look_leaderless(flight, part, state);
	case FLIGHT_FREE:
	case FLIGHT_CLAIMED:
		break;
	}

	/* Nobody claims a cell that somebody holds. */
	return flight_break(flight);
}

int flight_look(struct flight *flight, struct flight_part *part)
{
	int r = atomic_load_explicit(&part->end, memory_order_relaxed);

	if (r < 0)
		return r;

	r = header_fault(&flight->segment->header);
	for (unsigned i = 0; r == 0 && i < FLIGHT_TRIES_MAX; ++i) {
		r = look_once(flight, part);

		/* Held dead: the cell may be another flight's by now. */
		if (r >= 0 && !liveness_handle_is(flight->table, flight->handle_id))
			return IPC_ESTALE;
		if (r != FLIGHT_AGAIN)
			return r;
		r = 0;
	}

	return r < 0 ? r : flight_break(flight);
}

/* ---- the handler's take ---- */

struct candidate {
	bool is_found;
	uint32_t cell;
	uint64_t state;
	uint32_t urgency;
	uint64_t order;
};

static bool candidate_is_better(const struct candidate *best, uint32_t urgency, uint64_t order)
{
	if (!best->is_found || urgency != best->urgency)
		return !best->is_found || urgency > best->urgency;

	return order < best->order;
}

/* Whether the key in this state may be taken; ends those that are over. */
static bool take_may(struct flight *flight, uint32_t cell, uint64_t state)
{
	if (!(state & FLIGHT_ASKED) || !flight_is_leaderless(flight, cell, state))
		return false;

	/* An asker that has not come so far as to queue it may not even have it in the chain. */
	if (flight_is_setup(flight, cell, state))
		return false;

	if (flight_is_exhausted(flight, cell, state)) {
		(void)flight_end(flight, cell, state, 0);
		return false;
	}

	switch (flight_queue(flight, cell, state)) {
	case FLIGHT_QUEUE_WAITS:
		return true;
	case FLIGHT_QUEUE_OVER:
		(void)flight_end(flight, cell, state, queue_end_flags(flight));
		return false;
	case FLIGHT_QUEUE_NONE:
		return false;
	}

	return false;
}

/* All cells: the states stand side by side, eight to a cache line. */
static struct candidate take_find(struct flight *flight)
{
	struct candidate best = {.is_found = false};

	for (uint32_t cell = 0; cell < flight->n_cells; ++cell) {
		uint64_t state = flight_load(flight, cell);
		uint32_t urgency;
		uint64_t order;

		if (!flight_state_is_in_flight(state) || !take_may(flight, cell, state))
			continue;

		urgency = atomic_load_explicit(&flight_run(flight, cell, state)->urgency,
					       memory_order_relaxed);
		order = atomic_load_explicit(&flight->cell[cell].order, memory_order_relaxed);
		if (candidate_is_better(&best, urgency, order))
			best = (struct candidate){true, cell, state, urgency, order};
	}

	return best;
}

/* Nobody waits for the answer any more: the seat of a queued key is its asker's. */
static bool take_is_for_nobody(struct flight *flight, const struct flight_part *part,
			       const struct candidate *found)
{
	if (flight_seat_is_held(flight, found->cell, found->state))
		return false;

	return flight_end_if_left(flight, found->cell, found->state, part->seat);
}

bool flight_is_takeable(struct flight *flight)
{
	return header_fault(&flight->segment->header) == 0 && take_find(flight).is_found;
}

int flight_take(struct flight *flight, struct flight_part *part)
{
	struct seats *seats = &flight->segment->seats;
	int r = header_fault(&flight->segment->header);

	if (r < 0)
		return r;

	flight_part_begin(part);
	for (unsigned i = 0; i < FLIGHT_TRIES_MAX; ++i) {
		struct candidate found = take_find(flight);

		if (!found.is_found)
			return IPC_EAGAIN;
		if (take_is_for_nobody(flight, part, &found))
			continue;

		/* The check above may have marked it. */
		found.state = flight_load(flight, found.cell);
		if (!flight_state_is_in_flight(found.state) ||
		    !take_may(flight, found.cell, found.state))
			continue;

		part->cell = found.cell;
		seats_hold_unfenced(seats, part->seat, found.cell);
		if (flight_lead(flight, part, found.state))
			return 0;
		seats_drop(seats, part->seat);
	}

	return flight_break(flight);
}
