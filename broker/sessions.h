/* SPDX-License-Identifier: MIT */
#ifndef BROKER_SESSIONS_H
#define BROKER_SESSIONS_H

/*
 * Sessions: channels with a record of their two ends beside them.  Who has an end, who had it, how
 * long he is waited for; what the words of their sides say follows from that.
 *
 * An end is its holder's, a counted handle; there may be a second one for a moment, while it is
 * taken over.  Without a holder it is away, closed, or lost with the session.  How an end gets its
 * first holder is in offers.h.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/registry.h"

struct worker;

/* A new channel is a session, with an end for the handle of this id that is about to connect. */
IPC_CHECKED int sessions_init(struct worker *worker, struct channel *channel,
			      const struct channel *listener);

bool sessions_is_accepted(const struct channel *channel);

/* A window has passed. */
bool sessions_is_lost(const struct channel *channel);

/* Somebody connected, and neither he nor the listeners have given up. */
bool sessions_is_connecting(const struct channel *channel);

/* It has no counted handle, and is waited for all the same. */
bool sessions_is_kept(const struct channel *channel);

/* What the words of a side say (core/liveness.h): SIDE_EVER and so on; until_ns. */
uint64_t sessions_flags(const struct channel *channel, unsigned side);
uint64_t sessions_until(const struct channel *channel, unsigned side);

/* A committed, counted handle takes its end, from whoever has it. */
void sessions_take(struct worker *worker, struct handle *handle);

/* The handle is marked is_ending: what becomes of its end.  Done twice it is done once. */
void sessions_leave(struct worker *worker, const struct handle *handle);

/* OPEN_RESUME by key: 0: answered; IPC_ESTALE and so on. */
IPC_CHECKED int sessions_resume(struct worker *worker, struct peer *peer,
				const struct message_open *open);

/* Nobody accepts any more. */
void sessions_refuse(struct worker *worker, struct channel *channel, bool died);

/* Something about it has changed: where it stands, whether it is over.  The channel may be gone
 * after that. */
void sessions_settle(struct worker *worker, struct channel *channel);

/* Those whose windows have passed.  When the next one does; 0: none. */
uint64_t sessions_expire(struct worker *worker, uint64_t now_ns);

/* The channel is being freed, or is none. */
void sessions_forget(struct worker *worker, struct channel *channel);

/* A new worker: makes record and handles agree; before any word is told. */
void sessions_repair(struct worker *worker, struct channel *channel);

#endif
