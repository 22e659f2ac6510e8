/* SPDX-License-Identifier: MIT */
/*
 * C-1 C-3 C-4 C-5 C-14 I-3: a ring beside a plain list of what was sent.  Random claims, commits in
 *any order, what is taken back, ends that are taken over from the dead and the living, who write on
 *to what they had claimed; after each step what comes is what the list says, and at the end all of
 *the room is there.
 *
 *	IPC_MODEL_SEEDS   how many sequences, default 2000
 *	IPC_MODEL_SEED    the first, default 1
 */
#include "libipc/core/ring.h"

#include <criterion/criterion.h>

#include "tests/support/ring_scene.h"

enum { STEPS = 400, LIVE_MAX = 7, CLAIMS_MAX = 5, SENT_MAX = 4096, FIRST_READER = 600 };

enum life { LIFE_NONE, LIFE_ALIVE, LIFE_NAMELESS /* gone with its handle */ };

struct claimed {
	unsigned char *data;
	uint64_t size;
};

struct writer {
	enum life life;
	unsigned handle;
	struct ring_producer producer;
	struct claimed claim[CLAIMS_MAX];
	unsigned n_claims;
};

struct sent {
	uint64_t position, size;
	unsigned salt;
};

static struct ring_scene scene;
static struct writer writers[LIVE_MAX];
static struct writer *now; /* the producer */
static struct ring_consumer consumer;
static unsigned n_handles, n_readers;

/* Numbers count from `first`; indices of sent[] from 0. */
static struct sent sent[SENT_MAX];
static uint64_t first, n_sent, n_received, n_received_ever, n_released;
static bool was_taken_back; /* copies may find no room */
static bool is_busy;        /* too many live: nobody has the end */

static unsigned seed, step;
static uint64_t random_state;
static uint64_t n_busy, n_over, n_back, n_strays_taken;

#define EXPECT(condition, what, value)                                                             \
	cr_assert(condition, "seed %u, step %u: %s %ld", seed, step, what, (long)(value))

static uint64_t pick(uint64_t n)
{
	random_state += UINT64_C(0x9e3779b97f4a7c15);
	return ring_scene_mix(random_state) % n;
}

static uint64_t pick_size(void)
{
	return pick(3) ? pick(200) : pick(scene.record_max + 1);
}

/* ---- producing ---- */

static void sent_add(uint64_t position, uint64_t size)
{
	EXPECT(n_sent < SENT_MAX, "too many", n_sent);
	sent[n_sent++] = (struct sent){position, size, now->handle & 0xff};
	EXPECT(now->producer.number == first + n_sent, "number", now->producer.number);
}

static void do_send(void)
{
	uint64_t position = ring_position(now->producer.head), size = pick_size();
	static unsigned char bytes[1 << 16];
	struct ring_commit commit =
		ring_scene_commit(now->producer.number, size, now->handle & 0xff);
	int r;

	ring_scene_fill(bytes, size, now->producer.number, now->handle & 0xff);
	r = ring_send(&now->producer, bytes, &commit);
	EXPECT(r == 0 || r == IPC_EAGAIN, "send", r);
	if (r == 0)
		sent_add(position, size);
}

static void do_claim(void)
{
	uint64_t size = pick_size();
	void *data;
	int probed, r;

	if (now->n_claims == CLAIMS_MAX)
		return;
	probed = ring_probe_room(&now->producer, size);
	r = ring_claim(&now->producer, size, &data);
	EXPECT(r == 0 || r == IPC_EAGAIN, "claim", r);
	EXPECT(probed == r, "probed", probed);
	if (r == 0)
		now->claim[now->n_claims++] = (struct claimed){data, size};
}

