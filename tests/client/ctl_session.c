/* SPDX-License-Identifier: MIT */

/*
 * What ipcctl shows of listeners and their sessions.
 */

#include "tests/client/session_scene.h"

#include <inttypes.h>
#include <jansson.h>

#include "tests/support/program.h"

#define END_MS 30000

static struct program run;
static struct pair pair;

static void teardown(void)
{
	program_forget(&run);
	pair_close(&pair);
	scene_teardown();
}

TestSuite(ctl_session, .init = scene_setup, .fini = teardown, .timeout = 100);

static void ctl_run(const char *const *args)
{
	program_forget(&run);
	program_start_ctl(&run, fixture_domain.address, args, "", 0);
	program_end(&run, END_MS);
}

#define CTL(...) ctl_run((const char *const[]){__VA_ARGS__, NULL})

static json_t *stat_json(void)
{
	json_t *object;

	CTL("--json", "stat", NAME);
	cr_assert_eq(run.status, 0, "%s", run.err);
	object = json_loads(run.out, 0, NULL);
	cr_assert(json_is_object(object), "%s", run.out);
	return object;
}

static const json_t *session_in(const json_t *object, size_t i)
{
	const json_t *session = json_array_get(json_object_get(object, "sessions"), i);

	cr_assert(session, "%s", run.out);
	return session;
}

static uint64_t number_at(const json_t *session, const char *key, size_t end)
{
	const json_t *array = json_object_get(session, key);

	cr_assert_eq(json_array_size(array), 2, "no pair %s in %s", key, run.out);
	cr_assert(json_is_integer(json_array_get(array, end)), "%s in %s", key, run.out);
	return (uint64_t)json_integer_value(json_array_get(array, end));
}

static uint64_t number_in(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	cr_assert(json_is_integer(value), "no number %s in %s", key, run.out);
	return (uint64_t)json_integer_value(value);
}

static uint64_t window_left(size_t end)
{
	json_t *object = stat_json();
	uint64_t left = number_at(session_in(object, 0), "away_ns", end);

	json_decref(object);
	return left;
}

/* Two messages from who connected, one of them released; one from who accepted. */
static void exchange(void)
{
	struct ipc_session_message message;

	ASSERT(put(pair.connected, 1), 0);
	ASSERT(put(pair.connected, 2), 0);
	ASSERT(put(pair.accepted, 3), 0);
	ASSERT(get(pair.accepted, &message), 1);
	ASSERT(ipc_session_release(pair.accepted, &message), 0);
}

/* X-5, M-45: the keys are the names of the fields. */
Test(ctl_session, stat_as_json_has_the_sessions)
{
	struct pair other;
	const json_t *session;
	json_t *object;

	pair = PAIR_NEW(.capacity = 8192);
	other.listener = pair.listener;
	exchange();
	pair_connect(&other);

	object = stat_json();

	EXPECT(json_array_size(json_object_get(object, "sessions")), 2);
	cr_expect_str_eq(json_string_value(json_object_get(object, "kind")), "session");
	EXPECT(number_in(object, "capacity"), 8192);
	session = session_in(object, 0);
	EXPECT(json_object_size(session), 10);
	cr_expect_gt(number_in(session, "generation"), 0);
	cr_expect_gt(number_in(session_in(object, 1), "generation"),
		     number_in(session, "generation"));
	(void)number_in(session, "resumes");
	EXPECT(number_in(session, "capacity"), 8192);
	EXPECT(number_at(session, "sent", 0), 1);
	EXPECT(number_at(session, "sent", 1), 2);
	EXPECT(number_at(session, "acknowledged", 0), 0);
	EXPECT(number_at(session, "acknowledged", 1), 1);
	EXPECT(number_at(session, "depth", 0), 32);
	EXPECT(number_at(session, "depth", 1), 32);
	EXPECT(number_at(session, "depth_max", 1), 64);
	for (unsigned i = 0; i < 2; ++i) {
		EXPECT(number_at(session, "pid", i), getpid());
		EXPECT(number_at(session, "uid", i), geteuid());
		EXPECT(number_at(session, "away_ns", i), 0);
	}
	json_decref(object);
	other.listener = NULL;
	pair_close(&other);
}

