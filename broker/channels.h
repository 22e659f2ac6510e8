/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CHANNELS_H
#define BROKER_CHANNELS_H

/*
 * Records of channels, from creation to end.
 */

#include "broker/registry.h"

struct worker;

/*
 * A RESERVING channel of the peer's user, as `open` wants it, whose reserver will be the handle of
 * this id.  IPC_EDQUOT; IPC_ENFILE: no room for one more; IPC_ENOSPC, IPC_ENOMEM, ...: no segment.
 */
IPC_CHECKED int channels_new(struct worker *worker, struct peer *peer,
			     const struct message_open *open, uint64_t reserver,
			     struct channel **ret);

/* The same of a session with this listener's channel: in its shape, and not found by its name. */
IPC_CHECKED int channels_new_session(struct worker *worker, struct peer *peer,
				     const struct channel *listener, uint64_t reserver,
				     struct channel **ret);

/* Whether `open`, by this user, would have made this very channel: then its segment can be taken
 * over as it is. */
bool channels_is_as_wanted(const struct channel *channel, const struct peer *peer,
			   const struct message_open *open);

/* Nobody finds it by its name any more, and a side without counted handles never has one again;
 * presence tells that. */
void channels_end(struct worker *worker, struct channel *channel);

/* Whether the end of a handle has to end the channel, with others left that it does not live on: a
 * queue that is not kept ends with its last consumer, or with its last counted handle; so does an
 * inbox, which its observers do not keep alive. */
bool channels_is_over(const struct channel *channel);

/* No handle is left, counted or not or reserving. */
bool channels_is_empty(const struct channel *channel);

/* The end of an empty channel. */
void channels_free(struct worker *worker, struct channel *channel);

#endif
