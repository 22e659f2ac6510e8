/* SPDX-License-Identifier: MIT */
/*
 * ipc_flight_do_wait(), with a broker.
 */
#include <pthread.h>

#include "tests/client/flight_scene.h"

TestSuite(flight_do, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* What an operation is to do, and what it saw. */
struct operation {
	int (*act)(ipc_flight *flight, struct operation *operation);
	ipc_flight_table *table;
	struct actor *actor;
	int returns;
	unsigned n_runs;
	int64_t key;
	int inner; /* result of a call that it made */
};

static int run(ipc_flight *flight, const void *key, size_t key_size, void *userdata)
{
	struct operation *operation = userdata;
	uint32_t number;

	++operation->n_runs;
	operation->key = -1;
	if (key_size == sizeof(number)) {
		memcpy(&number, key, sizeof(number));
		operation->key = number;
	}
	operation->inner = operation->act ? operation->act(flight, operation) : 0;
	return operation->returns;
}

static int do_in(struct operation *operation, uint32_t key, void *buffer, size_t size,
		 struct ipc_flight_result *ret, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_flight_do_wait(operation->table, &key, sizeof(key), run, operation, buffer, size,
				  ret, &deadline);
}

static int act_land(ipc_flight *flight, struct operation *operation)
{
	(void)operation;
	return ipc_flight_land(flight, "12345678", 8);
}

static int act_land_nothing(ipc_flight *flight, struct operation *operation)
{
	(void)operation;
	return ipc_flight_land(flight, NULL, 0);
}

static int act_fail(ipc_flight *flight, struct operation *operation)
{
	(void)operation;
	return ipc_flight_fail(flight, IPC_FAILURE_UPSTREAM, 12, "reasons", 7);
}

/* Nothing of it is left: the key is free, and nobody follows. */
static void expect_left(ipc_flight_table *table, uint32_t key)
{
	ipc_flight *flight = NULL;

	EXPECT(ipc_flight_table_count(table), 0);
	ASSERT(join(&flight, table, key), 1);
	cr_expect_eq(land(flight, 0), 0);
	EXPECT(epoch_of(flight), 1);
	ipc_flight_leave(flight);
}

/* ---- results ---- */

/* F-14 */
Test(flight_do, what_was_landed_is_in_the_buffer)
{
	struct operation operation = {.act = act_land, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	char buffer[9] = "--------";

	ASSERT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), 0);
	EXPECT(operation.inner, 0);
	EXPECT(operation.key, 3);
	cr_expect_str_eq(buffer, "12345678");
	cr_expect_eq(result.data, buffer);
	cr_expect_eq(result.size, 8);
	cr_expect_eq(result.failure, IPC_FAILURE_NONE);
	cr_expect_eq(result.epoch, 1);
	cr_expect_eq(result.n_joined, 1);
	cr_expect_neq(result.fence, 0);
	expect_left(operation.table, 3);

	operation.act = act_land_nothing;
	ASSERT(do_in(&operation, 3, NULL, 0, &result, WAIT_MS), 0);
	cr_expect_eq(result.size, 0);
	cr_expect_null(result.data);
	EXPECT(operation.n_runs, 2);
	ipc_flight_table_close(operation.table);
}

/* F-14: how much is needed, and nothing else. */
Test(flight_do, buffer_that_is_too_small_is_told_the_size)
{
	struct operation operation = {.act = act_land, .table = TABLE_NEW(0)};
	struct ipc_flight_result result, before;
	char buffer[9] = "--------";

	memset(&before, 0x5e, sizeof(before));
	result = before;
	ASSERT(do_in(&operation, 3, buffer, 7, &result, WAIT_MS), IPC_EMSGSIZE);
	cr_expect_str_eq(buffer, "--------");
	cr_expect_eq(result.size, 8);
	result.size = before.size;
	cr_expect_eq(memcmp(&result, &before, sizeof(result)), 0, "more was written");
	EXPECT(operation.inner, 0);
	expect_left(operation.table, 3);
	ipc_flight_table_close(operation.table);
}

