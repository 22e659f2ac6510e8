/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_INBOX_SCENE_H
#define TESTS_CLIENT_INBOX_SCENE_H

/*
 * What the tests of the kind `inbox` through the public interface share: short forms of the calls,
 * where frames and chunks are numbers and an event is one number, too; and other processes that do
 * with a handle of theirs what they are told, one order at a time.
 */

#include <criterion/criterion.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/platform/clock.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"

#define NAME      "test/inbox"
#define OTHER_UID 61001 /* nobody's */

/* Generations. */
enum { G1 = 101, G2 = 77, G3 = 500 };

/* ---- opening ---- */

static inline int sender_open(ipc_inbox_sender **ret, ipc_client *by,
			      struct ipc_inbox_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_inbox_sender_open_wait(ret, by, NAME, &options, &deadline);
}

static inline int receiver_open(ipc_inbox_receiver **ret, ipc_client *by,
				struct ipc_inbox_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_inbox_receiver_open_wait(ret, by, NAME, &options, &deadline);
}

static inline int observer_open(ipc_inbox_observer **ret, ipc_client *by)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_inbox_observer_open_wait(ret, by, NAME, &deadline);
}

static inline ipc_inbox_sender *inbox_sender_new(struct ipc_inbox_options options)
{
	ipc_inbox_sender *sender = NULL;
	int r;

	options.flags |= IPC_CREATE;
	r = sender_open(&sender, fixture_client, options);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return sender;
}

static inline ipc_inbox_receiver *inbox_receiver_new(struct ipc_inbox_options options)
{
	ipc_inbox_receiver *receiver = NULL;
	int r;

	options.flags |= IPC_CREATE;
	r = receiver_open(&receiver, fixture_client, options);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return receiver;
}

#define SENDER_NEW(...)   inbox_sender_new((struct ipc_inbox_options){__VA_ARGS__})
#define RECEIVER_NEW(...) inbox_receiver_new((struct ipc_inbox_options){__VA_ARGS__})

/* ---- events as numbers ---- */

#define EVENT(type, reason, number)                                                                \
	((int64_t)(type) << 48 | (int64_t)(reason) << 40 | (int64_t)(number))

#define BEGIN(generation)   EVENT(IPC_INBOX_BEGIN, 0, generation)
#define CHUNK(number)       EVENT(IPC_INBOX_CHUNK, 0, number)
#define END(next)           EVENT(IPC_INBOX_END, 0, next)
#define FRAME(offset)       EVENT(IPC_INBOX_FRAME, 0, offset)
#define ABORT(reason)       EVENT(IPC_INBOX_ABORT, IPC_INBOX_##reason, 0)
#define GAP(reason, offset) EVENT(IPC_INBOX_GAP, IPC_INBOX_##reason, offset)

/* INT64_MIN: an event that no test of these has sent. */
static inline int64_t event_number(const struct ipc_inbox_event *event)
{
	uint32_t number = 0;

	if (event->type == IPC_INBOX_FRAME || event->type == IPC_INBOX_CHUNK) {
		if (event->size != sizeof(number) || !event->data || event->fd != -1)
			return INT64_MIN;
		memcpy(&number, event->data, sizeof(number));
	} else if (event->size != 0 || event->data || event->fd != -1) {
		return INT64_MIN;
	}
	if (event->reserved != 0)
		return INT64_MIN;

	switch (event->type) {
	case IPC_INBOX_BEGIN:
		return BEGIN(event->generation);
	case IPC_INBOX_CHUNK:
		return CHUNK(number);
	case IPC_INBOX_END:
		return END(event->offset);
	case IPC_INBOX_FRAME:
		return number == (uint32_t)event->offset ? FRAME(number) : INT64_MIN;
	case IPC_INBOX_ABORT:
		return EVENT(IPC_INBOX_ABORT, event->reason, 0);
	case IPC_INBOX_GAP:
		return EVENT(IPC_INBOX_GAP, event->reason, event->offset);
	}
	return INT64_MIN;
}

/* ---- short forms; nothing here asserts ---- */

static inline int frame(ipc_inbox_sender *sender, uint32_t offset)
{
	return ipc_inbox_send_frame(sender, offset, &offset, sizeof(offset));
}

static inline int frame_in(ipc_inbox_sender *sender, uint32_t offset, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_inbox_send_frame_wait(sender, offset, &offset, sizeof(offset), &deadline);
}

static inline int chunk(ipc_inbox_sender *sender, uint32_t number)
{
	return ipc_inbox_send_chunk(sender, &number, sizeof(number));
}

