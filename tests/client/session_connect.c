/* SPDX-License-Identifier: MIT */
/*
 * session: how one comes about; connects that wait, are given up, or find nobody.
 */
#include <sys/resource.h>

#include "tests/client/session_scene.h"

TestSuite(session_connect, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

/* Until the broker has nothing of it any more: the listener alone. */
static void until_no_session(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_channel_info info;
	int r;

	while ((r = info_of(NAME, &info)) == 0 && info.waiters > 0) {
		cr_assert(!process_has_passed(&deadline), "a connect is still waiting");
		process_pause();
	}
	ASSERT(r, 0);
}

/* ---- accepted ---- */

/* C-9, C-16: a connect returns when it was accepted, and both are there for each other then. */
Test(session_connect, a_connect_returns_when_it_is_accepted)
{
	ipc_listener *listener = LISTENER_NEW(0);
	ipc_session *session = NULL, *none = NULL;
	struct actor actor;

	PARTY_START(&actor, 0);
	EXPECT(ipc_listener_accept(listener, &none), IPC_EAGAIN);
	EXPECT(accept_in(listener, &none, 1), IPC_ETIMEDOUT);
	order_sleep(&actor, ORDER_CONNECT, 0, 0);
	ASSERT(accept_in(listener, &session, WAIT_MS), 0);
	EXPECT(actor_hear(&actor), 0);
	EXPECT(ipc_session_peers(session), 1);
	EXPECT(order_do(&actor, ORDER_PEERS_WAIT, 1, 0), 0);
	EXPECT(ipc_listener_accept(listener, &none), IPC_EAGAIN);
	cr_expect_null(none);

	actor_kill(&actor);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-9 */
Test(session_connect, a_sleeping_listener_is_woken)
{
	struct actor server, other;

	PARTY_START(&server, 0);
	PARTY_START(&other, 0);
	ASSERT(order_do(&server, ORDER_LISTEN, IPC_CREATE, 0), 0);
	order_sleep(&server, ORDER_ACCEPT, 0, 0);
	EXPECT(order_do(&other, ORDER_CONNECT, 0, 0), 0);
	EXPECT(actor_hear(&server), 0);
	EXPECT(order_do(&other, ORDER_SEND, 5, 0), 0);
	EXPECT(order_do(&server, ORDER_RECEIVE_WAIT, 0, 0), 5);
	actor_kill(&other);
	actor_kill(&server);
}

/* C-9: in the order in which they came, each once. */
Test(session_connect, those_who_wait_are_accepted_in_turn)
{
	enum { N = 5 };
	ipc_listener *listener = LISTENER_NEW(0);
	struct actor actor[N];
	ipc_session *session[N], *none;

	for (unsigned i = 0; i < N; ++i) {
		PARTY_START(&actor[i], 0);
		order_sleep(&actor[i], ORDER_CONNECT, 0, 0);
	}
	for (unsigned i = 0; i < N; ++i) {
		ASSERT(accept_in(listener, &session[i], WAIT_MS), 0);
		EXPECT(actor_hear(&actor[i]), 0);
		EXPECT(order_do(&actor[i], ORDER_SEND, 10 + i, 0), 0);
		EXPECT(eat(session[i]), 10 + i);
	}
	EXPECT(ipc_listener_accept(listener, &none), IPC_EAGAIN);
	for (unsigned i = 0; i < N; ++i) {
		ipc_session_close(session[i]);
		actor_kill(&actor[i]);
	}
	ipc_listener_close(listener);
}

/* C-15: each connect goes to one of them, and to each some. */
Test(session_connect, several_listeners_share_the_connects)
{
	enum { N = 6 };
	struct actor server[2], other[N];
	unsigned n[2] = {0};

	for (unsigned i = 0; i < 2; ++i) {
		PARTY_START(&server[i], 0);
		ASSERT(order_do(&server[i], ORDER_LISTEN, IPC_CREATE, 0), 0);
		order_sleep(&server[i], ORDER_ACCEPT, 0, 0);
	}
	for (unsigned i = 0; i < N; ++i) {
		PARTY_START(&other[i], 0);
		order_begin(&other[i], ORDER_CONNECT, 0, 0);
	}
	for (unsigned i = 0; i < N; ++i) {
		unsigned which = actor_first(server, 2);

		EXPECT(actor_hear(&server[which]), 0);
		++n[which];
		order_begin(&server[which], ORDER_ACCEPT, 0, 0);
	}
	for (unsigned i = 0; i < N; ++i)
		EXPECT(actor_hear(&other[i]), 0);

	/* Neither is given a second one before the other has its first. */
	EXPECT(n[0] > 0 && n[1] > 0, true);
	for (unsigned i = 0; i < N; ++i)
		actor_kill(&other[i]);
	for (unsigned i = 0; i < 2; ++i)
		actor_kill(&server[i]);
}

struct accepting {
	ipc_listener *listener;
	pthread_t thread;
	ipc_session *session;
	int result;
};

static void *accepting_run(void *arg)
{
	struct accepting *accepting = arg;

	accepting->result = accept_in(accepting->listener, &accepting->session, WAIT_MS);
	return NULL;
}

/* C-15, M-42 */
Test(session_connect, each_connect_goes_to_one_thread)
{
	enum { N = 4 };
	ipc_listener *listener = LISTENER_NEW(0);
	struct accepting accepting[N];
	struct connecting connecting[N] = {0};

	for (unsigned i = 0; i < N; ++i) {
		accepting[i] = (struct accepting){.listener = listener};
		ASSERT(pthread_create(&accepting[i].thread, NULL, accepting_run, &accepting[i]), 0);
		connecting_start(&connecting[i]);
	}
	for (unsigned i = 0; i < N; ++i) {
		pthread_join(accepting[i].thread, NULL);
		EXPECT(accepting[i].result, 0);
		EXPECT(connecting_end(&connecting[i]), 0);
		EXPECT(put(connecting[i].session, i + 1), 0);
	}
	for (unsigned i = 0, seen = 0; i < N; ++i) {
		int64_t number = eat(accepting[i].session);

		cr_expect(number >= 1 && number <= N && !(seen & 1u << number));
		seen |= 1u << number;
		ipc_session_close(accepting[i].session);
		ipc_session_close(connecting[i].session);
	}
	ipc_listener_close(listener);
}

/* ---- nobody listens ---- */

/* C-9 */
Test(session_connect, without_a_listener_there_is_nobody_to_connect_to)
{
	ipc_session *session = NULL;
	ipc_listener *listener;

	EXPECT(connect_by(&session, fixture_client, 0, WAIT_MS), IPC_ENOENT);

	/* Of a kept name, too. */
	listener = LISTENER_NEW(.flags = IPC_KEEP);
	ipc_listener_close(listener);
	EXPECT(exists(NAME), true);
	EXPECT(connect_by(&session, fixture_client, 0, WAIT_MS), IPC_ENOENT);
	EXPECT(connect_by(&session, fixture_client, IPC_AWAIT, 5), IPC_ETIMEDOUT);
	ASSERT(take_away(NAME, 0), 0);
}

/* C-9, M-43 */
Test(session_connect, who_awaits_a_listener_gets_the_next)
{
	ipc_session *session = NULL;
	ipc_listener *listener;
	struct actor actor;

	PARTY_START(&actor, 0);
	order_begin(&actor, ORDER_CONNECT, IPC_AWAIT, 0);
	listener = LISTENER_NEW(0);
	ASSERT(accept_in(listener, &session, WAIT_MS), 0);
	EXPECT(actor_hear(&actor), 0);
	actor_kill(&actor);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

static void expect_end_of_connect(bool dies)
{
	struct actor server, actor, awaiting;
	ipc_listener *next;
	ipc_session *session;

	PARTY_START(&server, 0);
	PARTY_START(&actor, 0);
	PARTY_START(&awaiting, 0);
	ASSERT(order_do(&server, ORDER_LISTEN, IPC_CREATE, 0), 0);
	order_sleep(&actor, ORDER_CONNECT, 0, 0);
	order_sleep(&awaiting, ORDER_CONNECT, IPC_AWAIT, 0);
	if (dies)
		actor_kill(&server);
	else
		EXPECT(order_do(&server, ORDER_LEAVE, 0, 0), 0);
	EXPECT(actor_hear(&actor), dies ? IPC_EOWNERDEAD : IPC_EPIPE);

	/* Who awaits one goes on. */
	actor_until_asleep(&awaiting);
	next = LISTENER_NEW(0);
	ASSERT(accept_in(next, &session, WAIT_MS), 0);
	EXPECT(actor_hear(&awaiting), 0);
	EXPECT(ipc_listener_accept(next, &session), IPC_EAGAIN);

	ipc_session_close(session);
	ipc_listener_close(next);
	actor_kill(&actor);
	actor_kill(&awaiting);
	if (!dies)
		actor_kill(&server);
}

/* C-15, M-22 */
Test(session_connect, the_last_listeners_death_ends_the_connects)
{
	expect_end_of_connect(true);
}

/* C-15, M-22 */
Test(session_connect, the_last_listeners_close_ends_the_connects)
{
	expect_end_of_connect(false);
}

/* C-15: what one of them had been offered goes to another. */
Test(session_connect, a_listener_that_dies_leaves_its_connects_to_the_others)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct actor server, other[4];
	ipc_session *session[4];

	PARTY_START(&server, 0);
	ASSERT(order_do(&server, ORDER_LISTEN, 0, 0), 0);
	for (unsigned i = 0; i < 4; ++i) {
		PARTY_START(&other[i], 0);
		order_sleep(&other[i], ORDER_CONNECT, 0, 0);
	}
	actor_kill(&server);
	for (unsigned i = 0; i < 4; ++i)
		ASSERT(accept_in(listener, &session[i], WAIT_MS), 0);
	for (unsigned i = 0; i < 4; ++i)
		EXPECT(actor_hear(&other[i]), 0);
	for (unsigned i = 0; i < 4; ++i) {
		ipc_session_close(session[i]);
		actor_kill(&other[i]);
	}
	ipc_listener_close(listener);
}

/* ---- given up ---- */

/* C-15: by its deadline, by a cancel, by death. */
Test(session_connect, one_that_was_given_up_is_never_accepted)
{
	ipc_listener *listener = LISTENER_NEW(0);
	ipc_session *session = NULL;
	ipc_client *other = domain_connect(&fixture_domain);
	struct connecting connecting[2] = {{.by = other}, {.by = other}};
	struct actor actor;

	EXPECT(ipc_session_connect_wait(&session, fixture_client, NAME, NULL, &past),
	       IPC_ETIMEDOUT);
	EXPECT(ipc_listener_accept(listener, &session), IPC_EAGAIN);

	EXPECT(connect_by(&session, fixture_client, 0, 20), IPC_ETIMEDOUT);
	EXPECT(accept_in(listener, &session, 20), IPC_ETIMEDOUT);

	connecting_start(&connecting[0]);
	connecting_start(&connecting[1]);
	process_until_asleep(getpid(), 2);
	ASSERT(ipc_client_cancel(other), 0);
	EXPECT(connecting_end(&connecting[0]), IPC_ECANCELED);
	EXPECT(connecting_end(&connecting[1]), IPC_ECANCELED);
	EXPECT(accept_in(listener, &session, 20), IPC_ETIMEDOUT);

	PARTY_START(&actor, 0);
	order_sleep(&actor, ORDER_CONNECT, 0, 0);
	actor_kill(&actor);
	until_no_session();
	EXPECT(accept_in(listener, &session, 50), IPC_ETIMEDOUT);

	cr_expect_null(session);
	ipc_client_unref(other);
	ipc_listener_close(listener);
}

/* C-15: the one who connects and the one who accepts fail for want of descriptors, each at every
 * point; the next time it goes. */
Test(session_connect, want_of_descriptors_loses_nothing)
{
	ipc_listener *listener = LISTENER_NEW(0);
	ipc_session *session, *none = NULL;
	struct rlimit limit, few;
	unsigned n_failed = 0;
	struct actor actor;
	int fd, r;

	ASSERT(getrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int n_free = 0; n_free < 6; ++n_free) {
		PARTY_START(&actor, 0);
		fd = dup(0);
		close(fd);
		few = limit;
		few.rlim_cur = (rlim_t)(fd + n_free);
		ASSERT(setrlimit(RLIMIT_NOFILE, &few), 0);
		r = connect_by(&none, fixture_client, 0, 20);
		cr_expect(r == IPC_EMFILE || r == IPC_ETIMEDOUT, "%s", ipc_error_name(r));

		order_begin(&actor, ORDER_CONNECT, 0, 0);
		session = NULL;
		r = accept_in(listener, &session, WAIT_MS);
		cr_expect(r == 0 || r == IPC_EMFILE, "%s", ipc_error_name(r));
		n_failed += r < 0;
		ASSERT(setrlimit(RLIMIT_NOFILE, &limit), 0);
		if (r < 0)
			ASSERT(accept_in(listener, &session, WAIT_MS), 0);
		EXPECT(actor_hear(&actor), 0);
		EXPECT(put(session, 3), 0);
		EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), 3);
		ipc_session_close(session);
		actor_kill(&actor);
	}
	cr_expect_gt(n_failed, 0);
	cr_expect_null(none);
	ipc_listener_close(listener);
}

