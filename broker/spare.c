/* SPDX-License-Identifier: MIT */
#include "broker/spare.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/fdpass.h"

#define PATIENCE_NS NS_PER_S

/* Forks twice: the process between the two ends at once, so that the spare is nobody's child. */
static int fork_twice(void)
{
	pid_t pid = fork(), second;
	int status;

	if (pid == 0) {
		second = fork();
		if (second == 0)
			return 0;
		_exit(second < 0 ? 1 : 0);
	}
	if (pid < 0)
		return -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0) {
		errno = EAGAIN;
		return -1;
	}
	return 1;
}

int spare_start(int (*raise)(int fd), int (*run)(int leash_fd, void *userdata), void *userdata)
{
	int leash_fds[2] = { -1, -1 };
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, leash_fds) < 0)
		return -1;
	leash_fds[0] = raise(leash_fds[0]);
	leash_fds[1] = raise(leash_fds[1]);

	r = fork_twice();
	if (r == 0) {
		leash_fds[0] = fd_close(leash_fds[0]);
		_exit(run(leash_fds[1], userdata));
	}

	leash_fds[1] = fd_close(leash_fds[1]);
	return r < 0 ? fd_close(leash_fds[0]) : leash_fds[0];
}

int spare_end(int leash_fd)
{
	uint64_t deadline_ns = clock_after_ns(PATIENCE_NS);
	struct pollfd pollfd = { .fd = leash_fd, .events = POLLIN };
	uint64_t now_ns;

	if (leash_fd < 0)
		return -1;

	(void)send(leash_fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	while ((now_ns = clock_now_ns()) < deadline_ns) {
		if (poll(&pollfd, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1) > 0)
			break;
	}
	return fd_close(leash_fd);
}
