/* SPDX-License-Identifier: MIT */

/*
 * A worker that dies at random crash points, under clients that listen, connect, accept, resume,
 * close, detach and die: the words of each session say what a model says, its keys open what the
 * model says they open, every connect is offered in the end, and then nothing is left.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "tests/support/leaks.h"
#include "tests/support/mortal.h"
#include "tests/support/rawsession.h"

enum { PEERS = 5, SESSIONS = 24, OFFERS = 64, STEPS = 4000 };

enum end_state { NOBODY, HELD, AWAY, CLOSED };

struct model_end {
	enum end_state state;
	struct rawsession handle; /* the last one */
	unsigned char newest[PROTOCOL_KEY_SIZE], before[PROTOCOL_KEY_SIZE];
	bool has_before;
	bool has_died;
	uint32_t ends;
};

struct model_session {
	bool is_used;
	uint64_t generation;
	uint32_t slot;
	struct model_end end[2];
};

static struct domain domain;
static struct rawpeer watcher, peers[PEERS];
static uint64_t listeners[PEERS]; /* ids; 0: none */
static uint64_t newest[PEERS];    /* ids of offers */
static uint64_t opened[PEERS];    /* ids of listeners: the last */
static struct model_session sessions[SESSIONS];
static struct rawsession offers[OFFERS];
static unsigned n_offers;
static unsigned seed;

static unsigned dice(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

static void hear(struct rawpeer *peer)
{
	if (peer->reply.head.type != MESSAGE_OFFER)
		return;

	cr_assert_leq(peer->reply.offer.listener_id, opened[peer - peers],
		      "an offer to a listener that it does not know yet");

	/* Ids grow: one that is not newer was said twice, and may have been answered. */
	if (peer->reply.offer.session.handle_id <= newest[peer - peers])
		return;

	cr_assert_lt(n_offers, OFFERS);
	newest[peer - peers] = peer->reply.offer.session.handle_id;
	rawsession_take_offer(peer, &offers[n_offers++]);
}

static void join(struct rawpeer *peer)
{
	rawpeer_join(peer, domain.address);
	peer->news = peer == &watcher ? NULL : hear;
}

static void setup(void)
{
	const char *wish = getenv("IPC_TEST_CRASH"); /* for a longer hunt: "random:20 4711" */
	char crash[32] = "random:60";

	seed = (unsigned)clock_now_ns();
	if (wish)
		(void)sscanf(wish, "%31s %u", crash, &seed);
	cr_log_info("crash points %s, seed %u", crash, seed);

	domain_start_mortal(&domain, crash);
	join(&watcher);
	for (unsigned i = 0; i < PEERS; ++i)
		join(&peers[i]);
}

static void teardown(void)
{
	domain_kill(&domain);
}

/* ---- the model ---- */

static struct model_session *session_of(uint64_t generation)
{
	for (unsigned i = 0; i < SESSIONS; ++i)
		if (sessions[i].is_used && sessions[i].generation == generation)
			return &sessions[i];

	return NULL;
}

static bool is_accepted(const struct model_session *session)
{
	return session->end[0].state != NOBODY;
}

static struct model_session *any_session(bool accepted)
{
	struct model_session *session = &sessions[dice(SESSIONS)];

	return session->is_used && is_accepted(session) == accepted ? session : NULL;
}

static uint64_t wanted(const struct model_end *end)
{
	switch (end->state) {
	case NOBODY:
		return side_make(end->ends, 0, 0);
	case HELD:
		return side_make(end->ends, 1, SIDE_EVER | (end->has_died ? SIDE_DIED : 0));
	case AWAY:
		return side_make(end->ends, 0, SIDE_EVER | SIDE_DIED);
	case CLOSED:
		break;
	}
	return side_make(end->ends, 0, SIDE_EVER | SIDE_FINAL);
}

static uint64_t word_of(const struct model_session *session, unsigned side)
{
	return liveness_side(watcher.table, session->slot, side);
}

static void until_word(const struct model_session *session, unsigned side)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S), want = wanted(&session->end[side]);

	while (word_of(session, side) != want) {
		cr_assert_lt(clock_now_ns(), deadline_ns,
			     "channel %u, side %u: %lx, should be %lx; seed %u", session->slot,
			     side, (unsigned long)word_of(session, side), (unsigned long)want,
			     seed);
		rawpeer_sync(&watcher);
	}
}

/* The words follow one another; until_ns is written beside them. */
static void check(const struct model_session *session)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	for (unsigned side = 0; side < 2; ++side) {
		bool is_away = session->end[side].state == AWAY;
		const _Atomic uint64_t *until = &watcher.table->until_ns[session->slot][side];

		until_word(session, side);
		while ((atomic_load(until) != 0) != is_away) {
			cr_assert_lt(clock_now_ns(), deadline_ns, "channel %u, side %u: until %lu",
				     session->slot, side, (unsigned long)atomic_load(until));
			rawpeer_sync(&watcher);
		}
		if (session->end[side].state == HELD)
			cr_assert(rawsession_is_open(&session->end[side].handle));
	}
}

