/* SPDX-License-Identifier: MIT */

/*
 * ipcctl from the outside: what it prints, and how it ends.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/program.h"

static struct leaks leaks;
static struct domain domain;
static ipc_client *client;
static ipc_watch_producer *producer;
static ipc_shared *shared;
static struct program run;

static void setup(void)
{
	leaks_begin(&leaks);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, "ctl/watch",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = 10000), NULL),
		     0);
	cr_assert_eq(
		ipc_shared_open_wait(&shared, client, "ctl/shared", IPC_SIDE_B,
				     IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_SHARED_IN_PLACE,
							.value_size = 4096),
				     NULL),
		0);
}

static void teardown(void)
{
	program_forget(&run);
	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
	ipc_client_unref(client);
	domain_stop(&domain);
	leaks_check(&leaks);
}

TestSuite(ctl, .init = setup, .fini = teardown, .timeout = 60);

/* args: NULL-terminated, after the program's name. */
static void ctl_run(const char *const *args, const void *input, size_t input_size)
{
	program_forget(&run);
	program_start_ctl(&run, NULL, args, input, input_size);
	program_end(&run, 30000);
}

#define CTL_INPUT(input, size, ...)                                                                \
	ctl_run((const char *const[]){"--address", domain.address, __VA_ARGS__, NULL}, input, size)
#define CTL(...) CTL_INPUT("", 0, __VA_ARGS__)

static unsigned count(const char *text, const char *word)
{
	unsigned n = 0;

	for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
		++n;
	return n;
}

/* One line that ends in the entry's name. */
static void expect_failure(int status, const char *what, const char *entry)
{
	char start[300], end[64];

	snprintf(start, sizeof(start), "ipcctl: %s: ", what);
	snprintf(end, sizeof(end), " (%s)\n", entry);
	cr_assert_eq(run.status, status, "status %d: %s", run.status, run.err);
	cr_assert_eq(strncmp(run.err, start, strlen(start)), 0, "%s", run.err);
	cr_assert(strlen(run.err) > strlen(end) &&
			  strcmp(run.err + strlen(run.err) - strlen(end), end) == 0,
		  "%s", run.err);
	cr_assert_eq(count(run.err, "\n"), 1, "%s", run.err);
	cr_assert_eq(run.out_size, 0, "%s", run.out);
}

static void publish(const void *data, size_t size)
{
	cr_assert_eq(ipc_watch_publish(producer, data, size), 0);
}

/* What a consumer of this process reads. */
static size_t read_back(char *buffer, size_t size_max)
{
	ipc_watch_consumer *consumer;
	size_t size;

	cr_assert_eq(ipc_watch_consumer_open_wait(&consumer, client, "ctl/watch", NULL, NULL), 0);
	cr_assert_eq(ipc_watch_read(consumer, buffer, size_max, &size, NULL), 0);
	ipc_watch_consumer_close(consumer);
	return size;
}

/* ---- list ---- */

/* */
Test(ctl, list_prints_an_aligned_table_sorted_by_name)
{
	const char *head, *row_shared, *row_watch;

	CTL("list");

	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(count(run.out, "\n"), 3, "%s", run.out);
	head = run.out;
	row_shared = strchr(head, '\n') + 1;
	row_watch = strchr(row_shared, '\n') + 1;
	cr_assert_eq(strncmp(head, "NAME ", 5), 0);
	cr_assert_eq(strncmp(row_shared, "ctl/shared ", 11), 0, "%s", run.out);
	cr_assert_eq(strncmp(row_watch, "ctl/watch ", 10), 0, "%s", run.out);
	cr_assert_eq(strstr(head, "KIND") - head, strstr(row_watch + 9, "watch") - row_watch);
	cr_assert_eq(strstr(head, "KIND") - head, strstr(row_shared + 10, "shared") - row_shared);
	cr_assert(strstr(row_watch, " 0600 "));
	cr_assert(strstr(row_watch, " 1+0 "), "%s", row_watch);
	cr_assert(strstr(row_shared, " 0+1 "), "%s", row_shared);
	cr_assert(strstr(row_watch, "9.8 KiB"));
	cr_assert_eq(run.err[0], '\0');
}

