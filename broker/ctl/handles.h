/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_HANDLES_H
#define BROKER_CTL_HANDLES_H

/*
 * The handles of one channel, or of all whose names match a pattern.  Not one moment's state:
 * handles and channels come and go while they are collected.
 */

#include <stdbool.h>
#include <stddef.h>

#include "broker/ctl/channel.h"

struct handle {
	struct ipc_handle_info info;
	const struct ipc_channel_info *channel; /* NULL after handles_of() */
};

struct handles {
	struct handle *handles;
	size_t n, n_max;
	struct channels channels;
};

/* 0 or the library's result; what was collected goes with handles_deinit() in either case. */
int handles_of(struct handles *handles, const struct ctl *ctl, const char *name);
int handles_collect(struct handles *handles, const struct ctl *ctl, const char *pattern);
void handles_deinit(struct handles *handles);

/* "watch_producer", ...: as in the names of the public types. */
const char *handle_role_name(enum ipc_role role);
/* What others wait for while it is held: a claim stands in nobody's way. */
bool handle_is_in_the_way(enum ipc_holding holding);
/* "nothing", "lock", "lead", ... */
const char *handle_holding_name(enum ipc_holding holding);

#endif
