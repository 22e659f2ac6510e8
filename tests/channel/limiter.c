/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `limiter`.
 */
#include "libipc/channel/limiter.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include <ipc/admin.h>
#include <ipc/error.h>

#include "libipc/platform/clock.h"
#include "tests/support/limiter_scene.h"

enum { N_PERMITS = 4, WINDOW_UNITS = 10 };

/* Longer than any test, and one that is over as soon as a test wants it. */
#define WINDOW_LONG  (UINT64_C(3600) * 1000000000)
#define WINDOW_SHORT (UINT64_C(100) * 1000000)

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
	setup_shape(N_PERMITS, 2, 0, 0);
}

static void setup_window(void)
{
	setup_shape(N_PERMITS, 0, WINDOW_UNITS, WINDOW_LONG);
}

static void setup_window_short(void)
{
	setup_shape(N_PERMITS, 0, WINDOW_UNITS, WINDOW_SHORT);
}

static void setup_all(void)
{
	setup_shape(N_PERMITS, 3, WINDOW_UNITS, WINDOW_LONG);
}

static void teardown(void)
{
	limiter_scene_deinit(&scene);
}

static void expect_state(uint32_t n_free, uint32_t n_waiting)
{
	struct ipc_limiter_state state = limiter_scene_state(&a);

	cr_expect_eq(state.n_free, n_free, "%u are free", state.n_free);
	cr_expect_eq(state.n_held, (uint32_t)scene.shape[0] - n_free);
	cr_expect_eq(state.n_waiting, n_waiting, "%u wait", state.n_waiting);
}

static int release(struct limiter_member *member, struct limiter_part *part)
{
	return limiter_release(&member->view, part, false);
}

static void until_window_is_over(void)
{
	while (limiter_scene_state(&a).window_left_ns > 0)
		;
}

/* ---- permits ---- */

Test(limiter, grants_as_many_as_there_are, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_expect_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 1), 0);

	expect_state(0, 0);
}

/* L-1 */
Test(limiter, without_permits_it_says_so, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);

	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 2), IPC_EAGAIN);
	expect_state(1, 0);
}

/* L-1 */
Test(limiter, what_can_never_be_had_is_refused, .init = setup_all, .fini = teardown, .timeout = 60)
{
	cr_expect_eq(limiter_check(&a.view, 0), IPC_EINVAL);
	cr_expect_eq(limiter_check(&a.view, 3), 0);
	cr_expect_eq(limiter_check(&a.view, 4), IPC_EMSGSIZE, "more than the user's");
}

/* L-1 */
Test(limiter, more_than_there_are_is_refused, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_expect_eq(limiter_check(&a.view, N_PERMITS), 0);
	cr_expect_eq(limiter_check(&a.view, N_PERMITS + 1), IPC_EMSGSIZE);
}

Test(limiter, released_permits_are_free, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);

	cr_expect_eq(release(&a, &first), 0);

	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 4), 0);
}

/* L-2 */
Test(limiter, released_twice_counts_once, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	cr_assert_eq(limiter_scene_acquire(&b, &second, 0, 2), 0);
	cr_assert_eq(release(&a, &first), 0);

	cr_expect_eq(release(&a, &first), IPC_ESTALE);
	expect_state(2, 0);
}

/* L-2, with another operation between */
Test(limiter, released_twice_later_counts_once, .init = setup, .fini = teardown, .timeout = 60)
{
	struct limiter_part old;

	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	old = first;
	cr_assert_eq(release(&a, &first), 0);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);

	cr_expect_eq(release(&a, &old), IPC_ESTALE);
	expect_state(2, 0);
}

