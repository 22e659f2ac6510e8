/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`: who is woken by what, and the bucket as time goes on.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/queue_scene.h"

enum { N_ITEMS = 4, PIECE = 1000 };

static struct queue_scene scene;
static struct queue_member a, b, mortal, heir;
static struct ipc_queue_item item;
static uint32_t words[2];

static void begin(uint32_t rate, uint32_t burst)
{
	uint64_t shape[4] = QUEUE_SHAPE(1, N_ITEMS, (uint64_t)N_ITEMS * PIECE, 2 * PIECE, 3);

	shape[3] = (uint64_t)rate | (uint64_t)burst << 32;
	queue_scene_init(&scene, shape, NULL);
	queue_scene_enter(&scene, &a, 11);
	queue_scene_enter(&scene, &b, 12);
	queue_scene_enter(&scene, &mortal, 13);
}

static void setup(void)
{
	begin(0, 0);
}

static void teardown(void)
{
	queue_scene_deinit(&scene);
}

/* As a waiter on each side does it. */
static void announce(void)
{
	for (unsigned side = 0; side < 2; ++side)
		words[side] = eventcount_announce(&scene.board->lines[side]);
}

static bool is_told(unsigned side)
{
	return atomic_load(&scene.board->lines[side].word) != words[side];
}

static void expect_told(bool producers, bool consumers, const char *what)
{
	cr_expect_eq(is_told(QUEUE_SIDE_PRODUCERS), producers, "producers: %s", what);
	cr_expect_eq(is_told(QUEUE_SIDE_CONSUMERS), consumers, "consumers: %s", what);
	announce();
}

static void take(struct queue_member *member)
{
	cr_assert_eq(queue_take(&member->view, &item), 0);
}

/* M-20, Q-3 */
Test(queue_wakes, items_wake_consumers_and_room_wakes_producers, .init = setup, .fini = teardown)
{
	void *data;

	announce();
	cr_assert_eq(queue_scene_push(&a, 0, 1, 100), 0);
	expect_told(false, true, "push");
	cr_assert_eq(queue_scene_claim(&a, 0, PIECE, &data), 0);
	expect_told(false, false, "claim");
	cr_assert_eq(queue_scene_commit(&a, data, PIECE), 0);
	expect_told(false, true, "commit");
	cr_assert_eq(queue_scene_claim(&a, 0, PIECE, &data), 0);
	cr_assert_eq(queue_scene_commit(&a, data, 10), 0);
	expect_told(true, true, "commit of fewer bytes");
	cr_assert_eq(queue_scene_claim(&a, 0, PIECE, &data), 0);
	cr_assert_eq(queue_abort(&a.view, data), 0);
	expect_told(true, false, "abort");

	take(&b);
	expect_told(false, false, "take");
	cr_assert_eq(queue_requeue(&b.view, item.lease), 0);
	expect_told(false, true, "requeue");
	take(&b);
	cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	expect_told(true, false, "ack");
	take(&b);
	cr_assert_eq(queue_ack_many(&b.view, &item, 1), 1);
	expect_told(true, false, "ack of many");
	take(&b);
	cr_assert_eq(queue_reject(&b.view, item.lease), 0);
	expect_told(true, false, "reject");
	cr_assert_eq(queue_shutdown(&b.view), 0);
	expect_told(true, true, "shutdown");
}

/* M-25: the dead may have told nobody. */
Test(queue_wakes, whoever_sweeps_up_tells_both_sides, .init = setup, .fini = teardown)
{
	cr_assert_eq(queue_scene_push(&a, 0, 1, 100), 0);
	take(&mortal);
	announce();
	queue_scene_die(&scene, &mortal);
	queue_sweep(&a.view);
	expect_told(true, true, "sweep");
	queue_sweep(&a.view);
	expect_told(false, false, "nothing was told since");

	queue_scene_enter(&scene, &mortal, 14);
	queue_scene_die(&scene, &mortal);
	announce();
	queue_scene_enter(&scene, &heir, 15);
	expect_told(true, true, "to inherit");
}

/* */
Test(queue_wakes, closing_tells_both_sides, .init = setup, .fini = teardown)
{
	void *data;

	cr_assert_eq(queue_scene_push(&a, 0, 1, 100), 0);
	take(&mortal);
	cr_assert_eq(queue_scene_claim(&mortal, 0, 100, &data), 0);
	announce();
	queue_give_back(&mortal.view);
	expect_told(true, true, "close");
}

/* as far as they are its own. */
Test(queue_wakes, many_acks_end_at_the_first_that_fails, .init = setup, .fini = teardown)
{
	struct ipc_queue_item items[4];

	for (uint64_t i = 1; i <= 4; ++i) {
		cr_assert_eq(queue_scene_push(&a, 0, i, 500), 0);
		cr_assert_eq(queue_take(i == 3 ? &b.view : &a.view, &items[i - 1]), 0);
	}
	cr_expect_eq(queue_ack_many(&a.view, items, 4), 2);
	cr_expect_eq(queue_ack_many(&a.view, items, 4), IPC_ESTALE);
	cr_expect_eq(queue_ack_many(&a.view, &items[2], 2), IPC_ESTALE);
	cr_expect_eq(queue_ack_many(&b.view, &items[2], 2), 1);
	cr_expect_eq(queue_ack_many(&a.view, &items[3], 1), 1);
	cr_expect_eq(queue_scene_state(&a.view).acknowledged[0], 4);
	for (unsigned i = 0; i < N_ITEMS; ++i)
		cr_expect_eq(queue_scene_push(&a, 0, i, PIECE), 0);
}

/* ---- the bucket ---- */

static int push_one(uint64_t *ret_due_ns)
{
	static const unsigned char bytes[8];
	int r = queue_push(&a.view, 0, bytes, sizeof(bytes), ret_due_ns);

	if (r == 0) {
		take(&b);
		cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	}
	return r;
}

/* never more than the burst and what has come since, and always one when it is due. */
Test(queue_wakes, tokens_come_at_their_rate, .fini = teardown, .timeout = 60)
{
	const uint64_t rate = 500, burst = 5;
	uint64_t begun, n = 0;

	begin(rate, burst);
	begun = clock_now_ns();
	while (n < 60) {
		uint64_t due_ns, most;
		int r = push_one(&due_ns);

		if (r == 0) {
			++n;
			most = burst + (clock_now_ns() - begun) * rate / NS_PER_S + 1;
			cr_assert_leq(n, most, "%lu, and not %lu", (unsigned long)n,
				      (unsigned long)most);
			continue;
		}
		cr_assert_eq(r, IPC_EAGAIN);
		cr_assert_leq(due_ns, clock_now_ns() + NS_PER_S / rate + NS_PER_MS / 100);
		while (clock_now_ns() < due_ns)
			;
		cr_assert_eq(push_one(&due_ns), 0, "it was due");
		++n;
	}
}

/* also of a rate that no clock counts. */
Test(queue_wakes, largest_rate_and_burst_are_a_bucket_too, .fini = teardown)
{
	uint64_t due_ns;

	begin(UINT32_MAX, UINT32_MAX);
	for (unsigned i = 0; i < 1000; ++i)
		cr_assert_eq(push_one(&due_ns), 0);
	teardown();
	begin(1, UINT32_MAX);
	for (unsigned i = 0; i < 1000; ++i)
		cr_assert_eq(push_one(&due_ns), 0);
}
