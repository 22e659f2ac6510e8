/* SPDX-License-Identifier: MIT */
/*
 * The kind `shared` as threads on one mapping, for the thread sanitizer: each thread has a view of
 * its own, as each process has.  Some move money between the accounts of a ledger, two hand a turn
 * to each other by predicates.  Prints nothing and ends with 0 if every sum was right.
 */
#include "libipc/channel/shared.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/shared_scene.h"

enum { N_ACCOUNTS = 30, TOTAL = 3000, N_MOVERS = 3, N_MOVES = 3000, N_TURNS = 400 };

struct ledger {
	uint32_t turn;
	uint32_t n_done; /* movers that are through */
	int32_t account[N_ACCOUNTS];
};

static struct shared_scene scene;

static void must(bool holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

static int32_t ledger_sum(const struct ledger *ledger)
{
	int32_t sum = 0;

	for (unsigned i = 0; i < N_ACCOUNTS; ++i)
		sum += ledger->account[i];
	return sum;
}

static struct ledger *ledger_edit(struct shared *view)
{
	void *copy;

	must(shared_edit(view, &copy) == 0, "edit");
	return copy;
}

static void *mover(void *arg)
{
	struct shared view = shared_scene_attach(&scene, (uint64_t)(uintptr_t)arg);
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i <= N_MOVES; ++i) {
		struct waiter waiter = shared_scene_waiter(&scene, CLOCK_FOREVER);
		struct ledger *ledger;
		int32_t amount;

		must(shared_lock_wait(&view, &waiter) == 0, "lock");
		must(ledger_sum(shared_value(&view)) == TOTAL, "the sum is wrong");
		ledger = ledger_edit(&view);
		amount = rand_r(&seed) % 100;
		ledger->account[rand_r(&seed) % N_ACCOUNTS] -= amount;
		if (i % 7 == 3) {
			must(shared_unlock(&view) == 0, "unlock");
			continue;
		}
		ledger->account[rand_r(&seed) % N_ACCOUNTS] += amount;
		ledger->n_done += i == N_MOVES;
		must(shared_commit(&view) == 0, "commit");
	}
	return NULL;
}

struct player {
	uint32_t parity;
};

static bool is_my_turn(const void *value, uint64_t size, void *userdata)
{
	const struct ledger *ledger = value;
	const struct player *player = userdata;

	return size == sizeof(*ledger) && ledger->turn % 2 == player->parity;
}

static bool is_done(const void *value, uint64_t size, void *userdata)
{
	const struct ledger *ledger = value;

	(void)userdata;
	return size == sizeof(*ledger) && ledger->n_done == N_MOVERS && ledger->turn >= N_TURNS;
}

static int no_end(void *userdata)
{
	(void)userdata;
	return 0;
}

static void *play(void *arg)
{
	struct player *player = arg;
	struct shared_condition condition = {
		.holds = is_my_turn, .end = no_end, .userdata = player};
	struct shared view = shared_scene_attach(&scene, 100 + player->parity);
	bool goes_on = true;

	while (goes_on) {
		struct waiter waiter = shared_scene_waiter(&scene, CLOCK_FOREVER);
		struct ledger *ledger;

		must(shared_lock_when_wait(&view, &waiter, &condition) == 0, "lock_when");
		ledger = ledger_edit(&view);
		goes_on = ++ledger->turn < N_TURNS;
		must(shared_commit(&view) == 0, "commit");
	}
	return NULL;
}

int main(void)
{
	struct shared_condition condition = {.holds = is_done, .end = no_end};
	struct player players[2] = {{0}, {1}};
	pthread_t threads[N_MOVERS + 2];
	struct waiter waiter;
	struct shared view;

	shared_scene_init(&scene, sizeof(struct ledger), SHARED_TRANSACTIONAL);
	view = shared_scene_attach(&scene, 1);
	must(shared_lock_try(&view) == 0, "the first lock");
	ledger_edit(&view)->account[0] = TOTAL;
	must(shared_commit(&view) == 0, "the first commit");

	for (uintptr_t i = 0; i < N_MOVERS; ++i)
		must(pthread_create(&threads[i], NULL, mover, (void *)(i + 2)) == 0,
		     "pthread_create");
	for (unsigned i = 0; i < 2; ++i)
		must(pthread_create(&threads[N_MOVERS + i], NULL, play, &players[i]) == 0,
		     "pthread_create");

	waiter = shared_scene_waiter(&scene, CLOCK_FOREVER);
	must(shared_lock_when_wait(&view, &waiter, &condition) == 0, "the last wait");
	must(ledger_sum(shared_value(&view)) == TOTAL, "the last sum is wrong");
	must(shared_unlock(&view) == 0, "the last unlock");
	for (unsigned i = 0; i < N_MOVERS + 2; ++i)
		must(pthread_join(threads[i], NULL) == 0, "pthread_join");

	shared_scene_deinit(&scene);
	return 0;
}
