/* SPDX-License-Identifier: MIT */
/*
 * inbox: sender and receiver in pid namespaces that are not the broker's, as in containers that
 * share a domain.  Needs root, which alone can make them.
 */
#include "tests/client/inbox_scene.h"

/* A test that is skipped is not torn down. */
static void setup(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	fixture_setup();
}

TestSuite(inbox_namespace, .init = setup, .fini = fixture_teardown, .timeout = 60);

/* A member in a namespace of its own, and its number here. */
struct stranger {
	struct actor actor;
	pid_t pid;
};

static void stranger_start(struct stranger *stranger, enum ipc_role role, uint64_t flags)
{
	struct member member = {.role = role, .options = {.flags = flags}};

	stranger->pid = actor_start_in_namespace(&stranger->actor, member_run, &member);
	ASSERT(actor_hear(&stranger->actor), 0);
}

static int64_t ask(struct stranger *stranger, enum order order, int64_t a)
{
	return order_do(&stranger->actor, order, a);
}

static void put_to_sleep(struct stranger *stranger, enum order order, int64_t a)
{
	order_begin(&stranger->actor, order, a, 0);
	process_until_asleep(stranger->pid, 1);
}

/* The member itself, not who waits for it outside. */
static void stranger_kill(struct stranger *stranger)
{
	cr_assert_eq(kill(stranger->pid, SIGKILL), 0);
	(void)actor_join(&stranger->actor);
}

/* ---- a stream ---- */

/* M-53, I-1, I-6, I-12: whoever sleeps is woken; positions are everybody's. */
Test(inbox_namespace, stream_goes_over_its_border)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.capacity = 4096);
	struct stranger sender, observer;

	stranger_start(&sender, IPC_ROLE_INBOX_SENDER, 0);
	stranger_start(&observer, IPC_ROLE_INBOX_OBSERVER, 0);
	ASSERT(ask(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(ask(&sender, ORDER_CHUNK, 9), 0);
	ASSERT(ask(&sender, ORDER_END, 0), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), CHUNK(9));
	EXPECT(eat(receiver), END(0));
	for (uint32_t i = 0; i < 20; ++i) {
		ASSERT(ask(&sender, ORDER_FRAME, i), 0);
		put_to_sleep(&sender, ORDER_APPLIED_WAIT, i + 1);
		ASSERT(eat_in(receiver, WAIT_MS), FRAME(i));
		ASSERT(actor_hear(&sender.actor), 0);
	}
	EXPECT(positions_at(receiver).applied, 20);
	order_begin(&observer.actor, ORDER_APPLIED_WAIT, G1, 21);
	process_until_asleep(observer.pid, 1);
	ASSERT(ask(&sender, ORDER_FRAME, 20), 0);
	EXPECT(eat_in(receiver, WAIT_MS), FRAME(20));
	EXPECT(actor_hear(&observer.actor), 0);

	stranger_kill(&sender);
	stranger_kill(&observer);
	ipc_inbox_receiver_close(receiver);
}

/* M-53, I-10 */
Test(inbox_namespace, stream_goes_between_two_others)
{
	struct stranger sender, receiver;

	stranger_start(&sender, IPC_ROLE_INBOX_SENDER, IPC_CREATE);
	stranger_start(&receiver, IPC_ROLE_INBOX_RECEIVER, 0);
	put_to_sleep(&sender, ORDER_WANTED_WAIT, 0);
	ASSERT(ask(&receiver, ORDER_REQUEST, 0), 0);
	EXPECT(actor_hear(&sender.actor), 1);
	put_to_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	ASSERT(ask(&sender, ORDER_BEGIN, G2), 0);
	EXPECT(actor_hear(&receiver.actor), BEGIN(G2));

	stranger_kill(&sender);
	stranger_kill(&receiver);
}

/* I-8 */
Test(inbox_namespace, chunk_by_descriptor_comes_over_its_border)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event;
	struct stranger sender;

	stranger_start(&sender, IPC_ROLE_INBOX_SENDER, 0);
	ASSERT(ask(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(ask(&sender, ORDER_CHUNK_FD, 3), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	ASSERT(ipc_inbox_receive(receiver, &event), 0);
	EXPECT(event.size, 3);
	EXPECT(close(event.fd), 0);

	stranger_kill(&sender);
	ipc_inbox_receiver_close(receiver);
}

/* ---- deaths ---- */

/* M-24, I-2, I-3: what was committed, the snapshot's end, the death; the next one goes on. */
Test(inbox_namespace, sender_that_is_killed_inside_is_told_and_followed)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.capacity = 4096);
	struct stranger first, second;

	stranger_start(&first, IPC_ROLE_INBOX_SENDER, 0);
	ASSERT(ask(&first, ORDER_BEGIN, G1), 0);
	ASSERT(ask(&first, ORDER_END, 0), 0);
	ASSERT(ask(&first, ORDER_FRAME, 0), 0);
	ASSERT(ask(&first, ORDER_BEGIN, G2), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(0));
	put_to_sleep(&first, ORDER_APPLIED_WAIT, 1);
	stranger_kill(&first);
	EXPECT(eat_in(receiver, WAIT_MS), FRAME(0));
	EXPECT(eat_in(receiver, WAIT_MS), BEGIN(G2));
	EXPECT(eat_in(receiver, WAIT_MS), ABORT(SENDER_DIED));
	EXPECT(eat_in(receiver, WAIT_MS), IPC_EOWNERDEAD);

	stranger_start(&second, IPC_ROLE_INBOX_SENDER, 0);
	ASSERT(ask(&second, ORDER_FRAME, 1), 0);
	EXPECT(eat_in(receiver, WAIT_MS), FRAME(1));

	stranger_kill(&second);
	ipc_inbox_receiver_close(receiver);
}

