/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_RING_SCENE_H
#define TESTS_SUPPORT_RING_SCENE_H

/*
 * A ring without a channel: memory between two pages that nobody may touch, which the test's
 * threads share and its forked children inherit, and a liveness table that the test writes as the
 * broker does.  What a record is follows from its number: so what comes can be checked to the byte.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/core/ring.h"

#include "tests/support/pattern.h"

/* Handles are known by how new they are, from 1; 0 is a process of which nobody knows when it is
 * gone. */
#define RING_SCENE_ID(n) ((uint64_t)(n) << 16 | (100 + (uint64_t)(n)))

/* The last number that a process can have, which none has. */
#define RING_SCENE_NO_PROCESS UINT32_C(0x3fffff)

struct ring_scene {
	unsigned char *memory; /* all of it, with both guards */
	uint64_t memory_size;
	struct ring *ring;
	unsigned char *data;
	uint64_t data_size;
	uint64_t capacity, record_max;
	struct liveness_table *table;
	_Atomic uint64_t *word; /* a shared page: the test's own */
};

enum { RING_SCENE_WORDS = 512 };

static inline void ring_scene_must(bool holds, const char *what)
{
	if (holds)
		return;
	(void)fprintf(stderr, "%s failed\n", what);
	abort();
}

static inline void *ring_scene_map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ring_scene_must(memory != MAP_FAILED, "mmap");
	return memory;
}

/* An empty ring, and no handle is open. */
static inline void ring_scene_reset(const struct ring_scene *scene, uint64_t number)
{
	for (unsigned i = 0; i < 1024; ++i)
		liveness_handle_set(scene->table, i, 0);
	memset((void *)scene->word, 0, RING_SCENE_WORDS * sizeof(*scene->word));
	memset((void *)scene->ring, 0, sizeof(*scene->ring));
	memset(scene->data, 0, scene->data_size);
	ring_init(scene->ring, scene->data, number);
}

static inline void ring_scene_init(struct ring_scene *scene, uint64_t capacity, uint64_t record_max,
				   uint64_t number)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t size = ring_data_size(capacity, record_max), pages;

	ring_scene_must(size > 0, "ring_data_size");
	*scene = (struct ring_scene){
		.data_size = size, .capacity = capacity, .record_max = record_max};
	pages = (size + page - 1) / page * page;
	scene->memory_size = pages + 3 * page;
	scene->memory = ring_scene_map(scene->memory_size);
	ring_scene_must(mprotect(scene->memory + page, page, PROT_NONE) == 0 &&
				mprotect(scene->memory + pages + 2 * page, page, PROT_NONE) == 0,
			"mprotect");
	scene->ring = (struct ring *)scene->memory;
	scene->data = scene->memory + 2 * page + (pages - size);
	scene->table = ring_scene_map(sizeof(*scene->table));
	scene->word = ring_scene_map(RING_SCENE_WORDS * sizeof(*scene->word));
	liveness_table_init(scene->table, 1000);
	ring_scene_reset(scene, number);
}

static inline void ring_scene_deinit(struct ring_scene *scene)
{
	munmap(scene->memory, scene->memory_size);
	munmap(scene->table, sizeof(*scene->table));
	munmap((void *)scene->word, RING_SCENE_WORDS * sizeof(*scene->word));
}

static inline void ring_scene_attach(const struct ring_scene *scene, struct ring_view *ret)
{
	ring_scene_must(
		ring_attach(ret, scene->ring, scene->data, scene->capacity, scene->record_max) == 0,
		"ring_attach");
}

/* Nobody has an end: the stream goes on at this position, with this number and these tags. */
static inline void ring_scene_move(const struct ring_scene *scene, uint64_t position,
				   uint64_t number, uint64_t tag)
{
	struct ring_view view;
	uint64_t word = ring_word(tag, 0, position);

	ring_scene_attach(scene, &view);
	atomic_store(&ring_at(&view, position)->what, 0);
	atomic_store(&ring_at(&view, position)->number, number);
	atomic_store(&scene->ring->received[0], word);
	atomic_store(&scene->ring->received[1], word);
	atomic_store(&scene->ring->limit[tag & 1], word);
	atomic_store(&scene->ring->teller, tag);
	atomic_store(&scene->ring->tail, word);
	atomic_store(&scene->ring->head, word);
}

/* A consumer tells how far it got. */
static inline void ring_mark_received(const struct ring_consumer *consumer, uint64_t position,
				      unsigned state)
{
	uint64_t tag = ring_tag(consumer->tail);

	atomic_store_explicit(&consumer->view.ring->received[tag & 1],
			      ring_word(tag, state, position), memory_order_release);
}

