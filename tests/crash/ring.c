/* SPDX-License-Identifier: MIT */
/*
 * C-1 C-2 C-4 C-5 C-13: a ring's ends, killed before each of their instructions.  After each death
 * a survivor takes the end over and finds what was before the operation or what is after it, goes
 * on for laps, and in the end has all of the room.
 */
#include "libipc/core/ring.h"

#include <criterion/criterion.h>

#include "tests/support/ring_scene.h"
#include "tests/support/step.h"

enum { CAPACITY = 4096, RECORD_MAX = 1000, POSITION = 240, TAG = 7 };
enum { LIVING = 5, VICTIM = 10, HEIR = 20, READER = 100, VICTIM_READER = 110, HEIR_READER = 120 };
enum { SALT_LIVING = 1, SALT_VICTIM = 2, SALT_HEIR = 3 };

enum act {
	ACT_SEND,
	ACT_CLAIM,
	ACT_OUT_OF_ORDER,
	ACT_ABORT,
	ACT_REWIND,
	ACT_LEAVE,
	ACT_TAKE,
	ACT_TAKE_FROM_LIVING,
	ACT_TAKE_FROM_STRAYS, /* where a claim of his was passed by */
	ACT_TAKE_FROM_GONE,   /* who claimed, and dies while it is taken over */
	ACT_RELEASE,
	ACT_TAKE_READER,
};

static struct ring_scene scene;
static struct ring_producer living, victim, heir;
static struct ring_consumer reader, victim_reader, heir_reader;
static unsigned char *claimed[2];
static const uint64_t claimed_size[2] = {500, 200};
static uint64_t position_of_3;
static bool is_scribbling; /* the living, over what it claimed */
static enum act act;

static _Atomic uint64_t *progress(void)
{
	return &scene.word[0];
}

static void must(bool holds, const char *what)
{
	ring_scene_must(holds, what);
}

static bool has_living(void)
{
	return act == ACT_TAKE_FROM_LIVING || act == ACT_TAKE_FROM_STRAYS ||
	       act == ACT_TAKE_FROM_GONE || act == ACT_RELEASE || act == ACT_TAKE_READER;
}

static void claim(struct ring_producer *producer, unsigned i)
{
	void *data;

	must(ring_claim(producer, claimed_size[i], &data) == 0, "claim");
	claimed[i] = data;
}

static int commit(struct ring_producer *producer, unsigned i, uint64_t size, unsigned salt)
{
	struct ring_commit how = ring_scene_commit(producer->number, size, salt);

	ring_scene_fill(claimed[i], size, producer->number, salt);
	return ring_commit(producer, ring_find_claim(producer, claimed[i]), &how);
}

static void receive_all(struct ring_consumer *consumer, uint64_t from, uint64_t to, unsigned salt)
{
	struct ring_received record;

	for (uint64_t number = from; number < to; ++number) {
		must(ring_scene_receive(consumer, &record) == 0, "receive");
		must(!ring_scene_wrong(&record, number) && record.flags == salt, "what came");
		ring_mark_received(consumer, consumer->at, 0);
	}
}

static void scene_make(void)
{
	if (!scene.ring)
		ring_scene_init(&scene, CAPACITY, RECORD_MAX, 1);
	ring_scene_reset(&scene, 1);
	ring_scene_move(&scene, POSITION, 1, TAG);
	ring_scene_consume(&scene, &reader, READER);
	if (!has_living())
		return;

	must(ring_scene_try_producer(&scene, &living, LIVING,
				     act == ACT_TAKE_FROM_GONE ? 0 : (uint32_t)getpid()) == 0,
	     "take");
	for (uint64_t i = 1; i <= 4; ++i)
		must(ring_scene_send(&living, 100 * i, SALT_LIVING) == 0, "send");
	if (act >= ACT_TAKE_FROM_LIVING && act <= ACT_TAKE_FROM_GONE) {
		claim(&living, 0);
		if (act == ACT_TAKE_FROM_STRAYS)
			must(ring_scene_send(&living, 100, SALT_LIVING) == 0, "send");
		claim(&living, 1);
		is_scribbling = act != ACT_TAKE_FROM_GONE;
	} else if (act == ACT_TAKE_READER) {
		receive_all(&reader, 1, 4, SALT_LIVING);
		must(ring_release(&reader, reader.at - ring_units(300) - 1, 0) == 0, "release");
	}
}

