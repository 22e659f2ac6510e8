/* SPDX-License-Identifier: MIT */
/*
 * P14: a ping-pong while the broker's worker is killed every 200 ms, beside the same without kills.
 */
#include "bench/bench.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SECONDS = 2 };

struct game {
	_Atomic uint32_t ready, stop;
	_Atomic uint64_t longest_ns, n_errors;
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

static double longest_gap_ms(bool with_kills)
{
	struct game *game = bench_shared(sizeof(*game));
	pid_t a, b;
	double gap;

	a = bench_spawn(echo, game);
	bench_sleep_until(&game->ready, 1);
	b = bench_spawn(play, game);
	bench_sleep_until(&game->ready, 2);
	for (int i = 0; i < 5 * SECONDS; ++i) {
		usleep(200000);
		if (with_kills)
			bench_kill_worker();
	}
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
}
