/* SPDX-License-Identifier: MIT */
#include "broker/spare.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/holdings.h"
#include "broker/notice.h"
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

int spare_start(int *ret_leash_fd)
{
	int leash_fds[2] = {-1, -1};
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, leash_fds) < 0)
		return -1;
	leash_fds[0] = holdings_raise(leash_fds[0]);
	leash_fds[1] = holdings_raise(leash_fds[1]);

	r = fork_twice();
	if (r <= 0)
		leash_fds[0] = fd_close(leash_fds[0]);
	if (r != 0)
		leash_fds[1] = fd_close(leash_fds[1]);
	if (r >= 0)
		*ret_leash_fd = leash_fds[r == 0];
	return r;
}

bool spare_wait(int leash_fd, int handover_fd, struct fdstore *store)
{
	struct pollfd pollfds[] = {{.fd = leash_fd, .events = POLLIN},
				   {.fd = handover_fd, .events = POLLIN}};
	enum notice_result result = NOTICE_NONE;
	bool is_complete = false;
	struct notice notice;
	char byte;

	while (result != NOTICE_END) {
		if (poll(pollfds, 2, -1) < 0 && errno != EINTR)
			return false;

		/* A byte: the keeper ends in good order.  The end of the stream: it is dead, but
		 * its worker may not have noticed yet. */
		if (pollfds[0].revents != 0) {
			if (recv(leash_fd, &byte, 1, MSG_DONTWAIT) == 1)
				_exit(0);
			pollfds[0].fd = -1;
		}

		while ((result = notice_read(handover_fd, &notice)) == NOTICE_READ) {
			is_complete |= notice.is_complete;
			if (notice.is_store && notice.fd >= 0)
				(void)holdings_add(store, notice.name, notice.fd);
			else
				(void)fd_close(notice.fd);
		}
	}
	return is_complete;
}

int spare_end(int leash_fd)
{
	uint64_t deadline_ns = clock_after_ns(PATIENCE_NS);
	struct pollfd pollfd = {.fd = leash_fd, .events = POLLIN};
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
