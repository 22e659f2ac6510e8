/* SPDX-License-Identifier: MIT */
/*
 * How the waits of watch end: by a value, by the end of the other side, by shutdown, cancel, close,
 * deadline, signal.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/client/watch_scene.h"

static double ms_since(const struct timespec *began)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - began->tv_sec) * 1e3 +
	       (double)(now.tv_nsec - began->tv_nsec) / 1e6;
}

/* ---- the value ---- */

/* W-4, W-5 */
Test(watch_ends, waiting_consumer_gets_each_value_that_it_waits_for, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	struct actor consumer;
	struct answer answer;

	part_start(&consumer, IPC_ROLE_WATCH_CONSUMER, 0);
	for (uint64_t i = 1; i <= 20; ++i) {
		part_begin_to_sleep(&consumer, READ_WAIT, 0);
		cr_assert_eq(publish(producer, i * 3), 0);
		answer = part_answer(&consumer);
		cr_assert_eq(answer.result, 0);
		cr_assert_eq(answer.version, (int64_t)i);
		cr_assert_eq(answer.number, (int64_t)i * 3);
	}

	actor_kill(&consumer);
	ipc_watch_producer_close(producer);
}

/* W-4 */
Test(watch_ends, commit_wakes_and_abort_does_not, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	size_t size, size_max;
	struct actor consumer;
	struct answer answer;
	void *edited;

	part_start(&consumer, IPC_ROLE_WATCH_CONSUMER, 0);
	part_begin_to_sleep(&consumer, READ_WAIT, 0);

	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	cr_assert_eq(ipc_watch_abort(producer), 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	*(struct payload *)edited = value_of(8);
	cr_assert_eq(ipc_watch_commit(producer, sizeof(struct payload)), 0);

	answer = part_answer(&consumer);
	cr_assert_eq(answer.result, 0);
	cr_assert_eq(answer.version, 1);
	cr_assert_eq(answer.number, 8);

	actor_kill(&consumer);
	ipc_watch_producer_close(producer);
}

/* W-5, M-21: several values, then the end; the last one is seen, then the end, by sleepers and by
 * those who were busy */
Test(watch_ends, last_value_is_seen_before_the_end, SCENE)
{
	for (unsigned round = 0; round < 30; ++round) {
		struct actor producer, consumer;
		struct answer answer;
		uint64_t last = 0;

		part_start(&producer, IPC_ROLE_WATCH_PRODUCER, IPC_CREATE);
		part_start(&consumer, IPC_ROLE_WATCH_CONSUMER, 0);
		if (round % 2)
			part_begin_to_sleep(&consumer, READ_WAIT, 0);
		else
			part_begin(&consumer, READ_WAIT, 0);

		for (uint64_t i = 1; i <= 5; ++i)
			cr_assert_eq(part_do(&producer, PUBLISH, i), 0);
		if (round % 3 == 0)
			actor_kill(&producer);
		else
			cr_assert_eq(part_do(&producer, CLOSE, 0), 0);

		for (answer = part_answer(&consumer); answer.result == 0;
		     answer = part_answer(&consumer)) {
			cr_assert_gt((uint64_t)answer.version, last);
			cr_assert_eq(answer.number, answer.version);
			last = (uint64_t)answer.version;
			part_begin(&consumer, READ_WAIT, 0);
		}

		cr_assert_eq(last, 5, "round %u: the last value seen is %lu", round, last);
		cr_assert_eq(answer.result, round % 3 == 0 ? IPC_EOWNERDEAD : IPC_EPIPE);
		actor_kill(&consumer);
		if (round % 3)
			actor_kill(&producer);
	}
}

/* ---- the end of the producers ---- */

/* W-6, W-15, M-22 */
Test(watch_ends, close_of_the_last_producer_is_epipe_and_the_value_stays, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE),
			   *second = open_producer(client, 0);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	uint64_t version = 1, read_version = 0;
	struct actor waiting;
	struct payload value;

	cr_assert_eq(publish(producer, 4), 0);
	part_start(&waiting, IPC_ROLE_WATCH_CONSUMER, 0);
	cr_assert_eq(part_do(&waiting, READ_WAIT, 0), 0);
	part_begin_to_sleep(&waiting, READ_WAIT, 0);

	/* Not the last one: nothing ends. */
	ipc_watch_producer_close(second);
	cr_assert_eq(publish(producer, 5), 0);
	cr_assert_eq(part_answer(&waiting).result, 0);

	part_begin_to_sleep(&waiting, READ_WAIT, 0);
	ipc_watch_producer_close(producer);

	cr_assert_eq(part_answer(&waiting).result, IPC_EPIPE);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, NULL), 0);
	cr_assert_eq(number_now(consumer, &read_version), 5);
	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version), 0,
		     "newer than 1 there is 2");
	cr_assert_eq(version, 2);
	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version),
		     IPC_EPIPE);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL),
		     IPC_EPIPE);
	cr_assert_eq(number_now(consumer, &read_version), 5);

	actor_kill(&waiting);
	ipc_watch_consumer_close(consumer);
}

