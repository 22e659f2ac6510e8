/* SPDX-License-Identifier: MIT */

/*
 * Receivers of an inbox: events, and what becomes of them.
 */

#include "libipc/client/inbox.h"

#include <ipc/error.h>
#include <ipc/limits.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/fdpass.h"

static int receiver_enter(ipc_inbox_receiver *receiver)
{
	return endpoint_enter((struct endpoint *)receiver, IPC_ROLE_INBOX_RECEIVER);
}

/* ---- receive ---- */

int inbox_sender_end(const struct endpoint *endpoint, int end)
{
	uint64_t now;

	if (end < 0 || !endpoint->stays)
		return end;

	/* Another sender that has come since aborts by itself what it finds open. */
	now = endpoint_opposite(endpoint);
	if (!side_is_gone(now) || atomic_load_explicit(&endpoint->closing, memory_order_relaxed))
		return 0;

	return now & SIDE_DIED ? IPC_EOWNERDEAD : IPC_EPIPE;
}

struct receiving {
	ipc_inbox_receiver *receiver;
	struct ipc_inbox_event *ret;
	unsigned n;
	uint64_t began; /* the sender's side word */
};

/* How many, the fault, or IPC_EAGAIN. */
static int receiving_try(const struct receiving *receiving, int sender_end)
{
	int r;

	r = header_fault(receiving->receiver->endpoint.header);
	if (r < 0)
		return r;

	return inbox_receive_many(&receiving->receiver->receiver, receiving->ret, receiving->n,
				  sender_end);
}

/* How many, the end or fault, or WAITER_NOT_YET. */
static int receiving_look(void *subject)
{
	const struct receiving *receiving = subject;
	const struct endpoint *endpoint = &receiving->receiver->endpoint;
	int r, end, sender_end;

	r = receiving_try(receiving, 0);
	if (LIKELY(r != IPC_EAGAIN))
		return r;

	end = endpoint_opposite_end(endpoint, receiving->began);
	sender_end = inbox_sender_end(endpoint, end);
	if (sender_end == 0)
		return WAITER_NOT_YET;

	/* The last event may have come between the two looks; it is seen now, since it came before
	 * the end.  And a snapshot that is open ends with its sender, before that is told. */
	r = receiving_try(receiving, sender_end);
	if (r != IPC_EAGAIN)
		return r;

	return end < 0 ? end : WAITER_NOT_YET;
}

/* Another thread has closed the handle: what the events point to goes. */
static int receiving_settle(const struct receiving *receiving, int r)
{
	const struct endpoint *endpoint = &receiving->receiver->endpoint;

	if (LIKELY(!atomic_load_explicit(&endpoint->closing, memory_order_relaxed)))
		return r;
	if (r < 0)
		return inbox_settle(endpoint, r);

	for (int i = 0; i < r; ++i)
		(void)fd_close(receiving->ret[i].fd);
	return IPC_ECANCELED;
}

/* deadline_ns NULL: without a wait. */
static int receive(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned n,
		   const uint64_t *deadline_ns)
{
	struct receiving receiving = {
		.receiver = receiver,
		.ret = ret,
		.n = n < IPC_MANY_MAX ? n : IPC_MANY_MAX,
	};
	struct waiter waiter;
	int r;

	if (!ret || n == 0)
		return IPC_EINVAL;

	r = receiver_enter(receiver);
	if (r < 0)
		return r;

	receiving.began = endpoint_opposite(&receiver->endpoint);
	r = receiving_look(&receiving);
	if (r == WAITER_NOT_YET && deadline_ns) {
		endpoint_waiter(&receiver->endpoint, &waiter,
				&receiver->receiver.inbox.lines[INBOX_SIDE_RECEIVER], *deadline_ns);
		r = waiter_wait(&waiter, receiving_look, &receiving);
	}
	r = r == WAITER_NOT_YET ? IPC_EAGAIN : receiving_settle(&receiving, r);

	endpoint_leave(&receiver->endpoint);
	return r;
}

static int receive_wait(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned n,
			const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	return r < 0 ? r : receive(receiver, ret, n, &deadline_ns);
}

int ipc_inbox_receive(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret)
{
	int r = receive(receiver, ret, 1, NULL);

	return r < 0 ? r : 0;
}

int ipc_inbox_receive_wait(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret,
			   const struct timespec *deadline)
{
	int r = receive_wait(receiver, ret, 1, deadline);

	return r < 0 ? r : 0;
}

int ipc_inbox_receive_many(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned n)
{
	return receive(receiver, ret, n, NULL);
}

int ipc_inbox_receive_many_wait(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret,
				unsigned n, const struct timespec *deadline)
{
	return receive_wait(receiver, ret, n, deadline);
}

/* ---- what becomes of it ---- */

int ipc_inbox_mark_applied(ipc_inbox_receiver *receiver, const struct ipc_inbox_event *event)
{
	int r;

	if (!event)
		return IPC_EINVAL;

	r = receiver_enter(receiver);
	if (r < 0)
		return r;

	r = header_fault(receiver->endpoint.header);
	if (LIKELY(r == 0))
		r = inbox_mark_applied(&receiver->receiver, event);
	r = inbox_settle(&receiver->endpoint, r);

	endpoint_leave(&receiver->endpoint);
	return r;
}

int ipc_inbox_request_snapshot(ipc_inbox_receiver *receiver)
{
	int r;

	r = receiver_enter(receiver);
	if (r < 0)
		return r;

	r = header_fault(receiver->endpoint.header);
	if (r == 0)
		r = inbox_request_snapshot(&receiver->receiver);
	r = inbox_settle(&receiver->endpoint, r);

	endpoint_leave(&receiver->endpoint);
	return r;
}
