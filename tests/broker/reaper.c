/* SPDX-License-Identifier: MIT */

/*
 * Ends, told through the liveness table: by close, by death, by removal; who is woken and who is
 * not; the same over a worker's death.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/wire/codec.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/process.h"
#include "tests/support/rawpeer.h"

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
	if (c.fd >= 0)
		rawpeer_disconnect(&c);
	domain_stop(&domain);
}

TestSuite(reaper, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t open_role(struct rawpeer *peer, uint32_t role, const char *name, uint32_t *ret_slot)
{
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(peer, role, name, IPC_CREATE, &id), 0);
	if (ret_slot)
		*ret_slot = peer->reply.opened.channel_slot;
	return id;
}

static uint32_t attention(const struct rawpeer *peer)
{
	return atomic_load(&peer->table->attention[peer->slot].word);
}

/* The worker is killed; returns when the next one has done what was sent to it. */
static void restart(void)
{
	pid_t worker = domain_worker(&domain);
	int pidfd = process_open(worker);

	kill(worker, SIGKILL);
	process_until_ended(pidfd, 5000);
	close(pidfd);
	rawpeer_sync(&a);
}

/* M-22: a close is told as a close. */
Test(reaper, closing_the_last_handle_ends_the_side_by_close)
{
	uint32_t slot;
	uint64_t id = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", &slot);
	uint64_t word;

	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	rawpeer_close(&a, id);

	word = rawpeer_until_side(&b, slot, 0, 0, 1);
	cr_assert(side_is_gone(word));
	cr_assert_eq(side_ends(word), 1);
	cr_assert_eq(word & SIDE_FLAGS, SIDE_EVER);
	cr_assert_not(liveness_handle_is(b.table, id));
}

/* M-22: one of two is no end. */
Test(reaper, closing_one_of_two_handles_ends_nothing)
{
	uint32_t slot, before;
	uint64_t id = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", &slot);
	uint64_t word;

	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w", NULL);
	before = attention(&b);
	rawpeer_close(&a, id);
	rawpeer_sync(&a);

	word = liveness_side(b.table, slot, 0);
	cr_assert_eq(side_count(word), 1);
	cr_assert_eq(side_ends(word), 0);
	cr_assert_eq(attention(&b), before, "woken for nothing");
}

/* M-22, M-24 */
Test(reaper, a_lost_connection_is_a_death)
{
	uint32_t slot;
	uint64_t id = open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w", &slot);
	uint64_t word;

	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	rawpeer_disconnect(&c);

	word = rawpeer_until_side(&b, slot, 0, 0, 1);
	cr_assert_eq(word & SIDE_FLAGS, SIDE_EVER | SIDE_DIED);
	cr_assert_not(liveness_handle_is(b.table, id));
}

/* M-22: what it had closed before it died was closed. */
Test(reaper, a_handle_closed_before_the_death_was_closed)
{
	uint32_t slot1, slot2;
	uint64_t id1 = open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w1", &slot1);
	uint64_t id2 = open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w2", &slot2);

	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w1", NULL);
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w2", NULL);
	rawpeer_close(&c, id1);
	rawpeer_close_silently(&c, id2);
	rawpeer_disconnect(&c);

	cr_assert_eq(rawpeer_until_side(&b, slot1, 0, 0, 1) & SIDE_DIED, 0);
	cr_assert_eq(rawpeer_until_side(&b, slot2, 0, 0, 1) & SIDE_DIED, 0);
}

/* M-44: a closing that could not be sent is read from the desk as soon as the queue is empty. */
Test(reaper, a_closing_in_the_desk_is_found)
{
	uint32_t slot;
	uint64_t id = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", &slot);

	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	rawpeer_close_silently(&a, id);
	rawpeer_sync(&a);

	cr_assert_eq(rawpeer_until_side(&b, slot, 0, 0, 1) & SIDE_FLAGS, SIDE_EVER);
}

static void hold_both(struct actor *self, void *arg)
{
	struct rawpeer peer;
	uint64_t id;
	pid_t child;

	(void)arg;
	rawpeer_join(&peer, domain.address);
	if (rawpeer_open_role(&peer, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &id) < 0)
		_exit(1);

	/* It inherits the socket and holds it open. */
	child = process_fork();
	if (child == 0) {
		for (;;)
			pause();
	}
	actor_say(self, child);
	actor_say(self, peer.reply.opened.channel_slot);
	(void)actor_hear(self);
}

