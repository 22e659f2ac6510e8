/* SPDX-License-Identifier: MIT */

/*
 * The ends of queues: who is counted, when a name is given up, what is final; the same over a
 * worker's death.
 */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
	if (b.fd >= 0)
		rawpeer_disconnect(&b);
	if (c.fd >= 0)
		rawpeer_disconnect(&c);
	domain_stop(&domain);
}

TestSuite(queue, .init = setup, .fini = teardown, .timeout = 60);

enum { PRODUCERS = QUEUE_SIDE_PRODUCERS, CONSUMERS = QUEUE_SIDE_CONSUMERS };

static uint64_t open_role(struct rawpeer *peer, uint32_t role, const char *name, uint64_t flags)
{
	uint64_t id;
	int r;

	r = rawpeer_open_role(peer, role, name, flags, &id);
	cr_assert_eq(r, 0, "%s: %s", name, ipc_error_name(r));
	return id;
}

static uint64_t produce(struct rawpeer *peer, const char *name)
{
	return open_role(peer, IPC_ROLE_QUEUE_PRODUCER, name, IPC_CREATE);
}

static uint64_t consume(struct rawpeer *peer, const char *name)
{
	return open_role(peer, IPC_ROLE_QUEUE_CONSUMER, name, IPC_CREATE);
}

/* As dead letters of another queue are opened. */
static uint64_t lend(struct rawpeer *peer, const char *name)
{
	return open_role(peer, IPC_ROLE_QUEUE_PRODUCER, name, OPEN_UNCOUNTED);
}

static void shut(struct rawpeer *peer, uint64_t id)
{
	rawpeer_close(peer, id);
	rawpeer_sync(peer);
}

static int find(const char *name)
{
	uint64_t id;
	int r;

	r = rawpeer_open_role(&a, IPC_ROLE_QUEUE_PRODUCER, name, 0, &id);
	if (r == 0)
		shut(&a, id);
	return r;
}

static uint64_t word_of(uint32_t slot, unsigned side)
{
	return liveness_side(a.table, slot, side);
}

static uint32_t attention(const struct rawpeer *peer)
{
	return atomic_load(&peer->table->attention[peer->slot].word);
}

/* Whether nothing is left of the channel that was there: the slot that was given up last is taken
 * first. */
static bool is_free(uint32_t slot)
{
	uint64_t id = produce(&a, "probe");
	bool is_taken = a.reply.opened.channel_slot == slot;

	shut(&a, id);
	return is_taken;
}

/* ---- the last consumer ---- */

/* Q-8, M-22 */
Test(queue, the_last_consumer_ends_it_for_ever)
{
	uint64_t producer = produce(&a, "q"), first, second;
	uint32_t slot = a.reply.opened.channel_slot;

	first = consume(&b, "q");
	second = consume(&c, "q");
	shut(&b, first);
	cr_assert_eq(word_of(slot, CONSUMERS), side_make(0, 1, SIDE_EVER));
	cr_assert_eq(find("q"), 0);

	shut(&c, second);
	cr_assert_eq(word_of(slot, CONSUMERS), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_eq(side_count(word_of(slot, PRODUCERS)), 1);
	cr_assert_not(word_of(slot, PRODUCERS) & SIDE_FINAL);
	cr_assert(liveness_handle_is(a.table, producer), "it goes on, to see the end");
	cr_assert_eq(find("q"), IPC_ENOENT);
	cr_assert_eq(rawpeer_info(&a, "q"), IPC_ENOENT);
}

/* Q-8, M-22 */
Test(queue, the_death_of_the_last_consumer_is_told_as_one)
{
	uint32_t slot, before;

	produce(&a, "q");
	slot = a.reply.opened.channel_slot;
	consume(&b, "q");
	before = attention(&a);
	rawpeer_disconnect(&b);

	cr_assert_eq(rawpeer_until_side(&a, slot, CONSUMERS, 0, 1),
		     side_make(1, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL));
	rawpeer_sync(&a);
	cr_assert_gt(attention(&a), before);
	cr_assert_eq(find("q"), IPC_ENOENT);
}

/* whoever registers again has another queue, and its producers do not push into the old one.
 */
Test(queue, its_name_is_free_at_once)
{
	uint32_t slot, next_slot;
	uint64_t generation;
	uint64_t consumer = consume(&b, "q");

	produce(&a, "q");
	slot = a.reply.opened.channel_slot;
	generation = a.reply.opened.generation;
	shut(&b, consumer);

	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_QUEUE_CONSUMER, "q", IPC_CREATE | IPC_EXCLUSIVE,
				       &consumer),
		     0);
	next_slot = b.reply.opened.channel_slot;
	cr_assert_neq(next_slot, slot);
	cr_assert_gt(b.reply.opened.generation, generation);
	cr_assert_eq(side_count(word_of(slot, CONSUMERS)), 0);
	cr_assert(word_of(slot, CONSUMERS) & SIDE_FINAL);

	produce(&c, "q");
	cr_assert_eq(c.reply.opened.channel_slot, next_slot);
	cr_assert_eq(side_count(word_of(slot, PRODUCERS)), 1);
}

