/* SPDX-License-Identifier: MIT */

/*
 * A session whose memory somebody else wrote.  The input pokes words into a session in which some
 * messages wait, some are claimed and a note is left, then says which calls follow, at either end.
 * Whatever stands there, every call comes back with a result of the table, and nobody touches a
 * byte outside.
 *
 * byte 0     flags: see below
 * byte 1     number of pokes, each of 11 bytes: region, offset (2, little endian, in words),
 *            value (8, little endian); the rest of them come between the calls
 * the rest   calls, one a byte: which in the low 4 bits, more about it in the others
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/channel/session_inside.h"
#include "libipc/platform/fdpass.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CAPACITY = 4096, LARGEST = 1000, N_REGIONS = 7, N_KEPT = 4 };
enum { IS_EMPTY = 1, OTHER_LIVES = 2, SIDE = 4 };

static const uint64_t shape[4] = {CAPACITY, LARGEST, 0, 0};
static struct liveness_table *table;
static struct eventcount lines[2];
static struct session_layout layout;
static struct channel_header *segment;
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
	const uint64_t rings = SESSION_SHARED_OFFSET + offsetof(struct session_shared, ring);
	const struct region regions[N_REGIONS] = {
		{0, sizeof(struct channel_header)},
		{SESSION_SHARED_OFFSET, 64},
		{rings, sizeof(struct ring)},
		{rings + sizeof(struct ring), sizeof(struct ring)},
		{layout.data[0], 512},
		{layout.data[1], 512},
		{layout.data[0], layout.size - layout.data[0]},
	};
	struct region region = regions[input_take(input, 1) % N_REGIONS];
	uint64_t word = input_take(input, 2), value = input_take(input, 8);

	memcpy((unsigned char *)segment + region.offset + word % (region.size / 8) * 8, &value,
	       sizeof(value));
}

/* ---- calls ---- */

struct party {
	struct session view;
	struct ipc_session_message message[N_KEPT];
	void *claim[N_KEPT];
	uint64_t claimed[N_KEPT];
};

static int party_open(struct party *party, unsigned side, uint64_t id, uint32_t process)
{
	int r;

	memset(party, 0, sizeof(*party));
	r = session_attach(&party->view, segment, layout.size, shape, side);
	if (r < 0)
		return r;
	liveness_handle_set(table, LIVENESS_SLOT(id), id);
	party->view.table = table;
	party->view.pair_fd = pair[side];
	party->view.lines = lines;
	return session_begin(&party->view, id, process);
}

static void require_result(int r)
{
	require(r >= 0 || r == IPC_EAGAIN || r == IPC_EINVAL || r == IPC_ESTALE ||
		r == IPC_EMSGSIZE || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE ||
		r == IPC_EBUSY || r == IPC_EMFILE);
}

static void call_receive(struct party *party, unsigned more)
{
	struct ipc_session_message messages[3];
	unsigned sum = 0;
	int n = session_receive_many(&party->view, messages, 1 + more % 3);

	require_result(n);
	for (int i = 0; i < n; ++i) {
		require(messages[i].size <= LARGEST);
		for (size_t k = 0; k < messages[i].size; ++k)
			sum += ((const volatile unsigned char *)messages[i].data)[k];
		(void)fd_close(messages[i].fd);
		party->message[more % N_KEPT] = messages[i];
	}
	(void)sum;
}

static void call_claim(struct party *party, unsigned more)
{
	unsigned i = more % N_KEPT;
	uint64_t size = more * 61u;

	if (party->claim[i])
		return;
	if (session_claim(&party->view, size, &party->claim[i]) < 0) {
		party->claim[i] = NULL;
		return;
	}
	memset(party->claim[i], 'c', size);
	party->claimed[i] = size;
}

static void call_commit(struct party *party, unsigned more)
{
	unsigned i = more % N_KEPT;
	void *data = party->claim[i];
	int r;

	if (more / 4 == 0)
		r = session_abort(&party->view, data);
	else if (more / 4 == 1)
		r = session_commit(&party->view, data, party->claimed[i]);
	else
		r = session_commit_release(&party->view, data, party->claimed[i] / 2,
					   &party->message[more % 3]);
	require_result(r);
	if (r == 0)
		party->claim[i] = NULL;
}

static bool read_segment(void *userdata, uint64_t offset, void *ret, size_t size)
{
	(void)userdata;
	require(offset <= layout.size && size <= layout.size - offset);
	memcpy(ret, (unsigned char *)segment + offset, size);
	return true;
}

