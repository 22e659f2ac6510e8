/* SPDX-License-Identifier: MIT */

/*
 * How sessions come to be at the broker, by hand: listeners, connects, offers, and what becomes of
 * these when somebody gives up or dies.
 */

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawsession.h"

#define WINDOW (30 * NS_PER_S)
#define SOON   5000
#define NEVER  50

static struct domain domain;
static struct rawpeer a, b, c, d;

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

	for (unsigned i = 0; i < 4; ++i)
		if (peers[i]->fd >= 0)
			rawpeer_disconnect(peers[i]);
	domain_stop(&domain);
}

TestSuite(offers, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t listen_at(struct rawpeer *peer)
{
	uint64_t id;

	cr_assert_eq(rawsession_listen(peer, "l", IPC_CREATE, WINDOW, &id), 0);
	return id;
}

static struct rawsession connect_to(struct rawpeer *peer, uint64_t flags)
{
	struct rawsession session;

	cr_assert_eq(rawsession_connect(peer, "l", flags, &session), 0);
	return session;
}

static struct rawsession next_offer(struct rawpeer *peer)
{
	struct rawsession offer;

	cr_assert(rawsession_offer(peer, SOON, &offer));
	return offer;
}

static bool is_offered(struct rawpeer *peer)
{
	struct rawsession offer;

	return rawsession_offer(peer, NEVER, &offer);
}

static void shut(struct rawpeer *peer, uint64_t id)
{
	rawpeer_close(peer, id);
	rawpeer_sync(&d);
}

static uint64_t word_of(const struct rawsession *session, unsigned side)
{
	return liveness_side(session->peer->table, session->slot, side);
}

static uint32_t attention(const struct rawpeer *peer)
{
	return atomic_load(&peer->table->attention[peer->slot].word);
}

static uint32_t n_joined(const struct rawpeer *peer)
{
	return atomic_load(&peer->table->attention[peer->slot].n_joined);
}

/* Sessions of the name that are accepted. */
static unsigned n_sessions(void)
{
	cr_assert_eq(rawsession_list(&d, "l", 0), 0);
	return d.reply.sessioned.n;
}

static uint64_t n_channels_bytes(void)
{
	cr_assert_eq(rawpeer_info(&d, "l"), 0);
	return d.reply.info_reply.channel.bytes;
}

/* ---- from connect to accept ---- */

/* C-9, C-15, M-43 */
Test(offers, without_a_listener_there_is_nothing_to_connect_to)
{
	struct rawsession session;
	uint64_t id;

	cr_assert_eq(rawsession_connect(&b, "l", 0, &session), IPC_ENOENT);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_LISTENER, "l", 0, &id), IPC_ENOENT);

	cr_assert_eq(rawsession_listen(&a, "l", IPC_CREATE | IPC_KEEP, WINDOW, &id), 0);
	shut(&a, id);
	cr_assert_eq(rawpeer_info(&d, "l"), 0, "the name is kept");
	cr_assert_eq(rawsession_connect(&b, "l", 0, &session), IPC_ENOENT);
	cr_assert_eq(rawpeer_remove(&a, "l", 0), 0);
}

/* C-15 */
Test(offers, flags_that_make_no_sense_are_illegal)
{
	static const uint64_t illegal[] = {IPC_CREATE, IPC_CREATE | IPC_EXCLUSIVE,
					   IPC_CREATE | IPC_KEEP, IPC_KEEP, IPC_STAY};
	struct rawsession session;
	uint64_t id;

	(void)listen_at(&a);
	for (unsigned i = 0; i < sizeof(illegal) / sizeof(illegal[0]); ++i)
		cr_assert_eq(rawsession_connect(&b, "l", illegal[i], &session), IPC_EINVAL);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_LISTENER, "l", IPC_STAY, &id), IPC_EINVAL);
}

