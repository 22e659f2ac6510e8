/* SPDX-License-Identifier: MIT */

/*
 * What callers get to see of the memory; and what becomes of channels whose memory was spoilt.
 */

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <ipc/ipc.h>

#include "libipc/client/endpoint.h"
#include "libipc/platform/lock.h"
#include "libipc/wire/codec.h"
#include "tests/support/actor.h"
#include "tests/support/domain.h"
#include "tests/support/fixture.h"
#include "tests/support/process.h"

TestSuite(memory, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* ---- memory ---- */

/* M-71, W-13, S-11 */
Test(memory, values_are_aligned_and_zero_at_first)
{
	static const unsigned char zeros[4096];
	ipc_watch_producer *producer = producer_new("a");
	ipc_shared *shared = shared_new("b", IPC_SIDE_A);
	const void *value;
	size_t size, size_max;
	void *edit;

	cr_assert_eq(ipc_watch_edit_wait(producer, &edit, &size, &size_max, NULL), 0);
	cr_assert_eq((uintptr_t)edit % 64, 0);
	cr_assert_eq(size, 0);
	cr_assert_eq(size_max, 4096);
	cr_assert_eq(memcmp(edit, zeros, 4096), 0);
	cr_assert_eq(ipc_watch_abort(producer), 0);

	cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
	cr_assert_eq((uintptr_t)value % 64, 0);
	cr_assert_eq(memcmp(value, zeros, 4096), 0);
	cr_assert_eq(ipc_shared_edit(shared, &edit), 0);
	cr_assert_eq((uintptr_t)edit % 64, 0);
	cr_assert_eq(ipc_shared_unlock(shared), 0);

	ipc_watch_producer_close(producer);
	ipc_shared_close(shared);
}

/* M-72 */
Test(memory, size_0_is_a_legal_value)
{
	ipc_watch_producer *producer = producer_new("a");
	ipc_watch_consumer *consumer;
	uint64_t version;
	size_t size = 1;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	cr_assert_eq(ipc_watch_read(consumer, NULL, 0, &size, &version), IPC_EAGAIN);
	cr_assert_eq(ipc_watch_publish(producer, NULL, 0), 0);
	cr_assert_eq(ipc_watch_read(consumer, NULL, 0, &size, &version), 0);
	cr_assert_eq(size, 0);
	cr_assert_eq(version, 1);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

static const void *held_value;

static void touch_value(struct actor *self, void *arg)
{
	(void)arg;
	signal(SIGSEGV, SIG_DFL); /* not the sanitizer's */
	actor_say(self, *(const volatile unsigned char *)held_value);
}

/* M-70, S-8: not in a forked child; still there after the broker's death, a removal, a shutdown. */
Test(memory, a_held_value_stays_until_unlock_but_not_in_a_child)
{
	ipc_shared *shared = shared_new("a", IPC_SIDE_A);
	struct actor actor;
	void *edit;

	cr_assert_eq(ipc_shared_lock_wait(shared, &held_value, NULL), 0);
	cr_assert_eq(ipc_shared_edit(shared, &edit), 0);

	actor_start(&actor, touch_value, NULL);
	cr_assert_eq(actor_join(&actor), 128 + SIGSEGV);

	domain_kill_worker(&fixture_domain);
	cr_assert_eq(take_away("a", 0), 0);
	cr_assert_eq(ipc_shared_shutdown(shared), 0);
	cr_assert_eq(*(const unsigned char *)held_value, 0);
	memcpy(edit, "new", 3);
	cr_assert_eq(ipc_shared_commit(shared), 0);

	cr_assert_eq(ipc_shared_lock_wait(shared, &held_value, NULL), 0);
	cr_assert_eq(memcmp(held_value, "new", 3), 0);
	cr_assert_eq(ipc_shared_unlock(shared), 0);
	ipc_shared_close(shared);
}

static void write_without_lock(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	const void *value;
	ipc_shared *shared;
	void *edit;

	(void)arg;
	if (ipc_shared_open_wait(&shared, own, "a", IPC_SIDE_B, NULL, NULL) < 0 ||
	    ipc_shared_lock_wait(shared, &value, NULL) < 0 || ipc_shared_edit(shared, &edit) < 0 ||
	    ipc_shared_unlock(shared) < 0)
		process_end(1);
	actor_say(self, 0);

	/* What no program should do, and none is kept from. */
	(void)actor_hear(self);
	memset(edit, 0xee, 4096);
	actor_say(self, 0);
	(void)actor_hear(self);
}

/* M-73: in place, bytes may change under the holder; a copy does not, and the channel bears it. */
Test(memory, a_value_in_place_may_change_under_its_reader)
{
	ipc_shared *shared;
	struct actor actor;
	const void *value;
	char copy[16];

	cr_assert_eq(share(&shared, "a", IPC_SIDE_A, IPC_CREATE | IPC_SHARED_IN_PLACE), 0);
	actor_start(&actor, write_without_lock, NULL);
	cr_assert_eq(actor_hear(&actor), 0);

	cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
	memcpy(copy, value, sizeof(copy));
	actor_say(&actor, 0);
	cr_assert_eq(actor_hear(&actor), 0);
	cr_assert_eq(((const volatile unsigned char *)value)[0], 0xee);
	cr_assert_eq(copy[0], 0);
	cr_assert_eq(ipc_shared_commit(shared), 0);

	actor_kill(&actor);
	cr_assert_eq(ipc_shared_lock_wait(shared, &value, NULL), 0);
	cr_assert_eq(ipc_shared_unlock(shared), 0);
	ipc_shared_close(shared);
}

/* ---- faults ---- */

static void die_in_place(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&fixture_domain);
	const void *value;
	ipc_shared *shared;

	(void)arg;
	if (ipc_shared_open_wait(&shared, own, "a", IPC_SIDE_B, NULL, NULL) < 0 ||
	    ipc_shared_lock_wait(shared, &value, NULL) < 0)
		process_end(1);
	actor_say(self, 0);
	(void)actor_hear(self);
}

/* M-61, S-3: given up for everybody, those to come too; and it can be removed. */
Test(memory, a_channel_that_was_given_up_stays_so_and_can_be_removed)
{
	ipc_shared *first, *second, *third;
	struct actor actor;
	const void *value;
	int r;

	cr_assert_eq(share(&first, "a", IPC_SIDE_A, IPC_CREATE | IPC_SHARED_IN_PLACE), 0);
	cr_assert_eq(share(&second, "a", IPC_SIDE_B, 0), 0);
	actor_start(&actor, die_in_place, NULL);
	cr_assert_eq(actor_hear(&actor), 0);
	actor_kill(&actor);

	cr_assert_eq(ipc_shared_lock_wait(first, &value, NULL), 1);
	r = ipc_shared_unlock(first);
	cr_assert(r == 0 || r == IPC_ENOTRECOVERABLE);
	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(ipc_shared_lock_wait(first, &value, NULL), IPC_ENOTRECOVERABLE);
		cr_assert_eq(ipc_shared_lock_wait(second, &value, NULL), IPC_ENOTRECOVERABLE);
	}
	r = share(&third, "a", IPC_SIDE_B, 0);
	if (r == 0) {
		r = ipc_shared_lock_wait(third, &value, NULL);
		ipc_shared_close(third);
	}
	cr_assert_eq(r, IPC_ENOTRECOVERABLE);

	cr_assert_eq(take_away("a", 0), 0);
	cr_assert_eq(share(&third, "a", IPC_SIDE_A, IPC_CREATE | IPC_EXCLUSIVE), 0);
	cr_assert_eq(ipc_shared_lock_wait(third, &value, NULL), 0);
	cr_assert_eq(ipc_shared_unlock(third), 0);
	ipc_shared_close(first);
	ipc_shared_close(second);
	ipc_shared_close(third);
}

