/* SPDX-License-Identifier: MIT */

/*
 * ipcctl push and take.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <jansson.h>

#include "tests/support/failure.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/program.h"

#define END_MS 30000

static struct program run, other;
static ipc_queue_producer *producer;
static ipc_queue_consumer *consumer;

static void setup(void)
{
	fixture_setup();
}

static void teardown(void)
{
	program_forget(&run);
	program_forget(&other);
	producer = ipc_queue_producer_close(producer);
	consumer = ipc_queue_consumer_close(consumer);
	fixture_teardown();
}

TestSuite(ctl_queue, .init = setup, .fini = teardown, .timeout = 100);

static void ctl_run(const char *const *args, const void *input, size_t input_size)
{
	program_forget(&run);
	program_start_ctl(&run, fixture_domain.address, args, input, input_size);
	program_end(&run, END_MS);
}

#define CTL_INPUT(input, size, ...) ctl_run((const char *const[]){__VA_ARGS__, NULL}, input, size)
#define CTL(...)                    CTL_INPUT("", 0, __VA_ARGS__)

static void start_args(struct program *program, const char *const *args)
{
	program_start_ctl(program, fixture_domain.address, args, "a\nb\nc\n", 6);
}

#define START(program, ...) start_args(program, (const char *const[]){__VA_ARGS__, NULL})

static void until_waiters(const char *name, unsigned n)
{
	struct timespec deadline = process_deadline(END_MS);
	struct ipc_channel_info info = {0};

	while ((info_of(name, &info) < 0 || info.waiters != n) && !process_has_passed(&deadline))
		process_pause();
	cr_assert_eq(info.waiters, n);
}

/* ---- the queue jobs ---- */

static void jobs_new(struct ipc_queue_options options)
{
	int r;

	options.size = sizeof(options);
	options.flags |= IPC_CREATE | IPC_STAY;
	r = ipc_queue_producer_open_wait(&producer, fixture_client, "jobs", &options, NULL);
	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
}

#define JOBS_NEW(...) jobs_new((struct ipc_queue_options){__VA_ARGS__})

static void jobs_consume(void)
{
	int r = ipc_queue_consumer_open_wait(&consumer, fixture_client, "jobs",
					     IPC_QUEUE_OPTIONS(.flags = IPC_STAY), NULL);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
}

static void jobs_push(unsigned priority, const void *data, size_t size)
{
	int r = ipc_queue_push(producer, priority, data, size, IPC_FULL_FAIL);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
}

/* The next item of `from`, there or on its way, which is acknowledged. */
static void expect_item(ipc_queue_consumer *from, const void *data, size_t size, unsigned priority,
			unsigned attempt)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_queue_item item;
	int r = ipc_queue_take_wait(from, &item, &deadline);

	cr_assert_eq(r, 0, "%s", ipc_error_name(r));
	cr_assert_eq(item.size, size);
	cr_expect(size == 0 || memcmp(item.data, data, size) == 0, "%.*s", (int)size,
		  (const char *)item.data);
	cr_expect_eq(item.priority, priority);
	cr_expect_eq(item.attempt, attempt);
	cr_assert_eq(ipc_queue_ack(from, &item), 0);
}

static void expect_nothing(void)
{
	struct ipc_queue_item item;

	cr_expect_eq(ipc_queue_take(consumer, &item), IPC_EAGAIN);
}

static uint64_t n_left(void)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	uint64_t n = 0;

	cr_assert_eq(ipc_queue_producer_get_state(producer, &state), 0);
	for (unsigned i = 0; i < IPC_PRIORITIES_MAX; ++i)
		n += state.items[i] + state.leased[i];
	return n;
}

static void expect_failure(int status, const char *line)
{
	cr_expect_eq(run.status, status, "status %d", run.status);
	cr_expect_str_eq(run.err, line);
}

/* ---- push ---- */

