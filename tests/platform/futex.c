/* SPDX-License-Identifier: MIT */
#include "libipc/platform/futex.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "libipc/platform/clock.h"
#include "tests/platform/refuse.h"
#include "tests/support/actor.h"
#include "tests/support/process.h"

#define N_WORDS 128

/* One cache line each, shared with the children. */
struct words {
	_Alignas(64) _Atomic uint32_t word[N_WORDS];
};

static struct words *words;
static _Atomic uint32_t private_word;

static void setup(void)
{
	words = mmap(NULL, sizeof(*words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(words, MAP_FAILED);
}

static void teardown(void)
{
	munmap(words, sizeof(*words));
}

static enum futex_result sleep_on(unsigned n, uint64_t deadline_ns)
{
	struct futex_word all[N_WORDS];

	for (unsigned i = 0; i < n; ++i)
		all[i] = (struct futex_word){.word = &words->word[i]};

	return futex_sleep(all, n, deadline_ns);
}

/* Sleeps until woken.  The words keep their values, so nothing but a wake ends it. */
static void actor_sleep(struct actor *self, void *arg)
{
	unsigned n = *(const unsigned *)arg;
	enum futex_result r;

	do
		r = sleep_on(n, CLOCK_FOREVER);
	while (r == FUTEX_SLICE_OVER);

	actor_say(self, r);
}

static void actor_sleep_without_waitv(struct actor *self, void *arg)
{
	futex_refuse_waitv();
	actor_sleep(self, arg);
}

static _Bool has_spoken(const struct actor *actor, int ms)
{
	struct pollfd poll_fd = {.fd = actor->fd, .events = POLLIN};

	return poll(&poll_fd, 1, ms) > 0;
}

/* A wake between two slices of the sleeper finds nobody; it is given again. */
static void assert_word_wakes(unsigned n, unsigned i, void (*fn)(struct actor *self, void *arg))
{
	struct actor actor;

	actor_start(&actor, fn, &n);
	for (unsigned try = 0;; ++try) {
		actor_until_asleep(&actor);
		futex_wake_all(&words->word[i]);
		if (has_spoken(&actor, 1000))
			break;
		cr_assert_lt(try, 10, "word %u of %u does not wake", i, n);
	}

	cr_assert_eq(actor_hear(&actor), FUTEX_WOKEN);
	cr_assert_eq(actor_join(&actor), 0);
}

Test(futex, every_word_wakes, .init = setup, .fini = teardown, .timeout = 60)
{
	assert_word_wakes(1, 0, actor_sleep);
	assert_word_wakes(3, 0, actor_sleep);
	assert_word_wakes(3, 2, actor_sleep);
	assert_word_wakes(N_WORDS, N_WORDS - 1, actor_sleep);
}

Test(futex, changed_word_is_seen_before_the_sleep, .init = setup, .fini = teardown, .timeout = 60)
{
	for (unsigned i = 0; i < 3; ++i) {
		atomic_store(&words->word[i], 1);
		cr_assert_eq(sleep_on(3, CLOCK_FOREVER), FUTEX_WOKEN);
		atomic_store(&words->word[i], 0);
	}
}

Test(futex, sleep_ends_with_the_slice, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t begin = clock_now_ns(), ns;

	cr_assert_eq(sleep_on(2, CLOCK_FOREVER), FUTEX_SLICE_OVER);

	ns = clock_now_ns() - begin;
	cr_assert_geq(ns, FUTEX_SLICE_NS);
}

/* M-20 */
Test(futex, sleep_ends_with_the_deadline, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t deadline_ns;

	futex_lengthen_slices();
	deadline_ns = clock_after_ns(20 * NS_PER_MS);
	cr_assert_eq(sleep_on(2, deadline_ns), FUTEX_SLICE_OVER);
	cr_assert_geq(clock_now_ns(), deadline_ns);
	cr_assert_lt(clock_now_ns(), deadline_ns + FUTEX_SLICE_LONG_NS / 2);

	cr_assert_eq(sleep_on(2, 0), FUTEX_SLICE_OVER);
	cr_assert_eq(sleep_on(2, clock_now_ns()), FUTEX_SLICE_OVER);
}

Test(futex, memory_that_cannot_be_read_is_broken, .timeout = 60)
{
	const _Atomic uint32_t *hole =
		mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	_Atomic uint32_t good = 0;
	struct futex_word all[2] = {{.word = &good}, {.word = hole}};

	cr_assert_eq(futex_sleep(all, 2, CLOCK_FOREVER), FUTEX_BROKEN);

	all[1].word = (const _Atomic uint32_t *)((uintptr_t)&good + 1);
	cr_assert_eq(futex_sleep(all, 2, CLOCK_FOREVER), FUTEX_BROKEN);

	munmap((void *)(uintptr_t)hole, 4096);
}

Test(futex, wakes_keep_errno, .timeout = 60)
{
	errno = 77;
	futex_wake_all(NULL);
	futex_wake_n((const _Atomic uint32_t *)1, 1);
	futex_wake_private((const _Atomic uint32_t *)(uintptr_t)3);
	cr_assert_eq(errno, 77);
}

Test(futex, wake_n_wakes_n, .init = setup, .fini = teardown, .timeout = 60)
{
	unsigned n = 1, n_woken = 0;
	struct actor actor[2];

	for (unsigned i = 0; i < 2; ++i)
		actor_start(&actor[i], actor_sleep, &n);
	for (unsigned try = 0; n_woken == 0 && try < 10; ++try) {
		for (unsigned i = 0; i < 2; ++i)
			actor_until_asleep(&actor[i]);
		futex_wake_n(&words->word[0], 1);
		n_woken = has_spoken(&actor[0], 500) + has_spoken(&actor[1], 500);
	}
	cr_assert_eq(n_woken, 1);

	for (unsigned i = 0; i < 2; ++i)
		actor_kill(&actor[i]);
}

static _Atomic uint32_t is_woken;

static void *wake_private(void *arg)
{
	while (!atomic_load(&is_woken)) {
		futex_wake_private(&private_word);
		process_pause();
	}
	return arg;
}

/* M-28 */
Test(futex, private_word_wakes_beside_shared_ones, .init = setup, .fini = teardown, .timeout = 60)
{
	struct futex_word all[2] = {{.word = &words->word[0]},
				    {.word = &private_word, .is_private = true}};
	enum futex_result r = FUTEX_SLICE_OVER;
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, wake_private, NULL), 0);
	for (unsigned try = 0; try < 50 && r == FUTEX_SLICE_OVER; ++try)
		r = futex_sleep(all, 2, CLOCK_FOREVER);
	atomic_store(&is_woken, 1);
	pthread_join(thread, NULL);

	cr_assert_eq(r, FUTEX_WOKEN);
}