/* L-2: after 2^37 changes of a cell's word its turn begins with 0 again. */
Test(limiter, turns_of_a_cell_go_round, .init = setup, .fini = teardown, .timeout = 60)
{
	struct limiter_segment *segment = scene.segment;

	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
	cr_assert_eq(release(&a, &first), 0);
	cr_assert_eq(limiter_scene_acquire(&b, &second, 0, 1), 0);
	atomic_store(&segment->state[first.seat],
		     (UINT64_MAX << LIMITER_TURN_SHIFT) - (UINT64_C(4) << LIMITER_TURN_SHIFT));

	for (unsigned i = 0; i < 6; ++i) {
		cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
		cr_assert_eq(release(&b, &second), 0);
		cr_assert_eq(limiter_scene_acquire(&b, &second, 0, 1), 0);
		cr_assert_eq(release(&a, &first), 0, "in round %u", i);
		expect_state(3, 0);
	}
}

Test(limiter, permits_up_to_the_largest_number, .timeout = 60)
{
	setup_shape(UINT32_MAX, 0, 0, 0);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, UINT32_MAX), 0);
	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 1), IPC_EAGAIN);
	cr_expect_eq(release(&a, &first), 0);
	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 1), 0);
	expect_state(UINT32_MAX - 1, 0);
	teardown();
}

/* ---- the dead ---- */

/* L-2, M-25 */
Test(limiter, permits_of_a_dead_one_are_free_at_once, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	limiter_scene_end(&scene, a.id);

	cr_expect_eq(limiter_scene_state(&b).n_free, 4);
	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 4), 0);
}

/* L-2 */
Test(limiter, permits_of_a_dead_one_come_back_once, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	cr_assert_eq(limiter_scene_acquire(&b, &second, 0, 2), 0);
	limiter_scene_end(&scene, a.id);

	cr_assert_eq(limiter_scene_acquire(&c, &third, 0, 2), 0);

	cr_expect_eq(limiter_scene_acquire(&c, &fourth, 1, 1), IPC_EAGAIN);
	cr_expect_eq(limiter_scene_state(&c).n_free, 0);
}

/* L-2: a process that is held dead lives, and lets go of what is not its own any more. */
Test(limiter, one_that_is_held_dead_gives_nothing_back_twice, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	limiter_scene_end(&scene, a.id);
	cr_assert_eq(limiter_scene_acquire(&b, &second, 0, 4), 0);

	cr_expect_eq(release(&a, &first), IPC_ESTALE);
	cr_expect_eq(limiter_scene_acquire(&c, &third, 0, 1), IPC_EAGAIN);
}

/* L-2 */
Test(limiter, row_of_a_dead_one_is_cleared_by_the_next, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct limiter_member next;

	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	limiter_scene_end(&scene, a.id);
	atomic_store(&scene.segment->seats.rows.process[a.row], 0); /* the process is gone */

	limiter_scene_enter(&scene, &next, 14, 1000);

	cr_expect_eq(next.row, a.row);
	cr_expect_eq(limiter_scene_state(&next).n_free, 4);
	cr_expect_eq(limiter_scene_acquire(&next, &second, 0, 4), 0);
}

/* ---- the queue ---- */

/* L-3 */
Test(limiter, first_come_first_served, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 1), 1);
	cr_assert_eq(limiter_scene_queue(&c, &third, 0, 4), 1);
	cr_assert_eq(limiter_scene_queue(&b, &fourth, 1, 1), 1);
	expect_state(0, 3);

	cr_assert_eq(release(&a, &first), 0);

	cr_expect_eq(limiter_scene_look(&b, &second), 0);
	cr_expect_eq(limiter_scene_look(&c, &third), IPC_EAGAIN,
		     "it would have more than there are");
	cr_expect_eq(limiter_scene_look(&b, &fourth), IPC_EAGAIN, "it overtook a big one");
	cr_assert_eq(release(&b, &second), 0);
	cr_expect_eq(limiter_scene_look(&c, &third), 0);
	expect_state(0, 1);
}

/* L-7 */
Test(limiter, acquire_does_not_overtake, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);

	cr_expect_eq(limiter_scene_acquire(&c, &third, 0, 1), IPC_EAGAIN);
	expect_state(1, 1);
}

