/* SPDX-License-Identifier: MIT */
/*
 * Wrong arguments, as a stranger would give them: each function refuses each of them by the entry
 * of its page, and nothing has happened then.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/fixture.h"

TestSuite(stranger, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* Of <sys/ipc.h>, which means nothing of ours. */
enum { SYS_IPC_CREAT = 01000, SYS_IPC_EXCL = 02000 };

/* ---- every function that takes a handle ---- */

static bool always(const void *value, size_t size, void *userdata)
{
	(void)value;
	(void)size;
	(void)userdata;
	return true;
}

static int count_channel(const struct ipc_channel_info *info, void *userdata)
{
	(void)info;
	++*(int *)userdata;
	return 0;
}

enum kind { CLIENT, PRODUCER, CONSUMER, WEAK, SHARED, N_KINDS };

/* What to say instead of the usual arguments. */
struct twist {
	const struct timespec *deadline;
	bool drop_pointer; /* give NULL for the first that must not be */
};

#define CALL(name, ...)                                                                            \
	static int name(void *handle, const struct twist *twist)                                   \
	{                                                                                          \
		const struct timespec *deadline = twist->deadline;                                 \
		bool keep = !twist->drop_pointer;                                                  \
		char bytes[16] = "";                                                               \
		const void *value;                                                                 \
		void *copy;                                                                        \
		uint64_t number = 0;                                                               \
		size_t size, size_max;                                                             \
                                                                                                   \
		(void)deadline, (void)keep, (void)bytes, (void)value, (void)copy, (void)number,    \
			(void)size, (void)size_max;                                                \
		return __VA_ARGS__;                                                                \
	}

/* clang-format off */
CALL(client_cancel, ipc_client_cancel(handle))
CALL(client_is_alive, ipc_client_is_alive(handle, 1))
CALL(client_list, ipc_client_list_wait(handle, keep ? "*" : NULL, count_channel, bytes, deadline))
CALL(client_list_fn, ipc_client_list_wait(handle, "*", keep ? count_channel : NULL, bytes, deadline))
CALL(channel_info, ipc_channel_info_wait(handle, keep ? "no/such" : NULL,
					 &(struct ipc_channel_info){.size = sizeof(struct ipc_channel_info)}, deadline))
CALL(channel_info_ret, ipc_channel_info_wait(handle, "no/such",
					     keep ? &(struct ipc_channel_info){.size = sizeof(struct ipc_channel_info)} : NULL, deadline))
