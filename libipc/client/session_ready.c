/* SPDX-License-Identifier: MIT */

/*
 * When an end of a session is ready (M-34).
 */

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/client/session.h"

static struct eventcount *session_event(void *handle)
{
	const ipc_session *session = handle;

	return session_line(&session->view);
}

/* After the final end nothing is sent any more, and what came before it is received first. */
static uint32_t session_look(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_session *session = handle;
	uint32_t ready = 0;
	int end, r;

	/* C-3: the end was taken over. */
	if (endpoint_check(&session->endpoint) < 0)
		return IPC_READY_END;

	end = session_end(session);
	if (wanted->events & IPC_READY_WRITABLE) {
		r = end < 0 ? end : session_probe_room(&session->view);
		if (r == 0)
			ready |= IPC_READY_WRITABLE;
		else if (r != IPC_EAGAIN)
			ready |= IPC_READY_END;
	}

	r = session_probe_message(&session->view);
	if (r == IPC_EAGAIN)
		r = end;
	else if (r == 0)
		ready |= wanted->events & IPC_READY_READABLE;

	return r < 0 ? ready | IPC_READY_END : ready;
}

static int session_peer_end(const struct endpoint *endpoint)
{
	return session_end((const ipc_session *)endpoint);
}

const struct endpoint_readiness session_readiness = {
	.events = IPC_READY_READABLE | IPC_READY_WRITABLE | IPC_READY_PEER_PRESENT |
		  IPC_READY_PEER_GONE,
	.event = session_event,
	.look = session_look,
	.peer_end = session_peer_end,
};
