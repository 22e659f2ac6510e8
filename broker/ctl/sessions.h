/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_SESSIONS_H
#define BROKER_CTL_SESSIONS_H

/*
 * The sessions that came by a listener's name and are not ended, the oldest first.  They may
 * outlive the listener.
 */

#include <stddef.h>

#include <ipc/session.h>

#include "broker/ctl/ctl.h"

struct sessions {
	struct ipc_session_info *infos;
	size_t n, n_max;
};

/* 0 or the library's result; what was collected goes with sessions_deinit() in either case. */
int sessions_collect(struct sessions *sessions, const struct ctl *ctl, const char *name);
void sessions_deinit(struct sessions *sessions);

/* Bytes under way, both ways. */
uint64_t sessions_depth(const struct sessions *sessions);

/* A row for each end, to standard output.  0, or -1: out of memory. */
int sessions_print(const struct sessions *sessions);

#endif
