/* SPDX-License-Identifier: MIT */

/*
 * Joining a key: whoever finds it in flight follows; else a finished cell of the key is revived, or
 * a cell is claimed and inserted.  Each way ends in one exchange that fails if the world is not as
 * it was when the search began, and then all begins again.
 */

#include <endian.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libipc/channel/flight_cell.h"
#include "libipc/platform/compiler.h"

/* What a look at a cell or a whole search found out, besides the call's own results: it is not
 * there. */
enum { JOIN_INSERT = 4 };

struct join {
	struct flight *flight;
	struct flight_part *part;
	const unsigned char *key;
	uint64_t key_size;
	uint64_t hash;
	uint32_t urgency;
	uint32_t claimed; /* cell of our own, in no chain; SEAT_NONE: none */
	struct keytable_search search;
};

/* ---- keys ---- */

static _Atomic uint64_t *key_words(const struct flight *flight, uint32_t cell)
{
	return (_Atomic uint64_t *)(void *)(flight->key + cell * flight->layout.key_stride);
}

/* The last word filled up with zero bytes.  No copy of a size that varies: this is compared at
 * every join. */
static uint64_t key_word(const struct join *join, uint64_t i)
{
	const unsigned char *bytes = join->key + i * 8;
	uint64_t word = 0, left = join->key_size - i * 8;

	if (LIKELY(left >= sizeof(word))) {
		memcpy(&word, bytes, sizeof(word));
		return word;
	}

	while (left > 0)
		word = word << 8 | bytes[--left];
	return le64toh(word);
}

/* Relaxed: the cell may get another key as we look; then its state has changed. */
static bool key_is(const struct join *join, uint32_t cell)
{
	const struct flight *flight = join->flight;
	const _Atomic uint64_t *words = key_words(flight, cell);

	if (atomic_load_explicit(&flight->cell[cell].key_size, memory_order_relaxed) !=
	    join->key_size)
		return false;

	for (uint64_t i = 0; i * 8 < join->key_size; ++i) {
		if (atomic_load_explicit(&words[i], memory_order_relaxed) != key_word(join, i))
			return false;
	}
	return true;
}

static void key_store(const struct join *join, uint32_t cell)
{
	_Atomic uint64_t *words = key_words(join->flight, cell);

	atomic_store_explicit(&join->flight->cell[cell].key_size, (uint32_t)join->key_size,
			      memory_order_relaxed);
	for (uint64_t i = 0; i * 8 < join->key_size; ++i)
		atomic_store_explicit(&words[i], key_word(join, i), memory_order_relaxed);
}

/* ---- following ---- */

