/* SPDX-License-Identifier: MIT */
#include "broker/policy.h"

#include <ipc/limits.h>
#include <ipc/shared.h>
#include <stddef.h>

#include "libipc/platform/peer.h"
#include "libipc/platform/segment.h"

/*
 * Death: decisions change nothing.
 *
 * A pthread lock in the memory of another uid is a write-what-where in whoever unlocks it, root
 * included; so nobody but the owner gets a role that takes one, and there is no exception for root.
 */

#define MODE_OTHERS_READ  0044u
#define MODE_OTHERS_WRITE 0022u

/* More than the largest value in several slots; keeps sums of sizes far from overflow. */
#define SEGMENT_SIZE_MAX (UINT64_C(1) << 40)

#define CONSUMERS_MAX LIVENESS_HANDLES_MAX

const struct policy_role *policy_role(uint32_t role)
{
	static const struct policy_role roles[] = {
		[IPC_ROLE_WATCH_PRODUCER] = {IPC_KIND_WATCH, 0, true, false},
		[IPC_ROLE_WATCH_CONSUMER] = {IPC_KIND_WATCH, 1, false, true},
		[IPC_ROLE_SHARED_A] = {IPC_KIND_SHARED, 0, true, false},
		[IPC_ROLE_SHARED_B] = {IPC_KIND_SHARED, 1, true, false},
	};

	if (role >= N_ELEMENTS(roles) || roles[role].kind == 0)
		return NULL;

	return &roles[role];
}

uint64_t policy_shape_flags(uint32_t kind)
{
	return kind == IPC_KIND_SHARED ? IPC_SHARED_IN_PLACE : 0;
}

static bool kind_is_served(uint32_t kind)
{
	return kind == IPC_KIND_WATCH || kind == IPC_KIND_SHARED;
}

int policy_check_request(const struct message_open *open)
{
	const struct policy_role *role = policy_role(open->role);
	uint64_t flags =
		IPC_CREATE | IPC_EXCLUSIVE | IPC_AWAIT | IPC_STAY | OPEN_LOOK_ONCE | OPEN_UPGRADE;

	if (!kind_is_served(open->kind))
		return IPC_EPROTONOSUPPORT;

	if (!role || role->kind != open->kind)
		return IPC_EINVAL;

	/* IPC_KEEP is for queues and listeners (M-43). */
	if (open->flags & ~(flags | policy_shape_flags(open->kind)))
		return IPC_EINVAL;

	if ((open->flags & OPEN_UPGRADE) && open->role != IPC_ROLE_WATCH_PRODUCER)
		return IPC_EINVAL;

	return 0;
}

static bool subject_in_group(const struct policy_subject *subject, uint32_t gid)
{
	struct peer_identity identity = {.uid = subject->uid, .gid = subject->gid, .pidfd = -1};

	if (subject->gid == gid)
		return true;

	return subject->socket_fd >= 0 && peer_in_group(subject->socket_fd, &identity, gid);
}

static int check_shapes(const struct message_open *open)
{
	if (open->shape_new[0] == 0 || open->shape_new[0] > IPC_VALUE_SIZE_MAX ||
	    open->shape_new[0] > open->size_new)
		return IPC_EINVAL;

	if (open->kind == IPC_KIND_WATCH &&
	    (open->shape_new[1] == 0 || open->shape_new[1] > CONSUMERS_MAX))
		return IPC_EINVAL;

	if (open->size_new > SEGMENT_SIZE_MAX || segment_round(open->size_new) != open->size_new)
		return IPC_EINVAL;

	return 0;
}

int policy_check_creation(const struct policy_subject *subject, const struct message_open *open)
{
	const struct policy_role *role = policy_role(open->role);

	if (open->mode & MODE_OTHERS_WRITE)
		return IPC_EACCES;

	if (open->gid != 0 && subject->uid != 0 && !subject_in_group(subject, open->gid))
		return IPC_EACCES;

	if (role->takes_lock && subject->is_foreign)
		return IPC_EPROTONOSUPPORT;

	return check_shapes(open);
}

/* One class of bits counts, as for files: the owner's, else the group's, else the others'. */
static uint32_t mode_bits(const struct policy_subject *subject,
			  const struct channel_record *channel)
{
	if (subject->uid == channel->uid)
		return channel->mode >> 6 & 7;
	if ((channel->mode & 0060) != (channel->mode & 0006) << 3 &&
	    subject_in_group(subject, channel->gid))
		return channel->mode >> 3 & 7;
	return channel->mode & 7;
}

static int check_rights(const struct policy_subject *subject, const struct channel_record *channel,
			const struct policy_role *role)
{
	if (role->takes_lock)
		return subject->uid == channel->uid && (channel->mode & 0200) ? 0 : IPC_EACCES;

	if (subject->uid == 0 || (mode_bits(subject, channel) & 4))
		return 0;

	return IPC_EACCES;
}

int policy_check_open(const struct policy_subject *subject, const struct channel_record *channel,
		      const struct message_open *open)
{
	const struct policy_role *role = policy_role(open->role);
	unsigned i;
	int r;

	if (open->flags & IPC_EXCLUSIVE)
		return IPC_EEXIST;

	if (open->kind != channel->kind)
		return IPC_EPROTOTYPE;

	r = check_rights(subject, channel, role);
	if (r < 0)
		return r;

	if (role->takes_lock && subject->is_foreign)
		return IPC_EPROTONOSUPPORT;

	for (i = 0; i < N_ELEMENTS(open->shape); ++i) {
		if (open->shape[i] != 0 && open->shape[i] != channel->shape[i])
			return IPC_EPROTOTYPE;
	}

	if (open->flags & policy_shape_flags(channel->kind) & ~channel->flags)
		return IPC_EPROTOTYPE;

	return 0;
}

bool policy_may_read(const struct policy_subject *subject, const struct channel_record *channel)
{
	return subject->uid == 0 || subject->uid == channel->uid ||
	       (mode_bits(subject, channel) & 4);
}

bool policy_may_remove(const struct policy_subject *subject, const struct channel_record *channel)
{
	return subject->uid == 0 || subject->uid == channel->uid;
}

bool policy_is_public(uint32_t mode)
{
	return (mode & (MODE_OTHERS_READ | MODE_OTHERS_WRITE)) != 0;
}
