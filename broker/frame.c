/* SPDX-License-Identifier: MIT */
#include "broker/frame.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/holdings.h"
#include "broker/keeper.h"
#include "broker/log.h"
#include "broker/store.h"
#include "libipc/platform/fdpass.h"

#define ERROR_SIZE 1024

static int frame_failed(enum address_result result, const char *error, bool autostart,
			int *ret_status)
{
	bool is_fine = result == ADDRESS_TAKEN && autostart;

	log_line(is_fine ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "%s", error);
	*ret_status = is_fine ? KEEPER_EXIT_DONE : KEEPER_EXIT_FAILED;
	return -1;
}

static bool is_listener(int fd)
{
	int value = 0, type = 0;
	socklen_t length = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value == 1 &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

static bool has_listener(const struct frame *frame)
{
	return fdstore_find(&frame->store, STORE_NAME_LISTENER) >= 0;
}

/* What the service manager passes: descriptors of an earlier keeper by their names, and a listening
 * socket called "ipc", or the first that is there. */
static void frame_adopt(const char *name, int fd, void *userdata)
{
	struct frame *frame = userdata;
	uint32_t slot, generation;
	char kind;

	if (store_parse_name(name, &kind, &slot, &generation) == 0 ||
	    strcmp(name, STORE_NAME_STATE) == 0) {
		(void)holdings_add(&frame->store, name, fd);
	} else if (strcmp(name, STORE_NAME_LISTENER) == 0) {
		/* Bound by an earlier keeper; its name is ours, if it is still there. */
		if (!has_listener(frame) && is_listener(fd) && frame->address.lock_fd >= 0 &&
		    address_adopt(&frame->address))
			(void)holdings_add(&frame->store, STORE_NAME_LISTENER, fd);
		else
			(void)fd_close(fd);
	} else if (is_listener(fd) && (strcmp(name, "ipc") == 0 || !has_listener(frame))) {
		/* Its name is the manager's. */
		frame->address.is_ours = false;
		(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		(void)holdings_add(&frame->store, STORE_NAME_LISTENER, fd);
	} else {
		log_line(LOG_LEVEL_WARNING,
			 "passed descriptor %d \"%s\" is not used: not called \"ipc\", or not a "
			 "listening SOCK_SEQPACKET socket",
			 fd, name);
		(void)fd_close(fd);
	}
}

/* The path of a passed socket, so that nobody else binds over it. */
static const char *frame_passed_address(char path[ADDRESS_SIZE])
{
	struct sockaddr_un sockaddr;
	socklen_t length;

	for (unsigned i = 0; i < manager_passed(); ++i) {
		int fd = (int)(HOLDINGS_FD_FIRST + i);

		length = sizeof(sockaddr);
		memset(&sockaddr, 0, sizeof(sockaddr));
		if (is_listener(fd) &&
		    getsockname(fd, (struct sockaddr *)&sockaddr, &length) == 0 &&
		    sockaddr.sun_family == AF_UNIX && sockaddr.sun_path[0] == '/') {
			(void)snprintf(path, ADDRESS_SIZE, "%.*s", ADDRESS_SIZE - 1,
				       sockaddr.sun_path);
			return path;
		}
	}
	return NULL;
}

static int frame_lock(struct frame *frame, const char *given, bool autostart, int *ret_status)
{
	unsigned n_passed = manager_passed();
	char path[ADDRESS_SIZE], error[ERROR_SIZE];
	enum address_result result;

	if (address_find(&frame->address, given ? given : frame_passed_address(path), error,
			 sizeof(error)) < 0)
		return frame_failed(ADDRESS_FAILED, error, autostart, ret_status);

	result = address_lock(&frame->address, error, sizeof(error));
	if (result == ADDRESS_FAILED && n_passed > 0)
		log_line(LOG_LEVEL_NOTICE, "%s; going on without a lock", error);
	else if (result != ADDRESS_DONE)
		return frame_failed(result, error, autostart, ret_status);

	frame->address.lock_fd = holdings_raise(frame->address.lock_fd);
	return 0;
}

static int frame_bind(struct frame *frame, bool autostart, int *ret_status)
{
	char error[ERROR_SIZE];
	enum address_result result;
	int fd;

	if (frame->address.lock_fd < 0) {
		(void)snprintf(error, sizeof(error), "%s: no lock, and no socket was passed",
			       frame->address.path);
		return frame_failed(ADDRESS_FAILED, error, autostart, ret_status);
	}

	result = address_bind(&frame->address, &fd, error, sizeof(error));
	if (result != ADDRESS_DONE)
		return frame_failed(result, error, autostart, ret_status);

	fd = holdings_add(&frame->store, STORE_NAME_LISTENER, fd);
	manager_tell(&frame->manager, "FDSTORE=1\nFDPOLL=0\nFDNAME=" STORE_NAME_LISTENER, fd);
	return 0;
}

int frame_open(struct frame *frame, const char *address, bool autostart, int *ret_status)
{
	char error[ERROR_SIZE];
	unsigned n_allowed;

	frame->address = (struct address)ADDRESS_NULL;
	fdstore_clear(&frame->store);

	/* An embedded broker lives longer than the program that started it: it keeps none of that
	 * program's files open. */
	(void)close_range(HOLDINGS_FD_FIRST + manager_passed(), ~0u, 0);
	n_allowed = holdings_init_limit();
	if (n_allowed < HOLDINGS_LIMIT_MIN) {
		(void)snprintf(
			error, sizeof(error),
			"the limit of open descriptors (RLIMIT_NOFILE) is %u; legal: %d or more",
			n_allowed, HOLDINGS_LIMIT_MIN);
		return frame_failed(ADDRESS_FAILED, error, autostart, ret_status);
	}
	manager_init(&frame->manager);
	frame->manager.notify_fd = holdings_raise(frame->manager.notify_fd);

	if (frame_lock(frame, address, autostart, ret_status) < 0)
		return -1;

	manager_adopt(frame_adopt, frame);
	return has_listener(frame) ? 0 : frame_bind(frame, autostart, ret_status);
}
