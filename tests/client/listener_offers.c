/* SPDX-License-Identifier: MIT */
/*
 * Listeners before a stand-in for the broker: offers that come early, twice, too late, for nobody,
 * or when there is no room to answer.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "libipc/channel/session.h"
#include "libipc/client/client.h"
#include "libipc/wire/codec.h"
#include "tests/support/failure.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/standin.h"

enum { WAIT_MS = 30000, OFFERED_SEGMENT_ID = 500 };

static struct standin standin;
static struct leaks leaks;
static ipc_client *client;

static void begin(void (*run)(struct script *script))
{
	leaks_begin(&leaks);
	standin_start(&standin, run);
	cr_assert_eq(ipc_client_connect_wait(&client,
					     IPC_CLIENT_OPTIONS(.address = standin.address), NULL),
		     0);
}

static void end(void)
{
	client = ipc_client_unref(client);
	standin_stop(&standin);
	leaks_check(&leaks);
}

TestSuite(listener_offers, .timeout = 60);

static ipc_listener *listener_new(void)
{
	struct timespec deadline = process_deadline(WAIT_MS);
	ipc_listener *listener = NULL;
	int r = ipc_listener_open_wait(&listener, client, "name",
				       IPC_SESSION_OPTIONS(.flags = IPC_CREATE), &deadline);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return listener;
}

static int accept_now(ipc_listener *listener, ipc_session **ret)
{
	return ipc_listener_accept(listener, ret);
}

static int accept_soon(ipc_listener *listener, ipc_session **ret)
{
	struct timespec deadline = process_deadline(WAIT_MS);

	return ipc_listener_accept_wait(listener, ret, &deadline);
}

/* ---- what a script does ---- */

static const uint64_t shape[4] = {4096, 1024, UINT64_MAX};

/* A session that somebody wants accepted. */
struct offered {
	int fd, pair[2];
	struct channel_header *header;
	uint64_t size, handle_id;
};

static void offered_make(struct offered *offered, struct caller *caller)
{
	offered->size = (session_segment_size(shape) + 4095) / 4096 * 4096;
	offered->fd = memfd_create("offered", MFD_CLOEXEC);
	if (offered->fd < 0 || ftruncate(offered->fd, (off_t)offered->size) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, offered->pair) < 0)
		failure("offered: %s", strerror(errno));
	offered->header =
		mmap(NULL, offered->size, PROT_READ | PROT_WRITE, MAP_SHARED, offered->fd, 0);
	if (offered->header == MAP_FAILED ||
	    session_make(offered->header, offered->size, shape, 0) < 0)
		failure("session_make");
	offered->handle_id = caller_handle(caller);
}

static void say_offer_of(struct caller *caller, uint64_t listener_id, const struct offered *offered,
			 bool is_taken_back, unsigned n_fds)
{
	const int fds[] = {offered->fd, offered->pair[0]};
	struct message_opened *opened;
	union message message;

	message_init(&message, MESSAGE_OFFER, 0);
	message.offer.listener_id = listener_id;
	message.offer.is_taken_back = is_taken_back;
	opened = &message.offer.session;
	opened->handle_id = offered->handle_id;
	opened->generation = 9;
	opened->channel_slot = STANDIN_CHANNEL + 1;
	opened->owner_uid = geteuid();
	memcpy(opened->shape, shape, sizeof(opened->shape));
	opened->fds = OPENED_FD_VALUE | OPENED_FD_PAIR;
	opened->is_writable = 1;
	opened->value = (struct message_region){OFFERED_SEGMENT_ID, 0, offered->size};
	opened->lines =
		(struct message_region){101, offsetof(struct desk, line[STANDIN_CHANNEL + 1]),
					2 * sizeof(struct eventcount)};
	opened->table = (struct message_region){100, 0, sizeof(struct liveness_table)};
	caller_say(caller, &message, fds, n_fds);
	liveness_join(caller->table, caller->slot);
	liveness_attend(caller->table, caller->slot);
}

static void say_offer(struct caller *caller, uint64_t listener_id, const struct offered *offered)
{
	say_offer_of(caller, listener_id, offered, false, 2);
}

