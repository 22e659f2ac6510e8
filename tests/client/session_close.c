/* SPDX-License-Identifier: MIT */
/*
 * session: close while another thread is in the middle of a call.
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
