/* SPDX-License-Identifier: MIT */
/*
 * flight through the public interface: leaders that die, leave, close, stop or are held for dead.
 */
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/client/flight_scene.h"
#include "tests/support/wakes.h"

TestSuite(flight_leader, .init = fixture_setup, .fini = fixture_teardown, .timeout = 90);

enum { N_MEMBERS = 4 };

/* ---- promotion ---- */

static void end_by_kill(struct actor *actor)
{
	actor_kill(actor);
}

static void end_by_exit(struct actor *actor)
{
	order_say(actor, ORDER_END, 0, 0);
	cr_assert_eq(actor_join(actor), 0);
}

static void end_by_exec(struct actor *actor)
{
	order_say(actor, ORDER_EXEC, 0, 0);
}

static void end_by_leave(struct actor *actor)
{
	ASSERT(order_do(actor, ORDER_LEAVE, 1, 0), 0);
}

static void end_by_close(struct actor *actor)
{
	ASSERT(order_do(actor, ORDER_CLOSE, 1, 0), 0);
}

static void end_by_closed_fds(struct actor *actor)
{
	ASSERT(order_do(actor, ORDER_CLOSE_FDS, 1, 0), 0);
}

/* Which of the members came back from its wait first; the others have to be asleep. */
static unsigned promoted_of(struct actor *member, unsigned n)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *flight = NULL;
	unsigned found = n;

	/* The key is not removed: whoever joins now follows. */
	ASSERT(join(&flight, table, 1), 2);
	for (unsigned i = 0; i < n; ++i) {
		char byte;

		if (recv(member[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
			found = i;
	}
	ipc_flight_leave(flight);
	ipc_flight_table_close(table);
	return found;
}

static void until_one_speaks(struct actor *member, unsigned n)
{
	struct pollfd fds[N_MEMBERS];

	for (unsigned i = 0; i < n; ++i)
		fds[i] = (struct pollfd){.fd = member[i].fd, .events = POLLIN};
	cr_assert_gt(poll(fds, n, WAIT_MS), 0, "nobody was promoted");
}

static void expect_promotion(void (*end)(struct actor *leader))
{
	struct actor leader, member[N_MEMBERS];
	unsigned promoted;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	for (unsigned i = 0; i < N_MEMBERS; ++i) {
		caller_start(&member[i]);
		order_begin(&member[i], ORDER_JOIN_WAIT, 1, 0);
	}
	end(&leader);
	until_one_speaks(member, N_MEMBERS);
	promoted = promoted_of(member, N_MEMBERS);
	cr_assert_lt(promoted, N_MEMBERS);

	ASSERT(actor_hear(&member[promoted]), 1);
	for (unsigned i = 0; i < N_MEMBERS; ++i)
		if (i != promoted)
			actor_until_asleep(&member[i]);
	ASSERT(order_do(&member[promoted], ORDER_LAND, 1, 6), 0);
	for (unsigned i = 0; i < N_MEMBERS; ++i) {
		if (i != promoted)
			EXPECT(actor_hear(&member[i]), 0);
		EXPECT(order_do(&member[i], ORDER_RESULT, 1, 0), 6);
		EXPECT(order_do(&member[i], ORDER_EPOCH, 1, 0), 2);
		actor_kill(&member[i]);
	}
	if (leader.fd >= 0)
		actor_kill(&leader);
}

/* F-2, M-25 */
Test(flight_leader, killed_one_is_followed_by_exactly_one)
{
	expect_promotion(end_by_kill);
}

/* F-2, M-24 */
Test(flight_leader, one_that_exits_is_followed)
{
	expect_promotion(end_by_exit);
}

/* F-2, M-24 */
Test(flight_leader, one_that_executes_is_followed)
{
	expect_promotion(end_by_exec);
}

/* F-2 */
Test(flight_leader, one_that_leaves_is_followed)
{
	expect_promotion(end_by_leave);
}

/* F-2, F-16 */
Test(flight_leader, one_that_closes_its_table_is_followed)
{
	expect_promotion(end_by_close);
}

/* F-2, F-3, M-24: while followers wait */
Test(flight_leader, one_whose_descriptors_are_closed_is_followed)
{
	expect_promotion(end_by_closed_fds);
}

/* F-2: by look as well, and only as often as attempts_max says. */
Test(flight_leader, attempts_are_counted)
{
	ipc_flight_table *table = TABLE_NEW(.attempts_max = 3);
	ipc_flight *last = NULL;
	struct actor member[3];

	for (unsigned i = 0; i < 3; ++i) {
		caller_start(&member[i]);
		ASSERT(order_do(&member[i], ORDER_JOIN, 1, 0), i == 0 ? 1 : 2);
	}
	ASSERT(join(&last, table, 1), 2);
	EXPECT(ipc_flight_look(last), IPC_EAGAIN);

	for (unsigned i = 0; i < 2; ++i) {
		actor_kill(&member[i]);
		ASSERT(order_do(&member[i + 1], ORDER_LOOK_WAIT, 1, 0), 1);
		EXPECT(order_do(&member[i + 1], ORDER_LOOK, 1, 0), 1);
		EXPECT(ipc_flight_look(last), IPC_EAGAIN);
	}
	actor_kill(&member[2]);
	EXPECT(look_in(last, WAIT_MS), IPC_EOWNERDEAD);
	EXPECT(ipc_flight_look(last), IPC_EOWNERDEAD);
	EXPECT(result_of(last), IPC_EOWNERDEAD);
	EXPECT(land(last, 1), IPC_EINVAL);
	EXPECT(ipc_flight_table_count(table), 0);
	ipc_flight_leave(last);

	/* It ended for those alone. */
	ASSERT(join(&last, table, 1), 1);
	land_and_leave(last, 1);
	ipc_flight_table_close(table);
}

static void expect_no_promotion(void (*end)(struct actor *leader))
{
	ipc_flight_table *table = TABLE_NEW(.flags = IPC_FLIGHT_TABLE_NO_PROMOTE);
	struct actor leader, member[2];
	ipc_flight *flight = NULL;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	for (unsigned i = 0; i < 2; ++i) {
		caller_start(&member[i]);
		order_begin(&member[i], ORDER_JOIN_WAIT, 1, 0);
	}
	end(&leader);
	for (unsigned i = 0; i < 2; ++i) {
		EXPECT(actor_hear(&member[i]), IPC_EOWNERDEAD);
		actor_kill(&member[i]);
	}
	ASSERT(join(&flight, table, 1), 1);
	ipc_flight_leave(flight);
	if (leader.fd >= 0)
		actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* F-2 */
Test(flight_leader, without_promotion_all_followers_are_told_of_a_death)
{
	expect_no_promotion(end_by_kill);
}

/* F-2 */
Test(flight_leader, without_promotion_all_followers_are_told_of_a_leave)
{
	expect_no_promotion(end_by_leave);
}

/* F-2: at once, not when a slice of the sleep is over. */
Test(flight_leader, promotion_does_not_wait_for_a_timer)
{
	enum { N = 7 };
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor leader;
	ipc_flight *flight;

	WAKES_TELL();
	for (unsigned i = 0; i < N; ++i) {
		uint64_t began;

		caller_start(&leader);
		ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
		ASSERT(join(&flight, table, 1), 2);
		EXPECT(look_in(flight, 5), IPC_ETIMEDOUT);
		began = clock_now_ns();
		cr_assert_eq(kill(leader.pid, SIGKILL), 0);
		ASSERT(look_in(flight, WAIT_MS), 1);
		ASSERT_WOKEN(began);
		ipc_flight_leave(flight);
		actor_kill(&leader);
	}
	ipc_flight_table_close(table);
}

struct edge {
	uint64_t from, to;
};

static int note_edge(const struct ipc_handle_info *info, void *userdata)
{
	struct edge *edge = userdata;

	if (info->handle_id == edge->from)
		edge->to = info->waiting_for;
	return 0;
}

/* M-45: the wait graph follows the lead. */
Test(flight_leader, those_who_wait_name_the_one_who_leads_now)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor leader, second, witness;
	struct edge edge = {0};
	uint64_t id;

	caller_start(&leader);
	caller_start(&second);
	caller_start(&witness);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(order_do(&second, ORDER_JOIN, 1, 0), 2);
	id = (uint64_t)order_do(&leader, ORDER_ID, 0, 0);
	edge.from = (uint64_t)order_do(&witness, ORDER_ID, 0, 0);
	order_begin(&witness, ORDER_JOIN_WAIT, 1, 0);
	ASSERT(ipc_client_list_handles_wait(fixture_client, NAME, note_edge, &edge, NULL), 0);
	cr_expect_eq(edge.to, id);

	/* Stopped, so that the other one is first. */
	cr_assert_eq(kill(witness.pid, SIGSTOP), 0);
	actor_kill(&leader);
	ASSERT(order_do(&second, ORDER_LOOK_WAIT, 1, 0), 1);
	id = (uint64_t)order_do(&second, ORDER_ID, 0, 0);
	cr_assert_eq(kill(witness.pid, SIGCONT), 0);
	for (unsigned i = 0; edge.to != id && i < WAIT_MS; ++i) {
		ASSERT(ipc_client_list_handles_wait(fixture_client, NAME, note_edge, &edge, NULL),
		       0);
		process_pause();
	}
	cr_expect_eq(edge.to, id);

	actor_kill(&second);
	actor_kill(&witness);
	ipc_flight_table_close(table);
}

/* Leads a flight of its own as soon as the broker has heard of the last leader's death; who waited
 * for that inside would be promoted. */
static void join_anew(ipc_flight **ret, ipc_flight_table *table, unsigned key)
{
	uint64_t deadline_ns = clock_after_ns(WAIT_MS * NS_PER_MS);
	int r;

	while ((r = join(ret, table, key)) == 2 && clock_now_ns() < deadline_ns)
		ipc_flight_leave(*ret);
	ASSERT(r, 1);
}

/* F-4: nobody is left who would follow. */
Test(flight_leader, key_of_a_lone_leader_is_free_after_its_death)
{
	ipc_flight_table *table = TABLE_NEW(.keys_max = 1);
	ipc_flight *flight = NULL;
	struct actor leader;

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	actor_kill(&leader);
	join_anew(&flight, table, 1);
	cr_assert_eq(land(flight, 1), 0);
	EXPECT(epoch_of(flight), 1);
	ipc_flight_leave(flight);

	caller_start(&leader);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(order_do(&leader, ORDER_LEAVE, 1, 0), 0);
	EXPECT(ipc_flight_table_count(table), 0);
	ASSERT(join(&flight, table, 2), 1);
	ipc_flight_leave(flight);
	actor_kill(&leader);
	ipc_flight_table_close(table);
}

/* ---- fencing ---- */

/* F-3, F-4, F-17, M-24: it is passed over, and then it lands. */
Test(flight_leader, one_held_for_dead_lands_nothing)
{
	ipc_flight_table *table = TABLE_NEW(0);
	ipc_flight *follower = NULL, *newer = NULL;
	struct actor leader, witness;

	caller_start(&leader);
	caller_start(&witness);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(order_do(&leader, ORDER_JOIN, 2, 0), 1);
	order_begin(&witness, ORDER_JOIN_WAIT, 1, 0);
	ASSERT(order_do(&leader, ORDER_CLOSE_FDS, 1, 0), 0);
	ASSERT(actor_hear(&witness), 1);
	ASSERT(join(&follower, table, 1), 2);

	/* Every call says so. */
	EXPECT(order_do(&leader, ORDER_LAND, 1, 666), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_FAIL, 1, IPC_FAILURE_LOCAL), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_FENCE, 1, 0), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_LOOK, 1, 0), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_LOOK_WAIT, 1, 0), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_RESULT, 1, 0), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_JOIN, 3, 0), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_ASK, 3, 0), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_COUNT, 0, 0), IPC_ESTALE);

	EXPECT(ipc_flight_look(follower), IPC_EAGAIN);
	EXPECT(order_do(&leader, ORDER_LEAVE, 1, 0), 0);
	EXPECT(ipc_flight_look(follower), IPC_EAGAIN);
	ASSERT(order_do(&witness, ORDER_LAND, 1, 5), 0);
	EXPECT(look_in(follower, WAIT_MS), 0);
	EXPECT(result_of(follower), 5);
	EXPECT(epoch_of(follower), 2);

	/* And a newer flight of a key of its is not its own. */
	ASSERT(join_in(&newer, table, 2, WAIT_MS), 1);
	EXPECT(order_do(&leader, ORDER_LAND, 2, 666), IPC_ESTALE);
	EXPECT(order_do(&leader, ORDER_LEAVE, 2, 0), 0);
	EXPECT(order_do(&leader, ORDER_CLOSE, 0, 0), 0);
	EXPECT(ipc_flight_table_count(table), 1);
	EXPECT(ipc_flight_look(newer), 1);
	EXPECT(land(newer, 7), 0);
	EXPECT(result_of(newer), 7);
	EXPECT(result_of(follower), 5);

	ipc_flight_leave(newer);
	ipc_flight_leave(follower);
	actor_kill(&leader);
	actor_kill(&witness);
	ipc_flight_table_close(table);
}

