/* SPDX-License-Identifier: MIT */

/*
 * OPEN, CONFIRM, CANCEL by hand against the real broker: names, rights, shapes, reservations,
 * places.
 */

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>
#include <ipc/shared.h>

#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawpeer.h"

static struct domain domain;
static struct rawpeer a, b;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
}

static void teardown(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
}

TestSuite(opener, .init = setup, .fini = teardown, .timeout = 60);

/* The answer to an OPEN that is deferred: nothing comes before everything sent earlier was done. */
static uint64_t open_deferred(struct rawpeer *peer, union message *open)
{
	uint64_t request_id;

	rawpeer_send(peer, open);
	request_id = peer->last_id;
	rawpeer_sync(peer);
	cr_assert_eq(peer->reply.head.request_id, peer->last_id);
	return request_id;
}

/* M-43 */
Test(opener, without_create_a_missing_name_is_enoent)
{
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "x", 0, &id), IPC_ENOENT);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "x", 0, &id), IPC_ENOENT);
}

/* M-43, M-3 */
Test(opener, either_side_creates_and_both_are_counted)
{
	uint64_t id, id2;
	uint32_t slot;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", IPC_CREATE, &id), 0);
	slot = a.reply.opened.channel_slot;
	cr_assert_eq(a.reply.opened.fds, OPENED_FD_VALUE,
		     "a consumer needs a descriptor of its own after reserving");
	cr_assert_eq(a.reply.opened.is_writable, 0);
	cr_assert_eq(liveness_side(a.table, slot, 0), 0, "awaited");
	cr_assert_eq(side_count(liveness_side(a.table, slot, 1)), 1);

	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", 0, &id2), 0);
	cr_assert_eq(b.reply.opened.channel_slot, slot);
	cr_assert_eq(b.reply.opened.fds, OPENED_FD_VALUE);
	cr_assert_eq(b.reply.opened.is_writable, 1);
	cr_assert_eq(side_count(liveness_side(a.table, slot, 0)), 1);
	cr_assert(liveness_handle_is(a.table, id));
	cr_assert(liveness_handle_is(a.table, id2));
	cr_assert_neq(id, id2);
}

/* M-50, W-9 */
Test(opener, consumers_get_memory_that_cannot_be_written)
{
	uint64_t id;
	void *map;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &id), 0);
	cr_assert_eq(a.reply.opened.fds, 0, "who reserved it has it already");
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), 0);
	cr_assert_eq(b.n_fds, 1);

	cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, b.fds[0], 0), MAP_FAILED);
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, b.fds[0], 0);
	cr_assert_neq(map, MAP_FAILED);
	cr_assert_neq(mprotect(map, 4096, PROT_READ | PROT_WRITE), 0);
}

/* M-43 */
Test(opener, exclusive_refuses_a_name_that_exists)
{
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE | IPC_EXCLUSIVE, &id),
		     0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_A, "s", IPC_CREATE | IPC_EXCLUSIVE, &id),
		     IPC_EEXIST);
}

/* M-43 */
Test(opener, other_kinds_and_other_shapes_are_eprototype)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", 0);
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_A, "w", 0, &id), IPC_EPROTOTYPE);

	open.open.shape[0] = 4097;
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EPROTOTYPE);
	open.open.shape[0] = 4096;
	open.open.shape[1] = 65;
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EPROTOTYPE);
	open.open.shape[1] = 64;
	cr_assert_eq(rawpeer_open(&b, &open, &id), 0);

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_SHARED_B, "s", IPC_SHARED_IN_PLACE, &id),
		     IPC_EPROTOTYPE);
}

/* M-43 */
Test(opener, flags_that_the_kind_does_not_take_are_illegal)
{
	uint64_t id;

	cr_assert_eq(
		rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE | IPC_KEEP, &id),
		IPC_EINVAL);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_PRODUCER, "w",
				       IPC_CREATE | IPC_SHARED_IN_PLACE, &id),
		     IPC_EINVAL);
}

/* M-54 */
Test(opener, memory_with_a_lock_may_not_be_written_by_others)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	uint64_t id;

	open.open.mode = 0620;
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EACCES);
	open.open.mode = 0602;
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EACCES);
	open.open.mode = 0644;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(a.reply.opened.fds, OPENED_FD_LINES,
		     "a line that others can write is not the owner's desk");
}

