/* SPDX-License-Identifier: MIT */
#ifndef BROKER_ADDRESS_H
#define BROKER_ADDRESS_H

/*
 * Where a domain is found: the path of its socket, and that there is one broker for it (D22).
 *
 * PATH.lock is made once and never removed; its flock is held as long as a keeper (or its spare)
 * lives, and dies with it.  Whoever holds it may do with PATH what it likes, since nobody else
 * would: the socket is bound as PATH.new, listens, and is renamed over PATH, so PATH never names a
 * socket that does not accept.  PATH.new is also where the socket hides during an idle end.  A
 * PATH.new that a death left is removed by the next holder of the lock.
 *
 * The socket's mode is 0666: who may come is for its directory to say, what they may do for the
 * rights of each channel.
 */

#include <stdbool.h>
#include <stdint.h>

#define ADDRESS_SUFFIX_MAX 5                      /* ".lock" */
#define ADDRESS_SIZE       108                    /* of sun_path, with NUL */
#define ADDRESS_LENGTH_MAX (ADDRESS_SIZE - 1 - 4) /* what leaves room for ".new" */

struct address {
	char path[ADDRESS_SIZE];
	int lock_fd;            /* -1: not held */
	bool is_ours;           /* we bound the socket, and remove it; else it was passed to us */
	uint64_t device, inode; /* of the socket's name, if it is ours */
};

#define ADDRESS_NULL                                                                               \
	{                                                                                          \
		.lock_fd = -1                                                                      \
	}

/*
 * M-40: given, else $IPC_BROKER, else $XDG_RUNTIME_DIR/ipc/broker, else /run/ipc/broker.  Makes the
 * directory if its name is "ipc" and it is missing: 0755 for /run/ipc, else 0700. On error -1 and
 * one line in error.
 */
int address_find(struct address *address, const char *given, char *error, unsigned error_size);

enum address_result {
	ADDRESS_DONE,
	ADDRESS_TAKEN,  /* another broker has it */
	ADDRESS_FAILED, /* one line in error */
};

/* Takes the lock. */
enum address_result address_lock(struct address *address, char *error, unsigned error_size);

/* A listening socket (close-on-exec, not blocking) under PATH.  The lock is held.  A name that
 * nobody listens on is taken over. */
enum address_result address_bind(struct address *address, int *ret_fd, char *error,
				 unsigned error_size);

/* The socket was made by an earlier keeper under this lock, and came back: true if PATH names a
 * socket, which is ours now. */
bool address_adopt(struct address *address);

/* The name goes, the socket stays; and comes back.  Nothing happens to a socket that is not ours.
 * Both may be repeated. */
void address_hide(struct address *address);
void address_show(struct address *address);

/* Removes the socket's name, hidden or not, if it is ours and still the one that we made.  The lock
 * stays as it is. */
void address_remove(struct address *address);

#endif
