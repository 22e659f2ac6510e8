/* SPDX-License-Identifier: MIT */
/*
 * inbox: an end after senders that are held dead and live on, which may write into what they have
 * claimed.
 */
#include "tests/client/inbox_scene.h"
#include "tests/support/wakes.h"

TestSuite(inbox_busy, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

enum { N_HELD_DEAD = 4 };

/* Its connection is gone, and it is not: for the broker that is a death. */
static void hold_dead(struct actor *actor)
{
	uint64_t id = (uint64_t)order_do(actor, ORDER_ID, 0);

	ASSERT(order_do(actor, ORDER_CLOSE_FDS, 0), 0);
	until_not_alive(id);
}

/* Each has a claim open; the last one's was passed by a frame, and needs a place of its own. */
static ipc_inbox_receiver *begin_with(struct actor held[N_HELD_DEAD])
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = IPC_KEEP | IPC_STAY, .capacity = 4096);

	for (unsigned i = 0; i < N_HELD_DEAD; ++i) {
		SENDER_START(&held[i], 0);
		if (i == 0) {
			ASSERT(order_do(&held[i], ORDER_BEGIN, G1), 0);
			ASSERT(order_do(&held[i], ORDER_END, 0), 0);
		}
		ASSERT(order_do(&held[i], ORDER_CLAIM, 0), 0);
		if (i == N_HELD_DEAD - 1)
			ASSERT(order_do(&held[i], ORDER_FRAME, 0), 0);
		hold_dead(&held[i]);
	}
	return receiver;
}

/* M-10, I-2: whoever was refused keeps nobody out, nor himself, once there is a place. */
Test(inbox_busy, who_was_refused_is_not_when_the_one_before_has_died)
{
	for (unsigned n_refused = 0; n_refused < 3; ++n_refused) {
		struct actor held[N_HELD_DEAD];
		ipc_inbox_receiver *receiver = begin_with(held);
		ipc_inbox_sender *sender = NULL;

		for (unsigned i = 0; i < n_refused; ++i)
			ASSERT(sender_open(&sender, fixture_client, (struct ipc_inbox_options){0}),
			       IPC_EBUSY);
		actor_kill(&held[N_HELD_DEAD - 1]);

		ASSERT(sender_open(&sender, fixture_client, (struct ipc_inbox_options){0}), 0);
		EXPECT(frame(sender, 1), 0);
		EXPECT(eat(receiver), BEGIN(G1));
		EXPECT(eat(receiver), END(0));
		EXPECT(eat(receiver), FRAME(0));
		EXPECT(eat(receiver), FRAME(1));

		ipc_inbox_sender_close(sender);
		ipc_inbox_receiver_close(receiver);
		for (unsigned i = 0; i < N_HELD_DEAD - 1; ++i)
			actor_kill(&held[i]);
		ASSERT(ipc_channel_remove_wait(fixture_client, NAME, 0, NULL), 0);
	}
}

/* M-10, M-34: they are all gone, and the stream has yet to get past where they stood.  A receiver
 * that waits for events sees to that. */
Test(inbox_busy, a_receiver_that_waits_for_events_makes_place)
{
	struct actor held[N_HELD_DEAD + 1], receiver;
	ipc_inbox_sender *sender = NULL;
	uint64_t began_ns;
	int r;

	WAKES_TELL();
	RECEIVER_START(&receiver, .flags = IPC_CREATE | IPC_STAY, .capacity = 4096);
	for (unsigned i = 0; i < N_HELD_DEAD + 1; ++i) {
		SENDER_START(&held[i], 0);
		if (i == 0) {
			ASSERT(order_do(&held[i], ORDER_BEGIN, G1), 0);
			ASSERT(order_do(&held[i], ORDER_END, 0), 0);
			ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), BEGIN(G1));
			ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
			ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), END(0));
			ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
		}
		ASSERT(order_do(&held[i], ORDER_CLAIM, 0), 0);
		hold_dead(&held[i]);
	}
	order_sleep(&receiver, ORDER_WAIT_ANY, IPC_READY_READABLE);
	for (unsigned i = 0; i < N_HELD_DEAD; ++i)
		actor_kill(&held[i]);

	began_ns = clock_now_ns();
	while ((r = sender_open(&sender, fixture_client, (struct ipc_inbox_options){0})) ==
	       IPC_EBUSY)
		ASSERT_WOKEN(began_ns);
	ASSERT(r, 0);
	EXPECT(frame(sender, 0), 0);
	EXPECT(actor_hear(&receiver), IPC_READY_READABLE);
	EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), FRAME(0));

	actor_kill(&held[N_HELD_DEAD]);
	actor_kill(&receiver);
	ipc_inbox_sender_close(sender);
}
