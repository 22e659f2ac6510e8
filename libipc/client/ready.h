/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_READY_H
#define LIBIPC_CLIENT_READY_H

/*
 * A handle as something that may be ready (M-34): what ipc_wait_any() and the poll set have in
 * common.  What makes it ready says its role (struct endpoint_readiness).
 */

#include <stdbool.h>
#include <stdint.h>

#include "libipc/client/endpoint.h"

struct ready {
	void *handle;
	struct endpoint *endpoint;
	struct endpoint_part *part; /* NULL: the handle is the endpoint */
	const struct endpoint_readiness *readiness;
	struct endpoint_wanted wanted;
};

/* By the handle's first word.  IPC_EINVAL: nothing that can be ready. */
IPC_CHECKED int ready_identify(struct ready *ret, void *handle);

/* And events that it has; IPC_EINVAL: others, or none. */
IPC_CHECKED int ready_resolve(struct ready *ret, void *handle, uint32_t events);

/* What holds now: IPC_READY_...  The endpoint is entered, or cannot be closed meanwhile. */
uint32_t ready_look(const struct ready *ready);

bool ready_is_cancelled(const struct ready *ready);

/* Where to sleep; NULL: the broker alone tells it. */
struct eventcount *ready_event(const struct ready *ready);

/* CLOCK_MONOTONIC ns when it may become ready by time alone; CLOCK_FOREVER: not. */
uint64_t ready_due_ns(const struct ready *ready);

#endif
