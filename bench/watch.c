/* SPDX-License-Identifier: MIT */
/*
 * watch: P9 (publish and read beside a bare sequence lock), P3 and P4 (round trips and real sleeps
 * on one core and on two).
 */
#include "bench/bench.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOCAL_ROUNDS = 200000, TRIP_ROUNDS = 2000, WAKE_ROUNDS = 60 };

static ipc_client *client;
static ipc_watch_producer *producer;
static ipc_watch_consumer *consumer;

static void must(const char *what, int result)
{
	if (result < 0)
		bench_fail(what, result);
}

static double publish_ns(void *arg)
{
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, began = bench_now_ns();

	(void)arg;
	for (int i = 0; i < LOCAL_ROUNDS; ++i) {
		value[0] = (uint64_t)i;
		must("publish", ipc_watch_publish(producer, value, sizeof(value)));
	}
	return (double)(bench_now_ns() - began) / LOCAL_ROUNDS;
}

static void poll_value(void *arg)
{
	ipc_client *other = bench_connect();
	ipc_watch_consumer *reader = bench_consumer(other, "bench/p9");
	uint64_t value[BENCH_PAYLOAD / 8];
	_Atomic uint32_t *ready = arg;

	bench_pin(1);
	atomic_store(ready, 1);
	for (;;)
		(void)!ipc_watch_read(reader, value, sizeof(value), NULL, NULL);
}

static double publish_polled_ns(void *arg)
{
	_Atomic uint32_t *ready = bench_shared(sizeof(*ready));
	pid_t pid = bench_spawn(poll_value, ready);
	double each;

	bench_sleep_until(ready, 1);
	bench_pin(0);
	usleep(2000);
	each = publish_ns(arg);
	bench_reap(pid);
	munmap(ready, sizeof(*ready));
	return each;
}

static double read_ns(void *arg)
{
	uint64_t value[BENCH_PAYLOAD / 8], began = bench_now_ns();

	(void)arg;
	for (int i = 0; i < LOCAL_ROUNDS; ++i)
		must("read", ipc_watch_read(consumer, value, sizeof(value), NULL, NULL));
	return (double)(bench_now_ns() - began) / LOCAL_ROUNDS;
}

/* Other processes hold the readers: open, awake or not, they are not asleep in a wait. */
struct readers {
	int n;
	_Atomic uint32_t ready;
};

static void hold_readers(void *arg)
{
	struct readers *readers = arg;
	ipc_client *other = bench_connect();

	for (int i = 0; i < readers->n; ++i)
		(void)bench_consumer(other, "bench/p9");
	atomic_store(&readers->ready, 1);
	for (;;)
		pause();
}

static void bench_p9(void)
{
	static const int counts[] = {1, 8, 64};
	char workload[64];

	client = bench_connect();
	producer = bench_producer(client, "bench/p9");
	consumer = bench_consumer(client, "bench/p9");

	for (int i = 0; i < 3; ++i) {
		struct readers *readers = bench_shared(sizeof(*readers));
		pid_t pid;

		readers->n = counts[i];
		pid = bench_spawn(hold_readers, readers);
		bench_sleep_until(&readers->ready, 1);
		bench_pin(0);
		snprintf(workload, sizeof(workload), "watch publish 64 B, %d readers, none asleep",
			 counts[i]);
		bench_compare("P9", workload, publish_ns, "bare seqlock", limit_seqlock_publish,
			      NULL, true, 1.1, "ns");
		bench_reap(pid);
		munmap(readers, sizeof(*readers));
	}
	bench_compare("P9", "watch publish 64 B, one reader polling", publish_polled_ns,
		      "seqlock, one reader polling", limit_seqlock_publish_polled, NULL, true, 1.1,
		      "ns");
	bench_compare("P9", "watch read 64 B", read_ns, "bare seqlock", limit_seqlock_read, NULL,
		      true, 1.2, "ns");

	(void)ipc_watch_consumer_close(consumer);
	(void)ipc_watch_producer_close(producer);
	(void)ipc_client_unref(client);
}

/* ---- round trips through read_wait ---- */

struct trip {
	int cpu;
	_Alignas(64) _Atomic uint32_t ready;
	_Atomic uint64_t stamp, sum;
};

