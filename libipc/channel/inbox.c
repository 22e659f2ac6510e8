/* SPDX-License-Identifier: MIT */
#include "libipc/channel/inbox.h"

#include <ipc/admin.h>
#include <string.h>

#include "libipc/platform/crash.h"

#define HALF (UINT64_C(1) << (RING_POSITION_BITS - 1))

/* Of a word that others keep changing, which only broken ones do. */
#define TRIES_MAX 1000

/* ---- layout ---- */

static uint64_t data_offset(void)
{
	return INBOX_SHARED_OFFSET + sizeof(struct inbox_shared);
}

/* Records of the inbox's own have some bytes, however small the frames are. */
static uint64_t record_max(uint64_t frame_size_max)
{
	return frame_size_max < sizeof(struct inbox_chunk_fd) ? sizeof(struct inbox_chunk_fd)
							      : frame_size_max;
}

uint64_t inbox_segment_size(const uint64_t shape[4])
{
	uint64_t data = ring_data_size(shape[0], record_max(shape[1]));

	if (data == 0 || shape[1] == 0 || shape[2] > IPC_INBOX_FULL_COLLAPSE || shape[3] != 0)
		return 0;

	return data_offset() + data;
}

int inbox_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags)
{
	struct inbox_shared *shared =
		(struct inbox_shared *)((char *)segment + INBOX_SHARED_OFFSET);

	(void)flags;
	if (inbox_segment_size(shape) == 0 || inbox_segment_size(shape) > size)
		return IPC_EBADMSG;

	memset(shared, 0, sizeof(*shared));
	ring_init(&shared->ring, (char *)segment + data_offset(), 0);
	header_init(segment, IPC_KIND_INBOX, size, shape);
	return 0;
}

int inbox_attach(struct inbox *inbox, struct channel_header *header, uint64_t size,
		 const uint64_t shape[4])
{
	uint64_t needed = inbox_segment_size(shape);

	if (needed == 0 || needed > size)
		return IPC_EBADMSG;

	*inbox = (struct inbox){
		.header = header,
		.shared = (struct inbox_shared *)((char *)header + INBOX_SHARED_OFFSET),
		.frame_size_max = shape[1],
		.collapses = shape[2] == IPC_INBOX_FULL_COLLAPSE,
		.pair_fd = -1,
	};

	return ring_attach(&inbox->view, &inbox->shared->ring, (char *)header + data_offset(),
			   shape[0], record_max(shape[1])) < 0
		       ? IPC_EBADMSG
		       : 0;
}

int inbox_result(const struct inbox *inbox, int r)
{
	return UNLIKELY(r == IPC_EBADMSG) ? header_break(inbox->header, HEADER_CORRUPT) : r;
}

/* ---- ENDs ---- */

static struct inbox_now end_read(const struct inbox_end *end, unsigned slot)
{
	/* [I1] What belongs to the generation is seen with it.  Pairs with [I2]. */
	uint64_t generation = atomic_load_explicit(&end->generation, memory_order_acquire);

	return (struct inbox_now){
		.slot = slot,
		.position =
			ring_position(atomic_load_explicit(&end->position, memory_order_relaxed)),
		.generation = generation & INBOX_GENERATION_MAX,
		.answers = atomic_load_explicit(&end->answers, memory_order_relaxed),
	};
}

struct inbox_now inbox_now(const struct inbox_end ends[2], uint64_t position)
{
	struct inbox_now a = end_read(&ends[0], 0), b = end_read(&ends[1], 1);
	uint64_t age_a = ring_distance(a.position, position);
	uint64_t age_b = ring_distance(b.position, position);

	/* Of one that does not count yet the age is that of a whole lap of positions. */
	if (a.generation == 0)
		return b.generation == 0 || age_b >= HALF ? a : b;
	if (b.generation == 0)
		return age_a < HALF ? a : b;
	return age_b < age_a ? b : a;
}

static uint64_t generation_of(uint64_t tag, uint64_t generation)
{
	return tag << 53 | generation;
}

