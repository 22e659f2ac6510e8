/* SPDX-License-Identifier: MIT */
#ifndef TESTS_BROKER_KEEPER_STANDIN_H
#define TESTS_BROKER_KEEPER_STANDIN_H

/*
 * A stand-in for the worker: the test's program, started by the keeper as its own executable,
 * becomes a small worker before main() runs.  It takes one command a connection and answers with
 * text.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/keeper.h"
#include "broker/launch.h"
#include "broker/log.h"
#include "broker/store.h"
#include "broker/worker.h"

#define ANSWER_SIZE 8192

#define N_HELD_MAX STORE_FDS_MAX

struct held {
	char name[STORE_NAME_SIZE];
	int fd;
};

struct standin {
	struct store store;
	int listen_fd, config_fd;
	struct held held[N_HELD_MAX];
	unsigned n_held;
};

static inline void standin_adopt(const char *name, int fd, void *userdata)
{
	struct standin *standin = userdata;

	if (strcmp(name, STORE_NAME_LISTENER) == 0) {
		standin->listen_fd = fd;
	} else if (strcmp(name, STORE_NAME_CONFIG) == 0) {
		standin->config_fd = fd;
	} else if (standin->n_held < N_HELD_MAX) {
		strcpy(standin->held[standin->n_held].name, name);
		standin->held[standin->n_held++].fd = fd;
	}
}

static inline void standin_list(const struct standin *standin, char *answer)
{
	struct stat status;

	*answer = '\0';
	for (unsigned i = 0; i < standin->n_held && i < 64; ++i) {
		if (fstat(standin->held[i].fd, &status) < 0)
			status.st_ino = 0;
		answer += sprintf(answer, "%s %llu\n", standin->held[i].name,
				  (unsigned long long)status.st_ino);
	}
}

static inline void standin_add(struct standin *standin, const char *name, char *answer)
{
	struct held *held = &standin->held[standin->n_held++];

	strcpy(held->name, name);
	held->fd = memfd_create("test", MFD_CLOEXEC);
	sprintf(answer, "%d", store_add(&standin->store, name, held->fd));
}

static inline void standin_remove(struct standin *standin, const char *name, char *answer)
{
	unsigned i = 0;

	while (i < standin->n_held && strcmp(standin->held[i].name, name) != 0)
		++i;
	sprintf(answer, "%d", store_remove(&standin->store, name));
	if (i < standin->n_held) {
		close(standin->held[i].fd);
		standin->held[i] = standin->held[--standin->n_held];
	}
}

/* Files of sizes 1, 2, 3, ..., so that one can be told from the other; stops at the first refusal.
 */
static inline void standin_fill(struct standin *standin, char *answer)
{
	unsigned i = 0;
	int r = 0;

	for (; r == 0 && standin->n_held < N_HELD_MAX; ++i) {
		struct held *held = &standin->held[standin->n_held];

		store_name(held->name, 'c', i, i);
		held->fd = memfd_create("test", MFD_CLOEXEC);
		r = held->fd < 0 || ftruncate(held->fd, i) < 0
			    ? -errno
			    : store_add(&standin->store, held->name, held->fd);
		if (r == 0)
			++standin->n_held;
	}
	sprintf(answer, "%d %u", r, standin->n_held);
}

/* How many there are that are what their name says. */
static inline void standin_check(const struct standin *standin, char *answer)
{
	uint32_t slot, generation;
	struct stat status;
	unsigned n = 0;
	char kind;

	for (unsigned i = 0; i < standin->n_held; ++i) {
		if (store_parse_name(standin->held[i].name, &kind, &slot, &generation) == 0 &&
		    kind == 'c' && generation == (slot & 0xffff) &&
		    fstat(standin->held[i].fd, &status) == 0 && status.st_size == slot)
			++n;
	}
	sprintf(answer, "%u", n);
}

static inline void standin_config(const struct standin *standin, char *answer)
{
	ssize_t n = pread(standin->config_fd, answer, ANSWER_SIZE - 1, 0);

	answer[n > 0 ? n : 0] = '\0';
}

static inline void standin_process(char *answer)
{
	char comm[16] = "", words[256] = "";
	ssize_t n;
	int fd;

	prctl(PR_GET_NAME, comm);
	fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	n = read(fd, words, sizeof(words) - 1);
	close(fd);
	for (ssize_t i = 0; i + 1 < n; ++i)
		words[i] = words[i] == '\0' ? ' ' : words[i];
	sprintf(answer, "%d %d %s %s", (int)getpid(), (int)getppid(), comm, words);
}

static inline void standin_do(struct standin *standin, char *command, char *answer)
{
	strcpy(answer, "done");
	if (strcmp(command, "list") == 0)
		standin_list(standin, answer);
	else if (strcmp(command, "fill") == 0)
		standin_fill(standin, answer);
	else if (strcmp(command, "check") == 0)
		standin_check(standin, answer);
	else if (strcmp(command, "process") == 0)
		standin_process(answer);
	else if (strcmp(command, "config") == 0)
		standin_config(standin, answer);
	else if (strncmp(command, "add ", 4) == 0)
		standin_add(standin, command + 4, answer);
	else if (strncmp(command, "remove ", 7) == 0)
		standin_remove(standin, command + 7, answer);
	else if (strncmp(command, "tell ", 5) == 0)
		sprintf(answer, "%d", store_notify(&standin->store, command + 5));
	else if (strcmp(command, "hide") == 0)
		sprintf(answer, "%d", store_end_accepting(&standin->store));
	else if (strcmp(command, "show") == 0)
		sprintf(answer, "%d", store_resume_accepting(&standin->store));
	else if (strcmp(command, "abort") == 0)
		abort();
	else if (strncmp(command, "exit ", 5) == 0)
		_exit(atoi(command + 5));
}

static inline void standin_serve(struct standin *standin)
{
	char command[256], answer[ANSWER_SIZE];
	int fd = accept4(standin->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return;
	n = recv(fd, command, sizeof(command) - 1, 0);
	if (n > 0) {
		command[n] = '\0';
		standin_do(standin, command, answer);
		send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	}
	close(fd);
}

static inline int standin_run(void)
{
	const char *wish = getenv("STANDIN");
	static struct standin standin = {.listen_fd = -1, .config_fd = -1};
	struct signalfd_siginfo info;
	sigset_t set;
	int signal_fd;

	if (wish && strcmp(wish, "fail") == 0)
		return 7;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (store_adopt(standin_adopt, &standin) < 0 || standin.listen_fd < 0 ||
	    standin.config_fd < 0 || store_init(&standin.store) < 0)
		return WORKER_EXIT_FAILED;
	if (store_notify(&standin.store, "READY=1") < 0)
		return WORKER_EXIT_FAILED;

	for (;;) {
		struct pollfd pollfds[] = {{.fd = signal_fd, .events = POLLIN},
					   {.fd = standin.listen_fd, .events = POLLIN}};

		(void)poll(pollfds, 2, -1);
		if (read(signal_fd, &info, sizeof(info)) > 0) {
			if (info.ssi_signo == SIGHUP)
				return WORKER_EXIT_RELOAD;
			if (!wish || strcmp(wish, "stubborn") != 0)
				return WORKER_EXIT_DONE;
		}
		standin_serve(&standin);
	}
}

__attribute__((__constructor__)) static void standin_main(void)
{
	if (!keeper_is_parent())
		return;
	launch_set_title(NULL, "ipcbroker");
	log_init(LOG_LEVEL_DEBUG);
	_exit(standin_run());
}

#endif
