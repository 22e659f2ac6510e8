/* SPDX-License-Identifier: MIT */
#ifndef TESTS_STRESS_INBOX_SHARD_H
#define TESTS_STRESS_INBOX_SHARD_H

/*
 * The shard of tests/stress/inbox.c: applies what comes to a replica that survives it, and checks
 * that nothing else comes than what may.
 */

#include "tests/stress/inbox_board.h"

static ipc_inbox_receiver *in;
static struct replica *replica;
static bool is_inside, is_new; /* inside of a snapshot; nothing was received yet */
static bool is_gapped;         /* no frame may come before the next END */
static uint32_t n_loaded;      /* keys of it */
static uint64_t expected;      /* offset of the next frame; 0: not known */

static struct copy *current(void)
{
	return &replica->copies[atomic_load(&replica->n_flips) % 2];
}

static struct copy *shadow(void)
{
	return &replica->copies[(atomic_load(&replica->n_flips) + 1) % 2];
}

static void shard_open(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);

	replica = &board->replicas[inbox];
	MUST(ipc_inbox_receiver_open_wait(&in, client, inbox_name(inbox), options(inbox),
					  &deadline));
	is_inside = is_gapped = false;
	is_new = true;
	expected = 0;
}

static void apply_begin(const struct ipc_inbox_event *event)
{
	REQUIRE(!is_inside && event->generation > 0, WRONG_EVENT);
	is_inside = true;
	n_loaded = 0;
	memset(shadow(), 0, sizeof(*shadow()));
	atomic_store(&shadow()->generation, event->generation);
}

static void apply_chunk(const struct ipc_inbox_event *event)
{
	struct chunk chunk = {0};

	REQUIRE(is_inside && event->size <= sizeof(chunk), WRONG_EVENT);
	if (event->fd >= 0) {
		REQUIRE(pread(event->fd, &chunk, event->size, (off_t)event->offset) ==
				(ssize_t)event->size,
			WRONG_BYTES);
		(void)close(event->fd);
		count(&board->n_chunk_fds);
	} else {
		memcpy(&chunk, event->data, event->size);
	}

	REQUIRE(event->size == offsetof(struct chunk, values) + chunk.n * sizeof(uint64_t) &&
			chunk.generation == event->generation && chunk.first == n_loaded &&
			chunk.first + chunk.n <= KEYS,
		WRONG_BYTES);
	atomic_store(&shadow()->next, chunk.next);
	memcpy(&shadow()->values[n_loaded], chunk.values, chunk.n * sizeof(uint64_t));
	n_loaded += chunk.n;
	count(&board->n_chunks);
}

/* All of it, or it would not be told. */
static void apply_end(const struct ipc_inbox_event *event)
{
	REQUIRE(is_inside && n_loaded == KEYS && event->offset == atomic_load(&shadow()->next) &&
			event->generation == atomic_load(&shadow()->generation),
		WRONG_EVENT);
	is_inside = is_gapped = false;
	expected = event->offset;
	atomic_fetch_add(&replica->n_flips, 1);
	count(&board->n_snapshots);
	if (chance(40) == 0)
		(void)raise(SIGKILL); /* in the replica, and not marked */
}

static void apply_frame(const struct ipc_inbox_event *event)
{
	struct copy *copy = current();
	uint64_t next = atomic_load(&copy->next);
	struct frame frame;
	size_t size = frame_make(&frame, event->generation, event->offset);

	REQUIRE(!is_inside && !is_gapped, WRONG_EVENT);
	REQUIRE(event->generation == atomic_load(&copy->generation), WRONG_OFFSET);
	REQUIRE(event->offset <= next && (expected == 0 || event->offset == expected),
		WRONG_OFFSET);
	REQUIRE(event->size == size && memcmp(event->data, &frame, size) == 0, WRONG_BYTES);
	expected = event->offset + 1;
	if (event->offset < next) {
		count(&board->n_again);
		return;
	}

	copy->values[event->offset & (KEYS - 1)] = frame.value;
	atomic_store(&copy->next, expected);
	count(&board->n_frames);
}

static void apply_abort(const struct ipc_inbox_event *event)
{
	if (event->reason == IPC_INBOX_RECEIVER_CHANGED) {
		REQUIRE(is_new, WRONG_EVENT);
		is_gapped = true;
	} else {
		REQUIRE(is_inside && event->reason > IPC_INBOX_REASON_NONE &&
				event->reason <= IPC_INBOX_ABORTED,
			WRONG_EVENT);
		REQUIRE(event->reason != IPC_INBOX_COLLAPSED || inbox % 2, WRONG_EVENT);
	}
	is_gapped = is_gapped || event->reason == IPC_INBOX_COLLAPSED;
	is_inside = false;
	count(&board->n_aborts[event->reason % 8]);
}

static void apply(const struct ipc_inbox_event *event)
{
	switch (event->type) {
	case IPC_INBOX_BEGIN:
		apply_begin(event);
		break;
	case IPC_INBOX_CHUNK:
		apply_chunk(event);
		break;
	case IPC_INBOX_END:
		apply_end(event);
		break;
	case IPC_INBOX_FRAME:
		apply_frame(event);
		break;
	case IPC_INBOX_ABORT:
		apply_abort(event);
		break;
	case IPC_INBOX_GAP:
		REQUIRE(!is_inside && event->reason == IPC_INBOX_COLLAPSED && inbox % 2,
			WRONG_EVENT);
		is_gapped = true;
		count(&board->n_gaps);
		break;
	}
	is_new = false;
	count(&board->n_done[inbox]);
}

/* Until the ring is nearly full, if that is soon. */
static void fall_behind(void)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	struct timespec limit = process_deadline(1);
	int r;

	do {
		r = ipc_inbox_receiver_get_positions(in, &positions);
		REQUIRE(r == 0 || r == IPC_EAGAIN, WRONG_RESULT);
	} while (positions.depth < 3500 && !process_has_passed(&limit));
}

static void shard_whim(void)
{
	switch (chance(3000)) {
	case 0:
	case 1:
		MUST(ipc_inbox_request_snapshot(in));
		count(&board->n_requests);
		break;
	case 2:
		in = ipc_inbox_receiver_close(in);
		shard_open();
		break;
	case 3:
	case 4:
		fall_behind();
		break;
	default:
		break;
	}
}

static int receive_some(struct ipc_inbox_event *events)
{
	struct timespec deadline = wait_deadline();
	int n;

	n = chance(2) ? ipc_inbox_receive_many(in, events, 1 + chance(AT_ONCE))
		      : ipc_inbox_receive_many_wait(in, events, 1 + chance(AT_ONCE), &deadline);
	if (is_gone(n)) {
		count(&board->n_ends);
		deadline = domain_deadline(WAIT_MS);
		MUST(ipc_inbox_receiver_peers_wait(in, true, &deadline));
	} else if (n == IPC_EAGAIN) {
		(void)sched_yield();
	} else if (n != IPC_ETIMEDOUT) {
		MUST(n);
	}
	return n;
}

static void shard_run(void)
{
	shard_open();
	for (;;) {
		struct ipc_inbox_event events[AT_ONCE];
		int n = receive_some(events);

		for (int i = 0; i < n; ++i) {
			apply(&events[i]);
			if (chance(4) == 0)
				MUST(ipc_inbox_mark_applied(in, &events[i]));
		}
		if (n > 0)
			MUST(ipc_inbox_mark_applied(in, &events[n - 1]));
		shard_whim();
	}
}

#endif
