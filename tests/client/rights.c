/* SPDX-License-Identifier: MIT */

/*
 * Who may open what: processes of other users and of another pid namespace.  Needs root, which
 * alone can become others.
 */

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "libipc/client/endpoint.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

#define WAIT_MS 30000

/* Nobody's: without an entry in /etc/passwd. */
#define UID_A   61001
#define UID_B   61002
#define GID_A   61011
#define GID_TWO 61012 /* a supplementary group */

static struct leaks leaks;
static struct domain domain;
static ipc_client *client;

static void setup(void)
{
	if (geteuid() != 0)
		return;

	leaks_begin(&leaks);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
}

static void teardown(void)
{
	if (geteuid() != 0)
		return;

	ipc_client_unref(client);
	domain_stop(&domain);
	leaks_check(&leaks);
}

TestSuite(rights, .init = setup, .fini = teardown, .timeout = 60);

#define NEEDS_ROOT()                                                                               \
	do {                                                                                       \
		if (geteuid() != 0)                                                                \
			cr_skip_test("needs root");                                                \
	} while (0)

/* ---- one question to the broker, asked by somebody else ---- */

enum wish {
	PRODUCE,
	CONSUME,
	SHARE_A,
	SHARE_B,
	FLY,
	HANDLE,
	PUSH,
	TAKE,
	STATE, /* of a queue */
	INFO,
	HANDLES,
	REMOVE,
	LIST,
	CREATE_WATCH,
	CREATE_SHARED,
	CREATE_FLIGHT,
	CREATE_QUEUE,
};

struct question {
	uid_t uid;
	gid_t gid;
	gid_t group;           /* supplementary; 0: none */
	bool in_pid_namespace; /* its own */
	enum wish wish;
	const char *name;
	uint32_t mode, channel_gid;
};

static int count_one(const struct ipc_channel_info *info, void *userdata)
{
	(void)info;
	++*(int *)userdata;
	return 0;
}

static int count_handle(const struct ipc_handle_info *info, void *userdata)
{
	(void)info;
	++*(int *)userdata;
	return 0;
}

static int answer_flight(ipc_client *own, const struct question *q)
{
	const struct ipc_flight_table_options options = {
		.size = sizeof(options),
		.flags = q->wish == CREATE_FLIGHT ? IPC_CREATE : 0,
		.mode = q->mode,
		.gid = q->channel_gid,
		.keys_max = q->wish == CREATE_FLIGHT ? 8 : 0,
		.result_size_max = q->wish == CREATE_FLIGHT ? 64 : 0};
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_flight_table *table;
	ipc_handler *handler;

	return q->wish == HANDLE
		       ? ipc_handler_open_wait(&handler, own, q->name, &options, &deadline)
		       : ipc_flight_table_open_wait(&table, own, q->name, &options, &deadline);
}

static int answer_queue(ipc_client *own, const struct question *q)
{
	const struct ipc_queue_options options = {.size = sizeof(options),
						  .flags = q->wish == CREATE_QUEUE ? IPC_CREATE : 0,
						  .mode = q->mode,
						  .gid = q->channel_gid};
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_queue_item item;
	ipc_queue_producer *producer;
	ipc_queue_consumer *consumer;
	int r;

	if (q->wish != PUSH) {
		r = ipc_queue_consumer_open_wait(&consumer, own, q->name, &options, &deadline);
		return r < 0 || q->wish == CREATE_QUEUE ? r : ipc_queue_take(consumer, &item);
	}

	r = ipc_queue_producer_open_wait(&producer, own, q->name, &options, &deadline);
	return r < 0 ? r : ipc_queue_push(producer, 0, "x", 1, IPC_FULL_FAIL);
}

