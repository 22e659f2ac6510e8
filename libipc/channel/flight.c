/* SPDX-License-Identifier: MIT */
#include "libipc/channel/flight.h"

#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/error.h>
#include <ipc/limits.h>

#include "libipc/channel/flight_cell.h"

/* ---- layout, make, attach ---- */

static uint64_t round_to(uint64_t size, uint64_t unit)
{
	return (size + unit - 1) / unit * unit;
}

bool flight_layout(struct flight_layout *ret, const uint64_t shape[4])
{
	uint64_t n = shape[1];

	/* Each at most 2^30 bytes and 2^23 cells: no sum comes near 2^64. */
	if (shape[0] == 0 || shape[0] > IPC_ITEM_SIZE_MAX || n == 0 || n > FLIGHT_KEYS_MAX ||
	    shape[2] == 0 || shape[2] > IPC_KEY_SIZE_MAX || shape[3] == 0 || shape[3] > UINT32_MAX)
		return false;

	ret->key_stride = round_to(shape[2], 16);
	ret->result_stride = round_to(shape[0], 64);
	ret->state = round_to(sizeof(struct flight_segment), 64);
	ret->bucket = round_to(ret->state + n * sizeof(uint64_t), 64);
	ret->cell = round_to(ret->bucket + keytable_n_buckets((uint32_t)n) * sizeof(uint64_t), 64);
	ret->key = ret->cell + n * sizeof(struct flight_cell);
	ret->result = round_to(ret->key + n * ret->key_stride, 64);
	ret->size = ret->result + n * ret->result_stride;
	return true;
}

uint64_t flight_segment_size(const uint64_t shape[4])
{
	struct flight_layout layout;

	return flight_layout(&layout, shape) ? layout.size : 0;
}

static void flight_view(struct flight *ret, void *segment, const uint64_t shape[4],
			const struct flight_layout *layout)
{
	unsigned char *bytes = segment;

	*ret = (struct flight){
		.segment = segment,
		.state = (_Atomic uint64_t *)(void *)(bytes + layout->state),
		.cell = (struct flight_cell *)(void *)(bytes + layout->cell),
		.key = bytes + layout->key,
		.result = bytes + layout->result,
		.layout = *layout,
		.n_cells = (uint32_t)shape[1],
		.attempts_max = (uint32_t)shape[3],
		.key_size_max = shape[2],
		.result_size_max = shape[0],
	};
	ret->keys = (struct keytable){
		.bucket = (_Atomic uint64_t *)(void *)(bytes + layout->bucket),
		.mask = keytable_n_buckets(ret->n_cells) - 1,
		.node = bytes + layout->cell,
		.stride = sizeof(struct flight_cell),
		.n_nodes = ret->n_cells,
	};
}

static uint64_t flight_new_seed(void)
{
	uint64_t seed = 0;

	/* Without it the chains are as good, but for somebody who makes up keys on purpose. */
	(void)!getrandom(&seed, sizeof(seed), GRND_NONBLOCK);
	return seed;
}

int flight_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	struct flight_segment *made = segment;
	struct flight_layout layout;
	struct flight view;

	(void)flags;

	if (!flight_layout(&layout, shape) || size < layout.size)
		return IPC_EINVAL;

	flight_view(&view, segment, shape, &layout);
	header_init(&made->header, IPC_KIND_FLIGHT, size, shape);
	eventcount_init(&made->handlers);
	made->seed = flight_new_seed();
	atomic_store_explicit(&made->ticket, 0, memory_order_relaxed);
	atomic_store_explicit(&made->fence, 0, memory_order_relaxed);
	seats_init(&made->seats);
	keytable_init(&view.keys);

	/* Keys, results and what else stands in a cell are written by whoever claims it. */
	for (uint32_t i = 0; i < view.n_cells; ++i) {
		atomic_store_explicit(&view.state[i], 0, memory_order_relaxed);
		eventcount_init(&view.cell[i].event);
	}
	return 0;
}

