/* SPDX-License-Identifier: MIT */
#include "libipc/client/endpoint.h"

/*
 * Opening a channel: OPEN, where this client makes the channel also RESERVE and CONFIRM, then
 * OPENED.  Whoever asked reserves the space (a broker that did it could be made to run out of
 * memory) and writes the first bytes; the channel exists for others from the confirmation on.
 *
 * However it fails, nothing is left: an OPEN that may still be granted is withdrawn, a handle that
 * was granted is closed.
 */

#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/client/client.h"
#include "libipc/client/opened.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/segment.h"
#include "libipc/wire/codec.h"

struct opening {
	struct endpoint *endpoint;
	ipc_client *client;
	const struct endpoint_request *request;
	uint64_t deadline_ns;
	bool is_pending;   /* the broker may still grant it */
	bool is_confirmed; /* what was made may be seen by others */
	struct connection_call call;

	/* The new segment, mapped writable; NULL: the channel was there, or is not yet. */
	void *made;
	uint64_t made_size, made_id;
};

static int opening_ask(struct opening *opening)
{
	const struct endpoint_request *request = opening->request;
	union message message;
	int r;

	message_init(&message, MESSAGE_OPEN, opening->call.id);
	message.open.kind = request->kind;
	message.open.role = request->role;
	message.open.flags = request->flags;
	message.open.mode = request->mode;
	message.open.gid = request->gid;
	memcpy(message.open.shape, request->shape, sizeof(message.open.shape));
	memcpy(message.open.shape_new, request->shape_new, sizeof(message.open.shape_new));
	if (request->dead_letters)
		memcpy(message.open.dead_letters, request->dead_letters,
		       strlen(request->dead_letters) + 1);
	message.open.size_new = segment_round(request->size_new);
	if (request->size_new && !message.open.size_new)
		return IPC_ENOSPC;

	if (opening->deadline_ns <= clock_now_ns())
		message.open.flags |= OPEN_LOOK_ONCE;
	if (request->is_uncounted)
		message.open.flags |= OPEN_UNCOUNTED;
	if (request->is_upgrade) {
		message.open.flags |= OPEN_UPGRADE;
		message.open.channel_slot = request->channel_slot;
		message.open.generation = request->generation;
	} else if (request->key) {
		message.open.flags |= OPEN_RESUME;
		memcpy(message.open.key, request->key, sizeof(message.open.key));
	} else {
		memcpy(message.open.name, request->name, strlen(request->name) + 1);
	}

	r = connection_send(&opening->client->connection, &message,
			    connection_reply_deadline(opening->deadline_ns));
	opening->is_pending = r == 0;
	return r;
}

/* ---- a new segment ---- */

/* Reserved before it is mapped: a store to memory that is not there would be a SIGBUS. */
static int opening_make(struct opening *opening, const struct message_reserve *reserve, int fd)
{
	uint64_t end = reserve->segment.offset +
		       reserve->segment.size; /* the codec saw that it does not overflow */
	int r;

	r = segment_reserve(fd, end, opening->deadline_ns);
	if (r < 0)
		return r;

	CRASH_POINT();
	r = segment_map(&opening->made, fd, reserve->segment.offset, reserve->segment.size, true);
	if (r < 0)
		return r;

	opening->made_size = reserve->segment.size;
	opening->made_id = reserve->segment.segment_id;
	return opening->request->make(opening->made, opening->made_size, reserve->shape,
				      reserve->flags);
}

static int opening_reserve(struct opening *opening)
{
	const struct message_reserve reserve = opening->call.reply.reserve;
	struct connection *connection = &opening->client->connection;
	union message message;
	int status, r;

	if (opening->call.n_fds != 1 || !opening->request->make)
		return IPC_EPROTO;

	status = opening_make(opening, &reserve, opening->call.fds[0]);
	opening->is_confirmed = status == 0;
	CRASH_POINT();

	message_init(&message, MESSAGE_CONFIRM, opening->call.id);
	message.confirm.handle_id = reserve.handle_id;
	message.confirm.status = status;

	/* A second worker may say RESERVE once more. */
	connection_expect(connection, &opening->call, MESSAGE_RESERVE);
	r = connection_send(connection, &message, connection_reply_deadline(opening->deadline_ns));
	CRASH_POINT();
	if (r == 0 && status < 0)
		opening->is_pending = false;

	return status < 0 ? status : r;
}

/* ---- the handle ---- */

