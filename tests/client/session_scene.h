/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CLIENT_SESSION_SCENE_H
#define TESTS_CLIENT_SESSION_SCENE_H

/*
 * What the tests of the kind `session` through the public interface share: short forms of the
 * calls, where messages are numbers; a session whose two ends this process has; and other processes
 * that do with handles of theirs what they are told, one order at a time.
 */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/platform/clock.h"
#include "tests/support/failure.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"

#define NAME      "test/session"
#define OTHER_UID 61001 /* nobody's */
#define MS        UINT64_C(1000000)

/* ---- opening ---- */

static inline int listener_open(ipc_listener **ret, ipc_client *by, const char *name,
				struct ipc_session_options options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	options.size = sizeof(options);
	return ipc_listener_open_wait(ret, by, name, &options, &deadline);
}

static inline ipc_listener *listener_new_with(struct ipc_session_options options)
{
	ipc_listener *listener = NULL;
	int r;

	options.flags |= IPC_CREATE;
	r = listener_open(&listener, fixture_client, NAME, options);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return listener;
}

#define LISTENER_NEW(...) listener_new_with((struct ipc_session_options){__VA_ARGS__})

static inline int connect_by(ipc_session **ret, ipc_client *by, uint64_t flags, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_session_connect_wait(ret, by, NAME, IPC_SESSION_OPTIONS(.flags = flags),
					&deadline);
}

static inline int accept_in(ipc_listener *listener, ipc_session **ret, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_listener_accept_wait(listener, ret, &deadline);
}

static inline int resume_by(ipc_session **ret, ipc_client *by, const struct ipc_session_key *key)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_session_resume_wait(ret, by, key, &deadline);
}

/* A connect in a thread. */
struct connecting {
	ipc_client *by;
	uint64_t flags;
	unsigned ms;
	pthread_t thread;
	ipc_session *session;
	int result;
};

static inline void *connecting_run(void *arg)
{
	struct connecting *connecting = arg;

	connecting->result =
		connect_by(&connecting->session, connecting->by, connecting->flags, connecting->ms);
	return NULL;
}

static inline void connecting_start(struct connecting *connecting)
{
	if (!connecting->by)
		connecting->by = fixture_client;
	if (!connecting->ms)
		connecting->ms = WAIT_MS;
	if (pthread_create(&connecting->thread, NULL, connecting_run, connecting) != 0)
		failure("no thread");
}

static inline int connecting_end(struct connecting *connecting)
{
	pthread_join(connecting->thread, NULL);
	return connecting->result;
}

/* Both ends, here. */
struct pair {
	ipc_listener *listener;
	ipc_session *accepted, *connected;
};

static inline void pair_connect(struct pair *pair)
{
	struct connecting connecting = {0};
	int r;

	connecting_start(&connecting);
	r = accept_in(pair->listener, &pair->accepted, WAIT_MS);
	cr_assert_eq(r, 0, "accept: %s", ipc_error_name(r));
	r = connecting_end(&connecting);
	cr_assert_eq(r, 0, "connect: %s", ipc_error_name(r));
	pair->connected = connecting.session;
}

static inline struct pair pair_new_with(struct ipc_session_options options)
{
	struct pair pair = {.listener = listener_new_with(options)};

	pair_connect(&pair);
	return pair;
}

#define PAIR_NEW(...) pair_new_with((struct ipc_session_options){__VA_ARGS__})

static inline void pair_close(struct pair *pair)
{
	pair->accepted = ipc_session_close(pair->accepted);
	pair->connected = ipc_session_close(pair->connected);
	pair->listener = ipc_listener_close(pair->listener);
}

/* ---- short forms; nothing here asserts ---- */

static inline int put(ipc_session *session, uint32_t number)
{
	return ipc_session_send(session, &number, sizeof(number));
}

static inline int put_in(ipc_session *session, uint32_t number, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);

	return ipc_session_send_wait(session, &number, sizeof(number), &deadline);
}

/* A message that was received before is a negative number: no number here is 0. */
static inline int64_t number_of(const struct ipc_session_message *message)
{
	uint32_t number;

	if (message->size != sizeof(number) || !message->data)
		return INT64_MIN;
	memcpy(&number, message->data, sizeof(number));
	return number;
}

