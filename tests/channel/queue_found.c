/* SPDX-License-Identifier: MIT */
/*
 * What a queue finds when much has happened before: free blocks, leases, items that came too often.
 */
#include <criterion/criterion.h>

#include <ipc/error.h>

#include "tests/support/queue_scene.h"

static struct queue_scene scene, another;

/* what was found full once is found free however many frees later. */
Test(queue_found, free_blocks_are_found_after_millions_of_frees, .timeout = 60)
{
	const uint64_t shape[4] = QUEUE_SHAPE(1, 4, 64, 8, 3);
	struct ipc_queue_item items[4], item;
	struct queue_member member;

	queue_scene_init(&scene, shape, NULL);
	queue_scene_enter(&scene, &member, 11);
	for (unsigned i = 0; i < 4; ++i)
		cr_assert_eq(queue_scene_push(&member, 0, i, 8), 0);
	cr_assert_eq(queue_scene_push(&member, 0, 9, 8), IPC_EAGAIN);
	for (unsigned i = 0; i < 4; ++i)
		cr_assert_eq(queue_take(&member.view, &items[i]), 0);
	cr_assert_eq(queue_ack(&member.view, items[1].lease), 0);
	cr_assert_eq(queue_ack(&member.view, items[2].lease), 0);

	/* Past 2^20 and 2^21 frees of the group. */
	for (uint32_t i = 0; i < (1u << 21) + 10; ++i) {
		cr_assert_eq(queue_scene_push(&member, 0, i, 8), 0, "push %u", i);
		cr_assert_eq(queue_take(&member.view, &item), 0);
		cr_assert_eq(queue_ack(&member.view, item.lease), 0);
	}
	queue_scene_deinit(&scene);
}

/* */
Test(queue_found, lease_of_another_queue_is_stale)
{
	const uint64_t shape[4] = QUEUE_SHAPE(1, 4, 64, 8, 3);
	struct ipc_queue_item item, other;
	struct queue_member here, there;

	queue_scene_init(&scene, shape, NULL);
	queue_scene_init(&another, shape, NULL);
	queue_scene_enter(&scene, &here, 11);
	queue_scene_enter(&another, &there, 12);
	cr_assert_eq(queue_scene_push(&here, 0, 1, 8), 0);
	cr_assert_eq(queue_scene_push(&there, 0, 2, 8), 0);
	cr_assert_eq(queue_take(&here.view, &item), 0);
	cr_assert_eq(queue_take(&there.view, &other), 0);

	cr_expect_eq(queue_ack(&there.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_requeue(&there.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_reject(&there.view, item.lease), IPC_ESTALE);
	cr_expect_eq(queue_ack(&there.view, other.lease), 0);
	cr_expect_eq(queue_ack(&here.view, item.lease), 0);
	queue_scene_deinit(&scene);
	queue_scene_deinit(&another);
}

/* one look at the blocks puts away all of them; a look for each would take minutes. */
Test(queue_found, one_take_puts_away_all_that_came_too_often, .timeout = 60)
{
	enum { N = 100000 };
	const uint64_t shape[4] = QUEUE_SHAPE(1, N, (uint64_t)N * 8, 8, 1);
	struct ipc_queue_state state = {.size = sizeof(state)};
	struct queue_member dying, living;
	struct ipc_queue_item item;

	queue_scene_init(&scene, shape, NULL);
	queue_scene_enter(&scene, &dying, 11);
	queue_scene_enter(&scene, &living, 12);
	for (unsigned i = 0; i < N; ++i) {
		cr_assert_eq(queue_scene_push(&living, 0, i, 8), 0);
		cr_assert_eq(queue_take(&dying.view, &item), 0);
	}
	queue_scene_die(&scene, &dying);

	cr_expect_eq(queue_take(&living.view, &item), IPC_EAGAIN);
	cr_assert_eq(queue_get_state(&living.view, &state), 0);
	cr_expect_eq(state.dropped[0][IPC_DEAD_ATTEMPTS], N);
	queue_scene_deinit(&scene);
}
