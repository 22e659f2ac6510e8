/* SPDX-License-Identifier: MIT */

/*
 * The role of the kind `limiter`: opening, acquiring and waiting, releasing, and what every role
 * has.
 */

#include "libipc/client/limiter.h"

#include <stdlib.h>

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/client/client.h"
#include "libipc/client/options.h"
#include "libipc/platform/clock.h"

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
	struct waiting waiting = {.limiter = limiter, .part = part, .deadline_ns = deadline_ns};
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

/* ---- open ---- */

static void limiter_free(struct endpoint *endpoint)
{
	ipc_limiter *limiter = (ipc_limiter *)endpoint;
	uint32_t n_rows = atomic_load_explicit(&limiter->n_rows, memory_order_relaxed);

	for (uint32_t i = 0; i < n_rows; ++i)
		free(limiter->row[i]);

	(void)pthread_mutex_destroy(&limiter->mutex);
	free(limiter);
}

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
	struct endpoint *endpoint;
	ipc_limiter *limiter;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = limiter_request_open(&request, name, options);
	if (r < 0)
		return r;

	r = endpoint_new_wait(&endpoint, sizeof(*limiter), client, &request, deadline);
	if (r < 0)
		return r;

	limiter = (ipc_limiter *)endpoint;
	(void)pthread_mutex_init(&limiter->mutex, NULL);
	limiter->endpoint.release = limiter_free;
	limiter->endpoint.closing_fn = grants_closing;
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
