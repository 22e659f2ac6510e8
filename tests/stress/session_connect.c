/* SPDX-License-Identifier: MIT */
/*
 * Short conversations without end: processes that connect, talk and close, detach, or give the
 * connect up; and listeners, several of one name, that hold many sessions each, without any key.
 * All of them are killed at random, and the broker's worker all along.  What a listener that was
 * killed had accepted, the next one is given back.
 *
 *	IPC_STRESS_SESSION_KILLS     how many, default 200
 *	IPC_STRESS_SESSION_SECONDS   how long at least, default 1
 *
 * What must hold: each number that a client says is answered once, in its order, whoever answers;
 * no session is lost before its window has passed; and at the end the broker has nothing of them.
 */
#include <criterion/criterion.h>
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

#define NAME "stress/connect"

enum {
	N_LISTENERS = 2,
	N_CLIENTS = 3,
	N = N_LISTENERS + N_CLIENTS,
	HELD_MAX = IPC_WAIT_ITEMS_MAX - 1, /* sessions of a listener */
	NUMBERS_MAX = 12,
	WINDOW_MS = 1000,
	WORKER_MS = 200,
	WAIT_MS = 30000,
};

struct board {
	_Atomic uint32_t is_closing, is_over; /* clients end; listeners end */
	_Atomic uint32_t wrong_line;
	_Atomic int32_t wrong_value;
	_Atomic uint64_t n_talks, n_answers, n_taken_back, n_again, n_given_up, n_detached, n_lost,
		n_in_vain;
};

static struct board *board;
static struct domain domain;
static pid_t pids[N];
static unsigned seed;
static ipc_client *client;
static uint64_t n_killed, n_workers;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void wrong(int line, int value)
{
	uint32_t none = 0;

	if (atomic_compare_exchange_strong(&board->wrong_line, &none, (uint32_t)line))
		atomic_store(&board->wrong_value, value);
	_exit(1);
}

/* value: what is shown if it does not hold. */
#define HOLDS(condition, value)                                                                    \
	do {                                                                                       \
		if (!(condition))                                                                  \
			wrong(__LINE__, (int)(value));                                             \
	} while (0)

/* ---- listeners ---- */

static ipc_session *held[HELD_MAX];
static bool was_away[HELD_MAX]; /* taken back, not new */
static unsigned n_held;

static void accept_one(ipc_listener *listener)
{
	ipc_session *session;
	int r = ipc_listener_accept(listener, &session);

	if (r == IPC_EAGAIN)
		return; /* readiness is a hint */
	HOLDS(r == 0 || r == 1, r);
	atomic_fetch_add(&board->n_taken_back, r);
	was_away[n_held] = r == 1;
	held[n_held++] = session;
}

/* Answered and done with in one step (C-12): whoever is killed here has answered or not. */
static int answer(ipc_session *session, const struct ipc_session_message *number)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	void *data;
	int r;

	HOLDS(number->size == sizeof(uint32_t), number->size);
	if (number->flags & IPC_MESSAGE_REDELIVERED)
		atomic_fetch_add(&board->n_again, 1);
	else if (getenv("IPC_CRASH") && rand_r(&seed) % 100 == 0)
		(void)raise(SIGKILL); /* with the number in its hands */
	r = ipc_session_claim_wait(session, number->size, &data, &deadline);
	if (r == 0) {
		memcpy(data, number->data, number->size);
		r = ipc_session_commit_release(session, data, number->size, number);
	}
	return r;
}

/* A worker that dies while it offers what was away offers that again, to whoever is next. */
static bool is_ended(unsigned i, int r)
{
	if (r == 0 || r == IPC_EAGAIN)
		return false;
	HOLDS(r == IPC_EPIPE || r == IPC_EOWNERDEAD || (r == IPC_ESTALE && was_away[i]), r);
	if (r == IPC_ESTALE)
		atomic_fetch_add(&board->n_in_vain, 1);
	return true;
}

static void serve(unsigned i)
{
	struct ipc_session_message number;
	int r = ipc_session_receive(held[i], &number);

	if (r == 0)
		r = answer(held[i], &number);
	if (!is_ended(i, r))
		return;
	ipc_session_close(held[i]);
	held[i] = held[--n_held];
	was_away[i] = was_away[n_held];
}

