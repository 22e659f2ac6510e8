/* SPDX-License-Identifier: MIT */
#ifndef BROKER_FENCES_H
#define BROKER_FENCES_H

/*
 * Where the fences of a uid begin (F-12).  A fence is {number, lane} (core/liveness.h): the lane is
 * the user's slot, the number is counted in the uid's desk, by its clients.
 *
 * Never twice: two uids of one time have two lanes; and a desk begins at the domain's clock, but
 * not below what was taken in its lane before (user_record.fence_floor, read from a desk before it
 * is dropped).  A domain begins at the time of day, which is later than all that an earlier one
 * counted: nobody counts faster than the clock for long.
 *
 * Growing: counters of different uids run apart, since each only counts.  So each OPENED tells the
 * clock, and the client moves its counter up to it: whoever opens a channel takes larger fences
 * than were taken in any channel that had ended before.
 *
 * The clock is the time of day when the domain began, plus what has passed since then: setting the
 * machine's clock moves nothing while the domain lives.
 */

#include <stdint.h>

#include "broker/registry.h"

/* By whoever makes a state: the domain's clock begins. */
void fences_init(struct state *state);

/* The domain's clock, in units of fences. */
uint64_t fences_now(const struct state *state);

/* A new desk's counter: noted in the record, and returned. */
uint64_t fences_begin(const struct state *state, struct user_record *record);

/* Before a desk is dropped, or when it is lost. */
void fences_end(const struct state *state, const struct user *user);

#endif
