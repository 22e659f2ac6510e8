/* SPDX-License-Identifier: MIT */

/*
 * Quotas: the arithmetic, and each of them against the real broker.
 */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "broker/account.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawpeer.h"

static const struct config_limits limits = {
	.bytes = 100, .channels = 1, .handles = 2, .connections = 3, .pendings = 4};

/* M-51 */
Test(account, a_refused_charge_leaves_no_trace, .timeout = 60)
{
	struct account account;

	account_init(&account, 7, &limits);
	cr_assert_eq(account_charge(&account, ACCOUNT_BYTES, 60), 0);
	cr_assert_eq(account_charge(&account, ACCOUNT_BYTES, 41), IPC_EDQUOT);
	cr_assert_eq(account.used[ACCOUNT_BYTES], 60);
	cr_assert_eq(account_charge(&account, ACCOUNT_BYTES, 40), 0);
	cr_assert_eq(account_charge(&account, ACCOUNT_BYTES, 1), IPC_EDQUOT);
	account_discharge(&account, ACCOUNT_BYTES, 1);
	cr_assert_eq(account_charge(&account, ACCOUNT_BYTES, 1), 0);
	cr_assert_eq(account_charge(&account, ACCOUNT_BYTES, UINT64_MAX), IPC_EDQUOT);
}

/* M-51 */
Test(account, each_item_has_its_own_limit, .timeout = 60)
{
	static const uint64_t expected[ACCOUNT_N_ITEMS] = {100, 1, 2, 3, 4};
	struct account account;

	account_init(&account, 7, &limits);
	for (enum account_item item = ACCOUNT_BYTES; item < ACCOUNT_N_ITEMS; ++item) {
		cr_assert_eq(account_charge(&account, item, expected[item]), 0);
		cr_assert_eq(account_charge(&account, item, 1), IPC_EDQUOT);
	}
}

/* A configuration that became stricter takes nothing away, and grants nothing. */
Test(account, what_was_adopted_may_be_above_the_limit, .timeout = 60)
{
	struct account account;

	account_init(&account, 7, &limits);
	account_adopt(&account, ACCOUNT_CHANNELS, 5);
	cr_assert_eq(account_charge(&account, ACCOUNT_CHANNELS, 0), IPC_EDQUOT);
	account_discharge(&account, ACCOUNT_CHANNELS, 5);
	cr_assert_eq(account_charge(&account, ACCOUNT_CHANNELS, 1), 0);
}

/* ---- against the broker ---- */

static struct domain domain;
static struct rawpeer a, b;
static char config_dir[] = "/tmp/ipc-test-quota-XXXXXX";
static char config_path[64];

static void setup(void)
{
	const char *args[] = {"--config", config_path, NULL};
	FILE *file;

	cr_assert_not_null(mkdtemp(config_dir));
	snprintf(config_path, sizeof(config_path), "%s/conf", config_dir);
	file = fopen(config_path, "we");
	cr_assert_not_null(file);
	fprintf(file, "[limits]\nbytes = 200000\nchannels = 3\nhandles = 4\nconnections = "
		      "2\npendings = 1\n");
	fclose(file);

	domain_start(&domain, args);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
}

static void teardown(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
	unlink(config_path);
	rmdir(config_dir);
}

TestSuite(quota, .init = setup, .fini = teardown, .timeout = 60);

static bool log_says(const char *text)
{
	static char log[65536];
	char path[128];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/log", domain.dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	n = read(fd, log, sizeof(log) - 1);
	close(fd);
	cr_assert_geq(n, 0);
	log[n] = '\0';
	return strstr(log, text) != NULL;
}

/* M-51 */
Test(quota, bytes)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	char line[64];
	uint64_t id;

	open.open.size_new = 262144;
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EDQUOT);
	snprintf(line, sizeof(line), "user %u: quota of bytes", (unsigned)getuid());
	cr_assert(log_says(line));
	cr_assert(log_says("200000 allowed"));

	open.open.size_new = 131072;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s1", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s2", IPC_CREATE, &id), IPC_EDQUOT);
}

