/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_SESSION_H
#define LIBIPC_CLIENT_SESSION_H

/*
 * What the files of the kind `session` share: an end.  The structure (channel/session.h) never
 * sleeps; here are the ways to an end (connect, resume; accept is the listener's), the waits, and
 * how they end.
 *
 * The absence of the other end ends nothing (the endpoint stays), its final end does: it closed, or
 * did not come back in time.
 */

#include <ipc/session.h>

#include "libipc/channel/session.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/compiler.h"

struct ipc_session {
	struct endpoint endpoint;
	struct session view;
};
ASSERT_OFFSET(struct ipc_session, endpoint, 0);

/* For ipc_wait_any(): session_ready.c. */
extern const struct endpoint_readiness session_readiness __attribute__((__visibility__("hidden")));

/* ---- session_open.c ---- */

/* Of a listener, or of who connects: flags and shape, checked. */
IPC_CHECKED int session_request(struct endpoint_request *ret, const char *name,
				const struct ipc_session_options *given, uint64_t flags_allowed);

/* The `attach` of a request whose endpoint is a session's. */
IPC_CHECKED int session_attach_endpoint(struct endpoint *endpoint);

/* Takes the end, before anything is done with it.  What session_begin() says. */
IPC_CHECKED int session_take_end(ipc_session *session);

/* ---- what the calls share ---- */

static inline int session_enter(ipc_session *session)
{
	return endpoint_enter((struct endpoint *)session, IPC_ROLE_SESSION);
}

static inline void session_leave_call(ipc_session *session)
{
	endpoint_leave(&session->endpoint);
}

/* The final end of the other end: IPC_EPIPE, IPC_EOWNERDEAD; 0: not so.  A close is seen before the
 * broker has told it. */
static inline int session_end(const ipc_session *session)
{
	uint64_t now = liveness_side(session->endpoint.table, session->endpoint.channel_slot,
				     !session->endpoint.side);

	if (UNLIKELY(session_peer_is_closed(&session->view)))
		return IPC_EPIPE;

	return LIKELY(!(now & SIDE_FINAL)) ? 0 : endpoint_opposite_end(&session->endpoint, now);
}

#endif
