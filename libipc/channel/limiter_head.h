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
	uint64_t *granted; /* a bit per seat that is granted in this copy alone; NULL: none is */
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

static inline uint64_t limiter_state_make(uint64_t turn, uint64_t window, enum limiter_phase phase)
{
	return turn << LIMITER_TURN_SHIFT |
	       (window & ((UINT64_C(1) << LIMITER_WINDOW_BITS) - 1)) << 3 | phase;
}

static inline uint64_t limiter_state_next(uint64_t state, uint64_t window, enum limiter_phase phase)
{
	return limiter_state_make(limiter_state_turn(state) + 1, window, phase);
}

static inline uint64_t limiter_load(const struct limiter *limiter, uint32_t seat)
{
	/* [N1] The cell as its owner wrote it.  Pairs with [N2], by way of [N3]. */
	return atomic_load_explicit(&limiter->segment->state[seat], memory_order_acquire);
}

static inline uint64_t limiter_head_seq(uint64_t head)
{
	return head >> 14;
}

/* The limiter is broken from now on: IPC_EBADMSG.  IPC_ESTALE: no, this handle is held dead. */
int limiter_break(struct limiter *limiter);

/* ---- the operation ---- */

static inline void limiter_record_write(struct limiter_record *record,
					const struct limiter_snap *snap)
{
	atomic_store_explicit(&record->to, snap->to, memory_order_relaxed);
	atomic_store_explicit(&record->cell, snap->cell, memory_order_relaxed);
	atomic_store_explicit(&record->n_free, snap->n_free, memory_order_relaxed);
	atomic_store_explicit(&record->n_waiting, snap->n_waiting, memory_order_relaxed);
	atomic_store_explicit(&record->held_max, snap->held_max, memory_order_relaxed);
	atomic_store_explicit(&record->window_start, snap->window_start, memory_order_relaxed);
	atomic_store_explicit(&record->window_number, snap->window_number, memory_order_relaxed);
	atomic_store_explicit(&record->window_used, snap->window_used, memory_order_relaxed);
}

static inline struct limiter_record *limiter_record_of(const struct limiter *limiter, uint64_t head)
{
	return &limiter->segment->cell[limiter_head_seat(head)].record[head & 1];
}

static inline void limiter_record_read(const struct limiter_record *record,
				       struct limiter_snap *ret)
{
	ret->to = atomic_load_explicit(&record->to, memory_order_relaxed);
	ret->cell = atomic_load_explicit(&record->cell, memory_order_relaxed);
	ret->n_free = atomic_load_explicit(&record->n_free, memory_order_relaxed);
	ret->n_waiting = atomic_load_explicit(&record->n_waiting, memory_order_relaxed);
	ret->held_max = atomic_load_explicit(&record->held_max, memory_order_relaxed);
	ret->window_start = atomic_load_explicit(&record->window_start, memory_order_relaxed);
	ret->window_number = atomic_load_explicit(&record->window_number, memory_order_relaxed);
	ret->window_used = atomic_load_explicit(&record->window_used, memory_order_relaxed);
}

/* Whether nothing was decided since: what was looked at meanwhile held together. */
static inline bool limiter_snap_holds(const struct limiter *limiter,
				      const struct limiter_snap *snap)
{
	/* [N4] If anything of what was read is of a later operation, the head is seen to be later,
	 * too.  Pairs with [N5] for records, with [N3] for the rest. */
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&limiter->segment->head, memory_order_relaxed) == snap->head;
}

/* What the head says has happened; by whomever. */
static inline void limiter_complete(const struct limiter *limiter, const struct limiter_snap *snap)
{
	_Atomic uint64_t *state = &limiter->segment->state[snap->cell];

	/* [N3] What the cell's owner wrote before its exchange of the head is there for whoever
	 * sees this word. */
	uint64_t from = atomic_load_explicit(state, memory_order_acquire);

	/* Twice at most: the change before this one may come late. */
	while (limiter_state_is_later(snap->to, from) &&
	       !atomic_compare_exchange_weak_explicit(state, &from, snap->to, memory_order_acq_rel,
						      memory_order_acquire))
		;
}

