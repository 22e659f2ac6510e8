/* SPDX-License-Identifier: MIT */
/*
 * session through the public interface: what is sent, received and released, claims, sizes, and
 * arguments.
 */
#include "tests/client/session_scene.h"

TestSuite(session, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

/* ---- the stream ---- */

static void expect_stream(ipc_session *from, ipc_session *to)
{
	struct ipc_session_message message;

	for (uint32_t i = 1; i <= 100; ++i)
		ASSERT(put(from, i), 0);
	for (uint32_t i = 1; i <= 100; ++i) {
		ASSERT(get(to, &message), i);
		EXPECT(message.sequence, i);
		EXPECT(message.flags, 0);
		EXPECT(message.fd, -1);
		EXPECT((uintptr_t)message.data % 16, 0);
		for (unsigned k = 0; k < 3; ++k)
			EXPECT(message.reserved[k], 0);
	}
	EXPECT(get(to, &message), IPC_EAGAIN);
	EXPECT(state_of(from).sent, 100);
	EXPECT(state_of(from).acknowledged, 0);
	EXPECT(state_of(to).received, 100);
	EXPECT(ipc_session_release(to, &message), 0);
	EXPECT(state_of(from).acknowledged, 100);
	EXPECT(state_of(to).released, 100);
}

/* C-1 */
Test(session, messages_come_in_order_with_their_numbers_in_both_directions)
{
	struct pair pair = PAIR_NEW(0);

	expect_stream(pair.connected, pair.accepted);
	expect_stream(pair.accepted, pair.connected);
	pair_close(&pair);
}

/* C-1: also where nobody ever answers. */
Test(session, a_release_is_the_acknowledgement)
{
	struct pair pair = PAIR_NEW(.capacity = 4096);
	struct ipc_session_message message;

	for (uint32_t i = 1; i <= 10000; ++i) {
		ASSERT(put(pair.connected, i), 0);
		ASSERT(get(pair.accepted, &message), i);
		EXPECT(state_of(pair.connected).acknowledged, i - 1);
		ASSERT(ipc_session_release(pair.accepted, &message), 0);
		EXPECT(state_of(pair.connected).acknowledged, i);
	}
	pair_close(&pair);
}

/* C-10 */
Test(session, a_release_covers_all_before_and_may_come_again)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message[5];

	for (uint32_t i = 0; i < 5; ++i)
		ASSERT(put(pair.connected, i + 1), 0);
	EXPECT(ipc_session_receive_many(pair.accepted, message, 4), 4);

	EXPECT(ipc_session_release(pair.accepted, &message[2]), 0);
	EXPECT(state_of(pair.connected).acknowledged, 3);
	EXPECT(ipc_session_release(pair.accepted, &message[0]), 0);
	EXPECT(ipc_session_release(pair.accepted, &message[2]), 0);
	EXPECT(state_of(pair.connected).acknowledged, 3);
	EXPECT(ipc_session_release(pair.accepted, &message[3]), 0);
	EXPECT(state_of(pair.accepted).released, 4);
	pair_close(&pair);
}

/* C-10 */
Test(session, a_message_of_another_end_is_not_released)
{
	struct pair pair = PAIR_NEW(0), other = {.listener = pair.listener};
	struct ipc_session_message message, none = {.token = UINT64_MAX};

	pair_connect(&other);
	ASSERT(put(pair.connected, 1), 0);
	ASSERT(put(pair.connected, 2), 0);
	ASSERT(get(pair.accepted, &message), 1);
	ASSERT(get(pair.accepted, &message), 2);
	EXPECT(ipc_session_release(pair.connected, &message), IPC_EINVAL);
	EXPECT(ipc_session_release(other.accepted, &message), IPC_EINVAL);
	EXPECT(ipc_session_release(pair.accepted, &none), IPC_EINVAL);
	EXPECT(state_of(pair.connected).acknowledged, 0);

	other.listener = NULL;
	pair_close(&other);
	pair_close(&pair);
}

/* M-72, C-11 */
Test(session, a_message_of_no_bytes_has_no_address)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message = {.data = &message};

	ASSERT(ipc_session_send(pair.connected, NULL, 0), 0);
	ASSERT(ipc_session_receive(pair.accepted, &message), 0);
	cr_expect_null(message.data);
	EXPECT(message.size, 0);
	EXPECT(ipc_session_send(pair.connected, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_session_send_wait(pair.connected, NULL, 1, NULL), IPC_EINVAL);
	EXPECT(ipc_session_send_fd(pair.connected, 0, NULL, 1), IPC_EINVAL);
	pair_close(&pair);
}

