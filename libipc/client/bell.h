/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_BELL_H
#define LIBIPC_CLIENT_BELL_H

/*
 * Ringing: what a notifier does that found an event count armed (core/eventcount.h).
 *
 * Each client has one bell, an eventfd that the broker made: what its descriptor shows to its
 * program (poll_set.h).  Who notifies writes the bells of all clients of the channel.  It has them
 * from the broker, which it asks by an unanswered RING when it has none yet or the channel's count
 * of members has moved since; the broker then rings for it, and sends BELLS, which are taken out of
 * the socket at the next ring.  Where BELLS do not come (another uid is on the channel, or too many
 * clients are) each ring is a RING.
 *
 * A bell is kept once, whatever number of handles rings it, and closed with the last of them.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/wire/protocol.h"

#define BELL_BUCKETS 64

/* Of channels: a handle of one of those that share a number is in the poll set. */
#define BELL_POLLED 1024

struct endpoint;

/* Another client's. */
struct bell {
	struct bell *next; /* of the bucket */
	uint32_t slot, generation;
	uint32_t n_lists;
	int fd;
};

/* Whom a handle rings. */
struct bell_list {
	uint32_t members; /* the channel's count when it was so */
	uint32_t n;
	struct bell *bell[];
};

/* A handle's part. Under the mutex of the client's bells. */
struct bell_ringer {
	struct bell_list *list; /* NULL: not known */
	bool is_waiting;        /* for BELLS, in the client's list */
	struct endpoint *next;
};

struct bells {
	int fd; /* the own one */
	pthread_mutex_t mutex;
	struct bell *bucket[BELL_BUCKETS];
	struct endpoint *waiting[BELL_BUCKETS]; /* by handle id */

	/* How many handles of the poll set are on such a channel. */
	_Atomic uint32_t n_polled[BELL_POLLED];
};

/* Takes the own bell. */
int bells_init(struct bells *bells, int fd);
void bells_deinit(struct bells *bells, bool is_ours);

/* The own one; async-signal-safe. */
void bells_ring_own(const struct bells *bells);
/* Empties it: whether it had been rung. */
bool bells_clear_own(const struct bells *bells);

/* Before a handle is armed in the poll set, and after it was taken out. */
void bells_poll_begin(struct bells *bells, uint32_t channel_slot);
void bells_poll_end(struct bells *bells, uint32_t channel_slot);

/* What endpoint_ring() does.  Never sleeps; no thread cancellation inside. */
void bells_ring_all(struct endpoint *endpoint);

/* The endpoint is gone: nobody rings by it any more. */
void bells_forget(struct endpoint *endpoint);

/* BELLS came.  Takes the descriptors. */
struct ipc_client;
void bells_take(struct ipc_client *client, const struct message_bells *message, int *fds,
		unsigned n_fds);

#endif