static bool is_over(const struct model_session *session)
{
	return session->end[1].state == CLOSED && session->end[0].state != HELD &&
	       session->end[0].state != AWAY;
}

static void forget(struct model_session *session)
{
	rawsession_drop(&session->end[0].handle);
	rawsession_drop(&session->end[1].handle);
	session->is_used = false;
}

static void checked(struct model_session *session)
{
	if (is_over(session))
		forget(session);
	else
		check(session);
}

static void take_end(struct model_session *session, const struct rawsession *handle,
		     const unsigned char *used)
{
	struct model_end *end = &session->end[handle->side];

	rawsession_drop(&end->handle);
	end->has_before = used != NULL;
	if (used)
		memcpy(end->before, used, sizeof(end->before));
	memcpy(end->newest, handle->key, sizeof(end->newest));
	end->handle = *handle;
	end->state = HELD;
}

static void leave_end(struct model_session *session, unsigned side, enum end_state state)
{
	struct model_end *end = &session->end[side];

	++end->ends;
	end->state = state;
	end->has_died = state == AWAY;
}

/* ---- listeners and offers ---- */

static bool anybody_listens(void)
{
	for (unsigned p = 0; p < PEERS; ++p)
		if (listeners[p])
			return true;

	return false;
}

static void drop_offer(unsigned i)
{
	rawsession_drop(&offers[i]);
	offers[i] = offers[--n_offers];
}

static void drop_void_offers(void)
{
	for (unsigned i = 0; i < n_offers;) {
		if (!session_of(offers[i].generation) || !rawsession_is_open(&offers[i]))
			drop_offer(i);
		else
			++i;
	}
}

static void pump(unsigned timeout_ms)
{
	for (unsigned p = 0; p < PEERS; ++p)
		while (rawpeer_receive(&peers[p], timeout_ms) == MESSAGE_OFFER)
			hear(&peers[p]);
	drop_void_offers();
}

/* With the last listener those go who connect. */
static void listener_gone(void)
{
	if (anybody_listens())
		return;

	for (unsigned i = 0; i < SESSIONS; ++i) {
		struct model_session *session = &sessions[i];
		uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

		if (!session->is_used || is_accepted(session))
			continue;
		while (!(word_of(session, 0) & SIDE_FINAL)) {
			cr_assert_lt(clock_now_ns(), deadline_ns, "it is not refused");
			rawpeer_sync(&watcher);
		}
		rawsession_close(&session->end[1].handle);
		forget(session);
	}
}

static void step_listen(unsigned p)
{
	int r;

	if (listeners[p]) {
		rawpeer_close(&peers[p], listeners[p]);
		rawpeer_sync(&peers[p]);
		listeners[p] = 0;
		listener_gone();
		return;
	}

	r = rawsession_listen(&peers[p], "l", IPC_CREATE, UINT64_MAX, &listeners[p]);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	opened[p] = listeners[p];
}

static void step_connect(unsigned p)
{
	struct model_session *session = &sessions[dice(SESSIONS)];
	struct rawsession handle;
	int r;

	if (session->is_used)
		return;

	r = rawsession_connect(&peers[p], "l", 0, &handle);
	if (!anybody_listens()) {
		cr_assert_eq(r, IPC_ENOENT, "%s", ipc_error_name(r));
		return;
	}

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	memset(session, 0, sizeof(*session));
	session->is_used = true;
	session->generation = handle.generation;
	session->slot = handle.slot;
	session->end[0].handle.value_fd = session->end[0].handle.pair_fd = -1;
	session->end[1].handle.value_fd = session->end[1].handle.pair_fd = -1;
	session->end[0].ends = side_ends(word_of(session, 0));
	session->end[1].ends = side_ends(word_of(session, 1));
	take_end(session, &handle, NULL);
	check(session);
}

static void step_answer(bool is_accepted)
{
	struct model_session *session;
	struct rawsession offer;

	pump(0);
	if (n_offers == 0)
		return;

	offer = offers[dice(n_offers)];
	for (unsigned i = 0; i < n_offers; ++i)
		if (offers[i].id == offer.id)
			offers[i] = offers[--n_offers];

	session = session_of(offer.generation);
	if (!is_accepted) {
		rawsession_say_taken(&offer, false);
		rawsession_drop(&offer);
		return;
	}

	if (!offer.is_taken_back)
		rawsession_decide(&offer, SESSION_ACCEPTED);
	rawsession_say_taken(&offer, true);
	take_end(session, &offer, offer.is_taken_back ? session->end[0].newest : NULL);
	check(session);
}

/* ---- ends ---- */

static void step_leave(bool detaches)
{
	struct model_session *session = any_session(true);
	unsigned side = dice(2);

	if (!session || session->end[side].state != HELD)
		return;

	leave_end(session, side, detaches ? AWAY : CLOSED);
	if (detaches)
		rawsession_detach(&session->end[side].handle);
	else
		rawsession_close(&session->end[side].handle);
	checked(session);
}

static void step_abandon(void)
{
	struct model_session *session = any_session(false);

	if (!session)
		return;

	rawsession_close(&session->end[1].handle);
	forget(session);
}

