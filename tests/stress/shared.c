/* SPDX-License-Identifier: MIT */
/*
 * Holders of the lock killed at random, in the middle of edits: by the test's SIGKILL at any
 *instruction, and by their own crash points.  The value is a ledger whose sum never changes;
 *everybody who gets the lock adds it up.
 *
 *	IPC_STRESS_KILLS   how many, default 1500; a third of it in place, a tenth through the
 *broker
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/channel/shared.h"
#include "tests/support/domain.h"
#include "tests/support/process.h"
#include "tests/support/shared_scene.h"

enum {
	N_ACCOUNTS = 500,
	TOTAL = 1000000,
	N_WORKERS = 4,
	KILLS_DEFAULT = 1500,
	DEADLINE_MS = 30000
};

struct ledger {
	uint64_t n_bookings;
	int32_t account[N_ACCOUNTS];
};

/* Exit statuses of workers; a worker never ends by itself otherwise. */
enum { WRONG_SUM = 10, WRONG_RESULT = 11, STUCK = 12 };

/* In shared memory: how far things went. */
struct progress {
	_Atomic uint64_t n_bookings; /* committed at least */
	_Atomic uint64_t n_told;     /* deaths that users were told of */
	_Atomic uint64_t n_waits;    /* predicates that came true */
};

static struct progress *progress;

static unsigned n_kills_wanted(void)
{
	const char *text = getenv("IPC_STRESS_KILLS");

	return text ? (unsigned)strtoul(text, NULL, 10) : KILLS_DEFAULT;
}

static int64_t sum_of(const struct ledger *ledger)
{
	int64_t sum = 0;

	for (unsigned i = 0; i < N_ACCOUNTS; ++i)
		sum += ledger->account[i];
	return sum;
}

/* Half a booking for a long while, then all of it. */
static void book(struct ledger *ledger, unsigned *seed)
{
	for (unsigned i = 0; i < 20; ++i) {
		volatile int32_t *from = &ledger->account[rand_r(seed) % N_ACCOUNTS];
		volatile int32_t *to = &ledger->account[rand_r(seed) % N_ACCOUNTS];
		int32_t amount = rand_r(seed) % 100;

		*from -= amount;
		*to += amount;
	}
	++ledger->n_bookings;
}

/* In place the dead holder's booking may be half done; here any ledger with the right sum is a good
 * one. */
static void repair(struct ledger *ledger)
{
	ledger->account[0] += (int32_t)(TOTAL - sum_of(ledger));
}

static bool holds_more(const void *value, size_t size, void *userdata)
{
	(void)size;
	return ((const struct ledger *)value)->n_bookings > *(uint64_t *)userdata;
}

/* ---- workers: the same for the structure and for the public functions ---- */

struct hands {
	int (*lock)(const void **ret_value);
	int (*lock_when)(uint64_t more_than, const void **ret_value);
	int (*edit)(void **ret_value);
	int (*commit)(void);
	int (*unlock)(void);
	int (*mark_consistent)(void);
	bool in_place;
};

static void end_of(int r)
{
	_exit(r == IPC_ETIMEDOUT ? STUCK : WRONG_RESULT);
}

static void work_once(const struct hands *hands, int locked, const void *value, unsigned *seed)
{
	uint64_t n_bookings;
	void *memory;
	int r;

	if (locked == 1)
		atomic_fetch_add(&progress->n_told, 1);
	r = hands->edit(&memory);
	if (r < 0)
		end_of(r);
	if (hands->in_place && locked == 1) {
		repair(memory);
		r = hands->mark_consistent();
		if (r < 0)
			end_of(r);
	}
	if (sum_of(value) != TOTAL)
		_exit(WRONG_SUM);

	n_bookings = ((const struct ledger *)value)->n_bookings + 1;
	book(memory, seed);
	if (!hands->in_place && rand_r(seed) % 8 == 0) {
		r = hands->unlock();
	} else {
		r = hands->commit();
		if (r == 0 && atomic_load(&progress->n_bookings) < n_bookings)
			atomic_store(&progress->n_bookings, n_bookings);
	}
	if (r < 0)
		end_of(r);
}

/* The first one never waits for a predicate: somebody has to make them come true. */
static void work(const struct hands *hands, unsigned i)
{
	unsigned seed = (unsigned)getpid();
	uint64_t seen = 0;

	for (;;) {
		bool for_predicate = i > 0 && rand_r(&seed) % 3 == 0;
		const void *value;
		int r = for_predicate ? hands->lock_when(seen, &value) : hands->lock(&value);

		/* The others were killed, each of them, while this one slept. */
		if (for_predicate && (r == IPC_EOWNERDEAD || r == IPC_EPIPE))
			continue;
		if (r < 0)
			end_of(r);
		if (for_predicate)
			atomic_fetch_add(&progress->n_waits, 1);
		seen = ((const struct ledger *)value)->n_bookings;
		work_once(hands, r, value, &seed);
	}
}

