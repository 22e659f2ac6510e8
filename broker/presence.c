/* SPDX-License-Identifier: MIT */
#include "broker/presence.h"

#include <utlist.h>

#include "broker/bells.h"
#include "broker/channels.h"
#include "broker/policy.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"

/*
 * Death: the words are functions of the records, and each is stored whole.  A worker that dies
 * before a word leaves records that are ahead of it; the next one counts the records, compares
 * (presence_repair) and tells what is missing.  What cannot be seen in a word is whether the
 * attention words were bumped: they are bumped again for each handle that is still marked
 * is_ending, for each REMOVE and OPEN that is still in its client's queue, and a bump too many is
 * only a look too many.
 */

static uint64_t side_word(const struct channel *channel, unsigned side)
{
	return liveness_side(channel->owner->table, channel->slot, side);
}

static void side_tell(const struct channel *channel, unsigned side, uint64_t word)
{
	liveness_side_set(channel->owner->table, channel->slot, side, word);
}

static void attend(struct worker *worker, struct user *user, struct peer *peer)
{
	if (peer->attended_batch == worker->batch && peer->attended_user == user)
		return;

	peer->attended_batch = worker->batch;
	peer->attended_user = user;
	liveness_attend(user->table, peer->slot);
	if (peer->user != user)
		liveness_attend(peer->user->table, peer->slot);
	bells_ring(peer);
}

/* All but one handle, which may be NULL, and but one client. */
static void attend_others(struct worker *worker, struct channel *channel, unsigned side,
			  const struct handle *one, const struct peer *except)
{
	struct handle *handle;

	DL_FOREACH2(channel->handles[side], handle, channel_next)
	{
		if (handle != one && handle->peer != except)
			attend(worker, channel->owner, handle->peer);
	}
}

static void attend_side(struct worker *worker, struct channel *channel, unsigned side,
			const struct peer *except)
{
	attend_others(worker, channel, side, NULL, except);
}

void presence_batch(struct worker *worker)
{
	++worker->batch;
}

/* ---- sessions ---- */

static uint64_t session_word(const struct channel *channel, unsigned side)
{
	uint64_t old = side_word(channel, side), flags = sessions_flags(channel, side);
	uint32_t count = channel->count[side];
	bool has_ended = count == 0 &&
			 (side_count(old) > 0 || (flags & (SIDE_EVER | SIDE_FINAL) & ~old) != 0);

	/* How the last one ended stays to be seen. */
	if (count > 0)
		flags |= old & SIDE_DIED;

	return side_make(side_ends(old) + has_ended, count, flags);
}

/* Until when a side is waited for stands there before it is gone, and until it is back. */
static void session_tell_side(const struct channel *channel, unsigned side, uint64_t word)
{
	_Atomic uint64_t *until_ns = &channel->owner->table->until_ns[channel->slot][side];
	uint64_t until = sessions_until(channel, side);

	if (until != 0)
		atomic_store_explicit(until_ns, until, memory_order_relaxed);
	if (word != side_word(channel, side)) {
		CRASH_POINT();
		side_tell(channel, side, word);
		CRASH_POINT();
	}
	if (until == 0)
		atomic_store_explicit(until_ns, 0, memory_order_relaxed);
}

/* Both sides' words.  Bit [s]: side s has changed, for those on the other one. */
static unsigned session_tell(const struct channel *channel)
{
	unsigned side, changed = 0;

	for (side = 0; side < 2; ++side) {
		uint64_t old = side_word(channel, side), word = session_word(channel, side);

		session_tell_side(channel, side, word);
		if (side_ends(word) != side_ends(old) ||
		    (side_count(word) > 0) != (side_count(old) > 0) ||
		    ((word ^ old) & (SIDE_EVER | SIDE_FINAL)))
			changed |= 1u << side;
	}
	return changed;
}

static void session_attend(struct worker *worker, struct channel *channel, unsigned changed)
{
	unsigned side;

	for (side = 0; side < 2; ++side) {
		if (changed & 1u << side)
			attend_side(worker, channel, !side, NULL);
	}
}

void presence_session(struct worker *worker, struct channel *channel)
{
	unsigned changed = session_tell(channel);

	presence_batch(worker);
	session_attend(worker, channel, changed);
}

void presence_hide(const struct handle *handle)
{
	liveness_handle_set(handle->channel->owner->table, handle->slot, 0);
	atomic_thread_fence(memory_order_seq_cst);
}

void presence_call(struct worker *worker, const struct handle *handle)
{
	presence_batch(worker);
	attend(worker, handle->channel->owner, handle->peer);
}

/* ---- begin and end ---- */

static void side_begin(struct channel *channel, unsigned side)
{
	uint64_t word = side_word(channel, side);

	side_tell(
		channel, side,
		side_make(side_ends(word), channel->count[side], (word & SIDE_FLAGS) | SIDE_EVER));
}

static void begin(struct worker *worker, struct handle *handle, bool is_first)
{
	struct channel *channel = handle->channel;
	unsigned side = handle->record->side;

	liveness_members_change(channel->owner->table, channel->slot);
	liveness_handle_set(channel->owner->table, handle->slot, handle->record->id);
	CRASH_POINT();
	if (!handle->record->is_counted)
		return;

	if (channel->session)
		(void)session_tell(channel);
	else
		side_begin(channel, side);
	CRASH_POINT();

	if (is_first) {
		presence_batch(worker);
		attend_side(worker, channel, !side, NULL);
	}
}