static int answer(ipc_client *own, const struct question *q)
{
	struct ipc_watch_options watch_options = {
		.size = sizeof(watch_options), .mode = q->mode, .gid = q->channel_gid};
	struct ipc_shared_options shared_options = {
		.size = sizeof(shared_options), .mode = q->mode, .gid = q->channel_gid};
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_channel_info info = {.size = sizeof(info)};
	struct ipc_queue_state state = {.size = sizeof(state)};
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	ipc_shared *shared;
	int n = 0, r;

	if (q->wish == CREATE_WATCH || q->wish == CREATE_SHARED)
		watch_options.flags = shared_options.flags = IPC_CREATE;

	switch (q->wish) {
	case PRODUCE:
	case CREATE_WATCH:
		return ipc_watch_producer_open_wait(&producer, own, q->name, &watch_options,
						    &deadline);
	case CONSUME:
		return ipc_watch_consumer_open_wait(&consumer, own, q->name, &watch_options,
						    &deadline);
	case SHARE_A:
	case CREATE_SHARED:
		return ipc_shared_open_wait(&shared, own, q->name, IPC_SIDE_A, &shared_options,
					    &deadline);
	case SHARE_B:
		return ipc_shared_open_wait(&shared, own, q->name, IPC_SIDE_B, &shared_options,
					    &deadline);
	case FLY:
	case HANDLE:
	case CREATE_FLIGHT:
		return answer_flight(own, q);
	case PUSH:
	case TAKE:
	case CREATE_QUEUE:
		return answer_queue(own, q);
	case STATE:
		return ipc_queue_state_wait(own, q->name, &state, &deadline);
	case INFO:
		return ipc_channel_info_wait(own, q->name, &info, &deadline);
	case HANDLES:
		r = ipc_client_list_handles_wait(own, q->name, count_handle, &n, &deadline);
		return r < 0 ? r : n;
	case REMOVE:
		return ipc_channel_remove_wait(own, q->name, 0, &deadline);
	case LIST:
		r = ipc_client_list_wait(own, q->name, count_one, &n, &deadline);
		return r < 0 ? r : n;
	}
	return INT32_MIN;
}

static void become(const struct question *q)
{
	if (setgroups(q->group ? 1 : 0, &q->group) < 0 || setgid(q->gid) < 0 || setuid(q->uid) < 0)
		process_end(2);

	/* The kernel forgets it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void ask_and_hold(struct actor *self, void *arg)
{
	const struct question *q = arg;
	ipc_client *own;

	if (q->uid)
		become(q);
	own = domain_connect(&domain);
	actor_say(self, answer(own, q));
	(void)actor_hear(self); /* until the test kills us */
}

static void asker_start(struct actor *actor, struct question *q)
{
	if (q->in_pid_namespace)
		(void)actor_start_in_namespace(actor, ask_and_hold, q);
	else
		actor_start(actor, ask_and_hold, q);
}

static int asked(struct question q)
{
	struct actor actor;
	int r;

	asker_start(&actor, &q);
	r = (int)actor_hear(&actor);
	actor_kill(&actor);
	return r;
}

#define ASKED(...) asked((struct question){__VA_ARGS__})
#define AS_A       .uid = UID_A, .gid = GID_A
#define AS_B       .uid = UID_B, .gid = UID_B

static ipc_watch_producer *watch_new(const char *name, uint32_t mode, uint32_t gid)
{
	ipc_watch_producer *producer = NULL;

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, name,
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = mode, .gid = gid),
			     NULL),
		     0);
	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
	return producer;
}

/* ---- users ---- */

