/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: full ones, and snapshots that are asked for.
 */
#include "tests/client/inbox_scene.h"

TestSuite(inbox_full, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

enum { SMALL = 4096 };

/* Frames from `offset` on, until one says what is returned. */
static int fill(ipc_inbox_sender *sender, uint32_t *offset)
{
	int r;

	while ((r = frame(sender, *offset)) == 0)
		++*offset;
	return r;
}

/* ---- refused, and waited for ---- */

/* I-5 */
Test(inbox_full, full_inbox_refuses_and_keeps_what_it_has)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = SMALL);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_positions positions;
	struct ipc_inbox_event event;
	uint32_t n = 0;
	void *data;

	ASSERT(snapshot(sender, G1, 0), 0);
	EXPECT(fill(sender, &n), IPC_EAGAIN);
	positions = positions_of(sender);
	EXPECT(positions.written, n);
	cr_expect_leq(positions.depth, SMALL);
	cr_expect_geq(positions.depth, SMALL - 48 - 32);
	EXPECT(positions.snapshot_wanted, 0);
	EXPECT(ipc_inbox_claim_frame(sender, 4, &data), IPC_EAGAIN);
	EXPECT(ipc_inbox_begin_snapshot(sender, G2), IPC_EAGAIN);
	EXPECT(frame_in(sender, n, 20), IPC_ETIMEDOUT);
	EXPECT(ipc_inbox_send_frame_wait(sender, n, "xxxx", 4, &past), IPC_ETIMEDOUT);
	while (ipc_inbox_send_frame(sender, n, NULL, 0) == 0)
		++n;
	EXPECT(look(sender, IPC_READY_WRITABLE), IPC_ETIMEDOUT);

	/* What was applied is room. */
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(look(sender, IPC_READY_WRITABLE), IPC_READY_WRITABLE);
	EXPECT(frame(sender, n), 0);
	EXPECT(eat(receiver), CHUNK(0));
	EXPECT(eat(receiver), END(0));
	for (uint32_t i = 0; i <= n; ++i) {
		ASSERT(ipc_inbox_receive(receiver, &event), 0);
		EXPECT(event.offset, i);
		ASSERT(ipc_inbox_mark_applied(receiver, &event), 0);
	}
	EXPECT(eat(receiver), IPC_EAGAIN);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-5: each call that waits is woken by room, and gives nothing up. */
Test(inbox_full, waits_for_room_end_with_room)
{
	static const enum order order[] = {ORDER_FRAME_WAIT, ORDER_CLAIM_WAIT, ORDER_BEGIN_WAIT};

	for (unsigned i = 0; i < 3; ++i) {
		ipc_inbox_receiver *receiver =
			RECEIVER_NEW(.capacity = SMALL, .full = IPC_INBOX_FULL_COLLAPSE);
		struct actor sender;
		int64_t n = 0, r;

		SENDER_START(&sender, 0);
		ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
		ASSERT(order_do(&sender, ORDER_END, 0), 0);
		while ((r = order_do(&sender, ORDER_FRAME_LOOK, n)) == 0)
			++n;
		ASSERT(r, IPC_ETIMEDOUT);
		order_sleep(&sender, order[i], order[i] == ORDER_BEGIN_WAIT ? G2 : n);
		EXPECT(eat(receiver), BEGIN(G1));
		EXPECT(eat(receiver), END(0));
		EXPECT(actor_hear(&sender), 0);
		EXPECT(positions_at(receiver).snapshot_wanted, 0);
		actor_kill(&sender);
		ipc_inbox_receiver_close(receiver);
		until_no_inbox();
	}
}

/* I-5, I-11 */
Test(inbox_full, chunks_wait_for_room_too)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.capacity = SMALL);
	struct actor sender;
	int64_t n = 0, event;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	while (order_do(&sender, ORDER_CHUNK, n) == 0)
		++n;
	order_sleep(&sender, ORDER_CHUNK_WAIT, n);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), CHUNK(0));
	EXPECT(actor_hear(&sender), 0);
	while (order_do(&sender, ORDER_CHUNK_EMPTY, 0) == 0)
		;
	order_sleep(&sender, ORDER_END_WAIT, 7);
	EXPECT(eat(receiver), CHUNK(1));
	EXPECT(actor_hear(&sender), 0);
	for (int64_t i = 2; i <= n; ++i)
		ASSERT(eat(receiver), CHUNK(i));
	do
		event = eat(receiver);
	while (event == INT64_MIN); /* of no bytes */
	EXPECT(event, END(7));
	actor_kill(&sender);
	ipc_inbox_receiver_close(receiver);
}

