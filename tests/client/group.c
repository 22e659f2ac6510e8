/* SPDX-License-Identifier: MIT */

/*
 * Groups through the public interface: who is in one, and where an item goes.
 */

#include <stdlib.h>
#include <sys/wait.h>

#include "tests/client/group_scene.h"

TestSuite(group, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- who is in it ---- */

/* those that were there, and those that come. */
Test(group, an_item_goes_to_every_queue_whose_name_matches)
{
	ipc_queue_consumer *a = small_new("news/a"), *other = small_new("olds/a"), *b;
	ipc_group *group = group_new("news/*");

	EXPECT(ipc_group_count(group), 1);
	EXPECT_RESULT(group_push(group, 1, 1, IPC_FULL_FAIL), 1);
	b = small_new("news/b/deep");
	EXPECT(ipc_group_count(group), 2);
	EXPECT_RESULT(group_push(group, 1, 2, IPC_FULL_FAIL), 2);

	EXPECT(eat(a), 1);
	EXPECT(eat(a), 2);
	EXPECT(eat(b), 2);
	EXPECT(eat(b), IPC_EAGAIN);
	EXPECT(eat(other), IPC_EAGAIN);

	ipc_group_close(group);
	ipc_queue_consumer_close(a);
	ipc_queue_consumer_close(b);
	ipc_queue_consumer_close(other);
}

/* */
Test(group, a_push_without_a_match_is_no_failure)
{
	ipc_group *group = group_new("nothing/is/called/so");

	EXPECT(ipc_group_count(group), 0);
	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 0);
	ipc_group_close(group);
}

/* M-45: as fnmatch without flags; other kinds are none of its business. */
Test(group, a_pattern_has_all_that_fnmatch_has)
{
	ipc_queue_consumer *one = small_new("q/1"), *two = small_new("q/2.x"),
			   *far = small_new("p/q/3");
	ipc_watch_producer *watch = producer_new("q/4");
	ipc_group *digit = group_new("q/[0-9]"), *any = group_new("*q*"),
		  *exact = group_new("q/2.x");

	EXPECT(ipc_group_count(digit), 1);
	EXPECT(ipc_group_count(any), 3);
	EXPECT(ipc_group_count(exact), 1);
	EXPECT_RESULT(group_push(exact, 0, 9, IPC_FULL_FAIL), 1);
	EXPECT(eat(two), 9);

	ipc_group_close(digit);
	ipc_group_close(any);
	ipc_group_close(exact);
	ipc_watch_producer_close(watch);
	ipc_queue_consumer_close(one);
	ipc_queue_consumer_close(two);
	ipc_queue_consumer_close(far);
}

/* Q-17, M-3, Q-7 */
Test(group, it_is_a_counted_producer_of_each_queue)
{
	ipc_queue_consumer *consumer = small_new("g/a");
	ipc_group *group = group_new("g/*");
	struct timespec deadline = domain_deadline(WAIT_MS);

	EXPECT(ipc_queue_consumer_peers(consumer), 1);
	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 1);
	ipc_group_close(group);

	EXPECT(ipc_queue_consumer_peers_wait(consumer, false, &deadline), 0);
	EXPECT(eat(consumer), 1);
	EXPECT(eat_in(consumer, WAIT_MS), IPC_EPIPE);
	ipc_queue_consumer_close(consumer);
}

static void hold_group(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_group *group = NULL;
	struct ipc_group_result result = {.size = sizeof(result)};
	int r = ipc_group_open_wait(&group, own, arg, NULL);

	actor_say(self, r);
	for (;;) {
		uint32_t number = (uint32_t)actor_hear(self);

		r = ipc_group_push(group, 0, &number, sizeof(number), IPC_FULL_FAIL, &result);
		actor_say(self, r < 0 ? r : (int64_t)result.queued);
	}
}

