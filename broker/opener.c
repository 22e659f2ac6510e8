/* SPDX-License-Identifier: MIT */
#include "broker/opener.h"

#include <ipc/client.h>
#include <string.h>

#include "broker/channels.h"
#include "broker/handles.h"
#include "broker/log.h"
#include "broker/peer.h"
#include "broker/pending.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/segments.h"
#include "broker/worker.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"

/*
 * Death: every step is found in the records by the next worker.
 *
 * records                                      the OPEN                  what the next worker does
 * none                                         in queue or pending       tries it, as if new
 * channel RESERVING, no handle                 in queue or pending       frees the channel, tries the OPEN
 * channel RESERVING, its handle RESERVING      may be in either still    answers RESERVE again
 * channel USED, its reserver still RESERVING   its CONFIRM in the queue  makes the handle USED, tells and answers again
 * handle USED                                  may be in either still    tells and answers again
 *
 * The client drops answers that it does not await, with their descriptors.
 */

/* What trying an OPEN gives, beside a negative result: it was answered, or has to wait. */
#define OPENER_ANSWERED 0
#define OPENER_WAITS    1

/* ---- answers ---- */

/* The descriptor by which the role maps the segment: read-only ones are opened anew.  *ret_own: the caller closes it. */
static int value_fd(struct worker *worker, const struct handle *handle, int *ret_fd, int *ret_own)
{
	if (policy_role(handle->record->role)->maps_readonly) {
		int r = segment_reopen_readonly(ret_own, &worker->maker, handle->channel->segment_fd);

		*ret_fd = *ret_own;
		return r;
	}

	*ret_fd = handle->channel->segment_fd;
	return 0;
}

static void opened_fill(union message *message, const struct handle *handle, uint64_t request_id)
{
	const struct channel_record *record = handle->channel->record;
	struct message_opened *opened = &message->opened;

	message_init(message, MESSAGE_OPENED, request_id);
	opened->handle_id = handle->record->id;
	opened->generation = record->generation;
	opened->channel_slot = handle->channel->slot;
	opened->owner_uid = record->uid;
	opened->flags = record->flags;
	memcpy(opened->shape, record->shape, sizeof(opened->shape));
	opened->is_writable = !policy_role(handle->record->role)->maps_readonly;
	opened->value = (struct message_region){ record->segment_id, 0, record->size };
	opened->table = (struct message_region){
		handle->channel->owner->record->table_id, 0, segment_round(sizeof(struct liveness_table))
	};
}

/* has_segment: the client has just reserved the segment and mapped it for writing.  0, or why it could not be said. */
static int answer_opened(struct worker *worker, struct handle *handle, uint64_t request_id, bool has_segment)
{
	struct message_opened *opened = &worker->reply.opened;
	struct user *owner = handle->channel->owner;
	CLEANUP(fd_closep) int own_fd = -1;
	int fd, fds[3];
	unsigned n = 0;
	int r;

	opened_fill(&worker->reply, handle, request_id);

	if (!has_segment || !opened->is_writable) {
		r = value_fd(worker, handle, &fds[n], &own_fd);
		if (r < 0)
			return r;
		opened->fds |= OPENED_FD_VALUE;
		++n;
	}

	opened->lines = segments_lines(handle->channel, handle->peer->record->uid, &fd);
	if (fd >= 0) {
		opened->fds |= OPENED_FD_LINES;
		fds[n++] = fd;
	}

	if (owner != handle->peer->user) {
		r = segments_reader(worker, owner, &fds[n]);
		if (r < 0)
			return r;
		opened->fds |= OPENED_FD_TABLE;
		++n;
	}

	return peer_answer(worker, handle->peer, &worker->reply, fds, n);
}

static int answer_reserve(struct worker *worker, struct handle *handle)
{
	const struct channel_record *record = handle->channel->record;
	struct message_reserve *reserve = &worker->reply.reserve;

	message_init(&worker->reply, MESSAGE_RESERVE, handle->record->request_id);
	reserve->handle_id = handle->record->id;
	reserve->segment = (struct message_region){ record->segment_id, 0, record->size };
	memcpy(reserve->shape, record->shape, sizeof(reserve->shape));
	reserve->flags = record->flags;

	return peer_answer(worker, handle->peer, &worker->reply, &handle->channel->segment_fd, 1);
}

/* ---- trying ---- */

/* The handle is told and answered.  A handle that cannot be answered is closed again; the peer may be gone for good, which is its reaping's business. */
static int grant(struct worker *worker, struct handle *handle, uint64_t request_id, bool has_segment)
{
	struct peer *peer = handle->peer;
	int r;

	r = answer_opened(worker, handle, request_id, has_segment);
	if (r == 0 || peer->is_doomed)
		return OPENER_ANSWERED;

	reaper_close(worker, handle);
	return r;
}

static int open_existing(struct worker *worker, struct peer *peer, struct channel *channel, const struct message_open *open)
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
	return grant(worker, handle, open->head.request_id, false);
}

static bool role_is_taken(const struct channel *channel, const struct message_open *open)
{
	return open->role == IPC_ROLE_WATCH_CONSUMER && channel->count[1] >= channel->record->shape[1];
}

static int try_named(struct worker *worker, struct peer *peer, struct channel *channel, const struct message_open *open)
{
	struct policy_subject subject = peer_subject(peer);
	int r;

	/* Whether there will be such a channel is not decided yet. */
	if (record_get(&channel->record->state) == RECORD_RESERVING)
		return OPENER_WAITS;

	r = policy_check_open(&subject, channel->record, open);
	if (r < 0)
		return r;

	if (role_is_taken(channel, open))
		return open->flags & IPC_AWAIT ? OPENER_WAITS : IPC_EBUSY;

	return open_existing(worker, peer, channel, open);
}

