/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_LIMITER_H
#define LIBIPC_CHANNEL_LIMITER_H

/*
 * The structure of the kind `limiter`: permits of which at most so many are held at a time, and
 * units of which at most so many are used in a window of time.  There is no lock: whatever happens
 * is decided by one exchange of one word, and whoever is stopped or killed at whichever instruction
 * stops or hinders nobody else.
 *
 * A request or a grant is a seat (core/seats.h).  Each seat has a cell and a state word
 * {turn 37 bits, window 24, phase 3}:
 *
 * phase    what it is
 * FREE     nobody's request
 * WAITING  a request in the queue
 * HELD     a grant: its permits are held; `window` is the number of the window that it cost
 *
 * turn grows with each change of the word: a value never comes again, and which of two is later can
 * be told.
 *
 * `head` is {seq 50, seat 13, which 1}: it names the record, one of the two of a seat, in which
 * stands all that has been decided so far (free permits, the window, how many wait) and the last
 * change of a state word: {cell, to}.
 *
 * The one operation: read the record that head names; exchange that cell's word for `to`, unless it
 * is that already, or later; look at whatever decides; write a record of one's own, in the one of
 * the seat's two that head does not name; exchange head, seq + 1.  From then on it has happened,
 * and the cell's word follows when the next one comes.  So at most one cell's word is behind what
 * was decided, and for whoever saw head unchanged by the exchange everything that was looked at
 * holds together: the sum of what is held, who waits, who is dead.
 *
 * Two things spare exchanges.  Who releases what was granted last leaves out the cell's word of the
 * grant: that of the release is later.  And who lets go of its own seat stores FREE plainly: a FREE
 * cell is changed by nobody else.
 *
 * field        written by          rule
 * head         everybody           by exchange alone
 * record       whoever has its     while head does not name it.  A reader copies it and looks at
 *              seat                head again: it was that record if head is the same
 * state        everybody           by exchange alone, only as the record says that head names
 *              whoever has the     a plain FREE, as the last record about the cell says
 *              seat
 * permits,     whoever has the     while the state is FREE
 * holder_id,   seat
 * uid, ticket
 * since        whoever has the     for people
 *              seat
 * lacks_window whoever has the     number of the window that its request in the queue is known to
 *              seat                have too few units in; 0: of none.  Who grants wakes those that
 *                                  lack units of a window and do not know
 * event        -                   where the request in the queue sleeps
 * ready        -                   where those sleep who want to know of a free permit: bumped by
 *                                  each change that may have made one
 *
 * A cell whose holder_id is not open in the liveness table is a dead one's: whoever needs permits,
 * or looks at the queue, releases it (HELD) or takes it out of the queue (WAITING) by the very
 * operation by which its holder would have done so; the exchange of head lets only one succeed.
 *
 * A death between any two instructions:
 * - before the exchange of head: nothing has happened.  The record is named by nobody.
 * - after it: it has happened; the next operation of anybody brings the cell's word up to date. The
 *   record stays: a row of seats changes hands only when the process is gone, and the next one who
 *   has the seat writes only records that head does not name.
 * - after a release and before the look at the queue, between two grants, or after a grant and
 *   before the wake of who was granted and of those whose units it took: the broker wakes everybody
 *   who waits, and each of them looks at the queue.
 *
 * Held dead but alive: such a process may still make its exchange of head.  If that comes first it
 * is granted, and taken away again as from any dead; if its cell was taken away before, head is
 * another one, the exchange fails, and it finds its cell changed.  It writes into records of its
 * own seats alone, which nobody else has before it is gone.
 *
 * The queue: tickets are the seq of the operation that queued the request.  The oldest that can run
 * is granted; one that lacks permits alone stops all younger ones; one that is held up by its
 * user's bound is passed over by other users, one that the window has no units for by everybody.
 *
 * The window: it begins with a grant that finds none running, and is over by the clock alone.
 * Start, number and used units stand in the record, so they change in the same exchange as the
 * permits, and a grant's units are counted exactly once.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/limiter.h>

#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/liveness.h"
#include "libipc/core/seats.h"
#include "libipc/platform/compiler.h"

/* shape[0] permits, [1] per_user_max or 0, [2] window_units or 0, [3] window_ns. */
#define LIMITER_ROWS  1024
#define LIMITER_SEATS (LIMITER_ROWS * SEATS_PER_ROW)

enum limiter_phase { LIMITER_FREE = 0, LIMITER_WAITING, LIMITER_HELD };

#define LIMITER_WINDOW_BITS 24
#define LIMITER_TURN_SHIFT  27

static inline enum limiter_phase limiter_state_phase(uint64_t state)
{
	return (enum limiter_phase)(state & 7);
}

static inline uint64_t limiter_state_turn(uint64_t state)
{
	return state >> LIMITER_TURN_SHIFT;
}

/* Of two words of one cell, whether the second is the later one.  Turns run in a circle: what
 * counts is which of the two ways round is the shorter one. */
static inline bool limiter_state_is_later(uint64_t state, uint64_t than)
{
	uint64_t ahead = limiter_state_turn(state) - limiter_state_turn(than);

	return (int64_t)(ahead << LIMITER_TURN_SHIFT) > 0;
}

static inline uint64_t limiter_state_window(uint64_t state)
{
	return state >> 3 & ((UINT64_C(1) << LIMITER_WINDOW_BITS) - 1);
}

static inline uint32_t limiter_head_seat(uint64_t head)
{
	return (uint32_t)(head >> 1) & (LIMITER_SEATS - 1);
}

