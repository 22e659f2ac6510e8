/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `shared` on one mapping, between forked processes, without broker and
 * client.
 */
#include "libipc/channel/shared.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/error.h>
#include <ipc/limits.h>

#include "tests/support/actor.h"
#include "tests/support/process.h"
#include "tests/support/shared_scene.h"

enum { VALUE_SIZE = 256 };

static struct shared_scene scene;
static struct shared view;

static void setup_shape(uint64_t shape)
{
	shared_scene_init(&scene, VALUE_SIZE, shape);
	view = shared_scene_attach(&scene, 11);
}

static void setup(void)
{
	setup_shape(SHARED_TRANSACTIONAL);
}

static void setup_in_place(void)
{
	setup_shape(SHARED_IN_PLACE);
}

static void teardown(void)
{
	shared_scene_deinit(&scene);
}

static uint32_t value_word(void)
{
	uint32_t word;

	memcpy(&word, shared_value(&view), sizeof(word));
	return word;
}

/* Locks, writes `word` into every word of the value, does not let go. */
static int edit_all(struct shared *shared, uint32_t word)
{
	uint32_t *value;
	void *memory;
	int r;

	r = shared_lock_try(shared);
	if (r < 0)
		return r;
	if (shared_edit(shared, &memory) < 0)
		return IPC_EINVAL;

	value = memory;
	for (unsigned i = 0; i < VALUE_SIZE / sizeof(*value); ++i)
		value[i] = word;
	return r;
}

static void commit_word(uint32_t word)
{
	cr_assert_geq(edit_all(&view, word), 0);
	cr_assert_eq(shared_commit(&view), 0);
}

/* The same while others look at the value as well. */
static void commit_when_free(uint32_t word)
{
	int r;

	while ((r = edit_all(&view, word)) == IPC_EBUSY)
		process_pause();
	cr_assert_geq(r, 0);
	cr_assert_eq(shared_commit(&view), 0);
}

/* A holder that dies in the middle of an edit. */
static void die_holding(uint32_t word)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		struct shared other = shared_scene_attach(&scene, 22);

		if (edit_all(&other, word) < 0)
			_exit(1);
		_exit(0);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
}

static int lock_when(uint64_t deadline_ns)
{
	struct waiter waiter = shared_scene_waiter(&scene, deadline_ns);
	struct shared_condition condition = shared_scene_condition(&scene);

	return shared_lock_when_wait(&view, &waiter, &condition);
}

static int lock_wait(uint64_t deadline_ns)
{
	struct waiter waiter = shared_scene_waiter(&scene, deadline_ns);

	return shared_lock_wait(&view, &waiter);
}

static uint32_t event_word(void)
{
	return atomic_load(&scene.segment->event.word);
}

/* M-76 */
Test(shared, sizes_that_cannot_be_are_refused, .timeout = 60)
{
	cr_expect_eq(shared_segment_size(0, SHARED_TRANSACTIONAL), 0);
	cr_expect_eq(shared_segment_size(IPC_VALUE_SIZE_MAX + 1, SHARED_IN_PLACE), 0);
	cr_expect_eq(shared_segment_size(UINT64_MAX, SHARED_TRANSACTIONAL), 0);
	cr_expect_eq(shared_segment_size(64, 0), 0);
	cr_expect_eq(shared_segment_size(64, 3), 0);

	cr_expect_eq(shared_segment_size(1, SHARED_TRANSACTIONAL), 448 + 128);
	cr_expect_eq(shared_segment_size(65, SHARED_IN_PLACE), 448 + 128);
	cr_expect_eq(shared_segment_size(IPC_VALUE_SIZE_MAX, SHARED_TRANSACTIONAL),
		     448 + 2 * IPC_VALUE_SIZE_MAX);
}

/* M-60, M-62 */
Test(shared, segment_that_does_not_fit_is_refused_at_attach, .init = setup, .fini = teardown,
     .timeout = 60)
{
	const uint64_t larger[4] = {VALUE_SIZE * 2, SHARED_TRANSACTIONAL};
	const uint64_t other[4] = {VALUE_SIZE, SHARED_IN_PLACE};
	const uint64_t none[4] = {0, 0};
	struct shared attached;

	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size - 1, scene.shape, 1),
		     IPC_EBADMSG);
	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size, larger, 1), IPC_EBADMSG);
	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size, other, 1), IPC_EBADMSG);
	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size, none, 1), IPC_EBADMSG);

	scene.segment->header.kind = IPC_KIND_WATCH;
	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size, scene.shape, 1),
		     IPC_EBADMSG);
	scene.segment->header.kind = IPC_KIND_SHARED;
	scene.segment->header.lock_stamp ^= 1;
	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size, scene.shape, 1),
		     IPC_EPROTONOSUPPORT);
	scene.segment->header.lock_stamp ^= 1;
	scene.segment->header.magic ^= 1;
	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size, scene.shape, 1),
		     IPC_EBADMSG);
	scene.segment->header.magic ^= 1;
	cr_expect_eq(shared_attach(&attached, scene.segment, scene.size, scene.shape, 1), 0);
}

