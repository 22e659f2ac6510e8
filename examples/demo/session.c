/* SPDX-License-Identifier: MIT */
/*
 * A conversation: a client says numbers, a server answers each.  Either is killed, a living server
 * is replaced, and it goes on: at both ends each number is there once.
 */
#include "examples/demo/demo.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_KILLS = 10, N_UPGRADES = 5 };

static const char channel[] = "demo/conversation";

/* What a process that is started again needs: its key, and how far it was. */
struct notes {
	struct ipc_session_key client_key, server_key;
	_Atomic uint64_t has_client_key, server_resumes;
	_Atomic uint64_t n_handled; /* by servers, noted before the answer */
	_Atomic uint64_t n_answered;
	_Atomic uint64_t n_again;  /* was handled, but not answered yet */
	_Atomic uint64_t n_wrong;  /* one is missing, or comes twice */
	_Atomic uint64_t n_absent; /* how often the server was not there for a client */
	_Atomic uint64_t is_over;
};

static struct notes *notes;

static void must(const char *what, int result)
{
	if (result < 0)
		fail(what, result);
}

static uint64_t number_of(const struct ipc_session_message *message)
{
	uint64_t number = UINT64_MAX;

	if (message->size == sizeof(number))
		memcpy(&number, message->data, sizeof(number));
	return number;
}

/* The next number, or one that comes again and says so.  A server that is taken over may be late:
 * the next one has handled its number again. */
static void note(_Atomic uint64_t *n, const struct ipc_session_message *message)
{
	uint64_t number = number_of(message), seen = number - 1;
	bool says_so = (message->flags & IPC_MESSAGE_REDELIVERED) || n == &notes->n_handled;

	if (atomic_compare_exchange_strong(n, &seen, number))
		return;
	atomic_fetch_add(number <= seen && says_so ? &notes->n_again : &notes->n_wrong, 1);
}

/* ---- the client ---- */

static ipc_session *client_begin(ipc_client *client)
{
	ipc_session *session;

	if (atomic_load(&notes->has_client_key))
		must("resume", ipc_session_resume_wait(&session, client, &notes->client_key, NULL));
	else
		must("connect",
		     ipc_session_connect_wait(&session, client, channel,
					      IPC_SESSION_OPTIONS(.flags = IPC_AWAIT), NULL));
	must("key", ipc_session_get_key(session, &notes->client_key));
	atomic_store(&notes->has_client_key, 1);
	return session;
}

/* Says a number and waits for its answer, again and again. */
static void talker(int fd)
{
	ipc_client *client = broker_connect();
	ipc_session *session = client_begin(client);
	struct ipc_session_state state = {.size = sizeof(state)};
	struct ipc_session_message answer;

	(void)fd;
	must("state", ipc_session_get_state(session, &state));
	while (!atomic_load(&notes->is_over)) {
		uint64_t number = atomic_load(&notes->n_answered) + 1;

		/* The dead one before this may have said it. */
		if (state.sent < number) {
			must("send", ipc_session_send_wait(session, &number, sizeof(number), NULL));
			state.sent = number;
		}
		must("receive", ipc_session_receive_wait(session, &answer, NULL));
		note(&notes->n_answered, &answer);
		must("release", ipc_session_release(session, &answer));
		atomic_fetch_add(&notes->n_absent, ipc_session_peers(session) != 1);
	}
	(void)ipc_session_close(session);
	(void)ipc_client_unref(client);
}

/* ---- the server ---- */

/* The next one takes back what the dead one has left, without a key; a living one is taken over
 * with it. */
static ipc_session *server_begin(ipc_client *client)
{
	ipc_listener *listener;
	ipc_session *session;

	if (atomic_load(&notes->server_resumes)) {
		must("resume", ipc_session_resume_wait(&session, client, &notes->server_key, NULL));
	} else {
		must("listen",
		     ipc_listener_open_wait(&listener, client, channel,
					    IPC_SESSION_OPTIONS(.flags = IPC_CREATE), NULL));
		must("accept", ipc_listener_accept_wait(listener, &session, NULL));
		(void)ipc_listener_close(listener);
	}
	must("key", ipc_session_get_key(session, &notes->server_key));
	return session;
}