/* C-15: nothing is left of many that were given up, not even where an offer lies. */
Test(session_connect, those_that_were_given_up_leave_nothing)
{
	ipc_listener *listener = LISTENER_NEW(.capacity = UINT64_C(1) << 20);
	struct ipc_channel_info info;
	struct connecting connecting = {0};
	ipc_session *session = NULL;

	for (unsigned i = 0; i < 200; ++i)
		EXPECT(connect_by(&session, fixture_client, 0, 1), IPC_ETIMEDOUT);
	connecting_start(&connecting);
	ASSERT(accept_in(listener, &session, WAIT_MS), 0);
	EXPECT(connecting_end(&connecting), 0);
	EXPECT(put(connecting.session, 3), 0);
	EXPECT(eat(session), 3);
	EXPECT(info_of(NAME, &info), 0);
	EXPECT(info.handles[0], 1);
	ipc_session_close(session);
	ipc_session_close(connecting.session);
	ipc_listener_close(listener);
}

/* Two threads that sleep there. */
static void accepting_start(struct accepting accepting[2], ipc_listener *listener)
{
	for (unsigned i = 0; i < 2; ++i) {
		accepting[i] = (struct accepting){.listener = listener};
		ASSERT(pthread_create(&accepting[i].thread, NULL, accepting_run, &accepting[i]), 0);
	}
	process_until_asleep(getpid(), 2);
}

