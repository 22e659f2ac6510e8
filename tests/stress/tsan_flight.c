/* SPDX-License-Identifier: MIT */
/*
 * The kind `flight` as threads on one mapping, for the thread sanitizer: each thread has a handle
 * of its own, as each process has, and some of them die between two calls and come back as others.
 *
 * An overlap detector outside the library: a word of each key, set by who leads from its join to
 * its landing.  Whatever is landed says by which leader; who reads it checks every byte.  Prints
 * nothing and ends with 0 if all of it was right.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/channel/flight.h"
#include "tests/support/flight_scene.h"

enum { N_CALLERS = 3, N_HANDLERS = 1, N_KEYS_MOST = 10, RESULT_SIZE = 120, LOOKS_MAX = 20000000 };

struct run {
	uint64_t n_cells;
	unsigned n_keys;
	unsigned n_turns; /* of each caller */
	bool has_handlers;
};

struct caller {
	struct flight_member member;
	struct flight_part part;
	unsigned key;
	unsigned seed;
	bool has_died;
};

static struct flight_scene scene;
static const struct run *run;
static _Atomic uint64_t next_id;
static _Atomic uint32_t n_callers;

/* Relaxed, all of it: the test must not order what the library does not. */
static _Atomic uint32_t leads[N_KEYS_MOST];
static _Atomic uint64_t n_landed, n_failed, n_got, n_promoted, n_died, n_full, n_taken, n_asked;

static void must(bool holds, const char *what)
{
	if (!holds) {
		(void)fprintf(stderr, "%s\n", what);
		abort();
	}
}

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- one who takes part ---- */

static void caller_enter(struct caller *caller)
{
	uint64_t id = atomic_fetch_add(&next_id, 1);

	flight_scene_enter(&scene, &caller->member, id);
}

/* Nothing more is called by this handle, and its process is gone. */
static void caller_die(struct caller *caller)
{
	count(&n_died);
	caller->has_died = true;
	flight_scene_die(&scene, &caller->member);
	flight_detach(&caller->member.view);
	caller_enter(caller);
}

static void caller_leave(struct caller *caller)
{
	flight_leave(&caller->member.view, &caller->part);
}

static void lead_begin(const struct caller *caller)
{
	must(atomic_exchange_explicit(&leads[caller->key], 1, memory_order_relaxed) == 0,
	     "two lead one key");
}

/* Before the call, or the death, by which the next one may lead. */
static void lead_end(const struct caller *caller)
{
	must(atomic_exchange_explicit(&leads[caller->key], 0, memory_order_relaxed) == 1,
	     "two have led one key");
}

static unsigned char byte_of(unsigned key, uint64_t fence)
{
	return (unsigned char)(key * 31 + (fence >> FENCE_LANE_BITS) * 7);
}

static void result_check(struct caller *caller)
{
	struct ipc_flight_result result;
	const unsigned char *bytes;

	must(flight_get_result(&caller->member.view, &caller->part, &result) == 0, "no result");
	must(result.epoch > 0 && result.n_joined > 0 && result.fence != 0, "a wrong result");
	if (result.failure == IPC_FAILURE_ABANDONED)
		return;
	must(result.failure == IPC_FAILURE_NONE ||
		     (result.failure == IPC_FAILURE_UPSTREAM && result.code == (int)caller->key),
	     "a failure of nobody");
	must(result.size == result.fence % RESULT_SIZE + 1, "a result of another size");
	bytes = result.data;
	for (size_t i = 0; i < result.size; ++i)
		must(bytes[i] == byte_of(caller->key, result.fence), "the bytes of another");
	count(&n_got);
}

static void finish(struct caller *caller, bool lands)
{
	unsigned char bytes[RESULT_SIZE];
	uint64_t fence;

	must(flight_get_fence(&caller->member.view, &caller->part, &fence) == 0, "no fence");
	memset(bytes, byte_of(caller->key, fence), sizeof(bytes));
	lead_end(caller);
	must(flight_finish(&caller->member.view, &caller->part, 0,
			   lands ? IPC_FAILURE_NONE : IPC_FAILURE_UPSTREAM,
			   lands ? 0 : (int)caller->key, bytes, fence % RESULT_SIZE + 1) == 0,
	     "a leader cannot land");
	count(lands ? &n_landed : &n_failed);
	result_check(caller);
	caller_leave(caller);
}

/* What a leader does with its lead. */
static void lead(struct caller *caller)
{
	unsigned what = (unsigned)rand_r(&caller->seed) % 16;

	lead_begin(caller);
	if (what % 3 == 0)
		(void)sched_yield();
	if (what == 0) {
		lead_end(caller);
		caller_die(caller);
	} else if (what == 1) {
		lead_end(caller);
		caller_leave(caller);
	} else {
		finish(caller, what > 3);
	}
}

/* Who waits; now and then it gives up, or dies. */
static void wait_for(struct caller *caller)
{
	unsigned what = (unsigned)rand_r(&caller->seed) % 16;
	int r = IPC_EAGAIN;

	for (unsigned i = 0; r == IPC_EAGAIN; ++i) {
		must(i < LOOKS_MAX, "a wait that does not end");
		r = flight_look(&caller->member.view, &caller->part);
		if (r == IPC_EAGAIN && what == 0) {
			caller_die(caller);
			return;
		}
		if (r == IPC_EAGAIN && what == 1)
			break;
		if (r == IPC_EAGAIN)
			(void)sched_yield();
	}

	if (r == 1) {
		count(&n_promoted);
		lead(caller);
		return;
	}
	if (r == 0)
		result_check(caller);
	else
		must(r == IPC_EAGAIN || r == IPC_EOWNERDEAD, "a wait that ends strangely");
	caller_leave(caller);
}

