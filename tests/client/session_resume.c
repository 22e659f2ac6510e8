/* SPDX-License-Identifier: MIT */
/*
 * session: resume by key, from the dead, the stopped and the living; what the process that had the
 * end hears.
 */
#include <poll.h>
#include <sys/resource.h>

#include "tests/client/session_scene.h"

TestSuite(session_resume, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

/* ---- what comes again ---- */

/* C-3, C-4, C-5 */
Test(session_resume, the_dead_ones_successor_goes_on_where_it_had_stopped)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct ipc_session_message message;
	ipc_session *session, *resumed;
	struct actor actor;

	session = scene_begin(listener, &actor);
	for (uint32_t i = 1; i <= 4; ++i)
		ASSERT(put(session, i), 0);
	for (uint32_t i = 1; i <= 3; ++i) {
		EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), i);
		if (i == 1)
			EXPECT(order_do(&actor, ORDER_RELEASE, 0, 0), 0);
	}
	EXPECT(order_do(&actor, ORDER_SEND, 11, 0), 0);
	EXPECT(order_do(&actor, ORDER_CLAIM, 4, 99), 0);
	EXPECT(order_do(&actor, ORDER_SEND, 12, 0), 0);
	actor_kill(&actor);

	/* What it had committed is delivered before anybody resumes. */
	EXPECT(eat_in(session, WAIT_MS), 11);
	EXPECT(eat_in(session, WAIT_MS), 12);
	EXPECT(get(session, &message), IPC_EAGAIN);

	resumed = resumed_by(&keys[0]);
	EXPECT(state_of(resumed).sent, 2);
	EXPECT(state_of(resumed).acknowledged, 2);
	EXPECT(state_of(resumed).released, 1);
	EXPECT(get(resumed, &message), 2);
	EXPECT(message.sequence, 2);
	EXPECT(message.flags, IPC_MESSAGE_REDELIVERED);
	EXPECT(get(resumed, &message), 3);
	EXPECT(message.flags, IPC_MESSAGE_REDELIVERED);
	EXPECT(get(resumed, &message), 4);
	EXPECT(message.flags, 0);
	EXPECT(ipc_session_release(resumed, &message), 0);
	EXPECT(put(resumed, 13), 0);
	EXPECT(eat(session), 13);
	EXPECT(state_of(resumed).sent, 3);
	EXPECT(ipc_session_peers(session), 1);

	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-4: also over a chain of processes, none of which got as far as the first. */
Test(session_resume, what_an_earlier_process_received_comes_again_as_such)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct ipc_session_message message;
	struct actor first, second;
	ipc_session *session, *resumed;

	session = scene_begin(listener, &first);
	PARTY_START(&second, 0);
	for (uint32_t i = 1; i <= 3; ++i)
		ASSERT(put(session, i), 0);
	EXPECT(order_do(&first, ORDER_RECEIVE, 0, 0), 1);
	EXPECT(order_do(&first, ORDER_RECEIVE, 0, 0), 2);
	actor_kill(&first);
	EXPECT(order_do(&second, ORDER_RESUME, 0, 0), 0);
	EXPECT(order_do(&second, ORDER_RECEIVE, 0, 0), 1);
	EXPECT(order_do(&second, ORDER_KEY, 1, 0), 0);
	actor_kill(&second);

	resumed = resumed_by(&keys[1]);
	EXPECT(get(resumed, &message), 1);
	EXPECT(message.flags, IPC_MESSAGE_REDELIVERED);
	EXPECT(get(resumed, &message), 2);
	EXPECT(message.flags, IPC_MESSAGE_REDELIVERED);
	EXPECT(get(resumed, &message), 3);
	EXPECT(message.flags, 0);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-12: the reply is there or the request comes again. */
