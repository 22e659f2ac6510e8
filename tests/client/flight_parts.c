/* SPDX-License-Identifier: MIT */
/*
 * Parts of flights as handles: threads, cancel, leave and close by others, waits for several,
 * forked children.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "libipc/client/flight.h"
#include "tests/client/flight_scene.h"

TestSuite(flight_parts, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- threads that wait ---- */

struct sleeper {
	pthread_t thread;
	ipc_flight *flight;
	ipc_flight_table *table;
	bool waits_for_any;
	int result;
};

static int wait_for(ipc_flight *flight, unsigned ms, uint32_t *ret_ready)
{
	struct timespec deadline = domain_deadline(ms);
	struct ipc_wait_item item = {.handle = flight, .events = IPC_READY_READABLE};
	int r = ipc_wait_any(&item, 1, &deadline);

	*ret_ready = item.ready;
	return r;
}

static void *sleep_on(void *arg)
{
	struct sleeper *sleeper = arg;
	uint32_t ready;

	if (sleeper->waits_for_any)
		sleeper->result = wait_for(sleeper->flight, WAIT_MS, &ready);
	else if (sleeper->flight)
		sleeper->result = look_in(sleeper->flight, WAIT_MS);
	else
		sleeper->result = join_in(&sleeper->flight, sleeper->table, 1, WAIT_MS);
	return NULL;
}

/* Two that sleep on the same part, in the two ways that there are. */
static void sleepers_start(struct sleeper sleeper[2], ipc_flight *flight)
{
	for (unsigned i = 0; i < 2; ++i) {
		sleeper[i] = (struct sleeper){.flight = flight, .waits_for_any = i == 1};
		cr_assert_eq(pthread_create(&sleeper[i].thread, NULL, sleep_on, &sleeper[i]), 0);
	}
	process_until_asleep(getpid(), 2);
}

static void expect_woken(struct sleeper sleeper[2], int result, int result_of_any)
{
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(sleeper[i].thread, NULL), 0);
		EXPECT(sleeper[i].result, i == 1 ? result_of_any : result);
	}
}

