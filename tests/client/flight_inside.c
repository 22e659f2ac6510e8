/* SPDX-License-Identifier: MIT */
/*
 * Leave and close by one thread while others are inside of calls on the part or the table (F-16,
 * M-44).
 */
#include <pthread.h>
#include <stdatomic.h>

#include "libipc/client/flight.h"
#include "tests/client/flight_scene.h"

TestSuite(flight_inside, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- races ---- */

/* Two threads use the same part as a third leaves it. */
struct crowd {
	pthread_barrier_t barrier;
	ipc_flight_table *table;
	ipc_flight *flight;
	_Atomic int32_t land_said, look_said, join_said; /* what they must not say */
	unsigned n_rounds;
};

static void *crowd_land(void *arg)
{
	struct crowd *crowd = arg;

	for (unsigned i = 0; i < crowd->n_rounds; ++i) {
		int r;

		pthread_barrier_wait(&crowd->barrier);
		r = land(crowd->flight, 666);

		/* Landed; left already; left just now, and the lead is lost (F-17). */
		if (r != 0 && r != IPC_EINVAL && r != IPC_ESTALE)
			atomic_store(&crowd->land_said, r);
		pthread_barrier_wait(&crowd->barrier);
	}
	return NULL;
}

static void *crowd_look(void *arg)
{
	struct crowd *crowd = arg;

	for (unsigned i = 0; i < crowd->n_rounds; ++i) {
		int r;

		pthread_barrier_wait(&crowd->barrier);
		r = look_in(crowd->flight, WAIT_MS);
		if (r != 0 && r != 1 && r != IPC_EINVAL && r != IPC_ECANCELED)
			atomic_store(&crowd->look_said, r);
		pthread_barrier_wait(&crowd->barrier);
	}
	return NULL;
}

/* F-16, M-44: what begins too late finds a part that nobody has taken again. */
Test(flight_inside, calls_beside_a_leave_end_well)
{
	struct crowd crowd = {.table = TABLE_NEW(0), .n_rounds = 2000};
	ipc_flight_table *second = TABLE_NEW(0);
	pthread_t thread[2];
	ipc_flight *next;

	cr_assert_eq(pthread_barrier_init(&crowd.barrier, NULL, 3), 0);
	cr_assert_eq(pthread_create(&thread[0], NULL, crowd_land, &crowd), 0);
	cr_assert_eq(pthread_create(&thread[1], NULL, crowd_look, &crowd), 0);
	for (unsigned i = 0; i < crowd.n_rounds; ++i) {
		ASSERT(join(&crowd.flight, crowd.table, 1), 1);
		pthread_barrier_wait(&crowd.barrier);
		for (unsigned k = 0; k < i % 64; ++k)
			atomic_signal_fence(memory_order_seq_cst);
		ipc_flight_leave(crowd.flight);
		ASSERT(join_in(&next, second, 2, WAIT_MS), 1);
		ASSERT(land(next, 7), 0);
		EXPECT(result_of(next), 7);
		ipc_flight_leave(next);
		pthread_barrier_wait(&crowd.barrier);
		ASSERT(ipc_flight_table_count(crowd.table), 0);
	}
	for (unsigned i = 0; i < 2; ++i)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	EXPECT(atomic_load(&crowd.land_said), 0);
	EXPECT(atomic_load(&crowd.look_said), 0);
	pthread_barrier_destroy(&crowd.barrier);
	ipc_flight_table_close(second);
	ipc_flight_table_close(crowd.table);
}

/* F-16: a landing that was begun before the part was left, and goes on after it was taken again. */
Test(flight_inside, late_landing_does_not_touch_the_next_flight)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL, *next = NULL;
	uint64_t use;

	ASSERT(join(&flight, table, 1), 1);
	use = part_use(flight);
	ipc_flight_leave(flight);
	ASSERT(join(&next, table, 1), 1);
	cr_assert_eq(next, flight, "the part was not made anew");

	EXPECT(flight_finish(&table->owner.view, &flight->part, use, IPC_FAILURE_NONE, 0, "x", 1),
	       IPC_EINVAL);
	EXPECT(result_of(next), IPC_EAGAIN);
	ASSERT(land(next, 7), 0);
	EXPECT(result_of(next), 7);
	ipc_flight_leave(next);
	ipc_flight_table_close(table);
}

