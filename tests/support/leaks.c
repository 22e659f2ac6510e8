/* SPDX-License-Identifier: MIT */
#include "tests/support/leaks.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/failure.h"

static unsigned count_fds(bool show)
{
	char path[64 + 256], target[256];
	struct dirent *entry;
	unsigned n = 0;
	ssize_t size;
	DIR *dir;

	dir = opendir("/proc/self/fd");
	if (!dir)
		failure("/proc/self/fd: %s", strerror(errno));
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		++n;
		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		size = show ? readlink(path, target, sizeof(target) - 1) : -1;
		if (size >= 0)
			fprintf(stderr, "descriptor %s: %.*s\n", entry->d_name, (int)size, target);
	}
	closedir(dir);
	return n;
}

static unsigned count_segments(bool show)
{
	char line[512];
	unsigned n = 0;
	FILE *file;

	file = fopen("/proc/self/maps", "re");
	if (!file)
		failure("/proc/self/maps: %s", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (!strstr(line, "/dev/shm/") && !strstr(line, "/memfd:"))
			continue;
		++n;
		if (show)
			fputs(line, stderr);
	}
	fclose(file);
	return n;
}

/* Of all threads: a child belongs to the one that forked it. */
static unsigned count_children(bool show)
{
	char path[64 + 256];
	struct dirent *entry;
	unsigned n = 0;
	DIR *dir;
	int pid;

	dir = opendir("/proc/self/task");
	if (!dir)
		failure("/proc/self/task: %s", strerror(errno));
	while ((entry = readdir(dir))) {
		FILE *file;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/children", entry->d_name);
		file = fopen(path, "re");
		while (file && fscanf(file, "%d", &pid) == 1) {
			++n;
			if (show)
				fprintf(stderr, "child %d\n", pid);
		}
		if (file)
			fclose(file);
	}
	closedir(dir);
	return n;
}

void leaks_begin(struct leaks *leaks)
{
	leaks->n_fds = count_fds(false);
	leaks->n_segments = count_segments(false);
	leaks->n_children = count_children(false);
}

void leaks_check(const struct leaks *leaks)
{
	struct leaks now;

	leaks_begin(&now);
	if (now.n_fds == leaks->n_fds && now.n_segments == leaks->n_segments &&
	    now.n_children == leaks->n_children)
		return;

	(void)count_fds(true);
	(void)count_segments(true);
	(void)count_children(true);
	failure("left over: descriptors %u, before %u; shared mappings %u, before %u; children %u, "
		"before %u",
		now.n_fds, leaks->n_fds, now.n_segments, leaks->n_segments, now.n_children,
		leaks->n_children);
}

unsigned leaks_fds_of(pid_t pid)
{
	struct dirent *entry;
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		failure("%s: %s", path, strerror(errno));
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}
