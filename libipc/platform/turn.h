/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_TURN_H
#define LIBIPC_PLATFORM_TURN_H

/*
 * One thread of this process at a time, in private memory, for as long as it takes to copy a
 * message; biased to the first thread that comes, which pays a few plain instructions: most handles
 * are used by one thread, or by one for each direction.  The first time that another one comes it
 * takes the bias away (a barrier over all threads of the process), and from then on the turn is a
 * mutex.
 *
 * Not for signal handlers, not recursive.  Nothing that can be a cancellation point may stand
 * between take and give.  A thread that ends leaves the bias behind, which is taken away as
 * from the living.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/process.h"

struct turn {
	_Atomic uintptr_t bias;     /* the thread's turn_self; 0: nobody's yet; TURN_SHARED */
	_Atomic uint32_t is_inside; /* the biased thread is */
	bool has_mutex;             /* of whose turn it is */
	pthread_mutex_t mutex;
};

#define TURN_SHARED ((uintptr_t)1)

/* Its address is the thread. */
extern _Thread_local char turn_self
	__attribute__((__visibility__("hidden"), __tls_model__("initial-exec")));

void turn_init(struct turn *turn);
void turn_deinit(struct turn *turn);
void turn_take_slow(struct turn *turn);

static inline void turn_take(struct turn *turn)
{
	if (LIKELY(atomic_load_explicit(&turn->bias, memory_order_relaxed) ==
		   (uintptr_t)&turn_self)) {
		atomic_store_explicit(&turn->is_inside, 1, memory_order_relaxed);

		/* [T1] Either who takes the bias away sees `is_inside`, or this one that it is
		 * gone. Pairs with [T2]. */
		process_fence_light();
		if (LIKELY(atomic_load_explicit(&turn->bias, memory_order_relaxed) ==
			   (uintptr_t)&turn_self))
			return;

		atomic_store_explicit(&turn->is_inside, 0, memory_order_release);
	}

	turn_take_slow(turn);
}

static inline void turn_give(struct turn *turn)
{
	if (UNLIKELY(turn->has_mutex)) {
		turn->has_mutex = false;
		(void)pthread_mutex_unlock(&turn->mutex);
		return;
	}

	/* [T3] What was done is visible before the turn is free.  Pairs with [T4]. */
	atomic_store_explicit(&turn->is_inside, 0, memory_order_release);
}

#endif
