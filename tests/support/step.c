/* SPDX-License-Identifier: MIT */
#include "tests/support/step.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/failure.h"
#include "tests/support/process.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/*
 * Two ticks without a step make us look whether the child sleeps.  One that is to be overtaken has
 * to get to its end; it may wait for a broker that has no CPU, and is given up late.
 */
#define TICK_NS         10000000
#define ASLEEP_MAX      2
#define ASLEEP_MAX_LATE 3000

/*
 * To step to every instruction in turn takes n * n / 2 steps.  So one child is stepped to the end
 * first, and its path remembered; the others run at full speed to a breakpoint a little before
 * their last instruction, and are stepped from there on.  A child that leaves the path (a lock was
 * taken, a clock said something else) and never comes to its breakpoint is one that finished:
 * killed and checked like the others.
 */
#define ANCHOR_DISTANCE_MAX 4000
#define HIT_COST            4 /* of passing a breakpoint once, in steps */

enum step_end { STEP_KILLED, STEP_FINISHED, STEP_ASLEEP };

/* ---- a tick that interrupts waitpid(): a step whose system call sleeps never comes back ---- */

static void on_tick(int signal)
{
	(void)signal;
}

struct ticker {
	timer_t timer;
	struct sigaction before;
};

static void ticker_start(struct ticker *ticker)
{
	struct sigaction action = {.sa_handler = on_tick}; /* no SA_RESTART */
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
	struct itimerspec every = {{0, TICK_NS}, {0, TICK_NS}};

	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	if (sigaction(SIGALRM, &action, &ticker->before) < 0 ||
	    timer_create(CLOCK_MONOTONIC, &event, &ticker->timer) < 0 ||
	    timer_settime(ticker->timer, 0, &every, NULL) < 0)
		failure("timer: %s", strerror(errno));
}

static void ticker_stop(struct ticker *ticker)
{
	timer_delete(ticker->timer);
	sigaction(SIGALRM, &ticker->before, NULL);
}

/* ---- one child ---- */

static void child_run(const struct step_case *step, void *arg)
{
	if (step->prepare)
		step->prepare(arg);

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(125);

	raise(SIGSTOP); /* from here on by single steps */
	step->operation(arg);
	raise(SIGSTOP); /* the operation is over */
	_exit(0);
}

static pid_t child_start(const struct step_case *step, void *arg)
{
	pid_t pid;
	int status;

	pid = process_fork();
	if (pid == 0)
		child_run(step, arg);

	while (waitpid(pid, &status, __WALL) < 0) {
		if (errno != EINTR)
			failure("waitpid: %s", strerror(errno));
	}
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		failure("step: the child did not get through its preparation, status 0x%x",
			(unsigned)status);

	ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(uintptr_t)PTRACE_O_EXITKILL);
	return pid;
}

static void child_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	for (;;) {
		pid_t r = waitpid(pid, &status, __WALL);

		if (r < 0 && errno != EINTR)
			failure("waitpid: %s", strerror(errno));
		if (r == pid && (WIFSIGNALED(status) || WIFEXITED(status)))
			return;
	}
}

/* Whether it is in a system call and not on a CPU: the machine may merely be busy. */
static bool child_sleeps(pid_t pid)
{
	char path[64], text[256];
	const char *state;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		failure("%s: %s", path, strerror(errno));
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		failure("%s is empty", path);

	text[n] = '\0';
	state = strrchr(text, ')');
	return state && state[1] == ' ' && (state[2] == 'S' || state[2] == 'D');
}

static unsigned n_asleep_max = ASLEEP_MAX; /* looks */

/* Lets the child go until its next stop. */
static enum step_end child_go(pid_t pid, enum __ptrace_request how)
{
	unsigned n_ticks = 0, n_asleep = 0;
	int status;

	if (ptrace(how, pid, NULL, NULL) < 0)
		failure("ptrace: %s", strerror(errno));

	while (waitpid(pid, &status, __WALL) != pid) {
		if (errno != EINTR)
			failure("waitpid: %s", strerror(errno));
		if (++n_ticks >= 2 && child_sleeps(pid) && ++n_asleep >= n_asleep_max)
			return STEP_ASLEEP;
	}

