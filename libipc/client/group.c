/* SPDX-License-Identifier: MIT */

/*
 * Groups: opening, pushing to all, closing.
 */

#include "libipc/client/group.h"

#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/client/options.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/wire/codec.h"

/* ---- close ---- */

static void group_free(struct thread_object *object)
{
	ipc_group *group = (ipc_group *)((char *)object - offsetof(struct ipc_group, object));

	if (!thread_is_foreign(group->epoch))
		(void)pthread_mutex_destroy(&group->mutex);
	(void)ipc_client_unref(group->client);
	free(group);
}

static void group_forget(ipc_group *group)
{
	ipc_client *client = group->client;
	ipc_group **link;

	pthread_mutex_lock(&client->groups_mutex);
	for (link = &client->groups; *link != group; link = &(*link)->next)
		;
	*link = group->next;
	pthread_mutex_unlock(&client->groups_mutex);
}

static void group_end(ipc_group *group)
{
	ipc_client *client = group->client;
	int cancel_state;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	group_forget(group);
	group_close_members(group);
	CRASH_POINT();

	/* A withdrawal of its request ends it as well, and waits for room. */
	if (group_say_end(client, group->id) == IPC_EAGAIN)
		connection_withdraw(&client->connection, group->id);

	thread_retire(&group->object);
	(void)pthread_setcancelstate(cancel_state, NULL);
}

static bool group_is(const ipc_group *group)
{
	return group && group->magic == GROUP_MAGIC;
}

ipc_group *ipc_group_close(ipc_group *group)
{
	if (!group_is(group))
		return NULL;

	group->magic = 0;
	if (thread_is_foreign(group->epoch)) {
		group_close_members(group);
		group_free(&group->object);
	} else {
		group_end(group);
	}
	return NULL;
}

/* ---- open ---- */

static int group_new(ipc_group **ret, ipc_client *client, uint64_t id)
{
	ipc_group *group;

	group = calloc(1, sizeof(*group));
	if (!group)
		return IPC_ENOMEM;

	if (pthread_mutex_init(&group->mutex, NULL) != 0) {
		free(group);
		return IPC_ENOMEM;
	}

	group->client = ipc_client_ref(client);
	group->id = id;
	group->epoch = client->epoch;
	group->object.address = group;
	group->object.free = group_free;

	pthread_mutex_lock(&client->groups_mutex);
	group->next = client->groups;
	client->groups = group;
	pthread_mutex_unlock(&client->groups_mutex);
	*ret = group;
	return 0;
}

/* The queues that match now come before the answer. */
static int group_ask_wait(ipc_client *client, struct connection_call *call, const char *pattern,
			  uint64_t deadline_ns)
{
	union message message;
	int r;

	message_init(&message, MESSAGE_GROUP, call->id);
	message.group.group_id = call->id;
	memcpy(message.group.pattern, pattern, strlen(pattern) + 1);
	r = connection_send(&client->connection, &message, connection_reply_deadline(deadline_ns));
	if (r == 0)
		r = connection_await(&client->connection, call,
				     connection_reply_deadline(deadline_ns));
	if (r < 0)
		return r;

	return call->reply.head.type == MESSAGE_DONE ? call->reply.head.result : IPC_EPROTO;
}

static int group_open_wait(ipc_group **ret, ipc_client *client, const char *pattern,
			   uint64_t deadline_ns)
{
	struct connection_call call;
	ipc_group *group;
	int r;

	connection_begin(&client->connection, &call);
	r = group_new(&group, client, call.id);
	if (r == 0) {
		r = group_ask_wait(client, &call, pattern, deadline_ns);
		if (r < 0)
			group_end(group);
	}
	connection_end(&client->connection, &call);
	if (r < 0)
		return r;

	group->magic = GROUP_MAGIC;
	*ret = group;
	return 0;
}

