/* SPDX-License-Identifier: MIT */

/*
 * What every kind of channel has in common, through the public interface: names, ids, options,
 * opening, ends, infos, removal, memory.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h> /* M-47: goes together with ours */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "libipc/client/endpoint.h"
#include "libipc/platform/lock.h"
#include "libipc/wire/codec.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

#define WAIT_MS 10000

static struct leaks leaks;
static struct domain domain;
static ipc_client *client;

static void setup(void)
{
	leaks_begin(&leaks);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
}

static void teardown(void)
{
	ipc_client_unref(client);
	domain_stop(&domain);
	leaks_check(&leaks);
}

TestSuite(model, .init = setup, .fini = teardown, .timeout = 60);

/* ---- short forms ---- */

static const struct timespec past = {0, 0};

static int produce(ipc_watch_producer **ret, const char *name, uint64_t flags)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_watch_producer_open_wait(ret, client, name, IPC_WATCH_OPTIONS(.flags = flags),
					    &deadline);
}

static int consume(ipc_watch_consumer **ret, const char *name, uint64_t flags)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_watch_consumer_open_wait(ret, client, name, IPC_WATCH_OPTIONS(.flags = flags),
					    &deadline);
}

static int share(ipc_shared **ret, const char *name, enum ipc_side side, uint64_t flags)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_shared_open_wait(ret, client, name, side, IPC_SHARED_OPTIONS(.flags = flags),
				    &deadline);
}

static ipc_watch_producer *producer_new(const char *name)
{
	ipc_watch_producer *producer = NULL;

	cr_assert_eq(produce(&producer, name, IPC_CREATE), 0);
	return producer;
}

static ipc_shared *shared_new(const char *name, enum ipc_side side)
{
	ipc_shared *shared = NULL;

	cr_assert_eq(share(&shared, name, side, IPC_CREATE), 0);
	return shared;
}

static int info_of(const char *name, struct ipc_channel_info *ret)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	*ret = (struct ipc_channel_info){.size = sizeof(*ret)};
	return ipc_channel_info_wait(client, name, ret, &deadline);
}

static bool exists(const char *name)
{
	struct ipc_channel_info info;
	int r = info_of(name, &info);

	cr_assert(r == 0 || r == IPC_ENOENT, "%s", ipc_error_name(r));
	return r == 0;
}

static int take_away(const char *name, uint64_t generation)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_channel_remove_wait(client, name, generation, &deadline);
}

struct seen {
	unsigned n, stop_after;
	int result;
	int inner;
};

static int see(const struct ipc_channel_info *info, void *userdata)
{
	struct seen *seen = userdata;
	struct ipc_channel_info other = {.size = sizeof(other)};

	cr_assert_eq(info->size, sizeof(*info));
	++seen->n;
	seen->inner = ipc_channel_info_wait(client, info->name, &other, NULL);
	return seen->n == seen->stop_after ? seen->result : 0;
}

/* ---- names ---- */

static void expect_name(const char *name, int expected)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	int expected_absent = expected == 0 ? IPC_ENOENT : expected;
	ipc_watch_producer *producer = NULL;
	ipc_watch_consumer *consumer = NULL;
	ipc_shared *shared = NULL;

	cr_assert_eq(ipc_channel_info_wait(client, name, &info, NULL), expected_absent,
		     "info %.300s", name);
	cr_assert_eq(ipc_channel_remove_wait(client, name, 0, NULL), expected_absent,
		     "remove %.300s", name);
	cr_assert_eq(consume(&consumer, name, 0), expected_absent, "consumer %.300s", name);

	cr_assert_eq(produce(&producer, name, IPC_CREATE), expected, "producer %.300s", name);
	ipc_watch_producer_close(producer);

	/* The same name for another kind: the channel of before has ended with its last handle. */
	cr_assert_eq(share(&shared, name, IPC_SIDE_A, IPC_CREATE), expected, "shared %.300s", name);
	ipc_shared_close(shared);
}

/* M-2, M-76 */
Test(model, names_are_1_to_255_legal_bytes)
{
	char name[258];

	expect_name("a", 0);
	expect_name("..", 0);
	expect_name("AZ/az/09/._-", 0);
	memset(name, 'n', sizeof(name));
	name[IPC_NAME_SIZE_MAX] = '\0';
	expect_name(name, 0);

	name[IPC_NAME_SIZE_MAX] = 'n';
	name[IPC_NAME_SIZE_MAX + 1] = '\0';
	expect_name(name, IPC_EINVAL);
	expect_name("", IPC_EINVAL);
	expect_name("/a", IPC_EINVAL);
	expect_name("a b", IPC_EINVAL);
	expect_name("a\n", IPC_EINVAL);
	expect_name("caf\xc3\xa9", IPC_EINVAL);
	expect_name("a*", IPC_EINVAL);
}

/* M-76, M-45 */
Test(model, patterns_have_up_to_255_bytes)
{
	char pattern[258];
	struct seen seen = {0};
	ipc_watch_producer *producer = producer_new("a");

	memset(pattern, '*', sizeof(pattern));
	pattern[IPC_PATTERN_SIZE_MAX] = '\0';
	cr_assert_eq(ipc_client_list_wait(client, pattern, see, &seen, NULL), 0);
	cr_assert_eq(seen.n, 1);
	pattern[IPC_PATTERN_SIZE_MAX] = '*';
	pattern[IPC_PATTERN_SIZE_MAX + 1] = '\0';
	cr_assert_eq(ipc_client_list_wait(client, pattern, see, &seen, NULL), IPC_EINVAL);
	ipc_watch_producer_close(producer);
}

