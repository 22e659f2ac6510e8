/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface: dead letters.
 */
#include "tests/client/queue_scene.h"

/* What most of these begin with: a queue of dead letters, and one whose they are. */
static ipc_queue_consumer *letters;
static ipc_queue_producer *producer;
static ipc_queue_consumer *consumer;

static void begin_with(struct ipc_queue_options options)
{
	options.dead_letters = DEAD;
	letters = queue_consumer_new(DEAD, (struct ipc_queue_options){.priorities = 2});
	producer = queue_producer_new(NAME, options);
	consumer = CONSUMER_NEW(0);
}

#define BEGIN(...) begin_with((struct ipc_queue_options){__VA_ARGS__})

static void teardown(void)
{
	letters = ipc_queue_consumer_close(letters);
	consumer = ipc_queue_consumer_close(consumer);
	producer = ipc_queue_producer_close(producer);
	fixture_teardown();
}

TestSuite(queue_dead, .init = fixture_setup, .fini = teardown, .timeout = 60);

/* The next dead letter is this one, and has all that a dead letter has. */
static void expect_letter(uint32_t number, uint32_t priority, enum ipc_dead_reason reason)
{
	struct ipc_queue_item item;
	uint64_t id;

	ASSERT(ipc_queue_producer_get_id(producer, &id), 0);
	ASSERT(take(letters, &item), number);
	EXPECT(item.reason, reason);
	EXPECT(item.priority, priority);
	EXPECT(item.attempt, 1);
	EXPECT(item.origin, id);
	cr_expect_leq(item.enqueued_ns, clock_now_ns());
	cr_expect_gt(item.enqueued_ns, 0);
	cr_assert_not_null(item.source);
	cr_expect_str_eq(item.source, NAME);
	EXPECT(ipc_queue_ack(letters, &item), 0);
}

/* ---- reasons ---- */

/* */
Test(queue_dead, what_finds_no_room_is_a_dead_letter)
{
	BEGIN(.items_max = 1);

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(push_or(producer, 0, 2, IPC_FULL_DEAD_LETTER), IPC_DEAD_LETTERED);
	EXPECT(state_of(producer).dead_lettered[0][IPC_DEAD_FULL], 1);
	EXPECT(state_of(producer).queued[0], 1);
	expect_letter(2, 0, IPC_DEAD_FULL);
	EXPECT(push_or(producer, 0, 3, IPC_FULL_FAIL), IPC_EAGAIN);
	EXPECT(push_or(producer, 0, 3, IPC_FULL_DROP), IPC_DROPPED);
	EXPECT(eat(letters), IPC_EAGAIN);
	EXPECT(eat(consumer), 1);
}

/* the time is that of the first push. */
Test(queue_dead, rejected_item_is_a_dead_letter)
{
	struct ipc_queue_item item, letter;

	BEGIN(0);
	ASSERT(push(producer, 1, 7), IPC_QUEUED);
	ASSERT(push(producer, 1, 8), IPC_QUEUED);
	ASSERT(take(consumer, &item), 7);
	ASSERT(ipc_queue_reject(consumer, &item), 0);
	ASSERT(take(letters, &letter), 7);
	EXPECT(letter.enqueued_ns, item.enqueued_ns);
	ASSERT(ipc_queue_requeue(letters, &letter), 0);
	ASSERT(take(letters, &letter), 7);
	EXPECT(letter.attempt, 2);
	EXPECT(letter.reason, IPC_DEAD_REJECTED);
	cr_expect_str_eq(letter.source, NAME);
	ASSERT(ipc_queue_ack(letters, &letter), 0);

	ASSERT(take(consumer, &item), 8);
	ASSERT(ipc_queue_reject(consumer, &item), 0);
	expect_letter(8, 1, IPC_DEAD_REJECTED);
	EXPECT(state_at(consumer).dead_lettered[1][IPC_DEAD_REJECTED], 2);
}

