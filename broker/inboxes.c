/* SPDX-License-Identifier: MIT */
#include "broker/inboxes.h"

#include "broker/segments.h"
#include "libipc/channel/inbox.h"

/*
 * Death: looking changes nothing.
 */

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
