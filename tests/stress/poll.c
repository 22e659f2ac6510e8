/* SPDX-License-Identifier: MIT */
/*
 * Publishers of four watches, and one who follows all of them on its client's descriptor alone.
 * The publishers are killed at random, the one who follows and the broker's worker now and then.
 *
 *	IPC_STRESS_KILLS   how many, default 2000
 *
 * What must hold, after each death: what its victim had committed is told, at once, though nobody
 * publishes anything else on that watch.  Nobody looks again after a slice here, so a ring that is
 * lost is a value that is never told.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <ipc/ipc.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"

enum { N = 4, KILLS_DEFAULT = 2000, FOLLOWER_EVERY = 50, WORKER_EVERY = 100 };

#define LOST_NS (60 * NS_PER_S)

struct board {
	_Atomic uint32_t seen[N];  /* versions, by the one who follows */
	_Atomic uint32_t works[N]; /* has published since it was started */
	_Atomic uint64_t n_told;
};

static struct board *board;
static ipc_watch_consumer *own[N];     /* of the test */
static ipc_watch_producer *keepers[N]; /* who never publish: the channels stay */
static struct actor publishers[N], follower;

static const char *name_of(unsigned i)
{
	static char names[N][16];

	(void)snprintf(names[i], sizeof(names[i]), "stress/poll%u", i);
	return names[i];
}

/* ---- the actors ---- */

static void publish(struct actor *self, void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer;

	(void)self;
	srand((unsigned)clock_now_ns());
	if (ipc_watch_producer_open_wait(&producer, domain_connect(&fixture_domain), name_of(i),
					 NULL, &deadline) < 0)
		process_end(1);
	for (uint64_t n = 0;; ++n) {
		unsigned random = (unsigned)rand();

		if (ipc_watch_publish(producer, &n, sizeof(n)) < 0)
			process_end(2);
		atomic_store(&board->works[i], 1);

		/* Long enough, now and then, for everybody to be asleep. */
		for (unsigned pause = random % 8 == 0 ? random % 200 : 0; pause > 0; --pause)
			(void)sched_yield();
	}
}

static void follow(struct actor *self, void *arg)
{
	ipc_client *client = domain_connect(&fixture_domain);
	struct pollfd poll_fd = {.fd = ipc_client_get_fd(client), .events = POLLIN};
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_poll_event event;
	ipc_watch_consumer *consumers[N];

	(void)arg;
	for (uintptr_t i = 0; i < N; ++i)
		if (ipc_watch_consumer_open_wait(&consumers[i], client, name_of((unsigned)i), NULL,
						 &deadline) < 0 ||
		    ipc_poll_add(client, consumers[i], IPC_READY_READABLE, (void *)i) < 0)
			process_end(1);
	actor_say(self, 0);
	for (;;) {
		(void)!poll(&poll_fd, 1, -1);
		while (ipc_poll_next(client, &event) == 0) {
			unsigned i = (unsigned)(uintptr_t)event.userdata;
			uint64_t value, version = 0;

			if (ipc_watch_read(event.handle, &value, sizeof(value), NULL, &version) < 0)
				process_end(2);
			atomic_store(&board->seen[i], (uint32_t)version);
			atomic_fetch_add(&board->n_told, 1);
			futex_wake_all(&board->seen[i]);
		}
	}
}

static void follower_start(void)
{
	actor_start(&follower, follow, NULL);
	cr_assert_eq(actor_hear(&follower), 0);
}

static void publisher_start(unsigned i)
{
	atomic_store(&board->works[i], 0);
	actor_start(&publishers[i], publish, (void *)(uintptr_t)i);
}

/* ---- the scene ---- */

static void setup(void)
{
	fixture_setup();
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(board, MAP_FAILED);
	for (unsigned i = 0; i < N; ++i) {
		keepers[i] = producer_new(name_of(i));
		cr_assert_eq(consume(&own[i], name_of(i), 0), 0);
	}
	follower_start();
	for (unsigned i = 0; i < N; ++i)
		publisher_start(i);
}

static void teardown(void)
{
	for (unsigned i = 0; i < N; ++i) {
		actor_kill(&publishers[i]);
		ipc_watch_consumer_close(own[i]);
		ipc_watch_producer_close(keepers[i]);
	}
	actor_kill(&follower);
	munmap(board, sizeof(*board));
	fixture_teardown();
}

TestSuite(stress_poll, .init = setup, .fini = teardown, .timeout = 600);

static void until_it_works(unsigned i)
{
	uint64_t limit = clock_after_ns(LOST_NS);

	while (!atomic_load(&board->works[i])) {
		cr_assert_lt(clock_now_ns(), limit, "publisher %u does not work", i);
		(void)sched_yield();
	}
}

static void expect_told(unsigned i, unsigned n)
{
	uint64_t limit = clock_after_ns(LOST_NS), value, version = 0;
	uint32_t seen;

	cr_assert_eq(ipc_watch_read(own[i], &value, sizeof(value), NULL, &version), 0);
	while ((seen = atomic_load(&board->seen[i])) < version) {
		struct futex_word sleep = {.word = &board->seen[i], .expected = seen};

		cr_assert_lt(clock_now_ns(), limit, "death %u: version %lu of %u is never told", n,
			     version, i);
		futex_sleep(&sleep, 1, limit);
	}
}

/* M-25, M-30, M-31 */
Test(stress_poll, what_was_committed_is_told)
{
	const char *wanted = getenv("IPC_STRESS_KILLS");
	unsigned n_kills = wanted ? (unsigned)strtoul(wanted, NULL, 10) : KILLS_DEFAULT;

	srand(1);
	for (unsigned n = 1; n <= n_kills; ++n) {
		unsigned i = (unsigned)rand() % N;

		until_it_works(i);
		for (unsigned pause = (unsigned)rand() % 100; pause > 0; --pause)
			(void)sched_yield();
		actor_kill(&publishers[i]);
		expect_told(i, n);
		publisher_start(i);

		if (n % FOLLOWER_EVERY == 0) {
			actor_kill(&follower);
			follower_start();
		}
		if (n % WORKER_EVERY == 0)
			domain_kill_worker(&fixture_domain);
	}
	cr_log_info("%u kills; %lu told", n_kills, atomic_load(&board->n_told));
	cr_assert_gt(atomic_load(&board->n_told), n_kills);
}
