/* SPDX-License-Identifier: MIT */
#include "libipc/core/seats.h"

#include <unistd.h>

#include "libipc/platform/crash.h"
#include "libipc/platform/peer.h"

ASSERT_SIZE(struct seats, 64 + SEATS_ROWS * 12 + SEATS_MAX * 16);

void seats_init(struct seats *seats)
{
	atomic_store_explicit(&seats->top, 0, memory_order_relaxed);
	for (uint32_t row = 0; row < SEATS_ROWS; ++row) {
		atomic_store_explicit(&seats->owner[row], 0, memory_order_relaxed);
		atomic_store_explicit(&seats->process[row], 0, memory_order_relaxed);
	}
	for (uint32_t i = 0; i < SEATS_MAX; ++i) {
		atomic_store_explicit(&seats->seat[i].object, 0, memory_order_relaxed);
		atomic_store_explicit(&seats->seat[i].thread, 0, memory_order_relaxed);
		atomic_store_explicit(&seats->seat[i].writer.word, 0, memory_order_relaxed);
	}
}

/* A word that any member may have written. */
static uint32_t seats_top(const struct seats *seats)
{
	uint32_t top = atomic_load_explicit(&seats->top, memory_order_acquire);

	return top < SEATS_ROWS ? top : SEATS_ROWS;
}

/* ---- rows ---- */

/* A row of nobody, or of somebody who is gone. */
static bool row_is_free(const struct seats *seats, const struct liveness_table *table, uint32_t row)
{
	uint64_t owner = atomic_load_explicit(&seats->owner[row], memory_order_acquire);
	uint32_t process;

	if (owner == 0)
		return true;
	if (liveness_handle_is(table, owner))
		return false;

	/* [K6] The table before the process: an owner that is held dead just now either sees that
	 * after it stored its process, or its process is seen here.  Pairs with [K7]. */
	atomic_thread_fence(memory_order_seq_cst);
	process = atomic_load_explicit(&seats->process[row], memory_order_relaxed);
	return process == 0 || peer_is_gone((pid_t)process);
}

bool seats_is_gone(const struct seats *seats, const struct liveness_table *table, uint32_t seat)
{
	return seat < SEATS_MAX && row_is_free(seats, table, seat / SEATS_PER_ROW);
}

static void row_clear(struct seats *seats, uint32_t row)
{
	for (uint32_t i = 0; i < SEATS_PER_ROW; ++i) {
		uint32_t seat = row * SEATS_PER_ROW + i;

		atomic_store_explicit(&seats->seat[seat].thread, 0, memory_order_relaxed);
		(void)quicklock_release_dead(&seats->seat[seat].writer);
		seats_drop(seats, seat);
		CRASH_POINT();
	}
}

/* Before the row is used: who looks for holders looks at rows below `top` alone. */
static void row_raise_top(struct seats *seats, uint32_t row)
{
	uint32_t top = atomic_load_explicit(&seats->top, memory_order_relaxed);

	/* [K3] Not reordered with the seats that are stored later: those are followed by a full
	 * fence or a locked exchange.  Acquire and release for the owners below. */
	while (top <= row &&
	       !atomic_compare_exchange_weak_explicit(&seats->top, &top, row + 1,
						      memory_order_acq_rel, memory_order_relaxed))
		;
}

bool seats_row_take(struct seats *seats, const struct liveness_table *table, uint64_t handle_id,
		    uint32_t *ret_row, bool *ret_is_inherited)
{
	for (uint32_t row = 0; row < SEATS_ROWS; ++row) {
		uint64_t owner = atomic_load_explicit(&seats->owner[row], memory_order_acquire);

		if (!row_is_free(seats, table, row))
			continue;

		/* [K4] The owner before its seats' objects.  Pairs with [K5]. */
		if (!atomic_compare_exchange_strong_explicit(&seats->owner[row], &owner, handle_id,
							     memory_order_seq_cst,
							     memory_order_relaxed))
			continue;

		CRASH_POINT();
		atomic_store_explicit(&seats->process[row], (uint32_t)getpid(),
				      memory_order_relaxed);

		/* [K7] Pairs with [K6].  Held dead meanwhile: the row may be somebody else's. */
		atomic_thread_fence(memory_order_seq_cst);
		if (!liveness_handle_is(table, handle_id))
			return false;

		CRASH_POINT();
		row_raise_top(seats, row);
		CRASH_POINT();
		row_clear(seats, row);
		*ret_row = row;
		*ret_is_inherited = owner != 0;
		return true;
	}

	return false;
}

void seats_row_give(struct seats *seats, uint32_t row, uint64_t handle_id)
{
	/* What was done through the seats is done. */
	(void)atomic_compare_exchange_strong_explicit(&seats->owner[row], &handle_id, 0,
						      memory_order_release, memory_order_relaxed);
}

/* ---- who holds ---- */

uint64_t seats_owner(const struct seats *seats, uint32_t seat)
{
	if (seat >= SEATS_MAX)
		return 0;

	return atomic_load_explicit(&seats->owner[seat / SEATS_PER_ROW], memory_order_acquire);
}

static bool row_is_alive(const struct seats *seats, const struct liveness_table *table,
			 uint32_t row)
{
	uint64_t owner = atomic_load_explicit(&seats->owner[row], memory_order_acquire);

	return owner != 0 && liveness_handle_is(table, owner);
}

static uint32_t seat_object(const struct seats *seats, uint32_t seat)
{
	/* [K5] The object before the row's owner.  Pairs with [K4]. */
	return atomic_load_explicit(&seats->seat[seat].object, memory_order_acquire);
}

bool seats_is_held(const struct seats *seats, const struct liveness_table *table, uint32_t seat,
		   uint32_t object)
{
	return seat < SEATS_MAX && seat_object(seats, seat) == object + 1 &&
	       row_is_alive(seats, table, seat / SEATS_PER_ROW);
}

bool seats_any(const struct seats *seats, const struct liveness_table *table, uint32_t object,
	       uint32_t except)
{
	uint32_t n_seats = seats_top(seats) * SEATS_PER_ROW;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		if (seat != except && seats_is_held(seats, table, seat, object))
			return true;
	}
	return false;
}

void seats_mark(const struct seats *seats, const struct liveness_table *table, uint64_t *held,
		uint32_t n_objects)
{
	uint32_t n_seats = seats_top(seats) * SEATS_PER_ROW;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint32_t object = seat_object(seats, seat);

		if (object == 0 || object > n_objects ||
		    !row_is_alive(seats, table, seat / SEATS_PER_ROW))
			continue;

		--object;
		held[object / 64] |= UINT64_C(1) << object % 64;
	}
}
