/* SPDX-License-Identifier: MIT */
/*
 * The control socket, with a stand-in at its other end that answers late, twice, wrongly or not at
 * all.
 */
#include "libipc/client/connection.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/client/client.h"
#include "libipc/wire/codec.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/standin.h"
#include "tests/support/thing.h"

#define DEADLINE(ms) (&(const struct timespec[]){process_deadline(ms)}[0])

static struct standin standin;

static int try_connect(ipc_client **ret, unsigned ms)
{
	return ipc_client_connect_wait(ret, IPC_CLIENT_OPTIONS(.address = standin.address),
				       DEADLINE(ms));
}

static ipc_client *connected(void (*run)(struct script *script))
{
	ipc_client *client = NULL;

	standin_start(&standin, run);
	cr_assert_eq(try_connect(&client, 5000), 0);
	return client;
}

static unsigned ms_since(const struct timespec *begin)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned)((now.tv_sec - begin->tv_sec) * 1000 +
			  (now.tv_nsec - begin->tv_nsec) / 1000000);
}

static struct timespec now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts;
}

/* ---- before WELCOME ---- */

/* M-40 */
Test(connection, nobody_listening_is_told_at_once, .timeout = 60)
{
	ipc_client *client = NULL;
	struct timespec begin = now();
	int r;

	r = ipc_client_connect_wait(
		&client, IPC_CLIENT_OPTIONS(.address = "/tmp/ipc-test-none/broker"), NULL);

	cr_assert_eq(r, IPC_ECONNREFUSED);
	cr_assert_null(client);
	cr_assert_lt(ms_since(&begin), 1000);
}

static void run_hang_up_twice(struct script *script)
{
	struct caller caller;

	close(script_accept(script));
	close(script_accept(script));
	caller_begin(&caller, script);
	(void)actor_hear(script->test);
}

/* M-40 */
Test(connection, end_of_stream_before_the_welcome_is_tried_again, .timeout = 60)
{
	ipc_client *client = connected(run_hang_up_twice);

	cr_assert_not_null(client);
	cr_assert_null(ipc_client_unref(client));
	standin_stop(&standin);
}

static void run_hang_up_always(struct script *script)
{
	for (;;)
		close(script_accept(script));
}

Test(connection, listener_that_always_hangs_up_is_no_broker, .timeout = 60)
{
	ipc_client *client = NULL;

	standin_start(&standin, run_hang_up_always);

	cr_assert_eq(try_connect(&client, 10000), IPC_ECONNREFUSED);
	standin_stop(&standin);
}

static void run_refuse(struct script *script)
{
	struct caller caller = {.fd = script_accept(script)};
	union message hello;

	caller_take(&caller, &hello, MESSAGE_HELLO);
	caller_done(&caller, hello.head.request_id, IPC_EPROTONOSUPPORT);
	(void)actor_hear(script->test);
}

/* M-62 */
Test(connection, refusal_of_the_broker_is_the_result, .timeout = 60)
{
	ipc_client *client = NULL;
	struct leaks leaks;

	standin_start(&standin, run_refuse);
	leaks_begin(&leaks);

	cr_assert_eq(try_connect(&client, 5000), IPC_EPROTONOSUPPORT);

	leaks_check(&leaks);
	standin_stop(&standin);
}

static void run_garbage(struct script *script)
{
	struct caller caller = {.fd = script_accept(script)};
	union message hello;

	caller_take(&caller, &hello, MESSAGE_HELLO);
	(void)!send(caller.fd, "HTTP/1.1 400 Bad Request", 24, MSG_NOSIGNAL);
	(void)actor_hear(script->test);
}

Test(connection, garbage_is_a_protocol_error, .timeout = 60)
{
	ipc_client *client = NULL;

	standin_start(&standin, run_garbage);

	cr_assert_eq(try_connect(&client, 5000), IPC_EPROTO);
	standin_stop(&standin);
}

static void run_silence(struct script *script)
{
	(void)script_accept(script);
	(void)actor_hear(script->test);
}

