/* SPDX-License-Identifier: MIT */

/*
 * Groups while queues come and go: many of them, by other processes, under threads, while the
 * pusher does not read, over the broker's deaths.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "libipc/client/client.h"
#include "tests/client/group_scene.h"
#include "tests/support/mortal.h"

TestSuite(group_flow, .init = fixture_setup, .fini = fixture_teardown, .timeout = 100);

static void name_make(char name[32], const char *stem, unsigned i)
{
	snprintf(name, 32, "%s/%u", stem, i);
}

/* ---- many ---- */

enum { N_MANY = 300 };

/* more than fits into a socket, with more descriptors than a process may have. */
Test(group_flow, hundreds_are_there_when_the_open_returns)
{
	static ipc_queue_consumer *consumer[N_MANY];
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_group *group;
	char name[32];

	for (unsigned i = 0; i < N_MANY; ++i) {
		name_make(name, "m", i);
		consumer[i] = small_new(name);
	}

	group = group_new_of(own, "m/*");
	EXPECT(ipc_group_count(group), N_MANY);
	EXPECT_RESULT(group_push(group, 0, 5, IPC_FULL_FAIL), N_MANY);
	for (unsigned i = 0; i < N_MANY; ++i)
		EXPECT(eat(consumer[i]), 5);

	ipc_group_close(group);
	ipc_client_unref(own);
	for (unsigned i = 0; i < N_MANY; ++i)
		ipc_queue_consumer_close(consumer[i]);
}

/* queues of a client that neither pushes nor waits come when it does. */
Test(group_flow, hundreds_that_come_without_a_push_are_there_at_the_next_ones)
{
	static ipc_queue_consumer *consumer[N_MANY];
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_group *group = group_new_of(own, "m/*");
	char name[32];

	for (unsigned i = 0; i < N_MANY; ++i) {
		name_make(name, "m", i);
		consumer[i] = small_new(name);
	}

	until_count(group, N_MANY);
	EXPECT_RESULT(group_push(group, 0, 5, IPC_FULL_FAIL), N_MANY);

	ipc_group_close(group);
	ipc_client_unref(own);
	for (unsigned i = 0; i < N_MANY; ++i)
		ipc_queue_consumer_close(consumer[i]);
}

/* those that come and go while nobody pushes are given back, and are told as gone. */
Test(group_flow, queues_that_come_and_go_do_not_heap_up)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_group *group = group_new_of(own, "m/*");
	unsigned n_left = 0;
	char name[32];

	for (unsigned i = 0; i < N_MANY; ++i) {
		name_make(name, "m", i);
		ipc_queue_consumer_close(small_new(name));

		/* Some thread of the client looks at its socket now and then. */
		if (i % 8 == 0)
			(void)connection_check(&own->connection);
	}

	/* What is left are ended queues that nobody looked at since. */
	for (unsigned i = 0; i < LIVENESS_CHANNELS_MAX; ++i)
		n_left += side_count(liveness_side(own->table, i, 0)) > 0;
	cr_expect_lt(n_left, 64);

	until_count(group, 0);
	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 0, 0, 0, 0, N_MANY, 0);
	ipc_group_close(group);
	ipc_client_unref(own);
}

/* ---- what cannot be mapped ---- */

static void push_without_descriptors(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	struct ipc_group_result result = {.size = sizeof(result)};
	struct rlimit limit, none = {0};
	ipc_group *group = NULL;

	actor_say(self, ipc_group_open_wait(&group, own, arg, NULL));
	(void)actor_hear(self);
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	none.rlim_max = limit.rlim_max;
	for (unsigned i = 0; i < 2; ++i) {
		(void)setrlimit(RLIMIT_NOFILE, i == 0 ? &none : &limit);
		if (ipc_group_push(group, 0, "x", 1, IPC_FULL_FAIL, &result) < 0)
			return;
		actor_say(self, result.queued);
		actor_say(self, result.gone);
		actor_say(self, ipc_group_count(group));
	}
	(void)actor_hear(self);
	ipc_group_close(group);
	ipc_client_unref(own);
}

/* it is told as gone once; the pusher goes on, and the queue has no producer there. */
Test(group_flow, a_queue_for_which_no_descriptor_is_left_is_left_out)
{
	ipc_queue_consumer *consumer;
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct actor actor;

	actor_start(&actor, push_without_descriptors, "g/*");
	EXPECT(actor_hear(&actor), 0);
	consumer = small_new("g/a");
	EXPECT(ipc_queue_consumer_peers(consumer), 1);
	actor_say(&actor, 0);
	for (unsigned i = 0; i < 2; ++i) {
		EXPECT(actor_hear(&actor), 0);
		EXPECT(actor_hear(&actor), i == 0);
		EXPECT(actor_hear(&actor), 0);
	}
	EXPECT(ipc_queue_consumer_peers_wait(consumer, false, &deadline), 0);
	actor_say(&actor, 0);
	EXPECT(actor_join(&actor), 0);
	ipc_queue_consumer_close(consumer);
}