/* A snapshot of one chunk. */
static inline int snapshot(ipc_inbox_sender *sender, uint64_t generation, uint64_t next_offset)
{
	int r = ipc_inbox_begin_snapshot(sender, generation);

	if (r == 0)
		r = chunk(sender, (uint32_t)next_offset);
	if (r == 0)
		r = ipc_inbox_end_snapshot(sender, next_offset);
	return r;
}

static inline int64_t get(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret)
{
	int r = ipc_inbox_receive(receiver, ret);

	return r < 0 ? r : event_number(ret);
}

static inline int64_t get_in(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);
	int r = ipc_inbox_receive_wait(receiver, ret, &deadline);

	return r < 0 ? r : event_number(ret);
}

/* Received, not marked. */
static inline int64_t see(ipc_inbox_receiver *receiver)
{
	struct ipc_inbox_event event;

	return get(receiver, &event);
}

/* Marked applied. */
static inline int64_t eat(ipc_inbox_receiver *receiver)
{
	struct ipc_inbox_event event;
	int64_t number = get(receiver, &event);
	int r;

	if (number < 0)
		return number;
	r = ipc_inbox_mark_applied(receiver, &event);
	return r < 0 ? r : number;
}

static inline int64_t eat_in(ipc_inbox_receiver *receiver, unsigned ms)
{
	struct ipc_inbox_event event;
	int64_t number = get_in(receiver, &event, ms);
	int r;

	if (number < 0)
		return number;
	r = ipc_inbox_mark_applied(receiver, &event);
	return r < 0 ? r : number;
}

static inline struct ipc_inbox_positions positions_of(ipc_inbox_sender *sender)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	int r = ipc_inbox_get_positions(sender, &positions);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return positions;
}

static inline struct ipc_inbox_positions positions_at(ipc_inbox_receiver *receiver)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	int r = ipc_inbox_receiver_get_positions(receiver, &positions);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return positions;
}

/* A look at one handle: what is ready, or the (negative) result. */
static inline int64_t look(void *handle, uint32_t events)
{
	struct ipc_wait_item item = {.handle = handle, .events = events};
	int r = ipc_wait_any(&item, 1, &past);

	return r < 0 ? r : (int64_t)item.ready;
}

