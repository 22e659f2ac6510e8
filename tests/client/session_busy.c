/* SPDX-License-Identifier: MIT */
/*
 * session: an end that was taken over so often that it cannot be once more.
 */
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
