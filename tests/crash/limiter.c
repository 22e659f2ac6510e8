/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `limiter`, killed at every instruction of each operation: permits are
 * neither lost nor doubled, whoever waits gets on, and a window's units are used at most once.  The
 * test plays the broker.
 */
#include "libipc/channel/limiter.h"

#include <criterion/criterion.h>

#include <ipc/error.h>

#include "tests/support/limiter_scene.h"
#include "tests/support/step.h"

enum { N_PERMITS = 5, WINDOW_UNITS = 100 };

#define WINDOW_LONG (UINT64_C(3600) * 1000000000)

enum { VICTIM = 11, HOLDER = 12, WAITER = 13, SURVIVOR = 14 };

enum act {
	ACT_ACQUIRE,
	ACT_ACQUIRE_AND_RELEASE,
	ACT_QUEUE_AND_GIVE_UP,
	ACT_RELEASE_TO_THE_QUEUE,
	ACT_GIVE_UP_BEFORE_THE_QUEUE,
	ACT_RECLAIM,
	ACT_ROLL,
	ACT_REFUND,
	ACT_ROW,
	ACT_CLOSE,
};

static struct limiter_scene scene;
static struct limiter_member victim, holder, waiter;
static struct limiter_part victims, holders, waiters;
static enum act act;

/* In shared memory: what the victim got done, as it says itself. */
static _Atomic uint64_t *progress;

static void scene_make(void)
{
	const uint64_t shape[4] = {N_PERMITS, 0, WINDOW_UNITS, WINDOW_LONG};

	if (!scene.segment) {
		limiter_scene_init(&scene, shape);
		progress = limiter_scene_map(4096);
	}
	limiter_scene_reset(&scene);
	atomic_store(progress, 0);
	limiter_scene_enter(&scene, &holder, HOLDER, 1000);
	limiter_scene_enter(&scene, &waiter, WAITER, 1001);
	limiter_scene_open(&scene, VICTIM);
	limiter_scene_attach(&scene, &victim, VICTIM, 1002);
}

/* A window that ended long ago is what the head's record says. */
static void window_is_over(void)
{
	uint64_t head = atomic_load(&scene.segment->head);
	struct limiter_record *record =
		&scene.segment->cell[limiter_head_seat(head)].record[head & 1];

	atomic_store(&record->window_start, 1);
	atomic_store(&record->window_used, WINDOW_UNITS);
	atomic_store(&record->window_number, 1);
}

static void must(bool holds, const char *what)
{
	if (!holds)
		limiter_scene_fail(what);
}

/* In the child, at full speed. */
static void prepare(void *arg)
{
	(void)arg;
	if (act != ACT_ROW)
		must(limiter_row_take(&victim.view, &victim.row), "row");

	switch (act) {
	case ACT_ACQUIRE:
	case ACT_ACQUIRE_AND_RELEASE:
	case ACT_ROW:
		break;
	case ACT_QUEUE_AND_GIVE_UP:
		must(limiter_scene_acquire(&holder, &holders, 0, N_PERMITS) == 0, "acquire");
		break;
	case ACT_RELEASE_TO_THE_QUEUE:
		must(limiter_scene_acquire(&victim, &victims, 0, N_PERMITS) == 0, "acquire");
		must(limiter_scene_queue(&waiter, &waiters, 0, 2) == 1, "queue");
		break;
	case ACT_GIVE_UP_BEFORE_THE_QUEUE:
		must(limiter_scene_acquire(&holder, &holders, 0, 3) == 0, "acquire");
		must(limiter_scene_queue(&victim, &victims, 0, N_PERMITS) == 1, "queue");
		must(limiter_scene_queue(&waiter, &waiters, 0, 2) == 1, "queue");
		break;
	case ACT_RECLAIM:
		must(limiter_scene_acquire(&holder, &holders, 0, N_PERMITS) == 0, "acquire");
		must(limiter_scene_queue(&waiter, &waiters, 0, 1) == 1, "queue");
		limiter_scene_end(&scene, HOLDER);
		break;
	case ACT_ROLL:
		window_is_over();
		break;
	case ACT_REFUND:
	case ACT_CLOSE:
		must(limiter_scene_acquire(&victim, &victims, 0, 3) == 0, "acquire");
		break;
	}
}

