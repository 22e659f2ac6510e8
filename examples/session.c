/* SPDX-License-Identifier: MIT */
/*
 * session: a conversation that goes on after one end was killed.
 *
 * One process squares numbers; another one asks for a hundred squares, is killed in the middle, and
 * its successor goes on where it had stopped: no question is asked twice, and no answer is missing.
 * All that it needs is the key, which a real program would keep in a file.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

enum { N_QUESTIONS = 100, KILLED_AT = 40 };

static const char *const name = "example/squares";

/* What outlives the process that asks. */
static struct {
	struct ipc_session_key key;
	uint64_t answer[N_QUESTIONS + 1];
	int redelivered;
} * kept;

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

static ipc_client *client_new(void)
{
	ipc_client *client;

	/* Connect after fork: a forked child cannot use what its parent opened. */
	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	return client;
}

/* ---- who answers ---- */

/* The answer and the release of the question are one step: a question is never answered twice. */
static int answer(ipc_session *session, const struct ipc_session_message *question)
{
	uint64_t number;
	void *reply;
	int r;

	memcpy(&number, question->data, sizeof(number));
	number *= number;

	r = ipc_session_claim_wait(session, sizeof(number), &reply, NULL);
	if (r < 0)
		return r;

	memcpy(reply, &number, sizeof(number));
	return ipc_session_commit_release(session, reply, sizeof(number), question);
}

static int serve(void)
{
	ipc_client *client = client_new();
	struct ipc_session_message question;
	ipc_listener *listener;
	ipc_session *session;
	int r;

	must("listen", ipc_listener_open_wait(&listener, client, name,
					      IPC_SESSION_OPTIONS(.flags = IPC_CREATE), NULL));
	must("accept", ipc_listener_accept_wait(listener, &session, NULL));

	/* It does not notice that the other end is another process now. */
	do {
		r = ipc_session_receive_wait(session, &question, NULL);
		if (r == 0)
			r = answer(session, &question);
	} while (r == 0);

	ipc_session_close(session);
	ipc_listener_close(listener);
	ipc_client_unref(client);
	return r == IPC_EPIPE ? 0 : 1;
}

/* ---- who asks ---- */

static void ask(ipc_session *session, uint64_t number)
{
	must("send", ipc_session_send_wait(session, &number, sizeof(number), NULL));
}

/* Released when it is stored: else it comes again. */
static void hear(ipc_session *session)
{
	struct ipc_session_message message;

	must("receive", ipc_session_receive_wait(session, &message, NULL));
	kept->redelivered += message.flags & IPC_MESSAGE_REDELIVERED ? 1 : 0;
	memcpy(&kept->answer[message.sequence], message.data, sizeof(uint64_t));
	if (message.sequence == KILLED_AT && !(message.flags & IPC_MESSAGE_REDELIVERED))
		raise(SIGKILL);

	must("release", ipc_session_release(session, &message));
}

/* What was asked, and what was heard, the session knows. */
static void converse(ipc_session *session)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	uint64_t sent, released;

	must("state", ipc_session_get_state(session, &state));
	released = state.released;
	for (sent = state.sent; sent < N_QUESTIONS; ++sent) {
		ask(session, sent + 1);

		/* Some are under way all the time. */
		if (sent >= released + 5) {
			hear(session);
			++released;
		}
	}
	while (released++ < N_QUESTIONS)
		hear(session);
}

static int begin(void)
{
	ipc_session *session;

	must("connect to the squarer",
	     ipc_session_connect_wait(&session, client_new(), name,
				      IPC_SESSION_OPTIONS(.flags = IPC_AWAIT), NULL));
	must("key", ipc_session_get_key(session, &kept->key));
	converse(session);
	return 1;
}

static int go_on(void)
{
	ipc_client *client = client_new();
	ipc_session *session;

	must("resume", ipc_session_resume_wait(&session, client, &kept->key, NULL));

	/* Each resume makes a new key.  Until it is stored, and said to be, the old one is good. */
	must("key", ipc_session_get_key(session, &kept->key));
	must("confirm", ipc_session_confirm_key(session));
	converse(session);
	ipc_session_close(session);
	ipc_client_unref(client);
	return 0;
}

/* ---- all of it ---- */

static pid_t start(int (*run)(void))
{
	pid_t pid = fork();

	if (pid == 0)
		exit(run());
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	return pid;
}

static int status_of(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid ? status : -1;
}

int main(void)
{
	unsigned n_right = 0;
	pid_t server;
	int status;

	kept = mmap(NULL, sizeof(*kept), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (kept == MAP_FAILED) {
		perror("mmap");
		return 1;
	}

	server = start(serve);
	status = status_of(start(begin));
	if (!WIFSIGNALED(status) || status_of(start(go_on)) != 0 || status_of(server) != 0)
		return 1;

	for (uint64_t i = 1; i <= N_QUESTIONS; ++i)
		n_right += kept->answer[i] == i * i;
	printf("%u of %d answers, %d came twice, one process was killed\n", n_right, N_QUESTIONS,
	       kept->redelivered);
	return n_right == N_QUESTIONS && kept->redelivered == 1 ? 0 : 1;
}
