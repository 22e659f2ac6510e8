/* SPDX-License-Identifier: MIT */
#include "broker/repair.h"

#include <ipc/client.h>
#include <utlist.h>

#include "broker/bells.h"
#include "broker/channels.h"
#include "broker/dispatch.h"
#include "broker/fences.h"
#include "broker/groups.h"
#include "broker/handles.h"
#include "broker/log.h"
#include "broker/offers.h"
#include "broker/opener.h"
#include "broker/overtaken.h"
#include "broker/pairs.h"
#include "broker/peer.h"
#include "broker/pending.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/segments.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"

/*
 * Death: a worker may die in here as well; everything is done in an order in which the next one
 * finds a state that it knows.  Records are dropped from the leaves to the root: handles, then
 * channels and clients, then users.
 *
 * Rules: a descriptor without a record is removed from the store.  A record without its descriptors
 * is dead: a client's is reaped like any dead client, a channel's and a user's are dropped. Counts,
 * lists, names and accounts are made from the records alone.
 */

static bool generation_is(uint32_t record_generation, uint32_t stored)
{
	return (record_generation & 0xffff) == stored;
}

static int *place_in_channel(struct channel *channel, char kind)
{
	switch (kind) {
	case 'c':
		return &channel->segment_fd;
	case 'l':
		return &channel->lines_fd;
	case 'e':
		return &channel->pair_fd[0];
	default:
		return &channel->pair_fd[1];
	}
}

/* Where a descriptor belongs, or NULL: nowhere. */
static int *place_of(struct registry *registry, const struct repair_fd *entry)
{
	struct state *state = registry->state;
	uint32_t slot = entry->slot;

	switch (entry->kind) {
	case 't':
	case 'd':
		if (slot >= registry->user_slots.top ||
		    record_get(&state->user[slot].state) == RECORD_FREE ||
		    !generation_is(state->user[slot].generation, entry->generation))
			return NULL;
		return entry->kind == 't' ? &registry->user[slot].table_fd
					  : &registry->user[slot].desk_fd;
	case 's':
	case 'p':
	case 'b':
		if (slot >= registry->client_slots.top ||
		    record_get(&state->client[slot].state) == RECORD_FREE ||
		    !generation_is(state->client[slot].generation, entry->generation))
			return NULL;
		return entry->kind == 's'   ? &registry->peer[slot].socket_fd
		       : entry->kind == 'p' ? &registry->peer[slot].pidfd
					    : &registry->peer[slot].bell_fd;
	case 'c':
	case 'l':
	case 'e':
	case 'f':
		if (slot >= registry->channel_slots.top ||
		    record_get(&state->channel[slot].state) == RECORD_FREE ||
		    !generation_is(state->channel[slot].generation_slot, entry->generation))
			return NULL;
		return place_in_channel(&registry->channel[slot], entry->kind);
	default:
		return NULL;
	}
}

static void objects_prepare(struct registry *registry)
{
	uint32_t slot;

	for (slot = 0; slot < registry->client_slots.top; ++slot)
		registry->peer[slot] =
			(struct peer){.slot = slot, .socket_fd = -1, .pidfd = -1, .bell_fd = -1};
	for (slot = 0; slot < registry->channel_slots.top; ++slot)
		registry->channel[slot] = (struct channel){
			.slot = slot, .segment_fd = -1, .lines_fd = -1, .pair_fd = {-1, -1}};
}

static void place_fds(struct worker *worker, struct repair *repair)
{
	uint32_t i, n_orphans = 0;

	for (i = 0; i < repair->n_fds; ++i) {
		struct repair_fd *entry = &repair->fds[i];
		int *place = place_of(worker->registry, entry);

		if (place && *place < 0) {
			*place = entry->fd;
			continue;
		}

		/* Out of the store, not only closed: else it comes back for ever. */
		segments_unstore(worker, entry->kind, entry->slot, entry->generation);
		fd_close(entry->fd);
		++n_orphans;
		CRASH_POINT();
	}

	if (n_orphans > 0)
		log_line(LOG_LEVEL_INFO, "%u descriptors without a record dropped", n_orphans);
}

/* ---- users, clients, channels, handles ---- */

