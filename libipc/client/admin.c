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

/* Sends the request and waits for an answer of this type, which stands in the call then. */
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
	connection_end(&client->connection, call);
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

/* ---- lists ---- */

/* A list that comes in pages.  What is listed is the kind's. */
struct listing {
	const struct listing_kind *kind;
	ipc_client *client;
	const char *subject; /* a pattern, or the name of a channel */
	union {
		ipc_channel_fn channel;
		ipc_handle_fn handle;
		ipc_session_fn session;
	} fn;
	void *userdata;
	uint64_t cursor; /* 0, then what the last page gave */
	uint64_t generation;
};

struct listing_kind {
	enum message_type page;

	/* 0: the subject is a legal one. */
	int (*check)(const char *subject);

	/* Writes the request for the page at the cursor. */
	void (*ask)(const struct listing *listing, union message *request);

	/* The page has come: moves the cursor on.  How many entries it has. */
	uint32_t (*advance)(struct listing *listing, const union message *page);

	/* What the fn says of an entry of the page. */
	int (*tell)(const struct listing *listing, const union message *page, uint32_t index);
};

/* 0, or what the fn said instead, or the failure. */
static int listing_page(struct listing *listing, uint64_t deadline_ns)
{
	const struct listing_kind *kind = listing->kind;
	uint64_t cursor = listing->cursor;
	struct connection_call call;
	union message request;
	uint32_t n;
	int r;

	kind->ask(listing, &request);
	r = admin_call(listing->client, &request, &call, kind->page, deadline_ns);
	if (r < 0)
		return r;

	/* A list that does not get on would never end. */
	n = kind->advance(listing, &call.reply);
	if (listing->cursor <= cursor)
		return IPC_EPROTO;

	for (uint32_t i = 0; i < n && r == 0; ++i) {
		thread_callback_begin();
		r = kind->tell(listing, &call.reply, i);
		thread_callback_end();
	}

	return r;
}

static int listing_run(struct listing *listing, const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	while (r == 0 && listing->cursor != PROTOCOL_CURSOR_END)
		r = listing_page(listing, deadline_ns);

	return r;
}

/* 0, also when the fn has stopped it by a positive result; or the fn's negative, or the failure. */
static int list_wait(struct listing *listing, bool has_fn, const struct timespec *deadline)
{
	int r;

	r = client_enter(listing->client);
	if (r < 0)
		return r;

	r = has_fn ? listing->kind->check(listing->subject) : IPC_EINVAL;
	if (r == 0)
		r = listing_run(listing, deadline);

	client_leave(listing->client);
	return r < 0 ? r : 0;
}

/* ---- channels ---- */

static int pattern_check(const char *pattern)
{
	if (!pattern || pattern[0] == '\0')
		return IPC_EINVAL;

	return strnlen(pattern, IPC_PATTERN_SIZE_MAX + 1) <= IPC_PATTERN_SIZE_MAX ? 0 : IPC_EINVAL;
}

static void channels_ask(const struct listing *listing, union message *request)
{
	message_init(request, MESSAGE_LIST, 0);
	request->list.cursor = (uint32_t)listing->cursor;
	memcpy(request->list.pattern, listing->subject, strlen(listing->subject) + 1);
}

static uint32_t channels_advance(struct listing *listing, const union message *page)
{
	listing->cursor = page->listed.cursor;
	return page->listed.n;
}

static int channels_tell(const struct listing *listing, const union message *page, uint32_t index)
{
	struct ipc_channel_info info;

	info_from_message(&info, &page->listed.channel[index]);
	return listing->fn.channel(&info, listing->userdata);
}

static const struct listing_kind channels = {
	.page = MESSAGE_LISTED,
	.check = pattern_check,
	.ask = channels_ask,
	.advance = channels_advance,
	.tell = channels_tell,
};

int ipc_client_list_wait(ipc_client *client, const char *pattern, ipc_channel_fn fn, void *userdata,
			 const struct timespec *deadline)
{
	struct listing listing = {
		.kind = &channels,
		.client = client,
		.subject = pattern,
		.fn.channel = fn,
		.userdata = userdata,
	};

	return list_wait(&listing, fn != NULL, deadline);
}

/* ---- the handles of one channel ---- */

static void handles_ask(const struct listing *listing, union message *request)
{
	message_init(request, MESSAGE_HANDLES, 0);
	request->handles.cursor = listing->cursor;
	request->handles.generation = listing->generation;
	memcpy(request->handles.name, listing->subject, strlen(listing->subject) + 1);
}

static uint32_t handles_advance(struct listing *listing, const union message *page)
{
	listing->cursor = page->handled.cursor;
	listing->generation = page->handled.generation;
	return page->handled.n;
}

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

static int handles_tell(const struct listing *listing, const union message *page, uint32_t index)
{
	struct ipc_handle_info info;

	handle_from_message(&info, &page->handled.handle[index]);
	return listing->fn.handle(&info, listing->userdata);
}

static const struct listing_kind handles = {
	.page = MESSAGE_HANDLED,
	.check = name_check,
	.ask = handles_ask,
	.advance = handles_advance,
	.tell = handles_tell,
};

int ipc_client_list_handles_wait(ipc_client *client, const char *name, ipc_handle_fn fn,
				 void *userdata, const struct timespec *deadline)
{
	struct listing listing = {
		.kind = &handles,
		.client = client,
		.subject = name,
		.fn.handle = fn,
		.userdata = userdata,
	};

	return list_wait(&listing, fn != NULL, deadline);
}

/* ---- sessions ---- */

static void sessions_ask(const struct listing *listing, union message *request)
{
	message_init(request, MESSAGE_SESSIONS, 0);
	request->sessions.cursor = listing->cursor;
	memcpy(request->sessions.name, listing->subject, strlen(listing->subject) + 1);
}

static uint32_t sessions_advance(struct listing *listing, const union message *page)
{
	listing->cursor = page->sessioned.cursor;
	return page->sessioned.n;
}

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

static int sessions_tell(const struct listing *listing, const union message *page, uint32_t index)
{
	struct ipc_session_info info;

	session_from_message(&info, &page->sessioned.session[index]);
	return listing->fn.session(&info, listing->userdata);
}

static const struct listing_kind sessions = {
	.page = MESSAGE_SESSIONED,
	.check = name_check,
	.ask = sessions_ask,
	.advance = sessions_advance,
	.tell = sessions_tell,
};

int ipc_session_list_wait(ipc_client *client, const char *name, ipc_session_fn fn, void *userdata,
			  const struct timespec *deadline)
{
	struct listing listing = {
		.kind = &sessions,
		.client = client,
		.subject = name,
		.fn.session = fn,
		.userdata = userdata,
	};

	return list_wait(&listing, fn != NULL, deadline);
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

	message_init(&request, MESSAGE_REMOVE, 0);
	request.remove.generation = generation;
	memcpy(request.remove.name, name, strlen(name) + 1);

	return admin_call(client, &request, &call, MESSAGE_DONE, deadline_ns);
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
