/* SPDX-License-Identifier: MIT */

/*
 * What the broker knows of accepted sessions, by hand: ends that are away, taken over, closed,
 * lost; keys; what goes back to a listener.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawsession.h"

#define WINDOW (30 * NS_PER_S)
#define SHORT  (800 * NS_PER_MS)
#define SOON   5000
#define NEVER  50

static struct domain domain;
static struct rawpeer a, b, c, d;
static uint64_t listener_id;

/* a has accepted, b has connected. */
static struct rawsession acceptor, connector;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&c, domain.address);
	rawpeer_join(&d, domain.address);
}

static void teardown(void)
{
	struct rawpeer *const peers[] = {&a, &b, &c, &d};

	rawsession_drop(&acceptor);
	rawsession_drop(&connector);
	for (unsigned i = 0; i < 4; ++i)
		if (peers[i]->fd >= 0)
			rawpeer_disconnect(peers[i]);
	domain_stop(&domain);
}

TestSuite(sessions, .init = setup, .fini = teardown, .timeout = 60);

enum { ACCEPTED = SESSION_SIDE_ACCEPTED, CONNECTED = SESSION_SIDE_CONNECTED };

static uint64_t listen_at(struct rawpeer *peer, uint64_t window_ns)
{
	uint64_t id;

	cr_assert_eq(rawsession_listen(peer, "l", IPC_CREATE, window_ns, &id), 0);
	return id;
}

static void accept_next(struct rawpeer *peer, struct rawsession *ret)
{
	cr_assert(rawsession_offer(peer, SOON, ret));
	rawsession_accept(ret);
	(void)rawpeer_until_side(&d, ret->slot, ACCEPTED, 1, 0);
}

static void connect_both(struct rawsession *accepted, struct rawsession *connected)
{
	cr_assert_eq(rawsession_connect(&b, "l", 0, connected), 0);
	accept_next(&a, accepted);
}

static void establish(uint64_t window_ns)
{
	listener_id = listen_at(&a, window_ns);
	connect_both(&acceptor, &connector);
}

/* To a listener that comes now. */
static void offer_back(struct rawsession *ret)
{
	rawsession_detach(&acceptor);
	(void)listen_at(&c, WINDOW);
	cr_assert(rawsession_offer(&c, SOON, ret));
}

static uint64_t word_of(unsigned side)
{
	return liveness_side(d.table, connector.slot, side);
}

static uint64_t until_of(unsigned side)
{
	return atomic_load(&d.table->until_ns[connector.slot][side]);
}

static uint32_t attention(const struct rawpeer *peer)
{
	return atomic_load(&peer->table->attention[peer->slot].word);
}

#define PRESENT side_make(0, 1, SIDE_EVER)
#define AWAY    side_make(1, 0, SIDE_EVER | SIDE_DIED)
#define BACK    side_make(1, 1, SIDE_EVER | SIDE_DIED)

static int resume(struct rawpeer *peer, const struct rawsession *by, struct rawsession *ret)
{
	return rawsession_resume(peer, by->key, ret);
}

static unsigned n_listed(struct rawpeer *peer)
{
	cr_assert_eq(rawsession_list(peer, "l", 0), 0);
	return peer->reply.sessioned.n;
}

static bool is_free(uint32_t slot)
{
	uint64_t id;
	bool is_taken;

	cr_assert_eq(rawpeer_open_role(&d, IPC_ROLE_SHARED_A, "probe", IPC_CREATE, &id), 0);
	is_taken = d.reply.opened.channel_slot == slot;
	rawpeer_close(&d, id);
	rawpeer_sync(&d);
	return is_taken;
}

/* ---- away ---- */

/* C-2, C-16 */
Test(sessions, a_death_leaves_an_end_away_for_its_window)
{
	uint64_t before_ns;
	uint32_t before;

	establish(WINDOW);
	cr_assert_eq(word_of(ACCEPTED), PRESENT);
	cr_assert_eq(word_of(CONNECTED), PRESENT);
	cr_assert_eq(until_of(CONNECTED), 0);

	before = attention(&a);
	before_ns = clock_now_ns();
	rawpeer_disconnect(&b);
	cr_assert_eq(rawpeer_until_side(&d, connector.slot, CONNECTED, 0, 1), AWAY);
	rawpeer_sync(&d);
	cr_assert_gt(attention(&a), before);
	cr_assert_geq(until_of(CONNECTED), before_ns + WINDOW);
	cr_assert_leq(until_of(CONNECTED), clock_now_ns() + WINDOW);
	cr_assert_eq(word_of(ACCEPTED), PRESENT);
	cr_assert_eq(until_of(ACCEPTED), 0);
}

