/* SPDX-License-Identifier: MIT */

/*
 * A ring whose memory somebody else wrote.  The input pokes words into a ring in which some records
 * wait, some claims are open, one end has been taken over from the living, then says which calls
 * follow, of both ends.  Whatever stands there, every call comes back with a result of the table,
 * in bounded time, and nobody touches a byte outside of the memory.
 *
 * byte 0     flags: see below
 * byte 1     number of pokes, each of 11 bytes: where, offset (2, little endian, in words), value
 *            (8, little endian), which is one of those that stand there, or a word made of it
 * the rest   calls, one a byte: which in the low 4 bits, more about it in the others
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/core/ring.h"
#include "tests/support/ring_scene.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORD_MAX = 1000, N_CLAIMS = 4, FIRST_ID = 1, SECOND_ID = 2, THIRD_ID = 3, READER_ID = 4 };

enum {
	IS_WIDE = 1,       /* the capacity is no power of two */
	IS_TAKEN_OVER = 2, /* from the living, who has claims */
	IS_LATE = 4,       /* the pokes come after the takes */
	HAS_KEPT = 8
};

static struct liveness_table *table;

static struct scene {
	struct ring *ring;
	unsigned char *data;
	uint64_t capacity, size;
	struct ring_producer producer, before;
	struct ring_consumer consumer;
	void *claim[N_CLAIMS];
	uint64_t claimed[N_CLAIMS], mark;
} scene;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void require_result(int r)
{
	require(r == 0 || r == IPC_EAGAIN || r == IPC_ESTALE || r == IPC_EBADMSG || r == IPC_EBUSY);
}

/* ---- input ---- */

struct input {
	const uint8_t *data;
	size_t size;
};

static uint64_t input_take(struct input *input, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n && input->size > 0; ++i, ++input->data, --input->size)
		value |= (uint64_t)*input->data << (8 * i);
	return value;
}

/* Small changes of what is there do more than any value. */
static void poke(struct input *input)
{
	unsigned n = (unsigned)input_take(input, 1);

	for (unsigned i = 0; i < n && input->size > 0; ++i) {
		unsigned how = (unsigned)input_take(input, 1);
		uint64_t offset = input_take(input, 2), value = input_take(input, 8), *word;

		if (how & 1)
			word = (uint64_t *)scene.ring + offset % (sizeof(*scene.ring) / 8);
		else
			word = (uint64_t *)(void *)scene.data + offset % (scene.size / 8);
		if (how & 2)
			*word += value;
		else if (how & 4)
			*word ^= value;
		else if (how & 8)
			memcpy(word, (uint64_t *)scene.ring + value % (sizeof(*scene.ring) / 8), 8);
		else
			*word = value;
	}
}

/* ---- calls ---- */

static uint64_t id_of(uint64_t n)
{
	return n << 16 | n;
}

static bool view_make(struct ring_view *view)
{
	int r = ring_attach(view, scene.ring, scene.data, scene.capacity, RECORD_MAX);

	require(r == 0 || r == IPC_EBADMSG);
	return r == 0;
}

/* process 0: living as long as its handle is open. */
static bool take_producer(struct ring_producer *producer, uint64_t n)
{
	int r;

	memset(producer, 0, sizeof(*producer));
	if (!view_make(&producer->view))
		return false;
	liveness_handle_set(table, (uint32_t)n, id_of(n));
	r = ring_take_producer(producer, table, id_of(n), 0);
	require_result(r);
	return r == 0;
}

static bool take_consumer(struct ring_consumer *consumer, uint64_t n)
{
	int r;

	memset(consumer, 0, sizeof(*consumer));
	if (!view_make(&consumer->view))
		return false;
	r = ring_take_consumer(consumer, table, id_of(n), 0);
	require_result(r);
	return r == 0;
}

static struct ring_commit commit_of(unsigned more, uint64_t size)
{
	return (struct ring_commit){.type = 2 + more,
				    .flags = more,
				    .extra = more,
				    .size = size,
				    .number_next = scene.producer.number + 1,
				    .state = more};
}

static void call_claim(unsigned more)
{
	unsigned i = more % N_CLAIMS;
	uint64_t size = more * 61u % (RECORD_MAX + 1);
	struct ring_claim *claim;
	struct ring_commit commit;
	int r;

	if (!scene.claim[i]) {
		r = ring_claim(&scene.producer, size, &scene.claim[i]);
		require_result(r);
		if (r < 0) {
			scene.claim[i] = NULL;
			return;
		}
		scene.claimed[i] = size;
		memset(scene.claim[i], 'c', size);
		return;
	}

	claim = ring_find_claim(&scene.producer, scene.claim[i]);
	require(claim && claim->size == scene.claimed[i]);
	memset(scene.claim[i], 'd', scene.claimed[i]);
	commit = commit_of(more, more & 4 ? scene.claimed[i] : scene.claimed[i] / 2);
	r = more & 8 ? IPC_EAGAIN : ring_commit(&scene.producer, claim, &commit);
	require_result(r);
	if (r < 0)
		ring_abort(&scene.producer, claim);
	scene.claim[i] = NULL;
}