/* S-2, S-11, M-71 */
Test(shared, commit_makes_the_edit_the_value, .init = setup, .fini = teardown, .timeout = 60)
{
	static const unsigned char zeros[VALUE_SIZE];
	void *copy, *same;

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_arr_eq(shared_value(&view), zeros, VALUE_SIZE);
	cr_expect_eq((uintptr_t)shared_value(&view) % 64, 0);
	cr_assert_eq(shared_edit(&view, &copy), 0);
	cr_expect_neq(copy, shared_value(&view));
	cr_expect_eq((uintptr_t)copy % 64, 0);
	memcpy(copy, "\1\0\0\0", 4);
	cr_assert_eq(shared_edit(&view, &same), 0);
	cr_expect_eq(same, copy);
	cr_expect_eq(((unsigned char *)same)[0], 1, "the second edit began anew");
	cr_expect_eq(value_word(), 0, "an edit shows before its commit");
	cr_assert_eq(shared_commit(&view), 0);

	for (uint32_t word = 2; word < 10; ++word) {
		cr_assert_eq(shared_lock_try(&view), 0);
		cr_expect_eq(value_word(), word - 1);
		cr_assert_eq(shared_edit(&view, &copy), 0);
		cr_expect_arr_eq(copy, shared_value(&view), VALUE_SIZE,
				 "the copy is not the value");
		memcpy(copy, &word, sizeof(word));
		cr_assert_eq(shared_commit(&view), 0);
	}
}

