/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_RUN_H
#define BROKER_CTL_RUN_H

/*
 * A program that runs for this one: what it writes is taken, SIGINT and SIGTERM are passed to it,
 * and it is killed when this process dies.
 *
 * From run_begin() to run_end() the two signals do not end this process; one that comes when the
 * program has ended is left for run_end(), where it does.
 */

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RUN_EXIT_CANNOT    126 /* as env(1): it is there, and cannot be run */
#define RUN_EXIT_NOT_FOUND 127

enum run_end {
	RUN_ENDED,       /* its exit status, 128 + signal, or one of RUN_EXIT_... */
	RUN_NOT_STARTED, /* errno */
	RUN_NOT_TAKEN,   /* errno of `take`: it was killed */
	RUN_TOLD_TO_END, /* it has ended, but what it started has its output open still; 0 */
};

/* Of what the program writes: 0 or an errno. */
typedef int (*run_take_fn)(void *userdata, const void *data, size_t size);

struct run {
	int signal_fd;
	sigset_t mask_before;
	struct sigaction child_before;
	pid_t pid; /* 0: none runs */
	int pidfd, out_fd;
};

/* 0 or an errno. */
int run_begin(struct run *run);
void run_end(struct run *run);

/*
 * Runs argv[0], searched in PATH, until it has ended and all that has its standard output open has
 * closed it.  IPCCTL_FENCE is in its environment.  *ret: see enum run_end.  take NULL: it writes to
 * this process's own standard output, has no fence, and is not waited for longer than it runs.
 */
enum run_end run_program(struct run *run, char *const *argv, uint64_t fence, run_take_fn take,
			 void *userdata, int *ret);

/* Whether one of the two signals has come, after waiting for one at most that long. */
bool run_is_told_to_end(const struct run *run, int timeout_ms);

#endif