/* X-6, M-45 */
Test(ctl, list_takes_a_pattern)
{
	CTL("list", "*/wat*");
	cr_assert_eq(run.status, 0);
	cr_assert(strstr(run.out, "ctl/watch") && !strstr(run.out, "ctl/shared"), "%s", run.out);

	CTL("list", "nothing");
	cr_assert_eq(run.status, 0);
	cr_assert_eq(count(run.out, "\n"), 1, "only the heading: %s", run.out);
}

static void expect_key(const char *key, const char *value)
{
	char text[400];

	snprintf(text, sizeof(text), "\"%s\": %s", key, value);
	cr_assert(strstr(run.out, text), "no %s in %s", text, run.out);
}

static void expect_key_number(const char *key, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	expect_key(key, text);
}

/* Every key, with the exact number that the public call gives. */
static void expect_json_of(const char *name, const char *kind)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	char text[300];

	cr_assert_eq(ipc_channel_info_wait(client, name, &info, NULL), 0);
	snprintf(text, sizeof(text), "\"%s\"", name);
	expect_key("name", text);
	snprintf(text, sizeof(text), "\"%s\"", kind);
	expect_key("kind", text);
	expect_key_number("mode", info.mode);
	expect_key_number("uid", info.uid);
	expect_key_number("gid", info.gid);
	expect_key_number("flags", info.flags);
	expect_key_number("generation", info.generation);
	expect_key_number("bytes", info.bytes);
	expect_key_number("item_size_max", info.item_size_max);
	expect_key_number("capacity", info.capacity);
	expect_key("handles", "[");
	expect_key_number("waiters", info.waiters);
	expect_key_number("depth", info.depth);
	expect_key_number("depth_max", info.depth_max);
	expect_key("holder_pid", "0");
	expect_key("holder_id", "0");
	expect_key("held_ns", "0");
}

/* keys are the names of the public struct's fields, and 64-bit numbers are exact. */
Test(ctl, list_as_json_is_an_array_of_objects)
{
	CTL("--json", "list");

	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(run.out[0], '[');
	cr_assert_eq(count(run.out, "\"name\":"), 2);
	expect_json_of("ctl/watch", "watch");
	expect_json_of("ctl/shared", "shared");

	CTL("list", "--json", "nothing");
	cr_assert_eq(run.status, 0);
	cr_assert_str_eq(run.out, "[]\n");
}

/* X-6, M-45: more than one answer's worth. */
Test(ctl, list_shows_every_channel_once)
{
	ipc_shared *more[40];
	char name[32];

	for (unsigned i = 0; i < 40; ++i) {
		snprintf(name, sizeof(name), "many/%02u.", i);
		cr_assert_eq(ipc_shared_open_wait(&more[i], client, name, IPC_SIDE_A,
						  IPC_SHARED_OPTIONS(.flags = IPC_CREATE), NULL),
			     0);
	}

	CTL("list");

	cr_assert_eq(run.status, 0);
	for (unsigned i = 0; i < 40; ++i) {
		snprintf(name, sizeof(name), "many/%02u.", i);
		cr_assert_eq(count(run.out, name), 1);
		ipc_shared_close(more[i]);
	}
}

/* ---- stat ---- */

/* */
Test(ctl, stat_tells_everything_about_one_channel)
{
	CTL("stat", "ctl/shared");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert(strstr(run.out, "\nkind        shared\n"), "%s", run.out);
	cr_assert(strstr(run.out, "\nflags       in place\n"), "%s", run.out);
	cr_assert(strstr(run.out, "\nsize        4 KiB\n"), "%s", run.out);
	cr_assert(strstr(run.out, "\nholder      none\n"), "%s", run.out);

	CTL("stat", "--json", "ctl/shared");
	cr_assert_eq(run.status, 0);
	cr_assert_eq(run.out[0], '{');
	expect_json_of("ctl/shared", "shared");

	CTL("stat", "none");
	expect_failure(1, "none", "IPC_ENOENT");

	CTL("stat", "/none");
	expect_failure(1, "/none", "IPC_EINVAL");
}

