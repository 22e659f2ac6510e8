/* SPDX-License-Identifier: MIT */
/*
 * Work for others: what a killed consumer held comes back, an item that kills its consumers ends as
 * a dead letter, and under kills all the time each item is handled.
 */
#include "examples/demo/demo.h"

#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	N_HELD = 5,
	N_PRODUCERS = 4,
	N_EACH = 5000,
	N_CONSUMERS = 2,
	N_KILLS = 20,
	N_AT_ONCE = 16,
	WORK_NS = 5000
};

static const char channel[] = "demo/work", load[] = "demo/load", letters[] = "demo/dead";

/* The same for all who open them.  Under load and kills an item may be in many hands that die. */
static struct ipc_queue_options options_of(const char *name)
{
	struct ipc_queue_options options = IPC_QUEUE_OPTIONS_INIT;

	options.flags = IPC_CREATE | IPC_KEEP | IPC_STAY;
	options.items_max = 256;
	options.item_size_max = 64;
	options.attempts_max = name == load ? 1000 : 3;
	options.dead_letters = name == letters ? NULL : letters;
	return options;
}

static ipc_queue_consumer *consumer_open(ipc_client *client, const char *name)
{
	struct ipc_queue_options options = options_of(name);
	struct timespec deadline = in_seconds(5);
	ipc_queue_consumer *consumer;
	int r;

	r = ipc_queue_consumer_open_wait(&consumer, client, name, &options, &deadline);
	if (r < 0)
		fail("open consumer", r);
	return consumer;
}

static ipc_queue_producer *producer_open(ipc_client *client, const char *name)
{
	struct ipc_queue_options options = options_of(name);
	struct timespec deadline = in_seconds(5);
	ipc_queue_producer *producer;
	int r;

	r = ipc_queue_producer_open_wait(&producer, client, name, &options, &deadline);
	if (r < 0)
		fail("open producer", r);
	return producer;
}

static void push(ipc_queue_producer *producer, unsigned priority, uint32_t number)
{
	struct timespec deadline = in_seconds(5);
	int r;

	r = ipc_queue_push_wait(producer, priority, &number, sizeof(number), &deadline);
	if (r < 0)
		fail("push", r);
}

static uint32_t number_of(const struct ipc_queue_item *item)
{
	uint32_t number = UINT32_MAX;

	if (item->size == sizeof(number))
		memcpy(&number, item->data, sizeof(number));
	return number;
}

/* ---- a consumer is killed with items in its hands ---- */

static void holder(int fd)
{
	ipc_queue_consumer *consumer = consumer_open(broker_connect(), channel);
	struct ipc_queue_item items[N_HELD];
	int n = 0;

	while (n < N_HELD) {
		int r = ipc_queue_take_wait(consumer, &items[n], NULL);

		if (r < 0)
			fail("take", r);
		++n;
	}
	report(fd, n, 0, 0);
	for (;;)
		(void)pause();
}

/* Reports of each item its number and its attempt. */
static void taker(int fd)
{
	ipc_queue_consumer *consumer = consumer_open(broker_connect(), channel);
	struct ipc_queue_item item;

	report(fd, 0, 0, 0);
	for (;;) {
		int r = ipc_queue_take_wait(consumer, &item, NULL);

		report(fd, r, r < 0 ? 0 : number_of(&item), r < 0 ? 0 : item.attempt);
		if (r == 0)
			r = ipc_queue_ack(consumer, &item);
		if (r < 0)
			fail("take", r);
	}
}

static void play_held(ipc_queue_producer *producer)
{
	struct member dying, living;
	bool in_order = true;
	int64_t killed_at, first_at = 0;

	act("A consumer is killed with five items in its hands; another one waits");
	dying = member_start(holder);
	for (uint32_t i = 0; i < N_HELD; ++i)
		push(producer, 1, i);
	(void)member_hear(dying);
	living = member_start(taker);
	(void)member_hear(living);
	member_until_asleep(living);

	killed_at = member_kill(dying);
	for (uint32_t i = 0; i < N_HELD; ++i) {
		struct report got = member_hear(living);

		in_order = in_order && got.result == 0 && got.number == i && got.other == 2;
		first_at = first_at ? first_at : got.at_ns;
	}
	printf("    the other one had the first of them after %6.0f us\n",
	       (double)(first_at - killed_at) / 1e3);
	check(in_order, "all five came again, in their order, marked as the second attempt");
	(void)close(dying.fd);
	member_end(living);
}

/* ---- an item that kills ---- */

static void victim(int fd)
{
	ipc_queue_consumer *consumer = consumer_open(broker_connect(), channel);
	struct ipc_queue_item item;
	int r = ipc_queue_take_wait(consumer, &item, NULL);

	report(fd, r, r < 0 ? 0 : item.attempt, 0);
	for (;;)
		(void)pause();
}

static void play_poison(ipc_queue_producer *producer, ipc_queue_consumer *dead)
{
	struct timespec deadline = in_seconds(5);
	struct member living;
	struct ipc_queue_item item;
	bool grew = true, is_letter;
	int r;

	act("An item kills whoever takes it, three times");
	push(producer, 0, 7);
	for (unsigned attempt = 1; attempt <= 3; ++attempt) {
		struct member member = member_start(victim);
		struct report got = member_hear(member);

		grew = grew && got.result == 0 && got.number == attempt;
		member_end(member);
	}

	/* Whoever comes next finds it, and puts it away. */
	living = member_start(taker);
	(void)member_hear(living);
	r = ipc_queue_take_wait(dead, &item, &deadline);
	is_letter = r == 0 && item.reason == IPC_DEAD_ATTEMPTS && number_of(&item) == 7 &&
		    strcmp(item.source, channel) == 0;
	if (r == 0)
		(void)!ipc_queue_ack(dead, &item);
	printf("    the dead letters have it: %s\n", result_name(r));
	check(grew && is_letter,
	      "attempts 1, 2, 3, then a dead letter that says why and from where");
	member_end(living);
}

