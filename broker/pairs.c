/* SPDX-License-Identifier: MIT */
#include "broker/pairs.h"

#include <errno.h>
#include <sys/socket.h>

#include "broker/policy.h"
#include "broker/segments.h"
#include "broker/worker.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/syserr.h"

/*
 * Death: both ends are stored before the channel's record is committed, as its segment is; one
 * without the other, or without a record, is an orphan.
 */

static const char stored_kind[2] = {'e', 'f'};

unsigned pairs_count(const struct channel_record *record)
{
	return record->kind == IPC_KIND_INBOX || record->is_session ? 2 : 0;
}

int pairs_make(struct worker *worker, struct channel *channel)
{
	unsigned side;
	int r;

	if (pairs_count(channel->record) == 0)
		return 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel->pair_fd) < 0) {
		channel->pair_fd[0] = channel->pair_fd[1] = -1;
		return syserr(SYSERR_SOCKET, errno);
	}

	for (side = 0; side < 2; ++side) {
		CRASH_POINT();
		r = segments_store(worker, stored_kind[side], channel->slot,
				   channel->record->generation_slot, channel->pair_fd[side]);
		if (r < 0)
			return r;
	}
	return 0;
}

void pairs_drop(struct worker *worker, struct channel *channel)
{
	unsigned side;

	for (side = 0; side < 2; ++side) {
		if (channel->pair_fd[side] >= 0)
			segments_unstore(worker, stored_kind[side], channel->slot,
					 channel->record->generation_slot);
		channel->pair_fd[side] = fd_close(channel->pair_fd[side]);
	}
}

bool pairs_is_whole(const struct channel *channel)
{
	return pairs_count(channel->record) == 0 ||
	       (channel->pair_fd[0] >= 0 && channel->pair_fd[1] >= 0);
}

int pairs_end(const struct handle *handle)
{
	return policy_role(handle->record->role)->passes_fds
		       ? handle->channel->pair_fd[handle->record->side]
		       : -1;
}
