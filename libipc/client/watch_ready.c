/* SPDX-License-Identifier: MIT */

/*
 * When handles of the kind `watch` are ready (M-34).
 */

#include <ipc/wait.h>

#include "libipc/client/watch.h"

/* ---- producers ---- */

static struct eventcount *producer_event(void *handle)
{
	ipc_watch_producer *producer = handle;

	return &producer->endpoint.lines[WATCH_PRODUCERS];
}

/* Nobody's absence ends what a producer does (W-11). */
static uint32_t producer_look(void *handle, const struct endpoint_wanted *wanted)
{
	const ipc_watch_producer *producer = handle;

	(void)wanted;
	return watch_end(&producer->view) < 0 ? IPC_READY_END : 0;
}

const struct endpoint_readiness watch_producer_readiness = {
	.events = IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE,
	.event = producer_event,
	.look = producer_look,
};

/* ---- consumers ---- */

static struct eventcount *consumer_event(void *handle)
{
	ipc_watch_consumer *consumer = handle;

	return &consumer->endpoint.lines[WATCH_CONSUMERS];
}

static bool consumer_has_newer(const ipc_watch_consumer *consumer,
			       const struct endpoint_wanted *wanted)
{
	uint64_t version = wanted->is_polled ? atomic_load_explicit(&consumer->version_read,
								    memory_order_relaxed)
					     : wanted->version;

	return value_version(&consumer->view.value) > version;
}

/* The end, if it has come, as read_wait sees it. */
static bool consumer_is_ended(const ipc_watch_consumer *consumer,
			      const struct endpoint_wanted *wanted)
{
	return watch_end(&consumer->view) < 0 ||
	       endpoint_opposite_end(&consumer->endpoint, wanted->began) < 0;
}

static uint32_t consumer_look(void *handle, const struct endpoint_wanted *wanted)
{
	const ipc_watch_consumer *consumer = handle;

	/* It has something to read before it is told the end; the last value may have come between
	 * the two looks (W-5). */
	if (!consumer_has_newer(consumer, wanted)) {
		if (!consumer_is_ended(consumer, wanted))
			return 0;
		if (!consumer_has_newer(consumer, wanted))
			return IPC_READY_END;
	}

	if (header_fault(&consumer->view.segment->header) < 0)
		return IPC_READY_END;

	return wanted->events & IPC_READY_READABLE;
}

const struct endpoint_readiness watch_consumer_readiness = {
	.events = IPC_READY_READABLE | IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE,
	.event = consumer_event,
	.look = consumer_look,
};
