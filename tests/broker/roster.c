/* SPDX-License-Identifier: MIT */

/*
 * HANDLES by hand: who is on a channel, page by page.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/lock.h"
#include "libipc/wire/codec.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/rawpeer.h"

static struct domain domain;
static struct rawpeer a, b;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
}

static void teardown(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
}

TestSuite(roster, .init = setup, .fini = teardown, .timeout = 60);

enum { MANY = 3 * PROTOCOL_HANDLE_MAX / 2 };

/* How often each of these ids is told, all pages. */
static void count(const char *name, const uint64_t *ids, unsigned n_ids, unsigned *times)
{
	const struct message_handled *handled = &b.reply.handled;
	uint64_t cursor = 0, generation = 0;

	memset(times, 0, n_ids * sizeof(*times));
	do {
		cr_assert_eq(rawpeer_handles(&b, name, cursor, generation), 0);
		cr_assert_gt(handled->cursor, cursor);
		for (uint32_t i = 0; i < handled->n; ++i) {
			unsigned k;

			for (k = 0; k < n_ids && ids[k] != handled->handle[i].handle_id; ++k)
				;
			cr_assert_lt(k, n_ids, "nobody's handle");
			++times[k];
		}
		cursor = handled->cursor;
		generation = handled->generation;
	} while (cursor != PROTOCOL_CURSOR_END);
}

/* M-45 */
Test(roster, every_handle_of_the_channel_is_told_once)
{
	uint64_t ids[MANY], other;
	unsigned times[MANY];

	for (unsigned i = 0; i < MANY; ++i) {
		cr_assert_eq(rawpeer_open_role(i % 2 ? &a : &b,
					       i % 3 ? IPC_ROLE_SHARED_A : IPC_ROLE_SHARED_B, "s",
					       IPC_CREATE, &ids[i]),
			     0);
		cr_assert_eq(
			rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &other), 0);
	}

	count("s", ids, MANY, times);
	for (unsigned i = 0; i < MANY; ++i)
		cr_assert_eq(times[i], 1, "handle %u", i);
}

/* M-45, M-31: what is open all the while is told once, whatever happens beside it. */
Test(roster, a_listing_goes_on_over_closes_and_a_restart)
{
	const struct message_handled *handled = &b.reply.handled;
	uint64_t ids[MANY], cursor, generation, late;
	unsigned n;

	for (unsigned i = 0; i < MANY; ++i)
		cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &ids[i]), 0);

	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	n = handled->n;
	cursor = handled->cursor;
	generation = handled->generation;
	cr_assert_eq(n, PROTOCOL_HANDLE_MAX);

	rawpeer_close(&a, ids[0]);
	rawpeer_close(&a, ids[5]);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_B, "s", 0, &late), 0);
	domain_kill_worker(&domain);

	cr_assert_eq(rawpeer_handles(&b, "s", cursor, generation), 0);
	cr_assert_eq(handled->cursor, PROTOCOL_CURSOR_END);
	cr_assert_eq(handled->n, MANY - n);
	for (uint32_t i = 0; i < handled->n; ++i)
		cr_assert_eq(handled->handle[i].handle_id, ids[n + i]);
}

/* M-45 */
Test(roster, another_channel_of_the_name_is_not_gone_on_with)
{
	uint64_t id, generation;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	generation = b.reply.handled.generation;
	cr_assert_eq(rawpeer_handles(&b, "s", 1, generation), 0);

	cr_assert_eq(rawpeer_remove(&a, "s", 0), 0);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);

	cr_assert_eq(rawpeer_handles(&b, "s", 1, generation), IPC_ENOENT);
	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
}

/* M-45 */
Test(roster, names_that_are_not_there_are_enoent)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);

	cr_assert_eq(rawpeer_handles(&b, "w", 0, 0), IPC_ENOENT);

	rawpeer_send(&a, &open);
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_RESERVE);
	cr_assert_eq(rawpeer_handles(&b, "w", 0, 0), IPC_ENOENT, "it is not confirmed");
}

static union message hello_as(const char *name)
{
	union message hello;

	message_init(&hello, MESSAGE_HELLO, 0);
	hello.hello.version_min = hello.hello.version_max = PROTOCOL_VERSION;
	hello.hello.lock_stamp = lock_layout_stamp();
	hello.hello.word_size = sizeof(void *);
	hello.hello.pid = getpid();
	memcpy(hello.hello.process_name, name, strlen(name));
	return hello;
}