/* F-14 */
Test(flight_do, failure_is_1_and_its_reason_is_cut)
{
	struct operation operation = {.act = act_fail, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	char buffer[9] = "--------";

	ASSERT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), 1);
	cr_expect_str_eq(buffer, "reasons-");
	cr_expect_eq(result.failure, IPC_FAILURE_UPSTREAM);
	cr_expect_eq(result.code, 12);
	cr_expect_eq(result.size, 7);
	cr_expect_eq(result.data, buffer);

	memcpy(buffer, "--------", 8);
	ASSERT(do_in(&operation, 3, buffer, 4, &result, WAIT_MS), 1);
	cr_expect_str_eq(buffer, "reas----");
	cr_expect_eq(result.size, 4);
	ASSERT(do_in(&operation, 3, NULL, 0, &result, WAIT_MS), 1);
	cr_expect_eq(result.size, 0);
	cr_expect_null(result.data);
	expect_left(operation.table, 3);
	ipc_flight_table_close(operation.table);
}

/* F-14, F-15: what fn returns after it has finished the flight does not matter. */
Test(flight_do, negative_return_after_the_landing_changes_nothing)
{
	struct operation operation = {.act = act_land, .returns = -3, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	char buffer[8];

	EXPECT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), 0);
	operation.act = act_fail;
	EXPECT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), 1);
	cr_expect_eq(result.code, 12);
	ipc_flight_table_close(operation.table);
}

/* F-15 */
Test(flight_do, negative_return_fails_the_flight_with_that_code)
{
	struct operation operation = {.returns = -77, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	struct actor follower;
	char buffer[8];

	caller_start(&follower);
	ASSERT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), 1);
	cr_expect_eq(result.failure, IPC_FAILURE_LOCAL);
	cr_expect_eq(result.code, -77);
	cr_expect_eq(result.size, 0);
	expect_left(operation.table, 3);
	actor_kill(&follower);
	ipc_flight_table_close(operation.table);
}

/* ---- fn that breaks the rules ---- */

/* Another process follows while fn runs. */
static int act_be_followed(ipc_flight *flight, struct operation *operation)
{
	(void)flight;
	order_begin(operation->actor, ORDER_JOIN_WAIT, 3, 0);
	return 0;
}

static int act_leave(ipc_flight *flight, struct operation *operation)
{
	act_be_followed(flight, operation);
	ipc_flight_leave(flight);
	return 0;
}

static int act_leave_and_join_again(ipc_flight *flight, struct operation *operation)
{
	uint32_t other = 4;
	ipc_flight *again = NULL;

	ipc_flight_leave(flight);
	return ipc_flight_join(&again, operation->table, &other, sizeof(other));
}

static void expect_handed_on(int (*act)(ipc_flight *, struct operation *))
{
	struct actor follower;
	struct operation operation = {.act = act, .actor = &follower, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	char buffer[8];

	caller_start(&follower);
	EXPECT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), IPC_EINVAL);
	EXPECT(actor_hear(&follower), 1);
	ASSERT(order_do(&follower, ORDER_LAND, 3, 1), 0);
	EXPECT(order_do(&follower, ORDER_EPOCH, 3, 0), 2);
	actor_kill(&follower);
	ipc_flight_table_close(operation.table);
}

/* F-15: neither landed nor failed. */
Test(flight_do, lead_is_handed_on_by_fn_that_does_nothing)
{
	expect_handed_on(act_be_followed);
}

/* F-15 */
Test(flight_do, fn_that_leaves_the_flight_is_told)
{
	expect_handed_on(act_leave);
}

/* F-15: the part that it left is another flight's by then, and stays that. */
Test(flight_do, fn_that_leaves_and_joins_disturbs_nothing)
{
	struct operation operation = {.act = act_leave_and_join_again, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	char buffer[8];

	EXPECT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), IPC_EINVAL);
	EXPECT(operation.inner, 1);
	EXPECT(ipc_flight_table_count(operation.table), 1);
	ipc_flight_table_close(operation.table);
}

static int act_close_table(ipc_flight *flight, struct operation *operation)
{
	(void)flight;
	operation->table = ipc_flight_table_close(operation->table);
	return 0;
}

/* F-16, M-44: close by another thread is the same. */
Test(flight_do, fn_that_closes_the_table_ends_the_call)
{
	struct operation operation = {.act = act_close_table, .table = TABLE_NEW(0)};
	ipc_flight_table *second = TABLE_NEW(0);
	struct ipc_flight_result result;
	char buffer[8];

	EXPECT(do_in(&operation, 3, buffer, 8, &result, WAIT_MS), IPC_ECANCELED);
	expect_left(second, 3);
	ipc_flight_table_close(second);
}

/* ---- fn and the library ---- */

