/* SPDX-License-Identifier: MIT */
/*
 * limiter: P11 (acquire, release beside a robust mutex pair), and a permit that goes round.
 */
#include "bench/bench.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PIECES = 5, PIECE_ROUNDS = 10000, N_PROCESSES = 4 };

#define DAY_NS (UINT64_C(86400) * 1000000000)

static ipc_limiter *limiter;

static ipc_limiter *limiter_open(ipc_client *client, const char *name,
				 const struct ipc_limiter_options *options)
{
	ipc_limiter *opened;
	int r = ipc_limiter_open_wait(&opened, client, name, options, NULL);

	if (r < 0)
		bench_fail(name, r);
	return opened;
}

/* ---- alone ---- */

static void once(int r, const struct ipc_limiter_grant *grant)
{
	if (r < 0)
		bench_fail("acquire", r);
	r = ipc_limiter_release(limiter, grant, false);
	if (r < 0)
		bench_fail("release", r);
}

static void acquire_once(void)
{
	struct ipc_limiter_grant grant;

	once(ipc_limiter_acquire(limiter, 1, &grant), &grant);
}

static void wait_once(void)
{
	struct ipc_limiter_grant grant;

	once(ipc_limiter_acquire_wait(limiter, 1, &grant, NULL), &grant);
}

/* The best of some pieces, each shorter than what the scheduler gives at once. */
static double alone_ns(void *arg)
{
	void (*const *fn)(void) = arg;
	double pieces[PIECES];

	for (int piece = 0; piece < PIECES; ++piece) {
		uint64_t began = bench_now_ns();

		for (int i = 0; i < PIECE_ROUNDS; ++i)
			(*fn)();
		pieces[piece] = (double)(bench_now_ns() - began) / PIECE_ROUNDS;
	}
	return bench_best(pieces, PIECES);
}

static void bench_alone(void)
{
	void (*plain)(void) = acquire_once, (*waiting)(void) = wait_once;
	ipc_client *client = bench_connect();

	bench_pin(0);
	limiter = limiter_open(client, "bench/p11l",
			       IPC_LIMITER_OPTIONS(.flags = IPC_CREATE, .permits = 4));
	bench_compare("P11", "limiter: acquire, release", alone_ns, "robust mutex pair",
		      limit_robust_pair, &plain, true, 1.5, "ns");
	bench_compare("P11", "limiter: the same with acquire_wait", alone_ns, "robust mutex pair",
		      limit_robust_pair, &waiting, true, 0, "ns");
	(void)ipc_limiter_close(limiter);

	limiter = limiter_open(client, "bench/p11w",
			       IPC_LIMITER_OPTIONS(.flags = IPC_CREATE | IPC_KEEP, .permits = 4,
						   .window_units = UINT64_MAX / 2,
						   .window_ns = DAY_NS));
	bench_compare("P11", "limiter: the same with a window", alone_ns, "robust mutex pair",
		      limit_robust_pair, &plain, true, 0, "ns");
	(void)ipc_limiter_close(limiter);
	(void)!ipc_channel_remove_wait(client, "bench/p11w", 0, NULL);
	bench_pin(-1);
	(void)ipc_client_unref(client);
}

/* ---- contended ---- */

struct crowd {
	_Atomic uint32_t n_ready, may_go;
	_Atomic uint64_t n_grants;
	uint64_t until_ns;
};

static void acquire_often(void *arg)
{
	struct crowd *crowd = arg;
	ipc_limiter *mine = limiter_open(bench_connect(), "bench/crowd",
					 IPC_LIMITER_OPTIONS(.flags = IPC_CREATE));

	atomic_fetch_add(&crowd->n_ready, 1);
	bench_sleep_until(&crowd->may_go, 1);
	while (bench_now_ns() < crowd->until_ns) {
		struct ipc_limiter_grant grant;

		if (ipc_limiter_acquire_wait(mine, 1, &grant, NULL) < 0 ||
		    ipc_limiter_release(mine, &grant, false) < 0)
			bench_fail("acquire_wait", IPC_EPROTO);
		atomic_fetch_add(&crowd->n_grants, 1);
	}
	(void)ipc_limiter_close(mine);
}

static void bench_crowd(void)
{
	struct crowd *crowd = bench_shared(sizeof(*crowd));
	pid_t pids[N_PROCESSES];
	char workload[64];

	for (int i = 0; i < N_PROCESSES; ++i)
		pids[i] = bench_spawn(acquire_often, crowd);
	bench_sleep_until(&crowd->n_ready, N_PROCESSES);
	crowd->until_ns = bench_now_ns() + UINT64_C(200000000);
	atomic_store(&crowd->may_go, 1);
	usleep(250000);
	for (int i = 0; i < N_PROCESSES; ++i)
		bench_reap(pids[i]);

	snprintf(workload, sizeof(workload), "limiter: %d processes, one permit: a grant",
		 N_PROCESSES);
	bench_figure("P11", workload, 2e8 / (double)atomic_load(&crowd->n_grants), "ns");
	munmap(crowd, sizeof(*crowd));
}

void bench_limiter(void)
{
	bench_alone();
	bench_crowd();
}
