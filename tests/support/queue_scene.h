/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_QUEUE_SCENE_H
#define TESTS_SUPPORT_QUEUE_SCENE_H

/*
 * The structure of the kind `queue` without broker and client, with the dead letters beside it:
 * mappings that the test's threads share and its forked children inherit, and a liveness table that
 * the test writes as the broker does.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/channel/queue.h"
#include "libipc/platform/clock.h"

#include "tests/support/pattern.h"

enum { QUEUE_SCENE_CLIENT = 1, QUEUE_SCENE_CHANNEL = 5, QUEUE_SCENE_GENERATION = 7 };

/* A handle's id, and that of its handle of the dead letters. */
#define QUEUE_SCENE_DEAD_ID(id) ((id) + 1024)

/* No process has such a number. */
#define QUEUE_SCENE_NO_PROCESS UINT32_C(0x7ffffff0)

#define QUEUE_SCENE_NAME "the/source"

#define QUEUE_SHAPE(priorities, items, bytes, item_size, attempts)                                 \
	{                                                                                          \
		(uint64_t)(items) | (uint64_t)(priorities) << 32, bytes,                           \
			(uint64_t)(item_size) | (uint64_t)(attempts) << 32, 0                      \
	}

/* In shared memory, beside the segments. */
struct queue_scene_board {
	struct eventcount lines[2], dead_lines[2];
	_Alignas(64) _Atomic uint64_t word[512]; /* the test's own */
};

struct queue_scene {
	void *segment, *dead_segment; /* dead_segment NULL: there are no dead letters */
	uint64_t size, dead_size;
	uint64_t shape[4], dead_shape[4];
	struct liveness_table *table;
	struct queue_scene_board *board;
};

/* One handle of the queue, with its handle of the dead letters. */
struct queue_member {
	struct queue view;
	struct queue dead;
	uint64_t id;
};

static inline void queue_scene_fail(const char *what)
{
	(void)fprintf(stderr, "%s failed\n", what);
	abort();
}

static inline void queue_scene_must(bool holds, const char *what)
{
	if (!holds)
		queue_scene_fail(what);
}

static inline void *queue_scene_map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		queue_scene_fail("mmap");
	return memory;
}

/* Empty queues; no handle is open. */
static inline void queue_scene_reset(const struct queue_scene *scene)
{
	for (unsigned i = 0; i < LIVENESS_HANDLES_MAX; ++i) {
		if (atomic_load_explicit(&scene->table->handle[i], memory_order_relaxed))
			liveness_handle_set(scene->table, i, 0);
	}
	for (unsigned side = 0; side < 2; ++side)
		liveness_side_set(scene->table, QUEUE_SCENE_CHANNEL, side,
				  side_make(0, 1, SIDE_EVER));

	memset(scene->board, 0, sizeof(*scene->board));
	memset(scene->segment, 0, scene->size);
	if (queue_make(scene->segment, scene->size, scene->shape, 0) < 0)
		queue_scene_fail("queue_make");
	if (!scene->dead_segment)
		return;
	memset(scene->dead_segment, 0, scene->dead_size);
	if (queue_make(scene->dead_segment, scene->dead_size, scene->dead_shape, 0) < 0)
		queue_scene_fail("queue_make");
}

/* dead_shape NULL: no dead letters. */
static inline void queue_scene_init(struct queue_scene *scene, const uint64_t shape[4],
				    const uint64_t *dead_shape)
{
	*scene = (struct queue_scene){.size = queue_segment_size(shape)};
	queue_scene_must(scene->size > 0, "the shape of a queue");
	memcpy(scene->shape, shape, sizeof(scene->shape));
	scene->segment = queue_scene_map(scene->size);
	if (dead_shape) {
		memcpy(scene->dead_shape, dead_shape, sizeof(scene->dead_shape));
		scene->dead_size = queue_segment_size(dead_shape);
		queue_scene_must(scene->dead_size > 0, "the shape of dead letters");
		scene->dead_segment = queue_scene_map(scene->dead_size);
	}
	scene->table = queue_scene_map(sizeof(*scene->table));
	scene->board = queue_scene_map(sizeof(*scene->board));
	liveness_table_init(scene->table, 1000);
	queue_scene_reset(scene);
}

static inline void queue_scene_deinit(struct queue_scene *scene)
{
	munmap(scene->segment, scene->size);
	if (scene->dead_segment)
		munmap(scene->dead_segment, scene->dead_size);
	munmap(scene->table, sizeof(*scene->table));
	munmap(scene->board, sizeof(*scene->board));
}

/* ---- what the broker tells ---- */

static inline void queue_scene_open(const struct queue_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), id);
	id = QUEUE_SCENE_DEAD_ID(id);
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), id);
}

/* Closed, or held dead; whether its process lives is another thing. */
static inline void queue_scene_end(const struct queue_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), 0);
	liveness_handle_set(scene->table, LIVENESS_SLOT(QUEUE_SCENE_DEAD_ID(id)), 0);
	liveness_attend(scene->table, QUEUE_SCENE_CLIENT);
}

static inline void queue_scene_end_process(struct queue_segment *segment, uint32_t row)
{
	if (row < ROWS_MAX)
		atomic_store(&segment->rows.process[row], QUEUE_SCENE_NO_PROCESS);
}

/* Its process is gone as well. */
static inline void queue_scene_die(const struct queue_scene *scene,
				   const struct queue_member *member)
{
	queue_scene_end_process(scene->segment, member->view.row);
	if (scene->dead_segment)
		queue_scene_end_process(scene->dead_segment, member->dead.row);
	queue_scene_end(scene, member->id);
}

/* ---- members ---- */

