/* SPDX-License-Identifier: MIT */
/*
 * What waiting rests on: futexes of shared, read-only and vanished memory, several at once, and
 * what signals do to a sleeper.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/segment.h"
#include "tests/support/actor.h"
#include "tests/support/process.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#define PAGE    4096
#define N_WORDS 130

struct waiter {
	uint64_t value;
	uint64_t address;
	uint32_t flags;
	uint32_t reserved;
};

static _Atomic uint32_t *words, *readonly_words;
static int memory_fd;

static void setup(void)
{
	struct segment_maker maker;
	int readonly_fd;
	void *address;

	cr_assert_eq(segment_maker_init(&maker), 0);
	cr_assert_eq(segment_new_shm(&memory_fd, &maker, PAGE), 0);
	cr_assert_eq(segment_reopen_readonly(&readonly_fd, &maker, memory_fd), 0);
	segment_maker_deinit(&maker);

	/* By hand, since these maps have to be inherited. */
	address = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
	cr_assert_neq(address, MAP_FAILED);
	words = address;
	address = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, readonly_fd, 0);
	cr_assert_neq(address, MAP_FAILED);
	readonly_words = address;
	close(readonly_fd);
}

static void teardown(void)
{
	munmap((void *)words, PAGE);
	munmap((void *)readonly_words, PAGE);
	close(memory_fd);
}

/* The index, or the negated errno. */
static long wait_all(struct waiter *waiters, unsigned n, uint64_t ns)
{
	struct timespec until = clock_to_timespec(clock_after_ns(ns));
	long r = syscall(SYS_futex_waitv, waiters, n, 0, &until, CLOCK_MONOTONIC);

	return r < 0 ? -errno : r;
}

static struct waiter waiter_of(const _Atomic uint32_t *word, uint32_t more_flags)
{
	return (struct waiter){.address = (uintptr_t)word, .flags = 0x02 | more_flags};
}

static long wake(const _Atomic uint32_t *word, int op)
{
	long r = syscall(SYS_futex, word, op, INT_MAX, NULL, NULL, 0);

	return r < 0 ? -errno : r;
}

/* ---- read-only memory ---- */

static void wait_readonly(struct actor *self, void *arg)
{
	struct waiter waiter = waiter_of(&readonly_words[*(unsigned *)arg], 0);

	actor_say(self, wait_all(&waiter, 1, 10 * NS_PER_S));
}

/* M-50: who may only read can sleep all the same, on a page that nobody wrote yet as well */
Test(kernel_futex, read_only_memory_can_be_slept_upon, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor actor;
	unsigned i = 0;

	actor_start(&actor, wait_readonly, &i);
	actor_until_asleep(&actor);
	cr_assert_eq(wake(&words[0], FUTEX_WAKE), 1);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(actor_join(&actor), 0);
}

Test(kernel_futex, readers_can_wake, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor actor;
	unsigned i = 0;

	actor_start(&actor, wait_readonly, &i);
	actor_until_asleep(&actor);
	cr_assert_eq(wake(&readonly_words[0], FUTEX_WAKE), 1);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(actor_join(&actor), 0);
}

static void wait_half_a_second(struct actor *self, void *arg)
{
	struct waiter waiter = waiter_of(&words[0], 0);

	(void)arg;
	actor_say(self, wait_all(&waiter, 1, NS_PER_S / 2));
}

/* Why no sleep is longer than a slice: who may only read can steal a wake. */
Test(kernel_futex, readers_can_steal_wakes, .init = setup, .fini = teardown, .timeout = 60)
{
	_Atomic uint32_t own = 0;
	struct actor actor;

	actor_start(&actor, wait_half_a_second, NULL);
	actor_until_asleep(&actor);
	cr_assert_eq(syscall(SYS_futex, &readonly_words[0], FUTEX_REQUEUE, 0, INT_MAX, &own, 0), 1);
	cr_assert_eq(wake(&words[0], FUTEX_WAKE), 0);
	cr_assert_eq(actor_hear(&actor), -ETIMEDOUT);
	cr_assert_eq(actor_join(&actor), 0);
}

