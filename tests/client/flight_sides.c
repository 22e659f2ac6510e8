/* SPDX-License-Identifier: MIT */
/*
 * flight through the public interface: handlers and tables that stay, the end of tables, and joins
 * and asks of one key.
 */
#include "tests/client/flight_scene.h"

TestSuite(flight_sides, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static void handler_start(struct actor *actor)
{
	member_start(actor, IPC_ROLE_HANDLER, 0);
}

static void end_by_kill(struct actor *actor)
{
	actor_kill(actor);
}

/* ---- the end of tables ---- */

/* M-22 */
Test(flight_sides, wait_ends_with_the_last_table)
{
	struct actor handler, table;

	handler_start(&handler);
	order_begin(&handler, ORDER_TAKE_WAIT, 0, 0);
	caller_start(&table);
	actor_until_asleep(&handler);
	ASSERT(order_do(&table, ORDER_CLOSE, 0, 0), 0);
	EXPECT(actor_hear(&handler), IPC_EPIPE);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), IPC_EPIPE);
	EXPECT(order_do(&handler, ORDER_TAKE_WAIT, 0, 0), IPC_EPIPE);
	actor_kill(&table);

	caller_start(&table);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), IPC_EAGAIN);
	order_begin(&handler, ORDER_TAKE_WAIT, 0, 0);
	actor_kill(&table);
	EXPECT(actor_hear(&handler), IPC_EOWNERDEAD);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), IPC_EOWNERDEAD);
	actor_kill(&handler);
}

/* F-18, M-22 */
Test(flight_sides, one_that_stays_sleeps_on_without_tables)
{
	ipc_flight_table *table;
	ipc_flight *flight = NULL;
	struct actor handler, caller;

	member_start(&handler, IPC_ROLE_HANDLER, IPC_STAY);
	caller_start(&caller);
	order_begin(&handler, ORDER_TAKE_WAIT, 0, 0);
	actor_kill(&caller);
	caller_start(&caller);
	ASSERT(order_do(&caller, ORDER_CLOSE, 0, 0), 0);
	actor_until_asleep(&handler);

	table = TABLE_NEW(0);
	ASSERT(ask(&flight, table, 2, 0), 2);
	EXPECT(actor_hear(&handler), 2);
	ASSERT(order_do(&handler, ORDER_LAND, 2, 8), 0);
	EXPECT(result_of(flight), 8);
	ipc_flight_leave(flight);
	ipc_flight_table_close(table);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), IPC_EAGAIN);
	actor_kill(&handler);
	actor_kill(&caller);
}

/* F-18, M-22: its keys are queued until one takes them, and no absence ends them. */
Test(flight_sides, table_that_stays_asks_without_one)
{
	ipc_flight_table *table = TABLE_NEW(.flags = IPC_STAY), *plain = TABLE_NEW(0);
	ipc_flight *flight = NULL, *other = NULL;
	struct actor handler;

	ASSERT(ask(&flight, table, 1, 0), 2);
	EXPECT(ask(&other, plain, 2, 0), IPC_ENOTCONN);
	EXPECT(ask_in(&other, table, 3, 0, 20), IPC_ETIMEDOUT);
	for (unsigned i = 0; i < 2; ++i) {
		handler_start(&handler);
		i == 0 ? actor_kill(&handler) : (void)order_do(&handler, ORDER_CLOSE, 0, 0);
		ASSERT(ipc_flight_table_peers_wait(table, false, NULL), 0);
		EXPECT(ipc_flight_look(flight), IPC_EAGAIN);
	}
	actor_kill(&handler);
	EXPECT(look_in(flight, 20), IPC_ETIMEDOUT);
	EXPECT(ipc_flight_table_count(table), 1);

	handler_start(&handler);
	ASSERT(order_do(&handler, ORDER_TAKE, 0, 0), 1);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), IPC_EAGAIN);
	ASSERT(order_do(&handler, ORDER_LAND, 1, 4), 0);
	EXPECT(ipc_flight_look(flight), 0);
	EXPECT(result_of(flight), 4);

	ipc_flight_leave(flight);
	actor_kill(&handler);
	ipc_flight_table_close(plain);
	ipc_flight_table_close(table);
}

/* ---- joins and asks of one key ---- */

/* F-18 */
Test(flight_sides, asker_of_a_joined_key_follows_its_leader)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	ipc_flight *asked = NULL, *none = NULL;
	struct actor leader;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(ask(&asked, table, 1, 0), 2);
	EXPECT(ipc_handler_take(&none, handler), IPC_EAGAIN);
	ASSERT(order_do(&leader, ORDER_LAND, 1, 3), 0);
	EXPECT(ipc_flight_look(asked), 0);
	EXPECT(result_of(asked), 3);
	ipc_flight_leave(asked);
	actor_kill(&leader);
	ipc_handler_close(handler);
	ipc_flight_table_close(table);
}

static void expect_queued_at_the_end_of(void (*end)(struct actor *))
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor leader, handler;
	ipc_flight *asked = NULL, *joined = NULL;

	handler_start(&handler);
	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(ask(&asked, table, 1, 0), 2);
	ASSERT(join(&joined, table, 1), 2);
	order_begin(&handler, ORDER_TAKE_WAIT, 0, 0);
	end(&leader);

	ASSERT(actor_hear(&handler), 1);
	EXPECT(ipc_flight_look(asked), IPC_EAGAIN);
	EXPECT(ipc_flight_look(joined), IPC_EAGAIN);
	ASSERT(order_do(&handler, ORDER_LAND, 1, 9), 0);
	EXPECT(ipc_flight_look(asked), 0);
	EXPECT(result_of(asked), 9);
	EXPECT(result_of(joined), 9);
	EXPECT(epoch_of(asked), 2);

	ipc_flight_leave(asked);
	ipc_flight_leave(joined);
	if (leader.fd >= 0)
		actor_kill(&leader);
	actor_kill(&handler);
	ipc_flight_table_close(table);
}

static void end_by_leave(struct actor *actor)
{
	ASSERT(order_do(actor, ORDER_LEAVE, 1, 0), 0);
}

/* F-18 */
Test(flight_sides, key_of_a_dead_leader_is_queued_if_it_was_asked_for)
{
	expect_queued_at_the_end_of(end_by_kill);
}

/* F-18 */
Test(flight_sides, key_of_a_leader_that_leaves_is_queued_if_it_was_asked_for)
{
	expect_queued_at_the_end_of(end_by_leave);
}

/*
 * F-2, F-18: with nobody to queue it for, those who joined go on among themselves.  Whoever asked
 * is told, or gets the result of who was promoted.
 */
Test(flight_sides, without_one_a_lost_lead_goes_to_those_who_joined)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	ipc_flight *asked = NULL, *joined = NULL;
	struct actor leader;
	int r;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(ask(&asked, table, 1, 0), 2);
	ASSERT(join(&joined, table, 1), 2);
	ipc_handler_close(handler);
	ASSERT(ipc_flight_table_peers_wait(table, false, NULL), 0);
	EXPECT(ipc_flight_look(asked), IPC_EAGAIN);
	actor_kill(&leader);
	EXPECT(look_in(joined, WAIT_MS), 1);
	ASSERT(land(joined, 5), 0);
	r = look_in(asked, WAIT_MS);
	EXPECT(r == 0 ? result_of(asked) : r, r == 0 ? 5 : IPC_EOWNERDEAD);

	ipc_flight_leave(asked);
	ipc_flight_leave(joined);
	ipc_flight_table_close(table);
}
