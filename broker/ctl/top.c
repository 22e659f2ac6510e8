/* SPDX-License-Identifier: MIT */

/*
 * The command top: all channels, again and again.
 *
 * It looks and opens nothing, so that it changes nothing: a handle more would be a peer more.  The
 * broker is asked for a short time only, since nothing else happens meanwhile: where it does not
 * answer, the last answer stays, and how old that is is told.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "broker/ctl/channel.h"
#include "broker/ctl/handles.h"
#include "broker/ctl/quantity.h"
#include "broker/ctl/sample.h"
#include "broker/ctl/screen.h"
#include "broker/ctl/table.h"

#define ASK_NS           UINT64_C(1000000000)
#define INTERVAL_DEFAULT UINT64_C(2000000000)

struct top {
	const struct ctl *ctl;
	struct ctl asking; /* the same, with a deadline near by */
	struct timespec deadline;
	struct screen screen;
	struct sample sample;
	bool is_answered; /* the last time */
	const struct top_order *order;
	uint64_t interval_ns;
	uint64_t n_left; /* pages; 0: no end */
};

/* ---- order ---- */

static int falling(double a, double b)
{
	return (a < b) - (a > b);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct sample_row *)a)->info.name,
		      ((const struct sample_row *)b)->info.name);
}

static int compare_depths(const void *a, const void *b)
{
	int r = falling((double)((const struct sample_row *)a)->info.depth,
			(double)((const struct sample_row *)b)->info.depth);

	return r ? r : compare_names(a, b);
}

static int compare_changes(const void *a, const void *b)
{
	int r = falling(((const struct sample_row *)a)->depth_change,
			((const struct sample_row *)b)->depth_change);

	return r ? r : compare_names(a, b);
}

static int compare_in(const void *a, const void *b)
{
	int r = falling(((const struct sample_row *)a)->in, ((const struct sample_row *)b)->in);

	return r ? r : compare_names(a, b);
}

static int compare_out(const void *a, const void *b)
{
	int r = falling(((const struct sample_row *)a)->out, ((const struct sample_row *)b)->out);

	return r ? r : compare_names(a, b);
}

static int compare_waiters(const void *a, const void *b)
{
	int r = falling(((const struct sample_row *)a)->info.waiters,
			((const struct sample_row *)b)->info.waiters);

	return r ? r : compare_names(a, b);
}

static int compare_held(const void *a, const void *b)
{
	int r = falling((double)((const struct sample_row *)a)->holder.held_ns,
			(double)((const struct sample_row *)b)->holder.held_ns);

	return r ? r : compare_names(a, b);
}

/* Its key is the first letter. */
static const struct top_order {
	const char *name;
	int (*compare)(const void *a, const void *b);
} orders[] = {
	{"name", compare_names}, {"depth", compare_depths}, {"change", compare_changes},
	{"in", compare_in},      {"out", compare_out},      {"waiters", compare_waiters},
	{"held", compare_held},
};
#define N_ORDERS (sizeof(orders) / sizeof(orders[0]))

static void rows_sort(struct sample *sample, int (*compare)(const void *a, const void *b))
{
	if (sample->n)
		qsort(sample->rows, sample->n, sizeof(*sample->rows), compare);
}

bool top_has_order(const char *name)
{
	for (size_t i = 0; i < N_ORDERS; ++i) {
		if (strcmp(orders[i].name, name) == 0)
			return true;
	}
	return false;
}

/* ---- a page ---- */

/* What a process calls itself must not steer a terminal. */
static const char *plain(char text[64], const char *name)
{
	size_t i;

	for (i = 0; i < 63 && name[i]; ++i)
		text[i] = name[i];
	text[i] = '\0';
	for (i = 0; text[i]; ++i) {
		if (text[i] < ' ' || text[i] > '~')
			text[i] = '?';
	}
	return text;
}

/* Never an exponent: from 1000 on the whole number. */
static void table_add_rate(struct table *table, bool is_known, const char *sign, double rate)
{
	if (!is_known)
		table_add(table, "-");
	else if (rate > -1000 && rate < 1000)
		table_add(table, "%s%.3g", sign, rate);
	else
		table_add(table, "%s%.0f", sign, rate);
}

static void table_add_row(struct table *table, const struct sample_row *row, uint64_t over_ns)
{
	const struct ipc_channel_info *info = &row->info;
	char text[QUANTITY_SIZE], name[64];

	table_add(table, "%s", info->name);
	table_add(table, "%s", channel_kind_name(info->kind));
	table_add(table, "%" PRIu32 "+%" PRIu32, info->handles[0], info->handles[1]);
	table_add(table, "%" PRIu32, info->waiters);
	table_add(table, "%s", channel_depth(text, info->kind, info->depth));
	table_add_rate(table, row->has_change, row->depth_change > 0 ? "+" : "", row->depth_change);
	table_add_rate(table, row->has_change && row->has_items, "", row->in);
	table_add_rate(table, row->has_change && row->has_items, "", row->out);

	if (row->holder.handle_id) {
		table_add(table, "%s", handle_holding_name(row->holder.holds));
		table_add(table, "%s%s", row->holder.held_ns > over_ns ? "! " : "",
			  quantity_time(text, row->holder.held_ns));
		table_add(table, "%" PRId64, row->holder.pid);
		table_add(table, "%s", plain(name, row->holder.process_name));
	} else {
		for (unsigned i = 0; i < 4; ++i)
			table_add(table, "-");
	}
}