/* M-45, M-60: it goes to other people's terminals. */
Test(roster, a_process_is_named_by_what_can_be_printed)
{
	union message hello = hello_as("a b\033[2J\n\xc3\xa9~");
	const struct message_handled *handled = &b.reply.handled;
	struct rawpeer odd;
	uint64_t id;

	rawpeer_connect(&odd, domain.address);
	rawpeer_send(&odd, &hello);
	cr_assert_eq(rawpeer_receive(&odd, 30000), MESSAGE_WELCOME);
	cr_assert_eq(rawpeer_open_role(&odd, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	domain_kill_worker(&domain);

	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	cr_assert_eq(handled->n, 1);
	cr_assert_str_eq(handled->handle[0].process_name, "a b?[2J???~");
	cr_assert_eq(handled->handle[0].pid, getpid());
	cr_assert_eq(handled->handle[0].weak, 0);
	rawpeer_disconnect(&odd);
}

static void wait_for(struct rawpeer *peer, uint64_t id, uint64_t other, uint64_t since_ns)
{
	struct desk_cell *cell = &peer->desk->cell[LIVENESS_SLOT(id)];

	atomic_store(&cell->waits_for, other);
	atomic_store(&cell->waits_since, since_ns);
}

/* M-45, M-60: only who is on the channel is passed on. */
Test(roster, whom_a_handle_waits_for_is_told_if_that_is_there)
{
	const struct message_handle *first = &b.reply.handled.handle[0];
	uint64_t ids[2], elsewhere, now_ns = clock_now_ns();

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &ids[0]), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_B, "s", 0, &ids[1]), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_B, "t", IPC_CREATE, &elsewhere), 0);

	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	cr_assert_eq(first->handle_id, ids[0]);
	cr_assert_eq(first->waiting_ns, 0);
	cr_assert_eq(first->waiting_for, 0);

	wait_for(&a, ids[0], ids[1], now_ns - NS_PER_S);
	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	cr_assert_eq(first->waiting_for, ids[1]);
	cr_assert_geq(first->waiting_ns, NS_PER_S);
	cr_assert_lt(first->waiting_ns, 20 * NS_PER_S);

	wait_for(&a, ids[0], 0, now_ns - NS_PER_S);
	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	cr_assert_eq(first->waiting_for, 0);
	cr_assert_geq(first->waiting_ns, NS_PER_S);

	wait_for(&a, ids[0], elsewhere, now_ns + 1000 * NS_PER_S);
	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	cr_assert_eq(first->waiting_for, 0, "of another channel");
	cr_assert_eq(first->waiting_ns, 1, "it waits, since when nobody knows");

	wait_for(&a, ids[0], UINT64_MAX, 1);
	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	cr_assert_eq(first->waiting_for, 0);

	wait_for(&a, ids[0], ids[1], 0);
	cr_assert_eq(rawpeer_handles(&b, "s", 0, 0), 0);
	cr_assert_eq(first->waiting_for, 0, "it does not wait");
	cr_assert_eq(first->waiting_ns, 0);
}

static void stranger(struct actor *self, void *arg)
{
	(void)arg;
	if (setgid(54321) < 0 || setuid(54321) < 0)
		_exit(1);
	memset(&b, 0, sizeof(b));
	rawpeer_join(&b, domain.address);
	actor_say(self, rawpeer_handles(&b, "private", 0, 0));
	actor_say(self, rawpeer_handles(&b, "public", 0, 0));
	(void)actor_hear(self);
	rawpeer_disconnect(&b);
}

/* M-45, M-50: what may not be read is not shown. */
Test(roster, handles_are_shown_to_those_who_may_read)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "public", IPC_CREATE);
	struct actor actor;
	uint64_t id;

	/* A test that is skipped is not torn down. */
	if (getuid() != 0) {
		teardown();
		cr_skip_test("needs another uid");
	}

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "private", IPC_CREATE, &id), 0);
	open.open.mode = 0644;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);

	actor_start(&actor, stranger, NULL);
	cr_assert_eq(actor_hear(&actor), IPC_EACCES);
	cr_assert_eq(actor_hear(&actor), 0);
	actor_say(&actor, 0);
	cr_assert_eq(actor_join(&actor), 0);
}
