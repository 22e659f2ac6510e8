/* SPDX-License-Identifier: MIT */
#include "broker/pending.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/peer.h"
#include "broker/worker.h"
#include "libipc/platform/crash.h"

/*
 * Death: the record is committed before the OPEN is taken off the client's queue, and freed after
 * it was answered.  So a worker may find both record and OPEN (the OPEN is dropped), or a record
 * whose open was done (the handle bears its request id, and is told again).  A refusal is noted in
 * the record before it is said: it must not become a grant that the client does not wait for any
 * more.
 */

static void link_pending(struct registry *registry, struct pending *pending)
{
	struct pending **waiting = registry_waiting(registry, pending->record->request.name);

	DL_APPEND2(*waiting, pending, name_prev, name_next);
	DL_APPEND2(pending->peer->pendings, pending, peer_prev, peer_next);
}

int pending_add(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct registry *registry = worker->registry;
	struct pending_record *record;
	struct pending *pending;
	uint32_t slot;
	int r;

	r = account_charge(&peer->user->account, ACCOUNT_PENDINGS, 1);
	if (r < 0)
		return r;

	if (!slots_take(&registry->pending_slots, &slot)) {
		account_discharge(&peer->user->account, ACCOUNT_PENDINGS, 1);
		return IPC_EBUSY;
	}

	pending = &registry->pending[slot];
	record = &registry->state->pending[slot];
	*pending = (struct pending){.slot = slot, .record = record, .peer = peer};
	record->client_slot = peer->slot;
	record->client_generation = peer->record->generation;
	record->order = state_next_id(registry->state);
	record->request = *open;
	CRASH_POINT();
	record_set(&record->state, RECORD_USED);
	CRASH_POINT();
	link_pending(registry, pending);
	return 0;
}

void pending_remove(struct worker *worker, struct pending *pending)
{
	struct pending **waiting =
		registry_waiting(worker->registry, pending->record->request.name);

	CRASH_POINT();
	record_set(&pending->record->state, RECORD_FREE);
	CRASH_POINT();
	DL_DELETE2(*waiting, pending, name_prev, name_next);
	DL_DELETE2(pending->peer->pendings, pending, peer_prev, peer_next);
	account_discharge(&pending->peer->user->account, ACCOUNT_PENDINGS, 1);
	pending->peer = NULL;
	slots_put(&worker->registry->pending_slots, pending->slot);
}

void pending_answer(struct worker *worker, struct pending *pending, int result)
{
	struct pending_record *record = pending->record;

	record->result = result;
	record_set(&record->state, RECORD_DYING);
	CRASH_POINT();
	peer_say_result(worker, pending->peer, record->request.head.request_id, result);
	pending_remove(worker, pending);
}

static int order_compare(const void *a, const void *b)
{
	const struct pending *first = *(struct pending *const *)a;
	const struct pending *second = *(struct pending *const *)b;

	return (first->record->order > second->record->order) -
	       (first->record->order < second->record->order);
}

void pending_adopt(struct worker *worker)
{
	static struct pending *found[STATE_PENDINGS_MAX];
	struct registry *registry = worker->registry;
	uint32_t n = 0, slot;

	for (slot = 0; slot < registry->pending_slots.top; ++slot) {
		struct pending *pending = &registry->pending[slot];
		struct pending_record *record = &registry->state->pending[slot];
		struct peer *peer = &registry->peer[record->client_slot % LIVENESS_CLIENTS_MAX];

		if (record_get(&record->state) == RECORD_FREE)
			continue;

		if (!peer->record || peer->record->generation != record->client_generation) {
			record_set(&record->state, RECORD_FREE);
			slots_put(&registry->pending_slots, slot);
			continue;
		}

		*pending = (struct pending){.slot = slot, .record = record, .peer = peer};
		account_adopt(&peer->user->account, ACCOUNT_PENDINGS, 1);
		found[n++] = pending;
	}

	qsort(found, n, sizeof(found[0]), order_compare);
	for (slot = 0; slot < n; ++slot)
		link_pending(registry, found[slot]);
}

struct pending *pending_find(const struct peer *peer, uint64_t request_id)
{
	struct pending *pending;

	DL_FOREACH2(peer->pendings, pending, peer_next)
	{
		if (pending->record->request.head.request_id == request_id)
			return pending;
	}
	return NULL;
}

struct pending *pending_from(struct pending *pending, const char *name)
{
	while (pending && strcmp(pending->record->request.name, name) != 0)
		pending = pending->name_next;

	return pending;
}

struct pending *pending_first(struct registry *registry, const char *name)
{
	if (registry->pending_slots.n_used == 0)
		return NULL;

	return pending_from(*registry_waiting(registry, name), name);
}

struct pending *pending_next(const struct pending *pending, const char *name)
{
	return pending_from(pending->name_next, name);
}
