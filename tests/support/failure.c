/* SPDX-License-Identifier: MIT */
#include "tests/support/failure.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOGS_MAX 8

static char logs[LOGS_MAX][128];
static pid_t logs_pid; /* a forked child leaves its parent's logs alone */

static void log_show(const char *path)
{
	char text[4096];
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;

	fprintf(stderr, "---- %s\n", path);
	while ((n = read(fd, text, sizeof(text))) > 0)
		fwrite(text, 1, (size_t)n, stderr);
	fprintf(stderr, "----\n");
	close(fd);
}

static void logs_show(void)
{
	if (logs_pid != getpid())
		return;

	for (unsigned i = 0; i < LOGS_MAX; ++i) {
		if (logs[i][0] != '\0')
			log_show(logs[i]);
		logs[i][0] = '\0';
	}
}

void failure_log_add(const char *path)
{
	if (!logs_pid)
		atexit(logs_show);

	if (logs_pid != getpid()) {
		logs_pid = getpid();
		memset(logs, 0, sizeof(logs));
	}

	for (unsigned i = 0; i < LOGS_MAX; ++i) {
		if (logs[i][0] == '\0') {
			snprintf(logs[i], sizeof(logs[i]), "%s", path);
			return;
		}
	}
}

void failure_log_remove(const char *path)
{
	for (unsigned i = 0; i < LOGS_MAX; ++i) {
		if (strcmp(logs[i], path) == 0)
			logs[i][0] = '\0';
	}
}

void failure(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "support (pid %d): ", (int)getpid());
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);

	logs_show();
	abort();
}