/* */
Test(queue_dead, item_with_too_many_attempts_is_a_dead_letter)
{
	struct ipc_queue_item item;
	struct ipc_queue_state state;

	BEGIN(.attempts_max = 2);
	ASSERT(push(producer, 0, 5), IPC_QUEUED);
	for (unsigned i = 0; i < 2; ++i) {
		ASSERT(take(consumer, &item), 5);
		ASSERT(ipc_queue_requeue(consumer, &item), 0);
	}
	EXPECT(take(consumer, &item), IPC_EAGAIN);
	expect_letter(5, 0, IPC_DEAD_ATTEMPTS);
	state = state_at(consumer);
	EXPECT(state.dead_lettered[0][IPC_DEAD_ATTEMPTS], 1);
	EXPECT(state_missing(&state, 0), 0);
}

/* moved by the next consumer. */
Test(queue_dead, item_that_kills_its_consumers_is_a_dead_letter)
{
	struct actor dead;

	BEGIN(.attempts_max = 1);
	ASSERT(push(producer, 0, 6), IPC_QUEUED);
	CONSUMER_START(&dead, 0);
	ASSERT(order_do(&dead, ORDER_TAKE, 0, 0), 6);
	member_end(&dead, true);
	EXPECT(eat(consumer), IPC_EAGAIN);
	expect_letter(6, 0, IPC_DEAD_ATTEMPTS);
}

static void expect_all_moved_after(bool dies)
{
	struct ipc_queue_state state;
	struct actor last;

	BEGIN(0);
	CONSUMER_START(&last, 0);
	consumer = ipc_queue_consumer_close(consumer);
	(void)exists(NAME); /* The broker has heard of this end before that of the last one. */
	for (uint32_t i = 1; i <= 3; ++i)
		ASSERT(push(producer, i % 2, i), IPC_QUEUED);
	ASSERT(order_do(&last, ORDER_TAKE, 0, 0), 2);
	member_end(&last, dies);

	EXPECT(push(producer, 0, 4), dies ? IPC_EOWNERDEAD : IPC_EPIPE);
	state = state_of(producer);
	EXPECT(state.dead_lettered[0][IPC_DEAD_CONSUMER_GONE], 1);
	EXPECT(state.dead_lettered[1][IPC_DEAD_CONSUMER_GONE], 2);
	EXPECT(state_missing(&state, 0), 0);
	EXPECT(state_missing(&state, 1), 0);
	expect_letter(2, 0, IPC_DEAD_CONSUMER_GONE);
	expect_letter(1, 1, IPC_DEAD_CONSUMER_GONE);
	expect_letter(3, 1, IPC_DEAD_CONSUMER_GONE);
	EXPECT(eat(letters), IPC_EAGAIN);
}

/* by the next call of a producer, leased ones too. */
Test(queue_dead, all_items_are_dead_letters_when_the_last_consumer_died)
{
	expect_all_moved_after(true);
}

/* */
Test(queue_dead, all_items_are_dead_letters_when_the_last_consumer_closed)
{
	expect_all_moved_after(false);
}

/* close is a call, too. */
Test(queue_dead, producer_that_only_closes_leaves_nothing_behind)
{
	struct ipc_queue_item item;

	BEGIN(0);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	consumer = ipc_queue_consumer_close(consumer);
	ASSERT(ipc_queue_producer_peers_wait(producer, false, NULL), 0);
	producer = ipc_queue_producer_close(producer);
	ASSERT(take(letters, &item), 1);
	EXPECT(item.reason, IPC_DEAD_CONSUMER_GONE);
}

/* ---- where they go ---- */

/* a priority that is lacking there is its lowest; no rate token is needed. */
Test(queue_dead, moving_takes_the_lowest_priority_and_no_token)
{
	struct ipc_queue_item item;

	letters = queue_consumer_new(
		DEAD, (struct ipc_queue_options){.priorities = 2, .rate = 1, .burst = 1});
	producer = PRODUCER_NEW(.priorities = 4, .dead_letters = DEAD);
	consumer = CONSUMER_NEW(0);
	for (uint32_t i = 0; i < 4; ++i)
		ASSERT(push(producer, i, i), IPC_QUEUED);
	for (uint32_t i = 0; i < 4; ++i) {
		ASSERT(take(consumer, &item), i);
		ASSERT(ipc_queue_reject(consumer, &item), 0);
	}
	for (uint32_t i = 0; i < 4; ++i) {
		ASSERT(take(letters, &item), i);
		EXPECT(item.priority, i < 1 ? i : 1);
	}
}

