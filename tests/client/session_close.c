/* SPDX-License-Identifier: MIT */
/*
 * session: close while another thread is in the middle of a call, and while no broker hears of it.
 */
#include <stdatomic.h>

#include "tests/client/session_scene.h"

TestSuite(session_close, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

enum { GATE_MS = 200, SIZE = 8 };

/* Whoever reads `bytes` stands there until the gate is opened. */
static struct {
	char *bytes;
	size_t size;
	int gate[2];
	_Atomic bool is_stopped;
	struct sigaction before;
} place;

static void place_hold(int signal, siginfo_t *info, void *context)
{
	const char *address = info->si_addr;
	char byte;

	(void)context;
	if (address < place.bytes || address >= place.bytes + place.size) {
		(void)sigaction(signal, &place.before, NULL);
		return;
	}

	atomic_store(&place.is_stopped, true);
	while (read(place.gate[0], &byte, 1) < 0)
		;
	(void)mprotect(place.bytes, place.size, PROT_READ | PROT_WRITE);
}

static void place_begin(void)
{
	struct sigaction action = {.sa_sigaction = place_hold, .sa_flags = SA_SIGINFO};

	place.size = (size_t)sysconf(_SC_PAGESIZE);
	place.bytes = mmap(NULL, place.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
			   -1, 0);
	ASSERT(place.bytes == MAP_FAILED, 0);
	ASSERT(pipe2(place.gate, O_CLOEXEC), 0);
	ASSERT(sigaction(SIGSEGV, &action, &place.before), 0);
}

static void place_end(void)
{
	ASSERT(sigaction(SIGSEGV, &place.before, NULL), 0);
	munmap(place.bytes, place.size);
	close(place.gate[0]);
	close(place.gate[1]);
}

struct sender {
	ipc_session *session;
	pthread_t thread;
	int result;
};

static void *sender_run(void *arg)
{
	struct sender *sender = arg;

	sender->result = ipc_session_send(sender->session, place.bytes, SIZE);
	return NULL;
}

static void *closer_run(void *arg)
{
	ipc_session_close(arg);
	return NULL;
}

/* Whether the other end had its end before the gate was opened. */
static bool has_end_before(ipc_session *session)
{
	struct timespec deadline = domain_deadline(GATE_MS);
	struct ipc_session_message message;
	int r;

	while ((r = ipc_session_receive(session, &message)) == IPC_EAGAIN &&
	       !process_has_passed(&deadline))
		process_pause();
	return r == IPC_EPIPE;
}

/* C-14, M-44: after its end nothing comes any more, whoever was in the middle of a send. */
Test(session_close, what_is_being_sent_comes_before_the_end_or_not_at_all)
{
	struct pair pair = PAIR_NEW(0);
	struct sender sender = {.session = pair.accepted};
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_session_message message;
	pthread_t closer;
	bool had_end;

	place_begin();
	ASSERT(pthread_create(&sender.thread, NULL, sender_run, &sender), 0);
	while (!atomic_load(&place.is_stopped) && !process_has_passed(&deadline))
		process_pause();
	ASSERT(pthread_create(&closer, NULL, closer_run, pair.accepted), 0);
	had_end = has_end_before(pair.connected);
	ASSERT(write(place.gate[1], "", 1), 1);
	pthread_join(sender.thread, NULL);
	pthread_join(closer, NULL);

	cr_expect(sender.result == 0 || sender.result == IPC_ECANCELED, "%s",
		  ipc_error_name(sender.result));
	if (!had_end && sender.result == 0)
		EXPECT(ipc_session_receive(pair.connected, &message), 0);
	EXPECT(get_in(pair.connected, &message, WAIT_MS), IPC_EPIPE);
	EXPECT(get(pair.connected, &message), IPC_EPIPE);
	place_end();
	pair.accepted = NULL;
	pair_close(&pair);
}

/* ---- before the broker has heard of it ---- */

/* As the other calls say it: whoever was told by one of them is told the same by these. */
static void expect_peer_closed(ipc_session *session)
{
	EXPECT(ipc_session_peers(session), 0);
	EXPECT(until_peer(session, false), 0);
	EXPECT(until_peer(session, true), IPC_EPIPE);
	EXPECT(look(session, IPC_READY_PEER_GONE), IPC_READY_PEER_GONE | IPC_READY_END);
	EXPECT(look(session, IPC_READY_PEER_PRESENT), IPC_READY_END);
}

/* C-14: what is sent after it is not taken in, since nobody receives it.  C-16 */
Test(session_close, is_known_to_the_other_end_at_once)
{
	struct pair pair = PAIR_NEW(0);
	pid_t worker = domain_worker(&fixture_domain);
	struct ipc_session_message message;
	void *claim, *none = NULL;

	ASSERT(put(pair.connected, 1), 0);
	ASSERT(put(pair.connected, 2), 0);
	ASSERT(ipc_session_claim(pair.accepted, SIZE, &claim), 0);
	ASSERT(kill(worker, SIGSTOP), 0);
	pair.connected = ipc_session_close(pair.connected);

	EXPECT(put(pair.accepted, 1), IPC_EPIPE);
	EXPECT(put_in(pair.accepted, 1, WAIT_MS), IPC_EPIPE);
	EXPECT(ipc_session_send_fd(pair.accepted, 0, NULL, 0), IPC_EPIPE);
	EXPECT(ipc_session_claim(pair.accepted, SIZE, &none), IPC_EPIPE);
	EXPECT(ipc_session_commit(pair.accepted, claim, SIZE), IPC_EPIPE);
	EXPECT(look(pair.accepted, IPC_READY_WRITABLE), IPC_READY_END);
	EXPECT(look(pair.accepted, IPC_READY_READABLE), IPC_READY_READABLE);
	EXPECT(get(pair.accepted, &message), 1);
	EXPECT(ipc_session_commit_release(pair.accepted, claim, SIZE, &message), IPC_EPIPE);
	EXPECT(eat(pair.accepted), 2);
	EXPECT(eat(pair.accepted), IPC_EPIPE);
	EXPECT(eat_in(pair.accepted, WAIT_MS), IPC_EPIPE);
	EXPECT(look(pair.accepted, IPC_READY_READABLE), IPC_READY_END);
	EXPECT(state_of(pair.accepted).sent, 0);
	EXPECT(state_of(pair.accepted).away_ns, 0);
	expect_peer_closed(pair.accepted);

	ASSERT(kill(worker, SIGCONT), 0);
	expect_peer_closed(pair.accepted);
	EXPECT(put(pair.accepted, 1), IPC_EPIPE);
	pair_close(&pair);
}

/* C-13: detaching is no close. */
Test(session_close, a_detach_is_not_taken_for_one)
{
	struct pair pair = PAIR_NEW(0);
	pid_t worker = domain_worker(&fixture_domain);

	ASSERT(kill(worker, SIGSTOP), 0);
	pair.connected = ipc_session_detach(pair.connected);

	EXPECT(put(pair.accepted, 1), 0);
	EXPECT(eat(pair.accepted), IPC_EAGAIN);
	ASSERT(kill(worker, SIGCONT), 0);
	pair_close(&pair);
}

/* C-3: who was taken over, and closes what he has left, ends nothing. */
Test(session_close, of_one_that_was_taken_over_is_not_told)
{
	struct pair pair = PAIR_NEW(0);
	ipc_session *old = pair.connected;
	struct ipc_session_key key = key_of(old);

	pair.connected = NULL;
	ASSERT(resume_by(&pair.connected, fixture_client, &key), 0);
	EXPECT(put(old, 1), IPC_ESTALE);
	ipc_session_close(old);

	EXPECT(put(pair.accepted, 1), 0);
	EXPECT(eat(pair.connected), 1);
	EXPECT(put(pair.connected, 2), 0);
	EXPECT(eat(pair.accepted), 2);
	EXPECT(eat(pair.accepted), IPC_EAGAIN);
	pair_close(&pair);
}
