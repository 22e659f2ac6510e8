/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_DIAL_H
#define LIBIPC_CLIENT_DIAL_H

/*
 * From an address to a broker that has said WELCOME, starting one where that is allowed.
 *
 * Brokers that are started on demand also end by themselves, so whatever is seen before WELCOME
 * proves nothing: no socket, a socket that nobody listens at, an end of stream.  All of it is tried
 * again (D22); after WELCOME an end of stream is the broker's end.
 */

#include <stdbool.h>
#include <stdint.h>

#include "libipc/client/connection.h"
#include "libipc/client/location.h"

struct dial {
	const struct location *location;
	bool may_start;
	uint64_t deadline_ns;          /* passed: one attempt, which starts nothing */
	struct connection *connection; /* initialised by it, at success only */

	/* The call that got WELCOME: connection_end() is the caller's. */
	struct connection_call *call;
};

/*
 * IPC_ECONNREFUSED: nobody listens, and none could be started; IPC_EACCES: no right to connect, or
 * the socket in the user's own directory is somebody else's; IPC_ETIMEDOUT; what the broker answers
 * to HELLO: IPC_EPROTONOSUPPORT, IPC_EDQUOT, ...; IPC_EPROTO: that is no broker; IPC_ENOMEM,
 * IPC_EMFILE, IPC_ENFILE.
 */
int dial_wait(const struct dial *dial);

#endif
