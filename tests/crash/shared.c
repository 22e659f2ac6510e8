/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `shared`, killed at every instruction of each operation.  The test
 * plays the broker.
 */
#include "libipc/channel/shared.h"

#include <criterion/criterion.h>

#include <ipc/error.h>

#include "tests/support/shared_scene.h"
#include "tests/support/shared_steps.h"

static struct shared_scene scene;
static struct shared view;

static void side_open(bool is_a, bool in_place)
{
	/* The test opens first, its children inherit the mapping. */
	if (!scene.segment)
		shared_scene_init(&scene, SHARED_STEPS_VALUE_SIZE,
				  in_place ? SHARED_IN_PLACE : SHARED_TRANSACTIONAL);
	view = shared_scene_attach(&scene, is_a ? 1 : 2);
}

static int side_lock(const void **ret_value)
{
	struct waiter waiter = shared_scene_waiter(&scene, CLOCK_FOREVER);
	int r = shared_lock_wait(&view, &waiter);

	if (r >= 0)
		*ret_value = shared_value(&view);
	return r;
}

struct predicate {
	bool (*fn)(const void *value, size_t size, void *userdata);
	void *userdata;
};

static bool predicate_holds(const void *value, uint64_t size, void *userdata)
{
	const struct predicate *predicate = userdata;

	return predicate->fn(value, size, predicate->userdata);
}

static int predicate_end(void *userdata)
{
	(void)userdata;
	return -(int)atomic_load(&scene.board->end);
}

static int side_lock_when(bool (*fn)(const void *, size_t, void *), void *userdata,
			  const void **ret_value)
{
	struct waiter waiter = shared_scene_waiter(&scene, CLOCK_FOREVER);
	struct predicate predicate = {fn, userdata};
	struct shared_condition condition = {
		.holds = predicate_holds, .end = predicate_end, .userdata = &predicate};
	int r = shared_lock_when_wait(&view, &waiter, &condition);

	if (r >= 0)
		*ret_value = shared_value(&view);
	return r;
}

static int side_edit(void **ret_value)
{
	return shared_edit(&view, ret_value);
}

static int side_commit(void)
{
	return shared_commit(&view);
}

static int side_unlock(void)
{
	return shared_unlock(&view);
}

static int side_mark_consistent(void)
{
	return shared_mark_consistent(&view);
}

static void side_died(void)
{
	atomic_store(&scene.board->end, EOWNERDEAD);
	shared_scene_attend(&scene);
}

static void side_next(void)
{
	atomic_store(&scene.board->end, 0);
}

static const struct shared_side side = {
	.open = side_open,
	.lock = side_lock,
	.lock_when = side_lock_when,
	.edit = side_edit,
	.commit = side_commit,
	.unlock = side_unlock,
	.mark_consistent = side_mark_consistent,
	.died = side_died,
	.next = side_next,
};

static void run(enum shared_scene_name name, bool in_place)
{
	long n_points = shared_steps_run(&side, name, in_place, 1);

	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 20);
}

/* S-1, S-2, M-21, M-25, M-26 */
Test(shared, killed_in_lock_edit_commit, .timeout = 120)
{
	run(SHARED_EDIT_COMMIT, false);
}

/* S-2 */
Test(shared, killed_in_lock_edit_unlock, .timeout = 120)
{
	run(SHARED_EDIT_UNLOCK, false);
}

/* S-4 */
Test(shared, killed_in_lock_when_that_holds, .timeout = 120)
{
	run(SHARED_WHEN_HOLDS, false);
}

/* M-26 */
Test(shared, killed_in_lock_when_that_sleeps, .timeout = 120)
{
	run(SHARED_WHEN_ASLEEP, false);
}

/* M-25, M-27 */
Test(shared, killed_in_commit_with_the_peer_waiting_for_the_lock, .timeout = 120)
{
	run(SHARED_COMMIT_CONTENDED, false);
}

/* M-26 */
Test(shared, killed_waiting_for_the_lock, .timeout = 120)
{
	run(SHARED_LOCK_CONTENDED, false);
}

/* S-3, S-10 */
Test(shared, killed_in_place_in_lock_edit_commit, .timeout = 120)
{
	run(SHARED_EDIT_COMMIT, true);
}

/* S-3, S-10 */
Test(shared, killed_in_place_in_lock_edit_unlock, .timeout = 120)
{
	run(SHARED_EDIT_UNLOCK, true);
}

/* S-3, S-10 */
Test(shared, killed_in_place_in_lock_when_that_sleeps, .timeout = 120)
{
	run(SHARED_WHEN_ASLEEP, true);
}

/* S-3, S-10: who dies before or after the mark is told again. */
Test(shared, killed_in_place_in_mark_and_commit, .timeout = 120)
{
	run(SHARED_MARK_COMMIT, true);
}
