/* SPDX-License-Identifier: MIT */
#include "bench/ends.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 32, RECORDS_OF_ROOM = 16 };

#define CAPACITY_MIN UINT64_C(262144)
#define GENERATION   1

static void must(const char *what, int result)
{
	if (result < 0)
		bench_fail(what, result);
}

static uint64_t capacity_for(uint64_t size)
{
	uint64_t capacity = CAPACITY_MIN;

	while (capacity < RECORDS_OF_ROOM * size)
		capacity *= 2;
	return capacity;
}

uint64_t bench_ends_lap(const struct bench_ends *ends)
{
	return capacity_for(ends->size) / ends->size + 1;
}

/* ---- opening ---- */

static void inbox_open(struct bench_ends *ends, int first)
{
	char out[32], in[32];

	snprintf(out, sizeof(out), "bench/inbox/%d", first);
	snprintf(in, sizeof(in), "bench/inbox/%d", !first);
	must(in,
	     ipc_inbox_receiver_open_wait(&ends->in, ends->client, in,
					  IPC_INBOX_OPTIONS(.flags = IPC_CREATE | IPC_STAY,
							    .capacity = capacity_for(ends->size)),
					  NULL));
	must(out,
	     ipc_inbox_sender_open_wait(&ends->out, ends->client, out,
					IPC_INBOX_OPTIONS(.flags = IPC_CREATE | IPC_STAY,
							  .capacity = capacity_for(ends->size)),
					NULL));
	must("begin", ipc_inbox_begin_snapshot(ends->out, GENERATION));
	must("end", ipc_inbox_end_snapshot(ends->out, 0));
}

void bench_ends_open(struct bench_ends *ends, bool is_inbox, uint64_t size)
{
	*ends = (struct bench_ends){.is_inbox = is_inbox, .size = size};
	ends->client = bench_connect();
	if (is_inbox)
		inbox_open(ends, 0);
	else
		must("listener",
		     ipc_listener_open_wait(&ends->listener, ends->client, "bench/session",
					    IPC_SESSION_OPTIONS(.flags = IPC_CREATE,
								.capacity = capacity_for(size)),
					    NULL));
}

void bench_ends_join(struct bench_ends *ends)
{
	if (!ends->is_inbox)
		must("accept", ipc_listener_accept_wait(ends->listener, &ends->session, NULL));
}

void bench_ends_connect(struct bench_ends *ends, bool is_inbox, uint64_t size)
{
	*ends = (struct bench_ends){.is_inbox = is_inbox, .size = size};
	ends->client = bench_connect();
	if (is_inbox)
		inbox_open(ends, 1);
	else
		must("connect", ipc_session_connect_wait(&ends->session, ends->client,
							 "bench/session", NULL, NULL));
}

void bench_ends_close(struct bench_ends *ends)
{
	(void)ipc_session_close(ends->session);
	(void)ipc_listener_close(ends->listener);
	(void)ipc_inbox_sender_close(ends->out);
	(void)ipc_inbox_receiver_close(ends->in);
	(void)ipc_client_unref(ends->client);
}

/* ---- sending ---- */

static int try_send(struct bench_ends *ends, const void *data, size_t size, bool waits)
{
	if (ends->is_inbox)
		return waits ? ipc_inbox_send_frame_wait(ends->out, ends->offset, data, size, NULL)
			     : ipc_inbox_send_frame(ends->out, ends->offset, data, size);

	return waits ? ipc_session_send_wait(ends->session, data, size, NULL)
		     : ipc_session_send(ends->session, data, size);
}

void bench_ends_send(struct bench_ends *ends, const void *data, size_t size, bool waits)
{
	int r;

	do
		r = try_send(ends, data, size, waits);
	while (r == IPC_EAGAIN);
	must("send", r);
	++ends->offset;
}

void *bench_ends_claim(struct bench_ends *ends, size_t size, bool waits)
{
	void *data;
	int r;

	if (ends->is_inbox)
		r = waits ? ipc_inbox_claim_frame_wait(ends->out, size, &data, NULL)
			  : ipc_inbox_claim_frame(ends->out, size, &data);
	else
		r = waits ? ipc_session_claim_wait(ends->session, size, &data, NULL)
			  : ipc_session_claim(ends->session, size, &data);
	if (r == IPC_EAGAIN)
		return NULL;

	must("claim", r);
	return data;
}

void bench_ends_commit(struct bench_ends *ends, void *data, size_t size)
{
	must("commit", ends->is_inbox
			       ? ipc_inbox_commit_frame(ends->out, ends->offset++, data, size)
			       : ipc_session_commit(ends->session, data, size));
}

/* ---- receiving ---- */

static int inbox_receive(struct bench_ends *ends, struct ipc_inbox_event *events, unsigned n,
			 bool waits)
{
	return waits ? ipc_inbox_receive_many_wait(ends->in, events, n, NULL)
		     : ipc_inbox_receive_many(ends->in, events, n);
}

static int session_receive(struct bench_ends *ends, struct ipc_session_message *messages,
			   unsigned n, bool waits)
{
	return waits ? ipc_session_receive_many_wait(ends->session, messages, n, NULL)
		     : ipc_session_receive_many(ends->session, messages, n);
}

static unsigned inbox_drain(struct bench_ends *ends, bool waits, bench_bytes_fn fn)
{
	struct ipc_inbox_event events[BATCH];
	unsigned n_frames = 0;
	int n = inbox_receive(ends, events, BATCH, waits);

	if (n == IPC_EAGAIN)
		return 0;

	must("receive_many", n);
	for (int i = 0; i < n; ++i) {
		if (events[i].type != IPC_INBOX_FRAME)
			continue;
		fn(events[i].data, events[i].size);
		++n_frames;
	}
	must("mark_applied", ipc_inbox_mark_applied(ends->in, &events[n - 1]));
	return n_frames;
}

static unsigned session_drain(struct bench_ends *ends, bool waits, bench_bytes_fn fn)
{
	struct ipc_session_message messages[BATCH];
	int n = session_receive(ends, messages, BATCH, waits);

	if (n == IPC_EAGAIN)
		return 0;

	must("receive_many", n);
	for (int i = 0; i < n; ++i)
		fn(messages[i].data, messages[i].size);
	must("release", ipc_session_release(ends->session, &messages[n - 1]));
	return (unsigned)n;
}

unsigned bench_ends_drain(struct bench_ends *ends, bool waits, bench_bytes_fn fn)
{
	return ends->is_inbox ? inbox_drain(ends, waits, fn) : session_drain(ends, waits, fn);
}

void bench_ends_receive(struct bench_ends *ends, void *data, size_t size, bool waits)
{
	struct ipc_session_message message;
	struct ipc_inbox_event event;
	int r;

	if (!ends->is_inbox) {
		do
			r = waits ? ipc_session_receive_wait(ends->session, &message, NULL)
				  : ipc_session_receive(ends->session, &message);
		while (r == IPC_EAGAIN);
		must("receive", r);
		memcpy(data, message.data, size);
		must("release", ipc_session_release(ends->session, &message));
		return;
	}

	do {
		do
			r = waits ? ipc_inbox_receive_wait(ends->in, &event, NULL)
				  : ipc_inbox_receive(ends->in, &event);
		while (r == IPC_EAGAIN);
		must("receive", r);
		if (event.type == IPC_INBOX_FRAME)
			memcpy(data, event.data, size);
		must("mark_applied", ipc_inbox_mark_applied(ends->in, &event));
	} while (event.type != IPC_INBOX_FRAME);
}
