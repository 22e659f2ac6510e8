/* SPDX-License-Identifier: MIT */

/*
 * What is told of a queue: its memory is written by hand, and INFO, HANDLES and the log at its end
 * say what stands there, as far as it can be believed.
 */

#include "broker/queues.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ipc/client.h>

#include "libipc/channel/queue.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/segment.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawpeer.h"

static struct domain domain;
static struct rawpeer a, b;

static void setup(void)
{
	static const char *const args[] = {"--log-level", "info", NULL};

	domain_start(&domain, args);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
}

static void teardown(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
}

TestSuite(queues, .init = setup, .fini = teardown, .timeout = 60);

/* The creator's handle and view; the views of a sanitizer's build need their alignment. */
struct queue_memory {
	int fd;
	void *map;
	uint64_t size;
	uint64_t id, generation;
	struct queue queue;
};

enum { ITEMS_MAX = 16, BYTES_MAX = 4096, ITEM_SIZE_MAX = 1024, PRIORITIES = 2 };

static void create(struct queue_memory *ret, const char *name, uint32_t items_max, uint64_t flags)
{
	union message open =
		rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, name, IPC_CREATE | flags);

	open.open.shape_new[0] = items_max | (uint64_t)PRIORITIES << 32;
	ret->size = segment_round(queue_segment_size(open.open.shape_new));
	open.open.size_new = ret->size;

	rawpeer_send(&a, &open);
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_RESERVE);
	ret->fd = fcntl(a.fds[0], F_DUPFD_CLOEXEC, 0);
	cr_assert_eq(rawpeer_reserve(&a, a.last_id, &ret->id), 0);
	ret->generation = a.reply.opened.generation;

	cr_assert_eq(segment_map(&ret->map, ret->fd, 0, ret->size, true), 0);
	cr_assert_eq(queue_make(ret->map, ret->size, open.open.shape_new, 0), 0);
	cr_assert_eq(queue_attach(&ret->queue, ret->map, ret->size, open.open.shape_new, ret->id),
		     0);
}

static void forget(struct queue_memory *memory)
{
	segment_unmap(memory->map, memory->size);
	close(memory->fd);
}

static struct queue_block *block_of(struct queue_memory *memory, unsigned class, uint32_t block)
{
	const struct queue_group *group = memory->queue.layout.group;

	while (block >= group->first + group->n)
		++group;
	return (struct queue_block *)(void *)(memory->queue.class[class].blocks + group->distance +
					      (block - group->first) * group->stride);
}

static void set_word(struct queue_memory *memory, unsigned class, uint32_t block,
		     enum queue_phase phase, uint32_t row, uint64_t size, uint64_t ago_ns)
{
	struct queue_block *held = block_of(memory, class, block);

	atomic_store(&held->size, size);
	atomic_store(&held->since, clock_now_ns() - ago_ns);
	atomic_store(&memory->queue.class[class].word[block],
		     (uint64_t)5 << QUEUE_USE_SHIFT | (uint64_t)row << QUEUE_ROW_SHIFT |
			     (uint64_t)phase);
}

static void set_row(struct queue_memory *memory, uint32_t row, uint64_t handle_id)
{
	atomic_store(&memory->queue.segment->rows.owner[row], handle_id);
}

static bool is_live(void *subject, uint32_t block, uint32_t use)
{
	(void)subject;
	(void)block;
	(void)use;
	return true;
}

/* Waiting, as a push leaves it. */
static void commit(struct queue_memory *memory, unsigned class, uint32_t block, uint64_t size)
{
	set_word(memory, class, block, QUEUE_READY, 0, size, 0);
	cr_assert_eq(index_ring_add(&memory->queue.class[class].ring, block, 5,
				    &block_of(memory, class, block)->position, is_live, NULL),
		     INDEX_RING_DONE);
}

/* ---- INFO ---- */