/* The client's OPEN, until it only has to be answered. */
static uint64_t take_open(struct caller *caller, union message *open, int *segment_fd)
{
	union message confirm;
	uint64_t id;

	caller_take(caller, open, MESSAGE_OPEN);
	id = caller_handle(caller);
	*segment_fd = -1;
	caller_reserve(caller, &open->open, id, segment_fd);
	caller_take(caller, &confirm, MESSAGE_CONFIRM);
	return id;
}

static uint64_t listen_to(struct caller *caller)
{
	union message open;
	int segment_fd;
	uint64_t id = take_open(caller, &open, &segment_fd);

	caller_opened(caller, &open.open, id, segment_fd, true);
	return id;
}

/* Says to the test whether the next message is this one, about this handle. */
static void expect_taken(struct script *script, struct caller *caller, uint64_t handle_id)
{
	union message message;

	caller_take(caller, &message, MESSAGE_TAKEN);
	actor_say(script->test,
		  message.taken.handle_id == handle_id && message.taken.is_accepted == 1);
}

static void expect_closed(struct script *script, struct caller *caller, uint64_t handle_id)
{
	const struct desk_cell *cell = &caller->desk->cell[LIVENESS_SLOT(handle_id)];
	union message message;

	caller_take(caller, &message, MESSAGE_CLOSE);
	actor_say(script->test, message.close.handle_id == handle_id &&
					atomic_load(&cell->closed_id) == handle_id);
}

static void said(const char *what)
{
	cr_assert_eq(actor_hear(&standin.actor), 1, "%s", what);
}

/* The test has done its next step. */
static void test_step(void)
{
	actor_say(&standin.actor, 0);
}

static void until_step(struct script *script)
{
	(void)actor_hear(script->test);
}

/* ---- one that is accepted ---- */

static void run_offer(struct script *script)
{
	struct caller caller;
	struct offered offered;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&offered, &caller);
	say_offer(&caller, id, &offered);
	expect_taken(script, &caller, offered.handle_id);
	actor_say(script->test, session_is_taken(offered.header) == SESSION_ACCEPTED);
	expect_closed(script, &caller, offered.handle_id);
	expect_closed(script, &caller, id);
}

/* C-9, C-15 */
Test(listener_offers, one_is_accepted_by_its_word_and_by_a_message)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_offer);
	listener = listener_new();
	cr_assert_eq(accept_soon(listener, &session), 0);
	said("TAKEN");
	said("the word");
	cr_expect_eq(accept_now(listener, &session), IPC_EAGAIN);
	ipc_session_close(session);
	said("CLOSE of the session");
	ipc_listener_close(listener);
	said("CLOSE of the listener");
	end();
}

/* Whoever reads the socket hears of the offer before the open has returned. */
static void run_early(struct script *script)
{
	union message open;
	struct caller caller;
	struct offered offered;
	int segment_fd;
	uint64_t id;

	caller_begin(&caller, script);
	id = take_open(&caller, &open, &segment_fd);
	offered_make(&offered, &caller);
	say_offer(&caller, id, &offered);
	caller_opened(&caller, &open.open, id, segment_fd, true);
	expect_taken(script, &caller, offered.handle_id);
	until_step(script);
}

/* C-9 */
Test(listener_offers, one_that_comes_before_its_listener_is_kept)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_early);
	listener = listener_new();
	cr_assert_eq(accept_now(listener, &session), 0);
	said("TAKEN");
	ipc_session_close(session);
	ipc_listener_close(listener);
	end();
}

static void run_early_of_nobody(struct script *script)
{
	union message open;
	struct caller caller;
	struct offered offered;
	int segment_fd;
	uint64_t id;

	caller_begin(&caller, script);
	id = take_open(&caller, &open, &segment_fd);
	offered_make(&offered, &caller);
	say_offer(&caller, id, &offered);
	say_offer(&caller, id, &offered);
	caller_done(&caller, open.head.request_id, IPC_EDQUOT);
	expect_closed(script, &caller, offered.handle_id);
	actor_say(script->test, session_is_taken(offered.header) == SESSION_OFFERED);
	until_step(script);
}

/* C-15: it is offered to others. */
Test(listener_offers, one_of_a_listener_that_was_never_opened_is_refused)
{
	ipc_listener *listener = NULL;

	begin(run_early_of_nobody);
	cr_expect_eq(ipc_listener_open_wait(&listener, client, "name",
					    IPC_SESSION_OPTIONS(.flags = IPC_CREATE), NULL),
		     IPC_EDQUOT);
	said("CLOSE, once");
	said("not touched");
	end();
}

