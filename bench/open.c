/* SPDX-License-Identifier: MIT */
/*
 * Opening: P12 (both ends of a channel of 64 KiB; ten thousand channels open at once; what they
 * cost the broker).
 */
#include "bench/bench.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_OPENS = 100, N_CROWD = 10000 };

static ipc_client *one, *two;

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

void bench_open(void)
{
	one = bench_connect();
	two = bench_connect();
	bench_compare("P12", "open both ends, 64 KiB", open_both_ends,
		      "memfd, 2 mmap, 1 round trip", map_us, NULL, false, 3, "us");
	bench_crowd();
	(void)ipc_client_unref(one);
	(void)ipc_client_unref(two);
}
