/* SPDX-License-Identifier: MIT */
/*
 * Sessions under load in both directions, whose ends are killed at random, by the test at any
 * instruction and by their own crash points: one, both at once, while they come back; or are
 * overtaken by the next process while they live, go on calling, or are stopped.  They come back by
 * their key, or as the listener.  The broker's worker is killed all along.
 *
 *	IPC_STRESS_SESSION_KILLS     how many, default 300
 *	IPC_STRESS_SESSION_SECONDS   how long at least, default 2
 *
 * What must hold is in tests/support/session_end.h; and at the end the broker has nothing of them.
 */
#include <criterion/criterion.h>
#include <signal.h>
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
#include "tests/support/session_end.h"

enum {
	N_TALKS = 3,
	N_SEATS = 2 * N_TALKS,
	WORKER_MS = 200,
	STOPPED_KILLS = 3, /* a stopped process goes on after so many */
};

/* An end, and the process that has it. */
struct seat {
	struct talk *talk;
	unsigned side;
	pid_t pid;
	pid_t old; /* that was overtaken, or will be in a moment; 0: none */
	unsigned old_stopped;
	uint32_t listened; /* the last life that came back as the listener */
};

static struct domain domain;
static ipc_client *client;
static struct talk *talks; /* shared with the processes */
static struct seat seats[N_SEATS];
static bool is_mortal; /* whether ends have crash points of their own */
static uint64_t n_killed, n_overtakings, n_listened, n_workers;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static struct talk_end *end_of(const struct seat *seat)
{
	return &seat->talk->ends[seat->side];
}

/* ---- processes ---- */

static void hire(struct seat *seat, enum talk_way way)
{
	uint32_t life = atomic_fetch_add(&end_of(seat)->life, 1) + 1;

	if (way == TALK_AS_LISTENER) {
		seat->listened = life;
		++n_listened;
	}
	seat->pid = process_fork();
	if (seat->pid != 0)
		return;

	if (is_mortal && life % 2)
		setenv("IPC_CRASH", "random:20000", 1);
	else
		unsetenv("IPC_CRASH");
	talk_run(&domain, seat->talk, seat->side, life, way);
}

static void expect_killed(const struct seat *seat, int status)
{
	bool is_right = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

	if (!is_right)
		domain_show_log(&domain);
	cr_assert(is_right, "%s, side %u: status 0x%x, line %u of session_end.c, value %jd",
		  seat->talk->name, seat->side, (unsigned)status,
		  atomic_load(&seat->talk->wrong_line),
		  (intmax_t)atomic_load(&seat->talk->wrong_value));
	++n_killed;
}

/* Whoever was overtaken ends in order, or by its own crash point. */
static void old_ended(struct seat *seat, int status)
{
	seat->old = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		expect_killed(seat, status);
}

/*
 * Taking back keeps the newest key valid, beside the new one: that is the stored one if it was
 * confirmed and nobody came in between.  Else whoever is killed before it has stored the new key
 * comes back as the listener again.
 */
static bool key_is_valid(const struct seat *seat)
{
	const struct talk_end *end = end_of(seat);
	uint32_t ready = atomic_load(&end->ready);

	return seat->listened <= ready ||
	       (atomic_load(&end->confirmed) == ready && atomic_load(&end->life) == ready + 1);
}

static enum talk_way way_of(const struct seat *seat)
{
	return key_is_valid(seat) ? TALK_BY_KEY : TALK_AS_LISTENER;
}

static void reap_all(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < N_SEATS; ++i) {
			if (seats[i].pid == pid) {
				expect_killed(&seats[i], status);
				hire(&seats[i], way_of(&seats[i]));
			} else if (seats[i].old == pid) {
				old_ended(&seats[i], status);
			}
		}
	}
}

static void old_go_on(struct seat *seat)
{
	if (seat->old_stopped > 0 && --seat->old_stopped == 0 && seat->old > 0)
		(void)kill(seat->old, SIGCONT);
}

/* ---- what happens to them ---- */

static void end_now(struct seat *seat)
{
	int status;

	(void)kill(seat->pid, SIGKILL);
	cr_assert_eq(waitpid(seat->pid, &status, 0), seat->pid);
	expect_killed(seat, status);
}

