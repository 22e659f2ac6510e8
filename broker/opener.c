/* SPDX-License-Identifier: MIT */
#include "broker/opener.h"

#include <ipc/admin.h>
#include <ipc/client.h>
#include <string.h>

#include "broker/channels.h"
#include "broker/grant.h"
#include "broker/groups.h"
#include "broker/handles.h"
#include "broker/offers.h"
#include "broker/overtaken.h"
#include "broker/peer.h"
#include "broker/pending.h"
#include "broker/policy.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/reservation.h"
#include "broker/segments.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/channel/session.h"

/*
 * Death: every step is found in the records by the next worker, the OPEN in its client's queue or
 * in a pending.
 *
 * records                              what the next worker does
 * none                                 tries the OPEN, as if new
 * channel RESERVING, no handle         frees the channel, tries the OPEN
 * channel RESERVING, handle RESERVING  answers RESERVE again
 * channel USED, handle RESERVING       makes the handle USED, tells and answers again (CONFIRM)
 * handle USED                          tells and answers again
 * refusal noted                        says it again (peer_answer_result, pending_answer)
 *
 * The client drops answers that it does not await, with their descriptors.
 */

/* What trying an OPEN gives, beside a negative result: it was answered, or has to wait. */
#define OPENER_ANSWERED 0
#define OPENER_WAITS    1

/* ---- trying ---- */

static int open_existing(struct worker *worker, struct peer *peer, struct channel *channel,
			 const struct message_open *open)
{
	struct handle *handle;
	int r;

	r = segments_check_channel(channel);
	if (r < 0)
		return r;

	r = handles_prepare(worker, peer, open, &handle);
	if (r < 0)
		return r;

	handles_commit(handle, channel, RECORD_USED);
	presence_begin(worker, handle);
	r = grant_handle(worker, handle, open->head.request_id, false);
	if (r == 0 && open->role == IPC_ROLE_LISTENER)
		opener_listener_came(worker, channel);
	return r;
}

static bool role_is_taken(const struct channel *channel, const struct message_open *open)
{
	switch (open->role) {
	case IPC_ROLE_WATCH_CONSUMER:
		return channel->count[1] >= channel->record->shape[1];
	case IPC_ROLE_INBOX_SENDER:
	case IPC_ROLE_INBOX_RECEIVER:
		return channel->count[policy_role(open->role)->side] > 0;
	default:
		return false;
	}
}

/*
 * Whoever opens a queue opens its dead letters, too.  That is another OPEN, but what would
 * be its answer is looked at here: a consumer who came only to find that it cannot have both would
 * be the last one, with whom the queue ends.
 */
static int check_dead_letters(struct worker *worker, struct peer *peer, const char *name)
{
	const struct message_open open = {
		.kind = IPC_KIND_QUEUE,
		.role = IPC_ROLE_QUEUE_PRODUCER,
		.flags = OPEN_UNCOUNTED,
	};
	struct policy_subject subject = peer_subject(peer);
	struct channel *channel;

	if (name[0] == '\0')
		return 0;

	channel = registry_find(worker->registry, name);
	return channel ? policy_check_open(&subject, channel->record, &open) : IPC_ENOENT;
}

static int try_named(struct worker *worker, struct peer *peer, struct channel *channel,
		     const struct message_open *open)
{
	struct policy_subject subject = peer_subject(peer);
	int r;

	/* Whether there will be such a channel is not decided yet. */
	if (record_get(&channel->record->state) == RECORD_RESERVING)
		return OPENER_WAITS;

	r = policy_check_open(&subject, channel->record, open);
	if (r == 0)
		r = check_dead_letters(worker, peer, channel->record->dead_letters);
	if (r < 0)
		return r;

	if (role_is_taken(channel, open))
		return open->flags & IPC_AWAIT ? OPENER_WAITS : IPC_EBUSY;

	return open_existing(worker, peer, channel, open);
}

/* The reserver of a channel that was just made. */
static int begin_reserving(struct worker *worker, struct handle *handle, struct channel *channel)
{
	int r;

	handles_commit(handle, channel, RECORD_RESERVING);
	r = grant_reserve(worker, handle);
	if (r == 0 || handle->peer->is_doomed)
		return OPENER_ANSWERED;

	reservation_drop(worker, handle);
	return r;
}

