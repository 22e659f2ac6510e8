/* SPDX-License-Identifier: MIT */
/*
 * How waits for several handles end: by an end of a channel, cancel, close, deadline, signal; and
 * where they may not begin.
 */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libipc/client/endpoint.h"
#include "tests/client/wait_scene.h"

TestSuite(wait_ends, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- ends ---- */

/* M-34, W-15: what read_next would say */
Test(wait_ends, end_comes_after_the_last_value)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0), *staying = consumer_new("a", IPC_STAY);
	uint64_t version = 1;

	publish(producer);
	ipc_watch_producer_close(producer);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, NULL), 0);

	cr_assert_eq(look(consumer, READABLE, 0), READABLE);
	cr_assert_eq(look(consumer, READABLE, 1), END);
	cr_assert_eq(look(consumer, PRESENT, 1), END, "told without being asked for");
	cr_assert_eq(ipc_watch_read_next(consumer, NULL, 0, NULL, &version), IPC_EPIPE);
	cr_assert_eq(look(staying, READABLE, 1), IPC_ETIMEDOUT);
	cr_assert_eq(ipc_watch_read_next(staying, NULL, 0, NULL, &version), IPC_EAGAIN);

	ipc_watch_consumer_close(staying);
	ipc_watch_consumer_close(consumer);
}

/* M-22, M-34: final for everybody */
Test(wait_ends, shutdown_is_the_end_of_all_roles)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", IPC_STAY);
	ipc_shared *a = shared_new("s", IPC_SIDE_A), *b = shared_new("s", IPC_SIDE_B);

	cr_assert_eq(look(producer, GONE, 0), IPC_ETIMEDOUT);
	cr_assert_eq(look(consumer, READABLE, 0), IPC_ETIMEDOUT);
	cr_assert_eq(look(a, GONE, 0), IPC_ETIMEDOUT);

	cr_assert_eq(ipc_watch_shutdown(producer), 0);
	cr_assert_eq(ipc_shared_shutdown(b), 0);

	cr_assert_eq(look(producer, GONE, 0), END);
	cr_assert_eq(look(consumer, READABLE, 0), END);
	cr_assert_eq(look(a, GONE, 0), END);
	cr_assert_eq(look(b, GONE, 0), END);

	ipc_shared_close(a);
	ipc_shared_close(b);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-27: told to sleepers at once, of either kind */
Test(wait_ends, shutdown_wakes_a_sleeper, .timeout = 120)
{
	assert_told_at_once(SHUTDOWN_OF_WATCH, false);
	assert_told_at_once(SHUTDOWN_OF_SHARED, false);
}

struct shutdown {
	ipc_shared *shared;
	uint64_t began_ns;
};

static void *shut_down(void *arg)
{
	struct shutdown *shutdown = arg;

	process_until_asleep(getpid(), 1);
	shutdown->began_ns = clock_now_ns();
	cr_assert_eq(ipc_shared_shutdown(shutdown->shared), 0);
	return NULL;
}

/* M-32: the single wait sleeps at the same place */
Test(wait_ends, shutdown_of_shared_ends_a_wait_for_presence_at_once)
{
	WAKES_TELL();
	for (unsigned i = 0; i < N_TIMES; ++i) {
		char name[16];
		struct shutdown shutdown;
		pthread_t thread;

		(void)snprintf(name, sizeof(name), "s%u", i);
		shutdown.shared = shared_new(name, IPC_SIDE_A);
		cr_assert_eq(pthread_create(&thread, NULL, shut_down, &shutdown), 0);
		cr_assert_eq(ipc_shared_peers_wait(shutdown.shared, true, NULL), IPC_EPIPE);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		ASSERT_WOKEN(shutdown.began_ns);
		ipc_shared_close(shutdown.shared);
	}
}

/* M-32, M-48: nobody will come any more */
Test(wait_ends, wait_for_peers_of_a_removed_channel_ends)
{
	ipc_watch_consumer *consumer = consumer_new("a", IPC_STAY);
	ipc_watch_producer *producer = producer_new("a");

	cr_assert_eq(take_away("a", 0), 0);
	cr_assert_eq(look(consumer, READABLE | PRESENT, 0), PRESENT);
	ipc_watch_producer_close(producer);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, NULL), 0);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, true, NULL), IPC_EPIPE);

	cr_assert_eq(look(consumer, PRESENT, 0), END);
	cr_assert_eq(look(consumer, READABLE, 0), END);

	ipc_watch_consumer_close(consumer);
}

/* M-32, M-48: also where nothing else of the role is ended by it */
Test(wait_ends, producer_of_a_removed_channel_waits_for_nobody)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);

	cr_assert_eq(take_away("a", 0), 0);
	cr_assert_eq(look(producer, PRESENT, 0), PRESENT);
	ipc_watch_consumer_close(consumer);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, NULL), 0);

	cr_assert_eq(look(producer, PRESENT, 0), END);
	cr_assert_eq(look(producer, GONE, 0), GONE);

	ipc_watch_producer_close(producer);
}

