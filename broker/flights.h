/* SPDX-License-Identifier: MIT */
#ifndef BROKER_FLIGHTS_H
#define BROKER_FLIGHTS_H

/*
 * What a flight's memory says about its keys and who leads them.  Clients write it, so it is read
 * with pread and believed as far as a listing goes.
 */

#include <stdint.h>

#include "broker/registry.h"

/* Of one request, so that nobody keeps the broker from the others. */
struct flights_budget {
	uint32_t n_states; /* cells looked at */
	uint32_t n_leads;  /* leaders read */
};
#define FLIGHTS_BUDGET ((struct flights_budget){.n_states = 1 << 18, .n_leads = 1 << 12})

struct flights_depth {
	uint64_t now;  /* keys in flight */
	uint64_t ever; /* cells that were ever used */
};

/* leader is open on this very channel. */
typedef void (*flights_lead_fn)(const struct handle *leader, uint64_t since_ns, void *userdata);

/* Whether the budget is enough for all cells of the table. */
bool flights_fits(const struct channel *channel, const struct flights_budget *budget);

/* Looks at the cells, the first ones if the budget is not enough, and calls fn for each lead. */
struct flights_depth flights_look(struct registry *registry, const struct channel *channel,
				  struct flights_budget *budget, flights_lead_fn fn,
				  void *userdata);

#endif
