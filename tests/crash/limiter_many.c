/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `limiter`: a release that many wait for, killed or overtaken before
 * each of its instructions.  Each grant is one exchange, however many follow one pass over the
 * queue.
 */
#include "libipc/channel/limiter.h"

#include <criterion/criterion.h>

#include <ipc/error.h>

#include "tests/support/limiter_scene.h"
#include "tests/support/step.h"

enum { N_PERMITS = 5, N_WAITERS = 6, LEAVES = 1, VICTIM = 11, WAITER = 12 };

static struct limiter_scene scene;
static struct limiter_member victim, waiter;
static struct limiter_part victims, parts[N_WAITERS + 1];
static bool is_overtaken, has_left;

static void must(bool holds, const char *what)
{
	if (!holds)
		limiter_scene_fail(what);
}

/* The children inherit what the parent has queued. */
static void scene_make(void)
{
	const uint64_t shape[4] = {N_PERMITS, 0, 0, 0};

	if (!scene.segment)
		limiter_scene_init(&scene, shape);
	limiter_scene_reset(&scene);
	limiter_scene_enter(&scene, &victim, VICTIM, 1000);
	limiter_scene_enter(&scene, &waiter, WAITER, 1000);
	must(limiter_scene_acquire(&victim, &victims, 0, N_PERMITS) == 0, "acquire");
	for (unsigned i = 0; i < N_WAITERS; ++i)
		must(limiter_scene_queue(&waiter, &parts[i], i, 1) == 1, "queue");
	has_left = false;
}

static void operate(void *arg)
{
	(void)arg;
	(void)!limiter_release(&victim.view, &victims, false);
}

/* One leaves, or holds already, and another one comes. */
static void meanwhile(void *arg, long n)
{
	(void)arg;
	(void)n;
	has_left = !limiter_give_up(&waiter.view, &parts[LEAVES]);
	must(limiter_scene_queue(&waiter, &parts[N_WAITERS], N_WAITERS, 1) == 1, "queue");
}

static void check(void *arg, long n)
{
	unsigned n_requests = is_overtaken ? N_WAITERS + 1 : N_WAITERS, n_left = has_left;
	struct ipc_limiter_state state;
	unsigned n_held = 0;

	(void)arg;
	limiter_scene_end(&scene, VICTIM);
	for (unsigned i = 0; i < n_requests; ++i) {
		int expected = n_held < N_PERMITS ? 0 : IPC_EAGAIN;

		if (has_left && i == LEAVES)
			continue;
		if (limiter_state_phase(parts[i].state) != LIMITER_HELD)
			cr_assert_eq(limiter_scene_look(&waiter, &parts[i]), expected,
				     "instruction %ld: request %u", n, i);
		++n_held;
	}
	state = limiter_scene_state(&waiter);
	cr_assert_eq(state.n_free, 0, "instruction %ld: %u are free", n, state.n_free);
	cr_assert_eq(state.n_waiting, n_requests - n_left - N_PERMITS, "instruction %ld: %u wait",
		     n, state.n_waiting);

	for (unsigned i = 0; i < n_requests; ++i)
		if (!has_left || i != LEAVES) {
			if (limiter_state_phase(parts[i].state) != LIMITER_HELD)
				cr_assert_eq(limiter_scene_look(&waiter, &parts[i]), 0);
			cr_assert_eq(limiter_release(&waiter.view, &parts[i], false), 0,
				     "instruction %ld: request %u", n, i);
		}
	state = limiter_scene_state(&waiter);
	cr_assert_eq(state.n_free, N_PERMITS);
	cr_assert_eq(state.n_waiting, 0);
	cr_assert_eq(header_fault(&scene.segment->header), 0);

	scene_make();
}

static void run(bool overtaken)
{
	const struct step_case step = {
		.operation = operate, .check = check, .meanwhile = overtaken ? meanwhile : NULL};
	long n_points;

	is_overtaken = overtaken;
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 500);
}

/* L-2, L-3, M-25 */
Test(limiter_many, killed_in_release, .timeout = 700)
{
	run(false);
}

/* L-3 */
Test(limiter_many, overtaken_in_release, .timeout = 700)
{
	run(true);
}
