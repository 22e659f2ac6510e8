/* SPDX-License-Identifier: MIT */
#include "broker/groups.h"

#include <fnmatch.h>
#include <ipc/admin.h>
#include <string.h>
#include <utlist.h>

#include "broker/grant.h"
#include "broker/handles.h"
#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"
#include "libipc/wire/codec.h"

/*
 * Death: the record is committed before any handle of the group, and DYING before the first of them
 * is ended.  A channel's handle, that of its dead letters, JOINED, n_joined, is_joined: in this
 * order, each found by the next worker, which looks at all channels for all groups before it
 * answers anybody.  So a JOINED may be sent twice, but none is missing.  The client drops the
 * second.
 */

#define CURSOR_END LIVENESS_CHANNELS_MAX

/* Handles made in one turn of a client. */
#define JOIN_SHARE 64

/* One user leaves some to the others. */
#define GROUPS_OF_USER_MAX (STATE_GROUPS_MAX / 2)

static const struct message_open queue_open = {
	.head = {.request_id = REQUEST_NONE},
	.kind = IPC_KIND_QUEUE,
	.role = IPC_ROLE_GROUP,
};

static const struct message_open dead_open = {
	.head = {.request_id = REQUEST_NONE},
	.kind = IPC_KIND_QUEUE,
	.role = IPC_ROLE_GROUP,
	.flags = OPEN_UNCOUNTED,
};

static bool group_is_ending(const struct group *group)
{
	return record_get(&group->record->state) == RECORD_DYING;
}

/* ---- which queues ---- */

static bool may_open(const struct group *group, const struct channel *channel,
		     const struct message_open *open)
{
	struct policy_subject subject = peer_subject(group->peer);

	return policy_check_open(&subject, channel->record, open) == 0;
}

static bool has_name(const struct channel *channel)
{
	return channel->is_named && record_get(&channel->record->state) == RECORD_USED;
}

static bool group_concerns(const struct group *group, const struct channel *channel)
{
	return has_name(channel) && channel->record->kind == IPC_KIND_QUEUE &&
	       fnmatch(group->record->pattern, channel->record->name, 0) == 0 &&
	       may_open(group, channel, &queue_open);
}

/* lender_id 0: of the queue; else of the dead letters of that handle. */
static struct handle *group_handle(const struct group *group, const struct channel *channel,
				   uint64_t lender_id)
{
	struct handle *handle;

	DL_FOREACH2(channel->handles[policy_role(IPC_ROLE_GROUP)->side], handle, channel_next)
	{
		const struct handle_record *record = handle->record;

		if (handle->peer == group->peer && record->group_id == group->record->group_id &&
		    record->lender_id == lender_id && !record->is_ending)
			return handle;
	}
	return NULL;
}

/* ---- one queue ---- */

static struct handle *handle_new(struct worker *worker, struct group *group,
				 struct channel *channel, const struct message_open *open,
				 uint64_t lender_id)
{
	struct handle *handle;

	/* A refusal is in the log, with user, quota and figure. */
	if (handles_prepare(worker, group->peer, open, &handle) < 0)
		return NULL;

	handle->record->group_id = group->record->group_id;
	handle->record->lender_id = lender_id;
	handles_commit(handle, channel, RECORD_USED);
	presence_begin(worker, handle);
	return handle;
}

/* Or NULL: there are none, or none that this client may have; what is moved is dropped then. */
static struct handle *dead_letters_of(struct worker *worker, struct group *group,
				      const struct handle *handle)
{
	const char *name = handle->channel->record->dead_letters;
	struct channel *channel = name[0] ? registry_find(worker->registry, name) : NULL;
	struct handle *dead;

	if (!channel || !has_name(channel))
		return NULL;

	dead = group_handle(group, channel, handle->record->id);
	if (dead || !may_open(group, channel, &dead_open))
		return dead;

	return handle_new(worker, group, channel, &dead_open, handle->record->id);
}