CALL(channel_remove, ipc_channel_remove_wait(handle, keep ? "no/such" : NULL, 0, deadline))
CALL(producer_open, ipc_watch_producer_open_wait(&(ipc_watch_producer *){NULL}, handle, keep ? "no/such" : NULL, NULL, deadline))
CALL(producer_open_ret, ipc_watch_producer_open_wait(keep ? &(ipc_watch_producer *){NULL} : NULL, handle, "no/such", NULL, deadline))
CALL(consumer_open, ipc_watch_consumer_open_wait(&(ipc_watch_consumer *){NULL}, handle, keep ? "no/such" : NULL, NULL, deadline))
CALL(consumer_open_ret, ipc_watch_consumer_open_wait(keep ? &(ipc_watch_consumer *){NULL} : NULL, handle, "no/such", NULL, deadline))
CALL(shared_open, ipc_shared_open_wait(&(ipc_shared *){NULL}, handle, keep ? "no/such" : NULL, IPC_SIDE_A, NULL, deadline))
CALL(shared_open_ret, ipc_shared_open_wait(keep ? &(ipc_shared *){NULL} : NULL, handle, "no/such", IPC_SIDE_A, NULL, deadline))
CALL(producer_cancel, ipc_watch_producer_cancel(handle))
CALL(producer_get_id, ipc_watch_producer_get_id(handle, keep ? &number : NULL))
CALL(producer_peers, ipc_watch_producer_peers(handle))
CALL(producer_peers_wait, ipc_watch_producer_peers_wait(handle, true, deadline))
CALL(publish, ipc_watch_publish(handle, keep ? bytes : NULL, 1))
CALL(publish_wait, ipc_watch_publish_wait(handle, keep ? bytes : NULL, 1, deadline))
CALL(edit, ipc_watch_edit_wait(handle, keep ? &copy : NULL, &size, &size_max, deadline))
CALL(edit_size, ipc_watch_edit_wait(handle, &copy, keep ? &size : NULL, &size_max, deadline))
CALL(edit_size_max, ipc_watch_edit_wait(handle, &copy, &size, keep ? &size_max : NULL, deadline))
CALL(watch_commit, ipc_watch_commit(handle, 0))
CALL(watch_abort, ipc_watch_abort(handle))
CALL(watch_shutdown, ipc_watch_shutdown(handle))
CALL(weaken, ipc_watch_weaken(keep ? &(ipc_watch_weak *){NULL} : NULL, handle))
CALL(consumer_cancel, ipc_watch_consumer_cancel(handle))
CALL(consumer_get_id, ipc_watch_consumer_get_id(handle, keep ? &number : NULL))
CALL(consumer_peers, ipc_watch_consumer_peers(handle))
CALL(consumer_peers_wait, ipc_watch_consumer_peers_wait(handle, true, deadline))
CALL(read_value, ipc_watch_read(handle, keep ? bytes : NULL, sizeof(bytes), NULL, NULL))
CALL(read_next, ipc_watch_read_next(handle, bytes, sizeof(bytes), NULL, keep ? &number : NULL))
CALL(read_next_buffer, ipc_watch_read_next(handle, keep ? bytes : NULL, sizeof(bytes), NULL, &number))
CALL(read_wait, ipc_watch_read_wait(handle, bytes, sizeof(bytes), NULL, keep ? &number : NULL, deadline))
CALL(read_wait_buffer, ipc_watch_read_wait(handle, keep ? bytes : NULL, sizeof(bytes), NULL, &number, deadline))
CALL(upgrade, ipc_watch_upgrade_wait(keep ? &(ipc_watch_producer *){NULL} : NULL, handle, deadline))
CALL(wait_any, ipc_wait_any(keep ? &(struct ipc_wait_item){.handle = handle, .events = IPC_READY_READABLE} : NULL, 1, deadline))
CALL(shared_cancel, ipc_shared_cancel(handle))
CALL(shared_get_id, ipc_shared_get_id(handle, keep ? &number : NULL))
CALL(shared_peers, ipc_shared_peers(handle))
CALL(shared_peers_wait, ipc_shared_peers_wait(handle, true, deadline))
CALL(lock, ipc_shared_lock_wait(handle, keep ? &value : NULL, deadline))
CALL(lock_when, ipc_shared_lock_when_wait(handle, keep ? always : NULL, NULL, &value, deadline))
CALL(lock_when_ret, ipc_shared_lock_when_wait(handle, always, NULL, keep ? &value : NULL, deadline))
CALL(shared_edit, ipc_shared_edit(handle, keep ? &copy : NULL))
CALL(shared_commit, ipc_shared_commit(handle))
CALL(shared_unlock, ipc_shared_unlock(handle))
CALL(shared_mark, ipc_shared_mark_consistent(handle))
CALL(shared_shutdown, ipc_shared_shutdown(handle))

#define SLEEPS   1 /* takes a deadline */
#define POINTER  2 /* takes a pointer that must not be NULL */

