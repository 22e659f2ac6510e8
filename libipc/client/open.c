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

#include <string.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/client/client.h"
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
	bool is_pending; /* the broker may still grant it */
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

/* The descriptors that came, by what they are; they stay the call's, which closes them. */
struct opened_fds {
	int value, lines, table;
};

static int opened_sort_fds(struct opened_fds *ret, const struct connection_call *call)
{
	uint32_t which = call->reply.opened.fds;
	unsigned n = 0;

	if ((unsigned)__builtin_popcount(which) != call->n_fds)
		return IPC_EPROTO;

	ret->value = which & OPENED_FD_VALUE ? call->fds[n++] : -1;
	ret->lines = which & OPENED_FD_LINES ? call->fds[n++] : -1;
	ret->table = which & OPENED_FD_TABLE ? call->fds[n++] : -1;
	return 0;
}

static int opening_map_value(struct opening *opening, const struct message_opened *opened, int fd)
{
	struct endpoint *endpoint = opening->endpoint;
	void *address;
	int r;

	if (fd >= 0) {
		r = segment_map(&address, fd, opened->value.offset, opened->value.size,
				opened->is_writable);
		if (r < 0)
			return r;
	} else {
		/* What this client has made and may write is mapped already. */
		if (!opening->made || !opened->is_writable ||
		    opening->made_id != opened->value.segment_id ||
		    opening->made_size != opened->value.size)
			return IPC_EPROTO;

		address = opening->made;
		opening->made = NULL;
	}

	endpoint->header = address;
	endpoint->segment_size = opened->value.size;
	endpoint->is_writable = opened->is_writable;
	return 0;
}

static int opening_map_lines(struct opening *opening, const struct message_region *lines, int fd)
{
	struct endpoint *endpoint = opening->endpoint;
	ipc_client *client = opening->client;
	const uint64_t size = 2 * sizeof(struct eventcount);
	uint64_t in_page;
	void *address;
	int r;

	if (lines->size < size || lines->offset % _Alignof(struct eventcount))
		return IPC_EPROTO;

	if (lines->segment_id == client->desk_id) {
		if (lines->offset + size > client->desk_size)
			return IPC_EPROTO;

		endpoint->lines = (struct eventcount *)((char *)client->desk + lines->offset);
		return 0;
	}

	if (fd < 0)
		return IPC_EPROTO;

	/* In the desk of another user lines stand in the middle of a page, which alone can be
	 * mapped. */
	in_page = lines->offset % (uint64_t)sysconf(_SC_PAGESIZE);
	r = segment_map(&address, fd, lines->offset - in_page, lines->size + in_page, true);
	if (r < 0)
		return r;

	endpoint->lines = (struct eventcount *)((char *)address + in_page);
	endpoint->lines_map = address;
	endpoint->lines_map_size = lines->size + in_page;
	return 0;
}