/* M-51: and everything given back can be taken again, also after a restart of the worker. */
Test(quota, channels)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "", IPC_CREATE);
	uint64_t id[4];

	open.open.size_new = 4096;
	open.open.shape_new[0] = 64;
	for (int round = 0; round < 3; ++round) {
		for (int i = 0; i < 4; ++i) {
			snprintf(open.open.name, sizeof(open.open.name), "w%d", i);
			cr_assert_eq(rawpeer_open(&a, &open, &id[i]), i < 3 ? 0 : IPC_EDQUOT);
		}
		cr_assert(log_says("quota of channels: 3 in use and 1 more wanted, 3 allowed"));
		for (int i = 0; i < 3; ++i)
			rawpeer_close(&a, id[i]);
		rawpeer_sync(&a);
		kill(domain_worker(&domain), SIGKILL);
		rawpeer_sync(&a);
	}
}

/* M-51: whichever client of the user holds them. */
Test(quota, handles)
{
	uint64_t id[4], fifth;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id[0]), 0);
	for (int i = 1; i < 4; ++i)
		cr_assert_eq(rawpeer_open_role(i % 2 ? &a : &b, IPC_ROLE_SHARED_B, "s", 0, &id[i]),
			     0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_B, "s", 0, &fifth), IPC_EDQUOT);
	cr_assert(log_says("quota of handles"));

	rawpeer_close(&a, id[1]);
	rawpeer_sync(&a);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_B, "s", 0, &fifth), 0);
}

/* M-51: the answer to HELLO; a place that was given back can be taken. */
Test(quota, connections)
{
	struct rawpeer c;

	rawpeer_connect(&c, domain.address);
	cr_assert_eq(rawpeer_hello(&c), IPC_EDQUOT);
	cr_assert_eq(rawpeer_receive(&c, 30000), RAWPEER_END);
	rawpeer_disconnect(&c);
	cr_assert(log_says("quota of connections"));

	rawpeer_disconnect(&b);
	rawpeer_sync(&a);
	rawpeer_sync(&a);
	rawpeer_join(&b, domain.address);
}

/* M-51: silent ones have few places beyond the quota, and none of the welcome ones'. */
Test(quota, connections_that_say_nothing)
{
	struct rawpeer silent[32];
	unsigned n_refused = 0;

	for (unsigned i = 0; i < 32; ++i)
		rawpeer_connect(&silent[i], domain.address);
	for (unsigned i = 0; i < 32; ++i) {
		if (rawpeer_receive(&silent[i], 30000) == MESSAGE_DONE) {
			cr_assert_eq(silent[i].reply.head.result, IPC_EDQUOT);
			++n_refused;
		}
		rawpeer_disconnect(&silent[i]);
	}
	cr_assert_gt(n_refused, 16);
	rawpeer_sync(&a);
}

/* M-51 */
Test(quota, pendings)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_AWAIT);
	uint64_t id;

	rawpeer_send(&a, &open);
	rawpeer_sync(&a);
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EDQUOT);
	cr_assert(log_says("quota of pendings"));
}

static int group(uint64_t group_id)
{
	union message message;

	message_init(&message, MESSAGE_GROUP, 0);
	message.group.group_id = group_id;
	strcpy(message.group.pattern, "q");
	rawpeer_send(&a, &message);
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_DONE);
	return a.reply.head.result;
}

static uint32_t n_joined(void)
{
	return atomic_load(&a.table->attention[a.slot].n_joined);
}

/* M-51, Q-17: a group counts as a handle, and each of its queues as another. */
Test(quota, groups)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, "q", IPC_CREATE);
	char line[64];
	uint64_t id;

	open.open.size_new = 131072;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(group(1), 0);
	cr_assert_eq(n_joined(), 1);

	cr_assert_eq(group(2), 0);
	cr_assert_eq(n_joined(), 1, "it is left out");
	snprintf(line, sizeof(line), "user %u: quota of handles", (unsigned)getuid());
	cr_assert(log_says(line));
	cr_assert_eq(group(3), IPC_EDQUOT);

	open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, "q", 0);
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EDQUOT);
}
