/* SPDX-License-Identifier: MIT */
/*
 * The poll set by itself: what is in it, what is told of it and in which order.
 */
#include <fcntl.h>
#include <sys/wait.h>

#include "tests/client/poll_scene.h"

TestSuite(poll, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- the descriptor ---- */

/* M-30 */
Test(poll, client_has_one_descriptor)
{
	int fd = ipc_client_get_fd(fixture_client);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ipc_client_get_fd(fixture_client), fd);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(ipc_client_get_fd(NULL), IPC_EINVAL);
	cr_assert_not(is_readable(fd));
}

/* M-30: nothing is there, nothing is ready */
Test(poll, empty_set_has_nothing)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);

	until_quiet();
	publish(producer);

	cr_assert_not(is_readable(the_fd()));
	ASSERT_NOTHING();
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-42 */
Test(poll, forked_child_has_none_of_it)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct ipc_poll_event event;
	pid_t pid;

	add(consumer, READABLE);
	pid = process_fork();
	if (pid == 0) {
		bool is_right =
			ipc_client_get_fd(fixture_client) == IPC_ECHILD &&
			ipc_poll_next(fixture_client, &event) == IPC_ECHILD &&
			ipc_poll_add(fixture_client, consumer, READABLE, NULL) == IPC_ECHILD &&
			ipc_poll_change(fixture_client, consumer, READABLE, NULL) == IPC_ECHILD &&
			ipc_poll_remove(fixture_client, consumer) == IPC_ECHILD;

		ipc_watch_consumer_close(consumer);
		process_end(is_right ? 0 : 1);
	}
	cr_assert_eq(process_reap(pid, WAIT_MS), 0);

	until_quiet();
	ipc_watch_consumer_close(consumer);
}

/* ---- in and out ---- */

/* M-35 */
Test(poll, handle_is_in_the_set_once)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);

	cr_assert_eq(ipc_poll_change(fixture_client, consumer, READABLE, NULL), IPC_ENOENT);
	cr_assert_eq(ipc_poll_remove(fixture_client, consumer), IPC_ENOENT);

	cr_assert_eq(ipc_poll_add(fixture_client, consumer, READABLE, NULL), 0);
	cr_assert_eq(ipc_poll_add(fixture_client, consumer, PRESENT, NULL), IPC_EEXIST);
	cr_assert_eq(ipc_poll_change(fixture_client, consumer, READABLE | GONE, NULL), 0);

	cr_assert_eq(ipc_poll_remove(fixture_client, consumer), 0);
	cr_assert_eq(ipc_poll_remove(fixture_client, consumer), IPC_ENOENT);
	cr_assert_eq(ipc_poll_add(fixture_client, consumer, READABLE, NULL), 0);
	ipc_watch_consumer_close(consumer);
}