/* M-2: what was fixed at creation is what everybody sees. */
Test(model, a_channel_has_an_owner_rights_and_a_size)
{
	struct ipc_channel_info info;
	ipc_watch_producer *producer;
	ipc_shared *shared;

	cr_assert_eq(
		ipc_watch_producer_open_wait(&producer, client, "a",
					     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 0640,
							       .gid = 12, .value_size_max = 777),
					     NULL),
		0);
	cr_assert_eq(info_of("a", &info), 0);
	cr_assert_str_eq(info.name, "a");
	cr_assert_eq(info.kind, IPC_KIND_WATCH);
	cr_assert_eq(info.uid, getuid());
	cr_assert_eq(info.gid, 12);
	cr_assert_eq(info.mode, 0640);
	cr_assert_eq(info.item_size_max, 777);
	cr_assert_eq(info.capacity, 0);
	cr_assert_geq(info.bytes, 3 * 777);
	cr_assert_eq(info.handles[0], 1);
	cr_assert_eq(info.handles[1], 0);

	cr_assert_eq(
		ipc_shared_open_wait(&shared, client, "b", IPC_SIDE_B,
				     IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_SHARED_IN_PLACE,
							.value_size = 5),
				     NULL),
		0);
	cr_assert_eq(info_of("b", &info), 0);
	cr_assert_eq(info.kind, IPC_KIND_SHARED);
	cr_assert_eq(info.gid, getgid());
	cr_assert_eq(info.mode, 0600);
	cr_assert_eq(info.item_size_max, 5);
	cr_assert(info.flags & IPC_SHARED_IN_PLACE);
	cr_assert_eq(info.handles[0], 0);
	cr_assert_eq(info.handles[1], 1);

	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
}

/* ---- handles ---- */

/* M-3: ids grow, over channels, workers and clients. */
Test(model, handle_ids_are_never_used_again)
{
	uint64_t last = 0, id;

	for (unsigned i = 0; i < 40; ++i) {
		ipc_watch_producer *producer = producer_new("a");

		cr_assert_eq(ipc_watch_producer_get_id(producer, &id), 0);
		cr_assert_gt(id, last);
		last = id;
		ipc_watch_producer_close(producer);

		if (i % 8 == 7)
			domain_kill_worker(&domain);
		if (i % 16 == 15) {
			ipc_client_unref(client);
			client = domain_connect(&domain);
		}
	}
}

static void until_not_alive(uint64_t id)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	int r;

	while ((r = ipc_client_is_alive(client, id)) == 1) {
		cr_assert(!process_has_passed(&deadline), "still alive");
		process_pause();
	}
	cr_assert_eq(r, 0);
}

static void hold_producer(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_producer *producer;
	uint64_t id;

	if (ipc_watch_producer_open_wait(&producer, own, arg, NULL, NULL) < 0 ||
	    ipc_watch_producer_get_id(producer, &id) < 0)
		process_end(1);
	actor_say(self, (int64_t)id);
	(void)actor_hear(self);
}

/* M-3 */
Test(model, is_alive_tells_open_from_closed_dead_and_never)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	struct actor actor;
	uint64_t own, dead;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	cr_assert_eq(ipc_watch_producer_get_id(producer, &own), 0);
	actor_start(&actor, hold_producer, "a");
	dead = (uint64_t)actor_hear(&actor);
	cr_assert_eq(ipc_client_is_alive(client, own), 1);
	cr_assert_eq(ipc_client_is_alive(client, dead), 1);
	cr_assert_eq(ipc_client_is_alive(client, 0), 0);
	cr_assert_eq(ipc_client_is_alive(client, own ^ (UINT64_C(1) << 50)), 0);

	actor_kill(&actor);
	until_not_alive(dead);
	cr_assert_eq(ipc_client_is_alive(client, own), 1);

	ipc_watch_producer_close(producer);
	until_not_alive(own);
	ipc_watch_consumer_close(consumer);
}

/* M-3, M-43: a weak handle is not counted, and keeps nothing. */
Test(model, weak_handles_are_not_counted)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_weak *weak;
	struct ipc_channel_info info;

	cr_assert_eq(ipc_watch_weaken(&weak, producer), 0);
	cr_assert_eq(info_of("a", &info), 0);
	cr_assert_eq(info.handles[0], 1);

	ipc_watch_producer_close(producer);
	cr_assert(!exists("a"));
	ipc_watch_weak_close(weak);
}

/* M-43: the last counted handle of any side. */
Test(model, a_channel_ends_with_its_last_handle_of_any_side)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	ipc_shared *a = shared_new("b", IPC_SIDE_A), *b;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	ipc_watch_producer_close(producer);
	cr_assert(exists("a"));
	ipc_watch_consumer_close(consumer);
	cr_assert(!exists("a"));

	cr_assert_eq(share(&b, "b", IPC_SIDE_B, 0), 0);
	ipc_shared_close(a);
	cr_assert(exists("b"));
	ipc_shared_close(b);
	cr_assert(!exists("b"));
}

/* M-74 */
Test(model, handles_keep_their_client)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_producer *producer = NULL;
	uint64_t id;

	cr_assert_eq(ipc_watch_producer_open_wait(&producer, own, "a",
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);
	cr_assert_null(ipc_client_unref(own));

	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
	cr_assert_eq(ipc_watch_producer_get_id(producer, &id), 0);
	cr_assert_eq(ipc_client_is_alive(client, 0), 0);
	cr_assert(exists("a"));
	cr_assert_null(ipc_watch_producer_close(producer));
	cr_assert_null(ipc_client_unref(NULL));
	cr_assert_null(ipc_watch_producer_close(NULL));
	cr_assert_null(ipc_watch_consumer_close(NULL));
	cr_assert_null(ipc_watch_weak_close(NULL));
	cr_assert_null(ipc_shared_close(NULL));
}