/* W-6, M-22, M-24 */
Test(watch_ends, death_of_the_last_producer_is_eownerdead_at_once, SCENE)
{
	ipc_watch_consumer *consumer = open_consumer(client, IPC_CREATE);
	struct actor producer, waiting;
	struct timespec began;
	double slowest = 0;

	for (unsigned round = 0; round < 5; ++round) {
		struct payload value;
		uint64_t version = 1000;
		double took;

		part_start(&producer, IPC_ROLE_WATCH_PRODUCER, 0);
		part_start(&waiting, IPC_ROLE_WATCH_CONSUMER, 0);
		cr_assert_eq(part_do(&producer, PUBLISH, round), 0);
		cr_assert_eq(part_do(&waiting, READ_WAIT, 0), 0);
		part_begin_to_sleep(&waiting, READ_WAIT, 0);

		clock_gettime(CLOCK_MONOTONIC, &began);
		actor_kill(&producer);
		cr_assert_eq(part_answer(&waiting).result, IPC_EOWNERDEAD);
		took = ms_since(&began);
		slowest = took > slowest ? took : slowest;

		cr_assert_eq(
			ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL),
			IPC_EOWNERDEAD);
		actor_kill(&waiting);
	}
	cr_log_info("the slowest of five deaths took %.2f ms", slowest);
	cr_assert_lt(slowest, 5000);

	ipc_watch_consumer_close(consumer);
}

/* M-22: exit() and return from main without close are not a close */
Test(watch_ends, exit_without_close_is_eownerdead, SCENE)
{
	ipc_watch_consumer *consumer = open_consumer(client, IPC_CREATE);
	struct actor producer;
	struct payload value;
	uint64_t version = 0;

	part_start(&producer, IPC_ROLE_WATCH_PRODUCER, 0);
	part_begin(&producer, EXIT, 0);
	cr_assert_eq(actor_join(&producer), 0);

	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL),
		     IPC_EOWNERDEAD);
	ipc_watch_consumer_close(consumer);
}

/* M-22: what nobody has begun cannot end */
Test(watch_ends, awaited_producers_end_nothing, SCENE)
{
	struct actor consumer;
	ipc_watch_producer *producer;

	part_start(&consumer, IPC_ROLE_WATCH_CONSUMER, IPC_CREATE);
	cr_assert_eq(part_do(&consumer, READ_NEXT, 0), IPC_EAGAIN);
	part_begin_to_sleep(&consumer, READ_WAIT, 0);

	producer = open_producer(client, 0);
	cr_assert_eq(publish(producer, 1), 0);

	cr_assert_eq(part_answer(&consumer).result, 0);
	actor_kill(&consumer);
	ipc_watch_producer_close(producer);
}

/* M-22: ends are counted; a producer that is back when the waiter looks does not undo the end */
Test(watch_ends, end_is_told_although_a_producer_is_there_again, SCENE)
{
	struct actor consumer, producer;

	for (int round = 0; round < 2; ++round) {
		part_start(&producer, IPC_ROLE_WATCH_PRODUCER, IPC_CREATE);
		part_start(&consumer, IPC_ROLE_WATCH_CONSUMER, 0);
		part_begin_to_sleep(&consumer, READ_WAIT, 0);

		kill(consumer.pid, SIGSTOP);
		if (round == 0)
			actor_kill(&producer);
		else
			cr_assert_eq(part_do(&producer, CLOSE, 0), 0);
		ipc_watch_producer *next = open_producer(client, 0);
		kill(consumer.pid, SIGCONT);

		cr_assert_eq(part_answer(&consumer).result,
			     round == 0 ? IPC_EOWNERDEAD : IPC_EPIPE);

		/* A wait that begins now has a producer. */
		part_begin(&consumer, READ_WAIT, 0);
		cr_assert_eq(publish(next, 1), 0);
		cr_assert_eq(part_answer(&consumer).result, 0);

		actor_kill(&consumer);
		if (round == 1)
			actor_kill(&producer);
		ipc_watch_producer_close(next);
	}
}

