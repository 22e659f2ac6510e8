/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_FLIGHT_H
#define LIBIPC_CLIENT_FLIGHT_H

/*
 * What the files of the kind `flight` share: the two handles, and the parts (ipc_flight) that each
 * of them owns.
 *
 * A part is memory of its handle's: made in rows, as seats are (core/seats.h), used again and
 * again, and freed with the handle.  So a thread that is inside of a call on a part touches no
 * freed memory, whoever leaves the part meanwhile; what it must not touch is the part's next
 * flight.  All of that hangs on one word, part.use:
 *
 * bits       what                    rule
 * 63..32     which use               grows each time the part becomes free
 * LEFT       left, or about to be    set once in a use, by whoever leaves the part; nobody begins
 *                                    anything after it
 * IN_USE     not free                set by who takes the part
 * DEFERRED   one visitor more        stands for a call that is no visitor (see below), and goes
 *                                    with it
 * 23..0      visitors                calls that the use has to outlast.  The last of them, after
 *                                    LEFT, lets go of the flight and makes the part free
 *
 * Looks and waits are visitors.  Join and land are not, since that would cost them two locked
 * instructions each:
 * - land holds the seat's `writer` lock while it touches the flight, and goes on only if it finds
 *   the use that it began with.  The leaver sets LEFT, then looks at the lock; either it is seen
 *   there, or it sees LEFT.
 * - join says so in is_joining, which matters to close alone: nobody else knows of the part yet.
 * Where the leaver finds one of the two busy it adds DEFERRED, and whoever finds that set and
 * nothing busy takes it away.
 *
 * Close leaves all parts, and must not tell the broker before that is done: from then on the
 * handle's seats are nobody's.  is_counted is set in the parts that it waits for.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/flight.h>

#include "libipc/channel/flight.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/compiler.h"

#define PART_VISITORS UINT64_C(0x00ffffff)
#define PART_DEFERRED UINT64_C(0x01000000)
#define PART_IN_USE   UINT64_C(0x40000000)
#define PART_LEFT     UINT64_C(0x80000000)

struct ipc_flight {
	_Alignas(64) struct endpoint_part handle;
	struct flight_part part;
	_Atomic uint32_t is_joining; /* a call has taken the part and not given it to anybody yet */
	_Atomic uint32_t is_joined;  /* the seat names a cell */
	_Atomic uint32_t is_counted; /* in owner->n_unleft */
	uint32_t row;                /* of the owner's rows */
};
ASSERT_OFFSET(struct ipc_flight, handle, 0);
ASSERT_SIZE(struct ipc_flight, 128);
static_assert((FLIGHT_USE & (PART_LEFT | PART_IN_USE)) == PART_LEFT, "who leaves ends the use");

#define PARTS_CHUNK 64

/* Rows are added and never taken away. */
struct parts_chunk {
	_Atomic uint8_t has_free[PARTS_CHUNK]; /* 0: a search found no free part in the row */
	struct ipc_flight *row[PARTS_CHUNK];
	uint32_t seats_row[PARTS_CHUNK];
};

/* Both handles. */
struct flight_owner {
	struct endpoint endpoint;
	struct flight view;

	_Atomic(struct ipc_flight *) hint; /* the part that became free last */
	pthread_mutex_t mutex;             /* of those who add rows */
	_Atomic uint32_t n_rows;
	_Atomic(struct parts_chunk *) chunk[SEATS_ROWS / PARTS_CHUNK];

	/* Parts that close waits for, and close itself; not 0: the broker is not told yet. */
	_Atomic uint32_t n_unleft;
};
ASSERT_OFFSET(struct flight_owner, endpoint, 0);

struct ipc_flight_table {
	struct flight_owner owner;
};

struct ipc_handler {
	struct flight_owner owner;
};

static inline struct flight_owner *part_owner(const ipc_flight *flight)
{
	return (struct flight_owner *)flight->handle.endpoint;
}

/* ---- parts.c ---- */

void parts_init(struct flight_owner *owner);

/* A free part, which is joining from now on.  Until parts_give() or parts_abort() it is the calling
 * thread's alone.  0; IPC_ECANCELED: closed meanwhile; IPC_ENOSPC, IPC_ENOMEM. */
IPC_CHECKED int parts_take(struct flight_owner *owner, ipc_flight **ret);

/* The part has joined and becomes the caller's handle.  0; IPC_ECANCELED: the owner was closed. */
IPC_CHECKED int parts_give(ipc_flight *flight);

/* The part goes back; is_joined says whether it has to leave its flight. */
void parts_abort(ipc_flight *flight, bool is_joined);

/* A visitor comes and goes.  IPC_EINVAL: not in use. */
IPC_CHECKED int part_begin(ipc_flight *flight);
void part_end(ipc_flight *flight);

/* The same for who knows which use: part_use() when it was in use. */
IPC_CHECKED int part_begin_again(ipc_flight *flight, uint64_t use);

static inline uint64_t part_use(const ipc_flight *flight)
{
	return atomic_load_explicit(&flight->part.use, memory_order_acquire);
}

/* After a call that was no visitor. */
void part_settle_slow(ipc_flight *flight);

static inline void part_settle(ipc_flight *flight)
{
	/* [B6] The call is over before the word is read.  Pairs with [B5]. */
	process_fence_light();
	if (UNLIKELY(part_use(flight) & PART_DEFERRED))
		part_settle_slow(flight);
}

/* The caller's handle ends.  Waits of others on it end. */
void part_leave(ipc_flight *flight);
void part_leave_visited(ipc_flight *flight);

/* Of both roles: closing_fn and release. */
void parts_closing(struct endpoint *endpoint);
void parts_release(struct endpoint *endpoint);

/* ---- flight_part.c ---- */

extern const struct endpoint_readiness flight_part_readiness;

struct flight_wish {
	enum flight_form form;
	const void *key;
	size_t key_size;
	uint32_t urgency;
};

/* 1, 0, 2 as flight_join(), with a part that is joining; or an error, with none. */
IPC_CHECKED int part_join(struct flight_owner *owner, const struct flight_wish *wish,
			  ipc_flight **ret);

/* 1, 0, or how the wait ended. */
IPC_CHECKED int part_wait(ipc_flight *flight, uint64_t deadline_ns);

#endif
