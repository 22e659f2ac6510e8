/* SPDX-License-Identifier: MIT */

/*
 * ipcctl once, with programs that a shell runs.  Each run of the program adds a line to $DIR/runs,
 * and most then wait for a line from the pipe $DIR/gate.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/support/failure.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/program.h"

#define N_MAX  8
#define END_MS 30000
#define LARGE  (5u << 20)

static struct program callers[N_MAX];
static int gate;
static char table_name[64], name_of_file[NAME_MAX + 1];

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
	snprintf(table_name, sizeof(table_name), "ipcctl.once.%u", (unsigned)geteuid());
	setenv("DIR", fixture_domain.dir, 1);
	setenv("TMPDIR", fixture_domain.dir, 1);
	cr_assert_eq(mkfifo(in_dir("gate"), 0600), 0);
	gate = open(in_dir("gate"), O_RDWR | O_CLOEXEC);
	cr_assert_geq(gate, 0);
}

/* Files of outputs, and the name of one of them. */
static unsigned n_files(void)
{
	DIR *dir = opendir(fixture_domain.dir);
	struct dirent *entry;
	unsigned n = 0;

	cr_assert(dir);
	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, "ipcctl-once-", 12) == 0) {
			snprintf(name_of_file, sizeof(name_of_file), "%s", entry->d_name);
			++n;
		}
	}
	closedir(dir);
	return n;
}

/* Of the only one, when it is there. */
static const char *until_file(void)
{
	struct timespec deadline = process_deadline(END_MS);

	while (n_files() == 0 && !process_has_passed(&deadline))
		process_pause();
	cr_assert_eq(n_files(), 1);
	return in_dir(name_of_file);
}

static void teardown(void)
{
	for (unsigned i = 0; i < N_MAX; ++i)
		program_forget(&callers[i]);
	if (n_files() != 0)
		failure("left: %s", name_of_file);
	close(gate);
	fixture_teardown();
}

TestSuite(ctl_once, .init = setup, .fini = teardown, .timeout = 100);

/* ---- callers ---- */

static void start_args(unsigned i, const char *const *args)
{
	program_start_ctl(&callers[i], fixture_domain.address, args, "input", 5);
}

#define START(i, ...)       start_args(i, (const char *const[]){"once", __VA_ARGS__, NULL})
#define START_SH(i, script) START(i, "key", "--", "sh", "-c", script)

static void end(unsigned i)
{
	program_end(&callers[i], END_MS);
}

static unsigned n_runs(void)
{
	int fd = open(in_dir("runs"), O_RDONLY | O_CLOEXEC);
	char text[4096];
	unsigned n = 0;
	ssize_t size;

	if (fd < 0)
		return 0;
	size = read(fd, text, sizeof(text));
	close(fd);
	for (ssize_t i = 0; i < size; ++i)
		n += text[i] == '\n';
	return n;
}

static void until_runs(unsigned n)
{
	struct timespec deadline = process_deadline(END_MS);

	while (n_runs() < n) {
		if (process_has_passed(&deadline))
			failure("%u runs, wanted %u", n_runs(), n);
		process_pause();
	}
}

/* The n-th word of the n-th run's line. */
static pid_t pid_of_run(unsigned run, unsigned word)
{
	FILE *file = fopen(in_dir("runs"), "re");
	int pids[2] = {0, 0};

	cr_assert(file);
	for (unsigned i = 0; i <= run; ++i)
		cr_assert_eq(fscanf(file, "%d %d", &pids[0], &pids[1]), 2);
	fclose(file);
	return pids[word];
}

/* "$$ $PPID": the program and the ipcctl that runs it. */
#define NOTE    "echo $$ $PPID >>$DIR/runs; "
#define WAIT    "read line <$DIR/gate; "
#define PROGRAM 0
#define LEADER  1

static void until_waiters(uint32_t n)
{
	struct timespec deadline = process_deadline(END_MS);
	struct ipc_channel_info info = {0};

	while (info_of(table_name, &info) < 0 || info.waiters != n) {
		if (process_has_passed(&deadline))
			failure("%u waiters, wanted %u", info.waiters, n);
		process_pause();
	}
}

static void go(unsigned n)
{
	for (unsigned i = 0; i < n; ++i)
		cr_assert_eq(write(gate, "\n", 1), 1);
}

