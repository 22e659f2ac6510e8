/* SPDX-License-Identifier: MIT */

/*
 * The role of the kind `limiter`.
 *
 * Grants are memory of their handle: made in rows, as seats are (core/seats.h), used again and
 * again, and freed with the handle.  A grant's life is one word, `use`:
 *
 * bits    what       rule
 * 63..2   which use  grows each time the grant becomes free
 * 1..0    status     FREE; BUSY: one call has it, to acquire or to release; HELD: the program's
 *
 * Only the call that made it BUSY touches the rest, or the seat.  Close makes every HELD grant BUSY
 * and releases it; of those that are BUSY it marks is_counted, and the calls that have them, which
 * see that the handle is closing, count down when they are free.  The broker is not told before the
 * last of them: from then on the handle's seats are nobody's.
 */

#include <pthread.h>
#include <stdlib.h>

#include <ipc/error.h>
#include <ipc/limiter.h>
#include <ipc/wait.h>

#include "libipc/channel/limiter.h"
#include "libipc/client/client.h"
#include "libipc/client/endpoint.h"
#include "libipc/client/options.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/process.h"

enum { GRANT_FREE, GRANT_BUSY, GRANT_HELD };

#define GRANT_STATUS UINT64_C(3)

struct grant {
	_Alignas(64) _Atomic uint64_t use;
	struct limiter_part part;
	_Atomic uint32_t is_counted; /* in limiter->n_unfree */
	uint32_t index;              /* of this handle's grants */
};
ASSERT_SIZE(struct grant, 64);

struct grant_row {
	struct grant grant[SEATS_PER_ROW];
	uint32_t seats_row;
	_Atomic uint32_t has_free; /* 0: a search found none */
};

struct ipc_limiter {
	struct endpoint endpoint;
	struct limiter view;

	_Atomic(struct grant *) hint; /* the one that became free last */
	pthread_mutex_t mutex;        /* of those who add rows */
	_Atomic uint32_t n_rows;
	struct grant_row *row[LIMITER_ROWS];

	/* Grants that close waits for, and close itself; not 0: the broker is not told yet. */
	_Atomic uint32_t n_unfree;
};
ASSERT_OFFSET(struct ipc_limiter, endpoint, 0);

/* ---- the end of a use ---- */

static void limiter_tell(ipc_limiter *limiter)
{
	uint32_t n_rows;

	/* Who adds a row either did so before, or sees that the handle is closed. */
	(void)pthread_mutex_lock(&limiter->mutex);
	n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_relaxed);
	(void)pthread_mutex_unlock(&limiter->mutex);

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

static void grant_uncount(ipc_limiter *limiter, struct grant *grant)
{
	if (atomic_exchange_explicit(&grant->is_counted, 0, memory_order_acq_rel))
		limiter_count_down(limiter);
}

/* By the call that has it. */
static void grant_free(ipc_limiter *limiter, struct grant *grant)
{
	uint64_t use = atomic_load_explicit(&grant->use, memory_order_relaxed);

	/* [J1] Free before the hint says so.  Pairs with [J2]. */
	atomic_store_explicit(&grant->use, ((use >> 2) + 1) << 2 | GRANT_FREE,
			      memory_order_release);
	atomic_store_explicit(&limiter->row[grant->index / SEATS_PER_ROW]->has_free, 1,
			      memory_order_release);
	atomic_store_explicit(&limiter->hint, grant, memory_order_relaxed);

	/* [J3] Either close finds it free, or its mark is found here.  Pairs with [J4]. */
	process_fence_light();
	if (UNLIKELY(atomic_load_explicit(&grant->is_counted, memory_order_relaxed)))
		grant_uncount(limiter, grant);
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

/* Under the mutex. */
static int row_add(ipc_limiter *limiter)
{
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_relaxed);
	struct grant_row *row;

	if (n_rows == LIMITER_ROWS)
		return IPC_ENOSPC;
	if (atomic_load_explicit(&limiter->endpoint.closing, memory_order_relaxed))
		return IPC_ECANCELED;

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

static int grants_find_or_add(ipc_limiter *limiter, struct grant **ret)
{
	int r = 0;

	while (r == 0) {
		uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_relaxed);

		*ret = grants_find(limiter);
		if (*ret)
			break;

		/* What another thread has added meanwhile is looked at first. */
		(void)pthread_mutex_lock(&limiter->mutex);
		if (atomic_load_explicit(&limiter->n_rows, memory_order_relaxed) == n_rows)
			r = row_add(limiter);
		(void)pthread_mutex_unlock(&limiter->mutex);
	}

	return r;
}

