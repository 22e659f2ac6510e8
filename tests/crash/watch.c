/* SPDX-License-Identifier: MIT */
/*
 * Kill at every instruction: the structure of `watch` on one mapping, without a broker.  The test
 * plays the broker: after each death it moves the attention word, as the broker does for those who
 * look at the dead one's side.
 *
 * A live consumer waits all the time, in a process of its own, and tells each version that it got.
 * After each death the survivors go on: the value is the old or the new one as a whole, the next
 * producer publishes at once, and the consumer gets that without waiting for a slice.
 */
#include "libipc/channel/watch.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/actor.h"
#include "tests/support/step.h"
#include "tests/support/wakes.h"

enum { WORDS = 9, HOLDER_CHILD = 7, HOLDER_TEST = 8, HOLDER_PEER = 9 };

struct scene {
	struct eventcount lines[2];
	_Alignas(64) _Atomic uint32_t attention;
	_Alignas(64) _Atomic uint32_t peer_got; /* version, by the live consumer */
	_Atomic uint32_t peer_failed;
	_Alignas(64) _Atomic uint32_t peer_locked; /* how often the live producer got the lock */
	uint64_t number;                           /* what the survivors published last */
	uint64_t version;
	long n_points, n_changed;
};

static const uint64_t shape[4] = {WORDS * 8, 4};
static struct scene *scene;
static void *segment;
static uint64_t segment_size;
static struct watch watch;
static struct actor consumer;
static _Atomic uint32_t cancel_word, handle_cancelled, client_cancelled;

/* ---- what everybody does ---- */

static struct waiter waiter_until(uint64_t deadline_ns)
{
	return (struct waiter){
		.event = &scene->lines[WATCH_CONSUMERS],
		.attention = &scene->attention,
		.cancel_word = &cancel_word,
		.handle_cancelled = &handle_cancelled,
		.client_cancelled = &client_cancelled,
		.deadline_ns = deadline_ns,
	};
}

static void fill(uint64_t *words, uint64_t number)
{
	for (unsigned i = 0; i < WORDS; ++i)
		words[i] = number;
}

static int publish(uint64_t number)
{
	uint64_t words[WORDS];

	fill(words, number);
	return watch_publish(&watch, words, sizeof(words));
}

static int edit(uint64_t holder, struct value_edit *ret_edit)
{
	struct waiter waiter = waiter_until(clock_after_ns(30 * NS_PER_S));
	uint64_t size;

	return watch_edit_wait(&watch, &waiter, holder, ret_edit, &size);
}

/* The value, -1: torn or unreadable. */
static int64_t value_now(uint64_t newer_than, uint64_t *ret_version)
{
	uint64_t words[WORDS] = {0}, size = 0;

	if (watch_read(&watch, newer_than, words, sizeof(words), &size, ret_version) < 0 ||
	    size != sizeof(words))
		return -1;
	for (unsigned i = 1; i < WORDS; ++i)
		if (words[i] != words[0])
			return -1;

	return (int64_t)words[0];
}

static void attend(void)
{
	atomic_fetch_add(&scene->attention, 1);
	futex_wake_all(&scene->attention);
}

/* ---- the live consumer ---- */

static int look_for_newer(void *subject)
{
	uint64_t *version = subject, next;
	int64_t number;

	if (value_version(&watch.value) <= *version)
		return WAITER_NOT_YET;

	number = value_now(*version, &next);
	if (number < 0 || next <= *version)
		return 1;
	*version = next;
	return 0;
}

static void consume(struct actor *self, void *arg)
{
	uint64_t version = 0;

	(void)self;
	(void)arg;
	for (;;) {
		struct waiter waiter = waiter_until(CLOCK_FOREVER);

		if (waiter_wait(&waiter, look_for_newer, &version) != 0)
			atomic_store(&scene->peer_failed, 1);
		atomic_store(&scene->peer_got, (uint32_t)version);
		futex_wake_all(&scene->peer_got);
	}
}

