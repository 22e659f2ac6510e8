/* SPDX-License-Identifier: MIT */

/*
 *	counter [KILLS]
 *
 * Starts both ends, kills either of them again and again, and looks at the end whether each number
 * was counted once at both.
 */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/counter/counter.h"

enum { CLIENT, SERVER, N_ENDS, PATIENCE_MS = 10000 };

struct end {
	char path[64];
	pid_t pid;
};

static struct end ends[N_ENDS];
static int told[2]; /* a pipe: who has counted */

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

void tell(int fd)
{
	pid_t self = getpid();

	if (write(fd, &self, sizeof(self)) != (ssize_t)sizeof(self))
		exit(1);
}

static void start(int which)
{
	struct end *end = &ends[which];

	fflush(NULL);
	end->pid = fork();
	if (end->pid < 0) {
		perror("fork");
		exit(1);
	}
	if (end->pid > 0)
		return;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(told[0]);
	exit(which == CLIENT ? run_client(end->path, told[1]) : run_server(end->path, told[1]));
}

/* Reads what was told until this process has counted something. */
static void await(pid_t pid)
{
	struct pollfd ready = {.fd = told[0], .events = POLLIN};
	pid_t who;

	do {
		if (poll(&ready, 1, PATIENCE_MS) != 1 ||
		    read(told[0], &who, sizeof(who)) != (ssize_t)sizeof(who)) {
			fprintf(stderr, "FAIL: nobody counts any more\n");
			exit(1);
		}
	} while (who != pid);
}

/* A server that has lost its key: it has to come back as the listener. */
static void forget_key(const struct end *end)
{
	struct memory memory;

	memory_load(end->path, &memory);
	memory.has_key = false;
	memory_store(end->path, &memory);
}

/* Whoever of the two, whatever it does just now: also one that is about to come back. */
static bool kill_one(void)
{
	int which = rand() % N_ENDS;
	struct end *end = &ends[which];
	int status;

	for (int i = rand() % 16; i > 0; --i)
		await(ends[CLIENT].pid);
	for (volatile int i = rand() % 1000000; i > 0; --i)
		;
	kill(end->pid, SIGKILL);
	if (waitpid(end->pid, &status, 0) != end->pid || !WIFSIGNALED(status))
		return false;
	if (which == SERVER && rand() % 2)
		forget_key(end);
	start(which);
	return true;
}

static bool ends_well(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool play(int n_kills)
{
	start(SERVER);
	start(CLIENT);

	/* A client that is killed before it has a key in its file begins another conversation. */
	await(ends[CLIENT].pid);
	for (int i = 0; i < n_kills; ++i) {
		if (!kill_one())
			return false;
	}

	await(ends[CLIENT].pid);
	kill(ends[CLIENT].pid, SIGTERM);
	return ends_well(ends[CLIENT].pid) && ends_well(ends[SERVER].pid);
}

int main(int argc, char **argv)
{
	char directory[] = "/tmp/libipc-counter-XXXXXX";
	int n_kills = argc > 1 ? atoi(argv[1]) : 40;
	struct memory client, server;
	bool holds;

	if (!mkdtemp(directory) || pipe(told) < 0) {
		perror("counter");
		return 1;
	}
	snprintf(ends[CLIENT].path, sizeof(ends[CLIENT].path), "%s/client", directory);
	snprintf(ends[SERVER].path, sizeof(ends[SERVER].path), "%s/server", directory);
	srand((unsigned)getpid());

	holds = play(n_kills);

	memory_load(ends[CLIENT].path, &client);
	memory_load(ends[SERVER].path, &server);
	holds = holds && client.seen > 0 && client.seen == server.seen;
	printf("%d kills: the client has counted %ju and dropped %ju, the server %ju and %ju\n",
	       n_kills, (uintmax_t)client.seen, (uintmax_t)client.dropped, (uintmax_t)server.seen,
	       (uintmax_t)server.dropped);
	printf("%s\n", holds ? "no gap, no repeat" : "FAIL");

	for (int i = 0; i < N_ENDS; ++i)
		memory_remove(ends[i].path);
	rmdir(directory);
	return holds ? 0 : 1;
}
