/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_LIVENESS_H
#define LIBIPC_CORE_LIVENESS_H

/*
 * Who is there: the two segments of each uid through which the broker tells ends, and clients tell
 * what they wait for.
 *
 * The *table* of an owner uid is written by the broker alone and mapped read-only by every client
 * with a channel of that owner.
 *
 * part         index          written when
 * domain       -              DOMAIN_ENDED at an orderly end
 * attention[]  client slot    +1 and wake-all: something ended or began that its handles look at
 * side[][2]    channel slot   one 64-bit store per change of a side: see SIDE_...
 * handle[]     handle slot    the handle's id while it is open; with LIVENESS_OVERTAKEN until its
 *                             client has heard that it is not; else 0
 *
 * The order of telling an end is: handle word, side word, attention words; a reader that was woken
 * therefore finds what it was woken for.  All three are idempotent: a worker that died in between
 * is replaced by one that does all of them again.  The attention word is bumped in the table of the
 * channel's owner, then in the client's own uid's: who waits for channels of several owners needs
 * to sleep on one word only.
 *
 * The *desk* of a uid is written by the clients of that uid (one trust domain) and only ever
 * pread() by the broker.
 *
 * part         index          written by      rule
 * client[]     client slot    that client     closings grows when a CLOSE or TAKEN could not be
 *                                             sent: the broker looks at the cells
 * cell[]       handle slot    that client     closed_id: the handle of this id is closed (an id:
 *                                             the slot may have a new tenant)
 * line[][2]    channel slot   everybody       event counts for kinds whose segment some role maps
 *                                             read-only
 *
 * Both are sparse: pages that nobody touched take no memory.  Slots are numbers of the whole
 * domain.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libipc/core/eventcount.h"
#include "libipc/platform/compiler.h"

#define LIVENESS_CLIENTS_MAX  8192
#define LIVENESS_CHANNELS_MAX 16384
#define LIVENESS_HANDLES_MAX  65536

#define LIVENESS_MAGIC UINT64_C(0x3130766c63706969)

/* A handle id grows for ever; its low 16 bits are the handle's slot. */
#define LIVENESS_SLOT(handle_id) ((uint32_t)((handle_id) & (LIVENESS_HANDLES_MAX - 1)))

/* Or'ed to it: another handle has taken the end over, and the client has not closed this one. */
#define LIVENESS_OVERTAKEN (UINT64_C(1) << 63)

/*
 * The word of one side of one channel, always stored whole.
 * bits 63..32  ends: how often the side went from present to gone (or ended finally); never goes
 * back while the slot lives bits 31..8   count: counted handles that are open now
 */
#define SIDE_EVER                                                                                  \
	UINT64_C(0x01) /* somebody was there since the channel was made: gone is not awaited */
#define SIDE_DIED  UINT64_C(0x02) /* the last end was a death, else a close */
#define SIDE_FINAL UINT64_C(0x04) /* nobody will ever come again */
#define SIDE_FLAGS UINT64_C(0xff)

static inline uint32_t side_ends(uint64_t side)
{
	return (uint32_t)(side >> 32);
}

static inline uint32_t side_count(uint64_t side)
{
	return (uint32_t)(side >> 8) & 0xffffff;
}

static inline bool side_is_gone(uint64_t side)
{
	return side_count(side) == 0 && (side & (SIDE_EVER | SIDE_FINAL));
}

static inline uint64_t side_make(uint32_t ends, uint32_t count, uint64_t flags)
{
	return (uint64_t)ends << 32 | (uint64_t)(count & 0xffffff) << 8 | (flags & SIDE_FLAGS);
}

enum domain_state { DOMAIN_RUNNING = 1, DOMAIN_ENDED = 2 };

struct liveness_attention {
	_Alignas(64) _Atomic uint32_t word;
	_Atomic uint32_t
		n_joined; /* in the client's own uid's table: JOINED messages ever sent to it */
	_Atomic uint32_t n_looks; /* there, too: how often its bell was rung by the broker */
	uint32_t reserved[13];
};
ASSERT_SIZE(struct liveness_attention, 64);

struct liveness_table {
	uint64_t magic;
	uint32_t owner_uid;
	_Atomic uint32_t domain; /* enum domain_state */
	uint64_t reserved[510];
	struct liveness_attention attention[LIVENESS_CLIENTS_MAX];
	_Atomic uint64_t side[LIVENESS_CHANNELS_MAX][2];
	_Atomic uint64_t handle[LIVENESS_HANDLES_MAX];

