/* SPDX-License-Identifier: MIT */
/*
 * Opening: P12 (both ends of a channel of 64 KiB; ten thousand channels open at once; what they
 * cost the broker).  A session's ends are in two processes, as a connect returns when it was
 * accepted.
 */
#include "bench/bench.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_OPENS = 100, N_CROWD = 10000, N_WAKES = 1000, PATIENCE_MS = 2000 };

static ipc_client *one, *two;

static void must(int result)
{
	if (result < 0)
		bench_fail("open", result);
}

static double open_both_ends(void *arg)
{
	uint64_t spent = 0;

	(void)arg;
	for (int i = 0; i < N_OPENS; ++i) {
		uint64_t began = bench_now_ns();
		ipc_shared *a = bench_ledger(one, "bench/open", IPC_SIDE_A, 28 << 10);
		ipc_shared *b = bench_ledger(two, "bench/open", IPC_SIDE_B, 28 << 10);

		spent += bench_now_ns() - began;
		(void)ipc_shared_close(a);
		(void)ipc_shared_close(b);
	}
	return (double)spent / N_OPENS / 1e3;
}

static double open_both_ends_of_inbox(void *arg)
{
	const struct ipc_inbox_options *options =
		IPC_INBOX_OPTIONS(.flags = IPC_CREATE, .capacity = 60 << 10);
	uint64_t spent = 0;

	(void)arg;
	for (int i = 0; i < N_OPENS; ++i) {
		uint64_t began = bench_now_ns();
		ipc_inbox_sender *sender;
		ipc_inbox_receiver *receiver;

		must(ipc_inbox_sender_open_wait(&sender, one, "bench/open", options, NULL));
		must(ipc_inbox_receiver_open_wait(&receiver, two, "bench/open", options, NULL));
		spent += bench_now_ns() - began;
		(void)ipc_inbox_sender_close(sender);
		(void)ipc_inbox_receiver_close(receiver);
	}
	return (double)spent / N_OPENS / 1e3;
}

/* ---- sessions ---- */

/* Shared with the process that connects. */
struct board {
	_Atomic uint32_t n_connected, is_done;
	_Atomic uint64_t spent_ns;
};

static struct board *board;
static ipc_listener *listener;

static void listen_for(uint64_t capacity)
{
	must(ipc_listener_open_wait(&listener, one, "bench/open",
				    IPC_SESSION_OPTIONS(.flags = IPC_CREATE, .capacity = capacity),
				    NULL));
}

static int connect_once(ipc_client *client, ipc_session **ret)
{
	struct timespec deadline;

	ipc_deadline_after(&deadline, PATIENCE_MS * UINT64_C(1000000));
	return ipc_session_connect_wait(ret, client, "bench/open", NULL, &deadline);
}

static int accept_once(ipc_session **ret, uint64_t ms)
{
	struct timespec deadline;

	ipc_deadline_after(&deadline, ms * UINT64_C(1000000));
	return ipc_listener_accept_wait(listener, ret, &deadline);
}

static void connect_in_turn(void *arg)
{
	ipc_client *client = bench_connect();
	uint64_t spent = 0;

	(void)arg;
	for (int i = 0; i < N_OPENS; ++i) {
		uint64_t began = bench_now_ns();
		ipc_session *session;

		must(connect_once(client, &session));
		spent += bench_now_ns() - began;
		(void)ipc_session_close(session);
	}
	atomic_store(&board->spent_ns, spent);
	atomic_store(&board->is_done, 1);
}

static double open_both_ends_of_session(void *arg)
{
	pid_t pid;

	(void)arg;
	atomic_store(&board->is_done, 0);
	pid = bench_spawn(connect_in_turn, NULL);
	for (int i = 0; i < N_OPENS; ++i) {
		ipc_session *session;

		must(accept_once(&session, PATIENCE_MS));
		(void)ipc_session_close(session);
	}
	bench_sleep_until(&board->is_done, 1);
	bench_reap(pid);
	return (double)atomic_load(&board->spent_ns) / N_OPENS / 1e3;
}

static double map_us(void *arg)
{
	return limit_map_round_trip(arg) / 1e3;
}

/* Kilobytes that the process holds resident, shared memory counted once among its users. */
static double worker_kib(void)
{
	char path[64], line[128];
	double kib = 0;
	FILE *rollup;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)bench_worker());
	rollup = fopen(path, "re");
	while (rollup && fgets(line, sizeof(line), rollup)) {
		if (sscanf(line, "Pss: %lf", &kib) == 1)
			break;
	}
	if (rollup)
		fclose(rollup);
	return kib;
}

