/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: positions, observers, and waits for what is applied.
 */
#include "tests/client/inbox_scene.h"

TestSuite(inbox_observer, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static ipc_inbox_observer *observer_new(void)
{
	ipc_inbox_observer *observer = NULL;

	ASSERT(observer_open(&observer, fixture_client), 0);
	return observer;
}

static struct ipc_inbox_positions positions_by(ipc_inbox_observer *observer)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};

	ASSERT(ipc_inbox_observer_get_positions(observer, &positions), 0);
	return positions;
}

static int applied_in(ipc_inbox_sender *sender, uint64_t offset, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_inbox_applied_wait(sender, offset, &deadline);
}

static int observed_in(ipc_inbox_observer *observer, uint64_t generation, uint64_t offset,
		       unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_inbox_observer_applied_wait(observer, generation, offset, &deadline);
}

/* ---- observers ---- */

/* I-13 */
Test(inbox_observer, observer_finds_an_inbox_or_none)
{
	ipc_inbox_observer *observer = NULL;
	ipc_inbox_sender *sender;

	EXPECT(observer_open(&observer, fixture_client), IPC_ENOENT);
	EXPECT(ipc_inbox_observer_open_wait(NULL, fixture_client, NAME, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_observer_open_wait(&observer, NULL, NAME, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_observer_open_wait(&observer, fixture_client, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_observer_open_wait(&observer, fixture_client, "/x", NULL), IPC_EINVAL);
	cr_expect_null(observer);
	sender = SENDER_NEW(0);
	observer = observer_new();
	ipc_inbox_observer_close(observer);
	ipc_inbox_sender_close(sender);
}

/* I-13: it keeps nothing alive, is nobody's peer, and there may be many. */
Test(inbox_observer, observer_is_not_counted)
{
	enum { N = 5 };
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver;
	ipc_inbox_observer *observer[N];
	struct ipc_channel_info info;

	for (unsigned i = 0; i < N; ++i)
		observer[i] = observer_new();
	EXPECT(ipc_inbox_sender_peers(sender), 0);
	ASSERT(info_of(NAME, &info), 0);
	EXPECT(info.handles[0], 1);
	EXPECT(info.handles[1], 0);
	receiver = RECEIVER_NEW(0);
	EXPECT(ipc_inbox_receiver_peers(receiver), 1);
	ASSERT(snapshot(sender, G1, 3), 0);
	ipc_inbox_sender_close(sender);
	ipc_inbox_receiver_close(receiver);
	until_no_inbox();

	/* What it has mapped stays. */
	EXPECT(positions_by(observer[0]).written, 3);
	for (unsigned i = 0; i < N; ++i)
		observer[i] = ipc_inbox_observer_close(observer[i]);
}

/* I-6 */
Test(inbox_observer, observer_sees_the_same_positions)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	ipc_inbox_observer *observer = observer_new();
	struct ipc_inbox_positions seen, told;

	ASSERT(snapshot(sender, G1, 10), 0);
	ASSERT(frame(sender, 10), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
	EXPECT(see(receiver), FRAME(10));
	ASSERT(ipc_inbox_request_snapshot(receiver), 0);
	seen = positions_by(observer);
	EXPECT(seen.written, 11);
	EXPECT(seen.received, 11);
	EXPECT(seen.applied, 10);
	EXPECT(seen.generation, G1);
	EXPECT(seen.applied_generation, G1);
	EXPECT(seen.snapshot_wanted, 1);
	told = positions_of(sender);
	cr_expect_arr_eq(&seen, &told, sizeof(seen));
	told = positions_at(receiver);
	cr_expect_arr_eq(&seen, &told, sizeof(seen));

	ipc_inbox_observer_close(observer);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

static void observe_as_a_stranger(struct actor *self, void *arg)
{
	ipc_client *own;
	ipc_inbox_observer *observer;
	ipc_inbox_sender *sender;
	ipc_inbox_receiver *receiver;

	(void)arg;
	member_become(OTHER_UID);
	own = domain_connect(&fixture_domain);
	actor_say(self, sender_open(&sender, own, (struct ipc_inbox_options){0}));
	actor_say(self, receiver_open(&receiver, own, (struct ipc_inbox_options){0}));
	actor_say(self, observer_open(&observer, own));
	for (;;) {
		uint64_t generation = (uint64_t)actor_hear(self);
		uint64_t offset = (uint64_t)actor_hear(self);

		actor_say(self,
			  ipc_inbox_observer_applied_wait(observer, generation, offset, NULL));
	}
}

/* I-13, M-50: the right to read is enough, and none is too little. */
Test(inbox_observer, observer_needs_the_right_to_read_only)
{
	ipc_inbox_sender *sender = SENDER_NEW(.mode = 0644);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct actor stranger;

	actor_start(&stranger, observe_as_a_stranger, NULL);
	EXPECT(actor_hear(&stranger), IPC_EACCES);
	EXPECT(actor_hear(&stranger), IPC_EACCES);
	EXPECT(actor_hear(&stranger), 0);
	ASSERT(snapshot(sender, G1, 10), 0);
	for (unsigned i = 0; i < 2; ++i)
		cr_assert_gt(eat(receiver), 0);
	actor_say(&stranger, G1);
	actor_say(&stranger, 10);
	actor_until_asleep(&stranger);
	EXPECT(eat(receiver), END(10));
	EXPECT(actor_hear(&stranger), 0);
	actor_say(&stranger, G1);
	actor_say(&stranger, 11);
	actor_until_asleep(&stranger);
	ipc_inbox_receiver_close(receiver);
	EXPECT(actor_hear(&stranger), IPC_EPIPE);
	actor_kill(&stranger);
	ipc_inbox_sender_close(sender);
	until_no_inbox();

	sender = SENDER_NEW(0);
	EXPECT(member_try(&stranger,
			  (struct member){.role = IPC_ROLE_INBOX_OBSERVER, .uid = OTHER_UID}),
	       IPC_EACCES);
	actor_kill(&stranger);
	ipc_inbox_sender_close(sender);
}

/* ---- applied ---- */

/* I-12 */
Test(inbox_observer, applied_wait_looks_at_what_is_applied)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	ipc_inbox_observer *observer = observer_new();

	EXPECT(applied_in(sender, 1, 0), IPC_ETIMEDOUT);
	EXPECT(observed_in(observer, G1, 1, 0), IPC_ESTALE);
	ASSERT(snapshot(sender, G1, 10), 0);
	EXPECT(applied_in(sender, 10, 0), IPC_ETIMEDOUT);

	/* Nothing of this generation is applied, whatever the number. */
	EXPECT(applied_in(sender, 0, 0), IPC_ETIMEDOUT);
	EXPECT(see(receiver), BEGIN(G1));
	EXPECT(see(receiver), CHUNK(10));
	EXPECT(eat(receiver), END(10));
	EXPECT(applied_in(sender, 10, 0), 0);
	EXPECT(applied_in(sender, 0, 0), 0);
	EXPECT(applied_in(sender, 11, 0), IPC_ETIMEDOUT);
	EXPECT(observed_in(observer, G1, 10, 0), 0);
	EXPECT(observed_in(observer, G1, 11, 0), IPC_ETIMEDOUT);
	EXPECT(observed_in(observer, G2, 0, 0), IPC_ESTALE);
	EXPECT(observed_in(observer, 0, 0, 0), IPC_ESTALE);
	EXPECT(observed_in(observer, UINT64_MAX, 0, WAIT_MS), IPC_ESTALE);

	/* For a frame its offset + 1. */
	ASSERT(frame(sender, 10), 0);
	EXPECT(see(receiver), FRAME(10));
	EXPECT(applied_in(sender, 11, 0), IPC_ETIMEDOUT);

	ipc_inbox_observer_close(observer);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-12 */
Test(inbox_observer, waits_end_when_it_is_applied)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct actor sender, observer;
	struct ipc_inbox_event event;

	SENDER_START(&sender, 0);
	OBSERVER_START(&observer);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 10), 0);
	ASSERT(order_do(&sender, ORDER_FRAME, 10), 0);
	ASSERT(order_do(&sender, ORDER_FRAME, 11), 0);
	order_sleep(&sender, ORDER_APPLIED_WAIT, 12);
	order_begin(&observer, ORDER_APPLIED_WAIT, G1, 11);
	actor_until_asleep(&observer);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(10));
	EXPECT(get(receiver, &event), FRAME(10));
	ASSERT(ipc_inbox_mark_applied(receiver, &event), 0);
	EXPECT(actor_hear(&observer), 0);
	EXPECT(eat(receiver), FRAME(11));
	EXPECT(actor_hear(&sender), 0);
	actor_kill(&sender);
	actor_kill(&observer);
	ipc_inbox_receiver_close(receiver);
}