/* I-14: with no room at all. */
Test(inbox_full, abort_needs_no_room)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = SMALL);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	uint32_t n = 0;
	int64_t event;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	while (ipc_inbox_send_chunk(sender, &n, 4) == 0)
		++n;
	while (ipc_inbox_send_chunk(sender, NULL, 0) == 0)
		;
	EXPECT(ipc_inbox_abort_snapshot(sender), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	for (uint32_t i = 0; i < n; ++i)
		ASSERT(eat(receiver), CHUNK(i));
	do
		event = eat(receiver);
	while (event == INT64_MIN); /* of no bytes */
	EXPECT(event, ABORT(ABORTED));
	EXPECT(eat(receiver), IPC_EAGAIN);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* ---- collapse ---- */

/* I-5: nothing of a snapshot was received. */
Test(inbox_full, collapse_gives_the_backlog_up_as_a_whole)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = SMALL, .full = IPC_INBOX_FULL_COLLAPSE);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event;
	uint32_t n = 0;
	void *data = NULL;

	ASSERT(snapshot(sender, G1, 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
	EXPECT(fill(sender, &n), IPC_EOVERFLOW);
	EXPECT(positions_of(sender).written, n);
	EXPECT(positions_of(sender).depth < 128, true);
	EXPECT(positions_of(sender).snapshot_wanted, 1);
	EXPECT(frame(sender, n), IPC_EOVERFLOW);
	EXPECT(frame_in(sender, n, WAIT_MS), IPC_EOVERFLOW);
	EXPECT(ipc_inbox_claim_frame(sender, 4, &data), IPC_EOVERFLOW);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_READY_REQUEST);

	EXPECT(look(receiver, IPC_READY_READABLE), IPC_READY_READABLE);
	EXPECT(get(receiver, &event), GAP(COLLAPSED, n));
	EXPECT(ipc_inbox_mark_applied(receiver, &event), 0);
	EXPECT(eat(receiver), IPC_EAGAIN);
	EXPECT(positions_at(receiver).applied, 0);

	ASSERT(snapshot(sender, G2, 100), 0);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_ETIMEDOUT);
	ASSERT(frame(sender, 100), 0);
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(eat(receiver), CHUNK(100));
	EXPECT(eat(receiver), END(100));
	EXPECT(eat(receiver), FRAME(100));
	EXPECT(positions_of(sender).applied, 101);
	EXPECT(positions_of(sender).snapshot_wanted, 1);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-5: its BEGIN was received, its END not. */
Test(inbox_full, collapse_under_a_snapshot_aborts_it)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = SMALL, .full = IPC_INBOX_FULL_COLLAPSE);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	uint32_t n = 0;
	int r;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	EXPECT(see(receiver), BEGIN(G1));
	while ((r = chunk(sender, n)) == 0)
		++n;
	EXPECT(r, IPC_EOVERFLOW);
	EXPECT(chunk(sender, n), IPC_EOVERFLOW);
	EXPECT(ipc_inbox_end_snapshot(sender, 5), IPC_EOVERFLOW);
	EXPECT(eat(receiver), ABORT(COLLAPSED));
	EXPECT(eat(receiver), IPC_EAGAIN);
	EXPECT(positions_of(sender).generation, 0);
	EXPECT(positions_of(sender).snapshot_wanted, 1);
	ASSERT(snapshot(sender, G2, 9), 0);
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(eat(receiver), CHUNK(9));
	EXPECT(eat(receiver), END(9));

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-5: what was received stays the receiver's, with its bytes. */
Test(inbox_full, collapse_leaves_what_was_received)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = SMALL, .full = IPC_INBOX_FULL_COLLAPSE);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event[8];
	uint32_t n = 0;

	ASSERT(snapshot(sender, G1, 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
	for (; n < 5; ++n)
		ASSERT(frame(sender, n), 0);
	ASSERT(ipc_inbox_receive_many(receiver, event, 8), 5);
	EXPECT(fill(sender, &n), IPC_EOVERFLOW);
	ASSERT(snapshot(sender, G2, 1000), 0);
	for (uint32_t i = 0; i < 5; ++i)
		EXPECT(event_number(&event[i]), FRAME(i));
	EXPECT(see(receiver), GAP(COLLAPSED, n));
	ASSERT(ipc_inbox_mark_applied(receiver, &event[4]), 0);
	EXPECT(positions_of(sender).applied, 5);
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(eat(receiver), CHUNK(1000));
	EXPECT(eat(receiver), END(1000));
	EXPECT(positions_of(sender).applied, 1000);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-5, M-10: an exception of "nothing happened"; the sender's death after it changes nothing. */
Test(inbox_full, request_of_a_collapse_outlives_the_sender)
{
	ipc_inbox_receiver *receiver =
		RECEIVER_NEW(.flags = IPC_STAY, .capacity = SMALL, .full = IPC_INBOX_FULL_COLLAPSE);
	struct actor sender;
	int64_t n = 0;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 0), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(0));
	while (order_do(&sender, ORDER_FRAME, n) == 0)
		++n;
	member_end(&sender, true);
	SENDER_START(&sender, 0);
	EXPECT(order_do(&sender, ORDER_FRAME, n), IPC_EOVERFLOW);
	EXPECT(order_do(&sender, ORDER_WANTED_WAIT, 0), 1);
	EXPECT(order_do(&sender, ORDER_WAIT_ANY, IPC_READY_REQUEST), IPC_READY_REQUEST);
	EXPECT(order_do(&sender, ORDER_BEGIN, G1), 0);
	EXPECT(order_do(&sender, ORDER_END, n), 0);
	EXPECT(eat(receiver), GAP(COLLAPSED, n));
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(n));
	actor_kill(&sender);
	ipc_inbox_receiver_close(receiver);
}

