/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: what a side hears of the other one's end, and what the next
 * one finds.
 */
#include "tests/client/inbox_scene.h"

TestSuite(inbox_ends, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- the sender's end ---- */

/* I-3, M-21: what was committed comes first. */
static void expect_frames_before_the_end(bool dies)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct actor sender;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 5), 0);
	ASSERT(order_do(&sender, ORDER_FRAME, 5), 0);
	ASSERT(order_do(&sender, ORDER_CLAIM, 6), 0);
	member_end(&sender, dies);
	EXPECT(look(receiver, IPC_READY_READABLE), IPC_READY_READABLE);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(5));
	EXPECT(eat_in(receiver, WAIT_MS), FRAME(5));
	EXPECT(eat(receiver), end_by(dies));
	EXPECT(eat_in(receiver, WAIT_MS), end_by(dies));
	EXPECT(look(receiver, IPC_READY_READABLE), IPC_READY_END);
	EXPECT(positions_at(receiver).written, 6);
	ipc_inbox_receiver_close(receiver);
}

/* I-3, M-22 */
Test(inbox_ends, frames_come_before_the_death_of_the_sender)
{
	expect_frames_before_the_end(true);
}

/* I-3, M-22 */
Test(inbox_ends, frames_come_before_the_close_of_the_sender)
{
	expect_frames_before_the_end(false);
}

/* I-2, I-3: ABORT with its reason, once, then the end. */
static void expect_abort_before_the_end(bool dies, uint64_t flags)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = flags);
	int end = flags & IPC_STAY ? IPC_EAGAIN : end_by(dies);
	struct actor sender;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 5), 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G2), 0);
	ASSERT(order_do(&sender, ORDER_CHUNK, 1), 0);
	member_end(&sender, dies);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(5));
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(eat(receiver), CHUNK(1));
	EXPECT(look(receiver, IPC_READY_READABLE), IPC_READY_READABLE);
	EXPECT(eat(receiver), EVENT(IPC_INBOX_ABORT, reason_by(dies), 0));
	EXPECT(eat(receiver), end);
	EXPECT(positions_at(receiver).applied, 5);
	EXPECT(positions_at(receiver).generation, G1);

	/* The next one goes on in the generation before it (I-3), and says nothing of it again. */
	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_FRAME, 5), 0);
	EXPECT(eat(receiver), FRAME(5));
	EXPECT(eat(receiver), IPC_EAGAIN);
	EXPECT(positions_at(receiver).applied, 6);
	actor_kill(&sender);
	ipc_inbox_receiver_close(receiver);
	until_no_inbox();
}

/* I-2, I-3 */
Test(inbox_ends, open_snapshot_of_a_dead_sender_is_aborted)
{
	expect_abort_before_the_end(true, 0);
}

/* I-2, I-3 */
Test(inbox_ends, open_snapshot_of_a_sender_that_closed_is_aborted)
{
	expect_abort_before_the_end(false, 0);
}

/* I-2, M-22: absence ends nothing for that one; the snapshot has ended all the same. */
Test(inbox_ends, open_snapshot_is_aborted_for_a_receiver_that_stays)
{
	expect_abort_before_the_end(true, IPC_STAY);
	expect_abort_before_the_end(false, IPC_STAY);
}

/* I-2, I-3: the same for one that sleeps, and readiness. */
static void expect_sleeper_to_hear_the_abort(bool dies, uint64_t flags)
{
	struct actor sender, receiver;

	RECEIVER_START(&receiver, .flags = IPC_CREATE | flags);
	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), BEGIN(G1));
	order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	member_end(&sender, dies);
	EXPECT(actor_hear(&receiver), EVENT(IPC_INBOX_ABORT, reason_by(dies), 0));
	EXPECT(order_do(&receiver, ORDER_MARK, 0), 0);
	if (flags & IPC_STAY) {
		EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), IPC_EAGAIN);
		order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	} else {
		EXPECT(order_do(&receiver, ORDER_RECEIVE_WAIT, 0), end_by(dies));
	}
	actor_kill(&receiver);
	until_no_inbox();
}

