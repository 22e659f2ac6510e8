/* SPDX-License-Identifier: MIT */

/*
 * Who may open what: processes of other users and of another pid namespace.  Needs root, which
 * alone can become others.
 */

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "libipc/client/endpoint.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

#define WAIT_MS 10000

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

enum wish { PRODUCE, CONSUME, SHARE_A, SHARE_B, INFO, REMOVE, LIST, CREATE_WATCH, CREATE_SHARED };

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

static int answer(ipc_client *own, const struct question *q)
{
	struct ipc_watch_options watch_options = {
		.size = sizeof(watch_options), .mode = q->mode, .gid = q->channel_gid};
	struct ipc_shared_options shared_options = {
		.size = sizeof(shared_options), .mode = q->mode, .gid = q->channel_gid};
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct ipc_channel_info info = {.size = sizeof(info)};
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
	case INFO:
		return ipc_channel_info_wait(own, q->name, &info, &deadline);
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

	if (q->in_pid_namespace) {
		pid_t pid;

		if (unshare(CLONE_NEWPID) < 0)
			process_end(3);
		pid = fork();
		if (pid > 0) {
			/* A namespace ends with its first process. */
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			(void)waitpid(pid, NULL, 0);
			process_end(0);
		}
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	}

	if (q->uid)
		become(q);
	own = domain_connect(&domain);
	actor_say(self, answer(own, q));
	(void)actor_hear(self); /* until the test kills us */
}

static int asked(struct question q)
{
	struct actor actor;
	int r;

	actor_start(&actor, ask_and_hold, &q);
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
	r = ASKED(AS_A, .wish = INFO, .name = "x/own");
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
	ipc_shared *shared;

	NEEDS_ROOT();
	producer = watch_new("a", 0600, 0);
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

	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
}

static void consume_in_namespace(struct actor *self, void *arg)
{
	struct question *q = arg;

	ask_and_hold(self, q);
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
	actor_start(&actor, consume_in_namespace, &q);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(ipc_watch_producer_peers(producer), 1);

	actor_kill(&actor);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, &deadline), 0);
	ipc_watch_producer_close(producer);
}