int flight_attach(struct flight *ret, void *segment, uint64_t size, const uint64_t shape[4],
		  uint64_t channel_flags, uint64_t handle_id)
{
	struct flight_layout layout;
	int r;

	if (!flight_layout(&layout, shape) || size < layout.size)
		return IPC_EBADMSG;

	r = header_check(segment, IPC_KIND_FLIGHT, size, shape);
	if (r < 0)
		return r;

	flight_view(ret, segment, shape, &layout);
	ret->seed = ret->segment->seed;
	ret->promotes = !(channel_flags & IPC_FLIGHT_TABLE_NO_PROMOTE);
	ret->handle_id = handle_id;

	/* Handles begin at different places, so that each keeps to cache lines of its own. */
	atomic_store_explicit(&ret->hint, (uint32_t)(LIVENESS_SLOT(handle_id) * 8 % ret->n_cells),
			      memory_order_relaxed);
	(void)pthread_mutex_init(&ret->promotion, NULL);
	return 0;
}

void flight_detach(struct flight *flight)
{
	(void)pthread_mutex_destroy(&flight->promotion);
}

/* ---- of all files of the flight ---- */

void flight_notify(const struct flight *flight, struct eventcount *event)
{
	if (eventcount_notify(event) && flight->ring)
		flight->ring(flight->ring_userdata);
}

int flight_break(struct flight *flight)
{
	int r;

	/* Held dead: the cells that this handle thinks are its own are not. */
	if (!liveness_handle_is(flight->table, flight->handle_id))
		return IPC_ESTALE;

	r = header_break(&flight->segment->header, HEADER_CORRUPT);
	CRASH_POINT();
	for (uint32_t i = 0; i < flight->n_cells; ++i)
		flight_notify(flight, &flight->cell[i].event);
	flight_notify(flight, &flight->segment->handlers);
	return r;
}

void flight_part_begin(struct flight_part *part)
{
	atomic_store_explicit(&part->has_led, 0, memory_order_relaxed);
	atomic_store_explicit(&part->is_done, 0, memory_order_relaxed);
	atomic_store_explicit(&part->end, 0, memory_order_relaxed);
	atomic_store_explicit(&part->fence, 0, memory_order_relaxed);
}

bool flight_is_written(const struct flight *flight, uint32_t cell, uint64_t state)
{
	struct seats *seats = &flight->segment->seats;
	struct quicklock *writer = &seats->seat[flight_state_seat(state)].writer;
	uint64_t owner = seats_owner(seats, flight_state_seat(state));

	/* A living owner writes into other cells by now. */
	if (owner == 0 || liveness_handle_is(flight->table, owner) || quicklock_is_free(writer))
		return false;
	if (atomic_load_explicit(&seats->seat[flight_state_seat(state)].object,
				 memory_order_acquire) != cell + 1)
		return false;

	return !quicklock_release_dead(writer);
}

uint32_t flight_thread(void)
{
	if (quicklock_tid == 0 && !quicklock_thread_init())
		return (uint32_t)syscall(SYS_gettid);

	return quicklock_tid;
}

/*
 * The dead owner of the row led or claimed this cell.  Without this its seat would seem to be held
 * again as soon as the row has a new owner: nobody would claim the cell, and who joins the key by
 * that very seat would take itself for the leader.
 */
static void inherit_cell(struct flight *flight, uint32_t row, uint32_t cell)
{
	enum flight_phase phase;
	unsigned n_tries = 0;
	uint64_t state;

	do {
		state = flight_load(flight, cell);
		phase = flight_state_phase(state);
		if (n_tries++ == FLIGHT_TRIES_MAX)
			return;
		if ((phase != FLIGHT_LED && phase != FLIGHT_CLAIMED) ||
		    flight_state_seat(state) / SEATS_PER_ROW != row)
			return;

		phase = phase == FLIGHT_LED && (state & FLIGHT_FOLLOWED) ? FLIGHT_UNLED
									 : FLIGHT_ENDED;

		/* Queued now; a handler's keys are judged by when they were asked for. */
		if ((state & FLIGHT_ASKED) && !(state & FLIGHT_ASKED_NEW))
			atomic_store_explicit(&flight->cell[cell].queued_ends,
					      side_ends(flight_handlers_side(flight)),
					      memory_order_relaxed);
	} while (!flight_swap(flight, cell, state, flight_state_with(state, phase)));
	CRASH_POINT();

	flight_notify(flight, &flight->cell[cell].event);
	if (state & FLIGHT_ASKED)
		flight_notify(flight, &flight->segment->handlers);
}

