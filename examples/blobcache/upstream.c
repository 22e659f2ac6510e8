/* SPDX-License-Identifier: MIT */
#include "examples/blobcache/upstream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/blobcache/cache.h"

static void __attribute__((__noreturn__))
become(const char *program, const char *digest, int out, pid_t parent)
{
	/* A download for nobody is stopped. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent && dup2(out, STDOUT_FILENO) >= 0)
		(void)execlp(program, program, digest, (char *)NULL);
	_exit(errno == ENOENT ? 127 : 126);
}

int upstream_start(struct upstream *ret, const char *program, const char *digest)
{
	pid_t pid, parent = getpid();
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;

	pid = fork();
	if (pid == 0)
		become(program, digest, fds[1], parent);
	(void)close(fds[1]);
	if (pid < 0) {
		int error = errno;

		(void)close(fds[0]);
		errno = error;
		return -1;
	}

	*ret = (struct upstream){.pid = pid, .fd = fds[0]};
	return 0;
}

static int join(struct upstream *upstream)
{
	int status;

	(void)close(upstream->fd);
	while (waitpid(upstream->pid, &status, 0) < 0) {
		if (errno != EINTR)
			return 126;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int upstream_end(struct upstream *upstream, struct trouble *ret_trouble)
{
	int status = join(upstream);

	switch (status) {
	case 0:
		return 0;
	case 1:
		*ret_trouble = (struct trouble){IPC_FAILURE_NOT_FOUND, ENOENT, "no such blob"};
		return -1;
	case 126:
		*ret_trouble = (struct trouble){IPC_FAILURE_LOCAL, EACCES,
						"the upstream program cannot be run"};
		return -1;
	case 127:
		*ret_trouble =
			(struct trouble){IPC_FAILURE_LOCAL, ENOENT, "there is no upstream program"};
		return -1;
	default:
		ret_trouble->failure = IPC_FAILURE_UPSTREAM;
		ret_trouble->code = status;
		(void)snprintf(ret_trouble->reason, sizeof(ret_trouble->reason),
			       "it ended with status %d", status);
		return -1;
	}
}

void upstream_stop(struct upstream *upstream)
{
	(void)kill(upstream->pid, SIGKILL);
	(void)join(upstream);
}
