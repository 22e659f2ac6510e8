/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_WAKES_H
#define TESTS_SUPPORT_WAKES_H

/*
 * Was a sleeper woken, or did it look again because its slice was over?  Slices are made so long
 * that the time tells, on a machine that is as busy as it likes.
 */

#include <criterion/criterion.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"

/* Before the first sleep, and before who sleeps is forked. */
#define WAKES_TELL() futex_lengthen_slices()

#define ASSERT_WOKEN(BEGAN_NS)                                                                     \
	do {                                                                                       \
		uint64_t took_ = clock_now_ns() - (BEGAN_NS);                                      \
		cr_assert_lt(took_, FUTEX_SLICE_LONG_NS / 2, "a slice was over: %lu ns",           \
			     (unsigned long)took_);                                                \
	} while (0)

#endif
