/* SPDX-License-Identifier: MIT */

/*
 * An inbox whose memory somebody else wrote.  The input pokes words into an inbox with a snapshot
 * and some frames in it, says who takes over which end, and then which calls follow, of the sender,
 * the receiver and an observer, and what comes through the socket.  Whatever stands there, every
 * call comes back with a result of the table, nobody touches a byte outside, and an observer
 * changes nothing.
 *
 * byte 0     flags: see below
 * byte 1     number of pokes, each of 11 bytes: region (in the second half of its values the value
 *            changes bits of what is there, else it replaces it), offset (2, little endian, in
 *            words), value (8, little endian)
 * the rest   calls, two bytes each: which, more about it.  0xff as the first one: a poke
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/channel/inbox.h"
#include "libipc/core/parcel.h"
#include "libipc/platform/fdpass.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	CAPACITY = 4096,
	LARGEST = 1000,
	N_REGIONS = 6,
	N_KEPT = 4,
	GENERATION = 7,
	CALLS_MAX = 400
};
enum { IS_EMPTY = 1, SENDER_LIVES = 2, RECEIVER_LIVES = 4, COLLAPSES = 8, IS_INSIDE = 16 };
enum { SENDER_STAYS = 32, RECEIVER_STAYS = 64 };

/* Of a call's first byte. */
enum { WHICH = 31, IS_WAITING = 32, OF_FIRST = 64 };

static uint64_t shape[4] = {CAPACITY, LARGEST, 0, 0};
static struct liveness_table *table;
static struct eventcount lines[2];
static struct channel_header *segment;
static unsigned char *copy;
static uint64_t segment_size;
static int pair[2];

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* ---- input ---- */

struct input {
	const uint8_t *data;
	size_t size;
};

static uint64_t input_take(struct input *input, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n && input->size > 0; ++i, ++input->data, --input->size)
		value |= (uint64_t)*input->data << (8 * i);
	return value;
}

struct region {
	uint64_t offset, size;
};

static void poke(struct input *input)
{
	const uint64_t ring = INBOX_SHARED_OFFSET + offsetof(struct inbox_shared, ring);
	const uint64_t data = INBOX_SHARED_OFFSET + sizeof(struct inbox_shared);
	const struct region regions[N_REGIONS] = {
		{0, sizeof(struct channel_header)},
		{INBOX_SHARED_OFFSET, offsetof(struct inbox_shared, ring)},
		{ring, 192},
		{ring, sizeof(struct ring)},
		{data, 512},
		{data, segment_size - data},
	};
	unsigned which = (unsigned)input_take(input, 1);
	struct region region = regions[which % N_REGIONS];
	uint64_t word = input_take(input, 2), value = input_take(input, 8), seen;
	unsigned char *at = (unsigned char *)segment + region.offset + word % (region.size / 8) * 8;

	memcpy(&seen, at, sizeof(seen));
	if (which >= 128)
		value ^= seen;
	memcpy(at, &value, sizeof(value));
}

/* ---- parties ---- */

static struct inbox_sender senders[2];
static struct inbox_receiver receivers[2];
static struct inbox observer;
static struct ipc_inbox_event kept[2][N_KEPT];
static void *claim[2];
static size_t claimed[2];

static int attach(struct inbox *inbox, unsigned side)
{
	int r = inbox_attach(inbox, segment, segment_size, shape);

	if (r < 0)
		return r;
	inbox->table = table;
	inbox->pair_fd = pair[side];
	inbox->lines = lines;
	return 0;
}

static void require_result(int r)
{
	require(r >= 0 || r == IPC_EAGAIN || r == IPC_EINVAL || r == IPC_ESTALE ||
		r == IPC_EMSGSIZE || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE ||
		r == IPC_EBUSY || r == IPC_EMFILE || r == IPC_EOVERFLOW || r == IPC_ECANCELED);
}

static int open_sender(unsigned i, uint64_t id)
{
	int r = attach(&senders[i].inbox, INBOX_SIDE_SENDER);

	if (r < 0) {
		require_result(r);
		senders[i].inbox.header = NULL;
		return r;
	}
	liveness_handle_set(table, LIVENESS_SLOT(id), id);
	r = inbox_begin_sender(&senders[i], id, 0);
	require_result(r);
	return r;
}

static int open_receiver(unsigned i, uint64_t id)
{
	int r = attach(&receivers[i].inbox, INBOX_SIDE_RECEIVER);

	if (r < 0) {
		require_result(r);
		receivers[i].inbox.header = NULL;
		return r;
	}
	liveness_handle_set(table, LIVENESS_SLOT(id), id);
	r = inbox_begin_receiver(&receivers[i], id, 0);
	require_result(r);
	return r;
}

/* ---- calls ---- */

static const unsigned char bytes[LARGEST + 1];

