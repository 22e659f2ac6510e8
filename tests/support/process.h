/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_PROCESS_H
#define TESTS_SUPPORT_PROCESS_H

/*
 * Processes that tests start: forked so that they cannot outlive the test, and waited for with a
 * limit.
 */

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

/* fork(); the child is killed when the forking thread ends.  Aborts on failure. */
pid_t process_fork(void);

/* _exit() that writes coverage counters first. */
void process_end(int status) __attribute__((__noreturn__));

/* Waits for a child: exit status, or 128 + signal.  Aborts after ms. */
int process_reap(pid_t pid, unsigned ms);

/* Waits until any process (a child need not be reaped then) has ended.  Aborts after ms. */
void process_until_ended(int pidfd, unsigned ms);

/* pidfd of a process, -1: there is none. */
int process_open(pid_t pid);

struct timespec process_deadline(unsigned ms);
bool process_has_passed(const struct timespec *deadline);

/* For states that nothing tells: the files of /proc have to be looked at again and again. */
void process_pause(void);

#endif
