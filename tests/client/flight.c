/* SPDX-License-Identifier: MIT */
/*
 * flight through the public interface, with a broker: joining, landing and failing, and who gets
 * what.  Leaders that are lost are in flight_leader.c, the other forms in flight_do.c and
 * flight_handler.c.
 */
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/client/flight_scene.h"

TestSuite(flight, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

enum { N_MEMBERS = 4 };

/* ---- one runs, the others get its bytes ---- */

/* F-1, F-5 */
Test(flight, one_leads_and_all_who_joined_get_its_bytes)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor member[N_MEMBERS];
	struct ipc_flight_result result;
	ipc_flight *flight = NULL;

	ASSERT(join(&flight, table, 1), 1);
	for (unsigned i = 0; i < N_MEMBERS; ++i) {
		caller_start(&member[i]);
		order_begin(&member[i], ORDER_JOIN_WAIT, 1, 0);
	}
	EXPECT(ipc_flight_table_count(table), 1);
	ASSERT(land(flight, 77), 0);

	for (unsigned i = 0; i < N_MEMBERS; ++i) {
		EXPECT(actor_hear(&member[i]), 0);
		EXPECT(order_do(&member[i], ORDER_RESULT, 1, 0), 77);
		EXPECT(order_do(&member[i], ORDER_EPOCH, 1, 0), 1);
	}
	EXPECT(ipc_flight_get_result(flight, &result), 0);
	cr_expect_eq(result.n_joined, N_MEMBERS + 1, "%u joined", result.n_joined);
	EXPECT(ipc_flight_table_count(table), 0);

	ipc_flight_leave(flight);
	for (unsigned i = 0; i < N_MEMBERS; ++i)
		actor_kill(&member[i]);
	ipc_flight_table_close(table);
}

/* F-1: different keys never wait for each other, and neither for a stopped process. */
Test(flight, keys_do_not_hinder_each_other)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;
	struct actor stopped;

	caller_start(&stopped);
	ASSERT(order_do(&stopped, ORDER_JOIN, 0, 0), 1);
	cr_assert_eq(kill(stopped.pid, SIGSTOP), 0);

	for (uint32_t key = 1; key < 500; ++key) {
		ASSERT(join_in(&flight, table, key, WAIT_MS), 1);
		land_and_leave(flight, key);
	}
	EXPECT(ipc_flight_table_count(table), 1);
	EXPECT(join_in(&flight, table, 0, 20), IPC_ETIMEDOUT);

	actor_kill(&stopped);
	ipc_flight_table_close(table);
}

/* F-5, M-70, M-71: however late it is read, and whatever became of the leader. */
Test(flight, result_stays_until_the_last_of_those_who_joined_has_left)
{
	ipc_flight_table *table = TABLE_NEW(.keys_max = 3);
	struct ipc_flight_result result;
	ipc_flight *late = NULL, *other = NULL;
	struct actor leader;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(join(&late, table, 1), 2);
	ASSERT(order_do(&leader, ORDER_LAND, 1, 11), 0);
	actor_kill(&leader);

	for (uint32_t i = 0; i < 100; ++i) {
		ASSERT(join_in(&other, table, i % 5, WAIT_MS), 1);
		land_and_leave(other, 1000 + i);
	}

	ASSERT(ipc_flight_look(late), 0);
	ASSERT(ipc_flight_get_result(late, &result), 0);
	cr_expect_eq((uintptr_t)result.data % 16, 0);
	EXPECT(result_of(late), 11);
	ipc_flight_leave(late);
	ipc_flight_table_close(table);
}

/* F-5: whoever comes after the landing starts anew. */
Test(flight, nothing_is_cached)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *first = NULL, *second = NULL, *third = NULL;

	ASSERT(join(&first, table, 1), 1);
	ASSERT(land(first, 1), 0);
	ASSERT(join(&second, table, 1), 1);
	EXPECT(result_of(first), 1);
	EXPECT(result_of(second), IPC_EAGAIN);
	ASSERT(land(second, 2), 0);
	EXPECT(result_of(first), 1);
	EXPECT(result_of(second), 2);
	ipc_flight_leave(first);
	ASSERT(join(&third, table, 1), 1);
	EXPECT(result_of(second), 2);

	ipc_flight_leave(second);
	ipc_flight_leave(third);
	EXPECT(ipc_flight_table_count(table), 0);
	ipc_flight_table_close(table);
}