/* M-50 */
Test(rights, mode_bits_say_who_may_consume)
{
	ipc_watch_producer *own, *group, *all, *no_group;

	NEEDS_ROOT();
	own = watch_new("own", 0, 0);
	group = watch_new("group", 0640, GID_A);
	all = watch_new("all", 0644, 0);
	no_group = watch_new("no-group", 0604, GID_A);

	cr_assert_eq(ASKED(AS_A, .wish = CONSUME, .name = "own"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = CONSUME, .name = "group"), 0);
	cr_assert_eq(ASKED(AS_A, .wish = CONSUME, .name = "all"), 0);
	cr_assert_eq(ASKED(AS_B, .wish = CONSUME, .name = "own"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_B, .wish = CONSUME, .name = "group"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_B, .wish = CONSUME, .name = "all"), 0);
	cr_assert_eq(ASKED(AS_B, .group = GID_A, .wish = CONSUME, .name = "group"), 0,
		     "a supplementary group counts");
	cr_assert_eq(ASKED(AS_B, .group = GID_TWO, .wish = CONSUME, .name = "group"), IPC_EACCES);

	/* One class of bits counts, as for files. */
	cr_assert_eq(ASKED(AS_A, .wish = CONSUME, .name = "no-group"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_B, .wish = CONSUME, .name = "no-group"), 0);

	ipc_watch_producer_close(own);
	ipc_watch_producer_close(group);
	ipc_watch_producer_close(all);
	ipc_watch_producer_close(no_group);
}

/* M-50, M-54: what holds a lock is for its owner alone. */
Test(rights, roles_with_a_lock_are_for_the_owner)
{
	ipc_watch_producer *all;
	ipc_shared *shared;

	NEEDS_ROOT();
	all = watch_new("all", 0644, 0);
	cr_assert_eq(ipc_shared_open_wait(&shared, client, "shared", IPC_SIDE_A,
					  IPC_SHARED_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);

	cr_assert_eq(ASKED(AS_A, .wish = PRODUCE, .name = "all"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = SHARE_A, .name = "shared"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = SHARE_B, .name = "shared"), IPC_EACCES);

	ipc_watch_producer_close(all);
	ipc_shared_close(shared);
}

/* M-50, M-45: what may not be read is not shown. */
Test(rights, others_see_what_they_may_read)
{
	ipc_watch_producer *own, *all;
	int r;

	NEEDS_ROOT();
	own = watch_new("x/own", 0600, 0);
	all = watch_new("x/all", 0644, 0);

	cr_assert_eq(ASKED(AS_A, .wish = LIST, .name = "x/*"), 1);
	cr_assert_eq(ASKED(AS_A, .wish = INFO, .name = "x/all"), 0);
	cr_assert_eq(ASKED(AS_A, .wish = HANDLES, .name = "x/all"), 1);
	r = ASKED(AS_A, .wish = INFO, .name = "x/own");
	cr_assert(r == IPC_EACCES || r == IPC_ENOENT, "%s", ipc_error_name(r));
	r = ASKED(AS_A, .wish = HANDLES, .name = "x/own");
	cr_assert(r == IPC_EACCES || r == IPC_ENOENT, "%s", ipc_error_name(r));

	ipc_watch_producer_close(own);
	ipc_watch_producer_close(all);
}

/* M-48 */
Test(rights, removal_is_for_the_owner_and_root)
{
	struct question create = {AS_A, .wish = CREATE_WATCH, .name = "a", .mode = 0644};
	struct actor holder;

	NEEDS_ROOT();
	actor_start(&holder, ask_and_hold, &create);
	cr_assert_eq(actor_hear(&holder), 0);

	cr_assert_eq(ASKED(AS_B, .wish = REMOVE, .name = "a"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = REMOVE, .name = "a"), 0);
	actor_kill(&holder);

	actor_start(&holder, ask_and_hold, &create);
	cr_assert_eq(actor_hear(&holder), 0);
	cr_assert_eq(ipc_channel_remove_wait(client, "a", 0, NULL), 0);
	actor_kill(&holder);
}

/* M-2, M-50: the owner is who made it; root may read, but takes no lock in memory that another user
 * writes. */
Test(rights, root_reads_what_others_own)
{
	struct question create = {AS_A,         .wish = CREATE_WATCH,   .name = "a",
				  .mode = 0640, .channel_gid = GID_TWO, .group = GID_TWO};
	struct ipc_channel_info info = {.size = sizeof(info)};
	ipc_watch_consumer *consumer;
	ipc_watch_producer *producer;
	struct actor holder;

	NEEDS_ROOT();
	actor_start(&holder, ask_and_hold, &create);
	cr_assert_eq(actor_hear(&holder), 0);

	cr_assert_eq(ipc_channel_info_wait(client, "a", &info, NULL), 0);
	cr_assert_eq(info.uid, UID_A);
	cr_assert_eq(info.gid, GID_TWO);
	cr_assert_eq(info.mode, 0640);

	cr_assert_eq(ipc_watch_consumer_open_wait(&consumer, client, "a", NULL, NULL), 0);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 1);
	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, "a", NULL, NULL), IPC_EACCES);

	actor_kill(&holder);
	cr_assert_eq(ipc_watch_consumer_peers_wait(consumer, false, NULL), 0,
		     "its death is told across users");
	ipc_watch_consumer_close(consumer);
}

