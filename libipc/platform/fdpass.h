/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_FDPASS_H
#define LIBIPC_PLATFORM_FDPASS_H

/*
 * Messages with descriptors over a SOCK_SEQPACKET or SOCK_DGRAM Unix socket.  Never blocks
 * (MSG_DONTWAIT), never signals (MSG_NOSIGNAL); EINTR is repeated.
 */

#include <stddef.h>

#define FDPASS_FDS_MAX 32

/* 0, IPC_EAGAIN (no room now), IPC_EPIPE (peer gone), or another entry of the table. */
int fdpass_send(int socket_fd, const void *data, size_t size, const int *fds, unsigned n_fds);

/*
 * Receives one message.  *ret_size is its size, *ret_n_fds how many of fds[FDPASS_FDS_MAX] were
 * filled (all close-on-exec; the caller owns them).  Results: 0, IPC_EAGAIN, IPC_EPIPE (end of
 * stream: MSG with 0 bytes and the peer hung up), IPC_EMSGSIZE (larger than size: dropped),
 * IPC_EMFILE (descriptors were lost: MSG_CTRUNC; the ones that came are closed). fds NULL: no
 * control buffer, the kernel drops what a peer sends along.
 */
int fdpass_receive(int socket_fd, void *data, size_t size, size_t *ret_size, int *fds,
		   unsigned *ret_n_fds);

/* The same without taking the message off the queue (no descriptors). */
int fdpass_peek(int socket_fd, void *data, size_t size, size_t *ret_size);

int fd_close(int fd); /* accepts -1; returns -1 */
void fd_closep(int *fd);

/* Away from the numbers of the standard streams, which programs open and close without looking. */
int fd_move_up(int *fd);

#endif
