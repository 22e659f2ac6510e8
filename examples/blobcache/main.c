/* SPDX-License-Identifier: MIT */
/*
 * A blob cache that any number of processes fill at once.
 *
 *	blobcache CACHE UPSTREAM DIGEST   prints the path of the blob with this SHA-256
 *	blobcache --demo                  several of the above, killed and troubled
 *
 * CACHE is a directory, UPSTREAM a program that writes the blob it is asked for (see upstream.h),
 * for instance a script around curl(1).  Of all who ask for a blob that is not there one downloads
 * it; if that one is killed another one does; if it cannot be had all of them are told why:
 *
 * exit status   what it is                    what to do with it
 * 0             it is there
 * 1             something is wrong here       500: look at the cache's machine
 * 2             usage
 * 3             the upstream failed           502: try again later
 * 4             there is no such blob         404: do not try again
 *
 * Needs no broker: the library starts one where none runs.
 */
#include "examples/blobcache/cache.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "examples/blobcache/play.h"

static const uint64_t patience_ns = UINT64_C(60000000000);

static int failed(const char *what, int result)
{
	(void)fprintf(stderr, "blobcache: %s: %s (%s)\n", what, ipc_error_text(result),
		      ipc_error_name(result));
	return STATUS_HERE;
}

static int tell(const struct trouble *trouble)
{
	const char *what = "failed here";
	int status = STATUS_HERE;

	switch (trouble->failure) {
	case IPC_FAILURE_NOT_FOUND:
	case IPC_FAILURE_REFUSED:
		what = "not to be had";
		status = STATUS_NO_SUCH_BLOB;
		break;
	case IPC_FAILURE_UPSTREAM:
	case IPC_FAILURE_TIMED_OUT:
		what = "the upstream failed";
		status = STATUS_UPSTREAM;
		break;
	case IPC_FAILURE_NONE:
	case IPC_FAILURE_LOCAL:
	case IPC_FAILURE_TOO_BIG:
	case IPC_FAILURE_ABANDONED:
		break;
	}
	(void)fprintf(stderr, "blobcache: %s (%d): %s\n", what, (int)trouble->code,
		      trouble->reason);
	return status;
}

static int get(struct cache *cache, const char *path, struct blob *blob)
{
	struct trouble trouble;
	struct timespec deadline;
	ipc_client *client;
	int r = 0;

	if (!cache_has(cache, blob)) {
		ipc_deadline_after(&deadline, patience_ns);
		r = ipc_client_connect_wait(&client, NULL, &deadline);
		if (r < 0)
			return failed("connect", r);

		r = cache_connect(cache, client, &deadline);
		if (r == 0)
			r = cache_fill_wait(cache, blob, &trouble, &deadline);
		(void)ipc_client_unref(client);
	}

	if (r < 0)
		return failed("fill", r);
	if (r > 0)
		return tell(&trouble);
	(void)printf("%s/%s\n", path, blob->name);
	return STATUS_THERE;
}

int main(int argc, char **argv)
{
	struct cache cache;
	struct blob blob = {0};
	int status;

	if (argc == 2 && strcmp(argv[1], "--demo") == 0)
		return play();
	if (argc != 4 || strspn(argv[3], "0123456789abcdef") != SHA256_HEX_SIZE ||
	    argv[3][SHA256_HEX_SIZE]) {
		(void)fprintf(stderr, "usage: blobcache CACHE UPSTREAM DIGEST (64 hex digits, of "
				      "SHA-256)\n       blobcache --demo\n");
		return STATUS_USAGE;
	}
	memcpy(blob.name, argv[3], SHA256_HEX_SIZE);

	/* A file size limit is an errno, as a full disk is. */
	(void)signal(SIGXFSZ, SIG_IGN);
	if (cache_open(&cache, argv[1], argv[2]) < 0) {
		(void)fprintf(stderr, "blobcache: %s: %s\n", argv[1], strerror(errno));
		return STATUS_HERE;
	}
	status = get(&cache, argv[1], &blob);
	cache_close(&cache);
	return status;
}