/* n callers of one key; all but the leader wait. */
static void start_all(unsigned n, const char *script)
{
	for (unsigned i = 0; i < n; ++i)
		START_SH(i, script);
	until_runs(1);
	until_waiters(n - 1);
}

static unsigned index_of(pid_t pid)
{
	for (unsigned i = 0; i < N_MAX; ++i) {
		if (callers[i].pid == pid)
			return i;
	}
	failure("%d is none of the callers", (int)pid);
}

static void expect(unsigned i, int status, const void *out, size_t size)
{
	const struct program *caller = &callers[i];

	cr_assert_eq(caller->status, status, "%u: status %d, wanted %d: %s", i, caller->status,
		     status, caller->err);
	cr_assert_eq(caller->out_size, size, "%u: %zu bytes, wanted %zu", i, caller->out_size,
		     size);
	cr_assert_eq(memcmp(caller->out, out, size), 0, "%u: other bytes", i);
}

static void expect_failure(unsigned i, int status, const char *text)
{
	cr_assert_eq(callers[i].status, status, "%u: status %d: %s", i, callers[i].status,
		     callers[i].err);
	cr_assert_eq(callers[i].out_size, 0);
	cr_assert_eq(strncmp(callers[i].err, "ipcctl: ", 8), 0, "%s", callers[i].err);
	cr_assert(strstr(callers[i].err, text), "no '%s' in: %s", text, callers[i].err);
}

/* ---- one of all ---- */

/* */
Test(ctl_once, of_eight_callers_one_runs_the_program_for_all)
{
	unsigned n_err = 0;

	start_all(8, NOTE WAIT "printf 'a\\000b\\n\\377'; echo noise >&2; exit 3");
	go(1);

	for (unsigned i = 0; i < 8; ++i) {
		end(i);
		expect(i, 3, "a\0b\n\xff", 5);
		n_err += callers[i].err_size != 0;
		if (callers[i].err_size)
			cr_assert_str_eq(callers[i].err, "noise\n");
	}
	cr_assert_eq(n_err, 1, "standard error is the leader's alone");
	cr_assert_eq(n_runs(), 1);
}

/* nothing is cached. */
Test(ctl_once, a_call_after_the_end_runs_again)
{
	for (unsigned i = 0; i < 3; ++i) {
		START_SH(i, NOTE "echo $IPCCTL_FENCE");
		end(i);
		cr_assert_eq(callers[i].status, 0, "%s", callers[i].err);
		cr_assert_eq(n_runs(), i + 1);
		if (i)
			cr_assert_gt(strtoull(callers[i].out, NULL, 10),
				     strtoull(callers[i - 1].out, NULL, 10), "fences grow");
	}
}

/* */
Test(ctl_once, other_keys_and_other_tables_do_not_wait)
{
	START_SH(0, NOTE WAIT);
	until_runs(1);

	START(1, "other key", "--", "echo", "other key");
	end(1);
	expect(1, 0, "other key\n", 10);
	START(2, "--table", "other/table", "key", "--", "echo", "other table");
	end(2);
	expect(2, 0, "other table\n", 12);

	go(1);
	end(0);
	expect(0, 0, "", 0);
}

/* the program reads what its leader reads. */
Test(ctl_once, standard_input_is_the_leaders)
{
	START(0, "key", "--", "cat");
	end(0);
	expect(0, 0, "input", 5);
}

/* ---- output of any size ---- */

static void expect_large(unsigned n, unsigned first)
{
	for (unsigned i = first; i < n; ++i) {
		end(i);
		cr_assert_eq(callers[i].status, 7, "%u: status %d: %s", i, callers[i].status,
			     callers[i].err);
		cr_assert_eq(callers[i].out_size, LARGE, "%u: %zu", i, callers[i].out_size);
		cr_assert_eq(memcmp(callers[i].out, callers[first].out, LARGE), 0);
	}
}

#define PRINT_LARGE "head -c 5242880 /dev/urandom; exit 7"

/* */
Test(ctl_once, output_beyond_the_results_size_is_not_cut)
{
	start_all(6, NOTE WAIT PRINT_LARGE);
	go(1);

	expect_large(6, 0);
	cr_assert_eq(n_runs(), 1);
}

