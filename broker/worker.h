/* SPDX-License-Identifier: MIT */
#ifndef BROKER_WORKER_H
#define BROKER_WORKER_H

/*
 * The worker: one thread, one epoll loop.  worker_run() is what main() calls in the process that the keeper started.
 */

#include <stdbool.h>

/* Exit statuses by which a worker tells the keeper what to do next. */
#define WORKER_EXIT_DONE   0  /* orderly end (SIGTERM, SIGINT, idle): the keeper ends too, status 0 */
#define WORKER_EXIT_FAILED 1  /* cannot run, said why: the keeper ends with 1 */
#define WORKER_EXIT_RELOAD 3  /* SIGHUP: the keeper reads the configuration again, then starts the next worker */
/* anything else (a signal): start the next worker at once */

struct worker_options {
	bool no_sandbox;
	bool autostarted;  /* first idle end counts 10 s from the start */
};

/* Adopts descriptors (listening socket "ls0.1", state "st0.1", configuration "cf0.1", and all that was stored), repairs, enters the sandbox, says READY=1, serves. */
int worker_run(const struct worker_options *options);

#endif