/* X-5, C-2, C-16: what is left of the window falls, until the end is there again. */
Test(ctl_session, stat_tells_how_long_an_end_may_stay_away)
{
	struct actor party;
	uint64_t before, later, resumes;
	json_t *object;

	pair.listener = LISTENER_NEW(.resume_window_ns = 600000 * MS);
	PARTY_START(&party, 0);
	pair.accepted = accept_from(pair.listener, &party);
	ASSERT(order_do(&party, ORDER_KEY, 0, 0), 0);
	EXPECT(window_left(1), 0);

	actor_kill(&party);
	ASSERT(until_peer(pair.accepted, false), 0);
	before = window_left(1);
	later = window_left(1);
	cr_expect_leq(before, 600000 * MS);
	cr_expect_lt(later, before);
	cr_expect_gt(later, 500000 * MS);
	EXPECT(window_left(0), 0);
	CTL("stat", NAME);
	cr_expect(strstr(run.out, "  away, 9m5") || strstr(run.out, "  away, 10m00s left\n"), "%s",
		  run.out);
	cr_expect(strstr(run.out, " left\n"), "%s", run.out);

	object = stat_json();
	resumes = number_in(session_in(object, 0), "resumes");
	json_decref(object);
	ASSERT(resume_by(&pair.connected, fixture_client, &keys[0]), 0);
	object = stat_json();
	EXPECT(number_at(session_in(object, 0), "away_ns", 1), 0);
	EXPECT(number_at(session_in(object, 0), "pid", 1), getpid());
	EXPECT(number_in(session_in(object, 0), "resumes"), resumes + 1);
	json_decref(object);
	CTL("stat", NAME);
	cr_expect(!strstr(run.out, "away"), "%s", run.out);
}

/* X-5, C-2 */
Test(ctl_session, stat_tells_an_end_that_may_stay_away_for_ever)
{
	json_t *object;

	pair = PAIR_NEW(.resume_window_ns = UINT64_MAX);
	pair.accepted = ipc_session_detach(pair.accepted);
	ASSERT(until_peer(pair.connected, false), 0);

	object = stat_json();

	cr_expect_str_eq(json_string_value(json_array_get(
				 json_object_get(session_in(object, 0), "away_ns"), 0)),
			 "18446744073709551615");
	EXPECT(number_at(session_in(object, 0), "away_ns", 1), 0);
	EXPECT(number_at(session_in(object, 0), "pid", 0), 0);
	json_decref(object);
	CTL("stat", NAME);
	cr_expect(strstr(run.out, "  away, for ever\n"), "%s", run.out);
}

/* */
Test(ctl_session, stat_has_a_row_for_each_end)
{
	char row[100];

	pair = PAIR_NEW(.capacity = 8192);
	exchange();

	CTL("stat", NAME);
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect(strstr(run.out, "\nkind        session\n"), "%s", run.out);
	cr_expect(strstr(run.out, "\ncapacity    8 KiB\n"), "%s", run.out);
	cr_expect(!strstr(run.out, "\ndepth"), "%s", run.out);
	snprintf(row, sizeof(row), "  accepted   %d  ", (int)getpid());
	cr_expect(strstr(run.out, row), "%s", run.out);
	snprintf(row, sizeof(row), "  connected  %d  ", (int)getpid());
	cr_expect(strstr(run.out, row), "%s", run.out);
	cr_expect(strstr(run.out, "     2             1   32 B  64 B  8 KiB  "), "%s", run.out);
	cr_expect(strstr(run.out, "  present\n"), "%s", run.out);

	pair.accepted = ipc_session_close(pair.accepted);
	ASSERT(until_peer(pair.connected, false), 0);
	CTL("stat", NAME);
	cr_expect(strstr(run.out, "  closed\n"), "%s", run.out);
	cr_expect(strstr(run.out, "  present\n"), "%s", run.out);
}

/* X-6, C-9: the sessions go on. */
Test(ctl_session, stat_shows_sessions_whose_listener_has_gone)
{
	json_t *object;

	pair = PAIR_NEW(0);
	pair.listener = ipc_listener_close(pair.listener);
	while (exists(NAME))
		process_pause();

	object = stat_json();
	EXPECT(json_array_size(json_object_get(object, "sessions")), 1);
	cr_expect_str_eq(json_string_value(json_object_get(object, "name")), NAME);
	cr_expect_str_eq(json_string_value(json_object_get(object, "kind")), "session");
	json_decref(object);
	CTL("stat", NAME);
	cr_expect(strstr(run.out, "session, its listener has gone\n"), "%s", run.out);
	cr_expect(strstr(run.out, "  present\n"), "%s", run.out);

	CTL("stat", "none");
	EXPECT(run.status, 1);
	cr_expect_str_eq(run.err, "ipcctl: none: no such name (IPC_ENOENT)\n");
}

/* */
Test(ctl_session, list_handles_and_top_show_a_listener)
{
	pair = PAIR_NEW(0);
	exchange();

	CTL("list");
	cr_expect(strstr(run.out, NAME "  session  "), "%s", run.out);
	cr_expect(strstr(run.out, "  1+0  ") || strstr(run.out, " 1+0 "), "%s", run.out);
	CTL("handles", NAME);
	cr_expect(strstr(run.out, "  listener  "), "%s", run.out);
	CTL("top", "--count", "1");
	cr_expect(strstr(run.out, NAME "  session  "), "%s", run.out);
	cr_expect(strstr(run.out, "   64 B  "), "%s", run.out);
}

