/* SPDX-License-Identifier: MIT */
#include "libipc/channel/inbox.h"

#include <stdlib.h>
#include <string.h>

#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"

/*
 * The receiver's end.  Every call holds the turn, so there is one thread at a time.
 *
 * What is received is marked in ring.received before it is handed out.  Where the sender may give
 * the backlog up the mark is an exchange, and decides whether the record was received or given up.
 */

/* So often the sender gave the backlog up just then. */
#define TRIES_MAX 1000

static struct inbox_shared *shared_of(const struct inbox_receiver *receiver)
{
	return receiver->inbox.shared;
}

/* ---- marks ---- */

/* Before what lies in front of `position` is handed out.  False: the backlog was given up. */
static bool mark_received(struct inbox_receiver *receiver, uint64_t position, unsigned state)
{
	uint64_t tag = ring_tag(receiver->in.tail);
	_Atomic uint64_t *received = &shared_of(receiver)->ring.received[tag & 1];
	uint64_t word = ring_word(tag, state, position);

	if (!receiver->inbox.collapses) {
		atomic_store_explicit(received, word, memory_order_release);
	} else {
		uint64_t seen = receiver->marked;

		word |= seen & (uint64_t)INBOX_TURNED << RING_STATE_SHIFT;
		if (!atomic_compare_exchange_strong_explicit(
			    received, &seen, word, memory_order_seq_cst, memory_order_relaxed))
			return false;
	}

	receiver->marked = word;
	return true;
}

/* ---- events ---- */

static void event_fill(const struct inbox_receiver *receiver, struct ipc_inbox_event *ret,
		       enum ipc_inbox_event_type type, uint64_t position)
{
	memset(ret, 0, sizeof(*ret));
	ret->type = type;
	ret->generation = receiver->generation;
	ret->fd = -1;
	ret->token = ring_word(ring_tag(receiver->in.tail), receiver->is_inside ? INBOX_INSIDE : 0,
			       position);
}

/* A snapshot that was begun is over. */
static int tell_abort(struct inbox_receiver *receiver, struct ipc_inbox_event *ret,
		      enum ipc_inbox_reason reason)
{
	receiver->is_inside = false;
	event_fill(receiver, ret, IPC_INBOX_ABORT, receiver->in.at);
	ret->reason = reason;

	/* What comes now counts in the last one that had an END. */
	receiver->generation = receiver->n_ends > 0
				       ? receiver->ends[receiver->n_ends - 1].generation
				       : receiver->now.generation;
	(void)mark_received(receiver, receiver->in.at, INBOX_ABORTED);
	return 0;
}

/* The ring holds what no sender of ours publishes: nothing counts up to the next snapshot. */
static int tell_broken_stream(struct inbox_receiver *receiver, struct ipc_inbox_event *ret,
			      uint64_t offset)
{
	event_fill(receiver, ret, IPC_INBOX_GAP, receiver->in.at);
	ret->offset = offset;
	ret->expected = receiver->expected;
	receiver->skips = true;
	inbox_want(&receiver->inbox);
	return 0;
}

static int tell_gap(struct inbox_receiver *receiver, struct ipc_inbox_event *ret)
{
	receiver->gap_was_told = true;
	if (receiver->is_inside)
		return tell_abort(receiver, ret, IPC_INBOX_COLLAPSED);

	event_fill(receiver, ret, IPC_INBOX_GAP, receiver->in.at);
	ret->reason = IPC_INBOX_COLLAPSED;
	ret->offset = atomic_load_explicit(&shared_of(receiver)->gap_written, memory_order_relaxed);
	ret->expected = receiver->expected;
	return 0;
}

/* ---- a backlog that was given up ---- */

/* The sender is in the middle of it, and this is the place. */
static bool is_held_up(const struct inbox_receiver *receiver)
{
	const struct inbox_shared *shared = shared_of(receiver);
	uint64_t armed = atomic_load_explicit(&shared->collapse, memory_order_seq_cst);
	uint64_t head = atomic_load_explicit(&shared->ring.head, memory_order_relaxed);

	return armed != 0 && ring_tag(armed) == ring_tag(head) &&
	       ring_position(armed) == receiver->in.at;
}

