/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface: what a side hears of the other one's end.
 */
#include "tests/client/queue_scene.h"

TestSuite(queue_ends, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static int end_by(bool dies)
{
	return dies ? IPC_EOWNERDEAD : IPC_EPIPE;
}

static void until_gone(ipc_queue_producer *producer)
{
	ASSERT(ipc_queue_producer_peers_wait(producer, false, NULL), 0);
}

/* ---- the end of consumers, without IPC_KEEP ---- */

static void expect_end_of_calls(ipc_queue_producer *producer, void *claim, int end)
{
	void *none = NULL;

	EXPECT(push(producer, 0, 1), end);
	EXPECT(push_or(producer, 0, 1, IPC_FULL_DROP), end);
	EXPECT(push_in(producer, 0, 1, 0), end);
	EXPECT(ipc_queue_push_wait(producer, 1, "x", 1, NULL), end);
	EXPECT(ipc_queue_claim(producer, 0, 1, &none), end);
	EXPECT(ipc_queue_claim_wait(producer, 0, 1, &none, NULL), end);
	EXPECT(ipc_queue_commit(producer, claim, 1), end);
	EXPECT(ipc_queue_commit_wait(producer, claim, 1, NULL), end);
	EXPECT(ipc_queue_abort(producer, claim), 0);
	cr_expect_null(none);
}

static void expect_end_after(bool dies, uint64_t flags)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = flags);
	struct actor consumer;
	struct ipc_queue_state state;
	void *claim;

	CONSUMER_START(&consumer, 0);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(ipc_queue_claim(producer, 0, 1, &claim), 0);
	member_end(&consumer, dies);
	until_gone(producer);

	/* */
	EXPECT(exists(NAME), false);
	expect_end_of_calls(producer, claim, end_by(dies));
	state = state_of(producer);
	EXPECT(state.dropped[0][IPC_DEAD_CONSUMER_GONE], 1);
	EXPECT(state_missing(&state, 0), 0);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_ends, queue_ends_with_the_death_of_its_last_consumer)
{
	expect_end_after(true, 0);
}

/* */
Test(queue_ends, queue_ends_with_the_close_of_its_last_consumer)
{
	expect_end_after(false, 0);
}

/* M-22: that end is final, also for those who stay. */
Test(queue_ends, final_end_is_told_to_one_that_stays)
{
	expect_end_after(true, IPC_STAY);
}

/* Q-3, M-22: those who sleep for room, in any call; nobody's slice is waited for. */
Test(queue_ends, waits_for_room_end_with_the_last_consumer)
{
	enum { N = 3 };

	for (unsigned dies = 0; dies < 2; ++dies) {
		struct actor consumer, producer[N];

		CONSUMER_START(&consumer, .flags = IPC_CREATE, .items_max = 1, .rate = 1,
			       .burst = 1);
		for (unsigned i = 0; i < N; ++i)
			PRODUCER_START(&producer[i], .flags = i == 1 ? IPC_STAY : 0);
		ASSERT(order_do(&producer[2], ORDER_CLAIM, 1, 0), 0);
		ASSERT(order_do(&producer[0], ORDER_PUSH, 0, 0), IPC_QUEUED);
		order_sleep(&producer[0], ORDER_PUSH_WAIT, 0, 0);
		order_sleep(&producer[1], ORDER_CLAIM_WAIT, 0, 0);
		member_end(&consumer, dies);
		for (unsigned i = 0; i < 2; ++i)
			EXPECT(actor_hear(&producer[i]), end_by(dies));
		EXPECT(order_do(&producer[2], ORDER_COMMIT_WAIT, 0, 0), end_by(dies));
		for (unsigned i = 0; i < N; ++i)
			actor_kill(&producer[i]);
	}
}

