/* SPDX-License-Identifier: MIT */
/*
 * session: when ends and listeners are ready, in ipc_wait_any() and in the poll set.
 */
#include <poll.h>

#include "tests/client/session_scene.h"

TestSuite(session_ready, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

#define READABLE IPC_READY_READABLE
#define WRITABLE IPC_READY_WRITABLE
#define PRESENT  IPC_READY_PEER_PRESENT
#define GONE     IPC_READY_PEER_GONE
#define END      IPC_READY_END

/* M-34 */
Test(session_ready, an_end_is_ready_for_what_its_calls_can_do)
{
	struct pair pair = PAIR_NEW(.capacity = 4096);

	EXPECT(look(pair.accepted, READABLE), IPC_ETIMEDOUT);
	EXPECT(look(pair.accepted, WRITABLE | READABLE), WRITABLE);
	EXPECT(look(pair.accepted, PRESENT), PRESENT);
	EXPECT(look(pair.accepted, GONE), IPC_ETIMEDOUT);
	fill(pair.connected);
	EXPECT(look(pair.connected, WRITABLE), IPC_ETIMEDOUT);
	EXPECT(look(pair.accepted, READABLE | WRITABLE), READABLE | WRITABLE);
	EXPECT(eat(pair.accepted), 1);
	EXPECT(look(pair.connected, WRITABLE), WRITABLE);
	EXPECT(look(pair.connected, IPC_READY_REQUEST), IPC_EINVAL);
	EXPECT(look(pair.connected, 0), IPC_EINVAL);
	EXPECT(look(pair.listener, WRITABLE), IPC_EINVAL);
	EXPECT(look(pair.listener, PRESENT), IPC_EINVAL);
	pair_close(&pair);
}

/* M-34, C-2, C-16: away is gone, and not the end. */
Test(session_ready, an_end_that_is_away_is_gone)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);

	pair.connected = ipc_session_detach(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	EXPECT(look(pair.accepted, GONE), GONE);
	EXPECT(look(pair.accepted, PRESENT), IPC_ETIMEDOUT);
	EXPECT(look(pair.accepted, READABLE), IPC_ETIMEDOUT);
	EXPECT(look(pair.accepted, WRITABLE), WRITABLE);
	ASSERT(resume_by(&pair.connected, fixture_client, &key), 0);
	EXPECT(look(pair.accepted, PRESENT | GONE), PRESENT);
	pair.connected = ipc_session_close(pair.connected);
	EXPECT(eat_in(pair.accepted, WAIT_MS), IPC_EPIPE);
	EXPECT(until_peer(pair.accepted, true), IPC_EPIPE);
	EXPECT(look(pair.accepted, GONE), GONE | END);
	EXPECT(look(pair.accepted, PRESENT), END);
	pair_close(&pair);
}

/* M-29: sleepers are woken by what they wait for. */
Test(session_ready, who_waits_for_an_end_is_woken)
{
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
	struct ipc_session_message message[200];
	ipc_session *session;
	struct actor actor;
	unsigned n = 0;

	PARTY_START(&actor, 0);
	session = accept_from(listener, &actor);
	order_sleep(&actor, ORDER_WAIT_ANY, READABLE, 0);
	ASSERT(put(session, 1), 0);
	EXPECT(actor_hear(&actor), READABLE);

	while (order_do(&actor, ORDER_SEND, 1, 0) == 0)
		++n;
	order_sleep(&actor, ORDER_WAIT_ANY, WRITABLE, 0);
	ASSERT(ipc_session_receive_many(session, message, 200), n);
	ASSERT(ipc_session_release(session, &message[0]), 0);
	EXPECT(actor_hear(&actor), WRITABLE);

	EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), 1);
	order_sleep(&actor, ORDER_WAIT_ANY, READABLE, 0);
	ipc_session_close(session);
	EXPECT(actor_hear(&actor), END);
	actor_kill(&actor);
	ipc_listener_close(listener);
}

/* M-29, M-34 */
Test(session_ready, who_waits_for_a_listener_is_woken)
{
	struct actor server, other;

	PARTY_START(&server, 0);
	PARTY_START(&other, 0);
	ASSERT(order_do(&server, ORDER_LISTEN, IPC_CREATE, 0), 0);
	order_sleep(&server, ORDER_WAIT_ANY, READABLE, 0);
	order_begin(&other, ORDER_CONNECT, 0, 0);
	EXPECT(actor_hear(&server), READABLE);
	EXPECT(order_do(&server, ORDER_ACCEPT, 0, 0), 0);
	EXPECT(actor_hear(&other), 0);
	actor_kill(&other);
	actor_kill(&server);
}