/* M-24, M-31: a stopped producer is alive */
Test(watch_ends, stopped_producer_ends_nothing, SCENE)
{
	ipc_watch_consumer *consumer;
	struct timespec soon;
	struct payload value;
	uint64_t version = 0;
	struct actor producer;

	part_start(&producer, IPC_ROLE_WATCH_PRODUCER, IPC_CREATE);
	consumer = open_consumer(client, 0);
	kill(producer.pid, SIGSTOP);

	soon = domain_deadline(300);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, &soon),
		     IPC_ETIMEDOUT);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 1);

	kill(producer.pid, SIGCONT);
	cr_assert_eq(part_do(&producer, PUBLISH, 2), 0);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL), 0);
	actor_kill(&producer);
	ipc_watch_consumer_close(consumer);
}

/* M-23: a process with both sides is its own producer, until that is closed */
Test(watch_ends, own_producer_counts_like_any_other, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	struct payload value;
	uint64_t version = 0;

	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version),
		     IPC_EAGAIN);
	ipc_watch_producer_close(producer);

	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL),
		     IPC_EPIPE);
	ipc_watch_consumer_close(consumer);
}

/* M-22, W-15 */
Test(watch_ends, with_ipc_stay_absence_is_waiting, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, IPC_STAY);
	struct actor staying;
	struct timespec past = {0, 0};
	struct payload value;
	uint64_t version = 0;

	part_start(&staying, IPC_ROLE_WATCH_CONSUMER, IPC_STAY);
	part_begin_to_sleep(&staying, READ_WAIT, 0);
	ipc_watch_producer_close(producer);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, NULL), 0);

	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version),
		     IPC_EAGAIN);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, &past),
		     IPC_ETIMEDOUT);
	actor_until_asleep(&staying);

	producer = open_producer(client, 0);
	cr_assert_eq(publish(producer, 6), 0);
	cr_assert_eq(part_answer(&staying).result, 0);

	actor_kill(&staying);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* W-7: producers do not end by the absence of consumers */
Test(watch_ends, producers_need_no_consumers, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	struct payload value = value_of(2);
	size_t size, size_max;
	void *edited;

	ipc_watch_consumer_close(consumer);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, NULL), 0);

	cr_assert_eq(publish(producer, 1), 0);
	cr_assert_eq(ipc_watch_publish_wait(producer, &value, sizeof(value), NULL), 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	cr_assert_eq(ipc_watch_commit(producer, size), 0);
	ipc_watch_producer_close(producer);
}

/* ---- shutdown ---- */

/* W-16, W-15, M-22, M-33 */
Test(watch_ends, shutdown_ends_every_wait_and_every_publish_for_ever, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE), *late;
	ipc_watch_consumer *consumer = open_consumer(client, IPC_STAY), *late_consumer;
	struct actor reading, staying, editing, publishing;
	uint64_t version = 0, read_version;
	struct payload value = value_of(1);
	size_t size, size_max;
	void *edited;

	cr_assert_eq(publish(producer, 21), 0);
	part_start(&reading, IPC_ROLE_WATCH_CONSUMER, 0);
	part_start(&staying, IPC_ROLE_WATCH_CONSUMER, IPC_STAY);
	part_start(&editing, IPC_ROLE_WATCH_PRODUCER, 0);
	part_start(&publishing, IPC_ROLE_WATCH_PRODUCER, 0);
	cr_assert_eq(part_do(&reading, READ_WAIT, 0), 0);
	cr_assert_eq(part_do(&staying, READ_WAIT, 0), 0);
	part_begin_to_sleep(&reading, READ_WAIT, 0);
	part_begin_to_sleep(&staying, READ_WAIT, 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	part_begin_to_sleep(&editing, EDIT, 0);
	part_begin_to_sleep(&publishing, PUBLISH_WAIT, 3);

	cr_assert_eq(ipc_watch_shutdown(producer), 0);

	cr_assert_eq(part_answer(&reading).result, IPC_EPIPE);
	cr_assert_eq(part_answer(&staying).result, IPC_EPIPE);
	cr_assert_eq(part_answer(&editing).result, IPC_EPIPE);
	cr_assert_eq(part_answer(&publishing).result, IPC_EPIPE);
	cr_assert_eq(ipc_watch_commit(producer, 8), IPC_EPIPE);
	cr_assert_eq(ipc_watch_abort(producer), 0);
	cr_assert_eq(publish(producer, 1), IPC_EPIPE);
	cr_assert_eq(ipc_watch_publish_wait(producer, &value, sizeof(value), NULL), IPC_EPIPE);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), IPC_EPIPE);
	cr_assert_eq(ipc_watch_shutdown(producer), 0);

	/* The last value stays, for those too who come now. */
	late = open_producer(client, 0);
	late_consumer = open_consumer(client, 0);
	cr_assert_eq(publish(late, 1), IPC_EPIPE);
	cr_assert_eq(number_now(late_consumer, &read_version), 21);
	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version), 0);
	cr_assert_eq(number_of(&value), 21);
	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version),
		     IPC_EPIPE);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL),
		     IPC_EPIPE);

	actor_kill(&reading);
	actor_kill(&staying);
	actor_kill(&editing);
	actor_kill(&publishing);
	ipc_watch_consumer_close(late_consumer);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(late);
	ipc_watch_producer_close(producer);
}

