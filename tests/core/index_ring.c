/* SPDX-License-Identifier: MIT */
#include "libipc/core/index_ring.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/process.h"

enum { N_BLOCKS = 63, SIZE = 64, LIMIT_MS = 20000 };

static struct index_ring_words words;
static _Atomic uint64_t entries[SIZE];
static struct index_ring ring;
static _Atomic uint64_t places[N_BLOCKS + 1];
static _Atomic uint32_t in_use[N_BLOCKS + 1]; /* use + 1 of a block that is to be taken; 0: none */

static bool is_live(void *subject, uint32_t block, uint32_t use)
{
	(void)subject;
	return block <= N_BLOCKS && (atomic_load(&in_use[block]) & INDEX_RING_USE_MASK) ==
					    ((use + 1) & INDEX_RING_USE_MASK);
}

static void setup(void)
{
	index_ring_make(&words, entries, SIZE);
	index_ring_attach(&ring, &words, entries, SIZE);
	memset(in_use, 0, sizeof(in_use));
}

static enum index_ring_result add(uint32_t block, uint32_t use)
{
	atomic_store(&in_use[block], use + 1);
	return index_ring_add(&ring, block, use, &places[block], is_live, NULL);
}

/* As a taker does it: who gets the block, then the entry. */
static enum index_ring_result take(uint32_t *ret_block)
{
	struct index_ring_item item;

	for (;;) {
		enum index_ring_result result = index_ring_peek(&ring, &item);
		uint32_t expected = item.use + 1;
		bool is_mine;

		if (result != INDEX_RING_DONE)
			return result;
		is_mine = item.block <= N_BLOCKS &&
			  atomic_compare_exchange_strong(&in_use[item.block], &expected, 0);
		index_ring_pop(&ring, &item);
		if (is_mine) {
			*ret_block = item.block;
			return INDEX_RING_DONE;
		}
	}
}

static enum index_ring_result close_ring(void)
{
	return index_ring_close(&ring, is_live, NULL);
}

Test(index_ring, size_is_a_power_of_two_with_an_entry_more_than_blocks)
{
	cr_expect_eq(index_ring_size(1), 64);
	cr_expect_eq(index_ring_size(63), 64);
	cr_expect_eq(index_ring_size(64), 128);
	cr_expect_eq(index_ring_size(INDEX_RING_BLOCKS_MAX - 1), INDEX_RING_BLOCKS_MAX);
}

Test(index_ring, new_one_is_empty, .init = setup)
{
	struct index_ring_item item;

	cr_expect_eq(index_ring_peek(&ring, &item), INDEX_RING_EMPTY);
	cr_expect_eq(index_ring_n_added(&ring), 0);
}

/* */
Test(index_ring, what_was_added_first_comes_first_over_many_laps, .init = setup)
{
	uint32_t block, next = 0;

	for (uint32_t i = 0; i < 10000; ++i) {
		uint32_t n = i % 7 == 0 ? N_BLOCKS : i % 5;

		for (uint32_t k = 0; k < n; ++k)
			cr_assert_eq(add((next + k) % N_BLOCKS, (next + k) / N_BLOCKS),
				     INDEX_RING_DONE);
		for (uint32_t k = 0; k < n; ++k, ++next) {
			cr_assert_eq(take(&block), INDEX_RING_DONE);
			cr_assert_eq(block, next % N_BLOCKS);
		}
		cr_assert_eq(take(&block), INDEX_RING_EMPTY);
	}
	cr_expect_eq(index_ring_n_added(&ring), next);
}

Test(index_ring, position_of_what_was_added_is_told, .init = setup)
{
	uint32_t block;

	for (uint32_t i = 0; i < 3 * SIZE; ++i) {
		cr_assert_eq(add(5, i), INDEX_RING_DONE);
		cr_expect_eq(atomic_load(&places[5]), i);
		cr_expect(index_ring_holds(&ring, i, 5, i));
		cr_expect_not(index_ring_holds(&ring, i, 5, i + 1));
		cr_expect_not(index_ring_holds(&ring, i, 6, i));
		cr_expect_not(index_ring_holds(&ring, i + SIZE, 5, i), "of another lap");
		cr_assert_eq(take(&block), INDEX_RING_DONE);
		cr_expect_not(index_ring_holds(&ring, i, 5, i));
	}
}