static bool limiter_is_closing(const ipc_limiter *limiter)
{
	return atomic_load_explicit(&limiter->endpoint.closing, memory_order_relaxed) != 0;
}

/* BUSY from now on, the calling thread's alone. */
static int grant_take(ipc_limiter *limiter, uint32_t permits, struct grant **ret)
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

/* The grant becomes BUSY.  NULL: no grant of this handle, or not any more. */
static struct grant *grant_of(ipc_limiter *limiter, uint64_t id)
{
	uint64_t number = id ^ limiter_salt(limiter);
	uint32_t index = number & (LIMITER_SEATS - 1);
	struct grant *grant;

	if (index / SEATS_PER_ROW >= atomic_load_explicit(&limiter->n_rows, memory_order_acquire))
		return NULL;

	grant = &limiter->row[index / SEATS_PER_ROW]->grant[index % SEATS_PER_ROW];
	return grant_change(grant, number >> 13 << 2 | GRANT_HELD, GRANT_BUSY) ? grant : NULL;
}

/* It has been granted and becomes the program's. */
static int grant_give(ipc_limiter *limiter, struct grant *grant, struct ipc_limiter_grant *ret)
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

/* ---- acquire ---- */

static int acquire(ipc_limiter *limiter, uint32_t permits, struct ipc_limiter_grant *ret)
{
	struct limiter_denial denial;
	struct grant *grant;
	int r;

	r = limiter_check(&limiter->view, permits);
	if (r == 0)
		r = grant_take(limiter, permits, &grant);
	if (r < 0)
		return r;

	r = limiter_acquire(&limiter->view, &grant->part, &denial);
	if (r == 0)
		return grant_give(limiter, grant, ret);

	grant_free(limiter, grant);
	return r;
}

int ipc_limiter_acquire(ipc_limiter *limiter, uint32_t permits, struct ipc_limiter_grant *ret)
{
	int r;

	r = endpoint_enter((struct endpoint *)limiter, IPC_ROLE_LIMITER);
	if (r < 0)
		return r;

	r = ret ? acquire(limiter, permits, ret) : IPC_EINVAL;
	endpoint_leave((struct endpoint *)limiter);
	return r;
}

/* ---- acquire_wait ---- */

struct waiting {
	ipc_limiter *limiter;
	struct limiter_part *part;
	uint64_t deadline_ns; /* the caller's; the waiter's may be the end of a window */
	struct waiter waiter;
};

