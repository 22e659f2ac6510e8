/* SPDX-License-Identifier: MIT */
#include "libipc/platform/fdpass.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ipc/error.h>

#include "tests/support/leaks.h"

static int pair[2];
static struct leaks leaks;

static void setup(void)
{
	/* Whatever the test framework does with it: a send to nobody may not end the process. */
	signal(SIGPIPE, SIG_DFL);
	leaks_begin(&leaks);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static void teardown(void)
{
	fd_closep(&pair[0]);
	fd_closep(&pair[1]);
	leaks_check(&leaks);
}

static _Bool is_same_file(int a, int b)
{
	struct stat first, second;

	return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_ino == second.st_ino &&
	       first.st_dev == second.st_dev;
}

/* Sends more descriptors in one message than fdpass_send() would. */
static void send_many(int fd, unsigned n)
{
	union {
		struct cmsghdr align;
		unsigned char buffer[CMSG_SPACE(64 * sizeof(int))];
	} control = {0};
	struct iovec vector = {.iov_base = "x", .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = control.buffer,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
	for (unsigned i = 0; i < n; ++i)
		memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &fd, sizeof(int));
	cr_assert_eq(sendmsg(pair[0], &message, 0), 1);
}

Test(fdpass, bytes_and_descriptors_arrive, .init = setup, .fini = teardown, .timeout = 60)
{
	int fds[FDPASS_FDS_MAX], ends[2];
	char text[16];
	unsigned n_fds;
	size_t size;

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	cr_assert_eq(fdpass_send(pair[0], "hello", 5, ends, 2), 0);
	cr_assert_eq(fdpass_receive(pair[1], text, sizeof(text), &size, fds, &n_fds), 0);

	cr_assert_eq(size, 5);
	cr_assert_eq(memcmp(text, "hello", 5), 0);
	cr_assert_eq(n_fds, 2);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert(is_same_file(fds[i], ends[i]));
		cr_assert_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		close(fds[i]);
		close(ends[i]);
	}
}

Test(fdpass, most_descriptors_at_once, .init = setup, .fini = teardown, .timeout = 60)
{
	int fds[FDPASS_FDS_MAX], sent[FDPASS_FDS_MAX];
	unsigned n_fds;
	size_t size;
	char byte;

	for (unsigned i = 0; i < FDPASS_FDS_MAX; ++i)
		sent[i] = pair[0];
	cr_assert_eq(fdpass_send(pair[0], "x", 1, sent, FDPASS_FDS_MAX), 0);
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, fds, &n_fds), 0);
	cr_assert_eq(n_fds, FDPASS_FDS_MAX);
	while (n_fds > 0)
		close(fds[--n_fds]);
}

Test(fdpass, empty_and_full_sockets_do_not_block, .init = setup, .fini = teardown, .timeout = 60)
{
	char text[512] = "";
	unsigned n = 0;
	size_t size;
	int r;

	cr_assert_eq(fdpass_receive(pair[1], text, sizeof(text), &size, NULL, NULL), IPC_EAGAIN);
	cr_assert_eq(fdpass_peek(pair[1], text, sizeof(text), &size), IPC_EAGAIN);

	do
		r = fdpass_send(pair[0], text, sizeof(text), NULL, 0);
	while (r == 0 && ++n < 100000);
	cr_assert_eq(r, IPC_EAGAIN);

	while (n > 0) {
		cr_assert_eq(fdpass_receive(pair[1], text, sizeof(text), &size, NULL, NULL), 0);
		--n;
	}
	cr_assert_eq(fdpass_receive(pair[1], text, sizeof(text), &size, NULL, NULL), IPC_EAGAIN);
}

Test(fdpass, peer_that_is_gone_shows_without_a_signal, .init = setup, .fini = teardown,
     .timeout = 60)
{
	char byte;
	size_t size;

	cr_assert_eq(fdpass_send(pair[0], "x", 1, NULL, 0), 0);
	fd_closep(&pair[0]);

	/* What it said before comes first. */
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, NULL, NULL), 0);
	cr_assert_eq(fdpass_peek(pair[1], &byte, 1, &size), IPC_EPIPE);
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, NULL, NULL), IPC_EPIPE);
	cr_assert_eq(fdpass_send(pair[1], "x", 1, NULL, 0), IPC_EPIPE);
}

Test(fdpass, peer_that_left_our_words_unread_is_gone_too, .init = setup, .fini = teardown,
     .timeout = 60)
{
	char byte;
	size_t size;
	int r;

	cr_assert_eq(fdpass_send(pair[1], "x", 1, NULL, 0), 0);
	fd_closep(&pair[0]);

	r = fdpass_receive(pair[1], &byte, 1, &size, NULL, NULL);
	cr_assert_eq(r, IPC_EPIPE);
}

