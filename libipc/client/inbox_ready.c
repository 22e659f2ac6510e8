/* SPDX-License-Identifier: MIT */

/*
 * When handles of the kind `inbox` are ready (M-34).
 */

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/client/inbox.h"

#define EVENTS_OF_SIDES (IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE)

/* ---- senders ---- */

static struct eventcount *sender_event(void *handle)
{
	ipc_inbox_sender *sender = handle;

	return &sender->sender.inbox.lines[INBOX_SIDE_SENDER];
}

static uint32_t sender_look(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_inbox_sender *sender = handle;
	uint32_t ready = 0;
	int r;

	r = header_fault(sender->endpoint.header);
	if (r < 0)
		return IPC_READY_END;

	if ((wanted->events & IPC_READY_REQUEST) && inbox_is_requested(&sender->sender))
		ready |= IPC_READY_REQUEST;

	/* Room or not (I-4). */
	if (endpoint_opposite_end(&sender->endpoint, wanted->began) < 0)
		return ready | IPC_READY_END;

	r = inbox_probe_room(&sender->sender);
	if (r == 0)
		ready |= wanted->events & IPC_READY_WRITABLE;
	else if (r != IPC_EAGAIN)
		ready |= IPC_READY_END;

	return ready;
}

const struct endpoint_readiness inbox_sender_readiness = {
	.events = IPC_READY_WRITABLE | IPC_READY_REQUEST | EVENTS_OF_SIDES,
	.event = sender_event,
	.look = sender_look,
};

/* ---- receivers ---- */

static struct eventcount *receiver_event(void *handle)
{
	ipc_inbox_receiver *receiver = handle;

	return &receiver->receiver.inbox.lines[INBOX_SIDE_RECEIVER];
}

static uint32_t receiver_look(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_inbox_receiver *receiver = handle;
	int r, end, sender_end;

	r = header_fault(receiver->endpoint.header);
	if (r < 0)
		return IPC_READY_END;

	/* As receiving_look(). */
	r = inbox_probe_event(&receiver->receiver, 0);
	if (r == IPC_EAGAIN) {
		end = endpoint_opposite_end(&receiver->endpoint, wanted->began);
		sender_end = inbox_sender_end(&receiver->endpoint, end);
		if (sender_end == 0)
			return 0;

		r = inbox_probe_event(&receiver->receiver, sender_end);
		if (r == IPC_EAGAIN && end == 0)
			return 0;
	}

	return r == 0 ? wanted->events & IPC_READY_READABLE : IPC_READY_END;
}

const struct endpoint_readiness inbox_receiver_readiness = {
	.events = IPC_READY_READABLE | EVENTS_OF_SIDES,
	.event = receiver_event,
	.look = receiver_look,
};
