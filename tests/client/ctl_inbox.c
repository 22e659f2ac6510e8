/* SPDX-License-Identifier: MIT */

/*
 * What ipcctl shows of inboxes.
 */

#include "tests/client/inbox_scene.h"

#include <jansson.h>
#include <sys/stat.h>

#include "tests/support/program.h"

#define END_MS 30000

static struct program run;
static ipc_inbox_sender *sender;
static ipc_inbox_receiver *receiver;

static void setup(void)
{
	fixture_setup();
}

static void teardown(void)
{
	program_forget(&run);
	sender = ipc_inbox_sender_close(sender);
	receiver = ipc_inbox_receiver_close(receiver);
	fixture_teardown();
}

TestSuite(ctl_inbox, .init = setup, .fini = teardown, .timeout = 100);

static void ctl_run(const char *const *args)
{
	program_forget(&run);
	program_start_ctl(&run, fixture_domain.address, args, "", 0);
	program_end(&run, END_MS);
}

#define CTL(...) ctl_run((const char *const[]){__VA_ARGS__, NULL})

static json_t *stat_of(const char *name)
{
	json_t *object;

	CTL("--json", "stat", name);
	cr_assert_eq(run.status, 0, "%s", run.err);
	object = json_loads(run.out, 0, NULL);
	cr_assert(json_is_object(object), "%s", run.out);
	return object;
}

static uint64_t number_in(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	cr_assert(json_is_integer(value), "no number %s in %s", key, run.out);
	return (uint64_t)json_integer_value(value);
}

/* Inside the second snapshot: of the first one and two frames, one frame is not applied, one not
 * received. */
