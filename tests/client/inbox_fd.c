/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface: chunks that are given by descriptor.
 */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/client/inbox_scene.h"

TestSuite(inbox_fd, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

enum { BYTES = 300 };

static ino_t inode_of(int fd)
{
	struct stat stat;

	cr_assert_eq(fstat(fd, &stat), 0);
	return stat.st_ino;
}

/* The next event is that chunk; its descriptor. */
static int expect_chunk(ipc_inbox_receiver *receiver, uint64_t offset, size_t size)
{
	struct ipc_inbox_event event;

	ASSERT(ipc_inbox_receive(receiver, &event), 0);
	ASSERT(event.type, IPC_INBOX_CHUNK);
	EXPECT(event.offset, offset);
	EXPECT(event.size, size);
	cr_expect_null(event.data);
	cr_assert_geq(event.fd, 0);
	EXPECT(fcntl(event.fd, F_GETFD), FD_CLOEXEC);
	EXPECT(ipc_inbox_mark_applied(receiver, &event), 0);
	return event.fd;
}

/* I-8 */
Test(inbox_fd, chunk_comes_as_the_same_file)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	int fd = file_new(BYTES), got;
	unsigned char byte = 0;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(ipc_inbox_send_chunk_fd(sender, fd, 7, 100), 0);
	ASSERT(chunk(sender, 5), 0);
	ASSERT(ipc_inbox_send_chunk_fd_wait(sender, fd, 0, 0, NULL), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, 1), 0);

	/* It stays the caller's. */
	EXPECT(fcntl(fd, F_GETFD), FD_CLOEXEC);
	EXPECT(eat(receiver), BEGIN(G1));
	got = expect_chunk(receiver, 7, 100);
	EXPECT(inode_of(got), inode_of(fd));
	ASSERT(pread(got, &byte, 1, 7), 1);
	EXPECT(byte, 7);
	close(got);
	EXPECT(eat(receiver), CHUNK(5));
	close(expect_chunk(receiver, 0, 0));
	EXPECT(eat(receiver), END(1));

	close(fd);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-8: no room is needed for what is in it. */
Test(inbox_fd, chunk_may_be_larger_than_the_inbox)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096, .frame_size_max = 16);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	int fd = file_new(1);

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	EXPECT(ipc_inbox_send_chunk_fd(sender, fd, 0, (size_t)IPC_ITEM_SIZE_MAX + 1), IPC_EMSGSIZE);
	ASSERT(ipc_inbox_send_chunk_fd(sender, fd, UINT64_C(1) << 40, IPC_ITEM_SIZE_MAX), 0);
	EXPECT(eat(receiver), BEGIN(G1));
	close(expect_chunk(receiver, UINT64_C(1) << 40, IPC_ITEM_SIZE_MAX));
	close(fd);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* M-12 */
Test(inbox_fd, what_is_no_descriptor_is_refused)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	int fd = file_new(1);

	close(fd);
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	EXPECT(ipc_inbox_send_chunk_fd(sender, fd, 0, 1), IPC_EINVAL);
	EXPECT(ipc_inbox_send_chunk_fd(sender, -1, 0, 1), IPC_EINVAL);
	EXPECT(ipc_inbox_send_chunk_fd_wait(sender, 1 << 20, 0, 1, NULL), IPC_EINVAL);
	EXPECT(eat(receiver), BEGIN(G1));
	EXPECT(eat(receiver), IPC_EAGAIN);
	ASSERT(ipc_inbox_end_snapshot(sender, 1), 0);
	EXPECT(eat(receiver), END(1));
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-5: nor is it where there is no room, and nothing is given up for it. */
Test(inbox_fd, what_is_no_descriptor_is_refused_without_room)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096, .full = IPC_INBOX_FULL_COLLAPSE);
	struct timespec deadline = domain_deadline(WAIT_MS);
	int fd = file_new(1);

	close(fd);
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	while (ipc_inbox_send_chunk_wait(sender, NULL, 0, &past) == 0)
		;
	EXPECT(ipc_inbox_send_chunk_fd_wait(sender, fd, 0, 1, &deadline), IPC_EINVAL);
	EXPECT(ipc_inbox_send_chunk_fd(sender, fd, 0, 1), IPC_EINVAL);
	EXPECT(positions_of(sender).snapshot_wanted, 0);
	ipc_inbox_sender_close(sender);
}