static _Atomic uint32_t n_signals;

static void on_signal(int signal)
{
	(void)signal;
	atomic_fetch_add(&n_signals, 1);
}

struct signal_case {
	int flags;
	_Bool without_waitv;
};

static void actor_sleep_signalled(struct actor *self, void *arg)
{
	const struct signal_case *c = arg;
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = c->flags};
	enum futex_result r;

	sigaction(SIGUSR1, &action, NULL);
	if (c->without_waitv)
		futex_refuse_waitv();

	do
		r = sleep_on(2, CLOCK_FOREVER);
	while (atomic_load(&n_signals) == 0);

	actor_say(self, r);
}

/* How many of 5 sleeps in whose middle a handler ran said that they were interrupted. */
static unsigned n_interrupted(int flags, _Bool without_waitv)
{
	struct signal_case c = {flags, without_waitv};
	unsigned n = 0;

	for (unsigned i = 0; i < 5; ++i) {
		struct actor actor;

		actor_start(&actor, actor_sleep_signalled, &c);
		actor_until_asleep(&actor);
		kill(actor.pid, SIGUSR1);
		n += actor_hear(&actor) == FUTEX_INTERRUPTED;
		cr_assert_eq(actor_join(&actor), 0);
	}
	return n;
}

/* M-21 */
Test(futex, handler_without_restart_interrupts, .init = setup, .fini = teardown, .timeout = 60)
{
	/* Not all: a signal may come between two slices. */
	cr_assert_gt(n_interrupted(0, false), 0);
}

/* M-21 */
Test(futex, handler_with_restart_does_not, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(n_interrupted(SA_RESTART, false), 0);
}

/* M-21: what the kernel cannot tell apart there may not end a wait */
Test(futex, fallback_never_says_interrupted, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(n_interrupted(0, true), 0);
	cr_assert_eq(n_interrupted(SA_RESTART, true), 0);
}

Test(futex, fallback_wakes_by_its_first_word, .init = setup, .fini = teardown, .timeout = 60)
{
	assert_word_wakes(3, 0, actor_sleep_without_waitv);
}

Test(futex, fallback_looks_at_all_words, .init = setup, .fini = teardown, .timeout = 60)
{
	futex_refuse_waitv();
	cr_assert_not(futex_has_waitv());

	for (unsigned i = 0; i < 3; ++i) {
		atomic_store(&words->word[i], 1);
		cr_assert_eq(sleep_on(3, CLOCK_FOREVER), FUTEX_WOKEN);
		atomic_store(&words->word[i], 0);
	}
}

Test(futex, fallback_sleeps_in_short_slices, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t best_ns = UINT64_MAX;

	futex_refuse_waitv();
	for (unsigned i = 0; i < 20; ++i) {
		uint64_t begin = clock_now_ns(), ns;

		cr_assert_eq(sleep_on(3, CLOCK_FOREVER), FUTEX_SLICE_OVER);
		ns = clock_now_ns() - begin;
		cr_assert_geq(ns, FUTEX_SLICE_FALLBACK_NS);
		if (ns < best_ns)
			best_ns = ns;
	}
	cr_assert_lt(best_ns, FUTEX_SLICE_NS);
}

/* 0: as it should be */
static int sleep_refused(int error)
{
	refuse_call(SYS_futex_waitv, error);

	if (!futex_has_waitv())
		return 1;
	if (sleep_on(2, CLOCK_FOREVER) != FUTEX_WOKEN)
		return 2;
	if (futex_has_waitv())
		return 3;
	if (sleep_on(2, CLOCK_FOREVER) != FUTEX_SLICE_OVER)
		return 4;
	atomic_store(&words->word[1], 1);
	return sleep_on(2, CLOCK_FOREVER) == FUTEX_WOKEN ? 0 : 5;
}

Test(futex, refusal_by_a_sandbox_is_remembered, .init = setup, .fini = teardown, .timeout = 60)
{
	static const int errors[] = {ENOSYS, EPERM};

	for (unsigned i = 0; i < 2; ++i) {
		pid_t pid;

		atomic_store(&words->word[1], 0);
		pid = process_fork();
		if (pid == 0)
			process_end(sleep_refused(errors[i]));
		cr_assert_eq(process_reap(pid, 30000), 0);
	}
}

Test(futex, other_refusals_sleep_all_the_same, .init = setup, .fini = teardown, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		refuse_call(SYS_futex_waitv, ENOMEM);
		process_end(sleep_on(2, CLOCK_FOREVER) == FUTEX_SLICE_OVER && futex_has_waitv()
				    ? 0
				    : 1);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
}