/* The consumer has to have `version`, and not only when a slice is over. */
static void until_consumed(uint64_t version)
{
	uint64_t began = clock_now_ns(), limit = clock_after_ns(30 * NS_PER_S);

	for (uint32_t got = atomic_load(&scene->peer_got); got < version;
	     got = atomic_load(&scene->peer_got)) {
		struct futex_word word = {.word = &scene->peer_got, .expected = got};

		cr_assert_lt(clock_now_ns(), limit, "the waiting consumer has version %u of %lu",
			     got, version);
		futex_sleep(&word, 1, limit);
	}
	cr_assert_eq(atomic_load(&scene->peer_failed), 0, "the consumer read something torn");

	scene->n_points++;
	ASSERT_WOKEN(began);
}

/* ---- the scene ---- */

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(memory, MAP_FAILED);
	return memory;
}

static void setup(void)
{
	WAKES_TELL();
	segment_size = (watch_size(shape) + 4095) & ~UINT64_C(4095);
	scene = shared_memory(sizeof(*scene));
	segment = shared_memory(segment_size);
	eventcount_init(&scene->lines[0]);
	eventcount_init(&scene->lines[1]);
	cr_assert_eq(watch_make(segment, segment_size, shape, 0), 0);
	cr_assert_eq(watch_attach(&watch, segment, segment_size, shape, scene->lines), 0);

	scene->number = 100;
	cr_assert_eq(publish(scene->number), 0);
	scene->version = 1;
	actor_start(&consumer, consume, NULL);
	until_consumed(1);
	scene->n_points = 0;
}

static void teardown(void)
{
	if (consumer.fd >= 0)
		actor_kill(&consumer);
	munmap(segment, segment_size);
	munmap(scene, sizeof(*scene));
}

/* The value is what it was, or `new` one version later.  A death that came after the change is told
 * to the consumer by the broker. */
static void check_value(long n, uint64_t new)
{
	uint64_t version = 0;
	int64_t number;

	attend();
	number = value_now(0, &version);
	cr_assert(number == (int64_t)scene->number || number == (int64_t) new,
		  "killed before instruction %ld: value %ld", n, number);
	cr_assert_eq(version, scene->version + (number != (int64_t)scene->number),
		     "killed before instruction %ld", n);

	scene->n_changed += number != (int64_t)scene->number;
	scene->number = (uint64_t)number;
	scene->version = version;
	until_consumed(version);
}

/* The next producer publishes at once, the next editor edits at once, and the consumer gets both.
 */
static void check_survivors(long n)
{
	struct value_edit next;

	scene->number += 10;
	cr_assert_eq(publish(scene->number), 0, "killed before instruction %ld", n);
	until_consumed(++scene->version);

	cr_assert_eq(edit(HOLDER_TEST, &next), 0, "killed before instruction %ld", n);
	cr_assert_eq(*(uint64_t *)value_data(&watch.value, &next), scene->number,
		     "killed before instruction %ld", n);
	scene->number += 10;
	fill(value_data(&watch.value, &next), scene->number);
	cr_assert_eq(watch_commit(&watch, &next, WORDS * 8), 0);
	until_consumed(++scene->version);
}

/* Both outcomes have to have come up, else the operation was not cut where it matters; and wakes
 * came by themselves. */
static void check_points(long n_points, bool changes)
{
	cr_log_info("%ld kill points, %ld of them after the change", n_points, scene->n_changed);
	cr_assert_gt(n_points, 20);
	if (changes) {
		cr_assert_gt(scene->n_changed, 0, "no kill point after the change");
		cr_assert_lt(scene->n_changed, n_points, "no kill point before the change");
	}
}

/* ---- the operations ---- */

static void do_publish(void *arg)
{
	(void)arg;
	if (publish(scene->number + 1) != 0)
		_exit(1);
}

static void check_change(void *arg, long n)
{
	(void)arg;
	check_value(n, scene->number + 1);
	check_survivors(n);
}

/* W-3, W-4, M-26 */
Test(crash_watch, publish, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.operation = do_publish, .check = check_change};

	check_points(step_run(&step, NULL), true);
}

