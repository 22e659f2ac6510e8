/* SPDX-License-Identifier: MIT */

/*
 * The actor that owns the connection: one loop over all that may happen to it.
 */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "examples/actor/actor.h"

/* To the client, which says when it wants more. */
static void send_frame(int connection, const void *data, size_t size)
{
	char more;

	if (write(connection, data, size) != (ssize_t)size || read(connection, &more, 1) != 1)
		must("the connection", IPC_EPIPE);
}

/* The first item of the queue goes out.  It is acknowledged after that: if this process is killed
 * before, whoever takes over the connection finds it again. */
static void forward(ipc_queue_consumer *queue, int connection)
{
	struct ipc_queue_item item;
	int r = ipc_queue_take(queue, &item);

	if (r == IPC_EAGAIN)
		return; /* readiness is a hint */
	must("take", r);
	send_frame(connection, item.data, item.size);
	must("ack", ipc_queue_ack(queue, &item));
}

int run_actor(int connection)
{
	ipc_client *client = connect_client();
	ipc_queue_consumer *frames = open_consumer(client, FRAMES);
	ipc_queue_consumer *response = open_consumer(client, RESPONSE);
	ipc_watch_consumer *stop;
	bool is_stopped = false;

	must("open",
	     ipc_watch_consumer_open_wait(&stop, client, STOP,
					  IPC_WATCH_OPTIONS(.flags = IPC_AWAIT | IPC_STAY), NULL));

	/*
	 * The loop of an actor.  The first that is ready is done first: the end before all frames,
	 * and a heart-beat before the next piece of a long response.
	 */
	while (!is_stopped) {
		struct ipc_wait_item items[] = {
			{.handle = stop, .events = IPC_READY_READABLE},
			{.handle = frames, .events = IPC_READY_READABLE},
			{.handle = response, .events = IPC_READY_READABLE},
		};

		switch (ipc_wait_any(items, 3, NULL)) {
		case 0:
			send_frame(connection, "bye", 3);
			is_stopped = true;
			break;
		case 1:
			forward(frames, connection);
			break;
		case 2:
			forward(response, connection);
			break;
		default:
			return 1;
		}
	}

	/* What is closed cleanly is known to be over: who pushes is told so at once. */
	ipc_watch_consumer_close(stop);
	ipc_queue_consumer_close(response);
	ipc_queue_consumer_close(frames);
	ipc_client_unref(client);
	return 0;
}
