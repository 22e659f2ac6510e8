/* SPDX-License-Identifier: MIT */
/*
 * queue through the public interface: what consumers hold, and what becomes of it.
 */
#include "tests/client/queue_scene.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

TestSuite(queue_leases, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static void push_numbers(ipc_queue_producer *producer, uint32_t first, uint32_t last)
{
	for (uint32_t i = first; i <= last; ++i)
		ASSERT(push(producer, 0, i), IPC_QUEUED);
}

/* in front of its priority, one attempt further. */
Test(queue_leases, requeued_item_comes_first_again)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item, again;

	push_numbers(producer, 1, 3);
	ASSERT(take(consumer, &item), 1);
	ASSERT(ipc_queue_requeue(consumer, &item), 0);
	ASSERT(take(consumer, &again), 1);
	EXPECT(again.attempt, 2);
	EXPECT(again.enqueued_ns, item.enqueued_ns);
	EXPECT(again.origin, item.origin);
	EXPECT(again.reason, IPC_DEAD_NONE);
	EXPECT(eat(consumer), 2);
	ASSERT(ipc_queue_requeue(consumer, &again), 0);
	ASSERT(take(consumer, &again), 1);
	EXPECT(again.attempt, 3);

	/* the old lease is none any more. */
	EXPECT(ipc_queue_ack(consumer, &item), IPC_ESTALE);
	EXPECT(ipc_queue_ack(consumer, &again), 0);
	EXPECT(eat(consumer), 3);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* a poison item comes at once until there were enough attempts; then it is dropped. */
Test(queue_leases, item_with_too_many_attempts_is_dropped)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.attempts_max = 2);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct ipc_queue_state state;

	push_numbers(producer, 1, 2);
	for (unsigned i = 0; i < 2; ++i) {
		ASSERT(take(consumer, &item), 1);
		EXPECT(item.attempt, i + 1);
		ASSERT(ipc_queue_requeue(consumer, &item), 0);
	}
	EXPECT(eat(consumer), 2);
	EXPECT(eat(consumer), IPC_EAGAIN);
	state = state_at(consumer);
	EXPECT(state.dropped[0][IPC_DEAD_ATTEMPTS], 1);
	EXPECT(state_missing(&state, 0), 0);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_leases, rejected_item_without_dead_letters_is_dropped)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 1);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;

	push_numbers(producer, 1, 1);
	ASSERT(take(consumer, &item), 1);
	ASSERT(ipc_queue_reject(consumer, &item), 0);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_REJECTED], 1);
	EXPECT(push(producer, 0, 2), IPC_QUEUED);
	EXPECT(eat(consumer), 2);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(queue_leases, lease_is_settled_once_and_by_its_handle)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0), *other = CONSUMER_NEW(0);
	struct ipc_queue_item item, none = {0};
	struct actor thief;

	CONSUMER_START(&thief, 0);
	push_numbers(producer, 1, 1);
	ASSERT(take(consumer, &item), 1);
	EXPECT(ipc_queue_ack(other, &item), IPC_ESTALE);
	EXPECT(ipc_queue_requeue(other, &item), IPC_ESTALE);
	EXPECT(ipc_queue_reject(other, &item), IPC_ESTALE);
	EXPECT(order_do(&thief, ORDER_ACK_THAT, (int64_t)item.lease, 0), IPC_ESTALE);
	EXPECT(ipc_queue_ack(consumer, &none), IPC_ESTALE);
	none.lease = UINT64_MAX;
	EXPECT(ipc_queue_ack(consumer, &none), IPC_ESTALE);
	ASSERT(ipc_queue_ack(consumer, &item), 0);
	EXPECT(ipc_queue_ack(consumer, &item), IPC_ESTALE);
	EXPECT(ipc_queue_requeue(consumer, &item), IPC_ESTALE);
	EXPECT(ipc_queue_reject(consumer, &item), IPC_ESTALE);

	/* The same block, another item. */
	push_numbers(producer, 2, 2);
	EXPECT(eat(consumer), 2);
	EXPECT(ipc_queue_ack(consumer, &item), IPC_ESTALE);

	actor_kill(&thief);
	ipc_queue_consumer_close(other);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* so a requeue never lacks it. */
