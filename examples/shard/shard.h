/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_SHARD_SHARD_H
#define EXAMPLES_SHARD_SHARD_H

/*
 * A shard: the replica of a key-value store.
 *
 *   primary  has the data.  Every mutation gets the next offset; the last ones are kept in a
 *            backlog.  Whoever connects says from where on: it gets those, or a snapshot if they
 *            are not there any more.
 *   runner   reads from the primary, and feeds the inbox
 *   shard    takes what is in the inbox, and owns the replica
 *   main     kills runner and shard, and compares the replica with the primary
 */

#include <stdatomic.h>
#include <stdint.h>

#include <ipc/ipc.h>

#define INBOX "example/shard"

enum {
	KEYS = 4096,
	BACKLOG = 256,   /* mutations */
	BURST = 100,     /* mutations at a time, each millisecond */
	CHUNK = 128,     /* mutations */
	CAPACITY = 8192, /* of the inbox: less than a snapshot */
};

/* A snapshot is mutations as well: of an empty store. */
struct mutation {
	uint64_t key, value; /* value 0: there is none */
};

/* ---- the primary and its protocol ---- */

/* In memory that main sees too, to compare. */
struct primary {
	_Atomic bool must_rest;  /* said by main: no more mutations */
	_Atomic bool is_at_rest; /* answered */
	uint64_t generation;     /* of the offsets; random */
	_Atomic uint64_t next;   /* offset of the next mutation */
	uint64_t values[KEYS];
};

/* What the runner asks for; another generation, or an offset too old, is answered by a snapshot. */
struct request {
	uint64_t generation, offset;
};

enum message_type { SNAPSHOT_BEGIN, SNAPSHOT_CHUNK, SNAPSHOT_END, MUTATION };

struct message {
	enum message_type type;
	uint32_t n_mutations;
	uint64_t number; /* BEGIN: the generation; END: the next offset; MUTATION: its own */
	struct mutation mutations[CHUNK];
};

/* ---- the replica ---- */

/* In a file, so that it survives the process that owns it. */
struct copy {
	_Atomic uint64_t next; /* offset of the next mutation */
	uint64_t values[KEYS];
};

struct store {
	_Atomic uint32_t current; /* the copy that counts; the other one is loaded */
	uint64_t n_frames, n_again, n_loaded, n_torn; /* for the curious */
	struct copy copies[2];
};

struct store *store_map(int file);

/* ---- the processes ---- */

void must(const char *what, int result);

/* Connect after fork: a forked child cannot use what its parent opened. */
ipc_client *connect_client(void);

/* Both ends make the inbox, kept; and stay, whatever becomes of the other one. */
const struct ipc_inbox_options *inbox_options(void);

int run_primary(struct primary *primary, int listener);
int run_runner(int listener);
int run_shard(int file);

#endif
