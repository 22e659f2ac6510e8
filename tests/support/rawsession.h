/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_RAWSESSION_H
#define TESTS_SUPPORT_RAWSESSION_H

/*
 * Sessions by hand, message by message: for tests of the broker without the library.
 *
 * Nothing here asserts; what a call cannot do ends the process with a line (failure.h).  Offers lie
 * in a peer's socket until rawsession_offer(): a request of the same peer in between loses them.
 */

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/rawpeer.h"

/* What a peer knows of one end. */
struct rawsession {
	struct rawpeer *peer;
	uint64_t id, generation;
	uint64_t listener_id; /* of an offer */
	bool is_taken_back;   /* of an offer */
	uint32_t slot, side, owner_uid;
	uint64_t owner_table_id;
	unsigned char key[PROTOCOL_KEY_SIZE];
	int value_fd, pair_fd; /* -1: did not come */
};

/* A listener's handle; 0 and its id, or a negative result. */
int rawsession_listen(struct rawpeer *peer, const char *name, uint64_t flags, uint64_t window_ns,
		      uint64_t *ret_id);

/* 0 once OPENED is there; or a negative result. */
int rawsession_connect(struct rawpeer *peer, const char *name, uint64_t flags,
		       struct rawsession *ret);

/* OPEN_RESUME: the same. */
int rawsession_resume(struct rawpeer *peer, const unsigned char *key, struct rawsession *ret);

/* Whether the next message within this time is an OFFER. */
bool rawsession_offer(struct rawpeer *peer, unsigned timeout_ms, struct rawsession *ret);

/* The reply is one. */
void rawsession_take_offer(struct rawpeer *peer, struct rawsession *ret);

/* The word that decides (channel/session.h). */
void rawsession_decide(const struct rawsession *session, uint32_t is_taken);
/* TAKEN, alone. */
void rawsession_say_taken(const struct rawsession *session, bool is_accepted);
/* Both: what a library does. */
void rawsession_accept(const struct rawsession *session);

/* CLOSE; and wait until that is done. */
void rawsession_close(const struct rawsession *session);
void rawsession_detach(const struct rawsession *session);

/* The key that came with it is stored. */
void rawsession_confirm(const struct rawsession *session);

/* Whether the handle is open, by the table that the peer has. */
bool rawsession_is_open(const struct rawsession *session);

/* One page of SESSIONS; 0, with the page in reply, or negative. */
int rawsession_list(struct rawpeer *peer, const char *name, uint64_t cursor);

void rawsession_drop(struct rawsession *session); /* its descriptors */

#endif
