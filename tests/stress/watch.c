/* SPDX-License-Identifier: MIT */
/*
 * Producers and consumers of one watch, killed at random: by the test's SIGKILL at any instruction,
 *and by their own crash points.  The broker's worker is killed now and then as well.  Nobody rests:
 *whoever dies is replaced at once.
 *
 *	IPC_STRESS_KILLS   how many, default 2000
 *
 * What must hold, always: no value is torn, no version goes back for anybody, every publish that a
 *producer was told of is one version, each death adds at most one more, and at the end every wait
 *ends.
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

#define NAME "stress/watch"

enum {
	WORDS = 24,
	N_PRODUCERS = 3,
	N_CONSUMERS = 3,
	N = N_PRODUCERS + N_CONSUMERS,
	KILLS_DEFAULT = 2000
};

/* Exit statuses: none of them is a death by SIGKILL. */
enum { TORN = 10, WENT_BACK, WRONG_RESULT, SHUT_DOWN };

struct board {
	_Atomic uint64_t n_told;  /* publishes and commits that returned 0 */
	_Atomic uint64_t version; /* the newest that anybody has read */
	_Atomic uint64_t n_reads, n_waits, n_edits;
	_Atomic uint32_t works[N]; /* has done something since it was started */
	_Atomic int32_t result;    /* the wrong one */
};

static struct board *board;
static struct domain domain;
static pid_t pids[N];

static unsigned n_kills_wanted(void)
{
	const char *text = getenv("IPC_STRESS_KILLS");

	return text ? (unsigned)strtoul(text, NULL, 10) : KILLS_DEFAULT;
}

static void wrong(int result)
{
	atomic_store(&board->result, result);
	_exit(WRONG_RESULT);
}

static void fill(uint64_t *words, uint64_t number)
{
	for (unsigned i = 0; i < WORDS; ++i)
		words[i] = number;
}

/* ---- producers ---- */

/* 0: it is one version now; 1: nothing happened, and that is all right. */
static int edit_once(ipc_watch_producer *producer, uint64_t number, bool commit)
{
	size_t size, size_max;
	void *value;
	int r;

	r = ipc_watch_edit_wait(producer, &value, &size, &size_max, NULL);
	if (r < 0)
		return r;
	if (size != 0 && size != WORDS * 8)
		_exit(TORN);

	fill(value, number);
	atomic_fetch_add(&board->n_edits, 1);
	if (commit)
		return ipc_watch_commit(producer, WORDS * 8);

	r = ipc_watch_abort(producer);
	return r < 0 ? r : 1;
}

static int produce_once(ipc_watch_producer *producer, unsigned *seed)
{
	uint64_t words[WORDS];
	int r;

	fill(words, (uint64_t)rand_r(seed) << 20 ^ (uint64_t)rand_r(seed));
	switch (rand_r(seed) % 8) {
	case 0:
		return edit_once(producer, words[0], false);
	case 1:
	case 2:
		return edit_once(producer, words[0], true);
	case 3:
		return ipc_watch_publish_wait(producer, words, sizeof(words), NULL);
	default:
		r = ipc_watch_publish(producer, words, sizeof(words));
		return r == IPC_EBUSY ? 1 : r;
	}
}

static void produce(ipc_client *client, _Atomic uint32_t *works, unsigned seed)
{
	ipc_watch_producer *producer;
	int r;

	r = ipc_watch_producer_open_wait(&producer, client, NAME, NULL, NULL);
	if (r < 0)
		wrong(r);

	for (;;) {
		r = produce_once(producer, &seed);
		if (r == IPC_EPIPE)
			_exit(SHUT_DOWN);
		if (r < 0)
			wrong(r);
		if (r == 0)
			atomic_fetch_add(&board->n_told, 1);
		atomic_store(works, 1);
	}
}

/* ---- consumers ---- */

static int consume_once(ipc_watch_consumer *consumer, uint64_t *words, uint64_t *version,
			unsigned *seed)
{
	size_t size = 0;
	int r;

	if (rand_r(seed) % 2) {
		r = ipc_watch_read_wait(consumer, words, WORDS * 8, &size, version, NULL);
		atomic_fetch_add(&board->n_waits, 1);
	} else {
		r = ipc_watch_read(consumer, words, WORDS * 8, &size, version);
		if (r == IPC_EAGAIN)
			return r;
		atomic_fetch_add(&board->n_reads, 1);
	}

	if (r == 0 && size != WORDS * 8)
		_exit(TORN);
	return r;
}

