/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_GROUP_SCENE_H
#define TESTS_CLIENT_GROUP_SCENE_H

/*
 * What the tests of groups share: short forms of their calls, and queues that are small.
 */

#include "tests/client/queue_scene.h"

/* Enough for the numbers that are pushed here, and little memory. */
#define SMALL .items_max = 4, .bytes_max = 64, .item_size_max = 16

static inline ipc_group *group_new_of(ipc_client *by, const char *pattern)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_group *group = NULL;
	int r = ipc_group_open_wait(&group, by, pattern, &deadline);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return group;
}

static inline ipc_group *group_new(const char *pattern)
{
	return group_new_of(fixture_client, pattern);
}

/* Until the broker has told the ends of all but n: a handle's end is told before its side's. */
static inline void until_count(ipc_group *group, int n)
{
	struct timespec limit = process_deadline(WAIT_MS);

	while (ipc_group_count(group) != n) {
		cr_assert(!process_has_passed(&limit), "%d are left, not %d",
			  ipc_group_count(group), n);
		process_pause();
	}
}

static inline ipc_queue_consumer *small_new(const char *name)
{
	return queue_consumer_new(name, (struct ipc_queue_options){SMALL});
}

static inline struct ipc_group_result group_push(ipc_group *group, unsigned priority,
						 uint32_t number, enum ipc_full_policy policy)
{
	struct ipc_group_result result = {.size = sizeof(result)};
	int r = ipc_group_push(group, priority, &number, sizeof(number), policy, &result);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return result;
}

/* The fields in their order. */
#define EXPECT_RESULT(result, ...)                                                                 \
	do {                                                                                       \
		const struct ipc_group_result expect_is = (result);                                \
		const uint32_t expect_wanted[6] = {__VA_ARGS__};                                   \
		const uint32_t expect_fields[6] = {expect_is.queued,  expect_is.dead_lettered,     \
						   expect_is.dropped, expect_is.full,              \
						   expect_is.gone,    expect_is.too_big};          \
                                                                                                   \
		for (unsigned expect_i = 0; expect_i < 6; ++expect_i)                              \
			cr_expect_eq(expect_fields[expect_i], expect_wanted[expect_i],             \
				     "field %u is %u, not %u", expect_i, expect_fields[expect_i],  \
				     expect_wanted[expect_i]);                                     \
	} while (0)

#endif
