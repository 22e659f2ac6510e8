/* SPDX-License-Identifier: MIT */
#ifndef BROKER_GROUPS_H
#define BROKER_GROUPS_H

/*
 * Groups: patterns by which a client gets a producer's handle of each queue whose name matches, as
 * the queues come (ipc_group).
 *
 * Nothing is kept for a client that does not read: where its socket has no room, the channels that
 * were not looked at yet are looked at when there is room again.  Meanwhile nobody waits for it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/registry.h"

struct worker;

/*
 * GROUP.  True: done, and answered if there is something to answer.  False: the peer has to read
 * first, or others have their turn; the request is to be done again, and goes on where it stood.
 */
bool groups_open(struct worker *worker, struct peer *peer, const struct message_group *request);

/* Its group of this number, if there is one, with all its handles. */
void groups_end(struct worker *worker, struct peer *peer, uint64_t group_id);

/* Its client has ended, and its handles are about to. */
void groups_forget(struct worker *worker, struct peer *peer);

/* A channel can be opened from now on; before its opener is answered. */
void groups_meet(struct worker *worker, struct channel *channel, const struct peer *opener);

/* The peer has room again. */
void groups_resume_peer(struct worker *worker, struct peer *peer);

/* A new worker: the records of the one before; then what it may not have done, before anything is
 * answered; then what it had begun to end. */
void groups_adopt(struct worker *worker);
void groups_resume_all(struct worker *worker);
void groups_finish_all(struct worker *worker);

#endif
