/* SPDX-License-Identifier: MIT */
#include "broker/queues.h"

#include <inttypes.h>

#include "broker/log.h"
#include "broker/segments.h"
#include "libipc/channel/queue.h"
#include "libipc/platform/clock.h"

/*
 * Death: looking changes nothing.  A worker that dies after the line of the log and before the
 * channel is free is followed by one that writes the line again: twice is better than never.
 */

/* Words read at once. */
#define WORDS_PIECE 512

/* Of the sums of what was freed; a distance in a circle (libipc/channel/queue.h). */
#define BYTES_MASK ((UINT64_C(1) << 44) - 1)

/* Of an entry of the ring: {lap 26, use 16, block 20, kind 2} (libipc/core/index_ring.h). */
#define ENTRY_FULL        1
#define ENTRY_BLOCK_SHIFT 2
#define ENTRY_USE_SHIFT   22
#define ENTRY_LAP_SHIFT   38

struct look {
	const struct channel *channel;
	struct queues_budget *budget;
	struct queue_layout layout;
	uint32_t class;
	bool is_less; /* something was not looked at */
	void (*word_fn)(struct look *look, uint32_t block, uint64_t word);

	/* queues_look() */
	struct registry *registry;
	queues_hold_fn hold_fn;
	void *userdata;

	/* queues_rest() */
	struct queues_rest rest;
};

/* ---- blocks ---- */

static uint64_t class_offset(const struct look *look)
{
	return look->layout.first_class + look->class * look->layout.class_size;
}

static uint64_t block_offset(const struct look *look, uint32_t block)
{
	const struct queue_group *group = look->layout.group;

	while (block - group->first >= group->n)
		++group;

	return class_offset(look) + look->layout.blocks + group->distance +
	       (block - group->first) * group->stride;
}

/* The begin of a block. */
struct seen {
	uint64_t position, charge, size, origin, enqueued_ns, since_ns;
};
static_assert(offsetof(struct queue_block, size) == offsetof(struct seen, size) &&
		      offsetof(struct queue_block, since) == offsetof(struct seen, since_ns),
	      "the begin of a block");

static bool block_read(struct look *look, uint32_t block, struct seen *ret)
{
	if (look->budget->n_blocks == 0) {
		look->is_less = true;
		return false;
	}

	--look->budget->n_blocks;
	return segments_read(look->channel->segment_fd, block_offset(look, block), ret,
			     sizeof(*ret));
}

static void look_at_class(struct look *look)
{
	uint64_t offset = class_offset(look) + look->layout.words;
	uint32_t n_blocks = look->layout.items_max;
	uint64_t words[WORDS_PIECE];
	uint32_t first, i, n;

	if (n_blocks > look->budget->n_words) {
		n_blocks = look->budget->n_words;
		look->is_less = true;
	}
	look->budget->n_words -= n_blocks;

	for (first = 0; first < n_blocks; first += n) {
		n = n_blocks - first < WORDS_PIECE ? n_blocks - first : WORDS_PIECE;
		if (!segments_read(look->channel->segment_fd,
				   offset + (uint64_t)first * sizeof(words[0]), words,
				   n * sizeof(words[0])))
			return;

		for (i = 0; i < n; ++i)
			look->word_fn(look, first + i, words[i]);
	}
}

static void look_at_classes(struct look *look)
{
	if (!queue_layout(&look->layout, look->channel->record->shape))
		return;

	for (look->class = 0; look->class < look->layout.n_classes; ++look->class)
		look_at_class(look);
}

/* ---- depth ---- */

static uint64_t freed_sum(const struct channel *channel, uint32_t class)
{
	uint64_t freed[QUEUE_GROUPS_MAX], sum = 0;
	unsigned i;

	if (!segments_read(channel->segment_fd,
			   offsetof(struct queue_segment, class) +
				   class * sizeof(struct queue_class) +
				   offsetof(struct queue_class, freed),
			   freed, sizeof(freed)))
		return 0;

	/* Groups that the layout does not have never freed anything. */
	for (i = 0; i < QUEUE_GROUPS_MAX; ++i)
		sum += freed[i] & BYTES_MASK;
	return sum;
}

struct queues_depth queues_depth(const struct channel *channel)
{
	uint64_t n_classes = channel->record->shape[0] >> 32, bytes_max = channel->record->shape[1];
	struct queues_depth depth = {0};
	uint64_t claimed[2], now, ever; /* claimed and claimed_max */
	uint32_t class;

	static_assert(offsetof(struct queue_class, claimed_max) ==
			      offsetof(struct queue_class, claimed) + sizeof(claimed[0]),
		      "as above");

