/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_WAIT_SCENE_H
#define TESTS_CLIENT_WAIT_SCENE_H

/*
 * What the tests of ipc_wait_any() share: a process that opens what its plan says and waits for it
 * each time it is told to, and how long it takes to come back.
 */

#include <criterion/criterion.h>
#include <stdio.h>

#include <ipc/ipc.h>

#include "libipc/platform/futex.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/wakes.h"

#define READABLE IPC_READY_READABLE
#define PRESENT  IPC_READY_PEER_PRESENT
#define GONE     IPC_READY_PEER_GONE
#define END      IPC_READY_END

/* ---- short forms ---- */

static inline ipc_watch_consumer *consumer_new(const char *name, uint64_t flags)
{
	ipc_watch_consumer *consumer = NULL;

	cr_assert_eq(consume(&consumer, name, flags | IPC_CREATE), 0);
	return consumer;
}

static inline void publish(ipc_watch_producer *producer)
{
	cr_assert_eq(ipc_watch_publish(producer, "value", 6), 0);
}

/* A look at one handle: what is ready, or the (negative) result. */
static inline int64_t look(void *handle, uint32_t events, uint64_t version)
{
	struct ipc_wait_item item = {.handle = handle, .events = events, .version = version};
	int r = ipc_wait_any(&item, 1, &past);

	return r < 0 ? r : (int64_t)item.ready;
}

/* ---- another process ---- */

#define PLAN_MAX 4

struct plan_item {
	const char *name; /* NULL: skipped */
	enum ipc_role role;
	uint64_t flags;
	uint32_t events;
};

#define CONSUMER(NAME, ...)                                                                        \
	{                                                                                          \
		.name = (NAME), .role = IPC_ROLE_WATCH_CONSUMER, __VA_ARGS__                       \
	}
#define PRODUCER(NAME, ...)                                                                        \
	{                                                                                          \
		.name = (NAME), .role = IPC_ROLE_WATCH_PRODUCER, __VA_ARGS__                       \
	}
#define SHARED_A(NAME, ...)                                                                        \
	{                                                                                          \
		.name = (NAME), .role = IPC_ROLE_SHARED_A, __VA_ARGS__                             \
	}

struct plan {
	bool refuses_waitv;
	uint64_t grace_ns; /* 0: the default */
	unsigned n;
	struct plan_item item[PLAN_MAX];
};

static inline int plan_open(void **ret, ipc_client *own, const struct plan_item *item)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	const struct ipc_watch_options *watch = IPC_WATCH_OPTIONS(.flags = item->flags);
	const struct ipc_shared_options *shared = IPC_SHARED_OPTIONS(.flags = item->flags);

	if (!item->name)
		return 0;
	if (item->role == IPC_ROLE_WATCH_PRODUCER)
		return ipc_watch_producer_open_wait((ipc_watch_producer **)ret, own, item->name,
						    watch, &deadline);
	if (item->role == IPC_ROLE_WATCH_CONSUMER)
		return ipc_watch_consumer_open_wait((ipc_watch_consumer **)ret, own, item->name,
						    watch, &deadline);

	return ipc_shared_open_wait((ipc_shared **)ret, own, item->name,
				    item->role == IPC_ROLE_SHARED_A ? IPC_SIDE_A : IPC_SIDE_B,
				    shared, &deadline);
}

/* Says 0 when all is open.  Then hears a version, which its first item waits for, and says result
 * and what is ready, until the version is -1. */
static inline void plan_play(struct actor *self, void *arg)
{
	const struct plan *plan = arg;
	struct ipc_wait_item items[PLAN_MAX] = {0};
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_client *own;
	int r;

	if (plan->refuses_waitv)
		futex_refuse_waitv();
	r = ipc_client_connect_wait(
		&own,
		IPC_CLIENT_OPTIONS(.address = fixture_domain.address, .grace_ns = plan->grace_ns),
		&deadline);
	for (unsigned i = 0; i < plan->n && r == 0; ++i) {
		r = plan_open(&items[i].handle, own, &plan->item[i]);
		items[i].events = plan->item[i].events;
	}
	actor_say(self, r);

	for (;;) {
		int64_t version = actor_hear(self);

		if (version < 0)
			process_end(0);
		items[0].version = (uint64_t)version;
		r = ipc_wait_any(items, plan->n, NULL);
		actor_say(self, r);
		actor_say(self, r >= 0 ? items[r].ready : 0);
	}
}

static inline void waiter_start(struct actor *actor, struct plan plan)
{
	actor_start(actor, plan_play, &plan);
	cr_assert_eq(actor_hear(actor), 0);
}

#define WAITER_START(actor, ...) waiter_start(actor, (struct plan){__VA_ARGS__})

static inline void waiter_begin(struct actor *actor, uint64_t version)
{
	actor_say(actor, (int64_t)version);
	actor_until_asleep(actor);
}

static inline void waiter_end(struct actor *actor)
{
	actor_say(actor, -1);
	cr_assert_eq(actor_join(actor), 0);
}

#define ASSERT_WAITED(actor, index, bits)                                                          \
	do {                                                                                       \
		int64_t result_ = actor_hear(actor), ready_ = actor_hear(actor);                   \
		cr_assert_eq(result_, (index), "%ld (%s)", result_, ipc_error_name((int)result_)); \
		cr_assert_eq(ready_, (bits), "ready: %#lx", ready_);                               \
	} while (0)

/* After domain_kill(): for the end of the fixture. */
static inline void start_another_broker(void)
{
	ipc_client_unref(fixture_client);
	domain_start(&fixture_domain, NULL);
	fixture_client = domain_connect(&fixture_domain);
}

/* ---- at once ---- */

#define N_TIMES 20

/* What wakes a waiter for all three roles, as the index of whom it concerns first. */
enum change { SHUTDOWN_OF_WATCH, COMMIT_OF_WATCH, SHUTDOWN_OF_SHARED };

static inline void tell(enum change change, bool refuses_waitv)
{
	static unsigned n_rounds;
	char a[16], s[16]; /* of their own, since the last ones may live a moment longer */
	ipc_watch_producer *producer;
	size_t size, size_max;
	struct actor actor;
	uint64_t began;
	void *edited;
	ipc_shared *b;

	(void)snprintf(a, sizeof(a), "a%u", ++n_rounds);
	(void)snprintf(s, sizeof(s), "s%u", n_rounds);
	producer = producer_new(a);
	b = shared_new(s, IPC_SIDE_B);

	WAITER_START(&actor, .refuses_waitv = refuses_waitv, .n = 3,
		     .item = {PRODUCER(a, .events = GONE), CONSUMER(a, .events = READABLE),
			      SHARED_A(s, .events = GONE)});
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	waiter_begin(&actor, 0);

	began = clock_now_ns();
	switch (change) {
	case SHUTDOWN_OF_WATCH:
		cr_assert_eq(ipc_watch_shutdown(producer), 0);
		break;
	case COMMIT_OF_WATCH:
		cr_assert_eq(ipc_watch_commit(producer, 1), 0);
		break;
	case SHUTDOWN_OF_SHARED:
		cr_assert_eq(ipc_shared_shutdown(b), 0);
		break;
	}
	ASSERT_WAITED(&actor, change, change == COMMIT_OF_WATCH ? READABLE : END);
	ASSERT_WOKEN(began);

	waiter_end(&actor);
	ipc_shared_close(b);
	ipc_watch_producer_close(producer);
}

static inline void assert_told_at_once(enum change change, bool refuses_waitv)
{
	WAKES_TELL();
	for (unsigned i = 0; i < N_TIMES; ++i)
		tell(change, refuses_waitv);
}

#endif