static const struct call {
	const char *name;
	int (*fn)(void *handle, const struct twist *twist);
	enum kind kind;
	int has;
} calls[] = {
	{"client_cancel", client_cancel, CLIENT, 0},
	{"client_is_alive", client_is_alive, CLIENT, 0},
	{"client_list_wait", client_list, CLIENT, SLEEPS | POINTER},
	{"client_list_wait fn", client_list_fn, CLIENT, SLEEPS | POINTER},
	{"channel_info_wait", channel_info, CLIENT, SLEEPS | POINTER},
	{"channel_info_wait ret", channel_info_ret, CLIENT, SLEEPS | POINTER},
	{"channel_remove_wait", channel_remove, CLIENT, SLEEPS | POINTER},
	{"watch_producer_open_wait", producer_open, CLIENT, SLEEPS | POINTER},
	{"watch_producer_open_wait ret", producer_open_ret, CLIENT, SLEEPS | POINTER},
	{"watch_consumer_open_wait", consumer_open, CLIENT, SLEEPS | POINTER},
	{"watch_consumer_open_wait ret", consumer_open_ret, CLIENT, SLEEPS | POINTER},
	{"shared_open_wait", shared_open, CLIENT, SLEEPS | POINTER},
	{"shared_open_wait ret", shared_open_ret, CLIENT, SLEEPS | POINTER},
	{"watch_producer_cancel", producer_cancel, PRODUCER, 0},
	{"watch_producer_get_id", producer_get_id, PRODUCER, POINTER},
	{"watch_producer_peers", producer_peers, PRODUCER, 0},
	{"watch_producer_peers_wait", producer_peers_wait, PRODUCER, SLEEPS},
	{"watch_publish", publish, PRODUCER, POINTER},
	{"watch_publish_wait", publish_wait, PRODUCER, SLEEPS | POINTER},
	{"watch_edit_wait", edit, PRODUCER, SLEEPS | POINTER},
	{"watch_edit_wait size", edit_size, PRODUCER, SLEEPS | POINTER},
	{"watch_edit_wait size_max", edit_size_max, PRODUCER, SLEEPS | POINTER},
	{"watch_commit", watch_commit, PRODUCER, 0},
	{"watch_abort", watch_abort, PRODUCER, 0},
	{"watch_shutdown", watch_shutdown, PRODUCER, 0},
	{"watch_weaken", weaken, PRODUCER, POINTER},
	{"watch_consumer_cancel", consumer_cancel, CONSUMER, 0},
	{"watch_consumer_get_id", consumer_get_id, CONSUMER, POINTER},
	{"watch_consumer_peers", consumer_peers, CONSUMER, 0},
	{"watch_consumer_peers_wait", consumer_peers_wait, CONSUMER, SLEEPS},
	{"watch_read", read_value, CONSUMER, POINTER},
	{"watch_read_next", read_next, CONSUMER, POINTER},
	{"watch_read_next buffer", read_next_buffer, CONSUMER, POINTER},
	{"watch_read_wait", read_wait, CONSUMER, SLEEPS | POINTER},
	{"watch_read_wait buffer", read_wait_buffer, CONSUMER, SLEEPS | POINTER},
	{"watch_upgrade_wait", upgrade, WEAK, SLEEPS | POINTER},
	{"wait_any", wait_any, CONSUMER, SLEEPS | POINTER},
	{"shared_cancel", shared_cancel, SHARED, 0},
	{"shared_get_id", shared_get_id, SHARED, POINTER},
	{"shared_peers", shared_peers, SHARED, 0},
	{"shared_peers_wait", shared_peers_wait, SHARED, SLEEPS},
	{"shared_lock_wait", lock, SHARED, SLEEPS | POINTER},
	{"shared_lock_when_wait", lock_when, SHARED, SLEEPS | POINTER},
	{"shared_lock_when_wait ret", lock_when_ret, SHARED, SLEEPS | POINTER},
	{"shared_edit", shared_edit, SHARED, POINTER},
	{"shared_commit", shared_commit, SHARED, 0},
	{"shared_unlock", shared_unlock, SHARED, 0},
	{"shared_mark_consistent", shared_mark, SHARED, 0},
	{"shared_shutdown", shared_shutdown, SHARED, 0},
};
/* clang-format on */

#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

struct handles {
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	ipc_watch_weak *weak;
	ipc_shared *shared;
	void *of[N_KINDS];
};

static void handles_open(struct handles *handles)
{
	handles->producer = producer_new("stranger/watch");
	cr_assert_eq(consume(&handles->consumer, "stranger/watch", 0), 0);
	cr_assert_eq(ipc_watch_weaken(&handles->weak, handles->producer), 0);
	handles->shared = shared_new("stranger/shared", IPC_SIDE_A);
	handles->of[CLIENT] = fixture_client;
	handles->of[PRODUCER] = handles->producer;
	handles->of[CONSUMER] = handles->consumer;
	handles->of[WEAK] = handles->weak;
	handles->of[SHARED] = handles->shared;
}

