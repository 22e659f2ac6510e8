/* SPDX-License-Identifier: MIT */
#ifndef BROKER_PEER_H
#define BROKER_PEER_H

/*
 * A client's connection: from accept to HELLO to its end, and what is said to it.
 */

#include <stdint.h>

#include "broker/policy.h"
#include "broker/registry.h"

struct worker;

#define PEER_HELLO_NS                                                                              \
	UINT64_C(1000000000) /* a connection that has not said HELLO by then is closed */

/* Takes the descriptor of a new connection, whatever comes of it. */
void peer_accept(struct worker *worker, int socket_fd);

/* An adopted client, whose descriptors are in place: watched again.  Negative: it cannot be. */
IPC_CHECKED int peer_watch(struct worker *worker, struct peer *peer);

/* The counters of its desk by which it says what it could not send. */
void peer_read_desk(const struct peer *peer, uint32_t *ret_closings, uint32_t *ret_ringings);

/* Whether its desk says this of the handle: the field of struct desk_cell has its id. */
bool peer_cell_says(const struct peer *peer, const struct handle *handle, size_t field);

void peer_hello(struct worker *worker, struct peer *peer, const struct message_hello *hello);

/* 0; IPC_ENFILE, IPC_EMFILE: its descriptors cannot be sent now; else the peer is doomed: gone, or
 * too slow to read its answers. */
int peer_answer(struct worker *worker, struct peer *peer, const union message *message,
		const int *fds, unsigned n_fds);
/* The same of what can be said later as well, to a peer that is not being answered: IPC_EAGAIN, and
 * it is clogged, where there is no room at all. */
IPC_CHECKED int peer_offer(struct worker *worker, struct peer *peer, const union message *message,
			   const int *fds, unsigned n_fds);
/* DONE to the request in hand.  It is noted first, so that the request is not done again when this
 * worker dies before it has taken it off the queue. */
void peer_answer_result(struct worker *worker, struct peer *peer, uint64_t request_id, int result);
/* DONE to an earlier request. */
void peer_say_result(struct worker *worker, struct peer *peer, uint64_t request_id, int result);

/* Its process is dead, or has hung up: the kernel knows it before the event was served. */
bool peer_has_left(const struct peer *peer);

/*
 * Whether one more answer surely fits into the socket.  If not, the peer is clogged: slow or
 * stopped, but alive (M-24).  Its requests stay in its queue, its pendings wait, until there is
 * room again (peer_unclog, at its next event: 0; IPC_EAGAIN: still clogged, or doomed).
 */
bool peer_has_room(struct worker *worker, struct peer *peer);
IPC_CHECKED int peer_unclog(struct worker *worker, struct peer *peer);

/* A line of the log about this client: one a second for each uid, so that nobody fills the log. */
void peer_log(const struct peer *peer, const char *what);

/* Its end, as a death; done after the request in hand (reaper_run). */
void peer_doom(struct worker *worker, struct peer *peer);

/* Dooms those who have been quiet for too long.  The moment when the next one is due, 0: none. */
uint64_t peer_expire(struct worker *worker, uint64_t now_ns);

/* Nobody new says anything within PEER_HELLO_NS from now: adopted clients before their HELLO. */
void peer_set_quiet(struct worker *worker, struct peer *peer);

/* The connection itself: its handles and pendings are gone. */
void peer_remove(struct worker *worker, struct peer *peer);

struct policy_subject peer_subject(const struct peer *peer);

#endif
