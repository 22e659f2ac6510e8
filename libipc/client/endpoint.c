/* SPDX-License-Identifier: MIT */
#include "libipc/client/endpoint.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <ipc/error.h>
#include <ipc/wait.h>

#include "libipc/client/client.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/segment.h"
#include "libipc/wire/codec.h"

/* ---- close ---- */

void endpoint_unmap(struct endpoint *endpoint)
{
	/* A forked child has other things at these addresses, or nothing. */
	if (thread_is_foreign(endpoint->epoch)) {
		endpoint->pair_fd = fd_close(endpoint->pair_fd);
		return;
	}

	if (endpoint->header && !endpoint->keep_mapped)
		segment_unmap(endpoint->header, endpoint->segment_size);
	if (endpoint->lines_map)
		segment_unmap(endpoint->lines_map, endpoint->lines_map_size);

	endpoint->header = NULL;
	endpoint->lines_map = NULL;
	endpoint->pair_fd = fd_close(endpoint->pair_fd);
}

static int endpoint_try_ring(struct endpoint *endpoint)
{
	union message message;

	message_init(&message, MESSAGE_RING, 0);
	message.ring.handle_id = endpoint->id;
	return connection_try_send(&endpoint->client->connection, &message);
}

/* The broker rings for a handle that it knows: before it hears of the close, or by the desk that
 * says both.  False: not now. */
static bool endpoint_pay_ring(struct endpoint *endpoint)
{
	return LIKELY(!atomic_load_explicit(&endpoint->owes_ring, memory_order_relaxed)) ||
	       endpoint_try_ring(endpoint) != IPC_EAGAIN;
}

/*
 * The desk says it at once, whatever becomes of the message: who looks at the cell after our death
 * finds a close and not a death.  The cell of a handle that the broker has ended already may belong
 * to somebody else by now, but not of one that was taken over.
 */
void endpoint_tell_closed(struct endpoint *endpoint)
{
	ipc_client *client = endpoint->client;
	union message message;

	if (liveness_handle_is(endpoint->table, endpoint->id) ||
	    liveness_handle_is_overtaken(endpoint->table, endpoint->id)) {
		if (endpoint->is_detached)
			atomic_store_explicit(&endpoint->cell->detached_id, endpoint->id,
					      memory_order_relaxed);
		atomic_store_explicit(&endpoint->cell->closed_id, endpoint->id,
				      memory_order_release);
	}

	CRASH_POINT();
	message_init(&message, MESSAGE_CLOSE, 0);
	message.close.handle_id = endpoint->id;
	message.close.is_detached = endpoint->is_detached;
	if (endpoint_pay_ring(endpoint) &&
	    connection_try_send(&client->connection, &message) != IPC_EAGAIN)
		return;

	/*
	 * The broker looks at this counter after each request that it has done, so either it does
	 * so after our store, or it has made room for the message by then.
	 */
	atomic_fetch_add_explicit(&client->desk->client[client->slot].closings, 1,
				  memory_order_seq_cst);
	if (endpoint_pay_ring(endpoint))
		(void)connection_try_send(&client->connection, &message);
}

/* In the last thread that leaves, or in close. */
static void endpoint_free(struct endpoint *endpoint)
{
	ipc_client *client = endpoint->client;

	if (endpoint->last_fn && !thread_is_foreign(endpoint->epoch))
		endpoint->last_fn(endpoint);

	endpoint_unmap(endpoint);
	if (!thread_is_foreign(endpoint->epoch))
		bells_forget(endpoint);
	if (endpoint->release)
		endpoint->release(endpoint);
	else
		free(endpoint);
	(void)ipc_client_unref(client);
}

static void endpoint_free_object(struct thread_object *object)
{
	endpoint_free((struct endpoint *)((char *)object - offsetof(struct endpoint, object)));
}

void endpoint_bump(struct endpoint *endpoint)
{
	client_bump(endpoint->client);
}

