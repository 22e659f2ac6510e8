/* SPDX-License-Identifier: MIT */
#include "broker/dispatch.h"

#include "broker/bells.h"
#include "broker/groups.h"
#include "broker/listing.h"
#include "broker/news.h"
#include "broker/offers.h"
#include "broker/opener.h"
#include "broker/peer.h"
#include "broker/pending.h"
#include "broker/presence.h"
#include "broker/reaper.h"
#include "broker/reservation.h"
#include "broker/roster.h"
#include "broker/session_list.h"
#include "broker/worker.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"

/*
 * Death: the socket's queue is the log.  A worker that dies before it takes a request off leaves it
 * at the head for the next one, which knows (may_repeat) that this one request may have been done
 * in part or in full.  What was answered by a plain result is answered by the same and not done
 * again (done_request); every other request can be done twice.
 */

/* Requests and time of one client before the others have their turn. */
#define SHARE    16
#define SHARE_NS NS_PER_MS

/* False: only in part; the request stays where it is and is done again. */
static bool do_request(struct worker *worker, struct peer *peer, const union message *request)
{
	struct handle *handle;

	switch ((enum message_type)request->head.type) {
	case MESSAGE_HELLO:
		peer_hello(worker, peer, &request->hello);
		break;
	case MESSAGE_OPEN:
		/* What was closed before this was sent is closed before this is decided. */
		if (!peer->may_repeat)
			reaper_look_at_desk(worker, peer);
		if (!news_hear(worker, &request->open))
			return false;
		opener_open(worker, peer, &request->open);
		break;
	case MESSAGE_CONFIRM:
		reservation_confirm(worker, peer, &request->confirm);
		break;
	case MESSAGE_CLOSE:
		reaper_hear_close(worker, peer, &request->close);
		break;
	case MESSAGE_CANCEL:
		opener_cancel(worker, peer, &request->cancel);
		break;
	case MESSAGE_INFO:
		listing_info(worker, peer, &request->info);
		break;
	case MESSAGE_LIST:
		listing_list(worker, peer, &request->list);
		break;
	case MESSAGE_REMOVE:
		listing_remove(worker, peer, &request->remove);
		break;
	case MESSAGE_HANDLES:
		roster_handles(worker, peer, &request->handles);
		break;
	case MESSAGE_STATE:
		listing_state(worker, peer, &request->state);
		break;
	case MESSAGE_RING:
		handle = registry_handle(worker->registry, peer, request->ring.handle_id);
		if (handle) {
			presence_ring(worker, handle);
			bells_give(worker, handle);
		}
		break;
	case MESSAGE_GROUP:
		return groups_open(worker, peer, &request->group);
	case MESSAGE_TAKEN:
		offers_taken(worker, peer, &request->taken);
		break;
	case MESSAGE_SESSIONS:
		session_list(worker, peer, &request->sessions);
		break;
	case MESSAGE_WELCOME:
	case MESSAGE_DONE:
	case MESSAGE_RESERVE:
	case MESSAGE_OPENED:
	case MESSAGE_INFO_REPLY:
	case MESSAGE_LISTED:
	case MESSAGE_HANDLED:
	case MESSAGE_BELLS:
	case MESSAGE_JOINED:
	case MESSAGE_STATED:
	case MESSAGE_OFFER:
	case MESSAGE_SESSIONED:
		break; /* message_check_request() lets none of these in */
	}
	return true;
}

static bool is_legal(const struct peer *peer, const union message *request, size_t size)
{
	if (message_check_request(request, size) < 0)
		return false;

	return peer->record->is_welcome || request->head.type == MESSAGE_HELLO;
}

static bool is_answered(const union message *request)
{
	/* The end of a group is as a close. */
	if (request->head.type == MESSAGE_GROUP && request->group.pattern[0] == '\0')
		return false;

	return request->head.type != MESSAGE_CLOSE && request->head.type != MESSAGE_CANCEL &&
	       request->head.type != MESSAGE_RING && request->head.type != MESSAGE_TAKEN;
}

