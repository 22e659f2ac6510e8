/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface: which priority comes next, and how often.
 */
#include "tests/client/queue_scene.h"

TestSuite(queue_order, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static int fairness(ipc_queue_consumer *consumer, uint32_t run_max, uint64_t slice_ns)
{
	const struct ipc_queue_fairness fairness = {
		.size = sizeof(fairness), .run_max = run_max, .slice_ns = slice_ns};

	return ipc_queue_set_fairness(consumer, &fairness);
}

static void push_many(ipc_queue_producer *producer, unsigned priority, unsigned n)
{
	for (uint32_t i = 0; i < n; ++i)
		ASSERT(push(producer, priority, priority * 1000 + i), IPC_QUEUED);
}

/* Takes and acknowledges n: their priorities, as digits. */
static const char *order_of(ipc_queue_consumer *consumer, unsigned n)
{
	static char text[4096];
	uint32_t next[IPC_PRIORITIES_MAX] = {0};
	unsigned i;

	for (i = 0; i < n; ++i) {
		struct ipc_queue_item item;
		int64_t number = take(consumer, &item);

		if (number < 0)
			break;

		/* FIFO within a priority. */
		EXPECT(number, item.priority * 1000 + next[item.priority]);
		++next[item.priority];
		EXPECT(ipc_queue_ack(consumer, &item), 0);
		text[i] = (char)('0' + item.priority);
	}
	text[i] = '\0';
	return text;
}

/* the two fixed orders. */
Test(queue_order, after_a_run_one_comes_from_a_lower_priority)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);

	ASSERT(fairness(consumer, 2, 0), 0);
	push_many(producer, 0, 5);
	push_many(producer, 1, 1);
	cr_expect_str_eq(order_of(consumer, 6), "001000");

	ASSERT(fairness(consumer, 3, 0), 0);
	push_many(producer, 0, 6);
	push_many(producer, 1, 2);
	cr_expect_str_eq(order_of(consumer, 8), "00010001");

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* the default is 8, and NULL sets it. */
Test(queue_order, run_of_the_default_is_eight)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);

	for (unsigned i = 0; i < 3; ++i) {
		if (i == 1) {
			ASSERT(fairness(consumer, 1, 0), 0);
			ASSERT(ipc_queue_set_fairness(consumer, NULL), 0);
		}
		if (i == 2)
			ASSERT(fairness(consumer, 0, 0), 0);
		push_many(producer, 0, 10);
		push_many(producer, 1, 1);
		cr_expect_str_eq(order_of(consumer, 11), "00000000100");
	}

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_order, lower_priorities_take_turns)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.priorities = 3);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	const char *order;

	ASSERT(fairness(consumer, 2, 0), 0);
	push_many(producer, 0, 8);
	push_many(producer, 1, 2);
	push_many(producer, 2, 2);
	order = order_of(consumer, 12);
	cr_expect(strcmp(order, "001002001002") == 0 || strcmp(order, "002001002001") == 0, "%s",
		  order);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* (run_max + 1) x (priorities - 1) items of others, whichever priority it is. */
Test(queue_order, every_priority_waits_for_so_many_at_most)
{
	enum { N = 8, RUN = 3, EACH = 60 };
	ipc_queue_producer *producer = PRODUCER_NEW(.priorities = N);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	unsigned waited[N] = {0}, left[N], most = 0;
	const char *order;

	ASSERT(fairness(consumer, RUN, 0), 0);
	for (unsigned i = 0; i < N; ++i) {
		push_many(producer, i, EACH);
		left[i] = EACH;
	}

	order = order_of(consumer, N * EACH);
	ASSERT(strlen(order), N * EACH);
	for (unsigned i = 0; order[i]; ++i) {
		unsigned taken = (unsigned)(order[i] - '0');

		--left[taken];
		for (unsigned other = 0; other < N; ++other)
			waited[other] = other == taken || !left[other] ? 0 : waited[other] + 1;
		for (unsigned other = 0; other < N; ++other)
			most = waited[other] > most ? waited[other] : most;
	}
	cr_expect_leq(most, (RUN + 1) * (N - 1), "%u", most);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* what is taken while no lower one waits is not counted. */
Test(queue_order, run_begins_when_a_lower_priority_waits)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);

	ASSERT(fairness(consumer, 2, 0), 0);
	push_many(producer, 0, 5);
	cr_expect_str_eq(order_of(consumer, 5), "00000");
	push_many(producer, 0, 3);
	push_many(producer, 1, 1);
	cr_expect_str_eq(order_of(consumer, 4), "0010");

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_order, strict_means_that_lower_ones_wait)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	const char *order;

	ASSERT(fairness(consumer, IPC_FAIRNESS_STRICT, 0), 0);
	push_many(producer, 1, 1);
	push_many(producer, 0, 500);
	order = order_of(consumer, 501);
	EXPECT(strlen(order), 501);
	EXPECT(strchr(order, '1') - order, 500);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* also when the run has lasted long enough. */
Test(queue_order, slice_of_time_ends_a_run)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct timespec later;

	ASSERT(fairness(consumer, IPC_FAIRNESS_STRICT, 20 * NS_PER_MS), 0);
	push_many(producer, 0, 3);
	push_many(producer, 1, 2);
	cr_expect_str_eq(order_of(consumer, 1), "0");

	ipc_deadline_after(&later, 30 * NS_PER_MS);
	EXPECT(ipc_queue_producer_peers_wait(producer, false, &later), IPC_ETIMEDOUT);
	{
		struct ipc_queue_item item;

		EXPECT(take(consumer, &item), 1000);
		EXPECT(take(consumer, &item), 1);
	}

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* the queue's, for all consumers; whoever sets it resets the count. */
Test(queue_order, fairness_is_the_queues)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0), *other = CONSUMER_NEW(0);
	struct ipc_queue_fairness bad = {.size = sizeof(bad), .reserved = 1};

	EXPECT(ipc_queue_set_fairness(consumer, &bad), IPC_E2BIG);
	bad.size = 3;
	EXPECT(ipc_queue_set_fairness(consumer, &bad), IPC_EINVAL);

	ASSERT(fairness(other, 2, 0), 0);
	push_many(producer, 0, 6);
	push_many(producer, 1, 2);
	EXPECT(eat(consumer), 0);
	EXPECT(eat(other), 1);
	EXPECT(eat(consumer), 1000);

	EXPECT(eat(other), 2);
	ASSERT(fairness(consumer, 2, 0), 0);
	EXPECT(eat(other), 3);
	EXPECT(eat(consumer), 4);
	EXPECT(eat(other), 1001);

	ipc_queue_consumer_close(other);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}
