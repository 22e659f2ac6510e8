/* SPDX-License-Identifier: MIT */
/*
 * The poll set with handles of each kind (M-34), and of another user.
 */
#include <dirent.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "tests/client/poll_scene.h"

TestSuite(poll_kinds, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- shared ---- */

/* M-34 */
Test(poll_kinds, shared_has_peers_and_an_end)
{
	ipc_shared *a = shared_new("s", IPC_SIDE_A), *b;

	add(a, PRESENT);
	until_quiet();
	b = shared_new("s", IPC_SIDE_B);
	until_next(a, PRESENT);

	cr_assert_eq(ipc_poll_change(fixture_client, a, GONE, a), 0);
	until_quiet();
	cr_assert_eq(ipc_shared_shutdown(b), 0);
	until_next(a, END);
	ipc_shared_close(b);
	(void)exists("none");
	until_next(a, GONE | END);
	ipc_shared_close(a);
}

/* ---- limiter ---- */

static ipc_limiter *limiter_new(uint32_t permits, uint64_t units, uint64_t ns)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_limiter *limiter = NULL;

	cr_assert_eq(ipc_limiter_open_wait(
			     &limiter, fixture_client, "l",
			     IPC_LIMITER_OPTIONS(.flags = IPC_CREATE | IPC_KEEP, .permits = permits,
						 .window_units = units, .window_ns = ns),
			     &deadline),
		     0);
	return limiter;
}

/* M-34 */
Test(poll_kinds, permit_that_comes_back_is_told)
{
	ipc_limiter *one = limiter_new(1, 0, 0), *other = limiter_new(1, 0, 0);
	struct ipc_limiter_grant grant;

	cr_assert_eq(ipc_limiter_acquire(one, 1, &grant), 0);
	add(other, READABLE);
	until_quiet();
	cr_assert_eq(ipc_limiter_release(one, &grant, false), 0);

	until_next(other, READABLE);
	ASSERT_NEXT(other, READABLE);
	ipc_limiter_close(one);
	ipc_limiter_close(other);
}

#define WINDOW_NS (300 * NS_PER_MS)

/* M-30, M-34: time makes ready, too */
Test(poll_kinds, end_of_a_window_is_told)
{
	ipc_limiter *limiter = limiter_new(10, 1, WINDOW_NS);
	struct ipc_limiter_grant grant;
	uint64_t began;

	add(limiter, READABLE);
	ASSERT_NEXT(limiter, READABLE);
	began = clock_now_ns();
	cr_assert_eq(ipc_limiter_acquire(limiter, 1, &grant), 0);
	until_quiet();

	until_next(limiter, READABLE);
	cr_assert_geq(clock_now_ns() - began, WINDOW_NS * 9 / 10);
	cr_assert_eq(ipc_limiter_acquire(limiter, 1, &grant), 0);
	until_quiet();

	/* One that is added while the window runs. */
	cr_assert_eq(ipc_poll_remove(fixture_client, limiter), 0);
	add(limiter, READABLE);
	until_next(limiter, READABLE);
	ipc_limiter_close(limiter);
}

/* ---- queue ---- */

struct queue {
	ipc_queue_producer *producer;
	ipc_queue_consumer *consumer;
};

static struct queue queue_new(struct ipc_queue_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct queue queue = {NULL, NULL};

	options.size = sizeof(options);
	options.flags = IPC_CREATE;
	cr_assert_eq(ipc_queue_consumer_open_wait(&queue.consumer, fixture_client, "q", &options,
						  &deadline),
		     0);
	cr_assert_eq(
		ipc_queue_producer_open_wait(&queue.producer, fixture_client, "q", NULL, &deadline),
		0);
	return queue;
}

static void queue_free(struct queue queue)
{
	ipc_queue_producer_close(queue.producer);
	ipc_queue_consumer_close(queue.consumer);
}

static int push(struct queue queue)
{
	return ipc_queue_push(queue.producer, 0, "item", 5, IPC_FULL_FAIL);
}

static void take_and_ack(struct queue queue)
{
	struct ipc_queue_item item;

	cr_assert_eq(ipc_queue_take(queue.consumer, &item), 0);
	cr_assert_eq(ipc_queue_ack(queue.consumer, &item), 0);
}

/* M-34 */
Test(poll_kinds, item_is_told_as_long_as_there_is_one)
{
	struct queue queue = queue_new((struct ipc_queue_options){0});

	add(queue.consumer, READABLE);
	until_quiet();
	cr_assert_eq(push(queue), 0);
	cr_assert_eq(push(queue), 0);

	until_next(queue.consumer, READABLE);
	take_and_ack(queue);
	ASSERT_NEXT(queue.consumer, READABLE);
	take_and_ack(queue);
	ASSERT_NOTHING();
	queue_free(queue);
}

/* M-34 */
Test(poll_kinds, room_is_told)
{
	struct queue queue = queue_new((struct ipc_queue_options){.priorities = 1, .items_max = 4});

	add(queue.producer, IPC_READY_WRITABLE);
	ASSERT_NEXT(queue.producer, IPC_READY_WRITABLE);
	while (push(queue) == 0)
		;
	until_quiet();
	take_and_ack(queue);

	until_next(queue.producer, IPC_READY_WRITABLE);
	queue_free(queue);
}

/* M-30, M-34: a token comes by time alone */
Test(poll_kinds, token_is_told)
{
	struct queue queue = queue_new((struct ipc_queue_options){.rate = 5, .burst = 1});
	uint64_t began;

	add(queue.producer, IPC_READY_WRITABLE);
	ASSERT_NEXT(queue.producer, IPC_READY_WRITABLE);
	cr_assert_eq(push(queue), 0);
	began = clock_now_ns();
	ASSERT_NOTHING();

	until_next(queue.producer, IPC_READY_WRITABLE);
	cr_assert_geq(clock_now_ns() - began, 100 * NS_PER_MS);
	queue_free(queue);
}

