/* SPDX-License-Identifier: MIT */
/*
 * C-2 C-3 C-4 C-5 I-5: the ends of a ring change hands.  Of the dead, of those that are held dead
 * and live, of the living, who go on writing to what they had claimed.
 */
#include "libipc/core/ring.h"

#include <criterion/criterion.h>
#include <signal.h>

#include "libipc/core/ring_ban.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/ring_scene.h"

enum { CAPACITY = 8192, RECORD_MAX = 1000, N_PRODUCERS = 8, SALT_OF_NOBODY = 200 };
enum { CLAIMS_MAX = 8 };

static struct ring_scene scene;
static struct ring_producer producers[N_PRODUCERS + 1]; /* by number of the handle */
static struct ring_consumer consumer;
static struct leaks leaks;

/* What each has claimed and goes on writing to. */
static struct {
	unsigned char *data[CLAIMS_MAX];
	uint64_t size[CLAIMS_MAX];
	unsigned n;
} claims[N_PRODUCERS + 1];

static uint64_t n_received;
static uint64_t random_state = 1;

static uint64_t pick(uint64_t n)
{
	random_state += UINT64_C(0x9e3779b97f4a7c15);
	return ring_scene_mix(random_state) % n;
}

static void begin(uint64_t position, uint64_t tag)
{
	ring_scene_init(&scene, CAPACITY, RECORD_MAX, 1);
	ring_scene_move(&scene, position, 1, tag);
	ring_scene_consume(&scene, &consumer, 100);
}

static void setup(void)
{
	leaks_begin(&leaks);
	begin(1000, 5);
}

static void teardown(void)
{
	for (unsigned n = 1; n <= N_PRODUCERS; ++n) {
		if (producers[n].table)
			ring_leave_producer(&producers[n]);
	}
	ring_scene_deinit(&scene);
	leaks_check(&leaks);
}

/* ---- what they do ---- */

static void take(unsigned n)
{
	ring_scene_produce(&scene, &producers[n], n);
}

static int try_claim(unsigned n, uint64_t size)
{
	void *data;
	int r = ring_claim(&producers[n], size, &data);

	if (r < 0)
		return r;
	claims[n].data[claims[n].n] = data;
	claims[n].size[claims[n].n++] = size;
	return 0;
}

static void claim(unsigned n, uint64_t size)
{
	cr_assert_eq(try_claim(n, size), 0);
}

/* All who ever claimed anything write over all of it. */
static void scribble(void)
{
	static unsigned char byte;

	++byte;
	for (unsigned n = 1; n <= N_PRODUCERS; ++n) {
		for (unsigned i = 0; i < claims[n].n; ++i)
			memset(claims[n].data[i], byte, claims[n].size[i]);
	}
}

/* And the library in their name. */
static void commit_late(unsigned n)
{
	struct ring_commit commit = ring_scene_commit(SALT_OF_NOBODY, 0, SALT_OF_NOBODY);
	void *data;

	for (unsigned i = 0; i < claims[n].n; ++i) {
		struct ring_claim *found = ring_find_claim(&producers[n], claims[n].data[i]);

		if (!found)
			continue;
		commit.size = claims[n].size[i] / 2;
		cr_assert_eq(ring_commit(&producers[n], found, &commit), IPC_ESTALE);
	}
	cr_assert_eq(ring_claim(&producers[n], 10, &data), IPC_ESTALE);
	commit.size = 8;
	cr_assert_eq(ring_send(&producers[n], "scribble", &commit), IPC_ESTALE);
	cr_assert_eq(ring_rewind(&producers[n], ring_position(producers[n].head), 0), IPC_ESTALE);
	cr_assert_not(ring_producer_is(&producers[n]));
}

static void expect(uint64_t number, unsigned salt)
{
	struct ring_received record;
	int r = ring_scene_receive(&consumer, &record);

	cr_assert_eq(r, 0, "record %lu: %d", (unsigned long)number, r);
	cr_assert_null(ring_scene_wrong(&record, number), "record %lu: %s is wrong",
		       (unsigned long)number, ring_scene_wrong(&record, number));
	cr_assert_eq(record.flags, salt, "record %lu is of %u", (unsigned long)number,
		     record.flags);
	++n_received;
}

