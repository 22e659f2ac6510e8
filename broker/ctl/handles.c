/* SPDX-License-Identifier: MIT */

/*
 * The commands handles and stalled.
 */

#include "broker/ctl/handles.h"

#include <inttypes.h>
#include <stdlib.h>

#include <ipc/error.h>

#include "broker/ctl/json.h"
#include "broker/ctl/quantity.h"
#include "broker/ctl/table.h"

const char *handle_role_name(enum ipc_role role)
{
	switch (role) {
	case IPC_ROLE_WATCH_PRODUCER:
		return "watch_producer";
	case IPC_ROLE_WATCH_CONSUMER:
		return "watch_consumer";
	case IPC_ROLE_WATCH_WEAK:
		return "watch_weak";
	case IPC_ROLE_SHARED_A:
		return "shared_a";
	case IPC_ROLE_SHARED_B:
		return "shared_b";
	case IPC_ROLE_QUEUE_PRODUCER:
		return "queue_producer";
	case IPC_ROLE_QUEUE_CONSUMER:
		return "queue_consumer";
	case IPC_ROLE_GROUP:
		return "group";
	case IPC_ROLE_FLIGHT_TABLE:
		return "flight_table";
	case IPC_ROLE_HANDLER:
		return "handler";
	case IPC_ROLE_INBOX_SENDER:
		return "inbox_sender";
	case IPC_ROLE_INBOX_RECEIVER:
		return "inbox_receiver";
	case IPC_ROLE_INBOX_OBSERVER:
		return "inbox_observer";
	case IPC_ROLE_LISTENER:
		return "listener";
	case IPC_ROLE_SESSION:
		return "session";
	case IPC_ROLE_LIMITER:
		return "limiter";
	}
	return "unknown"; /* of a later release */
}

const char *handle_holding_name(enum ipc_holding holding)
{
	switch (holding) {
	case IPC_HOLDS_NOTHING:
		return "nothing";
	case IPC_HOLDS_LOCK:
		return "lock";
	case IPC_HOLDS_LEAD:
		return "lead";
	case IPC_HOLDS_LEASES:
		return "leases";
	case IPC_HOLDS_PERMITS:
		return "permits";
	case IPC_HOLDS_CLAIMS:
		return "claims";
	}
	return "unknown";
}

bool handle_is_in_the_way(enum ipc_holding holding)
{
	switch (holding) {
	case IPC_HOLDS_NOTHING:
	case IPC_HOLDS_CLAIMS:
		return false;
	case IPC_HOLDS_LOCK:
	case IPC_HOLDS_LEAD:
	case IPC_HOLDS_LEASES:
	case IPC_HOLDS_PERMITS:
		return true;
	}
	return true;
}

/* ---- collecting ---- */

/* A callback of the list: only remembers, since it must not call the library. */
static int handles_add(const struct ipc_handle_info *info, void *userdata)
{
	struct handles *handles = userdata;

	if (handles->n == handles->n_max) {
		size_t n_max = handles->n_max ? 2 * handles->n_max : 64;
		void *larger = reallocarray(handles->handles, n_max, sizeof(*handles->handles));

		if (!larger)
			return IPC_ENOMEM;
		handles->handles = larger;
		handles->n_max = n_max;
	}

	handles->handles[handles->n++] = (struct handle){.info = *info};
	return 0;
}

int handles_of(struct handles *handles, const struct ctl *ctl, const char *name)
{
	*handles = (struct handles){0};
	return ipc_client_list_handles_wait(ctl->client, name, handles_add, handles, ctl->deadline);
}

/* A channel that has gone meanwhile has no handles. */
static int handles_add_channel(struct handles *handles, const struct ctl *ctl,
			       const struct ipc_channel_info *channel)
{
	size_t before = handles->n;
	int r;

	r = ipc_client_list_handles_wait(ctl->client, channel->name, handles_add, handles,
					 ctl->deadline);
	for (size_t i = before; i < handles->n; ++i)
		handles->handles[i].channel = channel;
	return r == IPC_ENOENT || r == IPC_EACCES ? 0 : r;
}

int handles_collect(struct handles *handles, const struct ctl *ctl, const char *pattern)
{
	int r;

	*handles = (struct handles){0};
	r = channels_collect(&handles->channels, ctl, pattern);
	for (size_t i = 0; i < handles->channels.n && r == 0; ++i)
		r = handles_add_channel(handles, ctl, &handles->channels.infos[i]);
	return r;
}

void handles_deinit(struct handles *handles)
{
	channels_deinit(&handles->channels);
	free(handles->handles);
	*handles = (struct handles){0};
}

/* ---- handles ---- */

/* Two cells: what, and for how long. */
static void table_add_held(struct table *table, const struct ipc_handle_info *info)
{
	char text[QUANTITY_SIZE];

	if (info->holds == IPC_HOLDS_NOTHING) {
		table_add(table, "-");
		table_add(table, "-");
		return;
	}

	if (info->n_held > 1)
		table_add(table, "%" PRIu32 " %s", info->n_held, handle_holding_name(info->holds));
	else
		table_add(table, "%s", handle_holding_name(info->holds));
	table_add(table, "%s", quantity_time(text, info->held_ns));
}