Test(index_ring, item_is_still_there_until_it_is_popped, .init = setup)
{
	struct index_ring_item item;

	cr_assert_eq(add(1, 1), INDEX_RING_DONE);
	cr_assert_eq(index_ring_peek(&ring, &item), INDEX_RING_DONE);
	cr_expect(index_ring_is_still(&ring, &item));
	index_ring_pop(&ring, &item);
	cr_expect_not(index_ring_is_still(&ring, &item));
}

/* Two have seen the same head: the second pop does no harm. */
Test(index_ring, popping_twice_pops_once, .init = setup)
{
	struct index_ring_item first, item;

	cr_assert_eq(add(1, 1), INDEX_RING_DONE);
	cr_assert_eq(add(2, 1), INDEX_RING_DONE);
	cr_assert_eq(index_ring_peek(&ring, &first), INDEX_RING_DONE);
	index_ring_pop(&ring, &first);
	index_ring_pop(&ring, &first);
	cr_assert_eq(index_ring_peek(&ring, &item), INDEX_RING_DONE);
	cr_expect_eq(item.block, 2);
}

/* Also a whole lap later, in the same entry. */
Test(index_ring, late_pop_leaves_the_next_lap_alone, .init = setup)
{
	struct index_ring_item late, item;
	uint32_t block;

	cr_assert_eq(add(1, 1), INDEX_RING_DONE);
	cr_assert_eq(index_ring_peek(&ring, &late), INDEX_RING_DONE);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	for (uint32_t i = 1; i < SIZE; ++i) {
		cr_assert_eq(add(2, i), INDEX_RING_DONE);
		cr_assert_eq(take(&block), INDEX_RING_DONE);
	}
	cr_assert_eq(add(1, 2), INDEX_RING_DONE);
	index_ring_pop(&ring, &late);
	cr_assert_eq(index_ring_peek(&ring, &item), INDEX_RING_DONE);
	cr_expect_eq(item.block, 1);
	cr_expect_eq(item.use, 2);
}

/* ---- deaths, as what they leave ---- */

/* filled, and the tail not moved. */
Test(index_ring, tail_that_the_dead_left_behind_is_moved_by_the_next, .init = setup)
{
	uint32_t block;

	cr_assert_eq(add(1, 1), INDEX_RING_DONE);
	atomic_store(&words.tail, 0);
	cr_expect_eq(index_ring_n_added(&ring), 1);
	atomic_store(&words.tail, 0);
	cr_assert_eq(add(2, 1), INDEX_RING_DONE);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	cr_expect_eq(block, 1);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	cr_expect_eq(block, 2);
	cr_expect_eq(take(&block), INDEX_RING_EMPTY);
}

/* Freed, and the head not moved. */
Test(index_ring, head_that_the_dead_left_behind_is_moved_by_the_next, .init = setup)
{
	uint32_t block;

	cr_assert_eq(add(1, 1), INDEX_RING_DONE);
	cr_assert_eq(add(2, 1), INDEX_RING_DONE);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	atomic_store(&words.head, 0);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	cr_expect_eq(block, 2);
	cr_expect_eq(take(&block), INDEX_RING_EMPTY);
}

