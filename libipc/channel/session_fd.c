/* SPDX-License-Identifier: MIT */

/*
 * Descriptors: one packet each, in the order in which they were sent.  What stands in the socket
 * before the packet of a message that was committed belongs to none that will come: to one that was
 * released, or that was never committed.
 */

#include <fcntl.h>
#include <unistd.h>

#include "libipc/channel/session_inside.h"
#include "libipc/platform/fdpass.h"

/* More than these no socket holds, unless somebody goes on filling it. */
#define PACKETS_MAX 4096

struct packet {
	uint64_t number;
	uint32_t tag;
	uint32_t reserved;
};
ASSERT_SIZE(struct packet, 16);

int session_fd_send(struct session *session, int fd)
{
	struct packet packet = {
		.number = session->out.number,
		.tag = (uint32_t)ring_tag(session->out.head),
	};

	return fdpass_send(session->pair_fd, &packet, sizeof(packet), &fd, 1);
}

enum found { FOUND_NONE, FOUND_OLDER, FOUND_IT };

/* What is first in the socket, as seen from the message. */
static enum found packet_look(const struct session *session, const struct ring_received *record)
{
	struct packet packet;
	size_t size;
	int r;

	r = fdpass_peek(session->pair_fd, &packet, sizeof(packet), &size);
	if (r == IPC_EMSGSIZE || (r == 0 && size != sizeof(packet)))
		return FOUND_OLDER; /* nobody's */
	if (r < 0 || packet.number - record->number - 1 < UINT64_MAX / 2)
		return FOUND_NONE; /* of one that comes later */

	return packet.number == record->number && (packet.tag & 0xffff) == record->extra
		       ? FOUND_IT
		       : FOUND_OLDER;
}

static bool descriptor_is_free(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	(void)fd_close(copy);
	return copy >= 0;
}

static int packet_take(const struct session *session)
{
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds = 0;
	struct packet packet;
	size_t size;

	if (fdpass_receive(session->pair_fd, &packet, sizeof(packet), &size, fds, &n_fds) < 0 ||
	    n_fds == 0)
		return -1;

	while (n_fds > 1)
		(void)fd_close(fds[--n_fds]);
	return fds[0];
}

/* Without a buffer for it the kernel closes what came along. */
static void packet_drop(const struct session *session)
{
	struct packet packet;
	size_t size;

	(void)fdpass_receive(session->pair_fd, &packet, sizeof(packet), &size, NULL, NULL);
}

int session_fd_take(struct session *session, const struct ring_received *record, int *ret,
		    bool *ret_moved)
{
	*ret = -1;
	for (int i = 0; i < PACKETS_MAX; ++i) {
		enum found found = packet_look(session, record);

		/* Who had this end before takes nothing of what is another's now. */
		if (found == FOUND_NONE || !ring_consumer_is(&session->in))
			return 0;
		if (found == FOUND_IT && !descriptor_is_free(session->pair_fd))
			return IPC_EMFILE;

		*ret_moved = true;
		if (found == FOUND_IT) {
			*ret = packet_take(session);
			return 0;
		}
		packet_drop(session);
	}

	return 0;
}