static int act_nested(ipc_flight *flight, struct operation *operation)
{
	struct operation inner = {.act = operation->key < 7 ? act_nested : act_land,
				  .table = operation->table};
	struct ipc_flight_result result;
	char buffer[8];
	int r;

	r = do_in(&inner, (uint32_t)operation->key + 1, buffer, sizeof(buffer), &result, WAIT_MS);
	if (r < 0)
		return r;
	return ipc_flight_land(flight, "12345678", 8);
}

static int act_same_key(ipc_flight *flight, struct operation *operation)
{
	struct operation inner = {.act = act_land, .table = operation->table};
	struct ipc_flight_result result;
	char buffer[8];

	(void)flight;
	return do_in(&inner, (uint32_t)operation->key, buffer, sizeof(buffer), &result, WAIT_MS);
}

/* F-8, F-15, M-42: no lock is held, and the library may be called, however deep. */
Test(flight_do, fn_may_call_the_library)
{
	struct operation operation = {.act = act_nested, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	char buffer[8];

	EXPECT(do_in(&operation, 0, buffer, 8, &result, WAIT_MS), 0);
	EXPECT(operation.inner, 0);
	EXPECT(ipc_flight_table_count(operation.table), 0);

	operation.act = act_same_key;
	EXPECT(do_in(&operation, 0, buffer, 8, &result, WAIT_MS), IPC_EINVAL);
	EXPECT(operation.inner, IPC_EDEADLK);
	expect_left(operation.table, 0);
	ipc_flight_table_close(operation.table);
}

static int act_past_the_deadline(ipc_flight *flight, struct operation *operation)
{
	struct timespec deadline = domain_deadline(60);

	(void)operation;
	while (!process_has_passed(&deadline))
		process_pause();
	return ipc_flight_land(flight, "late", 4);
}

/* F-15: the deadline bounds waiting, not fn. */
Test(flight_do, deadline_does_not_bound_fn)
{
	struct operation operation = {.act = act_past_the_deadline, .table = TABLE_NEW(0)};
	struct ipc_flight_result result;
	struct actor leader;
	char buffer[8];

	EXPECT(do_in(&operation, 3, buffer, 8, &result, 20), 0);
	EXPECT(do_in(&operation, 3, buffer, 8, &result, 0), 0);
	EXPECT(operation.n_runs, 2);

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 3, 0), 1);
	EXPECT(do_in(&operation, 3, buffer, 8, &result, 20), IPC_ETIMEDOUT);
	EXPECT(operation.n_runs, 2);
	EXPECT(order_do(&leader, ORDER_LAND, 3, 1), 0);
	EXPECT(order_do(&leader, ORDER_LEAVE, 3, 0), 0);
	expect_left(operation.table, 3);
	actor_kill(&leader);
	ipc_flight_table_close(operation.table);
}

/* ---- followers ---- */

struct doer {
	struct operation operation;
	struct ipc_flight_result result;
	char buffer[8];
	int r;
};

static void *do_it(void *arg)
{
	struct doer *doer = arg;

	doer->r = do_in(&doer->operation, 3, doer->buffer, 8, &doer->result, WAIT_MS);
	return NULL;
}

static void doers_start(pthread_t thread[2], struct doer doer[2], ipc_flight_table *table)
{
	for (unsigned i = 0; i < 2; ++i) {
		doer[i].operation = (struct operation){.act = act_land, .table = table};
		cr_assert_eq(pthread_create(&thread[i], NULL, do_it, &doer[i]), 0);
	}
	process_until_asleep(getpid(), 2);
}

/* F-15: who is promoted runs its own fn, the other gets its bytes. */
Test(flight_do, promoted_follower_runs_its_own_fn)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct doer doer[2];
	pthread_t thread[2];
	struct actor leader;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 3, 0), 1);
	doers_start(thread, doer, table);
	actor_kill(&leader);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
		EXPECT(doer[i].r, 0);
		cr_expect_arr_eq(doer[i].buffer, "12345678", 8);
		cr_expect_eq(doer[i].result.epoch, 2);
	}
	EXPECT(doer[0].operation.n_runs + doer[1].operation.n_runs, 1);
	expect_left(table, 3);
	ipc_flight_table_close(table);
}

