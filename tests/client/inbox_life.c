/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: whose it is, how it ends, cancel, close, fork.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "tests/client/inbox_scene.h"

TestSuite(inbox_life, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- places ---- */

/* I-13 */
Test(inbox_life, second_sender_and_receiver_are_refused)
{
	ipc_inbox_sender *sender = SENDER_NEW(0), *other = NULL;
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0), *another = NULL;
	struct actor actor;

	EXPECT(sender_open(&other, fixture_client, (struct ipc_inbox_options){.flags = IPC_CREATE}),
	       IPC_EBUSY);
	EXPECT(receiver_open(&another, fixture_client, (struct ipc_inbox_options){0}), IPC_EBUSY);
	EXPECT(member_try(&actor, (struct member){.role = IPC_ROLE_INBOX_SENDER}), IPC_EBUSY);
	cr_expect_null(other);
	cr_expect_null(another);
	actor_kill(&actor);

	/* The place is free with close. */
	ipc_inbox_sender_close(sender);
	ASSERT(sender_open(&other, fixture_client, (struct ipc_inbox_options){0}), 0);
	ipc_inbox_sender_close(other);
	ipc_inbox_receiver_close(receiver);
}

static void wait_for_the_place(struct actor *self, void *arg)
{
	const enum ipc_role *role = arg;
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_inbox_sender *sender;
	ipc_inbox_receiver *receiver;
	const struct ipc_inbox_options options = {.size = sizeof(options), .flags = IPC_AWAIT};

	actor_say(self, 0);
	actor_say(self,
		  *role == IPC_ROLE_INBOX_SENDER
			  ? ipc_inbox_sender_open_wait(&sender, own, NAME, &options, NULL)
			  : ipc_inbox_receiver_open_wait(&receiver, own, NAME, &options, NULL));
	(void)actor_hear(self);
}

/* I-13: with IPC_AWAIT; a death is as good as a close. */
Test(inbox_life, place_is_waited_for)
{
	enum ipc_role role[] = {IPC_ROLE_INBOX_SENDER, IPC_ROLE_INBOX_RECEIVER};

	for (unsigned i = 0; i < 4; ++i) {
		struct actor holder, next;
		struct member member = {.role = role[i % 2],
					.options = {.flags = IPC_CREATE | IPC_KEEP}};

		member_start(&holder, member);
		actor_start(&next, wait_for_the_place, &role[i % 2]);
		ASSERT(actor_hear(&next), 0);
		member_end(&holder, i < 2);
		EXPECT(actor_hear(&next), 0);
		actor_kill(&next);
		ASSERT(take_away(NAME, 0), 0);
	}
}

/* M-54: another user's, with descriptors; its death is told as any. */
Test(inbox_life, other_user_with_the_right_to_write_may_send)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.mode = 0666);
	struct ipc_inbox_event event;
	struct actor sender;

	member_start(&sender, (struct member){.role = IPC_ROLE_INBOX_SENDER, .uid = OTHER_UID});
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_CHUNK_FD, 3), 0);
	ASSERT(order_do(&sender, ORDER_END, 0), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	ASSERT(ipc_inbox_receive(receiver, &event), 0);
	EXPECT(event.size, 3);
	EXPECT(close(event.fd), 0);
	EXPECT(eat(receiver), END(0));
	order_sleep(&sender, ORDER_APPLIED_WAIT, 1);
	actor_kill(&sender);
	EXPECT(eat_in(receiver, WAIT_MS), IPC_EOWNERDEAD);
	ipc_inbox_receiver_close(receiver);
}

/* M-43: a name that is not there yet. */
Test(inbox_life, name_is_waited_for)
{
	enum ipc_role role = IPC_ROLE_INBOX_RECEIVER;
	ipc_inbox_sender *sender;
	struct actor next;

	actor_start(&next, wait_for_the_place, &role);
	ASSERT(actor_hear(&next), 0);
	sender = SENDER_NEW(0);
	EXPECT(actor_hear(&next), 0);
	EXPECT(ipc_inbox_sender_peers(sender), 1);
	actor_kill(&next);
	ipc_inbox_sender_close(sender);
}

