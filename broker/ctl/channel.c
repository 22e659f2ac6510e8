/* SPDX-License-Identifier: MIT */

/*
 * The commands list and remove.
 */

#include "broker/ctl/channel.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "broker/ctl/json.h"
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
	switch (kind) {
	case IPC_KIND_QUEUE:
	case IPC_KIND_INBOX:
	case IPC_KIND_SESSION:
		return quantity_bytes(text, depth);
	case IPC_KIND_WATCH:
	case IPC_KIND_SHARED:
	case IPC_KIND_FLIGHT:
	case IPC_KIND_LIMITER:
		break;
	}

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

const char *channel_user_name(char text[QUANTITY_SIZE], uint32_t uid)
{
	const struct passwd *passwd = getpwuid(uid);

	if (passwd && strlen(passwd->pw_name) < QUANTITY_SIZE)
		return strcpy(text, passwd->pw_name);
	snprintf(text, QUANTITY_SIZE, "%" PRIu32, uid);
	return text;
}

static void table_add_channel(struct table *table, const struct ipc_channel_info *info)
{
	char text[QUANTITY_SIZE];

	table_add(table, "%s", info->name);
	table_add(table, "%s", channel_kind_name(info->kind));
	table_add(table, "%s", channel_user_name(text, info->uid));
	table_add(table, "%04o", (unsigned)info->mode);
	table_add(table, "%s", quantity_bytes(text, info->item_size_max));
	table_add(table, "%s", quantity_bytes(text, info->bytes));
	table_add(table, "%" PRIu32 "+%" PRIu32, info->handles[0], info->handles[1]);
	table_add(table, "%" PRIu32, info->waiters);

	/* What is under way is in the sessions, not in the listener. */
	if (info->kind == IPC_KIND_SESSION)
		table_add(table, "-");
	else
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

int ctl_remove(const struct ctl *ctl)
{
	int r;

	r = ipc_channel_remove_wait(ctl->client, ctl->args[0], 0, ctl->deadline);
	return r < 0 ? ctl_fail(ctl->args[0], r) : 0;
}