/* who holds the lock, and for how long. */
Test(ctl, stat_tells_who_holds_the_lock)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	char text[64];
	uint64_t id;
	const void *value;

	cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
	cr_assert_eq(ipc_shared_get_id(shared, &id), 0);
	cr_assert_eq(ipc_channel_info_wait(client, "ctl/shared", &info, NULL), 0);
	cr_assert_eq(info.holder_id, id);
	cr_assert_eq(info.holder_pid, getpid());
	cr_assert_gt(info.held_ns, 0);

	CTL("stat", "ctl/shared");
	snprintf(text, sizeof(text), "\nholder      process %d, handle %" PRIu64 ", for ", getpid(),
		 id);
	cr_assert(strstr(run.out, text), "%s", run.out);
	CTL("--json", "stat", "ctl/shared");
	expect_key_number("holder_id", id);
	expect_key_number("holder_pid", (uint64_t)getpid());
	cr_assert_eq(ipc_shared_unlock(shared), 0);

	CTL("stat", "ctl/shared");
	cr_assert(strstr(run.out, "\nholder      none\n"), "%s", run.out);
}

/* ---- get, set ---- */

/* */
Test(ctl, get_writes_exactly_the_bytes_of_the_value)
{
	static char large[9000];

	CTL("get", "ctl/watch");
	expect_failure(1, "ctl/watch", "IPC_EAGAIN");

	publish("a\0b\n\xff", 5);
	CTL("get", "ctl/watch");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(run.out_size, 5);
	cr_assert_eq(memcmp(run.out, "a\0b\n\xff", 5), 0);

	publish(NULL, 0);
	CTL("get", "ctl/watch");
	cr_assert_eq(run.status, 0);
	cr_assert_eq(run.out_size, 0);

	memset(large, 'x', sizeof(large));
	publish(large, sizeof(large));
	CTL("get", "ctl/watch");
	cr_assert_eq(run.out_size, sizeof(large));
	cr_assert_eq(memcmp(run.out, large, sizeof(large)), 0);
}

/* */
Test(ctl, get_and_set_are_for_watches_that_exist)
{
	CTL("get", "none");
	expect_failure(1, "none", "IPC_ENOENT");
	CTL("set", "none");
	expect_failure(1, "none", "IPC_ENOENT");
	CTL("get", "ctl/shared");
	expect_failure(1, "ctl/shared", "IPC_EPROTOTYPE");
	CTL("set", "ctl/shared");
	expect_failure(1, "ctl/shared", "IPC_EPROTOTYPE");
}

/* */
Test(ctl, set_publishes_standard_input)
{
	static char large[10001], value[10001];

	CTL_INPUT("a\0b", 3, "set", "ctl/watch");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(read_back(value, sizeof(value)), 3);
	cr_assert_eq(memcmp(value, "a\0b", 3), 0);

	CTL_INPUT("", 0, "set", "ctl/watch");
	cr_assert_eq(run.status, 0);
	cr_assert_eq(read_back(value, sizeof(value)), 0);

	memset(large, 'y', sizeof(large));
	CTL_INPUT(large, 10000, "set", "ctl/watch");
	cr_assert_eq(run.status, 0);
	cr_assert_eq(read_back(value, sizeof(value)), 10000);

	publish("old", 3);
	CTL_INPUT(large, 10001, "set", "ctl/watch");
	expect_failure(1, "ctl/watch", "IPC_EMSGSIZE");
	cr_assert_eq(read_back(value, sizeof(value)), 3);

	cr_assert_eq(ipc_watch_shutdown(producer), 0);
	CTL_INPUT("new", 3, "set", "ctl/watch");
	expect_failure(1, "ctl/watch", "IPC_EPIPE");
}

/* ---- remove ---- */

/* X-6, M-48 */
Test(ctl, remove_takes_the_name_and_leaves_the_handles)
{
	CTL("remove", "ctl/watch");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(run.out_size, 0);

	CTL("list");
	cr_assert(!strstr(run.out, "ctl/watch"), "%s", run.out);
	publish("still", 5);

	CTL("remove", "ctl/watch");
	expect_failure(1, "ctl/watch", "IPC_ENOENT");
}

/* ---- status ---- */

