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

bool inbox_mark_received(struct inbox_receiver *receiver, uint64_t position, unsigned state)
{
	uint64_t tag = ring_tag(receiver->in.tail);
	_Atomic uint64_t *received = &shared_of(receiver)->ring.received[tag & 1];
	uint64_t word = ring_word(tag, state, position);

	if (LIKELY(!receiver->inbox.collapses)) {
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

/* What was read at this place stood there: it was not just being given up and written over. */
static bool is_confirmed(struct inbox_receiver *receiver)
{
	return !receiver->inbox.collapses ||
	       inbox_mark_received(receiver, receiver->in.at,
				   ring_state(receiver->marked) & INBOX_ABORTED);
}

/* What was read of a record up to here is what stood there: as long as the end is this one's nobody
 * writes over it, but who gives it up, which the mark finds out. */
static bool was_read(const struct inbox_receiver *receiver)
{
	atomic_thread_fence(memory_order_acquire);
	return LIKELY(ring_consumer_is(&receiver->in));
}

/* ---- events ---- */

static void event_fill(struct inbox_receiver *receiver, struct ipc_inbox_event *ret,
		       enum ipc_inbox_event_type type, uint64_t position)
{
	memset(ret, 0, sizeof(*ret));
	ret->type = type;
	ret->generation = receiver->generation;
	ret->fd = -1;
	ret->token = ring_word(receiver->number, receiver->is_inside ? INBOX_INSIDE : 0, position);
	if (type != IPC_INBOX_ABORT && type != IPC_INBOX_GAP)
		receiver->handed = position;
}

/* Of a mark where no snapshot is open: whether the state is that of before it. */
static unsigned over(const struct inbox_receiver *receiver)
{
	return receiver->is_gapped ? 0 : INBOX_ABORTED;
}

/* Nothing counts up to the next snapshot: what comes from here on is not applied. */
static void lose(struct inbox_receiver *receiver)
{
	receiver->skips = receiver->is_gapped = receiver->has_lost = true;
	receiver->lost_at = receiver->in.at;
	receiver->lost_offset = receiver->expected;
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
	(void)inbox_mark_received(receiver, receiver->in.at, over(receiver));

	/* It was to replace one that was lost: what follows continues that. */
	if (receiver->is_gapped && !receiver->skips) {
		receiver->skips = true;
		if (reason != IPC_INBOX_COLLAPSED && !inbox_begin_is_coming(&receiver->in))
			inbox_want(&receiver->inbox);
	}
	return 0;
}

/* The ring holds what no sender of ours publishes. */
static int tell_broken_stream(struct inbox_receiver *receiver, struct ipc_inbox_event *ret,
			      uint64_t offset)
{
	event_fill(receiver, ret, IPC_INBOX_GAP, receiver->in.at);
	ret->offset = offset;
	ret->expected = receiver->expected;
	lose(receiver);
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

/* 0: told; IPC_EAGAIN: not yet; 1: it was not given up. */
static int look_at_collapse(struct inbox_receiver *receiver, struct ipc_inbox_event *ret)
{
	uint64_t tag = ring_tag(receiver->in.tail);
	_Atomic uint64_t *received = &shared_of(receiver)->ring.received[tag & 1];
	uint64_t seen = atomic_load_explicit(received, memory_order_seq_cst);
	bool is_marked = ring_tag(seen) == tag && (ring_state(seen) & INBOX_COLLAPSED);
	unsigned kept = ring_state(receiver->marked) & INBOX_ABORTED;

	if (UNLIKELY(is_marked))
		receiver->in.at = ring_position(seen);

	/* What was seen of the ring behind this place may not be there any more. */
	receiver->in.head = receiver->in.at;
	if (inbox_is_held_up(receiver))
		return IPC_EAGAIN;
	if (LIKELY(!is_marked))
		return 1;

	receiver->marked = seen;
	if (!inbox_mark_received(receiver, receiver->in.at, kept))
		return IPC_EAGAIN;

	return inbox_was_given_up(receiver) ? tell_gap(receiver, ret) : 1;
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
		return is_confirmed(receiver) ? IPC_EBADMSG : IPC_EAGAIN;

	if (!inbox_mark_received(receiver, record->after, 0))
		return IPC_EAGAIN;

	/* Not before: until then the sender may give it up and write over it. */
	memcpy(&begin, record->bytes, sizeof(begin));
	if (!was_read(receiver))
		return IPC_ESTALE;

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
	if (!inbox_mark_received(receiver, record->after, 0))
		return IPC_EAGAIN;

	event_fill(receiver, ret, IPC_INBOX_CHUNK, record->after);
	ret->data = record->size > 0 ? record->bytes : NULL;
	ret->size = record->size;
	return 0;
}

/* The rest of a snapshot comes to nothing: it was received before, perhaps. */
static bool is_taken_back(const struct ring_consumer *from)
{
	struct ring_consumer in = *from;
	struct ring_received record;

	while (ring_peek_ahead(&in, &record) == 0) {
		if (record.type != INBOX_CHUNK && record.type != INBOX_CHUNK_FD)
			return record.type == INBOX_ABORT || record.type == INBOX_BEGIN;
		in.at = record.after;
	}

	return false;
}

static int take_chunk_fd(struct inbox_receiver *receiver, const struct ring_received *record,
			 struct ipc_inbox_event *ret)
{
	struct inbox_chunk_fd chunk = {0};
	bool is_moved = false, is_lost;
	int fd, r;

	memcpy(&chunk, record->bytes, record->size < sizeof(chunk) ? record->size : sizeof(chunk));
	if (!was_read(receiver))
		return IPC_ESTALE;
	if (!is_confirmed(receiver))
		return IPC_EAGAIN;
	if (record->size < sizeof(chunk))
		return IPC_EBADMSG;
	r = parcel_take(receiver->inbox.pair_fd, &receiver->in, chunk.id, record->extra, &fd,
			&is_moved);
	if (r < 0)
		return r;
	if (!inbox_mark_received(receiver, record->after, 0)) {
		(void)fd_close(fd);
		return IPC_EAGAIN;
	}
	if (is_moved)
		wake_sender(receiver);

	/* The bytes are lost, and with them the snapshot: the next one is needed. */
	if (fd < 0) {
		receiver->in.at = record->after;
		is_lost = !is_taken_back(&receiver->in);
		if (is_lost)
			lose(receiver);
		(void)tell_abort(receiver, ret, IPC_INBOX_ABORTED);
		if (is_lost)
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

	if (!was_read(receiver))
		return IPC_ESTALE;
	if (!ends_make_room(receiver))
		return IPC_ENOMEM;
	if (!inbox_mark_received(receiver, record->after, 0))
		return IPC_EAGAIN;

	atomic_store_explicit(
		&shared_of(receiver)->end_received,
		ring_word(ring_tag(receiver->in.tail), INBOX_RECEIVED_ONE, record->after),
		memory_order_relaxed);
	receiver->ends[receiver->n_ends++] =
		(struct inbox_pending_end){record->after, receiver->generation};
	receiver->is_inside = receiver->is_gapped = false;
	receiver->expected = next_offset;
	event_fill(receiver, ret, IPC_INBOX_END, record->after);
	ret->offset = next_offset;
	return 0;
}

static int take_frame(struct inbox_receiver *receiver, const struct ring_received *record,
		      struct ipc_inbox_event *ret)
{
	if (UNLIKELY(record->number != receiver->expected))
		return is_confirmed(receiver) ? tell_broken_stream(receiver, ret, record->number)
					      : IPC_EAGAIN;
	if (UNLIKELY(!inbox_mark_received(receiver, record->after, 0)))
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
static int pass_over(struct inbox_receiver *receiver, uint64_t after)
{
	struct ring_consumer *in = &receiver->in;

	if (!inbox_mark_received(receiver, after, receiver->is_inside ? 0 : over(receiver)))
		return IPC_EAGAIN;

	in->at = after;
	if (!inbox_holds_nothing(receiver, ring_position(in->tail)))
		return 0;

	return inbox_let_go(receiver, in->at, ring_state(in->tail));
}

/* ---- at the end of what there is ---- */

static bool is_at_gap(const struct inbox_receiver *receiver, uint64_t at)
{
	const struct ring *ring = &shared_of(receiver)->ring;
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
	uint64_t mark = atomic_load_explicit(&ring->received[ring_tag(receiver->in.tail) & 1],
					     memory_order_relaxed);

	/* What was given up just now is told by its mark. */
	return mark == receiver->marked && !receiver->gap_was_told && !receiver->skips &&
	       ring_position(head) == at && (ring_state(head) & INBOX_GAPPED) &&
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
	if (UNLIKELY(receiver->inbox.collapses) && is_at_gap(receiver, receiver->in.at))
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
	struct ring_consumer *in = &receiver->in;
	uint64_t before = in->at;
	int r;

	if (LIKELY(!receiver->inbox.collapses))
		return ring_peek(in, record);

	/* What is room again was marked before: the tail is never behind the mark. */
	r = ring_peek_ahead(in, record);
	if (r == IPC_EAGAIN && UNLIKELY(in->at != before) && before == ring_position(in->tail)) {
		if (!is_confirmed(receiver))
			return IPC_EAGAIN;
		r = ring_release(in, in->at, ring_state(in->tail));
		return r < 0 ? r : IPC_EAGAIN;
	}
	if (LIKELY(r != IPC_EBADMSG))
		return r;

	in->head = in->at;
	return is_confirmed(receiver) ? IPC_EBADMSG : IPC_EAGAIN;
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
		if (r == 0 && !was_read(receiver))
			r = IPC_ESTALE;
		if (r < 0)
			return r;

		if (record.type == INBOX_BEGIN && receiver->is_inside)
			return tell_abort(receiver, ret, IPC_INBOX_RESTARTED);

		if (UNLIKELY(is_void(receiver, record.type))) {
			r = pass_over(receiver, record.after);
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

int inbox_receive_many(struct inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned n,
		       int sender_end)
{
	unsigned i;
	int r;

	r = inbox_receiver_enter(receiver);
	if (r < 0)
		return r;

	for (i = 0; i < n && r == 0; ++i)
		r = receive_one(receiver, &ret[i], sender_end);

	/* What went wrong is said by the next call. */
	if (r < 0 && i > 1)
		r = 0, --i;
	return inbox_receiver_leave(receiver, r < 0 ? r : (int)i);
}

/* All that there is, holes and jumps too: the sender may need its room.  IPC_EAGAIN, or 0: there
 * may be an event. */
static int pass_void(struct inbox_receiver *receiver, const struct ring_consumer *to)
{
	const struct ring_consumer before = receiver->in;
	int r;

	if (!was_read(receiver))
		return IPC_ESTALE;

	receiver->in = *to;
	r = pass_over(receiver, to->at);
	if (r != IPC_EAGAIN)
		return r == 0 ? IPC_EAGAIN : r;

	/* It was given up in this moment. */
	receiver->in = before;
	return 0;
}

int inbox_probe_event(struct inbox_receiver *receiver, int sender_end)
{
	struct ring_received record;
	struct ring_consumer in;
	int r;

	r = inbox_receiver_enter(receiver);
	if (r < 0)
		return r;

	if (receiver->was_taken_over)
		return inbox_receiver_leave(receiver, 0);

	if (receiver->inbox.collapses) {
		uint64_t tag = ring_tag(receiver->in.tail);
		uint64_t seen = atomic_load_explicit(&shared_of(receiver)->ring.received[tag & 1],
						     memory_order_acquire);

		if (inbox_is_held_up(receiver))
			return inbox_receiver_leave(receiver, IPC_EAGAIN);
		if (ring_tag(seen) == tag && ring_state(seen) & INBOX_COLLAPSED)
			return inbox_receiver_leave(receiver, 0);
	}

	/* Past what means nothing, on a copy. */
	in = receiver->in;
	if (receiver->inbox.collapses)
		in.head = in.at;
	while ((r = ring_peek_ahead(&in, &record)) == 0 && is_void(receiver, record.type))
		in.at = record.after;

	if (r == IPC_EAGAIN && in.at != receiver->in.at)
		r = pass_void(receiver, &in);
	if (r == IPC_EAGAIN && receiver->is_inside && sender_end < 0 &&
	    !has_living_sender(receiver))
		r = 0;
	if (receiver->inbox.collapses &&
	    (r == IPC_EBADMSG || (r == IPC_EAGAIN && is_at_gap(receiver, in.at))))
		r = 0;
	return inbox_receiver_leave(receiver, r);
}
