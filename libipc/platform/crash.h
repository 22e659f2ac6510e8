/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_CRASH_H
#define LIBIPC_PLATFORM_CRASH_H

/*
 * Crash points: places where a test build kills its own process with SIGKILL.  Nothing at all in
 * other builds.
 *
 * With -DIPC_CRASH_POINTS the environment variable IPC_CRASH="N" or "random:P" makes the N-th crash
 * point passed (counted over all places), or each with probability 1/P, the last.  With "late:P"
 * nobody dies: each is left up to CRASH_LATE_NS later with probability 1/P, as by a process that
 * was not given the processor.
 */

#define CRASH_LATE_NS UINT64_C(20000000)

#ifdef IPC_CRASH_POINTS

void crash_point(void);
#define CRASH_POINT() crash_point()
#else
#define CRASH_POINT() ((void)0)
#endif

#endif
