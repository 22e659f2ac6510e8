/* SPDX-License-Identifier: MIT */
#include <ipc/admin.h>
#include <ipc/queue.h>
#include <ipc/session.h>

/*
 * The calls that only ask: one request, one answer; a list comes in pages.
 */

#include <stdbool.h>
#include <string.h>

#include "libipc/client/client.h"
#include "libipc/client/options.h"
#include "libipc/client/thread.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"

/*
 * Sends the request, which has the call's id then, and waits for an answer of this type.  Whatever
 * the result, connection_end() is the caller's.
 */
static int admin_call(ipc_client *client, union message *request, struct connection_call *call,
		      enum message_type type, uint64_t deadline_ns)
{
	uint64_t reply_deadline_ns = connection_reply_deadline(deadline_ns);
	const struct message_head *head = &call->reply.head;
	int r;

	connection_begin(&client->connection, call);
	request->head.request_id = call->id;

	r = connection_send(&client->connection, request, reply_deadline_ns);
	if (r == 0)
		r = connection_await(&client->connection, call, reply_deadline_ns);
	if (r < 0)
		return r;

	if (head->type == MESSAGE_DONE && head->result < 0)
		return head->result;

	return head->type == type ? 0 : IPC_EPROTO;
}

static void info_from_message(struct ipc_channel_info *ret, const struct message_channel *channel)
{
	memset(ret, 0, sizeof(*ret));
	ret->size = sizeof(*ret);
	memcpy(ret->name, channel->name, sizeof(ret->name));
	ret->kind = (enum ipc_kind)channel->kind;
	ret->mode = channel->mode;
	ret->uid = channel->uid;
	ret->gid = channel->gid;
	ret->flags = channel->flags;
	ret->generation = channel->generation;
	ret->bytes = channel->bytes;
	ret->item_size_max = channel->item_size_max;
	ret->capacity = channel->capacity;
	ret->handles[0] = channel->handles[0];
	ret->handles[1] = channel->handles[1];
	ret->waiters = channel->waiters;
	ret->depth = channel->depth;
	ret->depth_max = channel->depth_max;
	ret->holder_pid = channel->holder_pid;
	ret->holder_id = channel->holder_id;
	ret->held_ns = channel->held_ns;
}

/* ---- list ---- */

struct listing {
	ipc_client *client;
	const char *pattern;
	ipc_channel_fn fn;
	void *userdata;
	uint64_t deadline_ns;
	uint32_t cursor;
	bool is_stopped;
	struct connection_call call;
};

/* 0, or the fn's negative; is_stopped after anything but 0 from it. */
static int listing_tell(struct listing *listing, const struct message_listed *listed)
{
	struct ipc_channel_info info;
	int r = 0;

	for (uint32_t i = 0; i < listed->n && r == 0; ++i) {
		info_from_message(&info, &listed->channel[i]);
		thread_callback_begin();
		r = listing->fn(&info, listing->userdata);
		thread_callback_end();
	}

	listing->is_stopped = r != 0;
	return r < 0 ? r : 0;
}

static int listing_page(struct listing *listing)
{
	const struct message_listed *listed = &listing->call.reply.listed;
	union message request;
	int r;

	message_init(&request, MESSAGE_LIST, 0);
	request.list.cursor = listing->cursor;
	memcpy(request.list.pattern, listing->pattern, strlen(listing->pattern) + 1);

	r = admin_call(listing->client, &request, &listing->call, MESSAGE_LISTED,
		       listing->deadline_ns);
	connection_end(&listing->client->connection, &listing->call);
	if (r < 0)
		return r;

	/* A list that does not get on would never end. */
	if (listed->cursor <= listing->cursor)
		return IPC_EPROTO;

	listing->cursor = listed->cursor;
	return listing_tell(listing, listed);
}

int ipc_client_list_wait(ipc_client *client, const char *pattern, ipc_channel_fn fn, void *userdata,
			 const struct timespec *deadline)
{
	struct listing listing;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	listing.client = client;
	listing.pattern = pattern;
	listing.fn = fn;
	listing.userdata = userdata;
	listing.cursor = 0;
	listing.is_stopped = false;

	r = IPC_EINVAL;
	if (fn && pattern && pattern[0] != '\0' &&
	    strnlen(pattern, IPC_PATTERN_SIZE_MAX + 1) <= IPC_PATTERN_SIZE_MAX)
		r = clock_deadline(&listing.deadline_ns, deadline);
	while (r == 0 && !listing.is_stopped && listing.cursor != PROTOCOL_CURSOR_END)
		r = listing_page(&listing);

	client_leave(client);
	return r;
}

/* ---- the handles of one channel ---- */

