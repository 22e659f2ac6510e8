/* SPDX-License-Identifier: MIT */

/*
 * ipc_poll_...(): the public side of the poll set (poll_set.h).
 */

#include <ipc/poll.h>

#include <pthread.h>
#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/client/client.h"
#include "libipc/client/poll_set.h"

/* ---- in and out ---- */

struct poll_call {
	ipc_client *client;
	struct ready ready; /* poll_call_begin() */
	int cancel_state;   /* of the thread: what is held is given back */
};

static int call_enter(struct poll_call *call, ipc_client *client)
{
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	call->client = client;
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &call->cancel_state);
	return 0;
}

static int call_leave(struct poll_call *call, int r)
{
	client_leave(call->client);
	(void)pthread_setcancelstate(call->cancel_state, NULL);
	return r;
}

/* Not by endpoint_enter(): one that is held dead can be taken out. */
static int call_enter_handle(struct poll_call *call)
{
	if (call->ready.endpoint->client != call->client)
		return IPC_EINVAL;
	if (!connection_is_ours(&call->client->connection))
		return IPC_ESTALE;

	return thread_enter(call->ready.endpoint, call->ready.endpoint->epoch);
}

static void call_leave_handle(struct poll_call *call)
{
	endpoint_leave(call->ready.endpoint);
}

static struct poll_entry *_Atomic *call_polled(const struct poll_call *call)
{
	return call->ready.part ? &call->ready.part->polled : &call->ready.endpoint->polled;
}

/* With the mutex.  NULL: it is not in the set. */
static struct poll_entry *call_lock(struct poll_call *call)
{
	pthread_mutex_lock(&call->client->polls.mutex);
	return atomic_load_explicit(call_polled(call), memory_order_relaxed);
}

static void call_unlock(struct poll_call *call)
{
	pthread_mutex_unlock(&call->client->polls.mutex);
}

/* ---- add ---- */

/* Closed or left by another thread meanwhile, which has not found it in the set. */
static bool handle_is_gone(const struct ready *ready)
{
	if (ready->part && !endpoint_is_part(ready->part))
		return true;

	return atomic_load_explicit(&ready->endpoint->closing, memory_order_relaxed);
}

static int call_insert(struct poll_call *call, struct poll_entry *entry)
{
	struct poll_set *set = &call->client->polls;
	int r;

	entry->ready = call->ready;
	entry->ready.wanted.is_polled = true;
	entry->ready.wanted.began = endpoint_opposite(call->ready.endpoint);
	entry->event = ready_event(&call->ready);
	entry->polled = call_polled(call);

	if (call_lock(call)) {
		r = IPC_EEXIST;
	} else {
		r = poll_set_insert(set, entry);
		if (r == 0 && handle_is_gone(&call->ready)) {
			poll_set_remove(set, entry);
			call_unlock(call);
			return IPC_EINVAL;
		}
	}
	call_unlock(call);

	if (r < 0)
		free(entry);
	return r;
}

static int call_add(struct poll_call *call, void *userdata)
{
	const struct endpoint_readiness *readiness = call->ready.readiness;
	struct poll_entry *entry;
	int r;

	r = endpoint_check(call->ready.endpoint);
	if (r < 0)
		return r;

	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return IPC_ENOMEM;

	/* Its event is its own from here on. */
	r = readiness->begin ? readiness->begin(call->ready.handle) : 0;
	if (r < 0) {
		free(entry);
		return r;
	}

	entry->userdata = userdata;
	r = call_insert(call, entry);
	if (readiness->end)
		readiness->end(call->ready.handle);
	return r;
}

int ipc_poll_add(ipc_client *client, void *handle, uint32_t events, void *userdata)
{
	struct poll_call call;
	int r;

	r = call_enter(&call, client);
	if (r < 0)
		return r;

	r = ready_resolve(&call.ready, handle, events);
	if (r == 0)
		r = call_enter_handle(&call);
	if (r == 0) {
		r = call_add(&call, userdata);
		call_leave_handle(&call);
	}
	return call_leave(&call, r);
}

/* ---- change, remove ---- */

static int call_change(struct poll_call *call, void *userdata)
{
	struct poll_entry *entry = call_lock(call);

	if (entry) {
		entry->ready.wanted.events = call->ready.wanted.events;
		entry->userdata = userdata;
		poll_set_settle(&call->client->polls, entry);
	}
	call_unlock(call);
	return entry ? 0 : IPC_ENOENT;
}

int ipc_poll_change(ipc_client *client, void *handle, uint32_t events, void *userdata)
{
	struct poll_call call;
	int r;

	r = call_enter(&call, client);
	if (r < 0)
		return r;

	r = ready_resolve(&call.ready, handle, events);
	if (r == 0)
		r = call_enter_handle(&call);
	if (r == 0) {
		r = call_change(&call, userdata);
		call_leave_handle(&call);
	}
	return call_leave(&call, r);
}

static int call_remove(struct poll_call *call)
{
	struct poll_entry *entry = call_lock(call);

	if (entry)
		poll_set_remove(&call->client->polls, entry);
	call_unlock(call);
	return entry ? 0 : IPC_ENOENT;
}

int ipc_poll_remove(ipc_client *client, void *handle)
{
	struct poll_call call;
	int r;

	r = call_enter(&call, client);
	if (r < 0)
		return r;

	r = ready_identify(&call.ready, handle);
	if (r == 0)
		r = call_enter_handle(&call);
	if (r == 0) {
		r = call_remove(&call);
		call_leave_handle(&call);
	}
	return call_leave(&call, r);
}

/* ---- the descriptor, next ---- */

int ipc_client_get_fd(ipc_client *client)
{
	struct poll_call call;
	int r;

	r = call_enter(&call, client);
	if (r < 0)
		return r;

	r = connection_is_ours(&client->connection) ? client->polls.epoll_fd : IPC_ESTALE;
	return call_leave(&call, r);
}

int ipc_poll_next(ipc_client *client, struct ipc_poll_event *ret)
{
	struct poll_call call;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = call_enter(&call, client);
	if (r < 0)
		return r;

	pthread_mutex_lock(&client->polls.mutex);
	r = poll_set_next(&client->polls, ret);
	pthread_mutex_unlock(&client->polls.mutex);
	return call_leave(&call, r);
}
