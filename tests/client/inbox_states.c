/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: the end of either process in each state of a snapshot, and
 * what the other one and the next one get.
 */
#include "tests/client/inbox_scene.h"

TestSuite(inbox_states, .init = fixture_setup, .fini = fixture_teardown, .timeout = 100);

enum { NEXT = 5, N_EVENTS = 6 };

/* What is sent, in order. */
static const struct {
	enum order order;
	int64_t a;
	int64_t event;
} sent[N_EVENTS] = {
	{ORDER_BEGIN, G2, BEGIN(G2)},     {ORDER_CHUNK, 1, CHUNK(1)},
	{ORDER_CHUNK, 2, CHUNK(2)},       {ORDER_END, NEXT, END(NEXT)},
	{ORDER_FRAME, NEXT, FRAME(NEXT)}, {ORDER_FRAME, NEXT + 1, FRAME(NEXT + 1)},
};

/* How many records of the snapshot there are. */
enum { SNAPSHOT = 4 };

/* ---- receivers ---- */

static void send_all(ipc_inbox_sender *sender)
{
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ASSERT(chunk(sender, 1), 0);
	ASSERT(chunk(sender, 2), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, NEXT), 0);
	ASSERT(frame(sender, NEXT), 0);
	ASSERT(frame(sender, NEXT + 1), 0);
}

/* The next receiver's; the one before had received so many events, and marked so many of them. */
static void expect_after_receiver(ipc_inbox_sender *sender, unsigned received, unsigned marked)
{
	bool is_lost = received > 0 && marked < SNAPSHOT;
	ipc_inbox_receiver *next = RECEIVER_NEW(0);

	EXPECT(positions_at(next).snapshot_wanted, is_lost);
	EXPECT(positions_at(next).applied_generation, marked < SNAPSHOT ? 0 : G2);
	if (is_lost) {
		EXPECT(eat(next), ABORT(RECEIVER_CHANGED));
	} else {
		for (unsigned i = marked; i < N_EVENTS; ++i)
			EXPECT(eat(next), sent[i].event);
	}
	EXPECT(eat(next), IPC_EAGAIN);
	EXPECT(positions_at(next).applied, is_lost ? 0 : NEXT + 2);

	/* And it goes on. */
	EXPECT(frame(sender, NEXT + 2), is_lost ? IPC_EOVERFLOW : 0);
	if (is_lost) {
		ASSERT(snapshot(sender, G3, 50), 0);
		EXPECT(eat(next), BEGIN(G3));
		EXPECT(eat(next), CHUNK(50));
		EXPECT(eat(next), END(50));
		ASSERT(frame(sender, 50), 0);
	}
	EXPECT(eat(next), FRAME(is_lost ? 50 : NEXT + 2));
	EXPECT(positions_at(next).depth, 0);
	ipc_inbox_receiver_close(next);
}

static void end_receiver_at(unsigned received, unsigned marked, bool dies)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	struct actor receiver;

	RECEIVER_START(&receiver, 0);
	send_all(sender);
	for (unsigned i = 0; i < received; ++i) {
		ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), sent[i].event);
		if (i < marked)
			ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
	}
	member_end(&receiver, dies);
	expect_after_receiver(sender, received, marked);
	ipc_inbox_sender_close(sender);
	until_no_inbox();
}

/* I-4, I-6, I-11 */
Test(inbox_states, receiver_may_die_anywhere)
{
	for (unsigned received = 0; received <= N_EVENTS; ++received)
		for (unsigned marked = 0; marked <= received; ++marked)
			end_receiver_at(received, marked, true);
}

/* I-4: close is the same. */
Test(inbox_states, receiver_may_close_anywhere)
{
	for (unsigned received = 0; received <= N_EVENTS; ++received)
		for (unsigned marked = 0; marked <= received; marked += 2)
			end_receiver_at(received, marked, false);
}

/* ---- senders ---- */

/* The sender has sent so many; the receiver has received so many of them before its end. */
static void end_sender_at(unsigned n_sent, unsigned received, bool dies, uint64_t flags)
{
	bool is_inside = n_sent > 0 && n_sent < SNAPSHOT;
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = flags);
	struct actor sender;
	int64_t offset;

	SENDER_START(&sender, 0);
	for (unsigned i = 0; i < n_sent; ++i)
		ASSERT(order_do(&sender, sent[i].order, sent[i].a), 0);
	for (unsigned i = 0; i < received; ++i)
		ASSERT(eat(receiver), sent[i].event);
	if (n_sent >= SNAPSHOT)
		ASSERT(order_do(&sender, ORDER_CLAIM, 0), 0);
	member_end(&sender, dies);
	for (unsigned i = received; i < n_sent; ++i)
		EXPECT(eat(receiver), sent[i].event);
	if (is_inside)
		EXPECT(eat(receiver), EVENT(IPC_INBOX_ABORT, reason_by(dies), 0));
	EXPECT(eat(receiver), flags & IPC_STAY ? IPC_EAGAIN : end_by(dies));

	/* The next one continues, or begins. */
	SENDER_START(&sender, 0);
	offset = (int64_t)positions_at(receiver).written;
	EXPECT(offset, n_sent < SNAPSHOT ? 0 : NEXT + n_sent - SNAPSHOT);
	if (n_sent < SNAPSHOT) {
		EXPECT(order_do(&sender, ORDER_FRAME, offset), IPC_EINVAL);
		EXPECT(order_do(&sender, ORDER_CHUNK, 9), IPC_EINVAL);
		ASSERT(order_do(&sender, ORDER_BEGIN, G3), 0);
		ASSERT(order_do(&sender, ORDER_END, offset), 0);
		EXPECT(eat(receiver), BEGIN(G3));
		EXPECT(eat(receiver), END(offset));
	}
	ASSERT(order_do(&sender, ORDER_FRAME, offset), 0);
	EXPECT(eat(receiver), FRAME(offset));
	EXPECT(eat(receiver), IPC_EAGAIN);
	EXPECT(positions_at(receiver).depth, 0);
	EXPECT(positions_at(receiver).snapshot_wanted, 0);
	member_end(&sender, true);
	ipc_inbox_receiver_close(receiver);
	until_no_inbox();
}

/* I-2, I-3 */
Test(inbox_states, sender_may_die_anywhere)
{
	for (unsigned n_sent = 0; n_sent <= N_EVENTS; ++n_sent)
		for (unsigned received = 0; received <= n_sent; received += 2)
			end_sender_at(n_sent, received, true, received % 4 ? IPC_STAY : 0);
}

/* I-2, I-3 */
Test(inbox_states, sender_may_close_anywhere)
{
	for (unsigned n_sent = 0; n_sent <= N_EVENTS; ++n_sent)
		for (unsigned received = 0; received <= n_sent; received += 2)
			end_sender_at(n_sent, received, false, received % 4 ? 0 : IPC_STAY);
}