/* M-76 */
Test(session, many_are_received_up_to_a_bound)
{
	static struct ipc_session_message message[IPC_MANY_MAX + 1];
	struct pair pair = PAIR_NEW(0);
	struct timespec deadline = domain_deadline(WAIT_MS);

	for (uint32_t i = 1; i <= IPC_MANY_MAX + 1; ++i)
		ASSERT(put(pair.connected, i), 0);
	EXPECT(ipc_session_receive_many(pair.accepted, message, 0), IPC_EINVAL);
	EXPECT(ipc_session_receive_many(pair.accepted, NULL, 1), IPC_EINVAL);
	EXPECT(ipc_session_receive_many_wait(pair.accepted, message, 0, &deadline), IPC_EINVAL);
	EXPECT(ipc_session_receive_many_wait(pair.accepted, message, IPC_MANY_MAX + 1, &deadline),
	       IPC_MANY_MAX);
	EXPECT(message[IPC_MANY_MAX - 1].sequence, IPC_MANY_MAX);
	EXPECT(ipc_session_receive_many(pair.accepted, message, UINT32_MAX), 1);
	EXPECT(message[0].sequence, IPC_MANY_MAX + 1);
	EXPECT(ipc_session_receive_many(pair.accepted, message, 1), IPC_EAGAIN);
	pair_close(&pair);
}

/* ---- room ---- */

/* C-6: all of it but 32 bytes, each message with its 16. */
Test(session, a_ring_holds_what_it_was_made_for)
{
	struct pair pair = PAIR_NEW(.capacity = 4096);
	unsigned n = fill(pair.connected);

	EXPECT(n, (4096 - 32) / 32);
	EXPECT(put_in(pair.connected, 1, 0), IPC_ETIMEDOUT);
	EXPECT(eat(pair.accepted), 1);
	EXPECT(put(pair.connected, 1), 0);
	EXPECT(put(pair.connected, 1), IPC_EAGAIN);
	EXPECT(fill(pair.accepted), n);
	pair_close(&pair);
}

/* C-6, M-76: the largest message goes in as often as told. */
Test(session, the_largest_message_fits_and_one_more_byte_does_not)
{
	struct pair pair = PAIR_NEW(.capacity = 8192, .message_size_max = 2000);
	struct ipc_session_message message;
	char bytes[2001];
	void *claim = NULL;

	memset(bytes, 'x', sizeof(bytes));
	for (unsigned lap = 0; lap < 100; ++lap) {
		ASSERT(ipc_session_send(pair.connected, bytes, 2000), 0);
		ASSERT(ipc_session_receive(pair.accepted, &message), 0);
		EXPECT(message.size, 2000);
		EXPECT(memcmp(message.data, bytes, 2000), 0);
		ASSERT(ipc_session_release(pair.accepted, &message), 0);
	}
	EXPECT(ipc_session_send(pair.connected, bytes, 2001), IPC_EMSGSIZE);
	EXPECT(ipc_session_send_wait(pair.connected, bytes, 2001, NULL), IPC_EMSGSIZE);
	EXPECT(ipc_session_send_fd(pair.connected, 0, bytes, 2001), IPC_EMSGSIZE);
	EXPECT(ipc_session_claim(pair.connected, 2001, &claim), IPC_EMSGSIZE);
	EXPECT(ipc_session_claim_wait(pair.connected, SIZE_MAX, &claim, NULL), IPC_EMSGSIZE);
	cr_expect_null(claim);
	pair_close(&pair);
}

/* C-6, M-22: who sleeps for room gets it, in each of the calls. */
Test(session, waits_for_room_end_with_a_release)
{
	ipc_listener *listener = LISTENER_NEW(.capacity = 4096);
	struct ipc_session_message message[200];
	ipc_session *session;
	struct actor actor;
	unsigned n;

	PARTY_START(&actor, 0);
	session = accept_from(listener, &actor);
	for (n = 0; order_do(&actor, ORDER_SEND, n + 1, 0) == 0; ++n)
		;
	ASSERT(ipc_session_receive_many(session, message, 200), n);
	order_sleep(&actor, ORDER_SEND_WAIT, n + 1, 0);
	EXPECT(ipc_session_release(session, &message[0]), 0);
	EXPECT(actor_hear(&actor), 0);
	EXPECT(get_in(session, &message[0], WAIT_MS), n + 1);

	ipc_session_close(session);
	ipc_listener_close(listener);
	actor_kill(&actor);
}

