/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_FLIGHT_CELL_H
#define LIBIPC_CHANNEL_FLIGHT_CELL_H

/*
 * Of the flight's own files: reading and changing the state of one cell.  See flight.h.
 */

#include <ipc/error.h>

#include "libipc/channel/flight.h"
#include "libipc/platform/crash.h"

/* Nothing to be said yet: the state has moved on, look again. */
#define FLIGHT_AGAIN 3

/* How often a state is looked at again because it moved on.  It moves by what others do; a state
 * that moves so often within one call is no flight's. */
#define FLIGHT_TRIES_MAX (1u << 20)

static inline uint64_t flight_state_make(uint64_t turn, uint32_t seat, uint64_t flags,
					 enum flight_phase phase)
{
	return turn << FLIGHT_TURN_SHIFT | (uint64_t)seat << FLIGHT_SEAT_SHIFT | flags | phase;
}

/* Everything but the phase stays. */
static inline uint64_t flight_state_with(uint64_t state, enum flight_phase phase)
{
	return (state & ~UINT64_C(7)) | phase;
}

static inline uint64_t flight_load(const struct flight *flight, uint32_t cell)
{
	/* [G1] What whoever stored this state wrote before is seen.  Pairs with [G2]. */
	return atomic_load_explicit(&flight->state[cell], memory_order_acquire);
}

static inline bool flight_swap(const struct flight *flight, uint32_t cell, uint64_t from,
			       uint64_t to)
{
	/* [G2] Sequentially consistent: it also is the fence between a seat that was stored before
	 * and whatever is looked at after. */
	return atomic_compare_exchange_strong_explicit(&flight->state[cell], &from, to,
						       memory_order_seq_cst, memory_order_relaxed);
}

static inline struct flight_run *flight_run(const struct flight *flight, uint32_t cell,
					    uint64_t state)
{
	return &flight->cell[cell].run[state & FLIGHT_SECOND ? 1 : 0];
}

/* The other one, of the next flight. */
static inline struct flight_run *flight_run_next(const struct flight *flight, uint32_t cell,
						 uint64_t state)
{
	return &flight->cell[cell].run[state & FLIGHT_SECOND ? 0 : 1];
}

static inline void flight_run_set(struct flight_run *run, uint64_t base)
{
	atomic_store_explicit(&run->base, base, memory_order_relaxed);
	atomic_store_explicit(&run->n_joined, 1, memory_order_relaxed);
	atomic_store_explicit(&run->urgency, 0, memory_order_relaxed);
}

/* How many leaders there have been, the present one included.  Turns come round. */
static inline uint64_t flight_epoch(const struct flight *flight, uint32_t cell, uint64_t state)
{
	uint64_t base =
		atomic_load_explicit(&flight_run(flight, cell, state)->base, memory_order_relaxed);

	return (flight_state_turn(state) - base) & (UINT64_MAX >> FLIGHT_TURN_SHIFT);
}

/* Whether the seat in the state is somebody's alive who holds this cell by it. */
static inline bool flight_seat_is_held(const struct flight *flight, uint32_t cell, uint64_t state)
{
	return seats_is_held(&flight->segment->seats, flight->table, flight_state_seat(state),
			     cell);
}

/* In flight, and nobody leads. */
static inline bool flight_is_leaderless(const struct flight *flight, uint32_t cell, uint64_t state)
{
	return flight_state_phase(state) == FLIGHT_UNLED ||
	       (flight_state_phase(state) == FLIGHT_LED &&
		!flight_seat_is_held(flight, cell, state));
}

/* The process that has the seat in the state is gone, and not only held dead. */
static inline bool flight_seat_is_gone(const struct flight *flight, uint64_t state)
{
	return seats_is_gone(&flight->segment->seats, flight->table, flight_state_seat(state));
}

/* A leader that was held dead while it lives is in the middle of writing its result. */
bool flight_is_written(const struct flight *flight, uint32_t cell, uint64_t state);

/* An asker's cell that is not queued yet, and whose process is not gone. */
static inline bool flight_is_setup(const struct flight *flight, uint32_t cell, uint64_t state)
{
	return flight_state_phase(state) == FLIGHT_LED && flight_epoch(flight, cell, state) == 0 &&
	       !flight_seat_is_gone(flight, state);
}

static inline uint64_t flight_handlers_side(const struct flight *flight)
{
	return liveness_side(flight->table, flight->channel_slot, FLIGHT_SIDE_HANDLERS);
}

/* For a part that has a seat and nothing else yet. */
void flight_part_begin(struct flight_part *part);

void flight_notify(const struct flight *flight, struct eventcount *event);

/* The whole table is broken from now on: IPC_EBADMSG.  IPC_ESTALE: no, this handle is held dead. */
int flight_break(struct flight *flight);

/* Kernel's id of this thread. */
uint32_t flight_thread(void);

/*
 * Ends a leaderless flight that was found in this state: those who joined are told.  False: it has
 * moved on.
 */
bool flight_end(struct flight *flight, uint32_t cell, uint64_t state, uint64_t flags);

/*
 * This part is the leader from now on, if the state has not moved on: the seat names the cell
 * already.  A cell that the last leader still writes into is ended instead.
 */
bool flight_lead(struct flight *flight, struct flight_part *part, uint64_t state);

/* What a leader writes after its exchange of the state. */
void flight_led(struct flight *flight, struct flight_part *part);

/* Nobody is left in the leaderless flight but, perhaps, this seat, which is the caller's own: it is
 * ended then. */
bool flight_end_if_left(struct flight *flight, uint32_t cell, uint64_t state, uint32_t seat);

/* What becomes of a queued key. */
enum flight_queue { FLIGHT_QUEUE_WAITS, FLIGHT_QUEUE_OVER, FLIGHT_QUEUE_NONE };

/* For a leaderless state with ASKED: it waits for a handler; it is over; it goes on without
 * handlers. */
enum flight_queue flight_queue(const struct flight *flight, uint32_t cell, uint64_t state);

/* No more leaders, by the options. */
static inline bool flight_is_exhausted(const struct flight *flight, uint32_t cell, uint64_t state)
{
	uint64_t epoch = flight_epoch(flight, cell, state);

	return epoch > 0 && (!flight->promotes || epoch >= flight->attempts_max);
}

/*
 * A cell of the part's own: CLAIMED by its seat, which names it, and in no chain.  0; IPC_ENOSPC;
 * IPC_ENOMEM; IPC_EBADMSG.
 */
int flight_claim(struct flight *flight, struct flight_part *part);

/* Gives a claimed cell back that is in no chain. */
void flight_unclaim(struct flight *flight, uint32_t cell);

/* Whether a finished cell is held by nobody; only where FOLLOWED is not set. */
static inline bool flight_is_let_go(const struct flight *flight, uint32_t cell, uint64_t state)
{
	return !(state & FLIGHT_FOLLOWED) && !flight_seat_is_held(flight, cell, state);
}

#endif
