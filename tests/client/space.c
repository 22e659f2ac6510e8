/* SPDX-License-Identifier: MIT */

/*
 * What runs out: quotas, memory, sizes that are too large.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

#define WAIT_MS 30000

static struct leaks leaks;
static struct domain domain;
static char config[64];

static void setup(void)
{
	leaks_begin(&leaks);
}

static void teardown(void)
{
	leaks_check(&leaks);
}

TestSuite(space, .init = setup, .fini = teardown, .timeout = 60);

/* ---- quotas ---- */

static void start_with(const char *text)
{
	const char *const args[] = {"--config", config, NULL};
	int fd;

	strcpy(config, "/tmp/ipc-test-config-XXXXXX");
	fd = mkstemp(config);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	domain_start(&domain, args);
}

static void stop(void)
{
	domain_stop(&domain);
	unlink(config);
}

/* One line with all of it. */
static void expect_logged(const char *quota, unsigned long long figure)
{
	char path[128], line[1024], user[32], number[32];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/log", domain.dir);
	snprintf(user, sizeof(user), "%u", (unsigned)getuid());
	snprintf(number, sizeof(number), "%llu", figure);
	file = fopen(path, "re");
	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file))
		found |= strstr(line, quota) && strstr(line, user) && strstr(line, number);
	fclose(file);
	cr_assert(found, "no line with %s, %s and %s", quota, user, number);
}

static int open_a(ipc_client *client, ipc_shared **ret, const char *name, uint64_t value_size)
{
	return ipc_shared_open_wait(
		ret, client, name, IPC_SIDE_A,
		IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = value_size), NULL);
}