static void raise_urgency(struct flight_run *run, uint32_t urgency)
{
	uint32_t old = atomic_load_explicit(&run->urgency, memory_order_relaxed);

	while (old < urgency &&
	       !atomic_compare_exchange_weak_explicit(&run->urgency, &old, urgency,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

/* Led by this very thread, in whichever process's words. */
static bool leads_already(const struct flight *flight, uint32_t cell, uint64_t state)
{
	const struct seat *seat = &flight->segment->seats.seat[flight_state_seat(state)];

	return flight_state_phase(state) == FLIGHT_LED &&
	       atomic_load_explicit(&seat->thread, memory_order_relaxed) == flight_thread() &&
	       flight_seat_is_held(flight, cell, state);
}

static void order_store(struct flight *flight, uint32_t cell)
{
	uint64_t ticket =
		atomic_fetch_add_explicit(&flight->segment->ticket, 1, memory_order_relaxed);

	atomic_store_explicit(&flight->cell[cell].order, ticket, memory_order_relaxed);
}

/* Only ever a later count, where somebody else asks already. */
static void follow_queue(struct flight_cell *cell, uint32_t ends, bool is_asked)
{
	uint32_t old = atomic_load_explicit(&cell->queued_ends, memory_order_relaxed);

	while ((!is_asked || (int32_t)(ends - old) > 0) &&
	       !atomic_compare_exchange_weak_explicit(&cell->queued_ends, &old, ends,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

static uint64_t follow_flags(const struct flight_part *part, uint64_t state)
{
	state |= FLIGHT_FOLLOWED;
	if (part->form == FLIGHT_ASK)
		state |= FLIGHT_ASKED | (part->stays ? FLIGHT_STAYS : 0);

	return state & ~FLIGHT_CHECKED;
}

/*
 * The seat names the cell, and the flight is the one that was found.  0: takes part; AGAIN: the
 * flight is over.
 */
static int follow_enlist(struct join *join, uint32_t cell, uint64_t found)
{
	struct flight *flight = join->flight;
	struct flight_part *part = join->part;

	for (unsigned i = 0; i < FLIGHT_TRIES_MAX; ++i) {
		uint64_t state = flight_load(flight, cell);
		uint64_t wanted;

		if (!flight_state_is_in_flight(state) ||
		    flight_state_turn(state) != flight_state_turn(found))
			return FLIGHT_AGAIN;
		if (leads_already(flight, cell, state))
			return IPC_EDEADLK;

		/* Nobody is left in there: its end is not ours. */
		if (flight_is_leaderless(flight, cell, state) &&
		    flight_end_if_left(flight, cell, state, part->seat))
			return FLIGHT_AGAIN;

		state = flight_load(flight, cell);
		wanted = follow_flags(part, state);
		if (!flight_state_is_in_flight(state) ||
		    flight_state_turn(state) != flight_state_turn(found))
			return FLIGHT_AGAIN;

		/* As old as its first ask. */
		if (part->form == FLIGHT_ASK && !(state & FLIGHT_ASKED))
			order_store(flight, cell);

		/* Queued anew, if a caller's lead has just been left; askers of before have their
		 * own count of ends. */
		if (part->form == FLIGHT_ASK && !(state & FLIGHT_ASKED_NEW))
			follow_queue(&flight->cell[cell], part->began_ends, state & FLIGHT_ASKED);
		if (wanted == state || flight_swap(flight, cell, state, wanted)) {
			/* Whom the leader's death woke saw no ask. */
			if (part->form == FLIGHT_ASK && flight_is_leaderless(flight, cell, wanted))
				flight_notify(flight, flight_handlers_event(flight));
			return 0;
		}
	}

	return flight_break(flight);
}

static int join_follow(struct join *join, uint32_t cell, uint64_t found)
{
	struct flight *flight = join->flight;
	struct flight_part *part = join->part;
	struct flight_run *run;
	int r;

	part->cell = cell;
	seats_hold(&flight->segment->seats, part->seat, cell);
	CRASH_POINT();

	r = follow_enlist(join, cell, found);
	if (r != 0) {
		seats_drop(&flight->segment->seats, part->seat);
		return r;
	}
	CRASH_POINT();

	run = flight_run(flight, cell, found);
	atomic_fetch_add_explicit(&run->n_joined, 1, memory_order_relaxed);
	if (part->form == FLIGHT_ASK)
		raise_urgency(run, join->urgency);

	r = flight_look(flight, part);
	if (r == IPC_EAGAIN)
		return 2;
	if (r >= 0)
		return r;

	/* It ended while we came, for those who were there before: this caller begins anew. */
	if (flight_state_phase(flight_load(flight, cell)) == FLIGHT_ENDED) {
		atomic_store_explicit(&part->end, 0, memory_order_relaxed);
		r = FLIGHT_AGAIN;
	}
	seats_drop(&flight->segment->seats, part->seat);
	return r;
}

/* ---- a finished cell of the key ---- */

/* 1, AGAIN; INSERT: it cannot be revived by anybody any more. */
static int join_finished(struct join *join, uint32_t cell, uint64_t state)
{
	struct flight *flight = join->flight;
	struct flight_part *part = join->part;
	uint64_t led;

	if (state & FLIGHT_DOOMED)
		return JOIN_INSERT;

	if (part->form != FLIGHT_JOIN || flight_state_phase(state) == FLIGHT_ENDED ||
	    !flight_is_let_go(flight, cell, state)) {
		if (!flight_swap(flight, cell, state, state | FLIGHT_DOOMED))
			return FLIGHT_AGAIN;
		CRASH_POINT();
		return JOIN_INSERT;
	}

	part->cell = cell;
	seats_hold_unfenced(&flight->segment->seats, part->seat, cell);
	atomic_store_explicit(&flight->segment->seats.seat[part->seat].thread, flight_thread(),
			      memory_order_relaxed);
	CRASH_POINT();

	/* What the flight begins with was written by the leader who finished the last one. */
	led = flight_state_make(flight_state_turn(state) + 1, part->seat,
				FLIGHT_LINKED | ((state ^ FLIGHT_SECOND) & FLIGHT_SECOND),
				FLIGHT_LED);
	if (UNLIKELY(!flight_swap(flight, cell, state, led))) {
		seats_drop(&flight->segment->seats, part->seat);
		return FLIGHT_AGAIN;
	}
	CRASH_POINT();

	flight_led(flight, part);
	return 1;
}

/* ---- search ---- */

/* One cell whose hash is that of the key. */
static int join_cell(struct join *join, uint32_t cell)
{
	uint64_t state = flight_load(join->flight, cell);

	/* A cell that has just left the chain may be prepared for the same key by somebody who does
	 * not insert it in the end. */
	if (UNLIKELY(!keytable_is_there(&join->search)))
		return FLIGHT_AGAIN;

	/* The key is looked at after the state: whatever is done next fails if that has changed. */
	switch (flight_state_phase(state)) {
	case FLIGHT_FREE:
	case FLIGHT_CLAIMED:
		return JOIN_INSERT;
	case FLIGHT_LED:
	case FLIGHT_UNLED:
		return key_is(join, cell) ? join_follow(join, cell, state) : JOIN_INSERT;
	case FLIGHT_LANDED:
	case FLIGHT_FAILED:
	case FLIGHT_ENDED:
		return key_is(join, cell) ? join_finished(join, cell, state) : JOIN_INSERT;
	}

	return flight_break(join->flight);
}

static int join_search(struct join *join)
{
	struct flight *flight = join->flight;

	keytable_begin(&flight->keys, &join->search, join->hash);
	for (;;) {
		int r;

		switch (keytable_next(&flight->keys, &join->search)) {
		case KEYTABLE_END:
			return JOIN_INSERT;
		case KEYTABLE_MOVED:
			return FLIGHT_AGAIN;
		case KEYTABLE_BROKEN:
			return flight_break(flight);
		case KEYTABLE_NODE:
			r = join_cell(join, join->search.node);
			if (r != JOIN_INSERT)
				return r;
		}
	}
}

/* ---- a new cell ---- */

/* The cell claimed for this join, ready to be found. */
static void insert_prepare(struct join *join, uint32_t cell)
{
	struct flight *flight = join->flight;
	struct flight_part *part = join->part;
	uint64_t turn = flight_state_turn(flight_load(flight, cell));
	uint64_t flags = FLIGHT_LINKED;
	bool asks = part->form == FLIGHT_ASK;

	key_store(join, cell);
	flight_run_set(&flight->cell[cell].run[0], asks ? turn : turn - 1);
	if (asks) {
		flags |= FLIGHT_FOLLOWED | FLIGHT_ASKED | FLIGHT_ASKED_NEW |
			 (part->stays ? FLIGHT_STAYS : 0);
		atomic_store_explicit(&flight->cell[cell].run[0].urgency, join->urgency,
				      memory_order_relaxed);
		atomic_store_explicit(&flight->cell[cell].queued_ends, part->began_ends,
				      memory_order_relaxed);
		order_store(flight, cell);
	}
	atomic_store_explicit(&flight->segment->seats.seat[part->seat].thread,
			      asks ? 0 : flight_thread(), memory_order_relaxed);
	CRASH_POINT();

	/* [G2] All of it before the state. */
	atomic_store_explicit(&flight->state[cell],
			      flight_state_make(turn, part->seat, flags, FLIGHT_LED),
			      memory_order_release);
	CRASH_POINT();
}

/* Until here the asker led, so that no handler could take a key that others could not yet find. */
static int insert_queue(struct join *join, uint32_t cell)
{
	struct flight *flight = join->flight;
	uint64_t state;
	int r;

	do {
		state = flight_load(flight, cell);

		/* Held dead meanwhile, and passed over: the cell may be anybody's. */
		if (flight_state_phase(state) != FLIGHT_LED ||
		    flight_state_seat(state) != join->part->seat)
			break;
	} while (!flight_swap(flight, cell, state, flight_state_with(state, FLIGHT_UNLED)));
	CRASH_POINT();

	flight_notify(flight, flight_handlers_event(flight));
	r = flight_look(flight, join->part);
	if (r == IPC_EAGAIN)
		return 2;
	if (r < 0)
		seats_drop(&flight->segment->seats, join->part->seat);
	return r;
}

/* 1, 2; AGAIN: somebody was first. */
static int join_insert(struct join *join)
{
	struct flight *flight = join->flight;
	struct flight_part *part = join->part;
	uint32_t cell = join->claimed;

	part->cell = cell;
	insert_prepare(join, cell);
	if (!keytable_insert(&flight->keys, &join->search, cell)) {
		uint64_t state = flight_load(flight, cell);

		/* Nobody has seen it; but if this process is held dead, it may be gone. */
		(void)flight_swap(
			flight, cell, state,
			flight_state_make(flight_state_turn(state), part->seat, 0, FLIGHT_CLAIMED));
		return FLIGHT_AGAIN;
	}
	CRASH_POINT();

	join->claimed = SEAT_NONE;
	if (part->form == FLIGHT_ASK)
		return insert_queue(join, cell);

	flight_led(flight, part);
	return 1;
}

/* A claimed cell is held by the seat that everything else needs: given back before another way is
 * gone. */
static int join_once(struct join *join)
{
	struct flight *flight = join->flight;
	int r;

	r = join_search(join);
	if (r != JOIN_INSERT)
		return r;

	/* If the chain has changed, the key may be there by now, which needs no cell. */
	r = flight_claim(flight, join->part);
	if (r == IPC_ENOSPC && keytable_has_changed(&flight->keys, &join->search))
		return FLIGHT_AGAIN;
	if (r < 0)
		return r;

	/* Much may have happened meanwhile; the head of the chain tells. */
	join->claimed = join->part->cell;
	r = join_insert(join);
	if (r == FLIGHT_AGAIN) {
		flight_unclaim(flight, join->claimed);
		seats_drop(&flight->segment->seats, join->part->seat);
	}
	return r;
}

/* 0, IPC_ENOTCONN, IPC_EPIPE: whether there is anybody to ask. */
static int join_asks(const struct flight *flight, struct flight_part *part)
{
	uint64_t side = flight_handlers_side(flight);

	part->began_ends = side_ends(side);
	if (side_count(side) > 0)
		return 0;
	if (side & SIDE_FINAL)
		return IPC_EPIPE;

	return part->stays ? 0 : IPC_ENOTCONN;
}

int flight_join(struct flight *flight, struct flight_part *part, const void *key, uint64_t key_size,
		uint32_t urgency)
{
	struct join join = {
		.flight = flight,
		.part = part,
		.key = key,
		.key_size = key_size,
		.urgency = urgency,
		.claimed = SEAT_NONE,
	};
	int r;

	if (key_size == 0 || !key)
		return IPC_EINVAL;
	if (key_size > flight->key_size_max)
		return IPC_EMSGSIZE;

	r = header_fault(&flight->segment->header);
	if (r == 0 && part->form == FLIGHT_ASK)
		r = join_asks(flight, part);
	if (r < 0)
		return r;

	flight_part_begin(part);
	join.hash = XXH3_64bits_withSeed(key, key_size, flight->seed);
	for (unsigned i = 0; i < FLIGHT_TRIES_MAX; ++i) {
		r = join_once(&join);
		if (r != FLIGHT_AGAIN)
			return r;
	}

	return flight_break(flight);
}