static int try_create(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct policy_subject subject = peer_subject(peer);
	struct channel *channel;
	struct handle *handle;
	int r;

	r = policy_check_creation(&subject, open);
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

	handles_commit(handle, channel, RECORD_RESERVING);
	r = answer_reserve(worker, handle);
	if (r == 0 || peer->is_doomed)
		return OPENER_ANSWERED;

	opener_drop_reservation(worker, handle);
	return r;
}

/* A weak producer becomes a counted one as long as there is a counted one, also when the name is gone (W-8). */
static int try_upgrade(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct channel *channel = registry_channel_at(worker->registry, open->channel_slot, open->generation);
	struct policy_subject subject = peer_subject(peer);
	int r;

	if (!channel || record_get(&channel->record->state) != RECORD_USED || channel->count[0] == 0)
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
		int r = answer_reserve(worker, handle);

		if (r == 0 || handle->peer->is_doomed)
			return OPENER_ANSWERED;

		opener_drop_reservation(worker, handle);
		return r;
	}

	presence_begin_again(worker, handle);
	return grant(worker, handle, handle->record->request_id, false);
}

void opener_open(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct handle *handle = NULL;
	int r;

	if (peer->may_repeat) {
		if (pending_find(peer, open->head.request_id))
			return;
		handle = registry_handle_of_request(peer, open->head.request_id);
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

	if (pending->peer->is_doomed)
		return;

	r = try_open(worker, pending->peer, &pending->record->request);
	if (r != OPENER_WAITS)
		finish_pending(worker, pending, r);
}

void opener_resume(struct worker *worker, const char *name)
{
	struct registry *registry = worker->registry;
	struct pending *pending = pending_first(registry, name);

	/*
	 * A grant that could not be answered is taken back, which changes the name again: whoever comes after it in the list of the outer call is still to be
	 * tried, and whoever came before it waits for something else.
	 */
	if (!pending || worker->is_resuming)
		return;

	worker->is_resuming = true;
	while (pending) {
		struct pending *next = pending_next(pending, name);
		struct channel *channel = registry_find(registry, name);

		/* One of them is the reserver now: the others wait for it. */
		if (channel && record_get(&channel->record->state) == RECORD_RESERVING)
			break;

		try_pending(worker, pending);
		pending = next;
	}
	worker->is_resuming = false;
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

	handle = registry_handle_of_request(pending->peer, pending->record->request.head.request_id);
	if (handle)
		finish_pending(worker, pending, repeat(worker, handle));
}

static void for_each_pending(struct worker *worker, void (*fn)(struct worker *worker, struct pending *pending))
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
			pending = next;
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
	for_each_pending(worker, try_pending);
}

/* ---- reservations ---- */

static struct pending *next_reserver(struct worker *worker, const struct channel *channel)
{
	const char *name = channel->record->name;
	struct pending *pending = pending_first(worker->registry, name);

	for (; pending; pending = pending_next(pending, name)) {
		const struct message_open *open = &pending->record->request;
		struct policy_subject subject = peer_subject(pending->peer);

		if ((open->flags & IPC_CREATE) && !pending->peer->is_doomed &&
		    channels_is_as_wanted(channel, pending->peer, open) && policy_check_request(open) == 0 &&
		    policy_check_creation(&subject, open) == 0)
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

	r = answer_reserve(worker, heir);
	return pending->peer->is_doomed ? 0 : r;
}

void opener_drop_reservation(struct worker *worker, struct handle *handle)
{
	struct channel *channel = handle->channel;
	char name[sizeof(channel->record->name)];
	struct pending *pending;

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

/* ---- CONFIRM, CANCEL ---- */

static void confirmed(struct worker *worker, struct handle *handle, uint64_t request_id)
{
	struct channel *channel = handle->channel;
	struct peer *peer = handle->peer;
	char name[sizeof(channel->record->name)];
	int r;

	record_set(&channel->record->state, RECORD_USED);
	CRASH_POINT();
	record_set(&handle->record->state, RECORD_USED);
	CRASH_POINT();
	presence_begin(worker, handle);

	memcpy(name, channel->record->name, sizeof(name));
	r = grant(worker, handle, request_id, true);
	if (r < 0)
		peer_answer_result(worker, peer, request_id, r);
	opener_resume(worker, name);
}

static void confirmed_again(struct worker *worker, struct handle *handle, uint64_t request_id)
{
	struct peer *peer = handle->peer;
	int r;

	presence_begin_again(worker, handle);
	r = grant(worker, handle, request_id, true);
	if (r < 0)
		peer_answer_result(worker, peer, request_id, r);
}

void opener_confirm(struct worker *worker, struct peer *peer, const struct message_confirm *confirm)
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

	/* A client that says so without having reserved would give the others memory that may not be there (M-52). */
	if (status == 0 && segment_is_reserved(handle->channel->segment_fd, handle->channel->record->size) != 1)
		status = IPC_ENOSPC;

	if (status < 0) {
		reaper_close(worker, handle);
		peer_answer_result(worker, peer, request_id, status);
		return;
	}

	confirmed(worker, handle, request_id);
}

void opener_cancel(struct worker *worker, struct peer *peer, const struct message_cancel *cancel)
{
	struct pending *pending = pending_find(peer, cancel->cancelled_id);
	struct handle *handle;

	if (pending)
		pending_remove(worker, pending);

	handle = registry_handle_of_request(peer, cancel->cancelled_id);
	if (handle)
		reaper_close(worker, handle);
}
