/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight`, overtaken in the middle of each operation: while one stands
 * still, the broker holds it dead and all go on without it, or others use the key; then it goes on.
 *
 * At every so-many-th instruction, from another start in each run.
 */
#include <criterion/criterion.h>

#include "tests/support/flight_steps.h"

enum { STRIDE_DEAD = 2, STRIDE = 5 };

static void run(enum flight_act act, enum flight_fate fate, long stride)
{
	long n_points = flight_steps_run(act, fate, stride);

	cr_log_info("act %d: %ld points", (int)act, n_points);
	cr_expect_gt(n_points, 20 / stride);
}

/* F-1, F-3, M-24: whatever it does then, nobody else notices. */
Test(flight_overtaken, by_its_own_death_as_the_broker_has_it, .timeout = 700)
{
	for (enum flight_act act = 0; act < FLIGHT_ACTS; ++act)
		run(act, FLIGHT_HELD_DEAD, STRIDE_DEAD);
}

/* Over one that is held dead and still writes nobody leads, so nobody can be overtaken there. */
static void run_all(enum flight_fate fate)
{
	for (enum flight_act act = 0; act < FLIGHT_ACTS; ++act) {
		if (act != FLIGHT_ACT_PROMOTE_WRITTEN)
			run(act, fate, STRIDE);
	}
}

/* F-1, F-4, F-5: one leads, all get the same bytes. */
Test(flight_overtaken, by_a_join_of_the_key, .timeout = 700)
{
	run_all(FLIGHT_OVERTAKEN);
}

/* F-1, F-4, F-5 */
Test(flight_overtaken, by_a_whole_flight_of_the_key, .timeout = 700)
{
	run_all(FLIGHT_OVERTAKEN_LAND);
}

/* F-1, F-4: whoever was about to join the flight of a cell does not get into that of another key.
 */
Test(flight_overtaken, by_other_keys_in_all_the_cells, .timeout = 700)
{
	static const enum flight_act acts[] = {
		FLIGHT_ACT_JOIN_FRESH, FLIGHT_ACT_JOIN_CLAIM,   FLIGHT_ACT_JOIN_REVIVE,
		FLIGHT_ACT_JOIN_DOOM,  FLIGHT_ACT_FOLLOW,       FLIGHT_ACT_ASK_JOINED,
		FLIGHT_ACT_ASK_FRESH,  FLIGHT_ACT_ASK_FINISHED,
	};

	for (unsigned i = 0; i < sizeof(acts) / sizeof(acts[0]); ++i)
		run(acts[i], FLIGHT_OVERTAKEN_CELL, STRIDE_DEAD);
}

/* F-1: a cell that leaves the chain as somebody looks at it is nobody's flight. */
Test(flight_overtaken, by_one_who_prepares_the_cell_anew, .timeout = 700)
{
	run(FLIGHT_ACT_JOIN_REVIVE, FLIGHT_OVERTAKEN_CLAIM, 1);
}

/* F-9, F-13, F-18: who asks is answered, though the table is full and swept meanwhile. */
Test(flight_overtaken, by_an_ask_in_a_full_table, .timeout = 700)
{
	run_all(FLIGHT_OVERTAKEN_ASK);
}
