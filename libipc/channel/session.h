/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_SESSION_H
#define LIBIPC_CHANNEL_SESSION_H

/*
 * A session: two rings, one for each direction.  Nothing here sleeps or talks to the broker.
 *
 * segment
 *   struct channel_header
 *   struct session_shared    with the two rings; ring[s] is what side s sends
 *   data of ring[0]
 *   data of ring[1]
 *
 * Side 0 has accepted, side 1 has connected.  The number of a message is the number of its record
 * (core/ring.h), so number, bytes and commit are one exchange.  The ring is the replay buffer, its
 * tail the acknowledgement.
 *
 * field      written by                 rule
 * is_taken   acceptor, connector        SESSION_OFFERED, then once SESSION_ACCEPTED or
 *                                       SESSION_ABANDONED, by exchange: it is never both.  The
 *                                       broker reads it
 * resumes    whoever begins on an end   +1 each; a number for people and ipc_session_state
 *
 * commit_release is two exchanges, of the one ring's head and of the other's tail.  The first one
 * is the commit: it publishes with the reply a note of how far the request's ring is released
 * (ring_commit.note, with SESSION_NOTED in the state of head).  Whoever dies before the second has
 * released all the same: who finds no room by a tail looks at the note in the other ring
 * (session_settle()), and who takes the end next stores it.  The note is written over by the next
 * record's head, under the turn of the senders: by then the tail was stored.
 *
 * A close is one exchange, too, of the closer's head, which stays where it is and says CLOSED from
 * then on (session_tell_closed()): nothing was sent behind it or will be, and whoever is given the
 * end later, by a broker that has not heard of it, finds it closed.  So the head alone decides
 * between a close and a take-over of the same moment.  The broker reads it when who had the end is
 * gone.
 *
 * Descriptors go through a socket pair, before the commit of their message, with its number and the
 * tag of the sender's end: one that has no message (the sender died in between) is older than any
 * that is looked for, and dropped; one that is not there was taken by a receiver that died.
 *
 * Deaths: see core/ring.h; each end is taken over by session_begin(), from the dead or the living.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "include/ipc/session.h"
#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/liveness.h"
#include "libipc/core/ring.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/turn.h"

#define SESSION_SIDE_ACCEPTED  0
#define SESSION_SIDE_CONNECTED 1

enum session_taken { SESSION_OFFERED = 0, SESSION_ACCEPTED = 1, SESSION_ABANDONED = 2 };

/* Types and flags of records; state of head. */
#define SESSION_MESSAGE 2u
#define SESSION_HAS_FD  1u /* extra: lowest bits of the sender's tag */
#define SESSION_NOTED   1u
#define SESSION_CLOSED  2u

struct session_shared {
	_Alignas(64) _Atomic uint32_t is_taken; /* enum session_taken */
	uint32_t reserved0;
	_Atomic uint64_t resumes;
	uint64_t reserved[6];
	struct ring ring[2];
};
ASSERT_OFFSET(struct session_shared, is_taken, 0);

/* Where it stands in the segment: the broker reads some of it. */
#define SESSION_SHARED_OFFSET sizeof(struct channel_header)
#define SESSION_HEAD_OFFSET(side)                                                                  \
	(SESSION_SHARED_OFFSET + offsetof(struct session_shared, ring) +                           \
	 (side) * sizeof(struct ring) + offsetof(struct ring, head))

/* shape[0] capacity, [1] message_size_max, [2] resume_window_ns.  0: not legal. */
uint64_t session_segment_size(const uint64_t shape[4]);
int session_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* Of a listener: nothing but the header. */
uint64_t listener_segment_size(void);
int listener_make(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);

/* A handle's view. */
struct session {
	struct channel_header *header;
	struct session_shared *shared;
	const struct liveness_table *table;
	unsigned side;
	uint64_t message_size_max;
	int pair_fd;              /* own end of the socket pair; -1: none */
	struct eventcount *lines; /* [s]: where side s sleeps */

	/* As of a queue's view: somebody does not sleep on this line but elsewhere. */
	void (*ring)(void *userdata);
	void *ring_userdata;

	struct turn send_turn, receive_turn;
	bool is_closed; /* of whose turn it is to send */
	struct ring_producer out;
	struct ring_consumer in;
	uint64_t received, released; /* numbers */
};

