/* SPDX-License-Identifier: MIT */

/*
 * Offers to a listener that does not read its answers: its socket is full, and it lives.
 */

#include <criterion/criterion.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/failure.h"
#include "tests/support/rawsession.h"

#define WINDOW (30 * NS_PER_S)
#define SOON   5000
#define NEVER  50

/* More requests in turn than one client has done before the others (broker/dispatch.c), twice. */
enum { ANSWERS_MAX = 5000, TURNS = 40 };

static struct domain domain;
static struct rawpeer a, b, c, d;
static uint64_t listener_id;
static struct rawsession connector;

/* Bytes of answers that it has not read. */
static int n_answered(const struct rawpeer *peer)
{
	int n;

	if (ioctl(peer->fd, SIOCINQ, &n) < 0)
		failure("SIOCINQ");
	return n;
}

/* Until it is not answered any more, however often others are. */
static void fill_socket(struct rawpeer *peer)
{
	union message info;

	message_init(&info, MESSAGE_INFO, 0);
	strcpy(info.info.name, "l");
	for (unsigned i = 0; i < ANSWERS_MAX; ++i) {
		int n = n_answered(peer);
		unsigned n_turns = 0;

		rawpeer_send(peer, &info);
		while (n_turns < TURNS && n_answered(peer) == n) {
			rawpeer_sync(&d);
			++n_turns;
		}
		if (n_turns == TURNS)
			return;
	}
	failure("its socket never fills");
}

static uint64_t listen_at(struct rawpeer *peer)
{
	uint64_t id;

	if (rawsession_listen(peer, "l", IPC_CREATE, WINDOW, &id) < 0)
		failure("no listener");
	return id;
}

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&c, domain.address);
	rawpeer_join(&d, domain.address);
	listener_id = listen_at(&a);
	fill_socket(&a);
}

static void teardown(void)
{
	rawsession_drop(&connector);
	if (a.fd >= 0)
		rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	rawpeer_disconnect(&c);
	rawpeer_disconnect(&d);
	domain_stop(&domain);
}

TestSuite(offers_slow, .init = setup, .fini = teardown, .timeout = 60);

/* Reads all that is there.  How many offers; the last one. */
static unsigned read_offers(struct rawpeer *peer, struct rawsession *ret)
{
	unsigned n = 0;
	int type;

	while ((type = rawpeer_receive(peer, n == 0 ? SOON : NEVER)) != RAWPEER_NOTHING) {
		if (type != MESSAGE_OFFER)
			continue;
		if (n++ > 0)
			rawsession_drop(ret);
		rawsession_take_offer(peer, ret);
	}
	return n;
}

static void connect_now(void)
{
	cr_assert_eq(rawsession_connect(&b, "l", 0, &connector), 0);
}

static uint64_t word_of(unsigned side)
{
	return liveness_side(d.table, connector.slot, side);
}

static void expect_accepted(struct rawsession *offer)
{
	cr_assert_eq(offer->generation, connector.generation);
	rawsession_accept(offer);
	cr_assert_eq(rawpeer_until_side(&d, connector.slot, SESSION_SIDE_ACCEPTED, 1, 0),
		     side_make(0, 1, SIDE_EVER));
	rawsession_drop(offer);
}

/* C-15 */
Test(offers_slow, it_is_offered_once_there_is_room)
{
	struct rawsession offer;

	connect_now();
	cr_assert_eq(word_of(SESSION_SIDE_ACCEPTED), 0, "neither offered nor refused");
	cr_assert_eq(read_offers(&a, &offer), 1);
	expect_accepted(&offer);
}

/* C-15: who reads gets it. */
Test(offers_slow, another_listener_gets_it)
{
	struct rawsession offer, late;

	(void)listen_at(&c);
	connect_now();
	cr_assert(rawsession_offer(&c, SOON, &offer));
	expect_accepted(&offer);

	rawpeer_sync(&d);
	while (rawpeer_receive(&a, NEVER) != RAWPEER_NOTHING)
		cr_assert_neq(a.reply.head.type, MESSAGE_OFFER);
	cr_assert_not(rawsession_offer(&c, 0, &late));
}

/* C-15 */
Test(offers_slow, one_that_was_given_up_meanwhile_is_not_offered)
{
	struct rawsession offer;

	connect_now();
	rawsession_close(&connector);
	rawsession_drop(&connector);
	connect_now();
	cr_assert_eq(read_offers(&a, &offer), 1);
	expect_accepted(&offer);
}

/* C-15 */
Test(offers_slow, its_death_refuses_who_waits)
{
	connect_now();
	rawpeer_disconnect(&a);
	cr_assert_eq(rawpeer_until_side(&d, connector.slot, SESSION_SIDE_ACCEPTED, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL));
}

/* C-15, M-44: by its desk, which is read though its requests are not. */
Test(offers_slow, its_close_refuses_who_waits)
{
	connect_now();
	rawpeer_close_silently(&a, listener_id);
	rawpeer_close(&a, listener_id);
	cr_assert_eq(rawpeer_until_side(&d, connector.slot, SESSION_SIDE_ACCEPTED, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_FINAL));
}

/* M-31 */
Test(offers_slow, the_next_worker_offers_it_when_there_is_room)
{
	struct rawsession offer;

	connect_now();
	domain_kill_worker(&domain);
	rawpeer_sync(&d);
	cr_assert_eq(word_of(SESSION_SIDE_ACCEPTED), 0);
	cr_assert_eq(read_offers(&a, &offer), 1);
	expect_accepted(&offer);
}
