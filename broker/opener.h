/* SPDX-License-Identifier: MIT */
#ifndef BROKER_OPENER_H
#define BROKER_OPENER_H

/*
 * OPEN and CANCEL: how a handle comes to be.
 *
 * An OPEN is tried; if it has to wait it becomes a pending, and is tried again, from the start,
 * whenever something changed about its name.  So it does not matter why it waited.
 */

#include "broker/registry.h"

struct worker;

void opener_open(struct worker *worker, struct peer *peer, const struct message_open *open);
void opener_cancel(struct worker *worker, struct peer *peer, const struct message_cancel *cancel);

/* A listener's handle is there and answered: for connects that wait, for one or to be accepted. */
void opener_listener_came(struct worker *worker, struct channel *listener);

/* Something changed about this name: its pendings are tried again, the oldest first. */
void opener_resume(struct worker *worker, const char *name);

/* The peer's own pendings, after it had no room for answers. */
void opener_resume_peer(struct worker *worker, struct peer *peer);

/* A new worker: the one pending that the worker before was about to end is ended as it had decided.
 * Before anything else is decided. */
void opener_replay(struct worker *worker);
/* Then all of them are tried. */
void opener_resume_all(struct worker *worker);

#endif
