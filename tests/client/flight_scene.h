/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_FLIGHT_SCENE_H
#define TESTS_CLIENT_FLIGHT_SCENE_H

/*
 * What the tests of the kind `flight` through the public interface share: a table with short forms
 * of the calls, and other processes that do with a table or a handler of theirs what they are told,
 * one order at a time.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/fixture.h"
#include "tests/support/process.h"

#define NAME "test/flight"

/* Keys of these tests are small numbers, and so are results. */
#define KEYS_MAX_HERE 8

static inline int table_open(ipc_flight_table **ret, ipc_client *by, const char *name,
			     struct ipc_flight_table_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_flight_table_open_wait(ret, by, name, &options, &deadline);
}

static inline int handler_open(ipc_handler **ret, ipc_client *by, const char *name,
			       struct ipc_flight_table_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_handler_open_wait(ret, by, name, &options, &deadline);
}

static inline ipc_flight_table *table_new_with(struct ipc_flight_table_options options)
{
	ipc_flight_table *table = NULL;

	options.flags |= IPC_CREATE;
	cr_assert_eq(table_open(&table, fixture_client, NAME, options), 0);
	return table;
}

#define TABLE_NEW(...) table_new_with((struct ipc_flight_table_options){__VA_ARGS__})

static inline ipc_handler *handler_new(uint64_t flags)
{
	ipc_handler *handler = NULL;

	cr_assert_eq(handler_open(&handler, fixture_client, NAME,
				  (struct ipc_flight_table_options){.flags = flags | IPC_CREATE}),
		     0);
	return handler;
}

/* ---- short forms; nothing here asserts ---- */

static inline int join(ipc_flight **ret, ipc_flight_table *table, uint32_t key)
{
	return ipc_flight_join(ret, table, &key, sizeof(key));
}

static inline int join_in(ipc_flight **ret, ipc_flight_table *table, uint32_t key, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_flight_join_wait(ret, table, &key, sizeof(key), &deadline);
}

static inline int ask(ipc_flight **ret, ipc_flight_table *table, uint32_t key, uint32_t urgency)
{
	return ipc_flight_ask(ret, table, &key, sizeof(key), urgency);
}

static inline int ask_in(ipc_flight **ret, ipc_flight_table *table, uint32_t key, uint32_t urgency,
			 unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_flight_ask_wait(ret, table, &key, sizeof(key), urgency, &deadline);
}

static inline int look_in(ipc_flight *flight, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_flight_look_wait(flight, &deadline);
}

static inline int take_in(ipc_flight **ret, ipc_handler *handler, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_handler_take_wait(ret, handler, &deadline);
}

static inline int land(ipc_flight *flight, uint32_t number)
{
	return ipc_flight_land(flight, &number, sizeof(number));
}

/* The key, or a negative result. */
static inline int64_t key_of(const ipc_flight *flight)
{
	const void *key = NULL;
	uint32_t number;
	size_t size;
	int r;

	r = ipc_flight_get_key(flight, &key, &size);
	if (r < 0)
		return r;
	if (size != sizeof(number))
		return IPC_EPROTO;
	memcpy(&number, key, sizeof(number));
	return number;
}

/* What the flight came to: the number that was landed, -1000 - failure, or a negative result. */
static inline int64_t result_of(const ipc_flight *flight)
{
	struct ipc_flight_result result;
	uint32_t number;
	int r;

	r = ipc_flight_get_result(flight, &result);
	if (r < 0)
		return r;
	if (result.failure != IPC_FAILURE_NONE)
		return -1000 - (int)result.failure;
	if (result.size != sizeof(number))
		return IPC_EPROTO;
	memcpy(&number, result.data, sizeof(number));
	return number;
}

#define FAILED_WITH(failure) (-1000 - (int)(failure))

/* 0: not finished. */
static inline uint32_t epoch_of(const ipc_flight *flight)
{
	struct ipc_flight_result result;

	return ipc_flight_get_result(flight, &result) == 0 ? result.epoch : 0;
}

/* Says when it has landed. */
static inline void land_and_leave(ipc_flight *flight, uint32_t number)
{
	cr_assert_eq(land(flight, number), 0);
	ipc_flight_leave(flight);
}

/* ---- members: processes with a table or a handler ---- */

/* An order is {order, key, number}; the answer is the call's result unless it says otherwise. */
enum order {
	ORDER_JOIN,
	ORDER_JOIN_WAIT,
	ORDER_ASK,
	ORDER_ASK_WAIT, /* number: urgency */
	ORDER_LOOK,
	ORDER_LOOK_WAIT,
	ORDER_TAKE,      /* answers the key */
	ORDER_TAKE_WAIT, /* answers the key */
	ORDER_LAND,      /* number */
	ORDER_FAIL,      /* number: class */
	ORDER_RESULT,    /* result_of() */
	ORDER_EPOCH,
	ORDER_FENCE,
	ORDER_LEAVE, /* 0 */
	ORDER_COUNT,
	ORDER_ID,        /* of the table */
	ORDER_CLOSE,     /* 0 */
	ORDER_CLOSE_FDS, /* all descriptors but the one to the test; 0 */
	ORDER_EXEC,      /* another program instead, without a word */
	ORDER_END,       /* exit without close, without a word */
};

struct member {
	enum ipc_role role;
	struct ipc_flight_table_options options;
	ipc_client *client;
	ipc_flight_table *table;
	ipc_handler *handler;
	ipc_flight *part[KEYS_MAX_HERE]; /* one of each key */
};

