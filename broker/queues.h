/* SPDX-License-Identifier: MIT */
#ifndef BROKER_QUEUES_H
#define BROKER_QUEUES_H

/*
 * What a queue's memory says about its items and who holds them.  Clients write it, so it is read
 * with pread and believed as far as a listing or a line of the log goes.
 */

#include <stdint.h>

#include "broker/registry.h"
#include "include/ipc/admin.h"
#include "libipc/wire/protocol.h"

/* Of one request, so that nobody keeps the broker from the others. */
struct queues_budget {
	uint32_t n_words;  /* words of blocks looked at */
	uint32_t n_blocks; /* blocks read */
};
#define QUEUES_BUDGET ((struct queues_budget){.n_words = 1 << 18, .n_blocks = 1 << 12})

/* Bytes of all classes: what waits, is leased or is claimed; where items_max of the largest items
 * are within bytes_max, an estimate from some of them. */
struct queues_depth {
	uint64_t now;
	uint64_t ever; /* sum of what each class had at most; not less than now */
};

struct queues_depth queues_depth(const struct channel *channel);

/* holder is open on this very channel.  IPC_HOLDS_LEASES or IPC_HOLDS_CLAIMS: one of them. */
typedef void (*queues_hold_fn)(const struct handle *holder, enum ipc_holding holding,
			       uint64_t since_ns, void *userdata);

/* Looks at the blocks, the first ones if the budget is not enough, and calls fn for each that
 * somebody holds. */
void queues_look(struct registry *registry, const struct channel *channel,
		 struct queues_budget *budget, queues_hold_fn fn, void *userdata);

/* Fills in all but the head. */
void queues_state(struct registry *registry, const struct channel *channel,
		  struct queues_budget *budget, struct message_stated *ret);

struct queues_rest {
	uint64_t n_items; /* committed, and neither acknowledged nor given up */
	uint64_t n_bytes;
	bool is_less; /* there are more: the budget was not enough */
};

struct queues_rest queues_rest(const struct channel *channel, struct queues_budget *budget);

/* The channel is about to end: a line of the log about what ends with it. */
void queues_log_rest(const struct channel *channel);

#endif
