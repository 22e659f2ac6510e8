/* SPDX-License-Identifier: MIT */

/*
 * A queue, and its dead letters, whose memory somebody else wrote.  The input pokes words into
 * queues in which some items wait, are leased, claimed and dead, then says which calls follow.
 * Whatever stands there, every call comes back with a result of the table, and nobody touches a
 * byte outside.
 *
 * byte 0     flags: see below
 * byte 1     number of pokes, each of 11 bytes: region, offset (2, little endian, in words),
 *            value (8, little endian)
 * the rest   calls, one a byte: which in the low 4 bits, more about it in the others
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/channel/queue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_ITEMS = 5, ITEM_SIZE = 120, N_BYTES = 400, ID = 7, ID_OTHER = 9, ID_DEAD = 100 };
enum { N_REGIONS = 10, N_KEPT = 4 };

enum { OTHER_DIED = 1, OTHER_IS_GONE = 2, IS_EMPTY = 4, NO_DEAD_LETTERS = 8, IS_SHUT = 16 };

static struct liveness_table *table;
static struct eventcount lines[2][2];

/* A queue with its memory, or the dead letters. */
struct place {
	uint64_t shape[4];
	uint64_t size;
	void *segment;
	struct eventcount *lines;
	struct queue_layout layout;
};

struct party {
	struct queue view, dead;
};

static struct place queue, dead;

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* ---- input ---- */

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

static struct region region_of(const struct queue_layout *layout, unsigned i)
{
	const uint64_t rows = offsetof(struct queue_segment, rows);
	const uint64_t class = offsetof(struct queue_segment, class);
	const uint64_t part = layout->first_class;
	const struct region regions[N_REGIONS] = {
		{0, sizeof(struct channel_header)},
		{sizeof(struct channel_header), rows - sizeof(struct channel_header)},
		{rows, 64 + 4 * 8},
		{rows + offsetof(struct rows, process), 16},
		{class, layout->n_classes * sizeof(struct queue_class)},
		{class, 256},
		{part + layout->words, layout->items_max * 8},
		{part + layout->entries, layout->ring_size * 8},
		{part + layout->blocks, layout->class_size - layout->blocks},
		{0, layout->size},
	};

	return regions[i % N_REGIONS];
}

static void poke(struct input *input)
{
	unsigned n = (unsigned)input_take(input, 1);

	for (unsigned i = 0; i < n && input->size > 0; ++i) {
		unsigned which = (unsigned)input_take(input, 1);
		uint64_t word = input_take(input, 2), value = input_take(input, 8);
		struct place *place = which / N_REGIONS % 2 ? &dead : &queue;
		struct region region = region_of(&place->layout, which % N_REGIONS);

		memcpy((unsigned char *)place->segment + region.offset +
			       word % (region.size / 8) * 8,
		       &value, sizeof(value));
	}
}

/* ---- views ---- */

static int place_attach(struct place *place, struct queue *ret, uint64_t id)
{
	int r = queue_attach(ret, place->segment, place->size, place->shape, id);

	if (r < 0)
		return r;
	liveness_handle_set(table, LIVENESS_SLOT(id), id);
	ret->table = table;
	ret->attention = &table->attention[1].word;
	ret->process = (uint32_t)getpid();
	ret->lines = place->lines;
	ret->name = "source";
	return 0;
}

static bool party_attach(struct party *party, unsigned flags, uint64_t id)
{
	memset(party, 0, sizeof(*party));
	if (place_attach(&queue, &party->view, id) < 0)
		return false;
	if (flags & NO_DEAD_LETTERS)
		return true;
	if (place_attach(&dead, &party->dead, id + ID_DEAD) < 0)
		return false;
	party->view.dead = &party->dead;
	return true;
}

static bool party_begin(struct party *party)
{
	int r = party->view.dead ? queue_begin(&party->dead) : 0;

	require(r == 0 || r == IPC_ENOSPC || r == IPC_ESTALE);
	if (r < 0)
		return false;
	r = queue_begin(&party->view);
	require(r == 0 || r == IPC_ENOSPC || r == IPC_ESTALE);
	return r == 0;
}

/* ---- calls ---- */

struct scene {
	struct party party;
	struct ipc_queue_item item[N_KEPT], letter;
	void *claim[N_KEPT];
	uint64_t claimed[N_KEPT];
};

static void require_result(int r)
{
	require(r == 0 || r == IPC_EAGAIN || r == IPC_EPIPE || r == IPC_EINVAL || r == IPC_ESTALE ||
		r == IPC_EMSGSIZE || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE);
}

static void read_item(const struct ipc_queue_item *item, uint64_t size_max)
{
	unsigned sum = 0;

	require(item->size <= size_max + 64); /* rounded */
	require(item->priority < 2);
	for (size_t i = 0; i < item->size; ++i)
		sum += ((const volatile unsigned char *)item->data)[i];
	if (item->source)
		require(strlen(item->source) < QUEUE_NAME_SIZE);
	(void)sum;
}

static void call_take(struct queue *view, struct ipc_queue_item *ret, uint64_t size_max)
{
	struct ipc_queue_item item;
	int r = queue_take(view, &item);

	require_result(r);
	if (r < 0)
		return;
	read_item(&item, size_max);
	*ret = item;
}

