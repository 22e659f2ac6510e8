/* SPDX-License-Identifier: MIT */

/*
 * The parts of a table or a handler: taking them, giving them back, and who may do that when.  See
 * flight.h.
 */

#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/client/client.h"
#include "libipc/client/flight.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/process.h"

void parts_init(struct flight_owner *owner)
{
	(void)pthread_mutex_init(&owner->mutex, NULL);
}

static struct parts_chunk *parts_chunk_of(struct flight_owner *owner, uint32_t row)
{
	return atomic_load_explicit(&owner->chunk[row / PARTS_CHUNK], memory_order_acquire);
}

/* ---- the end of a use ---- */

static bool owner_is_alive(const struct flight_owner *owner)
{
	return liveness_handle_is(owner->endpoint.table, owner->endpoint.id);
}

/* Close has nothing to wait for any more. */
static void owner_tell(struct flight_owner *owner)
{
	uint32_t n_rows;

	/* Who adds a row either did so before, or sees that the handle is closed. */
	(void)pthread_mutex_lock(&owner->mutex);
	n_rows = atomic_load_explicit(&owner->n_rows, memory_order_relaxed);
	(void)pthread_mutex_unlock(&owner->mutex);

	/* Held dead, it could not leave what it led, and its seats are still named there. */
	for (uint32_t row = 0; row < n_rows && owner_is_alive(owner); ++row)
		flight_row_give(&owner->view,
				parts_chunk_of(owner, row)->seats_row[row % PARTS_CHUNK]);

	CRASH_POINT();
	endpoint_tell_closed(&owner->endpoint);
}

static void owner_count_down(struct flight_owner *owner)
{
	if (atomic_fetch_sub_explicit(&owner->n_unleft, 1, memory_order_acq_rel) == 1)
		owner_tell(owner);
}

static void part_uncount(ipc_flight *flight)
{
	if (atomic_exchange_explicit(&flight->is_counted, 0, memory_order_acq_rel))
		owner_count_down(part_owner(flight));
}

/* Nobody is left who uses it. */
static void part_free(ipc_flight *flight)
{
	struct flight_owner *owner = part_owner(flight);
	uint64_t use = part_use(flight);

	if (atomic_load_explicit(&flight->is_joined, memory_order_relaxed)) {
		atomic_store_explicit(&flight->is_joined, 0, memory_order_relaxed);

		/* Held dead: the lead is lost already, and a handler's key goes to another. */
		if (LIKELY(owner_is_alive(owner)))
			flight_leave(&owner->view, &flight->part);
		else
			seats_drop(&owner->view.segment->seats, flight->part.seat);
	}

	/* [B1] Free before the hint says so.  Pairs with [B2]. */
	atomic_store_explicit(&flight->part.use, ((use >> 32) + 1) << 32, memory_order_release);
	atomic_store_explicit(
		&parts_chunk_of(owner, flight->row)->has_free[flight->row % PARTS_CHUNK], 1,
		memory_order_release);

	/* With the part all of its row.  Pairs with the load in parts_take(). */
	atomic_store_explicit(&owner->hint, flight, memory_order_release);

	/* [B3] Either close finds it free, or its mark is found here.  Pairs with [B4]. */
	process_fence_light();
	if (UNLIKELY(atomic_load_explicit(&flight->is_counted, memory_order_relaxed)))
		part_uncount(flight);
}

void part_end(ipc_flight *flight)
{
	uint64_t use = atomic_fetch_sub_explicit(&flight->part.use, 1, memory_order_acq_rel);

	if ((use & PART_VISITORS) == 1 && (use & PART_LEFT))
		part_free(flight);
}

/* ---- calls that are no visitors ---- */

static bool part_is_busy(const ipc_flight *flight)
{
	const struct flight *view = &part_owner(flight)->view;

	return atomic_load_explicit(&flight->is_joining, memory_order_acquire) ||
	       !quicklock_is_free(&view->segment->seats.seat[flight->part.seat].writer);
}

void part_settle_slow(ipc_flight *flight)
{
	uint64_t use = part_use(flight);

	while (use & PART_DEFERRED) {
		/* Who is busy comes here later. */
		if (part_is_busy(flight))
			return;

		if (atomic_compare_exchange_weak_explicit(
			    &flight->part.use, &use, use & ~PART_DEFERRED, memory_order_acq_rel,
			    memory_order_acquire)) {
			part_end(flight);
			return;
		}
	}
}

