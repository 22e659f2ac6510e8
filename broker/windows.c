/* SPDX-License-Identifier: MIT */
#include "broker/windows.h"

/*
 * Death: the deadlines are in the records.  channel->window_at is its place + 1; 0: it has none.
 */

static void put(struct registry *registry, uint32_t place, struct channel *channel)
{
	registry->window[place] = channel;
	channel->window_at = place + 1;
}

static bool is_earlier(const struct channel *a, const struct channel *b)
{
	return a->window_ns < b->window_ns;
}

static uint32_t rise(struct registry *registry, uint32_t place, const struct channel *channel)
{
	while (place > 0 && is_earlier(channel, registry->window[(place - 1) / 2])) {
		put(registry, place, registry->window[(place - 1) / 2]);
		place = (place - 1) / 2;
	}
	return place;
}

static uint32_t sink(struct registry *registry, uint32_t place, const struct channel *channel)
{
	for (;;) {
		uint32_t child = 2 * place + 1;

		if (child >= registry->n_windows)
			return place;
		if (child + 1 < registry->n_windows &&
		    is_earlier(registry->window[child + 1], registry->window[child]))
			++child;
		if (!is_earlier(registry->window[child], channel))
			return place;

		put(registry, place, registry->window[child]);
		place = child;
	}
}

/* Into a place that is free. */
static void settle(struct registry *registry, uint32_t place, struct channel *channel)
{
	place = rise(registry, place, channel);
	put(registry, sink(registry, place, channel), channel);
}

static void take_out(struct registry *registry, struct channel *channel)
{
	uint32_t place = channel->window_at - 1;
	struct channel *last = registry->window[--registry->n_windows];

	channel->window_at = 0;
	if (last != channel)
		settle(registry, place, last);
}

void windows_set(struct registry *registry, struct channel *channel, uint64_t at_ns)
{
	if (at_ns == UINT64_MAX)
		at_ns = 0;
	if (channel->window_at != 0 && channel->window_ns == at_ns)
		return;

	if (channel->window_at != 0)
		take_out(registry, channel);
	channel->window_ns = at_ns;
	if (at_ns != 0)
		settle(registry, registry->n_windows++, channel);
}

struct channel *windows_first(const struct registry *registry)
{
	return registry->n_windows > 0 ? registry->window[0] : NULL;
}
