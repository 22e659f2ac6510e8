/* SPDX-License-Identifier: MIT */
#include "libipc/core/rows.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/process.h"

/* No process has such a number. */
#define NO_PROCESS UINT32_C(0x7ffffff0)

static struct liveness_table *table;
static struct rows *rows;

static void setup(void)
{
	table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(table, MAP_FAILED);
	liveness_table_init(table, 1000);
	rows = aligned_alloc(64, sizeof(*rows));
	cr_assert_neq(rows, NULL);
	rows_init(rows);
}

static void teardown(void)
{
	free(rows);
	munmap(table, sizeof(*table));
}

static void open_handle(uint64_t id)
{
	liveness_handle_set(table, LIVENESS_SLOT(id), id);
}

static void end_handle(uint64_t id)
{
	liveness_handle_set(table, LIVENESS_SLOT(id), 0);
}

static uint32_t taken(uint64_t id, uint32_t process, bool is_inherited)
{
	bool inherited = !is_inherited;
	uint32_t row = UINT32_MAX;

	open_handle(id);
	cr_assert(rows_take(rows, table, id, process, &row, &inherited));
	cr_expect_eq(inherited, is_inherited, "row %u of %lu", row, (unsigned long)id);
	cr_expect_eq(rows_owner(rows, row), id);
	return row;
}

static uint32_t here(void)
{
	return (uint32_t)getpid();
}

Test(rows, each_handle_has_a_row_of_its_own, .init = setup, .fini = teardown)
{
	cr_expect_eq(rows_top(rows), 0);
	for (uint32_t i = 0; i < 100; ++i)
		cr_assert_eq(taken(i + 1, here(), false), i);
	cr_expect_eq(rows_top(rows), 100);
	cr_expect(rows_is_alive(rows, table, 99));
	cr_expect_not(rows_is_free(rows, table, 99));
	cr_expect_not(rows_is_alive(rows, table, 100));
	cr_expect(rows_is_free(rows, table, 100));
}

Test(rows, row_that_was_given_back_is_taken_again, .init = setup, .fini = teardown)
{
	uint32_t row;

	(void)taken(1, here(), false);
	row = taken(2, here(), false);
	rows_give(rows, row, 2);
	cr_expect_eq(rows_owner(rows, row), 0);
	cr_expect(rows_is_free(rows, table, row));
	cr_expect_eq(taken(3, here(), false), row);
}

/* Not by who has it no more. */
Test(rows, row_of_another_cannot_be_given_back, .init = setup, .fini = teardown)
{
	uint32_t row = taken(1, here(), false);

	rows_give(rows, row, 2);
	cr_expect_eq(rows_owner(rows, row), 1);
}

/* M-25 */
Test(rows, row_of_a_dead_process_is_inherited, .init = setup, .fini = teardown)
{
	uint32_t row = taken(1, NO_PROCESS, false);

	cr_expect_not(rows_is_free(rows, table, row), "its handle is open");
	end_handle(1);
	cr_expect_not(rows_is_alive(rows, table, row));
	cr_expect(rows_is_free(rows, table, row));
	cr_expect_eq(taken(2, here(), true), row);
}

/* M-24: one that is held dead may be anywhere in the library. */
Test(rows, row_of_a_living_process_that_is_held_dead_stays, .init = setup, .fini = teardown)
{
	uint32_t row = taken(1, here(), false);

	end_handle(1);
	cr_expect_not(rows_is_alive(rows, table, row));
	cr_expect_not(rows_is_free(rows, table, row));
	cr_expect_neq(taken(2, here(), false), row);
}

Test(rows, row_of_a_process_that_ended_is_free, .init = setup, .fini = teardown)
{
	pid_t pid = process_fork();
	uint32_t row;

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	row = taken(1, (uint32_t)pid, false);
	end_handle(1);
	cr_expect_not(rows_is_free(rows, table, row));
	(void)kill(pid, SIGKILL);
	(void)process_reap(pid, 30000);
	cr_expect(rows_is_free(rows, table, row));
}

/* Nobody can tell when it is gone. */
Test(rows, row_of_another_pid_namespace_is_free_when_it_is_held_dead, .init = setup,
     .fini = teardown)
{
	uint32_t row = taken(1, 0, false);

	cr_expect_not(rows_is_free(rows, table, row));
	end_handle(1);
	cr_expect(rows_is_free(rows, table, row));
}

Test(rows, handle_that_is_held_dead_gets_none, .init = setup, .fini = teardown)
{
	bool is_inherited;
	uint32_t row;

	cr_expect_not(rows_take(rows, table, 1, here(), &row, &is_inherited));
	cr_expect_eq(rows_top(rows), 0);
}

Test(rows, when_all_are_taken_there_is_none, .init = setup, .fini = teardown)
{
	bool is_inherited;
	uint32_t row;

	for (uint32_t i = 0; i < ROWS_MAX; ++i)
		cr_assert_eq(taken(i + 1, here(), false), i);
	open_handle(ROWS_MAX + 1);
	cr_expect_not(rows_take(rows, table, ROWS_MAX + 1, here(), &row, &is_inherited));
	rows_give(rows, 77, 78);
	cr_expect(rows_take(rows, table, ROWS_MAX + 1, here(), &row, &is_inherited));
	cr_expect_eq(row, 77);
}

/* M-60 */
Test(rows, garbage_names_no_row_outside, .init = setup, .fini = teardown)
{
	atomic_store(&rows->top, UINT32_MAX);
	cr_expect_eq(rows_top(rows), ROWS_MAX);
	cr_expect_eq(rows_owner(rows, UINT32_MAX), 0);
}

/* ---- many at once ---- */

enum { N_THREADS = 4, N_ROUNDS = 3000 };

static _Atomic uint32_t holders[ROWS_MAX];

static void *user(void *arg)
{
	uint64_t id = 100 + (uintptr_t)arg;

	open_handle(id);
	for (unsigned i = 0; i < N_ROUNDS; ++i) {
		bool is_inherited;
		uint32_t row;

		if (!rows_take(rows, table, id, here(), &row, &is_inherited) ||
		    atomic_fetch_add(&holders[row], 1) != 0 || row >= rows_top(rows))
			abort();
		atomic_fetch_sub(&holders[row], 1);
		rows_give(rows, row, id);
	}
	return NULL;
}

Test(rows, no_two_have_the_same_row, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_t threads[N_THREADS];

	for (uintptr_t i = 0; i < N_THREADS; ++i)
		cr_assert_eq(pthread_create(&threads[i], NULL, user, (void *)i), 0);
	for (unsigned i = 0; i < N_THREADS; ++i)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_expect_leq(rows_top(rows), N_THREADS);
}
