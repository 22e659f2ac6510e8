/* SPDX-License-Identifier: MIT */

/*
 * What the broker has not heard yet when it decides on an OPEN, by hand: closes that stand in a
 * desk, clients that have ended.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawsession.h"

#define WINDOW (30 * NS_PER_S)
#define SOON   5000

static struct domain domain;
static struct rawpeer a, b, c;

/* a has accepted, b has connected. */
static struct rawsession acceptor, connector;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&c, domain.address);
}

static void teardown(void)
{
	rawsession_drop(&acceptor);
	rawsession_drop(&connector);
	if (a.fd >= 0)
		rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	rawpeer_disconnect(&c);
	domain_stop(&domain);
}

TestSuite(news, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t listen_at(struct rawpeer *peer)
{
	uint64_t id;

	cr_assert_eq(rawsession_listen(peer, "l", IPC_CREATE, WINDOW, &id), 0);
	return id;
}

static uint64_t until_side(unsigned side, uint32_t count, uint32_t ends)
{
	return rawpeer_until_side(&c, connector.slot, side, count, ends);
}

static void connect_and_offer(void)
{
	(void)listen_at(&a);
	cr_assert_eq(rawsession_connect(&b, "l", 0, &connector), 0);
	cr_assert(rawsession_offer(&a, SOON, &acceptor));
}

static void establish(void)
{
	connect_and_offer();
	rawsession_accept(&acceptor);
	(void)until_side(SESSION_SIDE_ACCEPTED, 1, 0);
}

/* As who finds no room for a message. */
static void say_detached(const struct rawsession *session)
{
	atomic_store(&session->peer->desk->cell[LIVENESS_SLOT(session->id)].detached_id,
		     session->id);
	rawpeer_close_silently(session->peer, session->id);
}

/* From the moment when all that c said before is heard first. */
static pid_t hold_broker(void)
{
	pid_t worker = domain_worker(&domain);
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(&c, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	kill(worker, SIGSTOP);
	rawpeer_close(&c, id);
	return worker;
}

/* C-3, M-44 */
Test(news, the_key_of_an_end_that_was_closed_is_void)
{
	struct rawsession session;

	establish();
	rawpeer_close_silently(&a, acceptor.id);
	cr_assert_eq(rawsession_resume(&c, acceptor.key, &session), IPC_ESTALE);
	cr_assert_eq(until_side(SESSION_SIDE_ACCEPTED, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	rawsession_drop(&session);
}

/* C-3: accepted by its word alone, and handed on. */
Test(news, the_key_of_an_end_that_was_just_accepted_is_good)
{
	struct rawsession session;

	connect_and_offer();
	cr_assert_eq(rawsession_resume(&c, acceptor.key, &session), IPC_ESTALE);
	rawsession_decide(&acceptor, SESSION_ACCEPTED);
	cr_assert_eq(rawsession_resume(&c, acceptor.key, &session), 0);
	cr_assert_not(rawsession_is_open(&acceptor));
	rawsession_say_taken(&acceptor, true);
	rawpeer_sync(&a);
	cr_assert(rawsession_is_open(&session));
	rawsession_drop(&session);
}

/* C-13: the step to gone is told before the end is back. */
Test(news, an_end_that_was_detached_was_gone_before_it_is_resumed)
{
	struct rawsession session;

	establish();
	say_detached(&acceptor);
	cr_assert_eq(rawsession_resume(&c, acceptor.key, &session), 0);
	cr_assert_eq(until_side(SESSION_SIDE_ACCEPTED, 1, 1),
		     side_make(1, 1, SIDE_EVER | SIDE_DIED));
	rawsession_drop(&session);
}

/* C-9, C-13: detached means away. */
Test(news, what_was_detached_before_a_listener_opened_is_taken_back)
{
	struct rawsession taken;

	establish();
	say_detached(&acceptor);
	(void)listen_at(&c);
	cr_assert(rawsession_offer(&c, SOON, &taken));
	cr_assert(taken.is_taken_back);
	cr_assert_eq(taken.generation, connector.generation);
	rawsession_drop(&taken);
}

/* C-9: accepted by its word alone. */
Test(news, what_was_accepted_and_detached_before_a_listener_opened_is_taken_back)
{
	struct rawsession taken;

	connect_and_offer();
	rawsession_decide(&acceptor, SESSION_ACCEPTED);
	say_detached(&acceptor);
	(void)listen_at(&c);
	cr_assert(rawsession_offer(&c, SOON, &taken));
	cr_assert(taken.is_taken_back);
	rawsession_drop(&taken);
}

/* C-9, M-24 */
Test(news, what_a_client_had_that_ended_before_a_listener_opened_is_taken_back)
{
	union message open = rawpeer_open_message(IPC_ROLE_LISTENER, "l", IPC_CREATE);
	struct rawsession taken;
	pid_t worker;
	uint64_t id;

	establish();
	open.open.shape_new[2] = WINDOW;
	worker = hold_broker();
	rawpeer_disconnect(&a);
	rawpeer_send(&c, &open);
	kill(worker, SIGCONT);

	cr_assert_eq(rawpeer_answer(&c, c.last_id), MESSAGE_RESERVE);
	cr_assert_eq(rawpeer_reserve(&c, c.last_id, &id), 0);
	cr_assert(rawsession_offer(&c, SOON, &taken));
	cr_assert(taken.is_taken_back);
	rawsession_drop(&taken);
}

/* I-13, M-44 */
Test(news, a_role_is_free_that_was_closed)
{
	uint64_t id, next;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_INBOX_RECEIVER, "i", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_INBOX_SENDER, "i", 0, &next), 0);
	cr_assert_eq(rawpeer_open_role(&c, IPC_ROLE_INBOX_RECEIVER, "i", 0, &next), IPC_EBUSY);
	rawpeer_close_silently(&a, id);
	cr_assert_eq(rawpeer_open_role(&c, IPC_ROLE_INBOX_RECEIVER, "i", 0, &next), 0);
}

/* I-13, M-24 */
Test(news, a_role_is_free_whose_client_has_ended)
{
	union message open = rawpeer_open_message(IPC_ROLE_INBOX_SENDER, "i", 0);
	uint64_t id, other;
	pid_t worker;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_INBOX_SENDER, "i", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_INBOX_RECEIVER, "i", 0, &other), 0);
	worker = hold_broker();
	rawpeer_disconnect(&a);
	rawpeer_send(&c, &open);
	kill(worker, SIGCONT);

	cr_assert_eq(rawpeer_answer(&c, c.last_id), MESSAGE_OPENED);
}
