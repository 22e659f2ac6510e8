/* SPDX-License-Identifier: MIT */
#include "libipc/client/opened.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/client/client.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/segment.h"
#include "libipc/platform/syserr.h"

/* ---- maps ---- */

/* The descriptors that came, by what they are. */
struct opened_fds {
	int value, lines, table, pair;
};

static int opened_sort_fds(struct opened_fds *ret, const struct opened *opened)
{
	uint32_t which = opened->message->fds;
	unsigned n = 0;

	if ((unsigned)__builtin_popcount(which) != opened->n_fds)
		return IPC_EPROTO;

	ret->value = which & OPENED_FD_VALUE ? opened->fds[n++] : -1;
	ret->lines = which & OPENED_FD_LINES ? opened->fds[n++] : -1;
	ret->table = which & OPENED_FD_TABLE ? opened->fds[n++] : -1;
	ret->pair = which & OPENED_FD_PAIR ? opened->fds[n++] : -1;
	return 0;
}

static int opened_map_value(const struct opened *opened, struct endpoint *endpoint, int fd)
{
	const struct message_opened *message = opened->message;
	void *address;
	int r;

	if (fd >= 0) {
		r = segment_map(&address, fd, message->value.offset, message->value.size,
				message->is_writable);
		if (r < 0)
			return r;
	} else {
		/* What this client has made and may write is mapped already. */
		if (!opened->made || !*opened->made || !message->is_writable ||
		    opened->made_id != message->value.segment_id ||
		    opened->made_size != message->value.size)
			return IPC_EPROTO;

		address = *opened->made;
		*opened->made = NULL;
	}

	endpoint->header = address;
	endpoint->segment_size = message->value.size;
	endpoint->is_writable = message->is_writable;
	return 0;
}

static int opened_map_lines(const struct message_region *lines, struct endpoint *endpoint, int fd)
{
	ipc_client *client = endpoint->client;
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

/* The descriptors that came stay the caller's, who closes them. */
static int opened_keep_pair(struct endpoint *endpoint, int fd)
{
	if (fd < 0)
		return 0;

	endpoint->pair_fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	return endpoint->pair_fd < 0 ? syserr(SYSERR_SOCKET, errno) : 0;
}

static int opened_map(const struct opened *opened, struct endpoint *endpoint)
{
	const struct message_opened *message = opened->message;
	ipc_client *client = endpoint->client;
	struct opened_fds fds;
	int r;

	r = opened_sort_fds(&fds, opened);
	if (r < 0)
		return r;

	r = opened_map_value(opened, endpoint, fds.value);
	if (r < 0)
		return r;

	r = table_get(&client->tables, &message->table, fds.table, message->owner_uid,
		      &endpoint->table);
	if (r < 0)
		return r;
	endpoint->attention = &endpoint->table->attention[client->slot].word;
	endpoint->handle_word = &endpoint->table->handle[LIVENESS_SLOT(endpoint->id)];

	r = opened_map_lines(&message->lines, endpoint, fds.lines);
	return r < 0 ? r : opened_keep_pair(endpoint, fds.pair);
}

/* ---- the handle ---- */

/* The user's counter only goes up, and may be far ahead: this client is one of many. */
static void opened_raise_fence(struct desk *desk, uint64_t fence)
{
	uint64_t seen = atomic_load_explicit(&desk->fence, memory_order_relaxed);

	while (seen < fence &&
	       !atomic_compare_exchange_weak_explicit(&desk->fence, &seen, fence,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

/* What the broker said, and what follows from it. */
static void opened_fill(const struct message_opened *opened, struct endpoint *endpoint,
			ipc_client *client, const struct endpoint_request *request)
{
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
	endpoint->side = request->role == IPC_ROLE_SESSION ? opened->side : request->side;
	endpoint->pair_fd = -1;
	memcpy(endpoint->key, opened->key, sizeof(endpoint->key));
	endpoint->stays = request->flags & IPC_STAY;
	endpoint->cell = &client->desk->cell[LIVENESS_SLOT(opened->handle_id)];
	if (endpoint->kind == IPC_KIND_FLIGHT)
		opened_raise_fence(client->desk, opened->fence);

	/* The slot's last tenant may have died in a wait. */
	atomic_store_explicit(&endpoint->cell->waits_for, 0, memory_order_relaxed);
	atomic_store_explicit(&endpoint->cell->waits_since, 0, memory_order_relaxed);
}

static int opened_attach(struct endpoint *endpoint, const struct endpoint_request *request)
{
	int r;

	r = header_check(endpoint->header, endpoint->kind, endpoint->segment_size, endpoint->shape);
	if (r == 0)
		r = header_fault(endpoint->header);
	if (r == 0 && request->attach)
		r = request->attach(endpoint);
	if (r < 0 && request->failed)
		request->failed(endpoint, true);

	return r;
}

/* In the desk, also where the table that would say whether it is still open is not mapped: ids
 * grow, so the next tenant's line is not disturbed. */
static void opened_mark_closed(struct desk_cell *cell, uint64_t handle_id)
{
	uint64_t seen = atomic_load_explicit(&cell->closed_id, memory_order_relaxed);

	while (seen < handle_id &&
	       !atomic_compare_exchange_weak_explicit(&cell->closed_id, &seen, handle_id,
						      memory_order_release, memory_order_relaxed))
		;
}

int opened_take(const struct opened *opened, struct endpoint *endpoint, ipc_client *client,
		const struct endpoint_request *request)
{
	int r;

	opened_fill(opened->message, endpoint, client, request);

	/* Until its own table is known the handle is told closed by way of the client's: the
	 * message is what counts. */
	endpoint->table = client->table;
	r = opened_map(opened, endpoint);
	if (r < 0 && endpoint->header && request->failed)
		request->failed(endpoint, false);
	if (r == 0)
		r = opened_attach(endpoint, request);
	if (r < 0) {
		/* What is resumed is not ended by who could not. */
		endpoint->is_detached = request->key;
		if (endpoint->is_detached)
			atomic_store_explicit(&endpoint->cell->detached_id, endpoint->id,
					      memory_order_relaxed);
		opened_mark_closed(endpoint->cell, endpoint->id);
		endpoint_tell_closed(endpoint);
		endpoint_unmap(endpoint);
		return r;
	}

	(void)ipc_client_ref(client);
	endpoint->magic = ENDPOINT_MAGIC | endpoint->role;
	return 0;
}

void opened_refuse(const struct message_opened *opened, ipc_client *client)
{
	struct endpoint endpoint = {
		.client = client,
		.id = opened->handle_id,
		.table = client->table,
		.cell = &client->desk->cell[LIVENESS_SLOT(opened->handle_id)],
	};

	opened_mark_closed(endpoint.cell, endpoint.id);
	endpoint_tell_closed(&endpoint);
}