/* M-72: of size 0, and the largest that there may be. */
Test(flight, results_of_every_size_arrive)
{
	static unsigned char bytes[4000], key[IPC_KEY_SIZE_MAX];
	ipc_flight_table *table =
		TABLE_NEW(.key_size_max = sizeof(key), .result_size_max = sizeof(bytes));
	struct ipc_flight_result result;
	ipc_flight *flight = NULL;
	const void *got;
	size_t size;

	memset(key, 0xa5, sizeof(key));
	memset(bytes, 0x5a, sizeof(bytes));

	/* F-7: the limits themselves are legal. */
	ASSERT(ipc_flight_join(&flight, table, key, sizeof(key)), 1);
	ASSERT(ipc_flight_get_key(flight, &got, &size), 0);
	cr_assert_eq(size, sizeof(key));
	cr_expect_arr_eq(got, key, sizeof(key));
	ASSERT(ipc_flight_land(flight, bytes, sizeof(bytes)), 0);
	ASSERT(ipc_flight_get_result(flight, &result), 0);
	cr_assert_eq(result.size, sizeof(bytes));
	cr_expect_arr_eq(result.data, bytes, sizeof(bytes));
	ipc_flight_leave(flight);

	ASSERT(ipc_flight_join(&flight, table, key, 1), 1);
	ASSERT(ipc_flight_land(flight, NULL, 0), 0);
	ASSERT(ipc_flight_get_result(flight, &result), 0);
	cr_expect_eq(result.size, 0);
	cr_expect_null(result.data);
	cr_expect_eq(result.failure, IPC_FAILURE_NONE);
	cr_expect_eq(result.code, 0);
	ipc_flight_leave(flight);

	ipc_flight_table_close(table);
}

/* F-7 */
Test(flight, what_is_too_large_is_refused_and_the_flight_goes_on)
{
	static const unsigned char bytes[65];
	ipc_flight_table *table = TABLE_NEW(.key_size_max = 4, .result_size_max = 64);
	ipc_flight *flight = NULL;
	struct actor follower;

	EXPECT(ipc_flight_join(&flight, table, "12345", 5), IPC_EMSGSIZE);
	EXPECT(ipc_flight_join(&flight, table, "", 0), IPC_EINVAL);
	EXPECT(ipc_flight_ask(&flight, table, "", 0, 0), IPC_EINVAL);
	cr_expect_null(flight, "a failure wrote its result");

	ASSERT(join(&flight, table, 1), 1);
	caller_start(&follower);
	order_begin(&follower, ORDER_JOIN_WAIT, 1, 0);
	EXPECT(ipc_flight_land(flight, bytes, 65), IPC_EMSGSIZE);
	EXPECT(ipc_flight_fail(flight, IPC_FAILURE_LOCAL, 0, bytes, 65), IPC_EMSGSIZE);
	EXPECT(result_of(flight), IPC_EAGAIN);
	EXPECT(ipc_flight_fail(flight, IPC_FAILURE_TOO_BIG, 0, bytes, 64), 0);
	EXPECT(actor_hear(&follower), 0);
	EXPECT(order_do(&follower, ORDER_RESULT, 1, 0), FAILED_WITH(IPC_FAILURE_TOO_BIG));

	ipc_flight_leave(flight);
	actor_kill(&follower);
	ipc_flight_table_close(table);
}

/* ---- failures ---- */

/* F-6, F-10 */
Test(flight, failure_is_shared_with_those_who_wait_and_nobody_else)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct ipc_flight_result result;
	ipc_flight *flight = NULL, *follower = NULL;
	struct actor member;

	ASSERT(join(&flight, table, 1), 1);
	caller_start(&member);
	ASSERT(order_do(&member, ORDER_JOIN, 1, 0), 2);
	order_begin(&member, ORDER_LOOK_WAIT, 1, 0);
	ASSERT(ipc_flight_fail(flight, IPC_FAILURE_UPSTREAM, -42, "it said no", 10), 0);

	EXPECT(actor_hear(&member), 0);
	EXPECT(order_do(&member, ORDER_RESULT, 1, 0), FAILED_WITH(IPC_FAILURE_UPSTREAM));
	ASSERT(ipc_flight_get_result(flight, &result), 0);
	cr_expect_eq(result.failure, IPC_FAILURE_UPSTREAM);
	cr_expect_eq(result.code, -42);
	cr_expect_eq(result.size, 10);
	cr_expect_arr_eq(result.data, "it said no", 10);
	cr_expect_eq(result.epoch, 1);
	cr_expect_eq(result.reserved[0] | result.reserved[1] | result.reserved[2], 0);

	/* A retry starts afresh. */
	ASSERT(order_do(&member, ORDER_LEAVE, 1, 0), 0);
	ASSERT(order_do(&member, ORDER_JOIN, 1, 0), 1);
	ASSERT(join(&follower, table, 1), 2);
	ASSERT(order_do(&member, ORDER_LAND, 1, 5), 0);
	EXPECT(look_in(follower, WAIT_MS), 0);
	EXPECT(result_of(follower), 5);

	ipc_flight_leave(flight);
	ipc_flight_leave(follower);
	actor_kill(&member);
	ipc_flight_table_close(table);
}