/* M-24: a forked child that holds the socket keeps nothing alive. */
Test(reaper, a_death_is_seen_although_a_child_holds_the_socket)
{
	struct actor actor;
	uint32_t slot;
	uint64_t word;

	actor_start(&actor, hold_both, NULL);
	(void)actor_hear(&actor);
	slot = (uint32_t)actor_hear(&actor);
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", NULL);

	actor_kill(&actor);

	word = rawpeer_until_side(&b, slot, 0, 0, 1);
	cr_assert(word & SIDE_DIED);
}

/* M-22: awaited is not gone; the step to present is told. */
Test(reaper, presence_is_told_to_the_opposite_side)
{
	uint32_t slot, before;
	uint64_t word;

	open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", &slot);
	word = liveness_side(a.table, slot, 0);
	cr_assert_not(side_is_gone(word));

	before = attention(&a);
	open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", NULL);
	cr_assert_neq(attention(&a), before);
	cr_assert_eq(side_count(liveness_side(a.table, slot, 0)), 1);
}

/* P15, M-27: a death wakes nobody who is not concerned; a death among several still wakes the
 * others, once. */
Test(reaper, a_death_wakes_those_concerned_only)
{
	uint32_t before_a, before_b;
	uint32_t slot;

	open_role(&a, IPC_ROLE_WATCH_CONSUMER, "other", NULL);
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w1", &slot);
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w2", NULL);
	open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w1", NULL);
	open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w2", NULL);
	before_a = attention(&a);
	before_b = attention(&b);

	rawpeer_disconnect(&c);

	(void)rawpeer_until_side(&b, slot, 0, 0, 1);
	rawpeer_sync(&b);
	cr_assert_eq(attention(&a), before_a);
	cr_assert_eq(attention(&b), before_b + 1, "two channels, one bump");
}

/* S, D5: a dead notifier of a shared may have swallowed the wake of anybody on the channel. */
Test(reaper, a_death_on_a_shared_wakes_the_own_side_too)
{
	uint32_t before_a, before_b;
	uint64_t id;

	open_role(&a, IPC_ROLE_SHARED_A, "s", NULL);
	open_role(&b, IPC_ROLE_SHARED_B, "s", NULL);
	open_role(&c, IPC_ROLE_SHARED_A, "s", NULL);
	id = c.reply.opened.handle_id;
	before_a = attention(&a);
	before_b = attention(&b);

	rawpeer_disconnect(&c);

	while (liveness_handle_is(a.table, id))
		rawpeer_sync(&a);
	rawpeer_sync(&a);
	cr_assert_eq(attention(&a), before_a + 1);
	cr_assert_eq(attention(&b), before_b + 1);
}

/* M-48 */
Test(reaper, removal_frees_the_name_and_makes_sides_final)
{
	uint32_t slot, before;
	uint64_t id, generation, word;

	open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", &slot);
	generation = a.reply.opened.generation;
	before = attention(&a);

	cr_assert_eq(rawpeer_remove(&b, "w", generation + 1), IPC_ESTALE);
	cr_assert_eq(rawpeer_remove(&b, "w", generation), 0);

	word = liveness_side(a.table, slot, 0);
	cr_assert(word & SIDE_FINAL);
	cr_assert_eq(side_ends(word), 1);
	cr_assert_eq(attention(&a), before + 1);
	word = liveness_side(a.table, slot, 1);
	cr_assert_not(word & SIDE_FINAL, "its consumer goes on");
	cr_assert_eq(side_count(word), 1);

	cr_assert_eq(rawpeer_remove(&b, "w", 0), IPC_ENOENT);
	id = open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", NULL);
	cr_assert_neq(b.reply.opened.generation, generation);
	cr_assert_neq(b.reply.opened.channel_slot, slot);
	rawpeer_close(&b, id);
}

/* M-48: the other side's last handle makes it final later. */
Test(reaper, a_removed_channels_last_handle_of_a_side_is_final)
{
	uint32_t slot;
	uint64_t id = open_role(&a, IPC_ROLE_SHARED_A, "s", &slot);

	open_role(&b, IPC_ROLE_SHARED_B, "s", NULL);
	cr_assert_eq(rawpeer_remove(&b, "s", 0), 0);
	cr_assert_eq(liveness_side(b.table, slot, 0) & SIDE_FINAL, 0);
	rawpeer_close(&a, id);
	cr_assert_eq(rawpeer_until_side(&b, slot, 0, 0, 1) & SIDE_FLAGS, SIDE_EVER | SIDE_FINAL);
}