/* C-15, M-43 */
Test(offers, the_listener_shapes_its_sessions)
{
	union message open = rawpeer_open_message(IPC_ROLE_SESSION, "l", 0);
	uint64_t id;

	cr_assert_eq(rawsession_listen(&a, "l", IPC_CREATE, 7 * NS_PER_S, &id), 0);
	open.open.shape[0] = 8192;
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EPROTOTYPE);
	open.open.shape[0] = 4096;
	open.open.shape[2] = 7 * NS_PER_S;
	cr_assert_eq(rawpeer_open(&b, &open, &id), 0);
	cr_assert_eq(b.reply.opened.shape[0], 4096);
	cr_assert_eq(b.reply.opened.shape[1], 1024);
	cr_assert_eq(b.reply.opened.shape[2], 7 * NS_PER_S);

	cr_assert_eq(rawpeer_open_role(&c, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	open = rawpeer_open_message(IPC_ROLE_SESSION, "s", 0);
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EPROTOTYPE);
}

/* C-9: a connect is there when it is accepted, and not before. */
Test(offers, a_connect_is_offered_and_accepted)
{
	uint64_t listener = listen_at(&a);
	uint32_t joined = n_joined(&a), before;
	struct rawsession session = connect_to(&b, 0), offer;

	cr_assert_eq(session.side, SESSION_SIDE_CONNECTED);
	cr_assert_eq(word_of(&session, 0), side_make(0, 0, 0), "awaited");
	offer = next_offer(&a);
	rawpeer_sync(&d);
	cr_assert_eq(n_joined(&a), joined + 1);
	cr_assert_eq(offer.listener_id, listener);
	cr_assert_eq(offer.side, SESSION_SIDE_ACCEPTED);
	cr_assert_not(offer.is_taken_back);
	cr_assert_eq(offer.slot, session.slot);
	cr_assert_eq(offer.generation, session.generation);
	cr_assert(rawsession_is_open(&offer));
	cr_assert_neq(memcmp(offer.key, session.key, sizeof(offer.key)), 0);
	cr_assert_eq(word_of(&session, 0), side_make(0, 0, 0), "an offer is not counted");
	cr_assert_eq(n_sessions(), 0);

	before = attention(&b);
	rawsession_accept(&offer);
	cr_assert_eq(rawpeer_until_side(&b, session.slot, 0, 1, 0), side_make(0, 1, SIDE_EVER));
	rawpeer_sync(&d);
	cr_assert_gt(attention(&b), before);
	cr_assert_eq(n_sessions(), 1);
	rawsession_drop(&offer);
}

/* The listener's client is told by its attention word, too, which it sleeps on. */
Test(offers, whoever_listens_is_woken)
{
	uint32_t before;

	(void)listen_at(&a);
	before = attention(&a);
	(void)connect_to(&b, 0);
	rawpeer_sync(&d);
	cr_assert_gt(attention(&a), before);
}

/* D9, M-54 */
Test(offers, both_ends_have_an_end_of_the_pair_and_lines_of_the_session)
{
	struct rawsession session, offer;
	struct message_opened connected;
	size_t size;
	char byte = 'x';

	(void)listen_at(&a);
	session = connect_to(&b, 0);
	connected = b.reply.opened;
	offer = next_offer(&a);
	cr_assert(connected.fds & OPENED_FD_LINES);
	cr_assert_eq(connected.lines.segment_id, a.reply.offer.session.lines.segment_id);
	cr_assert_lt(ftruncate(offer.value_fd, 4096), 0, "sealed");

	cr_assert_eq(fdpass_send(session.pair_fd, &byte, 1, NULL, 0), 0);
	cr_assert_eq(fdpass_receive(offer.pair_fd, &byte, 1, &size, NULL, NULL), 0);
	cr_assert_eq(byte, 'x');
	rawsession_drop(&session);
	rawsession_drop(&offer);
}

