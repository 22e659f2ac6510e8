/* SPDX-License-Identifier: MIT */
/*
 * session: a listener that comes back takes back what its name had accepted (C-9).
 */
#include <sys/resource.h>

#include "tests/client/session_scene.h"

TestSuite(session_back, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

/* A server with one session of each client; the n-th client has said n + 1. */
static void serve(struct actor *server, struct actor *client, unsigned n, uint64_t flags)
{
	PARTY_START(server, 0);
	ASSERT(order_do(server, ORDER_LISTEN, IPC_CREATE | flags, 0), 0);
	for (unsigned i = 0; i < n; ++i) {
		PARTY_START(&client[i], 0);
		order_begin(&client[i], ORDER_CONNECT, 0, 0);
		ASSERT(order_do(server, ORDER_ACCEPT, 0, 0), 0);
		ASSERT(actor_hear(&client[i]), 0);
		ASSERT(order_do(&client[i], ORDER_SEND, i + 1, 0), 0);
	}
}

static void until_all_away(struct actor *client, unsigned n)
{
	for (unsigned i = 0; i < n; ++i)
		ASSERT(order_do(&client[i], ORDER_PEERS_WAIT, 0, 0), 0);
}

/* Before a connect that was there earlier. */
static void expect_taken_back(uint64_t flags)
{
	enum { N = 3 };
	struct actor server, client[N], newcomer;
	struct ipc_session_message message;
	ipc_session *session[N + 1];
	ipc_listener *listener;
	unsigned seen = 0;

	serve(&server, client, N, flags);
	ASSERT(order_do(&server, ORDER_RECEIVE, 0, 0), N);
	PARTY_START(&newcomer, 0);
	order_begin(&newcomer, ORDER_CONNECT, IPC_AWAIT, 0);
	actor_until_asleep(&newcomer);
	actor_kill(&server);
	until_all_away(client, N);

	listener = LISTENER_NEW(.flags = flags);
	for (unsigned i = 0; i < N; ++i) {
		int64_t number;

		ASSERT(accept_in(listener, &session[i], WAIT_MS), 1);
		number = get(session[i], &message);
		cr_assert(number >= 1 && number <= N && !(seen & 1u << number));
		seen |= 1u << number;
		EXPECT(message.flags, number == N ? IPC_MESSAGE_REDELIVERED : 0);
		EXPECT(put(session[i], 100 + (uint32_t)number), 0);
		EXPECT(order_do(&client[number - 1], ORDER_RECEIVE_WAIT, 0, 0), 100 + number);
	}
	ASSERT(accept_in(listener, &session[N], WAIT_MS), 0);
	EXPECT(actor_hear(&newcomer), 0);

	for (unsigned i = 0; i < N + 1; ++i)
		ipc_session_close(session[i]);
	for (unsigned i = 0; i < N; ++i)
		actor_kill(&client[i]);
	actor_kill(&newcomer);
	ipc_listener_close(listener);
	if (flags & IPC_KEEP)
		ASSERT(take_away(NAME, 0), 0);
}

/* C-9 */
Test(session_back, a_new_process_of_a_name_made_anew_takes_back_what_was_accepted)
{
	expect_taken_back(0);
}

/* C-9 */
Test(session_back, a_new_process_of_a_kept_name_takes_back_what_was_accepted)
{
	expect_taken_back(IPC_KEEP);
}

/* C-9: only what was away before it opened. */
Test(session_back, what_goes_away_later_is_not_offered)
{
	struct actor server, client[1];
	ipc_listener *listener = NULL;
	ipc_session *session = NULL;

	serve(&server, client, 1, 0);
	ASSERT(listener_open(&listener, fixture_client, NAME, (struct ipc_session_options){0}), 0);
	actor_kill(&server);
	until_all_away(client, 1);
	EXPECT(accept_in(listener, &session, 30), IPC_ETIMEDOUT);
	ipc_listener_close(listener);

	/* The next one gets it. */
	listener = LISTENER_NEW(0);
	EXPECT(accept_in(listener, &session, WAIT_MS), 1);
	EXPECT(eat(session), 1);
	ipc_session_close(session);
	ipc_listener_close(listener);
	actor_kill(&client[0]);
}

/* C-9: an end whose process lives is its own, and one that connected is nobody's but its key's. */
Test(session_back, ends_that_are_present_and_those_that_connected_are_not_offered)
{
	struct actor server, client[1];
	ipc_listener *listener;
	ipc_session *session = NULL;

	serve(&server, client, 1, 0);
	EXPECT(order_do(&server, ORDER_LEAVE, 0, 0), 0);
	listener = LISTENER_NEW(0);
	EXPECT(accept_in(listener, &session, 30), IPC_ETIMEDOUT);
	EXPECT(order_do(&server, ORDER_RECEIVE, 0, 0), 1);
	ipc_listener_close(listener);

	actor_kill(&client[0]);
	EXPECT(order_do(&server, ORDER_PEERS_WAIT, 0, 0), 0);
	listener = LISTENER_NEW(0);
	EXPECT(accept_in(listener, &session, 30), IPC_ETIMEDOUT);
	ipc_listener_close(listener);
	actor_kill(&server);
}

/* C-9, C-3: a new key, and the last one is good until it is confirmed. */
Test(session_back, taking_back_is_a_resume)
{
	struct actor server, client[1];
	ipc_listener *listener;
	ipc_session *session = NULL, *resumed = NULL;
	struct ipc_session_key key;

	serve(&server, client, 1, 0);
	ASSERT(order_do(&server, ORDER_KEY, 0, 0), 0);
	actor_kill(&server);
	until_all_away(client, 1);
	listener = LISTENER_NEW(0);
	ASSERT(accept_in(listener, &session, WAIT_MS), 1);
	key = key_of(session);
	cr_expect_neq(memcmp(&key, &keys[0], sizeof(key)), 0);

	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	EXPECT(put(session, 1), IPC_ESTALE);
	EXPECT(ipc_session_confirm_key(resumed), 0);
	ipc_session_close(session);
	session = NULL;
	EXPECT(resume_by(&session, fixture_client, &key), IPC_ESTALE);
	EXPECT(resume_by(&session, fixture_client, &keys[0]), IPC_ESTALE);
	EXPECT(put(resumed, 2), 0);
	EXPECT(order_do(&client[0], ORDER_RECEIVE_WAIT, 0, 0), 2);
	ipc_session_close(resumed);
	ipc_listener_close(listener);
	actor_kill(&client[0]);
}

/* C-9: the key may be used while it lies offered. */
Test(session_back, one_that_was_resumed_meanwhile_is_not_taken_back)
{
	struct actor server, client[1];
	ipc_listener *listener;
	ipc_session *session = NULL, *resumed = NULL;
	struct ipc_wait_item item;

	serve(&server, client, 1, 0);
	ASSERT(order_do(&server, ORDER_KEY, 0, 0), 0);
	actor_kill(&server);
	until_all_away(client, 1);
	listener = LISTENER_NEW(0);
	item = (struct ipc_wait_item){.handle = listener, .events = IPC_READY_READABLE};
	ASSERT(ipc_wait_any(&item, 1, NULL), 0);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	EXPECT(accept_in(listener, &session, 30), IPC_ETIMEDOUT);
	EXPECT(eat(resumed), 1);
	EXPECT(put(resumed, 2), 0);
	EXPECT(order_do(&client[0], ORDER_RECEIVE_WAIT, 0, 0), 2);
	ipc_session_close(resumed);
	ipc_listener_close(listener);
	actor_kill(&client[0]);
}

/* C-9: one that is offered and not taken, since the listener leaves, is offered to the next. */
Test(session_back, what_was_not_taken_back_is_offered_to_the_next)
{
	struct actor server, client[1];
	ipc_session *session = NULL;
	ipc_listener *listener;
	struct ipc_wait_item item;

	serve(&server, client, 1, 0);
	actor_kill(&server);
	until_all_away(client, 1);
	for (unsigned i = 0; i < 3; ++i) {
		listener = LISTENER_NEW(0);
		item = (struct ipc_wait_item){.handle = listener, .events = IPC_READY_READABLE};
		ASSERT(ipc_wait_any(&item, 1, NULL), 0);
		ipc_listener_close(listener);
	}
	listener = LISTENER_NEW(0);
	ASSERT(accept_in(listener, &session, WAIT_MS), 1);
	EXPECT(eat(session), 1);
	ipc_session_close(session);
	ipc_listener_close(listener);
	actor_kill(&client[0]);
}

/* C-9: of the same user. */
Test(session_back, another_user_takes_nothing_back)
{
	struct actor server, client[1], other;
	ipc_listener *listener;
	ipc_session *session = NULL;

	if (geteuid() != 0) {
		scene_teardown();
		cr_skip_test("needs root");
	}

	PARTY_START(&server, .uid = OTHER_UID, .options = {.mode = 0666});
	ASSERT(order_do(&server, ORDER_LISTEN, IPC_CREATE, 0), 0);
	PARTY_START(&client[0], 0);
	order_begin(&client[0], ORDER_CONNECT, 0, 0);
	ASSERT(order_do(&server, ORDER_ACCEPT, 0, 0), 0);
	ASSERT(actor_hear(&client[0]), 0);
	ASSERT(order_do(&client[0], ORDER_SEND, 1, 0), 0);
	actor_kill(&server);
	until_all_away(client, 1);

	listener = LISTENER_NEW(0);
	EXPECT(accept_in(listener, &session, 30), IPC_ETIMEDOUT);
	ipc_listener_close(listener);
	PARTY_START(&other, .uid = OTHER_UID);
	ASSERT(order_do(&other, ORDER_LISTEN, IPC_CREATE, 0), 0);
	EXPECT(order_do(&other, ORDER_ACCEPT, 0, 0), 1);
	EXPECT(order_do(&other, ORDER_RECEIVE, 0, 0), 1);
	actor_kill(&other);
	actor_kill(&client[0]);
}

/* C-9: without a free descriptor nothing is taken back, and nothing is lost. */
Test(session_back, want_of_descriptors_loses_nothing)
{
	struct pair pair = PAIR_NEW(0);
	struct rlimit limit, few;
	unsigned n_failed = 0;
	int fd, r;

	ASSERT(getrlimit(RLIMIT_NOFILE, &limit), 0);
	ASSERT(put(pair.connected, 3), 0);
	for (int n_free = 0; n_free < 6; ++n_free) {
		ipc_listener *before = pair.listener;

		pair.accepted = ipc_session_detach(pair.accepted);
		EXPECT(until_peer(pair.connected, false), 0);
		pair.listener = LISTENER_NEW(0);
		ipc_listener_close(before);

		fd = dup(0);
		close(fd);
		few = limit;
		few.rlim_cur = (rlim_t)(fd + n_free);
		ASSERT(setrlimit(RLIMIT_NOFILE, &few), 0);
		r = accept_in(pair.listener, &pair.accepted, WAIT_MS);
		ASSERT(setrlimit(RLIMIT_NOFILE, &limit), 0);
		cr_expect(r == 1 || r == IPC_EMFILE, "%s", ipc_error_name(r));
		n_failed += r < 0;
		if (r < 0) {
			cr_expect_null(pair.accepted);
			EXPECT(ipc_session_peers(pair.connected), 0);
			ASSERT(accept_in(pair.listener, &pair.accepted, WAIT_MS), 1);
		}
		EXPECT(until_peer(pair.connected, true), 0);
	}
	cr_expect_gt(n_failed, 0);
	EXPECT(eat(pair.accepted), 3);
	pair_close(&pair);
}
