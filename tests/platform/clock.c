/* SPDX-License-Identifier: MIT */
#include "libipc/platform/clock.h"

#include <criterion/criterion.h>
#include <limits.h>

#include <ipc/error.h>
#include <ipc/time.h>

#define UNTOUCHED UINT64_C(0x5555)

static uint64_t deadline_of(time_t seconds, long ns)
{
	struct timespec deadline = {.tv_sec = seconds, .tv_nsec = ns};
	uint64_t deadline_ns = UNTOUCHED;

	cr_assert_eq(clock_deadline(&deadline_ns, &deadline), 0);
	return deadline_ns;
}

static void assert_refused(time_t seconds, long ns)
{
	struct timespec deadline = {.tv_sec = seconds, .tv_nsec = ns};
	uint64_t deadline_ns = UNTOUCHED;

	cr_assert_eq(clock_deadline(&deadline_ns, &deadline), IPC_EINVAL);
	cr_assert_eq(deadline_ns, UNTOUCHED);
}

Test(clock, is_the_monotonic_one, .timeout = 60)
{
	struct timespec before, after;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &before);
	now = clock_now_ns();
	clock_gettime(CLOCK_MONOTONIC, &after);

	cr_assert_geq(now, (uint64_t)before.tv_sec * NS_PER_S + (uint64_t)before.tv_nsec);
	cr_assert_leq(now, (uint64_t)after.tv_sec * NS_PER_S + (uint64_t)after.tv_nsec);
}

/* M-20 */
Test(clock, no_deadline_is_for_ever, .timeout = 60)
{
	uint64_t deadline_ns = 0;

	cr_assert_eq(clock_deadline(&deadline_ns, NULL), 0);
	cr_assert_eq(deadline_ns, CLOCK_FOREVER);
}

/* M-20 */
Test(clock, nanoseconds_out_of_range_are_refused, .timeout = 60)
{
	assert_refused(1, -1);
	assert_refused(1, 1000000000);
	assert_refused(1, LONG_MAX);
	assert_refused(-1, -1);
	assert_refused(0, LONG_MIN);

	cr_assert_eq(deadline_of(0, 999999999), 0);
}

/* M-20 */
Test(clock, past_moments_are_zero, .timeout = 60)
{
	struct timespec now;

	cr_assert_eq(deadline_of(0, 0), 0);
	cr_assert_eq(deadline_of(-1, 0), 0);
	cr_assert_eq(deadline_of(-9000000000000000000, 999999999), 0);

	clock_gettime(CLOCK_MONOTONIC, &now);
	cr_assert_eq(deadline_of(now.tv_sec, now.tv_nsec), 0);
}

/* M-20 */
Test(clock, future_moments_keep_every_nanosecond, .timeout = 60)
{
	time_t seconds = (time_t)(clock_now_ns() / NS_PER_S) + 1000;

	cr_assert_eq(deadline_of(seconds, 123456789), (uint64_t)seconds * NS_PER_S + 123456789);
}

Test(clock, moments_beyond_the_range_saturate_below_for_ever, .timeout = 60)
{
	cr_assert_eq(deadline_of(18446744073, 709551615), CLOCK_FOREVER - 1);
	cr_assert_eq(deadline_of(18446744073, 709551613), CLOCK_FOREVER - 2);
	cr_assert_eq(deadline_of(18446744074, 0), CLOCK_FOREVER - 1);
	cr_assert_eq(deadline_of(INT64_MAX, 999999999), CLOCK_FOREVER - 1);

	cr_assert_eq(clock_after_ns(UINT64_MAX), CLOCK_FOREVER - 1);
	cr_assert_eq(clock_after_ns(UINT64_MAX - 5), CLOCK_FOREVER - 1);
}

Test(clock, after_is_now_and_then_some, .timeout = 60)
{
	uint64_t before = clock_now_ns();
	uint64_t after = clock_after_ns(NS_PER_S);

	cr_assert_geq(after, before + NS_PER_S);
	cr_assert_leq(after, clock_now_ns() + NS_PER_S);
}

/* M-20: what the public function makes is what every wait takes */
Test(clock, deadline_after_makes_legal_deadlines, .timeout = 60)
{
	uint64_t before = clock_now_ns(), deadline_ns;
	struct timespec deadline;

	ipc_deadline_after(&deadline, 5 * NS_PER_S + 7);
	cr_assert_eq(clock_deadline(&deadline_ns, &deadline), 0);
	cr_assert_geq(deadline_ns, before + 5 * NS_PER_S + 7);
	cr_assert_leq(deadline_ns, clock_now_ns() + 5 * NS_PER_S + 7);

	ipc_deadline_after(&deadline, UINT64_MAX);
	cr_assert_eq(clock_deadline(&deadline_ns, &deadline), 0);
	cr_assert_eq(deadline_ns, CLOCK_FOREVER - 1);

	ipc_deadline_after(&deadline, 0);
	cr_assert_eq(clock_deadline(&deadline_ns, &deadline), 0);
	cr_assert_eq(deadline_ns, 0);
}