/* Reports how it ended. */
static void answerer(int fd)
{
	ipc_client *client = broker_connect();
	ipc_session *session = server_begin(client);
	struct ipc_session_message message;
	void *data;
	int r;

	while ((r = ipc_session_receive_wait(session, &message, NULL)) == 0) {
		note(&notes->n_handled, &message);

		/* Answered and done with in one step, whenever this process is killed. */
		r = ipc_session_claim_wait(session, message.size, &data, NULL);
		if (r < 0)
			break;
		memcpy(data, message.data, message.size);
		r = ipc_session_commit_release(session, data, message.size, &message);
		if (r < 0)
			break;
	}
	report(fd, r, 0, 0);
	(void)ipc_session_close(session);
	(void)ipc_client_unref(client);
}

/* ---- the play ---- */

/* Until so many more were answered: the moment. */
static int64_t until_answered(uint64_t n_more)
{
	uint64_t wanted = atomic_load(&notes->n_answered) + n_more;
	int64_t limit = now_ns() + INT64_C(5000000000);

	while (atomic_load(&notes->n_answered) < wanted && now_ns() < limit)
		(void)sched_yield();
	if (atomic_load(&notes->n_answered) < wanted)
		fail("the conversation", IPC_ETIMEDOUT);
	return now_ns();
}

/* One number is under way at most: after the second answer the new process has a part in it. */
static int64_t kill_and_go_on(struct member *member, void (*fn)(int fd))
{
	int64_t killed_at = member_kill(*member);

	(void)close(member->fd);
	*member = member_start(fn);
	return until_answered(2) - killed_at;
}

static void play_kills(struct member *client, struct member *server)
{
	int64_t sums[2] = {0, 0}, longest = 0;
	uint64_t before = atomic_load(&notes->n_answered);

	act("A conversation: its server and its client are killed in turn, ten times each");
	for (int i = 0; i < 2 * N_KILLS; ++i) {
		int64_t took =
			i % 2 ? kill_and_go_on(client, talker) : kill_and_go_on(server, answerer);

		sums[i % 2] += took;
		longest = took > longest ? took : longest;
		(void)until_answered(100);
	}
	printf("    from kill -9 to the next answer, start of the next process included:\n"
	       "    server %6.0f us, client %6.0f us, at most %6.0f us\n",
	       (double)sums[0] / N_KILLS / 1e3, (double)sums[1] / N_KILLS / 1e3,
	       (double)longest / 1e3);
	printf("    %ju numbers in the meantime, %ju came again to the next process\n",
	       (uintmax_t)(atomic_load(&notes->n_answered) - before),
	       (uintmax_t)atomic_load(&notes->n_again));
	check(atomic_load(&notes->n_wrong) == 0, "none was lost, none was answered twice");
}

static void play_upgrades(struct member *server)
{
	uint64_t absent_before = atomic_load(&notes->n_absent);
	bool are_told = true;
	int64_t sum = 0;

	act("A living server hands the conversation over to a new process, five times");
	atomic_store(&notes->server_resumes, 1);
	for (int i = 0; i < N_UPGRADES; ++i) {
		int64_t started = now_ns();
		struct member next = member_start(answerer);
		struct report last = member_hear(*server);

		are_told = are_told && last.result == IPC_ESTALE;
		sum += until_answered(2) - started;
		(void)waitpid(server->pid, NULL, 0);
		(void)close(server->fd);
		*server = next;
		(void)until_answered(100);
	}
	printf("    from the start of the new process to its first answer %6.0f us\n",
	       (double)sum / N_UPGRADES / 1e3);
	check(are_told, "the old process was told so: IPC_ESTALE");
	check(atomic_load(&notes->n_absent) == absent_before && atomic_load(&notes->n_wrong) == 0,
	      "the client has not noticed: its server was there all the time, nothing lost or "
	      "twice");
}

void act_session(void)
{
	struct member client, server;
	struct report last;

	notes = mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (notes == MAP_FAILED)
		fail("mmap", IPC_ENOMEM);
	server = member_start(answerer);
	client = member_start(talker);
	(void)until_answered(100);

	play_kills(&client, &server);
	play_upgrades(&server);

	atomic_store(&notes->is_over, 1);
	last = member_hear(server);
	check(last.result == IPC_EPIPE &&
		      atomic_load(&notes->n_handled) == atomic_load(&notes->n_answered),
	      "closed in order: both ends have counted the same");
	(void)waitpid(client.pid, NULL, 0);
	(void)waitpid(server.pid, NULL, 0);
	(void)close(client.fd);
	(void)close(server.fd);
	(void)munmap(notes, sizeof(*notes));
}