Test(queue_leases, leased_items_hold_their_room)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.items_max = 2);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item items[2];

	push_numbers(producer, 1, 2);
	ASSERT(ipc_queue_take_many(consumer, items, 2), 2);
	EXPECT(push(producer, 0, 3), IPC_EAGAIN);
	EXPECT(state_of(producer).leased[0], 2);
	EXPECT(state_of(producer).items[0], 0);
	ASSERT(ipc_queue_requeue(consumer, &items[1]), 0);
	EXPECT(push(producer, 0, 3), IPC_EAGAIN);
	ASSERT(ipc_queue_ack(consumer, &items[0]), 0);
	EXPECT(push(producer, 0, 3), IPC_QUEUED);
	EXPECT(eat(consumer), 2);
	EXPECT(eat(consumer), 3);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* ---- ends of consumers ---- */

static void expect_back_after(bool dies)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct ipc_queue_state state;
	struct actor other;

	CONSUMER_START(&other, 0);
	push_numbers(producer, 1, 5);
	for (unsigned i = 1; i <= 4; ++i)
		ASSERT(order_do(&other, ORDER_TAKE, 0, 0), i);
	ASSERT(order_do(&other, ORDER_ACK, 1, 0), 0);
	member_end(&other, dies);

	for (uint32_t i = 1; i <= 4; ++i) {
		if (i == 2)
			continue;
		ASSERT(take(consumer, &item), i);
		EXPECT(item.attempt, 2);
		ASSERT(ipc_queue_ack(consumer, &item), 0);
	}
	ASSERT(take(consumer, &item), 5);
	EXPECT(item.attempt, 1);
	EXPECT(eat(consumer), IPC_EAGAIN);
	state = state_at(consumer);
	EXPECT(state_missing(&state, 0), 0);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* Q-5, M-25: oldest first, and each says that it was delivered before. */
Test(queue_leases, items_of_a_dead_consumer_go_to_the_next)
{
	expect_back_after(true);
}

/* Q-15, M-44 */
Test(queue_leases, items_of_a_closed_consumer_go_to_the_next)
{
	expect_back_after(false);
}

/* whoever waits already gets them, and at once. */
Test(queue_leases, death_of_a_consumer_wakes_who_waits)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.attempts_max = 100);
	struct actor holder, waiter;

	CONSUMER_START(&waiter, 0);
	for (uint32_t i = 1; i <= 5; ++i) {
		uint64_t began;

		CONSUMER_START(&holder, 0);
		push_numbers(producer, i, i);
		ASSERT(order_do(&holder, ORDER_TAKE, 0, 0), i);
		order_sleep(&waiter, ORDER_TAKE_WAIT, 0, 0);
		began = clock_now_ns();
		actor_kill(&holder);
		ASSERT(actor_hear(&waiter), i);
		cr_expect_lt(clock_now_ns() - began, NS_PER_S);
		EXPECT(order_do(&waiter, ORDER_ATTEMPT, i - 1, 0), 2);
		ASSERT(order_do(&waiter, ORDER_ACK, i - 1, 0), 0);
	}

	actor_kill(&waiter);
	ipc_queue_producer_close(producer);
}

/* Q-5, M-50, M-54: the same between users. */
Test(queue_leases, items_go_from_user_to_user_and_come_back)
{
	struct actor holder, waiter;
	ipc_queue_producer *producer;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	producer = PRODUCER_NEW(.mode = 0666, .attempts_max = 100, .items_max = 1);
	CONSUMER_START(&waiter, 0);
	member_start(&holder, (struct member){.role = IPC_ROLE_QUEUE_CONSUMER, .uid = OTHER_UID});
	order_sleep(&holder, ORDER_TAKE_WAIT, 0, 0);
	push_numbers(producer, 1, 1);
	ASSERT(actor_hear(&holder), 1);
	order_sleep(&waiter, ORDER_TAKE_WAIT, 0, 0);
	actor_kill(&holder);
	ASSERT(actor_hear(&waiter), 1);
	EXPECT(order_do(&waiter, ORDER_ATTEMPT, 0, 0), 2);
	EXPECT(order_do(&waiter, ORDER_ACK, 0, 0), 0);

	member_start(&holder, (struct member){.role = IPC_ROLE_QUEUE_PRODUCER, .uid = OTHER_UID});
	ASSERT(order_do(&holder, ORDER_CLAIM, 0, 9), 0);
	actor_kill(&holder);
	EXPECT(push_in(producer, 0, 2, WAIT_MS), 0);

	actor_kill(&waiter);
	ipc_queue_producer_close(producer);
}

