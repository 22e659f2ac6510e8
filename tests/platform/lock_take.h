/* SPDX-License-Identifier: MIT */
#ifndef TESTS_PLATFORM_LOCK_TAKE_H
#define TESTS_PLATFORM_LOCK_TAKE_H

/*
 * The one correct loop of lock.h, for tests that wait for nothing but the lock.
 */

#include <sys/mman.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/lock.h"

/* LOCK_BUSY: not before the deadline. */
static inline enum lock_result lock_take(struct lock *lock, uint64_t deadline_ns)
{
	unsigned n_slept = 0;

	for (;;) {
		enum lock_result r = lock_try(lock);

		if (r != LOCK_BUSY) {
			if (n_slept > 0 && (r == LOCK_HELD || r == LOCK_HELD_AFTER_DEATH))
				lock_inherit(lock);
			return r;
		}
		if (clock_now_ns() >= deadline_ns) {
			if (n_slept > 0)
				lock_pass_on(lock);
			return LOCK_BUSY;
		}
		(void)lock_sleep(lock, NULL, 0, deadline_ns);
		++n_slept;
	}
}

/* Shared between the test and its children; NULL: no memory. */
static inline void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

#endif
