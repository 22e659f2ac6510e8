/* SPDX-License-Identifier: MIT */
#include "broker/slots.h"

#include <assert.h>

/*
 * Death: this is private memory, but for `high`, which is raised before the first record beyond it
 * is written; so a new worker misses none.
 */

void slots_init(struct slots *slots, uint32_t *free_slots, uint32_t max, uint32_t *high)
{
	*slots = (struct slots){.free = free_slots, .max = max, .high = high};
}

void slots_adopt(struct slots *slots, bool (*is_used)(const void *records, uint32_t slot),
		 const void *records)
{
	uint32_t n = *slots->high < slots->max ? *slots->high : slots->max;
	uint32_t slot;

	assert(slots->top == 0);

	for (slot = 0; slot < n; ++slot) {
		if (is_used(records, slot)) {
			slots->top = slot + 1;
			++slots->n_used;
		}
	}

	/* Downwards, so that the lowest is taken first: full pages of records cost less than sparse
	 * ones. */
	for (slot = slots->top; slot > 0; --slot) {
		if (!is_used(records, slot - 1))
			slots->free[slots->n_free++] = slot - 1;
	}
}

bool slots_take(struct slots *slots, uint32_t *ret)
{
	if (slots->n_free > 0)
		*ret = slots->free[--slots->n_free];
	else if (slots->top < slots->max)
		*ret = slots->top++;
	else
		return false;

	if (*slots->high < slots->top)
		*slots->high = slots->top;

	++slots->n_used;
	return true;
}

void slots_put(struct slots *slots, uint32_t slot)
{
	assert(slots->n_used > 0 && slot < slots->top);

	slots->free[slots->n_free++] = slot;
	--slots->n_used;
}
