/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_BLOBCACHE_UPSTREAM_H
#define EXAMPLES_BLOBCACHE_UPSTREAM_H

/*
 * The upstream is a program: it gets the digest as its argument and writes the blob to its standard
 * output.  Exit status 0: that was all of it; 1: there is no such blob; 126, 127: as env(1), the
 * program could not be run here; any other, or a signal: the upstream failed.
 */

#include <sys/types.h>

struct trouble;

struct upstream {
	pid_t pid;
	int fd; /* what it writes */
};

/* 0; -1: errno says why. */
int upstream_start(struct upstream *ret, const char *program, const char *digest);

/* After the end of what it writes.  0; -1: *ret_trouble says whose fault it is. */
int upstream_end(struct upstream *upstream, struct trouble *ret_trouble);

/* Not wanted any more. */
void upstream_stop(struct upstream *upstream);

#endif
