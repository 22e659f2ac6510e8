/* SPDX-License-Identifier: MIT */

/*
 * Inboxes at the broker, by hand: who gets in, what an observer is, the socket pair, the listing.
 */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/channel/inbox.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/rawpeer.h"

static struct domain domain;
static struct rawpeer a, b, c;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
	rawpeer_join(&c, domain.address);
}

static void teardown(void)
{
	rawpeer_disconnect(&a);
	if (b.fd >= 0)
		rawpeer_disconnect(&b);
	if (c.fd >= 0)
		rawpeer_disconnect(&c);
	domain_stop(&domain);
}

TestSuite(inbox, .init = setup, .fini = teardown, .timeout = 60);

enum {
	SENDER = IPC_ROLE_INBOX_SENDER,
	RECEIVER = IPC_ROLE_INBOX_RECEIVER,
	OBSERVER = IPC_ROLE_INBOX_OBSERVER
};

static int try_open(struct rawpeer *peer, uint32_t role, uint64_t flags, uint64_t *ret_id)
{
	return rawpeer_open_role(peer, role, "i", flags, ret_id);
}

static uint64_t open_role(struct rawpeer *peer, uint32_t role, uint64_t flags)
{
	uint64_t id;

	cr_assert_eq(try_open(peer, role, flags, &id), 0);
	return id;
}

static void shut(struct rawpeer *peer, uint64_t id)
{
	rawpeer_close(peer, id);
	rawpeer_sync(peer);
}

/* The descriptor of this sort that came with OPENED; the caller closes it. */
static int fd_of(const struct rawpeer *peer, unsigned which)
{
	unsigned n = 0, bit;

	cr_assert(peer->reply.opened.fds & which);
	for (bit = 1; bit < which; bit <<= 1)
		n += (peer->reply.opened.fds & bit) != 0;
	cr_assert_lt(n, peer->n_fds);
	return fcntl(peer->fds[n], F_DUPFD_CLOEXEC, 3);
}

/* ---- who gets in ---- */

/* I-13 */
Test(inbox, has_one_sender_and_one_receiver)
{
	uint64_t sender = open_role(&a, SENDER, IPC_CREATE), receiver, id;

	receiver = open_role(&b, RECEIVER, 0);
	cr_assert_eq(try_open(&c, SENDER, IPC_CREATE, &id), IPC_EBUSY);
	cr_assert_eq(try_open(&c, RECEIVER, 0, &id), IPC_EBUSY);

	shut(&a, sender);
	(void)open_role(&c, SENDER, 0);
	shut(&b, receiver);
	(void)open_role(&b, RECEIVER, 0);
}

/* I-13, M-43 */
Test(inbox, whoever_awaits_the_place_gets_it_when_it_is_free)
{
	uint64_t sender = open_role(&a, SENDER, IPC_CREATE);
	union message open = rawpeer_open_message(SENDER, "i", IPC_AWAIT);

	rawpeer_send(&b, &open);
	rawpeer_sync(&c);
	cr_assert_eq(rawpeer_receive(&b, 50), RAWPEER_NOTHING);

	shut(&a, sender);
	/* The inbox has ended with its last handle; the next one of the name is awaited. */
	(void)open_role(&a, RECEIVER, IPC_CREATE);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_OPENED);
	cr_assert_eq(b.reply.opened.side, INBOX_SIDE_SENDER);
}

/* I-13: also by a death. */
Test(inbox, a_dead_senders_place_is_taken_by_who_waits)
{
	union message open = rawpeer_open_message(SENDER, "i", IPC_AWAIT);

	(void)open_role(&a, RECEIVER, IPC_CREATE);
	(void)open_role(&c, SENDER, 0);
	rawpeer_send(&b, &open);
	rawpeer_sync(&a);
	rawpeer_disconnect(&c);

	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_OPENED);
}

/* I-13 */
Test(inbox, observers_are_not_counted_and_make_nothing)
{
	uint64_t id, sender;

	cr_assert_eq(try_open(&c, OBSERVER, 0, &id), IPC_ENOENT);
	cr_assert_eq(try_open(&c, OBSERVER, IPC_CREATE, &id), IPC_EINVAL);
	cr_assert_eq(try_open(&c, OBSERVER, IPC_CREATE | IPC_KEEP, &id), IPC_EINVAL);
	cr_assert_eq(try_open(&c, OBSERVER, IPC_CREATE | IPC_EXCLUSIVE, &id), IPC_EINVAL);
	cr_assert_eq(try_open(&c, OBSERVER, IPC_STAY, &id), IPC_EINVAL);

	sender = open_role(&a, SENDER, IPC_CREATE);
	id = open_role(&b, OBSERVER, 0);
	(void)open_role(&c, OBSERVER, 0);
	cr_assert_eq(rawpeer_info(&a, "i"), 0);
	cr_assert_eq(a.reply.info_reply.channel.handles[0], 1);
	cr_assert_eq(a.reply.info_reply.channel.handles[1], 0);

	/* It keeps no inbox alive. */
	shut(&a, sender);
	cr_assert_eq(rawpeer_info(&a, "i"), IPC_ENOENT);
	cr_assert(liveness_handle_is(b.table, id), "it goes on, to see the end");
}