/* M-74: what a call would give is not touched when it fails. */
Test(model, results_are_written_on_success_only)
{
	ipc_watch_producer *producer = (void *)&past;
	ipc_watch_consumer *consumer = (void *)&past;
	ipc_shared *shared = (void *)&past;
	ipc_client *other = (void *)&past;
	struct ipc_channel_info info, before;

	cr_assert_eq(produce(&producer, "none", 0), IPC_ENOENT);
	cr_assert_eq(producer, (void *)&past);
	cr_assert_eq(consume(&consumer, "none", 0), IPC_ENOENT);
	cr_assert_eq(consumer, (void *)&past);
	cr_assert_eq(share(&shared, "none", IPC_SIDE_A, 0), IPC_ENOENT);
	cr_assert_eq(shared, (void *)&past);
	cr_assert_eq(ipc_client_connect_wait(
			     &other, IPC_CLIENT_OPTIONS(.address = "/nowhere/broker"), &past),
		     IPC_ECONNREFUSED);
	cr_assert_eq(other, (void *)&past);

	memset(&info, 0x5a, sizeof(info));
	info.size = sizeof(info);
	before = info;
	cr_assert_eq(ipc_channel_info_wait(client, "none", &info, NULL), IPC_ENOENT);
	cr_assert_eq(memcmp(&info, &before, sizeof(info)), 0);
}

/* ---- options ---- */

static int open_sized(size_t size, unsigned char last)
{
	struct {
		struct ipc_watch_options options;
		unsigned char more[64];
	} given = {.options = {.size = size, .flags = IPC_CREATE}};
	ipc_watch_producer *producer = NULL;
	int r;

	given.more[63] = last;
	r = ipc_watch_producer_open_wait(&producer, client, "a", &given.options, NULL);
	ipc_watch_producer_close(producer);
	return r;
}

/* M-41 */
Test(model, options_may_be_shorter_and_longer)
{
	size_t known = sizeof(struct ipc_watch_options);

	cr_assert_eq(open_sized(known, 0), 0);
	cr_assert_eq(open_sized(offsetof(struct ipc_watch_options, mode), 0), 0, "the head alone");
	cr_assert_eq(open_sized(known + 64, 0), 0, "longer, and zero there");
	cr_assert_eq(open_sized(known + 64, 1), IPC_E2BIG, "longer, and not zero there");
	cr_assert_eq(open_sized(known + 63, 1), 0, "the byte behind its end is not looked at");
	cr_assert_eq(open_sized(sizeof(size_t), 0), IPC_ENOENT, "no flags: not created");
	cr_assert_eq(open_sized(sizeof(size_t) - 1, 0), IPC_EINVAL);
	cr_assert_eq(open_sized(0, 0), IPC_EINVAL);
}

/* M-41: zero, and NULL, mean the default. */
Test(model, zero_means_default_in_every_field)
{
	struct ipc_watch_options watch_options = IPC_WATCH_OPTIONS_INIT;
	struct ipc_shared_options shared_options = IPC_SHARED_OPTIONS_INIT;
	ipc_watch_producer *producer, *second;
	ipc_shared *shared;
	struct ipc_channel_info info;

	watch_options.flags = IPC_CREATE;
	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, "a", &watch_options, NULL), 0);
	cr_assert_eq(info_of("a", &info), 0);
	cr_assert_eq(info.item_size_max, 4096);
	cr_assert_eq(info.mode, 0600);
	cr_assert_eq(info.gid, getgid());

	shared_options.flags = IPC_CREATE;
	cr_assert_eq(ipc_shared_open_wait(&shared, client, "b", IPC_SIDE_A, &shared_options, NULL),
		     0);
	cr_assert_eq(info_of("b", &info), 0);
	cr_assert_eq(info.item_size_max, 4096);

	cr_assert_eq(ipc_watch_producer_open_wait(&second, client, "a", NULL, NULL), 0);
	ipc_watch_producer_close(second);
	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
}

/* M-41, M-47: the flags of <sys/ipc.h> among them. */
Test(model, flags_that_are_not_for_the_role_are_refused)
{
	static const uint64_t bad[] = {
		1,        IPC_CREAT,         IPC_EXCL,          IPC_NOWAIT,
		0x8000,   IPC_KEEP,          IPC_EXCLUSIVE,     IPC_CLIENT_NO_AUTOSTART,
		0x200000, UINT64_C(1) << 32, UINT64_C(1) << 33, UINT64_C(1) << 63};
	ipc_watch_producer *producer = NULL;
	ipc_watch_consumer *consumer = NULL;
	ipc_shared *shared = NULL;
	ipc_client *other = NULL;

	for (size_t i = 0; i < N_ELEMENTS(bad); ++i) {
		uint64_t flags = bad[i] | (bad[i] == IPC_EXCLUSIVE ? 0 : IPC_CREATE);

		cr_assert_eq(produce(&producer, "a", flags), IPC_EINVAL, "producer %zu", i);
		cr_assert_eq(consume(&consumer, "a", flags), IPC_EINVAL, "consumer %zu", i);
		cr_assert_eq(share(&shared, "a", IPC_SIDE_A, flags), IPC_EINVAL, "shared %zu", i);
	}
	cr_assert_eq(produce(&producer, "a", IPC_CREATE | IPC_SHARED_IN_PLACE), IPC_EINVAL);
	cr_assert_eq(ipc_client_connect_wait(
			     &other,
			     IPC_CLIENT_OPTIONS(.flags = IPC_CREATE, .address = domain.address),
			     NULL),
		     IPC_EINVAL);
	cr_assert_eq(
		ipc_client_connect_wait(
			&other, IPC_CLIENT_OPTIONS(.flags = 1, .address = domain.address), NULL),
		IPC_EINVAL);
	cr_assert(!exists("a"));
}

