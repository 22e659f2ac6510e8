/* SPDX-License-Identifier: MIT */
/*
 * The parts of one table as threads, for the thread sanitizer: some take, join, land and leave, the
 * others come as visitors to whatever part they find, and in the end somebody closes the table
 * beside all that.  A plain word beside each part is written by whoever has taken it and
 * read by visitors: the next taker's store must come after the last visitor's look.  Prints nothing
 * and ends with 0 if nobody saw another's word, and everything was given back.
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "libipc/client/client.h"
#include "libipc/client/flight.h"
#include "libipc/client/thread.h"
#include "tests/support/flight_scene.h"

enum { TAKERS = 2, OTHERS = 2, SLOTS = 4, ROUNDS = 60, TURNS = 400, PARTS_MAX = 256 };

#define HANDLE_ID UINT64_C(0x70005)

static struct flight_scene scene;
static struct desk *desk;
static struct ipc_client client = {.connection = {.fd = -1, .event_fd = -1}};
static struct flight_owner *owner;
static pthread_barrier_t barrier;

/* What visitors may find: a part that is in use, or was; and by which use, with its seat. */
static _Atomic(ipc_flight *) slot[SLOTS];
static _Atomic uint64_t slot_use[SLOTS];

/* Of each part, by its seat: plain on purpose. */
static uint64_t word[PARTS_MAX];
static _Atomic uint32_t n_visits, n_landings, n_released;

static void must(bool holds, const char *what)
{
	if (holds)
		return;

	fprintf(stderr, "tsan_parts: %s\n", what);
	_Exit(1);
}

static uint64_t *word_of(const ipc_flight *flight)
{
	must(flight->part.seat < PARTS_MAX, "a seat too many");
	return &word[flight->part.seat];
}

/* ---- the table, without a broker ---- */

static void forked(void)
{
}

static void release(struct endpoint *endpoint)
{
	struct flight_owner *released = (struct flight_owner *)endpoint;

	for (uint32_t row = 0; row < atomic_load(&released->n_rows); ++row)
		for (unsigned i = 0; i < SEATS_PER_ROW; ++i)
			must(!(part_use(&atomic_load(&released->chunk[0])->row[row][i]) &
			       (PART_IN_USE | PART_VISITORS)),
			     "a part is in use after the close");
	must(atomic_load(&released->n_unleft) == 0, "close still waits");
	atomic_fetch_add(&n_released, 1);

	endpoint->header = NULL;
	parts_release(endpoint);
}

static void owner_open(uint32_t epoch)
{
	struct flight_member member;
	struct endpoint *endpoint;

	flight_scene_open(&scene, HANDLE_ID);
	flight_scene_attach(&scene, &member, HANDLE_ID);
	owner = calloc(1, sizeof(*owner));
	must(owner, "no memory");
	owner->view = member.view;
	(void)pthread_mutex_init(&owner->view.promotion, NULL);
	parts_init(owner);

	endpoint = &owner->endpoint;
	endpoint->client = ipc_client_ref(&client);
	endpoint->id = HANDLE_ID;
	endpoint->role = IPC_ROLE_FLIGHT_TABLE;
	endpoint->epoch = epoch;
	endpoint->table = scene.table;
	endpoint->attention = &scene.table->attention[0].word;
	endpoint->handle_word = &scene.table->handle[LIVENESS_SLOT(HANDLE_ID)];
	endpoint->cell = &desk->cell[LIVENESS_SLOT(HANDLE_ID)];
	endpoint->closing_fn = parts_closing;
	endpoint->release = release;
	endpoint->magic = ENDPOINT_MAGIC | IPC_ROLE_FLIGHT_TABLE;
}

/* ---- what the threads do ---- */

/* False: closed. */
static bool take_once(unsigned *seed)
{
	uint32_t key = (uint32_t)rand_r(seed) % 6;
	const struct flight_wish wish = {.form = FLIGHT_JOIN, .key = &key, .key_size = sizeof(key)};
	unsigned i = (unsigned)rand_r(seed) % SLOTS;
	ipc_flight *flight;
	int r;

	r = part_join(owner, &wish, &flight);
	if (r == IPC_ECANCELED)
		return false;
	must(r >= 0, "join");

	*word_of(flight) = part_use(flight) >> 32;
	if (parts_give(flight) < 0)
		return false;

	atomic_store_explicit(&slot_use[i],
			      (part_use(flight) & UINT64_MAX << 32) | flight->part.seat,
			      memory_order_release);
	atomic_store_explicit(&slot[i], flight, memory_order_release);
	if (rand_r(seed) % 2)
		(void)sched_yield();
	if (r == 1 && rand_r(seed) % 2) {
		(void)!flight_finish(&owner->view, &flight->part, part_use(flight),
				     IPC_FAILURE_NONE, 0, &key, sizeof(key));
		part_settle(flight);
	}
	part_leave(flight);
	return true;
}

