/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_INBOX_CAST_H
#define TESTS_SUPPORT_INBOX_CAST_H

/*
 * Two ends of an inbox, one of which is played by a child that is stopped or killed: what was sent
 * before, who goes on after it, and what must have come of it.
 */

#include <criterion/criterion.h>

#include "tests/support/inbox_replica.h"
#include "tests/support/inbox_scene.h"

enum { CAST_CAPACITY = 4096, CAST_LARGEST = 1024, CAST_SIZE = 200, CAST_TURNS = 40 };

/* Handles. */
enum { CAST_FIRST_SENDER = 1, CAST_FIRST_RECEIVER, CAST_VICTIM, CAST_HEIR };

/* In shared memory. */
struct inbox_cast {
	struct inbox_state primary, lasting;
	struct inbox_replica replica; /* of whoever receives */
	uint64_t number;              /* of the frame that is being sent; 0: of none */
	_Atomic uint64_t result, is_done;
};

static struct inbox_scene scene;
static struct inbox_cast *cast;
static struct inbox_sender sender, heir_sender;       /* of the parent */
static struct inbox_receiver receiver, heir_receiver; /* the same */
static unsigned next_handle;

static inline const void *cast_bytes(uint64_t number, uint64_t size)
{
	static unsigned char bytes[CAST_LARGEST];

	pattern_fill(bytes, size, number);
	return bytes;
}

static inline void cast_must(int r, const char *what)
{
	if (r < 0)
		(void)fprintf(stderr, "%s: %d\n", what, r);
	inbox_scene_must(r >= 0, what);
}

static inline int cast_frame(struct inbox_sender *by, uint64_t number, bool waits)
{
	int r;

	cast->number = number;
	r = inbox_send_frame(by, cast->primary.offset, cast_bytes(number, CAST_SIZE), CAST_SIZE,
			     waits);
	if (r == 0) {
		cast->primary.value =
			inbox_replica_change(cast->primary.value, number, cast->primary.offset);
		++cast->primary.offset;
	}
	cast->number = 0;
	return r;
}

/* Chunks whose sum is the primary's state. */
static inline int cast_chunks(struct inbox_sender *by, unsigned n)
{
	uint64_t sum = cast->primary.value;
	int r = 0;

	for (unsigned i = 1; i < n && r == 0; ++i) {
		sum ^= i * 12345;
		r = inbox_send_chunk(by, cast_bytes(i * 12345, CAST_SIZE), CAST_SIZE, true);
	}
	return r < 0 ? r : inbox_send_chunk(by, cast_bytes(sum, CAST_SIZE), CAST_SIZE, true);
}

static inline int cast_snapshot(struct inbox_sender *by, uint64_t generation, unsigned n)
{
	int r = inbox_begin_snapshot(by, generation, true);

	if (r == 0)
		r = cast_chunks(by, n);
	return r < 0 ? r : inbox_end_snapshot(by, cast->primary.offset, true);
}

/* The first two, and a snapshot with three frames between them that were applied. */
static inline void cast_make(enum ipc_inbox_full full)
{
	const uint64_t shape[4] = INBOX_SHAPE(CAST_CAPACITY, CAST_LARGEST, full);

	if (!cast) {
		cast = inbox_scene_map(sizeof(*cast));
		inbox_scene_init(&scene, shape);
	} else {
		inbox_replica_forget(&cast->replica);
		inbox_scene_reset(&scene);
	}
	memset((void *)cast, 0, sizeof(*cast));
	next_handle = CAST_HEIR;
	cast->primary.offset = 100;
	inbox_scene_send(&scene, &sender, CAST_FIRST_SENDER);
	inbox_scene_receive(&scene, &receiver, CAST_FIRST_RECEIVER);
	inbox_replica_begin(&cast->replica, &cast->lasting, &receiver);
	cast_must(cast_snapshot(&sender, 7, 2), "snapshot");
	for (uint64_t i = 1; i <= 3; ++i)
		cast_must(cast_frame(&sender, i, true), "frame");
	cast_must(inbox_replica_receive(&cast->replica, 64, 0), "receive");
	cast_must(inbox_replica_mark(&cast->replica, cast->replica.n_held), "mark");
}