/* Q-17, M-22, M-25 */
Test(group, its_death_is_that_of_a_producer)
{
	ipc_queue_consumer *consumer = small_new("g/a");
	struct actor actor;

	actor_start(&actor, hold_group, "g/*");
	EXPECT(actor_hear(&actor), 0);
	actor_say(&actor, 7);
	EXPECT(actor_hear(&actor), 1);
	actor_kill(&actor);

	EXPECT(eat(consumer), 7);
	EXPECT(eat_in(consumer, WAIT_MS), IPC_EOWNERDEAD);
	ipc_queue_consumer_close(consumer);
}

/* ---- who leaves it ---- */

/* told once, and the next queue of the name is another one. */
Test(group, a_queue_that_ended_is_gone_once)
{
	ipc_queue_consumer *a = small_new("g/a"), *b = small_new("g/b");
	ipc_group *group = group_new("g/*");

	EXPECT(ipc_group_count(group), 2);
	ipc_queue_consumer_close(a);
	until_count(group, 1);

	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 1, 0, 0, 0, 1, 0);
	EXPECT_RESULT(group_push(group, 0, 2, IPC_FULL_FAIL), 1);

	a = small_new("g/a");
	EXPECT_RESULT(group_push(group, 0, 3, IPC_FULL_FAIL), 2);
	EXPECT(eat(a), 3);

	ipc_group_close(group);
	ipc_queue_consumer_close(a);
	ipc_queue_consumer_close(b);
}

/* shut ones stay in the group. */
Test(group, a_queue_that_is_shut_is_gone_each_time)
{
	ipc_queue_consumer *consumer = small_new("g/a");
	ipc_group *group = group_new("g/*");

	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 1);
	EXPECT(ipc_queue_shutdown(consumer), 0);
	EXPECT_RESULT(group_push(group, 0, 2, IPC_FULL_FAIL), 0, 0, 0, 0, 1, 0);
	EXPECT_RESULT(group_push(group, 0, 3, IPC_FULL_FAIL), 0, 0, 0, 0, 1, 0);
	EXPECT(ipc_group_count(group), 1);
	EXPECT(eat(consumer), 1);

	ipc_group_close(group);
	ipc_queue_consumer_close(consumer);
}

/* a kept queue without consumers is there until it is full. */
Test(group, a_kept_queue_takes_items_without_consumers)
{
	ipc_queue_consumer *consumer =
		queue_consumer_new("g/kept", (struct ipc_queue_options){SMALL, .flags = IPC_KEEP});
	ipc_group *group = group_new("g/*");
	uint64_t id = 0;

	EXPECT(ipc_queue_consumer_get_id(consumer, &id), 0);
	ipc_queue_consumer_close(consumer);
	until_not_alive(id);

	for (uint32_t i = 0; i < 4; ++i)
		EXPECT_RESULT(group_push(group, 0, i, IPC_FULL_FAIL), 1);
	EXPECT_RESULT(group_push(group, 0, 9, IPC_FULL_FAIL), 0, 0, 0, 1, 0, 0);
	EXPECT(ipc_group_count(group), 1);

	ipc_group_close(group);
	EXPECT(take_away("g/kept", 0), 0);
}

/* ---- where an item goes ---- */

static void fill(ipc_group *group, unsigned n)
{
	for (uint32_t i = 0; i < n; ++i)
		(void)group_push(group, 0, i, IPC_FULL_FAIL);
}