/* I-12: at once when END of another one is committed, not before. */
Test(inbox_observer, wait_of_an_observer_ends_with_its_generation)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct actor observer;

	OBSERVER_START(&observer);
	ASSERT(snapshot(sender, G1, 10), 0);
	order_begin(&observer, ORDER_APPLIED_WAIT, G1, 11);
	actor_until_asleep(&observer);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	actor_until_asleep(&observer);
	ASSERT(ipc_inbox_end_snapshot(sender, 1000), 0);
	EXPECT(actor_hear(&observer), IPC_ESTALE);
	actor_kill(&observer);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-12, M-22 */
Test(inbox_observer, absence_of_the_receiver_ends_the_wait)
{
	for (unsigned dies = 0; dies < 2; ++dies) {
		ipc_inbox_sender *sender = SENDER_NEW(0);
		ipc_inbox_observer *own = observer_new();
		struct actor receiver, observer;

		/* Awaited is not gone. */
		ASSERT(snapshot(sender, G1, 10), 0);
		EXPECT(observed_in(own, G1, 10, 20), IPC_ETIMEDOUT);
		RECEIVER_START(&receiver, 0);
		OBSERVER_START(&observer);
		for (unsigned i = 0; i < 3; ++i)
			cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
		ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
		order_begin(&observer, ORDER_APPLIED_WAIT, G1, 11);
		actor_until_asleep(&observer);
		member_end(&receiver, dies);
		EXPECT(actor_hear(&observer), end_by(dies));

		/* The condition comes first. */
		EXPECT(observed_in(own, G1, 10, WAIT_MS), 0);
		EXPECT(observed_in(own, G1, 11, WAIT_MS), end_by(dies));
		EXPECT(observed_in(own, G2, 11, WAIT_MS), IPC_ESTALE);
		EXPECT(applied_in(sender, 10, WAIT_MS), 0);
		EXPECT(applied_in(sender, 11, WAIT_MS), end_by(dies));
		actor_kill(&observer);
		ipc_inbox_observer_close(own);
		ipc_inbox_sender_close(sender);
		until_no_inbox();
	}
}