/* I-3, M-22 */
Test(inbox_ends, sleeping_receiver_hears_abort_then_the_end)
{
	expect_sleeper_to_hear_the_abort(true, 0);
	expect_sleeper_to_hear_the_abort(false, 0);
	expect_sleeper_to_hear_the_abort(true, IPC_STAY);
}

/* I-2: nobody was there to be told; the next receiver gets what was committed and the ABORT. */
Test(inbox_ends, abort_is_told_when_both_are_gone)
{
	for (unsigned dies = 0; dies < 2; ++dies) {
		ipc_inbox_receiver *receiver;
		ipc_inbox_sender *next;
		struct actor sender;

		SENDER_START(&sender, .flags = IPC_CREATE | IPC_KEEP);
		ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
		ASSERT(order_do(&sender, ORDER_CHUNK, 9), 0);
		member_end(&sender, dies);
		next = SENDER_NEW(0);
		EXPECT(positions_of(next).generation, 0);
		EXPECT(frame(next, 0), IPC_EINVAL);
		ASSERT(snapshot(next, G2, 3), 0);
		receiver = RECEIVER_NEW(0);
		EXPECT(eat(receiver), BEGIN(G1));
		EXPECT(eat(receiver), CHUNK(9));
		EXPECT(eat(receiver), EVENT(IPC_INBOX_ABORT, reason_by(dies), 0));
		EXPECT(eat(receiver), BEGIN(G2));
		EXPECT(eat(receiver), CHUNK(3));
		EXPECT(eat(receiver), END(3));
		ipc_inbox_receiver_close(receiver);
		ipc_inbox_sender_close(next);
		ASSERT(take_away(NAME, 0), 0);
	}
}

/* I-3 */
Test(inbox_ends, next_sender_goes_on_where_the_dead_one_was)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = IPC_STAY);

	for (uint32_t i = 0; i < 5; ++i) {
		struct actor sender;

		SENDER_START(&sender, 0);
		if (i == 0) {
			ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
			ASSERT(order_do(&sender, ORDER_END, 0), 0);
			EXPECT(eat(receiver), BEGIN(G1));
			EXPECT(eat(receiver), END(0));
		}
		EXPECT(order_do(&sender, ORDER_FRAME, i + 1), IPC_EINVAL);
		EXPECT(order_do(&sender, ORDER_FRAME, i), 0);
		EXPECT(order_do(&sender, ORDER_CLAIM, i + 1), 0);
		member_end(&sender, i % 2);
		EXPECT(eat(receiver), FRAME(i));
		EXPECT(eat(receiver), IPC_EAGAIN);
	}
	EXPECT(positions_at(receiver).applied, 5);
	ipc_inbox_receiver_close(receiver);
}

/* M-22: the step is counted, whoever has come since; and it comes after the ABORT (I-3). */
Test(inbox_ends, sleeping_receiver_hears_an_end_that_is_over)
{
	for (unsigned inside = 0; inside < 2; ++inside) {
		struct actor receiver, sender, standby;

		RECEIVER_START(&receiver, .flags = IPC_CREATE);
		SENDER_START(&sender, 0);
		ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
		ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), BEGIN(G1));
		if (!inside) {
			ASSERT(order_do(&sender, ORDER_END, 0), 0);
			ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), END(0));
		}
		order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);

		/* It stands still while its sender goes and another one comes. */
		kill(receiver.pid, SIGSTOP);
		member_end(&sender, true);
		SENDER_START(&standby, 0);
		kill(receiver.pid, SIGCONT);
		if (inside) {
			EXPECT(actor_hear(&receiver), ABORT(SENDER_DIED));
			EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), IPC_EAGAIN);
		} else {
			EXPECT(actor_hear(&receiver), IPC_EOWNERDEAD);
		}
		actor_kill(&standby);
		actor_kill(&receiver);
		until_no_inbox();
	}
}