static void run_twice(struct script *script)
{
	struct caller caller;
	struct offered offered;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&offered, &caller);
	say_offer(&caller, id, &offered);
	say_offer(&caller, id, &offered);
	expect_taken(script, &caller, offered.handle_id);
	say_offer(&caller, id, &offered);
	actor_say(script->test, 1);
	expect_closed(script, &caller, offered.handle_id);
	expect_closed(script, &caller, id);
}

/* M-6: a worker that died had said it already. */
Test(listener_offers, one_that_is_said_again_is_accepted_once)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_twice);
	listener = listener_new();
	cr_assert_eq(accept_soon(listener, &session), 0);
	said("TAKEN, once");
	said("the third");
	cr_expect_eq(accept_now(listener, &session), IPC_EAGAIN);
	ipc_session_close(session);
	said("CLOSE of the session");
	ipc_listener_close(listener);
	said("CLOSE of the listener, and nothing else");
	end();
}

/* ---- those that are not ---- */

static void run_closing(struct script *script)
{
	struct caller caller;
	struct offered offered, late;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&offered, &caller);
	offered_make(&late, &caller);
	say_offer(&caller, id, &offered);
	actor_say(script->test, 1);
	expect_closed(script, &caller, offered.handle_id);
	expect_closed(script, &caller, id);
	say_offer(&caller, id, &late);
	actor_say(script->test, 1);
	expect_closed(script, &caller, late.handle_id);
	until_step(script);
}

/* C-15: what lies with a listener that closes is refused before the close, and what comes after. */
Test(listener_offers, a_listener_that_closes_refuses_what_was_offered_to_it)
{
	ipc_listener *listener;
	struct ipc_wait_item item;

	begin(run_closing);
	listener = listener_new();
	said("an offer");
	item = (struct ipc_wait_item){.handle = listener, .events = IPC_READY_READABLE};
	cr_assert_eq(ipc_wait_any(&item, 1, NULL), 0);
	ipc_listener_close(listener);
	said("CLOSE of the session");
	said("CLOSE of the listener");
	said("a late offer");

	/* Somebody who reads. */
	connection_take(&client->connection);
	said("CLOSE of the late one");
	end();
}

static void run_abandoned(struct script *script)
{
	struct caller caller;
	struct offered given_up, ended, wanted;
	union message message;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);

	offered_make(&given_up, &caller);
	if (!session_take(given_up.header, SESSION_ABANDONED))
		failure("abandon");
	say_offer(&caller, id, &given_up);
	expect_closed(script, &caller, given_up.handle_id);

	offered_make(&ended, &caller);
	liveness_handle_set(caller.table, LIVENESS_SLOT(ended.handle_id), 0);
	say_offer(&caller, id, &ended);
	caller_take(&caller, &message, MESSAGE_CLOSE);
	actor_say(script->test, message.close.handle_id == ended.handle_id);
	actor_say(script->test, session_is_taken(ended.header) == SESSION_OFFERED);

	offered_make(&wanted, &caller);
	say_offer(&caller, id, &wanted);
	expect_taken(script, &caller, wanted.handle_id);
	until_step(script);
}

/* C-15: also by one who sleeps. */
Test(listener_offers, one_that_was_given_up_is_never_accepted)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_abandoned);
	listener = listener_new();
	cr_assert_eq(accept_soon(listener, &session), 0);
	said("CLOSE of the one that was given up");
	said("CLOSE of the one that ended");
	said("not touched");
	said("TAKEN");
	ipc_session_close(session);
	ipc_listener_close(listener);
	end();
}

static void run_newer(struct script *script)
{
	struct caller caller;
	struct offered first, second;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&first, &caller);
	offered_make(&second, &caller);
	say_offer(&caller, id, &first);
	say_offer(&caller, id, &second);
	actor_say(script->test, 1);
	expect_closed(script, &caller, first.handle_id);
	expect_taken(script, &caller, second.handle_id);
	until_step(script);
}

/* The broker has one out at a time: nothing heaps up here. */
Test(listener_offers, a_newer_one_takes_the_place_of_one_that_is_void)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_newer);
	listener = listener_new();
	said("both");
	cr_assert_eq(accept_now(listener, &session), 0);
	said("CLOSE of the first");
	said("TAKEN of the second");
	ipc_session_close(session);
	ipc_listener_close(listener);
	end();
}