/* Attach check.  The caller fills in table, pair_fd, lines, ring.  0, IPC_EBADMSG,
 * IPC_EPROTONOSUPPORT. */
IPC_CHECKED int session_attach(struct session *session, struct channel_header *header,
			       uint64_t size, const uint64_t shape[4], unsigned side);

/*
 * Takes the end, whoever had it; finishes what he left.  0; IPC_ESTALE: a newer handle has it, or
 * who had it has closed it; IPC_EBUSY, IPC_ENOSYS: see ring_take_producer(); IPC_EBADMSG.
 * session_close(): nothing is sent any more by those who are inside (closing_fn).
 * session_tell_closed(): after that, the other end is told of it and woken, unless the end was
 * taken over.  Who dies before he wakes is found by the broker, which tells it. session_leave():
 * nobody is inside any more (last_fn); claims vanish.
 */
IPC_CHECKED int session_begin(struct session *session, uint64_t handle_id, uint32_t process);
void session_close(struct session *session);
void session_tell_closed(struct session *session);
void session_leave(struct session *session);

/* Every call below is for any thread.  Beside what is said: IPC_ESTALE: the end was taken over;
 * IPC_EBADMSG. */

/* 0; IPC_EAGAIN; IPC_EMSGSIZE; IPC_EINVAL; IPC_ENOMEM; IPC_ECANCELED: closed. */
IPC_CHECKED int session_send(struct session *session, const void *data, size_t size);
IPC_CHECKED int session_send_fd(struct session *session, int fd, const void *data, size_t size);
IPC_CHECKED int session_claim(struct session *session, size_t size, void **ret_data);
IPC_CHECKED int session_commit(struct session *session, void *data, size_t size);
IPC_CHECKED int session_commit_release(struct session *session, void *data, size_t size,
				       const struct ipc_session_message *request);
IPC_CHECKED int session_abort(struct session *session, void *data);

/* Room for the smallest message: 0, IPC_EAGAIN. */
IPC_CHECKED int session_probe_room(struct session *session);

/* How many were received, at least 1; IPC_EAGAIN; IPC_EMFILE: no descriptor is free for the first
 * one's, which stays. */
IPC_CHECKED int session_receive_many(struct session *session, struct ipc_session_message *ret,
				     unsigned n);
IPC_CHECKED int session_probe_message(struct session *session);

/* 0; IPC_EINVAL: of another end, or not received yet. */
IPC_CHECKED int session_release(struct session *session, const struct ipc_session_message *message);

/* All but away_ns. */
IPC_CHECKED int session_get_state(struct session *session, struct ipc_session_state *ret);

/* The own side's line. */
static inline struct eventcount *session_line(const struct session *session)
{
	return &session->lines[session->side];
}

/* Of a word `head`: nothing comes after what stands before it. */
static inline bool session_head_is_closed(uint64_t head)
{
	return ring_state(head) & SESSION_CLOSED;
}

/* Of the other end.  Whoever sees it sees all that was sent. */
static inline bool session_peer_is_closed(const struct session *session)
{
	/* [R5] of core/ring.h. */
	return session_head_is_closed(
		atomic_load_explicit(&session->in.view.ring->head, memory_order_acquire));
}

/* Accepting: true if it was this call's doing. */
bool session_take(struct channel_header *header, enum session_taken taken);
enum session_taken session_is_taken(const struct channel_header *header);

/* What the broker reads of a session's segment, through a function that copies. */
struct session_read {
	bool (*read)(void *userdata, uint64_t offset, void *ret, size_t size);
	void *userdata;
	const uint64_t *shape;
};
/* Of what side `side` sends.  False: it does not look right, or moved all the time. */
bool session_read_direction(const struct session_read *read, unsigned side, uint64_t *ret_sent,
			    uint64_t *ret_acknowledged, uint64_t *ret_depth,
			    uint64_t *ret_depth_max);

/* Whether a process may still write; `owner`: ring_owner(). */
typedef bool (*session_lives_fn)(void *userdata, uint64_t owner);

/* What session_begin() of side `side` would say now is IPC_EBUSY.  False, too, where that cannot be
 * seen. */
bool session_read_is_busy(const struct session_read *read, unsigned side, session_lives_fn lives);

#endif
