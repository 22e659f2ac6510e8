/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_CHANNEL_H
#define BROKER_CTL_CHANNEL_H

/*
 * The channels whose names match a pattern, sorted by name.
 */

#include <stddef.h>

#include <ipc/admin.h>

#include "broker/ctl/ctl.h"
#include "broker/ctl/quantity.h"

struct channels {
	struct ipc_channel_info *infos;
	size_t n, n_max;
};

/* 0 or the library's result; what was collected goes with channels_deinit() in either case. */
int channels_collect(struct channels *channels, const struct ctl *ctl, const char *pattern);
void channels_deinit(struct channels *channels);

/* A number, or bytes where the kind counts them. */
const char *channel_depth(char text[QUANTITY_SIZE], enum ipc_kind kind, uint64_t depth);

/* Or the number, if nobody has it. */
const char *channel_user_name(char text[QUANTITY_SIZE], uint32_t uid);

/* "watch", "shared", ... */
const char *channel_kind_name(enum ipc_kind kind);

#endif
