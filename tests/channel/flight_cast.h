/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CHANNEL_FLIGHT_CAST_H
#define TESTS_CHANNEL_FLIGHT_CAST_H

/*
 * Who plays in the tests of the structure of flights: three handles on one mapping, and short forms
 * of what they do.
 */

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/channel/flight.h"
#include "tests/support/flight_scene.h"

enum { RESULT_SIZE = 200, N_KEYS = 8, KEY_SIZE = 30, N_ATTEMPTS = 3 };

static const uint64_t usual_shape[4] = {RESULT_SIZE, N_KEYS, KEY_SIZE, N_ATTEMPTS};

static struct flight_scene scene;
static struct flight_member a, b, c;
static struct flight_part first, second, third;

static inline void setup_shape(const uint64_t shape[4], uint64_t flags)
{
	flight_scene_init(&scene, shape, flags);
	flight_scene_enter(&scene, &a, 11);
	flight_scene_enter(&scene, &b, 12);
	flight_scene_enter(&scene, &c, 13);
}

static inline void setup(void)
{
	setup_shape(usual_shape, 0);
}

static inline void setup_no_promote(void)
{
	setup_shape(usual_shape, IPC_FLIGHT_TABLE_NO_PROMOTE);
}

static inline void teardown(void)
{
	flight_detach(&a.view);
	flight_detach(&b.view);
	flight_detach(&c.view);
	flight_scene_deinit(&scene);
}

/* `member` joins by another thread than this one, as another process does: a thread that leads
 * a key would wait for itself. */
struct joiner {
	struct flight_member *member;
	struct flight_part *part;
	unsigned seat;
	const char *key;
	int result;
};

static inline void *join_there(void *arg)
{
	struct joiner *joiner = arg;

	joiner->result = flight_scene_join(joiner->member, joiner->part, joiner->seat, joiner->key);
	return NULL;
}

static inline int join_by(struct flight_member *member, struct flight_part *part, unsigned seat,
			  const char *key)
{
	struct joiner joiner = {member, part, seat, key, 0};
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, join_there, &joiner), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	return joiner.result;
}

static inline int join(struct flight_member *member, struct flight_part *part, const char *key)
{
	return join_by(member, part, 0, key);
}

static inline int look(struct flight_member *member, struct flight_part *part)
{
	return flight_look(&member->view, part);
}

static inline int land(struct flight_member *member, struct flight_part *part, const char *text)
{
	return flight_scene_land(member, part, text, strlen(text));
}

static inline void leave(struct flight_member *member, struct flight_part *part)
{
	flight_leave(&member->view, part);
}

static inline void expect_empty(const struct flight_part *part)
{
	const struct flight_segment *segment = scene.segment;

	cr_expect_eq(atomic_load(&segment->seats.seat[part->seat].object), 0);
}

static inline struct ipc_flight_result result_of(struct flight_member *member,
						 const struct flight_part *part)
{
	struct ipc_flight_result result = {0};

	cr_assert_eq(flight_get_result(&member->view, part, &result), 0);
	return result;
}

static inline void expect_landed(struct flight_member *member, const struct flight_part *part,
				 const char *text, uint32_t epoch, uint32_t n_joined)
{
	struct ipc_flight_result result = result_of(member, part);

	cr_assert_eq(result.size, strlen(text));
	cr_expect_arr_eq(result.data, text, result.size);
	cr_expect_eq(result.failure, IPC_FAILURE_NONE);
	cr_expect_eq(result.code, 0);
	cr_expect_eq(result.epoch, epoch, "epoch %u", result.epoch);
	cr_expect_eq(result.n_joined, n_joined, "%u joined", result.n_joined);
}

/* One flight with nobody else. */
static inline uint32_t fly(struct flight_member *member, const char *key)
{
	struct flight_part part;

	cr_assert_eq(flight_scene_join(member, &part, 7, key), 1);
	cr_assert_eq(land(member, &part, key), 0);
	expect_landed(member, &part, key, 1, 1);
	leave(member, &part);
	expect_empty(&part);
	return part.cell;
}

/* keys_max flights at once, and then an empty table again. */
static inline void expect_all_cells_usable(void)
{
	struct flight_part parts[N_KEYS + 1];
	struct flight_member members[N_KEYS + 1];

	for (unsigned i = 0; i <= N_KEYS; ++i) {
		char key[] = {'_', (char)('a' + i), 0};

		flight_scene_enter(&scene, &members[i], 100 + i);
		cr_expect_eq(flight_scene_join(&members[i], &parts[i], 0, key),
			     i < N_KEYS ? 1 : IPC_ENOSPC, "key %u", i);
	}
	for (unsigned i = 0; i <= N_KEYS; ++i) {
		if (i < N_KEYS)
			leave(&members[i], &parts[i]);
		flight_scene_leave(&scene, &members[i]);
	}
	cr_expect_eq(flight_count(&a.view), 0);
}

#endif
