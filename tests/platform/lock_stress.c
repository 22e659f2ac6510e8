/* SPDX-License-Identifier: MIT */
/*
 * Processes that fight for one lock and are killed at random moments: exclusion is shown by a pair
 * of counters that nothing but the lock keeps equal, progress by the time that each waited.
 */
#include "libipc/platform/lock.h"

#include <criterion/criterion.h>
#include <signal.h>

#include "tests/platform/lock_take.h"
#include "tests/support/process.h"

#define N_WORKERS   4
#define N_KILLS     300
#define WAIT_MAX_NS (30 * NS_PER_S) /* the machine may be busy */

struct scene {
	struct lock lock;
	volatile uint64_t first, second;
	volatile uint64_t n_inside;
	_Alignas(64) _Atomic uint32_t trouble;
	_Alignas(64) _Atomic uint64_t n_taken;
	_Atomic uint64_t n_deaths;
	_Atomic uint64_t longest_ns;
};

enum trouble { TROUBLE_NONE, TROUBLE_TORN, TROUBLE_TWO_INSIDE, TROUBLE_NO_LOCK, TROUBLE_UNLOCK };

static struct scene *scene;

static void report(enum trouble trouble)
{
	uint32_t none = TROUBLE_NONE;

	atomic_compare_exchange_strong(&scene->trouble, &none, trouble);
	futex_wake_all(&scene->trouble);
}

static void work_once(void)
{
	uint64_t begin = clock_now_ns(), ns;
	enum lock_result r = lock_take(&scene->lock, begin + WAIT_MAX_NS);

	if (r != LOCK_HELD && r != LOCK_HELD_AFTER_DEATH) {
		report(TROUBLE_NO_LOCK);
		return;
	}

	if (r == LOCK_HELD_AFTER_DEATH) {
		atomic_fetch_add(&scene->n_deaths, 1);
		scene->n_inside = 0;
		scene->second = scene->first;
	}
	if (scene->first != scene->second)
		report(TROUBLE_TORN);
	if (scene->n_inside++ != 0)
		report(TROUBLE_TWO_INSIDE);

	/* Long enough for others to come and sleep. */
	for (unsigned i = 0; i < 50; ++i)
		scene->first++;
	for (unsigned i = 0; i < 50; ++i)
		scene->second++;
	scene->n_inside--;

	if (lock_unlock(&scene->lock) != 0)
		report(TROUBLE_UNLOCK);

	ns = clock_now_ns() - begin;
	if (ns > atomic_load(&scene->longest_ns))
		atomic_store(&scene->longest_ns, ns);
	atomic_fetch_add(&scene->n_taken, 1);
}

static pid_t start_worker(void)
{
	pid_t pid = process_fork();

	if (pid == 0)
		while (atomic_load(&scene->trouble) == TROUBLE_NONE)
			work_once();
	if (pid == 0)
		process_end(1);
	return pid;
}

/* M-25, M-26 */
Test(lock_stress, random_kills_neither_tear_nor_hang, .timeout = 60)
{
	struct futex_word trouble;
	pid_t pid[N_WORKERS];
	uint64_t dice = 1, n_before = 0;

	scene = shared_memory(sizeof(*scene));
	cr_assert(scene);
	lock_init(&scene->lock);
	trouble = (struct futex_word){.word = &scene->trouble};

	for (unsigned i = 0; i < N_WORKERS; ++i)
		pid[i] = start_worker();

	for (unsigned i = 0; i < N_KILLS && atomic_load(&scene->trouble) == TROUBLE_NONE; ++i) {
		unsigned victim;

		dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407u;
		victim = (unsigned)(dice >> 60) % N_WORKERS;

		/* Some random time of work, or trouble. */
		(void)futex_sleep(&trouble, 1, clock_after_ns((dice >> 32) % (4 * NS_PER_MS)));
		kill(pid[victim], SIGKILL);
		(void)process_reap(pid[victim], 30000);
		pid[victim] = start_worker();
	}

	/* All go on. */
	n_before = atomic_load(&scene->n_taken);
	for (unsigned i = 0; i < 100 && atomic_load(&scene->n_taken) < n_before + 1000; ++i)
		(void)futex_sleep(&trouble, 1, CLOCK_FOREVER);

	for (unsigned i = 0; i < N_WORKERS; ++i) {
		kill(pid[i], SIGKILL);
		(void)process_reap(pid[i], 30000);
	}

	cr_assert_eq(atomic_load(&scene->trouble), TROUBLE_NONE, "trouble %u",
		     atomic_load(&scene->trouble));
	cr_assert_geq(atomic_load(&scene->n_taken), n_before + 1000);
	cr_assert_gt(atomic_load(&scene->n_deaths), N_KILLS / 50, "%u deaths",
		     (unsigned)atomic_load(&scene->n_deaths));
	cr_log_info("%llu times taken, %llu deaths inside, longest wait %llu us",
		    (unsigned long long)scene->n_taken, (unsigned long long)scene->n_deaths,
		    (unsigned long long)scene->longest_ns / 1000);
	munmap(scene, sizeof(*scene));
}
