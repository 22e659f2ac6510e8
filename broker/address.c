/* SPDX-License-Identifier: MIT */
#include "broker/address.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libipc/platform/fdpass.h"

#define BACKLOG 4096 /* cut to net.core.somaxconn */

static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == ADDRESS_SIZE, "size of sun_path");

/* PATH, PATH.new, PATH.lock */
struct name {
	char text[ADDRESS_SIZE + ADDRESS_SUFFIX_MAX];
};

static struct name name_of(const struct address *address, const char *suffix)
{
	struct name name;

	(void)snprintf(name.text, sizeof(name.text), "%s%s", address->path, suffix);
	return name;
}

/* ---- the path ---- */

static int fail(char *error, unsigned error_size, const char *path, const char *what, int number)
{
	(void)snprintf(error, error_size, "%s: %s: %s", path, what, strerror(number));
	return -1;
}

static int directory_make(const char *path, char *error, unsigned error_size)
{
	const char *end = strrchr(path, '/');
	char directory[ADDRESS_SIZE];
	const char *name;
	mode_t mode;

	if (!end || end == path)
		return 0;

	(void)snprintf(directory, sizeof(directory), "%.*s", (int)(end - path), path);
	name = strrchr(directory, '/');
	if (strcmp(name ? name + 1 : directory, "ipc") != 0)
		return 0;

	mode = strcmp(directory, "/run/ipc") == 0 ? 0755 : 0700;
	if (mkdir(directory, mode) < 0)
		return errno == EEXIST ? 0 : fail(error, error_size, directory, "mkdir", errno);

	/* The umask may have taken more than the mode says. */
	return chmod(directory, mode) < 0 ? fail(error, error_size, directory, "chmod", errno) : 0;
}

int address_find(struct address *address, const char *given, char *error, unsigned error_size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	const char *broker = getenv("IPC_BROKER");
	char path[4096];
	int n;

	if (given)
		n = snprintf(path, sizeof(path), "%s", given);
	else if (broker && broker[0] != '\0')
		n = snprintf(path, sizeof(path), "%s", broker);
	else if (runtime && runtime[0] == '/')
		n = snprintf(path, sizeof(path), "%s/ipc/broker", runtime);
	else
		n = snprintf(path, sizeof(path), "/run/ipc/broker");

	if (n <= 0) {
		(void)snprintf(error, error_size,
			       "the address is empty; legal: the path of a socket");
		return -1;
	}
	if (n > ADDRESS_LENGTH_MAX) {
		(void)snprintf(error, error_size,
			       "%.64s...: the path of the socket has %d bytes; legal: up to %d",
			       path, n, ADDRESS_LENGTH_MAX);
		return -1;
	}

	*address = (struct address)ADDRESS_NULL;
	memcpy(address->path, path, (size_t)n + 1);
	return directory_make(address->path, error, error_size);
}

/* ---- the lock ---- */

enum address_result address_lock(struct address *address, char *error, unsigned error_size)
{
	struct name name = name_of(address, ".lock");
	struct stat status;
	char text[16];
	int fd;

	fd = open(name.text, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK,
		  0600);
	if (fd < 0) {
		(void)fail(error, error_size, name.text, "open", errno);
		return ADDRESS_FAILED;
	}
	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
		(void)snprintf(error, error_size, "%s: not a regular file", name.text);
		(void)fd_close(fd);
		return ADDRESS_FAILED;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int number = errno;
		ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

		(void)fd_close(fd);
		if (number != EWOULDBLOCK) {
			(void)fail(error, error_size, name.text, "flock", number);
			return ADDRESS_FAILED;
		}
		text[n > 0 ? n : 0] = '\0';
		(void)snprintf(error, error_size, "%s: another broker serves it (process %.*s)",
			       address->path, (int)strspn(text, "0123456789"), text);
		return ADDRESS_TAKEN;
	}

	/* For people only; whether it can be written does not matter. */
	(void)snprintf(text, sizeof(text), "%d\n", (int)getpid());
	(void)!ftruncate(fd, 0);
	(void)!pwrite(fd, text, strlen(text), 0);

	address->lock_fd = fd;
	return ADDRESS_DONE;
}

/* ---- the socket ---- */

static struct sockaddr_un sockaddr_of(const char *path)
{
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};
	size_t length = strlen(path);

	assert(length < sizeof(sockaddr.sun_path));
	memcpy(sockaddr.sun_path, path, length);
	return sockaddr;
}

/*
 * The lock says that no broker of ours is there; but the name may belong to a service manager that
 * listens for one, to another program, or be no socket at all.
 */