static void reject_next(uint32_t number)
{
	struct ipc_queue_item item;

	ASSERT(take(consumer, &item), number);
	ASSERT(ipc_queue_reject(consumer, &item), 0);
}

/* */
Test(queue_dead, full_queue_of_dead_letters_drops_and_that_is_counted)
{
	letters = queue_consumer_new(DEAD, (struct ipc_queue_options){.items_max = 1});
	producer = PRODUCER_NEW(.items_max = 2, .dead_letters = DEAD);
	consumer = CONSUMER_NEW(0);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(push(producer, 0, 2), IPC_QUEUED);
	reject_next(1);
	reject_next(2);
	EXPECT(state_at(consumer).dead_lettered[0][IPC_DEAD_REJECTED], 1);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_REJECTED], 1);

	ASSERT(push(producer, 0, 3), IPC_QUEUED);
	ASSERT(push(producer, 0, 4), IPC_QUEUED);
	EXPECT(push_or(producer, 0, 5, IPC_FULL_DEAD_LETTER), IPC_DROPPED);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_FULL], 1);
	EXPECT(eat(letters), 1);
	EXPECT(push_or(producer, 0, 5, IPC_FULL_DEAD_LETTER), IPC_DEAD_LETTERED);
	EXPECT(eat(letters), 5);
}

/* */
Test(queue_dead, dead_letters_for_smaller_items_drop_larger_ones)
{
	static const unsigned char bytes[200];
	struct ipc_queue_item item;

	letters = queue_consumer_new(DEAD, (struct ipc_queue_options){.item_size_max = 100});
	producer = PRODUCER_NEW(.items_max = 1, .dead_letters = DEAD);
	consumer = CONSUMER_NEW(0);
	ASSERT(ipc_queue_push(producer, 0, bytes, 200, IPC_FULL_FAIL), IPC_QUEUED);
	EXPECT(ipc_queue_push(producer, 0, bytes, 200, IPC_FULL_DEAD_LETTER), IPC_DROPPED);
	ASSERT(ipc_queue_take(consumer, &item), 0);
	ASSERT(ipc_queue_reject(consumer, &item), 0);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_REJECTED], 1);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_FULL], 1);
	EXPECT(eat(letters), IPC_EAGAIN);
}

/* */
Test(queue_dead, dead_letters_that_are_shut_or_ended_drop)
{
	BEGIN(0);
	for (uint32_t i = 1; i <= 3; ++i)
		ASSERT(push(producer, 0, i), IPC_QUEUED);
	reject_next(1);
	ASSERT(ipc_queue_shutdown(letters), 0);
	reject_next(2);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_REJECTED], 1);
	EXPECT(eat(letters), 1);
	EXPECT(eat(letters), IPC_EPIPE);
	letters = ipc_queue_consumer_close(letters);
	reject_next(3);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_REJECTED], 2);
}

/* whoever waits for a dead letter is woken by one. */
Test(queue_dead, dead_letter_wakes_who_waits_for_one)
{
	struct actor reader;

	BEGIN(0);
	member_start(&reader, (struct member){.name = DEAD, .role = IPC_ROLE_QUEUE_CONSUMER});
	ASSERT(push(producer, 0, 9), IPC_QUEUED);
	order_sleep(&reader, ORDER_TAKE_WAIT, 0, 0);
	reject_next(9);
	EXPECT(actor_hear(&reader), 9);
	actor_kill(&reader);
}

/* ---- opening ---- */

static int open_with(struct ipc_queue_options options)
{
	ipc_queue_producer *opened = NULL;
	int r = producer_open(&opened, fixture_client, NAME, options);

	ipc_queue_producer_close(opened);
	return r;
}

#define OPEN(...) open_with((struct ipc_queue_options){__VA_ARGS__})

/* */
Test(queue_dead, dead_letters_have_to_be_there_and_have_none)
{
	const uint64_t create = IPC_CREATE;

	EXPECT(OPEN(.flags = create, .dead_letters = DEAD), IPC_ENOENT);
	EXPECT(OPEN(.flags = create, .dead_letters = NAME), IPC_EINVAL);
	EXPECT(exists(NAME), false);
	letters = queue_consumer_new("other", (struct ipc_queue_options){0});
	producer = queue_producer_new(DEAD, (struct ipc_queue_options){.dead_letters = "other"});
	EXPECT(OPEN(.flags = create, .dead_letters = DEAD), IPC_EINVAL);
	EXPECT(exists(NAME), false);
}

