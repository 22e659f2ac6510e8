/* SPDX-License-Identifier: MIT */

/*
 * Whoever answers.
 */

#include <stdio.h>
#include <string.h>

#include "examples/counter/counter.h"

/* A new conversation; or the one that a dead listener of this name has left: no key is needed. */
static ipc_session *accept_one(ipc_client *client)
{
	ipc_listener *listener;
	ipc_session *session;

	must("listen", ipc_listener_open_wait(&listener, client, NAME,
					      IPC_SESSION_OPTIONS(.flags = IPC_CREATE), NULL));
	must("accept", ipc_listener_accept_wait(listener, &session, NULL));
	ipc_listener_close(listener);
	return session;
}

static ipc_session *begin(ipc_client *client, const struct memory *memory)
{
	ipc_session *session;

	if (!memory->has_key)
		return accept_one(client);
	must("resume", ipc_session_resume_wait(&session, client, &memory->key, NULL));
	return session;
}

/* The answer goes out and the number is done with in one step.  Killed before, the number comes
 * again, and has no answer; killed after, it does not. */
static void answer(ipc_session *session, const struct ipc_session_message *number)
{
	void *data;

	must("claim", ipc_session_claim_wait(session, number->size, &data, NULL));
	memcpy(data, number->data, number->size);
	must("commit", ipc_session_commit_release(session, data, number->size, number));
}

int run_server(const char *path, int told)
{
	ipc_client *client = connect_client();
	struct ipc_session_message number;
	struct memory memory;
	ipc_session *session;
	int r;

	memory_load(path, &memory);
	session = begin(client, &memory);
	memory_keep_key(path, &memory, session);

	while ((r = ipc_session_receive_wait(session, &number, NULL)) == 0) {
		if (memory_count(path, &memory, &number))
			tell(told);
		answer(session, &number);
	}

	printf("server: %s\n", ipc_error_text(r));
	ipc_session_close(session);
	ipc_client_unref(client);
	return r == IPC_EPIPE ? 0 : 1;
}