static void release_all(void)
{
	if (consumer.at != ring_position(consumer.tail))
		cr_assert_eq(ring_release(&consumer, consumer.at, 0), 0);
}

static void expect_nothing(void)
{
	struct ring_received record;
	int r = ring_peek(&consumer, &record);

	cr_assert_eq(r, IPC_EAGAIN, "%d", r);
}

/* Some laps, while the others write where they may. */
static void go_round(unsigned n, unsigned n_records)
{
	struct ring_producer *producer = &producers[n];

	for (unsigned i = 0; i < n_records; ++i) {
		uint64_t number = producer->number, n_sent = 0;

		scribble();
		while (n_sent < 1 + pick(4)) {
			int r = ring_scene_send(producer, pick(RECORD_MAX + 1), n);

			if (r == IPC_EAGAIN)
				break;
			cr_assert_eq(r, 0, "record %lu: %d", (unsigned long)number, r);
			++n_sent;
			scribble();
		}
		cr_assert_gt(n_sent, 0, "there is no room in an empty ring");
		for (uint64_t k = 0; k < n_sent; ++k)
			expect(number + k, n);
		expect_nothing();
		release_all();
	}
}

static uint64_t fill_up(unsigned n)
{
	uint64_t units = 0;

	while (ring_scene_send(&producers[n], 0, n) == 0)
		++units;
	return units;
}

static void drain(void)
{
	struct ring_received record;

	while (ring_scene_receive(&consumer, &record) == 0)
		;
	release_all();
}

static unsigned n_banned(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < RING_BANS_MAX; ++i)
		n += atomic_load(&scene.ring->ban[i].who) != 0;
	return n;
}

/* ---- producers ---- */

/* C-5. */
Test(ring_takes, end_of_the_dead_is_taken, .init = setup, .fini = teardown)
{
	void *data;

	cr_assert_eq(ring_scene_try_producer(&scene, &producers[1], 1, RING_SCENE_NO_PROCESS), 0);
	cr_assert_eq(ring_scene_send(&producers[1], 500, 1), 0);
	cr_assert_eq(ring_claim(&producers[1], 700, &data), 0);
	ring_scene_end(&scene, 1);

	take(2);
	cr_assert_eq(producers[2].number, 2);
	cr_assert_eq(n_banned(), 0);
	cr_assert_eq(ring_scene_send(&producers[2], 600, 2), 0);
	expect(1, 1);
	expect(2, 2);
	expect_nothing();
	release_all();
	cr_assert_eq(fill_up(2), consumer.view.capacity - 1);
}

/* C-3. */
Test(ring_takes, living_owner_writes_on_and_harms_nobody, .init = setup, .fini = teardown)
{
	take(1);
	cr_assert_eq(ring_scene_send(&producers[1], 100, 1), 0);
	claim(1, 900);
	claim(1, 50);

	take(2);
	cr_assert_eq(n_banned(), 1);
	expect(1, 1);
	expect_nothing();
	for (unsigned i = 0; i < 20; ++i) {
		commit_late(1);
		go_round(2, 20);
	}
}

/* What is banned is room again when its writer is gone, at the latest when the stream gets there.
 */
static void expect_room_again(unsigned n)
{
	go_round(n, 30);
	cr_assert_eq(n_banned(), 0);
	drain();
	cr_assert_eq(fill_up(n), consumer.view.capacity - 1);
	drain();
}

Test(ring_takes, room_comes_back_when_the_writer_has_left, .init = setup, .fini = teardown)
{
	take(1);
	claim(1, 900);
	take(2);
	go_round(2, 20);
	cr_assert_eq(n_banned(), 1);
	cr_assert_lt(fill_up(2), consumer.view.capacity - 1);
	drain();

	ring_leave_producer(&producers[1]);
	claims[1].n = 0;
	expect_room_again(2);
}