/* ---- requests ---- */

/* I-10 */
Test(inbox_full, request_of_the_receiver_stops_frames_until_begin)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	uint64_t served = 0;
	void *data;

	ASSERT(snapshot(sender, G1, 0), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), CHUNK(0));
	EXPECT(eat(receiver), END(0));
	ASSERT(frame(sender, 0), 0);
	ASSERT(ipc_inbox_claim_frame(sender, 4, &data), 0);
	EXPECT(ipc_inbox_wanted_wait(sender, &served, &past), IPC_ETIMEDOUT);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_ETIMEDOUT);

	EXPECT(ipc_inbox_request_snapshot(receiver), 0);
	EXPECT(positions_of(sender).snapshot_wanted, 1);
	EXPECT(ipc_inbox_wanted_wait(sender, &served, NULL), 0);
	EXPECT(served, 1);
	EXPECT(ipc_inbox_wanted_wait(sender, &served, &past), IPC_ETIMEDOUT);
	EXPECT(look(sender, IPC_READY_REQUEST | IPC_READY_WRITABLE),
	       IPC_READY_REQUEST | IPC_READY_WRITABLE);
	EXPECT(frame(sender, 1), IPC_EOVERFLOW);
	EXPECT(frame_in(sender, 1, WAIT_MS), IPC_EOVERFLOW);
	EXPECT(ipc_inbox_commit_frame(sender, 1, data, 4), IPC_EOVERFLOW);
	EXPECT(ipc_inbox_abort_frame(sender, data), 0);
	EXPECT(ipc_inbox_claim_frame(sender, 4, &data), IPC_EOVERFLOW);

	/* What was committed before is still delivered. */
	EXPECT(eat(receiver), FRAME(0));
	EXPECT(eat(receiver), IPC_EAGAIN);

	/* On its way. */
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_ETIMEDOUT);
	EXPECT(ipc_inbox_request_snapshot(receiver), 1);
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(ipc_inbox_request_snapshot(receiver), 1);
	EXPECT(positions_of(sender).snapshot_wanted, 1);
	ASSERT(ipc_inbox_end_snapshot(sender, 3), 0);
	EXPECT(eat(receiver), END(3));
	ASSERT(frame(sender, 3), 0);
	EXPECT(eat(receiver), FRAME(3));

	/* And again. */
	EXPECT(ipc_inbox_request_snapshot(receiver), 0);
	EXPECT(positions_of(sender).snapshot_wanted, 2);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-10: it does not grow, and stands again. */
