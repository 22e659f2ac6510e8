/* SPDX-License-Identifier: MIT */
#include "broker/peer.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

#include "broker/bells.h"
#include "broker/log.h"
#include "broker/segments.h"
#include "broker/users.h"
#include "broker/worker.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/crash.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/lock.h"
#include "libipc/platform/peer.h"
#include "libipc/wire/codec.h"

/*
 * Death: socket and pidfd are stored before the client's record says USED.  Before that a client
 * that loses its worker sees its connection end before WELCOME and connects again; after that the
 * next worker has both.  A HELLO that was done but not taken off the queue is answered again.
 */

/* Connections of one uid beyond its quota that are let in, to be told so in answer to their HELLO.
 */
#define QUIET_RESERVE 8

#define UID_NOBODY 65534

struct policy_subject peer_subject(const struct peer *peer)
{
	return (struct policy_subject){
		.uid = peer->record->uid,
		.gid = peer->record->gid,
		.is_foreign = peer->record->is_foreign,
		.socket_fd = peer->socket_fd,
	};
}

void peer_doom(struct worker *worker, struct peer *peer)
{
	if (peer->is_doomed)
		return;

	peer->is_doomed = true;
	peer->doomed_next = worker->doomed;
	worker->doomed = peer;
}

void peer_log(const struct peer *peer, const char *what)
{
	struct user *user = peer->user;
	uint64_t now_ns = clock_now_ns();

	if (user->logged_ns != 0 && now_ns - user->logged_ns < NS_PER_S)
		return;

	user->logged_ns = now_ns;
	log_line(LOG_LEVEL_WARNING, "client %u, pid %" PRId64 ", user %u: %s", peer->slot,
		 peer->record->pid, peer->record->uid, what);
}

/* ---- what is said to it ---- */

/* IPC_EAGAIN: there is no room. */
static int say(struct worker *worker, struct peer *peer, const union message *message,
	       const int *fds, unsigned n_fds)
{
	int r;

	if (peer->is_doomed)
		return IPC_EPIPE;

	CRASH_POINT();
	r = fdpass_send(peer->socket_fd, message, message->head.size, fds, n_fds);
	CRASH_POINT();
	if (r == 0 || r == IPC_EAGAIN)
		return r;

	/* Too many descriptors on their way to others, too: no reason to end this one. */
	if (n_fds > 0 && (r == IPC_ENFILE || r == IPC_EMFILE || r == IPC_ENOMEM))
		return r;

	if (r != IPC_EPIPE)
		peer_log(peer, "cannot be answered; disconnected");
	peer_doom(worker, peer);
	return r;
}

int peer_answer(struct worker *worker, struct peer *peer, const union message *message,
		const int *fds, unsigned n_fds)
{
	int r = say(worker, peer, message, fds, n_fds);

	if (r == IPC_EAGAIN) {
		peer_log(peer, "does not read its answers; disconnected");
		peer_doom(worker, peer);
	}
	return r;
}

static int socket_poll(const struct peer *peer, short events)
{
	struct pollfd poll_fd = {.fd = peer->socket_fd, .events = events};

	return poll(&poll_fd, 1, 0) < 0 ? POLLERR : poll_fd.revents;
}

bool peer_has_left(const struct peer *peer)
{
	struct pollfd poll_fds[] = {
		{.fd = peer->socket_fd, .events = POLLRDHUP},
		{.fd = peer->pidfd, .events = POLLIN},
	};

	return poll(poll_fds, N_ELEMENTS(poll_fds), 0) > 0;
}

static void socket_watch(struct worker *worker, struct peer *peer, uint32_t events)
{
	if (loop_change(&worker->loop, peer->socket_fd, LOOP_SOCKET, peer->slot,
			peer->record->generation, events) < 0)
		peer_doom(worker, peer);
}

