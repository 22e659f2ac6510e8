/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_OPENED_H
#define LIBIPC_CLIENT_OPENED_H

/*
 * From what the broker granted to a mapped handle.  The grant is the answer to an OPEN or, of a
 * group's queue, comes without one.
 */

#include "libipc/client/endpoint.h"
#include "libipc/wire/protocol.h"

struct opened {
	const struct message_opened *message;
	const int *fds; /* as the message says; they stay the caller's */
	unsigned n_fds;

	/* Of who has just made the segment and has it mapped, which is taken then; else NULL. */
	void **made;
	uint64_t made_size, made_id;
};

/*
 * Into *endpoint, which is zeroed.  After success endpoint_close() frees it; else the broker has
 * been told that the handle is closed, and nothing is left.  Never sleeps.
 */
IPC_CHECKED int opened_take(const struct opened *opened, struct endpoint *endpoint,
			    ipc_client *client, const struct endpoint_request *request);

/* Nobody wants it: says that it is closed. */
void opened_refuse(const struct message_opened *opened, ipc_client *client);

#endif
