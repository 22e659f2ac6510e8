/* SPDX-License-Identifier: MIT */
#include "libipc/channel/inbox.h"

#include <stdlib.h>
#include <string.h>

#include "libipc/platform/crash.h"

/*
 * Who begins on the receiver's end, after whomever.
 *
 * A new receiver begins at the tail: what was received and not applied comes again.  Not so where
 * a snapshot was received whose END is not applied: its bytes may be applied in part, and gone with
 * the process.  Then everything up to the next BEGIN is void: `applied` is written down
 * (gap_applied), the tail moves behind it, with INBOX_GAPPED and INBOX_SKIPS, and a snapshot is
 * asked for.  A receiver that dies between the two leaves INBOX_SKIPS, and the next one asks.
 *
 * What the one before had received is marked as received by this one first, and so cannot be given
 * up by the sender under its eyes; that mark goes back to the tail last.
 */

bool inbox_begin_is_coming(const struct ring_consumer *from)
{
	struct ring_consumer in = *from;
	struct ring_received record;
	bool is_coming = false;

	while (ring_peek_ahead(&in, &record) == 0) {
		if (record.type == INBOX_BEGIN)
			is_coming = true;
		else if (record.type == INBOX_ABORT)
			is_coming = false;
		in.at = record.after;
	}

	return is_coming;
}

static uint64_t begin_generation(const struct ring_received *record)
{
	struct inbox_begin begin = {0};

	if (record->size >= sizeof(begin))
		memcpy(&begin, record->bytes, sizeof(begin));
	return begin.generation;
}

/* Whether a snapshot was received that is neither aborted nor applied. */
static bool has_lost_snapshot(struct inbox_receiver *receiver)
{
	struct ring_consumer in = receiver->in;
	bool is_inside = ring_state(in.tail) & INBOX_INSIDE, has_end = false;
	uint64_t left = ring_distance(in.at, in.received_before);
	struct ring_received record;

	if (is_inside)
		receiver->generation =
			atomic_load_explicit(&receiver->inbox.shared->begun, memory_order_relaxed) &
			INBOX_GENERATION_MAX;

	while (ring_peek_ahead(&in, &record) == 0 &&
	       ring_distance(ring_position(in.tail), record.after) <= left) {
		if (record.type == INBOX_BEGIN) {
			is_inside = true;
			receiver->generation = begin_generation(&record);
		} else if (record.type == INBOX_END) {
			has_end = true;
		} else if (record.type == INBOX_ABORT) {
			is_inside = false;
		}
		in.at = record.after;
	}

	if (has_end || (is_inside && !(in.received_state & INBOX_ABORTED)) ||
	    ring_state(in.tail) & (INBOX_SKIPS | INBOX_GAPPED))
		return true;

	receiver->generation = receiver->now.generation;
	return false;
}

/* Up to the next BEGIN, if one is there. */
static int give_up_snapshot(struct inbox_receiver *receiver, struct inbox_writer writer)
{
	struct ring_consumer *in = &receiver->in;
	struct ring_received record;
	bool is_coming;
	int r = 0;

	if (!(ring_state(in->tail) & INBOX_GAPPED))
		r = inbox_store(&receiver->inbox.shared->gap_applied, writer,
				ring_number_at(&in->view, ring_position(in->tail)));
	if (r < 0)
		return r;
	CRASH_POINT();

	in->at = in->head = in->received_before;
	while (!inbox_is_held_up(receiver) && (r = ring_peek_ahead(in, &record)) == 0 &&
	       record.type != INBOX_BEGIN)
		in->at = record.after;

	/* What the sender gives up meanwhile is not passed over, nor seen whole. */
	if (!inbox_mark_received(receiver, in->at, 0))
		in->at = in->head = in->received_before;
	else if (r < 0 && r != IPC_EAGAIN)
		return r;

	is_coming = inbox_begin_is_coming(in);
	r = ring_release(in, in->at, INBOX_GAPPED | INBOX_SKIPS);
	if (r < 0)
		return r;

	CRASH_POINT();
	receiver->was_taken_over = receiver->skips = receiver->is_gapped = true;
	if (!is_coming)
		inbox_want(&receiver->inbox);
	else
		inbox_notify(&receiver->inbox, INBOX_SIDE_SENDER);
	return 0;
}

/* What this one, and those before it, had received counts for nobody any more. */
static void forget_marks(struct inbox_receiver *receiver)
{
	struct ring *ring = &receiver->inbox.shared->ring;
	uint64_t tag = ring_tag(receiver->in.tail), at = receiver->in.at;
	_Atomic uint64_t *other = &ring->received[(tag + 1) & 1];
	uint64_t seen = atomic_load_explicit(other, memory_order_acquire);

	if (ring_tag(seen) != ((tag + 1) & RING_TAG_MASK))
		(void)atomic_compare_exchange_strong_explicit(
			other, &seen, ring_word(ring_tag(seen), INBOX_CLOSED, at),
			memory_order_seq_cst, memory_order_relaxed);
	CRASH_POINT();
	(void)inbox_mark_received(receiver, at, 0);
}

int inbox_begin_receiver(struct inbox_receiver *receiver, uint64_t handle_id, uint32_t process)
{
	struct inbox_shared *shared = receiver->inbox.shared;
	struct ring_consumer *in = &receiver->in;
	struct inbox_writer writer;
	uint64_t tail;
	int r;

	turn_init(&receiver->turn);
	receiver->number = handle_id >> 16 & RING_TAG_MASK;
	*in = (struct ring_consumer){.view = receiver->inbox.view};
	r = ring_take_consumer(in, receiver->inbox.table, handle_id, process);
	if (r < 0)
		return inbox_result(&receiver->inbox, r);

	tail = ring_position(in->tail);
	writer = (struct inbox_writer){&shared->ring.tail, ring_tag(in->tail)};
	receiver->marked = ring_word(ring_tag(in->tail), 0, in->received_before);
	receiver->now = inbox_end_take(shared->applied, writer, tail);
	if (!ring_consumer_is(in))
		return IPC_ESTALE;
	receiver->generation = receiver->now.generation;
	receiver->handed = tail;
	atomic_store_explicit(&shared->end_received, ring_word(ring_tag(in->tail), 0, tail),
			      memory_order_relaxed);
	receiver->expected = ring_number_at(&in->view, tail);

	if (has_lost_snapshot(receiver))
		r = give_up_snapshot(receiver, writer);
	if (r == 0)
		forget_marks(receiver);

	return inbox_result(&receiver->inbox, r);
}

void inbox_leave_receiver(struct inbox_receiver *receiver)
{
	ring_leave_consumer(&receiver->in);
	free(receiver->ends);
	receiver->ends = NULL;
	turn_deinit(&receiver->turn);
}