/* M-45 */
Test(queues, info_tells_bytes_of_all_classes)
{
	static struct queue_memory memory;
	const struct message_channel *channel = &b.reply.info_reply.channel;
	struct queue_class *class;

	create(&memory, "q", ITEMS_MAX, IPC_KEEP);
	class = memory.queue.segment->class;
	atomic_store(&class[0].claimed, 700);
	atomic_store(&class[0].claimed_max, 650);
	atomic_store(&class[0].freed_bytes, 150);
	atomic_store(&class[1].claimed, 10);
	atomic_store(&class[1].claimed_max, 10);

	cr_assert_eq(rawpeer_info(&b, "q"), 0);
	cr_assert_eq(channel->kind, IPC_KIND_QUEUE);
	cr_assert_eq(channel->flags, IPC_KEEP);
	cr_assert_eq(channel->item_size_max, ITEM_SIZE_MAX);
	cr_assert_eq(channel->capacity, BYTES_MAX);
	cr_assert_eq(channel->depth, 560);
	cr_assert_eq(channel->depth_max, 660);
	cr_assert_eq(channel->handles[QUEUE_SIDE_CONSUMERS], 1);
	cr_assert_eq(channel->holder_id, 0);

	cr_assert_eq(rawpeer_remove(&a, "q", 0), 0);
	forget(&memory);
}

/* M-60: anybody may have written that, or cut it. */
Test(queues, info_believes_no_more_than_can_be)
{
	static struct queue_memory memory;
	const struct message_channel *channel = &b.reply.info_reply.channel;

	create(&memory, "q", ITEMS_MAX, 0);
	atomic_store(&memory.queue.segment->class[0].claimed, INT64_MAX);
	atomic_store(&memory.queue.segment->class[1].claimed_max, UINT64_MAX);
	cr_assert_eq(rawpeer_info(&b, "q"), 0);
	cr_assert_eq(channel->depth, BYTES_MAX);
	cr_assert_eq(channel->depth_max, 2 * BYTES_MAX);

	cr_assert_eq(ftruncate(memory.fd, 0), 0);
	cr_assert_eq(rawpeer_info(&b, "q"), 0);
	cr_assert_eq(channel->depth, 0);
	cr_assert_eq(rawpeer_handles(&b, "q", 0, 0), 0);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	forget(&memory);
}

/* ---- HANDLES ---- */

static const struct message_handle *listed(uint64_t id)
{
	const struct message_handled *handled = &b.reply.handled;
	unsigned i = 0;

	while (i < handled->n && handled->handle[i].handle_id != id)
		++i;
	cr_assert_lt(i, handled->n);
	return &handled->handle[i];
}

/* M-45 */
Test(queues, each_handle_has_its_leases_and_claims)
{
	static struct queue_memory memory;
	const struct message_handle *consumer, *producer, *lent;
	uint64_t ids[2];

	create(&memory, "q", ITEMS_MAX, 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_QUEUE_PRODUCER, "q", 0, &ids[0]), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_QUEUE_PRODUCER, "q", OPEN_UNCOUNTED, &ids[1]),
		     0);
	set_row(&memory, 0, memory.id);
	set_row(&memory, 1, ids[0]);
	set_row(&memory, ROWS_MAX - 1, ids[1]);
	set_word(&memory, 0, 0, QUEUE_LEASED, 0, 1, NS_PER_S);
	set_word(&memory, 0, ITEMS_MAX - 1, QUEUE_LEASED, 0, 1, 7 * NS_PER_S);
	set_word(&memory, 1, 3, QUEUE_LEASED, 0, 1, NS_PER_S);
	set_word(&memory, 1, 4, QUEUE_CLAIMED, 1, 1, 3 * NS_PER_S);
	set_word(&memory, 0, 5, QUEUE_CLAIMED, ROWS_MAX - 1, 1, 0);
	set_word(&memory, 0, 6, QUEUE_FREE, 1, 1, 9 * NS_PER_S);
	commit(&memory, 1, 9, 1);

	cr_assert_eq(rawpeer_handles(&b, "q", 0, 0), 0);
	cr_assert_eq(b.reply.handled.n, 3);
	consumer = listed(memory.id);
	cr_assert_eq(consumer->role, IPC_ROLE_QUEUE_CONSUMER);
	cr_assert_eq(consumer->holds, IPC_HOLDS_LEASES);
	cr_assert_eq(consumer->n_held, 3);
	cr_assert_geq(consumer->held_ns, 7 * NS_PER_S);
	cr_assert_lt(consumer->held_ns, 60 * NS_PER_S);

	producer = listed(ids[0]);
	cr_assert_eq(producer->holds, IPC_HOLDS_CLAIMS);
	cr_assert_eq(producer->n_held, 1);
	cr_assert_geq(producer->held_ns, 3 * NS_PER_S);
	cr_assert_lt(producer->held_ns, 7 * NS_PER_S);
	cr_assert_eq(producer->weak, 0);

	lent = listed(ids[1]);
	cr_assert_eq(lent->holds, IPC_HOLDS_CLAIMS);
	cr_assert_eq(lent->n_held, 1);
	cr_assert_eq(lent->weak, 1);
	forget(&memory);
}