static struct value_edit child_edit;

static void open_edit(void *arg)
{
	(void)arg;
	if (edit(HOLDER_CHILD, &child_edit) != 0)
		_exit(1);
	fill(value_data(&watch.value, &child_edit), scene->number + 1);
}

static void do_commit(void *arg)
{
	(void)arg;
	if (watch_commit(&watch, &child_edit, WORDS * 8) != 0)
		_exit(1);
}

/* W-3 */
Test(crash_watch, commit, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {
		.prepare = open_edit, .operation = do_commit, .check = check_change};

	check_points(step_run(&step, NULL), true);
}

static void do_edit(void *arg)
{
	(void)arg;
	if (edit(HOLDER_CHILD, &child_edit) != 0)
		_exit(1);
}

static void check_no_change(void *arg, long n)
{
	(void)arg;
	check_value(n, scene->number);
	check_survivors(n);
}

/* W-3, W-13 */
Test(crash_watch, edit, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.operation = do_edit, .check = check_no_change};

	check_points(step_run(&step, NULL), false);
}

static void do_abort(void *arg)
{
	(void)arg;
	watch_abort(&watch);
}

/* W-3, W-4 */
Test(crash_watch, abort, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {
		.prepare = open_edit, .operation = do_abort, .check = check_no_change};

	check_points(step_run(&step, NULL), false);
}

/* What a dead editor leaves if it died between the flip and the unlock: its mark. */
static void leave_mark(void *arg)
{
	(void)arg;
	atomic_store(&watch.segment->header.holder_id, HOLDER_PEER);
	atomic_store(&watch.segment->gate.mark, WATCH_EDITING);
}

/* W-3: also who clears up after a dead one may die of it */
Test(crash_watch, publish_after_a_dead_editor, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {
		.prepare = leave_mark, .operation = do_publish, .check = check_change};

	check_points(step_run(&step, NULL), true);
}

static void do_publish_wait(void *arg)
{
	struct waiter waiter = waiter_until(clock_after_ns(30 * NS_PER_S));
	uint64_t words[WORDS];

	(void)arg;
	fill(words, scene->number + 1);
	if (watch_publish_wait(&watch, &waiter, words, sizeof(words)) != 0)
		_exit(1);
}

/* W-3: the mark makes it go the long way, by the lock */
Test(crash_watch, publish_wait, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {
		.prepare = leave_mark, .operation = do_publish_wait, .check = check_change};

	check_points(step_run(&step, NULL), true);
}

static void do_read(void *arg)
{
	uint64_t version;

	(void)arg;
	if (value_now(0, &version) != (int64_t)scene->number)
		_exit(1);
}

/* W-2, M-26 */
Test(crash_watch, read, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.operation = do_read, .check = check_no_change};

	check_points(step_run(&step, NULL), false);
}

static void do_read_wait(void *arg)
{
	struct waiter waiter = waiter_until(CLOCK_FOREVER);
	uint64_t version = scene->version;

	(void)arg;
	(void)waiter_wait(&waiter, look_for_newer, &version);
}

/* M-26: a consumer that is killed on its way into the sleep, or asleep, takes no other's wake with
 * it. */
Test(crash_watch, read_wait, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.operation = do_read_wait, .check = check_no_change};

	check_points(step_run(&step, NULL), false);
}

static void do_shutdown(void *arg)
{
	(void)arg;
	watch_shutdown(&watch);
}

/* All or nothing: what follows agrees about it, and the value stays. */
static void check_shutdown(void *arg, long n)
{
	uint64_t version;
	int r;

	(void)arg;
	cr_assert_eq(value_now(0, &version), (int64_t)scene->number);
	r = publish(scene->number + 10);
	cr_assert(r == 0 || r == IPC_EPIPE, "killed before instruction %ld: %d", n, r);
	cr_assert_eq(watch_end(&watch), r);
	scene->n_changed += r == IPC_EPIPE;

	cr_assert_eq(watch_make(segment, segment_size, shape, 0), 0);
	cr_assert_eq(publish(scene->number), 0);
}

