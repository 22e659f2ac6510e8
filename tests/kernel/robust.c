/* SPDX-License-Identifier: MIT */
/*
 * What the lock rests on: glibc's robust mutexes and the kernel's walk at a death, with their
 * limits.  A kernel or libc where one of these fails is one where libipc/platform/lock.c has to be
 * thought about again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/actor.h"
#include "tests/support/process.h"

#define N_MUTEXES 4000
#define PAGE      4096

static pthread_mutex_t *mutexes;

static void make_mutex(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	cr_assert_eq(pthread_mutex_init(mutex, &attributes), 0);
}

static void setup(void)
{
	mutexes = mmap(NULL, N_MUTEXES * sizeof(*mutexes), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(mutexes, MAP_FAILED);
	for (unsigned i = 0; i < N_MUTEXES; ++i)
		make_mutex(&mutexes[i]);
}

static void teardown(void)
{
	munmap(mutexes, N_MUTEXES * sizeof(*mutexes));
}

static uint32_t word_of(const pthread_mutex_t *mutex)
{
	uint32_t word;

	memcpy(&word, mutex, sizeof(word));
	return word;
}

static void hold(struct actor *self, void *arg)
{
	unsigned n = *(unsigned *)arg;
	int error = 0;

	for (unsigned i = 0; i < n; ++i)
		error |= pthread_mutex_trylock(&mutexes[i]);
	actor_say(self, error);
	(void)actor_hear(self);
}

static void start_holder(struct actor *holder, unsigned n)
{
	actor_start(holder, hold, &n);
	cr_assert_eq(actor_hear(holder), 0);
}

/* ---- the word ---- */

Test(kernel_robust, word_holds_the_thread_id, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), 0);
	cr_assert_eq(word_of(&mutexes[0]), (uint32_t)gettid());
	cr_assert_eq(mutexes[0].__data.__owner, gettid());
	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), EDEADLK);
	cr_assert_eq(pthread_mutex_unlock(&mutexes[0]), 0);
	cr_assert_eq(word_of(&mutexes[0]), 0);
	cr_assert_eq(pthread_mutex_unlock(&mutexes[0]), EPERM);
}

Test(kernel_robust, death_marks_the_word_and_keeps_the_waiters, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor holder;

	start_holder(&holder, 2);
	__atomic_fetch_or((uint32_t *)(void *)&mutexes[1], FUTEX_WAITERS, __ATOMIC_RELAXED);
	actor_kill(&holder);
	cr_assert_eq(word_of(&mutexes[0]), FUTEX_OWNER_DIED);
	cr_assert_eq(word_of(&mutexes[1]), FUTEX_OWNER_DIED | FUTEX_WAITERS);

	cr_assert_eq(pthread_mutex_trylock(&mutexes[1]), EOWNERDEAD);
	cr_assert_eq(word_of(&mutexes[1]), FUTEX_WAITERS | (uint32_t)gettid());
	cr_assert_eq(pthread_mutex_consistent(&mutexes[1]), 0);
	cr_assert_eq(pthread_mutex_unlock(&mutexes[1]), 0);
	cr_assert_eq(pthread_mutex_trylock(&mutexes[1]), 0);
}

Test(kernel_robust, death_before_consistent_is_told_again, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor holder;
	pid_t pid;

	start_holder(&holder, 1);
	actor_kill(&holder);
	pid = process_fork();
	if (pid == 0)
		process_end(pthread_mutex_trylock(&mutexes[0]) == EOWNERDEAD ? 0 : 1);
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), EOWNERDEAD);
}

/* Why FUTEX_WAITERS is never set on a free word: nobody gets in any more. */
Test(kernel_robust, waiters_without_owner_lock_everybody_out, .init = setup, .fini = teardown,
     .timeout = 60)
{
	__atomic_store_n((uint32_t *)(void *)&mutexes[0], FUTEX_WAITERS, __ATOMIC_RELAXED);
	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), EBUSY);
}

/* Why such an owner is looked for before: trylock says no and keeps it. */
Test(kernel_robust, given_up_mutex_is_taken_and_not_given_back, .init = setup, .fini = teardown,
     .timeout = 60)
{
	mutexes[0].__data.__owner = INT_MAX - 1;
	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), ENOTRECOVERABLE);
	cr_assert_eq(word_of(&mutexes[0]), (uint32_t)gettid());
}

/* ---- the list ---- */

struct head {
	void *next;
	long offset;
	void *pending;
};

