/* SPDX-License-Identifier: MIT */
#include "libipc/wire/codec.h"

#include <string.h>

#include <criterion/criterion.h>

#include "include/ipc/admin.h"
#include "include/ipc/client.h"
#include "libipc/core/liveness.h"

static const enum message_type request_types[] = {
	MESSAGE_HELLO, MESSAGE_OPEN,  MESSAGE_CONFIRM, MESSAGE_CLOSE,   MESSAGE_CANCEL,
	MESSAGE_INFO,  MESSAGE_LIST,  MESSAGE_REMOVE,  MESSAGE_HANDLES, MESSAGE_RING,
	MESSAGE_GROUP, MESSAGE_STATE, MESSAGE_TAKEN,   MESSAGE_SESSIONS};
static const enum message_type reply_types[] = {
	MESSAGE_WELCOME,    MESSAGE_DONE,   MESSAGE_RESERVE, MESSAGE_OPENED,
	MESSAGE_INFO_REPLY, MESSAGE_LISTED, MESSAGE_HANDLED, MESSAGE_BELLS,
	MESSAGE_JOINED,     MESSAGE_STATED, MESSAGE_OFFER,   MESSAGE_SESSIONED};

static const struct message_region region = {.segment_id = 7, .offset = 4096, .size = 8192};

static void good_channel(struct message_channel *channel)
{
	strcpy(channel->name, "a/b");
	channel->kind = IPC_KIND_WATCH;
}

static void good_handle(struct message_handle *handle)
{
	handle->handle_id = 1;
	strcpy(handle->process_name, "a b");
	handle->role = IPC_ROLE_SHARED_A;
	handle->holds = IPC_HOLDS_LOCK;
}

/* A message that has to pass. */
static void good_body(union message *message, enum message_type type)
{
	switch (type) {
	case MESSAGE_HELLO:
		message->hello.version_min = message->hello.version_max = PROTOCOL_VERSION;
		message->hello.pid = 1;
		break;
	case MESSAGE_OPEN:
		message->open.kind = IPC_KIND_SHARED;
		message->open.role = IPC_ROLE_SHARED_B;
		message->open.flags = IPC_CREATE;
		message->open.size_new = 4096;
		strcpy(message->open.name, "a/b");
		break;
	case MESSAGE_CONFIRM:
		message->confirm.handle_id = 1;
		break;
	case MESSAGE_CLOSE:
		message->close.handle_id = 1;
		break;
	case MESSAGE_CANCEL:
	case MESSAGE_DONE:
		break;
	case MESSAGE_INFO:
		strcpy(message->info.name, "a/b");
		break;
	case MESSAGE_LIST:
		strcpy(message->list.pattern, "*");
		break;
	case MESSAGE_STATE:
		strcpy(message->state.name, "a/b");
		break;
	case MESSAGE_STATED:
		message->stated.priorities = 1;
		break;
	case MESSAGE_REMOVE:
		strcpy(message->remove.name, "a/b");
		break;
	case MESSAGE_WELCOME:
		message->welcome.version = PROTOCOL_VERSION;
		message->welcome.table = message->welcome.desk = region;
		break;
	case MESSAGE_RESERVE:
		message->reserve.handle_id = 1;
		message->reserve.segment = region;
		break;
	case MESSAGE_OPENED:
		message->opened.handle_id = message->opened.generation = 1;
		message->opened.value = message->opened.lines = message->opened.table = region;
		break;
	case MESSAGE_INFO_REPLY:
		good_channel(&message->info_reply.channel);
		break;
	case MESSAGE_LISTED:
		message->listed.n = 2;
		memset(message->listed.channel, 0, 2 * sizeof(message->listed.channel[0]));
		good_channel(&message->listed.channel[0]);
		good_channel(&message->listed.channel[1]);
		message->head.size += 2 * (uint32_t)sizeof(message->listed.channel[0]);
		break;
	case MESSAGE_HANDLES:
		strcpy(message->handles.name, "a/b");
		break;
	case MESSAGE_RING:
		message->ring.handle_id = 1;
		break;
	case MESSAGE_GROUP:
		message->group.group_id = 1;
		strcpy(message->group.pattern, "*");
		break;
	case MESSAGE_BELLS:
		message->bells.handle_id = 1;
		message->bells.n = 2;
		break;
	case MESSAGE_JOINED:
		message->joined.group_id = 1;
		strcpy(message->joined.name, "a");
		message->joined.queue.handle_id = message->joined.queue.generation = 1;
		message->joined.queue.value = message->joined.queue.lines =
			message->joined.queue.table = region;
		break;
	case MESSAGE_TAKEN:
		message->taken.handle_id = 1;
		break;
	case MESSAGE_OFFER:
		message->offer.listener_id = 1;
		message->offer.session.handle_id = message->offer.session.generation = 1;
		message->offer.session.value = message->offer.session.lines =
			message->offer.session.table = region;
		break;
	case MESSAGE_SESSIONS:
		strcpy(message->sessions.name, "a/b");
		break;
	case MESSAGE_SESSIONED:
		message->sessioned.n = 2;
		memset(message->sessioned.session, 0, 2 * sizeof(message->sessioned.session[0]));
		message->head.size += 2 * (uint32_t)sizeof(message->sessioned.session[0]);
		break;
	case MESSAGE_HANDLED:
		message->handled.generation = 1;
		message->handled.n = 2;
		memset(message->handled.handle, 0, 2 * sizeof(message->handled.handle[0]));
		good_handle(&message->handled.handle[0]);
		good_handle(&message->handled.handle[1]);
		message->head.size += 2 * (uint32_t)sizeof(message->handled.handle[0]);
		break;
	}
}