static void call_receive(unsigned who, unsigned more)
{
	static const int ends[4] = {0, IPC_EPIPE, IPC_EOWNERDEAD, 0};
	struct ipc_inbox_event events[3];
	unsigned sum = 0;
	int n = inbox_receive_many(&receivers[who], events, 1 + more % 3, ends[more / 3 % 4]);

	require_result(n);
	require(n != 0 && n <= 3);
	for (int i = 0; i < n; ++i) {
		require(events[i].type >= IPC_INBOX_BEGIN && events[i].type <= IPC_INBOX_GAP);
		require(!events[i].data || events[i].size <= (LARGEST + 15) / 16 * 16);
		for (size_t k = 0; events[i].data && k < events[i].size; ++k)
			sum += ((const volatile unsigned char *)events[i].data)[k];
		(void)fd_close(events[i].fd);
		kept[who][(more + (unsigned)i) % N_KEPT] = events[i];
	}
	(void)sum;
}

static void call_claim(unsigned who, unsigned more, bool waits)
{
	size_t size = more * 5u;
	void *data;
	int r = inbox_claim_frame(&senders[who], size, &data, waits);

	require_result(r);
	if (r < 0)
		return;
	memset(data, 'c', size);
	claim[who] = data;
	claimed[who] = size;
}

/* The offset that is expected, or near it. */
static uint64_t offset_near(unsigned who, unsigned more)
{
	return senders[who].out.number + (more % 8 == 7);
}

static void call_commit(unsigned who, unsigned more)
{
	int r;

	if (more % 4 == 0)
		r = inbox_abort_frame(&senders[who], claim[who]);
	else
		r = inbox_commit_frame(&senders[who], offset_near(who, more), claim[who],
				       claimed[who] / (more % 4));
	require_result(r);
}

/* What a peer may put into the socket. */
static void call_packet(unsigned side, unsigned more)
{
	uint64_t words[3] = {more, more >> 4, more * UINT64_C(0x0001000100010001)};

	if (more % 2)
		(void)!send(pair[side], words, more % (sizeof(words) + 1), MSG_DONTWAIT);
	else
		(void)!parcel_send(pair[side], pair[side], more / 2, more % 8);
}

static void call_observe(unsigned more)
{
	struct ipc_inbox_positions at = {.size = sizeof(at)};
	int r;

	memcpy(copy, segment, segment_size);
	r = inbox_get_positions(&observer, &at);
	require_result(r);
	if (r == 0)
		require(at.depth <= (observer.view.mask + 1) * RING_UNIT &&
			at.depth <= at.depth_max);
	require_result(inbox_probe_applied(&observer, more % 2 ? at.generation : 0,
					   at.written + more / 2));
	require(memcmp(copy, segment, segment_size) == 0);
}

static void call_sender(unsigned who, unsigned which, unsigned more, bool waits)
{
	struct inbox_sender *sender = &senders[who];
	uint64_t served = more;

	switch (which) {
	case 0:
	case 1:
		require_result(
			inbox_send_frame(sender, offset_near(who, more), bytes, more * 4u, waits));
		break;
	case 2:
		call_claim(who, more, waits);
		break;
	case 3:
	case 4:
		call_commit(who, more);
		break;
	case 5:
		require_result(inbox_begin_snapshot(sender, more % 16 ? more : UINT64_MAX, waits));
		break;
	case 6:
		require_result(inbox_send_chunk(sender, bytes, more * 4u, waits));
		break;
	case 7:
		require_result(
			inbox_send_chunk_fd(sender, more % 16 ? pair[0] : -1, more, 10, waits));
		break;
	case 8:
		require_result(inbox_end_snapshot(sender, sender->out.number + more - 1, waits));
		break;
	case 9:
		require_result(inbox_abort_snapshot(sender));
		break;
	case 10:
		require_result(inbox_probe_wanted(sender, &served));
		(void)inbox_is_requested(sender);
		require_result(inbox_probe_room(sender));
		break;
	default:
		if (more % 8 == 0)
			inbox_close_sender(sender);
		break;
	}
}

static void call_mark(unsigned who, unsigned more)
{
	struct ipc_inbox_event event = kept[who][more % N_KEPT];

	/* A token is the caller's to damage. */
	if (more >= 128)
		event.token += more / 4 % 32;
	require_result(inbox_mark_applied(&receivers[who], &event));
}

