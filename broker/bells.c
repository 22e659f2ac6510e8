/* SPDX-License-Identifier: MIT */
#include "broker/bells.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/segments.h"
#include "broker/worker.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/syserr.h"
#include "libipc/wire/codec.h"

/*
 * Death: a bell is stored before its client is welcome, so a welcome client has one in every
 * worker.  The word that says "everything" moves before the bell is written; a worker that dies
 * between the two tells the end again (presence.c).  BELLS that were sent twice, or by a worker
 * that is dead, are compared by the client with the channel's count of members.
 */

static_assert(PROTOCOL_BELLS_MAX <= FDPASS_FDS_MAX, "BELLS brings them all");

int bells_make(struct worker *worker, struct peer *peer)
{
	int r;

	if (peer->bell_fd >= 0)
		return 0;

	peer->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (peer->bell_fd < 0)
		return syserr(SYSERR_EVENTFD, errno);

	CRASH_POINT();
	r = segments_store(worker, 'b', peer->slot, peer->record->generation, peer->bell_fd);
	CRASH_POINT();
	if (r < 0)
		peer->bell_fd = fd_close(peer->bell_fd);
	return r;
}

void bells_drop(struct worker *worker, struct peer *peer)
{
	if (peer->bell_fd >= 0)
		segments_unstore(worker, 'b', peer->slot, peer->record->generation);
	peer->bell_fd = fd_close(peer->bell_fd);
}

void bells_ring(struct peer *peer)
{
	const uint64_t one = 1;

	if (peer->bell_fd < 0)
		return;

	liveness_look_again(peer->user->table, peer->slot);
	CRASH_POINT();

	/* Full is rung enough. */
	(void)!write(peer->bell_fd, &one, sizeof(one));
}

/* ---- BELLS ---- */

/* A client that does not read may not pile up descriptors on their way. */
static bool has_read_all(const struct peer *peer)
{
	int n_bytes = 0;

	return ioctl(peer->socket_fd, SIOCOUTQ, &n_bytes) == 0 && n_bytes == 0;
}

static bool is_listed(const struct message_bells *bells, uint32_t slot)
{
	for (uint32_t i = 0; i < bells->n; ++i)
		if (bells->slot[i] == slot)
			return true;

	return false;
}

/* False: there are too many, or one is not for this client. */
static bool collect(struct message_bells *bells, int *fds, const struct handle *ringer,
		    unsigned side)
{
	const struct handle *handle;

	DL_FOREACH2(ringer->channel->handles[side], handle, channel_next)
	{
		const struct peer *peer = handle->peer;

		if (peer == ringer->peer || is_listed(bells, peer->slot))
			continue;
		if (peer->record->uid != ringer->peer->record->uid || peer->bell_fd < 0 ||
		    bells->n == PROTOCOL_BELLS_MAX)
			return false;

		fds[bells->n] = peer->bell_fd;
		bells->slot[bells->n] = peer->slot;
		bells->generation[bells->n] = peer->record->generation;
		++bells->n;
	}
	return true;
}

void bells_give(struct worker *worker, const struct handle *handle)
{
	const struct channel *channel = handle->channel;
	struct message_bells *bells = &worker->reply.bells;
	int fds[PROTOCOL_BELLS_MAX];

	if (!has_read_all(handle->peer))
		return;

	message_init(&worker->reply, MESSAGE_BELLS, 0);
	bells->handle_id = handle->record->id;
	bells->members = liveness_members(channel->owner->table, channel->slot);
	if (!collect(bells, fds, handle, 0) || !collect(bells, fds, handle, 1))
		return;

	/* Nobody awaits it: what cannot be sent is not missed. */
	(void)fdpass_send(handle->peer->socket_fd, bells, bells->head.size, fds, bells->n);
	CRASH_POINT();
}