/* L-3 */
Test(limiter, who_gives_up_is_passed_over, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);
	cr_assert_eq(limiter_scene_queue(&c, &third, 0, 1), 1);

	cr_expect_not(limiter_give_up(&b.view, &second));

	cr_expect_eq(limiter_scene_look(&c, &third), 0);
	expect_state(0, 0);
}

/* L-3 */
Test(limiter, a_dead_one_is_passed_over, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);
	cr_assert_eq(limiter_scene_queue(&c, &third, 0, 1), 1);

	limiter_scene_end(&scene, b.id);

	cr_expect_eq(limiter_scene_look(&c, &third), 0);
	expect_state(0, 0);
}

/* L-3: what was granted while it gave up is kept. */
Test(limiter, who_gives_up_too_late_holds, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);
	cr_assert_eq(release(&a, &first), 0);

	cr_expect(limiter_give_up(&b.view, &second));

	cr_expect_eq(release(&b, &second), 0);
	expect_state(4, 0);
}

Test(limiter, one_that_is_held_dead_learns_that_it_waits_no_more, .init = setup, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 1), 1);
	limiter_scene_end(&scene, b.id);
	cr_assert_eq(limiter_scene_acquire(&c, &third, 0, 1), IPC_EAGAIN);

	cr_expect_eq(limiter_scene_look(&b, &second), IPC_ESTALE);
	cr_expect_not(limiter_give_up(&b.view, &second));
	expect_state(0, 0);
}

/* ---- the user's bound ---- */

/* L-1 */
Test(limiter, a_users_bound_is_told, .init = setup_user, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);

	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 2), IPC_EBUSY, "of the same user");
	cr_expect_eq(limiter_scene_acquire(&c, &third, 0, 2), 0, "of another user");
}

/* L-1, L-2 */
Test(limiter, what_a_dead_one_holds_is_not_in_its_users_bound, .init = setup_user, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	limiter_scene_end(&scene, a.id);

	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 2), 0);
}

/* L-7 */
Test(limiter, who_lacks_its_users_bound_holds_up_no_other_user, .init = setup_user,
     .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 1), 1);

	cr_expect_eq(limiter_scene_acquire(&c, &third, 0, 1), 0);
	cr_expect_eq(limiter_scene_queue(&c, &fourth, 1, 1), 0);
}

/* L-3, L-7: first come first served among the requests of one user. */
Test(limiter, who_lacks_its_users_bound_holds_up_its_user, .init = setup_user, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);

	cr_expect_eq(limiter_scene_acquire(&a, &third, 1, 1), IPC_EAGAIN);
}

/* L-7 */
Test(limiter, who_lacks_permits_holds_up_other_users, .init = setup_user, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&c, &first, 0, 2), 0);
	cr_assert_eq(limiter_scene_acquire(&a, &second, 0, 1), 0);
	c.view.uid = 1002;
	cr_assert_eq(limiter_scene_queue(&c, &third, 1, 2), 1);

	cr_expect_eq(limiter_scene_acquire(&b, &fourth, 0, 1), IPC_EAGAIN);
}

/* ---- the window ---- */

/* L-1, L-6 */
Test(limiter, the_window_is_told, .init = setup_window, .fini = teardown, .timeout = 60)
{
	struct limiter_denial denial;

	for (unsigned i = 0; i < 3; ++i) {
		cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
		cr_assert_eq(release(&a, &first), 0);
	}

	limiter_scene_part(&a, &first, 0, 2);
	cr_expect_eq(limiter_acquire(&a.view, &first, &denial), IPC_EDQUOT);
	cr_expect(denial.window_left_ns > 0 && denial.window_left_ns <= WINDOW_LONG);
	cr_expect_eq(limiter_scene_state(&a).window_used, 9);
	cr_expect_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
}