static void call_receive(bool goes_on)
{
	struct ring_received record;
	unsigned sum = 0;
	int r = ring_peek(&scene.consumer, &record);

	require_result(r);
	if (r < 0)
		return;
	require(record.size <= RECORD_MAX + 15 && record.type > RING_HOLE); /* rounded */
	require((unsigned char *)record.bytes >= scene.data &&
		(unsigned char *)record.bytes + record.size <= scene.data + scene.size);
	for (size_t i = 0; i < record.size; ++i)
		sum += ((const volatile unsigned char *)record.bytes)[i];
	(void)sum;
	if (goes_on)
		scene.consumer.at = record.after;
}

static void call(unsigned byte)
{
	static const unsigned char bytes[RECORD_MAX];
	unsigned which = byte % 16, more = byte / 16;
	struct ring_commit commit = commit_of(more, more * 66);
	uint64_t word, number;

	switch (which) {
	case 0:
	case 1:
	case 2:
		require_result(ring_send(&scene.producer, bytes, &commit));
		break;
	case 3:
	case 4:
	case 5:
		call_claim(more);
		break;
	case 6:
	case 7:
	case 8:
		call_receive(true);
		break;
	case 9:
		call_receive(false);
		require_result(ring_probe(&scene.consumer));
		break;
	case 10:
	case 11:
		if (scene.consumer.at != ring_position(scene.consumer.tail))
			require_result(ring_release(&scene.consumer, scene.consumer.at, more));
		ring_mark_received(&scene.consumer, scene.consumer.at, more);
		break;
	case 12:
		require(ring_depth(&scene.producer.view) <=
			(scene.producer.view.mask + 1) * RING_UNIT);
		require_result(ring_look(&scene.producer.view, &scene.ring->tail, &word, &number));
		require_result(ring_probe_room(&scene.producer, more * 66));
		break;
	case 13:
		if (more % 4 == 0)
			scene.mark = ring_position(scene.producer.head);
		else if (more % 4 == 1)
			require_result(ring_rewind(&scene.producer, scene.mark, more));
		break;
	case 14:
		liveness_handle_set(table, (uint32_t)(more % 4), 0);
		break;
	default:
		scene.producer.keep = more;
		break;
	}
}

/* ---- what every input begins with ---- */

static bool begin(void)
{
	static const unsigned char bytes[RECORD_MAX];
	struct ring_commit commit;
	void *data;

	if (!take_producer(&scene.before, FIRST_ID))
		return false;
	for (unsigned i = 0; i < 3; ++i) {
		commit = commit_of(i, i * 100);
		require(ring_send(&scene.before, bytes, &commit) == 0);
	}
	require(ring_claim(&scene.before, 300, &data) == 0);
	require(ring_claim(&scene.before, 30, &data) == 0);
	commit = commit_of(0, 10);
	require(ring_commit(&scene.before, ring_find_claim(&scene.before, data), &commit) == 0);
	require(ring_claim(&scene.before, 40, &data) == 0);
	return true;
}

static void run(struct input *input, unsigned flags)
{
	bool has_ends;

	if (!(flags & IS_LATE))
		poke(input);
	if (!(flags & IS_TAKEN_OVER))
		ring_leave_producer(&scene.before);
	has_ends = take_producer(&scene.producer, SECOND_ID) &&
		   take_consumer(&scene.consumer, READER_ID);
	if (flags & IS_LATE)
		poke(input);
	if (flags & HAS_KEPT)
		scene.producer.keep = 20;
	while (has_ends && input->size > 0)
		call((unsigned)input_take(input, 1));

	if (scene.producer.view.ring)
		ring_leave_producer(&scene.producer);
	if (scene.consumer.view.ring)
		ring_leave_consumer(&scene.consumer);
	if (take_producer(&scene.producer, THIRD_ID))
		ring_leave_producer(&scene.producer);
	if (scene.before.claim)
		ring_leave_producer(&scene.before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	unsigned flags = (unsigned)input_take(&input, 1);

	if (!table) {
		table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		require(table != MAP_FAILED);
		liveness_table_init(table, 1000);
	}
	memset(&scene, 0, sizeof(scene));
	scene.capacity = flags & IS_WIDE ? 5000 : 4096;
	scene.size = ring_data_size(scene.capacity, RECORD_MAX);
	scene.ring = aligned_alloc(64, sizeof(*scene.ring));
	scene.data = malloc(scene.size); /* to the byte: beyond is seen by the sanitizer */
	require(scene.ring && scene.data);
	memset(scene.data, 0, scene.size);
	ring_init(scene.ring, scene.data, 1);

	if (begin())
		run(&input, flags);
	free(scene.ring);
	free(scene.data);
	return 0;
}
