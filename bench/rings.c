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

enum { SLOTS = 1024, SLOTS_MIN = 16, WARM_UP_US = 2000, READS = 32 };

#define RING_BYTES (UINT64_C(1) << 20)

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

/* ---- in place, any size ---- */

void bench_fill(void *data, size_t size)
{
	uint64_t *words = data;

	for (size_t i = 0; i < size / sizeof(*words); ++i)
		words[i] = i;

	/* All of it is written. */
	__asm__ __volatile__("" : : "r"(data) : "memory");
}

void bench_sum(const void *data, size_t size)
{
	const uint64_t *words = data;
	uint64_t sum = 0;

	for (size_t i = 0; i < size / sizeof(*words); ++i)
		sum += words[i];
	__asm__ __volatile__("" : : "r"(sum));
}

/*
 * One producer, one consumer, slots of one size; each keeps what it last saw of the other's index
 * and looks again when that is used up.
 */
struct place {
	_Alignas(128) _Atomic uint64_t head;
	_Alignas(128) _Atomic uint64_t tail;
	size_t size;
	uint64_t n_slots;
	_Alignas(128) unsigned char bytes[];
};

static void fill_in_place(void *arg)
{
	struct place *place = arg;
	uint64_t head = 0, tail = 0;

	bench_pin(0);
	for (;;) {
		while (head - tail == place->n_slots) {
			tail = atomic_load_explicit(&place->tail, memory_order_acquire);
			bench_pause();
		}
		bench_fill(place->bytes + head % place->n_slots * place->size, place->size);
		atomic_store_explicit(&place->head, ++head, memory_order_release);
	}
}

double limit_ring_in_place_ns(size_t size)
{
	uint64_t fit = RING_BYTES / size, few = fit < SLOTS ? fit : SLOTS;
	uint64_t n_slots = few > SLOTS_MIN ? few : SLOTS_MIN;
	size_t bytes = sizeof(struct place) + n_slots * size;
	struct place *place = bench_shared(bytes);
	uint64_t head = 0, tail = 0, first, began, now;
	pid_t pid;

	place->size = size;
	place->n_slots = n_slots;
	pid = bench_spawn(fill_in_place, place);
	bench_pin(1);
	usleep(WARM_UP_US);
	began = bench_now_ns();
	first = tail;
	do {
		head = atomic_load_explicit(&place->head, memory_order_acquire);
		while (tail != head) {
			bench_sum(place->bytes + tail % n_slots * size, size);
			if (++tail % 32 == 0 || tail == head)
				atomic_store_explicit(&place->tail, tail, memory_order_release);
		}
		now = bench_now_ns();
	} while (now - began < STREAM_NS || tail == first);
	bench_reap(pid);
	munmap(place, bytes);
	return (double)(now - began) / (double)(tail - first);
}

/* ---- reading ---- */

struct pages {
	size_t size;
	_Alignas(128) _Atomic uint32_t turn; /* odd: written, to be read */
	_Alignas(128) unsigned char bytes[];
};

static void write_pages(void *arg)
{
	struct pages *pages = arg;

	bench_pin(0);
	for (uint32_t turn = 0;; turn += 2) {
		while (atomic_load_explicit(&pages->turn, memory_order_acquire) != turn)
			bench_pause();
		bench_fill(pages->bytes, pages->size);
		atomic_store_explicit(&pages->turn, turn + 1, memory_order_release);
	}
}

double limit_read_ns(size_t size)
{
	struct pages *pages = bench_shared(sizeof(*pages) + size);
	uint64_t spent = 0;
	pid_t pid;

	pages->size = size;
	pid = bench_spawn(write_pages, pages);
	bench_pin(1);
	for (uint32_t i = 0; i < READS; ++i) {
		uint64_t began;

		while (atomic_load_explicit(&pages->turn, memory_order_acquire) != 2 * i + 1)
			bench_pause();
		began = bench_now_ns();
		bench_sum(pages->bytes, size);
		spent += bench_now_ns() - began;
		atomic_store_explicit(&pages->turn, 2 * i + 2, memory_order_release);
	}
	bench_reap(pid);
	munmap(pages, sizeof(*pages) + size);
	return (double)spent / READS;
}
