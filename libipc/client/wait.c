/* SPDX-License-Identifier: MIT */

/*
 * ipc_wait_any(): one waiter over the event counts of many handles.  What makes a handle ready says
 * its role (struct endpoint_readiness); here is what they have in common.
 */

#include <ipc/wait.h>

#include <stdatomic.h>

#include <ipc/limits.h>

#include "libipc/client/client.h"
#include "libipc/client/endpoint.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"

static_assert(IPC_WAIT_ITEMS_MAX <= THREAD_CROWD_MAX && IPC_WAIT_ITEMS_MAX <= WAITER_MORE_MAX,
	      "items find room everywhere");

#define EVENTS_OF_PEERS (IPC_READY_PEER_PRESENT | IPC_READY_PEER_GONE)

/* One item that is not skipped. */
struct wait_entry {
	void *handle;
	unsigned index; /* of the item */
	struct endpoint *endpoint;
	struct endpoint_part *part; /* NULL: the handle is the endpoint */
	const struct endpoint_readiness *readiness;
	struct endpoint_wanted wanted;
};

struct wait {
	struct wait_entry entries[IPC_WAIT_ITEMS_MAX];
	unsigned n_entries;
	bool is_shown;
	struct waiter *waiter; /* NULL: the first look */
	uint64_t deadline_ns;  /* the caller's; the waiter's may be earlier */
	uint32_t ready;        /* of the item that ended the wait */

	struct endpoint *endpoints[IPC_WAIT_ITEMS_MAX];
	unsigned n_endpoints;
	struct eventcount *events[IPC_WAIT_ITEMS_MAX];
	struct waiter_more more;
};

/* ---- what is waited for ---- */

/* What has close alone begins like an endpoint and is none. */
static bool wait_is_endpoint(const struct endpoint *endpoint)
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

static int wait_resolve(struct wait_entry *ret, const struct ipc_wait_item *item, unsigned index)
{
	*ret = (struct wait_entry){
		.handle = item->handle,
		.index = index,
		.wanted = {.events = item->events, .version = item->version},
	};

	if (wait_is_endpoint(item->handle)) {
		ret->endpoint = item->handle;
		ret->readiness = ret->endpoint->readiness;
	} else if (endpoint_is_part(item->handle)) {
		ret->part = item->handle;
		ret->endpoint = ret->part->endpoint;
		ret->readiness = ret->part->readiness;
	} else {
		return IPC_EINVAL;
	}

	if (item->events == 0 || item->events & ~ret->readiness->events)
		return IPC_EINVAL;

	return 0;
}

/* One may come twice, which costs less than to look for it; parts of one table stand side by side.
 */
static void wait_add_endpoint(struct wait *wait, struct endpoint *endpoint)
{
	if (wait->n_endpoints == 0 || wait->endpoints[wait->n_endpoints - 1] != endpoint)
		wait->endpoints[wait->n_endpoints++] = endpoint;
}

static int wait_add_items(struct wait *wait, const struct ipc_wait_item *items, unsigned n)
{
	int r;

	for (unsigned i = 0; i < n; ++i) {
		struct wait_entry *entry = &wait->entries[wait->n_entries];

		if (!items[i].handle)
			continue;

		r = wait_resolve(entry, &items[i], i);
		if (r < 0)
			return r;
		if (entry->endpoint->client != wait->entries[0].endpoint->client)
			return IPC_EINVAL;

		wait_add_endpoint(wait, entry->endpoint);
		++wait->n_entries;
	}

	return wait->n_entries > 0 ? 0 : IPC_EINVAL;
}

/* ---- inside of all handles ---- */

static void wait_end_parts(struct wait *wait, unsigned n_entries)
{
	for (unsigned i = 0; i < n_entries; ++i)
		if (wait->entries[i].readiness->end)
			wait->entries[i].readiness->end(wait->entries[i].handle);
}

static int wait_begin_parts(struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_entries; ++i) {
		const struct wait_entry *entry = &wait->entries[i];
		int r;

		if (!entry->readiness->begin)
			continue;

		r = entry->readiness->begin(entry->handle);
		if (r < 0) {
			wait_end_parts(wait, i);
			return r;
		}
	}

	return 0;
}

static int wait_check_handles(const struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_endpoints; ++i) {
		int r = endpoint_check(wait->endpoints[i]);

		if (r < 0)
			return r;
	}

	return 0;
}

/* As endpoint_enter(), for all.  Left by wait_leave(). */
static int wait_enter(struct wait *wait)
{
	int r;

	r = thread_enter_crowd((const void *const *)wait->endpoints, wait->n_endpoints,
			       wait->endpoints[0]->epoch);
	if (r < 0)
		return r;

	r = wait_check_handles(wait);
	if (r == 0)
		r = wait_begin_parts(wait);
	if (r < 0)
		thread_leave();

	return r;
}

static void wait_leave(struct wait *wait)
{
	wait_end_parts(wait, wait->n_entries);
	thread_leave();
}

/* ---- the look ---- */

static uint32_t wait_look_at(const struct wait_entry *entry)
{
	uint32_t ready = entry->readiness->look(entry->handle, &entry->wanted);

	if (entry->wanted.events & EVENTS_OF_PEERS)
		ready |= endpoint_peers_ready(entry->endpoint, &entry->wanted);

	return ready;
}

