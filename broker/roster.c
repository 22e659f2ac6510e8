/* SPDX-License-Identifier: MIT */
#include "broker/roster.h"

#include <ipc/admin.h>
#include <string.h>

#include "broker/flights.h"
#include "broker/limits.h"
#include "broker/offers.h"
#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/queues.h"
#include "broker/segments.h"
#include "broker/worker.h"
#include "libipc/core/header.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"

/*
 * Death: looking changes nothing.
 *
 * A page goes through the slots of all handles in their order and not through the channel's list,
 * whose order is another one after a worker's death: so a handle that is open during the whole of
 * a listing is told once, whatever comes and goes beside it.
 */

/* Of one request, so that nobody keeps the broker from the others. */
#define SLOTS_MAX 16384

static uint64_t elapsed_ns(uint64_t since_ns, uint64_t now_ns)
{
	return since_ns < now_ns ? now_ns - since_ns : 0;
}

/* ---- what it holds ---- */

/* The lock's holder, as the segment says: a hint.  Flights have none. */
static void fill_lock(struct message_handle *ret, const struct channel *channel, uint64_t now_ns)
{
	uint64_t holder[2]; /* id and since */

	if (!segments_read(channel->segment_fd, offsetof(struct channel_header, holder_id), holder,
			   sizeof(holder)) ||
	    holder[0] != ret->handle_id)
		return;

	ret->holds = IPC_HOLDS_LOCK;
	ret->n_held = 1;
	ret->held_ns = elapsed_ns(holder[1], now_ns);
}

struct page {
	struct message_handled *handled;
	uint64_t now_ns;
};

static void add_held(const struct page *page, const struct handle *holder, enum ipc_holding holding,
		     uint32_t n, uint64_t since_ns)
{
	uint64_t held_ns = elapsed_ns(since_ns, page->now_ns);
	uint32_t i;

	for (i = 0; i < page->handled->n; ++i) {
		struct message_handle *handle = &page->handled->handle[i];

		if (handle->handle_id != holder->record->id)
			continue;

		handle->holds = holding;
		handle->n_held += n;
		if (handle->held_ns < held_ns)
			handle->held_ns = held_ns;
	}
}

static void add_lead(const struct handle *leader, uint64_t since_ns, void *userdata)
{
	add_held(userdata, leader, IPC_HOLDS_LEAD, 1, since_ns);
}

static void add_grant(const struct handle *holder, uint32_t n_permits, uint64_t since_ns,
		      void *userdata)
{
	add_held(userdata, holder, IPC_HOLDS_PERMITS, n_permits, since_ns);
}

static void add_item(const struct handle *holder, enum ipc_holding holding, uint64_t since_ns,
		     void *userdata)
{
	add_held(userdata, holder, holding, 1, since_ns);
}

static void fill_held(struct registry *registry, const struct channel *channel, struct page *page)
{
	struct flights_budget flights = FLIGHTS_BUDGET;
	struct queues_budget queues = QUEUES_BUDGET;
	uint32_t n_grants = LIMITS_BUDGET;

	if (channel->record->kind == IPC_KIND_FLIGHT)
		(void)flights_look(registry, channel, &flights, add_lead, page);
	else if (channel->record->kind == IPC_KIND_LIMITER)
		(void)limits_look(registry, channel, &n_grants, add_grant, page);
	else if (channel->record->kind == IPC_KIND_QUEUE)
		queues_look(registry, channel, &queues, add_item, page);
}

/* ---- whom it waits for ---- */

/* What the client wrote into its desk; it may have made that up, so only an open handle of this
 * very channel is passed on. */
static void fill_wait(struct message_handle *ret, struct registry *registry,
		      const struct handle *handle, uint64_t now_ns)
{
	uint64_t offset = desk_cell_offset(handle->slot, offsetof(struct desk_cell, waits_for));
	uint64_t wait[2]; /* for and since */

	if (!segments_read(handle->peer->user->desk_fd, offset, wait, sizeof(wait)) || wait[1] == 0)
		return;

	ret->waiting_ns = elapsed_ns(wait[1], now_ns);
	if (ret->waiting_ns == 0)
		ret->waiting_ns = 1;

	if (registry_handle_on(registry, handle->channel, wait[0]))
		ret->waiting_for = wait[0];
}

/* ---- all of it ---- */

static void fill(struct message_handle *ret, struct registry *registry, const struct handle *handle,
		 uint64_t now_ns)
{
	const struct client_record *client = handle->peer->record;

	memset(ret, 0, sizeof(*ret));
	ret->handle_id = handle->record->id;
	ret->pid = client->pid;
	memcpy(ret->process_name, client->process_name, sizeof(ret->process_name));
	ret->role = handle->record->role;
	ret->weak = !handle->record->is_counted;
	fill_lock(ret, handle->channel, now_ns);
	fill_wait(ret, registry, handle, now_ns);
}

static int check(struct peer *peer, const struct channel *channel,
		 const struct message_handles *handles)
{
	struct policy_subject subject = peer_subject(peer);

	if (!channel || record_get(&channel->record->state) != RECORD_USED)
		return IPC_ENOENT;

	if (!policy_may_read(&subject, channel->record))
		return IPC_EACCES;

	/* The channel whose listing this goes on with has ended, and another has its name. */
	return handles->cursor == 0 || handles->generation == channel->record->generation
		       ? 0
		       : IPC_ENOENT;
}

/* Of a listener the ends of the sessions that came by its name, too, and who connects.  What is
 * offered is nobody's yet. */
static bool is_told(const struct handle *handle, const struct channel *channel)
{
	const struct channel *own = handle->channel;

	if (own == channel || !own || !own->session)
		return registry_is_open_on(handle, channel);

	return channel->record->kind == IPC_KIND_SESSION && registry_is_open_on(handle, own) &&
	       strcmp(own->record->name, channel->record->name) == 0 && !offers_is_one(handle);
}

void roster_handles(struct worker *worker, struct peer *peer, const struct message_handles *handles)
{
	struct message_handled *handled = &worker->reply.handled;
	struct registry *registry = worker->registry;
	struct channel *channel = registry_find(registry, handles->name);
	uint32_t top = registry->handle_slots.top;
	uint64_t now_ns = clock_now_ns();
	uint64_t slot = handles->cursor;
	unsigned n_looks = 0;
	uint32_t n = 0;
	int r;

	r = check(peer, channel, handles);
	if (r < 0) {
		peer_answer_result(worker, peer, handles->head.request_id, r);
		return;
	}

	message_init(&worker->reply, MESSAGE_HANDLED, handles->head.request_id);
	for (; slot < top && n < PROTOCOL_HANDLE_MAX && n_looks < SLOTS_MAX; ++slot, ++n_looks) {
		if (is_told(&registry->handle[slot], channel))
			fill(&handled->handle[n++], registry, &registry->handle[slot], now_ns);
	}

	handled->generation = channel->record->generation;
	handled->n = n;
	fill_held(registry, channel, &(struct page){handled, now_ns});
	handled->cursor = slot < top ? slot : PROTOCOL_CURSOR_END;
	handled->head.size = (uint32_t)(offsetof(struct message_handled, handle) +
					n * sizeof(handled->handle[0]));
	peer_answer(worker, peer, &worker->reply, NULL, 0);
}
