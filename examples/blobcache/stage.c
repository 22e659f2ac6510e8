/* SPDX-License-Identifier: MIT */
#include "examples/blobcache/stage.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char script[] = "#!/bin/sh\n"
			     "cd -- \"${0%/*}\" || exit 2\n"
			     "echo \"$1\" >>runs\n"
			     "[ ! -e \"$1\" ] || head -c 100000 \"$1\"\n" /* HALF */
			     "while [ -e closed ]; do sleep 0.01; done\n"
			     "[ -e \"$1\" ] || exit 1\n"
			     "[ ! -e broken ] || exit 7\n"
			     "tail -c +100001 \"$1\"\n";

char cache_path[64], upstream_path[64];
static char root[] = "/tmp/blobcache-XXXXXX";
static pid_t owner;
static bool holds_so_far = true;

void scene(const char *title)
{
	(void)printf("\n%s\n", title);
	(void)fflush(stdout);
}

void check(bool holds, const char *claim)
{
	(void)printf("    %s %s\n", holds ? "ok  " : "FAIL", claim);
	(void)fflush(stdout);
	holds_so_far = holds_so_far && holds;
}

bool all_held(void)
{
	return holds_so_far;
}

void __attribute__((__noreturn__)) fail(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- the stage ---- */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status;
	(void)type;
	(void)walk;
	return remove(path);
}

static void clean_up(void)
{
	if (getpid() == owner)
		(void)nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

void file_write(const char *path, const void *data, size_t size, unsigned mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		fail(path);
	(void)close(fd);
}

void upstream_write(const char *name, const void *data, size_t size)
{
	char path[192];

	(void)snprintf(path, sizeof(path), "%s/upstream/%s", root, name);
	file_write(path, data, size, 0600);
}

void upstream_remove(const char *name)
{
	char path[192];

	(void)snprintf(path, sizeof(path), "%s/upstream/%s", root, name);
	(void)unlink(path);
}

void stage_set(void)
{
	char path[64];

	if (!mkdtemp(root))
		fail(root);
	owner = getpid();
	(void)atexit(clean_up);

	(void)snprintf(path, sizeof(path), "%s/upstream", root);
	(void)snprintf(cache_path, sizeof(cache_path), "%s/cache", root);
	(void)snprintf(upstream_path, sizeof(upstream_path), "%s/upstream/get", root);
	if (mkdir(path, 0700) < 0 || mkdir(cache_path, 0700) < 0)
		fail(path);
	file_write(upstream_path, script, sizeof(script) - 1, 0700);
}

/* Bytes that follow from the seed; ret_name is what their blob has to be called. */
static void blob_make(unsigned char bytes[BLOB_SIZE], uint64_t seed,
		      char ret_name[SHA256_HEX_SIZE + 1])
{
	struct sha256 sha;

	for (int i = 0; i < BLOB_SIZE; ++i) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		bytes[i] = (unsigned char)(seed >> 56);
	}
	sha256_begin(&sha);
	sha256_add(&sha, bytes, BLOB_SIZE);
	sha256_end(&sha, ret_name);
}

void upstream_with(uint64_t seed, char ret_name[SHA256_HEX_SIZE + 1])
{
	static unsigned char bytes[BLOB_SIZE];

	upstream_remove("runs");
	upstream_write("closed", "", 0);
	blob_make(bytes, seed, ret_name);
	upstream_write(ret_name, bytes, sizeof(bytes));
}

void upstream_goes_on(void)
{
	upstream_remove("closed");
}

int upstream_n_runs(void)
{
	char path[64];
	FILE *file;
	int n = 0;

	(void)snprintf(path, sizeof(path), "%s/upstream/runs", root);
	file = fopen(path, "re");
	if (!file)
		return 0;
	for (int c = getc(file); c != EOF; c = getc(file))
		n += c == '\n';
	(void)fclose(file);
	return n;
}

int cache_n_partials(char ret_name[256])
{
	DIR *directory = opendir(cache_path);
	int n = 0;

	if (!directory)
		fail(cache_path);
	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
		if (strchr(entry->d_name, '.') > entry->d_name) {
			(void)snprintf(ret_name, 256, "%s", entry->d_name);
			++n;
		}
	}
	(void)closedir(directory);
	return n;
}

bool cache_has_half(const char *name)
{
	struct stat status;
	char path[384];

	(void)snprintf(path, sizeof(path), "%s/%s", cache_path, name);
	return stat(path, &status) == 0 && status.st_size == HALF;
}
