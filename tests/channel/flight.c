/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight`: joining, landing, failing, leaving and what a death leaves,
 * on one mapping, without broker and client.  Handlers: flight_asks.c.
 */
#include "libipc/channel/flight.h"

#include <criterion/criterion.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ipc/error.h>
#include <ipc/limits.h>

#include "libipc/channel/flight_cell.h"
#include "tests/support/flight_scene.h"
#include "tests/support/process.h"

enum { RESULT_SIZE = 200, N_KEYS = 8, KEY_SIZE = 30, N_ATTEMPTS = 3 };

static const uint64_t usual_shape[4] = {RESULT_SIZE, N_KEYS, KEY_SIZE, N_ATTEMPTS};

static struct flight_scene scene;
static struct flight_member a, b, c;
static struct flight_part first, second, third;

static void setup_shape(const uint64_t shape[4], uint64_t flags)
{
	flight_scene_init(&scene, shape, flags);
	flight_scene_enter(&scene, &a, 11);
	flight_scene_enter(&scene, &b, 12);
	flight_scene_enter(&scene, &c, 13);
}

static void setup(void)
{
	setup_shape(usual_shape, 0);
}

static void setup_no_promote(void)
{
	setup_shape(usual_shape, IPC_FLIGHT_TABLE_NO_PROMOTE);
}

static void teardown(void)
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

static void *join_there(void *arg)
{
	struct joiner *joiner = arg;

	joiner->result = flight_scene_join(joiner->member, joiner->part, joiner->seat, joiner->key);
	return NULL;
}

static int join_by(struct flight_member *member, struct flight_part *part, unsigned seat,
		   const char *key)
{
	struct joiner joiner = {member, part, seat, key, 0};
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, join_there, &joiner), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	return joiner.result;
}

static int join(struct flight_member *member, struct flight_part *part, const char *key)
{
	return join_by(member, part, 0, key);
}

static int look(struct flight_member *member, struct flight_part *part)
{
	return flight_look(&member->view, part);
}

static int land(struct flight_member *member, struct flight_part *part, const char *text)
{
	return flight_scene_land(member, part, text, strlen(text));
}

static void leave(struct flight_member *member, struct flight_part *part)
{
	flight_leave(&member->view, part);
}

static void expect_empty(const struct flight_part *part)
{
	const struct flight_segment *segment = scene.segment;

	cr_expect_eq(atomic_load(&segment->seats.seat[part->seat].object), 0);
}

static struct ipc_flight_result result_of(struct flight_member *member,
					  const struct flight_part *part)
{
	struct ipc_flight_result result = {0};

	cr_assert_eq(flight_get_result(&member->view, part, &result), 0);
	return result;
}

static void expect_landed(struct flight_member *member, const struct flight_part *part,
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
static uint32_t fly(struct flight_member *member, const char *key)
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
static void expect_all_cells_usable(void)
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

/* ---- make, attach ---- */

/* M-76 */
Test(flight, shapes_that_cannot_be_are_refused, .timeout = 20)
{
	const uint64_t none[][4] = {
		{0, 1, 1, 1},
		{IPC_ITEM_SIZE_MAX + UINT64_C(1), 1, 1, 1},
		{1, 0, 1, 1},
		{1, FLIGHT_KEYS_MAX + UINT64_C(1), 1, 1},
		{1, 1, 0, 1},
		{1, 1, IPC_KEY_SIZE_MAX + UINT64_C(1), 1},
		{1, 1, 1, 0},
		{1, 1, 1, UINT64_C(1) << 32},
		{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX},
	};
	const uint64_t largest[4] = {IPC_ITEM_SIZE_MAX, FLIGHT_KEYS_MAX, IPC_KEY_SIZE_MAX,
				     UINT32_MAX};
	uint64_t n = FLIGHT_KEYS_MAX;

	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); ++i)
		cr_expect_eq(flight_segment_size(none[i]), 0, "shape %u", i);

	cr_expect_geq(flight_segment_size(largest),
		      n * (IPC_ITEM_SIZE_MAX + IPC_KEY_SIZE_MAX + sizeof(struct flight_cell)));
	cr_expect_gt(flight_segment_size(usual_shape), sizeof(struct flight_segment));
}

Test(flight, parts_of_the_segment_do_not_overlap, .timeout = 20)
{
	for (uint64_t n = 1; n < 40; ++n) {
		const uint64_t shape[4] = {n * 37 % 200 + 1, n, n * 29 % 100 + 1, 1};
		struct flight_layout layout;

		cr_assert(flight_layout(&layout, shape));
		cr_expect_geq(layout.state, sizeof(struct flight_segment));
		cr_expect_geq(layout.bucket, layout.state + n * 8);
		cr_expect_geq(layout.cell, layout.bucket + keytable_n_buckets((uint32_t)n) * 8);
		cr_expect_eq(layout.cell % 64, 0);
		cr_expect_eq(layout.key, layout.cell + n * sizeof(struct flight_cell));
		cr_expect_geq(layout.key_stride, shape[2]);
		cr_expect_eq(layout.key_stride % 16, 0);
		cr_expect_geq(layout.result, layout.key + n * layout.key_stride);
		cr_expect_eq(layout.result % 64, 0);
		cr_expect_geq(layout.result_stride, shape[0]);
		cr_expect_eq(layout.size, layout.result + n * layout.result_stride);
	}
}

/* M-60, M-62 */
Test(flight, segment_that_does_not_fit_is_refused_at_attach, .init = setup, .fini = teardown,
     .timeout = 20)
{
	struct channel_header *header = scene.segment;
	const uint64_t other[4] = {RESULT_SIZE + 1, N_KEYS, KEY_SIZE, N_ATTEMPTS};
	const uint64_t none[4] = {0, N_KEYS, KEY_SIZE, N_ATTEMPTS};
	struct flight view;

	cr_expect_eq(flight_attach(&view, scene.segment, scene.size - 1, scene.shape, 0, 1),
		     IPC_EBADMSG);
	cr_expect_eq(flight_attach(&view, scene.segment, scene.size, other, 0, 1), IPC_EBADMSG);
	cr_expect_eq(flight_attach(&view, scene.segment, scene.size, none, 0, 1), IPC_EBADMSG);

	header->kind = IPC_KIND_WATCH;
	cr_expect_eq(flight_attach(&view, scene.segment, scene.size, scene.shape, 0, 1),
		     IPC_EBADMSG);
	header->kind = IPC_KIND_FLIGHT;
	header->version ^= 1;
	cr_expect_eq(flight_attach(&view, scene.segment, scene.size, scene.shape, 0, 1),
		     IPC_EPROTONOSUPPORT);
	header->version ^= 1;
	header->magic ^= 1;
	cr_expect_eq(flight_attach(&view, scene.segment, scene.size, scene.shape, 0, 1),
		     IPC_EBADMSG);
	header->magic ^= 1;
	cr_assert_eq(flight_attach(&view, scene.segment, scene.size, scene.shape, 0, 1), 0);
	flight_detach(&view);

	cr_expect_eq(flight_make(scene.segment, scene.size - 1, scene.shape, 0), IPC_EINVAL);
	cr_expect_eq(flight_make(scene.segment, scene.size, none, 0), IPC_EINVAL);
}

Test(flight, is_made_over_what_a_dead_creator_left, .init = setup, .fini = teardown, .timeout = 20)
{
	memset(scene.segment, 0xa5, scene.size);
	cr_assert_eq(flight_make(scene.segment, scene.size, scene.shape, 0), 0);

	expect_all_cells_usable();
}

/* ---- join and land ---- */

/* F-1, F-5 */
Test(flight, first_leads_others_get_its_bytes, .init = setup, .fini = teardown, .timeout = 20)
{
	struct ipc_flight_result result;

	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_assert_eq(join(&c, &third, "key"), 2);
	cr_expect_eq(look(&a, &first), 1);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN);
	cr_expect_eq(flight_get_result(&b.view, &second, &result), IPC_EAGAIN);
	cr_expect_eq(flight_count(&b.view), 1);
	cr_expect_eq(flight_leader_id(&b.view, &second), 11);

	cr_assert_eq(land(&a, &first, "bytes"), 0);
	cr_expect_eq(look(&a, &first), 0);
	cr_expect_eq(look(&b, &second), 0);
	cr_expect_eq(flight_count(&b.view), 0);
	cr_expect_eq(flight_leader_id(&b.view, &second), 0);
	expect_landed(&a, &first, "bytes", 1, 3);

	/* However late they read it. */
	leave(&a, &first);
	expect_landed(&b, &second, "bytes", 1, 3);
	leave(&b, &second);
	expect_landed(&c, &third, "bytes", 1, 3);
	leave(&c, &third);
	expect_all_cells_usable();
}

/* F-5: nothing is cached, and what is held is not written over. */
Test(flight, caller_after_the_landing_starts_anew, .init = setup, .fini = teardown, .timeout = 20)
{
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_assert_eq(land(&a, &first, "old"), 0);
	leave(&a, &first);

	for (unsigned i = 0; i < 3 * N_KEYS; ++i) {
		char text[] = {'n', (char)('a' + i), 0};

		cr_assert_eq(join(&c, &third, "key"), 1, "a finished flight was joined");
		cr_assert_eq(land(&c, &third, text), 0);
		expect_landed(&c, &third, text, 1, 1);
		leave(&c, &third);
	}
	expect_landed(&b, &second, "old", 1, 2);
}

/* F-6, F-10 */
Test(flight, failure_is_shared_with_who_waits_and_nobody_later, .init = setup, .fini = teardown,
     .timeout = 20)
{
	for (int failure = IPC_FAILURE_NOT_FOUND; failure <= IPC_FAILURE_TOO_BIG; ++failure) {
		struct ipc_flight_result result;

		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(join(&b, &second, "key"), 2);
		cr_assert_eq(flight_scene_fail_with(&a, &first, (enum ipc_failure)failure,
						    -failure * 1000, "reason"),
			     0);
		cr_expect_eq(look(&b, &second), 0);
		result = result_of(&b, &second);
		cr_expect_eq((int)result.failure, failure);
		cr_expect_eq(result.code, -failure * 1000);
		cr_expect_eq(result.size, 6);
		cr_expect_arr_eq(result.data, "reason", 6);
		leave(&a, &first);

		cr_expect_eq(join(&c, &third, "key"), 1, "a failure was cached");
		leave(&c, &third);
		cr_expect_eq((int)result_of(&b, &second).failure, failure);
		leave(&b, &second);
	}
}

/* F-7 */
Test(flight, result_has_up_to_its_largest_size, .init = setup, .fini = teardown, .timeout = 20)
{
	char large[RESULT_SIZE + 1];
	struct ipc_flight_result result;

	memset(large, 'x', sizeof(large));
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_expect_eq(flight_scene_land(&a, &first, large, sizeof(large)), IPC_EMSGSIZE);
	cr_expect_eq(flight_scene_land(&a, &first, NULL, 1), IPC_EINVAL);
	cr_expect_eq(look(&a, &first), 1, "it leads on");
	cr_expect_eq(look(&b, &second), IPC_EAGAIN);
	cr_assert_eq(flight_scene_land(&a, &first, large, RESULT_SIZE), 0);
	result = result_of(&b, &second);
	cr_expect_eq(result.size, RESULT_SIZE);
	cr_expect_arr_eq(result.data, large, RESULT_SIZE);
	leave(&a, &first);
	leave(&b, &second);

	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(flight_scene_land(&a, &first, NULL, 0), 0);
	cr_expect_eq(result_of(&a, &first).size, 0);
	leave(&a, &first);
}

static int join_bytes(struct flight_member *member, struct flight_part *part, unsigned i,
		      const void *key, uint64_t size)
{
	flight_scene_part(member, part, i, FLIGHT_JOIN);
	return flight_join(&member->view, part, key, size, 0);
}

/* F-7 */
Test(flight, key_has_one_byte_up_to_its_largest_size, .init = setup, .fini = teardown,
     .timeout = 20)
{
	const char zeros[KEY_SIZE + 1] = {0};
	struct flight_part parts[N_KEYS];
	const uint64_t sizes[N_KEYS] = {1, 2, 7, 8, 9, 16, KEY_SIZE - 1, KEY_SIZE};

	cr_expect_eq(join_bytes(&a, &first, 0, zeros, 0), IPC_EINVAL);
	cr_expect_eq(join_bytes(&a, &first, 0, NULL, 1), IPC_EINVAL);
	cr_expect_eq(join_bytes(&a, &first, 0, zeros, KEY_SIZE + 1), IPC_EMSGSIZE);
	cr_expect_eq(join_bytes(&a, &first, 0, zeros, UINT64_MAX), IPC_EMSGSIZE);
	expect_empty(&first);

	/* Keys of zero bytes that differ in nothing but their size. */
	for (unsigned i = 0; i < N_KEYS; ++i)
		cr_assert_eq(join_bytes(&a, &parts[i], i, zeros, sizes[i]), 1, "%u", i);
	for (unsigned i = 0; i < N_KEYS; ++i) {
		const void *key;
		size_t size;

		flight_get_key(&a.view, &parts[i], &key, &size);
		cr_expect_eq(size, sizes[i]);
		cr_expect_arr_eq(key, zeros, size);
		leave(&a, &parts[i]);
	}
}

Test(flight, keys_that_differ_in_their_last_byte_are_different, .init = setup, .fini = teardown,
     .timeout = 20)
{
	char key[KEY_SIZE] = "abcdefghijklmnopqrstuvwxyz";

	for (uint64_t size = 1; size <= KEY_SIZE; ++size) {
		cr_assert_eq(join_bytes(&a, &first, 0, key, size), 1);
		key[size - 1] ^= 1;
		cr_assert_eq(join_bytes(&b, &second, 0, key, size), 1, "size %d", (int)size);
		leave(&a, &first);
		leave(&b, &second);
	}
}

/* F-1: as many keys as there are cells, all in few chains, joined and left at random. */
static void collide(uint64_t n_cells)
{
	const uint64_t shape[4] = {16, n_cells, 8, 3};
	struct flight_part parts[8];
	int led[8] = {0}; /* the key that is led by a part */
	unsigned n_led = 0, seed = 1;

	setup_shape(shape, 0);
	for (unsigned i = 0; i < 4000; ++i) {
		unsigned at = (unsigned)rand_r(&seed) % 8;
		int key = rand_r(&seed) % 20 + 1, r;
		bool is_led = false;

		if (led[at]) {
			char text[16];

			snprintf(text, sizeof(text), "%d", led[at]);
			if (i % 3)
				cr_assert_eq(land(&a, &parts[at], text), 0);
			if (i % 3)
				expect_landed(&a, &parts[at], text, 1, 1);
			leave(&a, &parts[at]);
			led[at] = 0;
			--n_led;
			continue;
		}

		for (unsigned k = 0; k < 8; ++k)
			is_led |= led[k] == key;
		r = join_bytes(&a, &parts[at], at, &key, sizeof(key));
		if (is_led) {
			cr_assert_eq(r, IPC_EDEADLK, "a key in flight was not found: %d", r);
		} else if (n_led == n_cells) {
			cr_assert_eq(r, IPC_ENOSPC, "%d", r);
		} else {
			cr_assert_eq(r, 1, "%d", r);
			led[at] = key;
			++n_led;
		}
		cr_assert_eq(flight_count(&b.view), n_led);
	}
	teardown();
}

Test(flight, keys_of_one_chain_do_not_disturb_each_other, .timeout = 60)
{
	collide(1);
	collide(2);
	collide(5);
}

/* ---- a full table ---- */

static void fill(struct flight_part *parts, unsigned n)
{
	for (unsigned i = 0; i < n; ++i) {
		char key[] = {'f', (char)('a' + i), 0};

		cr_assert_eq(flight_scene_join(&a, &parts[i], i, key), 1);
	}
}

/* F-7 */
Test(flight, full_table_says_so_and_goes_on, .init = setup, .fini = teardown, .timeout = 20)
{
	struct flight_part parts[N_KEYS];

	fill(parts, N_KEYS);
	cr_expect_eq(join(&b, &second, "one more"), IPC_ENOSPC);
	expect_empty(&second);
	cr_expect_eq(join(&b, &second, "fb"), 2, "a key in flight needs no cell");
	leave(&b, &second);

	leave(&a, &parts[3]);
	cr_expect_eq(join(&b, &second, "one more"), 1);
	cr_expect_eq(join(&c, &third, "two more"), IPC_ENOSPC);
}

/* F-13 */
Test(flight, held_result_costs_one_cell, .init = setup, .fini = teardown, .timeout = 20)
{
	struct flight_part parts[N_KEYS];

	cr_assert_eq(join(&a, &first, "held"), 1);
	cr_assert_eq(join(&b, &second, "held"), 2);
	cr_assert_eq(land(&a, &first, "result"), 0);
	leave(&a, &first);
	cr_expect_eq(flight_count(&a.view), 0);

	fill(parts, N_KEYS - 1);
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC);
	expect_landed(&b, &second, "result", 1, 2);
	leave(&b, &second);
	cr_expect_eq(join(&c, &third, "one more"), 1);
}

/* F-13: the leader's own result, with nobody else. */
Test(flight, leader_holds_its_result, .init = setup, .fini = teardown, .timeout = 20)
{
	struct flight_part parts[N_KEYS];

	fill(parts, N_KEYS);
	for (unsigned i = 0; i < N_KEYS; ++i)
		cr_assert_eq(land(&a, &parts[i], "result"), 0);
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC);
	cr_expect_eq(join(&c, &third, "fa"), IPC_ENOSPC);
	expect_landed(&a, &parts[0], "result", 1, 1);

	flight_scene_end(&scene, a.id);
	cr_expect_eq(join(&c, &third, "one more"), 1, "the dead hold");
}

/* M-25: cells with followers are found by a sweep over all seats. */
Test(flight, cells_whose_followers_died_or_left_are_used_again, .init = setup, .fini = teardown,
     .timeout = 20)
{
	struct flight_part led[N_KEYS], followed[N_KEYS];
	struct flight_member died;

	flight_scene_enter(&scene, &died, 21);
	fill(led, N_KEYS);
	for (unsigned i = 0; i < N_KEYS; ++i) {
		char key[] = {'f', (char)('a' + i), 0};

		cr_assert_eq(join_by(i % 2 ? &died : &b, &followed[i], i, key), 2);
		if (i % 3)
			cr_assert_eq(land(&a, &led[i], "x"), 0);
		leave(&a, &led[i]);
	}
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC);

	for (unsigned i = 0; i < N_KEYS; i += 2)
		leave(&b, &followed[i]);
	cr_expect_eq(join(&c, &third, "one more"), 1, "what was left is not found");
	leave(&c, &third);

	flight_scene_end(&scene, died.id);
	flight_detach(&died.view);
	expect_all_cells_usable();
}

/* M-25: nobody is there to notice that these are over. */
Test(flight, flights_of_which_all_died_are_used_again, .init = setup, .fini = teardown,
     .timeout = 20)
{
	struct flight_part led[N_KEYS], followed[N_KEYS];
	pid_t pid;

	/* A leader alone hands its cell on once its process is gone. */
	flight_scene_open(&scene, 21);
	flight_scene_open(&scene, 22);
	pid = process_fork();
	if (pid == 0) {
		struct flight_member leader, follower;

		flight_scene_enter(&scene, &leader, 21);
		flight_scene_enter(&scene, &follower, 22);
		for (unsigned i = 0; i < N_KEYS; ++i) {
			char key[] = {'f', (char)('a' + i), 0};

			if (flight_scene_join(&leader, &led[i], i, key) != 1)
				_exit(1);

			/* As another thread. */
			atomic_store(&((struct flight_segment *)scene.segment)
					      ->seats.seat[led[i].seat]
					      .thread,
				     1);
			if (i % 2 && flight_scene_join(&follower, &followed[i], i, key) != 2)
				_exit(2);
		}
		_exit(0);
	}
	cr_assert_eq(process_reap(pid, 10000), 0);
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC, "nobody is known to be dead");
	cr_expect_eq(flight_count(&c.view), N_KEYS);

	flight_scene_end(&scene, 21);
	flight_scene_end(&scene, 22);
	cr_expect_eq(flight_count(&c.view), 0);
	expect_all_cells_usable();
}

/* ---- a finished cell of the key ---- */

/* F-1 */
Test(flight, finished_cell_of_the_key_is_used_again_at_once, .init = setup, .fini = teardown,
     .timeout = 20)
{
	uint32_t cell = fly(&a, "key");

	for (unsigned i = 0; i < 5; ++i)
		cr_expect_eq(fly(i % 2 ? &a : &b, "key"), cell);

	/* In its second flight as in any other. */
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_expect_eq(flight_count(&a.view), 1);
	flight_scene_end(&scene, a.id);
	cr_expect_eq(look(&b, &second), 1);
	cr_assert_eq(land(&b, &second, "two"), 0);
	expect_landed(&b, &second, "two", 2, 2);
}

/* F-1: a held result makes way for a new cell, and is not revived beside that. */
Test(flight, key_has_one_cell_that_can_fly, .init = setup, .fini = teardown, .timeout = 20)
{
	uint32_t old, new;

	cr_assert_eq(join(&a, &first, "key"), 1);
	old = first.cell;
	cr_assert_eq(land(&a, &first, "old"), 0);
	cr_assert_eq(join(&b, &second, "key"), 1, "a held result is not joined");
	new = second.cell;
	cr_expect_neq(new, old);
	leave(&a, &first);

	cr_assert_eq(join(&a, &first, "key"), 2, "a second flight of the key beside the first");
	cr_expect_eq(first.cell, new);
	leave(&a, &first);
	leave(&b, &second);

	/* The same once more, with nobody who follows the new one. */
	cr_assert_eq(join(&a, &first, "kex"), 1);
	old = first.cell;
	cr_assert_eq(land(&a, &first, "old"), 0);
	new = fly(&b, "kex");
	cr_expect_neq(new, old);
	leave(&a, &first);
	for (unsigned i = 0; i < 3; ++i)
		cr_expect_eq(fly(&b, "kex"), new, "two cells of the key can be revived");
	expect_all_cells_usable();
}

/* A cell's turn comes round after 2^37 flights. */
Test(flight, turn_comes_round, .init = setup, .fini = teardown, .timeout = 20)
{
	for (unsigned before = 0; before < 3; ++before) {
		uint64_t last = (UINT64_C(1) << (64 - FLIGHT_TURN_SHIFT)) - 1 - before;
		uint32_t cell = fly(&a, "key");
		uint64_t state = atomic_load(&a.view.state[cell]);
		uint64_t rest = state & ((UINT64_C(1) << FLIGHT_TURN_SHIFT) - 1);

		atomic_store(&a.view.state[cell], rest | last << FLIGHT_TURN_SHIFT);
		atomic_store(&flight_run_next(&a.view, cell, state)->base, last);
		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(join(&b, &second, "key"), 2);
		cr_assert_eq(first.cell, cell);
		leave(&a, &first);
		cr_expect_eq(look(&b, &second), 1, "begun %u before the last", before);
		cr_assert_eq(land(&b, &second, "x"), 0);
		expect_landed(&b, &second, "x", 2, 2);
		teardown();
		setup();
	}
}

/* ---- the leader's end ---- */

/* F-2 */
Test(flight, leave_of_the_leader_promotes_one_follower, .init = setup, .fini = teardown,
     .timeout = 20)
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
Test(flight, dead_leader_is_passed_over_and_lands_no_more, .init = setup, .fini = teardown,
     .timeout = 20)
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
Test(flight, attempts_are_counted, .init = setup, .fini = teardown, .timeout = 20)
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
Test(flight, without_promotion_a_dead_leader_ends_the_flight, .init = setup_no_promote,
     .fini = teardown, .timeout = 20)
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
Test(flight, end_of_a_follower_does_not_touch_the_flight, .init = setup, .fini = teardown,
     .timeout = 20)
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
Test(flight, leader_that_leaves_alone_leaves_nothing, .init = setup, .fini = teardown,
     .timeout = 20)
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
Test(flight, key_of_a_leader_that_died_alone_starts_anew, .init = setup, .fini = teardown,
     .timeout = 20)
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
Test(flight, successor_in_the_row_is_not_the_dead_leader, .init = setup, .fini = teardown,
     .timeout = 20)
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
	cr_assert_eq(process_reap(pid, 10000), 0);
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
Test(flight, cells_of_dead_leaders_are_used_again_beside_their_successors, .init = setup,
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
		cr_assert_eq(process_reap(pid, 10000), 0, "the table is full after %u deaths", i);
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
Test(flight, promoted_over_one_that_still_writes_ends_the_flight, .init = setup, .fini = teardown,
     .timeout = 20)
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
Test(flight, thread_that_leads_the_key_does_not_wait_for_itself, .init = setup, .fini = teardown,
     .timeout = 20)
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
Test(flight, only_the_leader_ends_a_flight_and_once, .init = setup, .fini = teardown, .timeout = 20)
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

Test(flight, what_began_by_an_earlier_use_of_the_part_does_not_end_this_one, .init = setup,
     .fini = teardown, .timeout = 20)
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
Test(flight, fences_grow_over_keys_and_leaders, .init = setup, .fini = teardown, .timeout = 20)
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
Test(flight, fences_grow_from_uid_to_uid, .init = setup, .fini = teardown, .timeout = 20)
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
Test(flight, a_made_up_fence_moves_nobody_on, .init = setup, .fini = teardown, .timeout = 20)
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

/* ---- what it costs ---- */

/* Nothing but read, write and exit is allowed to it: another system call kills it. */
static void fly_without_system_calls(void)
{
	struct flight_member leader;
	struct flight_part part;
	int r = 0;

	flight_scene_enter(&scene, &leader, 21);
	for (unsigned i = 0; i < 50; ++i) {
		char key[] = {(char)('a' + i % 3), 0};

		if (i == 3 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0)
			_exit(9);
		r |= flight_scene_join(&leader, &part, 0, key) != 1;
		r |= land(&leader, &part, "bytes");
		flight_leave(&leader.view, &part);
	}
	(void)syscall(SYS_exit, r);
}

/* F-11 */
Test(flight, alone_it_needs_no_system_call, .init = setup, .fini = teardown, .timeout = 20)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		fly_without_system_calls();
		_exit(8);
	}
	cr_expect_eq(process_reap(pid, 10000), 0);
}

static void count_ring(void *userdata)
{
	++*(unsigned *)userdata;
}

/* M-27, M-29 */
Test(flight, landing_rings_for_who_is_armed_and_nobody_else, .init = setup, .fini = teardown,
     .timeout = 20)
{
	unsigned n_rings = 0;

	a.view.ring = count_ring;
	a.view.ring_userdata = &n_rings;
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_assert_eq(land(&a, &first, "x"), 0);
	cr_expect_eq(n_rings, 0);
	leave(&a, &first);
	leave(&b, &second);

	for (unsigned lands = 0; lands < 2; ++lands) {
		n_rings = 0;
		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(join(&b, &second, "key"), 2);
		eventcount_arm(flight_event(&b.view, &second));
		if (lands)
			cr_assert_eq(land(&a, &first, "x"), 0);
		leave(&a, &first);
		cr_expect_eq(n_rings, 1);
		leave(&b, &second);
	}
}
