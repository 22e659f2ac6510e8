/* SPDX-License-Identifier: MIT */
#include "libipc/platform/turn.h"

#include <sched.h>

_Thread_local char turn_self;

void turn_init(struct turn *turn)
{
	atomic_store_explicit(&turn->bias, 0, memory_order_relaxed);
	atomic_store_explicit(&turn->is_inside, 0, memory_order_relaxed);
	turn->has_mutex = false;
	(void)pthread_mutex_init(&turn->mutex, NULL);
}

void turn_deinit(struct turn *turn)
{
	(void)pthread_mutex_destroy(&turn->mutex);
}

/* Nobody has a turn by the bias any more.  The mutex is held. */
static void turn_share(struct turn *turn)
{
	atomic_store_explicit(&turn->bias, TURN_SHARED, memory_order_relaxed);

	/* [T2] Pairs with [T1]. */
	process_fence_heavy();

	/* Once in the life of a turn, for as long as the other one copies.  [T4] Pairs with [T3].
	 */
	while (atomic_load_explicit(&turn->is_inside, memory_order_acquire))
		(void)sched_yield();
}

void turn_take_slow(struct turn *turn)
{
	uintptr_t bias = 0;

	if (atomic_compare_exchange_strong_explicit(&turn->bias, &bias, (uintptr_t)&turn_self,
						    memory_order_relaxed, memory_order_relaxed)) {
		turn_take(turn);
		return;
	}

	(void)pthread_mutex_lock(&turn->mutex);
	if (atomic_load_explicit(&turn->bias, memory_order_relaxed) != TURN_SHARED)
		turn_share(turn);
	turn->has_mutex = true;
}
