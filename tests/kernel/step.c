/* SPDX-License-Identifier: MIT */

/*
 * The harness that kills at every instruction, and what it relies on of ptrace(2).
 */

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/support/actor.h"
#include "tests/support/step.h"

struct scene {
	_Atomic uint32_t first, second;
	_Atomic uint32_t word;
	unsigned n_checks, n_between, n_wrong;
	long last;
};

static struct scene *scene_new(void)
{
	struct scene *scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(scene, MAP_FAILED);
	return scene;
}

static void store_twice(void *arg)
{
	struct scene *scene = arg;

	for (unsigned i = 0; i < 20; ++i) {
		atomic_fetch_add_explicit(&scene->first, 1, memory_order_relaxed);
		(void)getppid();
		atomic_fetch_add_explicit(&scene->second, 1, memory_order_relaxed);
	}
}

static void count_differences(void *arg, long n)
{
	struct scene *scene = arg;
	uint32_t difference = scene->first - scene->second;

	++scene->n_checks;
	scene->n_between += difference == 1;
	scene->n_wrong += difference > 1 || scene->first > 20;
	scene->last = n;
	scene->first = scene->second = 0;
}

Test(step, dies_between_any_two_stores, .timeout = 60)
{
	struct step_case step = {.operation = store_twice, .check = count_differences};
	struct scene *scene = scene_new();
	long n = step_run(&step, scene);

	cr_assert_eq(scene->n_checks, n + 2, "and the two that were stepped to the end");
	cr_assert_eq(scene->n_wrong, 0);
	cr_assert_geq(scene->n_between, 20 * 4, "each of the 20 gaps, at each of its instructions");
	cr_assert_geq(n - scene->n_between, 20 * 2);
}

Test(step, takes_every_nth_with_a_stride, .timeout = 60)
{
	struct step_case step = {.operation = store_twice, .check = count_differences};
	struct scene *scene = scene_new();
	long all = step_run(&step, scene), some;

	step.stride = 7;
	step.first = 3;
	some = step_run(&step, scene);
	cr_assert_leq(some, all / 7 + 20);
	cr_assert_geq(some, all / 7 - 20, "%ld of %ld", some, all);
	cr_assert_eq(scene->last % 7, 3);
}

static void sleep_in_the_middle(void *arg)
{
	struct scene *scene = arg;

	atomic_fetch_add_explicit(&scene->first, 1, memory_order_relaxed);
	(void)syscall(SYS_futex, &scene->word, FUTEX_WAIT, 0, NULL, NULL, 0);
	atomic_fetch_add_explicit(&scene->second, 1, memory_order_relaxed);
}

Test(step, an_operation_that_sleeps_ends_there, .timeout = 60)
{
	struct step_case step = {.operation = sleep_in_the_middle, .check = count_differences};
	struct scene *scene = scene_new();

	cr_assert_geq(step_run(&step, scene), 10);
	cr_assert_eq(scene->n_wrong, 0);
	cr_assert_gt(scene->n_between, 0);
}

static void sleep_on_word(struct actor *self, void *arg)
{
	struct scene *scene = arg;

	actor_say(self, 1);
	(void)syscall(SYS_futex, &scene->word, FUTEX_WAIT, 0, NULL, NULL, 0);
	actor_say(self, 2);
}

/* What actor_until_asleep() promises: after it a wake finds its sleeper. */
Test(step, a_sleeping_actor_is_recognised, .timeout = 60)
{
	struct scene *scene = scene_new();

	for (unsigned i = 0; i < 50; ++i) {
		struct actor actor;

		actor_start(&actor, sleep_on_word, scene);
		cr_assert_eq(actor_hear(&actor), 1);
		actor_until_asleep(&actor);
		cr_assert_eq(syscall(SYS_futex, &scene->word, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
		cr_assert_eq(actor_hear(&actor), 2);
		cr_assert_eq(actor_join(&actor), 0);
	}
}
