/* SPDX-License-Identifier: MIT */

/*
 * The client and what happens around it.  It takes the frames of the connection one by one, so
 * that everything happens in one order, which is checked.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/actor/actor.h"

void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

ipc_client *connect_client(void)
{
	ipc_client *client;

	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	return client;
}

ipc_queue_producer *open_producer(ipc_client *client, const char *name)
{
	ipc_queue_producer *producer;

	must(name, ipc_queue_producer_open_wait(&producer, client, name,
						IPC_QUEUE_OPTIONS(.flags = IPC_AWAIT), NULL));
	return producer;
}

ipc_queue_consumer *open_consumer(ipc_client *client, const char *name)
{
	ipc_queue_consumer *consumer;

	must(name,
	     ipc_queue_consumer_open_wait(
		     &consumer, client, name,
		     IPC_QUEUE_OPTIONS(.flags = IPC_CREATE, .items_max = 4, .bytes_max = 4096),
		     NULL));
	return consumer;
}

static pid_t start(int connection, int other_end)
{
	pid_t pid = fork();

	if (pid == 0) {
		close(other_end);
		exit(connection >= 0 ? run_actor(connection) : run_server());
	}
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	return pid;
}

/* The next frame: whether it is the one that has to come now. */
static bool expect(int connection, const char *wanted)
{
	char frame[64];
	ssize_t size = read(connection, frame, sizeof(frame) - 1);

	if (size <= 0)
		return false;
	frame[size] = '\0';
	printf("client: %s\n", frame);
	return strcmp(frame, wanted) == 0;
}

static bool want_more(int connection)
{
	return write(connection, "", 1) == 1;
}

static bool play(int connection, ipc_watch_producer *stop, ipc_queue_producer *requests,
		 ipc_queue_producer *timer)
{
	bool holds;

	/* Nothing was asked, and something comes. */
	must("push", ipc_queue_push(requests, 0, "subscribe", 10, IPC_FULL_FAIL));
	holds = expect(connection, "news: a row has changed") && want_more(connection);

	/* A long response; in the middle of it a heart-beat is due, and somebody sends a line. */
	must("push", ipc_queue_push(requests, 0, "table", 6, IPC_FULL_FAIL));
	holds = holds && expect(connection, "table 1 of 6") && want_more(connection);
	holds = holds && expect(connection, "table 2 of 6");
	must("push", ipc_queue_push(timer, ORDINARY, "a line", 6, IPC_FULL_FAIL));
	must("push", ipc_queue_push(timer, URGENT, "heart-beat", 10, IPC_FULL_FAIL));
	holds = holds && want_more(connection);
	holds = holds && expect(connection, "heart-beat") && want_more(connection);
	holds = holds && expect(connection, "a line") && want_more(connection);
	holds = holds && expect(connection, "table 3 of 6");

	/* The end waits for nothing that is still on its way. */
	must("publish", ipc_watch_publish(stop, "", 0));
	holds = holds && want_more(connection);
	return holds && expect(connection, "bye") && want_more(connection);
}

static bool ends_well(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(void)
{
	ipc_queue_producer *requests, *timer;
	ipc_watch_producer *stop;
	ipc_client *client;
	pid_t actor, server;
	bool holds;
	int pair[2];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0) {
		perror("socketpair");
		return 1;
	}
	actor = start(pair[0], pair[1]);
	close(pair[0]);
	server = start(-1, pair[1]);

	client = connect_client();
	must("open", ipc_watch_producer_open_wait(&stop, client, STOP,
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL));
	requests = open_producer(client, REQUESTS);
	timer = open_producer(client, FRAMES);

	holds = play(pair[1], stop, requests, timer);
	close(pair[1]);
	holds = ends_well(actor) && holds;

	ipc_queue_producer_close(timer);
	ipc_queue_producer_close(requests);
	ipc_watch_producer_close(stop);
	ipc_client_unref(client);
	holds = ends_well(server) && holds;
	printf("%s\n", holds ? "all came in its order" : "FAIL");
	return holds ? 0 : 1;
}
