/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_QUEUE_SCENE_H
#define TESTS_CLIENT_QUEUE_SCENE_H

/*
 * What the tests of the kind `queue` through the public interface share: short forms of the calls,
 * where items are numbers, and other processes that do with handles of theirs what they are told,
 * one order at a time.
 */

#include <criterion/criterion.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/platform/clock.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"

#define NAME      "test/queue"
#define DEAD      "test/dead"
#define OTHER_UID 61001 /* nobody's */

/* ---- opening ---- */

static inline int producer_open(ipc_queue_producer **ret, ipc_client *by, const char *name,
				struct ipc_queue_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_queue_producer_open_wait(ret, by, name, &options, &deadline);
}

static inline int consumer_open(ipc_queue_consumer **ret, ipc_client *by, const char *name,
				struct ipc_queue_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_queue_consumer_open_wait(ret, by, name, &options, &deadline);
}

static inline ipc_queue_producer *queue_producer_new(const char *name,
						     struct ipc_queue_options options)
{
	ipc_queue_producer *producer = NULL;
	int r;

	options.flags |= IPC_CREATE;
	r = producer_open(&producer, fixture_client, name, options);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return producer;
}

static inline ipc_queue_consumer *queue_consumer_new(const char *name,
						     struct ipc_queue_options options)
{
	ipc_queue_consumer *consumer = NULL;
	int r;

	options.flags |= IPC_CREATE;
	r = consumer_open(&consumer, fixture_client, name, options);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return consumer;
}

#define PRODUCER_NEW(...) queue_producer_new(NAME, (struct ipc_queue_options){__VA_ARGS__})
#define CONSUMER_NEW(...) queue_consumer_new(NAME, (struct ipc_queue_options){__VA_ARGS__})

/* ---- short forms; nothing here asserts ---- */

static inline int push(ipc_queue_producer *producer, unsigned priority, uint32_t number)
{
	return ipc_queue_push(producer, priority, &number, sizeof(number), IPC_FULL_FAIL);
}

static inline int push_or(ipc_queue_producer *producer, unsigned priority, uint32_t number,
			  enum ipc_full_policy policy)
{
	return ipc_queue_push(producer, priority, &number, sizeof(number), policy);
}

static inline int push_in(ipc_queue_producer *producer, unsigned priority, uint32_t number,
			  unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_queue_push_wait(producer, priority, &number, sizeof(number), &deadline);
}

/* IPC_EPROTO: an item that no test of these has pushed. */
static inline int64_t number_of(const struct ipc_queue_item *item)
{
	uint32_t number;

	if (item->size != sizeof(number) || !item->data)
		return IPC_EPROTO;
	memcpy(&number, item->data, sizeof(number));
	return number;
}

/* The number, of a lease. */
static inline int64_t take(ipc_queue_consumer *consumer, struct ipc_queue_item *ret)
{
	int r = ipc_queue_take(consumer, ret);

	return r < 0 ? r : number_of(ret);
}

static inline int64_t take_in(ipc_queue_consumer *consumer, struct ipc_queue_item *ret, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);
	int r = ipc_queue_take_wait(consumer, ret, &deadline);

	return r < 0 ? r : number_of(ret);
}

/* The number, acknowledged. */
static inline int64_t eat(ipc_queue_consumer *consumer)
{
	struct ipc_queue_item item;
	int64_t number = take(consumer, &item);
	int r;

	if (number < 0)
		return number;
	r = ipc_queue_ack(consumer, &item);
	return r < 0 ? r : number;
}

static inline int64_t eat_in(ipc_queue_consumer *consumer, unsigned ms)
{
	struct ipc_queue_item item;
	int64_t number = take_in(consumer, &item, ms);
	int r;

	if (number < 0)
		return number;
	r = ipc_queue_ack(consumer, &item);
	return r < 0 ? r : number;
}

static inline struct ipc_queue_state state_of(ipc_queue_producer *producer)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	int r = ipc_queue_producer_get_state(producer, &state);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return state;
}

static inline struct ipc_queue_state state_at(ipc_queue_consumer *consumer)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	int r = ipc_queue_consumer_get_state(consumer, &state);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return state;
}

/* how many of a priority are missing in the sums. */
static inline int64_t state_missing(const struct ipc_queue_state *state, unsigned priority)
{
	uint64_t ended = 0;

	for (unsigned i = 0; i < IPC_DEAD_REASONS_MAX; ++i)
		if (i != IPC_DEAD_FULL)
			ended += state->dead_lettered[priority][i] + state->dropped[priority][i];

	return (int64_t)(state->queued[priority] - state->acknowledged[priority] -
			 state->items[priority] - state->leased[priority] - ended);
}

