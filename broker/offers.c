/* SPDX-License-Identifier: MIT */
#include "broker/offers.h"

#include <ipc/admin.h>
#include <ipc/client.h>
#include <string.h>
#include <utlist.h>

#include "broker/grant.h"
#include "broker/handles.h"
#include "broker/keys.h"
#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/segments.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/channel/session.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/wire/codec.h"

/*
 * Death: the offer's handle is committed, then OFFER sent, then counted, then noted (is_joined).  A
 * worker that finds one that is not noted does not know whether the client has it, and says it
 * again: the client drops the second.  Acceptance is one store of is_counted; the next
 * worker finds the rest undone (sessions_repair).
 */

#define RETRY_NS (100 * NS_PER_MS)

static const struct message_open offer_open = {
	.head = {.request_id = REQUEST_NONE},
	.kind = IPC_KIND_SESSION,
	.role = IPC_ROLE_SESSION,
};

bool offers_is_one(const struct handle *handle)
{
	return handle->record->listener_id != 0 && !handle->record->is_counted;
}

static bool is_listener(const struct channel *channel)
{
	return channel->record && record_get(&channel->record->state) == RECORD_USED &&
	       channel->record->kind == IPC_KIND_SESSION && !channel->session;
}

/* ---- what becomes of an offer ---- */

static uint32_t read_is_taken(const struct channel *session)
{
	uint32_t is_taken;

	if (!segments_read(session->segment_fd,
			   SESSION_SHARED_OFFSET + offsetof(struct session_shared, is_taken),
			   &is_taken, sizeof(is_taken)))
		return SESSION_ABANDONED;
	return is_taken;
}

static void accept_offer(struct worker *worker, struct handle *offer)
{
	record_fence();
	offer->record->is_counted = 1;
	record_fence();
	CRASH_POINT();

	offer->channel->offer = NULL;
	if (offer->listener)
		offer->listener->offer = NULL;
	offer->listener = NULL;
	sessions_take(worker, offer);
}

void offers_look(struct worker *worker, struct channel *session)
{
	struct handle *offer = session->offer;

	/* That one is taken back is only said. */
	if (offer && !offer->record->is_ending && !sessions_is_accepted(session) &&
	    read_is_taken(session) == SESSION_ACCEPTED)
		accept_offer(worker, offer);
}

void offers_look_at(struct worker *worker, struct peer *peer)
{
	struct handle *handle = peer->handles;

	while (handle) {
		struct channel *channel = handle->channel;

		if (!offers_is_one(handle)) {
			handle = handle->client_next;
			continue;
		}

		offers_look(worker, channel);
		if (offers_is_one(handle)) {
			handle = handle->client_next;
			continue;
		}

		/* Others may be offered now, who stand at the head; this one is counted. */
		sessions_settle(worker, channel);
		handle = peer->handles;
	}
}

void offers_taken(struct worker *worker, struct peer *peer, const struct message_taken *taken)
{
	struct handle *offer = registry_handle(worker->registry, peer, taken->handle_id);
	struct channel *session, *listener;

	if (!offer || offer->record->listener_id == 0)
		return;

	if (!taken->is_accepted) {
		reaper_close(worker, offer);
		return;
	}

	if (!offers_is_one(offer))
		return;

	session = offer->channel;
	listener = offer->listener ? offer->listener->channel : NULL;
	accept_offer(worker, offer);
	sessions_settle(worker, session);
	if (listener)
		offers_run(worker, listener);
}

void offers_revoke(struct worker *worker, struct handle *offer)
{
	/* The word first: a client that has looked at it before has decided by now, or will find
	 * its decision to be void. */
	presence_hide(offer);
	CRASH_POINT();
	offers_look(worker, offer->channel);
	if (offer->record->is_counted)
		return;

	/* Who takes an end back has its ring before that is heard: he may be writing by now. */
	offer->record->is_overtaken = sessions_is_accepted(offer->channel);
	record_fence();
	reaper_drop(worker, offer);
}

