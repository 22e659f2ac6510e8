/* SPDX-License-Identifier: MIT */
/*
 * ipc_wait_any() over watch and shared, with a broker.
 */
#include <signal.h>
#include <stdio.h>

#include "tests/client/wait_scene.h"

TestSuite(wait, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- arguments ---- */

/* M-29, M-76 */
Test(wait, bad_lists_are_refused)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	const struct timespec wrong = {0, -1};
	struct ipc_wait_item items[65] = {0};
	uint64_t stranger[8] = {0};

	items[0] = (struct ipc_wait_item){.handle = consumer, .events = READABLE, .ready = 77};
	cr_assert_eq(ipc_wait_any(NULL, 1, &past), IPC_EINVAL);
	cr_assert_eq(ipc_wait_any(items, 0, &past), IPC_EINVAL);
	cr_assert_eq(ipc_wait_any(items, 65, &past), IPC_EINVAL);
	cr_assert_eq(ipc_wait_any(items + 1, 64, &past), IPC_EINVAL, "all are skipped");
	cr_assert_eq(ipc_wait_any(items, 1, &wrong), IPC_EINVAL);

	items[1] = (struct ipc_wait_item){.handle = stranger, .events = READABLE};
	cr_assert_eq(ipc_wait_any(items, 2, &past), IPC_EINVAL, "not one of ours");
	items[1].handle = fixture_client;
	cr_assert_eq(ipc_wait_any(items, 2, &past), IPC_EINVAL, "a client is no handle");

	cr_assert_eq(items[0].ready, 77, "nothing is written by a failure");
	cr_assert_eq(ipc_wait_any(items, 1, &past), IPC_ETIMEDOUT);
	cr_assert_eq(items[0].ready, 77);

	ipc_watch_consumer_close(consumer);
}

/* M-29 */
Test(wait, handle_without_readiness_is_refused)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_weak *weak = NULL;

	cr_assert_eq(ipc_watch_weaken(&weak, producer), 0);

	cr_assert_eq(look(weak, PRESENT, 0), IPC_EINVAL);

	ipc_watch_weak_close(weak);
	ipc_watch_producer_close(producer);
}

/* M-29 */
Test(wait, handles_of_two_clients_are_refused)
{
	ipc_client *other = domain_connect(&fixture_domain);
	ipc_watch_consumer *consumer = consumer_new("a", 0), *second = NULL;
	struct ipc_wait_item items[2] = {{.handle = consumer, .events = READABLE},
					 {.events = READABLE}};

	cr_assert_eq(ipc_watch_consumer_open_wait(&second, other, "a", NULL, NULL), 0);
	items[1].handle = second;

	cr_assert_eq(ipc_wait_any(items, 2, &past), IPC_EINVAL);

	ipc_watch_consumer_close(second);
	ipc_watch_consumer_close(consumer);
	ipc_client_unref(other);
}

/* M-34 */
Test(wait, events_that_the_role_does_not_have_are_refused)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	ipc_shared *shared = shared_new("s", IPC_SIDE_A);
	const uint32_t all[] = {
		READABLE, IPC_READY_WRITABLE, PRESENT, GONE, IPC_READY_REQUEST, 0x20, 0x40, END,
		0x100,    UINT32_C(1) << 31};

	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); ++i) {
		bool is_of_peers = all[i] == PRESENT || all[i] == GONE;

		cr_assert_eq(look(producer, all[i], 0) == IPC_EINVAL, !is_of_peers, "%#x", all[i]);
		cr_assert_eq(look(shared, all[i], 0) == IPC_EINVAL, !is_of_peers, "%#x", all[i]);
		cr_assert_eq(look(consumer, all[i], 0) == IPC_EINVAL,
			     !is_of_peers && all[i] != READABLE, "%#x", all[i]);
	}
	cr_assert_eq(look(consumer, 0, 0), IPC_EINVAL);
	cr_assert_eq(look(consumer, READABLE | END, 0), IPC_EINVAL);

	ipc_shared_close(shared);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* ---- order ---- */