static int tell_joined(struct worker *worker, struct group *group, struct handle *handle,
		       const struct handle *dead)
{
	struct message_joined *joined = &worker->reply.joined;
	struct peer *peer = group->peer;
	int fds[2 * GRANT_FDS_MAX];
	unsigned n = 0, n_dead = 0;
	int r;

	message_init(&worker->reply, MESSAGE_JOINED, 0);
	joined->group_id = group->record->group_id;
	memcpy(joined->name, handle->channel->record->name, sizeof(joined->name));
	r = grant_describe(worker, handle, &joined->queue, fds, &n);
	if (r == 0 && dead)
		r = grant_describe(worker, dead, &joined->dead, fds + n, &n_dead);
	if (r < 0)
		return r;

	joined->n_fds_queue = n;
	joined->has_dead = dead != NULL;
	r = peer_offer(worker, peer, &worker->reply, fds, n + n_dead);
	if (r < 0)
		return r;

	liveness_join(peer->user->table, peer->slot);
	CRASH_POINT();
	record_fence();
	handle->record->is_joined = 1;
	record_fence();
	CRASH_POINT();
	return 0;
}

/* IPC_EAGAIN: the peer has to read first.  0: done, 1: and something was sent. */
static int group_join(struct worker *worker, struct group *group, struct channel *channel)
{
	struct handle *handle = group_handle(group, channel, 0), *dead;
	int r;

	if (handle && handle->record->is_joined)
		return 0;
	if (!handle)
		handle = handle_new(worker, group, channel, &queue_open, 0);
	if (!handle)
		return 0;

	dead = dead_letters_of(worker, group, handle);
	r = tell_joined(worker, group, handle, dead);
	if (r == 0 || group->peer->is_doomed)
		return 1;
	if (r == IPC_EAGAIN)
		return r;

	peer_log(group->peer, "a queue could not be given to its group");
	if (dead)
		reaper_close(worker, dead);
	reaper_close(worker, handle);
	return 0;
}

/* ---- all queues ---- */

/* From the cursor on, n_max at most.  False: not to the end. */
static bool group_run(struct worker *worker, struct group *group, unsigned n_max)
{
	struct registry *registry = worker->registry;
	int r;

	for (; group->cursor < registry->channel_slots.top; ++group->cursor) {
		struct channel *channel = &registry->channel[group->cursor];

		if (!group_concerns(group, channel))
			continue;
		if (n_max == 0 || !peer_has_room(worker, group->peer))
			return false;

		r = group_join(worker, group, channel);
		if (r < 0 || group->peer->is_doomed)
			return false;
		n_max -= (unsigned)r;
	}

	group->cursor = CURSOR_END;
	return true;
}

static void group_meet(struct worker *worker, struct group *group, struct channel *channel,
		       const struct peer *opener)
{
	/* What waits for its turn goes before. */
	if (group->cursor != CURSOR_END) {
		if (group->cursor > channel->slot)
			group->cursor = channel->slot;
		return;
	}

	if (!group_concerns(group, channel))
		return;

	/* The opener's own answer must find room. */
	if ((group->peer == opener && !peer_has_room(worker, group->peer)) ||
	    group_join(worker, group, channel) == IPC_EAGAIN)
		group->cursor = channel->slot;
}

void groups_meet(struct worker *worker, struct channel *channel, const struct peer *opener)
{
	struct group *group;

	DL_FOREACH(worker->registry->groups, group)
	{
		if (!group->peer->is_doomed && !group_is_ending(group))
			group_meet(worker, group, channel, opener);
	}
}

void groups_resume_peer(struct worker *worker, struct peer *peer)
{
	struct group *group;

	DL_FOREACH2(peer->groups, group, peer_next)
	{
		if (!peer->is_doomed && !group_is_ending(group))
			(void)group_run(worker, group, UINT32_MAX);
	}
}

/* ---- begin and end ---- */

static struct group *group_find(const struct peer *peer, uint64_t group_id)
{
	struct group *group;

	DL_FOREACH2(peer->groups, group, peer_next)
	{
		if (group->record->group_id == group_id)
			return group;
	}
	return NULL;
}

static void group_link(struct registry *registry, struct group *group)
{
	DL_APPEND(registry->groups, group);
	DL_APPEND2(group->peer->groups, group, peer_prev, peer_next);
}

static bool has_too_many(const struct registry *registry, const struct peer *peer)
{
	const struct group *group;
	unsigned n = 0;

	DL_FOREACH(registry->groups, group)
	{
		n += group->peer->user == peer->user;
	}
	return n >= GROUPS_OF_USER_MAX;
}