/* ---- the receiver's end ---- */

/* I-4: room or not, and the event stays the caller's. */
static void expect_end_of_calls(ipc_inbox_sender *sender, int end)
{
	void *none = NULL;
	int fd = file_new(1);

	EXPECT(ipc_inbox_begin_snapshot(sender, G2), end);
	EXPECT(ipc_inbox_begin_snapshot_wait(sender, G2, NULL), end);
	EXPECT(chunk(sender, 1), end);
	EXPECT(ipc_inbox_send_chunk_wait(sender, "x", 1, NULL), end);
	EXPECT(ipc_inbox_send_chunk_fd(sender, fd, 0, 1), end);
	EXPECT(ipc_inbox_send_chunk_fd_wait(sender, fd, 0, 1, NULL), end);
	EXPECT(ipc_inbox_end_snapshot(sender, 100), end);
	EXPECT(ipc_inbox_end_snapshot_wait(sender, 100, NULL), end);
	EXPECT(frame(sender, 1), end);
	EXPECT(frame_in(sender, 1, WAIT_MS), end);
	EXPECT(ipc_inbox_claim_frame(sender, 4, &none), end);
	EXPECT(ipc_inbox_claim_frame_wait(sender, 4, &none, NULL), end);
	cr_expect_null(none);
	EXPECT(ipc_inbox_wanted_wait(sender, &(uint64_t){0}, NULL), end);
	EXPECT(ipc_inbox_applied_wait(sender, 1000, NULL), end);
	EXPECT(look(sender, IPC_READY_WRITABLE), IPC_READY_END);
	close(fd);
}

static void expect_end_of_the_receiver(bool dies)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *next;
	struct actor receiver;
	void *claim;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	ASSERT(frame(sender, 0), 0);
	ASSERT(ipc_inbox_claim_frame(sender, 4, &claim), 0);
	memcpy(claim, &(uint32_t){1}, 4);
	member_end(&receiver, dies);
	expect_end_of_calls(sender, end_by(dies));
	EXPECT(ipc_inbox_commit_frame(sender, 1, claim, 4), end_by(dies));
	EXPECT(positions_of(sender).written, 1);

	/* The claim stayed open. */
	next = RECEIVER_NEW(0);
	EXPECT(ipc_inbox_commit_frame(sender, 1, claim, 4), 0);
	EXPECT(eat(next), BEGIN(G1));
	EXPECT(eat(next), CHUNK(0));
	EXPECT(eat(next), END(0));
	EXPECT(eat(next), FRAME(0));
	EXPECT(eat(next), FRAME(1));
	EXPECT(eat(next), IPC_EAGAIN);
	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}

/* I-4, M-22 */
Test(inbox_ends, calls_of_a_sender_say_that_the_receiver_died)
{
	expect_end_of_the_receiver(true);
}

/* I-4, M-22 */
Test(inbox_ends, calls_of_a_sender_say_that_the_receiver_closed)
{
	expect_end_of_the_receiver(false);
}

/* I-4, M-22 */
Test(inbox_ends, sender_that_stays_sends_until_it_is_full)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY, .capacity = 4096);
	struct actor receiver;
	uint32_t n = 0;
	int r;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	member_end(&receiver, true);
	EXPECT(look(sender, IPC_READY_WRITABLE), IPC_READY_WRITABLE);
	while ((r = frame(sender, n)) == 0)
		++n;
	EXPECT(r, IPC_EAGAIN);
	cr_expect_gt(n, 50);
	EXPECT(frame_in(sender, n, 20), IPC_ETIMEDOUT);
	while (ipc_inbox_send_frame(sender, n, NULL, 0) == 0)
		++n;
	EXPECT(look(sender, IPC_READY_WRITABLE), IPC_ETIMEDOUT);
	EXPECT(look(sender, IPC_READY_PEER_GONE), IPC_READY_PEER_GONE);
	EXPECT(ipc_inbox_sender_peers_wait(sender, false, NULL), 0);
	ipc_inbox_sender_close(sender);
}

