/* SPDX-License-Identifier: MIT */
#include "libipc/channel/session.h"

#include <string.h>

#include <ipc/admin.h>

#include "libipc/channel/session_inside.h"
#include "libipc/platform/crash.h"

/* ---- layout ---- */

static uint64_t round_up(uint64_t n)
{
	return (n + 63) & ~UINT64_C(63);
}

bool session_layout(struct session_layout *ret, const uint64_t shape[4])
{
	uint64_t data_size = ring_data_size(shape[0], shape[1]);

	if (data_size == 0)
		return false;

	/* Neither is more than twice the largest capacity. */
	ret->data[0] = round_up(SESSION_SHARED_OFFSET + sizeof(struct session_shared));
	ret->data[1] = ret->data[0] + round_up(data_size);
	ret->size = ret->data[1] + round_up(data_size);
	return true;
}

uint64_t session_segment_size(const uint64_t shape[4])
{
	struct session_layout layout;

	return session_layout(&layout, shape) ? layout.size : 0;
}

static struct session_shared *shared_of(struct channel_header *header)
{
	return (struct session_shared *)(void *)((unsigned char *)header + SESSION_SHARED_OFFSET);
}

int session_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	struct session_shared *shared = shared_of(segment);
	struct session_layout layout;

	(void)flags;
	if (!session_layout(&layout, shape) || layout.size > size)
		return IPC_EINVAL;

	header_init(segment, IPC_KIND_SESSION, size, shape);
	memset(shared, 0, sizeof(*shared));
	for (unsigned s = 0; s < 2; ++s)
		ring_init(&shared->ring[s], (unsigned char *)segment + layout.data[s], 1);

	return 0;
}

uint64_t listener_segment_size(void)
{
	return sizeof(struct channel_header);
}

int listener_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	(void)flags;
	if (session_segment_size(shape) == 0 || listener_segment_size() > size)
		return IPC_EINVAL;

	header_init(segment, IPC_KIND_SESSION, size, shape);
	return 0;
}

/* ---- attaching ---- */

int session_attach(struct session *session, struct channel_header *header, uint64_t size,
		   const uint64_t shape[4], unsigned side)
{
	struct session_layout layout;
	unsigned char *segment = (unsigned char *)header;
	int r;

	if (size < SESSION_SHARED_OFFSET + sizeof(struct session_shared))
		return IPC_EBADMSG;

	r = header_check(header, IPC_KIND_SESSION, size, shape);
	if (r < 0)
		return r;
	if (!session_layout(&layout, shape) || layout.size > size)
		return IPC_EBADMSG;

	memset(session, 0, sizeof(*session));
	session->header = header;
	session->shared = shared_of(header);
	session->side = side;
	session->message_size_max = shape[1];
	session->pair_fd = -1;

	r = ring_attach(&session->out.view, &session->shared->ring[side],
			segment + layout.data[side], shape[0], shape[1]);
	if (r == 0)
		r = ring_attach(&session->in.view, &session->shared->ring[!side],
				segment + layout.data[!side], shape[0], shape[1]);
	if (r < 0) {
		memset(session, 0, sizeof(*session));
		return IPC_EBADMSG;
	}

	turn_init(&session->send_turn);
	turn_init(&session->receive_turn);
	return 0;
}

/* ---- faults ---- */

static bool is_owner(const _Atomic uint64_t *owner, uint64_t me)
{
	return me == 0 || atomic_load_explicit(owner, memory_order_relaxed) == me;
}

int session_blame(const struct session *session)
{
	/* What looked broken was written after the owner's word, if it was another's. */
	atomic_thread_fence(memory_order_acquire);
	if (!is_owner(&session->out.view.ring->producer, session->out.owner) ||
	    !is_owner(&session->in.view.ring->consumer, session->in.owner))
		return IPC_ESTALE;

	return header_break(session->header, HEADER_CORRUPT);
}

/* ---- notes ---- */

/* What stands at the head of a ring, in state NOTED.  False: nothing does, or it moved: then who
 * noted it has done it. */
static bool note_load(const struct ring_view *view, uint64_t *ret_what)
{
	/* [R4] of core/ring.c: the note is visible. */
	uint64_t head = atomic_load_explicit(&view->ring->head, memory_order_acquire);
	uint64_t what;

	if (!(ring_state(head) & SESSION_NOTED))
		return false;

	what = atomic_load_explicit(&ring_at(view, ring_position(head))->what,
				    memory_order_relaxed);

	/* It is what stood there before the head moved on.  Pairs with [R4]. */
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&view->ring->head, memory_order_relaxed) != head)
		return false;

	*ret_what = what;
	return true;
}

bool session_settle(struct session *session)
{
	_Atomic uint64_t *word = &session->out.view.ring->tail;
	uint64_t what, tail, position;

	/* In this order: a note that was followed in between is before the tail. */
	if (!note_load(&session->in.view, &what))
		return false;

	tail = atomic_load_explicit(word, memory_order_acquire);
	if (!session_note_is_due(what, tail, session->out.head, &position))
		return false;

	return atomic_compare_exchange_strong_explicit(
		word, &tail, ring_word(ring_tag(tail), ring_state(tail) ^ SESSION_PARITY, position),
		memory_order_acq_rel, memory_order_relaxed);
}

