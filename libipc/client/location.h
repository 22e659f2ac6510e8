/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_LOCATION_H
#define LIBIPC_CLIENT_LOCATION_H

/*
 * Which broker is meant (M-40): the caller's address, else $IPC_BROKER, else
 * $XDG_RUNTIME_DIR/ipc/broker, else /run/ipc/broker.  A program that runs with more rights than its
 * caller does not look at the environment.
 */

#include <stdbool.h>
#include <sys/un.h>

#include "libipc/platform/compiler.h"

struct location {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	bool is_given;   /* by the caller: nothing is started there */
	bool is_runtime; /* under $XDG_RUNTIME_DIR: nobody but this user and root has business there
			  */
};

/* IPC_EINVAL: empty, or longer than a socket's address can be. */
int location_find(struct location *ret, const char *given);

#endif