static void handles_close(struct handles *handles)
{
	ipc_shared_close(handles->shared);
	ipc_watch_weak_close(handles->weak);
	ipc_watch_consumer_close(handles->consumer);
	ipc_watch_producer_close(handles->producer);
}

/* Still as after handles_open(). */
static void handles_check(const struct handles *handles)
{
	const void *value;
	char bytes[8];
	int n = 0;

	cr_expect_eq(ipc_watch_read(handles->consumer, bytes, sizeof(bytes), NULL, NULL),
		     IPC_EAGAIN, "something was published");
	cr_expect_eq(ipc_watch_producer_peers_wait(handles->producer, true, &past), 0);
	cr_expect_eq(ipc_watch_publish(handles->producer, "", 1), 0, "an edit is open");
	cr_expect_eq(ipc_shared_lock_wait(handles->shared, &value, &past), 0, "it is locked");
	cr_expect_eq(ipc_shared_unlock(handles->shared), 0);
	cr_expect_eq(ipc_client_list_wait(fixture_client, "*", count_channel, &n, NULL), 0);
	cr_expect_eq(n, 2, "%d channels", n);
}

/* M-11, M-42: what is no handle of the kind */
Test(stranger, a_handle_of_another_kind_or_none_is_refused)
{
	static unsigned char zeros[4096] __attribute__((__aligned__(64)));
	struct handles handles;
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct twist twist = {.deadline = &deadline};

	handles_open(&handles);

	for (unsigned i = 0; i < N_CALLS; ++i) {
		const struct call *call = &calls[i];

		cr_expect_eq(call->fn(NULL, &twist), IPC_EINVAL, "%s of NULL", call->name);
		cr_expect_eq(call->fn(zeros, &twist), IPC_EINVAL, "%s of zeros", call->name);
		for (unsigned kind = 0; kind < N_KINDS; ++kind)
			if (kind != call->kind)
				cr_expect_eq(call->fn(handles.of[kind], &twist), IPC_EINVAL,
					     "%s of kind %u", call->name, kind);
	}

	handles_check(&handles);
	handles_close(&handles);
}

/* M-74 */
Test(stranger, a_null_pointer_is_refused)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct twist twist = {.deadline = &deadline, .drop_pointer = true};
	struct handles handles;

	handles_open(&handles);

	for (unsigned i = 0; i < N_CALLS; ++i)
		if (calls[i].has & POINTER)
			cr_expect_eq(calls[i].fn(handles.of[calls[i].kind], &twist), IPC_EINVAL,
				     "%s", calls[i].name);
	cr_expect_eq(ipc_client_connect_wait(NULL, NULL, &past), IPC_EINVAL);

	handles_check(&handles);
	handles_close(&handles);
}

/* M-20 */
Test(stranger, a_deadline_that_is_no_time_is_refused)
{
	static const struct timespec wrong[] = {{1, 1000000000}, {1, -1}, {0, INT64_MAX}};
	struct handles handles;

	handles_open(&handles);

	for (unsigned w = 0; w < sizeof(wrong) / sizeof(wrong[0]); ++w) {
		struct twist twist = {.deadline = &wrong[w]};
		ipc_client *client;

		for (unsigned i = 0; i < N_CALLS; ++i)
			if (calls[i].has & SLEEPS)
				cr_expect_eq(calls[i].fn(handles.of[calls[i].kind], &twist),
					     IPC_EINVAL, "%s", calls[i].name);
		cr_expect_eq(ipc_client_connect_wait(
				     &client, IPC_CLIENT_OPTIONS(.address = fixture_domain.address),
				     &wrong[w]),
			     IPC_EINVAL);
	}

	handles_check(&handles);
	handles_close(&handles);
}

