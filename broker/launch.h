/* SPDX-License-Identifier: MIT */
#ifndef BROKER_LAUNCH_H
#define BROKER_LAUNCH_H

/*
 * Starting a worker: the same executable again, with everything that the keeper holds.
 *
 * The child's signals SIGTERM, SIGINT, SIGHUP, SIGUSR2 are blocked at exec, so one that comes early
 * waits until the worker can deal with it.  SIGUSR2 is what it gets when the keeper dies.
 */

#include <sys/types.h>

#include "broker/fdstore.h"

struct launch {
	const struct fdstore *store; /* entry i is descriptor 3 + i, not close-on-exec */
	int notify_fd, spare_fd;     /* the worker's ends; spare_fd -1: none */
	char *const *argv;           /* what follows argv[0], as the user gave it; may be NULL */
};

/* Names of a process, as ps, pkill and top show it: its comm and, if `argv0` (may be NULL) has the
 * room, the last part of argv[0]. */
void launch_set_title(char *argv0, const char *title);

/* The worker's pid; -1 and errno. */
pid_t launch_worker(const struct launch *launch);

#endif
