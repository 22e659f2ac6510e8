/* SPDX-License-Identifier: MIT */
/*
 * C-1 C-5 C-6 C-8 C-14 I-2 I-3: one stream, in order, whole, through memory of any shape; room to
 * the unit; several claims; what is taken back.  Who takes over is in ring_takes.c.
 */
#include "libipc/core/ring.h"

#include <criterion/criterion.h>

#include "tests/support/leaks.h"
#include "tests/support/ring_scene.h"

enum { CAPACITY = 4096, RECORD_MAX = 1000, SALT = 1 };

static struct ring_scene scene;
static struct ring_producer producer;
static struct ring_consumer consumer;
static struct leaks leaks;

static void begin(uint64_t capacity, uint64_t record_max, uint64_t position, uint64_t number)
{
	ring_scene_init(&scene, capacity, record_max, number);
	if (position)
		ring_scene_move(&scene, position, number, 5);
	ring_scene_produce(&scene, &producer, 1);
	ring_scene_consume(&scene, &consumer, 2);
}

static void end(void)
{
	ring_leave_producer(&producer);
	ring_leave_consumer(&consumer);
	ring_scene_deinit(&scene);
}

static void setup(void)
{
	leaks_begin(&leaks);
	begin(CAPACITY, RECORD_MAX, 0, 1);
}

static void teardown(void)
{
	end();
	leaks_check(&leaks);
}

static uint64_t random_state = 1;

static uint64_t pick(uint64_t n)
{
	random_state += UINT64_C(0x9e3779b97f4a7c15);
	return ring_scene_mix(random_state) % n;
}

/* Sends as the next number. */
static void send(uint64_t size)
{
	int r = ring_scene_send(&producer, size, SALT);

	cr_assert_eq(r, 0, "a record of %lu: %d", (unsigned long)size, r);
}

/* Comes as this number, and has this size. */
static struct ring_received receive(uint64_t number, uint64_t size)
{
	struct ring_received record;
	int r = ring_scene_receive(&consumer, &record);

	cr_assert_eq(r, 0, "record %lu: %d", (unsigned long)number, r);
	cr_assert_null(ring_scene_wrong(&record, number), "record %lu: %s is wrong",
		       (unsigned long)number, ring_scene_wrong(&record, number));
	cr_assert_eq(record.size, size, "record %lu has %lu bytes, not %lu", (unsigned long)number,
		     (unsigned long)record.size, (unsigned long)size);
	return record;
}

static void release_all(void)
{
	if (consumer.at != ring_position(consumer.tail))
		cr_assert_eq(ring_release(&consumer, consumer.at, 3), 0);
}

static void expect_nothing(void)
{
	struct ring_received record;
	/* In this order: a hole at the end is told of once. */
	int r = ring_peek(&consumer, &record);

	cr_assert_eq(r, IPC_EAGAIN, "%d, and the next one is to have number %lu", r,
		     (unsigned long)producer.number);
	cr_assert_eq(ring_probe(&consumer), IPC_EAGAIN);
}

/* ---- the shape ---- */

Test(ring, shapes_that_are_not_legal_are_refused)
{
	static _Alignas(64) struct ring ring;
	static _Alignas(64) unsigned char data[64];
	struct ring_view view;

	cr_assert_eq(ring_data_size(0, 1), 0);
	cr_assert_eq(ring_data_size(RING_CAPACITY_MAX + 1, 100), 0);
	cr_assert_eq(ring_data_size(RING_CAPACITY_MAX, RING_RECORD_MAX + 1), 0);
	cr_assert_eq(ring_data_size(4096, 4097), 0);
	cr_assert_eq(ring_data_size(UINT64_MAX, UINT64_MAX), 0);
	cr_assert_eq(ring_data_size(UINT64_MAX, 100), 0);
	cr_assert_eq(ring_data_size(4096, UINT64_MAX), 0);
	cr_assert_gt(ring_data_size(4096, 1024), 4096);
	cr_assert_gt(ring_data_size(RING_CAPACITY_MAX, RING_RECORD_MAX), RING_CAPACITY_MAX);
	cr_assert_eq(ring_attach(&view, &ring, data, 0, 1), IPC_EINVAL);
	cr_assert_eq(ring_attach(&view, &ring, data, 4096, 4097), IPC_EINVAL);
}

