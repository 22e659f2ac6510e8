/* SPDX-License-Identifier: MIT */
/*
 * flight through the public interface: at most one leader of a key, and fences that only grow.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/client/flight_scene.h"

TestSuite(flight_fence, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- at most one ---- */

/* What members and test share. */
struct arena {
	_Atomic int32_t leader; /* process that runs the operation; 0: none */
	_Atomic uint32_t n_runs, n_shared, stops;
	_Atomic uint32_t n_together, n_backward;
	_Atomic int32_t join_said, land_said; /* what they must not say */
	_Atomic uint64_t last_fence;
};

static struct arena *arena;

#define PF_EXITING 0x4 /* of the kernel's task flags */

/*
 * Whether this process runs no instruction of its own any more.  Its sockets are closed before it
 * is a zombie.
 */
static bool is_gone(pid_t pid)
{
	char path[40], text[400] = "", *state;
	unsigned flags = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return true;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);

	/* After the name: state, five numbers, flags. */
	state = strrchr(text, ')');
	return !state || state[2] == 'Z' || state[2] == 'X' ||
	       (sscanf(state + 3, "%*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & PF_EXITING));
}

static void lead_alone(ipc_flight *flight)
{
	int32_t before = atomic_exchange(&arena->leader, getpid());
	uint64_t fence = 0;

	if (before != 0 && !is_gone(before))
		atomic_fetch_add(&arena->n_together, 1);
	if (ipc_flight_get_fence(flight, &fence) != 0 ||
	    atomic_exchange(&arena->last_fence, fence) >= fence)
		atomic_fetch_add(&arena->n_backward, 1);
	atomic_fetch_add(&arena->n_runs, 1);
	for (unsigned i = 0; i < 20; ++i)
		sched_yield();

	/* Not any more from here on: others lead as soon as it has landed. */
	atomic_store(&arena->leader, 0);
	if (rand() % 4 != 0) {
		int r = land(flight, (uint32_t)getpid());

		if (r != 0)
			atomic_store(&arena->land_said, r);
	}
}

static void compete(struct actor *self, void *unused)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_flight_table *table;
	ipc_flight *flight;

	(void)unused;
	srand((unsigned)getpid());
	if (table_open(&table, own, NAME, (struct ipc_flight_table_options){0}) != 0)
		process_end(1);
	actor_say(self, 0);
	while (!atomic_load(&arena->stops)) {
		int r = join_in(&flight, table, 1, WAIT_MS);

		if (r == 1)
			lead_alone(flight);
		else if (r == 0)
			atomic_fetch_add(&arena->n_shared, 1);
		else if (r != IPC_EOWNERDEAD)
			atomic_store(&arena->join_said, r);
		if (r >= 0)
			ipc_flight_leave(flight);
	}
	process_end(0);
}

static void compete_start(struct actor *actor)
{
	actor_start(actor, compete, NULL);
	cr_assert_eq(actor_hear(actor), 0);
}

/* F-1, F-2, F-4, F-12: over all processes, at every instant, whoever dies. */
Test(flight_fence, there_is_at_most_one_of_a_key)
{
	enum { N = 4, KILLS = 60 };
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor actor[N];
	uint32_t runs;

	arena = mmap(NULL, sizeof(*arena), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(arena, MAP_FAILED);
	for (unsigned i = 0; i < N; ++i)
		compete_start(&actor[i]);
	for (unsigned i = 0; i < KILLS; ++i) {
		runs = atomic_load(&arena->n_runs);
		for (unsigned k = 0; k < 5000 && atomic_load(&arena->n_runs) - runs < i % 9; ++k)
			sched_yield();
		actor_kill(&actor[i % N]);
		compete_start(&actor[i % N]);
	}
	runs = atomic_load(&arena->n_runs);
	for (unsigned i = 0; i < WAIT_MS && atomic_load(&arena->n_runs) - runs < 100; ++i)
		process_pause();
	cr_expect_geq(atomic_load(&arena->n_runs) - runs, 100, "it does not go on");
	atomic_store(&arena->stops, 1);
	for (unsigned i = 0; i < N; ++i)
		EXPECT(actor_join(&actor[i]), 0);

	cr_expect_eq(atomic_load(&arena->n_together), 0, "%u of %u runs were not alone",
		     atomic_load(&arena->n_together), atomic_load(&arena->n_runs));
	cr_expect_eq(atomic_load(&arena->n_backward), 0, "fences do not grow");
	EXPECT(atomic_load(&arena->join_said), 0);
	EXPECT(atomic_load(&arena->land_said), 0);
	cr_expect_gt(atomic_load(&arena->n_shared), 0);
	EXPECT(ipc_flight_table_count(table), 0);
	munmap(arena, sizeof(*arena));
	ipc_flight_table_close(table);
}

/* ---- fences ---- */

static uint64_t fence_now(ipc_flight_table *table)
{
	ipc_flight *flight = NULL;
	uint64_t fence = 0;

	ASSERT(join_in(&flight, table, 1, WAIT_MS), 1);
	ASSERT(ipc_flight_get_fence(flight, &fence), 0);
	land_and_leave(flight, 1);
	return fence;
}

/* Asserts that it is greater than the last. */
static uint64_t fence_after(uint64_t last)
{
	ipc_flight_table *table = TABLE_NEW(0);
	uint64_t fence = fence_now(table);

	cr_expect_gt(fence, last, "%llx after %llx", (unsigned long long)fence,
		     (unsigned long long)last);
	ipc_flight_table_close(table);
	return fence;
}

/* F-12: over the end of the channel, of the worker, of the keeper, and of the domain. */
Test(flight_fence, fences_grow_over_restarts_and_a_new_channel)
{
	uint64_t fence = fence_after(0);

	for (unsigned i = 0; i < 3; ++i)
		fence = fence_after(fence);
	domain_kill_worker(&fixture_domain);
	fence = fence_after(fence);
	domain_kill_keeper(&fixture_domain);
	fence = fence_after(fence);

	for (unsigned i = 0; i < 2; ++i) {
		fixture_client = ipc_client_unref(fixture_client);
		domain_stop(&fixture_domain);
		domain_start(&fixture_domain, NULL);
		fixture_client = domain_connect(&fixture_domain);
		fence = fence_after(fence);
	}
}

/* F-12 */
Test(flight_fence, fences_of_different_keys_and_processes_differ)
{
	enum { N = 500 };
	static int64_t fence[2 * N];
	ipc_flight_table *table = TABLE_NEW(0);
	struct actor member;

	caller_start(&member);
	for (unsigned i = 0; i < N; ++i) {
		fence[2 * i] = (int64_t)fence_now(table);
		ASSERT(order_do(&member, ORDER_JOIN, 2, 0), 1);
		fence[2 * i + 1] = order_do(&member, ORDER_FENCE, 2, 0);
		ASSERT(order_do(&member, ORDER_LAND, 2, 0), 0);
		ASSERT(order_do(&member, ORDER_LEAVE, 2, 0), 0);
	}
	for (unsigned i = 1; i < 2 * N; ++i)
		cr_assert_gt(fence[i], fence[i - 1]);
	actor_kill(&member);
	ipc_flight_table_close(table);
}
