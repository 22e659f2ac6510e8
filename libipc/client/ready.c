/* SPDX-License-Identifier: MIT */
#include "libipc/client/ready.h"

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/platform/clock.h"

#define EVENTS_OF_PEERS (IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE)

/* What has close alone begins like an endpoint and is none. */
static bool ready_is_endpoint(const struct endpoint *endpoint)
{
	if (!endpoint_is(endpoint, 0))
		return false;

	switch ((enum ipc_role)(endpoint->magic & ~ENDPOINT_MAGIC)) {
	case IPC_ROLE_WATCH_PRODUCER:
	case IPC_ROLE_WATCH_CONSUMER:
	case IPC_ROLE_SHARED_A:
	case IPC_ROLE_SHARED_B:
	case IPC_ROLE_QUEUE_PRODUCER:
	case IPC_ROLE_QUEUE_CONSUMER:
	case IPC_ROLE_FLIGHT_TABLE:
	case IPC_ROLE_HANDLER:
	case IPC_ROLE_INBOX_SENDER:
	case IPC_ROLE_INBOX_RECEIVER:
	case IPC_ROLE_LISTENER:
	case IPC_ROLE_SESSION:
	case IPC_ROLE_LIMITER:
		return endpoint->readiness;
	case IPC_ROLE_WATCH_WEAK:
	case IPC_ROLE_GROUP:
	case IPC_ROLE_INBOX_OBSERVER:
		return false;
	}

	return false;
}

int ready_identify(struct ready *ret, void *handle)
{
	*ret = (struct ready){.handle = handle};

	if (ready_is_endpoint(handle)) {
		ret->endpoint = handle;
		ret->readiness = ret->endpoint->readiness;
	} else if (endpoint_is_part(handle)) {
		ret->part = handle;
		ret->endpoint = ret->part->endpoint;
		ret->readiness = ret->part->readiness;
	} else {
		return IPC_EINVAL;
	}

	return 0;
}

int ready_resolve(struct ready *ret, void *handle, uint32_t events)
{
	int r;

	r = ready_identify(ret, handle);
	if (r < 0)
		return r;
	if (events == 0 || events & ~ret->readiness->events)
		return IPC_EINVAL;

	ret->wanted.events = events;
	return 0;
}

static uint32_t look_at_peers(const struct ready *ready)
{
	return ready->wanted.events & EVENTS_OF_PEERS
		       ? endpoint_peers_ready(ready->endpoint, &ready->wanted)
		       : 0;
}

/* Whoever is told of a final end is told at once that the peers are gone, and the other way round,
 * wherever in between it comes. */
uint32_t ready_look(const struct ready *ready)
{
	uint32_t peers = look_at_peers(ready);
	uint32_t events = ready->readiness->look(ready->handle, &ready->wanted);

	return events | (events & IPC_READY_END ? look_at_peers(ready) : peers);
}

bool ready_is_cancelled(const struct ready *ready)
{
	/* [A2] of core/waiter.c. */
	if (atomic_load_explicit(&ready->endpoint->cancelled, memory_order_acquire))
		return true;

	return ready->part && atomic_load_explicit(&ready->part->cancelled, memory_order_acquire);
}

struct eventcount *ready_event(const struct ready *ready)
{
	return ready->readiness->event ? ready->readiness->event(ready->handle) : NULL;
}

uint64_t ready_due_ns(const struct ready *ready)
{
	return ready->readiness->due_ns ? ready->readiness->due_ns(ready->handle) : CLOCK_FOREVER;
}
