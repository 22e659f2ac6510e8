/* SPDX-License-Identifier: MIT */
#include "libipc/platform/lock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/platform/lock_take.h"
#include "tests/platform/refuse.h"
#include "tests/support/actor.h"
#include "tests/support/process.h"
#include "tests/support/wakes.h"

#define N_LOCKS 64
#define SOON    (30 * FUTEX_SLICE_NS) /* and not for ever, on a busy machine */

static struct lock *locks;
static _Atomic uint32_t *other_word;

static void setup(void)
{
	locks = shared_memory(N_LOCKS * sizeof(*locks));
	other_word = shared_memory(4096);
	cr_assert(locks && other_word);
	for (unsigned i = 0; i < N_LOCKS; ++i)
		lock_init(&locks[i]);
}

static void teardown(void)
{
	munmap(locks, N_LOCKS * sizeof(*locks));
	munmap(other_word, 4096);
}

static uint32_t word_of(const struct lock *lock)
{
	uint32_t word;

	memcpy(&word, lock, sizeof(word));
	return word;
}

/* Takes locks[0], says so, waits to be killed. */
static void hold(struct actor *self, void *arg)
{
	(void)arg;
	actor_say(self, lock_try(&locks[0]));
	(void)actor_hear(self);
	actor_say(self, lock_unlock(&locks[0]));
}

/* Waits for locks[0], says how it got it, gives it back. */
static void want(struct actor *self, void *arg)
{
	(void)arg;
	actor_say(self, lock_take(&locks[0], CLOCK_FOREVER));
	(void)lock_unlock(&locks[0]);
}

static void start_holder(struct actor *actor)
{
	actor_start(actor, hold, NULL);
	cr_assert_eq(actor_hear(actor), LOCK_HELD);
}

Test(lock, is_taken_and_given_back, .init = setup, .fini = teardown, .timeout = 60)
{
	for (unsigned i = 0; i < 100; ++i) {
		cr_assert_eq(lock_is_mine(&locks[0]), 0);
		cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
		cr_assert_eq(lock_is_mine(&locks[0]), 1);
		cr_assert_eq(lock_unlock(&locks[0]), 0);
	}
}