bool flight_row_take(struct flight *flight, uint32_t *ret_row)
{
	bool is_inherited;
	uint32_t row;

	if (!seats_row_take(&flight->segment->seats, flight->table, flight->handle_id, &row,
			    &is_inherited))
		return false;

	for (uint32_t cell = 0; is_inherited && cell < flight->n_cells; ++cell)
		inherit_cell(flight, row, cell);

	*ret_row = row;
	return true;
}

void flight_row_give(struct flight *flight, uint32_t row)
{
	seats_row_give(&flight->segment->seats, row, flight->handle_id);
}

/* ---- finish ---- */

static bool part_leads(const struct flight_part *part, uint64_t state)
{
	return flight_state_phase(state) == FLIGHT_LED && flight_state_seat(state) == part->seat;
}

/* Why a part that does not lead, in this state, cannot do what only a leader can. */
static int part_refused(const struct flight_part *part, uint64_t state)
{
	enum flight_phase phase = flight_state_phase(state);

	if (!atomic_load_explicit(&part->has_led, memory_order_acquire) ||
	    atomic_load_explicit(&part->is_done, memory_order_acquire))
		return IPC_EINVAL;

	/* Finished just now, by another thread. */
	if ((phase == FLIGHT_LANDED || phase == FLIGHT_FAILED) &&
	    flight_state_seat(state) == part->seat)
		return IPC_EINVAL;

	return IPC_ESTALE;
}

static void finish_write(struct flight *flight, struct flight_part *part, uint64_t state,
			 enum ipc_failure failure, int32_t code, const void *data, uint64_t size)
{
	struct flight_cell *cell = &flight->cell[part->cell];
	uint64_t fence = 0;

	if (size > 0)
		memcpy(flight->result + part->cell * flight->layout.result_stride, data, size);

	(void)!flight_get_fence(flight, part, &fence);
	atomic_store_explicit(&cell->fence, fence, memory_order_relaxed);
	atomic_store_explicit(&cell->result_size, size, memory_order_relaxed);
	atomic_store_explicit(&cell->failure, (uint32_t)failure, memory_order_relaxed);
	atomic_store_explicit(&cell->code, (uint32_t)code, memory_order_relaxed);
	flight_run_set(flight_run_next(flight, part->cell, state), flight_state_turn(state));
	CRASH_POINT();
}

/* The exchange that finishes: whoever joins meanwhile changes flags. */
static int finish_state(struct flight *flight, struct flight_part *part, enum flight_phase phase,
			uint64_t *ret_state)
{
	for (unsigned i = 0; i < FLIGHT_TRIES_MAX; ++i) {
		uint64_t state = flight_load(flight, part->cell);

		if (!part_leads(part, state))
			return part_refused(part, state);
		if (flight_swap(flight, part->cell, state, flight_state_with(state, phase))) {
			*ret_state = state;
			return 0;
		}
	}

	return flight_break(flight);
}

/* By the holder of the seat's `writer`: whoever makes the part anew looks at that lock after it has
 * changed `use`. */
static bool part_is_same(const struct flight_part *part, uint64_t use)
{
	return ((atomic_load_explicit(&part->use, memory_order_seq_cst) ^ use) & FLIGHT_USE) == 0;
}

/* Another thread of the process may be about to finish the same flight, or the part's last one: it
 * is gone as soon as it sees that. */
