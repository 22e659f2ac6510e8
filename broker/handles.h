/* SPDX-License-Identifier: MIT */
#ifndef BROKER_HANDLES_H
#define BROKER_HANDLES_H

/*
 * Records of handles: prepared (charged, with an id, but not there yet), committed, freed.
 */

#include "broker/registry.h"

struct worker;

/* IPC_EDQUOT; IPC_EBUSY: the table of handles is full. */
IPC_CHECKED int handles_prepare(struct worker *worker, struct peer *peer,
				const struct message_open *open, struct handle **ret);
void handles_abandon(struct worker *worker, struct handle *handle);

/* RECORD_RESERVING: of a channel whose creator has not confirmed; RECORD_USED: open. */
void handles_commit(struct handle *handle, struct channel *channel, enum record_state state);

/* It has ended: its words are told.  One that was overtaken goes on as that (overtaken.h). */
void handles_free(struct worker *worker, struct handle *handle);

#endif
