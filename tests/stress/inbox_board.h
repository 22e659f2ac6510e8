/* SPDX-License-Identifier: MIT */
#ifndef TESTS_STRESS_INBOX_BOARD_H
#define TESTS_STRESS_INBOX_BOARD_H

/*
 * What the processes of tests/stress/inbox.c share: primaries, replicas, counts; and how they end
 * when something is wrong.
 */

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/domain.h"
#include "tests/support/process.h"

enum {
	INBOXES = 4,
	OBSERVER = 2 * INBOXES, /* runners are even, shards odd */
	N,
	KEYS = 1024, /* a power of two; a snapshot is larger than a ring */
	BACKLOG = 300,
	CHUNK_KEYS_MAX = 96,
	FRAME_SIZE_MAX = 1000,
	AT_ONCE = 8,
	WAIT_MS = 30000, /* that long nobody waits for those who live */
	WORKER_MS = 200,
};

/* Exit statuses: none of them is a death by SIGKILL. */
enum {
	WRONG_RESULT = 10,
	WRONG_EVENT,
	WRONG_BYTES,
	WRONG_OFFSET,
	WRONG_POSITIONS,
	NOT_APPLIED,
	WRONG_SEND = 32 /* and what: enum runner_state */
};

struct primary {
	_Atomic uint64_t generation, next;
	_Atomic uint32_t n_generations;
};

struct copy {
	_Atomic uint64_t generation, next;
	uint64_t values[KEYS];
};

struct replica {
	_Atomic uint64_t n_flips; /* the copy that counts is n_flips % 2 */
	struct copy copies[2];
};

struct board {
	_Atomic uint32_t is_producing;
	struct primary primaries[INBOXES];
	struct replica replicas[INBOXES];
	_Atomic uint64_t n_done[INBOXES]; /* events applied: it goes on */
	_Atomic uint64_t n_frames, n_again, n_snapshots, n_chunks, n_chunk_fds, n_gaps;
	_Atomic uint64_t n_aborts[8], n_requests, n_overflows, n_ends, n_looks, n_reads, n_killed;
	_Atomic int32_t result;
	_Atomic uint32_t line;
};

static struct board *board;

/* Of one process. */
static ipc_client *client;
static unsigned inbox, seed;

static void end_of(int r, int status, unsigned line)
{
	atomic_store(&board->result, r);
	atomic_store(&board->line, line);
	_exit(status);
}

#define REQUIRE(condition, status)                                                                 \
	do {                                                                                       \
		if (!(condition))                                                                  \
			end_of(0, status, __LINE__);                                               \
	} while (0)

#define MUST(call)                                                                                 \
	do {                                                                                       \
		int result_of_call = (call);                                                       \
		if (result_of_call < 0)                                                            \
			end_of(result_of_call, WRONG_RESULT, __LINE__);                            \
	} while (0)

static unsigned chance(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

static struct timespec wait_deadline(void)
{
	return domain_deadline(chance(8) ? WAIT_MS : chance(2));
}

static void count(_Atomic uint64_t *what)
{
	atomic_fetch_add(what, 1);
}

static bool is_gone(int r)
{
	return r == IPC_EPIPE || r == IPC_EOWNERDEAD;
}

/* ---- the primary ---- */

static uint64_t value_of(uint64_t generation, uint64_t offset)
{
	uint64_t z = generation * UINT64_C(0x9e3779b97f4a7c15) + offset;

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Of a key, before `next`: by the last offset that is equal to the key but for multiples of KEYS.
 */
static uint64_t value_before(uint64_t generation, uint64_t next, uint64_t key)
{
	return value_of(generation, next - 1 - ((next - 1 - key) & (KEYS - 1)));
}

/* Near the end of all offsets, now and then.  A generation comes once: of 32 bits rand_r() uses 27,
 * so that two processes soon throw the same. */
static void primary_begin(struct primary *primary, unsigned *luck)
{
	uint64_t serial = 1 + atomic_fetch_add(&primary->n_generations, 1);
	uint64_t generation = (uint64_t)rand_r(luck) << 22 | serial;
	uint64_t next = 2 * KEYS + (uint64_t)rand_r(luck);

	if (next % 4 == 0)
		next = UINT64_MAX - (UINT64_C(1) << 40);
	atomic_store(&primary->generation, generation);
	atomic_store(&primary->next, next);
}

struct chunk {
	uint64_t generation, next;
	uint32_t first, n;
	uint64_t values[CHUNK_KEYS_MAX];
};

struct frame {
	uint64_t generation, offset, value;
	unsigned char rest[FRAME_SIZE_MAX - 24];
};

static size_t frame_make(struct frame *frame, uint64_t generation, uint64_t offset)
{
	size_t rest = value_of(offset, generation) % sizeof(frame->rest);

	*frame = (struct frame){generation, offset, value_of(generation, offset), {0}};
	memset(frame->rest, (int)offset, rest);
	return offsetof(struct frame, rest) + rest;
}

static const char *inbox_name(unsigned i)
{
	static char name[32];

	(void)snprintf(name, sizeof(name), "stress/inbox/%u", i);
	return name;
}

static const struct ipc_inbox_options *options(unsigned i)
{
	static struct ipc_inbox_options made = IPC_INBOX_OPTIONS_INIT;

	made.flags = IPC_CREATE | IPC_KEEP | IPC_AWAIT | (chance(2) ? IPC_STAY : 0);
	made.capacity = i < 2 ? 4096 : 16384;
	made.frame_size_max = i < 2 ? 1024 : 2048;
	made.full = i % 2 ? IPC_INBOX_FULL_COLLAPSE : IPC_INBOX_FULL_FAIL;
	return &made;
}

#endif