/* M-50: what an observer need not write it cannot write. */
Test(inbox, an_observer_gets_memory_to_read_and_no_socket)
{
	int fd;

	(void)open_role(&a, SENDER, IPC_CREATE);
	(void)open_role(&b, OBSERVER, 0);
	cr_assert_eq(b.reply.opened.is_writable, 0);
	cr_assert_not(b.reply.opened.fds & OPENED_FD_PAIR);
	fd = fd_of(&b, OPENED_FD_VALUE);
	cr_assert_eq(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	close(fd);
}

/* I-13, M-50: it is told of the ends of the receiver, and of the sender's death. */
Test(inbox, observers_are_told_of_ends)
{
	const _Atomic uint32_t *attention = &c.table->attention[c.slot].word;
	uint64_t receiver;
	uint32_t before;

	(void)open_role(&b, SENDER, IPC_CREATE);
	receiver = open_role(&a, RECEIVER, 0);
	(void)open_role(&c, OBSERVER, 0);

	before = atomic_load(attention);
	shut(&a, receiver);
	cr_assert_gt(atomic_load(attention), before);

	(void)open_role(&a, RECEIVER, 0);
	before = atomic_load(attention);
	rawpeer_disconnect(&b);
	(void)rawpeer_until_side(&a, a.reply.opened.channel_slot, INBOX_SIDE_SENDER, 0, 1);
	rawpeer_sync(&a);
	cr_assert_gt(atomic_load(attention), before);
}

/* M-22 */
Test(inbox, both_sides_may_stay_and_keep)
{
	uint64_t sender = open_role(&a, SENDER, IPC_CREATE | IPC_KEEP | IPC_STAY);

	(void)open_role(&b, RECEIVER, IPC_STAY);
	rawpeer_disconnect(&b);
	shut(&a, sender);
	cr_assert_eq(rawpeer_info(&a, "i"), 0, "it is kept");
	cr_assert_eq(rawpeer_remove(&a, "i", 0), 0);
}

/* M-43 */
Test(inbox, shapes_fit_or_do_not)
{
	union message open = rawpeer_open_message(SENDER, "i", IPC_CREATE);
	uint64_t id;

	open.open.shape_new[1] = open.open.shape_new[0] / 4 + 1;
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EINVAL);
	open.open.shape_new[1] = 1024;
	open.open.shape_new[2] = 2;
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EINVAL);
	open.open.shape_new[2] = IPC_INBOX_FULL_COLLAPSE;
	open.open.size_new = 4096;
	cr_assert_eq(rawpeer_open(&a, &open, &id), IPC_EINVAL, "too small for that");
	open.open.size_new = UINT64_C(1) << 20;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);

	open = rawpeer_open_message(RECEIVER, "i", 0);
	open.open.shape[0] = 8192;
	cr_assert_eq(rawpeer_open(&b, &open, &id), IPC_EPROTOTYPE);
	open.open.shape[0] = 4096;
	open.open.shape[2] = IPC_INBOX_FULL_COLLAPSE;
	cr_assert_eq(rawpeer_open(&b, &open, &id), 0);
}

/* M-54, M-50: where others may read it has lines of its own, and memory that nobody cuts. */
Test(inbox, one_for_others_is_sealed_and_has_lines_of_its_own)
{
	union message open = rawpeer_open_message(SENDER, "i", IPC_CREATE);
	uint64_t id;
	int fd;

	open.open.mode = 0640;
	cr_assert_eq(rawpeer_open(&a, &open, &id), 0);
	cr_assert(a.reply.opened.fds & OPENED_FD_LINES);
	(void)open_role(&b, RECEIVER, 0);
	fd = fd_of(&b, OPENED_FD_VALUE);
	cr_assert_lt(ftruncate(fd, 4096), 0);
	close(fd);
}

/* ---- the pair ---- */

static void send_fd(int socket_fd, char what)
{
	int fd = memfd_create("in-the-mail", MFD_CLOEXEC);

	cr_assert_eq(fdpass_send(socket_fd, &what, 1, &fd, 1), 0);
	close(fd);
}

static void take_fd(int socket_fd, char what)
{
	int fds[FDPASS_FDS_MAX];
	unsigned n = 0;
	size_t size;
	char byte;

	cr_assert_eq(fdpass_receive(socket_fd, &byte, 1, &size, fds, &n), 0);
	cr_assert_eq(byte, what);
	cr_assert_eq(n, 1);
	close(fds[0]);
}

