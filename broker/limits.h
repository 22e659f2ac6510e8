/* SPDX-License-Identifier: MIT */
#ifndef BROKER_LIMITS_H
#define BROKER_LIMITS_H

/*
 * What a limiter's memory says about its permits and who holds them.  Clients write it, so it is
 * read with pread and believed as far as a listing goes.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/registry.h"

/* Of one request, so that nobody keeps the broker from the others: grants read. */
#define LIMITS_BUDGET (1u << 15)

/* Whether the budget is enough for all grants of a limiter. */
bool limits_fits(uint32_t budget);

struct limits_depth {
	uint64_t now;  /* permits that the living hold */
	uint64_t ever; /* most at a time */
};

/* holder is open on this very channel. */
typedef void (*limits_grant_fn)(const struct handle *holder, uint32_t n_permits, uint64_t since_ns,
				void *userdata);

/* Looks at the grants, the first ones if the budget is not enough, and calls fn for each. */
struct limits_depth limits_look(struct registry *registry, const struct channel *channel,
				uint32_t *budget, limits_grant_fn fn, void *userdata);

#endif