/* C-6: nobody has read anything, and both go on. */
Test(session, two_full_rings_do_not_hold_each_other)
{
	struct pair pair = PAIR_NEW(.capacity = 4096);
	unsigned n = fill(pair.connected);

	EXPECT(fill(pair.accepted), n);
	EXPECT(eat(pair.accepted), 1);
	EXPECT(eat(pair.connected), 1);
	EXPECT(put(pair.connected, n + 1), 0);
	EXPECT(put(pair.accepted, n + 1), 0);
	pair_close(&pair);
}

/* ---- claims ---- */

/* C-14 */
Test(session, numbers_are_given_by_commit)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message;
	void *first, *second, *third;

	ASSERT(ipc_session_claim(pair.connected, 100, &first), 0);
	ASSERT(ipc_session_claim(pair.connected, 50, &second), 0);
	ASSERT(ipc_session_claim(pair.connected, 10, &third), 0);
	EXPECT((uintptr_t)first % 16, 0);
	memset(first, '1', 100);
	memset(second, '2', 50);
	EXPECT(ipc_session_commit(pair.connected, second, 50), 0);
	EXPECT(ipc_session_abort(pair.connected, third), 0);
	EXPECT(put(pair.connected, 7), 0);
	EXPECT(ipc_session_commit(pair.connected, first, 1), 0);

	ASSERT(ipc_session_receive(pair.accepted, &message), 0);
	EXPECT(message.sequence, 1);
	EXPECT(message.size, 50);
	EXPECT(*(const char *)message.data, '2');
	EXPECT(get(pair.accepted, &message), 7);
	ASSERT(ipc_session_receive(pair.accepted, &message), 0);
	EXPECT(message.sequence, 3);
	EXPECT(message.size, 1);
	EXPECT(*(const char *)message.data, '1');
	EXPECT(get(pair.accepted, &message), IPC_EAGAIN);
	pair_close(&pair);
}

/* C-14 */
Test(session, what_is_no_claim_is_refused_and_one_that_is_refused_stays_open)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message;
	char mine[16];
	void *claim, *other;

	ASSERT(ipc_session_claim(pair.connected, 8, &claim), 0);
	ASSERT(ipc_session_claim(pair.accepted, 8, &other), 0);
	EXPECT(ipc_session_commit(pair.connected, mine, 8), IPC_EINVAL);
	EXPECT(ipc_session_commit(pair.connected, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_session_commit(pair.connected, other, 8), IPC_EINVAL);
	EXPECT(ipc_session_commit(pair.connected, claim, 9), IPC_EMSGSIZE);
	EXPECT(ipc_session_abort(pair.connected, mine), IPC_EINVAL);
	EXPECT(ipc_session_commit(pair.connected, claim, 8), 0);
	EXPECT(ipc_session_commit(pair.connected, claim, 8), IPC_EINVAL);
	EXPECT(ipc_session_abort(pair.connected, claim), IPC_EINVAL);
	EXPECT(ipc_session_receive(pair.accepted, &message), 0);
	EXPECT(message.size, 8);
	EXPECT(ipc_session_receive(pair.accepted, &message), IPC_EAGAIN);
	EXPECT(ipc_session_abort(pair.accepted, other), 0);
	pair_close(&pair);
}

/* C-12 */
Test(session, a_reply_and_the_release_of_its_request_are_one_step)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message request, reply;
	void *claim;

	ASSERT(put(pair.connected, 1), 0);
	ASSERT(put(pair.connected, 2), 0);
	ASSERT(get(pair.accepted, &request), 1);
	ASSERT(get(pair.accepted, &request), 2);
	ASSERT(ipc_session_claim(pair.accepted, 4, &claim), 0);
	memcpy(claim, &(uint32_t){20}, 4);

	/* Refused: nothing is released, the claim stays open. */
	EXPECT(ipc_session_commit_release(pair.accepted, claim, 5, &request), IPC_EMSGSIZE);
	EXPECT(ipc_session_commit_release(pair.accepted, &request, 4, &request), IPC_EINVAL);
	EXPECT(ipc_session_commit_release(pair.accepted, claim, 4, NULL), IPC_EINVAL);
	EXPECT(ipc_session_commit_release(pair.accepted, claim, 4,
					  &(struct ipc_session_message){.token = UINT64_MAX}),
	       IPC_EINVAL);
	EXPECT(state_of(pair.connected).acknowledged, 0);
	EXPECT(state_of(pair.accepted).sent, 0);

	EXPECT(ipc_session_commit_release(pair.accepted, claim, 4, &request), 0);
	EXPECT(state_of(pair.connected).acknowledged, 2);
	EXPECT(get(pair.connected, &reply), 20);
	EXPECT(get(pair.connected, &reply), IPC_EAGAIN);
	pair_close(&pair);
}

