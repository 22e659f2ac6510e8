/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `limiter`: what may be asked without changing anything, who of many
 * that wait comes next, and who is woken.
 */
#include "libipc/channel/limiter.h"

#include <criterion/criterion.h>

#include <ipc/error.h>

#include "tests/support/limiter_scene.h"

enum { N_PERMITS = 4, PER_USER = 2, WINDOW_UNITS = 10 };

#define WINDOW_LONG  (UINT64_C(3600) * 1000000000)
#define WINDOW_SHORT (UINT64_C(300) * 1000000)

static struct limiter_scene scene;
static struct limiter_member a, b, c;
static struct limiter_part first, second, third, fourth;

static void setup_shape(uint64_t permits, uint64_t per_user, uint64_t units, uint64_t ns)
{
	const uint64_t shape[4] = {permits, per_user, units, ns};

	limiter_scene_init(&scene, shape);
	limiter_scene_enter(&scene, &a, 11, 1000);
	limiter_scene_enter(&scene, &b, 12, 1000);
	limiter_scene_enter(&scene, &c, 13, 1001);
}

static void setup(void)
{
	setup_shape(N_PERMITS, 0, 0, 0);
}

static void setup_user(void)
{
	setup_shape(N_PERMITS, PER_USER, 0, 0);
}

static void setup_window(void)
{
	setup_shape(N_PERMITS, 0, WINDOW_UNITS, WINDOW_LONG);
}

static void setup_window_short(void)
{
	setup_shape(N_PERMITS, 0, WINDOW_UNITS, WINDOW_SHORT);
}

static void teardown(void)
{
	limiter_scene_deinit(&scene);
}

static int release(struct limiter_member *member, struct limiter_part *part)
{
	return limiter_release(&member->view, part, false);
}

static void use_up(struct limiter_member *member, unsigned n_units)
{
	struct limiter_part part;

	for (unsigned i = 0; i < n_units; ++i) {
		cr_assert_eq(limiter_scene_acquire(member, &part, 7, 1), 0);
		cr_assert_eq(release(member, &part), 0);
	}
}

static void until_window_is_over(void)
{
	while (limiter_scene_state(&a).window_left_ns > 0)
		;
}

static int probe(struct limiter_member *member)
{
	struct limiter_denial denial;

	return limiter_probe(&member->view, &denial);
}

/* ---- probing ---- */

/* M-34 */
Test(limiter_probe, says_what_acquire_would, .init = setup, .fini = teardown, .timeout = 60)
{
	struct limiter_denial denial;

	cr_expect_eq(limiter_probe(&b.view, &denial), 0);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_expect_eq(limiter_probe(&b.view, &denial), IPC_EAGAIN);
	limiter_scene_end(&scene, a.id);
	cr_expect_eq(limiter_probe(&b.view, &denial), 0, "a dead one holds nothing");
}

/* M-34 */
Test(limiter_probe, does_not_overtake, .init = setup, .fini = teardown, .timeout = 60)
{
	struct limiter_denial denial;

	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);

	cr_expect_eq(limiter_probe(&c.view, &denial), IPC_EAGAIN);
}

/* M-34 */
Test(limiter_probe, tells_when_the_window_ends, .init = setup_window, .fini = teardown,
     .timeout = 60)
{
	struct limiter_denial denial;

	for (unsigned i = 0; i < WINDOW_UNITS; ++i) {
		cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
		cr_assert_eq(release(&a, &first), 0);
	}

	cr_expect_eq(limiter_probe(&b.view, &denial), IPC_EAGAIN);
	cr_expect_eq(denial.reason, IPC_EDQUOT);
	cr_expect_gt(denial.window_left_ns, 0);
}

