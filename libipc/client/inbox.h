/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_INBOX_H
#define LIBIPC_CLIENT_INBOX_H

/*
 * What the files of the kind `inbox` share.  The structure (channel/inbox.h) never sleeps; here are
 * the ends and the waits.
 *
 * Close: a snapshot that is open is aborted at once (closing_fn); what the ends of the ring hold in
 * private memory goes with the last thread that leaves (last_fn).  A thread that is inside, and
 * gets something after that, finds out by inbox_settle().
 */

#include <ipc/inbox.h>

#include "libipc/channel/inbox.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/compiler.h"

struct ipc_inbox_sender {
	struct endpoint endpoint;
	struct inbox_sender sender;
};
ASSERT_OFFSET(struct ipc_inbox_sender, endpoint, 0);

struct ipc_inbox_receiver {
	struct endpoint endpoint;
	struct inbox_receiver receiver;
};
ASSERT_OFFSET(struct ipc_inbox_receiver, endpoint, 0);

/* Only reads. */
struct ipc_inbox_observer {
	struct endpoint endpoint;
	struct inbox inbox;
};
ASSERT_OFFSET(struct ipc_inbox_observer, endpoint, 0);

/* For ipc_wait_any(): inbox_ready.c. */
extern const struct endpoint_readiness inbox_sender_readiness
	__attribute__((__visibility__("hidden")));
extern const struct endpoint_readiness inbox_receiver_readiness
	__attribute__((__visibility__("hidden")));

/*
 * What a call says whose structure said r.  What it refused or gave since another thread has closed
 * the handle (a claim that vanished, an end that another one has by now) is IPC_ECANCELED.
 */
static inline int inbox_settle(const struct endpoint *endpoint, int r)
{
	if (LIKELY(!atomic_load_explicit(&endpoint->closing, memory_order_relaxed)))
		return r;

	return r == IPC_EINVAL || r == IPC_ESTALE ? IPC_ECANCELED : r;
}

/* ---- inbox_receiver.c ---- */

/*
 * How the sender's side ended, for a snapshot that it left open: 0: it is there, or awaited.  The
 * same as `end` (of endpoint_opposite_end()) but for a handle with IPC_STAY: absence ends nothing
 * for that one, and a snapshot all the same (I-2).
 */
int inbox_sender_end(const struct endpoint *endpoint, int end);

#endif
