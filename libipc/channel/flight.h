/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_FLIGHT_H
#define LIBIPC_CHANNEL_FLIGHT_H

/*
 * The structure of the kind `flight`: a table of cells, one for each key that is under way or whose
 * result is still held.  There is no lock: a cell's life is one word, `state`, and whoever is
 * stopped or killed at whichever instruction stops or hinders nobody else.
 *
 * state is {turn 37 bits, seat 15, flags 9, phase 3}:
 *
 * phase    seat           what it is
 * FREE     -              never used since the table was made
 * CLAIMED  who claimed    being prepared for another key, in no chain or on its way out of one
 * LED      the leader     in flight
 * UNLED    the last, or   in flight: the leader left or died; or the key waits for a handler
 *          the asker
 * LANDED   the leader     finished: the result is there
 * FAILED   the leader     finished: the failure and its reason are there
 * ENDED    the last       finished without a result: those who joined are told that the leader is
 *          leader         gone
 *
 * turn grows with each claim, each lead that is taken and each promotion: a compare-and-swap of the
 * word fails if anything of that kind happened since it was read.
 *
 * flag       set by                     rule
 * LINKED     who inserts                the cell is (or was about to be) in its bucket's chain
 * FOLLOWED   the first who joins        somebody but the leader takes part.  Without it nobody has
 *                                       to be woken, and the cell is held by the leader's seat only
 * ASKED      the first asker            at the leader's end the key goes to a handler
 * ASKED_NEW  the asker who inserts      the flight began as an ask: nobody who joined is promoted
 * STAYS      an asker with IPC_STAY     the absence of handlers does not end it
 * DOOMED     who needs the key anew     finished, and never to be revived: see below
 * CHECKED    who looks if all are gone  cleared by whoever joins: the two cannot miss each other
 * CLOSED     who ends it                ENDED by the handlers' close, else by a death
 * SECOND     who starts a flight        run[1] is this flight's, else run[0]
 *
 * One cell for a key.  A finished cell that nobody holds stays in its chain, key and all, so that
 * the next flight of the key costs one exchange: LANDED to LED.  That and a new cell for the same
 * key must exclude each other: who inserts a new cell first makes every finished cell of the key
 * DOOMED (by an exchange, which a revival would fail against, and the other way round), and inserts
 * only if the chain's head has not changed since its search began.
 *
 * field          written by           rule
 * node.next      see keytable.h
 * node.hash,     the claimer          before the cell is in the chain; never changes while it is
 * key, key_size                       LINKED and not CLAIMED
 * run[].base     see below            turn of the flight's start: epoch is turn - base
 * run[].urgency  askers               grows only
 * run[].n_joined whoever joins        counts callers, for people
 * order          asker who inserts    ticket: the oldest is taken first
 * queued_ends    asker, leaver        how often the handlers' side had ended when it was queued
 * leader_id,     the leader           hints for people: stale after a death
 * led_since
 * event          -                    where those who joined sleep
 * result...      the leader, before   meaningful while LANDED or FAILED
 *                it finishes
 *
 * A revival is one exchange, so all that a flight begins with has to be there before.  The leader
 * who finishes a flight, and so is alone with the cell, writes it into the other one of run[]; a
 * revival turns SECOND over.  Cells that were ENDED, by whoever looked, are claimed instead.
 *
 * Who leads: LED by a seat that somebody alive holds this very cell by.  A leader whose handle the
 * broker ended is passed over by whoever looks: an exchange of the word, which exactly one wins.
 * A leader that was held dead while it lives may just be writing its result: it holds its seat's
 * `writer` then.  So the lead is taken away first (UNLED, with the old seat), and only then taken:
 * whoever wants it looks at that lock in between, and ends the flight instead of sharing the
 * memory. If the old one takes the lock later, it sees the new state before it writes.
 *
 * What no exchange guards (a cell that is CLAIMED, or LED and alone, and so perhaps not yet in the
 * chain) changes hands only when the process is gone.
 *
 * Who holds a cell: seats that name it, see seats.h.  A follower stores its seat, then looks at the
 * state; a cell is claimed only after a look at the state and then at the seats.  A finished cell
 * without FOLLOWED is held as long as its leader's seat names it.
 *
 * A death between any two stores:
 * - before the cell is inserted: CLAIMED or LED by a dead seat, not in the chain; claimed again.
 * - after it: LED by a dead seat; the next to look is promoted, or ends it, or claims it.
 * - between finishing and waking: the broker wakes every client of the table.
 * - after joining: the seat is as good as empty.
 * - claiming: CLAIMED by a dead seat: the next claimer goes on with the removal from the chain.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/flight.h>

#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/keytable.h"
#include "libipc/core/liveness.h"
#include "libipc/core/seats.h"
#include "libipc/platform/compiler.h"

/* Sides of the channel. */
enum flight_side { FLIGHT_SIDE_HANDLERS = 0, FLIGHT_SIDE_TABLES = 1 };

/* shape[0] result_size_max, [1] keys_max, [2] key_size_max, [3] attempts_max.  NO_PROMOTE is a flag
 * of the channel. */