/* ---- other threads of the client ---- */

static _Atomic uint32_t is_done;

static void *await_watch(void *arg)
{
	ipc_watch_consumer *consumer = NULL;
	int r = ipc_watch_consumer_open_wait(&consumer, fixture_client, arg,
					     IPC_WATCH_OPTIONS(.flags = IPC_AWAIT), NULL);

	ipc_watch_consumer_close(consumer);
	atomic_store(&is_done, 1);
	return (void *)(intptr_t)r;
}

/* M-20, Q-17: the push takes messages that the sleeping reader would have taken; and the reader's
 * own, which it is then woken for. */
Test(group_flow, a_push_does_not_wait_for_the_thread_that_reads)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_group *group = group_new("g/*");

	for (unsigned i = 0; i < 200; ++i) {
		struct ipc_queue_options options = {
			.size = sizeof(options), .flags = IPC_CREATE, SMALL};
		struct ipc_watch_options watch_options = {.size = sizeof(watch_options),
							  .flags = IPC_CREATE};
		ipc_queue_consumer *consumer = NULL;
		ipc_watch_producer *producer = NULL;
		pthread_t thread;
		uint64_t begin_ns;
		void *result;

		atomic_store(&is_done, 0);
		cr_assert_eq(pthread_create(&thread, NULL, await_watch, "watch"), 0);
		EXPECT(consumer_open(&consumer, own, "g/a", options), 0);
		cr_expect_eq(group_push(group, 0, i, IPC_FULL_FAIL).queued, 1);
		EXPECT(eat(consumer), i);

		begin_ns = clock_now_ns();
		EXPECT(ipc_watch_producer_open_wait(&producer, own, "watch", &watch_options, NULL),
		       0);
		ipc_queue_consumer_close(consumer);
		while (!atomic_load(&is_done)) {
			/* Each one makes the next push look into the socket. */
			consumer = NULL;
			EXPECT(consumer_open(&consumer, own, "g/b", options), 0);
			(void)group_push(group, 0, i, IPC_FULL_FAIL);
			ipc_queue_consumer_close(consumer);
			cr_assert_lt(clock_now_ns() - begin_ns, 30 * NS_PER_S);
		}
		cr_assert_eq(pthread_join(thread, &result), 0);
		EXPECT((intptr_t)result, 0);
		ipc_watch_producer_close(producer);
		(void)group_push(group, 0, i, IPC_FULL_FAIL);
	}

	ipc_group_close(group);
	ipc_client_unref(own);
}

static _Atomic uint32_t n_queued, n_errors;

static void *push_all(void *arg)
{
	struct ipc_group_result result = {.size = sizeof(result)};
	uint32_t number = 1;

	while (!atomic_load(&is_done)) {
		if (ipc_group_push(arg, 0, &number, sizeof(number), IPC_FULL_DROP, &result) < 0)
			atomic_fetch_add(&n_errors, 1);
		atomic_fetch_add(&n_queued, result.queued);
	}
	return NULL;
}

/* M-42, Q-9 */
Test(group_flow, threads_push_while_queues_come_and_go)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_group *group = group_new("g/*");
	uint64_t n_taken = 0;
	pthread_t threads[3];

	for (unsigned i = 0; i < N_ELEMENTS(threads); ++i)
		cr_assert_eq(pthread_create(&threads[i], NULL, push_all, group), 0);

	for (unsigned i = 0; i < 300; ++i) {
		ipc_queue_consumer *consumer = NULL;
		char name[32];

		name_make(name, "g", i % 3);
		EXPECT(consumer_open(&consumer, own, name,
				     (struct ipc_queue_options){SMALL, .flags = IPC_CREATE}),
		       0);
		EXPECT(eat_in(consumer, WAIT_MS), 1);
		++n_taken;
		ipc_queue_consumer_close(consumer);
	}

	atomic_store(&is_done, 1);
	for (unsigned i = 0; i < N_ELEMENTS(threads); ++i)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_expect_eq(atomic_load(&n_errors), 0);
	cr_expect_geq(atomic_load(&n_queued), n_taken);
	(void)group_push(group, 0, 1, IPC_FULL_FAIL);
	until_count(group, 0);
	ipc_group_close(group);
	ipc_client_unref(own);
}

static unsigned char large[1 << 20];

static void *push_once(void *arg)
{
	struct ipc_group_result result = {.size = sizeof(result)};
	int r = ipc_group_push(arg, 0, large, sizeof(large), IPC_FULL_FAIL, &result);

	return (void *)(intptr_t)(r < 0 ? r : (int)result.queued);
}

/* The first of them when the push has come to it, and the others whether it does or not. */
static void close_inside(ipc_group *group, ipc_queue_consumer *const consumer[8])
{
	struct ipc_queue_item item;
	pthread_t thread;
	void *result;

	cr_assert_eq(pthread_create(&thread, NULL, push_once, group), 0);
	EXPECT(ipc_queue_take_wait(consumer[0], &item, NULL), 0);
	ipc_group_close(group);
	cr_assert_eq(pthread_join(thread, &result), 0);
	cr_expect_geq((intptr_t)result, 1);

	EXPECT(ipc_queue_ack(consumer[0], &item), 0);
	for (unsigned i = 1; i < 8; ++i)
		if (ipc_queue_take(consumer[i], &item) == 0)
			EXPECT(ipc_queue_ack(consumer[i], &item), 0);
}