/* and those who sleep for a token. */
Test(queue_ends, waits_for_a_token_end_with_the_last_consumer)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(.rate = 1, .burst = 1);
	struct actor pushing, committing;

	PRODUCER_START(&pushing, 0);
	PRODUCER_START(&committing, 0);
	ASSERT(order_do(&committing, ORDER_CLAIM, 0, 2), 0);
	ASSERT(order_do(&pushing, ORDER_PUSH, 0, 0), IPC_QUEUED);
	order_sleep(&pushing, ORDER_PUSH_WAIT, 0, 1);
	order_sleep(&committing, ORDER_COMMIT_WAIT, 0, 0);
	ipc_queue_consumer_close(consumer);
	EXPECT(actor_hear(&pushing), IPC_EPIPE);
	EXPECT(actor_hear(&committing), IPC_EPIPE);
	actor_kill(&pushing);
	actor_kill(&committing);
}

/* an old handle has its end, and never the successor. */
Test(queue_ends, successor_of_the_name_is_another_queue)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0), *next = NULL;
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_channel_info first, second;

	ASSERT(info_of(NAME, &first), 0);
	ipc_queue_consumer_close(consumer);
	until_gone(producer);
	EXPECT(producer_open(&next, fixture_client, NAME, (struct ipc_queue_options){0}),
	       IPC_ENOENT);
	consumer = CONSUMER_NEW(.priorities = 5);
	ASSERT(info_of(NAME, &second), 0);
	cr_expect_gt(second.generation, first.generation);
	EXPECT(push(producer, 0, 1), IPC_EPIPE);
	EXPECT(eat(consumer), IPC_EAGAIN);
	ASSERT(producer_open(&next, fixture_client, NAME, (struct ipc_queue_options){0}), 0);
	ASSERT(push(next, 4, 2), IPC_QUEUED);
	EXPECT(eat(consumer), 2);

	ipc_queue_producer_close(producer);
	EXPECT(push(next, 4, 2), IPC_QUEUED);
	ipc_queue_producer_close(next);
	ipc_queue_consumer_close(consumer);
}

/* M-22, Q-8: a consumer side that is awaited ends nothing. */
Test(queue_ends, queue_without_a_consumer_yet_accepts_until_it_is_full)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 2);
	ipc_queue_consumer *consumer;

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(push(producer, 0, 2), IPC_QUEUED);
	EXPECT(push(producer, 0, 3), IPC_EAGAIN);
	EXPECT(push_in(producer, 0, 3, 20), IPC_ETIMEDOUT);
	EXPECT(look(producer, IPC_READY_PEER_GONE), IPC_ETIMEDOUT);
	consumer = CONSUMER_NEW(0);
	EXPECT(eat(consumer), 1);
	EXPECT(eat(consumer), 2);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* some are left. */
Test(queue_ends, queue_goes_on_with_another_consumer)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct actor dead;

	CONSUMER_START(&dead, 0);
	member_end(&dead, true);
	EXPECT(push(producer, 0, 1), IPC_QUEUED);
	EXPECT(eat(consumer), 1);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* ---- kept ---- */

/* accepts until it is full, and what is full says so as it was asked to. */
Test(queue_ends, kept_queue_accepts_until_it_is_full)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP, .items_max = 3);
	ipc_queue_consumer *next = NULL;
	struct actor consumer;
	void *claim = NULL, *none = NULL;

	CONSUMER_START(&consumer, 0);
	member_end(&consumer, true);
	until_gone(producer);
	EXPECT(push(producer, 0, 1), IPC_QUEUED);
	EXPECT(push_in(producer, 0, 2, WAIT_MS), 0);
	ASSERT(ipc_queue_claim_wait(producer, 0, 4, &claim, NULL), 0);
	EXPECT(look(producer, IPC_READY_WRITABLE), IPC_READY_WRITABLE);
	memcpy(claim, &(uint32_t){3}, 4);

	EXPECT(push(producer, 0, 4), IPC_EAGAIN);
	EXPECT(push_or(producer, 0, 4, IPC_FULL_DROP), IPC_DROPPED);
	EXPECT(push_in(producer, 0, 4, WAIT_MS), IPC_EOWNERDEAD);
	EXPECT(ipc_queue_claim(producer, 0, 4, &none), IPC_EAGAIN);
	EXPECT(ipc_queue_claim_wait(producer, 0, 4, &none, NULL), IPC_EOWNERDEAD);
	EXPECT(ipc_queue_commit(producer, claim, 4), 0);

	/* A new one drains it. */
	ASSERT(consumer_open(&next, fixture_client, NAME, (struct ipc_queue_options){0}), 0);
	for (unsigned i = 1; i <= 3; ++i)
		EXPECT(eat(next), i);
	EXPECT(push_in(producer, 0, 5, WAIT_MS), 0);

	ipc_queue_consumer_close(next);
	ipc_queue_producer_close(producer);
	ASSERT(take_away(NAME, 0), 0);
}

