/* SPDX-License-Identifier: MIT */
#include "libipc/core/seats.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/process.h"

static struct liveness_table *table;
static struct seats *seats;

static void *map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(memory, MAP_FAILED);
	return memory;
}

static void setup(void)
{
	table = map(sizeof(*table));
	liveness_table_init(table, 1000);
	seats = map(sizeof(*seats));
	memset(seats, 0xa5, sizeof(*seats));
	seats_init(seats);
}

static void teardown(void)
{
	munmap(table, sizeof(*table));
	munmap(seats, sizeof(*seats));
}

static void handle_open(uint64_t id)
{
	liveness_handle_set(table, LIVENESS_SLOT(id), id);
}

static void handle_end(uint64_t id)
{
	liveness_handle_set(table, LIVENESS_SLOT(id), 0);
}

static bool take(uint64_t id, uint32_t *ret_row)
{
	bool is_inherited;

	return seats_row_take(seats, table, id, ret_row, &is_inherited);
}

static uint32_t row_of(uint64_t id)
{
	uint32_t row = UINT32_MAX;

	handle_open(id);
	cr_assert(take(id, &row));
	cr_assert_lt(row, SEATS_ROWS);
	return row;
}

static bool is_marked(uint32_t object)
{
	uint64_t held[2] = {0};

	seats_mark(seats, table, held, 128);
	return held[object / 64] >> object % 64 & 1;
}

static void expect_held(uint32_t seat, uint32_t object, bool held)
{
	cr_expect_eq(seats_is_held(seats, table, seat, object), held);
	cr_expect_eq(seats_any(seats, table, object, SEAT_NONE), held);
	cr_expect_eq(is_marked(object), held);
}

