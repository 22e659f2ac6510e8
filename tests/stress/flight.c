/* SPDX-License-Identifier: MIT */
/*
 * Callers and handlers of one flight table, killed at random: by the test's SIGKILL at any
 * instruction, and by their own crash points.  Whoever dies is replaced at once.
 *
 *	IPC_STRESS_KILLS     how many, default 1200
 *	IPC_STRESS_FLIGHTS   how many flights at least, default 3000
 *
 * What must hold, always: of each key one leads at a time, which a word outside the library sees;
 * each byte that anybody gets was written by the leader whose fence the result names; each wait
 * comes to one of the ends that it may have; and at the end the table is empty and all of it
 *usable.
 */
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

#define NAME "stress/flight"

enum {
	N_KEYS = 6,
	KEYS_MAX = 4, /* so that the table is full now and then */
	RESULT_SIZE = 3000,
	N_CALLERS = 4,
	N_HANDLERS = 2,
	N = N_CALLERS + N_HANDLERS,
	KILLS_DEFAULT = 1200,
	FLIGHTS_DEFAULT = 3000,
	WAIT_MS = 30000, /* that long nobody waits for a live leader */
};

/* Exit statuses: none of them is a death by SIGKILL. */
enum { OVERLAP = 10, WRONG_BYTES, WRONG_RESULT, STUCK };

enum doing { IDLE, WAITS, LEADS, HANDLES };

struct board {
	_Atomic uint32_t leads[N_KEYS]; /* process that leads the key, from join to landing */
	_Atomic uint32_t doing[N];
	_Atomic uint64_t n_flights, n_got, n_promoted, n_ended, n_timeouts, n_cancelled, n_full;
	_Atomic uint64_t n_asked, n_taken;
	_Atomic uint64_t n_killed[4]; /* by what they did */
	_Atomic int32_t result;       /* the wrong one */
};

static struct board *board;
static struct domain domain;
static pid_t pids[N];

static ipc_client *client;
static ipc_flight_table *table;
static ipc_handler *handler;
static unsigned me, seed;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add(counter, 1);
}

/* ---- in the worker ---- */

static void end_of(int r, int status)
{
	atomic_store(&board->result, r);
	_exit(r == IPC_ETIMEDOUT ? STUCK : status);
}

/* A while that the others can be killed in, or this one. */
static void work(void)
{
	for (unsigned spin = (unsigned)rand_r(&seed) % 100000; spin > 0; --spin)
		__asm__ __volatile__("");
}

static void doing(enum doing what)
{
	atomic_store(&board->doing[me], (uint32_t)what);
}

/* Whether it runs no more: what the broker tells by the kernel's first sign of a death. */
static bool is_ending(pid_t pid)
{
	const unsigned exiting = 4; /* PF_EXITING */
	char path[64], text[512];
	unsigned flags;
	FILE *file;
	size_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return true;
	n = fread(text, 1, sizeof(text) - 1, file);
	(void)fclose(file);
	text[n] = '\0';
	return n == 0 || sscanf(strrchr(text, ')'), ") %*c %*d %*d %*d %*d %*d %u", &flags) != 1 ||
	       (flags & exiting);
}

/* The one before may have been killed while it led: nobody is made leader before that. */
static void lead_begin(unsigned key, enum doing what)
{
	uint32_t before = atomic_exchange(&board->leads[key], (uint32_t)getpid());

	if (before != 0 && !is_ending((pid_t)before))
		end_of((int)before, OVERLAP);
	doing(what);
}

/* Before the call by which somebody else may lead. */
static void lead_end(unsigned key)
{
	if (atomic_exchange(&board->leads[key], 0) != (uint32_t)getpid())
		end_of(0, OVERLAP);
}

/* Of each result the size and all bytes follow from the key and the fence. */
static size_t size_of(unsigned key, uint64_t fence)
{
	return (fence * 31 + key) % RESULT_SIZE + 1;
}

static unsigned char byte_of(unsigned key, uint64_t fence)
{
	return (unsigned char)(fence * 7 + key * 13 + 1);
}