/* F-6 */
Test(flight, classes_of_failure_are_a_closed_list)
{
	static const int refused[] = {IPC_FAILURE_NONE, IPC_FAILURE_ABANDONED, 8, -1, 1000};
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;

	ASSERT(join(&flight, table, 1), 1);
	for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); ++i)
		EXPECT(ipc_flight_fail(flight, (enum ipc_failure)refused[i], 0, NULL, 0),
		       IPC_EINVAL);
	EXPECT(result_of(flight), IPC_EAGAIN);
	ipc_flight_leave(flight);

	for (int failure = IPC_FAILURE_NOT_FOUND; failure <= IPC_FAILURE_TOO_BIG; ++failure) {
		ASSERT(join(&flight, table, 1), 1);
		EXPECT(ipc_flight_fail(flight, (enum ipc_failure)failure, 0, NULL, 0), 0);
		EXPECT(result_of(flight), FAILED_WITH(failure));
		ipc_flight_leave(flight);
	}
	ipc_flight_table_close(table);
}

/* F-10: the key is free before anybody hears of the failure. */
Test(flight, whoever_hears_of_a_failure_can_lead_at_once)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;
	struct actor member;

	caller_start(&member);
	for (unsigned i = 0; i < 200; ++i) {
		ASSERT(join(&flight, table, 1), 1);
		order_say(&member, ORDER_JOIN, 1, 0);
		ASSERT(actor_hear(&member), 2);
		order_say(&member, ORDER_LOOK_WAIT, 1, 0);
		ASSERT(ipc_flight_fail(flight, IPC_FAILURE_LOCAL, 0, NULL, 0), 0);
		ASSERT(actor_hear(&member), 0);
		ASSERT(order_do(&member, ORDER_LEAVE, 1, 0), 0);
		ASSERT(order_do(&member, ORDER_JOIN, 1, 0), 1);
		ASSERT(order_do(&member, ORDER_LEAVE, 1, 0), 0);
		ipc_flight_leave(flight);
	}
	actor_kill(&member);
	ipc_flight_table_close(table);
}

/* ---- a full table ---- */

/* F-7, F-13 */
Test(flight, full_table_is_refused_and_never_waited_for)
{
	ipc_flight_table *table = TABLE_NEW(.keys_max = 2);
	ipc_flight *first = NULL, *second = NULL, *third = NULL;

	ASSERT(join(&first, table, 1), 1);
	ASSERT(join(&second, table, 2), 1);
	EXPECT(join(&third, table, 3), IPC_ENOSPC);
	EXPECT(join_in(&third, table, 3, WAIT_MS), IPC_ENOSPC);
	EXPECT(ipc_flight_table_count(table), 2);

	land_and_leave(first, 1);
	ASSERT(join(&first, table, 3), 1);
	ipc_flight_leave(first);
	ipc_flight_leave(second);
	ipc_flight_table_close(table);
}

/* F-13 */
Test(flight, finished_flight_that_is_held_costs_its_cell)
{
	ipc_flight_table *table = TABLE_NEW(.keys_max = 2);
	ipc_flight *leader = NULL, *other = NULL, *third = NULL;
	struct actor follower;

	ASSERT(join(&leader, table, 1), 1);
	caller_start(&follower);
	ASSERT(order_do(&follower, ORDER_JOIN, 1, 0), 2);
	land_and_leave(leader, 1);
	EXPECT(ipc_flight_table_count(table), 0);

	ASSERT(join(&other, table, 2), 1);
	EXPECT(join(&third, table, 3), IPC_ENOSPC);
	EXPECT(join(&third, table, 1), IPC_ENOSPC);
	EXPECT(order_do(&follower, ORDER_RESULT, 1, 0), 1);

	/* Its death lets go of it, as leaving would. */
	actor_kill(&follower);
	for (unsigned i = 0; join(&third, table, 3) == IPC_ENOSPC && i < WAIT_MS; ++i)
		process_pause();
	cr_assert_not_null(third);

	ipc_flight_leave(other);
	ipc_flight_leave(third);
	ipc_flight_table_close(table);
}