static int group_new(struct worker *worker, struct peer *peer, const struct message_group *request,
		     struct group **ret)
{
	struct registry *registry = worker->registry;
	struct group_record *record;
	struct group *group;
	uint32_t slot;
	int r;

	if (has_too_many(registry, peer)) {
		peer_log(peer, "its user has as many groups as one may have");
		return IPC_EDQUOT;
	}

	/* It stands for a handle of its user, like each of its queues. */
	r = account_charge(&peer->user->account, ACCOUNT_HANDLES, 1);
	if (r < 0)
		return r;

	if (!slots_take(&registry->group_slots, &slot)) {
		account_discharge(&peer->user->account, ACCOUNT_HANDLES, 1);
		return IPC_EBUSY;
	}

	group = &registry->group[slot];
	record = &registry->state->group[slot];
	*group = (struct group){.slot = slot, .record = record, .peer = peer};
	record->client_slot = peer->slot;
	record->client_generation = peer->record->generation;
	record->group_id = request->group_id;
	memcpy(record->pattern, request->pattern, sizeof(record->pattern));
	CRASH_POINT();
	record_set(&record->state, RECORD_USED);
	CRASH_POINT();
	group_link(registry, group);
	*ret = group;
	return 0;
}

static void group_free(struct worker *worker, struct group *group)
{
	struct registry *registry = worker->registry;
	struct peer *peer = group->peer;

	CRASH_POINT();
	record_set(&group->record->state, RECORD_FREE);
	CRASH_POINT();
	DL_DELETE(registry->groups, group);
	DL_DELETE2(peer->groups, group, peer_prev, peer_next);
	account_discharge(&peer->user->account, ACCOUNT_HANDLES, 1);
	slots_put(&registry->group_slots, group->slot);
}

static void group_end(struct worker *worker, struct group *group)
{
	struct handle *handle, *next;

	record_set(&group->record->state, RECORD_DYING);
	CRASH_POINT();

	/* What a close lets in stands at the head of the list: never `next`. */
	for (handle = group->peer->handles; handle; handle = next) {
		next = handle->client_next;
		if (handle->record->group_id == group->record->group_id)
			reaper_close(worker, handle);
	}
	group_free(worker, group);
}

void groups_end(struct worker *worker, struct peer *peer, uint64_t group_id)
{
	struct group *group = group_find(peer, group_id);

	if (group)
		group_end(worker, group);
}

void groups_forget(struct worker *worker, struct peer *peer)
{
	while (peer->groups)
		group_free(worker, peer->groups);
}

bool groups_open(struct worker *worker, struct peer *peer, const struct message_group *request)
{
	struct group *group = group_find(peer, request->group_id);
	int r = 0;

	if (request->pattern[0] == '\0') {
		groups_end(worker, peer, request->group_id);
		return true;
	}

	if (!group)
		r = group_new(worker, peer, request, &group);
	else if (strcmp(group->record->pattern, request->pattern) != 0)
		r = IPC_EINVAL;

	if (r == 0 && !group_run(worker, group, JOIN_SHARE))
		return false;

	peer_answer_result(worker, peer, request->head.request_id, r);
	return true;
}

/* ---- a new worker ---- */

void groups_adopt(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->group_slots.top; ++slot) {
		struct group *group = &registry->group[slot];
		struct group_record *record = &registry->state->group[slot];
		struct peer *peer = &registry->peer[record->client_slot % LIVENESS_CLIENTS_MAX];

		if (record_get(&record->state) == RECORD_FREE)
			continue;

		if (!peer->record || peer->record->generation != record->client_generation) {
			record_set(&record->state, RECORD_FREE);
			slots_put(&registry->group_slots, slot);
			continue;
		}

		*group = (struct group){.slot = slot, .record = record, .peer = peer};
		account_adopt(&peer->user->account, ACCOUNT_HANDLES, 1);
		group_link(registry, group);
	}
}

void groups_resume_all(struct worker *worker)
{
	struct group *group;

	DL_FOREACH(worker->registry->groups, group)
	{
		if (!group->peer->is_doomed && !group_is_ending(group))
			(void)group_run(worker, group, UINT32_MAX);
	}
}

void groups_finish_all(struct worker *worker)
{
	struct group *group, *next;

	DL_FOREACH_SAFE(worker->registry->groups, group, next)
	{
		if (!group->peer->is_doomed && group_is_ending(group))
			group_end(worker, group);
	}
}
