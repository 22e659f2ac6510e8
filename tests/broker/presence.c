/* SPDX-License-Identifier: MIT */

/*
 * Who is told to look again: by deaths on a flight, by rings, across users.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"
#include "libipc/wire/codec.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
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

TestSuite(presence, .init = setup, .fini = teardown, .timeout = 60);

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

static void ring(struct rawpeer *peer, uint64_t handle_id)
{
	union message message;

	message_init(&message, MESSAGE_RING, 0);
	message.ring.handle_id = handle_id;
	rawpeer_send(peer, &message);
}

/* Until the word is another one; 30 s at most. */
static void until_changed(const _Atomic uint32_t *word, uint32_t from)
{
	struct futex_word sleep = {.word = word, .expected = from};
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	while (atomic_load(word) == from && clock_now_ns() < deadline_ns)
		(void)futex_sleep(&sleep, 1, deadline_ns);
	cr_assert_neq(atomic_load(word), from);
}

static void expect_death_is_told(uint32_t dying_role)
{
	uint32_t before_a, before_b, slot;

	open_role(&a, IPC_ROLE_FLIGHT_TABLE, "f");
	slot = a.reply.opened.channel_slot;
	open_role(&b, IPC_ROLE_HANDLER, "f");
	open_role(&c, dying_role, "f");
	rawpeer_sync(&c);
	before_a = attention(&a);
	before_b = attention(&b);

	rawpeer_disconnect(&c);
	until_changed(&a.table->attention[a.slot].word, before_a);
	until_changed(&b.table->attention[b.slot].word, before_b);
	(void)rawpeer_until_side(&a, slot, dying_role == IPC_ROLE_FLIGHT_TABLE, 1, 0);
}

/* F-2, F-9: a lead may have gone with it, though its side is still there. */
Test(presence, the_death_of_one_table_of_a_flight_is_told_to_both_sides)
{
	expect_death_is_told(IPC_ROLE_FLIGHT_TABLE);
}

/* F-9 */
Test(presence, the_death_of_one_handler_is_told_to_both_sides)
{
	expect_death_is_told(IPC_ROLE_HANDLER);
}

/* M-27: who closes has let go of everything before, and woken those concerned. */
Test(presence, the_close_of_one_table_of_several_is_told_to_nobody)
{
	uint32_t before_a, before_b;
	uint64_t id;

	open_role(&a, IPC_ROLE_FLIGHT_TABLE, "f");
	open_role(&b, IPC_ROLE_HANDLER, "f");
	id = open_role(&c, IPC_ROLE_FLIGHT_TABLE, "f");
	rawpeer_sync(&c);
	before_a = attention(&a);
	before_b = attention(&b);

	rawpeer_close(&c, id);
	rawpeer_sync(&c);

	cr_assert_eq(attention(&a), before_a);
	cr_assert_eq(attention(&b), before_b);
}

/* M-29 */
Test(presence, a_ring_is_heard_by_everybody_on_the_channel_and_nobody_else)
{
	uint32_t before_a, before_b, before_c;
	uint64_t id;

	id = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w");
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w");
	open_role(&c, IPC_ROLE_WATCH_CONSUMER, "elsewhere");
	rawpeer_sync(&c);
	before_a = attention(&a);
	before_b = attention(&b);
	before_c = attention(&c);

	ring(&a, id);
	rawpeer_sync(&a);

	cr_assert_eq(a.reply.head.request_id, a.last_id, "a ring is not answered");
	cr_assert_eq(attention(&a), before_a + 1);
	cr_assert_eq(attention(&b), before_b + 1);
	cr_assert_eq(attention(&c), before_c);
}

/* M-29, M-60 */
Test(presence, rings_by_handles_of_others_are_not_heard)
{
	uint32_t before_a, before_b;
	uint64_t id;

	id = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w");
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w");
	rawpeer_sync(&b);
	before_a = attention(&a);
	before_b = attention(&b);

	ring(&c, id);
	ring(&c, UINT64_MAX);
	rawpeer_sync(&c);

	cr_assert_eq(attention(&a), before_a);
	cr_assert_eq(attention(&b), before_b);
}

/* M-29, M-31: the worker dies before it has heard it. */
Test(presence, a_ring_is_heard_by_the_next_worker)
{
	pid_t worker = domain_worker(&domain);
	uint32_t before_b;
	uint64_t id;

	id = open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w");
	open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w");
	rawpeer_sync(&b);
	before_b = attention(&b);

	kill(worker, SIGSTOP);
	ring(&a, id);
	kill(worker, SIGKILL);

	until_changed(&b.table->attention[b.slot].word, before_b);
}

/* ---- across users ---- */

/* Runs as another uid; a handler of the public flight. */
static void stranger(struct actor *self, void *arg)
{
	const struct liveness_table *owners;
	uint32_t before[2];
	uint64_t id;
	struct stat st;

	(void)arg;
	if (setgid(54321) < 0 || setuid(54321) < 0)
		_exit(1);
	memset(&b, 0, sizeof(b));
	rawpeer_join(&b, domain.address);
	actor_say(self, rawpeer_open_role(&b, IPC_ROLE_HANDLER, "f", 0, &id));
	actor_say(self, b.reply.opened.fds);
	owners = mmap(NULL, sizeof(*owners), PROT_READ, MAP_SHARED, b.fds[2], 0);
	if (owners == MAP_FAILED || fstat(b.fds[0], &st) < 0)
		_exit(2);
	before[0] = atomic_load(&owners->attention[b.slot].word);
	before[1] = attention(&b);
	actor_say(self, ftruncate(b.fds[0], 0));

	(void)actor_hear(self);
	actor_say(self, atomic_load(&owners->attention[b.slot].word) - before[0]);
	actor_say(self, attention(&b) - before[1]);
	(void)actor_hear(self);
	rawpeer_disconnect(&b);
}

/* M-29, M-54: where a client can sleep on one word alone, that is the one in its own table; and
 * memory that others write is sealed. */
Test(presence, clients_of_other_users_are_told_in_their_own_table_too)
{
	union message open = rawpeer_open_message(IPC_ROLE_FLIGHT_TABLE, "f", IPC_CREATE);
	struct actor actor;
	uint64_t id;

	/* A test that is skipped is not torn down. */
	if (getuid() != 0) {
		teardown();
		cr_skip_test("needs another uid");
	}

	open.open.mode = 0666;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(a.reply.opened.fds, OPENED_FD_LINES, "lines of its own");

	actor_start(&actor, stranger, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(actor_hear(&actor), OPENED_FD_VALUE | OPENED_FD_LINES | OPENED_FD_TABLE);
	cr_assert_eq(actor_hear(&actor), -1, "the memory can be cut");

	ring(&a, id);
	rawpeer_sync(&a);
	actor_say(&actor, 0);
	cr_assert_eq(actor_hear(&actor), 1, "in the owner's table");
	cr_assert_eq(actor_hear(&actor), 1, "in its own");
	actor_say(&actor, 0);
	cr_assert_eq(actor_join(&actor), 0);
}

/* M-54: a flight for one user is as any other memory of his. */
Test(presence, a_private_flight_has_its_lines_in_the_desk)
{
	union message open = rawpeer_open_message(IPC_ROLE_FLIGHT_TABLE, "f", IPC_CREATE);
	uint64_t id;

	open.open.mode = 0644;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(a.reply.opened.fds, 0);
	cr_assert_eq(a.reply.opened.lines.segment_id, a.desk_id);
}
