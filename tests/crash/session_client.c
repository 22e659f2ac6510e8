/* SPDX-License-Identifier: MIT */
/*
 * session through the public interface, with a broker, killed at every few instructions: of who
 * connects, accepts, resumes, closes or detaches.  Whatever was killed, the other end and the next
 * process go on.
 */
#include <stdatomic.h>

#include "tests/client/session_scene.h"
#include "tests/support/step.h"

/* Some ten thousand instructions, most of them copies and look-ups. */
enum { STRIDE = 13, SHORT_MS = 5 };

/* In shared memory, of the child that is killed. */
static _Atomic int *is_stored, *result;

/* Of that child. */
static ipc_client *victim_client;
static ipc_listener *victim_listener;
static ipc_session *victim;

/* Of the parent. */
static ipc_listener *listener;
static ipc_session *session, *heir;
static struct actor actor;
static long n_told, n_resumed;
static bool was_stale;

static void setup(void)
{
	scene_setup();
	is_stored = mmap(NULL, 2 * sizeof(*is_stored), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(is_stored, MAP_FAILED);
	result = &is_stored[1];
}

static void teardown(void)
{
	munmap((void *)is_stored, 2 * sizeof(*is_stored));
	scene_teardown();
}

TestSuite(session_client, .init = setup, .fini = teardown, .timeout = 700);

static void victim_connect(void *arg)
{
	(void)arg;

	/* The steps are counted by a clock that interrupts. */
	if (ipc_client_connect_wait(&victim_client,
				    IPC_CLIENT_OPTIONS(.flags = IPC_CLIENT_NO_EINTR,
						       .address = fixture_domain.address),
				    NULL) < 0)
		process_end(1);
}

/* ---- connect ---- */

/* Accepts whoever comes, and answers each message with itself. */
static void echo(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_listener *mine = NULL;
	ipc_session *one;
	int64_t number;

	(void)arg;
	actor_say(self, listener_open(&mine, own, NAME,
				      (struct ipc_session_options){
					      .flags = IPC_CREATE,
					      .resume_window_ns = SHORT_MS * MS,
				      }));
	while (ipc_listener_accept_wait(mine, &one, NULL) == 0) {
		while ((number = eat_in(one, WAIT_MS)) > 0)
			if (put(one, (uint32_t)number) < 0)
				break;
		ipc_session_close(one);
	}
}

static void do_connect(void *arg)
{
	(void)arg;
	(void)!ipc_session_connect_wait(&victim, victim_client, NAME, NULL, NULL);
}

/* The one who accepts is neither lost nor held, and takes the next. */
static void check_connect(void *arg, long n)
{
	struct ipc_session_message message;
	ipc_session *mine = NULL;
	int r;

	(void)arg;
	r = connect_by(&mine, fixture_client, 0, WAIT_MS);
	cr_assert_eq(r, 0, "connect, after a kill at %ld: %s", n, ipc_error_name(r));
	ASSERT(put(mine, 5), 0);
	ASSERT(get_in(mine, &message, WAIT_MS), 5);
	ipc_session_close(mine);
}

/* C-15, C-2 */
Test(session_client, killed_while_connecting)
{
	const struct step_case step = {.prepare = victim_connect,
				       .operation = do_connect,
				       .check = check_connect,
				       .stride = STRIDE};
	long n_points;

	actor_start(&actor, echo, NULL);
	ASSERT(actor_hear(&actor), 0);
	n_points = step_run(&step, NULL);
	actor_kill(&actor);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 50);
}

/* ---- accept ---- */

static void victim_listen(void *arg)
{
	victim_connect(arg);
	if (listener_open(&victim_listener, victim_client, NAME,
			  (struct ipc_session_options){.flags = IPC_CREATE}) < 0)
		process_end(1);
}

static void do_accept(void *arg)
{
	(void)arg;
	(void)!ipc_listener_accept_wait(victim_listener, &victim, NULL);
}

