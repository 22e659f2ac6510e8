/* SPDX-License-Identifier: MIT */
/*
 * limiter: close while another thread makes room for more grants, and stands still there.
 */
#include <pthread.h>
#include <stdlib.h>

#include "libipc/client/limiter.h"
#include "tests/client/limiter_scene.h"

TestSuite(limiter_close, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- a thread that stands still where it allocates a row ---- */

enum stand { STAND_OFF, STAND_WANTED, STAND_STANDS, STAND_GOES_ON };

static _Atomic int stand;

static void stand_until(int wanted)
{
	struct timespec deadline = process_deadline(WAIT_MS);

	while (atomic_load(&stand) != wanted && !process_has_passed(&deadline))
		process_pause();
}

/* In place of the C library's. */
void *aligned_alloc(size_t alignment, size_t size)
{
	int wanted = STAND_WANTED;
	void *memory;

	if (atomic_compare_exchange_strong(&stand, &wanted, STAND_STANDS))
		stand_until(STAND_GOES_ON);

	return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}

struct adder {
	ipc_limiter *limiter;
	pthread_t thread;
	int result;
};

static void *adder_run(void *arg)
{
	struct adder *adder = arg;
	struct ipc_limiter_grant grant;

	adder->result = acquire(adder->limiter, 1, &grant);
	return NULL;
}

static void adder_start(struct adder *adder, ipc_limiter *limiter)
{
	adder->limiter = limiter;
	atomic_store(&stand, STAND_WANTED);
	cr_assert_eq(pthread_create(&adder->thread, NULL, adder_run, adder), 0);
	stand_until(STAND_STANDS);
	cr_assert_eq(atomic_load(&stand), STAND_STANDS);
}

static void adder_end(struct adder *adder)
{
	atomic_store(&stand, STAND_GOES_ON);
	pthread_join(adder->thread, NULL);
	atomic_store(&stand, STAND_OFF);
}

static unsigned n_rows_of(ipc_limiter *limiter, uint64_t id)
{
	const struct rows *rows = &limiter->view.segment->seats.rows;
	unsigned n = 0;

	for (uint32_t row = 0; row < rows_top(rows); ++row)
		n += rows_owner(rows, row) == id;
	return n;
}

/* Close does not wait for that thread, and what the thread has got by then goes back. */
static void close_beside_adder(unsigned n_held)
{
	ipc_limiter *other = LIMITER_NEW(.permits = 100), *limiter = NULL;
	const struct desk_cell *cell;
	struct ipc_limiter_grant grant;
	struct adder adder;
	uint64_t id;

	ASSERT(limiter_open(&limiter, fixture_client, NAME, (struct ipc_limiter_options){0}), 0);
	ASSERT(ipc_limiter_get_id(limiter, &id), 0);
	for (unsigned i = 0; i < n_held; ++i)
		ASSERT(acquire(limiter, 1, &grant), 0);
	cell = limiter->endpoint.cell;
	adder_start(&adder, limiter);

	ipc_limiter_close(limiter);
	EXPECT(state_of(other).n_free, 100);
	cr_expect_neq(atomic_load(&cell->closed_id), id, "its seats are still in use");

	adder_end(&adder);
	EXPECT(adder.result, IPC_ECANCELED);
	cr_expect_eq(atomic_load(&cell->closed_id), id);
	cr_expect_eq(n_rows_of(other, id), 0);
	until_not_alive(id);
	EXPECT(state_of(other).n_free, 100);
	ipc_limiter_close(other);
}

/* M-44 */
Test(limiter_close, does_not_wait_for_a_first_row)
{
	close_beside_adder(0);
}

/* M-44 */
Test(limiter_close, does_not_wait_for_a_further_row)
{
	close_beside_adder(SEATS_PER_ROW);
}