/* M-20: before the machine was started */
Test(stranger, a_negative_deadline_is_a_past_one)
{
	static const struct timespec long_ago = {-1, 999999999};
	struct handles handles;
	char bytes[8];
	uint64_t version = 0;

	handles_open(&handles);

	cr_expect_eq(ipc_watch_read_wait(handles.consumer, bytes, sizeof(bytes), NULL, &version,
					 &long_ago),
		     IPC_ETIMEDOUT);

	handles_check(&handles);
	handles_close(&handles);
}

/* M-11, M-44: what is no handle of the kind stays as it is */
Test(stranger, a_handle_is_not_closed_by_another_kinds_function)
{
	struct handles handles;

	handles_open(&handles);

	for (unsigned kind = 0; kind < N_KINDS; ++kind) {
		if (kind != PRODUCER)
			ipc_watch_producer_close(handles.of[kind]);
		if (kind != CONSUMER)
			ipc_watch_consumer_close(handles.of[kind]);
		if (kind != WEAK)
			ipc_watch_weak_close(handles.of[kind]);
		if (kind != SHARED)
			ipc_shared_close(handles.of[kind]);
		if (kind != CLIENT)
			ipc_client_unref(handles.of[kind]);
	}

	handles_check(&handles);
	handles_close(&handles);
}

/* M-44 */
Test(stranger, closing_nothing_gives_nothing)
{
	cr_expect_null(ipc_watch_producer_close(NULL));
	cr_expect_null(ipc_watch_consumer_close(NULL));
	cr_expect_null(ipc_watch_weak_close(NULL));
	cr_expect_null(ipc_shared_close(NULL));
	cr_expect_null(ipc_client_unref(NULL));
	cr_expect_null(ipc_client_ref(NULL));
}

/* ---- names ---- */

/* By every function that takes one. */
static void expect_name(const char *name, int result, const char *shown)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	ipc_shared *shared;

	cr_expect_eq(produce(&producer, name, 0), result, "producer: %s", shown);
	cr_expect_eq(consume(&consumer, name, 0), result, "consumer: %s", shown);
	cr_expect_eq(share(&shared, name, IPC_SIDE_B, 0), result, "shared: %s", shown);
	cr_expect_eq(ipc_channel_info_wait(fixture_client, name, &info, NULL), result, "info: %s",
		     shown);
	cr_expect_eq(ipc_channel_remove_wait(fixture_client, name, 0, NULL), result, "remove: %s",
		     shown);
}

/* M-2, M-76 */
Test(stranger, a_name_of_other_bytes_or_too_many_is_refused)
{
	char name[IPC_NAME_SIZE_MAX + 2];

	expect_name("", IPC_EINVAL, "empty");
	expect_name("/a", IPC_EINVAL, "/a");
	for (int byte = 1; byte < 256; ++byte) {
		bool legal = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
			     (byte >= '0' && byte <= '9') || strchr("._-/", byte);
		char text[24];

		(void)snprintf(name, sizeof(name), "a%cb", byte);
		(void)snprintf(text, sizeof(text), "byte %d", byte);
		expect_name(name, legal ? IPC_ENOENT : IPC_EINVAL, text);
	}

	memset(name, 'n', sizeof(name));
	name[IPC_NAME_SIZE_MAX + 1] = '\0';
	expect_name(name, IPC_EINVAL, "256 bytes");
	name[IPC_NAME_SIZE_MAX] = '\0';
	expect_name(name, IPC_ENOENT, "255 bytes");
}

/* M-45, M-76 */
Test(stranger, a_pattern_has_1_to_255_bytes)
{
	char pattern[IPC_PATTERN_SIZE_MAX + 2];
	int n = 0;

	memset(pattern, '*', sizeof(pattern));
	pattern[IPC_PATTERN_SIZE_MAX + 1] = '\0';
	cr_expect_eq(ipc_client_list_wait(fixture_client, pattern, count_channel, &n, NULL),
		     IPC_EINVAL);
	cr_expect_eq(ipc_client_list_wait(fixture_client, "", count_channel, &n, NULL), IPC_EINVAL);
	pattern[IPC_PATTERN_SIZE_MAX] = '\0';
	cr_expect_eq(ipc_client_list_wait(fixture_client, pattern, count_channel, &n, NULL), 0);
	cr_expect_eq(ipc_client_list_wait(fixture_client, "[", count_channel, &n, NULL), 0);
	cr_expect_eq(n, 0);
}

