/* SPDX-License-Identifier: MIT */
#ifndef BROKER_FRAME_H
#define BROKER_FRAME_H

/*
 * What a keeper has before it starts its first worker: the lock of its domain, the listening
 * socket, what a service manager passed, and the table of what it holds.
 */

#include <stdbool.h>

#include "broker/address.h"
#include "broker/fdstore.h"
#include "broker/manager.h"

struct frame {
	struct address address;
	struct manager manager;
	struct fdstore store;
};

/*
 * Closes all descriptors from 3 on that nobody passed, takes the lock, takes or binds the socket
 * (held as STORE_NAME_LISTENER). 0; or -1, with the exit status in *ret_status, which is success if
 * `autostart` found another broker.  Said why then.
 */
int frame_open(struct frame *frame, const char *address, bool autostart, int *ret_status);

#endif