/* those of other keys are not waited for: the file would be left then. */
Test(ctl_once, large_output_does_not_wait_for_other_keys)
{
	START_SH(0, NOTE WAIT);
	START_SH(1, NOTE WAIT);
	until_runs(1);
	until_waiters(1);

	START(2, "other key", "--", "sh", "-c", PRINT_LARGE);
	expect_large(3, 2);
	cr_assert_eq(n_files(), 0);

	go(1);
	end(0);
	end(1);
}

/* around the size at which it goes into a file. */
Test(ctl_once, output_at_the_results_size_is_not_cut)
{
	static const char *const sizes[] = {"4071", "4072", "4073", "4096", "65536", "65537"};
	char script[200];

	for (unsigned i = 0; i < 6; ++i) {
		snprintf(script, sizeof(script), NOTE WAIT "head -c %s /dev/zero", sizes[i]);
		START_SH(0, script);
		until_runs(i + 1);
		START_SH(1, script);
		until_waiters(1);
		go(1);
		for (unsigned j = 0; j < 2; ++j) {
			end(j);
			cr_assert_eq(callers[j].status, 0, "%s", callers[j].err);
			cr_assert_eq(callers[j].out_size, strtoul(sizes[i], NULL, 10));
			program_forget(&callers[j]);
		}
	}
}

/* Where nobody was there to take the file away. */
static void unlink_left(void)
{
	cr_assert_eq(unlink(until_file()), 0);
}

/* what was landed outlives the leader. */
Test(ctl_once, a_leader_killed_after_landing_leaves_the_whole_output)
{
	struct stat status;

	START_SH(0, NOTE WAIT PRINT_LARGE);
	until_runs(1);
	for (unsigned i = 1; i < 4; ++i)
		START_SH(i, NOTE WAIT PRINT_LARGE);
	until_waiters(3);

	/* While one of those who wait is stopped, the leader does not end. */
	cr_assert_eq(kill(callers[1].pid, SIGSTOP), 0);
	go(1);
	cr_assert_eq(lstat(until_file(), &status), 0);
	cr_assert_eq(status.st_mode, S_IFREG | 0600, "nobody else's");
	until_waiters(1);
	cr_assert_eq(kill(callers[0].pid, SIGKILL), 0);
	end(0);
	cr_assert_eq(callers[0].status, 128 + SIGKILL);
	cr_assert_eq(kill(callers[1].pid, SIGCONT), 0);

	expect_large(4, 1);
	cr_assert_eq(n_runs(), 1);

	unlink_left();
}

/* one that is stopped holds up the leader for a moment only, and still gets everything. */
Test(ctl_once, a_stopped_caller_does_not_keep_the_leader)
{
	start_all(1, NOTE WAIT PRINT_LARGE);
	START_SH(1, NOTE WAIT PRINT_LARGE);
	until_waiters(1);
	cr_assert_eq(kill(callers[1].pid, SIGSTOP), 0);
	go(1);
	end(0);
	cr_assert_eq(callers[0].status, 7, "%s", callers[0].err);

	cr_assert_eq(kill(callers[1].pid, SIGCONT), 0);
	end(1);
	expect(1, 7, callers[0].out, LARGE);
	unlink_left();
}

static int make_file(const char *name, time_t age_s)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - age_s}};
	int fd = open(in_dir(name), O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(futimens(fd, times), 0);
	return fd;
}

/* files whose leader was killed go in the end; those that have one, or are young, stay. */
Test(ctl_once, files_of_killed_leaders_are_swept)
{
	int old = make_file("ipcctl-once-1.0", 7200), locked = make_file("ipcctl-once-2.0", 7200),
	    young = make_file("ipcctl-once-3.0", 60), foreign = make_file("ipcctl-other", 7200);

	cr_assert_eq(flock(locked, LOCK_EX), 0);
	START(0, "key", "--", "head", "-c", "10000", "/dev/zero");
	end(0);

	cr_assert_eq(callers[0].out_size, 10000);
	cr_assert_eq(access(in_dir("ipcctl-once-1.0"), F_OK), -1);
	cr_assert_eq(unlink(in_dir("ipcctl-once-2.0")), 0);
	cr_assert_eq(unlink(in_dir("ipcctl-once-3.0")), 0);
	cr_assert_eq(unlink(in_dir("ipcctl-other")), 0);
	close(old);
	close(locked);
	close(young);
	close(foreign);
}

