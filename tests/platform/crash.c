/* SPDX-License-Identifier: MIT */
/*
 * The points are not in the library that this is linked with, so they are built in here.
 */
#ifndef IPC_CRASH_POINTS
#define IPC_CRASH_POINTS
#include "libipc/platform/crash.c"
#endif

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>

#include "libipc/platform/crash.h"
#include "tests/support/process.h"

#define KILLED (128 + SIGKILL)

/* Exit status of a process that passes n points with this wish; the child says how many it survived
 * by 128 at most. */
static int status_of(const char *wish, unsigned n)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		if (wish)
			setenv("IPC_CRASH", wish, 1);
		else
			unsetenv("IPC_CRASH");
		for (unsigned i = 0; i < n; ++i)
			CRASH_POINT();
		process_end(0);
	}
	return process_reap(pid, 30000);
}

Test(crash, nobody_dies_unasked, .timeout = 60)
{
	cr_assert_eq(status_of(NULL, 1000), 0);
	cr_assert_eq(status_of("", 1000), 0);
	cr_assert_eq(status_of("0", 1000), 0);
	cr_assert_eq(status_of("nonsense", 1000), 0);
	cr_assert_eq(status_of("random:0", 1000), 0);
}

Test(crash, the_nth_point_is_the_last, .timeout = 60)
{
	cr_assert_eq(status_of("1", 1), KILLED);
	cr_assert_eq(status_of("3", 2), 0);
	cr_assert_eq(status_of("3", 3), KILLED);
}

Test(crash, each_may_be_the_last, .timeout = 60)
{
	unsigned n_dead = 0;

	cr_assert_eq(status_of("random:1", 1), KILLED);
	cr_assert_eq(status_of("random:100", 100000), KILLED);
	for (unsigned i = 0; i < 40; ++i)
		n_dead += status_of("random:2", 1) == KILLED;
	cr_assert_gt(n_dead, 2);
	cr_assert_lt(n_dead, 38);
}
