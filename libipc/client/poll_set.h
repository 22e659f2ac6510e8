/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_POLL_SET_H
#define LIBIPC_CLIENT_POLL_SET_H

/*
 * The poll set of a client, and its descriptor (M-30): an epoll instance of the client's own with
 *
 * bell    written by whoever changes something that an armed handle of the set looks at (bell.h)
 * timer   for what time alone makes ready, and once there is no broker
 * socket  its end
 *
 * A handle of the set is at one of four places:
 *
 * LOOK    to be looked at: it may be ready
 * GIVEN   given in this round; looked at again in the next one, after all others
 * LOOSE   found not ready, not armed: who changes it makes no system call
 * ASLEEP  found not ready after it was armed: who changes it rings the bell
 *
 * Nothing is ASLEEP that was notified without its event count having moved, so a new round looks at
 * those whose count has moved; and at all, once the broker or a cancel said so.  When nothing is
 * ready the bell is emptied *first*, then everything LOOSE is armed and looked at again, and the
 * counts of those ASLEEP are: what comes later finds something armed and rings the empty bell.  So
 * the descriptor is readable from the first ring until the last handle was found not ready.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "include/ipc/poll.h"
#include "libipc/client/ready.h"

enum poll_place { POLL_LOOK, POLL_GIVEN, POLL_LOOSE, POLL_ASLEEP };

struct poll_entry {
	struct poll_entry *prev, *next; /* of the ring of its place */
	struct ready ready;
	void *userdata;
	struct eventcount *event;           /* NULL: the broker alone tells it */
	struct poll_entry *_Atomic *polled; /* of the handle: that it is in the set */
	uint64_t seen;                      /* the opposite side's word before the last look */
	uint32_t sleeper;                   /* ASLEEP: index */
	uint8_t place;                      /* enum poll_place */
};

/* Those ASLEEP, close together: looking through them is one load each, and one of the count. */
struct poll_sleeper {
	struct eventcount *event;
	struct poll_entry *entry;
	uint32_t armed;
	bool is_timed; /* time may make it ready */
};

struct poll_set {
	int epoll_fd, timer_fd;
	ipc_client *client;
	_Atomic uint32_t n_calls; /* of poll_set_look_again() */
	_Atomic uint32_t n_entries;

	pthread_mutex_t mutex;        /* over what follows, and each entry; never held for long */
	struct poll_entry *places[3]; /* by enum poll_place: the first of a ring */
	struct poll_sleeper *sleepers;
	uint32_t n_sleepers, n_sleepers_max;
	uint32_t n_timed;      /* entries that time may make ready */
	uint32_t looks, calls; /* liveness_attention.n_looks and n_calls that were heeded */
	uint64_t timer_ns;     /* what the timer is set to; CLOCK_FOREVER: not */
};

/* The client's socket and bell are there.  IPC_EMFILE, IPC_ENFILE, IPC_ENOMEM, IPC_ENOSYS. */
IPC_CHECKED int poll_set_init(struct poll_set *set, ipc_client *client);
void poll_set_deinit(struct poll_set *set, bool is_ours);

/* Something was marked of which no event tells (a cancel).  Async-signal-safe. */
void poll_set_look_again(struct poll_set *set);

/* A handle that is closed or left, and marked so before a full barrier, is in the set no more. */
void poll_set_forget(struct poll_set *set, struct poll_entry *_Atomic *polled);

/* ---- Under the mutex: poll_set.c for poll.c ---- */

/* Puts it in and looks.  IPC_ENOMEM. */
IPC_CHECKED int poll_set_insert(struct poll_set *set, struct poll_entry *entry);
void poll_set_remove(struct poll_set *set, struct poll_entry *entry); /* and frees it */
/* After its `ready` was written anew. */
void poll_set_settle(struct poll_set *set, struct poll_entry *entry);

/* 0; IPC_EAGAIN; IPC_ESTALE, IPC_ECONNRESET: as waits. */
IPC_CHECKED int poll_set_next(struct poll_set *set, struct ipc_poll_event *ret);

#endif