/* M-41, S-12 */
Test(model, modes_and_sides_that_do_not_exist_are_refused)
{
	ipc_watch_producer *producer;
	ipc_shared *shared;

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 0700), NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 04600), NULL),
		     IPC_EINVAL);
	cr_assert_eq(share(&shared, "a", 0, IPC_CREATE), IPC_EINVAL);
	cr_assert_eq(share(&shared, "a", 3, IPC_CREATE), IPC_EINVAL);
}

/* ---- opening ---- */

/* M-43 */
Test(model, create_and_exclusive)
{
	ipc_watch_producer *producer, *second = NULL;

	cr_assert_eq(produce(&producer, "a", 0), IPC_ENOENT);
	cr_assert_eq(produce(&producer, "a", IPC_CREATE | IPC_EXCLUSIVE), 0);
	cr_assert_eq(produce(&second, "a", IPC_CREATE | IPC_EXCLUSIVE), IPC_EEXIST);
	cr_assert_eq(produce(&second, "a", IPC_CREATE | IPC_EXCLUSIVE | IPC_AWAIT), IPC_EEXIST);
	cr_assert_eq(produce(&second, "a", IPC_CREATE), 0);
	ipc_watch_producer_close(second);
	cr_assert_eq(produce(&second, "a", 0), 0);
	ipc_watch_producer_close(second);
	ipc_watch_producer_close(producer);
}

/* M-43: any side creates. */
Test(model, any_side_may_create)
{
	ipc_watch_consumer *consumer;
	ipc_watch_producer *producer;

	cr_assert_eq(consume(&consumer, "a", IPC_CREATE), 0);
	cr_assert_eq(produce(&producer, "a", 0), 0);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

static int open_shape(uint64_t value_size_max, uint32_t consumers_max)
{
	ipc_watch_consumer *consumer = NULL;
	int r = ipc_watch_consumer_open_wait(
		&consumer, client, "a",
		IPC_WATCH_OPTIONS(.value_size_max = value_size_max, .consumers_max = consumers_max),
		NULL);

	ipc_watch_consumer_close(consumer);
	return r;
}

/* M-43 */
Test(model, shapes_fit_or_are_zero)
{
	ipc_watch_producer *producer;
	ipc_shared *shared, *other = NULL;

	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, "a",
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE,
								    .value_size_max = 100,
								    .consumers_max = 7),
						  NULL),
		     0);
	cr_assert_eq(open_shape(100, 7), 0);
	cr_assert_eq(open_shape(0, 7), 0);
	cr_assert_eq(open_shape(100, 0), 0);
	cr_assert_eq(open_shape(101, 0), IPC_EPROTOTYPE);
	cr_assert_eq(open_shape(0, 8), IPC_EPROTOTYPE);
	ipc_watch_producer_close(producer);

	cr_assert_eq(ipc_shared_open_wait(&shared, client, "b", IPC_SIDE_A,
					  IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = 64),
					  NULL),
		     0);
	cr_assert_eq(ipc_shared_open_wait(&other, client, "b", IPC_SIDE_B,
					  IPC_SHARED_OPTIONS(.value_size = 65), NULL),
		     IPC_EPROTOTYPE);
	cr_assert_eq(ipc_shared_open_wait(&other, client, "b", IPC_SIDE_B,
					  IPC_SHARED_OPTIONS(.flags = IPC_SHARED_IN_PLACE), NULL),
		     IPC_EPROTOTYPE);
	cr_assert_eq(ipc_shared_open_wait(&other, client, "b", IPC_SIDE_B,
					  IPC_SHARED_OPTIONS(.value_size = 64), NULL),
		     0);
	ipc_shared_close(other);
	ipc_shared_close(shared);
}

/* M-43 */
Test(model, a_name_belongs_to_one_kind)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_shared *shared;

	cr_assert_eq(share(&shared, "a", IPC_SIDE_A, 0), IPC_EPROTOTYPE);
	cr_assert_eq(share(&shared, "a", IPC_SIDE_A, IPC_CREATE), IPC_EPROTOTYPE);
	ipc_watch_producer_close(producer);
}

static int consume_limited(ipc_watch_consumer **ret, uint64_t flags,
			   const struct timespec *deadline)
{
	return ipc_watch_consumer_open_wait(ret, client, "a", IPC_WATCH_OPTIONS(.flags = flags),
					    deadline);
}

static void await_consumer(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_consumer *consumer;
	int r;

	(void)arg;
	actor_say(self, 0);
	r = ipc_watch_consumer_open_wait(&consumer, own, "a", IPC_WATCH_OPTIONS(.flags = IPC_AWAIT),
					 NULL);
	actor_say(self, r);
	(void)actor_hear(self);
}

/* M-43, M-10: EBUSY at once; with IPC_AWAIT the place is waited for, and given by a close as by a
 * death. */
Test(model, a_role_that_is_taken_is_busy_or_waited_for)
{
	ipc_watch_producer *producer;
	ipc_watch_consumer *first, *second;
	struct timespec soon = domain_deadline(50);
	struct actor actor, other;

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .consumers_max = 1), NULL),
		     0);
	cr_assert_eq(consume_limited(&first, 0, NULL), 0);
	cr_assert_eq(consume_limited(&second, 0, NULL), IPC_EBUSY);
	cr_assert_eq(consume_limited(&second, IPC_AWAIT, &past), IPC_ETIMEDOUT);
	cr_assert_eq(consume_limited(&second, IPC_AWAIT, &soon), IPC_ETIMEDOUT);

	actor_start(&actor, await_consumer, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	ipc_watch_consumer_close(first);
	cr_assert_eq(actor_hear(&actor), 0, "the close gives the place to the waiter");

	actor_start(&other, await_consumer, NULL);
	cr_assert_eq(actor_hear(&other), 0);
	actor_kill(&actor);
	cr_assert_eq(actor_hear(&other), 0, "the death does, too");

	actor_kill(&other);
	ipc_watch_producer_close(producer);
}