/* I-4: its successor, who is outside, gets the frames again that were not applied. */
Test(inbox_namespace, receiver_that_is_killed_inside_is_told_and_followed)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	ipc_inbox_receiver *next;
	struct stranger receiver;
	struct timespec deadline;

	stranger_start(&receiver, IPC_ROLE_INBOX_RECEIVER, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	for (unsigned i = 0; i < 3; ++i) {
		(void)ask(&receiver, ORDER_RECEIVE, 0);
		ASSERT(ask(&receiver, ORDER_MARK, 0), 0);
	}
	ASSERT(frame(sender, 0), 0);
	ASSERT(frame(sender, 1), 0);
	EXPECT(ask(&receiver, ORDER_RECEIVE, 0), FRAME(0));
	ASSERT(ask(&receiver, ORDER_MARK, 0), 0);
	EXPECT(ask(&receiver, ORDER_RECEIVE, 0), FRAME(1));
	put_to_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	stranger_kill(&receiver);
	deadline = domain_deadline(WAIT_MS);
	EXPECT(ipc_inbox_applied_wait(sender, 2, &deadline), IPC_EOWNERDEAD);
	EXPECT(frame(sender, 2), IPC_EOWNERDEAD);

	next = RECEIVER_NEW(0);
	EXPECT(eat_in(next, WAIT_MS), FRAME(1));
	EXPECT(positions_of(sender).applied, 2);

	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}

/* M-24: the other way round. */
Test(inbox_namespace, death_outside_is_told_inside)
{
	struct stranger receiver, sender;
	struct actor outside;

	SENDER_START(&outside, .flags = IPC_CREATE);
	stranger_start(&receiver, IPC_ROLE_INBOX_RECEIVER, 0);
	put_to_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
	actor_kill(&outside);
	EXPECT(actor_hear(&receiver.actor), IPC_EOWNERDEAD);
	stranger_kill(&receiver);
	until_no_inbox();

	RECEIVER_START(&outside, .flags = IPC_CREATE);
	stranger_start(&sender, IPC_ROLE_INBOX_SENDER, 0);
	ASSERT(ask(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(ask(&sender, ORDER_END, 1), 0);
	put_to_sleep(&sender, ORDER_APPLIED_WAIT, 1);
	actor_kill(&outside);
	EXPECT(actor_hear(&sender.actor), IPC_EOWNERDEAD);
	stranger_kill(&sender);
}

/* I-3, I-5: what the dead had claimed is room again; nobody here knows their numbers there. */
Test(inbox_namespace, claims_of_the_killed_leave_room)
{
	enum { N_DEAD = 6, SIZE = 1000 };

	static const char bytes[SIZE];
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.capacity = 4096, .flags = IPC_STAY);
	ipc_inbox_sender *sender;

	for (uint32_t i = 0; i < N_DEAD; ++i) {
		struct stranger stranger;
		struct actor outside;

		stranger_start(&stranger, IPC_ROLE_INBOX_SENDER, 0);
		if (i == 0) {
			ASSERT(ask(&stranger, ORDER_BEGIN, G1), 0);
			ASSERT(ask(&stranger, ORDER_END, 0), 0);
			EXPECT(eat(receiver), BEGIN(G1));
			EXPECT(eat(receiver), END(0));
		}
		EXPECT(ask(&stranger, ORDER_CLAIM, 2 * i), 0);
		stranger_kill(&stranger);
		SENDER_START(&outside, .flags = IPC_AWAIT);
		EXPECT(order_do(&outside, ORDER_FRAME, 2 * i), 0);
		EXPECT(order_do(&outside, ORDER_CLAIM, 2 * i + 1), 0);
		actor_kill(&outside);
		EXPECT(eat(receiver), FRAME(2 * i));

		stranger_start(&stranger, IPC_ROLE_INBOX_SENDER, IPC_AWAIT);
		EXPECT(ask(&stranger, ORDER_FRAME, 2 * i + 1), 0);
		stranger_kill(&stranger);
		EXPECT(eat(receiver), FRAME(2 * i + 1));
		while (ipc_inbox_receiver_peers(receiver) != 0)
			process_pause();
	}
	ASSERT(sender_open(&sender, fixture_client, (struct ipc_inbox_options){0}), 0);
	for (unsigned i = 0; i < 3; ++i)
		EXPECT(ipc_inbox_send_frame(sender, 2 * N_DEAD + i, bytes, SIZE), 0);

	ipc_inbox_sender_close(sender);
	ipc_inbox_receiver_close(receiver);
}
