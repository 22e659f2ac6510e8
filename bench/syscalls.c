/* SPDX-License-Identifier: MIT */
/*
 * P13: system calls per message, counted with ptrace: none while both sides are awake, one wake and
 * one wait per real sleep.
 */
#include "bench/bench.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_MESSAGES = 1000 };

struct subject {
	void (*fn)(void);
};

static ipc_watch_producer *producer;
static ipc_watch_consumer *consumer;
static ipc_shared *ledger;
static ipc_flight_table *table;
static ipc_queue_producer *queue_out;
static ipc_queue_consumer *queue_in;
static ipc_limiter *limiter;
static ipc_session *accepted, *connected;
static ipc_inbox_sender *inbox_out;
static ipc_inbox_receiver *inbox_in;

static void publish_and_read(void)
{
	uint64_t value[BENCH_PAYLOAD / 8] = {1};

	for (int i = 0; i < N_MESSAGES; ++i) {
		if (ipc_watch_publish(producer, value, sizeof(value)) < 0 ||
		    ipc_watch_read(consumer, value, sizeof(value), NULL, NULL) < 0)
			_exit(1);
	}
}

static void transact(void)
{
	const void *value;
	void *copy;

	for (int i = 0; i < N_MESSAGES; ++i) {
		if (ipc_shared_lock_wait(ledger, &value, NULL) < 0 ||
		    ipc_shared_edit(ledger, &copy) < 0)
			_exit(1);
		memset(copy, i, BENCH_PAYLOAD);
		if (ipc_shared_commit(ledger) < 0)
			_exit(1);
	}
}

/* F-11 */
static void fly(void)
{
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	ipc_flight *flight;

	for (int i = 0; i < N_MESSAGES; ++i) {
		if (ipc_flight_join(&flight, table, "key", 3) != 1 ||
		    ipc_flight_land(flight, value, sizeof(value)) < 0)
			_exit(1);
		(void)ipc_flight_leave(flight);
	}
}

static int land_nothing(ipc_flight *flight, const void *key, size_t size, void *userdata)
{
	(void)key;
	(void)size;
	(void)userdata;
	return ipc_flight_land(flight, NULL, 0);
}

static void fly_in_one_call(void)
{
	struct ipc_flight_result result;

	for (int i = 0; i < N_MESSAGES; ++i) {
		if (ipc_flight_do_wait(table, "key", 3, land_nothing, NULL, NULL, 0, &result,
				       NULL) != 0)
			_exit(1);
	}
}

static void push_and_take(void)
{
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	struct ipc_queue_item item;

	for (int i = 0; i < N_MESSAGES; ++i) {
		if (ipc_queue_push(queue_out, 1, value, sizeof(value), IPC_FULL_FAIL) < 0 ||
		    ipc_queue_take(queue_in, &item) < 0 || ipc_queue_ack(queue_in, &item) < 0)
			_exit(1);
	}
}

static void acquire_and_release(void)
{
	struct ipc_limiter_grant grant;

	for (int i = 0; i < N_MESSAGES; ++i) {
		if (ipc_limiter_acquire(limiter, 1, &grant) < 0 ||
		    ipc_limiter_release(limiter, &grant, false) < 0)
			_exit(1);
	}
}

static void send_and_receive(void)
{
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	struct ipc_session_message message;

	for (int i = 0; i < N_MESSAGES; ++i) {
		if (ipc_session_send(connected, value, sizeof(value)) < 0 ||
		    ipc_session_receive(accepted, &message) < 0 ||
		    ipc_session_release(accepted, &message) < 0)
			_exit(1);
	}
}

static void send_and_apply(void)
{
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	struct ipc_inbox_event event;

	for (uint64_t i = 0; i < N_MESSAGES; ++i) {
		if (ipc_inbox_send_frame(inbox_out, i, value, sizeof(value)) < 0 ||
		    ipc_inbox_receive(inbox_in, &event) < 0 ||
		    ipc_inbox_mark_applied(inbox_in, &event) < 0)
			_exit(1);
	}
}

