/* SPDX-License-Identifier: MIT */

/*
 * Groups by hand against the real broker: what is joined and when, what ends it, clients that do
 * not read; the same over a worker's death.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/queue.h"
#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/actor.h"
#include "tests/support/mortal.h"
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
	if (a.fd >= 0)
		rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
}

TestSuite(groups, .init = setup, .fini = teardown, .timeout = 60);

enum { PRODUCERS = QUEUE_SIDE_PRODUCERS, CONSUMERS = QUEUE_SIDE_CONSUMERS };
enum { GROUP = 77 };

/* ---- by hand ---- */

static void group_send(struct rawpeer *peer, uint64_t group_id, const char *pattern)
{
	union message group;

	message_init(&group, MESSAGE_GROUP, 0);
	group.group.group_id = group_id;
	strcpy(group.group.pattern, pattern);
	rawpeer_send(peer, &group);
}

/* The result. */
static int group_open(struct rawpeer *peer, uint64_t group_id, const char *pattern)
{
	group_send(peer, group_id, pattern);
	cr_assert_eq(rawpeer_answer(peer, peer->last_id), MESSAGE_DONE);
	return peer->reply.head.result;
}

static uint64_t queue_open(struct rawpeer *peer, const char *name, const char *dead_letters)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, name, IPC_CREATE);
	uint64_t id;
	int r;

	strcpy(open.open.dead_letters, dead_letters);
	r = rawpeer_open(peer, &open, &id);
	cr_assert_eq(r, 0, "%s: %s", name, ipc_error_name(r));
	return id;
}

static uint32_t n_joined(const struct rawpeer *peer)
{
	return atomic_load(&peer->table->attention[peer->slot].n_joined);
}

static uint32_t n_producers(const struct rawpeer *peer, uint32_t slot)
{
	return side_count(liveness_side(peer->table, slot, PRODUCERS));
}

/* ---- what is joined ---- */

/* Q-17, M-45 */
Test(groups, what_matches_is_joined_before_the_answer)
{
	queue_open(&b, "g/1", "");
	queue_open(&b, "g/2/x", "");
	queue_open(&b, "h/1", "");

	group_send(&a, GROUP, "g/*");
	for (unsigned i = 0; i < 2; ++i) {
		const struct message_joined *joined = &a.reply.joined;

		cr_assert_eq(rawpeer_receive(&a, 30000), MESSAGE_JOINED);
		cr_assert_eq(joined->head.request_id, 0);
		cr_assert_eq(joined->group_id, GROUP);
		cr_assert_str_eq(joined->name, i == 0 ? "g/1" : "g/2/x");
		cr_assert_eq(joined->queue.fds, OPENED_FD_VALUE);
		cr_assert_eq(joined->queue.is_writable, 1);
		cr_assert_eq(joined->n_fds_queue, 1);
		cr_assert_eq(joined->has_dead, 0);
		cr_assert_eq(a.n_fds, 1);
		cr_assert(liveness_handle_is(a.table, joined->queue.handle_id));
		cr_assert_eq(n_producers(&a, joined->queue.channel_slot), 1);
	}
	cr_assert_eq(rawpeer_receive(&a, 30000), MESSAGE_DONE);
	cr_assert_eq(a.reply.head.request_id, a.last_id);
	cr_assert_eq(a.reply.head.result, 0);
	cr_assert_eq(n_joined(&a), 2);
}

/* whoever was told that the queue is open can tell the pusher. */
Test(groups, a_new_queue_is_joined_before_its_opener_is_answered)
{
	cr_assert_eq(group_open(&a, GROUP, "q*"), 0);

	for (uint32_t i = 1; i <= 3; ++i) {
		char name[8];

		snprintf(name, sizeof(name), "q%u", i);
		queue_open(&b, name, "");
		cr_assert_eq(n_joined(&a), i);
		cr_assert_eq(n_producers(&b, b.reply.opened.channel_slot), 1);
		cr_assert_eq(rawpeer_receive(&a, 0), MESSAGE_JOINED, "it lies there already");
		cr_assert_str_eq(a.reply.joined.name, name);
	}
}