/* D9 */
Test(inbox, descriptors_go_from_one_side_to_the_other)
{
	int to, from;

	(void)open_role(&a, SENDER, IPC_CREATE);
	cr_assert_eq(a.reply.opened.fds, OPENED_FD_PAIR, "the segment it has reserved itself");
	to = fd_of(&a, OPENED_FD_PAIR);
	(void)open_role(&b, RECEIVER, 0);
	cr_assert_eq(b.reply.opened.fds, OPENED_FD_VALUE | OPENED_FD_PAIR);
	from = fd_of(&b, OPENED_FD_PAIR);

	send_fd(to, 'x');
	take_fd(from, 'x');
	send_fd(from, 'y');
	take_fd(to, 'y');
	close(to);
	close(from);
}

/* D9: the keeper has both ends, so not even two workers' deaths take anything away. */
Test(inbox, what_was_sent_outlives_both_processes_and_the_worker)
{
	int fd;

	(void)open_role(&b, SENDER, IPC_CREATE | IPC_KEEP);
	fd = fd_of(&b, OPENED_FD_PAIR);
	send_fd(fd, 'k');
	close(fd);
	(void)open_role(&c, RECEIVER, 0);
	rawpeer_disconnect(&b);
	rawpeer_disconnect(&c);
	domain_kill_worker(&domain);

	(void)open_role(&a, RECEIVER, 0);
	fd = fd_of(&a, OPENED_FD_PAIR);
	domain_kill_worker(&domain);
	take_fd(fd, 'k');
	close(fd);
	cr_assert_eq(rawpeer_remove(&a, "i", 0), 0);
}

/* It hears of what goes without being asked. */
static void expect_fds_of(pid_t pid, unsigned n)
{
	struct timespec limit = process_deadline(30000);

	while (leaks_fds_of(pid) > n) {
		cr_assert(!process_has_passed(&limit), "%u descriptors, not %u", leaks_fds_of(pid),
			  n);
		process_pause();
	}
}

/* Both ends go with the inbox, here and at the keeper. */
Test(inbox, nothing_is_left_of_the_pair)
{
	unsigned keeper, worker;
	uint64_t id;

	rawpeer_sync(&a);
	keeper = domain_fds_before(&domain);
	rawpeer_sync(&a);
	worker = leaks_fds_of(domain_worker(&domain));

	id = open_role(&a, SENDER, IPC_CREATE);
	rawpeer_sync(&a);
	cr_assert_eq(leaks_fds_of(domain_worker(&domain)), worker + 3);
	shut(&a, id);
	cr_assert_eq(leaks_fds_of(domain_worker(&domain)), worker);
	domain_kill_worker(&domain);
	rawpeer_sync(&a);
	expect_fds_of(domain.keeper, keeper);
}

/* ---- the listing ---- */

static void tell_of(int fd, uint64_t offset, uint64_t value)
{
	cr_assert_eq(
		pwrite(fd, &value, sizeof(value),
		       (off_t)(INBOX_SHARED_OFFSET + offsetof(struct inbox_shared, ring) + offset)),
		sizeof(value));
}

/* I-5, M-45 */
Test(inbox, its_depth_is_listed_and_never_believed_beyond_the_capacity)
{
	const struct message_channel *channel = &c.reply.info_reply.channel;
	uint64_t units = 4096 / RING_UNIT;
	int fd;

	(void)open_role(&a, SENDER, IPC_CREATE);
	(void)open_role(&b, RECEIVER, 0);
	fd = fd_of(&b, OPENED_FD_VALUE);

	tell_of(fd, offsetof(struct ring, tail), ring_word(3, 1, RING_POSITION_MASK - 1));
	tell_of(fd, offsetof(struct ring, head), ring_word(5, 0, 8));
	tell_of(fd, offsetof(struct ring, depth_max), 20);
	cr_assert_eq(rawpeer_info(&c, "i"), 0);
	cr_assert_eq(channel->kind, IPC_KIND_INBOX);
	cr_assert_eq(channel->capacity, 4096);
	cr_assert_eq(channel->item_size_max, 1024);
	cr_assert_eq(channel->depth, UINT64_C(10) * RING_UNIT);
	cr_assert_eq(channel->depth_max, UINT64_C(20) * RING_UNIT);

	tell_of(fd, offsetof(struct ring, head), ring_word(5, 0, units * 9));
	tell_of(fd, offsetof(struct ring, depth_max), UINT64_MAX);
	cr_assert_eq(rawpeer_info(&c, "i"), 0);
	cr_assert_eq(channel->depth, 4096);
	cr_assert_eq(channel->depth_max, 4096);
	close(fd);
}
