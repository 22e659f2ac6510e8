/* SPDX-License-Identifier: MIT */
#ifndef BROKER_STORE_H
#define BROKER_STORE_H

/*
 * The worker's end of the keeper's descriptor store: the protocol that service managers speak
 * (sd_notify: FDSTORE=1, FDSTOREREMOVE=1, FDNAME=, FDPOLL=0, one message each), so that their store
 * can serve as well.  What is stored comes back to the next worker through LISTEN_FDS and
 * LISTEN_FDNAMES.
 *
 * The keeper reads its socket whenever it is not starting a worker, and drains it before it starts
 * the next one; so a send that returned is done.
 *
 * The worker remembers what it stored.  When the keeper dies, the kernel sends the worker SIGUSR2;
 * its handler gives everything once more to the spare (broker/spare.h), which waits to become the
 * keeper, and ends the process.  For the rest of the worker this is the same as being killed at
 * that instruction: the spare starts the next one. Therefore: a stored descriptor stays open, under
 * its number, until store_remove() has returned; SIGUSR2 is never blocked or handled elsewhere.
 */

#include <stdint.h>

#include "broker/fdstore.h"

/* Names that are not of the form <kind><slot>.<generation>: store_name() never makes one of them,
 * since it writes slots in capitals. */
#define STORE_NAME_LISTENER "ls0.1" /* listening socket; put there by the keeper */
#define STORE_NAME_CONFIG                                                                          \
	"cf0.1" /* text of the configuration (config_parse_fd); put there by the keeper */
#define STORE_NAME_STATE "st0.1" /* memory of struct state */

/*
 * What the keeper tells a worker through its environment besides LISTEN_PID, LISTEN_FDS,
 * LISTEN_FDNAMES (continued in LISTEN_FDNAMES_1 and so on: one string of an environment has at most
 * 128 KiB) and NOTIFY_SOCKET=fd:<number>.
 */
#define STORE_ENV_KEEPER                                                                           \
	"IPC_BROKER_KEEPER" /* pid of the keeper: the process that finds its parent's number here  \
			       is a worker */
#define STORE_ENV_SPARE "IPC_BROKER_SPARE" /* fd:<number> of the socket to the spare */

/* Messages of our own between worker and keeper, never passed on. */
#define STORE_TEXT_HIDE     "X_IPC_IDLE=1" /* take the socket's name away; answered by the same */
#define STORE_TEXT_SHOW     "X_IPC_IDLE=0" /* give it back; answered by the same */
#define STORE_TEXT_COMPLETE "X_IPC_COMPLETE=1" /* to the spare: that was everything */

struct store {
	int notify_fd;        /* connected SOCK_SEQPACKET socket to the keeper */
	int spare_fd;         /* the same to the spare; -1: there is none */
	uint32_t n_max;       /* STORE_FDS_MAX, or what RLIMIT_NOFILE allows */
	struct fdstore *held; /* what the keeper holds for us */
};

/* Takes LISTEN_FDS and LISTEN_FDNAMES from the environment: calls fn for each descriptor (now the
 * callee's, close-on-exec set).  0; IPC_EPROTO: the environment is not a keeper's. */
int store_adopt(void (*fn)(const char *name, int fd, void *userdata), void *userdata);

/*
 * $NOTIFY_SOCKET of the keeper; remembers what store_adopt() gives, before or after it.  One store
 * a process.  From here on SIGUSR2 (blocked at exec) ends the worker if the keeper is dead.  0,
 * IPC_ENOMEM, IPC_EPROTO: not started by a keeper.
 */
int store_init(struct store *store);
void store_deinit(struct store *store);

/*
 * Blocks while the keeper's socket is full (the keeper does nothing else).  0, or IPC_ENFILE when
 * n_max would be exceeded, IPC_EPIPE: no keeper. A name that is stored already gets the new
 * descriptor in place of the old one.
 */
int store_add(struct store *store, const char *name, int fd);

/* 0, also if there is no such name; IPC_EPIPE. */
int store_remove(struct store *store, const char *name);

/* "READY=1", "STATUS=...", "STOPPING=1": passed on to the service manager by the keeper. */
int store_notify(struct store *store, const char *text);

/*
 * Idle end: takes the socket's name away, so that nobody new finds the broker.  When it has
 * returned 0, whoever found the name before is in the listening socket's queue: accept until
 * EAGAIN.  Nobody there: exit with WORKER_EXIT_DONE.  Somebody: store_resume_accepting() gives the
 * name back to the same socket, and the broker goes on as if nothing had been; a client that came
 * in between saw no socket, found the lock taken, and connects again. Blocks for the keeper's
 * answer; IPC_EPIPE: no keeper.
 */
int store_end_accepting(struct store *store);
int store_resume_accepting(struct store *store);

/* "<kind><SLOT>.<generation>" in hexadecimal, the slot in capitals (so never one of the names
 * above); generation is cut to 16 bits. */
void store_name(char name[STORE_NAME_SIZE], char kind, uint32_t slot, uint32_t generation);
/* The reverse; 0 or -1.  Accepts exactly what store_name() writes. */
int store_parse_name(const char *name, char *ret_kind, uint32_t *ret_slot,
		     uint32_t *ret_generation);

#endif
