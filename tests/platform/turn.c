/* SPDX-License-Identifier: MIT */
/*
 * Turns: one thread at a time, whoever has the bias, also if that one has ended or is inside.
 */
#include "libipc/platform/turn.h"

#include <criterion/criterion.h>
#include <sched.h>

#include "tests/support/process.h"

static struct turn turn;

static void setup(void)
{
	cr_assert_eq(process_mark_init(), 0);
	turn_init(&turn);
}

static void teardown(void)
{
	turn_deinit(&turn);
}

#define Case(name) Test(turn, name, .init = setup, .fini = teardown, .timeout = 60)

static bool is_shared(void)
{
	return atomic_load(&turn.bias) == TURN_SHARED;
}

static void must_start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	cr_assert_eq(pthread_create(thread, NULL, fn, arg), 0);
}

/* ---- one thread ---- */

Case(the_first_thread_has_the_bias)
{
	for (unsigned i = 0; i < 1000; ++i) {
		turn_take(&turn);
		cr_assert_eq(atomic_load(&turn.is_inside), 1);
		cr_assert_not(turn.has_mutex);
		turn_give(&turn);
		cr_assert_eq(atomic_load(&turn.is_inside), 0);
	}
	cr_expect_not(is_shared());
}

/* ---- many ---- */

enum { N_THREADS = 6, N_TURNS = 20000 };

/* Not atomic: a turn is all that guards them. */
static uint64_t counter, mirror;
static _Atomic uint32_t n_inside, n_met;

static void *take_turns(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < N_TURNS; ++i) {
		turn_take(&turn);
		if (atomic_fetch_add_explicit(&n_inside, 1, memory_order_relaxed) != 0 ||
		    counter != mirror)
			atomic_fetch_add_explicit(&n_met, 1, memory_order_relaxed);
		++counter;
		if (i % 64 == 0)
			(void)sched_yield();
		++mirror;
		atomic_fetch_sub_explicit(&n_inside, 1, memory_order_relaxed);
		turn_give(&turn);
	}
	return NULL;
}

static void run_threads(unsigned n)
{
	pthread_t threads[N_THREADS];

	counter = mirror = 0;
	atomic_store(&n_met, 0);
	for (unsigned i = 0; i < n; ++i)
		must_start(&threads[i], take_turns, NULL);
	for (unsigned i = 0; i < n; ++i)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_expect_eq(atomic_load(&n_met), 0, "%u met inside", atomic_load(&n_met));
	cr_expect_eq(counter, (uint64_t)n * N_TURNS);
}

/* C-8 */
Case(many_threads_are_never_inside_together)
{
	run_threads(N_THREADS);
	cr_expect(is_shared());
}

/* Each time the bias is taken anew. */
Case(two_threads_meet_at_the_first_turn)
{
	for (unsigned i = 0; i < 20; ++i) {
		turn_deinit(&turn);
		turn_init(&turn);
		run_threads(2);
	}
}

/* ---- the bias of others ---- */

static void *take_one(void *arg)
{
	(void)arg;
	turn_take(&turn);
	turn_give(&turn);
	return NULL;
}

Case(the_bias_of_a_thread_that_ended_is_taken)
{
	pthread_t thread;

	must_start(&thread, take_one, NULL);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_neq(atomic_load(&turn.bias), 0);

	turn_take(&turn);
	counter = 1;
	turn_give(&turn);
	turn_take(&turn);
	turn_give(&turn);
}

static _Atomic uint32_t stage;

static void *stay_inside(void *arg)
{
	(void)arg;
	turn_take(&turn);
	atomic_store(&stage, 1);
	while (atomic_load(&stage) != 2)
		(void)sched_yield();
	counter = 7;
	atomic_store(&stage, 3);
	turn_give(&turn);
	return NULL;
}

static void *come_second(void *arg)
{
	uint64_t *seen = arg;

	turn_take(&turn);
	*seen = atomic_load(&stage) == 3 ? counter : 0;
	turn_give(&turn);
	return NULL;
}

Case(the_bias_of_a_thread_that_is_inside_is_waited_for)
{
	struct timespec deadline = process_deadline(30000);
	pthread_t first, second;
	uint64_t seen = 0;

	counter = 0;
	atomic_store(&stage, 0);
	must_start(&first, stay_inside, NULL);
	while (atomic_load(&stage) != 1)
		(void)sched_yield();
	must_start(&second, come_second, &seen);
	while (!is_shared()) {
		cr_assert_not(process_has_passed(&deadline), "the bias was not taken");
		(void)sched_yield();
	}
	atomic_store(&stage, 2);
	cr_assert_eq(pthread_join(first, NULL), 0);
	cr_assert_eq(pthread_join(second, NULL), 0);
	cr_expect_eq(seen, 7, "it did not wait");
	turn_take(&turn);
	turn_give(&turn);
}
