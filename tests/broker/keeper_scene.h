/* SPDX-License-Identifier: MIT */
#ifndef TESTS_BROKER_KEEPER_SCENE_H
#define TESTS_BROKER_KEEPER_SCENE_H

/*
 * What the tests of the keeper share: its start and end, what it says to the service manager, and
 * what its worker (keeper_standin.h) answers.
 */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ipc/error.h>

#include "tests/broker/keeper_standin.h"

#define PATIENCE_MS 30000

struct setting {
	char dir[64];
	char address[100];
	char log[100];
	int notify_fd; /* stands in for a service manager */
	struct keeper_options options;
	int passed_fds[3]; /* which the child gets as 3, 4, 5 */
	const char *passed_names;
};

static struct setting setting;

static inline int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void notify_open(void)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};

	snprintf(sockaddr.sun_path, sizeof(sockaddr.sun_path), "%s/notify", setting.dir);
	setting.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(setting.notify_fd, (struct sockaddr *)&sockaddr, sizeof(sockaddr)), 0);
}

static inline void setup(void)
{
	static char *argv[] = {"/somewhere/ipcbroker", "--word", NULL};

	/* A keeper that took over is nobody's child but ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	memset(&setting, 0, sizeof(setting));
	strcpy(setting.dir, "/tmp/ipc-keeper-XXXXXX");
	cr_assert(mkdtemp(setting.dir));
	snprintf(setting.address, sizeof(setting.address), "%s/broker", setting.dir);
	snprintf(setting.log, sizeof(setting.log), "%s/log", setting.dir);
	memset(setting.passed_fds, -1, sizeof(setting.passed_fds));
	argv[0] = strdup("/somewhere/ipcbroker");
	setting.options = (struct keeper_options){.address = setting.address,
						  .has_level = true,
						  .level = LOG_LEVEL_DEBUG,
						  .argv = argv};
	notify_open();
	unsetenv("STANDIN");
}

static inline bool is_there(const char *name)
{
	char path[200];
	struct stat status;

	snprintf(path, sizeof(path), "%s/%s", setting.dir, name);
	return lstat(path, &status) == 0;
}

static inline void teardown(void)
{
	static const char *const names[] = {"notify",     "log",  "broker", "broker.lock",
					    "broker.new", "conf", "other"};
	char path[200];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
		snprintf(path, sizeof(path), "%s/%s", setting.dir, names[i]);
		unlink(path);
	}
	close(setting.notify_fd);
	cr_assert_eq(rmdir(setting.dir), 0, "%s: %s", setting.dir, strerror(errno));

	/* Keeper, spare and worker are gone. */
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
	cr_assert_eq(errno, ECHILD);
}

