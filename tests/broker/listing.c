/* SPDX-License-Identifier: MIT */

/*
 * INFO, LIST and REMOVE by hand.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/core/header.h"
#include "libipc/platform/clock.h"
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

TestSuite(listing, .init = setup, .fini = teardown, .timeout = 60);

/* How many names match, all pages. */
static unsigned count(struct rawpeer *peer, const char *pattern)
{
	uint32_t cursor = 0;
	unsigned n = 0;

	do {
		union message list;

		message_init(&list, MESSAGE_LIST, 0);
		list.list.cursor = cursor;
		strcpy(list.list.pattern, pattern);
		rawpeer_send(peer, &list);
		cr_assert_eq(rawpeer_answer(peer, peer->last_id), MESSAGE_LISTED);
		n += peer->reply.listed.n;
		cursor = peer->reply.listed.cursor;
	} while (cursor != PROTOCOL_CURSOR_END);

	return n;
}

/* M-45 */
Test(listing, every_name_that_matches_is_listed_once)
{
	uint64_t id;

	cr_assert_eq(count(&a, "*"), 0);
	for (int i = 0; i < 40; ++i) {
		char name[32];

		snprintf(name, sizeof(name), "app/%c/%d", i % 2 ? 'x' : 'y', i);
		cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, name, IPC_CREATE, &id), 0);
	}

	cr_assert_eq(count(&b, "*"), 40);
	cr_assert_eq(count(&b, "app*3"), 4, "a star crosses slashes");
	cr_assert_eq(count(&b, "app/x/*"), 20);
	cr_assert_eq(count(&b, "app/?/7"), 1);
	cr_assert_eq(count(&b, ""), 0);
}

/* Channels that are not confirmed are not there. */
Test(listing, a_channel_that_is_being_reserved_is_not_shown)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);

	rawpeer_send(&a, &open);
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_RESERVE);
	cr_assert_eq(count(&b, "*"), 0);
	cr_assert_eq(rawpeer_info(&b, "w"), IPC_ENOENT);
	cr_assert_eq(rawpeer_remove(&b, "w", 0), IPC_ENOENT);
}

/* M-45 */
Test(listing, info_tells_what_was_asked_for_at_creation)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	const struct message_channel *channel = &b.reply.info_reply.channel;
	uint64_t id;

	open.open.mode = 0640;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), 0);

	cr_assert_eq(rawpeer_info(&b, "w"), 0);
	cr_assert_str_eq(channel->name, "w");
	cr_assert_eq(channel->kind, IPC_KIND_WATCH);
	cr_assert_eq(channel->mode, 0640);
	cr_assert_eq(channel->uid, getuid());
	cr_assert_eq(channel->gid, getgid());
	cr_assert_eq(channel->bytes, 65536);
	cr_assert_eq(channel->item_size_max, 4096);
	cr_assert_eq(channel->capacity, 0);
	cr_assert_eq(channel->handles[0], 1);
	cr_assert_eq(channel->handles[1], 1);
	cr_assert_eq(channel->waiters, 0);
	cr_assert_eq(channel->holder_id, 0);
	cr_assert_neq(channel->generation, 0);
}

/* M-45: from what clients write themselves. */
Test(listing, waiters_and_holder_are_told)
{
	union message open = rawpeer_open_message(IPC_ROLE_SHARED_A, "s", IPC_CREATE);
	const struct message_channel *channel = &b.reply.info_reply.channel;
	uint64_t id, request_id;
	uint64_t holder[2];
	int fd;

	rawpeer_send(&a, &open);
	request_id = a.last_id;
	cr_assert_eq(rawpeer_answer(&a, request_id), MESSAGE_RESERVE);
	fd = dup(a.fds[0]);
	cr_assert_eq(rawpeer_reserve(&a, request_id, &id), 0);

	atomic_store(&a.desk->cell[LIVENESS_SLOT(id)].waits_since, 1);
	holder[0] = id;
	holder[1] = clock_now_ns() - NS_PER_S;
	cr_assert_eq(pwrite(fd, holder, sizeof(holder), offsetof(struct channel_header, holder_id)),
		     (ssize_t)sizeof(holder));

	cr_assert_eq(rawpeer_info(&b, "s"), 0);
	cr_assert_eq(channel->waiters, 1);
	cr_assert_eq(channel->holder_id, id);
	cr_assert_eq(channel->holder_pid, getpid());
	cr_assert_geq(channel->held_ns, NS_PER_S);

	/* M-60: anybody may have written that. */
	holder[0] = id + 65536;
	cr_assert_eq(pwrite(fd, holder, sizeof(holder), offsetof(struct channel_header, holder_id)),
		     (ssize_t)sizeof(holder));
	cr_assert_eq(rawpeer_info(&b, "s"), 0);
	cr_assert_eq(channel->holder_id, 0);
	close(fd);
}

/* Runs as another uid; tells what it gets. */
static void stranger(struct actor *self, void *arg)
{
	uint64_t id;

	(void)arg;
	if (setgid(54321) < 0 || setuid(54321) < 0)
		_exit(1);
	memset(&b, 0, sizeof(b));
	rawpeer_join(&b, domain.address);
	actor_say(self, rawpeer_info(&b, "private"));
	actor_say(self, rawpeer_info(&b, "public"));
	actor_say(self, rawpeer_remove(&b, "public", 0));
	actor_say(self, rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "private", 0, &id));
	actor_say(self, rawpeer_open_role(&b, IPC_ROLE_WATCH_PRODUCER, "public", 0, &id));
	actor_say(self, rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "public", 0, &id));
	actor_say(self, b.reply.opened.fds);
	actor_say(self, rawpeer_open_role(&b, IPC_ROLE_WATCH_PRODUCER, "theirs", IPC_CREATE, &id));
	(void)actor_hear(self);
	rawpeer_disconnect(&b);
}

/* M-50, M-54: another uid sees and opens what the mode says, and nothing that holds a lock; root
 * reads all, and takes no lock of others. */
Test(listing, rights_of_another_uid)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "public", IPC_CREATE);
	struct actor actor;
	uint64_t id;

	/* A test that is skipped is not torn down. */
	if (getuid() != 0) {
		teardown();
		cr_skip_test("needs another uid");
	}

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "private", IPC_CREATE, &id), 0);
	open.open.mode = 0644;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);

	actor_start(&actor, stranger, NULL);
	cr_assert_eq(actor_hear(&actor), IPC_EACCES, "info of a private channel");
	cr_assert_eq(actor_hear(&actor), 0, "info of a public one");
	cr_assert_eq(actor_hear(&actor), IPC_EACCES, "removal");
	cr_assert_eq(actor_hear(&actor), IPC_EACCES, "consumer of a private channel");
	cr_assert_eq(actor_hear(&actor), IPC_EACCES, "producer of a public one");
	cr_assert_eq(actor_hear(&actor), 0, "consumer of a public one");
	cr_assert_eq(actor_hear(&actor), OPENED_FD_VALUE | OPENED_FD_LINES | OPENED_FD_TABLE);
	cr_assert_eq(actor_hear(&actor), 0, "a channel of its own");

	cr_assert_eq(rawpeer_info(&a, "theirs"), 0);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "theirs", 0, &id), IPC_EACCES);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "theirs", 0, &id), 0);
	cr_assert_eq(a.reply.opened.fds, OPENED_FD_VALUE | OPENED_FD_LINES | OPENED_FD_TABLE);
	cr_assert_eq(rawpeer_remove(&a, "theirs", 0), 0);

	actor_say(&actor, 0);
	cr_assert_eq(actor_join(&actor), 0);
}
