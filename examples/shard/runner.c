/* SPDX-License-Identifier: MIT */

/*
 * The runner: hands on what the primary says.  It keeps nothing.  How far its predecessor came, and
 * whether the shard wants a snapshot, is told by the inbox.
 */

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "examples/shard/shard.h"

struct runner {
	int upstream;
	ipc_client *client;
	ipc_inbox_sender *inbox;
	bool awaits_snapshot; /* nothing else is of use */
};

static int connect_upstream(int listener)
{
	struct sockaddr_storage address = {0};
	socklen_t size = sizeof(address);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	if (fd < 0 || getsockname(listener, (struct sockaddr *)&address, &size) < 0 ||
	    connect(fd, (struct sockaddr *)&address, size) < 0)
		exit(1);
	return fd;
}

static void ask(const struct runner *runner, uint64_t generation, uint64_t offset)
{
	struct request request = {generation, offset};

	if (send(runner->upstream, &request, sizeof(request), MSG_NOSIGNAL) < 0)
		exit(1);
}

static void ask_for_snapshot(struct runner *runner)
{
	runner->awaits_snapshot = true;
	ask(runner, 0, 0);
}

/* Where the last one ended, if the primary still has what follows. */
static void go_on(const struct runner *runner)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};

	must("positions", ipc_inbox_get_positions(runner->inbox, &positions));
	ask(runner, positions.generation, positions.written);
}

static int hand_on(ipc_inbox_sender *inbox, const struct message *message)
{
	size_t size = message->n_mutations * sizeof(struct mutation);

	switch (message->type) {
	case SNAPSHOT_BEGIN:
		return ipc_inbox_begin_snapshot_wait(inbox, message->number, NULL);
	case SNAPSHOT_CHUNK:
		return ipc_inbox_send_chunk_wait(inbox, message->mutations, size, NULL);
	case SNAPSHOT_END:
		return ipc_inbox_end_snapshot_wait(inbox, message->number, NULL);
	case MUTATION:
		return ipc_inbox_send_frame_wait(inbox, message->number, message->mutations, size,
						 NULL);
	}
	return IPC_EBADMSG;
}

static void read_upstream(struct runner *runner)
{
	struct message message;
	int r;

	if (recv(runner->upstream, &message, sizeof(message), 0) <= 0)
		exit(1);
	if (runner->awaits_snapshot && message.type != SNAPSHOT_BEGIN)
		return;

	/* A shard that cannot go on from what it has says so by IPC_EOVERFLOW. */
	runner->awaits_snapshot = false;
	r = hand_on(runner->inbox, &message);
	if (r == IPC_EOVERFLOW)
		ask_for_snapshot(runner);
	else
		must("inbox", r);
}

/* ... or here, while the primary says nothing. */
static void read_inbox(struct runner *runner)
{
	struct ipc_poll_event event;
	int r = ipc_poll_next(runner->client, &event);

	if (r == 0 && event.ready & IPC_READY_REQUEST)
		ask_for_snapshot(runner);
	else if (r != IPC_EAGAIN)
		must("poll", r);
}

int run_runner(int listener)
{
	struct runner runner = {
		.upstream = connect_upstream(listener),
		.client = connect_client(),
	};

	must("open", ipc_inbox_sender_open_wait(&runner.inbox, runner.client, INBOX,
						inbox_options(), NULL));
	must("add", ipc_poll_add(runner.client, runner.inbox, IPC_READY_REQUEST, NULL));
	go_on(&runner);

	for (;;) {
		struct pollfd fds[] = {
			{.fd = runner.upstream, .events = POLLIN},
			{.fd = ipc_client_get_fd(runner.client), .events = POLLIN},
		};

		/* A request stands until the snapshot begins. */
		if (poll(fds, runner.awaits_snapshot ? 1 : 2, -1) < 0)
			return 1;
		if (fds[0].revents)
			read_upstream(&runner);
		if (fds[1].revents && !runner.awaits_snapshot)
			read_inbox(&runner);
	}
}