/* Q-8, M-22: its producers' end is final, too, and then nothing is left of it. */
Test(queue, nothing_is_left_of_it_when_its_producers_have_gone)
{
	uint64_t consumer = consume(&b, "q"), producer = produce(&a, "q");
	uint32_t slot = a.reply.opened.channel_slot;

	shut(&b, consumer);
	cr_assert_not(is_free(slot));

	shut(&a, producer);
	cr_assert_eq(word_of(slot, PRODUCERS), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert(is_free(slot));
}

/* Q-8, M-43: a queue whose consumers are awaited lives as any channel does. */
Test(queue, without_a_consumer_ever_it_ends_with_its_last_producer)
{
	uint64_t first = produce(&a, "q"), second = produce(&b, "q");
	uint32_t slot = b.reply.opened.channel_slot;

	shut(&a, first);
	cr_assert_eq(find("q"), 0);
	cr_assert_eq(word_of(slot, CONSUMERS) & SIDE_FLAGS, 0, "awaited");
	shut(&b, second);
	cr_assert_eq(find("q"), IPC_ENOENT);
}

/* Q-7, M-22: gone is not final there. */
Test(queue, a_kept_queue_waits_for_the_next_consumer)
{
	uint64_t consumer = open_role(&b, IPC_ROLE_QUEUE_CONSUMER, "q", IPC_CREATE | IPC_KEEP);
	uint32_t slot = b.reply.opened.channel_slot;
	uint64_t generation = b.reply.opened.generation, producer;

	shut(&b, consumer);
	cr_assert_eq(word_of(slot, CONSUMERS), side_make(1, 0, SIDE_EVER));
	cr_assert_eq(find("q"), 0, "without any handle");

	producer = open_role(&a, IPC_ROLE_QUEUE_PRODUCER, "q", 0);
	open_role(&b, IPC_ROLE_QUEUE_CONSUMER, "q", IPC_KEEP);
	cr_assert_eq(b.reply.opened.generation, generation);
	cr_assert_eq(b.reply.opened.flags, IPC_KEEP);
	cr_assert_eq(word_of(slot, CONSUMERS), side_make(1, 1, SIDE_EVER));

	shut(&a, producer);
	rawpeer_disconnect(&b);
	cr_assert_eq(rawpeer_until_side(&a, slot, CONSUMERS, 0, 2),
		     side_make(2, 0, SIDE_EVER | SIDE_DIED));
	domain_kill_worker(&domain);
	cr_assert_eq(find("q"), 0);
	cr_assert_eq(rawpeer_remove(&a, "q", generation), 0);
}

/* M-48, M-22: what is kept is not kept without a name. */
Test(queue, a_removed_queue_drains_and_ends)
{
	uint64_t consumer = open_role(&b, IPC_ROLE_QUEUE_CONSUMER, "q", IPC_CREATE | IPC_KEEP);
	uint32_t slot = b.reply.opened.channel_slot;
	uint64_t producer = produce(&a, "q"), lent = lend(&c, "q");

	cr_assert_eq(rawpeer_remove(&a, "q", 0), 0);
	cr_assert_eq(find("q"), IPC_ENOENT);
	cr_assert_not((word_of(slot, PRODUCERS) | word_of(slot, CONSUMERS)) & SIDE_FINAL);

	shut(&a, producer);
	cr_assert_eq(word_of(slot, PRODUCERS), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	shut(&b, consumer);
	cr_assert_eq(word_of(slot, CONSUMERS), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_not(is_free(slot));
	shut(&c, lent);
	cr_assert(is_free(slot));
}

/* ---- who is not counted ---- */

/* Q-16, M-32, M-45 */
Test(queue, a_lent_handle_is_not_counted)
{
	const struct message_channel *channel = &a.reply.info_reply.channel;
	const struct message_handled *handled = &a.reply.handled;
	uint64_t consumer = consume(&b, "q"), lent;
	uint32_t slot = b.reply.opened.channel_slot, before = attention(&b);

	lent = lend(&c, "q");
	cr_assert_eq(c.reply.opened.is_writable, 1);
	cr_assert(liveness_handle_is(a.table, lent), "what it claims is a living one's");
	cr_assert_eq(word_of(slot, PRODUCERS), 0, "awaited");
	cr_assert_eq(attention(&b), before, "nobody came");

	cr_assert_eq(rawpeer_info(&a, "q"), 0);
	cr_assert_eq(channel->handles[PRODUCERS], 0);
	cr_assert_eq(channel->handles[CONSUMERS], 1);
	cr_assert_eq(rawpeer_handles(&a, "q", 0, 0), 0);
	cr_assert_eq(handled->n, 2);
	for (unsigned i = 0; i < 2; ++i)
		cr_assert_eq(handled->handle[i].weak, handled->handle[i].handle_id != consumer);

	shut(&c, lent);
	cr_assert_eq(word_of(slot, PRODUCERS), 0);
	cr_assert_not(liveness_handle_is(a.table, lent));
	cr_assert_eq(find("q"), 0);
}

/* it has to be there, and makes nothing. */
Test(queue, what_is_lent_has_to_be_there)
{
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_QUEUE_PRODUCER, "q", OPEN_UNCOUNTED, &id),
		     IPC_ENOENT);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_QUEUE_PRODUCER, "q",
				       OPEN_UNCOUNTED | IPC_CREATE, &id),
		     IPC_EINVAL);
}

