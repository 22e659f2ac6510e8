/* SPDX-License-Identifier: MIT */
#include "libipc/core/ring.h"

#include <string.h>

#include "libipc/core/ring_ban.h"

#define CAPACITY_MIN 4096

/* Of who looks while others move on. */
#define LOOKS_MAX 1000

/* ---- sizes ---- */

/* Units of a lap: a power of two, so that positions wrap anywhere. */
static uint64_t ring_lap(uint64_t capacity)
{
	uint64_t lap = CAPACITY_MIN / RING_UNIT;

	while (lap < ring_units(capacity))
		lap *= 2;
	return lap;
}

static bool sizes_are_legal(uint64_t capacity, uint64_t record_max)
{
	return capacity >= CAPACITY_MIN && capacity <= RING_CAPACITY_MAX && record_max >= 1 &&
	       record_max <= RING_RECORD_MAX && record_max <= capacity / 4;
}

uint64_t ring_data_size(uint64_t capacity, uint64_t record_max)
{
	if (!sizes_are_legal(capacity, record_max))
		return 0;

	/* The last record of a lap runs over its end, and the head of the next one. */
	return (ring_lap(capacity) + ring_units(record_max) + 2) * RING_UNIT;
}

/* ---- making ---- */

void ring_init(struct ring *ring, void *data, uint64_t number)
{
	struct ring_record *first = data;

	memset(ring, 0, sizeof(*ring));
	atomic_store_explicit(&first->what, RING_NOTHING, memory_order_relaxed);
	atomic_store_explicit(&first->number, number, memory_order_relaxed);
}

/* Whether head is behind tail by a lap at most: where both stand at one time, since they move. */
static bool ring_is_possible(const struct ring_view *view)
{
	uint64_t tail = atomic_load_explicit(&view->ring->tail, memory_order_acquire);

	for (int i = 0; i < LOOKS_MAX; ++i) {
		uint64_t head = atomic_load_explicit(&view->ring->head, memory_order_acquire);
		uint64_t again = atomic_load_explicit(&view->ring->tail, memory_order_acquire);

		if (ring_distance(ring_position(tail), ring_position(head)) <= view->mask + 1)
			return true;
		if (tail == again)
			return false;
		tail = again;
	}

	return false;
}

int ring_attach(struct ring_view *view, struct ring *ring, void *data, uint64_t capacity,
		uint64_t record_max)
{
	if (!sizes_are_legal(capacity, record_max))
		return IPC_EINVAL;

	*view = (struct ring_view){
		.ring = ring,
		.data = data,
		.mask = ring_lap(capacity) - 1,
		.capacity = ring_units(capacity),
		.units_max = 1 + ring_units(record_max),
	};

	/* All that is claimed may become a jump, and the next record's head stands behind that. */
	if (view->capacity > view->mask)
		view->capacity = view->mask;

	return ring_is_possible(view) ? 0 : IPC_EBADMSG;
}

/* ---- looking on ---- */

int ring_look(const struct ring_view *view, const _Atomic uint64_t *word, uint64_t *ret_word,
	      uint64_t *ret_number)
{
	for (int i = 0; i < LOOKS_MAX; ++i) {
		/* [R3] The head of the record there is visible.  Pairs with [R4], [R6]. */
		uint64_t seen = atomic_load_explicit(word, memory_order_acquire);
		uint64_t number = ring_number_at(view, ring_position(seen));

		/* What stands at a place that tail and head have left may be anything. */
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(word, memory_order_relaxed) == seen) {
			*ret_word = seen;
			*ret_number = number;
			return 0;
		}
	}

	return IPC_EAGAIN;
}

uint64_t ring_depth(const struct ring_view *view)
{
	/* In this order what is seen was never more than there was. */
	uint64_t head = atomic_load_explicit(&view->ring->head, memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&view->ring->tail, memory_order_acquire);
	uint64_t units = ring_distance(ring_position(tail), ring_position(head));

	return units <= view->mask + 1 ? units * RING_UNIT : 0;
}

/* ---- consumer ---- */

/* What is wrong here.  Where others receive now, what was tail and head may be anything. */
static int ring_broken(const struct ring_consumer *consumer)
{
	atomic_thread_fence(memory_order_acquire);
	return ring_consumer_is(consumer) ? IPC_EBADMSG : IPC_ESTALE;
}

int ring_probe(struct ring_consumer *consumer)
{
	uint64_t word, distance;

	if (consumer->at != consumer->head)
		return 0;

	/* [R5] The records up to there are visible.  Pairs with [R4]. */
	word = atomic_load_explicit(&consumer->view.ring->head, memory_order_acquire);
	distance = ring_distance(consumer->at, ring_position(word));
	if (distance == 0)
		return IPC_EAGAIN;
	if (UNLIKELY(distance > consumer->view.mask + 1))
		return ring_broken(consumer);

	consumer->head = ring_position(word);
	consumer->head_word = word;
	return 0;
}