static int opening_finish(struct opening *opening)
{
	const struct opened opened = {
		.message = &opening->call.reply.opened,
		.fds = opening->call.fds,
		.n_fds = opening->call.n_fds,
		.made = &opening->made,
		.made_size = opening->made_size,
		.made_id = opening->made_id,
	};

	CRASH_POINT();
	opening->is_pending = false;
	return opened_take(&opened, opening->endpoint, opening->client, opening->request);
}

/* ---- all of it ---- */

/* An end that was taken by a worker who died before he said so, and was taken over since: the
 * broker keeps the handle until it hears that nobody has it (broker/overtaken.h). */
static bool is_kept_for_nobody(int refusal)
{
	return refusal == IPC_ESTALE;
}

/* The answers to what was asked. */
static int opening_follow(struct opening *opening)
{
	struct connection *connection = &opening->client->connection;
	int r = 0;

	while (r == 0) {
		r = connection_await(connection, &opening->call,
				     connection_reply_deadline(opening->deadline_ns));
		if (r < 0)
			break;

		switch ((enum message_type)opening->call.reply.head.type) {
		case MESSAGE_DONE:
			r = opening->call.reply.head.result;
			opening->is_pending = is_kept_for_nobody(r);
			return r < 0 ? r : IPC_EPROTO;
		case MESSAGE_RESERVE:
			r = opening_reserve(opening);
			break;
		case MESSAGE_OPENED:
			return opening_finish(opening);
		case MESSAGE_HELLO:
		case MESSAGE_OPEN:
		case MESSAGE_CONFIRM:
		case MESSAGE_CLOSE:
		case MESSAGE_CANCEL:
		case MESSAGE_INFO:
		case MESSAGE_LIST:
		case MESSAGE_REMOVE:
		case MESSAGE_HANDLES:
		case MESSAGE_RING:
		case MESSAGE_GROUP:
		case MESSAGE_STATE:
		case MESSAGE_WELCOME:
		case MESSAGE_INFO_REPLY:
		case MESSAGE_LISTED:
		case MESSAGE_HANDLED:
		case MESSAGE_BELLS:
		case MESSAGE_JOINED:
		case MESSAGE_STATED:
		case MESSAGE_TAKEN:
		case MESSAGE_SESSIONS:
		case MESSAGE_OFFER:
		case MESSAGE_SESSIONED:
			r = IPC_EPROTO;
			break;
		}
	}
	return r;
}

static int opening_run(struct opening *opening)
{
	int r;

	r = opening_ask(opening);
	if (r == 0)
		r = opening_follow(opening);
	if ((r != IPC_ETIMEDOUT && r != IPC_ECANCELED) || !opening->is_confirmed ||
	    !opening->is_pending || !opening->request->give_up ||
	    opening->request->give_up(opening->made))
		return r;

	/* The broker has only to say so. */
	opening->deadline_ns = CLOCK_FOREVER;
	opening->call.is_decided = true;
	return opening_follow(opening);
}

static int open_wait(struct endpoint *endpoint, ipc_client *client,
		     const struct endpoint_request *request, uint64_t deadline_ns)
{
	struct opening opening;
	int r;

	opening.endpoint = endpoint;
	opening.client = client;
	opening.request = request;
	opening.deadline_ns = deadline_ns;
	opening.is_pending = opening.is_confirmed = false;
	opening.made = NULL;

	connection_begin(&client->connection, &opening.call);
	r = opening_run(&opening);
	if (r < 0 && opening.is_pending)
		connection_withdraw(&client->connection, opening.call.id);
	connection_end(&client->connection, &opening.call);

	/* A read-only role has made the channel and sees it through another map now; or it failed.
	 */
	if (opening.made)
		segment_unmap(opening.made, opening.made_size);
	return r;
}

static int endpoint_open_wait(struct endpoint *endpoint, ipc_client *client,
			      const struct endpoint_request *request,
			      const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	r = request->is_upgrade || request->key ? 0 : name_check(request->name);
	if (r == 0 && request->dead_letters)
		r = name_check(request->dead_letters);
	if (r == 0)
		r = clock_deadline(&deadline_ns, deadline);
	if (r == 0)
		r = open_wait(endpoint, client, request, deadline_ns);

	client_leave(client);
	return r;
}

int endpoint_new_wait(struct endpoint **ret, size_t size, ipc_client *client,
		      const struct endpoint_request *request, const struct timespec *deadline)
{
	struct endpoint *endpoint;
	int r;

	endpoint = calloc(1, size);
	if (!endpoint)
		return IPC_ENOMEM;

	r = endpoint_open_wait(endpoint, client, request, deadline);
	if (r < 0) {
		free(endpoint);
		return r;
	}

	*ret = endpoint;
	return 0;
}
