/* SPDX-License-Identifier: MIT */
#include "broker/limits.h"

#include <string.h>

#include "broker/segments.h"
#include "libipc/channel/limiter.h"

/*
 * Death: looking changes nothing.
 */

/* States read at once. */
#define STATES_PIECE 512

struct look {
	struct registry *registry;
	const struct channel *channel;
	uint32_t *budget;
	limits_grant_fn fn;
	void *userdata;
	uint64_t n_held;
};

static void look_at_grant(struct look *look, uint32_t seat)
{
	uint64_t offset = offsetof(struct limiter_segment, cell) +
			  (uint64_t)seat * sizeof(struct limiter_cell);
	struct {
		uint64_t holder_id, ticket, since;
		uint32_t permits, uid;
	} cell;
	const struct handle *holder;

	static_assert(offsetof(struct limiter_cell, permits) == 24, "as above");

	if (*look->budget == 0)
		return;

	--*look->budget;
	if (!segments_read(look->channel->segment_fd, offset, &cell, sizeof(cell)))
		return;

	/* A dead one's are free for whoever needs them. */
	holder = registry_handle_on(look->registry, look->channel, cell.holder_id);
	if (!holder)
		return;

	look->n_held += cell.permits;
	look->fn(holder, cell.permits, cell.since, look->userdata);
}

static uint32_t seats_used(const struct channel *channel)
{
	uint64_t offset =
		offsetof(struct limiter_segment, seats) + offsetof(struct seats, rows.top);
	uint64_t rows = segments_peek(channel->segment_fd, offset) & UINT32_MAX;

	return (uint32_t)(rows < LIMITER_ROWS ? rows : LIMITER_ROWS) * SEATS_PER_ROW;
}

/* What the record says that the head names.  One cell's word may be behind that. */
struct decided {
	uint64_t to;
	uint32_t cell, n_free, n_waiting, held_max;
};
static_assert(offsetof(struct limiter_record, cell) == offsetof(struct decided, cell) &&
		      offsetof(struct limiter_record, held_max) ==
			      offsetof(struct decided, held_max),
	      "the begin of a record");

static struct decided decided_read(const struct channel *channel)
{
	uint64_t head = segments_peek(channel->segment_fd, offsetof(struct limiter_segment, head));
	uint64_t offset = offsetof(struct limiter_segment, cell) +
			  (uint64_t)limiter_head_seat(head) * sizeof(struct limiter_cell) +
			  offsetof(struct limiter_cell, record) +
			  (head & 1) * sizeof(struct limiter_record);
	struct decided decided;

	if (!segments_read(channel->segment_fd, offset, &decided, sizeof(decided)))
		memset(&decided, 0, sizeof(decided));
	return decided;
}

bool limits_fits(uint32_t budget)
{
	return budget >= LIMITER_SEATS;
}

struct limits_depth limits_look(struct registry *registry, const struct channel *channel,
				uint32_t *budget, limits_grant_fn fn, void *userdata)
{
	struct look look = {registry, channel, budget, fn, userdata, 0};
	uint32_t n_seats = seats_used(channel);
	uint64_t capacity = channel->record->shape[0];
	struct decided decided = decided_read(channel);
	uint64_t states[STATES_PIECE];
	uint32_t first, i, n;

	for (first = 0; first < n_seats; first += n) {
		n = n_seats - first < STATES_PIECE ? n_seats - first : STATES_PIECE;
		if (!segments_read(channel->segment_fd,
				   offsetof(struct limiter_segment, state) +
					   (uint64_t)first * sizeof(states[0]),
				   states, n * sizeof(states[0])))
			break;

		for (i = 0; i < n; ++i) {
			if (first + i == decided.cell &&
			    limiter_state_is_later(decided.to, states[i]))
				states[i] = decided.to;
			if (limiter_state_phase(states[i]) == LIMITER_HELD)
				look_at_grant(&look, first + i);
		}
	}

	if (look.n_held > capacity)
		look.n_held = capacity;
	return (struct limits_depth){
		.now = look.n_held,
		.ever = decided.held_max < look.n_held ? look.n_held
			: decided.held_max < capacity  ? decided.held_max
						       : capacity,
	};
}
