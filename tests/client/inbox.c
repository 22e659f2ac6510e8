/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: what is sent, in which order, and what is refused.
 */
#include "tests/client/inbox_scene.h"

TestSuite(inbox, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- opening ---- */

static int create(struct ipc_inbox_options options)
{
	ipc_inbox_sender *sender = NULL;
	int r;

	options.flags |= IPC_CREATE;
	r = sender_open(&sender, fixture_client, options);
	ipc_inbox_sender_close(sender);
	return r;
}

#define CREATE(...) create((struct ipc_inbox_options){__VA_ARGS__})

/* M-76 */
Test(inbox, options_beyond_their_limits_are_refused)
{
	EXPECT(CREATE(.capacity = (UINT64_C(4) << 10) - 1), IPC_EINVAL);
	EXPECT(CREATE(.capacity = (UINT64_C(1) << 30) + 1), IPC_EINVAL);
	EXPECT(CREATE(.capacity = UINT64_MAX), IPC_EINVAL);
	EXPECT(CREATE(.capacity = 8192, .frame_size_max = 2049), IPC_EINVAL);
	EXPECT(CREATE(.frame_size_max = (UINT64_C(256) << 10) + 1), IPC_EINVAL);
	EXPECT(CREATE(.full = (enum ipc_inbox_full)2), IPC_EINVAL);
	EXPECT(CREATE(.mode = 0777), IPC_EINVAL);
	EXPECT(CREATE(.flags = UINT64_C(1) << 40), IPC_EINVAL);
	EXPECT(CREATE(.flags = 01000), IPC_EINVAL);
	EXPECT(CREATE(.reserved = 1), IPC_E2BIG);
}

/* M-76 */
Test(inbox, options_at_their_limits_are_taken)
{
	EXPECT(CREATE(.capacity = UINT64_C(4) << 10), 0);
	EXPECT(CREATE(.capacity = 8192, .frame_size_max = 2048), 0);
	EXPECT(CREATE(.capacity = 65536, .frame_size_max = 1), 0);
	EXPECT(CREATE(.frame_size_max = UINT64_C(256) << 10), 0);
	EXPECT(CREATE(.full = IPC_INBOX_FULL_COLLAPSE), 0);
	EXPECT(CREATE(.mode = 0666), 0);
}

/* M-76: or refused for lack of memory. */
Test(inbox, largest_capacity_is_legal)
{
	int r = CREATE(.capacity = UINT64_C(1) << 30);

	cr_expect(r == 0 || r == IPC_ENOSPC || r == IPC_EDQUOT || r == IPC_ENOMEM, "%s",
		  ipc_error_name(r));
}

/* M-43 */
Test(inbox, other_shape_does_not_open)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 65536, .frame_size_max = 1000,
					      .full = IPC_INBOX_FULL_COLLAPSE);
	ipc_inbox_receiver *receiver = NULL;

	EXPECT(receiver_open(&receiver, fixture_client,
			     (struct ipc_inbox_options){.capacity = 32768}),
	       IPC_EPROTOTYPE);
	EXPECT(receiver_open(&receiver, fixture_client,
			     (struct ipc_inbox_options){.frame_size_max = 999}),
	       IPC_EPROTOTYPE);
	cr_expect_null(receiver);
	ASSERT(receiver_open(&receiver, fixture_client,
			     (struct ipc_inbox_options){.capacity = 65536,
							.full = IPC_INBOX_FULL_COLLAPSE}),
	       0);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);

	sender = SENDER_NEW(0);
	EXPECT(receiver_open(&receiver, fixture_client,
			     (struct ipc_inbox_options){.full = IPC_INBOX_FULL_COLLAPSE}),
	       IPC_EPROTOTYPE);
	ipc_inbox_sender_close(sender);
}

