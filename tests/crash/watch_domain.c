/* SPDX-License-Identifier: MIT */
/*
 * Kill at every instruction, end to end: watch through the public interface, with a broker.  A
 * consumer waits in a process of its own, and after each death it has what was committed, and the
 * end if it is one, told by the broker and not by a slice running out.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/process.h"
#include "tests/support/step.h"
#include "tests/support/wakes.h"

#define NAME "crash/watch"

enum { WORDS = 8 };

/* Shared by the test, the consumer and the child that is killed. */
struct scene {
	_Atomic uint32_t round;   /* the child: it has opened */
	_Atomic uint32_t waiting; /* the consumer: it is about to wait in this round */
	_Atomic uint32_t ended;   /* the consumer: its wait ended in this round */
	_Atomic uint32_t got;     /* the consumer: version */
	_Atomic int32_t result;   /* the consumer: of the wait that ended */
	_Atomic uint32_t n_torn;
	uint64_t number, version; /* the latest, as the test knows it */
	long n_waits, n_changed;
};

static struct domain domain;
static ipc_client *client;
static ipc_watch_producer *producer;
static ipc_watch_consumer *consumer;
static struct actor peer;
static struct scene *scene;

/* ---- what everybody does ---- */

static void fill(uint64_t *words, uint64_t number)
{
	for (unsigned i = 0; i < WORDS; ++i)
		words[i] = number;
}

static int publish(ipc_watch_producer *by, uint64_t number)
{
	uint64_t words[WORDS];

	fill(words, number);
	return ipc_watch_publish(by, words, sizeof(words));
}

static void set(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store(word, value);
	futex_wake_all(word);
}

/* False after 30 s. */
static bool until(_Atomic uint32_t *word, uint32_t value)
{
	uint64_t limit = clock_after_ns(30 * NS_PER_S);

	for (uint32_t now = atomic_load(word); now < value; now = atomic_load(word)) {
		struct futex_word sleep = {.word = word, .expected = now};

		if (clock_now_ns() >= limit)
			return false;
		futex_sleep(&sleep, 1, limit);
	}
	return true;
}

/* ---- the consumer that waits ---- */

static void consume_round(ipc_watch_consumer *own, uint32_t round, uint64_t *version)
{
	uint64_t words[WORDS];
	int r;

	set(&scene->waiting, round);
	do {
		r = ipc_watch_read_wait(own, words, sizeof(words), NULL, version, NULL);
		if (r < 0)
			break;
		for (unsigned i = 1; i < WORDS; ++i)
			atomic_fetch_add(&scene->n_torn, words[i] != words[0]);
		set(&scene->got, (uint32_t)*version);
	} while (r == 0);

	atomic_store(&scene->result, r);
	set(&scene->ended, round);
}

static void consume(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_consumer *mine;
	uint64_t version = 0;

	(void)arg;
	if (ipc_watch_consumer_open_wait(&mine, own, NAME, NULL, NULL) < 0)
		_exit(1);
	actor_say(self, 0);
	for (uint32_t round = 1;; ++round) {
		while (!until(&scene->round, round))
			;
		consume_round(mine, round, &version);
	}
}

/* What is asked of the waiting consumer comes, and not only when a slice is over. */
static void expect(_Atomic uint32_t *word, uint32_t value, long n, const char *what)
{
	uint64_t began = clock_now_ns();

	cr_assert(until(word, value), "killed before instruction %ld: the consumer did not %s", n,
		  what);
	scene->n_waits++;
	ASSERT_WOKEN(began);
	cr_assert_eq(atomic_load(&scene->n_torn), 0);
}

/* ---- the scene ---- */

static void setup(void)
{
	WAKES_TELL();
	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(scene, MAP_FAILED);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	cr_assert_eq(ipc_watch_consumer_open_wait(&consumer, client, NAME,
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);
	actor_start(&peer, consume, NULL);
	cr_assert_eq(actor_hear(&peer), 0);
	scene->number = 100;
}

static void teardown(void)
{
	actor_kill(&peer);
	producer = ipc_watch_producer_close(producer);
	consumer = ipc_watch_consumer_close(consumer);
	client = ipc_client_unref(client);
	domain_stop(&domain);
	munmap(scene, sizeof(*scene));
}

/* Another producer, which stays: then a death ends nothing. */
static void open_survivor(void)
{
	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, NAME, NULL, NULL), 0);
	cr_assert_eq(publish(producer, scene->number), 0);
	scene->version = 1;
	set(&scene->round, 1);
	cr_assert(until(&scene->got, 1));
}