static void result_check(unsigned key, const struct ipc_flight_result *result, const void *data)
{
	const unsigned char *bytes = data;

	if (result->failure == IPC_FAILURE_ABANDONED && result->size == 0)
		return;
	if (result->epoch == 0 || result->n_joined == 0 || result->fence == 0 ||
	    result->size != size_of(key, result->fence) ||
	    (result->failure != IPC_FAILURE_NONE && result->failure != IPC_FAILURE_UPSTREAM) ||
	    result->code != (result->failure == IPC_FAILURE_NONE ? 0 : (int32_t)key - 100))
		end_of((int)result->failure, WRONG_BYTES);
	for (size_t i = 0; i < result->size; ++i) {
		if (bytes[i] != byte_of(key, result->fence))
			end_of(bytes[i], WRONG_BYTES);
	}
	count(&board->n_got);
	if (result->epoch > 1)
		count(&board->n_promoted);
}

static void flight_check(unsigned key, const ipc_flight *flight)
{
	struct ipc_flight_result result;
	int r = ipc_flight_get_result(flight, &result);

	if (r < 0)
		end_of(r, WRONG_RESULT);
	result_check(key, &result, result.data);
}

static void finish(unsigned key, ipc_flight *flight)
{
	static unsigned char bytes[RESULT_SIZE];
	uint64_t fence;
	size_t size;
	int r;

	r = ipc_flight_get_fence(flight, &fence);
	if (r < 0)
		end_of(r, WRONG_RESULT);
	size = size_of(key, fence);
	memset(bytes, byte_of(key, fence), size);
	lead_end(key);
	r = rand_r(&seed) % 4 ? ipc_flight_land(flight, bytes, size)
			      : ipc_flight_fail(flight, IPC_FAILURE_UPSTREAM, (int32_t)key - 100,
						bytes, size);
	if (r < 0)
		end_of(r, WRONG_RESULT);
	count(&board->n_flights);
}

static void lead(unsigned key, ipc_flight *flight, enum doing what)
{
	lead_begin(key, what);
	work();
	if (rand_r(&seed) % 8 == 0)
		lead_end(key);
	else
		finish(key, flight);
	if (ipc_flight_get_result(flight, &(struct ipc_flight_result){0}) == 0)
		flight_check(key, flight);
	ipc_flight_leave(flight);
	doing(IDLE);
}

/* Ends that a caller may be told of, besides a result and the lead. */
static void ended(int r, bool is_short)
{
	if (r == IPC_ETIMEDOUT && is_short)
		count(&board->n_timeouts);
	else if (r == IPC_EOWNERDEAD || r == IPC_EPIPE || r == IPC_ENOTCONN)
		count(&board->n_ended); /* too many leaders died, or all handlers */
	else if (r == IPC_ENOSPC)
		count(&board->n_full);
	else
		end_of(r, WRONG_RESULT);
	work();
}

static void joined(int r, unsigned key, ipc_flight *flight, bool is_short)
{
	if (r == 1) {
		lead(key, flight, LEADS);
	} else if (r == 0) {
		flight_check(key, flight);
		ipc_flight_leave(flight);
	} else {
		ended(r, is_short);
	}
	doing(IDLE);
}

static struct timespec deadline_of(bool is_short)
{
	return domain_deadline(is_short ? (unsigned)rand_r(&seed) % 2 : WAIT_MS);
}

/* Joins without waiting, then waits, is cancelled or just goes. */
static void join_and_look(unsigned key, const char *text)
{
	bool is_short = rand_r(&seed) % 4 == 0;
	struct timespec deadline = deadline_of(is_short);
	ipc_flight *flight = NULL;
	int r;

	r = ipc_flight_join(&flight, table, text, 2);
	if (r == 2 && rand_r(&seed) % 8 == 0) {
		r = ipc_flight_cancel(flight);
		r = r < 0 ? r : ipc_flight_look_wait(flight, &deadline);
		if (r == IPC_ECANCELED) {
			count(&board->n_cancelled);
			ipc_flight_leave(flight);
			return;
		}
	} else if (r == 2) {
		doing(WAITS);
		r = ipc_flight_look_wait(flight, &deadline);
	}
	joined(r, key, flight, is_short);
	if (r < 0)
		ipc_flight_leave(flight);
}

static int do_it(ipc_flight *flight, const void *text, size_t size, void *userdata)
{
	unsigned key = *(unsigned *)userdata;

	if (size != 2 || ((const char *)text)[1] != (char)('a' + key))
		end_of(0, WRONG_BYTES);
	lead_begin(key, LEADS);
	work();
	finish(key, flight);
	return 0;
}

