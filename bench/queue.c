/* SPDX-License-Identifier: MIT */
/*
 * queue: P1 to P4 (round trips and real sleeps), P5 (one producer), P8 (four producers, one of them
 * stopped between claim and commit).
 */
#include "bench/bench.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POLL_ROUNDS = 20000, TRIP_ROUNDS = 2000, WAKE_ROUNDS = 60, BATCH = 32, WARM_UP_US = 2000 };

#define STREAM_NS UINT64_C(30000000)

#define OPTIONS                                                                                    \
	IPC_QUEUE_OPTIONS(.flags = IPC_CREATE | IPC_STAY, .priorities = 2, .items_max = 1024,      \
			  .item_size_max = BENCH_PAYLOAD)

static void must(const char *what, int result)
{
	if (result < 0)
		bench_fail(what, result);
}

ipc_queue_producer *bench_queue_producer(ipc_client *client, const char *name)
{
	ipc_queue_producer *producer;

	must(name, ipc_queue_producer_open_wait(&producer, client, name, OPTIONS, NULL));
	return producer;
}

ipc_queue_consumer *bench_queue_consumer(ipc_client *client, const char *name)
{
	ipc_queue_consumer *consumer;

	must(name, ipc_queue_consumer_open_wait(&consumer, client, name, OPTIONS, NULL));
	return consumer;
}

/* ---- round trips ---- */

struct ends {
	ipc_client *client;
	ipc_queue_producer *out;
	ipc_queue_consumer *in;
};

struct trip {
	int cpu;
	bool is_polled;
	_Alignas(64) _Atomic uint32_t ready;
	_Atomic uint64_t stamp, sum;
};

static void ends_open(struct ends *ends, const char *out, const char *in)
{
	ends->client = bench_connect();
	ends->in = bench_queue_consumer(ends->client, in);
	ends->out = bench_queue_producer(ends->client, out);
}

static void ends_close(struct ends *ends)
{
	(void)ipc_queue_producer_close(ends->out);
	(void)ipc_queue_consumer_close(ends->in);
	(void)ipc_client_unref(ends->client);
}

static void send_one(struct ends *ends, const void *value)
{
	must("push", ipc_queue_push(ends->out, 0, value, BENCH_PAYLOAD, IPC_FULL_FAIL));
}

static void receive_one(struct ends *ends, bool is_polled, void *value)
{
	struct ipc_queue_item item;
	int r;

	do
		r = is_polled ? ipc_queue_take(ends->in, &item)
			      : ipc_queue_take_wait(ends->in, &item, NULL);
	while (r == IPC_EAGAIN);
	must("take", r);
	memcpy(value, item.data, BENCH_PAYLOAD);
	must("ack", ipc_queue_ack(ends->in, &item));
}

static void trip_echo(void *arg)
{
	struct trip *trip = arg;
	uint64_t value[BENCH_PAYLOAD / 8];
	struct ends ends;

	ends_open(&ends, "bench/queue/pong", "bench/queue/ping");
	bench_pin(trip->cpu);
	atomic_store(&trip->ready, 1);
	for (;;) {
		receive_one(&ends, trip->is_polled, value);
		send_one(&ends, value);
	}
}

static double trip_ns(int cpu, bool is_polled, int n_rounds)
{
	struct trip *trip = bench_shared(sizeof(*trip));
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, began;
	struct ends ends;
	pid_t pid;

	trip->cpu = cpu;
	trip->is_polled = is_polled;
	ends_open(&ends, "bench/queue/ping", "bench/queue/pong");
	pid = bench_spawn(trip_echo, trip);
	bench_pin(0);
	bench_sleep_until(&trip->ready, 1);
	began = bench_now_ns();
	for (int i = 0; i < n_rounds; ++i) {
		send_one(&ends, value);
		receive_one(&ends, is_polled, value);
	}
	began = bench_now_ns() - began;
	bench_reap(pid);
	ends_close(&ends);
	munmap(trip, sizeof(*trip));
	return (double)began / n_rounds;
}

static double polled_ns(void *arg)
{
	(void)arg;
	return trip_ns(1, true, POLL_ROUNDS);
}