#define FLIGHT_KEYS_MAX KEYTABLE_NODES_MAX

enum flight_phase {
	FLIGHT_FREE = 0,
	FLIGHT_CLAIMED,
	FLIGHT_LED,
	FLIGHT_UNLED,
	FLIGHT_LANDED,
	FLIGHT_FAILED,
	FLIGHT_ENDED,
};

#define FLIGHT_LINKED    UINT64_C(0x008)
#define FLIGHT_FOLLOWED  UINT64_C(0x010)
#define FLIGHT_ASKED     UINT64_C(0x020)
#define FLIGHT_ASKED_NEW UINT64_C(0x040)
#define FLIGHT_STAYS     UINT64_C(0x080)
#define FLIGHT_DOOMED    UINT64_C(0x100)
#define FLIGHT_CHECKED   UINT64_C(0x200)
#define FLIGHT_CLOSED    UINT64_C(0x400)
#define FLIGHT_SECOND    UINT64_C(0x800)

#define FLIGHT_FLAGS UINT64_C(0xff8)

#define FLIGHT_SEAT_SHIFT 12
#define FLIGHT_TURN_SHIFT 27

static inline enum flight_phase flight_state_phase(uint64_t state)
{
	return (enum flight_phase)(state & 7);
}

static inline uint32_t flight_state_seat(uint64_t state)
{
	return (uint32_t)(state >> FLIGHT_SEAT_SHIFT) & (SEATS_MAX - 1);
}

static inline uint64_t flight_state_turn(uint64_t state)
{
	return state >> FLIGHT_TURN_SHIFT;
}

static inline bool flight_state_is_in_flight(uint64_t state)
{
	return flight_state_phase(state) == FLIGHT_LED || flight_state_phase(state) == FLIGHT_UNLED;
}

/* What a flight begins with: {its own state's turn - 1, 1 caller, urgency 0}. */
struct flight_run {
	_Atomic uint64_t base;
	_Atomic uint32_t n_joined;
	_Atomic uint32_t urgency;
};

struct flight_cell {
	_Alignas(64) struct keynode node;
	struct flight_run run[2];
	_Atomic uint64_t order;
	_Atomic uint32_t key_size;
	_Atomic uint32_t queued_ends;
	struct eventcount event;
	_Alignas(64) _Atomic uint64_t leader_id;
	_Atomic uint64_t led_since; /* CLOCK_MONOTONIC ns */
	_Atomic uint64_t result_size;
	_Atomic uint64_t fence;
	_Atomic uint32_t failure;
	_Atomic uint32_t code;
	uint32_t reserved[6];
};
ASSERT_SIZE(struct flight_cell, 192);
ASSERT_OFFSET(struct flight_cell, event, 64);
ASSERT_OFFSET(struct flight_cell, leader_id, 128);

struct flight_segment {
	struct channel_header header;
	struct eventcount handlers; /* where handlers sleep: woken when a key waits for one */
	_Alignas(64) uint64_t seed; /* of the hash; written by the creator */
	_Alignas(64) _Atomic uint64_t ticket; /* askers: +1 each */
	_Atomic uint64_t fence; /* where other uids may join: the highest that anybody took */
	struct seats seats;

	/*
	 * Then, each beginning on 64:
	 * _Atomic uint64_t state[keys_max];
	 * _Atomic uint64_t bucket[keytable_n_buckets(keys_max)];
	 * struct flight_cell cell[keys_max];
	 * key[keys_max] of key_size_max bytes each, rounded up to 16
	 * result[keys_max] of result_size_max bytes each, rounded up to 64
	 */
};

/* Bytes from the segment's start; the broker reads states and cells at these. */
struct flight_layout {
	uint64_t state, bucket, cell, key, result, size;
	uint64_t key_stride, result_stride;
};

/* False: there is no such shape. */
bool flight_layout(struct flight_layout *ret, const uint64_t shape[4]);

/* One handle's view, private to the process. */
struct flight {
	struct flight_segment *segment;
	_Atomic uint64_t *state;
	struct flight_cell *cell;
	unsigned char *key;
	unsigned char *result;
	struct keytable keys;
	struct flight_layout layout;
	uint32_t n_cells;
	uint32_t attempts_max;
	uint64_t key_size_max, result_size_max;
	uint64_t seed;
	bool promotes;
	uint64_t handle_id;

	/* Given by the owner after attach. */
	const struct liveness_table *table;
	uint32_t channel_slot;
	_Atomic uint64_t *fence; /* the counter of this uid, in its desk */
	uint32_t fence_lane;
	bool is_foreign; /* other uids may join: fences go through the segment as well */

	/* Where to look for a cell first; a hint. */
	_Atomic uint32_t hint;

	/* Of the process: promotions of one part by two of its threads, one after the other. */
	pthread_mutex_t promotion;

	/* The other end of the wake: called after a notify that found somebody armed.  NULL: nobody
	 * is ever armed. */
	void (*ring)(void *userdata);
	void *ring_userdata;
};

