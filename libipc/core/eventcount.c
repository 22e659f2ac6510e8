/* SPDX-License-Identifier: MIT */
#include "libipc/core/eventcount.h"

#include <string.h>

#include "libipc/platform/futex.h"

void eventcount_init(struct eventcount *event)
{
	memset(event, 0, sizeof(*event));
	atomic_store_explicit(&event->notifier_cpu, UINT32_MAX, memory_order_relaxed);
}

uint32_t eventcount_announce(struct eventcount *event)
{
	uint32_t word;

	word = atomic_fetch_or_explicit(&event->word, EVENTCOUNT_SLEEPERS, memory_order_relaxed);

	/*
	 * [E2] The announcement must be visible before the condition is looked at again: either the
	 * notifier sees the hint, or this look sees what it published.  Pairs with [E1] in
	 * eventcount_notify().
	 */
	atomic_thread_fence(memory_order_seq_cst);
	return word | EVENTCOUNT_SLEEPERS;
}

uint32_t eventcount_arm(struct eventcount *event)
{
	uint32_t word;

	/* [E4] Whoever finds it armed sees what the waiter did before: that it is there and polls.
	 * Pairs with [E5] in bell.c. */
	word = atomic_fetch_or_explicit(&event->word, EVENTCOUNT_ARMED, memory_order_release);

	/* [E2] As above. */
	atomic_thread_fence(memory_order_seq_cst);
	return word & EVENTCOUNT_COUNT;
}

bool eventcount_wake(struct eventcount *event)
{
	uint32_t word = atomic_load_explicit(&event->word, memory_order_relaxed);

	/*
	 * The count moves with the hints, in one step: a sleeper that is just going to sleep on the
	 * old word finds it changed.  The order against what was published came from [E1].
	 */
	while (!atomic_compare_exchange_weak_explicit(&event->word, &word,
						      (word + 1) & EVENTCOUNT_COUNT,
						      memory_order_relaxed, memory_order_relaxed))
		;

	if (word & EVENTCOUNT_SLEEPERS)
		futex_wake_all(&event->word);

	return word & EVENTCOUNT_ARMED;
}

void eventcount_set_cpu(struct eventcount *event, uint32_t cpu)
{
	if (atomic_load_explicit(&event->notifier_cpu, memory_order_relaxed) != cpu)
		atomic_store_explicit(&event->notifier_cpu, cpu, memory_order_relaxed);
}