/* M-43 */
Test(inbox, either_side_makes_it_and_both_find_it)
{
	ipc_inbox_sender *sender = NULL;
	ipc_inbox_receiver *receiver = NULL;

	EXPECT(sender_open(&sender, fixture_client, (struct ipc_inbox_options){0}), IPC_ENOENT);
	EXPECT(receiver_open(&receiver, fixture_client, (struct ipc_inbox_options){0}), IPC_ENOENT);
	receiver = RECEIVER_NEW(0);
	ASSERT(sender_open(&sender, fixture_client, (struct ipc_inbox_options){0}), 0);
	EXPECT(sender_open(&(ipc_inbox_sender *){NULL}, fixture_client,
			   (struct ipc_inbox_options){.flags = IPC_CREATE | IPC_EXCLUSIVE}),
	       IPC_EEXIST);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
	EXPECT(exists(NAME), false);
}

/* ---- the stream ---- */

static void expect_positions(struct ipc_inbox_positions positions, uint64_t written,
			     uint64_t received, uint64_t applied)
{
	EXPECT(positions.written, written);
	EXPECT(positions.received, received);
	EXPECT(positions.applied, applied);
}

/* I-1, I-6, I-9 */
Test(inbox, snapshot_and_frames_come_in_order)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_positions positions;

	ASSERT(snapshot(sender, G1, 40), 0);
	ASSERT(frame(sender, 40), 0);
	ASSERT(frame(sender, 41), 0);
	expect_positions(positions_of(sender), 42, 0, 0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), CHUNK(40));
	positions = positions_at(receiver);
	EXPECT(positions.generation, G1);
	EXPECT(positions.applied_generation, 0);
	EXPECT(eat(receiver), END(40));
	EXPECT(positions_at(receiver).applied_generation, G1);
	EXPECT(see(receiver), FRAME(40));
	expect_positions(positions_of(sender), 42, 41, 40);
	EXPECT(eat(receiver), FRAME(41));
	expect_positions(positions_of(sender), 42, 42, 42);
	EXPECT(eat(receiver), IPC_EAGAIN);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-1 */
Test(inbox, every_event_tells_its_generation)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event[8];

	ASSERT(snapshot(sender, G2, 7), 0);
	ASSERT(frame(sender, 7), 0);
	ASSERT(ipc_inbox_receive_many(receiver, event, 8), 4);
	for (unsigned i = 0; i < 4; ++i)
		EXPECT(event[i].generation, G2);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-1: refused at the sender, and nothing happened. */
Test(inbox, frame_of_another_offset_is_refused)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);

	ASSERT(snapshot(sender, G1, 10), 0);
	EXPECT(frame(sender, 11), IPC_EINVAL);
	EXPECT(frame(sender, 9), IPC_EINVAL);
	EXPECT(frame_in(sender, 12, WAIT_MS), IPC_EINVAL);
	ASSERT(frame(sender, 10), 0);
	EXPECT(frame(sender, 10), IPC_EINVAL);
	EXPECT(positions_of(sender).written, 11);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-1: 64 bits. */