/* C-9: what is away comes back without a key to who listens.  It is not away as long as somebody
 * is there to be overtaken. */
static enum talk_way any_way(const struct seat *seat, unsigned *luck)
{
	bool may_listen = seat->side == 0 && seat->old == 0;

	return may_listen && rand_r(luck) % 3 == 0 ? TALK_AS_LISTENER : way_of(seat);
}

static void kill_one(struct seat *seat, unsigned *luck)
{
	end_now(seat);
	hire(seat, any_way(seat, luck));
}

static void kill_both(struct talk *talk, unsigned *luck)
{
	struct seat *first = &seats[2 * (talk - talks)], *second = first + 1;

	(void)kill(first->pid, SIGKILL);
	end_now(second);
	end_now(first);
	if (rand_r(luck) % 2) {
		hire(second, way_of(second));
		hire(first, any_way(first, luck));
	} else {
		hire(first, any_way(first, luck));
		hire(second, way_of(second));
	}
}

/* C-3: the old process lives and goes on calling, or is stopped wherever it is. */
static void overtake(struct seat *seat, unsigned *luck)
{
	struct talk_end *end = end_of(seat);

	/* It will not write a key to the board any more. */
	if (seat->old > 0 || atomic_load(&end->ready) != atomic_load(&end->life))
		return;
	seat->old = seat->pid;
	if (rand_r(luck) % 2) {
		(void)kill(seat->old, SIGSTOP);
		seat->old_stopped = STOPPED_KILLS;
	}
	++n_overtakings;
	hire(seat, TALK_BY_KEY);
}

static void strike(unsigned *luck)
{
	struct seat *seat = &seats[(unsigned)rand_r(luck) % N_SEATS];

	for (unsigned spin = (unsigned)rand_r(luck) % 20000; spin > 0; --spin)
		__asm__ __volatile__("");
	switch (rand_r(luck) % 8) {
	case 0:
		kill_both(seat->talk, luck);
		break;
	case 1:
	case 2:
		overtake(seat, luck);
		break;
	case 3:
		/* The next one is killed while it comes back. */
		kill_one(seat, luck);
		for (unsigned spin = (unsigned)rand_r(luck) % 2000000; spin > 0; --spin)
			__asm__ __volatile__("");
		kill_one(seat, luck);
		break;
	default:
		kill_one(seat, luck);
		break;
	}
	for (unsigned i = 0; i < N_SEATS; ++i)
		old_go_on(&seats[i]);
}

static uint64_t n_checked(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < N_SEATS; ++i)
		n += atomic_load(&end_of(&seats[i])->checked);
	return n;
}

static void kill_worker(struct timespec *next)
{
	if (!process_has_passed(next))
		return;
	(void)kill(domain_worker(&domain), SIGKILL);
	*next = process_deadline(WORKER_MS);
	++n_workers;
}

/* Until so many more messages have come. */
static void go_on(uint64_t n, struct timespec *next_worker)
{
	struct timespec limit = process_deadline(2 * TALK_WAIT_MS);
	uint64_t wanted = n_checked() + n;

	while (n_checked() < wanted) {
		cr_assert(!process_has_passed(&limit), "no message came for 60 s");
		kill_worker(next_worker);
		reap_all();
		process_pause();
	}
}

static bool lives_are_left(void)
{
	for (unsigned i = 0; i < N_SEATS; ++i) {
		if (atomic_load(&end_of(&seats[i])->life) > TALK_LIVES_MAX - 100)
			return false;
	}
	return true;
}

static void kill_them(uint64_t n_kills, unsigned seconds)
{
	struct timespec until = process_deadline(seconds * 1000), worker = process_deadline(0);
	unsigned luck = (unsigned)getpid();

	while ((n_killed < n_kills || !process_has_passed(&until)) && lives_are_left()) {
		go_on((unsigned)rand_r(&luck) % 200, &worker);
		strike(&luck);
	}
}

/* ---- the beginning ---- */