static inline void queue_scene_give(const struct queue_scene *scene, struct queue *view,
				    struct eventcount *lines)
{
	view->table = scene->table;
	view->attention = &scene->table->attention[QUEUE_SCENE_CLIENT].word;
	view->channel_slot = QUEUE_SCENE_CHANNEL;
	view->generation = QUEUE_SCENE_GENERATION;
	view->process = (uint32_t)getpid();
	view->lines = lines;
	view->name = QUEUE_SCENE_NAME;
	view->row = UINT32_MAX;
}

/* The views alone, without rows. */
static inline void queue_scene_attach(const struct queue_scene *scene, struct queue_member *member,
				      uint64_t id)
{
	memset(member, 0, sizeof(*member));
	member->id = id;
	if (queue_attach(&member->view, scene->segment, scene->size, scene->shape, id) < 0)
		queue_scene_fail("queue_attach");
	queue_scene_give(scene, &member->view, scene->board->lines);
	member->dead.row = UINT32_MAX;
	if (!scene->dead_segment)
		return;

	if (queue_attach(&member->dead, scene->dead_segment, scene->dead_size, scene->dead_shape,
			 QUEUE_SCENE_DEAD_ID(id)) < 0)
		queue_scene_fail("queue_attach");
	queue_scene_give(scene, &member->dead, scene->board->dead_lines);
	member->dead.name = "the/dead";
	member->view.dead = &member->dead;
}

static inline int queue_scene_begin(struct queue_member *member)
{
	int r = 0;

	/* In a forked child it is the child's process that holds the rows. */
	member->view.process = member->dead.process = (uint32_t)getpid();
	if (member->view.dead)
		r = queue_begin(&member->dead);
	return r < 0 ? r : queue_begin(&member->view);
}

/* Opened, attached, with rows. */
static inline void queue_scene_enter(const struct queue_scene *scene, struct queue_member *member,
				     uint64_t id)
{
	queue_scene_open(scene, id);
	queue_scene_attach(scene, member, id);
	if (queue_scene_begin(member) < 0)
		queue_scene_fail("queue_begin");
}

/* An orderly close. */
static inline void queue_scene_leave(const struct queue_scene *scene, struct queue_member *member)
{
	queue_give_back(&member->view);
	queue_end(&member->view);
	if (member->view.dead) {
		queue_give_back(&member->dead);
		queue_end(&member->dead);
	}
	queue_scene_end(scene, member->id);
}

/* ---- short forms ---- */

/* Size 0 to 7: no number; else aborts if it was torn. */
static inline uint64_t queue_scene_number(const void *data, uint64_t size)
{
	uint64_t number = pattern_number(data, size);

	if (size < 8)
		return 0;
	queue_scene_must(pattern_is(data, size, number), "the bytes of an item");
	return number;
}

static inline int queue_scene_push(struct queue_member *member, unsigned priority, uint64_t number,
				   uint64_t size)
{
	unsigned char *data = malloc(size + 1);
	uint64_t due_ns = 0;
	int r = queue_check(&member->view, priority, size);

	queue_scene_must(data != NULL, "malloc");
	pattern_fill(data, size, number);
	if (r == 0)
		r = queue_push(&member->view, priority, data, size, &due_ns);
	free(data);
	return r;
}

static inline int queue_scene_push_refused(struct queue_member *member, unsigned priority,
					   uint64_t number, uint64_t size,
					   enum ipc_full_policy policy)
{
	unsigned char *data = malloc(size + 1);
	int r;

	queue_scene_must(data != NULL, "malloc");
	pattern_fill(data, size, number);
	r = queue_push_refused(&member->view, priority, data, size, policy);
	free(data);
	return r;
}

static inline int queue_scene_claim(struct queue_member *member, unsigned priority, uint64_t size,
				    void **ret_data)
{
	int r = queue_check(&member->view, priority, size);

	return r < 0 ? r : queue_claim(&member->view, priority, size, ret_data);
}

static inline int queue_scene_commit(struct queue_member *member, void *data, uint64_t size)
{
	uint64_t due_ns = 0;

	return queue_commit(&member->view, data, size, &due_ns);
}

/* The number of the item, or the (negative) result. */
static inline int64_t queue_scene_take(struct queue *view, struct ipc_queue_item *ret)
{
	int r = queue_take(view, ret);

	return r < 0 ? r : (int64_t)queue_scene_number(ret->data, ret->size);
}

static inline struct ipc_queue_state queue_scene_state(struct queue *view)
{
	struct ipc_queue_state state = {.size = sizeof(state)};

	if (queue_get_state(view, &state) < 0)
		queue_scene_fail("queue_get_state");
	return state;
}

/* 0, or what is missing (or too many) in a class, plus the class times 2^32. */
static inline int64_t queue_scene_imbalance(const struct ipc_queue_state *state)
{
	uint32_t n_leased = 0;

	for (unsigned p = 0; p < state->priorities; ++p) {
		uint64_t ended = state->acknowledged[p] + state->items[p] + state->leased[p];

		for (unsigned reason = 0; reason < IPC_DEAD_REASONS_MAX; ++reason)
			if (reason != IPC_DEAD_FULL)
				ended +=
					state->dead_lettered[p][reason] + state->dropped[p][reason];
		if (ended != state->queued[p])
			return (int64_t)(state->queued[p] - ended) + ((int64_t)p << 32);
		n_leased += (uint32_t)state->leased[p];
	}
	return n_leased == state->n_leased ? 0 : INT64_MAX;
}

/* Blocks that are in a phase now. */
static inline unsigned queue_scene_count(const struct queue *view, unsigned priority,
					 enum queue_phase phase)
{
	unsigned n = 0;

	for (uint32_t block = 0; block < view->layout.items_max; ++block)
		n += queue_word_phase(atomic_load(&view->class[priority].word[block])) == phase;
	return n;
}

#endif