static void call(struct input *input, unsigned byte)
{
	unsigned which = byte & WHICH, more = (unsigned)input_take(input, 1);
	unsigned who = byte & OF_FIRST ? 0 : 1;

	switch (which) {
	case 16:
	case 17:
	case 18:
	case 19:
		call_receive(who, more);
		break;
	case 20:
	case 21:
	case 22:
		call_mark(who, more);
		break;
	case 23:
		require_result(inbox_probe_event(&receivers[who], more % 2 ? IPC_EPIPE : 0));
		break;
	case 24:
		require_result(inbox_request_snapshot(&receivers[who]));
		break;
	case 25:
	case 26:
		call_observe(more);
		break;
	case 27:
		call_packet(byte & IS_WAITING ? 1 : 0, more);
		break;
	default:
		call_sender(who, which % 16, more, byte & IS_WAITING);
		break;
	}
}

/* ---- what every input begins with ---- */

static void populate(bool is_inside)
{
	struct inbox_sender *sender = &senders[0];
	uint64_t offset = 100;

	require(inbox_begin_snapshot(sender, GENERATION, true) == 0);
	require(inbox_send_chunk(sender, bytes, 100, true) == 0);
	require(inbox_send_chunk_fd(sender, pair[0], 3, 10, true) == 0);
	require(inbox_end_snapshot(sender, offset, true) == 0);
	for (; offset < 104; ++offset)
		require(inbox_send_frame(sender, offset, bytes, offset % 4 * 60, true) == 0);
	for (unsigned i = 0; i < 3; ++i)
		call_receive(0, 1);
	require(inbox_mark_applied(&receivers[0], &kept[0][1]) == 0);
	call_claim(0, 20, true);
	require(claim[0] != NULL);
	if (!is_inside)
		return;

	require(inbox_abort_frame(sender, claim[0]) == 0);
	require(inbox_begin_snapshot(sender, GENERATION + 1, true) == 0);
	require(inbox_send_chunk(sender, bytes, 50, true) == 0);
	require(inbox_send_chunk_fd(sender, pair[0], 3, 10, true) == 0);
	call_receive(0, 2);
}

/* The heirs; without one the first stays in its place. */
static bool inherit(unsigned flags)
{
	bool is_open = true;

	if (!(flags & SENDER_STAYS)) {
		if (!(flags & SENDER_LIVES))
			liveness_handle_set(table, 1, 0);
		is_open = open_sender(1, 0x30003) == 0;
	}
	if (!(flags & RECEIVER_STAYS)) {
		if (!(flags & RECEIVER_LIVES))
			liveness_handle_set(table, 2, 0);
		is_open = open_receiver(1, 0x40004) == 0 && is_open;
	}
	return is_open;
}

static void run(struct input *input)
{
	unsigned flags = (unsigned)input_take(input, 1), n_pokes;

	require(open_sender(0, 0x10001) == 0 && open_receiver(0, 0x20002) == 0);
	require(attach(&observer, INBOX_SIDE_RECEIVER) == 0);
	if (!(flags & IS_EMPTY))
		populate(flags & IS_INSIDE);
	n_pokes = (unsigned)input_take(input, 1) % 16;
	for (unsigned i = 0; i < n_pokes; ++i)
		poke(input);
	call_observe(1);
	if (!inherit(flags))
		return;

	for (unsigned n = 0; input->size > 0 && n < CALLS_MAX; ++n) {
		unsigned byte = (unsigned)input_take(input, 1);
		bool is_receivers = (byte & WHICH) >= 16 && (byte & WHICH) < 25;

		if (byte == 0xff) {
			poke(input);
			continue;
		}
		if (flags & (is_receivers ? RECEIVER_STAYS : SENDER_STAYS))
			byte |= OF_FIRST;
		call(input, byte);
	}
}

static void leave(void)
{
	for (unsigned i = 0; i < 2; ++i) {
		if (senders[i].inbox.header)
			inbox_leave_sender(&senders[i]);
		if (receivers[i].inbox.header)
			inbox_leave_receiver(&receivers[i]);
	}
	for (unsigned s = 0; s < 2; ++s)
		pair[s] = fd_close(pair[s]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};

	if (!table) {
		table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		require(table != MAP_FAILED);
		liveness_table_init(table, 1000);
		require(process_mark_init() == 0);
	}
	require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	shape[2] =
		size > 0 && (data[0] & COLLAPSES) ? IPC_INBOX_FULL_COLLAPSE : IPC_INBOX_FULL_FAIL;
	segment_size = inbox_segment_size(shape);
	segment = aligned_alloc(64, (segment_size + 63) / 64 * 64);
	copy = malloc(segment_size);
	require(segment != NULL && copy != NULL);
	memset((void *)segment, 0, segment_size);
	memset((void *)senders, 0, sizeof(senders));
	memset((void *)receivers, 0, sizeof(receivers));
	memset(kept, 0, sizeof(kept));
	memset(claim, 0, sizeof(claim));
	require(inbox_make(segment, segment_size, shape, 0) == 0);
	for (unsigned i = 1; i <= 4; ++i)
		liveness_handle_set(table, i, 0);

	run(&input);
	leave();
	free(copy);
	free(segment);
	return 0;
}
