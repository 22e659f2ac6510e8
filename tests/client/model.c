/* SPDX-License-Identifier: MIT */

/*
 * What every kind of channel has in common, through the public interface: names, ids, options,
 * texts.
 */

#include <string.h>
#include <sys/ipc.h> /* M-47: goes together with ours */
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "libipc/platform/compiler.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/fixture.h"

TestSuite(model, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- names ---- */

struct seen {
	unsigned n, stop_after;
	int result;
	int inner;
};

static int see(const struct ipc_channel_info *info, void *userdata)
{
	struct seen *seen = userdata;
	struct ipc_channel_info other = {.size = sizeof(other)};

	cr_assert_eq(info->size, sizeof(*info));
	++seen->n;
	seen->inner = ipc_channel_info_wait(fixture_client, info->name, &other, NULL);
	return seen->n == seen->stop_after ? seen->result : 0;
}

static void expect_name(const char *name, int expected)
{
	struct ipc_channel_info info = {.size = sizeof(info)};
	int expected_absent = expected == 0 ? IPC_ENOENT : expected;
	ipc_watch_producer *producer = NULL;
	ipc_watch_consumer *consumer = NULL;
	ipc_shared *shared = NULL;

	cr_assert_eq(ipc_channel_info_wait(fixture_client, name, &info, NULL), expected_absent,
		     "info %.300s", name);
	cr_assert_eq(ipc_channel_remove_wait(fixture_client, name, 0, NULL), expected_absent,
		     "remove %.300s", name);
	cr_assert_eq(consume(&consumer, name, 0), expected_absent, "consumer %.300s", name);

	cr_assert_eq(produce(&producer, name, IPC_CREATE), expected, "producer %.300s", name);
	ipc_watch_producer_close(producer);

	/* The same name for another kind: the channel of before has ended with its last handle. */
	cr_assert_eq(share(&shared, name, IPC_SIDE_A, IPC_CREATE), expected, "shared %.300s", name);
	ipc_shared_close(shared);
}

/* M-2, M-76 */
Test(model, names_are_1_to_255_legal_bytes)
{
	char name[258];

	expect_name("a", 0);
	expect_name("..", 0);
	expect_name("AZ/az/09/._-", 0);
	memset(name, 'n', sizeof(name));
	name[IPC_NAME_SIZE_MAX] = '\0';
	expect_name(name, 0);

	name[IPC_NAME_SIZE_MAX] = 'n';
	name[IPC_NAME_SIZE_MAX + 1] = '\0';
	expect_name(name, IPC_EINVAL);
	expect_name("", IPC_EINVAL);
	expect_name("/a", IPC_EINVAL);
	expect_name("a b", IPC_EINVAL);
	expect_name("a\n", IPC_EINVAL);
	expect_name("caf\xc3\xa9", IPC_EINVAL);
	expect_name("a*", IPC_EINVAL);
}

/* M-76, M-45 */
Test(model, patterns_have_up_to_255_bytes)
{
	char pattern[258];
	struct seen seen = {0};
	ipc_watch_producer *producer = producer_new("a");

	memset(pattern, '*', sizeof(pattern));
	pattern[IPC_PATTERN_SIZE_MAX] = '\0';
	cr_assert_eq(ipc_client_list_wait(fixture_client, pattern, see, &seen, NULL), 0);
	cr_assert_eq(seen.n, 1);
	pattern[IPC_PATTERN_SIZE_MAX] = '*';
	pattern[IPC_PATTERN_SIZE_MAX + 1] = '\0';
	cr_assert_eq(ipc_client_list_wait(fixture_client, pattern, see, &seen, NULL), IPC_EINVAL);
	ipc_watch_producer_close(producer);
}

/* M-2: what was fixed at creation is what everybody sees. */
Test(model, a_channel_has_an_owner_rights_and_a_size)
{
	struct ipc_channel_info info;
	ipc_watch_producer *producer;
	ipc_shared *shared;

	/* Only root may give a channel to any group. */
	gid_t gid = getuid() == 0 ? 12 : getgid();

	cr_assert_eq(
		ipc_watch_producer_open_wait(&producer, fixture_client, "a",
					     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 0640,
							       .gid = gid, .value_size_max = 777),
					     NULL),
		0);
	cr_assert_eq(info_of("a", &info), 0);
	cr_assert_str_eq(info.name, "a");
	cr_assert_eq(info.kind, IPC_KIND_WATCH);
	cr_assert_eq(info.uid, getuid());
	cr_assert_eq(info.gid, gid);
	cr_assert_eq(info.mode, 0640);
	cr_assert_eq(info.item_size_max, 777);
	cr_assert_eq(info.capacity, 0);
	cr_assert_geq(info.bytes, 3 * 777);
	cr_assert_eq(info.handles[0], 1);
	cr_assert_eq(info.handles[1], 0);

	cr_assert_eq(
		ipc_shared_open_wait(&shared, fixture_client, "b", IPC_SIDE_B,
				     IPC_SHARED_OPTIONS(.flags = IPC_CREATE | IPC_SHARED_IN_PLACE,
							.value_size = 5),
				     NULL),
		0);
	cr_assert_eq(info_of("b", &info), 0);
	cr_assert_eq(info.kind, IPC_KIND_SHARED);
	cr_assert_eq(info.gid, getgid());
	cr_assert_eq(info.mode, 0600);
	cr_assert_eq(info.item_size_max, 5);
	cr_assert(info.flags & IPC_SHARED_IN_PLACE);
	cr_assert_eq(info.handles[0], 0);
	cr_assert_eq(info.handles[1], 1);

	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
}

