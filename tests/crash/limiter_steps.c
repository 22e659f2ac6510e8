/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `limiter`, with many who wait: how many instructions a look takes.  It
 * grows as they do, and not as their square.
 */
#include "libipc/channel/limiter.h"

#include <criterion/criterion.h>
#include <limits.h>

#include <ipc/error.h>

#include "tests/support/limiter_scene.h"
#include "tests/support/step.h"

/* A square would be 64 times as many; in a line it is 8 times, or less. */
enum { N_FEW = 16, N_MANY = 8 * N_FEW, GROWTH_MAX = 12 };

#define WINDOW_LONG (UINT64_C(3600) * 1000000000)

enum act { ACT_LOOK, ACT_PROBE, ACT_RELEASE };

static struct limiter_scene scene;
static struct limiter_member members[N_MANY / SEATS_PER_ROW], holder;
static struct limiter_part parts[N_MANY], held;
static enum act act;
static unsigned n_waiters;
static long n_steps;

static void operate(void *arg)
{
	struct limiter_denial denial;

	(void)arg;
	switch (act) {
	case ACT_LOOK:
		(void)!limiter_scene_look(&members[(n_waiters - 1) / SEATS_PER_ROW],
					  &parts[n_waiters - 1]);
		break;
	case ACT_PROBE:
		(void)!limiter_probe(&members[0].view, &denial);
		break;
	case ACT_RELEASE:
		(void)!limiter_release(&holder.view, &held, false);
		break;
	}
}

/* It is done twice, and the second release finds nothing to be done. */
static void check(void *arg, long n)
{
	(void)arg;
	if (n_steps < n)
		n_steps = n;
}

/* All of one user; the holder has all that could be had of permits, of the user's bound or of the
 * window. */
static void crowd_make(const uint64_t shape[4], uint32_t n_held)
{
	limiter_scene_init(&scene, shape);
	limiter_scene_enter(&scene, &holder, 999, 1000);
	if (limiter_scene_acquire(&holder, &held, 0, n_held) != 0)
		limiter_scene_fail("acquire");

	for (unsigned i = 0; i < n_waiters; ++i) {
		struct limiter_member *member = &members[i / SEATS_PER_ROW];

		if (i % SEATS_PER_ROW == 0)
			limiter_scene_enter(&scene, member, 1000 + i, 1000);
		if (limiter_scene_queue(member, &parts[i], i % SEATS_PER_ROW, 1) != 1)
			limiter_scene_fail("queue");
	}
}

static long steps_of(const uint64_t shape[4], uint32_t n_held, unsigned n)
{
	const struct step_case step = {.operation = operate, .check = check, .first = LONG_MAX};

	n_waiters = n;
	n_steps = 0;
	crowd_make(shape, n_held);
	(void)step_run(&step, NULL);
	limiter_scene_deinit(&scene);
	return n_steps;
}

static void expect_growth(enum act what, const uint64_t shape[4], uint32_t n_held)
{
	long few, many;

	act = what;
	few = steps_of(shape, n_held, N_FEW);
	many = steps_of(shape, n_held, N_MANY);
	cr_log_info("%d wait: %ld instructions; %d: %ld", N_FEW, few, N_MANY, many);
	cr_expect_gt(many, N_MANY, "it was not looked at");
	cr_expect_lt(many, GROWTH_MAX * few, "%ld grew to %ld", few, many);
}

/* L-3 */
Test(limiter_steps, look_at_those_who_lack_permits, .timeout = 180)
{
	expect_growth(ACT_LOOK, (const uint64_t[4]){4, 0, 0, 0}, 4);
	expect_growth(ACT_PROBE, (const uint64_t[4]){4, 0, 0, 0}, 4);
}

/* L-7 */
Test(limiter_steps, look_at_those_who_lack_their_users_bound, .timeout = 180)
{
	expect_growth(ACT_LOOK, (const uint64_t[4]){4, 2, 0, 0}, 2);
	expect_growth(ACT_PROBE, (const uint64_t[4]){4, 2, 0, 0}, 2);
}

/* L-7 */
Test(limiter_steps, look_at_those_who_lack_units, .timeout = 180)
{
	expect_growth(ACT_LOOK, (const uint64_t[4]){4, 0, 3, WINDOW_LONG}, 3);
	expect_growth(ACT_PROBE, (const uint64_t[4]){4, 0, 3, WINDOW_LONG}, 3);
}

/* L-3: of those, one is granted for each permit that came back. */
Test(limiter_steps, release_of_one_permit, .timeout = 180)
{
	expect_growth(ACT_RELEASE, (const uint64_t[4]){1, 0, 0, 0}, 1);
	expect_growth(ACT_RELEASE, (const uint64_t[4]){2, 2, 0, 0}, 2);
}
