/* SPDX-License-Identifier: MIT */
/*
 * session: ends in pid namespaces that are not the broker's, as in containers that share a domain.
 * Needs root, which alone can make them.
 */
#include "tests/client/session_scene.h"

/* A test that is skipped is not torn down. */
static void setup(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	scene_setup();
}

TestSuite(session_namespace, .init = setup, .fini = scene_teardown, .timeout = 60);

/* A party in a namespace of its own, and its number here. */
struct stranger {
	struct actor actor;
	pid_t pid;
};

static void stranger_start(struct stranger *stranger, struct party party)
{
	stranger->pid = actor_start_in_namespace(&stranger->actor, party_run, &party);
	(void)actor_hear(&stranger->actor);
}

#define STRANGER_START(stranger, ...) stranger_start(stranger, (struct party){__VA_ARGS__})

static int64_t ask(struct stranger *stranger, enum order order, int64_t a, int64_t b)
{
	return order_do(&stranger->actor, order, a, b);
}

static void put_to_sleep(struct stranger *stranger, enum order order, int64_t a)
{
	order_begin(&stranger->actor, order, a, 0);
	process_until_asleep(stranger->pid, 1);
}

/* The end itself, not who waits for it outside. */
static void stranger_kill(struct stranger *stranger)
{
	cr_assert_eq(kill(stranger->pid, SIGKILL), 0);
	(void)actor_join(&stranger->actor);
}

/* One that has connected, its key in keys[0]. */
static ipc_session *scene_with(ipc_listener *listener, struct stranger *stranger)
{
	ipc_session *session;

	STRANGER_START(stranger, 0);
	session = accept_from(listener, &stranger->actor);
	ASSERT(ask(stranger, ORDER_KEY, 0, 0), 0);
	return session;
}

/* Both in namespaces of their own; keys[0] of the one that listens, keys[1] of the other. */
static void strangers_meet(struct stranger *listening, struct stranger *connecting)
{
	STRANGER_START(listening, .options = {.capacity = 4096});
	STRANGER_START(connecting, 0);
	ASSERT(ask(listening, ORDER_LISTEN, IPC_CREATE, 0), 0);
	order_begin(&connecting->actor, ORDER_CONNECT, 0, 0);
	ASSERT(ask(listening, ORDER_ACCEPT, 0, 0), 0);
	ASSERT(actor_hear(&connecting->actor), 0);
	ASSERT(ask(listening, ORDER_KEY, 0, 0), 0);
	ASSERT(ask(connecting, ORDER_KEY, 1, 0), 0);
}

/* ---- talk ---- */

/* M-53, C-1, C-12: whoever sleeps is woken, whichever of the two it is. */
Test(session_namespace, ends_talk_over_its_border)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct stranger stranger;
	ipc_session *session = scene_with(listener, &stranger);

	for (uint32_t i = 1; i <= 20; ++i) {
		put_to_sleep(&stranger, ORDER_RECEIVE_WAIT, 0);
		ASSERT(put(session, i), 0);
		ASSERT(actor_hear(&stranger.actor), i);
		ASSERT(ask(&stranger, ORDER_CLAIM, 4, 100 + i), 0);
		ASSERT(ask(&stranger, ORDER_COMMIT_REPLY, 4, 0), 0);
		ASSERT(eat_in(session, WAIT_MS), 100 + i);
	}
	EXPECT(state_of(session).acknowledged, 20);
	EXPECT(ipc_session_peers(session), 1);

	stranger_kill(&stranger);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* M-53: a listener is open to others in the same way. */
Test(session_namespace, ends_of_two_others_talk)
{
	struct stranger a, b;

	strangers_meet(&a, &b);
	put_to_sleep(&a, ORDER_RECEIVE_WAIT, 0);
	ASSERT(ask(&b, ORDER_SEND, 7, 0), 0);
	EXPECT(actor_hear(&a.actor), 7);
	ASSERT(ask(&a, ORDER_RELEASE, 0, 0), 0);
	put_to_sleep(&b, ORDER_RECEIVE_WAIT, 0);
	ASSERT(ask(&a, ORDER_SEND, 8, 0), 0);
	EXPECT(actor_hear(&b.actor), 8);

	stranger_kill(&a);
	stranger_kill(&b);
}

