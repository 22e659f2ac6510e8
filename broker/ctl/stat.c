/* SPDX-License-Identifier: MIT */

/*
 * The command stat: what the broker knows of one channel, and of some kinds what is in it.
 */

#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <ipc/error.h>
#include <ipc/flight.h>
#include <ipc/queue.h>
#include <ipc/shared.h>

#include "broker/ctl/channel.h"
#include "broker/ctl/inbox.h"
#include "broker/ctl/json.h"
#include "broker/ctl/sessions.h"
#include "broker/ctl/state.h"
#include "broker/ctl/table.h"

struct stat_view {
	struct ipc_channel_info info;
	bool is_orphaned; /* sessions whose listener has gone: nothing is known but their name */

	/* By kind. */
	struct ipc_queue_state state;
	bool is_partial;
	struct inbox inbox;
	struct sessions sessions;
};

/* ---- looking ---- */

static int stat_look_inside(struct stat_view *view, const struct ctl *ctl, const char *name)
{
	int r;

	switch (view->info.kind) {
	case IPC_KIND_QUEUE:
		view->state.size = sizeof(view->state);
		r = ipc_queue_state_wait(ctl->client, name, &view->state, ctl->deadline);
		view->is_partial = r == 1;
		return r < 0 ? r : 0;
	case IPC_KIND_INBOX:
		return inbox_look(&view->inbox, ctl, name);
	case IPC_KIND_SESSION:
		return sessions_collect(&view->sessions, ctl, name);
	case IPC_KIND_WATCH:
	case IPC_KIND_SHARED:
	case IPC_KIND_FLIGHT:
	case IPC_KIND_LIMITER:
		return 0;
	}
	return 0; /* of a later release */
}

/* 0 or the library's result: IPC_ENOENT if there are no such sessions either. */
static int stat_look_for_orphans(struct stat_view *view, const struct ctl *ctl, const char *name)
{
	int r = sessions_collect(&view->sessions, ctl, name);

	if (r == 0 && view->sessions.n == 0)
		return IPC_ENOENT;

	view->info.kind = IPC_KIND_SESSION;
	snprintf(view->info.name, sizeof(view->info.name), "%s", name);
	view->is_orphaned = true;
	return r;
}

static int stat_look(struct stat_view *view, const struct ctl *ctl, const char *name)
{
	int r;

	view->info.size = sizeof(view->info);
	r = ipc_channel_info_wait(ctl->client, name, &view->info, ctl->deadline);
	if (r == IPC_ENOENT)
		return stat_look_for_orphans(view, ctl, name);

	return r < 0 ? r : stat_look_inside(view, ctl, name);
}

/* ---- as a table ---- */

static const char *group_name(char text[QUANTITY_SIZE], uint32_t gid)
{
	const struct group *group = getgrgid(gid);

	if (group && strlen(group->gr_name) < QUANTITY_SIZE)
		return strcpy(text, group->gr_name);
	snprintf(text, QUANTITY_SIZE, "%" PRIu32, gid);
	return text;
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
	table_add(table, "%s (%" PRIu32 ")", channel_user_name(text, info->uid), info->uid);
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
	if (info->kind != IPC_KIND_SESSION) { /* each session has its own */
		table_add(table, "depth");
		table_add(table, "%s, at most %s", channel_depth(text, info->kind, info->depth),
			  channel_depth(most, info->kind, info->depth_max));
	}
	table_add(table, "holder");
	if (info->holder_id)
		table_add(table, "process %" PRId64 ", handle %" PRIu64 ", for %s",
			  info->holder_pid, info->holder_id, quantity_time(text, info->held_ns));
	else
		table_add(table, "none");
}

static int stat_print(const struct stat_view *view)
{
	struct table table;
	int r;

	table_init(&table, 2, 0);
	if (view->is_orphaned) {
		table_add(&table, "name");
		table_add(&table, "%s", view->info.name);
		table_add(&table, "kind");
		table_add(&table, "session, its listener has gone");
	} else {
		table_add_details(&table, &view->info);
	}
	r = table_print(&table);
	table_deinit(&table);
	if (r < 0)
		return r;

	if (view->info.kind == IPC_KIND_QUEUE)
		return state_print(&view->state, view->is_partial);
	if (view->info.kind == IPC_KIND_INBOX)
		return inbox_print(&view->inbox);
	return view->info.kind == IPC_KIND_SESSION ? sessions_print(&view->sessions) : 0;
}

/* ---- as JSON ---- */

static json_t *json_sessions(const struct sessions *sessions)
{
	json_t *array = json_array();
	int r = array ? 0 : -1;

	for (size_t i = 0; i < sessions->n && r == 0; ++i)
		r = json_array_append_new(array, json_session(&sessions->infos[i]));
	if (r == 0)
		return array;

	json_decref(array);
	return NULL;
}

static json_t *json_end(const struct ipc_handle_info *end)
{
	return end->handle_id ? json_handle(end) : json_null();
}

static int stat_add_inbox(json_t *object, const struct inbox *inbox)
{
	json_t *positions = inbox->refused ? json_null() : json_positions(&inbox->positions);
	int r = 0;

	r |= json_object_set_new(object, "positions", positions);
	r |= json_object_set_new(object, "sender", json_end(&inbox->end[0]));
	r |= json_object_set_new(object, "receiver", json_end(&inbox->end[1]));
	return r;
}

static int stat_add_inside(json_t *object, struct stat_view *view)
{
	if (view->info.kind == IPC_KIND_QUEUE)
		return json_object_set_new(object, "state",
					   json_state(&view->state, view->is_partial));
	if (view->info.kind == IPC_KIND_INBOX)
		return stat_add_inbox(object, &view->inbox);
	if (view->info.kind == IPC_KIND_SESSION)
		return json_object_set_new(object, "sessions", json_sessions(&view->sessions));
	return 0;
}

static int stat_print_json(struct stat_view *view)
{
	json_t *object;
	int r;

	if (view->is_orphaned)
		object = json_pack("{s:s, s:s}", "name", view->info.name, "kind",
				   channel_kind_name(view->info.kind));
	else
		object = json_channel(&view->info);

	r = object ? stat_add_inside(object, view) : -1;
	if (r == 0)
		r = json_print(object);

	json_decref(object);
	return r;
}

int ctl_stat(const struct ctl *ctl)
{
	struct stat_view view = {0};
	int r;

	r = stat_look(&view, ctl, ctl->args[0]);
	if (r == 0 && (ctl->json ? stat_print_json(&view) : stat_print(&view)) < 0)
		r = IPC_ENOMEM;

	sessions_deinit(&view.sessions);
	return r < 0 ? ctl_fail(ctl->args[0], r) : 0;
}
