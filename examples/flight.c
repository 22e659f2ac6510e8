/* SPDX-License-Identifier: MIT */
/*
 * flight: of all who want the same thing at the same time, one makes it.
 *
 * Four workers want the same page.  One of them renders it, the others wait for its bytes.  The one
 * that renders is killed in the middle; one of those who wait is told to go on in its place, and
 * the others get what that one made.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

enum { N_WORKERS = 4 };

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

/* A client is one process's connection.  Connect after fork: a forked child cannot use what its
 * parent opened. */
static ipc_flight_table *open_table(void)
{
	const struct ipc_flight_table_options *options =
		IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .keys_max = 64,
					 .result_size_max = 1024);
	struct timespec deadline;
	ipc_flight_table *table;
	ipc_client *client;

	ipc_deadline_after(&deadline, UINT64_C(10000000000));
	must("connect", ipc_client_connect_wait(&client, NULL, &deadline));
	must("open", ipc_flight_table_open_wait(&table, client, "example/pages", options, NULL));
	ipc_client_unref(client); /* the table keeps it */
	return table;
}

/*
 * The operation, in the one worker that leads.  The fence is greater than that of any leader
 * before: in the name of a file, say, it keeps apart what one of them may still be writing.
 */
static void render(ipc_flight *flight, int number)
{
	uint64_t fence;
	char html[100];
	int size;

	must("fence", ipc_flight_get_fence(flight, &fence));
	printf("worker %d: renders\n", number);
	if (number == 1)
		pause(); /* and is killed in here */

	size = snprintf(html, sizeof(html), "<p>by worker %d</p>", number);
	must("land", ipc_flight_land(flight, html, (size_t)size));
}

static int work(int number, int joined_fd)
{
	static const char page[] = "index.html";
	ipc_flight_table *table = open_table();
	struct ipc_flight_result result;
	ipc_flight *flight;
	int r;

	/* 1: this worker leads; 2: somebody else does.  ipc_flight_do_wait() is all of this in one
	 * call. */
	r = ipc_flight_join(&flight, table, page, strlen(page));
	must("join", r);
	if (write(joined_fd, "", 1) != 1)
		return 1;

	/* No deadline: whoever is killed, the wait ends.  0: finished; 1: this worker leads now. */
	if (r == 2)
		r = ipc_flight_look_wait(flight, NULL);
	must("wait", r);
	if (r == 1)
		render(flight, number);

	/* The bytes stay where they are until the last who joined has left. */
	must("result", ipc_flight_get_result(flight, &result));
	printf("worker %d: has \"%.*s\" of leader %" PRIu32 "\n", number, (int)result.size,
	       (const char *)result.data, result.epoch);
	ipc_flight_leave(flight);
	ipc_flight_table_close(table);
	return result.failure == IPC_FAILURE_NONE && result.epoch == 2 ? 0 : 1;
}

/* Returns when the worker takes part in the flight. */
static pid_t start_worker(int number)
{
	int pipe_fds[2];
	pid_t pid;
	char byte;

	if (pipe(pipe_fds) < 0)
		exit(1);
	pid = fork();
	if (pid < 0)
		exit(1);
	if (pid == 0)
		exit(work(number, pipe_fds[1]));

	close(pipe_fds[1]);
	if (read(pipe_fds[0], &byte, 1) != 1)
		exit(1);
	close(pipe_fds[0]);
	return pid;
}

int main(void)
{
	int status, n_done = 0;
	pid_t first;

	setvbuf(stdout, NULL, _IOLBF, 0);
	first = start_worker(1);
	for (int number = 2; number <= N_WORKERS; ++number)
		(void)start_worker(number);

	printf("worker 1 is killed\n");
	kill(first, SIGKILL);
	while (wait(&status) > 0)
		n_done += WIFEXITED(status) && WEXITSTATUS(status) == 0;

	return n_done == N_WORKERS - 1 ? 0 : 1;
}
