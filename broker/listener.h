/* SPDX-License-Identifier: MIT */
#ifndef BROKER_LISTENER_H
#define BROKER_LISTENER_H

/*
 * The listening socket: everybody who connects is taken at once, so that silent ones cannot fill
 * the backlog.
 */

#include "broker/config.h"

struct worker;

/* Before the sandbox: what connections inherit, the spare descriptor, the loop.  Negative, with a
 * line of the log. */
int listener_init(struct worker *worker);

/* Takes who is there, up to a share; how many there were. */
unsigned listener_accept(struct worker *worker);

#endif
