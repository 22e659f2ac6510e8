/* SPDX-License-Identifier: MIT */
/*
 * flight: P11 (join, land, leave beside a robust mutex pair), the round trip through a handler, and
 * what many callers of one key save.
 */
#include "bench/bench.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PIECES = 5, PIECE_ROUNDS = 10000, TRIPS = 2000, CALLERS = 8, RUN_US = 200 };

static const char key[] = "bench/some/key/0";

static ipc_flight_table *table;
static uint64_t payload[BENCH_PAYLOAD / 8];

/* ---- alone ---- */

static void land_and_leave(int joined, ipc_flight *flight)
{
	if (joined != 1)
		bench_fail("join", joined < 0 ? joined : IPC_EPROTO);
	if (ipc_flight_land(flight, payload, sizeof(payload)) < 0)
		bench_fail("land", IPC_EINVAL);
	(void)ipc_flight_leave(flight);
}

static void one_key(void)
{
	ipc_flight *flight;
	int r = ipc_flight_join(&flight, table, key, sizeof(key));

	land_and_leave(r, flight);
}

static void one_key_waiting(void)
{
	ipc_flight *flight;
	int r = ipc_flight_join_wait(&flight, table, key, sizeof(key), NULL);

	land_and_leave(r, flight);
}

static void new_key(void)
{
	static uint64_t number[2];
	ipc_flight *flight;
	int r;

	++number[0];
	r = ipc_flight_join(&flight, table, number, sizeof(number));
	land_and_leave(r, flight);
}

static int land_payload(ipc_flight *flight, const void *at, size_t size, void *userdata)
{
	(void)at;
	(void)size;
	(void)userdata;
	return ipc_flight_land(flight, payload, sizeof(payload));
}

static void one_call(void)
{
	struct ipc_flight_result result;
	uint64_t got[BENCH_PAYLOAD / 8];
	int r = ipc_flight_do_wait(table, key, sizeof(key), land_payload, NULL, got, sizeof(got),
				   &result, NULL);

	if (r != 0)
		bench_fail("do_wait", r);
}

struct alone {
	const char *workload;
	void (*once)(void);
	double goal;
};

/* The best of some pieces, each shorter than what the scheduler gives at once. */
static double alone_ns(void *arg)
{
	const struct alone *alone = arg;
	double pieces[PIECES];

	for (int piece = 0; piece < PIECES; ++piece) {
		uint64_t began = bench_now_ns();

		for (int i = 0; i < PIECE_ROUNDS; ++i)
			alone->once();
		pieces[piece] = (double)(bench_now_ns() - began) / PIECE_ROUNDS;
	}
	return bench_best(pieces, PIECES);
}

static void bench_alone(void)
{
	struct alone rows[] = {{"flight: join, land 64 B, leave; one key", one_key, 1.5},
			       {"flight: the same with join_wait", one_key_waiting, 0},
			       {"flight: the same with ever new keys", new_key, 0},
			       {"flight: do_wait, one key", one_call, 0}};
	ipc_client *client = bench_connect();

	table = bench_table(client, "bench/p11f");
	bench_pin(0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i)
		bench_compare("P11", rows[i].workload, alone_ns, "robust mutex pair",
			      limit_robust_pair, &rows[i], true, rows[i].goal, "ns");
	bench_pin(-1);
	(void)ipc_flight_table_close(table);
	(void)ipc_client_unref(client);
}

/* ---- through a handler ---- */

static int handler_cpu;

static void answer(void *arg)
{
	_Atomic uint32_t *is_ready = arg;
	ipc_client *client = bench_connect();
	ipc_handler *handler = bench_handler(client, "bench/ask");
	ipc_flight *flight;

	bench_pin(handler_cpu);
	atomic_store(is_ready, 1);
	while (ipc_handler_take_wait(&flight, handler, NULL) == 0) {
		const void *asked;
		size_t size;

		if (ipc_flight_get_key(flight, &asked, &size) < 0 ||
		    ipc_flight_land(flight, payload, sizeof(payload)) < 0)
			_exit(1);
		(void)ipc_flight_leave(flight);
	}
}

