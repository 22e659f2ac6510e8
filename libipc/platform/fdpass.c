/* SPDX-License-Identifier: MIT */
#include "libipc/platform/fdpass.h"

/*
 * sendmsg() and recvmsg() with their traps taken out: what came along is closed on every path that
 * does not hand it out, and a message without bytes is told from the end of the stream.
 */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/syserr.h"

union fdpass_control {
	struct cmsghdr align;
	unsigned char buffer[CMSG_SPACE(FDPASS_FDS_MAX * sizeof(int))];
};

int fd_close(int fd)
{
	int saved_errno = errno;

	/* Linux closes on EINTR too; repeating it would close a stranger's. */
	if (fd >= 0)
		(void)close(fd);

	errno = saved_errno;
	return -1;
}

void fd_closep(int *fd)
{
	*fd = fd_close(*fd);
}

int fd_move_up(int *fd)
{
	int moved;

	if (*fd > STDERR_FILENO)
		return 0;

	moved = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (moved < 0)
		return syserr(SYSERR_SOCKET, errno);

	(void)fd_close(*fd);
	*fd = moved;
	return 0;
}

int fdpass_send(int socket_fd, const void *data, size_t size, const int *fds, unsigned n_fds)
{
	union fdpass_control control;
	struct iovec vector = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
	ssize_t n;

	assert(n_fds <= FDPASS_FDS_MAX);

	if (n_fds > 0) {
		memset(&control, 0, sizeof(control));
		message.msg_control = control.buffer;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, n_fds * sizeof(int));
	}

	do
		n = sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);

	return n < 0 ? syserr(SYSERR_SEND, errno) : 0;
}

/* What the message brought, whatever its type says: descriptors that are not taken out here would
 * stay open for ever. */
static unsigned fdpass_collect(struct msghdr *message, int fds[FDPASS_FDS_MAX])
{
	unsigned n_fds = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;

		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n && n_fds < FDPASS_FDS_MAX; ++i)
			memcpy(&fds[n_fds++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}

	return n_fds;
}

/* recv() says 0 for an empty message as well as at the end; only the end also shows in poll(). */
static bool fdpass_has_hung_up(int socket_fd)
{
	struct pollfd poll_fd = {.fd = socket_fd, .events = POLLRDHUP};

	return poll(&poll_fd, 1, 0) > 0 &&
	       (poll_fd.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL));
}

static int fdpass_receive_flags(int socket_fd, void *data, size_t size, size_t *ret_size, int *fds,
				unsigned *ret_n_fds, int flags)
{
	union fdpass_control control;
	struct iovec vector = {.iov_base = data, .iov_len = size};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
	unsigned n_fds = 0;
	ssize_t n;
	int r = 0;

	if (fds) {
		message.msg_control = control.buffer;
		message.msg_controllen = sizeof(control.buffer);
	}

	do
		n = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && errno == EINTR);

	if (n < 0)
		return syserr(SYSERR_RECEIVE, errno);

	if (fds)
		n_fds = fdpass_collect(&message, fds);

	if (message.msg_flags & MSG_TRUNC)
		r = IPC_EMSGSIZE;
	else if (fds && (message.msg_flags & MSG_CTRUNC))
		r = IPC_EMFILE;
	else if (n == 0 && fdpass_has_hung_up(socket_fd))
		r = IPC_EPIPE;

	if (r < 0) {
		while (n_fds > 0)
			(void)fd_close(fds[--n_fds]);
		return r;
	}

	*ret_size = (size_t)n;
	if (ret_n_fds)
		*ret_n_fds = n_fds;
	return 0;
}

int fdpass_receive(int socket_fd, void *data, size_t size, size_t *ret_size, int *fds,
		   unsigned *ret_n_fds)
{
	return fdpass_receive_flags(socket_fd, data, size, ret_size, fds, ret_n_fds, 0);
}

int fdpass_peek(int socket_fd, void *data, size_t size, size_t *ret_size)
{
	return fdpass_receive_flags(socket_fd, data, size, ret_size, NULL, NULL, MSG_PEEK);
}
