/* SPDX-License-Identifier: MIT */

/*
 * The commands list, stat and remove.
 */

#include "broker/ctl/channel.h"

#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>
#include <ipc/flight.h>
#include <ipc/queue.h>
#include <ipc/shared.h>

#include "broker/ctl/json.h"
#include "broker/ctl/state.h"
#include "broker/ctl/table.h"

const char *channel_kind_name(enum ipc_kind kind)
{
	switch (kind) {
	case IPC_KIND_WATCH:
		return "watch";
	case IPC_KIND_SHARED:
		return "shared";
	case IPC_KIND_QUEUE:
		return "queue";
	case IPC_KIND_FLIGHT:
		return "flight";
	case IPC_KIND_INBOX:
		return "inbox";
	case IPC_KIND_SESSION:
		return "session";
	case IPC_KIND_LIMITER:
		return "limiter";
	}
	return "unknown"; /* of a later release */
}

const char *channel_depth(char text[QUANTITY_SIZE], enum ipc_kind kind, uint64_t depth)
{
	if (kind == IPC_KIND_QUEUE)
		return quantity_bytes(text, depth);

	snprintf(text, QUANTITY_SIZE, "%" PRIu64, depth);
	return text;
}

/* A callback of the list: only remembers, since it must not call the library. */
static int channels_add(const struct ipc_channel_info *info, void *userdata)
{
	struct channels *channels = userdata;

	if (channels->n == channels->n_max) {
		size_t n_max = channels->n_max ? 2 * channels->n_max : 64;
		void *infos = reallocarray(channels->infos, n_max, sizeof(*channels->infos));

		if (!infos)
			return IPC_ENOMEM;
		channels->infos = infos;
		channels->n_max = n_max;
	}

	channels->infos[channels->n++] = *info;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct ipc_channel_info *)a)->name,
		      ((const struct ipc_channel_info *)b)->name);
}

int channels_collect(struct channels *channels, const struct ctl *ctl, const char *pattern)
{
	int r;

	*channels = (struct channels){0};
	r = ipc_client_list_wait(ctl->client, pattern, channels_add, channels, ctl->deadline);
	if (r == 0 && channels->n)
		qsort(channels->infos, channels->n, sizeof(channels->infos[0]), compare_names);
	return r;
}

void channels_deinit(struct channels *channels)
{
	free(channels->infos);
	*channels = (struct channels){0};
}

static const char *user_name(char text[QUANTITY_SIZE], uint32_t uid)
{
	const struct passwd *passwd = getpwuid(uid);

	if (passwd && strlen(passwd->pw_name) < QUANTITY_SIZE)
		return strcpy(text, passwd->pw_name);
	snprintf(text, QUANTITY_SIZE, "%" PRIu32, uid);
	return text;
}

static const char *group_name(char text[QUANTITY_SIZE], uint32_t gid)
{
	const struct group *group = getgrgid(gid);

	if (group && strlen(group->gr_name) < QUANTITY_SIZE)
		return strcpy(text, group->gr_name);
	snprintf(text, QUANTITY_SIZE, "%" PRIu32, gid);
	return text;
}

static void table_add_channel(struct table *table, const struct ipc_channel_info *info)
{
	char text[QUANTITY_SIZE];

	table_add(table, "%s", info->name);
	table_add(table, "%s", channel_kind_name(info->kind));
	table_add(table, "%s", user_name(text, info->uid));
	table_add(table, "%04o", (unsigned)info->mode);
	table_add(table, "%s", quantity_bytes(text, info->item_size_max));
	table_add(table, "%s", quantity_bytes(text, info->bytes));
	table_add(table, "%" PRIu32 "+%" PRIu32, info->handles[0], info->handles[1]);
	table_add(table, "%" PRIu32, info->waiters);
	table_add(table, "%s", channel_depth(text, info->kind, info->depth));
	if (info->holder_id) {
		table_add(table, "%" PRId64, info->holder_pid);
		table_add(table, "%s", quantity_time(text, info->held_ns));
	} else {
		table_add(table, "-");
		table_add(table, "-");
	}
}

static int channels_print(const struct channels *channels)
{
	static const char *const heads[] = {"NAME",  "KIND",   "OWNER",   "MODE",
					    "SIZE",  "MEMORY", "HANDLES", "WAITERS",
					    "DEPTH", "HOLDER", "HELD"};
	struct table table;
	int r;

	table_init(&table, 11, 0x7f0);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); ++i)
		table_add(&table, "%s", heads[i]);
	for (size_t i = 0; i < channels->n; ++i)
		table_add_channel(&table, &channels->infos[i]);

	r = table_print(&table);
	table_deinit(&table);
	return r < 0 ? ctl_fail("list", IPC_ENOMEM) : 0;
}

static int channels_print_json(const struct channels *channels)
{
	json_t *array = json_array();
	int r = array ? 0 : -1;

	for (size_t i = 0; i < channels->n && r == 0; ++i)
		r = json_array_append_new(array, json_channel(&channels->infos[i]));
	if (r == 0)
		r = json_print(array);

	json_decref(array);
	return r < 0 ? ctl_fail("list", IPC_ENOMEM) : 0;
}

