/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface, with a broker: opening, pushing and taking, and what is told.
 */
#include "tests/client/queue_scene.h"

TestSuite(queue, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- opening ---- */

static int open_with(struct ipc_queue_options options)
{
	ipc_queue_producer *producer = NULL;
	ipc_queue_consumer *consumer = NULL;
	int r = producer_open(&producer, fixture_client, NAME, options);
	int r_consumer;

	ipc_queue_producer_close(producer);
	r_consumer = consumer_open(&consumer, fixture_client, NAME, options);
	ipc_queue_consumer_close(consumer);
	return r == r_consumer ? r : INT32_MIN;
}

#define OPEN(...) open_with((struct ipc_queue_options){__VA_ARGS__})

/* M-41, M-43 */
Test(queue, options_that_break_a_rule_are_refused)
{
	const uint64_t create = IPC_CREATE;

	EXPECT(OPEN(.flags = create | 0x1000000), IPC_EINVAL);
	EXPECT(OPEN(.flags = IPC_EXCLUSIVE), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .mode = 01600), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .reserved = 1), IPC_E2BIG);
	EXPECT(OPEN(.flags = create, .burst = 1), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .bytes_max = 100, .item_size_max = 101), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .item_size_max = 2 << 20), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .dead_letters = ""), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .dead_letters = "/x"), IPC_EINVAL);
	EXPECT(OPEN(0), IPC_ENOENT);
	EXPECT(exists(NAME), false);
}

/* M-76 */
Test(queue, largest_values_are_legal_and_one_more_is_not)
{
	const uint64_t create = IPC_CREATE;

	EXPECT(OPEN(.flags = create, .priorities = IPC_PRIORITIES_MAX), 0);
	EXPECT(OPEN(.flags = create, .priorities = IPC_PRIORITIES_MAX + 1), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .items_max = 1048575, .bytes_max = 4096, .priorities = 1), 0);
	EXPECT(OPEN(.flags = create, .items_max = 1048576), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .bytes_max = (UINT64_C(1) << 40) + 1), IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .bytes_max = UINT64_C(1) << 31,
		    .item_size_max = IPC_ITEM_SIZE_MAX + 1),
	       IPC_EINVAL);
	EXPECT(OPEN(.flags = create, .rate = UINT32_MAX, .burst = UINT32_MAX), 0);
	EXPECT(OPEN(.flags = create, .attempts_max = UINT32_MAX), 0);
	EXPECT(OPEN(.flags = create, .bytes_max = 1, .items_max = 1), 0);
}

/* M-76: lack of memory is all that may be in the way of the largest. */
Test(queue, largest_item_and_largest_bytes_are_refused_for_lack_of_memory_only)
{
	int r = OPEN(.flags = IPC_CREATE, .priorities = 1, .items_max = 1,
		     .bytes_max = IPC_ITEM_SIZE_MAX, .item_size_max = IPC_ITEM_SIZE_MAX);

	cr_expect(r == 0 || r == IPC_ENOSPC || r == IPC_EDQUOT, "%s", ipc_error_name(r));
	r = OPEN(.flags = IPC_CREATE, .priorities = 1, .items_max = 1,
		 .bytes_max = UINT64_C(1) << 40);
	cr_expect(r == 0 || r == IPC_ENOSPC || r == IPC_EDQUOT, "%s", ipc_error_name(r));
}

/* M-76: so many handles a queue has names for; a closed one's is free. */
Test(queue, handles_are_bounded)
{
	enum { HANDLES_MAX = 4096 };
	static ipc_queue_producer *producer[HANDLES_MAX];
	ipc_queue_producer *more = NULL;
	const struct ipc_queue_options options = {.items_max = 1, .priorities = 1};

	producer[0] = PRODUCER_NEW(.items_max = 1, .priorities = 1, .bytes_max = 64);
	for (unsigned i = 1; i < HANDLES_MAX; ++i)
		ASSERT(producer_open(&producer[i], fixture_client, NAME, options), 0);
	EXPECT(producer_open(&more, fixture_client, NAME, options), IPC_ENOSPC);
	cr_expect_null(more);
	EXPECT(push(producer[HANDLES_MAX - 1], 0, 1), IPC_QUEUED);
	producer[7] = ipc_queue_producer_close(producer[7]);
	EXPECT(producer_open(&producer[7], fixture_client, NAME, options), 0);
	for (unsigned i = 0; i < HANDLES_MAX; ++i)
		ipc_queue_producer_close(producer[i]);
}

