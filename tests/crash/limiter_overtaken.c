/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `limiter`, with an operation that stands still before each of its
 * instructions while others get on, and then goes on: also one whose process is held dead
 * meanwhile, although it lives, and whose permits and place in the queue were given to others.
 */
#include "libipc/channel/limiter.h"

#include <criterion/criterion.h>

#include <ipc/error.h>

#include "tests/support/limiter_scene.h"
#include "tests/support/step.h"

enum { N_PERMITS = 5, WINDOW_UNITS = 1000 };

#define WINDOW_LONG (UINT64_C(3600) * 1000000000)

enum { SLOW = 11, OTHER = 12, THIRD = 13 };

enum act { ACT_ACQUIRE, ACT_RELEASE, ACT_QUEUE, ACT_GIVE_UP, ACT_STATE, ACT_READ };

static struct limiter_scene scene;
static struct limiter_member slow, other, third;
static struct limiter_part slows, others;
static enum act act;
static bool is_held_dead;

/* In shared memory: what the slow one was told. */
static struct told {
	_Atomic int result;
	_Atomic uint32_t n_held;
	_Atomic uint32_t is_done;
	_Atomic uint64_t state; /* of the grant that the slow one reads about */
} * told;

static void scene_make(void)
{
	const uint64_t shape[4] = {N_PERMITS, 0, WINDOW_UNITS, WINDOW_LONG};

	if (!scene.segment) {
		limiter_scene_init(&scene, shape);
		told = limiter_scene_map(4096);
	}
	limiter_scene_reset(&scene);
	atomic_store(&told->is_done, 0);
	atomic_store(&told->n_held, 0);
	limiter_scene_enter(&scene, &other, OTHER, 1000);
	limiter_scene_enter(&scene, &third, THIRD, 1001);
	limiter_scene_enter(&scene, &slow, SLOW, 1002);
}

static void must(bool holds, const char *what)
{
	if (!holds)
		limiter_scene_fail(what);
}

static void prepare(void *arg)
{
	(void)arg;
	switch (act) {
	case ACT_ACQUIRE:
	case ACT_STATE:
		break;
	case ACT_RELEASE:
		must(limiter_scene_acquire(&slow, &slows, 0, 2) == 0, "acquire");
		break;
	case ACT_READ:
		must(limiter_scene_acquire(&third, &others, 0, 4) == 0, "acquire");
		for (unsigned i = 0; i < 5; ++i) {
			must(limiter_scene_acquire(&other, &slows, 0, 1) == 0, "acquire");
			if (i < 4)
				must(limiter_release(&other.view, &slows, false) == 0, "release");
		}
		atomic_store(&told->state, slows.state);
		break;
	case ACT_QUEUE:
	case ACT_GIVE_UP:
		must(limiter_scene_acquire(&third, &others, 0, 4) == 0, "acquire");
		if (act == ACT_GIVE_UP)
			must(limiter_scene_queue(&slow, &slows, 0, 2) == 1, "queue");
		break;
	}
}

/* Told last what it holds. */
static void operate(void *arg)
{
	struct ipc_limiter_state state;
	int r = 0;

	(void)arg;
	switch (act) {
	case ACT_ACQUIRE:
		r = limiter_scene_acquire(&slow, &slows, 0, 2);
		atomic_store(&told->n_held, r == 0 ? 2 : 0);
		break;
	case ACT_RELEASE:
		r = limiter_release(&slow.view, &slows, true);
		break;
	case ACT_QUEUE:
		r = limiter_scene_queue(&slow, &slows, 0, 2);
		if (r == 1)
			r = limiter_scene_look(&slow, &slows);
		if (r == IPC_EAGAIN && limiter_give_up(&slow.view, &slows))
			r = 0;
		atomic_store(&told->n_held, r == 0 ? 2 : 0);
		break;
	case ACT_GIVE_UP:
		atomic_store(&told->n_held, limiter_give_up(&slow.view, &slows) ? 2 : 0);
		break;
	case ACT_READ:
		r = limiter_get_state(&slow.view, &state);
		break;
	case ACT_STATE:
		r = limiter_get_state(&slow.view, &state);
		must(r < 0 || state.n_free + state.n_held == N_PERMITS, "state");
		must(r < 0 || state.n_free == N_PERMITS || state.n_free == 2, "state");
		break;
	}
	atomic_store(&told->result, r);
	atomic_store(&told->is_done, 1);
}

