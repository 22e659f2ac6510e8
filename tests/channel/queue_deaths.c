/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`: what the dead leave, and what those leave who are held dead.
 * Deaths at each instruction are in crash/queue.c.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/channel/queue_block.h"
#include "tests/support/process.h"
#include "tests/support/queue_scene.h"

enum { N_ITEMS = 8, N_BYTES = 4096, N_ATTEMPTS = 3 };

static struct queue_scene scene;
static struct queue_member a, b, mortal, heir;
static struct ipc_queue_item item;

static void setup(void)
{
	const uint64_t shape[4] = QUEUE_SHAPE(2, N_ITEMS, N_BYTES, 4096, N_ATTEMPTS);
	const uint64_t dead[4] = QUEUE_SHAPE(1, 4, 8192, 4096, 3);

	queue_scene_init(&scene, shape, dead);
	queue_scene_enter(&scene, &a, 11);
	queue_scene_enter(&scene, &b, 12);
	queue_scene_enter(&scene, &mortal, 13);
}

static void teardown(void)
{
	queue_scene_deinit(&scene);
}

static void push(struct queue_member *member, uint64_t number, uint64_t size)
{
	cr_assert_eq(queue_scene_push(member, 0, number, size), 0);
}

static void expect_take(struct queue_member *member, uint64_t number, uint32_t attempt)
{
	int64_t taken = queue_scene_take(&member->view, &item);

	cr_assert_eq(taken, (int64_t)number, "took %ld, not %lu", (long)taken,
		     (unsigned long)number);
	cr_expect_eq(item.attempt, attempt, "item %lu: attempt %u", (unsigned long)number,
		     item.attempt);
}

/* Nothing is left, and all of the room can be had. */
static void expect_empty(void)
{
	struct ipc_queue_state state;

	cr_expect_eq(queue_take(&a.view, &item), IPC_EAGAIN);
	state = queue_scene_state(&a.view);
	cr_expect_eq(queue_scene_imbalance(&state), 0, "%ld are missing",
		     (long)queue_scene_imbalance(&state));
	cr_expect_eq(state.items[0] + state.leased[0], 0);
	for (uint64_t i = 1; i <= 4; ++i)
		cr_expect_eq(queue_scene_push(&a, 0, i, 1024), 0, "piece %lu", (unsigned long)i);
	cr_expect_eq(queue_scene_push(&a, 0, 1, 1), IPC_EAGAIN);
	for (uint64_t i = 1; i <= 4; ++i) {
		cr_expect_eq(queue_take(&a.view, &item), 0);
		cr_expect_eq(queue_ack(&a.view, item.lease), 0);
	}
	for (uint64_t i = 1; i <= N_ITEMS; ++i)
		cr_expect_eq(queue_scene_push(&a, 0, i, 8), 0);
}

/* ---- leases ---- */

/* */
Test(queue_deaths, items_of_a_dead_consumer_come_back_oldest_first, .init = setup, .fini = teardown)
{
	for (uint64_t i = 1; i <= 5; ++i)
		push(&a, i, 100);
	expect_take(&mortal, 1, 1);
	expect_take(&b, 2, 1);
	expect_take(&mortal, 3, 1);
	expect_take(&mortal, 4, 1);
	queue_scene_die(&scene, &mortal);

	expect_take(&a, 1, 2);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	expect_take(&a, 3, 2);
	cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	expect_take(&a, 3, 3);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	expect_take(&a, 4, 2);
	expect_take(&a, 5, 1);
	cr_expect_eq(queue_take(&a.view, &item), IPC_EAGAIN);
}

/* Q-5, M-24: held dead is enough for a lease. */
Test(queue_deaths, lease_of_one_held_dead_is_taken_over_and_stale, .init = setup, .fini = teardown)
{
	struct ipc_queue_item taken_over;

	push(&a, 1, 100);
	push(&a, 2, 100);
	expect_take(&mortal, 1, 1);
	taken_over = item;
	queue_scene_end(&scene, mortal.id);
	expect_take(&a, 1, 2);
	cr_expect_eq(queue_ack(&mortal.view, taken_over.lease), IPC_ESTALE);
	cr_expect_eq(queue_requeue(&mortal.view, taken_over.lease), IPC_ESTALE);
	cr_expect_eq(queue_reject(&mortal.view, taken_over.lease), IPC_ESTALE);
	cr_expect_eq(queue_scene_number(taken_over.data, taken_over.size), 1,
		     "the bytes are there while the item is");
	cr_expect_eq(queue_ack(&a.view, item.lease), 0);
	expect_take(&a, 2, 1);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	expect_empty();
}

/* Nobody looks for the dead before the broker has told something. */
Test(queue_deaths, dead_are_looked_for_when_something_was_told, .init = setup, .fini = teardown)
{
	push(&a, 1, 100);
	expect_take(&mortal, 1, 1);
	queue_sweep(&a.view);
	cr_expect_eq(queue_scene_count(&a.view, 0, QUEUE_LEASED), 1);
	queue_scene_die(&scene, &mortal);
	cr_expect_eq(queue_probe_item(&b.view), 0, "whoever probes sees it, too");
	queue_sweep(&a.view);
	cr_expect_eq(queue_scene_count(&a.view, 0, QUEUE_LEASED), 0);
	expect_take(&a, 1, 2);
}

/* ---- claims ---- */

/* */
Test(queue_deaths, claims_of_the_dead_vanish_with_their_room, .init = setup, .fini = teardown)
{
	void *data;

	cr_assert_eq(queue_scene_claim(&mortal, 0, 3000, &data), 0);
	push(&a, 1, 1000);
	cr_assert_eq(queue_scene_push(&a, 0, 2, 3000), IPC_EAGAIN);
	queue_scene_die(&scene, &mortal);
	cr_expect_eq(queue_scene_push(&a, 0, 2, 3000), 0);
	expect_take(&b, 1, 1);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	expect_take(&b, 2, 1);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	expect_empty();
}

/* Q-6, M-24: it may be writing there. */
Test(queue_deaths, claim_of_one_held_dead_stays_until_its_process_is_gone, .init = setup,
     .fini = teardown)
{
	void *data;

	cr_assert_eq(queue_scene_claim(&mortal, 0, 3000, &data), 0);
	queue_scene_end(&scene, mortal.id);
	cr_expect_eq(queue_scene_push(&a, 0, 2, 3000), IPC_EAGAIN);
	cr_expect_eq(queue_scene_count(&a.view, 0, QUEUE_CLAIMED), 1);
	pattern_fill(data, 3000, 7);
	push(&a, 1, 1000);
	expect_take(&b, 1, 1);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);

	queue_scene_end_process(scene.segment, mortal.view.row);
	queue_scene_end(&scene, mortal.id);
	cr_expect_eq(queue_scene_push(&a, 0, 2, 3000), 0);
	expect_take(&b, 2, 1);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	expect_empty();
}

/* ---- what nobody tells ---- */

/* M-24: nobody is told when the process of one held dead ends. */
Test(queue_deaths, claim_of_one_held_dead_vanishes_when_its_process_does, .init = setup,
     .fini = teardown, .timeout = 60)
{
	struct timespec limit = process_deadline(30000);
	void *data;
	int r;

	cr_assert_eq(queue_scene_claim(&mortal, 0, 3000, &data), 0);
	queue_scene_end(&scene, mortal.id);
	cr_assert_eq(queue_scene_push(&a, 0, 1, 3000), IPC_EAGAIN);
	queue_scene_end_process(scene.segment, mortal.view.row);
	while ((r = queue_scene_push(&a, 0, 1, 3000)) == IPC_EAGAIN)
		cr_assert(!process_has_passed(&limit), "it holds its room for 10 s");
	cr_expect_eq(r, 0);
	expect_take(&b, 1, 1);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	expect_empty();
}

/* Q-5, M-24: one that is held dead takes an item when the others have looked already. */
Test(queue_deaths, late_lease_of_one_held_dead_comes_back_when_its_process_is_gone, .init = setup,
     .fini = teardown, .timeout = 60)
{
	struct timespec limit = process_deadline(30000);
	int r;

	push(&a, 1, 100);
	queue_scene_end(&scene, mortal.id);
	queue_sweep(&a.view);
	(void)!queue_take(&mortal.view, &item);
	queue_scene_end_process(scene.segment, mortal.view.row);
	while ((r = queue_take(&a.view, &item)) == IPC_EAGAIN)
		cr_assert(!process_has_passed(&limit), "it is lost for 10 s");
	cr_expect_eq(r, 0);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	expect_empty();
}

/* whoever begins has not looked yet, also if this client was never told of anything. */
Test(queue_deaths, items_of_who_died_before_are_found_by_who_begins, .init = setup,
     .fini = teardown)
{
	push(&a, 1, 100);
	expect_take(&mortal, 1, 1);
	liveness_handle_set(scene.table, LIVENESS_SLOT(mortal.id), 0);
	queue_scene_enter(&scene, &heir, 14);
	cr_assert_neq(heir.view.row, mortal.view.row, "its process lives");
	expect_take(&heir, 1, 2);
	cr_assert_eq(queue_ack(&heir.view, item.lease), 0);
}

/* ---- rows ---- */

/* M-25: what the dead wrote is nobody's when another gets the row. */
Test(queue_deaths, who_inherits_a_row_has_nothing_of_the_dead, .init = setup, .fini = teardown)
{
	void *data;

	push(&a, 1, 100);
	push(&a, 2, 100);
	expect_take(&mortal, 1, 1);
	cr_assert_eq(queue_scene_claim(&mortal, 0, 1000, &data), 0);
	queue_scene_die(&scene, &mortal);
	queue_scene_enter(&scene, &heir, 14);
	cr_assert_eq(heir.view.row, mortal.view.row);

	cr_expect_eq(queue_scene_count(&a.view, 0, QUEUE_CLAIMED), 0);
	cr_expect_eq(queue_scene_count(&a.view, 0, QUEUE_LEASED), 0);
	cr_expect_eq(queue_ack(&heir.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_scene_commit(&heir, data, 8), IPC_EINVAL);
	expect_take(&heir, 1, 2);
	cr_assert_eq(queue_ack(&heir.view, item.lease), 0);
	expect_take(&heir, 2, 1);
	cr_assert_eq(queue_ack(&heir.view, item.lease), 0);
	expect_empty();
}

/* committed by the dead is committed. */
Test(queue_deaths, items_of_a_dead_producer_stay, .init = setup, .fini = teardown)
{
	for (uint64_t i = 1; i <= 3; ++i)
		push(i == 2 ? &a : &mortal, i, 100);
	queue_scene_die(&scene, &mortal);
	queue_scene_enter(&scene, &heir, 14);
	cr_assert_eq(heir.view.row, mortal.view.row);
	queue_give_back(&heir.view);
	for (uint64_t i = 1; i <= 3; ++i) {
		expect_take(&b, i, 1);
		cr_expect_eq(item.origin, i == 2 ? 11 : 13);
		cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	}
	expect_empty();
}

/* M-24 */
Test(queue_deaths, row_of_one_held_dead_is_inherited_when_its_process_is_gone, .init = setup,
     .fini = teardown)
{
	queue_scene_end(&scene, mortal.id);
	queue_scene_enter(&scene, &heir, 14);
	cr_expect_neq(heir.view.row, mortal.view.row);
	queue_scene_end_process(scene.segment, mortal.view.row);
	queue_scene_enter(&scene, &heir, 15);
	cr_expect_eq(heir.view.row, mortal.view.row);
}

/* M-24 */
Test(queue_deaths, handle_that_is_held_dead_gets_no_row, .init = setup, .fini = teardown)
{
	queue_scene_attach(&scene, &heir, 14);
	cr_expect_eq(queue_begin(&heir.view), IPC_ESTALE);
}

Test(queue_deaths, when_there_are_no_rows_it_is_told, .init = setup, .fini = teardown)
{
	for (uint32_t row = 0; row < ROWS_MAX; ++row)
		atomic_store(&a.view.segment->rows.owner[row], a.id);
	queue_scene_open(&scene, 14);
	queue_scene_attach(&scene, &heir, 14);
	cr_expect_eq(queue_begin(&heir.view), IPC_ENOSPC);
}

/* ---- what a death leaves between two steps ---- */

/* Bytes that were claimed, and no block: whoever finds the class full sees it. */
Test(queue_deaths, bytes_that_nobody_has_are_found_when_there_is_no_room, .init = setup,
     .fini = teardown)
{
	push(&a, 1, 1000);
	atomic_fetch_add(&a.view.class[0].shared->claimed, 3000);
	cr_assert_eq(queue_scene_push(&a, 0, 2, 1000), IPC_EAGAIN, "nobody died");
	queue_scene_die(&scene, &mortal);
	cr_expect_eq(queue_scene_push(&a, 0, 2, 3000), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 2, 97), IPC_EAGAIN, "not one more than there are");
	cr_expect_eq(queue_scene_push(&a, 0, 3, 96), 0);
	for (uint64_t i = 1; i <= 3; ++i) {
		expect_take(&b, i, 1);
		cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	}
	expect_empty();
}

/* M-25: nobody finds the dead any more then. */
Test(queue_deaths, what_the_dead_did_by_half_is_done_by_who_inherits_its_row, .init = setup,
     .fini = teardown)
{
	uint32_t block = 0;
	uint64_t word;

	push(&a, 1, 100);
	expect_take(&mortal, 1, 1);
	while (queue_word_phase(atomic_load(&a.view.class[0].word[block])) != QUEUE_LEASED)
		++block;
	word = atomic_load(&a.view.class[0].word[block]);
	atomic_store(&a.view.class[0].word[block], (word & ~UINT64_C(7)) | QUEUE_RETURNED);
	atomic_fetch_add(&a.view.class[0].shared->claimed, 3000);
	queue_scene_die(&scene, &mortal);
	queue_scene_enter(&scene, &heir, 14);
	cr_assert_eq(heir.view.row, mortal.view.row);

	expect_take(&a, 1, 1);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	expect_empty();
}

/* READY, and no entry of the ring names it. */
Test(queue_deaths, push_that_came_to_nothing_leaves_nothing, .init = setup, .fini = teardown)
{
	uint64_t word, ready;
	uint32_t block = 0;
	void *data;

	cr_assert_eq(queue_scene_claim(&mortal, 0, 2000, &data), 0);
	push(&a, 1, 1000);
	while (queue_word_phase(atomic_load(&a.view.class[0].word[block])) != QUEUE_CLAIMED)
		++block;
	word = atomic_load(&a.view.class[0].word[block]);
	ready = (word & ~UINT64_C(7)) | QUEUE_READY;
	atomic_store(&a.view.class[0].word[block], ready);

	queue_scene_end(&scene, mortal.id);
	queue_sweep(&a.view);
	cr_expect_eq(atomic_load(&a.view.class[0].word[block]), ready, "its process lives");
	queue_scene_die(&scene, &mortal);
	queue_sweep(&a.view);
	cr_expect_eq(queue_word_phase(atomic_load(&a.view.class[0].word[block])), QUEUE_FREE);
	expect_take(&b, 1, 1);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	expect_empty();
}

/* Item 1 as mortal's, MOVING, with a copy that is not committed yet. */
static struct queue_seen begin_moving(void)
{
	struct queue_seen seen = {.class = &a.view.class[0]}, copy = {.class = NULL};
	struct queue_label label = {.reason = IPC_DEAD_REJECTED, .source = QUEUE_SCENE_NAME};
	struct queue_block *block;

	push(&a, 1, 100);
	expect_take(&mortal, 1, 1);
	while (queue_word_phase(queue_load(seen.class, seen.block)) != QUEUE_LEASED)
		++seen.block;
	seen.word = queue_load(seen.class, seen.block);
	cr_assert_eq(
		queue_room_take(&mortal.dead, &mortal.dead.class[0], 100, QUEUE_READY, 1, &copy),
		0);
	queue_fill(&mortal.dead, &copy, item.data, 100, &label);
	block = queue_block_of(&a.view, &seen);
	atomic_store(&block->reason, IPC_DEAD_REJECTED);
	atomic_store(&block->target, queue_word_use(copy.word) | (uint64_t)copy.block << 29 |
					     (uint64_t)QUEUE_SCENE_GENERATION << 52);
	cr_assert(queue_swap(&seen, queue_word_with(seen.word, mortal.view.row, QUEUE_MOVING)));
	return copy;
}

/* M-24, Q-10: a mover that is held dead goes on when its copy's block has been used again, and puts
 * down where the copy stands; what stands there now is another's. */
Test(queue_deaths, late_mover_does_not_lose_the_dead_letter_of_another, .init = setup,
     .fini = teardown)
{
	struct queue_seen copy = begin_moving();
	struct ipc_queue_item dead;
	uint64_t n_found = 0;

	queue_scene_end(&scene, mortal.id);
	expect_take(&b, 1, 2);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	for (uint64_t i = 2; i <= 4; ++i) {
		push(&a, i, 100);
		expect_take(&b, i, 1);
		cr_assert_eq(queue_reject(&b.view, item.lease), 0);
	}

	(void)!queue_add(&mortal.dead, &copy);
	queue_scene_die(&scene, &b);
	while (queue_scene_take(&a.dead, &dead) > 0) {
		/* Its own may come, too: for others it was not known whether it would. */
		n_found += queue_scene_number(dead.data, dead.size) != 1;
		cr_expect_eq(queue_ack(&a.dead, dead.lease), 0);
	}
	cr_expect_eq(n_found, queue_scene_state(&a.view).dead_lettered[0][IPC_DEAD_REJECTED]);
	cr_expect_eq(n_found, 3);
	queue_scene_die(&scene, &mortal);
	cr_expect_eq(queue_take(&a.dead, &dead), IPC_EAGAIN);
	cr_expect_eq(queue_scene_count(&a.dead, 0, QUEUE_FREE), 4, "its block is free at last");
}

/* and what it was not known of comes a second time with attempt 2. */
Test(queue_deaths, copy_that_may_have_come_is_followed_by_another_attempt, .init = setup,
     .fini = teardown)
{
	struct queue_seen copy = begin_moving();
	struct ipc_queue_item dead;

	queue_scene_end(&scene, mortal.id);
	expect_take(&b, 1, 2);
	cr_assert_eq(queue_reject(&b.view, item.lease), 0);
	(void)!queue_add(&mortal.dead, &copy);
	cr_assert_eq(queue_scene_take(&a.dead, &dead), 1);
	cr_expect_eq(dead.attempt, 2);
	cr_assert_eq(queue_scene_take(&a.dead, &dead), 1);
	cr_expect_eq(dead.attempt, 1);
}

/* A member that had nothing changes nothing. */
Test(queue_deaths, any_number_of_deaths_leaves_all_rooms, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (uint64_t i = 0; i < 300; ++i) {
		void *data;

		queue_scene_enter(&scene, &heir, 20 + i);
		cr_assert_eq(queue_scene_push(&heir, 0, i + 1, 100), 0, "life %lu",
			     (unsigned long)i);
		cr_assert_eq(queue_scene_claim(&heir, i % 2, 100, &data), 0);
		if (i % 3 == 0)
			(void)!queue_take(&heir.view, &item);
		queue_scene_die(&scene, &heir);
		cr_assert_eq(queue_take(&a.view, &item), 0);
		cr_assert_eq(item.attempt, i % 3 == 0 ? 2 : 1);
		cr_assert_eq(queue_scene_number(item.data, item.size), i + 1);
		cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	}
	cr_expect_leq(rows_top(&a.view.segment->rows), 4);
	expect_empty();
}
