/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_INBOX_SCENE_H
#define TESTS_SUPPORT_INBOX_SCENE_H

/*
 * The structure of the kind `inbox` without broker and client: a mapping that the test's threads
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

#include "libipc/channel/inbox.h"
#include "libipc/platform/fdpass.h"

#include "tests/support/pattern.h"

/* Of the n-th handle; a newer one has a larger n. */
#define INBOX_SCENE_ID(n) ((uint64_t)(n) << 16 | ((n)&0xfff))

#define INBOX_SHAPE(capacity, frame_size_max, full)                                                \
	{                                                                                          \
		capacity, frame_size_max, full, 0                                                  \
	}

/* In shared memory, beside the segment. */
struct inbox_scene_board {
	struct eventcount lines[2];
	_Alignas(64) _Atomic uint64_t word[512]; /* the test's own */
};

struct inbox_scene {
	struct channel_header *segment;
	uint64_t size, shape[4];
	struct liveness_table *table;
	struct inbox_scene_board *board;
	int pair[2];
};

static inline void inbox_scene_must(bool holds, const char *what)
{
	if (holds)
		return;
	(void)fprintf(stderr, "%s failed\n", what);
	abort();
}

static inline void *inbox_scene_map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	inbox_scene_must(memory != MAP_FAILED, "mmap");
	return memory;
}

static inline struct inbox_shared *inbox_scene_shared(const struct inbox_scene *scene)
{
	return (struct inbox_shared *)((char *)scene->segment + INBOX_SHARED_OFFSET);
}

/* An empty inbox; no handle is open. */
static inline void inbox_scene_reset(struct inbox_scene *scene)
{
	for (unsigned i = 0; i < 0x1000; ++i) {
		if (atomic_load_explicit(&scene->table->handle[i], memory_order_relaxed))
			liveness_handle_set(scene->table, i, 0);
	}
	for (unsigned s = 0; s < 2; ++s)
		scene->pair[s] = fd_close(scene->pair[s]);
	inbox_scene_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, scene->pair) == 0,
			 "socketpair");
	memset(scene->board, 0, sizeof(*scene->board));
	memset((void *)scene->segment, 0, scene->size);
	inbox_scene_must(inbox_make(scene->segment, scene->size, scene->shape, 0) == 0,
			 "inbox_make");
}

static inline void inbox_scene_init(struct inbox_scene *scene, const uint64_t shape[4])
{
	*scene = (struct inbox_scene){.size = inbox_segment_size(shape), .pair = {-1, -1}};
	inbox_scene_must(scene->size > 0, "the shape of an inbox");
	memcpy(scene->shape, shape, sizeof(scene->shape));
	scene->segment = inbox_scene_map(scene->size);
	scene->table = inbox_scene_map(sizeof(*scene->table));
	scene->board = inbox_scene_map(sizeof(*scene->board));
	liveness_table_init(scene->table, 1000);
	inbox_scene_must(process_mark_init() == 0, "process_mark_init");
	inbox_scene_reset(scene);
}

static inline void inbox_scene_deinit(struct inbox_scene *scene)
{
	munmap(scene->segment, scene->size);
	munmap(scene->table, sizeof(*scene->table));
	munmap(scene->board, sizeof(*scene->board));
	for (unsigned s = 0; s < 2; ++s)
		scene->pair[s] = fd_close(scene->pair[s]);
}

/* Nobody has an end, and nothing was sent: the stream goes on at this position. */
static inline void inbox_scene_move(const struct inbox_scene *scene, uint64_t position,
				    uint64_t tag)
{
	struct ring *ring = &inbox_scene_shared(scene)->ring;
	uint64_t word = ring_word(tag, 0, position);
	struct ring_view view;

	inbox_scene_must(
		ring_attach(&view, ring,
			    (char *)inbox_scene_shared(scene) + sizeof(struct inbox_shared),
			    scene->shape[0], scene->shape[0] / 4) == 0,
		"ring_attach");
	atomic_store(&ring_at(&view, position)->what, 0);
	atomic_store(&ring_at(&view, position)->number, 0);
	atomic_store(&ring->received[0], word);
	atomic_store(&ring->received[1], word);
	atomic_store(&ring->limit[0], word);
	atomic_store(&ring->limit[1], word);
	atomic_store(&ring->teller, tag);
	atomic_store(&ring->tail, word);
	atomic_store(&ring->head, word);
}

/* ---- members ---- */

static inline void inbox_scene_attach(const struct inbox_scene *scene, struct inbox *inbox,
				      unsigned side, unsigned n)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(INBOX_SCENE_ID(n)), INBOX_SCENE_ID(n));
	inbox_scene_must(inbox_attach(inbox, scene->segment, scene->size, scene->shape) == 0,
			 "inbox_attach");
	inbox->table = scene->table;
	inbox->pair_fd = scene->pair[side];
	inbox->lines = scene->board->lines;
}

/* The n-th handle.  `process`: 0 for one whose end is known by its handle alone. */
static inline int inbox_scene_try_sender(const struct inbox_scene *scene,
					 struct inbox_sender *sender, unsigned n, uint32_t process)
{
	memset((void *)sender, 0, sizeof(*sender));
	inbox_scene_attach(scene, &sender->inbox, INBOX_SIDE_SENDER, n);
	return inbox_begin_sender(sender, INBOX_SCENE_ID(n), process);
}

static inline int inbox_scene_try_receiver(const struct inbox_scene *scene,
					   struct inbox_receiver *receiver, unsigned n,
					   uint32_t process)
{
	memset((void *)receiver, 0, sizeof(*receiver));
	inbox_scene_attach(scene, &receiver->inbox, INBOX_SIDE_RECEIVER, n);
	return inbox_begin_receiver(receiver, INBOX_SCENE_ID(n), process);
}

static inline void inbox_scene_send(const struct inbox_scene *scene, struct inbox_sender *sender,
				    unsigned n)
{
	int r = inbox_scene_try_sender(scene, sender, n, 0);

	if (r < 0)
		(void)fprintf(stderr, "inbox_begin_sender: %d\n", r);
	inbox_scene_must(r == 0, "inbox_begin_sender");
}

static inline void inbox_scene_receive(const struct inbox_scene *scene,
				       struct inbox_receiver *receiver, unsigned n)
{
	int r = inbox_scene_try_receiver(scene, receiver, n, 0);

	if (r < 0)
		(void)fprintf(stderr, "inbox_begin_receiver: %d\n", r);
	inbox_scene_must(r == 0, "inbox_begin_receiver");
}

/* The n-th handle is over; its process, if it had one, may live. */
static inline void inbox_scene_end(const struct inbox_scene *scene, unsigned n)
{
	liveness_handle_set(scene->table, LIVENESS_SLOT(INBOX_SCENE_ID(n)), 0);
}

/* ---- bytes ---- */

/* What was filled in; UINT64_MAX - 1 if it is damaged. */
static inline uint64_t inbox_scene_number(const void *data, uint64_t size)
{
	uint64_t number = pattern_number(data, size);

	return pattern_is(data, size, number) ? number : UINT64_MAX - 1;
}

static inline struct ipc_inbox_positions inbox_scene_positions(const struct inbox *inbox)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};

	inbox_scene_must(inbox_get_positions(inbox, &positions) == 0, "inbox_get_positions");
	return positions;
}

#endif