/* 0: told; IPC_EAGAIN: not yet; 1: it was not given up. */
static int look_at_collapse(struct inbox_receiver *receiver, struct ipc_inbox_event *ret)
{
	uint64_t tag = ring_tag(receiver->in.tail);
	_Atomic uint64_t *received = &shared_of(receiver)->ring.received[tag & 1];
	uint64_t seen = atomic_load_explicit(received, memory_order_seq_cst);

	if (is_held_up(receiver))
		return IPC_EAGAIN;
	if (!(ring_state(seen) & INBOX_COLLAPSED) || ring_tag(seen) != tag)
		return 1;

	/* What was seen of the ring behind this place is not there any more. */
	receiver->in.head = receiver->in.at = ring_position(seen);
	receiver->marked = seen;
	if (!mark_received(receiver, receiver->in.at, 0))
		return IPC_EAGAIN;

	return tell_gap(receiver, ret);
}

/* ---- records ---- */

static bool ends_make_room(struct inbox_receiver *receiver)
{
	unsigned n = receiver->n_ends_max ? 2 * receiver->n_ends_max : 4;
	struct inbox_pending_end *ends;

	if (receiver->n_ends < receiver->n_ends_max)
		return true;

	ends = realloc(receiver->ends, n * sizeof(*ends));
	if (!ends)
		return false;

	receiver->ends = ends;
	receiver->n_ends_max = n;
	return true;
}

/* It waits for room in the socket, perhaps. */
static void wake_sender(const struct inbox_receiver *receiver)
{
	atomic_thread_fence(memory_order_seq_cst);
	inbox_notify(&receiver->inbox, INBOX_SIDE_SENDER);
}

/* What a record does to the receiver: its event.  Nothing is changed if it is negative. */
static int take_begin(struct inbox_receiver *receiver, const struct ring_received *record,
		      struct ipc_inbox_event *ret)
{
	struct inbox_begin begin = {0};

	if (record->size < sizeof(begin))
		return IPC_EBADMSG;

	memcpy(&begin, record->bytes, sizeof(begin));
	if (!mark_received(receiver, record->after, 0))
		return IPC_EAGAIN;

	/* Descriptors of a snapshot before it that nobody took. */
	if (begin.n_fds > 0 && parcel_drop(receiver->inbox.pair_fd, &receiver->in, begin.n_fds))
		wake_sender(receiver);

	receiver->skips = receiver->gap_was_told = false;
	receiver->is_inside = true;
	receiver->generation = begin.generation;
	receiver->begin_tag = ring_tag(receiver->in.head_word);
	event_fill(receiver, ret, IPC_INBOX_BEGIN, record->after);
	return 0;
}

static int take_chunk(struct inbox_receiver *receiver, const struct ring_received *record,
		      struct ipc_inbox_event *ret)
{
	if (!mark_received(receiver, record->after, 0))
		return IPC_EAGAIN;

	event_fill(receiver, ret, IPC_INBOX_CHUNK, record->after);
	ret->data = record->size > 0 ? record->bytes : NULL;
	ret->size = record->size;
	return 0;
}

static int take_chunk_fd(struct inbox_receiver *receiver, const struct ring_received *record,
			 struct ipc_inbox_event *ret)
{
	struct inbox_chunk_fd chunk = {0};
	bool is_moved = false;
	int fd, r;

	if (record->size < sizeof(chunk))
		return IPC_EBADMSG;

	memcpy(&chunk, record->bytes, sizeof(chunk));
	r = parcel_take(receiver->inbox.pair_fd, &receiver->in, chunk.id, record->extra, &fd,
			&is_moved);
	if (r < 0)
		return r;
	if (!mark_received(receiver, record->after, 0)) {
		(void)fd_close(fd);
		return IPC_EAGAIN;
	}
	if (is_moved)
		wake_sender(receiver);

	/* The bytes are lost, and with them the snapshot. */
	if (fd < 0) {
		receiver->in.at = record->after;
		receiver->skips = true;
		(void)tell_abort(receiver, ret, IPC_INBOX_ABORTED);
		inbox_want(&receiver->inbox);
		return 0;
	}

