/* SPDX-License-Identifier: MIT */
/*
 * The rules for ends of an inbox that are gone, by its structure alone: who comes after them, and
 * what it finds.
 */
#include "tests/channel/inbox_stage.h"

#define Case(name) Test(inbox_deaths, name, .init = setup, .fini = teardown, .timeout = 60)

static struct inbox_sender other_sender;
static struct inbox_receiver other_receiver;

/* ---- senders ---- */

/* I-2 */
Case(snapshot_is_aborted_by_close)
{
	start();
	send_half();
	inbox_close_sender(&sender);

	expect_aborted(IPC_INBOX_SENDER_CLOSED);
}

/* I-2, I-3 */
Case(snapshot_is_aborted_by_who_comes_after_its_sender)
{
	start();
	send_half();
	change_sender();

	expect_aborted(IPC_INBOX_SENDER_DIED);
	cr_expect_eq(inbox_send_chunk(&sender, "rest", 4, true), IPC_EINVAL);
	expect_done(frame(FIRST));
	(void)next_frame(FIRST);
}

/* I-3: nobody comes after it. */
Case(receiver_tells_the_abort_of_a_dead_sender_by_itself)
{
	struct ipc_inbox_event event = {.type = 0};

	start();
	send_half();
	inbox_scene_end(&scene, sender_handle);

	(void)next(IPC_INBOX_BEGIN);
	(void)next(IPC_INBOX_CHUNK);
	expect_nothing();
	cr_assert_eq(inbox_receive_many(&receiver, &event, 1, IPC_EOWNERDEAD), 1);
	cr_expect_eq(event.type, IPC_INBOX_ABORT);
	cr_expect_eq(event.reason, IPC_INBOX_SENDER_DIED);
	cr_expect_eq(inbox_receive_many(&receiver, &event, 1, IPC_EOWNERDEAD), IPC_EAGAIN);
}

/* I-3 */
Case(next_sender_goes_on_at_written)
{
	start();
	expect_done(frame(FIRST));
	expect_done(frame(FIRST + 1));
	change_sender();

	cr_expect_eq(positions().generation, GENERATION);
	cr_expect_eq(frame(FIRST), IPC_EINVAL);
	expect_done(frame(FIRST + 2));

	for (uint64_t i = FIRST; i < FIRST + 3; ++i)
		(void)next_frame(i);
}

/* I-3: who was taken over by it sends nothing. */
Case(sender_that_was_followed_is_out)
{
	start();
	enter_sender(&other_sender);

	cr_expect_eq(frame(FIRST), IPC_ESTALE);
	cr_expect_eq(inbox_begin_snapshot(&sender, 9, true), IPC_ESTALE);
	expect_nothing();
	inbox_leave_sender(&other_sender);
}

/* I-13: of two at one end the newer one has it. */
Case(end_is_of_one_handle_at_a_time)
{
	start();
	enter_sender(&other_sender);
	enter_receiver(&other_receiver);

	cr_expect_eq(inbox_begin_snapshot(&sender, 9, true), IPC_ESTALE);
	cr_expect_eq(receive(), IPC_ESTALE);
	cr_expect_eq(inbox_request_snapshot(&receiver), IPC_ESTALE);
	expect_done(inbox_begin_snapshot(&other_sender, 9, true));
	inbox_leave_sender(&other_sender);
	inbox_leave_receiver(&other_receiver);
}

/* ---- receivers ---- */

/* I-4 */
Case(frames_that_were_not_applied_come_again)
{
	start();
	for (uint64_t i = FIRST; i < FIRST + 3; ++i)
		expect_done(frame(i));
	apply(next_frame(FIRST));
	(void)next_frame(FIRST + 1);

	change_receiver();

	expect_positions(FIRST + 3, FIRST + 1, FIRST + 1);
	(void)next_frame(FIRST + 1);
	(void)next_frame(FIRST + 2);
}

/* I-4: nor do frames up to the next BEGIN; and one is requested. */
Case(snapshot_that_was_received_in_part_does_not_come_again)
{
	start();
	send_snapshot(GENERATION + 1, 5);
	expect_done(frame(5));
	(void)next(IPC_INBOX_BEGIN);

	change_receiver();

	cr_expect_eq(positions().snapshot_wanted, 1);
	next_abort(IPC_INBOX_RECEIVER_CHANGED);
	expect_nothing();
	send_snapshot(GENERATION + 2, 5);
	apply_snapshot();
}

/* I-4 */
Case(snapshot_of_which_nothing_was_received_comes_to_the_next)
{
	start();
	send_snapshot(GENERATION + 1, 5);

	change_receiver();

	cr_expect_eq(positions().snapshot_wanted, 0);
	apply_snapshot();
	expect_positions(5, 5, 5);
}

/* I-4 */
Case(nothing_is_requested_where_a_begin_is_on_its_way)
{
	start();
	send_snapshot(GENERATION + 1, 5);
	send_snapshot(GENERATION + 2, 6);
	(void)next(IPC_INBOX_BEGIN);

	change_receiver();

	cr_expect_eq(positions().snapshot_wanted, 0);
	next_abort(IPC_INBOX_RECEIVER_CHANGED);
	cr_expect_eq(next(IPC_INBOX_BEGIN).generation, GENERATION + 2);
}

/* I-4 */
Case(sender_inside_of_a_lost_snapshot_has_to_begin_anew)
{
	start();
	send_half();
	(void)next(IPC_INBOX_BEGIN);

	change_receiver();

	cr_expect_eq(inbox_send_chunk(&sender, "", 0, true), IPC_EOVERFLOW);
	cr_expect_eq(inbox_end_snapshot(&sender, 5, true), IPC_EOVERFLOW);
	send_snapshot(GENERATION + 2, 5);
}

/* I-4: a snapshot is open; its sender is stopped in the middle of a chunk, and the next one has
 * jumped over that, and died before it could abort it. */
static void look_at_a_jump_inside(bool holds, bool looks)
{
	struct ring_producer taker = {.view = observer.view};
	struct ipc_inbox_event event, begin, chunk;
	uint64_t id;
	void *data;

	start();
	send_half();
	begin = next(IPC_INBOX_BEGIN);
	chunk = next(IPC_INBOX_CHUNK);
	if (!holds) {
		apply(begin);
		apply(chunk);
	}
	cr_assert_eq(ring_claim(&sender.out, 100, &data), 0);
	++handle;
	id = INBOX_SCENE_ID(handle);
	liveness_handle_set(scene.table, LIVENESS_SLOT(id), id);
	cr_assert_eq(ring_take_producer(&taker, scene.table, id, 0), 0);
	cr_assert_neq(ring_position(taker.head), ring_position(sender.out.head));

	if (looks)
		cr_assert_eq(inbox_probe_event(&receiver, 0), IPC_EAGAIN);
	change_receiver();
	cr_assert_eq(inbox_receive_many(&receiver, &event, 1, 0), 1);
	cr_expect_eq(event.type, IPC_INBOX_ABORT);
	cr_expect_eq(event.reason, IPC_INBOX_RECEIVER_CHANGED);
	cr_expect_eq(positions().snapshot_wanted, 1);
}

Case(a_snapshot_is_lost_that_was_open_at_a_jump)
{
	look_at_a_jump_inside(false, false);
}

Case(a_snapshot_is_lost_that_was_open_at_a_jump_that_was_looked_at)
{
	look_at_a_jump_inside(false, true);
}

Case(a_snapshot_is_lost_that_was_held_at_a_jump_that_was_looked_at)
{
	look_at_a_jump_inside(true, true);
}