/* M-34: what is left after those who wait, of whom none has looked yet. */
Test(limiter_probe, grants_first_to_those_who_wait, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 1), 1);
	cr_assert_eq(limiter_scene_queue(&b, &third, 1, 2), 1);
	limiter_scene_end(&scene, a.id);

	cr_expect_eq(probe(&c), 0, "one permit is left");
	cr_expect_eq(limiter_scene_state(&c).n_waiting, 2, "it changed something");
	cr_expect_eq(limiter_scene_acquire(&c, &fourth, 0, 1), 0);
	cr_expect_eq(limiter_scene_look(&b, &third), 0);
}

/* M-34 */
Test(limiter_probe, leaves_to_those_who_wait_what_is_theirs, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);
	cr_assert_eq(limiter_scene_queue(&b, &third, 1, 3), 1);
	limiter_scene_end(&scene, a.id);

	cr_expect_eq(probe(&c), IPC_EAGAIN, "the second one stops the queue");
	cr_expect_eq(limiter_scene_acquire(&c, &fourth, 0, 1), IPC_EAGAIN);
}

/* M-34, L-6 */
Test(limiter_probe, counts_the_next_window_for_those_who_wait, .init = setup_window_short,
     .fini = teardown, .timeout = 60)
{
	use_up(&a, 8);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 3), 1);
	until_window_is_over();

	cr_expect_eq(probe(&c), 0);
	cr_assert_eq(limiter_scene_queue(&b, &third, 1, 4), 1);
	cr_expect_eq(probe(&c), IPC_EAGAIN);
}

/* M-34, L-7 */
Test(limiter_probe, counts_those_who_wait_in_their_users_bound, .init = setup_user,
     .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);
	limiter_scene_end(&scene, a.id);
	b.view.uid = 1000;

	cr_expect_eq(probe(&b), IPC_EAGAIN, "another request of this user");
	cr_expect_eq(probe(&c), 0, "of another user");
}

static uint32_t next_random(uint64_t *seed, uint32_t n)
{
	*seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(*seed >> 40) % n;
}

/* What nobody has looked at yet: requests of three users, some holders dead. */
static void make_a_mess(uint64_t *seed)
{
	struct limiter_member member[6];
	struct limiter_part part;

	limiter_scene_reset(&scene);
	for (unsigned i = 0; i < 6; ++i)
		limiter_scene_enter(&scene, &member[i], 20 + i, 1000 + i % 3);
	limiter_scene_enter(&scene, &c, 13, 1000 + next_random(seed, 3));

	for (unsigned i = 0; i < 12; ++i)
		(void)!limiter_scene_queue(&member[i / 2], &part, i % 2, 1 + next_random(seed, 3));
	for (unsigned i = 0; i < 6; ++i)
		if (next_random(seed, 3) == 0)
			limiter_scene_end(&scene, member[i].id);
}

/* M-34, L-3 */
Test(limiter_probe, agrees_with_acquire_in_every_mess, .timeout = 60)
{
	unsigned n_ready = 0;
	uint64_t seed = 7;

	setup_shape(9, 3, 18, WINDOW_LONG);
	for (unsigned i = 0; i < 400; ++i) {
		int probed, acquired;

		make_a_mess(&seed);
		probed = probe(&c);
		acquired = limiter_scene_acquire(&c, &first, 0, 1);
		cr_assert_eq(probed == 0, acquired == 0, "round %u: %d, %d", i, probed, acquired);
		n_ready += probed == 0;
	}
	cr_expect_gt(n_ready, 40);
	cr_expect_lt(n_ready, 360);
	teardown();
}

/* ---- order ---- */

enum { N_USERS = 50, N_WAITERS = 150, CROWD_PERMITS = 90, CROWD_PER_USER = 4, CROWD_UNITS = 150 };

/* By hand, what the rules say: who waits, in the order in which they came. */
static struct crowd {
	struct {
		uint32_t uid, permits;
		bool waits;
	} waiter[N_WAITERS];
	uint64_t held[N_USERS];
	uint64_t n_free, n_units;
	uint64_t per_user; /* no bound: a large number */
} crowd;

