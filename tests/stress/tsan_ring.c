/* SPDX-License-Identifier: MIT */
/*
 * A ring as threads on one mapping, for the thread sanitizer: some take the producer's end from
 * each other, and go on writing to what they had claimed when theirs was taken; two take the
 * consumer's end from each other.  Prints nothing and ends with 0 if each number came, in order,
 * whole, and what came twice was not released before.
 */
#include "libipc/core/ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "tests/support/ring_scene.h"

enum { N_WRITERS = 3, N_READERS = 2, N_NUMBERS = 60000, A_TERM = 800 };
enum { CAPACITY = 16384, RECORD_MAX = 600 };

static struct ring_scene scene;
static _Atomic unsigned n_writers, n_readers = 10000; /* handles that were given */
static _Atomic uint64_t n_released;                   /* numbers */
static _Atomic uint64_t n_taken, n_bans_seen;

/* Who was overtaken may read bytes that are written anew; not here, where that would be told of. */
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;

static void must(bool holds, const char *what)
{
	ring_scene_must(holds, what);
}

static bool is_over(void)
{
	return atomic_load_explicit(&n_released, memory_order_relaxed) >= N_NUMBERS;
}

/* ---- writers ---- */

static int send_one(struct ring_producer *producer, unsigned *seed, unsigned char **ret_claimed)
{
	uint64_t size = (uint64_t)rand_r(seed) % (RECORD_MAX + 1);
	struct ring_commit commit = ring_scene_commit(producer->number, size, 1);
	void *data;
	int r = ring_claim(producer, size, &data);

	if (r < 0)
		return r;
	ring_scene_fill(data, size, producer->number, 1);
	if (rand_r(seed) % 16 == 0)
		(void)sched_yield();
	r = ring_commit(producer, ring_find_claim(producer, data), &commit);
	if (r < 0) {
		*ret_claimed = data;
		for (uint64_t i = 0; i < size; ++i)
			(*ret_claimed)[i] = 0x55;
	}
	return r;
}

/* Until somebody else has the end. */
static void term(struct ring_producer *producer, unsigned *seed)
{
	unsigned char *claimed;

	while (!is_over()) {
		int r = send_one(producer, seed, &claimed);

		must(r == 0 || r == IPC_EAGAIN || r == IPC_ESTALE, "send");
		if (r == IPC_ESTALE)
			return;
		if (r == IPC_EAGAIN)
			(void)sched_yield();
	}
}

static void *writer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!is_over()) {
		struct ring_producer producer;
		unsigned n = 1 + atomic_fetch_add(&n_writers, 1) % 9000;
		uint64_t released = atomic_load_explicit(&n_released, memory_order_relaxed);
		int r;

		r = ring_scene_try_producer(&scene, &producer, n, (uint32_t)getpid());
		must(r == 0 || r == IPC_ESTALE || r == IPC_EBUSY, "take");
		if (r == 0) {
			atomic_fetch_add(&n_taken, 1);
			term(&producer, &seed);
		}
		atomic_fetch_add(&n_bans_seen, atomic_load(&scene.ring->n_bans) > 0);
		ring_leave_producer(&producer);
		ring_scene_end(&scene, n);

		/* The others get on meanwhile. */
		while (!is_over() && atomic_load(&n_released) < released + A_TERM)
			(void)sched_yield();
	}
	return NULL;
}

/* ---- readers ---- */

/* 1: one came. */
static int receive_one(struct ring_consumer *consumer, uint64_t number)
{
	struct ring_received record;
	const char *wrong = NULL;
	int r;

	must(pthread_mutex_lock(&reading) == 0, "lock");
	r = ring_consumer_is(consumer) ? ring_scene_receive(consumer, &record) : IPC_ESTALE;
	if (r == 0)
		wrong = ring_scene_wrong(&record, number);
	must(pthread_mutex_unlock(&reading) == 0, "unlock");

	must(r == 0 || r == IPC_EAGAIN || r == IPC_ESTALE, "receive");
	must(!wrong, wrong ? wrong : "");
	return r == 0 ? 1 : r;
}

/* `number`: of the first one. */
static void read_on(struct ring_consumer *consumer, uint64_t number, unsigned *seed)
{
	unsigned n_held = 0, n_left = 500 + (unsigned)rand_r(seed) % 4000;

	while (!is_over() && n_left > 0) {
		int r = receive_one(consumer, number);

		if (r == IPC_ESTALE)
			return;
		if (r == IPC_EAGAIN) {
			(void)sched_yield();
		} else {
			++number;
			++n_held;
			--n_left;
		}
		if (n_held > 0 && (r < 0 || rand_r(seed) % 8 == 0)) {
			if (ring_release(consumer, consumer->at, 0) < 0)
				return;
			n_held = 0;
			atomic_store_explicit(&n_released, number, memory_order_relaxed);
		}
	}
}

static void *reader(void *arg)
{
	unsigned seed = 100 + (unsigned)(uintptr_t)arg;

	while (!is_over()) {
		struct ring_consumer consumer;
		unsigned n = atomic_fetch_add(&n_readers, 1);
		uint64_t number = 0;
		int r;

		must(pthread_mutex_lock(&reading) == 0, "lock");
		r = ring_scene_try_consumer(&scene, &consumer, n, (uint32_t)getpid());
		if (r == 0)
			number = ring_number_at(&consumer.view, consumer.at);
		must(pthread_mutex_unlock(&reading) == 0, "unlock");
		must(r == 0 || r == IPC_ESTALE, "take");
		if (r == 0)
			read_on(&consumer, number, &seed);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[N_WRITERS + N_READERS];
	unsigned n = 0;

	ring_scene_init(&scene, CAPACITY, RECORD_MAX, 1);
	for (uintptr_t i = 0; i < N_WRITERS; ++i)
		must(pthread_create(&threads[n++], NULL, writer, (void *)i) == 0, "thread");
	for (uintptr_t i = 0; i < N_READERS; ++i)
		must(pthread_create(&threads[n++], NULL, reader, (void *)i) == 0, "thread");
	for (unsigned i = 0; i < n; ++i)
		must(pthread_join(threads[i], NULL) == 0, "join");

	must(atomic_load(&n_taken) > 20, "too little happened");
	must(atomic_load(&n_bans_seen) > 0, "nothing was banned");
	ring_scene_deinit(&scene);
	return 0;
}
