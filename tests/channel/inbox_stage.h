/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CHANNEL_INBOX_STAGE_H
#define TESTS_CHANNEL_INBOX_STAGE_H

/*
 * Two ends of an inbox on one mapping, and somebody who has neither.  What the tests of the rules
 * say of them.
 */

#include "libipc/channel/inbox.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/support/inbox_scene.h"

enum { CAPACITY = 4096, LARGEST = 1024, GENERATION = 7, FIRST = 100 };

static struct inbox_scene scene;
static struct inbox_sender sender;
static struct inbox_receiver receiver;
static struct inbox observer; /* who has neither end */
static unsigned handle, sender_handle, receiver_handle;

static inline void enter_sender(struct inbox_sender *who)
{
	inbox_scene_send(&scene, who, sender_handle = ++handle);
}

static inline void enter_receiver(struct inbox_receiver *who)
{
	inbox_scene_receive(&scene, who, receiver_handle = ++handle);
}

static inline void begin(enum ipc_inbox_full full)
{
	const uint64_t shape[4] = INBOX_SHAPE(CAPACITY, LARGEST, full);

	inbox_scene_init(&scene, shape);
	inbox_scene_attach(&scene, &observer, INBOX_SIDE_RECEIVER, ++handle);
	enter_sender(&sender);
	enter_receiver(&receiver);
}

static inline void setup(void)
{
	begin(IPC_INBOX_FULL_FAIL);
}

static inline void setup_collapses(void)
{
	begin(IPC_INBOX_FULL_COLLAPSE);
}

static inline void teardown(void)
{
	inbox_leave_sender(&sender);
	inbox_leave_receiver(&receiver);
	inbox_scene_deinit(&scene);
}

#define expect_done(call) cr_assert_eq(call, 0)

/* ---- both ends ---- */

static inline int frame_of(uint64_t offset, uint64_t size)
{
	static unsigned char bytes[LARGEST];

	pattern_fill(bytes, size, offset);
	return inbox_send_frame(&sender, offset, bytes, size, true);
}

static inline int frame(uint64_t offset)
{
	return frame_of(offset, 16);
}

static inline void send_snapshot(uint64_t generation, uint64_t next_offset)
{
	expect_done(inbox_begin_snapshot(&sender, generation, true));
	expect_done(inbox_send_chunk(&sender, "state", 5, true));
	expect_done(inbox_end_snapshot(&sender, next_offset, true));
}

static inline struct ipc_inbox_event next(enum ipc_inbox_event_type type)
{
	struct ipc_inbox_event event = {.fd = -1};
	int r = inbox_receive_many(&receiver, &event, 1, 0);

	cr_assert_eq(r, 1, "nothing came: %d", r);
	cr_assert_eq(event.type, type, "event %u, not %u", event.type, type);
	return event;
}

static inline struct ipc_inbox_event next_frame(uint64_t offset)
{
	struct ipc_inbox_event event = next(IPC_INBOX_FRAME);

	cr_assert_eq(event.offset, offset);
	cr_assert_eq(inbox_scene_number(event.data, event.size), offset);
	return event;
}

static inline void next_abort(enum ipc_inbox_reason reason)
{
	struct ipc_inbox_event event = next(IPC_INBOX_ABORT);

	cr_assert_eq(event.reason, reason, "reason %u, not %u", event.reason, reason);
}

static inline int receive(void)
{
	struct ipc_inbox_event event;

	return inbox_receive_many(&receiver, &event, 1, 0);
}

static inline void expect_nothing(void)
{
	cr_assert_eq(receive(), IPC_EAGAIN);
}

static inline void apply(struct ipc_inbox_event event)
{
	expect_done(inbox_mark_applied(&receiver, &event));
}

static inline void apply_snapshot(void)
{
	(void)next(IPC_INBOX_BEGIN);
	(void)next(IPC_INBOX_CHUNK);
	apply(next(IPC_INBOX_END));
}

static inline struct ipc_inbox_positions positions(void)
{
	return inbox_scene_positions(&observer);
}

static inline void expect_positions(uint64_t written, uint64_t received, uint64_t applied)
{
	struct ipc_inbox_positions at = positions();

	cr_assert_eq(at.written, written, "written: %lu", (unsigned long)at.written);
	cr_assert_eq(at.received, received, "received: %lu", (unsigned long)at.received);
	cr_assert_eq(at.applied, applied, "applied: %lu", (unsigned long)at.applied);
}

/* A snapshot that was applied; the next frame is FIRST. */
static inline void start(void)
{
	send_snapshot(GENERATION, FIRST);
	apply_snapshot();
}

static inline void change_sender(void)
{
	inbox_scene_end(&scene, sender_handle);
	enter_sender(&sender);
}

static inline void change_receiver(void)
{
	inbox_scene_end(&scene, receiver_handle);
	inbox_leave_receiver(&receiver);
	enter_receiver(&receiver);
}

/* How many frames had room. */
static inline uint64_t fill(uint64_t offset)
{
	uint64_t n = 0;

	while (frame_of(offset + n, LARGEST / 2) == 0)
		++n;
	return n;
}

static inline void send_half(void)
{
	expect_done(inbox_begin_snapshot(&sender, GENERATION + 1, true));
	expect_done(inbox_send_chunk(&sender, "half", 4, true));
}

/* All that was sent of it, its ABORT, and nothing of it counts. */
static inline void expect_aborted(enum ipc_inbox_reason reason)
{
	(void)next(IPC_INBOX_BEGIN);
	(void)next(IPC_INBOX_CHUNK);
	next_abort(reason);
	expect_positions(FIRST, FIRST, FIRST);
	cr_assert_eq(positions().generation, GENERATION);
}

#endif