/* F-3, M-24: stopped is not dead. */
Test(flight_leader, one_that_is_stopped_for_long_is_never_passed_over)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor leader, waiter;
	ipc_flight *flight = NULL, *pending = NULL;

	caller_start(&leader);
	caller_start(&waiter);
	ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
	ASSERT(join(&pending, table, 1), 2);
	order_begin(&waiter, ORDER_JOIN_WAIT, 1, 0);
	cr_assert_eq(kill(leader.pid, SIGSTOP), 0);

	EXPECT(join_in(&flight, table, 1, 5000), IPC_ETIMEDOUT);
	cr_expect_null(flight);
	EXPECT(ipc_flight_look(pending), IPC_EAGAIN);
	actor_until_asleep(&waiter);
	EXPECT(ipc_flight_table_count(table), 1);

	cr_assert_eq(kill(leader.pid, SIGCONT), 0);
	EXPECT(order_do(&leader, ORDER_LAND, 1, 4), 0);
	EXPECT(actor_hear(&waiter), 0);
	EXPECT(look_in(pending, WAIT_MS), 0);
	EXPECT(result_of(pending), 4);
	EXPECT(epoch_of(pending), 1);

	ipc_flight_leave(pending);
	actor_kill(&leader);
	actor_kill(&waiter);
	ipc_flight_table_close(table);
}