/* C-11 */
Test(session_namespace, descriptors_come_over_its_border)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct stranger stranger;
	ipc_session *session = scene_with(listener, &stranger);
	int fd = memfd_create("in-the-mail", MFD_CLOEXEC);
	uint32_t number = 5;

	ASSERT(write(fd, "x", 1), 1);
	ASSERT(lseek(fd, 0, SEEK_SET), 0);
	ASSERT(ipc_session_send_fd(session, fd, &number, sizeof(number)), 0);
	close(fd);
	EXPECT(ask(&stranger, ORDER_RECEIVE_WAIT, 0, 0), 5);
	EXPECT(ask(&stranger, ORDER_FD, 0, 0), 'x');

	stranger_kill(&stranger);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* ---- deaths ---- */

/* M-24, C-2, C-4, C-5: it is away, and goes on in another namespace where it had stopped. */
Test(session_namespace, one_that_is_killed_goes_on_in_another)
{
	ipc_listener *listener = LISTENER_NEW(.resume_window_ns = UINT64_MAX);
	struct stranger first, second;
	ipc_session *session = scene_with(listener, &first);
	struct ipc_session_message message;

	for (uint32_t i = 1; i <= 3; ++i)
		ASSERT(put(session, i), 0);
	EXPECT(ask(&first, ORDER_RECEIVE, 0, 0), 1);
	EXPECT(ask(&first, ORDER_RELEASE, 0, 0), 0);
	EXPECT(ask(&first, ORDER_RECEIVE, 0, 0), 2);
	EXPECT(ask(&first, ORDER_SEND, 11, 0), 0);
	EXPECT(ask(&first, ORDER_CLAIM, 4, 99), 0);
	put_to_sleep(&first, ORDER_PEERS_WAIT, 0);
	stranger_kill(&first);
	EXPECT(until_peer(session, false), 0);
	EXPECT(ipc_session_peers(session), 0);
	EXPECT(eat(session), 11);
	EXPECT(get(session, &message), IPC_EAGAIN);

	STRANGER_START(&second, 0);
	ASSERT(ask(&second, ORDER_RESUME, 0, 0), 0);
	EXPECT(until_peer(session, true), 0);
	EXPECT(ask(&second, ORDER_RECEIVE, 0, 0), 2);
	EXPECT(ask(&second, ORDER_FLAGS, 0, 0), IPC_MESSAGE_REDELIVERED);
	EXPECT(ask(&second, ORDER_RECEIVE, 0, 0), 3);
	EXPECT(ask(&second, ORDER_FLAGS, 0, 0), 0);
	EXPECT(ask(&second, ORDER_SEND, 12, 0), 0);
	EXPECT(eat_in(session, WAIT_MS), 12);

	stranger_kill(&second);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* M-24: the other way round; the session changes its namespace with each resume. */
Test(session_namespace, one_outside_that_is_killed_is_told_inside)
{
	struct stranger stranger, next;
	struct actor outside;

	PARTY_START(&outside, .options = {.resume_window_ns = UINT64_MAX});
	STRANGER_START(&stranger, 0);
	ASSERT(order_do(&outside, ORDER_LISTEN, IPC_CREATE, 0), 0);
	order_begin(&stranger.actor, ORDER_CONNECT, 0, 0);
	ASSERT(order_do(&outside, ORDER_ACCEPT, 0, 0), 0);
	ASSERT(actor_hear(&stranger.actor), 0);
	ASSERT(order_do(&outside, ORDER_KEY, 0, 0), 0);
	ASSERT(order_do(&outside, ORDER_CLAIM, 4, 99), 0);

	put_to_sleep(&stranger, ORDER_PEERS_WAIT, 0);
	actor_kill(&outside);
	EXPECT(actor_hear(&stranger.actor), 0);
	EXPECT(ask(&stranger, ORDER_SEND, 1, 0), 0);
	put_to_sleep(&stranger, ORDER_RECEIVE_WAIT, 0);
	STRANGER_START(&next, 0);
	ASSERT(ask(&next, ORDER_RESUME, 0, 0), 0);
	EXPECT(ask(&next, ORDER_RECEIVE, 0, 0), 1);
	EXPECT(ask(&next, ORDER_SEND, 2, 0), 0);
	EXPECT(actor_hear(&stranger.actor), 2);

	stranger_kill(&stranger);
	stranger_kill(&next);
}

/* C-2: waits inside end with the window. */
Test(session_namespace, window_that_passes_is_told_inside)
{
	ipc_listener *listener = LISTENER_NEW(.resume_window_ns = 60 * MS);
	struct stranger stranger;
	ipc_session *session = scene_with(listener, &stranger);

	put_to_sleep(&stranger, ORDER_RECEIVE_WAIT, 0);
	ipc_session_detach(session);
	EXPECT(actor_hear(&stranger.actor), IPC_EOWNERDEAD);

	stranger_kill(&stranger);
	ipc_listener_close(listener);
}

/* C-5, C-6: what the dead had claimed is room again; nobody here knows their numbers there. */
Test(session_namespace, claims_of_the_killed_leave_room)
{
	enum { N_DEAD = 6, SIZE = 1000 };

	static const char bytes[SIZE];
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096, .resume_window_ns = UINT64_MAX);
	ipc_session *session = NULL, *resumed = NULL;
	struct stranger stranger;
	struct actor outside;

	session = scene_with(listener, &stranger);
	for (unsigned i = 0; i < N_DEAD; ++i) {
		EXPECT(ask(&stranger, ORDER_CLAIM, SIZE, 1), 0);
		EXPECT(ask(&stranger, ORDER_SEND, 1 + i, 0), 0);
		stranger_kill(&stranger);
		EXPECT(eat_in(session, WAIT_MS), 1 + i);

		/* Outside, then inside again. */
		PARTY_START(&outside, 0);
		ASSERT(order_do(&outside, ORDER_RESUME, 0, 0), 0);
		ASSERT(order_do(&outside, ORDER_KEY, 0, 0), 0);
		EXPECT(order_do(&outside, ORDER_CLAIM, SIZE, 1), 0);
		actor_kill(&outside);
		STRANGER_START(&stranger, 0);
		ASSERT(ask(&stranger, ORDER_RESUME, 0, 0), 0);
		ASSERT(ask(&stranger, ORDER_KEY, 0, 0), 0);
	}
	stranger_kill(&stranger);
	EXPECT(until_peer(session, false), 0);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);

	/* Whatever the stream passes over, this is behind it. */
	ASSERT(put(resumed, 100), 0);
	ASSERT(eat(session), 100);
	for (unsigned i = 0; i < 3; ++i)
		EXPECT(ipc_session_send(resumed, bytes, SIZE), 0);

	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* ---- taken over alive ---- */