Test(session_resume, a_request_that_was_answered_does_not_come_again)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct ipc_session_message message;
	struct actor actor;
	ipc_session *session, *resumed;

	session = scene_begin(listener, &actor);
	ASSERT(put(session, 1), 0);
	ASSERT(put(session, 2), 0);
	EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), 1);
	EXPECT(order_do(&actor, ORDER_CLAIM, 4, 10), 0);
	EXPECT(order_do(&actor, ORDER_COMMIT_REPLY, 4, 0), 0);
	EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), 2);
	EXPECT(order_do(&actor, ORDER_CLAIM, 4, 20), 0);
	actor_kill(&actor);

	EXPECT(state_of(session).acknowledged, 1);
	EXPECT(eat(session), 10);
	EXPECT(eat(session), IPC_EAGAIN);
	resumed = resumed_by(&keys[0]);
	EXPECT(get(resumed, &message), 2);
	EXPECT(message.flags, IPC_MESSAGE_REDELIVERED);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-6 */
Test(session_resume, full_rings_do_not_hold_it)
{
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
	struct ipc_session_message message;
	struct actor actor;
	ipc_session *session, *resumed;
	unsigned n = 0;

	session = scene_begin(listener, &actor);
	while (order_do(&actor, ORDER_SEND, n + 1, 0) == 0)
		++n;
	EXPECT(fill(session), n);
	actor_kill(&actor);
	resumed = resumed_by(&keys[0]);
	EXPECT(put(resumed, 1), IPC_EAGAIN);
	for (uint32_t i = 1; i <= n; ++i) {
		EXPECT(eat(resumed), i);
		EXPECT(eat(session), i);
	}
	EXPECT(get(session, &message), IPC_EAGAIN);
	EXPECT(fill(session), n);
	EXPECT(fill(resumed), n);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-13, M-70: hand-over of a live session from one program to the next. */
Test(session_resume, a_session_is_handed_to_a_new_process)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct actor old, next;
	ipc_session *session;

	session = scene_begin(listener, &old);
	PARTY_START(&next, 0);
	ASSERT(put(session, 1), 0);
	ASSERT(put(session, 2), 0);
	EXPECT(order_do(&old, ORDER_RECEIVE, 0, 0), 1);
	EXPECT(order_do(&old, ORDER_RELEASE, 0, 0), 0);
	EXPECT(order_do(&old, ORDER_CLAIM, 4, 50), 0);
	EXPECT(order_do(&old, ORDER_DETACH, 0, 0), 0);
	EXPECT(until_peer(session, false), 0);
	cr_expect_gt(state_of(session).away_ns, 0);
	EXPECT(put(session, 3), 0);

	EXPECT(order_do(&next, ORDER_RESUME, 0, 0), 0);
	EXPECT(until_peer(session, true), 0);
	EXPECT(state_of(session).away_ns, 0);
	EXPECT(order_do(&next, ORDER_RECEIVE, 0, 0), 2);
	EXPECT(order_do(&next, ORDER_FLAGS, 0, 0), 0);
	EXPECT(order_do(&next, ORDER_RECEIVE, 0, 0), 3);
	EXPECT(order_do(&next, ORDER_SEND, 60, 0), 0);
	EXPECT(eat(session), 60);
	actor_kill(&old);
	actor_kill(&next);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-13: no broker is waited for. */
Test(session_resume, detach_does_not_wait_for_a_broker)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);
	pid_t worker = domain_worker(&fixture_domain);
	uint64_t began;

	ASSERT(kill(worker, SIGSTOP), 0);
	began = clock_now_ns();
	pair.connected = ipc_session_detach(pair.connected);
	cr_expect_lt(clock_now_ns() - began, 1000 * MS);
	ASSERT(kill(worker, SIGCONT), 0);
	EXPECT(until_peer(pair.accepted, false), 0);
	pair.connected = resumed_by(&key);
	EXPECT(put(pair.connected, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	pair_close(&pair);
}

/* ---- the process that had it ---- */

/* Every call of it. */
static void expect_stale(ipc_session *old, void *claim, const struct ipc_session_message *message)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	struct ipc_session_message many[2];
	struct ipc_session_key key;
	uint64_t id;
	void *none = NULL;

	EXPECT(put(old, 1), IPC_ESTALE);
	EXPECT(put_in(old, 1, WAIT_MS), IPC_ESTALE);
	EXPECT(ipc_session_send_fd(old, 0, NULL, 0), IPC_ESTALE);
	EXPECT(ipc_session_send_fd_wait(old, 0, NULL, 0, NULL), IPC_ESTALE);
	EXPECT(ipc_session_claim(old, 1, &none), IPC_ESTALE);
	EXPECT(ipc_session_claim_wait(old, 1, &none, NULL), IPC_ESTALE);
	EXPECT(ipc_session_commit(old, claim, 1), IPC_ESTALE);
	EXPECT(ipc_session_commit_release(old, claim, 1, message), IPC_ESTALE);
	EXPECT(ipc_session_abort(old, claim), IPC_ESTALE);
	EXPECT(ipc_session_receive(old, many), IPC_ESTALE);
	EXPECT(ipc_session_receive_wait(old, many, NULL), IPC_ESTALE);
	EXPECT(ipc_session_receive_many(old, many, 2), IPC_ESTALE);
	EXPECT(ipc_session_receive_many_wait(old, many, 2, NULL), IPC_ESTALE);
	EXPECT(ipc_session_release(old, message), IPC_ESTALE);
	EXPECT(ipc_session_get_state(old, &state), IPC_ESTALE);
	EXPECT(ipc_session_get_key(old, &key), IPC_ESTALE);
	EXPECT(ipc_session_confirm_key(old), IPC_ESTALE);
	EXPECT(ipc_session_peers(old), IPC_ESTALE);
	EXPECT(ipc_session_peers_wait(old, true, NULL), IPC_ESTALE);
	EXPECT(ipc_session_get_id(old, &id), IPC_ESTALE);
	EXPECT(ipc_session_cancel(old), IPC_ESTALE);
	EXPECT(look(old, IPC_READY_READABLE), IPC_READY_END);
	cr_expect_null(none);
}

