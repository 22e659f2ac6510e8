/* SPDX-License-Identifier: MIT */
/*
 * flight through the public interface: asking and answering, and what the two sides of the channel
 * are to each other.
 */
#include "tests/client/flight_scene.h"

TestSuite(flight_handler, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static void asker_start(struct actor *actor)
{
	caller_start(actor);
}

static void handler_start(struct actor *actor)
{
	member_start(actor, IPC_ROLE_HANDLER, 0);
}

static ipc_flight *taken(ipc_handler *handler, uint32_t key)
{
	ipc_flight *flight = NULL;

	cr_assert_eq(take_in(&flight, handler, WAIT_MS), 0);
	ASSERT(key_of(flight), key);
	return flight;
}

/* ---- asking and answering ---- */

/* F-9 */
Test(flight_handler, many_who_ask_cost_one_call)
{
	ipc_handler *handler = handler_new(0);
	struct actor asker[3];
	ipc_flight *flight, *none = NULL;

	EXPECT(ipc_handler_take(&none, handler), IPC_EAGAIN);
	for (unsigned i = 0; i < 3; ++i) {
		asker_start(&asker[i]);
		order_begin(&asker[i], ORDER_ASK_WAIT, 1, 0);
	}
	flight = taken(handler, 1);
	EXPECT(ipc_handler_take(&none, handler), IPC_EAGAIN);
	cr_expect_null(none);
	EXPECT(ipc_flight_look(flight), 1);
	ASSERT(land(flight, 21), 0);
	for (unsigned i = 0; i < 3; ++i) {
		EXPECT(actor_hear(&asker[i]), 0);
		EXPECT(order_do(&asker[i], ORDER_RESULT, 1, 0), 21);
		EXPECT(order_do(&asker[i], ORDER_EPOCH, 1, 0), 1);
		EXPECT(order_do(&asker[i], ORDER_LEAVE, 1, 0), 0);
	}
	EXPECT(result_of(flight), 21);
	ipc_flight_leave(flight);

	/* Forgotten: whoever asks again is a new call. */
	EXPECT(order_do(&asker[0], ORDER_ASK, 1, 0), 2);
	flight = taken(handler, 1);
	ASSERT(ipc_flight_fail(flight, IPC_FAILURE_NOT_FOUND, 5, "no", 2), 0);
	EXPECT(order_do(&asker[0], ORDER_LOOK, 1, 0), 0);
	EXPECT(order_do(&asker[0], ORDER_RESULT, 1, 0), FAILED_WITH(IPC_FAILURE_NOT_FOUND));

	ipc_flight_leave(flight);
	for (unsigned i = 0; i < 3; ++i)
		actor_kill(&asker[i]);
	ipc_handler_close(handler);
}

/* F-9: a handler that sleeps is woken by the key; one that is awake answers an asker that sleeps.
 */
Test(flight_handler, key_wakes_a_handler)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;
	struct actor handler;

	handler_start(&handler);
	for (uint32_t key = 1; key < 4; ++key) {
		order_begin(&handler, ORDER_TAKE_WAIT, 0, 0);
		ASSERT(ask(&flight, table, key, 0), 2);
		ASSERT(actor_hear(&handler), key);
		ASSERT(order_do(&handler, ORDER_LAND, key, key + 10), 0);
		EXPECT(look_in(flight, WAIT_MS), 0);
		EXPECT(result_of(flight), key + 10);
		ipc_flight_leave(flight);
	}
	actor_kill(&handler);
	ipc_flight_table_close(table);
}

