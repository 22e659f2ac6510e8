/* SPDX-License-Identifier: MIT */
#include "libipc/channel/limiter.h"

#include <ipc/admin.h>
#include <ipc/error.h>

#include "libipc/channel/limiter_head.h"
#include "libipc/platform/clock.h"

/* ---- layout, make, attach ---- */

static bool shape_is_legal(const uint64_t shape[4])
{
	return shape[0] >= 1 && shape[0] <= UINT32_MAX && shape[1] <= UINT32_MAX &&
	       (shape[2] == 0) == (shape[3] == 0);
}

uint64_t limiter_segment_size(const uint64_t shape[4])
{
	return shape_is_legal(shape) ? sizeof(struct limiter_segment) : 0;
}

int limiter_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	struct limiter_segment *made = segment;
	struct limiter_snap first = {.n_free = (uint32_t)shape[0]};

	(void)flags;

	if (!shape_is_legal(shape) || size < sizeof(*made))
		return IPC_EINVAL;

	header_init(&made->header, IPC_KIND_LIMITER, size, shape);
	eventcount_init(&made->ready);
	seats_init(&made->seats);
	for (uint32_t i = 0; i < LIMITER_SEATS; ++i) {
		atomic_store_explicit(&made->state[i], 0, memory_order_relaxed);
		eventcount_init(&made->cell[i].event);
	}

	/* The head names a record of a seat that nobody has yet, as it does after a death. */
	limiter_record_write(&made->cell[0].record[0], &first);
	atomic_store_explicit(&made->head, 0, memory_order_relaxed);
	return 0;
}

int limiter_attach(struct limiter *ret, void *segment, uint64_t size, const uint64_t shape[4],
		   uint64_t handle_id)
{
	int r;

	if (!shape_is_legal(shape) || size < sizeof(struct limiter_segment))
		return IPC_EBADMSG;

	r = header_check(segment, IPC_KIND_LIMITER, size, shape);
	if (r < 0)
		return r;

	*ret = (struct limiter){
		.segment = segment,
		.n_permits = (uint32_t)shape[0],
		.per_user_max = shape[1] ? (uint32_t)shape[1] : UINT32_MAX,
		.window_units = shape[2],
		.window_ns = shape[3],
		.handle_id = handle_id,
	};
	return 0;
}

/* ---- rows ---- */

/* Whatever a dead owner had there. */
static bool seat_clear(struct limiter *limiter, uint32_t seat)
{
	struct limiter_snap snap;

	for (unsigned i = 0; i < LIMITER_TRIES_MAX; ++i) {
		struct limiter_request request;

		if (limiter_snap(limiter, &snap) < 0)
			return false;

		request = limiter_request(limiter, seat, limiter_load(limiter, seat));
		if (limiter_state_phase(request.state) == LIMITER_FREE)
			return true;
		if (limiter_remove(limiter, seat, &snap, &request, false))
			limiter_notify(limiter, &limiter->segment->ready);
	}

	return false;
}

static bool row_clear(struct limiter *limiter, uint32_t row)
{
	for (uint32_t i = 0; i < SEATS_PER_ROW; ++i)
		if (!seat_clear(limiter, row * SEATS_PER_ROW + i))
			return false;

	return true;
}

bool limiter_row_take(struct limiter *limiter, uint32_t *ret_row)
{
	struct limiter_snap snap;
	bool is_inherited, is_stopped;
	uint32_t row;

	if (!seats_row_take(&limiter->segment->seats, limiter->table, limiter->handle_id, &row,
			    &is_inherited))
		return false;

	/* Where the segment is broken, nobody uses a seat any more. */
	if (row >= LIMITER_ROWS || !row_clear(limiter, row)) {
		limiter_row_give(limiter, row);
		return false;
	}

	if (is_inherited)
		(void)!limiter_settle(limiter, row * SEATS_PER_ROW, &snap, &is_stopped);
	*ret_row = row;
	return true;
}

void limiter_row_give(struct limiter *limiter, uint32_t row)
{
	seats_row_give(&limiter->segment->seats, row, limiter->handle_id);
}

/* ---- requests ---- */

int limiter_check(const struct limiter *limiter, uint32_t permits)
{
	if (permits == 0)
		return IPC_EINVAL;

	return permits > limiter->n_permits || permits > limiter->per_user_max ||
			       (limiter->window_units > 0 && permits > limiter->window_units)
		       ? IPC_EMSGSIZE
		       : 0;
}

/* While the state is FREE. */
static void cell_write(struct limiter *limiter, const struct limiter_part *part)
{
	struct limiter_cell *cell = &limiter->segment->cell[part->seat];

	atomic_store_explicit(&cell->holder_id, limiter->handle_id, memory_order_relaxed);
	atomic_store_explicit(&cell->permits, part->permits, memory_order_relaxed);
	atomic_store_explicit(&cell->uid, limiter->uid, memory_order_relaxed);
	atomic_store_explicit(&cell->since, clock_coarse_now_ns(), memory_order_relaxed);
}

