/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`: dead letters, drops, and how they are counted.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/queue_scene.h"

enum { N_ITEMS = 8, N_ATTEMPTS = 2, N_DEAD = 4 };

static struct queue_scene scene;
static struct queue_member a, b;
static struct ipc_queue_item item;

static void begin(uint64_t dead_classes, uint64_t dead_size_max)
{
	const uint64_t shape[4] = QUEUE_SHAPE(3, N_ITEMS, 65536, 2048, N_ATTEMPTS);
	uint64_t dead[4] = QUEUE_SHAPE(dead_classes, N_DEAD, 4096, dead_size_max, 3);

	dead[3] = 1 | UINT64_C(1) << 32; /* moving needs no token */
	queue_scene_init(&scene, shape, dead);
	queue_scene_enter(&scene, &a, 11);
	queue_scene_enter(&scene, &b, 12);
}

static void setup(void)
{
	begin(2, 1024);
}

static void teardown(void)
{
	queue_scene_deinit(&scene);
}

static void take(uint64_t number)
{
	int64_t taken = queue_scene_take(&a.view, &item);

	cr_assert_eq(taken, (int64_t)number, "took %ld, not %lu", (long)taken,
		     (unsigned long)number);
}

static void expect_dead(struct ipc_queue_item *ret, uint64_t number, enum ipc_dead_reason reason)
{
	int64_t taken = queue_scene_take(&b.dead, ret);

	cr_assert_eq(taken, (int64_t)number, "took %ld, not %lu", (long)taken,
		     (unsigned long)number);
	cr_expect_eq(ret->reason, reason, "reason %d", (int)ret->reason);
	cr_expect_eq(ret->attempt, 1);
	cr_assert_neq(ret->source, NULL);
	cr_expect_str_eq(ret->source, QUEUE_SCENE_NAME);
}

static void expect_no_dead(void)
{
	struct ipc_queue_item none;

	cr_expect_eq(queue_take(&b.dead, &none), IPC_EAGAIN);
}

static void expect_counts(unsigned priority, enum ipc_dead_reason reason, uint64_t n_dead,
			  uint64_t n_dropped)
{
	struct ipc_queue_state state = queue_scene_state(&b.view);

	cr_expect_eq(state.dead_lettered[priority][reason], n_dead, "%lu were dead-lettered",
		     (unsigned long)state.dead_lettered[priority][reason]);
	cr_expect_eq(state.dropped[priority][reason], n_dropped, "%lu were dropped",
		     (unsigned long)state.dropped[priority][reason]);
	cr_expect_eq(queue_scene_imbalance(&state), 0, "%ld are missing",
		     (long)queue_scene_imbalance(&state));
	state = queue_scene_state(&b.dead);
	cr_expect_eq(queue_scene_imbalance(&state), 0);
}

/* ---- the reasons ---- */

/* */
Test(queue_dead, rejected_item_comes_with_all_that_is_known, .init = setup, .fini = teardown)
{
	struct ipc_queue_item dead;
	uint64_t enqueued_ns;

	cr_assert_eq(queue_scene_push(&b, 1, 7, 300), 0);
	take(7);
	enqueued_ns = item.enqueued_ns;
	cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	cr_expect_eq(queue_reject(&a.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_ack(&a.view, item.lease), IPC_ESTALE);

	expect_dead(&dead, 7, IPC_DEAD_REJECTED);
	cr_expect_eq(dead.size, 300);
	cr_expect_eq(dead.priority, 1);
	cr_expect_eq(dead.origin, 12);
	cr_expect_eq(dead.enqueued_ns, enqueued_ns);
	expect_no_dead();
	expect_counts(1, IPC_DEAD_REJECTED, 1, 0);
	cr_expect_eq(queue_scene_count(&a.view, 1, QUEUE_FREE), N_ITEMS);
}

/* */
Test(queue_dead, item_of_too_many_attempts_goes_there, .init = setup, .fini = teardown)
{
	struct ipc_queue_item dead;

	cr_assert_eq(queue_scene_push(&a, 0, 7, 30), 0);
	for (unsigned i = 0; i < N_ATTEMPTS; ++i) {
		take(7);
		cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	}
	cr_expect_eq(queue_take(&a.view, &item), IPC_EAGAIN);
	expect_dead(&dead, 7, IPC_DEAD_ATTEMPTS);
	expect_no_dead();
	expect_counts(0, IPC_DEAD_ATTEMPTS, 1, 0);
}

/* also one that its dead consumers had too often. */
Test(queue_dead, item_that_outlived_too_many_consumers_goes_there, .init = setup, .fini = teardown)
{
	static struct queue_member mortal;
	struct ipc_queue_item dead;

	cr_assert_eq(queue_scene_push(&a, 0, 7, 30), 0);
	for (uint32_t i = 1; i <= N_ATTEMPTS; ++i) {
		queue_scene_enter(&scene, &mortal, 20 + i);
		cr_assert_eq(queue_scene_take(&mortal.view, &item), 7);
		cr_expect_eq(item.attempt, i);
		queue_scene_die(&scene, &mortal);
	}
	queue_sweep(&a.view);
	cr_expect_eq(queue_take(&a.view, &item), IPC_EAGAIN);
	expect_dead(&dead, 7, IPC_DEAD_ATTEMPTS);
	expect_counts(0, IPC_DEAD_ATTEMPTS, 1, 0);
}

/* */
Test(queue_dead, all_that_waits_goes_there_when_the_last_consumer_is_gone, .init = setup,
     .fini = teardown)
{
	static struct queue_member mortal;
	struct ipc_queue_item dead;

	for (uint64_t i = 1; i <= 3; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, 30), 0);
	queue_scene_enter(&scene, &mortal, 20);
	cr_assert_eq(queue_scene_take(&mortal.view, &item), 1);
	queue_scene_die(&scene, &mortal);

	queue_sweep(&a.view);
	queue_abandon(&a.view);
	queue_abandon(&a.view);
	for (uint64_t i = 1; i <= 3; ++i)
		expect_dead(&dead, i, IPC_DEAD_CONSUMER_GONE);
	expect_no_dead();
	expect_counts(0, IPC_DEAD_CONSUMER_GONE, 3, 0);
}

/* refused at push. */
Test(queue_dead, item_for_which_there_is_no_room_goes_there_by_policy, .init = setup,
     .fini = teardown)
{
	struct ipc_queue_item dead;

	for (uint64_t i = 1; i <= N_ITEMS; ++i)
		cr_assert_eq(queue_scene_push(&a, 1, i, 30), 0);
	cr_assert_eq(queue_scene_push(&a, 1, 9, 30), IPC_EAGAIN);
	expect_counts(1, IPC_DEAD_FULL, 0, 0);
	cr_expect_eq(queue_scene_push_refused(&a, 1, 9, 30, IPC_FULL_DEAD_LETTER),
		     IPC_DEAD_LETTERED);
	cr_expect_eq(queue_scene_push_refused(&a, 1, 10, 30, IPC_FULL_DROP), IPC_DROPPED);
	expect_counts(1, IPC_DEAD_FULL, 1, 1);

	expect_dead(&dead, 9, IPC_DEAD_FULL);
	cr_expect_eq(dead.origin, 11);
	cr_expect_eq(dead.priority, 1);
	cr_expect_geq(dead.enqueued_ns + NS_PER_S, clock_now_ns());
	expect_no_dead();
}

/* ---- the dead letters' own shape ---- */

/* */
Test(queue_dead, priority_lacking_there_is_its_lowest, .init = setup, .fini = teardown)
{
	struct ipc_queue_item dead;

	cr_assert_eq(queue_scene_push(&a, 2, 7, 30), 0);
	take(7);
	cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	expect_dead(&dead, 7, IPC_DEAD_REJECTED);
	cr_expect_eq(dead.priority, 1);
	expect_counts(2, IPC_DEAD_REJECTED, 1, 0);
}

/* */
Test(queue_dead, full_ones_drop_and_the_source_counts_it, .init = setup, .fini = teardown)
{
	for (uint64_t i = 1; i <= N_DEAD + 2; ++i) {
		cr_assert_eq(queue_scene_push(&a, 0, i, 30), 0);
		take(i);
		cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	}
	expect_counts(0, IPC_DEAD_REJECTED, N_DEAD, 2);
	cr_expect_eq(queue_scene_push_refused(&a, 0, 9, 30, IPC_FULL_DEAD_LETTER), IPC_DROPPED);
	expect_counts(0, IPC_DEAD_FULL, 0, 1);
	cr_expect_eq(queue_scene_count(&a.view, 0, QUEUE_FREE), N_ITEMS);
}

/* */
Test(queue_dead, shut_ones_drop, .init = setup, .fini = teardown)
{
	cr_assert_eq(queue_shutdown(&b.dead), 0);
	cr_assert_eq(queue_scene_push(&a, 0, 1, 30), 0);
	take(1);
	cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	expect_counts(0, IPC_DEAD_REJECTED, 0, 1);
	cr_expect_eq(queue_scene_push_refused(&a, 0, 9, 30, IPC_FULL_DEAD_LETTER), IPC_DROPPED);
	expect_counts(0, IPC_DEAD_FULL, 0, 1);
	cr_expect_eq(queue_scene_count(&a.dead, 0, QUEUE_FREE), N_DEAD, "no room is lost there");
}

/* */
Test(queue_dead, item_too_large_for_them_is_dropped, .init = setup, .fini = teardown)
{
	cr_assert_eq(queue_scene_push(&a, 0, 1, 1025), 0);
	take(1);
	cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	expect_counts(0, IPC_DEAD_REJECTED, 0, 1);
	cr_expect_eq(queue_scene_push_refused(&a, 0, 9, 1025, IPC_FULL_DEAD_LETTER), IPC_DROPPED);
	expect_counts(0, IPC_DEAD_FULL, 0, 1);
	expect_no_dead();
}

/* a source's name has room whatever the size, and in the smallest block. */
Test(queue_dead, name_of_the_source_stands_behind_bytes_of_any_size, .init = setup,
     .fini = teardown)
{
	static char name[QUEUE_NAME_SIZE];
	struct ipc_queue_item dead;

	memset(name, 'n', sizeof(name) - 1);
	a.view.name = name;
	for (uint64_t size = 0; size <= 1024; size = size < 4 ? size + 1 : size * 2) {
		cr_assert_eq(queue_scene_push(&a, 0, 7, size), 0);
		take(size < 8 ? 0 : 7);
		cr_assert_eq(queue_reject(&a.view, item.lease), 0);
		cr_assert_eq(queue_take(&b.dead, &dead), 0);
		cr_expect_eq(dead.size, size);
		cr_assert_neq(dead.source, NULL);
		cr_expect_str_eq(dead.source, name);
		cr_expect_eq(queue_scene_number(dead.data, dead.size), size < 8 ? 0 : 7);
		cr_assert_eq(queue_ack(&b.dead, dead.lease), 0);
	}
}

/* as from any queue. */
Test(queue_dead, dead_letters_are_leased_requeued_and_rejected_like_items, .init = setup,
     .fini = teardown)
{
	struct ipc_queue_item dead;
	struct ipc_queue_state state;

	cr_assert_eq(queue_scene_push(&a, 0, 7, 30), 0);
	take(7);
	cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	expect_dead(&dead, 7, IPC_DEAD_REJECTED);
	cr_assert_eq(queue_requeue(&b.dead, dead.lease), 0);
	cr_assert_eq(queue_scene_take(&b.dead, &dead), 7);
	cr_expect_eq(dead.attempt, 2);
	cr_expect_eq(dead.reason, IPC_DEAD_REJECTED);
	cr_expect_str_eq(dead.source, QUEUE_SCENE_NAME);
	cr_assert_eq(queue_reject(&b.dead, dead.lease), 0);
	state = queue_scene_state(&b.dead);
	cr_expect_eq(state.dropped[0][IPC_DEAD_REJECTED], 1);
	cr_expect_eq(queue_scene_imbalance(&state), 0);
}

/* ---- without dead letters ---- */

/* */
Test(queue_dead, without_them_items_are_dropped_and_counted)
{
	const uint64_t shape[4] = QUEUE_SHAPE(3, N_ITEMS, 65536, 2048, N_ATTEMPTS);

	queue_scene_init(&scene, shape, NULL);
	queue_scene_enter(&scene, &a, 11);
	queue_scene_enter(&scene, &b, 12);
	for (uint64_t i = 1; i <= 3; ++i) {
		cr_assert_eq(queue_scene_push(&a, 2, i, 30), 0);
		take(i);
		cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	}
	cr_expect_eq(queue_scene_push_refused(&a, 2, 9, 30, IPC_FULL_DROP), IPC_DROPPED);
	cr_assert_eq(queue_scene_push(&a, 2, 4, 30), 0);
	queue_abandon(&b.view);

	struct ipc_queue_state state = queue_scene_state(&a.view);
	cr_expect_eq(state.dropped[2][IPC_DEAD_REJECTED], 3);
	cr_expect_eq(state.dropped[2][IPC_DEAD_FULL], 1);
	cr_expect_eq(state.dropped[2][IPC_DEAD_CONSUMER_GONE], 1);
	cr_expect_eq(state.items[2] + state.leased[2], 0);
	cr_expect_eq(queue_scene_imbalance(&state), 0);
	cr_expect_eq(queue_scene_count(&a.view, 2, QUEUE_FREE), N_ITEMS);
	teardown();
}

/* */
Test(queue_dead, counts_add_up_in_the_middle_of_things, .init = setup, .fini = teardown)
{
	struct ipc_queue_item leased;
	struct ipc_queue_state state;
	void *data;

	for (uint64_t i = 1; i <= 6; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, 100), 0);
	cr_assert_eq(queue_scene_claim(&a, 0, 100, &data), 0);
	take(1);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	take(2);
	cr_assert_eq(queue_reject(&a.view, item.lease), 0);
	take(3);
	cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	take(3);
	leased = item;

	state = queue_scene_state(&b.view);
	cr_expect_eq(state.priorities, 3);
	cr_expect_eq(state.queued[0], 6);
	cr_expect_eq(state.items[0], 3);
	cr_expect_eq(state.leased[0], 1);
	cr_expect_eq(state.n_leased, 1);
	cr_expect_eq(state.acknowledged[0], 1);
	cr_expect_eq(state.dead_lettered[0][IPC_DEAD_REJECTED], 1);
	cr_expect_eq(queue_scene_imbalance(&state), 0);

	cr_assert_eq(queue_scene_commit(&a, data, 100), 0);
	cr_assert_eq(queue_requeue(&a.view, leased.lease), 0);
	state = queue_scene_state(&b.view);
	cr_expect_eq(state.queued[0], 7);
	cr_expect_eq(state.dead_lettered[0][IPC_DEAD_ATTEMPTS], 1);
	cr_expect_eq(state.items[0], 4);
	cr_expect_eq(state.leased[0], 0);
	cr_expect_eq(queue_scene_imbalance(&state), 0);
}
