/* SPDX-License-Identifier: MIT */
/*
 * P14: a ping-pong while the broker's worker is killed every 200 ms, beside the same without kills.
 */
#include "bench/ends.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SECONDS = 2 };

struct game {
	_Atomic uint32_t ready, stop;
	_Atomic uint64_t longest_ns, n_errors;
	bool is_inbox;
};

static void echo(void *arg)
{
	struct game *game = arg;
	ipc_client *client = bench_connect();
	ipc_watch_producer *out = bench_producer(client, "bench/pong14");
	ipc_watch_consumer *in = bench_consumer(client, "bench/ping14");
	uint64_t value[BENCH_PAYLOAD / 8], version = 0;

	bench_pin(1);
	atomic_store(&game->ready, 1);
	for (;;) {
		if (ipc_watch_read_wait(in, value, sizeof(value), NULL, &version, NULL) < 0 ||
		    ipc_watch_publish(out, value, sizeof(value)) < 0)
			atomic_fetch_add(&game->n_errors, 1);
	}
}

static void play(void *arg)
{
	struct game *game = arg;
	ipc_client *client = bench_connect();
	ipc_watch_producer *out = bench_producer(client, "bench/ping14");
	ipc_watch_consumer *in = bench_consumer(client, "bench/pong14");
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, version = 0, last = bench_now_ns();

	bench_pin(0);
	atomic_store(&game->ready, 2);
	while (!atomic_load(&game->stop)) {
		uint64_t now;

		if (ipc_watch_publish(out, value, sizeof(value)) < 0 ||
		    ipc_watch_read_wait(in, value, sizeof(value), NULL, &version, NULL) < 0)
			atomic_fetch_add(&game->n_errors, 1);
		now = bench_now_ns();
		if (now - last > atomic_load(&game->longest_ns))
			atomic_store(&game->longest_ns, now - last);
		last = now;
	}
}

/* The same by a session or by two inboxes. */
static void ends_echo(void *arg)
{
	struct game *game = arg;
	uint64_t value[BENCH_PAYLOAD / 8];
	struct bench_ends ends;

	bench_ends_connect(&ends, game->is_inbox, BENCH_PAYLOAD);
	bench_pin(1);
	atomic_store(&game->ready, 1);
	for (;;) {
		bench_ends_receive(&ends, value, sizeof(value), true);
		bench_ends_send(&ends, value, sizeof(value), true);
	}
}

static void note_gap(struct game *game, uint64_t *last)
{
	uint64_t now = bench_now_ns();

	if (now - *last > atomic_load(&game->longest_ns))
		atomic_store(&game->longest_ns, now - *last);
	*last = now;
}

static void ends_play(void *arg)
{
	struct game *game = arg;
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, last;
	struct bench_ends ends;
	pid_t echoer;

	bench_ends_open(&ends, game->is_inbox, BENCH_PAYLOAD);
	echoer = bench_spawn(ends_echo, game);
	bench_ends_join(&ends);
	bench_sleep_until(&game->ready, 1);
	bench_pin(0);
	atomic_store(&game->ready, 2);
	last = bench_now_ns();
	while (!atomic_load(&game->stop)) {
		bench_ends_send(&ends, value, sizeof(value), true);
		bench_ends_receive(&ends, value, sizeof(value), true);
		note_gap(game, &last);
	}
	bench_reap(echoer);
	bench_ends_close(&ends);
	atomic_store(&game->ready, 3);
	for (;;)
		pause();
}

static void pass_time(bool with_kills)
{
	for (int i = 0; i < 5 * SECONDS; ++i) {
		usleep(200000);
		if (with_kills)
			bench_kill_worker();
	}
}

static double longest_ends_gap_ms(bool is_inbox, bool with_kills)
{
	struct game *game = bench_shared(sizeof(*game));
	double gap;
	pid_t pid;

	game->is_inbox = is_inbox;
	pid = bench_spawn(ends_play, game);
	bench_sleep_until(&game->ready, 2);
	pass_time(with_kills);
	atomic_store(&game->stop, 1);
	bench_sleep_until(&game->ready, 3);
	gap = (double)atomic_load(&game->longest_ns) / 1e6;
	bench_reap(pid);
	munmap(game, sizeof(*game));
	return gap;
}

static void ends_row(bool is_inbox, const char *workload)
{
	double without[3], with[3];

	for (int i = 0; i < 3; ++i) {
		without[i] = longest_ends_gap_ms(is_inbox, false);
		with[i] = longest_ends_gap_ms(is_inbox, true);
	}
	bench_row("P14", workload, bench_median(with, 3), "the same without kills",
		  bench_median(without, 3), 2, "ms");
}

static double longest_gap_ms(bool with_kills)
{
	struct game *game = bench_shared(sizeof(*game));
	pid_t a, b;
	double gap;

	a = bench_spawn(echo, game);
	bench_sleep_until(&game->ready, 1);
	b = bench_spawn(play, game);
	bench_sleep_until(&game->ready, 2);
	pass_time(with_kills);
	atomic_store(&game->stop, 1);
	gap = (double)atomic_load(&game->longest_ns) / 1e6;
	if (atomic_load(&game->n_errors))
		bench_fail("a client saw the broker's death", IPC_EPROTO);
	bench_reap(b);
	bench_reap(a);
	munmap(game, sizeof(*game));
	return gap;
}

void bench_broker(void)
{
	double without[3], with[3];

	for (int i = 0; i < 3; ++i) {
		without[i] = longest_gap_ms(false);
		with[i] = longest_gap_ms(true);
	}
	bench_row("P14", "longest gap, worker killed every 200 ms", bench_median(with, 3),
		  "the same without kills", bench_median(without, 3), 2, "ms");
	ends_row(false, "the same of a session");
	ends_row(true, "the same of two inboxes");
}
