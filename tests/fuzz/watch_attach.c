/* SPDX-License-Identifier: MIT */

/*
 * A watch whose memory somebody else wrote: the input is the segment, byte for byte behind a header
 * that is made to fit, so that the inputs get past the attach check (and, by the first byte, also
 * as they are).  Whatever it holds, every operation comes back, with a result of the table, and
 * nobody reads or writes outside.
 */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/admin.h>

#include "libipc/channel/watch.h"
#include "libipc/platform/clock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VALUE_SIZE_MAX = 100, HOLDER = 7 };

static const uint64_t shape[4] = {VALUE_SIZE_MAX, 4};
static struct eventcount lines[2];
static _Atomic uint32_t attention, cancel_word, handle_cancelled, client_cancelled;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void read_once(const struct watch *watch, uint64_t newer_than, size_t buffer_size)
{
	unsigned char *buffer = malloc(buffer_size ? buffer_size : 1);
	uint64_t size = 0, version = 0;
	int r;

	require(buffer);
	r = watch_read(watch, newer_than, buffer, buffer_size, &size, &version);
	require(r == 0 || r == IPC_EAGAIN || r == IPC_EMSGSIZE || r == IPC_EBADMSG ||
		r == IPC_ENOTRECOVERABLE);
	if (r == 0)
		require(size <= buffer_size && version > newer_than);
	if (r == IPC_EMSGSIZE)
		require(size > buffer_size && size <= VALUE_SIZE_MAX);
	free(buffer);
}

static void require_producer_result(int r)
{
	require(r == 0 || r == IPC_EBUSY || r == IPC_EPIPE || r == IPC_ETIMEDOUT ||
		r == IPC_EDEADLK || r == IPC_EBADMSG || r == IPC_ENOTRECOVERABLE);
}

static void produce(struct watch *watch)
{
	unsigned char value[VALUE_SIZE_MAX] = {1, 2, 3};
	struct waiter waiter = {
		.event = &lines[WATCH_CONSUMERS],
		.attention = &attention,
		.cancel_word = &cancel_word,
		.handle_cancelled = &handle_cancelled,
		.client_cancelled = &client_cancelled,
	};
	struct value_edit edit;
	uint64_t size = 0;
	int r;

	require_producer_result(watch_publish(watch, value, sizeof(value)));
	read_once(watch, 0, sizeof(value));

	r = watch_edit_wait(watch, &waiter, HOLDER, &edit, &size);
	require_producer_result(r);
	if (r == 0) {
		require(size <= VALUE_SIZE_MAX);
		memset(value_data(&watch->value, &edit), 0xee, VALUE_SIZE_MAX);
		r = watch_commit(watch, &edit, VALUE_SIZE_MAX);
		require_producer_result(r);
		if (r < 0)
			watch_abort(watch);
	}

	require_producer_result(watch_publish_wait(watch, &waiter, value, 0));
	watch_shutdown(watch);
	r = watch_publish(watch, value, 1);
	require_producer_result(r);
	require(r != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t segment_size = watch_size(shape);
	/* Exactly as large as it says, so that the sanitizer sees the first byte beyond. */
	unsigned char *segment = aligned_alloc(64, (segment_size + 63) & ~UINT64_C(63));
	struct watch watch;
	size_t kept, n;

	require(segment);
	require(watch_make(segment, segment_size, shape, 0) == 0);
	if (size == 0) {
		free(segment);
		return 0;
	}

	/*
	 * The lowest two bits: from where on the input covers the segment.  0, from the value on,
	 * since a broken lock or gate ends most calls right there.
	 */
	kept = (const size_t[]){offsetof(struct watch_segment, control),
				offsetof(struct watch_segment, gate),
				offsetof(struct watch_segment, lock), 0}[data[0] & 3];
	n = size - 1 < segment_size - kept ? size - 1 : segment_size - kept;
	memcpy(segment + kept, data + 1, n);
	eventcount_init(&lines[0]);
	eventcount_init(&lines[1]);

	if (watch_attach(&watch, segment, segment_size, shape, lines) == 0) {
		read_once(&watch, 0, VALUE_SIZE_MAX);
		read_once(&watch, 0, 0);
		read_once(&watch, 5, 8);
		read_once(&watch, UINT64_MAX, 8);
		(void)watch_end(&watch);
		produce(&watch);
		read_once(&watch, 0, VALUE_SIZE_MAX);
	}

	free(segment);
	return 0;
}