Test(ring, it_begins_empty, .init = setup, .fini = teardown)
{
	expect_nothing();
	cr_assert_eq(ring_depth(&producer.view), 0);
	cr_assert_eq(ring_depth(&consumer.view), 0);
	cr_assert_eq(producer.number, 1);
	cr_assert_eq(ring_number_at(&consumer.view, consumer.at), 1);
	cr_assert(ring_producer_is(&producer));
	cr_assert(ring_consumer_is(&consumer));
}

/* ---- order ---- */

/* C-1 C-6 I-3.  What is there is queued in `size`, from the number of the next to be received. */
static void stream(uint64_t n_records, uint64_t number, uint64_t slack)
{
	enum { QUEUED = 1024 };
	static uint64_t size[QUEUED];
	uint64_t n_sent = 0, n_received = 0, n_over = 0, n_full = 0;

	while (n_received < n_records) {
		for (uint64_t burst = pick(8); burst > 0 && n_sent - n_received < QUEUED; --burst) {
			uint64_t bytes = pick(3) ? pick(scene.record_max + 1) : pick(100);
			int r;

			if (bytes > scene.record_max)
				bytes = scene.record_max;
			cr_assert_eq(producer.number, number + n_sent);
			r = ring_scene_send(&producer, bytes, SALT);
			n_full += r == IPC_EAGAIN;
			if (r == IPC_EAGAIN)
				break;
			cr_assert_eq(r, 0);
			size[n_sent++ % QUEUED] = bytes;
		}
		for (uint64_t burst = pick(8); burst > 0 && n_received != n_sent; --burst) {
			struct ring_received record =
				receive(number + n_received, size[n_received % QUEUED]);

			n_over += (unsigned char *)record.bytes + record.size >
				  scene.data + (consumer.view.mask + 1) * RING_UNIT;
			++n_received;
			if (pick(slack) == 0)
				release_all();
		}
		if (n_received == n_sent) {
			expect_nothing();
			release_all();
		}
	}
	cr_assert_gt(n_over, 0, "no record ran over the end of a lap");
	cr_assert_gt(n_full, 0, "the ring was never full");
}

Test(ring, records_of_any_size_come_in_order_over_many_laps)
{
	static const uint64_t shapes[][2] = {
		{4096, 1024}, {4096, 1000},  {4112, 1028},       {5000, 777},
		{8176, 2044}, {65536, 4096}, {1 << 20, 1 << 18},
	};

	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); ++i) {
		begin(shapes[i][0], shapes[i][1], 0, 1);
		stream(i < 5 ? 20000 : 2000, 1, 1 + i);
		end();
	}
}

/* Positions wrap at 2^40, numbers at 2^64. */
Test(ring, positions_and_numbers_wrap)
{
	for (uint64_t before = 0; before < 700; before += 13) {
		uint64_t number = UINT64_MAX - before / 20;

		begin(CAPACITY, RECORD_MAX, RING_POSITION_MASK - before, number);
		stream(100, number, 3);
		cr_assert_lt(ring_position(producer.head), UINT64_C(1) << 20);
		cr_assert_lt(producer.number, 200);
		end();
	}
}

Test(ring, every_size_comes_whole, .init = setup, .fini = teardown)
{
	uint64_t number = 1;

	for (uint64_t size = 0; size <= RECORD_MAX; ++size) {
		struct ring_received record;

		send(size);
		record = receive(number++, size);
		cr_assert_eq((uintptr_t)record.bytes % 16, 0);
		cr_assert_eq(ring_distance(record.at, record.after), 1 + ring_units(size));
		release_all();
	}
}

/* ---- room ---- */

/* What the ring takes when it is empty, in units. */
static uint64_t fill_up(uint64_t size)
{
	uint64_t n = 0;

	while (ring_probe_room(&producer, size) == 0) {
		send(size);
		n += 1 + ring_units(size);
	}
	cr_assert_eq(ring_probe_room(&producer, size), IPC_EAGAIN);
	cr_assert_eq(ring_scene_send(&producer, size, SALT), IPC_EAGAIN);
	return n;
}