/* what cannot be kept is a failure of all, not half of it. */
Test(ctl_once, output_that_cannot_be_kept_is_a_failure_for_all)
{
	setenv("TMPDIR", in_dir("none"), 1);
	start_all(3, NOTE WAIT "head -c 100000 /dev/zero; echo more >$DIR/more");
	go(1);

	for (unsigned i = 0; i < 3; ++i) {
		end(i);
		expect_failure(i, 125, "No such file or directory");
	}
	cr_assert_eq(n_runs(), 1);
}

/* ---- status ---- */

/* */
Test(ctl_once, the_status_is_that_of_the_program)
{
	int fd;

	START(0, "key", "--", "true");
	end(0);
	expect(0, 0, "", 0);
	program_forget(&callers[0]);

	START_SH(0, "exit 255");
	end(0);
	expect(0, 255, "", 0);
	program_forget(&callers[0]);

	START_SH(0, "echo a; kill -TERM $$");
	end(0);
	expect(0, 128 + SIGTERM, "a\n", 2);
	program_forget(&callers[0]);

	START(0, "key", "--", "/nonexistent/program");
	end(0);
	expect_failure(0, 127, "/nonexistent/program: No such file or directory");
	program_forget(&callers[0]);

	fd = open(in_dir("plain"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	START(0, "key", "--", in_dir("plain"));
	end(0);
	expect_failure(0, 126, "Permission denied");
}

/* also for those who did not run it. */
Test(ctl_once, the_signal_that_killed_the_program_is_told_to_all)
{
	start_all(3, NOTE WAIT "echo half; kill -KILL $$");
	go(1);

	for (unsigned i = 0; i < 3; ++i) {
		end(i);
		expect(i, 128 + SIGKILL, "half\n", 5);
	}
}

/* */
Test(ctl_once, the_timeout_bounds_waiting_for_another)
{
	START_SH(0, NOTE WAIT "echo late");
	until_runs(1);
	START(1, "--timeout", "0.3", "key", "--", "echo", "not run");
	end(1);
	expect_failure(1, 124, "(IPC_ETIMEDOUT)");

	/* Who leads is not bound by it, nor disturbed by who left. */
	go(1);
	end(0);
	expect(0, 0, "late\n", 5);
	program_forget(&callers[0]);
	START(0, "--timeout", "1", "key", "--", "sh", "-c", NOTE WAIT "echo slow");
	until_runs(2);
	for (struct timespec deadline = process_deadline(1200); !process_has_passed(&deadline);)
		process_pause();
	go(1);
	end(0);
	expect(0, 0, "slow\n", 5);
}

/* A shell that knows how to call it: "$ONCE key -- ...". */
static void start_shell(unsigned i, const char *script)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	char once[400];

	snprintf(once, sizeof(once), "%s --address %s once", program_ctl(), fixture_domain.address);
	setenv("ONCE", once, 1);
	program_start(&callers[i], "sh", argv, "", 0);
}

/* */
Test(ctl_once, own_failures_end_with_125)
{
	ipc_shared *shared = shared_new("shared", IPC_SIDE_A);

	START(0, "--table", "shared", "key", "--", "true");
	end(0);
	expect_failure(0, 125, "(IPC_EPROTOTYPE)");
	ipc_shared_close(shared);

	START(1, "--table", "/bad", "key", "--", "true");
	end(1);
	expect_failure(1, 125, "(IPC_EINVAL)");

	start_shell(2, "exec $ONCE --address $DIR/none key -- true");
	end(2);
	expect_failure(2, 125, "(IPC_ECONNREFUSED)");

	start_args(3, (const char *const[]){"once", "--timeout", "30", "key", "--", "true", NULL});
	end(3);
	expect(3, 0, "", 0);
}

/* what did not get out is a failure. */
Test(ctl_once, output_that_cannot_be_printed_is_an_own_failure)
{
	start_shell(0, "exec $ONCE key -- echo a >/dev/full");
	end(0);
	expect_failure(0, 125, "standard output: No space left on device");

	start_shell(1, "exec $ONCE key -- echo a >&-");
	end(1);
	expect_failure(1, 125, "standard output: Bad file descriptor");

	/* More than a pipe takes, to one that reads nothing. */
	start_shell(2, "{ $ONCE key -- head -c 1000000 /dev/zero; echo $? >$DIR/status; } | true; "
		       "exit $(cat $DIR/status)");
	end(2);
	expect_failure(2, 125, "standard output: Broken pipe");

	/* Nothing to print is no failure. */
	start_shell(3, "exec $ONCE key -- sh -c 'exit 3' >&-");
	end(3);
	expect(3, 3, "", 0);
}

/* */
Test(ctl_once, wrong_usage_ends_with_2)
{
	static const char *const lines[][8] = {
		{"once"},
		{"once", "key"},
		{"once", "key", "true"},
		{"once", "key", "--"},
		{"once", "--", "true"},
		{"once", "", "--", "true"},
		{"once", "key", "more", "--", "true"},
		{"once", "--json", "key", "--", "true"},
		{"once", "--over", "5s", "key", "--", "true"},
		{"once", "--timeout", "x", "key", "--", "true"},
		{"once", "--unknown", "key", "--", "true"},
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); ++i) {
		start_args(0, lines[i]);
		end(0);
		cr_assert_eq(callers[0].status, 2, "line %zu: status %d: %s", i, callers[0].status,
			     callers[0].err);
		cr_assert_eq(callers[0].out_size, 0);
		program_forget(&callers[0]);
	}

	/* Words after "--" are the program's. */
	START(0, "key", "--", "echo", "--json", "--", "-x");
	end(0);
	expect(0, 0, "--json -- -x\n", 13);
}