/* M-22: a receiver that is awaited ends nothing. */
Test(inbox_ends, sender_without_a_receiver_yet_sends_until_it_is_full)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	ipc_inbox_receiver *receiver;
	uint32_t n = 0;
	int r;

	ASSERT(snapshot(sender, G1, 0), 0);
	while ((r = frame(sender, n)) == 0)
		++n;
	EXPECT(r, IPC_EAGAIN);
	EXPECT(frame_in(sender, n, 20), IPC_ETIMEDOUT);
	EXPECT(look(sender, IPC_READY_PEER_GONE), IPC_ETIMEDOUT);
	receiver = RECEIVER_NEW(0);
	for (uint32_t i = 0; i < 3; ++i)
		cr_expect_gt(eat(receiver), 0);
	for (uint32_t i = 0; i < n; ++i)
		ASSERT(eat(receiver), FRAME(i));
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-4, M-22: every wait of a sender, also where another one is there by then. */
static void expect_end_of_a_wait(enum order order, int64_t a, bool inside, bool dies, bool returns)
{
	struct actor sender, receiver, next;
	int64_t n = 0, r = 0;

	RECEIVER_START(&receiver, .flags = IPC_CREATE, .capacity = 4096, .frame_size_max = 16);
	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	if (!inside)
		ASSERT(order_do(&sender, ORDER_END, 0), 0);
	if (order != ORDER_WANTED_WAIT && order != ORDER_APPLIED_WAIT) {
		while ((r = order_do(&sender, inside ? ORDER_CHUNK : ORDER_FRAME, n)) == 0)
			++n;
		while (inside && (r = order_do(&sender, ORDER_CHUNK_EMPTY, 0)) == 0)
			;
		ASSERT(r, IPC_EAGAIN);
	}
	order_sleep(&sender, order, order == ORDER_FRAME_WAIT ? n : a);
	if (returns)
		kill(sender.pid, SIGSTOP);
	member_end(&receiver, dies);
	if (returns) {
		RECEIVER_START(&next, 0);
		kill(sender.pid, SIGCONT);
	}
	EXPECT(actor_hear(&sender), end_by(dies));
	if (returns)
		actor_kill(&next);
	actor_kill(&sender);
	until_no_inbox();
}

/* I-4, M-22 */
Test(inbox_ends, waits_of_a_sender_end_with_the_receiver)
{
	static const struct {
		enum order order;
		int64_t a;
		bool inside;
	} wait[] = {
		{ORDER_BEGIN_WAIT, G2, false}, {ORDER_FRAME_WAIT, 0, false},
		{ORDER_CLAIM_WAIT, 0, false},  {ORDER_CHUNK_WAIT, 1, true},
		{ORDER_END_WAIT, 1, true},     {ORDER_CHUNK_FD_WAIT, 1, true},
		{ORDER_WANTED_WAIT, 0, false}, {ORDER_APPLIED_WAIT, 1000, false},
	};

	for (unsigned i = 0; i < sizeof(wait) / sizeof(*wait); ++i)
		for (unsigned k = 0; k < 3; ++k)
			expect_end_of_a_wait(wait[i].order, wait[i].a, wait[i].inside, k % 2,
					     k == 2);
}

/* I-4: at least once, with the same offsets. */
Test(inbox_ends, frames_that_were_not_applied_come_again)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	ipc_inbox_receiver *next;
	struct actor receiver;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	for (uint32_t i = 0; i < 4; ++i)
		ASSERT(frame(sender, i), 0);
	for (unsigned i = 0; i < 5; ++i)
		cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
	ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
	EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), FRAME(2));
	EXPECT(positions_of(sender).received, 3);
	member_end(&receiver, true);
	next = RECEIVER_NEW(0);
	EXPECT(positions_of(sender).received, 2);
	EXPECT(positions_of(sender).applied, 2);
	EXPECT(positions_of(sender).snapshot_wanted, 0);
	EXPECT(eat(next), FRAME(2));
	EXPECT(eat(next), FRAME(3));
	EXPECT(eat(next), IPC_EAGAIN);
	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}