/* M-43 */
Test(model, a_name_that_is_not_there_is_waited_for)
{
	ipc_watch_consumer *consumer;
	struct timespec soon = domain_deadline(50);
	ipc_watch_producer *producer;
	struct actor actor;

	cr_assert_eq(consume_limited(&consumer, IPC_AWAIT, &past), IPC_ETIMEDOUT);
	cr_assert_eq(consume_limited(&consumer, IPC_AWAIT, &soon), IPC_ETIMEDOUT);

	actor_start(&actor, await_consumer, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	producer = producer_new("a");
	cr_assert_eq(actor_hear(&actor), 0);
	actor_kill(&actor);
	ipc_watch_producer_close(producer);

	cr_assert_eq(consume_limited(&consumer, IPC_AWAIT | IPC_CREATE, &past), 0,
		     "with both flags the channel is made");
	ipc_watch_consumer_close(consumer);
}

/* M-26, M-43: a waiter that was killed is in nobody's way. */
Test(model, a_dead_waiter_for_a_name_is_forgotten)
{
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	struct actor actor;

	actor_start(&actor, await_consumer, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	actor_kill(&actor);

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .consumers_max = 1), NULL),
		     0);
	cr_assert_eq(consume_limited(&consumer, IPC_AWAIT, NULL), 0);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

static void race_to_create(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_shared *shared;
	int r;

	(void)arg;
	actor_say(self, 0);
	(void)actor_hear(self);
	r = ipc_shared_open_wait(&shared, own, "race", IPC_SIDE_A,
				 IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_EXCLUSIVE), NULL);
	actor_say(self, r);
	(void)actor_hear(self);
}

/* M-43 */
Test(model, exclusive_creation_has_one_winner)
{
	struct actor actors[6];

	for (unsigned round = 0; round < 5; ++round) {
		unsigned n_won = 0, n_lost = 0;

		for (unsigned i = 0; i < 6; ++i)
			actor_start(&actors[i], race_to_create, NULL);
		for (unsigned i = 0; i < 6; ++i)
			(void)actor_hear(&actors[i]);
		for (unsigned i = 0; i < 6; ++i)
			actor_say(&actors[i], 1);
		for (unsigned i = 0; i < 6; ++i) {
			int64_t r = actor_hear(&actors[i]);

			n_won += r == 0;
			n_lost += r == IPC_EEXIST;
		}
		cr_assert_eq(n_won, 1);
		cr_assert_eq(n_lost, 5);
		for (unsigned i = 0; i < 6; ++i)
			actor_kill(&actors[i]);

		/* The broker hears of the deaths by itself. */
		struct timespec deadline = domain_deadline(WAIT_MS);
		while (exists("race")) {
			cr_assert(!process_has_passed(&deadline));
			process_pause();
		}
	}
}

/* ---- infos ---- */

/* M-46 */
Test(model, infos_are_written_as_far_as_both_know_them)
{
	union {
		struct ipc_channel_info info;
		unsigned char bytes[sizeof(struct ipc_channel_info) + 64];
	} given;
	ipc_watch_producer *producer = producer_new("a");
	size_t known = sizeof(struct ipc_channel_info),
	       part = offsetof(struct ipc_channel_info, generation);

	memset(&given, 0x5a, sizeof(given));
	given.info.size = part;
	cr_assert_eq(ipc_channel_info_wait(client, "a", &given.info, NULL), 0);
	cr_assert_eq(given.info.size, part);
	cr_assert_eq(given.info.uid, getuid());
	for (size_t i = part; i < sizeof(given); ++i)
		cr_assert_eq(given.bytes[i], 0x5a, "byte %zu", i);

	given.info.size = sizeof(given);
	cr_assert_eq(ipc_channel_info_wait(client, "a", &given.info, NULL), 0);
	cr_assert_eq(given.info.reserved, 0);
	for (size_t i = known; i < sizeof(given); ++i)
		cr_assert_eq(given.bytes[i], 0x5a, "byte %zu", i);

	given.info.size = sizeof(size_t) - 1;
	cr_assert_eq(ipc_channel_info_wait(client, "a", &given.info, NULL), IPC_EINVAL);
	given.info.size = 0;
	cr_assert_eq(ipc_channel_info_wait(client, "a", &given.info, NULL), IPC_EINVAL);
	ipc_watch_producer_close(producer);
}

/* M-45, M-42 */
Test(model, a_list_calls_back_and_can_be_stopped)
{
	ipc_watch_producer *a = producer_new("a/1"), *b = producer_new("a/2"),
			   *c = producer_new("b");
	struct seen seen = {0};

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, NULL), 0);
	cr_assert_eq(seen.n, 3);
	cr_assert_eq(seen.inner, IPC_EDEADLK, "callbacks must not call the library");

	seen = (struct seen){0};
	cr_assert_eq(ipc_client_list_wait(client, "a*", see, &seen, NULL), 0, "* crosses /");
	cr_assert_eq(seen.n, 2);

	seen = (struct seen){.stop_after = 2, .result = 5};
	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, NULL), 0);
	cr_assert_eq(seen.n, 2);

	seen = (struct seen){.stop_after = 1, .result = IPC_ENOSPC};
	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, NULL), IPC_ENOSPC);
	cr_assert_eq(seen.n, 1);

	ipc_watch_producer_close(a);
	ipc_watch_producer_close(b);
	ipc_watch_producer_close(c);
}