/* */
Test(ctl_queue, push_makes_an_item_of_each_line)
{
	JOBS_NEW(.flags = 0);
	jobs_consume();

	CTL_INPUT("one\n\nthr\0ee\nlast", 16, "push", "jobs");

	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect_str_eq(run.err, "");
	cr_expect_eq(run.out_size, 0);
	expect_item(consumer, "one", 3, 0, 1);
	expect_item(consumer, "", 0, 0, 1);
	expect_item(consumer, "thr\0ee", 6, 0, 1);
	expect_item(consumer, "last", 4, 0, 1);
	expect_nothing();
}

/* */
Test(ctl_queue, push_with_null_takes_new_lines_as_they_are)
{
	JOBS_NEW(.flags = 0);
	jobs_consume();

	CTL_INPUT("a\nb\n\0\0c", 7, "push", "--null", "jobs", "--priority", "1");

	cr_assert_eq(run.status, 0, "%s", run.err);
	expect_item(consumer, "a\nb\n", 4, 1, 1);
	expect_item(consumer, "", 0, 1, 1);
	expect_item(consumer, "c", 1, 1, 1);
	expect_nothing();
}

/* */
Test(ctl_queue, push_is_for_queues_that_exist)
{
	ipc_shared *shared = shared_new("shared", IPC_SIDE_A);

	CTL_INPUT("a\n", 2, "push", "jobs");
	expect_failure(1, "ipcctl: jobs: no such name (IPC_ENOENT)\n");
	CTL_INPUT("a\n", 2, "push", "shared");
	cr_expect_eq(run.status, 1);
	cr_expect(strstr(run.err, "(IPC_EPROTOTYPE)\n"), "%s", run.err);
	CTL_INPUT("a\n", 2, "take", "jobs");
	expect_failure(1, "ipcctl: jobs: no such name (IPC_ENOENT)\n");

	ipc_shared_close(shared);
}