Test(ring_takes, room_comes_back_when_the_process_is_gone, .init = setup, .fini = teardown)
{
	pid_t pid = process_fork();
	void *data;

	if (pid == 0) {
		for (;;)
			(void)pause();
	}
	cr_assert_eq(ring_scene_try_producer(&scene, &producers[1], 1, (uint32_t)pid), 0);
	cr_assert_eq(ring_claim(&producers[1], 900, &data), 0);
	take(2);
	cr_assert_eq(n_banned(), 1);
	ring_scene_end(&scene, 1);
	go_round(2, 20);
	cr_assert_eq(n_banned(), 1, "it is held dead, and lives");

	cr_assert_eq(kill(pid, SIGKILL), 0);
	(void)process_reap(pid, 30000);
	expect_room_again(2);
}

/* Of a process that nobody knows being held dead is all there is. */
Test(ring_takes, owner_of_no_process_is_gone_with_its_handle, .init = setup, .fini = teardown)
{
	void *data;

	cr_assert_eq(ring_scene_try_producer(&scene, &producers[1], 1, 0), 0);
	cr_assert_eq(ring_claim(&producers[1], 900, &data), 0);
	take(2);
	cr_assert_eq(n_banned(), 1);
	go_round(2, 20);
	cr_assert_eq(n_banned(), 1);
	ring_scene_end(&scene, 1);
	expect_room_again(2);
}

/* The owner's number in its own namespace may be anybody's here, who lives for ever. */
Test(ring_takes, stranger_asks_for_nobody_by_number, .init = setup, .fini = teardown)
{
	void *data;

	take(1);
	cr_assert_eq(ring_claim(&producers[1], 900, &data), 0);
	ring_scene_end(&scene, 1);
	cr_assert_eq(ring_scene_try_producer(&scene, &producers[2], 2, 0), 0);
	cr_assert_eq(n_banned(), 0);
	expect_room_again(2);
}

Test(ring_takes, idle_owner_costs_nothing, .init = setup, .fini = teardown)
{
	for (unsigned n = 1; n <= N_PRODUCERS; ++n) {
		take(n);
		go_round(n, 3);
		cr_assert_eq(n_banned(), 0);
	}
	cr_assert_eq(fill_up(N_PRODUCERS), consumer.view.capacity - 1);
}

/* Each has sent something, or nothing: then they all jump from one place. */
static void one_after_the_other(bool sends)
{
	for (unsigned n = 1; n <= 4; ++n) {
		take(n);
		if (sends)
			go_round(n, 10);
		claim(n, 300 + 100 * n);
		scribble();
	}
	take(5);
	cr_assert_eq(n_banned(), 4);
	for (unsigned i = 0; i < 10; ++i) {
		go_round(5, 10);
		for (unsigned n = 1; n <= 4; ++n)
			commit_late(n);
	}

	cr_assert_eq(ring_scene_try_producer(&scene, &producers[6], 6, (uint32_t)getpid()),
		     IPC_EBUSY);
	cr_assert_eq(ring_scene_send(&producers[5], 10, 5), 0, "nothing was taken");
	expect(n_received + 1, 5);
	claim(5, 100);

	ring_leave_producer(&producers[2]);
	claims[2].n = 0;
	drain();
	take(6);
	cr_assert_eq(n_banned(), 4);
	go_round(6, 50);
	for (unsigned n = 1; n <= 5; ++n) {
		if (n != 2)
			commit_late(n);
		ring_leave_producer(&producers[n]);
		claims[n].n = 0;
	}
	expect_room_again(6);
}

Test(ring_takes, four_living_ones_are_banned_and_a_fifth_is_too_many, .init = setup,
     .fini = teardown)
{
	one_after_the_other(true);
}

Test(ring_takes, several_jump_from_one_place, .init = setup, .fini = teardown)
{
	one_after_the_other(false);
}

/* One who was late told how far it claims, after the next one had. */
Test(ring_takes, late_claim_hides_nobody_elses, .init = setup, .fini = teardown)
{
	take(1);
	take(2);
	claim(2, 900);
	claim(2, 400);
	cr_assert_eq(try_claim(1, 10), IPC_ESTALE);
	take(3);
	go_round(3, 50);
}

