/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface: waits, and what wakes and ends them; readiness.
 */
#include <pthread.h>

#include "libipc/client/endpoint.h"
#include "tests/client/queue_scene.h"
#include "tests/support/wakes.h"

TestSuite(queue_wait, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

#define READABLE IPC_READY_READABLE
#define WRITABLE IPC_READY_WRITABLE
#define PRESENT  IPC_READY_PEER_PRESENT
#define GONE     IPC_READY_PEER_GONE
#define END      IPC_READY_END

enum { N_TIMES = 5 };

/* ---- wakes ---- */

/* M-21 */
Test(queue_wait, push_and_commit_wake_who_takes)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	struct actor consumer;

	WAKES_TELL();
	CONSUMER_START(&consumer, 0);
	for (uint32_t i = 0; i < N_TIMES; ++i) {
		uint64_t began;
		void *claim = NULL;

		if (i % 2) {
			ASSERT(ipc_queue_claim(producer, 0, sizeof(i), &claim), 0);
			memcpy(claim, &i, sizeof(i));
		}
		order_sleep(&consumer, ORDER_TAKE_WAIT, 0, 0);
		began = clock_now_ns();
		if (claim)
			ASSERT(ipc_queue_commit(producer, claim, sizeof(i)), 0);
		else
			ASSERT(push(producer, 0, i), IPC_QUEUED);
		ASSERT(actor_hear(&consumer), i);
		ASSERT_WOKEN(began);
	}

	actor_kill(&consumer);
	ipc_queue_producer_close(producer);
}

/* M-21, Q-3 */
Test(queue_wait, room_wakes_who_pushes)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(.items_max = 1, .attempts_max = 1);
	struct actor producer;

	WAKES_TELL();
	PRODUCER_START(&producer, 0);
	ASSERT(order_do(&producer, ORDER_PUSH, 0, 0), IPC_QUEUED);
	for (uint32_t i = 0; i < N_TIMES; ++i) {
		struct ipc_queue_item item;
		uint64_t began;

		ASSERT(take(consumer, &item), i);
		order_sleep(&producer, ORDER_PUSH_WAIT, 0, i + 1);
		began = clock_now_ns();
		ASSERT(i == 0   ? ipc_queue_reject(consumer, &item)
		       : i == 1 ? ipc_queue_requeue(consumer, &item)
				: ipc_queue_ack(consumer, &item),
		       0);
		ASSERT(actor_hear(&producer), 0);
		ASSERT_WOKEN(began);
	}

	actor_kill(&producer);
	ipc_queue_consumer_close(consumer);
}

/* M-25: a dead one's claim is room for who waits. */
Test(queue_wait, death_of_a_claimer_wakes_who_wants_its_room)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(.items_max = 1);
	struct actor claimer, aborter, waiter;

	PRODUCER_START(&claimer, 0);
	PRODUCER_START(&waiter, 0);
	ASSERT(order_do(&claimer, ORDER_CLAIM, 0, 1), 0);
	order_sleep(&waiter, ORDER_PUSH_WAIT, 0, 2);
	actor_kill(&claimer);
	EXPECT(actor_hear(&waiter), 0);
	EXPECT(eat(consumer), 2);

	PRODUCER_START(&aborter, 0);
	ASSERT(order_do(&aborter, ORDER_CLAIM, 0, 1), 0);
	order_sleep(&waiter, ORDER_CLAIM_WAIT, 0, 3);
	ASSERT(order_do(&aborter, ORDER_CLOSE, 0, 0), 0);
	EXPECT(actor_hear(&waiter), 0);
	EXPECT(order_do(&waiter, ORDER_COMMIT, 0, 0), 0);
	EXPECT(eat(consumer), 3);

	actor_kill(&aborter);
	actor_kill(&waiter);
	ipc_queue_consumer_close(consumer);
}

/*
 * Q-3, M-24, M-25: a claim may be written to until its process is gone, which comes after its end
 * is told, and is told by nobody.
 */
Test(queue_wait, claim_of_one_held_dead_is_room_when_it_is_gone)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(.items_max = 1, .priorities = 1);
	struct actor claimer, waiter, writer;
	uint64_t id;

	PRODUCER_START(&claimer, 0);
	PRODUCER_START(&waiter, 0);
	PRODUCER_START(&writer, 0);
	id = (uint64_t)order_do(&claimer, ORDER_ID, 0, 0);
	ASSERT(order_do(&claimer, ORDER_CLAIM, 0, 1), 0);
	order_sleep(&waiter, ORDER_PUSH_WAIT, 0, 2);
	order_sleep(&writer, ORDER_WAIT_ANY, WRITABLE, 0);
	ASSERT(order_do(&claimer, ORDER_CLOSE_FDS, 0, 0), 0);
	until_not_alive(id);
	actor_until_asleep(&waiter);
	EXPECT(eat(consumer), IPC_EAGAIN);

	actor_kill(&claimer);
	EXPECT(actor_hear(&waiter), 0);
	EXPECT(eat(consumer), 2);
	EXPECT(actor_hear(&writer), WRITABLE);

	actor_kill(&waiter);
	actor_kill(&writer);
	ipc_queue_consumer_close(consumer);
}