	event_fill(receiver, ret, IPC_INBOX_CHUNK, record->after);
	ret->offset = chunk.offset;
	ret->size = chunk.size;
	ret->fd = fd;
	return 0;
}

static int take_end(struct inbox_receiver *receiver, const struct ring_received *record,
		    struct ipc_inbox_event *ret)
{
	uint64_t next_offset = ring_number_at(&receiver->in.view, record->after);

	if (!ends_make_room(receiver))
		return IPC_ENOMEM;
	if (!mark_received(receiver, record->after, 0))
		return IPC_EAGAIN;

	receiver->ends[receiver->n_ends++] =
		(struct inbox_pending_end){record->after, receiver->generation};
	receiver->is_inside = false;
	receiver->expected = next_offset;
	event_fill(receiver, ret, IPC_INBOX_END, record->after);
	ret->offset = next_offset;
	return 0;
}

static int take_frame(struct inbox_receiver *receiver, const struct ring_received *record,
		      struct ipc_inbox_event *ret)
{
	if (UNLIKELY(record->number != receiver->expected))
		return tell_broken_stream(receiver, ret, record->number);
	if (UNLIKELY(!mark_received(receiver, record->after, 0)))
		return IPC_EAGAIN;

	receiver->expected = record->number + 1;
	event_fill(receiver, ret, IPC_INBOX_FRAME, record->after);
	ret->offset = record->number;
	ret->data = record->size > 0 ? record->bytes : NULL;
	ret->size = record->size;
	return 0;
}

/* Records that mean nothing where the receiver is. */
static bool is_void(const struct inbox_receiver *receiver, unsigned type)
{
	switch ((enum inbox_record)type) {
	case INBOX_BEGIN:
		return false;
	case INBOX_CHUNK:
	case INBOX_CHUNK_FD:
	case INBOX_END:
	case INBOX_ABORT:
		return receiver->skips || !receiver->is_inside;
	case INBOX_FRAME:
		return receiver->skips || receiver->is_inside || receiver->generation == 0;
	}

	return true;
}

static int take_record(struct inbox_receiver *receiver, const struct ring_received *record,
		       struct ipc_inbox_event *ret)
{
	switch ((enum inbox_record)record->type) {
	case INBOX_BEGIN:
		return take_begin(receiver, record, ret);
	case INBOX_CHUNK:
		return take_chunk(receiver, record, ret);
	case INBOX_CHUNK_FD:
		return take_chunk_fd(receiver, record, ret);
	case INBOX_END:
		return take_end(receiver, record, ret);
	case INBOX_FRAME:
		return take_frame(receiver, record, ret);
	case INBOX_ABORT:
		receiver->in.at = record->after;
		return tell_abort(receiver, ret, (enum ipc_inbox_reason)record->flags);
	}

	return IPC_EBADMSG;
}

/* What is void and held by nobody is room. */
static int pass_over(struct inbox_receiver *receiver, const struct ring_received *record)
{
	struct ring_consumer *in = &receiver->in;
	int r;

	if (!mark_received(receiver, record->after, INBOX_ABORTED))
		return IPC_EAGAIN;

	in->at = record->after;

	/* Only behind a receiver that was lost: nothing is held then. */
	if (!receiver->skips || !(ring_state(in->tail) & INBOX_SKIPS))
		return 0;

	r = ring_release(in, in->at, INBOX_GAPPED | INBOX_SKIPS);
	if (r == 0)
		inbox_notify(&receiver->inbox, INBOX_SIDE_SENDER);
	return r;
}

/* ---- at the end of what there is ---- */

static bool is_at_gap(const struct inbox_receiver *receiver)
{
	uint64_t head = atomic_load_explicit(&shared_of(receiver)->ring.head, memory_order_acquire);

	return !receiver->gap_was_told && !receiver->skips &&
	       ring_position(head) == receiver->in.at && (ring_state(head) & INBOX_GAPPED) &&
	       !(ring_state(head) & INBOX_INSIDE);
}