/* Another descriptor of a file of `size` bytes, each the low byte of its place. */
static inline int file_new(size_t size)
{
	int fd = memfd_create("chunk", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	for (size_t i = 0; i < size; ++i)
		cr_assert_eq(write(fd, &(unsigned char){(unsigned char)i}, 1), 1);
	return fd;
}

/* ---- members: processes with a handle of the inbox ---- */

/* An order is {order, a, b}; the answer is the call's result unless it says otherwise. */
enum order {
	ORDER_BEGIN,      /* generation */
	ORDER_BEGIN_WAIT, /* generation */
	ORDER_CHUNK,      /* number */
	ORDER_CHUNK_WAIT, /* number */
	ORDER_CHUNK_EMPTY,
	ORDER_CHUNK_FD, /* bytes of it */
	ORDER_CHUNK_FD_WAIT,
	ORDER_END, /* next offset */
	ORDER_END_WAIT,
	ORDER_FRAME, /* offset */
	ORDER_FRAME_WAIT,
	ORDER_FRAME_LOOK,  /* that, until now */
	ORDER_FRAMES_WAIT, /* from this offset to before that one */
	ORDER_CLAIM,       /* offset: filled in */
	ORDER_CLAIM_WAIT,
	ORDER_COMMIT,       /* offset */
	ORDER_WANTED_WAIT,  /* served; answers the new one */
	ORDER_APPLIED_WAIT, /* offset; observer: generation, offset */
	ORDER_RECEIVE,      /* answers the event's number */
	ORDER_RECEIVE_WAIT,
	ORDER_MARK, /* the last one received */
	ORDER_REQUEST,
	ORDER_WAIT_ANY, /* events: what is ready */
	ORDER_ID,
	ORDER_CLOSE,    /* 0 */
	ORDER_CLOSE_FDS /* as a daemon does that was told nothing; 0 */
};

struct member {
	enum ipc_role role;
	uid_t uid; /* 0: as it is */
	struct ipc_inbox_options options;
	ipc_inbox_sender *sender;
	ipc_inbox_receiver *receiver;
	ipc_inbox_observer *observer;
	struct ipc_inbox_event event;
	void *claim;
};

static inline int64_t member_claim(struct member *self, uint32_t offset, bool waits)
{
	int r = waits ? ipc_inbox_claim_frame_wait(self->sender, sizeof(offset), &self->claim, NULL)
		      : ipc_inbox_claim_frame(self->sender, sizeof(offset), &self->claim);

	if (r == 0)
		memcpy(self->claim, &offset, sizeof(offset));
	return r;
}

static inline int64_t member_frames(const struct member *self, uint32_t from, uint32_t to)
{
	int r = 0;

	for (uint32_t i = from; i < to && r == 0; ++i)
		r = ipc_inbox_send_frame_wait(self->sender, i, &i, sizeof(i), NULL);
	return r;
}

static inline int64_t member_chunk_fd(const struct member *self, size_t size, bool waits)
{
	int fd = memfd_create("chunk", MFD_CLOEXEC), r;

	r = waits ? ipc_inbox_send_chunk_fd_wait(self->sender, fd, 0, size, NULL)
		  : ipc_inbox_send_chunk_fd(self->sender, fd, 0, size);
	close(fd);
	return r;
}

static inline int64_t member_wanted(const struct member *self, uint64_t served)
{
	int r = ipc_inbox_wanted_wait(self->sender, &served, NULL);

	return r < 0 ? r : (int64_t)served;
}

static inline int64_t member_applied(const struct member *self, uint64_t a, uint64_t b)
{
	return self->observer ? ipc_inbox_observer_applied_wait(self->observer, a, b, NULL)
			      : ipc_inbox_applied_wait(self->sender, a, NULL);
}

static inline int64_t member_receive(struct member *self, bool waits)
{
	int r = waits ? ipc_inbox_receive_wait(self->receiver, &self->event, NULL)
		      : ipc_inbox_receive(self->receiver, &self->event);

	return r < 0 ? r : event_number(&self->event);
}

static inline int64_t member_id(const struct member *self)
{
	uint64_t id;
	int r = self->sender ? ipc_inbox_sender_get_id(self->sender, &id)
			     : ipc_inbox_receiver_get_id(self->receiver, &id);

	return r < 0 ? r : (int64_t)id;
}

static inline int64_t member_wait_any(const struct member *self, uint32_t events)
{
	struct ipc_wait_item item = {.handle = self->sender ? (void *)self->sender
							    : (void *)self->receiver,
				     .events = events};
	int r = ipc_wait_any(&item, 1, NULL);

	return r < 0 ? r : (int64_t)item.ready;
}

static inline int64_t member_close_fds(int fd)
{
	closefrom(fd + 1);
	for (int i = 3; i < fd; ++i)
		close(i);
	return 0;
}

static inline int64_t member_close(struct member *self)
{
	self->sender = ipc_inbox_sender_close(self->sender);
	self->receiver = ipc_inbox_receiver_close(self->receiver);
	self->observer = ipc_inbox_observer_close(self->observer);
	return 0;
}

static inline int64_t member_do(struct member *self, enum order order, int64_t a, int64_t b, int fd)
{
	uint32_t number = (uint32_t)a;
	uint64_t word = (uint64_t)a;

	switch (order) {
	case ORDER_BEGIN:
		return ipc_inbox_begin_snapshot(self->sender, word);
	case ORDER_BEGIN_WAIT:
		return ipc_inbox_begin_snapshot_wait(self->sender, word, NULL);
	case ORDER_CHUNK:
		return chunk(self->sender, number);
	case ORDER_CHUNK_WAIT:
		return ipc_inbox_send_chunk_wait(self->sender, &number, sizeof(number), NULL);
	case ORDER_CHUNK_EMPTY:
		return ipc_inbox_send_chunk(self->sender, NULL, 0);
	case ORDER_CHUNK_FD:
		return member_chunk_fd(self, word, false);
	case ORDER_CHUNK_FD_WAIT:
		return member_chunk_fd(self, word, true);
	case ORDER_END:
		return ipc_inbox_end_snapshot(self->sender, word);
	case ORDER_END_WAIT:
		return ipc_inbox_end_snapshot_wait(self->sender, word, NULL);
	case ORDER_FRAME:
		return frame(self->sender, number);
	case ORDER_FRAME_WAIT:
		return ipc_inbox_send_frame_wait(self->sender, number, &number, sizeof(number),
						 NULL);
	case ORDER_FRAME_LOOK:
		return ipc_inbox_send_frame_wait(self->sender, number, &number, sizeof(number),
						 &past);
	case ORDER_FRAMES_WAIT:
		return member_frames(self, number, (uint32_t)b);
	case ORDER_CLAIM:
		return member_claim(self, number, false);
	case ORDER_CLAIM_WAIT:
		return member_claim(self, number, true);
	case ORDER_COMMIT:
		return ipc_inbox_commit_frame(self->sender, word, self->claim, sizeof(number));
	case ORDER_WANTED_WAIT:
		return member_wanted(self, word);
	case ORDER_APPLIED_WAIT:
		return member_applied(self, word, (uint64_t)b);
	case ORDER_RECEIVE:
		return member_receive(self, false);
	case ORDER_RECEIVE_WAIT:
		return member_receive(self, true);
	case ORDER_MARK:
		return ipc_inbox_mark_applied(self->receiver, &self->event);
	case ORDER_REQUEST:
		return ipc_inbox_request_snapshot(self->receiver);
	case ORDER_WAIT_ANY:
		return member_wait_any(self, number);
	case ORDER_ID:
		return member_id(self);
	case ORDER_CLOSE:
		return member_close(self);
	case ORDER_CLOSE_FDS:
		return member_close_fds(fd);
	}
	return INT64_MIN;
}

static inline void member_become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)
		process_end(2);

	/* The kernel forgets it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static inline int64_t member_open(struct member *self)
{
	ipc_client *own = domain_connect(&fixture_domain);

	if (self->role == IPC_ROLE_INBOX_SENDER)
		return sender_open(&self->sender, own, self->options);
	if (self->role == IPC_ROLE_INBOX_RECEIVER)
		return receiver_open(&self->receiver, own, self->options);
	return observer_open(&self->observer, own);
}

static inline void member_run(struct actor *actor, void *arg)
{
	static struct member self;

	self = *(const struct member *)arg;
	if (self.uid)
		member_become(self.uid);
	actor_say(actor, member_open(&self));
	for (;;) {
		enum order order = (enum order)actor_hear(actor);
		int64_t a = actor_hear(actor), b = actor_hear(actor);

		actor_say(actor, member_do(&self, order, a, b, actor->fd));
	}
}

/* What its open says. */
static inline int64_t member_try(struct actor *actor, struct member member)
{
	actor_start(actor, member_run, &member);
	return actor_hear(actor);
}