static void page_head(const struct top *top, FILE *file)
{
	const struct sample *sample = &top->sample;
	uint64_t n_stalled = 0, age_ns = sample_now_ns() - sample->at_ns;
	char text[QUANTITY_SIZE];
	struct tm local;
	time_t now;

	for (size_t i = 0; i < sample->n; ++i)
		n_stalled += sample->rows[i].holder.handle_id &&
			     sample->rows[i].holder.held_ns > top->ctl->over_ns;

	now = time(NULL);
	if (!localtime_r(&now, &local))
		local = (struct tm){0};
	fprintf(file, "%02d:%02d:%02d  ", local.tm_hour, local.tm_min, local.tm_sec);
	if (!top->is_answered)
		fprintf(file, "no answer for %s  ", quantity_time(text, age_ns));
	fprintf(file, "channels %zu  waiters %" PRIu64 "  stalled %" PRIu64 " (over %s)", sample->n,
		sample->n_waiters, n_stalled, quantity_time(text, top->ctl->over_ns));
	fputc('\n', file);
}

static int page_show(struct top *top)
{
	static const char *const heads[] = {"NAME",    "KIND",    "HANDLES", "WAITERS",
					    "DEPTH",   "DEPTH/S", "IN/S",    "OUT/S",
					    "HOLDING", "HELD",    "HOLDER",  "PROCESS"};
	struct table table;
	size_t size;
	char *page;
	FILE *file;
	int error;

	file = open_memstream(&page, &size);
	if (!file)
		return errno;

	rows_sort(&top->sample, top->order->compare);
	table_init(&table, 12, 0x6fc);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); ++i)
		table_add(&table, "%s", heads[i]);
	for (size_t i = 0; i < top->sample.n; ++i)
		table_add_row(&table, &top->sample.rows[i], top->ctl->over_ns);

	page_head(top, file);
	error = table_write(&table, file) == 0 ? 0 : ENOMEM;
	if (!top->screen.is_live)
		fputc('\n', file);
	table_deinit(&table);

	if (fclose(file) != 0 && !error)
		error = errno;
	if (!error)
		error = screen_show(&top->screen, page);
	free(page);
	return error;
}

/* ---- the loop ---- */

/* Of --timeout. */
static uint64_t last_ns(const struct ctl *ctl)
{
	return ctl->deadline ? (uint64_t)ctl->deadline->tv_sec * 1000000000 +
				       (uint64_t)ctl->deadline->tv_nsec
			     : UINT64_MAX;
}

/* 0, or the library's result.  Without an answer the last one stays. */
static int top_ask(struct top *top)
{
	const char *pattern = top->ctl->args[0] ? top->ctl->args[0] : "*";
	struct sample sample;
	int r;

	if (sample_now_ns() >= last_ns(top->ctl))
		return IPC_ETIMEDOUT;
	ipc_deadline_after(&top->deadline, ASK_NS);

	/* As sample_take() wants it. */
	rows_sort(&top->sample, compare_names);
	r = sample_take(&sample, &top->asking, pattern, &top->sample);
	top->is_answered = r == 0;
	if (r == 0) {
		sample_deinit(&top->sample);
		top->sample = sample;
		return 0;
	}

	sample_deinit(&sample);
	return r == IPC_ETIMEDOUT ? 0 : r;
}

/* Whether it goes on. */
static bool top_key(struct top *top, char key)
{
	for (size_t i = 0; i < N_ORDERS; ++i) {
		if (orders[i].name[0] == key)
			top->order = &orders[i];
	}
	return key != 'q';
}

/* Until the next page is due: whether it goes on. */
static bool top_wait(struct top *top, int *ret_error)
{
	uint64_t until_ns = sample_now_ns() + top->interval_ns;
	char key;

	if (until_ns > last_ns(top->ctl))
		until_ns = last_ns(top->ctl);
	for (;;) {
		switch (screen_wait(&top->screen, until_ns, &key)) {
		case SCREEN_TIME:
			return true;
		case SCREEN_END:
			return false;
		case SCREEN_KEY:
			if (!top_key(top, key))
				return false;
			break;
		case SCREEN_AGAIN:
			break;
		}

		*ret_error = page_show(top);
		if (*ret_error)
			return false;
	}
}

/* 0, or the library's result; *ret_error: errno of the drawing. */
static int top_run(struct top *top, int *ret_error)
{
	int r;

	*ret_error = 0;
	do {
		r = top_ask(top);
		if (r < 0)
			return r;

		*ret_error = page_show(top);
		if (*ret_error || (top->n_left && --top->n_left == 0))
			return 0;
	} while (top_wait(top, ret_error));
	return 0;
}

int ctl_top(const struct ctl *ctl)
{
	struct top top = {
		.ctl = ctl,
		.asking = *ctl,
		.order = &orders[0],
		.interval_ns = ctl->interval_ns ? ctl->interval_ns : INTERVAL_DEFAULT,
		.n_left = ctl->count,
	};
	int r, error;

	top.asking.deadline = &top.deadline;
	for (size_t i = 0; ctl->sort && i < N_ORDERS; ++i) {
		if (strcmp(orders[i].name, ctl->sort) == 0)
			top.order = &orders[i];
	}

	error = screen_init(&top.screen);
	if (error)
		return ctl_fail_errno("terminal", error);

	r = top_run(&top, &error);

	/* Before anything else is written there. */
	screen_deinit(&top.screen);
	sample_deinit(&top.sample);
	if (r < 0)
		return ctl_fail(ctl->args[0] ? ctl->args[0] : "top", r);
	return error ? ctl_fail_errno("standard output", error) : 0;
}
