/* SPDX-License-Identifier: MIT */
/*
 * session, inbox: P1 to P4 (round trips and real sleeps), P5 to P7 (streams of 64 B to 1 MiB).
 */
#include "bench/ends.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { POLL_ROUNDS = 20000, TRIP_ROUNDS = 2000, WAKE_ROUNDS = 60, LAPS_OF_WARM_UP = 2 };

#define STREAM_NS UINT64_C(30000000)

/* What a row is about; `arg` of its functions. */
struct row {
	bool is_inbox;
	bool waits;
	int cpu;     /* of the other end */
	size_t size; /* of a message */
};

/* Shared with the other process. */
struct play {
	struct row row;
	_Alignas(64) _Atomic uint32_t ready;
	_Atomic uint64_t stamp, sum;
};

static struct play *play_new(const struct row *row)
{
	struct play *play = bench_shared(sizeof(*play));

	play->row = *row;
	return play;
}

/* ---- round trips ---- */

static void trip_echo(void *arg)
{
	struct play *play = arg;
	uint64_t value[BENCH_PAYLOAD / 8];
	struct bench_ends ends;

	bench_ends_connect(&ends, play->row.is_inbox, BENCH_PAYLOAD);
	bench_pin(play->row.cpu);
	atomic_store(&play->ready, 1);
	for (;;) {
		bench_ends_receive(&ends, value, sizeof(value), play->row.waits);
		bench_ends_send(&ends, value, sizeof(value), play->row.waits);
	}
}

static double trip_ns(void *arg)
{
	const struct row *row = arg;
	int n_rounds = row->waits ? TRIP_ROUNDS : POLL_ROUNDS;
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, began;
	struct play *play = play_new(row);
	struct bench_ends ends;
	pid_t pid;

	bench_ends_open(&ends, row->is_inbox, BENCH_PAYLOAD);
	pid = bench_spawn(trip_echo, play);
	bench_ends_join(&ends);
	bench_pin(0);
	bench_sleep_until(&play->ready, 1);
	began = bench_now_ns();
	for (int i = 0; i < n_rounds; ++i) {
		bench_ends_send(&ends, value, sizeof(value), row->waits);
		bench_ends_receive(&ends, value, sizeof(value), row->waits);
	}
	began = bench_now_ns() - began;
	bench_reap(pid);
	bench_ends_close(&ends);
	munmap(play, sizeof(*play));
	return (double)began / n_rounds;
}

static double trip_polled_ns(void *arg)
{
	struct row row = *(struct row *)arg;

	row.waits = false;
	return trip_ns(&row);
}

/* ---- real sleeps: from just before the send to the sleeper's return ---- */

static void sleeper(void *arg)
{
	struct play *play = arg;
	uint64_t value[BENCH_PAYLOAD / 8];
	struct bench_ends ends;

	bench_ends_connect(&ends, play->row.is_inbox, BENCH_PAYLOAD);
	bench_pin(play->row.cpu);
	atomic_store(&play->ready, 1);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		bench_ends_receive(&ends, value, sizeof(value), true);
		atomic_fetch_add(&play->sum, bench_now_ns() - atomic_load(&play->stamp));
		atomic_store(&play->ready, i + 1);
	}
	for (;;)
		pause();
}

static double wake_ns(void *arg)
{
	const struct row *row = arg;
	uint64_t value[BENCH_PAYLOAD / 8] = {1};
	struct play *play = play_new(row);
	struct bench_ends ends;
	double latency;
	pid_t pid;

	bench_ends_open(&ends, row->is_inbox, BENCH_PAYLOAD);
	pid = bench_spawn(sleeper, play);
	bench_ends_join(&ends);
	bench_sleep_until(&play->ready, 1);
	bench_pin(0);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		usleep(300);
		atomic_store(&play->stamp, bench_now_ns());
		bench_ends_send(&ends, value, sizeof(value), false);
		bench_sleep_until(&play->ready, i + 1);
	}
	latency = (double)atomic_load(&play->sum) / WAKE_ROUNDS;
	bench_reap(pid);
	bench_ends_close(&ends);
	munmap(play, sizeof(*play));
	return latency;
}

/* ---- streams, in place at both ends ---- */

