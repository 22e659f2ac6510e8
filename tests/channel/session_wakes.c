/* SPDX-License-Identifier: MIT */
/*
 * Whom the calls on a session wake at its own end, by its structure alone: those who wait for room
 * there.
 */
#include "libipc/channel/session.h"

#include <criterion/criterion.h>

#include "tests/support/session_scene.h"

enum { CAPACITY = 4096, LARGEST = 1024 };

static struct session_scene scene;
static struct session_member a, b;
static uint32_t asleep;

static void setup(void)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);

	session_scene_init(&scene, shape);
	session_scene_enter(&scene, &a, 0, 1, 0);
	session_scene_enter(&scene, &b, 1, 2, 0);
}

static void teardown(void)
{
	session_scene_leave(&scene, &a);
	session_scene_leave(&scene, &b);
	session_scene_deinit(&scene);
}

#define Case(name) Test(session_wakes, name, .init = setup, .fini = teardown, .timeout = 60)

/* A claim, no room beside it, and somebody who waits for room. */
static void *claim_and_wait(uint64_t size)
{
	void *data = NULL;

	cr_assert_eq(session_claim(&a.view, size, &data), 0);
	while (session_scene_send(&a, 1, 0) == 0)
		;
	asleep = eventcount_announce(session_line(&a.view));
	return data;
}

static bool was_woken(void)
{
	return atomic_load(&session_line(&a.view)->word) != asleep;
}

/* M-34, C-14 */
Case(abort_of_a_claim_wakes_who_waits_for_room)
{
	cr_assert_eq(session_abort(&a.view, claim_and_wait(LARGEST)), 0);

	cr_expect(was_woken());
	cr_expect_eq(session_scene_send(&a, 2, 0), 0);
}

/* M-34 */
Case(commit_of_less_than_was_claimed_wakes_who_waits_for_room)
{
	void *data = NULL;

	cr_assert_eq(session_claim(&a.view, LARGEST, &data), 0);
	asleep = eventcount_announce(session_line(&a.view));
	cr_assert_eq(session_commit(&a.view, data, LARGEST / 2), 0);

	cr_expect(was_woken());
}

/* M-34, C-12 */
Case(commit_release_of_less_wakes_who_waits_for_room)
{
	struct ipc_session_message request;
	void *data = NULL;

	cr_assert_eq(session_scene_send(&b, 1, 8), 0);
	cr_assert_eq(session_scene_receive(&a, &request), 1);
	cr_assert_eq(session_claim(&a.view, LARGEST, &data), 0);
	asleep = eventcount_announce(session_line(&a.view));
	cr_assert_eq(session_commit_release(&a.view, data, 8, &request), 0);

	cr_expect(was_woken());
}

/* C-14 */
Case(close_wakes_who_waits_at_the_other_end)
{
	struct eventcount *line = session_line(&b.view);

	asleep = eventcount_announce(line);
	session_close(&a.view);
	session_tell_closed(&a.view);

	cr_expect(atomic_load(&line->word) != asleep);
}

/* C-3: who was taken over closes nothing. */
Case(close_by_who_was_taken_over_wakes_nobody)
{
	struct eventcount *line = session_line(&b.view);
	struct session_member heir;

	session_scene_end(&scene, a.id);
	session_scene_enter(&scene, &heir, 0, 3, 0);
	asleep = eventcount_announce(line);
	session_close(&a.view);
	session_tell_closed(&a.view);

	cr_expect_eq(atomic_load(&line->word), asleep);
	session_scene_leave(&scene, &heir);
}

/* M-27: nobody at this end is concerned. */
Case(commit_of_all_that_was_claimed_wakes_nobody)
{
	void *data = NULL;

	cr_assert_eq(session_claim(&a.view, LARGEST, &data), 0);
	asleep = eventcount_announce(session_line(&a.view));
	cr_assert_eq(session_commit(&a.view, data, LARGEST), 0);

	cr_expect_not(was_woken());
}