static void accepting_end(struct accepting accepting[2])
{
	for (unsigned i = 0; i < 2; ++i)
		pthread_join(accepting[i].thread, NULL);
}

/* ---- giving up beside accept ---- */

struct giving_up {
	uint64_t after_ns;
	pthread_t thread;
	ipc_session *session;
	int result;
};

static void *giving_up_run(void *arg)
{
	struct giving_up *giving_up = arg;
	struct timespec deadline = clock_to_timespec(clock_now_ns() + giving_up->after_ns);

	giving_up->result = ipc_session_connect_wait(&giving_up->session, fixture_client, NAME,
						     NULL, &deadline);
	return NULL;
}

/* C-15: it is accepted or has given up, and both know which. */
Test(session_connect, who_gives_up_beside_accept_agrees_with_it)
{
	enum { ROUNDS = 1000, STEP_NS = 1500 };
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
	unsigned n_accepted = 0;

	for (unsigned i = 0; i < ROUNDS; ++i) {
		struct giving_up giving_up = {.after_ns = 100000 + i % 500 * STEP_NS};
		ipc_session *session = NULL;
		int r;

		ASSERT(pthread_create(&giving_up.thread, NULL, giving_up_run, &giving_up), 0);
		r = accept_in(listener, &session, 2);
		pthread_join(giving_up.thread, NULL);
		if (r == IPC_ETIMEDOUT)
			r = ipc_listener_accept(listener, &session);
		cr_assert(r == 0 || r == IPC_EAGAIN, "%s", ipc_error_name(r));
		cr_assert_eq(giving_up.result, r == 0 ? 0 : IPC_ETIMEDOUT,
			     "accept: %s, connect: %s", ipc_error_name(r),
			     ipc_error_name(giving_up.result));
		n_accepted += r == 0;
		ipc_session_close(session);
		ipc_session_close(giving_up.session);
	}
	cr_log_info("%u of %u were accepted", n_accepted, ROUNDS);
	ipc_listener_close(listener);
}