/* M-28 of the whole client, and the deadline. */
Test(inbox_life, wait_for_a_place_ends_with_its_deadline)
{
	ipc_inbox_sender *sender = SENDER_NEW(0), *other = NULL;
	const struct ipc_inbox_options options = {.size = sizeof(options), .flags = IPC_AWAIT};
	struct timespec deadline = domain_deadline(20);

	EXPECT(ipc_inbox_sender_open_wait(&other, fixture_client, NAME, &options, &deadline),
	       IPC_ETIMEDOUT);
	EXPECT(ipc_inbox_sender_open_wait(&other, fixture_client, NAME, &options, &past),
	       IPC_ETIMEDOUT);
	cr_expect_null(other);
	ipc_inbox_sender_close(sender);
}

/* ---- the channel's end ---- */

/* M-48: they go on among themselves, and drain; the name is another's. */
Test(inbox_life, removed_inbox_goes_on_for_its_handles)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY), *other;
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = IPC_STAY);

	ASSERT(snapshot(sender, G1, 0), 0);
	ASSERT(take_away(NAME, 0), 0);
	ASSERT(frame(sender, 0), 0);
	other = SENDER_NEW(.capacity = 8192);
	EXPECT(ipc_inbox_sender_peers(other), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), CHUNK(0));
	EXPECT(eat(receiver), END(0));
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ipc_inbox_sender_close(sender);
	ASSERT(ipc_inbox_receiver_peers_wait(receiver, false, NULL), 0);

	/* Nobody will come: final, also for one that stays (M-22); what was sent comes first. */
	EXPECT(eat(receiver), FRAME(0));
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(eat(receiver), ABORT(SENDER_CLOSED));
	EXPECT(eat(receiver), IPC_EPIPE);
	EXPECT(eat_in(receiver, WAIT_MS), IPC_EPIPE);
	EXPECT(look(receiver, IPC_READY_READABLE), IPC_READY_END);
	EXPECT(ipc_inbox_receiver_peers_wait(receiver, true, NULL), IPC_EPIPE);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(other);
}

/* M-22, M-48 */
Test(inbox_life, removed_inbox_ends_for_a_sender_that_stays)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	struct actor receiver;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	ASSERT(take_away(NAME, 0), 0);
	ASSERT(frame(sender, 0), 0);
	member_end(&receiver, true);
	EXPECT(frame(sender, 1), IPC_EOWNERDEAD);
	EXPECT(frame_in(sender, 1, WAIT_MS), IPC_EOWNERDEAD);
	EXPECT(ipc_inbox_begin_snapshot(sender, G2), IPC_EOWNERDEAD);
	ipc_inbox_sender_close(sender);
}

/* M-43 */
Test(inbox_life, inbox_ends_with_its_last_handle)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);

	ASSERT(snapshot(sender, G1, 5), 0);
	ipc_inbox_sender_close(sender);
	EXPECT(exists(NAME), true);
	ipc_inbox_receiver_close(receiver);
	EXPECT(exists(NAME), false);
	sender = SENDER_NEW(0);
	EXPECT(positions_of(sender).written, 0);
	ipc_inbox_sender_close(sender);
}

/* I-3, I-6, M-43: a kept one has what it had. */
Test(inbox_life, kept_inbox_outlives_its_handles)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_KEEP);
	ipc_inbox_receiver *receiver;

	ASSERT(snapshot(sender, G1, 5), 0);
	ASSERT(frame(sender, 5), 0);
	ipc_inbox_sender_close(sender);
	domain_kill_worker(&fixture_domain);
	receiver = RECEIVER_NEW(0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), CHUNK(5));
	EXPECT(eat(receiver), END(5));
	EXPECT(eat(receiver), FRAME(5));
	EXPECT(eat(receiver), IPC_EPIPE);
	ipc_inbox_receiver_close(receiver);
	sender = SENDER_NEW(0);
	EXPECT(positions_of(sender).applied, 6);
	ASSERT(frame(sender, 6), IPC_EPIPE);
	ipc_inbox_sender_close(sender);
	ASSERT(take_away(NAME, 0), 0);
}