static bool wait_is_cancelled(const struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_entries; ++i) {
		const struct wait_entry *entry = &wait->entries[i];

		/* [A2] of core/waiter.c. */
		if (atomic_load_explicit(&entry->endpoint->cancelled, memory_order_acquire))
			return true;
		if (entry->part &&
		    atomic_load_explicit(&entry->part->cancelled, memory_order_acquire))
			return true;
	}

	return false;
}

/* Whom the handles wait for may change from look to look. */
static void wait_show_holders(const struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_entries; ++i) {
		const struct wait_entry *entry = &wait->entries[i];
		uint64_t holder = entry->readiness->waits_for
					  ? entry->readiness->waits_for(entry->handle)
					  : 0;

		/* Several parts of one handle share its line: one of their leaders is shown. */
		if (holder)
			atomic_store_explicit(&entry->endpoint->cell->waits_for, holder,
					      memory_order_relaxed);
	}
}

/* What time alone makes ready is looked at again then. */
static void wait_set_deadline(const struct wait *wait)
{
	uint64_t due_ns = wait->deadline_ns;

	for (unsigned i = 0; i < wait->n_entries; ++i) {
		const struct wait_entry *entry = &wait->entries[i];
		uint64_t ns = entry->readiness->due_ns ? entry->readiness->due_ns(entry->handle)
						       : CLOCK_FOREVER;

		if (ns < due_ns)
			due_ns = ns;
	}

	wait->waiter->deadline_ns = due_ns;
}

/* The index of the first item that is ready. */
static int wait_look(void *subject)
{
	struct wait *wait = subject;

	for (unsigned i = 0; i < wait->n_entries; ++i) {
		wait->ready = wait_look_at(&wait->entries[i]);
		if (wait->ready)
			return (int)wait->entries[i].index;
	}

	if (wait_is_cancelled(wait))
		return IPC_ECANCELED;
	if (wait->is_shown)
		wait_show_holders(wait);
	if (wait->waiter)
		wait_set_deadline(wait);

	return WAITER_NOT_YET;
}

/* ---- the sleep ---- */

static int wait_check(void *userdata)
{
	const struct wait *wait = userdata;
	int r = wait_check_handles(wait);

	return r < 0 ? r : client_check(wait->endpoints[0]->client);
}

/* A hint for people, as in core/waiter.c: handles of two waits overwrite each other. */
static void wait_show(void *subject, uint64_t since_ns)
{
	struct wait *wait = subject;

	wait->is_shown = since_ns != 0;
	for (unsigned i = 0; i < wait->n_endpoints; ++i) {
		struct desk_cell *cell = wait->endpoints[i]->cell;

		atomic_store_explicit(&cell->waits_for, 0, memory_order_relaxed);
		atomic_store_explicit(&cell->waits_since, since_ns, memory_order_relaxed);
	}
}

static void wait_add_events(struct wait *wait)
{
	wait->more = (struct waiter_more){.events = wait->events, .show = wait_show};

	for (unsigned i = 0; i < wait->n_entries; ++i) {
		const struct wait_entry *entry = &wait->entries[i];
		struct eventcount *event = NULL;

		if (entry->readiness->event)
			event = entry->readiness->event(entry->handle);
		if (event)
			wait->events[wait->more.n_events++] = event;
	}
}

static int wait_sleep_once(struct wait *wait, uint64_t deadline_ns)
{
	ipc_client *client = wait->endpoints[0]->client;
	struct waiter waiter;

	wait->waiter = &waiter;
	wait->deadline_ns = deadline_ns;
	endpoint_waiter(wait->endpoints[0], &waiter, NULL, deadline_ns);
	wait_add_events(wait);

	/* One for all: also of what ends in other users' tables the broker tells this word. */
	waiter.attention = client_attention(client);
	waiter.cell = NULL;
	waiter.patience = &client->patience;
	waiter.more = &wait->more;
	waiter.check = wait_check;
	waiter.userdata = wait;
	return waiter_wait(&waiter, wait_look, wait);
}

static int wait_sleep(struct wait *wait, uint64_t deadline_ns)
{
	int r;

	do
		r = wait_sleep_once(wait, deadline_ns);
	while (r == IPC_ETIMEDOUT && deadline_ns > 0 && clock_now_ns() < deadline_ns);

	return r;
}

static int wait_for_any(struct wait *wait, uint64_t deadline_ns)
{
	int r;

	for (unsigned i = 0; i < wait->n_entries; ++i)
		wait->entries[i].wanted.began = endpoint_opposite(wait->entries[i].endpoint);

	/* What is ready already needs no waiter. */
	r = wait_look(wait);
	return r == WAITER_NOT_YET ? wait_sleep(wait, deadline_ns) : r;
}

int ipc_wait_any(struct ipc_wait_item *items, unsigned n, const struct timespec *deadline)
{
	struct wait wait;
	uint64_t deadline_ns;
	int r;

	if (!items || n < 1 || n > IPC_WAIT_ITEMS_MAX)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	/* The lists are not written before they are filled: they are kilobytes. */
	wait.n_entries = wait.n_endpoints = 0;
	wait.is_shown = false;
	wait.waiter = NULL;
	r = wait_add_items(&wait, items, n);
	if (r < 0)
		return r;

	r = wait_enter(&wait);
	if (r < 0)
		return r;

	r = wait_for_any(&wait, deadline_ns);
	wait_leave(&wait);
	if (r < 0)
		return r;

	for (unsigned i = 0; i < n; ++i)
		items[i].ready = i == (unsigned)r ? wait.ready : 0;

	return r;
}