static void listener_run(void)
{
	struct ipc_wait_item items[HELD_MAX + 1];
	ipc_listener *listener;
	int r;

	client = domain_connect(&domain);
	r = ipc_listener_open_wait(
		&listener, client, NAME,
		IPC_SESSION_OPTIONS(.flags = IPC_CREATE, .capacity = 4096,
				    .resume_window_ns = UINT64_C(1000000) * WINDOW_MS),
		NULL);
	HOLDS(r == 0, r);
	while (!atomic_load(&board->is_over)) {
		struct timespec deadline = domain_deadline(20);

		/* The sessions first: so each is served before there are more. */
		for (unsigned i = 0; i < n_held; ++i)
			items[i] = (struct ipc_wait_item){.handle = held[i],
							  .events = IPC_READY_READABLE};
		items[n_held] =
			(struct ipc_wait_item){.handle = n_held < HELD_MAX ? listener : NULL,
					       .events = IPC_READY_READABLE};
		r = ipc_wait_any(items, n_held + 1, &deadline);
		if (r == IPC_ETIMEDOUT)
			continue;
		HOLDS(r >= 0, r);
		if (items[r].handle == listener)
			accept_one(listener);
		else
			serve((unsigned)r);
	}
	while (n_held > 0)
		ipc_session_close(held[--n_held]);
	ipc_listener_close(listener);
	ipc_client_unref(client);
	process_end(0);
}

/* ---- clients ---- */

static ipc_session *connect_some(void)
{
	struct timespec deadline =
		domain_deadline(rand_r(&seed) % 4 ? WAIT_MS : (unsigned)rand_r(&seed) % 2);
	uint64_t flags = rand_r(&seed) % 4 ? IPC_AWAIT : 0;
	ipc_session *session;
	int r;

	r = ipc_session_connect_wait(&session, client, NAME, IPC_SESSION_OPTIONS(.flags = flags),
				     &deadline);
	if (r == 0)
		return session;

	/* C-15: without IPC_AWAIT the last listener's end ends it. */
	HOLDS(r == IPC_ETIMEDOUT ||
		      (!flags && (r == IPC_ENOENT || r == IPC_EPIPE || r == IPC_EOWNERDEAD)),
	      r);
	atomic_fetch_add(&board->n_given_up, 1);
	return NULL;
}

/* C-2: how long nobody was there.  True: the session is lost, and may be. */
static bool is_lost(int r, const struct timespec *not_before)
{
	if (r != IPC_EOWNERDEAD)
		return false;
	HOLDS(process_has_passed(not_before), r);
	atomic_fetch_add(&board->n_lost, 1);
	return true;
}

/* One number: true: answered. */
static bool ask(ipc_session *session, uint32_t number)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct timespec not_before = process_deadline(WINDOW_MS * 9 / 10);
	struct ipc_session_message got;
	uint32_t echo;
	int r;

	r = ipc_session_send_wait(session, &number, sizeof(number), &deadline);
	if (r == 0)
		r = ipc_session_receive_wait(session, &got, &deadline);
	if (is_lost(r, &not_before))
		return false;
	HOLDS(r == 0, r);
	HOLDS(got.sequence == number && got.size == sizeof(echo) && got.flags == 0, got.sequence);
	memcpy(&echo, got.data, sizeof(echo));
	HOLDS(echo == number, echo);
	r = ipc_session_release(session, &got);
	HOLDS(r == 0, r);
	atomic_fetch_add(&board->n_answers, 1);
	return true;
}

static void talk(ipc_session *session)
{
	uint32_t n = (uint32_t)rand_r(&seed) % NUMBERS_MAX, number = 1;

	while (number <= n && ask(session, number))
		++number;
	atomic_fetch_add(&board->n_talks, 1);
	if (rand_r(&seed) % 16 == 0) {
		/* Left away, and nobody comes back. */
		atomic_fetch_add(&board->n_detached, 1);
		ipc_session_detach(session);
	} else {
		ipc_session_close(session);
	}
}

static void client_run(void)
{
	client = domain_connect(&domain);
	while (!atomic_load(&board->is_closing)) {
		ipc_session *session = connect_some();

		if (session)
			talk(session);
	}
	ipc_client_unref(client);
	process_end(0);
}

/* ---- the killer ---- */

static void hire(unsigned i, bool is_mortal)
{
	pids[i] = process_fork();
	if (pids[i] != 0)
		return;

	seed = (unsigned)getpid();
	if (is_mortal && seed % 2)
		setenv("IPC_CRASH", "random:5000", 1);
	else
		unsetenv("IPC_CRASH");
	if (i < N_LISTENERS)
		listener_run();
	else
		client_run();
}

static void mourn(unsigned i, int status, bool is_mortal)
{
	bool is_right = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

	if (!is_right)
		domain_show_log(&domain);
	cr_assert(is_right, "process %u: status 0x%x, line %u, value %d", i, (unsigned)status,
		  atomic_load(&board->wrong_line), atomic_load(&board->wrong_value));
	++n_killed;
	hire(i, is_mortal);
}

