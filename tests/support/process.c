/* SPDX-License-Identifier: MIT */
#include "tests/support/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/failure.h"

extern void __gcov_dump(void) __attribute__((__weak__));

pid_t process_fork(void)
{
	pid_t parent = getpid(), pid;

	pid = fork();
	if (pid < 0)
		failure("fork: %s", strerror(errno));
	if (pid > 0)
		return pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	return 0;
}

void process_end(int status)
{
	if (__gcov_dump)
		__gcov_dump();
	_exit(status);
}

int process_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

void process_until_ended(int pidfd, unsigned ms)
{
	struct timespec deadline = process_deadline(ms);

	for (;;) {
		struct pollfd pollfd = {.fd = pidfd, .events = POLLIN};

		if (poll(&pollfd, 1, 100) > 0)
			return;
		if (process_has_passed(&deadline))
			failure("a process did not end within %u ms", ms);
	}
}

int process_reap(pid_t pid, unsigned ms)
{
	int pidfd, status;
	pid_t r;

	pidfd = process_open(pid);
	if (pidfd < 0)
		failure("pidfd of %d: %s", (int)pid, strerror(errno));
	process_until_ended(pidfd, ms);
	close(pidfd);

	do
		r = waitpid(pid, &status, 0);
	while (r < 0 && errno == EINTR);
	if (r != pid)
		failure("waitpid of %d: %s", (int)pid, strerror(errno));

	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

struct timespec process_deadline(unsigned ms)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now.tv_sec += ms / 1000;
	now.tv_nsec += (long)(ms % 1000) * 1000000;
	if (now.tv_nsec >= 1000000000) {
		now.tv_nsec -= 1000000000;
		++now.tv_sec;
	}
	return now;
}

bool process_has_passed(const struct timespec *deadline)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > deadline->tv_sec ||
	       (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

void process_pause(void)
{
	(void)poll(NULL, 0, 1);
}