/* So many frames that none has room. */
static inline void cast_fill(struct inbox_sender *by)
{
	uint64_t number = 1000;

	while (cast_frame(by, ++number, true) == 0)
		;
}

/* A child that was killed in the middle of a frame may have sent it. */
static inline void cast_reconcile(const struct inbox *inbox)
{
	struct ipc_inbox_positions at = inbox_scene_positions(inbox);

	if (cast->number != 0 && at.written == cast->primary.offset + 1) {
		cast->primary.value = inbox_replica_change(cast->primary.value, cast->number,
							   cast->primary.offset);
		++cast->primary.offset;
	}
	cast->number = 0;
}

/* Who comes after the victim. */
static inline void cast_inherit_sender(long n, uint32_t process)
{
	int r = inbox_scene_try_sender(&scene, &heir_sender, next_handle++, process);

	cr_assert_eq(r, 0, "instruction %ld: the next sender: %d", n, r);
}

static inline void cast_inherit_receiver(long n)
{
	int r = inbox_scene_try_receiver(&scene, &heir_receiver, next_handle++, 0);

	cr_assert_eq(r, 0, "instruction %ld: the next receiver: %d", n, r);
	inbox_replica_begin(&cast->replica, &cast->lasting, &heir_receiver);
}

static inline void cast_drain(long n)
{
	int r;

	do {
		cr_assert_null(cast->replica.wrong, "instruction %ld: %s", n, cast->replica.wrong);
		r = inbox_replica_mark(&cast->replica, cast->replica.n_held);
		cr_assert_eq(r, 0, "instruction %ld: mark: %d", n, r);
		cr_assert_null(cast->replica.wrong, "instruction %ld: %s", n, cast->replica.wrong);
	} while ((r = inbox_replica_receive(&cast->replica, 64, 0)) > 0);
	cr_assert_eq(r, IPC_EAGAIN, "instruction %ld: receive: %d", n, r);
}

static inline void cast_expect_positions(long n, const struct inbox *inbox)
{
	struct ipc_inbox_positions at = inbox_scene_positions(inbox);

	if (at.generation != 0 && at.generation == at.applied_generation)
		cr_assert(at.applied <= at.received && at.received <= at.written,
			  "instruction %ld: written %lu, received %lu, applied %lu", n,
			  (unsigned long)at.written, (unsigned long)at.received,
			  (unsigned long)at.applied);
	cr_assert_leq(at.depth, CAST_CAPACITY);
}

/* Both serve each other until the replica is what the primary is, and no longer than a while. */
static inline void cast_settle(long n, struct inbox_sender *by)
{
	unsigned i;

	for (i = 0; i < CAST_TURNS; ++i) {
		struct ipc_inbox_positions at;
		int r = 0;

		cast_expect_positions(n, &by->inbox);
		cast_drain(n);
		if (by->is_inside || inbox_is_requested(by))
			r = cast_snapshot(by, 1000 + i, 2);
		cr_assert(r == 0 || r == IPC_EAGAIN || r == IPC_EOVERFLOW,
			  "instruction %ld: snapshot: %d", n, r);
		at = inbox_scene_positions(&by->inbox);
		cr_assert_eq(at.written, cast->primary.offset,
			     "instruction %ld: written %lu not %lu", n, (unsigned long)at.written,
			     (unsigned long)cast->primary.offset);
		if (r == 0 && !inbox_is_requested(by) && at.applied == at.written &&
		    at.applied_generation == at.generation && at.depth == 0)
			break;
	}
	cr_assert_lt(i, CAST_TURNS, "instruction %ld: it does not come to rest", n);
	cr_assert_eq(cast->lasting.value, cast->primary.value,
		     "instruction %ld: the replica is not what the primary is", n);
	cr_assert_eq(cast->lasting.offset, cast->primary.offset, "instruction %ld", n);
	cr_assert_eq(header_fault(scene.segment), 0, "instruction %ld: broken", n);

	for (uint64_t k = 0; k < 3; ++k)
		cr_assert_eq(cast_frame(by, 50 + k, true), 0, "instruction %ld", n);
	cast_drain(n);
	cr_assert_eq(cast->lasting.value, cast->primary.value, "instruction %ld: after it", n);
}

#endif
