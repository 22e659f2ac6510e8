/* SPDX-License-Identifier: MIT */

/*
 * Sessions as they are listed, by hand.
 */

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "tests/support/domain.h"
#include "tests/support/rawsession.h"

#define WINDOW (30 * NS_PER_S)
#define SOON   5000

static struct domain domain;
static struct rawpeer a, b, d;
static uint64_t listener_id;

/* a has accepted, b has connected. */
static struct rawsession acceptor, connector;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&d, domain.address);
}

static void teardown(void)
{
	rawsession_drop(&acceptor);
	rawsession_drop(&connector);
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	rawpeer_disconnect(&d);
	domain_stop(&domain);
}

TestSuite(session_list, .init = setup, .fini = teardown, .timeout = 60);

enum { ACCEPTED = SESSION_SIDE_ACCEPTED, CONNECTED = SESSION_SIDE_CONNECTED };

static void connect_both(struct rawsession *accepted, struct rawsession *connected)
{
	cr_assert_eq(rawsession_connect(&b, "l", 0, connected), 0);
	cr_assert(rawsession_offer(&a, SOON, accepted));
	rawsession_accept(accepted);
	(void)rawpeer_until_side(&d, accepted->slot, ACCEPTED, 1, 0);
}

static void establish(uint64_t window_ns)
{
	cr_assert_eq(rawsession_listen(&a, "l", IPC_CREATE, window_ns, &listener_id), 0);
	connect_both(&acceptor, &connector);
}

static unsigned n_listed(struct rawpeer *peer)
{
	cr_assert_eq(rawsession_list(peer, "l", 0), 0);
	return peer->reply.sessioned.n;
}

/* C-7, M-45: numbers and people, no keys. */
Test(session_list, those_of_a_name_are_listed)
{
	const struct message_session *info = &d.reply.sessioned.session[0];
	struct rawsession waiting;

	establish(WINDOW);
	cr_assert_eq(rawsession_connect(&b, "l", 0, &waiting), 0);
	cr_assert_eq(n_listed(&d), 1, "one that is not accepted is none yet");
	cr_assert_eq(info->generation, connector.generation);
	cr_assert_eq(info->capacity, 4096);
	for (unsigned side = 0; side < 2; ++side) {
		cr_assert_eq(info->pid[side], getpid());
		cr_assert_eq(info->uid[side], getuid());
		cr_assert_eq(info->away_ns[side], 0);
	}

	rawsession_detach(&connector);
	cr_assert_eq(n_listed(&d), 1);
	cr_assert_eq(info->pid[CONNECTED], 0);
	cr_assert_gt(info->away_ns[CONNECTED], 0);
	cr_assert_leq(info->away_ns[CONNECTED], WINDOW);
	cr_assert_eq(info->away_ns[ACCEPTED], 0);

	for (unsigned i = 0; i + sizeof(acceptor.key) <= d.reply.head.size; ++i)
		cr_assert_neq(memcmp(d.reply.bytes + i, acceptor.key + 16, 16), 0);
	cr_assert_eq(rawsession_list(&d, "nothing", 0), 0);
	cr_assert_eq(d.reply.sessioned.n, 0);
	rawsession_drop(&waiting);
}

/* M-45: pages, each session once. */
Test(session_list, many_are_listed_page_by_page)
{
	enum { N = PROTOCOL_SESSION_MAX + 3 };
	struct rawsession accepted, connected;
	uint64_t cursor = 0;
	unsigned n = 0;

	establish(WINDOW);
	for (unsigned i = 1; i < N; ++i) {
		connect_both(&accepted, &connected);
		rawsession_drop(&accepted);
		rawsession_drop(&connected);
	}

	do {
		cr_assert_eq(rawsession_list(&d, "l", cursor), 0);
		n += d.reply.sessioned.n;
		cursor = d.reply.sessioned.cursor;
	} while (cursor != PROTOCOL_CURSOR_END);
	cr_assert_eq(n, N);
}

/* M-51: a session is its connector's, also while nobody has it. */
Test(session_list, they_stay_without_handles_and_listener)
{
	uint64_t id;

	establish(WINDOW);
	rawsession_detach(&connector);
	rawsession_detach(&acceptor);
	rawpeer_close(&a, listener_id);
	rawpeer_sync(&a);
	cr_assert_eq(rawpeer_info(&d, "l"), IPC_ENOENT);
	cr_assert_eq(rawpeer_open_role(&d, IPC_ROLE_LISTENER, "l", IPC_CREATE, &id), 0);
	cr_assert_neq(d.reply.opened.channel_slot, connector.slot, "its slot is taken");
}
