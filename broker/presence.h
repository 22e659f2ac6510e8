/* SPDX-License-Identifier: MIT */
#ifndef BROKER_PRESENCE_H
#define BROKER_PRESENCE_H

/*
 * Telling who is there: the words of the liveness table (core/liveness.h) as functions of the
 * records.  The only place that writes them.
 *
 * Order of an end: handle word, side word, attention words.  Those concerned are the clients with a
 * handle on the opposite side when a side came, went or ended finally; and after a death, which may
 * have swallowed a wake, always: those on the opposite side, and where its own side waits for what
 * such a role holds (a lock, of which a killed waiter may have swallowed the wake; the lead of a
 * flight), those on its own; and with the last counted handle of all, whoever is left.  Nobody
 * else is woken.
 *
 * A client has an attention word in each table that it maps.  What concerns a channel is told in
 * the table of the channel's owner; and, to a client of another user, in that of its own as well:
 * a client that can sleep on one word only sleeps on that one, whatever it waits for.  With each
 * bump its bell is rung (bells.h).  Who sleeps on that does not look again after a slice: a role
 * that can wake its own side has to be one that its own side waits for.
 */

#include <stdbool.h>

#include "broker/registry.h"

struct worker;

/* A handle is open now: told; and counted, unless its record says that it is not. */
void presence_begin(struct worker *worker, struct handle *handle);
/* The same once more, for a worker that cannot know whether it was told. */
void presence_begin_again(struct worker *worker, struct handle *handle);

/* A handle whose record says is_ending: not counted any more, words told; and if the channel does
 * not outlive it (channels_is_over), that.  True: its side is gone now.  presence_attend() follows.
 */
bool presence_end(struct worker *worker, struct handle *handle);

/* A session whose record has changed: its words are told, and those concerned. */
void presence_session(struct worker *worker, struct channel *channel);

/* The handle's word alone: nobody can make use of it. */
void presence_hide(const struct handle *handle);

/* This handle's client looks again. */
void presence_call(struct worker *worker, const struct handle *handle);

/* A batch: each client concerned is bumped once in it, however many of its handles are. */
void presence_batch(struct worker *worker);
void presence_attend(struct worker *worker, const struct handle *handle, bool is_gone);

/* A client woke somebody who sleeps where it cannot reach him: everybody on the channel looks
 * again. */
void presence_ring(struct worker *worker, const struct handle *handle);

/* The name was taken away: sides without handles are final. */
void presence_remove(struct worker *worker, struct channel *channel);

/* Words of a new channel: nobody was ever there; the count of ends of the slot's former tenants
 * goes on. */
void presence_reset(struct channel *channel);

/* A new worker: makes the side words say what the records say; who is concerned by a change is
 * told. */
void presence_repair(struct worker *worker, struct channel *channel, bool died);

/* Orderly end of the domain: told in all tables, to everybody. */
void presence_end_domain(struct worker *worker);

#endif