/* ---- load and kills ---- */

struct board {
	_Atomic uint32_t n_handled; /* about: who is killed may not have counted its last one */
	_Atomic uint32_t n_again;
	_Atomic uint32_t n_unexplained; /* came again as if for the first time */
	_Atomic uint8_t handled[N_PRODUCERS * N_EACH];
};

static struct board *board;
static _Atomic uint32_t *n_started;

static uint32_t n_handled(void)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < N_PRODUCERS * N_EACH; ++i)
		n += atomic_load(&board->handled[i]);
	return n;
}

static void handle(const struct ipc_queue_item *item)
{
	uint32_t number = number_of(item);

	if (number >= N_PRODUCERS * N_EACH)
		return;

	/* Some microseconds of work. */
	for (int64_t until = now_ns() + WORK_NS; now_ns() < until;)
		;
	if (atomic_exchange(&board->handled[number], 1) == 0)
		atomic_fetch_add(&board->n_handled, 1);
	else
		atomic_fetch_add(item->attempt > 1 ? &board->n_again : &board->n_unexplained, 1);
}

static void handler_of_all(int fd)
{
	ipc_queue_consumer *consumer = consumer_open(broker_connect(), load);
	struct ipc_queue_item items[N_AT_ONCE];
	int n;

	(void)fd;
	while ((n = ipc_queue_take_many_wait(consumer, items, N_AT_ONCE, NULL)) > 0) {
		for (int i = 0; i < n; ++i)
			handle(&items[i]);
		if (ipc_queue_ack_many(consumer, items, (unsigned)n) != n)
			break;
	}
	_exit(1);
}

static void producer_of_many(int fd)
{
	ipc_queue_producer *producer = producer_open(broker_connect(), load);
	uint32_t first = atomic_fetch_add(n_started, 1) * N_EACH;

	for (uint32_t i = 0; i < N_EACH; ++i)
		push(producer, i % 4 != 0, first + i);
	report(fd, 0, 0, 0);
	(void)ipc_queue_producer_close(producer);
}

/* One after each twentieth of the work, in the middle of the next. */
static void kill_in_turn(struct member *consumers)
{
	for (uint32_t i = 0; i < N_KILLS; ++i) {
		struct member *member = &consumers[i % N_CONSUMERS];
		int64_t limit = now_ns() + INT64_C(5000000000);

		while (atomic_load(&board->n_handled) < i * (N_PRODUCERS * N_EACH / N_KILLS) &&
		       now_ns() < limit)
			(void)sched_yield();
		member_end(*member);
		*member = member_start(handler_of_all);
	}
}

static void play_load(void)
{
	struct member producers[N_PRODUCERS], consumers[N_CONSUMERS];
	int64_t started = now_ns();

	act("Four producers, two consumers, and twenty kill -9 of consumers in the meantime");
	for (int i = 0; i < N_CONSUMERS; ++i)
		consumers[i] = member_start(handler_of_all);
	for (int i = 0; i < N_PRODUCERS; ++i)
		producers[i] = member_start(producer_of_many);
	kill_in_turn(consumers);
	for (int i = 0; i < N_PRODUCERS; ++i)
		(void)member_hear(producers[i]);
	for (int i = 0; i < 5000 && n_handled() < N_PRODUCERS * N_EACH; ++i)
		pause_ms(1);

	printf("    %" PRIu32 " items in %.0f ms, %" PRIu32 " of them came again\n", n_handled(),
	       (double)(now_ns() - started) / 1e6, atomic_load(&board->n_again));
	check(n_handled() == N_PRODUCERS * N_EACH, "every item was handled");
	check(atomic_load(&board->n_unexplained) == 0,
	      "none came twice without its attempt number saying so");
	for (int i = 0; i < N_CONSUMERS; ++i)
		member_end(consumers[i]);
	for (int i = 0; i < N_PRODUCERS; ++i) {
		(void)waitpid(producers[i].pid, NULL, 0);
		(void)close(producers[i].fd);
	}
}

void act_queue(void)
{
	ipc_client *client = broker_connect();
	ipc_queue_producer *producer;
	ipc_queue_consumer *dead;

	board = mmap(NULL, sizeof(*board) + sizeof(*n_started), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		fail("mmap", IPC_ENOMEM);
	n_started = (_Atomic uint32_t *)(void *)(board + 1);

	dead = consumer_open(client, letters);
	producer = producer_open(client, channel);
	play_held(producer);
	play_poison(producer, dead);
	play_load();

	(void)ipc_queue_producer_close(producer);
	(void)ipc_queue_consumer_close(dead);
	if (ipc_channel_remove_wait(client, channel, 0, NULL) < 0 ||
	    ipc_channel_remove_wait(client, load, 0, NULL) < 0 ||
	    ipc_channel_remove_wait(client, letters, 0, NULL) < 0)
		check(false, "the kept queues can be removed");
	(void)ipc_client_unref(client);
	(void)munmap(board, sizeof(*board) + sizeof(*n_started));
}