static inline void child_run(void)
{
	char path[120], number[16];
	int fd = open(setting.log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	unsigned n_passed = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	log_init(LOG_LEVEL_DEBUG);
	snprintf(path, sizeof(path), "%s/notify", setting.dir);
	setenv("NOTIFY_SOCKET", path, 1);
	for (unsigned i = 0; i < 3 && setting.passed_fds[i] >= 0; ++i)
		setting.passed_fds[i] = fcntl(setting.passed_fds[i], F_DUPFD, 100);
	for (; n_passed < 3 && setting.passed_fds[n_passed] >= 0; ++n_passed)
		dup2(setting.passed_fds[n_passed], 3 + (int)n_passed);
	if (n_passed > 0) {
		snprintf(number, sizeof(number), "%d", (int)getpid());
		setenv("LISTEN_PID", number, 1);
		snprintf(number, sizeof(number), "%u", n_passed);
		setenv("LISTEN_FDS", number, 1);
		if (setting.passed_names)
			setenv("LISTEN_FDNAMES", setting.passed_names, 1);
	}
	_exit(keeper_run(&setting.options));
}

static inline pid_t keeper_start(void)
{
	pid_t pid = fork();

	if (pid == 0)
		child_run();
	return pid;
}

/* The next message to the service manager; its descriptor, if the caller wants it. */
static inline void manager_hear(char text[1024], int *ret_fd)
{
	struct pollfd pollfd = {.fd = setting.notify_fd, .events = POLLIN};
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec vector = {.iov_base = text, .iov_len = 1023};
	struct msghdr message = {.msg_iov = &vector,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	int fd = -1;
	ssize_t n;

	cr_assert_eq(poll(&pollfd, 1, PATIENCE_MS), 1, "nothing was told");
	n = recvmsg(setting.notify_fd, &message, MSG_CMSG_CLOEXEC);
	cr_assert_gt(n, 0);
	text[n] = '\0';
	if (CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	if (ret_fd)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
}

static inline void manager_await(const char *wanted)
{
	char text[1024];

	do
		manager_hear(text, NULL);
	while (!strstr(text, wanted));
}

static inline int connect_now(void)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sockaddr.sun_path, setting.address);
	if (connect(fd, (struct sockaddr *)&sockaddr, sizeof(sockaddr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* False: the worker died instead of answering. */
static inline bool ask_once(const char *command, char answer[ANSWER_SIZE])
{
	struct pollfd pollfd = {.fd = connect_now(), .events = POLLIN};
	ssize_t n = -1;

	answer[0] = '\0';
	if (pollfd.fd < 0)
		return false;
	if (send(pollfd.fd, command, strlen(command), MSG_NOSIGNAL) > 0 &&
	    poll(&pollfd, 1, PATIENCE_MS) == 1)
		n = recv(pollfd.fd, answer, ANSWER_SIZE - 1, 0);
	close(pollfd.fd);
	if (n >= 0)
		answer[n] = '\0';
	return n > 0;
}

/* What was asked of a worker that died is asked again, as a client does. */
static inline const char *ask(const char *command)
{
	static char answer[ANSWER_SIZE];
	int64_t end = now_ms() + PATIENCE_MS;

	while (!ask_once(command, answer))
		cr_assert_lt(now_ms(), end, "no answer to \"%s\"", command);
	return answer;
}

static inline int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names and inodes, sorted: a gap is filled by the last one, so their order changes. */
static inline const char *ask_list(void)
{
	static char text[ANSWER_SIZE], sorted[ANSWER_SIZE];
	char *lines[64], *at = text;
	unsigned n = 0;

	strcpy(text, ask("list"));
	sorted[0] = '\0';
	for (char *line; n < 64 && (line = strsep(&at, "\n")) && *line;)
		lines[n++] = line;
	qsort(lines, n, sizeof(lines[0]), compare_lines);
	for (unsigned i = 0; i < n; ++i)
		strcat(strcat(sorted, lines[i]), "\n");
	return sorted;
}

struct process {
	int pid, ppid;
	char comm[32], words[200];
};

static inline struct process ask_process(void)
{
	struct process process = {0};

	cr_assert_eq(sscanf(ask("process"), "%d %d %31s %199[^\n]", &process.pid, &process.ppid,
			    process.comm, process.words),
		     4);
	return process;
}

static inline int reap(pid_t pid)
{
	int64_t end = now_ms() + PATIENCE_MS;
	int status = -1;
	pid_t r;

	/* WNOHANG, and a wait for SIGCHLD with a deadline: a hanging keeper must not hang the test.
	 */
	sigset_t set;
	const struct timespec slice = {.tv_nsec = 50000000};

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	while ((r = waitpid(pid, &status, WNOHANG)) == 0) {
		cr_assert_lt(now_ms(), end, "process %d does not end", (int)pid);
		(void)sigtimedwait(&set, NULL, &slice);
	}
	cr_assert_eq(r, pid);
	return status;
}

/* Everybody who became ours. */
static inline void reap_all(void)
{
	int64_t end = now_ms() + PATIENCE_MS;
	const struct timespec slice = {.tv_nsec = 10000000};
	sigset_t set;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		cr_assert_lt(now_ms(), end, "processes are left");
		if (pid == 0)
			(void)sigtimedwait(&set, NULL, &slice);
	}
}

static inline int keeper_stop(pid_t keeper, int signal)
{
	int status;

	kill(keeper, signal);
	status = reap(keeper);
	reap_all();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline bool log_has(const char *text)
{
	static char log[1 << 20];
	int fd = open(setting.log, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, log, sizeof(log) - 1);

	close(fd);
	log[n > 0 ? n : 0] = '\0';
	return strstr(log, text) != NULL;
}

static inline void conf_write(const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof(path), "%s/conf", setting.dir);
	file = fopen(path, "we");
	cr_assert(file);
	fputs(text, file);
	fclose(file);
	free((char *)setting.options.config);
	setting.options.config = strdup(path);
}

#endif