/* M-50: the same as chown(2). */
Test(rights, a_channel_is_given_to_own_groups_only)
{
	NEEDS_ROOT();
	cr_assert_eq(
		ASKED(AS_A, .wish = CREATE_WATCH, .name = "a", .mode = 0640, .channel_gid = GID_A),
		0);
	cr_assert_eq(ASKED(AS_A, .wish = CREATE_WATCH, .name = "b", .mode = 0640,
			   .channel_gid = GID_TWO),
		     IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .group = GID_TWO, .wish = CREATE_WATCH, .name = "c", .mode = 0640,
			   .channel_gid = GID_TWO),
		     0);
}

/* M-54 */
Test(rights, kinds_with_a_lock_refuse_rights_to_write_for_others)
{
	static const uint32_t bad[] = {0620, 0602, 0660, 0606, 0666};
	ipc_watch_producer *producer;
	ipc_shared *shared;

	NEEDS_ROOT();
	for (size_t i = 0; i < N_ELEMENTS(bad); ++i) {
		cr_assert_eq(ipc_watch_producer_open_wait(
				     &producer, client, "a",
				     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = bad[i]), NULL),
			     IPC_EACCES);
		cr_assert_eq(ipc_shared_open_wait(
				     &shared, client, "a", IPC_SIDE_A,
				     IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .mode = bad[i]), NULL),
			     IPC_EACCES);
	}
	cr_assert_eq(ASKED(AS_A, .wish = CREATE_SHARED, .name = "a", .mode = 0660), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = CREATE_SHARED, .name = "a", .mode = 0600), 0);
}

/* ---- flights, which others may write ---- */

static ipc_flight_table *flight_new(const char *name, uint32_t mode, uint32_t gid)
{
	ipc_flight_table *table = NULL;

	cr_assert_eq(ipc_flight_table_open_wait(
			     &table, client, name,
			     IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .mode = mode, .gid = gid,
						      .keys_max = 8, .result_size_max = 64),
			     NULL),
		     0);
	return table;
}

/* M-50, M-54: the memory of a flight is written by whoever opens it, in either role. */
Test(rights, a_flight_is_for_those_who_may_read_and_write)
{
	static const struct {
		uint32_t mode;
		int as_a, as_b, as_b_in_group;
	} cases[] = {
		{0600, IPC_EACCES, IPC_EACCES, IPC_EACCES},
		{0660, 0, IPC_EACCES, 0},
		{0640, IPC_EACCES, IPC_EACCES, IPC_EACCES},
		{0620, IPC_EACCES, IPC_EACCES, IPC_EACCES},
		{0606, IPC_EACCES, 0, IPC_EACCES},
		{0666, 0, 0, 0},
		{0644, IPC_EACCES, IPC_EACCES, IPC_EACCES},
		{0664, 0, IPC_EACCES, 0},
	};
	static const enum wish wishes[] = {FLY, HANDLE};

	NEEDS_ROOT();
	for (size_t i = 0; i < N_ELEMENTS(cases); ++i) {
		ipc_flight_table *table = flight_new("f", cases[i].mode, GID_A);

		for (size_t k = 0; k < N_ELEMENTS(wishes); ++k) {
			cr_assert_eq(ASKED(AS_A, .wish = wishes[k], .name = "f"), cases[i].as_a,
				     "%04o", cases[i].mode);
			cr_assert_eq(ASKED(AS_B, .wish = wishes[k], .name = "f"), cases[i].as_b,
				     "%04o", cases[i].mode);
			cr_assert_eq(ASKED(AS_B, .group = GID_A, .wish = wishes[k], .name = "f"),
				     cases[i].as_b_in_group, "%04o", cases[i].mode);
		}
		ipc_flight_table_close(table);
	}
}

