/* SPDX-License-Identifier: MIT */
#ifndef BROKER_WORKER_H
#define BROKER_WORKER_H

/*
 * The worker: one thread, one epoll loop.  worker_run() is what main() calls in the process that
 * the keeper started.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/config.h"
#include "broker/loop.h"
#include "broker/store.h"
#include "libipc/platform/segment.h"
#include "libipc/wire/protocol.h"

/* Exit statuses by which a worker tells the keeper what to do next. */
#define WORKER_EXIT_DONE                                                                           \
	0                    /* orderly end (SIGTERM, SIGINT, idle): the keeper ends too, status 0 \
			      */
#define WORKER_EXIT_FAILED 1 /* cannot run, said why: the keeper ends with 1 */
#define WORKER_EXIT_RELOAD                                                                         \
	3 /* SIGHUP: the keeper reads the configuration again, then starts the next worker */
/* anything else (a signal): start the next worker at once */

struct worker_options {
	bool no_sandbox;
	bool autostarted; /* first idle end counts 10 s from the start */
};

struct peer;
struct registry;

/* What all parts of one worker share. */
struct worker {
	const struct worker_options *options;
	struct config config;
	struct segment_maker maker;
	struct store store;
	struct loop loop;
	struct registry *registry;
	int listener_fd, signal_fd;
	int spare_fd;   /* given up for a moment when descriptors have run out: to take and refuse a
			   connection */
	uint64_t batch; /* number of the last batch of attention bumps */
	struct peer *doomed;                   /* to be reaped when the request in hand is done */
	struct peer *quiet_first, *quiet_last; /* have not said HELLO yet, the oldest first */
	uint64_t started_ns;
	uint64_t idle_since_ns;   /* 0: somebody is here */
	uint64_t offers_again_ns; /* see offers_retry() */
	uint64_t timer_ns;        /* what the loop's timer is set to */
	bool needs_confirmation;  /* the kernel has no SO_PEERPIDFD */
	bool is_resuming;         /* pendings are being tried */
	bool resumes_again;       /* a listener came meanwhile, for whom earlier ones wait */
	bool had_clients;         /* since the start */
	bool is_ending;           /* idle: nobody can connect any more */
	bool is_done;
	int exit_status;
	union message request, reply;
};

/* Adopts descriptors (listening socket "ls0.1", state "st0.1", configuration "cf0.1", and all that
 * was stored), repairs, enters the sandbox, says READY=1, serves. */
int worker_run(const struct worker_options *options);

#endif