/*
 * What has been decided.  0; IPC_EBADMSG, IPC_ENOTRECOVERABLE; IPC_ESTALE: nonsense, but this
 * handle is held dead.  Of the cell's word that came with it whoever changes it again takes no
 * notice.
 */
IPC_CHECKED static inline int limiter_snap_only(struct limiter *limiter, struct limiter_snap *ret)
{
	int r = header_fault(&limiter->segment->header);

	if (UNLIKELY(r < 0))
		return r;

	for (unsigned i = 0; i < LIMITER_TRIES_MAX; ++i) {
		/* [N2] The record, and what its writer wrote before. */
		ret->head = atomic_load_explicit(&limiter->segment->head, memory_order_acquire);
		ret->granted = NULL;
		limiter_record_read(limiter_record_of(limiter, ret->head), ret);
		if (UNLIKELY(!limiter_snap_holds(limiter, ret)))
			continue;

		/* Nobody who keeps to the rules writes such a record. */
		if (UNLIKELY(ret->cell >= LIMITER_SEATS || ret->n_free > limiter->n_permits))
			break;
		return 0;
	}

	return limiter_break(limiter);
}

/* The same, and the cell's word is up to date from then on. */
IPC_CHECKED static inline int limiter_snap(struct limiter *limiter, struct limiter_snap *ret)
{
	int r = limiter_snap_only(limiter, ret);

	if (LIKELY(r == 0))
		limiter_complete(limiter, ret);
	return r;
}

/* Decides what `next` says, which was a snap and is one of what was decided; by the records of this
 * seat.  False: something else was decided since. */
static inline bool limiter_decide(struct limiter *limiter, uint32_t seat, struct limiter_snap *next)
{
	_Atomic uint64_t *head = &limiter->segment->head;
	uint64_t which = limiter_head_seat(next->head) == seat ? !(next->head & 1) : 0;
	uint64_t from = next->head;
	uint64_t to = (limiter_head_seq(from) + 1) << 14 | (uint64_t)seat << 1 | which;

	/* [N5] Whoever still reads the record that is written over now sees the head that was seen
	 * here, or a later one, when it looks again.  Pairs with [N4]. */
	atomic_thread_fence(memory_order_release);
	limiter_record_write(limiter_record_of(limiter, to), next);

	CRASH_POINT();
	if (!atomic_compare_exchange_strong_explicit(head, &from, to, memory_order_seq_cst,
						     memory_order_relaxed))
		return false;

	next->head = to;
	CRASH_POINT();
	return true;
}

/* ---- limiter_head.c ---- */

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
struct limiter_window limiter_window_now(const struct limiter *limiter,
					 const struct limiter_snap *snap);

static inline struct limiter_window limiter_window(const struct limiter *limiter,
						   const struct limiter_snap *snap)
{
	return UNLIKELY(limiter->window_units > 0) ? limiter_window_now(limiter, snap)
						   : (struct limiter_window){.is_running = false};
}

/* A grant of so many units, in the private copy: of this window, or it begins one. */
void limiter_window_use(const struct limiter *limiter, struct limiter_snap *next, uint32_t units);

/* ---- limiter_queue.c ---- */

enum limiter_verdict {
	LIMITER_RUNS,
	LIMITER_LACKS_UNITS,
	LIMITER_LACKS_BOUND, /* its user holds too many */
	LIMITER_BEHIND_OWN,  /* an older one of its user lacks the bound */
	LIMITER_LACKS_PERMITS,
};

/*
 * The next seat after request->seat (UINT32_MAX: the first) that somebody alive has in one of these
 * phases, 1u << LIMITER_..., as the snap says.  Seats grow from call to call.
 */
bool limiter_seats_next(const struct limiter *limiter, const struct limiter_snap *snap,
			unsigned phases, struct limiter_request *request);

