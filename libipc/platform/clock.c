/* SPDX-License-Identifier: MIT */
#include "libipc/platform/clock.h"

/*
 * The one clock of the library.  Arithmetic saturates: a deadline that is too far away to be told
 * in nanoseconds is 584 years from boot, and no caller has to think about overflow.
 */

#include <ipc/error.h>
#include <ipc/time.h>

#define CLOCK_FAREST (CLOCK_FOREVER - 1)

uint64_t clock_now_ns(void)
{
	struct timespec now;

	/* Cannot fail: the clock exists on every Linux, and the pointer is ours. */
	(void)clock_gettime(CLOCK_MONOTONIC, &now);

	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t clock_coarse_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t clock_boot_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int clock_deadline(uint64_t *ret_deadline_ns, const struct timespec *deadline)
{
	uint64_t ns;

	if (!deadline) {
		*ret_deadline_ns = CLOCK_FOREVER;
		return 0;
	}

	if (deadline->tv_nsec < 0 || deadline->tv_nsec >= (long)NS_PER_S)
		return IPC_EINVAL;

	if (deadline->tv_sec < 0) {
		*ret_deadline_ns = 0;
		return 0;
	}

	if (__builtin_mul_overflow((uint64_t)deadline->tv_sec, NS_PER_S, &ns) ||
	    __builtin_add_overflow(ns, (uint64_t)deadline->tv_nsec, &ns) || ns > CLOCK_FAREST)
		ns = CLOCK_FAREST;

	/* {0, 0} is how most callers write "look once": they are spared the clock. */
	*ret_deadline_ns = ns > 0 && ns > clock_now_ns() ? ns : 0;
	return 0;
}

uint64_t clock_after_ns(uint64_t ns)
{
	uint64_t after;

	if (__builtin_add_overflow(clock_now_ns(), ns, &after) || after > CLOCK_FAREST)
		after = CLOCK_FAREST;

	return after;
}

struct timespec clock_to_timespec(uint64_t ns)
{
	return (struct timespec){
		.tv_sec = (time_t)(ns / NS_PER_S),
		.tv_nsec = (long)(ns % NS_PER_S),
	};
}

void ipc_deadline_after(struct timespec *ret, uint64_t ns)
{
	*ret = clock_to_timespec(clock_after_ns(ns));
}
