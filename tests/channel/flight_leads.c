/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight`: the leader's end, promotion, fences, and who may do what.
 */
#include "libipc/channel/flight.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "tests/channel/flight_cast.h"
#include "tests/support/process.h"

/* ---- the leader's end ---- */

/* F-2 */
Test(flight_leads, leave_of_the_leader_promotes_one_follower, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint32_t cell;

	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_assert_eq(join(&c, &third, "key"), 2);
	cell = second.cell;
	leave(&a, &first);

	cr_expect_eq(flight_count(&b.view), 1, "the key was removed");
	cr_expect_eq(look(&c, &third), 1);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN);
	cr_expect_eq(look(&c, &third), 1);
	cr_expect_eq(flight_leader_id(&b.view, &second), 13);
	cr_assert_eq(join(&a, &first, "key"), 2);
	cr_expect_eq(first.cell, cell);

	cr_assert_eq(land(&c, &third, "by the second"), 0);
	expect_landed(&b, &second, "by the second", 2, 4);
	expect_landed(&a, &first, "by the second", 2, 4);
}

/* F-2, F-3, F-4 */
Test(flight_leads, dead_leader_is_passed_over_and_lands_no_more, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t fence_before, fence;

	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_assert_eq(flight_get_fence(&a.view, &first, &fence_before), 0);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN, "a slow leader was passed over");

	flight_scene_end(&scene, a.id);
	cr_expect_eq(flight_count(&b.view), 1);
	cr_expect_eq(look(&b, &second), 1);
	cr_assert_eq(flight_get_fence(&b.view, &second, &fence), 0);
	cr_expect_gt(fence, fence_before);

	cr_expect_eq(land(&a, &first, "too late"), IPC_ESTALE);
	cr_expect_eq(flight_scene_fail_with(&a, &first, IPC_FAILURE_LOCAL, 1, "too late"),
		     IPC_ESTALE);
	cr_expect_eq(flight_get_fence(&a.view, &first, &fence), IPC_ESTALE);
	leave(&a, &first);
	cr_expect_eq(look(&b, &second), 1, "the dead one's leave touched the flight");

	cr_assert_eq(land(&b, &second, "new"), 0);
	expect_landed(&b, &second, "new", 2, 2);
	cr_expect_eq(result_of(&b, &second).fence, fence);
}

/* F-2 */
Test(flight_leads, attempts_are_counted, .init = setup, .fini = teardown, .timeout = 60)
{
	struct flight_member members[N_ATTEMPTS];
	struct flight_part parts[N_ATTEMPTS];

	cr_assert_eq(join(&a, &first, "key"), 1);
	for (unsigned i = 0; i < N_ATTEMPTS; ++i) {
		flight_scene_enter(&scene, &members[i], 30 + i);
		cr_assert_eq(join(&members[i], &parts[i], "key"), 2);
	}

	flight_scene_end(&scene, a.id);
	for (unsigned i = 0; i + 1 < N_ATTEMPTS; ++i) {
		cr_assert_eq(look(&members[i], &parts[i]), 1, "attempt %u", i + 2);
		if (i == 0)
			leave(&members[i], &parts[i]);
		else
			flight_scene_end(&scene, members[i].id);
	}
	cr_expect_eq(look(&members[N_ATTEMPTS - 1], &parts[N_ATTEMPTS - 1]), IPC_EOWNERDEAD);
	cr_expect_eq(look(&members[N_ATTEMPTS - 1], &parts[N_ATTEMPTS - 1]), IPC_EOWNERDEAD);
	cr_expect_eq(flight_count(&b.view), 0);

	cr_assert_eq(join(&b, &second, "key"), 1, "the key starts anew");
	cr_assert_eq(land(&b, &second, "x"), 0);
	expect_landed(&b, &second, "x", 1, 1);
	for (unsigned i = 0; i < N_ATTEMPTS; ++i)
		flight_detach(&members[i].view);
}

/* F-2 */
Test(flight_leads, without_promotion_a_dead_leader_ends_the_flight, .init = setup_no_promote,
     .fini = teardown, .timeout = 60)
{
	for (unsigned dies = 0; dies < 2; ++dies) {
		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(join(&b, &second, "key"), 2);
		cr_assert_eq(join(&c, &third, "key"), 2);
		if (dies)
			flight_scene_end(&scene, a.id);
		else
			leave(&a, &first);
		cr_expect_eq(look(&b, &second), IPC_EOWNERDEAD);
		cr_expect_eq(look(&c, &third), IPC_EOWNERDEAD);
		leave(&b, &second);
		leave(&c, &third);
	}
	cr_expect_eq(join(&b, &second, "key"), 1);
}

/* F-4 */
Test(flight_leads, end_of_a_follower_does_not_touch_the_flight, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_assert_eq(join(&c, &third, "key"), 2);
	leave(&b, &second);
	flight_scene_end(&scene, c.id);
	cr_expect_eq(look(&a, &first), 1);
	cr_assert_eq(land(&a, &first, "x"), 0);
	expect_landed(&a, &first, "x", 1, 3);
	leave(&a, &first);

	/* Of an older flight. */
	cr_assert_eq(join(&a, &first, "key"), 1);
	leave(&c, &third);
	cr_expect_eq(look(&a, &first), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
}

/* F-4, F-5 */
Test(flight_leads, leader_that_leaves_alone_leaves_nothing, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(join(&a, &first, "key"), 1);
	leave(&a, &first);
	cr_expect_eq(flight_count(&a.view), 0);
	cr_assert_eq(join(&b, &second, "key"), 1);
	cr_assert_eq(land(&b, &second, "x"), 0);
	expect_landed(&b, &second, "x", 1, 1);
	leave(&b, &second);

	/* And when all who followed have left before. */
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	leave(&b, &second);
	leave(&a, &first);
	cr_expect_eq(flight_count(&a.view), 0);
	cr_assert_eq(join(&b, &second, "key"), 1);
	leave(&b, &second);
	expect_all_cells_usable();
}

/* M-25: the key of a leader that died alone is nobody's. */
Test(flight_leads, key_of_a_leader_that_died_alone_starts_anew, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(join(&a, &first, "key"), 1);
	flight_scene_end(&scene, a.id);

	cr_expect_eq(flight_count(&b.view), 0);
	cr_assert_eq(join(&b, &second, "key"), 1);
	cr_assert_eq(join(&c, &third, "key"), 2);
	cr_expect_eq(land(&a, &first, "too late"), IPC_ESTALE);
	cr_assert_eq(land(&b, &second, "x"), 0);
	expect_landed(&c, &third, "x", 1, 2);
}

/* M-25: and whoever comes by the very seat of the dead one is somebody else. */
Test(flight_leads, successor_in_the_row_is_not_the_dead_leader, .init = setup, .fini = teardown,
     .timeout = 60)
{
	static const char *const keys[] = {"alone", "followed"};
	struct flight_member next;
	struct flight_part parts[2];
	uint64_t fence;
	pid_t pid;

	flight_scene_open(&scene, 21);
	pid = process_fork();
	if (pid == 0) {
		struct flight_member leader;

		flight_scene_enter(&scene, &leader, 21);
		for (unsigned i = 0; i < 2; ++i) {
			if (flight_scene_join(&leader, &parts[i], i, keys[i]) != 1)
				_exit(1);
		}
		_exit(0);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_eq(join(&b, &second, "followed"), 2);
	flight_scene_end(&scene, 21);

	flight_scene_enter(&scene, &next, 22);
	cr_assert_eq(next.row, 3, "the row of the dead one is not used again");
	cr_assert_eq(flight_scene_join(&next, &parts[0], 0, "alone"), 1);
	cr_assert_eq(flight_get_fence(&next.view, &parts[0], &fence), 0);
	cr_expect_neq(fence, 0, "leads, and was never made the leader");
	cr_assert_eq(land(&next, &parts[0], "x"), 0);
	expect_landed(&next, &parts[0], "x", 1, 1);
	leave(&next, &parts[0]);

	/* One of the two leads. */
	cr_assert_eq(flight_scene_join(&next, &parts[1], 1, "followed"), 1);
	cr_assert_eq(flight_get_fence(&next.view, &parts[1], &fence), 0);
	cr_expect_neq(fence, 0);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN);
	cr_assert_eq(land(&next, &parts[1], "y"), 0);
	expect_landed(&b, &second, "y", 2, 3);
	leave(&next, &parts[1]);
	leave(&b, &second);
	flight_scene_leave(&scene, &next);
	expect_all_cells_usable();
}

/* M-25: deaths of leaders do not use up the table, though their rows are taken at once. */
Test(flight_leads, cells_of_dead_leaders_are_used_again_beside_their_successors, .init = setup,
     .fini = teardown, .timeout = 60)
{
	struct flight_member next[3 * N_KEYS];

	for (unsigned i = 0; i < 3 * N_KEYS; ++i) {
		char key[] = {'d', (char)('a' + i), 0};
		pid_t pid;

		flight_scene_open(&scene, 200 + i);
		pid = process_fork();
		if (pid == 0) {
			struct flight_member leader;
			struct flight_part part;

			flight_scene_enter(&scene, &leader, 200 + i);
			_exit(flight_scene_join(&leader, &part, 0, key) != 1);
		}
		cr_assert_eq(process_reap(pid, 30000), 0, "the table is full after %u deaths", i);
		flight_scene_end(&scene, 200 + i);
		flight_scene_enter(&scene, &next[i], 300 + i);
	}
	expect_all_cells_usable();
	for (unsigned i = 0; i < 3 * N_KEYS; ++i)
		flight_detach(&next[i].view);
}

/* ---- a leader that is held dead while it writes ---- */

struct writing {
	struct quicklock *lock;
	pthread_barrier_t both;
};

static void *write_on(void *arg)
{
	struct writing *writing = arg;
	bool held = quicklock_try(writing->lock) == QUICKLOCK_HELD;

	(void)pthread_barrier_wait(&writing->both); /* it writes */
	(void)pthread_barrier_wait(&writing->both); /* it is through */
	if (held)
		quicklock_unlock(writing->lock);
	return (void *)(uintptr_t)held;
}

/* F-3: two must not write into the same memory. */
Test(flight_leads, promoted_over_one_that_still_writes_ends_the_flight, .init = setup,
     .fini = teardown, .timeout = 60)
{
	struct flight_segment *segment = scene.segment;
	struct writing writing;
	uint32_t cell;
	pthread_t thread;
	void *held;

	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_assert_eq(join(&c, &third, "key"), 2);
	cell = first.cell;
	writing.lock = &segment->seats.seat[first.seat].writer;
	cr_assert_eq(pthread_barrier_init(&writing.both, NULL, 2), 0);
	cr_assert_eq(pthread_create(&thread, NULL, write_on, &writing), 0);
	(void)pthread_barrier_wait(&writing.both);

	flight_scene_end(&scene, a.id);
	cr_expect_eq(look(&b, &second), IPC_EOWNERDEAD);
	cr_expect_eq(look(&c, &third), IPC_EOWNERDEAD);
	cr_expect_eq(land(&b, &second, "x"), IPC_EINVAL);
	leave(&b, &second);
	leave(&c, &third);

	/* The key flies on, elsewhere; and that cell is nobody's as long as it is written. */
	for (unsigned i = 0; i < 3 * N_KEYS; ++i) {
		char key[] = {'k', 'e', 'y', (char)('a' + i % 9), 0};

		key[3] = i % 2 ? key[3] : 0;
		cr_assert_neq(fly(&b, key), cell);
	}

	(void)pthread_barrier_wait(&writing.both);
	cr_assert_eq(pthread_join(thread, &held), 0);
	cr_assert(held);
	cr_assert_eq(pthread_barrier_destroy(&writing.both), 0);
	cr_expect_eq(land(&a, &first, "too late"), IPC_ESTALE);
	leave(&a, &first);
	expect_all_cells_usable();
}

/* ---- who may do what ---- */

/* F-8 */
Test(flight_leads, thread_that_leads_the_key_does_not_wait_for_itself, .init = setup,
     .fini = teardown, .timeout = 60)
{
	cr_assert_eq(flight_scene_join(&a, &first, 0, "key"), 1);
	cr_expect_eq(flight_scene_join(&a, &second, 1, "key"), IPC_EDEADLK);
	expect_empty(&second);
	cr_expect_eq(flight_scene_join(&b, &third, 0, "key"), IPC_EDEADLK, "by another handle");
	cr_expect_eq(flight_scene_join(&b, &third, 0, "other"), 1);
	leave(&b, &third);
	cr_assert_eq(join(&b, &third, "key"), 2, "another thread waits like anybody");
	leave(&b, &third);

	/* Of the process that died the number may be used again. */
	flight_scene_end(&scene, a.id);
	cr_expect_eq(flight_scene_join(&b, &third, 0, "key"), 1);
}

/* F-17 */
Test(flight_leads, only_the_leader_ends_a_flight_and_once, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t fence, again;

	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_expect_eq(land(&b, &second, "x"), IPC_EINVAL);
	cr_expect_eq(flight_get_fence(&b.view, &second, &fence), IPC_EINVAL);
	cr_assert_eq(flight_get_fence(&a.view, &first, &fence), 0);

	cr_assert_eq(land(&a, &first, "y"), 0);
	cr_expect_eq(land(&a, &first, "z"), IPC_EINVAL);
	cr_expect_eq(flight_scene_fail_with(&a, &first, IPC_FAILURE_LOCAL, 1, "z"), IPC_EINVAL);
	cr_expect_eq(land(&b, &second, "x"), IPC_EINVAL);
	cr_assert_eq(flight_get_fence(&a.view, &first, &again), 0);
	cr_expect_eq(again, fence);
	cr_expect_eq(result_of(&b, &second).fence, fence);
	expect_landed(&b, &second, "y", 1, 2);
}

Test(flight_leads, what_began_by_an_earlier_use_of_the_part_does_not_end_this_one, .init = setup,
     .fini = teardown, .timeout = 60)
{
	uint64_t use;

	cr_assert_eq(join(&a, &first, "key"), 1);
	use = atomic_load(&first.use);
	atomic_store(&first.use, use + (FLIGHT_USE & -FLIGHT_USE));
	cr_expect_eq(flight_finish(&a.view, &first, use, IPC_FAILURE_NONE, 0, "x", 1), IPC_EINVAL);
	cr_expect_eq(look(&a, &first), 1);
	cr_assert_eq(land(&a, &first, "y"), 0);
	expect_landed(&a, &first, "y", 1, 1);
}

/* F-12 */
Test(flight_leads, fences_grow_over_keys_and_leaders, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t last = 0, fence;

	for (unsigned i = 0; i < 30; ++i) {
		struct flight_member *member = i % 2 ? &a : &b;
		char key[] = {(char)('a' + i % 5), 0};

		cr_assert_eq(join(member, &first, key), 1);
		cr_assert_eq(flight_get_fence(&member->view, &first, &fence), 0);
		cr_expect_gt(fence, last);
		cr_expect_eq(fence & ((1u << FENCE_LANE_BITS) - 1), FLIGHT_SCENE_LANE);
		last = fence;
		leave(member, &first);
	}
}

/* F-12: each uid counts for itself, with a clock that may be behind. */
Test(flight_leads, fences_grow_from_uid_to_uid, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t last = 0, fence;

	b.view.fence = &scene.board->word[0];
	b.view.fence_lane = FLIGHT_SCENE_LANE - 1;
	a.view.is_foreign = b.view.is_foreign = true;
	for (unsigned i = 0; i < 40; ++i) {
		struct flight_member *member = i / 2 % 2 ? &a : &b;

		if (i == 20)
			atomic_store(&scene.board->word[0], 1000000);
		cr_assert_eq(join(member, &first, "key"), 1);
		cr_assert_eq(flight_get_fence(&member->view, &first, &fence), 0);
		cr_expect_gt(fence >> FENCE_LANE_BITS, last >> FENCE_LANE_BITS);
		last = fence;
		leave(member, &first);
	}
}

/* F-12, M-60: a number that nobody can have reached by counting is not believed. */
Test(flight_leads, a_made_up_fence_moves_nobody_on, .init = setup, .fini = teardown, .timeout = 60)
{
	const uint64_t made_up[] = {UINT64_MAX, UINT64_MAX >> FENCE_LANE_BITS, UINT64_C(1) << 60};
	uint64_t last = 0, fence;

	a.view.is_foreign = true;
	for (unsigned i = 0; i < N_ELEMENTS(made_up); ++i) {
		atomic_store(&((struct flight_segment *)scene.segment)->fence, made_up[i]);
		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(flight_get_fence(&a.view, &first, &fence), 0);
		leave(&a, &first);

		cr_expect_gt(fence, last);
		cr_expect_lt(fence >> FENCE_LANE_BITS, UINT64_C(1) << 40);
		last = fence;
	}
}