/* nobody was there when it was told. */
Test(queue_leases, items_of_the_dead_wait_in_a_kept_queue_for_the_next_consumer)
{
	enum { DEAD_ONES = 3 };
	ipc_queue_producer *producer = PRODUCER_NEW(.flags = IPC_KEEP);
	struct actor dead[DEAD_ONES], next;
	ipc_client *idle[DEAD_ONES];

	push_numbers(producer, 0, DEAD_ONES - 1);
	for (unsigned i = 0; i < DEAD_ONES; ++i) {
		CONSUMER_START(&dead[i], 0);
		ASSERT(order_do(&dead[i], ORDER_TAKE, 0, 0), i);
	}
	ipc_queue_producer_close(producer);
	for (unsigned i = 0; i < DEAD_ONES; ++i)
		member_end(&dead[i], true);

	/* So that the next one is a client of whom nobody has been told anything yet. */
	for (unsigned i = 0; i < DEAD_ONES; ++i)
		idle[i] = domain_connect(&fixture_domain);
	CONSUMER_START(&next, .flags = IPC_STAY);
	for (unsigned i = 0; i < DEAD_ONES; ++i)
		EXPECT(order_do(&next, ORDER_TAKE, 0, 0), i);
	EXPECT(order_do(&next, ORDER_ATTEMPT, 0, 0), 2);
	actor_kill(&next);
	for (unsigned i = 0; i < DEAD_ONES; ++i)
		ipc_client_unref(idle[i]);
	ASSERT(take_away(NAME, 0), 0);
}