/* Q-19, M-22 */
Test(queue_ends, one_that_stays_sleeps_at_a_full_kept_queue)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP, .items_max = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = IPC_KEEP);
	struct actor staying;

	PRODUCER_START(&staying, .flags = IPC_STAY);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	order_sleep(&staying, ORDER_PUSH_WAIT, 0, 2);
	ipc_queue_consumer_close(consumer);
	until_gone(producer);
	EXPECT(push_in(producer, 0, 3, WAIT_MS), IPC_EPIPE);
	actor_until_asleep(&staying);

	consumer = CONSUMER_NEW(.flags = IPC_KEEP);
	EXPECT(eat(consumer), 1);
	EXPECT(actor_hear(&staying), 0);
	EXPECT(eat(consumer), 2);

	actor_kill(&staying);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
	ASSERT(take_away(NAME, 0), 0);
}

/* M-22: ends are counted; that somebody has come again does not matter. */
Test(queue_ends, wait_ends_also_if_the_side_is_present_again)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = IPC_KEEP, .items_max = 1);
	struct actor producer;

	PRODUCER_START(&producer, 0);
	ASSERT(order_do(&producer, ORDER_PUSH, 0, 1), IPC_QUEUED);
	order_sleep(&producer, ORDER_PUSH_WAIT, 0, 2);
	cr_assert_eq(kill(producer.pid, SIGSTOP), 0);
	ipc_queue_consumer_close(consumer);
	consumer = CONSUMER_NEW(.flags = IPC_KEEP);
	cr_assert_eq(kill(producer.pid, SIGCONT), 0);
	EXPECT(actor_hear(&producer), IPC_EPIPE);
	EXPECT(order_do(&producer, ORDER_PUSH, 0, 2), IPC_EAGAIN);

	actor_kill(&producer);
	ipc_queue_consumer_close(consumer);
	ASSERT(take_away(NAME, 0), 0);
}

/* there is room; the token comes by time, whoever is there. */
Test(queue_ends, kept_queue_without_a_consumer_is_waited_for_by_rate)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP, .rate = 20, .burst = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = IPC_KEEP);

	ipc_queue_consumer_close(consumer);
	until_gone(producer);
	for (uint32_t i = 0; i < 4; ++i)
		EXPECT(push_in(producer, 0, i, WAIT_MS), 0);

	ipc_queue_producer_close(producer);
	ASSERT(take_away(NAME, 0), 0);
}

/* M-43: kept with what is in it, also without any handle. */
Test(queue_ends, kept_queue_outlives_its_handles)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP);
	ipc_queue_consumer *consumer;

	ASSERT(push(producer, 1, 7), IPC_QUEUED);
	ipc_queue_producer_close(producer);
	EXPECT(exists(NAME), true);
	consumer = CONSUMER_NEW(.flags = IPC_KEEP);
	EXPECT(eat(consumer), 7);
	ipc_queue_consumer_close(consumer);
	EXPECT(exists(NAME), true);
	ASSERT(take_away(NAME, 0), 0);
	EXPECT(exists(NAME), false);
}

/* ---- the end of producers ---- */