/* The user's counter only goes up, and may be far ahead: this client is one of many. */
static void opening_raise_fence(struct desk *desk, uint64_t fence)
{
	uint64_t seen = atomic_load_explicit(&desk->fence, memory_order_relaxed);

	while (seen < fence &&
	       !atomic_compare_exchange_weak_explicit(&desk->fence, &seen, fence,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

/* What the broker said, and what follows from it. */
static void opening_fill(struct opening *opening, const struct message_opened *opened)
{
	struct endpoint *endpoint = opening->endpoint;
	const struct endpoint_request *request = opening->request;
	ipc_client *client = opening->client;

	endpoint->client = client;
	endpoint->epoch = client->epoch;
	endpoint->id = opened->handle_id;
	endpoint->generation = opened->generation;
	endpoint->channel_flags = opened->flags;
	memcpy(endpoint->shape, opened->shape, sizeof(endpoint->shape));
	if (request->ret_dead_letters)
		memcpy(request->ret_dead_letters, opened->dead_letters,
		       sizeof(opened->dead_letters));
	endpoint->channel_slot = opened->channel_slot;
	endpoint->kind = request->kind;
	endpoint->role = request->role;
	endpoint->side = request->side;
	endpoint->stays = request->flags & IPC_STAY;
	endpoint->cell = &client->desk->cell[LIVENESS_SLOT(opened->handle_id)];
	if (endpoint->kind == IPC_KIND_FLIGHT)
		opening_raise_fence(client->desk, opened->fence);

	/* The slot's last tenant may have died in a wait. */
	atomic_store_explicit(&endpoint->cell->waits_for, 0, memory_order_relaxed);
	atomic_store_explicit(&endpoint->cell->waits_since, 0, memory_order_relaxed);
}

static int opening_map(struct opening *opening, const struct message_opened *opened)
{
	struct endpoint *endpoint = opening->endpoint;
	struct opened_fds fds;
	int r;

	r = opened_sort_fds(&fds, &opening->call);
	if (r < 0)
		return r;

	r = table_get(&opening->client->tables, &opened->table, fds.table, opened->owner_uid,
		      &endpoint->table);
	if (r < 0)
		return r;
	endpoint->attention = &endpoint->table->attention[opening->client->slot].word;
	endpoint->handle_word = &endpoint->table->handle[LIVENESS_SLOT(endpoint->id)];

	r = opening_map_lines(opening, &opened->lines, fds.lines);
	if (r < 0)
		return r;

	return opening_map_value(opening, opened, fds.value);
}

static int opening_attach(const struct opening *opening)
{
	struct endpoint *endpoint = opening->endpoint;
	int r;

	r = header_check(endpoint->header, endpoint->kind, endpoint->segment_size, endpoint->shape);
	if (r == 0)
		r = header_fault(endpoint->header);
	if (r == 0 && opening->request->attach)
		r = opening->request->attach(endpoint);

	return r;
}

static int opening_finish(struct opening *opening)
{
	struct endpoint *endpoint = opening->endpoint;
	const struct message_opened *opened = &opening->call.reply.opened;
	int r;

	CRASH_POINT();
	opening->is_pending = false;
	opening_fill(opening, opened);

	/* Until its own table is known the handle is told closed by way of the client's: the
	 * message is what counts. */
	endpoint->table = opening->client->table;
	r = opening_map(opening, opened);
	if (r == 0)
		r = opening_attach(opening);
	if (r < 0) {
		endpoint_tell_closed(endpoint);
		endpoint_unmap(endpoint);
		return r;
	}

	(void)ipc_client_ref(opening->client);
	endpoint->magic = ENDPOINT_MAGIC | endpoint->role;
	return 0;
}

/* ---- all of it ---- */

static int opening_run(struct opening *opening)
{
	struct connection *connection = &opening->client->connection;
	int r;

	r = opening_ask(opening);
	while (r == 0) {
		r = connection_await(connection, &opening->call,
				     connection_reply_deadline(opening->deadline_ns));
		if (r < 0)
			break;

		switch ((enum message_type)opening->call.reply.head.type) {
		case MESSAGE_DONE:
			opening->is_pending = false;
			r = opening->call.reply.head.result;
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
		case MESSAGE_WELCOME:
		case MESSAGE_INFO_REPLY:
		case MESSAGE_LISTED:
		case MESSAGE_HANDLED:
		case MESSAGE_BELLS:
		case MESSAGE_JOINED:
			r = IPC_EPROTO;
			break;
		}
	}
	return r;
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
	opening.is_pending = false;
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

int endpoint_open_wait(struct endpoint *endpoint, ipc_client *client,
		       const struct endpoint_request *request, const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	r = request->is_upgrade ? 0 : name_check(request->name);
	if (r == 0 && request->dead_letters)
		r = name_check(request->dead_letters);
	if (r == 0)
		r = clock_deadline(&deadline_ns, deadline);
	if (r == 0)
		r = open_wait(endpoint, client, request, deadline_ns);

	client_leave(client);
	return r;
}
