/* SPDX-License-Identifier: MIT */
#include "broker/flights.h"

#include "broker/segments.h"
#include "libipc/channel/flight.h"

/*
 * Death: looking changes nothing.
 */

/* States read at once. */
#define STATES_PIECE 512

struct look {
	struct registry *registry;
	const struct channel *channel;
	struct flights_budget *budget;
	flights_lead_fn fn;
	void *userdata;
	struct flight_layout layout;
	struct flights_depth depth;
};

bool flights_fits(const struct channel *channel, const struct flights_budget *budget)
{
	return channel->record->shape[1] <= budget->n_states;
}

/* Who leads this cell, if the broker holds him for alive. */
static const struct handle *leader_of(const struct look *look, uint32_t cell, uint64_t *ret_since)
{
	uint64_t offset = look->layout.cell + (uint64_t)cell * sizeof(struct flight_cell) +
			  offsetof(struct flight_cell, leader_id);
	uint64_t lead[2]; /* leader_id and led_since */

	if (!segments_read(look->channel->segment_fd, offset, lead, sizeof(lead)))
		return NULL;

	*ret_since = lead[1];
	return registry_handle_on(look->registry, look->channel, lead[0]);
}

static void look_at_led(struct look *look, uint32_t cell, uint64_t state)
{
	const struct handle *leader;
	uint64_t since_ns;

	++look->depth.now;
	if (look->budget->n_leads == 0)
		return;

	--look->budget->n_leads;
	leader = leader_of(look, cell, &since_ns);
	if (leader)
		look->fn(leader, since_ns, look->userdata);
	else if (!(state & FLIGHT_FOLLOWED))
		--look->depth.now; /* The leader died, and nobody is there to notice. */
}

static void look_at_piece(struct look *look, uint32_t first, const uint64_t *states, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; ++i) {
		if (flight_state_turn(states[i]) != 0)
			++look->depth.ever;

		if (flight_state_phase(states[i]) == FLIGHT_LED)
			look_at_led(look, first + i, states[i]);
		else if (flight_state_is_in_flight(states[i]))
			++look->depth.now;
	}
}

struct flights_depth flights_look(struct registry *registry, const struct channel *channel,
				  struct flights_budget *budget, flights_lead_fn fn, void *userdata)
{
	struct look look = {registry, channel, budget, fn, userdata, .depth = {0}};
	uint64_t states[STATES_PIECE];
	uint32_t n_cells, first, n;

	if (!flight_layout(&look.layout, channel->record->shape))
		return look.depth;

	n_cells = (uint32_t)channel->record->shape[1];
	if (n_cells > budget->n_states)
		n_cells = budget->n_states;
	budget->n_states -= n_cells;

	for (first = 0; first < n_cells; first += n) {
		n = n_cells - first < STATES_PIECE ? n_cells - first : STATES_PIECE;
		if (!segments_read(channel->segment_fd,
				   look.layout.state + (uint64_t)first * sizeof(states[0]), states,
				   n * sizeof(states[0])))
			break;
		look_at_piece(&look, first, states, n);
	}
	return look.depth;
}
