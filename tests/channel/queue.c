/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue`: order, claims, leases, the bucket, the end.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/queue_scene.h"

enum { N_ITEMS = 8, N_BYTES = 4096, N_ATTEMPTS = 3 };

static struct queue_scene scene;
static struct queue_member a, b, c;
static struct ipc_queue_item item, other;

static void enter_all(const uint64_t shape[4])
{
	queue_scene_init(&scene, shape, NULL);
	queue_scene_enter(&scene, &a, 11);
	queue_scene_enter(&scene, &b, 12);
	queue_scene_enter(&scene, &c, 13);
}

static void setup(void)
{
	const uint64_t shape[4] = QUEUE_SHAPE(2, N_ITEMS, N_BYTES, 1024, N_ATTEMPTS);

	enter_all(shape);
}

/* One token a minute, and three at the start. */
static void setup_rate(void)
{
	uint64_t shape[4] = QUEUE_SHAPE(2, N_ITEMS, N_BYTES, 1024, N_ATTEMPTS);

	shape[3] = 1 | UINT64_C(3) << 32;
	enter_all(shape);
}

static void teardown(void)
{
	queue_scene_deinit(&scene);
}

/* Takes one, which must be that one. */
static void expect_take(struct queue_member *member, struct ipc_queue_item *ret, uint64_t number,
			uint32_t attempt)
{
	int64_t taken = queue_scene_take(&member->view, ret);

	cr_assert_eq(taken, (int64_t)number, "took %ld, not %lu", (long)taken,
		     (unsigned long)number);
	cr_expect_eq(ret->attempt, attempt, "item %lu: attempt %u", (unsigned long)number,
		     ret->attempt);
}

static void expect_nothing(void)
{
	int r = queue_take(&a.view, &item);

	cr_expect_eq(r, IPC_EAGAIN, "%d", r);
}

static void expect_balance(void)
{
	struct ipc_queue_state state = queue_scene_state(&a.view);

	cr_expect_eq(queue_scene_imbalance(&state), 0, "%ld are missing",
		     (long)queue_scene_imbalance(&state));
}

/* ---- items ---- */

/* */
Test(queue, items_of_all_producers_come_in_the_order_of_their_pushes, .init = setup,
     .fini = teardown)
{
	for (uint64_t round = 0; round < 100; ++round) {
		for (uint64_t i = 1; i <= N_ITEMS; ++i)
			cr_assert_eq(queue_scene_push(i % 2 ? &a : &b, 0, round * 100 + i, 20), 0);
		for (uint64_t i = 1; i <= N_ITEMS; ++i) {
			expect_take(i % 3 ? &a : &c, &item, round * 100 + i, 1);
			cr_assert_eq(queue_ack(i % 3 ? &a.view : &c.view, item.lease), 0);
		}
		expect_nothing();
	}
	expect_balance();
}

Test(queue, item_tells_who_pushed_it_when_and_where, .init = setup, .fini = teardown)
{
	uint64_t before = clock_now_ns(), after;

	cr_assert_eq(queue_scene_push(&b, 1, 5, 100), 0);
	after = clock_now_ns();
	expect_take(&a, &item, 5, 1);
	cr_expect_eq(item.size, 100);
	cr_expect_eq(item.origin, 12);
	cr_expect_eq(item.priority, 1);
	cr_expect_eq(item.reason, IPC_DEAD_NONE);
	cr_expect_eq(item.source, NULL);
	/* A coarse clock may be some milliseconds late. */
	cr_expect_geq(item.enqueued_ns + 50 * NS_PER_MS, before);
	cr_expect_leq(item.enqueued_ns, after);
}

Test(queue, item_of_no_bytes_is_an_item, .init = setup, .fini = teardown)
{
	cr_assert_eq(queue_scene_push(&a, 0, 0, 0), 0);
	cr_assert_eq(queue_take(&a.view, &item), 0);
	cr_expect_eq(item.size, 0);
	cr_expect_eq(queue_ack(&a.view, item.lease), 0);
	expect_balance();
}

/* */
Test(queue, sizes_and_priorities_that_cannot_be_are_told, .init = setup, .fini = teardown)
{
	cr_expect_eq(queue_check(&a.view, 0, 1024), 0);
	cr_expect_eq(queue_check(&a.view, 1, 0), 0);
	cr_expect_eq(queue_check(&a.view, 0, 1025), IPC_EMSGSIZE);
	cr_expect_eq(queue_check(&a.view, 2, 10), IPC_EINVAL);
	cr_expect_eq(queue_check(&a.view, UINT32_MAX, 10), IPC_EINVAL);
}

/* */
Test(queue, full_of_items_refuses_one_and_goes_on_after_an_ack, .init = setup, .fini = teardown)
{
	for (uint64_t i = 1; i <= N_ITEMS; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, 8), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 9, 8), IPC_EAGAIN);
	cr_expect_eq(queue_scene_push(&b, 0, 9, 8), IPC_EAGAIN);
	cr_expect_eq(queue_scene_push(&b, 1, 9, 8), 0, "each class has its own room");

	/* Leased items hold their room. */
	expect_take(&c, &item, 1, 1);
	cr_expect_eq(queue_scene_push(&a, 0, 9, 8), IPC_EAGAIN);
	cr_assert_eq(queue_ack(&c.view, item.lease), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 9, 8), 0);
	cr_expect_eq(queue_scene_push(&b, 0, 9, 8), IPC_EAGAIN);
	expect_balance();
}

/* */
Test(queue, full_of_bytes_refuses_one_and_goes_on_after_an_ack, .init = setup, .fini = teardown)
{
	for (uint64_t i = 1; i <= 4; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, 1024), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 9, 1), IPC_EAGAIN);
	expect_take(&c, &item, 1, 1);
	cr_expect_eq(queue_scene_push(&a, 0, 9, 1), IPC_EAGAIN);
	cr_assert_eq(queue_ack(&c.view, item.lease), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 9, 1024), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 9, 1), IPC_EAGAIN);
}

/* what was found full by one is found free by it when somebody has given room back. */
Test(queue, room_that_another_gave_back_is_seen, .init = setup, .fini = teardown)
{
	for (unsigned round = 0; round < 50; ++round) {
		uint64_t size = round % 2 ? 1024 : 8;
		unsigned n = round % 2 ? 4 : N_ITEMS;

		for (uint64_t i = 1; i <= n; ++i)
			cr_assert_eq(queue_scene_push(&a, 0, i, size), 0, "round %u", round);
		cr_assert_eq(queue_scene_push(&a, 0, 9, size), IPC_EAGAIN);
		cr_assert_eq(queue_scene_push(&b, 0, 9, size), IPC_EAGAIN);
		for (uint64_t i = 1; i <= n; ++i) {
			cr_assert_eq(queue_take(&c.view, &item), 0);
			cr_assert_eq(queue_ack(&c.view, item.lease), 0);
		}
	}
}

/* ---- claims ---- */

/* */
Test(queue, claims_are_committed_in_any_order_which_is_the_order, .init = setup, .fini = teardown)
{
	void *data[5];

	for (unsigned i = 0; i < 5; ++i) {
		cr_assert_eq(queue_scene_claim(i % 2 ? &a : &b, 0, 100, &data[i]), 0);
		pattern_fill(data[i], 100, i + 1);
	}
	expect_nothing();
	cr_assert_eq(queue_scene_push(&c, 0, 9, 8), 0);
	cr_assert_eq(queue_scene_commit(&b, data[4], 100), 0);
	cr_assert_eq(queue_scene_commit(&a, data[1], 60), 0);
	cr_assert_eq(queue_abort(&b.view, data[2]), 0);
	cr_assert_eq(queue_scene_commit(&b, data[0], 8), 0);

	expect_take(&c, &item, 9, 1);
	expect_take(&c, &item, 5, 1);
	cr_expect_eq(item.size, 100);
	cr_expect_eq(item.origin, 12);
	expect_take(&c, &item, 2, 1);
	cr_expect_eq(item.size, 60);
	expect_take(&c, &item, 1, 1);
	cr_expect_eq(item.size, 8);
	expect_nothing();
	expect_balance();
}

/* */
Test(queue, claim_holds_room_until_it_ends, .init = setup, .fini = teardown)
{
	void *data[N_ITEMS], *one_more;

	for (unsigned i = 0; i < 4; ++i)
		cr_assert_eq(queue_scene_claim(&a, 0, 1024, &data[i]), 0);
	cr_expect_eq(queue_scene_claim(&b, 0, 1, &one_more), IPC_EAGAIN);
	cr_expect_eq(queue_scene_push(&b, 0, 1, 1), IPC_EAGAIN);
	cr_assert_eq(queue_abort(&a.view, data[2]), 0);
	cr_expect_eq(queue_scene_claim(&b, 0, 1024, &one_more), 0);
	cr_expect_eq(queue_scene_claim(&b, 0, 1, &data[2]), IPC_EAGAIN);
}

/* what was claimed and not used is free again, at once or with the item. */
Test(queue, smaller_commit_gives_all_of_its_room_back_in_the_end, .init = setup, .fini = teardown)
{
	void *data;

	for (unsigned round = 0; round < 20; ++round) {
		cr_assert_eq(queue_scene_claim(&a, 0, 1024, &data), 0);
		cr_assert_eq(queue_scene_commit(&a, data, round), 0);
		cr_assert_eq(queue_take(&b.view, &item), 0);
		cr_expect_eq(item.size, round);
		cr_assert_eq(queue_ack(&b.view, item.lease), 0);
	}
	for (unsigned i = 0; i < 4; ++i)
		cr_expect_eq(queue_scene_push(&a, 0, i, 1024), 0);
}

/* */
Test(queue, pointer_that_is_no_claim_of_the_handle_is_refused, .init = setup, .fini = teardown)
{
	unsigned char *data, elsewhere[64];
	void *claimed;

	cr_assert_eq(queue_scene_claim(&a, 0, 100, &claimed), 0);
	data = claimed;
	cr_expect_eq(queue_scene_commit(&b, data, 10), IPC_EINVAL, "another's");
	cr_expect_eq(queue_abort(&b.view, data), IPC_EINVAL);
	cr_expect_eq(queue_scene_commit(&a, data + 1, 10), IPC_EINVAL);
	cr_expect_eq(queue_scene_commit(&a, data + 64, 10), IPC_EINVAL);
	cr_expect_eq(queue_scene_commit(&a, elsewhere, 10), IPC_EINVAL);
	cr_expect_eq(queue_scene_commit(&a, NULL, 10), IPC_EINVAL);
	cr_expect_eq(queue_abort(&a.view, scene.segment), IPC_EINVAL);
	cr_expect_eq(queue_abort(&a.view, (char *)scene.segment + scene.size), IPC_EINVAL);
	cr_expect_eq(queue_abort(&a.view, NULL), IPC_EINVAL);

	cr_expect_eq(queue_scene_commit(&a, data, 101), IPC_EMSGSIZE);
	cr_expect_eq(queue_scene_commit(&a, data, UINT64_MAX), IPC_EMSGSIZE);
	cr_expect_eq(queue_scene_commit(&a, data, 100), 0);
	cr_expect_eq(queue_scene_commit(&a, data, 100), IPC_EINVAL, "it is committed");
	cr_expect_eq(queue_abort(&a.view, data), IPC_EINVAL);
	cr_assert_eq(queue_take(&a.view, &item), 0);
	cr_expect_eq(queue_scene_commit(&a, data, 100), IPC_EINVAL, "it is a lease");
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	cr_expect_eq(queue_abort(&a.view, data), IPC_EINVAL, "it is nobody's");
	expect_balance();
}

/* ---- leases ---- */

/* */
Test(queue, lease_ends_once, .init = setup, .fini = teardown)
{
	cr_assert_eq(queue_scene_push(&a, 0, 1, 8), 0);
	expect_take(&a, &item, 1, 1);
	cr_expect_eq(queue_ack(&b.view, item.lease), IPC_ESTALE, "another's");
	cr_expect_eq(queue_requeue(&b.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_reject(&b.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_ack(&a.view, item.lease), 0);
	cr_expect_eq(queue_ack(&a.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_requeue(&a.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_reject(&a.view, item.lease), IPC_ESTALE);

	/* The same block with another item. */
	cr_assert_eq(queue_scene_push(&a, 0, 2, 8), 0);
	expect_take(&a, &other, 2, 1);
	cr_expect_eq(queue_ack(&a.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_ack(&a.view, other.lease), 0);
	expect_balance();
}

/* the same item, taken again. */
Test(queue, lease_of_an_earlier_attempt_is_stale, .init = setup, .fini = teardown)
{
	cr_assert_eq(queue_scene_push(&a, 0, 1, 8), 0);
	expect_take(&a, &item, 1, 1);
	cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	cr_expect_eq(queue_ack(&a.view, item.lease), IPC_ESTALE);
	expect_take(&a, &other, 1, 2);
	cr_expect_eq(queue_ack(&a.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_ack(&a.view, other.lease), 0);
}

/* */
Test(queue, numbers_that_are_no_leases_are_stale, .init = setup, .fini = teardown)
{
	uint64_t random = 88172645463325252u;

	cr_assert_eq(queue_scene_push(&a, 0, 1, 8), 0);
	expect_take(&a, &item, 1, 1);
	for (unsigned i = 0; i < 20000; ++i) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		uint64_t lease = random >> (i % 64);

		if (lease != item.lease)
			cr_assert_eq(queue_ack(&a.view, lease), IPC_ESTALE, "%lx",
				     (unsigned long)lease);
	}
	for (unsigned bit = 0; bit < 64; ++bit)
		cr_assert_eq(queue_requeue(&a.view, item.lease ^ UINT64_C(1) << bit), IPC_ESTALE,
			     "bit %u", bit);
	cr_expect_eq(queue_ack(&a.view, item.lease), 0);
}

/* it is the first again, before all that came earlier to the class. */
Test(queue, requeued_item_comes_first_with_its_next_attempt, .init = setup, .fini = teardown)
{
	for (uint64_t i = 1; i <= 4; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, 8), 0);
	expect_take(&a, &item, 1, 1);
	expect_take(&a, &other, 2, 1);
	cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	expect_take(&b, &item, 1, 2);
	cr_assert_eq(queue_requeue(&b.view, item.lease), 0);
	cr_assert_eq(queue_requeue(&a.view, other.lease), 0);
	expect_take(&b, &item, 1, 3);
	expect_take(&b, &item, 2, 2);
	expect_take(&b, &item, 3, 1);
	expect_take(&b, &item, 4, 1);
	expect_nothing();
	expect_balance();
}

/* the original order, whichever was requeued first. */
Test(queue, several_that_came_back_come_in_their_order, .init = setup, .fini = teardown)
{
	struct ipc_queue_item items[5];

	for (uint64_t i = 1; i <= 5; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, i % 2 ? 500 : 8), 0);
	for (unsigned i = 0; i < 5; ++i)
		expect_take(&a, &items[i], i + 1, 1);
	cr_assert_eq(queue_requeue(&a.view, items[3].lease), 0);
	cr_assert_eq(queue_requeue(&a.view, items[0].lease), 0);
	cr_assert_eq(queue_requeue(&a.view, items[4].lease), 0);
	cr_assert_eq(queue_requeue(&a.view, items[2].lease), 0);
	expect_take(&b, &item, 1, 2);
	expect_take(&b, &item, 3, 2);
	expect_take(&b, &item, 4, 2);
	expect_take(&b, &item, 5, 2);
	expect_nothing();
	cr_assert_eq(queue_ack(&a.view, items[1].lease), 0);
	expect_balance();
}

/* */
Test(queue, item_of_too_many_attempts_is_dropped_without_dead_letters, .init = setup,
     .fini = teardown)
{
	struct ipc_queue_state state;

	cr_assert_eq(queue_scene_push(&a, 1, 1, 8), 0);
	for (uint32_t attempt = 1; attempt <= N_ATTEMPTS; ++attempt) {
		expect_take(&a, &item, 1, attempt);
		cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	}
	expect_nothing();
	state = queue_scene_state(&a.view);
	cr_expect_eq(state.dropped[1][IPC_DEAD_ATTEMPTS], 1);
	cr_expect_eq(state.dead_lettered[1][IPC_DEAD_ATTEMPTS], 0);
	cr_expect_eq(state.items[1] + state.leased[1], 0);
	cr_expect_eq(queue_scene_count(&a.view, 1, QUEUE_FREE), N_ITEMS);
	expect_balance();
}

/* */
Test(queue, attempts_may_have_no_bound)
{
	const uint64_t shape[4] = QUEUE_SHAPE(1, 4, 4096, 1024, QUEUE_ATTEMPTS_MAX);

	enter_all(shape);
	cr_assert_eq(queue_scene_push(&a, 0, 1, 8), 0);
	for (uint32_t attempt = 1; attempt <= 2000; ++attempt) {
		cr_assert_eq(queue_take(&a.view, &item), 0);
		cr_assert_eq(item.attempt, attempt);
		cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	}

	/* The number stays at its largest. */
	for (uint32_t block = 0; block < 4; ++block) {
		_Atomic uint64_t *word = &a.view.class[0].word[block];
		uint64_t was = atomic_load(word);

		if (queue_word_phase(was) != QUEUE_FREE)
			atomic_store(word, was | (uint64_t)(QUEUE_ATTEMPTS_MAX - 1)
							   << QUEUE_ATTEMPT_SHIFT);
	}
	for (unsigned i = 0; i < 5; ++i) {
		cr_assert_eq(queue_take(&a.view, &item), 0);
		cr_expect_geq(item.attempt, QUEUE_ATTEMPTS_MAX - 1);
		cr_assert_eq(queue_requeue(&a.view, item.lease), 0);
	}
	cr_assert_eq(queue_take(&a.view, &item), 0);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	expect_balance();
	teardown();
}

/* an orderly close. */
Test(queue, closing_gives_leases_and_claims_back, .init = setup, .fini = teardown)
{
	void *data;

	for (uint64_t i = 1; i <= 4; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, 1000), 0);
	expect_take(&a, &item, 1, 1);
	expect_take(&b, &item, 2, 1);
	expect_take(&a, &item, 3, 1);
	cr_assert_eq(queue_scene_claim(&a, 1, 1000, &data), 0);
	queue_scene_leave(&scene, &a);

	cr_expect_eq(queue_scene_count(&b.view, 1, QUEUE_FREE), N_ITEMS);
	cr_expect_eq(rows_owner(&b.view.segment->rows, a.view.row), 0);
	expect_take(&c, &other, 1, 2);
	expect_take(&c, &other, 3, 2);
	expect_take(&c, &other, 4, 1);
	cr_expect_eq(queue_take(&c.view, &other), IPC_EAGAIN);
	cr_expect_eq(queue_ack(&b.view, item.lease), IPC_ESTALE, "of who closed");
}

/* ---- the bucket ---- */

static int push_rated(struct queue_member *member, uint64_t number, uint64_t *ret_due_ns)
{
	return queue_push(&member->view, 0, &number, sizeof(number), ret_due_ns);
}

/* */
Test(queue, bucket_is_full_at_the_start_and_of_all_producers_and_classes, .init = setup_rate,
     .fini = teardown)
{
	uint64_t due_ns = 0, now = clock_now_ns();

	cr_expect_eq(queue_scene_push(&a, 0, 1, 8), 0);
	cr_expect_eq(queue_scene_push(&b, 1, 2, 8), 0);
	cr_expect_eq(push_rated(&a, 3, &due_ns), 0);
	cr_expect_eq(push_rated(&b, 4, &due_ns), IPC_EAGAIN);
	cr_expect_neq(due_ns, CLOCK_FOREVER);
	cr_expect_gt(due_ns, now + NS_PER_S / 2, "in %ld ns", (long)(due_ns - now));
	cr_expect_leq(due_ns, clock_now_ns() + NS_PER_S + NS_PER_MS);
}

/* */
Test(queue, token_is_spent_by_what_is_queued_alone, .init = setup_rate, .fini = teardown)
{
	uint64_t due_ns = 0;
	void *data[4];

	for (unsigned i = 0; i < 4; ++i) {
		cr_assert_eq(queue_scene_claim(&a, 0, 1024, &data[i]), 0);
		pattern_fill(data[i], 8, i + 1);
	}
	cr_expect_eq(push_rated(&b, 9, &due_ns), IPC_EAGAIN, "no room");
	cr_expect_eq(due_ns, CLOCK_FOREVER);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_eq(queue_scene_commit(&a, data[i], 8), 0);
	cr_expect_eq(queue_commit(&a.view, data[3], 8, &due_ns), IPC_EAGAIN);
	cr_expect_neq(due_ns, CLOCK_FOREVER);
	cr_expect_eq(queue_abort(&a.view, data[3]), 0, "it stays open");
	expect_balance();
}

/* as if the bucket were as full as it can be again. */
Test(queue, bucket_holds_no_more_than_the_burst, .init = setup_rate, .fini = teardown)
{
	struct queue_segment *segment = scene.segment;
	uint64_t due_ns;

	for (unsigned round = 0; round < 3; ++round) {
		for (unsigned i = 0; i < 3; ++i)
			cr_assert_eq(queue_scene_push(&a, round % 2, 1, 8), 0);
		cr_assert_eq(push_rated(&a, 2, &due_ns), IPC_EAGAIN);
		while (queue_take(&a.view, &item) == 0)
			cr_assert_eq(queue_ack(&a.view, item.lease), 0);
		atomic_store(&segment->bucket, 0);
	}
}

/* M-30 */
Test(queue, probes_tell_what_a_call_would_find, .init = setup_rate, .fini = teardown)
{
	uint64_t due_ns = 0;
	void *data[4];

	cr_expect_eq(queue_probe_room(&a.view, &due_ns), 0);
	cr_expect_eq(queue_probe_item(&b.view), IPC_EAGAIN);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, i, 8), 0);
	cr_expect_eq(queue_probe_item(&b.view), 0);
	cr_expect_eq(queue_probe_room(&a.view, &due_ns), IPC_EAGAIN);
	cr_expect_neq(due_ns, CLOCK_FOREVER, "for a token");

	atomic_store(&a.view.segment->bucket, 0);
	for (unsigned p = 0; p < 2; ++p)
		for (unsigned i = 0; i < 3; ++i)
			cr_assert_eq(queue_scene_claim(&a, p, 1024, &data[i]), 0);
	cr_expect_eq(queue_probe_room(&a.view, &due_ns), 0, "there is room in class 0");
}

/* M-30 */
Test(queue, probe_of_a_full_queue_waits_for_room, .init = setup, .fini = teardown)
{
	uint64_t due_ns = 0;

	for (unsigned i = 0; i < 2 * N_ITEMS; ++i)
		cr_assert_eq(queue_scene_push(&a, i % 2, i, 8), 0);
	cr_expect_eq(queue_probe_room(&a.view, &due_ns), IPC_EAGAIN);
	cr_expect_eq(due_ns, CLOCK_FOREVER);
	cr_assert_eq(queue_take(&a.view, &item), 0);
	cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	cr_expect_eq(queue_probe_room(&a.view, &due_ns), 0);
}

/* ---- the end ---- */

/* */
Test(queue, after_a_shutdown_nothing_comes_in_and_the_rest_is_drained, .init = setup,
     .fini = teardown)
{
	uint64_t due_ns;
	void *data, *none;

	cr_assert_eq(queue_scene_push(&a, 0, 1, 8), 0);
	cr_assert_eq(queue_scene_push(&a, 1, 2, 8), 0);
	cr_assert_eq(queue_scene_claim(&a, 0, 100, &data), 0);
	cr_assert_eq(queue_shutdown(&b.view), 0);
	cr_assert_eq(queue_shutdown(&b.view), 0);

	cr_expect_eq(queue_scene_push(&a, 0, 3, 8), IPC_EPIPE);
	cr_expect_eq(queue_scene_claim(&a, 1, 8, &none), IPC_EPIPE);
	cr_expect_eq(queue_scene_commit(&a, data, 8), IPC_EPIPE);
	cr_expect_eq(queue_abort(&a.view, data), 0);
	cr_expect_eq(queue_probe_room(&a.view, &due_ns), IPC_EPIPE);

	expect_take(&b, &item, 1, 1);
	cr_expect_eq(queue_requeue(&b.view, item.lease), 0);
	cr_expect_eq(queue_probe_item(&b.view), 0);
	expect_take(&b, &item, 1, 2);
	expect_take(&b, &other, 2, 1);
	cr_expect_eq(queue_take(&b.view, &other), IPC_EPIPE);
	cr_expect_eq(queue_probe_item(&b.view), IPC_EPIPE);

	/* What comes back later is for a later call. */
	cr_expect_eq(queue_requeue(&b.view, item.lease), 0);
	expect_take(&b, &item, 1, 3);
	cr_expect_eq(queue_ack(&b.view, item.lease), 0);
	cr_expect_eq(queue_take(&b.view, &item), IPC_EPIPE);
	expect_balance();
}
