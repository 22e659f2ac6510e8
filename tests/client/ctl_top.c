/* SPDX-License-Identifier: MIT */

/*
 * ipcctl top: pages of text, and a terminal that is left as it was.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/support/failure.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/program.h"

#define END_MS 30000
#define ENTER  "\033[?1049h"
#define LEAVE  "\033[?1049l"

static struct program run;

/* A terminal with one program in it, and a process that starts it as a shell would. */
static struct {
	pid_t shell, pid;
	int told; /* the program's process id, then a number each time it has stopped */
	int master, slave;
	struct termios before;
	char seen[1 << 20]; /* all that it has shown, then 0 */
	size_t size, mark;
} tty;

static void setup(void)
{
	struct winsize size = {.ws_row = 6, .ws_col = 100};

	fixture_setup();
	memset(&tty, 0, sizeof(tty));
	cr_assert_eq(openpty(&tty.master, &tty.slave, NULL, NULL, &size), 0);
	cr_assert_eq(fcntl(tty.master, F_SETFD, FD_CLOEXEC), 0);
	cr_assert_eq(fcntl(tty.slave, F_SETFD, FD_CLOEXEC), 0);
	cr_assert_eq(tcgetattr(tty.slave, &tty.before), 0);
}

static void teardown(void)
{
	if (tty.shell) {
		kill(tty.shell, SIGKILL);
		(void)process_reap(tty.shell, END_MS);
	}
	close(tty.master);
	close(tty.slave);
	if (tty.told)
		close(tty.told);
	program_forget(&run);
	fixture_teardown();
}

TestSuite(ctl_top, .init = setup, .fini = teardown, .timeout = 100);

/* ---- the terminal ---- */

