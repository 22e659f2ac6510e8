/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_STANDIN_H
#define TESTS_SUPPORT_STANDIN_H

/*
 * A stand-in for the broker: a forked process that says what a test's script says, at the moment
 * that the script wants.  For answers that the real one gives late, twice, never or wrongly.
 */

#include <stdint.h>

#include "libipc/core/liveness.h"
#include "libipc/wire/protocol.h"
#include "tests/support/actor.h"

struct standin {
	char dir[64];
	char address[100];
	struct actor actor; /* the script talks to the test through it */
};

/* One client, as the script sees it. */
struct caller {
	int fd;
	uint32_t slot;
	struct liveness_table *table; /* of this user; mapped writable here */
	struct desk *desk;
	int table_fd, desk_fd;
	uint64_t next_id;
};

/* Where the script runs. */
struct script {
	struct actor *test;
	int listen_fd;
};

/* The socket listens when this returns; the script runs in a process of its own and ends with it.
 */
void standin_start(struct standin *standin, void (*run)(struct script *script));
void standin_stop(struct standin *standin); /* kills it if it has not ended */

/* ---- in the script; what does not come within 30 s ends the process ---- */

int script_accept(struct script *script); /* descriptor */

/* Accepts, takes HELLO, says WELCOME. */
void caller_begin(struct caller *caller, struct script *script);

/* Takes HELLO and says WELCOME on an accepted descriptor. */
void caller_welcome(struct caller *caller, int fd);

/* The next message, which has to be of this type. */
void caller_take(struct caller *caller, union message *message, enum message_type type);

void caller_say(struct caller *caller, const union message *message, const int *fds,
		unsigned n_fds);
void caller_done(struct caller *caller, uint64_t request_id, int result);

/* RESERVE and OPENED for an OPEN; the same *segment_fd for both (-1: makes one). */
void caller_reserve(struct caller *caller, const struct message_open *open, uint64_t handle_id,
		    int *segment_fd);
void caller_opened(struct caller *caller, const struct message_open *open, uint64_t handle_id,
		   int segment_fd, bool with_value);

/* A new handle id; its word in the table says that it is open. */
uint64_t caller_handle(struct caller *caller);

/* The side's word, then the client's attention. */
void caller_side(struct caller *caller, unsigned side, uint64_t word);

#define STANDIN_CHANNEL 5 /* the slot of the only channel */

#endif
