/* SPDX-License-Identifier: MIT */
#include "broker/state.h"

#include <ipc/error.h>
#include <time.h>

#include "broker/fences.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/segment.h"

/*
 * Death: a state is complete before its descriptor is stored, so the next worker finds a whole one
 * or none.  The counter of ids is moved before the id is used; a worker that dies in between wastes
 * a number.
 */

/* 64 numbers a millisecond since 2020 last for 139 years in 48 bits, and nobody opens faster than
 * that for long. */
#define EPOCH_S   INT64_C(1577836800)
#define IDS_PER_S UINT64_C(64000)
#define NS_PER_ID UINT64_C(15625)
#define ID_BITS   48

static uint64_t id_of_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec < EPOCH_S)
		return 1;

	return (uint64_t)(now.tv_sec - EPOCH_S) * IDS_PER_S + (uint64_t)now.tv_nsec / NS_PER_ID + 1;
}

int state_new(struct state **ret, int *ret_fd)
{
	uint64_t size = segment_round(sizeof(struct state));
	struct state *state;
	void *address;
	int fd = -1;
	int r;

	r = segment_new_sealed(&fd, "ipc-state", size);
	if (r < 0)
		return r;

	r = segment_map(&address, fd, 0, size, true);
	if (r < 0) {
		fd_close(fd);
		return r;
	}

	state = address;
	state->size = sizeof(*state);
	state->domain_start = id_of_now();
	fences_init(state);
	atomic_store_explicit(&state->next, state->domain_start, memory_order_relaxed);
	state->magic = STATE_MAGIC;

	*ret = state;
	*ret_fd = fd;
	return 0;
}

int state_attach(struct state **ret, int fd)
{
	uint64_t size = segment_round(sizeof(struct state));
	uint64_t inode, real_size;
	struct state *state;
	void *address;
	int r;

	r = segment_inode(fd, &inode, &real_size);
	if (r < 0)
		return r;

	if (real_size != size)
		return IPC_EBADMSG;

	r = segment_map(&address, fd, 0, size, true);
	if (r < 0)
		return r;

	state = address;
	if (state->magic != STATE_MAGIC || state->size != sizeof(*state)) {
		segment_unmap(address, size);
		return IPC_EBADMSG;
	}

	*ret = state;
	return 0;
}

void state_detach(struct state *state)
{
	if (state)
		segment_unmap(state, segment_round(sizeof(*state)));
}

uint64_t state_next_id(struct state *state)
{
	uint64_t id = atomic_fetch_add_explicit(&state->next, 1, memory_order_relaxed) + 1;

	return id & ((UINT64_C(1) << ID_BITS) - 1);
}

uint64_t state_handle_id(struct state *state, uint32_t slot)
{
	return state_next_id(state) << (64 - ID_BITS) | slot;
}
