/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_HEADER_H
#define LIBIPC_CORE_HEADER_H

/*
 * The first 256 bytes of every channel's segment.
 *
 * field            written by            rule
 * magic ... shape  creator               never change after the channel was confirmed
 * broken           anybody who may write 0, or the reason for ever: HEADER_CORRUPT, HEADER_GIVEN_UP
 * is_shut_down     anybody who may write 0, then 1 for ever
 * holder_id        holder of the lock    handle id while held; 0 else.  Stale after a death until
 * the next holder: a hint for people holder_since     holder of the lock    CLOCK_MONOTONIC ns
 *
 * The creator may die inside header_init(): the channel is not confirmed then, and the next one
 * writes all of it again.
 */

#include <stdatomic.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"

#define HEADER_MAGIC   UINT32_C(0x43504934)
#define HEADER_VERSION 1

enum header_broken { HEADER_WHOLE = 0, HEADER_CORRUPT = 1, HEADER_GIVEN_UP = 2 };

struct channel_header {
	_Alignas(64) uint32_t magic;
	uint16_t version;
	uint8_t word_size; /* sizeof(void *) */
	uint8_t kind;      /* enum ipc_kind */
	uint32_t lock_stamp;
	uint32_t reserved0;
	uint64_t size; /* of the whole segment */
	uint64_t shape[4];
	uint64_t reserved1;
	_Alignas(64) _Atomic uint32_t broken;
	_Atomic uint32_t is_shut_down;
	uint64_t reserved2[7];
	_Alignas(64) _Atomic uint64_t holder_id;
	_Atomic uint64_t holder_since;
	uint64_t reserved3[6];
	uint64_t reserved4[8];
};
ASSERT_SIZE(struct channel_header, 256);
ASSERT_OFFSET(struct channel_header, broken, 64);
ASSERT_OFFSET(struct channel_header, holder_id, 128);

void header_init(struct channel_header *header, unsigned kind, uint64_t size,
		 const uint64_t shape[4]);

/* Attach check. 0; IPC_EPROTONOSUPPORT: another version, word size or mutex layout; IPC_EBADMSG:
 * not such a segment. */
int header_check(const struct channel_header *header, unsigned kind, uint64_t size,
		 const uint64_t shape[4]);

/* 0, IPC_EBADMSG or IPC_ENOTRECOVERABLE. */
int header_fault_of(uint32_t broken);

static inline int header_fault(const struct channel_header *header)
{
	uint32_t broken = atomic_load_explicit(&header->broken, memory_order_relaxed);

	return LIKELY(broken == HEADER_WHOLE) ? 0 : header_fault_of(broken);
}

/* First reason wins; returns what header_fault() says from now on. */
int header_break(struct channel_header *header, enum header_broken reason);

#endif