static void start_talk(unsigned i)
{
	struct timespec limit = process_deadline(TALK_WAIT_MS);
	struct talk *talk = &talks[i];

	(void)snprintf(talk->name, sizeof(talk->name), "stress/session/%u", i);
	talk->asker = i % 2;
	talk->options = (struct ipc_session_options)IPC_SESSION_OPTIONS_INIT;
	talk->options.flags = IPC_CREATE;
	talk->options.capacity = 16384;
	talk->options.message_size_max = TALK_SIZE_MAX;
	talk->options.resume_window_ns = i % 2 ? UINT64_MAX : UINT64_C(60000000000);
	for (unsigned side = 0; side < 2; ++side) {
		struct seat *seat = &seats[2 * i + side];

		*seat = (struct seat){.talk = talk, .side = side};
		hire(seat, TALK_FIRST);
	}

	/* Who dies before its key is on the board loses the session. */
	while (!atomic_load(&talk->ends[0].ready) || !atomic_load(&talk->ends[1].ready)) {
		cr_assert(!process_has_passed(&limit), "%s does not begin", talk->name);
		reap_all();
		process_pause();
	}
}

/* ---- the end ---- */

/* Nobody has anything under way: seen twice, with something done in between, and the same. */
static bool is_quiet(const struct talk *talk)
{
	uint64_t sent[2], n_idle[2];

	for (unsigned i = 0; i < 2; ++i) {
		n_idle[i] = atomic_load(&talk->ends[i].n_idle);
		sent[i] = atomic_load(&talk->ends[i].sent);
		if (sent[i] != atomic_load(&talk->ends[i].acknowledged) ||
		    sent[i] != atomic_load(&talk->ends[!i].checked))
			return false;
	}
	for (unsigned i = 0; i < 2; ++i) {
		while (atomic_load(&talk->ends[i].n_idle) < n_idle[i] + 2) {
			reap_all();
			process_pause();
		}
	}
	return sent[0] == atomic_load(&talk->ends[0].sent) &&
	       sent[1] == atomic_load(&talk->ends[1].sent);
}

/* Those who are there at the end close in order. */
static void settle(void)
{
	struct timespec limit = process_deadline(2 * TALK_WAIT_MS);

	for (unsigned i = 0; i < N_SEATS; ++i) {
		seats[i].old_stopped = 1;
		old_go_on(&seats[i]);
		end_now(&seats[i]);
		--n_killed;
	}
	is_mortal = false;
	for (unsigned i = 0; i < N_SEATS; ++i)
		hire(&seats[i], way_of(&seats[i]));
	for (unsigned i = 0; i < N_TALKS; ++i)
		atomic_store(&talks[i].is_quiet, 1);
	for (unsigned i = 0; i < N_SEATS; ++i) {
		while (seats[i].old > 0 || !is_quiet(seats[i].talk)) {
			cr_assert(!process_has_passed(&limit), "%s does not come to rest",
				  seats[i].talk->name);
			reap_all();
			process_pause();
		}
	}
}

static void close_all(void)
{
	for (unsigned i = 0; i < N_TALKS; ++i)
		atomic_store(&talks[i].is_over, 1);
	for (unsigned i = 0; i < N_SEATS; ++i) {
		int status = process_reap(seats[i].pid, 2 * TALK_WAIT_MS);

		cr_assert_eq(status, 0,
			     "%s, side %u: status %d, line %u of session_end.c, value %jd",
			     seats[i].talk->name, seats[i].side, status,
			     atomic_load(&seats[i].talk->wrong_line),
			     (intmax_t)atomic_load(&seats[i].talk->wrong_value));
	}
}

/* What came back is there; what is there had begun. */
static void expect_lives(const struct seat *seat)
{
	const struct talk_end *end = end_of(seat);

	for (uint32_t life = 1; life <= atomic_load(&end->life); ++life) {
		for (unsigned stream = 0; stream < TALK_STREAMS; ++stream) {
			const struct talk_life *of_life = &end->lives[life];

			cr_assert(of_life->done[stream] <= of_life->heard[stream] &&
					  of_life->heard[stream] <= of_life->begun[stream],
				  "%s, side %u, life %u, stream %u: done %u, heard %ju, begun %u",
				  seat->talk->name, seat->side, life, stream, of_life->done[stream],
				  (uintmax_t)of_life->heard[stream], of_life->begun[stream]);
		}
	}
}

