/* SPDX-License-Identifier: MIT */
#include "broker/reservation.h"

#include <ipc/admin.h>
#include <ipc/client.h>
#include <string.h>

#include "broker/channels.h"
#include "broker/grant.h"
#include "broker/groups.h"
#include "broker/handles.h"
#include "broker/opener.h"
#include "broker/peer.h"
#include "broker/pending.h"
#include "broker/policy.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/registry.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/platform/crash.h"

/*
 * Death: the channel's record names its reserver, and its state is what confirms it.  A handle that
 * reserves without being named is nobody's and is dropped; one that is named by a channel that is
 * USED has been confirmed.
 */

static struct pending *next_reserver(struct worker *worker, const struct channel *channel)
{
	const char *name = channel->record->name;
	struct pending *pending = pending_first(worker->registry, name);

	for (; pending; pending = pending_next(pending, name)) {
		const struct message_open *open = &pending->record->request;
		struct policy_subject subject = peer_subject(pending->peer);

		if ((open->flags & IPC_CREATE) && !pending->is_tried && !pending->peer->is_doomed &&
		    peer_has_room(worker, pending->peer) &&
		    channels_is_as_wanted(channel, pending->peer, open) &&
		    policy_check_request(open) == 0 && policy_check_creation(&subject, open) == 0)
			return pending;
	}
	return NULL;
}

/* *handle is the reserver who gives up; then the new one, unless negative. */
static int hand_over(struct worker *worker, struct handle **handle, struct pending *pending)
{
	struct channel *channel = (*handle)->channel;
	struct handle *heir;
	int r;

	r = handles_prepare(worker, pending->peer, &pending->record->request, &heir);
	if (r < 0)
		return r;

	/* Until the channel names it, the heir's record means nothing. */
	handles_commit(heir, channel, RECORD_RESERVING);
	channel->record->reserver = heir->record->id;
	record_fence();
	CRASH_POINT();
	handles_free(worker, *handle);
	*handle = heir;

	r = grant_reserve(worker, heir);
	return pending->peer->is_doomed ? 0 : r;
}

void reservation_drop(struct worker *worker, struct handle *handle)
{
	struct channel *channel = handle->channel;
	char name[sizeof(channel->record->name)];
	struct pending *pending;

	/* Whoever waits for this name waits for its listener. */
	if (channel->session) {
		handles_free(worker, handle);
		channels_free(worker, channel);
		return;
	}

	while ((pending = next_reserver(worker, channel))) {
		int r = hand_over(worker, &handle, pending);

		if (r == 0) {
			pending_remove(worker, pending);
			return;
		}
		pending_answer(worker, pending, r);
	}

	memcpy(name, channel->record->name, sizeof(name));
	handles_free(worker, handle);
	channels_free(worker, channel);
	opener_resume(worker, name);
}

/* ---- CONFIRM ---- */

static void confirmed(struct worker *worker, struct handle *handle, uint64_t request_id)
{
	struct channel *channel = handle->channel;
	uint64_t generation = channel->record->generation;
	uint32_t slot = channel->slot, role = handle->record->role;
	struct peer *peer = handle->peer;
	char name[sizeof(channel->record->name)];
	int r;

	record_set(&channel->record->state, RECORD_USED);
	CRASH_POINT();
	record_set(&handle->record->state, RECORD_USED);
	CRASH_POINT();
	presence_begin(worker, handle);
	groups_meet(worker, channel, peer);

	memcpy(name, channel->record->name, sizeof(name));
	r = grant_handle(worker, handle, request_id, true);
	if (r < 0)
		peer_answer_result(worker, peer, request_id, r);

	/* What could not be said is closed again. */
	if (!registry_channel_at(worker->registry, slot, generation))
		opener_resume(worker, name);
	else if (channel->session)
		sessions_settle(worker, channel);
	else if (role == IPC_ROLE_LISTENER)
		opener_listener_came(worker, channel);
	else
		opener_resume(worker, name);
}

static void confirmed_again(struct worker *worker, struct handle *handle, uint64_t request_id)
{
	struct peer *peer = handle->peer;
	int r;

	presence_begin_again(worker, handle);
	r = grant_handle(worker, handle, request_id, true);
	if (r < 0)
		peer_answer_result(worker, peer, request_id, r);
}

void reservation_confirm(struct worker *worker, struct peer *peer,
			 const struct message_confirm *confirm)
{
	struct handle *handle = registry_handle(worker->registry, peer, confirm->handle_id);
	uint64_t request_id = confirm->head.request_id;
	int status = confirm->status;

	/* Cancelled meanwhile; or a worker that died had dropped it. */
	if (!handle) {
		peer_answer_result(worker, peer, request_id, status < 0 ? status : IPC_ECANCELED);
		return;
	}

	if (record_get(&handle->record->state) == RECORD_USED && status == 0) {
		confirmed_again(worker, handle, request_id);
		return;
	}

	/* A client that says so without having reserved would give the others memory that may not
	 * be there (M-52). */
	if (status == 0 &&
	    segment_is_reserved(handle->channel->segment_fd, handle->channel->record->size) != 1)
		status = IPC_ENOSPC;

	if (status < 0) {
		reaper_close(worker, handle);
		peer_answer_result(worker, peer, request_id, status);
		return;
	}

	confirmed(worker, handle, request_id);
}
