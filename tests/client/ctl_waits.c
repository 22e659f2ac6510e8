/* SPDX-License-Identifier: MIT */

/*
 * ipcctl handles, waits and stalled.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <jansson.h>

#include "tests/support/failure.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"
#include "tests/support/program.h"

static struct program run;

static void setup(void)
{
	fixture_setup();
}

static void teardown(void)
{
	program_forget(&run);
	fixture_teardown();
}

TestSuite(ctl_waits, .init = setup, .fini = teardown, .timeout = 60);

static void ctl_run(const char *const *args)
{
	program_forget(&run);
	program_start_ctl(&run, fixture_domain.address, args, "", 0);
	program_end(&run, 30000);
}

#define CTL(...) ctl_run((const char *const[]){__VA_ARGS__, NULL})

static json_t *json_of(const char *const *args)
{
	json_t *document;

	ctl_run(args);
	cr_assert_eq(run.status, 0, "%s", run.err);
	document = json_loads(run.out, 0, NULL);
	cr_assert(json_is_array(document), "%s", run.out);
	return document;
}

#define CTL_JSON(...) json_of((const char *const[]){"--json", __VA_ARGS__, NULL})

static json_int_t number_of(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	cr_assert(json_is_integer(value), "no number %s in %s", key, run.out);
	return json_integer_value(value);
}

static const char *text_of(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	cr_assert(json_is_string(value), "no text %s in %s", key, run.out);
	return json_string_value(value);
}

/* The object whose key has this number; NULL: there is none. */
static const json_t *object_with(const json_t *array, const char *key, int64_t number)
{
	const json_t *object;
	size_t i;

	json_array_foreach(array, i, object)
	{
		if (number_of(object, key) == number)
			return object;
	}
	return NULL;
}

static unsigned n_lines(const char *text)
{
	unsigned n = 0;

	for (; *text; ++text)
		n += *text == '\n';
	return n;
}

/* The words of the line that begins with this number, or has it in this column; "" ends. */
#define WORDS_MAX 24
static char words[WORDS_MAX][64];

static bool line_of(const char *text, unsigned column, int64_t number)
{
	char copy[4096], *line, *rest = copy, wanted[24];

	snprintf(copy, sizeof(copy), "%s", text);
	snprintf(wanted, sizeof(wanted), "%" PRId64, number);
	while ((line = strsep(&rest, "\n"))) {
		unsigned n = 0;

		memset(words, 0, sizeof(words));
		for (char *word = strtok(line, " "); word && n < WORDS_MAX;
		     word = strtok(NULL, " "))
			snprintf(words[n++], sizeof(words[0]), "%s", word);
		if (strcmp(words[column], wanted) == 0)
			return true;
	}
	return false;
}

static bool line_has(const char *word)
{
	for (unsigned i = 0; i < WORDS_MAX; ++i) {
		if (strcmp(words[i], word) == 0)
			return true;
	}
	return false;
}

/* ---- actors ---- */

struct scene {
	const char *holds, *wants; /* names of shared channels; NULL: none */
};

static ipc_shared *open_locked(ipc_client *client, const char *name, enum ipc_side side, bool lock)
{
	ipc_shared *shared;
	const void *value;

	if (ipc_shared_open_wait(&shared, client, name, side,
				 IPC_SHARED_OPTIONS(.flags = IPC_CREATE), NULL) < 0 ||
	    (lock && ipc_shared_lock_wait(shared, &value, NULL) < 0))
		process_end(1);
	return shared;
}

static int64_t id_of(const ipc_shared *shared)
{
	uint64_t id;

	if (ipc_shared_get_id(shared, &id) < 0)
		failure("no id");
	return (int64_t)id;
}

