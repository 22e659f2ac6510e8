/* SPDX-License-Identifier: MIT */
#include "broker/inboxes.h"

#include "broker/segments.h"
#include "libipc/channel/inbox.h"

/*
 * Death: looking changes nothing.
 */

/* Until the structure is linked: as much as it needs at most. */
__attribute__((weak)) uint64_t inbox_segment_size(const uint64_t shape[4])
{
	uint64_t capacity = shape[0], record_max = shape[1] > 24 ? shape[1] : 24;
	uint64_t data;

	if (capacity < 4096 || capacity > RING_CAPACITY_MAX || shape[1] < 1 ||
	    shape[1] > capacity / 4 || shape[2] > IPC_INBOX_FULL_COLLAPSE || shape[3] != 0)
		return 0;

	data = ring_data_size(capacity, record_max);
	return data == 0 ? 0 : INBOX_SHARED_OFFSET + sizeof(struct inbox_shared) + data + 64;
}

static uint64_t ring_peek_word(const struct channel *channel, uint64_t offset)
{
	return segments_peek(channel->segment_fd,
			     INBOX_SHARED_OFFSET + offsetof(struct inbox_shared, ring) + offset);
}

struct inboxes_depth inboxes_depth(const struct channel *channel)
{
	uint64_t capacity = channel->record->shape[0];
	uint64_t tail, head, units_max;
	struct inboxes_depth depth;

	/* The tail first: what is released meanwhile makes it look fuller, never negative. */
	tail = ring_position(ring_peek_word(channel, offsetof(struct ring, tail)));
	head = ring_position(ring_peek_word(channel, offsetof(struct ring, head)));
	units_max = ring_peek_word(channel, offsetof(struct ring, depth_max));

	depth.now = ring_distance(tail, head) * RING_UNIT;
	if (depth.now > capacity)
		depth.now = capacity;

	depth.ever = units_max < capacity / RING_UNIT ? units_max * RING_UNIT : capacity;
	if (depth.ever < depth.now)
		depth.ever = depth.now;
	return depth;
}