	for (class = 0; class < n_classes; ++class) {
		if (!segments_read(channel->segment_fd,
				   offsetof(struct queue_segment, class) +
					   class * sizeof(struct queue_class) +
					   offsetof(struct queue_class, claimed),
				   claimed, sizeof(claimed)))
			break;

		now = (claimed[0] - freed_sum(channel, class)) & BYTES_MASK;
		now = now < bytes_max ? now : bytes_max;
		ever = claimed[1] < bytes_max ? claimed[1] : bytes_max;
		depth.now += now;
		depth.ever += ever > now ? ever : now;
	}
	return depth;
}

/* ---- who holds what ---- */

static void look_at_held(struct look *look, uint32_t block, enum ipc_holding holding, uint32_t row)
{
	uint64_t offset = offsetof(struct queue_segment, rows) + offsetof(struct rows, owner) +
			  row * sizeof(uint64_t);
	const struct handle *holder;
	struct seen seen;

	if (!block_read(look, block, &seen))
		return;

	/* A dead one's go back to whoever needs them. */
	holder = registry_handle_on(look->registry, look->channel,
				    segments_peek(look->channel->segment_fd, offset));
	if (holder)
		look->hold_fn(holder, holding, seen.since_ns, look->userdata);
}

static void hold_of_word(struct look *look, uint32_t block, uint64_t word)
{
	if (queue_word_phase(word) == QUEUE_LEASED)
		look_at_held(look, block, IPC_HOLDS_LEASES, queue_word_row(word));
	else if (queue_word_phase(word) == QUEUE_CLAIMED)
		look_at_held(look, block, IPC_HOLDS_CLAIMS, queue_word_row(word));
}

void queues_look(struct registry *registry, const struct channel *channel,
		 struct queues_budget *budget, queues_hold_fn fn, void *userdata)
{
	struct look look = {
		.channel = channel,
		.budget = budget,
		.word_fn = hold_of_word,
		.registry = registry,
		.hold_fn = fn,
		.userdata = userdata,
	};

	look_at_classes(&look);
}

/* ---- what is left ---- */

/* A producer may have died before it committed. */
static bool is_committed(const struct look *look, uint32_t block, uint64_t word, uint64_t position)
{
	uint64_t place = position & (look->layout.ring_size - 1);
	uint64_t lap = position / look->layout.ring_size;
	uint64_t use = queue_word_use(word) & INDEX_RING_USE_MASK;
	uint64_t entry =
		segments_peek(look->channel->segment_fd,
			      class_offset(look) + look->layout.entries + place * sizeof(uint64_t));

	return entry == (lap << ENTRY_LAP_SHIFT | use << ENTRY_USE_SHIFT |
			 (uint64_t)block << ENTRY_BLOCK_SHIFT | ENTRY_FULL);
}

static void rest_of_word(struct look *look, uint32_t block, uint64_t word)
{
	enum queue_phase phase = queue_word_phase(word);
	struct seen seen;

	/* One that was being moved has not arrived, or has; nobody is left who could tell. */
	if (phase != QUEUE_READY && phase != QUEUE_LEASED && phase != QUEUE_RETURNED &&
	    phase != QUEUE_MOVING)
		return;

	if (!block_read(look, block, &seen) ||
	    (phase == QUEUE_READY && !is_committed(look, block, word, seen.position)))
		return;

	++look->rest.n_items;
	look->rest.n_bytes +=
		seen.size < look->layout.item_size_max ? seen.size : look->layout.item_size_max;
}

struct queues_rest queues_rest(const struct channel *channel, struct queues_budget *budget)
{
	struct look look = {.channel = channel, .budget = budget, .word_fn = rest_of_word};

	look_at_classes(&look);
	look.rest.is_less = look.is_less;
	return look.rest;
}

/* One a second for each uid: the others are there for whoever asks for more, so that nobody fills
 * the log. */
static enum log_level level_of_rest(struct user *owner)
{
	uint64_t now_ns = clock_now_ns();

	if (owner->rest_logged_ns != 0 && now_ns - owner->rest_logged_ns < NS_PER_S)
		return LOG_LEVEL_INFO;

	owner->rest_logged_ns = now_ns;
	return LOG_LEVEL_NOTICE;
}

void queues_log_rest(const struct channel *channel)
{
	struct queues_budget budget = QUEUES_BUDGET;
	struct queues_rest rest = queues_rest(channel, &budget);

	if (rest.n_items == 0)
		return;

	log_line(level_of_rest(channel->owner),
		 "channel %s, generation %" PRIu64 ": ended with %s%" PRIu64 " items, %" PRIu64
		 " bytes",
		 channel->record->name, channel->record->generation,
		 rest.is_less ? "at least " : "", rest.n_items, rest.n_bytes);
}