static void drain(void)
{
	struct ring_received record;

	while (ring_scene_receive(&consumer, &record) == 0)
		;
	release_all();
}

/* C-6 I-3: wherever the stream stands in its lap, it holds all of its capacity but the one unit. */
Test(ring, what_fits_is_exact_at_each_position)
{
	static const uint64_t shapes[][2] = {{4096, 1000}, {4112, 1028}, {5008, 777}};

	for (unsigned i = 0; i < 3; ++i) {
		begin(shapes[i][0], shapes[i][1], 0, 1);
		for (unsigned n = 0; n < 600; ++n) {
			uint64_t size = pick(shapes[i][1] + 1), units = 1 + ring_units(size);
			uint64_t room = consumer.view.capacity - 1, held;

			held = fill_up(size);
			cr_assert_eq(held, room / units * units,
				     "%lu units of %lu, in records of %lu", (unsigned long)held,
				     (unsigned long)room, (unsigned long)units);
			cr_assert_eq(ring_depth(&producer.view), held * RING_UNIT);
			/* The rest, by the unit. */
			while (held < room) {
				send(0);
				++held;
			}
			cr_assert_eq(ring_probe_room(&producer, 0), IPC_EAGAIN);
			drain();
			cr_assert_eq(ring_depth(&producer.view), 0);
			send(0); /* the next one begins one further */
			drain();
		}
		end();
	}
}

Test(ring, room_comes_back_as_it_is_released, .init = setup, .fini = teardown)
{
	struct ring_received record;
	uint64_t n = fill_up(112) / 8;

	record = receive(1, 112);
	cr_assert_eq(ring_probe_room(&producer, 112), IPC_EAGAIN, "it is not released yet");
	cr_assert_eq(ring_release(&consumer, record.after, 0), 0);
	cr_assert_eq(ring_probe_room(&producer, 112), 0);
	send(112);
	cr_assert_eq(ring_scene_send(&producer, 112, SALT), IPC_EAGAIN);
	for (uint64_t i = 2; i <= n + 1; ++i)
		(void)receive(i, 112);
	expect_nothing();
}

/* What `keep` names stays free, beside the one unit. */
Test(ring, what_the_user_keeps_is_not_given_to_claims, .init = setup, .fini = teardown)
{
	producer.keep = 10;
	cr_assert_eq(fill_up(0), consumer.view.capacity - 1 - 10);
	producer.keep = 0;
	cr_assert_eq(fill_up(0), 10);
}

Test(ring, too_large_is_never_claimed, .init = setup, .fini = teardown)
{
	void *data;

	cr_assert_eq(ring_claim(&producer, RECORD_MAX, &data), 0);
	cr_assert_eq((uintptr_t)data % 16, 0);
	ring_abort(&producer, ring_find_claim(&producer, data));
	expect_nothing();
	cr_assert_eq(ring_depth(&producer.view), 0);
}

/* ---- the depth ---- */

Test(ring, depth_and_its_maximum_are_told, .init = setup, .fini = teardown)
{
	send(100);
	cr_assert_eq(ring_depth(&consumer.view), 8 * RING_UNIT);
	send(16);
	cr_assert_eq(ring_depth(&consumer.view), 10 * RING_UNIT);
	(void)receive(1, 100);
	cr_assert_eq(ring_depth(&consumer.view), 10 * RING_UNIT);
	release_all();
	cr_assert_eq(ring_depth(&consumer.view), 2 * RING_UNIT);
	drain();
	cr_assert_eq(ring_depth(&consumer.view), 0);
	cr_assert_geq(atomic_load(&scene.ring->depth_max), 10);
	cr_assert_leq(atomic_load(&scene.ring->depth_max), 11);
}

/* ---- several claims ---- */

struct open_claim {
	unsigned char *data;
	uint64_t size;
};

static struct open_claim claim(uint64_t size)
{
	struct open_claim open = {.size = size};
	void *data;

	cr_assert_eq(ring_claim(&producer, size, &data), 0);
	open.data = data;
	memset(data, 0xee, size);
	return open;
}