/* F-6, F-14 */
Test(flight_do, failure_of_the_leader_reaches_those_who_wait)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct doer doer[2];
	pthread_t thread[2];
	struct actor leader;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 3, 0), 1);
	doers_start(thread, doer, table);
	ASSERT(order_do(&leader, ORDER_FAIL, 3, IPC_FAILURE_REFUSED), 0);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
		EXPECT(doer[i].r, 1);
		cr_expect_eq(doer[i].result.failure, IPC_FAILURE_REFUSED);
		cr_expect_eq(doer[i].result.code, -7);
		cr_expect_arr_eq(doer[i].buffer, "why", 3);
		EXPECT(doer[i].operation.n_runs, 0);
	}
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* M-28 */
Test(flight_do, cancel_ends_the_wait)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct doer doer[2];
	pthread_t thread[2];
	struct actor leader;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 3, 0), 1);
	doers_start(thread, doer, table);
	EXPECT(ipc_flight_table_cancel(table), 0);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
		EXPECT(doer[i].r, IPC_ECANCELED);
		EXPECT(doer[i].operation.n_runs, 0);
	}
	EXPECT(order_do(&leader, ORDER_LAND, 3, 0), 0);
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* F-3: fn whose process is held for dead. */
static void stale_run(struct actor *self, void *arg)
{
	struct operation operation = *(struct operation *)arg;
	ipc_client *own = domain_connect(&fixture_domain);
	struct ipc_flight_result result;
	char buffer[8];

	operation.actor = self;
	if (table_open(&operation.table, own, NAME, (struct ipc_flight_table_options){0}) != 0)
		process_end(1);
	actor_say(self, do_in(&operation, 3, buffer, 8, &result, WAIT_MS));
	actor_say(self, operation.inner);
	(void)actor_hear(self);
}

static int act_close_fds_and_land(ipc_flight *flight, struct operation *operation)
{
	int fd = operation->actor->fd;

	actor_say(operation->actor, 0);
	(void)actor_hear(operation->actor);
	close_fds_but(fd);
	actor_say(operation->actor, 0);
	(void)actor_hear(operation->actor);
	return ipc_flight_land(flight, "badbytes", 8);
}

/* F-3, F-15 */
Test(flight_do, fn_of_a_process_held_for_dead_lands_nothing)
{
	static const int returns[] = {0, -5};
	ipc_flight_table *table = TABLE_NEW(0);

	for (unsigned i = 0; i < 2; ++i) {
		struct operation operation = {.act = act_close_fds_and_land, .returns = returns[i]};
		ipc_flight *flight = NULL;
		struct actor actor;

		actor_start(&actor, stale_run, &operation);
		ASSERT(actor_hear(&actor), 0);
		ASSERT(join(&flight, table, 3), 2);
		actor_say(&actor, 0);
		ASSERT(actor_hear(&actor), 0);
		ASSERT(look_in(flight, WAIT_MS), 1);
		ASSERT(land(flight, 2), 0);
		actor_say(&actor, 0);
		EXPECT(actor_hear(&actor), IPC_ESTALE);
		EXPECT(actor_hear(&actor), IPC_ESTALE);
		EXPECT(result_of(flight), 2);
		ipc_flight_leave(flight);
		actor_kill(&actor);
	}
	ipc_flight_table_close(table);
}

/* M-20, M-74, F-7 */
Test(flight_do, arguments_that_break_the_rules_are_refused)
{
	const struct timespec wrong = {0, -1};
	struct operation operation = {.act = act_land, .table = TABLE_NEW(0)};
	ipc_flight_table *table = operation.table;
	struct ipc_flight_result result;
	char buffer[8];

	memset(&result, 0x5e, sizeof(result));
	EXPECT(ipc_flight_do_wait(NULL, "k", 1, run, &operation, buffer, 8, &result, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_flight_do_wait(table, "k", 1, NULL, &operation, buffer, 8, &result, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_flight_do_wait(table, "k", 1, run, &operation, NULL, 8, &result, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_flight_do_wait(table, "k", 1, run, &operation, buffer, 8, NULL, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_flight_do_wait(table, "k", 1, run, &operation, buffer, 8, &result, &wrong),
	       IPC_EINVAL);
	EXPECT(ipc_flight_do_wait(table, "", 0, run, &operation, buffer, 8, &result, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_flight_do_wait(table, NULL, 1, run, &operation, buffer, 8, &result, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_flight_do_wait(table, buffer, 257, run, &operation, buffer, 8, &result, NULL),
	       IPC_EMSGSIZE);
	EXPECT(operation.n_runs, 0);
	for (unsigned i = 0; i < sizeof(result); ++i)
		cr_assert_eq(((unsigned char *)&result)[i], 0x5e);
	ipc_flight_table_close(table);
}
