/* SPDX-License-Identifier: MIT */

/*
 * The file of an end.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/counter/counter.h"

static void fail(const char *path)
{
	perror(path);
	exit(1);
}

void memory_load(const char *path, struct memory *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	memset(ret, 0, sizeof(*ret));
	if (fd < 0)
		return;
	if (read(fd, ret, sizeof(*ret)) != (ssize_t)sizeof(*ret))
		fail(path);
	close(fd);
}

/* What is being written. */
static void next_path(char next[128], const char *path)
{
	snprintf(next, 128, "%s.next", path);
}

void memory_store(const char *path, const struct memory *memory)
{
	char next[128];
	int fd;

	next_path(next, path);
	fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, memory, sizeof(*memory)) != (ssize_t)sizeof(*memory) ||
	    fsync(fd) < 0)
		fail(next);
	close(fd);
	if (rename(next, path) < 0)
		fail(path);
}

void memory_remove(const char *path)
{
	char next[128];

	next_path(next, path);
	unlink(next);
	unlink(path);
}

void memory_keep_key(const char *path, struct memory *memory, ipc_session *session)
{
	must("get_key", ipc_session_get_key(session, &memory->key));
	memory->has_key = true;
	memory_store(path, memory);

	/* Killed before this, the next one comes back with either key. */
	must("confirm_key", ipc_session_confirm_key(session));
}

bool memory_count(const char *path, struct memory *memory,
		  const struct ipc_session_message *message)
{
	uint64_t number = 0;
	bool is_new;

	if (message->size == sizeof(number))
		memcpy(&number, message->data, sizeof(number));
	is_new = number == memory->seen + 1;
	if (!is_new &&
	    (number == 0 || number > memory->seen || !(message->flags & IPC_MESSAGE_REDELIVERED))) {
		fprintf(stderr, "%s: %ju came after %ju\n", path, (uintmax_t)number,
			(uintmax_t)memory->seen);
		exit(1);
	}

	if (is_new)
		memory->seen = number;
	else
		++memory->dropped;
	memory_store(path, memory);
	return is_new;
}
