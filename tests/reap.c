/* SPDX-License-Identifier: MIT */
/*
 * reap [-t SECONDS] PROGRAM [ARGUMENT ...]: runs a test program and sees to it that nothing of it
 * is left.
 *
 * reap is the sub-reaper of everything below it, so a process whose parent is gone becomes its
 * child however it was made.  When PROGRAM has ended, what is about to end (a process that was just
 * killed) gets a moment; what then still runs is named, killed, and lets the test fail: a process
 * that outlives its test holds pipes open and disturbs the next one.  The time limit is here as
 * well: whoever kills reap itself kills the one who could clean up.
 *
 * The status is PROGRAM's, 128 + signal if it was killed, 124 after the time limit, 125 if
 * processes were left behind.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_TIME = 124, STATUS_LEFT = 125, STATUS_FAILED = 126, STATUS_NO_PROGRAM = 127 };
enum { GRACE_MS = 10000, CHILDREN_MAX = 256 };

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* How many children there are now; the first ones are written to ret_pids. */
static int children_list(pid_t ret_pids[CHILDREN_MAX])
{
	char path[64];
	FILE *file;
	int pid, n = 0;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	file = fopen(path, "re");
	if (!file) {
		perror(path);
		exit(STATUS_FAILED);
	}

	while (n < CHILDREN_MAX && fscanf(file, "%d", &pid) == 1)
		ret_pids[n++] = pid;

	(void)fclose(file);
	return n;
}

static void child_print(pid_t pid)
{
	char path[64], command[256] = "";
	FILE *file;
	size_t size;

	(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return;

	size = fread(command, 1, sizeof(command) - 1, file);
	for (size_t i = 0; i + 1 < size; ++i) {
		if (command[i] == '\0')
			command[i] = ' ';
	}

	(void)fclose(file);
	(void)fprintf(stderr, "reap: left behind: %d %s\n", (int)pid, command);
}

/* Takes the status of each child that has ended; tells whether `program` was one of them. */
static bool children_reap(pid_t program, int *ret_status)
{
	bool is_found = false;
	int status;

	for (;;) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid <= 0)
			return is_found;
		if (pid == program) {
			*ret_status = status;
			is_found = true;
		}
	}
}

/* Waits for a signal; 0 once the deadline (ms, -1: none) has passed. */
static int signal_next(int signals, int64_t deadline)
{
	struct pollfd item = {.fd = signals, .events = POLLIN};
	struct signalfd_siginfo info;

	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();
		int r;

		if (deadline >= 0 && left <= 0)
			return 0;

		r = poll(&item, 1, left > 1000000 ? 1000000 : (int)left);
		if (r > 0 && read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
			return (int)info.ssi_signo;
		if (r < 0 && errno != EINTR)
			return 0;
	}
}

/*
 * Kills what is left until nothing is.  A killed child's children become ours, so one round is not
 * enough.  Returns how many there were.
 */
static int children_end(int signals, bool is_patient)
{
	int64_t deadline = now_ms() + (is_patient ? GRACE_MS : 0);
	pid_t pids[CHILDREN_MAX];
	int n, n_left = 0, status;

	for (;;) {
		(void)children_reap(-1, &status);
		n = children_list(pids);
		if (n == 0)
			return n_left;
		if (signal_next(signals, deadline) == 0)
			break;
	}

	while (n > 0) {
		for (int i = 0; i < n; ++i) {
			child_print(pids[i]);
			(void)kill(pids[i], SIGKILL);
			++n_left;
		}
		for (int i = 0; i < n; ++i)
			(void)waitpid(pids[i], &status, 0);
		n = children_list(pids);
	}

	return n_left;
}

static pid_t program_start(char **argv, const sigset_t *old_mask)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)sigprocmask(SIG_SETMASK, old_mask, NULL);
	(void)execvp(argv[0], argv);
	perror(argv[0]);
	_exit(STATUS_NO_PROGRAM);
}

/* The status to end with, once the program has ended or has to. */
static int program_wait(pid_t program, int signals, int64_t deadline)
{
	int status = 0;

	for (;;) {
		int number = signal_next(signals, deadline);

		if (number == SIGCHLD) {
			if (!children_reap(program, &status))
				continue;
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}

		if (number == 0)
			(void)fprintf(stderr, "reap: the time is up\n");
		return number == 0 ? STATUS_TIME : 128 + number;
	}
}

int main(int argc, char **argv)
{
	int64_t deadline = -1;
	sigset_t mask, old_mask;
	int option, signals, result, n_left;
	pid_t program;

	while ((option = getopt(argc, argv, "+t:")) == 't')
		deadline = now_ms() + (int64_t)strtoul(optarg, NULL, 10) * 1000;
	if (option != -1 || optind >= argc) {
		(void)fprintf(stderr, "usage: reap [-t SECONDS] PROGRAM [ARGUMENT ...]\n");
		return STATUS_FAILED;
	}

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &mask, &old_mask);
	signals = signalfd(-1, &mask, SFD_CLOEXEC);

	if (signals < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
		perror("reap");
		return STATUS_FAILED;
	}

	program = program_start(argv + optind, &old_mask);
	if (program < 0) {
		perror("reap");
		return STATUS_FAILED;
	}

	result = program_wait(program, signals, deadline);
	n_left = children_end(signals, result != STATUS_TIME && result < 128);
	if (n_left > 0)
		(void)fprintf(stderr, "reap: killed %d process(es) left behind\n", n_left);
	return n_left > 0 && result == 0 ? STATUS_LEFT : result;
}