/* Of a request that somebody else has granted.  Its window is the snap's, or one begun near it. */
static void part_hold(struct limiter_part *part, const struct limiter_snap *snap, uint64_t state)
{
	uint64_t ahead = limiter_state_window(state) - snap->window_number;
	int64_t near = (int64_t)(ahead << (64 - LIMITER_WINDOW_BITS)) >> (64 - LIMITER_WINDOW_BITS);

	part->state = state;
	part->window = snap->window_number + (uint64_t)near;
}

static void deny(const struct limiter *limiter, const struct limiter_snap *snap,
		 enum limiter_verdict verdict, struct limiter_denial *ret)
{
	*ret = (struct limiter_denial){.reason = IPC_EAGAIN};

	switch (verdict) {
	case LIMITER_LACKS_UNITS:
		ret->reason = IPC_EDQUOT;
		ret->window_left_ns = limiter_window(limiter, snap).left_ns;
		break;
	case LIMITER_LACKS_BOUND:
		ret->reason = IPC_EBUSY;
		break;
	case LIMITER_RUNS:
	case LIMITER_BEHIND_OWN:
	case LIMITER_LACKS_PERMITS:
		break;
	}
}

/*
 * One look at whether the request can run.  0: it can, as far as *ret is still what is decided;
 * else the reason, which holds for *ret.
 */
static int request_look(struct limiter *limiter, const struct limiter_request *request,
			struct limiter_snap *ret, struct limiter_denial *ret_denial)
{
	enum limiter_verdict verdict;
	bool is_stopped = false;
	int r;

	r = limiter_snap(limiter, ret);
	if (r < 0)
		return r;

	/* The dead hold up permits and users, but neither the window nor, with no queue, anybody
	 * who can run. */
	verdict = limiter_judge(limiter, ret, request);
	if (LIKELY(verdict == LIMITER_RUNS && ret->n_waiting == 0))
		return 0;

	if (verdict != LIMITER_LACKS_UNITS) {
		r = limiter_settle(limiter, request->seat, ret, &is_stopped);
		if (r < 0)
			return r;

		verdict = limiter_judge(limiter, ret, request);
		if (verdict == LIMITER_RUNS && !is_stopped)
			return 0;
	}

	deny(limiter, ret, verdict, ret_denial);
	return ret_denial->reason;
}

static bool is_denial(int r)
{
	return r == IPC_EAGAIN || r == IPC_EBUSY || r == IPC_EDQUOT;
}

static bool queue_up(struct limiter *limiter, struct limiter_snap *snap,
		     const struct limiter_request *request)
{
	struct limiter_cell *cell = &limiter->segment->cell[request->seat];

	/* Nobody looks at it before the exchange, and after that it is what it says. */
	atomic_store_explicit(&cell->ticket, limiter_head_seq(snap->head) + 1,
			      memory_order_relaxed);
	atomic_store_explicit(&cell->lacks_window, 0, memory_order_relaxed);
	++snap->n_waiting;
	snap->cell = request->seat;
	snap->to = limiter_state_next(request->state, 0, LIMITER_WAITING);
	return limiter_decide(limiter, request->seat, snap);
}

static int request_make(struct limiter *limiter, struct limiter_part *part, bool queues,
			uint64_t window_wait_ns, struct limiter_denial *ret_denial)
{
	struct limiter_request request = {.seat = part->seat,
					  .permits = part->permits,
					  .uid = limiter->uid,
					  .state = limiter_load(limiter, part->seat),
					  .ticket = UINT64_MAX};
	struct limiter_snap snap;

	if (limiter_state_phase(request.state) != LIMITER_FREE)
		return limiter_break(limiter);

	cell_write(limiter, part);
	CRASH_POINT();
	for (unsigned i = 0; i < LIMITER_TRIES_MAX; ++i) {
		int r = request_look(limiter, &request, &snap, ret_denial);

		if (r == 0) {
			if (!limiter_grant(limiter, part->seat, &snap, &request))
				continue;
			part->state = snap.to;
			part->window = snap.window_number;
			return 0;
		}
		if (!is_denial(r))
			return r;
		if (!queues || (r == IPC_EDQUOT && ret_denial->window_left_ns > window_wait_ns)) {
			if (limiter_snap_holds(limiter, &snap))
				return r;
			continue;
		}
		if (queue_up(limiter, &snap, &request)) {
			part->state = limiter_state_next(request.state, 0, LIMITER_WAITING);
			return 1;
		}
	}

	return limiter_break(limiter);
}

