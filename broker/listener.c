/* SPDX-License-Identifier: MIT */
#include "broker/listener.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "broker/log.h"
#include "broker/peer.h"
#include "broker/worker.h"
#include "libipc/platform/fdpass.h"

/*
 * Death: a connection that was accepted and not stored ends with the worker; its client has not
 * been welcomed and connects again.
 */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

/* Connections taken before the clients have their turn. */
#define SHARE 64

/* For a moment without descriptors.  Made by what the sandbox allows. */
static int spare_make(struct worker *worker)
{
	return segment_new_sealed(&worker->spare_fd, "ipc-spare", segment_round(1));
}

static bool kernel_has_peerpidfd(void)
{
	socklen_t size = sizeof(int);
	int sockets[2], pidfd;
	bool has = false;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return false;

	if (getsockopt(sockets[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0) {
		fd_close(pidfd);
		has = true;
	}
	fd_close(sockets[0]);
	fd_close(sockets[1]);
	return has;
}

int listener_init(struct worker *worker)
{
	int off = 0, on = 1;
	int r;

	/* A descriptor that nobody asked for can block whoever closes it: not even taken, where the
	 * kernel can refuse it. */
	(void)setsockopt(worker->listener_fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));

	worker->needs_confirmation = !kernel_has_peerpidfd();
	if (worker->needs_confirmation &&
	    setsockopt(worker->listener_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
		log_line(LOG_LEVEL_ERROR, "listening socket: SO_PASSCRED: error %d", errno);
		return -1;
	}

	r = spare_make(worker);
	if (r == 0)
		r = loop_add(&worker->loop, worker->listener_fd, LOOP_LISTENER, 0, 0, EPOLLIN);
	if (r < 0)
		log_line(LOG_LEVEL_ERROR, "listening socket: cannot be served: error %d", -r);
	return r;
}

/* No descriptor is left: one connection is taken by the spare one and ended, so that the socket
 * does not stay readable for ever. */
static bool turn_away(struct worker *worker)
{
	int fd;

	if (worker->spare_fd < 0 && spare_make(worker) < 0)
		return false;

	worker->spare_fd = fd_close(worker->spare_fd);
	fd = accept4(worker->listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	fd_close(fd);
	if (spare_make(worker) < 0)
		worker->spare_fd = -1;

	return fd >= 0;
}

unsigned listener_accept(struct worker *worker)
{
	unsigned n = 0;

	while (n < SHARE) {
		int fd = accept4(worker->listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			peer_accept(worker, fd);
			++n;
		} else if ((errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			    errno == ENOBUFS) &&
			   turn_away(worker)) {
			log_line(LOG_LEVEL_WARNING,
				 "no descriptors left: a connection was turned away");
			++n;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			break;
		}
	}
	return n;
}
