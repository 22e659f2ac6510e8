/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_INBOX_REPLICA_H
#define TESTS_SUPPORT_INBOX_REPLICA_H

/*
 * What an inbox is for: a primary, whose state is changed by frames and told as a whole by
 * snapshots, and a replica, that is what it was told.  Each event is checked to be one that may
 * come where the receiver is; in the end the replica has to be what the primary is.
 */

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "libipc/platform/fdpass.h"
#include "tests/support/inbox_scene.h"

/* What lasts; of the primary, what its last frame or END left. */
struct inbox_state {
	uint64_t generation, offset, value;
};

static inline uint64_t inbox_replica_change(uint64_t value, uint64_t number, uint64_t offset)
{
	value = (value ^ number) * UINT64_C(0x9e3779b97f4a7c15) + offset;
	return value ^ value >> 29;
}

enum { INBOX_REPLICA_HELD_MAX = 512 };

/* What the receiver's process knows.  Its memory; `lasting` is not. */
struct inbox_replica {
	struct inbox_state *lasting;
	struct inbox_receiver *receiver;

	/* By what was received. */
	bool is_inside, is_lost, has_begun;
	uint64_t expected, generation, begun;
	const char *wrong; /* not NULL: what must not have come */

	/* Received, and not marked; `staged` by what was applied of them. */
	struct ipc_inbox_event held[INBOX_REPLICA_HELD_MAX];
	unsigned n_held, n_applied;
	uint64_t staged;

	uint64_t n_events[8];
	uint64_t n_reasons[8];
};

/* Whoever begins at the receiver's end, by the positions that stand there. */
static inline void inbox_replica_begin(struct inbox_replica *replica, struct inbox_state *lasting,
				       struct inbox_receiver *receiver)
{
	struct ipc_inbox_positions at = inbox_scene_positions(&receiver->inbox);

	*replica = (struct inbox_replica){
		.lasting = lasting,
		.receiver = receiver,
		.expected = at.applied,
		.generation = at.applied_generation,
	};
}

static inline void inbox_replica_must(struct inbox_replica *replica, bool holds, const char *what)
{
	if (!holds && !replica->wrong)
		replica->wrong = what;
}

/* May it come, and where is the receiver after it? */
static inline void inbox_replica_see(struct inbox_replica *replica,
				     const struct ipc_inbox_event *event)
{
	++replica->n_events[event->type & 7];
	++replica->n_reasons[event->reason & 7];
	switch (event->type) {
	case IPC_INBOX_BEGIN:
		inbox_replica_must(replica, !replica->is_inside, "BEGIN inside of a snapshot");
		inbox_replica_must(replica, event->generation != 0, "BEGIN of no generation");
		replica->is_inside = replica->has_begun = true;
		replica->begun = event->generation;
		break;
	case IPC_INBOX_CHUNK:
		inbox_replica_must(replica, replica->is_inside, "CHUNK outside");
		inbox_replica_must(replica, event->generation == replica->begun,
				   "CHUNK of another generation");
		break;
	case IPC_INBOX_END:
		inbox_replica_must(replica, replica->is_inside, "END outside");
		inbox_replica_must(replica, event->generation == replica->begun,
				   "END of another generation");
		replica->is_inside = replica->is_lost = false;
		replica->generation = event->generation;
		replica->expected = event->offset;
		break;
	case IPC_INBOX_FRAME:
		inbox_replica_must(replica, !replica->is_inside, "FRAME inside of a snapshot");
		inbox_replica_must(replica, !replica->is_lost, "FRAME after what was lost");
		inbox_replica_must(replica, event->generation == replica->generation,
				   "FRAME of another generation");
		inbox_replica_must(replica, event->offset == replica->expected,
				   "FRAME of another offset");
		++replica->expected;
		break;
	case IPC_INBOX_ABORT:
		inbox_replica_must(replica,
				   replica->is_inside ||
					   (event->reason == IPC_INBOX_RECEIVER_CHANGED &&
					    !replica->has_begun),
				   "ABORT outside");
		inbox_replica_must(replica,
				   !replica->is_inside || event->generation == replica->begun,
				   "ABORT of another generation");
		if (event->reason == IPC_INBOX_RECEIVER_CHANGED)
			replica->is_lost = true;
		replica->is_inside = false;
		break;
	case IPC_INBOX_GAP:
		inbox_replica_must(replica, event->reason == IPC_INBOX_COLLAPSED,
				   "a GAP that nobody made");
		inbox_replica_must(replica, !replica->is_inside, "GAP inside of a snapshot");
		replica->is_lost = true;
		break;
	}
}

