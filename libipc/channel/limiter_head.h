/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_LIMITER_HEAD_H
#define LIBIPC_CHANNEL_LIMITER_HEAD_H

/*
 * Of the limiter's own files: the one operation.  See limiter.h.
 */

#include <ipc/error.h>

#include "libipc/channel/limiter.h"
#include "libipc/platform/crash.h"

/* How often something is tried again because somebody else was quicker.  Each time is somebody's
 * progress; so many within one call are no limiter's. */
#define LIMITER_TRIES_MAX (1u << 20)

/* A private copy of a record, and the head that named it; or of the record that is to come. */
struct limiter_snap {
	uint64_t head;
	uint64_t to;
	uint32_t cell;
	uint32_t n_free, n_waiting, held_max;
	uint64_t window_start, window_number, window_used;
};

/* A cell as it is said to be by a state word that is not FREE. */
struct limiter_request {
	uint32_t seat;
	uint32_t permits;
	uint32_t uid;
	uint64_t state;
	uint64_t ticket;
};

static inline uint64_t limiter_load(const struct limiter *limiter, uint32_t seat)
{
	/* [N1] The cell as its owner wrote it.  Pairs with [N2], by way of [N3]. */
	return atomic_load_explicit(&limiter->segment->state[seat], memory_order_acquire);
}

static inline uint64_t limiter_head_seq(uint64_t head)
{
	return head >> 14;
}

/*
 * What has been decided; the cell's word that came with it is up to date from then on.  0;
 * IPC_EBADMSG, IPC_ENOTRECOVERABLE; IPC_ESTALE: nonsense, but this handle is held dead.
 */
IPC_CHECKED int limiter_snap(struct limiter *limiter, struct limiter_snap *ret);

/* The same but for the cell's word, which whoever changes it again need not bring up to date. */
IPC_CHECKED int limiter_snap_only(struct limiter *limiter, struct limiter_snap *ret);

/* Whether nothing was decided since: what was looked at meanwhile held together. */
bool limiter_snap_holds(const struct limiter *limiter, const struct limiter_snap *snap);

/* Decides what `next` says, by the records of this seat, if nothing was decided since the snap. */
bool limiter_decide(struct limiter *limiter, uint32_t seat, const struct limiter_snap *snap,
		    const struct limiter_snap *next);

/* The same that takes a cell's permits, or its place in the queue, away. */
bool limiter_remove(struct limiter *limiter, uint32_t seat, const struct limiter_snap *snap,
		    const struct limiter_request *request, bool refund);

/* The request is granted, as *ret_next says. */
bool limiter_grant(struct limiter *limiter, uint32_t seat, const struct limiter_snap *snap,
		   const struct limiter_request *request, struct limiter_snap *ret_next);

static inline uint64_t limiter_state_make(uint64_t turn, uint64_t window, enum limiter_phase phase)
{
	return turn << LIMITER_TURN_SHIFT |
	       (window & ((UINT64_C(1) << LIMITER_WINDOW_BITS) - 1)) << 3 | phase;
}

static inline uint64_t limiter_state_next(uint64_t state, uint64_t window, enum limiter_phase phase)
{
	return limiter_state_make(limiter_state_turn(state) + 1, window, phase);
}

/* The cell as it is said to be; only as good as the snap that it is compared with. */
struct limiter_request limiter_request(const struct limiter *limiter, uint32_t seat,
				       uint64_t state);

/* Nobody alive has this cell. */
bool limiter_is_dead(const struct limiter *limiter, uint32_t seat);

/* Seats that may be in use: below this. */
uint32_t limiter_n_seats(const struct limiter *limiter);

/* Of the window that runs; used 0 and left_ns 0 if none does. */
struct limiter_window {
	bool is_running;
	uint64_t used, left_ns;
};
struct limiter_window limiter_window(const struct limiter *limiter,
				     const struct limiter_snap *snap);

void limiter_notify(const struct limiter *limiter, struct eventcount *event);

/* The limiter is broken from now on: IPC_EBADMSG.  IPC_ESTALE: no, this handle is held dead. */
int limiter_break(struct limiter *limiter);

/* ---- limiter_queue.c ---- */

enum limiter_verdict {
	LIMITER_RUNS,
	LIMITER_LACKS_UNITS,
	LIMITER_LACKS_BOUND,   /* its user holds too many */
	LIMITER_BEHIND_OWN,    /* an older one of its user lacks the bound */
	LIMITER_LACKS_PERMITS,
};

/* What holds the request up by itself, without the queue of the others. */
enum limiter_verdict limiter_judge(const struct limiter *limiter, const struct limiter_snap *snap,
				   const struct limiter_request *request);

/*
 * Brings everything forward that can be: what the dead have is given back, requests that can run
 * are granted and woken.  0: *ret is what is decided then, and *ret_is_stopped whether the queue
 * stops for lack of permits; or a fault.
 */
IPC_CHECKED int limiter_settle(struct limiter *limiter, uint32_t seat, struct limiter_snap *ret,
			       bool *ret_is_stopped);

/* Requests that the window has no units for any more look when it ends. */
void limiter_tell_window(const struct limiter *limiter, const struct limiter_snap *snap);

#endif
