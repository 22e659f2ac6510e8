/* SPDX-License-Identifier: MIT */
#include "libipc/platform/crash.h"

/*
 * A death that can be asked for by number.  SIGKILL and nothing softer: no handler, no exit
 * function, no flush.
 */

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libipc/platform/clock.h"

#ifdef IPC_CRASH_POINTS

enum crash_mode { CRASH_UNKNOWN, CRASH_NEVER, CRASH_AT, CRASH_RANDOM, CRASH_LATE };

/* Read once.  Two threads that both do it store the same. */
static _Atomic unsigned crash_mode;
static _Atomic uint64_t crash_number;

static _Atomic uint64_t crash_passed;

static bool crash_skip(const char **wish, const char *word)
{
	size_t length = strlen(word);

	if (!*wish || strncmp(*wish, word, length) != 0)
		return false;

	*wish += length;
	return true;
}

static enum crash_mode crash_read_wish(void)
{
	const char *wish = getenv("IPC_CRASH");
	enum crash_mode mode = CRASH_AT;
	uint64_t number;

	if (crash_skip(&wish, "random:"))
		mode = CRASH_RANDOM;
	else if (crash_skip(&wish, "late:"))
		mode = CRASH_LATE;

	number = wish ? strtoull(wish, NULL, 10) : 0;
	if (number == 0)
		mode = CRASH_NEVER;

	atomic_store_explicit(&crash_number, number, memory_order_relaxed);

	/* [C1] The number is there before the mode says so.  Pairs with [C2]. */
	atomic_store_explicit(&crash_mode, mode, memory_order_release);
	return mode;
}

/* Differs between threads, between forked copies and between passes; nothing more is asked of it.
 */
static uint64_t crash_dice(uint64_t passed)
{
	uint64_t x = clock_now_ns() ^ (uint64_t)getpid() << 40 ^ passed << 20;

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Awake: a sandbox may allow no sleep. */
static void crash_dawdle(uint64_t dice)
{
	uint64_t until_ns = clock_now_ns() + (dice >> 20) % CRASH_LATE_NS;

	while (clock_now_ns() < until_ns)
		;
}

void crash_point(void)
{
	/* [C2] Pairs with [C1]. */
	unsigned mode = atomic_load_explicit(&crash_mode, memory_order_acquire);
	uint64_t number, passed, dice;

	if (mode == CRASH_UNKNOWN)
		mode = crash_read_wish();
	if (mode == CRASH_NEVER)
		return;

	number = atomic_load_explicit(&crash_number, memory_order_relaxed);
	passed = atomic_fetch_add_explicit(&crash_passed, 1, memory_order_relaxed) + 1;

	dice = mode == CRASH_AT ? 0 : crash_dice(passed);
	if (mode == CRASH_AT ? passed != number : dice % number != 0)
		return;

	if (mode == CRASH_LATE)
		crash_dawdle(dice);
	else
		(void)kill(getpid(), SIGKILL);
}

#endif
