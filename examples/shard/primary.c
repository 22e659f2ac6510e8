/* SPDX-License-Identifier: MIT */

/*
 * The primary: changes its data all the time, and tells one runner of it.  It never waits for the
 * runner; one that is too slow finds that the backlog has passed it, and gets a snapshot.
 */

#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "examples/shard/shard.h"

/* What the connected runner has been told. */
struct feed {
	int connection; /* -1: none */
	bool is_asked;
	bool is_snapshot; /* it is in the middle of one */
	uint64_t at;      /* the next mutation to tell */
	uint64_t key;     /* the next of the snapshot */
	uint64_t values[KEYS];
};

static struct mutation backlog[BACKLOG];

static void mutate(struct primary *primary)
{
	uint64_t next = atomic_load(&primary->next);
	struct mutation mutation = {
		.key = (uint64_t)rand() % KEYS,
		.value = next % 4 ? next : 0,
	};

	primary->values[mutation.key] = mutation.value;
	backlog[next % BACKLOG] = mutation;
	atomic_store(&primary->next, next + 1);
}

static void feed_connect(struct feed *feed, int connection)
{
	if (feed->connection >= 0)
		(void)close(feed->connection);
	feed->connection = connection;
	feed->is_asked = feed->is_snapshot = false;
}

static void feed_hear(struct feed *feed, const struct primary *primary)
{
	struct request request;

	if (recv(feed->connection, &request, sizeof(request), 0) != (ssize_t)sizeof(request)) {
		feed_connect(feed, -1);
		return;
	}

	feed->is_asked = true;
	feed->is_snapshot = false;
	feed->at = request.generation == primary->generation ? request.offset : 0;
}

/* Of the state that it had when the snapshot was begun, while it goes on changing. */
static void next_of_snapshot(struct feed *feed, struct message *message)
{
	if (feed->key == KEYS) {
		*message = (struct message){.type = SNAPSHOT_END, .number = feed->at};
		feed->is_snapshot = false;
		return;
	}

	message->type = SNAPSHOT_CHUNK;
	message->n_mutations = CHUNK;
	for (int i = 0; i < CHUNK; ++i, ++feed->key)
		message->mutations[i] = (struct mutation){feed->key, feed->values[feed->key]};
}

/* Whether there is anything to tell. */
static bool feed_next(struct feed *feed, const struct primary *primary, struct message *message)
{
	uint64_t next = atomic_load(&primary->next);

	if (feed->connection < 0 || !feed->is_asked)
		return false;

	if (feed->is_snapshot) {
		next_of_snapshot(feed, message);
		return true;
	}

	/* Too old, or from a future that is not ours. */
	if (feed->at == 0 || feed->at + BACKLOG < next || feed->at > next) {
		*message = (struct message){.type = SNAPSHOT_BEGIN, .number = primary->generation};
		memcpy(feed->values, primary->values, sizeof(feed->values));
		feed->is_snapshot = true;
		feed->key = 0;
		feed->at = next;
		return true;
	}

	if (feed->at == next)
		return false;
	*message = (struct message){.type = MUTATION, .n_mutations = 1, .number = feed->at};
	message->mutations[0] = backlog[feed->at++ % BACKLOG];
	return true;
}

static size_t message_size(const struct message *message)
{
	return offsetof(struct message, mutations) + message->n_mutations * sizeof(struct mutation);
}

/* Until its socket is full. */
static void feed_send(struct feed *feed, const struct primary *primary)
{
	struct message message;

	for (;;) {
		uint64_t at = feed->at, key = feed->key;
		bool is_snapshot = feed->is_snapshot;

		if (!feed_next(feed, primary, &message))
			return;
		if (send(feed->connection, &message, message_size(&message),
			 MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			/* The same once more, when there is room. */
			feed->at = at;
			feed->key = key;
			feed->is_snapshot = is_snapshot;
			return;
		}
	}
}

int run_primary(struct primary *primary, int listener)
{
	static struct feed feed = {.connection = -1};

	for (;;) {
		struct pollfd fds[] = {
			{.fd = listener, .events = POLLIN},
			{.fd = feed.connection, .events = POLLIN},
		};

		if (poll(fds, 2, 1) < 0)
			return 1;
		if (fds[1].revents)
			feed_hear(&feed, primary);
		if (fds[0].revents)
			feed_connect(&feed, accept(listener, NULL, NULL));

		if (atomic_load(&primary->must_rest))
			atomic_store(&primary->is_at_rest, true);
		for (int i = 0; i < BURST && !atomic_load(&primary->is_at_rest); ++i)
			mutate(primary);
		feed_send(&feed, primary);
	}
}