/* A member leads key 1, this process follows. */
static ipc_flight *followed(struct actor *leader, ipc_flight_table *table)
{
	ipc_flight *flight = NULL;

	caller_start(leader);
	ASSERT(order_do(leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(join(&flight, table, 1), 2);
	return flight;
}

/* F-16, M-28: its waits, present and future; it still holds what it holds. */
Test(flight_parts, cancel_ends_waits_and_nothing_else)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct sleeper sleeper[2];
	struct actor leader;
	ipc_flight *flight = followed(&leader, table), *other = NULL;
	uint32_t ready;

	sleepers_start(sleeper, flight);
	EXPECT(ipc_flight_cancel(flight), 0);
	expect_woken(sleeper, IPC_ECANCELED, IPC_ECANCELED);
	EXPECT(look_in(flight, WAIT_MS), IPC_ECANCELED);
	EXPECT(wait_for(flight, WAIT_MS, &ready), IPC_ECANCELED);
	EXPECT(ipc_flight_look(flight), IPC_EAGAIN);
	ASSERT(join(&other, table, 1), 2);
	EXPECT(look_in(other, 10), IPC_ETIMEDOUT);

	ASSERT(order_do(&leader, ORDER_LAND, 1, 5), 0);
	EXPECT(look_in(flight, WAIT_MS), 0);
	EXPECT(result_of(flight), 5);
	ipc_flight_leave(other);
	ipc_flight_leave(flight);

	/* The next part is not cancelled, whichever memory it is. */
	ASSERT(order_do(&leader, ORDER_LEAVE, 1, 0), 0);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	for (unsigned i = 0; i < 20; ++i) {
		ASSERT(join(&flight, table, 1), 2);
		EXPECT(look_in(flight, 1), IPC_ETIMEDOUT);
		ipc_flight_leave(flight);
	}
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

static ipc_flight *cancelled_by_signal;
static volatile sig_atomic_t cancel_said = 1;

static void cancel_on_signal(int number)
{
	(void)number;
	cancel_said = ipc_flight_cancel(cancelled_by_signal);
}

static void *signal_asleep(void *arg)
{
	process_until_asleep(getpid(), 1);
	return (void *)(intptr_t)pthread_kill(*(pthread_t *)arg, SIGUSR1);
}

/* M-28: in a signal handler, of the very thread that waits. */
Test(flight_parts, cancel_in_a_signal_handler_ends_the_wait)
{
	const struct sigaction action = {.sa_handler = cancel_on_signal, .sa_flags = SA_RESTART};
	ipc_flight_table *table = TABLE_NEW(0);
	pthread_t self = pthread_self(), thread;
	struct actor leader;
	ipc_flight *flight = followed(&leader, table);
	void *result;

	cancelled_by_signal = flight;
	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	cr_assert_eq(pthread_create(&thread, NULL, signal_asleep, &self), 0);
	EXPECT(look_in(flight, WAIT_MS), IPC_ECANCELED);
	cr_assert_eq(pthread_join(thread, &result), 0);
	EXPECT((intptr_t)result, 0);
	EXPECT(cancel_said, 0);
	ipc_flight_leave(flight);
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* F-16, M-28 */
Test(flight_parts, cancel_of_the_table_ends_waits_of_its_parts)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct sleeper sleeper[2];
	struct actor leader;
	ipc_flight *flight = followed(&leader, table), *none = NULL;

	sleepers_start(sleeper, flight);
	EXPECT(ipc_flight_table_cancel(table), 0);
	expect_woken(sleeper, IPC_ECANCELED, IPC_ECANCELED);
	EXPECT(join_in(&none, table, 1, WAIT_MS), IPC_ECANCELED);
	EXPECT(join(&none, table, 1), 2);
	ipc_flight_leave(none);
	EXPECT(join_in(&none, table, 2, WAIT_MS), 1);
	ipc_flight_leave(none);
	ipc_flight_leave(flight);
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* F-16, M-44 */
Test(flight_parts, leave_by_another_thread_ends_waits)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct sleeper sleeper[2];
	struct actor leader;
	ipc_flight *flight = followed(&leader, table);

	sleepers_start(sleeper, flight);
	ipc_flight_leave(flight);
	expect_woken(sleeper, IPC_ECANCELED, IPC_ECANCELED);
	EXPECT(order_do(&leader, ORDER_LAND, 1, 5), 0);
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* F-16, M-44: the broker hears of the close when the last of them is out, which is at once. */
Test(flight_parts, close_by_another_thread_ends_waits_and_leaves_the_parts)
{
	ipc_flight_table *table = TABLE_NEW(0), *second = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	struct sleeper sleeper[2], joiner[2];
	ipc_flight *flight, *lead = NULL;
	struct actor leader, follower;

	flight = followed(&leader, table);
	ASSERT(join(&lead, table, 2), 1);
	caller_start(&follower);
	order_begin(&follower, ORDER_JOIN_WAIT, 2, 0);
	sleepers_start(sleeper, flight);
	for (unsigned i = 0; i < 2; ++i) {
		joiner[i] = (struct sleeper){.table = table};
		cr_assert_eq(pthread_create(&joiner[i].thread, NULL, sleep_on, &joiner[i]), 0);
	}
	process_until_asleep(getpid(), 4);

	ipc_flight_table_close(table);
	expect_woken(sleeper, IPC_ECANCELED, IPC_ECANCELED);
	expect_woken(joiner, IPC_ECANCELED, IPC_ECANCELED);
	EXPECT(actor_hear(&follower), 1);
	for (unsigned i = 0; ipc_handler_peers(handler) != 3 && i < WAIT_MS; ++i)
		process_pause();
	EXPECT(ipc_handler_peers(handler), 3);
	EXPECT(order_do(&leader, ORDER_LAND, 1, 5), 0);

	actor_kill(&leader);
	actor_kill(&follower);
	ipc_handler_close(handler);
	ipc_flight_table_close(second);
}

/* ---- waits for several ---- */

/* F-16, M-29, M-34: finished, or you lead. */
Test(flight_parts, flight_is_readable_when_it_is_finished_or_led)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct sleeper sleeper[2];
	struct actor leader, second;
	ipc_flight *flight = followed(&leader, table);
	uint32_t ready = 99;

	EXPECT(wait_for(flight, 5, &ready), IPC_ETIMEDOUT);
	sleepers_start(sleeper, flight);
	ASSERT(order_do(&leader, ORDER_LAND, 1, 5), 0);
	expect_woken(sleeper, 0, 0);
	EXPECT(wait_for(flight, 0, &ready), 0);
	cr_expect_eq(ready, IPC_READY_READABLE);
	ipc_flight_leave(flight);
	actor_kill(&leader);

	flight = followed(&second, table);
	sleepers_start(sleeper, flight);
	actor_kill(&second);
	expect_woken(sleeper, 1, 0);
	EXPECT(wait_for(flight, 0, &ready), 0);
	cr_expect_eq(ready, IPC_READY_READABLE);
	EXPECT(ipc_flight_look(flight), 1);
	ipc_flight_leave(flight);
	ipc_flight_table_close(table);
}

/* M-29, M-34 */
Test(flight_parts, flight_without_a_leader_to_come_is_at_its_end)
{
	ipc_flight_table *table = TABLE_NEW(.flags = IPC_FLIGHT_TABLE_NO_PROMOTE);
	struct sleeper sleeper[2];
	struct actor leader;
	ipc_flight *flight = followed(&leader, table);
	uint32_t ready = 0;

	sleepers_start(sleeper, flight);
	actor_kill(&leader);
	expect_woken(sleeper, IPC_EOWNERDEAD, 0);
	EXPECT(wait_for(flight, 0, &ready), 0);
	cr_expect_eq(ready, IPC_READY_END);
	ipc_flight_leave(flight);
	ipc_flight_table_close(table);
}

static int any_of(struct ipc_wait_item *items, unsigned n, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_wait_any(items, n, &deadline);
}

/* M-29, M-34: handler a key; both sides of the channel; what has no such event is refused. */
Test(flight_parts, handlers_and_tables_are_waited_for_together)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	ipc_flight *flight = NULL, *taken = NULL;
	struct ipc_wait_item items[] = {
		{.handle = NULL, .events = IPC_READY_READABLE},
		{.handle = handler, .events = IPC_READY_READABLE | IPC_READY_PEER_GONE},
		{.handle = table, .events = IPC_READY_PEER_GONE},
	};
	struct ipc_wait_item wrong[] = {
		{.handle = table, .events = IPC_READY_READABLE},
		{.handle = handler, .events = IPC_READY_WRITABLE},
		{.handle = NULL, .events = IPC_READY_PEER_PRESENT},
		{.handle = NULL, .events = 0},
	};

	EXPECT(any_of(items, 3, 5), IPC_ETIMEDOUT);
	ASSERT(ask(&flight, table, 1, 0), 2);
	wrong[2].handle = wrong[3].handle = flight;
	for (unsigned i = 0; i < 4; ++i)
		EXPECT(any_of(&wrong[i], 1, 0), IPC_EINVAL);

	EXPECT(any_of(items, 3, WAIT_MS), 1);
	cr_expect_eq(items[1].ready, IPC_READY_READABLE);
	ASSERT(ipc_handler_take(&taken, handler), 0);
	EXPECT(any_of(items, 3, 5), IPC_ETIMEDOUT);
	ipc_flight_leave(taken);
	ipc_flight_leave(flight);
	ipc_flight_table_close(table);

	EXPECT(any_of(items, 2, WAIT_MS), 1);
	cr_expect_eq(items[1].ready, IPC_READY_PEER_GONE | IPC_READY_END);
	ipc_handler_close(handler);
}

static void *wait_for_keys(void *arg)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_wait_item item = {.handle = arg, .events = IPC_READY_READABLE};

	return (void *)(intptr_t)ipc_wait_any(&item, 1, &deadline);
}

