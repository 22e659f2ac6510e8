/* SPDX-License-Identifier: MIT */
#include "libipc/channel/inbox.h"

#include "libipc/platform/crash.h"

/*
 * Giving the backlog up; inbox.h tells how.  What a sender does late that was
 * taken over in the middle of it: it may ask for a snapshot that nobody needs, and mark a place as
 * given up where nothing was, which the receiver finds out.
 */

/* So often somebody else changed the word where the receiver stands. */
#define TRIES_MAX 100

#define COLLAPSE_ARMED 1u

/* ---- sender ---- */

static bool exchange(_Atomic uint64_t *word, uint64_t seen, uint64_t value)
{
	return atomic_compare_exchange_strong_explicit(word, &seen, value, memory_order_seq_cst,
						       memory_order_relaxed);
}

/*
 * Up to where has the receiver come?  It does not go on from there: it finds the word changed.
 * IPC_EAGAIN: a receiver is just coming, or died when it was.
 */
static int collapse_decide(struct inbox_sender *sender, uint64_t *armed, uint64_t *ret_position)
{
	struct inbox_shared *shared = sender->inbox.shared;
	struct ring *ring = &shared->ring;
	uint64_t tag = ring_tag(sender->out.head);

	for (int i = 0; i < TRIES_MAX; ++i) {
		uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_seq_cst);
		_Atomic uint64_t *received = &ring->received[ring_tag(tail) & 1];
		uint64_t seen = atomic_load_explicit(received, memory_order_seq_cst);
		uint64_t position = ring_position(seen), word, flipped;

		if (ring_tag(seen) != ring_tag(tail) || ring_state(seen) & INBOX_CLOSED)
			continue;
		if (ring_distance(ring_position(tail), position) >
		    ring_distance(ring_position(tail), ring_position(sender->out.head)))
			return ring_producer_is(&sender->out) ? IPC_EBADMSG : IPC_ESTALE;

		word = ring_word(tag, COLLAPSE_ARMED, position);
		if (!ring_producer_is(&sender->out) || !exchange(&shared->collapse, *armed, word))
			return IPC_ESTALE;

		*armed = word;
		CRASH_POINT();

		flipped = (ring_state(seen) ^ INBOX_TURNED) & INBOX_TURNED;
		if (exchange(received, seen,
			     ring_word(ring_tag(seen), INBOX_COLLAPSED | flipped, position))) {
			*ret_position = position;
			return 0;
		}
	}

	return IPC_EAGAIN;
}

/* What the last END said stays, also where that lies behind the new end of the stream. */
static int keep_generation(struct inbox_sender *sender, uint64_t position)
{
	struct inbox_shared *shared = sender->inbox.shared;
	const struct inbox_writer writer = {&shared->ring.head, ring_tag(sender->out.head)};

	if (sender->now.generation == 0)
		return 0;

	return inbox_end_write(shared->sent, writer, &sender->now, position, sender->now.generation,
			       sender->now.answers);
}

int inbox_collapse(struct inbox_sender *sender)
{
	struct inbox_shared *shared = sender->inbox.shared;
	uint64_t gap = atomic_load_explicit(&shared->gap_written, memory_order_acquire);
	uint64_t armed = atomic_load_explicit(&shared->collapse, memory_order_acquire);
	uint64_t position = 0;
	int r;

	/* Of no meaning until the bit is set, and the same as before if it is. */
	if (!ring_producer_is(&sender->out) ||
	    !exchange(&shared->gap_written, gap,
		      inbox_written(&sender->inbox, sender->out.head, sender->out.number)))
		return IPC_ESTALE;

	r = collapse_decide(sender, &armed, &position);
	CRASH_POINT();
	if (r == 0) {
		(void)atomic_fetch_add_explicit(&shared->wanted, 1, memory_order_seq_cst);
		CRASH_POINT();
		r = keep_generation(sender, position);
	}
	if (r == 0) {
		r = ring_rewind(&sender->out, position, INBOX_GAPPED);
		CRASH_POINT();
	}
	if (r != IPC_ESTALE)
		(void)exchange(&shared->collapse, armed, 0);
	if (r < 0)
		return r;

	sender->is_void = sender->is_inside;
	inbox_notify(&sender->inbox, INBOX_SIDE_RECEIVER);
	inbox_notify(&sender->inbox, INBOX_SIDE_SENDER);
	return IPC_EOVERFLOW;
}

int inbox_collapse_cancel(struct inbox_sender *sender)
{
	struct inbox_shared *shared = sender->inbox.shared;
	uint64_t armed = atomic_load_explicit(&shared->collapse, memory_order_acquire);

	if (LIKELY(armed == 0))
		return 0;
	if (!ring_producer_is(&sender->out) || !exchange(&shared->collapse, armed, 0))
		return IPC_ESTALE;

	inbox_notify(&sender->inbox, INBOX_SIDE_RECEIVER);
	return 0;
}

/* ---- receiver ---- */

bool inbox_is_held_up(const struct inbox_receiver *receiver)
{
	const struct inbox_shared *shared = receiver->inbox.shared;
	uint64_t armed = atomic_load_explicit(&shared->collapse, memory_order_seq_cst);
	uint64_t head = atomic_load_explicit(&shared->ring.head, memory_order_relaxed);

	return UNLIKELY(armed != 0) && ring_tag(armed) == ring_tag(head) &&
	       ring_position(armed) == receiver->in.at;
}

bool inbox_was_given_up(const struct inbox_receiver *receiver)
{
	const struct ring *ring = &receiver->inbox.shared->ring;

	for (int i = 0; i < TRIES_MAX; ++i) {
		uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
		struct ring_consumer in = receiver->in;
		struct ring_received record;
		int r = ring_peek_ahead(&in, &record);

		if (r == 0)
			return record.type == INBOX_BEGIN && (record.flags & INBOX_GAPPED);
		if (r != IPC_EAGAIN)
			return false;
		if (ring_position(head) == in.at)
			return (ring_state(head) & (INBOX_GAPPED | INBOX_INSIDE)) == INBOX_GAPPED;
	}

	return false;
}