/* F-9: highest urgency first, oldest first within one; a joined key has the highest asked. */
Test(flight_handler, most_urgent_is_taken_first_and_of_those_the_oldest)
{
	static const struct {
		uint32_t key, urgency;
	} asked[] = {{1, 5}, {2, 9}, {3, 5}, {4, 0}, {5, 9}, {4, 7}, {3, 1}};
	static const uint32_t order[] = {2, 5, 4, 1, 3}, urgency[] = {9, 9, 7, 5, 5};
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	ipc_flight *part[7], *flight;
	struct actor late;
	uint32_t got = 0;

	asker_start(&late);

	for (unsigned i = 0; i < 7; ++i)
		ASSERT(ask(&part[i], table, asked[i].key, asked[i].urgency), 2);
	for (unsigned i = 0; i < 5; ++i) {
		flight = taken(handler, order[i]);
		EXPECT(ipc_flight_get_urgency(flight, &got), 0);
		cr_expect_eq(got, urgency[i], "key %u has %u", order[i], got);
		if (i == 0) {
			ASSERT(order_do(&late, ORDER_ASK, order[i], 50), 2);
			EXPECT(ipc_flight_get_urgency(flight, &got), 0);
			cr_expect_eq(got, 50);
		}
		land_and_leave(flight, order[i]);
	}
	for (unsigned i = 0; i < 7; ++i) {
		EXPECT(ipc_flight_look(part[i]), 0);
		EXPECT(result_of(part[i]), asked[i].key);
		ipc_flight_leave(part[i]);
	}
	EXPECT(order_do(&late, ORDER_RESULT, 2, 0), 2);
	actor_kill(&late);
	ipc_handler_close(handler);
	ipc_flight_table_close(table);
}

/* F-9: joinable from ask to completion, so that no second call starts beside it. */
Test(flight_handler, key_stays_joinable_while_it_is_answered)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor handler, second;
	ipc_flight *part[3] = {NULL};
	struct ipc_flight_result result;

	handler_start(&handler);
	handler_start(&second);
	ASSERT(ask(&part[0], table, 1, 0), 2);
	ASSERT(order_do(&handler, ORDER_TAKE, 0, 0), 1);
	ASSERT(ask(&part[1], table, 1, 0), 2);
	ASSERT(join(&part[2], table, 1), 2);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), IPC_EAGAIN);
	EXPECT(order_do(&second, ORDER_TAKE, 0, 0), IPC_EAGAIN);
	EXPECT(ipc_flight_table_count(table), 1);
	ASSERT(order_do(&handler, ORDER_LAND, 1, 4), 0);
	ASSERT(ipc_flight_get_result(part[0], &result), 0);
	cr_expect_eq(result.n_joined, 3);
	for (unsigned i = 0; i < 3; ++i) {
		EXPECT(ipc_flight_look(part[i]), 0);
		EXPECT(result_of(part[i]), 4);
		ipc_flight_leave(part[i]);
	}
	actor_kill(&handler);
	actor_kill(&second);
	ipc_flight_table_close(table);
}

/* F-8: of a handler as well: it would wait for its own answer. */
Test(flight_handler, thread_that_answers_cannot_wait_for_the_answer)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0);
	ipc_flight *flight, *asked = NULL, *none = NULL;

	ASSERT(ask(&asked, table, 1, 0), 2);
	flight = taken(handler, 1);
	EXPECT(ask_in(&none, table, 1, 0, WAIT_MS), IPC_EDEADLK);
	EXPECT(join_in(&none, table, 1, WAIT_MS), IPC_EDEADLK);
	land_and_leave(flight, 1);
	EXPECT(ipc_flight_look(asked), 0);
	ipc_flight_leave(asked);
	ipc_handler_close(handler);
	ipc_flight_table_close(table);
}

