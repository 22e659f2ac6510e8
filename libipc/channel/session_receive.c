/* SPDX-License-Identifier: MIT */

/*
 * The receiver's half of an end.
 *
 * A message's token is the position behind it, with the tag of the end that received it and the
 * side.
 */

#include "libipc/channel/session_inside.h"
#include "libipc/core/parcel.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"

/* ---- receive ---- */

/* It had been received by who had this end before. */
static bool is_redelivered(const struct ring_consumer *in, uint64_t at)
{
	return ring_distance(at, in->received_before) - 1 < RING_POSITION_MASK / 2;
}

/*
 * Tells how far this one got: never less far than those before it did.  False: whoever took the end
 * over has closed the mark, and counts what is not told there as not received.
 */
static bool mark_received(const struct ring_consumer *in)
{
	uint64_t tag = ring_tag(in->tail);
	uint64_t position = is_redelivered(in, in->at) ? in->received_before : in->at;
	_Atomic uint64_t *mark = &in->view.ring->received[tag & 1];
	uint64_t seen = atomic_load_explicit(mark, memory_order_relaxed);

	if (ring_tag(seen) != tag || (ring_state(seen) & RING_RECEIVED_CLOSED))
		return false;

	return ring_position(seen) == position ||
	       atomic_compare_exchange_strong_explicit(mark, &seen, ring_word(tag, 0, position),
						       memory_order_acq_rel, memory_order_relaxed);
}

static int find_fd(struct session *session, const struct ring_received *record,
		   struct ipc_session_message *message, bool *ret_moved)
{
	int r = parcel_take(session->pair_fd, &session->in, record->number, record->extra,
			    &message->fd, ret_moved);

	if (r < 0)
		return r;

	message->flags |= IPC_MESSAGE_FD;
	if (message->fd < 0)
		message->flags |= IPC_MESSAGE_FD_LOST;
	return 0;
}

/* The next one.  `at` is behind it then. */
static int receive_one(struct session *session, struct ipc_session_message *ret, bool *ret_moved)
{
	struct ring_consumer *in = &session->in;
	struct ring_received record;
	int r;

	r = ring_peek(in, &record);
	if (r < 0)
		return r;
	if (UNLIKELY(record.type != SESSION_MESSAGE || record.size > session->message_size_max ||
		     record.number != session->received + 1))
		return IPC_EBADMSG;

	*ret = (struct ipc_session_message){
		.data = record.size > 0 ? record.bytes : NULL,
		.size = record.size,
		.sequence = record.number,
		.flags = is_redelivered(in, record.at) ? IPC_MESSAGE_REDELIVERED : 0,
		.fd = -1,
		.token = ring_word(ring_tag(in->tail), session->side, record.after),
	};
	if (UNLIKELY(record.flags & SESSION_HAS_FD)) {
		r = find_fd(session, &record, ret, ret_moved);
		if (r < 0)
			return r;
	}

	in->at = record.after;
	session->received = record.number;
	return 0;
}

/* How many, with what ended it in *ret_end. */
static unsigned receive_some(struct session *session, struct ipc_session_message *ret, unsigned n,
			     bool *ret_moved, int *ret_end)
{
	unsigned n_received = 0;

	while (n_received < n) {
		*ret_end = receive_one(session, &ret[n_received], ret_moved);
		if (*ret_end < 0)
			break;
		++n_received;
	}

	return n_received;
}

int session_receive_many(struct session *session, struct ipc_session_message *ret, unsigned n)
{
	unsigned n_received;
	bool moved = false;
	uint64_t tail;
	int end;

	end = header_fault(session->header);
	if (UNLIKELY(end < 0))
		return end;

	turn_take(&session->receive_turn);
	tail = session->in.tail;
	n_received = receive_some(session, ret, n, &moved, &end);
	moved |= session->in.tail != tail;
	CRASH_POINT();
	if (n_received == 0 ? !ring_consumer_is(&session->in) : !mark_received(&session->in))
		end = IPC_ESTALE;
	turn_give(&session->receive_turn);

	/* The sender may wait for room in the socket; or in the ring, where what was passed over
	 * has become room. */
	if (UNLIKELY(moved))
		session_notify(session, false);

	if (LIKELY(n_received > 0 && end != IPC_ESTALE))
		return (int)n_received;

	while (n_received > 0)
		(void)fd_close(ret[--n_received].fd);
	return session_result(session, end);
}

int session_probe_message(struct session *session)
{
	int r;

	r = header_fault(session->header);
	if (r < 0)
		return r;

	turn_take(&session->receive_turn);
	r = ring_probe(&session->in);
	if (!ring_consumer_is(&session->in))
		r = IPC_ESTALE;
	turn_give(&session->receive_turn);
	return session_result(session, r);
}

/* ---- release ---- */

static int find_release(const struct session *session, const struct ipc_session_message *message,
			uint64_t *ret_position)
{
	const struct ring_consumer *in = &session->in;
	uint64_t position = ring_position(message->token);

	if (UNLIKELY(ring_tag(message->token) != ring_tag(in->tail) ||
		     ring_state(message->token) != session->side))
		return IPC_EINVAL;

	/* Numbers wrap as positions do. */
	if (session->received - message->sequence >= UINT64_C(1) << 63)
		return IPC_EINVAL;
	if (session->released - message->sequence < UINT64_C(1) << 63)
		return 0;

	/* A token of the same number that is another session's. */
	if (UNLIKELY(!session_is_between(ring_position(in->tail), position, in->at) ||
		     ring_number_at(&in->view, position) != message->sequence + 1))
		return IPC_EINVAL;

	*ret_position = position;
	return 1;
}

int session_find_release(const struct session *session, const struct ipc_session_message *message,
			 uint64_t *ret_position)
{
	int r = find_release(session, message, ret_position);

	/* Who was taken over may have looked at what is written over. */
	if (UNLIKELY(r <= 0)) {
		atomic_thread_fence(memory_order_acquire);
		if (!ring_consumer_is(&session->in))
			return IPC_ESTALE;
	}
	return r;
}

int session_release(struct session *session, const struct ipc_session_message *message)
{
	uint64_t position;
	int r;

	r = header_fault(session->header);
	if (UNLIKELY(r < 0))
		return r;

	turn_take(&session->receive_turn);
	r = session_find_release(session, message, &position);
	if (LIKELY(r > 0)) {
		r = ring_release(&session->in, position, ring_state(session->in.tail));
		if (LIKELY(r == 0)) {
			session->released = message->sequence;
			r = 1;
		}
	}
	turn_give(&session->receive_turn);
	if (UNLIKELY(r <= 0))
		return r;

	CRASH_POINT();
	session_notify(session, true);
	return 0;
}