/* ---- handles ---- */

/* M-3: ids grow, over channels, workers and clients. */
Test(model, handle_ids_are_never_used_again)
{
	uint64_t last = 0, id;

	for (unsigned i = 0; i < 40; ++i) {
		ipc_watch_producer *producer = producer_new("a");

		cr_assert_eq(ipc_watch_producer_get_id(producer, &id), 0);
		cr_assert_gt(id, last);
		last = id;
		ipc_watch_producer_close(producer);

		if (i % 8 == 7)
			domain_kill_worker(&fixture_domain);
		if (i % 16 == 15) {
			ipc_client_unref(fixture_client);
			fixture_client = domain_connect(&fixture_domain);
		}
	}
}

/* M-3 */
Test(model, is_alive_tells_open_from_closed_dead_and_never)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	struct actor actor;
	uint64_t own, dead;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	cr_assert_eq(ipc_watch_producer_get_id(producer, &own), 0);
	actor_start(&actor, hold_producer, "a");
	dead = (uint64_t)actor_hear(&actor);
	cr_assert_eq(ipc_client_is_alive(fixture_client, own), 1);
	cr_assert_eq(ipc_client_is_alive(fixture_client, dead), 1);
	cr_assert_eq(ipc_client_is_alive(fixture_client, 0), 0);
	cr_assert_eq(ipc_client_is_alive(fixture_client, own ^ (UINT64_C(1) << 50)), 0);

	actor_kill(&actor);
	until_not_alive(dead);
	cr_assert_eq(ipc_client_is_alive(fixture_client, own), 1);

	ipc_watch_producer_close(producer);
	until_not_alive(own);
	ipc_watch_consumer_close(consumer);
}

/* M-3, M-43: a weak handle is not counted, and keeps nothing. */
Test(model, weak_handles_are_not_counted)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_weak *weak;
	struct ipc_channel_info info;

	cr_assert_eq(ipc_watch_weaken(&weak, producer), 0);
	cr_assert_eq(info_of("a", &info), 0);
	cr_assert_eq(info.handles[0], 1);

	ipc_watch_producer_close(producer);
	cr_assert(!exists("a"));
	ipc_watch_weak_close(weak);
}

/* M-43: the last counted handle of any side. */
Test(model, a_channel_ends_with_its_last_handle_of_any_side)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	ipc_shared *a = shared_new("b", IPC_SIDE_A), *b;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	ipc_watch_producer_close(producer);
	cr_assert(exists("a"));
	ipc_watch_consumer_close(consumer);
	cr_assert(!exists("a"));

	cr_assert_eq(share(&b, "b", IPC_SIDE_B, 0), 0);
	ipc_shared_close(a);
	cr_assert(exists("b"));
	ipc_shared_close(b);
	cr_assert(!exists("b"));
}

