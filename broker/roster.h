/* SPDX-License-Identifier: MIT */
#ifndef BROKER_ROSTER_H
#define BROKER_ROSTER_H

/*
 * HANDLES: who has a handle on a channel, what each of them holds and for whom it waits.
 */

#include "broker/registry.h"

struct worker;

void roster_handles(struct worker *worker, struct peer *peer,
		    const struct message_handles *handles);

#endif
