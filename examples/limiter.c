/* SPDX-License-Identifier: MIT */
/*
 * limiter: at most so many at a time, over all processes, whoever of them is killed.
 *
 * Six processes each want to convert some files, two at a time may.  One of them dies in the middle
 * of a conversion: what it held is free at once, and the others get on.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

enum { N_PROCESSES = 6, N_FILES = 5, N_AT_A_TIME = 2 };

static const char *const name = "example/converters";

/* In shared memory, for this example alone: how many convert now, and did at most. */
static struct {
	_Atomic int now, most, done;
} * counted;

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

static void convert(int process, int file)
{
	int now = atomic_fetch_add(&counted->now, 1) + 1;

	if (now > atomic_load(&counted->most))
		atomic_store(&counted->most, now);

	/* The one that dies is counted no more, as the kernel forgets it. */
	if (process == 0 && file == 2) {
		atomic_fetch_sub(&counted->now, 1);
		raise(SIGKILL);
	}

	usleep(2000);
	atomic_fetch_sub(&counted->now, 1);
	atomic_fetch_add(&counted->done, 1);
}

static int run(int process)
{
	ipc_client *client;
	ipc_limiter *limiter;

	/* Connect after fork: a forked child cannot use what its parent opened. */
	must("connect", ipc_client_connect_wait(&client, NULL, NULL));
	must("open",
	     ipc_limiter_open_wait(&limiter, client, name,
				   IPC_LIMITER_OPTIONS(.flags = IPC_CREATE, .permits = N_AT_A_TIME),
				   NULL));

	for (int file = 0; file < N_FILES; ++file) {
		struct ipc_limiter_grant grant;

		must("acquire", ipc_limiter_acquire_wait(limiter, 1, &grant, NULL));
		convert(process, file);
		must("release", ipc_limiter_release(limiter, &grant, false));
	}

	/* Closing releases what is held. */
	ipc_limiter_close(limiter);
	ipc_client_unref(client);
	return 0;
}

int main(void)
{
	int n_killed = 0;

	counted = mmap(NULL, sizeof(*counted), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (counted == MAP_FAILED) {
		perror("mmap");
		return 1;
	}

	for (int i = 0; i < N_PROCESSES; ++i) {
		pid_t pid = fork();

		if (pid == 0)
			exit(run(i));
		if (pid < 0) {
			perror("fork");
			return 1;
		}
	}

	for (int i = 0; i < N_PROCESSES; ++i) {
		int status;

		if (wait(&status) < 0)
			return 1;
		if (WIFSIGNALED(status))
			++n_killed;
		else if (WEXITSTATUS(status) != 0)
			return 1;
	}

	printf("%d files, %d at a time at most, %d process was killed\n",
	       atomic_load(&counted->done), atomic_load(&counted->most), n_killed);
	return atomic_load(&counted->most) <= N_AT_A_TIME &&
			       atomic_load(&counted->done) == (N_PROCESSES - 1) * N_FILES + 2 &&
			       n_killed == 1
		       ? 0
		       : 1;
}
