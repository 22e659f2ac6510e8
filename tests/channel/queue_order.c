/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`: which class comes next.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/queue_scene.h"

enum { N_ITEMS = 64 };

static struct queue_scene scene;
static struct queue_member a, b;

static void begin(unsigned n_classes, uint32_t run_max)
{
	const uint64_t shape[4] = QUEUE_SHAPE(n_classes, N_ITEMS, 65536, 1024, 3);
	const struct ipc_queue_fairness fairness = {.size = sizeof(fairness), .run_max = run_max};

	queue_scene_init(&scene, shape, NULL);
	queue_scene_enter(&scene, &a, 11);
	queue_scene_enter(&scene, &b, 12);
	if (run_max > 0)
		queue_set_fairness(&a.view, &fairness);
}

static void teardown(void)
{
	queue_scene_deinit(&scene);
}

static void push(unsigned priority, unsigned n)
{
	for (unsigned i = 0; i < n; ++i)
		cr_assert_eq(queue_scene_push(&a, priority, i + 1, 8), 0);
}

/* One; '-': nothing waits. */
static char take_by(struct queue_member *member)
{
	struct ipc_queue_item item;

	if (queue_take(&member->view, &item) < 0)
		return '-';
	cr_assert_eq(queue_ack(&member->view, item.lease), 0);
	return (char)('0' + item.priority);
}

/* By both consumers in turn: fairness is the queue's. */
static void expect_order(const char *expected)
{
	char found[256] = "";

	for (unsigned i = 0; expected[i]; ++i)
		found[i] = take_by(i % 2 ? &a : &b);
	cr_expect_str_eq(found, expected, "%s instead of %s", found, expected);
}

/* */
Test(queue_order, five_high_and_one_low_by_two, .fini = teardown)
{
	begin(2, 2);
	push(0, 5);
	push(1, 1);
	expect_order("001000-");
}

/* */
Test(queue_order, six_high_and_two_low_by_three, .fini = teardown)
{
	begin(2, 3);
	push(1, 2);
	push(0, 6);
	expect_order("00010001-");
}

/* the default. */
Test(queue_order, eight_in_a_row_if_nothing_else_is_said, .fini = teardown)
{
	const struct ipc_queue_fairness defaults = {.size = sizeof(defaults)};

	begin(2, 0);
	push(0, 20);
	push(1, 2);
	expect_order("0000000010000000010000-");
	push(0, 10);
	push(1, 1);
	queue_set_fairness(&a.view, &defaults);
	expect_order("00000000100-");
}

/* */
Test(queue_order, strictly_means_that_the_low_ones_wait, .fini = teardown)
{
	begin(2, IPC_FAIRNESS_STRICT);
	push(0, 40);
	push(1, 2);
	expect_order("000000000000000000000000000000000000000011-");
}

/* what is taken while no lower class waits is not counted. */
Test(queue_order, run_is_counted_while_a_lower_class_waits_alone, .fini = teardown)
{
	begin(2, 3);
	push(0, 20);
	expect_order("0000000000");
	push(1, 1);
	expect_order("00010000000-");
}

/* the lower classes that wait take turns. */
Test(queue_order, lower_classes_take_turns_for_their_place, .fini = teardown)
{
	begin(4, 2);
	push(0, 20);
	for (unsigned p = 1; p < 4; ++p)
		push(p, 2);
	expect_order("001002003001002003");
	expect_order("00000000-");
}

/* without the highest, the next one is. */
Test(queue_order, highest_that_waits_has_the_run, .fini = teardown)
{
	begin(3, 2);
	push(1, 6);
	push(2, 2);
	expect_order("11211211-");
}

/* */
Test(queue_order, setting_it_begins_counting_anew, .fini = teardown)
{
	const struct ipc_queue_fairness three = {.size = sizeof(three), .run_max = 3};

	begin(2, 3);
	push(0, 10);
	push(1, 3);
	expect_order("00");
	queue_set_fairness(&b.view, &three);
	expect_order("00010001001-");
}

/* after the slice, whatever the count says. */
Test(queue_order, slice_of_time_ends_a_run_too, .fini = teardown)
{
	const struct ipc_queue_fairness sliced = {
		.size = sizeof(sliced), .run_max = IPC_FAIRNESS_STRICT, .slice_ns = 20 * NS_PER_MS};
	uint64_t begun;
	unsigned n = 0;

	begin(2, 0);
	queue_set_fairness(&a.view, &sliced);
	push(0, 1);
	push(1, 1);
	cr_expect_eq(take_by(&a), '0');
	begun = clock_now_ns();
	push(0, 1);
	while (clock_now_ns() < begun + 30 * NS_PER_MS)
		++n;
	cr_expect_eq(take_by(&b), '1', "after %u looks at the clock", n);
	cr_expect_eq(take_by(&a), '0');
}

/* */
Test(queue_order, what_came_back_is_of_its_class_like_others, .fini = teardown)
{
	struct ipc_queue_item low, item;

	begin(2, 2);
	push(1, 1);
	cr_assert_eq(queue_take(&a.view, &low), 0);
	push(0, 5);
	cr_assert_eq(queue_requeue(&a.view, low.lease), 0);
	expect_order("00");
	cr_assert_eq(queue_take(&b.view, &item), 0);
	cr_expect_eq(item.priority, 1);
	cr_expect_eq(item.attempt, 2);
	cr_expect_eq(queue_ack(&b.view, item.lease), 0);
	expect_order("000-");
}

/* Whichever classes have work, and whenever it comes: how long the longest wait of each was. */
static void expect_bound(uint64_t seed, unsigned n_classes, uint32_t run_max)
{
	unsigned n_waiting[8] = {0}, waited[8] = {0};
	uint64_t random = seed * 977 + 1;

	begin(n_classes, run_max);
	for (unsigned i = 0; i < 3000; ++i) {
		char taken;

		for (unsigned k = 0; k < 2; ++k) {
			unsigned p;

			random = random * 6364136223846793005u + 1442695040888963407u;
			p = (unsigned)(random >> 40) % (n_classes * 2) % n_classes;
			if ((random >> 60) % 4 && n_waiting[p] < 20) {
				push(p, 1);
				++n_waiting[p];
			}
		}
		taken = take_by(i % 2 ? &a : &b);
		for (unsigned p = 0; p < n_classes; ++p) {
			if (n_waiting[p] == 0 || taken == (char)('0' + p)) {
				waited[p] = 0;
				continue;
			}
			++waited[p];
			cr_assert_leq(waited[p], (run_max + 1) * (n_classes - 1),
				      "seed %lu: class %u of %u waits for %u items, run %u",
				      (unsigned long)seed, p, n_classes, waited[p], run_max);
		}
		if (taken != '-')
			--n_waiting[taken - '0'];
	}
	teardown();
}

/* (run_max + 1) x (priorities - 1) items of others, for every class. */
Test(queue_order, every_class_waits_for_a_bounded_number_of_others, .timeout = 50)
{
	for (uint64_t seed = 1; seed <= 8; ++seed) {
		expect_bound(seed, 2, 1);
		expect_bound(seed, 2, 3);
		expect_bound(seed, 3, 2);
		expect_bound(seed, 8, 1);
		expect_bound(seed, 5, 4);
	}
}
