/* SPDX-License-Identifier: MIT */
#ifndef BROKER_REAPER_H
#define BROKER_REAPER_H

/*
 * Ends: of handles by close, of clients by death, and of the channels that nobody has any more.
 */

#include "broker/registry.h"

struct worker;

/* Closed by its client, reserving or open. */
void reaper_close(struct worker *worker, struct handle *handle);

/* The same of an end of a session, which is away from now on; others are closed. */
void reaper_detach(struct worker *worker, struct handle *handle);

/* What was opened is not to be had after all: closed; away, if it was resumed. */
void reaper_give_back(struct worker *worker, struct handle *handle);

/* The handle alone, without looking at what becomes of its channel. */
void reaper_drop(struct worker *worker, struct handle *handle);

/* CLOSE. */
void reaper_hear_close(struct worker *worker, struct peer *peer, const struct message_close *close);

/* Handles that the client's desk says are closed: one look at a counter if there is none. */
void reaper_look_at_desk(struct worker *worker, struct peer *peer);

/* The same without the counter, for a client whose queue is not read now (peer_has_room). */
void reaper_look_at_cells(struct worker *worker, struct peer *peer);

/* One handle alone.  True: it was closed, and is gone. */
bool reaper_look_at_cell(struct worker *worker, struct handle *handle);

/* What an earlier worker began: a handle that is_ending and a client that is DYING. */
void reaper_finish_handle(struct worker *worker, struct handle *handle);
void reaper_end_client(struct worker *worker, struct peer *peer);

/* Frees a channel that nobody has any more; else lets those in who wait for a place of it. */
void reaper_settle(struct worker *worker, struct channel *channel);

/* Ends all that were doomed (peer_doom). */
void reaper_run(struct worker *worker);

#endif
