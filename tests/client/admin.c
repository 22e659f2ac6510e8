/* SPDX-License-Identifier: MIT */
/*
 * Listing, looking at and removing, with a real broker.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/client/client.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/standin.h"
#include "tests/support/thing.h"

#include "libipc/wire/codec.h"

#define DEADLINE(ms) (&(const struct timespec[]){process_deadline(ms)}[0])

enum { CHANNELS = 40 }; /* three pages */

static struct domain domain;
static struct leaks leaks;
static ipc_client *client;
static struct thing *things[CHANNELS];

static void setup(void)
{
	char name[32];

	domain_start(&domain, NULL);
	leaks_begin(&leaks);
	client = domain_connect(&domain);
	for (unsigned i = 0; i < CHANNELS; ++i) {
		snprintf(name, sizeof(name), "%s/%02u", i % 2 ? "odd" : "even", i);
		cr_assert_eq(thing_open_wait(&things[i], client, name, IPC_ROLE_SHARED_A,
					     IPC_CREATE, DEADLINE(30000)),
			     0);
	}
}

static void teardown(void)
{
	for (unsigned i = 0; i < CHANNELS; ++i)
		thing_close(things[i]);
	client = ipc_client_unref(client);
	leaks_check(&leaks);
	domain_stop(&domain);
}

struct seen {
	unsigned n, stop_at;
	int result;
	uint64_t names; /* bit of each channel */
	int inside;
};

static int see(const struct ipc_channel_info *info, void *userdata)
{
	struct seen *seen = userdata;
	unsigned number = 0;

	(void)sscanf(strchr(info->name, '/') + 1, "%u", &number);
	seen->names |= UINT64_C(1) << number;
	if (info->size != sizeof(*info) || info->kind != IPC_KIND_SHARED || info->uid != geteuid())
		seen->names = 0;
	seen->inside = ipc_channel_remove_wait(client, info->name, 0, NULL);

	return ++seen->n == seen->stop_at ? seen->result : 0;
}

/* M-45 */
Test(admin, list_tells_each_channel_that_matches_once, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct seen seen = {0};

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(30000)), 0);
	cr_assert_eq(seen.n, CHANNELS);
	cr_assert_eq(seen.names, (UINT64_C(1) << CHANNELS) - 1);

	seen = (struct seen){0};
	cr_assert_eq(ipc_client_list_wait(client, "o*[13579]", see, &seen, DEADLINE(30000)), 0);
	cr_assert_eq(seen.n, CHANNELS / 2);

	seen = (struct seen){0};
	cr_assert_eq(ipc_client_list_wait(client, "nothing", see, &seen, DEADLINE(30000)), 0);
	cr_assert_eq(seen.n, 0);
}

/* M-45 */
Test(admin, list_stops_when_the_callback_says_so, .init = setup, .fini = teardown, .timeout = 60)
{
	struct seen seen = {.stop_at = 20, .result = 1};

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(30000)), 0);
	cr_assert_eq(seen.n, 20);

	seen = (struct seen){.stop_at = 3, .result = -12345};
	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(30000)), -12345);
	cr_assert_eq(seen.n, 3);
}

/* M-42 */
Test(admin, callback_of_a_list_may_not_call_the_library, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct seen seen = {.stop_at = 1, .result = 1};

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(30000)), 0);

	cr_assert_eq(seen.inside, IPC_EDEADLK);
	cr_assert_eq(endpoint_peers(&things[0]->endpoint, 0), 0);
}