static void operate(void *arg)
{
	struct limiter_part part;

	(void)arg;
	switch (act) {
	case ACT_ACQUIRE:
	case ACT_ROLL:
		(void)!limiter_scene_acquire(&victim, &part, 0, 3);
		break;
	case ACT_ACQUIRE_AND_RELEASE:
		(void)!limiter_scene_acquire(&victim, &part, 0, 3);
		(void)!limiter_release(&victim.view, &part, false);
		(void)!limiter_scene_acquire(&victim, &part, 0, 2);
		(void)!limiter_release(&victim.view, &part, false);
		break;
	case ACT_QUEUE_AND_GIVE_UP:
		(void)!limiter_scene_queue(&victim, &part, 0, 2);
		(void)!limiter_scene_look(&victim, &part);
		(void)limiter_give_up(&victim.view, &part);
		break;
	case ACT_RELEASE_TO_THE_QUEUE:
		(void)!limiter_release(&victim.view, &victims, false);
		break;
	case ACT_GIVE_UP_BEFORE_THE_QUEUE:
		(void)limiter_give_up(&victim.view, &victims);
		break;
	case ACT_RECLAIM:
		(void)!limiter_scene_acquire(&victim, &part, 0, 1);
		break;
	case ACT_REFUND:
		(void)!limiter_release(&victim.view, &victims, true);
		break;
	case ACT_ROW:
		(void)limiter_row_take(&victim.view, &victim.row);
		break;
	case ACT_CLOSE:
		(void)!limiter_release(&victim.view, &victims, false);
		limiter_row_give(&victim.view, victim.row);
		limiter_scene_end(&scene, VICTIM);
		break;
	}
	atomic_store(progress, 1);
}

/* What the living are known to hold. */
static uint32_t held_by_others(void)
{
	if (act == ACT_QUEUE_AND_GIVE_UP)
		return N_PERMITS;

	return act == ACT_GIVE_UP_BEFORE_THE_QUEUE ? 3 : 0;
}

static bool has_waiter(void)
{
	return act == ACT_RELEASE_TO_THE_QUEUE || act == ACT_GIVE_UP_BEFORE_THE_QUEUE ||
	       act == ACT_RECLAIM;
}

static uint32_t waiter_wants(void)
{
	return act == ACT_RECLAIM ? 1 : 2;
}

static void expect_units(long n, uint64_t used)
{
	uint64_t low = 0, high = 0;

	switch (act) {
	case ACT_ACQUIRE:
	case ACT_ROLL:
		high = 3;
		break;
	case ACT_ACQUIRE_AND_RELEASE:
		high = 5;
		break;
	case ACT_QUEUE_AND_GIVE_UP:
		low = high = N_PERMITS;
		break;
	case ACT_RELEASE_TO_THE_QUEUE:
		low = high = N_PERMITS + 2;
		break;
	case ACT_GIVE_UP_BEFORE_THE_QUEUE:
		low = high = 5;
		break;
	case ACT_RECLAIM:
		low = N_PERMITS + 1;
		high = N_PERMITS + 2;
		break;
	case ACT_REFUND:
		high = 3;
		break;
	case ACT_ROW:
		break;
	case ACT_CLOSE:
		low = high = 3;
		break;
	}
	cr_assert(used >= low && used <= high, "instruction %ld: %lu units are used", n,
		  (unsigned long)used);
}

