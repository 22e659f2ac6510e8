/* SPDX-License-Identifier: MIT */
/*
 * limiter: waits, and how they end; deaths of holders and waiters; ipc_wait_any().
 */
#include <pthread.h>

#include "tests/client/limiter_scene.h"

TestSuite(limiter_wait, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

enum { N_TIMES = 5 };

/* ---- grants ---- */

/* L-3, M-21 */
Test(limiter_wait, a_release_wakes_who_waits)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct ipc_limiter_grant grant;
	struct actor waiter;

	WAKES_TELL();
	caller_start(&waiter);
	for (unsigned i = 0; i < N_TIMES; ++i) {
		uint64_t began;

		ASSERT(acquire(limiter, 2, &grant), 0);
		order_begin(&waiter, ORDER_ACQUIRE_WAIT, 1);
		actor_until_asleep(&waiter);
		began = clock_now_ns();
		ASSERT(release(limiter, &grant), 0);
		ASSERT(actor_hear(&waiter), 0);
		ASSERT_WOKEN(began);
		ASSERT(order_do(&waiter, ORDER_RELEASE, 0), 0);
	}

	actor_kill(&waiter);
	ipc_limiter_close(limiter);
}

/* L-2, M-25: nobody's slice is waited for. */
Test(limiter_wait, a_killed_holder_wakes_who_waits)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct actor waiter;

	WAKES_TELL();
	caller_start(&waiter);
	for (unsigned i = 0; i < N_TIMES; ++i) {
		struct actor holder;
		uint64_t began;

		caller_start(&holder);
		ASSERT(order_do(&holder, ORDER_ACQUIRE, 2), 0);
		order_begin(&waiter, ORDER_ACQUIRE_WAIT, 2);
		actor_until_asleep(&waiter);
		began = clock_now_ns();
		actor_kill(&holder);
		ASSERT(actor_hear(&waiter), 0);
		ASSERT_WOKEN(began);
		ASSERT(order_do(&waiter, ORDER_RELEASE, 0), 0);
	}

	actor_kill(&waiter);
	EXPECT(state_of(limiter).n_free, 2);
	ipc_limiter_close(limiter);
}

/* L-3 */
Test(limiter_wait, first_come_first_served_and_the_dead_are_passed_over)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 3);
	struct ipc_limiter_grant grant;
	struct actor big, dead, small;

	caller_start(&big);
	caller_start(&dead);
	caller_start(&small);
	ASSERT(acquire(limiter, 2, &grant), 0);
	order_begin(&dead, ORDER_ACQUIRE_WAIT, 2);
	until_waiting(limiter, 1);
	order_begin(&big, ORDER_ACQUIRE_WAIT, 3);
	until_waiting(limiter, 2);
	order_begin(&small, ORDER_ACQUIRE_WAIT, 1);
	until_waiting(limiter, 3);

	/* L-7 */
	EXPECT(acquire(limiter, 1, &(struct ipc_limiter_grant){0}), IPC_EAGAIN);
	actor_kill(&dead);
	until_waiting(limiter, 2);
	EXPECT(state_of(limiter).n_free, 1);

	ASSERT(release(limiter, &grant), 0);
	EXPECT(actor_hear(&big), 0);
	EXPECT(state_of(limiter).n_waiting, 1);
	EXPECT(order_do(&big, ORDER_RELEASE, 0), 0);
	EXPECT(actor_hear(&small), 0);

	actor_kill(&big);
	actor_kill(&small);
	ipc_limiter_close(limiter);
}

/* L-3: a stopped one keeps its place; what it is granted it holds. */
Test(limiter_wait, a_stopped_waiter_hinders_nobody_but_those_behind_it)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct ipc_limiter_grant grant, second;
	struct actor stopped;

	caller_start(&stopped);
	ASSERT(acquire(limiter, 2, &grant), 0);
	order_begin(&stopped, ORDER_ACQUIRE_WAIT, 1);
	until_waiting(limiter, 1);
	cr_assert_eq(kill(stopped.pid, SIGSTOP), 0);

	ASSERT(release(limiter, &grant), 0);
	EXPECT(acquire_in(limiter, 1, WAIT_MS, &grant), 0);
	EXPECT(acquire(limiter, 1, &second), IPC_EAGAIN);
	actor_kill(&stopped);
	EXPECT(acquire_in(limiter, 1, WAIT_MS, &second), 0);

	ipc_limiter_close(limiter);
}

/* M-33: alone with its permits, nobody's absence ends the wait. */
Test(limiter_wait, a_wait_is_never_ended_by_absence)
{
	ipc_limiter *limiter = LIMITER_NEW(0);
	struct ipc_limiter_grant grant, second;
	struct actor other;

	caller_start(&other);
	ASSERT(acquire(limiter, 1, &grant), 0);
	ASSERT(order_do(&other, ORDER_CLOSE, 0), 0);
	actor_kill(&other);

	EXPECT(acquire_in(limiter, 1, 30, &second), IPC_ETIMEDOUT);
	ipc_limiter_close(limiter);
}

