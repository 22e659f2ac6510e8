/* SPDX-License-Identifier: MIT */

/*
 * The queue of a limiter: who comes next, and what the dead leave.  And what can be asked without
 * changing anything.
 */

#include "libipc/channel/limiter_head.h"

/* ---- judging ---- */

/* What the living of this user hold. */
static uint64_t user_held(const struct limiter *limiter, uint32_t uid)
{
	uint32_t n_seats = limiter_n_seats(limiter);
	uint64_t sum = 0;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint64_t state = limiter_load(limiter, seat);
		struct limiter_request request;

		if (limiter_state_phase(state) != LIMITER_HELD)
			continue;

		request = limiter_request(limiter, seat, state);
		if (request.uid == uid && !limiter_is_dead(limiter, seat))
			sum += request.permits;
	}

	return sum;
}

static bool has_units(const struct limiter *limiter, const struct limiter_window *window,
		      uint32_t permits)
{
	return limiter->window_units == 0 || permits <= limiter->window_units - window->used;
}

/* An older request of the same user lacks its bound, and nothing else. */
static bool is_behind_own(const struct limiter *limiter, const struct limiter_window *window,
			  const struct limiter_request *request, uint64_t held)
{
	uint32_t n_seats = limiter_n_seats(limiter);

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint64_t state = limiter_load(limiter, seat);
		struct limiter_request other;

		if (limiter_state_phase(state) != LIMITER_WAITING)
			continue;

		other = limiter_request(limiter, seat, state);
		if (other.uid == request->uid && other.ticket < request->ticket &&
		    has_units(limiter, window, other.permits) &&
		    held + other.permits > limiter->per_user_max && !limiter_is_dead(limiter, seat))
			return true;
	}

	return false;
}

enum limiter_verdict limiter_judge(const struct limiter *limiter, const struct limiter_snap *snap,
				   const struct limiter_request *request)
{
	struct limiter_window window = limiter_window(limiter, snap);

	if (!has_units(limiter, &window, request->permits))
		return LIMITER_LACKS_UNITS;

	if (limiter->per_user_max != UINT32_MAX) {
		uint64_t held = user_held(limiter, request->uid);

		if (held + request->permits > limiter->per_user_max)
			return LIMITER_LACKS_BOUND;
		if (snap->n_waiting > 0 && is_behind_own(limiter, &window, request, held))
			return LIMITER_BEHIND_OWN;
	}

	return request->permits > snap->n_free ? LIMITER_LACKS_PERMITS : LIMITER_RUNS;
}

/* ---- the queue ---- */

/* The oldest after this ticket.  Whatever the words say, tickets grow from call to call. */
static bool queue_next(const struct limiter *limiter, uint64_t ticket, struct limiter_request *ret)
{
	uint32_t n_seats = limiter_n_seats(limiter);
	bool is_found = false;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint64_t state = limiter_load(limiter, seat);
		struct limiter_request request;

		if (limiter_state_phase(state) != LIMITER_WAITING)
			continue;

		request = limiter_request(limiter, seat, state);
		if (request.ticket > ticket && (!is_found || request.ticket < ret->ticket) &&
		    !limiter_is_dead(limiter, seat)) {
			*ret = request;
			is_found = true;
		}
	}

	return is_found;
}

/* The first of the queue that can run; false: none, and whether the queue stops before its end. */
static bool queue_find(const struct limiter *limiter, const struct limiter_snap *snap,
		       struct limiter_request *ret, bool *ret_is_stopped)
{
	struct limiter_request request = {.ticket = 0};

	*ret_is_stopped = false;
	for (uint32_t n = snap->n_waiting < LIMITER_SEATS ? snap->n_waiting : LIMITER_SEATS;
	     n > 0 && queue_next(limiter, request.ticket, &request); --n) {
		switch (limiter_judge(limiter, snap, &request)) {
		case LIMITER_RUNS:
			*ret = request;
			return true;
		case LIMITER_LACKS_PERMITS:
			*ret_is_stopped = true;
			return false;
		case LIMITER_LACKS_UNITS:
		case LIMITER_LACKS_BOUND:
		case LIMITER_BEHIND_OWN:
			break;
		}
	}

	return false;
}

void limiter_tell_window(const struct limiter *limiter, const struct limiter_snap *snap)
{
	struct limiter_window window = limiter_window(limiter, snap);
	uint32_t n_seats = limiter_n_seats(limiter);

	if (limiter->window_units == 0)
		return;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint64_t state = limiter_load(limiter, seat);

		if (limiter_state_phase(state) == LIMITER_WAITING &&
		    !has_units(limiter, &window, limiter_request(limiter, seat, state).permits))
			limiter_notify(limiter, &limiter->segment->cell[seat].event);
	}
}

/* ---- settling ---- */

/* The first cell of a dead one; false: none. */
static bool find_dead(const struct limiter *limiter, struct limiter_request *ret)
{
	uint32_t n_seats = limiter_n_seats(limiter);

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint64_t state = limiter_load(limiter, seat);

		if (limiter_state_phase(state) != LIMITER_FREE && limiter_is_dead(limiter, seat)) {
			*ret = limiter_request(limiter, seat, state);
			return true;
		}
	}

	return false;
}

