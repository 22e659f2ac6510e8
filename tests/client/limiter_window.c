/* SPDX-License-Identifier: MIT */
/*
 * limiter: at most so many units in a window of time.
 */
#include "tests/client/limiter_scene.h"

TestSuite(limiter_window, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

#define HOUR (UINT64_C(3600) * 1000 * MS)

static ipc_limiter *window_new(uint64_t units, uint64_t ns)
{
	return LIMITER_NEW(.flags = IPC_KEEP, .permits = 3, .window_units = units, .window_ns = ns);
}

static void use_up(ipc_limiter *limiter, uint64_t units)
{
	struct ipc_limiter_grant grant;

	while (units-- > 0) {
		ASSERT(acquire(limiter, 1, &grant), 0);
		ASSERT(release(limiter, &grant), 0);
	}
}

/* L-1, L-6 */
Test(limiter_window, what_is_used_is_told_and_refused)
{
	ipc_limiter *limiter = window_new(5, HOUR);
	struct ipc_limiter_grant grant;

	cr_expect_eq(state_of(limiter).window_left_ns, 0);
	use_up(limiter, 4);
	EXPECT(state_of(limiter).window_used, 4);
	cr_expect_gt(state_of(limiter).window_left_ns, HOUR / 2);
	EXPECT(acquire(limiter, 2, &grant), IPC_EDQUOT);
	EXPECT(acquire(limiter, 1, &grant), 0);
	EXPECT(ipc_limiter_release(limiter, &grant, true), 0);
	EXPECT(acquire(limiter, 1, &grant), 0);
	EXPECT(release(limiter, &grant), 0);
	EXPECT(acquire(limiter, 1, &grant), IPC_EDQUOT);

	ipc_limiter_close(limiter);
}

/* L-1: at once, unless the window ends before the deadline. */
Test(limiter_window, a_wait_does_not_wait_for_a_window_that_is_too_long)
{
	ipc_limiter *limiter = window_new(1, HOUR);
	struct ipc_limiter_grant grant;
	uint64_t began = clock_now_ns();

	use_up(limiter, 1);

	EXPECT(acquire_in(limiter, 1, WAIT_MS, &grant), IPC_EDQUOT);
	EXPECT(ipc_limiter_acquire_wait(limiter, 1, &grant, &past), IPC_EDQUOT);
	cr_expect_lt(clock_now_ns() - began, WAIT_MS * MS / 2);
	EXPECT(state_of(limiter).n_waiting, 0);
	ipc_limiter_close(limiter);
}

/* L-1, L-6 */
Test(limiter_window, a_wait_lasts_until_the_window_ends)
{
	ipc_limiter *limiter = window_new(2, 230 * MS);
	struct ipc_limiter_grant grant;
	uint64_t began = clock_now_ns();

	use_up(limiter, 2);
	EXPECT(acquire_in(limiter, 1, WAIT_MS, &grant), 0);

	cr_expect_geq(clock_now_ns() - began, 230 * MS);
	EXPECT(state_of(limiter).window_used, 1);
	ipc_limiter_close(limiter);
}

static void tell(ipc_limiter *limiter, struct actor *first, struct actor *second)
{
	struct ipc_limiter_grant grant;
	uint64_t began;

	ASSERT(acquire(limiter, 2, &grant), 0);
	order_begin(first, ORDER_ACQUIRE_WAIT, 2);
	until_waiting(limiter, 1);
	order_begin(second, ORDER_ACQUIRE_WAIT, 3);
	until_waiting(limiter, 2);
	actor_until_asleep(second);

	began = clock_now_ns();
	ASSERT(release(limiter, &grant), 0);
	ASSERT(actor_hear(second), IPC_EDQUOT);
	ASSERT_WOKEN(began);
	ASSERT(actor_hear(first), 0);
	EXPECT(state_of(limiter).window_used, 4);
	EXPECT(state_of(limiter).n_waiting, 0);
}

/* L-1: also one who waits for permits is told at once when its units are gone. */
Test(limiter_window, who_waits_is_told_when_its_units_are_gone)
{
	WAKES_TELL();
	for (unsigned i = 0; i < 5; ++i) {
		ipc_limiter *limiter = window_new(5, HOUR);
		struct actor first, second;

		caller_start(&first);
		caller_start(&second);
		tell(limiter, &first, &second);
		actor_kill(&first);
		actor_kill(&second);
		ASSERT(take_away(NAME, 0), 0);
		ipc_limiter_close(limiter);
	}
}

/* L-6, L-2: it survives all users, and what they used stays used. */
Test(limiter_window, survives_all_users_and_the_broker)
{
	ipc_limiter *limiter = window_new(5, HOUR);
	struct ipc_limiter_grant grant;
	struct actor other;

	use_up(limiter, 1);
	caller_start(&other);
	ASSERT(order_do(&other, ORDER_ACQUIRE, 2), 0);
	ipc_limiter_close(limiter);
	actor_kill(&other);
	domain_kill_worker(&fixture_domain);
	domain_kill_keeper(&fixture_domain);

	cr_assert(exists(NAME));
	ASSERT(limiter_open(&limiter, fixture_client, NAME, (struct ipc_limiter_options){0}), 0);
	EXPECT(state_of(limiter).window_used, 3);
	EXPECT(state_of(limiter).n_free, 3);
	EXPECT(acquire(limiter, 3, &grant), IPC_EDQUOT);
	EXPECT(acquire(limiter, 2, &grant), 0);

	/* M-43: removed, it ends as others do. */
	ASSERT(take_away(NAME, 0), 0);
	ipc_limiter_close(limiter);
	cr_expect_not(exists(NAME));
}

/* M-43, M-48: kept without a handle, and removed then. */
Test(limiter_window, a_kept_limiter_can_be_removed)
{
	ipc_limiter *limiter = LIMITER_NEW(.flags = IPC_KEEP);
	struct ipc_channel_info info;

	ipc_limiter_close(limiter);
	ASSERT(info_of(NAME, &info), 0);
	cr_expect_eq(info.flags, IPC_KEEP);
	cr_expect_eq(info.handles[0], 0);

	ASSERT(take_away(NAME, 0), 0);
	cr_expect_not(exists(NAME));
}

/* L-6, M-43 */
Test(limiter_window, shapes_of_windows_are_compared)
{
	ipc_limiter *limiter = window_new(5, HOUR), *second = NULL;

	EXPECT(limiter_open(&second, fixture_client, NAME,
			    (struct ipc_limiter_options){.window_units = 6, .window_ns = HOUR}),
	       IPC_EPROTOTYPE);
	EXPECT(limiter_open(&second, fixture_client, NAME,
			    (struct ipc_limiter_options){.window_units = 5, .window_ns = HOUR}),
	       0);

	ipc_limiter_close(second);
	ipc_limiter_close(limiter);
}

/* M-34: time alone makes it ready, and not a slice later. */
Test(limiter_window, wait_any_is_woken_by_the_end_of_the_window)
{
	WAKES_TELL();
	for (unsigned i = 0; i < 5; ++i) {
		ipc_limiter *limiter = window_new(1, 130 * MS);
		struct ipc_wait_item item = {.handle = limiter, .events = IPC_READY_READABLE};
		struct timespec deadline = domain_deadline(WAIT_MS);
		uint64_t began;

		use_up(limiter, 1);
		began = clock_now_ns() + state_of(limiter).window_left_ns;
		EXPECT(ipc_wait_any(&item, 1, &deadline), 0);
		EXPECT(item.ready, IPC_READY_READABLE);
		ASSERT_WOKEN(began);
		ASSERT(take_away(NAME, 0), 0);
		ipc_limiter_close(limiter);
	}
}