/* L-1: window, then user, then permits. */
Test(limiter, reasons_are_told_in_order, .init = setup_all, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&c, &first, 0, 2), 0);
	cr_assert_eq(limiter_scene_acquire(&a, &second, 0, 2), 0);
	cr_expect_eq(limiter_scene_acquire(&a, &third, 1, 1), IPC_EAGAIN, "permits alone");
	cr_expect_eq(limiter_scene_acquire(&a, &third, 1, 2), IPC_EBUSY, "user and permits");

	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(release(&c, &first), 0);
		cr_assert_eq(limiter_scene_acquire(&c, &first, 0, 2), 0);
	}
	cr_expect_eq(limiter_scene_state(&a).window_used, 8);
	cr_expect_eq(limiter_scene_acquire(&a, &third, 1, 3), IPC_EDQUOT, "all of them");
}

/* L-6 */
Test(limiter, the_window_begins_with_the_first_unit, .init = setup_window_short, .fini = teardown,
     .timeout = 60)
{
	cr_expect_eq(limiter_scene_state(&a).window_left_ns, 0);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
	cr_expect_gt(limiter_scene_state(&a).window_left_ns, 0);

	until_window_is_over();

	cr_expect_eq(limiter_scene_state(&a).window_used, 0);
}

/* L-6 */
Test(limiter, the_next_window_has_all_units, .init = setup_window_short, .fini = teardown,
     .timeout = 60)
{
	for (unsigned i = 0; i < WINDOW_UNITS; ++i) {
		cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
		cr_assert_eq(release(&a, &first), 0);
	}
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), IPC_EDQUOT);

	until_window_is_over();

	cr_expect_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_expect_eq(limiter_scene_state(&a).window_used, 4);
}

/* L-6 */
Test(limiter, refund_gives_units_back, .init = setup_window, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 3), 0);
	cr_assert_eq(limiter_scene_acquire(&a, &second, 1, 1), 0);

	cr_assert_eq(limiter_release(&a.view, &first, true), 0);

	cr_expect_eq(limiter_scene_state(&a).window_used, 1);
}

/* L-6 */
Test(limiter, refund_of_an_earlier_window_gives_nothing_back, .init = setup_window_short,
     .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	until_window_is_over();
	cr_assert_eq(limiter_scene_acquire(&a, &second, 1, 2), 0);

	cr_assert_eq(limiter_release(&a.view, &first, true), 0);

	cr_expect_eq(limiter_scene_state(&a).window_used, 2);
}

/* L-6: also of a grant that somebody else made. */
Test(limiter, refund_of_a_request_that_waited, .init = setup_window, .fini = teardown,
     .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 2), 1);
	cr_assert_eq(release(&a, &first), 0);
	cr_assert_eq(limiter_scene_look(&b, &second), 0);
	cr_assert_eq(limiter_scene_state(&a).window_used, 6);

	cr_assert_eq(limiter_release(&b.view, &second, true), 0);

	cr_expect_eq(limiter_scene_state(&a).window_used, 4);
}

/* L-2 */
Test(limiter, units_of_a_dead_one_stay_used, .init = setup_window, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
	limiter_scene_end(&scene, a.id);

	cr_assert_eq(limiter_scene_acquire(&b, &second, 0, 4), 0);

	cr_expect_eq(limiter_scene_state(&b).window_used, 8);
}

/* L-7 */
Test(limiter, who_lacks_units_holds_up_nobody_whose_units_are_left, .init = setup_window,
     .fini = teardown, .timeout = 60)
{
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
		cr_assert_eq(release(&a, &first), 0);
	}
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 3), 1);

	cr_expect_eq(limiter_scene_acquire(&a, &first, 0, 2), 0);
	expect_state(2, 1);
}

/* L-1, L-6 */
Test(limiter, who_lacks_units_is_granted_in_the_next_window, .init = setup_window_short,
     .fini = teardown, .timeout = 60)
{
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
		cr_assert_eq(release(&a, &first), 0);
	}
	cr_assert_eq(limiter_scene_queue(&b, &second, 0, 3), 1);

	until_window_is_over();

	cr_expect_eq(limiter_scene_look(&b, &second), 0);
	cr_expect_eq(limiter_scene_state(&a).window_used, 3);
}

