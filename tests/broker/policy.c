/* SPDX-License-Identifier: MIT */

/*
 * Who may do what, without a broker: subjects without a socket have no group but their own.
 */

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/admin.h>
#include <ipc/client.h>
#include <ipc/flight.h>
#include <ipc/limits.h>
#include <ipc/shared.h>

#include "broker/policy.h"
#include "libipc/channel/flight.h"
#include "libipc/channel/queue.h"
#include "tests/support/rawpeer.h"

static const struct policy_subject root = {.uid = 0, .gid = 0, .socket_fd = -1};
static const struct policy_subject owner = {.uid = 10, .gid = 100, .socket_fd = -1};
static const struct policy_subject mate = {.uid = 11, .gid = 100, .socket_fd = -1};
static const struct policy_subject stranger = {.uid = 12, .gid = 102, .socket_fd = -1};

static struct channel_record watch_of(uint32_t mode)
{
	return (struct channel_record){.kind = IPC_KIND_WATCH,
				       .uid = 10,
				       .gid = 100,
				       .mode = mode,
				       .shape = {4096, 64},
				       .size = 65536};
}

static struct channel_record flight_of(uint32_t mode)
{
	return (struct channel_record){.kind = IPC_KIND_FLIGHT,
				       .uid = 10,
				       .gid = 100,
				       .mode = mode,
				       .shape = {4096, 16, 256, 3},
				       .size = UINT64_C(1) << 20};
}

static int open_as(const struct policy_subject *subject, uint32_t mode, uint32_t role)
{
	bool is_watch = role == IPC_ROLE_WATCH_PRODUCER || role == IPC_ROLE_WATCH_CONSUMER;
	struct channel_record channel = is_watch ? watch_of(mode) : flight_of(mode);
	union message open = rawpeer_open_message(role, "w", 0);

	return policy_check_open(subject, &channel, &open.open);
}

/* M-50 */
Test(policy, readers_need_the_read_bit_of_their_class, .timeout = 60)
{
	cr_assert_eq(open_as(&owner, 0600, IPC_ROLE_WATCH_CONSUMER), 0);
	cr_assert_eq(open_as(&mate, 0600, IPC_ROLE_WATCH_CONSUMER), IPC_EACCES);
	cr_assert_eq(open_as(&mate, 0640, IPC_ROLE_WATCH_CONSUMER), 0);
	cr_assert_eq(open_as(&mate, 0604, IPC_ROLE_WATCH_CONSUMER), IPC_EACCES,
		     "the group's bits count for its members");
	cr_assert_eq(open_as(&stranger, 0640, IPC_ROLE_WATCH_CONSUMER), IPC_EACCES);
	cr_assert_eq(open_as(&stranger, 0604, IPC_ROLE_WATCH_CONSUMER), 0);
	cr_assert_eq(open_as(&owner, 0044, IPC_ROLE_WATCH_CONSUMER), IPC_EACCES);
	cr_assert_eq(open_as(&root, 0600, IPC_ROLE_WATCH_CONSUMER), 0);
}

/* M-54: a lock in foreign memory is not taken, by root neither. */
Test(policy, only_the_owner_takes_locks, .timeout = 60)
{
	cr_assert_eq(open_as(&owner, 0600, IPC_ROLE_WATCH_PRODUCER), 0);
	cr_assert_eq(open_as(&owner, 0400, IPC_ROLE_WATCH_PRODUCER), IPC_EACCES);
	cr_assert_eq(open_as(&mate, 0660, IPC_ROLE_WATCH_PRODUCER), IPC_EACCES);
	cr_assert_eq(open_as(&root, 0666, IPC_ROLE_WATCH_PRODUCER), IPC_EACCES);
}