/* By the one who has set LEFT, as a visitor. */
static void part_leave_slow(ipc_flight *flight)
{
	struct seats *seats = &part_owner(flight)->view.segment->seats;

	/* Until the last visitor goes the part leads on; a thread that has left it and joins again
	 * does not wait for itself. */
	atomic_store_explicit(&seats->seat[flight->part.seat].thread, 0, memory_order_relaxed);

	atomic_store_explicit(&flight->handle.cancelled, 1, memory_order_release);
	endpoint_bump(flight->handle.endpoint);

	if (part_is_busy(flight)) {
		atomic_fetch_add_explicit(&flight->part.use, PART_DEFERRED + 1,
					  memory_order_seq_cst);

		/* [B5] Either who is busy finds DEFERRED afterwards, or it is not busy any more in
		 * the look that follows.  Pairs with [B6]. */
		process_fence_heavy();
		part_settle_slow(flight);
	}

	part_end(flight);
}

/*
 * After LEFT was set, which is a full barrier: either whoever puts the part into the poll set finds
 * it left, or it is found there.
 */
static void part_unpoll(ipc_flight *flight)
{
	if (UNLIKELY(atomic_load_explicit(&flight->handle.polled, memory_order_seq_cst)))
		poll_set_forget(&flight->handle.endpoint->client->polls, &flight->handle.polled);
}

void part_leave(ipc_flight *flight)
{
	uint64_t use = part_use(flight);

	atomic_store_explicit(&flight->handle.magic, 0, memory_order_relaxed);
	do {
		if ((use & (PART_IN_USE | PART_LEFT)) != PART_IN_USE)
			return;
	} while (!atomic_compare_exchange_weak_explicit(&flight->part.use, &use,
							(use | PART_LEFT) + 1, memory_order_seq_cst,
							memory_order_acquire));
	part_unpoll(flight);

	if (LIKELY((use & PART_VISITORS) == 0 && !part_is_busy(flight)))
		part_free(flight);
	else
		part_leave_slow(flight);
}

/* The same by a visitor, who goes with it. */
void part_leave_visited(ipc_flight *flight)
{
	uint64_t use = part_use(flight);

	atomic_store_explicit(&flight->handle.magic, 0, memory_order_relaxed);
	do {
		if ((use & (PART_IN_USE | PART_LEFT)) != PART_IN_USE) {
			part_end(flight);
			return;
		}
	} while (!atomic_compare_exchange_weak_explicit(&flight->part.use, &use, use | PART_LEFT,
							memory_order_seq_cst,
							memory_order_acquire));
	part_unpoll(flight);

	if (LIKELY((use & PART_VISITORS) == 1 && !part_is_busy(flight)))
		part_free(flight);
	else
		part_leave_slow(flight);
}

/* ---- visitors ---- */

static int part_visit(ipc_flight *flight, uint64_t use)
{
	do {
		if ((use & (PART_IN_USE | PART_LEFT)) != PART_IN_USE)
			return IPC_EINVAL;
	} while (!atomic_compare_exchange_weak_explicit(
		&flight->part.use, &use, use + 1, memory_order_acq_rel, memory_order_acquire));
	return 0;
}

int part_begin(ipc_flight *flight)
{
	return part_visit(flight, part_use(flight));
}

int part_begin_again(ipc_flight *flight, uint64_t use)
{
	int r;

	r = part_begin(flight);
	if (r < 0 || ((part_use(flight) ^ use) >> 32) == 0)
		return r;

	/* Another use by now, of which this is a visitor that nobody notices. */
	part_end(flight);
	return IPC_EINVAL;
}

/* ---- take ---- */

static bool part_try(ipc_flight *flight)
{
	uint64_t use = atomic_load_explicit(&flight->part.use, memory_order_relaxed);

	return !(use & ~(UINT64_MAX << 32)) &&
	       atomic_compare_exchange_strong_explicit(&flight->part.use, &use, use | PART_IN_USE,
						       memory_order_acq_rel, memory_order_relaxed);
}