/* ---- seats that change hands ---- */

/* F-2, F-12: whoever comes to sit where the dead leader sat is promoted as anybody is. */
Test(flight_leader, next_one_on_the_seat_of_the_dead_is_promoted_too)
{
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor leader, next;
	ipc_flight *flight = NULL;

	for (unsigned with_follower = 0; with_follower < 2; ++with_follower) {
		caller_start(&leader);
		ASSERT(order_do(&leader, ORDER_JOIN, 1, 0), 1);
		if (with_follower)
			ASSERT(join(&flight, table, 1), 2);
		actor_kill(&leader);
		caller_start(&next);
		ASSERT(order_do(&next, ORDER_JOIN, 2, 0), 1);
		ASSERT(order_do(&next, ORDER_LAND, 2, 0), 0);
		ASSERT(order_do(&next, ORDER_LEAVE, 2, 0), 0);
		for (unsigned i = 0; ipc_flight_table_count(table) == 2 && i < WAIT_MS; ++i)
			process_pause();

		ASSERT(order_do(&next, ORDER_JOIN, 1, 0), 1);
		cr_expect_gt(order_do(&next, ORDER_FENCE, 1, 0), 0);
		EXPECT(order_do(&next, ORDER_LAND, 1, 4), 0);
		EXPECT(order_do(&next, ORDER_EPOCH, 1, 0), with_follower ? 2 : 1);
		if (with_follower)
			EXPECT(result_of(flight), 4);
		ipc_flight_leave(flight);
		actor_kill(&next);
	}
	ipc_flight_table_close(table);
}
