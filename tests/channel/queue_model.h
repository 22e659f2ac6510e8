/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CHANNEL_QUEUE_MODEL_H
#define TESTS_CHANNEL_QUEUE_MODEL_H

/*
 * What queue_model.c believes about a queue with dead letters: things (claims, items, leases) and
 * letters.  One room for all of them, no hints, no order but the numbers of places.
 */

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/queue_scene.h"

enum { N_CLASSES = 3, N_ITEMS = 12, N_BYTES = 6000, SIZE_MAX_OF_ITEM = 3000, N_ATTEMPTS = 3 };
enum { N_DEAD = 6, DEAD_CLASSES = 2, DEAD_SIZE_MAX = 2500, DEAD_BYTES = N_DEAD * DEAD_SIZE_MAX };
enum { N_MEMBERS = 5, N_STEPS = 600, N_THINGS = N_CLASSES * N_ITEMS, SEEDS_DEFAULT = 1000 };

enum stand { NOWHERE, CLAIMED, WAITING, LEASED };

struct thing {
	enum stand stand;
	unsigned priority, owner; /* owner: of the claim or lease, a member */
	uint32_t row;             /* of the lease, until somebody has looked for the dead */
	uint64_t number, size, origin, place, lease;
	uint32_t attempt;
	void *data;
};

struct letter {
	uint64_t number, size, batch; /* batch: the step, within which the order is open */
	unsigned priority;
	enum ipc_dead_reason reason;
};

enum life { GONE, HELD_DEAD, ALIVE };

static struct queue_scene scene;
static struct queue_member members[N_MEMBERS];
static enum life lives[N_MEMBERS];

static struct model {
	struct thing thing[N_THINGS];
	struct letter letter[DEAD_CLASSES * N_DEAD];
	unsigned n_letters;
	struct ipc_queue_state state; /* the totals alone */
	uint64_t next_number, next_place, next_id;
	uint64_t old_lease;
} model;

static uint64_t seed, random_state;
static unsigned step;

#define EXPECT(condition, ...)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail(#condition, __LINE__, __VA_ARGS__);                                   \
	} while (0)

static void fail(const char *condition, int line, const char *what, uint64_t value)
{
	cr_assert_fail("IPC_MODEL_SEED=%lu IPC_MODEL_SEEDS=1, step %u, line %d: %s (%s %lu)",
		       (unsigned long)seed, step, line, condition, what, (unsigned long)value);
}

static uint64_t pick(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

/* ---- the model ---- */

static struct thing *thing_new(void)
{
	for (unsigned i = 0; i < N_THINGS; ++i) {
		if (model.thing[i].stand == NOWHERE)
			return memset(&model.thing[i], 0, sizeof(struct thing));
	}
	return NULL;
}

/* One of a member's that stands there, at random; NULL: none. */
static struct thing *thing_of(unsigned owner, enum stand stand)
{
	struct thing *found = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < N_THINGS; ++i) {
		struct thing *thing = &model.thing[i];

		if (thing->stand == stand && thing->owner == owner && pick(++n) == 0)
			found = thing;
	}
	return found;
}

static struct thing *thing_first(unsigned priority)
{
	struct thing *first = NULL;

	for (unsigned i = 0; i < N_THINGS; ++i) {
		struct thing *thing = &model.thing[i];

		if (thing->stand == WAITING && thing->priority == priority &&
		    (!first || thing->place < first->place))
			first = thing;
	}
	return first;
}

static bool bounds_allow(unsigned priority, uint64_t size)
{
	uint64_t n = 0, bytes = 0;

	for (unsigned i = 0; i < N_THINGS; ++i) {
		if (model.thing[i].stand != NOWHERE && model.thing[i].priority == priority) {
			++n;
			bytes += model.thing[i].size;
		}
	}
	return n < N_ITEMS && bytes + size <= N_BYTES;
}

/* After others have gone a larger item may find no block. */
static bool has_block(const struct queue *view, unsigned priority, uint64_t size)
{
	for (unsigned i = 0; i < view->layout.n_groups; ++i) {
		const struct queue_group *group = &view->layout.group[i];

		for (uint32_t k = 0; group->room >= size && k < group->n; ++k) {
			uint64_t word = atomic_load(&view->class[priority].word[group->first + k]);

			if (queue_word_phase(word) == QUEUE_FREE)
				return true;
		}
	}
	return false;
}

/* To the dead letters, or dropped. */
static bool letter_send(const struct thing *thing, enum ipc_dead_reason reason, uint64_t batch)
{
	unsigned priority = thing->priority < DEAD_CLASSES ? thing->priority : DEAD_CLASSES - 1;
	unsigned n = 0;

	for (unsigned i = 0; i < model.n_letters; ++i)
		n += model.letter[i].priority == priority;
	if (n == N_DEAD || thing->size > DEAD_SIZE_MAX) {
		++model.state.dropped[thing->priority][reason];
		return false;
	}

	model.letter[model.n_letters++] = (struct letter){.number = thing->number,
							  .size = thing->size,
							  .batch = batch,
							  .priority = priority,
							  .reason = reason};
	++model.state.dead_lettered[thing->priority][reason];
	return true;
}

static void thing_dispose(struct thing *thing, enum ipc_dead_reason reason, uint64_t batch)
{
	(void)letter_send(thing, reason, batch);
	thing->stand = NOWHERE;
}

/* Those that came back too often leave together, when their class is looked at. */
static void send_worn_out(unsigned priority)
{
	for (unsigned i = 0; i < N_THINGS; ++i) {
		struct thing *thing = &model.thing[i];

		if (thing->stand == WAITING && thing->priority == priority &&
		    thing->attempt > N_ATTEMPTS)
			thing_dispose(thing, IPC_DEAD_ATTEMPTS, step);
	}
}

/* They were met, if the counters say so. */
static void meet_worn_out(const struct ipc_queue_state *state)
{
	for (unsigned p = 0; p < N_CLASSES; ++p) {
		if (model.state.dead_lettered[p][IPC_DEAD_ATTEMPTS] +
			    model.state.dropped[p][IPC_DEAD_ATTEMPTS] <
		    state->dead_lettered[p][IPC_DEAD_ATTEMPTS] +
			    state->dropped[p][IPC_DEAD_ATTEMPTS])
			send_worn_out(p);
	}
}

#endif
