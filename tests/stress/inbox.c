/* SPDX-License-Identifier: MIT */
/*
 * Several kept inboxes, each with a runner and a shard that are killed at random, by the test's
 * SIGKILL at any instruction and by their own crash points, one or both, while the broker's worker
 * is killed every 200 ms.  Whoever dies is replaced at once; each finds out by the inbox where to
 * go on.
 *
 *	IPC_STRESS_KILLS      how many of runners and shards, default 400
 *	IPC_STRESS_SECONDS    how long at least, default 3
 *
 * The primary is a function: the mutation of an offset sets one key to a value that follows from
 * generation and offset, so everybody knows what the state is before any offset.  A replica lies in
 * memory that survives its shard: two copies, of which one counts, the other one is being loaded.
 *
 * What must hold: a shard gets what the rules allow in its state, and nothing else; END comes after
 * all chunks only; frames come in order, from what was applied on; what was told to be applied is
 * in the replica; positions never go back within a generation, and applied <= received <= written;
 * in the end each replica is what its primary is.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <ipc/ipc.h>

#include "tests/stress/inbox_board.h"
#include "tests/stress/inbox_runner.h"
#include "tests/stress/inbox_shard.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

static struct domain domain;
static pid_t pids[N];

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- the observer ---- */

static void positions_check(unsigned i, struct ipc_inbox_positions *last,
			    const struct ipc_inbox_positions *now)
{
	REQUIRE(now->snapshot_wanted >= last->snapshot_wanted, WRONG_POSITIONS);
	REQUIRE(now->generation != last->generation || now->written >= last->written,
		WRONG_POSITIONS);
	REQUIRE(now->applied_generation != last->applied_generation ||
			now->applied >= last->applied,
		WRONG_POSITIONS);
	REQUIRE(now->generation != now->applied_generation ||
			(now->applied <= now->received && now->received <= now->written),
		WRONG_POSITIONS);
	REQUIRE(now->depth <= now->depth_max && now->depth_max <= options(i)->capacity,
		WRONG_POSITIONS);
	*last = *now;
}

/* It was said to be applied: it is in the replica, unless that is a later one already (I-12). */
static void applied_check(ipc_inbox_observer *observer, unsigned i, uint64_t of_generation,
			  uint64_t offset)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	const struct replica *of = &board->replicas[i];
	uint64_t n_flips = atomic_load(&of->n_flips);
	const struct copy *copy = &of->copies[n_flips % 2];
	uint64_t its_generation = atomic_load(&copy->generation), next = atomic_load(&copy->next);

	if (atomic_load(&of->n_flips) != n_flips)
		return;
	if (its_generation == of_generation) {
		REQUIRE(next >= offset, NOT_APPLIED);
	} else if (ipc_inbox_observer_get_positions(observer, &positions) == 0) {
		REQUIRE(positions.generation != of_generation, NOT_APPLIED);
	}
	count(&board->n_reads);
}

static void observe(ipc_inbox_observer *observer, unsigned i, struct ipc_inbox_positions *last)
{
	struct ipc_inbox_positions now = {.size = sizeof(now)};
	struct timespec deadline = domain_deadline(2);
	uint64_t offset;
	int r;

	r = ipc_inbox_observer_get_positions(observer, &now);
	if (r == IPC_EAGAIN)
		return; /* it moves all the time */
	MUST(r);
	positions_check(i, last, &now);
	count(&board->n_looks);

	offset = now.written - chance(20);
	r = ipc_inbox_observer_applied_wait(observer, now.generation, offset, &deadline);
	if (r == 0)
		applied_check(observer, i, now.generation, offset);
	else
		REQUIRE(r == IPC_ETIMEDOUT || r == IPC_ESTALE || is_gone(r), WRONG_RESULT);
}

static ipc_inbox_observer *observer_open(unsigned i)
{
	struct timespec limit = process_deadline(WAIT_MS);
	ipc_inbox_observer *observer;
	int r;

	while ((r = ipc_inbox_observer_open_wait(&observer, client, inbox_name(i), NULL)) ==
		       IPC_ENOENT &&
	       !process_has_passed(&limit))
		process_pause();
	MUST(r);
	return observer;
}