struct handle_listing {
	ipc_client *client;
	const char *name;
	ipc_handle_fn fn;
	void *userdata;
	uint64_t deadline_ns;
	uint64_t cursor, generation;
	bool is_stopped;
	struct connection_call call;
};

static void handle_from_message(struct ipc_handle_info *ret, const struct message_handle *handle)
{
	memset(ret, 0, sizeof(*ret));
	ret->size = sizeof(*ret);
	ret->handle_id = handle->handle_id;
	ret->pid = handle->pid;
	static_assert(sizeof(ret->process_name) == sizeof(handle->process_name), "copied whole");
	memcpy(ret->process_name, handle->process_name, sizeof(ret->process_name));
	ret->role = (enum ipc_role)handle->role;
	ret->weak = handle->weak;
	ret->holds = (enum ipc_holding)handle->holds;
	ret->n_held = handle->n_held;
	ret->held_ns = handle->held_ns;
	ret->waiting_for = handle->waiting_for;
	ret->waiting_ns = handle->waiting_ns;
}

/* As listing_tell(). */
static int handle_listing_tell(struct handle_listing *listing,
			       const struct message_handled *handled)
{
	struct ipc_handle_info info;
	int r = 0;

	for (uint32_t i = 0; i < handled->n && r == 0; ++i) {
		handle_from_message(&info, &handled->handle[i]);
		thread_callback_begin();
		r = listing->fn(&info, listing->userdata);
		thread_callback_end();
	}

	listing->is_stopped = r != 0;
	return r < 0 ? r : 0;
}

static int handle_listing_page(struct handle_listing *listing)
{
	const struct message_handled *handled = &listing->call.reply.handled;
	union message request;
	int r;

	message_init(&request, MESSAGE_HANDLES, 0);
	request.handles.cursor = listing->cursor;
	request.handles.generation = listing->generation;
	memcpy(request.handles.name, listing->name, strlen(listing->name) + 1);

	r = admin_call(listing->client, &request, &listing->call, MESSAGE_HANDLED,
		       listing->deadline_ns);
	connection_end(&listing->client->connection, &listing->call);
	if (r < 0)
		return r;

	/* A list that does not get on would never end. */
	if (handled->cursor <= listing->cursor)
		return IPC_EPROTO;

	listing->cursor = handled->cursor;
	listing->generation = handled->generation;
	return handle_listing_tell(listing, handled);
}

int ipc_client_list_handles_wait(ipc_client *client, const char *name, ipc_handle_fn fn,
				 void *userdata, const struct timespec *deadline)
{
	struct handle_listing listing;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	listing.client = client;
	listing.name = name;
	listing.fn = fn;
	listing.userdata = userdata;
	listing.cursor = listing.generation = 0;
	listing.is_stopped = false;

	r = fn ? name_check(name) : IPC_EINVAL;
	if (r == 0)
		r = clock_deadline(&listing.deadline_ns, deadline);
	while (r == 0 && !listing.is_stopped && listing.cursor != PROTOCOL_CURSOR_END)
		r = handle_listing_page(&listing);

	client_leave(client);
	return r;
}

/* ---- sessions ---- */

struct session_listing {
	ipc_client *client;
	const char *name;
	ipc_session_fn fn;
	void *userdata;
	uint64_t deadline_ns;
	uint64_t cursor;
	bool is_stopped;
	struct connection_call call;
};

static void session_from_message(struct ipc_session_info *ret,
				 const struct message_session *session)
{
	memset(ret, 0, sizeof(*ret));
	ret->size = sizeof(*ret);
	static_assert(sizeof(*ret) - offsetof(struct ipc_session_info, generation) ==
			      sizeof(*session),
		      "copied whole");
	memcpy(&ret->generation, session, sizeof(*session));
}

/* As listing_tell(). */
static int session_listing_tell(struct session_listing *listing,
				const struct message_sessioned *sessioned)
{
	struct ipc_session_info info;
	int r = 0;

	for (uint32_t i = 0; i < sessioned->n && r == 0; ++i) {
		session_from_message(&info, &sessioned->session[i]);
		thread_callback_begin();
		r = listing->fn(&info, listing->userdata);
		thread_callback_end();
	}

	listing->is_stopped = r != 0;
	return r < 0 ? r : 0;
}

static int session_listing_page(struct session_listing *listing)
{
	const struct message_sessioned *sessioned = &listing->call.reply.sessioned;
	union message request;
	int r;

	message_init(&request, MESSAGE_SESSIONS, 0);
	request.sessions.cursor = listing->cursor;
	memcpy(request.sessions.name, listing->name, strlen(listing->name) + 1);

	r = admin_call(listing->client, &request, &listing->call, MESSAGE_SESSIONED,
		       listing->deadline_ns);
	connection_end(&listing->client->connection, &listing->call);
	if (r < 0)
		return r;

	/* A list that does not get on would never end. */
	if (sessioned->cursor <= listing->cursor)
		return IPC_EPROTO;

	listing->cursor = sessioned->cursor;
	return session_listing_tell(listing, sessioned);
}