/* what was pushed outlives the one who pushed. */
Test(ctl_queue, push_makes_a_queue_that_stays)
{
	struct ipc_channel_info info;

	CTL_INPUT("a\nb\nc\n", 6, "push", "--create", "--items", "2", "--bytes", "4KiB",
		  "--priorities", "3", "--priority", "2", "--policy", "drop", "jobs");

	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect_str_eq(run.err, "ipcctl: jobs: 2 queued, 1 dropped\n");
	cr_assert_eq(info_of("jobs", &info), 0);
	cr_expect_eq(info.flags, IPC_KEEP);
	cr_expect_eq(info.capacity, 4096);
	cr_expect_eq(info.handles[0] + info.handles[1], 0);

	/* One that is there is used as it is. */
	CTL("take", "--create", "--items", "7", "jobs", "--count", "5");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect_str_eq(run.out, "a\nb\n");
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* */
Test(ctl_queue, push_can_make_a_queue_with_dead_letters)
{
	CTL_INPUT("", 0, "push", "--create", "dead");
	CTL_INPUT("1\n2\n", 4, "push", "--create", "--items", "1", "--dead-letters", "dead",
		  "--policy", "dead-letter", "jobs");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect_str_eq(run.err, "ipcctl: jobs: 1 queued, 1 dead-lettered\n");

	CTL("take", "dead");
	cr_expect_str_eq(run.out, "2\n");
	cr_assert_eq(take_away("jobs", 0), 0);
	cr_assert_eq(take_away("dead", 0), 0);
}

/* */
Test(ctl_queue, push_waits_for_room)
{
	JOBS_NEW(.items_max = 1);
	jobs_consume();

	START(&run, "push", "jobs");
	until_waiters("jobs", 1);
	expect_item(consumer, "a", 1, 0, 1);
	expect_item(consumer, "b", 1, 0, 1);
	program_end(&run, END_MS);

	cr_assert_eq(run.status, 0, "%s", run.err);
	expect_item(consumer, "c", 1, 0, 1);
}

/* */
Test(ctl_queue, push_tells_how_far_it_came)
{
	JOBS_NEW(.items_max = 2, .item_size_max = 8);
	jobs_consume();

	CTL_INPUT("a\nb\nc\n", 6, "push", "--timeout", "1", "jobs");
	expect_failure(124, "ipcctl: jobs: 2 queued: the deadline passed first (IPC_ETIMEDOUT)\n");
	expect_item(consumer, "a", 1, 0, 1);

	CTL_INPUT("c\nd\n", 4, "push", "--policy", "fail", "jobs");
	cr_expect_eq(run.status, 1);
	cr_expect_eq(strncmp(run.err, "ipcctl: jobs: 1 queued: ", 24), 0, "%s", run.err);
	cr_expect(strstr(run.err, " (IPC_EAGAIN)\n"), "%s", run.err);
	expect_item(consumer, "b", 1, 0, 1);
	expect_item(consumer, "c", 1, 0, 1);

	CTL_INPUT("12345678\n123456789\nx\n", 21, "push", "jobs");
	cr_expect_eq(run.status, 1);
	cr_expect_eq(strncmp(run.err, "ipcctl: jobs: 1 queued: ", 24), 0, "%s", run.err);
	cr_expect(strstr(run.err, " (IPC_EMSGSIZE)\n"), "%s", run.err);
	expect_item(consumer, "12345678", 8, 0, 1);
	expect_nothing();

	CTL_INPUT("x\n", 2, "push", "--priority", "7", "jobs");
	cr_expect_eq(run.status, 1);
	cr_expect(strstr(run.err, " 0 queued: "), "%s", run.err);
	cr_expect(strstr(run.err, " (IPC_EINVAL)\n"), "%s", run.err);
}

/* what cannot be an item any more is not read to its end, which may never come. */
Test(ctl_queue, push_gives_up_a_line_that_is_too_long)
{
	int pipe[2];
	pid_t pid;

	JOBS_NEW(.item_size_max = 8);
	cr_assert_eq(pipe2(pipe, O_CLOEXEC), 0);
	cr_assert_eq(write(pipe[1], "123456789", 9), 9);
	pid = process_fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		if (dup2(pipe[0], 0) < 0 || dup2(null, 2) < 0)
			_exit(126);
		execlp(program_ctl(), "ipcctl", "--address", fixture_domain.address, "push", "jobs",
		       NULL);
		_exit(127);
	}

	cr_expect_eq(process_reap(pid, END_MS), 1);
	cr_expect_eq(n_left(), 0);
	close(pipe[0]);
	close(pipe[1]);
}

/* a folder can be opened, and not read. */
Test(ctl_queue, push_tells_an_input_that_cannot_be_read)
{
	pid_t pid;

	JOBS_NEW(.flags = 0);
	jobs_consume();
	pid = process_fork();
	if (pid == 0) {
		int folder = open("/", O_RDONLY | O_DIRECTORY), null = open("/dev/null", O_WRONLY);

		if (folder < 0 || dup2(folder, 0) < 0 || dup2(null, 2) < 0)
			_exit(126);
		execlp(program_ctl(), "ipcctl", "--address", fixture_domain.address, "push", "jobs",
		       NULL);
		_exit(127);
	}

	cr_expect_eq(process_reap(pid, END_MS), 1);
	expect_nothing();
}

/* X-6, M-22, Q-8: whoever takes has gone, and the queue with it. */
Test(ctl_queue, push_ends_with_the_last_consumer_of_a_queue_that_is_not_kept)
{
	JOBS_NEW(.items_max = 1);
	jobs_consume();

	START(&run, "push", "jobs");
	until_waiters("jobs", 1);
	consumer = ipc_queue_consumer_close(consumer);
	program_end(&run, END_MS);

	expect_failure(
		1, "ipcctl: jobs: 1 queued: the other side is gone: it closed, or the channel was "
		   "shut down (IPC_EPIPE)\n");
}

