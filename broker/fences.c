/* SPDX-License-Identifier: MIT */
#include "broker/fences.h"

#include "broker/segments.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/clock.h"

/*
 * Death: the floor is noted before the record says FREE; a worker that dies in between leaves a
 * desk in use and a floor that is too low, and notes it again when it drops the desk.
 */

static int64_t ns_of(const struct timespec *time)
{
	return (int64_t)time->tv_sec * (int64_t)NS_PER_S + time->tv_nsec;
}

/* Goes on while the machine sleeps, and nobody sets it. */
static int64_t since_boot_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return ns_of(&now);
}

void fences_init(struct state *state)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec -= FENCE_EPOCH_S;

	/* A machine that does not know the time of day counts from its boot. */
	state->fence_epoch_ns = now.tv_sec < 0 ? 0 : ns_of(&now) - since_boot_ns();
}

uint64_t fences_now(const struct state *state)
{
	return (uint64_t)(state->fence_epoch_ns + since_boot_ns()) / FENCE_UNIT_NS;
}

uint64_t fences_begin(const struct state *state, struct user_record *record)
{
	uint64_t now = fences_now(state);

	record->fence_start = now > record->fence_floor ? now : record->fence_floor;
	return record->fence_start;
}

void fences_end(const struct state *state, const struct user *user)
{
	struct user_record *record = user->record;
	uint64_t now = fences_now(state);
	uint64_t passed = now > record->fence_start ? now - record->fence_start : 0;
	uint64_t last = segments_peek(user->desk_fd, offsetof(struct desk, fence));

	/*
	 * Clients write what they like into their desk, and the lane's next user has to live with
	 * it: twice as fast as the clock is more than anybody counts, and is what is believed at
	 * most.  The same is assumed of a desk that was lost.
	 */
	uint64_t most = record->fence_start + 2 * passed;

	record->fence_floor = last != 0 && last < most ? last : most;
}
