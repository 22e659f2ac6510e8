/* SPDX-License-Identifier: MIT */
/*
 * open and close, killed at every few instructions, with peers that wait: for the name, for the
 * space that the dead one was reserving, for the other side.  A broker runs.
 */
#include <criterion/criterion.h>
#include <ipc/ipc.h>
#include <stdio.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/failure.h"
#include "tests/support/step.h"

/* An open is some ten thousand instructions, most of them copies and look-ups: every 11th, from
 * another start each run. */
enum { STRIDE = 11, VALUE_SIZE = 64, PATIENCE_MS = 10000 };

static struct domain domain;
static ipc_client *client;
static long iteration;

/* Of the child that is killed. */
static ipc_client *victim_client;
static ipc_shared *victim;

static struct actor waiter;
static ipc_shared *survivor;

static void must(int r, const char *what)
{
	if (r < 0)
		failure("%s: %s", what, ipc_error_name(r));
}

static const char *name_now(void)
{
	static char name[48];

	snprintf(name, sizeof(name), "crash/open/%ld", iteration);
	return name;
}

static ipc_shared *open_side(ipc_client *c, enum ipc_side side, uint64_t flags)
{
	struct timespec deadline = domain_deadline(PATIENCE_MS);
	ipc_shared *shared;

	must(ipc_shared_open_wait(&shared, c, name_now(), side,
				  IPC_SHARED_OPTIONS(.flags = flags, .value_size = VALUE_SIZE),
				  &deadline),
	     "open");
	return shared;
}

static void setup(void)
{
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
}

static void teardown(void)
{
	client = ipc_client_unref(client);
	domain_stop(&domain);
}

TestSuite(open, .init = setup, .fini = teardown, .timeout = 300);

static void victim_connect(void *arg)
{
	(void)arg;
	victim_client = domain_connect(&domain);
}

static void victim_create(void *arg)
{
	(void)arg;
	victim = open_side(victim_client, IPC_SIDE_A, IPC_CREATE);
}

/* Waits for the name that the victim is about to make, and says how its first lock went. */
static void await_name(struct actor *self, void *arg)
{
	ipc_client *c = domain_connect(&domain);
	const void *value;
	ipc_shared *shared;

	(void)arg;
	actor_say(self, 0);
	shared = open_side(c, IPC_SIDE_B, IPC_AWAIT);
	must(ipc_shared_lock_wait(shared, &value, NULL), "lock");
	actor_say(self, ipc_shared_unlock(shared));
	(void)actor_hear(self);
}

static void waiter_start(void)
{
	actor_start(&waiter, await_name, NULL);
	(void)actor_hear(&waiter);
}

/* Whatever the victim left, the next creator gets a whole channel of zero bytes, and so does who
 * waited for the name. */
static void check_created(void *arg, long n)
{
	struct timespec deadline = domain_deadline(PATIENCE_MS);
	static const unsigned char zeros[VALUE_SIZE];
	struct ipc_channel_info info = {.size = sizeof(info)};
	ipc_shared *shared = open_side(client, IPC_SIDE_A, IPC_CREATE);
	const void *value;

	(void)arg;
	must(ipc_shared_lock_wait(shared, &value, &deadline), "lock");
	cr_assert_arr_eq(value, zeros, VALUE_SIZE, "the value is not of zero bytes, killed at %ld",
			 n);
	must(ipc_shared_unlock(shared), "unlock");
	cr_assert_geq(actor_hear(&waiter), 0, "who waited for the name, killed at %ld", n);

	must(ipc_channel_info_wait(client, name_now(), &info, &deadline), "info");
	cr_assert_leq(info.handles[0], 2);
	cr_assert_eq(info.handles[1], 1);

	actor_kill(&waiter);
	(void)ipc_shared_close(shared);
	++iteration;
	waiter_start();
}

/* M-2, M-25, M-43, M-52 */
Test(open, killed_creator_leaves_a_channel_that_others_can_use)
{
	const struct step_case step = {.prepare = victim_connect,
				       .operation = victim_create,
				       .check = check_created,
				       .stride = STRIDE};
	long n_points;

	waiter_start();
	n_points = step_run(&step, NULL);
	actor_kill(&waiter);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 50);
}

/* ---- close ---- */

static void victim_open(void *arg)
{
	victim_connect(arg);
	victim = open_side(victim_client, IPC_SIDE_A, 0);

	/* The waiter has seen this side come; now it sleeps until the side goes. */
	(void)actor_hear(&waiter);
	actor_until_asleep(&waiter);
}

static void victim_close(void *arg)
{
	(void)arg;
	victim = ipc_shared_close(victim);
}

static bool never(const void *value, size_t size, void *userdata)
{
	(void)value;
	(void)size;
	(void)userdata;
	return false;
}

/* Waits for side A to come, says so to the kernel by sleeping, and then for a value that never
 * comes. */
static void await_end(struct actor *self, void *arg)
{
	ipc_shared *shared = open_side(domain_connect(&domain), IPC_SIDE_B, 0);
	const void *value;
	int r;

	(void)arg;
	actor_say(self, 0);
	do {
		must(ipc_shared_peers_wait(shared, true, NULL), "peers_wait");
		actor_say(self, 1);
		r = ipc_shared_lock_when_wait(shared, never, NULL, &value, NULL);
		actor_say(self, r);
	} while (actor_hear(self) == 0);
}

/* Closed or died, whichever the victim got to: the wait ended, and with one of these. */
static void check_closed(void *arg, long n)
{
	struct timespec deadline = domain_deadline(PATIENCE_MS);
	int64_t r = actor_hear(&waiter);

	(void)arg;
	cr_assert(r == IPC_EPIPE || r == IPC_EOWNERDEAD, "ended with %s, killed at %ld",
		  ipc_error_name((int)r), n);
	must(ipc_shared_peers_wait(survivor, false, &deadline), "the end of the victim's side");
	actor_say(&waiter, 0);
}

/* M-22, M-25, M-44 */
Test(open, killed_closer_ends_the_waits_for_its_side)
{
	const struct step_case step = {.prepare = victim_open,
				       .operation = victim_close,
				       .check = check_closed,
				       .stride = 3};
	long n_points;

	survivor = open_side(client, IPC_SIDE_B, IPC_CREATE);
	actor_start(&waiter, await_end, NULL);
	(void)actor_hear(&waiter);

	n_points = step_run(&step, NULL);

	actor_kill(&waiter);
	survivor = ipc_shared_close(survivor);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 20);
}