static void step_resume(unsigned p)
{
	struct model_session *session = any_session(true);
	unsigned side = dice(2);
	struct rawsession handle;
	struct model_end *end;
	unsigned char key[PROTOCOL_KEY_SIZE];
	bool is_good;
	int r;

	if (!session)
		return;

	end = &session->end[side];
	is_good = end->state == HELD || end->state == AWAY;
	memcpy(key, end->newest, sizeof(key));
	if (dice(3) == 0) {
		is_good &= end->has_before;
		memcpy(key, end->before, sizeof(key));
	}
	if (dice(8) == 0) {
		is_good = false;
		key[dice(PROTOCOL_KEY_SIZE)] ^= 1;
	}

	r = rawsession_resume(&peers[p], key, &handle);
	cr_assert_eq(r, is_good ? 0 : IPC_ESTALE, "%s", ipc_error_name(r));
	if (is_good)
		take_end(session, &handle, key);
	checked(session);
}

static void step_confirm(void)
{
	struct model_session *session = any_session(true);
	struct model_end *end = session ? &session->end[dice(2)] : NULL;

	if (!end || end->state != HELD)
		return;

	rawsession_confirm(&end->handle);
	end->has_before = false;
}

static void step_die(unsigned p)
{
	listeners[p] = 0;
	rawpeer_disconnect(&peers[p]);
	for (unsigned i = 0; i < n_offers;) {
		if (offers[i].peer == &peers[p])
			drop_offer(i);
		else
			++i;
	}

	for (unsigned i = 0; i < SESSIONS; ++i) {
		struct model_session *session = &sessions[i];

		if (!session->is_used)
			continue;
		if (!is_accepted(session) && session->end[1].handle.peer == &peers[p]) {
			forget(session);
			continue;
		}

		for (unsigned side = 0; side < 2; ++side)
			if (session->end[side].state == HELD &&
			    session->end[side].handle.peer == &peers[p])
				leave_end(session, side, AWAY);
		if (is_accepted(session))
			checked(session);
	}

	listener_gone();
	join(&peers[p]);
}

static void step(void)
{
	unsigned p = dice(PEERS);

	switch (dice(24)) {
	case 0:
		step_die(p);
		break;
	case 1:
	case 2:
		step_listen(p);
		break;
	case 3:
	case 4:
	case 5:
		step_connect(p);
		break;
	case 6:
	case 7:
	case 8:
		step_answer(true);
		break;
	case 9:
		step_answer(false);
		break;
	case 10:
		step_leave(true);
		break;
	case 11:
		step_leave(dice(2));
		break;
	case 12:
		step_abandon();
		break;
	case 13:
		step_confirm();
		break;
	default:
		step_resume(p);
		break;
	}
}

/* C-15: whoever connected is offered, if only somebody listens. */
static void accept_all(void)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);
	bool is_done = false;

	if (!anybody_listens())
		step_listen(0);
	while (!is_done) {
		cr_assert_lt(clock_now_ns(), deadline_ns, "somebody is not offered; seed %u", seed);
		pump(5);
		step_answer(true);
		is_done = true;
		for (unsigned i = 0; i < SESSIONS; ++i)
			is_done &= !sessions[i].is_used || is_accepted(&sessions[i]);
	}
}

static void end_session(struct model_session *session)
{
	struct rawsession handle;

	for (unsigned side = 0; side < 2; ++side) {
		struct model_end *end = &session->end[side];

		if (end->state == AWAY) {
			cr_assert_eq(rawsession_resume(&peers[0], end->newest, &handle), 0);
			take_end(session, &handle, end->newest);
		}
		if (end->state == HELD) {
			leave_end(session, side, CLOSED);
			rawsession_close(&end->handle);
		}
	}
	forget(session);
}

/* M-6, M-31, C-2, C-3, C-9, C-14, C-15 */
Test(session_model, workers_that_die_anywhere_are_not_noticed, .init = setup, .fini = teardown,
     .timeout = 700)
{
	uint64_t deadline_ns;
	unsigned n_fds;

	rawpeer_sync(&watcher);
	n_fds = domain_fds_before(&domain);

	for (unsigned i = 0; i < STEPS; ++i)
		step();

	accept_all();
	for (unsigned i = 0; i < SESSIONS; ++i)
		if (sessions[i].is_used)
			end_session(&sessions[i]);
	for (unsigned p = 0; p < PEERS; ++p)
		if (listeners[p])
			step_listen(p);

	deadline_ns = clock_after_ns(30 * NS_PER_S);
	do
		rawpeer_sync(&watcher);
	while (leaks_fds_of(domain.keeper) > n_fds && clock_now_ns() < deadline_ns);
	cr_assert_leq(leaks_fds_of(domain.keeper), n_fds, "%u descriptors, were %u; seed %u",
		      leaks_fds_of(domain.keeper), n_fds, seed);
	cr_assert_eq(rawsession_list(&watcher, "l", 0), 0);
	cr_assert_eq(watcher.reply.sessioned.n, 0);
}