static void table_add_handle(struct table *table, const struct ipc_handle_info *info)
{
	char text[QUANTITY_SIZE];

	table_add(table, "%" PRIu64, info->handle_id);
	table_add(table, "%" PRId64, info->pid);
	table_add(table, "%s", info->process_name);
	table_add(table, "%s%s", handle_role_name(info->role), info->weak ? " (weak)" : "");
	table_add_held(table, info);
	if (info->waiting_ns) {
		table_add(table, "%s", quantity_time(text, info->waiting_ns));
		if (info->waiting_for)
			table_add(table, "%" PRIu64, info->waiting_for);
		else
			table_add(table, "-");
	} else {
		table_add(table, "-");
		table_add(table, "-");
	}
}

static int handles_print(const struct handles *handles)
{
	static const char *const heads[] = {"HANDLE", "PID",  "PROCESS", "ROLE",
					    "HOLDS",  "HELD", "WAITING", "FOR"};
	struct table table;
	int r;

	table_init(&table, 8, 0xe3);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); ++i)
		table_add(&table, "%s", heads[i]);
	for (size_t i = 0; i < handles->n; ++i)
		table_add_handle(&table, &handles->handles[i].info);

	r = table_print(&table);
	table_deinit(&table);
	return r;
}

static int handles_print_json(const struct handles *handles)
{
	json_t *array = json_array();
	int r = array ? 0 : -1;

	for (size_t i = 0; i < handles->n && r == 0; ++i)
		r = json_array_append_new(array, json_handle(&handles->handles[i].info));
	if (r == 0)
		r = json_print(array);

	json_decref(array);
	return r;
}

int ctl_handles(const struct ctl *ctl)
{
	struct handles handles;
	int r;

	r = handles_of(&handles, ctl, ctl->args[0]);
	if (r == 0 && (ctl->json ? handles_print_json(&handles) : handles_print(&handles)) < 0)
		r = IPC_ENOMEM;

	handles_deinit(&handles);
	return r < 0 ? ctl_fail(ctl->args[0], r) : 0;
}

/* ---- stalled ---- */

static int compare_held(const void *a, const void *b)
{
	uint64_t held_a = ((const struct handle *)a)->info.held_ns;
	uint64_t held_b = ((const struct handle *)b)->info.held_ns;

	return (held_a < held_b) - (held_a > held_b);
}

/* Leaves those that hold something for longer, the longest first. */
static void handles_keep_stalled(struct handles *handles, uint64_t over_ns)
{
	size_t n = 0;

	for (size_t i = 0; i < handles->n; ++i) {
		const struct ipc_handle_info *info = &handles->handles[i].info;

		if (handle_is_in_the_way(info->holds) && info->held_ns > over_ns)
			handles->handles[n++] = handles->handles[i];
	}

	handles->n = n;
	if (n)
		qsort(handles->handles, n, sizeof(handles->handles[0]), compare_held);
}

static int stalled_print(const struct handles *handles)
{
	static const char *const heads[] = {"CHANNEL", "KIND", "PID",   "PROCESS",
					    "HANDLE",  "ROLE", "HOLDS", "HELD"};
	struct table table;
	int r;

	table_init(&table, 8, 0x94);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); ++i)
		table_add(&table, "%s", heads[i]);
	for (size_t i = 0; i < handles->n; ++i) {
		const struct handle *handle = &handles->handles[i];

		table_add(&table, "%s", handle->channel->name);
		table_add(&table, "%s", channel_kind_name(handle->channel->kind));
		table_add(&table, "%" PRId64, handle->info.pid);
		table_add(&table, "%s", handle->info.process_name);
		table_add(&table, "%" PRIu64, handle->info.handle_id);
		table_add(&table, "%s", handle_role_name(handle->info.role));
		table_add_held(&table, &handle->info);
	}

	r = table_print(&table);
	table_deinit(&table);
	return r;
}

static json_t *json_stalled(const struct handle *handle)
{
	json_t *object = json_handle(&handle->info);
	int r = 0;

	r |= json_object_set_new(object, "channel", json_string(handle->channel->name));
	r |= json_object_set_new(object, "kind",
				 json_string(channel_kind_name(handle->channel->kind)));
	if (r == 0)
		return object;

	json_decref(object);
	return NULL;
}

static int stalled_print_json(const struct handles *handles)
{
	json_t *array = json_array();
	int r = array ? 0 : -1;

	for (size_t i = 0; i < handles->n && r == 0; ++i)
		r = json_array_append_new(array, json_stalled(&handles->handles[i]));
	if (r == 0)
		r = json_print(array);

	json_decref(array);
	return r;
}

int ctl_stalled(const struct ctl *ctl)
{
	const char *pattern = ctl->args[0] ? ctl->args[0] : "*";
	struct handles handles;
	int r;

	r = handles_collect(&handles, ctl, pattern);
	if (r == 0) {
		handles_keep_stalled(&handles, ctl->over_ns);
		if ((ctl->json ? stalled_print_json(&handles) : stalled_print(&handles)) < 0)
			r = IPC_ENOMEM;
	}

	handles_deinit(&handles);
	return r < 0 ? ctl_fail(ctl->args[0] ? pattern : "stalled", r) : 0;
}
