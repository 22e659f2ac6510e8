/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface, with a broker, at every so-many-th instruction.
 *
 * One who looks for an item, or for room, stands still there, while the last of the other side does
 * its last act and leaves: what that was comes before the end.  One who gives an item, or room, is
 * killed there: who sleeps for that is woken if it was given, and not by a slice running out.
 */
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/client/queue_scene.h"
#include "tests/support/step.h"
#include "tests/support/wakes.h"

enum { STRIDE = 4, NOTHING_YET = 1000000, LATE_MS = 30, LATE_MAX = 5 };

/* What the child found. */
static _Atomic int *result;

/* The parent's: of the side that stays, and of the one that leaves. */
static ipc_queue_producer *producer;
static ipc_queue_consumer *consumer;

/* The child's. */
static ipc_queue_producer *child_producer;
static ipc_queue_consumer *child_consumer;

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
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	cr_assert_neq(result, MAP_FAILED);
	*result = NOTHING_YET;
}

static void teardown(void)
{
	munmap((void *)result, sizeof(*result));
	fixture_teardown();
}

TestSuite(queue_client, .init = setup, .fini = teardown, .timeout = 700);

/* ---- takes ---- */

static void prepare_take(void *arg)
{
	(void)arg;
	if (consumer_open(&child_consumer, domain_connect(&fixture_domain), NAME,
			  (struct ipc_queue_options){0}) < 0)
		process_end(1);
}

static void do_take(void *arg)
{
	struct ipc_queue_item item;

	(void)arg;
	*result = ipc_queue_take(child_consumer, &item);
}

static void push_and_leave(void *arg, long n)
{
	(void)arg;
	(void)n;
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	producer = ipc_queue_producer_close(producer);
	ASSERT(ipc_queue_consumer_peers_wait(consumer, false, NULL), 0);
}

static void check_take(void *arg, long n)
{
	(void)arg;
	cr_assert(*result == 0 || *result == IPC_EAGAIN, "before instruction %ld: %s", n,
		  ipc_error_name(*result));
	*result = NOTHING_YET;

	/* Of the child, which is dead by now, or never taken. */
	producer = PRODUCER_NEW(0);
	ASSERT(eat_in(consumer, WAIT_MS), 1);
}

/* Q-7, M-21 */
Test(queue_client, last_item_comes_before_the_producers_end)
{
	const struct step_case step = {.prepare = prepare_take,
				       .operation = do_take,
				       .check = check_take,
				       .stride = STRIDE,
				       .meanwhile = push_and_leave};
	long n_points;

	consumer = CONSUMER_NEW(.attempts_max = UINT32_MAX);
	producer = PRODUCER_NEW(0);
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 20);
	producer = ipc_queue_producer_close(producer);
	consumer = ipc_queue_consumer_close(consumer);
}

/* ---- pushes ---- */

static void prepare_push(void *arg)
{
	(void)arg;
	if (producer_open(&child_producer, domain_connect(&fixture_domain), NAME,
			  (struct ipc_queue_options){0}) < 0)
		process_end(1);
}

static void do_push(void *arg)
{
	(void)arg;
	*result = ipc_queue_push_wait(child_producer, 0, "x", 1, &past);
}

static void take_and_leave(void *arg, long n)
{
	(void)arg;
	(void)n;
	ASSERT(eat(consumer), 1);
	consumer = ipc_queue_consumer_close(consumer);
	ASSERT(ipc_queue_producer_peers_wait(producer, false, NULL), 0);
}

static void check_push(void *arg, long n)
{
	struct ipc_queue_item item;

	(void)arg;
	cr_assert(*result == 0 || *result == IPC_ETIMEDOUT, "before instruction %ld: %s", n,
		  ipc_error_name(*result));
	consumer = CONSUMER_NEW(.flags = IPC_KEEP);
	if (*result == 0) {
		ASSERT(ipc_queue_take(consumer, &item), 0);
		ASSERT(ipc_queue_ack(consumer, &item), 0);
	}
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	*result = NOTHING_YET;
}

/* M-21 */
Test(queue_client, last_room_comes_before_the_consumers_end)
{
	const struct step_case step = {.prepare = prepare_push,
				       .operation = do_push,
				       .check = check_push,
				       .stride = STRIDE,
				       .meanwhile = take_and_leave};
	long n_points;

	consumer = CONSUMER_NEW(.flags = IPC_KEEP, .items_max = 1, .priorities = 1);
	producer = PRODUCER_NEW(.flags = IPC_KEEP);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 20);
	producer = ipc_queue_producer_close(producer);
	consumer = ipc_queue_consumer_close(consumer);
	ASSERT(take_away(NAME, 0), 0);
}

/* ---- deaths of those who give ---- */

struct giving {
	struct actor waiter;
	unsigned n_heard, n_given, n_late;
	long first_told; /* instruction */
	int patience_ms; /* from there on */
};