static void trip_echo(void *arg)
{
	struct trip *trip = arg;
	ipc_client *c = bench_connect();
	ipc_watch_producer *out = bench_producer(c, "bench/pong");
	ipc_watch_consumer *in = bench_consumer(c, "bench/ping");
	uint64_t value[BENCH_PAYLOAD / 8], version = 0;

	bench_pin(trip->cpu);
	atomic_store(&trip->ready, 1);
	for (;;) {
		must("read_wait",
		     ipc_watch_read_wait(in, value, sizeof(value), NULL, &version, NULL));
		must("publish", ipc_watch_publish(out, value, sizeof(value)));
	}
}

static double trip_ns(void *arg)
{
	struct trip *trip = bench_shared(sizeof(*trip));
	ipc_client *c = bench_connect();
	ipc_watch_producer *out = bench_producer(c, "bench/ping");
	ipc_watch_consumer *in = bench_consumer(c, "bench/pong");
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, version = 0, began;
	pid_t pid;

	trip->cpu = *(int *)arg;
	bench_pin(0);
	pid = bench_spawn(trip_echo, trip);
	bench_sleep_until(&trip->ready, 1);
	began = bench_now_ns();
	for (int i = 0; i < TRIP_ROUNDS; ++i) {
		value[0] = (uint64_t)i;
		must("publish", ipc_watch_publish(out, value, sizeof(value)));
		must("read_wait",
		     ipc_watch_read_wait(in, value, sizeof(value), NULL, &version, NULL));
	}
	began = bench_now_ns() - began;
	bench_reap(pid);
	(void)ipc_watch_producer_close(out);
	(void)ipc_watch_consumer_close(in);
	(void)ipc_client_unref(c);
	munmap(trip, sizeof(*trip));
	return (double)began / TRIP_ROUNDS;
}

/* ---- real sleeps: from just before the publish to the sleeper's return ---- */

static void sleep_reader(void *arg)
{
	struct trip *trip = arg;
	ipc_client *c = bench_connect();
	ipc_watch_consumer *in = bench_consumer(c, "bench/ping");
	uint64_t value[BENCH_PAYLOAD / 8], version = 0;

	bench_pin(trip->cpu);
	atomic_store(&trip->ready, 1);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		must("read_wait",
		     ipc_watch_read_wait(in, value, sizeof(value), NULL, &version, NULL));
		atomic_fetch_add(&trip->sum, bench_now_ns() - atomic_load(&trip->stamp));
		atomic_store(&trip->ready, i + 1);
	}
	for (;;)
		pause();
}

static double wake_ns(void *arg)
{
	struct trip *trip = bench_shared(sizeof(*trip));
	ipc_client *c = bench_connect();
	ipc_watch_producer *out = bench_producer(c, "bench/ping");
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	double latency;
	pid_t pid;

	trip->cpu = *(int *)arg;
	bench_pin(0);
	pid = bench_spawn(sleep_reader, trip);
	bench_sleep_until(&trip->ready, 1);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		usleep(300);
		atomic_store(&trip->stamp, bench_now_ns());
		must("publish", ipc_watch_publish(out, value, sizeof(value)));
		bench_sleep_until(&trip->ready, i + 1);
	}
	latency = (double)atomic_load(&trip->sum) / WAKE_ROUNDS;
	bench_reap(pid);
	(void)ipc_watch_producer_close(out);
	(void)ipc_client_unref(c);
	munmap(trip, sizeof(*trip));
	return latency;
}

void bench_watch(void)
{
	int zero = 0, one = 1;

	bench_p9();
	bench_compare("P3", "watch round trip 64 B, one core", trip_ns, "bare futex round trip",
		      limit_futex_one_core, &zero, false, 0.75, "ns");
	bench_compare("P2", "watch round trip 64 B, two cores", trip_ns, "bare futex round trip",
		      limit_futex_two_cores, &one, false, 0, "ns");
	bench_compare("P4", "watch wakes a real sleeper, two cores", wake_ns, "bare futex wake",
		      limit_futex_wake_two_cores, &one, false, 1.15, "ns");
	bench_compare("P4", "watch wakes a real sleeper, one core", wake_ns, "bare futex wake",
		      limit_futex_wake_one_core, &zero, false, 1.35, "ns");
	bench_pin(-1);
}