static void expect_drained_after(bool dies)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct actor producer, waiter;

	PRODUCER_START(&producer, 0);
	CONSUMER_START(&waiter, 0);
	order_sleep(&waiter, ORDER_TAKE_WAIT, 0, 0);
	member_end(&producer, dies);
	EXPECT(actor_hear(&waiter), end_by(dies));
	EXPECT(order_do(&waiter, ORDER_TAKE, 0, 0), end_by(dies));

	PRODUCER_START(&producer, 0);
	EXPECT(eat(consumer), IPC_EAGAIN);
	ASSERT(order_do(&producer, ORDER_PUSH, 0, 1), IPC_QUEUED);
	ASSERT(order_do(&producer, ORDER_PUSH, 1, 2), IPC_QUEUED);
	member_end(&producer, dies);
	EXPECT(eat_in(consumer, WAIT_MS), 1);
	EXPECT(eat(consumer), 2);
	EXPECT(take_in(consumer, &item, WAIT_MS), end_by(dies));
	EXPECT(take(consumer, &item), end_by(dies));
	EXPECT(ipc_queue_take_many(consumer, &item, 1), end_by(dies));
	EXPECT(look(consumer, IPC_READY_READABLE), IPC_READY_END);

	actor_kill(&waiter);
	ipc_queue_consumer_close(consumer);
}

/* Q-7, M-22 */
Test(queue_ends, everything_is_drained_before_the_producers_death_is_told)
{
	expect_drained_after(true);
}

/* */
Test(queue_ends, everything_is_drained_before_the_producers_close_is_told)
{
	expect_drained_after(false);
}

/* M-22 */
Test(queue_ends, consumer_that_stays_sleeps_on_without_producers)
{
	struct actor consumer, producer;

	CONSUMER_START(&consumer, .flags = IPC_CREATE | IPC_STAY);
	PRODUCER_START(&producer, 0);
	order_sleep(&consumer, ORDER_TAKE_WAIT, 0, 0);
	member_end(&producer, true);
	actor_until_asleep(&consumer);
	PRODUCER_START(&producer, 0);
	ASSERT(order_do(&producer, ORDER_PUSH, 0, 5), IPC_QUEUED);
	EXPECT(actor_hear(&consumer), 5);
	member_end(&producer, false);
	EXPECT(order_do(&consumer, ORDER_TAKE, 0, 0), IPC_EAGAIN);

	actor_kill(&consumer);
}

/* M-23: the own handle of the other side is one. */
Test(queue_ends, own_producer_counts_for_the_own_consumer)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct actor other;

	PRODUCER_START(&other, 0);
	EXPECT(ipc_queue_consumer_peers(consumer), 2);
	member_end(&other, true);
	EXPECT(eat(consumer), IPC_EAGAIN);
	ipc_queue_producer_close(producer);
	ASSERT(ipc_queue_consumer_peers_wait(consumer, false, NULL), 0);
	EXPECT(eat(consumer), IPC_EPIPE);

	ipc_queue_consumer_close(consumer);
}

/* the end is told; what comes back later is for a later call. */
Test(queue_ends, take_does_not_wait_for_what_others_have_leased)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0), *other = CONSUMER_NEW(0);
	struct ipc_queue_item item;

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(take(other, &item), 1);
	ipc_queue_producer_close(producer);
	ASSERT(ipc_queue_consumer_peers_wait(consumer, false, NULL), 0);
	EXPECT(eat_in(consumer, WAIT_MS), IPC_EPIPE);
	ASSERT(ipc_queue_requeue(other, &item), 0);
	EXPECT(eat_in(consumer, WAIT_MS), 1);
	EXPECT(eat(consumer), IPC_EPIPE);

	ipc_queue_consumer_close(other);
	ipc_queue_consumer_close(consumer);
}

/* ---- shutdown, removal ---- */