/* The value is what it was, or the next number as a whole. */
static void check_value(long n)
{
	uint64_t words[WORDS] = {0}, version = 0;
	int r;

	r = ipc_watch_read(consumer, words, sizeof(words), NULL, &version);
	cr_assert(r == 0 || (r == IPC_EAGAIN && scene->version == 0),
		  "killed before instruction %ld: %s", n, ipc_error_name(r));
	if (r < 0)
		return;

	for (unsigned i = 1; i < WORDS; ++i)
		cr_assert_eq(words[i], words[0], "killed before instruction %ld", n);
	if (version == scene->version) {
		cr_assert_eq(words[0], scene->number, "killed before instruction %ld", n);
		return;
	}

	cr_assert_eq(version, scene->version + 1, "killed before instruction %ld", n);
	cr_assert_eq(words[0], scene->number + 1, "killed before instruction %ld", n);
	scene->version = version;
	scene->number = words[0];
	scene->n_changed++;
}

static void check_points(long n_points, bool changes)
{
	cr_log_info("%ld kill points, %ld after the change; %ld waits", n_points, scene->n_changed,
		    scene->n_waits);
	cr_assert_gt(n_points, 20);
	if (changes) {
		cr_assert_gt(scene->n_changed, 0);
		cr_assert_lt(scene->n_changed, n_points);
	}
}

/* ---- the child that is killed ---- */

static ipc_client *child_client;
static ipc_watch_producer *child_producer;
static ipc_watch_consumer *child_consumer;

static void child_open_producer(void *arg)
{
	(void)arg;
	child_client = domain_connect(&domain);
	if (ipc_watch_producer_open_wait(&child_producer, child_client, NAME, NULL, NULL) < 0)
		_exit(1);
}

/* As the only producer: the consumer waits for this one. */
static void child_begin_round(void *arg)
{
	uint32_t round = atomic_load(&scene->round) + 1;

	child_open_producer(arg);
	set(&scene->round, round);
	if (!until(&scene->waiting, round))
		_exit(1);
}

static void child_publish(void *arg)
{
	(void)arg;
	if (publish(child_producer, scene->number + 1) < 0)
		_exit(1);
}

static void child_edit(void)
{
	size_t size, size_max;
	void *edited;

	if (ipc_watch_edit_wait(child_producer, &edited, &size, &size_max, NULL) < 0)
		_exit(1);
	fill(edited, scene->number + 1);
}

static void child_begin_round_and_edit(void *arg)
{
	child_begin_round(arg);
	child_edit();
}

static void child_open_and_edit(void *arg)
{
	child_open_producer(arg);
	child_edit();
}

static void child_commit(void *arg)
{
	(void)arg;
	if (ipc_watch_commit(child_producer, WORDS * 8) < 0)
		_exit(1);
}

static void child_open_consumer(void *arg)
{
	int r;

	(void)arg;
	child_client = domain_connect(&domain);
	r = ipc_watch_consumer_open_wait(&child_consumer, child_client, NAME, NULL, NULL);
	if (r < 0)
		_exit(-r);
}

static void child_read_wait(void *arg)
{
	uint64_t words[WORDS], version = scene->version;

	(void)arg;
	if (ipc_watch_read_wait(child_consumer, words, sizeof(words), NULL, &version, NULL) != 0)
		_exit(1);
}

/* ---- after each death ---- */

/* Another producer is there: the consumer gets what was committed, and what the other publishes
 * now. */
static void check_survivor(void *arg, long n)
{
	(void)arg;
	check_value(n);
	expect(&scene->got, (uint32_t)scene->version, n, "get what was committed");

	scene->number += 10;
	scene->version++;
	cr_assert_eq(publish(producer, scene->number), 0, "killed before instruction %ld", n);
	expect(&scene->got, (uint32_t)scene->version, n, "get what the next producer published");
}

/* It was the only producer: the consumer gets what was committed, then the end. */
static void check_end(void *arg, long n)
{
	(void)arg;
	expect(&scene->ended, atomic_load(&scene->round), n, "see the end");
	cr_assert_eq(atomic_load(&scene->result), IPC_EOWNERDEAD,
		     "killed before instruction %ld: %s", n,
		     ipc_error_name(atomic_load(&scene->result)));
	check_value(n);
	cr_assert_eq(atomic_load(&scene->got), scene->version,
		     "killed before instruction %ld: the last value was not seen before the end",
		     n);
}

/* W-3, M-25, M-27 */
Test(crash_watch_domain, publish_beside_another_producer, .init = setup, .fini = teardown,
     .timeout = 700)
{
	const struct step_case step = {.prepare = child_open_producer,
				       .operation = child_publish,
				       .check = check_survivor};

	open_survivor();
	check_points(step_run(&step, NULL), true);
}

