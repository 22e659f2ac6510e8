/* SPDX-License-Identifier: MIT */
#include "broker/news.h"

#include <ipc/admin.h>
#include <ipc/client.h>
#include <string.h>

#include "broker/keys.h"
#include "broker/offers.h"
#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/reaper.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/wire/codec.h"

/*
 * Death: whatever is done here would be done a moment later, by its own event.
 */

/* The handle may be gone after that, and its channel.  False: its client was doomed. */
static bool hear_of(struct worker *worker, struct handle *handle)
{
	if (reaper_look_at_cell(worker, handle) || !peer_has_left(handle->peer))
		return true;

	peer_doom(worker, handle->peer);
	return false;
}

static struct handle *holder_of(struct worker *worker, const struct channel *session, unsigned side)
{
	uint64_t id = session->session->end[side].holder;

	return registry_handle_on(worker->registry, session, id)
		       ? &worker->registry->handle[LIVENESS_SLOT(id)]
		       : NULL;
}

/* Accepted by its word, which TAKEN is about to say.  The session may be gone after that. */
static void hear_of_offer(struct worker *worker, struct channel *session)
{
	if (!session->offer)
		return;

	offers_look(worker, session);
	sessions_settle(worker, session);
}

/* Who resumes takes an end over, from whoever has it: that he has died makes no difference. */
static bool hear_of_end(struct worker *worker, const struct message_open *open)
{
	struct channel *session;
	struct handle *holder;
	unsigned side;

	session = keys_channel(worker->registry, open->key, &side);
	if (session)
		hear_of_offer(worker, session);
	session = keys_channel(worker->registry, open->key, &side);
	holder = session ? holder_of(worker, session, side) : NULL;
	if (holder)
		(void)reaper_look_at_cell(worker, holder);
	return true;
}

static bool is_session_of(const struct channel *channel, const char *name)
{
	return channel->record && channel->session &&
	       record_get(&channel->record->state) == RECORD_USED &&
	       strcmp(channel->record->name, name) == 0;
}

/* C-9: a new listener gets what is away by now. */
static bool hear_of_sessions(struct worker *worker, const char *name)
{
	struct registry *registry = worker->registry;
	bool is_all = true;
	uint32_t slot;

	for (slot = 0; slot < registry->channel_slots.top; ++slot) {
		struct channel *session = &registry->channel[slot];
		struct handle *holder;

		if (is_session_of(session, name))
			hear_of_offer(worker, session);
		if (!is_session_of(session, name))
			continue;

		holder = holder_of(worker, session, 0);
		if (holder && !hear_of(worker, holder))
			is_all = false;
	}
	return is_all;
}

/* I-13: the one place of a side. */
static bool hear_of_place(struct worker *worker, const struct message_open *open)
{
	struct channel *channel = registry_find(worker->registry, open->name);
	struct handle *handle;

	if (!channel || channel->record->kind != IPC_KIND_INBOX)
		return true;

	for (handle = channel->handles[policy_role(open->role)->side]; handle;
	     handle = handle->channel_next) {
		if (handle->record->is_counted)
			return hear_of(worker, handle);
	}
	return true;
}

bool news_hear(struct worker *worker, const struct message_open *open)
{
	switch (open->role) {
	case IPC_ROLE_SESSION:
		return !(open->flags & OPEN_RESUME) || hear_of_end(worker, open);
	case IPC_ROLE_LISTENER:
		return hear_of_sessions(worker, open->name);
	case IPC_ROLE_INBOX_SENDER:
	case IPC_ROLE_INBOX_RECEIVER:
		return hear_of_place(worker, open);
	default:
		return true;
	}
}