/* One step: 1: a record; 0: past a hole or a jump; negative. */
static int ring_step(struct ring_consumer *consumer, struct ring_received *ret)
{
	const struct ring_view *view = &consumer->view;
	struct ring_record *record = ring_at(view, consumer->at);
	uint64_t what, units, left = ring_distance(consumer->at, consumer->head);
	bool is_hole;

	if (UNLIKELY(atomic_load_explicit(&view->ring->n_bans, memory_order_relaxed))) {
		uint64_t to = ring_jump(view, consumer->at);

		if (to != consumer->at) {
			if (ring_distance(consumer->at, to) > left)
				return ring_broken(consumer);
			consumer->at = to;
			return 0;
		}
	}

	what = atomic_load_explicit(&record->what, memory_order_relaxed);
	is_hole = ring_type_of(what) == RING_HOLE;
	units = is_hole ? ring_size_of(what) : 1 + ring_units(ring_size_of(what));
	if (UNLIKELY(units == 0 || units > left))
		return ring_broken(consumer);
	if (is_hole) {
		consumer->at = (consumer->at + units) & RING_POSITION_MASK;
		return 0;
	}
	if (UNLIKELY(units > view->units_max || ring_type_of(what) == RING_NOTHING))
		return ring_broken(consumer);

	*ret = (struct ring_received){
		.type = ring_type_of(what),
		.flags = ring_flags_of(what),
		.extra = ring_extra_of(what),
		.size = ring_size_of(what),
		.number = atomic_load_explicit(&record->number, memory_order_relaxed),
		.at = consumer->at,
		.after = (consumer->at + units) & RING_POSITION_MASK,
		.bytes = record->bytes,
	};
	return 1;
}

int ring_peek_ahead(struct ring_consumer *consumer, struct ring_received *ret)
{
	int r;

	/* A producer that publishes nothing but holes does not keep anybody here. */
	for (uint64_t i = 0; i <= consumer->view.mask; ++i) {
		r = ring_probe(consumer);
		if (r == 0)
			r = ring_step(consumer, ret);
		if (r != 0)
			return r < 0 ? r : 0;
	}

	return IPC_EAGAIN;
}

/* Past holes and jumps that follow: they are room, too. */
static uint64_t ring_skip_holes(const struct ring_consumer *consumer, uint64_t position)
{
	const struct ring_view *view = &consumer->view;
	uint32_t n_bans = atomic_load_explicit(&view->ring->n_bans, memory_order_relaxed);

	/* A record is as long as a unit, at least. */
	for (uint64_t i = 0; i <= view->mask && position != consumer->at; ++i) {
		uint64_t left = ring_distance(position, consumer->at), units = 0;

		if (UNLIKELY(n_bans > 0))
			units = ring_distance(position, ring_jump(view, position));
		if (units == 0) {
			uint64_t what = atomic_load_explicit(&ring_at(view, position)->what,
							     memory_order_relaxed);

			units = ring_type_of(what) == RING_HOLE ? ring_size_of(what) : 0;
		}
		if (units == 0 || units > left)
			break;
		position = (position + units) & RING_POSITION_MASK;
	}

	return position;
}

int ring_release(struct ring_consumer *consumer, uint64_t position, unsigned state)
{
	uint64_t seen = consumer->tail;
	uint64_t word = ring_word(ring_tag(seen), state, ring_skip_holes(consumer, position));

	/*
	 * [R6] The bytes were read before the producer writes over them.  Pairs with [R7].
	 * Sequentially consistent: the look at who sleeps comes after it.
	 */
	if (!atomic_compare_exchange_strong_explicit(&consumer->view.ring->tail, &seen, word,
						     memory_order_seq_cst, memory_order_relaxed))
		return IPC_ESTALE;

	consumer->tail = word;
	return 0;
}

int ring_peek_slow(struct ring_consumer *consumer, struct ring_received *ret)
{
	uint64_t before = consumer->at;
	int r = ring_peek_ahead(consumer, ret);

	if (LIKELY(r != IPC_EAGAIN || consumer->at == before ||
		   before != ring_position(consumer->tail)))
		return r;

	/* Where nothing came but holes nobody will release them, and the room may be needed for
	 * what is to come. */
	r = ring_release(consumer, consumer->at, ring_state(consumer->tail));
	return r < 0 ? r : IPC_EAGAIN;
}
