/* SPDX-License-Identifier: MIT */
/*
 * ipcctl limit, with programs that a shell runs.  Each adds a line to $DIR/runs, and most then wait
 * for a line from the pipe $DIR/gate.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/support/failure.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/program.h"

#define N_MAX  8
#define END_MS 30000

static struct program callers[N_MAX];
static int gate;

static const char *in_dir(const char *name)
{
	static char path[4][400];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", fixture_domain.dir, name);
	return path[i];
}

static void setup(void)
{
	fixture_setup();
	setenv("DIR", fixture_domain.dir, 1);
	cr_assert_eq(mkfifo(in_dir("gate"), 0600), 0);
	gate = open(in_dir("gate"), O_RDWR | O_CLOEXEC);
	cr_assert_geq(gate, 0);
}

static void teardown(void)
{
	for (unsigned i = 0; i < N_MAX; ++i)
		program_forget(&callers[i]);
	close(gate);
	fixture_teardown();
}

TestSuite(ctl_limit, .init = setup, .fini = teardown, .timeout = 100);

static void start_args(unsigned i, const char *const *args)
{
	program_start_ctl(&callers[i], fixture_domain.address, args, "input", 5);
}

#define START(i, ...)       start_args(i, (const char *const[]){__VA_ARGS__, NULL})
#define START_SH(i, script) START(i, "limit", "jobs", "2", "--", "sh", "-c", script)

/* Says its process id, and runs until it gets a line. */
#define RUNS "echo $$ >>$DIR/runs; read line <$DIR/gate; exit 5"

static int end(unsigned i)
{
	program_end(&callers[i], END_MS);
	return callers[i].status;
}

/* The process ids of all runs so far. */
static unsigned runs(pid_t pids[N_MAX])
{
	FILE *file = fopen(in_dir("runs"), "re");
	unsigned n = 0;
	int pid;

	if (!file)
		return 0;
	while (n < N_MAX && fscanf(file, "%d", &pid) == 1)
		pids[n++] = pid;
	fclose(file);
	return n;
}

static void until_runs(unsigned n)
{
	struct timespec deadline = process_deadline(END_MS);
	pid_t pids[N_MAX];

	while (runs(pids) < n) {
		if (process_has_passed(&deadline))
			failure("%u runs, wanted %u", runs(pids), n);
		process_pause();
	}
}

static void until_gone(pid_t pid)
{
	struct timespec deadline = process_deadline(END_MS);

	while (kill(pid, 0) == 0 && !process_has_passed(&deadline))
		process_pause();
	cr_assert_eq(kill(pid, 0), -1, "process %d is left", (int)pid);
}

static void until_waiters(unsigned n)
{
	struct timespec deadline = process_deadline(END_MS);
	struct ipc_channel_info info = {0};

	while ((info_of("jobs", &info) < 0 || info.waiters != n) && !process_has_passed(&deadline))
		process_pause();
	cr_assert_eq(info.waiters, n);
}

static void let_go(void)
{
	cr_assert_eq(write(gate, "\n", 1), 1);
}

/* */
Test(ctl_limit, no_more_than_n_run_at_a_time)
{
	pid_t pids[N_MAX];

	for (unsigned i = 0; i < 4; ++i)
		START_SH(i, RUNS);
	until_runs(2);
	until_waiters(2);
	cr_expect_eq(runs(pids), 2);

	let_go();
	until_runs(3);
	until_waiters(1);
	for (unsigned i = 0; i < 3; ++i)
		let_go();
	for (unsigned i = 0; i < 4; ++i)
		cr_expect_eq(end(i), 5);
	cr_expect_eq(runs(pids), 4);
}