/* W-3, W-5, W-6, M-21 */
Test(crash_watch_domain, publish_of_the_only_producer, .init = setup, .fini = teardown,
     .timeout = 700)
{
	const struct step_case step = {
		.prepare = child_begin_round, .operation = child_publish, .check = check_end};

	check_points(step_run(&step, NULL), true);
}

/* W-3, M-25 */
Test(crash_watch_domain, commit_beside_another_producer, .init = setup, .fini = teardown,
     .timeout = 700)
{
	const struct step_case step = {
		.prepare = child_open_and_edit, .operation = child_commit, .check = check_survivor};

	open_survivor();
	check_points(step_run(&step, NULL), true);
}

/* W-3, W-5, W-6 */
Test(crash_watch_domain, commit_of_the_only_producer, .init = setup, .fini = teardown,
     .timeout = 700)
{
	const struct step_case step = {.prepare = child_begin_round_and_edit,
				       .operation = child_commit,
				       .check = check_end};

	check_points(step_run(&step, NULL), true);
}

/* M-26: every instruction is killed at in the structure's own test; here there are ten thousand,
 * most of them yields. */
Test(crash_watch_domain, read_wait_beside_another_consumer, .init = setup, .fini = teardown,
     .timeout = 700)
{
	const struct step_case step = {.prepare = child_open_consumer,
				       .operation = child_read_wait,
				       .check = check_survivor,
				       .stride = 7};

	open_survivor();
	check_points(step_run(&step, NULL), false);
}

/* ---- the other way round: the last publish and the end, at every instruction of a look ---- */

enum { GOT_VALUE = 0, GOT_NOTHING = 1, GOT_END_ONLY = 2, GOT_WRONG = 3 };

static void look_once(void)
{
	uint64_t words[WORDS] = {0}, version = scene->version;
	int r;

	child_open_consumer(NULL);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	r = ipc_watch_read_next(child_consumer, words, sizeof(words), NULL, &version);
	raise(SIGSTOP);

	if (r == 0)
		_exit(version == scene->version + 1 && words[0] == scene->number + 1 ? GOT_VALUE
										     : GOT_WRONG);
	_exit(r == IPC_EAGAIN ? GOT_NOTHING : r == IPC_EPIPE ? GOT_END_ONLY : GOT_WRONG);
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, __WALL) < 0)
		cr_assert_eq(errno, EINTR);
	return status;
}

/* Publishes and closes before the n-th instruction of the look; what the look gave.  *ret_over: it
 * was over before. */
static int end_before(long n, bool *ret_over)
{
	pid_t pid = process_fork();
	int status;

	if (pid == 0)
		look_once();

	status = wait_for(pid);
	for (long i = 0; i < n; ++i) {
		ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
		status = wait_for(pid);
		if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP)
			break;
	}
	*ret_over = n > 0 && WSTOPSIG(status) == SIGSTOP;

	cr_assert_eq(publish(producer, scene->number + 1), 0);
	producer = ipc_watch_producer_close(producer);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, NULL), 0);

	ptrace(PTRACE_CONT, pid, NULL, NULL);
	if (!*ret_over) {
		(void)wait_for(pid); /* the stop after the look */
		ptrace(PTRACE_CONT, pid, NULL, NULL);
	}
	status = wait_for(pid);
	cr_assert(WIFEXITED(status), "before instruction %ld: %x", n, status);
	return WEXITSTATUS(status);
}

/* W-5, M-21: whoever sees the end has seen the value that came before it */
Test(crash_watch_domain, no_look_sees_the_end_without_the_last_value, .init = setup,
     .fini = teardown, .timeout = 700)
{
	long counts[4] = {0};
	bool is_over = false;

	scene->version = 0;
	for (long n = 0; !is_over; ++n) {
		int got;

		cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, NAME, NULL, NULL), 0);
		got = end_before(n, &is_over);
		cr_assert_neq(got, GOT_END_ONLY,
			      "the end without the value, before instruction %ld", n);
		cr_assert_neq(got, GOT_WRONG, "before instruction %ld", n);
		counts[got]++;
		scene->version++;
		scene->number++;
	}

	cr_log_info("%ld looks got the value, %ld came too early for it", counts[GOT_VALUE],
		    counts[GOT_NOTHING]);
	cr_assert_gt(counts[GOT_VALUE], 10);
	cr_assert_gt(counts[GOT_NOTHING], 0);
}
