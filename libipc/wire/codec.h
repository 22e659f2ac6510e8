/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_WIRE_CODEC_H
#define LIBIPC_WIRE_CODEC_H

/*
 * Checks messages before anybody looks into them: known type in this direction, the size that the
 * type has, names that are NUL-terminated and legal, numbers in range, reserved fields zero.
 */

#include <stddef.h>

#include "libipc/wire/protocol.h"

/* Fills the head (magic, type, size by type, request_id; result 0); the rest of a fixed-size
 * message is zeroed. */
void message_init(union message *message, enum message_type type, uint64_t request_id);

/* 0, or IPC_EPROTO.  `message` holds the `size` bytes that were received. */
int message_check_request(const union message *message, size_t size);
int message_check_reply(const union message *message, size_t size);

/* M-2: 1 to 255 bytes of A-Z a-z 0-9 . _ - /, not starting with '/'.  At most size_max bytes are
 * looked at. */
int name_check(const char *name); /* 0, IPC_EINVAL */

#endif