/* its permit is free at once, and its program is not left running. */
Test(ctl_limit, a_killed_one_gives_back_at_once)
{
	struct ipc_channel_info info;
	pid_t pids[N_MAX];

	for (unsigned i = 0; i < 3; ++i)
		START_SH(i, RUNS);
	until_runs(2);
	until_waiters(1);
	cr_assert_eq(runs(pids), 2);

	/* One of the two that run, and not the one that waits. */
	for (unsigned i = 0; i < 3; ++i) {
		char text[64];

		snprintf(text, sizeof(text), "/proc/%d/stat", (int)pids[0]);
		FILE *file = fopen(text, "re");
		int pid, parent;

		cr_assert(file);
		cr_assert_eq(fscanf(file, "%d (%*[^)]) %*c %d", &pid, &parent), 2);
		fclose(file);
		if (parent == callers[i].pid) {
			kill(callers[i].pid, SIGKILL);
			cr_expect_eq(end(i), 128 + SIGKILL);
			break;
		}
	}

	until_gone(pids[0]);
	until_runs(3);
	until_waiters(0);
	cr_assert_eq(info_of("jobs", &info), 0);
	cr_expect_eq(info.depth, 2);
	for (unsigned i = 0; i < 2; ++i)
		let_go();
	for (unsigned i = 0; i < 3; ++i)
		if (callers[i].pid)
			cr_expect_eq(end(i), 5);
}

/* */
Test(ctl_limit, ends_as_its_program)
{
	START_SH(0, "kill -TERM $$");
	START(1, "limit", "jobs", "2", "--", "/nonexistent");
	START(2, "limit", "jobs", "2", "--", "/dev/null");
	START_SH(3, "cat; echo to stderr >&2; exit 0");

	cr_expect_eq(end(0), 128 + SIGTERM);
	cr_expect_eq(end(1), 127);
	cr_expect_eq(end(2), 126);
	cr_expect_eq(end(3), 0);
	cr_expect_str_eq(callers[3].out, "input", "it has the terminal to itself");
	cr_expect_str_eq(callers[3].err, "to stderr\n");
}

/* */
Test(ctl_limit, signals_are_passed_on)
{
	START_SH(0, "trap 'exit 7' TERM; echo $$ >>$DIR/runs; while :; do sleep 0.01; done");
	until_runs(1);

	kill(callers[0].pid, SIGTERM);

	cr_expect_eq(end(0), 7);
}

/* */
Test(ctl_limit, gives_up_after_its_time)
{
	START(0, "limit", "jobs", "1", "--", "sh", "-c", RUNS);
	until_runs(1);

	START(1, "--timeout", "0.1", "limit", "jobs", "1", "--", "echo", "ran");

	cr_expect_eq(end(1), 124);
	cr_expect_eq(callers[1].out_size, 0);
	let_go();
	cr_expect_eq(end(0), 5);
}

/* */
Test(ctl_limit, what_is_its_own_failure_is_told)
{
	START(0, "limit", "jobs", "1", "--", "sh", "-c", RUNS);
	until_runs(1);

	START(1, "limit", "jobs", "2", "--", "echo", "ran");
	cr_expect_eq(end(1), 125, "another number");
	cr_expect(strstr(callers[1].err, "IPC_EPROTOTYPE"), "%s", callers[1].err);
	let_go();
	cr_expect_eq(end(0), 5);
}

/* */
Test(ctl_limit, usage_errors_are_told)
{
	static const char *const wrong[] = {"0", "-1", "x", "1x", "4294967296", ""};

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
		START(0, "limit", "jobs", wrong[i], "--", "true");
		cr_expect_eq(end(0), 2, "%s", wrong[i]);
		program_forget(&callers[0]);
	}
	START(1, "limit", "jobs", "2");
	START(2, "limit", "jobs", "--", "true");
	START(3, "limit", "jobs", "2", "3", "--", "true");
	for (unsigned i = 1; i < 4; ++i)
		cr_expect_eq(end(i), 2);
}

/* */
Test(ctl_limit, stalled_shows_permits)
{
	START_SH(0, RUNS);
	until_runs(1);

	START(1, "stalled", "--over", "1ns");
	cr_expect_eq(end(1), 0);
	cr_expect(strstr(callers[1].out, "permits"), "%s", callers[1].out);
	let_go();
	cr_expect_eq(end(0), 5);
}