/* M-50, M-54: both roles of a flight write, and each writes what the others wrote before. */
Test(policy, a_flight_is_opened_by_whoever_may_read_and_write, .timeout = 60)
{
	static const uint32_t roles[] = {IPC_ROLE_FLIGHT_TABLE, IPC_ROLE_HANDLER};

	for (size_t i = 0; i < N_ELEMENTS(roles); ++i) {
		cr_assert_eq(open_as(&owner, 0600, roles[i]), 0);
		cr_assert_eq(open_as(&owner, 0400, roles[i]), IPC_EACCES);
		cr_assert_eq(open_as(&owner, 0266, roles[i]), IPC_EACCES);
		cr_assert_eq(open_as(&mate, 0600, roles[i]), IPC_EACCES);
		cr_assert_eq(open_as(&mate, 0640, roles[i]), IPC_EACCES);
		cr_assert_eq(open_as(&mate, 0620, roles[i]), IPC_EACCES);
		cr_assert_eq(open_as(&mate, 0660, roles[i]), 0);
		cr_assert_eq(open_as(&mate, 0606, roles[i]), IPC_EACCES,
			     "the group's bits count for its members");
		cr_assert_eq(open_as(&stranger, 0660, roles[i]), IPC_EACCES);
		cr_assert_eq(open_as(&stranger, 0664, roles[i]), IPC_EACCES);
		cr_assert_eq(open_as(&stranger, 0606, roles[i]), 0);
		cr_assert_eq(open_as(&root, 0660, roles[i]), IPC_EACCES,
			     "root maps no memory of others unasked");
		cr_assert_eq(open_as(&root, 0666, roles[i]), 0);
	}
}

/* M-54: who may come in decides whether the memory is sealed. */
Test(policy, a_flight_is_public_where_others_may_read_and_write, .timeout = 60)
{
	static const uint32_t closed[] = {0600, 0640, 0620, 0644, 0622, 0642, 0624};
	static const uint32_t public[] = {0660, 0606, 0666, 0064 | 0002, 0662, 0626};

	for (size_t i = 0; i < N_ELEMENTS(closed); ++i)
		cr_assert_not(policy_is_public(IPC_KIND_FLIGHT, closed[i]), "%04o", closed[i]);
	for (size_t i = 0; i < N_ELEMENTS(public); ++i)
		cr_assert(policy_is_public(IPC_KIND_FLIGHT, public[i]), "%04o", public[i]);

	cr_assert(policy_is_public(IPC_KIND_WATCH, 0640));
	cr_assert_not(policy_is_public(IPC_KIND_WATCH, 0600));
	cr_assert_not(policy_is_public(IPC_KIND_SHARED, 0666));
}

/* M-54, M-50 */
Test(policy, creation_of_a_flight_lets_others_write, .timeout = 60)
{
	union message open = rawpeer_open_message(IPC_ROLE_FLIGHT_TABLE, "f", IPC_CREATE);

	open.open.mode = 0666;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);

	open.open.mode = 0660;
	open.open.gid = 100;
	cr_assert_eq(policy_check_creation(&mate, &open.open), 0);
	cr_assert_eq(policy_check_creation(&stranger, &open.open), IPC_EACCES);
}

/* M-54, M-50 */
Test(policy, creation_refuses_foreign_writers_and_foreign_groups, .timeout = 60)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);

	open.open.mode = 0644;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	open.open.mode = 0664;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EACCES);
	cr_assert_eq(policy_check_creation(&root, &open.open), IPC_EACCES);

	open.open.mode = 0640;
	open.open.gid = 100;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	cr_assert_eq(policy_check_creation(&stranger, &open.open), IPC_EACCES);
	cr_assert_eq(policy_check_creation(&root, &open.open), 0);
}

/* M-60: what a hostile client asks for. */
Test(policy, creation_refuses_sizes_that_cannot_be, .timeout = 60)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);

	open.open.size_new = 65537;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
	open.open.size_new = UINT64_C(1) << 41;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
	open.open.size_new = 65536;
	open.open.shape_new[0] = 0;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
	open.open.shape_new[0] = IPC_VALUE_SIZE_MAX + 1;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
	open.open.shape_new[0] = 65537;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL,
		     "more than the segment");
	open.open.shape_new[0] = 4096;
	open.open.shape_new[1] = 0;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
}

