/* SPDX-License-Identifier: MIT */
#include "broker/ctl/sample.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ipc/error.h>
#include <ipc/queue.h>

#include "broker/ctl/handles.h"
#include "broker/ctl/sessions.h"

uint64_t sample_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* What the list does not tell: the name of the process, and of a queue who holds its items. */
static int row_find_holder(struct sample_row *row, const struct ctl *ctl)
{
	struct handles handles;
	int r;

	if (row->info.holder_id == 0 && (row->info.kind != IPC_KIND_QUEUE || row->info.depth == 0))
		return 0;

	r = handles_of(&handles, ctl, row->info.name);
	for (size_t i = 0; i < handles.n; ++i) {
		const struct ipc_handle_info *info = &handles.handles[i].info;

		if (handle_is_in_the_way(info->holds) &&
		    (row->holder.handle_id == 0 || info->held_ns > row->holder.held_ns))
			row->holder = *info;
	}
	handles_deinit(&handles);
	return r == IPC_ENOENT || r == IPC_EACCES ? 0 : r;
}

static int row_count_items(struct sample_row *row, const struct ctl *ctl)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	int r;

	if (row->info.kind != IPC_KIND_QUEUE)
		return 0;

	r = ipc_queue_state_wait(ctl->client, row->info.name, &state, ctl->deadline);
	for (unsigned i = 0; i < IPC_PRIORITIES_MAX && r >= 0; ++i) {
		row->n_in += state.queued[i];
		row->n_out += state.acknowledged[i];
	}
	row->has_items = r >= 0;

	/* It has gone meanwhile, and another kind has its name. */
	return r > 0 || r == IPC_ENOENT || r == IPC_EACCES || r == IPC_EPROTOTYPE ? 0 : r;
}

/* Nothing is under way in a listener itself. */
static int row_add_sessions(struct sample_row *row, const struct ctl *ctl)
{
	struct sessions sessions;
	int r;

	if (row->info.kind != IPC_KIND_SESSION)
		return 0;

	r = sessions_collect(&sessions, ctl, row->info.name);
	row->info.depth = sessions_depth(&sessions);
	sessions_deinit(&sessions);
	return r == IPC_ENOENT || r == IPC_EACCES || r == IPC_EPROTOTYPE ? 0 : r;
}

static int compare_to_name(const void *name, const void *row)
{
	return strcmp(name, ((const struct sample_row *)row)->info.name);
}

static double grown(uint64_t from, uint64_t to, double seconds)
{
	return ((double)to - (double)from) / seconds;
}

static void row_compare(struct sample_row *row, const struct sample *before, uint64_t now_ns)
{
	const struct sample_row *old = NULL;
	double seconds;

	if (before->n && before->at_ns < now_ns)
		old = bsearch(row->info.name, before->rows, before->n, sizeof(*before->rows),
			      compare_to_name);
	if (!old || old->info.generation != row->info.generation)
		return;

	seconds = (double)(now_ns - before->at_ns) / 1e9;
	row->has_change = true;
	row->depth_change = grown(old->info.depth, row->info.depth, seconds);
	row->in = grown(old->n_in, row->n_in, seconds);
	row->out = grown(old->n_out, row->n_out, seconds);
	row->has_items = row->has_items && old->has_items;
}

int sample_take(struct sample *sample, const struct ctl *ctl, const char *pattern,
		const struct sample *before)
{
	struct channels channels;
	int r;

	*sample = (struct sample){.at_ns = sample_now_ns()};
	r = channels_collect(&channels, ctl, pattern);
	if (r == 0 && channels.n) {
		sample->rows = calloc(channels.n, sizeof(*sample->rows));
		if (!sample->rows)
			r = IPC_ENOMEM;
	}

	for (size_t i = 0; r == 0 && i < channels.n; ++i) {
		struct sample_row *row = &sample->rows[sample->n++];

		row->info = channels.infos[i];
		sample->n_waiters += row->info.waiters;
		r = row_find_holder(row, ctl);
		if (r == 0)
			r = row_count_items(row, ctl);
		if (r == 0)
			r = row_add_sessions(row, ctl);
		if (r == 0)
			row_compare(row, before, sample->at_ns);
	}

	channels_deinit(&channels);
	return r;
}

void sample_deinit(struct sample *sample)
{
	free(sample->rows);
	*sample = (struct sample){0};
}