/* W-16 */
Test(crash_watch, shutdown, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.operation = do_shutdown, .check = check_shutdown};
	long n_points;

	actor_kill(&consumer); /* the channel is made anew after each point */
	n_points = step_run(&step, NULL);

	cr_assert_gt(scene->n_changed, 0);
	cr_assert_lt(scene->n_changed, n_points);
}

/* ---- a killed waiter for the lock ---- */

static struct value_edit test_edit;

static void lock_again_and_again(struct actor *self, void *arg)
{
	struct value_edit mine;

	(void)arg;
	for (;;) {
		(void)actor_hear(self);
		if (edit(HOLDER_PEER, &mine) != 0)
			_exit(1);
		watch_abort(&watch);
		atomic_fetch_add(&scene->peer_locked, 1);
		futex_wake_all(&scene->peer_locked);
	}
}

static void until_locked(uint32_t n, long point)
{
	uint64_t limit = clock_after_ns(30 * NS_PER_S);

	for (uint32_t now = atomic_load(&scene->peer_locked); now < n;
	     now = atomic_load(&scene->peer_locked)) {
		struct futex_word word = {.word = &scene->peer_locked, .expected = now};

		cr_assert_lt(
			clock_now_ns(), limit,
			"the waiting producer never got the lock, killed before instruction %ld",
			point);
		futex_sleep(&word, 1, limit);
	}
}

/* Wants to edit all the time, but lets others in between. */
static void edit_for_ever(struct actor *self, void *arg)
{
	struct value_edit mine;

	(void)self;
	(void)arg;
	for (;;) {
		if (edit(HOLDER_PEER, &mine) != 0)
			_exit(1);
		watch_abort(&watch);
		atomic_fetch_add(&scene->peer_locked, 1);
		futex_wake_all(&scene->peer_locked);
		for (unsigned i = 0; i < 50; ++i)
			sched_yield();
	}
}

static void do_publish_or_not(void *arg)
{
	(void)arg;
	(void)publish(scene->number + 1);
}

/* The editor waits for whoever it met at the gate, and has to get in by that one's death. */
static void check_editor_goes_on(void *arg, long n)
{
	uint64_t began = clock_now_ns();

	(void)arg;
	until_locked(atomic_load(&scene->peer_locked) + 2, n);
	scene->n_points++;
	ASSERT_WOKEN(began);

	check_value(n, scene->number + 1);
}

/* W-3, M-26 */
Test(crash_watch, publish_that_an_editor_waits_for, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.operation = do_publish_or_not,
				       .check = check_editor_goes_on};
	struct actor editor;

	actor_start(&editor, edit_for_ever, NULL);
	check_points(step_run(&step, NULL), true);
	actor_kill(&editor);
}

static void wait_for_lock(void *arg)
{
	(void)arg;
	(void)edit(HOLDER_CHILD, &child_edit);
}

/* The lock is let go of while one waiter lives and one is dead. */
static void check_lock_passes(void *arg, long n)
{
	struct actor *peer = arg;

	watch_abort(&watch);
	until_locked((uint32_t)++scene->n_points, n);

	cr_assert_eq(edit(HOLDER_TEST, &test_edit), 0);
	actor_say(peer, 1);
}

/* M-26, M-33 */
Test(crash_watch, wait_for_the_lock, .init = setup, .fini = teardown, .timeout = 700)
{
	const struct step_case step = {.operation = wait_for_lock, .check = check_lock_passes};
	struct actor peer;
	long n_points;

	scene->n_points = 0;
	actor_start(&peer, lock_again_and_again, NULL);
	cr_assert_eq(edit(HOLDER_TEST, &test_edit), 0);
	actor_say(&peer, 1);
	n_points = step_run(&step, &peer);
	cr_log_info("%ld kill points", n_points);
	cr_assert_gt(n_points, 20);
	watch_abort(&watch);
	actor_kill(&peer);
}
