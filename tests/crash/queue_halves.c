/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`, with an operation that stands still before each of its
 * instructions while others get half through theirs: what only three at once can do to each other.
 */
#include "libipc/channel/queue_block.h"

#include <criterion/criterion.h>

#include "tests/support/queue_scene.h"
#include "tests/support/step.h"

enum { N_ITEMS = 2, PIECE = 512, SIZE = 100 };
enum { SLOW = 11, OTHER = 12, THIRD = 13, MORTAL = 14 };

/* Of a target: a copy may have come to the dead letters before. */
#define IS_DOUBTFUL (UINT64_C(1) << 63)

static struct queue_scene scene;
static struct queue_member slow, other, third, mortal;
static struct ipc_queue_item leased;
static struct queue_seen pushed;
static bool is_half; /* the others came to what they were to do */

/* In shared memory. */
enum { TOLD_RESULT, TOLD_BLOCK, TOLD_WORD };

static _Atomic uint64_t *told(unsigned what)
{
	return &scene.board->word[what];
}

static int result(void)
{
	return (int)(int64_t)atomic_load(told(TOLD_RESULT));
}

static void must(bool holds, const char *what)
{
	queue_scene_must(holds, what);
}

static void scene_make(unsigned n_items, bool has_dead)
{
	const uint64_t shape[4] = QUEUE_SHAPE(1, n_items, n_items * PIECE, PIECE, 100);

	if (!scene.segment)
		queue_scene_init(&scene, shape, has_dead ? shape : NULL);
	else
		queue_scene_reset(&scene);
	queue_scene_enter(&scene, &other, OTHER);
	queue_scene_enter(&scene, &third, THIRD);
	queue_scene_enter(&scene, &mortal, MORTAL);
	queue_scene_open(&scene, SLOW);
	queue_scene_attach(&scene, &slow, SLOW);
	is_half = false;
}

static void take_one(struct queue_member *member, uint64_t number, uint32_t attempt)
{
	must(queue_scene_take(&member->view, &leased) == (int64_t)number, "take");
	must(leased.attempt == attempt, "attempt");
}

static struct queue_seen seen_of(struct queue_member *member, uint32_t block)
{
	struct queue_class_view *class = &member->view.class[0];

	return (struct queue_seen){class, block, queue_load(class, block)};
}

static struct queue_seen seen_leased(struct queue_member *member)
{
	return seen_of(member, (uint32_t)queue_lease_mix(&member->view, leased.lease) &
				       (INDEX_RING_BLOCKS_MAX - 1));
}

static void reject_it(void *arg)
{
	(void)arg;
	atomic_store(told(TOLD_RESULT), (uint64_t)(int64_t)queue_reject(&slow.view, leased.lease));
}

static void run(const struct step_case *step)
{
	cr_expect_gt(step_run(step, NULL), 50);
}

/* ---- counting ---- */

static void prepare_counted(void *arg)
{
	(void)arg;
	must(queue_scene_begin(&slow) == 0, "begin");
	must(queue_scene_push(&other, 0, 1, SIZE) == 0, "push");
	take_one(&other, 1, 1);
	must(seen_leased(&other).block == 0, "the first block");
	must(queue_reject(&other.view, leased.lease) == 0, "reject");
	must(queue_scene_push(&other, 0, 2, SIZE) == 0, "push");
	take_one(&slow, 2, 1);
	must(seen_leased(&slow).block == 1, "the second block");
}

/* The block that was counted last is counted once more, and then ends a third time: by one who is
 * stopped before he counts. */
static void use_counted(void *arg, long n)
{
	const uint64_t name_mask = INDEX_RING_BLOCKS_MAX - 1;
	_Atomic uint64_t *counter = &other.view.class[0].shared->ends[1][IPC_DEAD_REJECTED];
	struct queue_seen last;

	(void)arg;
	for (uint64_t number = 3; number <= 4; ++number) {
		int r = queue_scene_push(&other, 0, number, SIZE);

		cr_assert_eq(r, 0, "instruction %ld: %d", n, r);
		cr_assert_eq(queue_scene_take(&other.view, &leased), (int64_t)number);
		last = seen_leased(&other);
		if (number == 3)
			cr_assert_eq(queue_reject(&other.view, leased.lease), 0);
	}
	if ((atomic_load(counter) & name_mask) == last.block + 1)
		atomic_store(counter, atomic_load(counter) & ~name_mask);
	cr_assert(queue_change(
		&last, queue_word_with(last.word, 1 << 3 | IPC_DEAD_REJECTED, QUEUE_ENDED)));
}

static void check_counted(void *arg, long n)
{
	struct ipc_queue_state state;

	(void)arg;
	cr_assert_eq(result(), 0, "instruction %ld: %d", n, result());
	(void)queue_scene_state(&third.view);
	state = queue_scene_state(&third.view);
	cr_assert_eq(state.dropped[0][IPC_DEAD_REJECTED], 4, "instruction %ld: %lu were counted", n,
		     (unsigned long)state.dropped[0][IPC_DEAD_REJECTED]);
	cr_assert_eq(queue_scene_count(&third.view, 0, QUEUE_FREE), N_ITEMS);
	scene_make(N_ITEMS, false);
}

/* */
Test(queue_halves, block_that_ended_again_is_counted_again, .timeout = 120)
{
	const struct step_case step = {.prepare = prepare_counted,
				       .operation = reject_it,
				       .meanwhile = use_counted,
				       .check = check_counted};

	scene_make(N_ITEMS, false);
	run(&step);
}

/* ---- taking ---- */

static void prepare_waiting(void *arg)
{
	(void)arg;
	must(queue_scene_begin(&slow) == 0, "begin");
	must(queue_scene_push(&other, 0, 1, SIZE) == 0, "push");
}

static void take_it(void *arg)
{
	struct ipc_queue_item item;

	(void)arg;
	atomic_store(told(TOLD_RESULT), (uint64_t)(int64_t)queue_take(&slow.view, &item));
}

/* Who took it dies before it freed the entry; its item is taken from the front, and then the same
 * block is being filled, while the entry still names it. */
static void fill_again(void *arg, long n)
{
	struct queue_seen seen = seen_of(&mortal, 0);

	(void)arg;
	if (queue_word_phase(seen.word) != QUEUE_READY)
		return;

	is_half = true;
	cr_assert(queue_change(&seen, queue_word_with(seen.word, mortal.view.row, QUEUE_LEASED)));
	queue_scene_die(&scene, &mortal);
	cr_assert_eq(queue_scene_take(&third.view, &leased), 1, "instruction %ld", n);
	cr_assert_eq(leased.attempt, 2);
	cr_assert_eq(queue_ack(&third.view, leased.lease), 0);
	cr_assert_eq(
		queue_room_take(&other.view, &other.view.class[0], SIZE, QUEUE_READY, 1, &pushed),
		0);
}

static void check_filled(void *arg, long n)
{
	static unsigned char bytes[SIZE];
	struct queue_label label = {.origin = OTHER};

	(void)arg;
	if (is_half) {
		cr_assert_eq(result(), IPC_EAGAIN, "instruction %ld: %d: took what was not pushed",
			     n, result());
		pattern_fill(bytes, SIZE, 2);
		queue_fill(&other.view, &pushed, bytes, SIZE, &label);
		cr_assert_eq(queue_add(&other.view, &pushed), 0);
		cr_assert_eq(queue_scene_take(&third.view, &leased), 2, "instruction %ld", n);
		cr_assert_eq(leased.attempt, 1);
	} else {
		cr_assert_eq(result(), 0, "instruction %ld: %d", n, result());
	}
	scene_make(1, false);
}

/* */
Test(queue_halves, entry_of_an_old_use_is_not_the_item_that_is_being_pushed, .timeout = 120)
{
	const struct step_case step = {.prepare = prepare_waiting,
				       .operation = take_it,
				       .meanwhile = fill_again,
				       .check = check_filled};

	scene_make(1, false);
	run(&step);
}

/* ---- moving ---- */

/* The lease becomes MOVING; the copy stands in the dead letters, and is not committed. */
static void move_by_half(struct queue_member *member, struct queue_seen *copy)
{
	static unsigned char bytes[SIZE];
	struct queue_label label = {
		.origin = OTHER, .reason = IPC_DEAD_REJECTED, .source = QUEUE_SCENE_NAME};
	struct queue_seen seen = seen_leased(member);
	struct queue_block *block = queue_block_of(&member->view, &seen);

	must(queue_room_take(&member->dead, &member->dead.class[0], SIZE, QUEUE_READY,
			     atomic_load(&block->target) & IS_DOUBTFUL ? 2 : 1, copy) == 0,
	     "room");
	pattern_fill(bytes, SIZE, 1);
	queue_fill(&member->dead, copy, bytes, SIZE, &label);
	atomic_store(&block->reason, IPC_DEAD_REJECTED);
	atomic_store(&block->target, queue_word_use(copy->word) | (uint64_t)copy->block << 29 |
					     (uint64_t)QUEUE_SCENE_GENERATION << 52);
	must(queue_change(&seen, queue_word_with(seen.word, member->view.row, QUEUE_MOVING)),
	     "moving");
}

static void expect_one_dead_letter(long n, struct queue_member *member)
{
	cr_assert_eq(queue_scene_take(&member->dead, &leased), 1, "instruction %ld: none", n);
	cr_assert_eq(queue_ack(&member->dead, leased.lease), 0);
	cr_assert_eq(queue_take(&member->dead, &leased), IPC_EAGAIN, "instruction %ld: two", n);
}

static void prepare_moving(void *arg)
{
	struct queue_seen copy;

	(void)arg;
	must(queue_scene_begin(&slow) == 0, "begin");
	must(queue_scene_push(&other, 0, 1, SIZE) == 0, "push");
	take_one(&mortal, 1, 1);
	move_by_half(&mortal, &copy);
	atomic_store(told(TOLD_BLOCK), copy.block);
	atomic_store(told(TOLD_WORD), copy.word);
	queue_scene_end(&scene, MORTAL);
}

static void sweep_it(void *arg)
{
	(void)arg;
	queue_sweep(&slow.view);
}

/* It was only held dead: it commits as its last deed. */
static void commit_and_die(void *arg, long n)
{
	struct queue_seen copy = {.class = &mortal.dead.class[0],
				  .block = (uint32_t)atomic_load(told(TOLD_BLOCK)),
				  .word = atomic_load(told(TOLD_WORD))};

	(void)arg;
	cr_assert_eq(queue_load(copy.class, copy.block), copy.word, "instruction %ld", n);
	cr_assert_eq(queue_add(&mortal.dead, &copy), 0);
	queue_scene_die(&scene, &mortal);
}

static void check_committed(void *arg, long n)
{
	(void)arg;
	expect_one_dead_letter(n, &third);
	scene_make(N_ITEMS, true);
}

/* */
Test(queue_halves, dead_letter_that_was_a_movers_last_deed_stays, .timeout = 120)
{
	const struct step_case step = {.prepare = prepare_moving,
				       .operation = sweep_it,
				       .meanwhile = commit_and_die,
				       .check = check_committed};

	scene_make(N_ITEMS, true);
	run(&step);
}

static void prepare_lease(void *arg)
{
	(void)arg;
	prepare_waiting(NULL);
	take_one(&slow, 1, 1);
	atomic_store(told(TOLD_WORD), seen_leased(&slow).word);
}

/* Its lease goes to another one, who moves it, and dies when the copy is committed. */
static void move_meanwhile(void *arg, long n)
{
	struct queue_seen copy;

	(void)arg;
	if (seen_of(&other, 0).word != atomic_load(told(TOLD_WORD)))
		return;

	is_half = true;
	queue_scene_end(&scene, SLOW);
	cr_assert_eq(queue_scene_take(&other.view, &leased), 1, "instruction %ld", n);
	move_by_half(&other, &copy);
	cr_assert_eq(queue_add(&other.dead, &copy), 0);
}

static void check_moved(void *arg, long n)
{
	(void)arg;
	cr_assert_eq(result(), is_half ? IPC_ESTALE : 0, "instruction %ld: %d", n, result());
	queue_scene_die(&scene, &other);
	cr_assert_eq(queue_take(&third.view, &leased), IPC_EAGAIN,
		     "instruction %ld: it comes again, and is a dead letter", n);
	expect_one_dead_letter(n, &third);
	scene_make(N_ITEMS, true);
}

/* Q-10, M-24 */
Test(queue_halves, who_is_held_dead_does_not_tell_where_anothers_copy_is, .timeout = 120)
{
	const struct step_case step = {.prepare = prepare_lease,
				       .operation = reject_it,
				       .meanwhile = move_meanwhile,
				       .check = check_moved};

	scene_make(N_ITEMS, true);
	run(&step);
}

static void prepare_doubtful(void *arg)
{
	struct queue_seen seen;

	(void)arg;
	prepare_waiting(NULL);
	take_one(&slow, 1, 1);
	seen = seen_leased(&slow);
	atomic_store(&queue_block_of(&slow.view, &seen)->target, IS_DOUBTFUL);
}

static void check_doubt(void *arg, long n)
{
	(void)arg;
	queue_scene_end(&scene, SLOW);
	if (queue_take(&other.view, &leased) == 0)
		cr_assert_eq(queue_reject(&other.view, leased.lease), 0);
	cr_assert_eq(queue_scene_take(&other.dead, &leased), 1, "instruction %ld: none", n);
	cr_assert_eq(leased.attempt, 2, "instruction %ld: it may be the second copy", n);
	cr_assert_eq(queue_ack(&other.dead, leased.lease), 0);
	cr_assert_eq(queue_take(&other.dead, &leased), IPC_EAGAIN, "instruction %ld: two", n);
	scene_make(N_ITEMS, true);
}

/* also if the next mover dies. */
Test(queue_halves, doubt_about_a_copy_stays, .timeout = 120)
{
	const struct step_case step = {
		.prepare = prepare_doubtful, .operation = reject_it, .check = check_doubt};

	scene_make(N_ITEMS, true);
	run(&step);
}
