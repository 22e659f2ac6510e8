/* SPDX-License-Identifier: MIT */
/*
 * The kind `queue` as threads on one mapping, for the thread sanitizer: each thread has a view of
 * its own, as each process has.  Some push and claim, some take, requeue and reject, one reads the
 * dead letters, one dies again and again with what it holds.  Prints nothing and ends with 0 if
 * each item had one end, came in order, and never twice with the same attempt, and the counts are
 * exact.
 */
#include "libipc/channel/queue.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "tests/support/queue_scene.h"

enum { N_PRODUCERS = 2, N_CONSUMERS = 2, N_ITEMS_EACH = 12000, N_DEATHS = 600 };
enum { ROOM_ITEMS = 12, ROOM_BYTES = 4096, SIZE_LARGEST = 900, N_ATTEMPTS = 4, N_CLASSES = 2 };

static struct queue_scene scene;
static _Atomic uint32_t n_producing;

/* Relaxed, all of it: the test must not order what the library does not. */
static _Atomic uint32_t ends[N_PRODUCERS * N_ITEMS_EACH], attempts[N_PRODUCERS * N_ITEMS_EACH];
static _Atomic uint64_t n_acknowledged, n_dead, n_refused;

static void must(bool holds, const char *what)
{
	queue_scene_must(holds, what);
}

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- producers ---- */

static int push_claimed(struct queue_member *member, unsigned priority, uint64_t number,
			uint64_t size, unsigned *seed)
{
	void *data;
	int r = queue_scene_claim(member, priority, size, &data);

	if (r < 0)
		return r;
	if (rand_r(seed) % 5 == 0) {
		must(queue_abort(&member->view, data) == 0, "abort");
		return IPC_EAGAIN;
	}
	if (rand_r(seed) % 3 == 0)
		size = 8 + size / 2;
	pattern_fill(data, size, number);
	return queue_scene_commit(member, data, size);
}

static void *producer(void *arg)
{
	static struct queue_member members[N_PRODUCERS];
	uintptr_t who = (uintptr_t)arg;
	struct queue_member *member = &members[who];
	unsigned seed = (unsigned)who;

	queue_scene_enter(&scene, member, 20 + who);
	for (uint64_t i = 1; i <= N_ITEMS_EACH;) {
		uint64_t number = who << 32 | i;
		uint64_t size = 16 + (uint64_t)rand_r(&seed) % (SIZE_LARGEST - 16);
		unsigned priority = i % 3 == 0;
		int r = rand_r(&seed) % 2 ? queue_scene_push(member, priority, number, size)
					  : push_claimed(member, priority, number, size, &seed);

		must(r == 0 || r == IPC_EAGAIN, "push");
		if (r == 0) {
			++i;
			continue;
		}
		count(&n_refused);
		(void)sched_yield();
	}
	queue_scene_leave(&scene, member);
	atomic_fetch_sub(&n_producing, 1);
	return NULL;
}

/* ---- consumers ---- */

static uint64_t place_of(const struct ipc_queue_item *item)
{
	uint64_t number = queue_scene_number(item->data, item->size);

	must(number >> 32 < N_PRODUCERS && (uint32_t)number - 1 < N_ITEMS_EACH,
	     "an item of nobody");
	return (number >> 32) * N_ITEMS_EACH + (uint32_t)number - 1;
}

static void saw(const struct ipc_queue_item *item)
{
	uint32_t before = atomic_exchange_explicit(&attempts[place_of(item)], item->attempt,
						   memory_order_relaxed);

	must(before < item->attempt, "an item came twice with one attempt");
	must(item->attempt <= N_ATTEMPTS, "an item came too often");
}

static void ended(const struct ipc_queue_item *item)
{
	must(atomic_fetch_add_explicit(&ends[place_of(item)], 1, memory_order_relaxed) == 0,
	     "an item has two ends");
}

/* What each one sees of a producer's class the first time grows. */
static void expect_order(const struct ipc_queue_item *item, uint64_t last[N_PRODUCERS][N_CLASSES])
{
	uint64_t number = queue_scene_number(item->data, item->size);
	uint64_t *before = &last[number >> 32][item->priority];

	if (item->attempt > 1)
		return;
	must(number > *before, "an item came before an earlier one");
	*before = number;
}

static void end_lease(struct queue_member *member, const struct ipc_queue_item *item,
		      unsigned *seed)
{
	switch (rand_r(seed) % 8) {
	case 0:
		must(queue_reject(&member->view, item->lease) == 0, "reject");
		break;
	case 1:
	case 2:
		must(queue_requeue(&member->view, item->lease) == 0, "requeue");
		break;
	default:
		ended(item);
		must(queue_ack(&member->view, item->lease) == 0, "ack");
		must(queue_ack(&member->view, item->lease) == IPC_ESTALE, "a second ack");
		count(&n_acknowledged);
	}
}

static bool is_over(struct queue_member *member)
{
	struct ipc_queue_state state;

	if (atomic_load(&n_producing) > 0)
		return false;
	state = queue_scene_state(&member->view);
	return state.items[0] + state.items[1] + state.n_leased == 0;
}

