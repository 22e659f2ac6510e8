/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_AUTOSTART_H
#define LIBIPC_CLIENT_AUTOSTART_H

/*
 * Starts the embedded broker of this user: `ipcbroker --autostart --address PATH`, in a session of
 * its own, no child of ours.
 *
 * Between us and the broker stands a monitor, a copy of this process that lives until we have our
 * connection: it is the broker's parent so long and says how the broker ended, if it did.  It sends
 * no SIGCHLD and is found by no wait() of the program's.
 *
 * The broker is started for all processes that want it at the same time: those that lose the race
 * for its lock file end with status 0, which is AUTOSTART_OTHER here, and their clients connect
 * again.
 */

#include <sys/types.h>

#include "libipc/client/location.h"

struct autostart {
	int fd; /* from the monitor; -1: nothing was started */
	pid_t monitor;
};
#define AUTOSTART_NULL                                                                             \
	{                                                                                          \
		.fd = -1, .monitor = -1                                                            \
	}

enum autostart_news {
	AUTOSTART_NOTHING, /* it runs, as far as is known */
	AUTOSTART_OTHER,   /* it ended in good order: another broker has the address */
	AUTOSTART_FAILED,  /* it could not be executed, or ended otherwise */
};

/* 0; IPC_ECONNREFUSED: there is no such program, or no process can be made; IPC_EMFILE, IPC_ENFILE,
 * IPC_ENOMEM. */
int autostart_begin(struct autostart *autostart, const struct location *location);

/* Sleeps for ms or until there are news. */
enum autostart_news autostart_wait(struct autostart *autostart, int ms);

/* Lets the broker live on by itself. */
void autostart_end(struct autostart *autostart);

#endif
