/* SPDX-License-Identifier: MIT */
#include "broker/sessions.h"

#include <ipc/admin.h>
#include <ipc/client.h>
#include <string.h>
#include <utlist.h>

#include "broker/channels.h"
#include "broker/grant.h"
#include "broker/handles.h"
#include "broker/keys.h"
#include "broker/offers.h"
#include "broker/peer.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/segments.h"
#include "broker/windows.h"
#include "broker/worker.h"
#include "libipc/channel/session.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/peer.h"

/*
 * Death: a handle that takes an end is committed first; the next worker finds that the youngest
 * counted handle of a side is not its holder, and goes on from there: key, holder, end of the older
 * ones.  A handle that leaves is marked first, and its end changes by one store of `state` or of
 * `holder`.  Words are told from the records, by this worker or the next.
 */

static struct session_end *end_of(const struct channel *channel, unsigned side)
{
	return &channel->session->end[side];
}

static bool is_open(const struct session_end *end)
{
	return record_get(&end->state) == END_OPEN;
}

bool sessions_is_lost(const struct channel *channel)
{
	return record_get(&channel->session->is_lost);
}

/* ---- what it is ---- */

int sessions_init(struct worker *worker, struct channel *channel, const struct channel *listener)
{
	struct channel_record *record = channel->record;
	struct session_record *session = &worker->registry->state->session[channel->slot];
	struct session_end *end = &session->end[1];
	int r;

	memset(session, 0, sizeof(*session));
	session->listener_slot = listener->slot;
	session->listener_generation = listener->record->generation;
	record->is_session = true;
	channel->session = session;

	r = keys_prepare(channel, 1, record->reserver, NULL);
	if (r < 0)
		return r;

	keys_promote(end, record->reserver);
	end->uid = record->uid;
	end->holder = record->reserver;
	record_set(&end->state, END_OPEN);
	return 0;
}

bool sessions_is_accepted(const struct channel *channel)
{
	uint32_t state = record_get(&end_of(channel, 0)->state);

	return state == END_OPEN || state == END_CLOSED;
}

bool sessions_is_connecting(const struct channel *channel)
{
	return record_get(&channel->record->state) == RECORD_USED &&
	       record_get(&end_of(channel, 0)->state) == END_NONE && is_open(end_of(channel, 1)) &&
	       channel->count[1] > 0;
}

static bool is_away(const struct channel *channel, unsigned side)
{
	const struct session_end *end = end_of(channel, side);

	return is_open(end) && end->holder == 0 && !sessions_is_lost(channel);
}

bool sessions_is_kept(const struct channel *channel)
{
	return sessions_is_accepted(channel) && (is_away(channel, 0) || is_away(channel, 1));
}

uint64_t sessions_flags(const struct channel *channel, unsigned side)
{
	const struct session_end *end = end_of(channel, side);

	switch ((enum session_end_state)record_get(&end->state)) {
	case END_NONE:
		break;
	case END_OPEN:
		if (sessions_is_lost(channel))
			return SIDE_EVER | SIDE_DIED | SIDE_FINAL;
		return end->holder == 0 ? SIDE_EVER | SIDE_DIED : SIDE_EVER;
	case END_CLOSED:
	case END_REFUSED:
		return SIDE_EVER | SIDE_FINAL;
	case END_DESERTED:
		return SIDE_EVER | SIDE_DIED | SIDE_FINAL;
	}
	return 0;
}

uint64_t sessions_until(const struct channel *channel, unsigned side)
{
	return is_away(channel, side) ? end_of(channel, side)->until_ns : 0;
}

/* ---- who has an end ---- */

/* Death in between: the youngest counted handle is not the holder. */
static void end_take(const struct handle *handle)
{
	struct session_end *end = end_of(handle->channel, handle->record->side);

	keys_promote(end, handle->record->id);
	end->uid = handle->peer->record->uid;
	record_set(&end->state, END_OPEN);
	CRASH_POINT();
	end->holder = handle->record->id;
	record_fence();
	CRASH_POINT();
	end->until_ns = end->away_order = 0;
}

/* The side has a younger handle, so it steps nowhere. */
static void fence(struct worker *worker, struct handle *handle)
{
	handle->record->is_overtaken = 1;
	record_fence();
	CRASH_POINT();
	reaper_drop(worker, handle);
}

