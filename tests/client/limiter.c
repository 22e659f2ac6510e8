/* SPDX-License-Identifier: MIT */
/*
 * limiter through the public interface, with a broker: opening, acquiring and releasing, and what
 * is told.  Waits are in limiter_wait.c, windows in limiter_window.c.
 */
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "tests/client/limiter_scene.h"

TestSuite(limiter, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- opening ---- */

static int open_with(struct ipc_limiter_options options)
{
	ipc_limiter *limiter = NULL;
	int r = limiter_open(&limiter, fixture_client, NAME, options);

	ipc_limiter_close(limiter);
	return r;
}

#define OPEN(...) open_with((struct ipc_limiter_options){__VA_ARGS__})

/* M-41, M-22, L-6 */
Test(limiter, options_that_break_a_rule_are_refused)
{
	EXPECT(OPEN(.flags = IPC_CREATE | IPC_STAY), IPC_EINVAL);
	EXPECT(OPEN(.flags = IPC_CREATE | 0x1000000), IPC_EINVAL);
	EXPECT(OPEN(.flags = IPC_EXCLUSIVE), IPC_EINVAL);
	EXPECT(OPEN(.flags = IPC_CREATE | IPC_KEEP, .window_units = 1), IPC_EINVAL);
	EXPECT(OPEN(.flags = IPC_CREATE | IPC_KEEP, .window_ns = 1), IPC_EINVAL);
	EXPECT(OPEN(.flags = IPC_CREATE, .window_units = 1, .window_ns = 1), IPC_EINVAL);
	EXPECT(OPEN(.flags = IPC_CREATE, .mode = 01600), IPC_EINVAL);
	EXPECT(OPEN(0), IPC_ENOENT);
}

/* M-74 */
Test(limiter, arguments_that_are_not_there_are_refused)
{
	ipc_limiter *limiter = LIMITER_NEW(0);
	struct ipc_limiter_grant grant;

	EXPECT(ipc_limiter_open_wait(NULL, fixture_client, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_limiter_open_wait(&limiter, NULL, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_limiter_open_wait(&limiter, fixture_client, NULL, NULL, NULL), IPC_EINVAL);
	EXPECT(acquire(NULL, 1, &grant), IPC_EINVAL);
	EXPECT(acquire(limiter, 1, NULL), IPC_EINVAL);
	EXPECT(acquire_in(limiter, 1, 1, NULL), IPC_EINVAL);
	EXPECT(release(limiter, NULL), IPC_EINVAL);
	EXPECT(ipc_limiter_get_state(limiter, NULL), IPC_EINVAL);
	EXPECT(ipc_limiter_get_id(limiter, NULL), IPC_EINVAL);
	EXPECT(ipc_limiter_cancel(NULL), IPC_EINVAL);
	cr_expect_null(ipc_limiter_close(NULL));

	ipc_limiter_close(limiter);
}

/* M-43 */
Test(limiter, another_shape_is_refused)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 3, .per_user_max = 2);
	ipc_watch_producer *producer = NULL;

	EXPECT(OPEN(0), 0);
	EXPECT(OPEN(.permits = 3), 0);
	EXPECT(OPEN(.per_user_max = 2), 0);
	EXPECT(OPEN(.permits = 4), IPC_EPROTOTYPE);
	EXPECT(OPEN(.per_user_max = 3), IPC_EPROTOTYPE);
	EXPECT(OPEN(.window_units = 1, .window_ns = 1), IPC_EPROTOTYPE);
	EXPECT(OPEN(.flags = IPC_KEEP), IPC_EPROTOTYPE);
	EXPECT(OPEN(.flags = IPC_CREATE | IPC_EXCLUSIVE), IPC_EEXIST);
	EXPECT(produce(&producer, NAME, IPC_CREATE), IPC_EPROTOTYPE);

	ipc_limiter_close(limiter);
}

/* M-43 */
Test(limiter, ends_with_its_last_handle)
{
	ipc_limiter *limiter = LIMITER_NEW(0);

	ipc_limiter_close(limiter);

	cr_expect_not(exists(NAME));
}

/* ---- acquire, release ---- */

/* L-1 */
Test(limiter, permits_are_counted_over_all_handles)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 3);
	struct ipc_limiter_grant grant = {.reserved = 7}, second;
	struct actor other;

	caller_start(&other);
	ASSERT(order_do(&other, ORDER_ACQUIRE, 2), 0);
	EXPECT(acquire(limiter, 2, &grant), IPC_EAGAIN);
	cr_expect_eq(grant.reserved, 7, "written on failure");
	ASSERT(acquire(limiter, 1, &grant), 0);
	cr_expect_eq(grant.permits, 1);
	cr_expect_eq(grant.reserved, 0);
	EXPECT(acquire(limiter, 1, &second), IPC_EAGAIN);
	EXPECT(state_of(limiter).n_held, 3);
	EXPECT(state_of(limiter).n_free, 0);

	EXPECT(order_do(&other, ORDER_RELEASE, 0), 0);
	EXPECT(acquire(limiter, 2, &second), 0);
	EXPECT(release(limiter, &grant), 0);
	EXPECT(release(limiter, &second), 0);
	EXPECT(state_of(limiter).n_free, 3);

	actor_kill(&other);
	ipc_limiter_close(limiter);
}