static void expect_stale_after_takeover(ipc_client *by)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message;
	struct ipc_session_key key = key_of(pair.connected);
	ipc_session *resumed = NULL;
	void *claim;

	ASSERT(put(pair.accepted, 1), 0);
	ASSERT(get(pair.connected, &message), 1);
	ASSERT(ipc_session_claim(pair.connected, 8, &claim), 0);
	ASSERT(resume_by(&resumed, by, &key), 0);
	expect_stale(pair.connected, claim, &message);

	/* What it had been given stays mapped, and what it had claimed disturbs nobody. */
	EXPECT(number_of(&message), 1);
	memset(claim, 0xff, 8);
	for (uint32_t i = 1; i <= 100; ++i) {
		ASSERT(put(resumed, i), 0);
		ASSERT(eat(pair.accepted), i);
	}
	EXPECT(get(resumed, &message), 1);
	EXPECT(message.flags, IPC_MESSAGE_REDELIVERED);

	pair.connected = ipc_session_close(pair.connected);
	EXPECT(put(resumed, 9), 0);
	EXPECT(eat(pair.accepted), 9);
	EXPECT(ipc_session_peers(pair.accepted), 1);
	pair.connected = resumed;
	pair_close(&pair);
}

/* C-3 */
Test(session_resume, the_living_one_that_was_taken_over_is_told_so)
{
	ipc_client *other = domain_connect(&fixture_domain);

	expect_stale_after_takeover(other);
	ipc_client_unref(other);
}

/* C-3: who resumes may have had it himself. */
Test(session_resume, a_client_takes_over_from_itself)
{
	expect_stale_after_takeover(fixture_client);
}

