/* SPDX-License-Identifier: MIT */
#ifndef BROKER_SANDBOX_H
#define BROKER_SANDBOX_H

/*
 * The worker's sandbox: it reads what any client sends, so it gives up beforehand what it will not
 * need.
 *
 * layer         what is left
 * dumpable 0    nobody of the same uid reads its memory or borrows its descriptors
 * capabilities  none, also if it is root
 * rlimits       no core, no new process (of a uid that is not 0)
 * no_new_privs  no setuid program
 * Landlock      no file but to read and write (never to name) beneath /dev/shm; where the kernel
 *               has none this is logged, and the rest has to do
 * seccomp       an allowlist; anything else kills the process (SIGSYS), which the keeper answers
 *               with the next worker.  openat() only in the two directories of the segment_maker:
 *               O_TMPFILE in the one, read-only in the other.  clone3() says ENOSYS, as libc
 *               expects of a sandbox.
 *
 * Called in a process with one thread.  Afterwards no stdio: it asks what its descriptor is
 * (log_line() does not).  Signal handlers must be installed before.
 */

#include "libipc/platform/segment.h"

/* 0; or -1 and one line in error: which step failed.  After success nothing but the allowlist
 * works, for ever. */
int sandbox_enter(const struct segment_maker *maker, char *error, unsigned error_size);

#endif
