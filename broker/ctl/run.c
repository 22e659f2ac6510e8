/* SPDX-License-Identifier: MIT */
#include "broker/ctl/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int run_begin(struct run *run)
{
	/* Where the caller ignores SIGCHLD, children vanish with their status. */
	const struct sigaction by_default = {.sa_handler = SIG_DFL};
	sigset_t set;

	*run = (struct run){.signal_fd = -1, .pidfd = -1, .out_fd = -1};
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);

	run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signal_fd < 0)
		return errno;

	sigaction(SIGCHLD, &by_default, &run->child_before);
	sigprocmask(SIG_BLOCK, &set, &run->mask_before);
	return 0;
}

void run_end(struct run *run)
{
	close(run->signal_fd);
	sigaction(SIGCHLD, &run->child_before, NULL);
	sigprocmask(SIG_SETMASK, &run->mask_before, NULL);
}

static bool program_is_fenced(uint64_t fence, int out_fd)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, fence);
	return dup2(out_fd, 1) >= 0 && setenv("IPCCTL_FENCE", text, 1) >= 0;
}

/* The child.  It has what this process was started with, but for standard output. */
static void __attribute__((__noreturn__))
program_exec(const struct run *run, char *const *argv, uint64_t fence, int out_fd, pid_t parent)
{
	int error;

	/* A parent that died before the call sends no signal any more. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(RUN_EXIT_CANNOT);

	sigaction(SIGCHLD, &run->child_before, NULL);
	if (sigprocmask(SIG_SETMASK, &run->mask_before, NULL) < 0 ||
	    (out_fd >= 0 && !program_is_fenced(fence, out_fd)))
		_exit(RUN_EXIT_CANNOT);

	execvp(argv[0], argv);
	error = errno;
	fprintf(stderr, "ipcctl: %s: %s\n", argv[0], strerror(error));
	_exit(error == ENOENT ? RUN_EXIT_NOT_FOUND : RUN_EXIT_CANNOT);
}

static int program_start(struct run *run, char *const *argv, uint64_t fence, bool is_taken)
{
	pid_t parent = getpid();
	int error, pair[2] = {-1, -1};

	if (is_taken && pipe2(pair, O_CLOEXEC) < 0)
		return errno;

	run->pid = fork();
	if (run->pid == 0)
		program_exec(run, argv, fence, pair[1], parent);
	error = errno;

	if (is_taken)
		close(pair[1]);
	run->out_fd = pair[0];
	if (run->pid < 0) {
		run->pid = 0;
		return error;
	}

	/* Born close-on-exec. */
	run->pidfd = (int)syscall(SYS_pidfd_open, run->pid, 0);
	return run->pidfd < 0 ? errno : 0;
}

/* Its exit status, once it has ended. */
static int program_reap(struct run *run)
{
	int status;
	pid_t r;

	do
		r = waitpid(run->pid, &status, 0);
	while (r < 0 && errno == EINTR);

	run->pid = 0;
	if (r < 0)
		return RUN_EXIT_CANNOT; /* not our child: cannot be */
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Nothing is left of it: an error ends it. */
static void program_stop(struct run *run)
{
	if (run->pid) {
		kill(run->pid, SIGKILL);
		(void)program_reap(run);
	}
	if (run->pidfd >= 0)
		close(run->pidfd);
	if (run->out_fd >= 0)
		close(run->out_fd);
	run->pidfd = run->out_fd = -1;
}

/*
 * What the terminal sends goes to the whole foreground group, the program included: only what was
 * sent to this process alone is passed on.
 */
static void signal_pass(const struct run *run)
{
	struct signalfd_siginfo info;

	if (read(run->signal_fd, &info, sizeof(info)) == sizeof(info) && info.ssi_code <= 0)
		kill(run->pid, (int)info.ssi_signo);
}

/* 0 or an errno.  At the end of what it writes, out_fd is closed. */
static int output_take(struct run *run, run_take_fn take, void *userdata)
{
	char buffer[1 << 16];
	ssize_t n;

	n = read(run->out_fd, buffer, sizeof(buffer));
	if (n > 0)
		return take(userdata, buffer, (size_t)n);
	if (n < 0)
		return errno == EINTR ? 0 : errno;

	close(run->out_fd);
	run->out_fd = -1;
	return 0;
}

enum run_end run_program(struct run *run, char *const *argv, uint64_t fence, run_take_fn take,
			 void *userdata, int *ret)
{
	enum run_end end = RUN_ENDED;
	int error, status = 0;

	error = program_start(run, argv, fence, take != NULL);
	if (error)
		end = RUN_NOT_STARTED;

	while (end == RUN_ENDED && (run->pid || run->out_fd >= 0)) {
		struct pollfd fds[3] = {
			{.fd = run->signal_fd, .events = POLLIN},
			{.fd = run->pid ? run->pidfd : -1, .events = POLLIN},
			{.fd = run->out_fd, .events = POLLIN},
		};

		if (poll(fds, 3, -1) < 0)
			continue; /* EINTR: stopped and continued */

		if (fds[1].revents)
			status = program_reap(run);
		if (fds[2].revents) {
			error = output_take(run, take, userdata);
			if (error)
				end = RUN_NOT_TAKEN;
		}
		if (fds[0].revents && run->pid)
			signal_pass(run);
		else if (fds[0].revents && run->out_fd >= 0)
			end = RUN_TOLD_TO_END;
	}

	program_stop(run);
	*ret = end == RUN_ENDED ? status : error;
	return end;
}

bool run_is_told_to_end(const struct run *run, int timeout_ms)
{
	struct pollfd pollfd = {.fd = run->signal_fd, .events = POLLIN};

	return poll(&pollfd, 1, timeout_ms) > 0;
}
