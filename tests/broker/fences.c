/* SPDX-License-Identifier: MIT */

/*
 * Where fences begin: records alone, then desks of a real broker over its restarts.
 */

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "broker/fences.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/clock.h"
#include "tests/support/domain.h"
#include "tests/support/rawpeer.h"

/* ---- records ---- */

#define UNITS_PER_S (NS_PER_S / FENCE_UNIT_NS)

static struct state *state;
static struct user_record record;
static struct user user;

static void setup(void)
{
	/* Sparse: only its first page is ever touched. */
	state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	cr_assert_neq(state, MAP_FAILED);
	fences_init(state);

	memset(&record, 0, sizeof(record));
	user = (struct user){.record = &record};
	user.desk_fd = memfd_create("desk", MFD_CLOEXEC);
	cr_assert_geq(user.desk_fd, 0);
	cr_assert_eq(ftruncate(user.desk_fd, offsetof(struct desk, client)), 0);
}

static void teardown(void)
{
	close(user.desk_fd);
	munmap(state, sizeof(*state));
}

TestSuite(fences, .init = setup, .fini = teardown, .timeout = 60);

static void count_to(uint64_t fence)
{
	cr_assert_eq(pwrite(user.desk_fd, &fence, sizeof(fence), offsetof(struct desk, fence)),
		     (ssize_t)sizeof(fence));
}

/* F-12: a domain begins later than all that went before it. */
Test(fences, the_clock_begins_at_the_time_of_day)
{
	struct timespec now;
	uint64_t units;

	clock_gettime(CLOCK_REALTIME, &now);
	units = (uint64_t)(now.tv_sec - FENCE_EPOCH_S) * UNITS_PER_S;

	cr_assert_geq(fences_now(state), units);
	cr_assert_leq(fences_now(state), units + 60 * UNITS_PER_S);
}

/* F-12: the time of day was an hour later when the domain began than it is now. */
Test(fences, the_clock_does_not_go_back_with_the_time_of_day)
{
	uint64_t before;

	state->fence_epoch_ns += 3600 * (int64_t)NS_PER_S;
	before = fences_now(state);

	cr_assert_geq(fences_begin(state, &record), before);
}

/* F-12 */
Test(fences, a_desk_begins_above_the_one_before_it)
{
	uint64_t first = fences_begin(state, &record), second;

	/* As fast as the clock, and half as fast again. */
	record.fence_start -= UNITS_PER_S;
	count_to(first + UNITS_PER_S / 2);
	fences_end(state, &user);
	second = fences_begin(state, &record);

	cr_assert_eq(second, first + UNITS_PER_S / 2);
}

/* F-12 */
Test(fences, a_desk_that_counted_little_gives_way_to_the_clock)
{
	uint64_t first = fences_begin(state, &record);

	record.fence_start = first - 10 * UNITS_PER_S;
	count_to(record.fence_start + 1);
	fences_end(state, &user);

	cr_assert_geq(fences_begin(state, &record), first);
}

/* M-60: a desk is the client's to write; the next user of the lane is not at its mercy. */
Test(fences, what_nobody_can_have_counted_is_not_believed)
{
	uint64_t first = fences_begin(state, &record);

	record.fence_start -= UNITS_PER_S;
	count_to(UINT64_MAX);
	fences_end(state, &user);

	cr_assert_leq(fences_begin(state, &record), first + 60 * UNITS_PER_S);
}

/* F-12: it may have counted as fast as anybody can. */
Test(fences, a_desk_that_was_lost_is_taken_for_a_busy_one)
{
	uint64_t first = fences_begin(state, &record);

	record.fence_start -= UNITS_PER_S;
	close(user.desk_fd);
	user.desk_fd = -1;
	fences_end(state, &user);

	cr_assert_geq(fences_begin(state, &record), first + UNITS_PER_S);
}

/* ---- desks ---- */

