/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_SESSION_END_H
#define TESTS_SUPPORT_SESSION_END_H

/*
 * One end of a session under load, and the checks of what it hears.  A process may be killed at any
 * instruction and be overtaken while it lives: what must outlive it stands on a board, in memory
 * shared with the test, written so that it is right whoever stops where.
 *
 * An end sends by two threads and, as replies, by a third one: three streams.  Every message says
 * whose life it is, of which stream, and how many of that stream came before it in that life.  The
 * receiver knows from it that
 *
 *   nothing is lost     a send that came back is in the stream, and none is left out
 *   nothing is twice    but REDELIVERED, and then with the same bytes
 *   nothing comes late  no message of an overtaken process stands behind one of the next
 *   each request has one reply, in their order (commit_release)
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/ipc.h>

#include "tests/support/domain.h"

enum {
	TALK_SENDERS = 2,
	TALK_REPLIES = TALK_SENDERS, /* the stream of those */
	TALK_STREAMS,
	TALK_LIVES_MAX = 1 << 15,
	TALK_STEPS = 1 << 15, /* more than come while an overtaken process is stopped */
	TALK_WAIT_MS = 30000, /* that long nobody waits for those who live */
	TALK_SIZE_MAX = 4096
};

/* What is known of the sends of one life: begun is noted before the call, done after. */
struct talk_life {
	_Atomic uint32_t begun[TALK_STREAMS], done[TALK_STREAMS];
	_Atomic uint64_t heard[TALK_STREAMS]; /* by the other end */
};

/* What a receiver knows after so many messages: follows from the messages alone, so that it does
 * not matter who writes it, and how often. */
struct talk_step {
	uint64_t number;
	uint64_t is;      /* of the message itself: to tell whether it comes again as it was */
	uint64_t n_asked; /* requests so far */
	uint64_t n_answered, last_answered; /* replies so far, and to which number the last one */
	uint32_t life[TALK_STREAMS], count[TALK_STREAMS];
};

struct talk_end {
	/* As in a file: */
	struct ipc_session_key keys[2];
	_Atomic uint32_t
		key; /* keys[key % 2] is the newest stored, the other one is the one before */

	_Atomic uint32_t life;      /* the newest process, told by who starts it */
	_Atomic uint32_t ready;     /* the newest one that has its key on the board, */
	_Atomic uint32_t confirmed; /* and has confirmed it */

	_Atomic uint64_t received; /* number of the last one received, noted after */
	_Atomic uint64_t checked;  /* number of the last one that was right */
	_Atomic uint64_t replied;  /* number of the last request whose commit_release came back */

	/* Of ipc_session_get_state(), when it had nothing to do. */
	_Atomic uint64_t sent, acknowledged, n_idle;

	_Atomic uint64_t n_again, n_fds, n_fds_lost, n_replies, n_overtaken, n_voids;
	struct talk_life lives[TALK_LIVES_MAX];
	struct talk_step steps[TALK_STEPS];
};

struct talk {
	char name[32];
	struct ipc_session_options options;
	unsigned asker; /* the side that sends requests */
	_Atomic uint32_t is_quiet, is_over;
	_Atomic uint32_t wrong_line;
	_Atomic int64_t wrong_value;
	struct talk_end ends[2];
};

enum talk_way { TALK_FIRST, TALK_BY_KEY, TALK_AS_LISTENER };

/*
 * A process of an end.  It ends by _exit: 0: it was overtaken, or the talk is over and was closed
 * in order; 1: wrong_line says what does not hold.
 */
void talk_run(const struct domain *domain, struct talk *talk, unsigned side, uint32_t life,
	      enum talk_way way) __attribute__((__noreturn__));

#endif