/* its name belongs to something else. */
Test(queue_dead, dead_letters_are_a_queue)
{
	ipc_watch_producer *watch = producer_new(DEAD);

	EXPECT(OPEN(.flags = IPC_CREATE, .dead_letters = DEAD), IPC_EPROTOTYPE);
	ipc_watch_producer_close(watch);
}

/* Q-16, M-43: dead letters shape the queue. */
Test(queue_dead, other_dead_letters_are_refused)
{
	ipc_queue_consumer *other = queue_consumer_new("other", (struct ipc_queue_options){0});

	BEGIN(0);
	EXPECT(OPEN(.dead_letters = DEAD), 0);
	EXPECT(OPEN(0), 0);
	EXPECT(OPEN(.dead_letters = "other"), IPC_EPROTOTYPE);
	consumer = ipc_queue_consumer_close(consumer);
	producer = ipc_queue_producer_close(producer);
	producer = PRODUCER_NEW(0);
	EXPECT(OPEN(.dead_letters = DEAD), IPC_EPROTOTYPE);
	ipc_queue_consumer_close(other);
}

/* whoever opens it without naming them has them all the same; where they are gone, it is not
 * opened. */
Test(queue_dead, dead_letters_come_with_the_queue)
{
	struct actor member;

	letters = queue_consumer_new(DEAD, (struct ipc_queue_options){0});
	producer = PRODUCER_NEW(.items_max = 1, .dead_letters = DEAD);
	consumer = CONSUMER_NEW(0);
	CONSUMER_START(&member, 0);
	ASSERT(push(producer, 0, 3), IPC_QUEUED);
	ASSERT(order_do(&member, ORDER_TAKE, 0, 0), 3);
	ASSERT(order_do(&member, ORDER_REJECT, 0, 0), 0);
	expect_letter(3, 0, IPC_DEAD_REJECTED);
	actor_kill(&member);

	letters = ipc_queue_consumer_close(letters);
	EXPECT(OPEN(0), IPC_ENOENT);
	EXPECT(push(producer, 0, 4), IPC_QUEUED);
}

/* Q-16, M-50: whoever opens the queue moves its items, and so has to write there. */
Test(queue_dead, dead_letters_need_the_right_to_write)
{
	const struct member other = {.role = IPC_ROLE_QUEUE_CONSUMER, .uid = OTHER_UID};
	struct actor actor;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	BEGIN(.mode = 0666);
	EXPECT(member_try(&actor, other), IPC_EACCES);
	actor_kill(&actor);
	consumer = ipc_queue_consumer_close(consumer);
	producer = ipc_queue_producer_close(producer);
	letters = ipc_queue_consumer_close(letters);

	letters = queue_consumer_new(DEAD, (struct ipc_queue_options){.mode = 0666});
	producer = PRODUCER_NEW(.mode = 0666, .dead_letters = DEAD);
	consumer = CONSUMER_NEW(0);
	EXPECT(member_try(&actor, other), 0);
	ASSERT(push(producer, 0, 5), IPC_QUEUED);
	ASSERT(order_do(&actor, ORDER_TAKE, 0, 0), 5);
	ASSERT(order_do(&actor, ORDER_REJECT, 0, 0), 0);
	expect_letter(5, 0, IPC_DEAD_REJECTED);
	actor_kill(&actor);
}

/* that handle is not counted, and keeps nothing alive. */
Test(queue_dead, handles_of_dead_letters_are_not_counted)
{
	BEGIN(0);
	EXPECT(ipc_queue_consumer_peers(letters), 0);
	EXPECT(eat(letters), IPC_EAGAIN);
	letters = ipc_queue_consumer_close(letters);
	EXPECT(exists(DEAD), false);
}

/* M-44, Q-16: closed with the last thread that leaves, and nothing of them stays. */
Test(queue_dead, many_handles_come_and_go)
{
	BEGIN(0);
	for (unsigned i = 0; i < 50; ++i)
		ASSERT(OPEN(0), 0);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	reject_next(1);
	expect_letter(1, 0, IPC_DEAD_REJECTED);
}
