/* SPDX-License-Identifier: MIT */
#include "broker/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_SIZE 1024

static struct {
	enum log_level level;
	bool is_journal;
	unsigned n_lost;
} log_state = {.level = LOG_LEVEL_NOTICE};

/* $JOURNAL_STREAM names device and inode: it is inherited, standard error may have been redirected
 * since. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat status;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2 ||
	    fstat(STDERR_FILENO, &status) < 0)
		return false;

	return status.st_dev == device && status.st_ino == inode;
}

void log_init(enum log_level level)
{
	log_state.level = level;
	log_state.is_journal = stderr_is_journal();
}

void log_set_level(enum log_level level)
{
	log_state.level = level;
}

static const char *level_text(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_ERROR:
		return "error: ";
	case LOG_LEVEL_WARNING:
		return "warning: ";
	case LOG_LEVEL_NOTICE:
	case LOG_LEVEL_INFO:
		break;
	case LOG_LEVEL_DEBUG:
		return "debug: ";
	}
	return "";
}

/* A pipe that polls writable has room for PIPE_BUF bytes, more than a line. */
static bool stderr_has_room(void)
{
	struct pollfd pollfd = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&pollfd, 1, 0) == 1 && (pollfd.revents & POLLOUT);
}

static void line_write(enum log_level level, const char *format, va_list arguments)
{
	char line[LINE_SIZE];
	int n_head, n;

	n_head = log_state.is_journal
			 ? snprintf(line, sizeof(line), "<%d>", (int)level)
			 : snprintf(line, sizeof(line), "ipcbroker: %s", level_text(level));

	/* One byte is left for the end of the line. */
	n = vsnprintf(line + n_head, sizeof(line) - (size_t)n_head - 1, format, arguments);
	n = n < 0 ? n_head : n_head + n;
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;

	for (int i = n_head; i < n; ++i) {
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	}
	line[n] = '\n';

	(void)!write(STDERR_FILENO, line, (size_t)n + 1);
}

static void __attribute__((__format__(__printf__, 1, 2))) lost_write(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	line_write(LOG_LEVEL_WARNING, format, arguments);
	va_end(arguments);
}

void log_line(enum log_level level, const char *format, ...)
{
	int saved = errno;
	va_list arguments;

	if (level > log_state.level)
		return;

	if (!stderr_has_room()) {
		++log_state.n_lost;
		errno = saved;
		return;
	}

	if (log_state.n_lost > 0) {
		lost_write("%u lines were lost: nobody reads standard error", log_state.n_lost);
		log_state.n_lost = 0;
	}

	errno = saved; /* for %m */
	va_start(arguments, format);
	line_write(level, format, arguments);
	va_end(arguments);
	errno = saved;
}