static union message *good(enum message_type type)
{
	static union message message;

	memset(&message, 0xa5, sizeof(message));
	message_init(&message, type, 42);
	good_body(&message, type);
	return &message;
}

static int check(const union message *message)
{
	return message->head.type < MESSAGE_WELCOME
		       ? message_check_request(message, message->head.size)
		       : message_check_reply(message, message->head.size);
}

/* Changes one thing in a good message, which has to be refused then. */
#define REFUSED(type, member, change)                                                              \
	do {                                                                                       \
		union message *changed_ = good(type);                                              \
		cr_assert_eq(check(changed_), 0, "good %s", #type);                                \
		changed_->member change;                                                           \
		cr_assert_eq(check(changed_), IPC_EPROTO, "%s: %s %s", #type, #member, #change);   \
	} while (0)

#define ACCEPTED(type, member, change)                                                             \
	do {                                                                                       \
		union message *changed_ = good(type);                                              \
		changed_->member change;                                                           \
		cr_assert_eq(check(changed_), 0, "%s: %s %s", #type, #member, #change);            \
	} while (0)

Test(codec, init_fills_the_head_and_zeroes_the_rest, .timeout = 60)
{
	for (size_t i = 0; i < N_ELEMENTS(request_types); ++i) {
		union message message;

		memset(&message, 0xa5, sizeof(message));
		message_init(&message, request_types[i], UINT64_C(0x123456789a));

		cr_assert_eq(message.head.magic, PROTOCOL_MAGIC);
		cr_assert_eq(message.head.type, request_types[i]);
		cr_assert_eq(message.head.result, 0);
		cr_assert_eq(message.head.request_id, UINT64_C(0x123456789a));
		for (size_t at = sizeof(message.head); at < message.head.size; ++at)
			cr_assert_eq(message.bytes[at], 0);
		cr_assert_eq(message.bytes[message.head.size], 0xa5);
	}
}

Test(codec, good_messages_pass_in_their_direction_only, .timeout = 60)
{
	for (size_t i = 0; i < N_ELEMENTS(request_types); ++i) {
		union message *m = good(request_types[i]);

		cr_assert_eq(message_check_request(m, m->head.size), 0, "type %d", m->head.type);
		cr_assert_eq(message_check_reply(m, m->head.size), IPC_EPROTO, "type %d",
			     m->head.type);
	}
	for (size_t i = 0; i < N_ELEMENTS(reply_types); ++i) {
		union message *m = good(reply_types[i]);

		cr_assert_eq(message_check_reply(m, m->head.size), 0, "type %d", m->head.type);
		cr_assert_eq(message_check_request(m, m->head.size), IPC_EPROTO, "type %d",
			     m->head.type);
	}
}

static void expect_sizes_refused(enum message_type type)
{
	for (int off = -1; off <= 1; off += 2) {
		union message *m = good(type);
		size_t size = (size_t)((int)m->head.size + off);

		/* the packet is not what the head says */
		cr_assert_eq(message_check_request(m, size), IPC_EPROTO, "type %d, off %d", type,
			     off);
		cr_assert_eq(message_check_reply(m, size), IPC_EPROTO, "type %d, off %d", type,
			     off);

		/* both say the same, but the type has another size */
		m->head.size = (uint32_t)size;
		cr_assert_eq(check(m), IPC_EPROTO, "type %d, off %d", type, off);
	}
}

Test(codec, a_size_that_is_off_by_one_is_refused, .timeout = 60)
{
	for (size_t i = 0; i < N_ELEMENTS(request_types); ++i)
		expect_sizes_refused(request_types[i]);
	for (size_t i = 0; i < N_ELEMENTS(reply_types); ++i)
		expect_sizes_refused(reply_types[i]);
}

Test(codec, packets_shorter_than_a_head_or_longer_than_the_limit_are_refused, .timeout = 60)
{
	union message *m = good(MESSAGE_DONE);

	for (uint32_t size = 0; size < sizeof(m->head); ++size) {
		m->head.size = size;
		cr_assert_eq(message_check_reply(m, size), IPC_EPROTO);
		cr_assert_eq(message_check_request(m, size), IPC_EPROTO);
	}
	m->head.size = PROTOCOL_SIZE_MAX + 1;
	cr_assert_eq(message_check_reply(m, PROTOCOL_SIZE_MAX + 1), IPC_EPROTO);
}

Test(codec, every_unknown_type_is_refused, .timeout = 60)
{
	union message *m = good(MESSAGE_DONE);
	unsigned n_known = 0;

	/* A head alone is the size of DONE and of no other type, but CLOSE and others differ by
	 * size: so only one may pass. */
	for (unsigned type = 0; type <= UINT16_MAX; ++type) {
		m->head.type = (uint16_t)type;
		n_known += message_check_reply(m, m->head.size) == 0;
		n_known += message_check_request(m, m->head.size) == 0;
	}
	cr_assert_eq(n_known, 1);
}

Test(codec, every_bad_head_is_refused, .timeout = 60)
{
	for (size_t i = 0; i < N_ELEMENTS(request_types); ++i) {
		REFUSED(request_types[i], head.magic, ^= 1);
		REFUSED(request_types[i], head.reserved, = 1);
		REFUSED(request_types[i], head.result, = -1);
		REFUSED(request_types[i], head.result, = 1);
	}
	for (size_t i = 0; i < N_ELEMENTS(reply_types); ++i) {
		REFUSED(reply_types[i], head.magic, ^= 1);
		REFUSED(reply_types[i], head.reserved, = 1);
		REFUSED(reply_types[i], head.result, = 1);
		REFUSED(reply_types[i], head.result, = INT32_MIN);
		if (reply_types[i] != MESSAGE_DONE)
			REFUSED(reply_types[i], head.result, = IPC_ENOENT);
	}
	ACCEPTED(MESSAGE_DONE, head.result, = IPC_ENOENT);
}

Test(codec, every_bad_field_of_a_request_is_refused, .timeout = 60)
{
	REFUSED(MESSAGE_HELLO, hello.version_min, = 0);
	REFUSED(MESSAGE_HELLO, hello.version_min, = PROTOCOL_VERSION + 1);
	REFUSED(MESSAGE_HELLO, hello.pid, = 0);
	REFUSED(MESSAGE_HELLO, hello.pid, = -1);
	ACCEPTED(MESSAGE_HELLO, hello.version_max, = 1000);
	ACCEPTED(MESSAGE_HELLO, hello.lock_stamp, = UINT32_MAX);

	REFUSED(MESSAGE_OPEN, open.kind, = 0);
	REFUSED(MESSAGE_OPEN, open.kind, = IPC_KIND_WATCH);
	REFUSED(MESSAGE_OPEN, open.kind, = IPC_KIND_LIMITER + 1);
	REFUSED(MESSAGE_OPEN, open.role, = 0);
	REFUSED(MESSAGE_OPEN, open.role, = IPC_ROLE_WATCH_PRODUCER);
	REFUSED(MESSAGE_OPEN, open.role, = IPC_ROLE_LIMITER + 1);
	REFUSED(MESSAGE_OPEN, open.flags, |= 1);
	REFUSED(MESSAGE_OPEN, open.flags, |= 0x8000);
	REFUSED(MESSAGE_OPEN, open.flags, |= OPEN_RESUME << 1);
	REFUSED(MESSAGE_OPEN, open.flags, |= UINT64_C(1) << 63);
	REFUSED(MESSAGE_OPEN, open.flags, = IPC_EXCLUSIVE);
	REFUSED(MESSAGE_OPEN, open.flags, = OPEN_UPGRADE);
	REFUSED(MESSAGE_OPEN, open.mode, = 0700);
	REFUSED(MESSAGE_OPEN, open.mode, = 01600);
	REFUSED(MESSAGE_OPEN, open.size_new, = 0);
	REFUSED(MESSAGE_OPEN, open.size_new, = UINT64_MAX);
	REFUSED(MESSAGE_OPEN, open.reserved, = 1);
	ACCEPTED(MESSAGE_OPEN, open.flags,
		 |= IPC_EXCLUSIVE | IPC_KEEP | IPC_AWAIT | IPC_STAY | 0x1000000 | OPEN_LOOK_ONCE);
	ACCEPTED(MESSAGE_OPEN, open.mode, = 0666);

	REFUSED(MESSAGE_CONFIRM, confirm.handle_id, = 0);
	REFUSED(MESSAGE_CONFIRM, confirm.status, = 1);
	REFUSED(MESSAGE_CONFIRM, confirm.status, = INT32_MIN);
	REFUSED(MESSAGE_CONFIRM, confirm.reserved, = 1);
	ACCEPTED(MESSAGE_CONFIRM, confirm.status, = IPC_ENOSPC);

	REFUSED(MESSAGE_CLOSE, close.handle_id, = 0);
	REFUSED(MESSAGE_CLOSE, close.is_detached, = 2);
	REFUSED(MESSAGE_CLOSE, close.reserved, = 1);
	ACCEPTED(MESSAGE_CLOSE, close.is_detached, = 1);

	REFUSED(MESSAGE_TAKEN, taken.handle_id, = 0);
	REFUSED(MESSAGE_TAKEN, taken.is_accepted, = 2);
	REFUSED(MESSAGE_TAKEN, taken.reserved, = 1);

	REFUSED(MESSAGE_SESSIONS, sessions.cursor, = PROTOCOL_CURSOR_END);
	REFUSED(MESSAGE_SESSIONS, sessions.name[0], = '/');

	REFUSED(MESSAGE_LIST, list.cursor, = PROTOCOL_CURSOR_END);
	REFUSED(MESSAGE_LIST, list.reserved, = 1);
	ACCEPTED(MESSAGE_LIST, list.pattern[0], = '\0');

	REFUSED(MESSAGE_HANDLES, handles.cursor, = PROTOCOL_CURSOR_END);
	REFUSED(MESSAGE_HANDLES, handles.cursor, = 1);
	REFUSED(MESSAGE_HANDLES, handles.cursor, = UINT64_MAX);
	REFUSED(MESSAGE_HANDLES, handles.name[0], = '/');
	ACCEPTED(MESSAGE_HANDLES, handles.generation, = UINT64_MAX);

	REFUSED(MESSAGE_RING, ring.handle_id, = 0);

	REFUSED(MESSAGE_GROUP, group.group_id, = 0);
	ACCEPTED(MESSAGE_GROUP, group.pattern[0], = '\0');

	REFUSED(MESSAGE_STATE, state.name[0], = '\0');
}

Test(codec, a_listing_of_handles_goes_on_with_the_generation_that_it_began_with, .timeout = 60)
{
	union message *m = good(MESSAGE_HANDLES);

	m->handles.cursor = 48;
	cr_assert_eq(check(m), IPC_EPROTO);

	m->handles.generation = 5;
	cr_assert_eq(check(m), 0);

	m->handles.cursor = UINT64_C(1) << 32;
	cr_assert_eq(check(m), IPC_EPROTO);
}

Test(codec, the_two_roles_of_a_flight_are_of_its_kind, .timeout = 60)
{
	static const uint32_t roles[] = {IPC_ROLE_FLIGHT_TABLE, IPC_ROLE_HANDLER};

	for (size_t i = 0; i < N_ELEMENTS(roles); ++i) {
		union message *m = good(MESSAGE_OPEN);

		m->open.role = roles[i];
		cr_assert_eq(check(m), IPC_EPROTO);

		m->open.kind = IPC_KIND_FLIGHT;
		cr_assert_eq(check(m), 0);
	}
}

Test(codec, an_upgrade_names_a_channel_by_slot_and_generation, .timeout = 60)
{
	union message *m = good(MESSAGE_OPEN);
	union message changed;

	m->open.flags = OPEN_UPGRADE;
	m->open.name[0] = '\0';
	m->open.generation = 5;
	cr_assert_eq(check(m), 0);

	changed = *m;
	changed.open.channel_slot = LIVENESS_CHANNELS_MAX;
	cr_assert_eq(check(&changed), IPC_EPROTO);

	changed = *m;
	changed.open.generation = 0;
	cr_assert_eq(check(&changed), IPC_EPROTO);

	changed = *m;
	changed.open.flags |= IPC_CREATE;
	cr_assert_eq(check(&changed), IPC_EPROTO);

	changed = *m;
	changed.open.name[0] = 'x';
	cr_assert_eq(check(&changed), IPC_EPROTO);
}

/* other kinds have no dead letters, and nobody but who moves items there is not counted. */
Test(codec, queues_alone_have_dead_letters, .timeout = 60)
{
	union message *m = good(MESSAGE_OPEN);

	strcpy(m->open.dead_letters, "dead");
	cr_assert_eq(check(m), IPC_EPROTO, "a shared value");

	m->open.kind = IPC_KIND_QUEUE;
	m->open.role = IPC_ROLE_QUEUE_PRODUCER;
	cr_assert_eq(check(m), 0);
	strcpy(m->open.dead_letters, "dead letters");
	cr_assert_eq(check(m), IPC_EPROTO, "no legal name");
	memset(m->open.dead_letters, 'x', sizeof(m->open.dead_letters));
	cr_assert_eq(check(m), IPC_EPROTO, "a name without its end");

	memset(m->open.dead_letters, 0, sizeof(m->open.dead_letters));
	m->open.flags |= OPEN_UNCOUNTED;
	cr_assert_eq(check(m), 0);
	m->open.role = IPC_ROLE_QUEUE_CONSUMER;
	cr_assert_eq(check(m), IPC_EPROTO, "consumers are counted");
}

Test(codec, the_largest_legal_numbers_pass, .timeout = 60)
{
	ACCEPTED(MESSAGE_DONE, head.result, = -4095);
	ACCEPTED(MESSAGE_CONFIRM, confirm.status, = -4095);
	ACCEPTED(MESSAGE_OPEN, open.size_new, = INT64_MAX);
	ACCEPTED(MESSAGE_WELCOME, welcome.is_foreign, = 1);
	ACCEPTED(MESSAGE_WELCOME, welcome.table.offset, = INT64_MAX - region.size);
	ACCEPTED(MESSAGE_OPENED, opened.is_writable, = 1);
	ACCEPTED(MESSAGE_OPENED, opened.channel_slot, = LIVENESS_CHANNELS_MAX - 1);
	ACCEPTED(MESSAGE_INFO_REPLY, info_reply.channel.kind, = IPC_KIND_LIMITER);
	ACCEPTED(MESSAGE_LIST, list.cursor, = PROTOCOL_CURSOR_END - 1);
}

#define REGION_REFUSED(type, member)                                                               \
	do {                                                                                       \
		REFUSED(type, member.segment_id, = 0);                                             \
		REFUSED(type, member.size, = 0);                                                   \
		REFUSED(type, member.size, = UINT64_MAX);                                          \
		REFUSED(type, member.size, = INT64_MAX);                                           \
		REFUSED(type, member.offset, = UINT64_MAX - 4095);                                 \
	} while (0)

Test(codec, every_bad_field_of_a_reply_is_refused, .timeout = 60)
{
	REFUSED(MESSAGE_OFFER, offer.listener_id, = 0);
	REFUSED(MESSAGE_OFFER, offer.is_taken_back, = 2);
	REFUSED(MESSAGE_OFFER, offer.reserved, = 1);
	REFUSED(MESSAGE_OFFER, offer.session.handle_id, = 0);
	REFUSED(MESSAGE_OPENED, opened.side, = 2);
	REFUSED(MESSAGE_OPENED, opened.fds, = OPENED_FD_PAIR << 1);
	ACCEPTED(MESSAGE_OPENED, opened.fds, = OPENED_FD_PAIR);
	REFUSED(MESSAGE_SESSIONED, sessioned.n, = 1);
	REFUSED(MESSAGE_SESSIONED, sessioned.n, = PROTOCOL_SESSION_MAX + 1);
	REFUSED(MESSAGE_SESSIONED, sessioned.cursor, = UINT64_C(1) + PROTOCOL_CURSOR_END);
	REFUSED(MESSAGE_SESSIONED, sessioned.reserved, = 1);

	REFUSED(MESSAGE_WELCOME, welcome.version, = 0);
	REFUSED(MESSAGE_WELCOME, welcome.client_slot, = LIVENESS_CLIENTS_MAX);
	REFUSED(MESSAGE_WELCOME, welcome.is_foreign, = 2);
	ACCEPTED(MESSAGE_WELCOME, welcome.client_slot, = LIVENESS_CLIENTS_MAX - 1);
	REGION_REFUSED(MESSAGE_WELCOME, welcome.table);
	REGION_REFUSED(MESSAGE_WELCOME, welcome.desk);

	REFUSED(MESSAGE_RESERVE, reserve.handle_id, = 0);
	REGION_REFUSED(MESSAGE_RESERVE, reserve.segment);

	REFUSED(MESSAGE_OPENED, opened.handle_id, = 0);
	REFUSED(MESSAGE_OPENED, opened.generation, = 0);
	REFUSED(MESSAGE_OPENED, opened.channel_slot, = LIVENESS_CHANNELS_MAX);
	REFUSED(MESSAGE_OPENED, opened.is_writable, = 2);
	REFUSED(MESSAGE_OPENED, opened.dead_letters[0], = '/');
	ACCEPTED(MESSAGE_OPENED, opened.dead_letters[0], = 'd');
	ACCEPTED(MESSAGE_OPENED, opened.fds, = 7);
	REGION_REFUSED(MESSAGE_OPENED, opened.value);
	REGION_REFUSED(MESSAGE_OPENED, opened.lines);
	REGION_REFUSED(MESSAGE_OPENED, opened.table);

	REFUSED(MESSAGE_BELLS, bells.handle_id, = 0);
	REFUSED(MESSAGE_BELLS, bells.n, = PROTOCOL_BELLS_MAX + 1);
	REFUSED(MESSAGE_BELLS, bells.slot[1], = LIVENESS_CLIENTS_MAX);
	ACCEPTED(MESSAGE_BELLS, bells.n, = PROTOCOL_BELLS_MAX);

	REFUSED(MESSAGE_JOINED, joined.group_id, = 0);
	REFUSED(MESSAGE_JOINED, joined.n_fds_queue, = 4);
	REFUSED(MESSAGE_JOINED, joined.has_dead, = 2);
	REFUSED(MESSAGE_JOINED, joined.has_dead, = 1);
	REFUSED(MESSAGE_JOINED, joined.queue.handle_id, = 0);
	REGION_REFUSED(MESSAGE_JOINED, joined.queue.value);

	REFUSED(MESSAGE_STATED, stated.priorities, = 0);
	REFUSED(MESSAGE_STATED, stated.priorities, = PROTOCOL_PRIORITIES_MAX + 1);
	REFUSED(MESSAGE_STATED, stated.is_partial, = 2);
	ACCEPTED(MESSAGE_STATED, stated.priorities, = PROTOCOL_PRIORITIES_MAX);

	REFUSED(MESSAGE_INFO_REPLY, info_reply.channel.name[0], = '\0');
	REFUSED(MESSAGE_INFO_REPLY, info_reply.channel.name[0], = '/');
	REFUSED(MESSAGE_INFO_REPLY, info_reply.channel.kind, = 0);
	REFUSED(MESSAGE_INFO_REPLY, info_reply.channel.kind, = IPC_KIND_LIMITER + 1);
	REFUSED(MESSAGE_INFO_REPLY, info_reply.channel.reserved, = 1);
}

Test(codec, a_list_has_as_many_infos_as_it_says, .timeout = 60)
{
	union message *m;

	REFUSED(MESSAGE_LISTED, listed.n, = 1);
	REFUSED(MESSAGE_LISTED, listed.n, = 3);
	REFUSED(MESSAGE_LISTED, listed.n, = UINT32_MAX);
	REFUSED(MESSAGE_LISTED, listed.channel[1].kind, = 0);
	REFUSED(MESSAGE_LISTED, listed.channel[1].name[1], = ' ');

	m = good(MESSAGE_LISTED);
	m->listed.n = PROTOCOL_LIST_MAX;
	for (unsigned i = 0; i < PROTOCOL_LIST_MAX; ++i)
		m->listed.channel[i] = m->listed.channel[0];
	m->head.size = sizeof(struct message_listed);
	cr_assert_eq(check(m), 0);

	/* One more than the limit, with the size that fits it. */
	m->listed.n = PROTOCOL_LIST_MAX + 1;
	m->head.size = sizeof(struct message_listed) + sizeof(struct message_channel);
	cr_assert_eq(check(m), IPC_EPROTO);

	m->listed.n = 0;
	m->head.size = offsetof(struct message_listed, channel);
	cr_assert_eq(check(m), 0);
}

Test(codec, a_list_has_as_many_handles_as_it_says, .timeout = 60)
{
	union message *m;

	REFUSED(MESSAGE_HANDLED, handled.n, = 1);
	REFUSED(MESSAGE_HANDLED, handled.n, = 3);
	REFUSED(MESSAGE_HANDLED, handled.n, = UINT32_MAX);
	REFUSED(MESSAGE_HANDLED, handled.generation, = 0);
	REFUSED(MESSAGE_HANDLED, handled.cursor, = UINT64_C(1) << 32);
	ACCEPTED(MESSAGE_HANDLED, handled.cursor, = PROTOCOL_CURSOR_END);
	REFUSED(MESSAGE_HANDLED, handled.reserved, = 1);
	REFUSED(MESSAGE_HANDLED, handled.handle[1].handle_id, = 0);
	REFUSED(MESSAGE_HANDLED, handled.handle[1].role, = 0);
	REFUSED(MESSAGE_HANDLED, handled.handle[1].role, = IPC_ROLE_LIMITER + 1);
	REFUSED(MESSAGE_HANDLED, handled.handle[1].weak, = 2);
	REFUSED(MESSAGE_HANDLED, handled.handle[1].holds, = IPC_HOLDS_CLAIMS + 1);
	ACCEPTED(MESSAGE_HANDLED, handled.handle[1].holds, = IPC_HOLDS_CLAIMS);
	ACCEPTED(MESSAGE_HANDLED, handled.handle[1].process_name[0], = '\0');

	m = good(MESSAGE_HANDLED);
	m->handled.n = PROTOCOL_HANDLE_MAX;
	for (unsigned i = 0; i < PROTOCOL_HANDLE_MAX; ++i)
		m->handled.handle[i] = m->handled.handle[0];
	m->head.size = sizeof(struct message_handled);
	cr_assert_eq(check(m), 0);

	/* One more than the limit, with the size that fits it. */
	m->handled.n = PROTOCOL_HANDLE_MAX + 1;
	m->head.size = sizeof(struct message_handled) + sizeof(struct message_handle);
	cr_assert_eq(check(m), IPC_EPROTO);

	m->handled.n = 0;
	m->head.size = offsetof(struct message_handled, handle);
	cr_assert_eq(check(m), 0);
}

Test(codec, names_of_processes_without_their_end_are_refused, .timeout = 60)
{
	char *names[] = {good(MESSAGE_HELLO)->hello.process_name,
			 good(MESSAGE_HANDLED)->handled.handle[1].process_name};
	enum message_type types[] = {MESSAGE_HELLO, MESSAGE_HANDLED};

	for (size_t i = 0; i < N_ELEMENTS(types); ++i) {
		union message *m = good(types[i]);

		memset(names[i], 'x', PROTOCOL_PROCESS_NAME_SIZE);
		cr_assert_eq(check(m), IPC_EPROTO, "type %d", types[i]);

		names[i][PROTOCOL_PROCESS_NAME_SIZE - 1] = '\0';
		cr_assert_eq(check(m), 0, "type %d", types[i]);
	}
}

Test(codec, names_without_their_end_are_refused, .timeout = 60)
{
	char *names[] = {good(MESSAGE_OPEN)->open.name,
			 good(MESSAGE_INFO)->info.name,
			 good(MESSAGE_REMOVE)->remove.name,
			 good(MESSAGE_LIST)->list.pattern,
			 good(MESSAGE_INFO_REPLY)->info_reply.channel.name,
			 good(MESSAGE_LISTED)->listed.channel[1].name,
			 good(MESSAGE_HANDLES)->handles.name,
			 good(MESSAGE_GROUP)->group.pattern,
			 good(MESSAGE_STATE)->state.name,
			 good(MESSAGE_OPENED)->opened.dead_letters,
			 good(MESSAGE_JOINED)->joined.queue.dead_letters};
	enum message_type types[] = {MESSAGE_OPEN,    MESSAGE_INFO,       MESSAGE_REMOVE,
				     MESSAGE_LIST,    MESSAGE_INFO_REPLY, MESSAGE_LISTED,
				     MESSAGE_HANDLES, MESSAGE_GROUP,      MESSAGE_STATE,
				     MESSAGE_OPENED,  MESSAGE_JOINED};

	for (size_t i = 0; i < N_ELEMENTS(types); ++i) {
		union message *m = good(types[i]);

		memset(names[i], 'x', 256);
		cr_assert_eq(check(m), IPC_EPROTO, "type %d", types[i]);

		names[i][255] = '\0';
		cr_assert_eq(check(m), 0, "type %d", types[i]);
	}
}

/* M-2 */
Test(codec, names_are_1_to_255_legal_bytes, .timeout = 60)
{
	char name[258];

	cr_assert_eq(name_check("a"), 0);
	cr_assert_eq(name_check("AZaz09._-/x"), 0);
	cr_assert_eq(name_check("."), 0);
	cr_assert_eq(name_check("a//b/"), 0);
	cr_assert_eq(name_check(""), IPC_EINVAL);
	cr_assert_eq(name_check("/"), IPC_EINVAL);
	cr_assert_eq(name_check("/a"), IPC_EINVAL);
	cr_assert_eq(name_check(NULL), IPC_EINVAL);

	memset(name, 'x', sizeof(name));
	name[255] = '\0';
	cr_assert_eq(name_check(name), 0);
	name[255] = 'x';
	name[256] = '\0';
	cr_assert_eq(name_check(name), IPC_EINVAL);
}

/* M-2 */
Test(codec, each_byte_is_legal_in_a_name_or_not, .timeout = 60)
{
	static const char legal[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/";

	for (int byte = 1; byte < 256; ++byte) {
		char name[] = {'a', (char)byte, '\0'};

		cr_assert_eq(name_check(name), strchr(legal, byte) ? 0 : IPC_EINVAL, "byte %d",
			     byte);
	}
}