static void do_wait(unsigned key, const char *text)
{
	static unsigned char buffer[RESULT_SIZE];
	struct timespec deadline = deadline_of(false);
	struct ipc_flight_result result;
	int r;

	doing(WAITS);
	r = ipc_flight_do_wait(table, text, 2, do_it, &key, buffer, sizeof(buffer), &result,
			       &deadline);
	doing(IDLE);
	if (r >= 0)
		result_check(key, &result, buffer);
	else
		ended(r, false);
}

static void call_once(void)
{
	unsigned key = (unsigned)rand_r(&seed) % N_KEYS;
	bool is_short = rand_r(&seed) % 4 == 0;
	struct timespec deadline = deadline_of(is_short);
	char text[2] = {'k', (char)('a' + key)};
	ipc_flight *flight = NULL;
	int r;

	switch (rand_r(&seed) % 4) {
	case 0:
		join_and_look(key, text);
		return;
	case 1:
		do_wait(key, text);
		return;
	case 2:
		count(&board->n_asked);
		doing(WAITS);
		r = ipc_flight_ask_wait(&flight, table, text, 2, (uint32_t)rand_r(&seed) % 3,
					&deadline);
		if (r == 1)
			end_of(r, WRONG_RESULT);
		break;
	default:
		doing(WAITS);
		r = ipc_flight_join_wait(&flight, table, text, 2, &deadline);
		break;
	}
	joined(r, key, flight, is_short);
}

static const struct ipc_flight_table_options *options(uint64_t flags)
{
	static struct ipc_flight_table_options the_options = IPC_FLIGHT_TABLE_OPTIONS_INIT;

	the_options.flags = flags;
	the_options.keys_max = KEYS_MAX;
	the_options.attempts_max = 4;
	the_options.key_size_max = 8;
	the_options.result_size_max = RESULT_SIZE;
	return &the_options;
}

static int table_open(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	client = domain_connect(&domain);
	return ipc_flight_table_open_wait(&table, client, NAME, options(IPC_CREATE), &deadline);
}

static void caller_run(void)
{
	int r = table_open();

	if (r < 0)
		end_of(r, WRONG_RESULT);
	for (;;)
		call_once();
}

static void handler_run(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	int r;

	client = domain_connect(&domain);
	r = ipc_handler_open_wait(&handler, client, NAME, options(IPC_CREATE | IPC_STAY),
				  &deadline);
	if (r < 0)
		end_of(r, WRONG_RESULT);
	for (;;) {
		ipc_flight *flight;
		const void *text;
		size_t size;

		/* A key that waits is seen by its asker; a handler may wait for ever. */
		deadline = domain_deadline(WAIT_MS);
		r = ipc_handler_take_wait(&flight, handler, &deadline);
		if (r == IPC_ETIMEDOUT)
			continue;
		if (r < 0)
			end_of(r, WRONG_RESULT);
		count(&board->n_taken);
		r = ipc_flight_get_key(flight, &text, &size);
		if (r < 0 || size != 2)
			end_of(r, WRONG_RESULT);
		lead((unsigned)(((const char *)text)[1] - 'a'), flight, HANDLES);
	}
}

/* ---- the killer ---- */

static void hire(unsigned i)
{
	atomic_store(&board->doing[i], IDLE);
	pids[i] = process_fork();
	if (pids[i] != 0)
		return;

	me = i;
	seed = (unsigned)getpid();
	if (i % 2)
		setenv("IPC_CRASH", "random:4000", 1);
	else
		unsetenv("IPC_CRASH");
	if (i < N_CALLERS)
		caller_run();
	else
		handler_run();
}

static void mourn(unsigned i, int status)
{
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		domain_show_log(&domain);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		  "worker %u ended with status 0x%x, result %d", i, (unsigned)status,
		  atomic_load(&board->result));
	count(&board->n_killed[atomic_load(&board->doing[i])]);
	hire(i);
}

static void reap_all(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < N; ++i) {
			if (pids[i] == pid)
				mourn(i, status);
		}
	}
}

static uint64_t n_killed(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < 4; ++i)
		n += atomic_load(&board->n_killed[i]);
	return n;
}

/* Mostly in the middle of something. */
static void await_busy(unsigned victim, unsigned *luck)
{
	enum doing wanted = victim >= N_CALLERS ? HANDLES : rand_r(luck) % 2 ? LEADS : WAITS;

	for (unsigned i = 0; i < 60 && atomic_load(&board->doing[victim]) != wanted; ++i)
		(void)sched_yield();
	for (unsigned spin = (unsigned)rand_r(luck) % 20000; spin > 0; --spin)
		__asm__ __volatile__("");
}

