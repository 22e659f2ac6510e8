/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_CONNECTION_H
#define LIBIPC_CLIENT_CONNECTION_H

/*
 * The control socket of one client, used by all its threads.
 *
 * There is no thread of the library's: of those who wait for an answer one reads the socket and
 * hands to each what is his; the others sleep on a word of their call.  Whoever leaves wakes
 * another one to read on.  Answers that nobody awaits are dropped with their descriptors: the
 * broker may answer twice when its worker died, and late when an open was withdrawn.
 *
 * Who pushes to a group takes what lies in the socket without waiting for the thread that reads:
 * that one may sleep in poll(2), and is nudged by way of event_fd if its answer was among it.
 *
 * A connection that broke stays broken: `fault` says how, for ever.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "libipc/client/forked.h"
#include "libipc/platform/fdpass.h"
#include "libipc/wire/protocol.h"

/* A look that must not wait still needs one answer of a broker that is there: this long. */
#define CONNECTION_LOOK_NS UINT64_C(1000000000)

/* Withdrawals that found the socket full and are to be sent later. */
#define CONNECTION_UNSENT_MAX 64

/* Somebody who awaits answers to one request, in the awaiting thread's memory. */
struct connection_call {
	struct connection_call *next;
	uint64_t id;
	_Atomic uint32_t turn;     /* bumped: look again */
	_Atomic uint32_t answered; /* `error` and what follows it is there */
	bool is_waiting;           /* in connection_await() */
	bool is_decided;   /* its answer comes at once: also for a client that is cancelled */
	uint16_t unwanted; /* enum message_type that is dropped; 0: none */
	int cancel_state;  /* of the thread, before the call */

	/* Written by the reader while `answered` is 0, then the call's until connection_expect().
	 */
	int error; /* 0, or why the answer could not be received */
	unsigned n_fds;
	int fds[FDPASS_FDS_MAX];
	union message reply;
};

struct connection {
	int fd;       /* -1: not connected */
	int event_fd; /* readable for ever once the client was cancelled, for a moment by a nudge */
	dev_t device; /* of the socket: another file may come to stand under its number */
	ino_t inode;
	struct forked_fds *fds; /* what a forked child closes */

	/* What all waits of the client sleep on: bumped by each cancel and close. */
	_Atomic uint32_t cancel_word;
	_Atomic uint32_t cancelled;

	/* 0; ECONNREFUSED: the broker hung up; ESTALE: not our socket any more; EPROTO. */
	_Atomic int32_t fault;
	_Atomic uint64_t lost_ns; /* when that was found out; 0: not */

	/* From before a message leaves the socket until it is where it belongs; never held while
	 * sleeping.  Before `mutex`. */
	pthread_mutex_t receive_mutex;
	union message message;

	/* What the client's n_joined was when all that lay in the socket was taken out. */
	_Atomic uint32_t joined_seen;

	pthread_mutex_t mutex; /* over what follows; never held while sleeping */
	struct connection_call *calls;
	bool is_reading;                /* one thread polls and receives for all */
	struct connection_call *poller; /* its call; NULL: it awaits nothing */
	uint64_t next_id;
	_Atomic uint32_t n_unsent;
	uint64_t unsent[CONNECTION_UNSENT_MAX];

	/* Messages that nobody awaits, in whichever thread reads, under the receive_mutex alone.
	 * Takes the descriptors.  NULL: they are dropped. */
	void (*news_fn)(void *userdata, const union message *message, int *fds, unsigned n_fds);
	void *news_userdata;
};

/* Takes the socket, also on failure. */
int connection_init(struct connection *connection, int fd);
/* is_foreign: in a forked child, where the descriptors are closed already. */
void connection_deinit(struct connection *connection, bool is_foreign);

/* Until when to wait for the answer of a broker that is there, if the call may last until
 * deadline_ns. */
uint64_t connection_reply_deadline(uint64_t deadline_ns);

/* A call awaits answers to one id; between begin and end the thread cannot be cancelled.
 * end closes the descriptors that came. */
void connection_begin(struct connection *connection, struct connection_call *call);
void connection_end(struct connection *connection, struct connection_call *call);

/*
 * Sends; waits for room.  0; IPC_ECONNREFUSED, IPC_ESTALE, IPC_EPROTO: the fault; IPC_ETIMEDOUT;
 * IPC_ECANCELED; IPC_ENOMEM.
 */
int connection_send(struct connection *connection, const union message *message,
		    uint64_t deadline_ns);

/* The same without waiting: IPC_EAGAIN. */
int connection_try_send(struct connection *connection, const union message *message);

/* Sleeps until call->reply is there (0).  Results as above, IPC_EMFILE: its descriptors were lost.
 */
int connection_await(struct connection *connection, struct connection_call *call,
		     uint64_t deadline_ns);

/*
 * Before the message that brings the next answer to the same id: closes the descriptors of the last
 * one, and drops what a second worker answers to the message before (unwanted).
 */
void connection_expect(struct connection *connection, struct connection_call *call,
		       enum message_type unwanted);

/* Tells the broker that the OPEN with this id is not awaited any more.  Never sleeps; what cannot
 * be sent now is sent later. */
void connection_withdraw(struct connection *connection, uint64_t id);

/* Once a slice, from whoever sleeps for long: 0 or the fault.  Drops answers that nobody awaits. */
int connection_check(struct connection *connection);

/* Takes what lies in the socket, without sleeping; another thread that reads does it instead. */
void connection_take(struct connection *connection);

/*
 * All JOINED that the number counts are with their groups when it returns, whoever took them out of
 * the socket.  n_joined: of the client's own attention line.  Never sleeps.
 */
void connection_catch_up(struct connection *connection, const _Atomic uint32_t *n_joined);

/* Whether the socket is still ours: else descriptors of the library are not, either. */
bool connection_is_ours(const struct connection *connection);

/* The broker says that it ends (which may be seen before the end of the stream). */
void connection_lose(struct connection *connection);

/* Ends all sends and awaits, and those to come.  Async-signal-safe. */
void connection_cancel(struct connection *connection);
void connection_bump(struct connection *connection); /* waits look again */

/* ---- between connection.c and connection_read.c ---- */

/* The call's thread looks again. */
void connection_wake(struct connection_call *call);

/* The first fault stays.  Everybody who awaits an answer learns of it. */
void connection_fail(struct connection *connection, int32_t fault);

/* From what a send or receive says to the fault that it is, if it is one. */
int connection_result(struct connection *connection, int r);

/* The poller's answer was taken out of the socket by another thread. */
void connection_nudge(struct connection *connection);

/* One slice at most; returns early for a signal, for room or an answer, and when the client was
 * cancelled. */
void connection_poll(struct connection *connection, short events, uint64_t deadline_ns,
		     bool is_poller);

/* Withdrawals that found no room, as far as there is room now. */
bool connection_has_unsent(struct connection *connection);
void connection_send_unsent(struct connection *connection);

#endif
