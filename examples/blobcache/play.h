/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_BLOBCACHE_PLAY_H
#define EXAMPLES_BLOBCACHE_PLAY_H

enum {
	STATUS_THERE = 0,
	STATUS_HERE = 1,
	STATUS_USAGE = 2,
	STATUS_UPSTREAM = 3,
	STATUS_NO_SUCH_BLOB = 4,
};

/* The demo.  0: all of it held. */
int play(void);

#endif
