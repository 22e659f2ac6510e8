/* SPDX-License-Identifier: MIT */
/*
 * The rings that the queue is measured against: bounded, in memory of their own, without leases,
 * without priorities, without anybody who may die.
 */
#include "bench/bench.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 1024, WARM_UP_US = 2000 };

#define STREAM_NS UINT64_C(30000000)

/* A slot tells by its sequence whether it can be filled or emptied (Vyukov's bounded queue). */
struct slot {
	_Alignas(128) _Atomic uint64_t sequence;
	unsigned char data[BENCH_PAYLOAD];
};

struct ring {
	_Alignas(128) _Atomic uint64_t tail;
	_Alignas(128) _Atomic uint64_t head;
	struct slot slot[SLOTS];
};

static struct ring *ring_new(void)
{
	struct ring *ring = bench_shared(sizeof(*ring));

	for (uint64_t i = 0; i < SLOTS; ++i)
		atomic_store(&ring->slot[i].sequence, i);
	return ring;
}

static bool ring_push_shared(struct ring *ring, const void *data)
{
	uint64_t at = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	for (;;) {
		struct slot *slot = &ring->slot[at % SLOTS];
		uint64_t sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
		int64_t ahead = (int64_t)(sequence - at);

		if (ahead < 0)
			return false;
		if (ahead > 0) {
			at = atomic_load_explicit(&ring->tail, memory_order_relaxed);
			continue;
		}
		if (!atomic_compare_exchange_weak_explicit(
			    &ring->tail, &at, at + 1, memory_order_relaxed, memory_order_relaxed))
			continue;
		memcpy(slot->data, data, BENCH_PAYLOAD);
		atomic_store_explicit(&slot->sequence, at + 1, memory_order_release);
		return true;
	}
}

static bool ring_push_alone(struct ring *ring, const void *data)
{
	uint64_t at = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	struct slot *slot = &ring->slot[at % SLOTS];

	if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != at)
		return false;
	memcpy(slot->data, data, BENCH_PAYLOAD);
	atomic_store_explicit(&slot->sequence, at + 1, memory_order_release);
	atomic_store_explicit(&ring->tail, at + 1, memory_order_relaxed);
	return true;
}

static bool ring_pop(struct ring *ring, void *data)
{
	uint64_t at = atomic_load_explicit(&ring->head, memory_order_relaxed);
	struct slot *slot = &ring->slot[at % SLOTS];

	if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != at + 1)
		return false;
	memcpy(data, slot->data, BENCH_PAYLOAD);
	atomic_store_explicit(&slot->sequence, at + SLOTS, memory_order_release);
	atomic_store_explicit(&ring->head, at + 1, memory_order_relaxed);
	return true;
}

static void push_shared(void *arg)
{
	uint64_t data[BENCH_PAYLOAD / 8] = {1};

	bench_pin(0);
	for (;;) {
		if (!ring_push_shared(arg, data))
			sched_yield();
	}
}

static void push_alone(void *arg)
{
	uint64_t data[BENCH_PAYLOAD / 8] = {1};

	bench_pin(0);
	for (;;) {
		if (!ring_push_alone(arg, data))
			bench_pause();
	}
}

/* ns an item. */
static double stream_ns(void (*producer_fn)(void *arg), int n_producers)
{
	struct ring *ring = ring_new();
	uint64_t data[BENCH_PAYLOAD / 8], n = 0, began, now;
	pid_t pids[8];

	for (int i = 0; i < n_producers; ++i)
		pids[i] = bench_spawn(producer_fn, ring);
	bench_pin(1);
	usleep(WARM_UP_US);
	began = bench_now_ns();
	do {
		for (int i = 0; i < 64; ++i)
			n += ring_pop(ring, data);
		now = bench_now_ns();
	} while (now - began < STREAM_NS);
	for (int i = 0; i < n_producers; ++i)
		bench_reap(pids[i]);
	munmap(ring, sizeof(*ring));
	return (double)(now - began) / (double)n;
}

double limit_ring_shared_ns(void *arg)
{
	(void)arg;
	return stream_ns(push_shared, BENCH_PRODUCERS);
}

double limit_ring_alone_ns(void *arg)
{
	(void)arg;
	return stream_ns(push_alone, 1);
}
