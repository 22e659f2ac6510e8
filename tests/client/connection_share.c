/* SPDX-License-Identifier: MIT */

/*
 * The control socket under several threads: one reads for all, and another one takes what lies
 * there because it may not wait for the first.
 */

#include "libipc/client/connection.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>

#include <ipc/error.h>

#include "libipc/wire/codec.h"
#include "tests/support/wakes.h"

TestSuite(connection_share, .timeout = 60);

static struct connection connection;
static int broker_fd;

static void setup(void)
{
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	cr_assert_eq(connection_init(&connection, fds[0]), 0);
	broker_fd = fds[1];
}

static void teardown(void)
{
	connection_deinit(&connection, false);
	(void)fd_close(broker_fd);
}

static void answer(uint64_t id)
{
	union message message;

	message_init(&message, MESSAGE_DONE, id);
	cr_assert_eq(fdpass_send(broker_fd, &message, message.head.size, NULL, 0), 0);
}

struct reader {
	struct connection_call call;
	pthread_t thread;
	int result;
};

/* Stays behind who wakes it, on the same processor. */
static void *read_on(void *arg)
{
	const struct sched_param none = {0};
	struct reader *reader = arg;

	(void)sched_setscheduler(0, SCHED_BATCH, &none);
	reader->result =
		connection_await(&connection, &reader->call, clock_after_ns(30 * NS_PER_S));
	return NULL;
}

static void pin_to_one_processor(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	cr_assert_eq(sched_setaffinity(0, sizeof(set), &set), 0);
}

static void until_polling(void)
{
	bool is_polling;

	do {
		sched_yield();
		pthread_mutex_lock(&connection.mutex);
		is_polling = connection.poller != NULL;
		pthread_mutex_unlock(&connection.mutex);
	} while (!is_polling);

	/* It has the rest of the way to go: a turn or two of this processor. */
	for (unsigned i = 0; i < 20; ++i)
		sched_yield();
}

/* what its socket brought was its answer, and is not there any more when it looks. */
Test(connection_share, who_sleeps_in_poll_is_told_that_another_took_its_answer, .init = setup,
     .fini = teardown)
{
	static struct reader reader;
	_Atomic uint32_t n_joined = 0;

	WAKES_TELL();
	pin_to_one_processor();
	for (unsigned i = 0; i < 20; ++i) {
		uint64_t begin_ns;

		connection_begin(&connection, &reader.call);
		cr_assert_eq(pthread_create(&reader.thread, NULL, read_on, &reader), 0);
		until_polling();

		answer(reader.call.id);
		atomic_fetch_add(&n_joined, 1);
		begin_ns = clock_now_ns();
		connection_catch_up(&connection, &n_joined);
		cr_assert_eq(pthread_join(reader.thread, NULL), 0);
		ASSERT_WOKEN(begin_ns);
		cr_assert_eq(reader.result, 0);
		connection_end(&connection, &reader.call);
	}
}

/* M-28: a nudge is taken back, a cancel is not. */
Test(connection_share, a_cancel_outlives_a_nudge, .init = setup, .fini = teardown)
{
	static struct connection_call call;

	WAKES_TELL();
	connection_nudge(&connection);
	connection_begin(&connection, &call);
	cr_expect_eq(connection_await(&connection, &call, clock_after_ns(1000000)), IPC_ETIMEDOUT);

	connection_nudge(&connection);
	connection_cancel(&connection);
	for (unsigned i = 0; i < 2; ++i) {
		uint64_t begin_ns = clock_now_ns();

		connection_poll(&connection, 0, CLOCK_FOREVER, true);
		ASSERT_WOKEN(begin_ns);
		cr_expect_eq(connection_await(&connection, &call, CLOCK_FOREVER), IPC_ECANCELED);
	}
	connection_end(&connection, &call);
}

/* M-20: no system call where nothing has come, and none that sleeps. */
Test(connection_share, what_was_seen_is_not_looked_for_again, .init = setup, .fini = teardown)
{
	static struct connection_call call;
	_Atomic uint32_t n_joined = 1;

	connection_begin(&connection, &call);
	connection_catch_up(&connection, &n_joined);
	answer(call.id);
	connection_catch_up(&connection, &n_joined);
	cr_expect_eq(atomic_load(&call.answered), 0);

	atomic_fetch_add(&n_joined, 1);
	connection_catch_up(&connection, &n_joined);
	cr_expect_eq(atomic_load(&call.answered), 1);
	connection_end(&connection, &call);
}
