/* SPDX-License-Identifier: MIT */
#ifndef BROKER_OVERTAKEN_H
#define BROKER_OVERTAKEN_H

/*
 * Handles of ends that others took over: open to nobody any more, but known until their client
 * closes them or ends, since its process may not know yet, and write into what it has claimed.
 * Their words say so (LIVENESS_OVERTAKEN), whichever pid namespace who asks is of.
 */

#include "broker/registry.h"

struct worker;

/* Of one that has ended, instead of its being freed; it goes on being charged to its user. */
void overtaken_add(struct handle *handle);

/* By a worker that finds the record; its client and its channel are there. */
void overtaken_adopt(struct handle *handle, struct peer *peer, struct channel *channel);

/* Whether one came of this request of the client's. */
bool overtaken_has_request(const struct peer *peer, uint64_t request_id);

/* The client says that it does not want what comes of the request. */
void overtaken_cancel(struct worker *worker, struct peer *peer, uint64_t request_id);

/* The client says that it has closed it, in a message or by its desk. */
void overtaken_hear_close(struct worker *worker, struct peer *peer, uint64_t handle_id);
void overtaken_look_at_cells(struct worker *worker, struct peer *peer);

/* None of theirs is left. */
void overtaken_end_client(struct worker *worker, struct peer *peer);
void overtaken_end_channel(struct worker *worker, struct channel *channel);

#endif
