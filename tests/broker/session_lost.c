/* SPDX-License-Identifier: MIT */

/*
 * Sessions whose window passes while the end is on offer, at a worker that dies at random crash
 * points: whose peer was told that it is over is offered to nobody any more.
 */

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/admin.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "tests/support/mortal.h"
#include "tests/support/rawsession.h"

/* A worker dies at one in 20 points: of so many windows nearly always one passes over a death. */
enum { SESSIONS = 6, OFFERS = 75, SOON = 30000, NEVER = 50 };

#define DEATHS "random:20"

static struct domain domain;
static struct rawpeer a, b, c, d;
static uint64_t window_ns = 300 * NS_PER_MS, newest;
static struct rawsession acceptors[SESSIONS], connectors[SESSIONS], offers[SESSIONS];

static void setup(void)
{
	domain_start_mortal(&domain, DEATHS);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&c, domain.address);
	rawpeer_join(&d, domain.address);
}

/* It may die over its own end. */
static void teardown(void)
{
	domain_kill(&domain);
}

static uint64_t listen_at(struct rawpeer *peer)
{
	uint64_t id;

	cr_assert_eq(rawsession_listen(peer, "l", IPC_CREATE, window_ns, &id), 0);
	return id;
}

/* Ids grow: an older one was said twice, by a worker that died over it and by the next. */
static bool next_offer(struct rawpeer *peer, unsigned timeout_ms, struct rawsession *ret)
{
	int type;

	while ((type = rawpeer_receive(peer, timeout_ms)) != RAWPEER_NOTHING &&
	       type != RAWPEER_END) {
		if (type != MESSAGE_OFFER)
			continue;
		rawsession_take_offer(peer, ret);
		if (ret->id > newest) {
			newest = ret->id;
			return true;
		}
		rawsession_drop(ret);
	}
	return false;
}

static void establish(void)
{
	uint64_t listener = listen_at(&a);

	for (unsigned i = 0; i < SESSIONS; ++i) {
		cr_assert_eq(rawsession_connect(&c, "l", 0, &connectors[i]), 0);
		cr_assert(next_offer(&a, SOON, &acceptors[i]));
		rawsession_accept(&acceptors[i]);
		rawpeer_sync(&d);
	}
	rawpeer_close(&a, listener);
}

/* To as many listeners, which have one offer each. */
static unsigned offer_all(uint64_t listeners[SESSIONS])
{
	unsigned n = 0;

	for (unsigned i = 0; i < SESSIONS; ++i)
		rawsession_detach(&acceptors[i]);
	for (unsigned i = 0; i < SESSIONS; ++i) {
		listeners[i] = listen_at(&b);

		/* None, if its window has passed. */
		if (next_offer(&b, NEVER, &offers[n]))
			++n;
	}
	return n;
}

static void until_all_are_over(void)
{
	for (unsigned i = 0; i < SESSIONS; ++i) {
		uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

		while (!(liveness_side(d.table, connectors[i].slot, SESSION_SIDE_ACCEPTED) &
			 SIDE_FINAL)) {
			cr_assert_lt(clock_now_ns(), deadline_ns, "session %u", i);
			rawpeer_sync(&d);
		}
	}
	rawpeer_sync(&d);
}

static void end_all(const uint64_t listeners[SESSIONS])
{
	for (unsigned i = 0; i < SESSIONS; ++i) {
		rawpeer_close(&b, listeners[i]);
		rawsession_close(&connectors[i]);
		rawsession_drop(&connectors[i]);
		rawsession_drop(&acceptors[i]);
	}
	rawpeer_sync(&b);
}

static unsigned play(void)
{
	uint64_t listeners[SESSIONS];
	unsigned n;

	establish();
	n = offer_all(listeners);
	until_all_are_over();
	for (unsigned i = 0; i < n; ++i) {
		cr_assert_not(rawsession_is_open(&offers[i]), "offer %u of %u", i, n);
		rawsession_drop(&offers[i]);
	}
	end_all(listeners);
	return n;
}

/* C-2, C-9, M-31 */
Test(session_lost, what_is_over_is_offered_to_nobody, .init = setup, .fini = teardown,
     .timeout = 700)
{
	unsigned n_offers = 0;

	while (n_offers < OFFERS) {
		unsigned n = play();

		/* They pass before that on a busy machine. */
		if (n < SESSIONS / 2)
			window_ns *= 2;
		n_offers += n;
	}
}
