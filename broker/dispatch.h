/* SPDX-License-Identifier: MIT */
#ifndef BROKER_DISPATCH_H
#define BROKER_DISPATCH_H

/*
 * One client's requests: peeked, done, answered, and only then taken off the queue.
 */

#include "broker/registry.h"

struct worker;

/* The socket is readable: its requests, up to a share; then the desk. */
void dispatch_peer(struct worker *worker, struct peer *peer);

/* A new worker: finds out whether the client's next request may have been done by an earlier one.
 */
void dispatch_adopt(struct worker *worker, struct peer *peer);
/* Looks at the desk of a client that has nothing in its queue: nothing else will make anybody look.
 */
void dispatch_adopt_desk(struct worker *worker, struct peer *peer);

#endif