/* C-3: detach of it leaves nobody away. */
Test(session_resume, detach_of_one_that_was_taken_over_disturbs_nothing)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);
	ipc_session *resumed = resumed_by(&key);
	uint64_t generation = state_of(resumed).generation;

	ipc_session_detach(pair.connected);
	EXPECT(ipc_session_peers(pair.accepted), 1);
	EXPECT(put(resumed, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	EXPECT(state_of(resumed).generation, generation);
	EXPECT(state_of(pair.accepted).away_ns, 0);
	pair.connected = resumed;
	pair_close(&pair);
}

/* C-3, M-21: it sleeps, in each of the calls. */
Test(session_resume, sleeping_calls_of_the_one_that_was_taken_over_end)
{
	static const struct {
		enum order order;
		int64_t a, wanted;
	} wait[] = {
		{ORDER_RECEIVE_WAIT, 0, IPC_ESTALE},
		{ORDER_SEND_WAIT, 1, IPC_ESTALE},
		{ORDER_PEERS_WAIT, 0, IPC_ESTALE},
		{ORDER_WAIT_ANY, IPC_READY_READABLE, IPC_READY_END},
		{ORDER_WAIT_ANY, IPC_READY_PEER_GONE, IPC_READY_END},
	};

	for (unsigned i = 0; i < sizeof(wait) / sizeof(wait[0]); ++i) {
		ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
		ipc_session *session, *resumed;
		struct actor actor;

		session = scene_begin(listener, &actor);
		while (wait[i].order == ORDER_SEND_WAIT && order_do(&actor, ORDER_SEND, 1, 0) == 0)
			;
		order_sleep(&actor, wait[i].order, wait[i].a, 0);
		resumed = resumed_by(&keys[0]);
		EXPECT(actor_hear(&actor), wait[i].wanted);
		EXPECT(order_do(&actor, ORDER_SEND, 1, 0), IPC_ESTALE);
		EXPECT(order_do(&actor, ORDER_CLOSE, 0, 0), 0);
		EXPECT(ipc_session_peers(session), 1);
		actor_kill(&actor);
		EXPECT(ipc_session_peers(session), 1);
		ipc_session_close(resumed);
		ipc_session_close(session);
		ipc_listener_close(listener);
	}
}

/* C-3, M-30: in the poll set. */
Test(session_resume, one_that_was_taken_over_is_ready_in_the_poll_set)
{
	ipc_client *other = domain_connect(&fixture_domain);
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);
	struct pollfd poll_fd = {.fd = ipc_client_get_fd(fixture_client), .events = POLLIN};
	struct ipc_poll_event event;
	ipc_session *resumed = NULL;

	ASSERT(ipc_poll_add(fixture_client, pair.connected, IPC_READY_READABLE, &key), 0);
	ASSERT(ipc_poll_next(fixture_client, &event), IPC_EAGAIN);
	EXPECT(poll(&poll_fd, 1, 0), 0);
	ASSERT(resume_by(&resumed, other, &key), 0);
	EXPECT(poll(&poll_fd, 1, WAIT_MS), 1);
	ASSERT(ipc_poll_next(fixture_client, &event), 0);
	EXPECT(event.ready, IPC_READY_END);
	cr_expect_eq(event.handle, pair.connected);
	cr_expect_eq(event.userdata, &key);
	EXPECT(ipc_poll_remove(fixture_client, pair.connected), 0);
	EXPECT(ipc_poll_add(fixture_client, pair.connected, IPC_READY_READABLE, NULL), IPC_ESTALE);

	ipc_session_close(pair.connected);
	pair.connected = resumed;
	pair_close(&pair);
	ipc_client_unref(other);
}