/* M-43: as long as its maker has not confirmed it there is no queue. */
Test(groups, a_queue_that_is_not_made_is_not_joined)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, "q", IPC_CREATE);
	uint64_t id;

	rawpeer_send(&b, &open);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_RESERVE);
	cr_assert_eq(group_open(&a, GROUP, "*"), 0);
	cr_assert_eq(n_joined(&a), 0);

	cr_assert_eq(rawpeer_reserve(&b, b.last_id, &id), 0);
	cr_assert_eq(n_joined(&a), 1);
}

/* */
Test(groups, dead_letters_come_with_their_queue_uncounted)
{
	const struct message_joined *joined = &a.reply.joined;
	uint32_t dead_slot, slot;

	queue_open(&b, "dead", "");
	dead_slot = b.reply.opened.channel_slot;
	queue_open(&b, "q", "dead");
	slot = b.reply.opened.channel_slot;

	group_send(&a, GROUP, "q");
	cr_assert_eq(rawpeer_receive(&a, 30000), MESSAGE_JOINED);
	cr_assert_eq(joined->has_dead, 1);
	cr_assert_eq(a.n_fds, 2);
	cr_assert_eq(joined->n_fds_queue, 1);
	cr_assert_str_eq(joined->queue.dead_letters, "dead");
	cr_assert_eq(joined->queue.channel_slot, slot);
	cr_assert_eq(joined->dead.channel_slot, dead_slot);
	cr_assert(liveness_handle_is(a.table, joined->dead.handle_id));
	cr_assert_eq(n_producers(&a, slot), 1);
	cr_assert_eq(n_producers(&a, dead_slot), 0);
}

/* M-48: only what has the name. */
Test(groups, a_removed_queue_is_not_joined)
{
	queue_open(&b, "q", "");
	cr_assert_eq(rawpeer_remove(&b, "q", 0), 0);
	cr_assert_eq(group_open(&a, GROUP, "q"), 0);
	cr_assert_eq(n_joined(&a), 0);
	queue_open(&b, "q", "");
	cr_assert_eq(n_joined(&a), 1);
}

/* M-3: twice is another group of the same queues. */
Test(groups, each_group_has_handles_of_its_own)
{
	uint32_t slot;

	cr_assert_eq(group_open(&a, 1, "q"), 0);
	cr_assert_eq(group_open(&a, 2, "?"), 0);
	cr_assert_eq(group_open(&b, 1, "*"), 0);
	queue_open(&b, "q", "");
	slot = b.reply.opened.channel_slot;
	cr_assert_eq(n_producers(&a, slot), 3);
	cr_assert_eq(n_joined(&a), 2);
	cr_assert_eq(n_joined(&b), 1);
	cr_assert_eq(group_open(&a, 1, "other"), IPC_EINVAL, "one number, one group");
}

/* An OPEN cannot ask for the role. */
Test(groups, no_open_gives_such_a_handle)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", 0);
	uint64_t id;

	queue_open(&b, "q", "");
	open.open.role = IPC_ROLE_GROUP;
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EINVAL);
}

/* ---- rights and quotas ---- */

/* Runs as another uid; tells what it is given. */
static void stranger(struct actor *self, void *arg)
{
	(void)arg;
	if (setgid(54321) < 0 || setuid(54321) < 0)
		_exit(1);
	memset(&b, 0, sizeof(b));
	rawpeer_join(&b, domain.address);
	group_send(&b, GROUP, "*");
	while (rawpeer_receive(&b, 30000) == MESSAGE_JOINED) {
		actor_say(self, b.reply.joined.name[0]);
		actor_say(self, b.reply.joined.queue.fds);
		actor_say(self, b.n_fds);
	}
	actor_say(self, b.reply.head.result);
	(void)actor_hear(self);
	rawpeer_disconnect(&b);
}