/* Stored by somebody who was stopped before, for however long: any place that it ever had. */
static void expect_hints(uint64_t n_before, uint32_t n_waiting, bool is_closed, uint64_t head,
			 uint64_t tail)
{
	uint32_t block;

	setup();
	for (uint64_t i = 0; i < n_before; ++i) {
		cr_assert_eq(add(i % N_BLOCKS, (uint32_t)i), INDEX_RING_DONE);
		cr_assert_eq(take(&block), INDEX_RING_DONE);
	}
	for (uint32_t i = 0; i < n_waiting; ++i)
		cr_assert_eq(add(i, 0), INDEX_RING_DONE);
	if (is_closed)
		cr_assert_eq(close_ring(), INDEX_RING_DONE);

	atomic_store(&words.tail, tail);
	cr_assert_eq(index_ring_n_added(&ring), n_before + n_waiting, "tail %lu of %lu",
		     (unsigned long)tail, (unsigned long)(n_before + n_waiting));
	atomic_store(&words.tail, tail);
	atomic_store(&words.head, head);
	cr_assert_eq(add(N_BLOCKS - 1, 0), is_closed ? INDEX_RING_CLOSED : INDEX_RING_DONE);
	for (uint32_t i = 0; i < n_waiting; ++i) {
		cr_assert_eq(take(&block), INDEX_RING_DONE, "head %lu of %lu, %u wait",
			     (unsigned long)head, (unsigned long)n_before, n_waiting - i);
		cr_assert_eq(block, i);
	}
	if (!is_closed)
		cr_assert_eq(take(&block), INDEX_RING_DONE);
	cr_assert_eq(take(&block), is_closed ? INDEX_RING_CLOSED : INDEX_RING_EMPTY);
}

/* */
Test(index_ring, hints_may_be_any_that_ever_were, .timeout = 60)
{
	for (uint64_t n = 0; n < 3 * SIZE; n += 7) {
		for (uint64_t behind = 0; behind <= n; ++behind) {
			expect_hints(n, 3, false, n - behind, n + 3 - behind);
			expect_hints(n, 3, true, n - behind, n + 3 - behind);
			expect_hints(n, 0, true, n - behind, n - behind);
		}
	}
	expect_hints(SIZE, 20, true, SIZE + 20 - SIZE, 0);
	expect_hints(SIZE, 0, true, 0, 0);
}

/* The block was taken; the entry stands until somebody meets it, who adds as well as who takes. */
Test(index_ring, entries_of_blocks_that_moved_on_never_fill_it, .init = setup)
{
	uint32_t block;

	for (uint32_t i = 0; i < 10 * SIZE; ++i) {
		cr_assert_eq(add(i % N_BLOCKS, i), INDEX_RING_DONE, "after %u", i);
		atomic_store(&in_use[i % N_BLOCKS], 0);
	}
	cr_expect_eq(take(&block), INDEX_RING_EMPTY);
	cr_assert_eq(add(3, 9), INDEX_RING_DONE);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	cr_expect_eq(block, 3);
}

/* ---- closed ---- */

Test(index_ring, closed_one_takes_nothing_and_is_drained, .init = setup)
{
	uint32_t block;

	cr_assert_eq(add(1, 1), INDEX_RING_DONE);
	cr_assert_eq(add(2, 1), INDEX_RING_DONE);
	cr_assert_eq(close_ring(), INDEX_RING_DONE);
	cr_assert_eq(close_ring(), INDEX_RING_DONE);

	cr_expect_eq(add(3, 1), INDEX_RING_CLOSED);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	cr_expect_eq(block, 1);
	cr_assert_eq(take(&block), INDEX_RING_DONE);
	cr_expect_eq(block, 2);
	cr_expect_eq(take(&block), INDEX_RING_CLOSED);
	cr_expect_eq(add(3, 1), INDEX_RING_CLOSED);
	cr_expect_eq(index_ring_n_added(&ring), 2);
}

Test(index_ring, full_one_can_be_closed, .init = setup)
{
	uint32_t block;

	for (uint32_t i = 0; i < N_BLOCKS; ++i)
		cr_assert_eq(add(i, 1), INDEX_RING_DONE);
	cr_assert_eq(close_ring(), INDEX_RING_DONE);
	for (uint32_t i = 0; i < N_BLOCKS; ++i) {
		cr_assert_eq(take(&block), INDEX_RING_DONE);
		cr_expect_eq(block, i);
	}
	cr_expect_eq(take(&block), INDEX_RING_CLOSED);
}