/* each item to one, and all of them. */
Test(queue_wait, several_consumers_share_the_items)
{
	enum { CONSUMERS = 3, ITEMS = 60 };
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	struct actor consumer[CONSUMERS];
	bool seen[ITEMS] = {false};

	for (unsigned i = 0; i < CONSUMERS; ++i)
		CONSUMER_START(&consumer[i], 0);
	for (unsigned round = 0; round < ITEMS / CONSUMERS; ++round) {
		for (unsigned i = 0; i < CONSUMERS; ++i)
			order_begin(&consumer[i], ORDER_TAKE_WAIT, 0, 0);
		for (unsigned i = 0; i < CONSUMERS; ++i)
			ASSERT(push(producer, i % 2, round * CONSUMERS + i), IPC_QUEUED);
		for (unsigned i = 0; i < CONSUMERS; ++i) {
			int64_t number = actor_hear(&consumer[i]);

			cr_assert(number >= 0 && number < ITEMS && !seen[number], "%ld", number);
			seen[number] = true;
			ASSERT(order_do(&consumer[i], ORDER_ACK, round, 0), 0);
		}
	}
	EXPECT(state_of(producer).acknowledged[0] + state_of(producer).acknowledged[1], ITEMS);

	for (unsigned i = 0; i < CONSUMERS; ++i)
		actor_kill(&consumer[i]);
	ipc_queue_producer_close(producer);
}

/* Q-3, M-26: nothing is kept for those who gave up or died. */
Test(queue_wait, abandoned_waits_leave_nothing)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct actor taking, pushing;
	void *claim;

	CONSUMER_START(&taking, 0);
	PRODUCER_START(&pushing, 0);
	order_sleep(&taking, ORDER_TAKE_WAIT, 0, 0);
	actor_kill(&taking);
	EXPECT(take_in(consumer, &item, 1), IPC_ETIMEDOUT);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	order_sleep(&pushing, ORDER_PUSH_WAIT, 0, 2);
	actor_kill(&pushing);
	EXPECT(push_in(producer, 0, 3, 1), IPC_ETIMEDOUT);
	EXPECT(eat(consumer), 1);
	EXPECT(eat(consumer), IPC_EAGAIN);
	EXPECT(ipc_queue_claim(producer, 0, 1, &claim), 0);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-31, M-4 */
Test(queue_wait, items_flow_while_no_worker_runs)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	struct actor consumer;

	CONSUMER_START(&consumer, 0);
	order_sleep(&consumer, ORDER_TAKE_WAIT, 0, 0);
	kill(domain_worker(&fixture_domain), SIGKILL);
	ASSERT(push(producer, 0, 4), IPC_QUEUED);
	EXPECT(actor_hear(&consumer), 4);
	EXPECT(order_do(&consumer, ORDER_ACK, 0, 0), 0);
	domain_until_ready(&fixture_domain);
	member_end(&consumer, true);
	ASSERT(ipc_queue_producer_peers_wait(producer, false, NULL), 0);
	EXPECT(push(producer, 0, 5), IPC_EOWNERDEAD);

	ipc_queue_producer_close(producer);
}

/* ---- ends of waits ---- */