/* What was decided.  cell and to: the change of a state word that comes with it. */
struct limiter_record {
	_Alignas(64) _Atomic uint64_t to;
	_Atomic uint32_t cell;
	_Atomic uint32_t n_free;
	_Atomic uint32_t n_waiting;
	_Atomic uint32_t held_max;      /* most permits ever held at a time */
	_Atomic uint64_t window_start;  /* CLOCK_BOOTTIME ns; 0: there was none yet */
	_Atomic uint64_t window_number; /* of windows begun */
	_Atomic uint64_t window_used;
	uint64_t reserved[2];
};
ASSERT_SIZE(struct limiter_record, 64);

struct limiter_cell {
	_Alignas(64) _Atomic uint64_t holder_id;
	_Atomic uint64_t ticket;
	_Atomic uint64_t since; /* CLOCK_MONOTONIC ns */
	_Atomic uint32_t permits;
	_Atomic uint32_t uid;
	_Atomic uint64_t lacks_window;
	uint64_t reserved[3];
	struct limiter_record record[2];
	struct eventcount event;
};
ASSERT_SIZE(struct limiter_cell, 256);

struct limiter_segment {
	struct channel_header header;
	_Alignas(64) _Atomic uint64_t head;
	_Alignas(64) struct eventcount ready;
	struct seats seats;
	_Alignas(64) _Atomic uint64_t state[LIMITER_SEATS];
	struct limiter_cell cell[LIMITER_SEATS];
};

/* One handle's view, private to the process. */
struct limiter {
	struct limiter_segment *segment;
	uint32_t n_permits;
	uint32_t per_user_max; /* UINT32_MAX: no bound */
	uint64_t window_units; /* 0: no window */
	uint64_t window_ns;
	uint64_t handle_id;

	/* Given by the owner after attach. */
	const struct liveness_table *table;
	uint32_t uid;
	void (*ring)(void *userdata); /* as struct flight's; NULL: nobody is ever armed */
	void *ring_userdata;
};

/* One request or grant, private; used by one thread at a time. */
struct limiter_part {
	uint32_t seat;
	uint32_t permits;
	uint64_t state;  /* HELD or WAITING: the word by which it is the caller's */
	uint64_t window; /* HELD: number of the window that it cost */
};

/* Why a request has to wait, and until when at most that holds by itself. */
struct limiter_denial {
	int reason;              /* IPC_EAGAIN, IPC_EBUSY, IPC_EDQUOT */
	uint64_t window_left_ns; /* IPC_EDQUOT: of the window */
};

/* Bytes of a segment, not rounded to pages.  0: no such shape. */
uint64_t limiter_segment_size(const uint64_t shape[4]);

/* As the other kinds': over zero bytes or what a creator left that died in here. */
IPC_CHECKED int limiter_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* 0; IPC_EBADMSG; IPC_EPROTONOSUPPORT. */
IPC_CHECKED int limiter_attach(struct limiter *ret, void *segment, uint64_t size,
			       const uint64_t shape[4], uint64_t handle_id);

/* A row of seats for this handle.  False: none is left. */
bool limiter_row_take(struct limiter *limiter, uint32_t *ret_row);
void limiter_row_give(struct limiter *limiter, uint32_t row);

/* 0; IPC_EINVAL: none; IPC_EMSGSIZE: more than can ever be had. */
IPC_CHECKED int limiter_check(const struct limiter *limiter, uint32_t permits);

/* part->seat, which is FREE, and part->permits are given, the rest is written here.  0: held;
 * IPC_EAGAIN, IPC_EBUSY, IPC_EDQUOT: ret_denial tells more; IPC_EBADMSG; IPC_ESTALE. */
IPC_CHECKED int limiter_acquire(struct limiter *limiter, struct limiter_part *part,
				struct limiter_denial *ret_denial);

/* The same, and where IPC_EAGAIN or IPC_EBUSY would be said, or IPC_EDQUOT with no more time left
 * than window_wait_ns, the request stands in the queue instead: 1. */
IPC_CHECKED int limiter_queue(struct limiter *limiter, struct limiter_part *part,
			      uint64_t window_wait_ns, struct limiter_denial *ret_denial);

/* Of a request in the queue.  0: held; IPC_EAGAIN: not yet, ret_denial says why; IPC_EBADMSG;
 * IPC_ESTALE: this handle is held dead. */
IPC_CHECKED int limiter_look(struct limiter *limiter, struct limiter_part *part,
			     struct limiter_denial *ret_denial);

/* Takes it out of the queue.  True: too late, it is held. */
bool limiter_give_up(struct limiter *limiter, struct limiter_part *part);

/* 0; IPC_ESTALE: it is not held any more; IPC_EBADMSG. */
IPC_CHECKED int limiter_release(struct limiter *limiter, struct limiter_part *part, bool refund);

/* Whether limiter_acquire() of one permit would succeed: 0; IPC_EAGAIN, with ret_denial; or a
 * fault.  Changes nothing: what acquire would grant to others first is granted in a copy. */
IPC_CHECKED int limiter_probe(struct limiter *limiter, struct limiter_denial *ret_denial);

/* What is now, without what the dead hold; ret->size is not written.  0; IPC_EBADMSG. */
IPC_CHECKED int limiter_get_state(struct limiter *limiter, struct ipc_limiter_state *ret);

/* The handle that has held permits for the longest time, other than this one; 0: none. */
uint64_t limiter_holder(const struct limiter *limiter);

static inline struct eventcount *limiter_event(const struct limiter *limiter,
					       const struct limiter_part *part)
{
	return &limiter->segment->cell[part->seat].event;
}

static inline struct eventcount *limiter_ready_event(const struct limiter *limiter)
{
	return &limiter->segment->ready;
}

#endif