static int create_flight(uint64_t result, uint64_t keys, uint64_t key, uint64_t attempts)
{
	const uint64_t shape[4] = {result, keys, key, attempts};
	union message open = rawpeer_open_message(IPC_ROLE_HANDLER, "f", IPC_CREATE);

	memcpy(open.open.shape_new, shape, sizeof(shape));
	open.open.size_new = (flight_segment_size(shape) + 4095) & ~UINT64_C(4095);
	if (open.open.size_new == 0)
		open.open.size_new = UINT64_C(1) << 30;
	return policy_check_creation(&owner, &open.open);
}

/* M-76, M-60 */
Test(policy, creation_of_a_flight_knows_its_limits, .timeout = 60)
{
	cr_assert_eq(create_flight(1, 1, 1, 1), 0);
	cr_assert_eq(create_flight(IPC_ITEM_SIZE_MAX, 1, IPC_KEY_SIZE_MAX, UINT32_MAX), 0);
	cr_assert_eq(create_flight(1, FLIGHT_KEYS_MAX, 1, 1), 0);

	cr_assert_eq(create_flight(0, 1, 1, 1), IPC_EINVAL);
	cr_assert_eq(create_flight(1, 0, 1, 1), IPC_EINVAL);
	cr_assert_eq(create_flight(1, 1, 0, 1), IPC_EINVAL);
	cr_assert_eq(create_flight(1, 1, 1, 0), IPC_EINVAL);
	cr_assert_eq(create_flight(IPC_ITEM_SIZE_MAX + 1, 1, 1, 1), IPC_EINVAL);
	cr_assert_eq(create_flight(1, UINT64_C(1) << 23, 1, 1), IPC_EINVAL);
	cr_assert_eq(create_flight(1, 1, IPC_KEY_SIZE_MAX + 1, 1), IPC_EINVAL);
	cr_assert_eq(create_flight(1, 1, 1, UINT64_C(1) << 32), IPC_EINVAL);

	cr_assert_eq(create_flight(IPC_ITEM_SIZE_MAX, FLIGHT_KEYS_MAX, IPC_KEY_SIZE_MAX, 3),
		     IPC_ENOSPC, "legal numbers of which no memory is large enough");
}

/* M-60: what the others would read and write beyond its end. */
Test(policy, creation_of_a_flight_refuses_a_segment_that_is_too_small, .timeout = 60)
{
	union message open = rawpeer_open_message(IPC_ROLE_HANDLER, "f", IPC_CREATE);

	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	open.open.size_new = (flight_segment_size(open.open.shape_new) & ~UINT64_C(4095));
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
	open.open.size_new += 4096;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	open.open.size_new += 1;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
}

/* M-53 */
Test(policy, foreign_namespaces_get_no_lock, .timeout = 60)
{
	struct policy_subject foreign = owner;

	foreign.is_foreign = true;
	cr_assert_eq(open_as(&foreign, 0600, IPC_ROLE_WATCH_PRODUCER), IPC_EPROTONOSUPPORT);
	cr_assert_eq(open_as(&foreign, 0600, IPC_ROLE_WATCH_CONSUMER), 0);
	cr_assert_eq(open_as(&foreign, 0600, IPC_ROLE_FLIGHT_TABLE), IPC_EPROTONOSUPPORT);
	cr_assert_eq(open_as(&foreign, 0600, IPC_ROLE_HANDLER), IPC_EPROTONOSUPPORT);
}

/* M-43, M-45 */
Test(policy, roles_and_flags_of_the_kinds, .timeout = 60)
{
	union message open = rawpeer_open_message(IPC_ROLE_SHARED_A, "s",
						  IPC_CREATE | IPC_SHARED_IN_PLACE | IPC_STAY);

	cr_assert_eq(policy_check_request(&open.open), 0);
	open.open.role = IPC_ROLE_WATCH_PRODUCER;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "a role of another kind");
	open.open.role = IPC_ROLE_WATCH_WEAK;
	open.open.kind = IPC_KIND_WATCH;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "weak producers are not opened");
	open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "", OPEN_UPGRADE);
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "consumers are not upgraded");
	open.open.kind = IPC_KIND_LIMITER + 1;
	cr_assert_eq(policy_check_request(&open.open), IPC_EPROTONOSUPPORT);
}