Test(inbox, offsets_have_64_bits)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	const uint64_t next = UINT64_MAX - 3;
	struct ipc_inbox_event event;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, next), 0);
	ASSERT(ipc_inbox_send_frame(sender, next, NULL, 0), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	ASSERT(ipc_inbox_receive(receiver, &event), 0);
	cr_expect_eq(event.offset, next);
	ASSERT(ipc_inbox_receive(receiver, &event), 0);
	cr_expect_eq(event.offset, next);
	EXPECT(event.type, IPC_INBOX_FRAME);
	ASSERT(ipc_inbox_mark_applied(receiver, &event), 0);
	cr_expect_eq(positions_of(sender).applied, next + 1);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-1, I-6: positions are offsets of the next frame, so the last of all offsets has no frame. */
Test(inbox, positions_do_not_come_round)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_inbox_event event;
	void *data;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, UINT64_MAX - 1), 0);
	ASSERT(ipc_inbox_send_frame(sender, UINT64_MAX - 1, NULL, 0), 0);
	EXPECT(ipc_inbox_send_frame(sender, UINT64_MAX, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_inbox_send_frame_wait(sender, UINT64_MAX, NULL, 0, &deadline), IPC_EINVAL);
	EXPECT(ipc_inbox_send_frame(sender, 0, NULL, 0), IPC_EINVAL);
	ASSERT(ipc_inbox_claim_frame(sender, 4, &data), 0);
	EXPECT(ipc_inbox_commit_frame(sender, UINT64_MAX, data, 4), IPC_EINVAL);
	ASSERT(ipc_inbox_abort_frame(sender, data), 0);
	cr_expect_eq(positions_of(sender).written, UINT64_MAX);

	while (ipc_inbox_receive(receiver, &event) == 0)
		EXPECT(ipc_inbox_mark_applied(receiver, &event), 0);
	cr_expect_eq(positions_of(sender).applied, UINT64_MAX);
	EXPECT(ipc_inbox_applied_wait(sender, UINT64_MAX, &deadline), 0);
	EXPECT(snapshot(sender, G2, 0), 0);
	EXPECT(frame(sender, 0), 0);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-9 */
Test(inbox, first_thing_is_a_snapshot)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	void *data = NULL;

	EXPECT(frame(sender, 0), IPC_EINVAL);
	EXPECT(frame_in(sender, 0, WAIT_MS), IPC_EINVAL);
	EXPECT(ipc_inbox_claim_frame(sender, 4, &data), IPC_EINVAL);
	EXPECT(ipc_inbox_begin_snapshot(sender, 0), IPC_EINVAL);
	EXPECT(ipc_inbox_begin_snapshot(sender, UINT64_C(1) << 53), IPC_EINVAL);
	EXPECT(ipc_inbox_begin_snapshot_wait(sender, 0, NULL), IPC_EINVAL);
	EXPECT(positions_of(sender).generation, 0);
	EXPECT(positions_of(sender).depth, 0);

	/* Without chunks will do. */
	ASSERT(ipc_inbox_begin_snapshot(sender, (UINT64_C(1) << 53) - 1), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, 0), 0);
	ASSERT(frame(sender, 0), 0);
	EXPECT(positions_of(sender).generation, (UINT64_C(1) << 53) - 1);

	ipc_inbox_sender_close(sender);
}

/* I-9 */
Test(inbox, generation_again_does_not_go_back)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);

	ASSERT(snapshot(sender, G1, 10), 0);
	ASSERT(frame(sender, 10), 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	EXPECT(ipc_inbox_end_snapshot(sender, 10), IPC_EINVAL);
	EXPECT(ipc_inbox_end_snapshot_wait(sender, 10, NULL), IPC_EINVAL);
	ASSERT(ipc_inbox_end_snapshot(sender, 11), 0);
	ASSERT(frame(sender, 11), 0);

	/* Another one may. */
	ASSERT(snapshot(sender, G2, 3), 0);
	ASSERT(frame(sender, 3), 0);
	EXPECT(positions_of(sender).written, 4);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-14 */
Test(inbox, calls_out_of_place_are_refused)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	int fd = file_new(1);

	for (unsigned i = 0; i < 2; ++i) {
		EXPECT(chunk(sender, 1), IPC_EINVAL);
		EXPECT(ipc_inbox_send_chunk_wait(sender, "x", 1, NULL), IPC_EINVAL);
		EXPECT(ipc_inbox_send_chunk_fd(sender, fd, 0, 1), IPC_EINVAL);
		EXPECT(ipc_inbox_end_snapshot(sender, 1), IPC_EINVAL);
		EXPECT(ipc_inbox_end_snapshot_wait(sender, 1, NULL), IPC_EINVAL);
		EXPECT(ipc_inbox_abort_snapshot(sender), IPC_EINVAL);
		ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
		EXPECT(frame(sender, 1), IPC_EINVAL);
		EXPECT(frame_in(sender, 1, WAIT_MS), IPC_EINVAL);
		ASSERT(ipc_inbox_end_snapshot(sender, 1), 0);
	}
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(1));
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), END(1));
	EXPECT(eat(receiver), IPC_EAGAIN);

	close(fd);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-2, I-14 */
Test(inbox, second_begin_aborts_the_first)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(chunk(sender, 1), 0);
	ASSERT(snapshot(sender, G2, 5), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), CHUNK(1));
	EXPECT(eat(receiver), ABORT(RESTARTED));
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(eat(receiver), CHUNK(5));
	EXPECT(eat(receiver), END(5));
	EXPECT(positions_of(sender).applied, 5);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-2, I-14 */
