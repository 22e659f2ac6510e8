/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight`: making and attaching, joining, landing and failing, keys, and
 * what it costs.  Without broker and client.
 */
#include "libipc/channel/flight.h"

#include <criterion/criterion.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ipc/limits.h>

#include "tests/channel/flight_cast.h"
#include "tests/support/process.h"

/* ---- make, attach ---- */

/* M-76 */
Test(flight, shapes_that_cannot_be_are_refused, .timeout = 60)
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

Test(flight, parts_of_the_segment_do_not_overlap, .timeout = 60)
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
     .timeout = 60)
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

Test(flight, is_made_over_what_a_dead_creator_left, .init = setup, .fini = teardown, .timeout = 60)
{
	memset(scene.segment, 0xa5, scene.size);
	cr_assert_eq(flight_make(scene.segment, scene.size, scene.shape, 0), 0);

	expect_all_cells_usable();
}

/* ---- join and land ---- */

/* F-1, F-5 */
Test(flight, first_leads_others_get_its_bytes, .init = setup, .fini = teardown, .timeout = 60)
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
Test(flight, caller_after_the_landing_starts_anew, .init = setup, .fini = teardown, .timeout = 60)
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
     .timeout = 60)
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
Test(flight, result_has_up_to_its_largest_size, .init = setup, .fini = teardown, .timeout = 60)
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
     .timeout = 60)
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
     .timeout = 60)
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
Test(flight, alone_it_needs_no_system_call, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		fly_without_system_calls();
		_exit(8);
	}
	cr_expect_eq(process_reap(pid, 30000), 0);
}

static void count_ring(void *userdata)
{
	++*(unsigned *)userdata;
}

/* M-27, M-29 */
Test(flight, landing_rings_for_who_is_armed_and_nobody_else, .init = setup, .fini = teardown,
     .timeout = 60)
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