/* M-50 */
Test(opener, mode_bits_of_the_owner_count)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_CREATE);
	uint64_t id;

	open.open.mode = 0400;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", 0, &id), IPC_EACCES);
}

/* M-43: waits for the name, without being in the way of this client's next request. */
Test(opener, await_waits_until_the_name_is_there)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_AWAIT);
	uint64_t id, request_id = open_deferred(&a, &open);

	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &id), 0);

	cr_assert_eq(rawpeer_answer(&a, request_id), MESSAGE_OPENED);
	cr_assert_eq(a.n_fds, 1);
}

/* M-20: a deadline that has passed looks once. */
Test(opener, await_that_looks_once_is_etimedout)
{
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", IPC_AWAIT | OPEN_LOOK_ONCE,
				       &id),
		     IPC_ETIMEDOUT);
}

/* M-43, W: consumers_max */
Test(opener, a_role_that_is_taken_is_ebusy_or_awaited)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	union message consumer = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_AWAIT);
	uint64_t id, first, request_id;

	open.open.shape_new[1] = 1;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", 0, &first), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), IPC_EBUSY);

	request_id = open_deferred(&b, &consumer);
	rawpeer_close(&a, first);

	cr_assert_eq(rawpeer_answer(&b, request_id), MESSAGE_OPENED);
	cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), IPC_EBUSY);
}

/* D8: nobody opens what is not reserved; and the same segment goes on to the next who would make
 * it. */
Test(opener, a_dead_reservers_segment_passes_to_the_next_creator)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	union message consumer = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_AWAIT);
	struct stat first, second;
	uint64_t id, consumer_id, creator_id;
	struct rawpeer c;

	rawpeer_join(&c, domain.address);
	rawpeer_send(&c, &open);
	cr_assert_eq(rawpeer_answer(&c, c.last_id), MESSAGE_RESERVE);
	cr_assert_eq(fstat(c.fds[0], &first), 0);
	consumer_id = open_deferred(&a, &consumer);
	creator_id = open_deferred(&b, &open);

	rawpeer_disconnect(&c);

	cr_assert_eq(rawpeer_answer(&b, creator_id), MESSAGE_RESERVE);
	cr_assert_eq(fstat(b.fds[0], &second), 0);
	cr_assert_eq(first.st_ino, second.st_ino);
	cr_assert_eq(rawpeer_reserve(&b, creator_id, &id), 0);
	cr_assert_eq(rawpeer_answer(&a, consumer_id), MESSAGE_OPENED);
}

/* D8: other sizes, other memory. */
Test(opener, a_dead_reservers_segment_does_not_pass_to_another_shape)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	uint64_t id, request_id;

	rawpeer_send(&a, &open);
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_RESERVE);
	open.open.size_new = 131072;
	request_id = open_deferred(&b, &open);

	rawpeer_close(&a, a.reply.reserve.handle_id);

	cr_assert_eq(rawpeer_answer(&b, request_id), MESSAGE_RESERVE);
	cr_assert_eq(b.reply.reserve.segment.size, 131072);
	cr_assert_eq(rawpeer_reserve(&b, request_id, &id), 0);
}

/* D8 */
Test(opener, those_who_do_not_create_learn_that_the_reserver_failed)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	union message plain = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", 0);
	union message confirm;
	uint64_t create_id, plain_id;

	rawpeer_send(&a, &open);
	create_id = a.last_id;
	cr_assert_eq(rawpeer_answer(&a, create_id), MESSAGE_RESERVE);
	plain_id = open_deferred(&b, &plain);

	message_init(&confirm, MESSAGE_CONFIRM, 0);
	confirm.confirm.handle_id = a.reply.reserve.handle_id;
	confirm.confirm.status = IPC_ENOSPC;
	rawpeer_send(&a, &confirm);

	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_DONE);
	cr_assert_eq(a.reply.head.result, IPC_ENOSPC);
	cr_assert_eq(rawpeer_answer(&b, plain_id), MESSAGE_DONE);
	cr_assert_eq(b.reply.head.result, IPC_ENOENT);
}

