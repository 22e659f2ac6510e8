/* SPDX-License-Identifier: MIT */
#ifndef BROKER_GRANT_H
#define BROKER_GRANT_H

/*
 * Saying OPENED and RESERVE, with the descriptors that go with them.
 */

#include <stdbool.h>

#include "broker/registry.h"
#include "include/ipc/error.h"

struct worker;

/*
 * OPENED for a handle that is committed and told.  has_segment: its client has just reserved the
 * segment and mapped it for writing.  0: said, or the client is gone, which is its reaping's
 * business.  Negative: the descriptors could not be had; the handle is closed again.
 */
IPC_CHECKED int grant_handle(struct worker *worker, struct handle *handle, uint64_t request_id,
			     bool has_segment);

/* RESERVE for a handle that is its channel's reserver: 0 or negative, and then nothing happened. */
IPC_CHECKED int grant_reserve(struct worker *worker, struct handle *handle);

#endif