/* F-9: letting go without an answer fails it for all who joined. */
Test(flight_handler, key_that_is_let_go_is_abandoned)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *handler = handler_new(0), *second = handler_new(0);
	struct ipc_flight_result result;
	ipc_flight *flight = NULL, *none = NULL;
	struct actor asker;

	asker_start(&asker);
	order_begin(&asker, ORDER_ASK_WAIT, 1, 0);
	ASSERT(join(&flight, table, 1), 2);
	ipc_flight_leave(taken(handler, 1));
	EXPECT(actor_hear(&asker), 0);
	EXPECT(order_do(&asker, ORDER_RESULT, 1, 0), FAILED_WITH(IPC_FAILURE_ABANDONED));
	EXPECT(ipc_flight_look(flight), 0);
	ASSERT(ipc_flight_get_result(flight, &result), 0);
	cr_expect_eq(result.failure, IPC_FAILURE_ABANDONED);
	cr_expect_eq(result.size, 0);
	EXPECT(ipc_handler_take(&none, second), IPC_EAGAIN);
	ipc_flight_leave(flight);

	/* F-16: closing leaves what was taken. */
	order_do(&asker, ORDER_LEAVE, 1, 0);
	order_begin(&asker, ORDER_ASK_WAIT, 1, 0);
	(void)taken(handler, 1);
	ipc_handler_close(handler);
	EXPECT(actor_hear(&asker), 0);
	EXPECT(order_do(&asker, ORDER_RESULT, 1, 0), FAILED_WITH(IPC_FAILURE_ABANDONED));

	actor_kill(&asker);
	ipc_handler_close(second);
	ipc_flight_table_close(table);
}

/* ---- no handler, and the end of handlers ---- */

/* F-9: at the time of asking, and never later. */
Test(flight_handler, without_one_asking_is_refused_at_once)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;
	ipc_handler *handler;

	EXPECT(ask(&flight, table, 1, 0), IPC_ENOTCONN);
	EXPECT(ask_in(&flight, table, 1, 0, WAIT_MS), IPC_ENOTCONN);
	cr_expect_null(flight);
	handler = handler_new(0);
	ASSERT(ask(&flight, table, 1, 0), 2);
	ipc_flight_leave(flight);
	ipc_handler_close(handler);
	EXPECT(ipc_flight_table_peers_wait(table, false, NULL), 0);
	EXPECT(ask(&flight, table, 1, 0), IPC_ENOTCONN);
	EXPECT(ipc_flight_table_count(table), 0);
	ipc_flight_table_close(table);
}

static void end_by_close(struct actor *actor)
{
	ASSERT(order_do(actor, ORDER_CLOSE, 0, 0), 0);
}

static void end_by_kill(struct actor *actor)
{
	actor_kill(actor);
}

static void expect_end_of_queued(void (*end)(struct actor *), int said)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor handler, asker, joiner;
	ipc_flight *flight = NULL, *again = NULL;

	handler_start(&handler);
	asker_start(&asker);
	asker_start(&joiner);
	ASSERT(ask(&flight, table, 1, 0), 2);
	order_begin(&asker, ORDER_ASK_WAIT, 1, 0);
	order_begin(&joiner, ORDER_JOIN_WAIT, 1, 0);
	end(&handler);

	EXPECT(actor_hear(&asker), said);
	EXPECT(actor_hear(&joiner), said);
	EXPECT(look_in(flight, WAIT_MS), said);
	EXPECT(ipc_flight_look(flight), said);
	EXPECT(result_of(flight), said);
	EXPECT(ipc_flight_table_count(table), 0);

	/* What has ended stays so, whoever comes. */
	if (handler.fd >= 0)
		actor_kill(&handler);
	handler_start(&handler);
	EXPECT(ipc_flight_look(flight), said);
	ASSERT(ask(&again, table, 1, 0), 2);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), 1);

	ipc_flight_leave(flight);
	ipc_flight_leave(again);
	actor_kill(&asker);
	actor_kill(&joiner);
	actor_kill(&handler);
	ipc_flight_table_close(table);
}

/* F-9, F-18: whoever joined an asked key is not promoted, but told as the askers are. */
Test(flight_handler, last_one_that_closes_ends_queued_keys)
{
	expect_end_of_queued(end_by_close, IPC_EPIPE);
}

/* F-9, F-18 */
Test(flight_handler, last_one_that_dies_ends_queued_keys)
{
	expect_end_of_queued(end_by_kill, IPC_EOWNERDEAD);
}

