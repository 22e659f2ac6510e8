/* SPDX-License-Identifier: MIT */

/*
 * What an end sends: messages, with descriptors, claims and commits, and waits for room.
 */

#include "libipc/client/session.h"

#include <ipc/error.h>

#include "libipc/platform/clock.h"

/* ---- one attempt ---- */

struct sending {
	ipc_session *session;
	int (*attempt)(struct sending *sending);
	const void *data;
	size_t size;
	int fd;
	void *claim;
};

static int attempt_send(struct sending *sending)
{
	return session_send(&sending->session->view, sending->data, sending->size);
}

static int attempt_send_fd(struct sending *sending)
{
	return session_send_fd(&sending->session->view, sending->fd, sending->data, sending->size);
}

static int attempt_claim(struct sending *sending)
{
	return session_claim(&sending->session->view, sending->size, &sending->claim);
}

/* Nobody will read it after the final end, whatever room there is. */
static int sending_look(void *subject)
{
	struct sending *sending = subject;
	int r;

	r = session_end(sending->session);
	if (UNLIKELY(r < 0))
		return r;

	r = sending->attempt(sending);
	return r == IPC_EAGAIN ? WAITER_NOT_YET : r;
}

/* deadline_ns NULL: without a wait. */
static int sending_run(struct sending *sending, const uint64_t *deadline_ns)
{
	ipc_session *session = sending->session;
	struct waiter waiter;
	int r;

	if (sending->size > session->view.message_size_max)
		return IPC_EMSGSIZE;

	r = sending_look(sending);
	if (LIKELY(r != WAITER_NOT_YET))
		return r;
	if (!deadline_ns)
		return IPC_EAGAIN;

	endpoint_waiter(&session->endpoint, &waiter, session_line(&session->view), *deadline_ns);
	return waiter_wait(&waiter, sending_look, sending);
}

static int sending_do(struct sending *sending, const uint64_t *deadline_ns)
{
	int r;

	r = session_enter(sending->session);
	if (r < 0)
		return r;

	r = sending_run(sending, deadline_ns);

	session_leave_call(sending->session);
	return r;
}

static int sending_do_wait(struct sending *sending, const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	return r < 0 ? r : sending_do(sending, &deadline_ns);
}

/* ---- messages ---- */

int ipc_session_send(ipc_session *session, const void *data, size_t size)
{
	struct sending sending = {session, attempt_send, .data = data, .size = size};

	return !data && size > 0 ? IPC_EINVAL : sending_do(&sending, NULL);
}

int ipc_session_send_wait(ipc_session *session, const void *data, size_t size,
			  const struct timespec *deadline)
{
	struct sending sending = {session, attempt_send, .data = data, .size = size};

	return !data && size > 0 ? IPC_EINVAL : sending_do_wait(&sending, deadline);
}

int ipc_session_send_fd(ipc_session *session, int fd, const void *data, size_t size)
{
	struct sending sending = {session, attempt_send_fd, data, size, .fd = fd};

	return fd < 0 || (!data && size > 0) ? IPC_EINVAL : sending_do(&sending, NULL);
}

int ipc_session_send_fd_wait(ipc_session *session, int fd, const void *data, size_t size,
			     const struct timespec *deadline)
{
	struct sending sending = {session, attempt_send_fd, data, size, .fd = fd};

	return fd < 0 || (!data && size > 0) ? IPC_EINVAL : sending_do_wait(&sending, deadline);
}

/* ---- claims ---- */

int ipc_session_claim(ipc_session *session, size_t size, void **ret_data)
{
	struct sending sending = {session, attempt_claim, .size = size};
	int r;

	if (!ret_data)
		return IPC_EINVAL;

	r = sending_do(&sending, NULL);
	if (r == 0)
		*ret_data = sending.claim;
	return r;
}

int ipc_session_claim_wait(ipc_session *session, size_t size, void **ret_data,
			   const struct timespec *deadline)
{
	struct sending sending = {session, attempt_claim, .size = size};
	int r;

	if (!ret_data)
		return IPC_EINVAL;

	r = sending_do_wait(&sending, deadline);
	if (r == 0)
		*ret_data = sending.claim;
	return r;
}

int ipc_session_commit(ipc_session *session, void *data, size_t size)
{
	int r;

	r = session_enter(session);
	if (r < 0)
		return r;

	r = session_end(session);
	if (LIKELY(r == 0))
		r = session_commit(&session->view, data, size);

	session_leave_call(session);
	return r;
}

int ipc_session_commit_release(ipc_session *session, void *data, size_t size,
			       const struct ipc_session_message *request)
{
	int r;

	if (!request)
		return IPC_EINVAL;

	r = session_enter(session);
	if (r < 0)
		return r;

	r = session_end(session);
	if (LIKELY(r == 0))
		r = session_commit_release(&session->view, data, size, request);

	session_leave_call(session);
	return r;
}

int ipc_session_abort(ipc_session *session, void *data)
{
	int r;

	r = session_enter(session);
	if (r < 0)
		return r;

	r = session_abort(&session->view, data);

	session_leave_call(session);
	return r;
}
