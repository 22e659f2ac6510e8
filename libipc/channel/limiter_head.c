/* SPDX-License-Identifier: MIT */

/*
 * What is decided of a limiter: grants, and what is taken away; and how cells and windows are read.
 */

#include "libipc/channel/limiter_head.h"
#include "libipc/platform/clock.h"

static_assert(LIMITER_SEATS == 1 << 13, "limiter_head_seat() and limiter_head_seq()");

/* After an exchange of the head. */
void limiter_notify(const struct limiter *limiter, struct eventcount *event)
{
	if (eventcount_notify_exchanged(event) && limiter->ring)
		limiter->ring(limiter->ring_userdata);
}

int limiter_break(struct limiter *limiter)
{
	int r;

	/* Held dead: the seats that this handle thinks are its own are not. */
	if (!liveness_handle_is(limiter->table, limiter->handle_id))
		return IPC_ESTALE;

	r = header_break(&limiter->segment->header, HEADER_CORRUPT);
	CRASH_POINT();
	for (uint32_t i = 0; i < LIMITER_SEATS; ++i)
		limiter_notify(limiter, &limiter->segment->cell[i].event);
	limiter_notify(limiter, &limiter->segment->ready);
	return r;
}

/* ---- cells ---- */

uint32_t limiter_n_seats(const struct limiter *limiter)
{
	/* A row is below `top` before anything is decided about its seats, and so before the head
	 * that was seen. */
	uint32_t top = rows_top(&limiter->segment->seats.rows);

	return (top < LIMITER_ROWS ? top : LIMITER_ROWS) * SEATS_PER_ROW;
}

struct limiter_request limiter_request(const struct limiter *limiter, uint32_t seat, uint64_t state)
{
	const struct limiter_cell *cell = &limiter->segment->cell[seat];

	return (struct limiter_request){
		.seat = seat,
		.permits = atomic_load_explicit(&cell->permits, memory_order_relaxed),
		.uid = atomic_load_explicit(&cell->uid, memory_order_relaxed),
		.state = state,
		.ticket = atomic_load_explicit(&cell->ticket, memory_order_relaxed),
	};
}

bool limiter_is_dead(const struct limiter *limiter, uint32_t seat)
{
	return !liveness_handle_is(limiter->table,
				   atomic_load_explicit(&limiter->segment->cell[seat].holder_id,
							memory_order_relaxed));
}

/* ---- the window ---- */

struct limiter_window limiter_window(const struct limiter *limiter, const struct limiter_snap *snap)
{
	struct limiter_window window = {.is_running = false};
	uint64_t now;

	if (limiter->window_units == 0 || snap->window_start == 0)
		return window;

	now = clock_boot_now_ns();
	now = now > snap->window_start ? now - snap->window_start : 0;
	if (now >= limiter->window_ns)
		return window;

	window.is_running = true;
	window.used = snap->window_used < limiter->window_units ? snap->window_used
								: limiter->window_units;
	window.left_ns = limiter->window_ns - now;
	return window;
}

static void window_use(const struct limiter *limiter, struct limiter_snap *next, uint32_t units)
{
	if (limiter->window_units == 0)
		return;

	if (!limiter_window(limiter, next).is_running) {
		next->window_start = clock_boot_now_ns();
		++next->window_number;
		next->window_used = 0;
	}
	next->window_used += units;
}

/* ---- what is decided ---- */

void limiter_assume(const struct limiter *limiter, struct limiter_snap *snap,
		    const struct limiter_request *request)
{
	uint32_t n_held;

	snap->n_free -= request->permits;
	n_held = limiter->n_permits - snap->n_free;
	if (snap->held_max < n_held)
		snap->held_max = n_held;
	if (limiter_state_phase(request->state) == LIMITER_WAITING)
		--snap->n_waiting;
	window_use(limiter, snap, request->permits);

	snap->cell = request->seat;
	snap->to = limiter_state_next(request->state, snap->window_number, LIMITER_HELD);
}

bool limiter_grant(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
		   const struct limiter_request *request)
{
	limiter_assume(limiter, snap, request);
	if (!limiter_decide(limiter, seat, snap))
		return false;

	if (UNLIKELY(snap->n_waiting > 0))
		limiter_tell_window(limiter, snap);
	return true;
}

bool limiter_remove(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
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