/* ---- the victim, in the child ---- */

static void prepare(void *arg)
{
	(void)arg;
	switch (act) {
	case ACT_SEND:
	case ACT_CLAIM:
	case ACT_OUT_OF_ORDER:
	case ACT_ABORT:
	case ACT_REWIND:
	case ACT_LEAVE:
		ring_scene_produce(&scene, &victim, VICTIM);
		for (uint64_t i = 1; i <= 2; ++i)
			must(ring_scene_send(&victim, 100 * i, SALT_VICTIM) == 0, "send");
		position_of_3 = ring_position(victim.head);
		if (act == ACT_OUT_OF_ORDER || act == ACT_ABORT || act == ACT_LEAVE) {
			claim(&victim, 0);
			claim(&victim, 1);
		}
		for (uint64_t i = 3; i <= 4 && act == ACT_REWIND; ++i)
			must(ring_scene_send(&victim, 100 * i, SALT_VICTIM) == 0, "send");
		break;
	case ACT_RELEASE:
		ring_scene_consume(&scene, &victim_reader, VICTIM_READER);
		receive_all(&victim_reader, 1, 4, SALT_LIVING);
		break;
	case ACT_TAKE:
	case ACT_TAKE_FROM_LIVING:
	case ACT_TAKE_FROM_STRAYS:
	case ACT_TAKE_FROM_GONE:
	case ACT_TAKE_READER:
		break;
	}
}

static void done(int r)
{
	must(r == 0, "the operation");
	atomic_fetch_add(progress(), 1);
}

static void operate(void *arg)
{
	(void)arg;
	switch (act) {
	case ACT_SEND:
		for (unsigned i = 0; i < 2; ++i)
			done(ring_scene_send(&victim, 40, SALT_VICTIM));
		break;
	case ACT_CLAIM:
		claim(&victim, 1);
		claim(&victim, 0);
		done(commit(&victim, 1, 50, SALT_VICTIM)); /* shrunken, with a hole behind it */
		break;
	case ACT_OUT_OF_ORDER:
		done(commit(&victim, 1, 150, SALT_VICTIM));
		done(commit(&victim, 0, 400, SALT_VICTIM)); /* a copy */
		break;
	case ACT_ABORT:
		ring_abort(&victim, ring_find_claim(&victim, claimed[1]));
		done(commit(&victim, 0, 400, SALT_VICTIM));
		break;
	case ACT_REWIND:
		done(ring_rewind(&victim, position_of_3, 0));
		break;
	case ACT_LEAVE:
		ring_leave_producer(&victim);
		break;
	case ACT_TAKE_FROM_GONE:
	case ACT_TAKE:
	case ACT_TAKE_FROM_LIVING:
	case ACT_TAKE_FROM_STRAYS:
		done(ring_scene_try_producer(&scene, &victim, VICTIM, (uint32_t)getpid()));
		break;
	case ACT_RELEASE:
		done(ring_release(&victim_reader, victim_reader.at - ring_units(300) - 1, 0));
		done(ring_release(&victim_reader, victim_reader.at, 0));
		break;
	case ACT_TAKE_READER:
		done(ring_scene_try_consumer(&scene, &victim_reader, VICTIM_READER,
					     (uint32_t)getpid()));
		break;
	}
}

/* ---- the survivors, in the parent ---- */