static inline int64_t get(ipc_session *session, struct ipc_session_message *ret)
{
	int r = ipc_session_receive(session, ret);

	return r < 0 ? r : number_of(ret);
}

static inline int64_t get_in(ipc_session *session, struct ipc_session_message *ret, unsigned ms)
{
	struct timespec deadline = domain_deadline(ms);
	int r = ipc_session_receive_wait(session, ret, &deadline);

	return r < 0 ? r : number_of(ret);
}

/* The number, released. */
static inline int64_t eat(ipc_session *session)
{
	struct ipc_session_message message;
	int64_t number = get(session, &message);
	int r;

	if (number < 0)
		return number;
	r = ipc_session_release(session, &message);
	return r < 0 ? r : number;
}

static inline int64_t eat_in(ipc_session *session, unsigned ms)
{
	struct ipc_session_message message;
	int64_t number = get_in(session, &message, ms);
	int r;

	if (number < 0)
		return number;
	r = ipc_session_release(session, &message);
	return r < 0 ? r : number;
}

static inline struct ipc_session_state state_of(ipc_session *session)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	int r = ipc_session_get_state(session, &state);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return state;
}

static inline struct ipc_session_key key_of(ipc_session *session)
{
	struct ipc_session_key key;
	int r = ipc_session_get_key(session, &key);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return key;
}

/* Until there is no more room: how many went in. */
static inline unsigned fill(ipc_session *session)
{
	unsigned n = 0;
	int r;

	while ((r = put(session, n + 1)) == 0)
		++n;
	cr_assert_eq(r, IPC_EAGAIN, "%s", ipc_error_name(r));
	return n;
}

/* A look at one handle: what is ready, or the (negative) result. */
static inline int64_t look(void *handle, uint32_t events)
{
	struct ipc_wait_item item = {.handle = handle, .events = events};
	int r = ipc_wait_any(&item, 1, &past);

	return r < 0 ? r : (int64_t)item.ready;
}

static inline int until_peer(ipc_session *session, bool present)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	return ipc_session_peers_wait(session, present, &deadline);
}

/* ---- parties: processes with handles ---- */

/* An order is {order, a, b}; the answer is the call's result unless it says otherwise. */
enum order {
	ORDER_LISTEN,  /* flags */
	ORDER_ACCEPT,  /* waits: 0, 1 */
	ORDER_LEAVE,   /* closes the listener */
	ORDER_CONNECT, /* flags; waits for ever */
	ORDER_RESUME,  /* by keys[a] */
	ORDER_KEY,     /* goes to keys[a] */
	ORDER_CONFIRM,
	ORDER_SEND,         /* number */
	ORDER_SEND_WAIT,    /* number */
	ORDER_SEND_FD,      /* number, descriptor */
	ORDER_SEND_FD_WAIT, /* as that */
	ORDER_CLAIM,        /* bytes; filled with a number b */
	ORDER_WRITE,        /* number: over what is claimed */
	ORDER_COMMIT,       /* bytes */
	ORDER_COMMIT_REPLY, /* bytes; releases the last one received */
	ORDER_RECEIVE,      /* answers the number */
	ORDER_RECEIVE_WAIT, /* as that */
	ORDER_FLAGS,        /* of the last one received */
	ORDER_FD,           /* of the last one: one byte that is read from it, or -1 */
	ORDER_RELEASE,      /* the last one */
	ORDER_PEERS_WAIT,   /* present */
	ORDER_WAIT_ANY,     /* events: what is ready */
	ORDER_ID,
	ORDER_CLOSE,  /* 0 */
	ORDER_DETACH, /* 0 */
	ORDER_CLOSE_FDS
};

enum { KEYS_HERE = 8 };

/* Shared with the parties: made before they are. */
static struct ipc_session_key *keys;

