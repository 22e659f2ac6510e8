/* SPDX-License-Identifier: MIT */
/*
 * The rules of snapshots in an inbox, by its structure alone.
 */
#include <sys/mman.h>
#include <sys/socket.h>

#include "tests/channel/inbox_stage.h"

#define Case(name) Test(inbox_snapshot, name, .init = setup, .fini = teardown, .timeout = 60)

/* ---- all or nothing ---- */

/* I-2 */
Case(snapshot_comes_as_begin_chunks_and_end)
{
	struct ipc_inbox_event event;

	send_snapshot(GENERATION, FIRST);

	cr_expect_eq(next(IPC_INBOX_BEGIN).generation, GENERATION);
	event = next(IPC_INBOX_CHUNK);
	cr_expect_eq(event.size, 5);
	cr_expect_eq(memcmp(event.data, "state", 5), 0);
	event = next(IPC_INBOX_END);
	cr_expect_eq(event.offset, FIRST);
	cr_expect_eq(event.generation, GENERATION);
}

/* I-2 */
Case(snapshot_is_aborted_by_its_sender)
{
	start();
	send_half();
	expect_done(inbox_abort_snapshot(&sender));

	expect_aborted(IPC_INBOX_ABORTED);
	expect_done(frame(FIRST));
	(void)next_frame(FIRST);
}

/* I-2, I-14 */
Case(snapshot_is_aborted_by_a_new_begin)
{
	start();
	send_half();
	send_half();

	expect_aborted(IPC_INBOX_RESTARTED);
	(void)next(IPC_INBOX_BEGIN);
}

/* ---- what belongs inside ---- */

/* I-14 */
Case(what_belongs_inside_of_a_snapshot_is_refused_outside)
{
	int fd = memfd_create("chunk", MFD_CLOEXEC);

	start();

	cr_expect_eq(inbox_send_chunk(&sender, "", 0, true), IPC_EINVAL);
	cr_expect_eq(inbox_send_chunk_fd(&sender, fd, 0, 1, true), IPC_EINVAL);
	cr_expect_eq(inbox_end_snapshot(&sender, FIRST, true), IPC_EINVAL);
	cr_expect_eq(inbox_abort_snapshot(&sender), IPC_EINVAL);
	(void)fd_close(fd);
}

/* I-1, I-14 */
Case(frame_inside_of_a_snapshot_is_refused)
{
	void *data;

	start();
	expect_done(inbox_begin_snapshot(&sender, GENERATION, true));

	cr_expect_eq(frame(FIRST), IPC_EINVAL);
	cr_expect_eq(inbox_claim_frame(&sender, 8, &data, true), IPC_EINVAL);
}

/* I-14 */
Case(abort_needs_no_room)
{
	start();
	expect_done(inbox_begin_snapshot(&sender, GENERATION, true));
	while (inbox_send_chunk(&sender, "", 0, true) == 0)
		;

	expect_done(inbox_abort_snapshot(&sender));
}

/* I-14: wherever the stream goes past the memory of what is claimed. */
Case(abort_needs_no_room_beside_a_claim)
{
	static const unsigned char bytes[LARGEST];
	struct ipc_inbox_event event;
	void *data;

	start();
	for (unsigned i = 0; i < 400; ++i) {
		uint64_t claimed = 1 + i * 7 % 300, size = i * 13 % 200;

		expect_done(inbox_claim_frame(&sender, claimed, &data, true));
		for (unsigned k = 0; k < 3; ++k) {
			expect_done(inbox_begin_snapshot(&sender, GENERATION + 1, true));
			while (inbox_send_chunk(&sender, bytes, size, true) == 0)
				;
			expect_done(inbox_abort_snapshot(&sender));
			while (inbox_receive_many(&receiver, &event, 1, 0) == 1)
				apply(event);
			send_snapshot(GENERATION, FIRST);
			apply_snapshot();
		}
		expect_done(inbox_abort_frame(&sender, data));
	}
}

/* ---- chunks by descriptor ---- */

/* I-8: no byte of it is in the ring. */
Case(chunk_by_descriptor_takes_no_room_for_its_bytes)
{
	int fd = memfd_create("chunk", MFD_CLOEXEC);
	struct ipc_inbox_event event;
	char bytes[5];

	cr_assert_eq(pwrite(fd, "state", 5, 3), 5);
	expect_done(inbox_begin_snapshot(&sender, GENERATION, true));
	expect_done(inbox_send_chunk_fd(&sender, fd, 3, 100 * CAPACITY, true));
	(void)fd_close(fd);

	cr_expect_lt(positions().depth, 128);
	(void)next(IPC_INBOX_BEGIN);
	event = next(IPC_INBOX_CHUNK);
	cr_assert_geq(event.fd, 0);
	cr_expect_null(event.data);
	cr_expect_eq(event.size, 100 * CAPACITY);
	cr_expect_eq(pread(event.fd, bytes, 5, (off_t)event.offset), 5);
	cr_expect_eq(memcmp(bytes, "state", 5), 0);
	(void)fd_close(event.fd);
}

/* ---- generations ---- */

/* I-9 */
Case(first_thing_is_a_snapshot)
{
	void *data;

	cr_expect_eq(frame(0), IPC_EINVAL);
	cr_expect_eq(inbox_claim_frame(&sender, 8, &data, true), IPC_EINVAL);

	expect_done(inbox_begin_snapshot(&sender, GENERATION, true));
	expect_done(inbox_end_snapshot(&sender, FIRST, true));
	expect_done(frame(FIRST));
}

