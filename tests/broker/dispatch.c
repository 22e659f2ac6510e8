/* SPDX-License-Identifier: MIT */

/*
 * Connections and requests by hand: who is welcome, who is thrown out, and that neither disturbs
 * the others.
 */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/lock.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/process.h"
#include "tests/support/rawpeer.h"

static struct domain domain;
static struct rawpeer a, b;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_connect(&b, domain.address);
}

static void teardown(void)
{
	rawpeer_sync(&a);
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
}

TestSuite(dispatch, .init = setup, .fini = teardown, .timeout = 60);

static union message hello_message(void)
{
	union message hello;

	message_init(&hello, MESSAGE_HELLO, 0);
	hello.hello.version_min = hello.hello.version_max = PROTOCOL_VERSION;
	hello.hello.lock_stamp = lock_layout_stamp();
	hello.hello.word_size = sizeof(void *);
	hello.hello.pid = getpid();
	return hello;
}

static int refusal(union message *hello)
{
	rawpeer_send(&b, hello);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_DONE);
	return b.reply.head.result;
}

/* M-62 */
Test(dispatch, hello_of_another_version_is_refused)
{
	union message hello = hello_message();

	hello.hello.version_min = hello.hello.version_max = PROTOCOL_VERSION + 1;
	cr_assert_eq(refusal(&hello), IPC_EPROTONOSUPPORT);
	cr_assert_eq(rawpeer_receive(&b, 30000), RAWPEER_END);
}

/* M-62 */
Test(dispatch, hello_of_a_range_that_has_this_version_is_welcome)
{
	union message hello = hello_message();

	hello.hello.version_min = 1;
	hello.hello.version_max = PROTOCOL_VERSION + 7;
	rawpeer_send(&b, &hello);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_WELCOME);
	cr_assert_eq(b.reply.welcome.version, PROTOCOL_VERSION);
	cr_assert_eq(b.reply.welcome.is_foreign, 0);
	cr_assert_eq(b.reply.welcome.uid, getuid());
}

/* M-62 */
Test(dispatch, hello_of_another_mutex_layout_is_refused)
{
	union message hello = hello_message();

	++hello.hello.lock_stamp;
	cr_assert_eq(refusal(&hello), IPC_EPROTONOSUPPORT);
}

/* M-62 */
Test(dispatch, hello_of_another_word_size_is_refused)
{
	union message hello = hello_message();

	hello.hello.word_size = 4;
	cr_assert_eq(refusal(&hello), IPC_EPROTONOSUPPORT);
}

/* M-53: a process that has another number here than there. */
Test(dispatch, a_client_of_another_pid_namespace_gets_no_lock)
{
	union message hello = hello_message();
	uint64_t id;

	hello.hello.pid = getpid() + 1;
	rawpeer_send(&b, &hello);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_WELCOME);
	cr_assert_eq(b.reply.welcome.is_foreign, 1);

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", 0, &id),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_B, "s", 0, &id), IPC_EPROTONOSUPPORT);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_B, "s2", IPC_CREATE, &id),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), 0);
}

/* D9, D10: whatever breaks the protocol ends its own connection. */
Test(dispatch, a_message_that_breaks_the_protocol_ends_the_connection)
{
	union message hello = hello_message();

	hello.head.magic ^= 1;
	rawpeer_send(&b, &hello);
	cr_assert_eq(rawpeer_receive(&b, 30000), RAWPEER_END);
}

Test(dispatch, an_empty_message_ends_the_connection)
{
	cr_assert_eq(send(b.fd, "", 0, MSG_NOSIGNAL), 0);
	cr_assert_eq(rawpeer_receive(&b, 30000), RAWPEER_END);
}

Test(dispatch, an_oversized_message_ends_the_connection)
{
	static char large[PROTOCOL_SIZE_MAX + 1];

	cr_assert_eq(send(b.fd, large, sizeof(large), MSG_NOSIGNAL), (ssize_t)sizeof(large));
	cr_assert_eq(rawpeer_receive(&b, 30000), RAWPEER_END);
}

Test(dispatch, a_request_before_hello_ends_the_connection)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", 0);

	rawpeer_send(&b, &open);
	cr_assert_eq(rawpeer_receive(&b, 30000), RAWPEER_END);
}

