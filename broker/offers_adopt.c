/* SPDX-License-Identifier: MIT */
#include "broker/offers.h"

#include <stdlib.h>

#include "broker/registry.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"

/*
 * What a new worker makes of the offers that it finds.  Death: it is done again.
 */

static void adopt_offer(struct worker *worker, struct handle *offer)
{
	struct handle_record *record = offer->record;
	struct handle *listener = &worker->registry->handle[LIVENESS_SLOT(record->listener_id)];

	offer->channel->offer = offer;

	/* The worker before may have died between the end of a window and that of the offer. */
	if (!sessions_is_lost(offer->channel) && listener->peer &&
	    listener->record->id == record->listener_id &&
	    registry_is_open_on(listener, listener->channel) && !listener->offer) {
		offer->listener = listener;
		listener->offer = offer;
		return;
	}

	offers_revoke(worker, offer);
}

static int age_compare(const void *a, const void *b)
{
	uint64_t first = (*(struct channel *const *)a)->record->generation;
	uint64_t second = (*(struct channel *const *)b)->record->generation;

	return (first > second) - (first < second);
}

void offers_adopt(struct worker *worker)
{
	static struct channel *found[LIVENESS_CHANNELS_MAX];
	struct registry *registry = worker->registry;
	uint32_t slot, n = 0;

	for (slot = 0; slot < registry->channel_slots.top; ++slot) {
		struct channel *channel = &registry->channel[slot];

		if (!channel->record || !channel->session)
			continue;

		/* What the listener died of is not known any more. */
		channel->offer_died = true;
		found[n++] = channel;
	}

	for (slot = 0; slot < registry->handle_slots.top; ++slot) {
		struct handle *handle = &registry->handle[slot];

		if (handle->peer && offers_is_one(handle))
			adopt_offer(worker, handle);
	}

	qsort(found, n, sizeof(found[0]), age_compare);
	for (slot = 0; slot < n; ++slot)
		sessions_settle(worker, found[slot]);
}
