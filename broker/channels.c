/* SPDX-License-Identifier: MIT */
#include "broker/channels.h"

#include <ipc/admin.h>
#include <ipc/client.h>
#include <string.h>

#include "broker/overtaken.h"
#include "broker/policy.h"
#include "broker/presence.h"
#include "broker/queues.h"
#include "broker/segments.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/channel/queue.h"
#include "libipc/channel/session.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"

/*
 * Death: the segment is stored, then the record committed, then its reserver's handle.  A RESERVING
 * channel without that handle, and a USED one without any, is freed by the next worker; the OPEN
 * that is still in its client's queue makes it again.  A channel that ends before its last handle
 * has one store that says so; that it should have been done is seen in the counts, and in the words
 * of an earlier worker (channels_is_over).
 */

#define MODE_DEFAULT 0600u

static uint32_t wanted_mode(const struct message_open *open)
{
	return open->mode ? open->mode : MODE_DEFAULT;
}

static uint32_t wanted_gid(const struct message_open *open, const struct peer *peer)
{
	return open->gid ? open->gid : peer->record->gid;
}

static uint64_t wanted_flags(const struct message_open *open)
{
	return open->flags & (IPC_KEEP | policy_shape_flags(open->kind));
}

static void record_fill(struct worker *worker, struct channel_record *record,
			const struct peer *peer, const struct message_open *open, uint64_t reserver)
{
	record->generation = state_next_id(worker->registry->state);
	record->kind = open->kind;
	record->mode = wanted_mode(open);
	record->uid = peer->record->uid;
	record->gid = wanted_gid(open, peer);
	record->flags = wanted_flags(open);
	memcpy(record->shape, open->shape_new, sizeof(record->shape));
	record->size = open->size_new;
	record->reserver = reserver;
	record->is_session = false;
	record_set(&record->is_removed, 0);
	memcpy(record->name, open->name, sizeof(record->name));
	memcpy(record->dead_letters, open->dead_letters, sizeof(record->dead_letters));
}

static int charge(struct account *account, uint64_t size)
{
	int r;

	r = account_charge(account, ACCOUNT_CHANNELS, 1);
	if (r < 0)
		return r;

	r = account_charge(account, ACCOUNT_BYTES, size);
	if (r < 0)
		account_discharge(account, ACCOUNT_CHANNELS, 1);
	return r;
}

static void discharge(struct account *account, uint64_t size)
{
	account_discharge(account, ACCOUNT_CHANNELS, 1);
	account_discharge(account, ACCOUNT_BYTES, size);
}

/* With everything charged; the slot is taken. */
static int make(struct worker *worker, struct channel *channel, const struct channel *listener)
{
	int r;

	r = listener ? sessions_init(worker, channel, listener)
		     : registry_name_add(worker->registry, channel);
	if (r < 0)
		return r;

	r = segments_make_channel(worker, channel);
	if (r < 0)
		registry_name_remove(worker->registry, channel);
	return r;
}

/* listener: of a session; else NULL. */
static int channel_new(struct worker *worker, struct peer *peer, const struct message_open *open,
		       uint64_t reserver, const struct channel *listener, struct channel **ret)
{
	struct registry *registry = worker->registry;
	struct account *account = &peer->user->account;
	struct channel *channel;
	uint32_t slot;
	int r;

	r = charge(account, open->size_new);
	if (r < 0)
		return r;

	if (!slots_take(&registry->channel_slots, &slot)) {
		discharge(account, open->size_new);
		return IPC_ENFILE;
	}

	channel = &registry->channel[slot];
	*channel = (struct channel){
		.slot = slot,
		.record = &registry->state->channel[slot],
		.segment_fd = -1,
		.lines_fd = -1,
		.pair_fd = {-1, -1},
		.owner = peer->user,
	};
	record_fill(worker, channel->record, peer, open, reserver);

	r = make(worker, channel, listener);
	if (r < 0) {
		slots_put(&registry->channel_slots, slot);
		discharge(account, open->size_new);
		return r;
	}

	presence_reset(channel);
	CRASH_POINT();
	record_set(&channel->record->state, RECORD_RESERVING);
	CRASH_POINT();
	*ret = channel;
	return 0;
}

int channels_new(struct worker *worker, struct peer *peer, const struct message_open *open,
		 uint64_t reserver, struct channel **ret)
{
	return channel_new(worker, peer, open, reserver, NULL, ret);
}

int channels_new_session(struct worker *worker, struct peer *peer, const struct channel *listener,
			 uint64_t reserver, struct channel **ret)
{
	const struct channel_record *model = listener->record;
	struct message_open open = {
		.kind = IPC_KIND_SESSION,
		.mode = model->mode,
		.gid = model->gid,
		.size_new = segment_round(session_segment_size(model->shape)),
	};

	memcpy(open.shape_new, model->shape, sizeof(open.shape_new));
	memcpy(open.name, model->name, sizeof(open.name));
	return channel_new(worker, peer, &open, reserver, listener, ret);
}

bool channels_is_as_wanted(const struct channel *channel, const struct peer *peer,
			   const struct message_open *open)
{
	const struct channel_record *record = channel->record;

	return peer->user == channel->owner && open->kind == record->kind &&
	       open->size_new == record->size &&
	       memcmp(open->shape_new, record->shape, sizeof(record->shape)) == 0 &&
	       wanted_mode(open) == record->mode && wanted_gid(open, peer) == record->gid &&
	       wanted_flags(open) == record->flags &&
	       strcmp(open->dead_letters, record->dead_letters) == 0;
}

void channels_end(struct worker *worker, struct channel *channel)
{
	record_set(&channel->record->is_removed, 1);
	CRASH_POINT();
	registry_name_remove(worker->registry, channel);
}

bool channels_is_over(const struct channel *channel)
{
	const struct channel_record *record = channel->record;

	if ((record->flags & IPC_KEEP) || record_get(&record->state) != RECORD_USED ||
	    record_get(&record->is_removed))
		return false;

	if (record->kind == IPC_KIND_INBOX)
		return channel->count[0] + channel->count[1] == 0;

	if (record->kind != IPC_KIND_QUEUE || channel->count[QUEUE_SIDE_CONSUMERS] > 0)
		return false;

	/* Awaited consumers may still come, as long as somebody awaits them. */
	return channel->count[QUEUE_SIDE_PRODUCERS] == 0 ||
	       (liveness_side(channel->owner->table, channel->slot, QUEUE_SIDE_CONSUMERS) &
		SIDE_EVER);
}

bool channels_is_empty(const struct channel *channel)
{
	return !channel->handles[0] && !channel->handles[1];
}

void channels_free(struct worker *worker, struct channel *channel)
{
	struct channel_record *record = channel->record;

	if (record->kind == IPC_KIND_QUEUE && record_get(&record->state) == RECORD_USED)
		queues_log_rest(channel);

	registry_name_remove(worker->registry, channel);
	overtaken_end_channel(worker, channel);
	sessions_forget(worker, channel);
	CRASH_POINT();
	record_set(&record->state, RECORD_FREE);
	CRASH_POINT();
	segments_drop_channel(worker, channel);
	discharge(&channel->owner->account, record->size);
	slots_put(&worker->registry->channel_slots, channel->slot);
}