/* F-4, F-13: whoever gave up waiting holds nothing. */
Test(flight, wait_that_failed_holds_no_cell)
{
	ipc_flight_table *table = TABLE_NEW(.keys_max = 1);
	ipc_flight *flight = NULL, *none = NULL;
	struct actor leader;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	EXPECT(join_in(&none, table, 1, 1), IPC_ETIMEDOUT);
	ASSERT(order_do(&leader, ORDER_LAND, 1, 0), 0);
	ASSERT(order_do(&leader, ORDER_LEAVE, 1, 0), 0);
	ASSERT(join(&flight, table, 2), 1);
	ipc_flight_leave(flight);
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* ---- followers ---- */

/* F-4: a follower's timeout, cancel, leave or death does not touch the flight. */
Test(flight, followers_that_give_up_leave_the_flight_alone)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *follower = NULL, *none = NULL;
	struct actor leader, killed, witness;
	const uint32_t key = 1;

	caller_start(&leader);
	caller_start(&killed);
	caller_start(&witness);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	order_begin(&witness, ORDER_JOIN_WAIT, 1, 0);
	order_begin(&killed, ORDER_JOIN_WAIT, 1, 0);

	EXPECT(join_in(&none, table, 1, 20), IPC_ETIMEDOUT);
	EXPECT(ipc_flight_join_wait(&none, table, &key, sizeof(key), &past), IPC_ETIMEDOUT);
	cr_expect_null(none);
	ASSERT(join(&follower, table, 1), 2);
	EXPECT(ipc_flight_cancel(follower), 0);
	EXPECT(look_in(follower, WAIT_MS), IPC_ECANCELED);
	ipc_flight_leave(follower);
	actor_kill(&killed);

	EXPECT(ipc_flight_table_count(table), 1);
	EXPECT(order_do(&leader, ORDER_LAND, 1, 3), 0);
	EXPECT(actor_hear(&witness), 0);
	EXPECT(order_do(&witness, ORDER_RESULT, 1, 0), 3);
	EXPECT(order_do(&witness, ORDER_EPOCH, 1, 0), 1);
	actor_kill(&leader);
	actor_kill(&witness);
	ipc_flight_table_close(table);
}

/* F-4: whoever took part in an older flight cannot disturb a newer one of the key. */
Test(flight, those_of_an_older_flight_do_not_touch_the_newer)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *old_leader = NULL, *newer = NULL, *again = NULL;
	struct actor late, dying;

	caller_start(&late);
	caller_start(&dying);
	ASSERT(join(&old_leader, table, 1), 1);
	ASSERT(order_do(&late, ORDER_JOIN, 1, 0), 2);
	ASSERT(order_do(&dying, ORDER_JOIN, 1, 0), 2);
	ASSERT(land(old_leader, 1), 0);
	ASSERT(join(&newer, table, 1), 1);

	EXPECT(land(old_leader, 9), IPC_EINVAL);
	EXPECT(order_do(&late, ORDER_LAND, 1, 9), IPC_EINVAL);
	ipc_flight_leave(old_leader);
	EXPECT(order_do(&late, ORDER_LEAVE, 1, 0), 0);
	actor_kill(&dying);

	EXPECT(ipc_flight_table_count(table), 1);
	EXPECT(order_do(&late, ORDER_JOIN, 1, 0), 2);
	ASSERT(land(newer, 2), 0);
	EXPECT(order_do(&late, ORDER_LOOK, 1, 0), 0);
	EXPECT(order_do(&late, ORDER_RESULT, 1, 0), 2);
	ASSERT(join(&again, table, 1), 1);

	ipc_flight_leave(newer);
	ipc_flight_leave(again);
	actor_kill(&late);
	ipc_flight_table_close(table);
}

/* ---- threads ---- */

struct joiner {
	ipc_flight_table *table;
	ipc_flight *flight;
	int result;
};

static void *join_and_wait(void *arg)
{
	struct joiner *joiner = arg;

	joiner->result = join_in(&joiner->flight, joiner->table, 1, WAIT_MS);
	return NULL;
}

static void *land_from_here(void *arg)
{
	return (void *)(intptr_t)land(arg, 8);
}

