/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_FLIGHT_SCENE_H
#define TESTS_SUPPORT_FLIGHT_SCENE_H

/*
 * The structure of the kind `flight` without broker and client: one mapping that the test's threads
 * share and its forked children inherit, and a liveness table that the test writes as the broker
 * does.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <ipc/admin.h>
#include <ipc/error.h>

#include "libipc/channel/flight.h"

enum { FLIGHT_SCENE_CHANNEL = 5, FLIGHT_SCENE_LANE = 3 };

/* In shared memory, beside the segment. */
struct flight_scene_board {
	_Alignas(64) _Atomic uint64_t fence;
	_Alignas(64) _Atomic uint64_t word[8]; /* the test's own */
};

struct flight_scene {
	void *segment;
	uint64_t size;
	uint64_t shape[4];
	uint64_t flags;
	struct liveness_table *table;
	struct flight_scene_board *board;
};

/* One handle with its first row of seats. */
struct flight_member {
	struct flight view;
	uint64_t id;
	uint32_t row;
};

static inline void flight_scene_fail(const char *what)
{
	(void)fprintf(stderr, "%s failed\n", what);
	abort();
}

static inline void *flight_scene_map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		flight_scene_fail("mmap");
	return memory;
}

/* The handlers' side: how many there are, how often it ended, how it ended last. */
static inline void flight_scene_handlers(const struct flight_scene *scene, uint32_t count,
					 uint32_t ends, uint64_t flags)
{
	liveness_side_set(scene->table, FLIGHT_SCENE_CHANNEL, FLIGHT_SIDE_HANDLERS,
			  side_make(ends, count, flags));
}

/* An empty table; no handle is open; keys fall into the same chains each time. */
static inline void flight_scene_reset(const struct flight_scene *scene)
{
	for (unsigned i = 0; i < LIVENESS_HANDLES_MAX; ++i) {
		if (atomic_load(&scene->table->handle[i]))
			liveness_handle_set(scene->table, i, 0);
	}
	flight_scene_handlers(scene, 0, 0, 0);
	if (flight_make(scene->segment, scene->size, scene->shape, scene->flags) < 0)
		flight_scene_fail("flight_make");
	((struct flight_segment *)scene->segment)->seed = 77;
}

static inline void flight_scene_init(struct flight_scene *scene, const uint64_t shape[4],
				     uint64_t flags)
{
	*scene = (struct flight_scene){.size = flight_segment_size(shape), .flags = flags};
	memcpy(scene->shape, shape, sizeof(scene->shape));
	scene->segment = flight_scene_map(scene->size);
	scene->table = flight_scene_map(sizeof(*scene->table));
	scene->board = flight_scene_map(sizeof(*scene->board));
	liveness_table_init(scene->table, 1000);
	atomic_store(&scene->board->fence, 1000);
	flight_scene_reset(scene);
}

static inline void flight_scene_deinit(struct flight_scene *scene)
{
	munmap(scene->segment, scene->size);
	munmap(scene->table, sizeof(*scene->table));
	munmap(scene->board, sizeof(*scene->board));
}

/* As the broker says that a handle is open, or is not any more: closed, or held dead. */
static inline void flight_scene_open(const struct flight_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), id);
}

static inline void flight_scene_end(const struct flight_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), 0);
}

/* Its process is gone as well: no process has such a number. */
static inline void flight_scene_die(const struct flight_scene *scene,
				    const struct flight_member *member)
{
	struct flight_segment *segment = scene->segment;

	atomic_store(&segment->seats.rows.process[member->row], UINT32_C(0x7ffffff0));
	flight_scene_end(scene, member->id);
}

/* The view alone, without a row. */
static inline void flight_scene_attach(const struct flight_scene *scene,
				       struct flight_member *member, uint64_t id)
{
	member->id = id;
	member->row = UINT32_MAX;
	if (flight_attach(&member->view, scene->segment, scene->size, scene->shape, scene->flags,
			  id) < 0)
		flight_scene_fail("flight_attach");

	member->view.table = scene->table;
	member->view.channel_slot = FLIGHT_SCENE_CHANNEL;
	member->view.fence = &scene->board->fence;
	member->view.fence_lane = FLIGHT_SCENE_LANE;
}

/* Opened, attached, with a row. */
static inline void flight_scene_enter(const struct flight_scene *scene,
				      struct flight_member *member, uint64_t id)
{
	flight_scene_open(scene, id);
	flight_scene_attach(scene, member, id);
	if (!flight_row_take(&member->view, &member->row))
		flight_scene_fail("flight_row_take");
}

static inline void flight_scene_leave(const struct flight_scene *scene,
				      struct flight_member *member)
{
	flight_row_give(&member->view, member->row);
	flight_detach(&member->view);
	flight_scene_end(scene, member->id);
}

/* ---- short forms ---- */

/* A part by seat i of the member's row. */
static inline void flight_scene_part(const struct flight_member *member, struct flight_part *part,
				     unsigned i, enum flight_form form)
{
	memset(part, 0, sizeof(*part));
	part->seat = member->row * SEATS_PER_ROW + i;
	part->form = form;
}

static inline int flight_scene_join(struct flight_member *member, struct flight_part *part,
				    unsigned i, const char *key)
{
	flight_scene_part(member, part, i, FLIGHT_JOIN);
	return flight_join(&member->view, part, key, strlen(key), 0);
}

static inline int flight_scene_ask(struct flight_member *member, struct flight_part *part,
				   unsigned i, const char *key, uint32_t urgency)
{
	flight_scene_part(member, part, i, FLIGHT_ASK);
	return flight_join(&member->view, part, key, strlen(key), urgency);
}

static inline int flight_scene_ask_stay(struct flight_member *member, struct flight_part *part,
					unsigned i, const char *key, uint32_t urgency)
{
	flight_scene_part(member, part, i, FLIGHT_ASK);
	part->stays = true;
	return flight_join(&member->view, part, key, strlen(key), urgency);
}

/* Who leads and who joins are one thread of a test, and would wait for itself. */
static inline void flight_scene_as_another_thread(const struct flight_scene *scene,
						  const struct flight_part *part)
{
	struct flight_segment *segment = scene->segment;

	atomic_store(&segment->seats.seat[part->seat].thread, 1);
}

static inline int flight_scene_take(struct flight_member *member, struct flight_part *part,
				    unsigned i)
{
	flight_scene_part(member, part, i, FLIGHT_TAKEN);
	return flight_take(&member->view, part);
}

static inline int flight_scene_land(struct flight_member *member, struct flight_part *part,
				    const void *data, uint64_t size)
{
	return flight_finish(&member->view, part, atomic_load(&part->use), IPC_FAILURE_NONE, 0,
			     data, size);
}

static inline int flight_scene_fail_with(struct flight_member *member, struct flight_part *part,
					 enum ipc_failure failure, int32_t code, const char *reason)
{
	return flight_finish(&member->view, part, atomic_load(&part->use), failure, code, reason,
			     strlen(reason));
}

#endif