/* M-20 */
Test(queue_wait, deadlines_end_waits)
{
	const struct timespec bad = {.tv_nsec = 1000000000};
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	void *claim;

	EXPECT(ipc_queue_take_wait(consumer, &item, &past), IPC_ETIMEDOUT);
	EXPECT(take_in(consumer, &item, 20), IPC_ETIMEDOUT);
	EXPECT(ipc_queue_push_wait(producer, 0, "x", 1, &past), 0);
	EXPECT(ipc_queue_push_wait(producer, 0, "x", 1, &past), IPC_ETIMEDOUT);
	EXPECT(push_in(producer, 0, 1, 20), IPC_ETIMEDOUT);
	EXPECT(ipc_queue_take_wait(consumer, &item, &past), 0);
	EXPECT(ipc_queue_take_wait(consumer, &item, &bad), IPC_EINVAL);
	EXPECT(ipc_queue_take_many_wait(consumer, &item, 1, &bad), IPC_EINVAL);
	EXPECT(ipc_queue_push_wait(producer, 0, "x", 1, &bad), IPC_EINVAL);
	EXPECT(ipc_queue_claim_wait(producer, 0, 1, &claim, &bad), IPC_EINVAL);
	EXPECT(ipc_queue_commit_wait(producer, NULL, 1, &bad), IPC_EINVAL);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

struct thread {
	ipc_queue_producer *producer; /* NULL: takes */
	ipc_queue_consumer *consumer;
	pthread_t thread;
	_Atomic pid_t tid;
	int result;
};

static void *wait_here(void *arg)
{
	struct thread *thread = arg;
	struct ipc_queue_item item;

	thread->tid = gettid();
	thread->result = thread->producer ? push_in(thread->producer, 0, 1, WAIT_MS)
					  : (int)take_in(thread->consumer, &item, WAIT_MS);
	return NULL;
}

static void thread_start(struct thread *thread, ipc_queue_producer *producer,
			 ipc_queue_consumer *consumer)
{
	*thread = (struct thread){.producer = producer, .consumer = consumer};
	cr_assert_eq(pthread_create(&thread->thread, NULL, wait_here, thread), 0);
}

static void thread_until_asleep(struct thread *thread)
{
	while (!thread->tid)
		process_pause();
	process_until_asleep(thread->tid, 1);
}

static int thread_end(struct thread *thread)
{
	cr_assert_eq(pthread_join(thread->thread, NULL), 0);
	return thread->result;
}

/* M-28: waits end, and nothing else does. */
Test(queue_wait, cancel_ends_waits_and_nothing_else)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct thread taking, pushing;

	thread_start(&taking, NULL, consumer);
	thread_until_asleep(&taking);
	ASSERT(ipc_queue_consumer_cancel(consumer), 0);
	EXPECT(thread_end(&taking), IPC_ECANCELED);

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	thread_start(&pushing, producer, NULL);
	thread_until_asleep(&pushing);
	ASSERT(ipc_queue_producer_cancel(producer), 0);
	EXPECT(thread_end(&pushing), IPC_ECANCELED);
	EXPECT(push_in(producer, 0, 2, WAIT_MS), IPC_ECANCELED);
	EXPECT(push(producer, 0, 2), IPC_EAGAIN);
	EXPECT(look(consumer, READABLE), READABLE);
	EXPECT(eat(consumer), 1);
	EXPECT(look(consumer, READABLE), IPC_ECANCELED);
	EXPECT(eat_in(consumer, WAIT_MS), IPC_ECANCELED);
	EXPECT(eat(consumer), IPC_EAGAIN);
	EXPECT(push(producer, 0, 3), IPC_QUEUED);
	EXPECT(eat(consumer), 3);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-44: nothing stays with a handle that was closed under a call. */
Test(queue_wait, close_ends_waits_and_leaves_nothing)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *stays = CONSUMER_NEW(0), *consumer = NULL;
	struct ipc_queue_state state;
	struct thread taking;
	int r;

	for (uint32_t i = 0; i < 40; ++i) {
		ASSERT(consumer_open(&consumer, fixture_client, NAME,
				     (struct ipc_queue_options){0}),
		       0);
		thread_start(&taking, NULL, consumer);
		/* Woken by the push, it has just taken the item, or has not yet. */
		thread_until_asleep(&taking);
		ASSERT(push(producer, 0, i), IPC_QUEUED);
		ipc_queue_consumer_close(consumer);
		r = thread_end(&taking);
		cr_expect(r == (int)i || r == IPC_ECANCELED, "%s", ipc_error_name(r));
		ASSERT(eat(stays), i);
		state = state_of(producer);
		EXPECT(state.n_leased, 0);
		EXPECT(state.items[0], 0);
		EXPECT(state_missing(&state, 0), 0);
	}

	ipc_queue_consumer_close(stays);
	ipc_queue_producer_close(producer);
}

/* M-44: as a call that was overtaken by close, between its begin and what it takes. */
Test(queue_wait, what_is_taken_under_a_close_goes_back_at_once)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 2);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct endpoint *taking = (struct endpoint *)consumer;
	struct endpoint *claiming = (struct endpoint *)producer;
	struct ipc_queue_item items[2];
	void *claim = NULL;

	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	ASSERT(push(producer, 0, 2), IPC_QUEUED);
	atomic_store(&taking->closing, 1);
	EXPECT(ipc_queue_take(consumer, items), IPC_ECANCELED);
	EXPECT(ipc_queue_take_many(consumer, items, 2), IPC_ECANCELED);
	atomic_store(&taking->closing, 0);
	EXPECT(state_of(producer).n_leased, 0);
	ASSERT(ipc_queue_take_many(consumer, items, 2), 2);
	EXPECT(number_of(&items[0]), 1);
	ASSERT(ipc_queue_ack_many(consumer, items, 2), 2);

	atomic_store(&claiming->closing, 1);
	for (unsigned i = 0; i < 3; ++i)
		EXPECT(ipc_queue_claim(producer, 0, 1, &claim), IPC_ECANCELED);
	EXPECT(ipc_queue_commit(producer, &items, 1), IPC_ECANCELED);
	atomic_store(&claiming->closing, 0);
	cr_expect_null(claim);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* ---- readiness ---- */