Test(dispatch, a_second_hello_ends_the_connection)
{
	union message hello = hello_message();

	cr_assert_eq(rawpeer_hello(&b), 0);
	rawpeer_send(&b, &hello);
	cr_assert_eq(rawpeer_receive(&b, 30000), RAWPEER_END);
}

Test(dispatch, a_connection_that_says_nothing_is_closed_after_a_second)
{
	uint64_t begin_ns = clock_now_ns();

	cr_assert_eq(rawpeer_receive(&b, 30000), RAWPEER_END);
	cr_assert_gt(clock_now_ns() - begin_ns, 500 * NS_PER_MS);
	cr_assert_lt(clock_now_ns() - begin_ns, 30 * NS_PER_S);
}

/* D9: descriptors of clients are dropped by the kernel or refused to the sender, and never end up
 * in the broker. */
Test(dispatch, descriptors_of_clients_are_not_taken)
{
	union message hello = hello_message();
	int fd = memfd_create("gift", 0);
	char path[64];
	int r;

	hello.head.request_id = 1;
	r = fdpass_send(b.fd, &hello, hello.head.size, &fd, 1);
	if (r < 0) {
		cr_assert_eq(r, IPC_EACCES, "%d", r);
	} else {
		cr_assert_eq(rawpeer_receive(&b, 30000), MESSAGE_WELCOME);
		rawpeer_sync(&a);
	}
	close(fd);

	for (int i = 0; i < 64; ++i) {
		char target[64] = "";

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)domain_worker(&domain), i);
		(void)!readlink(path, target, sizeof(target) - 1);
		cr_assert_null(strstr(target, "gift"));
	}
}

/* M-24: a client that does not read its answers is not asked for more than it takes, but lives; the
 * others do not notice, and when it reads it finds them all. */
Test(dispatch, a_slow_reader_waits_for_itself_alone)
{
	struct pollfd pollfd = {.fd = b.fd, .events = POLLOUT};
	union message list;
	unsigned n = 0;

	cr_assert_eq(rawpeer_hello(&b), 0);
	message_init(&list, MESSAGE_LIST, 0);
	strcpy(list.list.pattern, "*");
	cr_assert_eq(fcntl(b.fd, F_SETFL, O_NONBLOCK), 0);
	do {
		list.head.request_id = n + 100;
		while (send(b.fd, &list, list.head.size, MSG_NOSIGNAL) >= 0) {
			cr_assert_lt(++n, 100000u);
			list.head.request_id = n + 100;
		}
		cr_assert_eq(errno, EAGAIN);
	} while (poll(&pollfd, 1, 200) > 0);
	rawpeer_sync(&a);

	for (unsigned i = 0; i < n; ++i) {
		cr_assert_eq(rawpeer_receive(&b, 30000), MESSAGE_LISTED);
		cr_assert_eq(b.reply.head.request_id, i + 100);
	}
	rawpeer_sync(&a);
}

/* The answers of a hundred clients come, while another one talks without end. */
Test(dispatch, a_talkative_client_does_not_starve_others)
{
	union message list;
	uint64_t begin_ns;
	uint64_t id;

	cr_assert_eq(rawpeer_hello(&b), 0);
	message_init(&list, MESSAGE_CANCEL, 0);
	cr_assert_eq(fcntl(b.fd, F_SETFL, O_NONBLOCK), 0);
	begin_ns = clock_now_ns();
	for (int i = 0; i < 50; ++i) {
		while (send(b.fd, &list, list.head.size, MSG_NOSIGNAL) >= 0)
			++list.head.request_id;
		cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
		rawpeer_close(&a, id);
	}
	cr_assert_lt(clock_now_ns() - begin_ns, 30 * NS_PER_S);
}

/* X-4, M-51: silent connections take places of their own uid's quota only until they are thrown
 * out, and a welcome client goes on. */
Test(dispatch, a_thousand_silent_connections_disturb_nobody)
{
	static struct rawpeer silent[1000];
	uint64_t begin_ns = clock_now_ns();
	uint64_t id;

	for (int i = 0; i < 1000; ++i)
		rawpeer_connect(&silent[i], domain.address);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	cr_assert_lt(clock_now_ns() - begin_ns, 30 * NS_PER_S);

	for (int i = 0; i < 1000; ++i) {
		cr_assert_eq(rawpeer_receive(&silent[i], 30000), RAWPEER_END);
		rawpeer_disconnect(&silent[i]);
	}
}
