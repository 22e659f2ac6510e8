/* SPDX-License-Identifier: MIT */
/*
 * The lock, killed at every instruction.  Two counters that are stepped one after the other under
 * the lock show whether anybody was inside twice, or left without a word.
 */
#include "libipc/platform/lock.h"

#include <criterion/criterion.h>

#include "tests/platform/lock_take.h"
#include "tests/support/actor.h"
#include "tests/support/process.h"
#include "tests/support/step.h"

/* A wait may last until the end of a slice, but not of several. */
#define SOON (30 * FUTEX_SLICE_NS) /* and not for ever, on a busy machine */

struct scene {
	struct lock lock;
	volatile uint64_t first, second;
};

static struct scene *scene;
static struct actor waiter, holder;

static void setup(void)
{
	scene = shared_memory(sizeof(*scene));
	cr_assert(scene);
	lock_init(&scene->lock);
}

static void teardown(void)
{
	munmap(scene, sizeof(*scene));
}

/* 0; 1: a death was told; 2: half a change, and nobody told; 3: no lock in time */
static int take_and_repair(uint64_t deadline_ns)
{
	enum lock_result r = lock_take(&scene->lock, deadline_ns);
	bool is_torn = scene->first != scene->second;

	if (r != LOCK_HELD && r != LOCK_HELD_AFTER_DEATH)
		return 3;

	scene->second = scene->first;
	if (lock_unlock(&scene->lock) != 0)
		return 3;
	if (r == LOCK_HELD_AFTER_DEATH)
		return 1;
	return is_torn ? 2 : 0;
}

static void change(void)
{
	scene->first++;
	scene->second++;
}

/* ---- nobody else there ---- */

static void lock_change_unlock(void *arg)
{
	(void)arg;
	if (lock_try(&scene->lock) != LOCK_HELD)
		process_end(1);
	change();
	(void)lock_unlock(&scene->lock);
}

static void check_free(void *arg, long n)
{
	int *n_deaths = arg;
	int r = take_and_repair(0);

	cr_assert_lt(r, 2, "killed before instruction %ld: %s", n,
		     r == 2 ? "half a change, nobody told" : "not free");
	*n_deaths += r;
}

/* M-25 */
Test(lock_death, whoever_is_killed_leaves_it_free, .init = setup, .fini = teardown, .timeout = 60)
{
	struct step_case step = {.operation = lock_change_unlock, .check = check_free, .stride = 1};
	int n_deaths = 0;

	cr_assert_gt(step_run(&step, &n_deaths), 100);
	cr_assert_gt(n_deaths, 10, "the deaths were not where they belong");
}

/* ---- a waiter asleep ---- */

static void wait_when_told(struct actor *self, void *arg)
{
	(void)arg;
	for (;;) {
		(void)actor_hear(self);
		actor_say(self, take_and_repair(CLOCK_FOREVER));
	}
}

static void take_before_the_waiter(void *arg)
{
	enum lock_result r = lock_take(&scene->lock, clock_after_ns(SOON));

	(void)arg;
	if (r != LOCK_HELD)
		process_end(1);
	actor_say(&waiter, 1);
	actor_until_asleep(&waiter);
}

static void change_unlock(void *arg)
{
	(void)arg;
	change();
	(void)lock_unlock(&scene->lock);
}

static void check_waiter(void *arg, long n)
{
	int *n_deaths = arg;
	uint64_t begin = clock_now_ns();
	int64_t r = actor_hear(&waiter);

	cr_assert_lt(clock_now_ns() - begin, SOON,
		     "killed before instruction %ld: the waiter slept on", n);
	cr_assert_lt(r, 2, "killed before instruction %ld: %lld", n, (long long)r);
	*n_deaths += (int)r;
}

/* M-25, M-26 */
Test(lock_death, whoever_is_killed_wakes_the_waiter, .init = setup, .fini = teardown,
     .timeout = 120)
{
	struct step_case step = {
		.prepare = take_before_the_waiter,
		.operation = change_unlock,
		.check = check_waiter,
		.stride = 1,
	};
	int n_deaths = 0;

	actor_start(&waiter, wait_when_told, NULL);
	cr_assert_gt(step_run(&step, &n_deaths), 50);
	cr_assert_gt(n_deaths, 10);
	actor_kill(&waiter);
}

/* ---- one waiter of two is killed ---- */

static void hold_when_told(struct actor *self, void *arg)
{
	(void)arg;
	for (;;) {
		(void)actor_hear(self);
		actor_say(self, lock_take(&scene->lock, clock_after_ns(SOON)));
		(void)actor_hear(self);
		actor_say(self, lock_unlock(&scene->lock));
	}
}

static void let_hold_and_wait(void *arg)
{
	(void)arg;
	actor_say(&holder, 1);
	if (actor_hear(&holder) != LOCK_HELD)
		process_end(1);
	actor_say(&waiter, 1);
	actor_until_asleep(&waiter);
}

static void sleep_for_it(void *arg)
{
	(void)arg;
	if (lock_try(&scene->lock) != LOCK_BUSY)
		process_end(1);
	(void)lock_sleep(&scene->lock, NULL, 0, CLOCK_FOREVER);
}

static void check_other_waiter(void *arg, long n)
{
	uint64_t begin = clock_now_ns();

	(void)arg;
	actor_say(&holder, 1);
	cr_assert_eq(actor_hear(&holder), 0);
	cr_assert_eq(actor_hear(&waiter), 0, "killed before instruction %ld", n);
	cr_assert_lt(clock_now_ns() - begin, SOON,
		     "killed before instruction %ld: the other waiter slept on", n);
}

/* M-26 */
Test(lock_death, killed_waiter_leaves_no_trace, .init = setup, .fini = teardown, .timeout = 120)
{
	struct step_case step = {
		.prepare = let_hold_and_wait,
		.operation = sleep_for_it,
		.check = check_other_waiter,
		.stride = 1,
	};

	actor_start(&waiter, wait_when_told, NULL);
	actor_start(&holder, hold_when_told, NULL);
	cr_assert_gt(step_run(&step, NULL), 50);
	actor_kill(&waiter);
	actor_kill(&holder);
}
