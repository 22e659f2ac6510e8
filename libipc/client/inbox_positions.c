/* SPDX-License-Identifier: MIT */

/*
 * How far an inbox has come, as its sender, its receiver and observers ask.
 */

#include "libipc/client/inbox.h"

#include <ipc/error.h>

#include "libipc/client/options.h"
#include "libipc/platform/clock.h"

/* ---- positions ---- */

static int tell_positions(const struct inbox *inbox, struct ipc_inbox_positions *ret)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};
	int r;

	r = header_fault(inbox->header);
	if (r == 0)
		r = inbox_get_positions(inbox, &positions);
	if (r == 0)
		r = options_write_info(ret, &positions, sizeof(positions));

	return r;
}

static bool is_positions(const struct ipc_inbox_positions *positions)
{
	return positions && positions->size >= sizeof(size_t);
}

int ipc_inbox_get_positions(ipc_inbox_sender *sender, struct ipc_inbox_positions *ret)
{
	int r;

	if (!is_positions(ret))
		return IPC_EINVAL;

	r = endpoint_enter((struct endpoint *)sender, IPC_ROLE_INBOX_SENDER);
	if (r < 0)
		return r;

	r = tell_positions(&sender->sender.inbox, ret);

	endpoint_leave(&sender->endpoint);
	return r;
}

int ipc_inbox_receiver_get_positions(ipc_inbox_receiver *receiver, struct ipc_inbox_positions *ret)
{
	int r;

	if (!is_positions(ret))
		return IPC_EINVAL;

	r = endpoint_enter((struct endpoint *)receiver, IPC_ROLE_INBOX_RECEIVER);
	if (r < 0)
		return r;

	r = tell_positions(&receiver->receiver.inbox, ret);

	endpoint_leave(&receiver->endpoint);
	return r;
}

int ipc_inbox_observer_get_positions(ipc_inbox_observer *observer, struct ipc_inbox_positions *ret)
{
	int r;

	if (!is_positions(ret))
		return IPC_EINVAL;

	r = endpoint_enter((struct endpoint *)observer, IPC_ROLE_INBOX_OBSERVER);
	if (r < 0)
		return r;

	r = tell_positions(&observer->inbox, ret);

	endpoint_leave(&observer->endpoint);
	return r;
}

/* ---- applied ---- */

struct applying {
	const struct endpoint *endpoint;
	const struct inbox *inbox;
	uint64_t generation, offset;
	uint64_t began; /* the receivers' side word */
};

/* 0, the end or fault; WAITER_NOT_YET. */
static int applying_probe(const struct applying *applying)
{
	int r;

	r = header_fault(applying->inbox->header);
	if (r == 0)
		r = inbox_probe_applied(applying->inbox, applying->generation, applying->offset);

	return r == IPC_EAGAIN ? WAITER_NOT_YET : r;
}

static int applying_look(void *subject)
{
	const struct applying *applying = subject;
	int r, end;

	r = applying_probe(applying);
	if (r != WAITER_NOT_YET)
		return r;

	end = endpoint_opposite_end(applying->endpoint, applying->began);
	if (end == 0)
		return WAITER_NOT_YET;

	/* The receiver may have marked the last one between the two looks. */
	r = applying_probe(applying);
	return r != WAITER_NOT_YET ? r : end;
}

static int applied_wait(struct endpoint *endpoint, const struct inbox *inbox, uint64_t generation,
			uint64_t offset, uint64_t deadline_ns)
{
	struct applying applying = {
		.endpoint = endpoint,
		.inbox = inbox,
		.generation = generation,
		.offset = offset,
		.began = endpoint_opposite(endpoint),
	};
	struct waiter waiter;

	endpoint_waiter(endpoint, &waiter, &inbox->lines[INBOX_SIDE_SENDER], deadline_ns);
	return waiter_wait(&waiter, applying_look, &applying);
}

int ipc_inbox_applied_wait(ipc_inbox_sender *sender, uint64_t offset,
			   const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = endpoint_enter((struct endpoint *)sender, IPC_ROLE_INBOX_SENDER);
	if (r < 0)
		return r;

	r = applied_wait(&sender->endpoint, &sender->sender.inbox, 0, offset, deadline_ns);

	endpoint_leave(&sender->endpoint);
	return r;
}

int ipc_inbox_observer_applied_wait(ipc_inbox_observer *observer, uint64_t generation,
				    uint64_t offset, const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = endpoint_enter((struct endpoint *)observer, IPC_ROLE_INBOX_OBSERVER);
	if (r < 0)
		return r;

	/* No snapshot has this one; the structure means the last one by it. */
	if (generation == 0)
		r = IPC_ESTALE;
	else
		r = applied_wait(&observer->endpoint, &observer->inbox, generation, offset,
				 deadline_ns);

	endpoint_leave(&observer->endpoint);
	return r;
}