/*
 * Whether the open snapshot may be that of a sender who is there: the caller's look at the end of
 * one before may be an old one, and another thread have received what the next one sent.
 */
static bool has_living_sender(const struct inbox_receiver *receiver)
{
	const struct inbox *inbox = &receiver->inbox;
	const struct ring *ring = &inbox->shared->ring;
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
	uint64_t who = atomic_load_explicit(&ring->producer, memory_order_relaxed);
	uint64_t id = atomic_load_explicit(&inbox->table->handle[who >> 22 & 0xffff],
					   memory_order_acquire);

	return ring_tag(head) == receiver->begin_tag && id != 0 &&
	       ring_owner(id, who & 0x3fffff) == who &&
	       side_count(liveness_side(inbox->table, inbox->channel_slot, INBOX_SIDE_SENDER)) > 0;
}

static int when_drained(struct inbox_receiver *receiver, struct ipc_inbox_event *ret,
			int sender_end)
{
	if (UNLIKELY(receiver->inbox.collapses) && is_at_gap(receiver))
		return tell_gap(receiver, ret);

	/* Nobody else tells of a snapshot whose sender is gone, before there is another one. */
	if (receiver->is_inside && sender_end < 0 && !has_living_sender(receiver))
		return tell_abort(receiver, ret,
				  sender_end == IPC_EPIPE ? IPC_INBOX_SENDER_CLOSED
							  : IPC_INBOX_SENDER_DIED);

	return IPC_EAGAIN;
}

/* ---- receiving ---- */

/* Reading what is being given up and written over may look broken. */
static int peek(struct inbox_receiver *receiver, struct ring_received *record)
{
	int r = ring_peek(&receiver->in, record);

	if (LIKELY(r != IPC_EBADMSG) || !receiver->inbox.collapses)
		return r;

	receiver->in.head = receiver->in.at;
	return mark_received(receiver, receiver->in.at,
			     ring_state(receiver->marked) & ~INBOX_TURNED)
		       ? IPC_EBADMSG
		       : IPC_EAGAIN;
}

static int receive_one(struct inbox_receiver *receiver, struct ipc_inbox_event *ret, int sender_end)
{
	struct ring_received record;
	int r, n_tries = 0;

	if (UNLIKELY(receiver->was_taken_over)) {
		receiver->was_taken_over = false;
		return tell_abort(receiver, ret, IPC_INBOX_RECEIVER_CHANGED);
	}

	for (;;) {
		if (UNLIKELY(receiver->inbox.collapses)) {
			r = look_at_collapse(receiver, ret);
			if (r <= 0)
				return r;
		}

		r = peek(receiver, &record);
		if (r == IPC_EAGAIN)
			return when_drained(receiver, ret, sender_end);
		if (r < 0)
			return r;

		if (record.type == INBOX_BEGIN && receiver->is_inside)
			return tell_abort(receiver, ret, IPC_INBOX_RESTARTED);

		if (UNLIKELY(is_void(receiver, record.type))) {
			r = pass_over(receiver, &record);
			if (r == 0)
				continue;
		} else {
			r = take_record(receiver, &record, ret);
			if (r == 0 && ret->type != IPC_INBOX_ABORT && ret->type != IPC_INBOX_GAP)
				receiver->in.at = record.after;
		}

		/* Given up in this moment: looked at once more. */
		if (r != IPC_EAGAIN)
			return r;
		if (!ring_consumer_is(&receiver->in))
			return IPC_ESTALE;
		if (++n_tries > TRIES_MAX)
			return IPC_EBADMSG;
	}
}

static int receiver_enter(struct inbox_receiver *receiver)
{
	int r;

	turn_take(&receiver->turn);
	r = header_fault(receiver->inbox.header);
	if (r == 0 && UNLIKELY(!ring_consumer_is(&receiver->in)))
		r = IPC_ESTALE;
	if (r < 0)
		turn_give(&receiver->turn);

	return r;
}

static int receiver_leave(struct inbox_receiver *receiver, int r)
{
	turn_give(&receiver->turn);
	return inbox_result(&receiver->inbox, r);
}