/* M-60: rows of the dead, of another channel, of nobody. */
Test(queues, holders_who_are_not_there_are_not_told)
{
	static struct queue_memory memory, other;

	create(&memory, "q", ITEMS_MAX, 0);
	create(&other, "r", ITEMS_MAX, 0);
	set_row(&memory, 1, memory.id + 65536);
	set_row(&memory, 2, other.id);
	set_row(&memory, 3, UINT64_MAX);
	for (uint32_t row = 1; row < 5; ++row)
		set_word(&memory, 0, row, QUEUE_LEASED, row, 1, NS_PER_S);

	cr_assert_eq(rawpeer_handles(&b, "q", 0, 0), 0);
	cr_assert_eq(b.reply.handled.n, 1);
	cr_assert_eq(listed(memory.id)->holds, IPC_HOLDS_NOTHING);
	forget(&memory);
	forget(&other);
}

/* ---- the end ---- */

/* Whether the log has this line about the channel; everything sent before is done. */
static unsigned n_logged(const struct queue_memory *memory, const char *name, const char *what)
{
	char path[128], want[256], line[1024];
	unsigned n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/log", domain.dir);
	snprintf(want, sizeof(want), "channel %s, generation %" PRIu64 ": ended with %s", name,
		 memory->generation, what);
	file = fopen(path, "r");
	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file))
		n += strstr(line, want) != NULL;
	fclose(file);
	return n;
}

static void fill(struct queue_memory *memory)
{
	commit(memory, 0, 0, 10);
	commit(memory, 0, ITEMS_MAX - 1, 20);
	commit(memory, 1, 2, 30);
	set_word(memory, 1, 5, QUEUE_LEASED, 7, 100, 0);
	set_word(memory, 1, 6, QUEUE_RETURNED, 0, 200, 0);

	/* What a producer left that died before the commit, and what has ended. */
	set_word(memory, 0, 3, QUEUE_READY, 0, 1, 0);
	set_word(memory, 0, 4, QUEUE_CLAIMED, 0, 1, 0);
	set_word(memory, 1, 7, QUEUE_ENDED, 0, 1, 0);
	set_word(memory, 1, 8, QUEUE_FREE, 0, 1, 0);
}

/* */
Test(queues, what_ends_with_a_queue_is_counted)
{
	static struct queue_memory memory;
	uint64_t producer;

	create(&memory, "q", ITEMS_MAX, 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_QUEUE_PRODUCER, "q", 0, &producer), 0);
	fill(&memory);

	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	cr_assert_eq(n_logged(&memory, "q", ""), 0, "producers may still save them");
	rawpeer_close(&b, producer);
	rawpeer_sync(&b);
	cr_assert_eq(n_logged(&memory, "q", "5 items, 360 bytes"), 1);
	cr_assert_eq(n_logged(&memory, "q", ""), 1);
	forget(&memory);
}

/* Q-16, M-48: a kept one ends when it has no name any more. */
Test(queues, what_ends_with_a_removed_queue_is_counted)
{
	static struct queue_memory memory;

	create(&memory, "q", ITEMS_MAX, IPC_KEEP);
	fill(&memory);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	domain_kill_worker(&domain);
	cr_assert_eq(n_logged(&memory, "q", ""), 0);
	cr_assert_eq(rawpeer_remove(&b, "q", 0), 0);
	cr_assert_eq(n_logged(&memory, "q", "5 items, 360 bytes"), 1);
	forget(&memory);
}

