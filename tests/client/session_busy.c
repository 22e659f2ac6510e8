/* SPDX-License-Identifier: MIT */
/*
 * session: an end that was taken over so often that it cannot be once more.
 */
#include <pthread.h>

#include "libipc/client/client.h"
#include "libipc/wire/codec.h"
#include "tests/client/session_scene.h"

TestSuite(session_busy, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

enum { N_OVERTAKEN = 4, SIZE = 8 };

/* One after the other takes the end over, the last but one in another process; each fills a claim
 * yet. */
struct crowd {
	ipc_listener *listener;
	ipc_session *session; /* the other end */
	ipc_session *old[N_OVERTAKEN - 1], *newest;
	struct actor actor;
	struct ipc_session_key key;
	void *claim;
};

static void crowd_claim(struct crowd *crowd, ipc_session *by)
{
	ASSERT(ipc_session_claim(by, SIZE, &crowd->claim), 0);
}

static void crowd_begin(struct crowd *crowd)
{
	struct pair pair = PAIR_NEW(0);

	*crowd = (struct crowd){.listener = pair.listener, .session = pair.accepted};
	keys[0] = crowd->key = key_of(pair.connected);
	crowd->old[0] = pair.connected;
	crowd_claim(crowd, crowd->old[0]);
	for (unsigned i = 1; i < N_OVERTAKEN - 1; ++i) {
		ASSERT(resume_by(&crowd->old[i], fixture_client, &crowd->key), 0);
		crowd_claim(crowd, crowd->old[i]);
	}
	PARTY_START(&crowd->actor, 0);
	ASSERT(order_do(&crowd->actor, ORDER_RESUME, 0, 0), 0);
	ASSERT(order_do(&crowd->actor, ORDER_CLAIM, SIZE, 1), 0);
	ASSERT(resume_by(&crowd->newest, fixture_client, &crowd->key), 0);
	crowd_claim(crowd, crowd->newest);
}

static void crowd_end(struct crowd *crowd)
{
	if (crowd->actor.pid > 0)
		actor_kill(&crowd->actor);
	for (unsigned i = 0; i < N_OVERTAKEN - 1; ++i)
		ipc_session_close(crowd->old[i]);
	ipc_session_close(crowd->newest);
	ipc_session_close(crowd->session);
	ipc_listener_close(crowd->listener);
}

/* M-10 */
Test(session_busy, who_has_the_end_keeps_it_when_a_resume_is_refused)
{
	struct ipc_session_key key;
	ipc_session *none = NULL;
	struct crowd crowd;

	crowd_begin(&crowd);
	key = key_of(crowd.newest);

	EXPECT(resume_by(&none, fixture_client, &crowd.key), IPC_EBUSY);
	EXPECT(resume_by(&none, fixture_client, &key), IPC_EBUSY);

	EXPECT(ipc_session_commit(crowd.newest, crowd.claim, SIZE), 0);
	EXPECT(put(crowd.newest, 2), 0);
	EXPECT(ipc_session_peers(crowd.session), 1);
	EXPECT(put(crowd.session, 3), 0);
	EXPECT(eat(crowd.newest), 3);
	EXPECT(ipc_session_confirm_key(crowd.newest), 0);
	EXPECT(state_of(crowd.session).away_ns, 0);
	crowd_end(&crowd);
}

/* C-3: once the other end has got past where they stood. */
Test(session_busy, a_death_makes_place_for_the_next)
{
	struct crowd crowd;
	ipc_session *next = NULL;

	crowd_begin(&crowd);
	actor_kill(&crowd.actor);
	crowd.actor.pid = 0;
	EXPECT(eat(crowd.session), IPC_EAGAIN);

	EXPECT(resume_by(&next, fixture_client, &crowd.key), 0);
	EXPECT(put(crowd.newest, 1), IPC_ESTALE);
	EXPECT(put(next, 2), 0);
	EXPECT(eat(crowd.session), 2);
	ipc_session_close(next);
	crowd_end(&crowd);
}

/* M-10, C-3 */
Test(session_busy, a_close_makes_place_once_the_other_end_has_got_past_it)
{
	struct crowd crowd;
	ipc_session *next = NULL;

	crowd_begin(&crowd);
	crowd.old[1] = ipc_session_close(crowd.old[1]);

	EXPECT(resume_by(&next, fixture_client, &crowd.key), IPC_EBUSY);
	EXPECT(ipc_session_abort(crowd.newest, crowd.claim), 0);
	EXPECT(put(crowd.newest, 1), 0);
	EXPECT(eat(crowd.session), 1);
	EXPECT(resume_by(&next, fixture_client, &crowd.key), 0);
	EXPECT(put(next, 2), 0);
	EXPECT(eat(crowd.session), 2);
	ipc_session_close(next);
	crowd_end(&crowd);
}

/* M-10: a claim that later messages have passed takes another place. */
Test(session_busy, a_claim_that_was_passed_by_needs_more_place)
{
	struct crowd crowd;
	ipc_session *next = NULL;

	crowd_begin(&crowd);
	crowd.old[1] = ipc_session_close(crowd.old[1]);
	EXPECT(put(crowd.newest, 1), 0);
	EXPECT(eat(crowd.session), 1);

	EXPECT(resume_by(&next, fixture_client, &crowd.key), IPC_EBUSY);
	EXPECT(put(crowd.newest, 2), 0);
	EXPECT(eat(crowd.session), 2);
	crowd.old[0] = ipc_session_close(crowd.old[0]);
	EXPECT(resume_by(&next, fixture_client, &crowd.key), 0);
	ipc_session_close(next);
	crowd_end(&crowd);
}

/* A process that is not heard of any more is nobody who keeps others out. */
Test(session_busy, the_holders_own_death_makes_place)
{
	struct crowd crowd;
	struct actor heir;
	ipc_session *next = NULL;

	crowd_begin(&crowd);
	crowd.old[0] = ipc_session_close(crowd.old[0]);
	ASSERT(eat(crowd.session), IPC_EAGAIN);
	PARTY_START(&heir, 0);
	ASSERT(order_do(&heir, ORDER_RESUME, 0, 0), 0);
	ASSERT(order_do(&heir, ORDER_CLAIM, SIZE, 1), 0);
	ASSERT(resume_by(&next, fixture_client, &crowd.key), IPC_EBUSY);
	actor_kill(&heir);

	EXPECT(resume_by(&next, fixture_client, &crowd.key), 0);
	EXPECT(put(next, 2), 0);
	EXPECT(eat(crowd.session), 2);
	ipc_session_close(next);
	crowd_end(&crowd);
}

/* ---- refused, and again ---- */

/* The end of the other process has claims all over its ring, which messages have passed by: what it
 * may write leaves no place. */
static ipc_session *scene_with_strays(ipc_listener *listener, struct actor *actor)
{
	ipc_session *session = scene_begin(listener, actor);

	for (unsigned claim = 0; claim < 5; ++claim) {
		ASSERT(order_do(actor, ORDER_CLAIM, 16, 1), 0);
		for (unsigned i = 0; i < (claim < 4 ? 24 : 1); ++i) {
			ASSERT(order_do(actor, ORDER_SEND, 1, 0), 0);
			ASSERT(eat(session), 1);
		}
	}
	return session;
}

/* M-10, C-3: whoever was refused keeps nobody out, nor himself, when the one he could not follow is
 * gone. */
Test(session_busy, who_was_refused_is_not_when_the_one_before_has_died)
{
	for (unsigned n_refused = 0; n_refused < 4; ++n_refused) {
		ipc_listener *listener =
			LISTENER_NEW(.capacity = 4096, .resume_window_ns = UINT64_MAX);
		ipc_session *session, *next = NULL;
		struct actor actor;

		session = scene_with_strays(listener, &actor);
		for (unsigned i = 0; i < n_refused; ++i)
			EXPECT(resume_by(&next, fixture_client, &keys[0]), IPC_EBUSY);
		actor_kill(&actor);
		EXPECT(resume_by(&next, fixture_client, &keys[0]), 0);
		EXPECT(put(next, 2), 0);
		EXPECT(eat(session), 2);
		ipc_session_close(next);
		ipc_session_close(session);
		ipc_listener_close(listener);
	}
}

/* ---- closed meanwhile ---- */

enum { N_HEIRS = 3000 };

static void *close_when_taken_over(void *arg)
{
	ipc_session *session = arg;

	while (ipc_session_peers(session) >= 0)
		;
	return ipc_session_close(session);
}

/* C-3: whoever is told that he was taken over closes, while that goes on; he costs no place. */
Test(session_busy, those_who_close_when_they_are_taken_over_keep_nobody_out, .timeout = 300)
{
	struct pair pair = PAIR_NEW(0);
	ipc_session *next = NULL;

	for (unsigned i = 0; i < N_HEIRS; ++i) {
		struct ipc_session_key key = key_of(pair.connected);
		pthread_t thread;
		void *claim;

		ASSERT(ipc_session_confirm_key(pair.connected), 0);
		ASSERT(ipc_session_claim(pair.connected, SIZE, &claim), 0);
		ASSERT(pthread_create(&thread, NULL, close_when_taken_over, pair.connected), 0);
		ASSERT(resume_by(&next, fixture_client, &key), 0);
		ASSERT(pthread_join(thread, NULL), 0);
		pair.connected = next;
		for (unsigned k = 0; k < 10; ++k) {
			ASSERT(put(next, k + 1), 0);
			ASSERT(eat(pair.accepted), k + 1);
		}
	}
	pair_close(&pair);
}

/* ---- what the broker keeps of them ---- */

static uint64_t word_of(uint64_t id)
{
	const struct liveness_table *table = fixture_client->table;

	return atomic_load(&table->handle[LIVENESS_SLOT(id)]);
}

static void fill_socket(uint64_t id)
{
	union message ring;

	message_init(&ring, MESSAGE_RING, 0);
	ring.ring.handle_id = id;
	while (connection_try_send(&fixture_client->connection, &ring) == 0)
		;
}

/* C-3: by the desk, as any other close. */
Test(session_busy, a_close_is_heard_though_the_socket_was_full)
{
	struct pair pair = PAIR_NEW(0);
	struct timespec deadline = domain_deadline(WAIT_MS);
	pid_t worker = domain_worker(&fixture_domain);
	struct actor actor;
	uint64_t id;

	ASSERT(ipc_session_get_id(pair.connected, &id), 0);
	keys[0] = key_of(pair.connected);
	PARTY_START(&actor, 0);
	ASSERT(order_do(&actor, ORDER_RESUME, 0, 0), 0);
	ASSERT(word_of(id), id | LIVENESS_OVERTAKEN);

	ASSERT(kill(worker, SIGSTOP), 0);
	fill_socket(id);
	pair.connected = ipc_session_close(pair.connected);
	ASSERT(kill(worker, SIGCONT), 0);
	while (word_of(id) == (id | LIVENESS_OVERTAKEN)) {
		cr_assert(!process_has_passed(&deadline), "the close was not heard");
		(void)exists(NAME);
	}
	actor_kill(&actor);
	pair_close(&pair);
}
