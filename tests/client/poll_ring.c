/* SPDX-License-Identifier: MIT */
/*
 * How the descriptor comes to be readable: who notifies rings, by the broker at first, then by
 * itself, and the broker's deaths are not noticed.
 */
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tests/client/poll_scene.h"

TestSuite(poll_ring, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* The consumer is told, and reads. */
static void until_told(ipc_watch_consumer *consumer)
{
	until_next(consumer, READABLE);
	read_it(consumer);
	ASSERT_NOTHING();
}

/* M-4, M-30: after the first ring the broker is not asked any more */
Test(poll_ring, only_the_first_ring_goes_through_the_broker)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct actor publisher;
	pid_t worker;

	publisher_start(&publisher, "a");
	add(consumer, READABLE);
	until_quiet();
	publisher_publish(&publisher);
	until_told(consumer);
	until_quiet();

	/* A broker that is asked for a ring does not answer any more. */
	worker = domain_worker(&fixture_domain);
	cr_assert_eq(kill(worker, SIGSTOP), 0);
	for (unsigned i = 0; i < 5; ++i) {
		publisher_publish(&publisher);
		until_readable();
		until_told(consumer);
	}
	cr_assert_eq(kill(worker, SIGCONT), 0);

	publisher_end(&publisher);
	ipc_watch_consumer_close(consumer);
}

/* M-30: who comes later is rung, too; who has gone is not missed */
Test(poll_ring, all_clients_of_a_channel_are_rung)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_consumer *consumer = consumer_new("a", 0), *later = NULL;
	ipc_client *other = domain_connect(&fixture_domain);
	struct ipc_poll_event event;
	struct actor publisher;

	publisher_start(&publisher, "a");
	add(consumer, READABLE);
	until_quiet();
	publisher_publish(&publisher);
	until_told(consumer);

	for (unsigned round = 0; round < 3; ++round) {
		struct pollfd poll_fd = {.fd = ipc_client_get_fd(other), .events = POLLIN};

		cr_assert_eq(ipc_watch_consumer_open_wait(&later, other, "a", NULL, &deadline), 0);
		cr_assert_eq(ipc_poll_add(other, later, READABLE, NULL), 0);
		for (unsigned i = 0; i < 3; ++i) {
			while (ipc_poll_next(other, &event) == 0)
				read_it(later);
			publisher_publish(&publisher);
			until_told(consumer);
			cr_assert_eq(poll(&poll_fd, 1, WAIT_MS), 1);
			cr_assert_eq(ipc_poll_next(other, &event), 0);
		}
		later = ipc_watch_consumer_close(later);
		publisher_publish(&publisher);
		until_told(consumer);
	}

	publisher_end(&publisher);
	ipc_watch_consumer_close(consumer);
	ipc_client_unref(other);
}

/* ---- what it costs ---- */

struct silence {
	int pipe[2];
};

/* Publishes where every system call but read, write and exit kills it. */
static void publish_in_silence(struct actor *self, void *arg)
{
	const struct silence *silence = arg;
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer;
	char c = 'x';
	bool is_good = true;

	if (ipc_watch_producer_open_wait(&producer, domain_connect(&fixture_domain), "a", NULL,
					 &deadline) < 0)
		process_end(1);
	for (unsigned i = 0; i < 50; ++i)
		is_good &= ipc_watch_publish(producer, "value", 6) == 0;
	actor_say(self, 0);
	(void)actor_hear(self);

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0)
		process_end(2);
	for (unsigned i = 0; i < 1000; ++i)
		is_good &= ipc_watch_publish(producer, "value", 6) == 0;
	is_good &= write(silence->pipe[1], &c, 1) == 1;
	(void)syscall(SYS_exit, is_good ? 0 : 3);
}

/* M-27, M-30 */
Test(poll_ring, sender_makes_no_system_call_while_nobody_sleeps)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct silence silence;
	struct actor publisher;
	char c = 0;

	cr_assert_eq(pipe(silence.pipe), 0);
	add(consumer, READABLE);
	actor_start(&publisher, publish_in_silence, &silence);
	cr_assert_eq(actor_hear(&publisher), 0);

	/* Awake: there was something, and IPC_EAGAIN has not been said since. */
	until_next(consumer, READABLE);
	read_it(consumer);
	actor_say(&publisher, 0);
	cr_assert_eq(read(silence.pipe[0], &c, 1), 1);
	cr_assert_eq(actor_join(&publisher), 0);

	ASSERT_NEXT(consumer, READABLE);
	close(silence.pipe[0]);
	close(silence.pipe[1]);
	ipc_watch_consumer_close(consumer);
}

static uint32_t n_looks(void)
{
	return atomic_load(&fixture_client->table->attention[fixture_client->slot].n_looks);
}