/* both sides are final, and who holds it only by loan is told. */
Test(queue, a_loan_keeps_nothing_alive)
{
	uint64_t consumer = consume(&b, "q"), lent = lend(&c, "q");
	uint32_t slot = b.reply.opened.channel_slot, before = attention(&c);

	shut(&b, consumer);

	cr_assert_eq(word_of(slot, CONSUMERS), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_eq(word_of(slot, PRODUCERS), side_make(1, 0, SIDE_FINAL));
	cr_assert_eq(attention(&c), before + 1);
	cr_assert_eq(find("q"), IPC_ENOENT);
	cr_assert(liveness_handle_is(a.table, lent));
	cr_assert_not(is_free(slot));

	shut(&c, lent);
	cr_assert(is_free(slot));
}

/* awaited consumers are awaited by counted producers. */
Test(queue, a_loan_does_not_await_consumers)
{
	uint64_t producer = produce(&b, "q");
	uint32_t slot = b.reply.opened.channel_slot, before;

	lend(&c, "q");
	before = attention(&c);
	shut(&b, producer);

	cr_assert_eq(word_of(slot, PRODUCERS), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_eq(word_of(slot, CONSUMERS), side_make(1, 0, SIDE_FINAL));
	cr_assert_eq(attention(&c), before + 1);
	cr_assert_eq(find("q"), IPC_ENOENT);
}

/* M-22, M-23: the death of one who holds both sides, and a loan. */
Test(queue, the_death_of_the_only_user_ends_it)
{
	uint32_t slot;
	uint64_t lent;

	produce(&b, "q");
	consume(&b, "q");
	slot = b.reply.opened.channel_slot;
	lend(&b, "q");
	lent = lend(&c, "q");
	rawpeer_disconnect(&b);

	cr_assert(rawpeer_until_side(&a, slot, CONSUMERS, 0, 1) & SIDE_FINAL);
	cr_assert(rawpeer_until_side(&a, slot, PRODUCERS, 0, 1) & SIDE_DIED);
	rawpeer_sync(&a);
	cr_assert(word_of(slot, PRODUCERS) & SIDE_FINAL);
	cr_assert_eq(find("q"), IPC_ENOENT);

	cr_assert_not(is_free(slot));
	shut(&c, lent);
	cr_assert(is_free(slot));
}

/* Q-16, M-31: what was decided is decided for the next worker. */
Test(queue, an_end_outlives_the_worker)
{
	uint64_t consumer = consume(&b, "q"), lent = lend(&c, "q");
	uint32_t slot = c.reply.opened.channel_slot;

	domain_kill_worker(&domain);
	cr_assert_eq(find("q"), 0, "a loan was not taken for a producer");
	cr_assert_eq(word_of(slot, PRODUCERS), side_make(1, 0, SIDE_EVER));

	shut(&b, consumer);
	domain_kill_worker(&domain);
	cr_assert_eq(find("q"), IPC_ENOENT);
	cr_assert_eq(word_of(slot, CONSUMERS), side_make(1, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert_eq(word_of(slot, PRODUCERS), side_make(2, 0, SIDE_EVER | SIDE_FINAL));
	cr_assert(liveness_handle_is(a.table, lent));

	cr_assert_not(is_free(slot));
	shut(&c, lent);
	cr_assert(is_free(slot));
}

/* ---- dead letters ---- */

/* Q-16, M-43 */
Test(queue, the_name_of_its_dead_letters_is_told)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", IPC_CREATE);
	uint64_t id;

	consume(&c, "dead");
	cr_assert_str_empty(c.reply.opened.dead_letters);
	strcpy(open.open.dead_letters, "dead");
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_str_eq(a.reply.opened.dead_letters, "dead");

	domain_kill_worker(&domain);
	consume(&b, "q");
	cr_assert_str_eq(b.reply.opened.dead_letters, "dead");
	strcpy(open.open.dead_letters, "deaf");
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EPROTOTYPE);
	strcpy(open.open.name, "other");
	strcpy(open.open.dead_letters, "other");
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EINVAL);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_QUEUE_PRODUCER, "q", OPEN_UNCOUNTED, &id),
		     IPC_EINVAL, "dead letters have none");
}

