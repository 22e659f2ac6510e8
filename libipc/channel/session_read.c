/* SPDX-License-Identifier: MIT */

/*
 * What the broker tells of a session, out of a segment that it does not map: copies, each of which
 * is checked before it is used.
 */

#include <string.h>

#include "libipc/channel/session_inside.h"
#include "libipc/core/ring_ban.h"

#define LOOKS_MAX 100

/* One ring of it, as copied. */
struct seen {
	uint64_t mask; /* of the lap */
	uint64_t head, tail, depth_max;
};

static uint64_t offset_of_ring(unsigned side)
{
	return SESSION_SHARED_OFFSET + offsetof(struct session_shared, ring) +
	       side * sizeof(struct ring);
}

static uint64_t word_at(const unsigned char *copy, size_t offset)
{
	uint64_t word;

	memcpy(&word, copy + offset, sizeof(word));
	return word;
}

/* False: it does not look right: head and tail may have moved in between, too. */
static bool read_copy(const struct session_read *read, unsigned side,
		      unsigned char ret[sizeof(struct ring)], struct seen *ret_seen)
{
	static struct ring none;
	struct ring_view view;

	/* For the sizes alone. */
	if (ring_attach(&view, &none, NULL, read->shape[0], read->shape[1]) < 0 ||
	    !read->read(read->userdata, offset_of_ring(side), ret, sizeof(struct ring)))
		return false;

	*ret_seen = (struct seen){
		.mask = view.mask,
		.head = word_at(ret, offsetof(struct ring, head)),
		.tail = word_at(ret, offsetof(struct ring, tail)),
		.depth_max = word_at(ret, offsetof(struct ring, depth_max)),
	};
	return ring_distance(ring_position(ret_seen->tail), ring_position(ret_seen->head)) <=
	       view.mask + 1;
}

static bool read_ring(const struct session_read *read, unsigned side, struct seen *ret)
{
	unsigned char copy[sizeof(struct ring)];

	return read_copy(read, side, copy, ret);
}

static bool read_record(const struct session_read *read, unsigned side, const struct seen *seen,
			uint64_t position, struct ring_record *ret)
{
	struct session_layout layout;

	return session_layout(&layout, read->shape) &&
	       read->read(read->userdata,
			  layout.data[side] + (ring_position(position) & seen->mask) * RING_UNIT,
			  ret, sizeof(*ret));
}

/* Up to where it is released, as the other ring says. */
static bool find_tail(const struct session_read *read, unsigned side, const struct seen *seen,
		      uint64_t *ret)
{
	struct ring_record noted;
	struct seen other;

	*ret = ring_position(seen->tail);
	if (!read_ring(read, !side, &other))
		return false;
	if (!(ring_state(other.head) & SESSION_NOTED))
		return true;
	if (!read_record(read, !side, &other, other.head, &noted))
		return false;

	(void)session_note_is_due(atomic_load_explicit(&noted.what, memory_order_relaxed),
				  seen->tail, seen->head, ret);
	return true;
}

/* False: it has moved, or does not look right. */
static bool look(const struct session_read *read, unsigned side, uint64_t *ret_sent,
		 uint64_t *ret_acknowledged, struct seen *seen, uint64_t *ret_units)
{
	struct ring_record at_head, at_tail;
	struct seen again;
	uint64_t tail;

	if (!read_ring(read, side, seen) || !find_tail(read, side, seen, &tail) ||
	    !read_record(read, side, seen, seen->head, &at_head) ||
	    !read_record(read, side, seen, tail, &at_tail) || !read_ring(read, side, &again) ||
	    again.head != seen->head || again.tail != seen->tail)
		return false;

	*ret_sent = atomic_load_explicit(&at_head.number, memory_order_relaxed) - 1;
	*ret_acknowledged = atomic_load_explicit(&at_tail.number, memory_order_relaxed) - 1;
	*ret_units = ring_distance(tail, ring_position(seen->head));
	return *ret_sent - *ret_acknowledged <= *ret_units;
}

