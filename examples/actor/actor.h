/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_ACTOR_ACTOR_H
#define EXAMPLES_ACTOR_ACTOR_H

/*
 * Actors: each process owns one thing, and everybody else pushes work at it by name.
 *
 *   server  owns the data; takes requests, answers in pieces, and tells clients what they did not
 *           ask for
 *   actor   owns the connection to one client; whatever goes out there goes through it
 *   main    the client, a timer, and whoever stops the service
 */

#include <stdint.h>

#include <ipc/ipc.h>

#define STOP     "example/stop"       /* watch: published when it is time to go */
#define REQUESTS "example/requests"   /* queue of the server */
#define FRAMES   "example/connection" /* queue of the actor: what anybody sends to the client */
#define RESPONSE "example/response"   /* queue of the actor: the answer to the client's request */

/* Priorities of FRAMES. */
enum { URGENT = 0, ORDINARY = 1 };

void must(const char *what, int result);

/* Connect after fork: a forked child cannot use what its parent opened. */
ipc_client *connect_client(void);

/* Waits for the queue if nobody has made it yet. */
ipc_queue_producer *open_producer(ipc_client *client, const char *name);
/* Makes it; small, so that who is too fast has to wait. */
ipc_queue_consumer *open_consumer(ipc_client *client, const char *name);

/* The two processes; connection: a socket whose other end is the client. */
int run_actor(int connection);
int run_server(void);

#endif