/* the full one follows the policy, and the others do not notice. */
Test(group, a_full_queue_follows_the_policy_and_delays_nobody)
{
	ipc_queue_consumer *full = small_new("g/full"), *dead = small_new("letters"), *with, *wide;
	ipc_group *group = group_new("g/*");
	struct ipc_queue_item item;

	with = queue_consumer_new("g/with",
				  (struct ipc_queue_options){SMALL, .dead_letters = "letters"});
	fill(group, 4);
	wide = CONSUMER_NEW(0);
	ipc_queue_consumer_close(wide);
	wide = queue_consumer_new("g/wide", (struct ipc_queue_options){0});

	EXPECT_RESULT(group_push(group, 0, 10, IPC_FULL_FAIL), 1, 0, 0, 2, 0, 0);
	EXPECT_RESULT(group_push(group, 0, 11, IPC_FULL_DROP), 1, 0, 2, 0, 0, 0);
	EXPECT_RESULT(group_push(group, 0, 12, IPC_FULL_DEAD_LETTER), 1, 1, 1, 0, 0, 0);

	EXPECT(eat(wide), 10);
	EXPECT(eat(wide), 11);
	EXPECT(eat(wide), 12);
	EXPECT(take(dead, &item), 12);
	cr_expect_eq(item.reason, IPC_DEAD_FULL);
	cr_expect_str_eq(item.source, "g/with");
	EXPECT(ipc_queue_ack(dead, &item), 0);
	cr_expect_eq(state_at(full).dropped[0][IPC_DEAD_FULL], 2);
	cr_expect_eq(state_at(with).dropped[0][IPC_DEAD_FULL], 1);
	cr_expect_eq(state_at(with).dead_lettered[0][IPC_DEAD_FULL], 1);

	ipc_group_close(group);
	ipc_queue_consumer_close(full);
	ipc_queue_consumer_close(with);
	ipc_queue_consumer_close(wide);
	ipc_queue_consumer_close(dead);
}

/* and spends no token. */
Test(group, without_a_token_it_is_full_whatever_the_policy)
{
	ipc_queue_consumer *consumer = queue_consumer_new(
		"g/slow", (struct ipc_queue_options){SMALL, .rate = 1, .burst = 1});
	ipc_group *group = group_new("g/*");

	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 1);
	EXPECT_RESULT(group_push(group, 0, 2, IPC_FULL_DROP), 0, 0, 0, 1, 0, 0);
	EXPECT_RESULT(group_push(group, 0, 3, IPC_FULL_DEAD_LETTER), 0, 0, 0, 1, 0, 0);

	ipc_group_close(group);
	ipc_queue_consumer_close(consumer);
}

/* one field each, in this order. */
Test(group, gone_comes_before_too_big_and_that_before_full)
{
	static const unsigned char big[17];
	ipc_queue_consumer *full = small_new("g/full"), *shut = small_new("g/shut"),
			   *wide = queue_consumer_new("g/wide", (struct ipc_queue_options){0});
	ipc_group *group = group_new("g/*");
	struct ipc_group_result result = {.size = sizeof(result)};

	fill(group, 4);
	EXPECT(ipc_queue_shutdown(shut), 0);
	EXPECT(ipc_group_push(group, 0, big, sizeof(big), IPC_FULL_DROP, &result), 0);
	EXPECT_RESULT(result, 1, 0, 0, 0, 1, 1);
	cr_expect_eq(state_at(full).dropped[0][IPC_DEAD_FULL], 0);

	ipc_group_close(group);
	ipc_queue_consumer_close(full);
	ipc_queue_consumer_close(shut);
	ipc_queue_consumer_close(wide);
}

/* */
Test(group, a_priority_that_a_queue_lacks_is_its_lowest)
{
	ipc_queue_consumer *one = queue_consumer_new(
				   "g/1", (struct ipc_queue_options){SMALL, .priorities = 1}),
			   *eight = queue_consumer_new(
				   "g/8", (struct ipc_queue_options){SMALL, .priorities = 8});
	ipc_group *group = group_new("g/*");
	struct ipc_queue_item item;

	EXPECT_RESULT(group_push(group, 5, 1, IPC_FULL_FAIL), 2);
	EXPECT_RESULT(group_push(group, 4711, 2, IPC_FULL_FAIL), 2);
	EXPECT(take(one, &item), 1);
	cr_expect_eq(item.priority, 0);
	EXPECT(take(eight, &item), 1);
	cr_expect_eq(item.priority, 5);
	EXPECT(take(eight, &item), 2);
	cr_expect_eq(item.priority, 7);

	ipc_group_close(group);
	ipc_queue_consumer_close(one);
	ipc_queue_consumer_close(eight);
}

