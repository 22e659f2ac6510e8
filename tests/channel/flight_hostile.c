/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight` in memory that a member wrote over: every call comes back with
 * a result, within bounds of time.
 */
#include "libipc/channel/flight.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ipc/error.h>

#include "tests/support/flight_scene.h"
#include "tests/support/process.h"

enum { N_KEYS = 64, N_PARTS = 6, LIMIT_MS = 30000 };

static struct flight_scene scene;
static struct flight_member a, other;

static void setup_keys(uint64_t n_keys)
{
	const uint64_t shape[4] = {100, n_keys, 20, 3};

	flight_scene_init(&scene, shape, 0);
	flight_scene_handlers(&scene, 1, 0, SIDE_EVER);
}

static void setup(void)
{
	setup_keys(N_KEYS);
}

static void teardown(void)
{
	flight_scene_deinit(&scene);
}

static uint64_t random_word(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static bool is_known(int r)
{
	switch (r) {
	case IPC_EDEADLK:
	case IPC_ENOTCONN:
	case IPC_EPIPE:
	case IPC_EOWNERDEAD:
	case IPC_ENOSPC:
	case IPC_ENOMEM:
	case IPC_EBADMSG:
	case IPC_ENOTRECOVERABLE:
	case IPC_EAGAIN:
	case IPC_EINVAL:
	case IPC_ESTALE:
		return true;
	default:
		return r >= 0 && r <= 2;
	}
}

static void read_all(const struct flight_part *part)
{
	struct ipc_flight_result result;
	unsigned sum = 0;
	const void *key;
	size_t size;

	flight_get_key(&a.view, part, &key, &size);
	cr_assert_leq(size, 20);
	(void)flight_get_urgency(&a.view, part);
	(void)flight_leader_id(&a.view, part);
	if (flight_get_result(&a.view, part, &result) < 0)
		return;

	cr_assert_leq(result.size, 100);
	for (size_t i = 0; i < result.size; ++i)
		sum += ((const volatile unsigned char *)result.data)[i];
	(void)sum;
}

/* All calls, each within the limit. */
static void use(uint64_t *random)
{
	struct flight_part parts[N_PARTS];

	for (unsigned i = 0; i < N_PARTS; ++i) {
		struct timespec limit = process_deadline(LIMIT_MS);
		char key[] = {(char)('a' + random_word(random) % 4), 0};
		int r;

		r = i % 3 == 0   ? flight_scene_join(&a, &parts[i], i, key)
		    : i % 3 == 1 ? flight_scene_ask(&a, &parts[i], i, key, i)
				 : flight_scene_take(&a, &parts[i], i);
		cr_assert(is_known(r), "%d", r);
		cr_assert(!process_has_passed(&limit), "call %u takes more than 30 s", i);
		if (r < 0)
			continue;

		r = flight_look(&a.view, &parts[i]);
		cr_assert(is_known(r), "%d", r);
		read_all(&parts[i]);
		if (i % 2) {
			r = flight_scene_land(&a, &parts[i], "text", 4);
			cr_assert(is_known(r), "%d", r);
		}
		read_all(&parts[i]);
		flight_leave(&a.view, &parts[i]);
		cr_assert(!process_has_passed(&limit), "call %u takes more than 30 s", i);
	}
	cr_assert_leq(flight_count(&a.view), scene.shape[1]);
}

static void with_random_bytes(uint64_t seed, uint64_t mask)
{
	uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	uint64_t *words = scene.segment;
	struct timespec limit;

	flight_scene_reset(&scene);
	flight_scene_handlers(&scene, 1, 0, SIDE_EVER);
	for (uint64_t i = sizeof(struct channel_header) / 8; i < scene.size / 8; ++i)
		words[i] = random_word(&random) & mask;

	flight_scene_open(&scene, 11);
	flight_scene_attach(&scene, &a, 11);
	limit = process_deadline(LIMIT_MS);
	if (flight_row_take(&a.view, &a.row))
		use(&random);
	cr_assert(!process_has_passed(&limit), "it takes more than 30 s in all");
	flight_detach(&a.view);
}

/* M-60 */
Test(flight_hostile, random_bytes_everywhere_end_no_call_badly, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (uint64_t seed = 1; seed <= 12; ++seed) {
		with_random_bytes(seed, UINT64_MAX);
		with_random_bytes(seed,
				  UINT64_C(0x3f3f)); /* small numbers: links that lead somewhere */
		with_random_bytes(seed, 7);
	}
}

/* A table in use in which some words are others. */
static void with_random_words(uint64_t seed, unsigned n_words)
{
	uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	struct flight_part part;

	flight_scene_reset(&scene);
	flight_scene_handlers(&scene, 1, 0, SIDE_EVER);
	flight_scene_enter(&scene, &other, 12);
	for (unsigned i = 0; i < 4; ++i) {
		char key[] = {(char)('a' + i), 0};

		(void)!flight_scene_join(&other, &part, i, key);
		flight_scene_as_another_thread(&scene, &part);
		if (i % 2)
			(void)!flight_scene_land(&other, &part, "x", 1);
	}
	for (unsigned i = 0; i < n_words; ++i) {
		/* States and chains, cells, the first seats. */
		const uint64_t at[] = {other.view.layout.state, other.view.layout.bucket,
				       other.view.layout.cell,
				       offsetof(struct flight_segment, seats.seat)};
		uint64_t offset = at[random_word(&random) % 4] + random_word(&random) % 64 * 8;
		uint64_t value = random_word(&random) >> random_word(&random) % 64;

		memcpy((unsigned char *)scene.segment + offset, &value, sizeof(value));
	}
	if (seed % 2)
		flight_scene_end(&scene, 12);

	flight_scene_open(&scene, 11);
	flight_scene_attach(&scene, &a, 11);
	if (flight_row_take(&a.view, &a.row))
		use(&random);
	flight_detach(&a.view);
	flight_detach(&other.view);
}

/* M-60 */
Test(flight_hostile, random_words_in_a_living_table_end_no_call_badly, .init = setup,
     .fini = teardown, .timeout = 60)
{
	for (uint64_t seed = 1; seed <= 300; ++seed)
		with_random_words(seed, (unsigned)(seed % 12 + 1));
}

/* M-60, M-61: in a large table, too, and told to those who wait. */
Test(flight_hostile, chain_in_a_circle_breaks_the_table_soon, .fini = teardown, .timeout = 60)
{
	struct flight_part first, second;
	struct timespec limit;
	uint32_t word;

	setup_keys(20000);
	flight_scene_enter(&scene, &a, 11);
	flight_scene_enter(&scene, &other, 12);
	cr_assert_eq(flight_scene_join(&a, &first, 0, "key"), 1);
	flight_scene_as_another_thread(&scene, &first);
	cr_assert_eq(flight_scene_join(&other, &second, 0, "key"), 2);
	word = eventcount_announce(flight_event(&other.view, &second));

	/* All keys fall into it. */
	for (uint64_t i = 0; i <= a.view.keys.mask; ++i)
		atomic_store(&a.view.keys.bucket[i], second.cell + 2);
	for (uint32_t i = 0; i < 20000; ++i)
		atomic_store(&a.view.cell[i].node.next, (i + 1) % 20000 + 1);

	limit = process_deadline(LIMIT_MS);
	cr_expect_eq(flight_scene_join(&a, &second, 1, "other"), IPC_EBADMSG);
	cr_expect(!process_has_passed(&limit), "it takes more than 30 s");
	cr_expect_neq(atomic_load(&flight_event(&other.view, &first)->word), word,
		      "nobody who waits is told");
	cr_expect_eq(flight_look(&a.view, &first), IPC_EBADMSG);
	cr_expect_eq(flight_scene_land(&a, &first, "x", 1), IPC_EBADMSG);
	cr_expect_eq(flight_scene_ask(&other, &second, 1, "key", 0), IPC_EBADMSG);
	cr_expect_eq(flight_scene_take(&other, &second, 2), IPC_EBADMSG);
	flight_detach(&a.view);
	flight_detach(&other.view);
}

/* M-60 */
Test(flight_hostile, result_that_cannot_be_is_not_given_out, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct ipc_flight_result result;
	struct flight_part part;

	for (unsigned what = 0; what < 3; ++what) {
		flight_scene_reset(&scene);
		flight_scene_enter(&scene, &a, 11);
		cr_assert_eq(flight_scene_join(&a, &part, 0, "key"), 1);
		cr_assert_eq(flight_scene_fail_with(&a, &part, IPC_FAILURE_LOCAL, 1, "x"), 0);
		cr_assert_eq(flight_get_result(&a.view, &part, &result), 0);
		if (what == 0)
			atomic_store(&a.view.cell[part.cell].result_size, 101);
		else
			atomic_store(&a.view.cell[part.cell].failure, what == 1 ? 8 : 0);
		cr_expect_eq(flight_get_result(&a.view, &part, &result), IPC_EBADMSG);
		cr_expect_eq(flight_look(&a.view, &part), IPC_EBADMSG);
		flight_detach(&a.view);
	}
}