/* M-20 */
Test(connection, silent_listener_ends_at_the_deadline, .timeout = 60)
{
	ipc_client *client = NULL;
	struct timespec begin = now();

	standin_start(&standin, run_silence);

	cr_assert_eq(try_connect(&client, 200), IPC_ETIMEDOUT);
	cr_assert_lt(ms_since(&begin), 2000);
	standin_stop(&standin);
}

static void run_welcome(struct script *script)
{
	struct caller caller;

	caller_begin(&caller, script);
	(void)actor_hear(script->test);
}

/* M-20 */
Test(connection, past_deadline_looks_once, .timeout = 60)
{
	const struct timespec past = {0, 0};
	ipc_client *client = NULL;

	standin_start(&standin, run_welcome);

	cr_assert_eq(ipc_client_connect_wait(&client,
					     IPC_CLIENT_OPTIONS(.address = standin.address), &past),
		     0);
	ipc_client_unref(client);
	standin_stop(&standin);
}

Test(connection, socket_of_another_type_is_refused, .timeout = 60)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/ipc-test-XXXXXX";
	ipc_client *client = NULL;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_not_null(mkdtemp(dir));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/broker", dir);
	cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(fd, 1), 0);

	cr_assert_eq(ipc_client_connect_wait(&client,
					     IPC_CLIENT_OPTIONS(.address = address.sun_path), NULL),
		     IPC_EPROTOTYPE);

	close(fd);
	unlink(address.sun_path);
	rmdir(dir);
}

Test(connection, welcome_and_unref_leave_nothing, .timeout = 60)
{
	struct leaks leaks;
	ipc_client *client;

	standin_start(&standin, run_welcome);
	leaks_begin(&leaks);

	cr_assert_eq(try_connect(&client, 5000), 0);
	ipc_client_unref(client);

	leaks_check(&leaks);
	standin_stop(&standin);
}

/* ---- opens ---- */

/* The broker that does everything right, twice: what a worker does after one that died before it
 * took the request off. */
static void run_twice(struct script *script)
{
	struct caller caller;
	union message open, message;
	int segment_fd = -1;
	uint64_t id;

	caller_begin(&caller, script);
	caller_take(&caller, &open, MESSAGE_OPEN);
	id = caller_handle(&caller);
	caller_reserve(&caller, &open.open, id, &segment_fd);
	caller_reserve(&caller, &open.open, id, &segment_fd);
	caller_take(&caller, &message, MESSAGE_CONFIRM);
	caller_reserve(&caller, &open.open, id, &segment_fd);
	caller_opened(&caller, &open.open, id, segment_fd, false);
	caller_opened(&caller, &open.open, id, segment_fd, true);

	/* The handle has to be alive after all of this: what comes next is its close. */
	caller_take(&caller, &message, MESSAGE_CLOSE);
	actor_say(script->test, message.close.handle_id == id);
	actor_say(script->test, atomic_load(&caller.desk->cell[LIVENESS_SLOT(id)].closed_id) == id);
	(void)actor_hear(script->test);
}

/* M-31 */
Test(connection, answers_that_come_twice_do_no_harm, .timeout = 60)
{
	ipc_client *client = connected(run_twice);
	struct thing *thing;
	struct leaks leaks;

	leaks_begin(&leaks);
	cr_assert_eq(thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_CREATE,
				     DEADLINE(30000)),
		     0);

	/* The second OPENED waits in the socket: this look takes it, with its descriptor. */
	cr_assert_eq(client_check(client), 0);
	cr_assert_eq(endpoint_enter(&thing->endpoint, IPC_ROLE_SHARED_A), 0);
	endpoint_leave(&thing->endpoint);
	thing_close(thing);
	cr_assert(actor_hear(&standin.actor));
	cr_assert(actor_hear(&standin.actor));

	leaks_check(&leaks);
	ipc_client_unref(client);
	standin_stop(&standin);
}

static void run_late(struct script *script)
{
	struct caller caller;
	union message open, message;
	int segment_fd = -1;
	uint64_t id;

	caller_begin(&caller, script);
	caller_take(&caller, &open, MESSAGE_OPEN);
	caller_take(&caller, &message, MESSAGE_CANCEL);
	actor_say(script->test, message.cancel.cancelled_id == open.head.request_id);

	/* What was granted before the withdrawal was seen. */
	id = caller_handle(&caller);
	caller_reserve(&caller, &open.open, id, &segment_fd);
	caller_opened(&caller, &open.open, id, segment_fd, true);
	actor_say(script->test, 1);
	(void)actor_hear(script->test);
}