/* C-10, C-12: a later one has released it, and it is not answered yet. */
Test(session, requests_may_be_answered_in_any_order)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message requests[2], reply;
	void *claims[2];

	for (uint32_t i = 0; i < 2; ++i) {
		ASSERT(put(pair.connected, i + 1), 0);
		ASSERT(get(pair.accepted, &requests[i]), i + 1);
		ASSERT(ipc_session_claim(pair.accepted, 4, &claims[i]), 0);
		memcpy(claims[i], &(uint32_t){10 * (i + 1)}, 4);
	}

	EXPECT(ipc_session_commit_release(pair.accepted, claims[1], 4, &requests[1]), 0);
	EXPECT(state_of(pair.connected).acknowledged, 2);
	EXPECT(ipc_session_commit_release(pair.accepted, claims[0], 4, &requests[0]), 0);
	EXPECT(get(pair.connected, &reply), 20);
	EXPECT(get(pair.connected, &reply), 10);
	EXPECT(state_of(pair.connected).acknowledged, 2);
	pair_close(&pair);
}

/* ---- threads ---- */

enum { N_THREADS = 3, N_EACH = 3000 };

struct sender {
	ipc_session *session;
	uint32_t base;
	pthread_t thread;
	int result;
};

static void *sender_run(void *arg)
{
	struct sender *sender = arg;

	for (uint32_t i = 0; i < N_EACH && sender->result == 0; ++i)
		sender->result = put_in(sender->session, sender->base + i, WAIT_MS);
	return NULL;
}

/* C-8: each thread's own stay in order, and none is lost or doubled. */
Test(session, threads_that_send_never_swap_numbers)
{
	struct pair pair = PAIR_NEW(.capacity = 4096);
	struct sender sender[N_THREADS];
	struct ipc_session_message message;
	uint32_t next[N_THREADS] = {0};

	for (unsigned i = 0; i < N_THREADS; ++i) {
		sender[i] = (struct sender){pair.connected, (i + 1) << 16, .result = 0};
		ASSERT(pthread_create(&sender[i].thread, NULL, sender_run, &sender[i]), 0);
	}
	for (unsigned n = 1; n <= N_THREADS * N_EACH; ++n) {
		int64_t number = get_in(pair.accepted, &message, WAIT_MS);
		unsigned i = (unsigned)(number >> 16) - 1;

		cr_assert(number > 0 && i < N_THREADS, "%ld", (long)number);
		ASSERT(message.sequence, n);
		ASSERT(number & 0xffff, next[i]++);
		ASSERT(ipc_session_release(pair.accepted, &message), 0);
	}
	for (unsigned i = 0; i < N_THREADS; ++i) {
		pthread_join(sender[i].thread, NULL);
		EXPECT(sender[i].result, 0);
	}
	pair_close(&pair);
}

/* ---- states and arguments ---- */

/* M-46 */
Test(session, a_state_is_written_as_far_as_it_is_known)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_state state = {.size = offsetof(struct ipc_session_state, received),
					  .received = 77};

	ASSERT(put(pair.connected, 1), 0);
	EXPECT(ipc_session_get_state(pair.connected, &state), 0);
	EXPECT(state.sent, 1);
	EXPECT(state.received, 77);
	EXPECT(state.size, offsetof(struct ipc_session_state, received));
	state.size = sizeof(size_t) - 1;
	EXPECT(ipc_session_get_state(pair.connected, &state), IPC_EINVAL);
	EXPECT(ipc_session_get_state(pair.connected, NULL), IPC_EINVAL);
	pair_close(&pair);
}

static int listen_with(struct ipc_session_options options)
{
	ipc_listener *listener = NULL;
	int r = listener_open(&listener, fixture_client, NAME, options);

	ipc_listener_close(listener);
	return r;
}

#define LISTEN(...) listen_with((struct ipc_session_options){__VA_ARGS__})

