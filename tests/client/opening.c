/* SPDX-License-Identifier: MIT */

/*
 * Opening, looking at and removing channels, through the public interface.
 */

#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"

TestSuite(opening, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- opening ---- */

/* M-43 */
Test(opening, create_and_exclusive)
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
Test(opening, any_side_may_create)
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
		&consumer, fixture_client, "a",
		IPC_WATCH_OPTIONS(.value_size_max = value_size_max, .consumers_max = consumers_max),
		NULL);

	ipc_watch_consumer_close(consumer);
	return r;
}

/* M-43 */
Test(opening, shapes_fit_or_are_zero)
{
	ipc_watch_producer *producer;
	ipc_shared *shared, *other = NULL;

	cr_assert_eq(ipc_watch_producer_open_wait(&producer, fixture_client, "a",
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

	cr_assert_eq(ipc_shared_open_wait(&shared, fixture_client, "b", IPC_SIDE_A,
					  IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = 64),
					  NULL),
		     0);
	cr_assert_eq(ipc_shared_open_wait(&other, fixture_client, "b", IPC_SIDE_B,
					  IPC_SHARED_OPTIONS(.value_size = 65), NULL),
		     IPC_EPROTOTYPE);
	cr_assert_eq(ipc_shared_open_wait(&other, fixture_client, "b", IPC_SIDE_B,
					  IPC_SHARED_OPTIONS(.flags = IPC_SHARED_IN_PLACE), NULL),
		     IPC_EPROTOTYPE);
	cr_assert_eq(ipc_shared_open_wait(&other, fixture_client, "b", IPC_SIDE_B,
					  IPC_SHARED_OPTIONS(.value_size = 64), NULL),
		     0);
	ipc_shared_close(other);
	ipc_shared_close(shared);
}

/* M-43 */
Test(opening, a_name_belongs_to_one_kind)
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
	return ipc_watch_consumer_open_wait(ret, fixture_client, "a",
					    IPC_WATCH_OPTIONS(.flags = flags), deadline);
}

static void await_consumer(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
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
Test(opening, a_role_that_is_taken_is_busy_or_waited_for)
{
	ipc_watch_producer *producer;
	ipc_watch_consumer *first, *second;
	struct timespec soon = domain_deadline(50);
	struct actor actor, other;

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, fixture_client, "a",
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
Test(opening, a_name_that_is_not_there_is_waited_for)
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
Test(opening, a_dead_waiter_for_a_name_is_forgotten)
{
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	struct actor actor;

	actor_start(&actor, await_consumer, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	actor_kill(&actor);

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, fixture_client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .consumers_max = 1), NULL),
		     0);
	cr_assert_eq(consume_limited(&consumer, IPC_AWAIT, NULL), 0);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

static void race_to_create(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
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
Test(opening, exclusive_creation_has_one_winner)
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
	seen->inner = ipc_channel_info_wait(fixture_client, info->name, &other, NULL);
	return seen->n == seen->stop_after ? seen->result : 0;
}

/* M-46 */
Test(opening, infos_are_written_as_far_as_both_know_them)
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
	cr_assert_eq(ipc_channel_info_wait(fixture_client, "a", &given.info, NULL), 0);
	cr_assert_eq(given.info.size, part);
	cr_assert_eq(given.info.uid, getuid());
	for (size_t i = part; i < sizeof(given); ++i)
		cr_assert_eq(given.bytes[i], 0x5a, "byte %zu", i);

	given.info.size = sizeof(given);
	cr_assert_eq(ipc_channel_info_wait(fixture_client, "a", &given.info, NULL), 0);
	cr_assert_eq(given.info.reserved, 0);
	for (size_t i = known; i < sizeof(given); ++i)
		cr_assert_eq(given.bytes[i], 0x5a, "byte %zu", i);

	given.info.size = sizeof(size_t) - 1;
	cr_assert_eq(ipc_channel_info_wait(fixture_client, "a", &given.info, NULL), IPC_EINVAL);
	given.info.size = 0;
	cr_assert_eq(ipc_channel_info_wait(fixture_client, "a", &given.info, NULL), IPC_EINVAL);
	ipc_watch_producer_close(producer);
}

/* M-45, M-42 */
Test(opening, a_list_calls_back_and_can_be_stopped)
{
	ipc_watch_producer *a = producer_new("a/1"), *b = producer_new("a/2"),
			   *c = producer_new("b");
	struct seen seen = {0};

	cr_assert_eq(ipc_client_list_wait(fixture_client, "*", see, &seen, NULL), 0);
	cr_assert_eq(seen.n, 3);
	cr_assert_eq(seen.inner, IPC_EDEADLK, "callbacks must not call the library");

	seen = (struct seen){0};
	cr_assert_eq(ipc_client_list_wait(fixture_client, "a*", see, &seen, NULL), 0,
		     "* crosses /");
	cr_assert_eq(seen.n, 2);

	seen = (struct seen){.stop_after = 2, .result = 5};
	cr_assert_eq(ipc_client_list_wait(fixture_client, "*", see, &seen, NULL), 0);
	cr_assert_eq(seen.n, 2);

	seen = (struct seen){.stop_after = 1, .result = IPC_ENOSPC};
	cr_assert_eq(ipc_client_list_wait(fixture_client, "*", see, &seen, NULL), IPC_ENOSPC);
	cr_assert_eq(seen.n, 1);

	ipc_watch_producer_close(a);
	ipc_watch_producer_close(b);
	ipc_watch_producer_close(c);
}

/* ---- removal ---- */

/* M-48 */
Test(opening, a_removed_name_is_free_and_its_handles_go_on)
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
		ipc_watch_producer_open_wait(&fresh, fixture_client, "a",
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
Test(opening, removal_compares_the_generation)
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
Test(opening, a_removed_channel_ends_for_good_with_the_last_handle_of_a_side)
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

/* ---- deadlines ---- */

/* M-20 */
Test(opening, deadlines_have_less_than_a_second_of_nanoseconds)
{
	static const struct timespec bad[] = {{1, 1000000000}, {1, -1}};
	struct ipc_channel_info info = {.size = sizeof(info)};
	ipc_watch_producer *producer = producer_new("a"), *other;
	ipc_client *second;

	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(ipc_client_connect_wait(
				     &second, IPC_CLIENT_OPTIONS(.address = fixture_domain.address),
				     &bad[i]),
			     IPC_EINVAL);
		cr_assert_eq(
			ipc_watch_producer_open_wait(&other, fixture_client, "a", NULL, &bad[i]),
			IPC_EINVAL);
		cr_assert_eq(ipc_channel_info_wait(fixture_client, "a", &info, &bad[i]),
			     IPC_EINVAL);
		cr_assert_eq(ipc_channel_remove_wait(fixture_client, "a", 0, &bad[i]), IPC_EINVAL);
		cr_assert_eq(ipc_client_list_wait(fixture_client, "*", see, NULL, &bad[i]),
			     IPC_EINVAL);
		cr_assert_eq(ipc_watch_publish_wait(producer, "x", 1, &bad[i]), IPC_EINVAL);
		cr_assert_eq(ipc_watch_producer_peers_wait(producer, true, &bad[i]), IPC_EINVAL);
	}
	ipc_watch_producer_close(producer);
}