/* L-1: one is the default. */
Test(limiter, what_can_never_be_had_is_refused)
{
	ipc_limiter *limiter = LIMITER_NEW(0);
	struct ipc_limiter_grant grant;

	EXPECT(acquire(limiter, 0, &grant), IPC_EINVAL);
	EXPECT(acquire(limiter, 2, &grant), IPC_EMSGSIZE);
	EXPECT(acquire_in(limiter, 0, 1, &grant), IPC_EINVAL);
	EXPECT(acquire_in(limiter, 2, WAIT_MS, &grant), IPC_EMSGSIZE);
	EXPECT(acquire(limiter, 1, &grant), 0);

	ipc_limiter_close(limiter);
}

/* L-2, L-7 */
Test(limiter, a_grant_is_good_once_and_in_its_handle)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 3), *same = NULL, *other = NULL;
	struct ipc_limiter_grant grant, theirs, made_up = {.id = 1, .permits = 1};
	struct actor process;

	ASSERT(limiter_open(&same, fixture_client, NAME, (struct ipc_limiter_options){0}), 0);
	ASSERT(limiter_open(&other, fixture_client, "other",
			    (struct ipc_limiter_options){.flags = IPC_CREATE, .permits = 3}),
	       0);
	caller_start(&process);
	ASSERT(acquire(other, 1, &theirs), 0);
	ASSERT(acquire(limiter, 1, &grant), 0);
	ASSERT(order_do(&process, ORDER_ACQUIRE, 1), 0);

	EXPECT(release(same, &grant), IPC_ESTALE);
	EXPECT(release(other, &grant), IPC_ESTALE);
	EXPECT(order_do(&process, ORDER_RELEASE_OURS, (int64_t)grant.id), IPC_ESTALE);
	EXPECT(release(limiter, &made_up), IPC_ESTALE);
	EXPECT(release(limiter, &theirs), IPC_ESTALE);
	EXPECT(state_of(limiter).n_held, 2);

	EXPECT(release(limiter, &grant), 0);
	EXPECT(release(limiter, &grant), IPC_ESTALE);
	ASSERT(acquire(limiter, 1, &made_up), 0);
	EXPECT(release(limiter, &grant), IPC_ESTALE);
	EXPECT(state_of(limiter).n_held, 2);

	actor_kill(&process);
	ipc_limiter_close(other);
	ipc_limiter_close(same);
	ipc_limiter_close(limiter);
}

struct release_here {
	ipc_limiter *limiter;
	struct ipc_limiter_grant grant;
	int result;
};