/* C-13: the same on purpose, heard by message and in the desk. */
Test(sessions, detaching_is_the_same_as_dying)
{
	struct desk_cell *cell;

	establish(UINT64_MAX);
	rawsession_detach(&connector);
	cr_assert_eq(word_of(CONNECTED), AWAY);
	cr_assert_eq(until_of(CONNECTED), UINT64_MAX);

	cell = &a.desk->cell[LIVENESS_SLOT(acceptor.id)];
	atomic_store(&cell->detached_id, acceptor.id);
	rawpeer_close_silently(&a, acceptor.id);
	rawpeer_sync(&a);
	cr_assert_eq(rawpeer_until_side(&d, acceptor.slot, ACCEPTED, 0, 1), AWAY);
	cr_assert_eq(until_of(ACCEPTED), UINT64_MAX);
	cr_assert_eq(n_listed(&d), 1, "it is there though nobody has it");
	cr_assert_not(is_free(connector.slot));
}

/* C-13: the last words of one that has died since are heard. */
Test(sessions, a_detach_and_a_close_are_heard_after_a_death)
{
	struct rawsession other_end, other;
	union message close;

	establish(WINDOW);
	connect_both(&other_end, &other);
	kill(domain_worker(&domain), SIGSTOP);
	message_init(&close, MESSAGE_CLOSE, 0);
	close.close.handle_id = connector.id;
	close.close.is_detached = 1;
	rawpeer_send(&b, &close);
	close.close.handle_id = other.id;
	close.close.is_detached = 0;
	rawpeer_send(&b, &close);
	rawpeer_disconnect(&b);
	kill(domain_worker(&domain), SIGCONT);

	cr_assert_eq(rawpeer_until_side(&d, connector.slot, CONNECTED, 0, 1), AWAY);
	cr_assert_eq(rawpeer_until_side(&d, other.slot, CONNECTED, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	rawsession_drop(&other_end);
	rawsession_drop(&other);
}

/* C-14: closed for ever; the other one lives on by itself, away too. */
Test(sessions, a_close_ends_one_end)
{
	struct rawsession session;
	uint32_t slot;

	establish(WINDOW);
	slot = connector.slot;
	rawsession_close(&connector);
	cr_assert_eq(word_of(CONNECTED), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_eq(until_of(CONNECTED), 0);
	cr_assert_eq(resume(&c, &connector, &session), IPC_ESTALE, "its keys are void");

	rawsession_detach(&acceptor);
	cr_assert_eq(word_of(ACCEPTED), AWAY);
	cr_assert_eq(resume(&c, &acceptor, &session), 0);
	cr_assert_eq(word_of(ACCEPTED), BACK);
	cr_assert_eq(until_of(ACCEPTED), 0);
	rawsession_close(&session);
	cr_assert(is_free(slot));
	rawsession_drop(&session);
}

/* ---- windows ---- */

/* C-2: with the window everything ends that is not closed. */
Test(sessions, a_window_that_passes_ends_the_session)
{
	struct rawsession session;
	uint32_t slot, before;

	establish(SHORT);
	slot = connector.slot;
	before = attention(&a);
	rawsession_detach(&connector);
	cr_assert_eq(rawpeer_until_side(&d, slot, CONNECTED, 0, 2),
		     side_make(2, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL));
	rawpeer_sync(&d);
	cr_assert_gt(attention(&a), before + 1);
	cr_assert_eq(word_of(ACCEPTED), side_make(0, 1, SIDE_EVER | SIDE_DIED | SIDE_FINAL));
	cr_assert_eq(until_of(CONNECTED), 0);
	cr_assert_eq(resume(&c, &connector, &session), IPC_ESTALE);
	cr_assert_eq(resume(&c, &acceptor, &session), IPC_ESTALE);
	cr_assert(rawsession_is_open(&acceptor), "who is there drains");

	rawsession_close(&acceptor);
	cr_assert(is_free(slot));
}

/* C-16: each absence has a window of its own; the first that passes counts. */
Test(sessions, with_both_ends_away_the_first_window_counts)
{
	struct rawsession session;

	establish(SHORT);
	rawsession_detach(&connector);
	cr_assert_eq(resume(&b, &connector, &session), 0);
	cr_assert_eq(until_of(CONNECTED), 0);

	rawsession_detach(&session);
	rawsession_detach(&acceptor);
	cr_assert_leq(until_of(CONNECTED), until_of(ACCEPTED));
	(void)rawpeer_until_side(&d, connector.slot, CONNECTED, 0, 3);
	cr_assert_eq(n_listed(&d), 0);
	rawpeer_sync(&d);
	cr_assert(is_free(connector.slot));
	rawsession_drop(&session);
}

/* C-3, C-16: who came back in time is not missed later. */
Test(sessions, a_window_is_over_when_the_end_is_back)
{
	struct rawsession session, other_end, other;

	establish(SHORT);
	connect_both(&other_end, &other);
	rawsession_detach(&connector);
	cr_assert_eq(resume(&b, &connector, &session), 0);

	/* When this one's has passed, the other's would have as well. */
	rawsession_detach(&other);
	(void)rawpeer_until_side(&d, other.slot, CONNECTED, 0, 2);
	cr_assert_eq(word_of(CONNECTED), BACK);
	cr_assert_eq(word_of(ACCEPTED), PRESENT);
	rawsession_drop(&session);
	rawsession_drop(&other);
	rawsession_drop(&other_end);
}

/* C-2, M-31: the next worker goes on with them, also with those that passed meanwhile. */
Test(sessions, windows_go_on_over_a_workers_death)
{
	struct rawsession session;

	establish(SHORT);
	rawsession_detach(&connector);
	kill(domain_worker(&domain), SIGSTOP);
	while (clock_now_ns() < until_of(CONNECTED))
		(void)rawpeer_receive(&d, 10);
	domain_kill_worker(&domain);

	(void)rawpeer_until_side(&d, connector.slot, CONNECTED, 0, 2);
	cr_assert(word_of(CONNECTED) & SIDE_FINAL);
	cr_assert_eq(resume(&c, &connector, &session), IPC_ESTALE);
}

/* ---- resume ---- */

/* C-3 */
Test(sessions, whoever_has_the_key_takes_the_end_over)
{
	struct rawsession session, third;
	uint32_t before;

	establish(WINDOW);
	before = attention(&b);
	cr_assert_eq(resume(&c, &connector, &session), 0);
	cr_assert_eq(session.slot, connector.slot);
	cr_assert_eq(session.side, CONNECTED);
	cr_assert_neq(memcmp(session.key, connector.key, sizeof(session.key)), 0);
	cr_assert_not(rawsession_is_open(&connector), "the living one is fenced");
	cr_assert_gt(attention(&b), before, "it sleeps, and is told");
	cr_assert_eq(word_of(CONNECTED), PRESENT, "nobody was gone for a moment");

	/* What it says of that now is nothing. */
	rawsession_close(&connector);
	cr_assert_eq(word_of(CONNECTED), PRESENT);
	cr_assert_eq(resume(&b, &acceptor, &third), 0, "either end");
	cr_assert_eq(third.side, ACCEPTED);
	rawsession_drop(&session);
	rawsession_drop(&third);
}

/* The word of a handle, whosever. */
static uint64_t handle_word(const struct rawsession *session)
{
	return atomic_load(&d.table->handle[LIVENESS_SLOT(session->id)]);
}

static void until_forgotten(const struct rawsession *session)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	while (handle_word(session) != 0)
		cr_assert_lt(clock_now_ns(), deadline_ns);
}

/* C-3: its process may still write, whichever worker is asked. */
Test(sessions, who_was_taken_over_is_known_until_it_closes)
{
	struct rawsession session;

	establish(WINDOW);
	cr_assert_eq(resume(&c, &connector, &session), 0);
	cr_assert_eq(handle_word(&connector), connector.id | LIVENESS_OVERTAKEN);
	domain_kill_worker(&domain);
	cr_assert_eq(handle_word(&connector), connector.id | LIVENESS_OVERTAKEN);
	cr_assert_not(rawsession_is_open(&connector));

	rawsession_close(&connector);
	cr_assert_eq(handle_word(&connector), 0);
	domain_kill_worker(&domain);
	cr_assert_eq(handle_word(&connector), 0);
	cr_assert(rawsession_is_open(&session));
	rawsession_drop(&session);
}

/* C-3 */
Test(sessions, who_was_taken_over_is_known_until_it_dies)
{
	struct rawsession session;

	establish(WINDOW);
	cr_assert_eq(resume(&c, &connector, &session), 0);
	cr_assert_eq(handle_word(&connector), connector.id | LIVENESS_OVERTAKEN);
	rawpeer_disconnect(&b);
	until_forgotten(&connector);
	cr_assert_eq(word_of(CONNECTED), PRESENT, "nobody was gone for a moment");
	rawsession_drop(&session);
}

/* C-3 */
Test(sessions, who_was_taken_over_is_forgotten_with_the_session)
{
	struct rawsession session;

	establish(WINDOW);
	cr_assert_eq(resume(&c, &connector, &session), 0);
	rawsession_close(&session);
	cr_assert_eq(handle_word(&connector), connector.id | LIVENESS_OVERTAKEN);
	rawsession_close(&acceptor);
	until_forgotten(&connector);
	cr_assert(is_free(connector.slot));

	/* What is said of it later is nothing. */
	rawsession_close(&connector);
	rawsession_drop(&session);
}

/* C-3: at most two are valid. */
Test(sessions, the_key_that_was_used_is_good_until_the_next_is_confirmed)
{
	struct rawsession second, third, fourth, session;

	establish(WINDOW);
	cr_assert_eq(resume(&c, &connector, &second), 0);

	/* Killed before it had stored the new one. */
	cr_assert_eq(resume(&b, &connector, &third), 0);
	cr_assert_eq(resume(&c, &second, &session), IPC_ESTALE, "the one that was never stored");
	cr_assert(rawsession_is_open(&third), "and nobody is disturbed");

	cr_assert_eq(resume(&c, &third, &fourth), 0);
	cr_assert_eq(resume(&c, &connector, &session), IPC_ESTALE, "a third one");
	rawsession_confirm(&fourth);
	cr_assert_eq(resume(&b, &third, &session), IPC_ESTALE, "confirmed");
	cr_assert(rawsession_is_open(&fourth));
	cr_assert_eq(resume(&b, &fourth, &session), 0);
	rawsession_drop(&second);
	rawsession_drop(&third);
	rawsession_drop(&fourth);
	rawsession_drop(&session);
}

/* C-3: what was confirmed is so when its process is dead, and its cell another handle's. */
Test(sessions, a_confirmation_outlives_its_process)
{
	struct rawsession second, session;
	uint64_t id;

	establish(WINDOW);
	cr_assert_eq(resume(&c, &connector, &second), 0);
	rawsession_confirm(&second);
	rawpeer_disconnect(&c);
	(void)rawpeer_until_side(&d, connector.slot, CONNECTED, 0, 1);
	rawpeer_sync(&d);
	cr_assert_eq(rawpeer_open_role(&d, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	domain_kill_worker(&domain);

	cr_assert_eq(resume(&b, &connector, &session), IPC_ESTALE);
	cr_assert_eq(resume(&b, &second, &session), 0);
	rawsession_drop(&second);
	rawsession_drop(&session);
}

/* C-3 */
Test(sessions, wrong_keys_open_nothing)
{
	struct rawsession wrong, session;

	establish(WINDOW);
	for (unsigned i = 0; i < PROTOCOL_KEY_SIZE; ++i) {
		wrong = connector;
		wrong.key[i] ^= 0x10;
		cr_assert_eq(resume(&c, &wrong, &session), IPC_ESTALE, "byte %u", i);
	}
	memset(wrong.key, 0, sizeof(wrong.key));
	cr_assert_eq(resume(&c, &wrong, &session), IPC_ESTALE);
	cr_assert(rawsession_is_open(&connector));
	cr_assert(rawsession_is_open(&acceptor));

	rawsession_close(&connector);
	rawsession_close(&acceptor);
	cr_assert_eq(resume(&c, &connector, &session), IPC_ESTALE, "of one that is over");
}

/* C-3: a connect that nobody has accepted is not resumed. */
Test(sessions, what_is_not_accepted_has_no_key_yet)
{
	struct rawsession session, other;

	(void)listen_at(&a, WINDOW);
	cr_assert_eq(rawsession_connect(&b, "l", 0, &session), 0);
	cr_assert_eq(resume(&c, &session, &other), IPC_ESTALE);
	cr_assert(rawsession_is_open(&session));
	rawsession_drop(&session);
}

/* C-3, M-43: a resume that its caller does not want any more leaves the end away. */
Test(sessions, a_cancelled_resume_ends_nothing)
{
	struct rawsession session;
	union message cancel;

	establish(WINDOW);
	cr_assert_eq(resume(&c, &connector, &session), 0);
	message_init(&cancel, MESSAGE_CANCEL, 0);
	cancel.cancel.cancelled_id = c.last_id;
	rawpeer_send(&c, &cancel);
	rawpeer_sync(&c);
	cr_assert_eq(word_of(CONNECTED), AWAY);
	rawsession_drop(&session);
	cr_assert_eq(resume(&c, &connector, &session), 0, "the key is as good as before");
	rawsession_drop(&session);
}

/* C-3, M-31 */
Test(sessions, keys_outlive_workers)
{
	struct rawsession second, session;

	establish(WINDOW);
	domain_kill_worker(&domain);
	cr_assert_eq(resume(&c, &connector, &second), 0);
	domain_kill_worker(&domain);
	cr_assert_eq(resume(&b, &acceptor, &session), 0);
	cr_assert_eq(resume(&b, &session, &acceptor), 0);
	cr_assert(rawsession_is_open(&second));
	rawsession_drop(&second);
	rawsession_drop(&session);
}

/* ---- back to the listener ---- */

/* C-9 */
Test(sessions, a_new_listener_takes_back_what_was_away_before)
{
	struct rawsession taken, late, session;

	establish(WINDOW);
	rawpeer_disconnect(&a);
	(void)rawpeer_until_side(&d, connector.slot, ACCEPTED, 0, 1);

	(void)listen_at(&c, WINDOW);
	cr_assert_eq(rawsession_connect(&b, "l", 0, &late), 0);
	cr_assert(rawsession_offer(&c, SOON, &taken));
	cr_assert(taken.is_taken_back);
	cr_assert_eq(taken.generation, connector.generation);
	cr_assert_eq(taken.side, ACCEPTED);
	cr_assert_eq(word_of(ACCEPTED), AWAY, "an offer is not counted");

	/* Its key is a candidate: the old one is good as long as it is not taken. */
	cr_assert_eq(resume(&d, &taken, &session), IPC_ESTALE);
	rawsession_say_taken(&taken, true);
	cr_assert_eq(rawpeer_until_side(&d, connector.slot, ACCEPTED, 1, 1), BACK);
	cr_assert_eq(until_of(ACCEPTED), 0);
	rawsession_drop(&session);

	cr_assert(rawsession_offer(&c, SOON, &session), "then those who connect");
	cr_assert_not(session.is_taken_back);
	cr_assert_eq(session.generation, late.generation);
	rawsession_drop(&session);

	/* The last key stays valid until the new one is confirmed. */
	rawsession_confirm(&taken);
	cr_assert_eq(resume(&d, &acceptor, &session), IPC_ESTALE);
	cr_assert_eq(resume(&d, &taken, &session), 0);
	rawsession_drop(&session);
	rawsession_drop(&taken);
	rawsession_drop(&late);
}

/* C-9: not to one that was there before. */
Test(sessions, a_listener_that_was_there_gets_nothing_back)
{
	struct rawsession session;

	establish(WINDOW);
	(void)listen_at(&c, WINDOW);
	rawpeer_disconnect(&a);
	(void)rawpeer_until_side(&d, connector.slot, ACCEPTED, 0, 1);
	cr_assert_not(rawsession_offer(&c, NEVER, &session));

	(void)listen_at(&d, WINDOW);
	cr_assert(rawsession_offer(&d, SOON, &session));
	cr_assert(session.is_taken_back);
	rawsession_drop(&session);
}

/* C-9: given back, or with a client that died, the end is as it was. */
Test(sessions, what_is_not_taken_back_stays_away)
{
	struct rawsession taken, session;
	uint64_t until_ns;

	establish(WINDOW);
	rawsession_detach(&acceptor);
	rawpeer_close(&a, listener_id);
	until_ns = until_of(ACCEPTED);

	(void)listen_at(&c, WINDOW);
	cr_assert(rawsession_offer(&c, SOON, &taken));
	rawsession_drop(&taken);
	rawpeer_disconnect(&c);
	rawpeer_sync(&d);
	cr_assert_eq(word_of(ACCEPTED), AWAY);
	cr_assert_eq(until_of(ACCEPTED), until_ns);
	cr_assert_eq(resume(&b, &taken, &session), IPC_ESTALE);
	cr_assert_eq(resume(&b, &acceptor, &session), 0);
	rawsession_drop(&session);
}

/* C-9, C-3: the key wins. */
Test(sessions, who_has_the_key_takes_it_from_under_the_listener)
{
	struct rawsession taken, session;

	establish(WINDOW);
	offer_back(&taken);
	cr_assert_eq(resume(&b, &acceptor, &session), 0);
	cr_assert_not(rawsession_is_open(&taken));
	rawsession_say_taken(&taken, true);
	rawpeer_sync(&c);
	cr_assert(rawsession_is_open(&session));
	cr_assert_eq(word_of(ACCEPTED), BACK);
	rawsession_drop(&session);
	rawsession_drop(&taken);
}

/* C-3: who takes back may be writing before that is heard, so that he is not taken for gone. */
Test(sessions, whoever_is_about_to_take_back_is_overtaken_by_a_resume)
{
	struct rawsession taken, session;

	establish(WINDOW);
	offer_back(&taken);
	cr_assert(taken.is_taken_back);
	cr_assert_eq(resume(&b, &acceptor, &session), 0);
	cr_assert_eq(handle_word(&taken), taken.id | LIVENESS_OVERTAKEN);

	rawsession_say_taken(&taken, true);
	rawpeer_sync(&c);
	cr_assert_eq(handle_word(&taken), taken.id | LIVENESS_OVERTAKEN);
	rawsession_close(&taken);
	rawpeer_sync(&c);
	cr_assert_eq(handle_word(&taken), 0);
	cr_assert(rawsession_is_open(&session));
	rawsession_drop(&session);
	rawsession_drop(&taken);
}

/* C-3, M-20: what is given up goes, also if it was taken over before. */
Test(sessions, a_resume_that_was_taken_over_is_cancelled)
{
	struct rawsession second, third;
	union message cancel;
	uint64_t request;

	establish(WINDOW);
	cr_assert_eq(resume(&c, &connector, &second), 0);
	request = c.last_id;
	cr_assert_eq(resume(&b, &connector, &third), 0);
	cr_assert_eq(handle_word(&second), second.id | LIVENESS_OVERTAKEN);

	message_init(&cancel, MESSAGE_CANCEL, 0);
	cancel.cancel.cancelled_id = request;
	rawpeer_send(&c, &cancel);
	rawpeer_sync(&c);
	cr_assert_eq(handle_word(&second), 0);
	cr_assert(rawsession_is_open(&third));
	domain_kill_worker(&domain);
	rawpeer_sync(&c);
	cr_assert_eq(handle_word(&second), 0);
	cr_assert(rawsession_is_open(&third));
	rawsession_drop(&second);
	rawsession_drop(&third);
}

/* C-9, M-31: TAKEN was said, and nobody has heard it. */
Test(sessions, taking_back_is_heard_after_a_workers_death)
{
	struct rawsession taken;

	establish(WINDOW);
	offer_back(&taken);
	kill(domain_worker(&domain), SIGSTOP);
	rawsession_say_taken(&taken, true);
	domain_kill_worker(&domain);
	cr_assert_eq(rawpeer_until_side(&d, connector.slot, ACCEPTED, 1, 1), BACK);
	cr_assert(rawsession_is_open(&taken));
	rawsession_drop(&taken);
}

/* C-15, M-48: sessions do without their listener. */
Test(sessions, a_removed_listener_leaves_them_alone)
{
	establish(WINDOW);
	cr_assert_eq(rawpeer_remove(&d, "l", 0), 0);
	rawpeer_close(&a, listener_id);
	rawpeer_sync(&a);
	cr_assert(rawsession_is_open(&acceptor));
	cr_assert(rawsession_is_open(&connector));
	cr_assert_eq(word_of(ACCEPTED), PRESENT);
	cr_assert_eq(word_of(CONNECTED), PRESENT);
}
