/* SPDX-License-Identifier: MIT */
#ifndef BROKER_PAIRS_H
#define BROKER_PAIRS_H

/*
 * The socket pair of an inbox or a session, through which its two sides pass descriptors (D9).
 * The keeper holds both ends, so what lies in the queue of one survives both processes.
 */

#include <stdbool.h>

#include "broker/registry.h"

struct worker;

/* How many descriptors beside segment and lines a channel of this record has. */
unsigned pairs_count(const struct channel_record *record);

/* Made and stored; nothing, where the kind has none. */
IPC_CHECKED int pairs_make(struct worker *worker, struct channel *channel);
void pairs_drop(struct worker *worker, struct channel *channel);

/* Whether an adopted channel has what its kind has. */
bool pairs_is_whole(const struct channel *channel);

/* The end that this handle's side uses; -1: its role has none. */
int pairs_end(const struct handle *handle);

#endif
