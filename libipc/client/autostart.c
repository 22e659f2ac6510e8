/* SPDX-License-Identifier: MIT */
#include "libipc/client/autostart.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/syserr.h"

/* Where the broker was installed. */
#ifndef IPC_BROKER_PROGRAM
#define IPC_BROKER_PROGRAM "/usr/bin/ipcbroker"
#endif

/* Where the monitor has its pipe: the first after the standard streams. */
#define MONITOR_FD 3

/* All that the monitor uses, made ready before: a copy of a process with threads may only make
 * system calls. */
struct start {
	char program[PATH_MAX];
	char *arguments[5];
	char **environment;
	bool is_anywhere; /* the address is absolute: no need to stay in this directory */
	int fd;           /* the pipe's other end */
};

/* ---- in the monitor ---- */

/* Like fork(), without handlers, and without a signal at the end where signal is 0. */
static pid_t process_copy(int signal)
{
	return (pid_t)syscall(SYS_clone, (unsigned long)signal, 0, 0, 0, 0);
}

static void monitor_close_from(unsigned first)
{
	if (syscall(SYS_close_range, first, ~0u, 0) == 0)
		return;

	/* Before Linux 5.9. */
	for (long fd = first, n = sysconf(_SC_OPEN_MAX); fd < n && fd < 65536; ++fd)
		(void)close((int)fd);
}

/* Nothing of this process is left but the pipe. */
static void monitor_detach(struct start *start)
{
	int null;

	(void)setsid();
	if (start->is_anywhere)
		(void)!chdir("/");

	if (start->fd < MONITOR_FD)
		start->fd = fcntl(start->fd, F_DUPFD_CLOEXEC, MONITOR_FD);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < MONITOR_FD; ++fd)
		(void)dup2(null, fd);
	if (start->fd != MONITOR_FD)
		(void)dup3(start->fd, MONITOR_FD, O_CLOEXEC);
	monitor_close_from(MONITOR_FD + 1);
}

static void broker_exec(const struct start *start)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;

	/* What is ignored stays so over exec. */
	for (int signal = 1; signal < NSIG; ++signal)
		(void)sigaction(signal, &action, NULL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);

	(void)execve(start->program, start->arguments, start->environment);
	_exit(127);
}

/* Until the client has hung up (the broker is then init's) or the broker has ended. */
static void monitor_watch(pid_t broker)
{
	int pid_fd = (int)syscall(SYS_pidfd_open, broker, 0);
	struct pollfd polls[] = {{.fd = MONITOR_FD}, {.fd = pid_fd, .events = POLLIN}};
	unsigned char news;
	int status = -1;

	for (;;) {
		(void)poll(polls, N_ELEMENTS(polls), pid_fd < 0 ? 20 : -1);
		if (waitpid(broker, &status, WNOHANG) == broker)
			break;
		if (polls[0].revents)
			return;
	}

	news = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? AUTOSTART_OTHER : AUTOSTART_FAILED;
	(void)!write(MONITOR_FD, &news, 1);
}

static void monitor_run(struct start *start)
{
	const unsigned char failed = AUTOSTART_FAILED;
	pid_t broker;

	monitor_detach(start);

	broker = process_copy(SIGCHLD);
	if (broker == 0)
		broker_exec(start);
	if (broker > 0)
		monitor_watch(broker);
	else
		(void)!write(MONITOR_FD, &failed, 1);

	_exit(0);
}

/* ---- in the client ---- */