/* M-60, M-61: data that failed its checks, told by every call of every handle from then on. */
Test(memory, a_corrupt_channel_stays_corrupt_for_everybody)
{
	ipc_watch_producer *producer = producer_new("a");
	struct channel_header *header = ((struct endpoint *)producer)->header;
	ipc_watch_consumer *consumer, *late;
	struct ipc_channel_info info;
	char value[8];
	int r;

	cr_assert_eq(consume(&consumer, "a", 0), 0);
	cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
	(void)header_break(header, HEADER_CORRUPT);

	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(ipc_watch_publish(producer, "y", 1), IPC_EBADMSG);
		cr_assert_eq(ipc_watch_read(consumer, value, sizeof(value), NULL, NULL),
			     IPC_EBADMSG);
	}
	r = consume(&late, "a", 0);
	if (r == 0) {
		r = ipc_watch_read(late, value, sizeof(value), NULL, NULL);
		ipc_watch_consumer_close(late);
	}
	cr_assert_eq(r, IPC_EBADMSG);

	cr_assert_eq(info_of("a", &info), 0, "it can still be looked at");
	cr_assert_eq(take_away("a", info.generation), 0);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);
}

/* M-62: a segment of another version, word size or mutex layout. */
Test(memory, a_segment_of_another_layout_is_refused)
{
	ipc_watch_producer *producer = producer_new("a");
	struct channel_header *header = ((struct endpoint *)producer)->header;
	ipc_watch_consumer *consumer = NULL;

	header->version += 1;
	cr_assert_eq(consume(&consumer, "a", 0), IPC_EPROTONOSUPPORT);
	header->version -= 1;
	header->word_size = 4;
	cr_assert_eq(consume(&consumer, "a", 0), IPC_EPROTONOSUPPORT);
	header->word_size = sizeof(void *);
	header->lock_stamp ^= 1;
	cr_assert_eq(consume(&consumer, "a", 0), IPC_EPROTONOSUPPORT);
	header->lock_stamp ^= 1;
	cr_assert_eq(consume(&consumer, "a", 0), 0);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* What the broker answers to a greeting: its result, or 0. */
static int greet(uint32_t version, uint32_t lock_stamp, uint32_t word_size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval limit = {WAIT_MS / 1000, 0};
	union message message;
	ssize_t n;
	int fd;

	message_init(&message, MESSAGE_HELLO, 1);
	message.hello.version_min = message.hello.version_max = version;
	message.hello.lock_stamp = lock_stamp;
	message.hello.word_size = word_size;
	message.hello.pid = getpid();

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, fixture_domain.address);
	cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(send(fd, &message, message.head.size, 0), (ssize_t)message.head.size);
	n = recv(fd, &message, sizeof(message), 0);
	close(fd);
	cr_assert_gt(n, 0);
	cr_assert_eq(message_check_reply(&message, (size_t)n), 0);
	return message.head.result;
}

/* M-62 */
Test(memory, the_broker_refuses_processes_that_do_not_fit)
{
	cr_assert_eq(greet(PROTOCOL_VERSION, lock_layout_stamp(), sizeof(void *)), 0);
	cr_assert_eq(greet(PROTOCOL_VERSION + 1, lock_layout_stamp(), sizeof(void *)),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(greet(PROTOCOL_VERSION, lock_layout_stamp() ^ 1, sizeof(void *)),
		     IPC_EPROTONOSUPPORT);
	cr_assert_eq(greet(PROTOCOL_VERSION, lock_layout_stamp(), 4), IPC_EPROTONOSUPPORT);
}