/* ---- where sessions stand ---- */

static void unlink_waiting(struct worker *worker, struct channel *session)
{
	struct channel **list =
		session->listener ? &session->listener->connects : &worker->registry->unbound;

	if (session->is_waiting)
		DL_DELETE2(*list, session, waiting_prev, waiting_next);
	session->is_waiting = false;
	session->listener = NULL;
}

/* By age.  One that comes back from an offer is mostly the oldest, a new one the youngest. */
static void link_waiting(struct worker *worker, struct channel *session, struct channel *listener)
{
	struct channel **list = listener ? &listener->connects : &worker->registry->unbound;
	struct channel *before = *list;
	uint64_t age = session->record->generation;

	session->listener = listener;
	session->is_waiting = true;
	if (before && before->waiting_prev->record->generation < age)
		before = NULL;
	while (before && before->record->generation < age)
		before = before->waiting_next;

	if (before)
		DL_PREPEND_ELEM2(*list, before, session, waiting_prev, waiting_next);
	else
		DL_APPEND2(*list, session, waiting_prev, waiting_next);
}

static struct handle *connector_of(const struct channel *session)
{
	return session->handles[1];
}

static bool connector_awaits(const struct channel *session)
{
	return connector_of(session)->record->flags & IPC_AWAIT;
}

static bool is_serving(const struct channel *listener)
{
	return listener && is_listener(listener) && listener->count[0] > 0;
}

static bool may_connect(const struct channel *session, const struct channel *listener)
{
	struct policy_subject subject = peer_subject(connector_of(session)->peer);

	return policy_check_open(&subject, listener->record, &offer_open) == 0;
}

/* The listener's channel that it waits for, or one that has come in its place; NULL: none. */
static struct channel *listener_of(struct worker *worker, struct channel *session)
{
	struct session_record *record = session->session;
	struct channel *listener = registry_channel_at(worker->registry, record->listener_slot,
						       record->listener_generation);

	if (is_serving(listener))
		return listener;
	if (!connector_awaits(session))
		return NULL;

	listener = registry_find(worker->registry, session->record->name);
	if (!is_serving(listener) || !may_connect(session, listener))
		return NULL;

	/* A worker that dies in between leaves a listener that is not there: as before. */
	record->listener_slot = listener->slot;
	record->listener_generation = listener->record->generation;
	return listener;
}

static bool listener_has_died(struct worker *worker, const struct channel *session)
{
	const struct session_record *record = session->session;
	const struct channel *listener = registry_channel_at(
		worker->registry, record->listener_slot, record->listener_generation);

	if (!listener)
		return session->offer_died;
	return liveness_side(listener->owner->table, listener->slot, 0) & SIDE_DIED;
}

static void arrange_connect(struct worker *worker, struct channel *session)
{
	struct channel *listener;

	unlink_waiting(worker, session);
	if (session->offer || !sessions_is_connecting(session))
		return;

	/* He has given up; or who should have accepted him cannot make use of what he wrote. */
	if (read_is_taken(session) == SESSION_ABANDONED) {
		sessions_refuse(worker, session, false);
		return;
	}

	listener = listener_of(worker, session);
	if (listener || connector_awaits(session))
		link_waiting(worker, session, listener);
	else
		sessions_refuse(worker, session, listener_has_died(worker, session));
}

static void arrange_away(struct worker *worker, struct channel *session)
{
	struct channel **list = registry_away(worker->registry, session->record->name);
	bool is_away =
		!session->offer && sessions_is_accepted(session) && sessions_until(session, 0) != 0;

	if (is_away == session->is_away)
		return;

	session->is_away = is_away;
	if (is_away)
		DL_APPEND2(*list, session, away_prev, away_next);
	else
		DL_DELETE2(*list, session, away_prev, away_next);
}

