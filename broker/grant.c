/* SPDX-License-Identifier: MIT */
#include "broker/grant.h"

#include <string.h>

#include "broker/fences.h"
#include "broker/keys.h"
#include "broker/pairs.h"
#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/reaper.h"
#include "broker/segments.h"
#include "broker/worker.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"

/*
 * Death: what is granted is in the records and in the table before it is said; saying it twice is
 * harmless, since the client drops answers that it does not await, with their descriptors.
 */

/* The descriptor by which the role maps the segment: read-only ones are opened anew.  *ret_own: the
 * caller closes it. */
static int value_fd(struct worker *worker, const struct handle *handle, int *ret_fd, int *ret_own)
{
	if (policy_role(handle->record->role)->maps_readonly) {
		int r = segment_reopen_readonly(ret_own, &worker->maker,
						handle->channel->segment_fd);

		*ret_fd = *ret_own;
		return r;
	}

	*ret_fd = handle->channel->segment_fd;
	return 0;
}

static void opened_fill(struct message_opened *opened, const struct worker *worker,
			const struct handle *handle)
{
	const struct channel_record *record = handle->channel->record;

	opened->handle_id = handle->record->id;
	opened->generation = record->generation;
	opened->channel_slot = handle->channel->slot;
	opened->owner_uid = record->uid;
	opened->flags = record->flags;
	memcpy(opened->shape, record->shape, sizeof(opened->shape));
	opened->is_writable = !policy_role(handle->record->role)->maps_readonly;
	opened->value = (struct message_region){record->segment_id, 0, record->size};
	opened->table = (struct message_region){handle->channel->owner->record->table_id, 0,
						segment_round(sizeof(struct liveness_table))};
	opened->side = handle->record->side;
	if (handle->channel->session)
		memcpy(opened->key,
		       keys_of(&handle->channel->session->end[handle->record->side],
			       handle->record->id),
		       sizeof(opened->key));
	opened->fence = fences_now(worker->registry->state);
	memcpy(opened->dead_letters, record->dead_letters, sizeof(opened->dead_letters));
}

/* Lines, table and end of the pair, with the descriptors that go with them. */
static int opened_add_rest(struct worker *worker, const struct handle *handle,
			   struct message_opened *opened, int fds[GRANT_FDS_MAX], unsigned *n)
{
	struct user *owner = handle->channel->owner;
	int fd, r;

	opened->lines = segments_lines(handle->channel, handle->peer->record->uid, &fd);
	if (fd >= 0) {
		opened->fds |= OPENED_FD_LINES;
		fds[(*n)++] = fd;
	}

	if (owner != handle->peer->user) {
		r = segments_reader(worker, owner, &fds[*n]);
		if (r < 0)
			return r;

		opened->fds |= OPENED_FD_TABLE;
		++*n;
	}

	fd = pairs_end(handle);
	if (fd >= 0) {
		opened->fds |= OPENED_FD_PAIR;
		fds[(*n)++] = fd;
	}
	return 0;
}

/* has_segment: the client has just reserved the segment and mapped it for writing.  0, or why it
 * could not be said. */
static int answer_opened(struct worker *worker, struct handle *handle, uint64_t request_id,
			 bool has_segment)
{
	struct message_opened *opened = &worker->reply.opened;
	CLEANUP(fd_closep) int own_fd = -1;
	int fds[GRANT_FDS_MAX];
	unsigned n = 0;
	int r;

	message_init(&worker->reply, MESSAGE_OPENED, request_id);
	opened_fill(opened, worker, handle);

	if (!has_segment || !opened->is_writable) {
		r = value_fd(worker, handle, &fds[n], &own_fd);
		if (r < 0)
			return r;
		opened->fds |= OPENED_FD_VALUE;
		++n;
	}

	r = opened_add_rest(worker, handle, opened, fds, &n);
	if (r < 0)
		return r;

	return peer_answer(worker, handle->peer, &worker->reply, fds, n);
}

int grant_describe(struct worker *worker, const struct handle *handle, struct message_opened *ret,
		   int fds[GRANT_FDS_MAX], unsigned *ret_n_fds)
{
	unsigned n = 0;
	int r;

	opened_fill(ret, worker, handle);
	ret->fds = OPENED_FD_VALUE;
	fds[n++] = handle->channel->segment_fd;
	r = opened_add_rest(worker, handle, ret, fds, &n);
	if (r == 0)
		*ret_n_fds = n;
	return r;
}

int grant_reserve(struct worker *worker, struct handle *handle)
{
	const struct channel_record *record = handle->channel->record;
	struct message_reserve *reserve = &worker->reply.reserve;

	message_init(&worker->reply, MESSAGE_RESERVE, handle->record->request_id);
	reserve->handle_id = handle->record->id;
	reserve->segment = (struct message_region){record->segment_id, 0, record->size};
	memcpy(reserve->shape, record->shape, sizeof(reserve->shape));
	reserve->flags = record->flags;

	return peer_answer(worker, handle->peer, &worker->reply, &handle->channel->segment_fd, 1);
}

int grant_handle(struct worker *worker, struct handle *handle, uint64_t request_id,
		 bool has_segment)
{
	struct peer *peer = handle->peer;
	int r;

	r = answer_opened(worker, handle, request_id, has_segment);
	if (r == 0 || peer->is_doomed)
		return 0;

	reaper_give_back(worker, handle);
	return r;
}
