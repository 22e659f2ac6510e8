/* SPDX-License-Identifier: MIT */
#include "tests/support/domain.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/failure.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

#ifndef IPC_TEST_BROKER
#define IPC_TEST_BROKER "ipcbroker"
#endif

#define READY_MS 30000
#define ARGS_MAX 32

/* ---- names in /dev/shm, where nothing of ours may be left ---- */

#define NAMES_MAX 256

static char names_before[NAMES_MAX][NAME_MAX + 1];
static unsigned n_names_before;
static bool names_are_known;

/* The framework's own, which come and go: "bxf_arena_<pid>". */
static bool name_is_foreign(const char *name)
{
	if (name[0] == '.' || strncmp(name, "bxf_", 4) == 0)
		return true;

	for (unsigned i = 0; i < n_names_before; ++i) {
		if (strcmp(names_before[i], name) == 0)
			return true;
	}
	return false;
}

static void names_remember(void)
{
	struct dirent *entry;
	DIR *dir;

	if (names_are_known)
		return;

	names_are_known = true;
	dir = opendir("/dev/shm");
	if (!dir)
		return;
	while ((entry = readdir(dir)) && n_names_before < NAMES_MAX) {
		if (!name_is_foreign(entry->d_name))
			strcpy(names_before[n_names_before++], entry->d_name);
	}
	closedir(dir);
}

static void names_check(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir("/dev/shm");
	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		/* "libipc" and "ipc" begin what we make; other programs' tests may run beside us.
		 */
		if (!name_is_foreign(entry->d_name) && strstr(entry->d_name, "ipc"))
			failure("left in /dev/shm: %s", entry->d_name);
	}
	closedir(dir);
}

const char *domain_program(void)
{
	const char *program = getenv("IPC_TEST_BROKER");

	if (!program || program[0] == '\0')
		program = IPC_TEST_BROKER;

	setenv("IPC_BROKER_PROGRAM", program, 1);
	return program;
}

static void path_in(char *path, size_t size, const struct domain *domain, const char *name)
{
	snprintf(path, size, "%s/%s", domain->dir, name);
}

/* ---- domains that run: what a failed test leaves is shown, and goes ---- */

#define DOMAINS_MAX 16

static struct domain running[DOMAINS_MAX];
static pid_t running_pid;

/* The socket of a broker that was killed, the lock file, the log, and whatever the test put there.
 */
static int dir_remove(const struct domain *domain)
{
	struct dirent *entry;
	char path[512];
	DIR *dir;

	dir = opendir(domain->dir);
	while (dir && (entry = readdir(dir))) {
		path_in(path, sizeof(path), domain, entry->d_name);
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlink(path);
	}
	if (dir)
		closedir(dir);
	return rmdir(domain->dir);
}

void domain_show_log(const struct domain *domain)
{
	char path[128], text[4096];
	ssize_t n;
	int fd;

	path_in(path, sizeof(path), domain, "log");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && (n = read(fd, text, sizeof(text))) > 0)
		(void)!write(STDERR_FILENO, text, (size_t)n);
	if (fd >= 0)
		close(fd);
}

static void running_abandon(void)
{
	siginfo_t info;

	for (unsigned i = 0; i < DOMAINS_MAX; ++i) {
		if (running[i].keeper == 0)
			continue;

		fprintf(stderr, "---- log of the broker %s\n", running[i].address);
		domain_show_log(&running[i]);
		fprintf(stderr, "----\n");
		/* A number that is not our child's any more may be anybody's. */
		if (waitid(P_PID, (id_t)running[i].keeper, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
			kill(running[i].keeper, SIGTERM);
		(void)dir_remove(&running[i]);
	}
}

static void running_add(const struct domain *domain)
{
	if (running_pid != getpid()) {
		running_pid = getpid();
		memset(running, 0, sizeof(running));
		failure_register(running_abandon);
	}

	for (unsigned i = 0; i < DOMAINS_MAX; ++i) {
		if (running[i].keeper == 0) {
			running[i] = *domain;
			return;
		}
	}
}

static void running_remove(const struct domain *domain)
{
	for (unsigned i = 0; i < DOMAINS_MAX; ++i) {
		if (running_pid == getpid() && strcmp(running[i].dir, domain->dir) == 0)
			running[i].keeper = 0;
	}
}

/* ---- start ---- */

/* A bound datagram socket: where the broker says READY=1. */
static int notify_open(const struct domain *domain, struct sockaddr_un *ret)
{
	int fd;

	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	path_in(ret->sun_path, sizeof(ret->sun_path), domain, "notify");

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)ret, sizeof(*ret)) < 0)
		failure("%s: %s", ret->sun_path, strerror(errno));
	return fd;
}