/* M-43: ends with the last handle of any side; the slot's next tenant begins as awaited, and its
 * count of ends never goes back. */
Test(reaper, a_channel_ends_with_its_last_handle)
{
	uint32_t slot, slot2;
	uint64_t producer = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", &slot);
	uint64_t consumer = open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	uint64_t id, word;

	rawpeer_close(&a, producer);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), 0,
		     "the value stays while any handle is open");
	rawpeer_close(&a, id);
	rawpeer_close(&a, consumer);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), IPC_ENOENT);

	open_role(&a, IPC_ROLE_WATCH_CONSUMER, "next", &slot2);
	cr_assert_eq(slot2, slot);
	word = liveness_side(a.table, slot, 0);
	cr_assert_not(side_is_gone(word));
	cr_assert_eq(side_ends(word), 1);
}

/* M-31: a death while no worker runs is told by the next one. */
Test(reaper, a_death_during_a_restart_is_told_afterwards)
{
	uint32_t slot;
	pid_t worker = domain_worker(&domain);

	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	open_role(&c, IPC_ROLE_WATCH_PRODUCER, "w", &slot);
	kill(worker, SIGSTOP);
	rawpeer_disconnect(&c);
	kill(worker, SIGKILL);

	cr_assert(rawpeer_until_side(&b, slot, 0, 0, 1) & SIDE_DIED);
}

/* M-6, D12: handles, names and counts outlive the worker; nothing is told that did not happen. */
Test(reaper, a_restart_changes_nothing)
{
	uint32_t slot, before;
	uint64_t producer, consumer, id;

	producer = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", &slot);
	consumer = open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	before = attention(&b);

	for (int i = 0; i < 3; ++i)
		restart();

	cr_assert_eq(attention(&b), before);
	cr_assert(liveness_handle_is(b.table, producer));
	cr_assert(liveness_handle_is(b.table, consumer));
	cr_assert_eq(liveness_side(b.table, slot, 0), side_make(0, 1, SIDE_EVER));
	cr_assert_eq(liveness_side(b.table, slot, 1), side_make(0, 1, SIDE_EVER));
	cr_assert_eq(rawpeer_open_role(&c, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), 0);
	cr_assert_eq(c.reply.opened.channel_slot, slot);
	rawpeer_close(&a, producer);
	cr_assert_eq(rawpeer_until_side(&b, slot, 0, 0, 1), side_make(1, 0, SIDE_EVER));
}

/* D12: an open that waits goes on waiting for the next worker. */
Test(reaper, pendings_outlive_the_worker)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_AWAIT);
	uint64_t request_id;

	rawpeer_send(&b, &open);
	request_id = b.last_id;
	rawpeer_sync(&b);
	restart();
	open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", NULL);

	cr_assert_eq(rawpeer_answer(&b, request_id), MESSAGE_OPENED);
}

/* D8, D12: the reserver goes on as if nothing had been. */
Test(reaper, a_reservation_outlives_the_worker)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	uint64_t id;
	int fd;

	rawpeer_send(&b, &open);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_RESERVE);
	fd = b.fds[0];
	restart();
	cr_assert_geq(fd, 0);
	cr_assert_eq(rawpeer_reserve(&b, b.last_id, &id), 0);
	cr_assert_eq(rawpeer_open_role(&c, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), 0);
}

/* M-44, M-31 */
Test(reaper, closings_in_the_desk_outlive_the_worker)
{
	uint32_t slot;
	uint64_t id = open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", &slot);

	open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", NULL);
	rawpeer_close_silently(&b, id);
	restart();

	cr_assert_eq(rawpeer_until_side(&a, slot, 0, 0, 1) & SIDE_FLAGS, SIDE_EVER);
}

/* clients are told of an orderly end. */
Test(reaper, an_orderly_end_is_told)
{
	uint32_t before = attention(&a);

	domain_stop(&domain);

	cr_assert_eq(rawpeer_receive(&a, 30000), RAWPEER_END);
	cr_assert_eq(atomic_load(&a.table->domain), DOMAIN_ENDED);
	cr_assert_neq(attention(&a), before);
	domain_start(&domain, NULL);
}
