/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_CLOCK_H
#define LIBIPC_PLATFORM_CLOCK_H

/*
 * CLOCK_MONOTONIC in nanoseconds.  Inside the library a deadline is a uint64_t: CLOCK_FOREVER never
 * comes, 0 has always passed.
 */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_FOREVER UINT64_MAX
#define NS_PER_S      UINT64_C(1000000000)
#define NS_PER_MS     UINT64_C(1000000)

uint64_t clock_now_ns(void);

/* The same clock some milliseconds late, for a tenth of the price: for what people look at. */
uint64_t clock_coarse_now_ns(void);

/* CLOCK_BOOTTIME: goes on while the machine is suspended. */
uint64_t clock_boot_now_ns(void);

/* NULL is for ever; tv_nsec outside 0..999999999 is IPC_EINVAL; a negative or past moment is 0
 * (M-20). */
int clock_deadline(uint64_t *ret_deadline_ns, const struct timespec *deadline);

/* now + ns, saturating below CLOCK_FOREVER. */
uint64_t clock_after_ns(uint64_t ns);

struct timespec clock_to_timespec(uint64_t ns);

#endif