/* M-52: a confirmation is not believed. */
Test(opener, a_segment_that_is_not_reserved_is_not_confirmed)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	union message confirm;
	uint64_t id;

	rawpeer_send(&a, &open);
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_RESERVE);
	message_init(&confirm, MESSAGE_CONFIRM, 0);
	confirm.confirm.handle_id = a.reply.reserve.handle_id;
	rawpeer_send(&a, &confirm);

	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_DONE);
	cr_assert_eq(a.reply.head.result, IPC_ENOSPC);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), IPC_ENOENT);
}

/* M-60: whoever cut the segment has broken it for those who come. */
Test(opener, a_segment_that_was_cut_is_not_handed_out)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	uint64_t id, request_id;
	int fd;

	rawpeer_send(&a, &open);
	request_id = a.last_id;
	cr_assert_eq(rawpeer_answer(&a, request_id), MESSAGE_RESERVE);
	fd = dup(a.fds[0]);
	cr_assert_eq(rawpeer_reserve(&a, request_id, &id), 0);
	cr_assert_eq(ftruncate(fd, 0), 0);
	close(fd);

	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", 0, &id), IPC_EBADMSG);
	cr_assert_eq(rawpeer_info(&b, "w"), 0, "the broker looks at it all the same");
}

/* M-28, D8 */
Test(opener, cancel_ends_a_deferred_open_and_closes_a_granted_one)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_CONSUMER, "w", IPC_AWAIT);
	union message cancel;
	uint64_t id, request_id = open_deferred(&a, &open);
	uint32_t slot;

	message_init(&cancel, MESSAGE_CANCEL, 0);
	cancel.cancel.cancelled_id = request_id;
	rawpeer_send(&a, &cancel);
	rawpeer_sync(&a);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE, &id), 0);
	slot = b.reply.opened.channel_slot;
	cr_assert_eq(side_count(liveness_side(b.table, slot, 1)), 0);

	rawpeer_send(&a, &open);
	cancel.cancel.cancelled_id = a.last_id;
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_OPENED);
	cr_assert_eq(side_count(liveness_side(b.table, slot, 1)), 1);
	rawpeer_send(&a, &cancel);
	rawpeer_sync(&a);
	cr_assert_eq(side_count(liveness_side(b.table, slot, 1)), 0);
}

/* W-8 */
Test(opener, upgrade_needs_a_counted_producer)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "w", IPC_CREATE);
	union message upgrade;
	uint64_t id, consumer, id2;

	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	message_init(&upgrade, MESSAGE_OPEN, 0);
	upgrade.open.kind = IPC_KIND_WATCH;
	upgrade.open.role = IPC_ROLE_WATCH_PRODUCER;
	upgrade.open.flags = OPEN_UPGRADE;
	upgrade.open.channel_slot = a.reply.opened.channel_slot;
	upgrade.open.generation = a.reply.opened.generation;
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_WATCH_CONSUMER, "w", 0, &consumer), 0);

	/* Also under a name that is gone. */
	cr_assert_eq(rawpeer_remove(&a, "w", 0), 0);
	cr_assert_eq(rawpeer_open(&b, &upgrade, &id2), 0);
	cr_assert_eq(b.reply.opened.fds, OPENED_FD_VALUE);

	rawpeer_close(&a, id);
	rawpeer_close(&b, id2);
	rawpeer_sync(&a);
	rawpeer_sync(&b);
	cr_assert_eq(rawpeer_open(&b, &upgrade, &id2), IPC_EPIPE);
	upgrade.open.generation += 1;
	cr_assert_eq(rawpeer_open(&b, &upgrade, &id2), IPC_EPIPE);
}

/* M-3: never reused. */
Test(opener, handle_ids_and_generations_grow)
{
	uint64_t last_id = 0, last_generation = 0, id;

	for (int i = 0; i < 20; ++i) {
		cr_assert_eq(rawpeer_open_role(&a, IPC_ROLE_SHARED_A, "s", IPC_CREATE, &id), 0);
		cr_assert_gt(id, last_id);
		cr_assert_gt(a.reply.opened.generation, last_generation);
		last_id = id;
		last_generation = a.reply.opened.generation;
		rawpeer_close(&a, id);
	}
}
