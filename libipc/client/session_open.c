/* SPDX-License-Identifier: MIT */

/*
 * Ends of sessions: connecting, resuming, their keys, closing and detaching, and what every role
 * has.
 */

#include "libipc/client/session.h"

#include <string.h>

#include <ipc/error.h>
#include <ipc/limits.h>

#include "libipc/client/options.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"

#define CAPACITY_MIN      (UINT64_C(4) << 10)
#define CAPACITY_MAX      (UINT64_C(1) << 30)
#define CAPACITY_DEFAULT  (UINT64_C(256) << 10)
#define MESSAGES_AT_LEAST 4 /* of the largest size go into a ring */

/* ---- options ---- */

static bool options_are_in_range(const struct ipc_session_options *options)
{
	uint64_t capacity = options->capacity ? options->capacity : CAPACITY_MAX;

	return capacity >= CAPACITY_MIN && capacity <= CAPACITY_MAX &&
	       options->message_size_max <= capacity / MESSAGES_AT_LEAST;
}

static void options_fill(struct ipc_session_options *options)
{
	if (!options->capacity)
		options->capacity = CAPACITY_DEFAULT;
	if (!options->message_size_max)
		options->message_size_max = options->capacity / MESSAGES_AT_LEAST;
	if (!options->resume_window_ns)
		options->resume_window_ns = 30 * NS_PER_S;
}

static void shape_pack(uint64_t ret[4], const struct ipc_session_options *options)
{
	ret[0] = options->capacity;
	ret[1] = options->message_size_max;
	ret[2] = options->resume_window_ns;
	ret[3] = 0;
}

int session_request(struct endpoint_request *ret, const char *name,
		    const struct ipc_session_options *given, uint64_t flags_allowed)
{
	struct ipc_session_options options;
	int r;

	r = options_copy(&options, sizeof(options), given);
	if (r < 0)
		return r;

	r = options_check(options.flags, flags_allowed, &options.mode);
	if (r < 0)
		return r;
	if (!options_are_in_range(&options))
		return IPC_EINVAL;

	*ret = (struct endpoint_request){
		.kind = IPC_KIND_SESSION,
		.name = name,
		.flags = options.flags,
		.mode = options.mode,
		.gid = options.gid,
	};
	shape_pack(ret->shape, &options);
	options_fill(&options);
	shape_pack(ret->shape_new, &options);

	/* What is there may be larger than the defaults. */
	return (options.flags & IPC_CREATE) && session_segment_size(ret->shape_new) == 0
		       ? IPC_EINVAL
		       : 0;
}

/* ---- handles ---- */

int session_attach_endpoint(struct endpoint *endpoint)
{
	ipc_session *session = (ipc_session *)endpoint;
	struct session *view = &session->view;
	int r;

	r = session_attach(view, endpoint->header, endpoint->segment_size, endpoint->shape,
			   endpoint->side);
	if (r < 0)
		return r;

	view->table = endpoint->table;
	view->pair_fd = endpoint->pair_fd;
	view->lines = endpoint->lines;
	view->ring = endpoint_ring;
	view->ring_userdata = endpoint;
	endpoint->stays = true;
	return 0;
}

/*
 * One that the broker has given to somebody else is not closed any more: who heard of that, by
 * IPC_ESTALE, and closes what he has left does not end the session.
 */
static void session_closing(struct endpoint *endpoint)
{
	struct session *view = &((ipc_session *)endpoint)->view;

	session_close(view);
	CRASH_POINT();
	if (!endpoint->is_detached && liveness_handle_is(endpoint->table, endpoint->id))
		session_tell_closed(view);
}

static void session_last(struct endpoint *endpoint)
{
	session_leave(&((ipc_session *)endpoint)->view);
}

int session_take_end(ipc_session *session)
{
	struct endpoint *endpoint = &session->endpoint;
	int r;

	r = session_begin(&session->view, endpoint->id, endpoint_process(endpoint));
	if (r < 0) {
		/* It may have got as far as the owner's word. */
		session_leave(&session->view);
		return r;
	}

	endpoint->closing_fn = session_closing;
	endpoint->last_fn = session_last;
	endpoint->readiness = &session_readiness;
	return 0;
}

/* ---- connect ---- */

/*
 * A session is there once both its word and the broker say so: `peers` is 1 then.  That nobody is
 * left to accept it is said to those alone who do not await the next listener.
 */
static int connecting_look(void *subject)
{
	const ipc_session *session = subject;
	const struct endpoint *endpoint = &session->endpoint;
	uint64_t listeners = endpoint_opposite(endpoint);

	switch (session_is_taken(endpoint->header)) {
	case SESSION_ACCEPTED:
		return listeners & SIDE_EVER ? 0 : WAITER_NOT_YET;
	case SESSION_ABANDONED:
		/* By who was to accept it and could not make use of it. */
		return IPC_EPIPE;
	case SESSION_OFFERED:
		break;
	}

	if (side_is_gone(listeners))
		return listeners & SIDE_DIED ? IPC_EOWNERDEAD : IPC_EPIPE;

	return header_fault(endpoint->header) < 0 ? header_fault(endpoint->header) : WAITER_NOT_YET;
}

