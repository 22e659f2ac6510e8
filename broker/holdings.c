/* SPDX-License-Identifier: MIT */
#include "broker/holdings.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "broker/log.h"
#include "libipc/platform/fdpass.h"

#define FDS_WANTED 20480
#define FDS_OWN    32 /* the highest ones are the keeper's */

/* How many numbers there are. */
static int n_allowed = 256;

unsigned holdings_init_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return (unsigned)n_allowed;

	limit.rlim_cur = limit.rlim_max;
	if (limit.rlim_max < FDS_WANTED) {
		struct rlimit more = {FDS_WANTED, FDS_WANTED};

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			limit = more;
	}
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	n_allowed = limit.rlim_cur < FDS_WANTED ? (int)limit.rlim_cur : FDS_WANTED;
	return (unsigned)n_allowed;
}

int holdings_raise(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, n_allowed - FDS_OWN);

	if (high < 0)
		return fd;
	(void)fd_close(fd);
	return high;
}

int holdings_add(struct fdstore *table, const char *name, int fd)
{
	int index = fdstore_find(table, name);
	int number;

	if (index < 0) {
		number = HOLDINGS_FD_FIRST +
			 (int)atomic_load_explicit(&table->n, memory_order_relaxed);
		if (number + 2 * FDS_OWN <= n_allowed)
			index = fdstore_append(table, name, number);
	}
	if (index < 0) {
		log_line(LOG_LEVEL_ERROR,
			 "the store of descriptors does not take \"%s\": full, or no legal name",
			 name);
		(void)fd_close(fd);
		return -1;
	}

	number = HOLDINGS_FD_FIRST + index;
	if (fd != number) {
		(void)dup2(fd, number);
		(void)fd_close(fd);
	}
	(void)fcntl(number, F_SETFD, 0);
	return number;
}

void holdings_remove(struct fdstore *table, const char *name)
{
	int index = fdstore_find(table, name);
	int last = (int)atomic_load_explicit(&table->n, memory_order_relaxed) - 1;

	if (index < 0)
		return;

	/* The last one fills the gap, in the table as in the numbers. */
	if (index != last)
		(void)dup2(HOLDINGS_FD_FIRST + last, HOLDINGS_FD_FIRST + index);
	(void)fd_close(HOLDINGS_FD_FIRST + last);

	fdstore_take(table, (unsigned)index);
	table->entry[index].fd = HOLDINGS_FD_FIRST + index;
}

void holdings_clear(struct fdstore *table)
{
	unsigned n = atomic_load_explicit(&table->n, memory_order_relaxed);

	if (n > 0)
		(void)close_range(HOLDINGS_FD_FIRST, HOLDINGS_FD_FIRST + n - 1, 0);
	fdstore_clear(table);
}