static void inbox_inside_a_snapshot(uint32_t mode)
{
	struct ipc_inbox_event event;

	sender = SENDER_NEW(.mode = mode, .capacity = 8192);
	receiver = RECEIVER_NEW(0);
	ASSERT(snapshot(sender, G1, 10), 0);
	ASSERT(frame(sender, 10), 0);
	ASSERT(frame(sender, 11), 0);
	ASSERT(frame(sender, 12), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
	ASSERT(eat(receiver), FRAME(10));
	ASSERT(get(receiver, &event), FRAME(11));
	ASSERT(ipc_inbox_request_snapshot(receiver), 0);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ASSERT(chunk(sender, 1), 0);
}

/* X-5, I-6: the keys are the names of the fields. */
Test(ctl_inbox, stat_as_json_has_the_positions)
{
	struct ipc_inbox_positions told;
	const json_t *positions;
	uint64_t id;
	json_t *object;

	inbox_inside_a_snapshot(0600);

	object = stat_of(NAME);

	told = positions_of(sender);
	cr_expect_str_eq(json_string_value(json_object_get(object, "kind")), "inbox");
	EXPECT(number_in(object, "capacity"), 8192);
	EXPECT(number_in(object, "depth"), told.depth);
	positions = json_object_get(object, "positions");
	EXPECT(json_object_size(positions), 8);
	EXPECT(number_in(positions, "written"), 13);
	EXPECT(number_in(positions, "received"), 12);
	EXPECT(number_in(positions, "applied"), 11);
	EXPECT(number_in(positions, "generation"), G1);
	EXPECT(number_in(positions, "applied_generation"), G1);
	EXPECT(number_in(positions, "snapshot_wanted"), 1);
	EXPECT(number_in(positions, "depth"), told.depth);
	EXPECT(number_in(positions, "depth_max"), told.depth_max);
	cr_expect_gt(told.depth, 0);

	ASSERT(ipc_inbox_sender_get_id(sender, &id), 0);
	EXPECT(number_in(json_object_get(object, "sender"), "handle_id"), id);
	ASSERT(ipc_inbox_receiver_get_id(receiver, &id), 0);
	EXPECT(number_in(json_object_get(object, "receiver"), "handle_id"), id);
	EXPECT(number_in(json_object_get(object, "receiver"), "pid"), getpid());
	json_decref(object);
}

static bool has_line(const char *line)
{
	return strstr(run.out, line) != NULL;
}

/* X-6, I-6: and looking leaves nobody behind. */
Test(ctl_inbox, stat_tells_positions_and_who_has_it_open)
{
	struct ipc_channel_info info;
	char line[200];
	uint64_t id;

	inbox_inside_a_snapshot(0600);
	receiver = ipc_inbox_receiver_close(receiver);

	CTL("stat", NAME);

	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_expect(has_line("\nkind        inbox\n"), "%s", run.out);
	cr_expect(has_line("\ncapacity    8 KiB\n"), "%s", run.out);
	ASSERT(ipc_inbox_sender_get_id(sender, &id), 0);
	snprintf(line, sizeof(line), "\nsender      process %d (", (int)getpid());
	cr_expect(has_line(line), "%s", run.out);
	snprintf(line, sizeof(line), "), handle %lu\n", (unsigned long)id);
	cr_expect(has_line(line), "%s", run.out);
	cr_expect(has_line("\nreceiver    none\n"
			   "written     13\n"
			   "received    12\n"
			   "applied     11\n"
			   "snapshot    generation 101\n"
			   "applied of  generation 101\n"
			   "wanted      1\n"),
		  "%s", run.out);
	ASSERT(info_of(NAME, &info), 0);
	EXPECT(info.handles[0], 1);
	EXPECT(info.handles[1], 0);
}

/* */
Test(ctl_inbox, stat_of_an_inbox_without_a_snapshot_names_none)
{
	json_t *object;

	receiver = RECEIVER_NEW(0);

	CTL("stat", NAME);
	cr_expect(has_line("\nsender      none\n"), "%s", run.out);
	cr_expect(has_line("\nsnapshot    none\napplied of  none\n"), "%s", run.out);

	object = stat_of(NAME);
	cr_expect(json_is_null(json_object_get(object, "sender")));
	EXPECT(number_in(json_object_get(object, "positions"), "generation"), 0);
	json_decref(object);
}

/* */
Test(ctl_inbox, list_handles_and_top_show_an_inbox)
{
	char depth[40];
	uint64_t bytes;

	inbox_inside_a_snapshot(0600);
	bytes = positions_of(sender).depth;
	snprintf(depth, sizeof(depth), "  %lu B  ", (unsigned long)bytes);
	cr_assert_lt(bytes, 1024);

	CTL("list");
	cr_expect(has_line(NAME "  inbox  "), "%s", run.out);
	cr_expect(has_line("  1+1  ") || has_line(" 1+1 "), "%s", run.out);
	cr_expect(has_line(depth), "%s", run.out);
	CTL("top", "--count", "1");
	cr_expect(has_line(NAME "  inbox  "), "%s", run.out);
	cr_expect(has_line(depth), "%s", run.out);
	CTL("handles", NAME);
	cr_expect(has_line("  inbox_sender  "), "%s", run.out);
	cr_expect(has_line("  inbox_receiver  "), "%s", run.out);
}

/* */
Test(ctl_inbox, waits_shows_who_waits_at_one)
{
	struct actor actor;
	json_t *array, *wait;

	RECEIVER_START(&actor, .flags = IPC_CREATE);
	order_sleep(&actor, ORDER_RECEIVE_WAIT, 0);

	CTL("--json", "waits");
	cr_assert_eq(run.status, 0, "%s", run.err);
	array = json_loads(run.out, 0, NULL);
	EXPECT(json_array_size(array), 1);
	wait = json_array_get(array, 0);
	EXPECT(number_in(wait, "pid"), actor.pid);
	cr_expect_str_eq(json_string_value(json_object_get(wait, "role")), "inbox_receiver");
	cr_expect(json_is_null(json_object_get(wait, "holder")), "%s", run.out);
	json_decref(array);
	actor_kill(&actor);
}

static void stranger_stats(void)
{
	program_forget(&run);
	program_start(&run, "setpriv",
		      (const char *const[]){"setpriv", "--reuid=61001", "--regid=61001",
					    "--clear-groups", program_ctl(), "--address",
					    fixture_domain.address, "--json", "stat", NAME, NULL},
		      "", 0);
	program_end(&run, END_MS);
}

/* X-5, I-13: the right to read is enough, and is needed. */
Test(ctl_inbox, stat_needs_the_right_to_read_alone)
{
	json_t *object;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	ASSERT(chmod(fixture_domain.dir, 0755), 0);
	inbox_inside_a_snapshot(0604);

	stranger_stats();
	if (run.status == 127 || run.status == 126)
		cr_skip_test("another user cannot run the program where it was built");

	cr_assert_eq(run.status, 0, "%s", run.err);
	object = json_loads(run.out, 0, NULL);
	EXPECT(number_in(json_object_get(object, "positions"), "written"), 13);
	json_decref(object);

	receiver = ipc_inbox_receiver_close(receiver);
	sender = ipc_inbox_sender_close(sender);
	until_no_inbox();
	inbox_inside_a_snapshot(0600);
	stranger_stats();
	EXPECT(run.status, 1);
	cr_expect(strstr(run.err, "(IPC_EACCES)\n"), "%s", run.err);
	EXPECT(run.out_size, 0);
}
