/* SPDX-License-Identifier: MIT */
#include "broker/handles.h"

#include "broker/overtaken.h"
#include "broker/policy.h"
#include "broker/worker.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"

/*
 * Death: a record is nothing until its state is stored, and nothing again after that is FREE.
 * Between the two its channel and its client have records, too: they are committed before and freed
 * after it.
 */

int handles_prepare(struct worker *worker, struct peer *peer, const struct message_open *open,
		    struct handle **ret)
{
	struct registry *registry = worker->registry;
	struct handle_record *record;
	struct handle *handle;
	uint32_t slot;
	int r;

	r = account_charge(&peer->user->account, ACCOUNT_HANDLES, 1);
	if (r < 0)
		return r;

	if (!slots_take(&registry->handle_slots, &slot)) {
		account_discharge(&peer->user->account, ACCOUNT_HANDLES, 1);
		return IPC_EBUSY;
	}

	handle = &registry->handle[slot];
	record = &registry->state->handle[slot];
	*handle = (struct handle){.slot = slot, .record = record, .peer = peer};

	record->client_slot = peer->slot;
	record->client_generation = peer->record->generation;
	record->id = state_handle_id(registry->state, slot);
	record->request_id = open->head.request_id;
	record->since = clock_now_ns();
	record->flags = open->flags;
	record->role = open->role;
	record->side = (uint8_t)policy_role(open->role)->side;
	record->is_counted =
		!(open->flags & OPEN_UNCOUNTED) && !policy_role(open->role)->is_uncounted;
	record->is_ending = record->ended_by_death = 0;
	record->group_id = record->lender_id = 0;
	record->is_joined = record->is_overtaken = 0;
	record->listener_id = 0;

	*ret = handle;
	return 0;
}

void handles_abandon(struct worker *worker, struct handle *handle)
{
	account_discharge(&handle->peer->user->account, ACCOUNT_HANDLES, 1);
	handle->peer = NULL;
	slots_put(&worker->registry->handle_slots, handle->slot);
}

void handles_commit(struct handle *handle, struct channel *channel, enum record_state state)
{
	handle->channel = channel;
	handle->record->channel_slot = channel->slot;
	CRASH_POINT();
	record_set(&handle->record->state, state);
	CRASH_POINT();
	registry_link(handle);
}

/* What points to it forgets it. */
static void forget(struct handle *handle)
{
	if (handle->offer)
		handle->offer->listener = NULL;
	if (handle->listener)
		handle->listener->offer = NULL;
	if (handle->channel->offer == handle)
		handle->channel->offer = NULL;
	handle->offer = handle->listener = NULL;
}

void handles_free(struct worker *worker, struct handle *handle)
{
	CRASH_POINT();
	forget(handle);
	if (handle->record->is_overtaken) {
		overtaken_add(handle);
		return;
	}

	record_set(&handle->record->state, RECORD_FREE);
	CRASH_POINT();
	account_discharge(&handle->peer->user->account, ACCOUNT_HANDLES, 1);
	registry_unlink(handle);
	slots_put(&worker->registry->handle_slots, handle->slot);
}
