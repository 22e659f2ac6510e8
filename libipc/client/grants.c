/* SPDX-License-Identifier: MIT */

/*
 * The grants of a limiter's handle: taking them, giving them back, and who may do that when.  See
 * limiter.h.
 */

#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/client/limiter.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/process.h"

/* ---- the end of a use ---- */

static void limiter_tell(ipc_limiter *limiter)
{
	/* Who adds a row either was counted and has done so, or sees that the handle is closed. */
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_acquire);

	/* Held dead, it could not release what it held: whoever needs that does. */
	for (uint32_t i = 0; i < n_rows; ++i)
		if (liveness_handle_is(limiter->endpoint.table, limiter->endpoint.id))
			limiter_row_give(&limiter->view, limiter->row[i]->seats_row);

	CRASH_POINT();
	endpoint_tell_closed(&limiter->endpoint);
}

static void limiter_count_down(ipc_limiter *limiter)
{
	if (atomic_fetch_sub_explicit(&limiter->n_unfree, 1, memory_order_acq_rel) == 1)
		limiter_tell(limiter);
}

static void limiter_uncount(ipc_limiter *limiter, _Atomic uint32_t *is_counted)
{
	if (atomic_exchange_explicit(is_counted, 0, memory_order_acq_rel))
		limiter_count_down(limiter);
}

/* After what close counts was done. */
static void limiter_done(ipc_limiter *limiter, _Atomic uint32_t *is_counted)
{
	/* [J3] Either close finds it done, or its mark is found here.  Pairs with [J4]. */
	process_fence_light();
	if (UNLIKELY(atomic_load_explicit(is_counted, memory_order_relaxed)))
		limiter_uncount(limiter, is_counted);
}

void grant_free(ipc_limiter *limiter, struct grant *grant)
{
	uint64_t use = atomic_load_explicit(&grant->use, memory_order_relaxed);

	/* [J1] Free before the hint says so.  Pairs with [J2]. */
	atomic_store_explicit(&grant->use, ((use >> 2) + 1) << 2 | GRANT_FREE,
			      memory_order_release);
	atomic_store_explicit(&limiter->row[grant->index / SEATS_PER_ROW]->has_free, 1,
			      memory_order_release);
	atomic_store_explicit(&limiter->hint, grant, memory_order_relaxed);
	limiter_done(limiter, &grant->is_counted);
}

static bool grant_change(struct grant *grant, uint64_t use, unsigned status)
{
	return atomic_compare_exchange_strong_explicit(&grant->use, &use,
						       (use & ~GRANT_STATUS) | status,
						       memory_order_acq_rel, memory_order_relaxed);
}

/* ---- taking one ---- */

static bool grant_try(struct grant *grant)
{
	uint64_t use = atomic_load_explicit(&grant->use, memory_order_relaxed);

	return (use & GRANT_STATUS) == GRANT_FREE && grant_change(grant, use, GRANT_BUSY);
}

static struct grant *row_try(struct grant_row *row)
{
	for (unsigned i = 0; i < SEATS_PER_ROW; ++i)
		if (grant_try(&row->grant[i]))
			return &row->grant[i];

	return NULL;
}

static struct grant *grants_find(ipc_limiter *limiter)
{
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_acquire);

	for (uint32_t i = 0; i < n_rows; ++i) {
		struct grant_row *row = limiter->row[i];
		struct grant *grant;

		if (!atomic_load_explicit(&row->has_free, memory_order_relaxed))
			continue;

		/* [J2] What became free before it was said so is found.  Pairs with [J1]. */
		(void)atomic_exchange_explicit(&row->has_free, 0, memory_order_acq_rel);
		grant = row_try(row);
		if (grant) {
			atomic_store_explicit(&row->has_free, 1, memory_order_relaxed);
			return grant;
		}
	}

	return NULL;
}

static bool limiter_is_closing(const ipc_limiter *limiter)
{
	return atomic_load_explicit(&limiter->endpoint.closing, memory_order_relaxed) != 0;
}

static int row_add(ipc_limiter *limiter)
{
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_relaxed);
	struct grant_row *row;

	if (n_rows == LIMITER_ROWS)
		return IPC_ENOSPC;

	row = aligned_alloc(_Alignof(struct grant_row), sizeof(*row));
	if (!row)
		return IPC_ENOMEM;

	*row = (struct grant_row){.has_free = 1};
	if (!limiter_row_take(&limiter->view, &row->seats_row)) {
		int r = header_fault(limiter->endpoint.header);

		free(row);
		return r < 0 ? r : IPC_ENOSPC;
	}

	for (uint32_t i = 0; i < SEATS_PER_ROW; ++i) {
		row->grant[i].part.seat = row->seats_row * SEATS_PER_ROW + i;
		row->grant[i].index = n_rows * SEATS_PER_ROW + i;
	}

	/* All of the row before its number.  Pairs with the acquire of grants_find(). */
	limiter->row[n_rows] = row;
	atomic_store_explicit(&limiter->n_rows, n_rows + 1, memory_order_release);
	return 0;
}

/* Unless another thread has added one meanwhile, which is looked at first. */
static int row_add_after(ipc_limiter *limiter, uint32_t n_rows)
{
	int r = 0;

	(void)pthread_mutex_lock(&limiter->mutex);
	atomic_store_explicit(&limiter->is_adding, 1, memory_order_relaxed);

	/* [J5] Either close finds it adding, or this thread sees `closing`.  Pairs with the heavy
	 * fence of endpoint_close(). */
	process_fence_light();
	if (limiter_is_closing(limiter))
		r = IPC_ECANCELED;
	else if (atomic_load_explicit(&limiter->n_rows, memory_order_relaxed) == n_rows)
		r = row_add(limiter);

	atomic_store_explicit(&limiter->is_adding, 0, memory_order_release);
	(void)pthread_mutex_unlock(&limiter->mutex);

	limiter_done(limiter, &limiter->adder_is_counted);
	return r;
}

