/* SPDX-License-Identifier: MIT */
/*
 * The control socket under threads, for the thread sanitizer: some await answers, the others take
 * whatever lies there, since a shared word says that something for them does; a thread is the
 * broker.  What came is plain words, written by whoever took it out of the socket and read by those
 * for whom it counts.  Prints nothing and ends with 0 if each answer came and nothing was missing.
 */
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <ipc/error.h>

#include "libipc/client/connection.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"

enum { READERS = 2, PUSHERS = 2, ANSWERS = 4000, NEWS_MAX = READERS * ANSWERS };

static struct connection connection;
static int broker_fd;
static _Atomic uint32_t n_joined, is_over, n_slow;

/* By number; plain on purpose. */
static uint64_t news[NEWS_MAX + 1];
static uint32_t n_news; /* under the receive_mutex */

static void must(bool holds, const char *what)
{
	if (holds)
		return;

	fprintf(stderr, "tsan_connection: %s\n", what);
	_Exit(1);
}

static void hear(void *userdata, const union message *message, int *fds, unsigned n_fds)
{
	(void)userdata;
	(void)fds;
	must(n_fds == 0, "descriptors");
	news[++n_news] = message->joined.group_id;
}

static void say(const union message *message)
{
	struct pollfd poll_fd = {.fd = broker_fd, .events = POLLOUT};
	int r;

	while ((r = fdpass_send(broker_fd, message, message->head.size, NULL, 0)) == IPC_EAGAIN)
		(void)poll(&poll_fd, 1, 100);
	must(r == 0, "the broker cannot say it");
}

/* Each request is answered, after something that nobody asked for. */
static void *broker(void *arg)
{
	const struct message_region region = {1, 0, 4096};
	struct pollfd poll_fd = {.fd = broker_fd, .events = POLLIN};
	union message joined, request, done;
	size_t size;

	(void)arg;
	message_init(&joined, MESSAGE_JOINED, 0);
	strcpy(joined.joined.name, "a");
	joined.joined.queue.handle_id = joined.joined.queue.generation = 1;
	joined.joined.queue.value = joined.joined.queue.lines = joined.joined.queue.table = region;
	for (uint64_t i = 1; i <= NEWS_MAX; ++i) {
		int r;

		while ((r = fdpass_receive(broker_fd, &request, sizeof(request), &size, NULL,
					   NULL)) == IPC_EAGAIN)
			(void)poll(&poll_fd, 1, 100);
		must(r == 0, "the broker hears nothing");

		joined.joined.group_id = i;
		say(&joined);
		atomic_fetch_add_explicit(&n_joined, 1, memory_order_release);
		message_init(&done, MESSAGE_DONE, request.head.request_id);
		say(&done);
	}
	return NULL;
}

static void *reader(void *arg)
{
	struct connection_call *call = malloc(sizeof(*call));
	union message request;

	(void)arg;
	must(call, "memory");
	for (unsigned i = 0; i < ANSWERS; ++i) {
		uint64_t begin_ns = clock_now_ns();

		connection_begin(&connection, call);
		message_init(&request, MESSAGE_INFO, call->id);
		strcpy(request.info.name, "a");
		must(connection_send(&connection, &request, clock_after_ns(30 * NS_PER_S)) == 0,
		     "send");
		must(connection_await(&connection, call, clock_after_ns(30 * NS_PER_S)) == 0,
		     "await");
		must(call->reply.head.request_id == call->id, "another's answer");
		connection_end(&connection, call);
		if (clock_now_ns() - begin_ns > 90 * NS_PER_MS)
			atomic_fetch_add(&n_slow, 1);
	}
	free(call);
	return NULL;
}

static void *pusher(void *arg)
{
	uint32_t seen = 0;

	(void)arg;
	while (!atomic_load(&is_over)) {
		uint32_t number = atomic_load_explicit(&n_joined, memory_order_acquire);

		connection_catch_up(&connection, &n_joined);
		for (; seen < number; ++seen)
			must(news[seen + 1] == seen + 1, "something is missing");
	}
	return NULL;
}

int main(void)
{
	pthread_t thread[READERS + PUSHERS], broker_thread;
	int fds[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0,
	     "socketpair");
	must(connection_init(&connection, fds[0]) == 0, "connection_init");
	connection.news_fn = hear;
	broker_fd = fds[1];

	must(pthread_create(&broker_thread, NULL, broker, NULL) == 0, "pthread_create");
	for (unsigned i = 0; i < READERS + PUSHERS; ++i)
		must(pthread_create(&thread[i], NULL, i < READERS ? reader : pusher, NULL) == 0,
		     "pthread_create");
	for (unsigned i = 0; i < READERS; ++i)
		must(pthread_join(thread[i], NULL) == 0, "pthread_join");
	atomic_store(&is_over, 1);
	for (unsigned i = READERS; i < READERS + PUSHERS; ++i)
		must(pthread_join(thread[i], NULL) == 0, "pthread_join");
	must(pthread_join(broker_thread, NULL) == 0, "pthread_join");

	/* A reader that was not told of its answer sleeps to the end of a slice. */
	must(atomic_load(&n_slow) < 20, "answers come by slices");
	connection_deinit(&connection, false);
	(void)fd_close(broker_fd);
	return 0;
}
