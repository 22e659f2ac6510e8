/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight`: cells that are held, full tables, and cells that are used
 * again.
 */
#include "libipc/channel/flight.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "libipc/channel/flight_cell.h"
#include "tests/channel/flight_cast.h"
#include "tests/support/process.h"

/* ---- a full table ---- */

static void fill(struct flight_part *parts, unsigned n)
{
	for (unsigned i = 0; i < n; ++i) {
		char key[] = {'f', (char)('a' + i), 0};

		cr_assert_eq(flight_scene_join(&a, &parts[i], i, key), 1);
	}
}

/* F-7 */
Test(flight_cells, full_table_says_so_and_goes_on, .init = setup, .fini = teardown, .timeout = 60)
{
	struct flight_part parts[N_KEYS];

	fill(parts, N_KEYS);
	cr_expect_eq(join(&b, &second, "one more"), IPC_ENOSPC);
	expect_empty(&second);
	cr_expect_eq(join(&b, &second, "fb"), 2, "a key in flight needs no cell");
	leave(&b, &second);

	leave(&a, &parts[3]);
	cr_expect_eq(join(&b, &second, "one more"), 1);
	cr_expect_eq(join(&c, &third, "two more"), IPC_ENOSPC);
}

/* F-13 */
Test(flight_cells, held_result_costs_one_cell, .init = setup, .fini = teardown, .timeout = 60)
{
	struct flight_part parts[N_KEYS];

	cr_assert_eq(join(&a, &first, "held"), 1);
	cr_assert_eq(join(&b, &second, "held"), 2);
	cr_assert_eq(land(&a, &first, "result"), 0);
	leave(&a, &first);
	cr_expect_eq(flight_count(&a.view), 0);

	fill(parts, N_KEYS - 1);
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC);
	expect_landed(&b, &second, "result", 1, 2);
	leave(&b, &second);
	cr_expect_eq(join(&c, &third, "one more"), 1);
}

/* F-13: the leader's own result, with nobody else. */
Test(flight_cells, leader_holds_its_result, .init = setup, .fini = teardown, .timeout = 60)
{
	struct flight_part parts[N_KEYS];

	fill(parts, N_KEYS);
	for (unsigned i = 0; i < N_KEYS; ++i)
		cr_assert_eq(land(&a, &parts[i], "result"), 0);
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC);
	cr_expect_eq(join(&c, &third, "fa"), IPC_ENOSPC);
	expect_landed(&a, &parts[0], "result", 1, 1);

	flight_scene_end(&scene, a.id);
	cr_expect_eq(join(&c, &third, "one more"), 1, "the dead hold");
}

/* M-25: cells with followers are found by a sweep over all seats. */
Test(flight_cells, cells_whose_followers_died_or_left_are_used_again, .init = setup,
     .fini = teardown, .timeout = 60)
{
	struct flight_part led[N_KEYS], followed[N_KEYS];
	struct flight_member died;

	flight_scene_enter(&scene, &died, 21);
	fill(led, N_KEYS);
	for (unsigned i = 0; i < N_KEYS; ++i) {
		char key[] = {'f', (char)('a' + i), 0};

		cr_assert_eq(join_by(i % 2 ? &died : &b, &followed[i], i, key), 2);
		if (i % 3)
			cr_assert_eq(land(&a, &led[i], "x"), 0);
		leave(&a, &led[i]);
	}
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC);

	for (unsigned i = 0; i < N_KEYS; i += 2)
		leave(&b, &followed[i]);
	cr_expect_eq(join(&c, &third, "one more"), 1, "what was left is not found");
	leave(&c, &third);

	flight_scene_end(&scene, died.id);
	flight_detach(&died.view);
	expect_all_cells_usable();
}

/* M-25: nobody is there to notice that these are over. */
Test(flight_cells, flights_of_which_all_died_are_used_again, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct flight_part led[N_KEYS], followed[N_KEYS];
	pid_t pid;

	/* A leader alone hands its cell on once its process is gone. */
	flight_scene_open(&scene, 21);
	flight_scene_open(&scene, 22);
	pid = process_fork();
	if (pid == 0) {
		struct flight_member leader, follower;

		flight_scene_enter(&scene, &leader, 21);
		flight_scene_enter(&scene, &follower, 22);
		for (unsigned i = 0; i < N_KEYS; ++i) {
			char key[] = {'f', (char)('a' + i), 0};

			if (flight_scene_join(&leader, &led[i], i, key) != 1)
				_exit(1);

			/* As another thread. */
			atomic_store(&((struct flight_segment *)scene.segment)
					      ->seats.seat[led[i].seat]
					      .thread,
				     1);
			if (i % 2 && flight_scene_join(&follower, &followed[i], i, key) != 2)
				_exit(2);
		}
		_exit(0);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_expect_eq(join(&c, &third, "one more"), IPC_ENOSPC, "nobody is known to be dead");
	cr_expect_eq(flight_count(&c.view), N_KEYS);

	flight_scene_end(&scene, 21);
	flight_scene_end(&scene, 22);
	cr_expect_eq(flight_count(&c.view), 0);
	expect_all_cells_usable();
}

/* ---- a finished cell of the key ---- */

/* F-1 */
Test(flight_cells, finished_cell_of_the_key_is_used_again_at_once, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint32_t cell = fly(&a, "key");

	for (unsigned i = 0; i < 5; ++i)
		cr_expect_eq(fly(i % 2 ? &a : &b, "key"), cell);

	/* In its second flight as in any other. */
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	cr_expect_eq(flight_count(&a.view), 1);
	flight_scene_end(&scene, a.id);
	cr_expect_eq(look(&b, &second), 1);
	cr_assert_eq(land(&b, &second, "two"), 0);
	expect_landed(&b, &second, "two", 2, 2);
}

/* F-1: a held result makes way for a new cell, and is not revived beside that. */
Test(flight_cells, key_has_one_cell_that_can_fly, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t old, new;

	cr_assert_eq(join(&a, &first, "key"), 1);
	old = first.cell;
	cr_assert_eq(land(&a, &first, "old"), 0);
	cr_assert_eq(join(&b, &second, "key"), 1, "a held result is not joined");
	new = second.cell;
	cr_expect_neq(new, old);
	leave(&a, &first);

	cr_assert_eq(join(&a, &first, "key"), 2, "a second flight of the key beside the first");
	cr_expect_eq(first.cell, new);
	leave(&a, &first);
	leave(&b, &second);

	/* The same once more, with nobody who follows the new one. */
	cr_assert_eq(join(&a, &first, "kex"), 1);
	old = first.cell;
	cr_assert_eq(land(&a, &first, "old"), 0);
	new = fly(&b, "kex");
	cr_expect_neq(new, old);
	leave(&a, &first);
	for (unsigned i = 0; i < 3; ++i)
		cr_expect_eq(fly(&b, "kex"), new, "two cells of the key can be revived");
	expect_all_cells_usable();
}

/* A cell's turn comes round after 2^37 flights. */
Test(flight_cells, turn_comes_round, .init = setup, .fini = teardown, .timeout = 60)
{
	for (unsigned before = 0; before < 3; ++before) {
		uint64_t last = (UINT64_C(1) << (64 - FLIGHT_TURN_SHIFT)) - 1 - before;
		uint32_t cell = fly(&a, "key");
		uint64_t state = atomic_load(&a.view.state[cell]);
		uint64_t rest = state & ((UINT64_C(1) << FLIGHT_TURN_SHIFT) - 1);

		atomic_store(&a.view.state[cell], rest | last << FLIGHT_TURN_SHIFT);
		atomic_store(&flight_run_next(&a.view, cell, state)->base, last);
		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(join(&b, &second, "key"), 2);
		cr_assert_eq(first.cell, cell);
		leave(&a, &first);
		cr_expect_eq(look(&b, &second), 1, "begun %u before the last", before);
		cr_assert_eq(land(&b, &second, "x"), 0);
		expect_landed(&b, &second, "x", 2, 2);
		teardown();
		setup();
	}
}