/* Q-17, M-50, Q-16: and dead letters that are not for it are left out. */
Test(groups, queues_that_the_client_may_not_write_are_left_out)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, "x", IPC_CREATE);
	struct actor actor;
	uint64_t id;

	/* A test that is skipped is not torn down. */
	if (getuid() != 0) {
		teardown();
		cr_skip_test("needs another uid");
	}

	queue_open(&a, "own", "");
	open.open.mode = 0644;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	open.open.mode = 0666;
	strcpy(open.open.name, "public");
	strcpy(open.open.dead_letters, "own");
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);

	actor_start(&actor, stranger, NULL);
	cr_assert_eq(actor_hear(&actor), 'p');
	cr_assert_eq(actor_hear(&actor), OPENED_FD_VALUE | OPENED_FD_LINES | OPENED_FD_TABLE);
	cr_assert_eq(actor_hear(&actor), 3);
	cr_assert_eq(actor_hear(&actor), 0);
	actor_say(&actor, 0);
	cr_assert_eq(actor_join(&actor), 0);
}

/* ---- ends ---- */

static void joined_and_answered(uint32_t *ret_slot)
{
	cr_assert_eq(group_open(&a, GROUP, "q*"), 0);
	queue_open(&b, "q", "");
	*ret_slot = b.reply.opened.channel_slot;
	cr_assert_eq(n_producers(&b, *ret_slot), 1);
}

/* Q-17, M-22 */
Test(groups, its_end_ends_its_handles_as_closes)
{
	uint32_t slot;

	joined_and_answered(&slot);
	group_send(&a, GROUP, "");
	cr_assert_not(rawpeer_until_side(&b, slot, PRODUCERS, 0, 1) & SIDE_DIED);

	queue_open(&b, "q2", "");
	cr_assert_eq(n_joined(&a), 1, "and nothing comes any more");
	cr_assert_eq(rawpeer_receive(&a, 0), MESSAGE_JOINED);
	cr_assert_eq(rawpeer_receive(&a, 50), RAWPEER_NOTHING, "it is not answered");
}

/* A request that nobody waits for any more. */
Test(groups, its_withdrawal_ends_it)
{
	union message cancel;
	uint32_t slot;

	group_send(&a, a.last_id + 1, "q*");
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_DONE);
	message_init(&cancel, MESSAGE_CANCEL, 0);
	cancel.cancel.cancelled_id = a.last_id;
	queue_open(&b, "q", "");
	slot = b.reply.opened.channel_slot;
	cr_assert_eq(n_producers(&b, slot), 1);

	rawpeer_send(&a, &cancel);
	cr_assert_not(rawpeer_until_side(&b, slot, PRODUCERS, 0, 1) & SIDE_DIED);
}

/* M-22, M-25 */
Test(groups, its_clients_death_is_told_as_one)
{
	uint32_t slot;

	joined_and_answered(&slot);
	rawpeer_disconnect(&a);
	cr_assert(rawpeer_until_side(&b, slot, PRODUCERS, 0, 1) & SIDE_DIED);
	queue_open(&b, "q2", "");
	cr_assert_eq(n_producers(&b, b.reply.opened.channel_slot), 0);
}

/* M-22, M-44: what was said before the death counts. */
Test(groups, an_end_that_was_said_before_a_death_is_no_death)
{
	uint32_t slot;

	joined_and_answered(&slot);
	group_send(&a, GROUP, "");
	rawpeer_disconnect(&a);
	cr_assert_not(rawpeer_until_side(&b, slot, PRODUCERS, 0, 1) & SIDE_DIED);
}

/* ---- a client that does not read ---- */

enum { N_MANY = 150 };

