/* SPDX-License-Identifier: MIT */

/*
 * Senders of an inbox: snapshots and frames, their waits, and how they end.
 */

#include "libipc/client/inbox.h"

#include <ipc/error.h>

#include "libipc/platform/clock.h"

static int sender_enter(ipc_inbox_sender *sender)
{
	return endpoint_enter((struct endpoint *)sender, IPC_ROLE_INBOX_SENDER);
}

/* ---- what is tried ---- */

/* One call of those that need a receiver. */
struct sending {
	struct inbox_sender *sender;
	struct endpoint *endpoint;

	/* IPC_EAGAIN: not now. */
	int (*attempt)(struct sending *sending);
	bool is_bounded; /* `size` is of what is copied */
	bool waits;
	uint64_t number; /* generation, next offset, offset */
	const void *data;
	size_t size;
	int fd;
	void *claim;    /* claim: the result; commit */
	uint64_t began; /* the receiver's side word */
};

static int attempt_begin(struct sending *sending)
{
	return inbox_begin_snapshot(sending->sender, sending->number, sending->waits);
}

static int attempt_chunk(struct sending *sending)
{
	return inbox_send_chunk(sending->sender, sending->data, sending->size, sending->waits);
}

static int attempt_chunk_fd(struct sending *sending)
{
	return inbox_send_chunk_fd(sending->sender, sending->fd, sending->number, sending->size,
				   sending->waits);
}

static int attempt_end(struct sending *sending)
{
	return inbox_end_snapshot(sending->sender, sending->number, sending->waits);
}

static int attempt_frame(struct sending *sending)
{
	return inbox_send_frame(sending->sender, sending->number, sending->data, sending->size,
				sending->waits);
}

static int attempt_claim(struct sending *sending)
{
	int r;

	r = inbox_claim_frame(sending->sender, sending->size, &sending->claim, sending->waits);
	if (r < 0)
		return r;

	/* It vanishes with the handle, which another thread has closed. */
	return atomic_load_explicit(&sending->endpoint->closing, memory_order_relaxed)
		       ? IPC_ECANCELED
		       : r;
}

static int attempt_commit(struct sending *sending)
{
	return inbox_commit_frame(sending->sender, sending->number, sending->claim, sending->size);
}

/* ---- with and without a wait ---- */

/* 0, the end or fault, or WAITER_NOT_YET.  Without a receiver nothing is sent, room or not; what it
 * did before its end changes nothing (I-4). */
static int sending_look(void *subject)
{
	struct sending *sending = subject;
	int r;

	r = header_fault(sending->endpoint->header);
	if (LIKELY(r == 0))
		r = endpoint_opposite_end(sending->endpoint, sending->began);
	if (LIKELY(r == 0))
		r = sending->attempt(sending);

	return r == IPC_EAGAIN ? WAITER_NOT_YET : r;
}

/* `attempt` and what it needs are filled in.  deadline_ns NULL: without a wait. */
static int sender_send(ipc_inbox_sender *sender, struct sending *sending,
		       const uint64_t *deadline_ns)
{
	struct waiter waiter;
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	sending->endpoint = &sender->endpoint;
	sending->sender = &sender->sender;
	sending->waits = deadline_ns;
	sending->began = endpoint_opposite(&sender->endpoint);
	if (sending->is_bounded && sending->size > sender->sender.inbox.frame_size_max)
		r = IPC_EMSGSIZE;
	else
		r = sending_look(sending);

	if (r == WAITER_NOT_YET && deadline_ns) {
		endpoint_waiter(&sender->endpoint, &waiter,
				&sender->sender.inbox.lines[INBOX_SIDE_SENDER], *deadline_ns);
		r = waiter_wait(&waiter, sending_look, sending);
	}
	r = r == WAITER_NOT_YET ? IPC_EAGAIN : inbox_settle(&sender->endpoint, r);

	endpoint_leave(&sender->endpoint);
	return r;
}

static int sender_send_wait(ipc_inbox_sender *sender, struct sending *sending,
			    const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	return r < 0 ? r : sender_send(sender, sending, &deadline_ns);
}

/* ---- snapshots ---- */

static bool generation_is_legal(uint64_t generation)
{
	return generation > 0 && generation <= INBOX_GENERATION_MAX;
}

int ipc_inbox_begin_snapshot(ipc_inbox_sender *sender, uint64_t generation)
{
	struct sending sending = {.attempt = attempt_begin, .number = generation};

	return generation_is_legal(generation) ? sender_send(sender, &sending, NULL) : IPC_EINVAL;
}

int ipc_inbox_begin_snapshot_wait(ipc_inbox_sender *sender, uint64_t generation,
				  const struct timespec *deadline)
{
	struct sending sending = {.attempt = attempt_begin, .number = generation};

	return generation_is_legal(generation) ? sender_send_wait(sender, &sending, deadline)
					       : IPC_EINVAL;
}

static struct sending chunk_of(const void *data, size_t size)
{
	return (struct sending){
		.attempt = attempt_chunk,
		.is_bounded = true,
		.data = data,
		.size = size,
	};
}

int ipc_inbox_send_chunk(ipc_inbox_sender *sender, const void *data, size_t size)
{
	struct sending sending = chunk_of(data, size);

	return data || size == 0 ? sender_send(sender, &sending, NULL) : IPC_EINVAL;
}

int ipc_inbox_send_chunk_wait(ipc_inbox_sender *sender, const void *data, size_t size,
			      const struct timespec *deadline)
{
	struct sending sending = chunk_of(data, size);

	return data || size == 0 ? sender_send_wait(sender, &sending, deadline) : IPC_EINVAL;
}

