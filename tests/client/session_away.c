/* SPDX-License-Identifier: MIT */
/*
 * session: an end that is away, and the ends of a session: closed, or lost.
 */
#include <stdatomic.h>

#include "tests/client/session_scene.h"
#include "tests/support/wakes.h"

TestSuite(session_away, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

enum { SHORT_MS = 60 };

/* ---- away ---- */

/* C-2, C-16 */
Test(session_away, an_end_that_died_is_away_and_ends_nothing)
{
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
	struct ipc_session_message message;
	struct ipc_session_state state;
	struct timespec deadline;
	ipc_session *session;
	struct actor actor;
	unsigned n;

	session = scene_begin(listener, &actor);
	EXPECT(ipc_session_peers(session), 1);
	EXPECT(state_of(session).away_ns, 0);
	EXPECT(order_do(&actor, ORDER_SEND, 1, 0), 0);
	actor_kill(&actor);
	EXPECT(until_peer(session, false), 0);
	EXPECT(ipc_session_peers(session), 0);
	state = state_of(session);
	cr_expect(state.away_ns > 20000 * MS && state.away_ns <= 30000 * MS, "%lu", state.away_ns);

	/* Sends go on until it is full, what is there is received, waits go on. */
	EXPECT(eat(session), 1);
	EXPECT(get(session, &message), IPC_EAGAIN);
	n = fill(session);
	cr_expect_gt(n, 0);
	EXPECT(put_in(session, 1, SHORT_MS), IPC_ETIMEDOUT);
	EXPECT(get_in(session, &message, SHORT_MS), IPC_ETIMEDOUT);
	deadline = domain_deadline(SHORT_MS);
	EXPECT(ipc_session_peers_wait(session, true, &deadline), IPC_ETIMEDOUT);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-2: waits that began before, and those that begin while it is away, end with its messages. */
Test(session_away, waits_go_on_until_it_is_back)
{
	ipc_listener *listener = LISTENER_NEW(.resume_window_ns = UINT64_MAX);
	ipc_session *session, *resumed = NULL;
	struct actor actor;

	PARTY_START(&actor, 0);
	session = accept_from(listener, &actor);
	keys[0] = key_of(session);
	order_sleep(&actor, ORDER_RECEIVE_WAIT, 0, 0);
	session = ipc_session_detach(session);
	actor_until_asleep(&actor);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	EXPECT(put(resumed, 6), 0);
	EXPECT(actor_hear(&actor), 6);

	keys[0] = key_of(resumed);
	ipc_session_detach(resumed);
	EXPECT(order_do(&actor, ORDER_PEERS_WAIT, 0, 0), 0);
	order_sleep(&actor, ORDER_PEERS_WAIT, 1, 0);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	EXPECT(actor_hear(&actor), 0);
	ipc_session_close(resumed);
	actor_kill(&actor);
	ipc_listener_close(listener);
}

/* C-16 */
Test(session_away, for_ever_is_for_ever)
{
	ipc_listener *listener = LISTENER_NEW(.resume_window_ns = UINT64_MAX);
	struct pair pair = {.listener = listener};
	struct ipc_session_key key;

	pair_connect(&pair);
	key = key_of(pair.connected);
	pair.connected = ipc_session_detach(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	EXPECT(state_of(pair.accepted).away_ns, UINT64_MAX);
	ASSERT(resume_by(&pair.connected, fixture_client, &key), 0);
	EXPECT(state_of(pair.accepted).away_ns, 0);
	pair_close(&pair);
}

/* C-16: away of one end starts the window anew each time. */
Test(session_away, each_time_the_window_is_whole)
{
	struct pair pair = PAIR_NEW(.resume_window_ns = 1500 * MS);

	for (unsigned i = 0; i < 4; ++i) {
		struct ipc_session_key key = key_of(pair.connected);
		struct timespec deadline;
		uint64_t away_ns;

		pair.connected = ipc_session_detach(pair.connected);
		EXPECT(until_peer(pair.accepted, false), 0);
		away_ns = state_of(pair.accepted).away_ns;
		cr_expect(away_ns > 0 && away_ns <= 1500 * MS, "%lu", away_ns);
		deadline = domain_deadline(600);
		EXPECT(ipc_session_peers_wait(pair.accepted, true, &deadline), IPC_ETIMEDOUT);
		ASSERT(resume_by(&pair.connected, fixture_client, &key), 0);
		EXPECT(put(pair.connected, 1), 0);
		EXPECT(eat(pair.accepted), 1);
	}
	pair_close(&pair);
}

/* ---- lost ---- */

static void expect_lost(ipc_session *session, void *claim)
{
	struct ipc_session_message message;
	void *none = NULL;

	EXPECT(put(session, 1), IPC_EOWNERDEAD);
	EXPECT(put_in(session, 1, 0), IPC_EOWNERDEAD);
	EXPECT(ipc_session_send_wait(session, NULL, 0, NULL), IPC_EOWNERDEAD);
	EXPECT(ipc_session_send_fd(session, 0, NULL, 0), IPC_EOWNERDEAD);
	EXPECT(ipc_session_claim(session, 1, &none), IPC_EOWNERDEAD);
	EXPECT(ipc_session_claim_wait(session, 1, &none, NULL), IPC_EOWNERDEAD);
	EXPECT(ipc_session_commit(session, claim, 1), IPC_EOWNERDEAD);
	EXPECT(ipc_session_receive(session, &message), IPC_EOWNERDEAD);
	EXPECT(ipc_session_receive_wait(session, &message, NULL), IPC_EOWNERDEAD);
	EXPECT(ipc_session_peers_wait(session, true, NULL), IPC_EOWNERDEAD);
	EXPECT(ipc_session_peers_wait(session, false, NULL), 0);
	EXPECT(ipc_session_peers(session), 0);
	EXPECT(state_of(session).away_ns, 0);
	EXPECT(look(session, IPC_READY_READABLE), IPC_READY_END);
	EXPECT(look(session, IPC_READY_WRITABLE), IPC_READY_END);
}

/* C-2, C-14: it drains first. */
Test(session_away, a_session_is_lost_when_the_window_has_passed)
{
	struct pair pair = PAIR_NEW(.resume_window_ns = SHORT_MS * MS);
	struct ipc_session_key key = key_of(pair.connected);
	struct ipc_session_message message;
	void *claim;

	ASSERT(ipc_session_claim(pair.accepted, 8, &claim), 0);
	for (uint32_t i = 1; i <= 3; ++i)
		ASSERT(put(pair.connected, i), 0);
	ASSERT(get(pair.accepted, &message), 1);
	pair.connected = ipc_session_detach(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	EXPECT(until_peer(pair.accepted, true), IPC_EOWNERDEAD);

	EXPECT(put(pair.accepted, 1), IPC_EOWNERDEAD);
	EXPECT(get(pair.accepted, &message), 2);
	EXPECT(get_in(pair.accepted, &message, WAIT_MS), 3);
	EXPECT(ipc_session_release(pair.accepted, &message), 0);
	expect_lost(pair.accepted, claim);
	EXPECT(resume_fails(&key), IPC_ESTALE);
	expect_lost(pair.accepted, claim);
	EXPECT(ipc_session_abort(pair.accepted, claim), 0);
	pair_close(&pair);
}

/* C-2, M-22: who sleeps is told when it passes. */
Test(session_away, waits_end_when_the_session_is_lost)
{
	static const enum order order[] = {ORDER_RECEIVE_WAIT, ORDER_SEND_WAIT, ORDER_PEERS_WAIT};

	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); ++i) {
		/* Who waits for the one that is away is to sleep before it passes. */
		bool is_away = order[i] == ORDER_PEERS_WAIT;
		ipc_listener *listener =
			LISTENER_NEW(.capacity = 4096,
				     .resume_window_ns = (is_away ? 1000 : SHORT_MS) * MS);
		ipc_session *session;
		struct actor actor;

		PARTY_START(&actor, 0);
		session = accept_from(listener, &actor);
		while (order[i] == ORDER_SEND_WAIT && order_do(&actor, ORDER_SEND, 1, 0) == 0)
			;
		if (is_away) {
			session = ipc_session_detach(session);
			EXPECT(order_do(&actor, ORDER_PEERS_WAIT, 0, 0), 0);
		}
		order_sleep(&actor, order[i], 1, 0);
		ipc_session_detach(session);
		EXPECT(actor_hear(&actor), IPC_EOWNERDEAD);
		actor_kill(&actor);
		ipc_listener_close(listener);
	}
}

/* C-16, M-6: windows go on over the broker's deaths. */
Test(session_away, a_window_outlives_the_worker)
{
	struct pair pair = PAIR_NEW(.resume_window_ns = 300 * MS);
	struct ipc_session_message message;
	uint64_t began = clock_now_ns();

	pair.connected = ipc_session_detach(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	domain_kill_worker(&fixture_domain);
	EXPECT(get_in(pair.accepted, &message, WAIT_MS), IPC_EOWNERDEAD);
	cr_expect_geq(clock_now_ns() - began, 290 * MS);
	pair_close(&pair);
}

/* C-13: the one that is away may come back at the last moment, or not; never half. */
Test(session_away, coming_back_as_the_window_passes_is_in_time_or_not)
{
	for (unsigned i = 0; i < 10; ++i) {
		struct pair pair = PAIR_NEW(.resume_window_ns = 20 * MS);
		struct ipc_session_key key = key_of(pair.connected);
		uint64_t began;
		int r;

		pair.connected = ipc_session_detach(pair.connected);
		EXPECT(until_peer(pair.accepted, false), 0);
		began = clock_now_ns();
		while (clock_now_ns() - began < (17 + i / 2) * MS)
			;
		r = resume_by(&pair.connected, fixture_client, &key);
		if (r == 0) {
			EXPECT(put(pair.connected, 1), 0);
			EXPECT(eat(pair.accepted), 1);
		} else {
			EXPECT(r, IPC_ESTALE);
			EXPECT(eat_in(pair.accepted, WAIT_MS), IPC_EOWNERDEAD);
		}
		pair_close(&pair);
	}
}

struct watching {
	ipc_session *session;
	_Atomic bool is_over;
	unsigned n_looks, n_wrong;
};

static void *watching_run(void *arg)
{
	struct watching *watching = arg;

	while (!atomic_load(&watching->is_over)) {
		++watching->n_looks;
		watching->n_wrong += ipc_session_peers(watching->session) != 1;
	}
	return NULL;
}

/* C-13, C-16: the successor is counted before the one who had the end is not. */
Test(session_away, an_end_that_is_handed_over_is_always_one)
{
	enum { N = 500 };
	struct pair pair = PAIR_NEW(0);
	struct watching watching = {.session = pair.connected};
	pthread_t thread;

	ASSERT(pthread_create(&thread, NULL, watching_run, &watching), 0);
	for (unsigned i = 0; i < N; ++i) {
		struct ipc_session_key key = key_of(pair.accepted);
		ipc_session *next = NULL;

		ASSERT(resume_by(&next, fixture_client, &key), 0);
		ipc_session_close(pair.accepted);
		pair.accepted = next;
	}
	atomic_store(&watching.is_over, true);
	ASSERT(pthread_join(thread, NULL), 0);
	cr_expect_gt(watching.n_looks, 0);
	EXPECT(watching.n_wrong, 0);
	pair_close(&pair);
}

/* ---- closed ---- */

/* C-14 */
Test(session_away, after_close_the_other_end_drains_and_then_has_its_end)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message;
	void *claim, *none = NULL;

	ASSERT(ipc_session_claim(pair.accepted, 8, &claim), 0);
	for (uint32_t i = 1; i <= 3; ++i)
		ASSERT(put(pair.connected, i), 0);
	pair.connected = ipc_session_close(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	EXPECT(until_peer(pair.accepted, true), IPC_EPIPE);

	EXPECT(look(pair.accepted, IPC_READY_READABLE), IPC_READY_READABLE);
	EXPECT(look(pair.accepted, IPC_READY_WRITABLE), IPC_READY_END);
	EXPECT(put(pair.accepted, 1), IPC_EPIPE);
	EXPECT(ipc_session_send_wait(pair.accepted, NULL, 0, NULL), IPC_EPIPE);
	EXPECT(ipc_session_claim(pair.accepted, 1, &none), IPC_EPIPE);
	EXPECT(ipc_session_commit(pair.accepted, claim, 8), IPC_EPIPE);
	EXPECT(get(pair.accepted, &message), 1);
	EXPECT(ipc_session_commit_release(pair.accepted, claim, 8, &message), IPC_EPIPE);
	EXPECT(state_of(pair.accepted).released, 0);
	EXPECT(ipc_session_abort(pair.accepted, claim), 0);
	EXPECT(ipc_session_release(pair.accepted, &message), 0);
	EXPECT(eat(pair.accepted), 2);
	EXPECT(eat_in(pair.accepted, WAIT_MS), 3);
	EXPECT(eat(pair.accepted), IPC_EPIPE);
	EXPECT(eat_in(pair.accepted, WAIT_MS), IPC_EPIPE);
	EXPECT(ipc_session_peers(pair.accepted), 0);
	EXPECT(state_of(pair.accepted).away_ns, 0);
	EXPECT(look(pair.accepted, IPC_READY_READABLE), IPC_READY_END);
	pair_close(&pair);
}

/* C-14, M-22: whether there is a broker that tells it or not. */
Test(session_away, waits_end_with_the_other_ends_close)
{
	static const enum order order[] = {ORDER_RECEIVE_WAIT, ORDER_SEND_WAIT};
	pid_t worker = domain_worker(&fixture_domain);

	WAKES_TELL();
	for (unsigned i = 0; i < 2; ++i) {
		ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
		ipc_session *session;
		struct actor actor;
		uint64_t began;

		session = scene_begin(listener, &actor);
		while (order[i] == ORDER_SEND_WAIT && order_do(&actor, ORDER_SEND, 1, 0) == 0)
			;
		order_sleep(&actor, order[i], 1, 0);
		ASSERT(kill(worker, SIGSTOP), 0);
		began = clock_now_ns();
		ipc_session_close(session);
		EXPECT(actor_hear(&actor), IPC_EPIPE);
		ASSERT_WOKEN(began);
		EXPECT(order_do(&actor, ORDER_PEERS_WAIT, 1, 0), IPC_EPIPE);
		ASSERT(kill(worker, SIGCONT), 0);
		actor_kill(&actor);
		ipc_listener_close(listener);
	}
}

/* C-14: an end that closed does not come to be lost; the one that is there has its end. */
Test(session_away, death_after_the_others_close_changes_nothing)
{
	ipc_listener *listener = LISTENER_NEW(.resume_window_ns = SHORT_MS * MS);
	ipc_session *session, *resumed = NULL;
	struct actor actor;

	session = scene_begin(listener, &actor);
	ASSERT(put(session, 1), 0);
	session = ipc_session_close(session);
	EXPECT(order_do(&actor, ORDER_PEERS_WAIT, 0, 0), 0);
	EXPECT(order_do(&actor, ORDER_PEERS_WAIT, 1, 0), IPC_EPIPE);
	(void)exists(NAME); /* The broker has heard of it, too. */
	actor_kill(&actor);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	EXPECT(eat(resumed), 1);
	EXPECT(eat(resumed), IPC_EPIPE);
	ipc_session_close(resumed);
	ipc_listener_close(listener);
}

/* C-9, M-51: what both have closed, and what was lost, is memory again. */
Test(session_away, nothing_is_left_of_sessions_that_ended)
{
	ipc_listener *listener = LISTENER_NEW(.resume_window_ns = MS);
	struct pair pair = {.listener = listener};

	for (unsigned i = 0; i < 100; ++i) {
		bool is_lost = i % 2;

		pair_connect(&pair);
		if (is_lost)
			pair.connected = ipc_session_detach(pair.connected);
		else
			pair.connected = ipc_session_close(pair.connected);
		EXPECT(until_peer(pair.accepted, false), 0);
		EXPECT(until_peer(pair.accepted, true), is_lost ? IPC_EOWNERDEAD : IPC_EPIPE);
		pair.accepted = ipc_session_close(pair.accepted);
	}
	pair_close(&pair);
}

/* ---- the list ---- */

struct listed {
	unsigned n;
	struct ipc_session_info info;
	int result;
};

static int list_one(const struct ipc_session_info *info, void *userdata)
{
	struct listed *listed = userdata;

	++listed->n;
	listed->info = *info;
	return listed->result;
}

static struct listed list_of(const char *name)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct listed listed = {0};

	ASSERT(ipc_session_list_wait(fixture_client, name, list_one, &listed, &deadline), 0);
	return listed;
}

/* M-45 */
Test(session_away, sessions_are_listed_with_where_they_stand)
{
	struct pair pair = PAIR_NEW(.capacity = 8192), other = {.listener = pair.listener};
	struct ipc_session_message message;
	struct listed listed = list_of(NAME);

	EXPECT(listed.n, 1);
	EXPECT(listed.info.size, sizeof(listed.info));
	EXPECT(listed.info.capacity, 8192);
	EXPECT(listed.info.sent[0], 0);
	for (unsigned i = 0; i < 2; ++i) {
		EXPECT(listed.info.pid[i], getpid());
		EXPECT(listed.info.uid[i], geteuid());
		EXPECT(listed.info.away_ns[i], 0);
	}

	ASSERT(put(pair.connected, 1), 0);
	ASSERT(put(pair.connected, 2), 0);
	ASSERT(put(pair.accepted, 3), 0);
	ASSERT(get(pair.accepted, &message), 1);
	ASSERT(ipc_session_release(pair.accepted, &message), 0);
	pair.connected = ipc_session_detach(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	listed = list_of(NAME);
	EXPECT(listed.n, 1);
	EXPECT(listed.info.sent[1], 2);
	EXPECT(listed.info.acknowledged[1], 1);
	EXPECT(listed.info.depth[1], 32);
	EXPECT(listed.info.sent[0], 1);
	EXPECT(listed.info.acknowledged[0], 0);
	EXPECT(listed.info.pid[1], 0);
	cr_expect_gt(listed.info.away_ns[1], 0);
	EXPECT(listed.info.away_ns[0], 0);

	pair_connect(&other);
	EXPECT(list_of(NAME).n, 2);
	other.listener = NULL;
	pair_close(&other);
	pair_close(&pair);
}

/* M-45, M-42 */
Test(session_away, a_list_is_stopped_by_what_the_function_returns)
{
	struct pair pair = PAIR_NEW(0), other = {.listener = pair.listener};
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct listed listed = {.result = 1};

	pair_connect(&other);
	EXPECT(ipc_session_list_wait(fixture_client, NAME, list_one, &listed, &deadline), 0);
	EXPECT(listed.n, 1);
	listed.result = IPC_EBADMSG;
	EXPECT(ipc_session_list_wait(fixture_client, NAME, list_one, &listed, &deadline),
	       IPC_EBADMSG);
	EXPECT(listed.n, 2);
	EXPECT(ipc_session_list_wait(fixture_client, "", list_one, &listed, &deadline), IPC_EINVAL);
	EXPECT(ipc_session_list_wait(fixture_client, NAME, NULL, &listed, &deadline), IPC_EINVAL);
	EXPECT(ipc_session_list_wait(NULL, NAME, list_one, &listed, &deadline), IPC_EINVAL);
	EXPECT(list_of("none").n, 0);
	other.listener = NULL;
	pair_close(&other);
	pair_close(&pair);
}

/* C-16: with both away the first window that passes ends it, for both. */
Test(session_away, with_both_away_the_first_window_counts)
{
	enum { WINDOW_MS = 1200 };
	struct pair pair = PAIR_NEW(.resume_window_ns = WINDOW_MS * MS);
	struct ipc_session_key accepted = key_of(pair.accepted), connected = key_of(pair.connected);
	struct timespec deadline = domain_deadline(WAIT_MS);
	uint64_t first_ns = clock_now_ns(), second_ns;

	pair.connected = ipc_session_detach(pair.connected);
	EXPECT(until_peer(pair.accepted, false), 0);
	while (clock_now_ns() - first_ns < WINDOW_MS / 2 * MS)
		process_pause();
	second_ns = clock_now_ns();
	pair.accepted = ipc_session_detach(pair.accepted);
	while (list_of(NAME).n > 0 && !process_has_passed(&deadline))
		process_pause();

	/* The end that went later would have been waited for longer. */
	cr_expect_geq(clock_now_ns() - first_ns, WINDOW_MS * MS);
	cr_expect_lt(clock_now_ns() - second_ns, WINDOW_MS * MS);
	EXPECT(resume_fails(&accepted), IPC_ESTALE);
	EXPECT(resume_fails(&connected), IPC_ESTALE);
	pair_close(&pair);
}
