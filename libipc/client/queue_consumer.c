/* SPDX-License-Identifier: MIT */

/*
 * Consumers of a queue: take and what becomes of what was taken, and what a consumer says of the
 * queue.
 */

#include "libipc/client/queue.h"

#include <ipc/error.h>
#include <ipc/limits.h>

#include "libipc/client/options.h"
#include "libipc/platform/clock.h"

static int consumer_enter(ipc_queue_consumer *consumer)
{
	return endpoint_enter((struct endpoint *)consumer, IPC_ROLE_QUEUE_CONSUMER);
}

/* ---- take ---- */

struct taking {
	struct queue_handle *consumer;
	struct ipc_queue_item *ret_item;
	uint64_t began; /* the producers' side word */
};

/* 0, the end, or WAITER_NOT_YET. */
static int taking_look(void *subject)
{
	struct taking *taking = subject;
	struct queue_handle *consumer = taking->consumer;
	int r, end;

	r = queue_take(&consumer->view, taking->ret_item);
	if (LIKELY(r != IPC_EAGAIN))
		return r;

	end = endpoint_opposite_end(&consumer->endpoint, taking->began);
	if (end == 0)
		return WAITER_NOT_YET;

	/* The last item may have come between the two looks; it is seen now, since it came before
	 * the end. */
	r = queue_take(&consumer->view, taking->ret_item);
	return r != IPC_EAGAIN ? r : end;
}

/* deadline_ns NULL: without a wait. */
static int taking_first(struct taking *taking, const uint64_t *deadline_ns)
{
	struct queue_handle *consumer = taking->consumer;
	struct waiter waiter;
	int r;

	taking->began = endpoint_opposite(&consumer->endpoint);
	r = taking_look(taking);
	if (r != WAITER_NOT_YET)
		return r;
	if (!deadline_ns)
		return IPC_EAGAIN;

	endpoint_waiter(&consumer->endpoint, &waiter,
			queue_line(&consumer->view, QUEUE_SIDE_CONSUMERS), *deadline_ns);
	return waiter_wait(&waiter, taking_look, taking);
}

/* Into ret[n]: how many. */
static int take(ipc_queue_consumer *consumer, struct ipc_queue_item *ret, unsigned n,
		const uint64_t *deadline_ns)
{
	struct taking taking = {.consumer = &consumer->handle, .ret_item = ret};
	unsigned n_taken;
	int r;

	r = taking_first(&taking, deadline_ns);
	if (r < 0)
		return r;

	for (n_taken = 1; n_taken < n; ++n_taken)
		if (queue_take(&consumer->handle.view, &ret[n_taken]) < 0)
			break;

	r = queue_handle_keep(&consumer->handle);
	return r < 0 ? r : (int)n_taken;
}

int ipc_queue_take(ipc_queue_consumer *consumer, struct ipc_queue_item *ret)
{
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = take(consumer, ret, 1, NULL);

	endpoint_leave(&consumer->handle.endpoint);
	return r < 0 ? r : 0;
}

int ipc_queue_take_wait(ipc_queue_consumer *consumer, struct ipc_queue_item *ret,
			const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = take(consumer, ret, 1, &deadline_ns);

	endpoint_leave(&consumer->handle.endpoint);
	return r < 0 ? r : 0;
}

static unsigned n_cut(unsigned n)
{
	return n < IPC_MANY_MAX ? n : IPC_MANY_MAX;
}

int ipc_queue_take_many(ipc_queue_consumer *consumer, struct ipc_queue_item *ret, unsigned n)
{
	int r;

	if (!ret || n == 0)
		return IPC_EINVAL;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = take(consumer, ret, n_cut(n), NULL);

	endpoint_leave(&consumer->handle.endpoint);
	return r;
}

int ipc_queue_take_many_wait(ipc_queue_consumer *consumer, struct ipc_queue_item *ret, unsigned n,
			     const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	if (!ret || n == 0)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = take(consumer, ret, n_cut(n), &deadline_ns);

	endpoint_leave(&consumer->handle.endpoint);
	return r;
}

/* ---- what becomes of it ---- */

typedef int (*settle_fn)(struct queue *queue, uint64_t lease);

static int settle(ipc_queue_consumer *consumer, const struct ipc_queue_item *item, settle_fn fn)
{
	int r;

	if (!item)
		return IPC_EINVAL;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = header_fault(consumer->handle.endpoint.header);
	if (LIKELY(r == 0))
		r = fn(&consumer->handle.view, item->lease);

	endpoint_leave(&consumer->handle.endpoint);
	return r;
}

int ipc_queue_ack(ipc_queue_consumer *consumer, const struct ipc_queue_item *item)
{
	return settle(consumer, item, queue_ack);
}

int ipc_queue_requeue(ipc_queue_consumer *consumer, const struct ipc_queue_item *item)
{
	return settle(consumer, item, queue_requeue);
}

int ipc_queue_reject(ipc_queue_consumer *consumer, const struct ipc_queue_item *item)
{
	return settle(consumer, item, queue_reject);
}

int ipc_queue_ack_many(ipc_queue_consumer *consumer, const struct ipc_queue_item *items, unsigned n)
{
	int r;

	if (!items && n > 0)
		return IPC_EINVAL;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = header_fault(consumer->handle.endpoint.header);
	if (r == 0 && n > 0)
		r = queue_ack_many(&consumer->handle.view, items, n);

	endpoint_leave(&consumer->handle.endpoint);
	return r;
}

/* ---- the queue ---- */

int ipc_queue_shutdown(ipc_queue_consumer *consumer)
{
	int r;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = queue_shutdown(&consumer->handle.view);

	endpoint_leave(&consumer->handle.endpoint);
	return r;
}

int ipc_queue_set_fairness(ipc_queue_consumer *consumer, const struct ipc_queue_fairness *fairness)
{
	struct ipc_queue_fairness known;
	int r;

	r = options_copy(&known, sizeof(known), fairness);
	if (r < 0)
		return r;
	if (known.reserved != 0)
		return IPC_E2BIG;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = header_fault(consumer->handle.endpoint.header);
	if (r == 0)
		queue_set_fairness(&consumer->handle.view, &known);

	endpoint_leave(&consumer->handle.endpoint);
	return r;
}

int ipc_queue_consumer_get_state(ipc_queue_consumer *consumer, struct ipc_queue_state *ret)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	int r;

	if (!ret || ret->size < sizeof(size_t))
		return IPC_EINVAL;

	r = consumer_enter(consumer);
	if (r < 0)
		return r;

	r = queue_get_state(&consumer->handle.view, &state);
	if (r == 0)
		r = options_write_info(ret, &state, sizeof(state));

	endpoint_leave(&consumer->handle.endpoint);
	return r;
}
