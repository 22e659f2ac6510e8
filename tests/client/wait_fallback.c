/* SPDX-License-Identifier: MIT */
/*
 * ipc_wait_any() where the kernel refuses futex_waitv: the waiter is armed, and who notifies rings
 * it by the broker.  M-29: the same holds, and wakes still come at once, not at the end of a slice.
 */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "libipc/client/client.h"
#include "tests/client/wait_scene.h"

TestSuite(wait_fallback, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* M-29 */
Test(wait_fallback, publish_wakes_at_once)
{
	ipc_watch_producer *producers[2] = {producer_new("a"), producer_new("b")};
	struct actor actor;

	WAKES_TELL();
	WAITER_START(
		&actor, .refuses_waitv = true, .n = 2,
		.item = {CONSUMER("a", .events = READABLE), CONSUMER("b", .events = READABLE)});
	for (unsigned i = 0; i < N_TIMES; ++i) {
		uint64_t began;

		waiter_begin(&actor, i);
		began = clock_now_ns();
		cr_assert_eq(ipc_watch_publish(producers[0], "value", 6), 0);
		ASSERT_WAITED(&actor, 0, READABLE);
		ASSERT_WOKEN(began);
	}

	/* Whichever it is. */
	waiter_begin(&actor, N_TIMES);
	cr_assert_eq(ipc_watch_publish(producers[1], "value", 6), 0);
	ASSERT_WAITED(&actor, 1, READABLE);

	waiter_end(&actor);
	ipc_watch_producer_close(producers[0]);
	ipc_watch_producer_close(producers[1]);
}

/* M-29 */
Test(wait_fallback, commit_and_shutdown_wake_at_once, .timeout = 120)
{
	assert_told_at_once(COMMIT_OF_WATCH, true);
	assert_told_at_once(SHUTDOWN_OF_WATCH, true);
	assert_told_at_once(SHUTDOWN_OF_SHARED, true);
}

/* M-29 */
Test(wait_fallback, death_of_the_producer_wakes_at_once, .timeout = 120)
{
	WAKES_TELL();
	for (unsigned i = 0; i < N_TIMES; ++i) {
		ipc_watch_consumer *keeper = NULL;
		struct actor victim, actor;
		uint64_t began;

		cr_assert_eq(consume(&keeper, "a", IPC_CREATE), 0);
		actor_start(&victim, hold_producer, "a");
		(void)actor_hear(&victim);
		WAITER_START(&actor, .refuses_waitv = true, .n = 1,
			     .item = {CONSUMER("a", .events = READABLE)});
		waiter_begin(&actor, 0);

		began = clock_now_ns();
		actor_kill(&victim);
		ASSERT_WAITED(&actor, 0, END);
		ASSERT_WOKEN(began);

		waiter_end(&actor);
		ipc_watch_consumer_close(keeper);
	}
}

/* ---- in this process ---- */

struct ending {
	ipc_watch_consumer *consumer;
	bool closes;
	uint64_t began_ns;
};

/* While the main thread sleeps. */
static void *end_wait(void *arg)
{
	struct ending *ending = arg;

	process_until_asleep(getpid(), 1);
	ending->began_ns = clock_now_ns();
	if (ending->closes)
		ending->consumer = ipc_watch_consumer_close(ending->consumer);
	else
		cr_assert_eq(ipc_watch_consumer_cancel(ending->consumer), 0);
	return NULL;
}

/* A consumer is cancelled or closed while it is waited for. */
static void end_by(bool closes)
{
	ipc_watch_consumer *other = consumer_new("a", 0);
	struct ending ending = {.consumer = consumer_new("b", 0), .closes = closes};
	struct ipc_wait_item items[2] = {{.handle = other, .events = READABLE},
					 {.handle = ending.consumer, .events = READABLE}};
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, end_wait, &ending), 0);
	cr_assert_eq(ipc_wait_any(items, 2, NULL), IPC_ECANCELED);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	ASSERT_WOKEN(ending.began_ns);

	ipc_watch_consumer_close(other);
	ipc_watch_consumer_close(ending.consumer);
}

/* M-28, M-44 */
Test(wait_fallback, cancel_and_close_end_it_at_once)
{
	futex_refuse_waitv();
	WAKES_TELL();
	for (unsigned i = 0; i < N_TIMES; ++i) {
		end_by(false);
		end_by(true);
	}
}

/* M-27: who is not armed costs a publisher nothing, and who is costs it one datagram */
Test(wait_fallback, nobody_rings_who_is_not_asked_to)
{
	const _Atomic uint32_t *attention = client_attention(fixture_client);
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct ipc_wait_item item = {.handle = consumer, .events = READABLE};
	struct timespec deadline;
	uint32_t before;

	/* What comes of the opening has come. */
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, true, NULL), 0);
	cr_assert(exists("a"));
	before = atomic_load(attention);

	cr_assert_eq(ipc_watch_publish(producer, "value", 6), 0);
	cr_assert(exists("a"), "the broker has heard all that was sent");
	cr_assert_eq(atomic_load(attention), before);

	/* Armed by a wait that ended, and had begun to sleep. */
	futex_refuse_waitv();
	item.version = 1;
	deadline = domain_deadline(500);
	cr_assert_eq(ipc_wait_any(&item, 1, &deadline), IPC_ETIMEDOUT);
	cr_assert_eq(ipc_watch_publish(producer, "value", 6), 0);
	cr_assert_eq(ipc_watch_publish(producer, "value", 6), 0);
	cr_assert(exists("a"));
	cr_assert_eq(atomic_load(attention), before + 1);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-6: without a broker nobody rings; the slice is short */
Test(wait_fallback, publish_wakes_without_a_broker)
{
	ipc_watch_producer *producer = producer_new("a");
	struct actor actor;

	WAITER_START(&actor, .refuses_waitv = true, .grace_ns = 30 * NS_PER_S, .n = 1,
		     .item = {CONSUMER("a", .events = READABLE)});
	waiter_begin(&actor, 0);
	domain_kill(&fixture_domain);

	cr_assert_eq(ipc_watch_publish(producer, "value", 6), 0);

	ASSERT_WAITED(&actor, 0, READABLE);
	waiter_end(&actor);
	ipc_watch_producer_close(producer);
	start_another_broker();
}
