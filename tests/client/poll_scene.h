/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_POLL_SCENE_H
#define TESTS_CLIENT_POLL_SCENE_H

/*
 * What the tests of the poll set share: short forms upon fixture_client, its descriptor as
 * programs see it, and an actor that publishes when it is told to.
 */

#include <criterion/criterion.h>
#include <poll.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/client/client.h"
#include "libipc/platform/clock.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"

#define READABLE IPC_READY_READABLE
#define PRESENT  IPC_READY_PEER_PRESENT
#define GONE     IPC_READY_PEER_GONE
#define END      IPC_READY_END

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

static inline void read_it(ipc_watch_consumer *consumer)
{
	char value[16];

	cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), NULL, NULL), 0);
}

static inline bool is_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) == 1;
}

static inline int the_fd(void)
{
	int fd = ipc_client_get_fd(fixture_client);

	cr_assert_geq(fd, 0);
	return fd;
}

static inline void until_readable(void)
{
	struct pollfd poll_fd = {.fd = the_fd(), .events = POLLIN};

	cr_assert_eq(poll(&poll_fd, 1, WAIT_MS), 1, "the descriptor does not become readable");
}

static inline void add(void *handle, uint32_t events)
{
	cr_assert_eq(ipc_poll_add(fixture_client, handle, events, handle), 0);
}

/* The next one: what is ready of it, or the (negative) result. */
static inline int64_t next_of(void **ret_handle)
{
	struct ipc_poll_event event;
	int r = ipc_poll_next(fixture_client, &event);

	if (r < 0)
		return r;
	cr_assert_eq(event.handle, event.userdata);
	cr_assert_eq(event.reserved, 0);
	*ret_handle = event.handle;
	return event.ready;
}

#define ASSERT_NEXT(HANDLE, BITS)                                                                  \
	do {                                                                                       \
		void *handle_ = NULL;                                                              \
		int64_t ready_ = next_of(&handle_);                                                \
		cr_assert_eq(ready_, (BITS), "%ld (%s)", ready_, ipc_error_name((int)ready_));     \
		cr_assert_eq(handle_, (void *)(HANDLE));                                           \
	} while (0)

#define ASSERT_NOTHING()                                                                           \
	do {                                                                                       \
		void *handle_ = NULL;                                                              \
		int64_t ready_ = next_of(&handle_);                                                \
		cr_assert_eq(ready_, IPC_EAGAIN, "%ld", ready_);                                   \
	} while (0)

/* The descriptor wakes up, whatever for, until this is the next one. */
static inline void until_next(const void *handle, uint32_t bits)
{
	uint64_t limit = clock_after_ns(WAIT_MS * NS_PER_MS);

	for (;;) {
		void *given = NULL;
		int64_t ready;

		until_readable();
		ready = next_of(&given);
		if (ready >= 0) {
			cr_assert_eq(given, handle);
			cr_assert_eq(ready, bits, "%#lx", ready);
			return;
		}
		cr_assert_eq(ready, IPC_EAGAIN);
		cr_assert_lt(clock_now_ns(), limit);
	}
}

/* Nothing is ready, and what earlier calls have told comes no more. */
static inline void until_quiet(void)
{
	/* An answer: the broker has done what came before. */
	(void)exists("none");
	do
		ASSERT_NOTHING();
	while (is_readable(the_fd()));
}

/* ---- another process ---- */

/* Opens a producer of the watch `arg` by a client of its own and says the result; then publishes
 * each time it hears something else than 0, and says that result. */
static inline void publish_when_told(struct actor *self, void *arg)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_watch_producer *producer;

	actor_say(self,
		  ipc_watch_producer_open_wait(&producer, own, arg,
					       IPC_WATCH_OPTIONS(.flags = IPC_CREATE), &deadline));
	while (actor_hear(self) != 0)
		actor_say(self, ipc_watch_publish(producer, "value", 6));
	ipc_watch_producer_close(producer);
	ipc_client_unref(own);
}

static inline void publisher_start(struct actor *actor, const char *name)
{
	actor_start(actor, publish_when_told, (void *)(uintptr_t)name);
	cr_assert_eq(actor_hear(actor), 0);
}

static inline void publisher_publish(struct actor *actor)
{
	actor_say(actor, 1);
	cr_assert_eq(actor_hear(actor), 0);
}

static inline void publisher_end(struct actor *actor)
{
	actor_say(actor, 0);
	cr_assert_eq(actor_join(actor), 0);
}

#endif
