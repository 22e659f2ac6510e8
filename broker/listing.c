/* SPDX-License-Identifier: MIT */
#include "broker/listing.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <string.h>
#include <utlist.h>

#include "broker/channels.h"
#include "broker/flights.h"
#include "broker/inboxes.h"
#include "broker/limits.h"
#include "broker/log.h"
#include "broker/opener.h"
#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/presence.h"
#include "broker/queues.h"
#include "broker/reaper.h"
#include "broker/segments.h"
#include "broker/worker.h"
#include "libipc/core/header.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/wire/codec.h"

/*
 * Death: looking changes nothing.  A removal notes the request and the generation that it is about
 * before it takes the name away, so that the same request done twice cannot take the name from the
 * next channel that bears it.
 */

/* Of one request, so that nobody keeps the broker from the others: slots looked at, and cells read
 * for the number of waiters. */
#define SLOTS_MAX 1024
#define CELLS_MAX 4096

/* ---- what is told of a channel ---- */

static bool waits(const struct handle *handle)
{
	uint64_t offset = desk_cell_offset(handle->slot, offsetof(struct desk_cell, waits_since));

	return segments_peek(handle->peer->user->desk_fd, offset) != 0;
}

static uint32_t count_waiters(const struct channel *channel, unsigned *cells_left)
{
	const struct handle *handle;
	uint32_t n = 0;
	unsigned side;

	for (side = 0; side < 2; ++side) {
		DL_FOREACH2(channel->handles[side], handle, channel_next)
		{
			if (*cells_left == 0)
				return n;
			--*cells_left;
			n += waits(handle);
		}
	}
	return n;
}

static void fill_holder(struct message_channel *ret, const struct handle *holder, uint64_t since_ns)
{
	uint64_t now_ns = clock_now_ns();

	ret->holder_id = holder->record->id;
	ret->holder_pid = holder->peer->record->pid;
	ret->held_ns = since_ns != 0 && since_ns < now_ns ? now_ns - since_ns : 0;
}

/* The segment says who holds its lock; it is a hint that any writer may have made up, so only a
 * living handle of this very channel is believed. */
static void fill_lock(struct registry *registry, const struct channel *channel,
		      struct message_channel *ret)
{
	uint64_t lock[2]; /* holder_id and holder_since */
	const struct handle *holder;

	if (!segments_read(channel->segment_fd, offsetof(struct channel_header, holder_id), lock,
			   sizeof(lock)))
		return;

	holder = registry_handle_on(registry, channel, lock[0]);
	if (holder)
		fill_holder(ret, holder, lock[1]);
}

/* The oldest lead or grant. */
struct oldest {
	const struct handle *leader;
	uint64_t since_ns;
};

static void take_older(const struct handle *leader, uint64_t since_ns, void *userdata)
{
	struct oldest *oldest = userdata;

	if (!oldest->leader || since_ns < oldest->since_ns)
		*oldest = (struct oldest){leader, since_ns};
}

static void fill_flight(struct registry *registry, const struct channel *channel,
			struct message_channel *ret, struct flights_budget *budget)
{
	struct oldest oldest = {0};
	struct flights_depth depth;

	depth = flights_look(registry, channel, budget, take_older, &oldest);
	ret->capacity = channel->record->shape[1];
	ret->depth = depth.now;
	ret->depth_max = depth.ever;
	if (oldest.leader)
		fill_holder(ret, oldest.leader, oldest.since_ns);
}

static void take_older_grant(const struct handle *holder, uint32_t n_permits, uint64_t since_ns,
			     void *userdata)
{
	(void)n_permits;
	take_older(holder, since_ns, userdata);
}

static void fill_limiter(struct registry *registry, const struct channel *channel,
			 struct message_channel *ret, uint32_t *budget)
{
	struct oldest oldest = {0};
	struct limits_depth depth;

	depth = limits_look(registry, channel, budget, take_older_grant, &oldest);
	ret->item_size_max = 0;
	ret->capacity = channel->record->shape[0];
	ret->depth = depth.now;
	ret->depth_max = depth.ever;
	if (oldest.leader)
		fill_holder(ret, oldest.leader, oldest.since_ns);
}