/* M-45, M-76 */
Test(admin, pattern_and_arguments_are_checked, .init = setup, .fini = teardown, .timeout = 60)
{
	struct seen seen = {0};
	char pattern[300];

	memset(pattern, '*', sizeof(pattern));
	pattern[IPC_PATTERN_SIZE_MAX] = '\0';
	cr_assert_eq(ipc_client_list_wait(client, pattern, see, &seen, DEADLINE(30000)), 0);
	cr_assert_eq(seen.n, CHANNELS);
	pattern[IPC_PATTERN_SIZE_MAX] = '*';
	pattern[IPC_PATTERN_SIZE_MAX + 1] = '\0';
	cr_assert_eq(ipc_client_list_wait(client, pattern, see, &seen, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_client_list_wait(client, "", see, &seen, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_client_list_wait(client, NULL, see, &seen, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_client_list_wait(client, "*", NULL, &seen, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_client_list_wait(NULL, "*", see, &seen, NULL), IPC_EINVAL);
}

/* M-46 */
Test(admin, info_fills_as_much_as_the_caller_has, .init = setup, .fini = teardown, .timeout = 60)
{
	struct {
		struct ipc_channel_info info;
		uint64_t more;
	} longer = {.info = {.size = sizeof(longer)}, .more = 7};
	struct ipc_channel_info shorter = {.size = offsetof(struct ipc_channel_info, kind),
					   .bytes = 9};

	cr_assert_eq(ipc_channel_info_wait(client, "even/00", &longer.info, DEADLINE(30000)), 0);
	cr_assert_eq(longer.info.size, sizeof(longer));
	cr_assert_str_eq(longer.info.name, "even/00");
	cr_assert_eq(longer.info.generation, things[0]->endpoint.generation);
	cr_assert_eq(longer.info.handles[0], 1);
	cr_assert_eq(longer.info.handles[1], 0);
	cr_assert_eq(longer.info.bytes, things[0]->endpoint.segment_size);
	cr_assert_eq(longer.info.mode, 0600);
	cr_assert_eq(longer.more, 7);

	cr_assert_eq(ipc_channel_info_wait(client, "odd/01", &shorter, DEADLINE(30000)), 0);
	cr_assert_str_eq(shorter.name, "odd/01");
	cr_assert_eq(shorter.bytes, 9);

	shorter.size = sizeof(size_t) - 1;
	cr_assert_eq(ipc_channel_info_wait(client, "odd/01", &shorter, NULL), IPC_EINVAL);
	shorter.size = sizeof(shorter);
	cr_assert_eq(ipc_channel_info_wait(client, "none", &shorter, DEADLINE(30000)), IPC_ENOENT);
	cr_assert_eq(ipc_channel_info_wait(client, "/", &shorter, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_channel_info_wait(client, "odd/01", NULL, NULL), IPC_EINVAL);
}

/* M-48 */
Test(admin, removed_name_is_free_at_once, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t generation = things[0]->endpoint.generation;
	struct thing *next;

	cr_assert_eq(ipc_channel_remove_wait(client, "even/00", generation + 1, DEADLINE(30000)),
		     IPC_ESTALE);
	cr_assert_eq(ipc_channel_remove_wait(client, "even/00", generation, DEADLINE(30000)), 0);
	cr_assert_eq(ipc_channel_remove_wait(client, "even/00", 0, DEADLINE(30000)), IPC_ENOENT);
	cr_assert_eq(ipc_channel_remove_wait(client, "", 0, NULL), IPC_EINVAL);

	cr_assert_eq(thing_open_wait(&next, client, "even/00", IPC_ROLE_SHARED_B, IPC_CREATE,
				     DEADLINE(30000)),
		     0);
	cr_assert_neq(next->endpoint.generation, generation);
	cr_assert_eq(endpoint_peers(&next->endpoint, 0), 0);
	cr_assert_eq(endpoint_peers(&things[0]->endpoint, 0), 0);
	thing_close(next);
}

/* M-20, M-28 */
Test(admin, calls_keep_deadline_and_cancel, .init = setup, .fini = teardown, .timeout = 60)
{
	const struct timespec past = {0, 0}, wrong = {0, -1};
	struct ipc_channel_info info = {.size = sizeof(info)};
	ipc_client *second = domain_connect(&domain);

	cr_assert_eq(ipc_channel_info_wait(second, "even/00", &info, &past), 0);
	cr_assert_eq(ipc_channel_info_wait(second, "even/00", &info, &wrong), IPC_EINVAL);
	cr_assert_eq(ipc_client_cancel(second), 0);
	cr_assert_eq(ipc_channel_info_wait(second, "even/00", &info, NULL), IPC_ECANCELED);
	cr_assert_eq(ipc_channel_remove_wait(second, "even/00", 0, NULL), IPC_ECANCELED);
	cr_assert_eq(ipc_channel_info_wait(client, "even/00", &info, &past), 0);
	ipc_client_unref(second);
}

/* ---- handles ---- */

enum { HANDLES_MAX = 128 };

struct handles {
	unsigned n, stop_at;
	int result, inside;
	struct ipc_handle_info info[HANDLES_MAX];
};

static int see_handle(const struct ipc_handle_info *info, void *userdata)
{
	struct handles *handles = userdata;

	handles->inside = ipc_client_list_wait(client, "*", see, NULL, NULL);
	handles->info[handles->n % HANDLES_MAX] = *info;
	return ++handles->n == handles->stop_at ? handles->result : 0;
}

static int list_handles(const char *name, struct handles *handles)
{
	handles->n = 0;
	return ipc_client_list_handles_wait(client, name, see_handle, handles, DEADLINE(30000));
}

/* M-45 */
Test(admin, handles_are_told_one_by_one, .init = setup, .fini = teardown, .timeout = 60)
{
	struct thing *more[60]; /* two pages */
	struct handles handles = {0};

	for (size_t i = 0; i < N_ELEMENTS(more); ++i)
		cr_assert_eq(thing_open_wait(&more[i], client, "odd/01", IPC_ROLE_SHARED_B, 0,
					     DEADLINE(30000)),
			     0);

	cr_assert_eq(list_handles("odd/01", &handles), 0);
	cr_assert_eq(handles.n, N_ELEMENTS(more) + 1);
	cr_assert_eq(handles.info[0].handle_id, things[1]->endpoint.id);
	cr_assert_eq(handles.info[0].role, IPC_ROLE_SHARED_A);
	for (size_t i = 0; i < N_ELEMENTS(more); ++i) {
		const struct ipc_handle_info *info = &handles.info[i + 1];

		cr_assert_eq(info->size, sizeof(*info));
		cr_assert_eq(info->handle_id, more[i]->endpoint.id);
		cr_assert_eq(info->role, IPC_ROLE_SHARED_B);
		cr_assert_eq(info->pid, getpid());
		cr_assert_str_eq(info->process_name, program_invocation_short_name);
		cr_assert_eq(info->weak, 0);
		cr_assert_eq(info->holds, IPC_HOLDS_NOTHING);
		cr_assert_eq(info->n_held, 0);
		cr_assert_eq(info->held_ns, 0);
		cr_assert_eq(info->waiting_for, 0);
		cr_assert_eq(info->waiting_ns, 0);
	}

	/* No further page is asked for. */
	handles.stop_at = 3;
	handles.result = 1;
	cr_assert_eq(list_handles("odd/01", &handles), 0);
	cr_assert_eq(handles.n, 3);

	for (size_t i = 0; i < N_ELEMENTS(more); ++i)
		thing_close(more[i]);
}

/* M-45, M-42 */
Test(admin, list_of_handles_stops_when_the_callback_says_so, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct handles handles = {.stop_at = 1, .result = -12345};
	struct thing *second;

	cr_assert_eq(
		thing_open_wait(&second, client, "odd/01", IPC_ROLE_SHARED_B, 0, DEADLINE(30000)),
		0);

	cr_assert_eq(list_handles("odd/01", &handles), -12345);
	cr_assert_eq(handles.n, 1);
	handles.result = 7;
	cr_assert_eq(list_handles("odd/01", &handles), 0);
	cr_assert_eq(handles.n, 1);
	cr_assert_eq(handles.inside, IPC_EDEADLK);

	thing_close(second);
}

/* M-45, M-20, M-28 */
Test(admin, list_of_handles_checks_its_arguments, .init = setup, .fini = teardown, .timeout = 60)
{
	const struct timespec wrong = {0, -1};
	struct handles handles = {0};
	ipc_client *second;

	cr_assert_eq(list_handles("none", &handles), IPC_ENOENT);
	cr_assert_eq(list_handles("", &handles), IPC_EINVAL);
	cr_assert_eq(list_handles("odd/*", &handles), IPC_EINVAL, "a name, no pattern");
	cr_assert_eq(ipc_client_list_handles_wait(client, NULL, see_handle, &handles, NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_client_list_handles_wait(client, "odd/01", NULL, &handles, NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_client_list_handles_wait(client, "odd/01", see_handle, &handles, &wrong),
		     IPC_EINVAL);
	cr_assert_eq(ipc_client_list_handles_wait(NULL, "odd/01", see_handle, &handles, NULL),
		     IPC_EINVAL);

	second = domain_connect(&domain);
	cr_assert_eq(ipc_client_cancel(second), 0);
	cr_assert_eq(ipc_client_list_handles_wait(second, "odd/01", see_handle, &handles, NULL),
		     IPC_ECANCELED);
	ipc_client_unref(second);
}

/* ---- who holds what, who waits for whom ---- */

static const struct ipc_handle_info *info_of(const struct handles *handles, uint64_t id)
{
	for (unsigned i = 0; i < handles->n; ++i) {
		if (handles->info[i].handle_id == id)
			return &handles->info[i];
	}
	cr_assert_fail("a handle is not told");
	return NULL;
}

/* Opens the lock, waits for it and holds it until it is killed; says its id before it waits, and a
 * result when it holds. */
static void lock_and_hold(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_shared *shared;
	const void *value;
	uint64_t id = 0;

	(void)arg;
	if (ipc_shared_open_wait(&shared, own, "lock", IPC_SIDE_B,
				 IPC_SHARED_OPTIONS(.flags = IPC_CREATE), NULL) < 0 ||
	    ipc_shared_get_id(shared, &id) < 0)
		process_end(1);

	actor_say(self, (int64_t)id);
	actor_say(self, ipc_shared_lock_wait(shared, &value, NULL));
	(void)actor_hear(self);
}

/* M-45: the edge of the wait graph, and how long the lock has been held. */
Test(admin, holder_and_waiter_of_a_lock_are_told, .init = setup, .fini = teardown, .timeout = 60)
{
	const struct ipc_handle_info *info;
	struct actor holder, waiter;
	struct handles handles = {0};
	uint64_t holder_id, waiter_id, held_ns;

	actor_start(&holder, lock_and_hold, NULL);
	holder_id = (uint64_t)actor_hear(&holder);
	cr_assert_eq(actor_hear(&holder), 0);
	actor_start(&waiter, lock_and_hold, NULL);
	waiter_id = (uint64_t)actor_hear(&waiter);
	actor_until_asleep(&waiter);

	cr_assert_eq(list_handles("lock", &handles), 0);
	cr_assert_eq(handles.n, 2);
	info = info_of(&handles, holder_id);
	cr_assert_eq(info->pid, holder.pid);
	cr_assert_eq(info->holds, IPC_HOLDS_LOCK);
	cr_assert_eq(info->n_held, 1);
	cr_assert_gt(info->held_ns, 0);
	cr_assert_eq(info->waiting_ns, 0);
	held_ns = info->held_ns;

	info = info_of(&handles, waiter_id);
	cr_assert_eq(info->pid, waiter.pid);
	cr_assert_eq(info->holds, IPC_HOLDS_NOTHING);
	cr_assert_eq(info->waiting_for, holder_id);
	cr_assert_gt(info->waiting_ns, 0);

	cr_assert_eq(list_handles("lock", &handles), 0);
	cr_assert_gt(info_of(&handles, holder_id)->held_ns, held_ns);

	/* The waiter holds it now, and waits for nobody. */
	actor_kill(&holder);
	cr_assert_eq(actor_hear(&waiter), 1);
	while (ipc_client_is_alive(client, holder_id) == 1)
		process_pause();
	cr_assert_eq(list_handles("lock", &handles), 0);
	cr_assert_eq(handles.n, 1);
	cr_assert_eq(handles.info[0].holds, IPC_HOLDS_LOCK);
	cr_assert_eq(handles.info[0].waiting_ns, 0);
	actor_kill(&waiter);
}

static void read_and_wait(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_consumer *consumer;
	uint64_t id = 0, version = 0;
	char value[16];

	(void)arg;
	if (ipc_watch_consumer_open_wait(&consumer, own, "weather", NULL, NULL) < 0 ||
	    ipc_watch_consumer_get_id(consumer, &id) < 0)
		process_end(1);

	actor_say(self, (int64_t)id);
	(void)!ipc_watch_read_wait(consumer, value, sizeof(value), NULL, &version, NULL);
}

/* M-45: a consumer waits for whoever publishes next. */
Test(admin, waiter_of_a_watch_waits_for_nobody_in_particular, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct handles handles = {0};
	const struct ipc_handle_info *info;
	ipc_watch_producer *producer;
	struct actor waiter;
	uint64_t id, producer_id;

	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, "weather",
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE),
						  DEADLINE(30000)),
		     0);
	cr_assert_eq(ipc_watch_producer_get_id(producer, &producer_id), 0);
	actor_start(&waiter, read_and_wait, NULL);
	id = (uint64_t)actor_hear(&waiter);
	actor_until_asleep(&waiter);

	cr_assert_eq(list_handles("weather", &handles), 0);
	cr_assert_eq(handles.n, 2, "weak producers are none");
	info = info_of(&handles, id);
	cr_assert_eq(info->role, IPC_ROLE_WATCH_CONSUMER);
	cr_assert_gt(info->waiting_ns, 0);
	cr_assert_eq(info->waiting_for, 0);
	info = info_of(&handles, producer_id);
	cr_assert_eq(info->role, IPC_ROLE_WATCH_PRODUCER);
	cr_assert_eq(info->waiting_ns, 0);
	cr_assert_eq(info->holds, IPC_HOLDS_NOTHING);

	actor_kill(&waiter);
	ipc_watch_producer_close(producer);
}

static void fly_and_wait(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_flight_table *table;
	ipc_flight *flight;
	uint64_t id = 0;

	(void)arg;
	if (ipc_flight_table_open_wait(&table, own, "flight", NULL, NULL) < 0 ||
	    ipc_flight_table_get_id(table, &id) < 0)
		process_end(1);

	actor_say(self, (int64_t)id);
	actor_say(self, ipc_flight_join_wait(&flight, table, "one", 3, NULL));
	(void)actor_hear(self);
}

/* M-45: who follows waits for whoever leads; how many keys are led, and since when. */
Test(admin, leader_and_follower_of_a_flight_are_told, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct ipc_channel_info channel = {.size = sizeof(channel)};
	const struct ipc_handle_info *info;
	struct handles handles = {0};
	ipc_flight_table *table;
	ipc_flight *one, *two;
	struct actor follower;
	uint64_t id, follower_id;

	cr_assert_eq(ipc_flight_table_open_wait(
			     &table, client, "flight",
			     IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .keys_max = 8),
			     DEADLINE(30000)),
		     0);
	cr_assert_eq(ipc_flight_table_get_id(table, &id), 0);
	cr_assert_eq(ipc_flight_join(&one, table, "one", 3), 1);
	cr_assert_eq(ipc_flight_join(&two, table, "two", 3), 1);
	actor_start(&follower, fly_and_wait, NULL);
	follower_id = (uint64_t)actor_hear(&follower);
	actor_until_asleep(&follower);

	cr_assert_eq(list_handles("flight", &handles), 0);
	cr_assert_eq(handles.n, 2);
	info = info_of(&handles, id);
	cr_assert_eq(info->role, IPC_ROLE_FLIGHT_TABLE);
	cr_assert_eq(info->holds, IPC_HOLDS_LEAD);
	cr_assert_eq(info->n_held, 2);
	cr_assert_eq(info->waiting_ns, 0);
	info = info_of(&handles, follower_id);
	cr_assert_eq(info->pid, follower.pid);
	cr_assert_eq(info->holds, IPC_HOLDS_NOTHING);
	cr_assert_eq(info->waiting_for, id);
	cr_assert_gt(info->waiting_ns, 0);

	cr_assert_eq(ipc_channel_info_wait(client, "flight", &channel, DEADLINE(30000)), 0);
	cr_assert_eq(channel.kind, IPC_KIND_FLIGHT);
	cr_assert_eq(channel.capacity, 8);
	cr_assert_eq(channel.depth, 2);
	cr_assert_eq(channel.depth_max, 2);
	cr_assert_eq(channel.handles[0], 0);
	cr_assert_eq(channel.handles[1], 2);
	cr_assert_eq(channel.waiters, 1);
	cr_assert_eq(channel.holder_id, id);

	/* The lead is handed on, and so is the place in the graph. */
	one = ipc_flight_leave(one);
	cr_assert_eq(actor_hear(&follower), 1);
	cr_assert_eq(list_handles("flight", &handles), 0);
	cr_assert_eq(info_of(&handles, id)->n_held, 1);
	info = info_of(&handles, follower_id);
	cr_assert_eq(info->holds, IPC_HOLDS_LEAD);
	cr_assert_eq(info->n_held, 1);
	cr_assert_eq(info->waiting_ns, 0);

	actor_kill(&follower);
	ipc_flight_leave(two);
	ipc_flight_table_close(table);
}

/* ---- with a stand-in: lists that no broker gives ---- */

static void run_circle(struct script *script)
{
	struct caller caller;
	union message message;

	caller_begin(&caller, script);
	for (unsigned i = 0; i < 2; ++i) {
		caller_take(&caller, &message, MESSAGE_LIST);
		message_init(&message, MESSAGE_LISTED, message.head.request_id);
		message.listed.cursor = 9;
		caller_say(&caller, &message, NULL, 0);
	}
	(void)actor_hear(script->test);
}

static void run_circle_of_handles(struct script *script)
{
	struct caller caller;
	union message message;

	caller_begin(&caller, script);
	for (unsigned i = 0; i < 2; ++i) {
		caller_take(&caller, &message, MESSAGE_HANDLES);
		message_init(&message, MESSAGE_HANDLED, message.head.request_id);
		message.handled.generation = 7;
		message.handled.cursor = 9;
		caller_say(&caller, &message, NULL, 0);
	}
	(void)actor_hear(script->test);
}

/* M-60 */
Test(admin, list_of_handles_that_goes_in_circles_ends, .timeout = 60)
{
	struct standin standin;
	struct handles handles = {0};

	standin_start(&standin, run_circle_of_handles);
	cr_assert_eq(ipc_client_connect_wait(&client,
					     IPC_CLIENT_OPTIONS(.address = standin.address), NULL),
		     0);

	cr_assert_eq(ipc_client_list_handles_wait(client, "a", see_handle, &handles, NULL),
		     IPC_EPROTO);

	ipc_client_unref(client);
	standin_stop(&standin);
}

/* M-60 */
Test(admin, list_that_goes_in_circles_ends, .timeout = 60)
{
	struct standin standin;
	struct seen seen = {0};

	standin_start(&standin, run_circle);
	cr_assert_eq(ipc_client_connect_wait(&client,
					     IPC_CLIENT_OPTIONS(.address = standin.address), NULL),
		     0);

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, NULL), IPC_EPROTO);

	ipc_client_unref(client);
	standin_stop(&standin);
}