/* Says the ids of its two handles; told to, it waits for what it wants, until it is killed. */
static void play(struct actor *self, void *arg)
{
	const struct scene *scene = arg;
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_shared *held = NULL, *wanted = NULL;
	const void *value;

	if (scene->holds)
		held = open_locked(own, scene->holds, IPC_SIDE_A, true);
	if (scene->wants)
		wanted = open_locked(own, scene->wants, IPC_SIDE_A, false);

	actor_say(self, held ? id_of(held) : 0);
	actor_say(self, wanted ? id_of(wanted) : 0);
	(void)actor_hear(self);
	if (wanted && ipc_shared_lock_wait(wanted, &value, NULL) < 0)
		process_end(1);
	actor_say(self, 1);
	(void)actor_hear(self);
}

struct player {
	struct actor actor;
	int64_t held_id, wanted_id;
};

static void player_start(struct player *player, const struct scene *scene)
{
	actor_start(&player->actor, play, (void *)scene);
	player->held_id = actor_hear(&player->actor);
	player->wanted_id = actor_hear(&player->actor);
}

static void player_wait(struct player *player)
{
	actor_say(&player->actor, 1);
	actor_until_asleep(&player->actor);
}

/* ---- handles ---- */

/* M-45 */
Test(ctl_waits, handles_shows_who_has_a_channel_open_and_holds_it)
{
	ipc_shared *a = shared_new("c", IPC_SIDE_A), *b = shared_new("c", IPC_SIDE_B);
	const void *value;
	json_t *array;
	const json_t *of_a, *of_b;

	cr_assert_eq(ipc_shared_lock_wait(a, &value, NULL), 0);
	array = CTL_JSON("handles", "c");

	cr_assert_eq(json_array_size(array), 2);
	of_a = object_with(array, "handle_id", id_of(a));
	of_b = object_with(array, "handle_id", id_of(b));
	cr_assert(of_a && of_b, "%s", run.out);
	cr_assert_eq(number_of(of_a, "pid"), getpid());
	cr_assert_str_eq(text_of(of_a, "process_name"), program_invocation_short_name);
	cr_assert_str_eq(text_of(of_a, "role"), "shared_a");
	cr_assert_str_eq(text_of(of_b, "role"), "shared_b");
	cr_assert_eq(number_of(of_a, "weak"), 0);
	cr_assert_str_eq(text_of(of_a, "holds"), "lock");
	cr_assert_eq(number_of(of_a, "n_held"), 1);
	cr_assert_gt(number_of(of_a, "held_ns"), 0);
	cr_assert_str_eq(text_of(of_b, "holds"), "nothing");
	cr_assert_eq(number_of(of_b, "n_held"), 0);
	cr_assert_eq(number_of(of_b, "held_ns"), 0);
	cr_assert_eq(number_of(of_b, "waiting_for"), 0);
	cr_assert_eq(number_of(of_b, "waiting_ns"), 0);
	json_decref(array);

	CTL("handles", "c");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(n_lines(run.out), 3, "%s", run.out);
	cr_assert(line_of(run.out, 0, id_of(a)) && line_has("lock") && line_has("shared_a"), "%s",
		  run.out);
	cr_assert(line_of(run.out, 0, id_of(b)) && !line_has("lock") && line_has("shared_b"), "%s",
		  run.out);

	ipc_shared_close(a);
	ipc_shared_close(b);
}

/* */
Test(ctl_waits, handles_of_no_channel_is_a_failure)
{
	CTL("handles", "none");
	cr_assert_eq(run.status, 1);
	cr_assert(strstr(run.err, "(IPC_ENOENT)"), "%s", run.err);
	cr_assert_eq(run.out_size, 0);
}

/* ---- waits ---- */