/* Where there is a window or a bound. */
enum limiter_verdict limiter_judge_all(const struct limiter *limiter,
				       const struct limiter_snap *snap,
				       const struct limiter_request *request);

/* What holds the request up by itself, without the queue of the others. */
static inline enum limiter_verdict limiter_judge(const struct limiter *limiter,
						 const struct limiter_snap *snap,
						 const struct limiter_request *request)
{
	if (UNLIKELY(limiter->window_units > 0 || limiter->per_user_max != UINT32_MAX))
		return limiter_judge_all(limiter, snap, request);

	return request->permits > snap->n_free ? LIMITER_LACKS_PERMITS : LIMITER_RUNS;
}

/*
 * The first of the queue that can run.  False: none can, and whether the queue stops before its end
 * for lack of permits.  One pass over the seats, or one for so many users (limiter_queue.c) where
 * users have a bound; however many wait.
 */
bool limiter_queue_find(const struct limiter *limiter, const struct limiter_snap *snap,
			struct limiter_request *ret, bool *ret_is_stopped);

/*
 * Brings everything forward that can be: what the dead have is given back, requests that can run
 * are granted and woken.  0: *ret is what is decided then, and *ret_is_stopped whether the queue
 * stops for lack of permits; or a fault.
 */
IPC_CHECKED int limiter_settle(struct limiter *limiter, uint32_t seat, struct limiter_snap *ret,
			       bool *ret_is_stopped);

/* Wakes the requests that the window has no units for and that do not know it: from then on they
 * wait for its end. */
void limiter_tell_window(const struct limiter *limiter, const struct limiter_snap *snap);

/* ---- what is decided ---- */

/* After an exchange of the head. */
static inline void limiter_notify(const struct limiter *limiter, struct eventcount *event)
{
	if (eventcount_notify_exchanged(event) && limiter->ring)
		limiter->ring(limiter->ring_userdata);
}

/* What is decided if the request is granted; in the private copy alone. */
static inline void limiter_assume(const struct limiter *limiter, struct limiter_snap *snap,
				  const struct limiter_request *request)
{
	uint32_t n_held;

	snap->n_free -= request->permits;
	n_held = limiter->n_permits - snap->n_free;
	if (snap->held_max < n_held)
		snap->held_max = n_held;
	if (limiter_state_phase(request->state) == LIMITER_WAITING)
		--snap->n_waiting;
	if (UNLIKELY(limiter->window_units > 0))
		limiter_window_use(limiter, snap, request->permits);

	snap->cell = request->seat;
	snap->to = limiter_state_next(request->state, snap->window_number, LIMITER_HELD);
}

/* The snap is what was decided, or, if something else was since, worth nothing any more: false. */
static inline bool limiter_grant(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
				 const struct limiter_request *request)
{
	limiter_assume(limiter, snap, request);
	if (!limiter_decide(limiter, seat, snap))
		return false;

	if (UNLIKELY(snap->n_waiting > 0))
		limiter_tell_window(limiter, snap);
	return true;
}

/* The same: takes a cell's permits, or its place in the queue, away. */
static inline bool limiter_remove(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
				  const struct limiter_request *request, bool refund)
{
	if (limiter_state_phase(request->state) == LIMITER_HELD) {
		/* A cell that says nonsense gives back what there is to give. */
		uint32_t n_held = limiter->n_permits - snap->n_free;

		snap->n_free += request->permits < n_held ? request->permits : n_held;
	} else if (snap->n_waiting > 0) {
		--snap->n_waiting;
	}
	if (refund)
		snap->window_used -=
			request->permits < snap->window_used ? request->permits : snap->window_used;

	snap->cell = request->seat;
	snap->to = limiter_state_next(request->state, 0, LIMITER_FREE);
	if (!limiter_decide(limiter, seat, snap))
		return false;

	if (LIKELY(request->seat == seat))
		atomic_store_explicit(&limiter->segment->state[seat], snap->to,
				      memory_order_release);
	return true;
}

#endif