/* M-43 */
Test(policy, flags_of_a_flight, .timeout = 60)
{
	union message open = rawpeer_open_message(
		IPC_ROLE_HANDLER, "f", IPC_CREATE | IPC_STAY | IPC_FLIGHT_TABLE_NO_PROMOTE);
	struct channel_record channel = flight_of(0600);

	cr_assert_eq(policy_check_request(&open.open), 0);
	open.open.flags = IPC_CREATE | IPC_KEEP;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL);
	open.open.flags = IPC_CREATE | IPC_SHARED_IN_PLACE;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "a flag of another kind");
	open.open.role = IPC_ROLE_SHARED_A;
	open.open.flags = 0;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "a role of another kind");

	open = rawpeer_open_message(IPC_ROLE_HANDLER, "f", IPC_FLIGHT_TABLE_NO_PROMOTE);
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), IPC_EPROTOTYPE);
	channel.flags = IPC_FLIGHT_TABLE_NO_PROMOTE;
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), 0);
	open.open.flags = 0;
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), 0);
	open.open.shape[3] = 4;
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), IPC_EPROTOTYPE);
}

static struct channel_record limiter_of(uint32_t mode, uint64_t flags)
{
	return (struct channel_record){.kind = IPC_KIND_LIMITER,
				       .uid = 10,
				       .gid = 100,
				       .mode = mode,
				       .flags = flags,
				       .shape = {4, 2, 0, 0},
				       .size = UINT64_C(4) << 20};
}

/* M-43, M-22 */
Test(policy, flags_of_a_limiter, .timeout = 60)
{
	struct channel_record channel = limiter_of(0600, 0), kept = limiter_of(0600, IPC_KEEP);
	union message open = rawpeer_open_message(IPC_ROLE_LIMITER, "l", IPC_CREATE | IPC_KEEP);

	cr_assert_eq(policy_check_request(&open.open), 0);
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), IPC_EPROTOTYPE);
	cr_assert_eq(policy_check_open(&owner, &kept, &open.open), 0);
	open.open.flags = IPC_CREATE;
	cr_assert_eq(policy_check_open(&owner, &kept, &open.open), 0);
	open.open.flags = IPC_CREATE | IPC_STAY;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "it has no sides");
}

/* L-6, M-45 */
Test(policy, shapes_of_a_limiter, .timeout = 60)
{
	union message open = rawpeer_open_message(IPC_ROLE_LIMITER, "l", IPC_CREATE);

	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	open.open.shape_new[0] = UINT32_MAX;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	open.open.shape_new[0] = 0;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);
	open.open.shape_new[0] = UINT64_C(1) << 32;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL);

	open.open.shape_new[0] = 4;
	open.open.shape_new[2] = 5;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL, "half a window");
	open.open.shape_new[3] = 5;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL, "not kept");
	open.open.flags |= IPC_KEEP;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	open.open.size_new = 4096;
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL, "it does not fit");
}

/* M-50, M-53, M-54 */
Test(policy, rights_of_a_limiter, .timeout = 60)
{
	struct channel_record channel = limiter_of(0660, 0);
	union message open = rawpeer_open_message(IPC_ROLE_LIMITER, "l", 0);
	struct policy_subject foreign = owner;

	foreign.is_foreign = true;
	cr_assert_eq(policy_check_open(&mate, &channel, &open.open), 0);
	cr_assert_eq(policy_check_open(&stranger, &channel, &open.open), IPC_EACCES);
	cr_assert_eq(policy_check_open(&foreign, &channel, &open.open), IPC_EPROTONOSUPPORT);
	channel.mode = 0640;
	cr_assert_eq(policy_check_open(&mate, &channel, &open.open), IPC_EACCES, "both are needed");

	open.open.mode = 0660;
	open.open.flags = IPC_CREATE;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	cr_assert(policy_is_public(IPC_KIND_LIMITER, 0660));
	cr_assert_not(policy_is_public(IPC_KIND_LIMITER, 0640));
}