/* X-7, M-45 */
Test(ctl_waits, waits_tells_who_waits_for_whose_lock)
{
	struct player holder, waiter;
	json_t *array;
	const json_t *edge, *by;

	player_start(&holder, &(struct scene){.holds = "lock"});
	player_start(&waiter, &(struct scene){.wants = "lock"});
	player_wait(&waiter);
	array = CTL_JSON("waits");

	cr_assert_eq(json_array_size(array), 1, "%s", run.out);
	edge = json_array_get(array, 0);
	cr_assert_eq(number_of(edge, "pid"), waiter.actor.pid);
	cr_assert_eq(number_of(edge, "handle_id"), waiter.wanted_id);
	cr_assert_eq(number_of(edge, "waiting_for"), holder.held_id);
	cr_assert_gt(number_of(edge, "waiting_ns"), 0);
	cr_assert_str_eq(text_of(edge, "channel"), "lock");
	cr_assert_str_eq(text_of(edge, "kind"), "shared");
	cr_assert(json_is_false(json_object_get(edge, "cycle")));
	by = json_object_get(edge, "holder");
	cr_assert_eq(number_of(by, "pid"), holder.actor.pid);
	cr_assert_eq(number_of(by, "handle_id"), holder.held_id);
	cr_assert_str_eq(text_of(by, "holds"), "lock");
	cr_assert_gt(number_of(by, "held_ns"), 0);
	json_decref(array);

	CTL("waits");
	cr_assert_eq(run.status, 0, "%s", run.err);
	cr_assert_eq(n_lines(run.out), 2, "%s", run.out);
	cr_assert(line_of(run.out, 0, waiter.actor.pid) && line_has("lock"), "%s", run.out);
	snprintf(words[0], sizeof(words[0]), "%d", (int)holder.actor.pid);
	cr_assert(strstr(run.out, words[0]), "%s", run.out);

	actor_kill(&waiter.actor);
	actor_kill(&holder.actor);
}

static void read_for_ever(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_watch_consumer *consumer;
	uint64_t id, version = 0;
	char value[16];

	if (ipc_watch_consumer_open_wait(&consumer, own, arg, NULL, NULL) < 0 ||
	    ipc_watch_consumer_get_id(consumer, &id) < 0)
		process_end(1);
	actor_say(self, (int64_t)id);
	(void)!ipc_watch_read_wait(consumer, value, sizeof(value), NULL, &version, NULL);
}

/* those who wait for nobody in particular are listed, too; a pattern chooses channels. */
Test(ctl_waits, waits_lists_those_who_wait_for_nobody_in_particular)
{
	ipc_watch_producer *producer = producer_new("weather");
	struct actor reader;
	const json_t *edge;
	json_t *array;
	int64_t id;

	actor_start(&reader, read_for_ever, "weather");
	id = actor_hear(&reader);
	actor_until_asleep(&reader);
	array = CTL_JSON("waits", "w*");

	cr_assert_eq(json_array_size(array), 1, "%s", run.out);
	edge = json_array_get(array, 0);
	cr_assert_eq(number_of(edge, "handle_id"), id);
	cr_assert_eq(number_of(edge, "waiting_for"), 0);
	cr_assert_gt(number_of(edge, "waiting_ns"), 0);
	cr_assert(json_is_null(json_object_get(edge, "holder")));
	cr_assert(json_is_false(json_object_get(edge, "cycle")));
	json_decref(array);

	CTL("waits", "x*");
	cr_assert_eq(n_lines(run.out), 1, "only the heading: %s", run.out);
	CTL("waits", "w*");
	cr_assert(line_of(run.out, 0, reader.pid) && line_has("weather"), "%s", run.out);

	actor_kill(&reader);
	ipc_watch_producer_close(producer);
}