Test(fdpass, message_without_bytes_is_not_the_end, .init = setup, .fini = teardown, .timeout = 60)
{
	size_t size = 7;
	char byte;

	cr_assert_eq(send(pair[0], "", 0, 0), 0);
	cr_assert_eq(fdpass_peek(pair[1], &byte, 1, &size), 0);
	cr_assert_eq(size, 0);
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, NULL, NULL), 0);
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, NULL, NULL), IPC_EAGAIN);
}

Test(fdpass, too_large_a_message_is_dropped_with_its_descriptors, .init = setup, .fini = teardown,
     .timeout = 60)
{
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds = 77;
	size_t size = 77;
	char text[4];

	cr_assert_eq(fdpass_send(pair[0], "hello", 5, pair, 2), 0);
	cr_assert_eq(fdpass_send(pair[0], "next", 4, NULL, 0), 0);

	cr_assert_eq(fdpass_receive(pair[1], text, sizeof(text), &size, fds, &n_fds), IPC_EMSGSIZE);
	cr_assert_eq(size, 77);
	cr_assert_eq(n_fds, 77);

	cr_assert_eq(fdpass_receive(pair[1], text, sizeof(text), &size, fds, &n_fds), 0);
	cr_assert_eq(n_fds, 0);
	cr_assert_eq(memcmp(text, "next", 4), 0);
}

Test(fdpass, more_descriptors_than_allowed_are_closed, .init = setup, .fini = teardown,
     .timeout = 60)
{
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds;
	size_t size;
	char byte;

	send_many(pair[0], FDPASS_FDS_MAX + 1);
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, fds, &n_fds), IPC_EMFILE);

	/* 2 * n ints: room that rounding gives in the control buffer may let one more in; it may
	 * not stay open. */
	send_many(pair[0], 2 * FDPASS_FDS_MAX);
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, fds, &n_fds), IPC_EMFILE);
}

Test(fdpass, lost_descriptors_are_told, .init = setup, .fini = teardown, .timeout = 60)
{
	struct rlimit before, none = {0, 0};
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds;
	size_t size;
	char byte;
	int r;

	cr_assert_eq(fdpass_send(pair[0], "x", 1, pair, 2), 0);

	getrlimit(RLIMIT_NOFILE, &before);
	none.rlim_max = before.rlim_max;
	setrlimit(RLIMIT_NOFILE, &none);
	r = fdpass_receive(pair[1], &byte, 1, &size, fds, &n_fds);
	setrlimit(RLIMIT_NOFILE, &before);

	cr_assert_eq(r, IPC_EMFILE);
}

Test(fdpass, unwanted_descriptors_never_come_in, .init = setup, .fini = teardown, .timeout = 60)
{
	size_t size;
	char byte;

	send_many(pair[0], 20);
	cr_assert_eq(fdpass_peek(pair[1], &byte, 1, &size), 0);
	cr_assert_eq(fdpass_receive(pair[1], &byte, 1, &size, NULL, NULL), 0);
	cr_assert_eq(size, 1);
}

Test(fdpass, peek_leaves_the_message, .init = setup, .fini = teardown, .timeout = 60)
{
	char text[8];
	size_t size;

	cr_assert_eq(fdpass_send(pair[0], "abc", 3, NULL, 0), 0);
	for (unsigned i = 0; i < 3; ++i) {
		memset(text, 0, sizeof(text));
		cr_assert_eq(fdpass_peek(pair[1], text, sizeof(text), &size), 0);
		cr_assert_eq(size, 3);
		cr_assert_str_eq(text, "abc");
	}
	cr_assert_eq(fdpass_receive(pair[1], text, sizeof(text), &size, NULL, NULL), 0);
	cr_assert_eq(fdpass_peek(pair[1], text, sizeof(text), &size), IPC_EAGAIN);
}

Test(fdpass, descriptor_that_somebody_closed_is_stale, .timeout = 60)
{
	size_t size;
	char byte;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	cr_assert_eq(fdpass_send(-1, "x", 1, NULL, 0), IPC_ESTALE);
	cr_assert_eq(fdpass_receive(-1, &byte, 1, &size, NULL, NULL), IPC_ESTALE);
	cr_assert_eq(fdpass_send(fd, "x", 1, NULL, 0), IPC_ESTALE);
	cr_assert_eq(fdpass_receive(fd, &byte, 1, &size, NULL, NULL), IPC_ESTALE);
	close(fd);
}

Test(fdpass, close_takes_none_and_keeps_errno, .timeout = 60)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	errno = 77;
	cr_assert_eq(fd_close(-1), -1);
	cr_assert_eq(fd_close(1000000), -1);
	cr_assert_eq(errno, 77);

	fd_closep(&fd);
	cr_assert_eq(fd, -1);
}
