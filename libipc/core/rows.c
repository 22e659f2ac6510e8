/* SPDX-License-Identifier: MIT */
#include "libipc/core/rows.h"

#include "libipc/platform/crash.h"
#include "libipc/platform/peer.h"

void rows_init(struct rows *rows)
{
	atomic_store_explicit(&rows->top, 0, memory_order_relaxed);
	for (uint32_t row = 0; row < ROWS_MAX; ++row) {
		atomic_store_explicit(&rows->owner[row], 0, memory_order_relaxed);
		atomic_store_explicit(&rows->process[row], 0, memory_order_relaxed);
	}
}

uint32_t rows_top(const struct rows *rows)
{
	uint32_t top = atomic_load_explicit(&rows->top, memory_order_acquire);

	return top < ROWS_MAX ? top : ROWS_MAX;
}

bool rows_is_free(const struct rows *rows, const struct liveness_table *table, uint32_t row)
{
	uint64_t owner = rows_owner(rows, row);
	uint32_t process;

	if (owner == 0)
		return true;
	if (liveness_handle_is(table, owner))
		return false;

	/* [K6] The table before the process: an owner that is held dead just now either sees that
	 * after it stored its process, or its process is seen here.  Pairs with [K7]. */
	atomic_thread_fence(memory_order_seq_cst);
	process = atomic_load_explicit(&rows->process[row], memory_order_relaxed);
	return process == 0 || peer_is_gone((pid_t)process);
}

bool rows_is_alive(const struct rows *rows, const struct liveness_table *table, uint32_t row)
{
	uint64_t owner = rows_owner(rows, row);

	return owner != 0 && liveness_handle_is(table, owner);
}

/* Before the row is used: who looks for holders looks at rows below `top` alone. */
static void rows_raise_top(struct rows *rows, uint32_t row)
{
	uint32_t top = atomic_load_explicit(&rows->top, memory_order_relaxed);

	/* [K3] Not reordered with what is stored by right of the row: that is followed by a full
	 * fence or is a locked exchange.  Acquire and release for the owners below. */
	while (top <= row &&
	       !atomic_compare_exchange_weak_explicit(&rows->top, &top, row + 1,
						      memory_order_acq_rel, memory_order_relaxed))
		;
}

bool rows_take(struct rows *rows, const struct liveness_table *table, uint64_t handle_id,
	       uint32_t process, uint32_t *ret_row, bool *ret_is_inherited)
{
	for (uint32_t row = 0; row < ROWS_MAX; ++row) {
		uint64_t owner = rows_owner(rows, row);

		/* Who has no number that others know cannot judge theirs. */
		if (owner != 0 && process == 0 && rows_process(rows, row) != 0)
			continue;
		if (!rows_is_free(rows, table, row))
			continue;

		/* [K4] The owner before what is stored by right of the row. */
		if (!atomic_compare_exchange_strong_explicit(&rows->owner[row], &owner, handle_id,
							     memory_order_seq_cst,
							     memory_order_relaxed))
			continue;

		CRASH_POINT();
		atomic_store_explicit(&rows->process[row], process, memory_order_relaxed);

		/* [K7] Pairs with [K6].  Held dead meanwhile: the row may be somebody else's. */
		atomic_thread_fence(memory_order_seq_cst);
		if (!liveness_handle_is(table, handle_id))
			return false;

		CRASH_POINT();
		rows_raise_top(rows, row);
		CRASH_POINT();
		*ret_row = row;
		*ret_is_inherited = owner != 0;
		return true;
	}

	return false;
}

void rows_give(struct rows *rows, uint32_t row, uint64_t handle_id)
{
	/* What was done by right of the row is done. */
	(void)atomic_compare_exchange_strong_explicit(&rows->owner[row], &handle_id, 0,
						      memory_order_release, memory_order_relaxed);
}