/* a ring of three over three channels; one who waits for it, and one who waits for that. */
Test(ctl_waits, cycles_over_channels_are_marked)
{
	static const struct scene scenes[5] = {
		{"a", "b"}, {"b", "c"}, {"c", "a"}, {"d", "c"}, {NULL, "d"}};
	struct player players[5];
	json_t *array;

	for (unsigned i = 0; i < 5; ++i)
		player_start(&players[i], &scenes[i]);
	for (unsigned i = 0; i < 5; ++i)
		player_wait(&players[i]);
	array = CTL_JSON("waits");

	cr_assert_eq(json_array_size(array), 5, "%s", run.out);
	for (unsigned i = 0; i < 5; ++i) {
		const json_t *edge = object_with(array, "pid", players[i].actor.pid);

		cr_assert(edge, "%s", run.out);
		cr_assert_eq(json_is_true(json_object_get(edge, "cycle")), i < 3, "%u: %s", i,
			     run.out);
	}
	json_decref(array);

	CTL("waits");
	for (unsigned i = 0; i < 5; ++i) {
		cr_assert(line_of(run.out, 0, players[i].actor.pid), "%s", run.out);
		cr_assert_eq(line_has("yes"), i < 3, "%u: %s", i, run.out);
	}

	/* Broken up: nothing is left of it. */
	actor_kill(&players[0].actor);
	cr_assert_eq(actor_hear(&players[2].actor), 1);
	array = CTL_JSON("waits");
	cr_assert_eq(json_array_size(array), 3, "%s", run.out);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert(json_is_false(json_object_get(json_array_get(array, i), "cycle")));
	json_decref(array);

	for (unsigned i = 1; i < 5; ++i)
		actor_kill(&players[i].actor);
}

/* two processes are enough. */
Test(ctl_waits, two_processes_that_wait_for_each_other_are_a_cycle)
{
	static const struct scene scenes[2] = {{"a", "b"}, {"b", "a"}};
	struct player players[2];
	json_t *array;

	for (unsigned i = 0; i < 2; ++i)
		player_start(&players[i], &scenes[i]);
	player_wait(&players[0]);
	array = CTL_JSON("waits");
	cr_assert_eq(json_array_size(array), 1, "%s", run.out);
	cr_assert(json_is_false(json_object_get(json_array_get(array, 0), "cycle")), "not yet");
	json_decref(array);

	player_wait(&players[1]);
	array = CTL_JSON("waits");
	cr_assert_eq(json_array_size(array), 2, "%s", run.out);
	for (unsigned i = 0; i < 2; ++i)
		cr_assert(json_is_true(json_object_get(json_array_get(array, i), "cycle")));
	json_decref(array);

	for (unsigned i = 0; i < 2; ++i)
		actor_kill(&players[i].actor);
}

/* ---- stalled ---- */

static uint64_t held_ns(const char *name)
{
	struct ipc_channel_info info;

	cr_assert_eq(info_of(name, &info), 0);
	return info.held_ns;
}

/* */
Test(ctl_waits, stalled_names_those_who_hold_for_longer)
{
	struct timespec deadline = process_deadline(30000);
	struct player old, young;
	const json_t *object;
	json_t *array;

	player_start(&old, &(struct scene){.holds = "old"});
	while (held_ns("old") < UINT64_C(2500000000) && !process_has_passed(&deadline))
		process_pause();
	player_start(&young, &(struct scene){.holds = "young"});
	array = CTL_JSON("stalled", "--over", "2s");

	cr_assert_eq(json_array_size(array), 1, "%s", run.out);
	object = json_array_get(array, 0);
	cr_assert_eq(number_of(object, "handle_id"), old.held_id);
	cr_assert_eq(number_of(object, "pid"), old.actor.pid);
	cr_assert_geq(number_of(object, "held_ns"), INT64_C(2500000000));
	cr_assert_str_eq(text_of(object, "channel"), "old");
	cr_assert_str_eq(text_of(object, "kind"), "shared");
	cr_assert_str_eq(text_of(object, "holds"), "lock");
	json_decref(array);

	CTL("stalled", "--over", "1us");
	cr_assert_eq(n_lines(run.out), 3, "%s", run.out);
	cr_assert_lt(strstr(run.out, "\nold "), strstr(run.out, "\nyoung "), "the longest first");
	CTL("stalled", "--over", "1us", "y*");
	cr_assert_eq(n_lines(run.out), 2, "%s", run.out);
	CTL("stalled", "--over=1.5h");
	cr_assert_eq(run.status, 0);
	cr_assert_eq(n_lines(run.out), 1, "only the heading: %s", run.out);

	actor_kill(&old.actor);
	actor_kill(&young.actor);
}