static void caller_turn(struct caller *caller)
{
	bool asks = run->has_handlers && rand_r(&caller->seed) % 3 == 0;
	char key[3] = "k";
	int r;

	caller->key = (unsigned)rand_r(&caller->seed) % run->n_keys;
	key[1] = (char)('a' + caller->key);
	if (asks)
		count(&n_asked);
	r = asks ? flight_scene_ask(&caller->member, &caller->part, caller->key % SEATS_PER_ROW,
				    key, (uint32_t)rand_r(&caller->seed) % 4)
		 : flight_scene_join(&caller->member, &caller->part, caller->key % SEATS_PER_ROW,
				     key);
	if (r == 1) {
		lead(caller);
	} else if (r == 2) {
		wait_for(caller);
	} else if (r == 0) {
		result_check(caller);
		caller_leave(caller);
	} else {
		/* The thread has the number of the one that died: as long as somebody is just
		 * taking over the dead one's row, its leads look like this thread's own. */
		must(r == IPC_ENOSPC || r == IPC_EOWNERDEAD ||
			     (r == IPC_EDEADLK && caller->has_died),
		     "a join that ends strangely");
		count(&n_full);
		(void)sched_yield();
	}
}

static void *caller_run(void *arg)
{
	struct caller *caller = arg;

	caller_enter(caller);
	for (unsigned i = 0; i < run->n_turns; ++i)
		caller_turn(caller);
	flight_scene_leave(&scene, &caller->member);
	atomic_fetch_sub(&n_callers, 1);
	return NULL;
}

static void *handler_run(void *arg)
{
	struct caller *handler = arg;

	caller_enter(handler);
	while (atomic_load(&n_callers) > 0) {
		const void *key;
		size_t size;

		if (flight_scene_take(&handler->member, &handler->part, 0) < 0) {
			(void)sched_yield();
			continue;
		}
		count(&n_taken);
		flight_get_key(&handler->member.view, &handler->part, &key, &size);
		must(size == 2, "a key of another size");
		handler->key = (unsigned)(((const char *)key)[1] - 'a');
		lead(handler);
	}
	flight_scene_leave(&scene, &handler->member);
	return NULL;
}

/* ---- runs ---- */

static void end_check(void)
{
	struct flight_member member;
	struct flight_part *parts = calloc(run->n_cells + 1, sizeof(*parts));

	must(parts, "calloc");
	flight_scene_enter(&scene, &member, atomic_fetch_add(&next_id, 1));
	must(flight_count(&member.view) == 0, "keys are in flight in the end");
	for (unsigned i = 0; i <= run->n_cells; ++i) {
		char key[] = {'_', (char)('a' + i), 0};
		uint32_t row = 0;

		if (i % SEATS_PER_ROW == 0)
			must(flight_row_take(&member.view, &row), "no row");
		member.row = i % SEATS_PER_ROW == 0 ? row : member.row;
		must(flight_scene_join(&member, &parts[i], i % SEATS_PER_ROW, key) ==
			     (i < run->n_cells ? 1 : IPC_ENOSPC),
		     "a cell is lost");
	}
	for (unsigned i = 0; i < run->n_cells; ++i)
		flight_leave(&member.view, &parts[i]);
	flight_detach(&member.view);
	free(parts);
}

static void run_once(const struct run *the_run)
{
	const uint64_t shape[4] = {RESULT_SIZE, the_run->n_cells, 8, 4};
	static struct caller callers[N_CALLERS + N_HANDLERS];
	unsigned n = N_CALLERS + (the_run->has_handlers ? N_HANDLERS : 0);
	pthread_t threads[N_CALLERS + N_HANDLERS];

	run = the_run;
	atomic_store(&next_id, 20);
	atomic_store(&n_callers, N_CALLERS);
	flight_scene_init(&scene, shape, 0);
	flight_scene_handlers(&scene, 1, 0, SIDE_EVER);
	for (unsigned i = 0; i < n; ++i) {
		callers[i].seed = i * 77 + (unsigned)run->n_cells;
		must(pthread_create(&threads[i], NULL, i < N_CALLERS ? caller_run : handler_run,
				    &callers[i]) == 0,
		     "pthread_create");
	}
	for (unsigned i = 0; i < n; ++i)
		must(pthread_join(threads[i], NULL) == 0, "pthread_join");

	end_check();
	flight_scene_deinit(&scene);
}

int main(void)
{
	static const struct run runs[] = {
		{1, 1, 25000, false},  {2, 4, 25000, false}, {3, 3, 25000, true},
		{8, 10, 25000, false}, {16, 2, 25000, true},
	};

	for (unsigned i = 0; i < sizeof(runs) / sizeof(runs[0]); ++i)
		run_once(&runs[i]);

	must(n_landed && n_failed && n_got && n_promoted && n_died && n_full && n_taken,
	     "something never happened");
	if (getenv("IPC_STRESS_VERBOSE"))
		(void)fprintf(
			stderr,
			"%ju landed, %ju failed, %ju results, %ju promoted, %ju deaths, %ju full, "
			"%ju asked, %ju taken\n",
			(uintmax_t)n_landed, (uintmax_t)n_failed, (uintmax_t)n_got,
			(uintmax_t)n_promoted, (uintmax_t)n_died, (uintmax_t)n_full,
			(uintmax_t)n_asked, (uintmax_t)n_taken);
	return 0;
}
