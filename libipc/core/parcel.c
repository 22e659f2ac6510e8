/* SPDX-License-Identifier: MIT */
#include "libipc/core/parcel.h"

#include <fcntl.h>
#include <pthread.h>

#include "libipc/platform/fdpass.h"

/* More than these no socket holds, unless somebody goes on filling it. */
#define PACKETS_MAX 4096

struct packet {
	uint64_t number;
	uint32_t tag;
	uint32_t reserved;
};
ASSERT_SIZE(struct packet, 16);

static bool descriptor_is_good(int fd)
{
	return fd >= 0 && fcntl(fd, F_GETFD) >= 0;
}

int parcel_send(int pair_fd, int fd, uint64_t number, unsigned tag)
{
	const struct packet packet = {.number = number, .tag = tag & PARCEL_TAG_MASK};
	int r, cancel_state;

	if (!descriptor_is_good(fd))
		return IPC_EINVAL;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	r = fdpass_send(pair_fd, &packet, sizeof(packet), &fd, 1);
	(void)pthread_setcancelstate(cancel_state, NULL);
	return r;
}

/* ---- the first one in the socket ---- */

enum found { FOUND_NONE, FOUND_OLDER, FOUND_IT };

static enum found packet_look(int pair_fd, uint64_t number, unsigned tag)
{
	struct packet packet;
	size_t size;
	int r;

	r = fdpass_peek(pair_fd, &packet, sizeof(packet), &size);
	if (r == IPC_EMSGSIZE || (r == 0 && size != sizeof(packet)))
		return FOUND_OLDER; /* nobody's */
	if (r < 0 || packet.number - number - 1 < UINT64_MAX / 2)
		return FOUND_NONE; /* of one that comes later */

	return packet.number == number && packet.tag == (tag & PARCEL_TAG_MASK) ? FOUND_IT
										: FOUND_OLDER;
}

static int packet_take(int pair_fd)
{
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds = 0;
	struct packet packet;
	size_t size;

	if (fdpass_receive(pair_fd, &packet, sizeof(packet), &size, fds, &n_fds) < 0 || n_fds == 0)
		return -1;

	while (n_fds > 1)
		(void)fd_close(fds[--n_fds]);
	return fds[0];
}

/* Without a buffer for it the kernel closes what came along. */
static void packet_drop(int pair_fd)
{
	struct packet packet;
	size_t size;

	(void)fdpass_receive(pair_fd, &packet, sizeof(packet), &size, NULL, NULL);
}

/* What comes along where none is free would be lost. */
static bool descriptor_is_free(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	(void)fd_close(copy);
	return copy >= 0;
}

/* ---- taking ---- */

static int take(int pair_fd, const struct ring_consumer *consumer, uint64_t number, unsigned tag,
		int *ret_fd, bool *ret_moved)
{
	*ret_fd = -1;
	for (int i = 0; i < PACKETS_MAX; ++i) {
		enum found found = packet_look(pair_fd, number, tag);

		if (found == FOUND_NONE || !ring_consumer_is(consumer))
			return 0;
		if (found == FOUND_IT && !descriptor_is_free(pair_fd))
			return IPC_EMFILE;

		*ret_moved = true;
		if (found == FOUND_IT) {
			*ret_fd = packet_take(pair_fd);
			return 0;
		}
		packet_drop(pair_fd);
	}

	return 0;
}

int parcel_take(int pair_fd, const struct ring_consumer *consumer, uint64_t number, unsigned tag,
		int *ret_fd, bool *ret_moved)
{
	int r, cancel_state;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	r = take(pair_fd, consumer, number, tag, ret_fd, ret_moved);
	(void)pthread_setcancelstate(cancel_state, NULL);
	return r;
}

bool parcel_drop(int pair_fd, const struct ring_consumer *consumer, uint64_t number)
{
	bool were_any = false;
	int cancel_state;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	for (int i = 0; i < PACKETS_MAX && ring_consumer_is(consumer) &&
			packet_look(pair_fd, number, PARCEL_TAG_MASK + 1) != FOUND_NONE;
	     ++i) {
		packet_drop(pair_fd);
		were_any = true;
	}
	(void)pthread_setcancelstate(cancel_state, NULL);
	return were_any;
}