static int try_commit(const struct open_claim *open, uint64_t size)
{
	struct ring_commit commit = ring_scene_commit(producer.number, size, SALT);
	struct ring_claim *found = ring_find_claim(&producer, open->data);

	cr_assert_not_null(found);
	cr_assert_eq(found->size, open->size);
	ring_scene_fill(open->data, size, producer.number, SALT);
	return ring_commit(&producer, found, &commit);
}

static void commit(const struct open_claim *open, uint64_t size)
{
	int r = try_commit(open, size);

	cr_assert_eq(r, 0, "commit of %lu in %lu: %d", (unsigned long)size,
		     (unsigned long)open->size, r);
	cr_assert_null(ring_find_claim(&producer, open->data));
}

static void abandon(const struct open_claim *open)
{
	ring_abort(&producer, ring_find_claim(&producer, open->data));
	cr_assert_null(ring_find_claim(&producer, open->data));
}

/* C-14. */
Test(ring, order_is_that_of_the_commits, .init = setup, .fini = teardown)
{
	struct open_claim a = claim(100), b = claim(50), c = claim(200);

	expect_nothing();
	commit(&b, 50);
	commit(&c, 150);
	(void)receive(1, 50);
	(void)receive(2, 150);
	expect_nothing();
	commit(&a, 99);
	(void)receive(3, 99);
	expect_nothing();
	release_all();
	cr_assert_eq(ring_depth(&producer.view), 0);
}

Test(ring, aborted_claims_leave_nothing, .init = setup, .fini = teardown)
{
	struct open_claim a = claim(100), b = claim(50), c = claim(200);

	abandon(&b);
	commit(&c, 200);
	abandon(&a);
	(void)receive(1, 200);
	expect_nothing();
	release_all();
	cr_assert_eq(ring_depth(&producer.view), 0);
	cr_assert_eq(fill_up(0), consumer.view.capacity - 1);
}

/* C-14: what was claimed and not used is room again. */
Test(ring, shrunken_commits_give_the_rest_back, .init = setup, .fini = teardown)
{
	for (uint64_t i = 1; i <= 500; ++i) {
		struct open_claim a = claim(RECORD_MAX);
		uint64_t size = pick(RECORD_MAX + 1);

		commit(&a, size);
		cr_assert_eq(ring_depth(&producer.view), (1 + ring_units(size)) * RING_UNIT);
		(void)receive(i, size);
		release_all();
	}
}

/* C-14: however many claims are open and in which order they end, a commit always finds room; and
 * when all is received the ring is empty. */
static void claims_at_random(uint64_t n_rounds, unsigned n_open_max, uint64_t size_max)
{
	enum { QUEUED = 1024 };
	static uint64_t size[QUEUED];
	struct open_claim open[32];
	unsigned n_open = 0;
	uint64_t n_sent = producer.number, n_received = producer.number;

	for (uint64_t round = 0; round < n_rounds; ++round) {
		uint64_t what = pick(8);

		if (what < 4 && n_open < n_open_max && n_sent + n_open - n_received < QUEUED) {
			uint64_t bytes = pick(size_max + 1);
			void *data;
			int r = ring_claim(&producer, bytes, &data);

			cr_assert(r == 0 || r == IPC_EAGAIN, "claim: %d", r);
			if (r == 0) {
				open[n_open++] = (struct open_claim){data, bytes};
				memset(data, 0xdd, bytes);
			}
		} else if (what < 6 && n_open > 0) {
			unsigned i = (unsigned)pick(n_open);
			uint64_t bytes = pick(2) ? open[i].size : pick(open[i].size + 1);

			commit(&open[i], bytes);
			size[n_sent++ % QUEUED] = bytes;
			open[i] = open[--n_open];
		} else if (what < 7 && n_open > 0 && pick(3) == 0) {
			unsigned i = (unsigned)pick(n_open);

			abandon(&open[i]);
			open[i] = open[--n_open];
		} else if (n_received != n_sent) {
			(void)receive(n_received, size[n_received % QUEUED]);
			++n_received;
			if (pick(2))
				release_all();
		}
	}
	while (n_open > 0) {
		commit(&open[--n_open], 0);
		size[n_sent++ % QUEUED] = 0;
	}
	while (n_received != n_sent) {
		(void)receive(n_received, size[n_received % QUEUED]);
		++n_received;
	}
	expect_nothing();
	release_all();
	cr_assert_eq(producer.n_claims, 0);
	cr_assert_eq(producer.n_strays, 0);
	cr_assert_eq(ring_depth(&producer.view), 0);
	cr_assert_eq(fill_up(0), consumer.view.capacity - 1);
}

