/* SPDX-License-Identifier: MIT */
#include "broker/ctl/sessions.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <ipc/error.h>

#include "broker/ctl/channel.h"
#include "broker/ctl/quantity.h"
#include "broker/ctl/table.h"

/* A callback of the list: only remembers, since it must not call the library. */
static int sessions_add(const struct ipc_session_info *info, void *userdata)
{
	struct sessions *sessions = userdata;

	if (sessions->n == sessions->n_max) {
		size_t n_max = sessions->n_max ? 2 * sessions->n_max : 64;
		void *infos = reallocarray(sessions->infos, n_max, sizeof(*sessions->infos));

		if (!infos)
			return IPC_ENOMEM;
		sessions->infos = infos;
		sessions->n_max = n_max;
	}

	sessions->infos[sessions->n++] = *info;
	return 0;
}

static int compare_generations(const void *a, const void *b)
{
	uint64_t generation_a = ((const struct ipc_session_info *)a)->generation;
	uint64_t generation_b = ((const struct ipc_session_info *)b)->generation;

	return (generation_a > generation_b) - (generation_a < generation_b);
}

int sessions_collect(struct sessions *sessions, const struct ctl *ctl, const char *name)
{
	int r;

	*sessions = (struct sessions){0};
	r = ipc_session_list_wait(ctl->client, name, sessions_add, sessions, ctl->deadline);
	if (r == 0 && sessions->n)
		qsort(sessions->infos, sessions->n, sizeof(sessions->infos[0]),
		      compare_generations);
	return r;
}

void sessions_deinit(struct sessions *sessions)
{
	free(sessions->infos);
	*sessions = (struct sessions){0};
}

uint64_t sessions_depth(const struct sessions *sessions)
{
	uint64_t depth = 0;

	for (size_t i = 0; i < sessions->n; ++i)
		depth += sessions->infos[i].depth[0] + sessions->infos[i].depth[1];
	return depth;
}

static void table_add_presence(struct table *table, const struct ipc_session_info *info,
			       unsigned end)
{
	char text[QUANTITY_SIZE];

	if (info->away_ns[end] == UINT64_MAX)
		table_add(table, "away, for ever");
	else if (info->away_ns[end])
		table_add(table, "away, %s left", quantity_time(text, info->away_ns[end]));
	else if (info->pid[end])
		table_add(table, "present");
	else
		table_add(table, "closed");
}

static void table_add_end(struct table *table, const struct ipc_session_info *info, unsigned end)
{
	char text[QUANTITY_SIZE];

	table_add(table, "%" PRIu64, info->generation);
	table_add(table, "%s", end == 0 ? "accepted" : "connected");
	if (info->pid[end])
		table_add(table, "%" PRId64, info->pid[end]);
	else
		table_add(table, "-");
	table_add(table, "%s", channel_user_name(text, info->uid[end]));
	table_add(table, "%" PRIu64, info->sent[end]);
	table_add(table, "%" PRIu64, info->acknowledged[end]);
	table_add(table, "%s", quantity_bytes(text, info->depth[end]));
	table_add(table, "%s", quantity_bytes(text, info->depth_max[end]));
	table_add(table, "%s", quantity_bytes(text, info->capacity));
	table_add(table, "%" PRIu64, info->resumes);
	table_add_presence(table, info, end);
}

int sessions_print(const struct sessions *sessions)
{
	static const char *const heads[] = {"SESSION", "END",          "PID",   "USER",
					    "SENT",    "ACKNOWLEDGED", "DEPTH", "MOST",
					    "ROOM",    "RESUMES",      "STATE"};
	struct table table;
	int r;

	table_init(&table, 11, 0x3f5);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); ++i)
		table_add(&table, "%s", heads[i]);
	for (size_t i = 0; i < sessions->n; ++i) {
		table_add_end(&table, &sessions->infos[i], 0);
		table_add_end(&table, &sessions->infos[i], 1);
	}

	printf("\n");
	r = table_print(&table);
	table_deinit(&table);
	return r;
}
