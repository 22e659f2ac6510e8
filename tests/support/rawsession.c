/* SPDX-License-Identifier: MIT */
#include "tests/support/rawsession.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/wire/codec.h"
#include "tests/support/failure.h"

int rawsession_listen(struct rawpeer *peer, const char *name, uint64_t flags, uint64_t window_ns,
		      uint64_t *ret_id)
{
	union message open = rawpeer_open_message(IPC_ROLE_LISTENER, name, flags);

	open.open.shape_new[2] = window_ns;
	return rawpeer_open(peer, &open, ret_id);
}

/* A duplicate of the descriptor that came for this; -1. */
static int take_fd(const struct rawpeer *peer, const struct message_opened *opened, unsigned which)
{
	unsigned n = 0, bit;

	if (!(opened->fds & which))
		return -1;
	for (bit = 1; bit < which; bit <<= 1)
		n += (opened->fds & bit) != 0;
	return fcntl(peer->fds[n], F_DUPFD_CLOEXEC, 3);
}

static void take(struct rawpeer *peer, const struct message_opened *opened, struct rawsession *ret)
{
	*ret = (struct rawsession){
		.peer = peer,
		.id = opened->handle_id,
		.generation = opened->generation,
		.slot = opened->channel_slot,
		.side = opened->side,
		.owner_uid = opened->owner_uid,
		.owner_table_id = opened->table.segment_id,
		.value_fd = take_fd(peer, opened, OPENED_FD_VALUE),
		.pair_fd = take_fd(peer, opened, OPENED_FD_PAIR),
	};
	memcpy(ret->key, opened->key, sizeof(ret->key));
}

static int open_it(struct rawpeer *peer, union message *open, struct rawsession *ret)
{
	uint64_t id;
	int r;

	r = rawpeer_open(peer, open, &id);
	if (r == 0)
		take(peer, &peer->reply.opened, ret);
	return r;
}

int rawsession_connect(struct rawpeer *peer, const char *name, uint64_t flags,
		       struct rawsession *ret)
{
	union message open = rawpeer_open_message(IPC_ROLE_SESSION, name, flags);

	return open_it(peer, &open, ret);
}

int rawsession_resume(struct rawpeer *peer, const unsigned char *key, struct rawsession *ret)
{
	union message open = rawpeer_open_message(IPC_ROLE_SESSION, "", OPEN_RESUME);

	memcpy(open.open.key, key, sizeof(open.open.key));
	return open_it(peer, &open, ret);
}

void rawsession_take_offer(struct rawpeer *peer, struct rawsession *ret)
{
	const struct message_offer *offer = &peer->reply.offer;

	take(peer, &offer->session, ret);
	ret->listener_id = offer->listener_id;
	ret->is_taken_back = offer->is_taken_back;
}

bool rawsession_offer(struct rawpeer *peer, unsigned timeout_ms, struct rawsession *ret)
{
	if (rawpeer_receive(peer, timeout_ms) != MESSAGE_OFFER)
		return false;

	rawsession_take_offer(peer, ret);
	return true;
}

void rawsession_decide(const struct rawsession *session, uint32_t is_taken)
{
	off_t offset = SESSION_SHARED_OFFSET + offsetof(struct session_shared, is_taken);

	if (pwrite(session->value_fd, &is_taken, sizeof(is_taken), offset) != sizeof(is_taken))
		failure("the session's memory cannot be written");
}

void rawsession_say_taken(const struct rawsession *session, bool is_accepted)
{
	union message message;

	message_init(&message, MESSAGE_TAKEN, 0);
	message.taken.handle_id = session->id;
	message.taken.is_accepted = is_accepted;
	rawpeer_send(session->peer, &message);
}

void rawsession_accept(const struct rawsession *session)
{
	rawsession_decide(session, SESSION_ACCEPTED);
	rawsession_say_taken(session, true);
}

static void end(const struct rawsession *session, bool is_detached)
{
	union message message;

	message_init(&message, MESSAGE_CLOSE, 0);
	message.close.handle_id = session->id;
	message.close.is_detached = is_detached;
	rawpeer_send(session->peer, &message);
	rawpeer_sync(session->peer);
}

void rawsession_close(const struct rawsession *session)
{
	end(session, false);
}

void rawsession_detach(const struct rawsession *session)
{
	end(session, true);
}

void rawsession_confirm(const struct rawsession *session)
{
	atomic_store(&session->peer->desk->cell[LIVENESS_SLOT(session->id)].confirmed_id,
		     session->id);
}

bool rawsession_is_open(const struct rawsession *session)
{
	return liveness_handle_is(session->peer->table, session->id);
}

int rawsession_list(struct rawpeer *peer, const char *name, uint64_t cursor)
{
	union message message;
	int type;

	message_init(&message, MESSAGE_SESSIONS, 0);
	message.sessions.cursor = cursor;
	strcpy(message.sessions.name, name);
	rawpeer_send(peer, &message);
	type = rawpeer_answer(peer, peer->last_id);
	if (type == MESSAGE_DONE)
		return peer->reply.head.result;
	if (type != MESSAGE_SESSIONED)
		failure("SESSIONS is answered by %d", type);
	return 0;
}

void rawsession_drop(struct rawsession *session)
{
	session->value_fd = fd_close(session->value_fd);
	session->pair_fd = fd_close(session->pair_fd);
}
