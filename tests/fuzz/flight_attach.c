/* SPDX-License-Identifier: MIT */

/*
 * A flight table whose memory somebody else wrote.  The input pokes words into a table in which
 * some keys fly, then says which calls follow.  Whatever stands there, every call comes back with a
 * result of the table, and nobody touches a byte outside.
 *
 * byte 0             flags: see below
 * byte 1             number of pokes, each of 11 bytes: region, offset (2, little endian, in
 * words), value (8, little endian) the rest           calls, one a byte: which in the low 4 bits,
 * part and key in the others
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <ipc/admin.h>
#include <ipc/error.h>

#include "libipc/channel/flight.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_KEYS = 6, RESULT_SIZE = 40, KEY_SIZE = 12, ID = 7, ID_OTHER = 9, N_PARTS = 4 };

enum { NO_PROMOTE = 1, HANDLERS = 2, STAYS = 4, OTHER_DIED = 8, FOREIGN = 16, IS_EMPTY = 32 };

static struct liveness_table *table;
static _Atomic uint64_t fence = 5;

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* ---- the table ---- */

struct input {
	const uint8_t *data;
	size_t size;
};

static uint64_t input_take(struct input *input, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n && input->size > 0; ++i, ++input->data, --input->size)
		value |= (uint64_t)*input->data << (8 * i);
	return value;
}

struct region {
	uint64_t offset, size;
};

static struct region region_of(const struct flight_layout *layout, unsigned i)
{
	const uint64_t seats = offsetof(struct flight_segment, seats);
	const struct region regions[] = {
		{0, sizeof(struct channel_header)},
		{sizeof(struct channel_header), seats - sizeof(struct channel_header)},
		{seats, 64},
		{seats + offsetof(struct seats, rows.owner), 64},
		{seats + offsetof(struct seats, rows.process), 64},
		{seats + offsetof(struct seats, seat), 4 * SEATS_PER_ROW * sizeof(struct seat)},
		{layout->state, layout->bucket - layout->state},
		{layout->bucket, layout->cell - layout->bucket},
		{layout->cell, layout->key - layout->cell},
		{layout->key, layout->result - layout->key},
		{layout->result, layout->size - layout->result},
		{0, layout->size},
	};

	return regions[i % (sizeof(regions) / sizeof(regions[0]))];
}

static void poke(struct input *input, unsigned char *segment, const struct flight_layout *layout)
{
	unsigned n = (unsigned)input_take(input, 1);

	for (unsigned i = 0; i < n && input->size > 0; ++i) {
		struct region region = region_of(layout, (unsigned)input_take(input, 1));
		uint64_t word = input_take(input, 2), value = input_take(input, 8);

		if (region.size >= sizeof(value))
			memcpy(segment + region.offset + word % (region.size / 8) * 8, &value,
			       sizeof(value));
	}
}

/* ---- calls ---- */

struct scene {
	struct flight view, other;
	struct flight_part part[N_PARTS];
	bool is_taken[N_PARTS]; /* its seat is in use */
	uint32_t row;
	unsigned flags;
};

static const char *const keys[] = {"a", "bb", "twelve bytes"};

static void require_join_result(int r)
{
	require((r >= 0 && r <= 2) || r == IPC_EDEADLK || r == IPC_ENOTCONN || r == IPC_EPIPE ||
		r == IPC_EOWNERDEAD || r == IPC_ENOSPC || r == IPC_ENOMEM || r == IPC_EBADMSG ||
		r == IPC_ENOTRECOVERABLE || r == IPC_ESTALE);
}

static void require_finish_result(int r)
{
	require(r == 0 || r == IPC_EINVAL || r == IPC_ESTALE || r == IPC_EBADMSG ||
		r == IPC_ENOTRECOVERABLE);
}

static void look_at(struct scene *scene, struct flight_part *part)
{
	struct ipc_flight_result result;
	unsigned sum = 0;
	const void *key;
	size_t size;
	uint64_t number;
	int r;

	flight_get_key(&scene->view, part, &key, &size);
	require(size <= KEY_SIZE);
	for (size_t i = 0; i < size; ++i)
		sum += ((const volatile unsigned char *)key)[i];
	(void)flight_get_urgency(&scene->view, part);
	(void)flight_leader_id(&scene->view, part);
	r = flight_get_fence(&scene->view, part, &number);
	require(r == 0 || r == IPC_EINVAL || r == IPC_ESTALE);

	r = flight_get_result(&scene->view, part, &result);
	require(r == 0 || r == IPC_EAGAIN || r == IPC_EBADMSG || r == IPC_EPIPE ||
		r == IPC_EOWNERDEAD || r == IPC_ENOTRECOVERABLE || r == IPC_ESTALE);
	for (size_t i = 0; r == 0 && i < result.size; ++i)
		sum += ((const volatile unsigned char *)result.data)[i];
	(void)sum;
}

static void part_begin(struct scene *scene, unsigned i, enum flight_form form)
{
	memset(&scene->part[i], 0, sizeof(scene->part[i]));
	scene->part[i].seat = scene->row * SEATS_PER_ROW + i;
	scene->part[i].form = form;
	scene->part[i].stays = scene->flags & STAYS;
}