static void clog_begin(struct worker *worker, struct peer *peer)
{
	/* Whatever comes is an event, once: it may be a close, which is heard all the same. */
	peer->is_clogged = true;
	socket_watch(worker, peer, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

int peer_offer(struct worker *worker, struct peer *peer, const union message *message,
	       const int *fds, unsigned n_fds)
{
	int r = say(worker, peer, message, fds, n_fds);

	if (r == IPC_EAGAIN && !peer->is_clogged)
		clog_begin(worker, peer);
	return r;
}

bool peer_has_room(struct worker *worker, struct peer *peer)
{
	if (peer->is_clogged)
		return false;

	/* Writable is a socket with three quarters of its room.  Who has hung up is found out by
	 * answering. */
	if (socket_poll(peer, POLLOUT) != 0)
		return true;

	clog_begin(worker, peer);
	return false;
}

int peer_unclog(struct worker *worker, struct peer *peer)
{
	int events = socket_poll(peer, POLLOUT | POLLRDHUP);

	if (events & (POLLOUT | POLLHUP | POLLERR)) {
		peer->is_clogged = false;
		socket_watch(worker, peer, EPOLLIN | EPOLLRDHUP);
		return peer->is_doomed ? IPC_EAGAIN : 0;
	}

	/* It will neither ask nor read. */
	if (events & POLLRDHUP)
		peer_doom(worker, peer);
	return IPC_EAGAIN;
}

static void result_init(union message *message, uint64_t request_id, int result)
{
	message_init(message, MESSAGE_DONE, request_id);
	/* Our descriptors are not the client's. */
	message->head.result = result == IPC_EMFILE ? IPC_ENFILE : result;
}

void peer_say_result(struct worker *worker, struct peer *peer, uint64_t request_id, int result)
{
	result_init(&worker->reply, request_id, result);
	peer_answer(worker, peer, &worker->reply, NULL, 0);
}

void peer_answer_result(struct worker *worker, struct peer *peer, uint64_t request_id, int result)
{
	struct client_record *record = peer->record;

	record->done_result = result;
	record_fence();
	CRASH_POINT();
	record->done_request = request_id;
	record_fence();
	peer_say_result(worker, peer, request_id, result);
}

/* ---- accept ---- */

/* To somebody who will never be a client.  What it said already is taken off the queue: unread
 * bytes would turn our answer into a reset. */
static void refuse(struct worker *worker, int socket_fd, int result)
{
	uint64_t request_id = 0;
	size_t size;

	if (fdpass_receive(socket_fd, &worker->request, sizeof(worker->request), &size, NULL,
			   NULL) == 0 &&
	    message_check_request(&worker->request, size) == 0)
		request_id = worker->request.head.request_id;

	result_init(&worker->reply, request_id, result);
	(void)fdpass_send(socket_fd, &worker->reply, worker->reply.head.size, NULL, 0);
	fd_close(socket_fd);
}

void peer_set_quiet(struct worker *worker, struct peer *peer)
{
	peer->is_quiet = true;
	peer->quiet_until_ns = clock_after_ns(PEER_HELLO_NS);
	peer->quiet_next = NULL;
	peer->quiet_prev = worker->quiet_last;
	if (worker->quiet_last)
		worker->quiet_last->quiet_next = peer;
	else
		worker->quiet_first = peer;
	worker->quiet_last = peer;
	++peer->user->n_quiet;
}

static void unset_quiet(struct worker *worker, struct peer *peer)
{
	if (!peer->is_quiet)
		return;

	peer->is_quiet = false;
	if (peer->quiet_prev)
		peer->quiet_prev->quiet_next = peer->quiet_next;
	else
		worker->quiet_first = peer->quiet_next;
	if (peer->quiet_next)
		peer->quiet_next->quiet_prev = peer->quiet_prev;
	else
		worker->quiet_last = peer->quiet_prev;
	--peer->user->n_quiet;
}

uint64_t peer_expire(struct worker *worker, uint64_t now_ns)
{
	struct peer *peer = worker->quiet_first;

	for (; peer && peer->quiet_until_ns <= now_ns; peer = peer->quiet_next)
		peer_doom(worker, peer);

	return peer ? peer->quiet_until_ns : 0;
}

int peer_watch(struct worker *worker, struct peer *peer)
{
	uint32_t generation = peer->record->generation;
	int r;

	r = loop_add(&worker->loop, peer->socket_fd, LOOP_SOCKET, peer->slot, generation,
		     EPOLLIN | EPOLLRDHUP);
	if (r < 0)
		return r;

	return loop_add(&worker->loop, peer->pidfd, LOOP_PIDFD, peer->slot, generation, EPOLLIN);
}

/* Makes the record be: after this the client outlives this worker. */
static int peer_commit(struct worker *worker, struct peer *peer,
		       const struct peer_identity *identity)
{
	struct client_record *record = peer->record;
	uint32_t generation = record->generation + 1;
	int r;

	record->generation = generation;
	record_fence();
	CRASH_POINT();
	r = segments_store(worker, 's', peer->slot, generation, peer->socket_fd);
	if (r < 0)
		return r;

	CRASH_POINT();
	r = segments_store(worker, 'p', peer->slot, generation, peer->pidfd);
	if (r < 0) {
		segments_unstore(worker, 's', peer->slot, generation);
		return r;
	}

	record->uid = identity->uid;
	record->gid = identity->gid;
	record->pid = identity->pid;
	record->is_foreign = record->is_welcome = record->died = record->closings_seen = 0;
	record->remove_request = record->done_request = REQUEST_NONE;
	CRASH_POINT();
	record_set(&record->state, RECORD_USED);
	CRASH_POINT();
	return 0;
}

static int peer_new(struct worker *worker, int socket_fd, const struct peer_identity *identity,
		    struct peer **ret)
{
	struct registry *registry = worker->registry;
	struct peer *peer;
	uint32_t slot;
	int r;

	if (!slots_take(&registry->client_slots, &slot))
		return IPC_ENFILE;

	peer = &registry->peer[slot];
	*peer = (struct peer){
		.slot = slot,
		.record = &registry->state->client[slot],
		.socket_fd = socket_fd,
		.pidfd = identity->pidfd,
		.bell_fd = -1,
	};

	r = peer_commit(worker, peer, identity);
	if (r < 0) {
		peer->record = NULL;
		slots_put(&registry->client_slots, slot);
		return r;
	}

	*ret = peer;
	return 0;
}

/* A place for one more connection of this uid: silent ones take theirs before they are known to be
 * clients at all. */
static int check_place(struct worker *worker, struct user *user)
{
	uint64_t limit = account_limit(&user->account, ACCOUNT_CONNECTIONS);
	uint64_t used = user->account.used[ACCOUNT_CONNECTIONS] + user->n_quiet;

	if (used >= limit + QUIET_RESERVE) {
		account_log_refusal(&user->account, ACCOUNT_CONNECTIONS, user->n_quiet + 1);
		return IPC_EDQUOT;
	}

	return segments_check_room(worker, 3);
}

void peer_accept(struct worker *worker, int socket_fd)
{
	struct peer_identity identity = {.pidfd = -1};
	bool needs_confirmation = false;
	struct peer *peer = NULL;
	struct user *user;
	int r;

	r = peer_identify(socket_fd, &identity, &needs_confirmation);
	if (r == IPC_ESTALE) {
		/* Whoever has ended by now needs no answer. */
		fd_close(socket_fd);
		return;
	}

	if (r == 0)
		r = users_get(worker, identity.uid, &user);
	if (r == 0)
		r = check_place(worker, user);
	if (r == 0)
		r = peer_new(worker, socket_fd, &identity, &peer);
	if (r < 0) {
		fd_close(identity.pidfd);
		refuse(worker, socket_fd, r);
		return;
	}

	peer->user = user;
	peer->needs_confirmation = needs_confirmation;
	peer_set_quiet(worker, peer);
	worker->had_clients = true;
	worker->idle_since_ns = 0;
	if (identity.uid == UID_NOBODY)
		peer_log(peer, "this uid may stand for many users of another namespace");

	if (peer_watch(worker, peer) < 0)
		peer_doom(worker, peer);
}

/* ---- HELLO ---- */

static int confirm_identity(struct peer *peer)
{
	struct peer_identity identity = {.pid = (pid_t)peer->record->pid,
					 .uid = peer->record->uid,
					 .gid = peer->record->gid,
					 .pidfd = peer->pidfd};

	pid_t sender;
	int r;

	if (!peer->needs_confirmation)
		return 0;

	r = peer_sender(peer->socket_fd, &sender);
	if (r < 0)
		return r;

	peer->needs_confirmation = false;
	return peer_identity_confirm(&identity, sender);
}

static int check_hello(struct peer *peer, const struct message_hello *hello)
{
	int r;

	if (hello->version_min > PROTOCOL_VERSION || hello->version_max < PROTOCOL_VERSION)
		return IPC_EPROTONOSUPPORT;

	if (hello->word_size != sizeof(void *) || hello->lock_stamp != lock_layout_stamp())
		return IPC_EPROTONOSUPPORT;

	r = confirm_identity(peer);
	if (r < 0)
		return r;

	return account_charge(&peer->user->account, ACCOUNT_CONNECTIONS, 1);
}

/* What it calls itself is shown to others, on their terminals. */
static void record_process_name(struct client_record *record, const struct message_hello *hello)
{
	unsigned i;

	memset(record->process_name, 0, sizeof(record->process_name));
	for (i = 0; i < sizeof(record->process_name) - 1 && hello->process_name[i] != '\0'; ++i) {
		char c = hello->process_name[i];

		record->process_name[i] = (char)(c >= ' ' && c <= '~' ? c : '?');
	}
}

static void answer_welcome(struct worker *worker, struct peer *peer, uint64_t request_id)
{
	struct message_welcome *welcome = &worker->reply.welcome;
	const struct user_record *user = peer->user->record;
	int fds[3] = {-1, peer->user->desk_fd, peer->bell_fd};
	int r;

	r = segments_reader(worker, peer->user, &fds[0]);
	if (r == 0) {
		message_init(&worker->reply, MESSAGE_WELCOME, request_id);
		welcome->version = PROTOCOL_VERSION;
		welcome->client_slot = peer->slot;
		welcome->uid = peer->record->uid;
		welcome->is_foreign = peer->record->is_foreign;
		welcome->table = (struct message_region){
			user->table_id, 0, segment_round(sizeof(struct liveness_table))};
		welcome->desk = (struct message_region){user->desk_id, 0,
							segment_round(sizeof(struct desk))};
		r = peer_answer(worker, peer, &worker->reply, fds, 3);
	}

	if (r < 0) {
		peer_answer_result(worker, peer, request_id, r);
		peer_doom(worker, peer);
	}
}

void peer_read_desk(const struct peer *peer, uint32_t *ret_closings, uint32_t *ret_ringings)
{
	uint64_t offset =
		offsetof(struct desk, client) + (uint64_t)peer->slot * sizeof(struct desk_client);
	uint32_t counters[2] = {0, 0};

	(void)segments_read(peer->user->desk_fd, offset, counters, sizeof(counters));
	*ret_closings = counters[0];
	*ret_ringings = counters[1];
}

bool peer_cell_says(const struct peer *peer, const struct handle *handle, size_t field)
{
	return segments_peek(peer->user->desk_fd, desk_cell_offset(handle->slot, field)) ==
	       handle->record->id;
}

void peer_hello(struct worker *worker, struct peer *peer, const struct message_hello *hello)
{
	struct client_record *record = peer->record;
	size_t size;
	int r;

	if (record->is_welcome && !peer->may_repeat) {
		peer_log(peer, "a second HELLO; disconnected");
		peer_doom(worker, peer);
		return;
	}

	if (!record->is_welcome) {
		r = bells_make(worker, peer);
		if (r == 0)
			r = check_hello(peer, hello);
		if (r < 0) {
			peer_answer_result(worker, peer, hello->head.request_id, r);
			/* Nothing unread may be left in the queue, or the client sees a reset
			 * instead of the answer. */
			(void)fdpass_receive(peer->socket_fd, &worker->request,
					     sizeof(worker->request), &size, NULL, NULL);
			peer_doom(worker, peer);
			return;
		}

		unset_quiet(worker, peer);
		record->is_foreign = hello->pid != record->pid;
		record_process_name(record, hello);
		peer_read_desk(peer, &record->closings_seen, &record->ringings_seen);
		CRASH_POINT();
		record_fence();
		record->is_welcome = 1;
		CRASH_POINT();
	}

	answer_welcome(worker, peer, hello->head.request_id);
}

/* ---- the end ---- */

void peer_remove(struct worker *worker, struct peer *peer)
{
	struct client_record *record = peer->record;
	uint32_t slot = peer->slot;

	unset_quiet(worker, peer);
	if (record->is_welcome)
		account_discharge(&peer->user->account, ACCOUNT_CONNECTIONS, 1);

	/* The keeper's copy keeps the file open, and an open file goes on giving events. */
	if (peer->socket_fd >= 0) {
		(void)loop_remove(&worker->loop, peer->socket_fd);
		segments_unstore(worker, 's', slot, record->generation);
	}
	if (peer->pidfd >= 0) {
		(void)loop_remove(&worker->loop, peer->pidfd);
		segments_unstore(worker, 'p', slot, record->generation);
	}
	bells_drop(worker, peer);
	fd_close(peer->socket_fd);
	fd_close(peer->pidfd);

	CRASH_POINT();
	record_set(&record->state, RECORD_FREE);
	CRASH_POINT();

	*peer = (struct peer){.slot = slot, .socket_fd = -1, .pidfd = -1, .bell_fd = -1};
	slots_put(&worker->registry->client_slots, slot);
	if (worker->registry->client_slots.n_used == 0)
		worker->idle_since_ns = clock_now_ns();
}