/* C-15: first come, first served; one offer a listener. */
Test(offers, connects_are_offered_one_by_one_in_their_order)
{
	struct rawsession first, second, third, offer;

	(void)listen_at(&a);
	first = connect_to(&b, 0);
	second = connect_to(&c, 0);
	third = connect_to(&b, 0);

	offer = next_offer(&a);
	cr_assert_eq(offer.generation, first.generation);
	cr_assert_not(is_offered(&a));
	rawsession_accept(&offer);
	rawsession_drop(&offer);
	offer = next_offer(&a);
	cr_assert_eq(offer.generation, second.generation);

	/* Given back it is still the first. */
	rawsession_say_taken(&offer, false);
	rawsession_drop(&offer);
	offer = next_offer(&a);
	cr_assert_eq(offer.generation, second.generation);
	rawsession_accept(&offer);
	rawsession_drop(&offer);
	offer = next_offer(&a);
	cr_assert_eq(offer.generation, third.generation);
	rawsession_drop(&offer);
}

/* C-15: each connect goes to one of them. */
Test(offers, several_listeners_have_their_turns)
{
	struct rawsession session[4], offer;
	struct rawpeer *const listener[] = {&a, &c};

	(void)listen_at(&a);
	(void)listen_at(&c);
	for (unsigned i = 0; i < 4; ++i)
		session[i] = connect_to(&b, 0);

	for (unsigned i = 0; i < 4; ++i) {
		offer = next_offer(listener[i % 2]);
		cr_assert_eq(offer.generation, session[i].generation, "%u", i);
		rawsession_accept(&offer);
		(void)rawpeer_until_side(&b, session[i].slot, 0, 1, 0);
		rawsession_drop(&offer);
	}
	cr_assert_not(is_offered(&a));
	cr_assert_not(is_offered(&c));
}

/* ---- giving up ---- */

/* C-15: it is given back to the others by a close, and by a death. */
Test(offers, what_one_listener_leaves_the_other_gets)
{
	struct rawsession session, offer, other;
	uint64_t listener = listen_at(&a);

	(void)listen_at(&c);
	session = connect_to(&b, 0);
	offer = next_offer(&a);
	shut(&a, listener);
	cr_assert_not(rawsession_is_open(&offer));
	other = next_offer(&c);
	cr_assert_eq(other.generation, session.generation);
	cr_assert_neq(other.id, offer.id);
	rawsession_drop(&offer);

	(void)listen_at(&a);
	rawpeer_disconnect(&c);
	offer = next_offer(&a);
	cr_assert_eq(offer.generation, session.generation);
	cr_assert_eq(word_of(&session, 0), side_make(0, 0, 0));
	rawsession_accept(&offer);
	(void)rawpeer_until_side(&b, session.slot, 0, 1, 0);
	rawsession_drop(&offer);
	rawsession_drop(&other);
}

/* C-15: an accept that could not be said counts all the same. */
Test(offers, what_was_accepted_stands_in_the_memory)
{
	struct rawsession session, offer;

	(void)listen_at(&a);
	session = connect_to(&b, 0);
	offer = next_offer(&a);

	/* As a client whose socket is full. */
	rawsession_decide(&offer, SESSION_ACCEPTED);
	atomic_fetch_add(&a.desk->client[a.slot].closings, 1);
	rawpeer_sync(&a);
	cr_assert_eq(rawpeer_until_side(&b, session.slot, 0, 1, 0), side_make(0, 1, SIDE_EVER));
	rawsession_drop(&offer);

	/* As one that dies before it says it: accepted, and away. */
	(void)listen_at(&c);
	session = connect_to(&b, 0);
	cr_assert(rawsession_offer(&c, NEVER, &offer) || rawsession_offer(&a, SOON, &offer));
	rawsession_decide(&offer, SESSION_ACCEPTED);
	rawpeer_disconnect(offer.peer);
	cr_assert_eq(rawpeer_until_side(&b, session.slot, 0, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_DIED));
	cr_assert_gt(atomic_load(&b.table->until_ns[session.slot][0]), clock_now_ns());
	rawsession_drop(&offer);
}

