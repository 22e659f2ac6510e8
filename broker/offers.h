/* SPDX-License-Identifier: MIT */
#ifndef BROKER_OFFERS_H
#define BROKER_OFFERS_H

/*
 * Offers: how sessions come to listeners.  Each listener's handle has one at a time; who waits to
 * be accepted stands in a line, first come first served, behind those accepted sessions whose end
 * is away since before that handle came (C-9).
 *
 * An offer is a handle of the listener's client on the session that is not counted.  It becomes
 * counted when it is TAKEN; what is given back, or was its client's that died, is offered again.
 * Whether a new one was accepted stands in the session's memory, since client and client decide
 * that; that one was taken back is only said.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/registry.h"

struct worker;

bool offers_is_one(const struct handle *handle);

/* TAKEN. */
void offers_taken(struct worker *worker, struct peer *peer, const struct message_taken *taken);

/* Whether the outstanding offer of a session was accepted, without that having been said. */
void offers_look(struct worker *worker, struct channel *session);
/* All of a client's. */
void offers_look_at(struct worker *worker, struct peer *peer);

/* Nobody can take it any more, unless somebody has. */
void offers_revoke(struct worker *worker, struct handle *offer);

/* Where a session stands, by what its record says; it may be refused. */
void offers_arrange(struct worker *worker, struct channel *session);

/* The channel is being freed: it stands nowhere. */
void offers_forget(struct worker *worker, struct channel *session);

/* A listener's handle is there, and its client knows. */
void offers_begin(struct worker *worker, struct channel *listener);

/* The last listener's handle has gone. */
void offers_end(struct worker *worker, struct channel *listener);

/* Whatever can be offered on this listener's channel; on those that this session concerns, or did
 * before it was freed; to this client, which can be sent something again. */
struct offers_concern {
	uint32_t listener_slot;
	uint64_t listener_generation;
	char name[256];
};

void offers_run(struct worker *worker, struct channel *listener);
struct offers_concern offers_concern(const struct channel *session);
void offers_run_for(struct worker *worker, const struct offers_concern *concern);
void offers_resume_peer(struct worker *worker, struct peer *peer);

/* Offers that could not be made for lack of something.  When to try again; 0: there are none. */
uint64_t offers_retry(struct worker *worker, uint64_t now_ns);

/* A new worker: what the records say; then what can be offered. */
void offers_adopt(struct worker *worker);
void offers_resume_all(struct worker *worker);

#endif