static void adopt_users(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->user_slots.top; ++slot) {
		struct user *user = &registry->user[slot];

		if (record_get(&user->record->state) == RECORD_FREE)
			continue;

		if (user->table_fd >= 0 && user->desk_fd >= 0 && segments_map_user(user) == 0) {
			account_init(&user->account, user->record->uid,
				     config_limits_of(&worker->config, user->record->uid));
			continue;
		}

		log_line(LOG_LEVEL_WARNING, "user %u: table or desk lost", user->record->uid);
		fences_end(registry->state, user);
		record_set(&user->record->state, RECORD_FREE);
		segments_drop_user(worker, user);
		slots_put(&registry->user_slots, slot);
	}
}

static void forget_client(struct worker *worker, struct peer *peer)
{
	segments_unstore(worker, 's', peer->slot, peer->record->generation);
	segments_unstore(worker, 'p', peer->slot, peer->record->generation);
	bells_drop(worker, peer);
	peer->socket_fd = fd_close(peer->socket_fd);
	peer->pidfd = fd_close(peer->pidfd);
	record_set(&peer->record->state, RECORD_FREE);
	slots_put(&worker->registry->client_slots, peer->slot);
	peer->record = NULL;
}

static void adopt_clients(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->client_slots.top; ++slot) {
		struct peer *peer = &registry->peer[slot];
		struct client_record *record = &registry->state->client[slot];

		if (record_get(&record->state) == RECORD_FREE)
			continue;

		peer->record = record;
		peer->user = registry_user(registry, record->uid);
		if (!peer->user) {
			forget_client(worker, peer);
			continue;
		}

		worker->had_clients = true;
		if (record->is_welcome) {
			account_adopt(&peer->user->account, ACCOUNT_CONNECTIONS, 1);
		} else {
			peer->needs_confirmation = worker->needs_confirmation;
			peer_set_quiet(worker, peer);
		}

		if (record_get(&record->state) == RECORD_DYING || peer->socket_fd < 0 ||
		    peer->pidfd < 0 || (record->is_welcome && peer->bell_fd < 0))
			peer_doom(worker, peer);
	}
}

static bool channel_is_whole(const struct channel *channel)
{
	return channel->owner && channel->segment_fd >= 0 &&
	       (channel->record->lines_id == 0 || channel->lines_fd >= 0) &&
	       pairs_is_whole(channel);
}

static void adopt_channels(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->channel_slots.top; ++slot) {
		struct channel *channel = &registry->channel[slot];
		struct channel_record *record = &registry->state->channel[slot];

		if (record_get(&record->state) == RECORD_FREE)
			continue;

		channel->record = record;
		channel->owner = registry_user(registry, record->uid);
		channel->session = record->is_session ? &registry->state->session[slot] : NULL;
		if (!channel_is_whole(channel) ||
		    (!record_get(&record->is_removed) && !record->is_session &&
		     registry_name_add(registry, channel) < 0)) {
			log_line(LOG_LEVEL_WARNING, "channel %s: segment lost", record->name);
			record_set(&record->state, RECORD_FREE);
			segments_drop_channel(worker, channel);
			slots_put(&registry->channel_slots, slot);
			channel->record = NULL;
			continue;
		}

		account_adopt(&channel->owner->account, ACCOUNT_CHANNELS, 1);
		account_adopt(&channel->owner->account, ACCOUNT_BYTES, record->size);
	}
}

/* Whether the record means a handle: its client and its channel are there, and a handle that
 * reserves is its channel's reserver. */
static bool handle_is_whole(struct registry *registry, const struct handle_record *record)
{
	const struct peer *peer = &registry->peer[record->client_slot % LIVENESS_CLIENTS_MAX];
	const struct channel *channel =
		&registry->channel[record->channel_slot % LIVENESS_CHANNELS_MAX];

	if (!peer->record || peer->record->generation != record->client_generation ||
	    !channel->record)
		return false;

	return record_get(&record->state) != RECORD_RESERVING ||
	       channel->record->reserver == record->id;
}

static void adopt_handle(struct registry *registry, struct handle *handle)
{
	struct handle_record *record = handle->record;
	struct peer *peer = &registry->peer[record->client_slot];
	struct channel *channel = &registry->channel[record->channel_slot];

	if (record_get(&record->state) == RECORD_OVERTAKEN) {
		overtaken_adopt(handle, peer, channel);
		return;
	}

	handle->peer = peer;
	handle->channel = channel;
	account_adopt(&handle->peer->user->account, ACCOUNT_HANDLES, 1);
	registry_link(handle);

	/* Its channel was confirmed, and then the worker died. */
	if (record_get(&record->state) == RECORD_RESERVING &&
	    record_get(&handle->channel->record->state) == RECORD_USED)
		record_set(&record->state, RECORD_USED);

	if (record_get(&record->state) == RECORD_USED && !record->is_ending && record->is_counted)
		++handle->channel->count[record->side];
}

