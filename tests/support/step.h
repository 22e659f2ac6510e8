/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_STEP_H
#define TESTS_SUPPORT_STEP_H

/*
 * Kill at every instruction.  One child is stepped through the operation to its end, where it is
 * killed; then, for n = first, first + stride, ... a fresh child is forked, runs prepare at full
 * speed, the operation until before its n-th instruction, and is killed there with SIGKILL.  After
 * each, the parent's check asserts the invariants and goes on with what the child left.
 *
 * An operation that sleeps in the kernel ends there.  System calls are one instruction.  Parent and
 * child run on one CPU meanwhile, which makes a step three times faster.  On machines without
 * compare-and-swap instructions (LL/SC only) single-stepping never gets through an atomic
 * operation: build with LSE atomics there.
 */

struct step_case {
	void (*prepare)(void *arg);       /* in the child; may be NULL */
	void (*operation)(void *arg);     /* in the child, killed */
	void (*check)(void *arg, long n); /* in the parent, after the child was reaped */
	long first, stride;               /* 0, 1: every instruction; stride 0 is 1 */

	/*
	 * In the parent, may be NULL.  If there is one, the child is not killed there: it stands
	 * still before its n-th instruction while this is done, and then runs to its end.  It has
	 * to get there without anybody's help, and is killed after `after`, which may be NULL.
	 */
	void (*meanwhile)(void *arg, long n);
	void (*after)(void *arg, long n);
};

/* Number of kill points. */
long step_run(const struct step_case *step, void *arg);

#endif
