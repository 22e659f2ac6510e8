/* SPDX-License-Identifier: MIT */
/*
 * Expensive work that many want at the same time: eight workers fill one cache, with flights and
 * without; then a leader is killed in the middle of its work.
 */
#include "examples/demo/demo.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_WORKERS = 8, N_FOLLOWERS = N_WORKERS - 1, N_KEYS = 16, SOURCE_MS = 5, ROUNDS = 1000000 };

static const char channel[] = "demo/flight";
static const char page_key[] = "page";

/* The cache, in memory that all workers share; it starts anew for each way to fill it. */
static struct cache {
	_Atomic uint64_t values[N_KEYS]; /* 0: not there */
	_Atomic uint32_t n_runs;
} * cache;

static uint64_t right_values[N_KEYS];
static bool in_flights; /* of the workers that are started next */

/* ---- the fill ---- */

static uint64_t compute(uint32_t key)
{
	uint64_t value = key + 1;

	for (int i = 0; i < ROUNDS; ++i) {
		value ^= value << 13;
		value ^= value >> 7;
		value ^= value << 17;
	}
	return value; /* never 0 */
}

/* The expensive work: a slow source, and something to compute. */
static uint64_t fill(uint32_t key)
{
	uint64_t value;

	(void)atomic_fetch_add_explicit(&cache->n_runs, 1, memory_order_relaxed);
	pause_ms(SOURCE_MS);
	value = compute(key);
	atomic_store_explicit(&cache->values[key], value, memory_order_relaxed);
	return value;
}

static uint64_t look(uint32_t key)
{
	return atomic_load_explicit(&cache->values[key], memory_order_relaxed);
}

/* Run by one of all who ask for the key at the same time. */
static int fill_and_land(ipc_flight *flight, const void *key, size_t size, void *userdata)
{
	uint32_t number;
	uint64_t value;

	(void)userdata;
	memcpy(&number, key, size);

	/* Looks again: a flight that ended since the caller looked may have filled it. */
	value = look(number);
	if (value == 0)
		value = fill(number);
	return ipc_flight_land(flight, &value, sizeof(value));
}

static uint64_t fill_once(ipc_flight_table *table, uint32_t key)
{
	struct timespec deadline = in_seconds(5);
	struct ipc_flight_result result;
	uint64_t value = 0;
	int r;

	r = ipc_flight_do_wait(table, &key, sizeof(key), fill_and_land, NULL, &value, sizeof(value),
			       &result, &deadline);
	if (r < 0)
		fail("fly", r);
	return r == 0 ? value : 0;
}

/* ---- eight workers ---- */

static ipc_flight_table *open_table(void)
{
	struct timespec deadline = in_seconds(5);
	ipc_client *client = broker_connect();
	ipc_flight_table *table;
	int r;

	r = ipc_flight_table_open_wait(
		&table, client, channel,
		IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .keys_max = 64,
					 .result_size_max = sizeof(struct page)),
		&deadline);
	if (r < 0)
		fail("open table", r);

	/* The handle keeps it. */
	(void)ipc_client_unref(client);
	return table;
}

static void worker(int fd)
{
	ipc_flight_table *table = open_table();
	uint64_t n_right = 0;

	report(fd, 0, 0, 0);
	await_word(fd);
	for (uint32_t key = 0; key < N_KEYS; ++key) {
		uint64_t value = look(key);

		if (value == 0)
			value = in_flights ? fill_once(table, key) : fill(key);
		n_right += value == right_values[key];
	}
	report(fd, 0, n_right, 0);
	await_word(fd);
}

struct run {
	uint32_t n_fills;
	int64_t took_ns;
	bool is_right;
};

static struct run run_workers(bool with_flights)
{
	struct member workers[N_WORKERS];
	struct run run = {.is_right = true};
	int64_t started;

	memset(cache, 0, sizeof(*cache));
	in_flights = with_flights;
	for (int i = 0; i < N_WORKERS; ++i) {
		workers[i] = member_start(worker);
		(void)member_hear(workers[i]);
	}

	started = now_ns();
	for (int i = 0; i < N_WORKERS; ++i)
		member_tell(workers[i]);
	for (int i = 0; i < N_WORKERS; ++i) {
		struct report end = member_hear(workers[i]);

		run.is_right = run.is_right && end.number == N_KEYS;
		if (end.at_ns - started > run.took_ns)
			run.took_ns = end.at_ns - started;
	}

	for (int i = 0; i < N_WORKERS; ++i)
		member_end(workers[i]);
	run.n_fills = atomic_load_explicit(&cache->n_runs, memory_order_relaxed);
	return run;
}

