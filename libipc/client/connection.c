/* SPDX-License-Identifier: MIT */
#include "libipc/client/connection.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/futex.h"
#include "libipc/platform/syserr.h"
#include "libipc/wire/codec.h"

/* ---- begin and end ---- */

static int connection_init_fds(struct connection *connection)
{
	struct stat status;

	if (fstat(connection->fd, &status) < 0)
		return syserr(SYSERR_STAT, errno);
	connection->device = status.st_dev;
	connection->inode = status.st_ino;

	connection->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (connection->event_fd < 0)
		return syserr(SYSERR_EVENTFD, errno);

	connection->fds = forked_fds_new();
	if (!connection->fds)
		return IPC_ENOMEM;

	forked_fds_set(connection->fds, connection->fd, connection->device, connection->inode,
		       connection->event_fd);
	return 0;
}

int connection_init(struct connection *connection, int fd)
{
	int r;

	memset(connection, 0, sizeof(*connection));
	connection->fd = fd;
	connection->event_fd = -1;
	connection->next_id = 1;
	if (pthread_mutex_init(&connection->mutex, NULL) != 0 ||
	    pthread_mutex_init(&connection->receive_mutex, NULL) != 0) {
		connection->fd = fd_close(fd);
		return IPC_ENOMEM;
	}

	r = connection_init_fds(connection);
	if (r < 0)
		connection_deinit(connection, false);
	return r;
}

bool connection_is_ours(const struct connection *connection)
{
	return connection->fd >= 0 &&
	       forked_fd_is(connection->fd, connection->device, connection->inode);
}

void connection_deinit(struct connection *connection, bool is_foreign)
{
	/* The mutex of a forked child may be held by a thread that is not there. */
	if (is_foreign)
		return;

	/* What stands under our numbers after a closefrom() is not ours to close. */
	if (connection_is_ours(connection)) {
		connection->fd = fd_close(connection->fd);
		connection->event_fd = fd_close(connection->event_fd);
	}

	connection->fds = forked_fds_free(connection->fds);
	(void)pthread_mutex_destroy(&connection->receive_mutex);
	(void)pthread_mutex_destroy(&connection->mutex);
}

/* ---- faults, cancel ---- */

void connection_wake(struct connection_call *call)
{
	atomic_fetch_add_explicit(&call->turn, 1, memory_order_release);
	futex_wake_private(&call->turn);
}

void connection_fail(struct connection *connection, int32_t fault)
{
	int32_t none = 0;
	uint64_t never = 0;

	(void)atomic_compare_exchange_strong_explicit(&connection->lost_ns, &never, clock_now_ns(),
						      memory_order_relaxed, memory_order_relaxed);
	if (!atomic_compare_exchange_strong_explicit(&connection->fault, &none, fault,
						     memory_order_release, memory_order_relaxed))
		return;

	pthread_mutex_lock(&connection->mutex);
	for (struct connection_call *call = connection->calls; call; call = call->next)
		connection_wake(call);
	pthread_mutex_unlock(&connection->mutex);
}

void connection_lose(struct connection *connection)
{
	connection_fail(connection, IPC_ECONNREFUSED);
}

void connection_bump(struct connection *connection)
{
	/* [C1] What was cancelled is marked before the word moves.  Pairs with the acquire loads of
	 * the word by those who sleep on it. */
	atomic_fetch_add_explicit(&connection->cancel_word, 1, memory_order_release);
	futex_wake_private(&connection->cancel_word);
}

void connection_cancel(struct connection *connection)
{
	const uint64_t one = 1;
	int saved_errno = errno;

	atomic_store_explicit(&connection->cancelled, 1, memory_order_release);
	connection_bump(connection);

	/* It stays: a cancel is for ever.  Only full, that is readable, it would refuse. */
	if (connection_is_ours(connection))
		(void)!write(connection->event_fd, &one, sizeof(one));

	errno = saved_errno;
}

void connection_nudge(struct connection *connection)
{
	const uint64_t one = 1;

	(void)!write(connection->event_fd, &one, sizeof(one));
}

/* After event_fd was found readable. is_poller: the nudge can be for nobody else. */
static void connection_take_nudge(struct connection *connection, bool is_poller)
{
	uint64_t count;

	if (!is_poller) {
		bool is_mine;

		pthread_mutex_lock(&connection->mutex);
		is_mine = !connection->poller;
		pthread_mutex_unlock(&connection->mutex);
		if (!is_mine)
			return;
	}

	if (atomic_load_explicit(&connection->cancelled, memory_order_acquire))
		return;

	/* A cancel before the read is seen after it, and one after it is readable. */
	if (read(connection->event_fd, &count, sizeof(count)) > 0 &&
	    atomic_load_explicit(&connection->cancelled, memory_order_acquire))
		connection_nudge(connection);
}