/* Looks at a part, and lands whatever it leads. */
static void visit_once(unsigned *seed)
{
	unsigned i = (unsigned)rand_r(seed) % SLOTS;
	ipc_flight *flight = atomic_load_explicit(&slot[i], memory_order_acquire);
	uint64_t use = atomic_load_explicit(&slot_use[i], memory_order_acquire);
	uint32_t number = 1;

	if (!flight || flight->part.seat != (uint32_t)use || part_begin_again(flight, use) < 0)
		return;

	must(*word_of(flight) == part_use(flight) >> 32, "a visitor saw another use's word");
	(void)!flight_look(&owner->view, &flight->part);
	atomic_fetch_add(&n_visits, 1);
	if (rand_r(seed) % 4 == 0)
		(void)sched_yield();
	if (flight_finish(&owner->view, &flight->part, part_use(flight), IPC_FAILURE_NONE, 0,
			  &number, sizeof(number)) == 0)
		atomic_fetch_add(&n_landings, 1);
	part_settle(flight);
	part_end(flight);
}

/* Inside of the table for the whole round: close does not take it away. */
static void round_enter(void)
{
	(void)pthread_barrier_wait(&barrier);
	must(endpoint_enter(&owner->endpoint, 0) == 0, "enter");
	(void)pthread_barrier_wait(&barrier);
}

static void *taker(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < ROUNDS; ++i) {
		round_enter();
		while (take_once(&seed))
			;
		thread_leave();
		(void)pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void *other(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < ROUNDS; ++i) {
		round_enter();
		for (unsigned turn = 0; turn < TURNS; ++turn)
			visit_once(&seed);
		thread_leave();
		(void)pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void play_round(uint32_t epoch, unsigned *seed)
{
	owner_open(epoch);
	(void)pthread_barrier_wait(&barrier);
	(void)pthread_barrier_wait(&barrier);
	for (int turn = rand_r(seed) % 2000; turn > 0; --turn)
		(void)sched_yield();

	endpoint_close(&owner->endpoint);
	(void)pthread_barrier_wait(&barrier);
	must(atomic_load(&desk->cell[LIVENESS_SLOT(HANDLE_ID)].closed_id) == HANDLE_ID,
	     "the broker was not told");
	atomic_store(&desk->cell[LIVENESS_SLOT(HANDLE_ID)].closed_id, 0);
	flight_scene_end(&scene, HANDLE_ID);
	for (unsigned i = 0; i < SLOTS; ++i)
		atomic_store(&slot[i], NULL);
}

int main(void)
{
	static const uint64_t shape[4] = {64, 32, 16, 3};
	pthread_t thread[TAKERS + OTHERS];
	unsigned seed = 1;
	uint32_t epoch;

	must(thread_process_init(&epoch, forked) == 0, "thread_process_init");
	flight_scene_init(&scene, shape, 0);
	desk = flight_scene_map(sizeof(*desk));
	(void)pthread_mutex_init(&client.connection.mutex, NULL);
	client.magic = CLIENT_MAGIC;
	client.epoch = epoch;
	client.n_refs = 1;
	client.table = scene.table;
	client.desk = desk;

	must(pthread_barrier_init(&barrier, NULL, TAKERS + OTHERS + 1) == 0, "barrier");
	for (uintptr_t i = 0; i < TAKERS + OTHERS; ++i)
		must(pthread_create(&thread[i], NULL, i < TAKERS ? taker : other,
				    (void *)(i + 1)) == 0,
		     "pthread_create");
	for (unsigned i = 0; i < ROUNDS; ++i)
		play_round(epoch, &seed);
	for (unsigned i = 0; i < TAKERS + OTHERS; ++i)
		must(pthread_join(thread[i], NULL) == 0, "pthread_join");

	thread_collect();
	must(atomic_load(&n_released) == ROUNDS, "not every table was freed");
	must(atomic_load(&n_visits) > 0 && atomic_load(&n_landings) > 0, "nobody came");
	flight_scene_deinit(&scene);
	(void)munmap(desk, sizeof(*desk));
	return 0;
}