/* How many came, or what inbox_receive_many() says. */
static inline int inbox_replica_receive(struct inbox_replica *replica, unsigned n, int sender_end)
{
	struct ipc_inbox_event *next = &replica->held[replica->n_held];
	int r;

	if (n > INBOX_REPLICA_HELD_MAX - replica->n_held)
		n = INBOX_REPLICA_HELD_MAX - replica->n_held;
	if (n == 0)
		return IPC_EAGAIN;
	r = inbox_receive_many(replica->receiver, next, n, sender_end);
	for (int i = 0; i < r; ++i)
		inbox_replica_see(replica, &next[i]);
	if (r > 0)
		replica->n_held += (unsigned)r;
	return r;
}

static inline uint64_t inbox_replica_number(struct inbox_replica *replica,
					    const struct ipc_inbox_event *event)
{
	unsigned char bytes[8];
	uint64_t number;

	if (event->fd < 0) {
		number = inbox_scene_number(event->data, event->size);
		inbox_replica_must(replica, number != UINT64_MAX - 1, "damaged bytes");
		return number;
	}
	inbox_replica_must(replica,
			   pread(event->fd, bytes, sizeof(bytes), (off_t)event->offset) == 8,
			   "a descriptor without bytes");
	return inbox_scene_number(bytes, sizeof(bytes));
}

/* To what lasts.  What was applied before comes again, and is known by its offset. */
static inline void inbox_replica_apply_one(struct inbox_replica *replica,
					   struct ipc_inbox_event *event)
{
	struct inbox_state *lasting = replica->lasting;

	switch (event->type) {
	case IPC_INBOX_BEGIN:
		replica->staged = 0;
		break;
	case IPC_INBOX_CHUNK:
		replica->staged ^= inbox_replica_number(replica, event);
		break;
	case IPC_INBOX_END:
		*lasting = (struct inbox_state){event->generation, event->offset, replica->staged};
		break;
	case IPC_INBOX_FRAME:
		inbox_replica_must(replica, event->generation == lasting->generation,
				   "a FRAME that the replica cannot apply");
		inbox_replica_must(replica, event->offset <= lasting->offset,
				   "a FRAME is missing to the replica");
		if (event->offset == lasting->offset) {
			lasting->value = inbox_replica_change(lasting->value,
							      inbox_replica_number(replica, event),
							      event->offset);
			++lasting->offset;
		}
		break;
	case IPC_INBOX_ABORT:
	case IPC_INBOX_GAP:
		break;
	}
}

/* The first n of those that are held. */
static inline void inbox_replica_apply(struct inbox_replica *replica, unsigned n)
{
	for (; replica->n_applied < n; ++replica->n_applied)
		inbox_replica_apply_one(replica, &replica->held[replica->n_applied]);
}

/* Applies and marks the first n. */
static inline int inbox_replica_mark(struct inbox_replica *replica, unsigned n)
{
	int r;

	if (n == 0)
		return 0;
	inbox_replica_apply(replica, n);
	r = inbox_mark_applied(replica->receiver, &replica->held[n - 1]);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; ++i)
		(void)fd_close(replica->held[i].fd);
	replica->n_held -= n;
	replica->n_applied = replica->n_applied > n ? replica->n_applied - n : 0;
	memmove(replica->held, replica->held + n, replica->n_held * sizeof(replica->held[0]));
	return 0;
}

/* What its process had goes with it; the descriptors, too. */
static inline void inbox_replica_forget(struct inbox_replica *replica)
{
	for (unsigned i = 0; i < replica->n_held; ++i)
		(void)fd_close(replica->held[i].fd);
	replica->n_held = replica->n_applied = 0;
}

#endif