/* M-74 */
Test(model, handles_keep_their_client)
{
	ipc_client *own = domain_connect(&fixture_domain);
	ipc_watch_producer *producer = NULL;
	uint64_t id;

	cr_assert_eq(ipc_watch_producer_open_wait(&producer, own, "a",
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);
	cr_assert_null(ipc_client_unref(own));

	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
	cr_assert_eq(ipc_watch_producer_get_id(producer, &id), 0);
	cr_assert_eq(ipc_client_is_alive(fixture_client, 0), 0);
	cr_assert(exists("a"));
	cr_assert_null(ipc_watch_producer_close(producer));
	cr_assert_null(ipc_client_unref(NULL));
	cr_assert_null(ipc_watch_producer_close(NULL));
	cr_assert_null(ipc_watch_consumer_close(NULL));
	cr_assert_null(ipc_watch_weak_close(NULL));
	cr_assert_null(ipc_shared_close(NULL));
}

/* M-74: what a call would give is not touched when it fails. */
Test(model, results_are_written_on_success_only)
{
	ipc_watch_producer *producer = (void *)&past;
	ipc_watch_consumer *consumer = (void *)&past;
	ipc_shared *shared = (void *)&past;
	ipc_client *other = (void *)&past;
	struct ipc_channel_info info, before;

	cr_assert_eq(produce(&producer, "none", 0), IPC_ENOENT);
	cr_assert_eq(producer, (void *)&past);
	cr_assert_eq(consume(&consumer, "none", 0), IPC_ENOENT);
	cr_assert_eq(consumer, (void *)&past);
	cr_assert_eq(share(&shared, "none", IPC_SIDE_A, 0), IPC_ENOENT);
	cr_assert_eq(shared, (void *)&past);
	cr_assert_eq(ipc_client_connect_wait(
			     &other, IPC_CLIENT_OPTIONS(.address = "/nowhere/broker"), &past),
		     IPC_ECONNREFUSED);
	cr_assert_eq(other, (void *)&past);

	memset(&info, 0x5a, sizeof(info));
	info.size = sizeof(info);
	before = info;
	cr_assert_eq(ipc_channel_info_wait(fixture_client, "none", &info, NULL), IPC_ENOENT);
	cr_assert_eq(memcmp(&info, &before, sizeof(info)), 0);
}

/* ---- options ---- */

static int open_sized(size_t size, unsigned char last)
{
	struct {
		struct ipc_watch_options options;
		unsigned char more[64];
	} given = {.options = {.size = size, .flags = IPC_CREATE}};
	ipc_watch_producer *producer = NULL;
	int r;

	given.more[63] = last;
	r = ipc_watch_producer_open_wait(&producer, fixture_client, "a", &given.options, NULL);
	ipc_watch_producer_close(producer);
	return r;
}

/* M-41 */
Test(model, options_may_be_shorter_and_longer)
{
	size_t known = sizeof(struct ipc_watch_options);

	cr_assert_eq(open_sized(known, 0), 0);
	cr_assert_eq(open_sized(offsetof(struct ipc_watch_options, mode), 0), 0, "the head alone");
	cr_assert_eq(open_sized(known + 64, 0), 0, "longer, and zero there");
	cr_assert_eq(open_sized(known + 64, 1), IPC_E2BIG, "longer, and not zero there");
	cr_assert_eq(open_sized(known + 63, 1), 0, "the byte behind its end is not looked at");
	cr_assert_eq(open_sized(sizeof(size_t), 0), IPC_ENOENT, "no flags: not created");
	cr_assert_eq(open_sized(sizeof(size_t) - 1, 0), IPC_EINVAL);
	cr_assert_eq(open_sized(0, 0), IPC_EINVAL);
}

/* M-41: zero, and NULL, mean the default. */
Test(model, zero_means_default_in_every_field)
{
	struct ipc_watch_options watch_options = IPC_WATCH_OPTIONS_INIT;
	struct ipc_shared_options shared_options = IPC_SHARED_OPTIONS_INIT;
	ipc_watch_producer *producer, *second;
	ipc_shared *shared;
	struct ipc_channel_info info;

	watch_options.flags = IPC_CREATE;
	cr_assert_eq(
		ipc_watch_producer_open_wait(&producer, fixture_client, "a", &watch_options, NULL),
		0);
	cr_assert_eq(info_of("a", &info), 0);
	cr_assert_eq(info.item_size_max, 4096);
	cr_assert_eq(info.mode, 0600);
	cr_assert_eq(info.gid, getgid());

	shared_options.flags = IPC_CREATE;
	cr_assert_eq(ipc_shared_open_wait(&shared, fixture_client, "b", IPC_SIDE_A, &shared_options,
					  NULL),
		     0);
	cr_assert_eq(info_of("b", &info), 0);
	cr_assert_eq(info.item_size_max, 4096);

	cr_assert_eq(ipc_watch_producer_open_wait(&second, fixture_client, "a", NULL, NULL), 0);
	ipc_watch_producer_close(second);
	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
}

/* M-41, M-47: the flags of <sys/ipc.h> among them. */
Test(model, flags_that_are_not_for_the_role_are_refused)
{
	static const uint64_t bad[] = {
		1,        IPC_CREAT,         IPC_EXCL,          IPC_NOWAIT,
		0x8000,   IPC_KEEP,          IPC_EXCLUSIVE,     IPC_CLIENT_NO_AUTOSTART,
		0x200000, UINT64_C(1) << 32, UINT64_C(1) << 33, UINT64_C(1) << 63};
	ipc_watch_producer *producer = NULL;
	ipc_watch_consumer *consumer = NULL;
	ipc_shared *shared = NULL;
	ipc_client *other = NULL;

	for (size_t i = 0; i < N_ELEMENTS(bad); ++i) {
		uint64_t flags = bad[i] | (bad[i] == IPC_EXCLUSIVE ? 0 : IPC_CREATE);

		cr_assert_eq(produce(&producer, "a", flags), IPC_EINVAL, "producer %zu", i);
		cr_assert_eq(consume(&consumer, "a", flags), IPC_EINVAL, "consumer %zu", i);
		cr_assert_eq(share(&shared, "a", IPC_SIDE_A, flags), IPC_EINVAL, "shared %zu", i);
	}
	cr_assert_eq(produce(&producer, "a", IPC_CREATE | IPC_SHARED_IN_PLACE), IPC_EINVAL);
	cr_assert_eq(ipc_client_connect_wait(&other,
					     IPC_CLIENT_OPTIONS(.flags = IPC_CREATE,
								.address = fixture_domain.address),
					     NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_client_connect_wait(
			     &other,
			     IPC_CLIENT_OPTIONS(.flags = 1, .address = fixture_domain.address),
			     NULL),
		     IPC_EINVAL);
	cr_assert(!exists("a"));
}

/* M-41, S-12 */
Test(model, modes_and_sides_that_do_not_exist_are_refused)
{
	ipc_watch_producer *producer;
	ipc_shared *shared;

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, fixture_client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 0700), NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, fixture_client, "a",
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .mode = 04600), NULL),
		     IPC_EINVAL);
	cr_assert_eq(share(&shared, "a", 0, IPC_CREATE), IPC_EINVAL);
	cr_assert_eq(share(&shared, "a", 3, IPC_CREATE), IPC_EINVAL);
}

/* ---- results as text ---- */

/* M-75 */
Test(model, every_number_has_a_text_and_a_name)
{
	for (int result = -4200; result <= 200; ++result) {
		const char *text = ipc_error_text(result), *name = ipc_error_name(result);

		cr_assert(text && text[0] != '\0');
		cr_assert(name && name[0] != '\0');
		cr_assert_eq(text, ipc_error_text(result), "static");
		if (result >= 0) {
			cr_assert_str_eq(text, "done");
			cr_assert_str_eq(name, "done");
		}
		if (result >= 0 || strcmp(name, "unknown") == 0)
			cr_assert_eq(ipc_error_class(result), IPC_CLASS_NONE);
		else
			cr_assert_neq(ipc_error_class(result), IPC_CLASS_NONE);
	}
	cr_assert_str_eq(ipc_error_name(INT32_MIN), "unknown");
	cr_assert_str_eq(ipc_error_text(IPC_EOWNERDEAD), "the other side is gone: it died");
	cr_assert_str_eq(ipc_error_name(IPC_EOWNERDEAD), "IPC_EOWNERDEAD");
}