/* M-51: a refusal leaves no trace, and what is given back can be had again. */
Test(space, quota_of_channels)
{
	ipc_shared *shared[3];
	ipc_client *client;

	start_with("[limits]\nchannels = 2\n");
	client = domain_connect(&domain);
	cr_assert_eq(open_a(client, &shared[0], "a", 0), 0);
	cr_assert_eq(open_a(client, &shared[1], "b", 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_eq(open_a(client, &shared[2], "c", 0), IPC_EDQUOT);
	expect_logged("channels", 2);

	ipc_shared_close(shared[0]);
	cr_assert_eq(open_a(client, &shared[0], "c", 0), 0);
	cr_assert_eq(open_a(client, &shared[2], "d", 0), IPC_EDQUOT);

	ipc_shared_close(shared[0]);
	ipc_shared_close(shared[1]);
	ipc_client_unref(client);
	stop();
}

/* M-51: the counts of a worker that died are those of the next one. */
Test(space, quota_of_handles_over_a_restart)
{
	ipc_shared *shared[4];
	ipc_client *client;

	start_with("[limits]\nhandles = 3\n");
	client = domain_connect(&domain);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_eq(open_a(client, &shared[i], "a", 0), 0);
	cr_assert_eq(open_a(client, &shared[3], "a", 0), IPC_EDQUOT);
	expect_logged("handles", 3);

	domain_kill_worker(&domain);
	cr_assert_eq(open_a(client, &shared[3], "a", 0), IPC_EDQUOT);
	ipc_shared_close(shared[2]);
	cr_assert_eq(open_a(client, &shared[2], "a", 0), 0);

	for (unsigned i = 0; i < 3; ++i)
		ipc_shared_close(shared[i]);
	ipc_client_unref(client);
	stop();
}

/* M-51 */
Test(space, quota_of_bytes)
{
	ipc_shared *shared, *second;
	ipc_client *client;

	start_with("[limits]\nbytes = 1M\n");
	client = domain_connect(&domain);
	cr_assert_eq(open_a(client, &shared, "a", 2 << 20), IPC_EDQUOT);
	expect_logged("bytes", 1 << 20);
	cr_assert_eq(open_a(client, &shared, "a", 300000), 0);
	cr_assert_eq(open_a(client, &second, "b", 300000), IPC_EDQUOT);
	ipc_shared_close(shared);
	cr_assert_eq(open_a(client, &second, "b", 300000), 0);
	ipc_shared_close(second);
	ipc_client_unref(client);
	stop();
}

/* M-51 */
Test(space, quota_of_connections)
{
	ipc_client *clients[3];

	start_with("[limits]\nconnections = 2\n");
	clients[0] = domain_connect(&domain);
	clients[1] = domain_connect(&domain);
	cr_assert_eq(ipc_client_connect_wait(&clients[2],
					     IPC_CLIENT_OPTIONS(.address = domain.address), NULL),
		     IPC_EDQUOT);
	expect_logged("connections", 2);

	ipc_client_unref(clients[0]);
	clients[0] = domain_connect(&domain);
	ipc_client_unref(clients[0]);
	ipc_client_unref(clients[1]);
	stop();
}

static void wait_for_name(struct actor *self, void *arg)
{
	ipc_client *client = domain_connect(&domain);
	ipc_shared *shared;

	actor_say(self, ipc_shared_open_wait(&shared, client, arg, IPC_SIDE_A,
					     IPC_SHARED_OPTIONS(.flags = IPC_AWAIT), NULL));
}

/* Until it has the place: the test asks, too. */
static void insist_on_waiting(struct actor *self, void *arg)
{
	ipc_client *client = domain_connect(&domain);
	ipc_shared *shared;
	int r;

	do
		r = ipc_shared_open_wait(&shared, client, arg, IPC_SIDE_A,
					 IPC_SHARED_OPTIONS(.flags = IPC_AWAIT), NULL);
	while (r == IPC_EDQUOT);
	actor_say(self, r);
}

/* M-51: the first one waits; the others are refused, until it is gone. */
Test(space, quota_of_waiting_requests)
{
	struct actor actors[2];
	struct timespec deadline;
	ipc_client *client;
	ipc_shared *shared;
	int r;

	start_with("[limits]\npendings = 1\n");
	client = domain_connect(&domain);
	actor_start(&actors[0], insist_on_waiting, "none");

	/* When it waits is told by nothing but the refusal of the next. */
	deadline = domain_deadline(WAIT_MS);
	do {
		struct timespec soon = domain_deadline(20);

		r = ipc_shared_open_wait(&shared, client, "other", IPC_SIDE_A,
					 IPC_SHARED_OPTIONS(.flags = IPC_AWAIT), &soon);
		cr_assert(!process_has_passed(&deadline));
	} while (r == IPC_ETIMEDOUT);
	cr_assert_eq(r, IPC_EDQUOT);
	expect_logged("pendings", 1);
	actor_start(&actors[1], wait_for_name, "none");
	cr_assert_eq(actor_hear(&actors[1]), IPC_EDQUOT);

	actor_kill(&actors[0]);
	actor_kill(&actors[1]);
	do {
		struct timespec soon = domain_deadline(20);

		r = ipc_shared_open_wait(&shared, client, "other", IPC_SIDE_A,
					 IPC_SHARED_OPTIONS(.flags = IPC_AWAIT), &soon);
		cr_assert(!process_has_passed(&deadline));
	} while (r == IPC_EDQUOT);
	cr_assert_eq(r, IPC_ETIMEDOUT);
	ipc_client_unref(client);
	stop();
}

#define OTHER_UID 61001

static void open_two_as_other(struct actor *self, void *arg)
{
	ipc_shared *shared;
	ipc_client *client;

	(void)arg;
	if (setgroups(0, NULL) < 0 || setgid(OTHER_UID) < 0 || setuid(OTHER_UID) < 0)
		process_end(2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	client = domain_connect(&domain);
	actor_say(self, open_a(client, &shared, "x", 0));
	actor_say(self, open_a(client, &shared, "y", 0));
	(void)actor_hear(self);
}

/* M-51 */
Test(space, quotas_are_per_user_with_overrides)
{
	ipc_shared *shared[3];
	struct actor actor;
	ipc_client *client;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	start_with("[limits]\nchannels = 3\n[user \"61001\"]\nchannels = 1\n");
	client = domain_connect(&domain);
	actor_start(&actor, open_two_as_other, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(actor_hear(&actor), IPC_EDQUOT);

	cr_assert_eq(open_a(client, &shared[0], "a", 0), 0);
	cr_assert_eq(open_a(client, &shared[1], "b", 0), 0);
	cr_assert_eq(open_a(client, &shared[2], "c", 0), 0, "the other user's channel is not ours");
	for (unsigned i = 0; i < 3; ++i)
		ipc_shared_close(shared[i]);
	actor_kill(&actor);
	ipc_client_unref(client);
	stop();
}

/* ---- a full /dev/shm ---- */

#define SHM_SIZE     "8m"
#define SHM_ROUNDING (4 * 4096)

static unsigned long long shm_free(void)
{
	struct statvfs status;

	if (statvfs("/dev/shm", &status) < 0)
		process_end(3);
	return (unsigned long long)status.f_bavail * status.f_frsize;
}

/* The same, once it is at least that much: the keeper gives back what it holds when it hears of
 * it, which is after the answer. */
static unsigned long long shm_free_again(unsigned long long least)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	while (shm_free() < least && !process_has_passed(&deadline))
		process_pause();
	return shm_free();
}

/* A domain of its own upon a small tmpfs, in a mount namespace that ends with this process. */
static void enter_small_shm(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("small", "/dev/shm", "tmpfs", 0, "size=" SHM_SIZE) < 0)
		process_end(4);
	domain_start(&domain, NULL);
}

static int fill_shm(void)
{
	int fd = open("/dev/shm/filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char block[4096];
	ssize_t n;

	memset(block, 1, sizeof(block));
	do
		n = write(fd, block, sizeof(block));
	while (n > 0);
	return fd >= 0 && n < 0 && errno == ENOSPC ? 0 : -1;
}

static void create_in_full_shm(struct actor *self, void *arg)
{
	ipc_watch_producer *producer;
	ipc_client *client;
	unsigned long long before;
	ipc_shared *shared;

	(void)arg;
	enter_small_shm();
	client = domain_connect(&domain);
	actor_say(self,
		  open_a(client, &shared, "first", 0)); /* whatever is needed once is there now */
	before = shm_free();
	actor_say(self, (int64_t)before);

	actor_say(self, open_a(client, &shared, "big", 16 << 20));
	actor_say(self,
		  ipc_watch_producer_open_wait(
			  &producer, client, "big",
			  IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = 3 << 20), NULL));
	actor_say(self, ipc_watch_producer_open_wait(&producer, client, "big", NULL, NULL));
	actor_say(self, (int64_t)shm_free_again(before - SHM_ROUNDING));
	actor_say(self, open_a(client, &shared, "big", 1 << 20));

	ipc_client_unref(client);
	(void)actor_hear(self);
	domain_kill(&domain);
}

/* M-52: at creation, and nothing is left of the attempt. */
Test(space, a_channel_that_does_not_fit_is_refused_at_creation)
{
	struct actor actor;
	int64_t before, after;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	actor_start(&actor, create_in_full_shm, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	before = actor_hear(&actor);
	cr_assert_eq(actor_hear(&actor), IPC_ENOSPC);
	cr_assert_eq(actor_hear(&actor), IPC_ENOSPC);
	cr_assert_eq(actor_hear(&actor), IPC_ENOENT, "no channel is left");
	after = actor_hear(&actor);
	cr_assert_leq(before - after, SHM_ROUNDING, "%lld bytes are gone",
		      (long long)(before - after));
	cr_assert_eq(actor_hear(&actor), 0);
	actor_say(&actor, 0);
	cr_assert_eq(actor_join(&actor), 0);
}

static int publish_all_sizes(ipc_watch_producer *producer, ipc_watch_consumer *consumer)
{
	static char value[200000];
	size_t size;
	int r;

	for (size_t n = 0; n <= sizeof(value); n += 10000) {
		r = ipc_watch_publish(producer, value, n);
		if (r == 0)
			r = ipc_watch_read(consumer, value, sizeof(value), &size, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

static void use_in_full_shm(struct actor *self, void *arg)
{
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	ipc_client *client, *second;
	ipc_shared *shared, *more;
	const void *value;
	void *edit;
	int r = 0;

	(void)arg;
	enter_small_shm();
	client = domain_connect(&domain);
	if (ipc_watch_producer_open_wait(
		    &producer, client, "w",
		    IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = 200000), NULL) < 0 ||
	    ipc_watch_consumer_open_wait(&consumer, client, "w", NULL, NULL) < 0 ||
	    open_a(client, &shared, "s", 300000) < 0)
		process_end(5);
	actor_say(self, fill_shm());

	actor_say(self, publish_all_sizes(producer, consumer));
	if (ipc_shared_lock_wait(shared, &value, NULL) < 0 || ipc_shared_edit(shared, &edit) < 0)
		process_end(6);
	memset(edit, 1, 300000);
	actor_say(self, ipc_shared_commit(shared));

	/* Everything that needs memory is refused, and nobody dies of it: handles, channels,
	 * clients, the next worker. */
	for (unsigned i = 0; i < 300 && r == 0; ++i)
		r = ipc_shared_open_wait(&more, client, "s", IPC_SIDE_B, NULL, NULL);
	actor_say(self, r);
	actor_say(self, open_a(client, &more, "t", 0));
	domain_kill_worker(&domain);
	r = 0;
	for (unsigned i = 0; i < 100 && r == 0; ++i)
		r = ipc_client_connect_wait(&second, IPC_CLIENT_OPTIONS(.address = domain.address),
					    NULL);
	actor_say(self, r);
	actor_say(self, publish_all_sizes(producer, consumer));

	(void)actor_hear(self);
	domain_kill(&domain);
}

/* M-52: never SIGBUS later. */
Test(space, channels_that_were_made_work_when_the_memory_is_full)
{
	struct actor actor;
	int64_t r;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	actor_start(&actor, use_in_full_shm, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(actor_hear(&actor), 0);
	r = actor_hear(&actor);
	cr_assert(r == 0 || r == IPC_ENOSPC, "handles: %s", ipc_error_name((int)r));
	cr_assert_eq(actor_hear(&actor), IPC_ENOSPC);
	r = actor_hear(&actor);
	cr_assert(r == 0 || r == IPC_ENOSPC, "clients: %s", ipc_error_name((int)r));
	cr_assert_eq(actor_hear(&actor), 0);
	actor_say(&actor, 0);
	cr_assert_eq(actor_join(&actor), 0);
}

/* ---- largest sizes ---- */

/* M-76 */
Test(space, the_largest_value_is_a_gibibyte)
{
	ipc_watch_producer *producer = NULL;
	ipc_shared *shared = NULL;
	ipc_client *client;
	const void *value;
	void *edit;
	int r;

	domain_start(&domain, NULL);
	client = domain_connect(&domain);

	cr_assert_eq(open_a(client, &shared, "a", IPC_VALUE_SIZE_MAX + 1), IPC_EINVAL);
	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE,
					       .value_size_max = IPC_VALUE_SIZE_MAX + 1),
			     NULL),
		     IPC_EINVAL);
	cr_assert_eq(open_a(client, &shared, "a", UINT64_MAX), IPC_EINVAL);

	r = ipc_shared_open_wait(&shared, client, "a", IPC_SIDE_A,
				 IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_SHARED_IN_PLACE,
						    .value_size = IPC_VALUE_SIZE_MAX),
				 NULL);
	cr_assert(r == 0 || r == IPC_ENOSPC || r == IPC_ENOMEM || r == IPC_EDQUOT, "%s",
		  ipc_error_name(r));
	if (r == 0) {
		cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
		cr_assert_eq(ipc_shared_edit(shared, &edit), 0);
		((char *)edit)[IPC_VALUE_SIZE_MAX - 1] = 1;
		cr_assert_eq(ipc_shared_commit(shared), 0);
		ipc_shared_close(shared);
	}

	/* Several gibibytes, asked for in vain where there are less: never an end of the process.
	 */
	r = ipc_watch_producer_open_wait(
		&producer, client, "b",
		IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = IPC_VALUE_SIZE_MAX),
		&(const struct timespec){0, 0});
	cr_assert(r == 0 || r == IPC_ENOSPC || r == IPC_ENOMEM || r == IPC_EDQUOT ||
			  r == IPC_ETIMEDOUT,
		  "%s", ipc_error_name(r));
	ipc_watch_producer_close(producer);

	ipc_client_unref(client);
	domain_stop(&domain);
}