static bool end_exchange(_Atomic uint64_t *word, uint64_t seen, uint64_t value)
{
	/* [I2] Pairs with [I1]. */
	return atomic_compare_exchange_strong_explicit(word, &seen, value, memory_order_acq_rel,
						       memory_order_relaxed);
}

static bool is_mine(struct inbox_writer writer)
{
	return ring_tag(atomic_load_explicit(writer.word, memory_order_acquire)) == writer.tag;
}

int inbox_end_write(struct inbox_end ends[2], struct inbox_writer writer, struct inbox_now *now,
		    uint64_t position, uint64_t generation, uint64_t answers)
{
	struct inbox_end *end = &ends[!now->slot];
	uint64_t none = generation_of(writer.tag, 0);
	uint64_t seen_generation = atomic_load_explicit(&end->generation, memory_order_acquire);
	uint64_t seen_position = atomic_load_explicit(&end->position, memory_order_acquire);
	uint64_t seen_answers = atomic_load_explicit(&end->answers, memory_order_acquire);

	/* Whoever takes the end after this look changes the first two.  Not one that counts,
	 * whoever reads half of it. */
	if (!is_mine(writer) || !end_exchange(&end->generation, seen_generation, none) ||
	    !end_exchange(&end->position, seen_position, ring_word(writer.tag, 0, position)) ||
	    !end_exchange(&end->answers, seen_answers, answers))
		return IPC_ESTALE;

	CRASH_POINT();
	if (!end_exchange(&end->generation, none, generation_of(writer.tag, generation)))
		return IPC_ESTALE;

	CRASH_POINT();
	*now = (struct inbox_now){!now->slot, ring_position(position), generation, answers};
	return 0;
}

int inbox_store(_Atomic uint64_t *word, struct inbox_writer writer, uint64_t value)
{
	uint64_t seen = atomic_load_explicit(word, memory_order_acquire);

	for (int i = 0; i < TRIES_MAX && is_mine(writer); ++i) {
		if (end_exchange(word, seen, value))
			return 0;
		seen = atomic_load_explicit(word, memory_order_acquire);
	}

	return IPC_ESTALE;
}

/* The generation first: an entry that is none stays one. */
static void end_clear(struct inbox_end *end, struct inbox_writer writer)
{
	(void)!inbox_store(&end->generation, writer, generation_of(writer.tag, 0));
	(void)!inbox_store(&end->position, writer, ring_word(writer.tag, 0, 0));
}

struct inbox_now inbox_end_take(struct inbox_end ends[2], struct inbox_writer writer,
				uint64_t position)
{
	struct inbox_now now = inbox_now(ends, position);
	bool is_none = ring_distance(now.position, position) >= HALF;

	for (unsigned i = 0; i < 2; ++i) {
		if (i != now.slot || is_none)
			end_clear(&ends[i], writer);
	}
	if (is_none)
		now.generation = 0;
	return now;
}

void inbox_end_renew(struct inbox_end ends[2], struct inbox_writer writer, struct inbox_now *now,
		     uint64_t position)
{
	if (UNLIKELY(now->generation != 0 && ring_distance(now->position, position) > HALF / 2))
		(void)!inbox_end_write(ends, writer, now, position, now->generation, now->answers);
}

uint64_t inbox_written(const struct inbox *inbox, uint64_t head, uint64_t number)
{
	return ring_state(head) & INBOX_GAPPED
		       ? atomic_load_explicit(&inbox->shared->gap_written, memory_order_relaxed)
		       : number;
}

uint64_t inbox_applied(const struct inbox *inbox, uint64_t tail, uint64_t number)
{
	return ring_state(tail) & INBOX_GAPPED
		       ? atomic_load_explicit(&inbox->shared->gap_applied, memory_order_relaxed)
		       : number;
}

void inbox_want(const struct inbox *inbox)
{
	(void)atomic_fetch_add_explicit(&inbox->shared->wanted, 1, memory_order_seq_cst);
	CRASH_POINT();
	inbox_notify(inbox, INBOX_SIDE_SENDER);
}

/* ---- positions ---- */

#define LOOKS_MAX 1000

struct look {
	uint64_t head, tail;       /* words */
	uint64_t number;           /* at head */
	uint64_t written, applied; /* offsets */
	struct inbox_now sent, done;
};