/* M-54: root is asked for the bits, too: it would map memory that another user writes. */
Test(rights, root_opens_the_flights_of_others_by_their_mode)
{
	static const uint32_t modes[] = {0600, 0660, 0666};
	static const int expected[] = {IPC_EACCES, IPC_EACCES, 0};

	NEEDS_ROOT();
	for (size_t i = 0; i < N_ELEMENTS(modes); ++i) {
		struct question create = {AS_A, .wish = CREATE_FLIGHT, .name = "f",
					  .mode = modes[i]};
		struct ipc_channel_info info = {.size = sizeof(info)};
		ipc_flight_table *table = NULL;
		struct actor holder;

		actor_start(&holder, ask_and_hold, &create);
		cr_assert_eq(actor_hear(&holder), 0);
		cr_assert_eq(ipc_flight_table_open_wait(&table, client, "f", NULL, NULL),
			     expected[i]);
		cr_assert_eq(ipc_channel_info_wait(client, "f", &info, NULL), 0, "but it looks");
		ipc_flight_table_close(table);
		actor_kill(&holder);
	}
}

/* M-54, M-50: the same as chown(2). */
Test(rights, a_flight_that_others_may_write_is_made_for_own_groups_only)
{
	NEEDS_ROOT();
	cr_assert_eq(
		ASKED(AS_A, .wish = CREATE_FLIGHT, .name = "a", .mode = 0660, .channel_gid = GID_A),
		0);
	cr_assert_eq(ASKED(AS_A, .wish = CREATE_FLIGHT, .name = "b", .mode = 0660,
			   .channel_gid = GID_TWO),
		     IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = CREATE_FLIGHT, .name = "c", .mode = 0666), 0);
}

static int64_t fence_of_a_lead(ipc_flight_table *table)
{
	uint64_t fence = 0;
	ipc_flight *flight;
	int r;

	r = ipc_flight_join(&flight, table, "k", 1);
	if (r != 1)
		return r < 0 ? r : IPC_EPROTO;

	r = ipc_flight_get_fence(flight, &fence);
	if (r == 0)
		r = ipc_flight_land(flight, NULL, 0);
	(void)ipc_flight_leave(flight);
	return r < 0 ? r : (int64_t)fence;
}

static void lead_once(struct actor *self, void *arg)
{
	const struct question *q = arg;
	struct timespec deadline;
	ipc_flight_table *table;
	ipc_client *own;

	if (q->uid)
		become(q);
	own = domain_connect(&domain);
	deadline = domain_deadline(WAIT_MS);
	if (ipc_flight_table_open_wait(&table, own, "f",
				       IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .mode = 0666,
								.keys_max = 8,
								.result_size_max = 64),
				       &deadline) < 0)
		process_end(1);

	for (;;) {
		if (actor_hear(self) == 0)
			break;
		actor_say(self, fence_of_a_lead(table));
	}
	(void)ipc_flight_table_close(table);
	(void)ipc_client_unref(own);
}

