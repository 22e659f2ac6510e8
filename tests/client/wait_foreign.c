/* SPDX-License-Identifier: MIT */
/*
 * ipc_wait_any() over channels of two users, whose ends stand in two tables.  Needs root, which
 * alone can become others.
 */
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/client/wait_scene.h"

#define UID_A 61001 /* nobody's */

TestSuite(wait_foreign, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* Makes "theirs" as the other user, and publishes each time it is told to. */
static void produce_as_other(struct actor *self, void *arg)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer;
	int r;

	(void)arg;
	if (setgroups(0, NULL) < 0 || setgid(UID_A) < 0 || setuid(UID_A) < 0)
		process_end(1);

	/* The kernel forgets it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);

	r = ipc_watch_producer_open_wait(&producer, domain_connect(&fixture_domain), "theirs",
					 IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 0644),
					 &deadline);
	for (;;) {
		actor_say(self, r);
		(void)actor_hear(self);
		r = ipc_watch_publish(producer, "value", 6);
	}
}

static void start_other(struct actor *other)
{
	actor_start(other, produce_as_other, NULL);
	cr_assert_eq(actor_hear(other), 0);
}

static void publish_as_other(struct actor *other, struct actor *waiter)
{
	uint64_t began = clock_now_ns();

	actor_say(other, 0);
	cr_assert_eq(actor_hear(other), 0);
	ASSERT_WAITED(waiter, 0, READABLE);
	ASSERT_WOKEN(began);
}

static void wait_for_values(bool refuses_waitv)
{
	ipc_watch_producer *producer;
	struct actor other, waiter;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	WAKES_TELL();
	producer = producer_new("ours");
	start_other(&other);
	WAITER_START(&waiter, .refuses_waitv = refuses_waitv, .n = 2,
		     .item = {CONSUMER("theirs", .events = READABLE),
			      CONSUMER("ours", .events = READABLE)});
	for (unsigned i = 0; i < N_TIMES; ++i) {
		waiter_begin(&waiter, i);
		publish_as_other(&other, &waiter);
	}

	waiter_begin(&waiter, N_TIMES);
	publish(producer);
	ASSERT_WAITED(&waiter, 1, READABLE);

	waiter_end(&waiter);
	actor_kill(&other);
	ipc_watch_producer_close(producer);
}

/* M-29 */
Test(wait_foreign, channels_of_two_users_wake_at_once)
{
	wait_for_values(false);
}

/* M-29 */
Test(wait_foreign, channels_of_two_users_ring_at_once)
{
	wait_for_values(true);
}

/* M-29: told in the table of the channel's owner */
Test(wait_foreign, death_of_another_user_is_told_at_once)
{
	ipc_watch_producer *producer;
	struct actor other, waiter;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	WAKES_TELL();
	producer = producer_new("ours");
	start_other(&other);
	WAITER_START(&waiter, .n = 2,
		     .item = {CONSUMER("ours", .events = GONE),
			      CONSUMER("theirs", .events = GONE, .flags = IPC_STAY)});
	for (unsigned i = 0; i < N_TIMES; ++i) {
		uint64_t began;

		waiter_begin(&waiter, 0);
		began = clock_now_ns();
		actor_kill(&other);
		ASSERT_WAITED(&waiter, 1, GONE);
		ASSERT_WOKEN(began);
		start_other(&other);
	}

	waiter_end(&waiter);
	actor_kill(&other);
	ipc_watch_producer_close(producer);
}