/* I-9 */
Case(generation_has_53_bits_and_is_not_0)
{
	cr_expect_eq(inbox_begin_snapshot(&sender, 0, true), IPC_EINVAL);
	cr_expect_eq(inbox_begin_snapshot(&sender, UINT64_C(1) << 53, true), IPC_EINVAL);
	send_snapshot((UINT64_C(1) << 53) - 1, FIRST);
	(void)next(IPC_INBOX_BEGIN);
	(void)next(IPC_INBOX_CHUNK);
	cr_expect_eq(next(IPC_INBOX_END).generation, (UINT64_C(1) << 53) - 1);
}

/* I-9 */
Case(present_generation_does_not_go_back)
{
	start();
	expect_done(frame(FIRST));
	expect_done(inbox_begin_snapshot(&sender, GENERATION, true));

	cr_expect_eq(inbox_end_snapshot(&sender, FIRST, true), IPC_EINVAL);
	expect_done(inbox_end_snapshot(&sender, FIRST + 1, true));
	send_snapshot(GENERATION + 1, 0);
}

/* ---- requests ---- */

/* I-10 */
Case(request_stops_frames_until_begin)
{
	uint64_t served = 0;
	void *data;

	start();
	expect_done(frame(FIRST));
	expect_done(inbox_request_snapshot(&receiver));

	cr_expect_eq(positions().snapshot_wanted, 1);
	cr_expect(inbox_is_requested(&sender));
	expect_done(inbox_probe_wanted(&sender, &served));
	cr_expect_eq(served, 1);
	cr_expect_eq(inbox_probe_wanted(&sender, &served), IPC_EAGAIN);
	cr_expect_eq(frame(FIRST + 1), IPC_EOVERFLOW);
	cr_expect_eq(inbox_claim_frame(&sender, 8, &data, true), IPC_EOVERFLOW);

	send_snapshot(GENERATION + 1, 5);
	cr_expect_not(inbox_is_requested(&sender));
	expect_done(frame(5));
	(void)next_frame(FIRST);
	apply_snapshot();
}

/* I-10 */
Case(request_is_not_raised_where_a_begin_is_on_its_way)
{
	start();
	expect_done(inbox_begin_snapshot(&sender, GENERATION + 1, true));

	cr_expect_eq(inbox_request_snapshot(&receiver), 1);
	(void)next(IPC_INBOX_BEGIN);
	cr_expect_eq(inbox_request_snapshot(&receiver), 1);

	cr_expect_eq(positions().snapshot_wanted, 0);
}

/* I-10: and does not grow. */
Case(request_stands_again_if_its_answer_is_aborted)
{
	start();
	expect_done(inbox_request_snapshot(&receiver));
	send_half();
	cr_expect_not(inbox_is_requested(&sender));

	expect_done(inbox_abort_snapshot(&sender));

	cr_expect(inbox_is_requested(&sender));
	cr_expect_eq(frame(FIRST), IPC_EOVERFLOW);
	cr_expect_eq(positions().snapshot_wanted, 1);
}

/* ---- what was lost ---- */

/* The one packet that is there. */
static void lose_descriptor(void)
{
	char packet[64];

	cr_assert_gt(recv(scene.pair[INBOX_SIDE_RECEIVER], packet, sizeof(packet), 0), 0);
}

static void send_snapshot_by_fd(uint64_t generation, uint64_t next_offset)
{
	int fd = memfd_create("chunk", MFD_CLOEXEC);

	expect_done(inbox_begin_snapshot(&sender, generation, true));
	expect_done(inbox_send_chunk_fd(&sender, fd, 0, 1, true));
	expect_done(inbox_end_snapshot(&sender, next_offset, true));
	(void)fd_close(fd);
}

/* I-2, I-6, I-12: nothing of it was applied, also where its room was given back. */
Case(what_follows_a_lost_descriptor_is_not_applied)
{
	start();
	send_snapshot_by_fd(GENERATION, FIRST + 50);
	expect_done(frame(FIRST + 50));
	lose_descriptor();

	apply(next(IPC_INBOX_BEGIN));
	next_abort(IPC_INBOX_ABORTED);
	expect_nothing();
	cr_expect_eq(positions().snapshot_wanted, 1);
	expect_positions(FIRST + 51, FIRST, FIRST);
	cr_expect_eq(inbox_probe_applied(&observer, GENERATION, FIRST + 1), IPC_EAGAIN);

	send_snapshot(GENERATION + 2, 5);
	apply_snapshot();
	expect_positions(5, 5, 5);
}

static void lose_snapshot_and_receiver(bool goes_on)
{
	start();
	send_snapshot_by_fd(GENERATION + 1, FIRST);
	expect_done(frame(FIRST));
	lose_descriptor();
	apply(next(IPC_INBOX_BEGIN));
	next_abort(IPC_INBOX_ABORTED);
	if (goes_on)
		expect_nothing();
	change_receiver();

	next_abort(IPC_INBOX_RECEIVER_CHANGED);
	expect_nothing();
	expect_positions(FIRST + 1, FIRST, FIRST);
	cr_expect_eq(frame(FIRST + 1), IPC_EOVERFLOW);
	send_snapshot(GENERATION + 2, 5);
	apply_snapshot();
	expect_positions(5, 5, 5);
}

/* I-4: nor does the next receiver go on behind it, in another generation. */
Case(what_follows_a_lost_descriptor_is_void_for_the_next_receiver)
{
	lose_snapshot_and_receiver(true);
}

Case(what_follows_a_lost_descriptor_is_void_where_its_receiver_went_at_once)
{
	lose_snapshot_and_receiver(false);
}
