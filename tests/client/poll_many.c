/* SPDX-License-Identifier: MIT */
/*
 * The poll set with very many handles, and with threads that close and leave them meanwhile.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/client/poll_scene.h"

TestSuite(poll_many, .init = fixture_setup, .fini = fixture_teardown, .timeout = 120);

/* ---- 10,000 ---- */

#define N_HANDLES  10000
#define N_CHANNELS 200
#define N_WAKES    200

static ipc_watch_consumer *handles[N_HANDLES];
static ipc_watch_producer *producers[N_CHANNELS];

static void open_many(void)
{
	for (unsigned i = 0; i < N_CHANNELS; ++i) {
		char name[16];

		(void)snprintf(name, sizeof(name), "many/%u", i);
		producers[i] = producer_new(name);
		for (unsigned j = 0; j < N_HANDLES / N_CHANNELS; ++j) {
			ipc_watch_consumer **handle = &handles[i * (N_HANDLES / N_CHANNELS) + j];

			cr_assert_eq(consume(handle, name, 0), 0);
			add(*handle, READABLE);
		}
	}
}

static void close_many(void)
{
	for (unsigned i = 0; i < N_HANDLES; ++i)
		ipc_watch_consumer_close(handles[i]);
	for (unsigned i = 0; i < N_CHANNELS; ++i)
		ipc_watch_producer_close(producers[i]);
}

/* Until nothing is ready; how many were. */
static unsigned take_all(void)
{
	void *given = NULL;
	unsigned n = 0;

	while (next_of(&given) == READABLE) {
		read_it(given);
		++n;
	}
	return n;
}

/* Of this thread, whatever else runs. */
static uint64_t processor_ns(void)
{
	struct timespec now;

	cr_assert_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* M-30: one descriptor for all of them; a wake costs a look through the set, once, however many are
 * ready */
Test(poll_many, ten_thousand_handles_are_one_set)
{
	uint64_t began, one_ns, all_ns;

	open_many();
	until_quiet();

	/* The first ring of each producer goes through the broker, and makes look at everything. */
	for (unsigned i = 0; i < N_CHANNELS; ++i) {
		publish(producers[i]);
		(void)take_all();
	}
	until_quiet();
	began = clock_now_ns();
	for (unsigned i = 0; i < N_WAKES; ++i) {
		unsigned n = 0;

		publish(producers[i % N_CHANNELS]);
		while (n == 0) {
			until_readable();
			n = take_all();
		}
		cr_assert_eq(n, N_HANDLES / N_CHANNELS);
	}
	one_ns = (clock_now_ns() - began) / N_WAKES;

	for (unsigned i = 0; i < N_CHANNELS; ++i)
		publish(producers[i]);
	began = processor_ns();
	cr_assert_eq(take_all(), N_HANDLES);
	all_ns = processor_ns() - began;

	cr_log_info("a wake for %u of %u handles: %lu ns; for all: %lu ns", N_HANDLES / N_CHANNELS,
		    N_HANDLES, one_ns, all_ns);

	/* A look through the set for each of them would be several times that. */
	cr_assert_lt(all_ns / N_HANDLES, 10000, "%lu ns", all_ns);
	close_many();
}

/* ---- threads ---- */

#define N_ROUNDS 300
#define N_OPEN   8

struct racing {
	_Atomic uint32_t is_done;
	_Atomic uint32_t n_given;
};

/* Reads what is given; a handle may be closed by the other thread as soon as it was given, so it is
 * not touched. */
static void *next_in_thread(void *arg)
{
	struct racing *racing = arg;
	struct ipc_poll_event event;

	while (!atomic_load(&racing->is_done)) {
		int r = ipc_poll_next(fixture_client, &event);

		if (r == 0)
			atomic_fetch_add(&racing->n_given, 1);
		else if (r != IPC_EAGAIN)
			return (void *)(intptr_t)r;
	}
	return NULL;
}

/* M-35, M-42, M-44 */
Test(poll_many, handles_are_closed_while_another_thread_asks)
{
	ipc_watch_producer *producer = producer_new("a");
	struct racing racing = {.is_done = 0};
	pthread_t threads[2];
	void *result = NULL;

	publish(producer);
	for (unsigned i = 0; i < 2; ++i)
		cr_assert_eq(pthread_create(&threads[i], NULL, next_in_thread, &racing), 0);

	for (unsigned round = 0; round < N_ROUNDS; ++round) {
		ipc_watch_consumer *consumers[N_OPEN];
		uint32_t before;

		for (unsigned i = 0; i < N_OPEN; ++i) {
			consumers[i] = consumer_new("a", 0);
			add(consumers[i], READABLE);
		}
		before = atomic_load(&racing.n_given);
		while (atomic_load(&racing.n_given) - before < N_OPEN)
			;
		for (unsigned i = 0; i < N_OPEN; ++i)
			ipc_watch_consumer_close(consumers[i]);
	}

	atomic_store(&racing.is_done, 1);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(threads[i], &result), 0);
		cr_assert_null(result);
	}
	ASSERT_NOTHING();
	ipc_watch_producer_close(producer);
}

/* M-35, M-44: the same for parts of a table, whose places are used again */
Test(poll_many, parts_are_left_while_another_thread_asks)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_flight_table *table = NULL;
	struct racing racing = {.is_done = 0};
	pthread_t thread;
	void *result = NULL;

	cr_assert_eq(ipc_flight_table_open_wait(&table, fixture_client, "f",
						IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE),
						&deadline),
		     0);
	cr_assert_eq(pthread_create(&thread, NULL, next_in_thread, &racing), 0);
	for (unsigned round = 0; round < 20 * N_ROUNDS; ++round) {
		ipc_flight *one = NULL, *other = NULL;

		cr_assert_geq(ipc_flight_join(&one, table, "one", 3), 0);
		cr_assert_geq(ipc_flight_join(&other, table, "other", 5), 0);
		add(other, READABLE);
		add(one, READABLE);
		ipc_flight_leave(one);
		ipc_flight_leave(other);
	}
	atomic_store(&racing.is_done, 1);
	cr_assert_eq(pthread_join(thread, &result), 0);
	cr_assert_null(result);

	ASSERT_NOTHING();
	ipc_flight_table_close(table);
}
