/* SPDX-License-Identifier: MIT */
/*
 * session: messages that carry descriptors.
 */
#include <sys/resource.h>

#include "tests/client/session_scene.h"

TestSuite(session_fd, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

/* The end to read of a pipe that has one byte. */
static int byte_new(unsigned char byte)
{
	int fds[2];

	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	cr_assert_eq(write(fds[1], &byte, 1), 1);
	close(fds[1]);
	return fds[0];
}

static int byte_of(int fd)
{
	unsigned char byte;

	if (fd < 0 || read(fd, &byte, 1) != 1)
		return -1;
	close(fd);
	return byte;
}

static int put_fd(ipc_session *session, uint32_t number, unsigned char byte)
{
	int fd = byte_new(byte);
	int r = ipc_session_send_fd(session, fd, &number, sizeof(number));

	/* It stays the caller's. */
	cr_assert_eq(close(fd), 0);
	return r;
}

/* C-11 */
Test(session_fd, a_descriptor_comes_with_its_message)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message;
	struct timespec deadline = domain_deadline(WAIT_MS);
	int fd = byte_new('c');

	ASSERT(put(pair.connected, 1), 0);
	ASSERT(put_fd(pair.connected, 2, 'a'), 0);
	ASSERT(put(pair.connected, 3), 0);
	ASSERT(put_fd(pair.connected, 4, 'b'), 0);
	ASSERT(ipc_session_send_fd_wait(pair.connected, fd, NULL, 0, &deadline), 0);
	close(fd);

	EXPECT(get(pair.accepted, &message), 1);
	EXPECT(message.fd, -1);
	EXPECT(get(pair.accepted, &message), 2);
	EXPECT(message.flags, IPC_MESSAGE_FD);
	EXPECT(fcntl(message.fd, F_GETFD), FD_CLOEXEC);
	EXPECT(byte_of(message.fd), 'a');
	EXPECT(get(pair.accepted, &message), 3);
	EXPECT(message.fd, -1);
	EXPECT(message.flags, 0);
	EXPECT(get(pair.accepted, &message), 4);
	EXPECT(byte_of(message.fd), 'b');
	ASSERT(ipc_session_receive(pair.accepted, &message), 0);
	EXPECT(message.size, 0);
	EXPECT(byte_of(message.fd), 'c');
	pair_close(&pair);
}

/* C-11: what is no descriptor. */
Test(session_fd, what_is_no_descriptor_is_not_sent)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message;
	int fd = byte_new('a');

	close(fd);
	EXPECT(ipc_session_send_fd(pair.connected, fd, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_session_send_fd(pair.connected, -1, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_session_send_fd_wait(pair.connected, -1, NULL, 0, NULL), IPC_EINVAL);
	EXPECT(ipc_session_receive(pair.accepted, &message), IPC_EAGAIN);
	EXPECT(state_of(pair.connected).sent, 0);
	pair_close(&pair);
}

/* C-11: taken by one that died: lost; not yet taken: kept, whichever of them dies. */
Test(session_fd, descriptors_that_were_not_taken_outlive_both)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct ipc_session_message message;
	ipc_session *session, *resumed = NULL;
	struct ipc_session_key key;
	struct actor actor;

	PARTY_START(&actor, 0);
	session = accept_from(listener, &actor);
	key = key_of(session);
	ASSERT(order_do(&actor, ORDER_KEY, 0, 0), 0);
	ASSERT(put_fd(session, 1, 'a'), 0);
	ASSERT(put_fd(session, 2, 'b'), 0);
	ASSERT(put(session, 3), 0);
	ASSERT(put_fd(session, 4, 'd'), 0);
	EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), 1);
	EXPECT(order_do(&actor, ORDER_FD, 0, 0), 'a');
	EXPECT(order_do(&actor, ORDER_RECEIVE, 0, 0), 2);

	/* The sender first, then the receiver. */
	ipc_session_detach(session);
	EXPECT(order_do(&actor, ORDER_PEERS_WAIT, 0, 0), 0);
	actor_kill(&actor);
	ASSERT(resume_by(&resumed, fixture_client, &keys[0]), 0);
	for (uint32_t i = 1; i <= 2; ++i) {
		EXPECT(get(resumed, &message), i);
		EXPECT(message.flags,
		       IPC_MESSAGE_REDELIVERED | IPC_MESSAGE_FD | IPC_MESSAGE_FD_LOST);
		EXPECT(message.fd, -1);
	}
	EXPECT(get(resumed, &message), 3);
	EXPECT(message.flags, 0);
	EXPECT(get(resumed, &message), 4);
	EXPECT(message.flags, IPC_MESSAGE_FD);
	EXPECT(byte_of(message.fd), 'd');

	/* And the next sender's are not mixed up with those. */
	ASSERT(resume_by(&session, fixture_client, &key), 0);
	ASSERT(put_fd(session, 5, 'e'), 0);
	EXPECT(get(resumed, &message), 5);
	EXPECT(message.flags, IPC_MESSAGE_FD);
	EXPECT(byte_of(message.fd), 'e');
	ipc_session_close(session);
	ipc_session_close(resumed);
	ipc_listener_close(listener);
}