/* I-5: the socket is full before the ring is; a wait goes on when one was taken. */
Test(inbox_fd, more_descriptors_than_the_socket_takes_are_waited_for)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct actor sender;
	int64_t r;
	int n = 0;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	while ((r = order_do(&sender, ORDER_CHUNK_FD, n)) == 0)
		++n;
	EXPECT(r, IPC_EAGAIN);
	cr_expect_gt(n, 3);
	order_sleep(&sender, ORDER_CHUNK_FD_WAIT, n);
	EXPECT(eat(receiver), BEGIN(G1));
	for (int i = 0; i < n; ++i)
		close(expect_chunk(receiver, 0, (size_t)i));
	EXPECT(actor_hear(&sender), 0);
	close(expect_chunk(receiver, 0, (size_t)n));
	EXPECT(order_do(&sender, ORDER_END, 1), 0);
	EXPECT(eat(receiver), END(1));
	actor_kill(&sender);
	ipc_inbox_receiver_close(receiver);
}

/* I-3, I-8: what was committed comes, though its sender is dead. */
Test(inbox_fd, descriptors_of_a_dead_sender_come)
{
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct actor sender;

	SENDER_START(&sender, 0);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	for (int i = 1; i < 4; ++i)
		ASSERT(order_do(&sender, ORDER_CHUNK_FD, i), 0);
	member_end(&sender, true);
	EXPECT(eat(receiver), BEGIN(G1));
	for (size_t i = 1; i < 4; ++i)
		close(expect_chunk(receiver, 0, i));
	EXPECT(eat(receiver), ABORT(SENDER_DIED));
	EXPECT(eat(receiver), IPC_EOWNERDEAD);
	ipc_inbox_receiver_close(receiver);
}

/* I-4, I-8: and what nobody received comes to the next receiver. */
Test(inbox_fd, descriptors_that_a_dead_receiver_did_not_take_come_to_the_next)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	ipc_inbox_receiver *next;
	struct actor receiver;
	int fd = file_new(BYTES), got;

	RECEIVER_START(&receiver, 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(ipc_inbox_send_chunk_fd(sender, fd, 0, BYTES), 0);
	ASSERT(ipc_inbox_end_snapshot(sender, 1), 0);
	member_end(&receiver, true);
	next = RECEIVER_NEW(0);
	EXPECT(eat(next), BEGIN(G1));
	got = expect_chunk(next, 0, BYTES);
	EXPECT(inode_of(got), inode_of(fd));
	close(got);
	EXPECT(eat(next), END(1));
	close(fd);
	ipc_inbox_receiver_close(next);
	ipc_inbox_sender_close(sender);
}

/* I-4, I-8: those of a snapshot that was lost with its receiver do not come instead of others, and
 * leave room in the socket. */
Test(inbox_fd, descriptors_of_a_lost_snapshot_are_dropped)
{
	ipc_inbox_sender *sender = SENDER_NEW(.flags = IPC_STAY);
	int fd = file_new(BYTES), other = file_new(BYTES), got, r;

	for (uint64_t round = 1; round < 5; ++round) {
		struct actor receiver;
		ipc_inbox_receiver *next;

		RECEIVER_START(&receiver, 0);
		ASSERT(ipc_inbox_begin_snapshot(sender, round), 0);
		EXPECT(order_do(&receiver, ORDER_RECEIVE, 0), BEGIN(round));
		while ((r = ipc_inbox_send_chunk_fd(sender, fd, 0, BYTES)) == 0)
			;
		EXPECT(r, IPC_EAGAIN);
		member_end(&receiver, true);
		next = RECEIVER_NEW(0);
		EXPECT(eat(next), ABORT(RECEIVER_CHANGED));
		ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
		EXPECT(eat(next), BEGIN(G1));
		ASSERT(ipc_inbox_send_chunk_fd(sender, other, 0, BYTES), 0);
		got = expect_chunk(next, 0, BYTES);
		EXPECT(inode_of(got), inode_of(other));
		close(got);
		ASSERT(ipc_inbox_end_snapshot(sender, round), 0);
		EXPECT(eat(next), END(round));
		ipc_inbox_receiver_close(next);
	}

	close(other);
	close(fd);
	ipc_inbox_sender_close(sender);
}