bool session_read_direction(const struct session_read *read, unsigned side, uint64_t *ret_sent,
			    uint64_t *ret_acknowledged, uint64_t *ret_depth,
			    uint64_t *ret_depth_max)
{
	uint64_t sent, acknowledged, units, most;
	struct seen seen;
	int i = 0;

	while (!look(read, side, &sent, &acknowledged, &seen, &units)) {
		if (++i == LOOKS_MAX)
			return false;
	}

	most = seen.depth_max;
	if (most > seen.mask + 1)
		most = seen.mask + 1;
	*ret_sent = sent;
	*ret_acknowledged = acknowledged;
	*ret_depth = units * RING_UNIT;
	*ret_depth_max = (most > units ? most : units) * RING_UNIT;
	return true;
}

/* What the place of a ban is to who takes the end. */
enum place {
	PLACE_HELD,    /* by one who may write there; or the stream has yet to get past it */
	PLACE_PENDING, /* without a range, of one who has none: free before strays need a place */
	PLACE_FREE,
};

/* What is looked at, and what of it the taker will have to ban. */
struct busy {
	const struct session_read *read;
	session_lives_fn lives;
	struct seen seen;
	uint64_t owner, teller;
	bool has_place, is_teller_banned;
	unsigned n_places[PLACE_FREE + 1];
};

static enum place place_of(struct busy *busy, const unsigned char *ban)
{
	uint64_t who = word_at(ban, offsetof(struct ring_ban, who));
	uint64_t from = ring_position(word_at(ban, offsetof(struct ring_ban, from)));
	uint64_t tail = ring_position(busy->seen.tail), head = ring_position(busy->seen.head);
	bool holds = who != 0 && who != word_at(ban, offsetof(struct ring_ban, left)) &&
		     busy->lives(busy->read->userdata, who);

	if (who == 0)
		return PLACE_FREE;
	if (!ring_ban_is_known(who, word_at(ban, offsetof(struct ring_ban, to)))) {
		if (!holds || !ring_teller_is(busy->teller, who))
			return PLACE_PENDING;
		busy->is_teller_banned = true;
		return PLACE_HELD;
	}

	return holds || ring_distance(tail, from) <= ring_distance(tail, head) ? PLACE_HELD
									       : PLACE_FREE;
}

static void look_at_bans(struct busy *busy, const unsigned char *copy)
{
	for (unsigned k = 0; k < RING_BANS_MAX; ++k) {
		const unsigned char *ban =
			copy + offsetof(struct ring, ban) + k * sizeof(struct ring_ban);

		/* By a taker who died. */
		if (word_at(ban, offsetof(struct ring_ban, who)) == busy->owner)
			busy->has_place = true;
		++busy->n_places[place_of(busy, ban)];
	}

	if (!busy->has_place && ring_teller_is(busy->teller, busy->owner))
		busy->is_teller_banned = true;
}

/* As ring_take_producer() does: whoever may write there yet needs a place among the bans; and
 * another one for what he has passed by, if it was he who claimed last. */
bool session_read_is_busy(const struct session_read *read, unsigned side, session_lives_fn lives)
{
	struct busy busy = {.read = read, .lives = lives};
	unsigned char copy[sizeof(struct ring)];
	unsigned n_free, n_needed;
	uint64_t strays;
	int i = 0;

	while (!read_copy(read, side, copy, &busy.seen)) {
		if (++i == LOOKS_MAX)
			return false;
	}

	busy.owner = word_at(copy, offsetof(struct ring, producer));
	busy.teller = word_at(copy, offsetof(struct ring, teller));
	strays = word_at(copy, offsetof(struct ring, strays));
	if (busy.owner == 0 || !lives(read->userdata, busy.owner))
		return false;

	look_at_bans(&busy, copy);
	n_free = busy.n_places[PLACE_FREE];
	n_needed = busy.has_place ? 0 : 1;
	if (n_free < n_needed)
		return true;
	if ((strays & RING_STRAYS_MASK) == 0 ||
	    !ring_strays_are_of(strays, ring_tag(busy.teller)) || !busy.is_teller_banned)
		return false;

	/* Of one who has claimed nothing the place is given back. */
	if (!ring_teller_is(busy.teller, busy.owner))
		n_needed = 0;
	return n_free + busy.n_places[PLACE_PENDING] < n_needed + 1;
}