/* ---- ends of the leader ---- */

/* Kills who runs the program for the n-th time; it dies, too. */
static unsigned kill_leader(unsigned run)
{
	unsigned leader = index_of(pid_of_run(run, LEADER));
	int pidfd = process_open(pid_of_run(run, PROGRAM));

	cr_assert_geq(pidfd, 0);
	cr_assert_eq(kill(callers[leader].pid, SIGKILL), 0);
	end(leader);
	process_until_ended(pidfd, END_MS);
	close(pidfd);
	return leader;
}

/* with the leader its program dies; exactly one of the others runs it. */
Test(ctl_once, a_killed_leader_is_followed_by_one_of_the_others)
{
	unsigned leader;

	start_all(5, NOTE WAIT "echo done");
	leader = kill_leader(0);
	cr_assert_eq(callers[leader].status, 128 + SIGKILL);

	until_runs(2);
	until_waiters(3);
	go(1);
	for (unsigned i = 0; i < 5; ++i) {
		if (i == leader)
			continue;
		end(i);
		expect(i, 0, "done\n", 5);
	}
	cr_assert_eq(n_runs(), 2);
}

/* as long as there is one. */
Test(ctl_once, leaders_are_followed_until_the_last)
{
	start_all(6, NOTE WAIT "echo done");
	for (unsigned run = 0; run < 5; ++run) {
		until_runs(run + 1);
		until_waiters(5 - run);
		kill_leader(run);
	}

	until_runs(6);
	go(1);
	for (unsigned i = 0; i < 6; ++i) {
		if (!callers[i].pid)
			continue;
		end(i);
		expect(i, 0, "done\n", 5);
	}
}

/* the program gets the signal; how it ends is what all end with. */
Test(ctl_once, signals_are_passed_to_the_program)
{
	static const int signals[] = {SIGTERM, SIGINT};

	for (unsigned i = 0; i < 2; ++i) {
		char script[300];
		unsigned leader;

		snprintf(script, sizeof(script),
			 "trap 'echo got; exit 9' %s; " NOTE
			 "while :; do read line <$DIR/gate; done",
			 i ? "INT" : "TERM");
		START_SH(0, script);
		START_SH(1, script);
		until_runs(i + 1);
		until_waiters(1);
		leader = index_of(pid_of_run(i, LEADER));
		cr_assert_eq(kill(callers[leader].pid, signals[i]), 0);
		for (unsigned j = 0; j < 2; ++j) {
			end(j);
			expect(j, 9, "got\n", 4);
			program_forget(&callers[j]);
		}
	}
}