/* C-14: what was passed by is still written to. */
Test(ring_takes, stray_claims_of_the_living_harm_nobody, .init = setup, .fini = teardown)
{
	take(1);
	claim(1, 500);
	go_round(1, 2);
	claim(1, 300);
	cr_assert_eq(ring_scene_send(&producers[1], 100, 1), 0);
	expect(n_received + 1, 1);
	drain();

	take(2);
	go_round(2, 100);
}

/* All over the lap: where the longest record would never fit nobody gets the end. */
Test(ring_takes, strays_that_leave_no_place_refuse_the_end, .init = setup, .fini = teardown)
{
	take(1);
	for (unsigned i = 0; i < CLAIMS_MAX; ++i) {
		claim(1, RING_UNIT);
		for (unsigned k = 0; k < (i + 1 < CLAIMS_MAX ? 5 : 1); ++k) {
			cr_assert_eq(ring_scene_send(&producers[1], 12 * RING_UNIT, 1), 0);
			expect(n_received + 1, 1);
			release_all();
		}
	}

	for (unsigned n = 2; n <= 3; ++n) {
		cr_assert_eq(ring_scene_try_producer(&scene, &producers[n], n, (uint32_t)getpid()),
			     IPC_EBUSY);
		ring_leave_producer(&producers[n]);
		scribble();
		cr_assert_eq(try_claim(1, 10), IPC_ESTALE);
	}

	ring_leave_producer(&producers[1]);
	claims[1].n = 0;
	take(4);
	go_round(4, 50);
}

/* Also where the ring is so full that the longest record has no place beside them yet. */
Test(ring_takes, stray_claims_in_a_full_ring_harm_nobody, .init = setup, .fini = teardown)
{
	take(1);
	claim(1, 500);
	(void)fill_up(1);

	take(2);
	drain();
	go_round(2, 100);
}

Test(ring_takes, claims_are_all_that_is_banned_of_what_was_taken_back, .init = setup,
     .fini = teardown)
{
	uint64_t position;

	take(1);
	position = ring_position(producers[1].head);
	for (unsigned i = 0; i < 10; ++i)
		cr_assert_eq(ring_scene_send(&producers[1], 400, 1), 0);
	claim(1, 100);
	cr_assert_eq(ring_rewind(&producers[1], position, 0), 0);

	take(2);

	cr_assert_eq(ring_position(producers[2].head), position);
	cr_assert_eq(n_banned(), 1);
	go_round(2, 100);
	commit_late(1);
	go_round(2, 10);
}

/* The claims of the living reach as far as there is room. */
Test(ring_takes, claims_up_to_the_last_unit_are_jumped_over, .init = setup, .fini = teardown)
{
	uint64_t number;

	take(1);
	(void)fill_up(1);
	for (unsigned i = 0; i < 60; ++i) {
		struct ring_received record;

		cr_assert_eq(ring_scene_receive(&consumer, &record), 0);
	}
	release_all();
	claim(1, 59 * RING_UNIT);
	scribble();
	number = producers[1].number;

	take(2);
	scribble();
	cr_assert_eq(ring_scene_send(&producers[2], 0, 2), IPC_EAGAIN);
	drain();
	cr_assert_eq(producers[2].number, number);
	cr_assert_eq(ring_scene_send(&producers[2], 300, 2), 0);
	expect(number, 2);
	go_round(2, 50);
}

Test(ring_takes, older_handle_gets_nothing, .init = setup, .fini = teardown)
{
	struct ring_consumer other;

	take(3);
	cr_assert_eq(ring_scene_try_producer(&scene, &producers[2], 2, (uint32_t)getpid()),
		     IPC_ESTALE);
	cr_assert(ring_producer_is(&producers[3]));
	go_round(3, 3);
	cr_assert_eq(ring_scene_try_consumer(&scene, &other, 99, (uint32_t)getpid()), IPC_ESTALE);
	cr_assert(ring_consumer_is(&consumer));
	go_round(3, 3);
}

