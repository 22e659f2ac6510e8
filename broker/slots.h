/* SPDX-License-Identifier: MIT */
#ifndef BROKER_SLOTS_H
#define BROKER_SLOTS_H

/*
 * Which places of an array of records are free: a stack of those that were given back, then the
 * ones never used.  In private memory: a new worker fills it from the records.
 */

#include <stdbool.h>
#include <stdint.h>

struct slots {
	uint32_t *free;
	uint32_t n_free;
	uint32_t top;   /* no slot from here on was ever taken */
	uint32_t *high; /* the highest top of all workers: kept beside the records */
	uint32_t max;
	uint32_t n_used;
};

void slots_init(struct slots *slots, uint32_t *free_slots, uint32_t max, uint32_t *high);

/* Once, after init: every slot for which is_used says so is taken. */
void slots_adopt(struct slots *slots, bool (*is_used)(const void *records, uint32_t slot),
		 const void *records);

/* The slot that was given back last, else the lowest; false: none. */
bool slots_take(struct slots *slots, uint32_t *ret);
void slots_put(struct slots *slots, uint32_t slot);

#endif
