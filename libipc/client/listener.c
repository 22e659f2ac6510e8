/* SPDX-License-Identifier: MIT */

/*
 * Listeners: opening, accepting, closing.
 */

#include "libipc/client/listener.h"

#include <stdlib.h>

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/client/opened.h"
#include "libipc/client/session.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/wire/codec.h"

/* ---- accept ---- */

static int say_taken(ipc_client *client, uint64_t handle_id)
{
	union message message;

	message_init(&message, MESSAGE_TAKEN, 0);
	message.taken.handle_id = handle_id;
	message.taken.is_accepted = 1;
	return connection_try_send(&client->connection, &message);
}

/* A new one is accepted by its word; the broker looks there where the message finds no room. */
static void tell_accepted(ipc_client *client, uint64_t handle_id)
{
	if (say_taken(client, handle_id) != IPC_EAGAIN)
		return;

	CRASH_POINT();

	/* As in endpoint_tell_closed(). */
	atomic_fetch_add_explicit(&client->desk->client[client->slot].closings, 1,
				  memory_order_seq_cst);
	CRASH_POINT();
	(void)say_taken(client, handle_id);
}

/* Who connects has written into it what cannot be: nobody is offered that again.  Want of memory is
 * not his fault. */
static void offer_failed(struct endpoint *endpoint, bool is_unfit)
{
	if (is_unfit)
		(void)session_take(endpoint->header, SESSION_ABANDONED);
}

/*
 * True: it is this listener's.  A worker that does not know whether its dead one had sent an offer
 * takes it back, and offers anew what the word does not say to be accepted: so one whose handle has
 * ended is decided in vain, and one that finds the word decided so has it all the same.
 */
static bool accept_decide(const struct endpoint *endpoint)
{
	if (!session_take(endpoint->header, SESSION_ACCEPTED) &&
	    session_is_taken(endpoint->header) != SESSION_ACCEPTED)
		return false;

	/* [O1] Either the broker, which ends the handle and then looks at the word, sees it
	 * accepted, or this finds the handle ended.  Pairs with presence_hide(). */
	atomic_thread_fence(memory_order_seq_cst);
	return liveness_handle_is(endpoint->table, endpoint->id);
}

/* 0; IPC_EAGAIN: it is not to be had any more. */
static int accept_new(ipc_session *session)
{
	struct endpoint *endpoint = &session->endpoint;
	int r;

	/* The end first: nothing can fail once it is accepted.  It is fresh memory, so what fails
	 * now is the doing of who connects. */
	r = session_take_end(session);
	if (r < 0) {
		/* Nobody else has it as long as it is offered here: who says so has made it up. */
		if (r != IPC_ENOMEM &&
		    (r != IPC_ESTALE || liveness_handle_is(endpoint->table, endpoint->id)))
			offer_failed(endpoint, true);
		endpoint_close(endpoint);
		return r == IPC_ENOMEM ? r : IPC_EAGAIN;
	}

	CRASH_POINT();
	if (!accept_decide(endpoint)) {
		/* If the broker should hold it accepted, it is away. */
		(void)ipc_session_detach(session);
		return IPC_EAGAIN;
	}

	CRASH_POINT();
	tell_accepted(endpoint->client, endpoint->id);
	return 0;
}

/* 1; IPC_EAGAIN.  Only the message says that it is taken: one that finds no room is given back, and
 * offered anew. */
static int accept_taken_back(ipc_session *session)
{
	struct endpoint *endpoint = &session->endpoint;
	int r;

	if (say_taken(endpoint->client, endpoint->id) == IPC_EAGAIN) {
		endpoint_close(endpoint);
		return IPC_EAGAIN;
	}

	CRASH_POINT();
	r = session_take_end(session);
	if (r == 0)
		return 1;

	/* The end is away again, and its key is good. */
	(void)ipc_session_detach(session);
	return r == IPC_ESTALE || r == IPC_EBADMSG ? IPC_EAGAIN : r;
}

/* A session that is not as it should be is not this listener's fault. */
static int offer_result(int r)
{
	switch (r) {
	case IPC_EBADMSG:
	case IPC_ENOTRECOVERABLE:
	case IPC_EPROTONOSUPPORT:
		return IPC_EAGAIN;
	default:
		return r;
	}
}

