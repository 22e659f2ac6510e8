/* SPDX-License-Identifier: MIT */
#include "libipc/platform/peer.h"

/*
 * SO_PEERCRED alone names a pid that may be somebody else's by now; SO_PEERPIDFD names the process
 * itself.  Where it is missing, the pidfd of that pid is a guess, and becomes certain when a
 * message came from that pid while the process behind the pidfd was alive.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/syserr.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* Groups that fit on the stack; whoever has more costs an allocation. */
#define PEER_GROUPS_USUAL 64

static _Atomic uint32_t peer_refuses_peerpidfd;

void peer_refuse_peerpidfd(void)
{
	atomic_store_explicit(&peer_refuses_peerpidfd, 1, memory_order_relaxed);
}

/* 0, with -1 where the kernel has no such option; or negative. */
static int peer_get_pidfd(int socket_fd, int *ret_pidfd)
{
	socklen_t length = sizeof(*ret_pidfd);
	int pidfd = -1;

	*ret_pidfd = -1;

	if (atomic_load_explicit(&peer_refuses_peerpidfd, memory_order_relaxed))
		return 0;

	if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) == 0) {
		*ret_pidfd = pidfd;
		return 0;
	}

	switch (errno) {
	case ENOPROTOOPT:
		return 0;
	case EINVAL:
		/* How kernels before 6.16 say that the peer has been reaped; later ones give the
		 * descriptor all the same. */
		return IPC_ESTALE;
	default:
		return syserr(SYSERR_SOCKOPT, errno);
	}
}

static int peer_guess_pidfd(int socket_fd, pid_t pid, int *ret_pidfd)
{
	int one = 1;
	int pidfd;

	/* Of a pid namespace that is not visible from here: nothing to watch it by. */
	if (pid <= 0)
		return IPC_EPROTONOSUPPORT;

	/* The confirmation needs the credentials of what comes from now on. */
	if (setsockopt(socket_fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0)
		return syserr(SYSERR_SOCKOPT, errno);

	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return syserr(SYSERR_PIDFD, errno);

	*ret_pidfd = pidfd;
	return 0;
}

int peer_identify(int socket_fd, struct peer_identity *ret, bool *ret_needs_confirmation)
{
	CLEANUP(fd_closep) int pidfd = -1;
	struct ucred credentials;
	socklen_t length = sizeof(credentials);
	bool needs_confirmation;
	int r;

	if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
		return syserr(SYSERR_SOCKOPT, errno);

	r = peer_get_pidfd(socket_fd, &pidfd);
	if (r < 0)
		return r;

	needs_confirmation = pidfd < 0;
	if (needs_confirmation) {
		r = peer_guess_pidfd(socket_fd, credentials.pid, &pidfd);
		if (r < 0)
			return r;
	}

	if (peer_has_ended(pidfd))
		return IPC_ESTALE;

	*ret = (struct peer_identity){
		.pid = credentials.pid,
		.uid = credentials.uid,
		.gid = credentials.gid,
		.pidfd = pidfd,
	};
	pidfd = -1;
	*ret_needs_confirmation = needs_confirmation;
	return 0;
}

int peer_sender(int socket_fd, pid_t *ret_pid)
{
	union {
		struct cmsghdr align;
		unsigned char buffer[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct msghdr message = {.msg_control = control.buffer,
				 .msg_controllen = sizeof(control.buffer)};
	struct ucred credentials;
	ssize_t n;

	do
		n = recvmsg(socket_fd, &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);

	if (n < 0)
		return syserr(SYSERR_RECEIVE, errno);

	/* Credentials come first and fill the buffer, so no descriptor of the message is ever
	 * installed here. */
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS ||
		    c->cmsg_len != CMSG_LEN(sizeof(credentials)))
			continue;

		memcpy(&credentials, CMSG_DATA(c), sizeof(credentials));
		*ret_pid = credentials.pid;
		return 0;
	}

	/* Sent before SO_PASSCRED was set, or the end of the stream. */
	return IPC_EAGAIN;
}

int peer_identity_confirm(const struct peer_identity *identity, pid_t sender_pid)
{
	/* This order: the message came from the pid, and afterwards the process behind the pidfd
	 * lives, so they are one. */
	if (sender_pid != identity->pid || peer_has_ended(identity->pidfd))
		return IPC_ESTALE;

	return 0;
}

int peer_has_ended(int pidfd)
{
	struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
	int r;

	do
		r = poll(&poll_fd, 1, 0);
	while (r < 0 && errno == EINTR);

	/* Anything but a plain yes is no: only a confirmed death may release what a process holds.
	 */
	return r > 0 && (poll_fd.revents & (POLLIN | POLLHUP)) && !(poll_fd.revents & POLLNVAL);
}

bool peer_is_gone(pid_t tid)
{
	int saved_errno = errno;
	int cancel_state;
	bool is_gone;
	int pidfd;

	/* The caller may hold a mutex: no thread ends in poll() or close(). */
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	if (sched_getscheduler(tid) < 0) {
		is_gone = errno == ESRCH;
	} else {
		/* Refused for all threads but a process's first. */
		pidfd = (int)syscall(SYS_pidfd_open, tid, 0);
		is_gone = pidfd >= 0 && peer_has_ended(pidfd);
		(void)fd_close(pidfd);
	}

	(void)pthread_setcancelstate(cancel_state, NULL);
	errno = saved_errno;
	return is_gone;
}

static bool peer_groups_contain(const gid_t *groups, socklen_t length, gid_t gid)
{
	for (size_t i = 0; i < length / sizeof(gid_t); ++i)
		if (groups[i] == gid)
			return true;

	return false;
}

bool peer_in_group(int socket_fd, const struct peer_identity *identity, gid_t gid)
{
	gid_t usual[PEER_GROUPS_USUAL];
	socklen_t length = sizeof(usual);
	bool contains = false;
	gid_t *many;

	if (identity->gid == gid)
		return true;

	if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERGROUPS, usual, &length) == 0)
		return peer_groups_contain(usual, length, gid);

	/* ERANGE tells the size, which the peer cannot change any more: the groups are those of its
	 * connect(). */
	if (errno != ERANGE)
		return false;

	many = malloc(length);
	if (many && getsockopt(socket_fd, SOL_SOCKET, SO_PEERGROUPS, many, &length) == 0)
		contains = peer_groups_contain(many, length, gid);

	free(many);
	return contains;
}

void peer_process_name(pid_t pid, char *name, unsigned size)
{
	CLEANUP(fd_closep) int fd = -1;
	char path[32];
	ssize_t n;

	if (size == 0)
		return;

	name[0] = '\0';
	if (pid <= 0)
		return;

	(void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;

	n = read(fd, name, size - 1);
	if (n < 0)
		n = 0;
	if (n > 0 && name[n - 1] == '\n')
		--n;
	name[n] = '\0';

	/* The process chose it, and it ends up in logs and on terminals. */
	for (char *c = name; *c; ++c)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}
