/* SPDX-License-Identifier: MIT */
/*
 * The wait loop without a broker: the test plays the broker by bumping the attention word.
 */
#include "libipc/core/waiter.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"
#include "libipc/platform/lock.h"
#include "libipc/platform/process.h"
#include "tests/support/wakes.h"

/* Shared between the test and its children. */
struct scene {
	struct eventcount event;
	struct lock lock;
	_Alignas(64) _Atomic uint32_t attention;
	_Alignas(64) _Atomic uint32_t condition;
	_Atomic uint32_t n_checks, n_looks;
	struct desk_cell cell;
};

static struct scene *scene;
static _Atomic uint32_t cancel_word, handle_cancelled, client_cancelled;
static struct waiter_patience patience;

static int scene_look(void *subject)
{
	struct scene *s = subject;

	atomic_fetch_add(&s->n_looks, 1);
	return atomic_load(&s->condition) ? 7 : WAITER_NOT_YET;
}

static int scene_check(void *userdata)
{
	struct scene *s = userdata;

	atomic_fetch_add(&s->n_checks, 1);
	return 0;
}

static struct waiter scene_waiter(uint64_t deadline_ns)
{
	return (struct waiter){
		.event = &scene->event,
		.attention = &scene->attention,
		.cancel_word = &cancel_word,
		.handle_cancelled = &handle_cancelled,
		.client_cancelled = &client_cancelled,
		.cell = &scene->cell,
		.patience = &patience,
		.deadline_ns = deadline_ns,
		.check = scene_check,
		.userdata = scene,
	};
}

static void setup(void)
{
	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(scene, MAP_FAILED);
	eventcount_init(&scene->event);
	lock_init(&scene->lock);
}

static void teardown(void)
{
	munmap(scene, sizeof(*scene));
}

static pid_t spawn(void (*fn)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn();
		_exit(0);
	}
	return pid;
}

/* The cell is written just before the sleep: the wait has begun, or is so near to it that the
 * protocol's own second look decides. */
static void until_waiting(void)
{
	uint64_t limit = clock_after_ns(30 * NS_PER_S);

	while (atomic_load(&scene->cell.waits_since) == 0) {
		cr_assert_lt(clock_now_ns(), limit, "nobody began to wait");
		sched_yield();
	}
	while (!(atomic_load(&scene->event.word) & EVENTCOUNT_SLEEPERS)) {
		cr_assert_lt(clock_now_ns(), limit, "nobody announced a sleep");
		sched_yield();
	}
}

static int join(pid_t pid)
{
	int status;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* M-21 */
Test(waiter, condition_comes_before_cancel_and_deadline, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct waiter waiter = scene_waiter(0);

	atomic_store(&scene->condition, 1);
	atomic_store(&handle_cancelled, 1);

	cr_assert_eq(waiter_wait(&waiter, scene_look, scene), 7);

	atomic_store(&scene->condition, 0);
	cr_assert_eq(waiter_wait(&waiter, scene_look, scene), IPC_ECANCELED,
		     "cancel comes before the deadline");
}

/* M-20 */
Test(waiter, past_deadline_looks_once, .init = setup, .fini = teardown, .timeout = 60)
{
	struct waiter waiter = scene_waiter(0);

	cr_assert_eq(waiter_wait(&waiter, scene_look, scene), IPC_ETIMEDOUT);
	cr_assert_eq(atomic_load(&scene->n_looks), 1);
}

/* M-20 */
Test(waiter, deadline_is_kept_over_many_slices, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t began = clock_now_ns();
	struct waiter waiter = scene_waiter(began + NS_PER_S);

	cr_assert_eq(waiter_wait(&waiter, scene_look, scene), IPC_ETIMEDOUT);

	cr_assert_geq(clock_now_ns() - began, NS_PER_S);
	cr_assert_geq(atomic_load(&scene->n_checks), 2,
		      "the control socket is looked at once a slice");
}

static void wait_for_ever(void)
{
	struct waiter waiter = scene_waiter(CLOCK_FOREVER);

	_exit(waiter_wait(&waiter, scene_look, scene) == 7 ? 0 : 1);
}

/* M-27 */
Test(waiter, notification_ends_the_sleep_without_a_slice, .init = setup, .fini = teardown,
     .timeout = 60)
{
	WAKES_TELL();
	for (int i = 0; i < 50; ++i) {
		pid_t pid;
		uint64_t began;

		atomic_store(&scene->condition, 0);
		atomic_store(&scene->cell.waits_since, 0);
		pid = spawn(wait_for_ever);
		until_waiting();

		began = clock_now_ns();
		atomic_store(&scene->condition, 1);
		(void)eventcount_notify(&scene->event);
		cr_assert_eq(join(pid), 0);
		ASSERT_WOKEN(began);
		eventcount_init(&scene->event);
	}
}

/* M-26 */
Test(waiter, killed_waiter_blocks_nobody, .init = setup, .fini = teardown, .timeout = 60)
{
	for (int i = 0; i < 50; ++i) {
		pid_t victim, survivor;

		atomic_store(&scene->condition, 0);
		victim = spawn(wait_for_ever);
		until_waiting();
		kill(victim, SIGKILL);
		cr_assert_eq(join(victim), 128 + SIGKILL);

		atomic_store(&scene->cell.waits_since, 0);
		survivor = spawn(wait_for_ever);
		until_waiting();
		atomic_store(&scene->condition, 1);
		(void)eventcount_notify(&scene->event);
		cr_assert_eq(join(survivor), 0);
	}
}

static void publish_and_die(void)
{
	/* Dies after the count moved and before anybody was woken: what eventcount_wake() does, cut
	 * in the middle. */
	uint32_t word = atomic_load(&scene->event.word);

	atomic_store(&scene->condition, 1);
	atomic_store(&scene->event.word, (word + 1) & EVENTCOUNT_COUNT);
	raise(SIGKILL);
}

/* M-25, M-26 */
Test(waiter, attention_wakes_for_a_notifier_that_died_before_its_wake, .init = setup,
     .fini = teardown, .timeout = 60)
{
	pid_t waiter = spawn(wait_for_ever);
	pid_t notifier;

	until_waiting();
	notifier = spawn(publish_and_die);
	cr_assert_eq(join(notifier), 128 + SIGKILL);

	atomic_fetch_add(&scene->attention, 1);
	futex_wake_all(&scene->attention);

	cr_assert_eq(join(waiter), 0);
}

static void *cancel_soon(void *unused)
{
	(void)unused;
	until_waiting();
	atomic_store(&handle_cancelled, 1);
	atomic_fetch_add(&cancel_word, 1);
	futex_wake_private(&cancel_word);
	return NULL;
}

/* M-28 */
Test(waiter, cancel_by_another_thread_ends_the_sleep, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct waiter waiter = scene_waiter(CLOCK_FOREVER);
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, cancel_soon, NULL), 0);

	cr_assert_eq(waiter_wait(&waiter, scene_look, scene), IPC_ECANCELED);
	pthread_join(thread, NULL);
}

