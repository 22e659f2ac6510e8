/* SPDX-License-Identifier: MIT */
/*
 * Whom the calls on an inbox wake, by its structure alone: those who sleep where the sender does,
 * after what that does by itself.
 */
#include "tests/channel/inbox_stage.h"

#define Case(name) Test(inbox_wakes, name, .init = setup, .fini = teardown, .timeout = 60)

static uint32_t asleep;

static void fall_asleep(void)
{
	asleep = eventcount_announce(&scene.board->lines[INBOX_SIDE_SENDER]);
}

static bool was_woken(void)
{
	return atomic_load(&scene.board->lines[INBOX_SIDE_SENDER].word) != asleep;
}

/* I-12: those who wait for another generation. */
Case(end_of_a_snapshot_wakes_who_waits_for_what_is_applied)
{
	start();
	expect_done(inbox_begin_snapshot(&sender, GENERATION + 1, true));
	fall_asleep();
	expect_done(inbox_end_snapshot(&sender, FIRST, true));

	cr_expect(was_woken());
	cr_expect_eq(inbox_probe_applied(&observer, GENERATION, FIRST), IPC_ESTALE);
}

/* I-10: the request stands again. */
Case(abort_of_a_snapshot_wakes_who_waits_for_a_request)
{
	start();
	expect_done(inbox_request_snapshot(&receiver));
	send_half();
	fall_asleep();
	expect_done(inbox_abort_snapshot(&sender));

	cr_expect(was_woken());
	cr_expect(inbox_is_requested(&sender));
}

/* The first thing after a snapshot. */
static void *claim(uint64_t size)
{
	void *data = NULL;

	start();
	expect_done(inbox_claim_frame(&sender, size, &data, true));
	return data;
}

/* M-34: it takes room, and gives it back. */
Case(abort_of_a_claim_wakes_who_waits_for_room)
{
	void *data = claim(LARGEST);
	uint64_t n = FIRST;

	while (frame_of(n, 0) == 0)
		++n;
	cr_assert_eq(inbox_probe_room(&sender), IPC_EAGAIN);
	fall_asleep();
	expect_done(inbox_abort_frame(&sender, data));

	cr_expect(was_woken());
	cr_expect_eq(inbox_probe_room(&sender), 0);
}

/* M-34 */
Case(commit_of_less_than_was_claimed_wakes_who_waits_for_room)
{
	void *data = claim(LARGEST);

	fall_asleep();
	expect_done(inbox_commit_frame(&sender, FIRST, data, LARGEST / 2));

	cr_expect(was_woken());
}

/* M-27: nobody is concerned. */
Case(commit_of_all_that_was_claimed_wakes_nobody)
{
	void *data = claim(LARGEST);

	fall_asleep();
	expect_done(inbox_commit_frame(&sender, FIRST, data, LARGEST));

	cr_expect_not(was_woken());
}