static void do_end_of_claim(bool is_commit)
{
	uint64_t position = ring_position(now->producer.head), size, i;
	struct ring_commit commit;
	struct ring_claim *claim;
	int r;

	if (now->n_claims == 0)
		return;
	i = pick(now->n_claims);
	claim = ring_find_claim(&now->producer, now->claim[i].data);
	EXPECT(claim && claim->size == now->claim[i].size, "claim of", now->claim[i].size);
	size = pick(2) ? claim->size : pick(claim->size + 1);
	if (is_commit) {
		commit = ring_scene_commit(now->producer.number, size, now->handle & 0xff);
		ring_scene_fill(now->claim[i].data, size, now->producer.number, commit.flags);
		r = ring_commit(&now->producer, claim, &commit);
		EXPECT(r == 0 || (r == IPC_EAGAIN && was_taken_back), "commit", r);
		if (r < 0)
			return;
		sent_add(position, size);
	} else {
		ring_abort(&now->producer, claim);
	}
	now->claim[i] = now->claim[--now->n_claims];
	if (now->n_claims == 0)
		was_taken_back = false;
}

static void do_take_back(void)
{
	uint64_t i = n_received_ever + pick(n_sent - n_received_ever + 1);

	if (i == n_sent)
		return;
	EXPECT(ring_rewind(&now->producer, sent[i].position, 0) == 0, "from", i);
	EXPECT(now->producer.number == first + i, "number", now->producer.number);
	n_sent = i;
	consumer.head = consumer.at;
	was_taken_back = now->n_claims > 0;
	++n_back;
}

/* ---- consuming ---- */

static void do_receive(void)
{
	struct ring_received record;
	int r = ring_scene_receive(&consumer, &record);
	const struct sent *its = &sent[n_received];

	if (n_received == n_sent) {
		EXPECT(r == IPC_EAGAIN, "received", r);
		return;
	}
	EXPECT(r == 0, "received", r);
	EXPECT(!ring_scene_wrong(&record, first + n_received),
	       ring_scene_wrong(&record, first + n_received), n_received);
	EXPECT(record.size == its->size, "size", record.size);
	EXPECT(record.flags == its->salt, "of", record.flags);
	if (++n_received <= n_received_ever)
		return;
	n_received_ever = n_received;
	ring_mark_received(&consumer, consumer.at, 0);
}

static void do_release(void)
{
	if (n_released == n_received)
		return;
	EXPECT(ring_release(&consumer, consumer.at, 0) == 0, "release", n_received);
	n_released = n_received;
}

static void do_take_reader(void)
{
	struct ring_consumer before = consumer;

	ring_scene_consume(&scene, &consumer, FIRST_READER + n_readers++);
	EXPECT(ring_number_at(&consumer.view, consumer.received_before) == first + n_received_ever,
	       "received before", n_received_ever);
	if (n_received > n_released)
		EXPECT(ring_release(&before, before.at, 0) == IPC_ESTALE, "stale", 0);
	n_received = n_released;
}

/* ---- taking over ---- */

static void writer_end(struct writer *writer, bool leaves)
{
	if (writer->life == LIFE_NONE)
		return;
	if (leaves || writer->life == LIFE_ALIVE)
		ring_leave_producer(&writer->producer);
	else if (writer->producer.claim != &writer->producer.claim_alone)
		free(writer->producer.claim);
	ring_scene_end(&scene, writer->handle);
	writer->life = LIFE_NONE;
	writer->n_claims = 0;
}

static struct writer *writer_new(void)
{
	for (unsigned i = 0; i < LIVE_MAX; ++i) {
		if (writers[i].life == LIFE_NONE)
			return &writers[i];
	}
	return NULL;
}

static void do_take(void)
{
	struct writer *writer = writer_new(), *before = now;
	enum life life = pick(2) ? LIFE_ALIVE : LIFE_NAMELESS;
	int r;

	if (!writer)
		return;
	if (before && pick(3) == 0)
		writer_end(before, pick(2));
	writer->handle = ++n_handles;
	n_strays_taken += before && before->life != LIFE_NONE && before->producer.n_strays > 0;
	r = ring_scene_try_producer(&scene, &writer->producer, writer->handle,
				    life == LIFE_ALIVE ? (uint32_t)getpid() : 0);
	EXPECT(r == 0 || r == IPC_EBUSY, "take", r);
	if (r == IPC_EBUSY) {
		++n_busy;
		ring_scene_end(&scene, writer->handle);
		is_busy = !before || before->life == LIFE_NONE ||
			  !ring_producer_is(&before->producer);
		now = is_busy ? NULL : before;
		/* It left nothing behind but its word. */
		ring_leave_producer(&writer->producer);
		return;
	}
	writer->life = life;
	writer->n_claims = 0;
	EXPECT(writer->producer.number == first + n_sent, "number", writer->producer.number);
	is_busy = false;
	was_taken_back = false;
	now = writer;
	++n_over;
}