static int grants_find_or_add(ipc_limiter *limiter, struct grant **ret)
{
	int r = 0;

	while (r == 0) {
		uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_relaxed);

		*ret = grants_find(limiter);
		if (*ret)
			break;
		r = row_add_after(limiter, n_rows);
	}

	return r;
}

int grant_take(ipc_limiter *limiter, uint32_t permits, struct grant **ret)
{
	struct grant *grant = atomic_load_explicit(&limiter->hint, memory_order_relaxed);
	int r;

	if (UNLIKELY(!grant || !grant_try(grant))) {
		r = grants_find_or_add(limiter, &grant);
		if (r < 0)
			return r;
	}

	/* [J5] Either close finds it BUSY, or this thread sees `closing`.  Pairs with the heavy
	 * fence of endpoint_close(). */
	process_fence_light();
	if (UNLIKELY(limiter_is_closing(limiter))) {
		grant_free(limiter, grant);
		return IPC_ECANCELED;
	}

	grant->part.permits = permits;
	*ret = grant;
	return 0;
}

/* ---- grants and their numbers ---- */

/* Which use of which grant of which handle, in one number: of another handle it makes no sense. */
static uint64_t limiter_salt(const ipc_limiter *limiter)
{
	return limiter->endpoint.id * UINT64_C(0x9e3779b97f4a7c15);
}

static_assert(LIMITER_SEATS == 1 << 13, "the bits of an index");

static uint64_t grant_id(const ipc_limiter *limiter, const struct grant *grant, uint64_t use)
{
	return ((use >> 2) << 13 | grant->index) ^ limiter_salt(limiter);
}

struct grant *grant_of(ipc_limiter *limiter, uint64_t id)
{
	uint64_t number = id ^ limiter_salt(limiter);
	uint32_t index = number & (LIMITER_SEATS - 1);
	struct grant *grant;

	if (index / SEATS_PER_ROW >= atomic_load_explicit(&limiter->n_rows, memory_order_acquire))
		return NULL;

	grant = &limiter->row[index / SEATS_PER_ROW]->grant[index % SEATS_PER_ROW];
	return grant_change(grant, number >> 13 << 2 | GRANT_HELD, GRANT_BUSY) ? grant : NULL;
}

int grant_give(ipc_limiter *limiter, struct grant *grant, struct ipc_limiter_grant *ret)
{
	uint64_t use = atomic_load_explicit(&grant->use, memory_order_relaxed);
	uint64_t held = (use & ~GRANT_STATUS) | GRANT_HELD;

	const struct ipc_limiter_grant given = {.id = grant_id(limiter, grant, use),
						.permits = grant->part.permits};

	atomic_store_explicit(&grant->use, held, memory_order_release);

	/* [J5] As above: close releases it, or is seen here. */
	process_fence_light();
	if (LIKELY(!limiter_is_closing(limiter))) {
		*ret = given;
		return 0;
	}

	if (grant_change(grant, held, GRANT_BUSY)) {
		(void)!limiter_release(&limiter->view, &grant->part, false);
		grant_free(limiter, grant);
	}
	return IPC_ECANCELED;
}

/* ---- close ---- */

static void limiter_for_each(ipc_limiter *limiter, void (*fn)(ipc_limiter *, struct grant *))
{
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_acquire);

	for (uint32_t i = 0; i < n_rows; ++i)
		for (unsigned n = 0; n < SEATS_PER_ROW; ++n)
			fn(limiter, &limiter->row[i]->grant[n]);
}

static void limiter_count(ipc_limiter *limiter, _Atomic uint32_t *is_counted)
{
	atomic_fetch_add_explicit(&limiter->n_unfree, 1, memory_order_relaxed);
	atomic_store_explicit(is_counted, 1, memory_order_relaxed);
}

static void grant_close(ipc_limiter *limiter, struct grant *grant)
{
	uint64_t use = atomic_load_explicit(&grant->use, memory_order_acquire);

	if ((use & GRANT_STATUS) == GRANT_HELD && grant_change(grant, use, GRANT_BUSY)) {
		(void)!limiter_release(&limiter->view, &grant->part, false);
		grant_free(limiter, grant);
	} else if ((use & GRANT_STATUS) != GRANT_FREE) {
		limiter_count(limiter, &grant->is_counted);
	}
}

static void grant_uncount_free(ipc_limiter *limiter, struct grant *grant)
{
	if ((atomic_load_explicit(&grant->use, memory_order_acquire) & GRANT_STATUS) == GRANT_FREE)
		limiter_uncount(limiter, &grant->is_counted);
}

void grants_closing(struct endpoint *endpoint)
{
	ipc_limiter *limiter = (ipc_limiter *)endpoint;

	endpoint->tells_later = true;
	atomic_store_explicit(&limiter->n_unfree, 1, memory_order_relaxed);
	limiter_for_each(limiter, grant_close);
	if (atomic_load_explicit(&limiter->is_adding, memory_order_relaxed))
		limiter_count(limiter, &limiter->adder_is_counted);

	/* [J4] Pairs with [J3]. */
	process_fence_heavy();
	limiter_for_each(limiter, grant_uncount_free);
	if (!atomic_load_explicit(&limiter->is_adding, memory_order_acquire))
		limiter_uncount(limiter, &limiter->adder_is_counted);
	limiter_count_down(limiter);
}
