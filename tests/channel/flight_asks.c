/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight`: keys that are asked for and the handlers that take them.
 */
#include "libipc/channel/flight.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/flight_scene.h"

enum { RESULT_SIZE = 64, N_KEYS = 8, KEY_SIZE = 16, N_ATTEMPTS = 3 };

static struct flight_scene scene;
static struct flight_member a, b, h, g; /* two who ask, two handlers */
static struct flight_part first, second, third, taken;

static void setup_flags(uint64_t flags)
{
	const uint64_t shape[4] = {RESULT_SIZE, N_KEYS, KEY_SIZE, N_ATTEMPTS};

	flight_scene_init(&scene, shape, flags);
	flight_scene_enter(&scene, &a, 11);
	flight_scene_enter(&scene, &b, 12);
	flight_scene_enter(&scene, &h, 13);
	flight_scene_enter(&scene, &g, 14);
	flight_scene_handlers(&scene, 2, 0, SIDE_EVER);
}

static void setup(void)
{
	setup_flags(0);
}

static void setup_no_promote(void)
{
	setup_flags(IPC_FLIGHT_TABLE_NO_PROMOTE);
}

static void teardown(void)
{
	flight_detach(&a.view);
	flight_detach(&b.view);
	flight_detach(&h.view);
	flight_detach(&g.view);
	flight_scene_deinit(&scene);
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

static void lead_as_another_thread(struct flight_member *member, struct flight_part *part,
				   unsigned i, const char *key)
{
	cr_assert_eq(flight_scene_join(member, part, i, key), 1);
	flight_scene_as_another_thread(&scene, part);
}

static int take(struct flight_member *member, struct flight_part *part, unsigned i)
{
	int r = flight_scene_take(member, part, i);

	if (r == 0)
		flight_scene_as_another_thread(&scene, part);
	return r;
}

static void expect_key(struct flight_member *member, const struct flight_part *part,
		       const char *expected)
{
	const void *key;
	size_t size;

	flight_get_key(&member->view, part, &key, &size);
	cr_expect(size == strlen(expected) && memcmp(key, expected, size) == 0,
		  "%.*s was taken, not %s", (int)size, (const char *)key, expected);
}

static void expect_landed(struct flight_member *member, const struct flight_part *part,
			  const char *text, uint32_t epoch, uint32_t n_joined)
{
	struct ipc_flight_result result;

	cr_assert_eq(flight_get_result(&member->view, part, &result), 0);
	cr_assert_eq(result.size, strlen(text));
	cr_expect_arr_eq(result.data, text, result.size);
	cr_expect_eq(result.failure, IPC_FAILURE_NONE);
	cr_expect_eq(result.epoch, epoch, "epoch %u", result.epoch);
	cr_expect_eq(result.n_joined, n_joined, "%u joined", result.n_joined);
}

static void expect_all_cells_usable(void)
{
	struct flight_part parts[N_KEYS];

	flight_scene_open(&scene, a.id);
	for (unsigned i = 0; i < N_KEYS; ++i) {
		char key[] = {'_', (char)('a' + i), 0};

		cr_expect_eq(flight_scene_join(&a, &parts[i], i, key), 1, "key %u", i);
	}
	for (unsigned i = 0; i < N_KEYS; ++i)
		leave(&a, &parts[i]);
	cr_expect_eq(flight_count(&a.view), 0);
}

/* ---- ask, take, answer ---- */

/* F-9 */
Test(flight_asks, handler_answers_all_who_asked, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t fence;

	cr_expect(!flight_is_takeable(&h.view));
	cr_expect_eq(take(&h, &taken, 0), IPC_EAGAIN);
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 3), 2);
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 5), 2);
	cr_expect_eq(flight_count(&a.view), 1);
	cr_expect_eq(flight_leader_id(&a.view, &first), 0);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN, "an asker leads");
	cr_expect(flight_is_takeable(&h.view));

	cr_assert_eq(take(&h, &taken, 0), 0);
	expect_key(&h, &taken, "key");
	cr_expect_eq(flight_get_urgency(&h.view, &taken), 5);
	cr_assert_eq(flight_get_fence(&h.view, &taken, &fence), 0);
	cr_expect_neq(fence, 0);
	cr_expect_eq(flight_leader_id(&a.view, &first), 13);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN);

	/* Joinable until it is done: no second call beside it. */
	cr_expect_eq(take(&g, &third, 0), IPC_EAGAIN);
	cr_assert_eq(flight_scene_ask(&b, &third, 1, "key", 0), 2);
	cr_expect_eq(take(&g, &third, 0), IPC_EAGAIN);
	cr_assert_eq(land(&h, &taken, "answer"), 0);
	leave(&h, &taken);
	cr_expect_eq(look(&a, &first), 0);
	cr_expect_eq(look(&b, &second), 0);
	expect_landed(&a, &first, "answer", 1, 3);
	expect_landed(&b, &second, "answer", 1, 3);
	leave(&a, &first);
	leave(&b, &second);
	seats_drop(&((struct flight_segment *)scene.segment)->seats, b.row * SEATS_PER_ROW + 1);
	expect_all_cells_usable();
}

/* F-9 */
Test(flight_asks, nobody_to_ask_is_told_at_once, .init = setup, .fini = teardown, .timeout = 60)
{
	flight_scene_handlers(&scene, 0, 0, 0);
	cr_expect_eq(flight_scene_ask(&a, &first, 0, "key", 0), IPC_ENOTCONN);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(flight_scene_ask(&a, &first, 0, "key", 0), IPC_ENOTCONN);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER | SIDE_FINAL);
	cr_expect_eq(flight_scene_ask(&a, &first, 0, "key", 0), IPC_EPIPE);
	cr_expect_eq(flight_scene_ask_stay(&a, &first, 0, "key", 0), IPC_EPIPE);
	cr_expect_eq(flight_count(&a.view), 0);
	cr_expect_eq(flight_scene_join(&a, &first, 0, "key"), 1, "who joins needs no handler");
}

/* F-9 */
Test(flight_asks, most_urgent_first_then_the_oldest, .init = setup, .fini = teardown, .timeout = 60)
{
	static const struct {
		const char *key;
		uint32_t urgency;
	} asked[] = {{"a2", 2}, {"b2", 2}, {"c9", 9}, {"d0", 0}, {"e2", 2}, {"f0", 0}};
	static const char *const order[] = {"f0", "c9", "a2", "b2", "e2", "d0"};
	struct flight_part parts[6], again;

	for (unsigned i = 0; i < 6; ++i)
		cr_assert_eq(flight_scene_ask(&a, &parts[i], i, asked[i].key, asked[i].urgency), 2);

	/* Asked again, and more urgently; less is no change. */
	cr_assert_eq(flight_scene_ask(&b, &again, 0, "f0", UINT32_MAX), 2);
	cr_assert_eq(flight_scene_ask(&b, &second, 1, "c9", 1), 2);
	for (unsigned i = 0; i < 6; ++i) {
		cr_assert_eq(take(&h, &taken, i), 0);
		expect_key(&h, &taken, order[i]);
		cr_expect_eq(flight_get_urgency(&h.view, &taken), i == 0   ? UINT32_MAX
								  : i == 1 ? 9
								  : i == 5 ? 0
									   : 2);
	}
	cr_expect_eq(take(&h, &taken, 7), IPC_EAGAIN);
}

/* F-9, F-18: a key is as old as its being asked for, whatever its cell was before. */
Test(flight_asks, joined_key_is_as_old_as_its_first_ask, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct flight_part parts[4];

	/* Cells that have been asked for before, all of them. */
	for (unsigned i = 0; i < N_KEYS; ++i) {
		char key[] = {'o', (char)('a' + i), 0};

		cr_assert_eq(flight_scene_ask(&a, &first, i, key, 0), 2);
	}
	for (unsigned i = 0; i < N_KEYS; ++i) {
		struct flight_part part;

		cr_assert_eq(take(&h, &taken, 0), 0);
		cr_assert_eq(land(&h, &taken, "x"), 0);
		leave(&h, &taken);
		flight_scene_part(&a, &part, i, FLIGHT_ASK);
		leave(&a, &part);
	}

	lead_as_another_thread(&b, &parts[0], 0, "joined");
	lead_as_another_thread(&b, &parts[1], 1, "later");
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "first", 0), 2);
	cr_assert_eq(flight_scene_ask(&a, &second, 1, "joined", 0), 2);
	cr_assert_eq(flight_scene_ask(&a, &third, 2, "third", 0), 2);
	cr_assert_eq(flight_scene_ask(&a, &parts[3], 3, "later", 0), 2);
	cr_assert_eq(flight_scene_ask(&h, &parts[2], 1, "joined", 0), 2);
	leave(&b, &parts[0]);
	leave(&b, &parts[1]);

	cr_assert_eq(take(&h, &taken, 0), 0);
	expect_key(&h, &taken, "first");
	cr_assert_eq(take(&h, &taken, 2), 0);
	expect_key(&h, &taken, "joined");
	cr_assert_eq(take(&h, &taken, 3), 0);
	expect_key(&h, &taken, "third");
	cr_assert_eq(take(&h, &taken, 4), 0);
	expect_key(&h, &taken, "later");
}

/* F-9: the result of before is not the answer. */
Test(flight_asks, ask_after_the_answer_is_a_new_call, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (unsigned i = 0; i < 3 * N_KEYS; ++i) {
		cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", i), 2);
		cr_assert_eq(take(&h, &taken, 0), 0);
		cr_expect_eq(flight_get_urgency(&h.view, &taken), i);
		cr_assert_eq(land(&h, &taken, i % 2 ? "odd" : "even"), 0);
		leave(&h, &taken);
		expect_landed(&a, &first, i % 2 ? "odd" : "even", 1, 1);
		leave(&a, &first);

		/* And one that was joined alone stands in its way as little. */
		if (i % 3 == 0) {
			cr_assert_eq(flight_scene_join(&b, &second, 0, "key"), 1);
			cr_assert_eq(land(&b, &second, "x"), 0);
			leave(&b, &second);
		}
	}
	expect_all_cells_usable();
}

/* F-9 */
Test(flight_asks, handler_that_leaves_without_an_answer_fails_it, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct ipc_flight_result result;

	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(take(&h, &taken, 0), 0);
	leave(&h, &taken);

	cr_expect_eq(look(&a, &first), 0);
	cr_assert_eq(flight_get_result(&a.view, &first, &result), 0);
	cr_expect_eq(result.failure, IPC_FAILURE_ABANDONED);
	cr_expect_eq(result.size, 0);
	cr_expect_eq(take(&g, &taken, 0), IPC_EAGAIN);
}

/* F-9 */
Test(flight_asks, key_that_nobody_asks_for_any_more_is_not_taken, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "left", 9), 2);
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "died", 8), 2);
	cr_assert_eq(flight_scene_ask(&b, &second, 1, "other", 7), 2);
	cr_assert_eq(flight_scene_ask(&a, &third, 1, "other", 7), 2);
	cr_assert_eq(flight_scene_ask(&a, &third, 2, "wanted", 0), 2);
	leave(&a, &first);
	flight_scene_end(&scene, b.id);

	cr_assert_eq(take(&h, &taken, 0), 0);
	expect_key(&h, &taken, "other");
	cr_assert_eq(take(&h, &taken, 1), 0);
	expect_key(&h, &taken, "wanted");
	cr_expect_eq(take(&h, &taken, 2), IPC_EAGAIN);
	cr_expect_eq(flight_count(&a.view), 2);
}

/* F-7 */
Test(flight_asks, full_table_is_told, .init = setup, .fini = teardown, .timeout = 60)
{
	for (unsigned i = 0; i < N_KEYS; ++i) {
		char key[] = {'f', (char)('a' + i), 0};

		cr_assert_eq(flight_scene_ask(&a, &first, i, key, 0), 2);
	}
	cr_expect_eq(flight_scene_ask(&b, &second, 0, "one more", 0), IPC_ENOSPC);
	cr_expect_eq(flight_scene_ask(&b, &second, 0, "fa", 0), 2);
	leave(&b, &second);

	flight_scene_end(&scene, a.id);
	cr_expect_eq(flight_scene_ask(&b, &second, 0, "one more", 0), 2);
}

/* ---- ends of handlers ---- */

/* F-9 */
Test(flight_asks, key_of_a_dead_handler_goes_to_another, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t fence, fence_before;

	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(take(&h, &taken, 0), 0);
	cr_assert_eq(flight_get_fence(&h.view, &taken, &fence_before), 0);
	cr_expect(!flight_is_takeable(&g.view));
	flight_scene_end(&scene, h.id);
	flight_scene_handlers(&scene, 1, 0, SIDE_EVER);

	cr_expect_eq(look(&a, &first), IPC_EAGAIN);
	cr_expect(flight_is_takeable(&g.view));
	cr_assert_eq(take(&g, &second, 0), 0);
	cr_assert_eq(flight_get_fence(&g.view, &second, &fence), 0);
	cr_expect_gt(fence, fence_before);
	cr_expect_eq(land(&h, &taken, "too late"), IPC_ESTALE);
	cr_assert_eq(land(&g, &second, "x"), 0);
	expect_landed(&a, &first, "x", 2, 1);
}

/* F-9 */
Test(flight_asks, dead_handlers_are_counted_as_attempts, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct flight_member handler;

	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	for (unsigned i = 0; i < N_ATTEMPTS; ++i) {
		flight_scene_enter(&scene, &handler, 30 + i);
		cr_assert_eq(take(&handler, &taken, 0), 0, "attempt %u", i + 1);
		cr_expect_eq(look(&a, &first), IPC_EAGAIN);
		flight_scene_end(&scene, handler.id);
		flight_detach(&handler.view);
	}
	cr_expect_eq(take(&h, &taken, 0), IPC_EAGAIN);
	cr_expect_eq(look(&a, &first), IPC_EOWNERDEAD);
	leave(&a, &first);
	expect_all_cells_usable();
}

/* F-9 */
Test(flight_asks, last_handlers_end_is_told_as_it_was, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER);
	cr_expect_eq(look(&a, &first), IPC_EPIPE);
	cr_expect_eq(look(&a, &first), IPC_EPIPE);

	flight_scene_handlers(&scene, 1, 1, SIDE_EVER);
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 0), 2);
	cr_expect_eq(look(&a, &first), IPC_EPIPE, "the end is told anew");
	flight_scene_handlers(&scene, 0, 2, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(look(&b, &second), IPC_EOWNERDEAD);
	cr_expect_eq(flight_count(&a.view), 0);
	leave(&a, &first);
	leave(&b, &second);
	expect_all_cells_usable();
}

/* F-9: of a key that was handed out. */
Test(flight_asks, death_of_the_last_handler_ends_what_it_had, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(take(&h, &taken, 0), 0);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN, "of a handler that lives");
	flight_scene_end(&scene, h.id);
	cr_expect_eq(look(&a, &first), IPC_EOWNERDEAD);
}

/* F-9: the queue of before its end is not the new handlers'. */
Test(flight_asks, handlers_that_were_gone_and_came_back, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	flight_scene_handlers(&scene, 1, 1, SIDE_EVER | SIDE_DIED);

	/* Whoever looks first. */
	cr_expect_eq(take(&h, &taken, 0), IPC_EAGAIN);
	cr_expect_eq(look(&a, &first), IPC_EOWNERDEAD);

	cr_assert_eq(flight_scene_ask(&a, &first, 0, "other", 0), 2);
	flight_scene_handlers(&scene, 1, 2, SIDE_EVER | SIDE_DIED);
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "other", 0), 2, "it begins anew");
	cr_expect_eq(look(&a, &first), IPC_EOWNERDEAD);
	cr_assert_eq(take(&h, &taken, 0), 0);
	cr_assert_eq(land(&h, &taken, "x"), 0);
	expect_landed(&b, &second, "x", 1, 1);
}

/* F-9, F-18 */
Test(flight_asks, key_of_a_live_handler_survives_the_others, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(take(&h, &taken, 0), 0);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER);

	cr_expect_eq(look(&a, &first), IPC_EAGAIN);
	cr_assert_eq(flight_scene_join(&b, &second, 0, "key"), 2, "stays joinable");
	cr_assert_eq(land(&h, &taken, "x"), 0);
	expect_landed(&a, &first, "x", 1, 2);
	expect_landed(&b, &second, "x", 1, 2);
}

/* ---- who stays ---- */

/* F-18 */
Test(flight_asks, who_stays_asks_without_a_handler, .init = setup, .fini = teardown, .timeout = 60)
{
	flight_scene_handlers(&scene, 0, 0, 0);
	cr_assert_eq(flight_scene_ask_stay(&a, &first, 0, "key", 0), 2);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN);
	flight_scene_handlers(&scene, 1, 0, SIDE_EVER);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN);
	flight_scene_handlers(&scene, 1, 1, SIDE_EVER | SIDE_DIED);

	cr_assert_eq(take(&h, &taken, 0), 0);
	flight_scene_end(&scene, h.id);
	flight_scene_handlers(&scene, 0, 2, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN, "queued again, for whoever comes");
	flight_scene_handlers(&scene, 1, 2, SIDE_EVER | SIDE_DIED);
	cr_assert_eq(take(&g, &taken, 0), 0);
	cr_assert_eq(land(&g, &taken, "x"), 0);
	expect_landed(&a, &first, "x", 2, 1);
	leave(&a, &first);

	cr_assert_eq(flight_scene_ask_stay(&a, &first, 0, "key", 0), 2);
	flight_scene_handlers(&scene, 0, 3, SIDE_EVER | SIDE_FINAL);
	cr_expect_eq(look(&a, &first), IPC_EPIPE, "nobody will ever come");
}

/* F-9, F-18: each has its own end. */
Test(flight_asks, who_does_not_stay_is_told_beside_one_who_does, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(flight_scene_ask_stay(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 0), 2);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER);
	cr_expect_eq(look(&b, &second), IPC_EPIPE);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN);
	leave(&b, &second);

	flight_scene_handlers(&scene, 1, 1, SIDE_EVER);
	cr_expect_eq(look(&b, &second), IPC_EPIPE);
	cr_assert_eq(take(&h, &taken, 0), 0);
	cr_assert_eq(land(&h, &taken, "x"), 0);
	expect_landed(&a, &first, "x", 1, 2);

	/* The other way round: the later one keeps it queued. */
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "new", 0), 2);
	cr_assert_eq(flight_scene_ask_stay(&a, &first, 1, "new", 0), 2);
	flight_scene_handlers(&scene, 0, 2, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(look(&b, &second), IPC_EOWNERDEAD);
	cr_expect_eq(look(&a, &first), IPC_EAGAIN);
}

/* ---- joins and asks of one key ---- */

/* F-18 */
Test(flight_asks, joiner_of_an_asked_key_is_never_promoted, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(flight_scene_join(&b, &second, 0, "key"), 2);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN);
	cr_assert_eq(take(&h, &taken, 0), 0);
	flight_scene_end(&scene, h.id);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN, "it waits for the next handler");
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(look(&b, &second), IPC_EOWNERDEAD);
	cr_expect_eq(look(&a, &first), IPC_EOWNERDEAD);
	leave(&a, &first);
	leave(&b, &second);

	/* Not even when the asker is gone. */
	flight_scene_handlers(&scene, 1, 1, SIDE_EVER | SIDE_DIED);
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(flight_scene_join(&b, &second, 0, "key"), 2);
	leave(&a, &first);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN);
	cr_assert_eq(take(&g, &taken, 0), 0);
	cr_assert_eq(land(&g, &taken, "x"), 0);
	expect_landed(&b, &second, "x", 1, 2);
}

/* F-18 */
Test(flight_asks, asker_of_a_joined_key_follows_its_leader, .init = setup, .fini = teardown,
     .timeout = 60)
{
	lead_as_another_thread(&a, &first, 0, "key");
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 4), 2);
	cr_expect_eq(take(&h, &taken, 0), IPC_EAGAIN, "it is led");
	cr_expect_eq(flight_get_urgency(&a.view, &first), 4);
	cr_assert_eq(land(&a, &first, "x"), 0);
	expect_landed(&b, &second, "x", 1, 2);
}

/* F-18 */
Test(flight_asks, asked_key_goes_to_a_handler_at_its_leaders_end, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (unsigned dies = 0; dies < 2; ++dies) {
		lead_as_another_thread(&g, &first, 0, "key");
		cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 4), 2);
		cr_assert_eq(flight_scene_join(&a, &third, 1, "key"), 2);

		/* The handlers were away meanwhile: that does not matter. */
		flight_scene_handlers(&scene, 1, 1 + dies, SIDE_EVER);
		if (dies)
			flight_scene_end(&scene, g.id);
		else
			leave(&g, &first);
		cr_expect_eq(look(&b, &second), IPC_EAGAIN);
		cr_expect_eq(look(&a, &third), IPC_EAGAIN, "a joiner is promoted past the queue");
		cr_assert_eq(take(&h, &taken, 0), 0);
		cr_expect_eq(flight_get_urgency(&h.view, &taken), 4);
		cr_assert_eq(land(&h, &taken, "x"), 0);
		leave(&h, &taken);
		expect_landed(&b, &second, "x", 2, 3);
		expect_landed(&a, &third, "x", 2, 3);
		leave(&b, &second);
		leave(&a, &third);
	}
	expect_all_cells_usable();
}

/* F-2, F-18: with nobody to take it, those who joined have one who leads. */
Test(flight_asks, joiner_leads_on_when_no_handler_is_there, .init = setup, .fini = teardown,
     .timeout = 60)
{
	lead_as_another_thread(&g, &first, 0, "key");
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 0), 2);
	cr_assert_eq(flight_scene_join(&a, &third, 1, "key"), 2);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER | SIDE_DIED);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN, "its leader lives");
	leave(&g, &first);

	cr_expect_eq(look(&b, &second), IPC_EOWNERDEAD);
	cr_expect_eq(look(&a, &third), 1);
	cr_assert_eq(land(&a, &third, "x"), 0);
	expect_landed(&a, &third, "x", 2, 3);
}

/* F-9, F-18 */
Test(flight_asks, close_of_the_last_handler_is_told_in_a_joined_flight, .init = setup,
     .fini = teardown, .timeout = 60)
{
	lead_as_another_thread(&g, &first, 0, "key");
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 0), 2);
	leave(&g, &first);
	cr_expect_eq(look(&b, &second), IPC_EAGAIN);
	flight_scene_handlers(&scene, 0, 1, SIDE_EVER);
	cr_expect_eq(look(&b, &second), IPC_EPIPE);
}

/* F-2 */
Test(flight_asks, without_promotion_a_dead_handler_ends_the_flight, .init = setup_no_promote,
     .fini = teardown, .timeout = 60)
{
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "key", 0), 2);
	cr_assert_eq(take(&h, &taken, 0), 0);
	cr_assert_eq(flight_scene_ask(&b, &second, 0, "key", 0), 2);
	flight_scene_end(&scene, h.id);
	cr_expect_eq(take(&g, &taken, 0), IPC_EAGAIN);
	cr_expect_eq(look(&a, &first), IPC_EOWNERDEAD);
	cr_expect_eq(look(&b, &second), IPC_EOWNERDEAD);
}

/* M-27: a handler that is armed hears of the key, and so does an asker of the answer. */
static void count_ring(void *userdata)
{
	++*(unsigned *)userdata;
}

Test(flight_asks, ask_rings_for_the_handlers, .init = setup, .fini = teardown, .timeout = 60)
{
	unsigned n_rings = 0;

	a.view.ring = count_ring;
	a.view.ring_userdata = &n_rings;
	cr_assert_eq(flight_scene_ask(&a, &first, 0, "unheard", 0), 2);
	cr_expect_eq(n_rings, 0);
	eventcount_arm(flight_handlers_event(&h.view));
	cr_assert_eq(flight_scene_ask(&a, &second, 1, "key", 0), 2);
	cr_expect_eq(n_rings, 1);

	/* An asked key whose leader leaves. */
	lead_as_another_thread(&a, &first, 2, "joined");
	cr_assert_eq(flight_scene_ask(&b, &third, 0, "joined", 0), 2);
	eventcount_arm(flight_handlers_event(&h.view));
	leave(&a, &first);
	cr_expect_eq(n_rings, 2);
}