/* M-20 */
Test(connection, open_that_is_late_is_withdrawn_and_leaves_nothing, .timeout = 60)
{
	ipc_client *client = connected(run_late);
	struct thing *thing = NULL;
	struct leaks leaks;

	leaks_begin(&leaks);
	cr_assert_eq(thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_CREATE | IPC_AWAIT,
				     DEADLINE(50)),
		     IPC_ETIMEDOUT);
	cr_assert(actor_hear(&standin.actor));
	cr_assert(actor_hear(&standin.actor));

	cr_assert_eq(client_check(client), 0);
	cr_assert_null(thing);
	leaks_check(&leaks);
	ipc_client_unref(client);
	standin_stop(&standin);
}

static void run_refusal(struct script *script)
{
	union message open, message;
	struct caller caller;

	caller_begin(&caller, script);
	caller_take(&caller, &open, MESSAGE_OPEN);
	caller_done(&caller, open.head.request_id, IPC_ESTALE);
	caller_take(&caller, &message, MESSAGE_CANCEL);
	actor_say(script->test, message.cancel.cancelled_id == open.head.request_id);
	(void)actor_hear(script->test);
}

/* M-51, C-3: it may have been granted by a worker who died, and taken over since; the broker keeps
 * that until it hears that nobody has it. */
Test(connection, a_resume_that_comes_too_late_is_withdrawn, .timeout = 60)
{
	ipc_client *client = connected(run_refusal);
	const struct ipc_session_key key = {.bytes = {1}};
	ipc_session *session;

	cr_assert_eq(ipc_session_resume_wait(&session, client, &key, DEADLINE(30000)), IPC_ESTALE);
	cr_assert(actor_hear(&standin.actor));

	ipc_client_unref(client);
	standin_stop(&standin);
}

static void run_no_room(struct script *script)
{
	struct caller caller;
	union message asked, message;
	int full_fd = open("/dev/full", O_RDWR | O_CLOEXEC);

	caller_begin(&caller, script);
	caller_take(&caller, &asked, MESSAGE_OPEN);
	caller_reserve(&caller, &asked.open, caller_handle(&caller), &full_fd);
	caller_take(&caller, &message, MESSAGE_CONFIRM);
	actor_say(script->test, message.confirm.status);
	caller_done(&caller, asked.head.request_id, message.confirm.status);
	(void)actor_hear(script->test);
}

/* M-52 */
Test(connection, segment_that_cannot_be_reserved_is_told_both_sides, .timeout = 60)
{
	ipc_client *client = connected(run_no_room);
	struct thing *thing;
	struct leaks leaks;
	int r;

	leaks_begin(&leaks);
	r = thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_CREATE, DEADLINE(30000));

	cr_assert_lt(r, 0);
	cr_assert_eq(actor_hear(&standin.actor), r);
	leaks_check(&leaks);
	ipc_client_unref(client);
	standin_stop(&standin);
}

/* ---- several threads ---- */

struct opener {
	ipc_client *client;
	const char *name;
	struct thing *thing;
	int result;
	pthread_t thread;
};

static void *opener_run(void *arg)
{
	struct opener *opener = arg;

	opener->result = thing_open_wait(&opener->thing, opener->client, opener->name,
					 IPC_ROLE_SHARED_A, IPC_AWAIT, DEADLINE(30000));
	return NULL;
}

static void opener_start(struct opener *opener, ipc_client *client, const char *name)
{
	*opener = (struct opener){.client = client, .name = name};
	cr_assert_eq(pthread_create(&opener->thread, NULL, opener_run, opener), 0);
}

enum { OPENERS = 8 };

