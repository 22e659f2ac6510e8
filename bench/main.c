/* SPDX-License-Identifier: MIT */
/*
 *	bench [--broker PATH] [ROW ...]
 *
 * Prints each row as a ratio to a limit that was measured in the same run, in turns with ours.
 *Without a row: all of them.
 */
#include "bench/bench.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *bench_address;
pid_t bench_keeper;

static char directory[64], address[96];

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void bench_fail(const char *what, int result)
{
	fprintf(stderr, "bench: %s: %s (%s)\n", what, ipc_error_text(result),
		ipc_error_name(result));
	exit(1);
}

bool bench_has_two_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

void bench_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	if (cpu < 0 || (cpu > 0 && !bench_has_two_cpus())) {
		for (int i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); ++i)
			CPU_SET((size_t)i, &set);
	} else {
		CPU_SET((size_t)cpu, &set);
	}
	(void)sched_setaffinity(0, sizeof(set), &set);
}

void *bench_shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		bench_fail("mmap", -errno);
	return memory;
}

pid_t bench_spawn(void (*fn)(void *arg), void *arg)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_fail("fork", -errno);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(arg);
		_exit(0);
	}
	return pid;
}

void bench_reap(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

void bench_sleep_until(const _Atomic uint32_t *word, uint32_t value)
{
	uint64_t limit = bench_now_ns() + UINT64_C(20000000000);

	while (atomic_load(word) != value) {
		if (bench_now_ns() > limit)
			bench_fail("waiting for another process", IPC_ETIMEDOUT);
		sched_yield();
	}
}

/* ---- the domain ---- */

pid_t bench_worker(void)
{
	char path[64];
	FILE *children;
	int pid = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)bench_keeper,
		 (int)bench_keeper);
	children = fopen(path, "re");
	if (!children)
		return 0;
	if (fscanf(children, "%d", &pid) != 1)
		pid = 0;
	fclose(children);
	return pid;
}

void bench_kill_worker(void)
{
	pid_t old = bench_worker();

	if (old > 0)
		kill(old, SIGKILL);
	while (bench_worker() == old || bench_worker() == 0)
		usleep(200);
}

static int try_connect(ipc_client **ret)
{
	struct timespec deadline;

	ipc_deadline_after(&deadline, UINT64_C(5000000000));
	return ipc_client_connect_wait(ret, IPC_CLIENT_OPTIONS(.address = bench_address),
				       &deadline);
}

ipc_client *bench_connect(void)
{
	ipc_client *client;
	int r = try_connect(&client);

	if (r < 0)
		bench_fail("connect", r);
	return client;
}

void bench_domain_start(const char *program)
{
	ipc_client *client;
	int r = IPC_ECONNREFUSED;

	snprintf(directory, sizeof(directory), "/tmp/libipc-bench-XXXXXX");
	if (!mkdtemp(directory))
		bench_fail("mkdtemp", -errno);
	snprintf(address, sizeof(address), "%s/broker", directory);
	bench_address = address;

	bench_keeper = fork();
	if (bench_keeper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execlp(program, "ipcbroker", "--address", address, "--log-level", "error",
		       (char *)NULL);
		perror(program);
		_exit(127);
	}
	for (int i = 0; i < 1000 && r == IPC_ECONNREFUSED; ++i) {
		usleep(5000);
		r = try_connect(&client);
	}
	if (r < 0)
		bench_fail("the broker did not start", r);
	(void)ipc_client_unref(client);
}

void bench_domain_stop(void)
{
	char lock[128];

	kill(bench_keeper, SIGTERM);
	waitpid(bench_keeper, NULL, 0);
	snprintf(lock, sizeof(lock), "%s.lock", address);
	unlink(lock);
	rmdir(directory);
}

ipc_watch_producer *bench_producer(ipc_client *client, const char *name)
{
	ipc_watch_producer *producer;
	int r = ipc_watch_producer_open_wait(&producer, client, name,
					     IPC_WATCH_OPTIONS(.flags = IPC_CREATE,
							       .value_size_max = BENCH_PAYLOAD,
							       .consumers_max = 2048),
					     NULL);

	if (r < 0)
		bench_fail(name, r);
	return producer;
}