int ctl_list(const struct ctl *ctl)
{
	const char *pattern = ctl->args[0] ? ctl->args[0] : "*";
	struct channels channels;
	int r;

	r = channels_collect(&channels, ctl, pattern);
	if (r < 0)
		r = ctl_fail(ctl->args[0] ? pattern : "list", r);
	else
		r = ctl->json ? channels_print_json(&channels) : channels_print(&channels);
	channels_deinit(&channels);
	return r;
}

static const char *flags_text(char text[QUANTITY_SIZE], const struct ipc_channel_info *info)
{
	static const struct {
		enum ipc_kind kind; /* 0: every kind */
		uint64_t flag;
		const char *name;
	} known[] = {
		{0, IPC_KEEP, "keep"},
		{IPC_KIND_SHARED, IPC_SHARED_IN_PLACE, "in place"},
		{IPC_KIND_FLIGHT, IPC_FLIGHT_TABLE_NO_PROMOTE, "no promotion"},
	};
	uint64_t others = info->flags;
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); ++i) {
		if ((known[i].kind && known[i].kind != info->kind) ||
		    !(info->flags & known[i].flag))
			continue;
		others &= ~known[i].flag;
		length += (size_t)snprintf(text + length, QUANTITY_SIZE - length, "%s%s",
					   length ? ", " : "", known[i].name);
	}

	/* Of a later release: not ours to name. */
	if (others)
		snprintf(text, QUANTITY_SIZE, "0x%" PRIx64, info->flags);
	return text[0] ? text : "none";
}

static void table_add_details(struct table *table, const struct ipc_channel_info *info)
{
	char text[QUANTITY_SIZE], most[QUANTITY_SIZE];

	table_add(table, "name");
	table_add(table, "%s", info->name);
	table_add(table, "kind");
	table_add(table, "%s", channel_kind_name(info->kind));
	table_add(table, "generation");
	table_add(table, "%" PRIu64, info->generation);
	table_add(table, "owner");
	table_add(table, "%s (%" PRIu32 ")", user_name(text, info->uid), info->uid);
	table_add(table, "group");
	table_add(table, "%s (%" PRIu32 ")", group_name(text, info->gid), info->gid);
	table_add(table, "mode");
	table_add(table, "%04o", (unsigned)info->mode);
	table_add(table, "flags");
	table_add(table, "%s", flags_text(text, info));
	table_add(table, "size");
	table_add(table, "%s", quantity_bytes(text, info->item_size_max));
	table_add(table, "capacity");
	table_add(table, "%s", channel_depth(text, info->kind, info->capacity));
	table_add(table, "memory");
	table_add(table, "%s", quantity_bytes(text, info->bytes));
	table_add(table, "handles");
	table_add(table, "%" PRIu32 "+%" PRIu32, info->handles[0], info->handles[1]);
	table_add(table, "waiters");
	table_add(table, "%" PRIu32, info->waiters);
	table_add(table, "depth");
	table_add(table, "%s, at most %s", channel_depth(text, info->kind, info->depth),
		  channel_depth(most, info->kind, info->depth_max));
	table_add(table, "holder");
	if (info->holder_id)
		table_add(table, "process %" PRId64 ", handle %" PRIu64 ", for %s",
			  info->holder_pid, info->holder_id, quantity_time(text, info->held_ns));
	else
		table_add(table, "none");
}

/* Of a queue with what stands in it; state NULL: it is none. */
static int stat_print(const struct ipc_channel_info *info, const struct ipc_queue_state *state,
		      bool is_partial)
{
	struct table table;
	int r;

	table_init(&table, 2, 0);
	table_add_details(&table, info);
	r = table_print(&table);
	table_deinit(&table);
	return r == 0 && state ? state_print(state, is_partial) : r;
}

static int stat_print_json(const struct ipc_channel_info *info, struct ipc_queue_state *state,
			   bool is_partial)
{
	json_t *object = json_channel(info);
	int r = 0;

	if (state)
		r = json_object_set_new(object, "state", json_state(state, is_partial));
	if (r == 0)
		r = json_print(object);

	json_decref(object);
	return r;
}

int ctl_stat(const struct ctl *ctl)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	struct ipc_queue_state state = {.size = sizeof(state)};
	bool is_queue;
	int r;

	r = ipc_channel_info_wait(ctl->client, ctl->args[0], &info, ctl->deadline);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);

	is_queue = info.kind == IPC_KIND_QUEUE;
	if (is_queue)
		r = ipc_queue_state_wait(ctl->client, ctl->args[0], &state, ctl->deadline);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);

	if (ctl->json)
		r = stat_print_json(&info, is_queue ? &state : NULL, r == 1);
	else
		r = stat_print(&info, is_queue ? &state : NULL, r == 1);
	return r < 0 ? ctl_fail(ctl->args[0], IPC_ENOMEM) : 0;
}

int ctl_remove(const struct ctl *ctl)
{
	int r;

	r = ipc_channel_remove_wait(ctl->client, ctl->args[0], 0, ctl->deadline);
	return r < 0 ? ctl_fail(ctl->args[0], r) : 0;
}
