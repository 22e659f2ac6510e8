/* SPDX-License-Identifier: MIT */

/*
 * What can be asked of a limiter without changing anything.
 */

#include <string.h>

#include "libipc/channel/limiter_head.h"

/* How often a state is looked at again because it changed. */
#define LOOKS_MAX 16

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

/*
 * As it would be after the next operation of anybody: whoever was granted something by that, but
 * waits for somebody to do it, is granted it in the copy.  False: what is free is not for those who
 * come later.
 */
static bool assume_settled(const struct limiter *limiter, struct limiter_snap *snap)
{
	struct limiter_request first;
	bool is_stopped;

	forget_dead(limiter, snap);
	while (limiter_queue_find(limiter, snap, &first, &is_stopped)) {
		snap->granted[first.seat / 64] |= UINT64_C(1) << first.seat % 64;
		limiter_assume(limiter, snap, &first);
	}

	return !is_stopped;
}

int limiter_probe(struct limiter *limiter, struct limiter_denial *ret_denial)
{
	const struct limiter_request own = {
		.permits = 1, .uid = limiter->uid, .ticket = UINT64_MAX};
	enum limiter_verdict verdict = LIMITER_RUNS;
	uint64_t granted[LIMITER_SEATS / 64];
	struct limiter_snap snap;
	bool is_next = false;

	for (unsigned i = 0; i < LOOKS_MAX; ++i) {
		int r;

		r = limiter_snap(limiter, &snap);
		if (r < 0)
			return r;

		memset(granted, 0, sizeof(granted));
		snap.granted = granted;
		is_next = assume_settled(limiter, &snap);
		verdict = limiter_judge(limiter, &snap, &own);

		/* Where it never stands still for so long, an older look has to do: what changes
		 * later tells. */
		if (limiter_snap_holds(limiter, &snap))
			break;
	}

	*ret_denial = (struct limiter_denial){.reason = IPC_EAGAIN};
	if (verdict == LIMITER_LACKS_UNITS) {
		ret_denial->reason = IPC_EDQUOT;
		ret_denial->window_left_ns = limiter_window(limiter, &snap).left_ns;
	}

	return verdict == LIMITER_RUNS && is_next ? 0 : IPC_EAGAIN;
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