static void fill_queue(const struct channel *channel, struct message_channel *ret)
{
	struct queues_depth depth = queues_depth(channel);

	ret->item_size_max = channel->record->shape[2] & UINT32_MAX;
	ret->capacity = channel->record->shape[1];
	ret->depth = depth.now;
	ret->depth_max = depth.ever;
}

static void fill_inbox(const struct channel *channel, struct message_channel *ret)
{
	struct inboxes_depth depth = inboxes_depth(channel);

	ret->item_size_max = channel->record->shape[1];
	ret->capacity = channel->record->shape[0];
	ret->depth = depth.now;
	ret->depth_max = depth.ever;
}

/* What its sessions are like. */
static void fill_listener(const struct channel *channel, struct message_channel *ret)
{
	ret->item_size_max = channel->record->shape[1];
	ret->capacity = channel->record->shape[0];
}

/* How much one request may still look at. */
struct budget {
	unsigned n_cells; /* of desks */
	struct flights_budget flights;
	uint32_t n_grants;
};
#define BUDGET                                                                                     \
	((struct budget){                                                                          \
		.n_cells = CELLS_MAX, .flights = FLIGHTS_BUDGET, .n_grants = LIMITS_BUDGET})

static void fill(struct registry *registry, const struct channel *channel,
		 struct message_channel *ret, struct budget *budget)
{
	const struct channel_record *record = channel->record;

	memset(ret, 0, sizeof(*ret));
	memcpy(ret->name, record->name, sizeof(ret->name));
	ret->kind = record->kind;
	ret->mode = record->mode;
	ret->uid = record->uid;
	ret->gid = record->gid;
	ret->flags = record->flags;
	ret->generation = record->generation;
	ret->bytes = record->size;
	ret->item_size_max = record->shape[0];
	ret->handles[0] = channel->count[0];
	ret->handles[1] = channel->count[1];
	ret->waiters = count_waiters(channel, &budget->n_cells);
	if (record->kind == IPC_KIND_FLIGHT)
		fill_flight(registry, channel, ret, &budget->flights);
	else if (record->kind == IPC_KIND_LIMITER)
		fill_limiter(registry, channel, ret, &budget->n_grants);
	else if (record->kind == IPC_KIND_QUEUE)
		fill_queue(channel, ret);
	else if (record->kind == IPC_KIND_INBOX)
		fill_inbox(channel, ret);
	else if (record->kind == IPC_KIND_SESSION)
		fill_listener(channel, ret);
	else
		fill_lock(registry, channel, ret);
}

static bool fits(const struct channel *channel, const struct budget *budget)
{
	if (channel->record->kind == IPC_KIND_LIMITER)
		return limits_fits(budget->n_grants);

	return channel->record->kind != IPC_KIND_FLIGHT || flights_fits(channel, &budget->flights);
}

void listing_info(struct worker *worker, struct peer *peer, const struct message_info *info)
{
	struct channel *channel = registry_find(worker->registry, info->name);
	struct policy_subject subject = peer_subject(peer);
	struct budget budget = BUDGET;

	if (!channel || record_get(&channel->record->state) != RECORD_USED) {
		peer_answer_result(worker, peer, info->head.request_id, IPC_ENOENT);
		return;
	}

	if (!policy_may_read(&subject, channel->record)) {
		peer_answer_result(worker, peer, info->head.request_id, IPC_EACCES);
		return;
	}

	message_init(&worker->reply, MESSAGE_INFO_REPLY, info->head.request_id);
	fill(worker->registry, channel, &worker->reply.info_reply.channel, &budget);
	peer_answer(worker, peer, &worker->reply, NULL, 0);
}

void listing_state(struct worker *worker, struct peer *peer, const struct message_state *state)
{
	struct channel *channel = registry_find(worker->registry, state->name);
	struct policy_subject subject = peer_subject(peer);
	struct queues_budget budget = QUEUES_BUDGET;
	int r = 0;

	if (!channel || record_get(&channel->record->state) != RECORD_USED)
		r = IPC_ENOENT;
	else if (!policy_may_read(&subject, channel->record))
		r = IPC_EACCES;
	else if (channel->record->kind != IPC_KIND_QUEUE)
		r = IPC_EPROTOTYPE;
	if (r < 0) {
		peer_answer_result(worker, peer, state->head.request_id, r);
		return;
	}

	message_init(&worker->reply, MESSAGE_STATED, state->head.request_id);
	queues_state(worker->registry, channel, &budget, &worker->reply.stated);
	peer_answer(worker, peer, &worker->reply, NULL, 0);
}

