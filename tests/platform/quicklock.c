/* SPDX-License-Identifier: MIT */
/*
 * The quick lock: what the kernel does with it when its holder dies, and what threads do when the
 * kernel did nothing.
 */
#include "libipc/platform/quicklock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/actor.h"
#include "tests/support/process.h"
#include "tests/support/step.h"
#include "tests/support/wakes.h"

struct scene {
	struct quicklock lock;
	_Alignas(64) uint64_t first, second;  /* change under the lock, and are equal otherwise */
	_Alignas(64) _Atomic uint32_t n_seen; /* how often the sleeper saw the lock free */
	_Atomic uint32_t n_wanted;            /* how often it is to look */
};

static struct scene *scene;

static void setup(void)
{
	WAKES_TELL();
	scene = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(scene, MAP_FAILED);
}

static void teardown(void)
{
	munmap(scene, 4096);
}

#define SCENE .init = setup, .fini = teardown, .timeout = 60

static uint32_t word(void)
{
	return atomic_load(&scene->lock.word);
}

Test(quicklock, is_held_by_one_thread_and_free_after_the_unlock, SCENE)
{
	cr_assert(quicklock_is_free(&scene->lock));

	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	cr_assert_eq(word(), (uint32_t)gettid());
	cr_assert(!quicklock_is_free(&scene->lock));
	cr_assert(!quicklock_release_dead(&scene->lock), "a living holder was robbed");

	quicklock_unlock(&scene->lock);
	cr_assert_eq(word(), 0);
	cr_assert_null(quicklock_head->list_op_pending);
}

Test(quicklock, that_nobody_sleeps_on_is_free_after_its_own_unlock, SCENE)
{
	for (unsigned i = 0; i < 3; ++i) {
		/* Also after a death that the kernel has marked there. */
		atomic_store(&scene->lock.word, i == 1 ? FUTEX_OWNER_DIED : 0);
		cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
		quicklock_unlock_alone(&scene->lock);
		cr_assert_eq(word(), 0);
		cr_assert_null(quicklock_head->list_op_pending);
	}
}

static void hold(struct actor *self, void *arg)
{
	(void)arg;
	actor_say(self, quicklock_try(&scene->lock));
	(void)actor_hear(self);
	quicklock_unlock(&scene->lock);
	actor_say(self, 0);
}

Test(quicklock, held_by_another_process_is_busy, SCENE)
{
	struct actor holder;

	actor_start(&holder, hold, NULL);
	cr_assert_eq(actor_hear(&holder), QUICKLOCK_HELD);

	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_BUSY);
	cr_assert_null(quicklock_head->list_op_pending);
	cr_assert(!quicklock_release_dead(&scene->lock));

	actor_say(&holder, 1);
	cr_assert_eq(actor_hear(&holder), 0);
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	quicklock_unlock(&scene->lock);
	cr_assert_eq(actor_join(&holder), 0);
}

Test(quicklock, killed_holder_leaves_it_free, SCENE)
{
	struct actor holder;

	actor_start(&holder, hold, NULL);
	cr_assert_eq(actor_hear(&holder), QUICKLOCK_HELD);

	actor_kill(&holder);

	cr_assert_eq(word(), FUTEX_OWNER_DIED);
	cr_assert(quicklock_is_free(&scene->lock));
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	quicklock_unlock(&scene->lock);
	cr_assert_eq(word(), 0);
}

static void hold_and_execute(struct actor *self, void *arg)
{
	(void)arg;
	actor_say(self, quicklock_try(&scene->lock));
	execl("/bin/sleep", "sleep", "20", (char *)NULL);
}

/* M-24: exec is a death, though the process lives on */
Test(quicklock, exec_of_the_holder_leaves_it_free, SCENE)
{
	uint64_t limit = clock_after_ns(30 * NS_PER_S);
	struct actor holder;

	actor_start(&holder, hold_and_execute, NULL);
	cr_assert_eq(actor_hear(&holder), QUICKLOCK_HELD);

	while (!quicklock_is_free(&scene->lock) && clock_now_ns() < limit)
		process_pause();
	cr_assert(quicklock_is_free(&scene->lock));
	actor_kill(&holder);
}

static void *hold_and_end(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)quicklock_try(&scene->lock);
}

/* M-42 */
Test(quicklock, end_of_the_holding_thread_leaves_it_free, SCENE)
{
	pthread_t thread;
	void *result;

	cr_assert_eq(pthread_create(&thread, NULL, hold_and_end, NULL), 0);
	pthread_join(thread, &result);

	cr_assert_eq((intptr_t)result, QUICKLOCK_HELD);
	cr_assert(quicklock_is_free(&scene->lock));
}