	if (!WIFSTOPPED(status))
		failure("step: the child ended, status 0x%x", (unsigned)status);
	if (WSTOPSIG(status) == SIGSTOP)
		return STEP_FINISHED;
	if (WSTOPSIG(status) != SIGTRAP)
		failure("step: the child got signal %d", WSTOPSIG(status));
	return STEP_KILLED;
}

static enum step_end child_step(pid_t pid, long n)
{
	enum step_end end = STEP_KILLED;

	for (long i = 0; i < n && end == STEP_KILLED; ++i)
		end = child_go(pid, PTRACE_SINGLESTEP);
	return end;
}

/* ---- the path ---- */

struct trace {
	uint64_t *address; /* of the instruction that comes next, before each step */
	uint32_t *n_hits;  /* how often the path was there before */
	long n, n_max;
};

static void trace_free(struct trace *trace)
{
	free(trace->address);
	free(trace->n_hits);
}

#ifdef __x86_64__

#define INSTRUCTION_POINTER offsetof(struct user_regs_struct, rip)
#define BREAKPOINT          0xcc /* int3: one byte, and the pointer stands behind it */

static uint64_t child_address(pid_t pid)
{
	return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, (void *)INSTRUCTION_POINTER, NULL);
}

static long word_read(pid_t pid, uint64_t address)
{
	long word;

	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, pid, (void *)address, NULL);
	if (errno)
		failure("step: no text at 0x%lx: %s", (unsigned long)address, strerror(errno));
	return word;
}

static void word_write(pid_t pid, uint64_t address, long word)
{
	if (ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)word) < 0)
		failure("step: no breakpoint at 0x%lx: %s", (unsigned long)address,
			strerror(errno));
}

/* To the point of the path where `address` is met for the time after n_hits times. */
static enum step_end child_run_to(pid_t pid, uint64_t address, uint32_t n_hits)
{
	long word = word_read(pid, address);

	for (;;) {
		enum step_end end;

		/* The first stop of all may be right there. */
		if (child_address(pid) != address) {
			word_write(pid, address, (word & ~0xffL) | BREAKPOINT);
			end = child_go(pid, PTRACE_CONT);
			if (end != STEP_KILLED)
				return end;
			word_write(pid, address, word);
			ptrace(PTRACE_POKEUSER, pid, (void *)INSTRUCTION_POINTER, (void *)address);
		}

		if (n_hits-- == 0)
			return STEP_KILLED;

		end = child_go(pid, PTRACE_SINGLESTEP);
		if (end != STEP_KILLED)
			return end;
	}
}

static void trace_add(struct trace *trace, uint64_t address)
{
	if (trace->n == trace->n_max) {
		trace->n_max = trace->n_max ? 2 * trace->n_max : 4096;
		trace->address =
			reallocarray(trace->address, (size_t)trace->n_max, sizeof(*trace->address));
		if (!trace->address)
			failure("no memory for a path of %ld steps", trace->n_max);
	}
	trace->address[trace->n++] = address;
}

static int compare_places(const void *a, const void *b, void *userdata)
{
	const uint64_t *address = userdata;
	long i = *(const long *)a, k = *(const long *)b;

	if (address[i] != address[k])
		return address[i] < address[k] ? -1 : 1;
	return i < k ? -1 : i > k;
}

static void trace_count_hits(struct trace *trace)
{
	size_t n = (size_t)trace->n;
	long *places = calloc(n + 1, sizeof(*places));

	trace->n_hits = calloc(n + 1, sizeof(*trace->n_hits));
	if (!places || !trace->n_hits)
		failure("no memory for a path of %ld steps", trace->n);

	for (size_t i = 0; i < n; ++i)
		places[i] = (long)i;
	qsort_r(places, n, sizeof(*places), compare_places, trace->address);
	for (size_t i = 1; i < n; ++i) {
		if (trace->address[places[i]] == trace->address[places[i - 1]])
			trace->n_hits[places[i]] = trace->n_hits[places[i - 1]] + 1;
	}
	free(places);
}

static enum step_end trace_record(struct trace *trace, pid_t pid)
{
	enum step_end end = STEP_KILLED;

	while (end == STEP_KILLED) {
		trace_add(trace, child_address(pid));
		end = child_go(pid, PTRACE_SINGLESTEP);
	}
	trace_count_hits(trace);
	return end;
}

static enum step_end trace_follow(const struct trace *trace, pid_t pid, long n)
{
	long anchor = 0, cost_min = n;
	enum step_end end;

