/* SPDX-License-Identifier: MIT */
#ifndef TESTS_STRESS_INBOX_RUNNER_H
#define TESTS_STRESS_INBOX_RUNNER_H

/*
 * The runner of tests/stress/inbox.c: feeds an inbox, in all ways that there are.
 */

#include "tests/stress/inbox_board.h"

enum runner_state { FRAMES, BEGIN, CHUNKS, END };

static ipc_inbox_sender *out;
static enum runner_state state;
static uint64_t generation, at, served; /* of what it sends */
static uint32_t first_key;

static void until_present(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	count(&board->n_ends);
	MUST(ipc_inbox_sender_peers_wait(out, true, &deadline));
}

/* From where the inbox is, if that is not too long ago. */
static void runner_go_on(void)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	const struct primary *primary = &board->primaries[inbox];

	MUST(ipc_inbox_get_positions(out, &positions));
	generation = atomic_load(&primary->generation);
	at = positions.written;
	served = positions.snapshot_wanted;
	state = positions.generation == generation && atomic_load(&primary->next) - at <= BACKLOG
			? FRAMES
			: BEGIN;
}

static void runner_open(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	MUST(ipc_inbox_sender_open_wait(&out, client, inbox_name(inbox), options(inbox),
					&deadline));
	runner_go_on();
}

static int send_begin(void)
{
	struct timespec deadline = wait_deadline();
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	int r;

	MUST(ipc_inbox_get_positions(out, &positions));
	r = chance(2) ? ipc_inbox_begin_snapshot(out, generation)
		      : ipc_inbox_begin_snapshot_wait(out, generation, &deadline);
	if (r == 0) {
		served = positions.snapshot_wanted;
		at = atomic_load(&board->primaries[inbox].next);
		first_key = 0;
		state = CHUNKS;
	}
	return r;
}

/* It may be anywhere in a file. */
static int send_chunk_fd(const struct chunk *chunk, size_t size)
{
	struct timespec deadline = wait_deadline();
	off_t offset = (off_t)chance(10000);
	int r, fd = memfd_create("chunk", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && pwrite(fd, chunk, size, offset) == (ssize_t)size, WRONG_RESULT);
	r = chance(2) ? ipc_inbox_send_chunk_fd(out, fd, (uint64_t)offset, size)
		      : ipc_inbox_send_chunk_fd_wait(out, fd, (uint64_t)offset, size, &deadline);
	(void)close(fd);
	return r;
}

static int send_chunk(void)
{
	struct timespec deadline = wait_deadline();
	struct chunk chunk = {.generation = generation, .next = at, .first = first_key};
	size_t size;
	int r;

	chunk.n = chance(CHUNK_KEYS_MAX + 1);
	if (chunk.n > KEYS - first_key)
		chunk.n = KEYS - first_key;
	for (uint32_t i = 0; i < chunk.n; ++i)
		chunk.values[i] = value_before(generation, at, first_key + i);
	size = offsetof(struct chunk, values) + chunk.n * sizeof(uint64_t);

	switch (chance(4)) {
	case 0:
		r = send_chunk_fd(&chunk, size);
		break;
	case 1:
		r = ipc_inbox_send_chunk(out, &chunk, size);
		break;
	default:
		r = ipc_inbox_send_chunk_wait(out, &chunk, size, &deadline);
		break;
	}
	if (r == 0)
		first_key += chunk.n;
	if (first_key == KEYS)
		state = END;
	return r;
}

static int send_end(void)
{
	struct timespec deadline = wait_deadline();
	int r = chance(2) ? ipc_inbox_end_snapshot(out, at)
			  : ipc_inbox_end_snapshot_wait(out, at, &deadline);

	if (r == 0)
		state = FRAMES;
	return r;
}

static int send_claimed(const struct frame *frame, size_t size)
{
	struct timespec deadline = wait_deadline();
	void *data;
	int r;

	r = chance(2) ? ipc_inbox_claim_frame(out, size + chance(20), &data)
		      : ipc_inbox_claim_frame_wait(out, size, &data, &deadline);
	if (r < 0)
		return r;

	memcpy(data, frame, size);
	r = chance(16) ? ipc_inbox_commit_frame(out, at, data, size) : IPC_EAGAIN;

	/* Without a receiver it stays open (I-4). */
	while (is_gone(r) && chance(2)) {
		until_present();
		r = ipc_inbox_commit_frame(out, at, data, size);
	}
	if (r < 0)
		MUST(ipc_inbox_abort_frame(out, data));
	return r;
}

static int send_frame(void)
{
	struct timespec deadline = wait_deadline();
	struct frame frame;
	size_t size = frame_make(&frame, generation, at);
	int r;

	switch (chance(inbox % 2 ? 16 : 3)) {
	case 0:
		r = send_claimed(&frame, size);
		break;
	case 1:
		r = ipc_inbox_send_frame(out, at, &frame, size);
		break;
	default:
		r = ipc_inbox_send_frame_wait(out, at, &frame, size, &deadline);
		break;
	}
	if (r == 0)
		++at;
	return r;
}

/* Nothing to send: only a request can come. */
static int await_request(void)
{
	struct ipc_wait_item item = {.handle = out, .events = IPC_READY_REQUEST};
	struct timespec deadline = domain_deadline(10);
	int r = chance(2) ? ipc_wait_any(&item, 1, &deadline)
			  : ipc_inbox_wanted_wait(out, &served, &deadline);

	if (r == 0 && !(item.ready & IPC_READY_END))
		state = BEGIN;
	return r;
}

static int send_next(void)
{
	switch (state) {
	case BEGIN:
		return send_begin();
	case CHUNKS:
		return send_chunk();
	case END:
		return send_end();
	case FRAMES:
		break;
	}
	return at == atomic_load(&board->primaries[inbox].next) ? await_request() : send_frame();
}

/* What else may happen to a primary and its runner. */
static void runner_whim(void)
{
	struct primary *primary = &board->primaries[inbox];

	if (state == FRAMES && atomic_load(&primary->next) - at < BACKLOG / 2)
		atomic_fetch_add(&primary->next, chance(BACKLOG / 4));
	/* Without need: if that is its death, frames can go on. */
	if (chance(400) == 0)
		state = BEGIN;
	switch (chance(4000)) {
	case 0: /* the link was down for long */
		atomic_fetch_add(&primary->next, BACKLOG + 1);
		runner_go_on();
		break;
	case 1:
		primary_begin(primary, &seed);
		runner_go_on();
		break;
	case 2:
	case 3:
		out = ipc_inbox_sender_close(out);
		runner_open();
		break;
	case 4:
	case 5:
	case 6:
		if (state == CHUNKS || state == END) {
			MUST(ipc_inbox_abort_snapshot(out));
			runner_go_on();
		}
		break;
	default:
		break;
	}
}

static void runner_run(void)
{
	runner_open();
	for (;;) {
		int r = send_next();

		if (r == IPC_EOVERFLOW) {
			count(&board->n_overflows);
			state = BEGIN;
		} else if (is_gone(r)) {
			until_present();
		} else if (r == IPC_EAGAIN) {
			(void)sched_yield();
		} else if (r < 0 && r != IPC_ETIMEDOUT) {
			end_of(r, WRONG_SEND + (int)state, __LINE__);
		}
		if (atomic_load(&board->is_producing))
			runner_whim();
	}
}

#endif