/* L-3, L-7; -1: none. */
static int crowd_first(void)
{
	bool is_blocked[N_USERS] = {false};

	for (int i = 0; i < N_WAITERS; ++i) {
		uint32_t uid = crowd.waiter[i].uid, permits = crowd.waiter[i].permits;

		if (!crowd.waiter[i].waits || permits > crowd.n_units || is_blocked[uid])
			continue;
		if (crowd.held[uid] + permits > crowd.per_user)
			is_blocked[uid] = true;
		else
			return permits <= crowd.n_free ? i : -1;
	}
	return -1;
}

static unsigned crowd_grant(void)
{
	unsigned n = 0;
	int i;

	while ((i = crowd_first()) >= 0) {
		crowd.waiter[i].waits = false;
		crowd.held[crowd.waiter[i].uid] += crowd.waiter[i].permits;
		crowd.n_free -= crowd.waiter[i].permits;
		crowd.n_units -= crowd.waiter[i].permits;
		++n;
	}
	return n;
}

static void crowd_run(uint64_t per_user, uint64_t n_units, uint64_t seed)
{
	static struct limiter_member member[N_WAITERS], holder;
	static struct limiter_part part[N_WAITERS];

	setup_shape(CROWD_PERMITS, per_user, n_units, n_units ? WINDOW_LONG : 0);
	limiter_scene_enter(&scene, &holder, 99, 2000);
	holder.view.per_user_max = UINT32_MAX; /* it takes all, and judges by the rules then */
	cr_assert_eq(limiter_scene_acquire(&holder, &first, 0, CROWD_PERMITS), 0);
	holder.view.per_user_max = per_user ? (uint32_t)per_user : UINT32_MAX;

	crowd = (struct crowd){.n_free = CROWD_PERMITS,
			       .n_units = n_units ? n_units - CROWD_PERMITS : UINT32_MAX,
			       .per_user = per_user ? per_user : UINT32_MAX};
	for (unsigned i = 0; i < N_WAITERS; ++i) {
		crowd.waiter[i].uid = next_random(&seed, N_USERS);
		crowd.waiter[i].permits = 1 + next_random(&seed, 4);
		crowd.waiter[i].waits = true;
		limiter_scene_enter(&scene, &member[i], 100 + i, crowd.waiter[i].uid);
		cr_assert_eq(limiter_scene_queue(&member[i], &part[i], 0, crowd.waiter[i].permits),
			     1);
	}

	cr_expect_gt(crowd_grant(), 15);
	cr_assert_eq(release(&holder, &first), 0);

	cr_expect_eq(limiter_scene_state(&holder).n_free, crowd.n_free);
	for (unsigned i = 0; i < N_WAITERS; ++i)
		cr_expect_eq(limiter_scene_look(&member[i], &part[i]),
			     crowd.waiter[i].waits ? IPC_EAGAIN : 0, "request %u", i);
	teardown();
}

/* L-3 */
Test(limiter_order, is_that_in_which_they_came, .timeout = 60)
{
	for (uint64_t seed = 1; seed < 5; ++seed)
		crowd_run(0, 0, seed);
}

/* L-3, L-7: more users than one pass is about. */
Test(limiter_order, of_many_users_with_bounds, .timeout = 60)
{
	for (uint64_t seed = 1; seed < 5; ++seed)
		crowd_run(CROWD_PER_USER, 0, seed);
}

/* L-3, L-7 */
Test(limiter_order, of_many_users_with_bounds_in_a_window, .timeout = 60)
{
	for (uint64_t seed = 1; seed < 5; ++seed) {
		crowd_run(CROWD_PER_USER, CROWD_UNITS, seed);
		crowd_run(0, CROWD_UNITS, seed);
	}
}

/* ---- who is woken ---- */

/* As one that sleeps on it: from now on a wake moves the word. */
static uint32_t sleep_on(struct limiter_member *member, struct limiter_part *part)
{
	return eventcount_announce(limiter_event(&member->view, part));
}

