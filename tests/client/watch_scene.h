/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_WATCH_SCENE_H
#define TESTS_CLIENT_WATCH_SCENE_H

/*
 * What the tests of `watch` through the public interface share: a private domain with one client,
 * values that show when they are torn, and other processes that take orders.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"

#define NAME "watch/test"

static struct domain domain;
static struct leaks leaks;
static ipc_client *client;

static inline void setup(void)
{
	leaks_begin(&leaks);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
}

static inline void teardown(void)
{
	client = ipc_client_unref(client);
	domain_stop(&domain);
	leaks_check(&leaks);
}

#define SCENE .init = setup, .fini = teardown, .timeout = 60

/* ---- values: eight words, all the same ---- */

struct payload {
	uint64_t word[8];
};

static inline struct payload value_of(uint64_t number)
{
	struct payload value;

	for (unsigned i = 0; i < 8; ++i)
		value.word[i] = number;
	return value;
}

/* The number, or -1: torn. */
static inline int64_t number_of(const struct payload *value)
{
	for (unsigned i = 1; i < 8; ++i)
		if (value->word[i] != value->word[0])
			return -1;

	return (int64_t)value->word[0];
}

static inline int publish(ipc_watch_producer *producer, uint64_t number)
{
	struct payload value = value_of(number);

	return ipc_watch_publish(producer, &value, sizeof(value));
}

/* ---- opening, in this process ---- */

static inline ipc_watch_producer *open_producer(ipc_client *by, uint64_t flags)
{
	struct timespec deadline = domain_deadline(30000);
	ipc_watch_producer *producer = NULL;
	int r = ipc_watch_producer_open_wait(&producer, by, NAME, IPC_WATCH_OPTIONS(.flags = flags),
					     &deadline);

	cr_assert_eq(r, 0, "open: %s", ipc_error_name(r));
	return producer;
}

static inline ipc_watch_consumer *open_consumer(ipc_client *by, uint64_t flags)
{
	struct timespec deadline = domain_deadline(30000);
	ipc_watch_consumer *consumer = NULL;
	int r = ipc_watch_consumer_open_wait(&consumer, by, NAME, IPC_WATCH_OPTIONS(.flags = flags),
					     &deadline);

	cr_assert_eq(r, 0, "open: %s", ipc_error_name(r));
	return consumer;
}

/* What a consumer reads now: the number, or the (negative) result, or -1000000: torn. */
static inline int64_t number_now(ipc_watch_consumer *consumer, uint64_t *ret_version)
{
	struct payload value;
	size_t size = 0;
	int r = ipc_watch_read(consumer, &value, sizeof(value), &size, ret_version);

	if (r < 0)
		return r;
	return size == sizeof(value) && number_of(&value) >= 0 ? number_of(&value) : -1000000;
}

/* ---- other processes ---- */

enum order {
	PUBLISH,
	PUBLISH_WAIT,
	EDIT,
	EDIT_TO,
	COMMIT,
	ABORT,
	SHUTDOWN, /* producers; EDIT_TO: fill what is edited with the number */
	READ_WAIT,
	READ_NEXT, /* consumers */
	PEERS,
	PEERS_WAIT,
	CANCEL,
	CLOSE,
	QUIT,
	EXIT /* both; EXIT: without close */
};

struct part {
	enum ipc_role role; /* IPC_ROLE_WATCH_PRODUCER or _CONSUMER */
	uint64_t flags, client_flags;
};

struct answer {
	int64_t result, version, number;
};

static inline int64_t part_produce(ipc_watch_producer *producer, enum order order, uint64_t number,
				   void **edited)
{
	struct payload value = value_of(number);
	size_t size, size_max;

	switch (order) {
	case PUBLISH:
		return ipc_watch_publish(producer, &value, sizeof(value));
	case PUBLISH_WAIT:
		return ipc_watch_publish_wait(producer, &value, sizeof(value), NULL);
	case EDIT:
		return ipc_watch_edit_wait(producer, edited, &size, &size_max, NULL);
	case EDIT_TO:
		memcpy(*edited, &value, sizeof(value));
		return 0;
	case COMMIT:
		return ipc_watch_commit(producer, sizeof(value));
	case ABORT:
		return ipc_watch_abort(producer);
	case SHUTDOWN:
		return ipc_watch_shutdown(producer);
	case PEERS:
		return ipc_watch_producer_peers(producer);
	case PEERS_WAIT:
		return ipc_watch_producer_peers_wait(producer, number != 0, NULL);
	case CANCEL:
		return ipc_watch_producer_cancel(producer);
	case CLOSE:
		(void)ipc_watch_producer_close(producer);
		return 0;
	case READ_WAIT:
	case READ_NEXT:
	case QUIT:
	case EXIT:
		break;
	}
	return IPC_EINVAL;
}

