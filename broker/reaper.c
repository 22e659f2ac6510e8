/* SPDX-License-Identifier: MIT */
#include "broker/reaper.h"

#include <ipc/client.h>
#include <string.h>
#include <utlist.h>

#include "broker/channels.h"
#include "broker/groups.h"
#include "broker/handles.h"
#include "broker/offers.h"
#include "broker/opener.h"
#include "broker/overtaken.h"
#include "broker/peer.h"
#include "broker/pending.h"
#include "broker/presence.h"
#include "broker/reservation.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"

/*
 * Death: a handle that ends is marked is_ending first and freed last; between the two come its
 * words and the bumps, all of which may be done twice (reaper_finish_handle).  A client that ends
 * is marked DYING first and freed last.  A channel without handles is freed by the next worker.
 */

/* A dead client's queue holds no more requests than fit a socket's buffer. */
#define LAST_WORDS_MAX 4096

static bool channel_is_kept(const struct channel *channel)
{
	return (channel->record->flags & IPC_KEEP) && !record_get(&channel->record->is_removed);
}

void reaper_settle(struct worker *worker, struct channel *channel)
{
	char name[sizeof(channel->record->name)];
	bool is_over = channel->count[0] + channel->count[1] == 0 && !channel_is_kept(channel);

	if (channel->session) {
		sessions_settle(worker, channel);
		return;
	}

	if (channel->count[0] == 0)
		offers_end(worker, channel);

	memcpy(name, channel->record->name, sizeof(name));
	if (is_over && channels_is_empty(channel))
		channels_free(worker, channel);
	else if (is_over && channel->is_named)
		/* What is left of it are other handles of the client that is being ended: the last
		 * of them ends the channel, and nobody comes in before. */
		return;

	/* Also where the name was given up before (channels_end). */
	if (worker->registry->pending_slots.n_used > 0)
		opener_resume(worker, name);
}

static bool handle_mark(struct worker *worker, struct handle *handle, bool died)
{
	struct channel *channel = handle->channel;

	/* What was accepted without that having been said is not given back. */
	if (channel->session)
		offers_look(worker, channel);
	if (offers_is_one(handle))
		channel->offer_died = died;

	handle->record->ended_by_death = died;
	record_fence();
	handle->record->is_ending = 1;
	record_fence();
	CRASH_POINT();
	if (channel->session)
		sessions_leave(worker, handle);
	return presence_end(worker, handle);
}

static void handle_end(struct worker *worker, struct handle *handle, bool died)
{
	bool is_gone = handle_mark(worker, handle, died);

	presence_batch(worker);
	presence_attend(worker, handle, is_gone);
	handles_free(worker, handle);
}

void reaper_drop(struct worker *worker, struct handle *handle)
{
	handle_end(worker, handle, false);
}

void reaper_close(struct worker *worker, struct handle *handle)
{
	struct channel *channel = handle->channel;
	struct handle *offer = handle->offer;

	if (record_get(&handle->record->state) == RECORD_RESERVING) {
		reservation_drop(worker, handle);
		return;
	}

	/* Nobody will write by it any more. */
	handle->record->is_overtaken = 0;
	handle_end(worker, handle, false);
	if (offer) {
		struct channel *session = offer->channel;

		offers_revoke(worker, offer);
		sessions_settle(worker, session);
	}
	reaper_settle(worker, channel);
}

void reaper_detach(struct worker *worker, struct handle *handle)
{
	struct channel *channel = handle->channel;

	if (!channel->session || !handle->record->is_counted ||
	    record_get(&handle->record->state) == RECORD_RESERVING) {
		reaper_close(worker, handle);
		return;
	}

	handle->record->is_overtaken = 0;
	handle_end(worker, handle, true);
	sessions_settle(worker, channel);
}

void reaper_give_back(struct worker *worker, struct handle *handle)
{
	if (handle->record->flags & OPEN_RESUME)
		reaper_detach(worker, handle);
	else
		reaper_close(worker, handle);
}

void reaper_finish_handle(struct worker *worker, struct handle *handle)
{
	struct channel *channel = handle->channel;

	if (channel->session)
		sessions_leave(worker, handle);
	liveness_handle_set(channel->owner->table, handle->slot, 0);
	presence_repair(worker, channel, handle->record->ended_by_death);
	presence_batch(worker);
	presence_attend(worker, handle, true);
	handles_free(worker, handle);
}

/* ---- the desk ---- */

static bool desk_says_closed(const struct handle *handle)
{
	return peer_cell_says(handle->peer, handle, offsetof(struct desk_cell, closed_id));
}

static bool desk_says_detached(const struct handle *handle)
{
	return peer_cell_says(handle->peer, handle, offsetof(struct desk_cell, detached_id));
}

static void close_as_cell_says(struct worker *worker, struct handle *handle)
{
	/* The close may have overtaken a RING. */
	presence_ring(worker, handle);
	if (desk_says_detached(handle))
		reaper_detach(worker, handle);
	else
		reaper_close(worker, handle);
}

static void close_what_cells_say(struct worker *worker, struct peer *peer)
{
	struct handle *handle, *next;

	/* What a close lets in stands at the head of the list: never `next`.  What it ends beside
	 * itself, an offer of this very client's session, may be that. */
	for (handle = peer->handles; handle; handle = next) {
		next = handle->client_next;
		if (!desk_says_closed(handle))
			continue;

		close_as_cell_says(worker, handle);
		if (next && next->peer != peer)
			next = peer->handles;
	}
	overtaken_look_at_cells(worker, peer);
}

