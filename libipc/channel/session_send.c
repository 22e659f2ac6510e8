/* SPDX-License-Identifier: MIT */

/*
 * The sender's half of an end, and commit_release(), which is of both halves.
 */

#include <fcntl.h>
#include <string.h>

#include "libipc/channel/session_inside.h"
#include "libipc/core/parcel.h"
#include "libipc/platform/crash.h"

/* ---- room ---- */

/* After IPC_EAGAIN.  By the tail alone there is no room: the note is looked at where it matters.
 * 0: look again. */
static int find_more_room(struct session *session)
{
	if (session_settle(session))
		return 0;
	return ring_producer_is(&session->out) ? IPC_EAGAIN : IPC_ESTALE;
}

static int claim_room(struct session *session, uint64_t size, void **ret_data)
{
	int r = ring_claim(&session->out, size, ret_data);

	if (UNLIKELY(r == IPC_EAGAIN)) {
		r = find_more_room(session);
		if (r == 0)
			r = ring_claim(&session->out, size, ret_data);
	}
	return r;
}

int session_probe_room(struct session *session)
{
	int r;

	r = header_fault(session->header);
	if (r < 0)
		return r;

	turn_take(&session->send_turn);
	r = ring_probe_room(&session->out, 0);
	if (r == IPC_EAGAIN) {
		r = find_more_room(session);
		if (r == 0)
			r = ring_probe_room(&session->out, 0);
	}
	turn_give(&session->send_turn);
	return session_result(session, r);
}

static int check_send(const struct session *session, uint64_t size)
{
	int r = header_fault(session->header);

	if (UNLIKELY(r < 0))
		return r;
	return UNLIKELY(size > session->message_size_max) ? IPC_EMSGSIZE : 0;
}

/* Of the next message. */
static struct ring_commit message_of(const struct session *session, uint64_t size)
{
	return (struct ring_commit){
		.type = SESSION_MESSAGE,
		.size = size,
		.number_next = session->out.number + 1,
	};
}

/* What a call says that has put a message into the ring, or could not.  The turn is given. */
static inline __attribute__((__always_inline__)) int finish_send(struct session *session, int r)
{
	if (UNLIKELY(r < 0))
		return session_result(session, r);

	CRASH_POINT();
	session_notify(session, true);
	return 0;
}

/* Others at this end may wait for the room that is given back without being used. */
static void wake_own_side(const struct session *session)
{
	session_wake(session, session_line(session), false);
}

/* ---- send ---- */

/* Takes the turn of the senders if it is 0.  The other end has been told of a close, or is about to
 * be: nothing may come after its end. */
static inline int begin_send(struct session *session)
{
	turn_take(&session->send_turn);
	if (LIKELY(!session->is_closed))
		return 0;

	turn_give(&session->send_turn);
	return IPC_ECANCELED;
}

void session_close(struct session *session)
{
	turn_take(&session->send_turn);
	session->is_closed = true;
	turn_give(&session->send_turn);
}

void session_tell_closed(struct session *session)
{
	struct ring_producer *out = &session->out;
	int r;

	/* A note stays one.  Refused: it is another's, who has not closed it. */
	turn_take(&session->send_turn);
	r = ring_move_head(out, ring_state(out->head) | SESSION_CLOSED, ring_position(out->head));
	turn_give(&session->send_turn);
	CRASH_POINT();
	if (r < 0)
		return;

	session_notify(session, true);
	CRASH_POINT();
}

int session_send(struct session *session, const void *data, size_t size)
{
	struct ring_commit message;
	int r;

	r = check_send(session, size);
	if (UNLIKELY(r < 0))
		return r;

	r = begin_send(session);
	if (UNLIKELY(r < 0))
		return r;

	message = message_of(session, size);
	r = ring_send(&session->out, data, &message);
	if (UNLIKELY(r == IPC_EAGAIN)) {
		r = find_more_room(session);
		if (r == 0)
			r = ring_send(&session->out, data, &message);
	}
	turn_give(&session->send_turn);
	return finish_send(session, r);
}

static int send_with_fd(struct session *session, int fd, const void *data, uint64_t size)
{
	struct ring_commit message = message_of(session, size);
	struct ring_claim *claim;
	void *room;
	int r;

	r = claim_room(session, size, &room);
	if (r < 0)
		return r;

	if (size > 0)
		memcpy(room, data, size);
	message.flags = SESSION_HAS_FD;
	message.extra = ring_tag(session->out.head) & PARCEL_TAG_MASK;

	claim = ring_find_claim(&session->out, room);
	r = parcel_send(session->pair_fd, fd, session->out.number, message.extra);
	CRASH_POINT();
	if (r == 0)
		r = ring_commit(&session->out, claim, &message);
	if (r < 0)
		ring_abort(&session->out, claim);
	return r;
}

