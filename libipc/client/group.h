/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_GROUP_H
#define LIBIPC_CLIENT_GROUP_H

/*
 * A group: producers of all queues whose name matches.  The broker opens them (JOINED); whichever
 * thread takes such a message out of the socket maps the queue and puts it into its group.
 *
 * A push walks over the members without a lock: of each it has a share, and who gives back the last
 * share of a member that has ended closes it.  Members are used inside of their group: a thread's
 * record names the group, and the closed group's members go when nobody is inside of it.
 */

#include <pthread.h>

#include <ipc/queue.h>

#include "libipc/client/client.h"
#include "libipc/client/queue.h"

struct group_member {
	struct queue_handle handle; /* freed as it */

	/* Under the group's mutex. */
	struct group_member *prev, *next;
	uint32_t n_shares;
	bool is_ended; /* no push comes to it any more */
};
ASSERT_OFFSET(struct group_member, handle, 0);

struct ipc_group {
	uint64_t magic;     /* where an endpoint has its own */
	ipc_client *client; /* a reference */
	uint64_t id;        /* the broker's name for it, and that of its request */
	uint32_t epoch;
	struct ipc_group *next; /* of the client, under its groups_mutex */
	struct thread_object object;

	pthread_mutex_t mutex; /* over what follows; never held while something is done */
	struct group_member *first, *last;
	uint32_t n_members;
	uint32_t n_come;    /* since ended ones were looked for */
	uint32_t n_gone;    /* left since the last push */
	uint64_t newest_id; /* of a handle */
	bool is_closing;    /* the list stays as it is */
};
ASSERT_OFFSET(struct ipc_group, magic, offsetof(struct endpoint, magic));

#define GROUP_MAGIC (ENDPOINT_MAGIC | IPC_ROLE_GROUP)

/* ---- group_member.c ---- */

/* Of what the broker says unasked: takes the descriptors. */
void group_hear(ipc_client *client, const struct message_joined *joined, int *fds, unsigned n_fds);

/* Nobody will ever take from its queue again, which need not be open any more. */
bool group_member_is_final(const struct group_member *member);

/*
 * The share of `member` goes back, and the next one is shared, NULL: that was the last.  member
 * NULL: the first.  has_ended: it is not in the group any more.
 */
struct group_member *group_step(ipc_group *group, struct group_member *member, bool has_ended);

/* Members that left since the last time. */
uint32_t group_take_gone(ipc_group *group);

/* Closes all of them, for good. */
void group_close_members(ipc_group *group);

/* Tells the broker.  Never sleeps. */
int group_say_end(ipc_client *client, uint64_t group_id);

#endif