static void *release_here(void *arg)
{
	struct release_here *task = arg;

	task->result = release(task->limiter, &task->grant);
	return NULL;
}

/* L-7 */
Test(limiter, any_thread_may_release_and_one_of_two_does)
{
	struct release_here tasks[2] = {{.limiter = LIMITER_NEW(0)}};

	tasks[1].limiter = tasks[0].limiter;
	for (unsigned i = 0; i < 200; ++i) {
		pthread_t threads[2];

		ASSERT(acquire(tasks[0].limiter, 1, &tasks[0].grant), 0);
		tasks[1].grant = tasks[0].grant;
		for (unsigned n = 0; n < 2; ++n)
			cr_assert_eq(pthread_create(&threads[n], NULL, release_here, &tasks[n]), 0);
		for (unsigned n = 0; n < 2; ++n)
			cr_assert_eq(pthread_join(threads[n], NULL), 0);

		cr_assert(tasks[0].result + tasks[1].result == IPC_ESTALE, "%d and %d",
			  tasks[0].result, tasks[1].result);
		ASSERT(state_of(tasks[0].limiter).n_free, 1);
	}
	ipc_limiter_close(tasks[0].limiter);
}

/* Many grants at once, more than one row of seats. */
Test(limiter, a_handle_may_hold_many_grants)
{
	enum { N = 300 };
	static struct ipc_limiter_grant grants[N];
	ipc_limiter *limiter = LIMITER_NEW(.permits = N);

	for (unsigned i = 0; i < N; ++i)
		ASSERT(acquire(limiter, 1, &grants[i]), 0);
	EXPECT(acquire(limiter, 1, &grants[0]), IPC_EAGAIN);
	for (unsigned i = 0; i < N; ++i)
		ASSERT(release(limiter, &grants[(i * 7) % N]), 0);
	EXPECT(state_of(limiter).n_free, N);

	ipc_limiter_close(limiter);
}

/* Places for more grants at once than a limiter has. */
Test(limiter, without_a_place_it_says_so)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 100000);
	struct ipc_limiter_grant grant;
	unsigned n = 0;
	int r;

	do
		r = acquire(limiter, 1, &grant);
	while (r == 0 && ++n < 100000);

	EXPECT(r, IPC_ENOSPC);
	EXPECT(n, 8192);
	ASSERT(release(limiter, &grant), 0);
	EXPECT(acquire(limiter, 1, &grant), 0);
	ipc_limiter_close(limiter);
}

/* M-44, L-2 */
Test(limiter, close_releases)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2), *other = NULL;
	struct ipc_limiter_grant grant;

	ASSERT(limiter_open(&other, fixture_client, NAME, (struct ipc_limiter_options){0}), 0);
	ASSERT(acquire(limiter, 2, &grant), 0);

	ipc_limiter_close(limiter);

	EXPECT(acquire(other, 2, &grant), 0);
	ipc_limiter_close(other);
}

/* Rows of seats are given back: more handles than there are rows, one after the other. */
Test(limiter, handles_leave_no_trace)
{
	ipc_limiter *limiter = LIMITER_NEW(0);
	struct ipc_limiter_grant grant;

	for (unsigned i = 0; i < 1100; ++i) {
		ipc_limiter *other = NULL;

		ASSERT(limiter_open(&other, fixture_client, NAME, (struct ipc_limiter_options){0}),
		       0);
		ASSERT(acquire(other, 1, &grant), 0);
		ipc_limiter_close(other);
	}
	EXPECT(acquire(limiter, 1, &grant), 0);
	ipc_limiter_close(limiter);
}

