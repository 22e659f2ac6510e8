/* SPDX-License-Identifier: MIT */
#include "broker/ctl/state.h"

#include <inttypes.h>
#include <stdio.h>

#include "broker/ctl/quantity.h"
#include "broker/ctl/table.h"

const char *state_reason_name(enum ipc_dead_reason reason)
{
	switch (reason) {
	case IPC_DEAD_NONE:
		return "none";
	case IPC_DEAD_FULL:
		return "full";
	case IPC_DEAD_REJECTED:
		return "rejected";
	case IPC_DEAD_ATTEMPTS:
		return "attempts";
	case IPC_DEAD_CONSUMER_GONE:
		return "consumer_gone";
	}
	return "unknown"; /* of a later release */
}

/* "0", "2 rejected", "1 full, 2 attempts". */
static void table_add_reasons(struct table *table, const uint64_t counts[IPC_DEAD_REASONS_MAX])
{
	char text[IPC_DEAD_REASONS_MAX * 40];
	size_t length = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < IPC_DEAD_REASONS_MAX; ++i) {
		if (counts[i])
			length +=
				(size_t)snprintf(text + length, sizeof(text) - length,
						 "%s%" PRIu64 " %s", length ? ", " : "", counts[i],
						 state_reason_name((enum ipc_dead_reason)i));
	}
	table_add(table, "%s", length ? text : "0");
}

int state_print(const struct ipc_queue_state *state, bool is_partial)
{
	static const char *const heads[] = {"PRIORITY", "ITEMS",        "BYTES",         "LEASED",
					    "QUEUED",   "ACKNOWLEDGED", "DEAD-LETTERED", "DROPPED"};
	char text[QUANTITY_SIZE];
	struct table table;
	int r;

	table_init(&table, 8, 0x3f);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); ++i)
		table_add(&table, "%s", heads[i]);
	for (unsigned i = 0; i < state->priorities && i < IPC_PRIORITIES_MAX; ++i) {
		table_add(&table, "%u", i);
		table_add(&table, "%" PRIu64, state->items[i]);
		table_add(&table, "%s", quantity_bytes(text, state->bytes[i]));
		table_add(&table, "%" PRIu64, state->leased[i]);
		table_add(&table, "%" PRIu64, state->queued[i]);
		table_add(&table, "%" PRIu64, state->acknowledged[i]);
		table_add_reasons(&table, state->dead_lettered[i]);
		table_add_reasons(&table, state->dropped[i]);
	}

	printf("\n");
	r = table_print(&table);
	if (is_partial)
		printf("(of the first part of the items: there are too many to look at)\n");
	table_deinit(&table);
	return r;
}
