/* SPDX-License-Identifier: MIT */

/*
 * A shared value whose memory somebody else wrote: the input is the segment, the mutex's bytes
 * included, behind a header that is made to fit (unless the first byte says otherwise).  Whatever
 * it holds, every operation comes back with a result of the table, nobody touches a byte outside,
 * and the lock is not held in the end.
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/admin.h>
#include <ipc/error.h>

#include "libipc/channel/shared.h"
#include "libipc/platform/clock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VALUE_SIZE = 96, SIZE_MAX_SEGMENT = sizeof(struct shared_segment) + 2 * 128 };

/* The first byte of an input. */
enum { IN_PLACE = 1, RAW_HEADER = 2, WHOLE_LOCK = 4 };

static _Atomic uint32_t attention, cancel_word, cancelled;
static struct desk_cell cell;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static struct waiter make_waiter(struct shared_segment *segment, uint64_t deadline_ns)
{
	return (struct waiter){
		.event = &segment->event,
		.attention = &attention,
		.cancel_word = &cancel_word,
		.handle_cancelled = &cancelled,
		.client_cancelled = &cancelled,
		.cell = &cell,
		.deadline_ns = deadline_ns,
		.ignores_signals = true, /* the fuzzer has a timer of its own */
	};
}

static void require_lock_result(const struct shared *shared, int r)
{
	require(r == 0 || r == 1 || r == IPC_EBUSY || r == IPC_ETIMEDOUT || r == IPC_EDEADLK ||
		r == IPC_EPIPE || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE);
	require(shared_is_mine(shared) == (r >= 0));
}

static void require_end_result(const struct shared *shared, int r)
{
	require(r == 0 || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE);
	require(!shared_is_mine(shared));
}

static void read_all(const void *value)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < VALUE_SIZE; ++i)
		sum += ((const volatile unsigned char *)value)[i];
	(void)sum;
}

static bool holds(const void *value, uint64_t size, void *userdata)
{
	(void)userdata;
	require(size == VALUE_SIZE);
	read_all(value);
	return *(const unsigned char *)value & 1;
}

static int end(void *userdata)
{
	(void)userdata;
	return 0;
}

/* What a holder does; how it ends differs. */
static void hold(struct shared *shared, int r, bool commits)
{
	void *copy;

	require_lock_result(shared, r);
	if (r < 0)
		return;

	read_all(shared_value(shared));
	if (r == 1) {
		r = shared_mark_consistent(shared);
		require(r == 0 || r == IPC_EINVAL);
	}
	r = shared_edit(shared, &copy);
	require(r == 0 || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE);
	if (r == 0)
		memset(copy, 0x5a, VALUE_SIZE);

	require_end_result(shared, commits ? shared_commit(shared) : shared_unlock(shared));
}

static void use(struct shared *shared)
{
	const struct shared_condition condition = {.holds = holds, .end = end};
	struct waiter waiter = make_waiter(shared->segment, clock_after_ns(NS_PER_MS));
	int r;

	hold(shared, shared_lock_try(shared), true);
	hold(shared, shared_lock_wait(shared, &waiter), false);

	waiter = make_waiter(shared->segment, 0);
	hold(shared, shared_lock_when_wait(shared, &waiter, &condition), true);
	waiter = make_waiter(shared->segment, clock_after_ns(NS_PER_MS));
	hold(shared, shared_lock_when_wait(shared, &waiter, &condition), false);

	r = shared_mark_consistent(shared);
	require(r == IPC_EINVAL);
	r = shared_shutdown(shared);
	require(r == 0 || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE);
	hold(shared, shared_lock_try(shared), true);

	/* A close in the middle. */
	r = shared_lock_try(shared);
	require_lock_result(shared, r);
	shared_drop(shared);
	require(!shared_is_mine(shared));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned how = size ? data[0] : 0;
	const uint64_t shape[4] = {VALUE_SIZE,
				   how & IN_PLACE ? SHARED_IN_PLACE : SHARED_TRANSACTIONAL};
	uint64_t segment_size = shared_segment_size(shape[0], shape[1]);
	struct shared_segment *segment;
	struct shared shared;
	size_t offset = how & RAW_HEADER ? 0 : offsetof(struct channel_header, broken);

	require(segment_size <= SIZE_MAX_SEGMENT);
	segment = aligned_alloc(64, segment_size);
	require(segment);
	memset(segment, 0, segment_size);
	require(shared_make(segment, segment_size, shape, 0) == 0);

	if (size)
		++data, --size;
	for (size_t i = 0; i < size && offset + i < segment_size; ++i) {
		size_t at = offset + i;

		if (how & WHOLE_LOCK && at >= offsetof(struct shared_segment, lock) &&
		    at < offsetof(struct shared_segment, event))
			continue;
		((unsigned char *)segment)[at] = data[i];
	}

	if (shared_attach(&shared, segment, segment_size, shape, 7) == 0)
		use(&shared);

	free(segment);
	return 0;
}