/* A process that takes a row for handle `id`, does something with it and dies; it is reaped. */
static void child_with_row(uint64_t id, void (*act)(uint32_t row))
{
	pid_t pid;

	handle_open(id);
	pid = process_fork();
	if (pid == 0) {
		uint32_t row;

		if (!take(id, &row))
			_exit(1);
		if (act)
			act(row);
		_exit(0);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
}

Test(seats, each_handle_has_rows_of_its_own, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t first = row_of(11), second = row_of(12), third;

	cr_expect_neq(first, second);
	cr_assert(take(11, &third));
	cr_expect(third != first && third != second);
	cr_expect_eq(seats_owner(seats, first * SEATS_PER_ROW + 7), 11);
	cr_expect_eq(seats_owner(seats, second * SEATS_PER_ROW), 12);

	seats_row_give(seats, first, 11);
	cr_expect_eq(seats_owner(seats, first * SEATS_PER_ROW), 0);
	cr_expect_eq(row_of(13), first, "what was given back is not used again");
}

Test(seats, give_of_a_row_that_is_anothers_does_nothing, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint32_t row = row_of(11);

	seats_row_give(seats, row, 12);
	cr_expect_eq(seats_owner(seats, row * SEATS_PER_ROW), 11);
}

Test(seats, no_row_for_a_handle_that_is_not_open, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t row = 77;

	cr_expect(!take(11, &row));
	cr_expect_eq(row, 77);
}

Test(seats, all_rows_taken_by_the_living_is_full, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t row = 77;

	for (uint64_t id = 1; id <= SEATS_ROWS; ++id)
		cr_assert_eq(row_of(id), id - 1);

	handle_open(SEATS_ROWS + 1);
	cr_expect(!take(SEATS_ROWS + 1, &row));
	cr_expect_eq(row, 77);

	seats_hold(seats, SEATS_MAX - 1, 42);
	expect_held(SEATS_MAX - 1, 42, true);
	seats_drop(seats, SEATS_MAX - 1);

	seats_row_give(seats, 1234, 1235);
	cr_assert(take(SEATS_ROWS + 1, &row));
	cr_expect_eq(row, 1234);
}

Test(seats, object_is_held_until_the_seat_is_dropped, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint32_t seat = row_of(11) * SEATS_PER_ROW + 3;

	expect_held(seat, 0, false);
	seats_hold(seats, seat, 0);
	expect_held(seat, 0, true);
	expect_held(seat, 1, false);
	cr_expect(!seats_is_held(seats, table, seat + 1, 0));
	cr_expect(!seats_any(seats, table, 0, seat), "held by somebody else than the only one");

	seats_hold_unfenced(seats, seat, 100);
	expect_held(seat, 0, false);
	expect_held(seat, 100, true);
	seats_drop(seats, seat);
	expect_held(seat, 100, false);
}

Test(seats, all_holders_are_marked, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t row = row_of(11), other = row_of(12);
	uint64_t held[3] = {0};

	for (uint32_t i = 0; i < SEATS_PER_ROW; ++i)
		seats_hold(seats, row * SEATS_PER_ROW + i, i * 9);
	seats_hold(seats, other * SEATS_PER_ROW + 7, 127);
	seats_hold(seats, other * SEATS_PER_ROW + 6, 128);

	seats_mark(seats, table, held, 128);
	cr_expect_eq(held[0], UINT64_C(0x8040201008040201));
	cr_expect_eq(held[1], UINT64_C(1) << 63);
	cr_expect_eq(held[2], 0, "marked beyond the last object");
}

/* M-25 */
Test(seats, handle_that_ended_holds_nothing, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t seat = row_of(11) * SEATS_PER_ROW;

	seats_hold(seats, seat, 5);
	handle_end(11);
	expect_held(seat, 5, false);

	/* The slot's next tenant is somebody else. */
	handle_open(11 + LIVENESS_HANDLES_MAX);
	expect_held(seat, 5, false);
}

/* M-24: its threads may be anywhere in the library. */
Test(seats, row_of_one_that_is_held_dead_and_lives_stays_its_own, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint32_t row = row_of(11), seat = row * SEATS_PER_ROW;

	cr_expect(!seats_is_gone(seats, table, seat));
	handle_end(11);
	cr_expect(!seats_is_gone(seats, table, seat));
	cr_expect_neq(row_of(12), row);
	cr_expect_eq(seats_owner(seats, seat), 11);
}

static void hold_3_and_7(uint32_t row)
{
	seats_hold(seats, row * SEATS_PER_ROW, 3);
	seats_hold(seats, row * SEATS_PER_ROW + 5, 7);
	atomic_store(&seats->seat[row * SEATS_PER_ROW + 6].thread, 99);
}

/* M-25 */
Test(seats, row_of_the_dead_is_cleared_and_told_to_the_next, .init = setup, .fini = teardown,
     .timeout = 60)
{
	bool is_inherited = false;
	uint32_t row;

	child_with_row(11, hold_3_and_7);
	cr_expect(seats_is_held(seats, table, 0, 3), "nobody has told its end");
	cr_expect(!seats_is_gone(seats, table, 0));
	cr_expect_eq(row_of(12), 1, "a row was taken from an open handle");

	handle_end(11);
	cr_expect(seats_is_gone(seats, table, 0));
	handle_open(13);
	cr_assert(seats_row_take(seats, table, 13, &row, &is_inherited));
	cr_expect_eq(row, 0);
	cr_expect(is_inherited);
	for (uint32_t i = 0; i < SEATS_PER_ROW; ++i) {
		cr_expect_eq(atomic_load(&seats->seat[i].object), 0);
		cr_expect_eq(atomic_load(&seats->seat[i].thread), 0);
	}
}

Test(seats, process_that_nobody_reaped_is_gone, .init = setup, .fini = teardown, .timeout = 60)
{
	siginfo_t info;
	uint32_t row;
	pid_t pid;

	handle_open(11);
	pid = process_fork();
	if (pid == 0) {
		if (!take(11, &row))
			_exit(1);
		_exit(0);
	}
	cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	handle_end(11);
	cr_expect(seats_is_gone(seats, table, 0));
	cr_expect_eq(row_of(12), 0);
	cr_assert_eq(process_reap(pid, 30000), 0);
}

/* M-60 */
Test(seats, words_that_cannot_be_are_harmless, .init = setup, .fini = teardown, .timeout = 60)
{
	uint32_t row = row_of(11);
	uint64_t *held = calloc(2, sizeof(*held));

	cr_assert(held);
	atomic_store(&seats->rows.top, UINT32_MAX);
	for (uint32_t i = 0; i < SEATS_PER_ROW; ++i)
		atomic_store(&seats->seat[row * SEATS_PER_ROW + i].object, UINT32_MAX - i);
	atomic_store(&seats->rows.owner[5], UINT64_MAX);
	atomic_store(&seats->rows.process[5], UINT32_MAX);
	atomic_store(&seats->seat[5 * SEATS_PER_ROW].object, 1);

	seats_mark(seats, table, held, 128);
	cr_expect(held[0] == 0 && held[1] == 0);
	cr_expect(!seats_any(seats, table, 0, SEAT_NONE));
	cr_expect(!seats_is_held(seats, table, SEATS_MAX, 0));
	cr_expect(!seats_is_held(seats, table, UINT32_MAX, UINT32_MAX));
	cr_expect_eq(seats_owner(seats, UINT32_MAX), 0);
	cr_expect(!seats_is_gone(seats, table, UINT32_MAX));
	free(held);

	/* All rows are somebody's who never was. */
	for (uint32_t i = 0; i < SEATS_ROWS; ++i)
		atomic_store(&seats->rows.owner[i], UINT64_MAX - i);
	cr_expect_neq(row_of(12), UINT32_MAX);
}

/* ---- threads ---- */

enum { N_TAKERS = 4, N_TAKES = 3000 };

static _Atomic uint32_t users[SEATS_ROWS];
static _Atomic uint32_t n_wrong;

static void *taker(void *arg)
{
	uint64_t id = (uint64_t)(uintptr_t)arg;

	for (unsigned i = 0; i < N_TAKES; ++i) {
		uint32_t row;

		if (!take(id, &row) || atomic_fetch_add(&users[row], 1) != 0) {
			atomic_fetch_add(&n_wrong, 1);
			return NULL;
		}
		atomic_fetch_sub(&users[row], 1);
		seats_row_give(seats, row, id);
	}
	return NULL;
}

Test(seats, row_is_one_owners_at_a_time, .init = setup, .fini = teardown, .timeout = 60)
{
	pthread_t threads[N_TAKERS];

	for (uintptr_t i = 0; i < N_TAKERS; ++i) {
		handle_open(11 + i);
		cr_assert_eq(pthread_create(&threads[i], NULL, taker, (void *)(11 + i)), 0);
	}
	for (unsigned i = 0; i < N_TAKERS; ++i)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_expect_eq(n_wrong, 0);
	cr_expect_leq(atomic_load(&seats->rows.top), N_TAKERS);
}

/*
 * The holder stores its seat and looks at the state; who ends the object stores the state and looks
 * at the seats.  They may see each other both, but not miss each other both.
 */
enum { N_ROUNDS = 200000, ROUNDS_MS = 3000 };

static _Atomic uint32_t go, holder_saw_it_live, done, ended;
static uint32_t held_seat;

/* Spins, so that both go on at the same time; but the other one may need this very CPU. */
static void await(_Atomic uint32_t *word, uint32_t value)
{
	for (unsigned i = 0; atomic_load_explicit(word, memory_order_acquire) != value; ++i) {
		if (i > 2000)
			(void)sched_yield();
	}
}

static void *holder(void *arg)
{
	uint32_t n_rounds = *(const uint32_t *)arg;

	for (uint32_t round = 1; round <= n_rounds; ++round) {
		await(&go, round);
		seats_hold(seats, held_seat, 9);
		atomic_store_explicit(&holder_saw_it_live,
				      !atomic_load_explicit(&ended, memory_order_acquire),
				      memory_order_relaxed);
		atomic_store_explicit(&done, round, memory_order_release);
	}
	return NULL;
}

/* Returns how often both missed the other one. */
static uint32_t race(uint32_t n_rounds)
{
	uint32_t n_missed = 0;
	pthread_t thread;

	atomic_store(&done, 0);
	atomic_store(&go, 0);
	cr_assert_eq(pthread_create(&thread, NULL, holder, &n_rounds), 0);
	for (uint32_t round = 1; round <= n_rounds; ++round) {
		bool any;

		seats_drop(seats, held_seat);
		atomic_store_explicit(&ended, 0, memory_order_seq_cst);
		atomic_store_explicit(&go, round, memory_order_release);
		for (uint32_t spin = round % 64; spin > 0; --spin)
			__asm__ __volatile__("");

		atomic_store_explicit(&ended, 1, memory_order_release);
		seats_fence();
		any = seats_any(seats, table, 9, SEAT_NONE);

		await(&done, round);
		n_missed += !any && atomic_load_explicit(&holder_saw_it_live, memory_order_relaxed);
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
	return n_missed;
}

Test(seats, holder_and_ender_do_not_miss_each_other, .init = setup, .fini = teardown, .timeout = 60)
{
	struct timespec limit = process_deadline(ROUNDS_MS);
	uint32_t n_missed = 0, n_rounds = 0;

	held_seat = row_of(11) * SEATS_PER_ROW;
	while (n_rounds < N_ROUNDS && !process_has_passed(&limit)) {
		n_missed += race(1000);
		n_rounds += 1000;
	}
	cr_expect_eq(n_missed, 0, "%u of %u", n_missed, n_rounds);
}
