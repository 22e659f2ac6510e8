/* SPDX-License-Identifier: MIT */
#ifndef BROKER_SESSION_LIST_H
#define BROKER_SESSION_LIST_H

/*
 * SESSIONS: the accepted sessions that came by a listener's name, for people who look on.
 */

#include "broker/registry.h"

struct worker;

void session_list(struct worker *worker, struct peer *peer,
		  const struct message_sessions *sessions);

#endif