/* M-29 */
Test(wait, first_ready_item_wins_and_the_others_say_nothing)
{
	ipc_watch_producer *first = producer_new("a"), *second = producer_new("b");
	ipc_watch_consumer *a = consumer_new("a", 0), *b = consumer_new("b", 0);
	struct ipc_wait_item items[4] = {
		{.ready = 9},
		{.handle = a, .events = READABLE, .ready = 9},
		{.handle = b, .events = READABLE, .ready = 9},
		{.handle = b, .events = READABLE | PRESENT, .ready = 9},
	};

	publish(second);
	cr_assert_eq(ipc_wait_any(items, 4, NULL), 2);
	cr_assert_eq(items[2].ready, READABLE);
	cr_assert_eq(items[0].ready | items[1].ready | items[3].ready, 0);

	publish(first);
	cr_assert_eq(ipc_wait_any(items, 4, NULL), 1, "before those after it");
	cr_assert_eq(items[1].ready, READABLE);
	cr_assert_eq(items[0].ready | items[2].ready | items[3].ready, 0);

	cr_assert_eq(ipc_wait_any(items + 3, 1, NULL), 0);
	cr_assert_eq(items[3].ready, READABLE | PRESENT, "all that holds of what was asked");

	ipc_watch_consumer_close(a);
	ipc_watch_consumer_close(b);
	ipc_watch_producer_close(first);
	ipc_watch_producer_close(second);
}

/* M-29, M-76: each of 64 wakes, also those of which the kernel's list has no more */
Test(wait, any_of_64_items_wakes, .timeout = 120)
{
	enum { N = IPC_WAIT_ITEMS_MAX };
	ipc_watch_producer *producers[N];
	struct ipc_wait_item items[N];
	struct timespec deadline;

	for (unsigned i = 0; i < N; ++i) {
		char name[16];

		(void)snprintf(name, sizeof(name), "many/%u", i);
		producers[i] = producer_new(name);
		items[i] =
			(struct ipc_wait_item){.handle = consumer_new(name, 0), .events = READABLE};
	}
	deadline = domain_deadline(20);
	cr_assert_eq(ipc_wait_any(items, N, &deadline), IPC_ETIMEDOUT);

	for (unsigned i = N; i-- > 0;) {
		publish(producers[i]);
		cr_assert_eq(ipc_wait_any(items, N, NULL), (int)i);
	}

	for (unsigned i = 0; i < N; ++i) {
		ipc_watch_consumer_close(items[i].handle);
		ipc_watch_producer_close(producers[i]);
	}
}

/* ---- readable ---- */

/* M-34 */
Test(wait, readable_is_newer_than_the_version_of_the_item)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	uint64_t version = 0;

	cr_assert_eq(look(consumer, READABLE, 0), IPC_ETIMEDOUT);
	publish(producer);
	publish(producer);
	cr_assert_eq(look(consumer, READABLE, 0), READABLE);
	cr_assert_eq(look(consumer, READABLE, 1), READABLE);
	cr_assert_eq(look(consumer, READABLE, 2), IPC_ETIMEDOUT);

	/* What was read does not count, but what the item says. */
	cr_assert_eq(ipc_watch_read_next(consumer, (char[6]){0}, 6, NULL, &version), 0);
	cr_assert_eq(look(consumer, READABLE, 0), READABLE);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-27, M-29: each handle wakes, at once */
Test(wait, publish_wakes_a_sleeper_whichever_handle_it_is)
{
	ipc_watch_producer *producers[2] = {producer_new("a"), producer_new("b")};
	struct actor actor;

	WAKES_TELL();
	WAITER_START(&actor, .n = 3,
		     .item = {CONSUMER("a", .events = READABLE),
			      {0},
			      CONSUMER("b", .events = PRESENT | READABLE, .flags = IPC_STAY)});
	/* Both have producers: the one is asked for no such thing, so the other is what is ready.
	 */
	actor_say(&actor, 0);
	ASSERT_WAITED(&actor, 2, PRESENT);
	waiter_end(&actor);

	WAITER_START(&actor, .n = 3,
		     .item = {CONSUMER("a", .events = READABLE),
			      {0},
			      CONSUMER("b", .events = READABLE)});
	for (unsigned i = 0; i < N_TIMES; ++i) {
		uint64_t began;

		waiter_begin(&actor, i);
		began = clock_now_ns();
		publish(producers[0]);
		ASSERT_WAITED(&actor, 0, READABLE);
		ASSERT_WOKEN(began);
	}

	waiter_begin(&actor, N_TIMES);
	publish(producers[1]);
	ASSERT_WAITED(&actor, 2, READABLE);

	waiter_end(&actor);
	ipc_watch_producer_close(producers[0]);
	ipc_watch_producer_close(producers[1]);
}

/* ---- the other side ---- */