void presence_begin(struct worker *worker, struct handle *handle)
{
	uint32_t *count = &handle->channel->count[handle->record->side];

	*count += handle->record->is_counted;
	begin(worker, handle, *count == 1);
}

void presence_begin_again(struct worker *worker, struct handle *handle)
{
	/* Others may have come since, of whom nobody was told: they were not the first. */
	begin(worker, handle, true);
}

/* The word of a side whose last handle has gone. */
static uint64_t gone_word(const struct channel *channel, unsigned side, bool died)
{
	uint64_t flags = SIDE_EVER | (died ? SIDE_DIED : 0);

	if (record_get(&channel->record->is_removed))
		flags |= SIDE_FINAL;

	return side_make(side_ends(side_word(channel, side)) + 1, 0, flags);
}

/* Nobody comes to a channel without a name: what is told once is told for ever. */
static void tell_final(struct channel *channel, unsigned side)
{
	uint64_t word = side_word(channel, side);

	if (channel->count[side] > 0 || (word & SIDE_FINAL))
		return;

	side_tell(channel, side,
		  side_make(side_ends(word) + 1, 0, (word & SIDE_FLAGS) | SIDE_FINAL));
	CRASH_POINT();
}

bool presence_end(struct worker *worker, struct handle *handle)
{
	struct channel *channel = handle->channel;
	unsigned side = handle->record->side;
	uint64_t word = side_word(channel, side);

	liveness_members_change(channel->owner->table, channel->slot);
	liveness_handle_set(channel->owner->table, handle->slot, 0);
	CRASH_POINT();
	if (!handle->record->is_counted)
		return false;

	/* Before the word of the side, which says that this was the last end. */
	--channel->count[side];
	if (channel->session) {
		(void)session_tell(channel);
		CRASH_POINT();
		return channel->count[side] == 0;
	}

	if (channels_is_over(channel))
		channels_end(worker, channel);

	if (channel->count[side] > 0) {
		side_tell(channel, side,
			  side_make(side_ends(word), channel->count[side], word & SIDE_FLAGS));
		return false;
	}

	side_tell(channel, side, gone_word(channel, side, handle->record->ended_by_death));
	CRASH_POINT();
	if (record_get(&channel->record->is_removed))
		tell_final(channel, !side);
	return true;
}

/* With the last counted handle the other side may have ended as well; who is left is concerned. */
static bool is_deserted(const struct channel *channel)
{
	return channel->count[0] + channel->count[1] == 0;
}

void presence_attend(struct worker *worker, const struct handle *handle, bool is_gone)
{
	struct channel *channel = handle->channel;
	unsigned side = handle->record->side;
	const struct peer *except = NULL;
	bool died = handle->record->ended_by_death;

	/* Whose end was taken over sleeps, and knows nothing of it. */
	if (channel->session && !handle->peer->is_doomed)
		attend(worker, channel->owner, handle->peer);

	if (!died && !is_gone)
		return;

	/* Those who have nobody to be told any more are not worth a system call: a dying client's
	 * own threads.  One that has left an end of a session away lives on. */
	if (died && !channel->session)
		except = handle->peer;

	attend_side(worker, channel, !side, except);
	if ((died && policy_role(handle->record->role)->is_followed) || is_deserted(channel))
		attend_others(worker, channel, side, handle, except);
}

void presence_ring(struct worker *worker, const struct handle *handle)
{
	unsigned side;

	presence_batch(worker);
	for (side = 0; side < 2; ++side)
		attend_side(worker, handle->channel, side, NULL);
}

void presence_remove(struct worker *worker, struct channel *channel)
{
	unsigned side;

	presence_batch(worker);
	for (side = 0; side < 2; ++side) {
		tell_final(channel, side);
		if (channel->count[side] == 0)
			attend_side(worker, channel, !side, NULL);
	}
}

void presence_reset(struct channel *channel)
{
	unsigned side;

	for (side = 0; side < 2; ++side)
		side_tell(channel, side, side_make(side_ends(side_word(channel, side)), 0, 0));
}

void presence_repair(struct worker *worker, struct channel *channel, bool died)
{
	unsigned side;

	if (channel->session) {
		presence_session(worker, channel);
		return;
	}

	if (channels_is_over(channel))
		channels_end(worker, channel);

	for (side = 0; side < 2; ++side) {
		uint64_t word = side_word(channel, side);
		uint32_t count = channel->count[side];

		if (side_count(word) == count)
			continue;

		presence_batch(worker);
		if (count == 0)
			side_tell(channel, side, gone_word(channel, side, died));
		else
			side_tell(
				channel, side,
				side_make(side_ends(word), count, (word & SIDE_FLAGS) | SIDE_EVER));

		if (count == 0 || side_count(word) == 0)
			attend_side(worker, channel, !side, NULL);
	}
}

void presence_end_domain(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->user_slots.top; ++slot) {
		if (registry->user[slot].table)
			liveness_domain_end(registry->user[slot].table);
	}

	presence_batch(worker);
	for (slot = 0; slot < registry->client_slots.top; ++slot) {
		struct peer *peer = &registry->peer[slot];
		struct handle *handle;

		if (!peer->record)
			continue;

		attend(worker, peer->user, peer);
		DL_FOREACH2(peer->handles, handle, client_next)
		attend(worker, handle->channel->owner, peer);
	}
}