/* One is killed after each flight that was flown, somewhere in what it does then. */
static void kill_them(uint64_t n_kills, uint64_t n_flights)
{
	unsigned luck = (unsigned)getpid();
	uint64_t seen = 0;

	while (n_killed() < n_kills || atomic_load(&board->n_flights) < n_flights) {
		struct timespec limit = process_deadline(2 * WAIT_MS);
		unsigned victim = (unsigned)rand_r(&luck) % N;
		int status;

		while (atomic_load(&board->n_flights) == seen) {
			cr_assert(!process_has_passed(&limit), "nothing flew for 60 s");
			reap_all();
			process_pause();
		}
		seen = atomic_load(&board->n_flights);
		reap_all();
		if (n_killed() >= n_kills)
			continue;
		await_busy(victim, &luck);

		cr_assert_eq(kill(pids[victim], SIGKILL), 0);
		cr_assert_eq(waitpid(pids[victim], &status, 0), pids[victim]);
		mourn(victim, status);
	}

	for (unsigned i = 0; i < N; ++i) {
		(void)kill(pids[i], SIGKILL);
		(void)waitpid(pids[i], NULL, 0);
	}
}

static void expect_empty_and_usable(void)
{
	struct timespec limit = process_deadline(WAIT_MS);
	ipc_flight *flights[KEYS_MAX + 1] = {0};
	int n;

	/* Until the broker has told of the last deaths. */
	while ((n = ipc_flight_table_count(table)) != 0) {
		cr_assert(!process_has_passed(&limit), "%d keys are in flight for ever", n);
		process_pause();
	}
	for (unsigned i = 0; i <= KEYS_MAX; ++i) {
		char key[] = {'_', (char)('a' + i)};
		int r = ipc_flight_join(&flights[i], table, key, sizeof(key));

		cr_expect_eq(r, i < KEYS_MAX ? 1 : IPC_ENOSPC, "key %u: %d", i, r);
	}
	for (unsigned i = 0; i <= KEYS_MAX; ++i)
		ipc_flight_leave(flights[i]);
}

static void show_counts(void)
{
	cr_log_info("%ju flights, %ju results, %ju of them by who was promoted, %ju ended, %ju "
		    "timeouts, %ju cancelled, "
		    "%ju full, %ju asked, %ju taken",
		    (uintmax_t)board->n_flights, (uintmax_t)board->n_got,
		    (uintmax_t)board->n_promoted, (uintmax_t)board->n_ended,
		    (uintmax_t)board->n_timeouts, (uintmax_t)board->n_cancelled,
		    (uintmax_t)board->n_full, (uintmax_t)board->n_asked, (uintmax_t)board->n_taken);
	cr_log_info("killed: %ju idle, %ju waiting, %ju leading, %ju handling",
		    (uintmax_t)board->n_killed[IDLE], (uintmax_t)board->n_killed[WAITS],
		    (uintmax_t)board->n_killed[LEADS], (uintmax_t)board->n_killed[HANDLES]);
}

/* F-1, F-2, F-4, F-5, F-9, F-13, M-25 */
Test(flight, one_leads_and_all_get_its_bytes_under_random_kills, .timeout = 600)
{
	uint64_t n_kills = number_of("IPC_STRESS_KILLS", KILLS_DEFAULT);
	struct leaks leaks;

	leaks_begin(&leaks);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(board, MAP_FAILED);
	domain_start(&domain, NULL);
	cr_assert_eq(table_open(), 0);
	for (unsigned i = 0; i < N; ++i)
		hire(i);
	kill_them(n_kills, number_of("IPC_STRESS_FLIGHTS", FLIGHTS_DEFAULT));
	show_counts();
	expect_empty_and_usable();
	cr_expect_gt(board->n_promoted, 0, "nobody was promoted");
	cr_expect_gt(board->n_killed[LEADS], n_kills / 100, "hardly a leader was killed");
	cr_expect_gt(board->n_killed[WAITS], n_kills / 100, "hardly a follower was killed");
	cr_expect_gt(board->n_killed[HANDLES], n_kills / 100, "hardly a handler was killed");

	table = ipc_flight_table_close(table);
	ipc_client_unref(client);
	domain_stop(&domain);
	munmap(board, sizeof(*board));
	leaks_check(&leaks);
}