void endpoint_close_inside(struct endpoint *endpoint, const void *address)
{
	int cancel_state;

	if (!endpoint_is(endpoint, 0))
		return;

	endpoint->magic = 0;
	if (thread_is_foreign(endpoint->epoch)) {
		endpoint_free(endpoint);
		return;
	}

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);

	/* Waits of other threads end; whoever takes a lock right now sees `closing` after it, or is
	 * seen by closing_fn. */
	atomic_store_explicit(&endpoint->closing, 1, memory_order_relaxed);
	atomic_store_explicit(&endpoint->cancelled, 1, memory_order_relaxed);
	endpoint_bump(endpoint);
	process_fence_heavy();

	poll_set_forget(&endpoint->client->polls, &endpoint->polled);
	if (endpoint->closing_fn)
		endpoint->closing_fn(endpoint);
	CRASH_POINT();
	if (!endpoint->tells_later)
		endpoint_tell_closed(endpoint);
	CRASH_POINT();

	endpoint->object.address = address;
	endpoint->object.free = endpoint_free_object;
	thread_retire(&endpoint->object);

	(void)pthread_setcancelstate(cancel_state, NULL);
}

void endpoint_close(struct endpoint *endpoint)
{
	endpoint_close_inside(endpoint, endpoint);
}

/* ---- whose it is ---- */

uint32_t endpoint_process(const struct endpoint *endpoint)
{
	return endpoint->client->is_foreign ? 0 : (uint32_t)getpid();
}

/* ---- waiting ---- */

/*
 * Looked at after a word of the table that is not as it should be: once the broker has heard of a
 * close, the handle's and the channel's words may have a new tenant, of whom a call that is still
 * under way must not speak.
 */
static bool endpoint_is_closing(const struct endpoint *endpoint)
{
	return atomic_load_explicit(&endpoint->closing, memory_order_relaxed) != 0;
}

int endpoint_check(const struct endpoint *endpoint)
{
	/* Closed by another thread: the wait ends as cancelled, at its next look. */
	if (!liveness_handle_is(endpoint->table, endpoint->id))
		return endpoint_is_closing(endpoint) ? 0 : IPC_ESTALE;

	return 0;
}

static int endpoint_check_all(void *userdata)
{
	const struct endpoint *endpoint = userdata;
	int r = endpoint_check(endpoint);

	return r < 0 ? r : client_check(endpoint->client);
}

void endpoint_waiter(struct endpoint *endpoint, struct waiter *ret, struct eventcount *event,
		     uint64_t deadline_ns)
{
	struct connection *connection = &endpoint->client->connection;

	*ret = (struct waiter){
		.event = event,
		.attention = endpoint->attention,
		.cancel_word = &connection->cancel_word,
		.handle_cancelled = &endpoint->cancelled,
		.client_cancelled = &connection->cancelled,
		.cell = endpoint->cell,
		.patience = &endpoint->patience,
		.deadline_ns = deadline_ns,
		.ignores_signals = endpoint->client->ignores_signals,
		.check = endpoint_check_all,
		.userdata = endpoint,
	};
}

/* ---- the other side ---- */

int endpoint_opposite_end_slow(const struct endpoint *endpoint, uint64_t began)
{
	uint64_t now = endpoint_opposite(endpoint);
	int reason = now & SIDE_DIED ? IPC_EOWNERDEAD : IPC_EPIPE;

	if (UNLIKELY(endpoint_is_closing(endpoint)))
		return 0;

	/* Nobody will come again: also for those who would wait for them. */
	if ((now & SIDE_FINAL) && side_count(now) == 0)
		return reason;
	if (endpoint->stays)
		return 0;

	/* Ends are counted, so one is not missed where somebody has come again. */
	return side_ends(now) != side_ends(began) || side_is_gone(now) ? reason : 0;
}

static int peer_end(const struct endpoint *endpoint)
{
	const struct endpoint_readiness *readiness = endpoint->readiness;

	return readiness && readiness->peer_end ? readiness->peer_end(endpoint) : 0;
}

int endpoint_peers(struct endpoint *endpoint, enum ipc_role role)
{
	uint32_t count;
	int r;

	r = endpoint_enter(endpoint, role);
	if (r < 0)
		return r;

	count = peer_end(endpoint) < 0 ? 0 : side_count(endpoint_opposite(endpoint));
	endpoint_leave(endpoint);
	return (int)count;
}

struct peers_wait {
	const struct endpoint *endpoint;
	uint64_t began;
	bool present;
};

static int peers_look(void *subject)
{
	const struct peers_wait *wait = subject;
	uint64_t now = endpoint_opposite(wait->endpoint);
	int end = peer_end(wait->endpoint);

	if (endpoint_is_closing(wait->endpoint))
		return WAITER_NOT_YET;
	if (!wait->present)
		return end < 0 || side_count(now) == 0 || side_ends(now) != side_ends(wait->began)
			       ? 0
			       : WAITER_NOT_YET;

	if (end < 0)
		return end;
	if (side_count(now) > 0)
		return 0;
	if ((now & SIDE_FINAL) ||
	    atomic_load_explicit(&wait->endpoint->header->is_shut_down, memory_order_acquire))
		return IPC_EPIPE;

	return header_fault(wait->endpoint->header) < 0 ? header_fault(wait->endpoint->header)
							: WAITER_NOT_YET;
}