/* What there is to be done.  A seat can be dead once and granted once; more is no limiter's. */
#define CHANGES_MAX (4 * LIMITER_SEATS)

/* How often a state is looked at again because it changed. */
#define LOOKS_MAX 16

/* Whether there was something to be done; it is looked again then, whoever did it. */
static bool settle_once(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
			bool *ret_is_stopped, unsigned *n_changes)
{
	struct limiter_request request;

	*ret_is_stopped = false;
	if (find_dead(limiter, &request)) {
		if (limiter_remove(limiter, seat, snap, &request, false)) {
			limiter_notify(limiter, &limiter->segment->ready);
			++*n_changes;
		}
		return true;
	}

	if (!queue_find(limiter, snap, &request, ret_is_stopped))
		return false;

	/* Killed after it: the broker wakes everybody. */
	if (limiter_grant(limiter, seat, snap, &request)) {
		CRASH_POINT();
		limiter_notify(limiter, &limiter->segment->cell[request.seat].event);
		limiter_notify(limiter, &limiter->segment->ready);
		++*n_changes;
	}
	return true;
}

int limiter_settle(struct limiter *limiter, uint32_t seat, struct limiter_snap *ret,
		   bool *ret_is_stopped)
{
	unsigned n_changes = 0;

	for (unsigned i = 0; i < LIMITER_TRIES_MAX && n_changes < CHANGES_MAX; ++i) {
		int r = limiter_snap(limiter, ret);

		if (r < 0)
			return r;

		/* Whoever has moved the head since has only taken permits, or settles by itself. */
		if (!settle_once(limiter, seat, ret, ret_is_stopped, &n_changes))
			return 0;
	}

	/* Others come and go faster than they can be served one by one: they settle as well. */
	return 0;
}

/* ---- what can be asked ---- */

/* As it would be without the dead. */
static void forget_dead(const struct limiter *limiter, struct limiter_snap *snap)
{
	uint32_t n_seats = limiter_n_seats(limiter);
	uint64_t n_free = snap->n_free;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint64_t state = limiter_load(limiter, seat);

		if (limiter_state_phase(state) == LIMITER_FREE || !limiter_is_dead(limiter, seat))
			continue;
		if (limiter_state_phase(state) == LIMITER_HELD)
			n_free += limiter_request(limiter, seat, state).permits;
		else if (snap->n_waiting > 0)
			--snap->n_waiting;
	}

	snap->n_free = n_free < limiter->n_permits ? (uint32_t)n_free : limiter->n_permits;
}

int limiter_probe(struct limiter *limiter, struct limiter_denial *ret_denial)
{
	const struct limiter_request own = {
		.permits = 1, .uid = limiter->uid, .ticket = UINT64_MAX};
	struct limiter_request first;
	struct limiter_snap snap;
	enum limiter_verdict verdict;
	bool is_stopped;
	int r;

	*ret_denial = (struct limiter_denial){.reason = IPC_EAGAIN};
	r = limiter_snap(limiter, &snap);
	if (r < 0)
		return r;

	forget_dead(limiter, &snap);
	verdict = limiter_judge(limiter, &snap, &own);
	if (verdict == LIMITER_LACKS_UNITS) {
		ret_denial->reason = IPC_EDQUOT;
		ret_denial->window_left_ns = limiter_window(limiter, &snap).left_ns;
	}

	/* One of the queue that can run is about to: it tells when it has. */
	if (verdict != LIMITER_RUNS || queue_find(limiter, &snap, &first, &is_stopped) ||
	    is_stopped)
		return IPC_EAGAIN;

	return 0;
}

int limiter_get_state(struct limiter *limiter, struct ipc_limiter_state *ret)
{
	for (unsigned i = 0; i < LIMITER_TRIES_MAX; ++i) {
		struct limiter_window window;
		struct limiter_snap snap;
		int r;

		r = limiter_snap(limiter, &snap);
		if (r < 0)
			return r;

		window = limiter_window(limiter, &snap);
		forget_dead(limiter, &snap);

		/* Where it never stands still for so long, an older look has to do. */
		if (!limiter_snap_holds(limiter, &snap) && i < LOOKS_MAX)
			continue;

		ret->n_free = snap.n_free;
		ret->n_held = limiter->n_permits - snap.n_free;
		ret->n_waiting = snap.n_waiting;
		ret->reserved = 0;
		ret->window_used = window.used;
		ret->window_left_ns = window.left_ns;
		return 0;
	}

	return limiter_break(limiter);
}

uint64_t limiter_holder(const struct limiter *limiter)
{
	uint32_t n_seats = limiter_n_seats(limiter);
	uint64_t since = UINT64_MAX, holder = 0;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		const struct limiter_cell *cell = &limiter->segment->cell[seat];
		uint64_t id, began;

		if (limiter_state_phase(limiter_load(limiter, seat)) != LIMITER_HELD)
			continue;

		id = atomic_load_explicit(&cell->holder_id, memory_order_relaxed);
		began = atomic_load_explicit(&cell->since, memory_order_relaxed);
		if (id != limiter->handle_id && began < since &&
		    liveness_handle_is(limiter->table, id)) {
			since = began;
			holder = id;
		}
	}

	return holder;
}
