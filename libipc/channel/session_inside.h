/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CHANNEL_SESSION_INSIDE_H
#define LIBIPC_CHANNEL_SESSION_INSIDE_H

/*
 * What the files of a session share.
 *
 * The note of commit_release: `what` of the head that comes next in the ring of the replies, of
 * type NOTHING.
 *
 *   bits 8..47 the position up to which the other ring is released; bit 48 the parity of the
 *   release; bit 49: it is a note
 *
 * The state of a tail is the parity of the releases that came by a note.  So a note is done when
 * its parity is the tail's, however often positions have wrapped since.  Whoever does what a note
 * says, its author, his heir or the other side that needs the room, does it by the same exchange of
 * the tail, of which one succeeds.
 */

#include <stdbool.h>
#include <stdint.h>

#include "libipc/channel/session.h"

/* ---- where things stand ---- */

struct session_layout {
	uint64_t data[2]; /* offsets */
	uint64_t size;
};

/* False: not legal. */
bool session_layout(struct session_layout *ret, const uint64_t shape[4]);

/* ---- notes ---- */

#define SESSION_NOTE_IS     (UINT64_C(1) << 49)
#define SESSION_NOTE_PARITY 48
#define SESSION_NOTE_SHIFT  8

/* State of tail. */
#define SESSION_PARITY 1u

static inline uint64_t session_note(uint64_t position, unsigned parity)
{
	return SESSION_NOTE_IS | (uint64_t)parity << SESSION_NOTE_PARITY |
	       (position & RING_POSITION_MASK) << SESSION_NOTE_SHIFT;
}

static inline unsigned session_parity(uint64_t tail)
{
	return ring_state(tail) & SESSION_PARITY;
}

/* Whether `position` is behind `from`, at most at `to`. */
static inline bool session_is_between(uint64_t from, uint64_t position, uint64_t to)
{
	uint64_t distance = ring_distance(from, position);

	return distance >= 1 && distance <= ring_distance(from, to);
}

/* Whether `what`, which stands at a head in state NOTED, is a note that `tail` has not followed
 * yet; and up to where. */
static inline bool session_note_is_due(uint64_t what, uint64_t tail, uint64_t head,
				       uint64_t *ret_position)
{
	uint64_t position = what >> SESSION_NOTE_SHIFT & RING_POSITION_MASK;

	if (ring_type_of(what) != RING_NOTHING || !(what & SESSION_NOTE_IS) ||
	    (what >> SESSION_NOTE_PARITY & SESSION_PARITY) == session_parity(tail) ||
	    !session_is_between(ring_position(tail), position, ring_position(head)))
		return false;

	*ret_position = position;
	return true;
}

/*
 * What the other end has released, if it told so by a note, and died or was stopped before its tail
 * said it: the tail says it from now on.  True if that was so.  It is the turn of the senders.
 */
bool session_settle(struct session *session);

/*
 * What the own end has told by a note: the tail says it from now on.  It is the turn of the
 * receivers; `position` is due.  0, also if the other end did it; IPC_ESTALE: the end was taken
 * over, and whoever has it does it; IPC_EBADMSG.
 */
IPC_CHECKED int session_follow(struct session *session, uint64_t position);

/*
 * Up to where this message is to be released: 1; 0: it is already; IPC_EINVAL: of another end, or
 * not received yet; IPC_ESTALE.  It is the turn of the receivers.
 */
IPC_CHECKED int session_find_release(const struct session *session,
				     const struct ipc_session_message *message,
				     uint64_t *ret_position);

/* ---- the rest ---- */

/* What the rings said, as the result of a call: a broken one breaks the session.  To who was taken
 * over meanwhile, and looks at what is another's, all looks broken: that is IPC_ESTALE. */
int session_blame(const struct session *session);

static inline int session_result(const struct session *session, int r)
{
	return UNLIKELY(r == IPC_EBADMSG) ? session_blame(session) : r;
}

/* Whoever sleeps at one end looks again. `is_exchanged`: an exchange came right before. */
static inline void session_wake(const struct session *session, struct eventcount *line,
				bool is_exchanged)
{
	if ((is_exchanged ? eventcount_notify_exchanged(line) : eventcount_notify(line)) &&
	    session->ring)
		session->ring(session->ring_userdata);
}

/* At the other end. */
static inline void session_notify(const struct session *session, bool is_exchanged)
{
	session_wake(session, &session->lines[!session->side], is_exchanged);
}

#endif
