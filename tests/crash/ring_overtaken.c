/* SPDX-License-Identifier: MIT */
/*
 * C-2 C-3 C-5 I-5: a ring's ends, stopped before each of their instructions while a living second
 * one takes the end over and goes on for laps; then the first goes on, and writes over what it had
 * claimed.  It is told that it is out, or its record stood in the stream before, once; nobody
 * else's bytes are harmed.  The same with two that take over at once, in both orders of their
 * handles.
 */
#include "libipc/core/ring.h"

#include <criterion/criterion.h>

#include "tests/support/ring_scene.h"
#include "tests/support/step.h"

enum { CAPACITY = 4096, RECORD_MAX = 1000, POSITION = 240, TAG = 7 };
enum { FIRST = 5, OLDER = 8, SLOW = 10, NEWER = 20, LAST = 30, READER = 100, SLOW_READER = 110 };
enum { NEW_READER = 120 };
enum { SALT_FIRST = 1, SALT_SLOW = 2, SALT_OTHER = 3, SALT_LAST = 4 };

enum act {
	ACT_SEND,
	ACT_CLAIM,
	ACT_OUT_OF_ORDER,
	ACT_REWIND,
	ACT_LEAVE,
	ACT_TAKE,
	ACT_RELEASE,
	ACT_TAKE_READER,
};

enum told { TOLD_DONE, TOLD_RESULT, TOLD_CLAIM_RESULT };

/* Of those from whom the end is taken: what becomes of the first. */
enum first { FIRST_IS_NOBODY, FIRST_LIVES, FIRST_ENDS };

static struct ring_scene scene;
static struct ring_producer first, slow, other, last;
static struct ring_consumer reader, slow_reader;
static unsigned char *claimed[2], *first_claimed;
static const uint64_t claimed_size[2] = {500, 200};
enum { FIRST_SIZE = 700 };
static enum act act;
static enum first how;
static unsigned other_number; /* its handle */
static int other_result;
static uint64_t found;  /* the next number, when the end was taken over */
static uint64_t n_left; /* records that wait */

static _Atomic uint64_t *told(enum told what)
{
	return &scene.word[what];
}

static int told_result(enum told what)
{
	return (int)(int64_t)atomic_load(told(what));
}

static void must(bool holds, const char *what)
{
	ring_scene_must(holds, what);
}

static void *claim(struct ring_producer *producer, uint64_t size)
{
	void *data;

	must(ring_claim(producer, size, &data) == 0, "claim");
	return data;
}

static int commit(struct ring_producer *producer, void *data, uint64_t size, unsigned salt)
{
	struct ring_commit commit = ring_scene_commit(producer->number, size, salt);

	ring_scene_fill(data, size, producer->number, salt);
	return ring_commit(producer, ring_find_claim(producer, data), &commit);
}

static void scene_make(void)
{
	if (!scene.ring)
		ring_scene_init(&scene, CAPACITY, RECORD_MAX, 1);
	ring_scene_reset(&scene, 1);
	ring_scene_move(&scene, POSITION, 1, TAG);
	ring_scene_consume(&scene, &reader, READER);
	if (how == FIRST_IS_NOBODY)
		return;

	must(ring_scene_try_producer(&scene, &first, FIRST,
				     how == FIRST_ENDS ? 0 : (uint32_t)getpid()) == 0,
	     "take");
	for (uint64_t i = 1; i <= 4; ++i)
		must(ring_scene_send(&first, 100 * i, SALT_FIRST) == 0, "send");
	if (act == ACT_TAKE)
		first_claimed = claim(&first, FIRST_SIZE);
}

/* ---- the slow one, in the child ---- */

static void prepare(void *arg)
{
	(void)arg;
	if (act == ACT_RELEASE || act == ACT_TAKE_READER) {
		struct ring_received record;

		if (act == ACT_TAKE_READER)
			return;
		ring_scene_consume(&scene, &slow_reader, SLOW_READER);
		for (unsigned i = 0; i < 4; ++i)
			must(ring_scene_receive(&slow_reader, &record) == 0, "receive");
		return;
	}
	if (act == ACT_TAKE)
		return;

	ring_scene_produce(&scene, &slow, SLOW);
	for (uint64_t i = 1; i <= 2; ++i)
		must(ring_scene_send(&slow, 100 * i, SALT_SLOW) == 0, "send");
	for (unsigned i = 0; i < 2 && (act == ACT_OUT_OF_ORDER || act == ACT_LEAVE); ++i)
		claimed[i] = claim(&slow, claimed_size[i]);
	for (uint64_t i = 3; i <= 4 && act == ACT_REWIND; ++i)
		must(ring_scene_send(&slow, 100 * i, SALT_SLOW) == 0, "send");
}

/* All of what is still claimed. */
static void scribble_slow(void)
{
	for (unsigned i = 0; i < slow.n_claims; ++i)
		memset(ring_at(&slow.view, slow.claim[i].at)->bytes, 0x99, slow.claim[i].size);
}

