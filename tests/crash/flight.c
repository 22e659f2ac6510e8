/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `flight`, killed at every instruction of each operation.  The test
 * plays the broker; a survivor takes the dead one's row.
 */
#include <criterion/criterion.h>

#include "tests/support/flight_steps.h"

static void run(enum flight_act act)
{
	long n_points = flight_steps_run(act, FLIGHT_KILLED, 1);

	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 20);
}

#define KILLED(name, act)                                                                          \
	Test(flight, killed_##name, .timeout = 120)                                                \
	{                                                                                          \
		run(act);                                                                          \
	}

/* F-1, F-4, F-13, M-25: the key starts anew, and no cell is lost. */
KILLED(joining_a_fresh_key, FLIGHT_ACT_JOIN_FRESH)
KILLED(claiming_the_cell_of_another_key, FLIGHT_ACT_JOIN_CLAIM)
KILLED(reviving_the_cell_of_the_key, FLIGHT_ACT_JOIN_REVIVE)
KILLED(joining_beside_a_held_result, FLIGHT_ACT_JOIN_DOOM)
KILLED(sweeping_the_table, FLIGHT_ACT_JOIN_SWEEP)

/* F-4: nothing happens to the leader and the others. */
KILLED(following, FLIGHT_ACT_FOLLOW)
KILLED(leaving_as_a_follower, FLIGHT_ACT_LEAVE_FOLLOWER)

/* F-2: exactly one of the others leads. */
KILLED(following_a_dead_leader, FLIGHT_ACT_FOLLOW_DEAD)
KILLED(joining_what_only_dead_ones_joined, FLIGHT_ACT_FOLLOW_NOBODY)
KILLED(being_promoted, FLIGHT_ACT_PROMOTE)
KILLED(being_promoted_over_one_that_writes, FLIGHT_ACT_PROMOTE_WRITTEN)
KILLED(leaving_the_lead, FLIGHT_ACT_LEAVE)
KILLED(leaving_the_lead_alone, FLIGHT_ACT_LEAVE_ALONE)

/* F-5, F-6, F-10: its bytes or somebody else's lead, never torn. */
KILLED(landing_alone, FLIGHT_ACT_LAND_ALONE)
KILLED(landing, FLIGHT_ACT_LAND)
KILLED(failing, FLIGHT_ACT_FAIL)

/* M-25 */
KILLED(taking_the_row_of_a_dead_leader, FLIGHT_ACT_ROW_TAKE)
KILLED(taking_the_row_of_a_dead_claimer, FLIGHT_ACT_ROW_CLAIMED)

/* F-9, F-18: the key goes to another handler. */
KILLED(asking_for_a_fresh_key, FLIGHT_ACT_ASK_FRESH)
KILLED(asking_for_a_joined_key, FLIGHT_ACT_ASK_JOINED)
KILLED(asking_for_a_finished_key, FLIGHT_ACT_ASK_FINISHED)
KILLED(asking_for_what_nobody_waits_for, FLIGHT_ACT_ASK_NOBODY)
KILLED(taking, FLIGHT_ACT_TAKE)
KILLED(taking_what_a_dead_handler_had, FLIGHT_ACT_TAKE_DEAD)
KILLED(taking_what_nobody_waits_for, FLIGHT_ACT_TAKE_NOBODY)
KILLED(answering, FLIGHT_ACT_ANSWER)
KILLED(abandoning, FLIGHT_ACT_ABANDON)
