/* SPDX-License-Identifier: MIT */
/*
 * A push to a group, killed at every so-many-th instruction, with a broker: it has come to some of
 * the queues, in their order, and to each of them once or not at all.
 */
#include "libipc/platform/compiler.h"
#include "tests/client/group_scene.h"
#include "tests/support/step.h"

/* The queues in the order in which the group has them: one with room, a full one, one with room. */
static ipc_queue_consumer *first, *full, *last, *letters;

/* The child's. */
static ipc_group *child_group;

static void setup(void)
{
	fixture_setup();

	/* The steps are counted by a clock that interrupts. */
	ipc_client_unref(fixture_client);
	cr_assert_eq(ipc_client_connect_wait(&fixture_client,
					     IPC_CLIENT_OPTIONS(.flags = IPC_CLIENT_NO_EINTR,
								.address = fixture_domain.address),
					     NULL),
		     0);

	letters = queue_consumer_new("letters", (struct ipc_queue_options){.flags = IPC_STAY});
	first = queue_consumer_new("g/1", (struct ipc_queue_options){SMALL, .flags = IPC_STAY});
	full = queue_consumer_new("g/2", (struct ipc_queue_options){SMALL, .flags = IPC_STAY,
								    .dead_letters = "letters"});
	last = queue_consumer_new("g/3", (struct ipc_queue_options){SMALL, .flags = IPC_STAY});
}

static void teardown(void)
{
	ipc_queue_consumer_close(first);
	ipc_queue_consumer_close(full);
	ipc_queue_consumer_close(last);
	ipc_queue_consumer_close(letters);
	fixture_teardown();
}

TestSuite(group_client, .init = setup, .fini = teardown, .timeout = 700);

static void fill(void)
{
	ipc_queue_producer *producer = NULL;

	ASSERT(producer_open(&producer, fixture_client, "g/2", (struct ipc_queue_options){0}), 0);
	for (uint32_t i = 0; i < 4; ++i)
		ASSERT(push(producer, 0, i), IPC_QUEUED);
	ipc_queue_producer_close(producer);
}

static void prepare(void *arg)
{
	(void)arg;
	if (ipc_group_open_wait(&child_group, domain_connect(&fixture_domain), "g/*", NULL) < 0)
		process_end(1);
}

/* And one that its socket says has come. */
static void prepare_with_new(void *arg)
{
	ipc_queue_consumer *consumer;

	prepare(arg);
	if (consumer_open(&consumer, domain_connect(&fixture_domain), "g/new",
			  (struct ipc_queue_options){SMALL, .flags = IPC_CREATE}) < 0)
		process_end(1);
}

static void do_push(void *arg)
{
	struct ipc_group_result result = {.size = sizeof(result)};
	uint32_t number = 7;

	(void)arg;
	(void)!ipc_group_push(child_group, 0, &number, sizeof(number), IPC_FULL_DEAD_LETTER,
			      &result);
}

/* 0 or 1 of them. */
static int taken(ipc_queue_consumer *consumer, long n)
{
	int64_t number = eat(consumer);

	cr_assert(number == 7 || number == IPC_EAGAIN, "before instruction %ld: %ld", n,
		  (long)number);
	if (number == 7)
		ASSERT(eat(consumer), IPC_EAGAIN);
	return number == 7;
}

static void check(void *arg, long n)
{
	ipc_queue_consumer *const all[] = {first, full, last, letters};
	int n_first, n_letters, n_last;

	(void)arg;
	for (unsigned i = 0; i < N_ELEMENTS(all); ++i)
		ASSERT(ipc_queue_consumer_peers_wait(all[i], false, NULL), 0);

	n_first = taken(first, n);
	n_letters = taken(letters, n);
	n_last = taken(last, n);
	cr_assert_geq(n_first, n_letters, "before instruction %ld", n);
	cr_assert_geq(n_letters, n_last, "before instruction %ld", n);

	for (unsigned i = 0; i < N_ELEMENTS(all); ++i) {
		struct ipc_queue_state state = state_at(all[i]);

		cr_assert_eq(state_missing(&state, 0), 0, "before instruction %ld, queue %u", n, i);
		cr_assert_eq(state.items[0], all[i] == full ? 4 : 0, "before instruction %ld", n);
	}
}

/* M-25, Q-6, Q-17, Q-20 */
Test(group_client, killed_in_a_push)
{
	const struct step_case step = {
		.prepare = prepare, .operation = do_push, .check = check, .stride = 3};
	long n_points;

	fill();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 100);
}

static void check_with_new(void *arg, long n)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	check(arg, n);
	while (exists("g/new"))
		cr_assert_lt(clock_now_ns(), deadline_ns, "before instruction %ld", n);
}

/* M-25, Q-17: while it takes a queue's handle out of its socket and maps it.  That is a long way.
 */
Test(group_client, killed_in_a_push_that_maps_a_queue)
{
	const struct step_case step = {.prepare = prepare_with_new,
				       .operation = do_push,
				       .check = check_with_new,
				       .stride = 3001};
	long n_points;

	fill();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 5);
}
