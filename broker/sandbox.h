/* SPDX-License-Identifier: MIT */
#ifndef BROKER_SANDBOX_H
#define BROKER_SANDBOX_H

/*
 * The worker's sandbox: dumpable 0, rlimits, no_new_privs, Landlock where there is one, a seccomp allowlist; verified afterwards.
 */

#include "libipc/platform/segment.h"

/* 0; or -1 and one line in error: which step failed.  After success nothing but the allowlist works, for ever. */
int sandbox_enter(const struct segment_maker *maker, char *error, unsigned error_size);

#endif