/* M-24: another matter is a process that the broker holds dead as a whole. */
Test(session_resume, a_process_that_is_held_dead_gets_no_events)
{
	ipc_listener *listener = LISTENER_NEW(0);
	ipc_session *session, *resumed;
	struct actor actor;

	session = scene_begin(listener, &actor);
	EXPECT(order_do(&actor, ORDER_CLOSE_FDS, 0, 0), 0);
	EXPECT(until_peer(session, false), 0);
	EXPECT(order_do(&actor, ORDER_WAIT_ANY, IPC_READY_READABLE, 0), IPC_ESTALE);
	EXPECT(order_do(&actor, ORDER_SEND, 1, 0), IPC_ESTALE);
	resumed = resumed_by(&keys[0]);
	EXPECT(put(resumed, 2), 0);
	EXPECT(eat(session), 2);
	actor_kill(&actor);
	EXPECT(ipc_session_peers(session), 1);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-3: a process that is stopped is taken over; it goes on too late, in the middle of a call. */
Test(session_resume, the_stopped_one_finds_out_when_it_goes_on)
{
	ipc_listener *listener = LISTENER_NEW(0);
	ipc_session *session, *resumed;
	struct actor actor;

	session = scene_begin(listener, &actor);
	order_sleep(&actor, ORDER_RECEIVE_WAIT, 0, 0);
	ASSERT(kill(actor.pid, SIGSTOP), 0);
	ASSERT(put(session, 1), 0);
	resumed = resumed_by(&keys[0]);
	EXPECT(eat(resumed), 1);
	ASSERT(put(session, 2), 0);
	ASSERT(kill(actor.pid, SIGCONT), 0);
	EXPECT(actor_hear(&actor), IPC_ESTALE);
	EXPECT(eat(resumed), 2);
	actor_kill(&actor);
	EXPECT(ipc_session_peers(session), 1);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* ---- what comes between ---- */

/* C-14: who comes back after the other end closed receives what it had sent. */
Test(session_resume, one_whose_peer_closed_drains)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);
	struct ipc_session_message message;

	ASSERT(put(pair.accepted, 1), 0);
	ASSERT(put(pair.accepted, 2), 0);
	ASSERT(get(pair.connected, &message), 1);
	pair.connected = ipc_session_detach(pair.connected);
	pair.accepted = ipc_session_close(pair.accepted);
	pair.connected = resumed_by(&key);
	EXPECT(put(pair.connected, 1), IPC_EPIPE);
	EXPECT(get(pair.connected, &message), 1);
	EXPECT(message.flags, IPC_MESSAGE_REDELIVERED);
	EXPECT(eat(pair.connected), 2);
	EXPECT(eat_in(pair.connected, WAIT_MS), IPC_EPIPE);
	pair_close(&pair);
}

/* C-3, M-6: a worker dies between any two of these. */
Test(session_resume, brokers_deaths_are_not_noticed)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);

	for (unsigned i = 0; i < 6; ++i) {
		ipc_session *next;

		if (i % 2 == 0)
			domain_kill_worker(&fixture_domain);
		else
			domain_kill_keeper(&fixture_domain);
		next = resumed_by(&key);
		EXPECT(put(pair.connected, 1), IPC_ESTALE);
		EXPECT(put(next, i + 1), 0);
		EXPECT(eat(pair.accepted), i + 1);
		ipc_session_close(pair.connected);
		pair.connected = next;
		key = key_of(next);
		EXPECT(ipc_session_confirm_key(next), 0);
	}
	pair_close(&pair);
}

/* C-3: who cannot make use of it has not ended it, nor used the key up. */
Test(session_resume, one_that_fails_for_want_of_descriptors_may_be_tried_again)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);
	struct rlimit limit, none;
	ipc_session *session = NULL;
	unsigned n_failed = 0;
	int fd, r;

	pair.connected = ipc_session_detach(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	ASSERT(getrlimit(RLIMIT_NOFILE, &limit), 0);
	fd = dup(0);
	close(fd);
	for (int n_free = 0; n_free < 8; ++n_free) {
		none = limit;
		none.rlim_cur = (rlim_t)(fd + n_free);
		ASSERT(setrlimit(RLIMIT_NOFILE, &none), 0);
		r = resume_by(&session, fixture_client, &key);
		ASSERT(setrlimit(RLIMIT_NOFILE, &limit), 0);
		cr_assert(r == 0 || r == IPC_EMFILE, "%s", ipc_error_name(r));
		n_failed += r < 0;
		if (r == 0)
			session = ipc_session_detach(session);
		EXPECT(until_peer(pair.accepted, false), 0);
		cr_expect_gt(state_of(pair.accepted).away_ns, 0);
	}
	cr_expect_gt(n_failed, 0);
	pair.connected = resumed_by(&key);
	EXPECT(put(pair.connected, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	pair_close(&pair);
}
