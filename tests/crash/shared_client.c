/* SPDX-License-Identifier: MIT */
/*
 * shared through the public interface, killed at every instruction, with a broker that tells the
 * death: a live peer's wait ends with the right result, and not by its slice; the value is the last
 * committed one.
 */
#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "tests/support/domain.h"
#include "tests/support/failure.h"
#include "tests/support/shared_steps.h"

static struct domain domain;

/* Of each process its own. */
static ipc_client *client;
static ipc_shared *shared;

static void must(int r, const char *what)
{
	if (r < 0)
		failure("%s: %s", what, ipc_error_name(r));
}

static void side_open(bool is_a, bool in_place)
{
	struct timespec deadline = domain_deadline(30000);
	const struct ipc_shared_options *options =
		IPC_SHARED_OPTIONS(.flags = IPC_CREATE | (in_place ? IPC_SHARED_IN_PLACE : 0),
				   .value_size = SHARED_STEPS_VALUE_SIZE);

	client = domain_connect(&domain);
	must(ipc_shared_open_wait(&shared, client, "crash/shared", is_a ? IPC_SIDE_A : IPC_SIDE_B,
				  options, &deadline),
	     "open");
}

static int side_lock(const void **ret_value)
{
	return ipc_shared_lock_wait(shared, ret_value, NULL);
}

static int side_lock_when(bool (*predicate)(const void *, size_t, void *), void *userdata,
			  const void **ret_value)
{
	return ipc_shared_lock_when_wait(shared, predicate, userdata, ret_value, NULL);
}

static int side_edit(void **ret_value)
{
	return ipc_shared_edit(shared, ret_value);
}

static int side_commit(void)
{
	return ipc_shared_commit(shared);
}

static int side_unlock(void)
{
	return ipc_shared_unlock(shared);
}

static int side_mark_consistent(void)
{
	return ipc_shared_mark_consistent(shared);
}

/* The next child opens before the peer begins to wait; what is left of the last one must not be
 * found then. */
static void side_next(void)
{
	struct timespec deadline = domain_deadline(30000);

	must(ipc_shared_peers_wait(shared, false, &deadline), "the end of the dead side");
}

static const struct shared_side side = {
	.open = side_open,
	.lock = side_lock,
	.lock_when = side_lock_when,
	.edit = side_edit,
	.commit = side_commit,
	.unlock = side_unlock,
	.mark_consistent = side_mark_consistent,
	.next = side_next,
};

static void setup(void)
{
	domain_start(&domain, NULL);
}

static void teardown(void)
{
	ipc_shared_close(shared);
	ipc_client_unref(client);
	domain_stop(&domain);
}

TestSuite(shared_client, .init = setup, .fini = teardown, .timeout = 700);

static void run(enum shared_scene_name name, bool in_place)
{
	long n_points = shared_steps_run(&side, name, in_place, 1);

	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 20);
}

/* S-1, S-2, S-4, M-21, M-25 */
Test(shared_client, killed_in_lock_edit_commit)
{
	run(SHARED_EDIT_COMMIT, false);
}

/* S-2 */
Test(shared_client, killed_in_lock_edit_unlock)
{
	run(SHARED_EDIT_UNLOCK, false);
}

/* S-4, S-5 */
Test(shared_client, killed_in_lock_when_that_holds)
{
	run(SHARED_WHEN_HOLDS, false);
}

/* M-25, M-27, M-33 */
Test(shared_client, killed_in_commit_with_the_peer_waiting_for_the_lock)
{
	run(SHARED_COMMIT_CONTENDED, false);
}

/* S-3, S-10 */
Test(shared_client, killed_in_place_in_lock_edit_commit)
{
	run(SHARED_EDIT_COMMIT, true);
}

/* S-3, S-10 */
Test(shared_client, killed_in_place_in_mark_and_commit)
{
	run(SHARED_MARK_COMMIT, true);
}

/*
 * S-5, M-26.  The looks before a sleep are some thousand instructions, most of them the same again
 * and again (each of them once: crash/shared.c): every fifth, from another start in each run.
 */
Test(shared_client, killed_in_lock_when_that_sleeps)
{
	long n_points = shared_steps_run(&side, SHARED_WHEN_ASLEEP, false, 5);

	cr_expect_gt(n_points, 20);
}