/* M-29: the death of a peer is an end of its item, told by the broker and not by a slice */
Test(wait_ends, kill_of_the_producer_ends_the_wait_at_once, .timeout = 120)
{
	WAKES_TELL();
	for (unsigned i = 0; i < N_TIMES; ++i) {
		ipc_watch_consumer *keeper = consumer_new("a", 0);
		struct actor victim, actor;
		uint64_t began;

		actor_start(&victim, hold_producer, "a");
		(void)actor_hear(&victim);
		WAITER_START(&actor, .n = 2,
			     .item = {CONSUMER("other", .events = READABLE, .flags = IPC_CREATE),
				      CONSUMER("a", .events = READABLE)});
		waiter_begin(&actor, 0);

		began = clock_now_ns();
		actor_kill(&victim);
		ASSERT_WAITED(&actor, 1, END);
		ASSERT_WOKEN(began);

		waiter_end(&actor);
		ipc_watch_consumer_close(keeper);
	}
}

/* ---- cancel, close, deadline, signals ---- */

static ipc_watch_consumer *two[2];

static struct ipc_wait_item *items_of_two(void)
{
	static struct ipc_wait_item items[2];

	two[0] = consumer_new("a", 0);
	two[1] = consumer_new("b", 0);
	for (unsigned i = 0; i < 2; ++i)
		items[i] = (struct ipc_wait_item){.handle = two[i], .events = READABLE};
	return items;
}

static void close_two(void)
{
	for (unsigned i = 0; i < 2; ++i)
		two[i] = ipc_watch_consumer_close(two[i]);
}

static void *cancel_second(void *unused)
{
	process_until_asleep(getpid(), 1);
	cr_assert_eq(ipc_watch_consumer_cancel(two[1]), 0);
	return unused;
}

static void *cancel_client(void *unused)
{
	process_until_asleep(getpid(), 1);
	cr_assert_eq(ipc_client_cancel(fixture_client), 0);
	return unused;
}

static void *close_second(void *unused)
{
	process_until_asleep(getpid(), 1);
	two[1] = ipc_watch_consumer_close(two[1]);
	return unused;
}

static int wait_beside(void *(*fn)(void *), struct ipc_wait_item *items)
{
	pthread_t thread;
	int r;

	cr_assert_eq(pthread_create(&thread, NULL, fn, NULL), 0);
	r = ipc_wait_any(items, 2, NULL);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	return r;
}

/* M-28, M-29 */
Test(wait_ends, cancel_of_any_handle_ends_it)
{
	struct ipc_wait_item *items = items_of_two();

	cr_assert_eq(wait_beside(cancel_second, items), IPC_ECANCELED);
	cr_assert_eq(ipc_wait_any(items, 2, NULL), IPC_ECANCELED, "and those to come");
	cr_assert_eq(ipc_wait_any(items, 1, &past), IPC_ETIMEDOUT, "not those of other handles");

	close_two();
}

/* M-28, M-29 */
Test(wait_ends, cancel_of_the_client_ends_it)
{
	cr_assert_eq(wait_beside(cancel_client, items_of_two()), IPC_ECANCELED);
	close_two();
}

/* M-21: the condition, then cancel, then the deadline */
Test(wait_ends, what_is_ready_comes_before_cancel_and_deadline)
{
	struct ipc_wait_item *items = items_of_two();
	ipc_watch_producer *producer = producer_new("b");

	cr_assert_eq(ipc_watch_consumer_cancel(two[0]), 0);
	cr_assert_eq(ipc_wait_any(items, 2, &past), IPC_ECANCELED);
	publish(producer);
	cr_assert_eq(ipc_wait_any(items, 2, &past), 1);

	close_two();
	ipc_watch_producer_close(producer);
}

/* M-44 */
Test(wait_ends, close_by_another_thread_ends_it)
{
	cr_assert_eq(wait_beside(close_second, items_of_two()), IPC_ECANCELED);
	close_two();
}

static void on_alarm_cancel(int signal)
{
	(void)signal;
	(void)ipc_watch_consumer_cancel(two[1]);
}

static void on_alarm(int signal)
{
	(void)signal;
}

static void *interrupt(void *thread)
{
	process_until_asleep(getpid(), 1);
	cr_assert_eq(pthread_kill(*(pthread_t *)thread, SIGALRM), 0);
	return NULL;
}

static int wait_interrupted(void (*handler)(int), int flags, const struct timespec *deadline)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	struct ipc_wait_item *items = items_of_two();
	pthread_t self = pthread_self(), thread;
	int r;

	cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
	cr_assert_eq(pthread_create(&thread, NULL, interrupt, &self), 0);
	r = ipc_wait_any(items, 2, deadline);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	close_two();
	return r;
}