/* M-4, M-27: one ring for any number of changes, and none where nobody is armed */
Test(poll_ring, broker_hears_nothing_that_it_need_not)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct actor publisher;
	uint32_t before;

	publisher_start(&publisher, "a");
	until_quiet();
	before = n_looks();
	publisher_publish(&publisher);
	(void)exists("none");
	cr_assert_eq(n_looks(), before, "nobody is armed");

	add(consumer, READABLE);
	until_next(consumer, READABLE);
	read_it(consumer);
	ASSERT_NOTHING();
	for (unsigned i = 0; i < 5; ++i) {
		publisher_publish(&publisher);
		publisher_publish(&publisher);
		until_told(consumer);

		/* The publisher has been sent the bell. */
		(void)exists("none");
	}
	cr_assert_eq(n_looks(), before + 1, "%u rings by the broker", n_looks() - before);

	publisher_end(&publisher);
	ipc_watch_consumer_close(consumer);
}

/* ---- loops ---- */

/* M-30: in an edge-triggered epoll each change after IPC_EAGAIN is an edge */
Test(poll_ring, edge_triggered_loops_miss_nothing)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct actor publisher;

	publisher_start(&publisher, "a");
	add(consumer, READABLE);
	cr_assert_eq(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, the_fd(), &event), 0);
	for (unsigned i = 0; i < 200; ++i) {
		unsigned n = 0;

		while (ipc_poll_next(fixture_client, &(struct ipc_poll_event){0}) == 0)
			read_it(consumer);
		publisher_publish(&publisher);
		while (n == 0) {
			struct ipc_poll_event next;

			cr_assert_eq(epoll_wait(epoll_fd, &event, 1, WAIT_MS), 1, "round %u", i);
			while (ipc_poll_next(fixture_client, &next) == 0) {
				read_it(consumer);
				++n;
			}
		}
	}

	close(epoll_fd);
	publisher_end(&publisher);
	ipc_watch_consumer_close(consumer);
}

/* ---- deaths and other troubles of the broker ---- */

/* M-6, M-31 */
Test(poll_ring, worker_may_die_at_any_time, .timeout = 120)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct actor publisher;

	publisher_start(&publisher, "a");
	add(consumer, READABLE);
	for (unsigned i = 0; i < 4; ++i) {
		ASSERT_NOTHING();
		domain_kill_worker(&fixture_domain);
		publisher_publish(&publisher);
		until_told(consumer);
		publisher_publish(&publisher);
		until_told(consumer);
	}

	/* The end of a client is told by a worker that did not know it. */
	cr_assert_eq(ipc_poll_change(fixture_client, consumer, GONE, consumer), 0);
	until_quiet();
	domain_kill_worker(&fixture_domain);
	actor_kill(&publisher);
	until_next(consumer, GONE | END);
	ipc_watch_consumer_close(consumer);
}

/* M-6, M-30: data goes on flowing; then the end of the domain is told */
Test(poll_ring, end_of_the_domain_is_told_after_the_grace)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_consumer *consumer = NULL;
	struct ipc_poll_event event;
	struct actor publisher;
	ipc_client *own;
	int r;

	cr_assert_eq(ipc_client_connect_wait(&own,
					     IPC_CLIENT_OPTIONS(.address = fixture_domain.address,
								.grace_ns = NS_PER_S),
					     &deadline),
		     0);
	publisher_start(&publisher, "a");
	cr_assert_eq(ipc_watch_consumer_open_wait(&consumer, own, "a", NULL, &deadline), 0);
	cr_assert_eq(ipc_poll_add(own, consumer, READABLE, NULL), 0);
	cr_assert_eq(ipc_poll_next(own, &event), IPC_EAGAIN);
	domain_kill(&fixture_domain);

	/* There is nobody who could give the publisher a bell. */
	publisher_publish(&publisher);
	do {
		struct pollfd poll_fd = {.fd = ipc_client_get_fd(own), .events = POLLIN};

		cr_assert_eq(poll(&poll_fd, 1, WAIT_MS), 1);
		r = ipc_poll_next(own, &event);
	} while (r == IPC_EAGAIN);
	cr_assert_eq(r, 0);
	read_it(consumer);

	do {
		struct pollfd poll_fd = {.fd = ipc_client_get_fd(own), .events = POLLIN};

		cr_assert_eq(poll(&poll_fd, 1, WAIT_MS), 1);
		r = ipc_poll_next(own, &event);
	} while (r == IPC_EAGAIN);
	cr_assert_eq(r, IPC_ECONNRESET, "%s", ipc_error_name(r));
	cr_assert(is_readable(ipc_client_get_fd(own)), "it stays so");
	publisher_publish(&publisher);
	cr_assert_eq(ipc_poll_next(own, &event), 0, "what is there is told first");

	publisher_end(&publisher);
	ipc_watch_consumer_close(consumer);
	ipc_client_unref(own);
	ipc_client_unref(fixture_client);
	domain_start(&fixture_domain, NULL);
	fixture_client = domain_connect(&fixture_domain);
}

/* ---- last words ---- */

/* More than the broker does at a time for one client: the rest it hears as last words. */
#define N_CLOSES 40