/* an item that kills who takes it is not taken for ever. */
Test(queue_leases, item_that_kills_its_consumers_is_dropped)
{
	ipc_queue_producer *producer = PRODUCER_NEW(.attempts_max = 2);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct actor dead;

	push_numbers(producer, 1, 1);
	for (unsigned i = 0; i < 2; ++i) {
		CONSUMER_START(&dead, 0);
		ASSERT(order_do(&dead, ORDER_TAKE, 0, 0), 1);
		member_end(&dead, true);
	}
	EXPECT(eat(consumer), IPC_EAGAIN);
	EXPECT(state_at(consumer).dropped[0][IPC_DEAD_ATTEMPTS], 1);

	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* Q-14, M-24: no timeout; one that is stopped keeps what it holds. */
Test(queue_leases, stopped_consumer_keeps_its_leases)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct actor stopped;

	CONSUMER_START(&stopped, 0);
	push_numbers(producer, 1, 2);
	ASSERT(order_do(&stopped, ORDER_TAKE, 0, 0), 1);
	cr_assert_eq(kill(stopped.pid, SIGSTOP), 0);
	EXPECT(eat(consumer), 2);
	EXPECT(eat_in(consumer, 300), IPC_ETIMEDOUT);
	cr_assert_eq(kill(stopped.pid, SIGCONT), 0);
	EXPECT(order_do(&stopped, ORDER_ACK, 0, 0), 0);

	actor_kill(&stopped);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* Q-14, M-24: held dead while it lives, it has lost them. */
Test(queue_leases, leases_of_one_held_dead_are_taken_over)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct actor other;
	uint64_t id;

	CONSUMER_START(&other, 0);
	push_numbers(producer, 1, 1);
	ASSERT(order_do(&other, ORDER_TAKE, 0, 0), 1);
	id = (uint64_t)order_do(&other, ORDER_ID, 0, 0);
	ASSERT(order_do(&other, ORDER_CLOSE_FDS, 0, 0), 0);
	until_not_alive(id);
	ASSERT(take(consumer, &item), 1);
	EXPECT(item.attempt, 2);
	EXPECT(order_do(&other, ORDER_ACK, 0, 0), IPC_ESTALE);
	EXPECT(order_do(&other, ORDER_TAKE, 0, 0), IPC_ESTALE);
	EXPECT(ipc_queue_ack(consumer, &item), 0);

	actor_kill(&other);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

static ipc_queue_consumer *sleepers;
static _Atomic pid_t sleeper;

static void *sleep_in_take(void *arg)
{
	struct ipc_queue_item item;

	(void)arg;
	atomic_store(&sleeper, (pid_t)gettid());
	(void)!ipc_queue_take_wait(sleepers, &item, NULL);
	return NULL;
}

static bool thread_is_asleep(pid_t tid)
{
	char path[64], text[512] = "";
	const char *state;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	(void)!fread(text, 1, sizeof(text) - 1, file);
	(void)fclose(file);
	state = strrchr(text, ')');
	return state && state[1] && state[2] == 'S';
}

/* In a process of its own: one thread sleeps for an item while another takes the descriptors away.
 */
static void sleep_and_be_held_dead(int fd)
{
	ipc_client *client = domain_connect(&fixture_domain);
	pthread_t thread;
	uint64_t id;

	if (consumer_open(&sleepers, client, NAME, (struct ipc_queue_options){0}) < 0 ||
	    ipc_queue_consumer_get_id(sleepers, &id) < 0 ||
	    pthread_create(&thread, NULL, sleep_in_take, NULL) != 0)
		_exit(1);
	while (atomic_load(&sleeper) == 0 || !thread_is_asleep(atomic_load(&sleeper)))
		process_pause();
	(void)!write(fd, &id, sizeof(id));
	member_close_fds(2);
	for (;;)
		pause();
}

/* Until the process has one thread: the sleeper has come back, with or without the item. */
static void until_alone(pid_t pid)
{
	struct timespec limit = process_deadline(WAIT_MS);
	char path[64];
	struct stat tasks;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	do {
		cr_assert(!process_has_passed(&limit), "it sleeps for ever");
		process_pause();
		cr_assert_eq(stat(path, &tasks), 0);
	} while (tasks.st_nlink > 3);
}

/* M-24, M-25: an item that wakes a thread of who is held dead is somebody else's. */
Test(queue_leases, sleeper_of_one_held_dead_keeps_nothing)
{
	ipc_queue_producer *producer = PRODUCER_NEW(0);
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	int fds[2];
	uint64_t id;
	pid_t pid;

	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	pid = process_fork();
	if (pid == 0)
		sleep_and_be_held_dead(fds[1]);
	cr_assert_eq(read(fds[0], &id, sizeof(id)), (ssize_t)sizeof(id));
	until_not_alive(id);
	EXPECT(eat(consumer), IPC_EAGAIN);
	push_numbers(producer, 1, 1);
	until_alone(pid);
	ASSERT(take_in(consumer, &item, 3000), 1);
	EXPECT(ipc_queue_ack(consumer, &item), 0);

	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	close(fds[0]);
	close(fds[1]);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* M-70: until it is settled, whatever happens to others. */
Test(queue_leases, bytes_stay_valid_after_everybody_else_is_gone)
{
	ipc_queue_consumer *consumer = CONSUMER_NEW(0);
	struct ipc_queue_item item;
	struct actor producer;
	void *claim;
	ipc_queue_producer *own;

	PRODUCER_START(&producer, 0);
	ASSERT(order_do(&producer, ORDER_PUSH, 0, 77), IPC_QUEUED);
	ASSERT(take(consumer, &item), 77);
	actor_kill(&producer);
	ASSERT(ipc_queue_shutdown(consumer), 0);
	ASSERT(take_away(NAME, 0), 0);
	domain_kill_worker(&fixture_domain);
	EXPECT(number_of(&item), 77);
	EXPECT(ipc_queue_ack(consumer, &item), 0);
	ipc_queue_consumer_close(consumer);

	/* The same for claims. */
	own = PRODUCER_NEW(0);
	ASSERT(ipc_queue_claim(own, 0, 16, &claim), 0);
	ASSERT(take_away(NAME, 0), 0);
	memset(claim, 1, 16);
	EXPECT(ipc_queue_abort(own, claim), 0);
	ipc_queue_producer_close(own);
}
