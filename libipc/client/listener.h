/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_LISTENER_H
#define LIBIPC_CLIENT_LISTENER_H

/*
 * A listener: the broker offers it one session at a time (OFFER).  Whichever thread takes such a
 * message out of the socket leaves it with its listener; accepting maps it, and says what became of
 * it.
 *
 * Everything here that changes is under the client's listeners_mutex, which is never held while
 * something is mapped or awaited.
 */

#include <ipc/session.h>

#include "libipc/client/client.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/protocol.h"

struct listener_offer {
	struct listener_offer *next; /* of those that came early */
	struct message_offer message;
	unsigned n_fds;
	int fds[FDPASS_FDS_MAX];
};

struct ipc_listener {
	struct endpoint endpoint;
	struct ipc_listener *next;    /* of the client */
	struct listener_offer *offer; /* NULL: none waits to be accepted */
	uint64_t newest_id;           /* of a handle that was offered */
	unsigned n_accepting;         /* threads that have taken an offer out and not told yet */
	bool is_closing;
};
ASSERT_OFFSET(struct ipc_listener, endpoint, 0);

/* ---- listener_offer.c ---- */

/* Of what the broker says unasked: takes the descriptors. */
void listener_hear(ipc_client *client, const struct message_offer *message, int *fds,
		   unsigned n_fds);

/* Around an open: what is offered before the client knows whose it is is kept.  listener NULL: it
 * failed. */
void listener_open_begin(ipc_client *client);
void listener_open_end(ipc_client *client, ipc_listener *listener);

/* All that was sent so far is there after it. */
void listener_catch_up(ipc_listener *listener);
bool listener_has_offer(ipc_listener *listener);

/*
 * Takes the offer out, NULL: there is none.  Until listener_offer_end() the broker is not told that
 * the listener is closed, and so offers the session to nobody else.
 */
struct listener_offer *listener_offer_begin(ipc_listener *listener);

/* Frees it. */
void listener_offer_end(ipc_listener *listener, struct listener_offer *offer);

/* Nobody accepts it here: the broker offers it anew. */
void listener_offer_refuse(ipc_client *client, const struct listener_offer *offer);

/* The `closing_fn`: nothing is offered to it from here on. */
void listener_forget(struct endpoint *endpoint);

/* In a forked child. */
void listener_offer_free(struct listener_offer *offer);

#endif