/* By a client whose socket was full. */
static void ring_what_desk_says(struct worker *worker, struct peer *peer, uint32_t ringings)
{
	struct handle *handle;

	if (ringings == peer->record->ringings_seen)
		return;

	DL_FOREACH2(peer->handles, handle, client_next)
	presence_ring(worker, handle);

	/* Not before they are rung: a worker that dies in between looks again. */
	CRASH_POINT();
	record_fence();
	peer->record->ringings_seen = ringings;
}

void reaper_look_at_cells(struct worker *worker, struct peer *peer)
{
	uint32_t closings, ringings;

	if (!peer->record->is_welcome)
		return;

	peer_read_desk(peer, &closings, &ringings);
	ring_what_desk_says(worker, peer, ringings);

	/* The handle of an OPEN that is still in the queue has to be found by it. */
	if (!peer->may_repeat)
		close_what_cells_say(worker, peer);
}

bool reaper_look_at_cell(struct worker *worker, struct handle *handle)
{
	/* As above, of an OPEN that is still in the queue. */
	if (handle->peer->may_repeat || !desk_says_closed(handle))
		return false;

	close_as_cell_says(worker, handle);
	return true;
}

void reaper_look_at_desk(struct worker *worker, struct peer *peer)
{
	struct client_record *record = peer->record;
	uint32_t closings, ringings;

	if (!record->is_welcome)
		return;

	peer_read_desk(peer, &closings, &ringings);
	ring_what_desk_says(worker, peer, ringings);
	if (closings == record->closings_seen)
		return;

	offers_look_at(worker, peer);
	close_what_cells_say(worker, peer);

	/* Not before they are closed: a worker that dies in between looks again. */
	CRASH_POINT();
	record_fence();
	record->closings_seen = closings;
}

/* ---- clients ---- */

void reaper_hear_close(struct worker *worker, struct peer *peer, const struct message_close *close)
{
	struct handle *handle = registry_handle(worker->registry, peer, close->handle_id);

	if (!handle) {
		overtaken_hear_close(worker, peer, close->handle_id);
		return;
	}
	if (close->is_detached)
		reaper_detach(worker, handle);
	else
		reaper_close(worker, handle);
}

static void hear_last_word(struct worker *worker, struct peer *peer, const union message *message)
{
	struct handle *handle;

	if (message->head.type == MESSAGE_CLOSE) {
		reaper_hear_close(worker, peer, &message->close);
	} else if (message->head.type == MESSAGE_TAKEN) {
		offers_taken(worker, peer, &message->taken);
	} else if (message->head.type == MESSAGE_RING) {
		handle = registry_handle(worker->registry, peer, message->ring.handle_id);
		if (handle)
			presence_ring(worker, handle);
	} else if (message->head.type == MESSAGE_GROUP && message->group.pattern[0] == '\0') {
		groups_end(worker, peer, message->group.group_id);
	}
}

/* What a dead client had said before: what it had closed is worth knowing, since it tells a close
 * from a death; and whom it had rung before that. */
static void hear_last_words(struct worker *worker, struct peer *peer)
{
	union message *message = &worker->request;
	unsigned i;
	size_t size;

	if (peer->socket_fd < 0)
		return;

	for (i = 0; i < LAST_WORDS_MAX; ++i) {
		int r = fdpass_peek(peer->socket_fd, message, sizeof(*message), &size);

		if (r < 0 && r != IPC_EMSGSIZE)
			return;

		if (r == 0 && message_check_request(message, size) == 0)
			hear_last_word(worker, peer, message);

		CRASH_POINT();
		(void)fdpass_receive(peer->socket_fd, message, sizeof(*message), &size, NULL, NULL);
	}
}

/* Words first, for all of them: whoever is woken by the first bump finds everything told. */
static void tell_death(struct worker *worker, struct peer *peer)
{
	struct handle *handle;

	DL_FOREACH2(peer->handles, handle, client_next)
	{
		if (record_get(&handle->record->state) == RECORD_USED)
			(void)handle_mark(worker, handle, true);
	}

	presence_batch(worker);
	DL_FOREACH2(peer->handles, handle, client_next)
	{
		if (record_get(&handle->record->state) == RECORD_USED)
			presence_attend(worker, handle, true);
		CRASH_POINT();
	}
}

void reaper_end_client(struct worker *worker, struct peer *peer)
{
	peer->is_doomed = true;
	if (record_get(&peer->record->state) == RECORD_USED) {
		hear_last_words(worker, peer);
		reaper_look_at_desk(worker, peer);
		peer->record->died = 1;
		record_set(&peer->record->state, RECORD_DYING);
		CRASH_POINT();
	}

	/* Nothing is granted to it any more. */
	while (peer->pendings)
		pending_remove(worker, peer->pendings);
	groups_forget(worker, peer);

	tell_death(worker, peer);

	while (peer->handles) {
		struct handle *handle = peer->handles;
		struct channel *channel = handle->channel;

		if (record_get(&handle->record->state) == RECORD_RESERVING) {
			reservation_drop(worker, handle);
			continue;
		}

		handles_free(worker, handle);
		reaper_settle(worker, channel);
	}

	overtaken_end_client(worker, peer);
	peer_remove(worker, peer);
}

void reaper_run(struct worker *worker)
{
	/* Ending one may let others in, whose answers may show that they are gone, too: each is
	 * ended once. */
	while (worker->doomed) {
		struct peer *peer = worker->doomed;

		worker->doomed = peer->doomed_next;
		reaper_end_client(worker, peer);
	}
}