/* M-22: also if another is there again when the asker looks. */
Test(flight_handler, end_is_told_although_another_came)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;
	struct actor handler;
	ipc_handler *next, *none = NULL;

	handler_start(&handler);
	ASSERT(ask(&flight, table, 1, 0), 2);
	actor_kill(&handler);
	ASSERT(ipc_flight_table_peers_wait(table, false, NULL), 0);
	next = handler_new(0);
	EXPECT(look_in(flight, WAIT_MS), IPC_EOWNERDEAD);
	EXPECT(ipc_handler_take((ipc_flight **)&none, next), IPC_EAGAIN);
	ipc_flight_leave(flight);
	ipc_handler_close(next);
	ipc_flight_table_close(table);
}

/* F-9 */
Test(flight_handler, keys_of_a_dead_one_go_to_another)
{
	ipc_flight_table *table = TABLE_NEW(.attempts_max = 2);
	struct actor first, second, asker;
	ipc_flight *flight = NULL;
	ipc_handler *third;

	handler_start(&first);
	handler_start(&second);
	third = handler_new(0);
	asker_start(&asker);
	order_begin(&asker, ORDER_ASK_WAIT, 1, 0);
	ASSERT(ask(&flight, table, 2, 0), 2);
	ASSERT(order_do(&first, ORDER_TAKE, 0, 0), 1);
	ASSERT(order_do(&first, ORDER_TAKE, 0, 0), 2);
	order_begin(&second, ORDER_TAKE_WAIT, 0, 0);
	actor_kill(&first);
	ASSERT(actor_hear(&second), 1);
	ASSERT(order_do(&second, ORDER_TAKE_WAIT, 0, 0), 2);
	actor_until_asleep(&asker);
	EXPECT(ipc_flight_look(flight), IPC_EAGAIN);
	ASSERT(order_do(&second, ORDER_LAND, 1, 31), 0);
	EXPECT(actor_hear(&asker), 0);
	EXPECT(order_do(&asker, ORDER_RESULT, 1, 0), 31);
	EXPECT(order_do(&asker, ORDER_EPOCH, 1, 0), 2);

	/* The other key has had its attempts. */
	actor_kill(&second);
	EXPECT(look_in(flight, WAIT_MS), IPC_EOWNERDEAD);
	ipc_flight_leave(flight);
	EXPECT(ipc_handler_take(&flight, third), IPC_EAGAIN);

	actor_kill(&asker);
	ipc_handler_close(third);
	ipc_flight_table_close(table);
}

/* F-9 */
Test(flight_handler, keys_of_a_dead_one_end_if_there_is_no_other)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor handler, asker;
	ipc_flight *flight = NULL;

	handler_start(&handler);
	asker_start(&asker);
	order_begin(&asker, ORDER_ASK_WAIT, 1, 0);
	ASSERT(ask(&flight, table, 1, 0), 2);
	ASSERT(order_do(&handler, ORDER_TAKE, 0, 0), 1);
	actor_kill(&handler);
	EXPECT(actor_hear(&asker), IPC_EOWNERDEAD);
	EXPECT(look_in(flight, WAIT_MS), IPC_EOWNERDEAD);

	ipc_flight_leave(flight);
	actor_kill(&asker);
	ipc_flight_table_close(table);
}

/* F-9: whatever becomes of the other handlers. */
Test(flight_handler, keys_of_a_live_one_survive_the_close_of_others)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor handler, other;
	ipc_flight *flight = NULL, *joined = NULL, *queued = NULL;

	handler_start(&handler);
	handler_start(&other);
	ASSERT(ask(&flight, table, 1, 0), 2);
	ASSERT(order_do(&handler, ORDER_TAKE, 0, 0), 1);
	ASSERT(order_do(&other, ORDER_CLOSE, 0, 0), 0);
	ASSERT(ask(&joined, table, 1, 0), 2);
	ASSERT(ask(&queued, table, 2, 0), 2);
	EXPECT(ipc_flight_look(flight), IPC_EAGAIN);
	ASSERT(order_do(&handler, ORDER_LAND, 1, 6), 0);
	EXPECT(ipc_flight_look(flight), 0);
	EXPECT(result_of(joined), 6);
	EXPECT(ipc_flight_look(queued), IPC_EAGAIN);
	ASSERT(order_do(&handler, ORDER_TAKE, 0, 0), 2);

	ipc_flight_leave(flight);
	ipc_flight_leave(joined);
	ipc_flight_leave(queued);
	actor_kill(&handler);
	actor_kill(&other);
	ipc_flight_table_close(table);
}