Test(inbox, aborted_snapshot_leaves_the_state_before_it)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);

	ASSERT(snapshot(sender, G1, 5), 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ASSERT(chunk(sender, 1), 0);
	ASSERT(ipc_inbox_abort_snapshot(sender), 0);
	EXPECT(positions_of(sender).generation, G1);
	EXPECT(positions_of(sender).written, 5);
	ASSERT(frame(sender, 5), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_expect_gt(eat(receiver), 0);
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(eat(receiver), CHUNK(1));
	EXPECT(eat(receiver), ABORT(ABORTED));
	EXPECT(eat(receiver), FRAME(5));
	EXPECT(positions_of(sender).applied, 6);
	EXPECT(positions_of(sender).applied_generation, G1);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* ---- memory ---- */

/* M-71, M-72 */
Test(inbox, frames_are_aligned_and_may_be_empty)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event[6];

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(ipc_inbox_send_chunk(sender, NULL, 0), 0);
	ASSERT(ipc_inbox_send_chunk(sender, "abc", 3), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, 0), 0);
	ASSERT(ipc_inbox_send_frame(sender, 0, NULL, 0), 0);
	ASSERT(ipc_inbox_send_frame(sender, 1, "hello", 5), 0);
	ASSERT(ipc_inbox_receive_many(receiver, event, 6), 6);
	cr_expect_null(event[1].data);
	EXPECT(event[1].size, 0);
	cr_expect_null(event[4].data);
	for (unsigned i = 2; i < 6; i += 3)
		EXPECT((uintptr_t)event[i].data % 16, 0);
	cr_expect_arr_eq(event[2].data, "abc", 3);
	cr_expect_arr_eq(event[5].data, "hello", 5);
	for (unsigned i = 0; i < 6; ++i)
		EXPECT(event[i].fd, -1);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* M-76 */
Test(inbox, largest_frame_and_chunk_pass_and_one_more_is_refused)
{
	enum { MAX = 1000 };
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096, .frame_size_max = MAX);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	unsigned char bytes[MAX + 1];
	struct ipc_inbox_event event;
	void *data = NULL;

	memset(bytes, 'b', sizeof(bytes));
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	EXPECT(ipc_inbox_send_chunk(sender, bytes, MAX + 1), IPC_EMSGSIZE);
	EXPECT(ipc_inbox_send_chunk_wait(sender, bytes, MAX + 1, NULL), IPC_EMSGSIZE);
	ASSERT(ipc_inbox_send_chunk(sender, bytes, MAX), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, 0), 0);
	EXPECT(ipc_inbox_send_frame(sender, 0, bytes, MAX + 1), IPC_EMSGSIZE);
	EXPECT(ipc_inbox_claim_frame(sender, MAX + 1, &data), IPC_EMSGSIZE);
	EXPECT(ipc_inbox_claim_frame(sender, SIZE_MAX, &data), IPC_EMSGSIZE);
	cr_expect_null(data);
	ASSERT(ipc_inbox_send_frame(sender, 0, bytes, MAX), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	for (unsigned i = 0; i < 3; ++i) {
		ASSERT(ipc_inbox_receive(receiver, &event), 0);
		if (event.type != IPC_INBOX_END) {
			EXPECT(event.size, MAX);
			cr_expect_arr_eq(event.data, bytes, MAX);
		}
	}

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-11: a snapshot may be larger than the ring; many laps. */
Test(inbox, snapshot_may_be_larger_than_the_capacity)
{
	enum { CHUNKS = 500 };
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	static unsigned char bytes[900];
	struct ipc_inbox_event event;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	for (unsigned i = 0; i < CHUNKS; ++i) {
		memset(bytes, (int)i, sizeof(bytes));
		ASSERT(ipc_inbox_send_chunk(sender, bytes, i), 0);
		ASSERT(ipc_inbox_receive(receiver, &event), 0);
		cr_assert_eq(event.size, i);
		if (i > 0)
			cr_assert_arr_eq(event.data, bytes, i);
		ASSERT(ipc_inbox_mark_applied(receiver, &event), 0);
	}
	ASSERT(ipc_inbox_end_snapshot(sender, 0), 0);
	EXPECT(eat(receiver), END(0));
	EXPECT(positions_of(sender).depth, 0);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* ---- marks ---- */

/* I-11 */
Test(inbox, mark_applied_is_cumulative)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event[8];

	ASSERT(snapshot(sender, G1, 10), 0);
	for (uint32_t i = 10; i < 15; ++i)
		ASSERT(frame(sender, i), 0);
	ASSERT(ipc_inbox_receive_many(receiver, event, 8), 8);
	EXPECT(positions_at(receiver).received, 15);
	EXPECT(positions_at(receiver).applied, 0);
	ASSERT(ipc_inbox_mark_applied(receiver, &event[4]), 0);
	EXPECT(positions_at(receiver).applied, 12);
	EXPECT(positions_at(receiver).applied_generation, G1);

	/* Not held any more; a copy is as good. */
	ASSERT(ipc_inbox_mark_applied(receiver, &event[1]), 0);
	ASSERT(ipc_inbox_mark_applied(receiver, &event[4]), 0);
	EXPECT(positions_at(receiver).applied, 12);
	EXPECT(event_number(&event[6]), FRAME(13));
	ASSERT(ipc_inbox_mark_applied(receiver, &(struct ipc_inbox_event){.token = event[7].token}),
	       0);
	EXPECT(positions_at(receiver).applied, 15);
	EXPECT(positions_at(receiver).depth, 0);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-11: only END and FRAME move it; ABORT may be marked. */
Test(inbox, chunks_and_aborts_do_not_move_applied)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);

	ASSERT(snapshot(sender, G1, 10), 0);
	for (unsigned i = 0; i < 3; ++i)
		ASSERT(eat(receiver) > 0, true);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ASSERT(chunk(sender, 1), 0);
	EXPECT(eat(receiver), BEGIN(G2));
	EXPECT(positions_at(receiver).applied, 10);
	EXPECT(eat(receiver), CHUNK(1));
	EXPECT(positions_at(receiver).applied, 10);
	ASSERT(ipc_inbox_abort_snapshot(sender), 0);
	EXPECT(eat(receiver), ABORT(ABORTED));
	EXPECT(positions_at(receiver).applied, 10);
	EXPECT(positions_at(receiver).applied_generation, G1);
	EXPECT(positions_at(receiver).depth, 0);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-11 */
Test(inbox, event_of_another_receiver_handle_is_stale)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event[4];

	ASSERT(snapshot(sender, G1, 10), 0);
	ASSERT(frame(sender, 10), 0);
	ASSERT(ipc_inbox_receive_many(receiver, event, 4), 4);
	ASSERT(ipc_inbox_mark_applied(receiver, &event[2]), 0);
	ipc_inbox_receiver_close(receiver);
	receiver = RECEIVER_NEW(0);
	EXPECT(ipc_inbox_mark_applied(receiver, &event[3]), IPC_ESTALE);
	EXPECT(ipc_inbox_mark_applied(receiver, &event[2]), IPC_ESTALE);
	EXPECT(positions_at(receiver).applied, 10);
	EXPECT(eat(receiver), FRAME(10));

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* M-76 */
Test(inbox, number_of_events_is_cut)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	static struct ipc_inbox_event event[IPC_MANY_MAX + 1];

	ASSERT(snapshot(sender, G1, 0), 0);
	for (uint32_t i = 0; i < IPC_MANY_MAX; ++i)
		ASSERT(frame(sender, i), 0);
	EXPECT(ipc_inbox_receive_many(receiver, event, 0), IPC_EINVAL);
	EXPECT(ipc_inbox_receive_many_wait(receiver, event, 0, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_receive_many(receiver, event, IPC_MANY_MAX + 1), IPC_MANY_MAX);
	EXPECT(ipc_inbox_receive_many_wait(receiver, event, UINT32_MAX, NULL), 3);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* ---- arguments ---- */

/* M-74 */
Test(inbox, wrong_arguments_are_refused)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	const struct timespec bad = {.tv_nsec = 1000000000};
	struct ipc_inbox_positions positions = {.size = 7};
	struct ipc_inbox_event event;
	void *data = &event;

	ASSERT(snapshot(sender, G1, 0), 0);
	EXPECT(ipc_inbox_send_frame(sender, 0, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_inbox_send_frame_wait(sender, 0, NULL, 1, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_send_frame_wait(sender, 0, "x", 1, &bad), IPC_EINVAL);
	EXPECT(ipc_inbox_send_chunk(sender, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_inbox_send_chunk_fd(sender, -1, 0, 1), IPC_EINVAL);
	EXPECT(ipc_inbox_claim_frame(sender, 1, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_wanted_wait(sender, NULL, &past), IPC_EINVAL);
	EXPECT(ipc_inbox_applied_wait(sender, 0, &bad), IPC_EINVAL);
	EXPECT(ipc_inbox_get_positions(sender, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_get_positions(sender, &positions), IPC_EINVAL);
	EXPECT(ipc_inbox_receiver_get_positions(receiver, &positions), IPC_EINVAL);
	EXPECT(ipc_inbox_receive(receiver, NULL), IPC_EINVAL);
	EXPECT(ipc_inbox_receive_wait(receiver, &event, &bad), IPC_EINVAL);
	EXPECT(ipc_inbox_mark_applied(receiver, NULL), IPC_EINVAL);

	/* Handles. */
	EXPECT(ipc_inbox_receive(NULL, &event), IPC_EINVAL);
	EXPECT(ipc_inbox_receive((ipc_inbox_receiver *)sender, &event), IPC_EINVAL);
	EXPECT(frame(NULL, 0), IPC_EINVAL);
	EXPECT(frame((ipc_inbox_sender *)receiver, 0), IPC_EINVAL);
	EXPECT(ipc_inbox_claim_frame((ipc_inbox_sender *)receiver, 1, &data), IPC_EINVAL);
	cr_expect_eq(data, &event);
	EXPECT(ipc_inbox_observer_get_positions((ipc_inbox_observer *)sender, &positions),
	       IPC_EINVAL);
	cr_expect_null(ipc_inbox_sender_close(NULL));
	cr_expect_null(ipc_inbox_receiver_close(NULL));
	cr_expect_null(ipc_inbox_observer_close(NULL));

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* M-46 */
Test(inbox, positions_are_written_as_far_as_the_caller_has_room)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	struct {
		struct ipc_inbox_positions known;
		uint64_t more;
	} large = {.known.size = sizeof(large), .more = 5};
	struct ipc_inbox_positions small = {.size = offsetof(struct ipc_inbox_positions, received),
					    .received = 77};

	ASSERT(snapshot(sender, G1, 10), 0);
	ASSERT(ipc_inbox_get_positions(sender, &large.known), 0);
	EXPECT(large.known.written, 10);
	EXPECT(large.known.size, sizeof(large));
	EXPECT(large.more, 5);
	ASSERT(ipc_inbox_get_positions(sender, &small), 0);
	EXPECT(small.written, 10);
	EXPECT(small.received, 77);

	ipc_inbox_sender_close(sender);
}

/* I-6: both ends, and by ipcctl (I-5). */
Test(inbox, depth_is_told_to_everybody)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 8192);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_positions positions;
	struct ipc_channel_info info;
	uint64_t most;

	ASSERT(snapshot(sender, G1, 0), 0);
	for (uint32_t i = 0; i < 20; ++i)
		ASSERT(frame(sender, i), 0);
	positions = positions_of(sender);
	most = positions.depth;
	cr_expect_geq(most, 20 * 32);
	EXPECT(positions.depth_max, most);
	while (eat(receiver) > 0)
		;
	positions = positions_at(receiver);
	EXPECT(positions.depth, 0);
	EXPECT(positions.depth_max, most);

	/* I-5 */
	ASSERT(info_of(NAME, &info), 0);
	EXPECT(info.kind, IPC_KIND_INBOX);
	EXPECT(info.capacity, 8192);
	EXPECT(info.item_size_max, 2048);
	EXPECT(info.depth, 0);
	EXPECT(info.depth_max, most);
	EXPECT(info.handles[0], 1);
	EXPECT(info.handles[1], 1);

	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}
