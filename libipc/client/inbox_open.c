/* SPDX-License-Identifier: MIT */

/*
 * Opening and closing inboxes, and what every role has.
 */

#include "libipc/client/inbox.h"

#include <ipc/error.h>

#include "libipc/client/options.h"

#define INBOX_CAPACITY_DEFAULT (UINT64_C(1) << 20)
#define INBOX_CAPACITY_MIN     (UINT64_C(4) << 10)

/* ---- options ---- */

static uint64_t shape_part(uint64_t capacity)
{
	return capacity / 4;
}

/* A capacity of 0 is the default where it is made, else any. */
static bool options_are_in_range(const struct ipc_inbox_options *options)
{
	uint64_t capacity = options->capacity;

	if (!capacity)
		capacity = options->flags & IPC_CREATE ? INBOX_CAPACITY_DEFAULT : RING_CAPACITY_MAX;

	return capacity >= INBOX_CAPACITY_MIN && capacity <= RING_CAPACITY_MAX &&
	       options->frame_size_max <= shape_part(capacity) &&
	       (options->full == IPC_INBOX_FULL_FAIL || options->full == IPC_INBOX_FULL_COLLAPSE);
}

static void shape_pack(uint64_t ret[4], const struct ipc_inbox_options *options)
{
	ret[0] = options->capacity;
	ret[1] = options->frame_size_max;
	ret[2] = options->full;
	ret[3] = 0;
}

static void options_fill(struct ipc_inbox_options *options)
{
	if (!options->capacity)
		options->capacity = INBOX_CAPACITY_DEFAULT;
	if (!options->frame_size_max)
		options->frame_size_max = shape_part(options->capacity);
}

static int inbox_request(struct endpoint_request *ret, const struct ipc_inbox_options *given)
{
	struct ipc_inbox_options options;
	int r;

	r = options_copy(&options, sizeof(options), given);
	if (r < 0)
		return r;

	r = options_check(options.flags,
			  IPC_CREATE | IPC_EXCLUSIVE | IPC_KEEP | IPC_AWAIT | IPC_STAY,
			  &options.mode);
	if (r < 0)
		return r;
	if (options.reserved != 0)
		return IPC_E2BIG;
	if (!options_are_in_range(&options))
		return IPC_EINVAL;

	ret->flags = options.flags;
	ret->mode = options.mode;
	ret->gid = options.gid;
	ret->make = inbox_make;
	shape_pack(ret->shape, &options);
	options_fill(&options);
	shape_pack(ret->shape_new, &options);
	ret->size_new = inbox_segment_size(ret->shape_new);

	/* What is there may be larger than the defaults. */
	return (options.flags & IPC_CREATE) && !ret->size_new ? IPC_EINVAL : 0;
}

/* ---- handles ---- */

static int attach(struct endpoint *endpoint, struct inbox *inbox)
{
	int r;

	r = inbox_attach(inbox, endpoint->header, endpoint->segment_size, endpoint->shape);
	if (r < 0)
		return r;

	inbox->table = endpoint->table;
	inbox->channel_slot = endpoint->channel_slot;
	inbox->pair_fd = endpoint->pair_fd;
	inbox->lines = endpoint->lines;
	inbox->ring = endpoint_ring;
	inbox->ring_userdata = endpoint;
	return 0;
}

static int sender_attach(struct endpoint *endpoint)
{
	return attach(endpoint, &((ipc_inbox_sender *)endpoint)->sender.inbox);
}

static int receiver_attach(struct endpoint *endpoint)
{
	return attach(endpoint, &((ipc_inbox_receiver *)endpoint)->receiver.inbox);
}

static int observer_attach(struct endpoint *endpoint)
{
	return attach(endpoint, &((ipc_inbox_observer *)endpoint)->inbox);
}

static void sender_closing(struct endpoint *endpoint)
{
	inbox_close_sender(&((ipc_inbox_sender *)endpoint)->sender);
}

static void sender_last(struct endpoint *endpoint)
{
	inbox_leave_sender(&((ipc_inbox_sender *)endpoint)->sender);
}

static void receiver_last(struct endpoint *endpoint)
{
	inbox_leave_receiver(&((ipc_inbox_receiver *)endpoint)->receiver);
}

static int end_begin(struct endpoint *endpoint)
{
	uint32_t process = endpoint_process(endpoint);

	if (endpoint->role == IPC_ROLE_INBOX_SENDER)
		return inbox_begin_sender(&((ipc_inbox_sender *)endpoint)->sender, endpoint->id,
					  process);

	return inbox_begin_receiver(&((ipc_inbox_receiver *)endpoint)->receiver, endpoint->id,
				    process);
}

