/* SPDX-License-Identifier: MIT */
#ifndef BROKER_MANAGER_H
#define BROKER_MANAGER_H

/*
 * The service manager that started the keeper, if one did: it may pass a listening socket and
 * descriptors that an earlier keeper stored with it ($LISTEN_FDS, $LISTEN_FDNAMES), and it may want
 * to be told ($NOTIFY_SOCKET, a path or @name).  All three are optional, and each may go away at
 * any time: that is no error of ours.
 */

#include <stdbool.h>
#include <stdint.h>

struct manager {
	int notify_fd;    /* connected datagram socket; -1: nobody wants to be told */
	uint64_t late_ns; /* when it last did not read in time; 0: never */
};
#define MANAGER_NULL                                                                               \
	{                                                                                          \
		.notify_fd = -1                                                                    \
	}

/* Takes $NOTIFY_SOCKET out of the environment. */
void manager_init(struct manager *manager);
void manager_deinit(struct manager *manager);

/* How many descriptors were passed, from 3 on; 0: none.  $LISTEN_FDS is only for the process that
 * $LISTEN_PID names. */
unsigned manager_passed(void);

/* Calls fn for each of them, in order, with its name ("" if it has none; $LISTEN_FDNAMES), then
 * takes the three variables out of the environment. */
void manager_adopt(void (*fn)(const char *name, int fd, void *userdata), void *userdata);

/*
 * One datagram, with a descriptor or -1.  A manager whose queue is full is waited for, 100 ms at
 * most and only once in 10 s: the worker waits for the keeper meanwhile.  What it has no room for
 * then is not told.
 */
void manager_tell(struct manager *manager, const char *text, int fd);

/*
 * Whether this process is the main process of a unit ($SYSTEMD_EXEC_PID): when it dies, the manager
 * kills what is left of the unit and starts it again with what was stored.  Then the keeper needs
 * no spare, and a spare would be in the manager's way.
 */
bool manager_restarts(void);

#endif