static int claim_and_commit(void)
{
	void *data;
	int r = ring_claim(&slow, claimed_size[0], &data);

	atomic_store(told(TOLD_CLAIM_RESULT), (uint64_t)(int64_t)r);
	return r < 0 ? r : commit(&slow, data, 300, SALT_SLOW);
}

static void operate(void *arg)
{
	int r = 0;

	(void)arg;
	switch (act) {
	case ACT_SEND:
		r = ring_scene_send(&slow, 400, SALT_SLOW);
		break;
	case ACT_CLAIM:
		r = claim_and_commit();
		break;
	case ACT_OUT_OF_ORDER:
		r = commit(&slow, claimed[1], 150, SALT_SLOW);
		break;
	case ACT_REWIND:
		r = ring_rewind(&slow, POSITION + 8 + 14, 0);
		break;
	case ACT_LEAVE:
		ring_leave_producer(&slow);
		break;
	case ACT_TAKE:
		r = ring_scene_try_producer(&scene, &slow, SLOW, (uint32_t)getpid());
		if (r == 0)
			atomic_store(told(TOLD_CLAIM_RESULT),
				     (uint64_t)(int64_t)claim_and_commit());
		break;
	case ACT_RELEASE:
		r = ring_release(&slow_reader, slow_reader.at, 0);
		break;
	case ACT_TAKE_READER:
		r = ring_scene_try_consumer(&scene, &slow_reader, SLOW_READER, (uint32_t)getpid());
		if (r == 0)
			ring_mark_received(&slow_reader, slow_reader.at, 0);
		break;
	}
	if (slow.n_claims > 0)
		scribble_slow();
	atomic_store(told(TOLD_RESULT), (uint64_t)(int64_t)r);
	atomic_store(told(TOLD_DONE), 1);
}

/* ---- the others, in the parent ---- */

static void expect(long n, uint64_t number, unsigned salt)
{
	struct ring_received record;
	int r = ring_scene_receive(&reader, &record);

	cr_assert_eq(r, 0, "instruction %ld: record %lu: %d", n, (unsigned long)number, r);
	cr_assert_null(ring_scene_wrong(&record, number),
		       "instruction %ld: record %lu: %s is wrong", n, (unsigned long)number,
		       ring_scene_wrong(&record, number));
	cr_assert_eq(record.flags, salt, "instruction %ld: record %lu is of %u", n,
		     (unsigned long)number, record.flags);
}

static void release_all(void)
{
	if (reader.at != ring_position(reader.tail))
		cr_assert_eq(ring_release(&reader, reader.at, 0), 0);
}

static void scribble_first(void)
{
	if (first_claimed)
		memset(first_claimed, 0x77, FIRST_SIZE);
}

static void go_round(long n, struct ring_producer *producer, unsigned salt)
{
	for (unsigned i = 0; i < 30; ++i) {
		uint64_t number = producer->number;
		int r = ring_scene_send(producer, i * 30, salt);

		cr_assert_eq(r, 0, "instruction %ld: %d at record %lu", n, r,
			     (unsigned long)number);
		scribble_first();
		expect(n, number, salt);
		release_all();
	}
}

/* The ring is full of what the slow one could harm. */
static void leave_many(struct ring_producer *producer, unsigned salt)
{
	n_left = 0;
	while (ring_scene_send(producer, 90, salt) == 0)
		++n_left;
}

static void see_what_is_left(long n, struct ring_producer *producer, unsigned salt)
{
	scribble_first();
	for (; n_left > 0; --n_left)
		expect(n, producer->number - n_left, salt);
	release_all();
}

static void meanwhile(void *arg, long n)
{
	unsigned before = how == FIRST_IS_NOBODY ? SALT_SLOW : SALT_FIRST;

	(void)arg;
	if (act == ACT_RELEASE || act == ACT_TAKE_READER) {
		ring_scene_consume(&scene, &reader, NEW_READER);
		found = ring_number_at(&reader.view, reader.at);
		for (uint64_t i = found; i <= 4; ++i)
			expect(n, i, SALT_FIRST);
		release_all();
		go_round(n, &first, SALT_FIRST);
		leave_many(&first, SALT_FIRST);
		return;
	}

	if (how == FIRST_ENDS) {
		ring_scene_end(&scene, FIRST);
		first_claimed = NULL;
	}
	other_result = ring_scene_try_producer(&scene, &other, other_number, (uint32_t)getpid());
	if (other_number == OLDER && other_result == IPC_ESTALE)
		return;
	cr_assert_eq(other_result, 0, "instruction %ld: %d", n, other_result);
	found = other.number;
	for (uint64_t i = 1; i < found; ++i)
		expect(n, i, before == SALT_FIRST && i == 5 ? SALT_SLOW : before);
	release_all();
	go_round(n, &other, SALT_OTHER);
	leave_many(&other, SALT_OTHER);
}

/* ---- after it ---- */