static int finish_lock(struct flight *flight, const struct flight_part *part,
		       struct quicklock *writer)
{
	for (unsigned i = 0; i < FLIGHT_TRIES_MAX; ++i) {
		uint64_t state = flight_load(flight, part->cell);

		if (!part_leads(part, state))
			return part_refused(part, state);

		switch (quicklock_try(writer)) {
		case QUICKLOCK_HELD:
			return 0;
		case QUICKLOCK_REFUSED:
			return IPC_ENOSYS;
		case QUICKLOCK_BUSY:
			(void)sched_yield();
			break;
		}
	}

	return IPC_EINVAL;
}

int flight_finish(struct flight *flight, struct flight_part *part, uint64_t use,
		  enum ipc_failure failure, int32_t code, const void *data, uint64_t size)
{
	struct quicklock *writer = &flight->segment->seats.seat[part->seat].writer;
	struct eventcount *event = flight_event(flight, part);
	uint64_t state;
	int r;

	if (size > 0 && !data)
		return IPC_EINVAL;

	state = flight_load(flight, part->cell);
	if (part_leads(part, state) && size > flight->result_size_max)
		return IPC_EMSGSIZE;

	r = header_fault(&flight->segment->header);
	if (r == 0)
		r = finish_lock(flight, part, writer);
	if (r < 0)
		return r;
	CRASH_POINT();

	/* [G3] The lock before the state: whoever takes the lead over from now on sees the lock.
	 * Pairs with the exchange of flight_lead(). */
	state = atomic_load_explicit(&flight->state[part->cell], memory_order_seq_cst);
	r = part_leads(part, state) ? 0 : part_refused(part, state);
	if (UNLIKELY(!part_is_same(part, use)))
		r = IPC_EINVAL;
	if (r == 0) {
		finish_write(flight, part, state, failure, code, data, size);
		r = finish_state(flight, part,
				 failure == IPC_FAILURE_NONE ? FLIGHT_LANDED : FLIGHT_FAILED,
				 &state);
	}
	if (r == 0)
		atomic_store_explicit(&part->is_done, 1, memory_order_release);
	CRASH_POINT();
	quicklock_unlock_alone(writer);

	/* Killed here: the broker wakes everybody.  The part may be left by now. */
	CRASH_POINT();
	if (r == 0 && (state & FLIGHT_FOLLOWED))
		flight_notify(flight, event);
	return r;
}

/* ---- leave ---- */

/* A caller's lead is up for whoever follows; with nobody there the flight is over. */
static void leave_lead(struct flight *flight, struct flight_part *part)
{
	struct flight_cell *cell = &flight->cell[part->cell];
	enum flight_phase phase;
	unsigned n_tries = 0;
	uint64_t state;

	do {
		state = flight_load(flight, part->cell);
		if (!part_leads(part, state) || n_tries++ == FLIGHT_TRIES_MAX)
			return;

		phase = state & FLIGHT_FOLLOWED ? FLIGHT_UNLED : FLIGHT_ENDED;
		if (state & FLIGHT_ASKED)
			atomic_store_explicit(&cell->queued_ends,
					      side_ends(flight_handlers_side(flight)),
					      memory_order_relaxed);
	} while (!flight_swap(flight, part->cell, state, flight_state_with(state, phase)));
	CRASH_POINT();

	if (phase == FLIGHT_UNLED)
		flight_notify(flight, &cell->event);
	if (state & FLIGHT_ASKED)
		flight_notify(flight, &flight->segment->handlers);
}

void flight_leave(struct flight *flight, struct flight_part *part)
{
	if (part_leads(part, flight_load(flight, part->cell))) {
		uint64_t use = atomic_load_explicit(&part->use, memory_order_relaxed);

		/* A handler's: nobody else would answer those who asked. */
		if (part->form != FLIGHT_TAKEN ||
		    flight_finish(flight, part, use, IPC_FAILURE_ABANDONED, 0, NULL, 0) < 0)
			leave_lead(flight, part);
	}

	CRASH_POINT();
	seats_drop(&flight->segment->seats, part->seat);
}

/* ---- what a part can be asked ---- */

