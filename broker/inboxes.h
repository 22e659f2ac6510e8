/* SPDX-License-Identifier: MIT */
#ifndef BROKER_INBOXES_H
#define BROKER_INBOXES_H

/*
 * What an inbox's memory says about how full it is.  Clients write it, so it is read with pread
 * and believed as far as a listing goes.
 */

#include <stdint.h>

#include "broker/registry.h"

struct inboxes_depth {
	uint64_t now;  /* bytes; at most the capacity */
	uint64_t ever; /* the most so far; not less than now */
};

struct inboxes_depth inboxes_depth(const struct channel *channel);

#endif
