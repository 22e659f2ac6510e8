/* SPDX-License-Identifier: MIT */
#include "libipc/client/client.h"

#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/client/dial.h"
#include "libipc/client/group.h"
#include "libipc/client/listener.h"
#include "libipc/client/location.h"
#include "libipc/client/options.h"
#include "libipc/client/thread.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/futex.h"
#include "libipc/platform/segment.h"

#define GRACE_NS_DEFAULT (2 * NS_PER_S)

static bool client_is(const ipc_client *client)
{
	return client && client->magic == CLIENT_MAGIC;
}

/* ---- connect ---- */

/* The two segments of the own uid, which come with WELCOME. */
static int client_map(ipc_client *client, struct connection_call *call)
{
	const struct message_welcome *welcome = &call->reply.welcome;
	void *desk;
	int r;

	if (call->n_fds != 3 || welcome->version != PROTOCOL_VERSION ||
	    welcome->desk.size < sizeof(struct desk))
		return IPC_EPROTO;

	r = table_get(&client->tables, &welcome->table, call->fds[0], welcome->uid, &client->table);
	if (r < 0)
		return r;

	r = segment_map(&desk, call->fds[1], welcome->desk.offset, welcome->desk.size, true);
	if (r < 0)
		return r;

	client->desk = desk;
	client->desk_id = welcome->desk.segment_id;
	client->desk_size = welcome->desk.size;
	client->slot = welcome->client_slot;
	client->uid = welcome->uid;
	client->is_foreign = welcome->is_foreign != 0;
	return 0;
}

/* What the broker says without having been asked. */
static void client_hear(void *userdata, const union message *message, int *fds, unsigned n_fds)
{
	ipc_client *client = userdata;

	if (message->head.type == MESSAGE_BELLS) {
		bells_take(client, &message->bells, fds, n_fds);
		return;
	}
	if (message->head.type == MESSAGE_JOINED) {
		group_hear(client, &message->joined, fds, n_fds);
		return;
	}
	if (message->head.type == MESSAGE_OFFER) {
		listener_hear(client, &message->offer, fds, n_fds);
		return;
	}

	for (unsigned i = 0; i < n_fds; ++i)
		(void)fd_close(fds[i]);
}

/* The bell, and the descriptor that it makes readable. */
static int client_take_bell(ipc_client *client, struct connection_call *call)
{
	struct forked_fds *forked = client->connection.fds;
	int r;

	r = fd_move_up(&call->fds[2]);
	if (r == 0)
		r = bells_init(&client->bells, call->fds[2]);
	if (r < 0)
		return r;

	call->fds[2] = -1;
	r = poll_set_init(&client->polls, client);
	if (r < 0) {
		bells_deinit(&client->bells, true);
		return r;
	}

	forked_fds_add(forked, client->bells.fd);
	forked_fds_add(forked, client->polls.epoll_fd);
	forked_fds_add(forked, client->polls.timer_fd);
	client->connection.news_userdata = client;
	client->connection.news_fn = client_hear;
	return 0;
}

static int client_dial(ipc_client *client, const struct ipc_client_options *options,
		       uint64_t deadline_ns)
{
	struct connection_call call;
	struct location location;
	struct dial dial = {
		.location = &location,
		.deadline_ns = deadline_ns,
		.connection = &client->connection,
		.call = &call,
	};
	int r;

	r = location_find(&location, options->address);
	if (r < 0)
		return r;

	dial.may_start = !location.is_given && !(options->flags & IPC_CLIENT_NO_AUTOSTART);
	r = dial_wait(&dial);
	if (r < 0)
		return r;

	r = client_map(client, &call);
	if (r == 0)
		r = client_take_bell(client, &call);
	connection_end(&client->connection, &call);
	if (r < 0)
		connection_deinit(&client->connection, false);
	return r;
}

static int client_new(ipc_client **ret, const struct ipc_client_options *options,
		      uint64_t deadline_ns)
{
	ipc_client *client;
	int r;

	client = calloc(1, sizeof(*client));
	if (!client)
		return IPC_ENOMEM;

	if (pthread_mutex_init(&client->groups_mutex, NULL) != 0) {
		free(client);
		return IPC_ENOMEM;
	}
	if (pthread_mutex_init(&client->listeners_mutex, NULL) != 0) {
		r = IPC_ENOMEM;
		goto deinit_groups;
	}

	r = table_list_init(&client->tables);
	if (r < 0)
		goto deinit_listeners;

	r = thread_process_init(&client->epoch, forked_close_all);
	if (r < 0)
		goto deinit_tables;

	client->magic = CLIENT_MAGIC;
	client->grace_ns = options->grace_ns ? options->grace_ns : GRACE_NS_DEFAULT;
	client->ignores_signals = options->flags & IPC_CLIENT_NO_EINTR;
	atomic_init(&client->n_refs, 1);

	r = client_dial(client, options, deadline_ns);
	if (r < 0)
		goto deinit_tables;

	*ret = client;
	return 0;

deinit_tables:
	table_list_deinit(&client->tables, false);
deinit_listeners:
	(void)pthread_mutex_destroy(&client->listeners_mutex);
deinit_groups:
	(void)pthread_mutex_destroy(&client->groups_mutex);
	free(client);
	return r;
}

