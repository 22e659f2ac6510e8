/* SPDX-License-Identifier: MIT */
/*
 * The protocol of a wait for several things as threads upon one mapping: one thread moves four
 * counters in turn, and two others wait for all of them.  The next is moved when both have seen the
 * last step, so that nobody else makes good a wake that was missed.  Once with words that the
 * kernel waits for, once armed and rung.  For the thread sanitizer; worth running without it too,
 * since it asserts that no wake is missed.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "libipc/core/waiter.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"

enum { COUNTERS = 4, WAITERS = 2, STEPS = 3000 };

struct counter {
	struct eventcount event;
	_Atomic uint64_t n;
	_Atomic uint64_t n_seen; /* by all waiters together */
	uint64_t plain;          /* written before n; read by who has seen n */
};

static struct counter counters[COUNTERS];
static struct eventcount *events[COUNTERS];
static const struct waiter_more more = {.events = events, .n_events = COUNTERS};
static _Atomic uint32_t attention, cancel_word, handle_cancelled, client_cancelled;
static _Atomic uint32_t n_rings;
static unsigned n_late;

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

static void move(struct counter *counter, uint64_t i)
{
	uint64_t began = clock_now_ns();

	counter->plain = i;
	atomic_store_explicit(&counter->n, i, memory_order_release);
	if (eventcount_notify(&counter->event))
		ring();

	while (atomic_load_explicit(&counter->n_seen, memory_order_acquire) < i * WAITERS)
		(void)sched_yield();
	n_late += clock_now_ns() - began > FUTEX_SLICE_LONG_NS * 8 / 10;
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
		require(counters[i].plain == ++seen[i], "what was written before is not there");
		atomic_fetch_add_explicit(&counters[i].n_seen, 1, memory_order_release);
		n_ended += seen[i] == STEPS;
	}
	return arg;
}

static void run(void)
{
	pthread_t waiters[WAITERS];

	for (unsigned i = 0; i < COUNTERS; ++i) {
		eventcount_init(&counters[i].event);
		counters[i].n = counters[i].n_seen = counters[i].plain = 0;
		events[i] = &counters[i].event;
	}
	for (unsigned i = 0; i < WAITERS; ++i)
		require(pthread_create(&waiters[i], NULL, wait_for_all, NULL) == 0, "thread");
	for (uint64_t i = 1; i <= STEPS; ++i)
		for (unsigned c = 0; c < COUNTERS; ++c)
			move(&counters[c], i);
	for (unsigned i = 0; i < WAITERS; ++i)
		pthread_join(waiters[i], NULL);
}

int main(void)
{
	futex_lengthen_slices();
	run();
	require(!futex_has_waitv() || atomic_load(&n_rings) == 0, "somebody was armed");
	require(n_late == 0, "a wake was missed");

	futex_refuse_waitv();
	run();
	require(atomic_load(&n_rings) > 0, "nobody was armed");
	require(n_late == 0, "a ring was missed");
	return 0;
}