/* ---- removal ---- */

/* M-48 */
Test(model, a_removed_name_is_free_and_its_handles_go_on)
{
	ipc_watch_producer *old = producer_new("a"), *fresh;
	ipc_watch_consumer *consumer, *other;
	struct ipc_channel_info before, after;
	char value[8];
	size_t size;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	cr_assert_eq(info_of("a", &before), 0);
	cr_assert_eq(take_away("a", 0), 0);
	cr_assert_eq(take_away("a", 0), IPC_ENOENT);
	cr_assert(!exists("a"));
	cr_assert_eq(consume(&other, "a", 0), IPC_ENOENT);

	/* Grown: the same name, another shape, another generation. */
	cr_assert_eq(
		ipc_watch_producer_open_wait(&fresh, client, "a",
					     IPC_WATCH_OPTIONS(.flags = IPC_CREATE | IPC_EXCLUSIVE,
							       .value_size_max = 50000),
					     NULL),
		0);
	cr_assert_eq(info_of("a", &after), 0);
	cr_assert_neq(after.generation, before.generation);

	cr_assert_eq(ipc_watch_publish(old, "old", 3), 0);
	cr_assert_eq(ipc_watch_publish(fresh, "fresh", 5), 0);
	cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), &size, NULL), 0);
	cr_assert(size == 3 && memcmp(value, "old", 3) == 0);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 1);

	ipc_watch_producer_close(old);
	ipc_watch_consumer_close(consumer);
	cr_assert(exists("a"), "the end of the old channel leaves the new one alone");
	ipc_watch_producer_close(fresh);
}

/* M-48 */
Test(model, removal_compares_the_generation)
{
	ipc_watch_producer *producer = producer_new("a");
	struct ipc_channel_info info;

	cr_assert_eq(info_of("a", &info), 0);
	cr_assert_eq(take_away("a", info.generation + 1), IPC_ESTALE);
	cr_assert(exists("a"));
	cr_assert_eq(take_away("a", info.generation), 0);
	cr_assert(!exists("a"));
	ipc_watch_producer_close(producer);
}

/* M-22, M-48: nobody can come any more, so the last one that goes is the end, with IPC_STAY as
 * well. */
Test(model, a_removed_channel_ends_for_good_with_the_last_handle_of_a_side)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	uint64_t version = 0;
	char value[8];
	size_t size;

	cr_assert_eq(consume(&consumer, "a", IPC_STAY), 0);
	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
	cr_assert_eq(take_away("a", 0), 0);
	ipc_watch_producer_close(producer);

	cr_assert_eq(ipc_watch_read_wait(consumer, value, sizeof(value), &size, &version, NULL), 0,
		     "what was committed comes first");
	cr_assert_eq(ipc_watch_read_wait(consumer, value, sizeof(value), &size, &version, NULL),
		     IPC_EPIPE);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, true, NULL), IPC_EPIPE);
	ipc_watch_consumer_close(consumer);
}

/* ---- memory ---- */

/* M-71, W-13, S-11 */
Test(model, values_are_aligned_and_zero_at_first)
{
	static const unsigned char zeros[4096];
	ipc_watch_producer *producer = producer_new("a");
	ipc_shared *shared = shared_new("b", IPC_SIDE_A);
	const void *value;
	size_t size, size_max;
	void *edit;

	cr_assert_eq(ipc_watch_edit_wait(producer, &edit, &size, &size_max, NULL), 0);
	cr_assert_eq((uintptr_t)edit % 64, 0);
	cr_assert_eq(size, 0);
	cr_assert_eq(size_max, 4096);
	cr_assert_eq(memcmp(edit, zeros, 4096), 0);
	cr_assert_eq(ipc_watch_abort(producer), 0);

	cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
	cr_assert_eq((uintptr_t)value % 64, 0);
	cr_assert_eq(memcmp(value, zeros, 4096), 0);
	cr_assert_eq(ipc_shared_edit(shared, &edit), 0);
	cr_assert_eq((uintptr_t)edit % 64, 0);
	cr_assert_eq(ipc_shared_unlock(shared), 0);

	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
}

/* M-72 */
Test(model, size_0_is_a_legal_value)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	uint64_t version;
	size_t size = 1;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	cr_assert_eq(ipc_watch_read(consumer, NULL, 0, &size, &version), IPC_EAGAIN);
	cr_assert_eq(ipc_watch_publish(producer, NULL, 0), 0);
	cr_assert_eq(ipc_watch_read(consumer, NULL, 0, &size, &version), 0);
	cr_assert_eq(size, 0);
	cr_assert_eq(version, 1);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

static const void *held_value;

static void touch_value(struct actor *self, void *arg)
{
	(void)arg;
	signal(SIGSEGV, SIG_DFL); /* not the sanitizer's */
	actor_say(self, *(const volatile unsigned char *)held_value);
}

/* M-70, S-8: not in a forked child; still there after the broker's death, a removal, a shutdown. */
Test(model, a_held_value_stays_until_unlock_but_not_in_a_child)
{
	ipc_shared *shared = shared_new("a", IPC_SIDE_A);
	struct actor actor;
	void *edit;

	cr_assert_eq(ipc_shared_lock_wait(shared, &held_value, NULL), 0);
	cr_assert_eq(ipc_shared_edit(shared, &edit), 0);

	actor_start(&actor, touch_value, NULL);
	cr_assert_eq(actor_join(&actor), 128 + SIGSEGV);

	domain_kill_worker(&domain);
	cr_assert_eq(take_away("a", 0), 0);
	cr_assert_eq(ipc_shared_shutdown(shared), 0);
	cr_assert_eq(*(const unsigned char *)held_value, 0);
	memcpy(edit, "new", 3);
	cr_assert_eq(ipc_shared_commit(shared), 0);

	cr_assert_eq(ipc_shared_lock_wait(shared, &held_value, NULL), 0);
	cr_assert_eq(memcmp(held_value, "new", 3), 0);
	cr_assert_eq(ipc_shared_unlock(shared), 0);
	ipc_shared_close(shared);
}

