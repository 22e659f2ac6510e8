/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/log.h"

static int saved_fd, fds[2];

/* Standard error is a pipe that the test reads. */
static void setup(void)
{
	saved_fd = dup(STDERR_FILENO);
	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	dup2(fds[1], STDERR_FILENO);
	unsetenv("JOURNAL_STREAM");
}

static void teardown(void)
{
	dup2(saved_fd, STDERR_FILENO);
	close(saved_fd);
	close(fds[0]);
	close(fds[1]);
}

static const char *written(void)
{
	static char text[1 << 17];
	size_t size = 0;
	ssize_t n;

	while (size < sizeof(text) - 1 &&
	       (n = read(fds[0], text + size, sizeof(text) - 1 - size)) > 0)
		size += (size_t)n;
	text[size] = '\0';
	return text;
}

Test(log, one_line_an_event_and_none_below_the_level, .init = setup, .fini = teardown,
     .timeout = 60)
{
	log_init(LOG_LEVEL_NOTICE);
	log_line(LOG_LEVEL_ERROR, "a %d", 1);
	log_line(LOG_LEVEL_WARNING, "b");
	log_line(LOG_LEVEL_NOTICE, "c");
	log_line(LOG_LEVEL_INFO, "d");
	log_set_level(LOG_LEVEL_DEBUG);
	log_line(LOG_LEVEL_DEBUG, "e");

	cr_assert_str_eq(written(), "ipcbroker: error: a 1\nipcbroker: warning: b\nipcbroker: "
				    "c\nipcbroker: debug: e\n");
}

/* A client may call itself anything. */
Test(log, nobody_writes_a_second_line, .init = setup, .fini = teardown, .timeout = 60)
{
	char name[3000];

	log_init(LOG_LEVEL_NOTICE);
	log_line(LOG_LEVEL_NOTICE, "%s", "x\n<0>ipcbroker: error: y\033[2J\177\r");
	cr_assert_str_eq(written(), "ipcbroker: x?<0>ipcbroker: error: y?[2J??\n");

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	log_line(LOG_LEVEL_NOTICE, "%s", name);
	cr_assert_leq(strlen(written()), 1024);
	cr_assert_eq(written()[0], '\0');
}

/* */
Test(log, the_journal_gets_priorities, .init = setup, .fini = teardown, .timeout = 60)
{
	struct stat status;
	char stream[64];

	fstat(STDERR_FILENO, &status);
	(void)snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
		       (unsigned long long)status.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init(LOG_LEVEL_DEBUG);
	log_line(LOG_LEVEL_ERROR, "a");
	log_line(LOG_LEVEL_DEBUG, "b");
	cr_assert_str_eq(written(), "<3>a\n<7>b\n");

	/* Inherited, but standard error is another file now. */
	(void)snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
		       (unsigned long long)status.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init(LOG_LEVEL_DEBUG);
	log_line(LOG_LEVEL_ERROR, "a");
	cr_assert_str_eq(written(), "ipcbroker: error: a\n");
}

/* A reader that sleeps costs lines, not the broker; how many is told. */
Test(log, a_full_pipe_does_not_block, .init = setup, .fini = teardown, .timeout = 60)
{
	const char *text;
	unsigned n_lines = 0, n_lost;
	const char *told;

	log_init(LOG_LEVEL_NOTICE);
	for (unsigned i = 0; i < 5000; ++i)
		log_line(LOG_LEVEL_NOTICE, "line %u of five thousand, long enough to fill a pipe",
			 i);
	text = written();
	for (const char *at = text; (at = strchr(at, '\n')); ++at)
		++n_lines;
	cr_assert_lt(n_lines, 5000);

	log_line(LOG_LEVEL_NOTICE, "again");
	told = written();
	cr_assert_eq(sscanf(told, "ipcbroker: warning: %u lines were lost", &n_lost), 1, "%s",
		     told);
	cr_assert_eq(n_lost + n_lines, 5000);
	cr_assert(strstr(told, "\nipcbroker: again\n"));
}

Test(log, errno_survives, .init = setup, .fini = teardown, .timeout = 60)
{
	signal(SIGPIPE, SIG_IGN);
	log_init(LOG_LEVEL_NOTICE);
	close(fds[0]);
	errno = ENOSPC;
	log_line(LOG_LEVEL_NOTICE, "nobody reads this");
	cr_assert_eq(errno, ENOSPC);
	fds[0] = -1;
}
