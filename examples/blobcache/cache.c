/* SPDX-License-Identifier: MIT */
#include "examples/blobcache/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "examples/blobcache/upstream.h"

enum { KEYS_MAX = 64, RESULT_SIZE_MAX = 256 };

static const char partial_form[] = "%s.%016" PRIx64 ".partial";

/* ---- open, look ---- */

int cache_open(struct cache *ret, const char *path, const char *upstream)
{
	struct cache cache = {.upstream = upstream};
	struct stat status;

	cache.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cache.fd < 0 || fstat(cache.fd, &status) < 0)
		return -1;

	/* The directory's own name, by whichever path it was found. */
	(void)snprintf(cache.table_name, sizeof(cache.table_name), "blobcache/%" PRIx64 "-%" PRIx64,
		       (uint64_t)status.st_dev, (uint64_t)status.st_ino);
	*ret = cache;
	return 0;
}

void cache_close(struct cache *cache)
{
	cache->table = ipc_flight_table_close(cache->table);
	(void)close(cache->fd);
}

int cache_connect(struct cache *cache, ipc_client *client, const struct timespec *deadline)
{
	const struct ipc_flight_table_options *options =
		IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .keys_max = KEYS_MAX,
					 .key_size_max = SHA256_HEX_SIZE,
					 .result_size_max = RESULT_SIZE_MAX);

	return ipc_flight_table_open_wait(&cache->table, client, cache->table_name, options,
					  deadline);
}

bool cache_has(const struct cache *cache, struct blob *blob)
{
	struct stat status;

	if (fstatat(cache->fd, blob->name, &status, 0) < 0 || !S_ISREG(status.st_mode))
		return false;

	blob->size = (uint64_t)status.st_size;
	return true;
}

/* ---- the download, by one process at a time ---- */

static int trouble_here(struct trouble *trouble, const char *what)
{
	trouble->failure = IPC_FAILURE_LOCAL;
	trouble->code = errno;
	(void)snprintf(trouble->reason, sizeof(trouble->reason), "%s: %s", what,
		       strerror(trouble->code));
	return -1;
}

/*
 * Partial files of this blob with a smaller fence: there is one live leader per key, and fences
 * grow for ever, so they are of leaders that are dead, or held for dead.  One that is held for dead
 * while it lives does no harm: its file is gone, and its land is refused.
 */
static void remove_stale(const struct cache *cache, const struct blob *blob, uint64_t fence)
{
	int fd = openat(cache->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	char expected[256];

	if (!directory) {
		if (fd >= 0)
			(void)close(fd);
		return; /* what is left over will be found by the next one */
	}

	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
		const char *dot = strchr(entry->d_name, '.');
		uint64_t other = dot ? strtoull(dot + 1, NULL, 16) : 0;

		(void)snprintf(expected, sizeof(expected), partial_form, blob->name, other);
		if (strcmp(entry->d_name, expected) == 0 && other < fence)
			(void)unlinkat(cache->fd, entry->d_name, 0);
	}
	(void)closedir(directory);
}

static int write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

/* All that the upstream says, into the file. */
static int copy(struct upstream *upstream, int fd, struct sha256 *sha, struct trouble *trouble)
{
	char piece[16384];
	ssize_t n;

	while ((n = read(upstream->fd, piece, sizeof(piece))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return trouble_here(trouble, "read from the upstream's pipe");
		sha256_add(sha, piece, (size_t)n);
		if (write_all(fd, piece, (size_t)n) < 0)
			return trouble_here(trouble, "write");
	}
	return 0;
}

static int download(const struct cache *cache, struct blob *blob, int fd, struct trouble *trouble)
{
	char hex[SHA256_HEX_SIZE + 1];
	struct upstream upstream;
	struct sha256 sha;

	if (upstream_start(&upstream, cache->upstream, blob->name) < 0)
		return trouble_here(trouble, cache->upstream);

	sha256_begin(&sha);
	if (copy(&upstream, fd, &sha, trouble) < 0) {
		upstream_stop(&upstream);
		return -1;
	}
	if (upstream_end(&upstream, trouble) < 0)
		return -1;

	blob->size = sha.size;
	sha256_end(&sha, hex);
	if (strcmp(hex, blob->name) != 0) {
		*trouble = (struct trouble){IPC_FAILURE_UPSTREAM, 0, "these are other bytes"};
		return -1;
	}
	return 0;
}

/* Into a file of this leader's own, which gets its name when all of it is there and on the disk. */
static int fill(const struct cache *cache, struct blob *blob, uint64_t fence,
		struct trouble *trouble)
{
	char partial[128];
	int fd, r;

	(void)snprintf(partial, sizeof(partial), partial_form, blob->name, fence);
	fd = openat(cache->fd, partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return trouble_here(trouble, "create a partial file");

	r = download(cache, blob, fd, trouble);
	if (r == 0 && fsync(fd) < 0)
		r = trouble_here(trouble, "fsync");
	(void)close(fd);
	if (r == 0 && renameat(cache->fd, partial, cache->fd, blob->name) < 0)
		r = trouble_here(trouble, "rename");
	if (r < 0)
		(void)unlinkat(cache->fd, partial, 0);
	return r;
}

/* ---- the flight ---- */

/* Runs in one of all the processes that ask for this digest now. */
static int lead(ipc_flight *flight, const void *key, size_t key_size, void *userdata)
{
	const struct cache *cache = userdata;
	struct trouble trouble;
	struct blob blob;
	uint64_t fence;
	int r;

	memset(&blob, 0, sizeof(blob));
	memcpy(blob.name, key, key_size);

	/* Look again: a flight that ended since this caller looked, or a leader that died after it
	 * had done all the work, has put it there. */
	if (cache_has(cache, &blob))
		return ipc_flight_land(flight, &blob, sizeof(blob));

	r = ipc_flight_get_fence(flight, &fence);
	if (r < 0)
		return r;
	remove_stale(cache, &blob, fence);

	if (fill(cache, &blob, fence, &trouble) < 0)
		return ipc_flight_fail(flight, trouble.failure, trouble.code, trouble.reason,
				       strlen(trouble.reason));

	return ipc_flight_land(flight, &blob, sizeof(blob));
}

int cache_fill_wait(struct cache *cache, struct blob *blob, struct trouble *ret_trouble,
		    const struct timespec *deadline)
{
	union {
		struct blob blob;
		char reason[RESULT_SIZE_MAX];
	} landed;
	struct ipc_flight_result result;
	int r;

	r = ipc_flight_do_wait(cache->table, blob->name, SHA256_HEX_SIZE, lead, cache, &landed,
			       sizeof(landed), &result, deadline);
	if (r == 0)
		*blob = landed.blob;
	if (r == 1) {
		ret_trouble->failure = result.failure;
		ret_trouble->code = result.code;
		(void)snprintf(ret_trouble->reason, sizeof(ret_trouble->reason), "%.*s",
			       (int)result.size, landed.reason);
	}
	return r;
}