static void consume(ipc_client *client, _Atomic uint32_t *works, unsigned seed)
{
	uint64_t words[WORDS], version = 0;
	ipc_watch_consumer *consumer;
	int r;

	r = ipc_watch_consumer_open_wait(&consumer, client, NAME, NULL, NULL);
	if (r < 0)
		wrong(r);

	for (;;) {
		uint64_t newest = atomic_load(&board->version), mine = version;

		r = consume_once(consumer, words, &version, &seed);
		atomic_store(works, 1);
		if (r == IPC_EAGAIN || r == IPC_EOWNERDEAD)
			continue; /* for a moment all producers may be dead */
		if (r == IPC_EPIPE)
			_exit(SHUT_DOWN);
		if (r < 0)
			wrong(r);

		for (unsigned i = 1; i < WORDS; ++i)
			if (words[i] != words[0])
				_exit(TORN);
		if (version < mine || version < newest)
			_exit(WENT_BACK);
		while (version > newest &&
		       !atomic_compare_exchange_weak(&board->version, &newest, version))
			;
	}
}

/* ---- the test ---- */

static void start(unsigned i, unsigned seed)
{
	atomic_store(&board->works[i], 0);
	pids[i] = process_fork();
	if (pids[i] == 0) {
		char wish[32];
		ipc_client *client;

		/* One in so many crash points is the last: sometimes the test is first, sometimes
		 * they are. */
		snprintf(wish, sizeof(wish), "random:%u", 2000 + seed % 4000);
		setenv("IPC_CRASH", wish, 1);
		client = domain_connect(&domain);
		if (i < N_PRODUCERS)
			produce(client, &board->works[i], seed);
		else
			consume(client, &board->works[i], seed);
		_exit(0);
	}
}

/* Whether it died as it may: killed.  Everything else is a finding. */
static void check_death(unsigned i, int status)
{
	cr_assert_eq(status, 128 + SIGKILL, "%s %u ended with %d (%s)",
		     i < N_PRODUCERS ? "producer" : "consumer", i, status,
		     ipc_error_name(atomic_load(&board->result)));
}

/* Until it has done something, or died: so that the kill falls into work, not into opening. */
static void until_works(unsigned i)
{
	struct timespec deadline = process_deadline(60000);

	while (!atomic_load(&board->works[i])) {
		siginfo_t info = {0};

		if (waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    info.si_pid)
			return;
		cr_assert(!process_has_passed(&deadline), "%s %u does nothing",
			  i < N_PRODUCERS ? "producer" : "consumer", i);
		sched_yield();
	}
}

static void kill_one(unsigned i, unsigned seed)
{
	until_works(i);
	for (unsigned k = seed % 3; k > 0; --k)
		sched_yield();
	kill(pids[i], SIGKILL);
	check_death(i, process_reap(pids[i], 20000));
}

/* The last ones are not killed: they have to see the shutdown. */
static void finish(ipc_watch_producer *producer)
{
	for (unsigned i = 0; i < N; ++i) {
		int status;

		if (i == 0)
			cr_assert_eq(ipc_watch_shutdown(producer), 0);
		status = process_reap(pids[i], 20000);
		cr_assert(status == SHUT_DOWN || status == 128 + SIGKILL, "%u ended with %d (%s)",
			  i, status, ipc_error_name(atomic_load(&board->result)));
	}
}

/* W-2, W-3, W-5, W-16, M-25, M-31 */
Test(stress_watch, deaths_at_random_lose_nothing_and_stop_nobody, .timeout = 280)
{
	const unsigned n_kills = n_kills_wanted();
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	uint64_t words[WORDS], version = 0, n_told;
	struct leaks leaks;
	ipc_client *client;
	unsigned seed = 1;

	leaks_begin(&leaks);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(board, MAP_FAILED);
	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, NAME,
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);
	cr_assert_eq(ipc_watch_consumer_open_wait(&consumer, client, NAME, NULL, NULL), 0);

	for (unsigned i = 0; i < N; ++i)
		start(i, i);
	for (unsigned k = 0; k < n_kills; ++k) {
		unsigned i = (unsigned)rand_r(&seed) % N;

		kill_one(i, (unsigned)rand_r(&seed));
		start(i, k + N);
		if (k % 100 == 99)
			domain_kill_worker(&domain);
	}
	for (unsigned i = 0; i < N; ++i)
		until_works(i);
	finish(producer);

	n_told = atomic_load(&board->n_told);
	cr_assert_eq(ipc_watch_read(consumer, words, sizeof(words), NULL, &version), 0);
	cr_assert_geq(version, n_told, "of %lu publishes only %lu are there", n_told, version);
	cr_assert_leq(version, n_told + n_kills + N, "%lu publishes made %lu versions", n_told,
		      version);
	cr_log_info("%u kills, %lu publishes (%lu edits), %lu reads, %lu waits", n_kills, version,
		    atomic_load(&board->n_edits), atomic_load(&board->n_reads),
		    atomic_load(&board->n_waits));

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
	ipc_client_unref(client);
	domain_stop(&domain);
	munmap(board, sizeof(*board));
	leaks_check(&leaks);
}
