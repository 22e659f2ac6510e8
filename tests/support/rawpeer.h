/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_RAWPEER_H
#define TESTS_SUPPORT_RAWPEER_H

/*
 * A client that speaks the protocol by hand, message by message: for tests of the broker without
 * the library.
 *
 * Nothing here asserts; what a call cannot do ends the process with a line (failure.h).
 */

#include <stdbool.h>
#include <stdint.h>

#include "libipc/core/liveness.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/protocol.h"

struct rawpeer {
	int fd;
	uint64_t last_id; /* request id of the last request */
	uint32_t slot, uid;
	uint64_t table_id, desk_id;
	const struct liveness_table *table; /* of the own uid */
	struct desk *desk;
	union message reply;     /* the last one received */
	int fds[FDPASS_FDS_MAX]; /* what came with it; closed by the next receive */
	unsigned n_fds;
	void (*news)(struct rawpeer *peer); /* what rawpeer_answer() passes over; NULL: dropped */
};

#define RAWPEER_END     0 /* rawpeer_receive(): the broker closed the connection */
#define RAWPEER_NOTHING 1 /* nothing came in time */

/* Connected, nothing said. */
void rawpeer_connect(struct rawpeer *peer, const char *address);
void rawpeer_disconnect(struct rawpeer *peer);

/* HELLO of this process; 0 or the refusal's result; RAWPEER_END, positive, if the broker hung up.
 */
int rawpeer_hello(struct rawpeer *peer);
/* connect and HELLO until welcomed. */
void rawpeer_join(struct rawpeer *peer, const char *address);

/* Gives the request the next id and sends it. */
void rawpeer_send(struct rawpeer *peer, union message *request);

/* The type of the next message, RAWPEER_END or RAWPEER_NOTHING. */
int rawpeer_receive(struct rawpeer *peer, unsigned timeout_ms);
/* The answer to the request of this id (others are dropped, as the protocol says): its type, or as
 * above. */
int rawpeer_answer(struct rawpeer *peer, uint64_t request_id);

/* An OPEN of a watch, shared, queue, flight, limiter, inbox or listener with usual shapes, ready to
 * be changed. */
union message rawpeer_open_message(uint32_t role, const char *name, uint64_t flags);

/* Sends it, reserves and confirms if that is asked for.  The handle's id in *ret (reply is the
 * OPENED then), or a negative result. */
int rawpeer_open(struct rawpeer *peer, union message *open, uint64_t *ret_handle_id);
int rawpeer_open_role(struct rawpeer *peer, uint32_t role, const char *name, uint64_t flags,
		      uint64_t *ret_handle_id);

/* The reply is a RESERVE: does what it asks for and confirms; as above. */
int rawpeer_reserve(struct rawpeer *peer, uint64_t request_id, uint64_t *ret_handle_id);

/* By message. */
void rawpeer_close(struct rawpeer *peer, uint64_t handle_id);
/* By the desk alone: the broker is not told. */
void rawpeer_close_silently(struct rawpeer *peer, uint64_t handle_id);

int rawpeer_remove(struct rawpeer *peer, const char *name, uint64_t generation);
/* 0, with the info in reply, or negative. */
int rawpeer_info(struct rawpeer *peer, const char *name);
int rawpeer_state(struct rawpeer *peer, const char *name);
/* One page of handles: the same. */
int rawpeer_handles(struct rawpeer *peer, const char *name, uint64_t cursor, uint64_t generation);

/* Everything sent before has been done when this returns. */
void rawpeer_sync(struct rawpeer *peer);

/* Until the side's word holds: count handles and ends at least; 5 s at most.  The word. */
uint64_t rawpeer_until_side(const struct rawpeer *peer, uint32_t channel_slot, unsigned side,
			    uint32_t count, uint32_t ends);

#endif