/* The session is made now, and offered when its segment is reserved. */
static int begin_connecting(struct worker *worker, struct peer *peer,
			    const struct channel *listener, const struct message_open *open)
{
	struct channel *channel;
	struct handle *handle;
	int r;

	r = handles_prepare(worker, peer, open, &handle);
	if (r < 0)
		return r;

	handle->record->side = SESSION_SIDE_CONNECTED;
	r = channels_new_session(worker, peer, listener, handle->record->id, &channel);
	if (r < 0) {
		handles_abandon(worker, handle);
		return r;
	}

	return begin_reserving(worker, handle, channel);
}

static int try_connect(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct channel *listener = registry_find(worker->registry, open->name);
	struct policy_subject subject = peer_subject(peer);
	int r;

	if (listener && record_get(&listener->record->state) == RECORD_RESERVING)
		return OPENER_WAITS;

	r = listener ? policy_check_open(&subject, listener->record, open) : 0;
	if (r < 0)
		return r;

	if (!listener || listener->count[0] == 0)
		return open->flags & IPC_AWAIT ? OPENER_WAITS : IPC_ENOENT;

	return begin_connecting(worker, peer, listener, open);
}

static int try_create(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct policy_subject subject = peer_subject(peer);
	struct channel *channel;
	struct handle *handle;
	int r;

	r = policy_check_creation(&subject, open);
	if (r == 0)
		r = check_dead_letters(worker, peer, open->dead_letters);
	if (r < 0)
		return r;

	r = handles_prepare(worker, peer, open, &handle);
	if (r < 0)
		return r;

	r = channels_new(worker, peer, open, handle->record->id, &channel);
	if (r < 0) {
		handles_abandon(worker, handle);
		return r;
	}

	return begin_reserving(worker, handle, channel);
}

/* A weak producer becomes a counted one as long as there is a counted one, also when the name is
 * gone (W-8). */
static int try_upgrade(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct channel *channel =
		registry_channel_at(worker->registry, open->channel_slot, open->generation);
	struct policy_subject subject = peer_subject(peer);
	int r;

	if (!channel || record_get(&channel->record->state) != RECORD_USED ||
	    channel->count[0] == 0)
		return IPC_EPIPE;

	r = policy_check_open(&subject, channel->record, open);
	if (r < 0)
		return r;

	return open_existing(worker, peer, channel, open);
}

static int try_open(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct channel *channel;
	int r;

	r = policy_check_request(open);
	if (r < 0)
		return r;

	if (open->flags & OPEN_UPGRADE)
		return try_upgrade(worker, peer, open);

	if (open->flags & OPEN_RESUME)
		return sessions_resume(worker, peer, open);

	if (open->role == IPC_ROLE_SESSION)
		return try_connect(worker, peer, open);

	channel = registry_find(worker->registry, open->name);
	if (channel)
		return try_named(worker, peer, channel, open);

	if (open->flags & IPC_CREATE)
		return try_create(worker, peer, open);

	return open->flags & IPC_AWAIT ? OPENER_WAITS : IPC_ENOENT;
}

/* An earlier worker did this OPEN; whether it also told and answered, nobody knows. */
static int repeat(struct worker *worker, struct handle *handle)
{
	if (record_get(&handle->record->state) == RECORD_RESERVING) {
		int r = grant_reserve(worker, handle);

		if (r == 0 || handle->peer->is_doomed)
			return OPENER_ANSWERED;

		reservation_drop(worker, handle);
		return r;
	}

	presence_begin_again(worker, handle);
	return grant_handle(worker, handle, handle->record->request_id, false);
}

void opener_open(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct handle *handle = NULL;
	int r;

	if (peer->may_repeat) {
		if (pending_find(peer, open->head.request_id))
			return;
		handle = registry_handle_of_request(peer, open->head.request_id);

		/* Answered before, and taken over since: doing it again would take the end back. */
		if (!handle && overtaken_has_request(peer, open->head.request_id)) {
			peer_answer_result(worker, peer, open->head.request_id, IPC_ESTALE);
			return;
		}
	}

	r = handle ? repeat(worker, handle) : try_open(worker, peer, open);
	if (r == OPENER_WAITS)
		r = open->flags & OPEN_LOOK_ONCE ? IPC_ETIMEDOUT : pending_add(worker, peer, open);
	if (r < 0)
		peer_answer_result(worker, peer, open->head.request_id, r);
}

/* ---- pendings ---- */

static void finish_pending(struct worker *worker, struct pending *pending, int r)
{
	if (r < 0)
		pending_answer(worker, pending, r);
	else
		pending_remove(worker, pending);
}

static void try_pending(struct worker *worker, struct pending *pending)
{
	int r;

	if (pending->peer->is_doomed || !peer_has_room(worker, pending->peer))
		return;

	pending->is_tried = true;
	r = try_open(worker, pending->peer, &pending->record->request);
	pending->is_tried = false;
	if (r != OPENER_WAITS)
		finish_pending(worker, pending, r);
}

