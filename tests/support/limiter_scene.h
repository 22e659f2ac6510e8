/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_LIMITER_SCENE_H
#define TESTS_SUPPORT_LIMITER_SCENE_H

/*
 * The structure of the kind `limiter` without broker and client: one mapping that the test's
 * threads share and its forked children inherit, and a liveness table that the test writes as the
 * broker does.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <ipc/error.h>

#include "libipc/channel/limiter.h"

struct limiter_scene {
	struct limiter_segment *segment;
	uint64_t size;
	uint64_t shape[4];
	struct liveness_table *table;
};

/* One handle with its first row of seats. */
struct limiter_member {
	struct limiter view;
	uint64_t id;
	uint32_t row;
};

static inline void limiter_scene_fail(const char *what)
{
	(void)fprintf(stderr, "%s failed\n", what);
	abort();
}

static inline void *limiter_scene_map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		limiter_scene_fail("mmap");
	return memory;
}

/* As the broker says that a handle is open, or is not any more: closed, or held dead. */
static inline void limiter_scene_open(const struct limiter_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), id);
}

static inline void limiter_scene_end(const struct limiter_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), 0);
}

static inline void limiter_scene_reset(const struct limiter_scene *scene)
{
	for (unsigned i = 0; i < 64; ++i)
		liveness_handle_set(scene->table, i, 0);
	if (limiter_make(scene->segment, scene->size, scene->shape, 0) < 0)
		limiter_scene_fail("limiter_make");
}

static inline void limiter_scene_init(struct limiter_scene *scene, const uint64_t shape[4])
{
	*scene = (struct limiter_scene){.size = limiter_segment_size(shape)};
	memcpy(scene->shape, shape, sizeof(scene->shape));
	scene->segment = limiter_scene_map(scene->size);
	scene->table = limiter_scene_map(sizeof(*scene->table));
	liveness_table_init(scene->table, 1000);
	limiter_scene_reset(scene);
}

static inline void limiter_scene_deinit(struct limiter_scene *scene)
{
	munmap(scene->segment, scene->size);
	munmap(scene->table, sizeof(*scene->table));
}

/* The view alone, without a row; ids below 64. */
static inline void limiter_scene_attach(const struct limiter_scene *scene,
					struct limiter_member *member, uint64_t id, uint32_t uid)
{
	member->id = id;
	member->row = UINT32_MAX;
	if (limiter_attach(&member->view, scene->segment, scene->size, scene->shape, id) < 0)
		limiter_scene_fail("limiter_attach");

	member->view.table = scene->table;
	member->view.uid = uid;
}

/* Opened, attached, with a row. */
static inline void limiter_scene_enter(const struct limiter_scene *scene,
				       struct limiter_member *member, uint64_t id, uint32_t uid)
{
	limiter_scene_open(scene, id);
	limiter_scene_attach(scene, member, id, uid);
	if (!limiter_row_take(&member->view, &member->row))
		limiter_scene_fail("limiter_row_take");
}

/* ---- short forms ---- */

/* A part by seat i of the member's row. */
static inline void limiter_scene_part(const struct limiter_member *member,
				      struct limiter_part *part, unsigned i, uint32_t permits)
{
	*part = (struct limiter_part){.seat = member->row * SEATS_PER_ROW + i, .permits = permits};
}

static inline int limiter_scene_acquire(struct limiter_member *member, struct limiter_part *part,
					unsigned i, uint32_t permits)
{
	struct limiter_denial denial;

	limiter_scene_part(member, part, i, permits);
	return limiter_acquire(&member->view, part, &denial);
}

/* 0: held at once; 1: queued. */
static inline int limiter_scene_queue(struct limiter_member *member, struct limiter_part *part,
				      unsigned i, uint32_t permits)
{
	struct limiter_denial denial;

	limiter_scene_part(member, part, i, permits);
	return limiter_queue(&member->view, part, UINT64_MAX, &denial);
}

static inline int limiter_scene_look(struct limiter_member *member, struct limiter_part *part)
{
	struct limiter_denial denial;

	return limiter_look(&member->view, part, &denial);
}

static inline struct ipc_limiter_state limiter_scene_state(struct limiter_member *member)
{
	struct ipc_limiter_state state;

	if (limiter_get_state(&member->view, &state) < 0)
		limiter_scene_fail("limiter_get_state");
	return state;
}

#endif