int limiter_acquire(struct limiter *limiter, struct limiter_part *part,
		    struct limiter_denial *ret_denial)
{
	return request_make(limiter, part, false, 0, ret_denial);
}

int limiter_queue(struct limiter *limiter, struct limiter_part *part, uint64_t window_wait_ns,
		  struct limiter_denial *ret_denial)
{
	return request_make(limiter, part, true, window_wait_ns, ret_denial);
}

/* 1: still in the queue; 0: held; IPC_ESTALE. */
static int part_is_granted(struct limiter *limiter, struct limiter_part *part,
			   const struct limiter_snap *snap)
{
	uint64_t state = limiter_load(limiter, part->seat);

	if (state == part->state)
		return 1;
	if (limiter_state_phase(state) != LIMITER_HELD ||
	    limiter_state_turn(state) !=
		    limiter_state_turn(part->state + (UINT64_C(1) << LIMITER_TURN_SHIFT)))
		return IPC_ESTALE;

	atomic_store_explicit(&limiter->segment->cell[part->seat].since, clock_coarse_now_ns(),
			      memory_order_relaxed);
	part_hold(part, snap, state);
	return 0;
}

/* A look may find that the units are there, and who grants has to tell when they are not again. */
static void forget_window(struct limiter_cell *cell)
{
	if (atomic_load_explicit(&cell->lacks_window, memory_order_relaxed) == 0)
		return;

	/* [N7] Pairs with [N6]. */
	atomic_store_explicit(&cell->lacks_window, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

int limiter_look(struct limiter *limiter, struct limiter_part *part,
		 struct limiter_denial *ret_denial)
{
	struct limiter_cell *cell = &limiter->segment->cell[part->seat];
	struct limiter_request request;
	struct limiter_snap snap;
	bool is_stopped;
	int r;

	forget_window(cell);
	r = limiter_snap(limiter, &snap);
	if (r < 0)
		return r;

	r = part_is_granted(limiter, part, &snap);
	if (r != 1)
		return r;

	r = limiter_settle(limiter, part->seat, &snap, &is_stopped);
	if (r < 0)
		return r;

	r = part_is_granted(limiter, part, &snap);
	if (r != 1)
		return r;

	request = limiter_request(limiter, part->seat, part->state);
	deny(limiter, &snap, limiter_judge(limiter, &snap, &request), ret_denial);
	if (ret_denial->reason == IPC_EDQUOT)
		atomic_store_explicit(&cell->lacks_window, snap.window_number,
				      memory_order_relaxed);
	return IPC_EAGAIN;
}

/* Whoever waits comes next. */
static void removed(struct limiter *limiter, uint32_t seat, uint32_t n_waiting)
{
	struct limiter_snap snap;
	bool is_stopped;

	/* Killed here: the broker wakes everybody. */
	CRASH_POINT();
	limiter_notify(limiter, &limiter->segment->ready);
	if (n_waiting > 0)
		(void)!limiter_settle(limiter, seat, &snap, &is_stopped);
}

bool limiter_give_up(struct limiter *limiter, struct limiter_part *part)
{
	struct limiter_snap snap;

	for (unsigned i = 0; i < LIMITER_TRIES_MAX; ++i) {
		struct limiter_request request;
		int r;

		if (limiter_snap(limiter, &snap) < 0)
			return false;

		r = part_is_granted(limiter, part, &snap);
		if (r != 1)
			return r == 0;

		request = limiter_request(limiter, part->seat, part->state);
		if (limiter_remove(limiter, part->seat, &snap, &request, false)) {
			removed(limiter, part->seat, snap.n_waiting);
			return false;
		}
	}

	return false;
}

int limiter_release(struct limiter *limiter, struct limiter_part *part, bool refund)
{
	struct limiter_snap snap;

	if (limiter_state_phase(part->state) != LIMITER_HELD)
		return IPC_ESTALE;

	for (unsigned i = 0; i < LIMITER_TRIES_MAX; ++i) {
		struct limiter_request request;
		bool refunds;
		int r;

		r = limiter_snap_only(limiter, &snap);
		if (r < 0)
			return r;
		if (snap.cell != part->seat || snap.to != part->state) {
			limiter_complete(limiter, &snap);
			if (limiter_load(limiter, part->seat) != part->state)
				return IPC_ESTALE;
		}

		request = (struct limiter_request){
			.seat = part->seat, .permits = part->permits, .state = part->state};
		refunds = refund && part->window == snap.window_number &&
			  limiter_window(limiter, &snap).is_running;
		if (limiter_remove(limiter, part->seat, &snap, &request, refunds)) {
			removed(limiter, part->seat, snap.n_waiting);
			return 0;
		}
	}

	return limiter_break(limiter);
}