static enum address_result path_check(const struct address *address, char *error,
				      unsigned error_size)
{
	struct sockaddr_un sockaddr = sockaddr_of(address->path);
	struct stat status;
	int fd, number;

	if (lstat(address->path, &status) < 0) {
		if (errno == ENOENT)
			return ADDRESS_DONE;
		(void)fail(error, error_size, address->path, "lstat", errno);
		return ADDRESS_FAILED;
	}
	if (!S_ISSOCK(status.st_mode)) {
		(void)snprintf(error, error_size, "%s: there is something that is not a socket",
			       address->path);
		return ADDRESS_FAILED;
	}

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		(void)fail(error, error_size, address->path, "socket", errno);
		return ADDRESS_FAILED;
	}
	number = connect(fd, (const struct sockaddr *)&sockaddr, sizeof(sockaddr)) < 0 ? errno : 0;
	(void)fd_close(fd);
	if (number == ECONNREFUSED || number == ENOENT)
		return ADDRESS_DONE;

	if (number == 0 || number == EAGAIN) {
		(void)snprintf(error, error_size,
			       "%s: another program listens there, without the lock of a broker",
			       address->path);
		return ADDRESS_TAKEN;
	}
	(void)fail(error, error_size, address->path, "connect", number);
	return ADDRESS_FAILED;
}

static enum address_result bind_at(struct address *address, const char *temporary, int fd,
				   char *error, unsigned error_size)
{
	struct sockaddr_un sockaddr = sockaddr_of(temporary);
	const char *call = "bind";
	struct stat status;

	if (bind(fd, (const struct sockaddr *)&sockaddr, sizeof(sockaddr)) < 0)
		goto failed;
	call = "chmod";
	if (chmod(temporary, 0666) < 0)
		goto failed;
	call = "listen";
	if (listen(fd, BACKLOG) < 0)
		goto failed;
	call = "stat";
	if (lstat(temporary, &status) < 0)
		goto failed;
	call = "rename";
	if (rename(temporary, address->path) < 0)
		goto failed;

	address->is_ours = true;
	address->device = status.st_dev;
	address->inode = status.st_ino;
	return ADDRESS_DONE;

failed:
	(void)fail(error, error_size, address->path, call, errno);
	(void)unlink(temporary);
	return ADDRESS_FAILED;
}

enum address_result address_bind(struct address *address, int *ret_fd, char *error,
				 unsigned error_size)
{
	struct name temporary = name_of(address, ".new");
	enum address_result result;
	int fd;

	assert(address->lock_fd >= 0);

	result = path_check(address, error, error_size);
	if (result != ADDRESS_DONE)
		return result;

	/* What a keeper left that died between bind and rename. */
	if (unlink(temporary.text) < 0 && errno != ENOENT) {
		(void)fail(error, error_size, temporary.text, "unlink", errno);
		return ADDRESS_FAILED;
	}

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		(void)fail(error, error_size, address->path, "socket", errno);
		return ADDRESS_FAILED;
	}
	result = bind_at(address, temporary.text, fd, error, error_size);
	if (result != ADDRESS_DONE) {
		(void)fd_close(fd);
		return result;
	}

	*ret_fd = fd;
	return ADDRESS_DONE;
}

bool address_adopt(struct address *address)
{
	struct name hidden = name_of(address, ".new");
	struct stat status;

	/* It died while the name was hidden. */
	if (lstat(address->path, &status) < 0 && errno == ENOENT)
		(void)rename(hidden.text, address->path);

	if (lstat(address->path, &status) < 0 || !S_ISSOCK(status.st_mode))
		return false;

	address->is_ours = true;
	address->device = status.st_dev;
	address->inode = status.st_ino;
	return true;
}

static bool is_ours_at(const struct address *address, const char *path)
{
	struct stat status;

	return address->is_ours && lstat(path, &status) == 0 && status.st_dev == address->device &&
	       status.st_ino == address->inode;
}

void address_hide(struct address *address)
{
	struct name hidden = name_of(address, ".new");

	if (is_ours_at(address, address->path))
		(void)rename(address->path, hidden.text);
}

void address_show(struct address *address)
{
	struct name hidden = name_of(address, ".new");

	if (is_ours_at(address, hidden.text))
		(void)rename(hidden.text, address->path);
}

void address_remove(struct address *address)
{
	struct name hidden = name_of(address, ".new");

	if (is_ours_at(address, address->path))
		(void)unlink(address->path);
	if (is_ours_at(address, hidden.text))
		(void)unlink(hidden.text);
}
