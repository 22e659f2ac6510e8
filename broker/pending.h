/* SPDX-License-Identifier: MIT */
#ifndef BROKER_PENDING_H
#define BROKER_PENDING_H

/*
 * OPENs that wait: for a name, for a place, or for another client's reservation.  They stand in the
 * order in which they came, by name.
 */

#include "broker/registry.h"

struct worker;

/* IPC_EDQUOT; IPC_EBUSY: no place for one more. */
IPC_CHECKED int pending_add(struct worker *worker, struct peer *peer,
			    const struct message_open *open);
/* DONE, and removed. */
void pending_answer(struct worker *worker, struct pending *pending, int result);
void pending_remove(struct worker *worker, struct pending *pending);

/* Those that an earlier worker left, in the order in which they came.  Clients and users are in
 * place. */
void pending_adopt(struct worker *worker);

struct pending *pending_find(const struct peer *peer, uint64_t request_id);

/* The first that waits for this name, and the next one after it. */
struct pending *pending_first(struct registry *registry, const char *name);
struct pending *pending_next(const struct pending *pending, const char *name);
/* From this one on; NULL: none. */
struct pending *pending_from(struct pending *pending, const char *name);

#endif