/* M-32: a final end ends the wait for somebody to come */
Test(watch_ends, shutdown_ends_waits_for_consumers, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	struct actor waiting;

	part_start(&waiting, IPC_ROLE_WATCH_PRODUCER, 0);
	part_begin_to_sleep(&waiting, PEERS_WAIT, true);

	cr_assert_eq(ipc_watch_shutdown(producer), 0);

	cr_assert_eq(part_answer(&waiting).result, IPC_EPIPE);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, NULL), 0);
	actor_kill(&waiting);
	ipc_watch_producer_close(producer);
}

/* ---- cancel, close ---- */

struct waiting {
	ipc_watch_consumer *consumer;
	ipc_watch_producer *producer;
	_Atomic int tid; /* 0: not running yet */
	int result;
};

static void *wait_for_value(void *arg)
{
	struct waiting *waiting = arg;
	struct payload value;
	uint64_t version = 0;

	atomic_store(&waiting->tid, gettid());
	waiting->result =
		ipc_watch_read_wait(waiting->consumer, &value, sizeof(value), NULL, &version, NULL);
	return NULL;
}

static void *wait_for_lock(void *arg)
{
	struct waiting *waiting = arg;
	size_t size, size_max;
	void *edited;

	atomic_store(&waiting->tid, gettid());
	waiting->result = ipc_watch_edit_wait(waiting->producer, &edited, &size, &size_max, NULL);
	return NULL;
}

static pthread_t begin(void *(*fn)(void *), struct waiting *waiting)
{
	pthread_t thread;

	atomic_store(&waiting->tid, 0);
	waiting->result = 1234;
	cr_assert_eq(pthread_create(&thread, NULL, fn, waiting), 0);
	while (!atomic_load(&waiting->tid))
		sched_yield();
	process_until_asleep(atomic_load(&waiting->tid), 1);
	return thread;
}