/* */
Test(queues, of_an_empty_queue_nothing_is_said)
{
	static struct queue_memory memory;

	create(&memory, "q", ITEMS_MAX, 0);
	set_word(&memory, 0, 4, QUEUE_CLAIMED, 0, 1, 0);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	cr_assert_eq(n_logged(&memory, "q", ""), 0);
	forget(&memory);
}

/* M-60: entries of another lap, use or block name nothing, and no item is larger than it may be. */
Test(queues, items_are_believed_as_far_as_they_can_be)
{
	static struct queue_memory memory;
	struct index_ring *ring;

	create(&memory, "q", ITEMS_MAX, 0);
	ring = &memory.queue.class[0].ring;
	commit(&memory, 0, 0, UINT64_MAX);
	commit(&memory, 0, 1, 1);
	atomic_fetch_add(&memory.queue.class[0].word[1], UINT64_C(1) << QUEUE_USE_SHIFT);
	commit(&memory, 0, 2, 1);
	atomic_fetch_add(&block_of(&memory, 0, 2)->position, ring->mask + 1);
	commit(&memory, 0, 3, 1);
	atomic_store(&block_of(&memory, 0, 3)->position, 0);
	commit(&memory, 0, 4, 1);
	atomic_store(&block_of(&memory, 0, 4)->position, UINT64_MAX);

	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	cr_assert_eq(n_logged(&memory, "q", "1 items, 1024 bytes"), 1);
	forget(&memory);
}

/* The bound on what the end of one queue may cost the others. */
Test(queues, a_huge_queue_is_counted_in_part)
{
	static struct queue_memory memory;
	const struct queues_budget budget = QUEUES_BUDGET;

	create(&memory, "q", budget.n_blocks + 1, 0);
	for (uint32_t i = 0; i <= budget.n_blocks; ++i)
		set_word(&memory, 0, i, QUEUE_LEASED, 0, 1, 0);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	cr_assert_eq(n_logged(&memory, "q", "at least 4096 items, 4096 bytes"), 1);
	forget(&memory);

	create(&memory, "q", budget.n_words + 1, 0);
	set_word(&memory, 0, budget.n_words - 1, QUEUE_LEASED, 0, 1, 0);
	set_word(&memory, 0, budget.n_words, QUEUE_LEASED, 0, 1, 0);
	set_word(&memory, 1, 0, QUEUE_LEASED, 0, 1, 0);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	cr_assert_eq(n_logged(&memory, "q", "at least 1 items, 1 bytes"), 1);
	forget(&memory);
}

/* The same for who asks for its state: what is told is there, and that there is more is told. */
Test(queues, a_huge_queue_is_told_in_part)
{
	static struct queue_memory memory;
	const struct queues_budget budget = QUEUES_BUDGET;
	const struct message_stated *stated = &b.reply.stated;

	create(&memory, "q", budget.n_blocks + 1, 0);
	for (uint32_t i = 0; i < budget.n_blocks; ++i)
		set_word(&memory, 0, i, QUEUE_RETURNED, 0, 1, 0);
	cr_assert_eq(rawpeer_state(&b, "q"), 0);
	cr_assert_eq(stated->is_partial, 0);
	cr_assert_eq(stated->items[0], budget.n_blocks);
	cr_assert_eq(stated->bytes[0], budget.n_blocks);

	set_word(&memory, 0, budget.n_blocks, QUEUE_RETURNED, 0, 1, 0);
	cr_assert_eq(rawpeer_state(&b, "q"), 0);
	cr_assert_eq(stated->is_partial, 1);
	cr_assert_eq(stated->items[0], budget.n_blocks + 1);
	cr_assert_eq(stated->bytes[0], budget.n_blocks);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	forget(&memory);

	create(&memory, "q", budget.n_words + 1, 0);
	set_word(&memory, 0, budget.n_words, QUEUE_RETURNED, 0, 1, 0);
	commit(&memory, 0, 0, 1);
	atomic_store(&memory.queue.class[0].word[0], 0);
	cr_assert_eq(rawpeer_state(&b, "q"), 0);
	cr_assert_eq(stated->is_partial, 1);
	cr_assert_eq(stated->items[0], 0);
	cr_assert_eq(stated->queued[0], 1);
	cr_assert_eq(stated->acknowledged[0], 0, "it may stand where nobody has looked");
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	forget(&memory);
}

