/* SPDX-License-Identifier: MIT */
#include "tests/support/rawpeer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/core/header.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"
#include "libipc/platform/lock.h"
#include "libipc/platform/segment.h"
#include "libipc/wire/codec.h"
#include "tests/support/failure.h"

#define ANSWER_MS 30000

static void drop_fds(struct rawpeer *peer)
{
	while (peer->n_fds > 0)
		close(peer->fds[--peer->n_fds]);
}

void rawpeer_connect(struct rawpeer *peer, const char *address)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	memset(peer, 0, sizeof(*peer));
	strcpy(name.sun_path, address);
	peer->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (peer->fd < 0 || connect(peer->fd, (const struct sockaddr *)&name, sizeof(name)) < 0)
		failure("%s: %s", address, strerror(errno));
}

void rawpeer_disconnect(struct rawpeer *peer)
{
	drop_fds(peer);
	if (peer->table)
		munmap((void *)(uintptr_t)peer->table, sizeof(*peer->table));
	if (peer->desk)
		munmap(peer->desk, sizeof(*peer->desk));
	close(peer->fd);
	memset(peer, 0, sizeof(*peer));
	peer->fd = -1;
}

void rawpeer_send(struct rawpeer *peer, union message *request)
{
	request->head.request_id = ++peer->last_id;
	if (send(peer->fd, request, request->head.size, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
	    errno != ECONNRESET)
		failure("send: %s", strerror(errno));
}

int rawpeer_receive(struct rawpeer *peer, unsigned timeout_ms)
{
	struct pollfd pollfd = {.fd = peer->fd, .events = POLLIN};
	size_t size;
	int r;

	drop_fds(peer);
	do {
		if (poll(&pollfd, 1, (int)timeout_ms) == 0)
			return RAWPEER_NOTHING;
		r = fdpass_receive(peer->fd, &peer->reply, sizeof(peer->reply), &size, peer->fds,
				   &peer->n_fds);
	} while (r == IPC_EAGAIN);

	if (r == IPC_EPIPE)
		return RAWPEER_END;
	if (r < 0)
		failure("receive: %s", ipc_error_name(r));
	if (message_check_reply(&peer->reply, size) < 0)
		failure("the broker breaks the protocol: type %u, %zu bytes", peer->reply.head.type,
			size);

	return peer->reply.head.type;
}

int rawpeer_answer(struct rawpeer *peer, uint64_t request_id)
{
	int type;

	for (;;) {
		type = rawpeer_receive(peer, ANSWER_MS);
		if (type < MESSAGE_WELCOME || peer->reply.head.request_id == request_id)
			return type;
		if (peer->news)
			peer->news(peer);
	}
}

static void *map_fd(int fd, size_t size, int protection)
{
	void *address = mmap(NULL, size, protection, MAP_SHARED, fd, 0);

	if (address == MAP_FAILED)
		failure("mmap: %s", strerror(errno));
	return address;
}

int rawpeer_hello(struct rawpeer *peer)
{
	const struct message_welcome *welcome = &peer->reply.welcome;
	union message hello;
	int type;

	message_init(&hello, MESSAGE_HELLO, 0);
	hello.hello.version_min = hello.hello.version_max = PROTOCOL_VERSION;
	hello.hello.lock_stamp = lock_layout_stamp();
	hello.hello.word_size = sizeof(void *);
	hello.hello.pid = getpid();
	strcpy(hello.hello.process_name, "rawpeer");
	rawpeer_send(peer, &hello);

	type = rawpeer_receive(peer, ANSWER_MS);
	if (type == MESSAGE_DONE)
		return peer->reply.head.result;
	if (type == RAWPEER_END)
		return 1;
	if (type != MESSAGE_WELCOME || peer->n_fds != 3)
		failure("HELLO is answered by %d with %u descriptors", type, peer->n_fds);

	peer->slot = welcome->client_slot;
	peer->uid = welcome->uid;
	peer->table_id = welcome->table.segment_id;
	peer->desk_id = welcome->desk.segment_id;
	peer->table = map_fd(peer->fds[0], sizeof(*peer->table), PROT_READ);
	peer->desk = map_fd(peer->fds[1], sizeof(*peer->desk), PROT_READ | PROT_WRITE);
	drop_fds(peer);
	return 0;
}

void rawpeer_join(struct rawpeer *peer, const char *address)
{
	int r;

	rawpeer_connect(peer, address);
	r = rawpeer_hello(peer);
	if (r == 1) {
		/* The worker died before it had stored the connection. */
		rawpeer_disconnect(peer);
		rawpeer_join(peer, address);
	} else if (r < 0) {
		failure("not welcome: %s", ipc_error_name(r));
	}
}

union message rawpeer_open_message(uint32_t role, const char *name, uint64_t flags)
{
	union message open;

	message_init(&open, MESSAGE_OPEN, 0);
	open.open.role = role;
	open.open.flags = flags;
	open.open.shape_new[0] = 4096;
	open.open.size_new = 65536;
	if (role == IPC_ROLE_SHARED_A || role == IPC_ROLE_SHARED_B) {
		open.open.kind = IPC_KIND_SHARED;
	} else if (role == IPC_ROLE_FLIGHT_TABLE || role == IPC_ROLE_HANDLER) {
		open.open.kind = IPC_KIND_FLIGHT;
		open.open.shape_new[1] = 16;
		open.open.shape_new[2] = 256;
		open.open.shape_new[3] = 3;
		open.open.size_new = UINT64_C(1) << 20;
	} else if (role == IPC_ROLE_QUEUE_PRODUCER || role == IPC_ROLE_QUEUE_CONSUMER) {
		open.open.kind = IPC_KIND_QUEUE;
		open.open.shape_new[0] = 16 | UINT64_C(2) << 32;
		open.open.shape_new[1] = 4096;
		open.open.shape_new[2] = 1024 | UINT64_C(3) << 32;
		open.open.size_new = UINT64_C(1) << 20;
	} else if (role == IPC_ROLE_INBOX_SENDER || role == IPC_ROLE_INBOX_RECEIVER ||
		   role == IPC_ROLE_INBOX_OBSERVER) {
		open.open.kind = IPC_KIND_INBOX;
		open.open.shape_new[1] = 1024;
		open.open.size_new = UINT64_C(1) << 20;
	} else if (role == IPC_ROLE_LISTENER || role == IPC_ROLE_SESSION) {
		open.open.kind = IPC_KIND_SESSION;
		open.open.shape_new[1] = 1024;
		open.open.shape_new[2] = 30 * NS_PER_S;
	} else if (role == IPC_ROLE_LIMITER) {
		open.open.kind = IPC_KIND_LIMITER;
		open.open.shape_new[0] = 4;
		open.open.size_new = UINT64_C(4) << 20;
	} else {
		open.open.kind = IPC_KIND_WATCH;
		open.open.shape_new[1] = 64;
	}
	strcpy(open.open.name, name);
	return open;
}

static int opened(struct rawpeer *peer, int type, uint64_t *ret_handle_id)
{
	if (type == MESSAGE_DONE && peer->reply.head.result < 0)
		return peer->reply.head.result;
	if (type != MESSAGE_OPENED)
		failure("OPEN is answered by %d", type);

	*ret_handle_id = peer->reply.opened.handle_id;
	return 0;
}

int rawpeer_reserve(struct rawpeer *peer, uint64_t request_id, uint64_t *ret_handle_id)
{
	const struct message_reserve *reserve = &peer->reply.reserve;
	union message confirm;
	int type;

	if (peer->n_fds != 1)
		failure("RESERVE with %u descriptors", peer->n_fds);

	message_init(&confirm, MESSAGE_CONFIRM, request_id);
	confirm.confirm.handle_id = reserve->handle_id;
	confirm.confirm.status =
		segment_reserve(peer->fds[0], reserve->segment.size, CLOCK_FOREVER);
	confirm.head.request_id = request_id;
	if (send(peer->fd, &confirm, confirm.head.size, MSG_NOSIGNAL) < 0)
		failure("send: %s", strerror(errno));

	/* A worker that died after its answer, and before it took the OPEN off the queue, is
	 * followed by one that answers again. */
	do
		type = rawpeer_answer(peer, request_id);
	while (type == MESSAGE_RESERVE);

	return opened(peer, type, ret_handle_id);
}

int rawpeer_open(struct rawpeer *peer, union message *open, uint64_t *ret_handle_id)
{
	uint64_t request_id;
	int type;

	rawpeer_send(peer, open);
	request_id = peer->last_id;
	type = rawpeer_answer(peer, request_id);

	return type == MESSAGE_RESERVE ? rawpeer_reserve(peer, request_id, ret_handle_id)
				       : opened(peer, type, ret_handle_id);
}

int rawpeer_open_role(struct rawpeer *peer, uint32_t role, const char *name, uint64_t flags,
		      uint64_t *ret_handle_id)
{
	union message open = rawpeer_open_message(role, name, flags);

	return rawpeer_open(peer, &open, ret_handle_id);
}

void rawpeer_close(struct rawpeer *peer, uint64_t handle_id)
{
	union message message;

	message_init(&message, MESSAGE_CLOSE, 0);
	message.close.handle_id = handle_id;
	rawpeer_send(peer, &message);
}

void rawpeer_close_silently(struct rawpeer *peer, uint64_t handle_id)
{
	atomic_store(&peer->desk->cell[LIVENESS_SLOT(handle_id)].closed_id, handle_id);
	atomic_fetch_add(&peer->desk->client[peer->slot].closings, 1);
}

int rawpeer_remove(struct rawpeer *peer, const char *name, uint64_t generation)
{
	union message message;

	message_init(&message, MESSAGE_REMOVE, 0);
	message.remove.generation = generation;
	strcpy(message.remove.name, name);
	rawpeer_send(peer, &message);
	if (rawpeer_answer(peer, peer->last_id) != MESSAGE_DONE)
		failure("REMOVE is not answered by DONE");
	return peer->reply.head.result;
}

int rawpeer_info(struct rawpeer *peer, const char *name)
{
	union message message;
	int type;

	message_init(&message, MESSAGE_INFO, 0);
	strcpy(message.info.name, name);
	rawpeer_send(peer, &message);
	type = rawpeer_answer(peer, peer->last_id);
	if (type == MESSAGE_DONE)
		return peer->reply.head.result;
	if (type != MESSAGE_INFO_REPLY)
		failure("INFO is answered by %d", type);
	return 0;
}

int rawpeer_state(struct rawpeer *peer, const char *name)
{
	union message message;
	int type;

	message_init(&message, MESSAGE_STATE, 0);
	strcpy(message.state.name, name);
	rawpeer_send(peer, &message);
	type = rawpeer_answer(peer, peer->last_id);
	if (type == MESSAGE_DONE)
		return peer->reply.head.result;
	if (type != MESSAGE_STATED)
		failure("STATE is answered by %d", type);
	return 0;
}

int rawpeer_handles(struct rawpeer *peer, const char *name, uint64_t cursor, uint64_t generation)
{
	union message message;
	int type;

	message_init(&message, MESSAGE_HANDLES, 0);
	message.handles.cursor = cursor;
	message.handles.generation = generation;
	strcpy(message.handles.name, name);
	rawpeer_send(peer, &message);
	type = rawpeer_answer(peer, peer->last_id);
	if (type == MESSAGE_DONE)
		return peer->reply.head.result;
	if (type != MESSAGE_HANDLED)
		failure("HANDLES is answered by %d", type);
	return 0;
}

void rawpeer_sync(struct rawpeer *peer)
{
	(void)rawpeer_info(peer, "nothing-is-called-so");
}

uint64_t rawpeer_until_side(const struct rawpeer *peer, uint32_t channel_slot, unsigned side,
			    uint32_t count, uint32_t ends)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	for (;;) {
		const _Atomic uint32_t *attention = &peer->table->attention[peer->slot].word;
		struct futex_word word = {.word = attention, .expected = atomic_load(attention)};
		uint64_t side_word = liveness_side(peer->table, channel_slot, side);

		if (side_count(side_word) == count && side_ends(side_word) >= ends)
			return side_word;
		if (clock_now_ns() > deadline_ns)
			failure("side %u of channel %u: %u handles, %u ends; wanted %u, %u", side,
				channel_slot, side_count(side_word), side_ends(side_word), count,
				ends);
		(void)futex_sleep(&word, 1, deadline_ns);
	}
}