/* Takes all that is said to be free, one by one: not one more can be had. */
static void expect_permits(long n, struct limiter_member *survivor, uint32_t expected)
{
	struct limiter_part parts[SEATS_PER_ROW];
	struct ipc_limiter_state state;
	uint32_t taken = 0;

	cr_assert_eq(limiter_get_state(&survivor->view, &state), 0);
	cr_assert_eq(state.n_free, expected, "instruction %ld: %u are free, not %u", n,
		     state.n_free, expected);
	cr_assert_eq(state.n_waiting, 0, "instruction %ld: %u wait", n, state.n_waiting);

	while (taken < SEATS_PER_ROW &&
	       limiter_scene_acquire(survivor, &parts[taken], taken, 1) == 0)
		++taken;
	cr_assert_eq(taken, expected, "instruction %ld: %u could be had, not %u", n, taken,
		     expected);

	for (uint32_t i = 0; i < taken; ++i)
		cr_assert_eq(limiter_release(&survivor->view, &parts[i], true), 0);
	if (expected > 0) {
		cr_assert_eq(limiter_scene_acquire(survivor, &parts[0], 0, expected), 0,
			     "instruction %ld: not all at once", n);
		cr_assert_eq(limiter_release(&survivor->view, &parts[0], true), 0);
	}
}

/* In the parent, which plays the broker first. */
static void check(void *arg, long n)
{
	struct limiter_member survivor;
	uint32_t others = held_by_others();

	(void)arg;
	limiter_scene_end(&scene, VICTIM);

	/* The parent's parts are those of the children: the same seats, the same words. */
	if (has_waiter()) {
		struct limiter_denial denial;

		limiter_scene_part(&waiter, &waiters, 0, waiter_wants());
		waiters.state = UINT64_C(1) << LIMITER_TURN_SHIFT | LIMITER_WAITING;
		cr_assert_eq(limiter_look(&waiter.view, &waiters, &denial), 0,
			     "instruction %ld: who waits does not get on", n);
		others += waiter_wants();
	}

	limiter_scene_enter(&scene, &survivor, SURVIVOR, 1003);
	expect_units(n, limiter_scene_state(&survivor).window_used);
	expect_permits(n, &survivor, N_PERMITS - others);
	cr_assert_eq(header_fault(&scene.segment->header), 0);

	scene_make();
}

static void run(enum act what)
{
	const struct step_case step = {.prepare = prepare, .operation = operate, .check = check};
	long n_points;

	act = what;
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 50);
}

/* L-2, M-25 */
Test(limiter, killed_in_acquire, .timeout = 180)
{
	run(ACT_ACQUIRE);
}

/* L-2 */
Test(limiter, killed_in_acquire_and_release, .timeout = 180)
{
	run(ACT_ACQUIRE_AND_RELEASE);
}

/* L-3, M-26 */
Test(limiter, killed_in_the_queue, .timeout = 180)
{
	run(ACT_QUEUE_AND_GIVE_UP);
}

/* L-3: the queue goes on without its help. */
Test(limiter, killed_in_release_to_the_queue, .timeout = 180)
{
	run(ACT_RELEASE_TO_THE_QUEUE);
}

/* L-3 */
Test(limiter, killed_giving_up_before_the_queue, .timeout = 180)
{
	run(ACT_GIVE_UP_BEFORE_THE_QUEUE);
}

/* L-2: exactly once, also if who gives it back is killed. */
Test(limiter, killed_taking_from_the_dead, .timeout = 180)
{
	run(ACT_RECLAIM);
}

/* L-6 */
Test(limiter, killed_beginning_a_window, .timeout = 180)
{
	run(ACT_ROLL);
}

/* L-6 */
Test(limiter, killed_in_refund, .timeout = 180)
{
	run(ACT_REFUND);
}

/* L-2 */
Test(limiter, killed_taking_a_row, .timeout = 180)
{
	run(ACT_ROW);
}

/* L-2, M-44 */
Test(limiter, killed_in_close, .timeout = 180)
{
	run(ACT_CLOSE);
}