/* C-6, C-11: as many as the socket takes; who waits goes on when one is received. */
Test(session_fd, a_full_socket_is_a_want_of_room)
{
	ipc_listener *listener = LISTENER_NEW(.capacity = UINT64_C(1) << 20);
	struct ipc_session_message message;
	struct actor actor;
	ipc_session *session;
	unsigned n;
	int64_t r;

	PARTY_START(&actor, 0);
	session = accept_from(listener, &actor);
	for (n = 0; (r = order_do(&actor, ORDER_SEND_FD, n + 1, 0)) == 0; ++n)
		;
	EXPECT(r, IPC_EAGAIN);
	cr_expect_gt(n, 1);
	EXPECT(order_do(&actor, ORDER_SEND, n + 1, 0), 0);
	EXPECT(order_do(&actor, ORDER_SEND_FD, n + 2, 0), IPC_EAGAIN);
	order_sleep(&actor, ORDER_SEND_FD_WAIT, n + 2, 0);
	EXPECT(get(session, &message), 1);
	close(message.fd);
	EXPECT(actor_hear(&actor), 0);
	for (unsigned i = 2; i <= n + 2; ++i) {
		ASSERT(get(session, &message), i);
		EXPECT(message.fd >= 0, i != n + 1);
		if (message.fd >= 0)
			close(message.fd);
	}
	actor_kill(&actor);
	ipc_session_close(session);
	ipc_listener_close(listener);
}

/* C-11: it stays until there is room for it. */
Test(session_fd, without_a_free_descriptor_the_message_stays)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message[3];
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct rlimit limit, none;
	int fd;

	ASSERT(put(pair.connected, 1), 0);
	ASSERT(put_fd(pair.connected, 2, 'x'), 0);
	ASSERT(put(pair.connected, 3), 0);
	fd = dup(0);
	close(fd);
	ASSERT(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = (rlim_t)fd;
	ASSERT(setrlimit(RLIMIT_NOFILE, &none), 0);
	EXPECT(ipc_session_receive_many(pair.accepted, message, 3), 1);
	EXPECT(ipc_session_receive(pair.accepted, message), IPC_EMFILE);
	EXPECT(ipc_session_receive_wait(pair.accepted, message, &deadline), IPC_EMFILE);
	ASSERT(setrlimit(RLIMIT_NOFILE, &limit), 0);
	EXPECT(get(pair.accepted, message), 2);
	EXPECT(byte_of(message[0].fd), 'x');
	EXPECT(get(pair.accepted, message), 3);
	pair_close(&pair);
}

/* C-11: those that nobody takes go with the session. */
Test(session_fd, those_that_nobody_takes_go_with_the_session)
{
	struct pair pair = PAIR_NEW(0);
	unsigned char byte = 0;
	int fds[2];

	ASSERT(pipe2(fds, O_CLOEXEC), 0);
	ASSERT(ipc_session_send_fd(pair.connected, fds[1], NULL, 0), 0);
	close(fds[1]);
	pair_close(&pair);

	/* The other end of the pipe hangs up when the last copy is gone. */
	EXPECT(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}
