/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_EVENTCOUNT_H
#define LIBIPC_CORE_EVENTCOUNT_H

/*
 * An event count: what a condition variable is for, without its deaths.  Lives in shared memory;
 * any process that maps it may die between any two stores.
 *
 * field         written by   rule
 * word          both         bits 0..29 count the wakes; SLEEPERS: somebody may sleep; ARMED: some
 *                            descriptor has to be rung (D21)
 * notifier_cpu  notifiers    a hint only: where the last notifier ran
 *
 * The one correct loop of a waiter (core/waiter.c is its only user):
 *
 *	1. expected = eventcount_announce(event).
 *	2. If the condition holds, done: what was published before the announcement was seen is
 *	   found here.
 *	3. futex_sleep({event->word, expected}, ...): what is published after it changes the word.
 *
 * and of a notifier: publish, then eventcount_notify().  Between the two stands a full fence on
 * each side ([E1], [E2]).
 *
 * Deaths: a waiter that dies leaves SLEEPERS set, which costs the next notifier one system call and
 * nothing else.  A notifier that dies between publishing and waking leaves sleepers asleep: the
 * broker bumps the attention word of those concerned, and the slice is the safety net.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"

#define EVENTCOUNT_SLEEPERS UINT32_C(0x80000000)
#define EVENTCOUNT_ARMED    UINT32_C(0x40000000)
#define EVENTCOUNT_COUNT    UINT32_C(0x3fffffff)

struct eventcount {
	_Alignas(64) _Atomic uint32_t word;
	_Atomic uint32_t notifier_cpu;
	uint32_t reserved[14];
};
ASSERT_SIZE(struct eventcount, 64);

void eventcount_init(struct eventcount *event);

/* Sets SLEEPERS and returns the word to sleep on. */
uint32_t eventcount_announce(struct eventcount *event);

/*
 * For who cannot sleep on this word: sets ARMED.  Whoever notifies next rings, and the ring bumps a
 * word on which this one sleeps, or writes its bell.  Then look again, as after an announcement.
 * What a dead waiter left set costs one ring.  Returns the count: as long as eventcount_armed() is
 * the same, nobody has notified since.
 */
uint32_t eventcount_arm(struct eventcount *event);

/* The count if it is still armed, else something that arm never returns. */
static inline uint32_t eventcount_armed(const struct eventcount *event)
{
	/* [E3] What the notifier published is seen by the look that follows.  Pairs with [E1]. */
	uint32_t word = atomic_load_explicit(&event->word, memory_order_acquire);

	return word & EVENTCOUNT_ARMED ? word & EVENTCOUNT_COUNT : UINT32_MAX;
}

/* Clears the hints, counts one wake, wakes everybody.  True if ARMED was set: the caller rings the
 * bell. */
bool eventcount_wake(struct eventcount *event);

/* Where this notifier runs; stored only when it changed. */
void eventcount_set_cpu(struct eventcount *event, uint32_t cpu);

/* The same where a locked, sequentially consistent exchange has published it: that is the fence on
 * machines where such an exchange is one. */
static inline bool eventcount_notify_exchanged(struct eventcount *event)
{
#if defined(__x86_64__) || defined(__i386__)
	atomic_signal_fence(memory_order_seq_cst);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif

	if (LIKELY(!(atomic_load_explicit(&event->word, memory_order_relaxed) &
		     (EVENTCOUNT_SLEEPERS | EVENTCOUNT_ARMED))))
		return false;

	return eventcount_wake(event);
}

/* After publishing.  No system call while nobody sleeps. */
static inline bool eventcount_notify(struct eventcount *event)
{
	/* [E1] What was published must be visible before the hint is read.  Pairs with [E2] in
	 * eventcount_announce(). */
	atomic_thread_fence(memory_order_seq_cst);

	if (LIKELY(!(atomic_load_explicit(&event->word, memory_order_relaxed) &
		     (EVENTCOUNT_SLEEPERS | EVENTCOUNT_ARMED))))
		return false;

	return eventcount_wake(event);
}

#endif
