/* SPDX-License-Identifier: MIT */

/*
 * When handles of the kind `queue` are ready (M-34).
 */

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/client/queue.h"
#include "libipc/platform/clock.h"

#define EVENTS_OF_SIDES (IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE)

/* ---- producers ---- */

static struct eventcount *producer_event(void *handle)
{
	ipc_queue_producer *producer = handle;

	return queue_line(&producer->handle.view, QUEUE_SIDE_PRODUCERS);
}

static uint32_t producer_look(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_queue_producer *producer = handle;
	struct queue *view = &producer->handle.view;
	uint64_t due_ns = CLOCK_FOREVER;
	int r;

	if (queue_producer_final(&producer->handle) < 0)
		return IPC_READY_END;

	r = queue_probe_room(view, &due_ns);
	if (r == IPC_EAGAIN) {
		if (queue_producer_end(&producer->handle, wanted->began, due_ns) == 0)
			return 0;

		/* The last one who took may have made room between the two looks. */
		r = queue_probe_room(view, &due_ns);
	}

	return r == 0 ? wanted->events & IPC_READY_WRITABLE : IPC_READY_END;
}

/* The next token; or room that nobody will tell of. */
static uint64_t producer_due_ns(void *handle)
{
	ipc_queue_producer *producer = handle;
	uint64_t due_ns = CLOCK_FOREVER, linger_ns;

	/* It may have come since the look. */
	if (queue_probe_room(&producer->handle.view, &due_ns) != IPC_EAGAIN)
		return 0;

	linger_ns = queue_linger_due_ns(&producer->handle.view);
	return linger_ns < due_ns ? linger_ns : due_ns;
}

const struct endpoint_readiness queue_producer_readiness = {
	.events = IPC_READY_WRITABLE | EVENTS_OF_SIDES,
	.event = producer_event,
	.look = producer_look,
	.due_ns = producer_due_ns,
};

/* ---- consumers ---- */

static struct eventcount *consumer_event(void *handle)
{
	ipc_queue_consumer *consumer = handle;

	return queue_line(&consumer->handle.view, QUEUE_SIDE_CONSUMERS);
}

static uint32_t consumer_look(void *handle, const struct endpoint_wanted *wanted)
{
	ipc_queue_consumer *consumer = handle;
	struct queue *view = &consumer->handle.view;
	int r;

	/* An item is taken before the end is told; the last one may have come between the two
	 * looks. */
	r = queue_probe_item(view);
	if (r == IPC_EAGAIN) {
		if (endpoint_opposite_end(&consumer->handle.endpoint, wanted->began) == 0)
			return 0;
		r = queue_probe_item(view);
	}

	return r == 0 ? wanted->events & IPC_READY_READABLE : IPC_READY_END;
}

const struct endpoint_readiness queue_consumer_readiness = {
	.events = IPC_READY_READABLE | EVENTS_OF_SIDES,
	.event = consumer_event,
	.look = consumer_look,
};