/* M-34 */
Test(queue_wait, handles_are_ready_for_what_would_succeed)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.priorities = 1, .items_max = 1);
	ipc_queue_consumer *consumer = NULL;
	struct ipc_queue_item item;

	EXPECT(look(producer, READABLE), IPC_EINVAL);
	EXPECT(look(producer, WRITABLE | PRESENT | GONE), WRITABLE);
	EXPECT(look(producer, PRESENT), IPC_ETIMEDOUT);
	consumer = CONSUMER_NEW(0);
	EXPECT(look(producer, PRESENT | GONE), PRESENT);
	EXPECT(look(consumer, WRITABLE), IPC_EINVAL);
	EXPECT(look(consumer, READABLE | PRESENT), PRESENT);
	EXPECT(look(consumer, READABLE), IPC_ETIMEDOUT);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	EXPECT(look(producer, WRITABLE), IPC_ETIMEDOUT);
	EXPECT(look(consumer, READABLE), READABLE);
	ASSERT(take(consumer, &item), 1);
	EXPECT(look(producer, WRITABLE), IPC_ETIMEDOUT);
	EXPECT(look(consumer, READABLE), IPC_ETIMEDOUT);
	ASSERT(ipc_queue_requeue(consumer, &item), 0);
	EXPECT(look(consumer, READABLE), READABLE);
	EXPECT(eat(consumer), 1);
	EXPECT(look(producer, WRITABLE), WRITABLE);

	ipc_queue_producer_close(producer);
	ASSERT(ipc_queue_consumer_peers_wait(consumer, false, NULL), 0);
	EXPECT(look(consumer, READABLE | GONE), GONE | END);
	ipc_queue_consumer_close(consumer);
}

/* M-34: the end is told when the role's own call would say it. */
Test(queue_wait, producers_are_told_the_end_that_their_calls_would_say)
{
	ipc_queue_producer *producer =
		PRODUCER_NEW(.flags = IPC_KEEP, .items_max = 1, .priorities = 1);
	ipc_queue_producer *staying = PRODUCER_NEW(.flags = IPC_KEEP | IPC_STAY);
	ipc_queue_consumer *consumer = CONSUMER_NEW(.flags = IPC_KEEP);

	ipc_queue_consumer_close(consumer);
	ASSERT(ipc_queue_producer_peers_wait(producer, false, NULL), 0);
	EXPECT(look(producer, WRITABLE), WRITABLE);
	EXPECT(look(producer, GONE), GONE);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	EXPECT(look(producer, WRITABLE), END);
	EXPECT(look(staying, WRITABLE), IPC_ETIMEDOUT);
	EXPECT(look(staying, GONE), GONE);
	ipc_queue_producer_close(staying);
	ipc_queue_producer_close(producer);
	ASSERT(take_away(NAME, 0), 0);

	producer = PRODUCER_NEW(.flags = IPC_STAY);
	consumer = CONSUMER_NEW(0);
	ipc_queue_consumer_close(consumer);
	ASSERT(ipc_queue_producer_peers_wait(producer, false, NULL), 0);
	EXPECT(look(producer, WRITABLE), END);
	ipc_queue_producer_close(producer);
}

/* M-29, M-34: in a sleep. */
Test(queue_wait, sleepers_for_readiness_are_woken)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 1, .priorities = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct actor reader, writer;

	CONSUMER_START(&reader, 0);
	PRODUCER_START(&writer, 0);
	order_sleep(&reader, ORDER_WAIT_ANY, READABLE, 0);
	ASSERT(push(producer, 0, 1), IPC_QUEUED);
	EXPECT(actor_hear(&reader), READABLE);
	order_sleep(&writer, ORDER_WAIT_ANY, WRITABLE, 0);
	ASSERT(take(consumer, &item), 1);
	ASSERT(ipc_queue_ack(consumer, &item), 0);
	EXPECT(actor_hear(&writer), WRITABLE);

	order_sleep(&reader, ORDER_WAIT_ANY, READABLE, 0);
	ipc_queue_producer_close(producer);
	ASSERT(order_do(&writer, ORDER_CLOSE, 0, 0), 0);
	EXPECT(actor_hear(&reader), END);

	actor_kill(&reader);
	actor_kill(&writer);
	ipc_queue_consumer_close(consumer);
}
