/* SPDX-License-Identifier: MIT */

/*
 * What comes out of the socket: who reads it, and to whom it goes.
 */

#include "libipc/client/connection.h"

#include <poll.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/futex.h"
#include "libipc/wire/codec.h"

#define CONNECTION_WAIT INT32_MAX /* nothing decided yet */

/* Messages taken in one go: a broker that never stops talking must not keep us from the clock. */
#define CONNECTION_SHARE 64

/* More than a socket has room for: what comes beyond came after the look began. */
#define CONNECTION_ALL 4096

static void close_fds(int *fds, unsigned n_fds)
{
	for (unsigned i = 0; i < n_fds; ++i)
		fds[i] = fd_close(fds[i]);
}

/* The answer in connection->message goes to whom it belongs, or to nobody.  own: the call of the
 * thread that does this, or NULL. */
static void connection_dispatch(struct connection *connection, const struct connection_call *own,
				size_t size, int *fds, unsigned n_fds, int error)
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
		if (call == connection->poller && call != own)
			connection_nudge(connection);
	}
	pthread_mutex_unlock(&connection->mutex);

	close_fds(fds, n_fds);
}

static bool connection_is_news(const union message *message)
{
	return message->head.type == MESSAGE_BELLS || message->head.type == MESSAGE_JOINED ||
	       message->head.type == MESSAGE_OFFER;
}

/* error: 0, or why its descriptors did not come. */
static void connection_sort(struct connection *connection, const struct connection_call *own,
			    size_t size, int *fds, unsigned n_fds, int error)
{
	union message *message = &connection->message;

	if (connection_is_news(message) && connection->news_fn)
		connection->news_fn(connection->news_userdata, message, fds, n_fds);
	else
		connection_dispatch(connection, own, size, fds, n_fds, error);
}

/* Under the receive_mutex.  0: one message was taken; IPC_EAGAIN; the fault; IPC_ENOMEM. */
static int connection_receive(struct connection *connection, const struct connection_call *own)
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
			connection_sort(connection, own, size, fds, n_fds, 0);
			return 0;
		}
		close_fds(fds, n_fds);
		break;
	case IPC_EMFILE:
		/* The message came, its descriptors did not. */
		if (!connection_is_news(message) ||
		    message_check_reply(message, message->head.size) == 0)
			connection_sort(connection, own, sizeof(message->head), fds, 0, IPC_EMFILE);
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

	return atomic_load_explicit(&connection->cancelled, memory_order_acquire) &&
			       !call->is_decided
		       ? IPC_ECANCELED
		       : CONNECTION_WAIT;
}

/* As the reader, without the mutex: 0 or negative, both after something may have changed. */
static int connection_read(struct connection *connection, const struct connection_call *call,
			   uint64_t deadline_ns)
{
	int r = 0;

	connection_poll(connection, POLLIN, deadline_ns, true);
	if (!connection_is_ours(connection))
		return connection_result(connection, IPC_ESTALE);

	/* [C3] Pairs with [C2]. */
	for (unsigned i = 0; i < CONNECTION_SHARE && r == 0 &&
			     !atomic_load_explicit(&call->answered, memory_order_acquire);
	     ++i) {
		pthread_mutex_lock(&connection->receive_mutex);
		r = connection_receive(connection, call);
		pthread_mutex_unlock(&connection->receive_mutex);
	}

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
		connection->poller = call;
		pthread_mutex_unlock(&connection->mutex);
		r = connection_read(connection, call, deadline_ns);
		pthread_mutex_lock(&connection->mutex);
		connection->poller = NULL;
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
	call->is_waiting = call->is_decided = false;
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

	/* Taken: by one who catches up, or by this thread, which rings inside of what it does
	 * there. */
	if (pthread_mutex_trylock(&connection->receive_mutex) == 0) {
		for (unsigned i = 0; i < CONNECTION_SHARE && r == 0; ++i)
			r = connection_receive(connection, NULL);
		pthread_mutex_unlock(&connection->receive_mutex);
	}

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

void connection_catch_up(struct connection *connection, const _Atomic uint32_t *n_joined)
{
	/* [C4] What the number counts lies in the socket.  Pairs with [V7] in core/liveness.c. */
	uint32_t number = atomic_load_explicit(n_joined, memory_order_acquire);
	int cancel_state, r = 0;

	/* [C5] Pairs with [C6]: what another thread took out is with its group. */
	if (LIKELY(atomic_load_explicit(&connection->joined_seen, memory_order_acquire) == number))
		return;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	pthread_mutex_lock(&connection->receive_mutex);
	if (!atomic_load_explicit(&connection->fault, memory_order_acquire) &&
	    connection_is_ours(connection))
		for (unsigned i = 0; i < CONNECTION_ALL && r == 0; ++i)
			r = connection_receive(connection, NULL);

	/* [C6] */
	atomic_store_explicit(&connection->joined_seen, number, memory_order_release);
	pthread_mutex_unlock(&connection->receive_mutex);
	(void)pthread_setcancelstate(cancel_state, NULL);
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