/* Ends as the program does. */
static void __attribute__((__noreturn__)) shell(const char *const *argv, int told)
{
	int status;
	pid_t pid;

	if (setsid() < 0 || ioctl(tty.slave, TIOCSCTTY, 0) < 0 || dup2(tty.slave, 0) < 0 ||
	    dup2(tty.slave, 1) < 0 || dup2(tty.slave, 2) < 0)
		_exit(126);

	/* Not among the arguments, by which domain_kill() knows what belongs to the domain. */
	setenv("IPC_BROKER", fixture_domain.address, 1);
	setenv("TERM", "xterm", 1);
	signal(SIGTTOU, SIG_IGN);
	pid = process_fork();
	if (pid == 0) {
		if (setpgid(0, 0) < 0 || tcsetpgrp(0, getpid()) < 0)
			_exit(126);
		signal(SIGTTOU, SIG_DFL);
		execvp(program_ctl(), (char *const *)argv);
		_exit(127);
	}

	do {
		if (write(told, &pid, sizeof(pid)) != sizeof(pid) ||
		    waitpid(pid, &status, WUNTRACED) != pid)
			_exit(126);
	} while (WIFSTOPPED(status));
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static pid_t shell_told(void)
{
	pid_t pid;

	cr_assert_eq(read(tty.told, &pid, sizeof(pid)), (ssize_t)sizeof(pid));
	return pid;
}

static void tty_start(const char *const *args)
{
	const char *argv[16] = {"ipcctl", "top"};
	int pipe[2];

	for (unsigned i = 2; i < 15 && *args; ++i)
		argv[i] = *args++;

	cr_assert_eq(pipe2(pipe, O_CLOEXEC), 0);
	tty.shell = process_fork();
	if (tty.shell == 0)
		shell(argv, pipe[1]);
	close(pipe[1]);
	tty.told = pipe[0];
	tty.pid = shell_told();
}

#define TTY_START(...) tty_start((const char *const[]){__VA_ARGS__, NULL})

/* What it shows now, if there is anything within ms. */
static bool tty_read(int ms)
{
	struct pollfd pollfd = {.fd = tty.master, .events = POLLIN};
	ssize_t n;

	if (poll(&pollfd, 1, ms) <= 0)
		return false;

	n = read(tty.master, tty.seen + tty.size, sizeof(tty.seen) - 1 - tty.size);
	if (n <= 0)
		return false;
	tty.size += (size_t)n;
	return true;
}

/* Until it shows that, after what was waited for before. */
static void tty_until(const char *text)
{
	struct timespec deadline = process_deadline(END_MS);
	const char *found;

	while (!(found = memmem(tty.seen + tty.mark, tty.size - tty.mark, text, strlen(text)))) {
		if (process_has_passed(&deadline))
			failure("'%s' is not shown after: %s", text, tty.seen + tty.mark);
		(void)tty_read(100);
	}
	tty.mark = (size_t)(found - tty.seen) + strlen(text);
}

/* As the terminal was, and told so: a line of the other screen is not left over. */
static void expect_left(void)
{
	struct termios now;
	const char *enter = NULL, *leave = NULL, *cursor = NULL;

	while (tty_read(0))
		;
	for (const char *at = tty.seen; (at = strstr(at, "\033[?")); ++at) {
		if (strncmp(at, ENTER, strlen(ENTER)) == 0)
			enter = at;
		else if (strncmp(at, LEAVE, strlen(LEAVE)) == 0)
			leave = at;
		else if (strncmp(at, "\033[?25h", 6) == 0)
			cursor = at;
	}
	cr_expect(enter && leave && cursor && leave > enter && cursor > enter, "%s", tty.seen);

	cr_assert_eq(tcgetattr(tty.slave, &now), 0);
	cr_expect_eq(now.c_lflag, tty.before.c_lflag);
	cr_expect_eq(now.c_iflag, tty.before.c_iflag);
	cr_expect_eq(now.c_oflag, tty.before.c_oflag);
	cr_expect_eq(memcmp(now.c_cc, tty.before.c_cc, sizeof(now.c_cc)), 0);
}

static int tty_end(void)
{
	struct timespec deadline = process_deadline(END_MS);
	int status;

	/* It must not wait for a reader. */
	while (waitpid(tty.shell, &status, WNOHANG) == 0) {
		if (process_has_passed(&deadline))
			failure("top does not end");
		(void)tty_read(10);
	}
	tty.shell = 0;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void tty_press(const char *keys)
{
	cr_assert_eq(write(tty.master, keys, strlen(keys)), (ssize_t)strlen(keys));
}

static bool has_echo(void)
{
	struct termios now;

	cr_assert_eq(tcgetattr(tty.slave, &now), 0);
	return now.c_lflag & ECHO;
}

/* ---- pages of text ---- */

static void ctl_run(const char *const *args)
{
	program_forget(&run);
	program_start_ctl(&run, fixture_domain.address, args, "", 0);
	program_end(&run, END_MS);
}

#define CTL(...) ctl_run((const char *const[]){__VA_ARGS__, NULL})

static unsigned count(const char *text, const char *word)
{
	unsigned n = 0;

	for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
		++n;
	return n;
}

/* */
Test(ctl_top, without_a_terminal_it_prints_page_after_page)
{
	ipc_shared *shared = shared_new("some/shared", IPC_SIDE_A);

	CTL("top", "--count", "3", "--interval", "10ms");

	cr_expect_eq(run.status, 0, "%s", run.err);
	cr_expect_eq(count(run.out, "NAME "), 3, "%s", run.out);
	cr_expect_eq(count(run.out, "\nsome/shared  shared"), 3, "%s", run.out);
	cr_expect_eq(count(run.out, "  channels 1  waiters 0  stalled 0 (over 5 s)\n"), 3, "%s",
		     run.out);
	cr_expect_eq(count(run.out, "\033"), 0);

	CTL("top", "other/*", "--count", "1");
	cr_expect_eq(run.status, 0);
	cr_expect_eq(count(run.out, "some/shared"), 0);
	ipc_shared_close(shared);
}

/* */
Test(ctl_top, its_time_ends_it)
{
	CTL("--timeout", "2", "top", "--interval", "50ms");

	cr_expect_eq(run.status, 124);
	cr_expect_geq(count(run.out, "NAME "), 2);
	cr_expect_str_eq(run.err, "ipcctl: top: the deadline passed first (IPC_ETIMEDOUT)\n");
}

/* who stalls whom, by name. */
Test(ctl_top, it_marks_stalled_holders)
{
	ipc_shared *shared = shared_new("some/shared", IPC_SIDE_A);
	const void *value;
	char pid[32];

	cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
	CTL("top", "--count", "1", "--over", "1ns");
	cr_expect(strstr(run.out, "  stalled 1 (over 1 ns)\n"), "%s", run.out);
	cr_expect(strstr(run.out, "  lock  "), "%s", run.out);
	cr_expect(strstr(run.out, "! "), "%s", run.out);
	snprintf(pid, sizeof(pid), " %d  ", (int)getpid());
	cr_expect(strstr(run.out, pid), "%s", run.out);

	CTL("top", "--count", "1", "--over", "1h");
	cr_expect(strstr(run.out, "  stalled 0 (over 1h00m)\n"), "%s", run.out);
	cr_expect(!strstr(run.out, "! "), "%s", run.out);
	cr_assert_eq(ipc_shared_unlock(shared), 0);
	ipc_shared_close(shared);
}

/* ---- queues ---- */

static ipc_queue_producer *jobs_new(const char *name)
{
	ipc_queue_producer *producer = NULL;
	int r = ipc_queue_producer_open_wait(&producer, fixture_client, name,
					     IPC_QUEUE_OPTIONS(.flags = IPC_CREATE), NULL);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	return producer;
}

static void jobs_push(ipc_queue_producer *producer)
{
	static char bytes[1000];

	cr_assert_eq(ipc_queue_push(producer, 0, bytes, sizeof(bytes), IPC_FULL_FAIL), 0);
}

/* a lease is told with the one who has it; nobody counts the one who looks. */
Test(ctl_top, it_shows_who_holds_the_items_of_a_queue)
{
	ipc_queue_producer *producer = jobs_new("jobs");
	ipc_queue_consumer *consumer;
	struct ipc_queue_item item;

	cr_assert_eq(ipc_queue_consumer_open_wait(&consumer, fixture_client, "jobs", NULL, NULL),
		     0);
	jobs_push(producer);
	cr_assert_eq(ipc_queue_take(consumer, &item), 0);

	CTL("top", "--count", "1", "--over", "1ns");

	cr_expect(strstr(run.out, "\njobs  queue      1+1  "), "%s", run.out);
	cr_expect(strstr(run.out, "  leases  "), "%s", run.out);
	cr_expect(strstr(run.out, "  stalled 1 (over 1 ns)\n"), "%s", run.out);
	cr_assert_eq(ipc_queue_ack(consumer, &item), 0);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(ctl_top, it_shows_how_fast_a_queue_grows)
{
	ipc_queue_producer *producer = jobs_new("jobs");
	size_t begin;

	TTY_START("--interval", "100ms");
	tty_until("jobs ");
	tty_until(" 0 ");
	jobs_push(producer);
	tty_until(" +");
	begin = tty.mark;
	tty_until(" ");

	/* Some thousand bytes a second, in digits: no exponent. */
	cr_expect_null(memchr(tty.seen + begin, 'e', tty.mark - begin), "%s", tty.seen + begin);
	tty_until(" 0 ");

	tty_press("q");
	cr_expect_eq(tty_end(), 0);
	ipc_queue_producer_close(producer);
}

/* IN/S and OUT/S of the next row of jobs. */
static void next_rates(double *ret_in, double *ret_out)
{
	char in[16], out[16], unit[8];
	double depth;
	size_t begin;

	tty_until("\njobs ");
	begin = tty.mark;
	tty_until("\033[K");
	cr_assert_eq(sscanf(tty.seen + begin, " queue %*s %*s %lf %7s %*s %15s %15s", &depth, unit,
			    in, out),
		     4, "%s", tty.seen + begin);
	*ret_in = strtod(in, NULL);
	*ret_out = strtod(out, NULL);
}

/* what comes and goes between two looks is counted all the same. */
Test(ctl_top, it_counts_items_that_come_and_go)
{
	ipc_queue_producer *producer = jobs_new("jobs");
	ipc_queue_consumer *consumer;
	struct ipc_queue_item item;
	double in = 0, out = 0;

	cr_assert_eq(ipc_queue_consumer_open_wait(&consumer, fixture_client, "jobs", NULL, NULL),
		     0);
	TTY_START("--interval", "100ms");
	next_rates(&in, &out);
	cr_expect_eq(in, 0);
	cr_expect_eq(out, 0);

	for (unsigned i = 0; i < 50; ++i) {
		jobs_push(producer);
		cr_assert_eq(ipc_queue_take(consumer, &item), 0);
		if (i < 25)
			cr_assert_eq(ipc_queue_ack(consumer, &item), 0);
		else
			cr_assert_eq(ipc_queue_reject(consumer, &item), 0);
	}
	while (in == 0)
		next_rates(&in, &out);
	cr_expect_gt(out, 0);

	tty_press("q");
	cr_expect_eq(tty_end(), 0);
	ipc_queue_consumer_close(consumer);
	ipc_queue_producer_close(producer);
}

/* */
Test(ctl_top, keys_change_the_order)
{
	ipc_queue_producer *a = jobs_new("aaa"), *b = jobs_new("bbb");

	jobs_push(b);
	TTY_START("--interval", "1h");
	tty_until("aaa");
	tty_until("bbb");
	tty_press("d");
	tty_until("bbb");
	tty_until("aaa");
	tty_press("n");
	tty_until("aaa");
	tty_until("bbb");

	tty_press("q");
	cr_expect_eq(tty_end(), 0);

	CTL("top", "--count", "1", "--sort", "depth");
	cr_expect_lt(strstr(run.out, "bbb"), strstr(run.out, "aaa"));
	ipc_queue_producer_close(a);
	ipc_queue_producer_close(b);
}

/* ---- the terminal is left as it was ---- */

static void expect_end_by_signal(int number)
{
	TTY_START("--interval", "1h");
	tty_until("NAME");
	cr_assert(!has_echo(), "keys are not shown");

	kill(tty.pid, number);

	cr_expect_eq(tty_end(), 128 + number);
	expect_left();
}

/* */
Test(ctl_top, quitting_leaves_the_terminal_as_it_was)
{
	TTY_START("--interval", "1h");
	tty_until("NAME");

	tty_press("q");

	cr_expect_eq(tty_end(), 0);
	expect_left();
}

/* */
Test(ctl_top, an_interrupt_from_the_terminal_leaves_it_as_it_was)
{
	TTY_START("--interval", "1h");
	tty_until("NAME");

	tty_press("\003");

	cr_expect_eq(tty_end(), 128 + SIGINT);
	expect_left();
}

/* */
Test(ctl_top, sigterm_leaves_the_terminal_as_it_was)
{
	expect_end_by_signal(SIGTERM);
}

/* */
Test(ctl_top, sighup_leaves_the_terminal_as_it_was)
{
	expect_end_by_signal(SIGHUP);
}

/* */
Test(ctl_top, the_last_page_leaves_the_terminal_as_it_was)
{
	TTY_START("--interval", "10ms", "--count", "2");

	cr_expect_eq(tty_end(), 0);
	expect_left();
}

/* while it is stopped the terminal is the shell's; then it is there again. */
Test(ctl_top, stopping_it_leaves_the_terminal_and_comes_back)
{
	TTY_START("--interval", "1h");
	tty_until("NAME");

	tty_press("\032");
	tty_until(LEAVE);
	cr_assert_eq(shell_told(), tty.pid, "it has stopped");
	expect_left();

	kill(tty.pid, SIGCONT);
	tty_until(ENTER);
	tty_until("NAME");
	cr_expect(!has_echo());
	tty_press("q");
	cr_expect_eq(tty_end(), 0);
	expect_left();
}

/* X-6, M-6: the failure is told where it can be read. */
Test(ctl_top, the_end_of_the_broker_leaves_the_terminal_as_it_was)
{
	TTY_START("--interval", "50ms");
	tty_until("NAME");

	domain_kill(&fixture_domain);

	cr_expect_eq(tty_end(), 1);
	expect_left();
	tty.mark = 0;
	tty_until(LEAVE);
	tty_until("ipcctl: top: ");
	tty_until("(IPC_ECONNRE");
	domain_start(&fixture_domain, NULL);
}

/* a broker that is stopped keeps nobody in. */
Test(ctl_top, a_broker_that_does_not_answer_is_told)
{
	pid_t worker = domain_worker(&fixture_domain);

	TTY_START("--interval", "50ms");
	tty_until("NAME");
	kill(worker, SIGSTOP);
	tty_until("no answer for ");

	tty_press("q");
	cr_expect_eq(tty_end(), 0);
	expect_left();
	kill(worker, SIGCONT);
}

/* */
Test(ctl_top, lines_are_cut_where_the_terminal_ends)
{
	struct winsize size = {.ws_row = 3, .ws_col = 20};
	ipc_shared *shared[3] = {shared_new("aaa", IPC_SIDE_A), shared_new("bbb", IPC_SIDE_A),
				 shared_new("ccc", IPC_SIDE_A)};

	cr_assert_eq(ioctl(tty.slave, TIOCSWINSZ, &size), 0);
	TTY_START("--interval", "1h");
	tty_until("aaa   shared      1+\033[K\033[J");
	cr_expect(!strstr(tty.seen, "bbb"));

	size = (struct winsize){.ws_row = 10, .ws_col = 100};
	cr_assert_eq(ioctl(tty.master, TIOCSWINSZ, &size), 0);
	tty_until("PROCESS");
	tty_until("ccc");

	tty_press("q");
	cr_expect_eq(tty_end(), 0);
	for (unsigned i = 0; i < 3; ++i)
		ipc_shared_close(shared[i]);
}

static void expect_usage_error(const char *const *args)
{
	ctl_run(args);
	cr_expect_eq(run.status, 2, "%s %s: status %d: %s", args[0], args[1], run.status, run.err);
}

#define USAGE_ERROR(...) expect_usage_error((const char *const[]){__VA_ARGS__, NULL})

/* */
Test(ctl_top, wrong_usage_ends_with_2)
{
	USAGE_ERROR("top", "a", "b");
	USAGE_ERROR("top", "--interval", "0");
	USAGE_ERROR("top", "--interval", "x");
	USAGE_ERROR("top", "--sort", "size");
	USAGE_ERROR("top", "--count", "0");
	USAGE_ERROR("top", "--json");
	USAGE_ERROR("top", "--wait");
	USAGE_ERROR("list", "--interval", "1s");
	USAGE_ERROR("list", "--sort", "name");
}
