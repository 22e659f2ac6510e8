/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_FLIGHT_STEPS_H
#define TESTS_SUPPORT_FLIGHT_STEPS_H

/*
 * The kind `flight` stopped at every instruction: a child does one thing with a key, and survivors,
 * whose handles are the test's own, look what became of it.
 */

#include <stdbool.h>

enum flight_act {
	FLIGHT_ACT_JOIN_FRESH,  /* a key in an empty table */
	FLIGHT_ACT_JOIN_CLAIM,  /* a key whose cell was another's, in one chain with all of them */
	FLIGHT_ACT_JOIN_REVIVE, /* a key whose finished cell is there */
	FLIGHT_ACT_JOIN_DOOM,   /* the same, and a survivor holds its result */
	FLIGHT_ACT_JOIN_SWEEP,  /* a key in a table of finished cells that were followed */
	FLIGHT_ACT_FOLLOW,      /* a survivor leads */
	FLIGHT_ACT_FOLLOW_DEAD, /* the leader is dead, a survivor follows */
	FLIGHT_ACT_FOLLOW_NOBODY, /* the leader and who followed are dead */
	FLIGHT_ACT_PROMOTE,       /* a look after the leader's death, a survivor follows as well */
	FLIGHT_ACT_PROMOTE_WRITTEN, /* the same over one that is held dead and still writes */
	FLIGHT_ACT_LAND_ALONE,
	FLIGHT_ACT_LAND,
	FLIGHT_ACT_FAIL,
	FLIGHT_ACT_LEAVE_ALONE,
	FLIGHT_ACT_LEAVE,
	FLIGHT_ACT_LEAVE_FOLLOWER,
	FLIGHT_ACT_ROW_TAKE,    /* the row of a dead leader, and a join by its seat */
	FLIGHT_ACT_ROW_CLAIMED, /* the same of one that died before its cell could be found */
	FLIGHT_ACT_ASK_FRESH,
	FLIGHT_ACT_ASK_JOINED,   /* a survivor leads */
	FLIGHT_ACT_ASK_FINISHED, /* a finished cell of the key is there */
	FLIGHT_ACT_ASK_NOBODY,   /* a dead asker has asked */
	FLIGHT_ACT_TAKE,         /* survivors ask */
	FLIGHT_ACT_TAKE_DEAD,    /* what a dead handler had taken */
	FLIGHT_ACT_TAKE_NOBODY,  /* what a dead asker had asked for */
	FLIGHT_ACT_ANSWER,
	FLIGHT_ACT_ABANDON,
	FLIGHT_ACTS
};

/* What happens when the child is stopped. */
enum flight_fate {
	FLIGHT_KILLED,
	FLIGHT_HELD_DEAD,       /* it lives, and goes on when the others have got on without it */
	FLIGHT_OVERTAKEN,       /* a survivor joins the key, and the child goes on */
	FLIGHT_OVERTAKEN_LAND,  /* the same, and if it leads it lands and leaves */
	FLIGHT_OVERTAKEN_ASK,   /* a survivor asks for the key, and the table is swept */
	FLIGHT_OVERTAKEN_CLAIM, /* a survivor prepares the key's old cell for the key, in no chain
				 */
	FLIGHT_OVERTAKEN_CELL,  /* the leader lands, and other keys fly in all the cells */
};

/* Returns how many instructions the child was stopped at; aborts when something does not hold. */
long flight_steps_run(enum flight_act act, enum flight_fate fate, long stride);

#endif
