/* SPDX-License-Identifier: MIT */
/*
 * Request and reply: four processes ask, another one answers, is killed with a request in its hands
 * and replaced.
 */
#include "examples/demo/demo.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N_ASKERS = 4, N_ASKS = 1000, KEY_SIZE_MAX = 32 };

static const char channel[] = "demo/ask";
static const char first_key[] = "first", second_key[] = "second";

#define OPTIONS                                                                                    \
	IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .keys_max = 64,                              \
				 .result_size_max = sizeof(struct page))

/* ---- handlers ---- */

static int answer(ipc_flight *flight, const void *key, size_t size)
{
	struct page page;

	page_make(&page, key, size);
	return ipc_flight_land(flight, &page, sizeof(page));
}

/* Answers what it takes, but stops with `held` in its hands, and reports that. */
static void serve(int fd, const char *held)
{
	struct timespec deadline = in_seconds(5);
	ipc_client *client = broker_connect();
	ipc_handler *handler;
	ipc_flight *flight;
	const void *key;
	size_t size;
	int r;

	r = ipc_handler_open_wait(&handler, client, channel, OPTIONS, &deadline);
	if (r < 0)
		fail("open handler", r);
	report(fd, 0, 0, 0);

	for (;;) {
		r = ipc_handler_take_wait(&flight, handler, NULL);
		if (r == 0)
			r = ipc_flight_get_key(flight, &key, &size);
		if (r < 0)
			fail("take", r);
		if (held && size == strlen(held) && memcmp(key, held, size) == 0) {
			report(fd, 0, 0, 0);
			for (;;)
				(void)pause();
		}
		r = answer(flight, key, size);
		if (r < 0)
			fail("answer", r);
		(void)ipc_flight_leave(flight);
	}
}

static void first_handler(int fd)
{
	serve(fd, first_key);
}

static void second_handler(int fd)
{
	serve(fd, second_key);
}

static void third_handler(int fd)
{
	serve(fd, NULL);
}

/* ---- askers ---- */

/* What ask_wait() said; the epoch is written if the bytes are right. */
static int ask(ipc_flight_table *table, const char *key, uint64_t *ret_epoch)
{
	struct timespec deadline = in_seconds(5);
	struct ipc_flight_result result;
	ipc_flight *flight;
	int r;

	r = ipc_flight_ask_wait(&flight, table, key, strlen(key), 0, &deadline);
	if (r < 0)
		return r;

	r = ipc_flight_get_result(flight, &result);
	if (r == 0 && page_is_right(&result, key, strlen(key)))
		*ret_epoch = result.epoch;
	(void)ipc_flight_leave(flight);
	return r;
}

static void ask_many(int fd, ipc_flight_table *table)
{
	int64_t started = now_ns();
	uint64_t n_right = 0;
	int r = 0;

	for (int i = 0; i < N_ASKS && r == 0; ++i) {
		char key[KEY_SIZE_MAX];
		uint64_t epoch = 0;

		(void)snprintf(key, sizeof(key), "%d/%d", (int)getpid(), i);
		r = ask(table, key, &epoch);
		n_right += epoch == 1;
	}
	report(fd, r, n_right, (uint64_t)(now_ns() - started));
}

static void ask_and_report(int fd, ipc_flight_table *table, const char *key)
{
	uint64_t epoch = 0;
	int r;

	await_word(fd);
	r = ask(table, key, &epoch);
	report(fd, r, epoch, 0);
}

static void asker(int fd)
{
	struct timespec deadline = in_seconds(5);
	ipc_flight_table *table;
	int r;

	r = ipc_flight_table_open_wait(&table, broker_connect(), channel, OPTIONS, &deadline);
	if (r < 0)
		fail("open table", r);
	report(fd, 0, 0, 0);

	await_word(fd);
	ask_many(fd, table);
	ask_and_report(fd, table, first_key);
	ask_and_report(fd, table, second_key);
	ask_and_report(fd, table, second_key);
	await_word(fd);
}

/* ---- the play ---- */

static void tell_all(const struct member *askers)
{
	for (int i = 0; i < N_ASKERS; ++i)
		member_tell(askers[i]);
}

/* How all of them ended: true if with this result and this epoch. */
static bool hear_all(const struct member *askers, int result, uint64_t epoch, int64_t *ret_at)
{
	bool did_all = true;

	*ret_at = 0;
	for (int i = 0; i < N_ASKERS; ++i) {
		struct report end = member_hear(askers[i]);

		did_all = did_all && end.result == result && end.number == epoch;
		if (end.at_ns > *ret_at)
			*ret_at = end.at_ns;
	}
	return did_all;
}

static void play_many(const struct member *askers)
{
	uint64_t n_right = 0, longest_ns = 0;
	int64_t result = 0;

	act("A handler answers four processes that ask for different keys");
	tell_all(askers);
	for (int i = 0; i < N_ASKERS; ++i) {
		struct report end = member_hear(askers[i]);

		n_right += end.number;
		result = end.result < 0 ? end.result : result;
		if (end.other > longest_ns)
			longest_ns = end.other;
	}
	printf("    %" PRIu64 " answers in %.0f ms, %.0f us from an ask to its answer: %s\n",
	       n_right, (double)longest_ns / 1e6, (double)longest_ns / 1e3 / N_ASKS,
	       result_name(result));
	check(n_right == N_ASKERS * N_ASKS, "each answer had the right bytes");
}

/* All ask for the key that this handler keeps; true once it has it and all wait for it. */
static bool hold_and_wait(const struct member *askers, struct member handler)
{
	tell_all(askers);
	(void)member_hear(handler);
	return waits_are_listed(channel, N_ASKERS);
}

static struct member handler_start(void (*fn)(int fd))
{
	struct member handler = member_start(fn);

	(void)member_hear(handler);
	return handler;
}

static void play_replaced(const struct member *askers, struct member first)
{
	int64_t killed_at, answered_at;
	bool all_wait, is_right;
	struct member second;

	act("A handler is killed with a key in its hands; four wait for it, and there is another");
	all_wait = hold_and_wait(askers, first);
	second = handler_start(second_handler);
	killed_at = member_kill(first);
	(void)close(first.fd);
	is_right = hear_all(askers, 0, 2, &answered_at);
	printf("    all have the answer after %6.0f us\n", (double)(answered_at - killed_at) / 1e3);
	check(all_wait, "the broker listed who waited for whom");
	check(is_right, "the key went to the other handler: second epoch, right bytes");

	act("The other one is killed in the same way, and none is left; then a new one comes");
	all_wait = hold_and_wait(askers, second);
	killed_at = member_kill(second);
	(void)close(second.fd);
	is_right = hear_all(askers, IPC_EOWNERDEAD, 0, &answered_at);
	printf("    the last wait ended after %6.0f us with %s\n",
	       (double)(answered_at - killed_at) / 1e3, result_name(IPC_EOWNERDEAD));
	check(all_wait && is_right, "no wait outlived the handler that it waited for");
}

void act_handlers(void)
{
	struct member askers[N_ASKERS], first, third;
	int64_t answered_at;

	for (int i = 0; i < N_ASKERS; ++i) {
		askers[i] = member_start(asker);
		(void)member_hear(askers[i]);
	}
	first = handler_start(first_handler);

	play_many(askers);
	play_replaced(askers, first);

	third = handler_start(third_handler);
	tell_all(askers);
	check(hear_all(askers, 0, 1, &answered_at), "the new one answers the same askers");

	member_end(third);
	for (int i = 0; i < N_ASKERS; ++i)
		member_end(askers[i]);
}
