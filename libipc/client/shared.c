/* SPDX-License-Identifier: MIT */

/*
 * The public functions of the kind `shared`: an endpoint, and a view of channel/shared.h.
 */

#include <ipc/shared.h>
#include <ipc/wait.h>

#include "libipc/channel/shared.h"
#include "libipc/client/endpoint.h"
#include "libipc/client/options.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/process.h"

#define SHARED_VALUE_SIZE_DEFAULT 4096

struct ipc_shared {
	struct endpoint endpoint;
	struct shared view;
};
ASSERT_OFFSET(struct ipc_shared, endpoint, 0);

/* ---- the two roles ---- */

static_assert((IPC_ROLE_SHARED_A | 1) == IPC_ROLE_SHARED_B, "the roles differ in one bit");

/* Which of the two roles of this kind; what is no such handle is refused as side A. */
static inline enum ipc_role shared_role(const ipc_shared *handle)
{
	return endpoint_is((const struct endpoint *)handle, IPC_ROLE_SHARED_B) ? IPC_ROLE_SHARED_B
									       : IPC_ROLE_SHARED_A;
}

/* ---- open, close ---- */

static int shared_attach_endpoint(struct endpoint *endpoint)
{
	ipc_shared *handle = (ipc_shared *)endpoint;

	return shared_attach(&handle->view, endpoint->header, endpoint->segment_size,
			     endpoint->shape, endpoint->id);
}

/*
 * What is held is dropped, edits with it (in place there is no copy to drop).  Only the thread that
 * holds can do that: if it is another one of this process, the memory stays mapped, since the C
 * library would write into the lock when that thread takes its next robust lock or ends.  A thread
 * that is just taking the lock either sees `closing` (shared_locked()) or is seen here.
 */
static void shared_closing(struct endpoint *endpoint)
{
	ipc_shared *handle = (ipc_shared *)endpoint;

	shared_drop(&handle->view);
	if (shared_is_taken(&handle->view))
		endpoint->keep_mapped = true;
}

/* Where it waits for anything but the value: an end is told there, a commit not. */
static struct eventcount *shared_line(void *handle)
{
	ipc_shared *shared = handle;

	return &shared->endpoint.lines[shared->endpoint.side];
}

/* The end as lock_when_wait sees it, if its predicate does not hold. */
static uint32_t shared_look_for_end(void *handle, const struct endpoint_wanted *wanted)
{
	const ipc_shared *shared = handle;

	return shared_is_ended(&shared->view) ||
			       endpoint_opposite_end(&shared->endpoint, wanted->began) < 0
		       ? IPC_READY_END
		       : 0;
}

static const struct endpoint_readiness shared_readiness = {
	.events = IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE,
	.event = shared_line,
	.look = shared_look_for_end,
};

static int shared_request(struct endpoint_request *ret, enum ipc_side side,
			  const struct ipc_shared_options *given)
{
	struct ipc_shared_options options;
	bool in_place;
	int r;

	if (side != IPC_SIDE_A && side != IPC_SIDE_B)
		return IPC_EINVAL;

	r = options_copy(&options, sizeof(options), given);
	if (r < 0)
		return r;

	r = options_check(options.flags,
			  IPC_CREATE | IPC_EXCLUSIVE | IPC_AWAIT | IPC_STAY | IPC_SHARED_IN_PLACE,
			  &options.mode);
	if (r < 0)
		return r;
	if (options.value_size > IPC_VALUE_SIZE_MAX)
		return IPC_EINVAL;

	in_place = options.flags & IPC_SHARED_IN_PLACE;
	*ret = (struct endpoint_request){
		.kind = IPC_KIND_SHARED,
		.role = side == IPC_SIDE_A ? IPC_ROLE_SHARED_A : IPC_ROLE_SHARED_B,
		.side = side == IPC_SIDE_A ? 0 : 1,
		.flags = options.flags,
		.mode = options.mode,
		.gid = options.gid,
		.shape = {options.value_size, in_place ? SHARED_IN_PLACE : 0},
		.shape_new = {options.value_size ? options.value_size : SHARED_VALUE_SIZE_DEFAULT,
			      in_place ? SHARED_IN_PLACE : SHARED_TRANSACTIONAL},
		.make = shared_make,
		.attach = shared_attach_endpoint,
	};
	ret->size_new = shared_segment_size(ret->shape_new[0], ret->shape_new[1]);
	return 0;
}

int ipc_shared_open_wait(ipc_shared **ret, ipc_client *client, const char *name, enum ipc_side side,
			 const struct ipc_shared_options *options, const struct timespec *deadline)
{
	struct endpoint_request request;
	struct endpoint *endpoint;
	ipc_shared *handle;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = shared_request(&request, side, options);
	if (r < 0)
		return r;

	request.name = name;
	r = endpoint_new_wait(&endpoint, sizeof(*handle), client, &request, deadline);
	if (r < 0)
		return r;

	handle = (ipc_shared *)endpoint;
	handle->endpoint.closing_fn = shared_closing;
	handle->endpoint.readiness = &shared_readiness;
	handle->view.lines = handle->endpoint.lines;
	handle->view.ring = endpoint_ring;
	handle->view.ring_userdata = &handle->endpoint;
	*ret = handle;
	return 0;
}

