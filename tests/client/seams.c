/* SPDX-License-Identifier: MIT */

/*
 * Between library and broker: what happens when one of the two is slow, and where the memory of one
 * user is mapped by another.
 */

#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "libipc/wire/codec.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/standin.h"

TestSuite(seams, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- a broker that is slow ---- */

static int count_one(const struct ipc_channel_info *info, void *userdata)
{
	(void)info;
	++*(unsigned *)userdata;
	return 0;
}

/* M-24: whoever was slow to read answers is alive; nothing of it ends, and it can ask again. */
Test(seams, answers_that_nobody_reads_end_nothing)
{
	enum { N_CHANNELS = 16, N_LISTS = 400 };
	ipc_shared *shared[N_CHANNELS], *peer;
	ipc_client *other = domain_connect(&fixture_domain);
	pid_t worker = domain_worker(&fixture_domain);
	struct timespec deadline;
	unsigned n = 0;
	char name[16];

	for (unsigned i = 0; i < N_CHANNELS; ++i) {
		snprintf(name, sizeof(name), "s%u", i);
		shared[i] = shared_new(name, IPC_SIDE_A);
	}
	deadline = domain_deadline(WAIT_MS);
	cr_assert_eq(ipc_shared_open_wait(&peer, other, "s0", IPC_SIDE_B, NULL, &deadline), 0);

	/* Requests whose answers come when nobody waits for them any more, until there is no room
	 * for another one. */
	cr_assert_eq(kill(worker, SIGSTOP), 0);
	for (unsigned i = 0; i < N_LISTS; ++i) {
		deadline = domain_deadline(1);
		cr_assert_eq(ipc_client_list_wait(fixture_client, "*", count_one, &n, &deadline),
			     IPC_ETIMEDOUT);
	}
	cr_assert_eq(kill(worker, SIGCONT), 0);

	/* The other client is served, so the first one's requests had their turn. */
	for (unsigned i = 0; i < N_CHANNELS; ++i) {
		deadline = domain_deadline(WAIT_MS);
		cr_assert_eq(ipc_client_list_wait(other, "*", count_one, &n, &deadline), 0);
	}
	cr_assert_eq(ipc_shared_peers(peer), 1, "its handles are open");

	n = 0;
	deadline = domain_deadline(WAIT_MS);
	cr_assert_eq(ipc_client_list_wait(fixture_client, "*", count_one, &n, &deadline), 0);
	cr_assert_eq(n, N_CHANNELS);
	cr_assert_eq(ipc_shared_peers(shared[0]), 1);

	for (unsigned i = 0; i < N_CHANNELS; ++i)
		ipc_shared_close(shared[i]);
	ipc_shared_close(peer);
	ipc_client_unref(other);
}

/* ---- another user's memory ---- */

#define UID_A 61001

static void hold_two(struct actor *self, void *arg)
{
	ipc_watch_producer *first, *second = NULL;
	ipc_client *own;
	int r;

	(void)arg;
	if (setgroups(0, NULL) < 0 || setgid(UID_A) < 0 || setuid(UID_A) < 0)
		process_end(2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);

	own = domain_connect(&fixture_domain);
	r = ipc_watch_producer_open_wait(&first, own, "first",
					 IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL);
	if (r == 0)
		r = ipc_watch_producer_open_wait(&second, own, "second",
						 IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL);
	actor_say(self, r);
	(void)actor_hear(self);
	actor_say(self, ipc_watch_publish(second, "x", 1));
	(void)actor_hear(self);
}

/* M-50: root reads what is private to others, whichever slot the channel has. */
Test(seams, root_consumes_what_is_private_to_another_user)
{
	ipc_watch_consumer *consumers[2];
	struct timespec deadline = domain_deadline(WAIT_MS);
	uint64_t version = 0;
	struct actor holder;

	/* A test that is skipped is not torn down. */
	if (geteuid() != 0) {
		fixture_teardown();
		cr_skip_test("needs root");
	}

	actor_start(&holder, hold_two, NULL);
	cr_assert_eq(actor_hear(&holder), 0);

	cr_assert_eq(ipc_watch_consumer_open_wait(&consumers[0], fixture_client, "first", NULL,
						  &deadline),
		     0);
	cr_assert_eq(ipc_watch_consumer_open_wait(&consumers[1], fixture_client, "second", NULL,
						  &deadline),
		     0);
	actor_say(&holder, 0);
	cr_assert_eq(actor_hear(&holder), 0);
	cr_assert_eq(ipc_watch_read_wait(consumers[1], &(char){0}, 1, NULL, &version, &deadline),
		     0);

	actor_kill(&holder);
	cr_assert_eq(ipc_watch_read_wait(consumers[1], &(char){0}, 1, NULL, &version, &deadline),
		     IPC_EOWNERDEAD);
	ipc_watch_consumer_close(consumers[0]);
	ipc_watch_consumer_close(consumers[1]);
}

/* ---- a broker that talks ---- */

static struct standin standin;

enum { N_TALKERS = 4 };

static void run_talk(struct script *script)
{
	struct caller caller;

	caller_begin(&caller, script);
	for (unsigned i = 1; i < N_TALKERS && process_fork() > 0; ++i)
		;
	for (;;) {
		union message message;

		message_init(&message, MESSAGE_DONE, UINT64_MAX);
		if (send(caller.fd, &message, message.head.size, MSG_NOSIGNAL) < 0)
			return;
	}
}

/* M-60: nobody awaits any of it, and the deadline is kept. */
Test(seams, a_broker_that_never_stops_talking_ends_no_deadline, .init = NULL, .fini = NULL)
{
	struct timespec deadline = process_deadline(30000), end;
	ipc_client *client = NULL;
	unsigned n = 0;

	standin_start(&standin, run_talk);
	cr_assert_eq(ipc_client_connect_wait(
			     &client, IPC_CLIENT_OPTIONS(.address = standin.address), &deadline),
		     0);

	deadline = process_deadline(100);
	end = process_deadline(30000);
	cr_assert_eq(ipc_client_list_wait(client, "*", count_one, &n, &deadline), IPC_ETIMEDOUT);
	cr_assert_not(process_has_passed(&end));

	ipc_client_unref(client);
	standin_stop(&standin);
}
