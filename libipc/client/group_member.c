/* SPDX-License-Identifier: MIT */

/*
 * The members of groups: how they come, and how they go.
 */

#include "libipc/client/group.h"

#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/client/opened.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"

int group_say_end(ipc_client *client, uint64_t group_id)
{
	union message message;

	message_init(&message, MESSAGE_GROUP, 0);
	message.group.group_id = group_id;
	return connection_try_send(&client->connection, &message);
}

bool group_member_is_final(const struct group_member *member)
{
	uint64_t consumers = endpoint_opposite(&member->handle.endpoint);

	return (consumers & SIDE_FINAL) && side_count(consumers) == 0;
}

/* ---- one that comes ---- */

static int handle_take(struct queue_handle *handle, ipc_client *client,
		       const struct message_opened *message, const int *fds, unsigned n_fds)
{
	const struct opened opened = {.message = message, .fds = fds, .n_fds = n_fds};
	const struct endpoint_request request = {
		.kind = IPC_KIND_QUEUE,
		.role = IPC_ROLE_QUEUE_PRODUCER,
		.side = QUEUE_SIDE_PRODUCERS,
		.attach = queue_handle_attach,
	};
	int r;

	r = opened_take(&opened, &handle->endpoint, client, &request);
	if (r == 0)
		handle->endpoint.release = queue_handle_free;
	return r;
}

/* NULL: they cannot be had here; what would be moved there is dropped. */
static struct queue_handle *dead_letters_new(ipc_client *client,
					     const struct message_joined *joined, const int *fds,
					     unsigned n_fds)
{
	struct queue_handle *dead;

	dead = calloc(1, sizeof(*dead));
	if (!dead) {
		opened_refuse(&joined->dead, client);
		return NULL;
	}

	if (handle_take(dead, client, &joined->dead, fds, n_fds) < 0) {
		free(dead);
		return NULL;
	}

	if (queue_handle_begin(dead, NULL, joined->queue.dead_letters) < 0) {
		endpoint_close(&dead->endpoint);
		return NULL;
	}

	return dead;
}

static int member_begin(struct group_member *member, ipc_client *client,
			const struct message_joined *joined, const int *fds, unsigned n_fds)
{
	unsigned n_own = joined->n_fds_queue < n_fds ? joined->n_fds_queue : n_fds;
	struct queue_handle *dead = NULL;
	int r;

	if (joined->has_dead)
		dead = dead_letters_new(client, joined, fds + n_own, n_fds - n_own);

	r = handle_take(&member->handle, client, &joined->queue, fds, n_own);
	if (r < 0) {
		free(member);
	} else {
		r = queue_handle_begin(&member->handle, dead, joined->name);
		if (r < 0)
			endpoint_close(&member->handle.endpoint);
	}

	if (r < 0 && dead)
		endpoint_close(&dead->endpoint);
	return r;
}

static void joined_refuse(ipc_client *client, const struct message_joined *joined)
{
	opened_refuse(&joined->queue, client);
	if (joined->has_dead)
		opened_refuse(&joined->dead, client);
}

/* NULL: it cannot be had here; the broker has been told so. */
static struct group_member *member_new(ipc_client *client, const struct message_joined *joined,
				       const int *fds, unsigned n_fds)
{
	struct group_member *member;

	member = calloc(1, sizeof(*member));
	if (!member) {
		joined_refuse(client, joined);
		return NULL;
	}

	return member_begin(member, client, joined, fds, n_fds) < 0 ? NULL : member;
}

/* ---- the list ---- */

static void group_link(ipc_group *group, struct group_member *member)
{
	member->prev = group->last;
	if (group->last)
		group->last->next = member;
	else
		group->first = member;
	group->last = member;
	++group->n_members;
	++group->n_come;
}

static void group_unlink(ipc_group *group, struct group_member *member)
{
	if (member->prev)
		member->prev->next = member->next;
	else
		group->first = member->next;
	if (member->next)
		member->next->prev = member->prev;
	else
		group->last = member->prev;
	--group->n_members;
}

struct group_member *group_step(ipc_group *group, struct group_member *member, bool has_ended)
{
	struct group_member *next = NULL, *closed = NULL;

