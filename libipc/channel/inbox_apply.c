/* SPDX-License-Identifier: MIT */
#include "libipc/channel/inbox.h"

#include <string.h>

#include "libipc/platform/crash.h"

/*
 * What the receiver has applied, or does not need, is room again; what it lacks it asks for.
 */

/* ---- turns ---- */

int inbox_receiver_enter(struct inbox_receiver *receiver)
{
	int r;

	turn_take(&receiver->turn);
	receiver->tail_before = receiver->in.tail;
	r = header_fault(receiver->inbox.header);
	if (r == 0 && UNLIKELY(!ring_consumer_is(&receiver->in)))
		r = IPC_ESTALE;
	if (r < 0)
		turn_give(&receiver->turn);

	return r;
}

int inbox_receiver_leave(struct inbox_receiver *receiver, int r)
{
	bool has_released = receiver->in.tail != receiver->tail_before;

	turn_give(&receiver->turn);
	if (has_released)
		inbox_notify(&receiver->inbox, INBOX_SIDE_SENDER);
	return inbox_result(&receiver->inbox, r);
}

/* ---- room ---- */

bool inbox_holds_nothing(const struct inbox_receiver *receiver, uint64_t position)
{
	uint64_t tail = ring_position(receiver->in.tail);
	uint64_t handed = ring_distance(tail, receiver->handed);

	return handed <= ring_distance(tail, position) ||
	       handed > ring_distance(tail, receiver->in.at);
}

/* What was lost is about to be room, and was not applied: a number behind it says too much. */
static int pass_lost(struct inbox_receiver *receiver, uint64_t position, unsigned *state)
{
	struct inbox_shared *shared = receiver->inbox.shared;
	const struct inbox_writer writer = {&shared->ring.tail, ring_tag(receiver->in.tail)};
	uint64_t tail = ring_position(receiver->in.tail);

	if (LIKELY(!receiver->has_lost) ||
	    ring_distance(tail, position) < ring_distance(tail, receiver->lost_at))
		return 0;

	receiver->has_lost = false;
	if (*state & INBOX_GAPPED)
		return 0;

	*state |= INBOX_GAPPED;
	return inbox_store(&shared->gap_applied, writer, receiver->lost_offset);
}

int inbox_let_go(struct inbox_receiver *receiver, uint64_t position, unsigned state)
{
	struct ring_consumer *in = &receiver->in;
	int r;

	/* Holes behind the mark were seen, but may be given up. */
	if (UNLIKELY(receiver->inbox.collapses))
		in->at = in->head = ring_position(receiver->marked);

	if (inbox_holds_nothing(receiver, position)) {
		position = in->at;
		state &= ~INBOX_INSIDE;
		state |= receiver->is_inside ? INBOX_INSIDE : 0;
	}

	r = pass_lost(receiver, position, &state);
	return r < 0 ? r : ring_release(in, position, state);
}

/* ---- applying ---- */

/* The newest END in front of `position` counts from it on; those before are forgotten. */
static int apply_ends(struct inbox_receiver *receiver, struct inbox_writer writer,
		      uint64_t position)
{
	uint64_t tail = ring_position(receiver->in.tail), distance = ring_distance(tail, position);
	unsigned n = 0;
	int r;

	while (n < receiver->n_ends && ring_distance(tail, receiver->ends[n].position) <= distance)
		++n;
	if (n == 0)
		return 0;

	r = inbox_end_write(receiver->inbox.shared->applied, writer, &receiver->now,
			    receiver->ends[n - 1].position, receiver->ends[n - 1].generation, 0);
	if (r < 0)
		return r;

	/* What was lost before it was replaced by it. */
	if (ring_distance(tail, receiver->ends[n - 1].position) >
	    ring_distance(tail, receiver->lost_at))
		receiver->has_lost = false;

	receiver->n_ends -= n;
	memmove(receiver->ends, receiver->ends + n, receiver->n_ends * sizeof(*receiver->ends));
	return 1;
}

static int mark_applied(struct inbox_receiver *receiver, const struct ipc_inbox_event *event)
{
	struct inbox_shared *shared = receiver->inbox.shared;
	const struct inbox_writer writer = {&shared->ring.tail, ring_tag(receiver->in.tail)};
	uint64_t token = event->token;
	struct ring_consumer *in = &receiver->in;
	uint64_t tail = ring_position(in->tail), position = ring_position(token);
	unsigned state = ring_state(token) & INBOX_INSIDE;
	int r;

	if (ring_tag(token) != receiver->number)
		return IPC_ESTALE;

	/* Not held any more. */
	if (position == tail || ring_distance(tail, position) > ring_distance(tail, in->at))
		return 0;

	r = apply_ends(receiver, writer, position);
	if (r < 0)
		return r;
	if (r == 0) {
		state |= ring_state(in->tail) & INBOX_GAPPED;
		inbox_end_renew(shared->applied, writer, &receiver->now, tail);
	}
	if (event->type == IPC_INBOX_BEGIN || event->type == IPC_INBOX_CHUNK)
		atomic_store_explicit(&shared->begun, event->generation, memory_order_relaxed);
	CRASH_POINT();
	return inbox_let_go(receiver, position, state);
}

int inbox_mark_applied(struct inbox_receiver *receiver, const struct ipc_inbox_event *event)
{
	int r;

	r = inbox_receiver_enter(receiver);
	if (r < 0)
		return r;

	return inbox_receiver_leave(receiver, mark_applied(receiver, event));
}

/* ---- requests ---- */

int inbox_request_snapshot(struct inbox_receiver *receiver)
{
	int r;

	r = inbox_receiver_enter(receiver);
	if (r < 0)
		return r;

	if (receiver->is_inside || inbox_begin_is_coming(&receiver->in))
		return inbox_receiver_leave(receiver, 1);

	inbox_want(&receiver->inbox);
	return inbox_receiver_leave(receiver, 0);
}
