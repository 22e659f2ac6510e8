/* SPDX-License-Identifier: MIT */
/*
 * The protocol of a wait for several things as threads upon one mapping: each of four counters is
 * moved by a thread of its own, and two threads wait until each has reached its end.  Once with
 * words that the kernel waits for, once armed and rung.  For the thread sanitizer; worth running
 * without it too, since it asserts that no wake was missed for the length of a slice.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "libipc/core/waiter.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"

enum { COUNTERS = 4, WAITERS = 2, STEPS = 100000 };

struct counter {
	struct eventcount event;
	_Atomic uint64_t n; /* relaxed: the event count brings the order */
	uint64_t plain;     /* written before n; read by who has seen n at its end */
};

static struct counter counters[COUNTERS];
static struct eventcount *events[COUNTERS];
static const struct waiter_more more = {.events = events, .n_events = COUNTERS};
static _Atomic uint32_t attention, cancel_word, handle_cancelled, client_cancelled;
static _Atomic uint32_t n_rings;

static void require(bool holds, const char *what)
{
	if (holds)
		return;

	fprintf(stderr, "tsan_wait: %s\n", what);
	_Exit(1);
}

/* What the broker does with a RING. */
static void ring(void)
{
	atomic_fetch_add_explicit(&n_rings, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&attention, 1, memory_order_release);
	futex_wake_all(&attention);
}

static void *move(void *arg)
{
	struct counter *counter = arg;

	for (uint64_t i = 1; i <= STEPS; ++i) {
		if (i == STEPS)
			counter->plain = i;
		atomic_store_explicit(&counter->n, i, memory_order_release);
		if (eventcount_notify(&counter->event))
			ring();
	}
	return NULL;
}

static int look(void *subject)
{
	uint64_t *seen = subject;

	for (int i = 0; i < COUNTERS; ++i)
		if (atomic_load_explicit(&counters[i].n, memory_order_acquire) > seen[i])
			return i;

	return WAITER_NOT_YET;
}

static void *wait_for_all(void *arg)
{
	uint64_t seen[COUNTERS] = {0};
	unsigned n_ended = 0;

	while (n_ended < COUNTERS) {
		struct waiter waiter = {
			.attention = &attention,
			.cancel_word = &cancel_word,
			.handle_cancelled = &handle_cancelled,
			.client_cancelled = &client_cancelled,
			.more = &more,
			.deadline_ns = clock_after_ns(60 * NS_PER_S),
		};
		int i = waiter_wait(&waiter, look, seen);

		require(i >= 0, "a wait ended without anything");
		seen[i] = atomic_load_explicit(&counters[i].n, memory_order_acquire);
		if (seen[i] == STEPS) {
			require(counters[i].plain == STEPS, "what was written before is not there");
			++n_ended;
		}
	}
	return arg;
}

static void run(void)
{
	pthread_t movers[COUNTERS], waiters[WAITERS];

	for (unsigned i = 0; i < COUNTERS; ++i) {
		eventcount_init(&counters[i].event);
		counters[i].n = counters[i].plain = 0;
		events[i] = &counters[i].event;
	}
	for (unsigned i = 0; i < WAITERS; ++i)
		require(pthread_create(&waiters[i], NULL, wait_for_all, NULL) == 0, "thread");
	for (unsigned i = 0; i < COUNTERS; ++i)
		require(pthread_create(&movers[i], NULL, move, &counters[i]) == 0, "thread");
	for (unsigned i = 0; i < COUNTERS; ++i)
		pthread_join(movers[i], NULL);
	for (unsigned i = 0; i < WAITERS; ++i)
		pthread_join(waiters[i], NULL);
}

int main(void)
{
	run();
	require(!futex_has_waitv() || atomic_load(&n_rings) == 0, "somebody was armed");

	futex_refuse_waitv();
	run();
	require(atomic_load(&n_rings) > 0, "nobody was armed");
	return 0;
}