ipc_watch_consumer *bench_consumer(ipc_client *client, const char *name)
{
	ipc_watch_consumer *consumer;
	int r = ipc_watch_consumer_open_wait(&consumer, client, name,
					     IPC_WATCH_OPTIONS(.flags = IPC_CREATE,
							       .value_size_max = BENCH_PAYLOAD,
							       .consumers_max = 2048),
					     NULL);

	if (r < 0)
		bench_fail(name, r);
	return consumer;
}

ipc_shared *bench_ledger(ipc_client *client, const char *name, enum ipc_side side, size_t size)
{
	ipc_shared *shared;
	int r = ipc_shared_open_wait(&shared, client, name, side,
				     IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = size),
				     NULL);

	if (r < 0)
		bench_fail(name, r);
	return shared;
}

#define TABLE_OPTIONS                                                                              \
	IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .key_size_max = 64,                          \
				 .result_size_max = BENCH_PAYLOAD)

ipc_flight_table *bench_table(ipc_client *client, const char *name)
{
	ipc_flight_table *table;
	int r = ipc_flight_table_open_wait(&table, client, name, TABLE_OPTIONS, NULL);

	if (r < 0)
		bench_fail(name, r);
	return table;
}

ipc_handler *bench_handler(ipc_client *client, const char *name)
{
	ipc_handler *handler;
	int r = ipc_handler_open_wait(&handler, client, name, TABLE_OPTIONS, NULL);

	if (r < 0)
		bench_fail(name, r);
	return handler;
}

/* ---- figures ---- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double bench_best(const double *values, int n)
{
	double best = values[0];

	for (int i = 1; i < n; ++i)
		best = values[i] < best ? values[i] : best;
	return best;
}

void bench_row(const char *row, const char *workload, double ours, const char *limit_name,
	       double limit, double goal, const char *unit)
{
	double ratio = limit > 0 ? ours / limit : 0;
	const char *verdict = goal <= 0 ? "" : ratio <= goal ? "met" : "NOT MET";

	printf("%-4s %-44s %10.1f %-3s %6.2fx of %-28s (%.1f)", row, workload, ours, unit, ratio,
	       limit_name, limit);
	if (goal > 0)
		printf("  goal %.2fx: %s", goal, verdict);
	printf("\n");
	fflush(stdout);
}

void bench_figure(const char *row, const char *workload, double value, const char *unit)
{
	printf("%-4s %-44s %10.1f %s\n", row, workload, value, unit);
	fflush(stdout);
}

void bench_compare(const char *row, const char *workload, bench_fn ours, const char *limit_name,
		   bench_fn limit, void *arg, bool use_best, double goal, const char *unit)
{
	double ours_all[BENCH_ROUNDS], limit_all[BENCH_ROUNDS];

	for (int i = 0; i < BENCH_ROUNDS; ++i) {
		limit_all[i] = limit(arg);
		ours_all[i] = ours(arg);
	}

	if (use_best)
		bench_row(row, workload, bench_best(ours_all, BENCH_ROUNDS), limit_name,
			  bench_best(limit_all, BENCH_ROUNDS), goal, unit);
	else
		bench_row(row, workload, bench_median(ours_all, BENCH_ROUNDS), limit_name,
			  bench_median(limit_all, BENCH_ROUNDS), goal, unit);
}

static bool is_wanted(int argc, char **argv, const char *row)
{
	for (int i = 1; i < argc; ++i) {
		if (strcmp(argv[i], row) == 0)
			return true;
	}
	return argc <= 1;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} rows[] = {{"watch", bench_watch},       {"shared", bench_shared_rows},
		    {"flight", bench_flight},     {"limiter", bench_limiter},
		    {"queue", bench_queue},       {"session", bench_session},
		    {"inbox", bench_inbox},       {"death", bench_death},
		    {"open", bench_open},         {"broker", bench_broker},
		    {"syscalls", bench_syscalls}, {"peers", bench_peers}};
	const char *program = "ipcbroker";
	double line;

	if (argc > 2 && strcmp(argv[1], "--broker") == 0) {
		program = argv[2];
		argc -= 2;
		argv += 2;
	}

	bench_domain_start(program);
	line = limit_line_ns(NULL);
	printf("cache line there and back: %.0f ns (%s)\n", line,
	       line < 220 ? "near: one core's two threads" : "far: two cores");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
		if (is_wanted(argc, argv, rows[i].name))
			rows[i].fn();
	}
	bench_domain_stop();
	return 0;
}