static double ask_all_ns(void)
{
	struct ipc_flight_result result;
	uint64_t number[2] = {0}, began = bench_now_ns();

	for (int i = 0; i < TRIPS; ++i) {
		ipc_flight *flight;
		int r;

		++number[0];
		r = ipc_flight_ask_wait(&flight, table, number, sizeof(number), 0, NULL);
		if (r == 0)
			r = ipc_flight_get_result(flight, &result);
		if (r != 0)
			bench_fail("ask", r);
		(void)ipc_flight_leave(flight);
	}
	return (double)(bench_now_ns() - began) / TRIPS;
}

static double ask_ns(void *arg)
{
	_Atomic uint32_t *is_ready = bench_shared(sizeof(*is_ready));
	ipc_client *client;
	double each;
	pid_t pid;

	(void)arg;
	pid = bench_spawn(answer, (void *)is_ready);
	bench_sleep_until(is_ready, 1);
	client = bench_connect();
	table = bench_table(client, "bench/ask");
	bench_pin(0);
	each = ask_all_ns();
	bench_reap(pid);
	(void)ipc_flight_table_close(table);
	(void)ipc_client_unref(client);
	munmap((void *)is_ready, sizeof(*is_ready));
	return each;
}

static void bench_asking(void)
{
	handler_cpu = 1;
	bench_compare("P11", "flight: ask, take, land, result; two cores", ask_ns,
		      "bare futex round trip", limit_futex_two_cores, NULL, false, 0, "ns");
	handler_cpu = 0;
	bench_compare("P11", "flight: ask, take, land, result; one core", ask_ns,
		      "bare futex round trip", limit_futex_one_core, NULL, false, 0, "ns");
	bench_pin(-1);
}

/* ---- many callers of one key ---- */

struct crowd {
	_Atomic uint32_t n_ready, may_go;
	_Atomic uint64_t n_calls, n_runs;
	uint64_t until_ns;
};

/* As if it fetched something: others run meanwhile. */
static int fetch(ipc_flight *flight, const void *at, size_t size, void *userdata)
{
	struct crowd *crowd = userdata;

	atomic_fetch_add(&crowd->n_runs, 1);
	usleep(RUN_US);
	return land_payload(flight, at, size, NULL);
}

static void call_often(void *arg)
{
	struct crowd *crowd = arg;
	ipc_client *client = bench_connect();
	ipc_flight_table *mine = bench_table(client, "bench/crowd");
	uint64_t got[BENCH_PAYLOAD / 8];
	struct ipc_flight_result result;

	atomic_fetch_add(&crowd->n_ready, 1);
	bench_sleep_until(&crowd->may_go, 1);
	while (bench_now_ns() < crowd->until_ns) {
		int r = ipc_flight_do_wait(mine, key, sizeof(key), fetch, crowd, got, sizeof(got),
					   &result, NULL);

		if (r != 0)
			bench_fail("do_wait", r);
		atomic_fetch_add(&crowd->n_calls, 1);
	}
	(void)ipc_flight_table_close(mine);
}

static void bench_crowd(void)
{
	struct crowd *crowd = bench_shared(sizeof(*crowd));
	pid_t pids[CALLERS];
	char workload[64];

	for (int i = 0; i < CALLERS; ++i)
		pids[i] = bench_spawn(call_often, crowd);
	bench_sleep_until(&crowd->n_ready, CALLERS);
	crowd->until_ns = bench_now_ns() + UINT64_C(200000000);
	atomic_store(&crowd->may_go, 1);
	usleep(250000);
	for (int i = 0; i < CALLERS; ++i)
		bench_reap(pids[i]);

	snprintf(workload, sizeof(workload), "%d processes, one key: calls for one run", CALLERS);
	bench_figure("P11", workload,
		     (double)atomic_load(&crowd->n_calls) / (double)atomic_load(&crowd->n_runs),
		     "");
	munmap(crowd, sizeof(*crowd));
}

void bench_flight(void)
{
	memset(payload, 1, sizeof(payload));
	bench_alone();
	bench_asking();
	bench_crowd();
}
