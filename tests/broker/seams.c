/* SPDX-License-Identifier: MIT */

/*
 * Where broker and library meet, by hand: a client that does not read, a close that could not be
 * sent, who is woken by the death of one who may have stood in the line for a lock, and what the
 * last owner of a session's end had said.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/session.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawsession.h"

static struct domain domain;
static struct rawpeer a, b, c;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&c, domain.address);
}

static void teardown(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	rawpeer_disconnect(&c);
	domain_stop(&domain);
}

TestSuite(seams, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t open_role(struct rawpeer *peer, uint32_t role, const char *name)
{
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(peer, role, name, IPC_CREATE, &id), 0);
	return id;
}

static uint32_t attention(const struct rawpeer *peer)
{
	return atomic_load(&peer->table->attention[peer->slot].word);
}

/* ---- a client that does not read ---- */

enum { N_CHANNELS = PROTOCOL_LIST_MAX, N_LISTS = 60 };

/* More answers than its socket has room for. */
static uint64_t ask_without_reading(struct rawpeer *peer)
{
	union message list;
	uint64_t first;
	char name[16];

	for (unsigned i = 0; i < N_CHANNELS; ++i) {
		snprintf(name, sizeof(name), "c%u", i);
		open_role(peer, IPC_ROLE_SHARED_A, name);
	}

	first = peer->last_id + 1;
	for (unsigned i = 0; i < N_LISTS; ++i) {
		message_init(&list, MESSAGE_LIST, 0);
		strcpy(list.list.pattern, "*");
		rawpeer_send(peer, &list);
	}

	/* The broker has had its turns at them when it has answered others as often. */
	for (unsigned i = 0; i < N_LISTS; ++i)
		rawpeer_sync(&b);
	return first;
}

static void read_all(struct rawpeer *peer, uint64_t first)
{
	for (unsigned i = 0; i < N_LISTS; ++i) {
		cr_assert_eq(rawpeer_receive(peer, 30000), MESSAGE_LISTED, "%u", i);
		cr_assert_eq(peer->reply.head.request_id, first + i);
		cr_assert_eq(peer->reply.listed.n, N_CHANNELS);
	}
}

/* M-24, M-60: slow is not dead; every request is answered once there is room, and only once. */
Test(seams, requests_of_a_client_that_does_not_read_wait)
{
	uint64_t first = ask_without_reading(&a);

	read_all(&a, first);

	cr_assert_eq(rawpeer_receive(&a, 50), RAWPEER_NOTHING);
	rawpeer_sync(&a);
}

/* M-22, M-44: what it closes meanwhile is told at once. */
Test(seams, closes_of_a_client_that_does_not_read_are_heard)
{
	uint64_t id = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w");
	uint32_t slot = a.reply.opened.channel_slot;

	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w");
	(void)ask_without_reading(&a);

	atomic_store(&a.desk->cell[LIVENESS_SLOT(id)].closed_id, id);
	rawpeer_close(&a, id);
	cr_assert_not(rawpeer_until_side(&b, slot, 0, 0, 1) & SIDE_DIED);

	rawpeer_disconnect(&a);
}

/* M-24: nor do its opens that are granted late end it. */
Test(seams, grants_to_a_client_that_does_not_read_wait)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "late", IPC_AWAIT);
	uint64_t request_id, first;

	rawpeer_send(&a, &open);
	request_id = a.last_id;
	first = ask_without_reading(&a);

	open_role(&b, IPC_ROLE_WATCH_PRODUCER, "late");
	for (unsigned i = 0; i <= N_LISTS; ++i) {
		int type = rawpeer_receive(&a, 30000);

		if (a.reply.head.request_id == request_id) {
			cr_assert_eq(type, MESSAGE_OPENED);
			request_id = 0;
		} else {
			cr_assert_eq(type, MESSAGE_LISTED);
			cr_assert_eq(a.reply.head.request_id, first++);
		}
	}
	cr_assert_eq(request_id, 0);
	rawpeer_sync(&a);
}

/* M-60: who neither asks nor reads any more is gone, and keeps nobody busy. */
Test(seams, a_client_that_does_not_read_and_hangs_up_is_ended)
{
	uint32_t slot;

	open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w");
	slot = a.reply.opened.channel_slot;
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w");
	(void)ask_without_reading(&a);

	cr_assert_eq(shutdown(a.fd, SHUT_WR), 0);
	cr_assert(rawpeer_until_side(&b, slot, 0, 0, 1) & SIDE_DIED);
}

/* ---- a close that could not be sent ---- */

/* M-44: it comes before what was asked after it. */
Test(seams, a_close_in_the_desk_comes_before_the_next_open)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_CREATE);
	uint64_t id, next;

	open.open.shape_new[1] = 1;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	rawpeer_sync(&a);

	rawpeer_close_silently(&a, id);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", 0, &next), IPC_ENOENT,
		     "it was the channel's last handle");
}

/* ---- a line for a lock ---- */

/* W-3, W-11: the dead one may have been woken to take the lock; producers have one, consumers do
 * not. */