/* M-74 */
Test(queue, arguments_that_are_not_there_are_refused)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	void *data;

	EXPECT(ipc_queue_producer_open_wait(NULL, fixture_client, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_producer_open_wait(&producer, NULL, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_producer_open_wait(&producer, fixture_client, NULL, NULL, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_queue_consumer_open_wait(NULL, fixture_client, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_consumer_open_wait(&consumer, NULL, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_consumer_open_wait(&consumer, fixture_client, NULL, NULL, NULL),
	       IPC_EINVAL);
	EXPECT(ipc_queue_push(producer, 0, NULL, 1, IPC_FULL_FAIL), IPC_EINVAL);
	EXPECT(ipc_queue_push_wait(producer, 0, NULL, 1, NULL), IPC_EINVAL);
	EXPECT(push(NULL, 0, 1), IPC_EINVAL);
	EXPECT(push((ipc_queue_producer *)consumer, 0, 1), IPC_EINVAL);
	EXPECT(push_or(producer, 0, 1, (enum ipc_full_policy)3), IPC_EINVAL);
	EXPECT(ipc_queue_claim(producer, 0, 1, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_claim_wait(producer, 0, 1, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_commit(producer, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_queue_abort(producer, &data), IPC_EINVAL);
	EXPECT(ipc_queue_producer_get_state(producer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_producer_get_id(producer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_producer_cancel(NULL), IPC_EINVAL);
	EXPECT(ipc_queue_take(consumer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_take_wait(consumer, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_take((ipc_queue_consumer *)producer, &item), IPC_EINVAL);
	EXPECT(ipc_queue_take_many(consumer, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_queue_take_many(consumer, &item, 0), IPC_EINVAL);
	EXPECT(ipc_queue_take_many_wait(consumer, &item, 0, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_ack(consumer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_requeue(consumer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_reject(consumer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_ack_many(consumer, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_queue_shutdown(NULL), IPC_EINVAL);
	EXPECT(ipc_queue_consumer_get_state(consumer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_consumer_get_id(consumer, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_consumer_cancel(NULL), IPC_EINVAL);
	cr_expect_null(ipc_queue_producer_close(NULL));
	cr_expect_null(ipc_queue_consumer_close(NULL));

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-43: a zero fits every shape, each option by itself. */
Test(queue, another_shape_is_refused)
{
	ipc_queue_producer *producer =
		PRODUCER_NEW(.priorities = 3, .items_max = 10, .bytes_max = 5000,
			     .item_size_max = 100, .rate = 7, .burst = 9, .attempts_max = 5);
	ipc_watch_producer *watch = NULL;
	ipc_queue_producer *other = NULL;
	const struct ipc_queue_options fits[] = {
		{0},
		{.priorities = 3},
		{.items_max = 10},
		{.bytes_max = 5000},
		{.item_size_max = 100},
		{.rate = 7},
		{.attempts_max = 5},
	};
	const struct ipc_queue_options differs[] = {
		{.priorities = 2},   {.items_max = 11},
		{.bytes_max = 5001}, {.item_size_max = 99},
		{.rate = 8},         {.attempts_max = 4},
		{.flags = IPC_KEEP}, {.rate = 7, .burst = 8},
	};

	for (unsigned i = 0; i < sizeof(fits) / sizeof(fits[0]); ++i) {
		EXPECT(producer_open(&other, fixture_client, NAME, fits[i]), 0);
		other = ipc_queue_producer_close(other);
	}
	for (unsigned i = 0; i < sizeof(differs) / sizeof(differs[0]); ++i) {
		EXPECT(producer_open(&other, fixture_client, NAME, differs[i]), IPC_EPROTOTYPE);
		other = ipc_queue_producer_close(other);
	}
	EXPECT(producer_open(&other, fixture_client, NAME,
			     (struct ipc_queue_options){.flags = IPC_CREATE | IPC_EXCLUSIVE}),
	       IPC_EEXIST);
	EXPECT(produce(&watch, NAME, IPC_CREATE), IPC_EPROTOTYPE);

	ipc_queue_producer_close(producer);
}

/* M-43, Q-16: the queue is waited for, its dead letters are not. */
Test(queue, open_waits_for_the_queue_that_it_awaits)
{
	const struct member awaiting = {
		.name = NAME, .role = IPC_ROLE_QUEUE_CONSUMER, .options = {.flags = IPC_AWAIT}};
	ipc_queue_producer *producer;
	struct actor actor;

	EXPECT(OPEN(.flags = IPC_AWAIT, .dead_letters = DEAD), IPC_ENOENT);
	EXPECT(ipc_queue_producer_open_wait(&producer, fixture_client, NAME,
					    IPC_QUEUE_OPTIONS(.flags = IPC_AWAIT), &past),
	       IPC_ETIMEDOUT);
	actor_start(&actor, member_run, (void *)&awaiting);
	producer = PRODUCER_NEW(0);
	ASSERT(actor_hear(&actor), 0);
	ASSERT(push(producer, 0, 3), IPC_QUEUED);
	EXPECT(order_do(&actor, ORDER_TAKE, 0, 0), 3);

	actor_kill(&actor);
	ipc_queue_producer_close(producer);
}

/* M-41: the defaults, as far as they can be seen. */
Test(queue, zero_in_an_option_is_its_default)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0), *other = NULL;
	struct ipc_channel_info info;

	EXPECT(state_of(producer).priorities, 2);
	ASSERT(info_of(NAME, &info), 0);
	EXPECT(info.kind, IPC_KIND_QUEUE);
	EXPECT(info.item_size_max, 65536);
	ASSERT(producer_open(&other, fixture_client, NAME,
			     (struct ipc_queue_options){.priorities = 2,
							.items_max = 1024,
							.bytes_max = 1 << 20,
							.item_size_max = 65536,
							.attempts_max = 3}),
	       0);
	ipc_queue_producer_close(other);
	ipc_queue_producer_close(producer);

	producer = PRODUCER_NEW(.bytes_max = 1000, .rate = 4);
	ASSERT(producer_open(
		       &other, fixture_client, NAME,
		       (struct ipc_queue_options){.item_size_max = 1000, .rate = 4, .burst = 4}),
	       0);
	ipc_queue_producer_close(other);
	ipc_queue_producer_close(producer);
}

/* ---- push, take ---- */

/* Q-1, M-46, M-71: the order is that of the pushes; nothing of an item is lost. */
Test(queue, items_come_as_they_were_pushed)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0), *second = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	uint64_t before = clock_now_ns(), id;
	struct ipc_queue_item item, copy;

	ASSERT(ipc_queue_producer_get_id(second, &id), 0);
	ASSERT(push(producer, 1, 1), IPC_QUEUED);
	ASSERT(push(second, 1, 2), IPC_QUEUED);
	ASSERT(push(producer, 1, 3), IPC_QUEUED);

	EXPECT(eat(consumer), 1);
	memset(&item, 0xff, sizeof(item));
	ASSERT(take(consumer, &item), 2);
	EXPECT(item.origin, id);
	cr_expect_geq(item.enqueued_ns, before);
	cr_expect_leq(item.enqueued_ns, clock_now_ns());
	EXPECT(item.priority, 1);
	EXPECT(item.attempt, 1);
	EXPECT(item.reason, IPC_DEAD_NONE);
	EXPECT(item.reserved32, 0);
	cr_expect_null(item.source);
	cr_expect_eq((uintptr_t)item.data % 16, 0);
	for (unsigned i = 0; i < 4; ++i)
		EXPECT(item.reserved[i], 0);
	EXPECT(eat(consumer), 3);
	EXPECT(eat(consumer), IPC_EAGAIN);

	/* A copy of the struct is as good. */
	copy = item;
	EXPECT(ipc_queue_ack(consumer, &copy), 0);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(second);
	ipc_queue_producer_close(producer);
}

/* M-72 */
Test(queue, size_0_is_a_legal_item)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	void *claim = NULL;

	ASSERT(ipc_queue_push(producer, 0, NULL, 0, IPC_FULL_FAIL), IPC_QUEUED);
	ASSERT(ipc_queue_claim(producer, 0, 0, &claim), 0);
	cr_assert_not_null(claim);
	ASSERT(ipc_queue_commit(producer, claim, 0), 0);
	for (unsigned i = 0; i < 2; ++i) {
		ASSERT(ipc_queue_take(consumer, &item), 0);
		cr_expect_null(item.data);
		EXPECT(item.size, 0);
		EXPECT(ipc_queue_ack(consumer, &item), 0);
	}

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-76, Q-13 */
Test(queue, largest_item_passes_and_one_more_byte_does_not)
{
	static unsigned char bytes[301];
	ipc_queue_producer *producer = PRODUCER_NEW(.item_size_max = 300);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	void *claim;

	memset(bytes, 0x5a, sizeof(bytes));
	EXPECT(ipc_queue_push(producer, 0, bytes, 301, IPC_FULL_DROP), IPC_EMSGSIZE);
	EXPECT(ipc_queue_push_wait(producer, 0, bytes, 301, &past), IPC_EMSGSIZE);
	EXPECT(ipc_queue_claim(producer, 0, 301, &claim), IPC_EMSGSIZE);
	EXPECT(ipc_queue_claim_wait(producer, 0, SIZE_MAX, &claim, &past), IPC_EMSGSIZE);
	ASSERT(ipc_queue_push(producer, 0, bytes, 300, IPC_FULL_FAIL), IPC_QUEUED);
	ASSERT(ipc_queue_take(consumer, &item), 0);
	ASSERT(item.size, 300);
	EXPECT(memcmp(item.data, bytes, 300), 0);

	/* A priority that the queue lacks. */
	EXPECT(push(producer, 2, 1), IPC_EINVAL);
	EXPECT(push_in(producer, UINT32_MAX, 1, 0), IPC_EINVAL);
	EXPECT(ipc_queue_claim(producer, 2, 1, &claim), IPC_EINVAL);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* full by items and full by bytes. */
Test(queue, full_queue_follows_the_policy)
{
	static const unsigned char bytes[4096];
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 2, .bytes_max = 4096);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_state state;

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(push(producer, 0, 2), IPC_QUEUED);
	EXPECT(push(producer, 0, 3), IPC_EAGAIN);
	EXPECT(push_or(producer, 0, 3, IPC_FULL_DROP), IPC_DROPPED);
	EXPECT(push_or(producer, 0, 3, IPC_FULL_DEAD_LETTER), IPC_EINVAL);

	/* Each priority has room of its own. */
	ASSERT(ipc_queue_push(producer, 1, bytes, 3000, IPC_FULL_FAIL), IPC_QUEUED);
	EXPECT(ipc_queue_push(producer, 1, bytes, 2000, IPC_FULL_FAIL), IPC_EAGAIN);
	EXPECT(ipc_queue_push(producer, 1, bytes, 2000, IPC_FULL_DROP), IPC_DROPPED);
	EXPECT(ipc_queue_push(producer, 1, bytes, 1000, IPC_FULL_FAIL), IPC_QUEUED);

	/* Even where there is room. */
	EXPECT(eat(consumer), 1);
	EXPECT(push_or(producer, 0, 3, IPC_FULL_DEAD_LETTER), IPC_EINVAL);
	state = state_of(producer);
	EXPECT(state.dropped[0][IPC_DEAD_FULL], 1);
	EXPECT(state.dropped[1][IPC_DEAD_FULL], 1);
	EXPECT(state.dead_lettered[0][IPC_DEAD_FULL], 0);
	EXPECT(state.queued[0], 2);
	EXPECT(state.bytes[1], 4000);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-76 */
Test(queue, many_are_taken_at_once)
{
	static struct ipc_queue_item items[IPC_MANY_MAX + 10];
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 1100);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);

	EXPECT(ipc_queue_take_many(consumer, items, 3), IPC_EAGAIN);
	EXPECT(ipc_queue_take_many_wait(consumer, items, 3, &past), IPC_ETIMEDOUT);
	for (uint32_t i = 0; i < 1100; ++i)
		ASSERT(push(producer, 0, i), IPC_QUEUED);

	ASSERT(ipc_queue_take_many(consumer, items, 3), 3);
	EXPECT(number_of(&items[2]), 2);
	ASSERT(ipc_queue_ack_many(consumer, items, 3), 3);
	ASSERT(ipc_queue_take_many(consumer, items, UINT32_MAX), IPC_MANY_MAX);
	EXPECT(number_of(&items[IPC_MANY_MAX - 1]), IPC_MANY_MAX + 2);
	ASSERT(ipc_queue_ack_many(consumer, items, IPC_MANY_MAX), IPC_MANY_MAX);
	ASSERT(ipc_queue_take_many_wait(consumer, items, 100, NULL), 1100 - 3 - IPC_MANY_MAX);
	EXPECT(state_at(consumer).n_leased, 1100 - 3 - IPC_MANY_MAX);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* the number before the first that fails, or its error. */
Test(queue, ack_of_many_stops_at_the_first_that_fails)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item items[4];

	for (uint32_t i = 0; i < 4; ++i)
		ASSERT(push(producer, 0, i), IPC_QUEUED);
	ASSERT(ipc_queue_take_many(consumer, items, 4), 4);
	ASSERT(ipc_queue_ack(consumer, &items[2]), 0);

	EXPECT(ipc_queue_ack_many(consumer, items, 4), 2);
	EXPECT(ipc_queue_ack_many(consumer, items, 4), IPC_ESTALE);
	EXPECT(ipc_queue_ack_many(consumer, &items[3], 1), 1);
	EXPECT(ipc_queue_ack_many(consumer, items, 0), 0);
	EXPECT(state_at(consumer).acknowledged[0], 4);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* ---- state ---- */

/* */
Test(queue, counts_add_up)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.priorities = 1, .attempts_max = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item items[5];
	struct ipc_queue_state state;
	void *claim;

	for (uint32_t i = 0; i < 6; ++i)
		ASSERT(push(producer, 0, i), IPC_QUEUED);
	ASSERT(ipc_queue_claim(producer, 0, 8, &claim), 0);
	ASSERT(ipc_queue_take_many(consumer, items, 5), 5);
	ASSERT(ipc_queue_ack(consumer, &items[0]), 0);
	ASSERT(ipc_queue_ack(consumer, &items[1]), 0);
	ASSERT(ipc_queue_reject(consumer, &items[2]), 0);
	ASSERT(ipc_queue_requeue(consumer, &items[3]), 0);
	(void)eat(consumer);

	state = state_of(producer);
	EXPECT(state.size, sizeof(state));
	EXPECT(state.priorities, 1);
	EXPECT(state.queued[0], 6);
	EXPECT(state.acknowledged[0], 3);
	EXPECT(state.leased[0], 1);
	EXPECT(state.n_leased, 1);
	EXPECT(state.items[0], 0);
	EXPECT(state.bytes[0], 0);
	EXPECT(state.dropped[0][IPC_DEAD_REJECTED], 1);
	EXPECT(state.dropped[0][IPC_DEAD_ATTEMPTS], 1);
	EXPECT(state_missing(&state, 0), 0);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-46 */
Test(queue, state_is_as_large_as_the_caller_says)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_state state;

	memset(&state, 0xff, sizeof(state));
	state.size = offsetof(struct ipc_queue_state, n_leased);
	EXPECT(ipc_queue_producer_get_state(producer, &state), 0);
	EXPECT(state.priorities, 2);
	EXPECT(state.n_leased, UINT32_MAX);
	EXPECT(ipc_queue_consumer_get_state(consumer, &state), 0);
	EXPECT(state.n_leased, UINT32_MAX);
	state.size = sizeof(size_t) - 1;
	EXPECT(ipc_queue_producer_get_state(producer, &state), IPC_EINVAL);
	EXPECT(ipc_queue_consumer_get_state(consumer, &state), IPC_EINVAL);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-42: any thread of a forked child gets nothing but that. */
static void use_in_child(struct actor *self, void *arg)
{
	void **handles = arg;
	struct ipc_queue_item item;

	actor_say(self, push(handles[0], 0, 1));
	actor_say(self, ipc_queue_take(handles[1], &item));
	ipc_queue_producer_close(handles[0]);
	ipc_queue_consumer_close(handles[1]);
	actor_say(self, 0);
}

/* M-42 */
Test(queue, forked_child_has_nothing_of_it)
{
	ipc_queue_consumer *letters = queue_consumer_new(DEAD, (struct ipc_queue_options){0});
	ipc_queue_producer *producer = PRODUCER_NEW(.dead_letters = DEAD);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct actor child;

	ASSERT(push(producer, 0, 7), IPC_QUEUED);
	ASSERT(take(consumer, &item), 7);
	actor_start(&child, use_in_child, (void *[]){producer, consumer});
	EXPECT(actor_hear(&child), IPC_ECHILD);
	EXPECT(actor_hear(&child), IPC_ECHILD);
	EXPECT(actor_hear(&child), 0);
	EXPECT(actor_join(&child), 0);

	EXPECT(number_of(&item), 7);
	EXPECT(ipc_queue_reject(consumer, &item), 0);
	EXPECT(eat(letters), 7);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
	ipc_queue_consumer_close(letters);
}
