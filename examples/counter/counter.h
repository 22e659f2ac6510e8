/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_COUNTER_COUNTER_H
#define EXAMPLES_COUNTER_COUNTER_H

/*
 * A conversation that outlives both who hold it: the client says 1, 2, 3, ..., the server answers
 * each number with the same.  Either may be killed at any instruction; who is started again goes on
 * where the dead one had stopped, and at both ends each number is counted once.
 *
 *   client  sends, counts the answers; comes back by its key
 *   server  counts the numbers, answers; comes back by its key, or without any as the listener
 *   main    starts both, kills, and looks at what they have counted
 */

#include <stdbool.h>
#include <stdint.h>

#include <ipc/ipc.h>

#define NAME "example/counter"

/* What an end must not forget, in a file.  It is replaced whole: nobody ever reads half of it. */
struct memory {
	struct ipc_session_key key;
	uint64_t has_key;
	uint64_t seen;    /* the last number counted */
	uint64_t dropped; /* came again, and had been counted */
};

void memory_load(const char *path, struct memory *ret); /* all zero: there is none yet */
void memory_store(const char *path, const struct memory *memory);
void memory_remove(const char *path);

/* The session's present key: stored first, then the one before it may become void. */
void memory_keep_key(const char *path, struct memory *memory, ipc_session *session);

/* Counts what has come: true, or false if it was counted already.  Ends the program if a number
 * is missing, or comes again without saying so. */
bool memory_count(const char *path, struct memory *memory,
		  const struct ipc_session_message *message);

void must(const char *what, int result);

/* Connect after fork: a forked child cannot use what its parent opened. */
ipc_client *connect_client(void);

/* The two processes; each writes its process id to `told` for each number. */
void tell(int told);
int run_client(const char *path, int told); /* until SIGTERM */
int run_server(const char *path, int told); /* until the client has closed */

#endif