Test(seams, a_producers_death_wakes_the_other_producers)
{
	uint32_t before_a, before_b;
	uint64_t id;

	open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w");
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w");
	id = open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w");
	before_a = attention(&a);
	before_b = attention(&b);

	rawpeer_disconnect(&c);

	while (liveness_handle_is(a.table, id))
		rawpeer_sync(&a);
	rawpeer_sync(&a);
	cr_assert_eq(attention(&a), before_a + 1);
	cr_assert_eq(attention(&b), before_b + 1);
}

/* ---- sessions ---- */

#define SOON 5000

static struct rawsession acceptor, connector;

static void listen_by(struct rawpeer *peer)
{
	uint64_t id;

	cr_assert_eq(rawsession_listen(peer, "l", IPC_CREATE, 30 * NS_PER_S, &id), 0);
}

static void get_offer(struct rawpeer *peer, struct rawsession *ret)
{
	cr_assert(rawsession_offer(peer, SOON, ret));
	rawsession_drop(ret);
}

/* The accepted end is a's, the other one b's. */
static void establish(void)
{
	listen_by(&a);
	cr_assert_eq(rawsession_connect(&b, "l", 0, &connector), 0);
	cr_assert(rawsession_offer(&a, SOON, &acceptor));
	rawsession_accept(&acceptor);
	(void)rawpeer_until_side(&b, connector.slot, SESSION_SIDE_ACCEPTED, 1, 0);
	rawsession_drop(&acceptor);
	rawsession_drop(&connector);
}

/* C-3, C-9: its new key is all that it may have stored.  The answer to what it had asked before is
 * what tells the broker of its end. */
Test(seams, what_a_dead_listener_had_taken_back_was_taken)
{
	pid_t worker = domain_worker(&domain);
	struct rawsession taken, resumed;
	union message info;

	establish();
	rawpeer_disconnect(&a);
	(void)rawpeer_until_side(&b, connector.slot, SESSION_SIDE_ACCEPTED, 0, 1);
	listen_by(&c);
	get_offer(&c, &taken);
	cr_assert(taken.is_taken_back);

	kill(worker, SIGSTOP);
	message_init(&info, MESSAGE_INFO, 0);
	strcpy(info.info.name, "l");
	rawpeer_send(&c, &info);
	rawsession_say_taken(&taken, true);
	rawpeer_disconnect(&c);
	kill(worker, SIGCONT);

	(void)rawpeer_until_side(&b, connector.slot, SESSION_SIDE_ACCEPTED, 0, 2);
	cr_assert_eq(rawsession_resume(&b, taken.key, &resumed), 0);
	rawsession_drop(&resumed);
}

/* C-14, M-44: and not away. */
Test(seams, an_end_that_its_dead_owner_had_closed_by_the_desk_is_closed)
{
	pid_t worker = domain_worker(&domain);

	establish();
	kill(worker, SIGSTOP);
	rawpeer_close_silently(&a, acceptor.id);
	rawpeer_disconnect(&a);
	kill(worker, SIGCONT);

	cr_assert_eq(rawpeer_until_side(&b, connector.slot, SESSION_SIDE_ACCEPTED, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_FINAL));
}

/* C-15: the listener's channel may be gone before what was offered to it.  Its handle is the first
 * to end if its slot is the highest and a new worker has made the lists. */
Test(seams, a_listener_that_dies_with_an_offer_has_died)
{
	uint64_t low = open_role(&a, IPC_ROLE_SHARED_A, "low");
	uint64_t next = open_role(&a, IPC_ROLE_SHARED_A, "next");
	struct rawsession offer;
	uint32_t ends;

	listen_by(&a);
	rawpeer_close(&a, low);
	rawpeer_close(&a, next);
	rawpeer_sync(&a);
	cr_assert_eq(rawsession_connect(&b, "l", 0, &connector), 0);
	rawsession_drop(&connector);
	get_offer(&a, &offer);
	cr_assert_lt(LIVENESS_SLOT(offer.id), LIVENESS_SLOT(offer.listener_id));
	ends = 1 + side_ends(liveness_side(b.table, connector.slot, SESSION_SIDE_ACCEPTED));

	domain_kill_worker(&domain);
	rawpeer_disconnect(&a);
	cr_assert_eq(rawpeer_until_side(&b, connector.slot, SESSION_SIDE_ACCEPTED, 0, ends),
		     side_make(ends, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL));
}

/* M-27 */
Test(seams, a_death_wakes_the_other_end_and_no_listener)
{
	uint32_t before_a, before_c;

	establish();
	listen_by(&c);
	rawpeer_sync(&a);
	rawpeer_sync(&c);
	before_a = attention(&a);
	before_c = attention(&c);

	rawpeer_disconnect(&b);

	(void)rawpeer_until_side(&a, connector.slot, SESSION_SIDE_CONNECTED, 0, 1);
	rawpeer_sync(&a);
	cr_assert_gt(attention(&a), before_a);
	cr_assert_eq(attention(&c), before_c);
}