static void *consumer(void *arg)
{
	static struct queue_member members[N_CONSUMERS];
	uintptr_t who = (uintptr_t)arg;
	struct queue_member *member = &members[who];
	uint64_t last[N_PRODUCERS][N_CLASSES] = {{0}};
	unsigned seed = 100 + (unsigned)who;

	queue_scene_enter(&scene, member, 30 + who);
	for (;;) {
		struct ipc_queue_item item;
		int r = queue_take(&member->view, &item);

		must(r == 0 || r == IPC_EAGAIN, "take");
		if (r < 0) {
			if (is_over(member))
				break;
			(void)sched_yield();
			continue;
		}
		saw(&item);
		expect_order(&item, last);
		end_lease(member, &item, &seed);
	}
	queue_scene_leave(&scene, member);
	return NULL;
}

static void *undertaker(void *arg)
{
	static struct queue_member member;

	(void)arg;
	queue_scene_enter(&scene, &member, 38);
	for (;;) {
		struct ipc_queue_item item;
		bool was_over = is_over(&member);
		int r = queue_take(&member.dead, &item);

		must(r == 0 || r == IPC_EAGAIN, "take a dead letter");
		if (r < 0 && was_over)
			break;
		if (r < 0) {
			(void)sched_yield();
			continue;
		}
		must(item.attempt == 1 && item.source, "a dead letter");
		ended(&item);
		must(queue_ack(&member.dead, item.lease) == 0, "ack of a dead letter");
		count(&n_dead);
	}
	queue_scene_leave(&scene, &member);
	return NULL;
}

/* Each life has an id of its own. */
static void *mortal(void *arg)
{
	static struct queue_member member;
	unsigned seed = 7;

	(void)arg;
	for (unsigned i = 0; i < N_DEATHS; ++i) {
		struct ipc_queue_item item;
		void *data;

		queue_scene_enter(&scene, &member, (UINT64_C(1) << 20) * (i + 1) + 40);
		(void)!queue_scene_claim(&member, i % 2, (uint64_t)rand_r(&seed) % 500, &data);
		for (unsigned k = (unsigned)rand_r(&seed) % 3; k > 0; --k)
			if (queue_take(&member.view, &item) == 0)
				saw(&item);
		(void)sched_yield();
		queue_scene_die(&scene, &member);
	}
	return NULL;
}

/* ---- all of them ---- */

static void check_end(void)
{
	static struct queue_member last;
	static unsigned char bytes[ROOM_BYTES / 4];
	struct ipc_queue_state state;
	uint64_t n_ends = 0, acknowledged = 0, dead = 0, dropped = 0, due_ns;

	queue_scene_enter(&scene, &last, 50);
	state = queue_scene_state(&last.view);
	must(queue_scene_imbalance(&state) == 0, "the counts");
	for (unsigned p = 0; p < N_CLASSES; ++p) {
		acknowledged += state.acknowledged[p];
		for (unsigned reason = 0; reason < IPC_DEAD_REASONS_MAX; ++reason) {
			dead += state.dead_lettered[p][reason];
			dropped += state.dropped[p][reason];
		}
	}
	for (unsigned i = 0; i < N_PRODUCERS * N_ITEMS_EACH; ++i)
		n_ends += atomic_load(&ends[i]);
	must(acknowledged == atomic_load(&n_acknowledged), "the count of the acknowledged");
	must(dead == atomic_load(&n_dead), "the count of the dead letters");
	must(n_ends + dropped == N_PRODUCERS * N_ITEMS_EACH, "items were lost");
	must(dead > 0 && atomic_load(&n_refused) > 0, "too little happened");

	for (unsigned p = 0; p < N_CLASSES; ++p) {
		for (unsigned i = 0; i < 4; ++i)
			must(queue_push(&last.view, p, bytes, sizeof(bytes), &due_ns) == 0,
			     "room was lost");
		must(queue_push(&last.view, p, bytes, 1, &due_ns) == IPC_EAGAIN, "too much room");
	}
}

int main(void)
{
	const uint64_t shape[4] =
		QUEUE_SHAPE(N_CLASSES, ROOM_ITEMS, ROOM_BYTES, ROOM_BYTES / 4, N_ATTEMPTS);
	const uint64_t dead[4] = QUEUE_SHAPE(1, 6, 8192, ROOM_BYTES / 4, 3);
	pthread_t threads[N_PRODUCERS + N_CONSUMERS + 2];
	unsigned n = 0;

	queue_scene_init(&scene, shape, dead);
	atomic_store(&n_producing, N_PRODUCERS);
	for (uintptr_t i = 0; i < N_PRODUCERS; ++i)
		must(pthread_create(&threads[n++], NULL, producer, (void *)i) == 0, "thread");
	for (uintptr_t i = 0; i < N_CONSUMERS; ++i)
		must(pthread_create(&threads[n++], NULL, consumer, (void *)i) == 0, "thread");
	must(pthread_create(&threads[n++], NULL, undertaker, NULL) == 0, "thread");
	must(pthread_create(&threads[n++], NULL, mortal, NULL) == 0, "thread");
	for (unsigned i = 0; i < n; ++i)
		must(pthread_join(threads[i], NULL) == 0, "join");

	check_end();
	queue_scene_deinit(&scene);
	return 0;
}
