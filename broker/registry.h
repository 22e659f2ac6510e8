/* SPDX-License-Identifier: MIT */
#ifndef BROKER_REGISTRY_H
#define BROKER_REGISTRY_H

/*
 * The private side of the records: what one worker keeps beside each of them to find things at
 * once.  Lists of a client's and of a channel's handles, the index of names, the opens that wait
 * for a name, descriptors, counts.  Every object stands at its record's slot, so nothing is
 * allocated for it, and everything here is made anew from the records when a worker starts.
 */

#include <stdbool.h>
#include <stdint.h>

/* Names come from clients: a seeded hash, so that nobody can make them collide. */
#define HASH_NONFATAL_OOM              1
#define HASH_FUNCTION(key, size, hash) ((hash) = registry_hash((key), (size)))
#include <uthash.h>

#include "broker/account.h"
#include "broker/slots.h"
#include "broker/state.h"

#define REGISTRY_BUCKETS 4096

struct liveness_table;

struct user {
	uint32_t slot;
	struct user_record *record;
	int table_fd, desk_fd;
	int reader_fd; /* the table once more, read-only: for handing out; -1 until first needed */
	struct liveness_table *table;
	struct account account;
	uint64_t logged_ns;      /* when something about its clients was last logged */
	uint64_t rest_logged_ns; /* when what ended with a queue of its was last logged aloud */
	uint32_t n_quiet;        /* connections that have not said HELLO yet */
};

struct peer { /* a client, as seen from here */
	uint32_t slot;
	struct client_record *record;
	int socket_fd, pidfd;
	int bell_fd; /* -1: before HELLO */
	struct user *user;
	struct handle *handles;   /* by client_next */
	struct handle *overtaken; /* by client_next; see overtaken.h */
	struct pending *pendings; /* by peer_next */
	struct group *groups;     /* by peer_next */
	bool needs_confirmation;  /* who it is has to be confirmed by its first message */
	bool may_repeat;          /* its next request may have been done by an earlier worker */
	bool is_quiet, is_doomed;
	bool is_clogged; /* it has answers to read before it is served again */
	uint64_t quiet_until_ns;
	struct peer *quiet_prev, *quiet_next;
	struct peer *doomed_next;
	uint64_t attended_batch; /* in which batch, and in whose table, its attention word was
				    bumped last */
	const struct user *attended_user;
};

struct channel {
	uint32_t slot;
	struct channel_record *record;
	int segment_fd, lines_fd;
	int pair_fd[2]; /* by side; see pairs.h */
	struct user *owner;
	struct handle
		*handles[2]; /* by side, by channel_next; those that are not confirmed yet too */
	struct handle *overtaken; /* by channel_next; see overtaken.h */
	uint32_t count[2];        /* counted handles: what the side words say */
	bool is_named;
	UT_hash_handle hh;

	/* Of a session; NULL: it is none. */
	struct session_record *session;
	struct handle *offer; /* outstanding; or NULL */
	bool offer_died;      /* the last one ended by its client's death */

	/* Where it stands, if it is not accepted: with the listener's channel; NULL, and it is in
	 * a list: with those that wait for one of the name. */
	struct channel *listener;
	bool is_waiting, is_away;
	struct channel *waiting_prev, *waiting_next;
	struct channel *away_prev, *away_next;
	uint64_t window_ns; /* see windows.h */
	uint32_t window_at;

	/* Of a listener: who wants to connect and is not offered, the oldest first. */
	struct channel *connects;
};

struct handle {
	uint32_t slot;
	struct handle_record *record;
	struct peer *peer;
	struct channel *channel;
	struct handle *client_prev, *client_next;
	struct handle *channel_prev, *channel_next;
	struct handle *offer;    /* of a listener: what is outstanding; or NULL */
	struct handle *listener; /* of an offer: whose it is */

	/* Of one that is known as overtaken only, and neither its peer's nor its channel's. */
	struct peer *overtaken_of;
	struct channel *overtaken_on;
};

struct pending {
	uint32_t slot;
	bool is_tried; /* right now: whatever becomes of it, it is not somebody's heir meanwhile */
	struct pending_record *record;
	struct peer *peer;
	struct pending *peer_prev, *peer_next;
	struct pending *name_prev, *name_next;
};

struct group {
	uint32_t slot;
	struct group_record *record;
	struct peer *peer;

	/* Channels from this slot on have still to be looked at; CHANNELS_MAX: all is done. */
	uint32_t cursor;

	struct group *peer_prev, *peer_next;
	struct group *prev, *next; /* of all */
};

struct registry {
	struct state *state;
	struct slots user_slots, client_slots, channel_slots, handle_slots, pending_slots,
		group_slots;
	struct group *groups;
	struct channel *names;
	struct pending *waiting[REGISTRY_BUCKETS]; /* by name, the oldest first */
	struct channel *unbound; /* connects that wait for a listener, the oldest first */
	struct channel *away[REGISTRY_BUCKETS]; /* sessions whose accepted end is away, by name */
	struct channel *window[LIVENESS_CHANNELS_MAX]; /* see windows.h */
	uint32_t n_windows;
	struct user user[STATE_USERS_MAX];
	struct peer peer[LIVENESS_CLIENTS_MAX];
	struct channel channel[LIVENESS_CHANNELS_MAX];
	struct handle handle[LIVENESS_HANDLES_MAX];
	struct pending pending[STATE_PENDINGS_MAX];
	struct group group[STATE_GROUPS_MAX];
	uint32_t user_free[STATE_USERS_MAX], client_free[LIVENESS_CLIENTS_MAX],
		channel_free[LIVENESS_CHANNELS_MAX];
	uint32_t handle_free[LIVENESS_HANDLES_MAX], pending_free[STATE_PENDINGS_MAX];
	uint32_t group_free[STATE_GROUPS_MAX];
};

/* Empty and with all slots free; registry_adopt_slots() then takes those whose records are in use.
 */
int registry_new(struct registry **ret, struct state *state);
struct registry *registry_free(struct registry *registry);
void registry_adopt_slots(struct registry *registry);

uint32_t registry_hash(const void *key, size_t size);

struct user *registry_user(struct registry *registry, uid_t uid); /* or NULL */

/* A channel's name is found from add to remove.  IPC_ENOMEM. */
IPC_CHECKED int registry_name_add(struct registry *registry, struct channel *channel);
void registry_name_remove(struct registry *registry, struct channel *channel);
struct channel *registry_find(struct registry *registry, const char *name);

/* A channel that lives in this slot under this generation, named or not; else NULL. */
struct channel *registry_channel_at(struct registry *registry, uint32_t slot, uint64_t generation);

/* The peer's handle of this id; of the OPEN with this request id; else NULL. */
struct handle *registry_handle(struct registry *registry, const struct peer *peer,
			       uint64_t handle_id);
struct handle *registry_handle_of_request(const struct peer *peer, uint64_t request_id);

/* Whether this is a handle that is open on the channel now. */
bool registry_is_open_on(const struct handle *handle, const struct channel *channel);

/* The one of this id on the channel, whoever's it is; else NULL. */
const struct handle *registry_handle_on(const struct registry *registry,
					const struct channel *channel, uint64_t handle_id);

/* Into and out of the lists of its client and its channel; peer, channel and record are filled in.
 */
void registry_link(struct handle *handle);
void registry_unlink(struct handle *handle);

/* Where sessions of this name stand whose accepted end is away. */
struct channel **registry_away(struct registry *registry, const char *name);

/* Where opens that wait for this name stand. */
struct pending **registry_waiting(struct registry *registry, const char *name);

#endif
