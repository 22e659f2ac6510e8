/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_LIMITER_H
#define LIBIPC_CLIENT_LIMITER_H

/*
 * What the files of the kind `limiter` share: the handle, and its grants.
 *
 * Grants are memory of their handle: made in rows, as seats are (core/seats.h), used again and
 * again, and freed with the handle.  A grant's life is one word, `use`:
 *
 * bits    what       rule
 * 63..2   which use  grows each time the grant becomes free
 * 1..0    status     FREE; BUSY: one call has it, to acquire or to release; HELD: the program's
 *
 * Only the call that made it BUSY touches the rest, or the seat.  Close makes every HELD grant BUSY
 * and releases it; of those that are BUSY it marks is_counted, and the calls that have them, which
 * see that the handle is closing, count down when they are free.  So does the call that adds a row,
 * if there is one: close does not wait for the mutex.  The broker is not told before the last of
 * them: from then on the handle's seats are nobody's.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/limiter.h>

#include "libipc/channel/limiter.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/compiler.h"

enum { GRANT_FREE, GRANT_BUSY, GRANT_HELD };

#define GRANT_STATUS UINT64_C(3)

struct grant {
	_Alignas(64) _Atomic uint64_t use;
	struct limiter_part part;
	_Atomic uint32_t is_counted; /* in limiter->n_unfree */
	uint32_t index;              /* of this handle's grants */
};
ASSERT_SIZE(struct grant, 64);

struct grant_row {
	struct grant grant[SEATS_PER_ROW];
	uint32_t seats_row;
	_Atomic uint32_t has_free; /* 0: a search found none */
};

struct ipc_limiter {
	struct endpoint endpoint;
	struct limiter view;

	_Atomic(struct grant *) hint;      /* the one that became free last */
	pthread_mutex_t mutex;             /* of those who add rows; close never takes it (M-44) */
	_Atomic uint32_t is_adding;        /* written under the mutex */
	_Atomic uint32_t adder_is_counted; /* in n_unfree */
	_Atomic uint32_t n_rows;
	struct grant_row *row[LIMITER_ROWS];

	/* Grants and adders that close leaves the telling to, and close itself; not 0: the broker
	 * is not told yet. */
	_Atomic uint32_t n_unfree;
};
ASSERT_OFFSET(struct ipc_limiter, endpoint, 0);

/* ---- grants.c ---- */

/* A grant that is BUSY, the calling thread's alone until grant_give() or grant_free().  0;
 * IPC_ECANCELED: closed meanwhile; IPC_ENOSPC, IPC_ENOMEM, or the channel's fault. */
IPC_CHECKED int grant_take(ipc_limiter *limiter, uint32_t permits, struct grant **ret);

/* It has been granted and becomes the program's.  0; IPC_ECANCELED: the handle was closed. */
IPC_CHECKED int grant_give(ipc_limiter *limiter, struct grant *grant,
			   struct ipc_limiter_grant *ret);

/* The program's becomes BUSY again.  NULL: no grant of this handle, or not any more. */
struct grant *grant_of(ipc_limiter *limiter, uint64_t id);

/* By the call that has it; its seat is free. */
void grant_free(ipc_limiter *limiter, struct grant *grant);

/* closing_fn of the handle. */
void grants_closing(struct endpoint *endpoint);

#endif