static void publish_close_and_die(struct actor *self, void *arg)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_watch_consumer *others[N_CLOSES];
	ipc_watch_producer *producer;
	int r;

	(void)arg;
	r = ipc_watch_producer_open_wait(&producer, own, "a", NULL, &deadline);
	for (unsigned i = 0; i < N_CLOSES && r == 0; ++i)
		r = ipc_watch_consumer_open_wait(&others[i], own, "a", NULL, &deadline);
	actor_say(self, r);
	(void)actor_hear(self);
	for (unsigned i = 0; i < N_CLOSES; ++i)
		ipc_watch_consumer_close(others[i]);
	(void)!ipc_watch_publish(producer, "value", 6);
	ipc_watch_producer_close(producer);
	(void)raise(SIGKILL);
}

/* M-25, M-30: the ring of a handle that is closed by the time when the broker hears of it, and
 * whose process is dead: its end concerns nobody */
Test(poll_ring, last_ring_of_a_dead_client_is_heard)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	ipc_watch_producer *producer = producer_new("a");
	pid_t worker = domain_worker(&fixture_domain);
	struct actor publisher;

	actor_start(&publisher, publish_close_and_die, NULL);
	cr_assert_eq(actor_hear(&publisher), 0);
	add(consumer, READABLE);
	until_quiet();

	cr_assert_eq(kill(worker, SIGSTOP), 0);
	actor_say(&publisher, 0);
	cr_assert_eq(actor_join(&publisher), 128 + SIGKILL);
	cr_assert_not(is_readable(the_fd()));
	cr_assert_eq(kill(worker, SIGCONT), 0);

	until_next(consumer, READABLE);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

/* ---- a full socket ---- */

/* More than fit into a socket. */
#define N_CHANNELS 500

static void publish_to_many(struct actor *self, void *arg)
{
	static ipc_watch_producer *producers[N_CHANNELS];
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_client *own = domain_connect(&fixture_domain);
	const bool *closes = arg;
	int r = 0;

	for (unsigned i = 0; i < N_CHANNELS && r == 0; ++i) {
		char name[16];

		(void)snprintf(name, sizeof(name), "many/%u", i);
		r = ipc_watch_producer_open_wait(&producers[i], own, name, NULL, &deadline);
	}
	actor_say(self, r);
	(void)actor_hear(self);
	for (unsigned i = 0; i < N_CHANNELS && r == 0; ++i) {
		r = ipc_watch_publish(producers[i], "value", 6);
		if (*closes)
			ipc_watch_producer_close(producers[i]);
	}
	actor_say(self, r);
	(void)actor_hear(self);
	process_end(0);
}

static void ring_more_than_fits(bool closes)
{
	static ipc_watch_consumer *consumers[N_CHANNELS];
	pid_t worker = domain_worker(&fixture_domain);
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct pollfd poll_fd = {.events = POLLIN};
	struct ipc_poll_event event;
	struct actor publisher;
	ipc_client *other;
	unsigned n = 0;

	/* The last one is another client's: who is told of one of its channels looks at all. */
	other = domain_connect(&fixture_domain);
	for (unsigned i = 0; i < N_CHANNELS; ++i) {
		const struct ipc_watch_options *stay =
			IPC_WATCH_OPTIONS(.flags = IPC_STAY | IPC_CREATE);
		ipc_client *its = i == N_CHANNELS - 1 ? other : fixture_client;
		char name[16];

		(void)snprintf(name, sizeof(name), "many/%u", i);
		cr_assert_eq(
			ipc_watch_consumer_open_wait(&consumers[i], its, name, stay, &deadline), 0);
		cr_assert_eq(ipc_poll_add(its, consumers[i], READABLE, consumers[i]), 0);
	}
	actor_start(&publisher, publish_to_many, &closes);
	cr_assert_eq(actor_hear(&publisher), 0);
	until_quiet();
	while (ipc_poll_next(other, &event) == 0 || is_readable(ipc_client_get_fd(other)))
		;

	cr_assert_eq(kill(worker, SIGSTOP), 0);
	actor_say(&publisher, 0);
	cr_assert_eq(actor_hear(&publisher), 0);
	cr_assert_not(is_readable(ipc_client_get_fd(other)));
	cr_assert_eq(kill(worker, SIGCONT), 0);

	poll_fd.fd = ipc_client_get_fd(other);
	do
		cr_assert_eq(poll(&poll_fd, 1, WAIT_MS), 1, "a ring is lost");
	while (ipc_poll_next(other, &event) < 0);
	while (n < N_CHANNELS - 1) {
		void *given = NULL;

		until_readable();
		while (next_of(&given) == READABLE) {
			read_it(given);
			++n;
		}
	}

	actor_say(&publisher, 0);
	cr_assert_eq(actor_join(&publisher), 0);
	for (unsigned i = 0; i < N_CHANNELS; ++i)
		ipc_watch_consumer_close(consumers[i]);
	ipc_client_unref(other);
}

/* M-30: what the socket has no room for is told by the desk */
Test(poll_ring, rings_that_find_the_socket_full_are_heard)
{
	ring_more_than_fits(false);
}

/* M-30, M-44 */
Test(poll_ring, rings_before_a_close_that_finds_the_socket_full_are_heard)
{
	ring_more_than_fits(true);
}