int endpoint_peers_wait(struct endpoint *endpoint, enum ipc_role role, bool present,
			const struct timespec *deadline)
{
	struct peers_wait wait = {.endpoint = endpoint, .present = present};
	struct eventcount *event = NULL;
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	r = endpoint_enter(endpoint, role);
	if (r < 0)
		return r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r == 0) {
		wait.began = endpoint_opposite(endpoint);

		/*
		 * Comings and goings are told by the broker's attention word alone, so that no
		 * publisher ever wakes this sleep.  A shutdown is told on the own line; it matters
		 * only to who waits for somebody to come, and then nobody is there who could
		 * publish.
		 */
		if (present && endpoint->lines)
			event = &endpoint->lines[endpoint->side];
		endpoint_waiter(endpoint, &waiter, event, deadline_ns);
		waiter.patience = NULL;
		r = waiter_wait(&waiter, peers_look, &wait);
	}

	endpoint_leave(endpoint);
	return r;
}

uint32_t endpoint_peers_ready(const struct endpoint *endpoint, const struct endpoint_wanted *wanted)
{
	struct peers_wait wait = {.endpoint = endpoint, .began = wanted->began};
	uint32_t ready = 0;

	if (wanted->events & IPC_READY_PEER_PRESENT) {
		wait.present = true;
		switch (peers_look(&wait)) {
		case WAITER_NOT_YET:
			break;
		case 0:
			ready |= IPC_READY_PEER_PRESENT;
			break;
		default:
			ready |= IPC_READY_END;
		}
	}

	/* Awaited is not gone. */
	if (wanted->events & IPC_READY_PEER_GONE) {
		uint64_t now = endpoint_opposite(endpoint);

		if ((side_is_gone(now) || side_ends(now) != side_ends(wanted->began) ||
		     peer_end(endpoint) < 0) &&
		    !endpoint_is_closing(endpoint))
			ready |= IPC_READY_PEER_GONE;
	}

	return ready;
}

/* ---- what every role has ---- */

void endpoint_send_ring(struct endpoint *endpoint)
{
	ipc_client *client = endpoint->client;

	if (LIKELY(endpoint_try_ring(endpoint) != IPC_EAGAIN))
		return;

	/* As endpoint_tell_closed(): the desk says it. */
	atomic_store_explicit(&endpoint->owes_ring, 1, memory_order_relaxed);
	CRASH_POINT();
	atomic_fetch_add_explicit(&client->desk->client[client->slot].ringings, 1,
				  memory_order_seq_cst);
	CRASH_POINT();
	(void)endpoint_try_ring(endpoint);
}

void endpoint_ring(void *userdata)
{
	int cancel_state;

	/* Writing is where a thread may be cancelled: this may be in the middle of anything. */
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	bells_ring_all(userdata);
	(void)pthread_setcancelstate(cancel_state, NULL);
}

int endpoint_cancel(struct endpoint *endpoint)
{
	int r = 0;

	if (!endpoint_is(endpoint, 0))
		return IPC_EINVAL;
	if (thread_is_foreign(endpoint->epoch))
		return IPC_ECHILD;

	/* This may be a signal handler that interrupted any line of the library, in any thread: no
	 * record, no lock, no memory. */
	thread_visit();
	if (liveness_handle_is(endpoint->table, endpoint->id)) {
		atomic_store_explicit(&endpoint->cancelled, 1, memory_order_release);
		endpoint_bump(endpoint);
		poll_set_look_again(&endpoint->client->polls);
	} else {
		r = IPC_ESTALE;
	}
	thread_visit_end();

	return r;
}

int endpoint_get_id(const struct endpoint *endpoint, enum ipc_role role, uint64_t *ret)
{
	struct endpoint *entered =
		(struct endpoint *)endpoint; /* entering writes to the thread's record alone */
	int r;

	r = endpoint_enter(entered, role);
	if (r < 0)
		return r;

	if (ret)
		*ret = endpoint->id;
	else
		r = IPC_EINVAL;

	endpoint_leave(entered);
	return r;
}
