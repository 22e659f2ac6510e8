/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface: the rate at which it may be pushed to.
 */
#include "tests/client/queue_scene.h"

TestSuite(queue_rate, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* How many are queued until one is refused. */
static unsigned push_all(ipc_queue_producer *producer, unsigned priority)
{
	unsigned n = 0;

	while (n < 1000 && push(producer, priority, n) == IPC_QUEUED)
		++n;
	return n;
}

/* full at the start; whatever the policy; for all producers and priorities together. */
Test(queue_rate, bucket_is_full_at_first_and_everybodys)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = 1, .burst = 5, .dead_letters = NULL);
	struct actor other;

	PRODUCER_START(&other, 0);
	ASSERT(order_do(&other, ORDER_PUSH, 0, 1), IPC_QUEUED);
	ASSERT(order_do(&other, ORDER_PUSH, 1, 1), IPC_QUEUED);
	EXPECT(push_all(producer, 0), 3);
	EXPECT(push(producer, 1, 1), IPC_EAGAIN);
	EXPECT(push_or(producer, 0, 1, IPC_FULL_DROP), IPC_EAGAIN);
	EXPECT(order_do(&other, ORDER_PUSH, 0, 1), IPC_EAGAIN);
	EXPECT(push_in(producer, 0, 1, 0), IPC_ETIMEDOUT);
	EXPECT(state_of(producer).dropped[0][IPC_DEAD_FULL], 0);

	actor_kill(&other);
	ipc_queue_producer_close(producer);
}

/* the default of the burst is the rate. */
Test(queue_rate, burst_is_the_rate_by_default)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = 3);

	EXPECT(push_all(producer, 0), 3);

	ipc_queue_producer_close(producer);
}

/* */
Test(queue_rate, what_is_refused_costs_no_token)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = 1, .burst = 4, .items_max = 2);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);

	EXPECT(push_all(producer, 0), 2);
	EXPECT(push(producer, 0, 1), IPC_EAGAIN);
	EXPECT(push_or(producer, 0, 1, IPC_FULL_DROP), IPC_DROPPED);
	EXPECT(push_in(producer, 0, 1, 0), IPC_ETIMEDOUT);
	EXPECT(push_in(producer, 0, 1, 20), IPC_ETIMEDOUT);
	EXPECT(push(producer, 2, 1), IPC_EINVAL);
	EXPECT(push_all(producer, 1), 2);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* what comes by time alone is waited for, and not longer. */
Test(queue_rate, wait_for_a_token_ends_when_it_comes)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = 50, .burst = 1);
	uint64_t began;

	ASSERT(push(producer, 0, 0), IPC_QUEUED);
	began = clock_now_ns();
	for (uint32_t i = 1; i <= 10; ++i)
		ASSERT(push_in(producer, 0, i, WAIT_MS), 0);
	began = clock_now_ns() - began;
	cr_expect_geq(began, 190 * NS_PER_MS, "%lu ns", began);
	cr_expect_lt(began, 1000 * NS_PER_MS, "%lu ns", began);
	EXPECT(state_of(producer).items[0], 11);

	ipc_queue_producer_close(producer);
}

/* over all producers, no more than the burst and what time has given. */
Test(queue_rate, rate_holds_for_all_producers_together)
{
	enum { PRODUCERS = 3, EACH = 10, RATE = 100 };
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = RATE, .burst = 1);
	struct actor actor[PRODUCERS];
	uint64_t began;

	for (unsigned i = 0; i < PRODUCERS; ++i)
		PRODUCER_START(&actor[i], 0);
	began = clock_now_ns();
	for (unsigned n = 0; n < EACH; ++n) {
		for (unsigned i = 0; i < PRODUCERS; ++i)
			order_begin(&actor[i], ORDER_PUSH_WAIT, 0, 1);
		for (unsigned i = 0; i < PRODUCERS; ++i)
			ASSERT(actor_hear(&actor[i]), 0);
	}
	began = clock_now_ns() - began;
	cr_expect_geq(began, (PRODUCERS * EACH - 1) * NS_PER_S / RATE - NS_PER_MS, "%lu ns", began);
	EXPECT(state_of(producer).items[0], PRODUCERS * EACH);

	for (unsigned i = 0; i < PRODUCERS; ++i)
		actor_kill(&actor[i]);
	ipc_queue_producer_close(producer);
}

/* a wait that is given up, or dies, leaves the token to others. */
Test(queue_rate, abandoned_waits_reserve_nothing)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = 1, .burst = 1);
	struct actor dead[3];

	ASSERT(push(producer, 0, 0), IPC_QUEUED);
	for (unsigned i = 0; i < 3; ++i) {
		PRODUCER_START(&dead[i], 0);
		order_sleep(&dead[i], ORDER_PUSH_WAIT, 0, 9);
	}
	for (unsigned i = 0; i < 3; ++i)
		actor_kill(&dead[i]);

	/* Reserved three times it would be four seconds away. */
	EXPECT(push_in(producer, 0, 1, 2000), 0);

	ipc_queue_producer_close(producer);
}

/* M-34: time makes ready, too. */
Test(queue_rate, producer_is_writable_when_a_token_comes)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = 10, .burst = 1);
	struct ipc_wait_item item = {.handle = producer, .events = IPC_READY_WRITABLE};
	struct timespec deadline = domain_deadline(WAIT_MS);

	EXPECT(look(producer, IPC_READY_WRITABLE), IPC_READY_WRITABLE);
	ASSERT(push(producer, 0, 0), IPC_QUEUED);
	EXPECT(look(producer, IPC_READY_WRITABLE), IPC_ETIMEDOUT);
	EXPECT(ipc_wait_any(&item, 1, &deadline), 0);
	EXPECT(item.ready, IPC_READY_WRITABLE);
	EXPECT(push(producer, 0, 1), IPC_QUEUED);

	ipc_queue_producer_close(producer);
}
