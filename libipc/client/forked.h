/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_FORKED_H
#define LIBIPC_CLIENT_FORKED_H

/*
 * What a forked child closes: the copies of its parent's control sockets, so that the parent's
 * death is an end of stream for the broker.
 *
 * The list only grows, and takes no lock: the forking thread need not hold one, and a lock that
 * another thread holds at that moment would be held for ever in the child.  Entries are used again.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FORKED_MORE_MAX 3

struct forked_fds {
	struct forked_fds *next;
	_Atomic uint32_t is_used;
	dev_t device; /* of fd: tells our socket from what another thread has opened under its
			 number since */
	ino_t inode;
	_Atomic int fd;                        /* -1: not open (any more) */
	int other_fd;                          /* open as long as fd is */
	_Atomic int more_fds[FORKED_MORE_MAX]; /* the same; -1: none */
};

/* An entry with fd -1.  NULL: no memory. */
struct forked_fds *forked_fds_new(void);

/* From now on a child closes both. */
void forked_fds_set(struct forked_fds *fds, int fd, dev_t device, ino_t inode, int other_fd);

/* One more; FORKED_MORE_MAX of them. */
void forked_fds_add(struct forked_fds *fds, int other_fd);

/* After they were closed.  NULL is fine. */
struct forked_fds *forked_fds_free(struct forked_fds *fds);

/* In the child. */
void forked_close_all(void);

/* Whether fd is open and this very file. */
bool forked_fd_is(int fd, dev_t device, ino_t inode);

#endif
