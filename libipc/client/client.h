/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_CLIENT_H
#define LIBIPC_CLIENT_CLIENT_H

/*
 * A client: the control socket, the own user's liveness table and desk, and the tables of other
 * users.  The program's references and each open handle keep it; with the last of them the socket
 * is closed.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <ipc/client.h>
#include <ipc/queue.h>
#include <ipc/session.h>

#include "libipc/client/bell.h"
#include "libipc/client/connection.h"
#include "libipc/client/poll_set.h"
#include "libipc/client/table.h"
#include "libipc/core/liveness.h"
#include "libipc/core/waiter.h"

#define CLIENT_MAGIC UINT64_C(0x6970635f636c6e74)

struct ipc_client {
	uint64_t magic;
	_Atomic uint32_t n_refs;
	uint32_t epoch; /* thread_process_init() */
	uint64_t grace_ns;
	uint32_t slot; /* in every table's attention[] and the desk's client[] */
	uint32_t uid;  /* as the broker sees it */
	bool ignores_signals;
	bool is_foreign;                    /* of another pid namespace than the broker's */
	const struct liveness_table *table; /* of the own uid */
	struct desk *desk;
	uint64_t desk_id, desk_size;
	struct table_list tables;
	struct connection connection;
	pthread_mutex_t groups_mutex;    /* over `groups` and the coming of members */
	ipc_group *groups;               /* that are open */
	pthread_mutex_t listeners_mutex; /* over what follows, and what is offered to them */
	ipc_listener *listeners;         /* that are open */
	struct listener_offer *early_offers;
	unsigned n_listeners_opening;
	struct bells bells;
	struct poll_set polls;
	struct waiter_patience patience; /* of waits for several handles */
};

/*
 * At the begin of each call that takes a client, with client_leave() at its end (unref by another
 * thread takes nothing away in between). 0; IPC_EINVAL: not a client; IPC_ECHILD; IPC_EDEADLK: in a
 * callback.
 */
int client_enter(ipc_client *client);
void client_leave(ipc_client *client);

/* This client's word in its own user's table, which is bumped with each of its words in the tables
 * of others. */
static inline const _Atomic uint32_t *client_attention(const ipc_client *client)
{
	return &client->table->attention[client->slot].word;
}

/* Waits of this client look again: after a mark that ends some of them.  Async-signal-safe. */
void client_bump(ipc_client *client);

/*
 * Once a slice, by waits: 0; IPC_ESTALE: the socket is not ours any more; IPC_ECONNRESET: no broker
 * for longer than the grace time.
 */
int client_check(ipc_client *client);

#endif