/* M-72 */
Test(group, an_item_of_no_bytes_is_one)
{
	ipc_queue_consumer *consumer = small_new("g/a");
	ipc_group *group = group_new("g/*");
	struct ipc_group_result result = {.size = sizeof(result)};
	struct ipc_queue_item item;

	EXPECT(ipc_group_push(group, 0, NULL, 0, IPC_FULL_FAIL, &result), 0);
	EXPECT_RESULT(result, 1);
	EXPECT(ipc_queue_take(consumer, &item), 0);
	cr_expect_eq(item.size, 0);

	ipc_group_close(group);
	ipc_queue_consumer_close(consumer);
}

/* ---- consumers that die or stop ---- */

/* what waited where nobody takes any more goes to the dead letters by the next push. */
Test(group, a_push_gives_a_dead_consumers_items_to_the_dead_letters)
{
	ipc_queue_consumer *dead = small_new("letters");
	ipc_group *group = group_new("g/*");
	struct ipc_queue_item item;
	struct actor actor;

	member_start(&actor, (struct member){.name = "g/a",
					     .role = IPC_ROLE_QUEUE_CONSUMER,
					     .options = {SMALL, .flags = IPC_CREATE,
							 .dead_letters = "letters"}});
	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 1);
	actor_kill(&actor);
	until_count(group, 0);

	EXPECT_RESULT(group_push(group, 0, 2, IPC_FULL_FAIL), 0, 0, 0, 0, 1, 0);
	EXPECT(take(dead, &item), 1);
	cr_expect_eq(item.reason, IPC_DEAD_CONSUMER_GONE);
	cr_expect_str_eq(item.source, "g/a");
	EXPECT(ipc_queue_ack(dead, &item), 0);

	ipc_group_close(group);
	ipc_queue_consumer_close(dead);
}

/* Q-9, M-24: stopped is alive; the others get theirs. */
Test(group, a_stopped_subscriber_delays_nobody)
{
	ipc_queue_consumer *quick = small_new("g/quick");
	ipc_group *group = group_new("g/*");
	struct actor actor;

	member_start(&actor, (struct member){.name = "g/stopped",
					     .role = IPC_ROLE_QUEUE_CONSUMER,
					     .options = {SMALL, .flags = IPC_CREATE}});
	cr_assert_eq(kill(actor.pid, SIGSTOP), 0);
	for (uint32_t i = 0; i < 100; ++i) {
		struct ipc_group_result result = group_push(group, 0, i, IPC_FULL_DROP);

		EXPECT_RESULT(result, i < 4 ? 2 : 1, 0, i < 4 ? 0 : 1);
		EXPECT(eat(quick), i);
	}

	cr_assert_eq(kill(actor.pid, SIGCONT), 0);
	EXPECT(order_do(&actor, ORDER_TAKE, 0, 0), 0);
	actor_kill(&actor);
	ipc_group_close(group);
	ipc_queue_consumer_close(quick);
}

/* ---- arguments ---- */