static inline void scene_setup(void)
{
	fixture_setup();
	keys = mmap(NULL, KEYS_HERE * sizeof(*keys), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(keys, MAP_FAILED);
}

static inline void scene_teardown(void)
{
	munmap(keys, KEYS_HERE * sizeof(*keys));
	fixture_teardown();
}

struct party {
	uid_t uid; /* 0: as it is */
	struct ipc_session_options options;
	ipc_client *client;
	ipc_listener *listener;
	ipc_session *session;
	struct ipc_session_message message;
	void *claim;
};

static inline int64_t party_listen(struct party *self, uint64_t flags)
{
	struct ipc_session_options options = self->options;

	options.flags = flags;
	return listener_open(&self->listener, self->client, NAME, options);
}

static inline int64_t party_connect(struct party *self, uint64_t flags)
{
	return ipc_session_connect_wait(&self->session, self->client, NAME,
					IPC_SESSION_OPTIONS(.flags = flags), NULL);
}

static inline int64_t party_claim(struct party *self, size_t size, uint32_t number)
{
	int r = ipc_session_claim(self->session, size, &self->claim);

	if (r == 0 && size >= sizeof(number))
		memcpy(self->claim, &number, sizeof(number));
	return r;
}

static inline int64_t party_fd(struct party *self)
{
	unsigned char byte;

	if (self->message.fd < 0)
		return -1;
	if (read(self->message.fd, &byte, 1) != 1)
		return -2;
	close(self->message.fd);
	return byte;
}

static inline int64_t party_id(const struct party *self)
{
	uint64_t id;
	int r = self->session ? ipc_session_get_id(self->session, &id)
			      : ipc_listener_get_id(self->listener, &id);

	return r < 0 ? r : (int64_t)id;
}

static inline int64_t party_receive(struct party *self, bool waits)
{
	int r = waits ? ipc_session_receive_wait(self->session, &self->message, NULL)
		      : ipc_session_receive(self->session, &self->message);

	return r < 0 ? r : number_of(&self->message);
}

static inline int64_t party_wait_any(const struct party *self, uint32_t events)
{
	struct ipc_wait_item item = {.handle = self->session ? (void *)self->session
							     : (void *)self->listener,
				     .events = events};
	int r = ipc_wait_any(&item, 1, NULL);

	return r < 0 ? r : (int64_t)item.ready;
}

static inline int64_t party_close_fds(int fd)
{
	closefrom(fd + 1);
	for (int i = 3; i < fd; ++i)
		close(i);
	return 0;
}

static inline int64_t party_do(struct party *self, enum order order, int64_t a, int64_t b, int fd)
{
	uint32_t number = (uint32_t)a;

	switch (order) {
	case ORDER_LISTEN:
		return party_listen(self, (uint64_t)a);
	case ORDER_ACCEPT:
		return ipc_listener_accept_wait(self->listener, &self->session, NULL);
	case ORDER_LEAVE:
		self->listener = ipc_listener_close(self->listener);
		return 0;
	case ORDER_CONNECT:
		return party_connect(self, (uint64_t)a);
	case ORDER_RESUME:
		return ipc_session_resume_wait(&self->session, self->client, &keys[a], NULL);
	case ORDER_KEY:
		return ipc_session_get_key(self->session, &keys[a]);
	case ORDER_CONFIRM:
		return ipc_session_confirm_key(self->session);
	case ORDER_SEND:
		return ipc_session_send(self->session, &number, sizeof(number));
	case ORDER_SEND_WAIT:
		return ipc_session_send_wait(self->session, &number, sizeof(number), NULL);
	case ORDER_SEND_FD:
		return ipc_session_send_fd(self->session, (int)b, &number, sizeof(number));
	case ORDER_SEND_FD_WAIT:
		return ipc_session_send_fd_wait(self->session, (int)b, &number, sizeof(number),
						NULL);
	case ORDER_CLAIM:
		return party_claim(self, (size_t)a, (uint32_t)b);
	case ORDER_WRITE:
		memcpy(self->claim, &number, sizeof(number));
		return 0;
	case ORDER_COMMIT:
		return ipc_session_commit(self->session, self->claim, (size_t)a);
	case ORDER_COMMIT_REPLY:
		return ipc_session_commit_release(self->session, self->claim, (size_t)a,
						  &self->message);
	case ORDER_RECEIVE:
		return party_receive(self, false);
	case ORDER_RECEIVE_WAIT:
		return party_receive(self, true);
	case ORDER_FLAGS:
		return self->message.flags;
	case ORDER_FD:
		return party_fd(self);
	case ORDER_RELEASE:
		return ipc_session_release(self->session, &self->message);
	case ORDER_PEERS_WAIT:
		return ipc_session_peers_wait(self->session, a != 0, NULL);
	case ORDER_WAIT_ANY:
		return party_wait_any(self, (uint32_t)a);
	case ORDER_ID:
		return party_id(self);
	case ORDER_CLOSE:
		self->session = ipc_session_close(self->session);
		return 0;
	case ORDER_DETACH:
		self->session = ipc_session_detach(self->session);
		return 0;
	case ORDER_CLOSE_FDS:
		return party_close_fds(fd);
	}
	return INT64_MIN;
}

static inline void party_become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)
		process_end(2);

	/* The kernel forgets it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static inline void party_run(struct actor *actor, void *arg)
{
	static struct party self;

	self = *(const struct party *)arg;
	if (self.uid)
		party_become(self.uid);
	self.client = domain_connect(&fixture_domain);
	actor_say(actor, 0);
	for (;;) {
		enum order order = (enum order)actor_hear(actor);
		int64_t a = actor_hear(actor), b = actor_hear(actor);

		actor_say(actor, party_do(&self, order, a, b, actor->fd));
	}
}

static inline void party_start_with(struct actor *actor, struct party party)
{
	actor_start(actor, party_run, &party);
	(void)actor_hear(actor);
}

#define PARTY_START(actor, ...) party_start_with(actor, (struct party){__VA_ARGS__})

static inline void order_begin(struct actor *actor, enum order order, int64_t a, int64_t b)
{
	actor_say(actor, order);
	actor_say(actor, a);
	actor_say(actor, b);
}

static inline int64_t order_do(struct actor *actor, enum order order, int64_t a, int64_t b)
{
	order_begin(actor, order, a, b);
	return actor_hear(actor);
}

static inline void order_sleep(struct actor *actor, enum order order, int64_t a, int64_t b)
{
	order_begin(actor, order, a, b);
	actor_until_asleep(actor);
}

#define EXPECT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t expect_r = (int64_t)(call);                                                \
                                                                                                   \
		cr_expect(expect_r == (int64_t)(wanted), "%s is %ld (%s), not " #wanted, #call,    \
			  (long)expect_r, ipc_error_name((int)expect_r));                          \
	} while (0)

#define ASSERT(call, wanted)                                                                       \
	do {                                                                                       \
		int64_t assert_r = (int64_t)(call);                                                \
                                                                                                   \
		cr_assert(assert_r == (int64_t)(wanted), "%s is %ld (%s), not " #wanted, #call,    \
			  (long)assert_r, ipc_error_name((int)assert_r));                          \
	} while (0)

/* A process connects, this one accepts. */
static inline ipc_session *accept_from(ipc_listener *listener, struct actor *actor)
{
	ipc_session *session = NULL;

	order_begin(actor, ORDER_CONNECT, 0, 0);
	ASSERT(accept_in(listener, &session, WAIT_MS), 0);
	ASSERT(actor_hear(actor), 0);
	return session;
}

/* ---- keys ---- */

/* A party that has connected, its key in keys[0]. */
static inline ipc_session *scene_begin(ipc_listener *listener, struct actor *actor)
{
	ipc_session *session;

	PARTY_START(actor, 0);
	session = accept_from(listener, actor);
	ASSERT(order_do(actor, ORDER_KEY, 0, 0), 0);
	return session;
}

static inline ipc_session *resumed_by(const struct ipc_session_key *key)
{
	ipc_session *session = NULL;

	ASSERT(resume_by(&session, fixture_client, key), 0);
	return session;
}

static inline int resume_fails(const struct ipc_session_key *key)
{
	ipc_session *session = NULL;
	int r = resume_by(&session, fixture_client, key);

	ipc_session_detach(session);
	return r;
}

#endif