/* Accepted by the victim or not, the one who connects is there, once. */
static void check_accept(void *arg, long n)
{
	ipc_listener *mine = LISTENER_NEW(0);
	ipc_session *one = NULL, *none = NULL;
	int r;

	(void)arg;
	r = accept_in(mine, &one, WAIT_MS);
	cr_assert(r == 0 || r == 1, "accept, after a kill at %ld: %s", n, ipc_error_name(r));
	ASSERT(actor_hear(&actor), 0);
	ASSERT(order_do(&actor, ORDER_SEND, 7, 0), 0);
	ASSERT(eat_in(one, WAIT_MS), 7);
	ASSERT(put(one, 8), 0);
	ASSERT(order_do(&actor, ORDER_RECEIVE_WAIT, 0, 0), 8);
	ASSERT(ipc_listener_accept(mine, &none), IPC_EAGAIN);
	ASSERT(order_do(&actor, ORDER_CLOSE, 0, 0), 0);
	ipc_session_close(one);
	ipc_listener_close(mine);
	order_begin(&actor, ORDER_CONNECT, IPC_AWAIT, 0);
}

/* C-9, C-15 */
Test(session_client, killed_while_accepting)
{
	const struct step_case step = {.prepare = victim_listen,
				       .operation = do_accept,
				       .check = check_accept,
				       .stride = STRIDE};
	long n_points;

	PARTY_START(&actor, 0);
	order_begin(&actor, ORDER_CONNECT, IPC_AWAIT, 0);
	n_points = step_run(&step, NULL);
	actor_kill(&actor);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 50);
}

/* ---- the last message and the end ---- */

static void scene_of_two(void)
{
	struct pair pair = PAIR_NEW(0);

	listener = pair.listener;
	session = pair.accepted;
	keys[0] = key_of(pair.connected);
	ipc_session_detach(pair.connected);
	*is_stored = 0;
}

static void scene_end(void)
{
	session = ipc_session_close(session);
	listener = ipc_listener_close(listener);
}

static void prepare_receive(void *arg)
{
	victim_connect(arg);
	if (ipc_session_resume_wait(&victim, victim_client, &keys[0], NULL) < 0)
		process_end(1);
}

static void do_receive(void *arg)
{
	struct ipc_session_message message;

	(void)arg;
	*result = ipc_session_receive(victim, &message);
}

static void put_and_leave(void *arg, long n)
{
	uint64_t id;

	(void)arg;
	(void)n;
	ASSERT(put(session, 1), 0);
	ASSERT(ipc_session_get_id(session, &id), 0);
	session = ipc_session_close(session);
	until_not_alive(id);
}

static void check_receive(void *arg, long n)
{
	(void)arg;
	cr_assert(*result == 0 || *result == IPC_EAGAIN, "before instruction %ld: %s", n,
		  ipc_error_name(*result));
	scene_end();
	scene_of_two();
}

/* C-14, M-21 */
Test(session_client, last_message_comes_before_the_end)
{
	const struct step_case step = {.prepare = prepare_receive,
				       .operation = do_receive,
				       .check = check_receive,
				       .meanwhile = put_and_leave,
				       .stride = 3};
	long n_points;

	scene_of_two();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 20);
	scene_end();
}

/* ---- resume ---- */

static void do_resume(void *arg)
{
	(void)arg;
	if (ipc_session_resume_wait(&victim, victim_client, &keys[0], NULL) < 0 ||
	    ipc_session_get_key(victim, &keys[1]) < 0)
		return;

	/* It is in a file now. */
	atomic_store(is_stored, 1);
	(void)!ipc_session_confirm_key(victim);
}