/* C-15, M-41, M-76 */
Test(session, options_of_listeners_are_checked)
{
	EXPECT(LISTEN(.flags = IPC_CREATE | IPC_STAY), IPC_EINVAL);
	EXPECT(LISTEN(.flags = IPC_EXCLUSIVE), IPC_EINVAL);
	EXPECT(LISTEN(.flags = IPC_CREATE | 1), IPC_EINVAL);
	EXPECT(LISTEN(.flags = IPC_CREATE, .mode = 01000), IPC_EINVAL);
	EXPECT(LISTEN(.flags = IPC_CREATE, .capacity = 4095), IPC_EINVAL);
	EXPECT(LISTEN(.flags = IPC_CREATE, .capacity = (UINT64_C(1) << 30) + 1), IPC_EINVAL);
	EXPECT(LISTEN(.flags = IPC_CREATE, .capacity = 8192, .message_size_max = 2049), IPC_EINVAL);
	EXPECT(LISTEN(.flags = IPC_CREATE, .message_size_max = (UINT64_C(64) << 10) + 1),
	       IPC_EINVAL);
	EXPECT(LISTEN(.message_size_max = (UINT64_C(1) << 28) + 1), IPC_EINVAL);
	EXPECT(LISTEN(0), IPC_ENOENT);
	EXPECT(exists(NAME), false);
	EXPECT(LISTEN(.flags = IPC_CREATE, .capacity = 4096, .message_size_max = 1024), 0);
	EXPECT(LISTEN(.flags = IPC_CREATE, .capacity = UINT64_C(1) << 30), 0);
	EXPECT(LISTEN(.flags = IPC_CREATE, .resume_window_ns = UINT64_MAX), 0);
	EXPECT(LISTEN(.flags = IPC_CREATE | IPC_EXCLUSIVE), 0);
}

/* C-15, M-43: zero fits every listener, another value does not. */
Test(session, shapes_of_a_listener_are_its_own)
{
	ipc_listener *listener =
		LISTENER_NEW(.capacity = 8192, .message_size_max = 100, .resume_window_ns = 5);
	ipc_session *session = NULL;

	EXPECT(LISTEN(.flags = IPC_CREATE | IPC_EXCLUSIVE), IPC_EEXIST);
	EXPECT(LISTEN(.capacity = 4096), IPC_EPROTOTYPE);
	EXPECT(LISTEN(.message_size_max = 101), IPC_EPROTOTYPE);
	EXPECT(LISTEN(.resume_window_ns = 6), IPC_EPROTOTYPE);
	EXPECT(LISTEN(.capacity = 8192, .message_size_max = 100, .resume_window_ns = 5), 0);
	EXPECT(LISTEN(.flags = IPC_CREATE), 0);
	EXPECT(ipc_session_connect_wait(&session, fixture_client, NAME,
					IPC_SESSION_OPTIONS(.capacity = 4096), &past),
	       IPC_EPROTOTYPE);
	EXPECT(ipc_session_connect_wait(&session, fixture_client, NAME,
					IPC_SESSION_OPTIONS(.capacity = 8192), &past),
	       IPC_ETIMEDOUT);
	ipc_listener_close(listener);
}

static int connect_with(const struct ipc_session_options *options)
{
	ipc_session *session = NULL;

	return ipc_session_connect_wait(&session, fixture_client, NAME, options, &past);
}