	/* Grows whenever a handle of the channel begins or ends, before its opener is answered:
	 * whom to ring has changed. */
	_Atomic uint32_t members[LIVENESS_CHANNELS_MAX];

	/* Of sessions: CLOCK_MONOTONIC ns until which a side that is gone is waited for;
	 * UINT64_MAX: for ever; 0: it is there, or nobody waits for it any more. */
	_Atomic uint64_t until_ns[LIVENESS_CHANNELS_MAX][2];
};
ASSERT_OFFSET(struct liveness_table, attention, 4096);

/* A handle's own line: what it waits for, written before it sleeps and cleared after. */
struct desk_cell {
	_Alignas(64) _Atomic uint64_t closed_id;
	_Atomic uint64_t
		waits_for; /* handle id of the holder of what this one waits for; 0: of nobody's */
	_Atomic uint64_t waits_since;  /* CLOCK_MONOTONIC ns; 0: it does not wait */
	_Atomic uint64_t detached_id;  /* of sessions, before closed_id: closed by detach */
	_Atomic uint64_t confirmed_id; /* of sessions: the key that came with the handle of this id
					  is stored, the one before it is void */
	uint64_t reserved[3];
};
ASSERT_SIZE(struct desk_cell, 64);

struct desk_client {
	_Alignas(64) _Atomic uint32_t closings;
	_Atomic uint32_t ringings; /* grows when a RING could not be sent: all its channels */
	_Atomic uint32_t is_deaf;  /* not 0: it sleeps on its attention word alone, which the broker
				      moves: ring by RING */
	uint32_t reserved[13];
	unsigned char
		life[64]; /* place of the life word (a struct lock) for the early death notice */
};
ASSERT_SIZE(struct desk_client, 128);

struct desk {
	uint64_t magic;
	uint32_t uid;
	uint32_t lane; /* low bits of this uid's fences; written once, by the broker */
	uint64_t reserved0[6];
	_Alignas(64) _Atomic uint64_t fence; /* the last that a client of this uid took, without its
						lane; starts from the domain's clock */
	uint64_t reserved[503];
	struct desk_client client[LIVENESS_CLIENTS_MAX];
	struct desk_cell cell[LIVENESS_HANDLES_MAX];
	struct eventcount line[LIVENESS_CHANNELS_MAX][2];
};
ASSERT_OFFSET(struct desk, client, 4096);

/* Where it has a field of a handle's cell. */
static inline uint64_t desk_cell_offset(uint32_t handle_slot, size_t field)
{
	return offsetof(struct desk, cell) + (uint64_t)handle_slot * sizeof(struct desk_cell) +
	       field;
}

/*
 * A fence is {number, lane}: never given twice in a domain, since each uid has a lane and a counter
 * of its own, and growing over restarts, since the counter starts from the domain's clock in units
 * that no processor can count faster than.
 */
#define FENCE_LANE_BITS 10
#define FENCE_UNIT_NS   64
#define FENCE_EPOCH_S   INT64_C(1735689600) /* 2025-01-01 UTC */

/* ---- the broker's side ---- */
void liveness_table_init(struct liveness_table *table, uint32_t owner_uid);
void liveness_handle_set(struct liveness_table *table, uint32_t slot,
			 uint64_t handle_id); /* 0: ended */
void liveness_side_set(struct liveness_table *table, uint32_t channel_slot, unsigned side,
		       uint64_t word);
void liveness_attend(struct liveness_table *table, uint32_t client_slot);     /* +1, wake all */
void liveness_look_again(struct liveness_table *table, uint32_t client_slot); /* n_looks + 1 */
void liveness_members_change(struct liveness_table *table, uint32_t channel_slot);
void liveness_join(struct liveness_table *table, uint32_t client_slot); /* n_joined + 1 */
void liveness_domain_end(struct liveness_table *table);

/* ---- the clients' side ---- */
int liveness_table_check(const struct liveness_table *table, uint64_t size,
			 uint32_t owner_uid); /* 0, IPC_EBADMSG */
bool liveness_handle_is(const struct liveness_table *table, uint64_t handle_id);

/* Taken over, and not closed yet. */
bool liveness_handle_is_overtaken(const struct liveness_table *table, uint64_t handle_id);
static inline uint64_t liveness_side(const struct liveness_table *table, uint32_t channel_slot,
				     unsigned side)
{
	/* [V2] Pairs with [V1]. */
	return atomic_load_explicit(&table->side[channel_slot % LIVENESS_CHANNELS_MAX][side & 1],
				    memory_order_acquire);
}

uint32_t liveness_members(const struct liveness_table *table, uint32_t channel_slot);

#endif