/* */
Test(ctl, a_wait_that_takes_too_long_ends_with_124)
{
	struct timespec start, end;
	size_t size, size_max;
	void *value;

	cr_assert_eq(ipc_watch_edit_wait(producer, &value, &size, &size_max, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	CTL_INPUT("x", 1, "--timeout", "0.3", "set", "ctl/watch");
	clock_gettime(CLOCK_MONOTONIC, &end);

	expect_failure(124, "ctl/watch", "IPC_ETIMEDOUT");
	cr_assert_geq((double)(end.tv_sec - start.tv_sec) +
			      (double)(end.tv_nsec - start.tv_nsec) / 1e9,
		      0.29);
	cr_assert_eq(ipc_watch_abort(producer), 0);
}

static void expect_usage_error(const char *const *args)
{
	ctl_run(args, "", 0);
	cr_assert_eq(run.status, 2, "%s ...: status %d: %s", args[0] ? args[0] : "", run.status,
		     run.err);
	cr_assert_eq(run.out_size, 0);
	cr_assert_eq(strncmp(run.err, "ipcctl: ", 8), 0, "%s", run.err);
}

#define USAGE_ERROR(...) expect_usage_error((const char *const[]){__VA_ARGS__})

/* */
Test(ctl, wrong_usage_ends_with_2)
{
	USAGE_ERROR(NULL);
	USAGE_ERROR("frobnicate", NULL);
	USAGE_ERROR("stat", NULL);
	USAGE_ERROR("get", NULL);
	USAGE_ERROR("set", NULL);
	USAGE_ERROR("remove", NULL);
	USAGE_ERROR("stat", "a", "b", NULL);
	USAGE_ERROR("list", "a", "b", NULL);
	USAGE_ERROR("--unknown", "list", NULL);
	USAGE_ERROR("--timeout", NULL);
	USAGE_ERROR("--timeout", "", "list", NULL);
	USAGE_ERROR("--timeout", "-1", "list", NULL);
	USAGE_ERROR("--timeout", "1x", "list", NULL);
	USAGE_ERROR("--timeout", "nan", "list", NULL);
	USAGE_ERROR("--timeout", "inf", "list", NULL);
	USAGE_ERROR("--address", "", "list", NULL);
	USAGE_ERROR("--json", "get", "a", NULL);
	USAGE_ERROR("handles", NULL);
	USAGE_ERROR("stalled", NULL);
	USAGE_ERROR("stalled", "--over", "5x", NULL);
	USAGE_ERROR("stalled", "--over", "-5s", NULL);
	USAGE_ERROR("stalled", "--over", "", NULL);
	USAGE_ERROR("list", "--over", "5s", NULL);
	USAGE_ERROR("list", "--table", "a", NULL);
	USAGE_ERROR("list", "--", "a", "b", NULL);
}

/* */
Test(ctl, help_and_version_end_with_0)
{
	char version[64];

	ctl_run((const char *const[]){"--help", NULL}, "", 0);
	cr_assert_eq(run.status, 0);
	cr_assert(strstr(run.out, "remove NAME"));

	ctl_run((const char *const[]){"--version", NULL}, "", 0);
	snprintf(version, sizeof(version), "ipcctl %d.%d.%d\n", IPC_VERSION_MAJOR,
		 IPC_VERSION_MINOR, IPC_VERSION_PATCH);
	cr_assert_eq(run.status, 0);
	cr_assert_str_eq(run.out, version);
}

/* X-5, M-40: a tool that looks starts nothing. */
Test(ctl, no_broker_is_a_failure_and_none_is_started)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/none", domain.dir);
	ctl_run((const char *const[]){"--address", path, "list", NULL}, "", 0);
	expect_failure(1, path, "IPC_ECONNREFUSED");

	setenv("IPC_BROKER", path, 1);
	ctl_run((const char *const[]){"list", NULL}, "", 0);
	expect_failure(1, path, "IPC_ECONNREFUSED");
	cr_assert_eq(access(path, F_OK), -1);

	setenv("IPC_BROKER", domain.address, 1);
	ctl_run((const char *const[]){"list", NULL}, "", 0);
	cr_assert_eq(run.status, 0);
	unsetenv("IPC_BROKER");
}

/* what did not get out is a failure. */
Test(ctl, a_full_disk_is_a_failure)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		int full = open("/dev/full", O_WRONLY), null = open("/dev/null", O_WRONLY);

		if (full < 0 || dup2(full, 1) < 0 || dup2(null, 2) < 0)
			_exit(126);
		execlp(program_ctl(), "ipcctl", "--address", domain.address, "list", NULL);
		_exit(127);
	}
	cr_assert_eq(process_reap(pid, 30000), 1);
}

/* M-6, X-6 */
Test(ctl, it_works_while_the_worker_restarts)
{
	for (unsigned i = 0; i < 10; ++i) {
		kill(domain_worker(&domain), SIGKILL);
		CTL("list");
		cr_assert_eq(run.status, 0, "%s", run.err);
		cr_assert(strstr(run.out, "ctl/watch") && strstr(run.out, "ctl/shared"), "%s",
			  run.out);
	}
}