static void fence_others(struct worker *worker, const struct handle *handle)
{
	struct handle *other, *next;

	for (other = handle->channel->handles[handle->record->side]; other; other = next) {
		next = other->channel_next;
		if (other != handle && other->record->is_counted && !other->record->is_ending)
			fence(worker, other);
	}
}

void sessions_take(struct worker *worker, struct handle *handle)
{
	end_take(handle);
	presence_begin(worker, handle);
	fence_others(worker, handle);
}

static bool has_confirmed(const struct session_end *end, const struct handle *handle)
{
	return end->keys[record_get(&end->keys_at) & 1].handle_id == handle->record->id &&
	       peer_cell_says(handle->peer, handle, offsetof(struct desk_cell, confirmed_id));
}

static uint64_t window_end(const struct channel *channel)
{
	uint64_t window_ns = channel->record->shape[2], now_ns = clock_now_ns();

	return window_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + window_ns;
}

/* Also where he has told nobody else, or had lost the end already. */
static bool head_says_closed(const struct channel *channel, unsigned side)
{
	return session_head_is_closed(
		segments_peek(channel->segment_fd, SESSION_HEAD_OFFSET(side)));
}

static void end_leave(struct worker *worker, const struct channel *channel, unsigned side,
		      bool died)
{
	struct session_end *end = end_of(channel, side);

	if (died && sessions_is_accepted(channel) && !head_says_closed(channel, side)) {
		end->until_ns = window_end(channel);
		end->away_order = state_next_id(worker->registry->state);
	} else {
		record_set(&end->state, END_CLOSED);
	}

	record_fence();
	CRASH_POINT();
	end->holder = 0;
	record_fence();
	CRASH_POINT();
}

void sessions_leave(struct worker *worker, const struct handle *handle)
{
	const struct handle_record *record = handle->record;
	struct session_end *end = end_of(handle->channel, record->side);

	if (!record->is_counted || end->holder != record->id)
		return;

	/* Its cell is somebody else's soon. */
	if (has_confirmed(end, handle))
		keys_confirm(end);
	end_leave(worker, handle->channel, record->side, record->ended_by_death);
}

/* ---- resume ---- */

/* The end that a key opens; NULL: none. */
static struct channel *find(struct worker *worker, const struct message_open *open,
			    unsigned *ret_side)
{
	struct channel *channel = keys_channel(worker->registry, open->key, ret_side);
	const struct handle *holder;
	struct session_end *end;

	if (!channel || record_get(&channel->record->state) != RECORD_USED ||
	    !sessions_is_accepted(channel) || sessions_is_lost(channel))
		return NULL;

	end = end_of(channel, *ret_side);
	holder = registry_handle_on(worker->registry, channel, end->holder);
	if (holder && has_confirmed(end, holder))
		keys_confirm(end);

	return is_open(end) && keys_match(end, open->key) ? channel : NULL;
}

struct look {
	struct registry *registry;
	const struct channel *channel;
	bool is_stranger; /* who resumes */
};

/* If its handle is open, or known as overtaken. */
static const struct peer *client_of(const struct registry *registry, uint64_t owner)
{
	const struct handle *handle = &registry->handle[ring_owner_slot(owner)];
	const struct peer *peer = handle->peer ? handle->peer : handle->overtaken_of;

	return peer && ring_owner(handle->record->id, ring_owner_process(owner)) == owner ? peer
											  : NULL;
}

/* As ring_owner_is_gone() will have it, as far as that is known here. */
static bool owner_lives(const struct look *look, uint64_t owner)
{
	const struct registry *registry = look->registry;
	const struct peer *client = client_of(registry, owner);
	uint32_t slot, process = ring_owner_process(owner);

	if (client && (client->record->is_foreign || look->is_stranger))
		return true;

	for (slot = 0; slot < registry->client_slots.top && process != 0; ++slot) {
		const struct peer *peer = &registry->peer[slot];

		if (peer->record && peer->pidfd >= 0 && !peer->record->is_foreign &&
		    ring_owner_process((uint64_t)peer->record->pid) == process)
			return !peer_has_ended(peer->pidfd);
	}

	return false;
}

static bool look_read(void *userdata, uint64_t offset, void *ret, size_t size)
{
	const struct look *look = userdata;

	return segments_read(look->channel->segment_fd, offset, ret, size);
}

static bool look_lives(void *userdata, uint64_t owner)
{
	return owner_lives(userdata, owner);
}