static bool is_woken(struct limiter_member *member, struct limiter_part *part, uint32_t word)
{
	return atomic_load(&limiter_event(&member->view, part)->word) != word;
}

/* M-27 */
Test(limiter_wakes, who_knows_that_units_lack_sleeps_on, .init = setup_window, .fini = teardown,
     .timeout = 60)
{
	uint32_t word;

	use_up(&a, 8);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 3), 1);
	cr_assert_eq(limiter_scene_look(&b, &second), IPC_EAGAIN);
	word = sleep_on(&b, &second);

	use_up(&c, 1);

	cr_expect_not(is_woken(&b, &second, word));
}

/* M-27, L-1: it waits for permits until then. */
Test(limiter_wakes, who_loses_its_units_is_woken, .init = setup_window, .fini = teardown,
     .timeout = 60)
{
	uint32_t lost, left;

	use_up(&a, 3);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 4), 1);
	cr_assert_eq(limiter_scene_queue(&b, &third, 1, 4), 1);
	cr_assert_eq(limiter_scene_queue(&c, &fourth, 0, 1), 1);
	cr_assert_eq(limiter_scene_look(&b, &third), IPC_EAGAIN);
	cr_assert_eq(limiter_scene_look(&c, &fourth), IPC_EAGAIN);
	lost = sleep_on(&b, &third);
	left = sleep_on(&c, &fourth);

	cr_assert_eq(release(&a, &first), 0);

	cr_assert_eq(limiter_scene_look(&b, &second), 0);
	cr_expect(is_woken(&b, &third, lost), "1 unit is left, it needs 4");
	cr_expect_not(is_woken(&c, &fourth, left), "its unit is left");
}

/* M-27, L-6: it knew it of the window before. */
Test(limiter_wakes, who_lacks_units_of_the_next_window_is_woken, .timeout = 60)
{
	uint32_t word;

	setup_shape(N_PERMITS, 0, 5, WINDOW_SHORT);
	use_up(&a, 2);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 3), 1);
	cr_assert_eq(limiter_scene_queue(&b, &third, 1, 4), 1);
	cr_assert_eq(limiter_scene_look(&b, &third), IPC_EAGAIN);
	word = sleep_on(&b, &third);
	until_window_is_over();

	cr_assert_eq(limiter_scene_acquire(&c, &fourth, 0, 2), IPC_EAGAIN);

	cr_assert_eq(limiter_scene_look(&b, &second), 0);
	cr_expect(is_woken(&b, &third, word), "2 units are left, it needs 4");
	teardown();
}

/* M-27, L-1: they were given back in between, and it has seen that. */
Test(limiter_wakes, who_loses_its_units_again_is_woken_again, .init = setup_window,
     .fini = teardown, .timeout = 60)
{
	struct limiter_part small;
	uint32_t word;

	use_up(&a, 1);
	cr_assert_eq(limiter_scene_acquire(&c, &small, 0, 1), 0);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 3), 1);
	cr_assert_eq(limiter_scene_queue(&b, &third, 1, 4), 1);
	cr_assert_eq(limiter_scene_queue(&b, &fourth, 2, 4), 1);
	cr_assert_eq(release(&a, &first), 0);
	cr_assert_eq(limiter_scene_look(&b, &second), 0);
	cr_assert_eq(limiter_scene_look(&b, &fourth), IPC_EAGAIN, "2 units are left");
	cr_assert_eq(limiter_release(&b.view, &second, true), 0);
	cr_assert_eq(limiter_scene_look(&b, &fourth), IPC_EAGAIN, "5 units are left");
	word = sleep_on(&b, &fourth);

	cr_assert_eq(release(&c, &small), 0);

	cr_assert_eq(limiter_scene_look(&b, &third), 0);
	cr_expect(is_woken(&b, &fourth, word), "1 unit is left, it needs 4");
}