void offers_arrange(struct worker *worker, struct channel *session)
{
	arrange_connect(worker, session);
	arrange_away(worker, session);
}

void offers_forget(struct worker *worker, struct channel *session)
{
	unlink_waiting(worker, session);
	if (session->is_away)
		DL_DELETE2(*registry_away(worker->registry, session->record->name), session,
			   away_prev, away_next);
	session->is_away = false;
}

/* ---- one offer ---- */

static bool is_its_to_take_back(const struct channel *session, const struct handle *listener)
{
	const struct session_end *end = &session->session->end[0];

	return end->uid == listener->peer->record->uid &&
	       end->away_order < listener->record->id >> 16 &&
	       strcmp(session->record->name, listener->channel->record->name) == 0;
}

/* Who is next; NULL: nobody. */
static struct channel *next_for(struct worker *worker, const struct handle *listener)
{
	struct channel *session = *registry_away(worker->registry, listener->channel->record->name);

	while (session && !is_its_to_take_back(session, listener))
		session = session->away_next;

	return session ? session : listener->channel->connects;
}

static int handle_new(struct worker *worker, struct handle *listener, struct channel *session,
		      struct handle **ret)
{
	const struct session_end *end = &session->session->end[0];
	struct handle *offer;
	int r;

	r = segments_check_channel(session);
	if (r < 0)
		return r;

	r = handles_prepare(worker, listener->peer, &offer_open, &offer);
	if (r < 0)
		return r;

	r = keys_prepare(session, 0, offer->record->id,
			 sessions_is_accepted(session) ? keys_newest(end) : NULL);
	if (r < 0) {
		handles_abandon(worker, offer);
		return r;
	}

	offer->record->side = SESSION_SIDE_ACCEPTED;
	offer->record->is_counted = 0;
	offer->record->listener_id = listener->record->id;
	handles_commit(offer, session, RECORD_USED);
	offer->listener = listener;
	listener->offer = offer;
	session->offer = offer;
	presence_begin(worker, offer);
	*ret = offer;
	return 0;
}

static int tell_offer(struct worker *worker, struct handle *listener, struct handle *offer)
{
	struct message_offer *message = &worker->reply.offer;
	struct peer *peer = listener->peer;
	int fds[GRANT_FDS_MAX];
	unsigned n = 0;
	int r;

	message_init(&worker->reply, MESSAGE_OFFER, 0);
	message->listener_id = listener->record->id;
	message->is_taken_back = sessions_is_accepted(offer->channel);
	r = grant_describe(worker, offer, &message->session, fds, &n);
	if (r == 0)
		r = peer_offer(worker, peer, &worker->reply, fds, n);
	if (r < 0)
		return r;

	liveness_join(peer->user->table, peer->slot);
	CRASH_POINT();
	record_fence();
	offer->record->is_joined = 1;
	record_fence();
	CRASH_POINT();
	presence_call(worker, listener);
	return 0;
}

/* 0; IPC_EAGAIN: the client has to read first, or is gone; IPC_EBADMSG: not this session; or what
 * there is too little of. */
static int offer_to(struct worker *worker, struct handle *listener, struct channel *session)
{
	struct handle *offer;
	int r;

	r = handle_new(worker, listener, session, &offer);
	if (r < 0)
		return r;

	r = tell_offer(worker, listener, offer);
	if (r < 0)
		reaper_drop(worker, offer);
	offers_arrange(worker, session);
	return r < 0 && listener->peer->is_doomed ? IPC_EAGAIN : r;
}

/* ---- all of a listener ---- */

static bool is_ready(struct worker *worker, const struct handle *listener)
{
	return record_get(&listener->record->state) == RECORD_USED &&
	       !listener->record->is_ending && !listener->peer->is_doomed &&
	       !listener->peer->may_repeat && peer_has_room(worker, listener->peer);
}