static double waited_ns(void *arg)
{
	return trip_ns(*(int *)arg, false, TRIP_ROUNDS);
}

/* ---- real sleeps: from just before the push to the sleeper's return ---- */

static void sleeper(void *arg)
{
	struct trip *trip = arg;
	ipc_client *client = bench_connect();
	ipc_queue_consumer *in = bench_queue_consumer(client, "bench/queue/wake");
	struct ipc_queue_item item;

	bench_pin(trip->cpu);
	atomic_store(&trip->ready, 1);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		must("take_wait", ipc_queue_take_wait(in, &item, NULL));
		atomic_fetch_add(&trip->sum, bench_now_ns() - atomic_load(&trip->stamp));
		must("ack", ipc_queue_ack(in, &item));
		atomic_store(&trip->ready, i + 1);
	}
	for (;;)
		pause();
}

static double wake_ns(void *arg)
{
	struct trip *trip = bench_shared(sizeof(*trip));
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	ipc_client *client = bench_connect();
	ipc_queue_producer *out;
	double latency;
	pid_t pid;

	trip->cpu = *(int *)arg;
	pid = bench_spawn(sleeper, trip);
	bench_sleep_until(&trip->ready, 1);
	out = bench_queue_producer(client, "bench/queue/wake");
	bench_pin(0);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		usleep(300);
		atomic_store(&trip->stamp, bench_now_ns());
		must("push", ipc_queue_push(out, 0, value, sizeof(value), IPC_FULL_FAIL));
		bench_sleep_until(&trip->ready, i + 1);
	}
	latency = (double)atomic_load(&trip->sum) / WAKE_ROUNDS;
	bench_reap(pid);
	(void)ipc_queue_producer_close(out);
	(void)ipc_client_unref(client);
	munmap(trip, sizeof(*trip));
	return latency;
}

/* ---- streams ---- */

struct stream {
	bool waits;  /* both ends sleep rather than poll */
	bool claims; /* in place */
	bool stops;  /* one producer more, stopped between claim and commit */
	int n_producers;
	_Atomic uint32_t n_ready;
};

static void produce_one(ipc_queue_producer *out, const struct stream *stream, unsigned priority,
			const void *value)
{
	void *data;
	int r;

	if (!stream->claims) {
		r = stream->waits
			    ? ipc_queue_push_wait(out, priority, value, BENCH_PAYLOAD, NULL)
			    : ipc_queue_push(out, priority, value, BENCH_PAYLOAD, IPC_FULL_FAIL);
	} else {
		r = stream->waits ? ipc_queue_claim_wait(out, priority, BENCH_PAYLOAD, &data, NULL)
				  : ipc_queue_claim(out, priority, BENCH_PAYLOAD, &data);
		if (r == 0) {
			memcpy(data, value, BENCH_PAYLOAD);
			r = ipc_queue_commit(out, data, BENCH_PAYLOAD);
		}
	}

	if (r == IPC_EAGAIN)
		sched_yield();
	else if (r < 0)
		_exit(1);
}

static void produce(void *arg)
{
	struct stream *stream = arg;
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	ipc_client *client = bench_connect();
	ipc_queue_producer *out = bench_queue_producer(client, "bench/queue/stream");

	bench_pin(0);
	atomic_fetch_add(&stream->n_ready, 1);
	for (unsigned i = 0;; ++i)
		produce_one(out, stream, i % 8 != 0, value);
}

static void claim_and_stop(void *arg)
{
	struct stream *stream = arg;
	ipc_client *client = bench_connect();
	ipc_queue_producer *out = bench_queue_producer(client, "bench/queue/stream");
	void *data;

	must("claim", ipc_queue_claim(out, 1, BENCH_PAYLOAD, &data));
	atomic_fetch_add(&stream->n_ready, 1);
	raise(SIGSTOP);
	_exit(1);
}

