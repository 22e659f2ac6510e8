/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface: claims, filled in place, and what becomes of them.
 */
#include <pthread.h>

#include "tests/client/queue_scene.h"

TestSuite(queue_claims, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* As push, in two steps. */
static int claim(ipc_queue_producer *producer, unsigned priority, uint32_t number, void **ret)
{
	int r = ipc_queue_claim(producer, priority, sizeof(number), ret);

	if (r == 0)
		memcpy(*ret, &number, sizeof(number));
	return r;
}

static int commit(ipc_queue_producer *producer, void *data)
{
	return ipc_queue_commit(producer, data, sizeof(uint32_t));
}

/* Q-12, M-71: the place is that of the commit, whichever was claimed first. */
Test(queue_claims, order_is_that_of_the_commits)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	void *a, *b;

	ASSERT(claim(producer, 0, 1, &a), 0);
	ASSERT(claim(producer, 0, 2, &b), 0);
	cr_expect_eq((uintptr_t)a % 16, 0);
	ASSERT(push(producer, 0, 3), IPC_QUEUED);

	/* it is not seen before the commit, and delays nobody. */
	EXPECT(eat(consumer), 3);
	EXPECT(eat(consumer), IPC_EAGAIN);
	ASSERT(commit(producer, b), 0);
	ASSERT(commit(producer, a), 0);
	EXPECT(eat(consumer), 2);
	EXPECT(eat(consumer), 1);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_claims, less_than_was_claimed_may_be_committed)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	void *data;

	ASSERT(ipc_queue_claim(producer, 0, 1000, &data), 0);
	memset(data, 0x5a, 1000);
	EXPECT(ipc_queue_commit(producer, data, 1001), IPC_EMSGSIZE);
	ASSERT(ipc_queue_commit(producer, data, 3), 0);
	ASSERT(ipc_queue_take(consumer, &item), 0);
	EXPECT(item.size, 3);
	EXPECT(memcmp(item.data, "\x5a\x5a\x5a", 3), 0);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_claims, what_is_no_open_claim_of_the_handle_is_refused)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0), *other = PRODUCER_NEW(0);
	void *data, *aborted;

	ASSERT(claim(producer, 0, 1, &data), 0);
	EXPECT(commit(other, data), IPC_EINVAL);
	EXPECT(ipc_queue_abort(other, data), IPC_EINVAL);
	EXPECT(commit(producer, (char *)data + 1), IPC_EINVAL);
	EXPECT(commit(producer, &data), IPC_EINVAL);
	ASSERT(commit(producer, data), 0);
	EXPECT(commit(producer, data), IPC_EINVAL);
	EXPECT(ipc_queue_abort(producer, data), IPC_EINVAL);
	ASSERT(claim(producer, 0, 1, &aborted), 0);
	ASSERT(ipc_queue_abort(producer, aborted), 0);
	EXPECT(commit(producer, aborted), IPC_EINVAL);
	EXPECT(state_of(producer).items[0], 1);

	ipc_queue_producer_close(other);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_claims, claims_hold_room_until_they_are_dropped)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 2);
	void *a, *b, *c = NULL;

	ASSERT(claim(producer, 0, 1, &a), 0);
	ASSERT(claim(producer, 0, 2, &b), 0);
	EXPECT(claim(producer, 0, 3, &c), IPC_EAGAIN);
	EXPECT(ipc_queue_claim_wait(producer, 0, 4, &c, &past), IPC_ETIMEDOUT);
	cr_expect_null(c);
	EXPECT(push(producer, 0, 3), IPC_EAGAIN);
	EXPECT(state_of(producer).items[0], 0);
	ASSERT(ipc_queue_abort(producer, a), 0);
	EXPECT(push(producer, 0, 3), IPC_QUEUED);

	ipc_queue_producer_close(producer);
}