/* A look at one handle: what is ready, or the (negative) result. */
static inline int64_t look(void *handle, uint32_t events)
{
	struct ipc_wait_item item = {.handle = handle, .events = events};
	int r = ipc_wait_any(&item, 1, &past);

	return r < 0 ? r : (int64_t)item.ready;
}

/* ---- members: processes with handles of a queue ---- */

/* An order is {order, a, b}; the answer is the call's result unless it says otherwise. */
enum order {
	ORDER_PUSH,      /* priority, number */
	ORDER_PUSH_WAIT, /* priority, number */
	ORDER_CLAIM,     /* priority, number: filled in */
	ORDER_CLAIM_WAIT,
	ORDER_COMMIT,
	ORDER_COMMIT_WAIT,
	ORDER_TAKE,      /* answers the number; the n-th taken is lease n, from 0 */
	ORDER_TAKE_WAIT, /* as that */
	ORDER_ACK,       /* lease */
	ORDER_REQUEUE,   /* lease */
	ORDER_REJECT,    /* lease */
	ORDER_ATTEMPT,   /* lease: its attempt */
	ORDER_ACK_THAT,  /* the number of a lease of another handle */
	ORDER_SHUTDOWN,
	ORDER_WAIT_ANY, /* events: what is ready */
	ORDER_ID,       /* of the producer, else the consumer */
	ORDER_CLOSE,    /* 0 */
	ORDER_CLOSE_FDS /* as a daemon does that was told nothing; 0 */
};

enum { LEASES_HERE = 64 };

struct member {
	const char *name;
	uid_t uid; /* 0: as it is */
	enum ipc_role role;
	struct ipc_queue_options options;
	ipc_queue_producer *producer;
	ipc_queue_consumer *consumer;
	struct ipc_queue_item item[LEASES_HERE];
	unsigned n_items;
	void *claim;
};

static inline int64_t member_take(struct member *self, bool waits)
{
	struct ipc_queue_item *item = &self->item[self->n_items % LEASES_HERE];
	int r = waits ? ipc_queue_take_wait(self->consumer, item, NULL)
		      : ipc_queue_take(self->consumer, item);

	if (r < 0)
		return r;
	++self->n_items;
	return number_of(item);
}

static inline int64_t member_claim(struct member *self, unsigned priority, uint32_t number,
				   bool waits)
{
	int r = waits ? ipc_queue_claim_wait(self->producer, priority, sizeof(number), &self->claim,
					     NULL)
		      : ipc_queue_claim(self->producer, priority, sizeof(number), &self->claim);

	if (r == 0)
		memcpy(self->claim, &number, sizeof(number));
	return r;
}

static inline int64_t member_id(const struct member *self)
{
	uint64_t id;
	int r = self->producer ? ipc_queue_producer_get_id(self->producer, &id)
			       : ipc_queue_consumer_get_id(self->consumer, &id);

	return r < 0 ? r : (int64_t)id;
}

static inline int64_t member_wait_any(const struct member *self, uint32_t events)
{
	struct ipc_wait_item item = {.handle = self->producer ? (void *)self->producer
							      : (void *)self->consumer,
				     .events = events};
	int r = ipc_wait_any(&item, 1, NULL);

	return r < 0 ? r : (int64_t)item.ready;
}

static inline int64_t member_close_fds(int fd)
{
	closefrom(fd + 1);
	for (int i = 3; i < fd; ++i)
		close(i);
	return 0;
}