int session_send_fd(struct session *session, int fd, const void *data, size_t size)
{
	int r;

	r = check_send(session, size);
	if (r < 0)
		return r;

	/* Of a descriptor that the caller gave; also while there is no room. */
	if (fd < 0 || fcntl(fd, F_GETFD) < 0)
		return IPC_EINVAL;

	r = begin_send(session);
	if (UNLIKELY(r < 0))
		return r;

	r = send_with_fd(session, fd, data, size);
	turn_give(&session->send_turn);
	return finish_send(session, r);
}

/* ---- claims ---- */

int session_claim(struct session *session, size_t size, void **ret_data)
{
	int r;

	r = check_send(session, size);
	if (UNLIKELY(r < 0))
		return r;

	r = begin_send(session);
	if (UNLIKELY(r < 0))
		return r;

	r = claim_room(session, size, ret_data);
	turn_give(&session->send_turn);
	return session_result(session, r);
}

/* The claim of these bytes, which `size` fits. */
static int find_claim(struct session *session, const void *data, uint64_t size,
		      struct ring_claim **ret)
{
	struct ring_claim *claim = ring_find_claim(&session->out, data);

	if (UNLIKELY(!claim))
		return IPC_EINVAL;
	if (UNLIKELY(size > claim->size))
		return IPC_EMSGSIZE;

	*ret = claim;
	return 0;
}

int session_commit(struct session *session, void *data, size_t size)
{
	struct ring_commit message;
	struct ring_claim *claim;
	bool gives_room = false;
	int r;

	r = header_fault(session->header);
	if (UNLIKELY(r < 0))
		return r;

	r = begin_send(session);
	if (UNLIKELY(r < 0))
		return r;

	message = message_of(session, size);
	r = find_claim(session, data, size, &claim);
	if (r == 0) {
		gives_room = ring_commit_leaves_room(claim, size);
		r = ring_commit(&session->out, claim, &message);
	}
	turn_give(&session->send_turn);
	if (UNLIKELY(gives_room && r == 0))
		wake_own_side(session);
	return finish_send(session, r);
}

int session_abort(struct session *session, void *data)
{
	struct ring_claim *claim;
	int r;

	turn_take(&session->send_turn);
	r = find_claim(session, data, 0, &claim);
	if (r == 0) {
		ring_abort(&session->out, claim);
		if (!ring_producer_is(&session->out))
			r = IPC_ESTALE;
	}
	turn_give(&session->send_turn);
	if (r == 0)
		wake_own_side(session);
	return r;
}

/* ---- commit_release ---- */

/* Both turns are this one's. */
static int commit_and_release(struct session *session, void *data, uint64_t size,
			      const struct ipc_session_message *request, bool *ret_gives_room)
{
	struct ring_commit message = message_of(session, size);
	unsigned parity = session_parity(session->in.tail) ^ SESSION_PARITY;
	struct ring_claim *claim;
	uint64_t position;
	int r, released;

	r = find_claim(session, data, size, &claim);
	if (r < 0)
		return r;
	released = session_find_release(session, request, &position);
	if (released < 0)
		return released;

	if (released > 0) {
		message.note = session_note(position, parity);
		message.state = SESSION_NOTED;
	}
	*ret_gives_room = ring_commit_leaves_room(claim, size);
	r = ring_commit(&session->out, claim, &message);
	if (r < 0 || released == 0)
		return r;

	CRASH_POINT();
	r = session_follow(session, position);
	session->released = request->sequence;

	/* Committed is committed: who has the end now releases it. */
	return r == IPC_ESTALE ? 0 : r;
}

int session_commit_release(struct session *session, void *data, size_t size,
			   const struct ipc_session_message *request)
{
	bool gives_room = false;
	int r;

	r = header_fault(session->header);
	if (UNLIKELY(r < 0))
		return r;

	r = begin_send(session);
	if (UNLIKELY(r < 0))
		return r;

	turn_take(&session->receive_turn);
	r = commit_and_release(session, data, size, request, &gives_room);
	turn_give(&session->receive_turn);
	turn_give(&session->send_turn);
	if (UNLIKELY(gives_room && r == 0))
		wake_own_side(session);
	return finish_send(session, r);
}
