/* SPDX-License-Identifier: MIT */
#include "broker/policy.h"

#include <ipc/limits.h>
#include <ipc/shared.h>
#include <stddef.h>
#include <string.h>

#include "libipc/channel/flight.h"
#include "libipc/channel/inbox.h"
#include "libipc/channel/limiter.h"
#include "libipc/channel/queue.h"
#include "libipc/channel/session.h"
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
#define MODE_GROUP_BOTH   0060u
#define MODE_OTHER_BOTH   0006u

#define BITS_READ 4u
#define BITS_BOTH 6u

/* More than the largest value in several slots; keeps sums of sizes far from overflow. */
#define SEGMENT_SIZE_MAX (UINT64_C(1) << 40)

#define CONSUMERS_MAX LIVENESS_HANDLES_MAX

const struct policy_role *policy_role(uint32_t role)
{
	static const struct policy_role roles[] = {
		[IPC_ROLE_WATCH_PRODUCER] = {.kind = IPC_KIND_WATCH,
					     .side = 0,
					     .takes_lock = true,
					     .is_local = true,
					     .is_followed = true},
		[IPC_ROLE_WATCH_CONSUMER] = {.kind = IPC_KIND_WATCH,
					     .side = 1,
					     .maps_readonly = true},
		[IPC_ROLE_SHARED_A] = {.kind = IPC_KIND_SHARED,
				       .side = 0,
				       .takes_lock = true,
				       .is_local = true,
				       .is_followed = true},
		[IPC_ROLE_SHARED_B] = {.kind = IPC_KIND_SHARED,
				       .side = 1,
				       .takes_lock = true,
				       .is_local = true,
				       .is_followed = true},
		[IPC_ROLE_QUEUE_PRODUCER] = {.kind = IPC_KIND_QUEUE,
					     .side = QUEUE_SIDE_PRODUCERS,
					     .is_followed = true},
		[IPC_ROLE_GROUP] = {.kind = IPC_KIND_QUEUE,
				    .side = QUEUE_SIDE_PRODUCERS,
				    .is_followed = true},
		[IPC_ROLE_QUEUE_CONSUMER] = {.kind = IPC_KIND_QUEUE,
					     .side = QUEUE_SIDE_CONSUMERS,
					     .is_followed = true},
		[IPC_ROLE_HANDLER] = {.kind = IPC_KIND_FLIGHT,
				      .side = FLIGHT_SIDE_HANDLERS,
				      .is_local = true,
				      .is_followed = true},
		[IPC_ROLE_FLIGHT_TABLE] = {.kind = IPC_KIND_FLIGHT,
					   .side = FLIGHT_SIDE_TABLES,
					   .is_local = true,
					   .is_followed = true},
		[IPC_ROLE_INBOX_SENDER] = {.kind = IPC_KIND_INBOX,
					   .side = INBOX_SIDE_SENDER,
					   .is_followed = true,
					   .passes_fds = true},
		[IPC_ROLE_INBOX_RECEIVER] = {.kind = IPC_KIND_INBOX,
					     .side = INBOX_SIDE_RECEIVER,
					     .passes_fds = true},
		[IPC_ROLE_INBOX_OBSERVER] = {.kind = IPC_KIND_INBOX,
					     .side = INBOX_SIDE_SENDER,
					     .maps_readonly = true,
					     .is_uncounted = true},
		[IPC_ROLE_LISTENER] = {.kind = IPC_KIND_SESSION, .side = 0},
		[IPC_ROLE_SESSION] = {.kind = IPC_KIND_SESSION,
				      .side = SESSION_SIDE_CONNECTED,
				      .passes_fds = true},
		[IPC_ROLE_LIMITER] = {.kind = IPC_KIND_LIMITER,
				      .side = 0,
				      .is_local = true,
				      .is_followed = true},
	};

	if (role >= N_ELEMENTS(roles) || roles[role].kind == 0)
		return NULL;

	return &roles[role];
}

uint64_t policy_shape_flags(uint32_t kind)
{
	switch (kind) {
	case IPC_KIND_SHARED:
		return IPC_SHARED_IN_PLACE;
	case IPC_KIND_FLIGHT:
		return IPC_FLIGHT_TABLE_NO_PROMOTE;
	case IPC_KIND_QUEUE:
	case IPC_KIND_INBOX:
	case IPC_KIND_SESSION:
	case IPC_KIND_LIMITER:
		return IPC_KEEP;
	default:
		return 0;
	}
}

static bool kind_is_served(uint32_t kind)
{
	switch (kind) {
	case IPC_KIND_WATCH:
	case IPC_KIND_SHARED:
	case IPC_KIND_QUEUE:
	case IPC_KIND_FLIGHT:
	case IPC_KIND_INBOX:
	case IPC_KIND_SESSION:
	case IPC_KIND_LIMITER:
		return true;
	default:
		return false;
	}
}