/* By the key that was stored last. */
static void check_resume(void *arg, long n)
{
	struct ipc_session_message message;
	ipc_session *mine = NULL;
	int r;

	(void)arg;
	r = resume_by(&mine, fixture_client, &keys[atomic_load(is_stored)]);
	cr_assert_eq(r, 0, "resume, after a kill at %ld: %s", n, ipc_error_name(r));
	ASSERT(get(mine, &message), 1);
	ASSERT(put(mine, 2), 0);
	ASSERT(eat_in(session, WAIT_MS), 2);
	keys[0] = key_of(mine);
	ASSERT(ipc_session_confirm_key(mine), 0);
	ipc_session_detach(mine);
	*is_stored = 0;
}

/* C-3, C-4 */
Test(session_client, killed_while_resuming)
{
	const struct step_case step = {.prepare = victim_connect,
				       .operation = do_resume,
				       .check = check_resume,
				       .stride = STRIDE};
	long n_points;

	scene_of_two();
	ASSERT(put(session, 1), 0);
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 50);
	scene_end();
}

/* ---- close, detach ---- */

static void victim_resume(void *arg)
{
	victim_connect(arg);
	if (ipc_session_resume_wait(&victim, victim_client, &keys[0], NULL) < 0 ||
	    put(victim, 3) < 0)
		process_end(1);
}

static void do_close(void *arg)
{
	(void)arg;
	victim = ipc_session_close(victim);
}

/* Whether the session has been said to be over; then it is, for ever. */
static bool is_told(void)
{
	int r = put(session, 1);

	cr_assert(r == 0 || r == IPC_EPIPE, "%s", ipc_error_name(r));
	return r == IPC_EPIPE;
}

static void check_close(void *arg, long n)
{
	bool was_told = is_told();
	ipc_session *mine = NULL;
	int64_t r;

	(void)arg;
	ASSERT(eat_in(session, WAIT_MS), 3);
	ASSERT(until_peer(session, false), 0);
	n_told += was_told;
	if (was_told)
		ASSERT(until_peer(session, true), IPC_EPIPE);
	r = resume_by(&mine, fixture_client, &keys[0]);
	if (r == 0) {
		cr_assert(!was_told, "before instruction %ld", n);
		ASSERT(put(mine, 4), 0);
		ASSERT(eat_in(session, WAIT_MS), 4);
		ipc_session_close(mine);
	} else {
		cr_assert_eq(r, IPC_ESTALE, "resume, after a kill at %ld: %s", n,
			     ipc_error_name((int)r));
	}
	ASSERT(eat_in(session, WAIT_MS), IPC_EPIPE);
	ASSERT(put(session, 1), IPC_EPIPE);
	scene_end();
	scene_of_two();
}

/* C-14, M-44: closed, or away and still to be resumed. */
Test(session_client, killed_while_closing)
{
	const struct step_case step = {
		.prepare = victim_resume, .operation = do_close, .check = check_close, .stride = 5};
	long n_points;

	scene_of_two();
	n_told = 0;
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points, %ld of them told", n_points, n_told);
	cr_expect_gt(n_points, 20);
	cr_expect_gt(n_told, 5);
	scene_end();
}

/* The victim stands in the middle of its close. */
static void resume_meanwhile(void *arg, long n)
{
	bool was_told = is_told();
	int r;

	(void)arg;
	heir = NULL;
	r = resume_by(&heir, fixture_client, &keys[0]);
	cr_assert(r == IPC_ESTALE || (r == 0 && !was_told), "resume, before instruction %ld: %s", n,
		  ipc_error_name(r));
	n_told += was_told;
	n_resumed += r == 0;
}

static void check_close_or_resume(void *arg, long n)
{
	(void)arg;
	(void)n;
	ASSERT(eat_in(session, WAIT_MS), 3);
	if (heir) {
		ASSERT(put(session, 5), 0);
		ASSERT(eat_in(heir, WAIT_MS) > 0, true);
		ASSERT(put(heir, 4), 0);
		ASSERT(eat_in(session, WAIT_MS), 4);
		ASSERT(eat(session), IPC_EAGAIN);
		heir = ipc_session_close(heir);
	}
	ASSERT(eat_in(session, WAIT_MS), IPC_EPIPE);
	ASSERT(put(session, 1), IPC_EPIPE);
	ASSERT(until_peer(session, false), 0);
	ASSERT(until_peer(session, true), IPC_EPIPE);
	scene_end();
	scene_of_two();
}