/* How long the caller would wait for a window. */
static uint64_t time_left_ns(uint64_t deadline_ns)
{
	uint64_t now_ns;

	if (deadline_ns == 0 || deadline_ns == CLOCK_FOREVER)
		return deadline_ns;

	now_ns = clock_now_ns();
	return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

static void waiting_show_holder(struct waiting *waiting)
{
	struct desk_cell *cell = waiting->limiter->endpoint.cell;
	uint64_t holder = limiter_holder(&waiting->limiter->view);

	if (holder == waiting->waiter.waits_for)
		return;

	waiting->waiter.waits_for = holder;
	if (atomic_load_explicit(&cell->waits_since, memory_order_relaxed))
		atomic_store_explicit(&cell->waits_for, holder, memory_order_relaxed);
}

static int waiting_look(void *subject)
{
	struct waiting *waiting = subject;
	struct limiter_denial denial;
	uint64_t window_end_ns;
	int r;

	r = limiter_look(&waiting->limiter->view, waiting->part, &denial);
	if (r != IPC_EAGAIN)
		return r;

	waiting->waiter.deadline_ns = waiting->deadline_ns;
	if (denial.reason == IPC_EDQUOT) {
		if (denial.window_left_ns > time_left_ns(waiting->deadline_ns))
			return IPC_EDQUOT;

		window_end_ns = clock_after_ns(denial.window_left_ns);
		if (window_end_ns < waiting->deadline_ns)
			waiting->waiter.deadline_ns = window_end_ns;
	}

	waiting_show_holder(waiting);
	return WAITER_NOT_YET;
}

/* For a request that stands in the queue: 0 or how the wait ended. */
static int wait_in_queue(ipc_limiter *limiter, struct limiter_part *part, uint64_t deadline_ns)
{
	struct waiting waiting = {
		.limiter = limiter, .part = part, .deadline_ns = deadline_ns};
	int r;

	do {
		endpoint_waiter(&limiter->endpoint, &waiting.waiter,
				limiter_event(&limiter->view, part), deadline_ns);
		r = waiter_wait(&waiting.waiter, waiting_look, &waiting);
	} while (r == IPC_ETIMEDOUT && time_left_ns(deadline_ns) > 0);

	if (r < 0 && limiter_give_up(&limiter->view, part))
		r = 0;
	return r;
}

static int acquire_wait(ipc_limiter *limiter, uint32_t permits, uint64_t deadline_ns,
			struct ipc_limiter_grant *ret)
{
	struct limiter_denial denial;
	struct grant *grant;
	int r;

	r = limiter_check(&limiter->view, permits);
	if (r == 0)
		r = grant_take(limiter, permits, &grant);
	if (r < 0)
		return r;

	r = limiter_queue(&limiter->view, &grant->part, time_left_ns(deadline_ns), &denial);
	if (r == 1)
		r = wait_in_queue(limiter, &grant->part, deadline_ns);
	if (r == 0)
		return grant_give(limiter, grant, ret);

	grant_free(limiter, grant);
	return r;
}

int ipc_limiter_acquire_wait(ipc_limiter *limiter, uint32_t permits, struct ipc_limiter_grant *ret,
			     const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = endpoint_enter((struct endpoint *)limiter, IPC_ROLE_LIMITER);
	if (r < 0)
		return r;

	r = ret ? acquire_wait(limiter, permits, deadline_ns, ret) : IPC_EINVAL;
	endpoint_leave((struct endpoint *)limiter);
	return r;
}

/* ---- release, state ---- */

static int release(ipc_limiter *limiter, const struct ipc_limiter_grant *given, bool refund)
{
	struct grant *grant = grant_of(limiter, given->id);
	int r;

	if (!grant)
		return IPC_ESTALE;

	r = limiter_release(&limiter->view, &grant->part, refund);
	grant_free(limiter, grant);
	return r;
}

int ipc_limiter_release(ipc_limiter *limiter, const struct ipc_limiter_grant *grant, bool refund)
{
	int r;

	r = endpoint_enter((struct endpoint *)limiter, IPC_ROLE_LIMITER);
	if (r < 0)
		return r;

	r = grant ? release(limiter, grant, refund) : IPC_EINVAL;
	endpoint_leave((struct endpoint *)limiter);
	return r;
}

int ipc_limiter_get_state(ipc_limiter *limiter, struct ipc_limiter_state *ret)
{
	struct ipc_limiter_state state = {.size = sizeof(state)};
	int r;

	r = endpoint_enter((struct endpoint *)limiter, IPC_ROLE_LIMITER);
	if (r < 0)
		return r;

	r = ret && ret->size >= sizeof(size_t) ? limiter_get_state(&limiter->view, &state)
					       : IPC_EINVAL;
	if (r == 0)
		r = options_write_info(ret, &state, sizeof(state));
	endpoint_leave((struct endpoint *)limiter);
	return r;
}

/* ---- readiness ---- */

static struct eventcount *limiter_wait_event(void *handle)
{
	const ipc_limiter *limiter = handle;

	return limiter_ready_event(&limiter->view);
}

static uint32_t limiter_ready(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_limiter *limiter = handle;
	struct limiter_denial denial;
	int r;

	r = limiter_probe(&limiter->view, &denial);
	if (r == 0)
		return wanted->events & IPC_READY_READABLE;

	return r == IPC_EAGAIN ? 0 : IPC_READY_END;
}

/* The end of a window. */
static uint64_t limiter_due_ns(void *handle)
{
	ipc_limiter *limiter = handle;
	struct limiter_denial denial;

	/* It may have ended since the look. */
	if (limiter_probe(&limiter->view, &denial) != IPC_EAGAIN)
		return 0;

	return denial.reason == IPC_EDQUOT ? clock_after_ns(denial.window_left_ns) : CLOCK_FOREVER;
}

static uint64_t limiter_waits_for(void *handle)
{
	const ipc_limiter *limiter = handle;

	return limiter_holder(&limiter->view);
}

static const struct endpoint_readiness limiter_readiness = {
	.events = IPC_READY_READABLE,
	.event = limiter_wait_event,
	.look = limiter_ready,
	.due_ns = limiter_due_ns,
	.waits_for = limiter_waits_for,
};

/* ---- close ---- */

static void limiter_for_each(ipc_limiter *limiter, void (*fn)(ipc_limiter *, struct grant *))
{
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_acquire);

	for (uint32_t i = 0; i < n_rows; ++i)
		for (unsigned n = 0; n < SEATS_PER_ROW; ++n)
			fn(limiter, &limiter->row[i]->grant[n]);
}

