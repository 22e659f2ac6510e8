/* SPDX-License-Identifier: MIT */
/*
 * A configuration value: one producer, three watchers.  The producer is killed while they wait.
 */
#include "examples/demo/demo.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { N_WATCHERS = 3, N_VALUES = 200 };

struct config {
	uint64_t number;
	uint64_t double_of_number; /* lets a reader see that the value is whole */
	char text[48];
};

static void producer(int fd)
{
	ipc_client *client = broker_connect();
	struct timespec deadline = in_seconds(5);
	struct config config = {.number = 0};
	ipc_watch_producer *handle;
	int r;

	r = ipc_watch_producer_open_wait(
		&handle, client, "demo/config",
		IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = sizeof(config)),
		&deadline);
	if (r < 0)
		fail("open producer", r);
	report(fd, 0, 0, 0);
	await_word(fd);

	for (uint64_t i = 1; i <= N_VALUES; ++i) {
		config.number = i;
		config.double_of_number = 2 * i;
		(void)snprintf(config.text, sizeof(config.text), "setting %" PRIu64, i);
		r = ipc_watch_publish_wait(handle, &config, sizeof(config), NULL);
		if (r < 0)
			fail("publish", r);
	}

	report(fd, 0, config.number, 0);
	for (;;)
		(void)pause();
}

/* Reads until the wait ends, and reports the last value it had and how the wait ended; then once
 * more with the next producer. */
static void watcher(int fd)
{
	ipc_client *client = broker_connect();
	struct timespec deadline = in_seconds(5);
	struct config config = {.number = 0};
	ipc_watch_consumer *handle;
	uint64_t version = 0, n_torn = 0;
	int r;

	r = ipc_watch_consumer_open_wait(&handle, client, "demo/config",
					 IPC_WATCH_OPTIONS(.flags = IPC_AWAIT), &deadline);
	if (r < 0)
		fail("open consumer", r);
	report(fd, 0, 0, 0);

	for (;;) {
		r = ipc_watch_read_wait(handle, &config, sizeof(config), NULL, &version, NULL);
		if (r < 0) {
			report(fd, r, config.number, n_torn);
			await_word(fd);
		}
		n_torn += config.double_of_number != 2 * config.number;
	}
}

static void print_ends(int64_t killed_at, const struct report *ends)
{
	for (int i = 0; i < N_WATCHERS; ++i)
		printf("    watcher %d: wait ended after %6.0f us with %s, last value %" PRIu64
		       "\n",
		       i + 1, (double)(ends[i].at_ns - killed_at) / 1e3,
		       result_name(ends[i].result), ends[i].number);
}

/* The producer publishes, all of it is read, the producer is killed. */
static void play(struct member first, const struct member *watchers, const char *handed_on)
{
	struct report ends[N_WATCHERS], last;
	bool typed = true, whole = true;
	int64_t killed_at;

	member_tell(first);
	last = member_hear(first);
	printf("    the producer has published %" PRIu64 " values\n", last.number);
	for (int i = 0; i < N_WATCHERS; ++i)
		member_until_asleep(watchers[i]);

	killed_at = member_kill(first);
	(void)close(first.fd);
	for (int i = 0; i < N_WATCHERS; ++i) {
		ends[i] = member_hear(watchers[i]);
		typed = typed && ends[i].result == IPC_EOWNERDEAD;
		whole = whole && ends[i].number == last.number && ends[i].other == 0;
	}
	print_ends(killed_at, ends);
	check(typed, "each wait ended, and says why: the other side died");
	check(whole, handed_on);
}

void act_configuration(void)
{
	struct member producer_now, watchers[N_WATCHERS];

	act("A producer of a configuration value is killed; three watchers wait for the next one");
	producer_now = member_start(producer);
	(void)member_hear(producer_now);
	for (int i = 0; i < N_WATCHERS; ++i) {
		watchers[i] = member_start(watcher);
		(void)member_hear(watchers[i]);
	}
	play(producer_now, watchers, "each watcher had the last committed value, none was torn");

	act("The next producer takes over at once, for the same watchers; it is killed as well");
	producer_now = member_start(producer);
	(void)member_hear(producer_now);
	for (int i = 0; i < N_WATCHERS; ++i)
		member_tell(watchers[i]);
	play(producer_now, watchers, "each watcher went on with it, up to its last value");

	for (int i = 0; i < N_WATCHERS; ++i)
		member_end(watchers[i]);
}
