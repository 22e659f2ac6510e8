/* SPDX-License-Identifier: MIT */
#include "libipc/core/header.h"

#include <string.h>

#include <ipc/error.h>

#include "libipc/platform/lock.h"

void header_init(struct channel_header *header, unsigned kind, uint64_t size,
		 const uint64_t shape[4])
{
	memset(header, 0, sizeof(*header));
	header->magic = HEADER_MAGIC;
	header->version = HEADER_VERSION;
	header->word_size = sizeof(void *);
	header->kind = (uint8_t)kind;
	header->lock_stamp = lock_layout_stamp();
	header->size = size;
	memcpy(header->shape, shape, sizeof(header->shape));
}

/*
 * The fields never change after the confirmation, but a wild store may change them at any time:
 * each is read once here and nobody reads it again.  What is used afterwards is the broker's word
 * for shape and size.
 */
int header_check(const struct channel_header *header, unsigned kind, uint64_t size,
		 const uint64_t shape[4])
{
	const volatile struct channel_header *shared = header;

	if (size < sizeof(*header) || shared->magic != HEADER_MAGIC)
		return IPC_EBADMSG;
	if (shared->version != HEADER_VERSION || shared->word_size != sizeof(void *) ||
	    shared->lock_stamp != lock_layout_stamp())
		return IPC_EPROTONOSUPPORT;
	if (shared->kind != kind || shared->size > size)
		return IPC_EBADMSG;

	for (unsigned i = 0; i < 4; ++i) {
		if (shared->shape[i] != shape[i])
			return IPC_EBADMSG;
	}

	return 0;
}

int header_fault_of(uint32_t broken)
{
	switch (broken) {
	case HEADER_WHOLE:
		return 0;
	case HEADER_GIVEN_UP:
		return IPC_ENOTRECOVERABLE;
	default:
		return IPC_EBADMSG;
	}
}

int header_break(struct channel_header *header, enum header_broken reason)
{
	uint32_t was = HEADER_WHOLE;

	if (atomic_compare_exchange_strong_explicit(&header->broken, &was, (uint32_t)reason,
						    memory_order_relaxed, memory_order_relaxed))
		was = (uint32_t)reason;

	return header_fault_of(was);
}
