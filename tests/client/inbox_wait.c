/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: readiness, in ipc_wait_any() and in the poll set.
 */
#include <poll.h>

#include "tests/client/inbox_scene.h"

TestSuite(inbox_wait, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- the poll set ---- */

static void add(void *handle, uint32_t events)
{
	ASSERT(ipc_poll_add(fixture_client, handle, events, handle), 0);
}

static bool is_readable(int ms)
{
	struct pollfd poll_fd = {.fd = ipc_client_get_fd(fixture_client), .events = POLLIN};

	return poll(&poll_fd, 1, ms) == 1;
}

/* The next one of this handle: what is ready, or the (negative) result. */
static int64_t polled(void *handle)
{
	struct ipc_poll_event event;
	int r = ipc_poll_next(fixture_client, &event);

	if (r < 0)
		return r;
	return event.handle == handle && event.userdata == handle ? (int64_t)event.ready
								  : INT64_MIN;
}

/* Nothing, and armed. */
static void until_quiet(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	do {
		ASSERT(polled(NULL), IPC_EAGAIN);
		cr_assert(!process_has_passed(&deadline));
	} while (is_readable(0));
}

static int64_t polled_soon(void *handle)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	int64_t r;

	do {
		cr_assert(is_readable(WAIT_MS), "the descriptor does not become readable");
		r = polled(handle);
	} while (r == IPC_EAGAIN && !process_has_passed(&deadline));
	return r;
}

/* M-34 */
Test(inbox_wait, receiver_in_the_poll_set_is_readable_for_each_event)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct actor sender;

	SENDER_START(&sender, 0);
	add(receiver, IPC_READY_READABLE);
	until_quiet();
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	EXPECT(polled_soon(receiver), IPC_READY_READABLE);
	EXPECT(polled_soon(receiver), IPC_READY_READABLE);
	EXPECT(eat(receiver), BEGIN(G1));
	until_quiet();
	ASSERT(order_do(&sender, ORDER_CHUNK, 1), 0);
	EXPECT(polled_soon(receiver), IPC_READY_READABLE);
	EXPECT(eat(receiver), CHUNK(1));
	until_quiet();

	/* I-3: the ABORT is an event, then the end. */
	member_end(&sender, true);
	EXPECT(polled_soon(receiver), IPC_READY_READABLE);
	EXPECT(eat(receiver), ABORT(SENDER_DIED));
	EXPECT(polled_soon(receiver), IPC_READY_END);
	EXPECT(eat(receiver), IPC_EOWNERDEAD);
	ipc_inbox_receiver_close(receiver);
	until_quiet();
}

/* M-22, M-34 */
Test(inbox_wait, receiver_that_stays_is_told_of_the_abort_alone)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = IPC_STAY);
	struct actor sender;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	add(receiver, IPC_READY_READABLE);
	until_quiet();
	member_end(&sender, true);
	EXPECT(polled_soon(receiver), IPC_READY_READABLE);
	EXPECT(eat(receiver), ABORT(SENDER_DIED));
	until_quiet();
	EXPECT(look(receiver, IPC_READY_READABLE | IPC_READY_PEER_GONE), IPC_READY_PEER_GONE);
	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G2), 0);
	EXPECT(polled_soon(receiver), IPC_READY_READABLE);
	EXPECT(eat(receiver), BEGIN(G2));
	actor_kill(&sender);
	ipc_inbox_receiver_close(receiver);
}

/* M-34 */
Test(inbox_wait, sender_in_the_poll_set_is_told_of_room_and_requests)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	struct actor receiver;
	uint32_t n = 0;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	add(sender, IPC_READY_WRITABLE);
	EXPECT(polled_soon(sender), IPC_READY_WRITABLE);
	while (ipc_inbox_send_frame(sender, n, NULL, 0) == 0)
		++n;
	until_quiet();
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
	until_quiet();
	ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
	EXPECT(polled_soon(sender), IPC_READY_WRITABLE);

	ASSERT(ipc_poll_change(fixture_client, sender, IPC_READY_REQUEST, sender), 0);
	until_quiet();
	ASSERT(order_do(&receiver, ORDER_REQUEST, 0), 0);
	EXPECT(polled_soon(sender), IPC_READY_REQUEST);
	EXPECT(polled_soon(sender), IPC_READY_REQUEST);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	until_quiet();
	ASSERT(ipc_poll_change(fixture_client, sender, IPC_READY_WRITABLE | IPC_READY_PEER_GONE,
			       sender),
	       0);
	member_end(&receiver, true);
	EXPECT(polled_soon(sender), IPC_READY_PEER_GONE | IPC_READY_END);
	ipc_inbox_sender_close(sender);
	until_quiet();
}