/*
 * The one after `pending`, which may have ended.  `next` was it before something was tried, and may
 * have ended, too: an heir that could not be answered.  The lists are in the order of coming.
 */
static struct pending *still_next(const struct pending *pending, struct pending *next,
				  struct pending *first)
{
	uint64_t order = pending->record->order;

	if (!next || next->peer)
		return next;

	while (first && first->record->order <= order)
		first = first->name_next;
	return first;
}

void opener_resume(struct worker *worker, const char *name)
{
	struct registry *registry = worker->registry;
	struct pending *pending = pending_first(registry, name);

	/*
	 * A grant that could not be answered is taken back, which changes the name again: whoever
	 * comes after it in the list of the outer call is still to be tried, and whoever came
	 * before it waits for something else.
	 */
	if (!pending || worker->is_resuming)
		return;

	worker->is_resuming = true;
	worker->resumes_again = false;
	while (pending) {
		struct pending *next = pending_next(pending, name);
		struct channel *channel = registry_find(registry, name);

		/* One of them is the reserver now: the others wait for it. */
		if (channel && record_get(&channel->record->state) == RECORD_RESERVING)
			break;

		try_pending(worker, pending);
		next = still_next(pending, next, *registry_waiting(registry, name));
		pending = pending_from(next, name);

		/* Connects that came before the pending of a listener. */
		if (!pending && worker->resumes_again) {
			worker->resumes_again = false;
			pending = pending_first(registry, name);
		}
	}
	worker->is_resuming = false;
}

void opener_listener_came(struct worker *worker, struct channel *listener)
{
	char name[sizeof(listener->record->name)];

	memcpy(name, listener->record->name, sizeof(name));
	offers_begin(worker, listener);
	worker->resumes_again = worker->is_resuming;
	opener_resume(worker, name);
}

void opener_resume_peer(struct worker *worker, struct peer *peer)
{
	char name[sizeof(peer->pendings->record->request.name)];
	struct pending *pending = peer->pendings;

	/* Each may end some of the others. */
	while (pending && !peer->is_clogged && !peer->is_doomed) {
		uint64_t order = pending->record->order;

		memcpy(name, pending->record->request.name, sizeof(name));
		opener_resume(worker, name);

		pending = peer->pendings;
		while (pending && pending->record->order <= order)
			pending = pending->peer_next;
	}
}

/* Refused or granted by the worker before, which may not have said so. */
static void replay_pending(struct worker *worker, struct pending *pending)
{
	struct handle *handle;

	if (pending->peer->is_doomed)
		return;

	if (record_get(&pending->record->state) == RECORD_DYING) {
		pending_answer(worker, pending, pending->record->result);
		return;
	}

	handle =
		registry_handle_of_request(pending->peer, pending->record->request.head.request_id);
	if (handle) {
		int r;

		pending->is_tried = true;
		r = repeat(worker, handle);
		pending->is_tried = false;
		finish_pending(worker, pending, r);
	}
}

static void for_each_pending(struct worker *worker,
			     void (*fn)(struct worker *worker, struct pending *pending))
{
	uint32_t bucket;

	if (worker->registry->pending_slots.n_used == 0)
		return;

	worker->is_resuming = true;
	for (bucket = 0; bucket < REGISTRY_BUCKETS; ++bucket) {
		struct pending *pending = worker->registry->waiting[bucket];

		while (pending) {
			struct pending *next = pending->name_next;

			fn(worker, pending);
			pending = still_next(pending, next, worker->registry->waiting[bucket]);
		}
	}
	worker->is_resuming = false;
}

void opener_replay(struct worker *worker)
{
	for_each_pending(worker, replay_pending);
}

void opener_resume_all(struct worker *worker)
{
	do {
		worker->resumes_again = false;
		for_each_pending(worker, try_pending);
	} while (worker->resumes_again);
}

/* ---- CANCEL ---- */

void opener_cancel(struct worker *worker, struct peer *peer, const struct message_cancel *cancel)
{
	struct pending *pending = pending_find(peer, cancel->cancelled_id);
	struct handle *handle;

	if (pending) {
		pending_remove(worker, pending);
		return;
	}

	handle = registry_handle_of_request(peer, cancel->cancelled_id);
	if (handle)
		reaper_give_back(worker, handle);
	overtaken_cancel(worker, peer, cancel->cancelled_id);
	groups_end(worker, peer, cancel->cancelled_id);
}