/* */
Test(ctl_once, a_signal_that_kills_the_program_is_its_status)
{
	int pidfd;

	start_all(1, NOTE WAIT);
	pidfd = process_open(pid_of_run(0, PROGRAM));
	cr_assert_eq(kill(callers[0].pid, SIGTERM), 0);
	end(0);
	expect(0, 128 + SIGTERM, "", 0);
	process_until_ended(pidfd, END_MS);
	close(pidfd);
}

/* who only waits is ended by it, and nobody else notices. */
Test(ctl_once, a_signal_to_one_that_waits_ends_that_alone)
{
	unsigned leader, other;

	start_all(3, NOTE WAIT "echo done");
	leader = index_of(pid_of_run(0, LEADER));
	other = (leader + 1) % 3;
	cr_assert_eq(kill(callers[other].pid, SIGTERM), 0);
	end(other);
	cr_assert_eq(callers[other].status, 128 + SIGTERM);

	go(1);
	for (unsigned i = 0; i < 3; ++i) {
		if (i == other)
			continue;
		end(i);
		expect(i, 0, "done\n", 5);
	}
	cr_assert_eq(n_runs(), 1);
}

/* as with $(...), what the program has started and that prints still belongs to it. */
Test(ctl_once, the_output_ends_when_nobody_has_it_open)
{
	start_all(2, "{ " WAIT "echo late; } & echo early; " NOTE "exit 4");
	go(1);
	for (unsigned i = 0; i < 2; ++i) {
		end(i);
		expect(i, 4, "early\nlate\n", 11);
	}
}

/* where the parent ignores the ends of its children. */
Test(ctl_once, an_ignored_sigchld_loses_no_status)
{
	signal(SIGCHLD, SIG_IGN);
	START_SH(0, NOTE WAIT "exit 3");
	signal(SIGCHLD, SIG_DFL);
	until_runs(1);
	go(1);
	end(0);
	expect(0, 3, "", 0);
}

/* ---- others' tables and results ---- */

static ipc_flight_table *table_open(uint64_t result_size_max)
{
	ipc_flight_table *table;

	cr_assert_eq(ipc_flight_table_open_wait(
			     &table, fixture_client, table_name,
			     IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .keys_max = 4,
						      .result_size_max = result_size_max),
			     NULL),
		     0);
	return table;
}

/* a table of any shape. */
Test(ctl_once, a_table_that_is_there_is_used)
{
	ipc_flight_table *table = table_open(100000);

	setenv("TMPDIR", in_dir("none"), 1);
	START(0, "key", "--", "head", "-c", "99000", "/dev/zero");
	end(0);
	cr_assert_eq(callers[0].out_size, 99000, "%s", callers[0].err);
	setenv("TMPDIR", fixture_domain.dir, 1);
	ipc_flight_table_close(table);

	table = table_open(8);
	START(1, "key", "--", "echo", "a");
	end(1);
	expect_failure(1, 125, "key: ");
	ipc_flight_table_close(table);
}

/* the file can be read by whom the table lets in, and by nobody else. */
Test(ctl_once, large_output_reaches_another_user)
{
	ipc_flight_table *table;
	struct stat status;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(chmod(fixture_domain.dir, 0755), 0);
	start_shell(2, "exec setpriv --reuid=61001 --regid=61001 --clear-groups $ONCE --help");
	end(2);
	if (callers[2].status != 0)
		cr_skip_test("another user cannot run the program where it was built");

	cr_assert_eq(ipc_flight_table_open_wait(
			     &table, fixture_client, table_name,
			     IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .mode = 0666), NULL),
		     0);
	START_SH(0, NOTE WAIT PRINT_LARGE);
	until_runs(1);
	start_shell(1, "exec setpriv --reuid=61001 --regid=61001 --clear-groups "
		       "$ONCE --table ipcctl.once.0 key -- echo other");
	until_waiters(1);
	cr_assert_eq(kill(callers[1].pid, SIGSTOP), 0);
	go(1);
	cr_assert_eq(lstat(until_file(), &status), 0);
	cr_assert_eq(status.st_mode, S_IFREG | 0644, "%o", (unsigned)status.st_mode);
	cr_assert_eq(kill(callers[1].pid, SIGCONT), 0);

	expect_large(2, 0);
	ipc_flight_table_close(table);
}

