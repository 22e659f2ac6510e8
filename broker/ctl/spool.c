/* SPDX-License-Identifier: MIT */
#include "broker/ctl/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "ipcctl-once-" /* of each name; only such files are opened and swept */

/* A file whose process is gone is kept for those who were stopped before they opened it. */
#define SWEEP_S 3600

int spool_init(struct spool *spool, size_t head, size_t size_max)
{
	*spool = (struct spool){.head = head, .size = head, .size_max = size_max, .fd = -1};
	spool->room = head > 4096 ? head : 4096;
	spool->data = calloc(1, spool->room);
	return spool->data ? 0 : ENOMEM;
}

void spool_deinit(struct spool *spool)
{
	spool_withdraw(spool);
	if (spool->fd >= 0)
		close(spool->fd);
	free(spool->data);
	*spool = (struct spool){.fd = -1};
}

/* ---- the file ---- */

static const char *folder(void)
{
	const char *path = secure_getenv("TMPDIR");

	return path && path[0] == '/' ? path : "/tmp";
}

/* One that is locked is still somebody's. */
static void sweep_file(int dir_fd, const char *name, time_t now)
{
	struct stat stat;
	int fd;

	fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return;

	if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_uid == geteuid() &&
	    now - stat.st_mtime > SWEEP_S && flock(fd, LOCK_EX | LOCK_NB) == 0)
		(void)unlinkat(dir_fd, name, 0);
	close(fd);
}

static void sweep(void)
{
	time_t now = time(NULL);
	struct dirent *entry;
	DIR *dir;

	dir = opendir(folder());
	if (!dir)
		return;

	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0)
			sweep_file(dirfd(dir), entry->d_name, now);
	}
	closedir(dir);
}

/*
 * Where the file system knows no file without a name, it has one from the start: what is killed
 * while it grows is swept later.
 */
static int file_make(struct spool *spool)
{
	int n;

	spool->fd = open(folder(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (spool->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		n = snprintf(spool->path, sizeof(spool->path), "%s/" PREFIX "XXXXXX", folder());
		if (n < 0 || (size_t)n >= sizeof(spool->path))
			return ENAMETOOLONG;
		spool->fd = mkostemp(spool->path, O_CLOEXEC);
		spool->has_name = spool->fd >= 0;
	}
	if (spool->fd < 0)
		return errno;

	return flock(spool->fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
}

int spool_publish(struct spool *spool, uint64_t number, mode_t mode, gid_t gid)
{
	char self[32];
	int n;

	/* The group first: a new one takes rights away.  The age counts from now. */
	if ((mode & 0070 && fchown(spool->fd, (uid_t)-1, gid) < 0) || fchmod(spool->fd, mode) < 0 ||
	    futimens(spool->fd, NULL) < 0)
		return errno;
	if (spool->has_name)
		return 0;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", spool->fd);
	for (unsigned i = 0; i < 100; ++i) {
		n = snprintf(spool->path, sizeof(spool->path), "%s/" PREFIX "%" PRIu64 ".%u",
			     folder(), number, i);
		if (n < 0 || (size_t)n >= sizeof(spool->path))
			return ENAMETOOLONG;
		if (linkat(AT_FDCWD, self, AT_FDCWD, spool->path, AT_SYMLINK_FOLLOW) == 0) {
			spool->has_name = true;
			return 0;
		}
		if (errno != EEXIST)
			return errno;
	}
	return EEXIST;
}

void spool_withdraw(struct spool *spool)
{
	if (spool->has_name)
		(void)unlink(spool->path);
	spool->has_name = false;
}

void spool_abandon(struct spool *spool)
{
	spool->has_name = false;
}

/*
 * The path comes from another process: only what this program names is opened, and nothing is
 * waited for, whatever stands there.
 */
int spool_open(const char *path, uint64_t n_bytes)
{
	const char *name = strrchr(path, '/');
	struct stat stat;
	int fd;

	if (path[0] != '/' || strncmp(name + 1, PREFIX, strlen(PREFIX)) != 0)
		return -EBADMSG;

	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;

	if (fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode) || (uint64_t)stat.st_size != n_bytes) {
		close(fd);
		return -EBADMSG;
	}
	return fd;
}

/* ---- bytes ---- */

int spool_write_bytes(int fd, const void *data, size_t size)
{
	const unsigned char *bytes = data;

	while (size) {
		ssize_t n = write(fd, bytes, size);

		if (n >= 0) {
			bytes += n;
			size -= (size_t)n;
		} else if (errno == EAGAIN) {
			struct pollfd pollfd = {.fd = fd, .events = POLLOUT};

			(void)poll(&pollfd, 1, -1);
		} else if (errno != EINTR) {
			return errno;
		}
	}
	return 0;
}

int spool_copy(int from_fd, uint64_t n_bytes, int fd)
{
	char buffer[1 << 16];
	uint64_t at = 0;

	while (at < n_bytes) {
		uint64_t left = n_bytes - at;
		size_t size = left < sizeof(buffer) ? (size_t)left : sizeof(buffer);
		ssize_t n = pread(from_fd, buffer, size, (off_t)at);
		int error;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EBADMSG;

		error = spool_write_bytes(fd, buffer, (size_t)n);
		if (error)
			return error;
		at += (uint64_t)n;
	}
	return 0;
}

int spool_write(const struct spool *spool, int fd)
{
	if (spool->fd >= 0)
		return spool_copy(spool->fd, spool->n_bytes, fd);

	return spool_write_bytes(fd, spool->data + spool->head, spool->size - spool->head);
}

static int memory_put(struct spool *spool, const void *data, size_t size)
{
	if (size > spool->room - spool->size) {
		size_t room = 2 * spool->room + size;
		void *larger = realloc(spool->data, room);

		if (!larger)
			return ENOMEM;
		spool->data = larger;
		spool->room = room;
	}

	memcpy(spool->data + spool->size, data, size);
	spool->size += size;
	return 0;
}

/* What is in memory so far begins the file. */
static int memory_spill(struct spool *spool)
{
	int error;

	sweep();
	error = file_make(spool);
	if (error)
		return error;

	error = spool_write_bytes(spool->fd, spool->data + spool->head, spool->size - spool->head);
	spool->size = spool->head;
	return error;
}

int spool_put(struct spool *spool, const void *data, size_t size)
{
	int error = 0;

	if (spool->fd < 0 && size > spool->size_max - spool->size)
		error = memory_spill(spool);
	if (error == 0)
		error = spool->fd >= 0 ? spool_write_bytes(spool->fd, data, size)
				       : memory_put(spool, data, size);
	if (error == 0)
		spool->n_bytes += size;
	return error;
}