static void run_spoilt(struct script *script)
{
	struct caller caller;
	struct offered headless, bodiless;
	struct session_shared *shared;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);

	offered_make(&headless, &caller);
	headless.header->magic ^= 1;
	say_offer(&caller, id, &headless);
	expect_closed(script, &caller, headless.handle_id);
	actor_say(script->test, session_is_taken(headless.header) == SESSION_ABANDONED);

	/* Positions that cannot be. */
	offered_make(&bodiless, &caller);
	shared = (struct session_shared *)((char *)bodiless.header + SESSION_SHARED_OFFSET);
	for (unsigned i = 0; i < 2; ++i)
		atomic_store(&shared->ring[i].head, ring_word(0, 0, UINT64_C(1) << 30));
	say_offer(&caller, id, &bodiless);
	expect_closed(script, &caller, bodiless.handle_id);
	actor_say(script->test, session_is_taken(bodiless.header) == SESSION_ABANDONED);

	/* And says that it is accepted. */
	atomic_store(&shared->is_taken, SESSION_ACCEPTED);
	bodiless.handle_id = caller_handle(&caller);
	say_offer(&caller, id, &bodiless);
	expect_closed(script, &caller, bodiless.handle_id);
	until_step(script);
}

/* M-60: who connects may write there what he likes; it is his session alone that suffers, and it is
 * not offered again and again. */
Test(listener_offers, one_that_is_spoilt_is_given_up_for_who_wanted_it)
{
	struct timespec deadline;
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_spoilt);
	listener = listener_new();
	deadline = process_deadline(300);
	cr_expect_eq(ipc_listener_accept_wait(listener, &session, &deadline), IPC_ETIMEDOUT);
	said("CLOSE of the first");
	said("given up");
	said("CLOSE of the second");
	said("given up");
	said("CLOSE of the third");
	ipc_listener_close(listener);
	end();
}

static void run_no_fds(struct script *script)
{
	struct caller caller;
	struct offered offered;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&offered, &caller);
	say_offer_of(&caller, id, &offered, false, 0);
	expect_closed(script, &caller, offered.handle_id);
	actor_say(script->test, session_is_taken(offered.header) == SESSION_OFFERED);
	until_step(script);
}

/* C-15: it goes to who has descriptors. */
Test(listener_offers, one_whose_descriptors_were_lost_is_offered_again)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_no_fds);
	listener = listener_new();
	cr_expect_eq(accept_soon(listener, &session), IPC_EMFILE);
	said("CLOSE");
	said("not touched");
	ipc_listener_close(listener);
	end();
}

/* ---- a broker that does not read ---- */

static void run_full(struct script *script, bool is_taken_back)
{
	struct caller caller;
	struct offered offered;
	const struct desk_client *own;
	uint32_t closings;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	own = &caller.desk->client[caller.slot];
	offered_make(&offered, &caller);
	until_step(script);
	closings = atomic_load(&own->closings);
	say_offer_of(&caller, id, &offered, is_taken_back, 2);
	actor_say(script->test, 1);
	until_step(script);

	actor_say(script->test, atomic_load(&own->closings) != closings);
	actor_say(script->test, session_is_taken(offered.header));
	actor_say(script->test,
		  atomic_load(&caller.desk->cell[LIVENESS_SLOT(offered.handle_id)].closed_id) ==
			  offered.handle_id);
	until_step(script);
}

static void run_full_new(struct script *script)
{
	run_full(script, false);
}

static void run_full_back(struct script *script)
{
	run_full(script, true);
}

/* Requests that nobody takes out of the socket, until there is no room. */
static void fill_socket(void)
{
	union message message;
	int r;

	message_init(&message, MESSAGE_INFO, UINT64_MAX);
	memcpy(message.info.name, "x", 2);
	while ((r = connection_try_send(&client->connection, &message)) == 0)
		;
	cr_assert_eq(r, IPC_EAGAIN);
}