/* and nobody was there, nothing was made and nothing has ended. */
Test(queue, who_cannot_have_its_dead_letters_does_not_open_it)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", IPC_CREATE);
	uint64_t dead, id;
	uint32_t slot;

	strcpy(open.open.dead_letters, "dead");
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_ENOENT);
	cr_assert_eq(rawpeer_info(&a, "q"), IPC_ENOENT);

	open_role(&c, IPC_ROLE_SHARED_A, "dead", IPC_CREATE);
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EPROTOTYPE);
	cr_assert_eq(rawpeer_remove(&c, "dead", 0), 0);

	dead = consume(&c, "dead");
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	slot = a.reply.opened.channel_slot;
	strcpy(open.open.name, "r");
	strcpy(open.open.dead_letters, "q");
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EINVAL, "it has some itself");

	shut(&c, dead);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_QUEUE_CONSUMER, "q", 0, &id), IPC_ENOENT);
	cr_assert_eq(word_of(slot, CONSUMERS), 0, "awaited");
	cr_assert_eq(rawpeer_info(&a, "q"), 0);
}

/* Runs as another uid; tells what it gets. */
static void stranger(struct actor *self, void *arg)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, "with", 0);
	uint64_t id;

	(void)arg;
	if (setgid(54321) < 0 || setuid(54321) < 0)
		_exit(1);
	memset(&b, 0, sizeof(b));
	rawpeer_join(&b, domain.address);
	actor_say(self, rawpeer_open_role(&b, IPC_ROLE_QUEUE_PRODUCER, "own", 0, &id));
	actor_say(self, rawpeer_open_role(&b, IPC_ROLE_QUEUE_PRODUCER, "all", 0, &id));
	actor_say(self, b.reply.opened.fds);
	actor_say(self, fcntl(b.fds[0], F_GET_SEALS));
	actor_say(self, rawpeer_open(&b, &open, &id));
	(void)actor_hear(self);
	rawpeer_disconnect(&b);
}