static void grant_close(ipc_limiter *limiter, struct grant *grant)
{
	uint64_t use = atomic_load_explicit(&grant->use, memory_order_acquire);

	if ((use & GRANT_STATUS) == GRANT_HELD && grant_change(grant, use, GRANT_BUSY)) {
		(void)!limiter_release(&limiter->view, &grant->part, false);
		grant_free(limiter, grant);
	} else if ((use & GRANT_STATUS) != GRANT_FREE) {
		atomic_fetch_add_explicit(&limiter->n_unfree, 1, memory_order_relaxed);
		atomic_store_explicit(&grant->is_counted, 1, memory_order_relaxed);
	}
}

static void grant_uncount_free(ipc_limiter *limiter, struct grant *grant)
{
	if ((atomic_load_explicit(&grant->use, memory_order_acquire) & GRANT_STATUS) == GRANT_FREE)
		grant_uncount(limiter, grant);
}

static void limiter_closing(struct endpoint *endpoint)
{
	ipc_limiter *limiter = (ipc_limiter *)endpoint;

	endpoint->tells_later = true;
	atomic_store_explicit(&limiter->n_unfree, 1, memory_order_relaxed);
	limiter_for_each(limiter, grant_close);

	/* [J4] Pairs with [J3]. */
	process_fence_heavy();
	limiter_for_each(limiter, grant_uncount_free);
	limiter_count_down(limiter);
}

static void limiter_free(struct endpoint *endpoint)
{
	ipc_limiter *limiter = (ipc_limiter *)endpoint;
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_relaxed);

	for (uint32_t i = 0; i < n_rows; ++i)
		free(limiter->row[i]);

	(void)pthread_mutex_destroy(&limiter->mutex);
	free(limiter);
}

/* ---- open ---- */

static int limiter_attach_endpoint(struct endpoint *endpoint)
{
	ipc_limiter *limiter = (ipc_limiter *)endpoint;
	struct limiter *view = &limiter->view;
	int r;

	r = limiter_attach(view, endpoint->header, endpoint->segment_size, endpoint->shape,
			   endpoint->id);
	if (r < 0)
		return r;

	view->table = endpoint->table;
	view->uid = endpoint->client->uid;
	view->ring = endpoint_ring;
	view->ring_userdata = endpoint;
	return 0;
}

static int limiter_request_open(struct endpoint_request *ret, const char *name,
				const struct ipc_limiter_options *given)
{
	struct ipc_limiter_options options;
	int r;

	r = options_copy(&options, sizeof(options), given);
	if (r < 0)
		return r;

	r = options_check(options.flags, IPC_CREATE | IPC_EXCLUSIVE | IPC_AWAIT | IPC_KEEP,
			  &options.mode);
	if (r < 0)
		return r;

	if ((options.window_units == 0) != (options.window_ns == 0))
		return IPC_EINVAL;

	/* What is used of a window is not forgotten with the last handle. */
	if (options.window_units > 0 && (options.flags & IPC_CREATE) && !(options.flags & IPC_KEEP))
		return IPC_EINVAL;

	*ret = (struct endpoint_request){
		.kind = IPC_KIND_LIMITER,
		.role = IPC_ROLE_LIMITER,
		.name = name,
		.flags = options.flags,
		.mode = options.mode,
		.gid = options.gid,
		.shape = {options.permits, options.per_user_max, options.window_units,
			  options.window_ns},
		.shape_new = {options.permits ? options.permits : 1, options.per_user_max,
			      options.window_units, options.window_ns},
		.make = limiter_make,
		.attach = limiter_attach_endpoint,
	};
	ret->size_new = limiter_segment_size(ret->shape_new);
	return 0;
}

int ipc_limiter_open_wait(ipc_limiter **ret, ipc_client *client, const char *name,
			  const struct ipc_limiter_options *options,
			  const struct timespec *deadline)
{
	struct endpoint_request request;
	ipc_limiter *limiter;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = limiter_request_open(&request, name, options);
	if (r < 0)
		return r;

	limiter = calloc(1, sizeof(*limiter));
	if (!limiter)
		return IPC_ENOMEM;

	r = endpoint_open_wait(&limiter->endpoint, client, &request, deadline);
	if (r < 0) {
		free(limiter);
		return r;
	}

	(void)pthread_mutex_init(&limiter->mutex, NULL);
	limiter->endpoint.release = limiter_free;
	limiter->endpoint.closing_fn = limiter_closing;
	limiter->endpoint.readiness = &limiter_readiness;
	*ret = limiter;
	return 0;
}

/* ---- what every role has ---- */

ipc_limiter *ipc_limiter_close(ipc_limiter *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_LIMITER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

int ipc_limiter_cancel(ipc_limiter *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_LIMITER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_limiter_get_id(const ipc_limiter *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_LIMITER, ret);
}
