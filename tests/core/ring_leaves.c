/* SPDX-License-Identifier: MIT */
/*
 * C-2 C-3 I-5: who leaves the producer's end while it is being taken over, by some who have looked
 * at it before: what he had claimed is nobody's any more, and what others have claimed still is.
 */
#include "libipc/core/ring.h"

#include <criterion/criterion.h>

#include "libipc/core/ring_ban.h"
#include "tests/support/leaks.h"
#include "tests/support/ring_scene.h"

enum { CAPACITY = 8192, RECORD_MAX = 1000, N_PRODUCERS = 4 };

static struct ring_scene scene;
static struct ring_producer producers[N_PRODUCERS + 1]; /* by number of the handle */
static struct ring_consumer consumer;
static struct leaks leaks;

static void setup(void)
{
	leaks_begin(&leaks);
	ring_scene_init(&scene, CAPACITY, RECORD_MAX, 1);
	ring_scene_move(&scene, 1000, 1, 5);
	ring_scene_consume(&scene, &consumer, 100);
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

TestSuite(ring_leaves, .init = setup, .fini = teardown, .timeout = 60);

static unsigned char *claim(unsigned n, uint64_t size)
{
	void *data;

	cr_assert_eq(ring_claim(&producers[n], size, &data), 0);
	return data;
}

static void take(unsigned n)
{
	ring_scene_produce(&scene, &producers[n], n);
}

/* The first half of it. */
static int try_head(unsigned n)
{
	ring_scene_attach(&scene, &producers[n].view);
	return ring_take_head(&producers[n], scene.table, RING_SCENE_ID(n), (uint32_t)getpid());
}

static void begin(unsigned n)
{
	ring_scene_open(&scene, n);
	cr_assert_eq(try_head(n), 0);
}

/* Whom a taker bans that has seen him. */
static uint64_t leave(unsigned n)
{
	uint64_t who = producers[n].owner;

	ring_leave_producer(&producers[n]);
	producers[n].table = NULL;
	return who;
}

/* What the owner of this tag finds of that one, who told the last limit. */
static struct ring_taker taker_of(unsigned n, uint64_t tag)
{
	return (struct ring_taker){
		.view = &consumer.view,
		.tag = tag,
		.teller = atomic_load(&scene.ring->teller),
		.who = producers[n].owner,
	};
}

/* As a taker does that has seen him as the owner, however long ago. */
static void ban_late(uint64_t who)
{
	cr_assert_eq(ring_ban(&consumer.view, scene.table, who), 0);
}

static unsigned n_banned(uint64_t who)
{
	unsigned n = 0;

	for (unsigned i = 0; i < RING_BANS_MAX; ++i) {
		uint64_t seen = atomic_load(&scene.ring->ban[i].who);

		n += who == 0 ? seen != 0 : seen == who;
	}
	return n;
}

/* Some laps, whole, beside somebody who writes to what he has claimed; NULL: nobody does. */
static void go_round(unsigned n, unsigned char *claimed, size_t size)
{
	struct ring_received record;

	for (unsigned i = 0; i < 50; ++i) {
		uint64_t number = producers[n].number;

		cr_assert_eq(ring_scene_send(&producers[n], i * 19 % RECORD_MAX, n), 0);
		if (claimed)
			memset(claimed, (int)i, size);
		cr_assert_eq(ring_scene_receive(&consumer, &record), 0);
		cr_assert_null(ring_scene_wrong(&record, number));
		cr_assert_eq(ring_release(&consumer, consumer.at, 0), 0);
	}
}

/* That one, who has the end, beside this one, who is banned and writes to what he has claimed. */
static void go_round_beside(unsigned n, unsigned of, unsigned char *claimed)
{
	cr_assert_eq(n_banned(producers[of].owner), 1);
	go_round(n, claimed, 800);
}

/* ---- what was his ---- */

Test(ring_leaves, who_is_banned_after_that_has_nothing)
{
	uint64_t who;

	take(1);
	claim(1, 800);
	who = leave(1);
	ban_late(who);

	take(2);
	cr_assert_eq(n_banned(0), 0);
	go_round(2, NULL, 0);
}

/* However often: there are places for four. */
Test(ring_leaves, nobody_is_refused_for_those_who_have_left)
{
	for (unsigned i = 0; i < 3 * RING_BANS_MAX; ++i) {
		unsigned n = 1 + i % 2;
		uint64_t id = ((uint64_t)(1 + i) << 16) + n, who;

		liveness_handle_set(scene.table, LIVENESS_SLOT(id), id);
		ring_scene_attach(&scene, &producers[n].view);
		cr_assert_eq(ring_take_producer(&producers[n], scene.table, id, (uint32_t)getpid()),
			     0, "%u", i);
		claim(n, 800);
		who = leave(n);
		ban_late(who);
	}
}

/* He had it after that. */
Test(ring_leaves, what_another_claims_is_not_his)
{
	unsigned char *claimed;
	uint64_t who;

	take(1);
	claim(1, 800);
	who = leave(1);
	take(2);
	claimed = claim(2, 800);
	ban_late(who);

	take(3);
	cr_assert_eq(n_banned(0), 1);
	go_round_beside(3, 2, claimed);

	leave(2);
	go_round(3, NULL, 0);
	cr_assert_eq(n_banned(0), 0);
}

/* The taker has looked at them before he left; and is so late that others have come. */
Test(ring_leaves, what_he_had_passed_by_is_nothing)
{
	struct ring_taker taker;

	take(1);
	claim(1, 400);
	cr_assert_eq(ring_scene_send(&producers[1], 10, 1), 0);
	cr_assert_neq(atomic_load(&scene.ring->strays) & RING_STRAYS_MASK, 0);
	taker = taker_of(1, ring_tag(producers[1].head));
	leave(1);
	cr_assert_eq(ring_ban_strays(&taker, scene.table, 10, 40), 0);
	cr_assert_eq(n_banned(0), 0);

	take(2);
	claim(2, 400);
	cr_assert_eq(ring_scene_send(&producers[2], 10, 2), 0);
	cr_assert_eq(ring_ban_strays(&taker, scene.table, 10, 40), 0);
	take(3);
	cr_assert_eq(n_banned(taker.who), 0);
}

/* A taker that has found him, and is not the taker any more; or he has left meanwhile. */
Test(ring_leaves, what_is_completed_late_is_not)
{
	struct ring_taker taker;
	uint64_t head;

	take(1);
	claim(1, 800);
	begin(2);
	taker = taker_of(1, ring_tag(producers[2].head));
	head = ring_position(producers[2].head);
	begin(3);
	cr_assert_eq(ring_complete_bans(&taker, head, producers[1].limit), IPC_ESTALE);
	cr_assert_not(ring_ban_is_known(taker.who, atomic_load(&scene.ring->ban[0].to)));

	taker.tag = ring_tag(producers[3].head);
	leave(1);
	cr_assert_eq(ring_complete_bans(&taker, head, producers[1].limit), 0);
	cr_assert_eq(n_banned(taker.who), 0);
}

/* One who had it long before has written over his limit, late; or a taker has, and died then. */
Test(ring_leaves, what_another_tells_for_him_is_not_his)
{
	uint64_t who;

	for (unsigned n = 1; n <= 3; ++n)
		take(n);
	cr_assert_eq(ring_tag(producers[1].head) & 1, ring_tag(producers[3].head) & 1);
	ring_set_limit(&producers[1], producers[1].limit);
	who = leave(3);
	ban_late(who);

	take(4);
	cr_assert_eq(n_banned(0), 0);
	go_round(4, NULL, 0);
}

/* A taker that is late with a range: others have sent by then, where it begins. */
Test(ring_leaves, what_he_could_write_before_is_not_banned_late)
{
	struct ring_received record;
	uint64_t who, seen, limit;
	struct ring_ban *ban = &scene.ring->ban[0];

	take(1);
	claim(1, 800);
	who = producers[1].owner;
	limit = producers[1].limit;
	begin(2);
	cr_assert_eq(atomic_load(&ban->who), who);
	seen = atomic_load(&ban->to);

	leave(1);
	take(4);
	for (unsigned i = 0; i < 8; ++i)
		cr_assert_eq(ring_scene_send(&producers[4], 96, 4), 0);
	ban_late(who);
	cr_assert_eq(atomic_load(&ban->who), who);
	cr_assert_not(atomic_compare_exchange_strong(&ban->to, &seen, ring_ban_to(who, limit)),
		      "a late exchange gives it a range");

	for (uint64_t number = 1; number <= 8; ++number) {
		cr_assert_eq(ring_scene_receive(&consumer, &record), 0);
		cr_assert_null(ring_scene_wrong(&record, number));
	}
}

/* ---- what is others' ---- */

Test(ring_leaves, what_his_heir_has_claimed_stays)
{
	unsigned char *claimed;

	take(1);
	claim(1, 100);
	take(2);
	claimed = claim(2, 800);
	leave(1);

	take(3);
	go_round_beside(3, 2, claimed);
}

/* His limit stood in the same slot. */
Test(ring_leaves, what_the_heir_of_his_heir_has_claimed_stays)
{
	unsigned char *claimed;

	take(1);
	claim(1, 100);
	take(2);
	take(3);
	claimed = claim(3, 800);
	leave(1);

	take(4);
	go_round_beside(4, 3, claimed);
}

/* What his heir has told of them looks like what he has not. */
Test(ring_leaves, what_the_heir_of_one_who_had_only_begun_has_passed_by_stays)
{
	struct ring_commit commit;
	unsigned char *claimed;

	ring_scene_move(&scene, 1000, 1, 4094);
	ring_scene_consume(&scene, &consumer, 101);
	begin(1);
	take(2);
	cr_assert_eq(ring_tag(producers[2].head), 4096);
	cr_assert_eq(ring_take_memory(&producers[1]), IPC_ESTALE);
	claim(2, 100);
	claimed = claim(2, 100);
	leave(1);

	commit = ring_scene_commit(producers[2].number, 50, 2);
	cr_assert_eq(ring_commit(&producers[2], ring_find_claim(&producers[2], claimed), &commit),
		     0);
}

/* C-3: without a tag he has the one that is 0. */
Test(ring_leaves, what_is_claimed_stays_when_one_leaves_who_never_had_the_end)
{
	unsigned char *claimed;

	ring_scene_move(&scene, 1000, 1, RING_TAG_MASK);
	ring_scene_consume(&scene, &consumer, 101);
	take(2);
	cr_assert_eq(ring_tag(producers[2].head), 0);
	claimed = claim(2, 800);
	cr_assert_eq(try_head(1), IPC_ESTALE);
	leave(1);

	take(3);
	go_round_beside(3, 2, claimed);
}

/* C-3: refused before, or after he had got the tag. */
Test(ring_leaves, what_the_one_before_has_claimed_stays_when_it_was_begun_only)
{
	unsigned char *claimed;

	take(2);
	claimed = claim(2, 800);
	cr_assert_eq(try_head(1), IPC_ESTALE);
	leave(1);
	begin(3);
	leave(3);

	take(4);
	cr_assert_eq(n_banned(0), 1);
	go_round_beside(4, 2, claimed);
}

/* C-3: who has claimed nothing, and lives, costs no place. */
Test(ring_leaves, who_has_only_begun_is_banned_from_nothing)
{
	unsigned char *claimed;

	take(1);
	claimed = claim(1, 800);
	begin(2);
	begin(3);
	take(4);
	cr_assert_eq(n_banned(0), 1);
	go_round_beside(4, 1, claimed);
}

/* C-3: he lives, and the taker who has found that is not the taker any more. */
Test(ring_leaves, what_the_living_has_passed_by_is_left_to_the_next_taker)
{
	struct ring_taker taker;
	struct ring_received record;
	unsigned char *claimed;
	uint64_t head;

	take(1);
	claimed = claim(1, 400);
	cr_assert_eq(ring_scene_send(&producers[1], 10, 1), 0);
	begin(2);
	taker = taker_of(1, ring_tag(producers[2].head));
	head = ring_position(producers[2].head);
	begin(3);
	cr_assert_eq(ring_ban_strays(&taker, scene.table, 10, 40), IPC_ESTALE);
	cr_assert_eq(ring_complete_bans(&taker, head, head), IPC_ESTALE);
	cr_assert_neq(n_banned(taker.who), 0);

	cr_assert_eq(ring_take_memory(&producers[3]), 0);
	cr_assert_eq(ring_take_memory(&producers[2]), IPC_ESTALE);
	cr_assert_eq(ring_scene_receive(&consumer, &record), 0);
	cr_assert_eq(ring_release(&consumer, consumer.at, 0), 0);
	go_round(3, claimed, 400);
}
