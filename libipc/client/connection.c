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

#define CONNECTION_WAIT INT32_MAX /* nothing decided yet */

/* Messages taken in one go: a broker that never stops talking must not keep us from the clock. */
#define CONNECTION_SHARE 64

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
	if (pthread_mutex_init(&connection->mutex, NULL) != 0) {
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
	(void)pthread_mutex_destroy(&connection->mutex);
}

/* ---- faults, cancel ---- */

static void connection_wake(struct connection_call *call)
{
	atomic_fetch_add_explicit(&call->turn, 1, memory_order_release);
	futex_wake_private(&call->turn);
}

/* The first fault stays.  Everybody who awaits an answer learns of it. */
static void connection_fail(struct connection *connection, int32_t fault)
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

	/* It is never read: a cancel is for ever.  Only full, that is readable, it would refuse. */
	if (connection_is_ours(connection))
		(void)!write(connection->event_fd, &one, sizeof(one));

	errno = saved_errno;
}

/* ---- sending ---- */

/* From what a send or receive says to the fault that it is, if it is one. */
static int connection_result(struct connection *connection, int r)
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

/* As far as there is room. */
static void connection_send_unsent(struct connection *connection)
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

static bool connection_has_unsent(struct connection *connection)
{
	return UNLIKELY(atomic_load_explicit(&connection->n_unsent, memory_order_relaxed) > 0);
}

int connection_try_send(struct connection *connection, const union message *message)
{
	if (connection_has_unsent(connection) && connection_is_ours(connection))
		connection_send_unsent(connection);

	return connection_transmit(connection, message);
}

/* One slice at most; returns early for a signal, for room or an answer, and when the client was
 * cancelled. */