static struct channel_record queue_of(uint32_t mode, uint64_t flags)
{
	return (struct channel_record){
		.kind = IPC_KIND_QUEUE,
		.uid = 10,
		.gid = 100,
		.mode = mode,
		.flags = flags,
		.shape = {16 | UINT64_C(2) << 32, 4096, 1024 | UINT64_C(3) << 32,
			  5 | UINT64_C(7) << 32},
		.size = UINT64_C(1) << 20,
	};
}

/* M-43, M-22, Q-16: one that is not counted makes nothing, and is a producer. */
Test(policy, flags_of_a_queue, .timeout = 60)
{
	struct channel_record channel = queue_of(0600, 0), kept = queue_of(0600, IPC_KEEP);
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_CONSUMER, "q",
						  IPC_CREATE | IPC_KEEP | IPC_STAY);

	cr_assert_eq(policy_check_request(&open.open), 0);
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), IPC_EPROTOTYPE);
	cr_assert_eq(policy_check_open(&owner, &kept, &open.open), 0);
	open.open.flags = OPEN_UNCOUNTED;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "a consumer");
	open.open.role = IPC_ROLE_QUEUE_PRODUCER;
	cr_assert_eq(policy_check_request(&open.open), 0);
	cr_assert_eq(policy_check_open(&owner, &kept, &open.open), 0);
	open.open.flags |= IPC_CREATE;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "it would end at once");
	open.open.flags = OPEN_UPGRADE;
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "there are no weak ones");
	open = rawpeer_open_message(IPC_ROLE_SHARED_A, "s", OPEN_UNCOUNTED);
	cr_assert_eq(policy_check_request(&open.open), IPC_EINVAL, "another kind");
}

/* M-43, Q-16: two numbers in a word are two shapes. */
Test(policy, each_shape_of_a_queue_is_compared_by_itself, .timeout = 60)
{
	static const struct {
		unsigned word, shift;
		uint64_t is;
	} shapes[] = {{0, 0, 16}, {0, 32, 2}, {1, 0, 4096}, {2, 0, 1024},
		      {2, 32, 3}, {3, 0, 5},  {3, 32, 7}};
	struct channel_record channel = queue_of(0600, 0);

	for (size_t i = 0; i < N_ELEMENTS(shapes); ++i) {
		union message open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", 0);
		uint64_t *word = &open.open.shape[shapes[i].word];

		cr_assert_eq(policy_check_open(&owner, &channel, &open.open), 0);
		*word = shapes[i].is << shapes[i].shift;
		cr_assert_eq(policy_check_open(&owner, &channel, &open.open), 0, "%zu", i);
		*word = (shapes[i].is + 1) << shapes[i].shift;
		cr_assert_eq(policy_check_open(&owner, &channel, &open.open), IPC_EPROTOTYPE, "%zu",
			     i);
	}
}

/* */
Test(policy, dead_letters_are_a_shape_and_have_none, .timeout = 60)
{
	struct channel_record channel = queue_of(0600, 0), with = channel;
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", 0);

	strcpy(with.dead_letters, "dead");
	cr_assert_eq(policy_check_open(&owner, &with, &open.open), 0, "any");
	strcpy(open.open.dead_letters, "dead");
	cr_assert_eq(policy_check_open(&owner, &with, &open.open), 0);
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), IPC_EPROTOTYPE, "none");
	strcpy(open.open.dead_letters, "deaf");
	cr_assert_eq(policy_check_open(&owner, &with, &open.open), IPC_EPROTOTYPE);

	open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", OPEN_UNCOUNTED);
	cr_assert_eq(policy_check_open(&owner, &channel, &open.open), 0);
	cr_assert_eq(policy_check_open(&owner, &with, &open.open), IPC_EINVAL);

	open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", IPC_CREATE);
	strcpy(open.open.dead_letters, "dead");
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	strcpy(open.open.dead_letters, "q");
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL, "its own");
}

