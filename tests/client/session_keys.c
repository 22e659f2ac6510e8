/* SPDX-License-Identifier: MIT */
/*
 * session: keys, which are good when, for whom and for what.
 */
#include "tests/client/session_scene.h"

TestSuite(session_keys, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

static bool are_equal(const struct ipc_session_key *a, const struct ipc_session_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* C-3: the old one until the new one is confirmed, then that alone; a third is void. */
Test(session_keys, two_keys_are_good_until_the_new_one_is_confirmed)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key first = key_of(pair.connected), second, third;
	ipc_session *session;

	session = resumed_by(&first);
	second = key_of(session);
	cr_expect(!are_equal(&first, &second));
	ipc_session_detach(pair.connected);

	/* Killed before it was stored: once more by the old one. */
	pair.connected = resumed_by(&first);
	third = key_of(pair.connected);
	cr_expect(!are_equal(&third, &second) && !are_equal(&third, &first));
	EXPECT(put(session, 1), IPC_ESTALE);
	ipc_session_close(session);
	EXPECT(resume_fails(&second), IPC_ESTALE);
	EXPECT(put(pair.connected, 2), 0);

	EXPECT(ipc_session_confirm_key(pair.connected), 0);
	EXPECT(ipc_session_confirm_key(pair.connected), 0);
	EXPECT(resume_fails(&first), IPC_ESTALE);
	EXPECT(put(pair.connected, 3), 0);
	EXPECT(eat(pair.accepted), 2);
	EXPECT(eat(pair.accepted), 3);

	session = resumed_by(&third);
	EXPECT(put(pair.connected, 4), IPC_ESTALE);
	EXPECT(put(session, 5), 0);
	EXPECT(eat(pair.accepted), 5);
	ipc_session_close(pair.connected);
	pair.connected = session;
	pair_close(&pair);
}

/* C-3: the key before last is void as soon as the next one was used. */
Test(session_keys, a_key_that_was_used_makes_older_ones_void)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key first = key_of(pair.connected), second;
	ipc_session *next, *last;

	next = resumed_by(&first);
	second = key_of(next);
	last = resumed_by(&second);
	EXPECT(resume_fails(&first), IPC_ESTALE);
	EXPECT(put(last, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	ipc_session_close(pair.connected);
	ipc_session_close(next);
	pair.connected = last;
	pair_close(&pair);
}

/* C-3: confirmed by one that died since. */
Test(session_keys, a_confirmation_outlives_its_process)
{
	ipc_listener *listener = LISTENER_NEW(0);
	ipc_session *session, *resumed;
	struct actor first, second;

	session = scene_begin(listener, &first);
	PARTY_START(&second, 0);
	EXPECT(order_do(&second, ORDER_RESUME, 0, 0), 0);
	EXPECT(order_do(&second, ORDER_KEY, 1, 0), 0);
	EXPECT(order_do(&second, ORDER_CONFIRM, 0, 0), 0);
	actor_kill(&second);
	EXPECT(resume_fails(&keys[0]), IPC_ESTALE);
	resumed = resumed_by(&keys[1]);
	EXPECT(put(resumed, 1), 0);
	EXPECT(eat(session), 1);
	actor_kill(&first);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-3, C-7: and the session is not disturbed. */
Test(session_keys, what_is_no_key_resumes_nothing)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected), zero = {{0}};
	uint64_t generation = state_of(pair.connected).generation;

	EXPECT(resume_fails(&zero), IPC_ESTALE);
	for (unsigned bit = 0; bit < 8 * sizeof(key.bytes); bit += 7) {
		struct ipc_session_key wrong = key;

		wrong.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
		EXPECT(resume_fails(&wrong), IPC_ESTALE);
	}
	EXPECT(put(pair.connected, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	EXPECT(ipc_session_peers(pair.accepted), 1);
	EXPECT(state_of(pair.connected).generation, generation);
	pair_close(&pair);
}

/* C-3: each end has its own. */
Test(session_keys, a_key_is_of_one_end)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key accepted = key_of(pair.accepted), connected = key_of(pair.connected);
	ipc_session *session;

	cr_expect(!are_equal(&accepted, &connected));
	session = resumed_by(&accepted);
	EXPECT(put(session, 1), 0);
	EXPECT(eat(pair.connected), 1);
	EXPECT(put(pair.accepted, 2), IPC_ESTALE);
	ipc_session_close(pair.accepted);
	pair.accepted = session;
	pair_close(&pair);
}

/* C-3: of an end that closed, and of a session that is no more. */
Test(session_keys, the_key_of_one_that_closed_is_void)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key accepted = key_of(pair.accepted), connected = key_of(pair.connected);

	pair.connected = ipc_session_close(pair.connected);
	EXPECT(eat_in(pair.accepted, WAIT_MS), IPC_EPIPE);
	EXPECT(resume_fails(&connected), IPC_ESTALE);
	EXPECT(eat(pair.accepted), IPC_EPIPE);
	pair.accepted = ipc_session_close(pair.accepted);
	EXPECT(resume_fails(&accepted), IPC_ESTALE);
	pair_close(&pair);
}

/* C-15, M-50: the key is the right. */
Test(session_keys, a_key_is_as_good_for_another_user)
{
	struct actor actor;
	struct pair pair;

	if (geteuid() != 0) {
		scene_teardown();
		cr_skip_test("needs root");
	}

	pair = PAIR_NEW(0);
	keys[0] = key_of(pair.connected);
	PARTY_START(&actor, .uid = OTHER_UID);
	EXPECT(order_do(&actor, ORDER_CONNECT, 0, 0), IPC_EACCES);
	EXPECT(order_do(&actor, ORDER_RESUME, 0, 0), 0);
	EXPECT(order_do(&actor, ORDER_SEND, 7, 0), 0);
	EXPECT(eat(pair.accepted), 7);
	EXPECT(put(pair.connected, 1), IPC_ESTALE);
	actor_kill(&actor);
	pair_close(&pair);
}

/* C-3: the deadline is of the call. */
Test(session_keys, a_past_deadline_leaves_the_key_as_it_was)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_key key = key_of(pair.connected);
	ipc_session *session = NULL;
	int r;

	r = ipc_session_resume_wait(&session, fixture_client, &key, &past);
	cr_expect(r == 0 || r == IPC_ETIMEDOUT, "%s", ipc_error_name(r));
	if (r == 0)
		ipc_session_detach(session);
	ipc_session_detach(pair.connected);
	pair.connected = resumed_by(&key);
	EXPECT(put(pair.connected, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	pair_close(&pair);
}
