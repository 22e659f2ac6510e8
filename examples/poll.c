/* SPDX-License-Identifier: MIT */
/*
 * poll: a program with a loop of its own.
 *
 * A server has a socket, here one end of a pair, and two channels: settings, which it follows
 * (watch), and jobs, which it answers (flight).  One epoll waits for all three: the client's one
 * descriptor stands for every channel.  A child plays the rest of the world: it changes the
 * settings, asks for a job, says goodbye over the socket and goes.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

/* Connect after fork: a forked child cannot use what its parent opened. */
static ipc_client *connect_client(void)
{
	struct timespec deadline;
	ipc_client *client;

	ipc_deadline_after(&deadline, UINT64_C(10000000000));
	must("connect", ipc_client_connect_wait(&client, NULL, &deadline));
	return client;
}

/* ---- the rest of the world ---- */

static int run_world(int socket_fd)
{
	ipc_client *client = connect_client();
	ipc_watch_producer *settings;
	ipc_flight_table *jobs;
	ipc_flight *job;
	char answer[32] = "";
	struct ipc_flight_result result;

	/* IPC_AWAIT: the server may not be there yet. */
	must("settings", ipc_watch_producer_open_wait(&settings, client, "example/poll/settings",
						      IPC_WATCH_OPTIONS(.flags = IPC_AWAIT), NULL));
	must("publish", ipc_watch_publish(settings, "loud", sizeof("loud")));

	must("jobs",
	     ipc_flight_table_open_wait(&jobs, client, "example/poll/jobs",
					IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_AWAIT), NULL));
	must("ask", ipc_flight_ask_wait(&job, jobs, "hello", 5, 0, NULL));
	must("result", ipc_flight_get_result(job, &result));
	if (result.size < sizeof(answer))
		memcpy(answer, result.data, result.size);
	printf("answer: %s\n", answer);
	ipc_flight_leave(job);

	if (write(socket_fd, "bye", 3) != 3)
		return 1;
	ipc_flight_table_close(jobs);
	ipc_watch_producer_close(settings);
	ipc_client_unref(client);
	return 0;
}

/* ---- the server ---- */

struct server {
	ipc_client *client;
	ipc_watch_consumer *settings;
	ipc_handler *jobs;
	bool is_loud;
};

static void server_open(struct server *server)
{
	server->client = connect_client();

	/* IPC_STAY: a server does not mind that nobody is there. */
	must("settings", ipc_watch_consumer_open_wait(
				 &server->settings, server->client, "example/poll/settings",
				 IPC_WATCH_OPTIONS(.flags = IPC_CREATE | IPC_STAY), NULL));
	must("jobs",
	     ipc_handler_open_wait(&server->jobs, server->client, "example/poll/jobs",
				   IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE | IPC_STAY), NULL));

	/* The last argument comes back with the event: whatever finds our own object again. */
	must("add", ipc_poll_add(server->client, server->settings, IPC_READY_READABLE, NULL));
	must("add", ipc_poll_add(server->client, server->jobs, IPC_READY_READABLE, NULL));
}

static void server_read_settings(struct server *server)
{
	char value[32];
	size_t size;

	must("read", ipc_watch_read(server->settings, value, sizeof(value), &size, NULL));
	server->is_loud = size == sizeof("loud") && memcmp(value, "loud", size) == 0;
	printf("settings: %s\n", server->is_loud ? "loud" : "quiet");
}

static void server_do_job(struct server *server)
{
	ipc_flight *job;
	int r = ipc_handler_take(&job, server->jobs);

	/* Ready is a hint: another handler may have been faster. */
	if (r == IPC_EAGAIN)
		return;
	must("take", r);
	must("land", ipc_flight_land(job, server->is_loud ? "HELLO!" : "hello", 6));
	ipc_flight_leave(job);
}

/* All that is ready now.  After IPC_EAGAIN the descriptor is quiet until something changes; whoever
 * stops before that, for a budget, finds it readable still. */
static void server_serve(struct server *server)
{
	struct ipc_poll_event event;
	int r;

	while ((r = ipc_poll_next(server->client, &event)) == 0) {
		if (event.handle == server->settings)
			server_read_settings(server);
		else
			server_do_job(server);
	}

	/* IPC_ECONNRESET: the broker is gone for longer than the grace time. */
	if (r != IPC_EAGAIN)
		must("poll", r);
}

static void server_run(struct server *server, int socket_fd)
{
	struct epoll_event event = {.events = EPOLLIN};
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC), ipc_fd = ipc_client_get_fd(server->client);
	char text[16];
	ssize_t n = 0;

	must("descriptor", ipc_fd);
	event.data.fd = ipc_fd;
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ipc_fd, &event) < 0)
		exit(1);
	event.data.fd = socket_fd;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, socket_fd, &event) < 0)
		exit(1);

	while (n == 0) {
		if (epoll_wait(epoll_fd, &event, 1, -1) < 1)
			continue;
		if (event.data.fd == ipc_fd)
			server_serve(server);
		else
			n = read(socket_fd, text, sizeof(text));
	}

	printf("socket: %.*s\n", n > 0 ? (int)n : 0, text);
	(void)close(epoll_fd);
}

int main(void)
{
	struct server server = {.is_loud = false};
	int sockets[2], status = 0;
	pid_t world;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
		return 1;

	world = fork();
	if (world < 0)
		return 1;
	if (world == 0)
		_exit(run_world(sockets[1]) == 0 && fflush(stdout) == 0 ? 0 : 1);

	(void)close(sockets[1]);
	server_open(&server);
	server_run(&server, sockets[0]);

	/* Closing takes them out of the set. */
	ipc_handler_close(server.jobs);
	ipc_watch_consumer_close(server.settings);
	ipc_client_unref(server.client);
	return waitpid(world, &status, 0) == world && status == 0 ? 0 : 1;
}
