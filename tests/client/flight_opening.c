/* SPDX-License-Identifier: MIT */
/*
 * Opening tables and handlers: options, shapes, arguments, and the sides of the channel.
 */
#include <sys/ipc.h>

#include "tests/client/flight_scene.h"

TestSuite(flight_opening, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- opening ---- */

static int open_with(struct ipc_flight_table_options *options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_flight_table *table = NULL;
	int r;

	r = ipc_flight_table_open_wait(&table, fixture_client, "test/options", options, &deadline);
	cr_expect_eq(table == NULL, r < 0);
	ipc_flight_table_close(table);
	return r;
}

#define OPEN_WITH(...)                                                                             \
	open_with(&(struct ipc_flight_table_options){                                              \
		.size = sizeof(struct ipc_flight_table_options), __VA_ARGS__})

/* M-41, M-43, M-47, M-76 */
Test(flight_opening, options_that_break_the_rules_are_refused)
{
	struct {
		struct ipc_flight_table_options known;
		uint64_t future;
	} longer = {.known = {.size = sizeof(longer), .flags = IPC_CREATE}, .future = 1};

	EXPECT(open_with(NULL), IPC_ENOENT);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE | IPC_KEEP), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREAT), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_EXCLUSIVE), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE | UINT64_C(1) << 40), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE, .mode = 01000), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE, .key_size_max = IPC_KEY_SIZE_MAX + 1), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE, .result_size_max = IPC_ITEM_SIZE_MAX + 1),
	       IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE, .keys_max = UINT32_MAX), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE, .keys_max = 1, .key_size_max = IPC_KEY_SIZE_MAX,
			 .attempts_max = UINT32_MAX),
	       0);
	EXPECT(open_with(&longer.known), IPC_E2BIG);
	longer.future = 0;
	EXPECT(open_with(&longer.known), 0);
	EXPECT(open_with(&(struct ipc_flight_table_options){.size = 1}), IPC_EINVAL);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE | IPC_EXCLUSIVE | IPC_STAY, .mode = 0600), 0);
}

/* M-43 */
Test(flight_opening, shape_is_the_creators)
{
	ipc_flight_table *table = NULL, *none = NULL;
	ipc_handler *handler = NULL;

	cr_assert_eq(table_open(&table, fixture_client, "test/options",
				(struct ipc_flight_table_options){
					.flags = IPC_CREATE | IPC_FLIGHT_TABLE_NO_PROMOTE,
					.keys_max = 2,
					.attempts_max = 7}),
		     0);
	EXPECT(OPEN_WITH(.keys_max = 3), IPC_EPROTOTYPE);
	EXPECT(OPEN_WITH(.attempts_max = 3), IPC_EPROTOTYPE);
	EXPECT(OPEN_WITH(.key_size_max = 1), IPC_EPROTOTYPE);
	EXPECT(OPEN_WITH(.result_size_max = 1), IPC_EPROTOTYPE);
	EXPECT(OPEN_WITH(.keys_max = 2, .attempts_max = 7, .key_size_max = 256,
			 .result_size_max = 65536),
	       0);
	EXPECT(OPEN_WITH(.flags = IPC_FLIGHT_TABLE_NO_PROMOTE), 0);
	EXPECT(OPEN_WITH(.flags = IPC_CREATE | IPC_EXCLUSIVE), IPC_EEXIST);
	EXPECT(handler_open(&handler, fixture_client, "test/options",
			    (struct ipc_flight_table_options){0}),
	       0);
	ipc_flight_table_close(table);
	ipc_handler_close(handler);

	table = TABLE_NEW(0);
	EXPECT(table_open(&none, fixture_client, NAME,
			  (struct ipc_flight_table_options){.flags = IPC_FLIGHT_TABLE_NO_PROMOTE}),
	       IPC_EPROTOTYPE);
	ipc_flight_table_close(table);
}

