/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_SAMPLE_H
#define BROKER_CTL_SAMPLE_H

/*
 * How all channels stood at a time, and what has changed since the sample before.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ipc/admin.h>

#include "broker/ctl/ctl.h"

struct sample_row {
	struct ipc_channel_info info;  /* of a listener with the depth of its sessions */
	struct ipc_handle_info holder; /* what holds for longest; handle_id 0: nothing is held */
	bool has_items;                /* a queue: */
	uint64_t n_in, n_out;          /* items that were ever queued, and acknowledged */
	bool has_change;               /* it was in the sample before, and */
	double depth_change;           /* since then, a second */
	double in, out;                /* if it has items */
};

struct sample {
	struct sample_row *rows; /* sorted by name */
	size_t n;
	uint64_t at_ns; /* CLOCK_MONOTONIC */
	uint64_t n_waiters;
};

uint64_t sample_now_ns(void);

/* 0 or the library's result; what was collected goes with sample_deinit() in either case.  before:
 * zero bytes if there is none. */
int sample_take(struct sample *sample, const struct ctl *ctl, const char *pattern,
		const struct sample *before);
void sample_deinit(struct sample *sample);

#endif
