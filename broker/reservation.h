/* SPDX-License-Identifier: MIT */
#ifndef BROKER_RESERVATION_H
#define BROKER_RESERVATION_H

/*
 * Between RESERVE and CONFIRM: a channel that exists for its reserver alone.
 */

#include "broker/registry.h"

struct worker;

void reservation_confirm(struct worker *worker, struct peer *peer,
			 const struct message_confirm *confirm);

/* The reserver will not confirm: its segment goes on, as it is, to the next who would have made the
 * same; else the channel ends. */
void reservation_drop(struct worker *worker, struct handle *handle);

#endif