static void *accept_one(void *listener)
{
	int r;

	/* What the one before left away comes first (1). */
	while ((r = ipc_listener_accept_wait(listener, &accepted, NULL)) == 1)
		(void)ipc_session_close(accepted);
	if (r < 0)
		_exit(1);
	return NULL;
}

static void open_session(ipc_client *client)
{
	ipc_listener *listener;
	pthread_t thread;

	if (ipc_listener_open_wait(&listener, client, "bench/p13n",
				   IPC_SESSION_OPTIONS(.flags = IPC_CREATE), NULL) < 0 ||
	    pthread_create(&thread, NULL, accept_one, listener) != 0 ||
	    ipc_session_connect_wait(&connected, client, "bench/p13n", NULL, NULL) < 0)
		_exit(1);
	pthread_join(thread, NULL);
}

static void open_inbox(ipc_client *client)
{
	struct ipc_inbox_event event;

	if (ipc_inbox_receiver_open_wait(&inbox_in, client, "bench/p13i",
					 IPC_INBOX_OPTIONS(.flags = IPC_CREATE), NULL) < 0 ||
	    ipc_inbox_sender_open_wait(&inbox_out, client, "bench/p13i", NULL, NULL) < 0 ||
	    ipc_inbox_begin_snapshot(inbox_out, 1) < 0 ||
	    ipc_inbox_end_snapshot(inbox_out, 0) < 0 || ipc_inbox_receive(inbox_in, &event) < 0 ||
	    ipc_inbox_receive(inbox_in, &event) < 0)
		_exit(1);
}

static void traced(void *arg)
{
	struct subject *subject = arg;
	ipc_client *client = bench_connect();

	producer = bench_producer(client, "bench/p13");
	consumer = bench_consumer(client, "bench/p13");
	ledger = bench_ledger(client, "bench/p13s", IPC_SIDE_A, BENCH_PAYLOAD);
	table = bench_table(client, "bench/p13f");
	queue_in = bench_queue_consumer(client, "bench/p13q");
	queue_out = bench_queue_producer(client, "bench/p13q");
	if (ipc_limiter_open_wait(&limiter, client, "bench/p13l",
				  IPC_LIMITER_OPTIONS(.flags = IPC_CREATE), NULL) < 0)
		_exit(1);
	open_session(client);
	open_inbox(client);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	subject->fn();
	raise(SIGSTOP);
}

/* System calls between the two stops, less the ones that raise() makes. */
static double count_calls(void (*fn)(void))
{
	struct subject subject = {.fn = fn};
	pid_t pid = bench_spawn(traced, &subject);
	long n = 0;
	int status;

	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	for (;;) {
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		if (waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
			bench_fail("the traced process ended", IPC_EPROTO);
		if (WSTOPSIG(status) == SIGSTOP)
			break;
		n += WSTOPSIG(status) == (SIGTRAP | 0x80);
	}
	bench_reap(pid);

	/* Each call stops twice; raise() itself is a handful of calls. */
	return (double)(n / 2 > 8 ? n / 2 - 8 : 0) / N_MESSAGES;
}

void bench_syscalls(void)
{
	bench_figure("P13", "system calls per publish + read, all awake (goal 0)",
		     count_calls(publish_and_read), "");
	bench_figure("P13", "system calls per lock + edit + commit (goal 0)", count_calls(transact),
		     "");
	bench_figure("P13", "system calls per join + land + leave (goal 0)", count_calls(fly), "");
	bench_figure("P13", "system calls per do_wait (goal 0)", count_calls(fly_in_one_call), "");
	bench_figure("P13", "system calls per push + take + ack (goal 0)",
		     count_calls(push_and_take), "");
	bench_figure("P13", "system calls per acquire + release (goal 0)",
		     count_calls(acquire_and_release), "");
	bench_figure("P13", "system calls per send + receive + release (goal 0)",
		     count_calls(send_and_receive), "");
	bench_figure("P13", "system calls per frame + receive + mark_applied (goal 0)",
		     count_calls(send_and_apply), "");
}
