/* SPDX-License-Identifier: MIT */

/*
 * How cells and windows of a limiter are read, and its end.
 */

#include "libipc/channel/limiter_head.h"
#include "libipc/platform/clock.h"

static_assert(LIMITER_SEATS == 1 << 13, "limiter_head_seat() and limiter_head_seq()");

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

struct limiter_window limiter_window_now(const struct limiter *limiter,
					 const struct limiter_snap *snap)
{
	struct limiter_window window = {.is_running = false};
	uint64_t now;

	if (snap->window_start == 0)
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

void limiter_window_use(const struct limiter *limiter, struct limiter_snap *next, uint32_t units)
{
	if (!limiter_window_now(limiter, next).is_running) {
		next->window_start = clock_boot_now_ns();
		++next->window_number;
		next->window_used = 0;
	}
	next->window_used += units;
}