	for (long i = n < trace->n ? n : trace->n - 1; i > 0 && i > n - ANCHOR_DISTANCE_MAX; --i) {
		long cost = HIT_COST * (1 + (long)trace->n_hits[i]) + n - i;

		if (cost < cost_min) {
			cost_min = cost;
			anchor = i;
		}
	}
	if (anchor == 0)
		return child_step(pid, n);

	end = child_run_to(pid, trace->address[anchor], trace->n_hits[anchor]);
	return end == STEP_KILLED ? child_step(pid, n - anchor) : end;
}

#else

/* No breakpoints: the path is its length. */
static enum step_end trace_record(struct trace *trace, pid_t pid)
{
	enum step_end end = STEP_KILLED;

	while (end == STEP_KILLED) {
		++trace->n;
		end = child_go(pid, PTRACE_SINGLESTEP);
	}
	return end;
}

static enum step_end trace_follow(const struct trace *trace, pid_t pid, long n)
{
	(void)trace;
	return child_step(pid, n);
}

#endif

/* ---- all of them ---- */

#define RECORD    (-1L)
#define PATHS_MAX 5 /* recorded before giving up */

/* The others get on while the child stands still; then it goes on as if nothing had been. */
static void child_overtake(const struct step_case *step, void *arg, long n, pid_t pid,
			   enum step_end end)
{
	step->meanwhile(arg, n);
	while (end == STEP_KILLED)
		end = child_go(pid, PTRACE_CONT);
	if (end != STEP_FINISHED)
		failure("step: overtaken before its instruction %ld, the child sleeps", n);
	if (step->after)
		step->after(arg, n);
}

static enum step_end step_once(const struct step_case *step, void *arg, struct trace *trace, long n)
{
	cpu_set_t before, here;
	struct ticker ticker;
	enum step_end end;
	pid_t pid;

	if (sched_getaffinity(0, sizeof(before), &before) < 0)
		failure("sched_getaffinity: %s", strerror(errno));
	CPU_ZERO(&here);
	CPU_SET((unsigned)sched_getcpu(), &here);
	(void)sched_setaffinity(0, sizeof(here), &here); /* the child inherits it */

	n_asleep_max = step->meanwhile ? ASLEEP_MAX_LATE : ASLEEP_MAX;
	pid = child_start(step, arg);
	ticker_start(&ticker);
	end = n == RECORD ? trace_record(trace, pid) : trace_follow(trace, pid, n);
	if (step->meanwhile)
		child_overtake(step, arg, n == RECORD ? trace->n : n, pid, end);
	ticker_stop(&ticker);
	child_kill(pid);

	(void)sched_setaffinity(0, sizeof(before), &before);
	step->check(arg, n == RECORD ? trace->n : n);
	return end;
}

/*
 * Recorded twice, since the first time differs: the parent's own calls of before the first check
 * fill caches (the dynamic linker's among them) that later children inherit.
 */
static void path_record(const struct step_case *step, void *arg, struct trace *trace)
{
	for (unsigned i = 0; i < 2; ++i) {
		trace_free(trace);
		*trace = (struct trace){0};
		(void)step_once(step, arg, trace, RECORD);
	}
}

/* Kill points of one recorded path.  False: most children went another way, so it is not what was
 * tested. */
static bool step_along(const struct step_case *step, void *arg, long *n_points)
{
	long stride = step->stride > 0 ? step->stride : 1, n_strayed = 0, n_before = *n_points;
	struct trace trace = {0};
	bool kept;

	path_record(step, arg, &trace);
	for (long n = step->first; n < trace.n; n += stride) {
		n_strayed += step_once(step, arg, &trace, n) != STEP_KILLED;
		++*n_points;
	}

	kept = n_strayed <= 10 || n_strayed <= (*n_points - n_before) / 2;
	if (!kept)
		(void)fprintf(stderr,
			      "step: %ld of %ld children left the path of %ld instructions\n",
			      n_strayed, *n_points - n_before, trace.n);
	trace_free(&trace);
	return kept;
}

long step_run(const struct step_case *step, void *arg)
{
	long n_points = 0;

	/* Where others take part, the path that was recorded may be the one that is rarely taken.
	 */
	for (unsigned i = 0; i < PATHS_MAX; ++i) {
		if (step_along(step, arg, &n_points))
			return n_points;
	}

	failure("step: no path that most children take");
}