/* Who had the end writes on, and is told so. */
static void scribble(void)
{
	for (unsigned i = 0; i < LIVE_MAX; ++i) {
		struct writer *writer = &writers[i];
		void *data;

		if (writer->life == LIFE_NONE || writer == now)
			continue;
		for (unsigned k = 0; k < writer->n_claims; ++k)
			memset(writer->claim[k].data, (int)step, writer->claim[k].size);
		if (pick(4) == 0)
			EXPECT(ring_claim(&writer->producer, 16, &data) == IPC_ESTALE, "stale", i);
		if (pick(4) == 0 && writer->n_claims > 0) {
			struct ring_commit commit =
				ring_scene_commit(7, pick(writer->claim[0].size + 1), 0xff);

			EXPECT(ring_commit(
				       &writer->producer,
				       ring_find_claim(&writer->producer, writer->claim[0].data),
				       &commit) == IPC_ESTALE,
			       "stale", i);
		}
		if (pick(60) == 0)
			writer_end(writer, pick(2));
	}
}

/* ---- all of it ---- */

static void do_something(void)
{
	uint64_t what = pick(100);

	if (!now || what < 4)
		do_take();
	else if (what < 25)
		do_send();
	else if (what < 40)
		do_claim();
	else if (what < 55)
		do_end_of_claim(true);
	else if (what < 59)
		do_end_of_claim(false);
	else if (what < 61)
		do_take_back();
	else if (what < 85)
		do_receive();
	else if (what < 98)
		do_release();
	else
		do_take_reader();
}

/* Everybody else is gone. */
static void end_well(void)
{
	uint64_t units = 0;

	for (unsigned i = 0; i < LIVE_MAX; ++i)
		writer_end(&writers[i], i % 2);
	now = NULL;
	do_take();
	EXPECT(now != NULL, "who takes", 0);
	for (unsigned i = 0; i < 60; ++i) {
		while (n_received < n_sent)
			do_receive();
		do_receive();
		do_release();
		do_send();
	}
	do_receive();
	do_release();
	while (ring_scene_send(&now->producer, 0, 1) == 0)
		++units;
	EXPECT(units == consumer.view.capacity - 1, "units of room", units);
	writer_end(now, true);
}

static void run(uint64_t capacity, uint64_t record_max)
{
	random_state = seed * UINT64_C(1000003);
	first = pick(2) ? 1 : UINT64_MAX - pick(300);
	n_sent = n_received = n_received_ever = n_released = 0;
	n_handles = n_readers = 0;
	now = NULL;
	is_busy = was_taken_back = false;
	memset(writers, 0, sizeof(writers));

	ring_scene_init(&scene, capacity, record_max, first);
	ring_scene_move(&scene, pick(2) ? RING_POSITION_MASK - pick(600) : pick(600), first,
			pick(2) ? RING_TAG_MASK - pick(4) : 0);
	ring_scene_consume(&scene, &consumer, FIRST_READER + n_readers++);
	for (step = 0; step < STEPS; ++step) {
		do_something();
		scribble();
	}
	end_well();
	ring_scene_deinit(&scene);
}

static unsigned setting(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

Test(ring_model, everything_at_random_is_as_the_list_says, .timeout = 100)
{
	static const uint64_t shapes[][2] = {{4096, 1024}, {4096, 300}, {5008, 777}, {16384, 4096}};
	unsigned n_seeds = setting("IPC_MODEL_SEEDS", 2000), begin = setting("IPC_MODEL_SEED", 1);

	for (seed = begin; seed < begin + n_seeds; ++seed)
		run(shapes[seed % 4][0], shapes[seed % 4][1]);
	if (n_seeds >= 100) {
		cr_assert_gt(n_busy, 0);
		cr_assert_gt(n_over, n_seeds);
		cr_assert_gt(n_back, n_seeds);
		cr_assert_gt(n_strays_taken, 0);
	}
}
