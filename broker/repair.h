/* SPDX-License-Identifier: MIT */
#ifndef BROKER_REPAIR_H
#define BROKER_REPAIR_H

/*
 * What a new worker makes of what an earlier one left: descriptors and records.
 */

#include "broker/registry.h"

struct worker;

/* One descriptor of an earlier worker, by its stored name. */
struct repair_fd {
	char kind;
	uint32_t slot, generation;
	int fd;
};

struct repair {
	struct repair_fd *fds;
	uint32_t n_fds;
};

/* Matches descriptors with records, drops what does not match, fills the registry, finishes what an
 * earlier worker had begun to end.  fds are used up. */
IPC_CHECKED int repair_run(struct worker *worker, struct repair *repair);

/* Once the worker serves: clients that ended meanwhile, closings that were not looked at, opens
 * that wait. */
void repair_resume(struct worker *worker);

#endif
