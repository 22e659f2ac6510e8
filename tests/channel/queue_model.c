/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue` beside a simple model of it: members do random things, die, are
 * held dead, close and come again; after each step what is told and what stands there is what the
 * model says.
 *
 *	IPC_MODEL_SEEDS   how many sequences, default 1000
 *	IPC_MODEL_SEED    the first, default 1
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>

#include "tests/channel/queue_model.h"

/* ---- producers ---- */

static uint64_t pick_size(void)
{
	switch (pick(4)) {
	case 0:
		return pick(SIZE_MAX_OF_ITEM + 1);
	case 1:
		return N_BYTES / N_ITEMS;
	default:
		return 8 + pick(400);
	}
}

static void push_refused(unsigned m, unsigned priority, uint64_t size)
{
	struct thing thing = {.priority = priority, .size = size, .number = model.next_number++};
	enum ipc_full_policy policy = pick(2) ? IPC_FULL_DROP : IPC_FULL_DEAD_LETTER;
	int r = queue_scene_push_refused(&members[m], priority, thing.number, size, policy);

	if (policy == IPC_FULL_DROP) {
		EXPECT(r == IPC_DROPPED, "result", (uint64_t)r);
		++model.state.dropped[priority][IPC_DEAD_FULL];
		return;
	}
	if (size < 8)
		thing.number = 0;
	EXPECT(r == (letter_send(&thing, IPC_DEAD_FULL, step) ? IPC_DEAD_LETTERED : IPC_DROPPED),
	       "result", (uint64_t)r);
}

static void do_push(unsigned m)
{
	unsigned priority = (unsigned)pick(N_CLASSES);
	uint64_t size = pick_size(), number = model.next_number++;
	struct thing *thing;
	int r = queue_scene_push(&members[m], priority, number, size);

	if (r == IPC_EAGAIN) {
		EXPECT(!bounds_allow(priority, size) ||
			       !has_block(&members[m].view, priority, size),
		       "refused size", size);
		push_refused(m, priority, size);
		return;
	}

	EXPECT(r == 0, "result", (uint64_t)r);
	EXPECT(bounds_allow(priority, size), "let in size", size);
	thing = thing_new();
	thing->stand = WAITING;
	thing->priority = priority;
	thing->number = size < 8 ? 0 : number;
	thing->size = size;
	thing->attempt = 1;
	thing->origin = members[m].id;
	thing->place = model.next_place++;
	++model.state.queued[priority];
}

static void do_claim(unsigned m)
{
	unsigned priority = (unsigned)pick(N_CLASSES);
	uint64_t size = pick_size();
	struct thing *thing;
	void *data;
	int r = queue_scene_claim(&members[m], priority, size, &data);

	if (r == IPC_EAGAIN) {
		EXPECT(!bounds_allow(priority, size) ||
			       !has_block(&members[m].view, priority, size),
		       "refused size", size);
		return;
	}

	EXPECT(r == 0, "result", (uint64_t)r);
	EXPECT(bounds_allow(priority, size), "let in size", size);
	thing = thing_new();
	thing->stand = CLAIMED;
	thing->owner = m;
	thing->priority = priority;
	thing->size = size;
	thing->data = data;
}

static void do_commit(unsigned m)
{
	struct thing *thing = thing_of(m, CLAIMED);

	if (!thing)
		return;
	if (pick(4) == 0) {
		EXPECT(queue_abort(&members[m].view, thing->data) == 0, "size", thing->size);
		thing->stand = NOWHERE;
		EXPECT(queue_abort(&members[m].view, thing->data) == IPC_EINVAL, "size",
		       thing->size);
		return;
	}

	EXPECT(queue_scene_commit(&members[m], thing->data, thing->size + 1) == IPC_EMSGSIZE,
	       "size", thing->size);
	if (pick(3) == 0)
		thing->size = pick(thing->size + 1);
	thing->number = model.next_number++;
	pattern_fill(thing->data, thing->size, thing->number);
	EXPECT(queue_scene_commit(&members[m], thing->data, thing->size) == 0, "size", thing->size);
	if (thing->size < 8)
		thing->number = 0;
	thing->stand = WAITING;
	thing->row = UINT32_MAX;
	thing->attempt = 1;
	thing->origin = members[m].id;
	thing->place = model.next_place++;
	++model.state.queued[thing->priority];
}

/* ---- consumers ---- */

static void do_take_dead(unsigned m)
{
	struct ipc_queue_item item;
	struct letter *found = NULL;
	uint64_t batch = UINT64_MAX;
	int r = queue_take(&members[m].dead, &item);

	if (r < 0) {
		EXPECT(r == IPC_EAGAIN && model.n_letters == 0, "there are", model.n_letters);
		return;
	}

	for (unsigned i = 0; i < model.n_letters; ++i)
		if (model.letter[i].priority == item.priority && model.letter[i].batch < batch)
			batch = model.letter[i].batch;
	for (unsigned i = 0; i < model.n_letters; ++i) {
		struct letter *letter = &model.letter[i];

		if (letter->priority == item.priority && letter->batch == batch &&
		    letter->number == queue_scene_number(item.data, item.size))
			found = letter;
	}
	EXPECT(found != NULL, "dead letter", queue_scene_number(item.data, item.size));
	EXPECT(found->size == item.size, "size", item.size);
	EXPECT(found->reason == item.reason, "reason", item.reason);
	EXPECT(item.attempt == 1, "attempt", item.attempt);
	EXPECT(item.source && strcmp(item.source, QUEUE_SCENE_NAME) == 0, "source of", item.size);
	EXPECT(queue_ack(&members[m].dead, item.lease) == 0, "batch", batch);
	memmove(found, found + 1,
		(size_t)(&model.letter[--model.n_letters] - found) * sizeof(*found));
}

static void take_all_dead(void)
{
	for (unsigned m = 0; m < N_MEMBERS; ++m)
		while (lives[m] == ALIVE && model.n_letters > 0)
			do_take_dead(m);
}

static unsigned n_leased(unsigned m)
{
	unsigned n = 0;

	for (unsigned i = 0; i < N_THINGS; ++i)
		n += model.thing[i].stand == LEASED && model.thing[i].owner == m;
	return n;
}

static void do_take(unsigned m)
{
	struct ipc_queue_item item;
	struct thing *first;
	int r;

	/* If it meets some that are worn out, all of them find room. */
	take_all_dead();
	r = queue_take(&members[m].view, &item);

	for (unsigned p = 0; p < N_CLASSES; ++p)
		send_worn_out(p);
	if (r < 0) {
		EXPECT(r == IPC_EAGAIN, "result", (uint64_t)r);
		for (unsigned p = 0; p < N_CLASSES; ++p)
			EXPECT(!thing_first(p), "class", p);
		return;
	}

	first = thing_first(item.priority);
	EXPECT(first != NULL, "class", item.priority);
	EXPECT(queue_scene_number(item.data, item.size) == first->number, "not", first->number);
	EXPECT(item.size == first->size, "size", item.size);
	EXPECT(item.attempt == first->attempt, "attempt", item.attempt);
	EXPECT(item.origin == first->origin, "origin", item.origin);
	EXPECT(item.reason == IPC_DEAD_NONE && !item.source, "reason", item.reason);
	first->stand = LEASED;
	first->owner = m;
	first->row = members[m].view.row;
	first->lease = item.lease;
}

static void do_end_lease(unsigned m)
{
	struct thing *thing = thing_of(m, LEASED);
	unsigned other = (unsigned)pick(N_MEMBERS);

	if (!thing)
		return;
	if (other != m && lives[other] == ALIVE)
		EXPECT(queue_ack(&members[other].view, thing->lease) == IPC_ESTALE, "another", m);

	model.old_lease = thing->lease;
	switch (pick(5)) {
	case 0:
		EXPECT(queue_reject(&members[m].view, thing->lease) == 0, "item", thing->number);
		thing_dispose(thing, IPC_DEAD_REJECTED, step);
		break;
	case 1:
	case 2:
		EXPECT(queue_requeue(&members[m].view, thing->lease) == 0, "item", thing->number);
		thing->stand = WAITING;
		if (++thing->attempt > N_ATTEMPTS)
			thing_dispose(thing, IPC_DEAD_ATTEMPTS, step);
		break;
	default:
		EXPECT(queue_ack(&members[m].view, thing->lease) == 0, "item", thing->number);
		thing->stand = NOWHERE;
		++model.state.acknowledged[thing->priority];
		break;
	}
	EXPECT(queue_ack(&members[m].view, model.old_lease) == IPC_ESTALE, "lease", m);
}

/* ---- lives ---- */

static void leases_go_back(unsigned m, bool is_own)
{
	uint64_t batch = step;

	for (unsigned i = 0; i < N_THINGS; ++i) {
		struct thing *thing = &model.thing[i];

		if (thing->stand != LEASED || thing->owner != m)
			continue;
		thing->stand = WAITING;
		if (++thing->attempt > N_ATTEMPTS && is_own)
			thing_dispose(thing, IPC_DEAD_ATTEMPTS, batch);
	}
}

static void claims_vanish(unsigned m)
{
	for (unsigned i = 0; i < N_THINGS; ++i)
		if (model.thing[i].stand == CLAIMED && model.thing[i].owner == m)
			model.thing[i].stand = NOWHERE;
}

/* Who inherits a row before anybody has looked for the dead disposes of what is worn out at once.
 */
static void inherit_worn_out(unsigned m)
{
	struct ipc_queue_state state = queue_scene_state(&members[m].view);
	uint64_t n = 0, n_found = 0, batch = step;

	for (unsigned p = 0; p < N_CLASSES; ++p)
		n += state.dead_lettered[p][IPC_DEAD_ATTEMPTS] +
		     state.dropped[p][IPC_DEAD_ATTEMPTS] -
		     model.state.dead_lettered[p][IPC_DEAD_ATTEMPTS] -
		     model.state.dropped[p][IPC_DEAD_ATTEMPTS];
	for (unsigned i = 0; n > 0 && i < N_THINGS; ++i) {
		struct thing *thing = &model.thing[i];

		if (thing->stand == WAITING && thing->attempt > N_ATTEMPTS &&
		    thing->row == members[m].view.row) {
			thing_dispose(thing, IPC_DEAD_ATTEMPTS, batch);
			++n_found;
		}
	}
	EXPECT(n == n_found, "disposed of", n);
}

static void do_enter(unsigned m)
{
	take_all_dead();
	queue_scene_enter(&scene, &members[m], model.next_id++);
	lives[m] = ALIVE;
	inherit_worn_out(m);
}

/* All of the dead letters first, so that it is known which of several find room there. */
static void do_close(unsigned m)
{
	take_all_dead();
	queue_scene_leave(&scene, &members[m]);
	leases_go_back(m, true);
	claims_vanish(m);
	do_enter(m);
}

static void do_die(unsigned m)
{
	if (pick(2)) {
		queue_scene_end(&scene, members[m].id);
		lives[m] = HELD_DEAD;
	} else {
		queue_scene_die(&scene, &members[m]);
		lives[m] = GONE;
		claims_vanish(m);
	}
	leases_go_back(m, false);
}

/* As somebody else, once the process is gone. */
static void do_come_again(unsigned m)
{
	if (lives[m] == HELD_DEAD) {
		queue_scene_die(&scene, &members[m]);
		claims_vanish(m);
	}
	do_enter(m);
}

/* ---- what stands there ---- */

static void compare(unsigned m)
{
	struct ipc_queue_state state = queue_scene_state(&members[m].view);

	meet_worn_out(&state);
	for (unsigned p = 0; p < N_CLASSES; ++p) {
		uint64_t n_items = 0, n_taken = 0, bytes = 0;

		for (unsigned i = 0; i < N_THINGS; ++i) {
			struct thing *thing = &model.thing[i];

			if (thing->priority != p)
				continue;
			if (thing->stand == WAITING)
				thing->row = UINT32_MAX;
			n_taken += thing->stand == LEASED;
			n_items += thing->stand == WAITING;
			bytes += thing->stand == WAITING ? thing->size : 0;
		}
		EXPECT(state.items[p] == n_items, "items", state.items[p]);
		EXPECT(state.bytes[p] == bytes, "bytes", state.bytes[p]);
		EXPECT(state.leased[p] == n_taken, "leased", state.leased[p]);
		EXPECT(state.queued[p] == model.state.queued[p], "queued", state.queued[p]);
		EXPECT(state.acknowledged[p] == model.state.acknowledged[p], "acknowledged",
		       state.acknowledged[p]);
		EXPECT(memcmp(state.dead_lettered[p], model.state.dead_lettered[p],
			      sizeof(state.dead_lettered[p])) == 0,
		       "dead letters of class", p);
		EXPECT(memcmp(state.dropped[p], model.state.dropped[p], sizeof(state.dropped[p])) ==
			       0,
		       "drops of class", p);
	}
	EXPECT(queue_scene_imbalance(&state) == 0, "missing",
	       (uint64_t)queue_scene_imbalance(&state));
}

static void do_something(unsigned m)
{
	unsigned n;

	if (lives[m] == HELD_DEAD && pick(2)) {
		EXPECT(queue_ack(&members[m].view, model.old_lease) == IPC_ESTALE, "held dead", m);
		return;
	}
	if (lives[m] != ALIVE) {
		do_come_again(m);
		return;
	}
	n = (unsigned)pick(24);
	if (n == 0) {
		do_die(m); /* and nobody has looked yet when the next thing is done */
		return;
	}
	if (n == 1)
		do_close(m);
	else if (n < 4)
		do_take_dead(m);
	else if (n < 7)
		do_claim(m);
	else if (n < 10)
		do_commit(m);
	else if (n < 15 && n_leased(m) < 3)
		do_take(m);
	else if (n < 19)
		do_end_lease(m);
	else
		do_push(m);
	compare(m);
}

static void run_seed(void)
{
	random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
	queue_scene_reset(&scene);
	memset(&model, 0, sizeof(model));
	memset(lives, 0, sizeof(lives));
	model.next_id = 11;
	model.next_number = 1;
	for (unsigned m = 0; m < N_MEMBERS; ++m)
		do_enter(m);
	for (step = 0; step < N_STEPS; ++step)
		do_something((unsigned)pick(N_MEMBERS));

	/* In the end all is empty, and all of the blocks are free. */
	for (unsigned m = 0; m < N_MEMBERS; ++m) {
		if (lives[m] != ALIVE)
			do_come_again(m);
		do_close(m);
	}
	for (unsigned p = 0; p < N_CLASSES; ++p)
		while (thing_first(p)) {
			++step;
			do_take(0);
			compare(1);
			while (thing_of(0, LEASED)) {
				++step;
				do_end_lease(0);
			}
		}
	compare(1);
	for (unsigned p = 0; p < N_CLASSES; ++p)
		EXPECT(queue_scene_count(&members[2].view, p, QUEUE_FREE) == N_ITEMS, "class", p);
}

static unsigned long number_from(const char *name, unsigned long otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : otherwise;
}

/* */
Test(queue_model, does_what_the_model_says, .timeout = 600)
{
	const uint64_t shape[4] =
		QUEUE_SHAPE(N_CLASSES, N_ITEMS, N_BYTES, SIZE_MAX_OF_ITEM, N_ATTEMPTS);
	const uint64_t dead[4] = QUEUE_SHAPE(DEAD_CLASSES, N_DEAD, DEAD_BYTES, DEAD_SIZE_MAX, 3);
	uint64_t first = number_from("IPC_MODEL_SEED", 1);
	uint64_t n = number_from("IPC_MODEL_SEEDS", SEEDS_DEFAULT);

	queue_scene_init(&scene, shape, dead);
	for (seed = first; seed < first + n; ++seed)
		run_seed();
	queue_scene_deinit(&scene);
}
