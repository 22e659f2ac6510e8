/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_PARCEL_H
#define LIBIPC_CORE_PARCEL_H

/*
 * Descriptors that go with records of a ring, through a socket pair that the broker made and keeps:
 * one packet each, in the order in which they were sent, before the commit of their record.  The
 * record says the number and the lowest bits of the producer's tag; numbers grow.
 *
 * Deaths: a packet whose record was never committed has an older number than any that is looked
 * for, or another tag, and is dropped.  One that is not there was taken by a consumer that died.
 *
 * Nothing here sleeps, and no thread is cancelled inside.
 */

#include <stdbool.h>
#include <stdint.h>

#include "libipc/core/ring.h"

#define PARCEL_TAG_MASK 0xffffu

/* 0; IPC_EAGAIN: the socket is full; IPC_EINVAL: no descriptor; IPC_ESTALE, IPC_EPIPE: the pair is
 * not there. */
IPC_CHECKED int parcel_send(int pair_fd, int fd, uint64_t number, unsigned tag);

/*
 * *ret_fd: the descriptor, or -1: it was taken before.  0; IPC_EMFILE: no descriptor is free, and
 * it stays.  *ret_moved becomes true if there is more room in the socket now.  Whoever is not the
 * ring's consumer any more takes nothing.
 */
IPC_CHECKED int parcel_take(int pair_fd, const struct ring_consumer *consumer, uint64_t number,
			    unsigned tag, int *ret_fd, bool *ret_moved);

/* Those up to this number.  Whether there were any. */
bool parcel_drop(int pair_fd, const struct ring_consumer *consumer, uint64_t number);

#endif