static struct sending chunk_of_fd(int fd, uint64_t fd_offset, size_t size)
{
	return (struct sending){
		.attempt = attempt_chunk_fd,
		.fd = fd,
		.number = fd_offset,
		.size = size,
	};
}

int ipc_inbox_send_chunk_fd(ipc_inbox_sender *sender, int fd, uint64_t fd_offset, size_t size)
{
	struct sending sending = chunk_of_fd(fd, fd_offset, size);

	return fd >= 0 ? sender_send(sender, &sending, NULL) : IPC_EINVAL;
}

int ipc_inbox_send_chunk_fd_wait(ipc_inbox_sender *sender, int fd, uint64_t fd_offset, size_t size,
				 const struct timespec *deadline)
{
	struct sending sending = chunk_of_fd(fd, fd_offset, size);

	return fd >= 0 ? sender_send_wait(sender, &sending, deadline) : IPC_EINVAL;
}

int ipc_inbox_end_snapshot(ipc_inbox_sender *sender, uint64_t next_offset)
{
	struct sending sending = {.attempt = attempt_end, .number = next_offset};

	return sender_send(sender, &sending, NULL);
}

int ipc_inbox_end_snapshot_wait(ipc_inbox_sender *sender, uint64_t next_offset,
				const struct timespec *deadline)
{
	struct sending sending = {.attempt = attempt_end, .number = next_offset};

	return sender_send_wait(sender, &sending, deadline);
}

int ipc_inbox_abort_snapshot(ipc_inbox_sender *sender)
{
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = header_fault(sender->endpoint.header);
	if (r == 0)
		r = inbox_abort_snapshot(&sender->sender);
	r = inbox_settle(&sender->endpoint, r);

	endpoint_leave(&sender->endpoint);
	return r;
}

/* ---- frames ---- */

static struct sending frame_of(uint64_t offset, const void *data, size_t size)
{
	return (struct sending){
		.attempt = attempt_frame,
		.is_bounded = true,
		.number = offset,
		.data = data,
		.size = size,
	};
}

int ipc_inbox_send_frame(ipc_inbox_sender *sender, uint64_t offset, const void *data, size_t size)
{
	struct sending sending = frame_of(offset, data, size);

	return data || size == 0 ? sender_send(sender, &sending, NULL) : IPC_EINVAL;
}

int ipc_inbox_send_frame_wait(ipc_inbox_sender *sender, uint64_t offset, const void *data,
			      size_t size, const struct timespec *deadline)
{
	struct sending sending = frame_of(offset, data, size);

	return data || size == 0 ? sender_send_wait(sender, &sending, deadline) : IPC_EINVAL;
}

static struct sending claim_of(size_t size)
{
	return (struct sending){.attempt = attempt_claim, .is_bounded = true, .size = size};
}

int ipc_inbox_claim_frame(ipc_inbox_sender *sender, size_t size, void **ret_data)
{
	struct sending sending = claim_of(size);
	int r;

	if (!ret_data)
		return IPC_EINVAL;

	r = sender_send(sender, &sending, NULL);
	if (r == 0)
		*ret_data = sending.claim;

	return r;
}

int ipc_inbox_claim_frame_wait(ipc_inbox_sender *sender, size_t size, void **ret_data,
			       const struct timespec *deadline)
{
	struct sending sending = claim_of(size);
	int r;

	if (!ret_data)
		return IPC_EINVAL;

	r = sender_send_wait(sender, &sending, deadline);
	if (r == 0)
		*ret_data = sending.claim;

	return r;
}

int ipc_inbox_commit_frame(ipc_inbox_sender *sender, uint64_t offset, void *data, size_t size)
{
	struct sending sending = {
		.attempt = attempt_commit,
		.number = offset,
		.claim = data,
		.size = size,
	};

	return sender_send(sender, &sending, NULL);
}

int ipc_inbox_abort_frame(ipc_inbox_sender *sender, void *data)
{
	int r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	r = header_fault(sender->endpoint.header);
	if (r == 0)
		r = inbox_abort_frame(&sender->sender, data);
	r = inbox_settle(&sender->endpoint, r);

	endpoint_leave(&sender->endpoint);
	return r;
}

/* ---- requests ---- */

struct wanting {
	ipc_inbox_sender *sender;
	uint64_t *served;
	uint64_t began; /* the receiver's side word */
};

static int wanting_look(void *subject)
{
	const struct wanting *wanting = subject;
	ipc_inbox_sender *sender = wanting->sender;
	int r, end;

	r = header_fault(sender->endpoint.header);
	if (r == 0)
		r = inbox_probe_wanted(&sender->sender, wanting->served);
	if (r != IPC_EAGAIN)
		return r;

	end = endpoint_opposite_end(&sender->endpoint, wanting->began);
	if (end == 0)
		return WAITER_NOT_YET;

	/* It may have been the receiver's last act. */
	r = inbox_probe_wanted(&sender->sender, wanting->served);
	return r != IPC_EAGAIN ? r : end;
}

int ipc_inbox_wanted_wait(ipc_inbox_sender *sender, uint64_t *served,
			  const struct timespec *deadline)
{
	struct wanting wanting = {.sender = sender, .served = served};
	struct waiter waiter;
	uint64_t deadline_ns;
	int r;

	if (!served)
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = sender_enter(sender);
	if (r < 0)
		return r;

	wanting.began = endpoint_opposite(&sender->endpoint);
	endpoint_waiter(&sender->endpoint, &waiter, &sender->sender.inbox.lines[INBOX_SIDE_SENDER],
			deadline_ns);
	r = waiter_wait(&waiter, wanting_look, &wanting);
	r = inbox_settle(&sender->endpoint, r);

	endpoint_leave(&sender->endpoint);
	return r;
}