int inbox_receive_many(struct inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned n,
		       int sender_end)
{
	unsigned i;
	int r;

	r = receiver_enter(receiver);
	if (r < 0)
		return r;

	for (i = 0; i < n && r == 0; ++i)
		r = receive_one(receiver, &ret[i], sender_end);

	/* What went wrong is said by the next call. */
	if (r < 0 && i > 1)
		r = 0, --i;
	return receiver_leave(receiver, r < 0 ? r : (int)i);
}

int inbox_probe_event(struct inbox_receiver *receiver, int sender_end)
{
	struct ring_received record;
	struct ring_consumer in;
	int r;

	r = receiver_enter(receiver);
	if (r < 0)
		return r;

	if (receiver->was_taken_over)
		return receiver_leave(receiver, 0);

	if (receiver->inbox.collapses) {
		uint64_t tag = ring_tag(receiver->in.tail);
		uint64_t seen = atomic_load_explicit(&shared_of(receiver)->ring.received[tag & 1],
						     memory_order_acquire);

		if (is_held_up(receiver))
			return receiver_leave(receiver, IPC_EAGAIN);
		if ((ring_tag(seen) == tag && ring_state(seen) & INBOX_COLLAPSED) ||
		    is_at_gap(receiver))
			return receiver_leave(receiver, 0);
	}

	/* Past what means nothing, on a copy. */
	in = receiver->in;
	do {
		r = ring_peek(&in, &record);
		in.at = r == 0 ? record.after : in.at;
	} while (r == 0 && is_void(receiver, record.type));

	if (r == IPC_EAGAIN && receiver->is_inside && sender_end < 0 &&
	    !has_living_sender(receiver))
		r = 0;
	if (r == IPC_EBADMSG && receiver->inbox.collapses)
		r = 0;
	return receiver_leave(receiver, r);
}

/* ---- applying ---- */

/* The newest END in front of `position` counts from it on; those before are forgotten. */
static bool apply_ends(struct inbox_receiver *receiver, uint64_t position)
{
	uint64_t tail = ring_position(receiver->in.tail), distance = ring_distance(tail, position);
	unsigned n = 0;

	while (n < receiver->n_ends && ring_distance(tail, receiver->ends[n].position) <= distance)
		++n;
	if (n == 0)
		return false;

	inbox_end_write(shared_of(receiver)->applied, &receiver->now,
			receiver->ends[n - 1].position, receiver->ends[n - 1].generation, 0);
	receiver->n_ends -= n;
	memmove(receiver->ends, receiver->ends + n, receiver->n_ends * sizeof(*receiver->ends));
	return true;
}

static int mark_applied(struct inbox_receiver *receiver, uint64_t token)
{
	struct ring_consumer *in = &receiver->in;
	uint64_t tail = ring_position(in->tail), position = ring_position(token);
	unsigned state = ring_state(token) & INBOX_INSIDE;

	if (ring_tag(token) != ring_tag(in->tail))
		return IPC_ESTALE;

	/* Not held any more. */
	if (position == tail || ring_distance(tail, position) > ring_distance(tail, in->at))
		return 0;

	if (!apply_ends(receiver, position)) {
		state |= ring_state(in->tail) & INBOX_GAPPED;
		inbox_end_renew(shared_of(receiver)->applied, &receiver->now, tail);
	}
	CRASH_POINT();
	return ring_release(in, position, state);
}

int inbox_mark_applied(struct inbox_receiver *receiver, const struct ipc_inbox_event *event)
{
	int r;

	r = receiver_enter(receiver);
	if (r < 0)
		return r;

	r = receiver_leave(receiver, mark_applied(receiver, event->token));
	if (r == 0)
		inbox_notify(&receiver->inbox, INBOX_SIDE_SENDER);
	return r;
}

/* ---- requests ---- */

int inbox_request_snapshot(struct inbox_receiver *receiver)
{
	int r;

	r = receiver_enter(receiver);
	if (r < 0)
		return r;

	if (receiver->is_inside || inbox_begin_is_coming(&receiver->in))
		return receiver_leave(receiver, 1);

	inbox_want(&receiver->inbox);
	return receiver_leave(receiver, 0);
}
