/* SPDX-License-Identifier: MIT */
/*
 * libuv: a program whose loop is another library's.
 *
 * The client's descriptor is a poll handle of the loop; its callback asks for everything that is
 * ready, up to a budget, so that the loop's timers and sockets have their turn.  One client
 * publishes a number by a timer, the other one prints what it sees, until the last.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include <ipc/ipc.h>

enum { N_NUMBERS = 5, BUDGET = 16 };

struct publisher {
	ipc_watch_producer *producer;
	uv_timer_t timer;
	int number;
};

struct reader {
	ipc_client *client;
	ipc_watch_consumer *consumer;
	uv_poll_t poll;
};

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

static ipc_client *connect_client(void)
{
	struct timespec deadline;
	ipc_client *client;

	ipc_deadline_after(&deadline, UINT64_C(10000000000));
	must("connect", ipc_client_connect_wait(&client, NULL, &deadline));
	return client;
}

/* ---- one side ---- */

static void on_timer(uv_timer_t *timer)
{
	struct publisher *publisher = timer->data;

	must("publish",
	     ipc_watch_publish(publisher->producer, &publisher->number, sizeof(publisher->number)));
	if (++publisher->number == N_NUMBERS)
		uv_close((uv_handle_t *)timer, NULL);
}

static void publisher_start(struct publisher *publisher, uv_loop_t *loop, ipc_client *client)
{
	must("producer",
	     ipc_watch_producer_open_wait(&publisher->producer, client, "example/libuv",
					  IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL));
	publisher->timer.data = publisher;
	if (uv_timer_init(loop, &publisher->timer) < 0 ||
	    uv_timer_start(&publisher->timer, on_timer, 0, 10) < 0)
		exit(1);
}

/* ---- the other side ---- */

static void reader_read(struct reader *reader)
{
	int number = 0;

	must("read", ipc_watch_read(reader->consumer, &number, sizeof(number), NULL, NULL));
	printf("%d\n", number);
	if (number == N_NUMBERS - 1)
		uv_close((uv_handle_t *)&reader->poll, NULL);
}

/* libuv's poll handles are level-triggered, and so is the descriptor: what the budget leaves makes
 * it come back at once. */
static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct reader *reader = poll->data;
	struct ipc_poll_event event;
	int r = 0;

	(void)events;
	if (status < 0)
		exit(1);

	for (unsigned i = 0; i < BUDGET && r == 0; ++i) {
		r = ipc_poll_next(reader->client, &event);
		if (r == 0)
			reader_read(event.userdata);
	}
	if (r < 0 && r != IPC_EAGAIN)
		must("poll", r);
}

static void reader_start(struct reader *reader, uv_loop_t *loop)
{
	reader->client = connect_client();
	must("consumer", ipc_watch_consumer_open_wait(&reader->consumer, reader->client,
						      "example/libuv", NULL, NULL));
	must("add", ipc_poll_add(reader->client, reader->consumer, IPC_READY_READABLE, reader));

	reader->poll.data = reader;
	must("descriptor", ipc_client_get_fd(reader->client));
	if (uv_poll_init(loop, &reader->poll, ipc_client_get_fd(reader->client)) < 0 ||
	    uv_poll_start(&reader->poll, UV_READABLE, on_readable) < 0)
		exit(1);
}

int main(void)
{
	uv_loop_t *loop = uv_default_loop();
	ipc_client *client = connect_client();
	struct publisher publisher = {.number = 0};
	struct reader reader = {.client = NULL};

	publisher_start(&publisher, loop, client);
	reader_start(&reader, loop);
	(void)uv_run(loop, UV_RUN_DEFAULT);

	ipc_watch_consumer_close(reader.consumer);
	ipc_client_unref(reader.client);
	ipc_watch_producer_close(publisher.producer);
	ipc_client_unref(client);
	return uv_loop_close(loop) < 0 ? 1 : 0;
}