/* What a process that was killed had in its own memory. */
static inline void ring_scene_forget(struct ring_producer *producer)
{
	if (producer->claim != &producer->claim_alone)
		free(producer->claim);
	producer->claim = NULL;
	producer->n_claims = producer->n_claims_max = 0;
}

/* ---- what the broker tells ---- */

static inline void ring_scene_open(const struct ring_scene *scene, unsigned n)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(RING_SCENE_ID(n)), RING_SCENE_ID(n));
}

static inline void ring_scene_end(const struct ring_scene *scene, unsigned n)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(RING_SCENE_ID(n)), 0);
}

/* ---- both ends ---- */

static inline int ring_scene_try_producer(const struct ring_scene *scene,
					  struct ring_producer *producer, unsigned n,
					  uint32_t process)
{
	memset(producer, 0, sizeof(*producer));
	ring_scene_attach(scene, &producer->view);
	ring_scene_open(scene, n);
	return ring_take_producer(producer, scene->table, RING_SCENE_ID(n), process);
}

static inline int ring_scene_try_consumer(const struct ring_scene *scene,
					  struct ring_consumer *consumer, unsigned n,
					  uint32_t process)
{
	memset(consumer, 0, sizeof(*consumer));
	ring_scene_attach(scene, &consumer->view);
	ring_scene_open(scene, n);
	return ring_take_consumer(consumer, scene->table, RING_SCENE_ID(n), process);
}

static inline void ring_scene_produce(const struct ring_scene *scene,
				      struct ring_producer *producer, unsigned n)
{
	int r = ring_scene_try_producer(scene, producer, n, (uint32_t)getpid());

	if (r < 0)
		(void)fprintf(stderr, "ring_take_producer: %d\n", r);
	ring_scene_must(r == 0, "ring_take_producer");
}

static inline void ring_scene_consume(const struct ring_scene *scene,
				      struct ring_consumer *consumer, unsigned n)
{
	int r = ring_scene_try_consumer(scene, consumer, n, (uint32_t)getpid());

	if (r < 0)
		(void)fprintf(stderr, "ring_take_consumer: %d\n", r);
	ring_scene_must(r == 0, "ring_take_consumer");
}

/* ---- records ---- */

/* `salt` tells writers apart: two that write the same number write other bytes. */
static inline uint64_t ring_scene_mix(uint64_t x)
{
	x = (x ^ x >> 31) * UINT64_C(0x9e3779b97f4a7c15);
	return x ^ x >> 29;
}

static inline void ring_scene_fill(void *data, uint64_t size, uint64_t number, unsigned salt)
{
	pattern_fill(data, size, ring_scene_mix(number + ((uint64_t)salt << 56)));
}

static inline bool ring_scene_is(const void *data, uint64_t size, uint64_t number, unsigned salt)
{
	return pattern_is(data, size, ring_scene_mix(number + ((uint64_t)salt << 56)));
}

/* The salt goes with the record. */
static inline struct ring_commit ring_scene_commit(uint64_t number, uint64_t size, unsigned salt)
{
	return (struct ring_commit){
		.type = 2 + (unsigned)(number % 3),
		.flags = salt,
		.extra = (unsigned)(number * 3 & 0xffff),
		.size = size,
		.number_next = number + 1,
		.state = (unsigned)((number + 1) & RING_STATE_MASK),
	};
}

/* One claim, filled and committed, as number producer->number. */
static inline int ring_scene_send(struct ring_producer *producer, uint64_t size, unsigned salt)
{
	struct ring_commit commit = ring_scene_commit(producer->number, size, salt);
	void *data;
	int r = ring_claim(producer, size, &data);

	if (r < 0)
		return r;
	ring_scene_fill(data, size, producer->number, salt);
	r = ring_commit(producer, ring_find_claim(producer, data), &commit);
	if (r < 0)
		ring_abort(producer, ring_find_claim(producer, data));
	return r;
}

/* What came is whole: returns what is wrong with it, or NULL. */
static inline const char *ring_scene_wrong(const struct ring_received *record, uint64_t number)
{
	if (record->number != number)
		return "the number";
	if (record->type != 2 + number % 3)
		return "the type";
	if (record->extra != (number * 3 & 0xffff))
		return "extra";
	if (!ring_scene_is(record->bytes, record->size, number, record->flags))
		return "the bytes";
	return NULL;
}

/* Receives one, and goes on behind it. */
static inline int ring_scene_receive(struct ring_consumer *consumer, struct ring_received *ret)
{
	int r = ring_peek(consumer, ret);

	if (r == 0)
		consumer->at = ret->after;
	return r;
}

#endif