/* M-30: a server with one loop: listener and sessions in the poll set. */
Test(session_ready, a_poll_set_tells_of_connects_and_messages)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct pollfd poll_fd = {.fd = ipc_client_get_fd(fixture_client), .events = POLLIN};
	struct ipc_poll_event event;
	ipc_session *session = NULL;
	struct actor actor;

	PARTY_START(&actor, 0);
	ASSERT(ipc_poll_add(fixture_client, listener, READABLE, listener), 0);
	EXPECT(ipc_poll_next(fixture_client, &event), IPC_EAGAIN);
	order_begin(&actor, ORDER_CONNECT, 0, 0);
	ASSERT(poll(&poll_fd, 1, WAIT_MS), 1);
	ASSERT(ipc_poll_next(fixture_client, &event), 0);
	cr_expect_eq(event.handle, listener);
	EXPECT(event.ready, READABLE);
	ASSERT(ipc_listener_accept(listener, &session), 0);
	EXPECT(actor_hear(&actor), 0);

	ASSERT(ipc_poll_add(fixture_client, session, READABLE, session), 0);
	while (ipc_poll_next(fixture_client, &event) == 0)
		cr_expect_neq(event.handle, session);
	EXPECT(order_do(&actor, ORDER_SEND, 3, 0), 0);
	ASSERT(poll(&poll_fd, 1, WAIT_MS), 1);
	ASSERT(ipc_poll_next(fixture_client, &event), 0);
	cr_expect_eq(event.handle, session);
	EXPECT(event.ready, READABLE);
	EXPECT(eat(session), 3);
	EXPECT(ipc_poll_next(fixture_client, &event), IPC_EAGAIN);

	EXPECT(order_do(&actor, ORDER_CLOSE, 0, 0), 0);
	ASSERT(poll(&poll_fd, 1, WAIT_MS), 1);
	ASSERT(ipc_poll_next(fixture_client, &event), 0);
	cr_expect_eq(event.handle, session);
	EXPECT(event.ready, END);
	ipc_session_close(session);
	ipc_listener_close(listener);
	actor_kill(&actor);
}

/* C-3: beside handles that are what they were. */
Test(session_ready, one_that_was_taken_over_is_the_item_that_is_ready)
{
	struct pair pair = PAIR_NEW(0), other = {.listener = pair.listener};
	struct ipc_session_key key = key_of(pair.connected);
	ipc_session *resumed = NULL;
	struct ipc_wait_item items[2];

	pair_connect(&other);
	items[0] = (struct ipc_wait_item){.handle = other.connected, .events = READABLE};
	items[1] = (struct ipc_wait_item){.handle = pair.connected, .events = READABLE};
	ASSERT(resume_by(&resumed, fixture_client, &key), 0);
	EXPECT(ipc_wait_any(items, 2, NULL), 1);
	EXPECT(items[1].ready, END);
	ASSERT(put(other.accepted, 1), 0);
	EXPECT(ipc_wait_any(items, 2, NULL), 0);
	EXPECT(items[0].ready, READABLE);
	ipc_session_close(resumed);
	other.listener = NULL;
	pair_close(&other);
	pair_close(&pair);
}

/* M-22, M-32: nobody has gone when a living end is taken over. */
Test(session_ready, a_hand_over_is_no_absence)
{
	enum { N = 100 };
	static const struct {
		enum order order;
		int64_t a, r;
	} cases[] = {
		{ORDER_PEERS_WAIT, 0, 0},
		{ORDER_WAIT_ANY, IPC_READY_PEER_GONE, IPC_READY_PEER_GONE | IPC_READY_END},
	};

	for (unsigned i = 0; i < 2; ++i) {
		ipc_listener *listener = LISTENER_NEW(0);
		ipc_session *session, *next = NULL;
		struct actor actor;

		PARTY_START(&actor, 0);
		session = accept_from(listener, &actor);
		order_sleep(&actor, cases[i].order, cases[i].a, 0);
		for (unsigned n = 0; n < N; ++n) {
			struct ipc_session_key key = key_of(session);

			ASSERT(resume_by(&next, fixture_client, &key), 0);
			ipc_session_close(session);
			session = next;
		}

		actor_until_asleep(&actor);
		session = ipc_session_close(session);
		EXPECT(actor_hear(&actor), cases[i].r);
		actor_kill(&actor);
		ipc_listener_close(listener);
	}
}