/* whoever comes next makes room. */
Test(ctl_queue, push_outlasts_the_consumers_of_a_queue_that_is_kept)
{
	JOBS_NEW(.flags = IPC_KEEP, .items_max = 1);
	jobs_consume();

	START(&run, "push", "jobs");
	until_waiters("jobs", 1);
	consumer = ipc_queue_consumer_close(consumer);
	for (unsigned i = 0; i < 3; ++i) {
		program_forget(&other);
		START(&other, "--timeout", "20", "take", "--wait", "jobs");
		program_end(&other, END_MS);
		cr_assert_eq(other.status, 0, "%s", other.err);
		cr_expect_eq(other.out[0], 'a' + (char)i);
	}
	program_end(&run, END_MS);

	cr_expect_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* ---- take ---- */

/* */
Test(ctl_queue, take_writes_one_item_a_line)
{
	JOBS_NEW(.flags = IPC_KEEP);
	jobs_push(1, "low", 3);
	jobs_push(0, "hi\0gh", 5);
	jobs_push(1, "", 0);
	jobs_push(1, "more", 4);

	CTL("take", "jobs");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(run.out_size, 6);
	cr_expect_eq(memcmp(run.out, "hi\0gh\n", 6), 0);
	cr_expect_eq(n_left(), 3);

	CTL("take", "jobs", "--count", "2", "--null");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(run.out_size, 5);
	cr_expect_eq(memcmp(run.out, "low\0\0", 5), 0);
	cr_expect_eq(n_left(), 1);

	/* Fewer than asked for are no failure, none is. */
	CTL("take", "jobs", "--count", "9");
	cr_expect_eq(run.status, 0, "%s", run.err);
	cr_expect_str_eq(run.out, "more\n");
	CTL("take", "jobs", "--count", "9");
	cr_expect_eq(run.status, 1);
	cr_expect(strstr(run.err, "(IPC_EAGAIN)\n"), "%s", run.err);
	cr_expect_eq(run.out_size, 0);
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* */
Test(ctl_queue, take_waits_for_as_many_as_it_was_told)
{
	JOBS_NEW(.flags = IPC_KEEP);

	START(&run, "take", "--wait", "--count", "2", "jobs");
	until_waiters("jobs", 1);
	jobs_push(0, "a", 1);
	until_waiters("jobs", 1);
	jobs_push(0, "b", 1);
	program_end(&run, END_MS);

	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect_str_eq(run.out, "a\nb\n");
	cr_expect_eq(n_left(), 0);

	jobs_push(0, "c", 1);
	CTL("take", "--wait", "--count", "2", "--timeout", "1", "jobs");
	cr_expect_eq(run.status, 124, "%s", run.err);
	cr_expect_str_eq(run.out, "c\n");
	cr_expect_str_eq(run.err,
			 "ipcctl: jobs: 1 taken: the deadline passed first (IPC_ETIMEDOUT)\n");
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* X-6, M-48: and what is there is drained first. */
Test(ctl_queue, take_ends_with_the_queue)
{
	JOBS_NEW(.flags = IPC_KEEP);
	START(&run, "take", "--wait", "--count", "9", "jobs");
	until_waiters("jobs", 1);

	jobs_push(0, "a", 1);
	until_waiters("jobs", 1);
	cr_assert_eq(take_away("jobs", 0), 0);
	producer = ipc_queue_producer_close(producer);
	program_end(&run, END_MS);

	cr_expect_eq(run.status, 1);
	cr_expect_str_eq(run.out, "a\n");
	cr_expect(strstr(run.err, "1 taken: ") && strstr(run.err, "(IPC_EPIPE)\n"), "%s", run.err);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	cr_assert(text, "no text %s in %s", key, run.out);
	return text;
}

static uint64_t number_of(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	cr_assert(json_is_integer(value), "no number %s in %s", key, run.out);
	return (uint64_t)json_integer_value(value);
}

static json_t *taken(const char *name, const char *count)
{
	json_t *array;

	CTL("--json", "take", name, "--count", count);
	cr_assert_eq(run.status, 0, "%s", run.err);
	array = json_loads(run.out, 0, NULL);
	cr_assert(json_is_array(array), "%s", run.out);
	return array;
}

/* the keys are the names of the fields. */
Test(ctl_queue, take_as_json_is_an_array_of_objects)
{
	const json_t *first, *second;
	uint64_t id;
	json_t *array;

	JOBS_NEW(.flags = IPC_KEEP);
	cr_assert_eq(ipc_queue_producer_get_id(producer, &id), 0);
	jobs_push(0, "\"one\"\n", 6);
	jobs_push(1, "\xff\xfe\xfd\x00", 4);

	array = taken("jobs", "5");

	cr_assert_eq(json_array_size(array), 2);
	first = json_array_get(array, 0);
	second = json_array_get(array, 1);
	cr_expect_str_eq(text_of(first, "data"), "\"one\"\n");
	cr_expect(!json_object_get(first, "data_base64"));
	cr_expect_eq(number_of(first, "size"), 6);
	cr_expect_eq(number_of(first, "priority"), 0);
	cr_expect_eq(number_of(first, "attempt"), 1);
	cr_expect_eq(number_of(first, "origin"), id);
	cr_expect_gt(number_of(first, "enqueued_ns"), 0);
	cr_expect_str_eq(text_of(first, "reason"), "none");
	cr_expect(json_is_null(json_object_get(first, "source")));
	cr_expect(json_is_null(json_object_get(second, "data")));
	cr_expect_str_eq(text_of(second, "data_base64"), "//79AA==");
	cr_expect_eq(number_of(second, "priority"), 1);
	json_decref(array);

	CTL("--json", "take", "jobs");
	cr_expect_eq(run.status, 1);
	cr_expect_eq(run.out_size, 0);
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* */
Test(ctl_queue, take_tells_where_dead_letters_come_from)
{
	struct ipc_queue_item item;
	const json_t *letter;
	json_t *array;

	CTL("push", "--create", "dead");
	JOBS_NEW(.flags = IPC_KEEP, .items_max = 1, .dead_letters = "dead");
	jobs_consume();
	jobs_push(1, "x", 1);
	cr_assert_eq(ipc_queue_push(producer, 1, "y", 1, IPC_FULL_DEAD_LETTER), IPC_DEAD_LETTERED);
	cr_assert_eq(ipc_queue_take(consumer, &item), 0);
	cr_assert_eq(ipc_queue_reject(consumer, &item), 0);

	array = taken("dead", "2");

	cr_assert_eq(json_array_size(array), 2);
	letter = json_array_get(array, 0);
	cr_expect_str_eq(text_of(letter, "data"), "y");
	cr_expect_str_eq(text_of(letter, "reason"), "full");
	letter = json_array_get(array, 1);
	cr_expect_str_eq(text_of(letter, "data"), "x");
	cr_expect_str_eq(text_of(letter, "reason"), "rejected");
	cr_expect_str_eq(text_of(letter, "source"), "jobs");
	cr_expect_eq(number_of(letter, "priority"), 1);
	cr_expect_eq(number_of(letter, "attempt"), 1);
	json_decref(array);
	cr_assert_eq(take_away("jobs", 0), 0);
	cr_assert_eq(take_away("dead", 0), 0);
}

/* ---- what others see ---- */

/* Ten bytes wait, eleven are leased, one item each was acknowledged, dropped and rejected. */
static void jobs_in_all_states(void)
{
	struct ipc_queue_item item;

	JOBS_NEW(.flags = IPC_KEEP, .items_max = 2, .priorities = 3);
	jobs_consume();
	jobs_push(1, "a", 1);
	expect_item(consumer, "a", 1, 1, 1);
	jobs_push(1, "b", 1);
	cr_assert_eq(ipc_queue_take(consumer, &item), 0);
	cr_assert_eq(ipc_queue_reject(consumer, &item), 0);
	jobs_push(1, "leased item", 11);
	cr_assert_eq(ipc_queue_take(consumer, &item), 0);
	jobs_push(1, "ten bytes.", 10);
	cr_assert_eq(ipc_queue_push(producer, 1, "c", 1, IPC_FULL_DROP), IPC_DROPPED);
}

/* */
Test(ctl_queue, stat_tells_what_stands_in_each_priority)
{
	jobs_in_all_states();

	CTL("stat", "jobs");

	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect(strstr(run.out, "\nkind        queue\n"), "%s", run.out);
	cr_expect(strstr(run.out, "\ncapacity    1 MiB\n"), "%s", run.out);
	cr_expect(
		strstr(run.out,
		       "\n\nPRIORITY  ITEMS  BYTES  LEASED  QUEUED  ACKNOWLEDGED  "
		       "DEAD-LETTERED  DROPPED\n"
		       "       0      0    0 B       0       0             0  0              0\n"
		       "       1      1   10 B       1       4             1  0              "
		       "1 full, 1 rejected\n"
		       "       2      0    0 B       0       0             0  0              0\n"),
		"%s", run.out);
	cr_expect_eq(ipc_queue_consumer_peers(consumer), 1);
	cr_assert_eq(take_away("jobs", 0), 0);
}

static uint64_t number_in(const json_t *state, const char *key, size_t priority)
{
	const json_t *array = json_object_get(state, key);

	cr_assert_eq(json_array_size(array), 3, "%s", run.out);
	return (uint64_t)json_integer_value(json_array_get(array, priority));
}

/* the keys are the names of the fields. */
Test(ctl_queue, stat_as_json_has_the_state)
{
	const json_t *state, *dropped;
	json_t *object;

	jobs_in_all_states();

	CTL("--json", "stat", "jobs");

	object = json_loads(run.out, 0, NULL);
	cr_assert_str_eq(text_of(object, "kind"), "queue");
	state = json_object_get(object, "state");
	cr_expect_eq(number_of(state, "priorities"), 3);
	cr_expect_eq(number_of(state, "n_leased"), 1);
	cr_expect_eq(number_in(state, "items", 1), 1);
	cr_expect_eq(number_in(state, "items", 0), 0);
	cr_expect_eq(number_in(state, "bytes", 1), 10);
	cr_expect_eq(number_in(state, "leased", 1), 1);
	cr_expect_eq(number_in(state, "queued", 1), 4);
	cr_expect_eq(number_in(state, "acknowledged", 1), 1);
	(void)number_in(state, "dead_lettered", 0);
	(void)number_in(state, "dropped", 0);
	dropped = json_array_get(json_object_get(state, "dropped"), 1);
	cr_assert_eq(json_array_size(dropped), IPC_DEAD_REASONS_MAX);
	cr_expect_eq(json_integer_value(json_array_get(dropped, IPC_DEAD_FULL)), 1);
	cr_expect_eq(json_integer_value(json_array_get(dropped, IPC_DEAD_REJECTED)), 1);
	cr_expect_eq(json_integer_value(json_array_get(dropped, IPC_DEAD_ATTEMPTS)), 0);
	cr_expect(json_is_false(json_object_get(state, "partial")));
	json_decref(object);
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* who has taken what, and for how long. */
Test(ctl_queue, stalled_and_handles_show_leases)
{
	jobs_in_all_states();

	CTL("stalled", "--over", "1ns");
	cr_expect(strstr(run.out, "  queue_consumer  leases  "), "%s", run.out);
	CTL("stalled", "--over", "1h");
	cr_expect(!strstr(run.out, "jobs"), "%s", run.out);
	CTL("handles", "jobs");
	cr_expect(strstr(run.out, "  queue_consumer  leases  "), "%s", run.out);
	cr_expect(strstr(run.out, "  queue_producer  -  "), "%s", run.out);
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* ---- nothing is lost ---- */

/* ipcctl take with this as its standard output. */
static pid_t take_into(int fd)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		if (dup2(fd, 1) < 0 || dup2(null, 2) < 0)
			_exit(126);
		execlp(program_ctl(), "ipcctl", "--address", fixture_domain.address, "take",
		       "--count", "2", "jobs", NULL);
		_exit(127);
	}
	return pid;
}

static void fill_pipe(int fd)
{
	static const char bytes[4096];

	cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	cr_assert_eq(fcntl(fd, F_SETFL, 0), 0);
}

static void until_leased(void)
{
	struct timespec deadline = process_deadline(END_MS);
	struct ipc_queue_state state = {.size = sizeof(state)};

	while (state.n_leased == 0 && !process_has_passed(&deadline)) {
		cr_assert_eq(ipc_queue_producer_get_state(producer, &state), 0);
		process_pause();
	}
	cr_assert_eq(state.n_leased, 1);
}

/* */
Test(ctl_queue, take_that_is_killed_in_the_middle_of_an_item_loses_nothing)
{
	int pipe[2];
	pid_t pid;

	JOBS_NEW(.flags = IPC_KEEP);
	jobs_push(0, "a", 1);
	jobs_push(0, "b", 1);
	cr_assert_eq(pipe2(pipe, O_CLOEXEC), 0);
	fill_pipe(pipe[1]);

	pid = take_into(pipe[1]);
	until_leased();
	kill(pid, SIGKILL);
	cr_assert_eq(process_reap(pid, END_MS), 128 + SIGKILL);

	jobs_consume();
	expect_item(consumer, "a", 1, 0, 2);
	expect_item(consumer, "b", 1, 0, 1);
	expect_nothing();
	close(pipe[0]);
	close(pipe[1]);
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* nobody reads, or the disk is full. */
Test(ctl_queue, take_that_cannot_write_loses_nothing)
{
	int pipe[2], full;

	JOBS_NEW(.flags = IPC_KEEP);
	jobs_push(0, "a", 1);
	cr_assert_eq(pipe2(pipe, O_CLOEXEC), 0);
	close(pipe[0]);
	full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	cr_assert_geq(full, 0);

	cr_expect_eq(process_reap(take_into(pipe[1]), END_MS), 1);
	cr_expect_eq(process_reap(take_into(full), END_MS), 1);

	jobs_consume();
	expect_item(consumer, "a", 1, 0, 3);
	expect_nothing();
	close(pipe[1]);
	close(full);
	cr_assert_eq(take_away("jobs", 0), 0);
}

/* ---- usage ---- */

static void expect_usage_error(const char *const *args)
{
	ctl_run(args, "", 0);
	cr_expect_eq(run.status, 2, "%s %s: status %d: %s", args[0], args[1], run.status, run.err);
	cr_expect_eq(strncmp(run.err, "ipcctl: ", 8), 0, "%s", run.err);
}

#define USAGE_ERROR(...) expect_usage_error((const char *const[]){__VA_ARGS__, NULL})

/* */
Test(ctl_queue, wrong_usage_ends_with_2)
{
	USAGE_ERROR("push");
	USAGE_ERROR("take");
	USAGE_ERROR("push", "a", "b");
	USAGE_ERROR("push", "a", "--priority", "8");
	USAGE_ERROR("push", "a", "--priority", "-1");
	USAGE_ERROR("push", "a", "--policy", "wait");
	USAGE_ERROR("push", "a", "--items", "5");
	USAGE_ERROR("push", "a", "--create", "--items", "0");
	USAGE_ERROR("push", "a", "--create", "--priorities", "9");
	USAGE_ERROR("push", "a", "--create", "--bytes", "5KB");
	USAGE_ERROR("push", "a", "--create", "--bytes", "0");
	USAGE_ERROR("push", "a", "--wait");
	USAGE_ERROR("push", "a", "--count", "1");
	USAGE_ERROR("push", "a", "--json");
	USAGE_ERROR("take", "a", "--priority", "1");
	USAGE_ERROR("take", "a", "--policy", "drop");
	USAGE_ERROR("take", "a", "--count", "0");
	USAGE_ERROR("take", "a", "--count", "x");
	USAGE_ERROR("take", "a", "--json", "--null");
	USAGE_ERROR("list", "--create");
	USAGE_ERROR("stat", "a", "--null");
}