/* M-29: asleep, and woken by the asker. */
Test(flight_parts, key_wakes_a_handler_that_waits_for_several)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler[2] = {handler_new(0), handler_new(0)};
	ipc_flight *flight = NULL;
	pthread_t thread[2];
	void *result;

	for (unsigned i = 0; i < 2; ++i)
		cr_assert_eq(pthread_create(&thread[i], NULL, wait_for_keys, handler[i]), 0);
	process_until_asleep(getpid(), 2);
	ASSERT(ask(&flight, table, 1, 0), 2);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(thread[i], &result), 0);
		EXPECT((intptr_t)result, 0);
		ipc_handler_close(handler[i]);
	}
	ipc_flight_leave(flight);
	ipc_flight_table_close(table);
}

/* ---- many ---- */

/* F-13: more parts than one row of seats, in any order. */
Test(flight_parts, many_are_held_and_left_in_any_order)
{
	enum { N = 600 };
	static ipc_flight *flight[N];
	ipc_flight_table *table = TABLE_NEW(0);
	unsigned order[N];

	srand(1);
	for (unsigned round = 0; round < 3; ++round) {
		for (uint32_t i = 0; i < N; ++i) {
			order[i] = i;
			ASSERT(join(&flight[i], table, i), 1);
		}
		EXPECT(ipc_flight_table_count(table), N);
		EXPECT(table->owner.n_rows, N / SEATS_PER_ROW);
		for (uint32_t i = 0; i < N; ++i) {
			unsigned k = i + (unsigned)rand() % (N - i), chosen = order[k];

			order[k] = order[i];
			ASSERT(key_of(flight[chosen]), chosen);
			ASSERT(land(flight[chosen], chosen), 0);
			ASSERT(result_of(flight[chosen]), chosen);
			flight[chosen] = ipc_flight_leave(flight[chosen]);
		}
		EXPECT(ipc_flight_table_count(table), 0);
	}
	ipc_flight_table_close(table);
}