/* M-10, M-46, M-74, M-76 */
Test(group, arguments_are_checked)
{
	static char longest[IPC_PATTERN_SIZE_MAX + 2];
	ipc_group *group = NULL;
	struct ipc_group_result result = {.size = sizeof(result)};
	uint32_t short_result[4] = {sizeof(size_t), 0, 7, 7};

	memset(longest, '*', sizeof(longest) - 1);
	EXPECT(ipc_group_open_wait(&group, fixture_client, longest, NULL), IPC_EINVAL);
	EXPECT(ipc_group_open_wait(&group, fixture_client, "", NULL), IPC_EINVAL);
	EXPECT(ipc_group_open_wait(&group, fixture_client, NULL, NULL), IPC_EINVAL);
	EXPECT(ipc_group_open_wait(&group, NULL, "*", NULL), IPC_EINVAL);
	EXPECT(ipc_group_open_wait(NULL, fixture_client, "*", NULL), IPC_EINVAL);
	cr_expect_null(group);
	longest[IPC_PATTERN_SIZE_MAX] = '\0';
	group = group_new(longest);

	EXPECT(ipc_group_push(group, 0, NULL, 1, IPC_FULL_FAIL, &result), IPC_EINVAL);
	EXPECT(ipc_group_push(group, 0, "", 1, (enum ipc_full_policy)3, &result), IPC_EINVAL);
	EXPECT(ipc_group_push(group, 0, "", 1, IPC_FULL_FAIL, NULL), IPC_EINVAL);
	EXPECT(ipc_group_push(NULL, 0, "", 1, IPC_FULL_FAIL, &result), IPC_EINVAL);
	EXPECT(ipc_group_count(NULL), IPC_EINVAL);
	result.size = sizeof(size_t) - 1;
	EXPECT(ipc_group_push(group, 0, "", 1, IPC_FULL_FAIL, &result), IPC_EINVAL);
	EXPECT(ipc_group_push(group, 0, "", 1, IPC_FULL_FAIL,
			      (struct ipc_group_result *)(void *)short_result),
	       0);
	cr_expect_eq(short_result[2], 7, "no more than was asked for is written");
	cr_expect_null(ipc_group_close(group));
	cr_expect_null(ipc_group_close(NULL));
}

/* M-29, M-30: it has close alone. */
Test(group, it_cannot_be_waited_for)
{
	ipc_group *group = group_new("*");

	EXPECT(look(group, IPC_READY_WRITABLE), IPC_EINVAL);
	ipc_group_close(group);
}

/* M-42, M-44: the child's close takes nothing from the parent. */
Test(group, a_forked_child_can_close_it_and_nothing_else)
{
	ipc_queue_consumer *consumer = small_new("g/a");
	ipc_group *group = group_new("g/*");
	struct ipc_group_result result = {.size = sizeof(result)};
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		bool is_good =
			ipc_group_push(group, 0, "", 1, IPC_FULL_FAIL, &result) == IPC_ECHILD &&
			ipc_group_count(group) == IPC_ECHILD;

		ipc_group_close(group);
		_exit(is_good ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);

	EXPECT_RESULT(group_push(group, 0, 1, IPC_FULL_FAIL), 1);
	EXPECT(eat(consumer), 1);
	ipc_group_close(group);
	ipc_queue_consumer_close(consumer);
}

/* M-24 */
static void close_fds(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_group *full = NULL, *empty = NULL;
	struct ipc_group_result result = {.size = sizeof(result)};
	int r = ipc_group_open_wait(&full, own, "g/*", NULL);

	(void)arg;
	if (r == 0)
		r = ipc_group_open_wait(&empty, own, "nothing/*", NULL);
	actor_say(self, r);
	(void)actor_hear(self);
	(void)member_close_fds(self->fd);
	actor_say(self, 0);
	(void)actor_hear(self);
	actor_say(self, ipc_group_push(full, 0, "", 1, IPC_FULL_FAIL, &result));
	actor_say(self, ipc_group_count(full));
	actor_say(self, ipc_group_push(empty, 0, "", 1, IPC_FULL_FAIL, &result));
	ipc_group_close(full);
	ipc_group_close(empty);
}

Test(group, who_is_held_dead_is_told_so)
{
	ipc_queue_consumer *consumer = small_new("g/a");
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct actor actor;

	actor_start(&actor, close_fds, NULL);
	EXPECT(actor_hear(&actor), 0);
	actor_say(&actor, 0);
	EXPECT(actor_hear(&actor), 0);
	EXPECT(ipc_queue_consumer_peers_wait(consumer, false, &deadline), 0);
	actor_say(&actor, 0);
	EXPECT(actor_hear(&actor), IPC_ESTALE);
	EXPECT(actor_hear(&actor), IPC_ESTALE);
	EXPECT(actor_hear(&actor), IPC_ESTALE);
	EXPECT(actor_join(&actor), 0);
	ipc_queue_consumer_close(consumer);
}