/* Each of the two ends is taken as of one moment, the tail before the head. */
static int inbox_look(const struct inbox *inbox, struct look *ret)
{
	const struct inbox_shared *shared = inbox->shared;
	uint64_t number;
	int r = IPC_EAGAIN;

	for (int i = 0; i < LOOKS_MAX && r == IPC_EAGAIN; ++i) {
		r = ring_look(&inbox->view, &shared->ring.tail, &ret->tail, &number);
		if (r < 0)
			return r;
		ret->applied = inbox_applied(inbox, ret->tail, number);
		ret->done = inbox_now(shared->applied, ring_position(ret->tail));
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&shared->ring.tail, memory_order_relaxed) != ret->tail)
			r = IPC_EAGAIN;
	}
	if (r < 0)
		return r;

	for (int i = 0; i < LOOKS_MAX; ++i) {
		r = ring_look(&inbox->view, &shared->ring.head, &ret->head, &number);
		if (r < 0)
			return r;
		ret->number = number;
		ret->written = inbox_written(inbox, ret->head, number);
		ret->sent = inbox_now(shared->sent, ring_position(ret->head));
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&shared->ring.head, memory_order_relaxed) == ret->head)
			return 0;
	}

	return IPC_EAGAIN;
}

/* The offset that counts where the receiver is; `applied` if that cannot be told. */
static uint64_t find_received(const struct inbox *inbox, const struct look *look)
{
	const struct ring *ring = &inbox->shared->ring;
	uint64_t word = atomic_load_explicit(&ring->received[ring_tag(look->tail) & 1],
					     memory_order_acquire);
	uint64_t tail = ring_position(look->tail), number;

	if (ring_tag(word) != ring_tag(look->tail) || ring_position(word) == tail ||
	    ring_distance(tail, ring_position(word)) >
		    ring_distance(tail, ring_position(look->head)))
		return look->applied;

	/* Numbers behind a snapshot that was lost say nothing before there is another one. */
	if (ring_state(look->tail) & INBOX_GAPPED) {
		uint64_t end =
			atomic_load_explicit(&inbox->shared->end_received, memory_order_relaxed);

		if (ring_tag(end) != ring_tag(word) || ring_state(end) != INBOX_RECEIVED_ONE ||
		    ring_distance(tail, ring_position(end)) >
			    ring_distance(tail, ring_position(word)))
			return look->applied;
	}

	/* The place is good as long as the tail has not passed it. */
	if (ring_position(word) == ring_position(look->head))
		return look->number;
	number = ring_number_at(&inbox->view, ring_position(word));
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&ring->tail, memory_order_relaxed) == look->tail
		       ? number
		       : look->applied;
}

int inbox_get_positions(const struct inbox *inbox, struct ipc_inbox_positions *ret)
{
	struct look look;
	int r;

	r = header_fault(inbox->header);
	if (r == 0)
		r = inbox_look(inbox, &look);
	if (r < 0)
		return r;

	ret->written = look.written;
	ret->received = find_received(inbox, &look);
	ret->applied = look.applied;
	ret->generation = look.sent.generation;
	ret->applied_generation = look.done.generation;
	ret->snapshot_wanted = atomic_load_explicit(&inbox->shared->wanted, memory_order_relaxed);
	ret->depth = ring_depth(&inbox->view);
	ret->depth_max = RING_UNIT *
			 atomic_load_explicit(&inbox->shared->ring.depth_max, memory_order_relaxed);
	if (ret->depth_max < ret->depth)
		ret->depth_max = ret->depth;
	return 0;
}

int inbox_probe_applied(const struct inbox *inbox, uint64_t generation, uint64_t offset)
{
	struct look look;
	int r;

	r = header_fault(inbox->header);
	if (r == 0)
		r = inbox_look(inbox, &look);
	if (r < 0)
		return r;

	if (generation != 0 && look.sent.generation != generation)
		return IPC_ESTALE;
	if (look.sent.generation == 0 || look.done.generation != look.sent.generation)
		return IPC_EAGAIN;

	return look.applied >= offset ? 0 : IPC_EAGAIN;
}