/*
 * One caller's part, private; all but `seat` and `use` is this file's.
 *
 * use is for whoever makes a part anew while another thread of the process may still be about to
 * finish the flight by its last use: the bits of FLIGHT_USE are another number then, and what was
 * begun by the old one is refused once it holds the seat's `writer`.
 */
enum flight_form { FLIGHT_JOIN, FLIGHT_ASK, FLIGHT_TAKEN };

#define FLIGHT_USE UINT64_C(0xffffffff80000000)

struct flight_part {
	_Atomic uint64_t use;
	uint32_t seat;
	uint32_t cell;
	enum flight_form form;
	bool stays;          /* IPC_STAY: of an asker */
	uint32_t began_ends; /* of the handlers' side, when it asked */
	_Atomic uint32_t has_led;
	_Atomic uint32_t is_done; /* it landed or failed */
	_Atomic int32_t end;      /* its own end, for ever; 0: none */
	_Atomic uint64_t fence;   /* while it leads, and after */
};

/* Bytes of a segment, not rounded to pages.  0: no such shape. */
uint64_t flight_segment_size(const uint64_t shape[4]);

/* As the other kinds': over zero bytes or what a creator left that died in here. */
IPC_CHECKED int flight_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* 0; IPC_EBADMSG; IPC_EPROTONOSUPPORT.  The owner fills in the given fields, and calls
 * flight_detach() in the end. */
IPC_CHECKED int flight_attach(struct flight *ret, void *segment, uint64_t size,
			      const uint64_t shape[4], uint64_t channel_flags, uint64_t handle_id);
void flight_detach(struct flight *flight);

/*
 * A row of seats for this handle; what a dead owner led is up for those who follow.  False: none is
 * left.  To be given back when flight_leave() was called for all of its seats: a handle that is
 * held dead keeps its rows.
 */
bool flight_row_take(struct flight *flight, uint32_t *ret_row);
void flight_row_give(struct flight *flight, uint32_t row);

/*
 * Joins (FLIGHT_JOIN, FLIGHT_ASK) with part->seat, which must be empty; part->form and part->stays
 * are set, the rest is written here.
 *
 * 1: this part leads (JOIN alone); 0: finished; 2: pending.  IPC_EDEADLK: this thread leads the
 * key; IPC_ENOTCONN: asked, and there is no handler; IPC_EMSGSIZE, IPC_EINVAL: of the key;
 * IPC_ENOSPC; IPC_ENOMEM; IPC_EBADMSG.  After an error the seat is empty.
 */
IPC_CHECKED int flight_join(struct flight *flight, struct flight_part *part, const void *key,
			    uint64_t key_size, uint32_t urgency);

/*
 * 1: leads; 0: finished; IPC_EAGAIN: pending; IPC_EOWNERDEAD, IPC_EPIPE: how it ended;
 * IPC_EBADMSG.  Takes the lead if it is to be had.
 */
IPC_CHECKED int flight_look(struct flight *flight, struct flight_part *part);

/* The handler's: the most urgent key, the oldest of those.  0; IPC_EAGAIN; IPC_EBADMSG. */
IPC_CHECKED int flight_take(struct flight *flight, struct flight_part *part);

/* Whether flight_take() would have something (a hint). */
bool flight_is_takeable(struct flight *flight);

/*
 * failure IPC_FAILURE_NONE: lands.  `use` as it was when the call began.  0; IPC_EINVAL: does not
 * lead, or has finished it already, or `use` is another one by now; IPC_ESTALE: led, and was passed
 * over; IPC_EMSGSIZE; IPC_ENOSYS: this thread can take no robust lock.
 */
IPC_CHECKED int flight_finish(struct flight *flight, struct flight_part *part, uint64_t use,
			      enum ipc_failure failure, int32_t code, const void *data,
			      uint64_t size);

/* Lets go: the lead is handed on (a handler's: ABANDONED), the seat is empty afterwards. */
void flight_leave(struct flight *flight, struct flight_part *part);

/* For a part that holds its cell.  get_result: IPC_EAGAIN while it is not finished. */
IPC_CHECKED int flight_get_result(struct flight *flight, const struct flight_part *part,
				  struct ipc_flight_result *ret);
IPC_CHECKED int flight_get_fence(struct flight *flight, struct flight_part *part, uint64_t *ret);
void flight_get_key(const struct flight *flight, const struct flight_part *part,
		    const void **ret_key, size_t *ret_size);
uint32_t flight_get_urgency(const struct flight *flight, const struct flight_part *part);

/* Handle id of who leads the part's flight; 0: nobody. */
uint64_t flight_leader_id(const struct flight *flight, const struct flight_part *part);

/* Keys in flight. */
uint32_t flight_count(const struct flight *flight);

static inline struct eventcount *flight_event(const struct flight *flight,
					      const struct flight_part *part)
{
	return &flight->cell[part->cell].event;
}

static inline struct eventcount *flight_handlers_event(const struct flight *flight)
{
	return &flight->segment->handlers;
}

#endif