/* ---- the killer ---- */

struct crew {
	void (*run)(unsigned i); /* in the worker */
	void (*died)(void);      /* may be NULL */
	pid_t pids[N_WORKERS];
	unsigned n_kills;
};

static void crew_hire(struct crew *crew, unsigned i)
{
	crew->pids[i] = process_fork();
	if (crew->pids[i] == 0) {
		/* Half of them die at a crash point of the library, in time. */
		if (i % 2)
			setenv("IPC_CRASH", "random:2000", 1);
		else
			unsetenv("IPC_CRASH");
		crew->run(i);
		_exit(1);
	}
}

static void crew_mourn(struct crew *crew, unsigned i, int status)
{
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		  "worker %u ended with status 0x%x after %u kills", i, (unsigned)status,
		  crew->n_kills);
	++crew->n_kills;
	if (crew->died)
		crew->died();
	crew_hire(crew, i);
}

static void crew_reap(struct crew *crew)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < N_WORKERS; ++i) {
			if (crew->pids[i] == pid)
				crew_mourn(crew, i, status);
		}
	}
}

/* Kills one after at least one more booking was committed, so that each of them has lived. */
static void crew_run(struct crew *crew, unsigned n_kills)
{
	unsigned seed = (unsigned)getpid();
	uint64_t seen = 0;

	for (unsigned i = 0; i < N_WORKERS; ++i)
		crew_hire(crew, i);

	while (crew->n_kills < n_kills) {
		struct timespec limit = process_deadline(DEADLINE_MS);
		unsigned victim = (unsigned)rand_r(&seed) % N_WORKERS;
		int status;

		while (atomic_load(&progress->n_bookings) == seen) {
			cr_assert(!process_has_passed(&limit),
				  "nothing was committed for 30 s, after %u kills", crew->n_kills);
			crew_reap(crew);
			process_pause();
		}
		seen = atomic_load(&progress->n_bookings);
		for (unsigned spin = (unsigned)rand_r(&seed) % 20000; spin > 0; --spin)
			__asm__ __volatile__("");

		cr_assert_eq(kill(crew->pids[victim], SIGKILL), 0);
		cr_assert_eq(waitpid(crew->pids[victim], &status, 0), crew->pids[victim]);
		crew_mourn(crew, victim, status);
		crew_reap(crew);
	}

	for (unsigned i = 0; i < N_WORKERS; ++i) {
		(void)kill(crew->pids[i], SIGKILL);
		(void)waitpid(crew->pids[i], NULL, 0);
	}
}

static void check_end(const struct hands *hands)
{
	const void *value;
	void *memory;
	int r;

	r = hands->lock(&value);
	cr_assert(r == 0 || r == 1, "%s", ipc_error_name(r));
	if (hands->in_place && r == 1) {
		cr_assert_eq(hands->edit(&memory), 0);
		repair(memory);
		cr_assert_eq(hands->mark_consistent(), 0);
	}
	cr_expect_eq(sum_of(value), TOTAL);
	cr_expect_geq(((const struct ledger *)value)->n_bookings,
		      atomic_load(&progress->n_bookings), "a commit was lost");
	cr_expect_gt(atomic_load(&progress->n_told), 0, "no holder was ever killed");
	cr_expect_gt(atomic_load(&progress->n_waits), 0, "no predicate ever came true");
	cr_assert_eq(hands->unlock(), 0);
}

static void begin(const struct hands *hands)
{
	const void *value;
	void *memory;

	cr_assert_eq(hands->lock(&value), 0);
	cr_assert_eq(hands->edit(&memory), 0);
	((struct ledger *)memory)->account[0] = TOTAL;
	cr_assert_eq(hands->commit(), 0);
}

/* ---- the structure, the test plays the broker ---- */

static struct shared_scene scene;
static struct shared view;

static int scene_no_end(void *userdata)
{
	(void)userdata;
	return 0;
}

struct more_than {
	uint64_t n_bookings;
};

static bool scene_holds(const void *value, uint64_t size, void *userdata)
{
	return holds_more(value, size, userdata);
}

static int scene_lock(const void **ret_value)
{
	struct waiter waiter = shared_scene_waiter(&scene, clock_after_ns(DEADLINE_MS * NS_PER_MS));
	int r = shared_lock_wait(&view, &waiter);

	if (r >= 0)
		*ret_value = shared_value(&view);
	return r;
}