Test(kernel_robust, list_is_private_and_links_both_ways, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct head *head = NULL;
	size_t size = 0;
	void *first = &mutexes[0].__data.__list.__next, *second = &mutexes[1].__data.__list.__next;

	cr_assert_eq(syscall(SYS_get_robust_list, 0, &head, &size), 0);
	cr_assert_eq(size, sizeof(struct head));
	cr_assert_eq(head->next, (void *)head);
	cr_assert_eq(head->offset, (long)offsetof(pthread_mutex_t, __data.__lock) -
					   (long)offsetof(pthread_mutex_t, __data.__list.__next));

	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), 0);
	cr_assert_eq(pthread_mutex_trylock(&mutexes[1]), 0);
	cr_assert_eq(head->next, second);
	cr_assert_eq((void *)mutexes[1].__data.__list.__next, first);
	cr_assert_eq((void *)mutexes[0].__data.__list.__next, (void *)head);
	cr_assert_eq((void *)mutexes[0].__data.__list.__prev, second);
	cr_assert_eq((void *)mutexes[1].__data.__list.__prev, (void *)head);
	/* The head has a back pointer in front of it, like every node. */
	cr_assert_eq(((void **)head)[-1], first);

	cr_assert_eq(pthread_mutex_unlock(&mutexes[1]), 0);
	cr_assert_eq(pthread_mutex_unlock(&mutexes[0]), 0);
	cr_assert_eq(head->next, (void *)head);
}

Test(kernel_robust, list_of_a_forked_child_is_empty, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t pid;

	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), 0);
	pid = process_fork();
	if (pid == 0) {
		struct head *head = NULL;
		size_t size;

		if (syscall(SYS_get_robust_list, 0, &head, &size) != 0 ||
		    head->next != (void *)head)
			process_end(1);
		process_end(pthread_mutex_unlock(&mutexes[0]) == EPERM &&
					    pthread_mutex_trylock(&mutexes[0]) == EBUSY
				    ? 0
				    : 2);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_eq(word_of(&mutexes[0]), (uint32_t)gettid(), "its end disturbs nobody");
}

/* One unreadable entry stops the walk: what was locked before it stays locked by nobody. */
Test(kernel_robust, broken_list_is_not_walked_on, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		pthread_mutex_t *other =
			mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		*other = mutexes[1];
		if (pthread_mutex_trylock(&mutexes[0]) || pthread_mutex_trylock(other) ||
		    pthread_mutex_trylock(&mutexes[2]))
			process_end(1);
		munmap(other, PAGE);
		kill(getpid(), SIGKILL);
	}
	cr_assert_eq(process_reap(pid, 30000), 128 + SIGKILL);
	cr_assert_eq(word_of(&mutexes[2]), FUTEX_OWNER_DIED);
	cr_assert_eq(word_of(&mutexes[0]), (uint32_t)pid);
	cr_assert_eq(pthread_mutex_trylock(&mutexes[0]), EBUSY);
}

/* The list is walked to 2,048 entries, the last locked first. */
Test(kernel_robust, long_list_is_not_walked_to_its_end, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct actor holder;
	unsigned n_left = 0;

	start_holder(&holder, N_MUTEXES);
	actor_kill(&holder);
	for (unsigned i = 0; i < N_MUTEXES; ++i)
		n_left += word_of(&mutexes[i]) != FUTEX_OWNER_DIED;
	cr_assert_eq(word_of(&mutexes[N_MUTEXES - 1]), FUTEX_OWNER_DIED);
	cr_assert_lt(n_left, N_MUTEXES - 2000);
}

/* ---- threads, exec ---- */

static void *lock_and_end(void *arg)
{
	return pthread_mutex_trylock(arg) == 0 ? arg : NULL;
}

Test(kernel_robust, end_of_a_thread_releases, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_t thread;
	void *said;

	cr_assert_eq(pthread_create(&thread, NULL, lock_and_end, &mutexes[0]), 0);
	cr_assert_eq(pthread_join(thread, &said), 0);
	cr_assert_eq(said, &mutexes[0]);
	cr_assert_eq(word_of(&mutexes[0]), FUTEX_OWNER_DIED);
}

static void hold_and_exec(struct actor *self, void *arg)
{
	char *const arguments[] = {(char *)(uintptr_t) "cat", NULL};

	(void)arg;
	if (pthread_mutex_trylock(&mutexes[0]) == 0 && dup2(self->fd, 0) == 0)
		execvp("cat", arguments);
	process_end(1);
}

Test(kernel_robust, exec_releases, .init = setup, .fini = teardown, .timeout = 60)
{
	struct timespec deadline = process_deadline(30000);
	struct actor holder;

	actor_start(&holder, hold_and_exec, NULL);
	while (word_of(&mutexes[0]) != FUTEX_OWNER_DIED && !process_has_passed(&deadline))
		process_pause();
	cr_assert_eq(word_of(&mutexes[0]), FUTEX_OWNER_DIED);
	cr_assert_eq(kill(holder.pid, 0), 0);
	actor_kill(&holder);
}