/* ---- beginning ---- */

int session_follow(struct session *session, uint64_t position)
{
	struct ring_consumer *in = &session->in;
	uint64_t tail;
	int r;

	r = ring_release(in, position, ring_state(in->tail) ^ SESSION_PARITY);
	if (LIKELY(r == 0))
		return 0;

	tail = atomic_load_explicit(&in->view.ring->tail, memory_order_relaxed);
	if (ring_tag(tail) != ring_tag(in->tail))
		return IPC_ESTALE;
	if (ring_position(tail) != position || session_parity(tail) == session_parity(in->tail))
		return IPC_EBADMSG;

	in->tail = tail;
	return 0;
}

/* What who had this end before has promised. */
static int finish_release(struct session *session)
{
	struct ring_consumer *in = &session->in;
	uint64_t what, position;
	int r;

	if (!note_load(&session->out.view, &what))
		return 0;

	r = ring_probe(in);
	if (r < 0)
		return r == IPC_EAGAIN ? 0 : r;
	if (!session_note_is_due(what, in->tail, in->head, &position))
		return 0;

	in->at = position;
	return session_follow(session, position);
}

int session_begin(struct session *session, uint64_t handle_id, uint32_t process)
{
	int r;

	r = header_fault(session->header);
	if (r < 0)
		return r;

	/* The producer's end first: it may be refused, and what he has committed before is known
	 * then, with its note. */
	r = ring_take_producer(&session->out, session->table, handle_id, process);
	CRASH_POINT();
	if (r == 0 && session_head_is_closed(session->out.head))
		r = IPC_ESTALE;
	if (r == 0)
		r = ring_take_consumer(&session->in, session->table, handle_id, process);
	CRASH_POINT();
	if (r == 0)
		r = finish_release(session);
	if (r < 0)
		return session_result(session, r);

	CRASH_POINT();
	session->received = ring_number_at(&session->in.view, ring_position(session->in.tail)) - 1;
	session->released = session->received;
	atomic_fetch_add_explicit(&session->shared->resumes, 1, memory_order_relaxed);

	/* There may be room now. */
	session_notify(session, false);
	return 0;
}

void session_leave(struct session *session)
{
	ring_leave_producer(&session->out);
	ring_leave_consumer(&session->in);
	turn_deinit(&session->send_turn);
	turn_deinit(&session->receive_turn);
}

/* ---- accepting ---- */

bool session_take(struct channel_header *header, enum session_taken taken)
{
	uint32_t seen = SESSION_OFFERED;

	/* Who finds it accepted finds what was done before. */
	return atomic_compare_exchange_strong_explicit(&shared_of(header)->is_taken, &seen,
						       (uint32_t)taken, memory_order_acq_rel,
						       memory_order_relaxed);
}

enum session_taken session_is_taken(const struct channel_header *header)
{
	const unsigned char *segment = (const unsigned char *)header;
	const struct session_shared *shared =
		(const struct session_shared *)(const void *)(segment + SESSION_SHARED_OFFSET);

	switch (atomic_load_explicit(&shared->is_taken, memory_order_acquire)) {
	case SESSION_OFFERED:
		return SESSION_OFFERED;
	case SESSION_ACCEPTED:
		return SESSION_ACCEPTED;
	default:
		return SESSION_ABANDONED;
	}
}

/* ---- state ---- */

/* It is the turn of the senders. */
static int find_acknowledged(struct session *session, uint64_t sent, uint64_t *ret)
{
	const struct ring_producer *out = &session->out;
	uint64_t tail, number;

	(void)session_settle(session);

	/* What stands between tail and head nobody writes but the producer. */
	tail = ring_position(atomic_load_explicit(&out->view.ring->tail, memory_order_acquire));
	number = ring_number_at(&out->view, tail);
	if (!ring_producer_is(out))
		return IPC_ESTALE;
	if (sent - (number - 1) > out->view.capacity)
		return IPC_EBADMSG;

	*ret = number - 1;
	return 0;
}

int session_get_state(struct session *session, struct ipc_session_state *ret)
{
	uint64_t sent, acknowledged = 0;
	int r;

	r = header_fault(session->header);
	if (r < 0)
		return r;

	turn_take(&session->send_turn);
	sent = session->out.number - 1;
	r = find_acknowledged(session, sent, &acknowledged);
	turn_give(&session->send_turn);
	if (r < 0)
		return session_result(session, r);

	turn_take(&session->receive_turn);
	*ret = (struct ipc_session_state){
		.size = ret->size,
		.sent = sent,
		.acknowledged = acknowledged,
		.received = session->received,
		.released = session->released,
		.generation = atomic_load_explicit(&session->shared->resumes, memory_order_relaxed),
	};
	turn_give(&session->receive_turn);
	return 0;
}