/* ---- ends ---- */

/* M-20 */
Test(limiter_wait, deadlines_end_waits)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct timespec bad = {.tv_nsec = 1000000000};
	struct ipc_limiter_grant grant, second;

	ASSERT(ipc_limiter_acquire_wait(limiter, 1, &grant, &past), 0);
	EXPECT(ipc_limiter_acquire_wait(limiter, 2, &second, &past), IPC_ETIMEDOUT);
	EXPECT(acquire_in(limiter, 2, 20, &second), IPC_ETIMEDOUT);
	EXPECT(ipc_limiter_acquire_wait(limiter, 1, &second, &bad), IPC_EINVAL);
	EXPECT(state_of(limiter).n_waiting, 0);
	EXPECT(acquire(limiter, 1, &second), 0);

	ipc_limiter_close(limiter);
}

struct waiting {
	ipc_limiter *limiter;
	struct ipc_limiter_grant grant;
	pthread_t thread;
	int result;
};

static void *wait_here(void *arg)
{
	struct waiting *waiting = arg;

	waiting->result = acquire_in(waiting->limiter, 1, WAIT_MS, &waiting->grant);
	return NULL;
}

static void waiting_start(struct waiting *waiting, ipc_limiter *limiter)
{
	*waiting = (struct waiting){.limiter = limiter, .result = 1};
	cr_assert_eq(pthread_create(&waiting->thread, NULL, wait_here, waiting), 0);
}

static int waiting_end(struct waiting *waiting)
{
	cr_assert_eq(pthread_join(waiting->thread, NULL), 0);
	return waiting->result;
}

/* M-28 */
Test(limiter_wait, cancel_ends_waits_and_nothing_else)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct ipc_limiter_grant grant, second;
	struct waiting waiting;

	ASSERT(acquire(limiter, 2, &grant), 0);
	waiting_start(&waiting, limiter);
	until_waiting(limiter, 1);
	ASSERT(ipc_limiter_cancel(limiter), 0);

	EXPECT(waiting_end(&waiting), IPC_ECANCELED);
	EXPECT(acquire_in(limiter, 1, WAIT_MS, &second), IPC_ECANCELED);
	EXPECT(state_of(limiter).n_waiting, 0);
	EXPECT(release(limiter, &grant), 0);
	EXPECT(acquire(limiter, 1, &second), 0);

	ipc_limiter_close(limiter);
}

/* M-44 */
Test(limiter_wait, close_ends_waits_and_leaves_nothing)
{
	ipc_limiter *holder = LIMITER_NEW(.permits = 2), *limiter = NULL;
	struct ipc_limiter_grant grant;
	struct waiting waiting;
	uint64_t id;

	for (unsigned i = 0; i < 20; ++i) {
		ASSERT(limiter_open(&limiter, fixture_client, NAME,
				    (struct ipc_limiter_options){0}),
		       0);
		ASSERT(ipc_limiter_get_id(limiter, &id), 0);
		ASSERT(acquire(holder, 2, &grant), 0);
		waiting_start(&waiting, limiter);
		until_waiting(holder, 1);
		ipc_limiter_close(limiter);

		EXPECT(waiting_end(&waiting), IPC_ECANCELED);
		EXPECT(state_of(holder).n_waiting, 0);
		until_not_alive(id);
		ASSERT(release(holder, &grant), 0);
	}
	EXPECT(state_of(holder).n_free, 2);
	ipc_limiter_close(holder);
}

/* M-44: nothing is lost where a close meets a grant that is under way. */
Test(limiter_wait, close_beside_a_grant_loses_nothing)
{
	ipc_limiter *holder = LIMITER_NEW(0), *limiter = NULL;
	unsigned n_granted = 0;

	for (unsigned i = 0; i < 500; ++i) {
		struct ipc_limiter_grant grant;
		struct waiting waiting;
		uint64_t id;
		int r;

		ASSERT(limiter_open(&limiter, fixture_client, NAME,
				    (struct ipc_limiter_options){0}),
		       0);
		ASSERT(ipc_limiter_get_id(limiter, &id), 0);
		ASSERT(acquire(holder, 1, &grant), 0);
		waiting_start(&waiting, limiter);
		until_waiting(holder, 1);
		ASSERT(release(holder, &grant), 0);
		for (volatile unsigned spin = i * 400; spin > 0; --spin)
			;
		ipc_limiter_close(limiter);

		r = waiting_end(&waiting);
		cr_assert(r == 0 || r == IPC_ECANCELED, "%s", ipc_error_name(r));
		n_granted += r == 0;
		until_not_alive(id);
		ASSERT(state_of(holder).n_free, 1);
		ASSERT(acquire(holder, 1, &grant), 0);
		ASSERT(release(holder, &grant), 0);
	}
	cr_log_info("%u of 500 were granted", n_granted);
	ipc_limiter_close(holder);
}

static void on_signal(int number)
{
	(void)number;
}