/* I-10, M-30: what the sender does by itself, which has no other sleeper. */
Test(inbox_wait, sender_in_the_poll_set_is_told_of_what_its_own_calls_bring)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	void *claim;
	uint32_t n = 0;

	ASSERT(snapshot(sender, G1, 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
	ASSERT(ipc_inbox_request_snapshot(receiver), 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	add(sender, IPC_READY_REQUEST);
	until_quiet();
	ASSERT(ipc_inbox_abort_snapshot(sender), 0);
	EXPECT(polled_soon(sender), IPC_READY_REQUEST);

	ASSERT(snapshot(sender, G2, 0), 0);
	ASSERT(ipc_inbox_claim_frame(sender, 1000, &claim), 0);
	while (ipc_inbox_send_frame(sender, n, NULL, 0) == 0)
		++n;
	ASSERT(ipc_poll_change(fixture_client, sender, IPC_READY_WRITABLE, sender), 0);
	until_quiet();
	ASSERT(ipc_inbox_abort_frame(sender, claim), 0);
	EXPECT(polled_soon(sender), IPC_READY_WRITABLE);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* Every event that there is, one each time that it is ready, marked. */
static unsigned eat_when_ready(ipc_inbox_receiver *receiver)
{
	unsigned n = 0;

	while (look(receiver, IPC_READY_READABLE) == IPC_READY_READABLE) {
		if (eat(receiver) > 0)
			++n;
	}
	return n;
}

/* I-4, M-34: what follows a snapshot that was lost is void, and has room all the same. */
Test(inbox_wait, receiver_that_waits_to_be_ready_gives_back_what_is_void)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096, .frame_size_max = 64);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.frame_size_max = 64);
	uint32_t n = 0;

	ASSERT(snapshot(sender, G1, 0), 0);
	EXPECT(eat_when_ready(receiver), 3);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	EXPECT(eat(receiver), BEGIN(G2));

	/* Another one is on its way when the receiver goes, and is taken back. */
	ASSERT(ipc_inbox_begin_snapshot(sender, G3), 0);
	ipc_inbox_receiver_close(receiver);
	receiver = RECEIVER_NEW(.frame_size_max = 64);
	ASSERT(ipc_inbox_abort_snapshot(sender), 0);
	EXPECT(eat(receiver), ABORT(RECEIVER_CHANGED));
	EXPECT(eat(receiver), BEGIN(G3));
	while (ipc_inbox_send_frame(sender, n, NULL, 0) == 0)
		++n;
	EXPECT(eat(receiver), ABORT(ABORTED));
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_READY_REQUEST);
	EXPECT(eat_when_ready(receiver), 0);
	EXPECT(ipc_inbox_begin_snapshot(sender, G3), 0);
	EXPECT(eat_when_ready(receiver), 1);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* ---- ipc_wait_any() ---- */

/* M-34: an event that the role does not have, or none at all. */
Test(inbox_wait, events_of_another_role_are_refused)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	ipc_inbox_observer *observer = NULL;

	ASSERT(observer_open(&observer, fixture_client), 0);
	EXPECT(look(sender, IPC_READY_READABLE), IPC_EINVAL);
	EXPECT(look(sender, IPC_READY_END), IPC_EINVAL);
	EXPECT(look(sender, 0), IPC_EINVAL);
	EXPECT(look(receiver, IPC_READY_WRITABLE), IPC_EINVAL);
	EXPECT(look(receiver, IPC_READY_REQUEST), IPC_EINVAL);
	EXPECT(look(observer, IPC_READY_READABLE), IPC_EINVAL);
	EXPECT(ipc_poll_add(fixture_client, observer, IPC_READY_PEER_GONE, NULL), IPC_EINVAL);
	EXPECT(look(sender, IPC_READY_PEER_PRESENT), IPC_READY_PEER_PRESENT);
	EXPECT(look(receiver, IPC_READY_PEER_PRESENT), IPC_READY_PEER_PRESENT);

	ipc_inbox_observer_close(observer);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* M-29: other kinds beside it. */
Test(inbox_wait, inbox_is_waited_for_beside_others)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	ipc_watch_consumer *watch;
	ipc_watch_producer *producer = producer_new("w");
	struct ipc_wait_item items[2];
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct actor sender;

	ASSERT(consume(&watch, "w", 0), 0);
	items[0] = (struct ipc_wait_item){.handle = watch, .events = IPC_READY_READABLE};
	items[1] = (struct ipc_wait_item){.handle = receiver, .events = IPC_READY_READABLE};
	SENDER_START(&sender, 0);
	order_begin(&sender, ORDER_BEGIN, G1, 0);
	EXPECT(ipc_wait_any(items, 2, &deadline), 1);
	EXPECT(items[1].ready, IPC_READY_READABLE);
	ASSERT(actor_hear(&sender), 0);
	ASSERT(ipc_watch_publish(producer, "x", 1), 0);
	EXPECT(ipc_wait_any(items, 2, &deadline), 0);
	actor_kill(&sender);
	ipc_watch_consumer_close(watch);
	ipc_watch_producer_close(producer);
	ipc_inbox_receiver_close(receiver);
}

/* M-22, M-29, M-34: for each who sleeps there. */
Test(inbox_wait, sleepers_are_told_of_the_end)
{
	for (unsigned dies = 0; dies < 2; ++dies) {
		struct actor sender, receiver;

		/* The sender's end. */
		SENDER_START(&sender, .flags = IPC_CREATE);
		RECEIVER_START(&receiver, 0);
		order_sleep(&receiver, ORDER_WAIT_ANY, IPC_READY_READABLE);
		member_end(&sender, dies);
		EXPECT(actor_hear(&receiver), IPC_READY_END);
		EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), end_by(dies));

		/* The receiver's, which matters to who waits for a request, too. */
		SENDER_START(&sender, 0);
		ASSERT(order_do(&sender, ORDER_WAIT_ANY, IPC_READY_WRITABLE), IPC_READY_WRITABLE);
		order_sleep(&sender, ORDER_WAIT_ANY, IPC_READY_REQUEST);
		member_end(&receiver, dies);
		EXPECT(actor_hear(&sender), IPC_READY_END);
		actor_kill(&sender);
		until_no_inbox();
	}
}

/* M-34: a frame is what it says. */
Test(inbox_wait, sleeping_sender_is_told_of_room)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.capacity = 4096);
	struct actor sender;
	int64_t n = 0;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	while (order_do(&sender, ORDER_CHUNK, n) == 0)
		++n;
	while (order_do(&sender, ORDER_CHUNK_EMPTY, 0) == 0)
		;
	order_sleep(&sender, ORDER_WAIT_ANY, IPC_READY_WRITABLE);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(actor_hear(&sender), IPC_READY_WRITABLE);
	actor_kill(&sender);
	ipc_inbox_receiver_close(receiver);
}
