/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_SESSION_SCENE_H
#define TESTS_SUPPORT_SESSION_SCENE_H

/*
 * The structure of the kind `session` without broker and client: a mapping that the test's threads
 * share and its forked children inherit, the socket pair, and a liveness table that the test writes
 * as the broker does.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/channel/session.h"
#include "libipc/platform/fdpass.h"

#include "tests/support/pattern.h"

/* No process has such a number. */
#define SESSION_SCENE_NO_PROCESS UINT32_C(0x3ffff0)

/* Of the n-th handle; a newer one has a larger n. */
#define SESSION_SCENE_ID(n) ((uint64_t)(n) << 16 | ((n)&0xfff))

#define SESSION_SHAPE(capacity, message_size_max)                                                  \
	{                                                                                          \
		capacity, message_size_max, 0, 0                                                   \
	}

/* In shared memory, beside the segment. */
struct session_scene_board {
	struct eventcount lines[2];
	_Alignas(64) _Atomic uint64_t word[512]; /* the test's own */
};

struct session_scene {
	struct channel_header *segment;
	uint64_t size, shape[4];
	struct liveness_table *table;
	struct session_scene_board *board;
	int pair[2];
};

/* A handle. */
struct session_member {
	struct session view;
	uint64_t id;
};

static inline void session_scene_must(bool holds, const char *what)
{
	if (holds)
		return;
	(void)fprintf(stderr, "%s failed\n", what);
	abort();
}

static inline void *session_scene_map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	session_scene_must(memory != MAP_FAILED, "mmap");
	return memory;
}

/* An empty session; no handle is open. */
static inline void session_scene_reset(struct session_scene *scene)
{
	for (unsigned i = 0; i < 0x1000; ++i) {
		if (atomic_load_explicit(&scene->table->handle[i], memory_order_relaxed))
			liveness_handle_set(scene->table, i, 0);
	}
	for (unsigned s = 0; s < 2; ++s)
		scene->pair[s] = fd_close(scene->pair[s]);
	session_scene_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, scene->pair) == 0,
			   "socketpair");
	memset(scene->board, 0, sizeof(*scene->board));
	memset((void *)scene->segment, 0, scene->size);
	session_scene_must(session_make(scene->segment, scene->size, scene->shape, 0) == 0,
			   "session_make");
}

static inline void session_scene_init(struct session_scene *scene, const uint64_t shape[4])
{
	*scene = (struct session_scene){.size = session_segment_size(shape), .pair = {-1, -1}};
	session_scene_must(scene->size > 0, "the shape of a session");
	memcpy(scene->shape, shape, sizeof(scene->shape));
	scene->segment = session_scene_map(scene->size);
	scene->table = session_scene_map(sizeof(*scene->table));
	scene->board = session_scene_map(sizeof(*scene->board));
	liveness_table_init(scene->table, 1000);
	session_scene_must(process_mark_init() == 0, "process_mark_init");
	session_scene_reset(scene);
}

static inline void session_scene_deinit(struct session_scene *scene)
{
	munmap(scene->segment, scene->size);
	munmap(scene->table, sizeof(*scene->table));
	munmap(scene->board, sizeof(*scene->board));
	for (unsigned s = 0; s < 2; ++s)
		scene->pair[s] = fd_close(scene->pair[s]);
}

/* ---- what the broker tells ---- */

static inline void session_scene_open(const struct session_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), id);
}

/* Closed, taken over or held dead; whether its process lives is another thing. */
static inline void session_scene_end(const struct session_scene *scene, uint64_t id)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(id), 0);
}

/* ---- members ---- */

/* The n-th handle. */
static inline void session_scene_attach(const struct session_scene *scene,
					struct session_member *member, unsigned side, unsigned n)
{
	memset((void *)member, 0, sizeof(*member));
	member->id = SESSION_SCENE_ID(n);
	session_scene_open(scene, member->id);
	session_scene_must(
		session_attach(&member->view, scene->segment, scene->size, scene->shape, side) == 0,
		"session_attach");
	member->view.table = scene->table;
	member->view.pair_fd = scene->pair[side];
	member->view.lines = scene->board->lines;
}

/* `process`: of a thread that plays one that dies, SESSION_SCENE_NO_PROCESS. */
static inline void session_scene_enter(const struct session_scene *scene,
				       struct session_member *member, unsigned side, unsigned n,
				       uint32_t process)
{
	session_scene_attach(scene, member, side, n);
	session_scene_must(session_begin(&member->view, member->id, process) == 0, "session_begin");
}

static inline void session_scene_leave(const struct session_scene *scene,
				       struct session_member *member)
{
	session_scene_end(scene, member->id);
	session_leave(&member->view);
}

/* ---- messages ---- */

/* What was filled in; 0 if it is damaged. */
static inline uint64_t session_scene_number(const void *data, uint64_t size)
{
	uint64_t number = pattern_number(data, size);

	return pattern_is(data, size, number) ? number : 0;
}

static inline int session_scene_send(struct session_member *member, uint64_t number, uint64_t size)
{
	unsigned char *bytes = malloc(size + 1);
	int r;

	session_scene_must(bytes != NULL, "malloc");
	pattern_fill(bytes, size, number);
	r = session_send(&member->view, bytes, size);
	free(bytes);
	return r;
}

static inline int session_scene_send_fd(struct session_member *member, int fd, uint64_t number,
					uint64_t size)
{
	unsigned char *bytes = malloc(size + 1);
	int r;

	session_scene_must(bytes != NULL, "malloc");
	pattern_fill(bytes, size, number);
	r = session_send_fd(&member->view, fd, bytes, size);
	free(bytes);
	return r;
}

static inline int session_scene_receive(struct session_member *member,
					struct ipc_session_message *ret)
{
	return session_receive_many(&member->view, ret, 1);
}

static inline struct ipc_session_state session_scene_state(struct session_member *member)
{
	struct ipc_session_state state = {.size = sizeof(state)};

	session_scene_must(session_get_state(&member->view, &state) == 0, "session_get_state");
	return state;
}

#endif