/* ---- held dead ---- */

/* M-24, I-3: the library's descriptors were closed under it: every call says so, and what it had
 * claimed is not in the stream. */
Test(inbox_life, sender_that_is_held_dead_is_out)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(.flags = IPC_STAY);
	struct actor sender, next;
	uint64_t id;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 0), 0);
	ASSERT(order_do(&sender, ORDER_FRAME, 0), 0);
	ASSERT(order_do(&sender, ORDER_CLAIM, 1), 0);
	id = (uint64_t)order_do(&sender, ORDER_ID, 0);
	ASSERT(order_do(&sender, ORDER_CLOSE_FDS, 0), 0);
	until_not_alive(id);
	SENDER_START(&next, 0);
	EXPECT(order_do(&sender, ORDER_COMMIT, 1), IPC_ESTALE);
	EXPECT(order_do(&sender, ORDER_FRAME, 1), IPC_ESTALE);
	ASSERT(order_do(&next, ORDER_FRAME, 1), 0);
	EXPECT(order_do(&sender, ORDER_BEGIN, G2), IPC_ESTALE);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(0));
	EXPECT(eat(receiver), FRAME(0));
	EXPECT(eat(receiver), FRAME(1));
	EXPECT(eat(receiver), IPC_EAGAIN);
	actor_kill(&sender);
	actor_kill(&next);
	ipc_inbox_receiver_close(receiver);
}

/* M-24, I-4 */
Test(inbox_life, receiver_that_is_held_dead_is_out)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	ipc_inbox_receiver *next;
	struct actor receiver;
	uint64_t id;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	ASSERT(frame(sender, 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
	ASSERT(order_do(&receiver, ORDER_MARK, 0), 0);
	ASSERT(order_do(&receiver, ORDER_RECEIVE, 0), FRAME(0));
	id = (uint64_t)order_do(&receiver, ORDER_ID, 0);
	ASSERT(order_do(&receiver, ORDER_CLOSE_FDS, 0), 0);
	until_not_alive(id);
	next = RECEIVER_NEW(0);
	EXPECT(order_do(&receiver, ORDER_MARK, 0), IPC_ESTALE);
	EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), IPC_ESTALE);
	EXPECT(order_do(&receiver, ORDER_REQUEST, 0), IPC_ESTALE);
	EXPECT(positions_of(sender).applied, 0);
	EXPECT(eat(next), FRAME(0));
	EXPECT(positions_of(sender).applied, 1);
	actor_kill(&receiver);
	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}

/* ---- cancel, close, fork ---- */