/* M-20, M-74 */
Test(flight_opening, arguments_that_break_the_rules_are_refused)
{
	const struct timespec wrong = {0, 1000000000};
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	ipc_flight *flight = NULL, *none = NULL;
	struct ipc_flight_result result;
	const void *key;
	uint32_t urgency;
	uint64_t number;
	size_t size;

	EXPECT(ipc_flight_join(NULL, table, "k", 1), IPC_EINVAL);
	EXPECT(ipc_flight_join(&none, NULL, "k", 1), IPC_EINVAL);
	EXPECT(ipc_flight_join(&none, (ipc_flight_table *)handler, "k", 1), IPC_EINVAL);
	EXPECT(ipc_flight_join(&none, table, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_flight_join_wait(&none, table, "k", 1, &wrong), IPC_EINVAL);
	EXPECT(ipc_flight_ask_wait(&none, table, "k", 1, 0, &wrong), IPC_EINVAL);
	EXPECT(ipc_flight_ask(NULL, table, "k", 1, 0), IPC_EINVAL);
	EXPECT(ipc_handler_take(NULL, handler), IPC_EINVAL);
	EXPECT(ipc_handler_take(&none, (ipc_handler *)table), IPC_EINVAL);
	EXPECT(ipc_handler_take_wait(&none, handler, &wrong), IPC_EINVAL);
	EXPECT(ipc_flight_table_count(NULL), IPC_EINVAL);
	EXPECT(ipc_flight_table_count((ipc_flight_table *)handler), IPC_EINVAL);
	cr_expect_null(none);

	ASSERT(ipc_flight_join(&flight, table, "k", 1), 1);
	EXPECT(ipc_flight_look((ipc_flight *)table), IPC_EINVAL);
	EXPECT(ipc_flight_look(NULL), IPC_EINVAL);
	EXPECT(ipc_flight_look_wait(flight, &wrong), IPC_EINVAL);
	EXPECT(ipc_flight_land(NULL, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_flight_land(flight, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_flight_fail(flight, IPC_FAILURE_LOCAL, 0, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_flight_get_key(flight, NULL, &size), IPC_EINVAL);
	EXPECT(ipc_flight_get_key(flight, &key, NULL), IPC_EINVAL);
	EXPECT(ipc_flight_get_key(NULL, &key, &size), IPC_EINVAL);
	EXPECT(ipc_flight_get_urgency(flight, NULL), IPC_EINVAL);
	EXPECT(ipc_flight_get_urgency(NULL, &urgency), IPC_EINVAL);
	EXPECT(ipc_flight_get_fence(flight, NULL), IPC_EINVAL);
	EXPECT(ipc_flight_get_fence(NULL, &number), IPC_EINVAL);
	EXPECT(ipc_flight_get_result(flight, NULL), IPC_EINVAL);
	EXPECT(ipc_flight_get_result(NULL, &result), IPC_EINVAL);
	EXPECT(ipc_flight_cancel(NULL), IPC_EINVAL);
	cr_expect_null(ipc_flight_leave(NULL));
	cr_expect_null(ipc_flight_table_close(NULL));
	cr_expect_null(ipc_handler_close(NULL));
	cr_expect_null(ipc_flight_leave(flight));

	ipc_handler_close(handler);
	ipc_flight_table_close(table);
}

/* M-32 */
Test(flight_opening, tables_and_handlers_are_each_others_peers)
{
	ipc_flight_table *table = TABLE_NEW(0), *second = TABLE_NEW(0);
	struct timespec deadline = domain_deadline(1);
	ipc_handler *handler;
	uint64_t id = 0, other = 0;

	EXPECT(ipc_flight_table_peers(table), 0);
	EXPECT(ipc_flight_table_peers_wait(table, true, &deadline), IPC_ETIMEDOUT);
	handler = handler_new(0);
	EXPECT(ipc_flight_table_peers_wait(table, true, NULL), 0);
	EXPECT(ipc_flight_table_peers(table), 1);
	EXPECT(ipc_handler_peers(handler), 2);
	EXPECT(ipc_flight_table_get_id(table, &id), 0);
	EXPECT(ipc_handler_get_id(handler, &other), 0);
	cr_expect_neq(id, other);
	EXPECT(ipc_client_is_alive(fixture_client, other), 1);

	ipc_handler_close(handler);
	EXPECT(ipc_flight_table_peers_wait(table, false, NULL), 0);
	EXPECT(ipc_client_is_alive(fixture_client, other), 0);
	ipc_flight_table_close(second);
	ipc_flight_table_close(table);
}