/* I-5, I-8 */
Test(inbox_fd, descriptors_of_a_backlog_that_was_given_up_are_dropped)
{
	ipc_inbox_sender *sender = SENDER_NEW(.capacity = 4096, .full = IPC_INBOX_FULL_COLLAPSE);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	int fd = file_new(BYTES), other = file_new(BYTES), got, r;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	while ((r = ipc_inbox_send_chunk_fd(sender, fd, 0, BYTES)) == 0)
		;
	EXPECT(r, IPC_EOVERFLOW);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	EXPECT(eat(receiver), GAP(COLLAPSED, 0));
	EXPECT(eat(receiver), BEGIN(G2));
	ASSERT(ipc_inbox_send_chunk_fd(sender, other, 0, BYTES), 0);
	got = expect_chunk(receiver, 0, BYTES);
	EXPECT(inode_of(got), inode_of(other));
	close(got);
	close(other);
	close(fd);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-8: what cannot be taken now is taken later. */
Test(inbox_fd, receiver_without_a_free_descriptor_gets_it_later)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	struct ipc_inbox_event event;
	struct rlimit before, none;
	int fd = file_new(BYTES), r;

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	ASSERT(ipc_inbox_send_chunk_fd(sender, fd, 0, BYTES), 0);
	ASSERT(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 3;
	EXPECT(eat(receiver), BEGIN(G1));
	ASSERT(setrlimit(RLIMIT_NOFILE, &none), 0);
	r = ipc_inbox_receive(receiver, &event);
	ASSERT(setrlimit(RLIMIT_NOFILE, &before), 0);
	EXPECT(r, IPC_EMFILE);
	close(expect_chunk(receiver, 0, BYTES));
	close(fd);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}

/* I-3, I-8: whoever holds them meanwhile. */
Test(inbox_fd, descriptors_survive_both_processes)
{
	ipc_inbox_receiver *receiver;
	struct actor sender;

	SENDER_START(&sender, .flags = IPC_CREATE | IPC_KEEP);
	ASSERT(order_do(&sender, ORDER_BEGIN, G1), 0);
	ASSERT(order_do(&sender, ORDER_CHUNK_FD, 9), 0);
	ASSERT(order_do(&sender, ORDER_END, 1), 0);
	member_end(&sender, true);
	domain_kill_worker(&fixture_domain);
	receiver = RECEIVER_NEW(0);
	EXPECT(eat(receiver), BEGIN(G1));
	close(expect_chunk(receiver, 0, 9));
	EXPECT(eat(receiver), END(1));
	ipc_inbox_receiver_close(receiver);
	ASSERT(take_away(NAME, 0), 0);
}

/* I-8: they leave no descriptor behind: the fixture counts. */
Test(inbox_fd, handles_that_close_leave_no_descriptor)
{
	ipc_inbox_sender *sender = SENDER_NEW(0);
	ipc_inbox_receiver *receiver = RECEIVER_NEW(0);
	int fd = file_new(1);

	ASSERT(ipc_inbox_begin_snapshot(sender, G1), 0);
	while (ipc_inbox_send_chunk_fd(sender, fd, 0, 1) == 0)
		;
	close(fd);
	ipc_inbox_receiver_close(receiver);
	ipc_inbox_sender_close(sender);
}