/* M-21 */
Test(limiter_wait, a_signal_without_restart_ends_a_wait)
{
	ipc_limiter *limiter = LIMITER_NEW(0);
	struct sigaction action = {.sa_handler = on_signal};
	struct ipc_limiter_grant grant;
	struct waiting waiting[2];

	sigaction(SIGUSR1, &action, NULL);
	ASSERT(acquire(limiter, 1, &grant), 0);
	for (unsigned i = 0; i < 2; ++i)
		waiting_start(&waiting[i], limiter);
	process_until_asleep(getpid(), 2);
	for (unsigned i = 0; i < 2; ++i) {
		pthread_kill(waiting[i].thread, SIGUSR1);
		EXPECT(waiting_end(&waiting[i]), IPC_EINTR);
	}
	EXPECT(state_of(limiter).n_waiting, 0);
	ipc_limiter_close(limiter);
}

/* M-31 */
Test(limiter_wait, nothing_changes_while_the_broker_restarts)
{
	ipc_limiter *limiter = LIMITER_NEW(0);
	struct ipc_limiter_grant grant;
	struct actor holder, waiter;

	caller_start(&holder);
	caller_start(&waiter);
	ASSERT(order_do(&holder, ORDER_ACQUIRE, 1), 0);
	order_begin(&waiter, ORDER_ACQUIRE_WAIT, 1);
	until_waiting(limiter, 1);
	domain_kill_worker(&fixture_domain);
	EXPECT(state_of(limiter).n_held, 1);
	actor_kill(&holder);
	EXPECT(actor_hear(&waiter), 0);
	EXPECT(order_do(&waiter, ORDER_RELEASE, 0), 0);
	EXPECT(acquire(limiter, 1, &grant), 0);

	actor_kill(&waiter);
	ipc_limiter_close(limiter);
}

/* ---- several handles ---- */

static int wait_for(ipc_limiter *limiter, unsigned ms, uint32_t *ret_ready)
{
	struct ipc_wait_item item = {.handle = limiter, .events = IPC_READY_READABLE};
	struct timespec deadline = domain_deadline(ms);
	int r = ipc_wait_any(&item, 1, &deadline);

	*ret_ready = item.ready;
	return r;
}

/* M-34 */
Test(limiter_wait, a_limiter_is_readable_when_there_is_a_permit)
{
	ipc_limiter *limiter = LIMITER_NEW(.permits = 2);
	struct ipc_wait_item item = {.handle = limiter, .events = IPC_READY_WRITABLE};
	struct ipc_limiter_grant grant;
	uint32_t ready;

	EXPECT(wait_for(limiter, 0, &ready), 0);
	EXPECT(ready, IPC_READY_READABLE);
	ASSERT(acquire(limiter, 2, &grant), 0);
	EXPECT(wait_for(limiter, 20, &ready), IPC_ETIMEDOUT);
	ASSERT(release(limiter, &grant), 0);
	EXPECT(wait_for(limiter, 0, &ready), 0);
	EXPECT(ipc_wait_any(&item, 1, &past), IPC_EINVAL);
	item.events = IPC_READY_PEER_GONE;
	EXPECT(ipc_wait_any(&item, 1, &past), IPC_EINVAL);

	ipc_limiter_close(limiter);
}

struct any {
	ipc_limiter *limiter;
	pthread_t thread;
	int result;
};

static void *any_here(void *arg)
{
	struct any *any = arg;
	uint32_t ready;

	any->result = wait_for(any->limiter, WAIT_MS, &ready);
	return NULL;
}

/* Two, which do not take what they are told of. */
static uint64_t any_begin(struct any any[2], ipc_limiter *limiter)
{
	for (unsigned i = 0; i < 2; ++i) {
		any[i].limiter = limiter;
		cr_assert_eq(pthread_create(&any[i].thread, NULL, any_here, &any[i]), 0);
	}
	process_until_asleep(getpid(), 2);
	return clock_now_ns();
}

static void any_end(struct any any[2], uint64_t began)
{
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(pthread_join(any[i].thread, NULL), 0);
		EXPECT(any[i].result, 0);
	}
	ASSERT_WOKEN(began);
}

/* M-29, M-34 */
Test(limiter_wait, wait_any_is_woken_by_a_release_and_by_a_death)
{
	ipc_limiter *limiter = LIMITER_NEW(0);
	struct any any[2];

	WAKES_TELL();
	for (unsigned i = 0; i < N_TIMES; ++i) {
		struct actor holder;
		uint64_t began;

		caller_start(&holder);
		ASSERT(order_do(&holder, ORDER_ACQUIRE, 1), 0);
		began = any_begin(any, limiter);
		order_begin(&holder, ORDER_RELEASE, 0);
		any_end(any, began);
		ASSERT(actor_hear(&holder), 0);

		ASSERT(order_do(&holder, ORDER_ACQUIRE, 1), 0);
		began = any_begin(any, limiter);
		actor_kill(&holder);
		any_end(any, began);
	}

	ipc_limiter_close(limiter);
}