/* C-3 */
Test(session_namespace, successor_outside_takes_over_from_the_living_inside)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct stranger stranger;
	ipc_session *session = scene_with(listener, &stranger), *resumed = NULL;

	put_to_sleep(&stranger, ORDER_RECEIVE_WAIT, 0);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	EXPECT(actor_hear(&stranger.actor), IPC_ESTALE);
	EXPECT(ask(&stranger, ORDER_SEND, 1, 0), IPC_ESTALE);
	EXPECT(ipc_session_peers(session), 1);
	EXPECT(put(resumed, 2), 0);
	EXPECT(eat_in(session, WAIT_MS), 2);

	stranger_kill(&stranger);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-3: what it writes after that is nowhere where its successor's messages are. */
Test(session_namespace, claim_of_the_living_inside_is_kept_out_of_what_comes_after)
{
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
	struct stranger stranger;
	ipc_session *session = scene_with(listener, &stranger), *resumed = NULL;

	ASSERT(ask(&stranger, ORDER_CLAIM, 4, 1), 0);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	EXPECT(put(resumed, 5), 0);
	ASSERT(ask(&stranger, ORDER_WRITE, 77, 0), 0);
	EXPECT(eat_in(session, WAIT_MS), 5);

	stranger_kill(&stranger);
	ipc_session_close(resumed);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-3 */
Test(session_namespace, claim_of_the_living_outside_is_kept_out_of_what_comes_after)
{
	struct pair pair = PAIR_NEW(0);
	struct stranger stranger;
	uint32_t late = 77;
	void *claim = NULL;

	keys[0] = key_of(pair.connected);
	ASSERT(ipc_session_claim(pair.connected, 4, &claim), 0);
	STRANGER_START(&stranger, 0);
	ASSERT(ask(&stranger, ORDER_RESUME, 0, 0), 0);
	EXPECT(ask(&stranger, ORDER_SEND, 5, 0), 0);
	memcpy(claim, &late, sizeof(late));
	EXPECT(eat_in(pair.accepted, WAIT_MS), 5);

	stranger_kill(&stranger);
	pair_close(&pair);
}

/* M-10, C-3: four of them may still write, and the next is refused until one has gone. */
Test(session_namespace, the_living_inside_are_counted_until_they_go)
{
	enum { N = 4 };
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
	struct stranger strangers[N + 1];
	ipc_session *session = scene_with(listener, &strangers[0]), *next = NULL;
	struct timespec deadline = domain_deadline(WAIT_MS);
	int r;

	for (unsigned i = 1; i <= N; ++i) {
		ASSERT(ask(&strangers[i - 1], ORDER_CLAIM, 4, 1), 0);
		STRANGER_START(&strangers[i], 0);
		ASSERT(ask(&strangers[i], ORDER_RESUME, 0, 0), 0);
		ASSERT(ask(&strangers[i], ORDER_KEY, 0, 0), 0);
	}
	EXPECT(resume_by(&next, fixture_client, &keys[0]), IPC_EBUSY);
	EXPECT(ask(&strangers[N], ORDER_SEND, 5, 0), 0);
	EXPECT(eat_in(session, WAIT_MS), 5);

	stranger_kill(&strangers[1]);
	do
		r = resume_by(&next, fixture_client, &keys[0]);
	while (r == IPC_EBUSY && !process_has_passed(&deadline));
	EXPECT(r, 0);
	EXPECT(put(next, 6), 0);
	EXPECT(eat_in(session, WAIT_MS), 6);

	for (unsigned i = 0; i <= N; ++i)
		if (i != 1)
			stranger_kill(&strangers[i]);
	ipc_session_close(next);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-9, C-3: one takes the end back while the broker has not heard of a resume yet: he has its ring,
 * and a claim, that nobody may be given. */
Test(session_namespace, claim_of_who_takes_back_is_nobodys_after_a_resume)
{
	struct pair pair = PAIR_NEW(0);
	pid_t worker = domain_worker(&fixture_domain);
	struct stranger stranger;
	struct actor heir;

	keys[0] = key_of(pair.accepted);
	pair.accepted = ipc_session_detach(pair.accepted);
	pair.listener = ipc_listener_close(pair.listener);
	STRANGER_START(&stranger, 0);
	PARTY_START(&heir, 0);
	ASSERT(order_do(&heir, ORDER_LISTEN, IPC_CREATE, 0), 0);
	ASSERT(order_do(&heir, ORDER_WAIT_ANY, IPC_READY_READABLE, 0), IPC_READY_READABLE);

	ASSERT(kill(worker, SIGSTOP), 0);
	order_begin(&stranger.actor, ORDER_RESUME, 0, 0);

	/* The resume comes first, mostly; what holds is the same either way. */
	for (unsigned i = 0; i < 100; ++i)
		ASSERT(order_do(&heir, ORDER_WAIT_ANY, IPC_READY_READABLE, 0), IPC_READY_READABLE);
	ASSERT(order_do(&heir, ORDER_ACCEPT, 0, 0), 1);
	ASSERT(order_do(&heir, ORDER_CLAIM, sizeof(uint32_t), 1), 0);
	ASSERT(kill(worker, SIGCONT), 0);

	ASSERT(actor_hear(&stranger.actor), 0);
	EXPECT(ask(&stranger, ORDER_SEND, 5, 0), 0);
	EXPECT(order_do(&heir, ORDER_SEND, 9, 0), IPC_ESTALE);
	ASSERT(order_do(&heir, ORDER_WRITE, 77, 0), 0);
	EXPECT(eat_in(pair.connected, WAIT_MS), 5);
	stranger_kill(&stranger);
	actor_kill(&heir);
	pair_close(&pair);
}

/* C-3 */
Test(session_namespace, successor_inside_takes_over_from_the_living_outside)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message;
	struct stranger stranger;

	keys[0] = key_of(pair.connected);
	STRANGER_START(&stranger, 0);
	ASSERT(ask(&stranger, ORDER_RESUME, 0, 0), 0);
	EXPECT(put(pair.connected, 1), IPC_ESTALE);
	EXPECT(get(pair.connected, &message), IPC_ESTALE);
	EXPECT(ask(&stranger, ORDER_SEND, 2, 0), 0);
	EXPECT(eat_in(pair.accepted, WAIT_MS), 2);

	stranger_kill(&stranger);
	pair_close(&pair);
}
