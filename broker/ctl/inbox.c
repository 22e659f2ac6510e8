/* SPDX-License-Identifier: MIT */
#include "broker/ctl/inbox.h"

#include <inttypes.h>
#include <stdio.h>

#include <ipc/error.h>

#include "broker/ctl/table.h"

/* A callback of the list. */
static int inbox_take_end(const struct ipc_handle_info *info, void *userdata)
{
	struct inbox *inbox = userdata;

	if (info->role == IPC_ROLE_INBOX_SENDER)
		inbox->end[0] = *info;
	else if (info->role == IPC_ROLE_INBOX_RECEIVER)
		inbox->end[1] = *info;
	return 0;
}

static int inbox_observe(struct inbox *inbox, const struct ctl *ctl, const char *name)
{
	ipc_inbox_observer *observer;
	int r;

	r = ipc_inbox_observer_open_wait(&observer, ctl->client, name, ctl->deadline);
	if (r < 0)
		return r;

	inbox->positions.size = sizeof(inbox->positions);
	r = ipc_inbox_observer_get_positions(observer, &inbox->positions);
	ipc_inbox_observer_close(observer);
	return r;
}

int inbox_look(struct inbox *inbox, const struct ctl *ctl, const char *name)
{
	*inbox = (struct inbox){0};

	/* A quota, for one, is no reason to keep back what the broker has told. */
	inbox->refused = inbox_observe(inbox, ctl, name);
	if (inbox->refused == IPC_ETIMEDOUT)
		return inbox->refused;

	return ipc_client_list_handles_wait(ctl->client, name, inbox_take_end, inbox,
					    ctl->deadline);
}

static void table_add_end(struct table *table, const char *what, const struct ipc_handle_info *end)
{
	table_add(table, "%s", what);
	if (end->handle_id)
		table_add(table, "process %" PRId64 " (%s), handle %" PRIu64, end->pid,
			  end->process_name, end->handle_id);
	else
		table_add(table, "none");
}

static void table_add_number(struct table *table, const char *what, uint64_t value)
{
	table_add(table, "%s", what);
	table_add(table, "%" PRIu64, value);
}

/* Generation 0 is none. */
static void table_add_snapshot(struct table *table, const char *what, uint64_t generation)
{
	table_add(table, "%s", what);
	if (generation)
		table_add(table, "generation %" PRIu64, generation);
	else
		table_add(table, "none");
}

int inbox_print(const struct inbox *inbox)
{
	const struct ipc_inbox_positions *positions = &inbox->positions;
	struct table table;
	int r;

	table_init(&table, 2, 0);
	table_add_end(&table, "sender", &inbox->end[0]);
	table_add_end(&table, "receiver", &inbox->end[1]);
	if (inbox->refused) {
		table_add(&table, "positions");
		table_add(&table, "not seen: %s (%s)", ipc_error_text(inbox->refused),
			  ipc_error_name(inbox->refused));
	} else {
		table_add_number(&table, "written", positions->written);
		table_add_number(&table, "received", positions->received);
		table_add_number(&table, "applied", positions->applied);
		table_add_snapshot(&table, "snapshot", positions->generation);
		table_add_snapshot(&table, "applied of", positions->applied_generation);
		table_add_number(&table, "wanted", positions->snapshot_wanted);
	}

	printf("\n");
	r = table_print(&table);
	table_deinit(&table);
	return r;
}
