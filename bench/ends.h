/* SPDX-License-Identifier: MIT */
#ifndef BENCH_ENDS_H
#define BENCH_ENDS_H

/*
 * Two processes that send to each other, by a session or by an inbox in each direction: what the
 * rows of both kinds are measured with.
 */

#include "bench/bench.h"

struct bench_ends {
	bool is_inbox;
	uint64_t size; /* of the largest message */
	ipc_client *client;
	ipc_listener *listener;
	ipc_session *session;
	ipc_inbox_sender *out;
	ipc_inbox_receiver *in;
	uint64_t offset; /* of the next frame */
};

/* In the first process, before the second one is started; then again when it was. */
void bench_ends_open(struct bench_ends *ends, bool is_inbox, uint64_t size);
void bench_ends_join(struct bench_ends *ends);
/* In the second process. */
void bench_ends_connect(struct bench_ends *ends, bool is_inbox, uint64_t size);
void bench_ends_close(struct bench_ends *ends);

/* Messages until the same memory is used again, or somewhat more. */
uint64_t bench_ends_lap(const struct bench_ends *ends);

void bench_ends_send(struct bench_ends *ends, const void *data, size_t size, bool waits);
/* Copies the next message's `size` bytes and releases it. */
void bench_ends_receive(struct bench_ends *ends, void *data, size_t size, bool waits);

/* In place. NULL: no room now. */
void *bench_ends_claim(struct bench_ends *ends, size_t size, bool waits);
void bench_ends_commit(struct bench_ends *ends, void *data, size_t size);

/* fn for each of the messages that are there, then all are released; how many. */
typedef void (*bench_bytes_fn)(const void *data, size_t size);
unsigned bench_ends_drain(struct bench_ends *ends, bool waits, bench_bytes_fn fn);

#endif