Test(ring, claims_end_in_any_order, .timeout = 60)
{
	static const struct {
		uint64_t capacity, record_max, size_max;
		unsigned n_open_max;
	} cases[] = {
		{4096, 1000, 1000, 2}, {4096, 1000, 1000, 8}, {4096, 1024, 60, 32},
		{4112, 1028, 1028, 3}, {5008, 777, 300, 16},  {65536, 4096, 4096, 32},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
		begin(cases[i].capacity, cases[i].record_max, RING_POSITION_MASK - 3000,
		      UINT64_MAX - 1000);
		for (unsigned n = 0; n < 10; ++n) {
			claims_at_random(4000, cases[i].n_open_max, cases[i].size_max);
			drain();
		}
		end();
	}
}

/* A claim lies still while the stream goes round: it is copied, and its bytes are what was written.
 */
Test(ring, claim_that_is_passed_by_keeps_its_bytes, .init = setup, .fini = teardown)
{
	struct open_claim old = claim(300);
	uint64_t number = 1;

	memset(old.data, 0x5a, 300);
	for (unsigned i = 0; i < 400; ++i) {
		send(pick(500));
		drain();
		++number;
		for (unsigned k = 0; k < 300; ++k)
			cr_assert_eq(old.data[k], 0x5a, "byte %u after %u records", k, i);
	}
	cr_assert_eq(producer.number, number);
	commit(&old, 300);
	(void)receive(number, 300);
	expect_nothing();
}

Test(ring, address_that_is_no_claim_is_not_found, .init = setup, .fini = teardown)
{
	struct open_claim a = claim(100);

	cr_assert_null(ring_find_claim(&producer, a.data + 16));
	cr_assert_null(ring_find_claim(&producer, NULL));
	cr_assert_null(ring_find_claim(&producer, &a));
	abandon(&a);
	cr_assert_null(ring_find_claim(&producer, a.data));
}

Test(ring, claims_vanish_when_the_producer_leaves, .init = setup, .fini = teardown)
{
	(void)claim(100);
	(void)claim(100);
	send(10);
	ring_leave_producer(&producer);

	ring_scene_produce(&scene, &producer, 3);
	cr_assert_eq(producer.number, 2);
	send(20);
	(void)receive(1, 10);
	(void)receive(2, 20);
	expect_nothing();
	release_all();
	cr_assert_eq(fill_up(0), consumer.view.capacity - 1);
}

/* ---- taking back ---- */

Test(ring, what_was_taken_back_is_sent_again, .init = setup, .fini = teardown)
{
	uint64_t position;

	send(100);
	send(200);
	position = ring_position(producer.head);
	send(300);
	send(RECORD_MAX);
	(void)receive(1, 100);
	cr_assert_eq(ring_rewind(&producer, position, 9), 0);
	consumer.head = consumer.at; /* what it saw is not so any more */
	cr_assert_eq(ring_state(atomic_load(&scene.ring->head)), 9);
	cr_assert_eq(producer.number, 3);
	cr_assert_eq(ring_depth(&producer.view), 22 * RING_UNIT);

	send(50);
	send(60);
	(void)receive(2, 200);
	(void)receive(3, 50);
	(void)receive(4, 60);
	expect_nothing();
	release_all();
	cr_assert_eq(fill_up(0), consumer.view.capacity - 1);
}