/* M-28 */
Test(inbox_life, cancel_ends_waits_and_leaves_the_rest)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event;
	uint64_t served = 0;
	uint32_t n = 0;

	ASSERT(snapshot(sender, G1, 0), 0);
	ASSERT(ipc_inbox_sender_cancel(sender), 0);
	ASSERT(ipc_inbox_receiver_cancel(receiver), 0);
	while (frame(sender, n) == 0)
		++n;
	EXPECT(frame_in(sender, n, WAIT_MS), IPC_ECANCELED);
	EXPECT(ipc_inbox_wanted_wait(sender, &served, NULL), IPC_ECANCELED);
	EXPECT(ipc_inbox_applied_wait(sender, 99, NULL), IPC_ECANCELED);
	EXPECT(look(sender, IPC_READY_REQUEST), IPC_ECANCELED);
	for (uint32_t i = 0; i < n + 3; ++i)
		cr_assert_geq(eat(receiver), 0);
	EXPECT(ipc_inbox_receive(receiver, &event), IPC_EAGAIN);
	EXPECT(ipc_inbox_receive_wait(receiver, &event, NULL), IPC_ECANCELED);
	EXPECT(ipc_inbox_sender_cancel(NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_receiver_cancel((ipc_inbox_receiver *)sender), IPC_EINVAL);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

static void *receive_in_a_thread(void *arg)
{
	struct ipc_inbox_event event;

	return (void *)(intptr_t)ipc_inbox_receive_wait(arg, &event, NULL);
}

static void *send_in_a_thread(void *arg)
{
	uint32_t offset = 0;
	int r;

	while ((r = ipc_inbox_send_frame_wait(arg, offset, &offset, sizeof(offset), NULL)) == 0)
		++offset;
	return (void *)(intptr_t)r;
}

static void *applied_in_a_thread(void *arg)
{
	return (void *)(intptr_t)ipc_inbox_applied_wait(arg, UINT64_MAX, NULL);
}

/* Until the sender is dead. */
static void *count_in_a_thread(void *arg)
{
	struct ipc_inbox_event event;
	int n = 0, r;

	while ((r = ipc_inbox_receive_wait(arg, &event, NULL)) == 0) {
		++n;
		if (ipc_inbox_mark_applied(arg, &event) < 0)
			n = -1000000;
	}
	return (void *)(intptr_t)(r == IPC_EOWNERDEAD ? n : r);
}

static int result_of(pthread_t thread)
{
	void *result;

	cr_assert_eq(pthread_join(thread, &result), 0);
	return (int)(intptr_t)result;
}

/* M-44 */
Test(inbox_life, close_ends_the_calls_of_other_threads)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	pthread_t receiving[2], sending, applying;

	for (unsigned i = 0; i < 2; ++i)
		ASSERT(pthread_create(&receiving[i], NULL, receive_in_a_thread, receiver), 0);
	process_until_asleep(getpid(), 2);
	ipc_inbox_receiver_close(receiver);
	for (unsigned i = 0; i < 2; ++i)
		EXPECT(result_of(receiving[i]), IPC_ECANCELED);

	receiver = RECEIVER_NEW(0);
	ASSERT(snapshot(sender, G1, 0), 0);
	ASSERT(pthread_create(&sending, NULL, send_in_a_thread, sender), 0);
	ASSERT(pthread_create(&applying, NULL, applied_in_a_thread, sender), 0);
	process_until_asleep(getpid(), 2);
	ipc_inbox_sender_close(sender);
	EXPECT(result_of(sending), IPC_ECANCELED);
	EXPECT(result_of(applying), IPC_ECANCELED);
	ipc_inbox_receiver_close(receiver);
}

static void *chunks_in_a_thread(void *arg)
{
	int r;

	do
		r = ipc_inbox_send_chunk_wait(arg, "x", 1, NULL);
	while (r == 0);
	return (void *)(intptr_t)r;
}

/* M-44, I-2: whatever a thread is doing inside of it. */
Test(inbox_life, close_aborts_the_snapshot_that_a_thread_is_in)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	pthread_t thread[2];
	int64_t event;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	for (unsigned i = 0; i < 2; ++i)
		ASSERT(pthread_create(&thread[i], NULL, chunks_in_a_thread, sender), 0);
	process_until_asleep(getpid(), 2);
	ipc_inbox_sender_close(sender);
	for (unsigned i = 0; i < 2; ++i)
		EXPECT(result_of(thread[i]), IPC_ECANCELED);
	EXPECT(eat(receiver), BEGIN(G1));
	do
		event = eat(receiver);
	while (event == INT64_MIN); /* of one byte */
	EXPECT(event, ABORT(SENDER_CLOSED));
	ASSERT(ipc_inbox_receiver_peers_wait(receiver, false, NULL), 0);
	EXPECT(eat(receiver), IPC_EPIPE);
	ipc_inbox_receiver_close(receiver);
}