/* Whether a pthread lock stands in the memory of this kind. */
static bool kind_has_lock(uint32_t kind)
{
	return kind == IPC_KIND_WATCH || kind == IPC_KIND_SHARED;
}

/* Connecting and resuming make nothing; who resumes finds his session, or does not. */
static bool session_flags_are_legal(const struct message_open *open)
{
	if (open->role != IPC_ROLE_SESSION)
		return !(open->flags & OPEN_RESUME);
	if (open->flags & OPEN_RESUME)
		return !(open->flags & ~(OPEN_RESUME | OPEN_LOOK_ONCE));
	return !(open->flags & ~(IPC_AWAIT | OPEN_LOOK_ONCE));
}

int policy_check_request(const struct message_open *open)
{
	const struct policy_role *role = policy_role(open->role);
	uint64_t flags = IPC_CREATE | IPC_EXCLUSIVE | IPC_AWAIT | IPC_STAY | OPEN_LOOK_ONCE |
			 OPEN_UPGRADE | OPEN_UNCOUNTED | OPEN_RESUME;

	if (!kind_is_served(open->kind))
		return IPC_EPROTONOSUPPORT;

	/* A group opens by its pattern alone. */
	if (!role || role->kind != open->kind || open->role == IPC_ROLE_GROUP)
		return IPC_EINVAL;

	/* IPC_KEEP is for kinds that have a use for it (M-43). */
	if (open->flags & ~(flags | policy_shape_flags(open->kind)))
		return IPC_EINVAL;

	/* Nobody's absence ends anything there (M-22). */
	if ((open->kind == IPC_KIND_LIMITER || open->kind == IPC_KIND_SESSION) &&
	    (open->flags & IPC_STAY))
		return IPC_EINVAL;

	if (!session_flags_are_legal(open))
		return IPC_EINVAL;

	/* It finds what is there; nobody's absence ends its handle's channel. */
	if (role->is_uncounted && (open->flags & ~OPEN_LOOK_ONCE))
		return IPC_EINVAL;

	if ((open->flags & OPEN_UPGRADE) && open->role != IPC_ROLE_WATCH_PRODUCER)
		return IPC_EINVAL;

	/* It keeps no channel alive, so it makes none. */
	if ((open->flags & OPEN_UNCOUNTED) &&
	    (open->role != IPC_ROLE_QUEUE_PRODUCER || (open->flags & IPC_CREATE)))
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

static bool shape_is_within(const struct message_open *open, unsigned i, uint64_t max)
{
	return open->shape_new[i] >= 1 && open->shape_new[i] <= max;
}

static int check_flight_shapes(const struct message_open *open)
{
	uint64_t size = flight_segment_size(open->shape_new);

	if (size == 0)
		return IPC_EINVAL;

	/* Each number for itself is legal: it is all of them together that no memory holds. */
	if (size > SEGMENT_SIZE_MAX)
		return IPC_ENOSPC;

	return size > open->size_new ? IPC_EINVAL : 0;
}

static int check_queue_shapes(const struct message_open *open)
{
	uint64_t size = queue_segment_size(open->shape_new);

	/* A queue with dead letters is not the dead letters of any, of itself neither. */
	if (size == 0 || strcmp(open->name, open->dead_letters) == 0)
		return IPC_EINVAL;

	/* As above. */
	if (size > SEGMENT_SIZE_MAX)
		return IPC_ENOSPC;

	return size > open->size_new ? IPC_EINVAL : 0;
}

static int check_inbox_shapes(const struct message_open *open)
{
	uint64_t size = inbox_segment_size(open->shape_new);

	return size == 0 || size > open->size_new ? IPC_EINVAL : 0;
}

/* Of a listener, whose own memory is small; its sessions are made in this shape. */
static int check_session_shapes(const struct message_open *open)
{
	if (session_segment_size(open->shape_new) == 0)
		return IPC_EINVAL;

	return listener_segment_size() > open->size_new ? IPC_EINVAL : 0;
}

static int check_limiter_shapes(const struct message_open *open)
{
	uint64_t size = limiter_segment_size(open->shape_new);

	/* What is used of a window is not forgotten with the last handle (L-6). */
	if (open->shape_new[2] != 0 && !(open->flags & IPC_KEEP))
		return IPC_EINVAL;

	return size == 0 || size > open->size_new ? IPC_EINVAL : 0;
}

static int check_value_shapes(const struct message_open *open)
{
	if (!shape_is_within(open, 0, IPC_VALUE_SIZE_MAX) || open->shape_new[0] > open->size_new)
		return IPC_EINVAL;

	if (open->kind == IPC_KIND_WATCH && !shape_is_within(open, 1, CONSUMERS_MAX))
		return IPC_EINVAL;

	return 0;
}

static int check_shapes_of_kind(const struct message_open *open)
{
	switch (open->kind) {
	case IPC_KIND_QUEUE:
		return check_queue_shapes(open);
	case IPC_KIND_FLIGHT:
		return check_flight_shapes(open);
	case IPC_KIND_INBOX:
		return check_inbox_shapes(open);
	case IPC_KIND_SESSION:
		return check_session_shapes(open);
	case IPC_KIND_LIMITER:
		return check_limiter_shapes(open);
	default:
		return check_value_shapes(open);
	}
}

static int check_shapes(const struct message_open *open)
{
	int r;

	r = check_shapes_of_kind(open);
	if (r < 0)
		return r;

	if (open->size_new > SEGMENT_SIZE_MAX || segment_round(open->size_new) != open->size_new)
		return IPC_EINVAL;

	return 0;
}

int policy_check_creation(const struct policy_subject *subject, const struct message_open *open)
{
	const struct policy_role *role = policy_role(open->role);

	if ((open->mode & MODE_OTHERS_WRITE) && kind_has_lock(open->kind))
		return IPC_EACCES;

	if (open->gid != 0 && subject->uid != 0 && !subject_in_group(subject, open->gid))
		return IPC_EACCES;

	if (role->is_local && subject->is_foreign)
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

	/* Whoever maps it for writing maps memory that others write: root, too, asks for it. */
	if (!role->maps_readonly)
		return (mode_bits(subject, channel) & BITS_BOTH) == BITS_BOTH ? 0 : IPC_EACCES;

	return subject->uid == 0 || (mode_bits(subject, channel) & BITS_READ) ? 0 : IPC_EACCES;
}

static bool number_fits(uint64_t wanted, uint64_t is)
{
	return wanted == 0 || wanted == is;
}

/* Words of a queue hold two numbers each, but for one (libipc/channel/queue.h). */
static bool word_fits(uint32_t kind, unsigned i, uint64_t wanted, uint64_t is)
{
	if (kind != IPC_KIND_QUEUE || i == 1)
		return number_fits(wanted, is);

	return number_fits(wanted & UINT32_MAX, is & UINT32_MAX) &&
	       number_fits(wanted >> 32, is >> 32);
}

static bool shape_fits(const struct channel_record *channel, const uint64_t wanted[4])
{
	unsigned i;

	for (i = 0; i < N_ELEMENTS(channel->shape); ++i) {
		if (!word_fits(channel->kind, i, wanted[i], channel->shape[i]))
			return false;
	}
	return true;
}

int policy_check_open(const struct policy_subject *subject, const struct channel_record *channel,
		      const struct message_open *open)
{
	const struct policy_role *role = policy_role(open->role);
	int r;

	if (open->flags & IPC_EXCLUSIVE)
		return IPC_EEXIST;

	if (open->kind != channel->kind)
		return IPC_EPROTOTYPE;

	r = check_rights(subject, channel, role);
	if (r < 0)
		return r;

	if (role->is_local && subject->is_foreign)
		return IPC_EPROTONOSUPPORT;

	if (!shape_fits(channel, open->shape) ||
	    (open->flags & policy_shape_flags(channel->kind) & ~channel->flags))
		return IPC_EPROTOTYPE;

	if (open->dead_letters[0] != '\0' && strcmp(open->dead_letters, channel->dead_letters) != 0)
		return IPC_EPROTOTYPE;

	/* Dead letters do not move on. */
	if ((open->flags & OPEN_UNCOUNTED) && channel->dead_letters[0] != '\0')
		return IPC_EINVAL;

	return 0;
}

bool policy_may_read(const struct policy_subject *subject, const struct channel_record *channel)
{
	return subject->uid == 0 || subject->uid == channel->uid ||
	       (mode_bits(subject, channel) & BITS_READ);
}

bool policy_may_remove(const struct policy_subject *subject, const struct channel_record *channel)
{
	return subject->uid == 0 || subject->uid == channel->uid;
}

bool policy_is_public(uint32_t kind, uint32_t mode)
{
	switch (kind) {
	case IPC_KIND_WATCH:
	case IPC_KIND_INBOX:
		return (mode & MODE_OTHERS_READ) != 0;
	case IPC_KIND_QUEUE:
	case IPC_KIND_FLIGHT:
	case IPC_KIND_SESSION:
	case IPC_KIND_LIMITER:
		return (mode & MODE_GROUP_BOTH) == MODE_GROUP_BOTH ||
		       (mode & MODE_OTHER_BOTH) == MODE_OTHER_BOTH;
	default:
		return false;
	}
}