/* C-15: the broker looks at the word. */
Test(listener_offers, one_is_accepted_by_its_word_where_there_is_no_room_for_a_message)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_full_new);
	listener = listener_new();
	fill_socket();
	test_step();
	said("an offer");
	cr_assert_eq(accept_now(listener, &session), 0);
	test_step();
	said("the broker is told to look");
	said("the word");
	cr_expect_eq(actor_hear(&standin.actor), 0, "it is not closed");
	ipc_session_close(session);
	ipc_listener_close(listener);
	end();
}

/* C-9: no word says that it was taken back, so it is not. */
Test(listener_offers, one_is_not_taken_back_where_there_is_no_room_for_a_message)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_full_back);
	listener = listener_new();
	fill_socket();
	test_step();
	said("an offer");
	cr_expect_eq(accept_now(listener, &session), IPC_EAGAIN);
	test_step();
	said("the broker is told to look");
	cr_expect_eq(actor_hear(&standin.actor), SESSION_OFFERED, "not touched");
	said("closed");
	ipc_listener_close(listener);
	end();
}

static void run_again(struct script *script)
{
	struct caller caller;
	struct offered offered;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&offered, &caller);
	if (!session_take(offered.header, SESSION_ACCEPTED))
		failure("accept");
	say_offer(&caller, id, &offered);
	expect_taken(script, &caller, offered.handle_id);
	until_step(script);
}

/* M-6, C-15: decided in vain by one whose offer had been taken back by then. */
Test(listener_offers, one_that_is_offered_anew_is_accepted_whatever_its_word)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_again);
	listener = listener_new();
	cr_assert_eq(accept_soon(listener, &session), 0);
	said("TAKEN");
	ipc_session_close(session);
	ipc_listener_close(listener);
	end();
}

static void run_back(struct script *script)
{
	struct caller caller;
	struct offered offered;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&offered, &caller);
	if (!session_take(offered.header, SESSION_ACCEPTED))
		failure("accept");
	say_offer_of(&caller, id, &offered, true, 2);
	expect_taken(script, &caller, offered.handle_id);
	until_step(script);
}

/* C-9 */
Test(listener_offers, one_that_was_accepted_before_is_taken_back)
{
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_back);
	listener = listener_new();
	cr_assert_eq(accept_soon(listener, &session), 1);
	said("TAKEN");
	ipc_session_close(session);
	ipc_listener_close(listener);
	end();
}

/* Time that is left stands there before the word of the other end says that it is gone, and until
 * after it says that it is back, or will not come. */
static void run_away(struct script *script)
{
	const uint64_t words[] = {
		side_make(0, 1, SIDE_EVER),
		side_make(1, 0, SIDE_EVER | SIDE_DIED),
		side_make(1, 1, SIDE_EVER | SIDE_DIED),
		side_make(2, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL),
	};
	const unsigned slot = STANDIN_CHANNEL + 1, side = SESSION_SIDE_CONNECTED;
	struct caller caller;
	struct offered offered;
	uint64_t id;

	caller_begin(&caller, script);
	id = listen_to(&caller);
	offered_make(&offered, &caller);
	say_offer(&caller, id, &offered);
	expect_taken(script, &caller, offered.handle_id);
	atomic_store(&caller.table->until_ns[slot][side], UINT64_MAX);
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); ++i) {
		liveness_side_set(caller.table, slot, side, words[i]);
		actor_say(script->test, 1);
		until_step(script);
	}
}

/* C-16 */
Test(listener_offers, time_is_left_to_one_that_is_away_alone)
{
	static const uint64_t wanted[] = {0, UINT64_MAX, 0, 0};
	struct ipc_session_state state = {.size = sizeof(state)};
	ipc_listener *listener;
	ipc_session *session = NULL;

	begin(run_away);
	listener = listener_new();
	cr_assert_eq(accept_soon(listener, &session), 0);
	said("TAKEN");
	for (unsigned i = 0; i < 4; ++i) {
		said("the word");
		cr_assert_eq(ipc_session_get_state(session, &state), 0);
		cr_expect_eq(state.away_ns, wanted[i], "%u: %lu", i, state.away_ns);
		test_step();
	}
	ipc_session_close(session);
	ipc_listener_close(listener);
	end();
}

/* ---- who connects, and gives up in the middle of his open ---- */

enum { DEADLINE_MS = 60 };

