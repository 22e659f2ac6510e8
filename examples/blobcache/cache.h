/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_BLOBCACHE_CACHE_H
#define EXAMPLES_BLOBCACHE_CACHE_H

/*
 * A directory of files that are named by the SHA-256 of what is in them, filled from an upstream by
 * any number of processes at once: a blob that many ask for is downloaded by one of them.
 *
 *	<digest>                   whole: a file gets such a name only when all of it is there
 *	<digest>.<fence>.partial   a download by the leader that has this fence
 */

#include <stdint.h>
#include <stdio.h>

#include <ipc/ipc.h>

#include "examples/blobcache/sha256.h"

struct cache {
	int fd; /* of the directory */
	const char *upstream;
	char table_name[64];
	ipc_flight_table *table;
};

/* What a download comes to, and all that a flight carries: not the bytes, where they are. */
struct blob {
	uint64_t size;
	char name[SHA256_HEX_SIZE + 8];
};

/* Why there is no blob.  Whose fault it is says more than the number: ENOENT of the upstream is
 * another thing than ENOENT of the cache's own directory. */
struct trouble {
	enum ipc_failure failure;
	int32_t code; /* UPSTREAM: its exit status, else an errno */
	char reason[120];
};

/* 0; -1: errno says why the directory cannot be opened. */
int cache_open(struct cache *ret, const char *path, const char *upstream);
void cache_close(struct cache *cache);

/* 0; or a result of libipc. */
IPC_CHECKED int cache_connect(struct cache *cache, ipc_client *client,
			      const struct timespec *deadline);

/* Whether it is there: needs no connection. */
bool cache_has(const struct cache *cache, struct blob *blob);

/* Gets it from the upstream, or from whoever is about to.  0: it is there; 1: it is not, and
 * *ret_trouble says why; negative: this call's own trouble, a result of libipc. */
IPC_CHECKED int cache_fill_wait(struct cache *cache, struct blob *blob, struct trouble *ret_trouble,
				const struct timespec *deadline);

#endif
