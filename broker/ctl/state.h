/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_STATE_H
#define BROKER_CTL_STATE_H

/*
 * What stands in a queue, as text: a row for each priority.
 */

#include <stdbool.h>

#include <ipc/queue.h>

/* "full", "rejected", ... */
const char *state_reason_name(enum ipc_dead_reason reason);

/* To standard output.  0, or -1: out of memory. */
int state_print(const struct ipc_queue_state *state, bool is_partial);

#endif