int ipc_client_connect_wait(ipc_client **ret, const struct ipc_client_options *options,
			    const struct timespec *deadline)
{
	struct ipc_client_options known;
	uint64_t deadline_ns;
	int r;

	if (!ret)
		return IPC_EINVAL;

	r = options_copy(&known, sizeof(known), options);
	if (r < 0)
		return r;
	if (known.flags & ~(uint64_t)(IPC_CLIENT_NO_AUTOSTART | IPC_CLIENT_NO_EINTR))
		return IPC_EINVAL;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	return client_new(ret, &known, deadline_ns);
}

/* ---- references ---- */

ipc_client *ipc_client_ref(ipc_client *client)
{
	if (client_is(client))
		atomic_fetch_add_explicit(&client->n_refs, 1, memory_order_relaxed);

	return client;
}

static void client_free(ipc_client *client)
{
	bool is_foreign = thread_is_foreign(client->epoch);

	client->magic = 0;
	if (!is_foreign) {
		bool is_ours = connection_is_ours(&client->connection);

		poll_set_deinit(&client->polls, is_ours);
		bells_deinit(&client->bells, is_ours);
		(void)pthread_mutex_destroy(&client->groups_mutex);
		(void)pthread_mutex_destroy(&client->listeners_mutex);
	}
	connection_deinit(&client->connection, is_foreign);
	if (!is_foreign)
		segment_unmap(client->desk, client->desk_size);
	table_list_deinit(&client->tables, is_foreign);
	free(client);
}

ipc_client *ipc_client_unref(ipc_client *client)
{
	if (!client_is(client))
		return NULL;

	/* [R1] All that was done with the client is done before the last one frees it. */
	if (atomic_fetch_sub_explicit(&client->n_refs, 1, memory_order_acq_rel) == 1)
		client_free(client);

	return NULL;
}

int client_enter(ipc_client *client)
{
	if (!client_is(client))
		return IPC_EINVAL;
	if (thread_is_foreign(client->epoch))
		return IPC_ECHILD;
	if (thread_in_callback())
		return IPC_EDEADLK;

	(void)ipc_client_ref(client);
	return 0;
}

void client_leave(ipc_client *client)
{
	(void)ipc_client_unref(client);
}

/* ---- the calls that any place may make ---- */

/*
 * Who sleeps on the attention word alone is woken there: the word is the broker's and does not
 * move, so that one who is just going to sleep misses it until the end of its short slice.
 */
static void client_wake_fallback(const ipc_client *client)
{
	if (UNLIKELY(!futex_has_waitv()))
		futex_wake_all(client_attention(client));
}

void client_bump(ipc_client *client)
{
	connection_bump(&client->connection);
	client_wake_fallback(client);
}

int ipc_client_cancel(ipc_client *client)
{
	if (!client_is(client))
		return IPC_EINVAL;
	if (thread_is_foreign(client->epoch))
		return IPC_ECHILD;
	if (atomic_load_explicit(&client->connection.fault, memory_order_relaxed) == IPC_ESTALE)
		return IPC_ESTALE;

	connection_cancel(&client->connection);
	client_wake_fallback(client);
	poll_set_look_again(&client->polls);
	return 0;
}

int ipc_client_is_alive(ipc_client *client, uint64_t handle_id)
{
	const struct desk_cell *cell;

	if (!client_is(client))
		return IPC_EINVAL;
	if (thread_is_foreign(client->epoch))
		return IPC_ECHILD;
	if (atomic_load_explicit(&client->connection.fault, memory_order_relaxed) == IPC_ESTALE)
		return IPC_ESTALE;

	/* A handle of this user is closed from the moment when its owner says so, before the broker
	 * has heard of it. */
	cell = &client->desk->cell[LIVENESS_SLOT(handle_id)];
	if (atomic_load_explicit(&cell->closed_id, memory_order_acquire) == handle_id)
		return 0;

	return table_list_has_handle(&client->tables, handle_id);
}

/* ---- the broker's end ---- */

int client_check(ipc_client *client)
{
	uint64_t lost_ns, now_ns;
	int r;

	if (atomic_load_explicit(&client->table->domain, memory_order_acquire) == DOMAIN_ENDED)
		connection_lose(&client->connection);

	r = connection_check(&client->connection);
	if (r == 0 || r == IPC_ESTALE)
		return r;

	lost_ns = atomic_load_explicit(&client->connection.lost_ns, memory_order_relaxed);
	now_ns = clock_now_ns();
	return now_ns - lost_ns >= client->grace_ns && now_ns > lost_ns ? IPC_ECONNRESET : 0;
}