Test(ring_takes, tags_wrap)
{
	begin(RING_POSITION_MASK - 50, RING_TAG_MASK - 2);
	for (unsigned n = 1; n <= N_PRODUCERS; ++n) {
		take(n);
		go_round(n, 10);
		if (n == 2 || n == 3)
			claim(n, 500);
		ring_scene_consume(&scene, &consumer, 100 + n);
	}
	cr_assert_lt(ring_tag(producers[N_PRODUCERS].head), 10);
	cr_assert_lt(ring_tag(consumer.tail), 10);
	commit_late(2);
	go_round(N_PRODUCERS, 10);
	ring_scene_deinit(&scene);
}

/* All bits of the word are 0 where tags and positions begin anew. */
Test(ring_takes, mark_that_is_zero_is_a_mark)
{
	const uint64_t mark = ring_word(0, 0, 0);

	begin(0, RING_TAG_MASK);

	cr_assert_eq(consumer.tail, mark);
	cr_assert_eq(atomic_load(&scene.ring->received[0]), mark);
	ring_scene_deinit(&scene);
}

/* The broken owner of a word cannot be followed by numbers that wrap, either. */
Test(ring_takes, numbers_of_handles_wrap)
{
	const uint64_t before = ring_owner(UINT64_C(0x3ffffff) << 16, 1);
	const uint64_t after = ring_owner(UINT64_C(0x4000000) << 16, 1);

	cr_assert(ring_owner_is_newer(after, before));
	cr_assert_not(ring_owner_is_newer(before, after));
	cr_assert_not(ring_owner_is_newer(before, before));
}

/* Half as many numbers later as a word has room for, and some more: it looks older than the first.
 */
#define LATER ((UINT64_C(1) << 25) + 50)

/* As take(), by such a handle. */
static int take_much_later(unsigned n, bool is_open)
{
	const uint64_t id = LATER << 16 | (200 + n);

	liveness_handle_set(scene.table, LIVENESS_SLOT(id), is_open ? id : 0);
	ring_scene_attach(&scene, &producers[n].view);
	return ring_take_producer(&producers[n], scene.table, id, (uint32_t)getpid());
}

/* C-2, C-3 */
Test(ring_takes, ends_of_one_who_died_long_ago_are_taken, .init = setup, .fini = teardown)
{
	const uint64_t id = LATER << 16 | 300;

	take(1);
	go_round(1, 3);
	ring_scene_end(&scene, 1);
	cr_assert_eq(take_much_later(2, true), 0);
	go_round(2, 50);

	ring_scene_end(&scene, 100);
	liveness_handle_set(scene.table, LIVENESS_SLOT(id), id);
	cr_assert_eq(ring_take_consumer(&consumer, scene.table, id, (uint32_t)getpid()), 0);
	go_round(2, 50);
}

/* C-3 */
Test(ring_takes, memory_of_one_who_has_had_the_end_for_long_is_not_used, .init = setup,
     .fini = teardown)
{
	take(1);
	go_round(1, 3);
	claim(1, 800);
	ring_scene_end(&scene, 1);
	cr_assert_eq(take_much_later(2, true), 0);
	cr_assert_eq(n_banned(), 1);
	go_round(2, 50);
	commit_late(1);
}

/* C-3: whoever has been taken over before he began is not open any more: where the one who did it
 * has the end, and where he has left it. */
Test(ring_takes, who_comes_late_does_not_follow, .init = setup, .fini = teardown)
{
	take(1);
	cr_assert_eq(take_much_later(2, true), IPC_ESTALE);
	ring_scene_end(&scene, 1);
	cr_assert_eq(take_much_later(2, false), IPC_ESTALE);
	ring_leave_producer(&producers[1]);
	cr_assert_eq(take_much_later(2, false), IPC_ESTALE);
	ring_scene_open(&scene, 3);
	take(3);
	go_round(3, 3);
}

/* C-3 */
Test(ring_takes, who_comes_very_late_does_not_follow, .init = setup, .fini = teardown)
{
	cr_assert_eq(take_much_later(2, true), 0);
	ring_scene_attach(&scene, &producers[1].view);
	cr_assert_eq(ring_take_producer(&producers[1], scene.table, RING_SCENE_ID(1),
					(uint32_t)getpid()),
		     IPC_ESTALE);
	go_round(2, 3);
}

