/* SPDX-License-Identifier: MIT */
#ifndef BROKER_LISTING_H
#define BROKER_LISTING_H

/*
 * INFO, LIST, STATE and REMOVE: what a client may see of the channels, and taking a name away.
 */

#include "broker/registry.h"

struct worker;

void listing_info(struct worker *worker, struct peer *peer, const struct message_info *info);
void listing_list(struct worker *worker, struct peer *peer, const struct message_list *list);
void listing_state(struct worker *worker, struct peer *peer, const struct message_state *state);
void listing_remove(struct worker *worker, struct peer *peer, const struct message_remove *remove);

#endif