static void observer_run(void)
{
	struct ipc_inbox_positions last[INBOXES] = {0};
	ipc_inbox_observer *observers[INBOXES];

	for (unsigned i = 0; i < INBOXES; ++i)
		observers[i] = observer_open(i);
	for (unsigned i = 0;; i = (i + 1) % INBOXES)
		observe(observers[i], i, &last[i]);
}

/* ---- the killer ---- */

static void hire(unsigned i)
{
	pids[i] = process_fork();
	if (pids[i] != 0)
		return;

	inbox = i / 2;
	seed = (unsigned)getpid();
	if (i != OBSERVER && chance(2))
		setenv("IPC_CRASH", "random:4000", 1);
	else
		unsetenv("IPC_CRASH");
	client = domain_connect(&domain);
	if (i == OBSERVER)
		observer_run();
	else if (i % 2)
		shard_run();
	else
		runner_run();
}

static void mourn(unsigned i, int status)
{
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		domain_show_log(&domain);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		  "process %u ended with status 0x%x, line %u, result %s", i, (unsigned)status,
		  atomic_load(&board->line), ipc_error_name(atomic_load(&board->result)));
	count(&board->n_killed);
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

/* The next ones are hired when all of them are dead. */
static void kill_those(unsigned first, unsigned n)
{
	int status[2];

	for (unsigned i = 0; i < n; ++i)
		cr_assert_eq(kill(pids[first + i], SIGKILL), 0);
	for (unsigned i = 0; i < n; ++i)
		cr_assert_eq(waitpid(pids[first + i], &status[i], 0), pids[first + i]);
	for (unsigned i = 0; i < n; ++i)
		mourn(first + i, status[i]);
}

static void show(unsigned i)
{
	struct ipc_inbox_positions now = {.size = sizeof(now)};
	ipc_inbox_observer *observer = observer_open(i);

	if (ipc_inbox_observer_get_positions(observer, &now) == 0)
		cr_log_error(
			"inbox %u: written %ju, received %ju, applied %ju, generations %ju %ju, "
			"wanted %ju, depth %ju; primary %ju of %ju",
			i, (uintmax_t)now.written, (uintmax_t)now.received, (uintmax_t)now.applied,
			(uintmax_t)now.generation, (uintmax_t)now.applied_generation,
			(uintmax_t)now.snapshot_wanted, (uintmax_t)now.depth,
			(uintmax_t)board->primaries[i].next,
			(uintmax_t)board->primaries[i].generation);
	(void)ipc_inbox_observer_close(observer);
}

static void kill_worker_in_time(struct timespec *next)
{
	if (!process_has_passed(next))
		return;

	domain_kill_worker(&domain);
	*next = process_deadline(WORKER_MS);
}

static void until_it_moves(unsigned i, struct timespec *next_worker)
{
	struct timespec limit = process_deadline(WAIT_MS);
	uint64_t seen = atomic_load(&board->n_done[i]);

	while (atomic_load(&board->n_done[i]) < seen + 20) {
		if (process_has_passed(&limit))
			show(i);
		cr_assert(!process_has_passed(&limit), "inbox %u stands still", i);
		reap_all();
		kill_worker_in_time(next_worker);
		process_pause();
	}
}

static void kill_them(uint64_t n_kills, unsigned seconds)
{
	struct timespec until = process_deadline(seconds * 1000);
	struct timespec next_worker = process_deadline(WORKER_MS);

	while (atomic_load(&board->n_killed) < n_kills || !process_has_passed(&until)) {
		unsigned i = chance(INBOXES);

		/* Now and then before it has come to anything. */
		if (chance(4))
			until_it_moves(i, &next_worker);
		reap_all();
		kill_worker_in_time(&next_worker);
		for (unsigned spin = chance(200000); spin > 0; --spin)
			__asm__ __volatile__("");
		if (chance(6) == 0)
			kill_those(2 * i, 2);
		else
			kill_those(2 * i + chance(2), 1);
		if (chance(50) == 0)
			kill_those(OBSERVER, 1);
	}
}

/* ---- the end ---- */

/* The primaries rest, but for those who were about to change them. */
static void rest(void)
{
	atomic_store(&board->is_producing, 0);
	for (unsigned i = 0; i < INBOXES; ++i)
		kill_those(2 * i, 1);
}