static inline void close_fds_but(int fd)
{
	closefrom(fd + 1);
	for (int i = 3; i < fd; ++i)
		close(i);
}

static inline int64_t member_take(struct member *self, bool waits)
{
	ipc_flight *flight;
	int64_t key;
	int r;

	r = waits ? ipc_handler_take_wait(&flight, self->handler, NULL)
		  : ipc_handler_take(&flight, self->handler);
	if (r < 0)
		return r;
	key = key_of(flight);
	if (key >= 0 && key < KEYS_MAX_HERE)
		self->part[key] = flight;
	return key;
}

static inline int64_t member_fence(const ipc_flight *flight)
{
	uint64_t fence;
	int r = ipc_flight_get_fence(flight, &fence);

	return r < 0 ? r : (int64_t)fence;
}

static inline int64_t member_id(const struct member *self)
{
	uint64_t id;
	int r = ipc_flight_table_get_id(self->table, &id);

	return r < 0 ? r : (int64_t)id;
}

static inline int64_t member_do(struct member *self, enum order order, uint32_t key,
				uint32_t number, int fd)
{
	ipc_flight **part = &self->part[key];

	switch (order) {
	case ORDER_JOIN:
		return join(part, self->table, key);
	case ORDER_JOIN_WAIT:
		return ipc_flight_join_wait(part, self->table, &key, sizeof(key), NULL);
	case ORDER_ASK:
		return ask(part, self->table, key, number);
	case ORDER_ASK_WAIT:
		return ipc_flight_ask_wait(part, self->table, &key, sizeof(key), number, NULL);
	case ORDER_LOOK:
		return ipc_flight_look(*part);
	case ORDER_LOOK_WAIT:
		return ipc_flight_look_wait(*part, NULL);
	case ORDER_TAKE:
		return member_take(self, false);
	case ORDER_TAKE_WAIT:
		return member_take(self, true);
	case ORDER_LAND:
		return land(*part, number);
	case ORDER_FAIL:
		return ipc_flight_fail(*part, (enum ipc_failure)number, -7, "why", 3);
	case ORDER_RESULT:
		return result_of(*part);
	case ORDER_EPOCH:
		return epoch_of(*part);
	case ORDER_FENCE:
		return member_fence(*part);
	case ORDER_LEAVE:
		*part = ipc_flight_leave(*part);
		return 0;
	case ORDER_COUNT:
		return ipc_flight_table_count(self->table);
	case ORDER_ID:
		return member_id(self);
	case ORDER_CLOSE:
		self->table = ipc_flight_table_close(self->table);
		self->handler = ipc_handler_close(self->handler);
		return 0;
	case ORDER_CLOSE_FDS:
		close_fds_but(fd);
		return 0;
	case ORDER_EXEC:
		execlp("sleep", "sleep", "1000", (char *)NULL);
		break;
	case ORDER_END:
		_exit(0);
	}
	return -1;
}

static inline void member_run(struct actor *actor, void *arg)
{
	struct member self = *(const struct member *)arg;
	int r;

	self.client = domain_connect(&fixture_domain);
	r = self.role == IPC_ROLE_HANDLER
		    ? handler_open(&self.handler, self.client, NAME, self.options)
		    : table_open(&self.table, self.client, NAME, self.options);
	actor_say(actor, r);

	for (;;) {
		uint64_t word = (uint64_t)actor_hear(actor);

		actor_say(actor, member_do(&self, (enum order)(word & 0xff), word >> 8 & 0xff,
					   (uint32_t)(word >> 16), actor->fd));
	}
}

static inline void member_start(struct actor *actor, enum ipc_role role, uint64_t flags)
{
	struct member member = {.role = role, .options = {.flags = flags | IPC_CREATE}};

	actor_start(actor, member_run, &member);
	cr_assert_eq(actor_hear(actor), 0);
}

static inline void caller_start(struct actor *actor)
{
	member_start(actor, IPC_ROLE_FLIGHT_TABLE, 0);
}

static inline void order_say(struct actor *actor, enum order order, uint32_t key, uint32_t number)
{
	actor_say(actor, (int64_t)((uint64_t)order | (uint64_t)key << 8 | (uint64_t)number << 16));
}

static inline int64_t order_do(struct actor *actor, enum order order, uint32_t key, uint32_t number)
{
	order_say(actor, order, key, number);
	return actor_hear(actor);
}

/* Returns when it sleeps. */
static inline void order_begin(struct actor *actor, enum order order, uint32_t key, uint32_t number)
{
	order_say(actor, order, key, number);
	actor_until_asleep(actor);
}

/* ---- comparisons that say what came instead ---- */

#define EXPECT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t got_ = (int64_t)(call), wanted_ = (int64_t)(wanted);                       \
		cr_expect_eq(got_, wanted_, "%s: %lld (%s), not %lld", #call, (long long)got_,     \
			     got_ > -200 && got_ < 0 ? ipc_error_name((int)got_) : "",             \
			     (long long)wanted_);                                                  \
	} while (0)

#define ASSERT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t got_ = (int64_t)(call), wanted_ = (int64_t)(wanted);                       \
		cr_assert_eq(got_, wanted_, "%s: %lld (%s), not %lld", #call, (long long)got_,     \
			     got_ > -200 && got_ < 0 ? ipc_error_name((int)got_) : "",             \
			     (long long)wanted_);                                                  \
	} while (0)

#endif