static bool is_listed(struct registry *registry, uint32_t slot,
		      const struct policy_subject *subject, const char *pattern)
{
	const struct channel *channel = &registry->channel[slot];

	/* The record of a slot that no worker of this domain has used is not even looked at. */
	if (!channel->is_named || record_get(&channel->record->state) != RECORD_USED)
		return false;

	return fnmatch(pattern, channel->record->name, 0) == 0 &&
	       policy_may_read(subject, channel->record);
}

void listing_list(struct worker *worker, struct peer *peer, const struct message_list *list)
{
	struct message_listed *listed = &worker->reply.listed;
	struct registry *registry = worker->registry;
	struct policy_subject subject = peer_subject(peer);
	uint32_t top = registry->channel_slots.top;
	struct budget budget = BUDGET;
	uint32_t slot = list->cursor;
	unsigned n_looks = 0;
	uint32_t n = 0;

	message_init(&worker->reply, MESSAGE_LISTED, list->head.request_id);
	for (; slot < top && n < PROTOCOL_LIST_MAX && n_looks < SLOTS_MAX; ++slot, ++n_looks) {
		const struct channel *channel = &registry->channel[slot];

		if (!is_listed(registry, slot, &subject, list->pattern))
			continue;

		/* Left for the next page, which can look at all of it. */
		if (n > 0 && !fits(channel, &budget))
			break;

		fill(registry, channel, &listed->channel[n++], &budget);
	}

	listed->n = n;
	listed->cursor = slot < top ? slot : PROTOCOL_CURSOR_END;
	listed->head.size = (uint32_t)(offsetof(struct message_listed, channel) +
				       n * sizeof(listed->channel[0]));
	peer_answer(worker, peer, &worker->reply, NULL, 0);
}

/* ---- removal ---- */

static void take_away(struct worker *worker, struct channel *channel)
{
	channels_end(worker, channel);
	presence_remove(worker, channel);
}

/* The intent of an earlier worker: whatever of it was done is done again. */
static void remove_again(struct worker *worker, const struct client_record *client)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->channel_slots.top; ++slot) {
		struct channel *channel =
			registry_channel_at(registry, slot, client->remove_generation);

		if (channel) {
			take_away(worker, channel);
			reaper_settle(worker, channel);
			return;
		}
	}
}

static int check_removal(struct peer *peer, const struct channel *channel,
			 const struct message_remove *remove)
{
	struct policy_subject subject = peer_subject(peer);

	if (!channel || record_get(&channel->record->state) != RECORD_USED)
		return IPC_ENOENT;

	if (!policy_may_remove(&subject, channel->record))
		return IPC_EACCES;

	return remove->generation == 0 || remove->generation == channel->record->generation
		       ? 0
		       : IPC_ESTALE;
}

void listing_remove(struct worker *worker, struct peer *peer, const struct message_remove *remove)
{
	struct channel *channel = registry_find(worker->registry, remove->name);
	struct client_record *client = peer->record;
	uint64_t request_id = remove->head.request_id;
	int r;

	if (peer->may_repeat && client->remove_request == request_id) {
		remove_again(worker, client);
		peer_answer_result(worker, peer, request_id, 0);
		opener_resume(worker, remove->name);
		return;
	}

	r = check_removal(peer, channel, remove);
	if (r == 0) {
		client->remove_generation = channel->record->generation;
		record_fence();
		CRASH_POINT();
		client->remove_request = request_id;
		record_fence();
		CRASH_POINT();
		take_away(worker, channel);
		reaper_settle(worker, channel);
		log_line(LOG_LEVEL_INFO, "channel %s, generation %" PRIu64 ": removed by user %u",
			 remove->name, client->remove_generation, client->uid);
	}

	peer_answer_result(worker, peer, request_id, r);
	opener_resume(worker, remove->name);
}