/* Claims of before stay whole, and are committed if there is room for their copies. */
Test(ring, claims_outlive_what_is_taken_back, .init = setup, .fini = teardown)
{
	uint64_t position = ring_position(producer.head), n_full = 0;
	uint64_t number = 1;

	for (unsigned n = 0; n < 200; ++n) {
		struct open_claim a, b;
		int r;

		send(pick(300));
		a = claim(300);
		send(pick(300));
		b = claim(pick(200));
		memset(a.data, 0x11, a.size);
		memset(b.data, 0x22, b.size);
		cr_assert_eq(ring_rewind(&producer, position, 0), 0);
		consumer.head = consumer.at;
		cr_assert_eq(producer.number, number);
		for (unsigned i = 0; i < 3; ++i) {
			send(100);
			(void)receive(number++, 100);
			for (unsigned k = 0; k < a.size; ++k)
				cr_assert_eq(a.data[k], 0x11);
			for (unsigned k = 0; k < b.size; ++k)
				cr_assert_eq(b.data[k], 0x22);
			if (n % 2)
				release_all();
		}
		r = try_commit(&b, b.size);
		if (r == 0)
			(void)receive(number++, b.size);
		else
			abandon(&b);
		n_full += r == IPC_EAGAIN;
		cr_assert(r == 0 || r == IPC_EAGAIN);
		release_all();
		commit(&a, a.size);
		(void)receive(number++, a.size);
		expect_nothing();
		release_all();
		cr_assert_eq(ring_depth(&producer.view), 0);
		position = ring_position(producer.head);
	}
	cr_assert_eq(n_full, 0, "there was room");
}

Test(ring, ring_is_empty_when_all_was_taken_back, .init = setup, .fini = teardown)
{
	send(100);
	cr_assert_eq(ring_rewind(&producer, ring_position(producer.view.ring->tail), 0), 0);
	expect_nothing();
	cr_assert_eq(fill_up(0), consumer.view.capacity - 1);
}

/* ---- states, and looking on ---- */

Test(ring, states_go_with_the_words, .init = setup, .fini = teardown)
{
	struct ring_commit commit = ring_scene_commit(1, 5, SALT);
	struct ring_received record;

	commit.state = 11;
	commit.note = 0x1234567800;
	cr_assert_eq(ring_send(&producer, "bytes", &commit), 0);
	cr_assert_eq(ring_state(atomic_load(&scene.ring->head)), 11);
	cr_assert_eq(ring_at(&producer.view, ring_position(producer.head))->what, 0x1234567800);
	cr_assert_eq(ring_peek(&consumer, &record), 0);
	cr_assert_eq(ring_state(consumer.head_word), 11);
	cr_assert_eq(memcmp(record.bytes, "bytes", 5), 0);
	cr_assert_eq(ring_release(&consumer, record.after, 12), 0);
	cr_assert_eq(ring_state(atomic_load(&scene.ring->tail)), 12);
	consumer.at = record.after;
	send(0);
	(void)receive(2, 0);
}

Test(ring, looker_sees_a_position_with_its_number, .init = setup, .fini = teardown)
{
	uint64_t word, number;

	for (uint64_t i = 1; i < 300; ++i) {
		cr_assert_eq(ring_look(&consumer.view, &scene.ring->head, &word, &number), 0);
		cr_assert_eq(word, producer.head);
		cr_assert_eq(number, i);
		cr_assert_eq(ring_look(&consumer.view, &scene.ring->tail, &word, &number), 0);
		cr_assert_eq(word, consumer.tail);
		cr_assert_eq(number, i);
		send(pick(RECORD_MAX));
		drain();
	}
}

/* Released up to the middle: the number there is the next one's that was not released. */
Test(ring, number_at_the_tail_is_of_the_first_that_is_held, .init = setup, .fini = teardown)
{
	struct open_claim a = claim(48);
	struct ring_received record;
	uint64_t word, number;

	send(100);
	commit(&a, 40);
	record = receive(1, 100);
	(void)receive(2, 40);
	cr_assert_eq(ring_release(&consumer, record.after, 0), 0);
	cr_assert_eq(ring_look(&consumer.view, &scene.ring->tail, &word, &number), 0);
	cr_assert_eq(number, 2);
	release_all();
	cr_assert_eq(ring_look(&consumer.view, &scene.ring->tail, &word, &number), 0);
	cr_assert_eq(number, 3);
}