/* Whoever resumes finds out for himself.  But then the end is not any more whose it was. */
static bool is_busy(struct worker *worker, const struct peer *peer, const struct channel *channel,
		    unsigned side)
{
	struct look look = {worker->registry, channel, peer->record->is_foreign};
	const struct session_read read = {
		.read = look_read,
		.userdata = &look,
		.shape = channel->record->shape,
	};

	return session_read_is_busy(&read, side, look_lives);
}

int sessions_resume(struct worker *worker, struct peer *peer, const struct message_open *open)
{
	struct channel *channel;
	struct handle *handle;
	unsigned side;
	int r;

	channel = find(worker, open, &side);
	if (!channel)
		return IPC_ESTALE;

	r = segments_check_channel(channel);
	if (r < 0)
		return r;
	if (is_busy(worker, peer, channel, side))
		return IPC_EBUSY;

	r = handles_prepare(worker, peer, open, &handle);
	if (r < 0)
		return r;

	handle->record->side = (uint8_t)side;
	if (side == 0 && channel->offer)
		offers_revoke(worker, channel->offer);

	r = keys_prepare(channel, side, handle->record->id, open->key);
	if (r < 0) {
		handles_abandon(worker, handle);
		sessions_settle(worker, channel);
		return r;
	}

	handles_commit(handle, channel, RECORD_USED);
	sessions_take(worker, handle);
	sessions_settle(worker, channel);
	return grant_handle(worker, handle, open->head.request_id, false);
}

/* ---- ends ---- */

void sessions_refuse(struct worker *worker, struct channel *channel, bool died)
{
	record_set(&end_of(channel, 0)->state, died ? END_DESERTED : END_REFUSED);
	CRASH_POINT();
	presence_session(worker, channel);
}

static void lose(struct worker *worker, struct channel *channel)
{
	record_set(&channel->session->is_lost, 1);
	CRASH_POINT();
	if (channel->offer)
		offers_revoke(worker, channel->offer);
	presence_session(worker, channel);
	sessions_settle(worker, channel);
}

uint64_t sessions_expire(struct worker *worker, uint64_t now_ns)
{
	struct channel *channel;

	while ((channel = windows_first(worker->registry)) && channel->window_ns <= now_ns)
		lose(worker, channel);

	return channel ? channel->window_ns : 0;
}

/* ---- where it stands ---- */

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
	if (a_ns == 0 || b_ns == 0)
		return a_ns + b_ns;

	return a_ns < b_ns ? a_ns : b_ns;
}

static bool is_over(const struct channel *channel)
{
	return record_get(&channel->record->state) == RECORD_USED &&
	       channel->count[0] + channel->count[1] == 0 && !sessions_is_kept(channel);
}

void sessions_settle(struct worker *worker, struct channel *channel)
{
	struct offers_concern concern = offers_concern(channel);

	/* What was offered may have been accepted, and then it is not over. */
	if (is_over(channel) && channel->offer)
		offers_revoke(worker, channel->offer);

	if (is_over(channel) && channels_is_empty(channel)) {
		channels_free(worker, channel);
	} else {
		windows_set(worker->registry, channel,
			    earlier(sessions_until(channel, 0), sessions_until(channel, 1)));
		offers_arrange(worker, channel);
	}
	offers_run_for(worker, &concern);
}

void sessions_forget(struct worker *worker, struct channel *channel)
{
	if (!channel->session)
		return;

	windows_set(worker->registry, channel, 0);
	offers_forget(worker, channel);

	/* Its keys are not left lying about. */
	memset(channel->session, 0, sizeof(*channel->session));
}

/* ---- a new worker ---- */

/* Ids grow. */
static struct handle *youngest(const struct channel *channel, unsigned side)
{
	struct handle *handle, *found = NULL;

	DL_FOREACH2(channel->handles[side], handle, channel_next)
	{
		if (handle->record->is_counted && !handle->record->is_ending &&
		    record_get(&handle->record->state) == RECORD_USED &&
		    (!found || found->record->id < handle->record->id))
			found = handle;
	}
	return found;
}

void sessions_repair(struct worker *worker, struct channel *channel)
{
	unsigned side;

	if (record_get(&channel->record->state) != RECORD_USED)
		return;

	for (side = 0; side < 2; ++side) {
		struct session_end *end = end_of(channel, side);
		struct handle *handle = youngest(channel, side);

		if (handle && end->holder != handle->record->id)
			end_take(handle);
		if (handle)
			fence_others(worker, handle);
		else if (end->holder != 0)
			end_leave(worker, channel, side, true);
	}
}