/* M-28 */
Test(wait_ends, cancel_in_a_signal_handler_ends_it)
{
	cr_assert_eq(wait_interrupted(on_alarm_cancel, SA_RESTART, NULL), IPC_ECANCELED);
}

/* M-21 */
Test(wait_ends, handler_without_restart_interrupts_it)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	cr_assert_eq(wait_interrupted(on_alarm, 0, &deadline),
		     futex_has_waitv() ? IPC_EINTR : IPC_ETIMEDOUT);
}

/* M-21 */
Test(wait_ends, handler_with_restart_does_not)
{
	struct timespec deadline = domain_deadline(1000);

	cr_assert_eq(wait_interrupted(on_alarm, SA_RESTART, &deadline), IPC_ETIMEDOUT);
}

/* M-20 */
Test(wait_ends, deadline_is_kept)
{
	struct ipc_wait_item *items = items_of_two();
	uint64_t began = clock_now_ns();
	struct timespec deadline = domain_deadline(250);

	cr_assert_eq(ipc_wait_any(items, 2, &deadline), IPC_ETIMEDOUT);
	cr_assert_geq(clock_now_ns() - began, 249 * NS_PER_MS);

	close_two();
}

/* ---- where it may be called ---- */

/* M-42 */
Test(wait_ends, forked_child_is_refused)
{
	struct ipc_wait_item *items = items_of_two();
	pid_t pid = process_fork();

	if (pid == 0)
		process_end(ipc_wait_any(items, 2, NULL) == IPC_ECHILD &&
					    ipc_wait_any(items, 1, NULL) == IPC_ECHILD
				    ? 0
				    : 1);
	cr_assert_eq(process_reap(pid, WAIT_MS), 0);

	close_two();
}

static bool wait_inside(const void *value, size_t size, void *userdata)
{
	(void)value;
	(void)size;
	cr_assert_eq(ipc_wait_any(userdata, 1, &past), IPC_EDEADLK);
	cr_assert_eq(ipc_wait_any(userdata, 2, &past), IPC_EDEADLK);
	return true;
}

/* M-42 */
Test(wait_ends, callbacks_are_refused)
{
	struct ipc_wait_item *items = items_of_two();
	ipc_shared *shared = shared_new("s", IPC_SIDE_A);
	const void *value;

	cr_assert_eq(ipc_shared_lock_when_wait(shared, wait_inside, items, &value, NULL), 0);
	cr_assert_eq(ipc_shared_unlock(shared), 0);

	ipc_shared_close(shared);
	close_two();
}

static void *close_descriptors(void *unused)
{
	process_until_asleep(getpid(), 1);
	(void)syscall(SYS_close_range, 3, UINT_MAX, 0);
	return unused;
}

static int wait_without_descriptors(void)
{
	struct ipc_wait_item *items;
	pthread_t thread;

	fixture_client = domain_connect(&fixture_domain);
	items = items_of_two();
	if (pthread_create(&thread, NULL, close_descriptors, NULL) != 0)
		return 1;
	if (ipc_wait_any(items, 2, NULL) != IPC_ESTALE)
		return 2;
	(void)pthread_join(thread, NULL);

	return ipc_wait_any(items, 2, &past) == IPC_ESTALE ? 0 : 3;
}

/* M-24 */
Test(wait_ends, client_that_is_held_dead_is_told_so)
{
	pid_t pid = process_fork();

	if (pid == 0)
		process_end(wait_without_descriptors());
	cr_assert_eq(process_reap(pid, WAIT_MS), 0);
}

/* M-6, M-31 */
Test(wait_ends, broker_that_is_gone_for_good_ends_it_after_the_grace_time)
{
	struct actor actor;

	WAITER_START(&actor, .n = 2, .grace_ns = 300 * NS_PER_MS,
		     .item = {CONSUMER("a", .events = READABLE, .flags = IPC_CREATE),
			      CONSUMER("b", .events = READABLE, .flags = IPC_CREATE)});
	waiter_begin(&actor, 0);

	domain_kill(&fixture_domain);

	ASSERT_WAITED(&actor, IPC_ECONNRESET, 0);
	waiter_end(&actor);
	start_another_broker();
}

/* ---- for people who look on ---- */

static uint64_t waits_since(const void *handle)
{
	return atomic_load(&((const struct endpoint *)handle)->cell->waits_since);
}

static void *see_both_waiting(void *unused)
{
	process_until_asleep(getpid(), 1);
	cr_expect_neq(waits_since(two[0]), 0);
	cr_expect_neq(waits_since(two[1]), 0);
	return cancel_second(unused);
}

/* M-45 */
Test(wait_ends, each_handle_says_that_it_waits)
{
	struct ipc_wait_item *items = items_of_two();

	cr_assert_eq(wait_beside(see_both_waiting, items), IPC_ECANCELED);

	cr_assert_eq(waits_since(two[0]), 0);
	cr_assert_eq(waits_since(two[1]), 0);
	close_two();
}