static void until_applied(unsigned i)
{
	const struct primary *primary = &board->primaries[i];
	struct timespec limit = process_deadline(WAIT_MS);
	ipc_inbox_observer *observer = observer_open(i);
	int r;

	/* There may be no shard for a moment, or no snapshot of this generation yet. */
	do {
		struct timespec deadline = process_deadline(100);

		r = ipc_inbox_observer_applied_wait(observer, atomic_load(&primary->generation),
						    atomic_load(&primary->next), &deadline);
		reap_all();
		if (r < 0)
			process_pause();
	} while (r < 0 && !process_has_passed(&limit));
	if (r < 0)
		show(i);
	cr_assert_eq(r, 0, "inbox %u: %s", i, ipc_error_name(r));
	(void)ipc_inbox_observer_close(observer);
}

static void expect_equal(unsigned i)
{
	uint64_t of_generation = atomic_load(&board->primaries[i].generation);
	uint64_t next = atomic_load(&board->primaries[i].next);
	const struct replica *of = &board->replicas[i];
	const struct copy *copy = &of->copies[atomic_load(&of->n_flips) % 2];
	unsigned n_wrong = 0;

	for (uint64_t key = 0; key < KEYS; ++key)
		n_wrong += copy->values[key] != value_before(of_generation, next, key);
	cr_expect_eq(atomic_load(&copy->generation), of_generation);
	cr_expect_eq(atomic_load(&copy->next), next);
	cr_expect_eq(n_wrong, 0, "inbox %u: %u keys are not what they are at the primary", i,
		     n_wrong);
}

static void dismiss(void)
{
	for (unsigned i = 0; i < N; ++i) {
		(void)kill(pids[i], SIGKILL);
		(void)waitpid(pids[i], NULL, 0);
	}
	for (unsigned i = 0; i < INBOXES; ++i)
		cr_expect_eq(ipc_channel_remove_wait(client, inbox_name(i), 0, NULL), 0);
}

static void tell(void)
{
	cr_log_info("%ju frames, %ju again, %ju snapshots, %ju chunks, %ju of them by descriptor, "
		    "%ju gaps, %ju requests, %ju overflows, %ju ends, %ju killed",
		    (uintmax_t)board->n_frames, (uintmax_t)board->n_again,
		    (uintmax_t)board->n_snapshots, (uintmax_t)(board->n_chunks),
		    (uintmax_t)board->n_chunk_fds, (uintmax_t)board->n_gaps,
		    (uintmax_t)board->n_requests, (uintmax_t)board->n_overflows,
		    (uintmax_t)board->n_ends, (uintmax_t)board->n_killed);
	cr_log_info("aborts: died %ju, closed %ju, restarted %ju, collapsed %ju, receiver %ju, "
		    "aborted %ju; %ju looks at positions, %ju reads of what was applied",
		    (uintmax_t)board->n_aborts[1], (uintmax_t)board->n_aborts[2],
		    (uintmax_t)board->n_aborts[3], (uintmax_t)board->n_aborts[4],
		    (uintmax_t)board->n_aborts[5], (uintmax_t)board->n_aborts[6],
		    (uintmax_t)board->n_looks, (uintmax_t)board->n_reads);
}

/* I-1 to I-14, M-4, M-22, M-25 */
Test(inbox, every_replica_is_its_primary_after_random_kills, .timeout = 1200)
{
	struct leaks leaks;

	leaks_begin(&leaks);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(board, MAP_FAILED);
	atomic_store(&board->is_producing, 1);
	seed = (unsigned)getpid();
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	for (unsigned i = 0; i < INBOXES; ++i)
		primary_begin(&board->primaries[i], &seed);
	for (unsigned i = 0; i < N; ++i)
		hire(i);

	kill_them(number_of("IPC_STRESS_KILLS", 400), (unsigned)number_of("IPC_STRESS_SECONDS", 3));
	rest();
	for (unsigned i = 0; i < INBOXES; ++i)
		until_applied(i);
	dismiss();
	for (unsigned i = 0; i < INBOXES; ++i)
		expect_equal(i);
	tell();

	ipc_client_unref(client);
	domain_stop(&domain);
	munmap(board, sizeof(*board));
	leaks_check(&leaks);
}
