/* SPDX-License-Identifier: MIT */
/*
 * Listing, looking at and removing, with a real broker.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "libipc/client/client.h"
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
					     IPC_CREATE, DEADLINE(10000)),
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
     .timeout = 30)
{
	struct seen seen = {0};

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(10000)), 0);
	cr_assert_eq(seen.n, CHANNELS);
	cr_assert_eq(seen.names, (UINT64_C(1) << CHANNELS) - 1);

	seen = (struct seen){0};
	cr_assert_eq(ipc_client_list_wait(client, "o*[13579]", see, &seen, DEADLINE(10000)), 0);
	cr_assert_eq(seen.n, CHANNELS / 2);

	seen = (struct seen){0};
	cr_assert_eq(ipc_client_list_wait(client, "nothing", see, &seen, DEADLINE(10000)), 0);
	cr_assert_eq(seen.n, 0);
}

/* M-45 */
Test(admin, list_stops_when_the_callback_says_so, .init = setup, .fini = teardown, .timeout = 30)
{
	struct seen seen = {.stop_at = 20, .result = 1};

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(10000)), 0);
	cr_assert_eq(seen.n, 20);

	seen = (struct seen){.stop_at = 3, .result = -12345};
	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(10000)), -12345);
	cr_assert_eq(seen.n, 3);
}

/* M-42 */
Test(admin, callback_of_a_list_may_not_call_the_library, .init = setup, .fini = teardown,
     .timeout = 30)
{
	struct seen seen = {.stop_at = 1, .result = 1};

	cr_assert_eq(ipc_client_list_wait(client, "*", see, &seen, DEADLINE(10000)), 0);

	cr_assert_eq(seen.inside, IPC_EDEADLK);
	cr_assert_eq(endpoint_peers(&things[0]->endpoint, 0), 0);
}

/* M-45, M-76 */
Test(admin, pattern_and_arguments_are_checked, .init = setup, .fini = teardown, .timeout = 30)
{
	struct seen seen = {0};
	char pattern[300];

	memset(pattern, '*', sizeof(pattern));
	pattern[IPC_PATTERN_SIZE_MAX] = '\0';
	cr_assert_eq(ipc_client_list_wait(client, pattern, see, &seen, DEADLINE(10000)), 0);
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
Test(admin, info_fills_as_much_as_the_caller_has, .init = setup, .fini = teardown, .timeout = 30)
{
	struct {
		struct ipc_channel_info info;
		uint64_t more;
	} longer = {.info = {.size = sizeof(longer)}, .more = 7};
	struct ipc_channel_info shorter = {.size = offsetof(struct ipc_channel_info, kind),
					   .bytes = 9};

	cr_assert_eq(ipc_channel_info_wait(client, "even/00", &longer.info, DEADLINE(10000)), 0);
	cr_assert_eq(longer.info.size, sizeof(longer));
	cr_assert_str_eq(longer.info.name, "even/00");
	cr_assert_eq(longer.info.generation, things[0]->endpoint.generation);
	cr_assert_eq(longer.info.handles[0], 1);
	cr_assert_eq(longer.info.handles[1], 0);
	cr_assert_eq(longer.info.bytes, things[0]->endpoint.segment_size);
	cr_assert_eq(longer.info.mode, 0600);
	cr_assert_eq(longer.more, 7);

	cr_assert_eq(ipc_channel_info_wait(client, "odd/01", &shorter, DEADLINE(10000)), 0);
	cr_assert_str_eq(shorter.name, "odd/01");
	cr_assert_eq(shorter.bytes, 9);

	shorter.size = sizeof(size_t) - 1;
	cr_assert_eq(ipc_channel_info_wait(client, "odd/01", &shorter, NULL), IPC_EINVAL);
	shorter.size = sizeof(shorter);
	cr_assert_eq(ipc_channel_info_wait(client, "none", &shorter, DEADLINE(10000)), IPC_ENOENT);
	cr_assert_eq(ipc_channel_info_wait(client, "/", &shorter, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_channel_info_wait(client, "odd/01", NULL, NULL), IPC_EINVAL);
}

/* M-48 */
Test(admin, removed_name_is_free_at_once, .init = setup, .fini = teardown, .timeout = 30)
{
	uint64_t generation = things[0]->endpoint.generation;
	struct thing *next;

	cr_assert_eq(ipc_channel_remove_wait(client, "even/00", generation + 1, DEADLINE(10000)),
		     IPC_ESTALE);
	cr_assert_eq(ipc_channel_remove_wait(client, "even/00", generation, DEADLINE(10000)), 0);
	cr_assert_eq(ipc_channel_remove_wait(client, "even/00", 0, DEADLINE(10000)), IPC_ENOENT);
	cr_assert_eq(ipc_channel_remove_wait(client, "", 0, NULL), IPC_EINVAL);

	cr_assert_eq(thing_open_wait(&next, client, "even/00", IPC_ROLE_SHARED_B, IPC_CREATE,
				     DEADLINE(10000)),
		     0);
	cr_assert_neq(next->endpoint.generation, generation);
	cr_assert_eq(endpoint_peers(&next->endpoint, 0), 0);
	cr_assert_eq(endpoint_peers(&things[0]->endpoint, 0), 0);
	thing_close(next);
}

/* M-20, M-28 */
Test(admin, calls_keep_deadline_and_cancel, .init = setup, .fini = teardown, .timeout = 30)
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

/* ---- with a stand-in: lists that no broker gives ---- */

static void run_circle(struct script *script)
{
	struct session session;
	union message message;

	session_begin(&session, script);
	for (unsigned i = 0; i < 2; ++i) {
		session_take(&session, &message, MESSAGE_LIST);
		message_init(&message, MESSAGE_LISTED, message.head.request_id);
		message.listed.cursor = 9;
		session_say(&session, &message, NULL, 0);
	}
	(void)actor_hear(script->test);
}

/* M-60 */
Test(admin, list_that_goes_in_circles_ends, .timeout = 30)
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