static void bench_crowd(void)
{
	static ipc_shared *ends[N_CROWD][2];
	double before = worker_kib(), grown;
	uint64_t began = bench_now_ns();
	char name[64];
	int n;

	for (n = 0; n < N_CROWD; ++n) {
		snprintf(name, sizeof(name), "bench/crowd/%d", n);
		if (ipc_shared_open_wait(
			    &ends[n][0], one, name, IPC_SIDE_A,
			    IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = 1024), NULL) < 0)
			break;
		if (ipc_shared_open_wait(&ends[n][1], two, name, IPC_SIDE_B, NULL, NULL) < 0)
			break;
	}
	grown = worker_kib() - before;
	bench_figure("P12", "channels open at once, both ends (goal 10,000)", n, "");
	bench_figure("P12", "opening them took, each",
		     n ? (double)(bench_now_ns() - began) / n / 1e3 : 0, "us");
	if (n > 0)
		bench_row("P12", "memory of the broker per channel with 2 handles", grown / n,
			  "2 KiB + 2 x 4 KiB", 10, 1, "KiB");
	for (int i = 0; i < n; ++i) {
		(void)ipc_shared_close(ends[i][0]);
		(void)ipc_shared_close(ends[i][1]);
	}
}

/* ---- many sessions ---- */

/* Each is in the client's poll set, and is answered there. */
static void connect_a_crowd(void *arg)
{
	ipc_client *client = bench_connect();
	struct ipc_session_message message;
	struct pollfd pollfd = {.fd = ipc_client_get_fd(client), .events = POLLIN};
	struct ipc_poll_event event;
	uint64_t began = bench_now_ns();
	ipc_session *session;
	uint32_t n = 0;

	(void)arg;
	while (n < N_CROWD && connect_once(client, &session) == 0) {
		must(ipc_poll_add(client, session, IPC_READY_READABLE, session));
		atomic_store(&board->spent_ns, bench_now_ns() - began);
		atomic_store(&board->n_connected, ++n);
	}
	atomic_store(&board->is_done, 1);
	for (;;) {
		while (ipc_poll_next(client, &event) == 0) {
			if (ipc_session_receive(event.userdata, &message) < 0)
				continue;
			must(ipc_session_send(event.userdata, NULL, 0));
			must(ipc_session_release(event.userdata, &message));
		}
		(void)poll(&pollfd, 1, -1);
	}
}

/* Until nobody connects any more.  How many. */
static uint32_t accept_a_crowd(ipc_session **ends)
{
	uint32_t n = 0;

	while (!atomic_load(&board->is_done) || n < atomic_load(&board->n_connected)) {
		int r = accept_once(&ends[n], 20);

		if (r != IPC_ETIMEDOUT)
			must(r);
		n += r == 0;
	}
	return n;
}

static double ask_us(ipc_session *session)
{
	struct ipc_session_message message;
	uint64_t began = bench_now_ns();

	must(ipc_session_send(session, NULL, 0));
	must(ipc_session_receive_wait(session, &message, NULL));
	must(ipc_session_release(session, &message));
	return (double)(bench_now_ns() - began) / 1e3;
}

static void bench_crowd_of_sessions(void)
{
	static ipc_session *ends[N_CROWD];
	static double waits[N_WAKES];
	double before = worker_kib();
	pid_t pid;
	uint32_t n;

	listen_for(4096);
	atomic_store(&board->n_connected, 0);
	atomic_store(&board->is_done, 0);
	pid = bench_spawn(connect_a_crowd, NULL);
	n = accept_a_crowd(ends);
	bench_figure("P12", "sessions open at once, in one poll set (goal 10,000)", n, "");
	if (n > 0) {
		bench_figure("P12", "opening them took, each",
			     (double)atomic_load(&board->spent_ns) / n / 1e3, "us");
		bench_row("P12", "memory of the broker per session with 2 handles",
			  (worker_kib() - before) / n, "2 KiB + 2 x 4 KiB", 10, 1, "KiB");
		for (uint32_t i = 0; i < N_WAKES; ++i)
			waits[i] = ask_us(ends[(i * 7919) % n]);
		bench_figure("P12", "round trip with one of them, by the poll set",
			     bench_median(waits, N_WAKES), "us");
	}
	for (uint32_t i = 0; i < n; ++i)
		(void)ipc_session_close(ends[i]);
	bench_reap(pid);
	(void)ipc_listener_close(listener);
}

void bench_open(void)
{
	one = bench_connect();
	two = bench_connect();
	board = bench_shared(sizeof(*board));
	bench_compare("P12", "open both ends, 64 KiB", open_both_ends,
		      "memfd, 2 mmap, 1 round trip", map_us, NULL, false, 3, "us");
	bench_compare("P12", "open both ends of an inbox, 64 KiB", open_both_ends_of_inbox,
		      "memfd, 2 mmap, 1 round trip", map_us, NULL, false, 3, "us");
	listen_for(28 << 10);
	bench_compare("P12", "connect and accept a session, 64 KiB", open_both_ends_of_session,
		      "memfd, 2 mmap, 1 round trip", map_us, NULL, false, 3, "us");
	(void)ipc_listener_close(listener);
	bench_crowd();
	bench_crowd_of_sessions();
	(void)ipc_client_unref(one);
	(void)ipc_client_unref(two);
}