/* one end has been counted, one has not; both were. */
Test(queues, each_end_is_told_once)
{
	static struct queue_memory memory;
	const struct message_stated *stated = &b.reply.stated;
	struct queue_class *class;

	create(&memory, "q", ITEMS_MAX, 0);
	class = memory.queue.segment->class;
	for (uint32_t i = 0; i < 4; ++i)
		commit(&memory, 1, i, 1);
	set_word(&memory, 0, 3, QUEUE_READY, 0, 1, 0); /* of a push that is under way */
	set_word(&memory, 1, 0, QUEUE_ENDED, 1 << 3 | IPC_DEAD_ATTEMPTS, 1, 0);
	set_word(&memory, 1, 1, QUEUE_ENDED, 1 << 3 | IPC_DEAD_ATTEMPTS, 1, 0);
	set_word(&memory, 1, 2, QUEUE_ENDED, IPC_DEAD_REJECTED, 1, 0);
	atomic_store(&class[1].ends[1][IPC_DEAD_ATTEMPTS], UINT64_C(1) << 20 | 1);
	atomic_store(&class[1].full[0], 5);
	atomic_store(&class[1].full[1], 6);

	cr_assert_eq(rawpeer_state(&b, "q"), 0);
	cr_assert_eq(stated->priorities, PRIORITIES);
	cr_assert_eq(stated->queued[1], 4);
	cr_assert_eq(stated->items[0], 0);
	cr_assert_eq(stated->items[1], 1);
	cr_assert_eq(stated->dropped[1][IPC_DEAD_ATTEMPTS], 2);
	cr_assert_eq(stated->dead_lettered[1][IPC_DEAD_REJECTED], 1);
	cr_assert_eq(stated->dead_lettered[1][IPC_DEAD_FULL], 5);
	cr_assert_eq(stated->dropped[1][IPC_DEAD_FULL], 6);
	cr_assert_eq(stated->acknowledged[1], 0);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	forget(&memory);
}

/* M-60: whatever stands there, somebody is answered. */
Test(queues, a_state_is_told_of_whatever_stands_there)
{
	static struct queue_memory memory;

	create(&memory, "q", ITEMS_MAX, 0);
	memset((char *)memory.map + sizeof(struct channel_header), 0xff,
	       memory.size - sizeof(struct channel_header));
	cr_assert_eq(rawpeer_state(&b, "q"), 0);
	memset((char *)memory.map + sizeof(struct channel_header), 0x55,
	       memory.size - sizeof(struct channel_header));
	cr_assert_eq(rawpeer_state(&b, "q"), 0);
	cr_assert_eq(ftruncate(memory.fd, 0), 0);
	cr_assert_eq(rawpeer_state(&b, "q"), 0);
	cr_assert_eq(b.reply.stated.priorities, PRIORITIES);
	cr_assert_eq(rawpeer_state(&b, "none"), IPC_ENOENT);
	rawpeer_close(&a, memory.id);
	rawpeer_sync(&a);
	forget(&memory);
}

static void setup_usual(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
}

/* M-60: nobody fills the log. */
Test(queues_log, one_end_a_second_is_told_aloud, .init = setup_usual, .fini = teardown,
     .timeout = 60)
{
	static struct queue_memory memory;
	uint64_t since_ns = clock_now_ns();
	unsigned n = 0, i;

	for (i = 0; i < 20; ++i) {
		create(&memory, "q", ITEMS_MAX, 0);
		fill(&memory);
		rawpeer_close(&a, memory.id);
		rawpeer_sync(&a);
		n += n_logged(&memory, "q", "5 items");
		cr_assert(i > 0 || n == 1, "the first");
		forget(&memory);
	}

	cr_assert_leq(n, 1 + (clock_now_ns() - since_ns) / NS_PER_S);
}