/* L-1 */
Test(limiter, who_would_wait_too_long_for_the_window_does_not_wait, .init = setup_window,
     .fini = teardown, .timeout = 60)
{
	struct limiter_denial denial;

	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 4), 0);
		cr_assert_eq(release(&a, &first), 0);
	}

	limiter_scene_part(&b, &second, 0, 3);
	cr_expect_eq(limiter_queue(&b.view, &second, WINDOW_LONG / 2, &denial), IPC_EDQUOT);
	expect_state(4, 0);
}

/* ---- holders ---- */

/* M-45 */
Test(limiter, the_oldest_holder_is_known, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_expect_eq(limiter_holder(&c.view), 0);
	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
	cr_assert_eq(limiter_scene_acquire(&b, &second, 0, 1), 0);
	cr_assert_eq(limiter_scene_acquire(&c, &third, 0, 1), 0);
	atomic_store(&scene.segment->cell[first.seat].since, 7);
	atomic_store(&scene.segment->cell[second.seat].since, 5);
	atomic_store(&scene.segment->cell[third.seat].since, 3);

	cr_expect_eq(limiter_holder(&c.view), b.id, "not its own");
	limiter_scene_end(&scene, b.id);
	cr_expect_eq(limiter_holder(&c.view), a.id);
}

/* ---- attach, garbage ---- */

/* M-62, M-60 */
Test(limiter, attach_takes_its_own_kind_and_shape_alone, .init = setup, .fini = teardown,
     .timeout = 60)
{
	const uint64_t other[4] = {N_PERMITS + 1, 0, 0, 0};
	const uint64_t illegal[4] = {N_PERMITS, 0, 5, 0};
	struct limiter view;

	cr_expect_eq(limiter_attach(&view, scene.segment, scene.size, scene.shape, 9), 0);
	cr_expect_eq(limiter_attach(&view, scene.segment, scene.size - 1, scene.shape, 9),
		     IPC_EBADMSG);
	cr_expect_eq(limiter_attach(&view, scene.segment, scene.size, other, 9), IPC_EBADMSG);
	cr_expect_eq(limiter_attach(&view, scene.segment, scene.size, illegal, 9), IPC_EBADMSG);

	scene.segment->header.kind = IPC_KIND_WATCH;
	cr_expect_eq(limiter_attach(&view, scene.segment, scene.size, scene.shape, 9), IPC_EBADMSG);
}

Test(limiter, shapes_without_permits_or_with_half_a_window_are_none, .timeout = 60)
{
	cr_expect_eq(limiter_segment_size((const uint64_t[4]){0, 0, 0, 0}), 0);
	cr_expect_eq(limiter_segment_size((const uint64_t[4]){1, 0, 1, 0}), 0);
	cr_expect_eq(limiter_segment_size((const uint64_t[4]){1, 0, 0, 1}), 0);
	cr_expect_eq(limiter_segment_size((const uint64_t[4]){UINT64_C(1) << 32, 0, 0, 0}), 0);
	cr_expect_eq(limiter_segment_size((const uint64_t[4]){1, UINT64_C(1) << 32, 0, 0}), 0);
	cr_expect_gt(limiter_segment_size((const uint64_t[4]){1, 0, 1, 1}), 0);
}

/* M-60, M-61: results within bounds, and then the same for everybody. */
Test(limiter, a_record_that_cannot_be_breaks_it_for_everybody, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct limiter_denial denial;
	struct ipc_limiter_state state;

	cr_assert_eq(limiter_scene_acquire(&a, &first, 0, 1), 0);
	for (unsigned i = 0; i < 2; ++i)
		atomic_store(&scene.segment->cell[first.seat].record[i].n_free, N_PERMITS + 1);

	cr_expect_eq(limiter_scene_acquire(&b, &second, 0, 1), IPC_EBADMSG);
	cr_expect_eq(release(&a, &first), IPC_EBADMSG);
	cr_expect_eq(limiter_get_state(&c.view, &state), IPC_EBADMSG);
	cr_expect_eq(limiter_probe(&c.view, &denial), IPC_EBADMSG);
}