/* M-46 */
Test(limiter, state_is_written_as_far_as_it_is_known)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 5);
	struct ipc_limiter_state state = {.size = sizeof(size_t) - 1, .n_free = 77};

	EXPECT(ipc_limiter_get_state(limiter, &state), IPC_EINVAL);
	state.size = offsetof(struct ipc_limiter_state, n_held);
	state.n_held = 66;
	EXPECT(ipc_limiter_get_state(limiter, &state), 0);
	cr_expect_eq(state.n_free, 5);
	cr_expect_eq(state.n_held, 66);

	ipc_limiter_close(limiter);
}

/* ---- users ---- */

/* L-1, M-54 */
Test(limiter, users_have_bounds_of_their_own)
{
	ipc_limiter *limiter;
	struct ipc_limiter_grant grant, second;
	struct actor other;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	limiter = LIMITER_NEW(.permits = 5, .per_user_max = 2, .mode = 0666);
	caller_start_as(&other, OTHER_UID);
	EXPECT(acquire(limiter, 3, &grant), IPC_EMSGSIZE);
	ASSERT(acquire(limiter, 2, &grant), 0);
	EXPECT(acquire(limiter, 1, &second), IPC_EBUSY);

	EXPECT(order_do(&other, ORDER_ACQUIRE, 2), 0);
	EXPECT(order_do(&other, ORDER_ACQUIRE, 1), IPC_EBUSY);
	actor_kill(&other);
	EXPECT(release(limiter, &grant), 0);
	EXPECT(acquire(limiter, 2, &grant), 0);

	ipc_limiter_close(limiter);
}

/* M-50 */
Test(limiter, rights_are_those_of_the_mode)
{
	struct caller_plan plan = {.name = NAME, .uid = OTHER_UID};
	ipc_limiter *limiter;
	struct actor other;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	limiter = LIMITER_NEW(.mode = 0644);
	actor_start(&other, caller_run, &plan);
	EXPECT(actor_hear(&other), IPC_EACCES);

	actor_kill(&other);
	ipc_limiter_close(limiter);
}

/* ---- system calls ---- */

static void run_without_system_calls(void)
{
	ipc_client *own = domain_connect(&fixture_domain);
	struct ipc_limiter_grant grant;
	ipc_limiter *limiter;
	int bad = 0;

	if (limiter_open(&limiter, own, NAME,
			 (struct ipc_limiter_options){.flags = IPC_CREATE, .permits = 2}))
		process_end(10);

	/* The first time a thread and a handle take what they keep. */
	for (unsigned round = 0; round < 3; ++round) {
		if (round == 1 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0)
			process_end(11);
		for (unsigned i = 0; i < 100; ++i) {
			bad += acquire(limiter, 1 + i % 2, &grant) != 0;
			bad += release(limiter, &grant) != 0;
			bad += ipc_limiter_acquire_wait(limiter, 2, &grant, NULL) != 0;
			bad += acquire(limiter, 1, &grant) != IPC_EAGAIN;
			bad += release(limiter, &grant) != 0;
			bad += state_of(limiter).n_free != 2;
		}
	}

	/* exit_group is not let through. */
	syscall(SYS_exit, bad);
}

/* L-5, M-4 */
Test(limiter, acquire_and_release_make_no_system_call)
{
	pid_t pid = process_fork();
	int status;

	if (pid == 0)
		run_without_system_calls();

	status = process_reap(pid, WAIT_MS);
	cr_expect_eq(status, 0, "ended with %d: %s", status,
		     status == 128 + SIGKILL ? "it made a system call" : "its calls failed");
}

/* ---- what is told ---- */

static int remember(const struct ipc_handle_info *info, void *userdata)
{
	struct ipc_handle_info *infos = userdata;

	for (unsigned i = 0; i < 3; ++i) {
		if (infos[i].handle_id == 0) {
			infos[i] = *info;
			return 0;
		}
	}
	return 1;
}

