/* SPDX-License-Identifier: MIT */
/*
 * The rules of the kind `inbox`, one by one, by its structure alone: order, bounds, positions,
 * wakes, marks, claims.  Of snapshots: inbox_snapshot.c; of ends that are gone: inbox_deaths.c.
 * What only a process, a deadline or the broker can show is in tests/client/inbox_*.c.
 */
#include "tests/channel/inbox_stage.h"

#define Case(name)      Test(inbox, name, .init = setup, .fini = teardown, .timeout = 60)
#define Collapses(name) Test(inbox, name, .init = setup_collapses, .fini = teardown, .timeout = 60)

/* ---- order ---- */

/* I-1 */
Case(frames_come_in_order_with_consecutive_offsets)
{
	start();
	for (uint64_t i = FIRST; i < FIRST + 5; ++i)
		expect_done(frame(i));

	for (uint64_t i = FIRST; i < FIRST + 5; ++i)
		(void)next_frame(i);
	expect_nothing();
}

/* I-1: it is refused, and nothing happened. */
Case(sender_refuses_a_frame_of_another_offset)
{
	start();

	cr_expect_eq(frame(FIRST + 1), IPC_EINVAL);
	cr_expect_eq(frame(FIRST - 1), IPC_EINVAL);

	expect_positions(FIRST, FIRST, FIRST);
	expect_nothing();
}

/* I-1: of a sender that does not check. */
Case(receiver_reports_a_frame_of_another_offset)
{
	struct ipc_inbox_event event;

	start();
	sender.out.number = FIRST + 5;
	expect_done(frame(FIRST + 5));

	event = next(IPC_INBOX_GAP);

	cr_expect_eq(event.offset, FIRST + 5);
	cr_expect_eq(event.expected, FIRST);
	cr_expect_eq(positions().snapshot_wanted, 1);
}

/* I-1 */
Case(offsets_restart_by_a_snapshot)
{
	start();
	expect_done(frame(FIRST));
	send_snapshot(GENERATION + 1, 5);
	expect_done(frame(5));

	(void)next_frame(FIRST);
	apply_snapshot();
	(void)next_frame(5);
}

/* ---- bounds ---- */

/* I-5 */
Case(full_inbox_refuses_and_keeps_what_it_has)
{
	uint64_t n;

	start();
	n = fill(FIRST);

	cr_expect_eq(frame_of(FIRST + n, LARGEST / 2), IPC_EAGAIN);
	cr_expect_eq(inbox_send_frame(&sender, FIRST + n, "", LARGEST / 2, false), IPC_EAGAIN);
	cr_expect_gt(positions().depth, CAPACITY / 2);
	cr_expect_leq(positions().depth_max, CAPACITY);
	for (uint64_t i = 0; i < n; ++i)
		apply(next_frame(FIRST + i));
	cr_expect_eq(positions().depth, 0);
	expect_done(frame(FIRST + n));
}

/* I-5 */
Collapses(backlog_is_given_up_as_a_whole)
{
	struct ipc_inbox_event event;
	uint64_t n;

	start();
	n = fill(FIRST);
	(void)next_frame(FIRST);

	cr_assert_eq(inbox_send_frame(&sender, FIRST + n, scene.pair, LARGEST, false),
		     IPC_EOVERFLOW);

	cr_expect_eq(positions().snapshot_wanted, 1);
	event = next(IPC_INBOX_GAP);
	cr_expect_eq(event.reason, IPC_INBOX_COLLAPSED);
	cr_expect_eq(event.offset, FIRST + n);
	cr_expect_eq(event.expected, FIRST + 1);
	expect_nothing();
}

/* I-5 */
Collapses(backlog_inside_of_a_snapshot_is_given_up_by_abort)
{
	static const unsigned char bytes[LARGEST];

	start();
	send_half();
	(void)next(IPC_INBOX_BEGIN);
	while (inbox_send_chunk(&sender, bytes, LARGEST, true) == 0)
		;

	cr_assert_eq(inbox_send_chunk(&sender, bytes, LARGEST, false), IPC_EOVERFLOW);

	next_abort(IPC_INBOX_COLLAPSED);
	cr_expect_eq(inbox_send_chunk(&sender, "", 0, false), IPC_EOVERFLOW);
	cr_expect_eq(inbox_end_snapshot(&sender, 5, false), IPC_EOVERFLOW);
}