/* The record that the slow one reads is written anew, about another cell. */
static void write_anew(void)
{
	struct limiter_part part;

	limiter_scene_part(&other, &part, 0, 1);
	part.state = atomic_load(&told->state);
	must(limiter_release(&other.view, &part, false) == 0, "release");
	limiter_scene_end(&scene, THIRD);
	must(limiter_scene_acquire(&other, &part, 0, N_PERMITS) == 0, "acquire");
}

/* Others use their seats and records again and again. */
static void meanwhile(void *arg, long n)
{
	struct limiter_part part;

	(void)arg;
	(void)n;
	if (act == ACT_READ) {
		write_anew();
		return;
	}
	if (is_held_dead)
		limiter_scene_end(&scene, SLOW);

	for (unsigned i = 0; i < 3; ++i) {
		int r = limiter_scene_acquire(&other, &part, 0, 3);

		if (r == 0)
			must(limiter_release(&other.view, &part, i == 1) == 0, "release");
		r = limiter_scene_acquire(&other, &part, 1, 1);
		if (r == 0)
			must(limiter_release(&other.view, &part, false) == 0, "release");
	}
}

static uint32_t expected_free(void)
{
	uint32_t n_held = is_held_dead ? 0 : atomic_load(&told->n_held);

	if (act == ACT_QUEUE || act == ACT_GIVE_UP)
		n_held += 4;
	else if (act == ACT_READ)
		n_held = N_PERMITS;
	return N_PERMITS - n_held;
}

static void check(void *arg, long n)
{
	struct limiter_member *taker = act == ACT_READ ? &slow : &other;
	struct limiter_part part[N_PERMITS];
	struct ipc_limiter_state state;
	uint32_t expected = expected_free(), taken = 0;

	(void)arg;
	cr_assert(atomic_load(&told->is_done), "instruction %ld", n);
	if (!is_held_dead)
		cr_assert(atomic_load(&told->result) == 0 ||
				  atomic_load(&told->result) == IPC_EAGAIN,
			  "instruction %ld: %s", n, ipc_error_name(atomic_load(&told->result)));

	state = limiter_scene_state(taker);
	cr_assert_eq(state.n_free, expected, "instruction %ld: %u are free, not %u", n,
		     state.n_free, expected);
	cr_assert_eq(state.n_waiting, 0, "instruction %ld: %u wait", n, state.n_waiting);
	while (taken < N_PERMITS && limiter_scene_acquire(taker, &part[taken], taken, 1) == 0)
		++taken;
	cr_assert_eq(taken, expected, "instruction %ld: %u could be had, not %u", n, taken,
		     expected);
	cr_assert_eq(header_fault(&scene.segment->header), 0);

	scene_make();
}

static void run(enum act what, bool held_dead)
{
	const struct step_case step = {
		.prepare = prepare, .operation = operate, .check = check, .meanwhile = meanwhile};
	long n_points;

	act = what;
	is_held_dead = held_dead;
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 50);
}

/* L-2 */
Test(limiter_overtaken, in_acquire, .timeout = 180)
{
	run(ACT_ACQUIRE, false);
}

/* L-2 */
Test(limiter_overtaken, in_release, .timeout = 180)
{
	run(ACT_RELEASE, false);
}

/* L-3 */
Test(limiter_overtaken, in_the_queue, .timeout = 180)
{
	run(ACT_QUEUE, false);
}

/* L-3 */
Test(limiter_overtaken, giving_up, .timeout = 180)
{
	run(ACT_GIVE_UP, false);
}

/* Never half of one state and half of another. */
Test(limiter_overtaken, in_get_state, .timeout = 180)
{
	run(ACT_STATE, false);
}

/* L-2: nobody's change is taken for another's. */
Test(limiter_overtaken, reading_a_record_that_is_written_anew, .timeout = 180)
{
	run(ACT_READ, false);
}

/* L-2, M-24 */
Test(limiter_overtaken, held_dead_in_acquire, .timeout = 180)
{
	run(ACT_ACQUIRE, true);
}

/* L-2, M-24 */
Test(limiter_overtaken, held_dead_in_release, .timeout = 180)
{
	run(ACT_RELEASE, true);
}

/* L-3, M-24 */
Test(limiter_overtaken, held_dead_in_the_queue, .timeout = 180)
{
	run(ACT_QUEUE, true);
}

/* L-3, M-24 */
Test(limiter_overtaken, held_dead_giving_up, .timeout = 180)
{
	run(ACT_GIVE_UP, true);
}
