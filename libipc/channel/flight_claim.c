/* SPDX-License-Identifier: MIT */

/*
 * Cells for new keys.  First those that nobody holds at a look at two words; then, when there is
 * none, one sweep over all seats tells which of the others are held by nobody alive.
 */

#include <stdlib.h>

#include "libipc/channel/flight_cell.h"
#include "libipc/platform/compiler.h"

void flight_unclaim(struct flight *flight, uint32_t cell)
{
	uint64_t state = flight_load(flight, cell);

	/* In no chain: FREE.  Nobody changes a claimed cell but its claimer. */
	(void)flight_swap(flight, cell, state,
			  flight_state_make(flight_state_turn(state), 0, 0, FLIGHT_FREE));
}

/* ---- one cell ---- */

/* Whether the cell can be had without asking who holds it. */
static bool claim_may(const struct flight *flight, uint32_t cell, uint64_t state)
{
	switch (flight_state_phase(state)) {
	case FLIGHT_FREE:
		return true;
	case FLIGHT_CLAIMED:
		return !flight_seat_is_held(flight, cell, state) &&
		       flight_seat_is_gone(flight, state);
	case FLIGHT_LED:
		/* Dead, and alone: who joins meanwhile sets FOLLOWED and fails the exchange. */
		return flight_is_let_go(flight, cell, state) && flight_seat_is_gone(flight, state);
	case FLIGHT_LANDED:
	case FLIGHT_FAILED:
		return flight_is_let_go(flight, cell, state);
	case FLIGHT_ENDED:
		return flight_is_let_go(flight, cell, state) &&
		       !flight_is_written(flight, cell, state);
	case FLIGHT_UNLED:
		return false;
	}

	return false;
}

/* 0: claimed, and in no chain; AGAIN: not this one. */
static int claim_cell(struct flight *flight, struct flight_part *part, uint32_t cell,
		      uint64_t state)
{
	uint64_t turn = flight_state_turn(state) + 1;
	bool was_linked = state & FLIGHT_LINKED;

	part->cell = cell;
	seats_hold_unfenced(&flight->segment->seats, part->seat, cell);
	CRASH_POINT();

	/* LINKED stays: if this process dies, the next one takes it out of the chain. */
	if (!flight_swap(
		    flight, cell, state,
		    flight_state_make(turn, part->seat, state & FLIGHT_LINKED, FLIGHT_CLAIMED)))
		return FLIGHT_AGAIN;
	CRASH_POINT();

	if (was_linked && !keytable_remove(&flight->keys, cell)) {
		seats_drop(&flight->segment->seats, part->seat);
		return flight_break(flight);
	}
	CRASH_POINT();

	return 0;
}

/* 0, AGAIN: there is none. */
static int claim_any(struct flight *flight, struct flight_part *part)
{
	uint32_t cell = atomic_load_explicit(&flight->hint, memory_order_relaxed);

	for (uint32_t i = 0; i < flight->n_cells;
	     ++i, cell = cell + 1 == flight->n_cells ? 0 : cell + 1) {
		uint64_t state = flight_load(flight, cell);
		int r;

		if (!claim_may(flight, cell, state))
			continue;

		r = claim_cell(flight, part, cell, state);
		if (r != FLIGHT_AGAIN) {
			atomic_store_explicit(&flight->hint, cell, memory_order_relaxed);
			return r;
		}
	}

	seats_drop(&flight->segment->seats, part->seat);
	return FLIGHT_AGAIN;
}

/* ---- the sweep ---- */

struct sweep {
	uint64_t *state; /* of each cell, as it was before the seats were looked at */
	uint64_t *held;  /* one bit for each cell */
};

/* Whether it would be claimable if nobody held it. */
static bool sweep_wants(const struct flight *flight, uint32_t cell, uint64_t state)
{
	switch (flight_state_phase(state)) {
	case FLIGHT_LANDED:
	case FLIGHT_FAILED:
	case FLIGHT_ENDED:
		return state & FLIGHT_FOLLOWED;
	case FLIGHT_UNLED:
		return true;
	case FLIGHT_LED:
		return (state & FLIGHT_FOLLOWED) && flight_is_leaderless(flight, cell, state) &&
		       !flight_is_setup(flight, cell, state);
	case FLIGHT_FREE:
	case FLIGHT_CLAIMED:
		return false;
	}

	return false;
}

/* Nobody held the cell: it is let go of from now on.  A leaderless flight may have been joined
 * since, and is looked at for itself. */
static bool sweep_let_go(struct flight *flight, uint32_t cell, uint64_t state, uint32_t seat)
{
	if (flight_state_is_in_flight(state))
		return flight_end_if_left(flight, cell, state, seat);

	return flight_swap(flight, cell, state, state & ~FLIGHT_FOLLOWED);
}

static bool sweep_cells(struct flight *flight, struct sweep *sweep, uint32_t seat)
{
	bool found = false;

	for (uint32_t cell = 0; cell < flight->n_cells; ++cell) {
		uint64_t state = flight_load(flight, cell);

		sweep->state[cell] = sweep_wants(flight, cell, state) ? state : 0;
	}

	seats_fence();
	seats_mark(&flight->segment->seats, flight->table, sweep->held, flight->n_cells);

	for (uint32_t cell = 0; cell < flight->n_cells; ++cell) {
		if (sweep->state[cell] && !(sweep->held[cell / 64] >> cell % 64 & 1))
			found |= sweep_let_go(flight, cell, sweep->state[cell], seat);
	}

	return found;
}

/* 0: something was let go of; IPC_ENOSPC, IPC_ENOMEM. */
static int claim_sweep(struct flight *flight, uint32_t seat)
{
	struct sweep sweep;
	int r;

	sweep.state = calloc(flight->n_cells, sizeof(*sweep.state));
	sweep.held = calloc(flight->n_cells / 64 + 1, sizeof(*sweep.held));
	if (sweep.state && sweep.held)
		r = sweep_cells(flight, &sweep, seat) ? 0 : IPC_ENOSPC;
	else
		r = IPC_ENOMEM;

	free(sweep.state);
	free(sweep.held);
	return r;
}

int flight_claim(struct flight *flight, struct flight_part *part)
{
	int swept = 0;

	for (unsigned i = 0; i < FLIGHT_TRIES_MAX; ++i) {
		int r;

		r = claim_any(flight, part);
		if (r != FLIGHT_AGAIN)
			return r;

		/* A sweep that finds nothing may have come after somebody else's, which found it
		 * all: only then is the table full if there is still nothing. */
		if (swept < 0)
			return swept;
		swept = claim_sweep(flight, part->seat);
	}

	return flight_break(flight);
}