/* I-5 */
Collapses(call_that_may_wait_gives_nothing_up)
{
	uint64_t n;

	start();
	n = fill(FIRST);

	cr_expect_eq(frame_of(FIRST + n, LARGEST / 2), IPC_EAGAIN);
	cr_expect_eq(positions().snapshot_wanted, 0);
	for (uint64_t i = 0; i < n; ++i)
		(void)next_frame(FIRST + i);
}

/* ---- positions ---- */

/* I-6 */
Case(each_position_tells_the_next_frame)
{
	struct ipc_inbox_event event;

	expect_positions(0, 0, 0);
	send_snapshot(GENERATION, FIRST);
	expect_positions(FIRST, 0, 0);
	cr_expect_eq(positions().generation, GENERATION);

	(void)next(IPC_INBOX_BEGIN);
	(void)next(IPC_INBOX_CHUNK);
	event = next(IPC_INBOX_END);
	expect_positions(FIRST, FIRST, 0);
	cr_expect_eq(positions().applied_generation, 0);

	apply(event);
	expect_positions(FIRST, FIRST, FIRST);
	cr_expect_eq(positions().applied_generation, GENERATION);
}

/* I-6: but `received`, which the next receiver has not done yet. */
Case(positions_survive_both_ends)
{
	start();
	expect_done(frame(FIRST));
	expect_done(frame(FIRST + 1));
	apply(next_frame(FIRST));
	(void)next_frame(FIRST + 1);
	inbox_scene_end(&scene, sender_handle);
	inbox_scene_end(&scene, receiver_handle);

	expect_positions(FIRST + 2, FIRST + 2, FIRST + 1);
	change_sender();
	change_receiver();
	expect_positions(FIRST + 2, FIRST + 1, FIRST + 1);
}

/* ---- wakes ---- */

static unsigned n_rings;

static void ring(void *userdata)
{
	(void)userdata;
	++n_rings;
}

/* I-7: who does not sleep is not woken. */
Case(first_record_rings_for_who_announced_that_it_sleeps)
{
	start();
	sender.inbox.ring = ring;
	expect_done(frame(FIRST));
	cr_expect_eq(n_rings, 0);

	(void)eventcount_arm(&scene.board->lines[INBOX_SIDE_RECEIVER]);
	expect_done(frame(FIRST + 1));
	expect_done(frame(FIRST + 2));

	cr_expect_eq(n_rings, 1);
}

/* I-7: it took some, did something else, and announces anew: what is there is seen. */
Case(what_was_left_behind_is_seen_by_the_look_after_the_announcement)
{
	start();
	expect_done(frame(FIRST));
	expect_done(frame(FIRST + 1));
	(void)next_frame(FIRST);

	(void)eventcount_arm(&scene.board->lines[INBOX_SIDE_RECEIVER]);

	cr_expect_eq(inbox_probe_event(&receiver, 0), 0);
	(void)next_frame(FIRST + 1);
	cr_expect_eq(inbox_probe_event(&receiver, 0), IPC_EAGAIN);
}

/* ---- applying ---- */

/* I-11 */
Case(mark_is_cumulative)
{
	struct ipc_inbox_event second;

	start();
	for (uint64_t i = FIRST; i < FIRST + 3; ++i)
		expect_done(frame(i));
	(void)next_frame(FIRST);
	second = next_frame(FIRST + 1);
	(void)next_frame(FIRST + 2);

	apply(second);

	expect_positions(FIRST + 3, FIRST + 3, FIRST + 2);
}

/* I-11: it is larger than the inbox, and `applied` stands still. */
Case(marks_of_begin_and_chunks_give_their_room_back)
{
	static const unsigned char bytes[LARGEST];

	start();
	expect_done(inbox_begin_snapshot(&sender, GENERATION + 1, true));
	apply(next(IPC_INBOX_BEGIN));
	cr_expect_eq(positions().depth, 0);
	for (unsigned i = 0; i < 4 * CAPACITY / LARGEST; ++i) {
		expect_done(inbox_send_chunk(&sender, bytes, LARGEST, true));
		apply(next(IPC_INBOX_CHUNK));
		cr_assert_eq(positions().applied, FIRST);
	}
	expect_done(inbox_end_snapshot(&sender, 5, true));
	apply(next(IPC_INBOX_END));

	expect_positions(5, 5, 5);
}