/* ---- options ---- */

static int open_watch(const struct ipc_watch_options *options)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer = NULL;
	ipc_watch_consumer *consumer = NULL;
	int r, again;

	r = ipc_watch_producer_open_wait(&producer, fixture_client, "stranger/watch", options,
					 &deadline);
	ipc_watch_producer_close(producer);
	again = ipc_watch_consumer_open_wait(&consumer, fixture_client, "stranger/watch", options,
					     &deadline);
	ipc_watch_consumer_close(consumer);
	cr_expect_eq(r, again, "%s, %s", ipc_error_name(r), ipc_error_name(again));
	return r;
}

static int open_shared(const struct ipc_shared_options *options, enum ipc_side side)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_shared *shared = NULL;
	int r;

	r = ipc_shared_open_wait(&shared, fixture_client, "stranger/shared", side, options,
				 &deadline);
	ipc_shared_close(shared);
	return r;
}

/* M-41, M-47: IPC_CREAT and IPC_EXCL are other people's */
Test(stranger, flags_that_the_role_does_not_take_are_refused)
{
	const uint64_t known = IPC_CREATE | IPC_EXCLUSIVE | IPC_KEEP | IPC_AWAIT | IPC_STAY;

	for (unsigned bit = 0; bit < 64; ++bit) {
		uint64_t flag = UINT64_C(1) << bit;
		bool in_place = flag == IPC_SHARED_IN_PLACE;

		if ((flag & known) && flag != IPC_KEEP)
			continue;
		cr_expect_eq(open_watch(IPC_WATCH_OPTIONS(.flags = IPC_CREATE | flag)), IPC_EINVAL,
			     "watch, bit %u", bit);
		cr_expect_eq(
			open_shared(IPC_SHARED_OPTIONS(.flags = IPC_CREATE | flag), IPC_SIDE_A),
			in_place ? 0 : IPC_EINVAL, "shared, bit %u", bit);
	}

	cr_expect_eq(open_watch(IPC_WATCH_OPTIONS(.flags = SYS_IPC_CREAT | SYS_IPC_EXCL)),
		     IPC_EINVAL);
	cr_expect_eq(open_watch(IPC_WATCH_OPTIONS(.flags = IPC_EXCLUSIVE)), IPC_EINVAL);
	cr_expect_eq(open_shared(IPC_SHARED_OPTIONS(.flags = IPC_EXCLUSIVE), IPC_SIDE_A),
		     IPC_EINVAL);
	cr_expect_not(exists("stranger/watch"));
	cr_expect_not(exists("stranger/shared"));
}

/* M-76: one more than the largest */
Test(stranger, sizes_and_modes_beyond_the_limits_are_refused)
{
	cr_expect_eq(open_watch(IPC_WATCH_OPTIONS(.flags = IPC_CREATE,
						  .value_size_max = IPC_VALUE_SIZE_MAX + 1)),
		     IPC_EINVAL);
	cr_expect_eq(
		open_watch(IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = UINT64_MAX)),
		IPC_EINVAL);
	cr_expect_eq(open_shared(IPC_SHARED_OPTIONS(.flags = IPC_CREATE,
						    .value_size = IPC_VALUE_SIZE_MAX + 1),
				 IPC_SIDE_A),
		     IPC_EINVAL);
	cr_expect_eq(open_watch(IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 01600)), IPC_EINVAL);
	cr_expect_eq(open_watch(IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 0700)), IPC_EINVAL);
	cr_expect_eq(open_shared(IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .mode = 0755), IPC_SIDE_A),
		     IPC_EINVAL);
	cr_expect_not(exists("stranger/watch"));
	cr_expect_not(exists("stranger/shared"));
}

