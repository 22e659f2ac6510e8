/* SPDX-License-Identifier: MIT */

/*
 * ipc_wait_any(): one waiter over the event counts of many handles.  What makes a handle ready is
 * in ready.c.
 */

#include <ipc/wait.h>

#include <stdatomic.h>

#include <ipc/limits.h>

#include "libipc/client/client.h"
#include "libipc/client/ready.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"

static_assert(IPC_WAIT_ITEMS_MAX <= THREAD_CROWD_MAX && IPC_WAIT_ITEMS_MAX <= WAITER_MORE_MAX,
	      "items find room everywhere");

/* One item that is not skipped. */
struct wait_entry {
	unsigned index; /* of the item */
	struct ready ready;
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

		r = ready_resolve(&entry->ready, items[i].handle, items[i].events);
		if (r < 0)
			return r;
		if (entry->ready.endpoint->client != wait->entries[0].ready.endpoint->client)
			return IPC_EINVAL;

		entry->index = i;
		entry->ready.wanted.version = items[i].version;
		wait_add_endpoint(wait, entry->ready.endpoint);
		++wait->n_entries;
	}

	return wait->n_entries > 0 ? 0 : IPC_EINVAL;
}

/* ---- inside of all handles ---- */

static void wait_end_parts(struct wait *wait, unsigned n_entries)
{
	for (unsigned i = 0; i < n_entries; ++i)
		if (wait->entries[i].ready.readiness->end)
			wait->entries[i].ready.readiness->end(wait->entries[i].ready.handle);
}

static int wait_begin_parts(struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_entries; ++i) {
		const struct ready *ready = &wait->entries[i].ready;
		int r;

		if (!ready->readiness->begin)
			continue;

		r = ready->readiness->begin(ready->handle);
		if (r < 0) {
			wait_end_parts(wait, i);
			return r;
		}
	}

	return 0;
}

/* An end of a session that another one has taken over is ready, for its end (C-3). */
static bool wait_is_taken_over(const struct endpoint *endpoint)
{
	return endpoint->role == IPC_ROLE_SESSION &&
	       connection_is_ours(&endpoint->client->connection);
}

static int wait_check_handles(const struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_endpoints; ++i) {
		int r = endpoint_check(wait->endpoints[i]);

		if (UNLIKELY(r < 0) && !wait_is_taken_over(wait->endpoints[i]))
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

static bool wait_is_cancelled(const struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_entries; ++i)
		if (ready_is_cancelled(&wait->entries[i].ready))
			return true;

	return false;
}

/* Whom the handles wait for may change from look to look. */
static void wait_show_holders(const struct wait *wait)
{
	for (unsigned i = 0; i < wait->n_entries; ++i) {
		const struct ready *ready = &wait->entries[i].ready;
		uint64_t holder = ready->readiness->waits_for
					  ? ready->readiness->waits_for(ready->handle)
					  : 0;

		/* Several parts of one handle share its line: one of their leaders is shown. */
		if (holder)
			atomic_store_explicit(&ready->endpoint->cell->waits_for, holder,
					      memory_order_relaxed);
	}
}

/* What time alone makes ready is looked at again then. */
static void wait_set_deadline(const struct wait *wait)
{
	uint64_t due_ns = wait->deadline_ns;

	for (unsigned i = 0; i < wait->n_entries; ++i) {
		uint64_t ns = ready_due_ns(&wait->entries[i].ready);

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
		wait->ready = ready_look(&wait->entries[i].ready);
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
	ipc_client *client = wait->endpoints[0]->client;

	wait->more = (struct waiter_more){
		.events = wait->events,
		.is_deaf = &client->desk->client[client->slot].is_deaf,
		.show = wait_show,
	};

	for (unsigned i = 0; i < wait->n_entries; ++i) {
		struct eventcount *event = ready_event(&wait->entries[i].ready);

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

	for (unsigned i = 0; i < wait->n_entries; ++i) {
		struct ready *ready = &wait->entries[i].ready;

		ready->wanted.began = endpoint_opposite(ready->endpoint);
	}

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