/* Answers in the reverse order, so that the one who reads is never the first to be served. */
static void run_reverse(struct script *script)
{
	union message opens[OPENERS];
	struct caller caller;

	caller_begin(&caller, script);
	for (unsigned i = 0; i < OPENERS; ++i)
		caller_take(&caller, &opens[i], MESSAGE_OPEN);
	for (unsigned i = OPENERS; i-- > 0;)
		caller_done(&caller, opens[i].head.request_id,
			    opens[i].open.name[0] == 'x' ? IPC_EBUSY : IPC_ENOENT);
	(void)actor_hear(script->test);
}

/* M-42 */
Test(connection, each_thread_gets_its_own_answer, .timeout = 60)
{
	ipc_client *client = connected(run_reverse);
	struct opener openers[OPENERS];

	for (unsigned i = 0; i < OPENERS; ++i)
		opener_start(&openers[i], client, i % 3 ? "x" : "y");

	for (unsigned i = 0; i < OPENERS; ++i) {
		pthread_join(openers[i].thread, NULL);
		cr_assert_eq(openers[i].result, i % 3 ? IPC_EBUSY : IPC_ENOENT);
	}
	ipc_client_unref(client);
	standin_stop(&standin);
}

static void run_hold(struct script *script)
{
	struct caller caller;
	union message message;

	caller_begin(&caller, script);
	for (unsigned i = 0; i < 3; ++i)
		caller_take(&caller, &message, MESSAGE_OPEN);
	actor_say(script->test, 1);
	(void)actor_hear(script->test);
}

static ipc_client *handler_client;
static int handler_errno;

static void cancel_handler(int number)
{
	(void)number;
	errno = EXDEV;
	(void)ipc_client_cancel(handler_client);
	handler_errno = errno;
}

/* M-28 */
Test(connection, cancel_in_a_signal_handler_ends_all_opens, .timeout = 60)
{
	struct sigaction action = {.sa_handler = cancel_handler, .sa_flags = SA_RESTART};
	ipc_client *client = connected(run_hold);
	struct opener openers[3];
	struct thing *thing;

	handler_client = client;
	sigaction(SIGUSR1, &action, NULL);
	for (unsigned i = 0; i < 3; ++i)
		opener_start(&openers[i], client, "x");
	cr_assert(actor_hear(&standin.actor));

	pthread_kill(openers[1].thread, SIGUSR1);

	for (unsigned i = 0; i < 3; ++i) {
		pthread_join(openers[i].thread, NULL);
		cr_assert_eq(openers[i].result, IPC_ECANCELED);
	}
	cr_assert_eq(handler_errno, EXDEV);
	cr_assert_eq(thing_open_wait(&thing, client, "x", IPC_ROLE_SHARED_A, 0, NULL),
		     IPC_ECANCELED);
	ipc_client_unref(client);
	standin_stop(&standin);
}

/* M-6 */
Test(connection, end_of_the_broker_ends_opens_for_good, .timeout = 60)
{
	ipc_client *client = connected(run_hold);
	struct opener openers[3];
	struct thing *thing;

	for (unsigned i = 0; i < 3; ++i)
		opener_start(&openers[i], client, "x");
	cr_assert(actor_hear(&standin.actor));

	standin_stop(&standin);

	for (unsigned i = 0; i < 3; ++i) {
		pthread_join(openers[i].thread, NULL);
		cr_assert_eq(openers[i].result, IPC_ECONNREFUSED);
	}
	cr_assert_eq(thing_open_wait(&thing, client, "x", IPC_ROLE_SHARED_A, 0, NULL),
		     IPC_ECONNREFUSED);
	ipc_client_unref(client);
}

/* M-6: an answer that nobody awaits does not hide the end of the stream. */
Test(connection, end_of_the_broker_is_seen_behind_unread_answers, .timeout = 60)
{
	ipc_client *client = connected(run_late);
	struct thing *thing;

	cr_assert_eq(
		thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_CREATE, DEADLINE(50)),
		IPC_ETIMEDOUT);
	cr_assert(actor_hear(&standin.actor));
	cr_assert(actor_hear(&standin.actor));

	standin_stop(&standin);

	cr_assert_eq(connection_check(&client->connection), IPC_ECONNREFUSED);
	ipc_client_unref(client);
}

/* ---- the socket under our feet ---- */