/* S-12 */
Test(stranger, there_are_two_sides)
{
	static const unsigned wrong[] = {0, 3, 0xffffffffu};

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i)
		cr_expect_eq(open_shared(IPC_SHARED_OPTIONS(.flags = IPC_CREATE),
					 (enum ipc_side)wrong[i]),
			     IPC_EINVAL);
	cr_expect_not(exists("stranger/shared"));
}

/* M-41: a struct of a version to come */
struct longer_options {
	struct ipc_watch_options known;
	uint64_t later;
};

/* M-41 */
Test(stranger, a_field_that_this_library_lacks_is_too_big)
{
	struct longer_options options = {.known = {.size = sizeof(options), .flags = IPC_CREATE},
					 .later = 1};

	cr_expect_eq(open_watch(&options.known), IPC_E2BIG);
	options.later = 0;
	cr_expect_eq(open_watch(&options.known), 0);

	options.known.size = sizeof(options.known);
	options.known.reserved = 1;
	cr_expect_eq(open_watch(&options.known), IPC_E2BIG);
	options.known.reserved = 0;
	options.known.size = SIZE_MAX;
	cr_expect_eq(open_watch(&options.known), IPC_E2BIG);
	options.known.size = sizeof(size_t) - 1;
	cr_expect_eq(open_watch(&options.known), IPC_EINVAL);
	options.known.size = 0;
	cr_expect_eq(open_watch(&options.known), IPC_EINVAL);
}

/* M-46 */
Test(stranger, an_info_without_a_size_is_refused)
{
	struct ipc_channel_info info = {.size = sizeof(size_t) - 1, .mode = 77};
	ipc_watch_producer *producer = producer_new("stranger/watch");

	cr_expect_eq(ipc_channel_info_wait(fixture_client, "stranger/watch", &info, NULL),
		     IPC_EINVAL);
	info.size = sizeof(size_t);
	cr_expect_eq(ipc_channel_info_wait(fixture_client, "stranger/watch", &info, NULL), 0);
	cr_expect_eq(info.mode, 77, "written beyond its size");

	ipc_watch_producer_close(producer);
}

/* W-14, M-74: buffers that are too small, data that is too large, and nothing at all */
Test(stranger, data_of_no_bytes_needs_no_pointer)
{
	struct handles handles;
	uint64_t version = 0;
	size_t size = 99;
	char bytes[8];

	handles_open(&handles);

	cr_expect_eq(ipc_watch_publish(handles.producer, NULL, 0), 0);
	cr_expect_eq(ipc_watch_read_next(handles.consumer, NULL, 0, &size, &version), 0);
	cr_expect_eq(size, 0);
	cr_expect_eq(ipc_watch_publish(handles.producer, "1234", 4), 0);
	cr_expect_eq(ipc_watch_read(handles.consumer, NULL, 0, &size, NULL), IPC_EMSGSIZE);
	cr_expect_eq(size, 4);
	cr_expect_eq(ipc_watch_publish(handles.producer, bytes, 4097), IPC_EMSGSIZE);
	cr_expect_eq(ipc_watch_publish_wait(handles.producer, bytes, SIZE_MAX, NULL), IPC_EMSGSIZE);
	cr_expect_eq(ipc_watch_read(handles.consumer, bytes, sizeof(bytes), &size, NULL), 0);
	cr_expect_arr_eq(bytes, "1234", 4);

	handles_close(&handles);
}

/* M-3: ids that nobody has */
Test(stranger, an_id_that_never_was_is_not_alive)
{
	ipc_watch_producer *producer = producer_new("stranger/watch");
	uint64_t id;

	cr_assert_eq(ipc_watch_producer_get_id(producer, &id), 0);
	cr_expect_eq(ipc_client_is_alive(fixture_client, id), 1);
	cr_expect_eq(ipc_client_is_alive(fixture_client, 0), 0);
	cr_expect_eq(ipc_client_is_alive(fixture_client, UINT64_MAX), 0);
	for (unsigned bit = 0; bit < 64; ++bit)
		cr_expect_eq(ipc_client_is_alive(fixture_client, id ^ (UINT64_C(1) << bit)), 0,
			     "bit %u", bit);

	ipc_watch_producer_close(producer);
}
