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

/* Blocks of a class whose sizes are looked at for its depth, where nobody counts bytes. */
#define SAMPLES_MAX 64

struct look {
	const struct channel *channel;
	struct queues_budget *budget;
	struct queue_layout layout;
	uint32_t class;
	bool is_less; /* something was not looked at */
	void (*word_fn)(struct look *look, uint32_t block, uint64_t word);

	/* queues_look(), queues_state() */
	struct registry *registry;

	/* queues_look() */
	queues_hold_fn hold_fn;
	void *userdata;

	/* queues_rest() */
	struct queues_rest rest;

	/* queues_state() */
	struct message_stated *state;

	/* queues_depth() */
	struct sample {
		uint64_t n_used, n, bytes;
	} sample;
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

/* Whether one more thing that a word names may be read. */
static bool look_further(struct look *look)
{
	if (look->budget->n_blocks == 0) {
		look->is_less = true;
		return false;
	}

	--look->budget->n_blocks;
	return true;
}

static bool block_read(struct look *look, uint32_t block, struct seen *ret)
{
	return look_further(look) && segments_read(look->channel->segment_fd,
						   block_offset(look, block), ret, sizeof(*ret));
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

static uint64_t class_word(const struct look *look, uint64_t offset)
{
	return segments_peek(look->channel->segment_fd,
			     offsetof(struct queue_segment, class) +
				     look->class * sizeof(struct queue_class) + offset);
}

static uint64_t at_most(uint64_t n, uint64_t max)
{
	return n < max ? n : max;
}

/* As the clients count: what is left of a circle's distance is no bytes. */
static void depth_counted(struct look *look, struct queues_depth *depth)
{
	uint64_t max = look->layout.bytes_max;
	uint64_t claimed = class_word(look, offsetof(struct queue_class, claimed));
	uint64_t freed = class_word(look, offsetof(struct queue_class, freed_bytes));
	uint64_t ever = class_word(look, offsetof(struct queue_class, claimed_max));
	uint64_t now = (int64_t)(claimed - freed) < 0 ? 0 : at_most(claimed - freed, max);

	depth->now += now;
	depth->ever += at_most(ever > now ? ever : now, max);
}

static void sample_word(struct look *look, uint32_t block, uint64_t word)
{
	struct seen seen;

	if (queue_word_phase(word) == QUEUE_FREE)
		return;

	++look->sample.n_used;
	if (look->sample.n < SAMPLES_MAX && block_read(look, block, &seen)) {
		look->sample.bytes += at_most(seen.size, look->layout.item_size_max);
		++look->sample.n;
	}
}

/* Nobody counts bytes where they cannot be too many: as many blocks as are used, each with the mean
 * size of the first ones. */
static void depth_sampled(struct look *look, struct queues_depth *depth)
{
	uint64_t now;

	look->sample = (struct sample){0};
	look_at_class(look);
	if (look->sample.n == 0)
		return;

	now = look->sample.bytes * look->sample.n_used / look->sample.n;
	depth->now += now;
	depth->ever += now;
}

struct queues_depth queues_depth(const struct channel *channel)
{
	struct queues_budget budget = QUEUES_BUDGET;
	struct queues_depth depth = {0};
	struct look look = {.channel = channel, .budget = &budget, .word_fn = sample_word};

	if (!queue_layout(&look.layout, channel->record->shape))
		return depth;

	for (look.class = 0; look.class < look.layout.n_classes; ++look.class) {
		if (queue_counts_bytes(&look.layout))
			depth_counted(&look, &depth);
		else
			depth_sampled(&look, &depth);
	}
	return depth;
}

/* ---- who holds what ---- */

/* NULL: a dead one's, which goes back to whoever needs it. */
static const struct handle *handle_of_row(const struct look *look, uint32_t row)
{
	uint64_t offset = offsetof(struct queue_segment, rows) + offsetof(struct rows, owner) +
			  row * sizeof(uint64_t);

	return registry_handle_on(look->registry, look->channel,
				  segments_peek(look->channel->segment_fd, offset));
}

static void look_at_held(struct look *look, uint32_t block, enum ipc_holding holding, uint32_t row)
{
	const struct handle *holder;
	struct seen seen;

	if (!block_read(look, block, &seen))
		return;

	holder = handle_of_row(look, row);
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

/* The ring of a class without its memory: entries are read one by one. */
static struct index_ring ring_of(const struct look *look)
{
	struct index_ring ring;

	index_ring_attach(&ring, NULL, NULL, look->layout.ring_size);
	return ring;
}

static uint64_t entry_at(const struct look *look, uint64_t position)
{
	uint64_t place = position & (look->layout.ring_size - 1);

	return segments_peek(look->channel->segment_fd,
			     class_offset(look) + look->layout.entries + place * sizeof(uint64_t));
}

/* A producer may have died before it committed. */
static bool is_committed(const struct look *look, uint32_t block, uint64_t word, uint64_t position)
{
	struct index_ring ring = ring_of(look);

	return entry_at(look, position) ==
	       index_ring_entry_full(&ring, position, block, queue_word_use(word));
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

/* ---- what stands in it ---- */

#define KINDS          2    /* of ends: dead-lettered, dropped */
#define TAIL_STEPS_MAX 4096 /* by which the tail may be behind */

static uint64_t ends_word(const struct look *look, unsigned kind, unsigned reason)
{
	return class_word(look, offsetof(struct queue_class, ends) +
					(kind * IPC_DEAD_REASONS_MAX + reason) * sizeof(uint64_t));
}

static uint64_t *ends_of(const struct look *look, unsigned kind)
{
	return kind == 0 ? look->state->dead_lettered[look->class]
			 : look->state->dropped[look->class];
}

/* An end that nobody has counted yet; the counter names the block if somebody has. */
static void state_add_end(const struct look *look, uint32_t block, uint32_t end)
{
	unsigned kind = end >> 3 & 1, reason = end & 7;
	uint64_t name = ends_word(look, kind, reason) & ((1 << QUEUE_ENDS_NAME_BITS) - 1);

	ends_of(look, kind)[reason] += name != block + 1;
}

static void state_add_item(struct look *look, uint32_t block, uint64_t word)
{
	struct message_stated *state = look->state;
	bool is_ready = queue_word_phase(word) == QUEUE_READY;
	struct seen seen;

	/* Beyond the budget only the bytes are not told: what is READY waits, but for a push that
	 * is under way. */
	if (!block_read(look, block, &seen)) {
		++state->items[look->class];
		return;
	}

	if (is_ready && !is_committed(look, block, word, seen.position))
		return;

	++state->items[look->class];
	state->bytes[look->class] +=
		seen.size < look->layout.item_size_max ? seen.size : look->layout.item_size_max;
}

static void state_of_word(struct look *look, uint32_t block, uint64_t word)
{
	switch (queue_word_phase(word)) {
	case QUEUE_FREE:
	case QUEUE_CLAIMED:
		break;
	case QUEUE_READY:
	case QUEUE_RETURNED:
		state_add_item(look, block, word);
		break;
	case QUEUE_LEASED:
		if (!look_further(look) || handle_of_row(look, queue_word_row(word)))
			++look->state->leased[look->class];
		else
			state_add_item(look, block, word);
		break;
	case QUEUE_MOVING:
		++look->state->leased[look->class];
		break;
	case QUEUE_ENDED:
		if (look_further(look))
			state_add_end(look, block, queue_word_row(word));
		break;
	}
}

/* How many were ever added to the ring: its tail, which may be behind. */
static uint64_t n_added(const struct look *look)
{
	uint64_t tail = class_word(look, offsetof(struct queue_class, ring) +
						 offsetof(struct index_ring_words, tail));
	struct index_ring ring = ring_of(look);
	unsigned steps;

	for (steps = 0; steps < TAIL_STEPS_MAX; ++steps) {
		uint64_t entry = entry_at(look, tail);
		int64_t ahead = index_ring_entry_ahead(&ring, entry, tail);

		if (ahead < 0 || (ahead == 0 && index_ring_entry_kind(entry) != INDEX_RING_FULL))
			break;
		tail += 1 + (ahead > 0 ? (uint64_t)(ahead - 1) * look->layout.ring_size : 0);
	}
	return tail;
}

/* what was queued and is nowhere else was acknowledged. */
static void state_of_totals(const struct look *look, bool is_whole)
{
	struct message_stated *state = look->state;
	uint32_t class = look->class;
	uint64_t elsewhere = state->items[class] + state->leased[class];
	unsigned kind, reason;

	for (kind = 0; kind < KINDS; ++kind) {
		uint64_t *ends = ends_of(look, kind);

		for (reason = 0; reason < IPC_DEAD_REASONS_MAX; ++reason) {
			if (reason == IPC_DEAD_FULL)
				continue; /* never queued */
			ends[reason] += ends_word(look, kind, reason) >> QUEUE_ENDS_NAME_BITS;
			elsewhere += ends[reason];
		}
		ends[IPC_DEAD_FULL] = class_word(look, offsetof(struct queue_class, full) +
							       kind * sizeof(uint64_t));
	}

	state->queued[class] = n_added(look);
	if (is_whole && state->queued[class] > elsewhere)
		state->acknowledged[class] = state->queued[class] - elsewhere;
}

void queues_state(struct registry *registry, const struct channel *channel,
		  struct queues_budget *budget, struct message_stated *ret)
{
	struct look look = {
		.channel = channel,
		.budget = budget,
		.word_fn = state_of_word,
		.registry = registry,
		.state = ret,
	};
	uint32_t n_words = budget->n_words;
	bool is_whole;

	look_at_classes(&look);
	is_whole = (uint64_t)look.layout.items_max * look.layout.n_classes <= n_words;
	for (look.class = 0; look.class < look.layout.n_classes; ++look.class)
		state_of_totals(&look, is_whole);

	ret->priorities = look.layout.n_classes;
	ret->is_partial = look.is_less;
}