/* Until the segment was made and confirmed. */
static void take_connect(struct caller *caller, union message *open, struct offered *made)
{
	union message message;

	caller_take(caller, open, MESSAGE_OPEN);
	offered_make(made, caller);
	memset(made->header, 0, made->size);
	message_init(&message, MESSAGE_RESERVE, open->head.request_id);
	message.reserve.handle_id = made->handle_id;
	message.reserve.segment = (struct message_region){OFFERED_SEGMENT_ID, 0, made->size};
	memcpy(message.reserve.shape, shape, sizeof(message.reserve.shape));
	caller_say(caller, &message, &made->fd, 1);
	caller_take(caller, &message, MESSAGE_CONFIRM);
	if (message.confirm.status != 0)
		failure("confirmed with %d", message.confirm.status);
}

static void say_connected(struct caller *caller, const union message *open,
			  const struct offered *made)
{
	union message message;

	message_init(&message, MESSAGE_OPENED, open->head.request_id);
	message.opened.handle_id = made->handle_id;
	message.opened.generation = 9;
	message.opened.channel_slot = STANDIN_CHANNEL;
	message.opened.owner_uid = geteuid();
	message.opened.side = SESSION_SIDE_CONNECTED;
	memcpy(message.opened.shape, shape, sizeof(message.opened.shape));
	message.opened.fds = OPENED_FD_PAIR;
	message.opened.is_writable = 1;
	message.opened.value = (struct message_region){OFFERED_SEGMENT_ID, 0, made->size};
	message.opened.lines = (struct message_region){
		101, offsetof(struct desk, line[STANDIN_CHANNEL]), 2 * sizeof(struct eventcount)};
	message.opened.table = (struct message_region){100, 0, sizeof(struct liveness_table)};
	caller_say(caller, &message, &made->pair[1], 1);
}

static void run_accepted_in_time(struct script *script)
{
	struct caller caller;
	struct offered made;
	struct pollfd pollfd;
	union message open;

	caller_begin(&caller, script);
	take_connect(&caller, &open, &made);
	if (!session_take(made.header, SESSION_ACCEPTED))
		failure("accept");
	actor_say(script->test, 1);

	/* It has nothing more to say. */
	pollfd = (struct pollfd){.fd = caller.fd, .events = POLLIN};
	actor_say(script->test, poll(&pollfd, 1, 3 * DEADLINE_MS) == 0);
	say_connected(&caller, &open, &made);
	until_step(script);
}

static void *cancel_client(void *arg)
{
	(void)arg;
	said("accepted");
	(void)ipc_client_cancel(client);
	return NULL;
}

/* C-15: the deadline passes, or the client is cancelled, before the broker has said that it is
 * open; but it is accepted by then. */
static void expect_accepted_in_time(bool is_cancelled)
{
	struct timespec deadline;
	pthread_t thread;
	ipc_session *session = NULL;

	begin(run_accepted_in_time);
	deadline = process_deadline(is_cancelled ? WAIT_MS : DEADLINE_MS);
	if (is_cancelled)
		cr_assert_eq(pthread_create(&thread, NULL, cancel_client, NULL), 0);
	cr_expect_eq(ipc_session_connect_wait(&session, client, "name", NULL, &deadline), 0);
	if (is_cancelled)
		pthread_join(thread, NULL);
	else
		said("accepted");
	said("the open is not withdrawn");
	ipc_session_close(session);
	end();
}

Test(listener_offers, one_whose_deadline_passes_after_it_was_accepted_is_connected)
{
	expect_accepted_in_time(false);
}

Test(listener_offers, one_that_is_cancelled_after_it_was_accepted_is_connected)
{
	expect_accepted_in_time(true);
}

static void run_given_up(struct script *script)
{
	struct caller caller;
	struct offered made;
	union message message;

	caller_begin(&caller, script);
	take_connect(&caller, &message, &made);
	caller_take(&caller, &message, MESSAGE_CANCEL);
	actor_say(script->test, session_is_taken(made.header) == SESSION_ABANDONED);
	until_step(script);
}

/* C-15 */
Test(listener_offers, one_whose_deadline_passes_before_is_given_up)
{
	struct timespec deadline;
	ipc_session *session = NULL;

	begin(run_given_up);
	deadline = process_deadline(DEADLINE_MS);
	cr_expect_eq(ipc_session_connect_wait(&session, client, "name", NULL, &deadline),
		     IPC_ETIMEDOUT);
	said("the word");
	end();
}