static inline int64_t part_consume(ipc_watch_consumer *consumer, enum order order, uint64_t number,
				   struct answer *answer)
{
	struct payload value = value_of(0);
	uint64_t version = (uint64_t)answer->version;
	size_t size = 0;
	int r = IPC_EINVAL;

	switch (order) {
	case READ_WAIT:
		r = ipc_watch_read_wait(consumer, &value, sizeof(value), &size, &version, NULL);
		break;
	case READ_NEXT:
		r = ipc_watch_read_next(consumer, &value, sizeof(value), &size, &version);
		break;
	case PEERS:
		return ipc_watch_consumer_peers(consumer);
	case PEERS_WAIT:
		return ipc_watch_consumer_peers_wait(consumer, number != 0, NULL);
	case CANCEL:
		return ipc_watch_consumer_cancel(consumer);
	case CLOSE:
		(void)ipc_watch_consumer_close(consumer);
		return 0;
	case PUBLISH:
	case PUBLISH_WAIT:
	case EDIT:
	case EDIT_TO:
	case COMMIT:
	case ABORT:
	case SHUTDOWN:
	case QUIT:
	case EXIT:
		return IPC_EINVAL;
	}

	if (r == 0) {
		answer->version = (int64_t)version;
		answer->number = size == sizeof(value) ? number_of(&value) : -1;
	}
	return r;
}

static inline void part_play(struct actor *self, void *arg)
{
	const struct part *part = arg;
	struct timespec deadline = domain_deadline(30000);
	ipc_watch_producer *producer = NULL;
	ipc_watch_consumer *consumer = NULL;
	struct answer answer = {0};
	void *edited = NULL;
	ipc_client *own;
	int r;

	r = ipc_client_connect_wait(
		&own, IPC_CLIENT_OPTIONS(.address = domain.address, .flags = part->client_flags),
		&deadline);
	if (r == 0 && part->role == IPC_ROLE_WATCH_PRODUCER)
		r = ipc_watch_producer_open_wait(
			&producer, own, NAME, IPC_WATCH_OPTIONS(.flags = part->flags), &deadline);
	else if (r == 0)
		r = ipc_watch_consumer_open_wait(
			&consumer, own, NAME, IPC_WATCH_OPTIONS(.flags = part->flags), &deadline);
	actor_say(self, r);
	if (r < 0)
		_exit(1);

	for (;;) {
		enum order order = (enum order)actor_hear(self);
		uint64_t number = (uint64_t)actor_hear(self);

		if (order == EXIT)
			exit(0);
		if (order == QUIT)
			break;
		answer.result = producer ? part_produce(producer, order, number, &edited)
					 : part_consume(consumer, order, number, &answer);
		if (order == CLOSE) {
			actor_say(self, 0);
			actor_say(self, 0);
			actor_say(self, 0);
			(void)actor_hear(self);
			break;
		}
		actor_say(self, answer.result);
		actor_say(self, answer.version);
		actor_say(self, answer.number);
	}
	(void)ipc_client_unref(own);
	_exit(0);
}

static inline void part_start(struct actor *actor, enum ipc_role role, uint64_t flags)
{
	static struct part part; /* the child has its own copy */

	part = (struct part){.role = role, .flags = flags};
	actor_start(actor, part_play, &part);
	cr_assert_eq(actor_hear(actor), 0);
}

/* Begins; the answer comes when it is over. */
static inline void part_begin(struct actor *actor, enum order order, uint64_t number)
{
	actor_say(actor, order);
	actor_say(actor, (int64_t)number);
}

static inline struct answer part_answer(struct actor *actor)
{
	struct answer answer;

	answer.result = actor_hear(actor);
	answer.version = actor_hear(actor);
	answer.number = actor_hear(actor);
	return answer;
}

static inline int64_t part_do(struct actor *actor, enum order order, uint64_t number)
{
	part_begin(actor, order, number);
	return part_answer(actor).result;
}

/* Begins a wait and returns when the process really sleeps in it. */
static inline void part_begin_to_sleep(struct actor *actor, enum order order, uint64_t number)
{
	part_begin(actor, order, number);
	actor_until_asleep(actor);
}

#endif
