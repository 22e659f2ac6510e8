/* SPDX-License-Identifier: MIT */
#include "broker/overtaken.h"

#include <stddef.h>
#include <utlist.h>

#include "broker/peer.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"

/*
 * Death: the record says `is_overtaken` before the end of its handle begins.  As long as it is
 * USED, the next worker ends the handle again (reaper_finish_handle), and gets here; from OVERTAKEN
 * on it adopts it.  The word is stored again then, too.  It is 0 before the record is free.
 */

static void link_it(struct handle *handle, struct peer *peer, struct channel *channel)
{
	handle->overtaken_of = peer;
	handle->overtaken_on = channel;
	DL_APPEND2(peer->overtaken, handle, client_prev, client_next);
	DL_APPEND2(channel->overtaken, handle, channel_prev, channel_next);
}

static void tell(const struct handle *handle)
{
	liveness_handle_set(handle->overtaken_on->owner->table, handle->slot,
			    handle->record->id | LIVENESS_OVERTAKEN);
}

void overtaken_add(struct handle *handle)
{
	struct peer *peer = handle->peer;
	struct channel *channel = handle->channel;

	record_set(&handle->record->state, RECORD_OVERTAKEN);
	CRASH_POINT();
	registry_unlink(handle);
	link_it(handle, peer, channel);
	tell(handle);
	CRASH_POINT();
}

void overtaken_adopt(struct handle *handle, struct peer *peer, struct channel *channel)
{
	account_adopt(&peer->user->account, ACCOUNT_HANDLES, 1);
	link_it(handle, peer, channel);
	tell(handle);
}

static void drop(struct worker *worker, struct handle *handle)
{
	struct peer *peer = handle->overtaken_of;
	struct channel *channel = handle->overtaken_on;

	liveness_handle_set(channel->owner->table, handle->slot, 0);
	CRASH_POINT();
	record_set(&handle->record->state, RECORD_FREE);
	CRASH_POINT();
	account_discharge(&peer->user->account, ACCOUNT_HANDLES, 1);
	DL_DELETE2(peer->overtaken, handle, client_prev, client_next);
	DL_DELETE2(channel->overtaken, handle, channel_prev, channel_next);
	handle->overtaken_of = NULL;
	handle->overtaken_on = NULL;
	slots_put(&worker->registry->handle_slots, handle->slot);
}

void overtaken_hear_close(struct worker *worker, struct peer *peer, uint64_t handle_id)
{
	struct handle *handle = &worker->registry->handle[LIVENESS_SLOT(handle_id)];

	if (handle->overtaken_of == peer && handle->record->id == handle_id)
		drop(worker, handle);
}

static struct handle *find_request(const struct peer *peer, uint64_t request_id)
{
	struct handle *handle;

	DL_FOREACH2(peer->overtaken, handle, client_next)
	{
		if (handle->record->request_id == request_id)
			return handle;
	}
	return NULL;
}

bool overtaken_has_request(const struct peer *peer, uint64_t request_id)
{
	return find_request(peer, request_id) != NULL;
}

void overtaken_cancel(struct worker *worker, struct peer *peer, uint64_t request_id)
{
	struct handle *handle;

	while ((handle = find_request(peer, request_id)))
		drop(worker, handle);
}

void overtaken_look_at_cells(struct worker *worker, struct peer *peer)
{
	struct handle *handle, *next;

	for (handle = peer->overtaken; handle; handle = next) {
		next = handle->client_next;
		if (peer_cell_says(peer, handle, offsetof(struct desk_cell, closed_id)))
			drop(worker, handle);
	}
}

void overtaken_end_client(struct worker *worker, struct peer *peer)
{
	while (peer->overtaken)
		drop(worker, peer->overtaken);
}

void overtaken_end_channel(struct worker *worker, struct channel *channel)
{
	while (channel->overtaken)
		drop(worker, channel->overtaken);
}