	pthread_mutex_lock(&group->mutex);
	if (!group->is_closing) {
		next = member ? member->next : group->first;
		while (next && next->is_ended)
			next = next->next;
		if (next)
			++next->n_shares;

		if (member) {
			member->is_ended |= has_ended;
			if (--member->n_shares == 0 && member->is_ended) {
				group_unlink(group, member);
				closed = member;
			}
		}
	}
	pthread_mutex_unlock(&group->mutex);

	if (closed)
		endpoint_close(&closed->handle.endpoint);
	return next;
}

uint32_t group_take_gone(ipc_group *group)
{
	uint32_t n_gone;

	pthread_mutex_lock(&group->mutex);
	n_gone = group->n_gone;
	group->n_gone = 0;
	pthread_mutex_unlock(&group->mutex);
	return n_gone;
}

/* Under the mutex: takes out those that ended and that nobody is at, in a list by `next`. */
static struct group_member *group_take_ended(ipc_group *group)
{
	struct group_member *member, *next, *ended = NULL;

	group->n_come = 0;
	for (member = group->first; member; member = next) {
		next = member->next;
		if (member->n_shares > 0 || !group_member_is_final(member))
			continue;

		group_unlink(group, member);
		++group->n_gone;
		member->next = ended;
		ended = member;
	}
	return ended;
}

/*
 * Queues that come and go while nobody pushes must not heap up: an ended one is held by this
 * handle.  The look costs no more than the coming of those that are looked at.
 */
static void group_add(ipc_group *group, struct group_member *member, uint64_t handle_id)
{
	struct group_member *ended = NULL, *next;

	pthread_mutex_lock(&group->mutex);
	if (handle_id > group->newest_id)
		group->newest_id = handle_id;
	if (member)
		group_link(group, member);
	else
		++group->n_gone;
	if (group->n_come > group->n_members / 2)
		ended = group_take_ended(group);
	pthread_mutex_unlock(&group->mutex);

	for (; ended; ended = next) {
		next = ended->next;
		endpoint_close(&ended->handle.endpoint);
	}
}

void group_close_members(ipc_group *group)
{
	struct group_member *member, *next;

	/* In a forked child the mutex may be held by nobody who is there. */
	if (!thread_is_foreign(group->epoch)) {
		pthread_mutex_lock(&group->mutex);
		group->is_closing = true;
		pthread_mutex_unlock(&group->mutex);
	}

	for (member = group->first; member; member = next) {
		next = member->next;
		endpoint_close_inside(&member->handle.endpoint, group);
	}
}

/* ---- what the broker says ---- */

/* A broker whose worker died says it twice; the first may have been closed by now. */
static bool group_has_had(ipc_group *group, const struct message_joined *joined)
{
	uint64_t id = joined->queue.handle_id;
	const struct desk_cell *cell = &group->client->desk->cell[LIVENESS_SLOT(id)];
	const struct group_member *member;
	bool has_had;

	/* Ids grow, so hardly ever is there something to look for. */
	pthread_mutex_lock(&group->mutex);
	has_had = id <= group->newest_id &&
		  atomic_load_explicit(&cell->closed_id, memory_order_relaxed) == id;
	for (member = id <= group->newest_id ? group->first : NULL; member && !has_had;
	     member = member->next)
		has_had = member->handle.endpoint.id == id;
	pthread_mutex_unlock(&group->mutex);

	return has_had;
}

static ipc_group *group_find(const ipc_client *client, uint64_t group_id)
{
	ipc_group *group = client->groups;

	while (group && group->id != group_id)
		group = group->next;
	return group;
}

void group_hear(ipc_client *client, const struct message_joined *joined, int *fds, unsigned n_fds)
{
	ipc_group *group;

	/* Held to the end: who closes the group closes all that came. */
	pthread_mutex_lock(&client->groups_mutex);
	group = group_find(client, joined->group_id);
	if (!group) {
		joined_refuse(client, joined);
		(void)group_say_end(client, joined->group_id);
	} else if (!group_has_had(group, joined)) {
		group_add(group, member_new(client, joined, fds, n_fds), joined->queue.handle_id);
	}
	pthread_mutex_unlock(&client->groups_mutex);

	for (unsigned i = 0; i < n_fds; ++i)
		fds[i] = fd_close(fds[i]);
}