static void reap_all(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < N; ++i) {
			if (pids[i] == pid)
				mourn(i, status, true);
		}
	}
}

static void kill_one(unsigned i, bool is_mortal)
{
	int status;

	(void)kill(pids[i], SIGKILL);
	cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]);
	mourn(i, status, is_mortal);
}

static void kill_worker(struct timespec *next)
{
	if (!process_has_passed(next))
		return;
	(void)kill(domain_worker(&domain), SIGKILL);
	*next = process_deadline(WORKER_MS);
	++n_workers;
}

static void kill_them(uint64_t n_kills, unsigned seconds)
{
	struct timespec until = process_deadline(seconds * 1000), worker = process_deadline(0);
	unsigned luck = (unsigned)getpid();

	while (n_killed < n_kills || !process_has_passed(&until)) {
		struct timespec limit = process_deadline(2 * WAIT_MS);
		uint64_t wanted = atomic_load(&board->n_answers) + (unsigned)rand_r(&luck) % 40;

		while (atomic_load(&board->n_answers) < wanted) {
			cr_assert(!process_has_passed(&limit), "nothing was answered for 60 s");
			kill_worker(&worker);
			reap_all();
			process_pause();
		}
		for (unsigned spin = (unsigned)rand_r(&luck) % 20000; spin > 0; --spin)
			__asm__ __volatile__("");
		kill_one((unsigned)rand_r(&luck) % N, true);
	}
}

/* ---- the end ---- */

static void end_in_order(unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; ++i) {
		int status = process_reap(pids[i], 2 * WAIT_MS);

		cr_assert_eq(status, 0, "process %u: status %d, line %u, value %d", i, status,
			     atomic_load(&board->wrong_line), atomic_load(&board->wrong_value));
	}
}

static int count_session(const struct ipc_session_info *info, void *userdata)
{
	unsigned *n = userdata;

	(void)info;
	++*n;
	return 0;
}

/* What was left by those who were killed ends with its window. */
static void expect_nothing_left(unsigned n_before)
{
	struct timespec limit = process_deadline(WAIT_MS + WINDOW_MS);
	unsigned n;

	do {
		struct timespec deadline = domain_deadline(WAIT_MS);
		int r;

		n = 0;
		r = ipc_session_list_wait(client, NAME, count_session, &n, &deadline);
		cr_assert(r == 0 || r == IPC_ENOENT, "%s", ipc_error_name(r));
		cr_assert(!process_has_passed(&limit), "%u sessions, %u descriptors, before %u", n,
			  leaks_fds_of(domain.keeper), n_before);
		process_pause();
	} while (n > 0 || leaks_fds_of(domain.keeper) > n_before);
}

static void show_figures(void)
{
	cr_log_info(
		"%ju kills, %ju of the worker; %ju sessions, %ju answers, %ju numbers came again "
		"to another listener; %ju sessions taken back, %ju of them in vain, %ju lost, %ju "
		"detached; %ju "
		"connects given up",
		(uintmax_t)n_killed, (uintmax_t)n_workers, (uintmax_t)board->n_talks,
		(uintmax_t)board->n_answers, (uintmax_t)board->n_again,
		(uintmax_t)board->n_taken_back, (uintmax_t)board->n_in_vain,
		(uintmax_t)board->n_lost, (uintmax_t)board->n_detached,
		(uintmax_t)board->n_given_up);
	cr_expect(board->n_taken_back > 0 && board->n_given_up > 0 && board->n_again > 0);
}

/* C-2, C-9, C-12, C-13, C-15, C-16, M-31 */
Test(session_connect, sessions_outlive_listeners_under_random_kills, .timeout = 900)
{
	struct leaks leaks;
	unsigned n_before;

	leaks_begin(&leaks);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(board, MAP_FAILED);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	n_before = domain_fds_before(&domain);
	for (unsigned i = 0; i < N; ++i)
		hire(i, true);

	kill_them(number_of("IPC_STRESS_SESSION_KILLS", 200),
		  (unsigned)number_of("IPC_STRESS_SESSION_SECONDS", 1));
	for (unsigned i = 0; i < N; ++i)
		kill_one(i, false);
	atomic_store(&board->is_closing, 1);
	end_in_order(N_LISTENERS, N_CLIENTS);
	atomic_store(&board->is_over, 1);
	end_in_order(0, N_LISTENERS);

	show_figures();
	expect_nothing_left(n_before);
	ipc_client_unref(client);
	domain_stop(&domain);
	munmap(board, sizeof(*board));
	leaks_check(&leaks);
}