/* F-9: nobody waits any more. */
Test(flight_handler, key_of_dead_askers_is_not_handed_out)
{
	ipc_handler *handler = handler_new(IPC_STAY);
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;
	struct actor asker;
	uint64_t n = 0;

	asker_start(&asker);
	ASSERT(order_do(&asker, ORDER_ASK, 1, 9), 2);
	ASSERT(order_do(&asker, ORDER_ASK, 2, 9), 2);
	ASSERT(order_do(&asker, ORDER_LEAVE, 2, 0), 0);
	actor_kill(&asker);
	while (ipc_handler_peers(handler) != 1 && ++n < WAIT_MS)
		process_pause();
	EXPECT(ipc_handler_take(&flight, handler), IPC_EAGAIN);
	ASSERT(ask(&flight, table, 3, 0), 2);
	ipc_flight_leave(taken(handler, 3));
	ipc_flight_leave(flight);
	ipc_handler_close(handler);
	ipc_flight_table_close(table);
}

/* F-3, F-9: held for dead, and answering. */
Test(flight_handler, answer_of_one_held_for_dead_is_refused)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *second = handler_new(0);
	ipc_flight *flight = NULL, *next = NULL;
	struct actor handler;

	handler_start(&handler);
	ASSERT(ask(&flight, table, 1, 0), 2);
	ASSERT(order_do(&handler, ORDER_TAKE, 0, 0), 1);
	ASSERT(order_do(&handler, ORDER_CLOSE_FDS, 0, 0), 0);
	ASSERT(take_in(&next, second, WAIT_MS), 0);
	EXPECT(order_do(&handler, ORDER_LAND, 1, 666), IPC_ESTALE);
	EXPECT(order_do(&handler, ORDER_LEAVE, 1, 0), 0);
	EXPECT(order_do(&handler, ORDER_TAKE, 0, 0), IPC_ESTALE);
	EXPECT(order_do(&handler, ORDER_TAKE_WAIT, 0, 0), IPC_ESTALE);
	EXPECT(ipc_flight_look(flight), IPC_EAGAIN);
	ASSERT(land(next, 2), 0);
	EXPECT(result_of(flight), 2);
	EXPECT(epoch_of(flight), 2);

	ipc_flight_leave(flight);
	ipc_flight_leave(next);
	actor_kill(&handler);
	ipc_handler_close(second);
	ipc_flight_table_close(table);
}

/* F-3, F-9: it leaves before anybody has passed it over: as a dead one's, the key is queued. */
Test(flight_handler, leave_by_one_held_for_dead_abandons_nothing)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_handler *second = handler_new(0);
	ipc_flight *flight = NULL, *next = NULL;
	struct actor handler;

	handler_start(&handler);
	ASSERT(ask(&flight, table, 1, 0), 2);
	ASSERT(order_do(&handler, ORDER_TAKE, 0, 0), 1);
	ASSERT(order_do(&handler, ORDER_CLOSE_FDS, 0, 0), 0);
	for (unsigned i = 0; ipc_flight_table_peers(table) != 1 && i < WAIT_MS; ++i)
		process_pause();
	ASSERT(order_do(&handler, ORDER_LEAVE, 1, 0), 0);
	EXPECT(ipc_flight_look(flight), IPC_EAGAIN);
	ASSERT(ipc_handler_take(&next, second), 0);
	ASSERT(land(next, 3), 0);
	EXPECT(result_of(flight), 3);
	EXPECT(epoch_of(flight), 2);

	ipc_flight_leave(flight);
	ipc_flight_leave(next);
	actor_kill(&handler);
	ipc_handler_close(second);
	ipc_flight_table_close(table);
}
