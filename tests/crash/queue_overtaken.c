/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`, with an operation that stands still before each of its
 * instructions while others get on, and then goes on: also one whose process is held dead
 * meanwhile, although it lives, and what it held was given to others.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/channel/queue_block.h"
#include "tests/support/queue_scene.h"
#include "tests/support/step.h"

enum { N_ITEMS = 6, PIECE = 512, N_BYTES = N_ITEMS * PIECE, N_DEAD = 3, SIZE = 100 };
enum { SLOW = 11, OTHER = 12, THIRD = 13, MORTAL = 14, HEIR = 15, NUMBERS = 100 };

enum act {
	ACT_PUSH,
	ACT_CLAIM,
	ACT_COMMIT,
	ACT_TAKE,
	ACT_ACK,
	ACT_REQUEUE,
	ACT_REJECT,
	ACT_SWEEP,
	ACT_STATE
};

static struct queue_scene scene;
static struct queue_member slow, other, third, mortal, heir;
static struct ipc_queue_item leased;
static void *claimed;
static enum act act;
static bool is_held_dead;
static unsigned ways; /* bits: what is done meanwhile */

/* In shared memory: what the slow one was told. */
enum { TOLD_DONE, TOLD_RESULT, TOLD_NUMBER, TOLD_ATTEMPT, TOLD_LEASE };

static _Atomic uint64_t *told(unsigned what)
{
	return &scene.board->word[what];
}

static void must(bool holds, const char *what)
{
	queue_scene_must(holds, what);
}

static void scene_make(void)
{
	const uint64_t shape[4] = QUEUE_SHAPE(1, N_ITEMS, N_BYTES, PIECE * 2, 100);
	const uint64_t dead[4] = QUEUE_SHAPE(1, N_DEAD, N_DEAD * PIECE, PIECE, 3);

	if (!scene.segment)
		queue_scene_init(&scene, shape, ways & 16 ? NULL : dead);
	else
		queue_scene_reset(&scene);
	queue_scene_enter(&scene, &other, OTHER);
	queue_scene_enter(&scene, &third, THIRD);
	queue_scene_open(&scene, SLOW);
	queue_scene_attach(&scene, &slow, SLOW);
}

/* ---- the slow one, in the child ---- */

static void prepare(void *arg)
{
	(void)arg;
	must(queue_scene_begin(&slow) == 0, "begin");
	for (uint64_t i = 1; i <= 2; ++i)
		must(queue_scene_push(&other, 0, i, SIZE) == 0, "push");

	switch (act) {
	case ACT_PUSH:
	case ACT_CLAIM:
	case ACT_TAKE:
	case ACT_STATE:
		break;
	case ACT_COMMIT:
		must(queue_scene_claim(&slow, 0, PIECE, &claimed) == 0, "claim");
		pattern_fill(claimed, SIZE, 3);
		break;
	case ACT_ACK:
	case ACT_REQUEUE:
	case ACT_REJECT:
		must(queue_take(&slow.view, &leased) == 0, "take");
		break;
	case ACT_SWEEP:
		queue_scene_enter(&scene, &mortal, MORTAL);
		must(queue_take(&mortal.view, &leased) == 0, "take");
		must(queue_scene_claim(&mortal, 0, PIECE, &claimed) == 0, "claim");
		queue_scene_die(&scene, &mortal);
		break;
	}
}

static void operate(void *arg)
{
	static unsigned char bytes[SIZE];
	struct ipc_queue_state state = {.size = sizeof(state)};
	struct ipc_queue_item item = {.attempt = 0};
	uint64_t due_ns;
	int r = 0;

	(void)arg;
	switch (act) {
	case ACT_PUSH:
		pattern_fill(bytes, SIZE, 3);
		r = queue_push(&slow.view, 0, bytes, SIZE, &due_ns);
		break;
	case ACT_CLAIM:
		r = queue_claim(&slow.view, 0, PIECE, &claimed);
		if (r < 0)
			break;
		pattern_fill(claimed, SIZE, 3);
		r = queue_commit(&slow.view, claimed, SIZE, &due_ns);
		break;
	case ACT_COMMIT:
		r = queue_commit(&slow.view, claimed, SIZE, &due_ns);
		break;
	case ACT_TAKE:
		r = queue_take(&slow.view, &item);
		break;
	case ACT_ACK:
		r = queue_ack(&slow.view, leased.lease);
		break;
	case ACT_REQUEUE:
		r = queue_requeue(&slow.view, leased.lease);
		break;
	case ACT_REJECT:
		r = queue_reject(&slow.view, leased.lease);
		break;
	case ACT_SWEEP:
		queue_sweep(&slow.view);
		break;
	case ACT_STATE:
		r = queue_get_state(&slow.view, &state);
		break;
	}
	if (act == ACT_TAKE && r == 0 && !is_held_dead) {
		atomic_store(told(TOLD_NUMBER), queue_scene_number(item.data, item.size));
		atomic_store(told(TOLD_ATTEMPT), item.attempt);
		atomic_store(told(TOLD_LEASE), item.lease);
	}
	atomic_store(told(TOLD_RESULT), (uint64_t)(int64_t)r);
	atomic_store(told(TOLD_DONE), 1);
}

/* ---- the others, in the parent ---- */

/* What came, over all of the time. */
static struct {
	uint32_t attempt[NUMBERS], dead_attempt[NUMBERS]; /* largest */
	uint64_t last;
	uint64_t n_pushed, n_dead;
} seen;

static void saw(long n, const struct ipc_queue_item *item)
{
	uint64_t number = queue_scene_number(item->data, item->size);

	cr_assert_lt(number, NUMBERS, "instruction %ld: item %lu", n, (unsigned long)number);
	cr_assert_gt(item->attempt, seen.attempt[number],
		     "instruction %ld: item %lu comes twice with attempt %u", n,
		     (unsigned long)number, item->attempt);
	cr_assert_eq(item->reason, IPC_DEAD_NONE);
	cr_assert_eq(item->source, NULL);
	if (item->attempt == 1 && item->origin != SLOW) {
		cr_assert_gt(number, seen.last, "instruction %ld: item %lu comes after %lu", n,
			     (unsigned long)number, (unsigned long)seen.last);
		seen.last = number;
	}
	seen.attempt[number] = item->attempt;
}

static void take_all(long n, struct queue_member *member)
{
	struct ipc_queue_item item;
	int r;

	while ((r = queue_take(&member->view, &item)) == 0) {
		saw(n, &item);
		cr_assert_eq(queue_ack(&member->view, item.lease), 0, "instruction %ld", n);
	}
	cr_assert_eq(r, IPC_EAGAIN, "instruction %ld: %d", n, r);
}

static void take_dead(long n, struct queue_member *member)
{
	struct ipc_queue_item item;

	while (member->view.dead && queue_take(&member->dead, &item) == 0) {
		uint64_t number = queue_scene_number(item.data, item.size);

		cr_assert_lt(number, NUMBERS);
		cr_assert_gt(item.attempt, seen.dead_attempt[number],
			     "instruction %ld: item %lu is a dead letter twice with attempt %u", n,
			     (unsigned long)number, item.attempt);
		cr_assert_neq(item.source, NULL);
		cr_assert_eq(item.reason, IPC_DEAD_REJECTED, "instruction %ld: reason %d", n,
			     (int)item.reason);
		seen.dead_attempt[number] = item.attempt;
		++seen.n_dead;
		cr_assert_eq(queue_ack(&member->dead, item.lease), 0);
	}
}

static void push_new(long n, struct queue_member *member, unsigned count)
{
	for (unsigned i = 0; i < count; ++i) {
		int r = queue_scene_push(member, 0, 10 + seen.n_pushed, SIZE);

		cr_assert(r == 0 || r == IPC_EAGAIN, "instruction %ld: %d", n, r);
		seen.n_pushed += r == 0;
	}
}

/* The third drops an item, and is stopped when it was counted and its block is not free yet. */
static void drop_by_half(long n)
{
	struct queue_seen at = {.class = &third.view.class[0]};
	struct ipc_queue_item item;
	uint64_t freed[QUEUE_GROUPS_MAX];

	cr_assert_eq(queue_scene_push(&other, 0, 10 + seen.n_pushed++, SIZE), 0);
	cr_assert_eq(queue_take(&third.view, &item), 0);
	saw(n, &item);
	while (queue_word_phase(queue_load(at.class, at.block)) != QUEUE_LEASED ||
	       queue_word_row(queue_load(at.class, at.block)) != third.view.row)
		++at.block;
	at.word = queue_load(at.class, at.block);
	memcpy(freed, at.class->shared->freed, sizeof(freed));
	cr_assert_eq(queue_reject(&third.view, item.lease), 0);
	memcpy(at.class->shared->freed, freed, sizeof(freed));
	atomic_store(&at.class->word[at.block],
		     queue_word_with(at.word, 1 << 3 | IPC_DEAD_REJECTED, QUEUE_ENDED));
}

/* Blocks and entries are used again and again; whoever sweeps dies himself, once. */
static void meanwhile(void *arg, long n)
{
	(void)arg;
	memset(&seen, 0, sizeof(seen));
	if (is_held_dead)
		queue_scene_end(&scene, SLOW);

	for (unsigned i = 0; i < 3 && !(ways & 16); ++i) {
		push_new(n, &other, i == 1 ? 1 : N_ITEMS);
		take_all(n, &third);
	}
	if (ways & 1) {
		struct ipc_queue_item item;

		push_new(n, &other, 2);
		cr_assert_eq(queue_take(&other.view, &item), 0);
		saw(n, &item);
		cr_assert_eq(queue_reject(&other.view, item.lease), 0);
		take_dead(n, &third);
		cr_assert_eq(queue_take(&other.view, &item), 0);
		saw(n, &item);
		cr_assert_eq(queue_reject(&other.view, item.lease), 0);
	}
	if (ways & 8) {
		/* The blocks of the dead letters are used by one who dies later. */
		push_new(n, &other, N_DEAD);
		for (unsigned i = 0; i < N_DEAD; ++i) {
			struct ipc_queue_item item;

			cr_assert_eq(queue_take(&third.view, &item), 0);
			saw(n, &item);
			cr_assert_eq(queue_reject(&third.view, item.lease), 0);
		}
	}
	if (ways & 16)
		drop_by_half(n);
	if (ways & 2) {
		/* One dies, and the class is found full of bytes after that, not of items. */
		queue_scene_enter(&scene, &heir, HEIR);
		queue_scene_die(&scene, &heir);
		while (queue_scene_push(&other, 0, 10 + seen.n_pushed, 2 * PIECE) == 0)
			++seen.n_pushed;
		take_all(n, &third);
	}
}

/* ---- after it ---- */

static bool is_pushing(void)
{
	return act == ACT_PUSH || act == ACT_CLAIM || act == ACT_COMMIT;
}

static void expect_told(long n)
{
	int r = (int)(int64_t)atomic_load(told(TOLD_RESULT));

	cr_assert(atomic_load(told(TOLD_DONE)), "instruction %ld: it did not come to its end", n);
	if (is_held_dead)
		cr_assert(r == 0 || r == IPC_ESTALE || r == IPC_EAGAIN || r == IPC_EINVAL,
			  "instruction %ld: %d", n, r);
	else
		cr_assert(r == 0 || ((act == ACT_TAKE || act == ACT_PUSH || act == ACT_CLAIM) &&
				     r == IPC_EAGAIN),
			  "instruction %ld: %d", n, r);
}

/* What the slow one took is seen before what comes of its death. */
static void see_slow(long n)
{
	struct ipc_queue_item item = {.attempt = 0};
	unsigned char bytes[8];

	/* Held dead, it may see the bytes of what came after what it took. */
	if (act != ACT_TAKE || is_held_dead || (int64_t)atomic_load(told(TOLD_RESULT)) < 0)
		return;
	pattern_fill(bytes, 8, atomic_load(told(TOLD_NUMBER)));
	item.data = bytes;
	item.size = 8;
	item.origin = SLOW; /* it may have it for long: of any place in the order */
	item.attempt = (uint32_t)atomic_load(told(TOLD_ATTEMPT));
	if (item.attempt > seen.attempt[atomic_load(told(TOLD_NUMBER))])
		saw(n, &item);
	else
		cr_assert(item.attempt < seen.attempt[atomic_load(told(TOLD_NUMBER))],
			  "instruction %ld: two have item %lu with attempt %u", n,
			  (unsigned long)atomic_load(told(TOLD_NUMBER)), item.attempt);
}

static void expect_all(long n)
{
	int r = (int)(int64_t)atomic_load(told(TOLD_RESULT));

	for (uint64_t i = 10; i < 10 + seen.n_pushed; ++i)
		cr_assert_gt(seen.attempt[i], 0, "instruction %ld: item %lu is lost", n,
			     (unsigned long)i);
	for (unsigned i = 1; i <= 2; ++i) {
		bool was_taken = i == 1 && (act == ACT_ACK || act == ACT_REJECT);

		cr_assert(was_taken || seen.attempt[i] > 0, "instruction %ld: item %u is lost", n,
			  i);
	}
	if (is_pushing() && r == 0)
		cr_assert_gt(seen.attempt[3], 0, "instruction %ld: item 3 is lost", n);
	if (is_pushing() && r < 0)
		cr_assert_eq(seen.attempt[3], 0, "instruction %ld: item 3 comes from nothing", n);
	if (act == ACT_REJECT && r == 0 && other.view.dead)
		cr_assert_gt(seen.dead_attempt[1], 0, "instruction %ld: no dead letter", n);
}

static void expect_counts(long n, uint64_t n_room_pushed)
{
	unsigned n_dropped = 0;
	struct ipc_queue_state state = queue_scene_state(&other.view);
	uint64_t n_pushed = 2 + seen.n_pushed + n_room_pushed +
			    (is_pushing() && atomic_load(told(TOLD_RESULT)) == 0);

	cr_assert_eq(queue_scene_imbalance(&state), 0, "instruction %ld: %ld are missing", n,
		     (long)queue_scene_imbalance(&state));
	cr_assert_eq(state.queued[0], n_pushed, "instruction %ld: %lu were queued, not %lu", n,
		     (unsigned long)state.queued[0], (unsigned long)n_pushed);
	cr_assert_eq(state.items[0] + state.leased[0], 0, "instruction %ld", n);
	cr_assert_leq(state.dead_lettered[0][IPC_DEAD_REJECTED], seen.n_dead,
		      "instruction %ld: %lu dead letters of %lu are there", n,
		      (unsigned long)seen.n_dead,
		      (unsigned long)state.dead_lettered[0][IPC_DEAD_REJECTED]);
	if (ways & 16)
		n_dropped = 1 + (atomic_load(told(TOLD_RESULT)) == 0);
	if (!(ways & 8))
		cr_assert_eq(state.dropped[0][IPC_DEAD_REJECTED], n_dropped,
			     "instruction %ld: %lu were dropped, not %u", n,
			     (unsigned long)state.dropped[0][IPC_DEAD_REJECTED], n_dropped);
}

/* All of it, to the byte, and again when it was given back. */
static void expect_room(long n, struct queue *view, unsigned n_pieces)
{
	static unsigned char bytes[PIECE];
	struct ipc_queue_item item;
	uint64_t due_ns;

	for (unsigned round = 0; round < 2; ++round) {
		for (unsigned i = 0; i < n_pieces; ++i)
			cr_assert_eq(queue_push(view, 0, bytes, PIECE, &due_ns), 0,
				     "instruction %ld: there is no room for piece %u", n, i);
		cr_assert_eq(queue_push(view, 0, bytes, 1, &due_ns), IPC_EAGAIN,
			     "instruction %ld: there is more room than there is", n);
		for (unsigned i = 0; i < n_pieces; ++i) {
			cr_assert_eq(queue_take(view, &item), 0);
			cr_assert_eq(queue_ack(view, item.lease), 0);
		}
	}
	cr_assert_eq(queue_scene_count(view, 0, QUEUE_FREE), view->layout.items_max,
		     "instruction %ld: %u blocks are free", n,
		     queue_scene_count(view, 0, QUEUE_FREE));
}

/* Its child was reaped: the process is gone. */
static void check(void *arg, long n)
{
	uint64_t n_room_pushed = 0;

	(void)arg;
	expect_told(n);
	see_slow(n);
	if (ways & 4) {
		/* One who stood beside it dies: what it committed stays. */
		push_new(n, &third, 2);
		queue_scene_die(&scene, &third);
	}
	if (!is_held_dead && act != ACT_TAKE) {
		take_all(n, &other);
		expect_room(n, &other.view, N_ITEMS);
		n_room_pushed = 2 * N_ITEMS;
	}
	queue_scene_end(&scene, SLOW);
	take_all(n, &other);
	take_dead(n, &other);
	expect_all(n);
	expect_counts(n, n_room_pushed);
	expect_room(n, &other.view, N_ITEMS);
	if (other.view.dead)
		expect_room(n, &other.dead, N_DEAD);
	cr_assert_eq(header_fault(&other.view.segment->header), 0);
	scene_make();
}

static void run(enum act what, bool held_dead, unsigned what_else)
{
	const struct step_case step = {
		.prepare = prepare, .operation = operate, .check = check, .meanwhile = meanwhile};
	long n_points;

	act = what;
	is_held_dead = held_dead;
	ways = what_else;
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 50);
}

#define OVERTAKEN(name, ...)                                                                       \
	Test(queue_overtaken, name, .timeout = 700)                                                \
	{                                                                                          \
		run(__VA_ARGS__);                                                                  \
	}

/* nobody waits for it, and nothing is lost. */
OVERTAKEN(in_push, ACT_PUSH, false, 0)

/* also not the room, if somebody dies meanwhile. */
OVERTAKEN(in_push_beside_a_death, ACT_PUSH, false, 2)

/* */
OVERTAKEN(in_claim_and_commit, ACT_CLAIM, false, 1 | 2 | 4)
OVERTAKEN(in_commit, ACT_COMMIT, false, 0)
OVERTAKEN(in_commit_beside_a_death, ACT_COMMIT, false, 2 | 4)

/* */
OVERTAKEN(in_take, ACT_TAKE, false, 1)

/* */
OVERTAKEN(in_ack, ACT_ACK, false, 2)

/* */
OVERTAKEN(in_requeue, ACT_REQUEUE, false, 1)

/* */
OVERTAKEN(in_reject, ACT_REJECT, false, 1)

/* */
OVERTAKEN(sweeping_up, ACT_SWEEP, false, 2)

/* */
OVERTAKEN(in_get_state, ACT_STATE, false, 1)

/* Q-6, M-24 */
OVERTAKEN(held_dead_in_push, ACT_PUSH, true, 4)
OVERTAKEN(held_dead_in_claim_and_commit, ACT_CLAIM, true, 2 | 4)
OVERTAKEN(held_dead_in_commit, ACT_COMMIT, true, 4)

/* Q-5, M-24 */
OVERTAKEN(held_dead_in_take, ACT_TAKE, true, 4)
OVERTAKEN(held_dead_in_ack, ACT_ACK, true, 4)
OVERTAKEN(held_dead_in_requeue, ACT_REQUEUE, true, 1)

/* Q-10, M-24: what it writes late is nobody's. */
OVERTAKEN(held_dead_in_reject, ACT_REJECT, true, 1 | 4)
OVERTAKEN(held_dead_in_reject_beside_other_dead_letters, ACT_REJECT, true, 4 | 8)

/* Q-20, M-24: what another counted meanwhile is counted once. */
OVERTAKEN(held_dead_in_reject_beside_another_drop, ACT_REJECT, true, 16)
OVERTAKEN(held_dead_sweeping_up, ACT_SWEEP, true, 4)