/* How many were taken, copied and acknowledged. */
static int consume(ipc_queue_consumer *in, const struct stream *stream)
{
	struct ipc_queue_item items[BATCH];
	uint64_t value[BENCH_PAYLOAD / 8];
	int n;

	n = stream->waits ? ipc_queue_take_many_wait(in, items, BATCH, NULL)
			  : ipc_queue_take_many(in, items, BATCH);
	if (n == IPC_EAGAIN)
		return 0;
	must("take_many", n);
	for (int i = 0; i < n; ++i) {
		memcpy(value, items[i].data, BENCH_PAYLOAD);
		__asm__ __volatile__("" : : "r"(value) : "memory");
	}
	must("ack_many", ipc_queue_ack_many(in, items, (unsigned)n));
	return n;
}

static double stream_ns(bool waits, bool claims, bool stops, int n_producers)
{
	struct stream *stream = bench_shared(sizeof(*stream));
	ipc_client *client = bench_connect();
	ipc_queue_consumer *in = bench_queue_consumer(client, "bench/queue/stream");
	uint64_t n = 0, began, now;
	pid_t pids[9];
	int n_pids = 0;

	stream->waits = waits;
	stream->claims = claims;
	if (stops) {
		/* Before the others fill the queue. */
		pids[n_pids++] = bench_spawn(claim_and_stop, stream);
		bench_sleep_until(&stream->n_ready, 1);
	}
	for (int i = 0; i < n_producers; ++i)
		pids[n_pids++] = bench_spawn(produce, stream);
	bench_pin(1);
	bench_sleep_until(&stream->n_ready, (uint32_t)n_pids);
	usleep(WARM_UP_US);
	began = bench_now_ns();
	do {
		n += (uint64_t)consume(in, stream);
		now = bench_now_ns();
	} while (now - began < STREAM_NS);
	for (int i = 0; i < n_pids; ++i)
		bench_reap(pids[i]);
	(void)ipc_queue_consumer_close(in);
	(void)ipc_client_unref(client);
	munmap(stream, sizeof(*stream));
	return (double)(now - began) / (double)n;
}

static double alone_polled_ns(void *arg)
{
	(void)arg;
	return stream_ns(false, true, false, 1);
}

static double alone_waited_ns(void *arg)
{
	(void)arg;
	return stream_ns(true, true, false, 1);
}

static double many_ns(void *arg)
{
	(void)arg;
	return stream_ns(false, false, false, BENCH_PRODUCERS);
}

static double many_and_one_stopped_ns(void *arg)
{
	(void)arg;
	return stream_ns(false, false, true, BENCH_PRODUCERS);
}

void bench_queue(void)
{
	int zero = 0, one = 1;

	if (bench_has_two_cpus()) {
		bench_compare("P1", "queue round trip 64 B, both poll", polled_ns,
			      "cache line there and back", limit_line_ns, NULL, true, 1.5, "ns");
		bench_compare("P2", "queue round trip 64 B, two cores, _wait", waited_ns,
			      "the same, both poll", polled_ns, &one, false, 2.5, "ns");
	}
	bench_compare("P3", "queue round trip 64 B, one core", waited_ns, "bare futex round trip",
		      limit_futex_one_core, &zero, false, 0.75, "ns");
	bench_compare("P4", "queue wakes a real sleeper, two cores", wake_ns, "bare futex wake",
		      limit_futex_wake_two_cores, &one, false, 1.15, "ns");
	bench_compare("P4", "queue wakes a real sleeper, one core", wake_ns, "bare futex wake",
		      limit_futex_wake_one_core, &zero, false, 1.35, "ns");
	if (!bench_has_two_cpus())
		return;

	/* An item's time is the inverse of a rate: 0.9 times the rate is 1.11 times the time. */
	bench_compare("P5", "queue, one producer, in place, polling", alone_polled_ns,
		      "a ring for one producer", limit_ring_alone_ns, NULL, true, 1 / 0.9, "ns");
	bench_compare("P5", "the same through _wait", alone_waited_ns, "a ring for one producer",
		      limit_ring_alone_ns, NULL, true, 1 / 0.5, "ns");
	bench_compare("P8", "queue, four producers, one consumer", many_ns, "a ring without leases",
		      limit_ring_shared_ns, NULL, false, 1 / 0.6, "ns");
	bench_compare("P8", "the same beside a stopped claim", many_and_one_stopped_ns,
		      "without it", many_ns, NULL, false, 1.05, "ns");
	bench_pin(-1);
}
