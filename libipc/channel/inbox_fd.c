/* SPDX-License-Identifier: MIT */
#include "libipc/channel/inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "libipc/platform/fdpass.h"

/*
 * Descriptors of chunks, through the socket pair of the channel.  Deaths: a packet whose chunk was
 * never committed is older than the next one that is looked for, or has another tag.
 */

struct packet {
	uint64_t id;
	uint64_t tag;
};

#define FEWER_BITS 0xffffu

int inbox_fd_send(const struct inbox *inbox, int fd, uint64_t id, unsigned tag)
{
	const struct packet packet = {.id = id, .tag = tag & FEWER_BITS};

	if (fd < 0 || fcntl(fd, F_GETFD) < 0)
		return IPC_EINVAL;

	return fdpass_send(inbox->pair_fd, &packet, sizeof(packet), &fd, 1);
}

/* Takes the first one off; its descriptor, or -1. */
static int packet_take(const struct inbox *inbox, struct packet *packet)
{
	int fds[FDPASS_FDS_MAX], fd = -1;
	unsigned n_fds = 0;
	size_t size;

	if (fdpass_receive(inbox->pair_fd, packet, sizeof(*packet), &size, fds, &n_fds) < 0)
		return -1;

	for (unsigned i = 0; i < n_fds; ++i) {
		if (i == 0)
			fd = fds[i];
		else
			(void)fd_close(fds[i]);
	}
	return fd;
}

/* Takes the first one off without its descriptor. */
static void packet_drop(const struct inbox *inbox)
{
	struct packet packet;
	size_t size;

	(void)fdpass_receive(inbox->pair_fd, &packet, sizeof(packet), &size, NULL, NULL);
}

static bool packet_peek(const struct inbox *inbox, struct packet *packet)
{
	size_t size = 0;

	return inbox->pair_fd >= 0 &&
	       fdpass_peek(inbox->pair_fd, packet, sizeof(*packet), &size) == 0 &&
	       size == sizeof(*packet);
}

/* Whether a descriptor can be had: what comes with a packet where none is free is lost. */
static bool one_is_free(const struct inbox *inbox)
{
	int fd = fcntl(inbox->pair_fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return false;

	(void)fd_close(fd);
	return true;
}

int inbox_fd_take(const struct inbox *inbox, uint64_t id, unsigned tag)
{
	struct packet packet;
	int fd;

	while (packet_peek(inbox, &packet)) {
		if (packet.id > id)
			return IPC_ENOENT;
		if (packet.id < id || packet.tag != (tag & FEWER_BITS)) {
			packet_drop(inbox);
			continue;
		}
		if (!one_is_free(inbox))
			return IPC_EMFILE;

		fd = packet_take(inbox, &packet);
		return fd < 0 ? IPC_ENOENT : fd;
	}

	return IPC_ENOENT;
}

bool inbox_fd_drop(const struct inbox *inbox, uint64_t id)
{
	struct packet packet;
	bool were_any = false;

	while (packet_peek(inbox, &packet) && packet.id <= id) {
		packet_drop(inbox);
		were_any = true;
	}
	return were_any;
}
