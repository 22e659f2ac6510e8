/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`, killed before each of its instructions.  After each death a
 * survivor, who was there or who inherits the row, finds what was before the operation or what is
 * after it: nothing lost, nothing twice without a larger attempt, the order, the counts, the room.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/channel/queue_block.h"
#include "tests/support/queue_scene.h"
#include "tests/support/step.h"

enum { N_ITEMS = 4, N_DEAD = 3, PIECE = 1024, N_BYTES = N_ITEMS * PIECE, SIZE = 100 };
enum { VICTIM = 11, OTHER = 12, MORTAL = 13, HEIR = 14, TEXT = 128 };

enum act {
	ACT_PUSH,
	ACT_CLAIM_AND_COMMIT,
	ACT_ABORT,
	ACT_TAKE,
	ACT_TAKE_RETURNED,
	ACT_TAKE_TOO_OFTEN,
	ACT_ACK,
	ACT_ACK_MANY,
	ACT_REQUEUE,
	ACT_REQUEUE_TOO_OFTEN,
	ACT_REJECT,
	ACT_REJECT_TO_FULL,
	ACT_REFUSED,
	ACT_SHUTDOWN,
	ACT_SWEEP,
	ACT_SWEEP_HALF_MOVED,
	ACT_SWEEP_MOVED,
	ACT_BEGIN,
	ACT_CLOSE,
	ACT_ABANDON,
};

/*
 * What is found: items as number/attempt in the order of their taking, dead letters as
 * number:reason/attempt.
 */
struct plan {
	enum act act;
	const char *before, *before_dead;
	const char *after, *after_dead;
	enum ipc_dead_reason drop; /* after it one was dropped for that; NONE: none */
	unsigned n_acknowledged;   /* after it, by the victim */
	bool has_no_dead_letters;
	bool is_used_between; /* the dead letters, between the death and its being told */
};

static struct queue_scene scene;
static struct queue_member victim, other, mortal, heir;
static struct ipc_queue_item leased, both[2];
static void *claimed;
static const struct plan *plan;

static _Atomic uint64_t *progress(void)
{
	return &scene.board->word[0];
}

static void must(bool holds, const char *what)
{
	queue_scene_must(holds, what);
}

static void push(struct queue_member *member, uint64_t number)
{
	must(queue_scene_push(member, 0, number, SIZE) == 0, "push");
}

static void take(struct queue_member *member)
{
	must(queue_take(&member->view, &leased) == 0, "take");
}

static void scene_make(void)
{
	/* The bytes bind here, and not in the dead letters. */
	const uint64_t shape[4] = QUEUE_SHAPE(2, N_ITEMS, N_BYTES, 2 * PIECE, 3);
	const uint64_t dead[4] = QUEUE_SHAPE(1, N_DEAD, N_DEAD * PIECE, PIECE, 3);

	if (!scene.segment)
		queue_scene_init(&scene, shape, plan->has_no_dead_letters ? NULL : dead);
	else
		queue_scene_reset(&scene);
	queue_scene_enter(&scene, &other, OTHER);
	queue_scene_open(&scene, VICTIM);
	queue_scene_attach(&scene, &victim, VICTIM);
}

/* ---- in the child, at full speed ---- */

/* One that died with a lease and a claim. */
static void leave_mortal(void)
{
	queue_scene_enter(&scene, &mortal, MORTAL);
	take(&mortal);
	must(queue_scene_claim(&mortal, 0, PIECE, &claimed) == 0, "claim");
	queue_scene_die(&scene, &mortal);
}

static struct queue_block *block_of(struct queue *view, const struct queue_seen *seen)
{
	return queue_block_of(view, seen);
}

/* One that died while it moved item 1: the copy is committed, or not. */
static void leave_mover(bool is_committed)
{
	struct queue_seen seen = {.class = &other.view.class[0]},
			  copy = {.class = &other.dead.class[0]};
	struct queue_label label = {
		.origin = OTHER, .reason = IPC_DEAD_REJECTED, .source = QUEUE_SCENE_NAME};

	queue_scene_enter(&scene, &mortal, MORTAL);
	take(&mortal);
	while (queue_word_phase(queue_load(seen.class, seen.block)) != QUEUE_LEASED)
		++seen.block;
	seen.word = queue_load(seen.class, seen.block);
	must(queue_room_take(&mortal.dead, &mortal.dead.class[0], SIZE, QUEUE_READY, 1, &copy) == 0,
	     "room");
	queue_fill(&mortal.dead, &copy, leased.data, SIZE, &label);
	atomic_store(&block_of(&mortal.view, &seen)->reason, IPC_DEAD_REJECTED);
	atomic_store(&block_of(&mortal.view, &seen)->target,
		     queue_word_use(copy.word) | (uint64_t)copy.block << 29 |
			     (uint64_t)QUEUE_SCENE_GENERATION << 52);
	must(queue_swap(&seen, queue_word_with(seen.word, mortal.view.row, QUEUE_MOVING)), "swap");
	if (is_committed)
		must(queue_add(&mortal.dead, &copy) == 0, "add");
	queue_scene_die(&scene, &mortal);
}

/* Its last attempt is the victim's. */
static void wear_out(struct queue_member *member)
{
	for (unsigned i = 0; i < 2; ++i) {
		take(member);
		must(queue_requeue(&member->view, leased.lease) == 0, "requeue");
	}
}

static void prepare(void *arg)
{
	(void)arg;
	push(&other, 1);
	push(&other, 2);
	if (plan->act != ACT_BEGIN)
		must(queue_scene_begin(&victim) == 0, "begin");

	switch (plan->act) {
	case ACT_PUSH:
	case ACT_CLAIM_AND_COMMIT:
	case ACT_TAKE:
	case ACT_SHUTDOWN:
	case ACT_REFUSED:
	case ACT_ABANDON:
		break;
	case ACT_ABORT:
		must(queue_scene_claim(&victim, 0, PIECE, &claimed) == 0, "claim");
		break;
	case ACT_TAKE_RETURNED:
		take(&other);
		must(queue_requeue(&other.view, leased.lease) == 0, "requeue");
		break;
	case ACT_TAKE_TOO_OFTEN:
		wear_out(&other);
		queue_scene_enter(&scene, &mortal, MORTAL);
		take(&mortal);
		queue_scene_die(&scene, &mortal);
		queue_sweep(&victim.view);
		break;
	case ACT_REQUEUE_TOO_OFTEN:
		wear_out(&victim);
		take(&victim);
		break;
	case ACT_REJECT_TO_FULL:
		for (uint64_t i = 7; i < 7 + N_DEAD; ++i)
			must(queue_scene_push_refused(&other, 0, i, SIZE, IPC_FULL_DEAD_LETTER) ==
				     IPC_DEAD_LETTERED,
			     "push");
		take(&victim);
		break;
	case ACT_ACK:
	case ACT_REQUEUE:
	case ACT_REJECT:
		take(&victim);
		break;
	case ACT_ACK_MANY:
		for (unsigned i = 0; i < 2; ++i) {
			take(&victim);
			both[i] = leased;
		}
		break;
	case ACT_SWEEP:
	case ACT_BEGIN:
		leave_mortal();
		break;
	case ACT_SWEEP_HALF_MOVED:
	case ACT_SWEEP_MOVED:
		leave_mover(plan->act == ACT_SWEEP_MOVED);
		break;
	case ACT_CLOSE:
		take(&victim);
		must(queue_scene_claim(&victim, 0, PIECE, &claimed) == 0, "claim");
		break;
	}
}

/* ---- in the child, killed ---- */

static void operate(void *arg)
{
	static unsigned char bytes[SIZE];
	struct ipc_queue_item item;
	uint64_t due_ns;

	(void)arg;
	switch (plan->act) {
	case ACT_PUSH:
		pattern_fill(bytes, SIZE, 3);
		(void)!queue_push(&victim.view, 0, bytes, SIZE, &due_ns);
		break;
	case ACT_CLAIM_AND_COMMIT:
		(void)!queue_claim(&victim.view, 0, PIECE, &claimed);
		pattern_fill(claimed, SIZE, 3);
		(void)!queue_commit(&victim.view, claimed, SIZE, &due_ns);
		break;
	case ACT_ABORT:
		(void)!queue_abort(&victim.view, claimed);
		break;
	case ACT_TAKE:
	case ACT_TAKE_RETURNED:
	case ACT_TAKE_TOO_OFTEN:
		(void)!queue_take(&victim.view, &item);
		break;
	case ACT_ACK:
		(void)!queue_ack(&victim.view, leased.lease);
		break;
	case ACT_ACK_MANY:
		(void)!queue_ack_many(&victim.view, both, 2);
		break;
	case ACT_REQUEUE:
	case ACT_REQUEUE_TOO_OFTEN:
		(void)!queue_requeue(&victim.view, leased.lease);
		break;
	case ACT_REJECT:
	case ACT_REJECT_TO_FULL:
		(void)!queue_reject(&victim.view, leased.lease);
		break;
	case ACT_REFUSED:
		pattern_fill(bytes, SIZE, 3);
		(void)queue_push_refused(&victim.view, 0, bytes, SIZE, IPC_FULL_DEAD_LETTER);
		break;
	case ACT_SHUTDOWN:
		(void)!queue_shutdown(&victim.view);
		break;
	case ACT_SWEEP:
	case ACT_SWEEP_HALF_MOVED:
	case ACT_SWEEP_MOVED:
		queue_sweep(&victim.view);
		break;
	case ACT_BEGIN:
		(void)!queue_scene_begin(&victim);
		break;
	case ACT_CLOSE:
		queue_scene_leave(&scene, &victim);
		break;
	case ACT_ABANDON:
		queue_abandon(&victim.view);
		break;
	}
	atomic_store(progress(), 1);
}

/* ---- in the parent ---- */

struct found {
	char items[TEXT], dead[TEXT];
	unsigned n_items, n_dead[IPC_DEAD_REASONS_MAX];
};

static void add(char text[TEXT], const char *more)
{
	if (text[0])
		(void)strncat(text, " ", TEXT - 1 - strlen(text));
	(void)strncat(text, more, TEXT - 1 - strlen(text));
}

static void find_dead(long n, struct queue_member *survivor, struct found *found)
{
	struct ipc_queue_item item;
	char text[TEXT];

	if (!survivor->view.dead)
		return;
	while (queue_take(&survivor->dead, &item) == 0) {
		cr_assert_neq(item.source, NULL, "instruction %ld", n);
		cr_assert_str_eq(item.source, QUEUE_SCENE_NAME);
		(void)snprintf(text, sizeof(text), "%lu:%u/%u",
			       (unsigned long)queue_scene_number(item.data, item.size),
			       (unsigned)item.reason, item.attempt);
		add(found->dead, text);
		++found->n_dead[item.reason];
		cr_assert_eq(queue_ack(&survivor->dead, item.lease), 0);
	}
}

static void find_items(struct queue_member *survivor, struct found *found)
{
	struct ipc_queue_item item;
	char text[TEXT];

	while (queue_take(&survivor->view, &item) == 0) {
		(void)snprintf(text, sizeof(text), "%lu/%u",
			       (unsigned long)queue_scene_number(item.data, item.size),
			       item.attempt);
		add(found->items, text);
		++found->n_items;
		must(queue_ack(&survivor->view, item.lease) == 0, "ack");
	}
}

static bool is(const char *found, const char *expected)
{
	return strcmp(found, expected ? expected : "") == 0;
}

/* Each item moved or not, none twice. */
static bool is_abandoned(const struct found *found)
{
	static const char *const ways[][2] = {
		{"1/1 2/1", ""},  {"1/2 2/1", ""},     {"2/1", "1:4/1"},
		{"2/2", "1:4/1"}, {"", "1:4/1 2:4/1"},
	};

	for (unsigned i = 0; i < sizeof(ways) / sizeof(*ways); ++i)
		if (is(found->items, ways[i][0]) && is(found->dead, ways[i][1]))
			return true;
	return false;
}

static void expect_counts(long n, struct queue_member *survivor, const struct found *found,
			  bool is_after)
{
	struct ipc_queue_state state = queue_scene_state(&survivor->view);
	unsigned n_acknowledged = found->n_items + (is_after ? plan->n_acknowledged : 0);

	if (plan->act == ACT_ACK_MANY)
		n_acknowledged = 2; /* by the victim or by the survivor */

	cr_assert_eq(queue_scene_imbalance(&state), 0, "instruction %ld: %ld are missing", n,
		     (long)queue_scene_imbalance(&state));
	cr_assert_eq(state.items[0] + state.leased[0], 0, "instruction %ld", n);
	cr_assert_eq(state.acknowledged[0], n_acknowledged,
		     "instruction %ld: %lu were acknowledged, not %u", n,
		     (unsigned long)state.acknowledged[0], n_acknowledged);
	for (unsigned reason = 0; reason < IPC_DEAD_REASONS_MAX; ++reason) {
		unsigned n_dropped = is_after && reason > 0 && plan->drop == reason;
		uint64_t n_dead = state.dead_lettered[0][reason];

		/* Refused at push: between the commit there and the count it is not counted. */
		cr_assert(n_dead == found->n_dead[reason] ||
				  (plan->act == ACT_REFUSED && reason == IPC_DEAD_FULL &&
				   !atomic_load(progress()) && n_dead < found->n_dead[reason]),
			  "instruction %ld: %lu are counted for %u, not %u", n,
			  (unsigned long)n_dead, reason, found->n_dead[reason]);
		cr_assert_eq(state.dropped[0][reason], n_dropped,
			     "instruction %ld: %lu were dropped for %u, not %u", n,
			     (unsigned long)state.dropped[0][reason], reason, n_dropped);
	}
}

/* All of it, to the byte and to the block. */
static void expect_room(long n, struct queue_member *member, struct queue *view, uint64_t n_pieces)
{
	struct ipc_queue_item item;
	uint64_t due_ns;
	static unsigned char bytes[PIECE];

	(void)member;
	for (uint64_t i = 0; i < n_pieces; ++i)
		cr_assert_eq(queue_push(view, 0, bytes, PIECE, &due_ns), 0,
			     "instruction %ld: there is no room for piece %lu", n,
			     (unsigned long)i);
	cr_assert_eq(queue_push(view, 0, bytes, 1, &due_ns), IPC_EAGAIN,
		     "instruction %ld: there is more room than there is", n);
	for (uint64_t i = 0; i < n_pieces; ++i) {
		cr_assert_eq(queue_take(view, &item), 0);
		cr_assert_eq(queue_ack(view, item.lease), 0);
	}
	cr_assert_eq(queue_scene_count(view, 0, QUEUE_FREE), view->layout.items_max,
		     "instruction %ld: %u blocks are free", n,
		     queue_scene_count(view, 0, QUEUE_FREE));
}

/* Whoever was killed on the way, who says it again ends it. */
static bool is_shut(long n, struct queue_member *survivor)
{
	struct ipc_queue_item item;

	if (plan->act != ACT_SHUTDOWN)
		return false;
	if (queue_scene_push(survivor, 1, 9, SIZE) == 0) {
		cr_assert_not(atomic_load(progress()), "it was shut down");
		cr_assert_eq(queue_take(&survivor->view, &item), 0);
		cr_assert_eq(queue_ack(&survivor->view, item.lease), 0);
		return false;
	}

	cr_assert_eq(queue_scene_push(survivor, 0, 9, SIZE), IPC_EPIPE);
	cr_assert_eq(queue_take(&survivor->view, &item), IPC_EPIPE, "instruction %ld", n);
	cr_assert_eq(queue_scene_push(survivor, 1, 9, SIZE), IPC_EPIPE);
	cr_assert_eq(queue_room_used(&survivor->view.class[0]), 0);
	return true;
}

/* The dead letters are used before anybody looks for the dead: what was there may be gone. */
static void use_between(struct found *found, long n)
{
	find_dead(n, &other, found);
	for (unsigned i = 0; i < N_DEAD; ++i) {
		struct ipc_queue_item item;

		/* All but what the dead has claimed. */
		if (queue_scene_push_refused(&other, 1, 8, SIZE, IPC_FULL_DEAD_LETTER) !=
		    IPC_DEAD_LETTERED)
			break;
		must(queue_take(&other.dead, &item) == 0, "take");
		must(queue_ack(&other.dead, item.lease) == 0, "ack");
	}
}

/* Known to be there, or not known any more and so again: with a larger attempt. */
static void expect_used_between(long n, const struct found *found)
{
	cr_assert((is(found->dead, "") && is(found->items, "1/2 2/1")) ||
			  (is(found->dead, "1:2/1") && is(found->items, "2/1")) ||
			  (is(found->dead, "1:2/1") && is(found->items, "1/2 2/1")),
		  "instruction %ld: \"%s\" and dead \"%s\"", n, found->items, found->dead);
}

static void expect_found(long n, struct queue_member *survivor, const struct found *found)
{
	bool is_after = is(found->items, plan->after) && is(found->dead, plan->after_dead);
	bool is_before = is(found->items, plan->before) && is(found->dead, plan->before_dead);

	if (plan->act == ACT_ABANDON)
		is_before = is_abandoned(found);
	if (plan->act == ACT_ACK_MANY)
		is_before = is_before || is(found->items, "2/2");

	cr_assert(is_after || (is_before && !atomic_load(progress())),
		  "instruction %ld%s: \"%s\" and dead \"%s\"", n,
		  atomic_load(progress()) ? ", done" : "", found->items, found->dead);
	expect_counts(n, survivor, found, is_after);
}

static void check(void *arg, long n)
{
	struct queue_member *survivor = n % 2 ? &heir : &other;
	struct found found = {0};

	(void)arg;
	if (plan->is_used_between)
		use_between(&found, n);
	queue_scene_end(&scene, VICTIM);
	if (n % 2)
		queue_scene_enter(&scene, &heir, HEIR);

	find_items(survivor, &found);
	find_dead(n, survivor, &found);
	if (plan->is_used_between)
		expect_used_between(n, &found);
	else
		expect_found(n, survivor, &found);
	if (!is_shut(n, survivor))
		expect_room(n, survivor, &survivor->view, N_ITEMS);
	if (survivor->view.dead)
		expect_room(n, survivor, &survivor->dead, N_DEAD);
	cr_assert_eq(header_fault(&survivor->view.segment->header), 0);
	scene_make();
}

static void run(const struct plan *what)
{
	const struct step_case step = {.prepare = prepare, .operation = operate, .check = check};
	long n_points;

	plan = what;
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 50);
}

#define KILLED(name, ...)                                                                          \
	Test(queue, name, .timeout = 700)                                                          \
	{                                                                                          \
		run(&(const struct plan){__VA_ARGS__});                                            \
	}

/* Q-6, M-25 */
KILLED(killed_in_push, .act = ACT_PUSH, .before = "1/1 2/1", .after = "1/1 2/1 3/1")

/* */
KILLED(killed_in_claim_and_commit, .act = ACT_CLAIM_AND_COMMIT, .before = "1/1 2/1",
       .after = "1/1 2/1 3/1")

/* */
KILLED(killed_in_abort, .act = ACT_ABORT, .before = "1/1 2/1", .after = "1/1 2/1")

/* */
KILLED(killed_in_take, .act = ACT_TAKE, .before = "1/1 2/1", .after = "1/2 2/1")

/* */
KILLED(killed_taking_what_came_back, .act = ACT_TAKE_RETURNED, .before = "1/2 2/1",
       .after = "1/3 2/1")

/* what it meets has come back too often. */
KILLED(killed_moving_what_came_back_too_often, .act = ACT_TAKE_TOO_OFTEN, .before = "2/1",
       .before_dead = "1:3/1", .after = "2/2", .after_dead = "1:3/1")

/* */
KILLED(killed_in_ack, .act = ACT_ACK, .before = "1/2 2/1", .after = "2/1", .n_acknowledged = 1)

/* */
KILLED(killed_in_ack_of_many, .act = ACT_ACK_MANY, .before = "1/2 2/2")

/* */
KILLED(killed_in_requeue, .act = ACT_REQUEUE, .before = "1/2 2/1", .after = "1/2 2/1")

/* */
KILLED(killed_in_requeue_past_the_last_attempt, .act = ACT_REQUEUE_TOO_OFTEN, .before = "2/1",
       .before_dead = "1:3/1", .after = "2/1", .after_dead = "1:3/1")

/* */
KILLED(killed_in_reject, .act = ACT_REJECT, .before = "1/2 2/1", .after = "2/1",
       .after_dead = "1:2/1")

/* */
KILLED(killed_in_reject_with_dead_letters_in_use, .act = ACT_REJECT, .is_used_between = true)

/* */
KILLED(killed_in_reject_without_dead_letters, .act = ACT_REJECT, .before = "1/2 2/1",
       .after = "2/1", .drop = IPC_DEAD_REJECTED, .has_no_dead_letters = true)

/* */
KILLED(killed_in_reject_to_full_dead_letters, .act = ACT_REJECT_TO_FULL, .before = "1/2 2/1",
       .before_dead = "7:1/1 8:1/1 9:1/1", .after = "2/1", .after_dead = "7:1/1 8:1/1 9:1/1",
       .drop = IPC_DEAD_REJECTED)

/* */
KILLED(killed_in_push_of_what_was_refused, .act = ACT_REFUSED, .before = "1/1 2/1",
       .after = "1/1 2/1", .after_dead = "3:1/1")

/* */
KILLED(killed_in_shutdown, .act = ACT_SHUTDOWN, .before = "1/1 2/1", .after = "1/1 2/1")

/* */
KILLED(killed_sweeping_up, .act = ACT_SWEEP, .before = "1/2 2/1", .after = "1/2 2/1")

/* */
KILLED(killed_sweeping_what_was_half_moved, .act = ACT_SWEEP_HALF_MOVED, .before = "1/2 2/1",
       .after = "1/2 2/1")

/* */
KILLED(killed_sweeping_what_was_moved, .act = ACT_SWEEP_MOVED, .before = "2/1",
       .before_dead = "1:2/1", .after = "2/1", .after_dead = "1:2/1")

/* */
KILLED(killed_inheriting_a_row, .act = ACT_BEGIN, .before = "1/2 2/1", .after = "1/2 2/1")

/* Q-15, M-44 */
KILLED(killed_in_close, .act = ACT_CLOSE, .before = "1/2 2/1", .after = "1/2 2/1")

/* */
KILLED(killed_abandoning_the_queue, .act = ACT_ABANDON, .after_dead = "1:4/1 2:4/1")