/* M-44: what the push is at stays until it leaves. */
Test(group_flow, close_does_not_wait_for_a_push)
{
	ipc_queue_consumer *consumer[8];
	char name[32];

	for (unsigned i = 0; i < N_ELEMENTS(consumer); ++i) {
		name_make(name, "g", i);
		consumer[i] = queue_consumer_new(
			name, (struct ipc_queue_options){.items_max = 2,
							 .priorities = 1,
							 .flags = IPC_STAY,
							 .bytes_max = 2 * sizeof(large),
							 .item_size_max = sizeof(large)});
	}

	for (unsigned i = 0; i < 50; ++i) {
		struct timespec deadline = domain_deadline(WAIT_MS);

		close_inside(group_new("g/*"), consumer);
		for (unsigned n = 0; n < N_ELEMENTS(consumer); ++n)
			EXPECT(ipc_queue_consumer_peers_wait(consumer[n], false, &deadline), 0);
	}

	for (unsigned i = 0; i < N_ELEMENTS(consumer); ++i)
		ipc_queue_consumer_close(consumer[i]);
}

/* ---- the broker dies ---- */

/* M-6, M-31, Q-17 */
Test(group_flow, it_goes_on_over_the_brokers_deaths)
{
	ipc_queue_consumer *a = small_new("g/a"), *b = NULL;
	ipc_group *group = group_new("g/*");

	for (uint32_t i = 0; i < 3; ++i) {
		domain_kill_worker(&fixture_domain);
		EXPECT_RESULT(group_push(group, 0, i, IPC_FULL_FAIL), 1);
		b = small_new("g/b");
		EXPECT_RESULT(group_push(group, 0, 10 + i, IPC_FULL_FAIL), 2);
		EXPECT(eat(a), i);
		EXPECT(eat(a), 10 + i);
		EXPECT(eat(b), 10 + i);
		ipc_queue_consumer_close(b);
		until_count(group, 1);
		EXPECT_RESULT(group_push(group, 0, 20, IPC_FULL_FAIL), 1, 0, 0, 0, 1, 0);
		EXPECT(eat(a), 20);
	}

	ipc_group_close(group);
	ipc_queue_consumer_close(a);
}

/* A worker that dies sooner does not come as far as a first answer. */
enum { POINT_FIRST = 30, POINT_LAST = 110 };

/* Q-17, M-31: what is said twice is there once. */
Test(group_flow, each_queue_is_there_once_wherever_the_worker_dies)
{
	char wish[16];

	for (unsigned point = POINT_FIRST; point <= POINT_LAST; ++point) {
		ipc_queue_consumer *a, *b;
		ipc_client *own;
		ipc_group *group;

		domain_stop(&fixture_domain);
		snprintf(wish, sizeof(wish), "%u", point);
		domain_start_mortal(&fixture_domain, wish);
		unsetenv("IPC_TEST_BROKER");

		ipc_client_unref(fixture_client);
		fixture_client = domain_connect(&fixture_domain);
		own = domain_connect(&fixture_domain);
		a = small_new("g/a");
		group = group_new_of(own, "g/*");
		b = small_new("g/b");
		EXPECT_RESULT(group_push(group, 0, point, IPC_FULL_FAIL), 2);
		EXPECT(ipc_group_count(group), 2);
		EXPECT(eat(a), point);
		EXPECT(eat(a), IPC_EAGAIN);
		EXPECT(eat(b), point);
		EXPECT(eat(b), IPC_EAGAIN);

		ipc_queue_consumer_close(b);
		until_count(group, 1);
		EXPECT_RESULT(group_push(group, 0, point, IPC_FULL_FAIL), 1, 0, 0, 0, 1, 0);
		ipc_group_close(group);
		ipc_queue_consumer_close(a);
		ipc_client_unref(own);
		domain_kill(&fixture_domain);
		domain_start(&fixture_domain, NULL);
	}

	ipc_client_unref(fixture_client);
	fixture_client = domain_connect(&fixture_domain);
}

/* M-6: data goes on without any broker. */
Test(group_flow, it_pushes_without_a_broker)
{
	ipc_queue_consumer *a = small_new("g/a");
	ipc_group *group = group_new("g/*"), *none = group_new("none/*");

	domain_kill(&fixture_domain);
	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 1);
	EXPECT_RESULT(group_push(none, 0, 1, IPC_FULL_FAIL), 0);
	EXPECT(ipc_group_count(group), 1);
	EXPECT(eat(a), 1);
	ipc_group_close(group);
	ipc_group_close(none);
	ipc_queue_consumer_close(a);

	/* The teardown wants one that ends. */
	domain_start(&fixture_domain, NULL);
}
