/* SPDX-License-Identifier: MIT */

/*
 * Whoever counts aloud.
 */

#include <signal.h>

#include "examples/counter/counter.h"

/* So many numbers are under way at most. */
enum { AHEAD = 8 };

static volatile sig_atomic_t is_stopped;

static void stop(int signal)
{
	(void)signal;
	is_stopped = true;
}

static ipc_session *begin(ipc_client *client, const struct memory *memory)
{
	ipc_session *session;

	if (memory->has_key)
		must("resume", ipc_session_resume_wait(&session, client, &memory->key, NULL));
	else
		must("connect",
		     ipc_session_connect_wait(&session, client, NAME,
					      IPC_SESSION_OPTIONS(.flags = IPC_AWAIT), NULL));
	return session;
}

/* What was committed is in the stream, also if this process was killed before it knew. */
static uint64_t sent_by(ipc_session *session)
{
	struct ipc_session_state state = {.size = sizeof(state)};

	must("get_state", ipc_session_get_state(session, &state));
	return state.sent;
}

static void count_one(ipc_session *session, const char *path, struct memory *memory, int told)
{
	struct ipc_session_message answer;

	must("receive", ipc_session_receive_wait(session, &answer, NULL));
	if (memory_count(path, memory, &answer))
		tell(told);

	/* It is stored: it need not come again. */
	must("release", ipc_session_release(session, &answer));
}

int run_client(const char *path, int told)
{
	ipc_client *client = connect_client();
	bool is_last = false;
	struct memory memory;
	ipc_session *session;
	uint64_t sent;

	signal(SIGTERM, stop);
	memory_load(path, &memory);
	session = begin(client, &memory);
	memory_keep_key(path, &memory, session);

	sent = sent_by(session);
	while (!is_last || memory.seen < sent) {
		is_last = is_stopped;
		while (!is_last && sent < memory.seen + AHEAD) {
			++sent;
			must("send", ipc_session_send_wait(session, &sent, sizeof(sent), NULL));
		}
		if (memory.seen < sent)
			count_one(session, path, &memory, told);
	}

	ipc_session_close(session);
	ipc_client_unref(client);
	return 0;
}