static uint64_t garbage_next(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + 1;
	return *seed >> 16 ^ *seed << 40;
}

/* M-60 */
Test(limiter, garbage_is_survived, .init = setup_all, .fini = teardown, .timeout = 120)
{
	const size_t begin = offsetof(struct limiter_segment, head);
	uint64_t seed = 1;

	for (unsigned round = 0; round < 40; ++round) {
		unsigned char *bytes = (unsigned char *)scene.segment;
		struct ipc_limiter_state state;
		uint64_t held;

		limiter_scene_reset(&scene);
		limiter_scene_enter(&scene, &a, 11, 1000);
		limiter_scene_enter(&scene, &b, 12, 1000);
		(void)!limiter_scene_acquire(&a, &first, 0, 1);
		(void)!limiter_scene_queue(&b, &second, 0, 2);

		for (unsigned i = 0; i < 2000; ++i) {
			uint64_t word = garbage_next(&seed);
			uint64_t at = begin + garbage_next(&seed) % (scene.size - begin - 8);

			/* Half of it where everything is that is used. */
			if (i % 2)
				at = i % 4 == 1 ? offsetof(struct limiter_segment, state) +
							  at % (32 * 8)
						: offsetof(struct limiter_segment, cell) +
							  at % (32 * 256);
			memcpy(bytes + at, &word, sizeof(word));
		}
		if (round % 2) {
			held = garbage_next(&seed);
			atomic_store(&scene.segment->head, held);
		}

		(void)!limiter_look(&b.view, &second, &(struct limiter_denial){0});
		(void)!limiter_scene_acquire(&b, &third, 1, 1);
		(void)!limiter_release(&a.view, &first, true);
		(void)limiter_give_up(&b.view, &second);
		(void)!limiter_get_state(&a.view, &state);
		(void)limiter_holder(&a.view);
	}
}

/* ---- threads ---- */

enum { N_THREADS = 4, N_ROUNDS = 5000 };

struct worker {
	struct limiter_member member;
	pthread_t thread;
	unsigned n_granted;
};

static _Atomic int n_inside;
static _Atomic int most_inside;

static void *work(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; i < N_ROUNDS; ++i) {
		struct limiter_part part;
		uint32_t permits = 1 + i % 2;
		int r = limiter_scene_queue(&worker->member, &part, 0, permits);
		int inside, most;

		while (r == 1) {
			(void)sched_yield();
			r = limiter_scene_look(&worker->member, &part) == 0 ? 0 : 1;
		}
		if (r != 0)
			return arg;

		inside = atomic_fetch_add(&n_inside, (int)permits) + (int)permits;
		most = atomic_load(&most_inside);
		while (inside > most && !atomic_compare_exchange_weak(&most_inside, &most, inside))
			;
		++worker->n_granted;
		atomic_fetch_sub(&n_inside, (int)permits);
		if (release(&worker->member, &part) != 0)
			return arg;
	}

	return NULL;
}

/* L-3 */
Test(limiter, threads_never_hold_more_than_there_are, .timeout = 120)
{
	static struct worker workers[N_THREADS];

	setup_shape(3, 0, 0, 0);
	for (unsigned i = 0; i < N_THREADS; ++i) {
		limiter_scene_enter(&scene, &workers[i].member, 20 + i, 1000);
		cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; ++i) {
		void *failed;

		pthread_join(workers[i].thread, &failed);
		cr_expect_null(failed);
		cr_expect_eq(workers[i].n_granted, N_ROUNDS);
	}

	cr_expect_leq(atomic_load(&most_inside), 3);
	cr_expect_gt(atomic_load(&most_inside), 0);
	expect_state(3, 0);
	teardown();
}