static int scene_lock_when(uint64_t more_than, const void **ret_value)
{
	struct waiter waiter = shared_scene_waiter(&scene, clock_after_ns(DEADLINE_MS * NS_PER_MS));
	struct more_than more = {more_than};
	struct shared_condition condition = {
		.holds = scene_holds, .end = scene_no_end, .userdata = &more};
	int r = shared_lock_when_wait(&view, &waiter, &condition);

	if (r >= 0)
		*ret_value = shared_value(&view);
	return r;
}

static int scene_edit(void **ret_value)
{
	return shared_edit(&view, ret_value);
}

static int scene_commit(void)
{
	return shared_commit(&view);
}

static int scene_unlock(void)
{
	return shared_unlock(&view);
}

static int scene_mark_consistent(void)
{
	return shared_mark_consistent(&view);
}

static struct hands scene_hands = {
	.lock = scene_lock,
	.lock_when = scene_lock_when,
	.edit = scene_edit,
	.commit = scene_commit,
	.unlock = scene_unlock,
	.mark_consistent = scene_mark_consistent,
};

static void scene_work(unsigned i)
{
	view = shared_scene_attach(&scene, 10 + i);
	work(&scene_hands, i);
}

static void scene_died(void)
{
	shared_scene_attend(&scene);
}

static void scene_run(bool in_place)
{
	struct crew crew = {.run = scene_work, .died = scene_died};

	progress = shared_scene_map(sizeof(*progress));
	shared_scene_init(&scene, sizeof(struct ledger),
			  in_place ? SHARED_IN_PLACE : SHARED_TRANSACTIONAL);
	view = shared_scene_attach(&scene, 1);
	scene_hands.in_place = in_place;
	begin(&scene_hands);
	crew_run(&crew, n_kills_wanted() / (in_place ? 3 : 1) + 1);
	check_end(&scene_hands);
	shared_scene_deinit(&scene);
}

/* S-1, S-2, M-25, M-26 */
Test(shared, sums_stay_equal_under_random_kills, .timeout = 280)
{
	scene_run(false);
}

/* S-3, S-10 */
Test(shared, in_place_sums_stay_equal_under_random_kills, .timeout = 280)
{
	scene_run(true);
}

/* ---- the public functions, with a broker ---- */

static struct domain domain;
static ipc_client *client;
static ipc_shared *handle;

static int handle_lock(const void **ret_value)
{
	struct timespec deadline = domain_deadline(DEADLINE_MS);

	return ipc_shared_lock_wait(handle, ret_value, &deadline);
}

static int handle_lock_when(uint64_t more_than, const void **ret_value)
{
	struct timespec deadline = domain_deadline(DEADLINE_MS);
	struct more_than more = {more_than};

	return ipc_shared_lock_when_wait(handle, holds_more, &more, ret_value, &deadline);
}

static int handle_edit(void **ret_value)
{
	return ipc_shared_edit(handle, ret_value);
}

static int handle_commit(void)
{
	return ipc_shared_commit(handle);
}

static int handle_unlock(void)
{
	return ipc_shared_unlock(handle);
}

static int handle_mark_consistent(void)
{
	return ipc_shared_mark_consistent(handle);
}

static const struct hands handle_hands = {
	.lock = handle_lock,
	.lock_when = handle_lock_when,
	.edit = handle_edit,
	.commit = handle_commit,
	.unlock = handle_unlock,
	.mark_consistent = handle_mark_consistent,
};

static int handle_open(unsigned i)
{
	struct timespec deadline = domain_deadline(DEADLINE_MS);
	const struct ipc_shared_options *options =
		IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = sizeof(struct ledger));

	client = domain_connect(&domain);
	return ipc_shared_open_wait(&handle, client, "stress/ledger",
				    i % 2 ? IPC_SIDE_B : IPC_SIDE_A, options, &deadline);
}

static void handle_work(unsigned i)
{
	/* A worker that dies by itself before it has a handle would be no death of a holder. */
	if (handle_open(i) < 0)
		_exit(WRONG_RESULT);
	work(&handle_hands, i);
}

/* S-1, S-2, M-22, M-25 */
Test(shared, sums_stay_equal_under_random_kills_with_a_broker, .timeout = 280)
{
	struct crew crew = {.run = handle_work};

	progress = shared_scene_map(sizeof(*progress));
	domain_start(&domain, NULL);
	cr_assert_eq(handle_open(0), 0);
	begin(&handle_hands);
	crew_run(&crew, n_kills_wanted() / 10 + 1);
	check_end(&handle_hands);
	handle = ipc_shared_close(handle);
	ipc_client_unref(client);
	domain_stop(&domain);
}