static bool program_is_there(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* As execvp(3) would, but before the process is copied. */
static bool program_find_in_path(char program[PATH_MAX])
{
	const char *path = secure_getenv("PATH");

	while (path && *path) {
		int n = (int)strcspn(path, ":");

		if (n > 0 && snprintf(program, PATH_MAX, "%.*s/ipcbroker", n, path) < PATH_MAX &&
		    program_is_there(program))
			return true;
		path += n;
		path += *path == ':';
	}
	return false;
}

static bool program_find(char program[PATH_MAX])
{
	const char *given = secure_getenv("IPC_BROKER_PROGRAM");

	/* Where it is named, no other one will do. */
	if (given && given[0] != '\0')
		return snprintf(program, PATH_MAX, "%s", given) < PATH_MAX &&
		       program_is_there(program);

	return (snprintf(program, PATH_MAX, "%s", IPC_BROKER_PROGRAM) < PATH_MAX &&
		program_is_there(program)) ||
	       program_find_in_path(program);
}

/* What tells our process from its service manager's point of view is none of the broker's business.
 */
static bool variable_is_private(const char *variable)
{
	static const char *const names[] = {
		"NOTIFY_SOCKET=",  "LISTEN_PID=",   "LISTEN_FDS=",    "LISTEN_FDNAMES=",
		"JOURNAL_STREAM=", "WATCHDOG_PID=", "WATCHDOG_USEC=", "MAINPID="};

	for (size_t i = 0; i < N_ELEMENTS(names); ++i)
		if (strncmp(variable, names[i], strlen(names[i])) == 0)
			return true;

	return false;
}

/* Pointers to this process's own variables. */
static char **environment_new(void)
{
	size_t n = 0, n_kept = 0;
	char **kept;

	while (environ && environ[n])
		++n;

	kept = calloc(n + 1, sizeof(*kept));
	for (size_t i = 0; kept && i < n; ++i)
		if (!variable_is_private(environ[i]))
			kept[n_kept++] = environ[i];

	return kept;
}

/* With all signals blocked: no handler of the program's runs in the copy. */
static pid_t monitor_start(struct start *start)
{
	sigset_t all, before;
	pid_t monitor;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	monitor = process_copy(0);
	if (monitor == 0)
		monitor_run(start);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);

	return monitor;
}

int autostart_begin(struct autostart *autostart, const struct location *location)
{
	char path[sizeof(location->path)];
	struct start start = {.arguments = {"ipcbroker", "--autostart", "--address", path, NULL},
			      .is_anywhere = location->path[0] == '/'};
	int fds[2], r = 0;

	memcpy(path, location->path, sizeof(path));
	if (!program_find(start.program))
		return IPC_ECONNREFUSED;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return syserr(SYSERR_SOCKET, errno);
	start.fd = fds[1];
	start.environment = environment_new();

	autostart->monitor = start.environment ? monitor_start(&start) : -1;
	if (autostart->monitor > 0) {
		autostart->fd = fds[0];
		fds[0] = -1;
	} else {
		/* A process that may make no others has no embedded broker, and that is all there
		 * is to say. */
		r = start.environment ? IPC_ECONNREFUSED : IPC_ENOMEM;
	}

	free(start.environment);
	(void)fd_close(fds[0]);
	(void)fd_close(fds[1]);
	return r;
}

enum autostart_news autostart_wait(struct autostart *autostart, int ms)
{
	struct pollfd poll_fd = {.fd = autostart->fd, .events = POLLIN};
	unsigned char news = AUTOSTART_FAILED;

	/* A negative number is passed over, so without a start this only sleeps. */
	if (poll(&poll_fd, 1, ms) <= 0)
		return AUTOSTART_NOTHING;

	/* The monitor says one byte before it ends; if it was killed, nothing. */
	if (read(autostart->fd, &news, 1) != 1)
		news = AUTOSTART_FAILED;

	autostart_end(autostart);
	return news == AUTOSTART_OTHER ? AUTOSTART_OTHER : AUTOSTART_FAILED;
}

void autostart_end(struct autostart *autostart)
{
	if (autostart->fd < 0)
		return;

	/*
	 * Seeing the end of the pipe would end the monitor as well, unless a child that another
	 * thread forked meanwhile has a copy.  The broker does not notice: it becomes a child of
	 * init.
	 */
	autostart->fd = fd_close(autostart->fd);
	(void)kill(autostart->monitor, SIGKILL);
	while (waitpid(autostart->monitor, NULL, __WCLONE) < 0 && errno == EINTR)
		;
	autostart->monitor = -1;
}
