/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `queue` in memory that a member wrote over: every call comes back with
 * a result, within bounds of time, also while it is being written over.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/process.h"
#include "tests/support/queue_scene.h"

enum { N_ITEMS = 20, ITEM_SIZE = 300, N_BYTES = 3000, N_KEPT = 8, LIMIT_MS = 30000 };

static struct queue_scene scene;
static struct queue_member a, other;
static struct ipc_queue_item items[N_KEPT];
static void *claims[N_KEPT];

static void setup(void)
{
	const uint64_t shape[4] = QUEUE_SHAPE(2, N_ITEMS, N_BYTES, ITEM_SIZE, 3);
	const uint64_t dead[4] = QUEUE_SHAPE(1, 4, 1000, ITEM_SIZE, 3);

	queue_scene_init(&scene, shape, dead);
}

static void teardown(void)
{
	queue_scene_deinit(&scene);
}

static uint64_t random_word(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static bool is_known(int r)
{
	switch (r) {
	case 0:
	case IPC_EAGAIN:
	case IPC_EPIPE:
	case IPC_EINVAL:
	case IPC_ESTALE:
	case IPC_EMSGSIZE:
	case IPC_EBADMSG:
	case IPC_ENOTRECOVERABLE:
		return true;
	default:
		return false;
	}
}

static void read_all(const struct ipc_queue_item *item)
{
	unsigned sum = 0;

	cr_assert_leq(item->size, ITEM_SIZE + 64);
	for (size_t i = 0; i < item->size; ++i)
		sum += ((const volatile unsigned char *)item->data)[i];
	if (item->source)
		cr_assert_lt(strnlen(item->source, QUEUE_NAME_SIZE), QUEUE_NAME_SIZE);
	(void)sum;
}

static int take(struct queue *view, struct ipc_queue_item *ret)
{
	struct ipc_queue_item item;
	int r = queue_take(view, &item);

	if (r == 0) {
		read_all(&item);
		*ret = item;
	}
	return r;
}

static int call_once(unsigned which, uint64_t word)
{
	static const unsigned char bytes[ITEM_SIZE];
	struct ipc_queue_state state = {.size = sizeof(state)};
	unsigned i = (unsigned)(word >> 8) % N_KEPT;
	uint64_t size = (word >> 16) % (ITEM_SIZE + 1), due_ns;

	switch (which) {
	case 0:
		return queue_push(&a.view, i % 2, bytes, size, &due_ns);
	case 1:
		return queue_claim(&a.view, i % 2, size, &claims[i]);
	case 2:
		return queue_commit(&a.view, claims[i], size, &due_ns);
	case 3:
		return queue_abort(&a.view, claims[i]);
	case 4:
	case 5:
		return take(&a.view, &items[i]);
	case 6:
		return queue_ack(&a.view, items[i].lease);
	case 7:
		return queue_requeue(&a.view, items[i].lease);
	case 8:
		return queue_reject(&a.view, items[i].lease);
	case 9:
		return queue_push_refused(&a.view, i % 2, bytes, size, IPC_FULL_DEAD_LETTER) > 0
			       ? 0
			       : IPC_ENOMEM;
	case 10:
		return take(&a.dead, &items[i]);
	case 11:
		return queue_probe_item(&a.view);
	case 12:
		return queue_probe_room(&a.view, &due_ns);
	case 13:
		return queue_get_state(&a.view, &state);
	case 14:
		liveness_attend(scene.table, QUEUE_SCENE_CLIENT);
		return queue_ack(&a.dead, items[i].lease);
	default:
		if (i == 0)
			return queue_shutdown(&a.view);
		if (i == 1)
			queue_abandon(&a.view);
		if (i == 2)
			queue_give_back(&a.view);
		return 0;
	}
}

/* Calls of all kinds, each within the limit. */
static void use(uint64_t *random, unsigned n_calls)
{
	for (unsigned i = 0; i < n_calls; ++i) {
		struct timespec limit = process_deadline(LIMIT_MS);
		uint64_t word = random_word(random);
		unsigned which = i < 16 ? i : (unsigned)(word % 16);
		int r = call_once(which, word);

		cr_assert(is_known(r), "call %u: %d", which, r);
		cr_assert(!process_has_passed(&limit), "call %u takes more than 30 s", which);
	}
}

static bool enter(void)
{
	memset(items, 0, sizeof(items));
	memset(claims, 0, sizeof(claims));
	queue_scene_open(&scene, 11);
	queue_scene_attach(&scene, &a, 11);
	return queue_scene_begin(&a) == 0;
}

static void leave(void)
{
	struct timespec limit = process_deadline(LIMIT_MS);

	queue_scene_leave(&scene, &a);
	cr_assert(!process_has_passed(&limit), "to leave takes more than 30 s");
}

static void with_random_bytes(uint64_t seed, uint64_t mask)
{
	uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	queue_scene_reset(&scene);
	for (unsigned which = 0; which < 2; ++which) {
		uint64_t *words = which ? scene.dead_segment : scene.segment;
		uint64_t size = which ? scene.dead_size : scene.size;

		for (uint64_t i = sizeof(struct channel_header) / 8; i < size / 8; ++i)
			words[i] = random_word(&random) & mask;
	}
	if (!enter())
		return;
	use(&random, 200);
	leave();
}

/* M-60 */
Test(queue_hostile, random_bytes_everywhere_end_no_call_badly, .init = setup, .fini = teardown,
     .timeout = 100)
{
	for (uint64_t seed = 1; seed <= 8; ++seed) {
		with_random_bytes(seed, UINT64_MAX);
		with_random_bytes(seed, UINT64_C(0x3f3f));
		with_random_bytes(seed, 7);
		with_random_bytes(seed, UINT64_C(0xffffffff) << 3 | 1);
		with_random_bytes(seed, UINT64_C(3) << 38 | 3);
	}
}

/* A place in a queue where it matters. */
static _Atomic uint64_t *place(uint64_t *random)
{
	const struct queue *view = random_word(random) % 3 ? &other.view : &other.dead;
	const struct queue_class_view *class =
		&view->class[random_word(random) % view->layout.n_classes];
	uint64_t *shared = (uint64_t *)class->shared;
	uint64_t at = random_word(random);

	switch (at % 5) {
	case 0:
		return &class->word[(at >> 8) % view->layout.items_max];
	case 1:
		return &class->ring.entry[(at >> 8) % view->layout.ring_size];
	case 2:
		return (_Atomic uint64_t *)&shared[(at >> 8) % (sizeof(*class->shared) / 8)];
	case 3:
		return (_Atomic uint64_t *)(void *)(class->blocks + (at >> 8) % 64 * 64 +
						    (at >> 16) % 8 * 8);
	default:
		return (_Atomic uint64_t *)&view->segment->fairness + (at >> 8) % 16;
	}
}

static void write_over(uint64_t *random)
{
	_Atomic uint64_t *at = place(random);
	uint64_t value = random_word(random) >> random_word(random) % 64;

	switch (random_word(random) % 4) {
	case 0: /* another phase, or one more */
		value = atomic_load(at) ^ (1u << random_word(random) % 4);
		break;
	case 1: /* what stands elsewhere */
		value = atomic_load(place(random));
		break;
	default:
		break;
	}
	atomic_store(at, value);
}

/* Items in every stand. */
static void populate(void)
{
	struct ipc_queue_item item;
	void *data;

	queue_scene_reset(&scene);
	queue_scene_enter(&scene, &other, 12);
	for (uint64_t i = 0; i < 8; ++i)
		(void)!queue_scene_push(&other, i % 2, i, 30 * i);
	for (unsigned i = 0; i < 3; ++i) {
		(void)!queue_scene_claim(&other, i % 2, 40, &data);
		(void)!queue_take(&other.view, &item);
		if (i == 1)
			(void)!queue_requeue(&other.view, item.lease);
		if (i == 2)
			(void)!queue_reject(&other.view, item.lease);
	}
}

/* M-60 */
Test(queue_hostile, random_words_in_a_living_queue_end_no_call_badly, .init = setup,
     .fini = teardown, .timeout = 100)
{
	for (uint64_t seed = 1; seed <= 600; ++seed) {
		uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

		populate();
		for (unsigned i = 0; i < seed % 12 + 1; ++i)
			write_over(&random);
		if (seed % 3 == 0)
			queue_scene_end(&scene, 12);
		if (seed % 3 == 1)
			queue_scene_die(&scene, &other);
		if (!enter())
			continue;
		use(&random, 60);
		leave();
	}
}

/* ---- while calls run ---- */

static _Atomic bool is_done;

static void *vandal(void *arg)
{
	uint64_t random = (uintptr_t)arg;

	while (!atomic_load(&is_done))
		for (unsigned i = 0; i < 16; ++i)
			write_over(&random);
	return NULL;
}

/* M-60 */
Test(queue_hostile, writing_over_it_while_calls_run_ends_none_badly, .init = setup,
     .fini = teardown, .timeout = 100)
{
	for (uint64_t seed = 1; seed <= 12; ++seed) {
		uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
		struct timespec limit = process_deadline(LIMIT_MS);
		pthread_t thread;

		populate();
		if (!enter())
			continue;
		atomic_store(&is_done, false);
		cr_assert_eq(pthread_create(&thread, NULL, vandal, (void *)(uintptr_t)seed), 0);
		for (unsigned i = 0; i < 50 && !process_has_passed(&limit); ++i) {
			use(&random, 40);
			atomic_store(&a.view.segment->header.broken, 0);
			atomic_store(&a.dead.segment->header.broken, 0);
			atomic_store(&a.view.segment->header.is_shut_down, 0);
		}
		atomic_store(&is_done, true);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		leave();
	}
}

/* ---- what cannot be is told ---- */

/* M-60 */
Test(queue_hostile, size_that_no_block_has_breaks_the_queue, .init = setup, .fini = teardown)
{
	struct ipc_queue_item item;
	const struct queue_group *last;

	queue_scene_enter(&scene, &a, 11);
	last = &a.view.layout.group[a.view.layout.n_groups - 1];
	cr_assert_eq(queue_scene_push(&a, 0, 1, 20), 0);
	for (uint32_t i = 0; i < last->n; ++i) {
		struct queue_block *block =
			(struct queue_block *)(void *)(a.view.class[0].blocks + last->distance +
						       i * last->stride);

		atomic_store(&block->size, UINT64_MAX);
	}
	cr_expect_eq(queue_take(&a.view, &item), IPC_EBADMSG);
	cr_expect_eq(queue_take(&a.view, &item), IPC_EBADMSG, "for good");
	cr_expect_eq(queue_scene_push(&a, 0, 1, 20), IPC_EBADMSG);
}

/* M-60 */
Test(queue_hostile, ring_that_cannot_be_breaks_the_queue, .init = setup, .fini = teardown)
{
	struct ipc_queue_item item;

	queue_scene_enter(&scene, &a, 11);
	for (uint64_t i = 0; i < a.view.layout.ring_size; ++i)
		atomic_store(&a.view.class[0].ring.entry[i], UINT64_C(0x3ffff00) << 38);
	cr_expect_eq(queue_take(&a.view, &item), IPC_EBADMSG);
	cr_expect_eq(queue_scene_push(&a, 1, 1, 20), IPC_EBADMSG);
}