/* F-12 */
Test(fences_of_a_domain, a_desk_has_its_lane_and_a_counter, .timeout = 60)
{
	struct domain domain;
	struct rawpeer peer;

	domain_start(&domain, NULL);
	rawpeer_join(&peer, domain.address);
	cr_assert_lt(peer.desk->lane, 1u << FENCE_LANE_BITS);
	cr_assert_gt(atomic_load(&peer.desk->fence), 0);

	rawpeer_disconnect(&peer);
	domain_stop(&domain);
}

/* F-12: whoever comes to a channel takes larger fences than were ever taken of one that has ended,
 * whoever took them. */
Test(fences_of_a_domain, each_opening_tells_a_later_clock, .timeout = 60)
{
	struct domain domain;
	struct rawpeer peer;
	uint64_t id, before;

	domain_start(&domain, NULL);
	rawpeer_join(&peer, domain.address);
	before = atomic_load(&peer.desk->fence);
	for (int i = 0; i < 3; ++i) {
		cr_assert_eq(rawpeer_open_role(&peer, IPC_ROLE_FLIGHT_TABLE, "f", IPC_CREATE, &id),
			     0);
		cr_assert_gt(peer.reply.opened.fence, before);
		before = peer.reply.opened.fence;
		rawpeer_close(&peer, id);
		if (i == 1)
			domain_kill_worker(&domain);
	}

	rawpeer_disconnect(&peer);
	domain_stop(&domain);
}

/* F-12 */
Test(fences_of_a_domain, the_next_domain_begins_above_the_last, .timeout = 60)
{
	uint64_t before = 0;

	for (int i = 0; i < 2; ++i) {
		struct domain domain;
		struct rawpeer peer;

		domain_start(&domain, NULL);
		rawpeer_join(&peer, domain.address);
		cr_assert_gt(atomic_load(&peer.desk->fence), before);
		before = atomic_fetch_add(&peer.desk->fence, 1000) + 1000;

		rawpeer_disconnect(&peer);
		if (i == 0)
			domain_kill(&domain);
		else
			domain_stop(&domain);
	}
}

/* As another user, who is root again afterwards. */
static void join_as(struct rawpeer *peer, const struct domain *domain, uid_t uid)
{
	cr_assert_eq(seteuid(uid), 0);
	rawpeer_join(peer, domain->address);
	cr_assert_eq(seteuid(0), 0);
}

/* F-12: there are more users than lanes, so one takes the lane of another, who is not there any
 * more. */
Test(fences_of_a_domain, the_next_user_of_a_lane_begins_above_the_last, .timeout = 60)
{
	struct rawpeer root, first, other;
	struct rlimit limit;
	struct domain domain;
	uint64_t began, last, id;
	uint32_t lane;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (geteuid() != 0 || limit.rlim_max < 4 * STATE_USERS_MAX)
		cr_skip_test("needs root, and descriptors for %u users", STATE_USERS_MAX);

	domain_start(&domain, NULL);
	rawpeer_join(&root, domain.address);
	join_as(&first, &domain, 70000);
	lane = first.desk->lane;
	began = atomic_load(&first.desk->fence);
	for (unsigned i = 2; i < STATE_USERS_MAX; ++i) {
		join_as(&other, &domain, 70000 + i);
		cr_assert_neq(other.desk->lane, lane);
		rawpeer_disconnect(&other);
	}

	/* It has counted half as fast again as the clock. */
	cr_assert_eq(rawpeer_open_role(&root, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	last = began + (root.reply.opened.fence - began) * 3 / 2;
	atomic_store(&first.desk->fence, last);
	rawpeer_disconnect(&first);
	rawpeer_sync(&root);

	join_as(&other, &domain, 80000);
	cr_assert_eq(other.desk->lane, lane);
	cr_assert_geq(atomic_load(&other.desk->fence), last);

	rawpeer_disconnect(&other);
	rawpeer_disconnect(&root);
	domain_stop(&domain);
}