/* Q-19, M-22: final for everybody; what is there is drained, and goes back. */
Test(queue_ends, shutdown_refuses_what_is_new_and_drains)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP | IPC_STAY), *late = NULL;
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = IPC_KEEP | IPC_STAY);
	struct ipc_queue_item item;
	void *claim, *none;

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(push(producer, 1, 2), IPC_QUEUED);
	ASSERT(ipc_queue_claim(producer, 0, 4, &claim), 0);
	ASSERT(take(consumer, &item), 1);
	ASSERT(ipc_queue_shutdown(consumer), 0);
	EXPECT(push(producer, 0, 3), IPC_EPIPE);
	EXPECT(push_or(producer, 0, 3, IPC_FULL_DROP), IPC_EPIPE);
	EXPECT(push_in(producer, 0, 3, WAIT_MS), IPC_EPIPE);
	EXPECT(ipc_queue_claim(producer, 0, 4, &none), IPC_EPIPE);
	EXPECT(ipc_queue_claim_wait(producer, 0, 4, &none, NULL), IPC_EPIPE);
	EXPECT(ipc_queue_commit(producer, claim, 4), IPC_EPIPE);
	EXPECT(ipc_queue_commit_wait(producer, claim, 4, NULL), IPC_EPIPE);
	EXPECT(ipc_queue_abort(producer, claim), 0);
	EXPECT(look(producer, IPC_READY_WRITABLE), IPC_READY_END);

	ASSERT(ipc_queue_requeue(consumer, &item), 0);
	EXPECT(look(consumer, IPC_READY_READABLE), IPC_READY_READABLE);
	EXPECT(eat(consumer), 1);
	EXPECT(eat_in(consumer, WAIT_MS), 2);
	EXPECT(eat(consumer), IPC_EPIPE);
	EXPECT(eat_in(consumer, WAIT_MS), IPC_EPIPE);
	EXPECT(look(consumer, IPC_READY_READABLE), IPC_READY_END);
	EXPECT(ipc_queue_shutdown(consumer), 0);

	/* It stays shut. */
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
	ASSERT(producer_open(&late, fixture_client, NAME, (struct ipc_queue_options){0}), 0);
	EXPECT(push(late, 0, 1), IPC_EPIPE);
	ipc_queue_producer_close(late);
	ASSERT(take_away(NAME, 0), 0);
}

/* Q-19, M-21 */
Test(queue_ends, shutdown_ends_waits_of_both_sides)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(.items_max = 1, .priorities = 1);
	struct ipc_queue_item item;
	struct actor taking, pushing, claiming;

	CONSUMER_START(&taking, .flags = IPC_STAY);
	PRODUCER_START(&pushing, .flags = IPC_STAY);
	PRODUCER_START(&claiming, 0);
	ASSERT(order_do(&pushing, ORDER_PUSH, 0, 1), IPC_QUEUED);
	ASSERT(take(consumer, &item), 1);
	order_sleep(&taking, ORDER_TAKE_WAIT, 0, 0);
	order_sleep(&pushing, ORDER_PUSH_WAIT, 0, 2);
	order_sleep(&claiming, ORDER_CLAIM_WAIT, 0, 2);
	ASSERT(ipc_queue_shutdown(consumer), 0);
	EXPECT(actor_hear(&pushing), IPC_EPIPE);
	EXPECT(actor_hear(&claiming), IPC_EPIPE);
	EXPECT(actor_hear(&taking), IPC_EPIPE);

	actor_kill(&taking);
	actor_kill(&pushing);
	actor_kill(&claiming);
	ipc_queue_consumer_close(consumer);
}

/* M-48: open handles go on and drain; with its last consumer the end is final, kept or not. */
Test(queue_ends, removed_queue_goes_on_until_its_last_consumer)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP | IPC_STAY);
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = IPC_KEEP);

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(take_away(NAME, 0), 0);
	EXPECT(exists(NAME), false);
	EXPECT(push(producer, 0, 2), IPC_QUEUED);
	EXPECT(eat(consumer), 1);
	EXPECT(eat(consumer), 2);
	ASSERT(push(producer, 0, 3), IPC_QUEUED);
	ipc_queue_consumer_close(consumer);
	until_gone(producer);
	EXPECT(push(producer, 0, 4), IPC_EPIPE);
	EXPECT(state_of(producer).dropped[0][IPC_DEAD_CONSUMER_GONE], 1);

	ipc_queue_producer_close(producer);
}