/* F-12: from leader to leader, whoever they are. */
Test(rights, fences_grow_across_users)
{
	struct question users[] = {{AS_A}, {AS_B}, {.uid = 0}};
	struct actor actors[N_ELEMENTS(users)];
	int64_t last = 0;

	NEEDS_ROOT();
	for (size_t i = 0; i < N_ELEMENTS(users); ++i)
		actor_start(&actors[i], lead_once, &users[i]);

	/* One of them runs far ahead of the others first. */
	for (int n = 0; n < 1000; ++n) {
		actor_say(&actors[1], 1);
		last = actor_hear(&actors[1]);
	}
	for (int n = 0; n < 9; ++n) {
		int64_t fence;

		actor_say(&actors[n % 3], 1);
		fence = actor_hear(&actors[n % 3]);
		cr_assert_gt(fence, last, "user %d", n % 3);
		last = fence;
	}

	for (size_t i = 0; i < N_ELEMENTS(users); ++i) {
		actor_say(&actors[i], 0);
		cr_assert_eq(actor_join(&actors[i]), 0);
	}
}

/* F-12: the channel is made anew by somebody whose counter began before the other's, and who took
 * fewer. */
Test(rights, fences_grow_over_a_re_creation_by_another_user)
{
	struct question users[] = {{AS_B}, {AS_A}};
	int64_t last = 0;

	NEEDS_ROOT();
	for (int n = 0; n < 4; ++n) {
		struct actor actor;

		actor_start(&actor, lead_once, &users[n % 2]);
		for (int k = 0; k < (n % 2 ? 1000 : 1); ++k) {
			int64_t fence;

			actor_say(&actor, 1);
			fence = actor_hear(&actor);
			cr_assert_gt(fence, last, "round %d", n);
			last = fence;
		}
		actor_say(&actor, 0);
		cr_assert_eq(actor_join(&actor), 0);
	}
}

/* ---- memory ---- */

static int is_writable(const void *address)
{
	uintptr_t page = (uintptr_t)address & ~(uintptr_t)4095;

	return mprotect((void *)page, 4096, PROT_READ | PROT_WRITE) == 0;
}

static void try_to_write(struct actor *self, void *arg)
{
	const struct question *q = arg;
	const struct endpoint *endpoint;
	ipc_watch_consumer *consumer;
	ipc_client *own;

	if (q->uid)
		become(q);
	own = domain_connect(&domain);
	actor_say(self, ipc_watch_consumer_open_wait(&consumer, own, q->name, NULL, NULL));
	endpoint = (const struct endpoint *)consumer;
	actor_say(self, is_writable(endpoint->header));
	actor_say(self, is_writable((const char *)endpoint->header + endpoint->segment_size - 1));
	actor_say(self, is_writable(endpoint->table));
	(void)actor_hear(self);
}

/* M-50, W-9: the kernel refuses it, to the owner's own consumers too. */
Test(rights, what_a_role_need_not_write_it_cannot_write)
{
	struct question questions[] = {{AS_A, .name = "all"}, {.uid = 0, .name = "all"}};
	ipc_watch_producer *all;

	NEEDS_ROOT();
	all = watch_new("all", 0644, 0);
	for (size_t i = 0; i < N_ELEMENTS(questions); ++i) {
		struct actor actor;

		actor_start(&actor, try_to_write, &questions[i]);
		cr_assert_eq(actor_hear(&actor), 0);
		cr_assert_eq(actor_hear(&actor), 0, "the value's first page");
		cr_assert_eq(actor_hear(&actor), 0, "the value's last page");
		cr_assert_eq(actor_hear(&actor), 0, "the liveness table");
		actor_kill(&actor);
	}
	ipc_watch_producer_close(all);
}

/* ---- pid namespaces ---- */