static ipc_flight *row_try(struct parts_chunk *chunk, uint32_t i)
{
	for (unsigned seat = 0; seat < SEATS_PER_ROW; ++seat)
		if (part_try(&chunk->row[i][seat]))
			return &chunk->row[i][seat];

	return NULL;
}

static ipc_flight *parts_find(struct flight_owner *owner)
{
	uint32_t n_rows = atomic_load_explicit(&owner->n_rows, memory_order_acquire);
	ipc_flight *flight;

	for (uint32_t row = 0; row < n_rows; ++row) {
		struct parts_chunk *chunk = parts_chunk_of(owner, row);
		_Atomic uint8_t *has_free = &chunk->has_free[row % PARTS_CHUNK];

		if (!atomic_load_explicit(has_free, memory_order_relaxed))
			continue;

		/* [B2] What became free before the hint was set is found.  Pairs with [B1]. */
		(void)atomic_exchange_explicit(has_free, 0, memory_order_acq_rel);
		flight = row_try(chunk, row % PARTS_CHUNK);
		if (flight) {
			atomic_store_explicit(has_free, 1, memory_order_relaxed);
			return flight;
		}
	}

	return NULL;
}

/* Under the mutex. */
static int parts_add_chunk(struct flight_owner *owner, uint32_t i, struct parts_chunk **ret)
{
	struct parts_chunk *chunk = atomic_load_explicit(&owner->chunk[i], memory_order_relaxed);

	if (!chunk) {
		chunk = calloc(1, sizeof(*chunk));
		if (!chunk)
			return IPC_ENOMEM;

		/* Pairs with the acquire of parts_chunk_of(). */
		atomic_store_explicit(&owner->chunk[i], chunk, memory_order_release);
	}

	*ret = chunk;
	return 0;
}

static void row_init(struct flight_owner *owner, struct ipc_flight *parts, uint32_t row,
		     uint32_t seats_row)
{
	for (uint32_t seat = 0; seat < SEATS_PER_ROW; ++seat) {
		parts[seat] = (struct ipc_flight){
			.handle = {.endpoint = &owner->endpoint,
				   .readiness = &flight_part_readiness},
			.part = {.seat = seats_row * SEATS_PER_ROW + seat},
			.row = row,
		};
	}
}

/* Under the mutex. */
static int parts_add_row(struct flight_owner *owner)
{
	uint32_t n_rows = atomic_load_explicit(&owner->n_rows, memory_order_relaxed);
	struct parts_chunk *chunk;
	struct ipc_flight *parts;
	uint32_t seats_row;
	int r;

	if (n_rows == SEATS_ROWS)
		return IPC_ENOSPC;
	if (atomic_load_explicit(&owner->endpoint.closing, memory_order_relaxed))
		return IPC_ECANCELED;

	r = parts_add_chunk(owner, n_rows / PARTS_CHUNK, &chunk);
	if (r < 0)
		return r;

	parts = aligned_alloc(_Alignof(struct ipc_flight), SEATS_PER_ROW * sizeof(*parts));
	if (!parts)
		return IPC_ENOMEM;
	if (!flight_row_take(&owner->view, &seats_row)) {
		free(parts);
		return IPC_ENOSPC;
	}

	row_init(owner, parts, n_rows, seats_row);
	chunk->row[n_rows % PARTS_CHUNK] = parts;
	chunk->seats_row[n_rows % PARTS_CHUNK] = seats_row;
	atomic_store_explicit(&chunk->has_free[n_rows % PARTS_CHUNK], 1, memory_order_relaxed);

	/* All of the row before its number.  Pairs with the acquire of parts_find(). */
	atomic_store_explicit(&owner->n_rows, n_rows + 1, memory_order_release);
	return 0;
}

static int parts_find_or_add(struct flight_owner *owner, ipc_flight **ret)
{
	int r = 0;

	while (r == 0) {
		uint32_t n_rows = atomic_load_explicit(&owner->n_rows, memory_order_relaxed);

		*ret = parts_find(owner);
		if (*ret)
			break;

		/* What another thread has added meanwhile is looked at first. */
		(void)pthread_mutex_lock(&owner->mutex);
		if (atomic_load_explicit(&owner->n_rows, memory_order_relaxed) == n_rows)
			r = parts_add_row(owner);
		(void)pthread_mutex_unlock(&owner->mutex);
	}

	return r;
}