/* no token is held, and none spent by what is refused. */
Test(queue_claims, commit_without_a_token_leaves_the_claim_open)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.rate = 20, .burst = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	void *a, *b;

	ASSERT(claim(producer, 0, 1, &a), 0);
	ASSERT(claim(producer, 0, 2, &b), 0);
	ASSERT(push(producer, 0, 3), IPC_QUEUED);
	EXPECT(commit(producer, a), IPC_EAGAIN);
	EXPECT(ipc_queue_commit_wait(producer, b, sizeof(uint32_t), NULL), 0);
	EXPECT(commit(producer, a), IPC_EAGAIN);
	EXPECT(ipc_queue_commit_wait(producer, a, sizeof(uint32_t), &past), IPC_ETIMEDOUT);
	EXPECT(ipc_queue_commit_wait(producer, a, sizeof(uint32_t), NULL), 0);
	EXPECT(eat(consumer), 3);
	EXPECT(eat(consumer), 2);
	EXPECT(eat(consumer), 1);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

struct committing {
	ipc_queue_producer *producer;
	void *data;
	int result;
};

static void *commit_here(void *arg)
{
	struct committing *committing = arg;
	const uint32_t number = 5;

	memcpy(committing->data, &number, sizeof(number));
	committing->result = commit(committing->producer, committing->data);
	return NULL;
}

/* M-42: filled and committed by another thread. */
Test(queue_claims, claim_is_for_any_thread)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct committing committing = {.producer = producer};
	pthread_t thread;

	ASSERT(claim(producer, 0, 1, &committing.data), 0);
	cr_assert_eq(pthread_create(&thread, NULL, commit_here, &committing), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	EXPECT(committing.result, 0);
	EXPECT(eat(consumer), 5);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* Q-6, M-25: neither a hole nor a place is left. */
Test(queue_claims, claims_of_the_dead_vanish)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 2);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct actor dead;

	for (unsigned i = 0; i < 5; ++i) {
		PRODUCER_START(&dead, 0);
		ASSERT(order_do(&dead, ORDER_PUSH, 0, 1), IPC_QUEUED);
		ASSERT(order_do(&dead, ORDER_CLAIM, 0, 2), 0);
		EXPECT(push(producer, 0, 3), IPC_EAGAIN);
		member_end(&dead, true);

		/* What was committed stays. */
		EXPECT(push(producer, 0, 3), IPC_QUEUED);
		EXPECT(eat(consumer), 1);
		EXPECT(eat(consumer), 3);
		EXPECT(eat(consumer), IPC_EAGAIN);
	}

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-24: one that stands still has its claim, and hinders nobody. */
Test(queue_claims, stopped_producer_delays_nobody)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct actor stopped;

	PRODUCER_START(&stopped, 0);
	ASSERT(order_do(&stopped, ORDER_CLAIM, 0, 1), 0);
	cr_assert_eq(kill(stopped.pid, SIGSTOP), 0);
	for (uint32_t i = 0; i < 3000; ++i) {
		ASSERT(push(producer, 0, i), IPC_QUEUED);
		ASSERT(eat(consumer), i);
	}
	cr_assert_eq(kill(stopped.pid, SIGCONT), 0);
	EXPECT(order_do(&stopped, ORDER_COMMIT, 0, 0), 0);
	EXPECT(eat(consumer), 1);

	actor_kill(&stopped);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-44 */
Test(queue_claims, close_drops_claims)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 3), *other = PRODUCER_NEW(0);
	void *data;

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(claim(producer, 0, 2, &data), 0);
	ASSERT(claim(producer, 0, 3, &data), 0);
	EXPECT(push(other, 0, 4), IPC_EAGAIN);
	ipc_queue_producer_close(producer);
	EXPECT(push(other, 0, 4), IPC_QUEUED);
	EXPECT(push(other, 0, 5), IPC_QUEUED);
	EXPECT(push(other, 0, 6), IPC_EAGAIN);

	ipc_queue_producer_close(other);
}