/* ---- faults ---- */

static void die_in_place(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	const void *value;
	ipc_shared *shared;

	(void)arg;
	if (ipc_shared_open_wait(&shared, own, "a", IPC_SIDE_B, NULL, NULL) < 0 ||
	    ipc_shared_lock_wait(shared, &value, NULL) < 0)
		process_end(1);
	actor_say(self, 0);
	(void)actor_hear(self);
}

/* M-61, S-3: given up for everybody, those to come too; and it can be removed. */
Test(model, a_channel_that_was_given_up_stays_so_and_can_be_removed)
{
	ipc_shared *first, *second, *third;
	struct actor actor;
	const void *value;
	int r;

	cr_assert_eq(share(&first, "a", IPC_SIDE_A, IPC_CREATE | IPC_SHARED_IN_PLACE), 0);
	cr_assert_eq(share(&second, "a", IPC_SIDE_B, 0), 0);
	actor_start(&actor, die_in_place, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	actor_kill(&actor);

	cr_assert_eq(ipc_shared_lock_wait(first, &value, NULL), 1);
	r = ipc_shared_unlock(first);
	cr_assert(r == 0 || r == IPC_ENOTRECOVERABLE);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(ipc_shared_lock_wait(first, &value, NULL), IPC_ENOTRECOVERABLE);
		cr_assert_eq(ipc_shared_lock_wait(second, &value, NULL), IPC_ENOTRECOVERABLE);
	}
	r = share(&third, "a", IPC_SIDE_B, 0);
	if (r == 0) {
		r = ipc_shared_lock_wait(third, &value, NULL);
		ipc_shared_close(third);
	}
	cr_assert_eq(r, IPC_ENOTRECOVERABLE);

	cr_assert_eq(take_away("a", 0), 0);
	cr_assert_eq(share(&third, "a", IPC_SIDE_A, IPC_CREATE | IPC_EXCLUSIVE), 0);
	cr_assert_eq(ipc_shared_lock_wait(third, &value, NULL), 0);
	cr_assert_eq(ipc_shared_unlock(third), 0);
	ipc_shared_close(first);
	ipc_shared_close(second);
	ipc_shared_close(third);
}

/* M-60, M-61: data that failed its checks, told by every call of every handle from then on. */
Test(model, a_corrupt_channel_stays_corrupt_for_everybody)
{
	ipc_watch_producer *producer = producer_new("a");
	struct channel_header *header = ((struct endpoint *)producer)->header;
	ipc_watch_consumer *consumer, *late;
	struct ipc_channel_info info;
	char value[8];
	int r;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
	(void)header_break(header, HEADER_CORRUPT);

	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(ipc_watch_publish(producer, "y", 1), IPC_EBADMSG);
		cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), NULL, NULL),
			     IPC_EBADMSG);
	}
	r = consume(&late, "a", 0);
	if (r == 0) {
		r = ipc_watch_read(late, value, sizeof(value), NULL, NULL);
		ipc_watch_consumer_close(late);
	}
	cr_assert_eq(r, IPC_EBADMSG);

	cr_assert_eq(info_of("a", &info), 0, "it can still be looked at");
	cr_assert_eq(take_away("a", info.generation), 0);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

/* M-62: a segment of another version, word size or mutex layout. */
Test(model, a_segment_of_another_layout_is_refused)
{
	ipc_watch_producer *producer = producer_new("a");
	struct channel_header *header = ((struct endpoint *)producer)->header;
	ipc_watch_consumer *consumer = NULL;

	header->version += 1;
	cr_assert_eq(consume(&consumer, "a", 0), IPC_EPROTONOSUPPORT);
	header->version -= 1;
	header->word_size = 4;
	cr_assert_eq(consume(&consumer, "a", 0), IPC_EPROTONOSUPPORT);
	header->word_size = sizeof(void *);
	header->lock_stamp ^= 1;
	cr_assert_eq(consume(&consumer, "a", 0), IPC_EPROTONOSUPPORT);
	header->lock_stamp ^= 1;
	cr_assert_eq(consume(&consumer, "a", 0), 0);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* What the broker answers to a greeting: its result, or 0. */
static int greet(uint32_t version, uint32_t lock_stamp, uint32_t word_size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval limit = {WAIT_MS / 1000, 0};
	union message message;
	ssize_t n;
	int fd;

	message_init(&message, MESSAGE_HELLO, 1);
	message.hello.version_min = message.hello.version_max = version;
	message.hello.lock_stamp = lock_stamp;
	message.hello.word_size = word_size;
	message.hello.pid = getpid();

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, domain.address);
	cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(send(fd, &message, message.head.size, 0), (ssize_t)message.head.size);
	n = recv(fd, &message, sizeof(message), 0);
	close(fd);
	cr_assert_gt(n, 0);
	cr_assert_eq(message_check_reply(&message, (size_t)n), 0);
	return message.head.result;
}