Test(kernel_futex, private_and_shared_do_not_meet, .init = setup, .fini = teardown, .timeout = 60)
{
	struct actor actor;

	actor_start(&actor, wait_half_a_second, NULL);
	actor_until_asleep(&actor);
	cr_assert_eq(wake(&words[0], FUTEX_WAKE | FUTEX_PRIVATE_FLAG), 0);
	cr_assert_eq(actor_hear(&actor), -ETIMEDOUT);
	cr_assert_eq(actor_join(&actor), 0);
}

/* M-60: the broker can look at and wake memory that its owner took away */
Test(kernel_futex, vanished_memory_is_an_error_and_no_signal, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct waiter waiter = waiter_of(&words[0], 0);
	char byte;

	cr_assert_eq(ftruncate(memory_fd, 0), 0);
	cr_assert_eq(wake(&words[0], FUTEX_WAKE), -EFAULT);
	cr_assert_eq(wait_all(&waiter, 1, NS_PER_S), -EFAULT);
	cr_assert_eq(pread(memory_fd, &byte, 1, 0), 0);
}

/* ---- several words ---- */

Test(kernel_futex, up_to_128_words, .init = setup, .fini = teardown, .timeout = 60)
{
	struct waiter waiters[N_WORDS];

	for (unsigned i = 0; i < N_WORDS; ++i)
		waiters[i] = waiter_of(&words[i], 0);
	cr_assert_eq(wait_all(waiters, 128, NS_PER_MS), -ETIMEDOUT);
	cr_assert_eq(wait_all(waiters, 129, NS_PER_MS), -EINVAL);
	cr_assert_eq(wait_all(waiters, 0, NS_PER_MS), -EINVAL);
}

Test(kernel_futex, one_changed_word_of_many_is_seen, .init = setup, .fini = teardown, .timeout = 60)
{
	_Atomic uint32_t own = 0;
	struct waiter waiters[3] = {
		waiter_of(&words[0], 0),
		waiter_of(&own, FUTEX_PRIVATE_FLAG),
		waiter_of(&readonly_words[2], 0),
	};

	cr_assert_eq(wait_all(waiters, 3, NS_PER_MS), -ETIMEDOUT);
	atomic_store(&words[2], 1);
	cr_assert_eq(wait_all(waiters, 3, NS_PER_S), -EAGAIN);
	atomic_store(&words[2], 0);
	atomic_store(&own, 1);
	cr_assert_eq(wait_all(waiters, 3, NS_PER_S), -EAGAIN);
}

Test(kernel_futex, one_bad_word_of_many_is_told, .init = setup, .fini = teardown, .timeout = 60)
{
	void *hole = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct waiter waiters[2] = {waiter_of(&words[0], 0), waiter_of(hole, 0)};

	cr_assert_eq(wait_all(waiters, 2, NS_PER_S), -EFAULT);
	waiters[1].address = (uintptr_t)&words[1] + 1;
	cr_assert_eq(wait_all(waiters, 2, NS_PER_S), -EINVAL);
	munmap(hole, PAGE);
}

static void wait_three(struct actor *self, void *arg)
{
	struct waiter waiters[3];

	(void)arg;
	for (unsigned i = 0; i < 3; ++i)
		waiters[i] = waiter_of(&words[i], 0);
	actor_say(self, wait_all(waiters, 3, 10 * NS_PER_S));
}

Test(kernel_futex, index_of_the_woken_word_is_told, .init = setup, .fini = teardown, .timeout = 60)
{
	for (unsigned i = 0; i < 3; ++i) {
		struct actor actor;

		actor_start(&actor, wait_three, NULL);
		actor_until_asleep(&actor);
		cr_assert_eq(wake(&words[i], FUTEX_WAKE), 1);
		cr_assert_eq(actor_hear(&actor), i);
		cr_assert_eq(actor_join(&actor), 0);
	}
}

/* The death of a lock's holder wakes a sleeper that waits for several words, the lock's among them.
 */
static void hold(struct actor *self, void *arg)
{
	pthread_mutex_t *mutex = arg;

	actor_say(self, pthread_mutex_trylock(mutex));
	atomic_fetch_or(&words[0], FUTEX_WAITERS);
	(void)actor_hear(self);
}