static void fail(struct worker *worker, const struct handle *listener)
{
	peer_log(listener->peer, "a session could not be offered to it");
	worker->offers_again_ns = clock_after_ns(RETRY_NS);
}

/* What the worker before may not have said. */
static void offer_again(struct worker *worker, struct handle *listener)
{
	struct handle *offer = listener->offer;
	int r;

	if (offer->record->is_joined || !is_ready(worker, listener))
		return;

	r = tell_offer(worker, listener, offer);
	if (r < 0 && r != IPC_EAGAIN)
		fail(worker, listener);
}

/* Whether something was offered. */
static bool offer_next(struct worker *worker, struct handle *listener)
{
	struct channel *session;

	if (listener->offer) {
		offer_again(worker, listener);
		return false;
	}

	while ((session = next_for(worker, listener)) && is_ready(worker, listener)) {
		int r = offer_to(worker, listener, session);

		if (r == 0)
			return true;
		if (r == IPC_EAGAIN)
			return false;

		/* Nobody can use it: cut, or its space taken away.  An accepted one is not hidden
		 * from who has its key. */
		if (r == IPC_EBADMSG && !sessions_is_accepted(session)) {
			sessions_refuse(worker, session, false);
			offers_arrange(worker, session);
			continue;
		}

		fail(worker, listener);
		return false;
	}
	return false;
}

void offers_run(struct worker *worker, struct channel *listener)
{
	struct handle *handle = listener->handles[0], *next, *first_served = NULL;

	if (!is_listener(listener))
		return;

	/* Whose turn it was stands behind the others. */
	for (; handle && handle != first_served; handle = next) {
		next = handle->channel_next;
		if (!offer_next(worker, handle))
			continue;

		DL_DELETE2(listener->handles[0], handle, channel_prev, channel_next);
		DL_APPEND2(listener->handles[0], handle, channel_prev, channel_next);
		if (!first_served)
			first_served = handle;
	}
}

struct offers_concern offers_concern(const struct channel *session)
{
	struct offers_concern concern = {
		.listener_slot = session->session->listener_slot,
		.listener_generation = session->session->listener_generation,
	};

	memcpy(concern.name, session->record->name, sizeof(concern.name));
	return concern;
}

void offers_run_for(struct worker *worker, const struct offers_concern *concern)
{
	struct channel *bound = registry_channel_at(worker->registry, concern->listener_slot,
						    concern->listener_generation);
	struct channel *named = registry_find(worker->registry, concern->name);

	if (bound)
		offers_run(worker, bound);
	if (named && named != bound)
		offers_run(worker, named);
}

void offers_begin(struct worker *worker, struct channel *listener)
{
	struct channel *session, *next;

	for (session = worker->registry->unbound; session; session = next) {
		next = session->waiting_next;
		offers_arrange(worker, session);
	}
	offers_run(worker, listener);
}

void offers_end(struct worker *worker, struct channel *listener)
{
	while (listener->connects)
		offers_arrange(worker, listener->connects);
}

void offers_resume_peer(struct worker *worker, struct peer *peer)
{
	struct handle *handle, *next;

	/* What is offered stands at the head. */
	for (handle = peer->handles; handle; handle = next) {
		next = handle->client_next;
		if (handle->record->role == IPC_ROLE_LISTENER)
			offers_run(worker, handle->channel);
	}
}

void offers_resume_all(struct worker *worker)
{
	struct registry *registry = worker->registry;
	uint32_t slot;

	for (slot = 0; slot < registry->channel_slots.top; ++slot) {
		if (is_listener(&registry->channel[slot]))
			offers_run(worker, &registry->channel[slot]);
	}
}

uint64_t offers_retry(struct worker *worker, uint64_t now_ns)
{
	if (worker->offers_again_ns != 0 && worker->offers_again_ns <= now_ns) {
		worker->offers_again_ns = 0;
		offers_resume_all(worker);
	}
	return worker->offers_again_ns;
}
