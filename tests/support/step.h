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
};

/* Number of kill points. */
long step_run(const struct step_case *step, void *arg);

#endif