/* 0, IPC_EAGAIN: the queue is empty, IPC_EBUSY: the peer is clogged or others have their turn,
 * IPC_EPIPE: it is doomed. */
static int dispatch_one(struct worker *worker, struct peer *peer)
{
	union message *request = &worker->request;
	bool is_done = true;
	size_t size;
	int r;

	r = fdpass_peek(peer->socket_fd, request, sizeof(*request), &size);
	if (r == IPC_EAGAIN)
		return r;

	if (r == IPC_EPIPE) {
		peer_doom(worker, peer);
		return r;
	}

	if (r < 0 || !is_legal(peer, request, size)) {
		peer_log(peer, "broke the protocol; disconnected");
		peer_doom(worker, peer);
		return IPC_EPIPE;
	}

	if (is_answered(request) && !peer_has_room(worker, peer))
		return peer->is_doomed ? IPC_EPIPE : IPC_EBUSY;

	CRASH_POINT();
	if (peer->may_repeat && request->head.request_id == peer->record->done_request &&
	    request->head.type != MESSAGE_HELLO)
		peer_say_result(worker, peer, request->head.request_id, peer->record->done_result);
	else
		is_done = do_request(worker, peer, request);
	if (peer->is_doomed)
		return IPC_EPIPE;
	if (!is_done)
		return IPC_EBUSY;

	CRASH_POINT();
	(void)fdpass_receive(peer->socket_fd, request, sizeof(*request), &size, NULL, NULL);
	if (peer->may_repeat) {
		/* What was opened has been said now. */
		peer->may_repeat = false;
		offers_resume_peer(worker, peer);
	}
	CRASH_POINT();
	return peer->is_doomed ? IPC_EPIPE : 0;
}

static bool queue_is_empty(struct worker *worker, struct peer *peer)
{
	size_t size;

	return fdpass_peek(peer->socket_fd, &worker->request, sizeof(worker->request), &size) ==
	       IPC_EAGAIN;
}

static void resume(struct worker *worker, struct peer *peer)
{
	groups_resume_peer(worker, peer);
	offers_resume_peer(worker, peer);
	opener_resume_peer(worker, peer);
}

void dispatch_peer(struct worker *worker, struct peer *peer)
{
	uint64_t until_ns = clock_now_ns() + SHARE_NS;
	unsigned i;
	int r = 0;

	if (peer->is_clogged) {
		r = peer_unclog(worker, peer);
		if (r == 0)
			resume(worker, peer);
		else
			r = peer->is_doomed ? IPC_EPIPE : IPC_EBUSY;
	}

	for (i = 0; i < SHARE && r == 0 && (i == 0 || clock_now_ns() < until_ns); ++i)
		r = dispatch_one(worker, peer);

	/*
	 * A close goes to the desk when the queue is full; so whoever empties the queue looks at
	 * the desk afterwards.  With something left in the queue the loop comes back here.
	 */
	if (r == IPC_EBUSY)
		reaper_look_at_cells(worker, peer);
	else if (r == IPC_EAGAIN || (r == 0 && queue_is_empty(worker, peer)))
		reaper_look_at_desk(worker, peer);
}

void dispatch_adopt(struct worker *worker, struct peer *peer)
{
	union message *request = &worker->request;
	size_t size;
	int r;

	r = fdpass_peek(peer->socket_fd, request, sizeof(*request), &size);
	if (r < 0)
		return;

	/* An OPEN that is a pending already is done; if it were left here, it would be done once
	 * more after its pending was answered. */
	if (message_check_request(request, size) == 0 && request->head.type == MESSAGE_OPEN &&
	    pending_find(peer, request->head.request_id)) {
		(void)fdpass_receive(peer->socket_fd, request, sizeof(*request), &size, NULL, NULL);
		return;
	}

	peer->may_repeat = true;
}

void dispatch_adopt_desk(struct worker *worker, struct peer *peer)
{
	if (queue_is_empty(worker, peer))
		reaper_look_at_desk(worker, peer);
}