static void adopt_handles(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->handle_slots.top; ++slot) {
		struct handle *handle = &registry->handle[slot];
		struct handle_record *record = &registry->state->handle[slot];

		*handle = (struct handle){.slot = slot, .record = record};
		if (record_get(&record->state) == RECORD_FREE)
			continue;

		if (handle_is_whole(registry, record)) {
			adopt_handle(registry, handle);
			continue;
		}

		record_set(&record->state, RECORD_FREE);
		slots_put(&registry->handle_slots, slot);
	}
}

/* ---- words ---- */

/* Every handle's word says what its record says.  Most do already; a store that changes nothing
 * tells nobody anything. */
static void repair_handle_words(struct registry *registry)
{
	uint32_t slot;

	for (slot = 0; slot < registry->handle_slots.top; ++slot) {
		struct handle *handle = &registry->handle[slot];

		if (handle->peer && record_get(&handle->record->state) == RECORD_USED &&
		    !handle->record->is_ending)
			liveness_handle_set(handle->channel->owner->table, slot,
					    handle->record->id);
	}
}

static void repair_channel(struct worker *worker, struct channel *channel)
{
	unsigned side;
	bool is_untold = false;

	/* Whom to ring may have changed without anybody having been told. */
	liveness_members_change(channel->owner->table, channel->slot);

	for (side = 0; side < 2; ++side) {
		struct handle *handle, *next;

		for (handle = channel->handles[side]; handle; handle = next) {
			next = handle->channel_next;
			if (handle->record->is_ending)
				reaper_finish_handle(worker, handle);
		}
	}

	if (channel->session)
		sessions_repair(worker, channel);
	presence_repair(worker, channel, true);

	for (side = 0; side < 2; ++side) {
		uint64_t word = liveness_side(channel->owner->table, channel->slot, side);

		if (record_get(&channel->record->is_removed) && channel->count[side] == 0 &&
		    !(word & SIDE_FINAL))
			is_untold = true;
	}
	if (is_untold)
		presence_remove(worker, channel);
}

static void repair_channels(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->channel_slots.top; ++slot) {
		struct channel *channel = &registry->channel[slot];

		if (!channel->record)
			continue;

		repair_channel(worker, channel);
		if (channel->session && sessions_is_kept(channel))
			continue;
		if (channels_is_empty(channel) &&
		    (!(channel->record->flags & IPC_KEEP) ||
		     record_get(&channel->record->state) == RECORD_RESERVING ||
		     record_get(&channel->record->is_removed))) {
			channels_free(worker, channel);
			channel->record = NULL;
		}
	}
}

int repair_run(struct worker *worker, struct repair *repair)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	registry_adopt_slots(registry);
	objects_prepare(registry);
	place_fds(worker, repair);
	adopt_users(worker);
	adopt_clients(worker);
	adopt_channels(worker);
	adopt_handles(worker);
	pending_adopt(worker);
	groups_adopt(worker);
	repair_handle_words(registry);
	repair_channels(worker);

	for (slot = 0; slot < registry->client_slots.top; ++slot) {
		struct peer *peer = &registry->peer[slot];

		if (peer->record && !peer->is_doomed && peer_watch(worker, peer) < 0)
			peer_doom(worker, peer);
	}
	return 0;
}

void repair_resume(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->client_slots.top; ++slot) {
		struct peer *peer = &registry->peer[slot];

		if (peer->record && !peer->is_doomed)
			dispatch_adopt(worker, peer);
	}

	groups_resume_all(worker);
	offers_adopt(worker);
	opener_replay(worker);
	groups_finish_all(worker);
	reaper_run(worker);
	opener_resume_all(worker);
	offers_resume_all(worker);

	/* Only now: a pending that was granted is known by its handle, which its client may have
	 * closed by now. */
	for (slot = 0; slot < registry->client_slots.top; ++slot) {
		struct peer *peer = &registry->peer[slot];

		if (peer->record && !peer->is_doomed)
			dispatch_adopt_desk(worker, peer);
	}

	reaper_run(worker);
}
