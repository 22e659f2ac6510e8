/* SPDX-License-Identifier: MIT */

/*
 * A limiter whose memory somebody else wrote: the input is a list of words and the places that they
 * are written to, in the middle of a limiter with a holder, a waiter and a dead one.  Whatever it
 * holds, every operation comes back with a result of the table, and nobody touches a byte outside.
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/channel/limiter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_PERMITS = 4, DEAD = 10, HOLDER, WAITER, N_PLACES = 64 };

static struct liveness_table *table;
static struct limiter_segment *segment, *whole;
static struct limiter holder, waiter;
static struct limiter_part held, waiting;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void enter(struct limiter *view, uint64_t id, const uint64_t shape[4], uint32_t *ret_seat)
{
	uint32_t row;

	liveness_handle_set(table, (uint32_t)id, id);
	require(limiter_attach(view, segment, sizeof(*segment), shape, id) == 0);
	view->table = table;
	view->uid = 1000;
	require(limiter_row_take(view, &row));
	*ret_seat = row * SEATS_PER_ROW;
}

/* Once: what every input begins with. */
static void prepare(const uint64_t shape[4])
{
	struct limiter_denial denial;
	struct limiter dead;
	struct limiter_part part = {.permits = 1};

	table = calloc(1, sizeof(*table));
	segment = aligned_alloc(64, sizeof(*segment));
	whole = aligned_alloc(64, sizeof(*whole));
	require(table && segment && whole);
	memset(segment, 0, sizeof(*segment));
	require(limiter_make(segment, sizeof(*segment), shape, 0) == 0);

	enter(&dead, DEAD, shape, &part.seat);
	enter(&holder, HOLDER, shape, &held.seat);
	enter(&waiter, WAITER, shape, &waiting.seat);
	held.permits = 2;
	waiting.permits = 3;
	require(limiter_acquire(&dead, &part, &denial) == 0);
	require(limiter_acquire(&holder, &held, &denial) == 0);
	require(limiter_queue(&waiter, &waiting, 0, &denial) == 1);
	liveness_handle_set(table, DEAD, 0);
	memcpy(whole, segment, sizeof(*whole));
}

/* Half of the places are where it matters. */
static void scribble(const uint8_t *data, size_t size)
{
	for (unsigned n = 0; size >= 11 && n < N_PLACES; ++n, data += 11, size -= 11) {
		size_t offset = (size_t)data[1] << 8 | data[2];
		size_t at;

		switch (data[0] % 6) {
		case 0:
			at = offsetof(struct limiter_segment, head);
			break;
		case 1:
			at = offsetof(struct limiter_segment, state) + offset % (4 * 8 * 8);
			break;
		case 2:
			at = offsetof(struct limiter_segment, cell) +
			     offset % (4 * 8 * sizeof(struct limiter_cell));
			break;
		case 3:
			at = offsetof(struct limiter_segment, seats) + offset;
			break;
		case 4:
			at = offsetof(struct channel_header, broken) + offset % 512;
			break;
		default:
			at = offset * 40;
		}
		if (at > sizeof(*segment) - 8)
			at = sizeof(*segment) - 8;
		memcpy((unsigned char *)segment + at, data + 3, 8);
	}
}

static void require_result(int r)
{
	require(r == 0 || r == IPC_EAGAIN || r == IPC_EBUSY || r == IPC_EDQUOT || r == IPC_ESTALE ||
		r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE);
}

static void use(void)
{
	struct limiter_part waits = waiting, holds = held, part = {.permits = 1};
	struct limiter_denial denial;
	struct ipc_limiter_state state;
	int r;

	r = limiter_get_state(&holder, &state);
	require_result(r);
	require(r < 0 || (state.n_free <= N_PERMITS && state.n_held <= N_PERMITS));
	require_result(limiter_look(&waiter, &waits, &denial));
	part.seat = held.seat + 1;
	r = limiter_acquire(&holder, &part, &denial);
	require_result(r);
	if (r == 0)
		require_result(limiter_release(&holder, &part, true));
	require_result(limiter_probe(&holder, &denial));
	require_result(limiter_release(&holder, &holds, true));
	(void)limiter_give_up(&waiter, &waits);
	(void)limiter_holder(&waiter);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t shape[4] = {N_PERMITS, 3, 1000, UINT64_C(3600000000000)};
	struct limiter view;

	if (!segment)
		prepare(shape);
	memcpy(segment, whole, sizeof(*segment));
	scribble(data, size);

	if (limiter_attach(&view, segment, sizeof(*segment), shape, HOLDER) == 0)
		use();
	return 0;
}