/* ---- one step at a time ---- */

/* A thread in the middle of a call on a part. */
struct insider {
	pthread_t thread;
	pthread_barrier_t barrier;
	ipc_flight *flight;
	bool lands;
};

#define STEP(insider) ((void)pthread_barrier_wait(&(insider)->barrier))

static void *be_inside(void *arg)
{
	struct insider *insider = arg;
	ipc_flight *flight = insider->flight;
	struct endpoint *endpoint = flight->handle.endpoint;
	struct quicklock *writer =
		&part_owner(flight)->view.segment->seats.seat[flight->part.seat].writer;
	int r;

	r = endpoint_enter(endpoint, 0);
	if (r == 0)
		r = insider->lands ? quicklock_try(writer) != QUICKLOCK_HELD : part_begin(flight);
	STEP(insider);
	STEP(insider);
	if (insider->lands) {
		quicklock_unlock(writer);
		part_settle(flight);
	} else {
		part_end(flight);
	}

	/* Still inside of the table: the rest must not wait for that. */
	STEP(insider);
	endpoint_leave(endpoint);
	return (void *)(intptr_t)r;
}

/* The broker tells it soon. */
static void expect_peers(ipc_handler *handler, int n)
{
	for (unsigned i = 0; ipc_handler_peers(handler) != n && i < WAIT_MS; ++i)
		process_pause();
	EXPECT(ipc_handler_peers(handler), n);
}

static void expect_left_by_the_insider(bool lands, bool closes)
{
	ipc_flight_table *table = TABLE_NEW(0), *second = TABLE_NEW(0);
	struct insider insider = {.lands = lands};
	ipc_handler *handler = handler_new(0);
	ipc_flight *again = NULL;
	struct actor follower;
	void *result;

	caller_start(&follower);
	ASSERT(join(&insider.flight, table, 1), 1);
	order_begin(&follower, ORDER_JOIN_WAIT, 1, 0);
	cr_assert_eq(pthread_barrier_init(&insider.barrier, NULL, 2), 0);
	cr_assert_eq(pthread_create(&insider.thread, NULL, be_inside, &insider), 0);
	STEP(&insider);

	if (closes)
		ipc_flight_table_close(table);
	else
		ipc_flight_leave(insider.flight);
	actor_until_asleep(&follower);
	EXPECT(ipc_flight_table_count(second), 1);
	EXPECT(ipc_handler_peers(handler), 3);

	/* Who has left it does not lead it any more, and may follow. */
	ASSERT(join(&again, second, 1), 2);
	ipc_flight_leave(again);

	STEP(&insider);
	EXPECT(actor_hear(&follower), 1);
	expect_peers(handler, closes ? 2 : 3);
	STEP(&insider);
	cr_assert_eq(pthread_join(insider.thread, &result), 0);
	EXPECT((intptr_t)result, 0);

	actor_kill(&follower);
	pthread_barrier_destroy(&insider.barrier);
	ipc_handler_close(handler);
	ipc_flight_table_close(second);
	if (!closes)
		ipc_flight_table_close(table);
}

/* F-16, M-44 */
Test(flight_inside, leave_beside_a_landing_is_done_by_who_lands)
{
	expect_left_by_the_insider(true, false);
}

/* F-16, M-44 */
Test(flight_inside, leave_beside_a_look_is_done_by_who_looks)
{
	expect_left_by_the_insider(false, false);
}

/* F-16, M-44 */
Test(flight_inside, close_beside_a_landing_is_told_by_who_lands)
{
	expect_left_by_the_insider(true, true);
}

/* F-16, M-44 */
Test(flight_inside, close_beside_a_look_is_told_by_who_looks)
{
	expect_left_by_the_insider(false, true);
}

static void *crowd_join(void *arg)
{
	struct crowd *crowd = arg;
	ipc_flight *flight;

	for (unsigned i = 0; i < crowd->n_rounds; ++i) {
		int r;

		pthread_barrier_wait(&crowd->barrier);
		r = join_in(&flight, crowd->table, 1, WAIT_MS);
		if (r != 0 && r != 1 && r != IPC_EINVAL && r != IPC_ECANCELED)
			atomic_store(&crowd->join_said, r);
		pthread_barrier_wait(&crowd->barrier);
	}
	return NULL;
}