/* Before it is open. */
static bool connecting_give_up(void *segment)
{
	return session_take(segment, SESSION_ABANDONED) ||
	       session_is_taken(segment) != SESSION_ACCEPTED;
}

static void connecting_failed(struct endpoint *endpoint, bool is_unfit)
{
	(void)is_unfit;
	(void)session_take(endpoint->header, SESSION_ABANDONED);
}

/* Whatever ended the wait, the word decides. */
static int connecting_wait(ipc_session *session, uint64_t deadline_ns)
{
	struct endpoint *endpoint = &session->endpoint;
	struct waiter waiter;
	int r;

	endpoint_waiter(endpoint, &waiter, NULL, deadline_ns);
	waiter.patience = NULL;
	r = waiter_wait(&waiter, connecting_look, session);
	if (r == 0 || session_take(endpoint->header, SESSION_ABANDONED))
		return r;

	return session_is_taken(endpoint->header) == SESSION_ACCEPTED ? 0 : r;
}

int ipc_session_connect_wait(ipc_session **ret, ipc_client *client, const char *name,
			     const struct ipc_session_options *options,
			     const struct timespec *deadline)
{
	struct endpoint_request request;
	struct endpoint *endpoint;
	ipc_session *session;
	uint64_t deadline_ns;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r == 0)
		r = session_request(&request, name, options, IPC_AWAIT);
	if (r < 0)
		return r;

	/* It is made in the listener's shape. */
	request.role = IPC_ROLE_SESSION;
	request.side = SESSION_SIDE_CONNECTED;
	request.make = session_make;
	request.attach = session_attach_endpoint;
	request.give_up = connecting_give_up;
	request.failed = connecting_failed;
	r = endpoint_new_wait(&endpoint, sizeof(*session), client, &request, deadline);
	if (r < 0)
		return r;

	session = (ipc_session *)endpoint;

	/* Nothing can fail once it is accepted. */
	r = session_take_end(session);
	if (r < 0)
		connecting_failed(endpoint, true);
	else
		r = connecting_wait(session, deadline_ns);
	if (r < 0) {
		endpoint_close(endpoint);
		return r;
	}

	*ret = session;
	return 0;
}

/* ---- resume ---- */

int ipc_session_resume_wait(ipc_session **ret, ipc_client *client,
			    const struct ipc_session_key *key, const struct timespec *deadline)
{
	const struct endpoint_request request = {
		.kind = IPC_KIND_SESSION,
		.role = IPC_ROLE_SESSION,
		.key = key ? key->bytes : NULL,
		.attach = session_attach_endpoint,
	};
	struct endpoint *endpoint;
	ipc_session *session;
	int r;

	if (!ret || !client || !key)
		return IPC_EINVAL;

	r = endpoint_new_wait(&endpoint, sizeof(*session), client, &request, deadline);
	if (r < 0)
		return r;

	session = (ipc_session *)endpoint;
	r = session_take_end(session);
	if (r < 0) {
		/* It was not ended by this: the key is as good as before. */
		(void)ipc_session_detach(session);
		return r;
	}

	*ret = session;
	return 0;
}

/* ---- keys ---- */

int ipc_session_get_key(ipc_session *session, struct ipc_session_key *ret)
{
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = session_enter(session);
	if (r < 0)
		return r;

	static_assert(sizeof(ret->bytes) == sizeof(session->endpoint.key), "copied whole");
	memcpy(ret->bytes, session->endpoint.key, sizeof(ret->bytes));

	session_leave_call(session);
	return 0;
}

int ipc_session_confirm_key(ipc_session *session)
{
	int r;

	r = session_enter(session);
	if (r < 0)
		return r;

	/* The broker looks there before it lets anybody resume. */
	atomic_store_explicit(&session->endpoint.cell->confirmed_id, session->endpoint.id,
			      memory_order_release);

	session_leave_call(session);
	return 0;
}

/* ---- what every role has ---- */

ipc_session *ipc_session_close(ipc_session *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_SESSION))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

ipc_session *ipc_session_detach(ipc_session *session)
{
	if (endpoint_is((struct endpoint *)session, IPC_ROLE_SESSION)) {
		session->endpoint.is_detached = true;
		endpoint_close((struct endpoint *)session);
	}

	return NULL;
}

int ipc_session_cancel(ipc_session *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_SESSION))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_session_get_id(const ipc_session *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_SESSION, ret);
}

int ipc_session_peers(ipc_session *handle)
{
	int r = endpoint_peers((struct endpoint *)handle, IPC_ROLE_SESSION);

	/* Who takes an end over is counted before the one who had it is not. */
	return r > 0 ? 1 : r;
}

int ipc_session_peers_wait(ipc_session *handle, bool present, const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_SESSION, present, deadline);
}