static void expect(long n, struct ring_consumer *consumer, uint64_t number, unsigned salt)
{
	struct ring_received record;
	int r = ring_scene_receive(consumer, &record);

	cr_assert_eq(r, 0, "instruction %ld: record %lu: %d", n, (unsigned long)number, r);
	cr_assert_null(ring_scene_wrong(&record, number),
		       "instruction %ld: record %lu: %s is wrong", n, (unsigned long)number,
		       ring_scene_wrong(&record, number));
	cr_assert_eq(record.flags, salt, "instruction %ld: record %lu is of %u", n,
		     (unsigned long)number, record.flags);
}

static void release_all(struct ring_consumer *consumer)
{
	if (consumer->at != ring_position(consumer->tail))
		cr_assert_eq(ring_release(consumer, consumer->at, 0), 0);
}

/* The living writes where it may. */
static void scribble(void)
{
	for (unsigned i = 0; i < 2 && is_scribbling; ++i)
		memset(claimed[i], 0x77, claimed_size[i]);
}

static void go_round(long n, struct ring_producer *producer, struct ring_consumer *consumer,
		     unsigned salt)
{
	for (unsigned i = 0; i < 30; ++i) {
		uint64_t number = producer->number;
		int r = ring_scene_send(producer, i * 30, salt);

		cr_assert_eq(r, 0, "instruction %ld: %d at record %lu", n, r,
			     (unsigned long)number);
		scribble();
		expect(n, consumer, number, salt);
		release_all(consumer);
	}
}

static void expect_room(long n, struct ring_producer *producer, struct ring_consumer *consumer)
{
	uint64_t units = 0;

	while (ring_scene_send(producer, 0, SALT_HEIR) == 0)
		++units;
	cr_assert_eq(units, consumer->view.capacity - 1, "instruction %ld: %lu units of room", n,
		     (unsigned long)units);
}

/* What the victim had done, as told and as found. */
static void expect_number(long n, uint64_t number, uint64_t before, uint64_t n_steps)
{
	uint64_t told = atomic_load(progress());
	uint64_t found = act == ACT_REWIND ? before - number : number - before;

	if (act == ACT_REWIND && found > 0)
		found = found == 2 ? 1 : 99;
	cr_assert(found <= n_steps, "instruction %ld: the next one is %lu", n,
		  (unsigned long)number);
	cr_assert(found == told || found == told + 1, "instruction %ld: told %lu, found %lu", n,
		  (unsigned long)told, (unsigned long)found);
}

static void check_reader(long n)
{
	uint64_t first;

	ring_scene_end(&scene, VICTIM_READER);
	ring_scene_consume(&scene, &heir_reader, HEIR_READER);
	first = ring_number_at(&heir_reader.view, heir_reader.at);
	if (act == ACT_RELEASE) {
		uint64_t told = atomic_load(progress());

		cr_assert(first == (told == 0 ? 1 : told + 2) || first == told + 3,
			  "instruction %ld: told %lu, the first is %lu", n, (unsigned long)told,
			  (unsigned long)first);
	} else {
		cr_assert_eq(first, 3);
	}
	cr_assert_eq(ring_number_at(&heir_reader.view, heir_reader.received_before), 4,
		     "instruction %ld: how far it was received is not known", n);

	for (uint64_t i = first; i <= 4; ++i)
		expect(n, &heir_reader, i, SALT_LIVING);
	release_all(&heir_reader);
	go_round(n, &living, &heir_reader, SALT_LIVING);
	expect_room(n, &living, &heir_reader);
}

/* The next one, where it is the same before and after. */
static uint64_t number_taken(void)
{
	switch ((int)act) {
	case ACT_LEAVE:
		return 3;
	case ACT_TAKE:
		return 1;
	case ACT_TAKE_FROM_STRAYS:
		return 6;
	default:
		return 5;
	}
}