/* The first part of taking, by a handle as above; then the next one is on his way. */
static void begin_much_later(unsigned n)
{
	const uint64_t id = LATER << 16 | (200 + n);

	liveness_handle_set(scene.table, LIVENESS_SLOT(id), id);
	ring_scene_attach(&scene, &producers[n].view);
	cr_assert_eq(ring_take_head(&producers[n], scene.table, id, (uint32_t)getpid()), 0);
	liveness_handle_set(scene.table, LIVENESS_SLOT(id), id | LIVENESS_OVERTAKEN);
}

static int take_after(unsigned n)
{
	const uint64_t id = (LATER + 1) << 16 | (200 + n);

	liveness_handle_set(scene.table, LIVENESS_SLOT(id), id);
	ring_scene_attach(&scene, &producers[n].view);
	return ring_take_producer(&producers[n], scene.table, id, (uint32_t)getpid());
}

/* C-3: he who began completes it, as long as the next one has not come. */
Test(ring_takes, what_was_begun_much_later_is_completed, .init = setup, .fini = teardown)
{
	take(1);
	go_round(1, 3);
	claim(1, 800);
	ring_scene_end(&scene, 1);
	begin_much_later(2);
	cr_assert_eq(ring_take_memory(&producers[2]), 0);
	cr_assert_eq(n_banned(), 1);

	cr_assert_eq(take_after(3), 0);
	go_round(3, 50);
	commit_late(1);
}

/* C-3: he does not, once it has: though that one died before he had the tag. */
Test(ring_takes, what_was_begun_much_later_is_left_to_the_next, .init = setup, .fini = teardown)
{
	const uint64_t dead = (LATER + 1) << 16 | (200 + 3), id = (LATER + 2) << 16 | (200 + 4);

	take(1);
	go_round(1, 3);
	claim(1, 800);
	ring_scene_end(&scene, 1);
	begin_much_later(2);
	cr_assert_eq(ring_ban(&producers[2].view, scene.table, producers[2].owner), 0);
	atomic_store(&scene.ring->producer, ring_owner(dead, RING_SCENE_NO_PROCESS));
	cr_assert_eq(ring_take_memory(&producers[2]), IPC_ESTALE);

	liveness_handle_set(scene.table, LIVENESS_SLOT(id), id);
	ring_scene_attach(&scene, &producers[4].view);
	cr_assert_eq(ring_take_producer(&producers[4], scene.table, id, (uint32_t)getpid()), 0);
	go_round(4, 50);
	commit_late(1);
}

/* C-3: what was passed by is his who passed it by, and not his who came between. */
Test(ring_takes, strays_of_long_ago_are_not_anothers, .init = setup, .fini = teardown)
{
	take(1);
	go_round(1, 3);
	claim(1, 400);
	go_round(1, 2 * CAPACITY / RECORD_MAX);
	ring_scene_end(&scene, 1);
	begin_much_later(2);
	cr_assert_eq(take_after(3), 0);
	cr_assert_eq(ring_take_memory(&producers[2]), IPC_ESTALE);
	ring_leave_producer(&producers[2]);

	go_round(3, 200);
	commit_late(1);
}

/* Who died while it took over has left a ban without a range, and its tag or not. */
Test(ring_takes, next_one_completes_what_a_dead_taker_began, .init = setup, .fini = teardown)
{
	for (unsigned has_tag = 0; has_tag < 2; ++has_tag) {
		unsigned first = 1 + 3 * has_tag;

		take(first);
		go_round(first, 3);
		claim(first, 800);
		cr_assert_eq(ring_ban(&producers[first].view, scene.table, producers[first].owner),
			     0);
		cr_assert_eq(ring_has_pending_bans(&producers[first].view, scene.table,
						   ring_owner(RING_SCENE_ID(first + 1), 0)),
			     true);
		atomic_store(&scene.ring->producer,
			     ring_owner(RING_SCENE_ID(first + 1), RING_SCENE_NO_PROCESS));
		if (has_tag)
			atomic_store(&scene.ring->head,
				     ring_word(ring_tag(producers[first].head) + 1, 0,
					       producers[first].head));

		take(first + 2);
		cr_assert_eq(n_banned(), 1 + has_tag);
		go_round(first + 2, 50);
	}
}