/* ---- the receiver's end inside of a snapshot ---- */

/* I-4: it does not come again, nor do frames up to the next BEGIN; one is requested. */
static void expect_lost_snapshot(bool dies, bool was_ended)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	ipc_inbox_receiver *next;
	struct actor receiver;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 5), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
	ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ASSERT(chunk(sender, 1), 0);
	ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), BEGIN(G2));
	if (was_ended) {
		ASSERT(ipc_inbox_end_snapshot(sender, 50), 0);
		ASSERT(frame(sender, 50), 0);
	}
	member_end(&receiver, dies);

	next = RECEIVER_NEW(0);
	EXPECT(positions_at(next).snapshot_wanted, 1);
	EXPECT(positions_at(next).applied, 5);
	EXPECT(positions_at(next).applied_generation, G1);
	EXPECT(eat(next), ABORT(RECEIVER_CHANGED));
	EXPECT(eat(next), IPC_EAGAIN);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_READY_REQUEST);
	if (was_ended) {
		EXPECT(frame(sender, 51), IPC_EOVERFLOW);
	} else {
		EXPECT(chunk(sender, 2), IPC_EOVERFLOW);
		EXPECT(ipc_inbox_end_snapshot(sender, 9), IPC_EOVERFLOW);
		EXPECT(ipc_inbox_end_snapshot_wait(sender, 9, NULL), IPC_EOVERFLOW);
	}
	ASSERT(snapshot(sender, G3, 60), 0);
	ASSERT(frame(sender, 60), 0);
	EXPECT(eat(next), BEGIN(G3));
	EXPECT(eat(next), CHUNK(60));
	EXPECT(eat(next), END(60));
	EXPECT(eat(next), FRAME(60));
	EXPECT(positions_at(next).applied_generation, G3);
	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}

/* I-4 */
Test(inbox_ends, snapshot_that_a_dead_receiver_was_in_is_void)
{
	expect_lost_snapshot(true, false);
	expect_lost_snapshot(true, true);
}

/* I-4: close is the same. */
Test(inbox_ends, snapshot_that_a_closed_receiver_was_in_is_void)
{
	expect_lost_snapshot(false, false);
	expect_lost_snapshot(false, true);
}

/* I-4: a BEGIN that is on its way answers it. */
Test(inbox_ends, no_snapshot_is_requested_where_one_is_on_its_way)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	ipc_inbox_receiver *next;
	struct actor receiver;

	RECEIVER_START(&receiver, 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), BEGIN(G1));
	ASSERT(snapshot(sender, G2, 5), 0);
	member_end(&receiver, true);
	next = RECEIVER_NEW(0);
	EXPECT(positions_at(next).snapshot_wanted, 0);
	EXPECT(eat(next), ABORT(RECEIVER_CHANGED));
	EXPECT(eat(next), BEGIN(G2));
	EXPECT(eat(next), CHUNK(5));
	EXPECT(eat(next), END(5));
	ASSERT(frame(sender, 5), 0);
	EXPECT(eat(next), FRAME(5));
	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}

/* I-4: a snapshot nobody has received of comes as it is. */
Test(inbox_ends, snapshot_that_was_not_received_comes_to_the_next)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	ipc_inbox_receiver *next;
	struct actor receiver;

	RECEIVER_START(&receiver, 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	member_end(&receiver, true);
	next = RECEIVER_NEW(0);
	ASSERT(ipc_inbox_end_snapshot(sender, 5), 0);
	EXPECT(eat(next), BEGIN(G1));
	EXPECT(eat(next), END(5));
	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}