/* C-3, C-14: one of the two has happened, and the other end hears of that one alone. */
Test(session_client, resumed_while_closing)
{
	const struct step_case step = {.prepare = victim_resume,
				       .operation = do_close,
				       .check = check_close_or_resume,
				       .meanwhile = resume_meanwhile,
				       .stride = 5};
	long n_points;

	scene_of_two();
	n_told = n_resumed = 0;
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points, %ld told, %ld resumed", n_points, n_told, n_resumed);
	cr_expect_gt(n_told, 5);
	cr_expect_gt(n_resumed, 5);
	scene_end();
}

static void scene_of_three(void)
{
	scene_of_two();
	ASSERT(resume_by(&heir, fixture_client, &keys[0]), 0);
}

static void do_resume_only(void *arg)
{
	struct ipc_session_key key = keys[0];

	(void)arg;
	*result = ipc_session_resume_wait(&victim, victim_client, &key, NULL);
}

/* The victim stands in the middle of its resume; some of it is the broker's doing. */
static void close_meanwhile(void *arg, long n)
{
	(void)arg;
	(void)n;
	was_stale = put(heir, 9) == IPC_ESTALE;
	heir = ipc_session_close(heir);
}

static void check_resume_or_close(void *arg, long n)
{
	bool was_told = is_told();

	(void)arg;
	cr_assert(*result == 0 ? !was_told : *result == IPC_ESTALE && !was_stale,
		  "before instruction %ld: %s", n, ipc_error_name(*result));
	n_told += was_told;
	n_resumed += was_stale;
	ASSERT(until_peer(session, false), 0);
	ASSERT(is_told(), was_told);
	if (was_told)
		ASSERT(until_peer(session, true), IPC_EPIPE);
	else
		ASSERT(resume_by(&heir, fixture_client, &keys[0]), 0);
	heir = ipc_session_close(heir);
	scene_end();
	scene_of_three();
}

/* C-3, C-14: who knows that he was taken over ends nothing by closing what he has left. */
Test(session_client, closed_while_resuming)
{
	const struct step_case step = {.prepare = victim_connect,
				       .operation = do_resume_only,
				       .check = check_resume_or_close,
				       .meanwhile = close_meanwhile,
				       .stride = STRIDE};
	long n_points;

	scene_of_three();
	n_told = n_resumed = 0;
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points, %ld told, %ld resumed", n_points, n_told, n_resumed);
	cr_expect_gt(n_told, 5);
	cr_expect_gt(n_resumed, 5);
	heir = ipc_session_close(heir);
	scene_end();
}

static void do_detach(void *arg)
{
	(void)arg;
	victim = ipc_session_detach(victim);
}

static void check_detach(void *arg, long n)
{
	ipc_session *mine = NULL;
	int r;

	(void)arg;
	ASSERT(eat_in(session, WAIT_MS), 3);
	ASSERT(until_peer(session, false), 0);
	r = resume_by(&mine, fixture_client, &keys[0]);
	cr_assert_eq(r, 0, "resume, after a kill at %ld: %s", n, ipc_error_name(r));
	ASSERT(put(mine, 4), 0);
	ASSERT(eat_in(session, WAIT_MS), 4);
	keys[0] = key_of(mine);
	ASSERT(ipc_session_confirm_key(mine), 0);
	ipc_session_detach(mine);
}

/* C-13: always away. */
Test(session_client, killed_while_detaching)
{
	const struct step_case step = {.prepare = victim_resume,
				       .operation = do_detach,
				       .check = check_detach,
				       .stride = 5};
	long n_points;

	scene_of_two();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 20);
	scene_end();
}