static int end_open_wait(struct endpoint **ret, ipc_client *client, enum ipc_role role,
			 const char *name, const struct ipc_inbox_options *options,
			 const struct timespec *deadline)
{
	const bool sends = role == IPC_ROLE_INBOX_SENDER;
	const size_t size = sends ? sizeof(ipc_inbox_sender) : sizeof(ipc_inbox_receiver);
	struct endpoint_request request = {
		.kind = IPC_KIND_INBOX,
		.role = role,
		.side = sends ? INBOX_SIDE_SENDER : INBOX_SIDE_RECEIVER,
		.name = name,
		.attach = sends ? sender_attach : receiver_attach,
	};
	struct endpoint *endpoint = NULL;
	int r;

	if (!client || !name)
		return IPC_EINVAL;

	r = inbox_request(&request, options);
	if (r == 0)
		r = endpoint_new_wait(&endpoint, size, client, &request, deadline);
	if (r < 0)
		return r;

	r = end_begin(endpoint);
	if (r < 0) {
		/* It may have got as far as the owner's word. */
		(sends ? sender_last : receiver_last)(endpoint);
		endpoint_close(endpoint);
		return r;
	}

	*ret = endpoint;
	return 0;
}

int ipc_inbox_sender_open_wait(ipc_inbox_sender **ret, ipc_client *client, const char *name,
			       const struct ipc_inbox_options *options,
			       const struct timespec *deadline)
{
	struct endpoint *endpoint;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = end_open_wait(&endpoint, client, IPC_ROLE_INBOX_SENDER, name, options, deadline);
	if (r < 0)
		return r;

	endpoint->closing_fn = sender_closing;
	endpoint->last_fn = sender_last;
	endpoint->readiness = &inbox_sender_readiness;
	*ret = (ipc_inbox_sender *)endpoint;
	return 0;
}

int ipc_inbox_receiver_open_wait(ipc_inbox_receiver **ret, ipc_client *client, const char *name,
				 const struct ipc_inbox_options *options,
				 const struct timespec *deadline)
{
	struct endpoint *endpoint;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = end_open_wait(&endpoint, client, IPC_ROLE_INBOX_RECEIVER, name, options, deadline);
	if (r < 0)
		return r;

	endpoint->last_fn = receiver_last;
	endpoint->readiness = &inbox_receiver_readiness;
	*ret = (ipc_inbox_receiver *)endpoint;
	return 0;
}

int ipc_inbox_observer_open_wait(ipc_inbox_observer **ret, ipc_client *client, const char *name,
				 const struct timespec *deadline)
{
	/* It looks where the sender does: at the receivers. */
	const struct endpoint_request request = {
		.kind = IPC_KIND_INBOX,
		.role = IPC_ROLE_INBOX_OBSERVER,
		.side = INBOX_SIDE_SENDER,
		.name = name,
		.attach = observer_attach,
	};
	struct endpoint *endpoint;
	int r;

	if (!ret || !client || !name)
		return IPC_EINVAL;

	r = endpoint_new_wait(&endpoint, sizeof(**ret), client, &request, deadline);
	if (r < 0)
		return r;

	*ret = (ipc_inbox_observer *)endpoint;
	return 0;
}

/* ---- what every role has ---- */

ipc_inbox_sender *ipc_inbox_sender_close(ipc_inbox_sender *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_INBOX_SENDER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

ipc_inbox_receiver *ipc_inbox_receiver_close(ipc_inbox_receiver *handle)
{
	if (endpoint_is((struct endpoint *)handle, IPC_ROLE_INBOX_RECEIVER))
		endpoint_close((struct endpoint *)handle);

	return NULL;
}

ipc_inbox_observer *ipc_inbox_observer_close(ipc_inbox_observer *observer)
{
	if (endpoint_is((struct endpoint *)observer, IPC_ROLE_INBOX_OBSERVER))
		endpoint_close((struct endpoint *)observer);

	return NULL;
}

int ipc_inbox_sender_cancel(ipc_inbox_sender *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_INBOX_SENDER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_inbox_receiver_cancel(ipc_inbox_receiver *handle)
{
	if (!endpoint_is((struct endpoint *)handle, IPC_ROLE_INBOX_RECEIVER))
		return IPC_EINVAL;

	return endpoint_cancel((struct endpoint *)handle);
}

int ipc_inbox_sender_get_id(const ipc_inbox_sender *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_INBOX_SENDER, ret);
}

int ipc_inbox_receiver_get_id(const ipc_inbox_receiver *handle, uint64_t *ret)
{
	return endpoint_get_id((const struct endpoint *)handle, IPC_ROLE_INBOX_RECEIVER, ret);
}

int ipc_inbox_sender_peers(ipc_inbox_sender *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_INBOX_SENDER);
}

int ipc_inbox_receiver_peers(ipc_inbox_receiver *handle)
{
	return endpoint_peers((struct endpoint *)handle, IPC_ROLE_INBOX_RECEIVER);
}

int ipc_inbox_sender_peers_wait(ipc_inbox_sender *handle, bool present,
				const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_INBOX_SENDER, present,
				   deadline);
}

int ipc_inbox_receiver_peers_wait(ipc_inbox_receiver *handle, bool present,
				  const struct timespec *deadline)
{
	return endpoint_peers_wait((struct endpoint *)handle, IPC_ROLE_INBOX_RECEIVER, present,
				   deadline);
}
