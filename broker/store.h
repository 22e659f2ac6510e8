/* SPDX-License-Identifier: MIT */
#ifndef BROKER_STORE_H
#define BROKER_STORE_H

/*
 * The worker's end of the keeper's descriptor store: the protocol that service managers speak (sd_notify: FDSTORE=1, FDSTOREREMOVE=1, FDNAME=, FDPOLL=0 on a datagram socket), so that
 * their store can serve as well.  What is stored comes back to the next worker through LISTEN_FDS and LISTEN_FDNAMES.
 *
 * The keeper reads its socket whenever it is not starting a worker, and drains it before it starts the next one; so a send that returned is done.
 */

#include <stdint.h>

#define STORE_NAME_SIZE 16  /* with NUL; names have at most 11 characters */
#define STORE_FDS_MAX   19000

struct store {
	int notify_fd; /* connected datagram socket to the keeper */
};

/* Takes LISTEN_FDS and LISTEN_FDNAMES from the environment: calls fn for each descriptor (now the callee's, close-on-exec set). */
int store_adopt(void (*fn)(const char *name, int fd, void *userdata), void *userdata);

int store_init(struct store *store); /* $NOTIFY_SOCKET of the keeper */
void store_deinit(struct store *store);

/* Blocks while the keeper's socket is full (the keeper does nothing else).  0, or IPC_ENFILE when STORE_FDS_MAX would be exceeded, IPC_EPIPE: no keeper. */
int store_add(struct store *store, const char *name, int fd);
int store_remove(struct store *store, const char *name);

/* "READY=1", "STATUS=...", "STOPPING=1": passed on to the service manager by the keeper. */
int store_notify(struct store *store, const char *text);

/* "<kind><slot>.<generation>" in hexadecimal; generation is cut to 16 bits. */
void store_name(char name[STORE_NAME_SIZE], char kind, uint32_t slot, uint32_t generation);
/* The reverse; 0 or -1. */
int store_parse_name(const char *name, char *ret_kind, uint32_t *ret_slot, uint32_t *ret_generation);

#endif
