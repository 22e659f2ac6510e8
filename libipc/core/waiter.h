/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_WAITER_H
#define LIBIPC_CORE_WAITER_H

/*
 * The one place where the library sleeps: look, yield, sleep.
 *
 * 1. look: the condition a few hundred nanoseconds long, skipped when the peer last ran on this
 * CPU;
 * 2. yield: up to 32 times, fewer when the last waits ended in a sleep all the same;
 * 3. sleep on {event word, this client's attention word, this client's cancel word} in slices.
 *
 * A wait for several things is the same loop with more words in the third step.
 *
 * The look decides in the order of M-21: the condition first, then the other side's end, then a
 * terminal close.  The waiter adds cancel, the deadline and, once a slice or when the attention
 * word moved, the check of the control socket.  Attention and event are read before the look that
 * precedes the sleep, so nothing that happens after that look is missed.
 */

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/core/eventcount.h"
#include "libipc/core/liveness.h"

/* What a look returns when nothing has been decided.  Any other value ends the wait and is its
 * result. */
#define WAITER_NOT_YET INT_MIN

typedef int (*waiter_look_fn)(void *subject);

/* Private to the process, one per handle: how patient it pays to be.  Races between threads are
 * harmless. */
struct waiter_patience {
	_Atomic uint32_t n_waits;
	_Atomic uint32_t n_sleeps_in_a_row;
};

/*
 * Of a wait for several things: what is slept on beside attention and cancel.  The waiter has no
 * event of its own then.
 *
 * Where the kernel waits for one word only, the events are armed instead of slept on: who notifies
 * one of them has the attention word bumped, which is where the sleep is then.
 */
struct waiter_more {
	struct eventcount *const *events;
	unsigned n_events; /* at most WAITER_MORE_MAX */

	/* Set before an event is armed for a sleep on the attention word alone, which the broker
	 * moves: this client's bell would not be heard.  May be NULL. */
	_Atomic uint32_t *is_deaf;

	/* For people who look on: it begins to sleep (CLOCK_MONOTONIC ns), or ended (0). */
	void (*show)(void *subject, uint64_t since_ns);
};

#define WAITER_MORE_MAX 64

struct waiter {
	struct eventcount *event; /* NULL: only the attention word counts */
	const _Atomic uint32_t *attention;
	const _Atomic uint32_t *cancel_word; /* private to the process; bumped by each cancel and
						close of this client */
	const _Atomic uint32_t *handle_cancelled; /* not 0: IPC_ECANCELED */
	const _Atomic uint32_t *client_cancelled;
	struct desk_cell *cell;           /* may be NULL */
	uint64_t waits_for;               /* handle id, goes into the cell */
	struct waiter_patience *patience; /* NULL: straight to sleep */
	const struct waiter_more *more;   /* NULL: nothing */
	uint64_t deadline_ns;
	bool ignores_signals;         /* never IPC_EINTR */
	int (*check)(void *userdata); /* the control socket; negative ends the wait */
	void *userdata;
};

/* The look's result, IPC_ECANCELED, IPC_ETIMEDOUT, IPC_EINTR, or what check says. */
int waiter_wait(struct waiter *waiter, waiter_look_fn look, void *subject);

/*
 * The same for a lock: take it, sleeping on {lock word, attention, cancel word}.  Signals never end
 * it (M-21). 0: held; 1: held, the last holder died holding it; IPC_EDEADLK: this thread holds it;
 * IPC_EBADMSG; IPC_ECANCELED, IPC_ETIMEDOUT. `end`, if not NULL, is asked before each sleep like a
 * look (for a channel that broke meanwhile).
 */
struct lock;
int waiter_lock(struct waiter *waiter, struct lock *lock, waiter_look_fn end, void *subject);

#endif
