/* SPDX-License-Identifier: MIT */
#include "broker/manager.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ipc/error.h>

#include "broker/log.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/fdpass.h"

#define FDS_FIRST    3
#define PATIENCE_MS  100
#define IMPATIENT_NS (10 * NS_PER_S)

void manager_init(struct manager *manager)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sockaddr = {.sun_family = AF_UNIX};
	size_t length = path ? strlen(path) : 0;

	*manager = (struct manager)MANAGER_NULL;
	if (length < 2)
		return;

	if ((path[0] != '/' && path[0] != '@') || length >= sizeof(sockaddr.sun_path)) {
		log_line(LOG_LEVEL_WARNING,
			 "NOTIFY_SOCKET=%s: neither a path nor @name; nobody is told", path);
		goto out;
	}

	memcpy(sockaddr.sun_path, path, length);
	if (path[0] == '@')
		sockaddr.sun_path[0] = '\0';

	manager->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (manager->notify_fd < 0 ||
	    connect(manager->notify_fd, (const struct sockaddr *)&sockaddr,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0) {
		log_line(LOG_LEVEL_WARNING, "NOTIFY_SOCKET=%s: %s; nobody is told", path,
			 strerror(errno));
		manager_deinit(manager);
	}
out:
	(void)unsetenv("NOTIFY_SOCKET");
}

void manager_deinit(struct manager *manager)
{
	fd_closep(&manager->notify_fd);
}

static long number_from(const char *name)
{
	const char *text = getenv(name);
	char *end;
	long value;

	if (!text || text[0] < '0' || text[0] > '9')
		return -1;

	value = strtol(text, &end, 10);
	return *end == '\0' && value <= INT_MAX ? value : -1;
}

unsigned manager_passed(void)
{
	long n = number_from("LISTEN_FDS");

	return number_from("LISTEN_PID") == getpid() && n > 0 ? (unsigned)n : 0;
}

void manager_adopt(void (*fn)(const char *name, int fd, void *userdata), void *userdata)
{
	const char *at = getenv("LISTEN_FDNAMES");
	unsigned n = manager_passed();
	char name[256];

	for (unsigned i = 0; i < n; ++i) {
		size_t length = at ? strcspn(at, ":") : 0;

		(void)snprintf(name, sizeof(name), "%.*s",
			       (int)(length < sizeof(name) ? length : 0), at ? at : "");
		fn(name, (int)(FDS_FIRST + i), userdata);
		if (at)
			at += length + (at[length] == ':');
	}

	(void)unsetenv("LISTEN_PID");
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
}

void manager_tell(struct manager *manager, const char *text, int fd)
{
	struct pollfd pollfd = {.fd = manager->notify_fd, .events = POLLOUT};
	int r;

	if (manager->notify_fd < 0)
		return;

	r = fdpass_send(manager->notify_fd, text, strlen(text), &fd, fd >= 0 ? 1 : 0);
	if (r != IPC_EAGAIN ||
	    (manager->late_ns != 0 && clock_now_ns() - manager->late_ns < IMPATIENT_NS))
		return;

	(void)poll(&pollfd, 1, PATIENCE_MS);
	r = fdpass_send(manager->notify_fd, text, strlen(text), &fd, fd >= 0 ? 1 : 0);
	if (r != IPC_EAGAIN)
		return;

	manager->late_ns = clock_now_ns();
	log_line(LOG_LEVEL_WARNING, "the service manager does not read: it is not told everything, "
				    "and does not store all that we have");
}

bool manager_restarts(void)
{
	return number_from("SYSTEMD_EXEC_PID") == getpid();
}