/* M-28, M-33 */
Test(session_connect, accept_ends_by_cancel_and_close)
{
	ipc_listener *listener = LISTENER_NEW(0);
	ipc_session *session;
	struct accepting accepting[2];

	accepting_start(accepting, listener);
	ASSERT(ipc_listener_cancel(listener), 0);
	accepting_end(accepting);
	EXPECT(accepting[0].result, IPC_ECANCELED);
	EXPECT(accepting[1].result, IPC_ECANCELED);
	EXPECT(ipc_listener_accept(listener, &session), IPC_EAGAIN);
	ipc_listener_close(listener);

	listener = LISTENER_NEW(0);
	accepting_start(accepting, listener);
	ipc_listener_close(listener);
	accepting_end(accepting);
	EXPECT(accepting[0].result, IPC_ECANCELED);
	EXPECT(accepting[1].result, IPC_ECANCELED);
	EXPECT(exists(NAME), false);
}

/* M-44, C-15: what it had been offered goes on to the next, or was accepted. */
Test(session_connect, closing_beside_accept_loses_nothing)
{
	unsigned n_accepted = 0;

	for (unsigned i = 0; i < 60; ++i) {
		ipc_listener *listener = LISTENER_NEW(0), *other = NULL;
		struct accepting accepting[2];
		struct connecting connecting = {0};
		ipc_session *session;
		uint64_t began;

		ASSERT(listener_open(&other, fixture_client, NAME, (struct ipc_session_options){0}),
		       0);
		accepting_start(accepting, listener);
		connecting_start(&connecting);
		began = clock_now_ns();
		while (clock_now_ns() - began < i * MS / 20)
			;
		ipc_listener_close(listener);
		accepting_end(accepting);
		session = accepting[0].result == 0 ? accepting[0].session : accepting[1].session;
		n_accepted += session != NULL;
		if (!session)
			ASSERT(accept_in(other, &session, WAIT_MS), 0);
		ASSERT(connecting_end(&connecting), 0);
		EXPECT(put(connecting.session, 1), 0);
		EXPECT(eat_in(session, WAIT_MS), 1);
		ipc_session_close(session);
		ipc_session_close(connecting.session);
		ipc_listener_close(other);
	}
	cr_log_info("%u accepted beside the close", n_accepted);
}

