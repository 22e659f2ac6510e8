/* SPDX-License-Identifier: MIT */
#ifndef BROKER_KEEPER_H
#define BROKER_KEEPER_H

/*
 * The keeper: the parent of the worker.  It holds the lock, the socket's name and all descriptors,
 * starts a worker when there is none, and does nothing else.
 *
 * the worker ends with  the keeper
 * WORKER_EXIT_DONE      removes the socket, ends with 0
 * WORKER_EXIT_FAILED    removes the socket, ends with 1
 * WORKER_EXIT_RELOAD    reads the configuration again, starts the next worker
 * SIGTERM, SIGINT       as DONE: the signal came before the worker could deal with it
 * anything else         starts the next worker at once; gives up after 10 in a row that never
 *                       said READY=1 (1,000 if it was SIGKILL, which comes from outside)
 *
 * signal to the keeper
 * SIGTERM, SIGINT       SIGTERM to the worker, SIGKILL after `grace`; socket removed, 0
 * SIGHUP                reads the configuration again; an error is logged and changes nothing;
 *                       else the worker is killed, and the next one has the new text (M-6)
 *
 * It trusts the worker's messages no more than needed: names and descriptors are all that they can
 * change.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/config.h"

/* Exit statuses. */
#define KEEPER_EXIT_DONE   0
#define KEEPER_EXIT_FAILED 1
#define KEEPER_EXIT_USAGE  2

#define KEEPER_IDLE_AUTOSTART_NS UINT64_C(10000000000)

struct keeper_options {
	const char *address; /* NULL: M-40 */
	const char *config;  /* file; NULL: none */
	bool autostart;      /* ends when idle; another broker there is no failure */
	bool no_sandbox;
	bool has_idle, has_level; /* said on the command line, which goes before the file */
	uint64_t idle_ns;
	enum log_level level;
	char **argv; /* as main() got it; NULL: none */
};

/*
 * Runs until the end; returns the exit status.  Closes all descriptors from 3 on that were not
 * passed by a service manager.  Once a process. Also returns in the spare that became a keeper
 * after this one had died.
 */
int keeper_run(const struct keeper_options *options);

/* Whether a keeper started this process as its worker. */
bool keeper_is_parent(void);

#endif
