/* SPDX-License-Identifier: MIT */
#ifndef BROKER_FDSTORE_H
#define BROKER_FDSTORE_H

/*
 * A table of named descriptors: what the keeper holds, and what the worker remembers of it.  Of
 * fixed size: neither may fail for lack of memory later on.
 *
 * Entries are dense, the last one fills a gap.  A signal handler may read entry[0] to entry[n - 1]
 * at any instruction of the others (an entry may be there twice then, none is missing).
 */

#include <stdatomic.h>
#include <stdint.h>

#define STORE_NAME_SIZE 16 /* with NUL; names have at most 11 characters */
#define STORE_NAME_MAX  11
#define STORE_FDS_MAX   19000

#define FDSTORE_BUCKETS 16384

struct fdstore_entry {
	char name[STORE_NAME_SIZE]; /* NUL up to the end */
	int fd;
	uint32_t next; /* of the bucket: index + 1, 0: the last */
};

struct fdstore {
	_Atomic uint32_t n;
	uint32_t bucket[FDSTORE_BUCKETS]; /* index + 1, 0: empty */
	struct fdstore_entry entry[STORE_FDS_MAX];
};

/* All zero bytes are an empty table, too. */
void fdstore_clear(struct fdstore *table);

/* Index, or -1. */
int fdstore_find(const struct fdstore *table, const char *name);

/* Index of the new entry; -1: full, or a name that is empty or too long.  The caller has looked
 * that it is not there. */
int fdstore_append(struct fdstore *table, const char *name, int fd);

/* Takes the entry out; the last one (at *n after the call) moves to its index.  Nothing is closed.
 */
void fdstore_take(struct fdstore *table, unsigned index);

#endif