static void keeper_exec(const struct domain *domain, const char *program,
			const char *const *more_args, const char *notify)
{
	const char *args[ARGS_MAX] = {program, "--address", domain->address};
	char *words = getenv("IPC_TEST_BROKER_ARGS");
	unsigned n = 3;
	char path[128];
	int log_fd;

	for (; more_args && *more_args && n < ARGS_MAX - 1; ++more_args)
		args[n++] = *more_args;
	for (char *word = words ? strtok(words, " ") : NULL; word && n < ARGS_MAX - 1;
	     word = strtok(NULL, " "))
		args[n++] = word;

	path_in(path, sizeof(path), domain, "log");
	log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0 || dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)
		_exit(126);

	/* Nothing of the test's may live on in the broker: the framework's pipes are not
	 * close-on-exec. */
	close_range(3, ~0u, 0);

	setenv("NOTIFY_SOCKET", notify, 1);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("JOURNAL_STREAM");
	execvp(program, (char *const *)args);
	fprintf(stderr, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

static void ready_wait(const struct domain *domain, int notify_fd)
{
	struct timespec deadline = process_deadline(READY_MS);
	int pidfd = process_open(domain->keeper);

	for (;;) {
		struct pollfd pollfds[] = {{.fd = notify_fd, .events = POLLIN},
					   {.fd = pidfd, .events = POLLIN}};
		char text[1024] = "";

		(void)poll(pollfds, 2, 100);
		if (recv(notify_fd, text, sizeof(text) - 1, MSG_DONTWAIT) > 0) {
			if (strstr(text, "READY=1"))
				break;
		} else if (pollfds[1].revents & POLLIN) {
			failure("the broker ended at its start, status %d",
				process_reap(domain->keeper, 1000));
		}
		if (process_has_passed(&deadline))
			failure("the broker was not ready after %d ms", READY_MS);
	}

	close(pidfd);
}

void domain_start(struct domain *domain, const char *const *more_args)
{
	const char *program = domain_program();
	struct sockaddr_un notify;
	int notify_fd;

	names_remember();

	strcpy(domain->dir, "/tmp/ipc-test-XXXXXX");
	if (!mkdtemp(domain->dir))
		failure("mkdtemp: %s", strerror(errno));
	/* Other uids may pass: whether they may connect is for the broker to say. */
	(void)chmod(domain->dir, 0711);
	path_in(domain->address, sizeof(domain->address), domain, "broker");

	notify_fd = notify_open(domain, &notify);
	domain->keeper = process_fork();
	if (domain->keeper == 0)
		keeper_exec(domain, program, more_args, notify.sun_path);
	running_add(domain);

	ready_wait(domain, notify_fd);
	close(notify_fd);
	unlink(notify.sun_path);
}

/* ---- the processes ---- */

/* Of a file of /proc, NUL-terminated; -1: the process is gone. */
static ssize_t process_read(pid_t pid, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, size - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return n;
}

/* A dead worker is there until its keeper has reaped it. */
static bool process_is_zombie(pid_t pid)
{
	char text[512];
	const char *state;

	if (process_read(pid, "stat", text, sizeof(text)) <= 0)
		return true;

	state = strrchr(text, ')');
	return !state || state[1] == '\0' || state[2] == 'Z' || state[2] == 'X';
}

/* Whether it is one of this domain's processes of that name ("ipc": of any). */
static bool process_is_member(pid_t pid, const struct domain *domain, const char *name)
{
	char text[512];
	ssize_t n;

	n = process_read(pid, "comm", text, sizeof(text));
	if (n <= 0 || strncmp(text, name, strlen(name)) != 0)
		return false;

	n = process_read(pid, "cmdline", text, sizeof(text));
	return n > 0 && memmem(text, (size_t)n, domain->address, strlen(domain->address) + 1) &&
	       !process_is_zombie(pid);
}

/* 0: none now. */
static pid_t member_find(const struct domain *domain, const char *name)
{
	struct dirent *entry;
	pid_t found = 0;
	DIR *dir;

	dir = opendir("/proc");
	if (!dir)
		failure("/proc: %s", strerror(errno));
	while (!found && (entry = readdir(dir))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && pid != getpid() && process_is_member(pid, domain, name))
			found = pid;
	}
	closedir(dir);
	return found;
}

