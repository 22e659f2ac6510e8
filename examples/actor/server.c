/* SPDX-License-Identifier: MIT */

/*
 * The server: takes requests, one by one, from whoever has any.
 */

#include <stdio.h>
#include <string.h>

#include "examples/actor/actor.h"

/* A long answer.  It waits for room: the connection's speed is the server's. */
static int answer(ipc_queue_producer *response, const char *what, unsigned n_pieces)
{
	char piece[64];
	int r = 0;

	for (unsigned i = 1; i <= n_pieces && r == 0; ++i) {
		int size = snprintf(piece, sizeof(piece), "%s %u of %u", what, i, n_pieces);

		r = ipc_queue_push_wait(response, 0, piece, (size_t)size, NULL);
	}
	return r;
}

int run_server(void)
{
	ipc_client *client = connect_client();
	ipc_queue_consumer *requests = open_consumer(client, REQUESTS);
	ipc_queue_producer *frames = open_producer(client, FRAMES);
	ipc_queue_producer *response = open_producer(client, RESPONSE);
	struct ipc_queue_item item;
	int r = 0;

	/* Until the connection is gone, or everybody who could ask. */
	while (r == 0 && (r = ipc_queue_take_wait(requests, &item, NULL)) == 0) {
		const char *asked = item.data;

		/* Nobody has asked for this: it is pushed at a client that may be idle. */
		if (strcmp(asked, "subscribe") == 0)
			r = ipc_queue_push(frames, ORDINARY, "news: a row has changed", 23,
					   IPC_FULL_FAIL);
		else
			r = answer(response, asked, 6);
		must("ack", ipc_queue_ack(requests, &item));
	}

	printf("server: %s\n", ipc_error_text(r));
	ipc_queue_producer_close(response);
	ipc_queue_producer_close(frames);
	ipc_queue_consumer_close(requests);
	ipc_client_unref(client);
	return r == IPC_EPIPE ? 0 : 1;
}