static void connection_poll(const struct connection *connection, short events, uint64_t deadline_ns)
{
	struct pollfd polls[] = {
		{.fd = connection->fd, .events = events},
		{.fd = connection->event_fd, .events = POLLIN},
	};
	uint64_t now_ns = clock_now_ns();
	struct timespec timeout;

	if (deadline_ns <= now_ns)
		return;

	timeout = clock_to_timespec(deadline_ns - now_ns < FUTEX_SLICE_NS ? deadline_ns - now_ns
									  : FUTEX_SLICE_NS);

	/* A signal does not end the call: poll(2) cannot tell a handler that asked for a restart.
	 */
	(void)ppoll(polls, N_ELEMENTS(polls), &timeout, NULL);
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
		connection_poll(connection, POLLIN | POLLOUT, deadline_ns);
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

/* ---- receiving ---- */

static void close_fds(int *fds, unsigned n_fds)
{
	for (unsigned i = 0; i < n_fds; ++i)
		fds[i] = fd_close(fds[i]);
}

/* The answer in connection->message goes to whom it belongs, or to nobody. */
static void connection_dispatch(struct connection *connection, size_t size, int *fds,
				unsigned n_fds, int error)
{
	struct connection_call *call;

	pthread_mutex_lock(&connection->mutex);
	for (call = connection->calls; call; call = call->next)
		if (call->id == connection->message.head.request_id)
			break;

	/* A second answer to one message is a worker's that did again what a dead one had done. */
	if (call && !atomic_load_explicit(&call->answered, memory_order_relaxed) &&
	    (call->unwanted == 0 || call->unwanted != connection->message.head.type)) {
		memcpy(&call->reply, &connection->message, size);
		memcpy(call->fds, fds, n_fds * sizeof(fds[0]));
		call->n_fds = n_fds;
		call->error = error;
		n_fds = 0;

		/* [C2] The answer is there before it says so.  Pairs with [C3]. */
		atomic_store_explicit(&call->answered, 1, memory_order_release);
		connection_wake(call);
	}
	pthread_mutex_unlock(&connection->mutex);

	close_fds(fds, n_fds);
}

static bool connection_is_news(const union message *message)
{
	return message->head.type == MESSAGE_BELLS || message->head.type == MESSAGE_JOINED;
}

/* By the one thread that reads.  0: one message was taken; IPC_EAGAIN; the fault; IPC_ENOMEM. */
static int connection_receive(struct connection *connection)
{
	union message *message = &connection->message;
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds = 0;
	size_t size = 0;
	int r;

	message->head = (struct message_head){0};
	r = fdpass_receive(connection->fd, message, sizeof(*message), &size, fds, &n_fds);
	switch (r) {
	case 0:
		if (message_check_reply(message, size) == 0) {
			if (connection_is_news(message) && connection->news_fn)
				connection->news_fn(connection->news_userdata, message, fds, n_fds);
			else
				connection_dispatch(connection, size, fds, n_fds, 0);
			return 0;
		}
		close_fds(fds, n_fds);
		break;
	case IPC_EMFILE:
		/* The message came, its descriptors did not. */
		connection_dispatch(connection, sizeof(message->head), fds, 0, IPC_EMFILE);
		return 0;
	case IPC_EMSGSIZE:
		break;
	default:
		return connection_result(connection, r);
	}

	connection_fail(connection, IPC_EPROTO);
	return IPC_EPROTO;
}

/* Under the mutex. */
static int connection_state(const struct connection *connection, const struct connection_call *call)
{
	int32_t fault;

	if (atomic_load_explicit(&call->answered, memory_order_relaxed))
		return call->error;

	fault = atomic_load_explicit(&connection->fault, memory_order_acquire);
	if (fault)
		return fault;

	return atomic_load_explicit(&connection->cancelled, memory_order_acquire) ? IPC_ECANCELED
										  : CONNECTION_WAIT;
}

/* As the reader, without the mutex: 0 or negative, both after something may have changed. */
static int connection_read(struct connection *connection, const struct connection_call *call,
			   uint64_t deadline_ns)
{
	int r = 0;

	connection_poll(connection, POLLIN, deadline_ns);
	if (!connection_is_ours(connection))
		return connection_result(connection, IPC_ESTALE);

	/* [C3] Pairs with [C2]. */
	for (unsigned i = 0; i < CONNECTION_SHARE && r == 0 &&
			     !atomic_load_explicit(&call->answered, memory_order_acquire);
	     ++i)
		r = connection_receive(connection);

	return r == IPC_EAGAIN ? 0 : r;
}

/* Under the mutex, by one who leaves: somebody else has to read now. */
static void connection_pass_on(struct connection *connection)
{
	if (connection->is_reading)
		return;

	for (struct connection_call *call = connection->calls; call; call = call->next) {
		if (call->is_waiting &&
		    !atomic_load_explicit(&call->answered, memory_order_relaxed)) {
			connection_wake(call);
			return;
		}
	}
}

/* One step of an await: reads, or sleeps while another thread reads.  The mutex is held before and
 * after. */
static int connection_step(struct connection *connection, struct connection_call *call,
			   uint64_t deadline_ns)
{
	struct futex_word words[] = {
		{.word = &call->turn,
		 .expected = atomic_load_explicit(&call->turn, memory_order_acquire),
		 .is_private = true},
		{.word = &connection->cancel_word, .is_private = true},
	};
	int r = 0;

	if (!connection->is_reading) {
		connection->is_reading = true;
		pthread_mutex_unlock(&connection->mutex);
		r = connection_read(connection, call, deadline_ns);
		pthread_mutex_lock(&connection->mutex);
		connection->is_reading = false;
		return r;
	}

	words[1].expected = atomic_load_explicit(&connection->cancel_word, memory_order_acquire);
	if (atomic_load_explicit(&connection->cancelled, memory_order_acquire))
		return 0;

	pthread_mutex_unlock(&connection->mutex);
	(void)futex_sleep(words, N_ELEMENTS(words), deadline_ns);
	pthread_mutex_lock(&connection->mutex);
	return 0;
}

int connection_await(struct connection *connection, struct connection_call *call,
		     uint64_t deadline_ns)
{
	int r, read_error = 0;

	pthread_mutex_lock(&connection->mutex);
	call->is_waiting = true;
	for (;;) {
		r = connection_state(connection, call);
		if (r == CONNECTION_WAIT && read_error < 0)
			r = read_error;
		if (r == CONNECTION_WAIT && clock_now_ns() >= deadline_ns)
			r = IPC_ETIMEDOUT;
		if (r != CONNECTION_WAIT)
			break;

		read_error = connection_step(connection, call, deadline_ns);
	}
	call->is_waiting = false;
	connection_pass_on(connection);
	pthread_mutex_unlock(&connection->mutex);

	return r;
}

void connection_expect(struct connection *connection, struct connection_call *call,
		       enum message_type unwanted)
{
	/* Nobody writes to an answered call: no need for the mutex here. */
	close_fds(call->fds, call->n_fds);
	call->n_fds = 0;
	call->error = 0;

	pthread_mutex_lock(&connection->mutex);
	call->unwanted = (uint16_t)unwanted;
	atomic_store_explicit(&call->answered, 0, memory_order_relaxed);
	pthread_mutex_unlock(&connection->mutex);
}

uint64_t connection_reply_deadline(uint64_t deadline_ns)
{
	return deadline_ns <= clock_now_ns() ? clock_after_ns(CONNECTION_LOOK_NS) : deadline_ns;
}

void connection_begin(struct connection *connection, struct connection_call *call)
{
	call->n_fds = 0;
	call->error = 0;
	call->is_waiting = false;
	call->unwanted = 0;
	atomic_init(&call->turn, 0);
	atomic_init(&call->answered, 0);

	/* A thread that ended in the middle would leave a call in the list whose memory is gone. */
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &call->cancel_state);

	pthread_mutex_lock(&connection->mutex);
	call->id = connection->next_id++;
	call->next = connection->calls;
	connection->calls = call;
	pthread_mutex_unlock(&connection->mutex);
}