/* M-24: nobody waits for it, and it gets all of them once it reads. */
Test(groups, who_does_not_read_gets_its_queues_later)
{
	bool has_come[N_MANY] = {false};
	unsigned n;

	cr_assert_eq(group_open(&a, GROUP, "m*"), 0);
	for (unsigned i = 0; i < N_MANY; ++i) {
		char name[16];

		snprintf(name, sizeof(name), "m%u", i);
		queue_open(&b, name, "");
	}
	cr_assert_lt(n_joined(&a), N_MANY, "more than its socket has room for");

	for (n = 0; n < N_MANY; ++n) {
		unsigned i;

		cr_assert_eq(rawpeer_receive(&a, 30000), MESSAGE_JOINED, "after %u", n);
		i = (unsigned)atoi(a.reply.joined.name + 1);
		cr_assert_lt(i, N_MANY);
		cr_assert_not(has_come[i], "%u twice", i);
		has_come[i] = true;
	}
	cr_assert_eq(rawpeer_receive(&a, 50), RAWPEER_NOTHING);
	cr_assert_eq(n_joined(&a), N_MANY);
}

/* M-31: the same over a worker's death, after which one may be said again. */
Test(groups, who_does_not_read_gets_its_queues_from_the_next_worker)
{
	uint64_t id[N_MANY] = {0};
	unsigned n = 0;

	cr_assert_eq(group_open(&a, GROUP, "m*"), 0);
	for (unsigned i = 0; i < N_MANY; ++i) {
		char name[16];

		snprintf(name, sizeof(name), "m%u", i);
		queue_open(&b, name, "");
		if (i % 40 == 39)
			domain_kill_worker(&domain);
	}

	while (n < N_MANY) {
		unsigned i;

		cr_assert_eq(rawpeer_receive(&a, 30000), MESSAGE_JOINED, "after %u", n);
		i = (unsigned)atoi(a.reply.joined.name + 1);
		cr_assert_lt(i, N_MANY);
		cr_assert(id[i] == 0 || id[i] == a.reply.joined.queue.handle_id);
		n += id[i] == 0;
		id[i] = a.reply.joined.queue.handle_id;
	}
	rawpeer_sync(&a);
	for (unsigned i = 0; i < N_MANY; ++i)
		cr_assert(liveness_handle_is(a.table, id[i]));
}

/* the answer comes after the last of them. */
Test(groups, more_matches_than_fit_into_the_socket_are_joined_before_the_answer)
{
	for (unsigned i = 0; i < N_MANY; ++i) {
		char name[16];

		snprintf(name, sizeof(name), "m%u", i);
		queue_open(&b, name, "");
	}

	group_send(&a, GROUP, "m*");
	for (unsigned i = 0; i < N_MANY; ++i)
		cr_assert_eq(rawpeer_receive(&a, 30000), MESSAGE_JOINED, "after %u", i);
	cr_assert_eq(rawpeer_receive(&a, 30000), MESSAGE_DONE);
	cr_assert_eq(a.reply.head.request_id, a.last_id);
	rawpeer_sync(&a);
}

/* ---- a worker that dies on the way ---- */

/* A worker that dies sooner does not come as far as a first answer. */
enum { POINT_FIRST = 24, POINT_LAST = 120 };

/* Each worker of this domain dies at that crash point. */
static void dying_start(unsigned point)
{
	char wish[16];

	snprintf(wish, sizeof(wish), "%u", point);
	domain_start_mortal(&domain, wish);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
}

static void dying_stop(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_kill(&domain);
}

/* The next one, but for answers that are said twice. */
static int receive_joined(unsigned timeout_ms)
{
	int type;

	do
		type = rawpeer_receive(&a, timeout_ms);
	while (type == MESSAGE_DONE);
	return type;
}

