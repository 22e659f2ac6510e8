/* SPDX-License-Identifier: MIT */
#include "broker/ctl/sample.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ipc/error.h>

#include "broker/ctl/handles.h"

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

static int compare_to_name(const void *name, const void *row)
{
	return strcmp(name, ((const struct sample_row *)row)->info.name);
}

static void row_compare(struct sample_row *row, const struct sample *before, uint64_t now_ns)
{
	const struct sample_row *old = NULL;

	if (before->n && before->at_ns < now_ns)
		old = bsearch(row->info.name, before->rows, before->n, sizeof(*before->rows),
			      compare_to_name);
	if (!old || old->info.generation != row->info.generation)
		return;

	row->has_change = true;
	row->depth_change = ((double)row->info.depth - (double)old->info.depth) /
			    ((double)(now_ns - before->at_ns) / 1e9);
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
		row_compare(row, before, sample->at_ns);
		r = row_find_holder(row, ctl);
	}

	channels_deinit(&channels);
	return r;
}

void sample_deinit(struct sample *sample)
{
	free(sample->rows);
	*sample = (struct sample){0};
}
