/* SPDX-License-Identifier: MIT */
#include "tests/support/step.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/failure.h"
#include "tests/support/process.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* Two ticks without a step make us look whether the child sleeps. */
#define TICK_NS    10000000
#define PREPARE_MS 20000

enum step_end { STEP_KILLED, STEP_FINISHED, STEP_ASLEEP };

/* ---- a tick that interrupts waitpid(): a step whose system call sleeps never comes back ---- */

static void on_tick(int signal)
{
	(void)signal;
}

struct ticker {
	timer_t timer;
	struct sigaction before;
};

static void ticker_start(struct ticker *ticker)
{
	struct sigaction action = { .sa_handler = on_tick }; /* no SA_RESTART */
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	struct itimerspec every = { { 0, TICK_NS }, { 0, TICK_NS } };

	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	if (sigaction(SIGALRM, &action, &ticker->before) < 0 || timer_create(CLOCK_MONOTONIC, &event, &ticker->timer) < 0 ||
	    timer_settime(ticker->timer, 0, &every, NULL) < 0)
		failure("timer: %s", strerror(errno));
}

static void ticker_stop(struct ticker *ticker)
{
	timer_delete(ticker->timer);
	sigaction(SIGALRM, &ticker->before, NULL);
}

/* ---- one child ---- */

static void child_run(const struct step_case *step, void *arg)
{
	if (step->prepare)
		step->prepare(arg);

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(125);

	raise(SIGSTOP); /* from here on by single steps */
	step->operation(arg);
	raise(SIGSTOP); /* the operation is over */
	_exit(0);
}

/* Whether it is in a system call and not on a CPU: the machine may merely be busy. */
static bool child_sleeps(pid_t pid)
{
	char path[64], text[256];
	const char *state;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		failure("%s: %s", path, strerror(errno));
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		failure("%s is empty", path);

	text[n] = '\0';
	state = strrchr(text, ')');
	return state && state[1] == ' ' && (state[2] == 'S' || state[2] == 'D');
}

/* The next stop of the child; false if it sleeps instead. */
static bool child_wait(pid_t pid, int *ret_status)
{
	unsigned n_ticks = 0, n_asleep = 0;

	for (;;) {
		pid_t r = waitpid(pid, ret_status, __WALL);

		if (r == pid)
			return true;
		if (r < 0 && errno != EINTR)
			failure("waitpid: %s", strerror(errno));
		if (++n_ticks >= 2 && child_sleeps(pid) && ++n_asleep >= 2)
			return false;
	}
}

static pid_t child_start(const struct step_case *step, void *arg)
{
	pid_t pid;
	int status;

	pid = process_fork();
	if (pid == 0)
		child_run(step, arg);

	while (waitpid(pid, &status, __WALL) < 0) {
		if (errno != EINTR)
			failure("waitpid: %s", strerror(errno));
	}
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		failure("step: the child did not get through its preparation, status 0x%x", (unsigned)status);

	ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(uintptr_t)PTRACE_O_EXITKILL);
	return pid;
}

static void child_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	for (;;) {
		pid_t r = waitpid(pid, &status, __WALL);

		if (r < 0 && errno != EINTR)
			failure("waitpid: %s", strerror(errno));
		if (r == pid && (WIFSIGNALED(status) || WIFEXITED(status)))
			return;
	}
}

static enum step_end child_step(pid_t pid, long n)
{
	for (long i = 0; i < n; ++i) {
		int status;

		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0)
			failure("step %ld of %ld: %s", i, n, strerror(errno));
		if (!child_wait(pid, &status))
			return STEP_ASLEEP;
		if (!WIFSTOPPED(status))
			failure("step %ld of %ld: the child ended, status 0x%x", i, n, (unsigned)status);
		if (WSTOPSIG(status) == SIGSTOP)
			return STEP_FINISHED;
		if (WSTOPSIG(status) != SIGTRAP)
			failure("step %ld of %ld: the child got signal %d", i, n, WSTOPSIG(status));
	}
	return STEP_KILLED;
}

static enum step_end step_once(const struct step_case *step, void *arg, long n)
{
	struct ticker ticker;
	cpu_set_t before, here;
	enum step_end end;
	pid_t pid;

	if (sched_getaffinity(0, sizeof(before), &before) < 0)
		failure("sched_getaffinity: %s", strerror(errno));
	CPU_ZERO(&here);
	CPU_SET((unsigned)sched_getcpu(), &here);
	(void)sched_setaffinity(0, sizeof(here), &here); /* the child inherits it */

	pid = child_start(step, arg);
	ticker_start(&ticker);
	end = child_step(pid, n);
	ticker_stop(&ticker);
	child_kill(pid);

	(void)sched_setaffinity(0, sizeof(before), &before);
	return end;
}

long step_run(const struct step_case *step, void *arg)
{
	long stride = step->stride > 0 ? step->stride : 1, n_points = 0;

	for (long n = step->first;; n += stride) {
		enum step_end end = step_once(step, arg, n);

		++n_points;
		step->check(arg, n);
		if (end != STEP_KILLED)
			return n_points;
	}
}