/* M-53, D10 */
Test(rights, another_pid_namespace_gets_only_what_takes_no_lock)
{
	ipc_watch_producer *producer;
	ipc_flight_table *flight;
	ipc_shared *shared;

	NEEDS_ROOT();
	producer = watch_new("a", 0600, 0);
	flight = flight_new("f", 0666, 0);
	cr_assert_eq(ipc_shared_open_wait(&shared, client, "b", IPC_SIDE_A,
					  IPC_SHARED_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);

	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = CONSUME, .name = "a"), 0);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = PRODUCE, .name = "a"),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = SHARE_B, .name = "b"),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = CREATE_SHARED, .name = "c"),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = INFO, .name = "b"), 0);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = FLY, .name = "f"),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = HANDLE, .name = "f"),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = CREATE_FLIGHT, .name = "g"),
		     IPC_EPROTONOSUPPORT);

	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
	ipc_flight_table_close(flight);
}

static ipc_queue_consumer *queue_new(const char *name, uint32_t mode)
{
	ipc_queue_consumer *consumer = NULL;

	cr_assert_eq(ipc_queue_consumer_open_wait(
			     &consumer, client, name,
			     IPC_QUEUE_OPTIONS(.flags = IPC_CREATE, .mode = mode), NULL),
		     0);
	return consumer;
}

/* M-50, M-54: who pushes writes what the others read, and the other way round. */
Test(rights, a_queue_is_for_those_who_may_read_and_write)
{
	ipc_queue_consumer *own, *public;
	struct ipc_queue_item item;

	NEEDS_ROOT();
	own = queue_new("own", 0644);
	public = queue_new("public", 0666);

	cr_assert_eq(ASKED(AS_A, .wish = PUSH, .name = "own"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = TAKE, .name = "own"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = TAKE, .name = "public"), IPC_EAGAIN);
	cr_assert_eq(ASKED(AS_A, .wish = PUSH, .name = "public"), IPC_QUEUED);
	cr_assert_eq(ipc_queue_take(public, &item), 0);
	cr_assert_eq(ipc_queue_ack(public, &item), 0);

	cr_assert_eq(ASKED(AS_A, .wish = CREATE_QUEUE, .name = "new", .mode = 0666), 0);

	ipc_queue_consumer_close(own);
	ipc_queue_consumer_close(public);
}

/* M-50 */
Test(rights, what_stands_in_a_queue_is_for_those_who_may_read)
{
	ipc_queue_consumer *own, *public;

	NEEDS_ROOT();
	own = queue_new("own", 0600);
	public = queue_new("public", 0644);

	cr_assert_eq(ASKED(AS_A, .wish = STATE, .name = "own"), IPC_EACCES);
	cr_assert_eq(ASKED(AS_A, .wish = STATE, .name = "public"), 0);

	ipc_queue_consumer_close(own);
	ipc_queue_consumer_close(public);
}

/* M-53: there is no lock in it. */
Test(rights, another_pid_namespace_gets_queues)
{
	ipc_queue_consumer *consumer;
	struct ipc_queue_item item;

	NEEDS_ROOT();
	consumer = queue_new("q", 0600);

	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = TAKE, .name = "q"), IPC_EAGAIN);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = PUSH, .name = "q"), IPC_QUEUED);
	cr_assert_eq(ipc_queue_take(consumer, &item), 0);
	cr_assert_eq(ipc_queue_ack(consumer, &item), 0);
	cr_assert_eq(ASKED(.in_pid_namespace = true, .wish = CREATE_QUEUE, .name = "r"), 0);

	ipc_queue_consumer_close(consumer);
}

/* M-53, M-24: its death is seen like any other. */
Test(rights, the_death_of_a_consumer_in_a_container_is_told)
{
	struct question q = {.in_pid_namespace = true, .wish = CONSUME, .name = "a"};
	struct timespec deadline = domain_deadline(WAIT_MS);
	ipc_watch_producer *producer;
	struct actor actor;

	NEEDS_ROOT();
	producer = watch_new("a", 0600, 0);
	asker_start(&actor, &q);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(ipc_watch_producer_peers(producer), 1);

	actor_kill(&actor);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, &deadline), 0);
	ipc_watch_producer_close(producer);
}