/* I-11: ABORT and GAP may be marked. */
Case(mark_of_what_is_not_held_is_done)
{
	struct ipc_inbox_event event, abort;

	start();
	expect_done(frame(FIRST));
	event = next_frame(FIRST);
	apply(event);
	apply(event);
	send_half();
	expect_done(inbox_abort_snapshot(&sender));
	(void)next(IPC_INBOX_BEGIN);
	(void)next(IPC_INBOX_CHUNK);
	abort = next(IPC_INBOX_ABORT);
	apply(abort);

	expect_positions(FIRST + 1, FIRST + 1, FIRST + 1);
}

/* I-11 */
Case(mark_of_another_receivers_event_is_refused)
{
	struct ipc_inbox_event event;

	start();
	expect_done(frame(FIRST));
	event = next_frame(FIRST);
	change_receiver();
	(void)next_frame(FIRST);

	cr_expect_eq(inbox_mark_applied(&receiver, &event), IPC_ESTALE);

	cr_expect_eq(positions().applied, FIRST);
}

/* I-12 */
Case(applied_is_all_before_an_offset_in_its_generation)
{
	start();
	expect_done(frame(FIRST));

	expect_done(inbox_probe_applied(&observer, GENERATION, FIRST));
	cr_expect_eq(inbox_probe_applied(&observer, GENERATION, FIRST + 1), IPC_EAGAIN);
	cr_expect_eq(inbox_probe_applied(&observer, GENERATION + 1, 0), IPC_ESTALE);

	/* Committed, and not applied. */
	send_snapshot(GENERATION + 1, 5);
	cr_expect_eq(inbox_probe_applied(&observer, GENERATION, FIRST), IPC_ESTALE);
	cr_expect_eq(inbox_probe_applied(&observer, GENERATION + 1, 5), IPC_EAGAIN);
	cr_expect_eq(inbox_probe_applied(&sender.inbox, 0, 5), IPC_EAGAIN);

	apply(next_frame(FIRST));
	apply_snapshot();
	expect_done(inbox_probe_applied(&observer, GENERATION + 1, 5));
	expect_done(inbox_probe_applied(&sender.inbox, 0, 5));
}

/* ---- claims ---- */

/* I-14 */
Case(frame_may_be_filled_in_place)
{
	void *data;

	start();
	expect_done(inbox_claim_frame(&sender, 64, &data, true));
	cr_expect_eq((uintptr_t)data % 16, 0);
	pattern_fill(data, 32, FIRST);
	expect_nothing();

	expect_done(inbox_commit_frame(&sender, FIRST, data, 32));

	cr_expect_eq(next_frame(FIRST).size, 32);
}

/* I-14 */
Case(one_claim_is_open_at_a_time)
{
	void *data, *second;

	start();
	expect_done(inbox_claim_frame(&sender, 64, &data, true));

	cr_expect_eq(inbox_claim_frame(&sender, 64, &second, true), IPC_EINVAL);
	expect_done(inbox_abort_frame(&sender, data));
	expect_done(inbox_claim_frame(&sender, 64, &second, true));
}

/* I-14, I-10 */
Case(refused_commit_leaves_the_claim_open)
{
	void *data;

	start();
	expect_done(inbox_claim_frame(&sender, 64, &data, true));
	pattern_fill(data, 64, 5);

	cr_expect_eq(inbox_commit_frame(&sender, FIRST + 1, data, 64), IPC_EINVAL);
	cr_expect_eq(inbox_commit_frame(&sender, FIRST, data, 65), IPC_EMSGSIZE);
	cr_expect_eq(inbox_commit_frame(&sender, FIRST, (char *)data + 16, 8), IPC_EINVAL);
	cr_expect_eq(inbox_abort_frame(&sender, (char *)data + 16), IPC_EINVAL);
	expect_done(inbox_request_snapshot(&receiver));
	cr_expect_eq(inbox_commit_frame(&sender, FIRST, data, 64), IPC_EOVERFLOW);

	/* Also under a snapshot that comes between. */
	send_snapshot(GENERATION + 1, 5);
	expect_done(inbox_commit_frame(&sender, 5, data, 64));
	apply_snapshot();
	(void)next_frame(5);
}

/* I-14 */
Case(claim_that_is_over_is_none)
{
	void *data;

	start();
	expect_done(inbox_claim_frame(&sender, 64, &data, true));
	expect_done(inbox_abort_frame(&sender, data));

	cr_expect_eq(inbox_abort_frame(&sender, data), IPC_EINVAL);
	cr_expect_eq(inbox_commit_frame(&sender, FIRST, data, 8), IPC_EINVAL);
	expect_positions(FIRST, FIRST, FIRST);
}