static void until_no_member(const struct domain *domain)
{
	struct timespec deadline = process_deadline(READY_MS);
	pid_t pid;

	while ((pid = member_find(domain, "ipc"))) {
		if (process_has_passed(&deadline))
			failure("process %d outlives its domain", (int)pid);
		process_pause();
	}
}

pid_t domain_worker(const struct domain *domain)
{
	struct timespec deadline = process_deadline(READY_MS);
	pid_t pid;

	while ((pid = member_find(domain, "ipcbroker")) == 0) {
		if (process_has_passed(&deadline))
			failure("no worker after %d ms", READY_MS);
		process_pause();
	}
	return pid;
}

ipc_client *domain_connect(const struct domain *domain)
{
	struct timespec deadline = process_deadline(READY_MS);
	ipc_client *client;
	int r;

	r = ipc_client_connect_wait(&client, IPC_CLIENT_OPTIONS(.address = domain->address),
				    &deadline);
	if (r < 0)
		failure("connect to %s: %s", domain->address, ipc_error_name(r));
	return client;
}

void domain_until_ready(const struct domain *domain)
{
	ipc_client_unref(domain_connect(domain));
}

/* A process that was killed may still finish a system call: what happens after this is another's
 * work. */
static void kill_for_good(pid_t pid)
{
	int pidfd = process_open(pid);

	kill(pid, SIGKILL);
	if (pidfd >= 0) {
		process_until_ended(pidfd, READY_MS);
		close(pidfd);
	}
}

void domain_kill_worker(struct domain *domain)
{
	kill_for_good(domain_worker(domain));
	domain_until_ready(domain);
}

unsigned domain_fds_before(struct domain *domain)
{
	domain_kill_worker(domain);
	return leaks_fds_of(domain->keeper);
}

/* The status of a keeper that has ended or is about to; 0 of one that is not our child: the former
 * spare. */
static int keeper_reap(const struct domain *domain)
{
	siginfo_t info;
	int pidfd;

	if (waitid(P_PID, (id_t)domain->keeper, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
		return process_reap(domain->keeper, READY_MS);

	pidfd = process_open(domain->keeper);
	if (pidfd >= 0) {
		process_until_ended(pidfd, READY_MS);
		close(pidfd);
	}
	return 0;
}

void domain_kill_keeper(struct domain *domain)
{
	struct timespec deadline = process_deadline(READY_MS);
	pid_t pid;

	(void)domain_worker(domain); /* killed together with a dead worker it would be the end */
	kill(domain->keeper, SIGKILL);
	(void)keeper_reap(domain);

	while ((pid = member_find(domain, "ipckeeper")) == 0) {
		if (process_has_passed(&deadline))
			failure("no next keeper after %d ms", READY_MS);
		process_pause();
	}
	domain->keeper = pid;
	domain_until_ready(domain);
}

/* ---- end ---- */

static void domain_end(struct domain *domain)
{
	names_check();
	running_remove(domain);
	if (dir_remove(domain) < 0)
		failure("%s: %s", domain->dir, strerror(errno));
	domain->keeper = 0;
}

void domain_until_ended(struct domain *domain)
{
	int status = keeper_reap(domain);

	if (status != 0)
		failure("the broker ended with status %d", status);

	until_no_member(domain);
	if (access(domain->address, F_OK) == 0)
		failure("%s is still there after an orderly end", domain->address);

	domain_end(domain);
}

void domain_stop(struct domain *domain)
{
	kill(domain->keeper, SIGTERM);
	domain_until_ended(domain);
}

void domain_kill(struct domain *domain)
{
	struct timespec deadline = process_deadline(READY_MS);
	pid_t worker = domain_worker(domain);

	/* Stopped first: it must not see its keeper die, and give everything to the spare. */
	kill(worker, SIGSTOP);
	kill(domain->keeper, SIGKILL);
	kill_for_good(worker);
	(void)keeper_reap(domain);

	/* It may have died by itself just before: then another one saw its keeper die. */
	while ((worker = member_find(domain, "ipc")) && !process_has_passed(&deadline))
		kill_for_good(worker);
	until_no_member(domain);
	domain_end(domain);
}

struct timespec domain_deadline(unsigned ms)
{
	return process_deadline(ms);
}
