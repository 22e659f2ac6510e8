/* SPDX-License-Identifier: MIT */

/*
 * Who may do what, without a broker: subjects without a socket have no group but their own.
 */

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/admin.h>
#include <ipc/client.h>
#include <ipc/limits.h>
#include <ipc/shared.h>

#include "broker/policy.h"
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

static int open_as(const struct policy_subject *subject, uint32_t mode, uint32_t role)
{
	struct channel_record channel = watch_of(mode);
	union message open = rawpeer_open_message(role, "w", 0);

	return policy_check_open(subject, &channel, &open.open);
}

/* M-50 */
Test(policy, readers_need_the_read_bit_of_their_class, .timeout = 10)
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
Test(policy, only_the_owner_takes_locks, .timeout = 10)
{
	cr_assert_eq(open_as(&owner, 0600, IPC_ROLE_WATCH_PRODUCER), 0);
	cr_assert_eq(open_as(&owner, 0400, IPC_ROLE_WATCH_PRODUCER), IPC_EACCES);
	cr_assert_eq(open_as(&mate, 0660, IPC_ROLE_WATCH_PRODUCER), IPC_EACCES);
	cr_assert_eq(open_as(&root, 0666, IPC_ROLE_WATCH_PRODUCER), IPC_EACCES);
}

/* M-54, M-50 */
Test(policy, creation_refuses_foreign_writers_and_foreign_groups, .timeout = 10)
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
Test(policy, creation_refuses_sizes_that_cannot_be, .timeout = 10)
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

/* M-53 */
Test(policy, foreign_namespaces_get_no_lock, .timeout = 10)
{
	struct policy_subject foreign = owner;

	foreign.is_foreign = true;
	cr_assert_eq(open_as(&foreign, 0600, IPC_ROLE_WATCH_PRODUCER), IPC_EPROTONOSUPPORT);
	cr_assert_eq(open_as(&foreign, 0600, IPC_ROLE_WATCH_CONSUMER), 0);
}

/* M-43, M-45 */
Test(policy, roles_and_flags_of_the_kinds, .timeout = 10)
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
	for (uint32_t kind = IPC_KIND_QUEUE; kind <= IPC_KIND_LIMITER; ++kind) {
		if (kind == IPC_KIND_FLIGHT)
			continue;
		open.open.kind = kind;
		cr_assert_eq(policy_check_request(&open.open), IPC_EPROTONOSUPPORT);
	}
}

/* M-45, M-48 */
Test(policy, looking_and_removing, .timeout = 10)
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