/* M-28 */
Test(watch_ends, cancel_ends_waits_now_and_later_but_nothing_else, SCENE)
{
	struct waiting waiting = {.producer = open_producer(client, IPC_CREATE)};
	struct payload value = value_of(1);
	uint64_t version = 0;
	struct actor editor;
	size_t size, size_max;
	pthread_t thread;
	void *edited;

	part_start(&editor, IPC_ROLE_WATCH_PRODUCER, 0);
	cr_assert_eq(part_do(&editor, EDIT, 0), 0);

	waiting.consumer = open_consumer(client, 0);
	thread = begin(wait_for_value, &waiting);
	cr_assert_eq(ipc_watch_consumer_cancel(waiting.consumer), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(waiting.result, IPC_ECANCELED);
	cr_assert_eq(
		ipc_watch_read_wait(waiting.consumer, &value, sizeof(value), NULL, &version, NULL),
		IPC_ECANCELED);

	thread = begin(wait_for_lock, &waiting);
	cr_assert_eq(ipc_watch_producer_cancel(waiting.producer), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(waiting.result, IPC_ECANCELED);
	cr_assert_eq(ipc_watch_edit_wait(waiting.producer, &edited, &size, &size_max, NULL),
		     IPC_ECANCELED);
	cr_assert_eq(ipc_watch_publish_wait(waiting.producer, &value, sizeof(value), NULL),
		     IPC_ECANCELED);
	cr_assert_eq(ipc_watch_producer_peers_wait(waiting.producer, false, NULL), IPC_ECANCELED);

	cr_assert_eq(part_do(&editor, ABORT, 0), 0);
	cr_assert_eq(publish(waiting.producer, 3), 0);
	cr_assert_eq(ipc_watch_read_next(waiting.consumer, &value, sizeof(value), NULL, &version),
		     0);
	cr_assert_eq(number_of(&value), 3);

	actor_kill(&editor);
	ipc_watch_consumer_close(waiting.consumer);
	ipc_watch_producer_close(waiting.producer);
}

/* M-44 */
Test(watch_ends, close_ends_the_waits_of_other_threads, SCENE)
{
	struct waiting waiting = {.producer = open_producer(client, IPC_CREATE)};
	ipc_watch_producer *other = open_producer(client, 0);
	struct actor editor;
	pthread_t thread;

	part_start(&editor, IPC_ROLE_WATCH_PRODUCER, 0);
	cr_assert_eq(part_do(&editor, EDIT, 0), 0);

	waiting.consumer = open_consumer(client, 0);
	thread = begin(wait_for_value, &waiting);
	ipc_watch_consumer_close(waiting.consumer);
	pthread_join(thread, NULL);
	cr_assert_eq(waiting.result, IPC_ECANCELED);

	thread = begin(wait_for_lock, &waiting);
	ipc_watch_producer_close(waiting.producer);
	pthread_join(thread, NULL);
	cr_assert_eq(waiting.result, IPC_ECANCELED);

	cr_assert_eq(part_do(&editor, ABORT, 0), 0);
	cr_assert_eq(publish(other, 1), 0, "the closed handle has the lock");
	actor_kill(&editor);
	ipc_watch_producer_close(other);
}

struct closing {
	ipc_watch_producer *producer;
	_Atomic int tid;
	int result;
};

static void *edit_under_close(void *arg)
{
	struct closing *closing = arg;
	size_t size, size_max;
	void *edited;

	atomic_store(&closing->tid, gettid());
	closing->result = ipc_watch_edit_wait(closing->producer, &edited, &size, &size_max, NULL);
	return NULL;
}

/*
 * M-44: the other thread is inside of edit_wait when the lock becomes free and the handle is
 * closed, both at once: whoever comes first, the lock is free as soon as that thread has ended.
 */
Test(watch_ends, close_racing_an_edit_leaves_no_lock_behind, SCENE)
{
	ipc_watch_producer *other = open_producer(client, IPC_CREATE);
	unsigned n_edited = 0;
	struct actor editor;

	part_start(&editor, IPC_ROLE_WATCH_PRODUCER, 0);
	for (unsigned i = 0; i < 300; ++i) {
		struct closing closing = {.producer = open_producer(client, 0)};
		struct timespec deadline = domain_deadline(30000);
		struct payload value = value_of(i);
		pthread_t thread;

		cr_assert_eq(part_do(&editor, EDIT, 0), 0);
		cr_assert_eq(pthread_create(&thread, NULL, edit_under_close, &closing), 0);
		while (!atomic_load(&closing.tid))
			sched_yield();
		process_until_asleep(atomic_load(&closing.tid), 1);

		part_begin(&editor, ABORT, 0);
		for (unsigned k = 0; k < (i % 16) * 1000; ++k)
			__asm__ __volatile__("");
		ipc_watch_producer_close(closing.producer);
		pthread_join(thread, NULL);
		cr_assert_eq(part_answer(&editor).result, 0);

		/* It may have had the edit before the close, and ended with it: a death. */
		cr_assert(closing.result == 0 || closing.result == IPC_ECANCELED, "%s",
			  ipc_error_name(closing.result));
		n_edited += closing.result == 0;
		cr_assert_eq(ipc_watch_publish_wait(other, &value, sizeof(value), &deadline), 0);
	}

	cr_log_info("%u of 300 had the edit before the close", n_edited);
	leaks.n_segments += n_edited; /* kept mapped */
	actor_kill(&editor);
	ipc_watch_producer_close(other);
}

/* ---- deadlines and signals ---- */

/* M-20, M-21: a deadline that has passed is one look, and what is there is given */
Test(watch_ends, past_deadline_is_one_look, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	struct timespec past = {0, 0}, negative = {-5, 0};
	struct payload value;
	uint64_t version = 0;

	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, &past),
		     IPC_ETIMEDOUT);
	cr_assert_eq(
		ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, &negative),
		IPC_ETIMEDOUT);
	cr_assert_eq(publish(producer, 1), 0);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, &past),
		     0);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

static void on_signal(int signal)
{
	(void)signal;
}