/* C-15 */
Test(session, connect_and_resume_create_nothing)
{
	static const uint64_t flags[] = {IPC_CREATE, IPC_EXCLUSIVE, IPC_CREATE | IPC_EXCLUSIVE,
					 IPC_KEEP,   IPC_STAY,      1};
	ipc_session *session = NULL;

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); ++i)
		EXPECT(connect_with(IPC_SESSION_OPTIONS(.flags = flags[i])), IPC_EINVAL);
	EXPECT(connect_with(NULL), IPC_ENOENT);
	EXPECT(connect_with(IPC_SESSION_OPTIONS(.flags = IPC_AWAIT)), IPC_ETIMEDOUT);
	EXPECT(connect_with(IPC_SESSION_OPTIONS(.capacity = 1)), IPC_EINVAL);
	EXPECT(ipc_session_connect_wait(&session, fixture_client, "/no", NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_session_connect_wait(NULL, fixture_client, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_session_connect_wait(&session, NULL, NAME, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_session_connect_wait(&session, fixture_client, NULL, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_session_resume_wait(&session, fixture_client, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_session_resume_wait(NULL, fixture_client, keys, NULL), IPC_EINVAL);
	EXPECT(exists(NAME), false);
	cr_expect_null(session);
}

/* M-29, M-44, M-74 */
Test(session, handles_are_known_by_their_role)
{
	struct pair pair = PAIR_NEW(0);
	struct ipc_session_message message = {0};
	struct ipc_session_key key;
	ipc_session *not_one = (ipc_session *)pair.listener, *none = NULL;
	uint64_t id, other;

	EXPECT(ipc_session_send(not_one, NULL, 0), IPC_EINVAL);
	EXPECT(ipc_session_receive(NULL, &message), IPC_EINVAL);
	EXPECT(ipc_session_release(not_one, &message), IPC_EINVAL);
	EXPECT(ipc_session_release(pair.accepted, NULL), IPC_EINVAL);
	EXPECT(ipc_session_get_key(not_one, &key), IPC_EINVAL);
	EXPECT(ipc_session_get_key(pair.accepted, NULL), IPC_EINVAL);
	EXPECT(ipc_session_confirm_key(NULL), IPC_EINVAL);
	EXPECT(ipc_session_claim(pair.accepted, 1, NULL), IPC_EINVAL);
	EXPECT(ipc_session_cancel(not_one), IPC_EINVAL);
	EXPECT(ipc_listener_accept((ipc_listener *)pair.accepted, &none), IPC_EINVAL);
	EXPECT(ipc_listener_accept(pair.listener, NULL), IPC_EINVAL);
	EXPECT(ipc_listener_accept_wait(pair.listener, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_listener_cancel(NULL), IPC_EINVAL);
	EXPECT(ipc_session_get_id(pair.accepted, &id), 0);
	EXPECT(ipc_session_get_id(pair.connected, &other), 0);
	cr_expect_neq(id, other);
	EXPECT(ipc_listener_get_id(pair.listener, &other), 0);
	cr_expect_neq(id, other);
	cr_expect_null(ipc_session_close(NULL));
	cr_expect_null(ipc_session_detach(NULL));
	cr_expect_null(ipc_session_detach(not_one));
	cr_expect_null(ipc_listener_close(NULL));
	EXPECT(ipc_session_peers(pair.accepted), 1);
	pair_close(&pair);
}

static void use_inherited(struct actor *self, void *arg)
{
	struct pair *pair = arg;
	struct ipc_session_message message;
	ipc_session *session;

	actor_say(self, ipc_session_send(pair->connected, NULL, 0));
	actor_say(self, ipc_session_receive(pair->connected, &message));
	actor_say(self, ipc_listener_accept(pair->listener, &session));
	actor_say(self, ipc_session_confirm_key(pair->connected));
	ipc_session_detach(pair->connected);
	ipc_session_close(pair->accepted);
	ipc_listener_close(pair->listener);
	actor_say(self, 0);
}

/* M-42 */
Test(session, a_forked_child_has_nothing_and_disturbs_nothing)
{
	struct pair pair = PAIR_NEW(0);
	struct actor actor;

	actor_start(&actor, use_inherited, &pair);
	for (unsigned i = 0; i < 4; ++i)
		EXPECT(actor_hear(&actor), IPC_ECHILD);
	EXPECT(actor_hear(&actor), 0);
	EXPECT(actor_join(&actor), 0);
	EXPECT(put(pair.connected, 1), 0);
	EXPECT(eat(pair.accepted), 1);
	EXPECT(ipc_session_peers(pair.accepted), 1);
	pair_close(&pair);
}

static int call_inside(const struct ipc_channel_info *info, void *userdata)
{
	struct pair *pair = userdata;
	ipc_session *session;

	(void)info;
	EXPECT(put(pair->connected, 1), IPC_EDEADLK);
	EXPECT(ipc_listener_accept(pair->listener, &session), IPC_EDEADLK);
	EXPECT(connect_with(NULL), IPC_EDEADLK);
	EXPECT(ipc_session_resume_wait(&session, fixture_client, keys, NULL), IPC_EDEADLK);
	return 1;
}

/* M-42 */
Test(session, callbacks_must_not_call)
{
	struct pair pair = PAIR_NEW(0);

	EXPECT(ipc_client_list_wait(fixture_client, NAME, call_inside, &pair, NULL), 0);
	EXPECT(eat(pair.accepted), IPC_EAGAIN);
	pair_close(&pair);
}