/* C-15 */
Test(offers, a_connect_that_was_abandoned_is_not_offered_any_more)
{
	struct rawsession session, second, offer;
	uint64_t bytes;

	(void)listen_at(&a);
	bytes = n_channels_bytes();
	session = connect_to(&b, 0);
	offer = next_offer(&a);
	second = connect_to(&c, 0);

	rawsession_decide(&offer, SESSION_ABANDONED);
	rawsession_close(&session);
	cr_assert_not(rawsession_is_open(&offer), "it is revoked");
	rawsession_drop(&offer);
	offer = next_offer(&a);
	cr_assert_eq(offer.generation, second.generation);

	/* By a death. */
	rawpeer_disconnect(&c);
	rawpeer_sync(&d);
	cr_assert_not(rawsession_is_open(&offer));
	cr_assert_not(is_offered(&a));
	rawsession_say_taken(&offer, false);
	rawpeer_sync(&a);
	cr_assert_eq(n_sessions(), 0);
	cr_assert_eq(n_channels_bytes(), bytes);
	rawsession_drop(&offer);
}

/* C-15: whichever was first, it is one of the two. */
Test(offers, one_that_was_accepted_is_not_abandoned)
{
	struct rawsession session, offer;

	(void)listen_at(&a);
	session = connect_to(&b, 0);
	offer = next_offer(&a);
	rawsession_decide(&offer, SESSION_ACCEPTED);
	rawpeer_disconnect(&b);
	rawsession_say_taken(&offer, true);

	cr_assert_eq(rawpeer_until_side(&a, session.slot, 1, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_DIED));
	cr_assert(rawsession_is_open(&offer));
	cr_assert_eq(word_of(&offer, 0), side_make(0, 1, SIDE_EVER));
	cr_assert_eq(n_sessions(), 1);
	rawsession_drop(&offer);
}