int ipc_group_open_wait(ipc_group **ret, ipc_client *client, const char *pattern,
			const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	if (!ret || !pattern || pattern[0] == '\0' ||
	    strnlen(pattern, IPC_PATTERN_SIZE_MAX + 1) > IPC_PATTERN_SIZE_MAX)
		return IPC_EINVAL;

	r = client_enter(client);
	if (r < 0)
		return r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r == 0)
		r = group_open_wait(ret, client, pattern, deadline_ns);

	client_leave(client);
	return r;
}

/* ---- calls ---- */

/* With all members that the broker has sent so far. */
static int group_enter(ipc_group *group)
{
	ipc_client *client;
	int r;

	if (!group_is(group))
		return IPC_EINVAL;

	r = thread_enter(group, group->epoch);
	if (r < 0)
		return r;

	client = group->client;
	connection_catch_up(&client->connection, &client->table->attention[client->slot].n_joined);
	return 0;
}

/* Whether the broker holds this client dead, which any member shows; without one, whether it will.
 */
static int group_check(const ipc_group *group, const struct group_member *first)
{
	if (first)
		return endpoint_check(&first->handle.endpoint);

	return connection_is_ours(&group->client->connection) ? 0 : IPC_ESTALE;
}

struct group_item {
	unsigned priority;
	const void *data;
	size_t size;
	enum ipc_full_policy policy;
};

/* The field of the result that counts it. */
static uint32_t *push_into(struct queue_handle *queue, const struct group_item *item,
			   struct ipc_group_result *result)
{
	struct queue *view = &queue->view;
	unsigned lowest = view->layout.n_classes - 1;
	unsigned priority = item->priority < lowest ? item->priority : lowest;
	uint64_t due_ns = CLOCK_FOREVER;

	if (header_fault(queue->endpoint.header) < 0 ||
	    atomic_load_explicit(&queue->endpoint.header->is_shut_down, memory_order_relaxed))
		return &result->gone;
	if (queue_check(view, priority, item->size) < 0)
		return &result->too_big;

	switch (queue_push(view, priority, item->data, item->size, &due_ns)) {
	case 0:
		return &result->queued;
	case IPC_EAGAIN:
		break;
	default:
		return &result->gone;
	}

	/* without a token the policy has no say. */
	if (due_ns != CLOCK_FOREVER || item->policy == IPC_FULL_FAIL)
		return &result->full;

	return queue_push_refused(view, priority, item->data, item->size, item->policy) ==
			       IPC_DEAD_LETTERED
		       ? &result->dead_lettered
		       : &result->dropped;
}

static int group_push(ipc_group *group, const struct group_item *item,
		      struct ipc_group_result *result)
{
	struct group_member *member = group_step(group, NULL, false);
	int r;

	r = group_check(group, member);
	result->gone = r == 0 ? group_take_gone(group) : 0;
	while (member) {
		bool has_ended = r == 0 && queue_producer_final(&member->handle) < 0;

		if (has_ended)
			++result->gone;
		else if (r == 0)
			++*push_into(&member->handle, item, result);
		member = group_step(group, member, has_ended);
	}

	return r;
}

int ipc_group_push(ipc_group *group, unsigned priority, const void *data, size_t size,
		   enum ipc_full_policy policy, struct ipc_group_result *ret)
{
	const struct group_item item = {priority, data, size, policy};
	struct ipc_group_result result = {.size = sizeof(result)};
	int r;

	if ((!data && size > 0) || policy < IPC_FULL_FAIL || policy > IPC_FULL_DEAD_LETTER ||
	    !ret || ret->size < sizeof(size_t))
		return IPC_EINVAL;

	r = group_enter(group);
	if (r < 0)
		return r;

	r = group_push(group, &item, &result);
	if (r == 0)
		r = options_write_info(ret, &result, sizeof(result));

	thread_leave();
	return r;
}

int ipc_group_count(ipc_group *group)
{
	struct group_member *member;
	int n = 0, r;

	r = group_enter(group);
	if (r < 0)
		return r;

	member = group_step(group, NULL, false);
	r = group_check(group, member);
	for (; member; member = group_step(group, member, false))
		n += !group_member_is_final(member);

	thread_leave();
	return r < 0 ? r : n;
}