static void call_claim(struct scene *scene, unsigned more)
{
	struct queue *view = &scene->party.view;
	unsigned i = more % N_KEPT;
	uint64_t size = more * 9u % (ITEM_SIZE + 1), due_ns;

	if (scene->claim[i]) {
		require_result(
			more & 8 ? queue_abort(view, scene->claim[i])
				 : queue_commit(view, scene->claim[i], scene->claimed[i], &due_ns));
		scene->claim[i] = NULL;
		return;
	}
	if (queue_claim(view, more / 4 % 2, size, &scene->claim[i]) < 0) {
		scene->claim[i] = NULL;
		return;
	}
	memset(scene->claim[i], 'c', size);
	scene->claimed[i] = size;
}

static void call_state(struct scene *scene)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	int r = queue_get_state(&scene->party.view, &state);

	require_result(r);
	if (r < 0)
		return;
	require(state.priorities == 2 && state.n_leased <= 2 * N_ITEMS);
	for (unsigned p = 0; p < 2; ++p)
		require(state.items[p] + state.leased[p] <= N_ITEMS);
}

static void call(struct scene *scene, unsigned byte)
{
	static const unsigned char bytes[ITEM_SIZE];
	struct queue *view = &scene->party.view;
	unsigned which = byte % 16, more = byte / 16;
	uint64_t due_ns, lease = scene->item[more % N_KEPT].lease;

	switch (which) {
	case 0:
	case 1:
		require_result(queue_push(view, more % 2, bytes, more * 8, &due_ns));
		break;
	case 2:
	case 3:
		call_claim(scene, more);
		break;
	case 4:
	case 5:
	case 6:
		call_take(view, &scene->item[more % N_KEPT], ITEM_SIZE);
		break;
	case 7:
		require_result(queue_ack(view, lease));
		break;
	case 8:
		require_result(queue_requeue(view, lease));
		break;
	case 9:
		require_result(queue_reject(view, lease));
		break;
	case 10:
		require(queue_push_refused(view, more % 2, bytes, more * 8, IPC_FULL_DEAD_LETTER) >
			0);
		break;
	case 11:
		if (view->dead)
			call_take(view->dead, &scene->letter, ITEM_SIZE);
		break;
	case 12:
		if (view->dead)
			require_result(queue_ack(view->dead, scene->letter.lease));
		break;
	case 13:
		call_state(scene);
		break;
	case 14:
		require_result(queue_probe_item(view));
		require_result(queue_probe_room(view, &due_ns));
		break;
	default:
		if (more == 0)
			require_result(queue_shutdown(view));
		else if (more == 1)
			queue_abandon(view);
		else if (more == 2)
			queue_give_back(view);
		else
			liveness_attend(table, 1);
		break;
	}
}

static void use(struct input *input, unsigned flags)
{
	static struct scene scene;

	memset(&scene, 0, sizeof(scene));
	if (!party_attach(&scene.party, flags, ID) || !party_begin(&scene.party))
		return;

	while (input->size > 0)
		call(&scene, (unsigned)input_take(input, 1));
	queue_give_back(&scene.party.view);
	queue_end(&scene.party.view);
	if (scene.party.view.dead)
		queue_end(&scene.party.dead);
}

/* ---- what every input begins with ---- */

/* Some wait, one came back, one is leased, one claimed, one dead. */
static void populate(struct party *party)
{
	static const unsigned char bytes[ITEM_SIZE] = "bytes";
	struct queue *view = &party->view;
	struct ipc_queue_item item;
	uint64_t due_ns;
	void *data;

	for (unsigned i = 0; i < 4; ++i)
		require(queue_push(view, i == 3, bytes, i * 20, &due_ns) == 0);
	require(queue_take(view, &item) == 0 && queue_requeue(view, item.lease) == 0);
	require(queue_claim(view, 0, 50, &data) == 0);
	require(queue_push_refused(view, 0, bytes, 30, IPC_FULL_DEAD_LETTER) > 0);
	require(queue_take(view, &item) == 0);
}

static void run(struct input *input)
{
	static struct party other;
	unsigned flags = (unsigned)input_take(input, 1);

	require(party_attach(&other, flags, ID_OTHER) && party_begin(&other));
	if (!(flags & IS_EMPTY))
		populate(&other);
	if (flags & IS_SHUT)
		require(queue_shutdown(&other.view) == 0);
	poke(input);
	if (flags & OTHER_DIED) {
		liveness_handle_set(table, LIVENESS_SLOT(ID_OTHER), 0);
		liveness_handle_set(table, LIVENESS_SLOT(ID_OTHER + ID_DEAD), 0);
		liveness_attend(table, 1);
	}
	if (flags & OTHER_IS_GONE)
		atomic_store(&((struct queue_segment *)queue.segment)->rows.process[0], 0);
	use(input, flags);
}

static void place_make(struct place *place, uint64_t n_classes, struct eventcount *its_lines)
{
	place->shape[0] = N_ITEMS | n_classes << 32;
	place->shape[1] = N_BYTES;
	place->shape[2] = ITEM_SIZE | UINT64_C(2) << 32;
	place->lines = its_lines;
	require(queue_layout(&place->layout, place->shape));
	place->size = place->layout.size;
	place->segment = aligned_alloc(64, (place->size + 63) / 64 * 64);
	require(place->segment != NULL);
	memset(place->segment, 0, place->size);
	require(queue_make(place->segment, place->size, place->shape, 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};

	if (!table) {
		table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		require(table != MAP_FAILED);
		liveness_table_init(table, 1000);
	}
	place_make(&queue, 2, lines[0]);
	place_make(&dead, 1, lines[1]);

	run(&input);
	free(queue.segment);
	free(dead.segment);
	return 0;
}