/* ---- sending ---- */

int connection_result(struct connection *connection, int r)
{
	switch (r) {
	case IPC_EPIPE:
	case IPC_ECONNRESET:
	case IPC_ENOTCONN:
	case IPC_ECONNREFUSED:
		connection_fail(connection, IPC_ECONNREFUSED);
		return IPC_ECONNREFUSED;
	case IPC_ESTALE:
		connection_fail(connection, IPC_ESTALE);
		return IPC_ESTALE;
	default:
		return r;
	}
}

static int connection_transmit(struct connection *connection, const union message *message)
{
	int32_t fault = atomic_load_explicit(&connection->fault, memory_order_acquire);

	if (fault)
		return fault;
	if (!connection_is_ours(connection))
		return connection_result(connection, IPC_ESTALE);

	return connection_result(connection,
				 fdpass_send(connection->fd, message, message->head.size, NULL, 0));
}

void connection_send_unsent(struct connection *connection)
{
	union message message;
	int r = 0;

	pthread_mutex_lock(&connection->mutex);
	for (uint32_t n; r == 0 && (n = atomic_load_explicit(&connection->n_unsent,
							     memory_order_relaxed)) > 0;) {
		message_init(&message, MESSAGE_CANCEL, 0);
		message.cancel.cancelled_id = connection->unsent[n - 1];

		/* A fault wakes everybody, which takes the mutex: send without looking at what it
		 * means. */
		r = fdpass_send(connection->fd, &message, message.head.size, NULL, 0);
		if (r == 0)
			atomic_store_explicit(&connection->n_unsent, n - 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&connection->mutex);
}

bool connection_has_unsent(struct connection *connection)
{
	return UNLIKELY(atomic_load_explicit(&connection->n_unsent, memory_order_relaxed) > 0);
}

int connection_try_send(struct connection *connection, const union message *message)
{
	if (connection_has_unsent(connection) && connection_is_ours(connection))
		connection_send_unsent(connection);

	return connection_transmit(connection, message);
}

void connection_poll(struct connection *connection, short events, uint64_t deadline_ns,
		     bool is_poller)
{
	struct pollfd polls[] = {
		{.fd = connection->fd, .events = events},
		{.fd = connection->event_fd, .events = POLLIN},
	};
	uint64_t now_ns = clock_now_ns();
	uint64_t ns = futex_slice_ns();
	struct timespec timeout;

	if (deadline_ns <= now_ns)
		return;

	timeout = clock_to_timespec(deadline_ns - now_ns < ns ? deadline_ns - now_ns : ns);

	/* A signal does not end the call: poll(2) cannot tell a handler that asked for a restart.
	 */
	if (ppoll(polls, N_ELEMENTS(polls), &timeout, NULL) > 0 && (polls[1].revents & POLLIN))
		connection_take_nudge(connection, is_poller);
}

int connection_send(struct connection *connection, const union message *message,
		    uint64_t deadline_ns)
{
	int r;

	for (;;) {
		if (atomic_load_explicit(&connection->cancelled, memory_order_acquire))
			return IPC_ECANCELED;

		r = connection_try_send(connection, message);
		if (r != IPC_EAGAIN)
			return r;
		if (clock_now_ns() >= deadline_ns)
			return IPC_ETIMEDOUT;

		/* The broker takes nothing from who has its answers still to read: they may be
		 * nobody's any more. */
		connection_poll(connection, POLLIN | POLLOUT, deadline_ns, false);
		(void)connection_check(connection);
	}
}

void connection_withdraw(struct connection *connection, uint64_t id)
{
	union message message;
	uint32_t n;

	message_init(&message, MESSAGE_CANCEL, 0);
	message.cancel.cancelled_id = id;
	if (connection_try_send(connection, &message) != IPC_EAGAIN)
		return;

	/* One that finds no place here either means a broker that has not read for hundreds of
	 * requests; it sees our end in any case. */
	pthread_mutex_lock(&connection->mutex);
	n = atomic_load_explicit(&connection->n_unsent, memory_order_relaxed);
	if (n < CONNECTION_UNSENT_MAX) {
		connection->unsent[n] = id;
		atomic_store_explicit(&connection->n_unsent, n + 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&connection->mutex);
}