static void land(ipc_flight_table *table, const void *data, size_t size)
{
	ipc_flight *flight;

	cr_assert_eq(ipc_flight_join(&flight, table, "key", 3), 1);
	START(0, "key", "--", "echo", "own");
	until_waiters(1);
	cr_assert_eq(ipc_flight_land(flight, data, size), 0);
	ipc_flight_leave(flight);
	end(0);
}

/* What is landed begins with this. */
struct head {
	char magic[8];
	uint32_t status, is_path;
	uint64_t n_bytes;
	char text[200];
};

static size_t head_fill(struct head *head, uint32_t status, uint32_t is_path, uint64_t n_bytes,
			const char *text)
{
	*head = (struct head){"ipconce\1", status, is_path, n_bytes, ""};
	strcpy(head->text, text);
	return offsetof(struct head, text) + strlen(text);
}

/* X-8, M-60: others may land what they like. */
Test(ctl_once, a_result_of_something_else_is_refused)
{
	ipc_flight_table *table = table_open(4096);
	struct stat status;
	struct head head;

	land(table, "anything", 8);
	expect_failure(0, 125, "(IPC_EBADMSG)");
	program_forget(&callers[0]);

	land(table, NULL, 0);
	expect_failure(0, 125, "(IPC_EBADMSG)");
	program_forget(&callers[0]);

	/* Of another version. */
	head_fill(&head, 0, 0, 4, "four");
	++head.magic[7];
	land(table, &head, offsetof(struct head, text) + 4);
	expect_failure(0, 125, "(IPC_EBADMSG)");
	program_forget(&callers[0]);

	land(table, &head, head_fill(&head, 0, 0, 5, "four"));
	expect_failure(0, 125, "(IPC_EBADMSG)");
	program_forget(&callers[0]);

	land(table, &head, head_fill(&head, 256, 0, 4, "four"));
	expect_failure(0, 125, "(IPC_EBADMSG)");
	program_forget(&callers[0]);

	land(table, &head, head_fill(&head, 2, 0, 4, "four"));
	expect(0, 2, "four", 4);
	program_forget(&callers[0]);

	/* Not a file that this program made; one of another size; not a file. */
	cr_assert_eq(stat("/etc/passwd", &status), 0);
	land(table, &head, head_fill(&head, 0, 1, (uint64_t)status.st_size, "/etc/passwd"));
	expect_failure(0, 125, "/etc/passwd: ");
	program_forget(&callers[0]);

	close(make_file("ipcctl-once-1.0", 0));
	land(table, &head, head_fill(&head, 0, 1, 4, in_dir("ipcctl-once-1.0")));
	expect_failure(0, 125, "ipcctl-once-1.0: ");
	program_forget(&callers[0]);

	cr_assert_eq(unlink(in_dir("ipcctl-once-1.0")), 0);
	cr_assert_eq(mkfifo(in_dir("ipcctl-once-1.0"), 0600), 0);
	land(table, &head, head_fill(&head, 0, 1, 0, in_dir("ipcctl-once-1.0")));
	expect_failure(0, 125, "ipcctl-once-1.0: ");
	cr_assert_eq(unlink(in_dir("ipcctl-once-1.0")), 0);

	ipc_flight_table_close(table);
}

/* never less than the whole output; then rather another run. */
Test(ctl_once, one_that_finds_no_file_starts_over)
{
	ipc_flight_table *table = table_open(4096);
	struct head head;

	land(table, &head, head_fill(&head, 0, 1, 4, in_dir("ipcctl-once-1.0")));

	expect(0, 0, "own\n", 4);
	ipc_flight_table_close(table);
}

/* X-8, F-6 */
Test(ctl_once, a_failure_tells_its_reason)
{
	ipc_flight_table *table = table_open(4096);
	ipc_flight *flight;

	cr_assert_eq(ipc_flight_join(&flight, table, "key", 3), 1);
	START(0, "key", "--", "true");
	until_waiters(1);
	cr_assert_eq(ipc_flight_fail(flight, IPC_FAILURE_UPSTREAM, 5, "no \x1b such host", 14), 0);
	ipc_flight_leave(flight);
	end(0);

	expect_failure(0, 125, "key: no ? such host");
	ipc_flight_table_close(table);
}
