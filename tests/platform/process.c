/* SPDX-License-Identifier: MIT */
#include "libipc/platform/process.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/platform/refuse.h"
#include "tests/support/process.h"

Test(process, is_no_forked_child_of_itself, .timeout = 60)
{
	cr_assert_not(process_is_forked_child());
	cr_assert_eq(process_mark_init(), 0);
	cr_assert_not(process_is_forked_child());
	cr_assert_eq(process_mark_init(), 0);
	cr_assert_not(process_is_forked_child());
}

/* M-42 */
Test(process, forked_copies_know_it, .timeout = 60)
{
	pid_t pid;

	cr_assert_eq(process_mark_init(), 0);

	pid = process_fork();
	if (pid == 0) {
		pid_t grandchild;

		if (!process_is_forked_child())
			process_end(1);
		/* A mark of its own would make the parent's handles look valid. */
		if (process_mark_init() != 0 || !process_is_forked_child())
			process_end(2);
		grandchild = process_fork();
		if (grandchild == 0)
			process_end(process_is_forked_child() ? 0 : 3);
		process_end(process_reap(grandchild, 30000));
	}

	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_not(process_is_forked_child());
}

/* M-42: no library function and no atfork handler runs there */
Test(process, raw_forks_know_it_too, .timeout = 60)
{
	pid_t pid;
	int status;

	cr_assert_eq(process_mark_init(), 0);

	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(process_is_forked_child() ? 0 : 1);

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

static int vforked(void *arg)
{
	*(int *)arg = process_is_forked_child() ? 2 : 1;
	return 0;
}

/* M-42 */
Test(process, vfork_children_need_nothing, .timeout = 60)
{
	static _Alignas(64) unsigned char stack[65536];
	int said = 0;
	pid_t pid;

	cr_assert_eq(process_mark_init(), 0);

	pid = clone(vforked, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &said);
	cr_assert_gt(pid, 0);
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_eq(said, 1);
}

static void *init_mark(void *arg)
{
	return process_mark_init() == 0 && !process_is_forked_child() ? arg : NULL;
}

Test(process, mark_is_made_once_by_many_threads, .timeout = 60)
{
	pthread_t thread[8];
	void *said;

	for (int i = 0; i < 8; ++i)
		cr_assert_eq(pthread_create(&thread[i], NULL, init_mark, thread), 0);
	for (int i = 0; i < 8; ++i) {
		cr_assert_eq(pthread_join(thread[i], &said), 0);
		cr_assert_eq(said, thread);
	}
	cr_assert_not(process_is_forked_child());
}

Test(process, cpu_is_where_it_runs, .timeout = 60)
{
	cpu_set_t before, one;

	cr_assert_eq(sched_getaffinity(0, sizeof(before), &before), 0);

	for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
		if (!CPU_ISSET(cpu, &before))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
		cr_assert_eq(process_cpu(), (uint32_t)cpu);
	}

	cr_assert_eq(sched_setaffinity(0, sizeof(before), &before), 0);
	cr_assert_eq(process_n_cpus(), (unsigned)CPU_COUNT(&before));
}

/* ---- the two fences ---- */

#define N_ROUNDS 20000

/* Each side stores its own word, fences, loads the other's: with fences that work never both find
 * 0. */
struct litmus {
	_Alignas(64) _Atomic uint32_t mine;
	_Alignas(64) _Atomic uint32_t theirs;
	_Alignas(64) _Atomic uint32_t round;
	_Alignas(64) _Atomic uint32_t done;
	uint32_t found;
};

/* Close behind the other side, so that the two meet; but others may need the CPU. */
static void wait_for(const _Atomic uint32_t *word, uint32_t value)
{
	for (unsigned i = 1; atomic_load(word) != value; ++i)
		if (i % 2000 == 0)
			sched_yield();
}

static void *light_side(void *arg)
{
	struct litmus *l = arg;

	for (uint32_t i = 1; i <= N_ROUNDS; ++i) {
		wait_for(&l->round, i);
		atomic_store_explicit(&l->mine, i, memory_order_relaxed);
		process_fence_light();
		l->found = atomic_load_explicit(&l->theirs, memory_order_relaxed);
		atomic_store(&l->done, i);
	}
	return NULL;
}

/* Rounds in which neither saw the other. */
static uint32_t litmus_run(void)
{
	static struct litmus l;
	uint32_t n_missed = 0;
	pthread_t thread;

	if (pthread_create(&thread, NULL, light_side, &l) != 0)
		return UINT32_MAX;

	for (uint32_t i = 1; i <= N_ROUNDS; ++i) {
		uint32_t found;

		atomic_store(&l.round, i);
		/* Until the other side has seen it, more or less. */
		for (volatile uint32_t k = i * 2654435761u >> 25; k > 0; --k)
			;
		atomic_store_explicit(&l.theirs, i, memory_order_relaxed);
		process_fence_heavy();
		found = atomic_load_explicit(&l.mine, memory_order_relaxed);
		wait_for(&l.done, i);
		if (found != i && l.found != i)
			++n_missed;
	}

	pthread_join(thread, NULL);
	return n_missed;
}

Test(process, fences_order_store_and_load_between_threads, .timeout = 60)
{
	cr_assert_eq(process_mark_init(), 0);
	cr_assert_eq(litmus_run(), 0);
}

Test(process, fences_hold_where_barriers_are_refused, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		refuse_call(SYS_membarrier, ENOSYS);
		process_end(process_mark_init() == 0 && litmus_run() == 0 ? 0 : 1);
	}
	cr_assert_eq(process_reap(pid, 20000), 0);
}

Test(process, fences_hold_where_barriers_are_refused_later, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		if (process_mark_init() != 0)
			process_end(1);
		refuse_call(SYS_membarrier, EPERM);
		process_fence_heavy();
		process_end(litmus_run() == 0 ? 0 : 2);
	}
	cr_assert_eq(process_reap(pid, 20000), 0);
}