/* What the acceptor finds spoilt is not offered to anybody again. */
Test(offers, a_spoilt_connect_is_refused)
{
	struct rawsession session, offer;
	uint32_t before;

	(void)listen_at(&a);
	session = connect_to(&b, IPC_AWAIT);
	offer = next_offer(&a);
	before = attention(&b);
	rawsession_decide(&offer, SESSION_ABANDONED);
	rawsession_close(&offer);

	cr_assert_not(is_offered(&a));
	cr_assert_eq(word_of(&session, 0), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_gt(attention(&b), before);
	rawsession_drop(&offer);
}

/* ---- the last listener ---- */

/* C-15: IPC_EPIPE for those who wait. */
Test(offers, the_last_listeners_close_ends_connects)
{
	struct rawsession offered, waiting;
	uint64_t listener = listen_at(&a);
	uint32_t before;

	offered = connect_to(&b, 0);
	waiting = connect_to(&c, 0);
	before = attention(&c);
	shut(&a, listener);

	cr_assert_eq(word_of(&offered, 0), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_eq(word_of(&waiting, 0), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_gt(attention(&c), before);
	rawsession_close(&offered);
	rawsession_close(&waiting);

	/* They are not left over for the next one. */
	(void)listen_at(&a);
	cr_assert_not(is_offered(&a));
}

/* C-15: IPC_EOWNERDEAD. */
Test(offers, the_last_listeners_death_is_told_as_one)
{
	struct rawsession offered, waiting;

	(void)listen_at(&a);
	offered = connect_to(&b, 0);
	waiting = connect_to(&c, 0);
	rawpeer_disconnect(&a);
	rawpeer_sync(&d);

	(void)rawpeer_until_side(&c, waiting.slot, 0, 0, 1);
	cr_assert_eq(word_of(&waiting, 0), side_make(1, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL));
	(void)rawpeer_until_side(&b, offered.slot, 0, 0, 1);
	cr_assert_eq(word_of(&offered, 0), side_make(1, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL));
}

/* C-9, C-15: with IPC_AWAIT a connect goes on waiting, and comes before later ones. */
Test(offers, whoever_awaits_waits_for_the_next_listener)
{
	struct rawsession offered, waiting, late, offer;
	uint64_t listener = listen_at(&a);

	offered = connect_to(&b, IPC_AWAIT);
	waiting = connect_to(&c, IPC_AWAIT);
	offer = next_offer(&a);
	rawsession_drop(&offer);
	shut(&a, listener);
	cr_assert_eq(word_of(&offered, 0), side_make(0, 0, 0));
	cr_assert_eq(word_of(&waiting, 0), side_make(0, 0, 0));

	(void)listen_at(&d);
	late = connect_to(&a, 0);
	offer = next_offer(&d);
	cr_assert_eq(offer.generation, offered.generation);
	rawsession_accept(&offer);
	rawsession_drop(&offer);
	offer = next_offer(&d);
	cr_assert_eq(offer.generation, waiting.generation);
	rawsession_accept(&offer);
	rawsession_drop(&offer);
	offer = next_offer(&d);
	cr_assert_eq(offer.generation, late.generation);
	rawsession_drop(&offer);
}

/* C-9: for the first listener as well; and for one that opens a kept name. */
Test(offers, whoever_awaits_a_listener_is_answered_when_there_is_one)
{
	union message open = rawpeer_open_message(IPC_ROLE_SESSION, "l", IPC_AWAIT);
	struct rawsession offer;
	uint64_t id;

	rawpeer_send(&b, &open);
	rawpeer_sync(&d);
	cr_assert_eq(rawsession_listen(&a, "l", IPC_CREATE | IPC_KEEP, WINDOW, &id), 0);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_RESERVE);
	cr_assert_eq(rawpeer_reserve(&b, b.last_id, &id), 0);
	offer = next_offer(&a);
	rawsession_accept(&offer);
	rawsession_drop(&offer);
	rawpeer_disconnect(&a);
	rawpeer_sync(&d);

	rawpeer_send(&c, &open);
	rawpeer_sync(&d);
	cr_assert_eq(rawpeer_receive(&c, NEVER), RAWPEER_NOTHING);
	cr_assert_eq(rawpeer_open_role(&d, IPC_ROLE_LISTENER, "l", 0, &id), 0);
	cr_assert_eq(rawpeer_answer(&c, c.last_id), MESSAGE_RESERVE);
	rawpeer_disconnect(&c);
	rawpeer_disconnect(&b);
	rawpeer_sync(&d);
	cr_assert_eq(rawpeer_remove(&d, "l", 0), 0);
}

/* C-15, M-48: the name goes; who listens goes on with those who came by it. */
Test(offers, a_removed_listener_serves_those_who_wait)
{
	struct rawsession session, offer;

	(void)listen_at(&a);
	session = connect_to(&b, 0);
	cr_assert_eq(rawpeer_remove(&c, "l", 0), 0);
	cr_assert_eq(rawsession_connect(&c, "l", 0, &offer), IPC_ENOENT);

	offer = next_offer(&a);
	cr_assert_eq(offer.generation, session.generation);
	rawsession_accept(&offer);
	(void)rawpeer_until_side(&b, session.slot, 0, 1, 0);
	rawsession_drop(&offer);
}

/* ---- the worker's death ---- */

/* M-6, M-31: offers stand, the line goes on in its order. */
Test(offers, the_next_worker_knows_what_is_offered)
{
	struct rawsession first, second, offer;

	(void)listen_at(&a);
	first = connect_to(&b, 0);
	second = connect_to(&c, 0);
	offer = next_offer(&a);
	domain_kill_worker(&domain);
	cr_assert(rawsession_is_open(&offer));
	rawsession_accept(&offer);
	cr_assert_eq(rawpeer_until_side(&b, first.slot, 0, 1, 0), side_make(0, 1, SIDE_EVER));
	rawsession_drop(&offer);

	offer = next_offer(&a);
	cr_assert_eq(offer.generation, second.generation);
	rawsession_drop(&offer);
}