static void wait_under_signals(struct actor *self, void *arg)
{
	const struct part *part = arg;
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)part->flags};
	struct timespec deadline = domain_deadline(30000);
	ipc_watch_consumer *consumer;
	struct payload value;
	uint64_t version = 0;
	ipc_client *own;

	sigaction(SIGUSR1, &action, NULL);
	if (ipc_client_connect_wait(
		    &own,
		    IPC_CLIENT_OPTIONS(.address = domain.address, .flags = part->client_flags),
		    &deadline) < 0 ||
	    ipc_watch_consumer_open_wait(&consumer, own, NAME, NULL, NULL) < 0)
		_exit(1);
	actor_say(self, 0);
	actor_say(self, ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL));
}

/* M-21 */
Test(watch_ends, signals_end_a_wait_only_without_sa_restart, SCENE)
{
	const struct {
		struct part part;
		int expected;
	} cases[] = {
		{{.flags = 0}, IPC_EINTR},
		{{.flags = SA_RESTART}, 0},
		{{.client_flags = IPC_CLIENT_NO_EINTR}, 0},
	};
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);

	for (unsigned i = 0; i < 3; ++i) {
		ipc_watch_consumer *before = open_consumer(client, 0);
		struct actor waiting;

		actor_start(&waiting, wait_under_signals, (void *)(uintptr_t)&cases[i].part);
		cr_assert_eq(actor_hear(&waiting), 0);
		actor_until_asleep(&waiting);
		kill(waiting.pid, SIGUSR1);
		if (cases[i].expected == 0) {
			actor_until_asleep(&waiting);
			cr_assert_eq(publish(producer, i), 0);
		}
		cr_assert_eq(actor_hear(&waiting), cases[i].expected, "case %u", i);
		cr_assert_eq(actor_join(&waiting), 0);
		ipc_watch_consumer_close(before);
		ipc_watch_producer_close(producer);
		producer = open_producer(client, IPC_CREATE);
	}
	ipc_watch_producer_close(producer);
}

static ipc_watch_consumer *signalled;

static void cancel_on_signal(int signal)
{
	(void)signal;
	(void)ipc_watch_consumer_cancel(signalled);
}

static void wait_until_cancelled(struct actor *self, void *arg)
{
	struct sigaction action = {.sa_handler = cancel_on_signal, .sa_flags = SA_RESTART};
	ipc_client *own = domain_connect(&domain);
	struct payload value;
	uint64_t version = 0;

	(void)arg;
	if (ipc_watch_consumer_open_wait(&signalled, own, NAME, NULL, NULL) < 0)
		_exit(1);
	sigaction(SIGUSR1, &action, NULL);
	actor_say(self, 0);
	actor_say(self,
		  ipc_watch_read_wait(signalled, &value, sizeof(value), NULL, &version, NULL));
}

/* M-28: cancel in a signal handler is never lost, however it falls between look and sleep */
Test(watch_ends, cancel_in_a_signal_handler_ends_the_wait, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);

	for (int i = 0; i < 30; ++i) {
		struct actor waiting;

		actor_start(&waiting, wait_until_cancelled, NULL);
		cr_assert_eq(actor_hear(&waiting), 0);
		if (i % 3 == 0)
			actor_until_asleep(&waiting);
		kill(waiting.pid, SIGUSR1);
		cr_assert_eq(actor_hear(&waiting), IPC_ECANCELED);
		cr_assert_eq(actor_join(&waiting), 0);
	}
	ipc_watch_producer_close(producer);
}

/* ---- the broker ---- */

/* M-4, M-6, M-31 */
Test(watch_ends, values_flow_while_the_worker_is_killed, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	struct actor consumer, other;

	part_start(&consumer, IPC_ROLE_WATCH_CONSUMER, 0);
	part_start(&other, IPC_ROLE_WATCH_PRODUCER, 0);
	for (uint64_t i = 1; i <= 5; ++i) {
		part_begin_to_sleep(&consumer, READ_WAIT, 0);
		domain_kill_worker(&domain);
		actor_until_asleep(&consumer);
		cr_assert_eq(publish(producer, i), 0);
		cr_assert_eq(part_answer(&consumer).number, (int64_t)i);
	}

	part_begin_to_sleep(&consumer, READ_WAIT, 0);
	ipc_watch_producer_close(producer);
	domain_kill_worker(&domain);
	actor_kill(&other);
	cr_assert_eq(part_answer(&consumer).result, IPC_EOWNERDEAD);
	actor_kill(&consumer);
}