/* C-12: as many replies as requests, each to its own. */
static void expect_replies(const struct talk *talk)
{
	const struct talk_end *asker = &talk->ends[talk->asker],
			      *replier = &talk->ends[!talk->asker];
	const struct talk_step *asked = &replier->steps[replier->checked % TALK_STEPS];
	const struct talk_step *answered = &asker->steps[asker->checked % TALK_STEPS];

	cr_assert_eq(asked->n_asked, answered->n_answered, "%s: %ju requests, %ju replies",
		     talk->name, (uintmax_t)asked->n_asked, (uintmax_t)answered->n_answered);
	cr_assert_gt(asked->n_asked, 0);
}

static int count_session(const struct ipc_session_info *info, void *userdata)
{
	unsigned *n = userdata;

	(void)info;
	++*n;
	return 0;
}

static unsigned n_listed(const struct talk *talk)
{
	struct timespec deadline = domain_deadline(TALK_WAIT_MS);
	unsigned n = 0;
	int r = ipc_session_list_wait(client, talk->name, count_session, &n, &deadline);

	cr_assert(r == 0 || r == IPC_ENOENT, "%s: %s", talk->name, ipc_error_name(r));
	return n;
}

/* Sessions; and segments, socket pairs, clients: whatever the keeper has. */
static void expect_nothing_left(unsigned n_before)
{
	struct timespec limit = process_deadline(TALK_WAIT_MS);

	for (unsigned i = 0; i < N_TALKS; ++i) {
		while (n_listed(&talks[i]) > 0) {
			cr_assert(!process_has_passed(&limit), "%s is still there", talks[i].name);
			process_pause();
		}
	}
	while (leaks_fds_of(domain.keeper) > n_before) {
		cr_assert(!process_has_passed(&limit), "the keeper has %u descriptors, before %u",
			  leaks_fds_of(domain.keeper), n_before);
		process_pause();
	}
}

static void show_figures(void)
{
	uint64_t n_again = 0, n_fds = 0, n_fds_lost = 0, n_replies = 0, n_overtaken = 0,
		 n_voids = 0;

	for (unsigned i = 0; i < N_SEATS; ++i) {
		const struct talk_end *end = end_of(&seats[i]);

		n_again += end->n_again;
		n_fds += end->n_fds;
		n_fds_lost += end->n_fds_lost;
		n_replies += end->n_replies;
		n_overtaken += end->n_overtaken;
		n_voids += end->n_voids;
	}
	cr_log_info("%ju kills, %ju of the worker; %ju messages, %ju came again, %ju replies, %ju "
		    "descriptors, %ju lost with their receivers; %ju came back as listeners; %ju "
		    "overtaken alive, %ju of them told so; %ju void keys",
		    (uintmax_t)n_killed, (uintmax_t)n_workers, (uintmax_t)n_checked(),
		    (uintmax_t)n_again, (uintmax_t)n_replies, (uintmax_t)n_fds,
		    (uintmax_t)n_fds_lost, (uintmax_t)n_listened, (uintmax_t)n_overtakings,
		    (uintmax_t)n_overtaken, (uintmax_t)n_voids);
	cr_expect(n_again > 0 && n_fds > 0 && n_overtaken > 0 && n_listened > 0);
}

/* C-1, C-3, C-4, C-5, C-6, C-8, C-9, C-11, C-12, C-14, M-31 */
Test(session, streams_are_exact_under_random_kills, .timeout = 900)
{
	const size_t size = N_TALKS * sizeof(struct talk);
	struct leaks leaks;
	unsigned n_before;

	leaks_begin(&leaks);
	talks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(talks, MAP_FAILED);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	n_before = domain_fds_before(&domain);
	for (unsigned i = 0; i < N_TALKS; ++i)
		start_talk(i);
	for (unsigned i = 0; i < N_TALKS; ++i)
		cr_assert_eq(n_listed(&talks[i]), 1);

	is_mortal = true;
	kill_them(number_of("IPC_STRESS_SESSION_KILLS", 300),
		  (unsigned)number_of("IPC_STRESS_SESSION_SECONDS", 2));
	settle();
	close_all();

	for (unsigned i = 0; i < N_SEATS; ++i)
		expect_lives(&seats[i]);
	for (unsigned i = 0; i < N_TALKS; ++i)
		expect_replies(&talks[i]);
	show_figures();
	expect_nothing_left(n_before);
	ipc_client_unref(client);
	domain_stop(&domain);
	munmap(talks, size);
	leaks_check(&leaks);
}