static void on_signal(int signal)
{
	(void)signal;
}

static pthread_t main_thread;
static _Atomic int stop;

static void *signal_until_stopped(void *unused)
{
	(void)unused;
	until_waiting();
	while (!atomic_load(&stop)) {
		pthread_kill(main_thread, SIGUSR1);
		sched_yield();
	}
	return NULL;
}

static int wait_under_signals(int flags, bool ignores_signals)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
	struct waiter waiter = scene_waiter(clock_after_ns(300 * NS_PER_MS));
	pthread_t thread;
	int r;

	main_thread = pthread_self();
	sigaction(SIGUSR1, &action, NULL);
	waiter.ignores_signals = ignores_signals;
	cr_assert_eq(pthread_create(&thread, NULL, signal_until_stopped, NULL), 0);
	r = waiter_wait(&waiter, scene_look, scene);
	atomic_store(&stop, 1);
	pthread_join(thread, NULL);
	return r;
}

/* M-21 */
Test(waiter, handler_without_restart_interrupts, .init = setup, .fini = teardown, .timeout = 60)
{
	if (futex_has_waitv())
		cr_assert_eq(wait_under_signals(0, false), IPC_EINTR);
	else
		cr_assert_eq(wait_under_signals(0, false), IPC_ETIMEDOUT,
			     "the fallback cannot tell and never says it");
}

/* M-21 */
Test(waiter, handler_with_restart_never_interrupts, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(wait_under_signals(SA_RESTART, false), IPC_ETIMEDOUT);
}

/* M-21 */
Test(waiter, who_ignores_signals_is_never_interrupted, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(wait_under_signals(0, true), IPC_ETIMEDOUT);
}

static void hold_lock_until_killed(void)
{
	if (lock_try(&scene->lock) != LOCK_HELD)
		_exit(1);
	atomic_store(&scene->condition, 1);
	for (;;)
		pause();
}

static void until_condition(void)
{
	uint64_t limit = clock_after_ns(30 * NS_PER_S);

	while (!atomic_load(&scene->condition)) {
		cr_assert_lt(clock_now_ns(), limit);
		sched_yield();
	}
}

/* M-25 */
Test(waiter, lock_of_a_dead_holder_is_taken_over_and_told, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct waiter waiter = scene_waiter(clock_after_ns(30 * NS_PER_S));
	pid_t holder = spawn(hold_lock_until_killed);

	until_condition();
	kill(holder, SIGKILL);

	cr_assert_eq(waiter_lock(&waiter, &scene->lock, NULL, NULL), 1);
	cr_assert_eq(lock_unlock(&scene->lock), 0);
	cr_assert_eq(join(holder), 128 + SIGKILL);
	cr_assert_eq(waiter_lock(&waiter, &scene->lock, NULL, NULL), 0, "told once");
	cr_assert_eq(waiter_lock(&waiter, &scene->lock, NULL, NULL), IPC_EDEADLK);
	cr_assert_eq(lock_unlock(&scene->lock), 0);
}

/* M-20, M-28 */
Test(waiter, lock_wait_keeps_deadline_and_cancel, .init = setup, .fini = teardown, .timeout = 60)
{
	struct waiter waiter = scene_waiter(clock_after_ns(150 * NS_PER_MS));
	pid_t holder = spawn(hold_lock_until_killed);

	until_condition();
	cr_assert_eq(waiter_lock(&waiter, &scene->lock, NULL, NULL), IPC_ETIMEDOUT);

	waiter = scene_waiter(CLOCK_FOREVER);
	atomic_store(&client_cancelled, 1);
	cr_assert_eq(waiter_lock(&waiter, &scene->lock, NULL, NULL), IPC_ECANCELED);

	kill(holder, SIGKILL);
	join(holder);
}

/* M-21, M-26: where futex_waitv is refused everything still ends */
Test(waiter, fallback_without_waitv_ends_every_wait, .init = setup, .fini = teardown, .timeout = 60)
{
	struct waiter waiter = scene_waiter(clock_after_ns(30 * NS_PER_S));
	pthread_t thread;

	futex_refuse_waitv();
	cr_assert_eq(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
	cr_assert_eq(waiter_wait(&waiter, scene_look, scene), IPC_ECANCELED);
	pthread_join(thread, NULL);
}