/* A forked child inherits what its parent knew of itself, and is somebody else. */
Test(quicklock, forked_child_takes_it_by_its_own_name, SCENE)
{
	pid_t pid;

	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	pid = process_fork();
	if (pid == 0) {
		if (quicklock_try(&scene->lock) != QUICKLOCK_BUSY)
			_exit(1);
		_exit(quicklock_tid == (uint32_t)getpid() ? 0 : 2);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_eq(word(), (uint32_t)gettid(), "the child's end released the parent's lock");
	quicklock_unlock(&scene->lock);
}

/* The C library's robust locks before, after and around it keep working. */
Test(quicklock, robust_mutexes_of_the_thread_are_not_disturbed, SCENE)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)(void *)((char *)scene + 1024);
	pthread_mutexattr_t attributes;
	pid_t pid;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attributes);

	pid = process_fork();
	if (pid == 0) {
		pthread_mutex_lock(mutex);
		if (quicklock_try(&scene->lock) != QUICKLOCK_HELD)
			_exit(1);
		raise(SIGKILL);
	}

	cr_assert_eq(process_reap(pid, 30000), 128 + SIGKILL);
	cr_assert_eq(pthread_mutex_trylock(mutex), EOWNERDEAD);
	pthread_mutex_consistent(mutex);
	pthread_mutex_unlock(mutex);
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	quicklock_unlock(&scene->lock);
}

/* Memory of an application's mutex is unmapped while it is held: the kernel stops there. */
Test(quicklock, holder_that_the_kernel_did_not_get_to_is_found_out, SCENE)
{
	pid_t pid;

	pid = process_fork();
	if (pid == 0) {
		void *page =
			mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		pthread_mutex_t *mutex = page;
		pthread_mutexattr_t attributes;

		pthread_mutexattr_init(&attributes);
		pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
		pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
		pthread_mutex_init(mutex, &attributes);
		pthread_mutex_lock(mutex);
		munmap(page, 4096);
		if (quicklock_try(&scene->lock) != QUICKLOCK_HELD)
			_exit(1);
		raise(SIGKILL);
	}

	cr_assert_eq(process_reap(pid, 30000), 128 + SIGKILL);
	cr_assert_eq(word(), (uint32_t)pid, "the kernel did get to it: this test tests nothing");
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_BUSY);
	cr_assert(quicklock_release_dead(&scene->lock));
	cr_assert(quicklock_is_free(&scene->lock));
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	quicklock_unlock(&scene->lock);
}

/* M-60 */
Test(quicklock, any_word_is_survived, SCENE)
{
	/* This thread's own id was a dead one's. */
	atomic_store(&scene->lock.word, (uint32_t)gettid());
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	quicklock_unlock(&scene->lock);
	cr_assert_eq(word(), 0);

	/* Nobody holds it and everybody sleeps. */
	atomic_store(&scene->lock.word, FUTEX_WAITERS | FUTEX_OWNER_DIED);
	cr_assert(quicklock_is_free(&scene->lock));
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	quicklock_unlock(&scene->lock);
	cr_assert_eq(word(), 0);

	/* Overwritten while it was held: not ours any more. */
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	atomic_store(&scene->lock.word, UINT32_MAX);
	quicklock_unlock(&scene->lock);
	cr_assert_eq(word(), UINT32_MAX);
	cr_assert_null(quicklock_head->list_op_pending);

	/* Nobody has such an id. */
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_BUSY);
	cr_assert(quicklock_release_dead(&scene->lock));
	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	quicklock_unlock(&scene->lock);
}

/* ---- killed at every instruction ---- */

/* Sleeps on the word until the lock is free, as often as it is told. */
static void watch_for_free(struct actor *self, void *arg)
{
	(void)self;
	(void)arg;
	for (uint32_t n = 1;; ++n) {
		for (uint32_t now = atomic_load(&scene->n_wanted); now < n;
		     now = atomic_load(&scene->n_wanted)) {
			struct futex_word wanted = {.word = &scene->n_wanted, .expected = now};

			futex_sleep(&wanted, 1, CLOCK_FOREVER);
		}

		for (;;) {
			struct futex_word sleep = {.word = &scene->lock.word};

			sleep.expected =
				atomic_fetch_or(&scene->lock.word, FUTEX_WAITERS) | FUTEX_WAITERS;
			if (quicklock_is_free(&scene->lock))
				break;
			futex_sleep(&sleep, 1, CLOCK_FOREVER);
		}
		atomic_store(&scene->n_seen, n);
		futex_wake_all(&scene->n_seen);
	}
}

static void ask(void)
{
	atomic_fetch_add(&scene->n_wanted, 1);
	futex_wake_all(&scene->n_wanted);
}

