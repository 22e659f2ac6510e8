/* SPDX-License-Identifier: MIT */
#include "tests/support/actor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/failure.h"
#include "tests/support/process.h"

#define N_FIRST_MAX 8
#define HEAR_MS     60000
#define ASLEEP_MS   30000

void actor_start(struct actor *actor, void (*fn)(struct actor *self, void *arg), void *arg)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		failure("socketpair: %s", strerror(errno));

	pid = process_fork();
	if (pid == 0) {
		struct actor self = {.pid = getpid(), .fd = pair[1]};

		close(pair[0]);
		fn(&self, arg);
		process_end(0);
	}

	close(pair[1]);
	actor->pid = pid;
	actor->fd = pair[0];
}

struct part {
	void (*fn)(struct actor *self, void *arg);
	void *arg;
};

static void act_in_namespace(struct actor *self, void *arg)
{
	const struct part *part = arg;
	pid_t pid;

	if (unshare(CLONE_NEWPID) < 0)
		process_end(2);
	pid = fork();
	if (pid != 0) {
		actor_say(self, pid);
		(void)waitpid(pid, NULL, 0);
		process_end(pid < 0);
	}

	/* With its first process all of a namespace end. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	self->pid = getpid();
	(void)actor_hear(self); /* its number was heard first */
	part->fn(self, part->arg);
	process_end(0);
}

pid_t actor_start_in_namespace(struct actor *actor, void (*fn)(struct actor *self, void *arg),
			       void *arg)
{
	struct part part = {.fn = fn, .arg = arg};
	pid_t pid;

	actor_start(actor, act_in_namespace, &part);
	pid = (pid_t)actor_hear(actor);
	if (pid < 0)
		failure("no process in another pid namespace");
	actor_say(actor, 0);
	return pid;
}

static bool is_parent(const struct actor *actor)
{
	return actor->pid != getpid();
}

void actor_say(struct actor *actor, int64_t value)
{
	if (send(actor->fd, &value, sizeof(value), MSG_NOSIGNAL) == sizeof(value))
		return;

	if (!is_parent(actor))
		process_end(1);
	failure("actor %d does not listen: %s", (int)actor->pid, strerror(errno));
}

unsigned actor_first(const struct actor *actors, unsigned n)
{
	struct pollfd pollfd[N_FIRST_MAX];
	unsigned i;
	int r;

	if (n > N_FIRST_MAX)
		failure("%u actors are too many", n);
	for (i = 0; i < n; ++i)
		pollfd[i] = (struct pollfd){.fd = actors[i].fd, .events = POLLIN};

	do
		r = poll(pollfd, n, HEAR_MS);
	while (r < 0 && errno == EINTR);

	if (r <= 0)
		failure("actor %d said nothing for %d ms", (int)actors->pid, HEAR_MS);
	for (i = 0; !pollfd[i].revents; ++i)
		;
	return i;
}

int64_t actor_hear(struct actor *actor)
{
	int64_t value;
	ssize_t n;

	(void)actor_first(actor, 1);
	do
		n = recv(actor->fd, &value, sizeof(value), 0);
	while (n < 0 && errno == EINTR);
	if (n == sizeof(value))
		return value;

	if (!is_parent(actor))
		process_end(1);
	failure("actor %d ended without a word, status %d", (int)actor->pid, actor_join(actor));
}

static int actor_reap(struct actor *actor)
{
	int status = process_reap(actor->pid, HEAR_MS);

	if (actor->fd >= 0)
		close(actor->fd);
	actor->fd = -1;
	actor->pid = 0;
	return status;
}

void actor_kill(struct actor *actor)
{
	kill(actor->pid, SIGKILL);
	(void)actor_reap(actor);
}

int actor_join(struct actor *actor)
{
	return actor_reap(actor);
}

/* Whether the thread is in a system call that waits for a futex.  The file says "running" while it
 * is in none. */
static bool thread_sleeps(pid_t pid, const char *tid)
{
	char path[64 + 256], text[64];
	ssize_t n;
	long call;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", (int)pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		failure("%s: %s", path, strerror(errno));
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0 || text[0] < '0' || text[0] > '9')
		return false;

	text[n] = '\0';
	call = strtol(text, NULL, 10);
	return call == SYS_futex || call == 449 /* futex_waitv, on every architecture */;
}

static unsigned threads_asleep(pid_t pid, unsigned n_threads)
{
	char path[64], tid[16];
	struct dirent *entry;
	unsigned n = 0;
	DIR *dir;

	if (n_threads == 1) {
		snprintf(tid, sizeof(tid), "%d", (int)pid);
		return thread_sleeps(pid, tid);
	}

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		failure("%s: %s", path, strerror(errno));
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] != '.')
			n += thread_sleeps(pid, entry->d_name);
	}
	closedir(dir);
	return n;
}

void process_until_asleep(pid_t pid, unsigned n_threads)
{
	struct timespec deadline = process_deadline(ASLEEP_MS);

	while (threads_asleep(pid, n_threads) < n_threads) {
		if (process_has_passed(&deadline))
			failure("process %d does not sleep in a futex wait after %d ms", (int)pid,
				ASLEEP_MS);
		process_pause();
	}
}

void actor_until_asleep(const struct actor *actor)
{
	process_until_asleep(actor->pid, 1);
}
