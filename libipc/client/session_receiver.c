/* SPDX-License-Identifier: MIT */

/*
 * What an end receives and releases, and what it says of the session.
 */

#include "libipc/client/session.h"

#include <ipc/error.h>
#include <ipc/limits.h>

#include "libipc/client/options.h"
#include "libipc/platform/clock.h"

/* ---- receive ---- */

struct receiving {
	ipc_session *session;
	struct ipc_session_message *ret;
	unsigned n;
};

/* How many, the end, or WAITER_NOT_YET. */
static int receiving_look(void *subject)
{
	struct receiving *receiving = subject;
	int r, end;

	r = session_receive_many(&receiving->session->view, receiving->ret, receiving->n);
	if (LIKELY(r != IPC_EAGAIN))
		return r;

	end = session_end(receiving->session);
	if (end == 0)
		return WAITER_NOT_YET;

	/* The last message may have come between the two looks; it is seen now, since it came
	 * before the end. */
	r = session_receive_many(&receiving->session->view, receiving->ret, receiving->n);
	return r != IPC_EAGAIN ? r : end;
}

/* deadline_ns NULL: without a wait. */
static int receiving_run(struct receiving *receiving, const uint64_t *deadline_ns)
{
	ipc_session *session = receiving->session;
	struct waiter waiter;
	int r;

	r = receiving_look(receiving);
	if (LIKELY(r != WAITER_NOT_YET))
		return r;
	if (!deadline_ns)
		return IPC_EAGAIN;

	endpoint_waiter(&session->endpoint, &waiter, session_line(&session->view), *deadline_ns);
	return waiter_wait(&waiter, receiving_look, receiving);
}

static int receive(ipc_session *session, struct ipc_session_message *ret, unsigned n,
		   const uint64_t *deadline_ns)
{
	struct receiving receiving = {session, ret, n < IPC_MANY_MAX ? n : IPC_MANY_MAX};
	int r;

	if (!ret || n == 0)
		return IPC_EINVAL;

	r = session_enter(session);
	if (r < 0)
		return r;

	r = receiving_run(&receiving, deadline_ns);

	session_leave_call(session);
	return r;
}

static int receive_wait(ipc_session *session, struct ipc_session_message *ret, unsigned n,
			const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	return r < 0 ? r : receive(session, ret, n, &deadline_ns);
}

int ipc_session_receive(ipc_session *session, struct ipc_session_message *ret)
{
	int r = receive(session, ret, 1, NULL);

	return r < 0 ? r : 0;
}

int ipc_session_receive_wait(ipc_session *session, struct ipc_session_message *ret,
			     const struct timespec *deadline)
{
	int r = receive_wait(session, ret, 1, deadline);

	return r < 0 ? r : 0;
}

int ipc_session_receive_many(ipc_session *session, struct ipc_session_message *ret, unsigned n)
{
	return receive(session, ret, n, NULL);
}

int ipc_session_receive_many_wait(ipc_session *session, struct ipc_session_message *ret, unsigned n,
				  const struct timespec *deadline)
{
	return receive_wait(session, ret, n, deadline);
}

int ipc_session_release(ipc_session *session, const struct ipc_session_message *message)
{
	int r;

	if (!message)
		return IPC_EINVAL;

	r = session_enter(session);
	if (r < 0)
		return r;

	r = session_release(&session->view, message);

	session_leave_call(session);
	return r;
}

/* ---- state ---- */

/* How long the other end may stay away; 0: it is there, or will not come again. */
static uint64_t away_ns(const ipc_session *session)
{
	const struct endpoint *endpoint = &session->endpoint;
	uint64_t now = endpoint_opposite(endpoint), now_ns, until_ns;

	/* The time that was left is taken away after the word was told (broker/presence.c). */
	if (side_count(now) > 0 || (now & SIDE_FINAL))
		return 0;

	until_ns = atomic_load_explicit(
		&endpoint->table->until_ns[endpoint->channel_slot][!endpoint->side],
		memory_order_relaxed);
	if (until_ns == 0 || until_ns == UINT64_MAX)
		return until_ns;

	now_ns = clock_now_ns();

	/* Until the broker says that the session is lost it is not. */
	return until_ns > now_ns ? until_ns - now_ns : 1;
}

int ipc_session_get_state(ipc_session *session, struct ipc_session_state *ret)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	int r;

	if (!ret || ret->size < sizeof(size_t))
		return IPC_EINVAL;

	r = session_enter(session);
	if (r < 0)
		return r;

	r = session_get_state(&session->view, &state);
	state.size = sizeof(state);
	state.away_ns = away_ns(session);
	if (r == 0)
		r = options_write_info(ret, &state, sizeof(state));

	session_leave_call(session);
	return r;
}
