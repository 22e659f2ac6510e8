/* SPDX-License-Identifier: MIT */
#include "broker/session_list.h"

#include <ipc/admin.h>
#include <string.h>

#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/segments.h"
#include "broker/sessions.h"
#include "broker/worker.h"
#include "libipc/channel/session.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"

/*
 * Death: looking changes nothing.
 *
 * A page goes through the slots of all channels in their order: so a session that is there during
 * the whole of a listing is told once.
 */

/* Of one request, so that nobody keeps the broker from the others. */
#define SLOTS_MAX 4096

static bool read_segment(void *userdata, uint64_t offset, void *ret, size_t size)
{
	const struct channel *channel = userdata;

	return segments_read(channel->segment_fd, offset, ret, size);
}

/* A direction that does not look right is told as an empty one. */
static void fill_directions(struct message_session *ret, struct channel *channel)
{
	const struct session_read read = {
		.read = read_segment,
		.userdata = channel,
		.shape = channel->record->shape,
	};
	unsigned side;

	for (side = 0; side < 2; ++side)
		(void)session_read_direction(&read, side, &ret->sent[side],
					     &ret->acknowledged[side], &ret->depth[side],
					     &ret->depth_max[side]);
}

static uint64_t time_left(uint64_t until_ns, uint64_t now_ns)
{
	if (until_ns == 0 || until_ns == UINT64_MAX)
		return until_ns;

	return until_ns > now_ns ? until_ns - now_ns : 1;
}

static void fill_ends(struct message_session *ret, struct registry *registry,
		      const struct channel *channel)
{
	uint64_t now_ns = clock_now_ns();
	unsigned side;

	for (side = 0; side < 2; ++side) {
		const struct session_end *end = &channel->session->end[side];
		const struct handle *holder = registry_handle_on(registry, channel, end->holder);

		ret->away_ns[side] = time_left(sessions_until(channel, side), now_ns);
		ret->pid[side] = holder ? holder->peer->record->pid : 0;
		ret->uid[side] = end->uid;
	}
}

/* Each of them has begun once before it is resumed. */
#define N_ENDS 2

static void fill(struct message_session *ret, struct registry *registry, struct channel *channel)
{
	uint64_t n_begun =
		segments_peek(channel->segment_fd,
			      SESSION_SHARED_OFFSET + offsetof(struct session_shared, resumes));

	memset(ret, 0, sizeof(*ret));
	ret->generation = channel->record->generation;
	ret->resumes = n_begun > N_ENDS ? n_begun - N_ENDS : 0;
	ret->capacity = channel->record->shape[0];
	fill_directions(ret, channel);
	fill_ends(ret, registry, channel);
}

static bool is_listed(struct registry *registry, uint32_t slot,
		      const struct policy_subject *subject, const struct channel *listener,
		      const char *name)
{
	const struct channel *channel = &registry->channel[slot];

	/* The record of a slot that no worker of this domain has used is not even looked at. */
	if (!channel->session || record_get(&channel->record->state) != RECORD_USED ||
	    !sessions_is_accepted(channel) || strcmp(channel->record->name, name) != 0)
		return false;

	/* Whose rights are those of its listener, or were. */
	return listener || subject->uid == 0 || subject->uid == channel->record->uid ||
	       subject->uid == channel->session->end[0].uid;
}

static int check(const struct policy_subject *subject, const struct channel *listener)
{
	if (!listener)
		return 0;
	if (record_get(&listener->record->state) != RECORD_USED)
		return IPC_ENOENT;
	if (!policy_may_read(subject, listener->record))
		return IPC_EACCES;
	return listener->record->kind == IPC_KIND_SESSION ? 0 : IPC_EPROTOTYPE;
}

void session_list(struct worker *worker, struct peer *peer, const struct message_sessions *sessions)
{
	struct message_sessioned *sessioned = &worker->reply.sessioned;
	struct registry *registry = worker->registry;
	const struct channel *listener = registry_find(registry, sessions->name);
	struct policy_subject subject = peer_subject(peer);
	uint32_t top = registry->channel_slots.top;
	uint64_t slot = sessions->cursor;
	unsigned n_looks = 0;
	uint32_t n = 0;
	int r;

	r = check(&subject, listener);
	if (r < 0) {
		peer_answer_result(worker, peer, sessions->head.request_id, r);
		return;
	}

	message_init(&worker->reply, MESSAGE_SESSIONED, sessions->head.request_id);
	for (; slot < top && n < PROTOCOL_SESSION_MAX && n_looks < SLOTS_MAX; ++slot, ++n_looks) {
		if (is_listed(registry, (uint32_t)slot, &subject, listener, sessions->name))
			fill(&sessioned->session[n++], registry, &registry->channel[slot]);
	}

	sessioned->n = n;
	sessioned->cursor = slot < top ? slot : PROTOCOL_CURSOR_END;
	sessioned->head.size = (uint32_t)(offsetof(struct message_sessioned, session) +
					  n * sizeof(sessioned->session[0]));
	peer_answer(worker, peer, &worker->reply, NULL, 0);
}