/* 0: a new one; 1: taken back; IPC_EAGAIN: this one is not to be had; why not. */
static int offer_accept(ipc_client *client, const struct listener_offer *offer, ipc_session **ret)
{
	const struct opened opened = {
		.message = &offer->message.session,
		.fds = offer->fds,
		.n_fds = offer->n_fds,
	};
	const struct endpoint_request request = {
		.kind = IPC_KIND_SESSION,
		.role = IPC_ROLE_SESSION,
		.attach = session_attach_endpoint,
		.failed = offer->message.is_taken_back ? NULL : offer_failed,
	};
	ipc_session *session;
	int r;

	session = calloc(1, sizeof(*session));
	if (!session || (offer->n_fds == 0 && offer->message.session.fds)) {
		listener_offer_refuse(client, offer);
		r = session ? IPC_EMFILE : IPC_ENOMEM;
		free(session);
		return r;
	}

	r = opened_take(&opened, &session->endpoint, client, &request);
	if (r < 0) {
		free(session);
		return offer_result(r);
	}

	if (!liveness_handle_is(session->endpoint.table, session->endpoint.id)) {
		endpoint_close(&session->endpoint);
		return IPC_EAGAIN;
	}

	r = offer->message.is_taken_back ? accept_taken_back(session) : accept_new(session);
	if (r >= 0)
		*ret = session;
	return r;
}

static int accept_next(ipc_listener *listener, ipc_session **ret)
{
	struct listener_offer *offer;
	int r = IPC_EAGAIN;

	while (r == IPC_EAGAIN) {
		listener_catch_up(listener);
		offer = listener_offer_begin(listener);
		if (!offer)
			return IPC_EAGAIN;

		r = offer_accept(listener->endpoint.client, offer, ret);
		listener_offer_end(listener, offer);
	}
	return r;
}

struct accepting {
	ipc_listener *listener;
	ipc_session **ret;
};

/* Closing descriptors is where a thread may be cancelled: not with an offer in its hands. */
static int accepting_look(void *subject)
{
	const struct accepting *accepting = subject;
	int cancel_state, r;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	r = accept_next(accepting->listener, accepting->ret);
	(void)pthread_setcancelstate(cancel_state, NULL);
	return r == IPC_EAGAIN ? WAITER_NOT_YET : r;
}

static int listener_enter(ipc_listener *listener)
{
	return endpoint_enter((struct endpoint *)listener, IPC_ROLE_LISTENER);
}

int ipc_listener_accept(ipc_listener *listener, ipc_session **ret)
{
	const struct accepting accepting = {listener, ret};
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = listener_enter(listener);
	if (r < 0)
		return r;

	r = accepting_look((void *)&accepting);

	endpoint_leave(&listener->endpoint);
	return r == WAITER_NOT_YET ? IPC_EAGAIN : r;
}

int ipc_listener_accept_wait(ipc_listener *listener, ipc_session **ret,
			     const struct timespec *deadline)
{
	struct accepting accepting = {listener, ret};
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = listener_enter(listener);
	if (r < 0)
		return r;

	endpoint_waiter(&listener->endpoint, &waiter, NULL, deadline_ns);
	waiter.patience = NULL;
	r = waiter_wait(&waiter, accepting_look, &accepting);

	endpoint_leave(&listener->endpoint);
	return r;
}

/* ---- readiness ---- */

static uint32_t listener_look(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_listener *listener = handle;

	listener_catch_up(listener);
	return listener_has_offer(listener) ? wanted->events & IPC_READY_READABLE : 0;
}

/* What is offered is told by the broker. */
static const struct endpoint_readiness listener_readiness = {
	.events = IPC_READY_READABLE,
	.look = listener_look,
};

/* ---- open ---- */

static void listener_free(struct endpoint *endpoint)
{
	ipc_listener *listener = (ipc_listener *)endpoint;

	/* Left over in a forked child alone. */
	listener_offer_free(listener->offer);
	free(listener);
}

static int listener_open_wait(ipc_listener **ret, ipc_client *client,
			      const struct endpoint_request *request,
			      const struct timespec *deadline)
{
	struct endpoint *endpoint = NULL;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	listener_open_begin(client);
	r = endpoint_new_wait(&endpoint, sizeof(**ret), client, request, deadline);
	if (r == 0) {
		endpoint->release = listener_free;
		endpoint->closing_fn = listener_forget;
		endpoint->readiness = &listener_readiness;
		*ret = (ipc_listener *)endpoint;
	}
	listener_open_end(client, (ipc_listener *)endpoint);

	client_leave(client);
	return r;
}

int ipc_listener_open_wait(ipc_listener **ret, ipc_client *client, const char *name,
			   const struct ipc_session_options *options,
			   const struct timespec *deadline)
{
	struct endpoint_request request;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = session_request(&request, name, options,
			    IPC_CREATE | IPC_EXCLUSIVE | IPC_KEEP | IPC_AWAIT);
	if (r < 0)
		return r;

	request.role = IPC_ROLE_LISTENER;
	request.side = SESSION_SIDE_ACCEPTED;
	request.size_new = listener_segment_size();
	request.make = listener_make;
	return listener_open_wait(ret, client, &request, deadline);
}

/* ---- what every role has ---- */

ipc_listener *ipc_listener_close(ipc_listener *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_LISTENER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

int ipc_listener_cancel(ipc_listener *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_LISTENER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_listener_get_id(const ipc_listener *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_LISTENER, ret);
}