static void call_begin(struct scene *scene, unsigned i, const char *key, unsigned which)
{
	int r;

	if (scene->is_taken[i])
		return;

	part_begin(scene, i, which == 0 ? FLIGHT_JOIN : which == 1 ? FLIGHT_ASK : FLIGHT_TAKEN);
	if (which < 2) {
		r = flight_join(&scene->view, &scene->part[i], key, strlen(key), i);
		require_join_result(r);
	} else {
		r = flight_take(&scene->view, &scene->part[i]);
		require(r == 0 || r == IPC_EAGAIN || r == IPC_EBADMSG || r == IPC_ESTALE ||
			r == IPC_ENOTRECOVERABLE);
	}
	scene->is_taken[i] = r >= 0;
}

static void call(struct scene *scene, unsigned byte)
{
	unsigned which = byte % 16, i = byte / 16 % N_PARTS;
	struct flight_part *part = &scene->part[i];
	char text[RESULT_SIZE + 1];
	int r;

	memset(text, 't', sizeof(text));
	if (which < 6) {
		call_begin(scene, i, keys[byte / 64 % 3], which % 3);
		return;
	}
	if (which == 6) {
		require(flight_count(&scene->view) <= N_KEYS);
		(void)flight_is_takeable(&scene->view);
		return;
	}
	if (!scene->is_taken[i])
		return;

	switch (which) {
	case 7:
	case 8:
		r = flight_look(&scene->view, part);
		require(r == 0 || r == 1 || r == IPC_EAGAIN || r == IPC_EOWNERDEAD ||
			r == IPC_EPIPE || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE ||
			r == IPC_ESTALE);
		break;
	case 9:
		require_finish_result(flight_finish(&scene->view, part, 0, IPC_FAILURE_NONE, 0,
						    text, RESULT_SIZE));
		break;
	case 10:
		require_finish_result(flight_finish(&scene->view, part, 0, IPC_FAILURE_LOCAL, -1,
						    text, byte % RESULT_SIZE));
		break;
	case 11:
	case 12:
		look_at(scene, part);
		break;
	default:
		flight_leave(&scene->view, part);
		scene->is_taken[i] = false;
		break;
	}
}

static void use(struct scene *scene, struct input *input)
{
	if (!flight_row_take(&scene->view, &scene->row))
		return;

	while (input->size > 0)
		call(scene, (unsigned)input_take(input, 1));
	for (unsigned i = 0; i < N_PARTS; ++i) {
		if (scene->is_taken[i])
			flight_leave(&scene->view, &scene->part[i]);
	}
	flight_row_give(&scene->view, scene->row);
}

static bool scene_attach(struct scene *scene, struct flight *view, unsigned char *segment,
			 uint64_t size, const uint64_t shape[4], uint64_t id)
{
	if (flight_attach(view, segment, size, shape,
			  scene->flags & NO_PROMOTE ? IPC_FLIGHT_TABLE_NO_PROMOTE : 0, id) < 0)
		return false;

	view->table = table;
	view->fence = &fence;
	view->is_foreign = scene->flags & FOREIGN;
	return true;
}

/* Another handle has led a key, asked for one and landed one. */
static void populate(struct scene *scene)
{
	uint32_t row;

	require(flight_row_take(&scene->other, &row));
	for (unsigned i = 0; i < 3; ++i) {
		struct flight_part part = {.seat = row * SEATS_PER_ROW + i, .stays = true};
		int r;

		part.form = i == 1 ? FLIGHT_ASK : FLIGHT_JOIN;
		r = flight_join(&scene->other, &part, keys[i], strlen(keys[i]), 1);
		require(r == (i == 1 ? 2 : 1));
		atomic_store(&scene->other.segment->seats.seat[part.seat].thread, 1);
		if (i == 2)
			require(flight_finish(&scene->other, &part, 0, IPC_FAILURE_NONE, 0, "x",
					      1) == 0);
	}
}

static void run(struct input *input, unsigned char *segment, uint64_t size, const uint64_t shape[4],
		const struct flight_layout *layout)
{
	static struct scene scene;

	memset(&scene, 0, sizeof(scene));
	scene.flags = (unsigned)input_take(input, 1);
	liveness_side_set(table, 0, FLIGHT_SIDE_HANDLERS,
			  side_make(1, scene.flags & HANDLERS ? 1 : 0, SIDE_EVER));
	liveness_handle_set(table, ID, ID);
	liveness_handle_set(table, ID_OTHER, ID_OTHER);

	require(scene_attach(&scene, &scene.other, segment, size, shape, ID_OTHER));
	if (!(scene.flags & IS_EMPTY))
		populate(&scene);
	poke(input, segment, layout);
	if (scene.flags & OTHER_DIED)
		liveness_handle_set(table, ID_OTHER, 0);

	if (scene_attach(&scene, &scene.view, segment, size, shape, ID)) {
		use(&scene, input);
		flight_detach(&scene.view);
	}
	flight_detach(&scene.other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint64_t shape[4] = {RESULT_SIZE, N_KEYS, KEY_SIZE, 3};
	struct input input = {data, size};
	struct flight_layout layout;
	unsigned char *segment;

	if (!table) {
		table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		require(table != MAP_FAILED);
		liveness_table_init(table, 1000);
	}

	require(flight_layout(&layout, shape));
	require(layout.size % 64 == 0);
	segment = aligned_alloc(64, layout.size);
	require(segment);
	memset(segment, 0, layout.size);
	require(flight_make(segment, layout.size, shape, 0) == 0);
	((struct flight_segment *)(void *)segment)->seed = 1; /* an input is what it was */

	run(&input, segment, layout.size, shape, &layout);
	free(segment);
	return 0;
}