/* I-11: also of another inbox, where the same was sent. */
Test(inbox_life, event_of_another_inbox_is_stale)
{
	const struct ipc_inbox_options *options = IPC_INBOX_OPTIONS(.flags = IPC_CREATE);
	ipc_inbox_sender *sender[2] = {SENDER_NEW(0), NULL};
	ipc_inbox_receiver *receiver[2] = {RECEIVER_NEW(0), NULL};
	struct ipc_inbox_event event[2][3];

	ASSERT(ipc_inbox_sender_open_wait(&sender[1], fixture_client, "other", options, NULL), 0);
	ASSERT(ipc_inbox_receiver_open_wait(&receiver[1], fixture_client, "other", options, NULL),
	       0);
	for (unsigned i = 0; i < 2; ++i) {
		ASSERT(snapshot(sender[i], G1, 10), 0);
		ASSERT(ipc_inbox_receive_many(receiver[i], event[i], 3), 3);
	}
	EXPECT(ipc_inbox_mark_applied(receiver[0], &event[1][2]), IPC_ESTALE);
	EXPECT(positions_of(sender[0]).applied_generation, 0);
	EXPECT(ipc_inbox_mark_applied(receiver[0], &event[0][2]), 0);
	EXPECT(positions_of(sender[0]).applied_generation, G1);
	for (unsigned i = 0; i < 2; ++i) {
		ipc_inbox_receiver_close(receiver[i]);
		ipc_inbox_sender_close(sender[i]);
	}
}

/* I-7, M-42: each event goes to one of them. */
Test(inbox_life, several_threads_may_receive)
{
	enum { N = 3, FRAMES = 3000 };
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	pthread_t thread[N];
	struct actor sender;
	unsigned n = 0;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_END, 0), 0);
	for (unsigned i = 0; i < N; ++i)
		ASSERT(pthread_create(&thread[i], NULL, count_in_a_thread, receiver), 0);
	order_begin(&sender, ORDER_FRAMES_WAIT, 0, FRAMES);
	EXPECT(actor_hear(&sender), 0);
	member_end(&sender, true);
	for (unsigned i = 0; i < N; ++i)
		n += (unsigned)result_of(thread[i]);
	EXPECT(n, FRAMES + 2);
	ipc_inbox_receiver_close(receiver);
}

/* M-42, M-70: nothing of it is there in a child, whose end disturbs nobody. */
Test(inbox_life, forked_child_has_nothing)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event;
	pid_t child;

	ASSERT(snapshot(sender, G1, 0), 0);
	EXPECT(see(receiver), BEGIN(G1));
	child = process_fork();
	if (child == 0) {
		bool ok = frame(sender, 0) == IPC_ECHILD &&
			  ipc_inbox_receive(receiver, &event) == IPC_ECHILD &&
			  ipc_inbox_request_snapshot(receiver) == IPC_ECHILD &&
			  ipc_inbox_abort_snapshot(sender) == IPC_ECHILD;

		ipc_inbox_receiver_close(receiver);
		ipc_inbox_sender_close(sender);
		process_end(ok ? 0 : 1);
	}
	EXPECT(process_reap(child, WAIT_MS), 0);
	EXPECT(see(receiver), CHUNK(0));
	EXPECT(frame(sender, 0), 0);
	EXPECT(eat(receiver), END(0));
	EXPECT(eat(receiver), FRAME(0));
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

static int call_back(const struct ipc_channel_info *info, void *userdata)
{
	(void)info;
	return frame(userdata, 0);
}

/* M-42 */
Test(inbox_life, callbacks_must_not_call)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);

	ASSERT(snapshot(sender, G1, 0), 0);
	EXPECT(ipc_client_list_wait(fixture_client, "*", call_back, sender, NULL), IPC_EDEADLK);
	ipc_inbox_sender_close(sender);
}

/* M-31, I-7: nobody notices. */
Test(inbox_life, data_flows_while_the_broker_is_away)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	struct actor receiver;

	RECEIVER_START(&receiver, 0);
	ASSERT(snapshot(sender, G1, 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(order_do(&receiver, ORDER_RECEIVE, 0), 0);
	for (uint32_t i = 0; i < 6; ++i) {
		order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0);
		if (i % 2)
			domain_kill_worker(&fixture_domain);
		else if (i % 4 == 0)
			domain_kill_keeper(&fixture_domain);
		ASSERT(frame(sender, i), 0);
		EXPECT(actor_hear(&receiver), FRAME(i));
	}
	member_end(&receiver, true);
	EXPECT(frame(sender, 6), IPC_EOWNERDEAD);
	ipc_inbox_sender_close(sender);
}