void connection_end(struct connection *connection, struct connection_call *call)
{
	struct connection_call **link;

	pthread_mutex_lock(&connection->mutex);
	for (link = &connection->calls; *link != call; link = &(*link)->next)
		;
	*link = call->next;
	pthread_mutex_unlock(&connection->mutex);

	close_fds(call->fds, call->n_fds);
	call->n_fds = 0;
	(void)pthread_setcancelstate(call->cancel_state, NULL);
}

/* ---- the look at the socket, once a slice ---- */

/* Takes what lies there, so that no end of stream hides behind it. */
static void connection_drain(struct connection *connection)
{
	int r = 0;

	pthread_mutex_lock(&connection->mutex);
	if (connection->is_reading) {
		pthread_mutex_unlock(&connection->mutex);
		return;
	}
	connection->is_reading = true;
	pthread_mutex_unlock(&connection->mutex);

	for (unsigned i = 0; i < CONNECTION_SHARE && r == 0; ++i)
		r = connection_receive(connection);

	pthread_mutex_lock(&connection->mutex);
	connection->is_reading = false;
	connection_pass_on(connection);
	pthread_mutex_unlock(&connection->mutex);
}

void connection_take(struct connection *connection)
{
	if (!atomic_load_explicit(&connection->fault, memory_order_acquire) &&
	    connection_is_ours(connection))
		connection_drain(connection);
}

int connection_check(struct connection *connection)
{
	struct pollfd poll_fd = {.fd = connection->fd, .events = POLLIN};
	int32_t fault = atomic_load_explicit(&connection->fault, memory_order_acquire);

	if (fault)
		return fault;
	if (!connection_is_ours(connection))
		return connection_result(connection, IPC_ESTALE);

	if (poll(&poll_fd, 1, 0) > 0) {
		if (poll_fd.revents & (POLLHUP | POLLERR))
			return connection_result(connection, IPC_ECONNREFUSED);
		if (poll_fd.revents & POLLIN)
			connection_drain(connection);
	}
	if (connection_has_unsent(connection))
		connection_send_unsent(connection);

	return atomic_load_explicit(&connection->fault, memory_order_acquire);
}