static bool lives(void *userdata, uint64_t owner)
{
	(void)userdata;
	return owner & 1;
}

static void call_read(unsigned side)
{
	const struct session_read read = {.read = read_segment, .shape = shape};
	uint64_t sent, acknowledged, depth, depth_max;

	if (session_read_direction(&read, side, &sent, &acknowledged, &depth, &depth_max))
		require(depth <= depth_max && depth_max <= 2 * CAPACITY);
	(void)session_read_is_busy(&read, side, lives);
}

static void call(struct party *party, unsigned byte)
{
	static const unsigned char bytes[LARGEST];
	struct ipc_session_state state = {.size = sizeof(state)};
	struct session *view = &party->view;
	unsigned which = byte % 16, more = byte / 16;

	switch (which) {
	case 0:
	case 1:
		require_result(session_send(view, bytes, more * 66));
		break;
	case 2:
		require_result(session_send_fd(view, pair[0], bytes, more));
		break;
	case 3:
	case 4:
		call_claim(party, more);
		break;
	case 5:
	case 6:
	case 7:
		call_commit(party, more);
		break;
	case 8:
	case 9:
	case 10:
		call_receive(party, more);
		break;
	case 11:
	case 12:
		require_result(session_release(view, &party->message[more % N_KEPT]));
		break;
	case 13:
		require_result(session_probe_room(view));
		require_result(session_probe_message(view));
		break;
	case 14:
		require_result(session_get_state(view, &state));
		break;
	default:
		call_read(more % 2);
		(void)session_take(segment, SESSION_ACCEPTED);
		break;
	}
}

/* ---- what every input begins with ---- */

static void populate(struct party party[2])
{
	static const unsigned char bytes[LARGEST] = "bytes";
	void *data;

	for (unsigned s = 0; s < 2; ++s) {
		for (unsigned i = 0; i < 4; ++i)
			require(session_send(&party[s].view, bytes, i * 60) == 0);
		require(session_send_fd(&party[s].view, pair[0], bytes, 3) == 0);
	}
	for (unsigned s = 0; s < 2; ++s) {
		call_receive(&party[s], 2);
		require(session_claim(&party[s].view, 99, &data) == 0);
		require(session_commit_release(&party[s].view, data, 33, &party[s].message[2]) ==
			0);
		require(session_claim(&party[s].view, 200, &party[s].claim[0]) == 0);
		party[s].claimed[0] = 200;
		require(session_claim(&party[s].view, 100, &party[s].claim[1]) == 0);
		party[s].claimed[1] = 100;
	}
}

static void run(struct input *input)
{
	static struct party party[2], heir;
	unsigned flags = (unsigned)input_take(input, 1), n_pokes, side = !!(flags & SIDE);

	require(party_open(&party[0], 0, 0x10001, 0) == 0);
	require(party_open(&party[1], 1, 0x20002, 0) == 0);
	if (!(flags & IS_EMPTY))
		populate(party);
	n_pokes = (unsigned)input_take(input, 1) % 16;
	for (unsigned i = 0; i < n_pokes; ++i)
		poke(input);

	liveness_handle_set(table, 1 + side, 0);
	if (flags & OTHER_LIVES)
		liveness_handle_set(table, 1 + side, side ? 0x20002 : 0x10001);
	if (party_open(&heir, side, 0x30003, 0) == 0) {
		while (input->size > 0) {
			unsigned byte = (unsigned)input_take(input, 1);

			if (byte == 0xff)
				poke(input);
			else
				call(byte & 0x10 ? &party[byte >> 5 & 1] : &heir, byte);
		}
	}
	if (heir.view.header)
		session_leave(&heir.view);
	session_leave(&party[0].view);
	session_leave(&party[1].view);
}

static void drain(void)
{
	unsigned char packet[64];
	size_t size;

	for (unsigned s = 0; s < 2; ++s)
		while (fdpass_receive(pair[s], packet, sizeof(packet), &size, NULL, NULL) == 0)
			;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};

	if (!table) {
		table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		require(table != MAP_FAILED && session_layout(&layout, shape));
		liveness_table_init(table, 1000);
		require(process_mark_init() == 0);
		require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	}
	segment = aligned_alloc(64, layout.size);
	require(segment != NULL);
	memset((void *)segment, 0, layout.size);
	require(session_make(segment, layout.size, shape, 0) == 0);
	for (unsigned i = 1; i <= 3; ++i)
		liveness_handle_set(table, i, 0);

	run(&input);
	drain();
	free(segment);
	return 0;
}