Test(inbox_full, request_stands_again_after_an_aborted_answer)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);

	ASSERT(snapshot(sender, G1, 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
	ASSERT(ipc_inbox_request_snapshot(receiver), 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ASSERT(ipc_inbox_abort_snapshot(sender), 0);
	EXPECT(positions_of(sender).snapshot_wanted, 1);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_READY_REQUEST);
	EXPECT(frame(sender, 0), IPC_EOVERFLOW);
	ASSERT(snapshot(sender, G2, 8), 0);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_ETIMEDOUT);
	EXPECT(frame(sender, 8), 0);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-10: those who sleep. */
Test(inbox_full, request_ends_the_waits_of_the_sender)
{
	static const enum order order[] = {ORDER_FRAME_WAIT, ORDER_CLAIM_WAIT, ORDER_WANTED_WAIT,
					   ORDER_WAIT_ANY};
	static const int64_t result[] = {IPC_EOVERFLOW, IPC_EOVERFLOW, 1, IPC_READY_REQUEST};

	for (unsigned i = 0; i < 4; ++i) {
		ipc_inbox_receiver *receiver = RECEIVER_NEW(.capacity = SMALL);
		struct actor sender;
		int64_t n = 0, a;

		SENDER_START(&sender, 0);
		ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
		ASSERT(order_do(&sender, ORDER_END, 0), 0);
		while (order_do(&sender, ORDER_FRAME, n) == 0)
			++n;
		EXPECT(see(receiver), BEGIN(G1));
		EXPECT(see(receiver), END(0));
		a = order[i] == ORDER_WAIT_ANY      ? IPC_READY_REQUEST
		    : order[i] == ORDER_WANTED_WAIT ? 0
						    : n;
		order_sleep(&sender, order[i], a);
		EXPECT(ipc_inbox_request_snapshot(receiver), 0);
		EXPECT(actor_hear(&sender), result[i]);
		actor_kill(&sender);
		ipc_inbox_receiver_close(receiver);
		until_no_inbox();
	}
}

/* I-10: nobody is there to hear it. */
Test(inbox_full, request_waits_for_a_sender)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	ipc_inbox_sender *sender;
	uint64_t served = 0;

	EXPECT(ipc_inbox_request_snapshot(receiver), 0);
	sender = SENDER_NEW(0);
	EXPECT(ipc_inbox_wanted_wait(sender, &served, &past), 0);
	EXPECT(served, 1);
	ASSERT(snapshot(sender, G1, 0), 0);
	EXPECT(frame(sender, 0), 0);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* ---- wakes ---- */

/* I-7 */
Test(inbox_full, every_event_wakes_a_receiver_that_sleeps)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	struct actor receiver;
	int fd = file_new(4);

	RECEIVER_START(&receiver, 0);
	order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	EXPECT(actor_hear(&receiver), BEGIN(G1));
	order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	ASSERT(chunk(sender, 4), 0);
	EXPECT(actor_hear(&receiver), CHUNK(4));
	order_sleep(&receiver, ORDER_WAIT_ANY, IPC_READY_READABLE);
	ASSERT(ipc_inbox_abort_snapshot(sender), 0);
	EXPECT(actor_hear(&receiver), IPC_READY_READABLE);
	EXPECT(order_do(&receiver, ORDER_RECEIVE_WAIT, 0), ABORT(ABORTED));
	order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	EXPECT(actor_hear(&receiver), BEGIN(G2));
	order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	ASSERT(ipc_inbox_end_snapshot(sender, 6), 0);
	EXPECT(actor_hear(&receiver), END(6));
	for (uint32_t i = 6; i < 40; ++i) {
		order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
		ASSERT(frame(sender, i), 0);
		EXPECT(actor_hear(&receiver), FRAME(i));
	}
	close(fd);
	actor_kill(&receiver);
	ipc_inbox_sender_close(sender);
}

/* I-7: it takes some, does something else, and then sleeps only if there is nothing. */
Test(inbox_full, receiver_with_a_budget_loses_no_wake)
{
	enum { N = 20000 };
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = IPC_STAY);
	struct ipc_wait_item item = {.handle = receiver, .events = IPC_READY_READABLE};
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_inbox_event event[3];
	struct actor sender;
	unsigned n = 0;
	int r;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 0), 0);
	order_begin(&sender, ORDER_FRAMES_WAIT, 0, N);
	while (n < N + 2) {
		ASSERT(ipc_wait_any(&item, 1, &deadline), 0);
		r = ipc_inbox_receive_many(receiver, event, 3);
		cr_assert_gt(r, 0);
		ASSERT(ipc_inbox_mark_applied(receiver, &event[r - 1]), 0);
		n += (unsigned)r;
	}
	EXPECT(actor_hear(&sender), 0);
	EXPECT(positions_at(receiver).applied, N);
	actor_kill(&sender);
	ipc_inbox_receiver_close(receiver);
}