static void play_fills(void)
{
	struct run without, with;

	act("Eight workers miss the same keys of a cache, first without flights, then with them");
	for (uint32_t key = 0; key < N_KEYS; ++key)
		right_values[key] = compute(key);

	without = run_workers(false);
	with = run_workers(true);
	printf("    without flights: %3" PRIu32 " fills of %d keys, %4.0f ms\n", without.n_fills,
	       N_KEYS, (double)without.took_ns / 1e6);
	printf("    with flights:    %3" PRIu32 " fills of %d keys, %4.0f ms: %" PRId64
	       " were saved\n",
	       with.n_fills, N_KEYS, (double)with.took_ns / 1e6,
	       (int64_t)without.n_fills - (int64_t)with.n_fills);
	check(with.n_fills == N_KEYS && without.n_fills > N_KEYS,
	      "each key was filled once, and more often without flights");
	check(with.is_right && without.is_right, "each worker had the right value of each key");
}

/* ---- the leader is killed ---- */

/* Leads, and stops in the middle of the work. */
static void leader(int fd)
{
	ipc_flight_table *table = open_table();
	struct timespec deadline = in_seconds(5);
	uint64_t fence = 0;
	ipc_flight *flight;
	int r;

	r = ipc_flight_join_wait(&flight, table, page_key, sizeof(page_key), &deadline);
	if (r == 1)
		r = ipc_flight_get_fence(flight, &fence);
	report(fd, r, fence, 0);
	for (;;)
		(void)pause();
}

static int do_the_work(ipc_flight *flight)
{
	struct page page;

	page_make(&page, page_key, sizeof(page_key));
	return ipc_flight_land(flight, &page, sizeof(page));
}

/* Reports what it became, and the fence if it leads; then, with the bytes, how the flight ended. */
static void follower(int fd)
{
	ipc_flight_table *table = open_table();
	struct timespec deadline = in_seconds(5);
	struct ipc_flight_result result;
	uint64_t fence = 0;
	ipc_flight *flight;
	int r;

	report(fd, 0, 0, 0);
	await_word(fd);
	r = ipc_flight_join_wait(&flight, table, page_key, sizeof(page_key), &deadline);
	if (r < 0)
		fail("join", r);
	if (r == 1 && ipc_flight_get_fence(flight, &fence) < 0)
		fence = 0;
	report(fd, r, fence, 0);

	r = r == 1 ? do_the_work(flight) : 0;
	if (r == 0)
		r = ipc_flight_get_result(flight, &result);
	if (r < 0)
		fail("finish", r);
	report(fd, page_is_right(&result, page_key, sizeof(page_key)), result.fence, result.epoch);
	await_word(fd);
}

struct promotion {
	int n_leaders;
	uint64_t fence;
	int64_t led_ns, landed_ns; /* after the death; of the last one */
	bool is_one_flight, is_right;
};

static struct promotion hear_followers(const struct member *followers, int64_t killed_at)
{
	struct promotion seen = {.is_one_flight = true, .is_right = true};
	struct report ends[N_FOLLOWERS];

	for (int i = 0; i < N_FOLLOWERS; ++i) {
		struct report became = member_hear(followers[i]);

		ends[i] = member_hear(followers[i]);
		if (ends[i].at_ns - killed_at > seen.landed_ns)
			seen.landed_ns = ends[i].at_ns - killed_at;
		seen.is_right = seen.is_right && ends[i].result == 1;
		if (became.result == 1) {
			++seen.n_leaders;
			seen.fence = became.number;
			seen.led_ns = became.at_ns - killed_at;
		}
	}

	for (int i = 0; i < N_FOLLOWERS; ++i)
		seen.is_one_flight =
			seen.is_one_flight && ends[i].other == 2 && ends[i].number == seen.fence;
	return seen;
}

static void play_death(void)
{
	struct member first, followers[N_FOLLOWERS];
	struct promotion seen;
	struct report led;
	bool all_wait;

	act("The leader of a flight is killed in the middle of its work; seven wait for it");
	first = member_start(leader);
	led = member_hear(first);
	for (int i = 0; i < N_FOLLOWERS; ++i) {
		followers[i] = member_start(follower);
		(void)member_hear(followers[i]);
		member_tell(followers[i]);
	}

	all_wait = waits_are_listed(channel, N_FOLLOWERS);
	seen = hear_followers(followers, member_kill(first));
	(void)close(first.fd);
	for (int i = 0; i < N_FOLLOWERS; ++i)
		member_end(followers[i]);

	printf("    one of them leads after %6.0f us\n", (double)seen.led_ns / 1e3);
	printf("    all have the bytes after %5.0f us\n", (double)seen.landed_ns / 1e3);
	check(led.result == 0 && all_wait, "the broker listed who waited for whom");
	check(seen.n_leaders == 1, "exactly one was promoted");
	check(seen.is_one_flight && seen.fence > led.number,
	      "it is the same flight: its second epoch, with a larger fence");
	check(seen.is_right, "all seven have the right bytes");
}

void act_flights(void)
{
	cache = mmap(NULL, sizeof(*cache), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (cache == MAP_FAILED) {
		perror("demo: mmap");
		exit(1);
	}

	play_fills();
	play_death();
	(void)munmap(cache, sizeof(*cache));
}