int flight_get_result(struct flight *flight, const struct flight_part *part,
		      struct ipc_flight_result *ret)
{
	const struct flight_cell *cell = &flight->cell[part->cell];
	uint64_t state = flight_load(flight, part->cell);
	enum flight_phase phase = flight_state_phase(state);
	uint64_t size;
	int end = atomic_load_explicit(&part->end, memory_order_relaxed);

	if (phase != FLIGHT_LANDED && phase != FLIGHT_FAILED)
		return end < 0 ? end : IPC_EAGAIN;

	size = atomic_load_explicit(&cell->result_size, memory_order_relaxed);
	if (size > flight->result_size_max)
		return flight_break(flight);

	*ret = (struct ipc_flight_result){
		.data = size ? flight->result + part->cell * flight->layout.result_stride : NULL,
		.size = size,
		.failure = phase == FLIGHT_LANDED ? IPC_FAILURE_NONE
						  : (enum ipc_failure)atomic_load_explicit(
							    &cell->failure, memory_order_relaxed),
		.code = phase == FLIGHT_LANDED
				? 0
				: (int32_t)atomic_load_explicit(&cell->code, memory_order_relaxed),
		.epoch = (uint32_t)flight_epoch(flight, part->cell, state),
		.n_joined = atomic_load_explicit(&flight_run(flight, part->cell, state)->n_joined,
						 memory_order_relaxed),
		.fence = atomic_load_explicit(&cell->fence, memory_order_relaxed),
	};

	/* A failure that is none of ours was written by somebody who may not. */
	if (ret->failure < IPC_FAILURE_NONE || ret->failure > IPC_FAILURE_ABANDONED ||
	    (phase == FLIGHT_FAILED && ret->failure == IPC_FAILURE_NONE))
		return flight_break(flight);

	return 0;
}

int flight_get_fence(struct flight *flight, struct flight_part *part, uint64_t *ret)
{
	uint64_t state = flight_load(flight, part->cell);
	uint64_t fence;

	/* Its own fence, as long as it was the one who finished. */
	if (!part_leads(part, state) && !atomic_load_explicit(&part->is_done, memory_order_acquire))
		return part_refused(part, state);

	fence = atomic_load_explicit(&part->fence, memory_order_acquire);
	if (fence == 0) {
		/* Another thread has just taken the lead by this part, and takes its fence. */
		(void)pthread_mutex_lock(&flight->promotion);
		fence = atomic_load_explicit(&part->fence, memory_order_acquire);
		(void)pthread_mutex_unlock(&flight->promotion);
	}

	*ret = fence;
	return 0;
}

void flight_get_key(const struct flight *flight, const struct flight_part *part,
		    const void **ret_key, size_t *ret_size)
{
	uint64_t size =
		atomic_load_explicit(&flight->cell[part->cell].key_size, memory_order_relaxed);

	*ret_key = flight->key + part->cell * flight->layout.key_stride;
	*ret_size = size < flight->key_size_max ? size : flight->key_size_max;
}

uint32_t flight_get_urgency(const struct flight *flight, const struct flight_part *part)
{
	return atomic_load_explicit(
		&flight_run(flight, part->cell, flight_load(flight, part->cell))->urgency,
		memory_order_relaxed);
}

uint64_t flight_leader_id(const struct flight *flight, const struct flight_part *part)
{
	uint64_t state = flight_load(flight, part->cell);

	if (flight_state_phase(state) != FLIGHT_LED)
		return 0;

	return seats_owner(&flight->segment->seats, flight_state_seat(state));
}

uint32_t flight_count(const struct flight *flight)
{
	uint32_t n = 0;

	for (uint32_t cell = 0; cell < flight->n_cells; ++cell) {
		uint64_t state = flight_load(flight, cell);

		if (!flight_state_is_in_flight(state))
			continue;

		/* Nobody leads and nobody waits: it is over, and nobody has noticed.  The seat of a
		 * queued key is its asker's. */
		if (flight_seat_is_held(flight, cell, state) ||
		    seats_any(&flight->segment->seats, flight->table, cell, SEAT_NONE))
			++n;
	}

	return n;
}