/* F-16: what a closed table held is free for others, however often. */
Test(flight_parts, closed_tables_leave_no_seats_behind)
{
	ipc_flight_table *table, *watcher = TABLE_NEW(.keys_max = 4);
	ipc_flight *flight = NULL;

	for (unsigned i = 0; i < SEATS_ROWS + 10; ++i) {
		table = TABLE_NEW(0);
		ASSERT(join_in(&flight, table, 1, WAIT_MS), 1);
		if (i % 2)
			ASSERT(land(flight, 1), 0);
		ipc_flight_table_close(table);
	}
	EXPECT(ipc_flight_table_count(watcher), 0);
	ipc_flight_table_close(watcher);
}

struct worker {
	pthread_t thread;
	ipc_flight_table *table;
	_Atomic uint32_t *n_leaders; /* of each key */
	unsigned seed;
	unsigned n_bad, n_led;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	ipc_flight *flight;

	for (unsigned i = 0; i < 3000; ++i) {
		uint32_t key = (uint32_t)rand_r(&worker->seed) % 3;
		int r = join_in(&flight, worker->table, key, WAIT_MS);

		if (r == 1) {
			++worker->n_led;
			worker->n_bad += atomic_fetch_add(&worker->n_leaders[key], 1) != 0;
			if (i % 8 == 0)
				sched_yield();
			atomic_fetch_sub(&worker->n_leaders[key], 1);
			worker->n_bad += i % 5 != 0 && land(flight, key) != 0;
		} else if (r == 0) {
			worker->n_bad += result_of(flight) != key;
		} else if (r != IPC_EOWNERDEAD) {
			++worker->n_bad;
			continue;
		}
		if (r >= 0)
			ipc_flight_leave(flight);
	}
	return NULL;
}