int parts_take(struct flight_owner *owner, ipc_flight **ret)
{
	ipc_flight *flight = atomic_load_explicit(&owner->hint, memory_order_acquire);
	int r;

	if (UNLIKELY(!flight || !part_try(flight))) {
		r = parts_find_or_add(owner, &flight);
		if (r < 0)
			return r;
	}

	atomic_store_explicit(&flight->handle.cancelled, 0, memory_order_relaxed);
	atomic_store_explicit(&flight->is_joining, 1, memory_order_relaxed);

	/* [B7] Either close finds the part, and that it is joining, or this thread sees `closing`.
	 * Pairs with the heavy fence of endpoint_close(). */
	process_fence_light();
	if (UNLIKELY(atomic_load_explicit(&owner->endpoint.closing, memory_order_relaxed))) {
		parts_abort(flight, false);
		return IPC_ECANCELED;
	}

	*ret = flight;
	return 0;
}

static void part_end_joining(ipc_flight *flight, bool is_joined)
{
	atomic_store_explicit(&flight->is_joined, is_joined, memory_order_relaxed);
	atomic_store_explicit(&flight->is_joining, 0, memory_order_release);

	/* [B6] Pairs with [B5]. */
	process_fence_light();
}

int parts_give(ipc_flight *flight)
{
	atomic_store_explicit(&flight->handle.magic, ENDPOINT_PART_MAGIC, memory_order_relaxed);
	part_end_joining(flight, true);
	if (LIKELY(!(part_use(flight) & PART_LEFT)))
		return 0;

	part_settle(flight);
	return IPC_ECANCELED;
}

void parts_abort(ipc_flight *flight, bool is_joined)
{
	part_end_joining(flight, is_joined);
	part_settle(flight);
	part_leave(flight);
}

/* ---- close ---- */

static void parts_for_each(struct flight_owner *owner, void (*fn)(ipc_flight *flight))
{
	uint32_t n_rows = atomic_load_explicit(&owner->n_rows, memory_order_acquire);

	for (uint32_t row = 0; row < n_rows; ++row)
		for (unsigned seat = 0; seat < SEATS_PER_ROW; ++seat)
			fn(&parts_chunk_of(owner, row)->row[row % PARTS_CHUNK][seat]);
}

static void part_close(ipc_flight *flight)
{
	if (!(part_use(flight) & PART_IN_USE))
		return;

	atomic_fetch_add_explicit(&part_owner(flight)->n_unleft, 1, memory_order_relaxed);
	atomic_store_explicit(&flight->is_counted, 1, memory_order_relaxed);
	part_leave(flight);
}

static void part_uncount_free(ipc_flight *flight)
{
	if (!(part_use(flight) & PART_IN_USE))
		part_uncount(flight);
}

void parts_closing(struct endpoint *endpoint)
{
	struct flight_owner *owner = (struct flight_owner *)endpoint;

	endpoint->tells_later = true;
	atomic_store_explicit(&owner->n_unleft, 1, memory_order_relaxed);
	parts_for_each(owner, part_close);

	/* [B4] Pairs with [B3]. */
	process_fence_heavy();
	parts_for_each(owner, part_uncount_free);
	owner_count_down(owner);
}

void parts_release(struct endpoint *endpoint)
{
	struct flight_owner *owner = (struct flight_owner *)endpoint;
	uint32_t n_rows = atomic_load_explicit(&owner->n_rows, memory_order_relaxed);

	/* A `writer` that is nobody's kept a part busy: no process of ours writes such a word. */
	if (!thread_is_foreign(endpoint->epoch) &&
	    atomic_load_explicit(&owner->n_unleft, memory_order_relaxed))
		endpoint_tell_closed(endpoint);

	for (uint32_t row = 0; row < n_rows; ++row)
		free(parts_chunk_of(owner, row)->row[row % PARTS_CHUNK]);
	for (uint32_t i = 0; i < N_ELEMENTS(owner->chunk); ++i)
		free(atomic_load_explicit(&owner->chunk[i], memory_order_relaxed));

	(void)pthread_mutex_destroy(&owner->mutex);
	flight_detach(&owner->view);
	free(owner);
}