/* What the head's note says goes with the stream over the jump. */
Test(ring_takes, note_goes_with_the_jump, .init = setup, .fini = teardown)
{
	struct ring_commit commit = ring_scene_commit(1, 3, 1);

	take(1);
	commit.note = 0xabcdef00;
	cr_assert_eq(ring_send(&producers[1], "abc", &commit), 0);
	claim(1, 100);
	scribble();
	take(2);
	cr_assert_neq(ring_position(producers[2].head), ring_position(producers[1].head));
	cr_assert_eq(ring_at(&producers[2].view, ring_position(producers[2].head))->what,
		     0xabcdef00);
	cr_assert_eq(ring_state(producers[2].head), commit.state);
}

/* Taken back to where the stream jumps: it is as if nothing had been sent since. */
Test(ring_takes, what_was_sent_behind_a_jump_is_taken_back, .init = setup, .fini = teardown)
{
	for (unsigned n = 0; n < 2; ++n) {
		uint64_t position;

		take(1 + 2 * n);
		go_round(1 + 2 * n, 3);
		claim(1 + 2 * n, 800);
		position = ring_position(producers[1 + 2 * n].head);

		take(2 + 2 * n);
		claim(2 + 2 * n, 400); /* will be in the way */
		for (unsigned i = 0; i < 3; ++i)
			cr_assert_eq(ring_scene_send(&producers[2 + 2 * n], 200, 9), 0);
		cr_assert_eq(ring_rewind(&producers[2 + 2 * n], position, 0), 0);
		cr_assert_eq(producers[2 + 2 * n].number, n_received + 1);
		go_round(2 + 2 * n, 50);
		ring_leave_producer(&producers[2 + 2 * n]);
		claims[2 + 2 * n].n = 0;
	}
}

/* ---- consumers ---- */

/* C-4. */
Test(ring_takes, what_was_not_released_comes_again, .init = setup, .fini = teardown)
{
	struct ring_consumer before;
	struct ring_received record;

	take(1);
	for (unsigned i = 0; i < 6; ++i)
		cr_assert_eq(ring_scene_send(&producers[1], 100 * i, 1), 0);
	expect(1, 1);
	expect(2, 1);
	release_all();
	expect(3, 1);
	ring_mark_received(&consumer, consumer.at, 4);
	expect(4, 1);
	before = consumer;

	ring_scene_consume(&scene, &consumer, 101);
	cr_assert_eq(consumer.at, ring_position(before.tail));
	cr_assert_eq(ring_peek(&before, &record), 0);
	cr_assert_eq(ring_release(&before, record.after, 0), IPC_ESTALE);
	cr_assert_not(ring_consumer_is(&before));
	cr_assert_eq(ring_distance(consumer.at, consumer.received_before), 1 + 13 + 0);
	expect(3, 1);
	cr_assert_eq(consumer.at, consumer.received_before);
	expect(4, 1);
	release_all();
	expect(5, 1);

	/* Again, and nothing was marked meanwhile. */
	ring_scene_consume(&scene, &consumer, 102);
	cr_assert_eq(consumer.received_before, consumer.at);
	expect(5, 1);
	expect(6, 1);
	expect_nothing();
}

/* Also where the tail stands right before a jump. */
Test(ring_takes, next_consumer_jumps_as_well, .init = setup, .fini = teardown)
{
	take(1);
	go_round(1, 2);
	claim(1, 600);
	take(2);
	for (unsigned i = 0; i < 4; ++i) {
		ring_scene_consume(&scene, &consumer, 101 + i);
		scribble();
		if (i == 1)
			cr_assert_eq(ring_scene_send(&producers[2], 300, 2), 0);
		if (i == 2)
			ring_leave_producer(&producers[1]);
		if (i > 0) {
			expect(n_received + 1, 2);
			--n_received;
		}
	}
	++n_received;
	release_all();
	claims[1].n = 0;
	expect_room_again(2);
}
