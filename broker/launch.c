/* SPDX-License-Identifier: MIT */
#include "broker/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "broker/log.h"
#include "broker/store.h"

/* One string of an environment has at most 128 KiB; a piece of names, with its variable, stays
 * below. */
#define PIECE_NAMES 9000
#define PIECE_SIZE  (PIECE_NAMES * (STORE_NAME_MAX + 1) + 32)
#define PIECES      ((STORE_FDS_MAX + PIECE_NAMES - 1) / PIECE_NAMES)
#define VARIABLES   (PIECES + 8)
#define VALUE_SIZE  64

extern char **environ;

void launch_set_title(char *argv0, const char *title)
{
	size_t length = strlen(title);
	char *name;

	(void)prctl(PR_SET_NAME, title);
	if (!argv0)
		return;

	/* The kernel shows the bytes that the process was started with: they may be changed, not
	 * moved. */
	name = strrchr(argv0, '/');
	name = name ? name + 1 : argv0;
	if (strlen(name) == length)
		memcpy(name, title, length);
}

/* Runs in the child, which is single-threaded and has nothing but this to do: memory need not be
 * given back. */
struct environment {
	char **variables;
	unsigned n;
	char values[VARIABLES][VALUE_SIZE];
	unsigned n_values;
	char names[PIECES][PIECE_SIZE];
};

static bool is_inherited(const char *variable)
{
	static const char *const ours[] = {"LISTEN_", "NOTIFY_SOCKET=", STORE_ENV_KEEPER "=",
					   STORE_ENV_SPARE "="};

	for (unsigned i = 0; i < sizeof(ours) / sizeof(ours[0]); ++i) {
		if (strncmp(variable, ours[i], strlen(ours[i])) == 0)
			return false;
	}
	return true;
}

static void environment_set(struct environment *environment, const char *name, const char *prefix,
			    long value)
{
	char *text = environment->values[environment->n_values++];

	(void)snprintf(text, VALUE_SIZE, "%s=%s%ld", name, prefix, value);
	environment->variables[environment->n++] = text;
}

static void environment_set_names(struct environment *environment, const struct fdstore *store)
{
	uint32_t n = atomic_load_explicit(&store->n, memory_order_relaxed);

	for (unsigned piece = 0; piece == 0 || piece * PIECE_NAMES < n; ++piece) {
		char *at = environment->names[piece];

		at += piece == 0 ? sprintf(at, "LISTEN_FDNAMES=")
				 : sprintf(at, "LISTEN_FDNAMES_%u=", piece);
		for (uint32_t i = piece * PIECE_NAMES; i < n && i < (piece + 1) * PIECE_NAMES;
		     ++i) {
			size_t length = strlen(store->entry[i].name);

			if (i > piece * PIECE_NAMES)
				*at++ = ':';
			memcpy(at, store->entry[i].name, length);
			at += length;
		}
		*at = '\0';
		environment->variables[environment->n++] = environment->names[piece];
	}
}

static char **environment_make(const struct launch *launch, pid_t keeper)
{
	struct environment *environment = calloc(1, sizeof(*environment));
	unsigned n = 0;

	while (environ[n])
		++n;
	if (environment)
		environment->variables = calloc(n + VARIABLES + 1, sizeof(char *));
	if (!environment || !environment->variables)
		return NULL;

	for (unsigned i = 0; i < n; ++i) {
		if (is_inherited(environ[i]))
			environment->variables[environment->n++] = environ[i];
	}
	environment_set(environment, "LISTEN_PID", "", getpid());
	environment_set(environment, "LISTEN_FDS", "",
			atomic_load_explicit(&launch->store->n, memory_order_relaxed));
	environment_set_names(environment, launch->store);
	environment_set(environment, "NOTIFY_SOCKET", "fd:", launch->notify_fd);
	environment_set(environment, STORE_ENV_KEEPER, "", keeper);
	if (launch->spare_fd >= 0)
		environment_set(environment, STORE_ENV_SPARE, "fd:", launch->spare_fd);

	return environment->variables;
}

static char **arguments_make(const struct launch *launch)
{
	static char name[] = "ipcbroker";
	char **arguments;
	unsigned n = 0;

	while (launch->argv && launch->argv[n])
		++n;

	arguments = calloc(n + 2, sizeof(*arguments));
	if (arguments) {
		arguments[0] = name;
		for (unsigned i = 0; i < n; ++i)
			arguments[i + 1] = launch->argv[i];
	}
	return arguments;
}

static void __attribute__((__noreturn__)) worker_exec(const struct launch *launch, pid_t keeper)
{
	char **environment, **arguments;

	/* From here on the keeper's death is told; one that came before is told by the parent's
	 * number.  SIGUSR2 is blocked: it stays pending. */
	(void)prctl(PR_SET_PDEATHSIG, SIGUSR2);
	if (getppid() != keeper)
		(void)raise(SIGUSR2);

	environment = environment_make(launch, keeper);
	arguments = arguments_make(launch);
	if (environment && arguments && fcntl(launch->notify_fd, F_SETFD, 0) == 0 &&
	    (launch->spare_fd < 0 || fcntl(launch->spare_fd, F_SETFD, 0) == 0)) {
		/* Not by its path: what lies there may be another version by now. */
		(void)execve("/proc/self/exe", arguments, environment);
	}

	log_line(LOG_LEVEL_ERROR, "the worker cannot be started: execve: /proc/self/exe: %s",
		 strerror(errno));
	_exit(127);
}

pid_t launch_worker(const struct launch *launch)
{
	pid_t keeper = getpid();
	pid_t pid = fork();

	if (pid == 0)
		worker_exec(launch, keeper);
	return pid;
}