static inline void member_start(struct actor *actor, struct member member)
{
	int64_t r = member_try(actor, member);

	cr_assert_eq(r, 0, "%s", ipc_error_name((int)r));
}

/* With options of struct ipc_inbox_options. */
#define SENDER_START(actor, ...)                                                                   \
	member_start(actor,                                                                        \
		     (struct member){.role = IPC_ROLE_INBOX_SENDER, .options = {__VA_ARGS__}})
#define RECEIVER_START(actor, ...)                                                                 \
	member_start(actor,                                                                        \
		     (struct member){.role = IPC_ROLE_INBOX_RECEIVER, .options = {__VA_ARGS__}})
#define OBSERVER_START(actor) member_start(actor, (struct member){.role = IPC_ROLE_INBOX_OBSERVER})

static inline void order_begin(struct actor *actor, enum order order, int64_t a, int64_t b)
{
	actor_say(actor, order);
	actor_say(actor, a);
	actor_say(actor, b);
}

static inline int64_t order_do(struct actor *actor, enum order order, int64_t a)
{
	order_begin(actor, order, a, 0);
	return actor_hear(actor);
}

static inline void order_sleep(struct actor *actor, enum order order, int64_t a)
{
	order_begin(actor, order, a, 0);
	actor_until_asleep(actor);
}

/* The end of a member by its death, or by its close; told when it returns. */
static inline void member_end(struct actor *actor, bool dies)
{
	uint64_t id = (uint64_t)order_do(actor, ORDER_ID, 0);

	if (dies)
		actor_kill(actor);
	else
		cr_assert_eq(order_do(actor, ORDER_CLOSE, 0), 0);
	until_not_alive(id);
	if (!dies)
		actor_kill(actor);
}

/* The channel ends with its last handle; whose end nobody waited for was told by then. */
static inline void until_no_inbox(void)
{
	while (exists(NAME))
		process_pause();
}

static inline int end_by(bool dies)
{
	return dies ? IPC_EOWNERDEAD : IPC_EPIPE;
}

static inline enum ipc_inbox_reason reason_by(bool dies)
{
	return dies ? IPC_INBOX_SENDER_DIED : IPC_INBOX_SENDER_CLOSED;
}

#define EXPECT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t expect_r = (int64_t)(call);                                                \
                                                                                                   \
		cr_expect(expect_r == (int64_t)(wanted), "%s is %lx (%s), not " #wanted, #call,    \
			  (long)expect_r, ipc_error_name((int)expect_r));                          \
	} while (0)

#define ASSERT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t assert_r = (int64_t)(call);                                                \
                                                                                                   \
		cr_assert(assert_r == (int64_t)(wanted), "%s is %lx (%s), not " #wanted, #call,    \
			  (long)assert_r, ipc_error_name((int)assert_r));                          \
	} while (0)

#endif
