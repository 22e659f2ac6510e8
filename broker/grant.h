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

/* Of one handle. */
#define GRANT_FDS_MAX 4

/*
 * OPENED for a handle that is committed and told.  has_segment: its client has just reserved the
 * segment and mapped it for writing.  0: said, or the client is gone, which is its reaping's
 * business.  Negative: the descriptors could not be had; the handle is closed again (a
 * resumed end of a session is away).
 */
IPC_CHECKED int grant_handle(struct worker *worker, struct handle *handle, uint64_t request_id,
			     bool has_segment);

/*
 * What OPENED says but for its head, and the descriptors for it, of a handle whose role maps the
 * segment for writing; they stay the broker's.  Negative: they could not be had.
 */
IPC_CHECKED int grant_describe(struct worker *worker, const struct handle *handle,
			       struct message_opened *ret, int fds[GRANT_FDS_MAX],
			       unsigned *ret_n_fds);

/* RESERVE for a handle that is its channel's reserver: 0 or negative, and then nothing happened. */
IPC_CHECKED int grant_reserve(struct worker *worker, struct handle *handle);

#endif
