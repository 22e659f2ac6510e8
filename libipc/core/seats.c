/* SPDX-License-Identifier: MIT */
#include "libipc/core/seats.h"

#include <unistd.h>

#include "libipc/platform/crash.h"

ASSERT_SIZE(struct seats, 64 + SEATS_ROWS * 12 + SEATS_MAX * 16);

void seats_init(struct seats *seats)
{
	rows_init(&seats->rows);
	for (uint32_t i = 0; i < SEATS_MAX; ++i) {
		atomic_store_explicit(&seats->seat[i].object, 0, memory_order_relaxed);
		atomic_store_explicit(&seats->seat[i].thread, 0, memory_order_relaxed);
		atomic_store_explicit(&seats->seat[i].writer.word, 0, memory_order_relaxed);
	}
}

/* ---- rows ---- */

bool seats_is_gone(const struct seats *seats, const struct liveness_table *table, uint32_t seat)
{
	return seat < SEATS_MAX && rows_is_free(&seats->rows, table, seat / SEATS_PER_ROW);
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

bool seats_row_take(struct seats *seats, const struct liveness_table *table, uint64_t handle_id,
		    uint32_t *ret_row, bool *ret_is_inherited)
{
	uint32_t row;

	if (!rows_take(&seats->rows, table, handle_id, (uint32_t)getpid(), &row, ret_is_inherited))
		return false;

	row_clear(seats, row);
	*ret_row = row;
	return true;
}

void seats_row_give(struct seats *seats, uint32_t row, uint64_t handle_id)
{
	rows_give(&seats->rows, row, handle_id);
}

/* ---- who holds ---- */

uint64_t seats_owner(const struct seats *seats, uint32_t seat)
{
	if (seat >= SEATS_MAX)
		return 0;

	return rows_owner(&seats->rows, seat / SEATS_PER_ROW);
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
	       rows_is_alive(&seats->rows, table, seat / SEATS_PER_ROW);
}

bool seats_any(const struct seats *seats, const struct liveness_table *table, uint32_t object,
	       uint32_t except)
{
	uint32_t n_seats = rows_top(&seats->rows) * SEATS_PER_ROW;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		if (seat != except && seats_is_held(seats, table, seat, object))
			return true;
	}
	return false;
}

void seats_mark(const struct seats *seats, const struct liveness_table *table, uint64_t *held,
		uint32_t n_objects)
{
	uint32_t n_seats = rows_top(&seats->rows) * SEATS_PER_ROW;

	for (uint32_t seat = 0; seat < n_seats; ++seat) {
		uint32_t object = seat_object(seats, seat);

		if (object == 0 || object > n_objects ||
		    !rows_is_alive(&seats->rows, table, seat / SEATS_PER_ROW))
			continue;

		--object;
		held[object / 64] |= UINT64_C(1) << object % 64;
	}
}