static void expect_told(long n)
{
	int r = told_result(TOLD_RESULT);

	cr_assert(atomic_load(told(TOLD_DONE)), "instruction %ld: it did not come to its end", n);
	cr_assert(r == 0 || r == IPC_ESTALE, "instruction %ld: %d", n, r);
	switch (act) {
	case ACT_SEND:
	case ACT_CLAIM:
	case ACT_OUT_OF_ORDER:
		cr_assert_eq(found, r == 0 ? 4 : 3, "instruction %ld: %d, and the next one was %lu",
			     n, r, (unsigned long)found);
		break;
	case ACT_REWIND:
		cr_assert_eq(found, r == 0 ? 3 : 5, "instruction %ld: %d, and the next one was %lu",
			     n, r, (unsigned long)found);
		break;
	case ACT_RELEASE:
		cr_assert_eq(found, r == 0 ? 5 : 1, "instruction %ld: %d, and the first was %lu", n,
			     r, (unsigned long)found);
		break;
	case ACT_LEAVE:
	case ACT_TAKE:
	case ACT_TAKE_READER:
		break;
	}
}

/* The slow one is newer, and has the end: its record comes behind what the older one sent. */
static bool slow_has_it(void)
{
	return act == ACT_TAKE && other_number == OLDER;
}

static void after(void *arg, long n)
{
	uint64_t next;

	(void)arg;
	expect_told(n);
	if (act == ACT_RELEASE || act == ACT_TAKE_READER) {
		see_what_is_left(n, &first, SALT_FIRST);
		go_round(n, &first, SALT_FIRST);
		return;
	}
	if (slow_has_it()) {
		cr_assert_eq(told_result(TOLD_RESULT), 0, "instruction %ld: %d", n,
			     told_result(TOLD_RESULT));
		if (other_result == IPC_ESTALE) {
			for (uint64_t i = 1; i <= 4; ++i)
				expect(n, i, SALT_FIRST);
			next = 5;
		} else {
			see_what_is_left(n, &other, SALT_OTHER);
			next = other.number;
			/* There was no room for it. */
			if (told_result(TOLD_CLAIM_RESULT) == IPC_EAGAIN)
				return;
		}
		cr_assert_eq(told_result(TOLD_CLAIM_RESULT), 0, "instruction %ld: %d", n,
			     told_result(TOLD_CLAIM_RESULT));
		expect(n, next, SALT_SLOW);
		release_all();
		return;
	}
	see_what_is_left(n, &other, SALT_OTHER);
	go_round(n, &other, SALT_OTHER);
}

/* The slow one is gone: a last one takes over from who still lives, and has all of the room. */
static void check(void *arg, long n)
{
	uint64_t units = 0;

	(void)arg;
	if (act == ACT_RELEASE || act == ACT_TAKE_READER) {
		ring_leave_producer(&first);
		scene_make();
		return;
	}
	ring_scene_end(&scene, SLOW);
	ring_scene_produce(&scene, &last, LAST);
	go_round(n, &last, SALT_LAST);
	ring_leave_producer(&other);
	if (first_claimed)
		ring_leave_producer(&first);
	first_claimed = NULL;
	go_round(n, &last, SALT_LAST);
	while (ring_scene_send(&last, 0, SALT_LAST) == 0)
		++units;
	cr_assert_eq(units, reader.view.capacity - 1, "instruction %ld: %lu units of room", n,
		     (unsigned long)units);
	ring_leave_producer(&last);
	scene_make();
}

static void overtake_everywhere(enum act which, enum first whose, unsigned number)
{
	const struct step_case step = {.prepare = prepare,
				       .operation = operate,
				       .check = check,
				       .meanwhile = meanwhile,
				       .after = after};

	act = which;
	how = whose;
	other_number = number;
	scene_make();
	cr_assert_gt(step_run(&step, NULL), 20);
	ring_scene_deinit(&scene);
}

#define OVERTAKEN(name, which, whose, number)                                                      \
	Test(ring_overtaken, name, .timeout = 700)                                                 \
	{                                                                                          \
		overtake_everywhere(which, whose, number);                                         \
	}

OVERTAKEN(in_send, ACT_SEND, FIRST_IS_NOBODY, NEWER)
OVERTAKEN(in_claim_and_commit, ACT_CLAIM, FIRST_IS_NOBODY, NEWER)
OVERTAKEN(in_commit_out_of_order, ACT_OUT_OF_ORDER, FIRST_IS_NOBODY, NEWER)
OVERTAKEN(taking_back, ACT_REWIND, FIRST_IS_NOBODY, NEWER)
OVERTAKEN(leaving, ACT_LEAVE, FIRST_IS_NOBODY, NEWER)
OVERTAKEN(taking_over, ACT_TAKE, FIRST_LIVES, NEWER)
OVERTAKEN(taking_over_by_an_older_one, ACT_TAKE, FIRST_LIVES, OLDER)
OVERTAKEN(taking_over_from_one_who_ends, ACT_TAKE, FIRST_ENDS, NEWER)
OVERTAKEN(in_release, ACT_RELEASE, FIRST_LIVES, NEWER)
OVERTAKEN(taking_over_to_receive, ACT_TAKE_READER, FIRST_LIVES, NEWER)