/* M-62 */
Test(model, the_broker_refuses_processes_that_do_not_fit)
{
	cr_assert_eq(greet(PROTOCOL_VERSION, lock_layout_stamp(), sizeof(void *)), 0);
	cr_assert_eq(greet(PROTOCOL_VERSION + 1, lock_layout_stamp(), sizeof(void *)),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(greet(PROTOCOL_VERSION, lock_layout_stamp() ^ 1, sizeof(void *)),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(greet(PROTOCOL_VERSION, lock_layout_stamp(), 4), IPC_EPROTONOSUPPORT);
}

/* M-20 */
Test(model, deadlines_have_less_than_a_second_of_nanoseconds)
{
	static const struct timespec bad[] = {{1, 1000000000}, {1, -1}};
	struct ipc_channel_info info = {.size = sizeof(info)};
	ipc_watch_producer *producer = producer_new("a"), *other;
	ipc_client *second;

	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(ipc_client_connect_wait(&second,
						     IPC_CLIENT_OPTIONS(.address = domain.address),
						     &bad[i]),
			     IPC_EINVAL);
		cr_assert_eq(ipc_watch_producer_open_wait(&other, client, "a", NULL, &bad[i]),
			     IPC_EINVAL);
		cr_assert_eq(ipc_channel_info_wait(client, "a", &info, &bad[i]), IPC_EINVAL);
		cr_assert_eq(ipc_channel_remove_wait(client, "a", 0, &bad[i]), IPC_EINVAL);
		cr_assert_eq(ipc_client_list_wait(client, "*", see, NULL, &bad[i]), IPC_EINVAL);
		cr_assert_eq(ipc_watch_publish_wait(producer, "x", 1, &bad[i]), IPC_EINVAL);
		cr_assert_eq(ipc_watch_producer_peers_wait(producer, true, &bad[i]), IPC_EINVAL);
	}
	ipc_watch_producer_close(producer);
}

/* ---- results as text ---- */

/* M-75 */
Test(model, every_number_has_a_text_and_a_name)
{
	for (int result = -4200; result <= 200; ++result) {
		const char *text = ipc_error_text(result), *name = ipc_error_name(result);

		cr_assert(text && text[0] != '\0');
		cr_assert(name && name[0] != '\0');
		cr_assert_eq(text, ipc_error_text(result), "static");
		if (result >= 0) {
			cr_assert_str_eq(text, "done");
			cr_assert_str_eq(name, "done");
		}
		if (result >= 0 || strcmp(name, "unknown") == 0)
			cr_assert_eq(ipc_error_class(result), IPC_CLASS_NONE);
		else
			cr_assert_neq(ipc_error_class(result), IPC_CLASS_NONE);
	}
	cr_assert_str_eq(ipc_error_name(INT32_MIN), "unknown");
	cr_assert_str_eq(ipc_error_text(IPC_EOWNERDEAD), "the other side is gone: it died");
	cr_assert_str_eq(ipc_error_name(IPC_EOWNERDEAD), "IPC_EOWNERDEAD");
}

/* ---- the broker ---- */

/* M-6: killing either, any number of times, is unnoticed. */
Test(model, keeper_and_worker_are_replaced)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	char value[16], text[16];
	struct actor actor;
	uint64_t id;
	size_t size;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	for (unsigned i = 0; i < 6; ++i) {
		pid_t keeper = domain.keeper, worker = domain_worker(&domain);

		if (i % 2) {
			domain_kill_worker(&domain);
		} else {
			domain_kill_keeper(&domain);
			cr_assert_neq(domain.keeper, keeper);
		}
		cr_assert_neq(domain_worker(&domain), worker);

		snprintf(text, sizeof(text), "value %u", i);
		cr_assert_eq(ipc_watch_publish(producer, text, strlen(text)), 0);
		cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), &size, NULL), 0);
		cr_assert(size == strlen(text) && memcmp(value, text, size) == 0);
		cr_assert_eq(ipc_watch_consumer_peers(consumer), 1);

		/* Opening and deaths work as before. */
		actor_start(&actor, hold_producer, "a");
		id = (uint64_t)actor_hear(&actor);
		cr_assert_eq(ipc_client_is_alive(client, id), 1);
		actor_kill(&actor);
		until_not_alive(id);
	}
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

/* M-6, M-24: what died while nobody looked is found dead. */
Test(model, a_death_during_a_restart_is_told_after_it)
{
	ipc_watch_consumer *consumer;
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer = producer_new("a");
	struct actor actor;
	pid_t worker;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	actor_start(&actor, hold_producer, "a");
	(void)actor_hear(&actor);
	ipc_watch_producer_close(producer);
	cr_assert(exists("a"), "the broker has heard of the close before it answers");
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 1);

	worker = domain_worker(&domain);
	kill(worker, SIGSTOP);
	actor_kill(&actor);
	kill(worker, SIGKILL);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, &deadline), 0);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 0);
	ipc_watch_consumer_close(consumer);
}

/* M-6 */
Test(model, both_killed_ends_the_domain)
{
	ipc_watch_producer *producer = producer_new("a"), *other;
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_consumer *consumer;
	uint64_t version = 0;
	char value[8];
	size_t size;
	int r;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	domain_kill(&domain);

	r = ipc_watch_producer_open_wait(&other, client, "a", NULL, &deadline);
	cr_assert_eq(r, IPC_ECONNREFUSED, "%s", ipc_error_name(r));
	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0, "data goes on flowing");
	cr_assert_eq(
		ipc_watch_read_wait(consumer, value, sizeof(value), &size, &version, &deadline), 0);
	r = ipc_watch_read_wait(consumer, value, sizeof(value), &size, &version, &deadline);
	cr_assert_eq(r, IPC_ECONNRESET, "%s", ipc_error_name(r));
	cr_assert_eq(ipc_watch_publish(producer, "y", 1), 0);
	cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), &size, NULL), 0);

	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
	ipc_client_unref(client);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
}