static void wait_for_lock(struct actor *self, void *arg)
{
	struct waiter waiters[2] = {waiter_of(&words[100], 0), waiter_of(&words[0], 0)};

	(void)arg;
	waiters[1].value = atomic_load(&words[0]);
	actor_say(self, wait_all(waiters, 2, 10 * NS_PER_S));
}

/* M-25 */
Test(kernel_futex, death_of_a_holder_wakes_waitv, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)(void *)words;
	pthread_mutexattr_t attributes;
	struct actor holder, waiter;
	struct timespec deadline = process_deadline(30000);

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attributes);

	actor_start(&holder, hold, mutex);
	cr_assert_eq(actor_hear(&holder), 0);
	while (!(atomic_load(&words[0]) & FUTEX_WAITERS) && !process_has_passed(&deadline))
		process_pause();
	actor_start(&waiter, wait_for_lock, NULL);
	actor_until_asleep(&waiter);
	actor_kill(&holder);
	cr_assert_eq(actor_hear(&waiter), 1);
	cr_assert_eq(actor_join(&waiter), 0);
}

/* ---- signals ---- */

static _Atomic uint32_t n_signals;

static void on_signal(int signal)
{
	(void)signal;
	atomic_fetch_add(&n_signals, 1);
}

struct signal_case {
	int flags;
	_Bool one_word;
};

static void wait_signalled(struct actor *self, void *arg)
{
	const struct signal_case *c = arg;
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = c->flags};
	struct timespec until = clock_to_timespec(clock_after_ns(NS_PER_S));
	struct waiter waiter = waiter_of(&words[0], 0);
	long r;

	sigaction(SIGUSR1, &action, NULL);
	if (c->one_word)
		r = syscall(SYS_futex, &words[0], FUTEX_WAIT_BITSET, 0, &until, NULL,
			    FUTEX_BITSET_MATCH_ANY) < 0
			    ? -errno
			    : 0;
	else
		r = wait_all(&waiter, 1, NS_PER_S);
	actor_say(self, r);
	actor_say(self, atomic_load(&n_signals));
}

static int64_t signalled(int flags, _Bool one_word)
{
	struct signal_case c = {flags, one_word};
	struct actor actor;
	int64_t result;

	actor_start(&actor, wait_signalled, &c);
	actor_until_asleep(&actor);
	kill(actor.pid, SIGUSR1);
	result = actor_hear(&actor);
	cr_assert_eq(actor_hear(&actor), 1);
	cr_assert_eq(actor_join(&actor), 0);
	return result;
}

/* M-21 */
Test(kernel_futex, waitv_restarts_when_the_handler_asks_for_it, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(signalled(SA_RESTART, 0), -ETIMEDOUT);
	cr_assert_eq(signalled(0, 0), -EINTR);
}

/* Why the fallback says nothing of signals. */
Test(kernel_futex, single_wait_with_a_timeout_never_restarts, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(signalled(SA_RESTART, 1), -EINTR);
	cr_assert_eq(signalled(0, 1), -EINTR);
}

/* ---- what the lock asks of a pointer that it does not trust ---- */

Test(kernel_futex, compare_and_requeue_of_nobody_only_compares, .init = setup, .fini = teardown,
     .timeout = 60)
{
	void *hole = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t target = 0;

	atomic_store(&words[0], 5);
	cr_assert_eq(syscall(SYS_futex, words, FUTEX_CMP_REQUEUE_PRIVATE, 0, NULL, &target, 5), 0);
	cr_assert_eq(syscall(SYS_futex, words, FUTEX_CMP_REQUEUE_PRIVATE, 0, NULL, &target, 6), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(syscall(SYS_futex, hole, FUTEX_CMP_REQUEUE_PRIVATE, 0, NULL, &target, 0), -1);
	cr_assert_eq(errno, EFAULT);
	cr_assert_eq(syscall(SYS_futex, (char *)words + 2, FUTEX_CMP_REQUEUE_PRIVATE, 0, NULL,
			     &target, 0),
		     -1);
	cr_assert_eq(errno, EINVAL);
	munmap(hole, PAGE);
}
