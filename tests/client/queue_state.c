/* SPDX-License-Identifier: MIT */

/*
 * What stands in a queue, asked of the broker: the same as a handle says, and nobody notices.
 */

#include "tests/client/queue_scene.h"

TestSuite(queue_state, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static int asked(const char *name, struct ipc_queue_state *ret)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	*ret = (struct ipc_queue_state){.size = sizeof(*ret)};
	return ipc_queue_state_wait(fixture_client, name, ret, &deadline);
}

/* Word by word what a handle says. */
static void expect_same(ipc_queue_producer *producer)
{
	struct ipc_queue_state told, state = state_of(producer);

	EXPECT(asked(NAME, &told), 0);
	EXPECT(told.priorities, state.priorities);
	EXPECT(told.n_leased, state.n_leased);
	for (unsigned i = 0; i < IPC_PRIORITIES_MAX; ++i) {
		EXPECT(told.items[i], state.items[i]);
		EXPECT(told.bytes[i], state.bytes[i]);
		EXPECT(told.leased[i], state.leased[i]);
		EXPECT(told.queued[i], state.queued[i]);
		EXPECT(told.acknowledged[i], state.acknowledged[i]);
		for (unsigned j = 0; j < IPC_DEAD_REASONS_MAX; ++j) {
			EXPECT(told.dead_lettered[i][j], state.dead_lettered[i][j]);
			EXPECT(told.dropped[i][j], state.dropped[i][j]);
		}
	}
}

/* */
Test(queue_state, is_what_a_handle_says)
{
	ipc_queue_consumer *dead = queue_consumer_new(DEAD, (struct ipc_queue_options){0});
	ipc_queue_producer *producer =
		PRODUCER_NEW(.items_max = 8, .priorities = 3, .dead_letters = DEAD);
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = 0);
	const struct ipc_queue_fairness strict = {.size = sizeof(strict),
						  .run_max = IPC_FAIRNESS_STRICT};
	struct ipc_queue_item item[4];

	expect_same(producer);
	for (uint32_t i = 0; i < 8; ++i)
		EXPECT(push(producer, 1, i), 0);
	EXPECT(push(producer, 2, 8), 0);
	expect_same(producer);
	EXPECT(push_or(producer, 1, 9, IPC_FULL_DROP), IPC_DROPPED);
	EXPECT(push_or(producer, 1, 9, IPC_FULL_DEAD_LETTER), IPC_DEAD_LETTERED);
	expect_same(producer);

	for (unsigned i = 0; i < 4; ++i)
		EXPECT(take(consumer, &item[i]), i);
	expect_same(producer);
	EXPECT(ipc_queue_ack(consumer, &item[0]), 0);
	EXPECT(ipc_queue_reject(consumer, &item[1]), 0);
	EXPECT(ipc_queue_requeue(consumer, &item[2]), 0);
	expect_same(producer);

	/* Round the ring, some times. */
	EXPECT(ipc_queue_set_fairness(consumer, &strict), 0);
	for (uint32_t i = 0; i < 300; ++i) {
		EXPECT(push(producer, 0, i), 0);
		EXPECT(eat(consumer), i);
	}
	expect_same(producer);
	EXPECT(state_of(producer).acknowledged[0], 300);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
	ipc_queue_consumer_close(dead);
}

/* what is claimed is nowhere. */
Test(queue_state, claims_are_not_there_yet)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 8);
	struct ipc_queue_state told;
	void *data;

	EXPECT(ipc_queue_claim(producer, 0, 4, &data), 0);
	EXPECT(asked(NAME, &told), 0);
	EXPECT(told.items[0], 0);
	EXPECT(told.queued[0], 0);
	expect_same(producer);
	EXPECT(ipc_queue_commit(producer, data, 4), 0);
	expect_same(producer);
	ipc_queue_producer_close(producer);
}

/* before anybody has given back what the dead had, it waits all the same. */
Test(queue_state, what_the_dead_had_waits)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP);
	struct ipc_queue_state told;
	struct actor actor;

	EXPECT(push(producer, 0, 1), 0);
	EXPECT(push(producer, 0, 2), 0);
	CONSUMER_START(&actor, .flags = 0);
	EXPECT(order_do(&actor, ORDER_TAKE, 0, 0), 1);
	EXPECT(asked(NAME, &told), 0);
	EXPECT(told.leased[0], 1);
	EXPECT(told.items[0], 1);
	EXPECT(told.bytes[0], 4);

	member_end(&actor, true);

	EXPECT(asked(NAME, &told), 0);
	EXPECT(told.leased[0], 0);
	EXPECT(told.items[0], 2);
	EXPECT(told.bytes[0], 8);
	expect_same(producer);
	ipc_queue_producer_close(producer);
	EXPECT(take_away(NAME, 0), 0);
}

/* M-22: a look is no peer: nobody comes, and nobody goes. */
Test(queue_state, nobody_notices_the_one_who_asks)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = 0);
	struct ipc_queue_state told;
	struct ipc_queue_item item;

	EXPECT(asked(NAME, &told), 0);

	EXPECT(told.priorities, 2);
	EXPECT(ipc_queue_consumer_peers(consumer), 0);
	EXPECT(look(consumer, IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE), IPC_ETIMEDOUT);
	EXPECT(ipc_queue_take(consumer, &item), IPC_EAGAIN);
	ipc_queue_consumer_close(consumer);
	EXPECT(asked(NAME, &told), IPC_ENOENT);
}

/* M-10, M-46 */
Test(queue_state, arguments_are_checked)
{
	ipc_shared *shared = shared_new("shared", IPC_SIDE_A);
	ipc_queue_producer *producer = PRODUCER_NEW(.priorities = 3);
	struct ipc_queue_state told = {.size = offsetof(struct ipc_queue_state, n_leased)};

	EXPECT(asked("shared", &told), IPC_EPROTOTYPE);
	EXPECT(asked("none", &told), IPC_ENOENT);
	EXPECT(asked("/none", &told), IPC_EINVAL);
	EXPECT(ipc_queue_state_wait(fixture_client, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_state_wait(fixture_client, NULL, &told, NULL), IPC_EINVAL);
	EXPECT(ipc_queue_state_wait(NULL, NAME, &told, NULL), IPC_EINVAL);
	told.size = sizeof(size_t) - 1;
	EXPECT(ipc_queue_state_wait(fixture_client, NAME, &told, NULL), IPC_EINVAL);

	told = (struct ipc_queue_state){.size = offsetof(struct ipc_queue_state, n_leased),
					.n_leased = 77};
	EXPECT(ipc_queue_state_wait(fixture_client, NAME, &told, NULL), 0);
	EXPECT(told.priorities, 3);
	EXPECT(told.n_leased, 77);
	ipc_queue_producer_close(producer);
	ipc_shared_close(shared);
}

/* M-45: also where bytes need not be counted, since so many items cannot have too many. */
Test(queue_state, listing_tells_the_depth_in_bytes)
{
	ipc_queue_producer *producer =
		PRODUCER_NEW(.priorities = 1, .items_max = 4, .item_size_max = 64);
	struct ipc_channel_info info = {.size = sizeof(info)};
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = 0);

	for (uint32_t i = 0; i < 3; ++i)
		EXPECT(push(producer, 0, i), 0);
	ASSERT(info_of(NAME, &info), 0);
	EXPECT(info.depth, 3 * sizeof(uint32_t));
	EXPECT(info.depth_max, 3 * sizeof(uint32_t));
	EXPECT(eat(consumer), 0);
	ASSERT(info_of(NAME, &info), 0);
	EXPECT(info.depth, 2 * sizeof(uint32_t));

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}