/* S-8 */
Test(lock, taking_it_twice_is_a_deadlock, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(lock_try(&locks[0]), LOCK_DEADLOCK);
	cr_assert_eq(lock_is_mine(&locks[0]), 1);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

static void *meddle(void *arg)
{
	struct lock *lock = arg;

	if (lock_try(lock) != LOCK_BUSY || lock_is_mine(lock) || lock_unlock(lock) != -1)
		return NULL;
	return arg;
}

/* S-9, M-42 */
Test(lock, belongs_to_one_thread, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_t thread;
	void *said;

	cr_assert_eq(lock_unlock(&locks[0]), -1);

	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(pthread_create(&thread, NULL, meddle, &locks[0]), 0);
	cr_assert_eq(pthread_join(thread, &said), 0);
	cr_assert_eq(said, &locks[0]);
	cr_assert_eq(lock_is_mine(&locks[0]), 1);

	cr_assert_eq(lock_unlock(&locks[0]), 0);
	cr_assert_eq(lock_unlock(&locks[0]), -1);
}

Test(lock, of_another_process_is_busy, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;

	start_holder(&holder);
	cr_assert_eq(lock_try(&locks[0]), LOCK_BUSY);
	cr_assert_eq(lock_is_mine(&locks[0]), 0);
	cr_assert_eq(lock_unlock(&locks[0]), -1);

	actor_say(&holder, 0);
	cr_assert_eq(actor_hear(&holder), 0);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
	cr_assert_eq(actor_join(&holder), 0);
}

/* M-25: told once, and never ENOTRECOVERABLE */
Test(lock, of_the_dead_is_told_once, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;

	start_holder(&holder);
	actor_kill(&holder);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD_AFTER_DEATH);
	cr_assert_eq(lock_is_mine(&locks[0]), 1);
	cr_assert_eq(pthread_mutex_consistent((pthread_mutex_t *)(void *)&locks[0]), EINVAL,
		     "it is consistent already");
	cr_assert_eq(lock_unlock(&locks[0]), 0);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

static void hold_after_death(struct actor *self, void *arg)
{
	(void)arg;
	actor_say(self, lock_try(&locks[0]));
	(void)actor_hear(self);
}

Test(lock, survives_a_row_of_deaths, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;

	start_holder(&holder);
	for (unsigned i = 0; i < 5; ++i) {
		actor_kill(&holder);
		actor_start(&holder, hold_after_death, NULL);
		cr_assert_eq(actor_hear(&holder), LOCK_HELD_AFTER_DEATH);
	}
	actor_kill(&holder);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD_AFTER_DEATH);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

static void *take_and_end(void *arg)
{
	return lock_try(arg) == LOCK_HELD ? arg : NULL;
}

/* M-42: a thread that ends holding it counts as dead */
Test(lock, of_a_thread_that_ended_is_of_the_dead, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_t thread;
	void *said;

	cr_assert_eq(pthread_create(&thread, NULL, take_and_end, &locks[0]), 0);
	cr_assert_eq(pthread_join(thread, &said), 0);
	cr_assert_eq(said, &locks[0]);

	cr_assert_eq(lock_take(&locks[0], clock_after_ns(SOON)), LOCK_HELD_AFTER_DEATH);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

static void hold_and_exec(struct actor *self, void *arg)
{
	char *const arguments[] = {(char *)(uintptr_t) "cat", NULL};

	(void)arg;
	actor_say(self, lock_try(&locks[0]));
	(void)actor_hear(self);
	if (dup2(self->fd, 0) == 0)
		execvp("cat", arguments);
	process_end(1);
}

/* M-24: exec is a death */
Test(lock, of_one_that_became_another_program_is_of_the_dead, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor holder;

	actor_start(&holder, hold_and_exec, NULL);
	cr_assert_eq(actor_hear(&holder), LOCK_HELD);
	actor_say(&holder, 0);

	cr_assert_eq(lock_take(&locks[0], clock_after_ns(30 * NS_PER_S)), LOCK_HELD_AFTER_DEATH);
	cr_assert_eq(kill(holder.pid, 0), 0, "it lives on");
	cr_assert_eq(lock_unlock(&locks[0]), 0);
	actor_kill(&holder);
}

/* M-42, S-8: a child did not take what its parent holds */
Test(lock, does_not_pass_to_a_forked_child, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t pid;

	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	pid = process_fork();
	if (pid == 0) {
		if (lock_is_mine(&locks[0]) || lock_unlock(&locks[0]) != -1 ||
		    lock_try(&locks[0]) != LOCK_BUSY)
			process_end(1);
		/* Locks of its own do not make it the parent's. */
		if (lock_try(&locks[1]) != LOCK_HELD || lock_is_mine(&locks[0]) ||
		    lock_unlock(&locks[0]) != -1)
			process_end(2);
		process_end(lock_is_mine(&locks[1]) && lock_unlock(&locks[1]) == 0 ? 0 : 3);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);

	cr_assert_eq(lock_is_mine(&locks[0]), 1);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

/* The same, with a mutex of the application's own in the child's list. */
Test(lock, does_not_pass_to_a_child_with_locks_of_its_own, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pthread_mutexattr_t attributes;
	pthread_mutex_t foreign;
	pid_t pid;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&foreign, &attributes);

	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	pid = process_fork();
	if (pid == 0) {
		pthread_mutex_lock(&foreign);
		if (lock_is_mine(&locks[0]) || lock_unlock(&locks[0]) != -1)
			process_end(1);
		if (lock_try(&locks[1]) != LOCK_HELD || lock_is_mine(&locks[0]) ||
		    lock_unlock(&locks[0]) != -1)
			process_end(2);
		process_end(lock_unlock(&locks[1]) == 0 && pthread_mutex_unlock(&foreign) == 0 ? 0
											       : 3);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_eq(word_of(&locks[0]), (uint32_t)gettid());
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

static void *mark_waiters(void *arg)
{
	while (!atomic_load(other_word))
		(void)lock_sleep(arg, NULL, 0, clock_now_ns() + 1000);
	return arg;
}

/* S-8: two handles of one channel map its memory twice */
Test(lock, held_through_another_map_is_a_deadlock, .init = setup, .fini = teardown, .timeout = 60)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct lock *here, *there;
	pthread_t thread;

	cr_assert_eq(ftruncate(fd, 4096), 0);
	here = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	there = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	lock_init(here);
	cr_assert_eq(pthread_create(&thread, NULL, mark_waiters, there), 0);

	for (unsigned i = 0; i < 2000; ++i) {
		while (lock_try(here) != LOCK_HELD)
			;
		cr_assert_eq(lock_try(there), LOCK_DEADLOCK);
		cr_assert_eq(lock_is_mine(here), 1);
		cr_assert_eq(lock_unlock(there), -1);
		cr_assert_eq(lock_unlock(here), 0);
	}

	atomic_store(other_word, 1);
	pthread_join(thread, NULL);
	munmap(here, 4096);
	munmap(there, 4096);
	close(fd);
}

/* ---- many at once ---- */

Test(lock, many_are_held_and_given_back_in_any_order, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (unsigned n = 1; n <= N_LOCKS; n += n < 20 ? 1 : 11)
		for (unsigned step = 1; step < 8; step += 2) {
			for (unsigned i = 0; i < n; ++i)
				cr_assert_eq(lock_try(&locks[i]), LOCK_HELD);
			for (unsigned i = 0; i < n; ++i)
				cr_assert_eq(lock_is_mine(&locks[i]), 1);
			/* Odd steps meet every lock of the 64 once; those that are not held say so.
			 */
			for (unsigned i = 0; i < N_LOCKS; ++i) {
				unsigned k = (i * step + 5) % N_LOCKS;

				cr_assert_eq(lock_unlock(&locks[k]), k < n ? 0 : -1,
					     "%u of %u, step %u", k, n, step);
			}
		}
}

Test(lock, of_the_dead_are_all_released, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		for (unsigned i = 0; i < N_LOCKS; ++i)
			(void)lock_try(&locks[i]);
		for (unsigned i = 0; i < N_LOCKS; i += 2)
			(void)lock_unlock(&locks[i]);
		process_end(0);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);

	for (unsigned i = 0; i < N_LOCKS; ++i)
		cr_assert_eq(lock_try(&locks[i]), i % 2 ? LOCK_HELD_AFTER_DEATH : LOCK_HELD);
}

/* An application's own robust mutexes are in the same list of the thread, and come and go as they
 * like. */
Test(lock, gets_along_with_foreign_robust_mutexes, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_mutexattr_t attributes;
	pthread_mutex_t foreign[4];

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	for (unsigned i = 0; i < 4; ++i)
		pthread_mutex_init(&foreign[i], &attributes);

	for (unsigned round = 0; round < 24; ++round) {
		unsigned first = round % 4, second = (round + 1 + round / 4 % 3) % 4;

		pthread_mutex_lock(&foreign[0]);
		pthread_mutex_lock(&foreign[1]);
		cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
		pthread_mutex_lock(&foreign[2]);
		cr_assert_eq(lock_try(&locks[1]), LOCK_HELD);
		pthread_mutex_lock(&foreign[3]);

		cr_assert_eq(pthread_mutex_unlock(&foreign[first]), 0);
		cr_assert_eq(pthread_mutex_unlock(&foreign[second]), 0);
		cr_assert_eq(lock_unlock(&locks[round / 12]), 0);
		for (unsigned i = 0; i < 4; ++i)
			if (i != first && i != second)
				cr_assert_eq(pthread_mutex_unlock(&foreign[i]), 0);
		cr_assert_eq(lock_unlock(&locks[1 - round / 12]), 0);
	}
}

Test(lock, works_where_the_list_cannot_be_asked_for, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		refuse_call(SYS_get_robust_list, EPERM);
		for (unsigned i = 0; i < 4; ++i)
			if (lock_try(&locks[i]) != LOCK_HELD || !lock_is_mine(&locks[i]) ||
			    lock_try(&locks[i]) != LOCK_DEADLOCK)
				process_end(1);
		for (unsigned i = 0; i < 4; ++i)
			if (lock_unlock(&locks[i]) != 0 || lock_is_mine(&locks[i]) ||
			    lock_unlock(&locks[i]) != -1)
				process_end(2);
		process_end(0);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
}

/* ---- waiting ---- */

/* Runs fn with a waiter asleep, who then has the lock, and no slice ended its sleep. */
static void expect_wake(void (*begin_fn)(struct actor *holder), void (*fn)(struct actor *holder),
			int64_t expected)
{
	WAKES_TELL();
	for (unsigned i = 0; i < 8; ++i) {
		struct actor holder, waiter;
		uint64_t began;

		begin_fn(&holder);
		actor_start(&waiter, want, NULL);
		actor_until_asleep(&waiter);
		began = clock_now_ns();
		fn(&holder);
		cr_assert_eq(actor_hear(&waiter), expected);
		ASSERT_WOKEN(began);
		cr_assert_eq(actor_join(&waiter), 0);
	}
}

static void take_it(struct actor *holder)
{
	(void)holder;
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
}

static void give_it(struct actor *holder)
{
	(void)holder;
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

Test(lock, unlock_wakes_the_waiter, .init = setup, .fini = teardown, .timeout = 60)
{
	expect_wake(take_it, give_it, LOCK_HELD);
}

/* M-25 */
Test(lock, death_wakes_the_waiter, .init = setup, .fini = teardown, .timeout = 60)
{
	expect_wake(start_holder, actor_kill, LOCK_HELD_AFTER_DEATH);
}

static void want_or_other(struct actor *self, void *arg)
{
	struct futex_word other = {.word = other_word, .expected = 0};

	(void)arg;
	for (;;) {
		if (lock_try(&locks[0]) != LOCK_BUSY)
			process_end(1);
		if (atomic_load(other_word))
			break;
		(void)lock_sleep(&locks[0], &other, 1, CLOCK_FOREVER);
	}
	lock_pass_on(&locks[0]);
	actor_say(self, 7);
}

/* M-28: a lock wait ends by what else it looks at */
Test(lock, other_words_wake_the_waiter, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor waiter;

	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	actor_start(&waiter, want_or_other, NULL);
	actor_until_asleep(&waiter);
	atomic_store(other_word, 1);
	futex_wake_all(other_word);
	cr_assert_eq(actor_hear(&waiter), 7);
	cr_assert_eq(actor_join(&waiter), 0);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

/* M-20 */
Test(lock, sleep_ends_with_deadline_and_slice, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;
	uint64_t begin;

	start_holder(&holder);
	begin = clock_now_ns();
	cr_assert_eq(lock_sleep(&locks[0], NULL, 0, begin + 10 * NS_PER_MS), FUTEX_SLICE_OVER);
	cr_assert_geq(clock_now_ns() - begin, 10 * NS_PER_MS);
	cr_assert_eq(lock_sleep(&locks[0], NULL, 0, 0), FUTEX_SLICE_OVER);

	begin = clock_now_ns();
	cr_assert_eq(lock_sleep(&locks[0], NULL, 0, CLOCK_FOREVER), FUTEX_SLICE_OVER);
	cr_assert_geq(clock_now_ns() - begin, FUTEX_SLICE_NS);
	actor_kill(&holder);
}

Test(lock, free_one_is_not_slept_upon, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;

	cr_assert_eq(lock_sleep(&locks[0], NULL, 0, CLOCK_FOREVER), FUTEX_WOKEN);
	cr_assert_eq(word_of(&locks[0]), 0, "a waiter's mark without a holder locks everybody out");

	start_holder(&holder);
	actor_kill(&holder);
	cr_assert_eq(lock_sleep(&locks[0], NULL, 0, CLOCK_FOREVER), FUTEX_WOKEN);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD_AFTER_DEATH);
}

/*
 * M-26: T unlocks and wakes W1, B takes the free lock, W1 is killed before it can ask for a wake.
 * B's unlock sees no waiter: only the slice brings W2 back.
 */
Test(lock, killed_waiter_takes_no_wake_with_it, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor waiter[2];
	uint64_t begin;
	int status;

	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	for (unsigned i = 0; i < 2; ++i) {
		actor_start(&waiter[i], want, NULL);
		actor_until_asleep(&waiter[i]);
	}
	kill(waiter[0].pid, SIGSTOP);
	cr_assert_eq(waitpid(waiter[0].pid, &status, WUNTRACED), waiter[0].pid);

	cr_assert_eq(lock_unlock(&locks[0]), 0);
	(void)lock_take(&locks[0], CLOCK_FOREVER);
	actor_kill(&waiter[0]);
	begin = clock_now_ns();
	cr_assert_eq(lock_unlock(&locks[0]), 0);

	cr_assert_eq(actor_hear(&waiter[1]), LOCK_HELD);
	cr_assert_lt(clock_now_ns() - begin, SOON);
	cr_assert_eq(actor_join(&waiter[1]), 0);
}

static void sleep_once(struct actor *self, void *arg)
{
	enum futex_result r;

	(void)arg;
	do
		r = lock_sleep(&locks[0], NULL, 0, CLOCK_FOREVER);
	while (r == FUTEX_SLICE_OVER);
	actor_say(self, r);
}

/* Who gives up may have swallowed a wake. */
Test(lock, wake_is_passed_on, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor waiter;

	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	actor_start(&waiter, sleep_once, NULL);
	actor_until_asleep(&waiter);
	lock_pass_on(&locks[0]);
	cr_assert_eq(actor_hear(&waiter), FUTEX_WOKEN);
	cr_assert_eq(actor_join(&waiter), 0);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

/* Who got it after a sleep must wake one at its unlock, since others may sleep on. */
Test(lock, inheritance_makes_the_unlock_wake, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(word_of(&locks[0]) & FUTEX_WAITERS, 0);
	lock_inherit(&locks[0]);
	cr_assert_neq(word_of(&locks[0]) & FUTEX_WAITERS, 0);
	cr_assert_eq(lock_is_mine(&locks[0]), 1);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
	cr_assert_eq(word_of(&locks[0]), 0);
}

static void want_without_waitv(struct actor *self, void *arg)
{
	futex_refuse_waitv();
	want(self, arg);
}

Test(lock, is_waited_for_without_waitv_too, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder, waiter;

	start_holder(&holder);
	actor_start(&waiter, want_without_waitv, NULL);
	actor_until_asleep(&waiter);
	actor_kill(&holder);
	cr_assert_eq(actor_hear(&waiter), LOCK_HELD_AFTER_DEATH);
	cr_assert_eq(actor_join(&waiter), 0);
}

/* ---- what the kernel did not do ---- */

/* Its list is gone, as if a page of it could not be read: the kernel releases nothing. */
static void hold_without_list(struct actor *self, void *arg)
{
	struct {
		void *next;
		long offset;
		void *pending;
	} empty = {.next = &empty};
	enum lock_result r;

	(void)arg;
	r = lock_try(&locks[0]);
	syscall(SYS_set_robust_list, &empty, sizeof(empty));
	actor_say(self, r);
	(void)actor_hear(self);
}

/* M-25 */
Test(lock, of_the_dead_is_released_when_the_kernel_did_not, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor holder;
	uint64_t begin;

	actor_start(&holder, hold_without_list, NULL);
	cr_assert_eq(actor_hear(&holder), LOCK_HELD);
	actor_kill(&holder);
	cr_assert_eq(lock_try(&locks[0]), LOCK_BUSY);

	begin = clock_now_ns();
	cr_assert_eq(lock_take(&locks[0], CLOCK_FOREVER), LOCK_HELD_AFTER_DEATH);
	cr_assert_lt(clock_now_ns() - begin, SOON);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

/* M-24: a zombie is dead */
Test(lock, of_an_unreaped_one_is_released_too, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;
	uint64_t begin;
	int pidfd;

	actor_start(&holder, hold_without_list, NULL);
	cr_assert_eq(actor_hear(&holder), LOCK_HELD);
	pidfd = process_open(holder.pid);
	kill(holder.pid, SIGKILL);
	process_until_ended(pidfd, 5000);
	close(pidfd);

	begin = clock_now_ns();
	cr_assert_eq(lock_take(&locks[0], CLOCK_FOREVER), LOCK_HELD_AFTER_DEATH);
	cr_assert_lt(clock_now_ns() - begin, SOON);
	actor_kill(&holder);
}

/* M-24: stopped is not dead */
Test(lock, of_a_stopped_one_stays_its_own, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;
	int status;

	start_holder(&holder);
	kill(holder.pid, SIGSTOP);
	cr_assert_eq(waitpid(holder.pid, &status, WUNTRACED), holder.pid);
	cr_assert_eq(lock_take(&locks[0], clock_after_ns(SOON)), LOCK_BUSY);
	kill(holder.pid, SIGCONT);
	actor_say(&holder, 0);
	cr_assert_eq(actor_hear(&holder), 0, "it was still the holder");
	cr_assert_eq(actor_join(&holder), 0);
}

static void *hold_in_thread(void *arg)
{
	struct actor *self = arg;

	actor_say(self, lock_try(&locks[0]));
	(void)actor_hear(self);
	actor_say(self, lock_unlock(&locks[0]));
	return NULL;
}

static void hold_in_second_thread(struct actor *self, void *arg)
{
	pthread_t thread;

	(void)arg;
	pthread_create(&thread, NULL, hold_in_thread, self);
	pthread_join(thread, NULL);
}

Test(lock, of_a_living_thread_stays_its_own, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor holder;

	actor_start(&holder, hold_in_second_thread, NULL);
	cr_assert_eq(actor_hear(&holder), LOCK_HELD);
	cr_assert_eq(lock_take(&locks[0], clock_after_ns(SOON)), LOCK_BUSY);
	actor_say(&holder, 0);
	cr_assert_eq(actor_hear(&holder), 0);
	cr_assert_eq(actor_join(&holder), 0);
}

/* A process got the id of a dead one that was never released. */
Test(lock, of_a_dead_namesake_is_taken, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t word = (uint32_t)gettid();

	memcpy(&locks[0], &word, sizeof(word));
	cr_assert_eq(lock_is_mine(&locks[0]), 0);
	cr_assert_eq(lock_unlock(&locks[0]), -1);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD_AFTER_DEATH);
	cr_assert_eq(lock_unlock(&locks[0]), 0);
}

/* ---- the layout ---- */

/* M-62 */
Test(lock, stamp_is_the_same_every_time, .timeout = 60)
{
	cr_assert_neq(lock_layout_stamp(), 0);
	cr_assert_eq(lock_layout_stamp(), lock_layout_stamp());
}

Test(lock, word_is_the_kernels_word, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(word_of(&locks[0]), 0);
	cr_assert_eq(lock_try(&locks[0]), LOCK_HELD);
	cr_assert_eq(word_of(&locks[0]), (uint32_t)gettid());
	cr_assert_eq(lock_unlock(&locks[0]), 0);
	cr_assert_eq(word_of(&locks[0]), 0);
}
