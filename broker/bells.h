/* SPDX-License-Identifier: MIT */
#ifndef BROKER_BELLS_H
#define BROKER_BELLS_H

/*
 * Bells: one eventfd per client, part of the descriptor by which its program is told to look again
 * (M-30).  The broker makes it, keeps it at the keeper, rings it whenever it tells the client
 * something, and gives it to those who may ring it themselves: clients of the same uid with a
 * handle on the same channel.  Nobody else gets it, since who has it can fill it or empty it.
 */

#include "broker/registry.h"
#include "include/ipc/error.h"

struct worker;

/* The bell of a client that says HELLO, unless it has one.  IPC_ENFILE, IPC_EMFILE, ... */
IPC_CHECKED int bells_make(struct worker *worker, struct peer *peer);
void bells_drop(struct worker *worker, struct peer *peer);

/* Its client looks at everything again. */
void bells_ring(struct peer *peer);

/* To a client that rang by the broker: the bells of the others on the channel, if it may have them
 * and has nothing else to read.  It asks again when it needs them and they did not come. */
void bells_give(struct worker *worker, const struct handle *handle);

#endif
