/* SPDX-License-Identifier: MIT */
#include "examples/demo/demo.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static bool holds_so_far = true;

void act(const char *title)
{
	static int number;

	printf("\n%d. %s\n", ++number, title);
	(void)fflush(stdout);
}

void check(bool holds, const char *claim)
{
	printf("    %s %s\n", holds ? "ok  " : "FAIL", claim);
	(void)fflush(stdout);
	holds_so_far = holds_so_far && holds;
}

bool all_held(void)
{
	return holds_so_far;
}

void fail(const char *what, int result)
{
	(void)fprintf(stderr, "demo: %s: %s (%s)\n", what, ipc_error_text(result),
		      ipc_error_name(result));
	exit(1);
}

const char *result_name(int64_t result)
{
	if (result < 0)
		return ipc_error_name((int)result);

	return result == 0 ? "done" : "done, a holder died";
}

int64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct timespec in_seconds(unsigned seconds)
{
	struct timespec deadline;

	ipc_deadline_after(&deadline, (uint64_t)seconds * 1000000000);
	return deadline;
}

void pause_ms(int ms)
{
	(void)poll(NULL, 0, ms);
}