static inline int64_t member_do(struct member *self, enum order order, int64_t a, int64_t b, int fd)
{
	const struct ipc_queue_item *item = &self->item[(uint64_t)a % LEASES_HERE];
	struct ipc_queue_item that = {.lease = (uint64_t)a};
	uint32_t number = (uint32_t)b;
	unsigned priority = (unsigned)a;

	switch (order) {
	case ORDER_PUSH:
		return push(self->producer, priority, number);
	case ORDER_PUSH_WAIT:
		return ipc_queue_push_wait(self->producer, priority, &number, sizeof(number), NULL);
	case ORDER_CLAIM:
		return member_claim(self, priority, number, false);
	case ORDER_CLAIM_WAIT:
		return member_claim(self, priority, number, true);
	case ORDER_COMMIT:
		return ipc_queue_commit(self->producer, self->claim, sizeof(number));
	case ORDER_COMMIT_WAIT:
		return ipc_queue_commit_wait(self->producer, self->claim, sizeof(number), NULL);
	case ORDER_TAKE:
		return member_take(self, false);
	case ORDER_TAKE_WAIT:
		return member_take(self, true);
	case ORDER_ACK:
		return ipc_queue_ack(self->consumer, item);
	case ORDER_REQUEUE:
		return ipc_queue_requeue(self->consumer, item);
	case ORDER_REJECT:
		return ipc_queue_reject(self->consumer, item);
	case ORDER_ATTEMPT:
		return item->attempt;
	case ORDER_ACK_THAT:
		return ipc_queue_ack(self->consumer, &that);
	case ORDER_SHUTDOWN:
		return ipc_queue_shutdown(self->consumer);
	case ORDER_WAIT_ANY:
		return member_wait_any(self, (uint32_t)a);
	case ORDER_ID:
		return member_id(self);
	case ORDER_CLOSE:
		self->producer = ipc_queue_producer_close(self->producer);
		self->consumer = ipc_queue_consumer_close(self->consumer);
		return 0;
	case ORDER_CLOSE_FDS:
		return member_close_fds(fd);
	}
	return INT64_MIN;
}

static inline void member_become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)
		process_end(2);

	/* The kernel forgets it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static inline void member_run(struct actor *actor, void *arg)
{
	static struct member self;
	ipc_client *own;

	self = *(const struct member *)arg;
	if (self.uid)
		member_become(self.uid);
	own = domain_connect(&fixture_domain);
	actor_say(actor, self.role == IPC_ROLE_QUEUE_PRODUCER
				 ? producer_open(&self.producer, own, self.name, self.options)
				 : consumer_open(&self.consumer, own, self.name, self.options));
	for (;;) {
		enum order order = (enum order)actor_hear(actor);
		int64_t a = actor_hear(actor), b = actor_hear(actor);

		actor_say(actor, member_do(&self, order, a, b, actor->fd));
	}
}

/* What its open says. */
static inline int64_t member_try(struct actor *actor, struct member member)
{
	if (!member.name)
		member.name = NAME;
	actor_start(actor, member_run, &member);
	return actor_hear(actor);
}

static inline void member_start(struct actor *actor, struct member member)
{
	int64_t r = member_try(actor, member);

	cr_assert_eq(r, 0, "%s", ipc_error_name((int)r));
}

/* With options of struct ipc_queue_options; of the queue NAME. */
#define PRODUCER_START(actor, ...)                                                                 \
	member_start(actor,                                                                        \
		     (struct member){.role = IPC_ROLE_QUEUE_PRODUCER, .options = {__VA_ARGS__}})
#define CONSUMER_START(actor, ...)                                                                 \
	member_start(actor,                                                                        \
		     (struct member){.role = IPC_ROLE_QUEUE_CONSUMER, .options = {__VA_ARGS__}})

static inline void order_begin(struct actor *actor, enum order order, int64_t a, int64_t b)
{
	actor_say(actor, order);
	actor_say(actor, a);
	actor_say(actor, b);
}

static inline int64_t order_do(struct actor *actor, enum order order, int64_t a, int64_t b)
{
	order_begin(actor, order, a, b);
	return actor_hear(actor);
}

static inline void order_sleep(struct actor *actor, enum order order, int64_t a, int64_t b)
{
	order_begin(actor, order, a, b);
	actor_until_asleep(actor);
}

/* The end of a member by its death, or by its close; told when it returns. */
static inline void member_end(struct actor *actor, bool dies)
{
	uint64_t id = (uint64_t)order_do(actor, ORDER_ID, 0, 0);

	if (dies)
		actor_kill(actor);
	else
		cr_assert_eq(order_do(actor, ORDER_CLOSE, 0, 0), 0);
	until_not_alive(id);
	if (!dies)
		actor_kill(actor);
}

#define EXPECT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t expect_r = (int64_t)(call);                                                \
                                                                                                   \
		cr_expect(expect_r == (int64_t)(wanted), "%s is %ld (%s), not " #wanted, #call,    \
			  (long)expect_r, ipc_error_name((int)expect_r));                          \
	} while (0)

#define ASSERT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t assert_r = (int64_t)(call);                                                \
                                                                                                   \
		cr_assert(assert_r == (int64_t)(wanted), "%s is %ld (%s), not " #wanted, #call,    \
			  (long)assert_r, ipc_error_name((int)assert_r));                          \
	} while (0)

#endif