/* M-24 */
Test(connection, closed_socket_is_stale_and_what_stands_there_now_is_left_alone, .timeout = 60)
{
	ipc_client *client = connected(run_welcome);
	struct thing *thing;
	int fd = client->connection.fd, event_fd = client->connection.event_fd, pair[2];
	char byte;

	close(fd);
	close(event_fd);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
		     0);
	cr_assert(pair[0] == fd || pair[1] == fd);

	cr_assert_eq(thing_open_wait(&thing, client, "x", IPC_ROLE_SHARED_A, 0, NULL), IPC_ESTALE);
	cr_assert_eq(client_check(client), IPC_ESTALE);
	cr_assert_eq(ipc_client_is_alive(client, 77), IPC_ESTALE);
	cr_assert_eq(ipc_client_cancel(client), IPC_ESTALE);
	ipc_client_unref(client);

	cr_assert_eq(recv(pair[0], &byte, 1, MSG_DONTWAIT), -1);
	cr_assert_eq(recv(pair[1], &byte, 1, MSG_DONTWAIT), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(fcntl(pair[0], F_GETFD), FD_CLOEXEC);
	close(pair[0]);
	close(pair[1]);
	standin_stop(&standin);
}

enum { FLOOD = 4000 };

static void run_deaf(struct script *script)
{
	struct caller caller;
	union message open;
	uint64_t id;
	int segment_fd = -1;

	caller_begin(&caller, script);
	caller_take(&caller, &open, MESSAGE_OPEN);
	id = caller_handle(&caller);
	caller_reserve(&caller, &open.open, id, &segment_fd);
	caller_take(&caller, &open, MESSAGE_CONFIRM);
	open.open.size_new = 4096;
	open.open.shape_new[0] = 64;
	open.open.shape_new[1] = 1;
	caller_opened(&caller, &open.open, id, segment_fd, false);

	/* Now the queue fills. */
	actor_say(script->test, actor_hear(script->test));
	actor_say(script->test, atomic_load(&caller.desk->client[caller.slot].closings));
	actor_say(script->test, atomic_load(&caller.desk->cell[LIVENESS_SLOT(id)].closed_id) == id);
	(void)actor_hear(script->test);
}

/* M-44 */
Test(connection, close_does_not_sleep_when_the_socket_is_full, .timeout = 60)
{
	ipc_client *client = connected(run_deaf);
	union message message;
	struct thing *thing;
	unsigned n = 0;

	cr_assert_eq(thing_open_wait(&thing, client, "a", IPC_ROLE_SHARED_A, IPC_CREATE,
				     DEADLINE(30000)),
		     0);
	message_init(&message, MESSAGE_CANCEL, 0);
	while (n < FLOOD && connection_try_send(&client->connection, &message) == 0)
		++n;
	cr_assert_lt(n, FLOOD);

	thing_close(thing);

	actor_say(&standin.actor, 1);
	cr_assert(actor_hear(&standin.actor));
	cr_assert_eq(actor_hear(&standin.actor), 1);
	cr_assert(actor_hear(&standin.actor));
	cr_assert_eq(thing_n_released(), 1);
	ipc_client_unref(client);
	standin_stop(&standin);
}

static void run_full_then_read(struct script *script)
{
	struct caller caller;
	union message message;
	uint64_t cancelled = 0;

	caller_begin(&caller, script);
	(void)actor_hear(script->test);
	while (cancelled != 4711)
		caller_take(&caller, &message, MESSAGE_CANCEL),
			cancelled = message.cancel.cancelled_id;
	actor_say(script->test, 1);
	(void)actor_hear(script->test);
}

Test(connection, withdrawal_that_found_no_room_is_sent_later, .timeout = 60)
{
	ipc_client *client = connected(run_full_then_read);
	union message message;

	message_init(&message, MESSAGE_CANCEL, 0);
	while (connection_try_send(&client->connection, &message) == 0)
		;
	connection_withdraw(&client->connection, 4711);
	actor_say(&standin.actor, 1);

	/* Any look at the socket sends it, as soon as there is room. */
	while (atomic_load(&client->connection.n_unsent) > 0)
		cr_assert_eq(client_check(client), 0);

	cr_assert(actor_hear(&standin.actor));
	ipc_client_unref(client);
	standin_stop(&standin);
}