/* M-50, M-53, M-54: no lock is in it, and no thread's number. */
Test(policy, rights_of_a_queue, .timeout = 60)
{
	static const uint32_t roles[] = {IPC_ROLE_QUEUE_PRODUCER, IPC_ROLE_QUEUE_CONSUMER};
	struct policy_subject foreign = owner;

	foreign.is_foreign = true;
	for (size_t i = 0; i < N_ELEMENTS(roles); ++i) {
		union message open = rawpeer_open_message(roles[i], "q", 0);
		struct channel_record channel = queue_of(0660, 0);

		cr_assert_eq(policy_check_open(&mate, &channel, &open.open), 0);
		cr_assert_eq(policy_check_open(&stranger, &channel, &open.open), IPC_EACCES);
		cr_assert_eq(policy_check_open(&root, &channel, &open.open), IPC_EACCES);
		cr_assert_eq(policy_check_open(&foreign, &channel, &open.open), 0);
		channel.mode = 0620;
		cr_assert_eq(policy_check_open(&mate, &channel, &open.open), IPC_EACCES,
			     "what is mapped for writing is mapped for reading");

		open.open.mode = 0666;
		open.open.flags = IPC_CREATE;
		cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
		cr_assert_eq(policy_check_creation(&foreign, &open.open), 0);
	}
	cr_assert(policy_is_public(IPC_KIND_QUEUE, 0660));
	cr_assert_not(policy_is_public(IPC_KIND_QUEUE, 0640));
}

static int create_queue(uint64_t items_max, uint64_t priorities, uint64_t bytes_max,
			uint64_t item_size_max)
{
	const uint64_t shape[4] = {items_max | priorities << 32, bytes_max,
				   item_size_max | UINT64_C(3) << 32, 0};
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", IPC_CREATE);

	memcpy(open.open.shape_new, shape, sizeof(shape));
	open.open.size_new = (queue_segment_size(shape) + 4095) & ~UINT64_C(4095);
	if (open.open.size_new == 0)
		open.open.size_new = UINT64_C(1) << 30;
	return policy_check_creation(&owner, &open.open);
}

/* M-76, M-60 */
Test(policy, creation_of_a_queue_knows_its_limits, .timeout = 60)
{
	union message open = rawpeer_open_message(IPC_ROLE_QUEUE_PRODUCER, "q", IPC_CREATE);

	cr_assert_eq(create_queue(1, 1, 1, 1), 0);
	cr_assert_eq(create_queue(QUEUE_ITEMS_MAX, 1, 4096, 16), 0);
	cr_assert_eq(create_queue(16, IPC_PRIORITIES_MAX, 4096, 16), 0);
	cr_assert_eq(create_queue(QUEUE_ITEMS_MAX, 2, QUEUE_BYTES_MAX, IPC_ITEM_SIZE_MAX),
		     IPC_ENOSPC, "legal numbers of which no memory is large enough");

	cr_assert_eq(create_queue(0, 1, 4096, 16), IPC_EINVAL);
	cr_assert_eq(create_queue(QUEUE_ITEMS_MAX + 1, 1, 4096, 16), IPC_EINVAL);
	cr_assert_eq(create_queue(16, 0, 4096, 16), IPC_EINVAL);
	cr_assert_eq(create_queue(16, IPC_PRIORITIES_MAX + 1, 4096, 16), IPC_EINVAL);
	cr_assert_eq(create_queue(16, 1, 0, 16), IPC_EINVAL);
	cr_assert_eq(create_queue(16, 1, 4096, 4097), IPC_EINVAL);

	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
	open.open.size_new = queue_segment_size(open.open.shape_new) & ~UINT64_C(4095);
	cr_assert_eq(policy_check_creation(&owner, &open.open), IPC_EINVAL, "it does not fit");
	open.open.size_new += 4096;
	cr_assert_eq(policy_check_creation(&owner, &open.open), 0);
}

/* M-45, M-48 */
Test(policy, looking_and_removing, .timeout = 60)
{
	struct channel_record channel = watch_of(0640);

	cr_assert(policy_may_read(&owner, &channel));
	cr_assert(policy_may_read(&mate, &channel));
	cr_assert(policy_may_read(&root, &channel));
	cr_assert_not(policy_may_read(&stranger, &channel));
	cr_assert(policy_may_remove(&owner, &channel));
	cr_assert(policy_may_remove(&root, &channel));
	cr_assert_not(policy_may_remove(&mate, &channel));
}