static void check_producer(long n)
{
	static const uint64_t n_steps[] = {[ACT_SEND] = 2,
					   [ACT_CLAIM] = 1,
					   [ACT_OUT_OF_ORDER] = 2,
					   [ACT_ABORT] = 1,
					   [ACT_REWIND] = 1};

	ring_scene_end(&scene, VICTIM);
	if (act == ACT_TAKE_FROM_GONE)
		ring_scene_end(&scene, LIVING);
	scribble();
	ring_scene_produce(&scene, &heir, HEIR);
	scribble();
	if (act <= ACT_REWIND)
		expect_number(n, heir.number, act == ACT_REWIND ? 5 : 3, n_steps[act]);
	else
		cr_assert_eq(heir.number, number_taken());

	for (uint64_t i = 1; i < heir.number; ++i)
		expect(n, &reader, i, has_living() ? SALT_LIVING : SALT_VICTIM);
	release_all(&reader);
	go_round(n, &heir, &reader, SALT_HEIR);
	if (is_scribbling) {
		struct ring_commit how = ring_scene_commit(99, 10, SALT_LIVING);

		cr_assert_eq(ring_commit(&living, ring_find_claim(&living, claimed[0]), &how),
			     IPC_ESTALE);
		go_round(n, &heir, &reader, SALT_HEIR);
		ring_leave_producer(&living);
		is_scribbling = false;
	}
	/* Twice a lap: what is banned is given back when the stream comes there. */
	go_round(n, &heir, &reader, SALT_HEIR);
	expect_room(n, &heir, &reader);
}

static void leave_all(void)
{
	if (living.table)
		ring_leave_producer(&living);
	if (heir.table)
		ring_leave_producer(&heir);
}

static void check(void *arg, long n)
{
	(void)arg;
	if (act == ACT_RELEASE || act == ACT_TAKE_READER)
		check_reader(n);
	else
		check_producer(n);
	leave_all();
	scene_make();
}

static void kill_everywhere(enum act which)
{
	const struct step_case step = {.prepare = prepare, .operation = operate, .check = check};

	act = which;
	scene_make();
	cr_assert_gt(step_run(&step, NULL), 20);
	leave_all();
	ring_scene_deinit(&scene);
}

Test(ring_crash, killed_while_it_sends, .timeout = 700)
{
	kill_everywhere(ACT_SEND);
}

Test(ring_crash, killed_while_it_claims, .timeout = 700)
{
	kill_everywhere(ACT_CLAIM);
}

Test(ring_crash, killed_while_it_commits_out_of_order, .timeout = 700)
{
	kill_everywhere(ACT_OUT_OF_ORDER);
}

Test(ring_crash, killed_while_it_aborts, .timeout = 700)
{
	kill_everywhere(ACT_ABORT);
}

Test(ring_crash, killed_while_it_takes_back, .timeout = 700)
{
	kill_everywhere(ACT_REWIND);
}

Test(ring_crash, killed_while_it_leaves, .timeout = 700)
{
	kill_everywhere(ACT_LEAVE);
}

Test(ring_crash, killed_while_it_takes_over, .timeout = 700)
{
	kill_everywhere(ACT_TAKE);
}

Test(ring_crash, killed_while_it_takes_over_from_the_living, .timeout = 700)
{
	kill_everywhere(ACT_TAKE_FROM_LIVING);
}

Test(ring_crash, killed_while_it_takes_over_where_claims_were_passed_by, .timeout = 700)
{
	kill_everywhere(ACT_TAKE_FROM_STRAYS);
}

Test(ring_crash, killed_while_it_takes_over_from_one_who_dies_as_well, .timeout = 700)
{
	kill_everywhere(ACT_TAKE_FROM_GONE);
}

Test(ring_crash, killed_while_it_releases, .timeout = 700)
{
	kill_everywhere(ACT_RELEASE);
}

Test(ring_crash, killed_while_it_takes_over_to_receive, .timeout = 700)
{
	kill_everywhere(ACT_TAKE_READER);
}