/*
 * The waiter says something without anybody's doing.  Before the first instruction of which that is
 * known nothing comes of most kills; afterwards it may take its time.  A child that left the path
 * and was not stopped in time has told as well: the next one that gives nothing shows that.
 */
static bool is_told(struct giving *giving, long n)
{
	struct pollfd pollfd = {.fd = giving->waiter.fd, .events = POLLIN};
	int patience_ms = n > giving->first_told ? giving->patience_ms : LATE_MS;

	if (poll(&pollfd, 1, patience_ms) != 1)
		return false;
	if (n < giving->first_told)
		giving->first_told = n;
	return true;
}

static void push_one(void *arg)
{
	(void)arg;
	(void)!push(child_producer, 0, 7);
}

/* Nothing here may look at the queue before the waiter was told: a look sweeps, and wakes. */
static void check_given_item(void *arg, long n)
{
	struct giving *giving = arg;

	while (ipc_queue_consumer_peers(consumer) != 1)
		process_pause();
	if (is_told(giving, n)) {
		++giving->n_given;
		ASSERT(actor_hear(&giving->waiter), 7);
	} else if (state_of(producer).queued[0] > giving->n_heard) {
		++giving->n_late;
		ASSERT(actor_hear(&giving->waiter), 7);
	} else {
		if (n > giving->first_told)
			giving->first_told = LONG_MAX;
		ASSERT(push(producer, 0, 8), IPC_QUEUED);
		ASSERT(actor_hear(&giving->waiter), 8);
	}
	ASSERT(order_do(&giving->waiter, ORDER_ACK, giving->n_heard, 0), 0);
	cr_assert_eq(state_of(producer).queued[0], ++giving->n_heard, "instruction %ld", n);
	order_sleep(&giving->waiter, ORDER_TAKE_WAIT, 0, 0);
}

/* Q-6, M-21, M-26 */
Test(queue_client, committed_item_of_a_dead_producer_wakes_who_waits)
{
	struct giving giving = {.first_told = LONG_MAX, .patience_ms = WAIT_MS / 2};
	const struct step_case step = {.prepare = prepare_push,
				       .operation = push_one,
				       .check = check_given_item,
				       .stride = 2 * STRIDE};
	long n_points;

	WAKES_TELL();
	consumer = CONSUMER_NEW(0);
	producer = PRODUCER_NEW(0);
	CONSUMER_START(&giving.waiter, 0);
	order_sleep(&giving.waiter, ORDER_TAKE_WAIT, 0, 0);
	n_points = step_run(&step, &giving);
	cr_log_info("%ld points, %u given, %u late", n_points, giving.n_given, giving.n_late);
	cr_expect_gt(giving.n_given, 5);
	cr_expect_leq(giving.n_late, LATE_MAX);
	actor_kill(&giving.waiter);
	producer = ipc_queue_producer_close(producer);
	consumer = ipc_queue_consumer_close(consumer);
}

static void take_and_ack(void *arg)
{
	struct ipc_queue_item item;

	(void)arg;
	if (ipc_queue_take(child_consumer, &item) == 0)
		(void)!ipc_queue_ack(child_consumer, &item);
}

static void check_given_room(void *arg, long n)
{
	struct giving *giving = arg;

	while (ipc_queue_producer_peers(producer) != 1)
		process_pause();
	if (is_told(giving, n))
		++giving->n_given;
	else if (eat(consumer) == IPC_EAGAIN)
		++giving->n_late;
	ASSERT(actor_hear(&giving->waiter), 0);
	cr_assert_eq(state_of(producer).items[0], 1, "instruction %ld", n);
	order_sleep(&giving->waiter, ORDER_PUSH_WAIT, 0, 7);
}

/* Q-5, M-21, M-26 */
Test(queue_client, room_of_a_dead_consumer_wakes_who_waits)
{
	struct giving giving = {.first_told = LONG_MAX, .patience_ms = 5 * LATE_MS};
	const struct step_case step = {.prepare = prepare_take,
				       .operation = take_and_ack,
				       .check = check_given_room,
				       .stride = 2 * STRIDE};
	long n_points;

	WAKES_TELL();
	consumer = CONSUMER_NEW(.items_max = 1, .priorities = 1, .attempts_max = UINT32_MAX);
	producer = PRODUCER_NEW(0);
	ASSERT(push(producer, 0, 7), IPC_QUEUED);
	PRODUCER_START(&giving.waiter, 0);
	order_sleep(&giving.waiter, ORDER_PUSH_WAIT, 0, 7);
	n_points = step_run(&step, &giving);
	cr_log_info("%ld points, %u given, %u late", n_points, giving.n_given, giving.n_late);
	cr_expect_gt(giving.n_given, 5);
	cr_expect_leq(giving.n_late, LATE_MAX);
	actor_kill(&giving.waiter);
	producer = ipc_queue_producer_close(producer);
	consumer = ipc_queue_consumer_close(consumer);
}