/* L-4, M-45 */
Test(limiter, holders_and_waiters_are_listed)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 4);
	struct ipc_handle_info infos[3] = {0};
	struct ipc_channel_info info;
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct actor holder, waiter;
	int64_t holder_id;

	caller_start(&holder);
	caller_start(&waiter);
	holder_id = order_do(&holder, ORDER_ID, 0);
	ASSERT(order_do(&holder, ORDER_ACQUIRE, 1), 0);
	ASSERT(order_do(&holder, ORDER_ACQUIRE, 2), 0);
	order_begin(&waiter, ORDER_ACQUIRE_WAIT, 2);
	actor_until_asleep(&waiter);

	ASSERT(info_of(NAME, &info), 0);
	cr_expect_eq(info.kind, IPC_KIND_LIMITER);
	cr_expect_eq(info.capacity, 4);
	cr_expect_eq(info.depth, 3, "depth %lu", (unsigned long)info.depth);
	cr_expect_eq(info.depth_max, 3);
	cr_expect_eq(info.handles[0], 3);
	cr_expect_eq(info.waiters, 1);
	cr_expect_eq(info.holder_id, (uint64_t)holder_id);
	cr_expect_eq(info.holder_pid, holder.pid);

	ASSERT(ipc_client_list_handles_wait(fixture_client, NAME, remember, infos, &deadline), 0);
	for (unsigned i = 0; i < 3; ++i) {
		cr_expect_eq(infos[i].role, IPC_ROLE_LIMITER);
		if (infos[i].pid == holder.pid) {
			cr_expect_eq(infos[i].holds, IPC_HOLDS_PERMITS);
			cr_expect_eq(infos[i].n_held, 3);
			cr_expect_lt(infos[i].held_ns, 60000 * MS);
		} else {
			cr_expect_eq(infos[i].holds, IPC_HOLDS_NOTHING);
			cr_expect_eq(infos[i].n_held, 0);
		}
		if (infos[i].pid == waiter.pid) {
			cr_expect_eq(infos[i].waiting_for, (uint64_t)holder_id);
			cr_expect_gt(infos[i].waiting_ns, 0);
		}
	}

	actor_kill(&holder);
	ASSERT(actor_hear(&waiter), 0);
	ASSERT(info_of(NAME, &info), 0);
	cr_expect_eq(info.depth, 2);
	cr_expect_eq(info.depth_max, 3);
	actor_kill(&waiter);
	ipc_limiter_close(limiter);
}

/* ---- fork, fences ---- */

/* M-42 */
Test(limiter, a_forked_child_has_no_part_in_it)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct ipc_limiter_grant grant;
	pid_t pid;

	ASSERT(acquire(limiter, 1, &grant), 0);
	pid = process_fork();
	if (pid == 0) {
		int bad = acquire(limiter, 1, &grant) != IPC_ECHILD;

		bad += release(limiter, &grant) != IPC_ECHILD;
		ipc_limiter_close(limiter);
		process_end(bad);
	}
	EXPECT(process_reap(pid, WAIT_MS), 0);

	EXPECT(state_of(limiter).n_held, 1);
	EXPECT(release(limiter, &grant), 0);
	ipc_limiter_close(limiter);
}

/* M-24, L-2 */
Test(limiter, a_process_that_closed_its_descriptors_holds_nothing)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct ipc_limiter_grant grant;
	struct actor other;
	int64_t id;

	caller_start(&other);
	id = order_do(&other, ORDER_ID, 0);
	ASSERT(order_do(&other, ORDER_ACQUIRE, 2), 0);
	ASSERT(order_do(&other, ORDER_CLOSE_FDS, 0), 0);
	until_not_alive((uint64_t)id);

	EXPECT(acquire(limiter, 2, &grant), 0);
	EXPECT(order_do(&other, ORDER_RELEASE, 0), IPC_ESTALE);
	EXPECT(order_do(&other, ORDER_ACQUIRE, 1), IPC_ESTALE);
	EXPECT(order_do(&other, ORDER_CLOSE, 0), 0);
	EXPECT(state_of(limiter).n_held, 2);

	actor_kill(&other);
	ipc_limiter_close(limiter);
}
