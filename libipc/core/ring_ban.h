/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_RING_BAN_H
#define LIBIPC_CORE_RING_BAN_H

/*
 * Memory of a ring that somebody may still write who is not its producer any more (ring.h).
 *
 * A slot of ring.ban[] is taken by one exchange of `who`, before the end is taken from him; the
 * range is known once the bits above `to` are those of `who`.  It is given back by one exchange of
 * `who`, when he is gone or has left, and the consumer has passed the place where the stream jumps
 * over the range.  Deaths: a ban without a range is completed by the next taker; one with a range
 * whose jump was not made yet (head is at `from`) makes it.
 */

#include "libipc/core/ring.h"

/* `to` as it stands there for this one. */
static inline uint64_t ring_ban_to(uint64_t who, uint64_t to)
{
	uint64_t bits = (who * UINT64_C(0x9e3779b97f4a7c15) >> 41) | 1;

	return bits << RING_POSITION_BITS | ring_position(to);
}

/* Its range is. */
static inline bool ring_ban_is_known(uint64_t who, uint64_t to)
{
	return to == ring_ban_to(who, to);
}

/* `at`, or the first position behind the range where so many units do not touch it: a lap further
 * on where they do not fit beside it.  All modulo the lap. */
static inline uint64_t ring_past(const struct ring_view *view, uint64_t at, uint64_t units,
				 uint64_t from, uint64_t length)
{
	if (((from - at) & view->mask) >= units && ((at - from) & view->mask) >= length)
		return at;

	return (at + ((from + length - at - 1) & view->mask) + 1) & RING_POSITION_MASK;
}

/* The same for all bans; gives back those that are over. */
uint64_t ring_past_bans(const struct ring_view *view, const struct liveness_table *table,
			uint64_t at, uint64_t units);

/* Of all bans that begin in the units from `at` on, lengths, with so much more for each. */
uint64_t ring_banned_within(const struct ring_view *view, uint64_t at, uint64_t units,
			    uint64_t more);

/* Where the stream goes on after `position`: behind all that was banned there. */
uint64_t ring_jump(const struct ring_view *view, uint64_t position);

/* A slot for `who`, whose range is not known yet.  0; IPC_EBUSY. */
IPC_CHECKED int ring_ban(const struct ring_view *view, const struct liveness_table *table,
			 uint64_t who);

/* Some of owners before `me` have no range yet.  Others are his to complete who takes the end from
 * their owners. */
bool ring_has_pending_bans(const struct ring_view *view, const struct liveness_table *table,
			   uint64_t me);

/* Of those only the last teller has claimed anything: the others' are given back.  Whose ban is
 * left; 0: none is. */
uint64_t ring_give_back_bans(const struct ring_view *view, const struct liveness_table *table,
			     uint64_t me, uint64_t teller);

/* Who takes the end, and what he has found; it counts as long as that is so. */
struct ring_taker {
	const struct ring_view *view;
	uint64_t tag;    /* his own */
	uint64_t teller; /* the last one's word */
	uint64_t who;    /* that one, who is banned without a range */
};

/* Who's bans without a range get this one; empty: they are given back.  0; IPC_ESTALE: they are
 * left to the next taker; IPC_EBADMSG. */
IPC_CHECKED int ring_complete_bans(const struct ring_taker *taker, uint64_t from, uint64_t to);

/* He gets this one beside, for what he has told as strays; not if he has left.  The same;
 * IPC_EBUSY.
 */
IPC_CHECKED int ring_ban_strays(const struct ring_taker *taker, const struct liveness_table *table,
				uint64_t from, uint64_t to);

/* He has left. */
void ring_lift_bans(const struct ring_view *view, uint64_t who);

/*
 * Numbers of handles grow, but their lowest bits come round: of owners that are far apart the table
 * tells.  The broker ends a handle there before it answers who follows, so whoever is open, looked
 * at after the word where another one stands, follows him.
 */
static inline bool ring_owner_is_newer(uint64_t who, uint64_t than)
{
	uint64_t ahead = ((who >> 38) - (than >> 38)) & 0x3ffffff;

	return ahead >= 1 && ahead < 0x2000000;
}

/* Not ended, nor taken over. */
bool ring_owner_is_open(const struct liveness_table *table, uint64_t who);

/* Not open any more, nor taken over and not closed yet, nor only held dead: no thread of his will
 * write again.  The last nobody can tell across pid namespaces: being held dead is all there is. */
bool ring_owner_is_gone(const struct ring_view *view, const struct liveness_table *table,
			uint64_t who);

#endif
