/* SPDX-License-Identifier: MIT */
/*
 * Groups while subscribers and other pushers are killed at random, and the broker's worker, too.
 *
 *	IPC_STRESS_ROUNDS     how many, default 600
 *
 * What must hold: a queue whose open returned before a push began gets the item, once; items of one
 * pusher come in their order; and at the end nothing is left of the dead.
 */
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/failure.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

/* Who pushes what: each has a class of its own, so that a flood takes nobody else's room. */
enum { CLASS_FLOOD = 0, CLASS_ASKED = 1 };
enum { N_SUBSCRIBERS = 3, N_FLOODERS = 2, N_DYING = N_SUBSCRIBERS + N_FLOODERS };

static struct domain domain;
static struct leaks leaks;
static struct actor dying[N_DYING];
static unsigned seed;

static void setup(void)
{
	seed = (unsigned)clock_now_ns();
	cr_log_info("seed %u", seed);
	leaks_begin(&leaks);
	domain_start(&domain, NULL);
}

static void teardown(void)
{
	domain_stop(&domain);
	leaks_check(&leaks);
}

TestSuite(group_stress, .init = setup, .fini = teardown, .timeout = 600);

static unsigned dice(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

static ipc_queue_consumer *subscribe(ipc_client *client, const char *name)
{
	struct timespec deadline = domain_deadline(30000);
	ipc_queue_consumer *consumer = NULL;
	int r;

	r = ipc_queue_consumer_open_wait(&consumer, client, name,
					 IPC_QUEUE_OPTIONS(.flags = IPC_CREATE, .items_max = 16,
							   .bytes_max = 256, .item_size_max = 16),
					 &deadline);
	if (r < 0)
		failure("%s: %s", name, ipc_error_name(r));
	return consumer;
}

static ipc_group *group_open(ipc_client *client)
{
	struct timespec deadline = domain_deadline(30000);
	ipc_group *group = NULL;
	int r = ipc_group_open_wait(&group, client, "g/*", &deadline);

	if (r < 0)
		failure("group: %s", ipc_error_name(r));
	return group;
}

/* ---- those who are killed ---- */

/*
 * Queues that come, take a little, and go; several processes share their names.  They stay for a
 * while: of a pusher that does not push the broker keeps no more than its socket has room for.
 */
static void run_subscriber(struct actor *self, void *arg)
{
	ipc_client *client = domain_connect(&domain);
	unsigned round = (unsigned)getpid();
	char name[32];

	(void)self;
	(void)arg;
	for (;; ++round) {
		struct timespec deadline = domain_deadline(40 + round % 40);
		ipc_queue_consumer *consumer;
		struct ipc_queue_item item;

		snprintf(name, sizeof(name), "g/%u", round % 5);
		consumer = subscribe(client, name);
		for (unsigned i = 0; ipc_queue_take_wait(consumer, &item, &deadline) == 0; ++i)
			if (i % 8)
				(void)!ipc_queue_ack(consumer, &item);
		ipc_queue_consumer_close(consumer);
	}
}

static void run_flooder(struct actor *self, void *arg)
{
	ipc_client *client = domain_connect(&domain);
	struct ipc_group_result result = {.size = sizeof(result)};

	(void)self;
	(void)arg;
	for (uint32_t number = 0;;) {
		ipc_group *group = group_open(client);

		for (unsigned i = 0; i < 200; ++i, ++number) {
			int r = ipc_group_push(group, CLASS_FLOOD, &number, sizeof(number),
					       IPC_FULL_DROP, &result);

			if (r < 0)
				failure("push: %s", ipc_error_name(r));
			sched_yield();
		}
		ipc_group_close(group);
	}
}

static void dying_start(unsigned i)
{
	actor_start(&dying[i], i < N_SUBSCRIBERS ? run_subscriber : run_flooder, NULL);
}

/* ---- those who live ---- */

/* Pushes what it is told, and says that it did. */
static void run_pusher(struct actor *self, void *arg)
{
	ipc_client *client = domain_connect(&domain);
	ipc_group *group = group_open(client);
	struct ipc_group_result result = {.size = sizeof(result)};

	(void)arg;
	for (;;) {
		uint32_t number = (uint32_t)actor_hear(self);

		if (number == UINT32_MAX)
			break;
		actor_say(self, ipc_group_push(group, CLASS_ASKED, &number, sizeof(number),
					       IPC_FULL_FAIL, &result));
	}
	ipc_group_close(group);
	ipc_client_unref(client);
}

/* The items of the pusher that is told: n of them from `first` on, in their order. */
static void expect_items(ipc_queue_consumer *consumer, uint32_t first, unsigned n)
{
	struct ipc_queue_item item;
	unsigned n_seen = 0;

	while (ipc_queue_take(consumer, &item) == 0) {
		if (item.priority == CLASS_ASKED) {
			uint32_t number = *(const uint32_t *)item.data;

			cr_assert_eq(number, first + n_seen, "%u, not %u, after %u of %u", number,
				     first + n_seen, n_seen, n);
			++n_seen;
		}
		cr_assert_eq(ipc_queue_ack(consumer, &item), 0);
	}
	cr_assert_eq(n_seen, n, "from %u on: %u of %u", first, n_seen, n);
}

static unsigned of_environment(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* M-6, M-25 */
Test(group_stress, what_is_open_before_a_push_gets_it_whoever_dies)
{
	unsigned n_rounds = of_environment("IPC_STRESS_ROUNDS", 600);
	ipc_client *client = domain_connect(&domain);
	struct actor pusher;
	uint32_t number = 0;
	char name[32];

	actor_start(&pusher, run_pusher, NULL);
	for (unsigned i = 0; i < N_DYING; ++i)
		dying_start(i);

	for (unsigned round = 0; round < n_rounds; ++round) {
		ipc_queue_consumer *consumer;
		unsigned n = 1 + dice(8), victim = dice(N_DYING);
		uint32_t first = number;

		snprintf(name, sizeof(name), "g/lives/%u", round % 3);
		consumer = subscribe(client, name);
		for (unsigned i = 0; i < n; ++i) {
			actor_say(&pusher, number++);
			cr_assert_eq(actor_hear(&pusher), 0);
		}
		expect_items(consumer, first, n);
		ipc_queue_consumer_close(consumer);

		actor_kill(&dying[victim]);
		dying_start(victim);
		if (dice(20) == 0)
			domain_kill_worker(&domain);
	}

	for (unsigned i = 0; i < N_DYING; ++i)
		actor_kill(&dying[i]);
	actor_say(&pusher, UINT32_MAX);
	cr_assert_eq(actor_join(&pusher), 0);
	ipc_client_unref(client);
}