/* ---- flight ---- */

struct flights {
	ipc_flight_table *table;
	ipc_handler *handler;
};

static struct flights flights_new(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct flights flights = {NULL, NULL};

	cr_assert_eq(ipc_flight_table_open_wait(&flights.table, fixture_client, "f",
						IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE),
						&deadline),
		     0);
	cr_assert_eq(ipc_handler_open_wait(&flights.handler, fixture_client, "f", NULL, &deadline),
		     0);
	return flights;
}

static ipc_flight_table *joining;

static void *join_in_thread(void *arg)
{
	ipc_flight **ret = arg;

	(void)!ipc_flight_join(ret, joining, "key", 3);
	return NULL;
}

/* By another thread: one does not follow itself. */
static ipc_flight *lead(ipc_flight_table *table)
{
	ipc_flight *flight = NULL;
	pthread_t thread;

	joining = table;
	cr_assert_eq(pthread_create(&thread, NULL, join_in_thread, &flight), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_not_null(flight);
	return flight;
}

static void flights_free(struct flights flights)
{
	ipc_handler_close(flights.handler);
	ipc_flight_table_close(flights.table);
}

/* M-34 */
Test(poll_kinds, handler_is_told_of_a_key_and_the_asker_of_the_answer)
{
	struct flights flights = flights_new();
	ipc_flight *asked = NULL, *taken = NULL;

	add(flights.handler, READABLE);
	until_quiet();
	cr_assert_eq(ipc_flight_ask(&asked, flights.table, "key", 3, 0), 2);
	add(asked, READABLE);

	until_next(flights.handler, READABLE);
	cr_assert_eq(ipc_handler_take(&taken, flights.handler), 0);
	ASSERT_NOTHING();
	cr_assert_eq(ipc_flight_land(taken, "done", 4), 0);

	until_next(asked, READABLE);
	ipc_flight_leave(taken);
	ASSERT_NEXT(asked, READABLE);
	ipc_flight_leave(asked);
	ASSERT_NOTHING();
	flights_free(flights);
}

/* M-34, M-35: who inherits the lead is told; what was left is never given again, also where its
 * place is somebody else's by now */
Test(poll_kinds, part_that_is_left_is_in_the_set_no_more)
{
	struct flights flights = flights_new();
	ipc_flight *leader = lead(flights.table), *follower = NULL, *next = NULL;

	cr_assert_geq(ipc_flight_join(&follower, flights.table, "key", 3), 0);
	add(follower, READABLE);
	until_quiet();
	ipc_flight_leave(leader);
	until_next(follower, READABLE);

	ipc_flight_leave(follower);
	cr_assert_geq(ipc_flight_join(&next, flights.table, "other", 5), 0);
	ASSERT_NOTHING();
	cr_assert_eq(ipc_poll_remove(fixture_client, next), IPC_ENOENT);
	add(next, READABLE);
	ASSERT_NEXT(next, READABLE);

	/* With the table go its parts. */
	flights_free(flights);
	ASSERT_NOTHING();
}

/* M-28 */
Test(poll_kinds, part_that_is_cancelled_is_told_as_the_end)
{
	struct flights flights = flights_new();
	ipc_flight *follower = NULL;

	(void)lead(flights.table);
	cr_assert_geq(ipc_flight_join(&follower, flights.table, "key", 3), 0);
	add(follower, READABLE);
	until_quiet();
	cr_assert_eq(ipc_flight_cancel(follower), 0);

	cr_assert(is_readable(the_fd()));
	ASSERT_NEXT(follower, END);
	flights_free(flights);
}

/* ---- another user ---- */

#define UID_A 61001 /* nobody's */

static int count_eventfds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int n = 0;

	while (dir && (entry = readdir(dir))) {
		char target[64] = "";

		(void)!readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		n += strcmp(target, "anon_inode:[eventfd]") == 0;
	}
	if (dir)
		closedir(dir);
	return n;
}

/* Says, after each publication, how many eventfds it has more than before the first. */
static void publish_as_other(struct actor *self, void *arg)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer;
	int r, n_before;

	(void)arg;
	if (setgroups(0, NULL) < 0 || setgid(UID_A) < 0 || setuid(UID_A) < 0)
		process_end(1);

	/* The kernel forgets both when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);

	r = ipc_watch_producer_open_wait(&producer, domain_connect(&fixture_domain), "theirs",
					 IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 0644),
					 &deadline);
	n_before = count_eventfds();
	for (;;) {
		actor_say(self, r);
		(void)actor_hear(self);
		r = ipc_watch_publish(producer, "value", 6);
		if (r == 0)
			r = count_eventfds() - n_before;
	}
}

/* M-30, M-50: the broker rings for them, and nobody gets another user's bell */
Test(poll_kinds, other_users_ring_by_the_broker)
{
	ipc_watch_consumer *consumer = NULL;
	struct actor other;

	if (getuid() != 0)
		cr_skip("needs root");

	actor_start(&other, publish_as_other, NULL);
	cr_assert_eq(actor_hear(&other), 0);
	cr_assert_eq(consume(&consumer, "theirs", 0), 0);
	add(consumer, READABLE);
	for (unsigned i = 0; i < 5; ++i) {
		until_quiet();
		actor_say(&other, 0);
		cr_assert_eq(actor_hear(&other), 0, "it has got a bell");
		until_next(consumer, READABLE);
		read_it(consumer);
	}

	until_quiet();
	actor_kill(&other);
	until_next(consumer, END);
	ipc_watch_consumer_close(consumer);
}
