/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_OPTIONS_H
#define LIBIPC_CLIENT_OPTIONS_H

/*
 * Options structs as openat2(2) has them (M-41): a shorter one is filled up with zeros, a longer
 * one must be zero beyond what is known (IPC_E2BIG), unknown flags and a size below sizeof(size_t)
 * are IPC_EINVAL.
 */

#include <stddef.h>
#include <stdint.h>

/* Copies *given (NULL: all defaults) into known[known_size], whose first member is size_t size. */
int options_copy(void *known, size_t known_size, const void *given);

/*
 * Flags, mode of a channel's options.  allowed: every legal flag of this role.  IPC_EXCLUSIVE
 * without IPC_CREATE is IPC_EINVAL; mode bits outside 0666 are IPC_EINVAL; *mode 0 becomes 0600.
 */
int options_check(uint64_t flags, uint64_t allowed, uint32_t *mode);

/*
 * M-46: states and infos.  Writes the smaller of the two sizes; keeps *given's size field.
 * IPC_EINVAL: size too small.
 */
int options_write_info(void *given, const void *known, size_t known_size);

#endif