/* F-1, F-8, F-16 */
Test(flight_parts, threads_share_a_table)
{
	enum { N = 6 };
	static _Atomic uint32_t n_leaders[3];
	struct worker worker[N];
	ipc_flight_table *table = TABLE_NEW(0);
	unsigned n_led = 0;

	for (unsigned i = 0; i < N; ++i) {
		worker[i] = (struct worker){.table = table, .n_leaders = n_leaders, .seed = i};
		cr_assert_eq(pthread_create(&worker[i].thread, NULL, work, &worker[i]), 0);
	}
	for (unsigned i = 0; i < N; ++i) {
		cr_assert_eq(pthread_join(worker[i].thread, NULL), 0);
		cr_expect_eq(worker[i].n_bad, 0, "%u went wrong", worker[i].n_bad);
		n_led += worker[i].n_led;
	}
	cr_expect_gt(n_led, 0);
	EXPECT(ipc_flight_table_count(table), 0);
	ipc_flight_table_close(table);
}

/* ---- forked children ---- */

/* M-42, M-70 */
Test(flight_parts, forked_child_is_refused_and_disturbs_nobody)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	ipc_flight *lead = NULL, *follow = NULL, *none = NULL;
	struct ipc_flight_result result;
	struct actor follower;
	const void *key;
	uint64_t fence;
	size_t size;
	pid_t pid;

	ASSERT(join(&lead, table, 1), 1);
	caller_start(&follower);
	order_begin(&follower, ORDER_JOIN_WAIT, 1, 0);
	ASSERT(ask(&follow, table, 2, 0), 2);

	pid = process_fork();
	if (pid == 0) {
		int bad = 0;

		bad += join(&none, table, 3) != IPC_ECHILD;
		bad += join_in(&none, table, 3, 0) != IPC_ECHILD;
		bad += ask(&none, table, 3, 0) != IPC_ECHILD;
		bad += ipc_handler_take(&none, handler) != IPC_ECHILD;
		bad += take_in(&none, handler, 0) != IPC_ECHILD;
		bad += ipc_flight_table_count(table) != IPC_ECHILD;
		bad += ipc_flight_look(lead) != IPC_ECHILD;
		bad += look_in(lead, 0) != IPC_ECHILD;
		bad += land(lead, 1) != IPC_ECHILD;
		bad += ipc_flight_fail(lead, IPC_FAILURE_LOCAL, 0, NULL, 0) != IPC_ECHILD;
		bad += ipc_flight_get_key(lead, &key, &size) != IPC_ECHILD;
		bad += ipc_flight_get_fence(lead, &fence) != IPC_ECHILD;
		bad += ipc_flight_get_result(lead, &result) != IPC_ECHILD;
		bad += ipc_flight_cancel(lead) != IPC_ECHILD;
		bad += ipc_flight_table_cancel(table) != IPC_ECHILD;
		bad += ipc_flight_leave(lead) != NULL;
		bad += ipc_flight_leave(lead) != NULL;
		ipc_flight_table_close(table);
		ipc_handler_close(handler);
		process_end(bad);
	}
	EXPECT(process_reap(pid, WAIT_MS), 0);

	EXPECT(ipc_flight_look(lead), 1);
	actor_until_asleep(&follower);
	ASSERT(land(lead, 6), 0);
	EXPECT(actor_hear(&follower), 0);
	EXPECT(order_do(&follower, ORDER_RESULT, 1, 0), 6);
	EXPECT(ipc_handler_take(&none, handler), 0);
	ipc_flight_leave(none);
	ipc_flight_leave(follow);
	ipc_flight_leave(lead);
	actor_kill(&follower);
	ipc_handler_close(handler);
	ipc_flight_table_close(table);
}