/* M-50, M-54, Q-16: sealed memory and lines of its own; dead letters have rights of their own. */
Test(queue, others_open_what_they_may_write)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, "all", IPC_CREATE);
	struct actor actor;
	uint64_t id;
	int seals;

	/* A test that is skipped is not torn down. */
	if (getuid() != 0) {
		teardown();
		cr_skip_test("needs another uid");
	}

	consume(&a, "own");
	open.open.mode = 0666;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(a.reply.opened.fds, OPENED_FD_LINES);
	strcpy(open.open.name, "with");
	strcpy(open.open.dead_letters, "own");
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);

	actor_start(&actor, stranger, NULL);
	cr_assert_eq(actor_hear(&actor), IPC_EACCES);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(actor_hear(&actor), OPENED_FD_VALUE | OPENED_FD_LINES | OPENED_FD_TABLE);
	seals = (int)actor_hear(&actor);
	cr_assert_eq(seals & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
	cr_assert_eq(actor_hear(&actor), IPC_EACCES, "the dead letters are not for it");
	actor_say(&actor, 0);
	cr_assert_eq(actor_join(&actor), 0);
}

/* ---- a worker that dies on the way ---- */

/* A worker that dies sooner does not come as far as a first answer. */
enum { POINT_FIRST = 16, POINT_LAST = 120 };

/* Each worker of this domain dies at that crash point. */
static void dying_start(unsigned point)
{
	char wish[16];

	snprintf(wish, sizeof(wish), "%u", point);
	domain_start_mortal(&domain, wish);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&c, domain.address);
}

static void dying_stop(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&c);
	domain_kill(&domain);
}

static void until_word(uint32_t slot, unsigned side, uint64_t want, unsigned point)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	while (word_of(slot, side) != want) {
		cr_assert_lt(clock_now_ns(), deadline_ns, "point %u, side %u: %lx, not %lx", point,
			     side, (unsigned long)word_of(slot, side), (unsigned long)want);
		rawpeer_sync(&a);
	}
}

/* What is left after the last consumer: a loan, to which everything is final. */
static void check_ended(uint32_t slot, uint64_t lent, uint32_t before, unsigned point)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	cr_assert_eq(find("q"), IPC_ENOENT, "point %u", point);
	while (attention(&c) == before) {
		cr_assert_lt(clock_now_ns(), deadline_ns, "point %u", point);
		rawpeer_sync(&a);
	}
	cr_assert(liveness_handle_is(a.table, lent), "point %u", point);
	rawpeer_close(&c, lent);
	rawpeer_sync(&c);

	/* The slot is free: the next channel has it, awaited as if nobody had ever been there. */
	produce(&a, "q");
	cr_assert_eq(a.reply.opened.channel_slot, slot, "point %u", point);
	cr_assert_eq(word_of(slot, CONSUMERS) & SIDE_FLAGS, 0, "point %u", point);
}

/* M-31, D12 */
Test(queue_deaths, a_close_ends_it_wherever_the_worker_dies, .timeout = 60)
{
	for (unsigned point = POINT_FIRST; point <= POINT_LAST; ++point) {
		uint64_t consumer, lent;
		uint32_t slot, before;

		dying_start(point);
		consumer = consume(&b, "q");
		slot = b.reply.opened.channel_slot;
		lent = lend(&c, "q");
		before = attention(&c);
		rawpeer_close(&b, consumer);

		until_word(slot, CONSUMERS, side_make(1, 0, SIDE_EVER | SIDE_FINAL), point);
		until_word(slot, PRODUCERS, side_make(1, 0, SIDE_FINAL), point);
		check_ended(slot, lent, before, point);
		rawpeer_disconnect(&b);
		dying_stop();
	}
}

/* M-22, M-31, D12 */
Test(queue_deaths, a_death_ends_it_wherever_the_worker_dies, .timeout = 60)
{
	for (unsigned point = POINT_FIRST; point <= POINT_LAST; ++point) {
		uint64_t lent;
		uint32_t slot, before;

		dying_start(point);
		consume(&b, "q");
		slot = b.reply.opened.channel_slot;
		lent = lend(&c, "q");
		before = attention(&c);
		rawpeer_disconnect(&b);

		until_word(slot, CONSUMERS, side_make(1, 0, SIDE_EVER | SIDE_DIED | SIDE_FINAL),
			   point);
		until_word(slot, PRODUCERS, side_make(1, 0, SIDE_FINAL), point);
		check_ended(slot, lent, before, point);
		dying_stop();
	}
}