/* ---- rights ---- */

/* C-15, M-50: to connect needs the write right. */
Test(session_connect, rights_are_those_of_the_listener)
{
	struct actor actor;
	ipc_listener *listener;
	ipc_session *session = NULL;

	if (geteuid() != 0) {
		scene_teardown();
		cr_skip_test("needs root");
	}

	listener = LISTENER_NEW(.mode = 0604);
	PARTY_START(&actor, .uid = OTHER_UID);
	EXPECT(order_do(&actor, ORDER_CONNECT, 0, 0), IPC_EACCES);
	EXPECT(order_do(&actor, ORDER_LISTEN, 0, 0), IPC_EACCES);
	ipc_listener_close(listener);

	/* Another user's session, in memory of his. */
	listener = LISTENER_NEW(.mode = 0666);
	session = accept_from(listener, &actor);
	EXPECT(put(session, 8), 0);
	EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), 8);
	EXPECT(order_do(&actor, ORDER_SEND, 9, 0), 0);
	EXPECT(eat(session), 9);
	actor_kill(&actor);
	EXPECT(until_peer(session, false), 0);
	EXPECT(put(session, 10), 0);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* M-48, C-9: the name goes, sessions and listeners go on. */
Test(session_connect, a_listener_without_a_name_goes_on)
{
	struct pair pair = PAIR_NEW(0);
	ipc_session *session;

	ASSERT(take_away(NAME, 0), 0);
	EXPECT(connect_by(&session, fixture_client, 0, WAIT_MS), IPC_ENOENT);
	EXPECT(put(pair.connected, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	EXPECT(ipc_listener_accept(pair.listener, &session), IPC_EAGAIN);
	pair_close(&pair);
}

/* M-6: in the middle of everything. */
Test(session_connect, a_brokers_death_is_not_noticed)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct actor actor;
	ipc_session *session;

	for (unsigned i = 0; i < 6; ++i) {
		PARTY_START(&actor, 0);
		if (i % 3 == 0)
			domain_kill_worker(&fixture_domain);
		order_begin(&actor, ORDER_CONNECT, 0, 0);
		if (i % 3 == 1)
			domain_kill_worker(&fixture_domain);
		ASSERT(accept_in(listener, &session, WAIT_MS), 0);
		if (i % 3 == 2)
			domain_kill_keeper(&fixture_domain);
		EXPECT(actor_hear(&actor), 0);
		EXPECT(order_do(&actor, ORDER_SEND, 4, 0), 0);
		EXPECT(eat(session), 4);
		ipc_session_close(session);
		EXPECT(order_do(&actor, ORDER_RECEIVE_WAIT, 0, 0), IPC_EPIPE);
		actor_kill(&actor);
	}
	ipc_listener_close(listener);
}