/* Inside of the table, so that what the others begin too late finds a closed handle and no freed
 * memory. */
static int close_beside_joins(ipc_flight *flight, const void *key, size_t key_size, void *userdata)
{
	struct crowd *crowd = userdata;
	static unsigned n_calls;

	(void)flight;
	(void)key;
	(void)key_size;
	pthread_barrier_wait(&crowd->barrier);
	for (unsigned k = 0; k < n_calls * 20; ++k)
		atomic_signal_fence(memory_order_seq_cst);
	n_calls = (n_calls + 1) % 256;
	ipc_flight_table_close(crowd->table);
	pthread_barrier_wait(&crowd->barrier);
	return 0;
}

/* F-16, M-44: a join beside the close either is left by it or says so; nothing is left over. */
Test(flight_inside, joins_beside_a_close_leave_nothing)
{
	struct crowd crowd = {.n_rounds = 500};
	ipc_flight_table *watcher = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	struct ipc_flight_result result;
	pthread_t thread[2];

	cr_assert_eq(pthread_barrier_init(&crowd.barrier, NULL, 3), 0);
	for (unsigned i = 0; i < 2; ++i)
		cr_assert_eq(pthread_create(&thread[i], NULL, crowd_join, &crowd), 0);
	for (unsigned i = 0; i < crowd.n_rounds; ++i) {
		crowd.table = TABLE_NEW(0);
		ASSERT(ipc_flight_do_wait(crowd.table, "other", 5, close_beside_joins, &crowd, NULL,
					  0, &result, NULL),
		       IPC_ECANCELED);
		for (unsigned k = 0; ipc_handler_peers(handler) != 1 && k < WAIT_MS; ++k)
			process_pause();
		ASSERT(ipc_handler_peers(handler), 1);
		ASSERT(ipc_flight_table_count(watcher), 0);
	}
	for (unsigned i = 0; i < 2; ++i)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	EXPECT(atomic_load(&crowd.join_said), 0);
	pthread_barrier_destroy(&crowd.barrier);
	ipc_handler_close(handler);
	ipc_flight_table_close(watcher);
}

/* What a join does between its begin and its end. */
struct joiner {
	struct insider insider;
	ipc_flight_table *table;
	int taken_before, given, taken_after;
};

static void *join_in_steps(void *arg)
{
	struct joiner *joiner = arg;
	struct insider *insider = &joiner->insider;
	struct flight_owner *owner = &joiner->table->owner;
	const struct flight_wish wish = {.form = FLIGHT_JOIN, .key = "one", .key_size = 3};
	ipc_flight *flight;

	if (endpoint_enter(&owner->endpoint, 0) != 0)
		return NULL;
	joiner->taken_before = part_join(owner, &wish, &flight);
	STEP(insider);
	STEP(insider);
	joiner->given = parts_give(flight);
	joiner->taken_after = parts_take(owner, &flight);
	STEP(insider);
	endpoint_leave(&owner->endpoint);
	return joiner;
}

/* F-16, M-44 */
Test(flight_inside, close_beside_a_join_is_told_by_who_joins)
{
	struct joiner joiner = {.table = TABLE_NEW(0)};
	ipc_flight_table *second = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	void *result;

	cr_assert_eq(pthread_barrier_init(&joiner.insider.barrier, NULL, 2), 0);
	cr_assert_eq(pthread_create(&joiner.insider.thread, NULL, join_in_steps, &joiner), 0);
	STEP(&joiner.insider);
	ipc_flight_table_close(joiner.table);
	for (unsigned i = 0; i < 10; ++i)
		process_pause();
	EXPECT(ipc_handler_peers(handler), 2);
	EXPECT(ipc_flight_table_count(second), 1);

	STEP(&joiner.insider);
	expect_peers(handler, 1);
	EXPECT(ipc_flight_table_count(second), 0);
	STEP(&joiner.insider);
	cr_assert_eq(pthread_join(joiner.insider.thread, &result), 0);
	cr_assert_not_null(result);
	EXPECT(joiner.taken_before, 1);
	EXPECT(joiner.given, IPC_ECANCELED);
	EXPECT(joiner.taken_after, IPC_ECANCELED);

	pthread_barrier_destroy(&joiner.insider.barrier);
	ipc_handler_close(handler);
	ipc_flight_table_close(second);
}