/* S-2, S-6 */
Test(shared, unlock_drops_edits, .init = setup, .fini = teardown, .timeout = 60)
{
	commit_word(5);

	cr_assert_eq(edit_all(&view, 6), 0);
	cr_assert_eq(shared_unlock(&view), 0);

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_eq(value_word(), 5);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* S-3, S-10 */
Test(shared, unlock_in_place_keeps_edits, .init = setup_in_place, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(edit_all(&view, 6), 0);
	cr_expect_eq(value_word(), 6, "edit gives another place than the value");
	cr_assert_eq(shared_unlock(&view), 0);

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_eq(value_word(), 6);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* S-6, S-9, S-10: the event moves only when it is woken. */
Test(shared, only_a_commit_of_an_edit_wakes, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t word = eventcount_announce(&scene.segment->event);

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_assert_eq(shared_unlock(&view), 0);
	cr_expect_eq(event_word(), word, "unlock woke");

	cr_assert_eq(edit_all(&view, 1), 0);
	cr_assert_eq(shared_unlock(&view), 0);
	cr_expect_eq(event_word(), word, "unlock after an edit woke");

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_assert_eq(shared_commit(&view), 0);
	cr_expect_eq(event_word(), word, "commit without edit woke");

	cr_assert_eq(lock_when(0), IPC_ETIMEDOUT);
	cr_expect_eq(event_word(), word, "a predicate woke");

	cr_assert_eq(edit_all(&view, 1), 0);
	cr_expect_eq(event_word(), word, "woke before the commit");
	cr_assert_eq(shared_commit(&view), 0);
	cr_expect_neq(event_word(), word, "commit did not wake");

	word = event_word();
	cr_assert_eq(edit_all(&view, 2), 0);
	cr_assert_eq(shared_commit(&view), 0);
	cr_expect_eq(event_word(), word, "woke though nobody sleeps");
}

/* S-8 */
Test(shared, same_thread_twice_would_wait_for_itself, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct shared second = shared_scene_attach(&scene, 12);

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_eq(shared_lock_try(&view), IPC_EDEADLK);
	cr_expect_eq(shared_lock_try(&second), IPC_EDEADLK);
	cr_expect_eq(lock_wait(CLOCK_FOREVER), IPC_EDEADLK);
	cr_expect_eq(lock_when(CLOCK_FOREVER), IPC_EDEADLK);
	cr_expect(shared_is_mine(&view), "a refused second lock lost the first");
	cr_expect(!shared_is_mine(&second));
	cr_expect_eq(shared_commit(&second), IPC_EINVAL);
	cr_assert_eq(shared_unlock(&view), 0);
}

static void expect_no_holder(struct shared *shared)
{
	void *memory;

	cr_expect_eq(shared_edit(shared, &memory), IPC_EINVAL);
	cr_expect_eq(shared_commit(shared), IPC_EINVAL);
	cr_expect_eq(shared_unlock(shared), IPC_EINVAL);
	cr_expect_eq(shared_mark_consistent(shared), IPC_EINVAL);
}

static void *other_thread(void *arg)
{
	expect_no_holder(arg);
	return NULL;
}

static void *locking_thread(void *arg)
{
	return (void *)(intptr_t)shared_lock_try(arg);
}

/* S-9, M-42 */
Test(shared, only_the_holding_thread_edits, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_t thread;

	expect_no_holder(&view);

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_eq(shared_mark_consistent(&view), IPC_EINVAL);
	cr_assert_eq(pthread_create(&thread, NULL, other_thread, &view), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(shared_unlock(&view), 0);

	expect_no_holder(&view);
}

/* M-42 */
Test(shared, thread_that_ends_holding_counts_as_dead, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pthread_t thread;
	void *result;

	cr_assert_eq(pthread_create(&thread, NULL, locking_thread, &view), 0);
	cr_assert_eq(pthread_join(thread, &result), 0);
	cr_assert_eq((intptr_t)result, 0);

	expect_no_holder(&view);
	cr_expect_eq(lock_wait(CLOCK_FOREVER), 1);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* S-1, S-2 */
Test(shared, death_of_a_holder_is_told_once, .init = setup, .fini = teardown, .timeout = 60)
{
	commit_word(7);
	die_holding(8);

	cr_assert_eq(shared_lock_try(&view), 1);
	cr_expect_eq(value_word(), 7, "a dead holder's edit shows");
	cr_assert_eq(shared_unlock(&view), 0);

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_eq(value_word(), 7);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* S-1: a look at a predicate takes the lock, and is not a user. */
Test(shared, death_is_not_swallowed_by_a_predicate_that_does_not_hold, .init = setup,
     .fini = teardown, .timeout = 60)
{
	die_holding(1);

	cr_assert_eq(lock_when(0), IPC_ETIMEDOUT);
	cr_assert_eq(lock_when(0), IPC_ETIMEDOUT);
	cr_assert_eq(shared_lock_try(&view), 1);
	cr_assert_eq(shared_unlock(&view), 0);
	cr_assert_eq(shared_lock_try(&view), 0);
	cr_assert_eq(shared_unlock(&view), 0);

	commit_word(1);
	die_holding(2);
	cr_assert_eq(lock_when(0), 1);
	cr_expect_eq(value_word(), 1);
	cr_assert_eq(shared_unlock(&view), 0);
	cr_assert_eq(lock_when(0), 0);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* A closed handle gives a lock back that nobody asked for any more: the death goes to the next. */
Test(shared, death_that_was_put_back_is_told_again, .init = setup_in_place, .fini = teardown,
     .timeout = 60)
{
	die_holding(1);

	cr_assert_eq(shared_lock_try(&view), 1);
	shared_put_back(&view, true);
	cr_assert_eq(lock_when(0), 1);
	cr_expect_eq(atomic_load(&scene.board->n_asked), 0);
	cr_assert_eq(shared_mark_consistent(&view), 0);
	cr_assert_eq(shared_unlock(&view), 0);
	cr_assert_eq(shared_lock_try(&view), 0);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* The death may have come between commit and wake: whoever finds it wakes for the dead. */
Test(shared, finder_of_a_death_wakes_for_the_dead, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t word;

	die_holding(1);
	word = eventcount_announce(&scene.segment->event);

	cr_assert_eq(lock_wait(0), 1);
	cr_assert_eq(shared_unlock(&view), 0);
	cr_expect_neq(event_word(), word);

	word = eventcount_announce(&scene.segment->event);
	cr_assert_eq(lock_wait(0), 0);
	cr_assert_eq(shared_unlock(&view), 0);
	cr_expect_eq(event_word(), word);
}

/* S-3, S-10 */
Test(shared, in_place_a_death_has_to_be_marked, .init = setup_in_place, .fini = teardown,
     .timeout = 60)
{
	void *memory;

	die_holding(3);

	cr_assert_eq(shared_lock_try(&view), 1);
	cr_assert_eq(shared_edit(&view, &memory), 0);
	memset(memory, 0, VALUE_SIZE);
	cr_assert_eq(shared_mark_consistent(&view), 0);
	cr_expect_eq(shared_mark_consistent(&view), IPC_EINVAL, "nothing is left to mark");
	cr_assert_eq(shared_commit(&view), 0);

	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_eq(shared_mark_consistent(&view), IPC_EINVAL);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* S-9, S-10 */
Test(shared, mark_on_a_transactional_value_is_refused, .init = setup, .fini = teardown,
     .timeout = 60)
{
	die_holding(3);
	cr_assert_eq(shared_lock_try(&view), 1);
	cr_expect_eq(shared_mark_consistent(&view), IPC_EINVAL);
	cr_assert_eq(shared_unlock(&view), 0);
}

static void expect_given_up(void)
{
	cr_expect_eq(shared_lock_try(&view), IPC_ENOTRECOVERABLE);
	cr_expect_eq(lock_wait(CLOCK_FOREVER), IPC_ENOTRECOVERABLE);
	cr_expect_eq(lock_when(CLOCK_FOREVER), IPC_ENOTRECOVERABLE);
	cr_expect_eq(shared_shutdown(&view), IPC_ENOTRECOVERABLE);
	cr_expect(!shared_is_mine(&view), "a refused lock is held");
}

/* S-3, M-61 */
Test(shared, in_place_unlock_without_the_mark_gives_up, .init = setup_in_place, .fini = teardown,
     .timeout = 60)
{
	uint32_t word;

	/* Not the finder of the death, who wakes in any case. */
	die_holding(3);
	cr_assert_eq(shared_lock_try(&view), 1);
	shared_put_back(&view, true);
	cr_assert_eq(shared_lock_try(&view), 1);
	word = eventcount_announce(&scene.segment->event);
	cr_expect_eq(shared_unlock(&view), 0);
	cr_expect_neq(event_word(), word, "those who sleep are not told");
	expect_given_up();
}

/* S-3, S-9, M-61 */
Test(shared, in_place_commit_without_the_mark_is_refused, .init = setup_in_place, .fini = teardown,
     .timeout = 60)
{
	void *memory;

	die_holding(3);
	cr_assert_eq(shared_lock_try(&view), 1);
	cr_assert_eq(shared_edit(&view, &memory), 0);
	cr_expect_eq(shared_commit(&view), IPC_ENOTRECOVERABLE);
	cr_expect_eq(atomic_load(&scene.segment->current), 0, "a refused commit counts");
	expect_given_up();
}

static void take_death_and_die(struct actor *self, void *arg)
{
	struct shared other = shared_scene_attach(&scene, 33);
	bool marks = *(bool *)arg;
	int r;

	r = shared_lock_try(&other);
	if (r == 1 && marks)
		r = shared_mark_consistent(&other) < 0 ? -1 : 1;
	actor_say(self, r);
}

/* S-3: who was told and died is a new death, marked or not. */
Test(shared, in_place_death_of_the_one_that_was_told_is_told_again, .init = setup_in_place,
     .fini = teardown, .timeout = 60)
{
	for (int marks = 0; marks < 2; ++marks) {
		bool arg = marks;
		struct actor actor;

		die_holding(3);
		actor_start(&actor, take_death_and_die, &arg);
		cr_assert_eq(actor_hear(&actor), 1);
		cr_assert_eq(actor_join(&actor), 0);

		cr_assert_eq(shared_lock_try(&view), 1);
		cr_assert_eq(shared_mark_consistent(&view), 0);
		cr_assert_eq(shared_unlock(&view), 0);
		cr_assert_eq(shared_lock_try(&view), 0);
		cr_assert_eq(shared_unlock(&view), 0);
	}
}

/* S-10 */
Test(shared, in_place_a_death_comes_before_the_predicate, .init = setup_in_place, .fini = teardown,
     .timeout = 60)
{
	die_holding(0);

	cr_assert_eq(lock_when(CLOCK_FOREVER), 1);
	cr_expect_eq(atomic_load(&scene.board->n_asked), 0,
		     "a predicate saw a value that may be half-made");
	cr_assert_eq(shared_mark_consistent(&view), 0);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* Holds from the second call on. */
static bool holds_the_second_time(const void *value, uint64_t size, void *userdata)
{
	struct shared_scene *s = userdata;

	(void)value;
	(void)size;
	return atomic_fetch_add(&s->board->n_asked, 1) == 1;
}

/* S-4, M-21 */
Test(shared, predicate_is_asked_once_more_before_an_end_is_told, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct waiter waiter = shared_scene_waiter(&scene, CLOCK_FOREVER);
	struct shared_condition condition = shared_scene_condition(&scene);

	atomic_store(&scene.board->end, EOWNERDEAD);
	cr_expect_eq(lock_when(CLOCK_FOREVER), IPC_EOWNERDEAD);
	cr_expect_eq(atomic_load(&scene.board->n_asked), 2);
	cr_expect(!shared_is_mine(&view), "an end holds the lock");

	atomic_store(&scene.board->n_asked, 0);
	condition.holds = holds_the_second_time;
	cr_expect_eq(shared_lock_when_wait(&view, &waiter, &condition), 0,
		     "a predicate that holds wins");
	cr_assert_eq(shared_unlock(&view), 0);

	commit_word(1);
	cr_expect_eq(lock_when(0), 0);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* S-12 */
Test(shared, shutdown_ends_predicates_and_nothing_else, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint32_t word = eventcount_announce(&scene.segment->event);

	atomic_store(&scene.board->end, EOWNERDEAD);
	cr_assert_eq(shared_shutdown(&view), 0);
	cr_expect_neq(event_word(), word, "those who sleep are not told");
	cr_assert_eq(shared_shutdown(&view), 0);
	cr_expect_eq(lock_when(CLOCK_FOREVER), IPC_EPIPE);
	commit_word(4);
	cr_expect_eq(lock_when(CLOCK_FOREVER), 0);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* ---- with somebody asleep ---- */

/* Says the result of one wait for the predicate; holds the lock then, lets go and goes. */
static void sleep_for_predicate(struct actor *self, void *arg)
{
	int r;

	(void)arg;
	view = shared_scene_attach(&scene, 44);
	r = lock_when(CLOCK_FOREVER);
	if (r == 1 && view.is_in_place && shared_mark_consistent(&view) < 0)
		r = -1;
	if (r >= 0 && shared_unlock(&view) < 0)
		r = -2;
	if (r == 1)
		atomic_fetch_add(&scene.board->n_told, 1);
	actor_say(self, r);
}

static void sleep_for_lock(struct actor *self, void *arg)
{
	int r;

	(void)arg;
	view = shared_scene_attach(&scene, 55);
	r = lock_wait(CLOCK_FOREVER);
	actor_say(self, r);
}

/* M-27, S-6 */
Test(shared, sleeper_is_woken_by_the_commit_that_it_waits_for, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor actors[2];
	uint32_t n_asked;

	for (unsigned i = 0; i < 2; ++i) {
		actor_start(&actors[i], sleep_for_predicate, NULL);
		actor_until_asleep(&actors[i]);
	}

	n_asked = atomic_load(&scene.board->n_asked);
	commit_when_free(0);
	while (atomic_load(&scene.board->n_asked) < n_asked + 2)
		process_pause();

	commit_when_free(1);
	for (unsigned i = 0; i < 2; ++i) {
		cr_expect_eq(actor_hear(&actors[i]), 0);
		cr_expect_eq(actor_join(&actors[i]), 0);
	}
}

/* S-10 */
Test(shared, in_place_exactly_one_sleeper_is_told_a_death, .init = setup_in_place, .fini = teardown,
     .timeout = 60)
{
	struct actor actors[3];
	int64_t n_told = 0;

	for (unsigned i = 0; i < 3; ++i) {
		actor_start(&actors[i], sleep_for_predicate, NULL);
		actor_until_asleep(&actors[i]);
	}

	die_holding(0);
	shared_scene_attend(&scene);
	while (!atomic_load(&scene.board->n_told))
		process_pause();
	commit_when_free(1);
	for (unsigned i = 0; i < 3; ++i) {
		int64_t r = actor_hear(&actors[i]);

		cr_expect(r == 0 || r == 1, "%lld", (long long)r);
		n_told += r;
		cr_expect_eq(actor_join(&actors[i]), 0);
	}
	cr_expect_eq(n_told, 1);
}

/* S-3, M-61 */
Test(shared, giving_up_ends_every_wait, .init = setup_in_place, .fini = teardown, .timeout = 60)
{
	struct actor for_predicate, for_lock;

	actor_start(&for_predicate, sleep_for_predicate, NULL);
	actor_until_asleep(&for_predicate);
	die_holding(0);
	cr_assert_eq(shared_lock_try(&view), 1);
	actor_start(&for_lock, sleep_for_lock, NULL);
	actor_until_asleep(&for_lock);

	cr_expect_eq(shared_unlock(&view), 0);

	cr_expect_eq(actor_hear(&for_predicate), IPC_ENOTRECOVERABLE);
	cr_expect_eq(actor_hear(&for_lock), IPC_ENOTRECOVERABLE);
	cr_expect_eq(actor_join(&for_predicate), 0);
	cr_expect_eq(actor_join(&for_lock), 0);
}

/* M-33, S-1 */
Test(shared, lock_wait_gets_the_lock_of_a_holder_that_dies, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor holder, waiting;
	bool marks = false;

	die_holding(0);
	actor_start(&holder, take_death_and_die, &marks); /* holds until it ends */
	cr_assert_eq(actor_hear(&holder), 1);
	cr_assert_eq(actor_join(&holder), 0);

	cr_assert_eq(shared_lock_try(&view), 1);
	actor_start(&waiting, sleep_for_lock, NULL);
	actor_until_asleep(&waiting);
	cr_expect_eq(atomic_load(&scene.board->cell.waits_for), 11,
		     "nobody sees for whom it waits");
	cr_assert_eq(shared_unlock(&view), 0);
	cr_expect_eq(actor_hear(&waiting), 0);
	cr_expect_eq(actor_join(&waiting), 0);
	cr_expect_eq(shared_lock_try(&view), 1);
	cr_assert_eq(shared_unlock(&view), 0);
}

static void hold_until_told(struct actor *self, void *arg)
{
	struct shared other = shared_scene_attach(&scene, 66);

	(void)arg;
	actor_say(self, shared_lock_try(&other));
	(void)actor_hear(self);
	actor_say(self, shared_unlock(&other));
}

/* M-20 */
Test(shared, waits_for_a_held_lock_end_at_their_deadline, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t deadline_ns;
	struct actor holder;

	actor_start(&holder, hold_until_told, NULL);
	cr_assert_eq(actor_hear(&holder), 0);

	cr_expect_eq(shared_lock_try(&view), IPC_EBUSY);
	cr_expect_eq(lock_wait(0), IPC_ETIMEDOUT);
	cr_expect_eq(lock_when(0), IPC_ETIMEDOUT);
	deadline_ns = clock_after_ns(NS_PER_MS);
	cr_expect_eq(lock_wait(deadline_ns), IPC_ETIMEDOUT);
	cr_expect_geq(clock_now_ns(), deadline_ns);
	cr_expect_eq(lock_when(clock_after_ns(NS_PER_MS)), IPC_ETIMEDOUT);
	cr_expect_eq(atomic_load(&scene.board->n_asked), 0,
		     "a predicate was asked without the lock");

	actor_say(&holder, 0);
	cr_expect_eq(actor_hear(&holder), 0);
	cr_expect_eq(actor_join(&holder), 0);
	cr_expect_eq(lock_wait(0), 0);
	cr_assert_eq(shared_unlock(&view), 0);
}

/* M-60: bytes that are no lock break the channel for everybody, and nobody crashes. */
Test(shared, lock_that_is_none_breaks_the_channel, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t word = eventcount_announce(&scene.segment->event);

	memset(&scene.segment->lock, 0xa5, sizeof(scene.segment->lock));

	cr_expect_eq(shared_lock_try(&view), IPC_EBADMSG);
	cr_expect_neq(event_word(), word, "those who sleep are not told");
	cr_expect_eq(lock_wait(CLOCK_FOREVER), IPC_EBADMSG);
	cr_expect_eq(lock_when(CLOCK_FOREVER), IPC_EBADMSG);
	lock_init(&scene.segment->lock);
	cr_expect_eq(shared_lock_try(&view), IPC_EBADMSG, "broken is for ever");
}

/* Whoever looks sees who holds the lock, and that it let go. */
Test(shared, holder_is_shown_while_it_holds, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(shared_lock_try(&view), 0);
	cr_expect_eq(atomic_load(&scene.segment->header.holder_id), 11);
	cr_expect_leq(atomic_load(&scene.segment->header.holder_since), clock_now_ns());
	cr_expect_geq(atomic_load(&scene.segment->header.holder_since) + NS_PER_S, clock_now_ns());
	cr_assert_eq(shared_unlock(&view), 0);
	cr_expect_eq(atomic_load(&scene.segment->header.holder_id), 0);
}
