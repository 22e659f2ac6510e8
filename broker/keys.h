/* SPDX-License-Identifier: MIT */
#ifndef BROKER_KEYS_H
#define BROKER_KEYS_H

/*
 * Keys of the ends of sessions.  A key names session and end, and proves by 128 bits from the
 * kernel that it was given out here.  It is in the worker's records and in its owner's hands,
 * nowhere else: not in a log, a listing or a segment.
 *
 * An end has at most two valid ones: the newest, and the one by which that was got, until the
 * newest is confirmed.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/registry.h"

/* Which end a key claims to be of; NULL: of no session that is there. */
struct channel *keys_channel(struct registry *registry, const unsigned char key[PROTOCOL_KEY_SIZE],
			     unsigned *ret_side);

/* A candidate for the handle of this id; `before` stays valid when it is promoted (NULL: none).
 * IPC_ENOSYS: the kernel gives nothing. */
IPC_CHECKED int keys_prepare(const struct channel *channel, unsigned side, uint64_t handle_id,
			     const unsigned char *before);

/* The candidate of this handle is the newest from now on.  Done twice it is done once. */
void keys_promote(struct session_end *end, uint64_t handle_id);

/* The one before the newest is void. */
void keys_confirm(struct session_end *end);

/* Whether it is a valid one.  Takes the same time for each. */
bool keys_match(const struct session_end *end, const unsigned char key[PROTOCOL_KEY_SIZE]);

/* The newest; of a handle that has not taken the end yet, its candidate. */
const unsigned char *keys_of(const struct session_end *end, uint64_t handle_id);
const unsigned char *keys_newest(const struct session_end *end);

#endif