/* M-34, M-22: awaited is not gone */
Test(wait, peers_are_told_while_they_are_there_and_while_they_are_gone)
{
	ipc_watch_consumer *consumer = consumer_new("a", IPC_STAY);
	ipc_shared *a = shared_new("s", IPC_SIDE_A), *b;
	ipc_watch_producer *producer;
	uint64_t id;

	cr_assert_eq(look(consumer, PRESENT | GONE, 0), IPC_ETIMEDOUT);
	cr_assert_eq(look(a, PRESENT | GONE, 0), IPC_ETIMEDOUT);

	producer = producer_new("a");
	b = shared_new("s", IPC_SIDE_B);
	cr_assert_eq(look(consumer, PRESENT | GONE, 0), PRESENT);
	cr_assert_eq(look(producer, PRESENT | GONE, 0), PRESENT);
	cr_assert_eq(look(a, PRESENT | GONE, 0), PRESENT);
	cr_assert_eq(look(b, PRESENT, 0), PRESENT);
	cr_assert_eq(look(b, GONE, 0), IPC_ETIMEDOUT);

	cr_assert_eq(ipc_watch_producer_get_id(producer, &id), 0);
	ipc_watch_producer_close(producer);
	until_not_alive(id);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, NULL), 0);
	cr_assert_eq(look(consumer, PRESENT | GONE, 0), GONE);
	cr_assert_eq(look(consumer, GONE, 0), GONE, "level, not edge");

	ipc_shared_close(b);
	cr_assert_eq(ipc_shared_peers_wait(a, false, NULL), 0);
	cr_assert_eq(look(a, PRESENT | GONE, 0), GONE | END, "without IPC_STAY it is the end");

	ipc_shared_close(a);
	ipc_watch_consumer_close(consumer);
}

/* M-27, M-34 */
Test(wait, coming_and_going_wake_a_sleeper)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	ipc_shared *b = shared_new("s", IPC_SIDE_B);
	struct actor actor;

	WAITER_START(&actor, .n = 2,
		     .item = {PRODUCER("a", .events = PRESENT), SHARED_A("s", .events = GONE)});
	waiter_begin(&actor, 0);
	consumer = consumer_new("a", 0);
	ASSERT_WAITED(&actor, 0, PRESENT);

	ipc_watch_consumer_close(consumer);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, NULL), 0);
	waiter_begin(&actor, 0);
	ipc_shared_close(b);
	ASSERT_WAITED(&actor, 1, GONE | END);

	waiter_end(&actor);
	ipc_watch_producer_close(producer);
}

static void stop(const struct actor *actor)
{
	cr_assert_eq(kill(actor->pid, SIGSTOP), 0);
}

static void go_on(const struct actor *actor)
{
	cr_assert_eq(kill(actor->pid, SIGCONT), 0);
}

/* Gone, and there again, while the waiter cannot look. */
static void go_and_come_again(ipc_watch_producer **producer, const char *name)
{
	ipc_watch_consumer *witness = NULL;

	cr_assert_eq(consume(&witness, name, IPC_STAY), 0);
	ipc_watch_producer_close(*producer);
	cr_assert_eq(ipc_watch_consumer_peers_wait(witness, false, NULL), 0);
	*producer = producer_new(name);
	ipc_watch_consumer_close(witness);
}

/* M-34: told for each step, also if they are there again */
Test(wait, step_to_gone_during_the_wait_is_told)
{
	ipc_watch_producer *producer = producer_new("a");
	struct actor actor;

	WAITER_START(&actor, .n = 1, .item = {CONSUMER("a", .events = GONE, .flags = IPC_STAY)});
	waiter_begin(&actor, 0);
	stop(&actor);
	go_and_come_again(&producer, "a");
	go_on(&actor);
	ASSERT_WAITED(&actor, 0, GONE);

	/* The next wait began later. */
	waiter_begin(&actor, 0);
	ipc_watch_producer_close(producer);
	ASSERT_WAITED(&actor, 0, GONE);

	waiter_end(&actor);
}

/* M-22, M-29 */
Test(wait, step_to_gone_during_the_wait_is_an_end)
{
	ipc_watch_producer *producer = producer_new("a");
	struct actor actor;

	WAITER_START(&actor, .n = 1, .item = {CONSUMER("a", .events = READABLE)});
	waiter_begin(&actor, 0);
	stop(&actor);
	go_and_come_again(&producer, "a");
	go_on(&actor);

	ASSERT_WAITED(&actor, 0, END);
	waiter_end(&actor);
	ipc_watch_producer_close(producer);
}

/* M-22, M-29: a handle with IPC_STAY is not ready by absence */
Test(wait, stay_sleeps_on_until_somebody_comes_again)
{
	ipc_watch_producer *producer = producer_new("a");
	struct actor actor;

	WAITER_START(&actor, .n = 1,
		     .item = {CONSUMER("a", .events = READABLE, .flags = IPC_STAY)});
	waiter_begin(&actor, 0);
	go_and_come_again(&producer, "a");
	actor_until_asleep(&actor);

	publish(producer);
	ASSERT_WAITED(&actor, 0, READABLE);
	waiter_end(&actor);
	ipc_watch_producer_close(producer);
}