/* Of `pid`, among those who wait; NULL. */
static json_t *wait_of(json_t *array, pid_t pid)
{
	size_t i;
	json_t *wait;

	json_array_foreach(array, i, wait)
	{
		if (json_integer_value(json_object_get(wait, "pid")) == pid)
			return wait;
	}
	return NULL;
}

static void expect_wait(json_t *array, pid_t pid)
{
	json_t *wait = wait_of(array, pid);

	cr_assert(wait, "nothing of %d in %s", pid, run.out);
	cr_expect_str_eq(json_string_value(json_object_get(wait, "channel")), NAME);
	cr_expect_str_eq(json_string_value(json_object_get(wait, "kind")), "session");
	cr_expect_str_eq(json_string_value(json_object_get(wait, "role")), "session");
	cr_expect_gt(number_in(wait, "waiting_ns"), 0);
	cr_expect(json_is_null(json_object_get(wait, "holder")), "%s", run.out);
	cr_expect(json_is_false(json_object_get(wait, "cycle")), "%s", run.out);
}

/* */
Test(ctl_session, waits_shows_who_waits_at_an_end_or_to_be_accepted)
{
	struct actor receiver, connector;
	json_t *array;

	pair.listener = LISTENER_NEW(0);
	PARTY_START(&receiver, 0);
	PARTY_START(&connector, 0);
	pair.accepted = accept_from(pair.listener, &receiver);
	order_sleep(&receiver, ORDER_RECEIVE_WAIT, 0, 0);
	order_sleep(&connector, ORDER_CONNECT, 0, 0);

	CTL("--json", "waits");
	cr_assert_eq(run.status, 0, "%s", run.err);
	array = json_loads(run.out, 0, NULL);
	EXPECT(json_array_size(array), 2);
	expect_wait(array, receiver.pid);
	expect_wait(array, connector.pid);
	json_decref(array);
	actor_kill(&receiver);
	actor_kill(&connector);
}

static size_t count_handles(const char *name)
{
	json_t *array;
	size_t n;

	CTL("--json", "handles", name);
	cr_assert_eq(run.status, 0, "%s", run.err);
	array = json_loads(run.out, 0, NULL);
	n = json_array_size(array);
	json_decref(array);
	return n;
}

/* not what is offered to the listener and not accepted yet, nor those of another name. */
Test(ctl_session, handles_of_a_listener_are_those_of_its_sessions_too)
{
	const struct ipc_session_options options = {.flags = IPC_CREATE};
	ipc_listener *other = NULL;
	struct actor connector;

	pair = PAIR_NEW(0);
	PARTY_START(&connector, 0);
	order_sleep(&connector, ORDER_CONNECT, 0, 0);
	ASSERT(listener_open(&other, fixture_client, NAME "/other", options), 0);

	EXPECT(count_handles(NAME), 4);
	EXPECT(count_handles(NAME "/other"), 1);
	CTL("waits", "x*");
	cr_expect(!strstr(run.out, NAME), "%s", run.out);
	actor_kill(&connector);
	ipc_listener_close(other);
}

/* ---- keys ---- */

/* Four bytes of it in a row, as they are or in hexadecimal digits. */
static bool shows(const char *text, size_t size, const unsigned char *bytes)
{
	char small[9], large[9];

	for (unsigned i = 0; i < 4; ++i) {
		snprintf(small + (size_t)2 * i, 3, "%02x", bytes[i]);
		snprintf(large + (size_t)2 * i, 3, "%02X", bytes[i]);
	}
	return memmem(text, size, bytes, 4) || memmem(text, size, small, 8) ||
	       memmem(text, size, large, 8);
}

static void expect_no_key(const struct ipc_session_key *key)
{
	static const unsigned char zero[4];

	for (size_t i = 0; i + 4 <= sizeof(key->bytes); ++i) {
		if (memcmp(key->bytes + i, zero, 4) == 0)
			continue;
		cr_expect(!shows(run.out, run.out_size, key->bytes + i), "%s", run.out);
		cr_expect(!shows(run.err, run.err_size, key->bytes + i), "%s", run.err);
	}
}

/* C-7 */
Test(ctl_session, nothing_shows_a_key)
{
	static const char *const commands[][5] = {
		{"stat", NAME}, {"--json", "stat", NAME}, {"handles", NAME},
		{"list"},       {"--json", "list"},       {"--json", "handles", NAME},
		{"waits"},      {"--json", "waits"},      {"top", "--count", "1"},
		{"get", NAME},
	};
	struct ipc_session_key accepted, connected;

	pair = PAIR_NEW(0);
	exchange();
	accepted = key_of(pair.accepted);
	connected = key_of(pair.connected);
	pair.accepted = ipc_session_detach(pair.accepted);
	ASSERT(until_peer(pair.connected, false), 0);

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); ++i) {
		ctl_run(commands[i]);
		cr_expect_gt(run.out_size + run.err_size, 0);
		expect_no_key(&accepted);
		expect_no_key(&connected);
	}
}