ipc_shared *ipc_shared_close(ipc_shared *handle)
{
	if (endpoint_is((struct endpoint *)handle, shared_role(handle)))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

/* ---- calls ---- */

/* Inline, as all that stands between lock and commit: they are called for each small change. */
static inline __attribute__((__always_inline__)) int shared_enter(ipc_shared *handle)
{
	/* One comparison for both roles; endpoint_enter() needs to look no closer. */
	if (UNLIKELY(!handle ||
		     (handle->endpoint.magic | 1) != (ENDPOINT_MAGIC | IPC_ROLE_SHARED_B)))
		return IPC_EINVAL;

	return endpoint_enter(&handle->endpoint, 0);
}

static inline int shared_deadline(uint64_t *ret, const struct timespec *deadline)
{
	*ret = CLOCK_FOREVER;
	return deadline ? clock_deadline(ret, deadline) : 0;
}

/*
 * The end of a call that may have taken the lock.  r as the view said it.  A handle that was closed
 * meanwhile by another thread gives the lock back: nobody could let go of it any more.
 */
static int shared_locked(ipc_shared *handle, int r, const void **ret_value)
{
	if (r < 0)
		return r;

	/* The view names this thread as holder before `closing` is read; endpoint_close() has the
	 * heavy side of this fence. */
	process_fence_light();
	if (UNLIKELY(atomic_load_explicit(&handle->endpoint.closing, memory_order_relaxed))) {
		shared_put_back(&handle->view, r == 1);
		return IPC_ECANCELED;
	}

	*ret_value = shared_value(&handle->view);
	return r;
}

int ipc_shared_lock_wait(ipc_shared *shared, const void **ret_value,
			 const struct timespec *deadline)
{
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	r = shared_enter(shared);
	if (r < 0)
		return r;

	r = ret_value ? shared_deadline(&deadline_ns, deadline) : IPC_EINVAL;
	if (r < 0)
		goto leave;

	/* A free lock needs no waiter. */
	r = shared_lock_try(&shared->view);
	if (r == IPC_EBUSY) {
		endpoint_waiter(&shared->endpoint, &waiter, NULL, deadline_ns);
		r = shared_lock_wait(&shared->view, &waiter);
	}

	r = shared_locked(shared, r, ret_value);
leave:
	endpoint_leave(&shared->endpoint);
	return r;
}

/* What a wait for a predicate has to remember. */
struct shared_call {
	struct endpoint *endpoint;
	uint64_t began; /* the opposite side's word when the call began */
	ipc_predicate_fn predicate;
	void *userdata;
};

static bool shared_ask(const void *value, uint64_t size, void *userdata)
{
	const struct shared_call *call = userdata;
	bool holds;

	endpoint_callback_begin();
	holds = call->predicate(value, size, call->userdata);
	endpoint_callback_end();
	return holds;
}

static int shared_opposite_end(void *userdata)
{
	const struct shared_call *call = userdata;

	return endpoint_opposite_end(call->endpoint, call->began);
}

int ipc_shared_lock_when_wait(ipc_shared *shared, ipc_predicate_fn predicate, void *userdata,
			      const void **ret_value, const struct timespec *deadline)
{
	struct shared_call call = {.predicate = predicate, .userdata = userdata};
	struct shared_condition condition = {
		.holds = shared_ask, .end = shared_opposite_end, .userdata = &call};
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	r = shared_enter(shared);
	if (r < 0)
		return r;

	r = predicate && ret_value ? shared_deadline(&deadline_ns, deadline) : IPC_EINVAL;
	if (r < 0)
		goto leave;

	call.endpoint = &shared->endpoint;
	call.began = endpoint_opposite(&shared->endpoint);
	endpoint_waiter(&shared->endpoint, &waiter, shared_event(&shared->view), deadline_ns);
	r = shared_lock_when_wait(&shared->view, &waiter, &condition);
	r = shared_locked(shared, r, ret_value);
leave:
	endpoint_leave(&shared->endpoint);
	return r;
}

int ipc_shared_edit(ipc_shared *shared, void **ret_value)
{
	int r;

	r = shared_enter(shared);
	if (r < 0)
		return r;

	r = ret_value ? shared_edit(&shared->view, ret_value) : IPC_EINVAL;
	endpoint_leave(&shared->endpoint);
	return r;
}

/* A client that the broker holds dead lives all the same: the lock that it holds has to be let go
 * of by itself (S-9). */
static int shared_refused(ipc_shared *shared, int r)
{
	if (r == IPC_ESTALE && thread_enter(&shared->endpoint, shared->endpoint.epoch) == 0) {
		shared_drop(&shared->view);
		thread_leave();
	}

	return r;
}

int ipc_shared_commit(ipc_shared *shared)
{
	int r;

	r = shared_enter(shared);
	if (r < 0)
		return shared_refused(shared, r);

	r = shared_commit(&shared->view);
	endpoint_leave(&shared->endpoint);
	return r;
}

int ipc_shared_unlock(ipc_shared *shared)
{
	int r;

	r = shared_enter(shared);
	if (r < 0)
		return shared_refused(shared, r);

	r = shared_unlock(&shared->view);
	endpoint_leave(&shared->endpoint);
	return r;
}

int ipc_shared_mark_consistent(ipc_shared *shared)
{
	int r;

	r = shared_enter(shared);
	if (r < 0)
		return r;

	r = shared_mark_consistent(&shared->view);
	endpoint_leave(&shared->endpoint);
	return r;
}

int ipc_shared_shutdown(ipc_shared *shared)
{
	int r;

	r = shared_enter(shared);
	if (r < 0)
		return r;

	r = shared_shutdown(&shared->view);
	endpoint_leave(&shared->endpoint);
	return r;
}

/* ---- what every role has ---- */

int ipc_shared_cancel(ipc_shared *handle)
{
	if (!endpoint_is((struct endpoint *)handle, shared_role(handle)))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_shared_get_id(const ipc_shared *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, shared_role(handle), ret);
}

int ipc_shared_peers(ipc_shared *handle)
{
	return endpoint_peers((struct endpoint *)handle, shared_role(handle));
}

int ipc_shared_peers_wait(ipc_shared *handle, bool present, const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, shared_role(handle), present,
				   deadline);
}