/* F-8, F-16, M-42 */
Test(flight, thread_that_leads_cannot_wait_for_itself_and_others_can)
{
	ipc_flight_table *table = TABLE_NEW(0), *second = TABLE_NEW(0);
	struct joiner joiner[2] = {{.table = table}, {.table = second}};
	ipc_flight *leader = NULL, *none = NULL;
	pthread_t thread[2], lander;
	void *result;

	ASSERT(join(&leader, table, 1), 1);
	EXPECT(join(&none, table, 1), IPC_EDEADLK);
	EXPECT(join_in(&none, table, 1, WAIT_MS), IPC_EDEADLK);
	EXPECT(join_in(&none, second, 1, WAIT_MS), IPC_EDEADLK);
	cr_expect_null(none);

	for (unsigned i = 0; i < 2; ++i)
		cr_assert_eq(pthread_create(&thread[i], NULL, join_and_wait, &joiner[i]), 0);
	process_until_asleep(getpid(), 2);
	EXPECT(ipc_flight_table_count(table), 1);

	/* What one thread leads another may land. */
	cr_assert_eq(pthread_create(&lander, NULL, land_from_here, leader), 0);
	cr_assert_eq(pthread_join(lander, &result), 0);
	EXPECT((intptr_t)result, 0);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
		EXPECT(joiner[i].result, 0);
		EXPECT(result_of(joiner[i].flight), 8);
		ipc_flight_leave(joiner[i].flight);
	}

	ipc_flight_leave(leader);
	ipc_flight_table_close(second);
	ipc_flight_table_close(table);
}

/* ---- system calls ---- */

static void run_without_system_calls(void)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_flight_table *table;
	ipc_flight *flight;
	int bad = 0;

	if (table_open(&table, own, NAME, (struct ipc_flight_table_options){.flags = IPC_CREATE}))
		process_end(10);

	/* The first time a thread, a handle and a key take what they keep. */
	for (uint32_t round = 0; round < 3; ++round) {
		if (round == 1 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0)
			process_end(11);
		for (uint32_t i = 0; i < 100; ++i) {
			bad += join(&flight, table, i % 7) != 1;
			bad += land(flight, i) != 0;
			bad += result_of(flight) != i;
			ipc_flight_leave(flight);
		}
	}

	/* exit_group is not let through. */
	syscall(SYS_exit, bad);
}

/* F-11 */
Test(flight, join_and_land_without_followers_make_no_system_call)
{
	pid_t pid = process_fork();
	int status;

	if (pid == 0)
		run_without_system_calls();

	status = process_reap(pid, WAIT_MS);
	cr_expect_eq(status, 0, "ended with %d: %s", status,
		     status == 128 + SIGKILL ? "it made a system call" : "its calls failed");
}

/* ---- what a part can be asked ---- */

/* F-17 */
Test(flight, only_the_leader_may_finish_and_only_once)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *leader = NULL;
	struct actor follower;
	uint64_t fence = 0, same = 0;

	caller_start(&follower);
	ASSERT(join(&leader, table, 1), 1);
	ASSERT(order_do(&follower, ORDER_JOIN, 1, 0), 2);
	EXPECT(order_do(&follower, ORDER_LAND, 1, 1), IPC_EINVAL);
	EXPECT(order_do(&follower, ORDER_FAIL, 1, IPC_FAILURE_LOCAL), IPC_EINVAL);
	EXPECT(order_do(&follower, ORDER_FENCE, 1, 0), IPC_EINVAL);
	EXPECT(order_do(&follower, ORDER_RESULT, 1, 0), IPC_EAGAIN);
	EXPECT(order_do(&follower, ORDER_LOOK, 1, 0), IPC_EAGAIN);

	EXPECT(ipc_flight_look(leader), 1);
	EXPECT(ipc_flight_get_fence(leader, &fence), 0);
	ASSERT(land(leader, 1), 0);
	EXPECT(land(leader, 2), IPC_EINVAL);
	EXPECT(ipc_flight_fail(leader, IPC_FAILURE_LOCAL, 0, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_flight_look(leader), 0);
	EXPECT(ipc_flight_get_fence(leader, &same), 0);
	cr_expect_eq(fence, same);
	EXPECT(result_of(leader), 1);
	EXPECT(order_do(&follower, ORDER_LAND, 1, 2), IPC_EINVAL);
	EXPECT(order_do(&follower, ORDER_RESULT, 1, 0), 1);

	ipc_flight_leave(leader);
	actor_kill(&follower);
	ipc_flight_table_close(table);
}

/* F-5: the fence of who completed it is told to everybody. */
Test(flight, fence_comes_with_the_result)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct ipc_flight_result result;
	ipc_flight *follower = NULL;
	struct actor leader;
	int64_t fence;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	fence = order_do(&leader, ORDER_FENCE, 1, 0);
	cr_assert_gt(fence, 0);
	ASSERT(join(&follower, table, 1), 2);
	ASSERT(order_do(&leader, ORDER_LAND, 1, 0), 0);
	ASSERT(ipc_flight_get_result(follower, &result), 0);
	cr_expect_eq(result.fence, (uint64_t)fence);

	ipc_flight_leave(follower);
	actor_kill(&leader);
	ipc_flight_table_close(table);
}