/* ---- what survives ---- */

static void expect_positions(struct ipc_inbox_positions positions, uint64_t written,
			     uint64_t received, uint64_t applied)
{
	EXPECT(positions.written, written);
	EXPECT(positions.received, received);
	EXPECT(positions.applied, applied);
	EXPECT(positions.generation, G1);
	EXPECT(positions.applied_generation, G1);
}

/* I-6: both, one after the other and together, and the broker. */
Test(inbox_observer, positions_survive_every_death)
{
	struct actor sender, receiver;
	ipc_inbox_observer *observer;

	SENDER_START(&sender, .flags = IPC_CREATE | IPC_KEEP);
	RECEIVER_START(&receiver, 0);
	observer = observer_new();
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 10), 0);
	for (int64_t i = 10; i < 20; ++i)
		ASSERT(order_do(&sender, ORDER_FRAME, i), 0);
	for (unsigned i = 0; i < 5; ++i)
		cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
	ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
	cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
	expect_positions(positions_by(observer), 20, 14, 13);

	member_end(&sender, true);
	expect_positions(positions_by(observer), 20, 14, 13);
	domain_kill_worker(&fixture_domain);
	member_end(&receiver, true);
	RECEIVER_START(&receiver, 0);
	expect_positions(positions_by(observer), 20, 13, 13);
	domain_kill_keeper(&fixture_domain);
	SENDER_START(&sender, 0);
	expect_positions(positions_by(observer), 20, 13, 13);
	EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), FRAME(13));
	member_end(&sender, true);
	member_end(&receiver, true);
	observer = ipc_inbox_observer_close(observer);
	domain_kill_worker(&fixture_domain);

	/* Nobody has it now. */
	SENDER_START(&sender, 0);
	RECEIVER_START(&receiver, 0);
	observer = observer_new();
	expect_positions(positions_by(observer), 20, 13, 13);
	EXPECT(order_do(&sender, ORDER_FRAME, 20), 0);
	for (int64_t i = 13; i <= 20; ++i)
		EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), FRAME(i));
	EXPECT(order_do(&receiver, ORDER_MARK, 0), 0);
	expect_positions(positions_by(observer), 21, 21, 21);
	actor_kill(&sender);
	actor_kill(&receiver);
	ipc_inbox_observer_close(observer);
	ASSERT(take_away(NAME, 0), 0);
}
