/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_SHARED_SCENE_H
#define TESTS_SUPPORT_SHARED_SCENE_H

/*
 * The structure of the kind `shared` without broker and client: one mapping that the test's forked
 * children inherit.  The test plays the broker: it bumps the attention word.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libipc/channel/shared.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/futex.h"

/* In shared memory, beside the segment. */
struct shared_scene_board {
	_Alignas(64) _Atomic uint32_t attention;
	_Alignas(64) _Atomic uint32_t end; /* 0, or the opposite side's end, positive */
	_Atomic uint32_t n_asked;          /* how often a predicate was called */
	_Atomic uint32_t n_told;           /* how many sleepers got result 1 */
	struct desk_cell cell;
};

struct shared_scene {
	struct shared_segment *segment;
	struct shared_scene_board *board;
	uint64_t size;
	uint64_t shape[4];
};

/* Private to each process. */
static _Atomic uint32_t shared_scene_cancel_word, shared_scene_cancelled;

static inline void shared_scene_fail(const char *what)
{
	fprintf(stderr, "%s failed\n", what);
	abort();
}

static inline void *shared_scene_map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		shared_scene_fail("mmap");
	return memory;
}

static inline void shared_scene_reset(struct shared_scene *scene)
{
	memset(scene->board, 0, sizeof(*scene->board));
	memset(scene->segment, 0, scene->size);
	if (shared_make(scene->segment, scene->size, scene->shape, 0) < 0)
		shared_scene_fail("shared_make");
}

static inline void shared_scene_init(struct shared_scene *scene, uint64_t value_size,
				     uint64_t shape)
{
	*scene = (struct shared_scene){
		.size = shared_segment_size(value_size, shape),
		.shape = {value_size, shape},
	};
	scene->segment = shared_scene_map(scene->size);
	scene->board = shared_scene_map(sizeof(*scene->board));
	shared_scene_reset(scene);
}

static inline void shared_scene_deinit(struct shared_scene *scene)
{
	munmap(scene->segment, scene->size);
	munmap(scene->board, sizeof(*scene->board));
}

static inline struct shared shared_scene_attach(const struct shared_scene *scene,
						uint64_t handle_id)
{
	struct shared view;

	if (shared_attach(&view, scene->segment, scene->size, scene->shape, handle_id) < 0)
		shared_scene_fail("shared_attach");
	return view;
}

static inline struct waiter shared_scene_waiter(const struct shared_scene *scene,
						uint64_t deadline_ns)
{
	return (struct waiter){
		.event = &scene->segment->event,
		.attention = &scene->board->attention,
		.cancel_word = &shared_scene_cancel_word,
		.handle_cancelled = &shared_scene_cancelled,
		.client_cancelled = &shared_scene_cancelled,
		.cell = &scene->board->cell,
		.deadline_ns = deadline_ns,
	};
}

/* What the broker does when the opposite side ended. */
static inline void shared_scene_attend(const struct shared_scene *scene)
{
	atomic_fetch_add(&scene->board->attention, 1);
	futex_wake_all(&scene->board->attention);
}

static inline int shared_scene_end(void *userdata)
{
	const struct shared_scene *scene = userdata;

	return -(int)atomic_load(&scene->board->end);
}

/* The common predicate: the first word of the value is not 0. */
static inline bool shared_scene_holds(const void *value, uint64_t size, void *userdata)
{
	const struct shared_scene *scene = userdata;
	uint32_t word;

	(void)size;
	atomic_fetch_add(&scene->board->n_asked, 1);
	memcpy(&word, value, sizeof(word));
	return word != 0;
}

static inline struct shared_condition shared_scene_condition(struct shared_scene *scene)
{
	return (struct shared_condition){
		.holds = shared_scene_holds, .end = shared_scene_end, .userdata = scene};
}

#endif