Test(index_ring, empty_one_can_be_closed_in_any_lap, .init = setup)
{
	uint32_t block;

	for (uint32_t i = 0; i < SIZE + 5; ++i) {
		cr_assert_eq(add(1, i), INDEX_RING_DONE);
		cr_assert_eq(take(&block), INDEX_RING_DONE);
	}
	cr_assert_eq(close_ring(), INDEX_RING_DONE);
	cr_expect_eq(take(&block), INDEX_RING_CLOSED);
	cr_expect_eq(add(1, SIZE + 5), INDEX_RING_CLOSED);
}

/* ---- garbage ---- */

/* M-60 */
Test(index_ring, garbage_ends_no_call_badly, .init = setup, .timeout = 60)
{
	uint64_t random = 88172645463325252u;
	struct timespec limit = process_deadline(LIMIT_MS);

	for (unsigned i = 0; i < 3000; ++i) {
		struct index_ring_item item;

		setup();
		for (unsigned k = 0; k < SIZE + 2; ++k) {
			uint64_t word;

			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			word = random >> random % 64;
			atomic_store(k < SIZE    ? &entries[k]
				     : k == SIZE ? &words.head
						 : &words.tail,
				     word);
		}
		for (unsigned k = 0; k < 2 * SIZE; ++k) {
			(void)add(k % N_BLOCKS, k);
			if (index_ring_peek(&ring, &item) == INDEX_RING_DONE)
				index_ring_pop(&ring, &item);
			(void)index_ring_n_added(&ring);
		}
		(void)close_ring();
		cr_assert(!process_has_passed(&limit), "input %u takes too long", i);
	}
}

/* ---- many at once ---- */

enum { N_THREADS = 3, N_ITEMS = 40000 };

static _Atomic uint32_t free_blocks[N_BLOCKS], uses[N_BLOCKS];
static _Atomic uint64_t said[N_BLOCKS]; /* {who 8, number 32} */
static _Atomic uint32_t n_taken;

static void *producer(void *arg)
{
	uint64_t who = (uintptr_t)arg;

	for (uint32_t number = 1; number <= N_ITEMS;) {
		for (uint32_t block = 0; block < N_BLOCKS && number <= N_ITEMS; ++block) {
			if (atomic_exchange(&free_blocks[block], 0) == 0)
				continue;
			atomic_store(&said[block], who << 32 | number++);
			if (add(block, atomic_fetch_add(&uses[block], 1) & INDEX_RING_USE_MASK) !=
			    INDEX_RING_DONE)
				abort();
		}
		(void)sched_yield();
	}
	return NULL;
}

/* Each producer's numbers grow, whoever takes. */
static void *consumer(void *arg)
{
	uint32_t last[N_THREADS] = {0}, block;

	(void)arg;
	while (atomic_load(&n_taken) < N_THREADS * N_ITEMS) {
		uint64_t what;

		if (take(&block) != INDEX_RING_DONE) {
			(void)sched_yield();
			continue;
		}
		what = atomic_load(&said[block]);
		if ((uint32_t)what <= last[what >> 32])
			abort();
		last[what >> 32] = (uint32_t)what;
		atomic_store(&free_blocks[block], 1);
		atomic_fetch_add(&n_taken, 1);
	}
	return NULL;
}

/* */
Test(index_ring, many_at_once_lose_nothing_and_keep_the_order, .init = setup, .timeout = 60)
{
	pthread_t threads[2 * N_THREADS];

	for (uint32_t i = 0; i < N_BLOCKS; ++i)
		atomic_store(&free_blocks[i], 1);
	for (uintptr_t i = 0; i < N_THREADS; ++i) {
		cr_assert_eq(pthread_create(&threads[i], NULL, producer, (void *)i), 0);
		cr_assert_eq(pthread_create(&threads[N_THREADS + i], NULL, consumer, NULL), 0);
	}
	for (unsigned i = 0; i < 2 * N_THREADS; ++i)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);

	cr_expect_eq(atomic_load(&n_taken), N_THREADS * N_ITEMS);
	cr_expect_eq(index_ring_n_added(&ring), N_THREADS * N_ITEMS);
}
