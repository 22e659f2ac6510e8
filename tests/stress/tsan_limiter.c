/* SPDX-License-Identifier: MIT */
/*
 * The kind `limiter` as threads on one mapping, for the thread sanitizer: each thread has a view of
 * its own, as each process has.  Some acquire, wait and release, some give up, one dies again and
 * again.  Prints nothing and ends with 0 if never too many permits were held and none is lost.
 */
#include "libipc/channel/limiter.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "tests/support/limiter_scene.h"

enum { N_PERMITS = 3, N_USERS = 3, N_ROUNDS = 2000, N_DEATHS = 300 };

#define HOUR (UINT64_C(3600) * 1000000000)

static struct limiter_scene scene;
static _Atomic uint32_t n_held;

static void must(bool holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

static void hold(uint32_t permits)
{
	must(atomic_fetch_add(&n_held, permits) + permits <= N_PERMITS, "too many are held");
	(void)sched_yield();
	atomic_fetch_sub(&n_held, permits);
}

static void *user(void *arg)
{
	static struct limiter_member members[N_USERS];
	uintptr_t i = (uintptr_t)arg;
	struct limiter_member *member = &members[i];
	unsigned seed = (unsigned)i;

	limiter_scene_enter(&scene, member, 20 + i, 1000 + (uint32_t)i % 2);
	for (unsigned round = 0; round < N_ROUNDS; ++round) {
		uint32_t permits = 1 + (uint32_t)rand_r(&seed) % N_PERMITS;
		unsigned patience = (unsigned)rand_r(&seed) % 2000;
		struct limiter_part part;
		int r = limiter_scene_queue(member, &part, round % SEATS_PER_ROW, permits);

		must(r >= 0, "queue");
		while (r != 0 && patience-- > 0) {
			(void)sched_yield();
			r = limiter_scene_look(member, &part);
		}
		if (r != 0 && !limiter_give_up(&member->view, &part))
			continue;

		hold(permits);
		must(limiter_release(&member->view, &part, rand_r(&seed) % 2) == 0, "release");
	}
	return NULL;
}

/* Each life has an id of its own. */
static void *mortal(void *arg)
{
	static struct limiter_member member;

	(void)arg;
	for (unsigned i = 0; i < N_DEATHS; ++i) {
		struct limiter_part part;
		uint64_t id = (UINT64_C(1) << 20) * (i + 1) + 40;

		limiter_scene_enter(&scene, &member, id, 1003);
		(void)!limiter_scene_queue(&member, &part, 0, 2);
		limiter_scene_end(&scene, id);
		atomic_store(&scene.segment->seats.rows.process[member.row], 0);
	}
	return NULL;
}

int main(void)
{
	const uint64_t shape[4] = {N_PERMITS, 0, UINT64_C(1) << 40, HOUR};
	static struct limiter_member last;
	pthread_t threads[N_USERS + 1];
	struct limiter_part part;

	limiter_scene_init(&scene, shape);
	for (uintptr_t i = 0; i < N_USERS; ++i)
		must(pthread_create(&threads[i], NULL, user, (void *)i) == 0, "thread");
	must(pthread_create(&threads[N_USERS], NULL, mortal, NULL) == 0, "thread");
	for (unsigned i = 0; i <= N_USERS; ++i)
		must(pthread_join(threads[i], NULL) == 0, "join");

	limiter_scene_enter(&scene, &last, 50, 1004);
	must(limiter_scene_acquire(&last, &part, 0, N_PERMITS) == 0, "permits were lost");
	must(limiter_scene_state(&last).n_waiting == 0, "somebody is left in the queue");
	limiter_scene_deinit(&scene);
	return 0;
}