static void until_seen(long n)
{
	uint64_t limit = clock_after_ns(30 * NS_PER_S);

	for (uint32_t seen = atomic_load(&scene->n_seen); seen < atomic_load(&scene->n_wanted);
	     seen = atomic_load(&scene->n_seen)) {
		struct futex_word sleep = {.word = &scene->n_seen, .expected = seen};

		cr_assert_lt(clock_now_ns(), limit, "%ld: the sleeper sleeps on", n);
		futex_sleep(&sleep, 1, limit);
	}
}

/* By the unlock, not by a slice that is over. */
Test(quicklock, unlock_wakes_the_sleeper, SCENE)
{
	struct actor sleeper;

	WAKES_TELL();
	actor_start(&sleeper, watch_for_free, NULL);
	for (long i = 0; i < 20; ++i) {
		uint64_t began;

		cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
		ask();
		while (!(word() & FUTEX_WAITERS))
			sched_yield();
		actor_until_asleep(&sleeper);

		began = clock_now_ns();
		quicklock_unlock(&scene->lock);
		until_seen(i);
		ASSERT_WOKEN(began);
	}

	actor_kill(&sleeper);
}

struct steps {
	long n_points, n_between;
};

static void take_and_give_back(void *arg)
{
	(void)arg;
	if (quicklock_try(&scene->lock) != QUICKLOCK_HELD)
		_exit(1);
	scene->first++;
	scene->second++;
	quicklock_unlock(&scene->lock);
}

/* The sleeper is asked while the child holds the lock, and may be asleep when it dies. */
static void take_while_watched(void *arg)
{
	(void)arg;
	if (quicklock_try(&scene->lock) != QUICKLOCK_HELD)
		_exit(1);
	ask();
	scene->first++;
	scene->second++;
	quicklock_unlock(&scene->lock);
}

static void check_goes_on(void *arg, long n)
{
	struct steps *steps = arg;
	uint64_t began = clock_now_ns();

	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD,
		     "killed before instruction %ld: word %x", n, word());
	steps->n_between += scene->first != scene->second;
	scene->second = scene->first;
	quicklock_unlock(&scene->lock);

	/* The child may have died between asking and waking: that is this test's own affair. */
	futex_wake_all(&scene->n_wanted);
	until_seen(n);
	steps->n_points++;
	ASSERT_WOKEN(began);
}

Test(quicklock, killed_at_every_instruction_is_free_at_once, SCENE)
{
	const struct step_case step = {.operation = take_and_give_back, .check = check_goes_on};
	struct steps steps = {0};

	cr_assert_gt(step_run(&step, &steps), 20);
	cr_log_info("%ld kill points, %ld inside", steps.n_points, steps.n_between);
	cr_assert_gt(steps.n_between, 0);
}

Test(quicklock, killed_at_every_instruction_wakes_the_sleeper, SCENE)
{
	const struct step_case step = {.operation = take_while_watched, .check = check_goes_on};
	struct steps steps = {0};
	struct actor sleeper;

	actor_start(&sleeper, watch_for_free, NULL);
	cr_assert_gt(step_run(&step, &steps), 20);
	cr_log_info("%ld kill points, %ld inside", steps.n_points, steps.n_between);
	actor_kill(&sleeper);
}

/* ---- exclusion, with deaths at random ---- */

static void add_for_ever(struct actor *self, void *arg)
{
	(void)arg;
	actor_say(self, 0);
	for (;;) {
		if (quicklock_try(&scene->lock) != QUICKLOCK_HELD) {
			sched_yield();
			continue;
		}
		/* A death between the two leaves them different by one: the next holder mends it.
		 */
		if (scene->first != scene->second && scene->first != scene->second + 1)
			_exit(1);
		scene->second = scene->first;
		*(volatile uint64_t *)&scene->first += 1;
		*(volatile uint64_t *)&scene->second += 1;
		quicklock_unlock(&scene->lock);
	}
}

Test(quicklock, excludes_under_deaths_at_random, SCENE)
{
	struct actor actors[3];
	unsigned seed = 1;

	for (unsigned i = 0; i < 3; ++i) {
		actor_start(&actors[i], add_for_ever, NULL);
		(void)actor_hear(&actors[i]);
	}
	for (unsigned k = 0; k < 300; ++k) {
		struct actor *victim = &actors[(unsigned)rand_r(&seed) % 3];

		for (unsigned i = (unsigned)rand_r(&seed) % 8; i > 0; --i)
			sched_yield();
		kill(victim->pid, SIGKILL);
		cr_assert_eq(actor_join(victim), 128 + SIGKILL, "two held it at once");
		actor_start(victim, add_for_ever, NULL);
		(void)actor_hear(victim);
	}
	for (unsigned i = 0; i < 3; ++i)
		actor_kill(&actors[i]);

	cr_assert_eq(quicklock_try(&scene->lock), QUICKLOCK_HELD);
	cr_assert_leq(scene->first - scene->second, 1);
	cr_log_info("%lu times", scene->first);
	quicklock_unlock(&scene->lock);
}