int ipc_session_list_wait(ipc_client *client, const char *name, ipc_session_fn fn, void *userdata,
			  const struct timespec *deadline)
{
	struct session_listing listing;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	listing.client = client;
	listing.name = name;
	listing.fn = fn;
	listing.userdata = userdata;
	listing.cursor = 0;
	listing.is_stopped = false;

	r = fn ? name_check(name) : IPC_EINVAL;
	if (r == 0)
		r = clock_deadline(&listing.deadline_ns, deadline);
	while (r == 0 && !listing.is_stopped && listing.cursor != PROTOCOL_CURSOR_END)
		r = session_listing_page(&listing);

	client_leave(client);
	return r;
}

/* ---- one channel ---- */

static int channel_info_wait(ipc_client *client, const char *name, struct ipc_channel_info *ret,
			     uint64_t deadline_ns)
{
	struct connection_call call;
	struct ipc_channel_info info;
	union message request;
	int r;

	message_init(&request, MESSAGE_INFO, 0);
	memcpy(request.info.name, name, strlen(name) + 1);

	r = admin_call(client, &request, &call, MESSAGE_INFO_REPLY, deadline_ns);
	connection_end(&client->connection, &call);
	if (r < 0)
		return r;

	info_from_message(&info, &call.reply.info_reply.channel);
	return options_write_info(ret, &info, sizeof(info));
}

int ipc_channel_info_wait(ipc_client *client, const char *name, struct ipc_channel_info *ret,
			  const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	r = ret && ret->size >= sizeof(ret->size) ? name_check(name) : IPC_EINVAL;
	if (r == 0)
		r = clock_deadline(&deadline_ns, deadline);
	if (r == 0)
		r = channel_info_wait(client, name, ret, deadline_ns);

	client_leave(client);
	return r;
}

static int channel_remove_wait(ipc_client *client, const char *name, uint64_t generation,
			       uint64_t deadline_ns)
{
	struct connection_call call;
	union message request;
	int r;

	message_init(&request, MESSAGE_REMOVE, 0);
	request.remove.generation = generation;
	memcpy(request.remove.name, name, strlen(name) + 1);

	r = admin_call(client, &request, &call, MESSAGE_DONE, deadline_ns);
	connection_end(&client->connection, &call);
	return r;
}

int ipc_channel_remove_wait(ipc_client *client, const char *name, uint64_t generation,
			    const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	r = name_check(name);
	if (r == 0)
		r = clock_deadline(&deadline_ns, deadline);
	if (r == 0)
		r = channel_remove_wait(client, name, generation, deadline_ns);

	client_leave(client);
	return r;
}

/* ---- what stands in a queue ---- */

static void state_from_message(struct ipc_queue_state *ret, const struct message_stated *stated)
{
	static_assert(IPC_PRIORITIES_MAX == PROTOCOL_PRIORITIES_MAX &&
			      IPC_DEAD_REASONS_MAX == PROTOCOL_REASONS_MAX &&
			      sizeof(*ret) - offsetof(struct ipc_queue_state, items) ==
				      sizeof(*stated) - offsetof(struct message_stated, items),
		      "copied whole");
	ret->priorities = stated->priorities;
	ret->n_leased = 0;
	memcpy(ret->items, stated->items, sizeof(*stated) - offsetof(struct message_stated, items));
	for (unsigned i = 0; i < IPC_PRIORITIES_MAX; ++i)
		ret->n_leased += (uint32_t)ret->leased[i];
}

static int queue_state_wait(ipc_client *client, const char *name, struct ipc_queue_state *ret,
			    uint64_t deadline_ns)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	struct connection_call call;
	union message request;
	int r;

	message_init(&request, MESSAGE_STATE, 0);
	memcpy(request.state.name, name, strlen(name) + 1);

	r = admin_call(client, &request, &call, MESSAGE_STATED, deadline_ns);
	connection_end(&client->connection, &call);
	if (r < 0)
		return r;

	state_from_message(&state, &call.reply.stated);
	r = options_write_info(ret, &state, sizeof(state));
	return r < 0 ? r : (int)call.reply.stated.is_partial;
}

int ipc_queue_state_wait(ipc_client *client, const char *name, struct ipc_queue_state *ret,
			 const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = client_enter(client);
	if (r < 0)
		return r;

	r = ret && ret->size >= sizeof(ret->size) ? name_check(name) : IPC_EINVAL;
	if (r == 0)
		r = clock_deadline(&deadline_ns, deadline);
	if (r == 0)
		r = queue_state_wait(client, name, ret, deadline_ns);

	client_leave(client);
	return r;
}