static void produce(void *arg)
{
	struct play *play = arg;
	struct bench_ends ends;

	bench_ends_connect(&ends, play->row.is_inbox, play->row.size);
	bench_pin(0);
	atomic_store(&play->ready, 1);
	for (;;) {
		void *data = bench_ends_claim(&ends, play->row.size, play->row.waits);

		if (data) {
			bench_fill(data, play->row.size);
			bench_ends_commit(&ends, data, play->row.size);
		} else {
			bench_pause();
		}
	}
}

static double stream_ns(void *arg)
{
	const struct row *row = arg;
	struct play *play = play_new(row);
	uint64_t n = 0, began, now;
	struct bench_ends ends;
	pid_t pid;

	bench_ends_open(&ends, row->is_inbox, row->size);
	pid = bench_spawn(produce, play);
	bench_ends_join(&ends);
	bench_pin(1);
	bench_sleep_until(&play->ready, 1);

	/* The first lap has a page fault in each page, at both ends. */
	while (n < LAPS_OF_WARM_UP * bench_ends_lap(&ends))
		n += bench_ends_drain(&ends, row->waits, bench_sum);
	n = 0;
	began = bench_now_ns();
	do {
		n += bench_ends_drain(&ends, row->waits, bench_sum);
		now = bench_now_ns();
	} while (now - began < STREAM_NS || n == 0);
	bench_reap(pid);
	bench_ends_close(&ends);
	munmap(play, sizeof(*play));
	return (double)(now - began) / (double)n;
}

/* ---- rows ---- */

static double limit_ring(void *arg)
{
	return limit_ring_in_place_ns(((const struct row *)arg)->size);
}

static double limit_reading(void *arg)
{
	return limit_read_ns(((const struct row *)arg)->size);
}

static void compare(const char *row, const char *kind, const char *workload, bench_fn ours,
		    const char *limit_name, bench_fn limit, struct row arg, bool use_best,
		    double goal)
{
	char text[64];

	snprintf(text, sizeof(text), "%s, %s", kind, workload);
	bench_compare(row, text, ours, limit_name, limit, &arg, use_best, goal, "ns");
}

static void bench_trips(bool is_inbox, const char *kind)
{
	struct row row = {.is_inbox = is_inbox, .waits = true, .cpu = 1};

	if (bench_has_two_cpus()) {
		compare("P1", kind, "round trip 64 B, both poll", trip_polled_ns,
			"cache line there and back", limit_line_ns, row, true, 1.5);
		compare("P2", kind, "round trip 64 B, two cores, _wait", trip_ns,
			"the same, both poll", trip_polled_ns, row, false, 2.5);
		compare("P4", kind, "wakes a real sleeper, two cores", wake_ns, "bare futex wake",
			limit_futex_wake_two_cores, row, false, 1.15);
	}

	row.cpu = 0;
	compare("P3", kind, "round trip 64 B, one core", trip_ns, "bare futex round trip",
		limit_futex_one_core, row, false, 0.75);
	compare("P4", kind, "wakes a real sleeper, one core", wake_ns, "bare futex wake",
		limit_futex_wake_one_core, row, false, 1.35);
}

/* A message's time is the inverse of a rate: 0.9 times the rate is 1.11 times the time. */
static void bench_streams(bool is_inbox, const char *kind)
{
	struct row row = {.is_inbox = is_inbox, .size = BENCH_PAYLOAD};

	compare("P5", kind, "stream 64 B, polling", stream_ns, "reference ring", limit_ring, row,
		true, 1 / 0.9);
	row.waits = true;
	compare("P5", kind, "stream 64 B, _wait", stream_ns, "reference ring", limit_ring, row,
		true, 1 / 0.5);

	row.waits = false;
	row.size = 1024;
	compare("P6", kind, "stream 1 KiB", stream_ns, "reference ring", limit_ring, row, true,
		1 / 0.9);
	row.size = 65536;
	compare("P6", kind, "stream 64 KiB", stream_ns, "reference ring", limit_ring, row, true,
		1 / 0.9);
	row.size = 1048576;
	compare("P7", kind, "stream 1 MiB", stream_ns, "reading what the other core wrote",
		limit_reading, row, true, 1 / 0.9);
	compare("P7", kind, "stream 1 MiB, which is written as well", stream_ns, "reference ring",
		limit_ring, row, true, 0);
}

void bench_session(void)
{
	bench_trips(false, "session");
	if (bench_has_two_cpus())
		bench_streams(false, "session");
	bench_pin(-1);
}

void bench_inbox(void)
{
	bench_trips(true, "inbox");
	if (bench_has_two_cpus())
		bench_streams(true, "inbox");
	bench_pin(-1);
}