/* M-34, M-35 */
Test(poll, what_cannot_be_ready_is_refused)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	ipc_watch_producer *producer = producer_new("b");
	ipc_client *other = domain_connect(&fixture_domain);
	uint64_t nonsense[8] = {0};

	cr_expect_eq(ipc_poll_add(fixture_client, consumer, 0, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_add(fixture_client, consumer, END, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_add(fixture_client, consumer, IPC_READY_WRITABLE, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_add(fixture_client, producer, READABLE, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_add(fixture_client, NULL, READABLE, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_add(fixture_client, nonsense, READABLE, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_add(fixture_client, fixture_client, READABLE, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_add(NULL, consumer, READABLE, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_next(fixture_client, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_remove(fixture_client, nonsense), IPC_EINVAL);

	/* Of another client. */
	cr_expect_eq(ipc_poll_add(other, consumer, READABLE, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_poll_add(fixture_client, consumer, READABLE, NULL), 0);
	cr_expect_eq(ipc_poll_change(other, consumer, READABLE, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_remove(other, consumer), IPC_EINVAL);
	cr_expect_eq(ipc_poll_change(fixture_client, consumer, 0, NULL), IPC_EINVAL);
	cr_expect_eq(ipc_poll_change(fixture_client, consumer, IPC_READY_REQUEST, NULL),
		     IPC_EINVAL);

	ipc_client_unref(other);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-35 */
Test(poll, closed_handle_is_never_given_again)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *one = consumer_new("a", 0), *other = consumer_new("a", 0);

	publish(producer);
	add(one, READABLE);
	add(other, READABLE);
	ASSERT_NEXT(one, READABLE);

	ipc_watch_consumer_close(one);
	ASSERT_NEXT(other, READABLE);
	ASSERT_NEXT(other, READABLE);
	ipc_watch_consumer_close(other);
	ASSERT_NOTHING();
	ipc_watch_producer_close(producer);
}

/* M-35 */
Test(poll, removed_handle_is_never_given_again)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);

	add(consumer, READABLE);
	publish(producer);
	ASSERT_NEXT(consumer, READABLE);
	cr_assert_eq(ipc_poll_remove(fixture_client, consumer), 0);
	publish(producer);
	ASSERT_NOTHING();

	until_quiet();
	publish(producer);
	cr_assert_not(is_readable(the_fd()));
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* ---- looks ---- */

/* M-30 */
Test(poll, what_holds_at_add_is_told)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);

	publish(producer);
	until_quiet();
	add(consumer, READABLE);

	cr_assert(is_readable(the_fd()));
	ASSERT_NEXT(consumer, READABLE);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-30 */
Test(poll, what_holds_at_change_is_told)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	struct ipc_poll_event event;
	int other;

	add(consumer, READABLE);
	until_quiet();
	cr_assert_eq(ipc_poll_change(fixture_client, consumer, PRESENT, &other), 0);

	cr_assert(is_readable(the_fd()));
	cr_assert_eq(ipc_poll_next(fixture_client, &event), 0);
	cr_assert_eq(event.handle, consumer);
	cr_assert_eq(event.ready, PRESENT);
	cr_assert_eq(event.userdata, &other);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-30, M-34: newer than what the handle has read */
Test(poll, given_as_long_as_it_is_ready)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);

	add(consumer, READABLE);
	until_quiet();
	publish(producer);

	cr_assert(is_readable(the_fd()));
	ASSERT_NEXT(consumer, READABLE);
	ASSERT_NEXT(consumer, READABLE);
	cr_assert(is_readable(the_fd()), "level-triggered");
	read_it(consumer);
	ASSERT_NOTHING();
	cr_assert_not(is_readable(the_fd()));

	publish(producer);
	cr_assert(is_readable(the_fd()));
	ASSERT_NEXT(consumer, READABLE);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-30: none twice before every other ready one once, also one that came to be so meanwhile */
Test(poll, order_is_fair)
{
	ipc_watch_producer *producers[3];
	ipc_watch_consumer *consumers[3];
	const char *names[3] = {"a", "b", "c"};
	void *given[3] = {NULL};

	for (unsigned i = 0; i < 3; ++i) {
		producers[i] = producer_new(names[i]);
		consumers[i] = consumer_new(names[i], 0);
		add(consumers[i], READABLE);

		/* Its first ring goes through the broker, who makes us look at everything. */
		publish(producers[i]);
		read_it(consumers[i]);
	}
	until_quiet();

	publish(producers[0]);
	publish(producers[1]);
	for (unsigned round = 0; round < 3; ++round) {
		void *first = NULL, *second = NULL;

		cr_assert_eq(next_of(&first), READABLE);
		cr_assert_eq(next_of(&second), READABLE);
		cr_assert_neq(first, second);
	}

	cr_assert_eq(next_of(&given[0]), READABLE);
	publish(producers[2]);
	cr_assert_eq(next_of(&given[1]), READABLE);
	cr_assert_eq(next_of(&given[2]), READABLE);
	cr_assert_neq(given[1], given[0]);
	cr_assert_neq(given[2], given[0]);
	cr_assert_neq(given[2], given[1]);

	for (unsigned i = 0; i < 3; ++i) {
		ipc_watch_consumer_close(consumers[i]);
		ipc_watch_producer_close(producers[i]);
	}
}

/* M-30: one that is always ready keeps nobody from being told of peers */
Test(poll, busy_handle_hides_no_end)
{
	ipc_watch_producer *busy = producer_new("a"), *ending = producer_new("b");
	ipc_watch_consumer *one = consumer_new("a", 0), *other = consumer_new("b", 0);
	void *given = NULL;

	add(one, READABLE);
	add(other, GONE);
	until_quiet();
	publish(busy);
	ASSERT_NEXT(one, READABLE);
	ipc_watch_producer_close(ending);
	(void)exists("none");

	cr_assert_eq(next_of(&given), GONE | END);
	cr_assert_eq(given, other);
	ipc_watch_producer_close(busy);
	ipc_watch_consumer_close(one);
	ipc_watch_consumer_close(other);
}

/* ---- peers and ends ---- */

/* M-34: at least once for each step, also where somebody has come again */
Test(poll, each_step_to_gone_is_told)
{
	ipc_watch_consumer *consumer = consumer_new("a", IPC_STAY);

	add(consumer, GONE);
	until_quiet();
	for (unsigned i = 0; i < 3; ++i) {
		ipc_watch_producer_close(producer_new("a"));
		ipc_watch_producer *again = producer_new("a");

		until_next(consumer, GONE);
		until_quiet();
		ipc_watch_producer_close(again);
		until_next(consumer, GONE);
		ASSERT_NEXT(consumer, GONE);
		again = producer_new("a");
		until_quiet();
		ipc_watch_producer_close(again);
		until_next(consumer, GONE);
	}
	ipc_watch_consumer_close(consumer);
}

/* M-34 */
Test(poll, presence_is_told)
{
	ipc_watch_consumer *consumer = consumer_new("a", 0);
	ipc_watch_producer *producer;

	add(consumer, PRESENT);
	until_quiet();
	producer = producer_new("a");

	until_next(consumer, PRESENT);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

/* M-34: what was published before it comes first */
Test(poll, end_is_told_after_the_last_value)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", 0);

	add(consumer, READABLE);
	until_quiet();
	publish(producer);
	ipc_watch_producer_close(producer);

	until_next(consumer, READABLE);
	read_it(consumer);
	until_next(consumer, END);
	ASSERT_NEXT(consumer, END);
	ipc_watch_consumer_close(consumer);
}

/* M-34 */
Test(poll, shutdown_is_told_as_the_end)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer = consumer_new("a", IPC_STAY);

	add(consumer, READABLE);
	until_quiet();
	cr_assert_eq(ipc_watch_shutdown(producer), 0);

	cr_assert(is_readable(the_fd()));
	ASSERT_NEXT(consumer, END);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

/* M-28: its waits end, so that is told */
Test(poll, cancel_of_a_handle_is_told_as_the_end)
{
	ipc_watch_consumer *one = consumer_new("a", 0), *other = consumer_new("a", 0);

	add(one, READABLE);
	add(other, READABLE);
	until_quiet();
	cr_assert_eq(ipc_watch_consumer_cancel(other), 0);

	cr_assert(is_readable(the_fd()));
	ASSERT_NEXT(other, END);
	ipc_watch_consumer_close(other);
	ASSERT_NOTHING();
	ipc_watch_consumer_close(one);
}

/* M-28 */
Test(poll, cancel_of_the_client_is_told_of_every_handle)
{
	ipc_watch_consumer *one = consumer_new("a", 0), *other = consumer_new("a", 0);
	void *first = NULL, *second = NULL;

	add(one, READABLE);
	add(other, READABLE);
	until_quiet();
	cr_assert_eq(ipc_client_cancel(fixture_client), 0);

	cr_assert(is_readable(the_fd()));
	cr_assert_eq(next_of(&first), END);
	cr_assert_eq(next_of(&second), END);
	cr_assert_neq(first, second);
	ipc_watch_consumer_close(one);
	ipc_watch_consumer_close(other);
	ipc_client_unref(fixture_client);
	fixture_client = domain_connect(&fixture_domain);
}

/* M-24: closefrom() takes the descriptors away; no call touches what stands there now */
Test(poll, closed_descriptors_are_estale)
{
	struct ipc_poll_event event;
	pid_t pid = process_fork();

	if (pid == 0) {
		ipc_client *own = domain_connect(&fixture_domain);
		bool is_right;

		closefrom(3);
		is_right = ipc_client_get_fd(own) == IPC_ESTALE &&
			   ipc_poll_next(own, &event) == IPC_ESTALE;
		process_end(is_right ? 0 : 1);
	}
	cr_assert_eq(process_reap(pid, WAIT_MS), 0);
}