static void expect_joined(const char *name, uint64_t *ret_id, uint64_t *ret_dead_id, unsigned point)
{
	cr_assert_eq(receive_joined(5000), MESSAGE_JOINED, "point %u: no %s", point, name);
	cr_assert_str_eq(a.reply.joined.name, name, "point %u", point);
	cr_assert_eq(a.n_fds, 2, "point %u", point);
	*ret_id = a.reply.joined.queue.handle_id;
	*ret_dead_id = a.reply.joined.dead.handle_id;
}

/* Nothing else has come but what had come before. */
static void expect_no_more(uint64_t id, unsigned point)
{
	int type;

	rawpeer_sync(&b);
	while ((type = receive_joined(0)) != RAWPEER_NOTHING) {
		cr_assert_eq(type, MESSAGE_JOINED, "point %u", point);
		cr_assert_eq(a.reply.joined.queue.handle_id, id, "point %u", point);
	}
}

static void until_producers(uint32_t slot, uint32_t n, unsigned point)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	while (n_producers(&b, slot) != n) {
		cr_assert_lt(clock_now_ns(), deadline_ns, "point %u: %u producers, not %u", point,
			     n_producers(&b, slot), n);
		rawpeer_sync(&b);
	}
}

/* Q-17, M-31, D12: joined before the opener is answered, once, with its dead letters. */
Test(groups_deaths, a_queue_is_joined_wherever_the_worker_dies, .timeout = 110)
{
	for (unsigned point = POINT_FIRST; point <= POINT_LAST; ++point) {
		uint64_t id, dead_id;
		uint32_t slot, dead_slot, before;

		dying_start(point);
		queue_open(&b, "dead", "");
		dead_slot = b.reply.opened.channel_slot;
		cr_assert_eq(group_open(&a, GROUP, "q*"), 0, "point %u", point);
		before = n_joined(&a);
		queue_open(&b, "q", "dead");
		slot = b.reply.opened.channel_slot;

		cr_assert_neq(n_joined(&a), before, "point %u", point);
		expect_joined("q", &id, &dead_id, point);
		expect_no_more(id, point);
		cr_assert(liveness_handle_is(a.table, id), "point %u", point);
		cr_assert(liveness_handle_is(a.table, dead_id), "point %u", point);
		until_producers(slot, 1, point);
		until_producers(dead_slot, 0, point);

		group_send(&a, GROUP, "");
		until_producers(slot, 0, point);
		while (liveness_handle_is(a.table, dead_id))
			rawpeer_sync(&b);
		dying_stop();
	}
}

/* Q-17, M-31, D12: the same for those that were there before. */
Test(groups_deaths, a_group_begins_wherever_the_worker_dies, .timeout = 110)
{
	for (unsigned point = POINT_FIRST; point <= POINT_LAST; ++point) {
		uint64_t id[2] = {0, 0};
		uint32_t slot[2];
		unsigned n = 0;
		int type;

		dying_start(point);
		queue_open(&b, "q0", "");
		slot[0] = b.reply.opened.channel_slot;
		queue_open(&b, "q1", "");
		slot[1] = b.reply.opened.channel_slot;

		group_send(&a, GROUP, "q*");
		while ((type = rawpeer_receive(&a, 30000)) == MESSAGE_JOINED) {
			unsigned i = a.reply.joined.name[1] == '1';

			cr_assert(id[i] == 0 || id[i] == a.reply.joined.queue.handle_id, "point %u",
				  point);
			n += id[i] == 0;
			id[i] = a.reply.joined.queue.handle_id;
		}
		cr_assert_eq(type, MESSAGE_DONE, "point %u: %d", point, type);
		cr_assert_eq(a.reply.head.result, 0);
		cr_assert_eq(n, 2, "point %u", point);
		until_producers(slot[0], 1, point);
		until_producers(slot[1], 1, point);

		rawpeer_disconnect(&a);
		until_producers(slot[0], 0, point);
		until_producers(slot[1], 0, point);
		rawpeer_join(&a, domain.address);
		dying_stop();
	}
}
